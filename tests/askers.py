"""Processes that open feeds, forked in milliseconds from one that has imported all.

`python -m tests.askers` reads a JSON list of market names a line, and forks a process
that opens them; each writes JSON lines of what becomes of it. All end with its input.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

import piker_core as pk

TESTS = Path(__file__).parent


class Asker:
    """One process with a feed; `told` is what it has said by now."""

    def __init__(self, pid: int, told: list[dict[str, Any]]) -> None:
        self.pid = pid
        self.told = told

    def event(self, name: str) -> dict[str, Any] | None:
        """The first of its lines about this, if there is one."""
        return next((line for line in self.told if line["event"] == name), None)

    def kill(self) -> None:
        """As it might die at any time."""
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Have it close its feed and end."""
        os.kill(self.pid, signal.SIGINT)


class Askers:
    """Starts processes with feeds; a context manager, at whose end none is left."""

    def __init__(self, **environ: str) -> None:
        own = {"OPENBLAS_NUM_THREADS": "1"}  # what forks has one thread
        path = os.pathsep.join([str(TESTS), str(TESTS.parent), *sys.path])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.askers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | own | {"PYTHONPATH": path} | environ,
            start_new_session=True,
        )
        self._told: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        self._started: list[int] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if told["event"] == "start":
                self._started.append(told["pid"])
            self._told[told["pid"]].append(told)

    async def start(self, *fqmes: str) -> Asker:
        """A process that opens these markets, once it runs."""
        count = len(self._started)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(fqmes) + "\n")
        self._process.stdin.flush()
        await wait_until(lambda: len(self._started) > count)
        pid = self._started[count]
        return Asker(pid, self._told[pid])

    async def open(self, *fqmes: str) -> Asker:
        """A process that has these markets open."""
        asker = await self.start(*fqmes)
        await opened(asker)
        return asker

    def __enter__(self) -> "Askers":
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


async def wait_until(look: Callable[[], Any]) -> None:
    while not look():
        await trio.sleep(0.005)


async def ended(asker: Asker, event: str = "error") -> dict[str, Any]:
    """What a process has said of its end."""
    await wait_until(lambda: asker.event(event))
    return asker.event(event) or {}


async def opened(asker: Asker) -> dict[str, Any]:
    """What a process has said once its markets were open."""
    await wait_until(lambda: asker.event("open") or asker.event("error"))
    assert not asker.event("error"), asker.told
    return asker.event("open") or {}


class Ids:
    """Trade ids of a market, as they come into the tick ring."""

    def __init__(self, fqme: str) -> None:
        self.cursor = pk.attach_ticks("fakevenue").cursor(markets=[fqme])
        self.seen: list[int] = []

    def poll(self) -> list[int]:
        self.seen += self.cursor.poll()["id"].tolist()
        return self.seen

    async def more(self, count: int = 5) -> None:
        """Return when so many more have come."""
        enough = len(self.poll()) + count
        await wait_until(lambda: len(self.poll()) >= enough)

    def assert_whole(self) -> None:
        """No trade was lost or came twice."""
        seen = self.poll()
        assert seen == list(range(seen[0], seen[0] + len(seen)))


def tell(event: str, **more: Any) -> None:
    line = json.dumps({"event": event, "pid": os.getpid()} | more) + "\n"
    os.write(1, line.encode())


async def ask(fqmes: list[str]) -> None:
    async with pk.open_feed(fqmes) as feed:
        quotes = {fqme: flume.first_quote for fqme, flume in feed.flumes.items()}
        tell("open", roles=feed.roles, quotes=quotes)
        await trio.sleep_forever()


def run(fqmes: list[str]) -> None:
    """What a forked process does, until it is ended."""
    try:
        tell("start")
        trio.run(ask, fqmes)
    except KeyboardInterrupt:
        tell("closed")
    except Exception as error:  # noqa: BLE001 - the test is told
        tell("error", kind=type(error).__name__, text=str(error))


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    import fakevenue  # noqa: F401

    import piker_core.feed  # noqa: F401

    for line in sys.stdin:
        if not os.fork():
            signal.signal(signal.SIGINT, signal.default_int_handler)
            run(json.loads(line))
            os._exit(0)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
