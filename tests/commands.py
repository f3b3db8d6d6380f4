"""What the tests of the command line share: running it, providers to feed it with."""

import io
import json
import os
import pty
import queue
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import piker_core as pk
from piker_core.cli import load_app

BASE_S = 1_600_000_000
WAIT_S = 30.0
SMALL = {1: 256, 60: 256}
PYTHON = [sys.executable, "-m", "piker_core"]
NO_NETWORK = {
    "PIKER_KRAKEN__REST_URL": "http://127.0.0.1:1",
    "PIKER_KRAKEN__WS_URL": "ws://127.0.0.1:1/v2",
    "PIKER_KRAKEN__REST_ATTEMPTS": "1",
    "PIKER_IB__PORT": "1",
    "PIKER_CONFIG": "/dev/null",
}
Done = subprocess.CompletedProcess[str]

KILLED = """
import os, signal, sys
import piker_core as pk
engine = pk.open_engine("ib", namespace=sys.argv[1], tick_capacity=64)
engine.add_market("dead.ib", capacity={1: 64, 60: 64}).set_status("live")
os.kill(os.getpid(), signal.SIGKILL)
"""

FAKE = '''
"""A provider for tests: a trade a tenth of a second, and whatever BODY does."""
import time
from contextlib import asynccontextmanager
from decimal import Decimal
import trio
import piker_core as pk
from piker_core.symbols import Asset, MktPair

name = "{name}"

async def get_mkt_info(symbol):
    if symbol == "nosuch":
        raise pk.NotFound("fake has no market 'nosuch'")
    return MktPair(base=Asset("b"), quote=Asset("q"), symbol=symbol, provider=name,
                   venue_symbol=symbol, price_tick=Decimal("0.1"),
                   size_tick=Decimal("1e-8"), kind="perp")

@asynccontextmanager
async def open_symbol_search():
    async def search(pattern):
        if pattern == "broken":
            raise pk.ProviderError("the venue answers nonsense")
        mkt = await get_mkt_info("aaa")
        return {{mkt.fqme: mkt}} if pattern in "aaa" else {{}}
    yield search

async def stream_quotes(send_chan, symbols, shm, feed_is_live, loglevel=None,
                        task_status=trio.TASK_STATUS_IGNORED):
    {body}
    inits = [pk.FeedInit(symbol=s, mkt=await get_mkt_info(s)) for s in symbols]
    task_status.started((inits, {{s: {{"last": 100.0}} for s in symbols}}))
    feed_is_live.set()
    number = 0
    while True:
        number += 1
        for s in symbols:
            tick = {{"type": "trade", "price": 100.0, "size": 0.5,
                     "time_ns": time.time_ns(), "id": number}}
            await send_chan.send({{"symbol": s, "ticks": [tick]}})
        if number == 5:
            now = time.time_ns()
            gap = dict(start_ns=now - 10**9, end_ns=now, cause="test")
            shm[symbols[0]].add_gap(**gap)
            await trio.sleep(0.2)
            shm[symbols[0]].add_gap(**gap, repaired=True)
        await trio.sleep(0.1)
'''


def run(*words: str, env: dict[str, str] | None = None) -> Done:
    return subprocess.run(
        [*PYTHON, *words],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | (env or {}),
    )


def invoke(*words: str) -> Done:
    """The same within this process: quicker, without the start and the end of one."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        load_app()(list(words), prog_name="piker-core")
    code = ended.value.code
    assert isinstance(code, int)
    return Done(words, code, out.getvalue(), err.getvalue())


def records(text: str, kind: str | None = None) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if kind in (None, line["kind"])]


def told_once(done: Done, code: int) -> str:
    """The sentence that a command ended with: one line, no traceback, this code."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = [
        line for line in done.stderr.splitlines() if line.startswith("piker-core: ")
    ]
    assert len(lines) == 1, done.stderr
    assert done.stderr.rstrip().splitlines()[-1] == lines[0]
    return lines[0]


def push(
    engine: pk.FeedEngine, market: pk.Market, second: int, number: int = 0
) -> None:
    time_ns = (BASE_S + second) * 10**9 + number
    engine.push_trade(
        market, time_ns, 100.0 + second, 0.5, id=1 + second * 100 + number
    )


@contextmanager
def rings(
    namespace: str, seconds: int = 3, *, symbol: str = "xbtusd", ticks: int = 64
) -> Iterator[tuple[pk.FeedEngine, pk.Market]]:
    """An open engine with one market and one trade in each of some seconds."""
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=ticks) as engine:
        market = engine.add_market(f"{symbol}.kraken", capacity=SMALL, fill="none")
        market.set_status("live")
        for second in range(seconds):
            push(engine, market, second)
        yield engine, market


class Following:
    """A command that goes on, and its JSON lines as they come."""

    def __init__(self, *words: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*PYTHON, *words, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (env or {}),
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def any(self) -> dict[str, Any]:
        """The next line."""
        line = self._lines.get(timeout=WAIT_S)
        assert line, f"no more lines: {self._errors()}"
        found: dict[str, Any] = json.loads(line)
        return found

    def next(self, kind: str) -> dict[str, Any]:
        """The next line, which is of this kind."""
        found = self.any()
        assert found["kind"] == kind, found
        return found

    def until(self, kind: str) -> dict[str, Any]:
        """The next line of this kind, whatever comes before it."""
        while (found := self.any())["kind"] != kind:
            continue
        return found

    def end(self, number: int) -> tuple[int, str, str]:
        """Send a signal: exit code, what was left on stdout, stderr."""
        self.process.send_signal(number)
        errors = self._errors()
        self._thread.join()
        left = "".join(iter(self._lines.get_nowait, ""))
        return self.process.wait(), left, errors

    def _errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def __enter__(self) -> "Following":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


class Providers:
    """Makes provider packages that commands find by their module path."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        found = [str(folder), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, found)))
        monkeypatch.setenv("PIKER_CONFIG", str(folder / "config.toml"))

    def make(self, body: str = "pass", name: str = "tinyvenue") -> str:
        """A package whose `stream_quotes` begins with these words; its name."""
        (self.folder / name).mkdir()
        text = FAKE.format(name=name, body=body)
        (self.folder / name / "__init__.py").write_text(text)
        return name

    def install(self, name: str, code: str) -> None:
        """A distribution with one provider, as an installer would leave it."""
        (self.folder / f"{name}.py").write_text(textwrap.dedent(code))
        about = self.folder / f"{name}-1.5.dist-info"
        about.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n"
        (about / "METADATA").write_text(text)
        text = f"[piker_core.providers]\n{name} = {name}\n"
        (about / "entry_points.txt").write_text(text)


def private_shm(options: str) -> list[str]:
    """Words that run a command with a /dev/shm of its own; skips where none may."""
    script = f'mount -t tmpfs {options} && exec "$@"'
    for way in (["unshare", "-m"], ["unshare", "-rm"]):
        words = [*way, "sh", "-c", script, "sh"]
        if (
            shutil.which("unshare")
            and not subprocess.run([*words, "true"], capture_output=True).returncode
        ):
            return words
    pytest.skip("no private mount namespace here (unshare -m)")


def on_terminal(*words: str) -> tuple[int, str]:
    """Run a command on a pseudo-terminal 160 columns wide: exit code and output."""
    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "piker_core", *words],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": "160", "TERM": "xterm"},
    )
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(mine, 65536):
            text += chunk
    except OSError:  # a terminal whose other end is closed
        process.wait()
    finally:
        os.close(mine)
    return process.wait(), text.decode()
