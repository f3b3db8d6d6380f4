"""The simulated gateway's market data, sampled and tick by tick, are the truth."""

import itertools
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import trio
from ib_venue_client import (
    AAPL,
    BITCOIN,
    EURO,
    INDEX,
    NEW,
    OLD,
    Client,
    Fields,
    find,
    open_client,
    twelve,
)

from providers.ib.venue import Limits, Tape, Venue, open_venue

FAST = Tape(sample_s=0.05)
BURST = Tape(sample_s=0)
"""Market data that are sent with each burst of trades."""


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(
        seed=7, history_s=600, live_rate=400, server_version=NEW, tape=FAST
    ) as opened:
        yield opened


@pytest.fixture
async def client(venue: Venue) -> AsyncIterator[Client]:
    async with open_client(venue) as opened:
        yield opened


def sizes(client: Client, tick: int) -> list[Decimal]:
    """All sizes received of a tick type."""
    rows = (row for row in client.frames if row[0] == "2" and row[3] == str(tick))
    return [Decimal(row[4]) for row in rows]


def prices(client: Client, tick: int) -> list[tuple[float, Decimal]]:
    """All prices received of a tick type, with their sizes."""
    rows = (row for row in client.frames if row[0] == "1" and row[3] == str(tick))
    return [(float(row[4]), Decimal(row[5])) for row in rows]


def rt_volumes(client: Client, tick: int = 48) -> list[tuple[Any, ...]]:
    """All RTVolume received: price, size, time in ms, total, vwap, single."""
    rows = (row for row in client.frames if row[0] == "46" and row[3] == str(tick))
    found = []
    for row in rows:
        price, size, stamp, total, vwap, single = row[4].split(";")
        assert single in ("true", "false")
        found.append(
            (float(price), Decimal(size), int(stamp), Decimal(total), float(vwap))
        )
    return found


async def collect(client: Client, tick: int, count: int) -> None:
    """Read until a tick type has come so often, as a size or a string."""
    for _ in range(count):
        await client.wait(lambda row: row[0] in "2 46" and row[3] == str(tick))


# Market data


async def test_market_data_begin_with_all_that_is_known(
    venue: Venue, client: Client
) -> None:
    await client.market_data(4, AAPL)
    await client.wait(lambda row: row[0] == "45")
    rows = client.frames[-13:]
    assert rows[0] == ["81", "4", "0.01", "9c0001", "3"]
    assert rows[1] == ["58", "1", "4", "1"]
    assert rows[-1] == ["45", "6", "4", "49", "0"]
    kinds = {row[3] for row in rows[2:]}
    assert kinds == {"1", "2", "4", "5", "6", "7", "8", "9", "14", "45", "49"}
    assert all(row[1:3] == ["6", "4"] for row in rows[2:])
    (bid, _), (ask, _) = prices(client, 1)[0], prices(client, 2)[0]
    assert bid < ask
    assert venue.statistics().lines == 1


async def test_the_volume_grows_by_what_was_traded(venue: Venue) -> None:
    async with open_client(venue) as client:
        await client.market_data(4, AAPL, "233")
        await collect(client, 8, 12)
        first, *_, last = sizes(client, 8)
        day_ns = venue.market("AAPL").day_begin_ns(time.time_ns())
        truth = [
            row.exact_size for row in venue.trades("AAPL") if row.time_ns >= day_ns
        ]
        totals = list(itertools.accumulate(truth))
        assert first in totals
        assert last in totals
        assert sorted(sizes(client, 8)) == sizes(client, 8)
        last_sizes = sum(sizes(client, 5)[1:])
        assert last_sizes < last - first  # trades between two samples are not seen


async def test_each_burst_is_told_when_nothing_is_sampled() -> None:
    async with open_venue(
        seed=2, history_s=60, live_rate=200, server_version=NEW, tape=BURST
    ) as venue:
        async with open_client(venue) as client:
            await client.market_data(4, AAPL, "233")
            await collect(client, 48, 60)
        told = rt_volumes(client)
        truth = venue.trades("AAPL")
    stamps = [row[2] for row in told]
    bursts: dict[int, list[Any]] = {}
    for trade in truth:
        bursts.setdefault(trade.time_ns, []).append(trade)
    inside = [
        rows
        for time_ns, rows in bursts.items()
        if stamps[0] <= time_ns // 10**6 <= stamps[-1]
    ]
    assert [rows[-1].time_ns // 10**6 for rows in inside] == stamps
    assert [(rows[-1].price, rows[-1].exact_size) for rows in inside] == [
        row[:2] for row in told
    ]
    grown = [
        sum((trade.exact_size for trade in rows), Decimal(0)) for rows in inside[1:]
    ]
    steps = [after[3] - before[3] for before, after in itertools.pairwise(told)]
    assert steps == grown


async def test_the_vwap_is_that_of_the_days_trades(venue: Venue) -> None:
    async with open_client(venue) as client:
        await client.market_data(4, AAPL, "233")
        await collect(client, 48, 3)
        price, _, stamp, total, vwap = rt_volumes(client)[-1]
        truth = [
            trade for trade in venue.trades("AAPL") if trade.time_ns // 10**6 <= stamp
        ]
    volume = Decimal(0)
    notional = Decimal(0)
    for trade in reversed(truth):
        volume += trade.exact_size
        notional += trade.exact_size * trade.exact_price
        if volume == total:
            break
    assert volume == total
    assert vwap == pytest.approx(float(notional / volume), abs=1e-4)
    assert price == truth[-1].price


async def test_small_trades_count_but_are_not_printed() -> None:
    tape = Tape(sample_s=0, print_min=100)
    async with open_venue(
        seed=4, history_s=60, live_rate=400, server_version=NEW, tape=tape
    ) as venue:
        async with open_client(venue) as client:
            await client.market_data(4, AAPL, "233,375")
            await client.tick_by_tick(5, AAPL, "Last")
            await client.tick_by_tick(6, AAPL, "AllLast")
            await collect(client, 48, 30)
            volume = sizes(client, 8)
            ticks = [row for row in client.frames if row[0] == "99"]
            reported = rt_volumes(client, 77)
            all_told = rt_volumes(client)[: len(reported)]
    assert min(size for _, size, *_ in rt_volumes(client)) >= 100
    assert min(sizes(client, 5)) >= 100
    assert len(volume) > len(rt_volumes(client))
    assert reported[-1][3] < all_told[-1][3]
    assert [row[:3] for row in reported] == [row[:3] for row in all_told]
    last = [Decimal(row[5]) for row in ticks if row[1] == "5"]
    every = [(Decimal(row[5]), row[6], row[8]) for row in ticks if row[1] == "6"]
    assert min(last) >= 100
    assert {row[1:] for row in every if row[0] < 100} == {("2", "   I")}
    assert {row[1:] for row in every if row[0] >= 100} == {("0", "")}


async def test_old_clients_get_lots_of_us_stocks(venue: Venue) -> None:
    async with open_client(venue, 1, high=OLD) as old, open_client(venue, 2) as new:
        await old.market_data(4, AAPL, snapshot=True)
        await new.market_data(4, AAPL, snapshot=True)
        for client in (old, new):
            await client.wait_id(57)
    (lots,), (shares,) = sizes(old, 8), sizes(new, 8)
    assert lots * 100 <= shares
    assert shares - lots * 100 < 20_000


async def test_the_lot_can_be_set() -> None:
    async with open_venue(history_s=60, live_rate=0, tape=Tape(lot=1)) as venue:
        async with open_client(venue) as client:
            await client.market_data(4, AAPL, snapshot=True)
            await client.wait_id(57)
        assert sizes(client, 8) == [Decimal(venue.volume("AAPL"))]


async def test_a_snapshot_ends_by_itself(venue: Venue, client: Client) -> None:
    await client.market_data(4, AAPL, snapshot=True)
    assert await client.wait_id(57) == ["57", "1", "4"]
    assert venue.statistics().lines == 0
    await client.market_data(5, AAPL, "233", snapshot=True)
    assert (await client.wait_error(5))[0] == 321
    await client.market_data(6, AAPL, "1")
    code, text = await client.wait_error(6)
    assert (code, "Incorrect generic tick list of 1" in text) == (321, True)


async def test_cancelled_data_stop_and_twice_is_error_300(client: Client) -> None:
    await client.market_data(4, AAPL, "233")
    await collect(client, 48, 2)
    await client.send(2, 2, 4)
    await client.sync()
    seen = len(client.frames)
    await trio.sleep(0.3)
    await client.sync()
    assert [row[0] for row in client.frames[seen:]] == ["49"]
    await client.send(2, 2, 4)
    assert await client.wait_error(4) == (300, "Can't find EId with tickerId:4")


async def test_an_id_in_use_is_error_322_and_too_many_lines_101() -> None:
    async with open_venue(history_s=0, limits=Limits(lines=2)) as venue:
        async with open_client(venue) as client:
            await client.market_data(4, AAPL)
            await client.market_data(4, AAPL)
            assert (await client.wait_error(4))[0] == 322
            await client.market_data(5, AAPL)
            await client.market_data(6, AAPL)
            assert (await client.wait_error(6))[0] == 101
            await client.send(2, 2, 4)
            await client.market_data(6, AAPL, snapshot=True)
            await client.wait_id(57)


async def test_without_permission_data_are_delayed_or_error_354() -> None:
    tape = Tape(sample_s=0.05, delay_s=5)
    async with open_venue(
        seed=5, history_s=60, live_rate=200, server_version=NEW, tape=tape
    ) as venue:
        venue.faults.refuse_symbol("AAPL")
        async with open_client(venue) as client:
            await client.market_data(4, AAPL)
            code, text = await client.wait_error(4)
            assert code == 354
            assert text.startswith("Requested market data is not subscribed.")
            await client.send(59, 1, 3)
            await client.market_data(5, AAPL, "233")
            assert (await client.wait_error(5))[0] == 10167
            assert await client.wait_id(58) == ["58", "1", "5", "3"]
            await collect(client, 74, 3)
            truth = venue.trades("AAPL")
            stamps = {int(row[4]) for row in client.frames if row[3:4] == ["88"]}
            kinds = {int(row[3]) for row in client.frames if row[0] in ("1", "2")}
            assert kinds <= set(range(66, 77))
            assert stamps <= {trade.time_ns // 10**9 for trade in truth}
            assert max(stamps) <= truth[-1].time_ns // 10**9 - 4
            assert not rt_volumes(client)
            await client.tick_by_tick(6, AAPL)
            code, text = await client.wait_error(6)
            assert code == 10189
            assert text.startswith("Failed to request tick-by-tick data.")
            assert text.endswith("No market data permissions for NASDAQ STK")


async def test_forex_is_quoted_and_never_prints(venue: Venue, client: Client) -> None:
    await client.market_data(4, EURO, "233")
    while len(prices(client, 1)) < 5:
        await client.read()
    kinds = {row[3] for row in client.frames if row[0] in ("1", "2", "46")}
    assert kinds <= {"0", "1", "2", "3", "9"}
    quotes = {(row.bid, row.bid_size) for row in venue.quotes("EUR.USD")}
    assert {(price, float(size)) for price, size in prices(client, 1)} <= quotes
    await client.tick_by_tick(5, EURO, "AllLast")
    code, text = await client.wait_error(5)
    assert code == 10189
    assert text.endswith("AllLast tick-by-tick requests are not supported for EUR.USD")


async def test_an_index_prints_without_sizes(client: Client) -> None:
    await client.market_data(4, INDEX, "233")
    while len(prices(client, 4)) < 3:
        await client.read()
    assert {size for _, size in prices(client, 4)} == {Decimal(0)}
    kinds = {row[3] for row in client.frames if row[0] in ("1", "2", "46")}
    assert kinds <= {"4", "5", "6", "7", "9", "14", "45"}
    await client.tick_by_tick(5, INDEX, "Last")
    assert (await client.wait_error(5))[0] == 10189


async def test_fractions_of_a_coin_need_a_new_client(venue: Venue) -> None:
    async with open_client(venue, 1, high=162) as old:
        await old.market_data(4, BITCOIN)
        assert (await old.wait_error(4))[0] == 10285
    async with open_client(venue, 2) as new:
        await new.market_data(4, BITCOIN, "233")
        await collect(new, 48, 2)
        truth = {row.exact_size for row in venue.trades("BTC.USD")}
        assert {size for _, size, *_ in rt_volumes(new)} <= truth


# Tick by tick


async def ticks(client: Client, count: int) -> list[Fields]:
    """So many messages of ticks by tick."""
    return [await client.wait_id(99) for _ in range(count)]


async def test_every_trade_comes_once_and_in_order(venue: Venue) -> None:
    async with open_client(venue) as client:
        await client.tick_by_tick(4, AAPL)
        told = await ticks(client, 120)
        truth = venue.trades("AAPL")
    assert {row[1:3] == ["4", "2"] for row in told} == {True}
    shown = [(int(row[3]), float(row[4]), Decimal(row[5])) for row in told]
    known = [(row.time_ns // 10**9, row.price, row.exact_size) for row in truth]
    find(shown, known)
    assert {row[6] for row in told} == {"0"}
    assert {row[7] for row in told} <= {"NYSE", "AMEX", "CBOE", "ISE", "ARCA"} | {
        "NASDAQ",
        "BATS",
        "IEX",
    }


async def test_every_quote_comes_once_and_its_midpoint(venue: Venue) -> None:
    async with open_client(venue) as client:
        await client.tick_by_tick(4, EURO, "BidAsk")
        await client.tick_by_tick(5, EURO, "MidPoint")
        told: list[Fields] = []
        while len(told) < 60:
            told.append(await client.wait_id(99))
        truth = venue.quotes("EUR.USD")
    quotes = [row for row in told if row[1] == "4"]
    shown = [tuple(map(float, row[3:8])) for row in quotes]
    known = [
        (row.time_ns // 10**9, row.bid, row.ask, row.bid_size, row.ask_size)
        for row in truth
    ]
    at = find(shown, known)
    middles = [float(row[4]) for row in told if row[1] == "5"]
    expected = [(row.bid + row.ask) / 2 for row in truth[at : at + len(middles)]]
    assert middles == pytest.approx(expected, abs=1e-9)


async def test_tick_by_tick_slots_are_few_and_free_again(venue: Venue) -> None:
    venue.faults.slots(2)
    async with open_client(venue, 1) as first, open_client(venue, 2) as second:
        await first.tick_by_tick(1, AAPL)
        await second.tick_by_tick(1, EURO, "BidAsk")
        await second.tick_by_tick(2, AAPL)
        assert await second.wait_error(2) == (
            10190,
            "Max number of tick-by-tick requests has been reached.",
        )
        await first.send(98, 1)
        await first.sync()
        await second.tick_by_tick(2, AAPL)
        while (await second.wait_id(99))[1] != "2":
            pass
        await second.tick_by_tick(3, AAPL, "Trades")
        assert (await second.wait_error(3))[0] == 321


# Bars of five seconds


async def test_real_time_bars_are_those_of_the_trades(venue: Venue) -> None:
    async with open_client(venue) as client:
        for number, (contract, what) in enumerate(
            ((AAPL, "TRADES"), (EURO, "MIDPOINT"), (BITCOIN, "AGGTRADES")), start=1
        ):
            shown = (5, what, False, "")
            await client.send(50, 3, number, *twelve(contract), *shown)
        await client.send(50, 3, 4, *twelve(BITCOIN), 5, "TRADES", False, "")
        assert (await client.wait_error(4))[0] == 10299
        await client.send(50, 3, 5, *twelve(EURO), 5, "TRADES", False, "")
        assert (await client.wait_error(5))[0] == 162
        rows = [await client.wait_id(50) for _ in range(3)]
        begin_s = int(rows[0][3])
        assert begin_s % 5 == 0
        for row in rows:
            assert int(row[3]) == begin_s
            what, name = {
                "1": ("TRADES", "AAPL"),
                "2": ("MIDPOINT", "EUR.USD"),
                "3": ("AGGTRADES", "BTC.USD"),
            }[row[2]]
            (bar,) = venue.candles(name, 5, begin_s, begin_s + 5, what=what)
            exact = (bar.open, bar.high, bar.low, bar.close, bar.volume)
            assert tuple(map(Decimal, row[4:9])) == exact
            assert int(row[10]) == bar.count
        assert rows[1][8:] == ["-1", "-1", "-1"]
        await client.send(51, 1, 1)
        await client.sync()
        await client.send(51, 1, 1)
        assert (await client.wait_error(1))[0] == 300
