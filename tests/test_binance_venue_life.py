"""The simulated Binance from its start to its end: names, ports, clients, signals."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import httpx
import pytest
import trio
from binance_venue_client import combined, open_client, usdm
from websockets.exceptions import ConnectionClosed

from providers.binance.venue import Limits, Venue, open_venue


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(seed=7, history_s=600, live_rate=300) as opened:
        yield opened


async def test_a_client_that_does_not_read_is_dropped_and_slows_nobody() -> None:
    limits = Limits(outbox_bytes=2 << 20)
    async with open_venue(history_s=60, live_rate=300, limits=limits) as venue:
        url = combined(venue, "btcusdt@trade")
        async with open_client(url) as good, open_client(url, max_queue=2) as stuck:
            while not venue.statistics().connections_dropped:
                venue.faults.malformed(["large"])
                await good.wait(lambda frame: frame.get("stream") == "weather")
            while venue.statistics().connections > 1:
                await trio.lowlevel.checkpoint()
            read = len(good.frames)
            await good.wait_stream("btcusdt@trade")
            ids = [row["t"] for row in good.events("btcusdt@trade")]
            assert ids == list(range(ids[0], ids[0] + len(ids)))
            assert len(good.frames) > read
            with pytest.raises(ConnectionClosed):
                await stuck.read_to_end()


@pytest.mark.parametrize(
    "text",
    [
        b"hello\r\n\r\n",
        b"GET /stream HTTP/1.1\r\nHost: venue\r\n\r\n",
        b"POST /stream HTTP/1.1\r\nHost: venue\r\n\r\n",
        b"\x16\x03\x01\x00\xf5\x01\x00\x00\xf1\x03\x03\r\n\r\n",
        b"GET /" + b"x" * 20_000,
        b"GET / HTTP/1.1\r\n",
        b"",
    ],
)
async def test_what_is_no_handshake_ends_and_the_venue_lives(
    venue: Venue, text: bytes
) -> None:
    for key in ("ws_url", "rest_url"):
        host, port = venue.config[key].partition("//")[2].split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            if text:
                await stream.send_all(text)
            await stream.send_eof()
            with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
                async for _ in stream:
                    pass
    async with open_client(combined(venue, "btcusdt@trade")) as client:
        await client.read()
    assert venue.statistics().connections_ever == 1


async def test_a_message_may_come_in_fragments(venue: Venue) -> None:
    async with open_client(combined(venue)) as client:
        await client.socket.send(
            ['{"method":"SUB', "", 'SCRIBE","params":["x"],"id"', ":1}"]
        )
        assert await client.read() == {"result": None, "id": 1}


async def test_nonsense_after_the_handshake_ends_the_connection(venue: Venue) -> None:
    async with open_client(combined(venue)) as client:
        await client.socket.stream.send_all(b"\xff\xff\xff\xff nonsense")
        with pytest.raises(ConnectionClosed):
            await client.read_to_end()
        assert client.socket.close_code == 1002
    while venue.statistics().connections:
        await trio.lowlevel.checkpoint()


async def test_leaving_says_goodbye_and_errors_of_the_body_pass_as_they_are() -> None:
    ended = trio.Event()

    async def stay(venue: Venue, ready: trio.Event) -> None:
        async with open_client(usdm(venue, "")) as client:
            ready.set()
            with pytest.raises(ConnectionClosed):
                await client.read_to_end()
            assert client.socket.close_code == 1001
            ended.set()

    async def fail(nursery: trio.Nursery) -> None:
        async with open_venue(history_s=60) as venue:
            ready = trio.Event()
            nursery.start_soon(stay, venue, ready)
            await ready.wait()
            raise KeyError("mine")

    async with trio.open_nursery() as nursery:
        with pytest.raises(KeyError, match="mine"):
            await fail(nursery)
        await ended.wait()


async def test_an_unknown_symbol_and_a_port_in_use_are_errors() -> None:
    with pytest.raises(ValueError, match="FOOBAR"):
        async with open_venue(pairs=["FOOBAR"]):
            pass
    with pytest.raises(ValueError, match="is empty"):
        async with open_venue(pairs=[]):
            pass
    async with open_venue(history_s=60, pairs=["btcusdt"]) as venue:
        with pytest.raises(ValueError, match="no symbol 'ethusdt' at this venue"):
            venue.market("ethusdt")
        port = int(venue.config["rest_url"].rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            async with open_venue(history_s=60, ports=(0, port, 0, 0)):
                pass


async def test_names_tell_spot_from_contracts(venue: Venue) -> None:
    names = {
        "BTCUSDT": "", "btcusdt": "", "btcusdt.usdtm.perp": "PERPETUAL",
        "btcusdt.usdtm.20301227": "NEXT_QUARTER", "BTCUSDT_301227": "NEXT_QUARTER",
    }  # fmt: skip
    for name, contract in names.items():
        assert venue.market(name).pair.contract == contract


async def test_statistics_count_connections_subscriptions_and_frames(
    venue: Venue,
) -> None:
    async with open_client(combined(venue, "btcusdt@trade", "x@trade")) as client:
        for _ in range(5):
            await client.read()
        during = venue.statistics()
    async with open_client(usdm(venue, "")):
        pass
    while venue.statistics().connections:
        await trio.lowlevel.checkpoint()
    after = venue.statistics()
    assert (during.connections, during.subscriptions) == (1, 2)
    assert (after.connections_ever, after.subscriptions) == (2, 0)
    assert after.frames_sent >= 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_alone_it_serves_until_a_signal_and_leaves_cleanly(
    number: signal.Signals,
) -> None:
    command = [sys.executable, "-m", "providers.binance.venue", "--crowd", "3"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    ) as process:
        try:
            assert process.stdout is not None
            urls = json.loads(process.stdout.readline())
            reply = httpx.get(f"{urls['rest_url']}/api/v3/ticker/price")
            assert len(reply.json()) == 3
            assert httpx.get(f"{urls['usdm_rest_url']}/fapi/v1/ping").json() == {}
            process.send_signal(number)
            out, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out, errors) == (0, b"", b"")


def test_alone_it_stops_after_its_seconds() -> None:
    command = [sys.executable, "-m", "providers.binance.venue", "--seconds", "0.1"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert set(json.loads(done.stdout)) >= {"ws_url", "rest_url"}
    assert done.stderr == b""
