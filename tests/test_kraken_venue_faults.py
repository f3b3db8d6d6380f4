"""Each fault of the simulated Kraken does what it says and nothing else."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from venue_client import Client, as_received, open_client, with_ns
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from providers.kraken.venue import Venue, open_venue
from providers.kraken.venue_faults import MALFORMED

SYMBOL = "BTC/USD"
STAGES = ["maintenance", "cancel_only", "post_only", "online"]


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(
        seed=5, history_s=60, live_rate=400, rest_burst=1000
    ) as opened:
        yield opened


@asynccontextmanager
async def open_trades(venue: Venue) -> AsyncIterator[Client]:
    """A client that gets the trades of one pair."""
    async with open_client(venue, max_size=None) as client:
        (ack,) = await client.subscribe("trade", SYMBOL)
        assert ack["success"]
        yield client


async def ask(venue: Venue, method: str) -> httpx.Response:
    """One REST call."""
    async with httpx.AsyncClient(base_url=venue.rest_url) as client:
        return await client.get(f"/0/public/{method}")


async def collect(venue: Venue, client: Client, frames: int) -> list[int]:
    """The ids received after so many more frames and what was on its way then."""
    for _ in range(frames):
        await client.wait_channel("trade")
    await client.ask(method="ping", req_id=frames)
    await client.wait(lambda frame: frame.get("method") == "pong")
    return [trade["trade_id"] for trade in client.trades()]


def assert_true(venue: Venue, client: Client) -> None:
    """Every trade received is one of the venue's, in all its fields."""
    truth = {row.trade_id: as_received(row, SYMBOL) for row in venue.trades(SYMBOL)}
    for trade in client.trades():
        assert with_ns(trade) == truth[trade["trade_id"]]


async def test_cut_resets_every_connection_and_new_ones_work(venue: Venue) -> None:
    async with open_trades(venue) as first, open_trades(venue) as second:
        assert venue.faults.cut() == 2
        for client in (first, second):
            with pytest.raises(ConnectionClosedError):
                await client.read_to_end()
            assert isinstance(client.socket.connection_exc, trio.BrokenResourceError)
    async with open_trades(venue) as client:
        await client.wait_channel("trade")
    assert venue.faults.done == {"cut": 2}


async def test_close_says_why(venue: Venue) -> None:
    async with open_trades(venue) as client:
        assert venue.faults.close() == 1
        with pytest.raises(ConnectionClosed):
            await client.read_to_end()
        assert client.socket.close_code == 1001
        assert client.socket.close_reason == "CloudFlare WebSocket proxy restarting"


async def test_refused_connections_end_before_the_handshake(venue: Venue) -> None:
    async with open_trades(venue) as old:
        venue.faults.refuse_connections()
        with pytest.raises((OSError, trio.BrokenResourceError)):
            await knock(venue)
        assert venue.statistics().connections_refused == 1
        venue.faults.refuse_connections(False)
        async with open_trades(venue) as new:
            await new.wait_channel("trade")
        ids = await collect(venue, old, 5)
        assert ids == list(range(ids[0], ids[0] + len(ids)))


async def knock(venue: Venue) -> None:
    """Open a TCP connection and wait until something comes, without a word."""
    host, port = venue.ws_url.removeprefix("ws://").removesuffix("/v2").split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.receive_some()


async def test_half_open_connections_are_silent_and_deaf_for_good(
    venue: Venue,
) -> None:
    async with open_trades(venue) as client:
        venue.faults.half_open()
        with trio.move_on_after(0.3):
            await client.read_to_end()
        read = len(client.frames)
        await client.ask(method="ping")
        pong = await client.socket.ping()
        with trio.move_on_after(0.5) as patience:
            await connect_and_read(venue)
        assert patience.cancelled_caught
        venue.faults.half_open(False)
        async with open_trades(venue) as fresh:
            await fresh.wait_channel("trade")
        with trio.move_on_after(1.2) as patience:
            await client.read()
        assert patience.cancelled_caught
        assert not pong.is_set()
        assert len(client.frames) == read
        assert client.socket.close_code is None


async def connect_and_read(venue: Venue) -> None:
    """Connect and wait for the status frame."""
    async with open_client(venue):
        pass


async def test_silent_acks_swallow_subscriptions_alone(venue: Venue) -> None:
    async with open_client(venue) as client, open_trades(venue) as old:
        venue.faults.silent_acks()
        params = {"channel": "trade", "symbol": [SYMBOL]}
        await client.ask(method="subscribe", params=params)
        await client.ask(method="ping", req_id=1)
        assert (await client.read())["method"] == "pong"
        await old.wait_channel("trade")
        assert venue.statistics().subscriptions == 1
        venue.faults.silent_acks(False)
        (ack,) = await client.subscribe("trade", SYMBOL)
        assert ack["success"]


async def test_a_refused_symbol_is_not_supported_until_it_is_again(
    venue: Venue,
) -> None:
    venue.faults.refuse_symbol("ETH/USD")
    async with open_client(venue) as client:
        (answer,) = await client.subscribe("trade", "ETH/USD")
        assert answer["error"] == "Currency pair not supported ETH/USD"
        (answer,) = await client.subscribe("trade", SYMBOL)
        assert answer["success"]
        venue.faults.refuse_symbol("ETH/USD", False)
        (answer,) = await client.subscribe("trade", "ETH/USD")
        assert answer["success"]


async def test_duplicated_frames_come_twice(venue: Venue) -> None:
    venue.faults.duplicate(1)
    async with open_trades(venue) as client:
        ids = await collect(venue, client, 40)
        frames = [row for row in client.frames if row.get("channel") == "trade"]
        assert frames[0::2] == frames[1::2]
        assert sorted(set(ids)) == list(range(min(ids), max(ids) + 1))
        assert_true(venue, client)
    assert set(venue.faults.done) == {"duplicate"}


async def test_disordered_frames_lose_and_repeat_nothing(venue: Venue) -> None:
    async with open_trades(venue) as client:
        venue.faults.disorder(0.5)
        await collect(venue, client, 60)
        venue.faults.disorder(0)
        ids = await collect(venue, client, 3)
        assert ids != sorted(ids)
        assert sorted(ids) == list(range(min(ids), max(ids) + 1))
        assert_true(venue, client)
    assert set(venue.faults.done) == {"disorder"}


async def test_a_frame_put_off_is_sent_before_the_end_of_a_subscription(
    venue: Venue,
) -> None:
    async with open_trades(venue) as client:
        venue.faults.disorder(1)
        while not venue.faults.done["disorder"]:
            await trio.sleep(0.001)
        await client.subscribe("trade", SYMBOL, method="unsubscribe")
        ids = [trade["trade_id"] for trade in client.trades()]
        assert sorted(ids) == list(range(min(ids), max(ids) + 1))


async def test_dropped_frames_are_lost_and_counted(venue: Venue) -> None:
    async with open_trades(venue) as client:
        venue.faults.drop(0.5)
        ids = await collect(venue, client, 30)
        truth = [row for row in venue.trades(SYMBOL) if row.trade_id <= ids[-1]]
        truth = [row for row in truth if row.trade_id >= ids[0]]
        lost = {row.time_ns for row in truth if row.trade_id not in ids}
        assert 0 < len(lost) <= venue.faults.done["drop"]
        assert ids == sorted(set(ids))
        assert_true(venue, client)
    assert set(venue.faults.done) == {"drop"}


async def test_a_list_of_broken_frames_is_sent_as_it_is(venue: Venue) -> None:
    wanted = [*MALFORMED.values(), b"mine", "mine too"]
    async with open_client(venue, max_size=None) as client:
        venue.faults.malformed([*MALFORMED, b"mine", "mine too"])
        received = [await client.socket.recv(decode=False) for _ in wanted]
    assert received == [
        text.encode() if isinstance(text, str) else text for text in wanted
    ]


async def test_broken_frames_between_trades_take_none_of_them(venue: Venue) -> None:
    async with open_trades(venue) as client:
        venue.faults.malformed(0.3)
        ids: list[int] = []
        broken = 0
        while len(ids) < 80 or not broken:
            text = await client.socket.recv(decode=False)
            if text in MALFORMED.values():
                broken += 1
            else:
                ids += trade_ids(text)
        assert ids == list(range(ids[0], ids[0] + len(ids)))


def trade_ids(text: bytes) -> list[int]:
    """The ids of a trade frame; none of another frame."""
    frame = json.loads(text)
    rows = frame["data"] if frame["channel"] == "trade" else []
    return [row["trade_id"] for row in rows]


@pytest.mark.parametrize("rate", [-0.1, 1.1])
async def test_a_rate_is_a_part(venue: Venue, rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        venue.faults.drop(rate)


async def test_maintenance_goes_through_its_stages_and_nothing_trades_meanwhile(
    venue: Venue,
) -> None:
    async with open_trades(venue) as client:
        await client.wait_channel("trade")
        begun_ns = time.time_ns()
        venue.faults.maintenance(0.8)
        stages = []
        while "online" not in stages:
            status = await client.wait_channel("status")
            stages.append(status["data"][0]["system"])
            reply = (await ask(venue, "SystemStatus")).json()
            seen = STAGES.index(reply["result"]["status"])
            assert seen >= len(stages) - 1  # it may be a stage further by now
        assert stages == STAGES
        ids = await collect(venue, client, 10)
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert_true(venue, client)
    times = [row.time_ns for row in venue.trades(SYMBOL)]
    assert not [t for t in times if begun_ns + 10**6 < t < begun_ns + 8 * 10**8]
    assert times == sorted(times)
    assert times[-1] <= time.time_ns()


async def test_a_second_maintenance_takes_over_from_the_first(venue: Venue) -> None:
    async with open_client(venue) as client:
        await client.subscribe("trade", SYMBOL)
        venue.faults.maintenance(0.4)
        venue.faults.maintenance(0.1)
        until = time.monotonic() + 0.7
        while time.monotonic() < until:
            await client.read()
        stages = [
            frame["data"][0]["system"]
            for frame in client.frames[1:]
            if frame.get("channel") == "status"
        ]
        assert stages == STAGES


REST_FAULTS = {
    "throttle": (200, '{"error":["EGeneral:Too many requests"]}'),
    "unavailable": (200, '{"error":["EService:Unavailable"]}'),
    "html": (502, "<html>"),
}


@pytest.mark.parametrize("fault", REST_FAULTS)
async def test_rest_faults_hit_the_next_calls_and_no_more(
    venue: Venue, fault: str
) -> None:
    getattr(venue.faults, fault)(2)
    status, text = REST_FAULTS[fault]
    for _ in range(2):
        reply = await ask(venue, "Time")
        assert reply.status_code == status
        assert reply.text.startswith(text)
    reply = await ask(venue, "Time")
    assert reply.json()["error"] == []
    assert venue.faults.done == {fault: 2}
    assert venue.statistics().rest_refused == 0


async def test_a_throttle_can_say_until_when(venue: Venue) -> None:
    venue.faults.throttle(1, until_s=1795600000)
    reply = await ask(venue, "Time")
    assert reply.json() == {"error": ["EService: Throttled: 1795600000"]}


async def test_slow_rest_waits_before_each_answer_and_calls_overlap(
    venue: Venue,
) -> None:
    venue.faults.slow_rest(0.3)
    begun = time.monotonic()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask, venue, "Time")
    assert time.monotonic() - begun >= 0.3
    assert venue.statistics().rest_concurrency == 3
