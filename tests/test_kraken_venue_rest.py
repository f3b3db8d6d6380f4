"""The simulated Kraken's REST side: replies, pages, limits, HTTP."""

import json
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from venue_client import shape

from providers.kraken.venue import Venue, VenueTrade, open_venue

NS = 10**9
REPLIES = {
    "rest_asset_pairs": "AssetPairs?pair=XBTUSDT",
    "rest_order_book": "Depth?pair=XBTUSDT&count=5",
    "rest_server_time": "Time",
    "rest_system_status": "SystemStatus",
    "rest_ticker": "Ticker?pair=XBTUSDT",
}


class Caller:
    """A client of the REST side."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def text(self, call: str) -> str:
        """The body of a reply."""
        return (await self._http.get(f"/0/public/{call}")).text

    async def result(self, call: str) -> Any:
        """The result of a reply; fractions are `Decimal`."""
        reply = json.loads(await self.text(call), parse_float=Decimal)
        assert reply["error"] == [], reply
        return reply["result"]

    async def error(self, call: str) -> str:
        """The error of a reply that has no result."""
        reply = json.loads(await self.text(call))
        assert list(reply) == ["error"]
        (error,) = reply["error"]
        return str(error)


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(seed=2, rest_burst=1000, live_rate=50) as opened:
        yield opened


@pytest.fixture
async def caller(venue: Venue) -> AsyncIterator[Caller]:
    async with httpx.AsyncClient(base_url=venue.rest_url) as http:
        yield Caller(http)


def as_row(trade: VenueTrade, decimals: int = 5) -> list[Any]:
    """A trade the venue knows as a row of `Trades`."""
    return [
        f"{trade.exact_price:.{decimals}f}",
        f"{trade.exact_size:.8f}",
        Decimal(repr(trade.time_ns / NS)),
        trade.side[0],
        trade.ord_type[0],
        "",
        trade.trade_id,
    ]


# Replies


@pytest.mark.parametrize("name", REPLIES)
async def test_replies_have_the_keys_and_number_formats_of_recorded_ones(
    caller: Caller, captures: Path, name: str
) -> None:
    recorded = (captures / "kraken" / f"{name}.json").read_text()
    assert shape(await caller.text(REPLIES[name])) == shape(recorded)


async def test_rows_have_the_formats_of_the_recorded_trades_and_candles(
    caller: Caller, captures: Path
) -> None:
    recorded = (captures / "kraken" / "xbtusdt_trades.json").read_text()
    ours = shape(await caller.text("Trades?pair=XBTUSDT"))
    assert ours == shape(recorded)
    lines = (captures / "kraken" / "v2_frames.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "OHLC" in row["kind"]]
    recorded = rows[0]["message"].replace("BTC/USD", "XXBTZUSD")
    assert shape(await caller.text("OHLC?pair=XBTUSD&interval=60")) == shape(recorded)


@pytest.mark.parametrize("name", ["XXBTZUSD", "XBTUSD", "XBT/USD", "BTC/USD"])
async def test_results_are_keyed_by_the_pair_key_whatever_name_was_asked(
    caller: Caller, name: str
) -> None:
    for method in ("Ticker", "AssetPairs", "Depth"):
        assert set(await caller.result(f"{method}?pair={name}")) == {"XXBTZUSD"}
    for method in ("OHLC", "Trades", "Spread"):
        assert list(await caller.result(f"{method}?pair={name}")) == [
            "XXBTZUSD",
            "last",
        ]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("Trades?pair=FOOBAR", "EQuery:Unknown asset pair"),
        ("Ticker?pair=XBTUSD,FOOBAR", "EQuery:Unknown asset pair"),
        ("OHLC?pair=XBTUSD&interval=7", "EGeneral:Invalid arguments"),
        ("OHLC?pair=XBTUSD&interval=x", "EGeneral:Invalid arguments"),
        ("OHLC", "EGeneral:Invalid arguments"),
        ("Trades?pair=XBTUSD&since=-5", "EGeneral:Invalid arguments"),
        ("Trades?pair=XBTUSD&count=0", "EGeneral:Invalid arguments"),
        ("Trades?pair=XBTUSD&count=1001", "EGeneral:Invalid arguments"),
        ("Depth?pair=XBTUSD&count=501", "EGeneral:Invalid arguments"),
        ("AssetPairs?info=gossip", "EGeneral:Invalid arguments"),
        ("Assets?asset=FOO", "EQuery:Unknown asset"),
        ("Weather", "EGeneral:Unknown method"),
        ("../private/Balance", "EAPI:Invalid key"),
    ],
)
async def test_wrong_calls_are_answered_with_an_error(
    caller: Caller, call: str, error: str
) -> None:
    assert await caller.error(call) == error


async def test_pairs_and_assets_are_listed_whole_or_as_asked(caller: Caller) -> None:
    pairs = await caller.result("AssetPairs")
    assert [row["wsname"] for row in pairs.values()] == [
        "XBT/USD", "ETH/USD", "XBT/USDT", "XDG/USD", "MLN/EUR",
    ]  # fmt: skip
    assert set(await caller.result("Ticker")) == set(pairs)
    fees = await caller.result("AssetPairs?pair=XBTUSD&info=fees")
    assert set(fees["XXBTZUSD"]) == {"fees", "fees_maker", "fee_volume_currency"}
    assert set(await caller.result("Assets?asset=XBT,ZUSD")) == {"XXBT", "ZUSD"}
    assert len(await caller.result("Assets")) == 7


# Trades


async def test_pages_joined_by_last_are_the_trades_of_the_venue(
    venue: Venue, caller: Caller
) -> None:
    joined: dict[int, list[Any]] = {}
    since, repeated = "0", 0
    rows: list[Any] = []
    while len(rows) not in range(1, 1000):
        result = await caller.result(f"Trades?pair=XBTUSD&since={since}")
        rows = result["XXBTZUSD"]
        assert rows[0][6] in joined or not joined, "pages have a hole"
        repeated += len(joined.keys() & {row[6] for row in rows})
        joined |= {row[6]: row for row in rows}
        since = result["last"]
    truth = venue.trades("XBTUSD")[: len(joined)]
    assert list(joined.values()) == [as_row(trade) for trade in truth]
    assert list(joined) == list(range(truth[0].trade_id, truth[-1].trade_id + 1))
    assert len(joined) > 9000
    assert repeated >= len(joined) // 1000


async def test_a_page_that_ends_within_a_burst_loses_none_of_it(
    venue: Venue, caller: Caller
) -> None:
    truth = venue.trades("XBTUSD")
    inside = [
        index
        for index in range(1, len(truth) - 1)
        if truth[index].time_ns == truth[index + 1].time_ns
    ]
    end = inside[0]
    first = await caller.result(f"Trades?pair=XBTUSD&since=0&count={end + 1}")
    second = await caller.result(f"Trades?pair=XBTUSD&since={first['last']}&count=20")
    assert first["XXBTZUSD"][-1][6] == truth[end].trade_id
    begin = [row.time_ns for row in truth].index(truth[end].time_ns)
    assert second["XXBTZUSD"] == [as_row(row) for row in truth[begin : begin + 20]]


async def test_without_since_the_newest_thousand_come(
    venue: Venue, caller: Caller
) -> None:
    newest = venue.trades("XBTUSD")[-1].trade_id
    result = await caller.result("Trades?pair=XBTUSD")
    rows = result["XXBTZUSD"]
    assert rows[-1][6] >= newest
    ids = [row[6] for row in rows]
    truth = {trade.trade_id: trade for trade in venue.trades("XBTUSD")}
    assert rows == [as_row(truth[number]) for number in ids]
    assert len(rows) == 1000
    assert result["last"] == str(truth[ids[-1]].time_ns)
    rows = (await caller.result("Trades?pair=XBTUSD&count=3"))["XXBTZUSD"]
    assert len(rows) == 3


async def test_since_is_in_ns_or_in_seconds(venue: Venue, caller: Caller) -> None:
    middle_s = venue.trades("XBTUSD")[2000].time_ns // NS
    in_s = await caller.result(f"Trades?pair=XBTUSD&since={middle_s}")
    in_ns = await caller.result(f"Trades?pair=XBTUSD&since={middle_s * NS}")
    assert in_s == in_ns
    assert in_s["XXBTZUSD"][0][2] >= middle_s


async def test_a_since_to_come_gives_no_rows_and_itself_back(caller: Caller) -> None:
    later = time.time_ns() + 3600 * NS
    result = await caller.result(f"Trades?pair=XBTUSD&since={later}")
    assert result == {"XXBTZUSD": [], "last": str(later)}


async def test_prices_have_more_decimals_than_the_pair(
    venue: Venue, caller: Caller
) -> None:
    rows = (await caller.result("Trades?pair=XDGUSD&since=0&count=5"))["XDGUSD"]
    truth = venue.trades("DOGE/USD")[: len(rows)]
    assert rows == [as_row(trade, decimals=9) for trade in truth]


# OHLC


@pytest.mark.parametrize(
    ("name", "key", "interval"), [("XBTUSD", "XXBTZUSD", 1), ("MLNEUR", "XMLNZEUR", 5)]
)
async def test_bars_are_the_candles_of_the_venue(
    venue: Venue, caller: Caller, name: str, key: str, interval: int
) -> None:
    rows = (await caller.result(f"OHLC?pair={name}&interval={interval}"))[key]
    candles = venue.candles(name, interval * 60, 0, 2**40)[: len(rows)]
    decimals = venue.market(name).pair.price_decimals
    assert rows[:-1] == [
        [candle.time_s]
        + [
            f"{price:.{decimals}f}"
            for price in (candle.open, candle.high, candle.low, candle.close)
        ]
        + [f"{candle.vwap:.{decimals}f}", f"{candle.volume:.8f}", candle.count]
        for candle in candles[:-1]
    ]
    assert rows[-1][0] == candles[-1].time_s


async def test_a_bar_without_trades_repeats_the_close_with_vwap_and_volume_zero() -> (
    None
):
    async with open_venue(history_rate=0.02, pairs=["XBTUSD"], live_rate=0) as venue:
        async with httpx.AsyncClient(base_url=venue.rest_url) as http:
            rows = (await Caller(http).result("OHLC?pair=XBTUSD"))["XXBTZUSD"]
    flat = [index for index, row in enumerate(rows) if row[7] == 0]
    assert flat
    for index in flat:
        close = rows[index - 1][4]
        assert rows[index][1:] == [close] * 4 + ["0.0", "0.00000000", 0]


async def test_at_most_the_newest_720_bars_come_and_the_running_one_is_last(
    caller: Caller,
) -> None:
    async with open_venue(
        history_s=14 * 3600, history_rate=0.2, pairs=["XBTUSD"]
    ) as venue:
        async with httpx.AsyncClient(base_url=venue.rest_url) as http:
            result = await Caller(http).result("OHLC?pair=XBTUSD&since=0")
        rows, now_s = result["XXBTZUSD"], time.time()
        times = [row[0] for row in rows]
        assert times == list(range(times[0], times[0] + 720 * 60, 60))
        assert times[-1] <= now_s < times[-1] + 120
        assert result["last"] == times[-2]


async def test_last_is_the_next_since(caller: Caller) -> None:
    last = (await caller.result("OHLC?pair=XBTUSD"))["last"]
    result = await caller.result(f"OHLC?pair=XBTUSD&since={last}")
    assert [row[0] for row in result["XXBTZUSD"]][:2] == [last, last + 60]
    result = await caller.result(f"OHLC?pair=XBTUSD&since={last + 10**6}")
    assert len(result["XXBTZUSD"]) == 1


# Quotes


async def test_depth_ticker_and_spread_agree_on_the_best_quote() -> None:
    async with open_venue(live_rate=0, pairs=["XBTUSD"]) as venue:
        venue.faults.maintenance(1000)  # no quote changes any more
        async with httpx.AsyncClient(base_url=venue.rest_url) as http:
            caller = Caller(http)
            book = (await caller.result("Depth?pair=XBTUSD&count=500"))["XXBTZUSD"]
            again = (await caller.result("Depth?pair=XBTUSD&count=500"))["XXBTZUSD"]
            ticker = (await caller.result("Ticker?pair=XBTUSD"))["XXBTZUSD"]
            spread = await caller.result("Spread?pair=XBTUSD")
    assert book == again
    assert len(book["asks"]) == len(book["bids"]) == 500
    asks = [Decimal(row[0]) for row in book["asks"]]
    bids = [Decimal(row[0]) for row in book["bids"]]
    assert asks == sorted(set(asks))
    assert bids == sorted(set(bids), reverse=True)
    assert bids[0] < asks[0]
    assert (book["asks"][0][0], book["bids"][0][0]) == (ticker["a"][0], ticker["b"][0])
    time_s, bid, ask = spread["XXBTZUSD"][-1]
    assert (bid, ask) == (ticker["b"][0], ticker["a"][0])
    assert spread["last"] == time_s


# Rates


async def test_calls_over_the_rate_are_refused_with_status_200() -> None:
    async with open_venue(history_s=60) as venue:
        async with httpx.AsyncClient(base_url=venue.rest_url) as http:
            replies = [await http.get("/0/public/Time") for _ in range(40)]
    assert {reply.status_code for reply in replies} == {200}
    errors = [reply.json()["error"] for reply in replies]
    assert errors[:30] == [[]] * 30
    refused = errors.count(["EGeneral:Too many requests"])
    assert refused >= 5
    statistics = venue.statistics()
    assert statistics.rest_refused == refused
    assert statistics.rest_requests == {"Time": 40}
    assert statistics.rest_concurrency == 1
    assert 1 < statistics.rest_rate <= 40
