"""The simulated Binance's REST side: replies as recorded, errors, lists, signatures."""

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from binance_venue_client import Caller, covers, kinds, open_caller

from providers.binance.venue import API_KEY, API_SECRET, Venue, open_venue

MS = 10**6


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(seed=2, live_rate=50) as opened:
        yield opened


@pytest.fixture
async def spot(venue: Venue) -> AsyncIterator[Caller]:
    async with open_caller(venue) as caller:
        yield caller


@pytest.fixture
async def contracts(venue: Venue) -> AsyncIterator[Caller]:
    async with open_caller(venue, usdm=True) as caller:
        yield caller


# Replies as recorded


def recordings(captures: Path) -> dict[str, list[dict[str, Any]]]:
    """The recorded calls and replies of market data, by path."""
    text = (captures / "binance" / "rest_recordings.json").read_text()
    calls: dict[str, list[dict[str, Any]]] = json.loads(text)
    return {path: rows for path, rows in calls.items() if "order" not in path}


def shift(query: str, venue: Venue) -> str:
    """A recorded query, with times and ids of this venue's history."""
    fields = dict(parse_qsl(query))
    span = int(fields.get("endTime", 0)) - int(fields.get("startTime", 0))
    now_ms = time.time_ns() // MS // 60_000 * 60_000  # an open, as recorded ones are
    if "endTime" in fields:
        fields["endTime"] = str(now_ms)
    if "startTime" in fields:
        fields["startTime"] = str(now_ms - span)
    if "fromId" in fields:
        fields["fromId"] = str(venue.market("BTCUSDT").pair.first_group)
    return urlencode(fields)


PATHS = [
    "aggTrades", "avgPrice", "depth", "exchangeInfo", "historicalTrades", "klines",
    "ticker/24hr", "ticker/bookTicker", "ticker/price", "trades",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_replies_have_the_keys_and_formats_of_recorded_ones(
    venue: Venue, spot: Caller, captures: Path, path: str
) -> None:
    rows = recordings(captures)[f"/api/v3/{path}"]
    for row in rows:
        reply = await spot.get(f"{path}?{shift(row['query'], venue)}")
        theirs = row["data"]
        if isinstance(theirs, list):  # the recording lost a key of some rows
            theirs = [entry for entry in theirs if "" not in entry]
            assert len(theirs) <= 1000
        assert covers(kinds(reply), kinds(theirs)), row["query"]
        limit = int(dict(parse_qsl(row["query"])).get("limit", 1000))
        assert not isinstance(reply, list) or 0 < len(reply) <= limit


async def test_every_recorded_market_call_is_answered(captures: Path) -> None:
    assert sorted(recordings(captures)) == [f"/api/v3/{path}" for path in PATHS]


async def test_depth_is_as_a_session_recorded_it(spot: Caller, captures: Path) -> None:
    text = (captures / "binance" / "recording_BINANCE.http.0.0").read_text()
    call, _, body = text.splitlines()[0].partition(" -> ")
    query = call.partition("?")[2].replace("NKNUSDT", "BTCUSDT")
    reply = await spot.get(f"depth?{query}")
    assert list(reply) == list(json.loads(body.partition(": ")[2]))
    assert kinds(reply) == kinds(json.loads(body.partition(": ")[2]))
    assert [len(reply[side]) for side in ("bids", "asks")] == [1000, 1000]


USDM_REPLIES = {
    "trades?symbol=BTCUSDT": "id price qty quoteQty time isBuyerMaker isRPITrade",
    "aggTrades?symbol=BTCUSDT": "a p q nq f l T m",
    "ticker/price?symbol=BTCUSDT": "symbol price time",
    "ticker/bookTicker?symbol=BTCUSDT": (
        "symbol bidPrice bidQty askPrice askQty time lastUpdateId"
    ),
    "ticker/24hr?symbol=BTCUSDT": (
        "symbol priceChange priceChangePercent weightedAvgPrice lastPrice lastQty "
        "openPrice highPrice lowPrice volume quoteVolume openTime closeTime firstId "
        "lastId count"
    ),
    "depth?symbol=BTCUSDT": "lastUpdateId E T bids asks",
    "time": "serverTime",
    "ping": "",
    "exchangeInfo": (
        "timezone serverTime futuresType rateLimits exchangeFilters assets symbols"
    ),
}


@pytest.mark.parametrize("call", USDM_REPLIES)
async def test_usdm_replies_have_the_keys_of_the_documents(
    contracts: Caller, call: str
) -> None:
    reply = await contracts.get(call)
    rows = reply if isinstance(reply, list) else [reply]
    assert {" ".join(row) for row in rows} == {USDM_REPLIES[call]}


# Errors


SPOT_ERRORS = {
    "klines?symbol=NOPE&interval=1m": (-1121, "Invalid symbol."),
    "klines?symbol=btcusdt&interval=1m": (-1100, "in parameter 'symbol'; legal range"),
    "klines?symbol=BTCUSDT": (-1102, "Mandatory parameter 'interval' was not sent"),
    "klines?interval=1m": (-1102, "Mandatory parameter 'symbol' was not sent"),
    "klines?symbol=&interval=1m": (-1105, "Parameter 'symbol' was empty."),
    "klines?symbol=BTCUSDT&interval=7m": (-1120, "Invalid interval."),
    "klines?symbol=BTCUSDT&interval=1m&limit=x": (-1100, "'limit'; legal range is"),
    "klines?symbol=BTCUSDT&interval=1m&limit=-1": (-1100, "'^[0-9]{1,20}$'"),
    "klines?symbol=BTCUSDT&interval=1m&limit=0": (-1130, "'limit' is not valid."),
    "klines?symbol=BTCUSDT&interval=1m&startTime=99999999999999999999": (
        -1108,
        "Parameter 'startTime' overflowed.",
    ),
    "klines?symbol=BTCUSDT&interval=1m&timeZone=moon": (-1130, "'timeZone' is not"),
    "klines?symbol=BTCUSDT&interval=1m&colour=1": (-1104, "read '2' parameter(s) but"),
    "time?colour=1": (-1101, "expected '0' and received '1'"),
    "aggTrades?symbol=BTCUSDT&fromId=1&startTime=1": (-1128, "Combination of optional"),
    "ticker/24hr?symbol=BTCUSDT&type=HUGE": (-1139, "Invalid ticker type."),
    "ticker/price?symbols=BTCUSDT": (-1100, "in parameter 'symbols'; legal range is"),
    'ticker/price?symbols=["BTCUSDT","NOPE"]': (-1121, "Invalid symbol."),
    'ticker/price?symbols=["BTCUSDT","BTCUSDT"]': (-1151, "present multiple times"),
    'ticker/price?symbol=BTCUSDT&symbols=["ETHBTC"]': (-1128, "Combination"),
    "depth?symbol=BTCUSDT&symbolStatus=BREAK": (-1220, "does not match the requested"),
    "exchangeInfo?symbol=NOPE": (-1121, "Invalid symbol."),
    "exchangeInfo?symbol=BTCUSDT&permissions=SPOT": (-1128, "Combination"),
    "exchangeInfo?symbolStatus=DAMAGED": (-1122, "Invalid symbolStatus."),
}
USDM_ERRORS = {
    "klines?symbol=NOPE&interval=1m": (-1121, "Invalid symbol."),
    "klines?symbol=BTCUSDT&interval=1s": (-1120, "Invalid interval."),
    "klines?symbol=BTCUSDT&interval=1m&limit=1501": (-1130, "'limit' is not valid."),
    "klines?symbol=BTCUSDT&interval=1m&startTime=2&endTime=1": (-1023, "Start time is"),
    "depth?symbol=BTCUSDT&limit=7": (-4021, "7 is not valid depth limit"),
    "aggTrades?symbol=BTCUSDT&startTime=1": (-4166, "restricted to recent 2 days"),
    "aggTrades?symbol=BTCUSDT&startTime=1000&endTime=3601001": (-1127, "than 1 hours"),
}


@pytest.mark.parametrize("call", SPOT_ERRORS)
async def test_wrong_calls_are_answered_with_an_error(spot: Caller, call: str) -> None:
    code, text = SPOT_ERRORS[call]
    got_code, got_text = await spot.error(call)
    assert got_code == code
    assert text in got_text


@pytest.mark.parametrize("call", USDM_ERRORS)
async def test_wrong_calls_to_usdm_are_answered_with_an_error(
    contracts: Caller, call: str
) -> None:
    code, text = USDM_ERRORS[call]
    got_code, got_text = await contracts.error(call)
    assert got_code == code
    assert text in got_text


async def test_usdm_takes_lower_case_symbols_and_unknown_parameters(
    contracts: Caller,
) -> None:
    reply = await contracts.get("ticker/price?symbol=btcusdt&colour=blue")
    assert reply["symbol"] == "BTCUSDT"


@pytest.mark.parametrize(
    ("call", "status"),
    [("weather", 404), ("../v9/time", 404), ("userDataStream", 410)],
)
async def test_what_is_not_there_is_an_html_page(
    spot: Caller, call: str, status: int
) -> None:
    reply = await spot.send(call)
    assert reply.status_code == status
    assert reply.headers["content-type"] == "text/html"


async def test_market_data_are_read_only(spot: Caller) -> None:
    reply = await spot.http.post("/api/v3/klines")
    assert reply.status_code == 405


# Lists and times


async def test_exchange_info_lists_what_no_client_has_heard_of(
    spot: Caller, contracts: Caller
) -> None:
    for caller, strange, status in (
        (spot, "newlyInventedAllowed", "BREAK"),
        (contracts, "newlyInvented", "SETTLING"),
    ):
        symbols = (await caller.get("exchangeInfo"))["symbols"]
        filters = [
            {row["filterType"] for row in symbol["filters"]} for symbol in symbols
        ]
        assert all("NEWLY_INVENTED" in names for names in filters)
        assert all({"PRICE_FILTER", "LOT_SIZE"} <= names for names in filters)
        assert all(strange in symbol for symbol in symbols)
        assert {symbol["status"] for symbol in symbols} == {"TRADING", status}


async def test_exchange_info_has_the_steps_of_every_symbol(
    venue: Venue, spot: Caller, contracts: Caller
) -> None:
    for caller in (spot, contracts):
        for symbol in (await caller.get("exchangeInfo"))["symbols"]:
            steps = {row["filterType"]: row for row in symbol["filters"]}
            names = (symbol["symbol"], symbol.get("contractType", ""))
            pair = next(
                row.pair
                for side in (venue.spot, venue.usdm)
                for row in side.exchange.markets
                if (row.pair.symbol, row.pair.contract) == names
            )
            assert float(steps["PRICE_FILTER"]["tickSize"]) == float(pair.tick)
            assert float(steps["LOT_SIZE"]["stepSize"]) == float(pair.step)
            assert symbol["baseAsset"] + symbol["quoteAsset"] == pair.pair


async def test_exchange_info_lists_what_is_asked_for(spot: Caller) -> None:
    async def ask(query: str) -> list[str]:
        reply = await spot.get(f"exchangeInfo?{query}")
        return [row["symbol"] for row in reply["symbols"]]

    everything = await ask("")
    assert len(everything) == 7
    assert await ask("symbol=ETHBTC") == ["ETHBTC"]
    assert await ask('symbols=["ETHBTC","BTCUSDT"]') == ["ETHBTC", "BTCUSDT"]
    assert await ask("symbol=%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT") == [
        "币安人生USDT"
    ]
    assert await ask("symbolStatus=BREAK") == ["BCCBTC"]
    assert await ask("permissions=LEVERAGED") == []
    assert await ask('permissions=["SPOT","LEVERAGED"]') == everything
    assert "XRPETH" not in await ask("permissions=MARGIN")
    reply = await spot.get("exchangeInfo?symbol=ETHBTC&showPermissionSets=false")
    assert reply["symbols"][0]["permissionSets"] == []


async def test_usdm_lists_perpetuals_and_dated_contracts(contracts: Caller) -> None:
    symbols = (await contracts.get("exchangeInfo"))["symbols"]
    kinds_of = {row["symbol"]: row["contractType"] for row in symbols}
    assert kinds_of["BTCUSDT"] == "PERPETUAL"
    assert kinds_of["BTCUSDT_301227"] == "NEXT_QUARTER"
    dates = {row["symbol"]: row["deliveryDate"] for row in symbols}
    assert dates["BTCUSDT"] == 4133404800000
    assert dates["BTCUSDT_301227"] == 1924588800000


async def test_tickers_come_for_one_for_some_and_for_all(
    spot: Caller, contracts: Caller
) -> None:
    for path in ("ticker/price", "ticker/bookTicker", "ticker/24hr"):
        one = await spot.get(f"{path}?symbol=ETHBTC")
        some = await spot.get(f'{path}?symbols=["ETHBTC","BCCBTC"]')
        every = await spot.get(path)
        assert one["symbol"] == "ETHBTC"
        assert [row["symbol"] for row in some] == ["ETHBTC", "BCCBTC"]
        assert len(every) == 7
        assert [row["symbol"] for row in await contracts.get(path)] == [
            "BTCUSDT", "ETHUSDT", "DOGEUSDT", "BTCUSDT_301227",
        ]  # fmt: skip
    short = await spot.get("ticker/24hr?symbol=ETHBTC&type=MINI")
    assert "bidPrice" not in short
    assert short["count"] > 0


async def test_a_symbol_that_does_not_trade_has_no_trades_and_no_quote(
    spot: Caller,
) -> None:
    assert await spot.get("trades?symbol=BCCBTC") == []
    assert await spot.get("aggTrades?symbol=BCCBTC") == []
    assert await spot.get("klines?symbol=BCCBTC&interval=1m") == []
    assert (await spot.get("ticker/24hr?symbol=BCCBTC"))["count"] == 0
    quote = await spot.get("ticker/bookTicker?symbol=BCCBTC")
    assert {quote["bidPrice"], quote["askQty"]} == {"0.00000000"}


async def test_times_are_in_microseconds_if_a_header_says_so(spot: Caller) -> None:
    header = {"X-MBX-TIME-UNIT": "microsecond"}
    for call, path in (
        ("time", "serverTime"),
        ("trades?symbol=BTCUSDT&limit=1", "time"),
        ("aggTrades?symbol=BTCUSDT&limit=1", "T"),
        ("ticker/24hr?symbol=BTCUSDT", "closeTime"),
    ):
        reply = await spot.get(call, **header)
        reply = reply[0] if isinstance(reply, list) else reply
        assert len(str(reply[path])) == 16
    (row,) = await spot.get("klines?symbol=BTCUSDT&interval=1m&limit=1", **header)
    assert row[6] - row[0] == 59_999_999
    reply = await spot.send("time", **{"X-MBX-TIME-UNIT": "hour"})
    assert reply.json()["code"] == -1194


# Signed calls


def sign(query: str) -> str:
    """A query with its signature."""
    made = hmac.new(API_SECRET.encode(), query.encode(), hashlib.sha256).hexdigest()
    return f"{query}&signature={made}"


async def signed(caller: Caller, query: str, **headers: str) -> tuple[int, int]:
    """The status and the error code of a signed call; 0 if it is answered."""
    headers = headers or {"X-MBX-APIKEY": API_KEY}
    reply = await caller.send(f"openOrders?{query}", **headers)
    answer = reply.json()
    return reply.status_code, answer["code"] if isinstance(answer, dict) else 0


def test_the_signature_is_that_of_the_documents() -> None:
    payload = (
        "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1"
        "&recvWindow=5000&timestamp=1499827319559"
    )
    assert sign(payload).endswith(
        "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"
    )


async def test_signed_calls_are_checked_by_key_then_clock_then_signature(
    venue: Venue, spot: Caller, contracts: Caller
) -> None:
    for caller in (spot, contracts):
        now_ms = time.time_ns() // MS
        good = sign(f"timestamp={now_ms}")
        assert await signed(caller, good, **{"X-MBX-APIKEY": ""}) == (401, -2014)
        assert await signed(caller, good, **{"X-MBX-APIKEY": "other"}) == (401, -2015)
        assert await signed(caller, sign("a=1")) == (400, -1102)
        assert await signed(caller, f"timestamp={now_ms}") == (400, -1102)
        assert await signed(caller, sign("timestamp=soon")) == (400, -1100)
        assert await signed(caller, sign(f"timestamp={now_ms - 6000}")) == (400, -1021)
        assert await signed(caller, sign(f"timestamp={now_ms + 3000}")) == (400, -1021)
        late = sign(f"timestamp={now_ms - 6000}&recvWindow=60000")
        assert await signed(caller, late) == (200, 0)
        assert await signed(caller, sign("timestamp=1&recvWindow=60001")) == (
            400,
            -1131,
        )
        assert await signed(caller, f"{good[:-1]}x") == (400, -1022)
        assert await signed(caller, sign(f"timestamp={now_ms * 1000}")) == (200, 0)
        assert await signed(caller, good) == (200, 0)


async def test_a_signed_body_counts_like_a_query(spot: Caller) -> None:
    terms = "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=20000"
    body = sign(f"{terms}&timestamp={time.time_ns() // MS}")
    reply = await spot.http.post(
        "/api/v3/order",
        content=body,
        headers={"X-MBX-APIKEY": API_KEY},
    )
    assert reply.json()["status"] == "NEW"


async def test_what_of_the_account_is_not_simulated_there_is_no_permission_for(
    spot: Caller,
) -> None:
    query = sign(f"timestamp={time.time_ns() // MS}")
    reply = await spot.send(f"rateLimit/order?{query}", **{"X-MBX-APIKEY": API_KEY})
    assert (reply.status_code, reply.json()["code"]) == (401, -2015)


async def test_a_skewed_clock_refuses_signed_calls_until_it_is_asked_for(
    venue: Venue, spot: Caller
) -> None:
    venue.faults.skew_clock(-30)
    now_ms = time.time_ns() // MS
    told_ms = (await spot.get("time"))["serverTime"]
    assert -31_000 < told_ms - now_ms < -29_000
    assert await signed(spot, sign(f"timestamp={now_ms}")) == (400, -1021)
    assert await signed(spot, sign(f"timestamp={told_ms}")) == (200, 0)
    (trade,) = await spot.get("trades?symbol=BTCUSDT&limit=1")
    assert trade["time"] > told_ms


async def test_old_trades_of_usdm_want_a_key(contracts: Caller) -> None:
    call = "historicalTrades?symbol=BTCUSDT&limit=3"
    assert (await contracts.error(call, 401))[0] == -2014
    assert len(await contracts.get(call, **{"X-MBX-APIKEY": API_KEY})) == 3
