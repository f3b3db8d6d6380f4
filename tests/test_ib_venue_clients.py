"""Clients by others (ib_async, the official ibapi) get the truth from the gateway."""

import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trio
from ib_venue_client import find

from providers.ib.venue import HistoryLimits, Tape, Venue, open_venue

PEERS = Path(__file__).with_name("ib_venue_peers.py")
LIMITS = HistoryLimits(same=100)
CENT = 1e-6
Got = dict[str, Any]


async def ask(peer: str, venue: Venue) -> Got:
    """What a client understood, in a process of its own."""
    command = [sys.executable, str(PEERS), peer, str(venue.port)]
    done = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert not noise(done.stderr.decode())
    got: Got = json.loads(done.stdout)
    return got


def noise(text: str) -> list[str]:
    """Lines of a client's log other than about the errors it was made to get."""
    lines = [line for line in text.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(("Error 200", "Error 162"))]


def needs(peer: str) -> pytest.MarkDecorator:
    """Skips where a client is not installed."""
    return pytest.mark.skipif(
        find_spec(peer) is None, reason=f"needs {peer}: pip install {peer}"
    )


@needs("ib_async")
@pytest.mark.parametrize("version", [157, 178])
async def test_ib_async_gets_the_truth(version: int) -> None:
    async with open_venue(
        seed=11, live_rate=200, server_version=version, history_limits=LIMITS,
        tape=Tape(lot=1),
    ) as venue:  # fmt: skip
        got = await ask("ib_async", venue)
        assert got["version"] == version
        assert got["accounts"] == ["DU1234567"]
        assert ["NetLiquidation", "100000.00"] in got["values"]
        assert got["qualified"] == 265598
        assert got["unknown"] == []
        assert got["empty"] == 0
        check_details(venue, got, lots=False)
        spans = got["open"]
        assert [begin for begin, _ in spans[1:]] == [end for _, end in spans[:-1]]
        check_history(venue, got)
        assert [row - got["named"][0] for row in got["named"]] == list(
            range(0, 600, 60)
        )
        ticker = got["ticker"]
        check_ticks(venue, ticker)
        assert ticker["bid"] < ticker["ask"]
        assert ticker["last"] in {row.price for row in venue.trades("AAPL")}
        assert ticker["volumes"] == sorted(ticker["volumes"])
        assert ticker["volumes"][-1] <= ticker["volume"] <= venue.volume("AAPL")
        codes = [code for _, code, _ in got["errors"]]
        assert sorted(set(codes)) == [162, 200, 2104, 2106, 2158]
        assert venue.statistics().message_rate < 50
        await all_gone(venue)


@needs("ibapi")
@pytest.mark.parametrize("version", [157, 178])
async def test_the_official_client_gets_the_truth(version: int) -> None:
    async with open_venue(
        seed=12, live_rate=200, server_version=version, history_limits=LIMITS,
        tape=Tape(lot=1),
    ) as venue:  # fmt: skip
        got = await ask("ibapi", venue)
        assert got["version"] == 157
        assert got["accounts"] == ["DU1234567"]
        check_details(venue, got, lots=True)
        check_history(venue, got)
        check_ticks(venue, got)
        assert got["done"]
        assert got["bid"] < got["ask"]
        assert got["volumes"] == sorted(got["volumes"])
        totals = [int(text.split(";")[3]) for text in got["rt_volumes"]]
        assert set(totals) <= set(got["volumes"])
        assert got["volumes"][-1] <= venue.volume("AAPL")
        codes = [code for _, code, _ in got["errors"]]
        assert sorted(set(codes)) == [162, 200, 2104, 2106, 2158]
        assert (110, 200) in [(number, code) for number, code, _ in got["errors"]]
        await all_gone(venue)


async def all_gone(venue: Venue) -> None:
    """Wait until nobody is connected any more."""
    with trio.fail_after(10):
        while venue.statistics().connections:
            await trio.sleep(0.01)


def check_details(venue: Venue, got: Got, *, lots: bool) -> None:
    """Contract details of each class are what the venue lists."""
    expected = {
        "STK": ["AAPL"],
        "FUT": [name for name in names(venue) if name.startswith("ES")],
        "OPT": [name for name in names(venue) if name.startswith("AAPL ")],
        "CASH": ["EUR.USD"],
        "IND": ["SPX"],
        "CRYPTO": ["BTC.USD"],
    }
    assert got["details"].keys() == expected.keys()
    for kind, rows in got["details"].items():
        assert [row[3] for row in rows] == expected[kind]
        for row in rows:
            contract = venue.market(row[3]).pair
            expiry = f"{contract.expiry:%Y%m%d}" if contract.expiry else ""
            assert row[:3] == [contract.con_id, contract.ticker, kind]
            assert row[4:8] == [
                *(expiry, contract.strike, contract.right, contract.multiplier)
            ]
            assert row[9] == contract.currency
            assert row[10] == float(contract.tick)
            assert row[11] == contract.hours.zone
            assert row[12] == venue.market(row[3]).hours.text(int(time.time()))
            assert row[13] == contract.long_name
            assert row[14] == ",".join(contract.exchanges)
            assert row[15] == contract.under_con_id
            if lots:
                assert row[17] == 1
    assert got["samples"] == [["AAPL", "STK", ["OPT"]]]


def names(venue: Venue) -> list[str]:
    """Every symbol that is listed."""
    return [market.pair.symbol for market in venue.markets]


def check_history(venue: Venue, got: Got) -> None:
    """Bars, ticks and the head time are the venue's."""
    begin_s, end_s = int(got["bars"][0][0]), int(got["bars"][-1][0]) + 5
    assert len(got["bars"]) == 120
    candles = venue.candles("AAPL", 5, begin_s, end_s)
    for row, bar in zip(got["bars"], candles, strict=True):
        prices = (bar.open, bar.high, bar.low, bar.close)
        assert row[:5] == [bar.time_s, *map(float, prices)]
        assert (row[5], row[7]) == (bar.volume, bar.count)
        assert row[6] == pytest.approx(float(bar.vwap), abs=1e-5)
    begin_s = int(got["middles"][0][0])
    middles = venue.candles("EUR.USD", 60, begin_s, begin_s + 600, what="MIDPOINT")
    assert [row[1] for row in got["middles"]] == pytest.approx(
        [float(bar.open) for bar in middles], abs=CENT
    )
    truth = venue.trades("AAPL")
    shown = [(row.time_ns // 10**9, row.price, row.size) for row in truth]
    ticks = [tuple(row) for row in got["ticks"]]
    assert len(ticks) >= 100
    find(ticks, shown)
    assert got["head"] == truth[0].time_ns // 10**9


def check_ticks(venue: Venue, got: Got) -> None:
    """Every trade came once and in order, quotes and bars of 5 s are the venue's."""
    truth = [(row.price, row.size) for row in venue.trades("AAPL")]
    told = [tuple(row)[-2:] for row in got["trades"]]
    find(told, truth)
    quotes = {(row.bid, row.ask) for row in venue.quotes("EUR.USD")}
    first = 1 if len(got["quotes"][0]) > 2 else 0  # with the time before it
    assert {tuple(row[first : first + 2]) for row in got["quotes"]} <= quotes
    begin_s = int(got["five"][0])
    (bar,) = venue.candles("AAPL", 5, begin_s, begin_s + 5)
    assert got["five"][1:6] == [
        *map(float, (bar.open, bar.high, bar.low, bar.close, bar.volume))
    ]
    assert got["five"][7] == bar.count
