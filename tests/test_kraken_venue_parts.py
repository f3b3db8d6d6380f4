"""Parts of the simulated Kraken by themselves: desk, limits, HTTP."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from piker_core.simulation.exchange import Exchange
from piker_core.simulation.limits import AttemptLimit, TokenBucket, Traffic
from piker_core.simulation.line import Line
from piker_core.simulation.market import Market
from providers.kraken.venue import Venue, open_venue
from providers.kraken.venue_faults import Faults
from providers.kraken.venue_pairs import CATALOGUE
from providers.kraken.venue_requests import Desk, Topic


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(history_s=60, rest_burst=1000) as opened:
        yield opened


class Recorder:
    """A client of the desk that keeps the frames."""

    def __init__(self) -> None:
        self.topics: set[Topic] = set()
        self.frames: list[bytes] = []
        self.reply = self.send = self.frames.append
        self.subscribe = self.topics.add
        self.unsubscribe = self.topics.discard


def make_desk() -> Desk:
    market = Market(
        CATALOGUE[0], 1, start_ns=10**18, history_s=60, live_rate=1, history_rate=5
    )
    return Desk(Exchange([market]), Faults(None, 0))  # type: ignore[arg-type]


DESK = make_desk()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "channel": st.sampled_from(["trade", "ticker", "ohlc", "instrument"]) | JSON,
        "symbol": st.lists(st.sampled_from(["BTC/USD", "XBT/USD", ""])) | JSON,
        "snapshot": st.booleans() | JSON,
        "interval": st.sampled_from([1, 5]) | JSON,
        "event_trigger": st.sampled_from(["trades", "bbo"]) | JSON,
    },
)
METHODS = st.sampled_from(["subscribe", "unsubscribe", "ping", "add_order"])
REQUESTS = st.fixed_dictionaries(
    {},
    optional={"method": METHODS | JSON, "params": FIELDS | JSON, "req_id": JSON},
)


@given(st.text() | JSON.map(json.dumps) | REQUESTS.map(json.dumps))
def test_whatever_is_asked_the_answers_are_valid_frames(text: str) -> None:
    client = Recorder()
    DESK.answer(client, text, in_rate=True)
    frames: list[dict[str, Any]] = [json.loads(frame) for frame in client.frames]
    assert frames
    for frame in frames:
        is_pong = frame.get("method") == "pong"
        assert "channel" in frame or "success" in frame or is_pong
    acks = [frame for frame in frames if frame.get("success")]
    assert len(client.topics) <= len(acks)


def test_a_bucket_earns_its_rate_and_holds_no_more_than_its_burst() -> None:
    bucket = TokenBucket(1.0, 3)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(100.9)
    assert bucket.take(101.0)
    assert not bucket.take(101.5)
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_attempts_over_the_limit_are_banned_for_a_window() -> None:
    limit = AttemptLimit(2, 10.0)
    assert [limit.take(t) for t in (0, 5, 9)] == [True, True, False]
    assert not limit.take(18.9)
    assert [limit.take(t) for t in (19.0, 19.5, 20.0)] == [True, True, False]


def test_traffic_knows_the_most_at_once_and_in_a_second() -> None:
    traffic = Traffic()
    for now_s in (0.0, 0.4):
        traffic.begin(now_s)
    traffic.end()
    for now_s in (1.0, 1.2, 1.3):
        traffic.begin(now_s)
        traffic.end()
    assert (traffic.most_at_once, traffic.most_a_second) == (2, 4)


async def test_a_frozen_line_is_silent_and_deaf_until_the_peer_ends() -> None:
    near, far = trio.socket.socketpair()
    async with Line(trio.SocketStream(near)) as line, trio.SocketStream(far) as peer:
        await line.send_all(b"before")
        line.frozen = True
        await line.send_all(b"meanwhile")
        await peer.send_all(b"hello?")
        await peer.send_eof()
        assert await line.receive_some() == b""
        await line.send_eof()
        assert b"".join([part async for part in peer]) == b"before"


async def talk(venue: Venue, *parts: bytes) -> bytes:
    """Send parts over one TCP connection; all that comes back until its end."""
    host, port = venue.rest_url.removeprefix("http://").split(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        for part in parts:
            await stream.send_all(part)
        received = b""
        with trio.fail_after(10):
            async for chunk in stream:
                received += chunk
    return received


GET = b"GET /0/public/Time HTTP/1.1\r\nHost: venue\r\n\r\n"
LAST = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize("parts", [[GET, GET, LAST], [GET + GET + LAST]])
async def test_a_connection_serves_requests_until_it_is_to_close(
    venue: Venue, parts: list[bytes]
) -> None:
    received = await talk(venue, *parts)
    assert received.count(b"HTTP/1.1 200 OK") == 3
    assert received.count(b"unixtime") == 3


async def test_a_request_may_come_byte_by_byte(venue: Venue) -> None:
    received = await talk(venue, *(bytes([byte]) for byte in LAST))
    assert received.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"hello\r\n\r\n", b"400"),
        (b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (LAST.replace(b"GET", b"POST"), b"405"),
        (LAST.replace(b"GET", b"HEAD"), b"405"),
        (LAST.replace(b"/0/public/Time", b"/"), b"404"),
    ],
)
async def test_what_is_no_rest_call_is_refused_and_the_venue_lives(
    venue: Venue, text: bytes, status: bytes
) -> None:
    received = await talk(venue, text)
    assert received.startswith(b"HTTP/1.1 " + status)
    assert (await talk(venue, LAST)).startswith(b"HTTP/1.1 200 OK")
