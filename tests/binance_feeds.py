"""What the tests of Binance's feed share: a venue to be pointed at, truth, patience."""

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import numpy as np
import pytest
import trio

import piker_core as pk
from providers.binance.venue import Venue, open_venue

SPOT, THIN = "btcusdt.binance", "ethbtc.binance"
PERP, DATED = "btcusdt.usdtm.perp.binance", "btcusdt.usdtm.20301227.binance"
BOTH = [SPOT, PERP]
PATIENCE_S = 20.0
Point = Callable[..., AbstractAsyncContextManager[Venue]]


def set_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short deadlines, and no configuration of the user's."""
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    monkeypatch.setenv("PIKER_BINANCE__LIVENESS_S", "2")
    monkeypatch.setenv("PIKER_BINANCE__ACK_TIMEOUT_S", "3")
    monkeypatch.setenv("PIKER_FEED__SECONDS_BACK", "0")


def make_point(monkeypatch: pytest.MonkeyPatch) -> Point:
    """Opens a venue that the provider is pointed at."""

    @asynccontextmanager
    async def open_pointed(**options: Any) -> AsyncIterator[Venue]:
        known = {"seed": 5, "live_rate": 100.0, "history_s": 900.0}
        async with open_venue(**(known | options)) as venue:
            for key, url in venue.config.items():
                monkeypatch.setenv(f"PIKER_BINANCE__{key.upper()}", url)
            yield venue

    return open_pointed


async def wait_until(look: Callable[[], Any]) -> None:
    while not look():
        await trio.sleep(0.02)


def closed_rows(bars: pk.BarReader, until_s: float | None = None) -> Any:
    """Rows that ended before a time, by default now."""
    rows = bars.snapshot(bars.head - bars.first)
    return rows[rows["time"] + bars.period <= (until_s or time.time())]


def differences(venue: Venue, bars: pk.BarReader, until_s: float) -> list[str]:
    """Rows that are not the venue's own candles in a field, and candles without a row.

    A candle that traded must have a row; where the feed was down others need not.
    """
    rows = closed_rows(bars, until_s)
    name = bars.fqme.rpartition(".")[0]
    start, end = int(rows["time"][0]), int(rows["time"][-1]) + bars.period
    candles = {c.time_s: c for c in venue.candles(name, bars.period, start, end)}
    times = set(rows["time"].tolist())
    missing = [c for t, c in candles.items() if c.count and t not in times]
    wrong = [f"no row of {candle}" for candle in missing]
    for row in rows:
        c = candles[int(row["time"])]
        want = [float(price) for price in (c.open, c.high, c.low, c.close)]
        got = [row[field] for field in ("open", "high", "low", "close")]
        wap = float(c.notional / c.volume) if c.count else float(c.close)
        cut = 1e-8 / float(c.volume or 1)  # spot's klines have costs of 8 decimals
        if (
            want != got
            or row["count"] != c.count
            or round(float(row["volume"]), 8) != float(c.volume)
            or not np.isclose(row["bar_wap"], wap, rtol=1e-12, atol=cut)
        ):
            wrong.append(f"{row} is not {c}")
    return [f"{bars.fqme} {bars.period} s: {text}" for text in wrong]


async def find_differences(venue: Venue, feed: pk.Feed) -> list[str]:
    """What is not the venue's own of all rows that have ended by now.

    Their last trades may be on their way: they are waited for, on a busy machine long.
    """
    until_s, found = time.time(), ["not looked at"]
    with trio.move_on_after(PATIENCE_S):
        while found:
            await trio.sleep(0.2)
            found = [
                text
                for flume in feed.flumes.values()
                for bars in (flume.rt, flume.hist)
                for text in differences(venue, bars, until_s)
            ]
    return found


async def check_exact(venue: Venue, feed: pk.Feed) -> None:
    """Every row of every ring is the venue's, and there are some."""
    for flume in feed.flumes.values():
        assert len(closed_rows(flume.rt)) and len(closed_rows(flume.hist))
    found = await find_differences(venue, feed)
    if found:
        gaps = [flume.rt.gaps().tolist() for flume in feed.flumes.values()]
        raise AssertionError("\n".join([*found[:5], *map(str, gaps)]))


def open_gaps(bars: pk.BarReader) -> int:
    return int((bars.gaps()["repaired"] == 0).sum())


async def settle(feed: pk.Feed) -> None:
    """All are live and a row older, with some that can be compared."""
    for flume in feed.flumes.values():
        await wait_until(lambda flume=flume: flume.status == "live")
    heads = {fqme: flume.rt.head for fqme, flume in feed.flumes.items()}
    for fqme, flume in feed.flumes.items():
        await wait_until(lambda rt=flume.rt, head=heads[fqme]: rt.head > head)
        await wait_until(lambda rt=flume.rt: len(closed_rows(rt)))
        await wait_until(lambda hist=flume.hist: len(closed_rows(hist)))


async def wait_repaired(feed: pk.Feed) -> None:
    """All are live, with gaps on record that are repaired, and a row older."""
    flumes = feed.flumes.values()
    while True:
        for flume in flumes:
            await wait_until(lambda rt=flume.rt: len(rt.gaps()))
            await wait_until(lambda flume=flume: flume.status == "live")
            await wait_until(lambda rt=flume.rt: not open_gaps(rt))
        await settle(feed)
        if not any(open_gaps(flume.rt) for flume in flumes):
            return  # else another one has opened meanwhile


def stream_of(feed: pk.Feed, fqme: str) -> dict[str, int]:
    """Counters of the stream that tells of a market's trades."""
    counters: dict[str, int] = feed.statistics()[fqme]["stream"]
    return counters
