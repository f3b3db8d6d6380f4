"""The simulated Binance tells the truth: trades, aggregates, klines and books agree."""

import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from binance_venue_client import (
    MS,
    Client,
    as_trade,
    combined,
    from_event,
    open_client,
    usdm,
)

from providers.binance.venue import (
    Venue,
    VenueTrade,
    make_crowd,
    open_venue,
)

NS = 10**9
QUIET = "xrpeth"  # it never trades live
SIDES = {"btcusdt": "", "btcusdt.usdtm.perp": "fapi/v1"}


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(seed=7, history_s=600, live_rate=1200) as opened:
        yield opened


def streams(venue: Venue, name: str, *kinds: str, route: str = "/public") -> str:
    """The URL of streams of a symbol, and their names."""
    names = [f"{name.partition('.')[0]}@{kind}" for kind in kinds]
    return usdm(venue, route, *names) if "." in name else combined(venue, *names)


async def collect(client: Client, count: int) -> list[dict[str, Any]]:
    """The events of so many messages."""
    return [(await client.read())["data"] for _ in range(count)]


# Trades and aggregates


@pytest.mark.parametrize("name", SIDES)
async def test_trades_received_equal_those_of_the_venue(
    venue: Venue, name: str
) -> None:
    async with open_client(streams(venue, name, "trade")) as client:
        received = [from_event(row) for row in await collect(client, 150)]
    truth = {row.trade_id: as_trade(row) for row in venue.trades(name)}
    ids = [row[0] for row in received]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert received == [truth[number] for number in ids]


async def test_an_event_is_made_when_its_trade_happens(venue: Venue) -> None:
    url = combined(venue, "btcusdt@trade") + "&timeUnit=MICROSECOND"
    async with open_client(url) as client:
        events = await collect(client, 100)
    truth = {row.trade_id: row.time_ns // 1000 for row in venue.trades("btcusdt")}
    for event in events:
        assert event["T"] == truth[event["t"]]
        assert event["E"] >= event["T"]


def group(trades: list[VenueTrade]) -> list[list[VenueTrade]]:
    """Consecutive trades of one time, price and side."""
    return [
        list(rows)
        for _, rows in itertools.groupby(
            trades, lambda row: (row.time_ns, row.exact_price, row.side)
        )
    ]


@pytest.mark.parametrize("name", SIDES)
async def test_aggregates_are_consecutive_trades_of_one_taker_time_and_price(
    venue: Venue, name: str
) -> None:
    url = streams(venue, name, "aggTrade", route="/market")
    async with open_client(url) as client:
        events = await collect(client, 150)
    groups = {rows[0].trade_id: rows for rows in group(venue.trades(name))}
    numbers = [row["a"] for row in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    for event in events:
        rows = groups[event["f"]]
        assert event["l"] - event["f"] + 1 == len(rows)
        assert Decimal(event["p"]) == rows[0].exact_price
        assert Decimal(event["q"]) == sum(row.exact_size for row in rows)
        assert event["T"] == rows[0].time_ns // MS
        assert event["m"] == (rows[0].side == "sell")
    assert max(row["l"] - row["f"] for row in events) > 0
    joined = [(row["f"], row["l"]) for row in events]
    assert all(b[0] == a[1] + 1 for a, b in itertools.pairwise(joined))


# Klines


def sums(trades: list[VenueTrade]) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """Volume and turnover of trades, then the same of those whose taker bought."""
    bought = [row for row in trades if row.side == "buy"]
    volumes = [
        sum((row.exact_size for row in rows), Decimal(0)) for rows in (trades, bought)
    ]
    turnovers = [
        sum((row.exact_size * row.exact_price for row in rows), Decimal(0))
        for rows in (trades, bought)
    ]
    return volumes[0], turnovers[0], volumes[1], turnovers[1]


async def test_closed_klines_are_the_sums_of_their_trades_flat_ones_included(
    venue: Venue,
) -> None:
    names = ("btcusdt", "dogeusdt", QUIET)
    bars: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    streams = [f"{name}@kline_1s" for name in names]
    async with open_client(combined(venue, *streams)) as client:
        while any(len(rows) < 3 for rows in bars.values()):
            bar = (await client.read())["data"]["k"]
            bars[bar["s"].lower()] += [bar] if bar["x"] else []
    for name, rows in bars.items():
        check_klines(venue, name, rows[:3])


def check_klines(venue: Venue, name: str, bars: list[dict[str, Any]]) -> None:
    """Whether three closed bars of a second are the sums of their trades."""
    trades = defaultdict(list)
    for trade in venue.trades(name):
        trades[trade.time_ns // NS * 1000].append(trade)
    opens = [bar["t"] for bar in bars]
    assert opens == [opens[0] + 1000 * number for number in range(3)]
    for bar in bars:
        inside = trades[bar["t"]]
        assert bar["n"] == len(inside)
        figures = [Decimal(bar[key]) for key in "vqVQ"]
        assert figures == list(sums(inside))
        if inside:
            prices = [row.exact_price for row in inside]
            wanted = (prices[0], prices[-1], max(prices), min(prices))
            assert (bar["f"], bar["L"]) == (inside[0].trade_id, inside[-1].trade_id)
        else:
            before = [row for row in venue.trades(name) if row.time_ns < bar["t"] * MS]
            wanted = (before[-1].exact_price,) * 4
            assert (bar["f"], bar["L"]) == (-1, -1)
        assert tuple(Decimal(bar[key]) for key in "ochl") == wanted


async def test_running_klines_are_exact_at_each_update(venue: Venue) -> None:
    url = usdm(venue, "/market", "btcusdt@kline_5m")
    async with open_client(url) as client:
        events = await collect(client, 6)
    name = "btcusdt.usdtm.perp"
    counts = [row["k"]["n"] for row in events if not row["k"]["x"]]
    assert counts == sorted(counts)
    assert len(set(counts)) == len(counts)
    bar = events[-1]["k"]
    inside = [row for row in venue.trades(name) if bar["f"] <= row.trade_id <= bar["L"]]
    assert bar["n"] == len(inside)
    assert [Decimal(bar[key]) for key in "vqVQ"] == list(sums(inside))
    assert inside[0].time_ns // NS // 300 == bar["t"] // 1000 // 300
    assert bar["T"] - bar["t"] == 299_999


async def test_candles_are_the_sums_of_the_trades_flat_ones_included(
    venue: Venue,
) -> None:
    candles = venue.candles(QUIET, 1, 0, 2**40)
    trades = defaultdict(list)
    for trade in venue.trades(QUIET):
        trades[trade.time_ns // NS].append(trade)
    assert candles[0].time_s == min(trades)
    for before, candle in itertools.pairwise(candles):
        assert candle.time_s == before.time_s + 1
        inside = trades[candle.time_s]
        assert candle.count == len(inside)
        assert (candle.volume, candle.notional) == sums(inside)[:2]
        prices = [trade.exact_price for trade in inside] or [before.close]
        assert (candle.open, candle.close) == (prices[0], prices[-1])


# Quotes and books


@pytest.mark.parametrize("name", SIDES)
async def test_a_book_kept_by_the_documents_is_the_book_of_the_venue(name: str) -> None:
    async with open_venue(seed=7, history_s=600) as venue, httpx.AsyncClient() as http:
        url = venue.config["usdm_rest_url" if SIDES[name] else "rest_url"]
        path = f"{url}/{SIDES[name] or 'api/v3'}/depth?symbol=BTCUSDT&limit=1000"
        async with open_client(streams(venue, name, "depth@100ms")) as client:
            events = await collect(client, 2)
            first = last = (await http.get(path)).json()
            while len(events) < 8 or events[-1]["u"] != last["lastUpdateId"]:
                events += await collect(client, 1)
                last = (await http.get(path)).json()
    book = follow(first, events)
    for side, is_better in (("bids", Decimal.__ge__), ("asks", Decimal.__le__)):
        known = {Decimal(price): Decimal(size) for price, size in last[side]}
        edge = list(known)[900]
        near = {row for row in book[side].items() if is_better(row[0], edge)}
        assert near == {row for row in known.items() if is_better(row[0], edge)}
    assert max(book["bids"]) < min(book["asks"])


def follow(
    snapshot: dict[str, Any], events: list[dict[str, Any]]
) -> dict[str, dict[Decimal, Decimal]]:
    """A snapshot after the events, as the documents say it is done."""
    at = snapshot["lastUpdateId"]
    book = {
        side: {Decimal(price): Decimal(size) for price, size in snapshot[side]}
        for side in ("bids", "asks")
    }
    for before, event in itertools.pairwise(events):
        assert event["U"] == before["u"] + 1
        assert event.get("pu", before["u"]) == before["u"]
    kept = [row for row in events if row["u"] > at]
    assert kept[0]["U"] <= at + 1 <= kept[0]["u"]
    for event in kept:
        for key, side in (("b", "bids"), ("a", "asks")):
            for price, size in event[key]:
                book[side][Decimal(price)] = Decimal(size)
                if not Decimal(size):
                    del book[side][Decimal(price)]
    return book


async def test_the_top_of_the_book_is_the_best_quote_at_the_same_id(
    venue: Venue,
) -> None:
    names = ("btcusdt@bookTicker", "btcusdt@depth5@100ms")
    async with open_client(combined(venue, *names)) as client:
        while len(client.events(names[1])) < 6:
            await client.read()
    quotes = {row["u"]: row for row in client.events(names[0])}
    depths = [row for row in client.events(names[1]) if row["lastUpdateId"] in quotes]
    assert depths
    for depth in depths:
        quote = quotes[depth["lastUpdateId"]]
        assert depth["bids"][0] == [quote["b"], quote["B"]]
        assert depth["asks"][0] == [quote["a"], quote["A"]]
    ids = list(quotes)
    assert ids == sorted(ids)


async def test_tickers_agree_with_the_trades_of_the_day(venue: Venue) -> None:
    async with open_client(combined(venue, "btcusdt@ticker")) as client:
        (ticker,) = await collect(client, 1)
    inside = [
        row
        for row in venue.trades("btcusdt")
        if ticker["F"] <= row.trade_id <= ticker["L"]
    ]
    assert ticker["n"] == len(inside)
    assert inside[0] == venue.trades("btcusdt")[0]
    assert (Decimal(ticker["v"]), Decimal(ticker["q"])) == sums(inside)[:2]
    last = inside[-1]
    assert (Decimal(ticker["c"]), Decimal(ticker["Q"])) == (
        last.exact_price,
        last.exact_size,
    )
    assert Decimal(ticker["p"]) == last.exact_price - inside[0].exact_price
    assert ticker["C"] - ticker["O"] == 86_400_000


# Many clients, many symbols, clocks


async def test_a_crowd_of_symbols_is_served_to_one_client_whole() -> None:
    crowd = make_crowd(150)
    async with open_venue(pairs=crowd, history_s=60, live_rate=6000) as venue:
        names = [f"{row.symbol.lower()}@trade" for row in crowd]
        async with open_client(combined(venue), max_queue=None) as client:
            await client.ask("SUBSCRIBE", *names)
            heard: set[str] = set()
            while len(heard) < len(crowd):
                heard.add((await client.read()).get("stream", names[0]))
            assert venue.statistics().connections_dropped == 0
        by_symbol = defaultdict(list)
        for frame in client.frames:
            if "stream" in frame:
                by_symbol[frame["data"]["s"]].append(from_event(frame["data"]))
        assert len(by_symbol) == len(crowd)
        for symbol, rows in by_symbol.items():
            first = rows[0][0] - venue.market(symbol).pair.first_id
            truth = venue.trades(symbol)[first : first + len(rows)]
            assert rows == [as_trade(row) for row in truth]


async def test_all_clients_hear_the_same(venue: Venue) -> None:
    url = combined(venue, "btcusdt@trade")
    async with open_client(url) as first, open_client(url) as second:
        await collect(second, 60)
        while second.frames[50] not in first.frames:  # it may have begun long before
            await collect(first, 1)
    later = second.frames[0]
    start = first.frames.index(later)
    both = min(len(first.frames) - start, len(second.frames))
    assert first.frames[start : start + both] == second.frames[:both]
    assert both > 40


async def test_a_clock_that_is_off_moves_the_whole_venue() -> None:
    async with open_venue(history_s=60, live_rate=200, clock_offset_s=-3600) as venue:
        async with open_client(combined(venue, "btcusdt@trade")) as client:
            (event,) = await collect(client, 1)
        url = f"{venue.config['rest_url']}/api/v3/time"
        async with httpx.AsyncClient() as http:
            told_ms = (await http.get(url)).json()["serverTime"]
        newest = venue.trades("btcusdt")[-1]
    now_ms = time.time_ns() // MS
    for time_ms in (event["T"], event["E"], told_ms, newest.time_ns // MS):
        assert 0 <= now_ms - 3_600_000 - time_ms < 20_000


async def test_the_seed_makes_the_market() -> None:
    markets = []
    for seed in (3, 3, 4):
        async with open_venue(seed=seed, history_s=300, pairs=["BTCUSDT"]) as venue:
            trades = venue.trades("BTCUSDT")[:300]
        start_ns = trades[0].time_ns
        markets.append(
            [
                (
                    row.trade_id,
                    (row.time_ns - start_ns) // 1000,
                    (row.exact_price, row.exact_size, row.side),
                )
                for row in trades
            ]
        )
    assert markets[0] == markets[1]
    assert markets[0] != markets[2]


async def test_prices_and_sizes_are_multiples_of_their_steps(venue: Venue) -> None:
    for name in ("BTCUSDT", "dogeusdt", "btcusdt.usdtm.perp", "btcusdt_301227"):
        pair = venue.market(name).pair
        for trade in venue.trades(name):
            assert trade.exact_price % pair.tick == 0
            assert trade.exact_size % pair.step == 0
            assert trade.exact_size >= Decimal(pair.size_min)
