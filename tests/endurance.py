"""A feed and a client of REST in a process of their own, to see what they hold.

`python -m tests.endurance URL REST_URL`: feeds one market of the venue in
`adapter_socket`, and asks what it is asked in lines on standard input: `look`, or
`calls N`, which makes so many calls that fail. Each is answered with a line of JSON.
"""

import os
import sys
from contextlib import aclosing
from typing import Any

import msgspec
import trio

from piker_core.adapter import stream
from piker_core.adapter.defaults import RestLimits
from piker_core.adapter.rest import open_rest
from piker_core.errors import ProviderError
from tests.adapter_site import SITE, judge
from tests.adapter_socket import AcmeVenue, open_feed
from tests.storm_feed import look_at_memory, read_lines

MARKET = "a"
LIMITS = {"connect_rate": 1e6, "connect_burst": 1000, "disorder_s": 0.1}


async def fail(rest_url: str, calls: int) -> int:
    """Make calls with a client of their own; how many failed."""
    failed = 0
    limits = RestLimits(rest_rate=1e6, rest_attempts=1)
    async with open_rest(SITE, limits, url=rest_url, judge=judge) as rest:
        for number in range(calls):
            try:
                await rest.get("/trades", {"since": number}, subject=MARKET)
            except ProviderError:
                failed += 1
    return failed


async def serve(url: str, rest_url: str) -> None:
    """A feed until the input ends."""
    venue = AcmeVenue()
    venue.url = url
    namespace = os.environ["PIKER_NAMESPACE"]
    async with (
        trio.lowlevel.FdStream(os.dup(0)) as asked,
        trio.lowlevel.FdStream(os.dup(1)) as answers,
        open_feed(venue, MARKET, namespace=namespace, **LIMITS) as feed,
        aclosing(read_lines(asked)) as lines,
    ):

        async def say(answer: Any) -> None:
            await answers.send_all(msgspec.json.encode(answer) + b"\n")

        feed.markets[MARKET].trades = None  # gaps are given up, and not kept
        await say("open")
        async for line in lines:
            what, _, number = line.partition(" ")
            if what == "calls":
                await say(await fail(rest_url, int(number)))
            else:
                held, done = look_at_memory(), feed.statistics()
                rest = held.memory - held.tables
                await say([rest, done.connections, done.frames])


if __name__ == "__main__":
    stream._PROVEN_S = 0.0  # every connection counts as one that held
    trio.run(serve, *sys.argv[1:])
