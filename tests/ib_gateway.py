"""A simulated TWS that the provider is pointed at, and checks of its feed."""

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

import piker_core as pk
from providers.ib.venue import HistoryLimits, Tape, Venue, open_venue
from providers.ib.venue_contracts import list_contracts

FUTURE, STOCK, FOREX = "mnq.cme", "aapl.nasdaq.ib", "eurusd.idealpro.ib"
INDEX, CRYPTO = "spx.cboe.ib", "btcusd.paxos.ib"
FAST = Tape(sample_s=0.05)
QUICK = {
    "SETTLE_S": "0.3",
    "PING_S": "2",
    "LIVENESS_S": "3",
    "RESTORE_S": "2",
    "FARM_GRACE_S": "1.0",
    "TICK_BY_TICK_INTERVAL_S": "0",
    "CONNECT_TIMEOUT_S": "10",
    "REQUEST_TIMEOUT_S": "10",
    "HISTORY_TIMEOUT_S": "10",
    "REFUSED_RETRY_S": "1",
    "IDENTICAL_S": "1",
}
"""Patience of a test: a server on loopback answers at once."""


def point(monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    """Set keys of `[ib]` by the environment, and leave out the user's file."""
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    monkeypatch.setenv("PIKER_FEED__SECONDS_BACK", "0")
    for key, value in (QUICK | settings).items():
        monkeypatch.setenv(f"PIKER_IB__{key.upper()}", str(value))


@asynccontextmanager
async def open_pointed(
    monkeypatch: pytest.MonkeyPatch, **options: Any
) -> AsyncIterator[Venue]:
    """A venue with some settings of the provider's that lead to it."""
    known = {"seed": 5, "live_rate": 80.0, "history_s": 900.0, "server_version": 178}
    settings = options.pop("settings", {})
    limits = HistoryLimits(identical_s=1.0)
    quick = {"tape": FAST, "history_limits": limits}
    async with open_venue(**(known | quick | options)) as venue:
        point(monkeypatch, port=venue.port, **settings)
        yield venue


async def wait_until(look: Callable[[], object]) -> None:
    while not look():
        await trio.sleep(0.02)


def front(venue: Venue) -> tuple[str, str]:
    """Full name and venue's symbol of the first future."""
    contract = next(
        each
        for each in list_contracts(datetime.now(UTC).date())
        if each.ticker == "MNQ"
    )
    assert venue.port and contract.expiry is not None
    return f"{FUTURE}.{contract.expiry:%Y%m%d}.ib", contract.symbol


def wrong_rows(
    venue: Venue,
    bars: pk.BarReader,
    symbol: str,
    *,
    what: str = "TRADES",
    settled_s: float = 1.0,
    fields: str = "ohlcvn",
) -> list[tuple[Any, ...]]:
    """Rows that are not the venue's own candles, and traded candles without a row.

    Of rows that ended less than `settled_s` ago trades may be on their way. `fields`
    names what is compared: open, high, low, close, volume, number of trades.
    """
    rows = bars.snapshot(bars.head - bars.first)
    rows = rows[rows["time"] + bars.period <= time.time() - settled_s]
    start, end = int(rows["time"][0]), int(rows["time"][-1]) + bars.period
    candles = {
        candle.time_s: candle
        for candle in venue.candles(symbol, bars.period, start, end, what=what)
    }
    times = set(rows["time"].tolist())
    wrong: list[tuple[Any, ...]] = [
        ("no row", at)
        for at, candle in candles.items()
        if candle.count > 0 and at not in times
    ]
    for row in rows:
        candle = candles[int(row["time"])]
        pairs = {
            "o": (row["open"], candle.open),
            "h": (row["high"], candle.high),
            "l": (row["low"], candle.low),
            "c": (row["close"], candle.close),
            "v": (round(float(row["volume"]), 8), candle.volume),
            "n": (row["count"], candle.count),
        }
        if any(float(pairs[name][0]) != float(pairs[name][1]) for name in fields):
            wrong.append((int(row["time"]), row, candle))
    return wrong


def volume_debt(venue: Venue, bars: pk.BarReader, symbol: str) -> list[float]:
    """By row: how much more the venue has traded since the first row than the rows say.

    Growth that a sample tells of lies in the second of its last trade, so there may be
    a debt until the second after, but never more than was traded.
    """
    rows = bars.snapshot(bars.head - bars.first)
    rows = rows[rows["time"] + bars.period <= time.time() - 2.0]
    start, end = int(rows["time"][0]), int(rows["time"][-1]) + bars.period
    traded = {
        candle.time_s: float(candle.volume)
        for candle in venue.candles(symbol, bars.period, start, end)
    }
    debt, debts = 0.0, []
    for row in rows:
        debt += traded[int(row["time"])] - float(row["volume"])
        debts.append(round(debt, 8))
    return debts


async def assert_paid(venue: Venue, bars: pk.BarReader, symbol: str) -> None:
    """Nothing was counted twice, and all was counted in the end.

    What was traded just before the first sample may lie in the first rows or not.
    """
    await wait_until(lambda: bars.head > bars.first + 11)
    debts = volume_debt(venue, bars, symbol)
    assert min(debts[-4:]) == min(debts[3:]), debts


def open_gaps(bars: pk.BarReader) -> int:
    gaps = bars.gaps()
    return int((gaps["repaired"] == 0).sum())


async def settle(flume: pk.Flume) -> None:
    """Live, and a few rows old."""
    await wait_until(lambda: flume.status == "live")
    head = flume.rt.head
    await wait_until(lambda: flume.rt.head > head)
    await wait_until(lambda: flume.rt.head > flume.rt.first + 2)


async def wait_repaired(flume: pk.Flume) -> None:
    """Live, at least one gap on record, and all of them repaired."""
    rt = flume.rt
    await wait_until(lambda: flume.status == "live" and len(rt.gaps()))
    await wait_until(lambda: not open_gaps(rt))
    head = rt.head
    await wait_until(lambda: rt.head > head + 1)
