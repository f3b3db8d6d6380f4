"""A frame of a WebSocket to a bar, through the provider kraken, in bursts.

What counts is the processor time of the receiving process, kernel included, for one
frame of 200 bytes with one trade. Frames come over loopback from a process that has
them ready, so that it never waits for them.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from unittest.mock import patch

import trio
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.trio.client import connect
from websockets.uri import parse_uri

import piker_core as pk
from benchmarks.burst_server import trade_frame
from benchmarks.common import (
    Case,
    Options,
    Row,
    figure,
    main,
    measure,
    namespace,
)
from providers.kraken.wire import TradeFrame, decode_frame, normalize_trades

FQME = "xbtusd.kraken"
BURST = 2_000
LIMIT_S = 30
ROOT = Path(__file__).resolve().parents[1]
Receive = Callable[[], Awaitable[None]]


class BurstServer:
    """The server process; see `burst_server`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin and process.stdout
        self._commands = process.stdin
        self.address = f"127.0.0.1:{int(process.stdout.readline())}"

    def send(self, path: str) -> None:
        """Have a burst sent to whoever is connected at a path."""
        self._commands.write(f"{path} {BURST}\n".encode())
        self._commands.flush()


@contextmanager
def open_server() -> Iterator[BurstServer]:
    """A running burst server."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.burst_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    with process:
        try:
            yield BurstServer(process)
        finally:
            process.kill()


def rows(options: Options) -> Iterator[Row]:
    with open_server() as server, namespace() as space:
        yield trio.run(socket_row, server, space, options)
    with namespace() as space:
        yield decode_row(space, options)


# ---- over the socket


async def socket_row(server: BurstServer, space: str, options: Options) -> Row:
    """Frames from the socket to the bars, beside libraries that only receive them."""
    async with (
        _open_feed(server.address, space) as feed,
        _open_websockets(server.address) as websockets,
        _open_protocol(server.address) as protocol,
    ):
        receivers = {
            "piker-core, to the bars": ("/v2", feed),
            "websockets.trio, received only": ("/trio", websockets),
            "its Sans-IO part on a trio stream": ("/sansio", protocol),
        }
        samples: dict[str, list[float]] = {name: [] for name in receivers}
        for turn in range(options.rounds + 1):
            for name, (path, receive) in receivers.items():
                spent = await _spend(server, path, receive)
                if turn:
                    samples[name].append(spent / BURST)
    figures = [figure(name, values) for name, values in samples.items()]
    return Row("frame of 200 bytes, 1 trade", figures, "<= 0.3x")


async def _spend(server: BurstServer, path: str, receive: Receive) -> int:
    """Processor time (ns) of this process for one burst."""
    began = time.process_time_ns()
    server.send(path)
    with trio.fail_after(LIMIT_S):
        await receive()
    return time.process_time_ns() - began


@asynccontextmanager
async def _open_feed(address: str, space: str) -> AsyncIterator[Receive]:
    """A feed of the provider kraken; all of a burst is in the rings."""
    settings = {
        "PIKER_CONFIG": os.devnull,
        "PIKER_KRAKEN__WS_URL": f"ws://{address}/v2",
        "PIKER_KRAKEN__REST_URL": f"http://{address}",
        "PIKER_KRAKEN__LIVENESS_S": "3600",
        "PIKER_FEED__SECONDS_BACK": "0",
        "PIKER_FEED__MINUTES_BACK": "0",
    }
    with patch.dict(os.environ, settings):
        async with pk.open_feed([FQME], namespace=space) as feed:
            flume = feed.flumes[FQME]
            taken = 0

            async def receive() -> None:
                nonlocal taken
                taken += BURST
                while flume.rt.statistics()["ticks"] < taken:
                    await trio.sleep(0.002)

            await _settle(flume)
            taken = flume.rt.statistics()["ticks"]
            yield receive
            check_bars(feed)


async def _settle(flume: pk.Flume) -> None:
    """The first trade is in: the provider has done what it does at a start."""
    with trio.fail_after(LIMIT_S):
        while flume.status != "live" or flume.rt.head == flume.rt.first:
            await trio.sleep(0.01)


def check_bars(feed: pk.Feed) -> None:
    """Nothing was refused, repeated or lost, or the figure is of something else."""
    counters = feed.flumes[FQME].rt.statistics()
    wrong = {
        name: counters[name]
        for name in ("refused", "duplicates", "unplaced", "gaps")
        if counters[name]
    }
    if wrong:
        raise RuntimeError(f"the feed has counted {wrong}")


@asynccontextmanager
async def _open_websockets(address: str) -> AsyncIterator[Receive]:
    """`websockets.trio`, as its documentation has it."""
    url = f"ws://{address}/trio"
    async with connect(url, proxy=None, compression=None) as connection:

        async def receive() -> None:
            for _ in range(BURST):
                await connection.recv(decode=False)

        yield receive


@asynccontextmanager
async def _open_protocol(address: str) -> AsyncIterator[Receive]:
    """The protocol of `websockets` without its connection: chunks in, frames out."""
    protocol = ClientProtocol(parse_uri(f"ws://{address}/sansio"))
    host, _, port = address.partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        protocol.send_request(protocol.connect())
        for chunk in protocol.data_to_send():
            await stream.send_all(chunk)
        while protocol.state is not State.OPEN:
            protocol.receive_data(await stream.receive_some(65536))
        protocol.events_received()

        async def receive() -> None:
            frames = 0
            while frames < BURST:
                protocol.receive_data(await stream.receive_some(65536))
                frames += len(protocol.events_received())

        yield receive


# ---- without the socket


def decode_row(space: str, options: Options) -> Row:
    """Decoding, normalizing and pushing alone, beside a parser that only parses."""
    with pk.open_engine("kraken", namespace=space) as engine:
        market = engine.add_market(FQME)
        market.set_status("live")
        numbers = count(1)

        def prepare() -> list[bytes]:
            return [trade_frame(next(numbers)) for _ in range(BURST)]

        def own(frames: list[bytes]) -> None:
            for raw in frames:
                frame = decode_frame(raw)
                assert isinstance(frame, TradeFrame)
                engine.push(normalize_trades(market.symbol, frame.data))

        def parse(frames: list[bytes]) -> None:
            for raw in frames:
                json.loads(raw)

        cases = [
            Case("piker-core, to the bars", own, BURST, prepare),
            Case("json.loads", parse, BURST, prepare),
        ]
        return measure("the same, from bytes in memory", cases, options)


if __name__ == "__main__":
    main("Frames of a WebSocket into bars", rows)
