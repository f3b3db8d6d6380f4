"""Each fault of the simulated Binance does what it says and nothing else."""

import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from binance_venue_client import (
    Client,
    as_trade,
    combined,
    from_event,
    open_caller,
    open_client,
    usdm,
)
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from providers.binance.venue import Venue, open_venue
from providers.binance.venue_faults import MALFORMED

TRADES = "btcusdt@trade"


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(seed=5, history_s=60, live_rate=1200) as opened:
        yield opened


@asynccontextmanager
async def open_trades(venue: Venue, *names: str) -> AsyncIterator[Client]:
    """A client that gets the trades of one symbol."""
    url = combined(venue, TRADES, *names)
    async with open_client(url, max_size=None) as client:
        yield client


async def collect(client: Client, events: int) -> list[int]:
    """The ids received after so many more events and what was on its way then."""
    for _ in range(events):
        await client.wait_stream(TRADES)
    await client.ask("LIST_SUBSCRIPTIONS", id=events)
    return [row["t"] for row in client.events(TRADES)]


def assert_true(venue: Venue, client: Client) -> None:
    """Every trade received is one of the venue's, in all its fields."""
    truth = {row.trade_id: as_trade(row) for row in venue.trades("btcusdt")}
    for event in client.events(TRADES):
        assert from_event(event) == truth[event["t"]]
        assert event["T"] <= event["E"]


# Connections


async def test_cut_resets_every_connection_and_new_ones_work(venue: Venue) -> None:
    async with open_trades(venue) as first, open_client(usdm(venue, "")) as second:
        assert venue.faults.cut() == 2
        for client in (first, second):
            with pytest.raises(ConnectionClosedError):
                await client.read_to_end()
            assert isinstance(client.socket.connection_exc, trio.BrokenResourceError)
    async with open_trades(venue) as client:
        await client.wait_stream(TRADES)
    assert venue.faults.done == {"cut": 2}


@pytest.mark.parametrize(("fault", "code"), [("close", 1001), ("rotate", 1001)])
async def test_connections_are_closed_with_a_handshake(
    venue: Venue, fault: str, code: int
) -> None:
    async with open_trades(venue) as client:
        assert getattr(venue.faults, fault)() == 1
        with pytest.raises(ConnectionClosed):
            await client.read_to_end()
        assert client.socket.close_code == code
    async with open_trades(venue) as client:
        await client.wait_stream(TRADES)
    assert venue.faults.done == {fault: 1}


async def test_close_says_why(venue: Venue) -> None:
    async with open_trades(venue) as client:
        venue.faults.close(1008, "because")
        with pytest.raises(ConnectionClosed):
            await client.read_to_end()
        assert (client.socket.close_code, client.socket.close_reason) == (
            1008,
            "because",
        )


async def test_a_shutdown_is_announced_first_and_new_connections_stay(
    venue: Venue,
) -> None:
    raw = venue.config["ws_url"] + "/ws"
    async with open_trades(venue) as old, open_client(raw) as bare:
        begun = time.monotonic()
        assert venue.faults.shutdown(0.5) == 2
        event = await old.wait_stream("!serverShutdown")
        assert event == {"e": "serverShutdown", "E": event["E"]}
        assert list(await bare.read()) == ["e", "E"]
        async with open_trades(venue) as new:
            with pytest.raises(ConnectionClosed):
                await old.read_to_end()
            assert time.monotonic() - begun >= 0.5
            assert old.socket.close_code == 1001
            assert old.events(TRADES)
            await new.wait_stream(TRADES)
            ids = await collect(new, 20)
            assert ids == list(range(ids[0], ids[0] + len(ids)))
            joined = {row["t"] for row in old.events(TRADES)} | set(ids)
            assert sorted(joined) == list(range(min(joined), max(joined) + 1))
    assert venue.faults.done == {"shutdown": 2}


async def test_refused_connections_end_before_the_handshake(venue: Venue) -> None:
    async with open_trades(venue) as old:
        venue.faults.refuse_connections()
        with pytest.raises((OSError, trio.BrokenResourceError)):
            await knock(venue)
        assert venue.statistics().connections_refused == 1
        venue.faults.refuse_connections(False)
        async with open_trades(venue) as new:
            await new.wait_stream(TRADES)
        ids = await collect(old, 5)
        assert ids == list(range(ids[0], ids[0] + len(ids)))


async def knock(venue: Venue) -> None:
    """Open a TCP connection and wait until something comes, without a word."""
    host, port = venue.config["ws_url"].removeprefix("ws://").split(":")
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
        await client.socket.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        pong = await client.socket.ping()
        with trio.move_on_after(0.3) as patience:
            async with open_trades(venue):
                pass
        assert patience.cancelled_caught
        venue.faults.half_open(False)
        async with open_trades(venue) as fresh:
            await fresh.wait_stream(TRADES)
        with trio.move_on_after(0.3) as patience:
            await client.read()
        assert patience.cancelled_caught
        assert not pong.is_set()
        assert len(client.frames) == read
        assert client.socket.close_code is None


async def test_silent_acks_swallow_subscriptions_alone(venue: Venue) -> None:
    async with open_client(combined(venue)) as client, open_trades(venue) as old:
        venue.faults.silent_acks()
        message = {"method": "SUBSCRIBE", "params": [TRADES], "id": 1}
        await client.socket.send(json.dumps(message))
        assert (await client.ask("LIST_SUBSCRIPTIONS", id=2))["result"] == []
        assert len(client.frames) == 1
        await old.wait_stream(TRADES)
        venue.faults.silent_acks(False)
        assert (await client.ask("SUBSCRIBE", TRADES, id=3))["result"] is None
        await client.wait_stream(TRADES)


async def test_a_refused_symbol_is_unknown_until_it_is_known_again(
    venue: Venue,
) -> None:
    name = "ethusdt@trade"
    venue.faults.refuse_symbol("ETHUSDT")
    async with open_client(combined(venue)) as client, open_caller(venue) as caller:
        assert (await client.ask("SUBSCRIBE", name, TRADES))["result"] is None
        for _ in range(30):
            await client.wait_stream(TRADES)
        assert not client.events(name)
        assert (await caller.error("trades?symbol=ETHUSDT"))[0] == -1121
        listed = (await caller.get("exchangeInfo"))["symbols"]
        assert not [row for row in listed if row["symbol"] == "ETHUSDT"]
        await caller.get("trades?symbol=BTCUSDT")
        venue.faults.refuse_symbol("ETHUSDT", False)
        await client.ask("SUBSCRIBE", name)
        await client.wait_stream(name)
        assert await caller.get("trades?symbol=ETHUSDT")


async def test_lag_delays_frames_and_loses_none(venue: Venue) -> None:
    async with open_trades(venue) as client:
        await collect(client, 5)
        venue.faults.lag(0.6)
        begun = time.monotonic()
        ids = await collect(client, 20)
        assert time.monotonic() - begun > 0.5
        last = client.events(TRADES)[-1]
        assert time.time() - last["E"] / 1000 > 0.5
        async with open_trades(venue) as new:
            event = await new.wait_stream(TRADES)
            assert time.time() - event["E"] / 1000 > 0.5
        venue.faults.lag(0)
        ids = await collect(client, 200)
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert_true(venue, client)


# Trade frames


async def test_duplicated_frames_come_twice(venue: Venue) -> None:
    venue.faults.duplicate(1)
    async with open_trades(venue) as client:
        ids = await collect(client, 40)
        frames = [row for row in client.frames if "stream" in row]
        assert frames[0::2] == frames[1::2]
        assert sorted(set(ids)) == list(range(min(ids), max(ids) + 1))
        assert_true(venue, client)
    assert set(venue.faults.done) == {"duplicate"}


async def test_disordered_frames_lose_and_repeat_nothing(venue: Venue) -> None:
    async with open_trades(venue) as client:
        venue.faults.disorder(0.5)
        await collect(client, 60)
        venue.faults.disorder(0)
        ids = await collect(client, 3)
        assert ids != sorted(ids)
        assert abs(len(ids) - (max(ids) - min(ids) + 1)) <= 1  # one may be held yet
        assert len(set(ids)) == len(ids)
        assert_true(venue, client)
    assert set(venue.faults.done) == {"disorder"}


async def test_a_frame_put_off_is_sent_before_the_end_of_a_subscription(
    venue: Venue,
) -> None:
    async with open_trades(venue) as client:
        venue.faults.disorder(1)
        while not venue.faults.done["disorder"]:
            await trio.sleep(0.001)
        await client.ask("UNSUBSCRIBE", TRADES)
        ids = [row["t"] for row in client.events(TRADES)]
        assert sorted(ids) == list(range(min(ids), max(ids) + 1))


async def test_dropped_frames_are_lost_and_counted(venue: Venue) -> None:
    names = ("btcusdt@bookTicker", "btcusdt@kline_1s")
    async with open_trades(venue, *names) as client:
        venue.faults.drop(0.5)
        read = len(client.events(TRADES))
        ids = (await collect(client, 60))[read:]
        lost = set(range(ids[0], ids[-1] + 1)) - set(ids)
        assert 0 < len(lost) <= venue.faults.done["drop"]
        assert ids == sorted(set(ids))
        assert_true(venue, client)
        venue.faults.drop(1)
        await client.ask("LIST_SUBSCRIPTIONS")
        read = len(client.events(TRADES))
        for name in names:
            await client.wait_stream(name)
        assert len(client.events(TRADES)) == read
    assert set(venue.faults.done) == {"drop"}


async def test_depth_loses_events_as_well(venue: Venue) -> None:
    name = "btcusdt@depth@100ms"
    async with open_client(combined(venue, name)) as client:
        await client.wait_stream(name)
        venue.faults.drop(0.5)
        while venue.faults.done["drop"] < 2:
            await client.wait_stream(name)
        await client.wait_stream(name)
    events = client.events(name)
    gaps = [b["U"] - a["u"] for a, b in itertools.pairwise(events)]
    assert max(gaps) > 1


async def test_a_list_of_broken_frames_is_sent_as_it_is(venue: Venue) -> None:
    wanted = [*MALFORMED.values(), b"mine", "mine too"]
    url = combined(venue, "xrpeth@trade")
    async with open_client(url, max_size=None) as client:
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
                assert text != MALFORMED["giant"]
                broken += 1
            else:
                ids.append(json.loads(text)["data"]["t"])
        assert ids == list(range(ids[0], ids[0] + len(ids)))


@pytest.mark.parametrize("rate", [-0.1, 1.1])
async def test_a_rate_is_a_part(venue: Venue, rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        venue.faults.drop(rate)


# REST and the whole venue


REST_FAULTS: dict[str, tuple[dict[str, Any], int, str]] = {
    "throttle": ({"retry_after_s": 7}, 429, '{"code":-1003,"msg":"Too much request'),
    "unavailable": ({}, 503, '{"code":-1008,"msg":"Server is currently overloaded'),
    "html": ({}, 403, "<html>"),
}


@pytest.mark.parametrize("fault", REST_FAULTS)
async def test_rest_faults_hit_the_next_calls_and_no_more(
    venue: Venue, fault: str
) -> None:
    options, status, text = REST_FAULTS[fault]
    getattr(venue.faults, fault)(2, **options)
    for usdm_side in (False, True):
        async with open_caller(venue, usdm=usdm_side) as caller:
            reply = await caller.send("time")
            assert reply.status_code == status
            assert reply.text.startswith(text)
            after = {"throttle": "7"}.get(fault)
            assert reply.headers.get("retry-after") == after
    async with open_caller(venue) as caller:
        assert list(await caller.get("time")) == ["serverTime"]
    assert venue.faults.done == {fault: 2}
    assert venue.statistics().rest_refused == 0


async def test_html_comes_with_any_status(venue: Venue) -> None:
    venue.faults.html(1, status=502)
    async with open_caller(venue) as caller:
        reply = await caller.send("time")
    assert (reply.status_code, reply.headers["content-type"]) == (502, "text/html")
    assert "502 Bad Gateway" in reply.text


async def test_a_ban_lasts_as_long_as_it_says(venue: Venue) -> None:
    venue.faults.ban(1.0)
    async with open_caller(venue) as caller, open_trades(venue) as client:
        reply = await caller.send("time")
        assert reply.status_code == 418
        assert 1 <= int(reply.headers["retry-after"]) <= 2
        until_ms = int(reply.json()["msg"].partition("until ")[2].partition(".")[0])
        assert 0 < until_ms - time.time() * 1000 <= 1000
        await client.wait_stream(TRADES)
        while time.time() * 1000 < until_ms:
            await trio.sleep(0.05)
        await caller.get("time")
    assert venue.statistics().rest_bans == 2  # of both sides


async def test_slow_rest_waits_before_each_answer_and_calls_overlap(
    venue: Venue,
) -> None:
    venue.faults.slow_rest(0.3)
    begun = time.monotonic()
    async with open_caller(venue) as caller, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(caller.get, "time")
    assert time.monotonic() - begun >= 0.3
    assert venue.statistics().rest_concurrency == 3


async def test_in_maintenance_nothing_trades_and_symbols_say_so(venue: Venue) -> None:
    async with open_trades(venue) as client, open_caller(venue) as caller:
        await client.wait_stream(TRADES)
        begun_ns = time.time_ns()
        venue.faults.maintenance(1.6)
        seen = []
        while "TRADING" not in seen:
            (symbol,) = (await caller.get("exchangeInfo?symbol=BTCUSDT"))["symbols"]
            if symbol["status"] not in seen:
                seen.append(symbol["status"])
            await trio.sleep(0.02)
        assert seen == ["BREAK", "CANCEL_ONLY", "HALT", "TRADING"]
        ids = await collect(client, 10)
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert_true(venue, client)
        assert (await caller.get("../../sapi/v1/system/status"))["status"] == 0
    times = [row.time_ns for row in venue.trades("btcusdt")]
    assert not [t for t in times if begun_ns + 10**7 < t < begun_ns + 16 * 10**8]
    assert times == sorted(times)


async def test_usdm_is_in_maintenance_as_well(venue: Venue) -> None:
    async with open_caller(venue, usdm=True) as caller:
        venue.faults.maintenance(0.3)
        symbols = (await caller.get("exchangeInfo"))["symbols"]
        states = {row["symbol"]: row["status"] for row in symbols}
        assert states["BTCUSDT"] == "PENDING_TRADING"
        assert states["FTTUSDT"] == "SETTLING"
