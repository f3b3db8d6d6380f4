"""Two hundred markets of Binance at 5,000 trades a second: none lost, at what cost?

A simulated venue in one process tells every trade and every best quote; the provider
in another takes them to the bars. Then a bare `websockets.trio` receives the same
streams of the same venue and decodes their JSON. A run in which a single trade is lost
fails.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import msgspec
import trio
from websockets.trio.client import connect

import piker_core as pk
from benchmarks.common import Figure, Options, Row, main, namespace

MARKETS = 200
RATE = 5_000
LIMIT_S = 60.0
SETTINGS = {
    "PIKER_CONFIG": os.devnull,
    "PIKER_BINANCE__REST_WEIGHT": "1000000",
    "PIKER_BINANCE__REST_RATE": "1e6",
    "PIKER_BINANCE__HOLD_S": "20",
    "PIKER_BINANCE__ACK_TIMEOUT_S": "60",
    "PIKER_BINANCE__LIVENESS_S": "60",
    "PIKER_FEED__SECONDS_BACK": "0",
    "PIKER_FEED__MINUTES_BACK": "0",
}
"""Patience with a machine that has other work, and none of the start's."""


class Spent(msgspec.Struct, frozen=True):
    """What a receiver took: frames, and processor time of it and of the venue."""

    frames: int
    seconds: float
    own_s: float
    venue_s: float

    @property
    def shares(self) -> str:
        """How busy both were, in percent of a core."""
        own, venue = (100 * s / self.seconds for s in (self.own_s, self.venue_s))
        return f"{own:.0f} % of a core, the venue {venue:.0f} %"

    def figure(self, name: str) -> Figure:
        """Processor time of a frame."""
        cost_ns = self.own_s * 1e9 / self.frames
        return Figure(name, cost_ns, cost_ns)


class CrowdServer:
    """The venue's process; see `crowd_server`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin and process.stdout
        self._commands, self._answers = process.stdin, process.stdout
        self.config: dict[str, str] = json.loads(self._answers.readline())

    def ask(self, command: str) -> Any:
        """What it says of itself."""
        self._commands.write(f"{command}\n".encode())
        self._commands.flush()
        return json.loads(self._answers.readline())


@contextmanager
def open_server() -> Iterator[CrowdServer]:
    """A running venue."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.crowd_server", f"{MARKETS}", f"{RATE}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            yield CrowdServer(process)
        finally:
            process.kill()


def rows(options: Options) -> Iterator[Row]:
    seconds = 4.0 if options.quick else 30.0
    with open_server() as server, namespace() as space:
        fed, told = trio.run(measure_feed, server, space, seconds)
        bare = trio.run(measure_bare, server, seconds)
    figures = [
        fed.figure("piker-core, to the bars"),
        bare.figure("websockets.trio and json.loads alone"),
    ]
    note = f"{told}; {fed.shares}; the reference {bare.shares}"
    what = f"{MARKETS} markets, {RATE:,} trades a second, best quotes: a frame"
    yield Row(what, figures, note=note)


async def measure_feed(
    server: CrowdServer, space: str, seconds: float
) -> tuple[Spent, str]:
    """The provider for so long; what it took, and that it lost nothing."""
    names = [f"c{number:04d}usdt.binance" for number in range(MARKETS)]
    settings = {
        f"PIKER_BINANCE__{key.upper()}": url for key, url in server.config.items()
    }
    settings |= SETTINGS
    with patch.dict(os.environ, settings):
        async with pk.open_feed(names, namespace=space) as feed:
            with trio.fail_after(LIMIT_S):
                while any(flume.status != "live" for flume in feed.flumes.values()):
                    await trio.sleep(0.1)
            start_s = int(time.time()) + 1
            before, spent = _frames(feed), await _spend(server, seconds)
            taken = msgspec.structs.replace(spent, frames=_frames(feed) - before)
            return taken, await _compare(server, feed, start_s, int(time.time()))


async def _spend(server: CrowdServer, seconds: float) -> Spent:
    """Wait so long, and see what this process and the venue's have used."""
    venue_s, own_s, began_s = server.ask("usage"), _own_s(), time.monotonic()
    await trio.sleep(seconds)
    elapsed_s, own_s = time.monotonic() - began_s, _own_s() - own_s
    return Spent(0, elapsed_s, own_s, server.ask("usage") - venue_s)


def _own_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _frames(feed: pk.Feed) -> int:
    counters = next(iter(feed.statistics().values()))
    frames: int = counters["stream"]["frames"]
    return frames


async def _compare(server: CrowdServer, feed: pk.Feed, start_s: int, end_s: int) -> str:
    """Every second of every market has the venue's trades. RuntimeError if not.

    What is still on its way is waited for.
    """
    truth = server.ask(f"counts {start_s} {end_s}")
    sent = sum(sum(candles.values()) for candles in truth.values())
    received, wrong = 0, 1
    with trio.move_on_after(LIMIT_S):
        while wrong:
            await trio.sleep(0.5)
            received, wrong = _count(feed, truth, start_s, end_s)
    told = f"trades sent {sent:,}, received {received:,}, lost {sent - received:,}"
    if wrong or not sent:
        raise RuntimeError(f"{told}; {wrong} rows are not the venue's")
    return told


def _count(
    feed: pk.Feed, truth: dict[str, dict[str, int]], start_s: int, end_s: int
) -> tuple[int, int]:
    """Trades in the rows, and rows that have not the venue's number of them."""
    received = wrong = 0
    for fqme, flume in feed.flumes.items():
        rows: Any = flume.rt.between(start_s, end_s)
        counts = dict(zip(rows["time"].tolist(), rows["count"].tolist(), strict=True))
        received += sum(counts.values())
        candles = truth[fqme.removesuffix(".binance")]
        wrong += sum(counts.get(int(at), 0) != n for at, n in candles.items())
    return received, wrong


async def measure_bare(server: CrowdServer, seconds: float) -> Spent:
    """The same frames, received and decoded, and that is all."""
    streams = "/".join(
        f"c{number:04d}usdt@{kind}"
        for number in range(MARKETS)
        for kind in ("trade", "bookTicker")
    )
    frames = 0
    url = f"{server.config['ws_url']}/stream?streams={streams}"
    async with (
        # with a full queue it would not close
        connect(url, proxy=None, compression=None, max_queue=None) as connection,
        trio.open_nursery() as nursery,
    ):

        async def receive() -> None:
            nonlocal frames
            while True:
                json.loads(await connection.recv(decode=False))
                frames += 1

        nursery.start_soon(receive)
        await trio.sleep(1.0)
        before, spent = frames, await _spend(server, seconds)
        nursery.cancel_scope.cancel()
    return msgspec.structs.replace(spent, frames=frames - before)


if __name__ == "__main__":
    main("Many markets of Binance at once", rows)
