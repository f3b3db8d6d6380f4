"""Memory does not grow with what fails: connections that are lost, calls that fail."""

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus

import pytest
import trio

from piker_core.simulation.http import Call, Reply, serve_http
from tests.adapter_socket import AcmeVenue, open_acme, wait_until
from tests.endurance import MARKET
from tests.storm import FeedProcess, open_process

WARM, TIMES = 50, 200
LOSS_KB, FAILURE_KB = 4.0, 2.0
"""More than this each is a leak, or a heap full of holes."""
BODY = b"<html>" + b" " * 20_000
FRAMES = 20
LOOKS = 3
"""Memory comes in pieces of a megabyte: what leaks takes more each time."""

pytestmark = pytest.mark.skipif(
    "san" in os.environ.get("LD_PRELOAD", ""), reason="sanitizers keep what is freed"
)


async def refuse(_: Call) -> Reply:
    """What a venue's edge says in maintenance."""
    return Reply(BODY, HTTPStatus.BAD_GATEWAY, "text/html")


@asynccontextmanager
async def open_endurance(venue: AcmeVenue) -> AsyncIterator[FeedProcess]:
    """A feed of the venue in a process of its own."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_http, answer=refuse)
        listeners = await nursery.start(
            partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        )
        port = listeners[0].socket.getsockname()[1]
        command = ["tests.endurance", venue.url, f"http://127.0.0.1:{port}"]
        async with open_process(command, dict(os.environ)) as process:
            assert await process.answer() == "open"
            yield process
        nursery.cancel_scope.cancel()


async def lose(venue: AcmeVenue, times: int) -> None:
    """Cut the connection again and again, each time after some trades."""
    rng = random.Random(times)
    for _ in range(times):
        ever, done = venue.ever, len(venue.trades[MARKET])
        await wait_until(lambda: venue.clients and venue.clients[0].topics)
        for _ in range(FRAMES):
            venue.say({"news": "x" * rng.randrange(1000)})
            await trio.sleep(0.001)
        await wait_until(lambda d=done: len(venue.trades[MARKET]) > d)
        venue.cut()
        await wait_until(lambda e=ever: venue.ever > e)


async def test_lost_connections_leave_no_memory_behind(namespace: str) -> None:
    async with open_acme(MARKET) as venue, open_endurance(venue) as process:
        await lose(venue, WARM)
        before, first, _ = await process.ask("look")
        grown = []
        while len(grown) < LOOKS and not min(grown, default=LOSS_KB) < LOSS_KB:
            await lose(venue, TIMES)
            after, last, frames = await process.ask("look")
            assert last - first >= TIMES and frames > FRAMES * TIMES
            grown.append((after - before) / TIMES / 1024)
            before, first = after, last
    assert min(grown) < LOSS_KB


async def test_calls_that_fail_leave_no_memory_behind(namespace: str) -> None:
    async with open_acme(MARKET) as venue, open_endurance(venue) as process:
        assert await process.ask(f"calls {WARM}") == WARM
        before, *_ = await process.ask("look")
        grown = []
        while len(grown) < LOOKS and not min(grown, default=FAILURE_KB) < FAILURE_KB:
            assert await process.ask(f"calls {TIMES}") == TIMES
            after, *_ = await process.ask("look")
            grown.append((after - before) / TIMES / 1024)
            before = after
    assert min(grown) < FAILURE_KB
