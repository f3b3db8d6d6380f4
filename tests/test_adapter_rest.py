"""The REST client: what passes, what does not, what may have been done."""

import contextlib
import hashlib
import hmac
import logging
import time
from importlib.metadata import version
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio.testing

import piker_core as pk
from piker_core.adapter.rest import (
    OutcomeUnknown,
    Request,
    Site,
    checked_url,
    seconds,
)
from tests.adapter_site import SITE, URL, Acme, Answer, fault, ok

Clock = trio.testing.MockClock
ORDER = Request("POST", "/order", {"symbol": "ABCUSD", "size": 2}, changes=True)

# What passes by itself, and what does not

NETWORK = {
    "no route": httpx.ConnectError("[Errno 101] Network is unreachable"),
    "no name": httpx.ConnectError("[Errno -3] Temporary failure in name resolution"),
    "cut off": httpx.RemoteProtocolError("peer closed connection"),
    "reset": httpx.ReadError(""),
    "write failed": httpx.WriteError("broken pipe"),
    "timeout": httpx.ReadTimeout("timed out"),
    "bad gzip": httpx.DecodingError("Error -3 while decompressing data"),
    "OSError": OSError(104, "Connection reset by peer"),
}
PASSING: dict[str, Answer] = NETWORK | {
    "502": httpx.Response(502, html="<html><h1>502 Bad Gateway</h1></html>"),
    "520": httpx.Response(520, html="<html>error code: 520</html>"),
    "the venue's own": fault(-3, "busy"),
}


@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING.keys())
async def test_a_passing_fault_is_survived(
    trouble: Answer, autojump_clock: Clock
) -> None:
    acme = Acme(trouble, trouble, trouble, ok({"last": 5}))
    async with acme.open() as rest:
        reply = await rest.get("/ticker", {}, subject="abcusd.acme")
    assert reply.decode(dict[str, int]) == {"last": 5}
    assert rest.statistics().retries == 3
    first, second, third = acme.waits()
    assert 0.5 <= first <= 1 <= second <= 2 <= third <= 4


@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING.keys())
async def test_a_fault_that_stays_is_one_clear_sentence(
    trouble: Answer, autojump_clock: Clock
) -> None:
    acme = Acme(*[trouble] * 9)
    async with acme.open() as rest:
        with pytest.raises(pk.ProviderError) as hit:
            await rest.get("/ticker", {"symbol": "ABC"}, subject="abcusd.acme")
    text = str(hit.value)
    assert text.startswith("http://acme.test/ticker (abcusd.acme): ")
    assert text.endswith(
        ", in 4 attempts; check the network, https://status.acme.test and rest_url in "
        "[acme]"
    )
    assert "\n" not in text and hit.value.__cause__ is None
    assert len(acme.calls) == 4 and rest.statistics().failed == 1
    if isinstance(trouble, httpx.Response):
        assert hit.value.frame == trouble.content


async def test_a_silent_venue_is_given_up_after_the_time_out(
    autojump_clock: Clock,
) -> None:
    acme = Acme()
    acme.delay_s = 3600
    async with acme.open(rest_attempts=2, rest_timeout_s=7) as rest:
        with pytest.raises(pk.ProviderError, match="no answer within 7 s"):
            await rest.get("/ticker", {}, subject="abcusd.acme")
    assert acme.waits()[0] >= 7


async def test_retries_are_paced_as_well(autojump_clock: Clock) -> None:
    acme = Acme(*[fault(-3)] * 3)
    async with acme.open(rest_rate=0.1, rest_burst=1) as rest:
        await rest.get("/ticker", {}, subject="abcusd.acme")
    assert acme.waits() == pytest.approx([10, 10, 10])


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (403, "wait some minutes without calling"),
        (404, "no answer of Acme's API; check rest_url in"),
        (451, "no answer of Acme's API; check rest_url in"),
        (301, "a redirect to https://x/; mend rest_url in"),
    ],
)
async def test_a_refusal_by_the_edge_is_not_tried_again(
    status: int, advice: str
) -> None:
    answer = httpx.Response(status, html="<html>", headers={"Location": "https://x/"})
    acme = Acme(answer)
    async with acme.open() as rest:
        with pytest.raises(pk.ProviderError, match=f"HTTP {status}.*{advice}") as hit:
            await rest.get("/ticker", {}, subject="abcusd.acme")
    assert hit.value.frame == b"<html>"
    assert len(acme.calls) == 1


async def test_a_refusal_by_the_venue_is_raised_in_its_words() -> None:
    acme = Acme(fault(-9, "no such interval"), fault(-2, "no such symbol"))
    async with acme.open() as rest:
        with pytest.raises(pk.ProviderError, match=r"abcusd\.acme\): no such interval"):
            await rest.get("/bars", {}, subject="abcusd.acme")
        with pytest.raises(pk.NotFound, match=r"Acme does not know abcusd\.acme"):
            await rest.get("/bars", {}, subject="abcusd.acme")
    assert len(acme.calls) == 2


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1", b"\xff", b"[" * 200_000])
async def test_a_body_that_cannot_be_decoded_is_an_error_with_the_frame(
    body: bytes,
) -> None:
    acme = Acme(httpx.Response(200, content=body))
    async with acme.open() as rest:
        reply = await rest.get("/ticker", {}, subject="abcusd.acme")
        with pytest.raises(pk.ProviderError, match=r"rest_url in .* is Acme's") as hit:
            reply.decode(dict[str, int])
    assert hit.value.frame == body


async def test_what_is_sent_names_us_and_is_encoded_byte_for_byte() -> None:
    acme = Acme()
    params: dict[str, Any] = {
        "symbol": "币安USD",
        "list": '["A","B"]',
        "text": "a b+c&d",
        "n": 1.5,
    }
    request = Request("GET", "/ticker", params)
    async with acme.open() as rest:
        await rest.call(request, subject="abcusd.acme")
        await rest.call(Request("PUT", "/x", params, form=True), subject="abcusd.acme")
    query, form = acme.calls
    assert query.url.query.decode() == request.encoded()
    assert form.content.decode() == request.encoded() and not form.url.query
    assert form.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert "%20b%2Bc%26d" in request.encoded()
    agent = f"piker-core/{version('piker-core')}"
    assert query.headers["User-Agent"] == form.headers["User-Agent"] == agent


async def test_tasks_at_once_get_each_their_own_answer() -> None:
    async def echo(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params["n"])
        await trio.sleep(0.001 * (number % 3))
        return ok(number)

    acme, got = Acme(), {}
    acme.answer = echo  # type: ignore[method-assign]
    async with acme.open() as rest:

        async def ask(number: int) -> None:
            reply = await rest.get("/echo", {"n": number}, subject="echo")
            got[number] = reply.decode(int)

        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(ask, number)
    assert got == {number: number for number in range(9)}


# Throttling, weights


@pytest.mark.parametrize("status", [418, 429])
async def test_too_many_calls_stop_everybody_for_as_long_as_the_venue_says(
    status: int, autojump_clock: Clock
) -> None:
    refusal = httpx.Response(status, headers={"Retry-After": "17"}, json={})
    acme = Acme(refusal)
    async with acme.open(rest_rate=10.0) as rest, acme.open(rest_rate=10.0) as other:
        with pytest.raises(pk.DataThrottle, match="lower rest_rate") as hit:
            await rest.get("/ticker", {}, subject="abcusd.acme")
        assert hit.value.retry_after == pytest.approx(17)
        await other.get("/ticker", {}, subject="abcusd.acme")
    assert acme.waits() == pytest.approx([17])
    assert rest.statistics().throttled == 1


async def test_a_ban_can_be_longer_than_other_pauses(autojump_clock: Clock) -> None:
    acme = Acme(httpx.Response(418, headers={"Retry-After": "90000"}, json={}))
    async with acme.open(throttle_longest_s=259200.0) as rest:
        with pytest.raises(pk.DataThrottle) as hit:
            await rest.get("/ticker", {}, subject="abcusd.acme")
    assert hit.value.retry_after == pytest.approx(90000)


async def test_clients_share_the_rate_of_an_address_and_a_credential(
    autojump_clock: Clock,
) -> None:
    acme = Acme()

    async def call(credential: str) -> None:
        async with acme.open(
            credential=credential, rest_rate=2.0, rest_burst=4
        ) as rest:
            await rest.get("/ticker", {}, subject="abcusd.acme")

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(call, "me" if number % 2 else "you")
    assert acme.times[7] == acme.times[0]
    assert acme.times[-1] - acme.times[0] == pytest.approx(3.0)


async def test_a_call_takes_its_weight(autojump_clock: Clock) -> None:
    acme = Acme()
    async with acme.open(rest_rate=10.0, rest_burst=40) as rest:
        for _ in range(3):
            await rest.get("/book", {}, subject="abcusd.acme", cost=20)
    assert acme.waits() == pytest.approx([0, 2])


@pytest.mark.parametrize("status", [200, 400, 429])
async def test_the_weight_that_the_venue_reports_holds_for_all(
    status: int, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = trio.current_time()
    monkeypatch.setattr(time, "time", lambda: 1_800_000_030 + trio.current_time())
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    headers = {"X-Used": "95", "Retry-After": "1"}
    acme = Acme(httpx.Response(status, json={"code": 0, "msg": ""}, headers=headers))
    async with acme.open() as rest, acme.open() as other:
        with contextlib.suppress(pk.ProviderError, pk.DataThrottle):
            await rest.get("/ticker", {}, subject="abcusd.acme")
        await other.get("/ticker", {}, subject="abcusd.acme", cost=5)
        await other.get("/ticker", {}, subject="abcusd.acme")
    assert acme.times[1] - begin == pytest.approx(1 if status == 429 else 0, abs=1e-3)
    assert acme.times[2] - begin == pytest.approx(30, abs=1e-3)


# What changes something at the venue

UNCERTAIN: dict[str, Answer] = {
    name: trouble
    for name, trouble in (PASSING | {"garbage": httpx.Response(200, text="<")}).items()
    if name not in ("no route", "no name")
}


@pytest.mark.parametrize("trouble", UNCERTAIN.values(), ids=UNCERTAIN.keys())
async def test_what_may_have_been_done_is_never_sent_again(trouble: Answer) -> None:
    acme = Acme(trouble)
    async with acme.open() as rest:
        with pytest.raises(OutcomeUnknown, match="ask the venue, do not send it again"):
            (await rest.call(ORDER, subject="order 7")).decode(dict[str, int])
    assert len(acme.calls) == 1


async def test_an_order_that_never_left_is_sent_again(autojump_clock: Clock) -> None:
    acme = Acme(httpx.ConnectError("no route"), ok({"id": 7}))
    async with acme.open() as rest:
        reply = await rest.call(ORDER, subject="order 7")
    assert reply.decode(dict[str, int]) == {"id": 7} and len(acme.calls) == 2


async def test_an_order_that_is_refused_or_throttled_was_not_done() -> None:
    acme = Acme(fault(-9, "too small"), fault(0, status=429))
    async with acme.open() as rest:
        with pytest.raises(pk.ProviderError, match="too small") as hit:
            await rest.call(ORDER, subject="order 7")
        assert not isinstance(hit.value, OutcomeUnknown)
        with pytest.raises(pk.DataThrottle):
            await rest.call(ORDER, subject="order 7")


# Signatures and clocks


class Signer:
    """Time stamp and signature as a venue may want them."""

    def __init__(self) -> None:
        self.signed = 0

    def __call__(self, request: Request) -> Request:
        self.signed += 1
        params: dict[str, Any] = request.params | {"timestamp": self.signed}
        payload = msgspec.structs.replace(request, params=params).encoded()
        digest = hmac.new(b"secret", payload.encode(), hashlib.sha256).hexdigest()
        params = params | {"signature": digest}
        headers = {"X-Key": "key"}
        return msgspec.structs.replace(request, params=params, headers=headers)


def signature_holds(request: httpx.Request) -> bool:
    """What the venue does with a signed call."""
    text = request.content.decode() or request.url.query.decode()
    payload, _, digest = text.rpartition("&signature=")
    known = hmac.new(b"secret", payload.encode(), hashlib.sha256).hexdigest()
    return known == digest and request.headers["X-Key"] == "key"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
@pytest.mark.parametrize("form", [False, True])
async def test_every_attempt_is_signed_anew_over_the_bytes_sent(
    method: str, form: bool, autojump_clock: Clock
) -> None:
    acme, sign = Acme(fault(-3), ok()), Signer()
    request = Request(method, "/order", {"symbol": "币 +", "size": 1}, form=form)
    async with acme.open() as rest:
        await rest.call(request, subject="order 7", sign=sign)
    assert [call.method for call in acme.calls] == [method] * 2
    assert all(signature_holds(call) for call in acme.calls)
    stamps = [b"timestamp=1&", b"timestamp=2&"]
    for stamp, call in zip(stamps, acme.calls, strict=True):
        assert stamp in (call.content or call.url.query)


async def test_a_time_stamp_that_is_refused_is_made_anew_by_the_venues_clock(
    autojump_clock: Clock,
) -> None:
    acme = Acme(fault(-1, "your clock"), ok(4_000_000_000_000), ok({"id": 7}))
    async with acme.open() as rest:

        async def resync() -> None:
            reply = await rest.get("/time", {}, subject="time")
            assert reply.moment is not None
            rest.clock.note(reply.decode(int) * 10**6, reply.moment)

        rest.resync = resync
        reply = await rest.call(ORDER, subject="order 7", sign=Signer())
    assert reply.decode(dict[str, int]) == {"id": 7}
    assert [call.url.path for call in acme.calls] == ["/order", "/time", "/order"]
    assert acme.waits() == [0, 0]
    assert rest.clock.offset_s == pytest.approx(4e9 - time.time(), abs=60)


async def test_the_time_is_asked_for_every_so_often_whatever_comes_of_it(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    acme = Acme(fault(-9, "no"))
    async with acme.open() as rest:

        async def resync() -> None:
            await rest.get("/time", {}, subject="time")

        rest.resync = resync
        with trio.move_on_after(350):
            await rest.keep_time(100)
    assert acme.waits() == pytest.approx([100, 100, 100])
    assert "Acme does not tell the time" in caplog.text


async def test_the_date_header_is_a_clock_for_venues_that_have_no_better(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    date = "Tue, 11 Nov 2025 00:17:04 GMT"
    acme = Acme(ok(Date=date, Age="3"), ok(Date=date), ok(Date=date))
    async with acme.open() as rest:
        for _ in range(3):
            await rest.get("/ticker", {}, subject="abcusd.acme")
        assert rest.clock.samples == 0
    site = msgspec.structs.replace(SITE, dated=True)
    acme = Acme(ok(Date=date, Age="3"), ok(Date=date), ok(Date=date))
    async with acme.open(site=site) as rest:
        for _ in range(3):
            await rest.get("/ticker", {}, subject="abcusd.acme")
        assert rest.clock.samples == 2
    off = [r for r in caplog.records if "the clock of Acme" in r.getMessage()]
    assert len(off) == 1


# Addresses


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://x", "http://", "http://[::1"])
def test_an_address_that_is_none_is_an_error_that_names_its_key(url: str) -> None:
    site = Site("Acme", "acme", url_key="usdm_rest_url")
    with pytest.raises(pk.ConfigError, match=r"\[acme\] usdm_rest_url"):
        checked_url(url, site, example=URL)
    assert checked_url("http://x/", site, example=URL) == "http://x"


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [("17", 17), ("0", 0), (None, None), ("", None), ("Tue, 11 Nov 2025", None)],
)
def test_retry_after_is_read_where_it_is_seconds(
    text: str | None, wait_s: float | None
) -> None:
    assert seconds(text) == wait_s
