"""The feed of a storm, in a process of its own: `python -m tests.storm_feed FQME...`.

What it holds is then its own, and not the venues'. It is asked in lines on standard
input, and answers each with a line of JSON. It ends with `close` or its input. It is
recorded in the folder `$STORM_JOURNAL`, if there is one.
"""

import contextlib
import gc
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import trio

import piker_core as pk
from piker_core.conformance.resources import Resources, leaked, look

WARM_S = 0.5
CLOSING_S = 5.0


async def read_lines(source: trio.abc.ReceiveStream) -> AsyncGenerator[str, None]:
    """The lines of a stream."""
    rest = b""
    async for chunk in source:
        *lines, rest = (rest + bytes(chunk)).split(b"\n")
        for line in lines:
            yield line.decode()


class Held(msgspec.Struct):
    """Memory of this process, bytes; of it what the core's tables of ids take.

    They take more with every trade, up to 1.5 MB a market. They are told from the rest
    by their pages: nobody else here asks the kernel for small ones.
    """

    memory: int
    tables: int


def look_at_memory() -> Held:
    """What is held now."""
    memory, size, tables = resources().memory, 0, 0
    with Path("/proc/self/smaps").open() as lines:
        for key, *words in map(str.split, lines):
            if key == "Anonymous:":
                size = int(words[0]) * 1024
            elif key == "VmFlags:" and "nh" in words:
                tables += size
    return Held(memory, tables)


def resources() -> Resources:
    """What this process holds, garbage aside."""
    gc.collect()
    return look([])


async def still_open(before: Resources) -> dict[str, list[str]]:
    """What is open and was not before; the other side closes a little later."""
    with trio.move_on_after(CLOSING_S):
        while leaked(before, resources()):
            await trio.sleep(0.1)
    return leaked(before, resources())


async def serve(fqmes: Sequence[str], source: int, output: int) -> None:
    """A feed until it is to be closed; what is asked of it meanwhile."""
    async with (
        trio.lowlevel.FdStream(source) as asked,
        trio.lowlevel.FdStream(output) as answers,
    ):

        async def say(answer: Any) -> None:
            await answers.send_all(msgspec.json.encode(answer, enc_hook=repr) + b"\n")

        async with pk.open_feed(fqmes):  # what is opened once for ever is open now
            await trio.sleep(WARM_S)
        await trio.sleep(WARM_S)
        pk.remove_segments(os.environ["PIKER_NAMESPACE"])
        before = resources()
        journal = os.environ.get("STORM_JOURNAL")
        async with pk.open_feed(fqmes, journal=journal) as feed, contextlib.aclosing(
            read_lines(asked)
        ) as lines:  # fmt: skip
            markets = {name: flume.market for name, flume in feed.flumes.items()}
            await say({n: [m.price_tick, m.size_tick] for n, m in markets.items()})
            async for line in lines:
                if line == "close":
                    break
                await say(look_at_memory() if line == "held" else feed.statistics())
        await say(await still_open(before))


def main() -> None:
    source, output = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    trio.run(serve, sys.argv[1:], source, output)


if __name__ == "__main__":
    main()
