"""Kraken over REST: every way of failing, being throttled, pacing."""

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
from providers.kraken import api
from tests.kraken_answers import OHLC, PAIRS, TRADES, Answer, Venue, error, ok


def broken(**fields: Any) -> dict[str, Any]:
    """The recorded page with other values in its first row."""
    names = ["price", "size", "time", "side", "ord_type", "misc", "trade_id"]
    row = [fields.get(n, old) for n, old in zip(names, TRADES["XXBTZUSD"][0])]  # noqa: B905
    return {"XXBTZUSD": [row], "last": "1688669598280411200"}


# What cannot be understood

NOT_UNDERSTOOD = {
    "a page of HTML": b"<!DOCTYPE html><html><title>Just a moment...</title></html>",
    "cut off": b'{"error":[],"result":{"XXBTZUSD":[["30243.4","0.3',
    "empty": b"",
    "not UTF-8": b'{"error":[],"result":{"X":[],"last":"\xff\xfe"}}',
    "a list": b"[]",
    "null": b"null",
    "error is text": b'{"error":"none","result":{}}',
    "neither error nor result": b'{"error":[]}',
    "deeply nested": b"[" * 200_000,
    "result is a list": b'{"error":[],"result":[]}',
    "no last": b'{"error":[],"result":{"XXBTZUSD":[]}}',
    "no pair": b'{"error":[],"result":{"last":"1"}}',
    "two pairs": b'{"error":[],"result":{"A":[],"B":[],"last":"1"}}',
    "last is no number": b'{"error":[],"result":{"A":[],"last":"soon"}}',
    "last is huge": b'{"error":[],"result":{"A":[],"last":' + b"9" * 5000 + b"}}",
    "rows are objects": b'{"error":[],"result":{"A":[{}],"last":"1"}}',
    "a row is short": b'{"error":[],"result":{"A":[["1","1",1.0]],"last":"1"}}',
    "price is no number": ok(broken(price="high")).content,
    "price is NaN": ok(broken(price="NaN")).content,
    "price is infinite": ok(broken(price="1e999")).content,
    "price is zero": ok(broken(price="0.0")).content,
    "size is negative": ok(broken(size="-0.1")).content,
    "price is a list": ok(broken(price=[])).content,
    "time is NaN": ok(broken(time="NaN")).content,
    "time is signalling NaN": ok(broken(time="sNaN")).content,
    "time is astronomic": ok(broken(time="1E+999999")).content,
    "time is negative": ok(broken(time=-1.5)).content,
    "id is text": ok(broken(trade_id="x")).content,
    "id is huge": ok(broken(trade_id=2**63)).content,
}


@pytest.mark.parametrize("body", NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD.keys())
async def test_what_cannot_be_understood_is_an_error_with_the_frame(
    body: bytes,
) -> None:
    venue = Venue("Trades", httpx.Response(200, content=body))
    async with venue.open_client() as client:
        with pytest.raises(pk.ProviderError, match=r"xbtusd\.kraken.*try again") as hit:
            await client.trades("xbtusd")
    assert hit.value.frame == body
    assert venue.count("Trades") == 1


@pytest.mark.parametrize("column", range(8))
async def test_an_ohlc_row_with_a_wrong_number_is_refused(column: int) -> None:
    rows = [list(row) for row in OHLC["XXBTZUSD"]]  # type: ignore[attr-defined]
    rows[0][column] = "NaN"
    venue = Venue("OHLC", ok({"XXBTZUSD": rows, "last": 1688671260}))
    async with venue.open_client() as client:
        with pytest.raises(pk.ProviderError):
            await client.ohlc("xbtusd")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    max_leaves=12,
)
BODIES = st.binary() | st.builds(
    lambda rows, last, row: json.dumps(
        {"error": [], "result": {"A": [row, *rows], "last": last}}
    ).encode(),
    st.lists(JSON),
    JSON,
    st.lists(JSON, min_size=7, max_size=8) | st.just(TRADES["XXBTZUSD"][0]),
)


@settings(max_examples=200, deadline=None)
@given(BODIES, st.sampled_from([200, 301, 400, 403, 404, 451]))
def test_no_body_brings_an_error_that_is_not_ours(body: bytes, status: int) -> None:
    async def call() -> None:
        venue = Venue("Trades", httpx.Response(status, content=body))
        async with venue.open_client(rest_attempts=1) as client:
            with contextlib.suppress(pk.PikerError):
                await client.trades("xbtusd")

    trio.run(call)


# What passes by itself, and what does not

PASSING = {
    "no route": httpx.ConnectError("[Errno 101] Network is unreachable"),
    "unavailable": error("EService:Unavailable"),
    "busy": error("EService:Busy"),
    "internal": error("EGeneral:Internal error"),
    "520": httpx.Response(520, html="<html>error code: 520</html>"),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
async def test_a_passing_fault_is_survived(
    fault: Answer, autojump_clock: trio.testing.MockClock
) -> None:
    venue = Venue("Trades", fault, fault, fault)
    async with venue.open_client() as client:
        ticks, _ = await client.trades("xbtusd")
    assert len(ticks) == 2
    assert client.statistics().retries == 3
    waits = [later - at for at, later in zip(venue.times[1:], venue.times[2:])]  # noqa: B905
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2 <= waits[2] <= 4


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
async def test_a_fault_that_stays_is_one_clear_sentence(
    fault: Answer, autojump_clock: trio.testing.MockClock
) -> None:
    venue = Venue("Trades", *[fault] * 9)
    async with venue.open_client(rest_url="http://kraken.test") as client:
        with pytest.raises(pk.ProviderError) as hit:
            await client.trades("xbtusd")
    text = str(hit.value)
    assert "http://kraken.test/0/public/Trades (xbtusd.kraken)" in text
    assert "in 4 attempts; check the network" in text
    assert "\n" not in text
    assert hit.value.__cause__ is None
    assert venue.count("Trades") == 4
    if isinstance(fault, httpx.Response):
        assert hit.value.frame == fault.content


async def test_no_network_is_said_in_one_sentence() -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        config = api.Config(rest_url=url, rest_attempts=1)
        async with api.get_client(config) as client:
            with pytest.raises(pk.ProviderError, match=r"no answer.*check the network"):
                await client.system_status()


@pytest.mark.parametrize(
    "text",
    ["EGeneral:Invalid arguments", "EAPI:Invalid key", "EService:Deadline elapsed"],
)
async def test_an_error_of_the_venue_is_raised_in_its_words(text: str) -> None:
    venue = Venue("Trades", error(text))
    async with venue.open_client() as client:
        with pytest.raises(pk.ProviderError, match=f"xbtusd.kraken.*{text}") as hit:
            await client.trades("xbtusd")
    assert text.encode() in (hit.value.frame or b"")
    assert venue.count("Trades") == 1


async def test_an_unknown_pair_is_not_found_by_name() -> None:
    venue = Venue("Trades", error("EQuery:Unknown asset pair"))
    async with venue.open_client() as client:
        with pytest.raises(pk.NotFound, match=r"does not know solusd\.kraken"):
            await client.trades("SOL/USD")


async def test_warnings_are_logged_and_the_result_is_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    venue = Venue("Trades", ok(TRADES, "WGeneral:Deprecated"))
    async with venue.open_client() as client:
        ticks, _ = await client.trades("xbtusd")
        assert client.statistics().warnings == 1
    assert len(ticks) == 2
    assert "WGeneral:Deprecated" in caplog.text


# Throttling

THROTTLED = {
    "too many": error("EGeneral:Too many requests"),
    "counter": error("EAPI:Rate limit exceeded"),
    "HTTP 429": httpx.Response(429, html="<html>slow down</html>"),
}


@pytest.mark.parametrize("answer", THROTTLED.values(), ids=THROTTLED.keys())
async def test_a_throttled_call_tells_when_and_stops_all_callers(
    answer: httpx.Response, autojump_clock: trio.testing.MockClock
) -> None:
    venue = Venue("Trades", answer)
    async with (
        venue.open_client(rest_rate=1.0) as client,
        venue.open_client(rest_rate=1.0) as other,
    ):
        xbt = await client.pair("xbtusd")
        with pytest.raises(pk.DataThrottle) as hit:
            await client.trades(xbt)
        assert hit.value.retry_after == pytest.approx(5.0)
        at = trio.current_time()
        await other.trades(xbt)
        assert trio.current_time() - at == pytest.approx(5.0)
    assert venue.count("Trades") == 2
    assert client.statistics().throttled == 1


async def test_refusals_in_a_row_double_the_pause_until_a_call_is_served(
    autojump_clock: trio.testing.MockClock,
) -> None:
    refusal = error("EGeneral:Too many requests")
    venue = Venue("Trades", refusal, refusal, refusal, ok(TRADES), refusal)
    waits = []
    async with venue.open_client() as client:
        for _ in range(5):
            try:
                await client.trades("xbtusd")
            except pk.DataThrottle as throttled:
                waits.append(throttled.retry_after)
    assert waits == pytest.approx([5, 10, 20, 5])


async def test_calls_refused_together_count_as_one_refusal(
    autojump_clock: trio.testing.MockClock,
) -> None:
    venue = Venue("Trades", *[error("EGeneral:Too many requests")] * 3)
    waits: list[float] = []
    async with venue.open_client() as client:
        xbt = await client.pair("xbtusd")
        venue.delay_s = 1.0

        async def call() -> None:
            try:
                await client.trades(xbt)
            except pk.DataThrottle as throttled:
                waits.append(throttled.retry_after)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)
    assert waits == pytest.approx([5, 5, 5])


async def test_the_venues_own_patience_is_kept(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1762820224.0)
    venue = Venue(
        "Trades",
        error("EService: Throttled: 1762820266"),
        httpx.Response(429, headers={"Retry-After": "17"}),
        error("EService: Throttled: 99999999999"),
        error("EService: Throttled: 1"),
        error("EService:Throttled"),
    )
    waits = []
    async with venue.open_client() as client:
        while venue.script:
            try:
                await client.trades("xbtusd")
            except pk.DataThrottle as throttled:
                waits.append(throttled.retry_after)
    assert waits == pytest.approx([42, 17, 300, 1, 80])


# Many callers


async def test_all_clients_of_an_address_share_the_rate(
    autojump_clock: trio.testing.MockClock,
) -> None:
    venue = Venue()
    async with trio.open_nursery() as nursery:

        async def call() -> None:
            async with venue.open_client(rest_rate=2.0, rest_burst=4) as client:
                await client.system_status()

        for _ in range(10):
            nursery.start_soon(call)
    assert venue.times[-1] - venue.times[0] == pytest.approx(3.0)
    assert venue.times[3] == venue.times[0]


async def test_tasks_at_once_get_each_their_own_answer() -> None:
    async def echo(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("AssetPairs"):
            return ok(PAIRS)
        name = request.url.params["pair"]
        await trio.sleep(0.001 * (len(name) % 3))
        row = ["1.5", f"{len(name)}", 1688669597.5, "b", "m", "", len(name)]
        return ok({name: [row], "last": "1688669597500000000"})

    got: dict[str, int] = {}
    config = api.Config(rest_rate=1e6)
    async with api.get_client(config, transport=httpx.MockTransport(echo)) as client:

        async def ask(name: str) -> None:
            ticks, _ = await client.trades(name)
            got[name] = int(ticks["id"][0])

        async with trio.open_nursery() as nursery:
            for name in ("xbtusd", "btcusdt", "ethusd", "dogeusd", "sol/usd"):
                nursery.start_soon(ask, name)
    assert got == {"xbtusd": 6, "btcusdt": 7, "ethusd": 6, "dogeusd": 6, "sol/usd": 6}
