"""Binance over REST: what answers mean, patience, weights, the venue's clock."""

import contextlib
import json
import time
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import piker_core as pk
from piker_core.adapter.answers import Verdict
from providers.binance.api import Client
from providers.binance.rest import SPOT_SITE, Judge, error_code
from tests.binance_answers import AGGREGATES, KLINE, TRADES, Answer, Venue, error, ok

LIST = "/api/v3/historicalTrades"


async def list_trades(client: Client) -> Any:
    return await client.spot.trades(await client.symbol("btcusdt"))


# What cannot be understood


def changed(row: Any, **fields: Any) -> bytes:
    return json.dumps([row | fields]).encode()


NOT_UNDERSTOOD = {
    "a page of HTML": b"<!DOCTYPE html><html><title>Just a moment...</title></html>",
    "cut off": b'[{"id":28457,"price":"4.0',
    "empty": b"",
    "not UTF-8": b'[{"id":1,"price":"\xff\xfe"}]',
    "null": b"null",
    "an object": b'{"id":1}',
    "deeply nested": b"[" * 200_000,
    "rows are arrays": b"[[1,2,3]]",
    "no price": b'[{"id":28457,"qty":"1","time":1499865549590}]',
    "price is no number": changed(TRADES[0], price="high"),
    "price is NaN": changed(TRADES[0], price="NaN"),
    "price is infinite": changed(TRADES[0], price="inf"),
    "price is zero": changed(TRADES[0], price="0.0"),
    "size is negative": changed(TRADES[0], qty="-0.1"),
    "time is in seconds": changed(TRADES[0], time=1499865549),
    "time is text": changed(TRADES[0], time="now"),
    "time is huge": changed(TRADES[0], time=10**30),
    "id is negative": changed(TRADES[0], id=-5),
    "id is huge": changed(TRADES[0], id=2**63),
}


@pytest.mark.parametrize("body", NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD.keys())
async def test_what_cannot_be_understood_is_an_error_with_the_frame(
    body: bytes,
) -> None:
    venue = Venue(LIST, httpx.Response(200, content=body))
    async with venue.open_client() as client:
        with pytest.raises(
            pk.ProviderError, match=r"btcusdt\.binance.*rest_url"
        ) as hit:
            await list_trades(client)
    assert hit.value.frame == body
    assert venue.count(LIST) == 1


@pytest.mark.parametrize("fields", [{"l": 27780}, {"f": 2**40, "l": 2**41 + 2**33}])
async def test_an_aggregate_that_counts_no_trades_is_refused(fields: Any) -> None:
    body = httpx.Response(200, content=changed(AGGREGATES[0], **fields))
    venue = Venue("/api/v3/aggTrades", body)
    async with venue.open_client() as client:
        with pytest.raises(pk.ProviderError, match="before it begins"):
            await client.spot.aggregates(await client.symbol("btcusdt"))


@pytest.mark.parametrize("column", [0, 1, 2, 3, 4, 5, 7, 8])
@pytest.mark.parametrize("wrong", ["NaN", "-1", [], "x"])
async def test_a_kline_with_a_wrong_number_is_refused(column: int, wrong: Any) -> None:
    row = list(KLINE)
    row[column] = wrong
    venue = Venue("/api/v3/klines", ok([row]))
    async with venue.open_client() as client:
        with pytest.raises(pk.ProviderError):
            await client.spot.klines(await client.symbol("btcusdt"), "1m")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    max_leaves=12,
)
BODIES = st.binary() | st.builds(
    lambda rows: json.dumps(rows).encode(), st.lists(JSON | st.just(TRADES[0]))
)


@settings(max_examples=150, deadline=None)
@given(BODIES, st.sampled_from([200, 301, 400, 403, 404, 451]))
def test_no_body_brings_an_error_that_is_not_ours(body: bytes, status: int) -> None:
    async def call() -> None:
        venue = Venue(LIST, httpx.Response(status, content=body))
        async with venue.open_client(rest_attempts=1) as client:
            with contextlib.suppress(pk.PikerError):
                await list_trades(client)

    trio.run(call)


# What passes by itself, and what does not

PASSING: dict[str, Answer] = {
    "no route": httpx.ConnectError("[Errno 101] Network is unreachable"),
    "reset": httpx.ReadError(""),
    "a page of the edge": httpx.Response(502, html="<html>Bad Gateway</html>"),
    "busy": error(-1008, "Server is currently overloaded.", 503),
    "timeout of the backend": error(-1007, "Timeout waiting for response.", 400),
    "internal": error(-1001, "Internal error; unable to process your request.", 500),
}


@pytest.mark.parametrize("answer", PASSING.values(), ids=PASSING.keys())
async def test_what_may_pass_is_tried_again(
    answer: Answer, autojump_clock: trio.testing.MockClock
) -> None:
    venue = Venue(LIST, answer, answer)
    async with venue.open_client() as client:
        assert len(await list_trades(client)) == 2
    assert venue.count(LIST) == 3


LASTING = {
    "a firewall": (httpx.Response(403, html="<html>no</html>"), r"HTTP 403.*wait some"),
    "a bad parameter": (error(-1102, "Mandatory parameter"), r"Mandatory.*-1102"),
    "another venue": (httpx.Response(404, text="not here"), r"HTTP 404.*rest_url"),
    "a redirect": (httpx.Response(302, headers={"Location": "/"}), r"redirect to /"),
    "another place": (
        error(0, "Service unavailable from a restricted location", 451),
        r"451.*data-api\.binance\.vision",
    ),
}


@pytest.mark.parametrize(("answer", "text"), LASTING.values(), ids=LASTING.keys())
async def test_what_lasts_is_told_at_once(answer: httpx.Response, text: str) -> None:
    venue = Venue(LIST, answer)
    async with venue.open_client() as client:
        with pytest.raises(pk.ProviderError, match=text):
            await list_trades(client)
    assert venue.count(LIST) == 1


async def test_an_unknown_symbol_is_not_found() -> None:
    venue = Venue(LIST, error(-1121, "Invalid symbol."))
    async with venue.open_client() as client:
        with pytest.raises(pk.NotFound, match=r"btcusdt\.binance.*Invalid symbol"):
            await list_trades(client)


def test_the_venues_code_is_known_of_its_errors_alone() -> None:
    assert error_code(pk.ProviderError("", frame=b'{"code":-4166,"msg":"x"}')) == -4166
    for frame in (None, b"", b"<html>", b"[1]", b'{"code":"x"}', b"\xff"):
        assert error_code(pk.ProviderError("", frame=frame)) == 0


# Patience


async def test_too_many_calls_stop_everybody_for_as_long_as_the_venue_says(
    autojump_clock: trio.testing.MockClock,
) -> None:
    throttled = error(-1003, "Too much request weight used.", 429, Retry_After="7")
    venue = Venue(LIST, throttled)
    async with venue.open_client() as client:
        with pytest.raises(pk.DataThrottle, match="no calls for 7") as hit:
            await list_trades(client)
        assert 7.0 <= hit.value.retry_after < 7.5
        await list_trades(client)
    assert venue.times[-1] - venue.times[-2] >= 7.0


@pytest.mark.parametrize("told", ["header", "text", "both"])
async def test_a_ban_is_waited_for_to_its_end(
    told: str,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    until_ms = int((time.time() + 1800) * 1000)
    text = f"Way too much request weight used; IP banned until {until_ms}. Please"
    headers = {"Retry_After": "900" if told == "both" else "1801"}
    text = text if told != "header" else "no"
    banned = error(-1003, text, 418, **(headers if told != "text" else {}))
    venue = Venue(LIST, banned)
    async with venue.open_client() as client:
        with pytest.raises(pk.DataThrottle) as hit:
            await list_trades(client)
        assert 1795 < hit.value.retry_after < 1805
        await list_trades(client)
    assert venue.times[-1] - venue.times[-2] >= 1795


async def test_sides_have_limits_of_their_own(
    autojump_clock: trio.testing.MockClock,
) -> None:
    venue = Venue(LIST, error(-1003, "Too much.", 429, Retry_After="60"))
    async with venue.open_client() as client:
        contract = await client.symbol("btcusdt.usdtm.perp")
        with pytest.raises(pk.DataThrottle):
            await list_trades(client)
        began = trio.current_time()
        await client.usdm.aggregates(contract)
        assert trio.current_time() - began < 1


# Weights


@pytest.mark.parametrize(
    ("text", "expected"), [("5790", 5790), ("", None), ("many", None), ("-1", None)]
)
def test_the_weight_used_is_taken_from_each_answer(
    text: str, expected: int | None
) -> None:
    judge = Judge(SPOT_SITE, 5800)
    for answer in (ok([]), error(-1121, "Invalid symbol.")):
        answer.headers["X-MBX-USED-WEIGHT-1M"] = text
        verdict = judge(answer)
        assert [used.used for used in verdict.used] == [expected] * bool(expected)
        assert all(u.limit == 5800 and u.window_s == 60 for u in verdict.used)


async def test_nothing_is_asked_beyond_the_weight_of_the_minute(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall, began = 1_790_000_000.0, trio.current_time()  # 20 s past a minute
    monkeypatch.setattr(time, "time", lambda: wall + trio.current_time() - began)
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    used = ok(TRADES)
    used.headers["X-MBX-USED-WEIGHT-1M"] = "5780"
    venue = Venue(LIST, used)
    async with venue.open_client() as client:
        await list_trades(client)  # 25 more would be 5805
        await list_trades(client)
    assert venue.times[-1] - venue.times[-2] == pytest.approx(40, abs=1)


# The clock


async def test_the_time_of_a_signed_call_is_asked_again_when_it_is_refused() -> None:
    venue = Venue("/api/v3/klines", error(-1021, "Timestamp outside of recvWindow."))
    async with venue.open_client() as client:
        await client.spot.klines(await client.symbol("btcusdt"), "1m")
        assert venue.count("/api/v3/time") == 1
        assert client.spot.clock.samples > 0
        here = time.time()
        assert client.spot.clock.now_s() - here == pytest.approx(1.79e9 - here, abs=5)


async def test_the_table_of_symbols_tells_the_time() -> None:
    async with Venue().open_client() as client:
        await client.usdm.table()
        assert client.usdm.clock.samples == 1


async def test_spot_is_asked_for_microseconds_and_contracts_are_not() -> None:
    venue = Venue()
    async with venue.open_client() as client:
        await list_trades(client)
        await client.usdm.aggregates(await client.symbol("btcusdt.usdtm.perp"))
    units = {call.url.path: call.headers.get("X-MBX-TIME-UNIT") for call in venue.calls}
    assert units[LIST] == "MICROSECOND"
    assert units["/fapi/v1/aggTrades"] is None


def test_a_verdict_of_success_has_the_body() -> None:
    assert Judge(SPOT_SITE, 5800)(ok([1])) == Verdict("ok", result=b"[1]")
