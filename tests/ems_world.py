"""What kills of the order gateway need: a market, a broker, a state folder, strategies.

All that outlives a gateway is in processes of its own; gateways run in forks.
"""

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import trio

import piker_core as pk
from tests import plain_broker

ACCOUNT = "plain"
TICK_S = 0.001
MIDDLE, SPREAD = 100.0, 0.1
_numbers = count()


class Moves:
    """How the market goes: around the middle, or on a way that it is told."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.price = MIDDLE

    def next(self, low: float, high: float) -> float:
        """A step of up to 1 towards or within the band."""
        step = self._random.choice((-1, -0.5, 0, 0.5, 1))
        if self.price < low:
            step = abs(step)
        elif self.price > high:
            step = -abs(step)
        self.price = round(self.price + step, 1)
        return self.price


def _run_market(namespace: str, broker: str, fqme: str, seed: int, pipe: int) -> None:
    """Trade until killed; a line with a low and a high says where."""
    moves, low, high = Moves(seed), MIDDLE - 3, MIDDLE + 3
    os.set_blocking(pipe, False)
    with pk.open_engine(broker, namespace=namespace, tick_capacity=1 << 16) as engine:
        market = engine.add_market(
            fqme,
            price_tick="0.0001",
            size_tick="0.001",
            capacity={1: 4096, 60: 256},
        )
        market.set_status("live")
        for number in count(1):
            with contextlib.suppress(BlockingIOError):
                for line in os.read(pipe, 1 << 12).split(b"\n")[:-1]:
                    low, high = map(float, line.split())
            price, now_ns = moves.next(low, high), time.time_ns()
            ticks = [
                {"type": kind, "price": level, "size": 1.0, "time_ns": now_ns}
                for kind, level in (
                    *(("bid", price - SPREAD), ("bsize", price - SPREAD)),
                    *(("ask", price + SPREAD), ("asize", price + SPREAD)),
                )
            ]
            symbol = fqme.rpartition(".")[0]
            trade = {"type": "trade", "price": price, "size": 1.5}
            ticks.append(trade | {"time_ns": now_ns, "id": number, "side": "buy"})
            engine.push({"symbol": symbol, "ticks": ticks})
            engine.step(now_ns)
            time.sleep(TICK_S)


def fork(run: Callable[[], object]) -> int:
    """A process that does this, and no more; its pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        run()
        status = 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(pid: int) -> int:
    """Wait for a process: 0, its exit status, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


class World:
    """A market that goes on, and a folder for what gateways keep."""

    def __init__(self, folder: Path, broker: str, seed: int) -> None:
        self.folder, self.broker = folder, broker
        self.state = folder / "state"
        self.fqme = f"xbtusd.{broker}"
        self.namespace = f"kills{os.getpid()}x{next(_numbers)}"
        self.journal = folder / "journal"
        """What strategies asked for and heard, a line each."""
        reading, self._market = os.pipe()
        run = (self.namespace, broker, self.fqme, seed, reading)
        self._child = fork(lambda: _run_market(*run))
        os.close(reading)

    def move(self, low: float, high: float) -> None:
        """Have the market go there and stay."""
        os.write(self._market, f"{low} {high}\n".encode())

    def wait_for_market(self) -> None:
        for _ in range(2000):
            with contextlib.suppress(pk.NotFound):
                pk.attach_bars(self.fqme, period=1, namespace=self.namespace).close()
                with pk.attach_ticks(self.broker, namespace=self.namespace) as ticks:
                    if ticks.head > 100:
                        return
            time.sleep(0.01)
        raise TimeoutError("the market does not begin")

    def forget(self) -> None:
        """As if there had never been a gateway."""
        shutil.rmtree(self.state, ignore_errors=True)
        self.journal.unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        name = ACCOUNT.upper()
        return {
            "PIKER_CONFIG": os.devnull,
            "PIKER_STATE": str(self.state),
            "PIKER_NAMESPACE": self.namespace,
            f"PIKER_ACCOUNT__{name}__LIVE": "true",
            f"PIKER_ACCOUNT__{name}__BROKER": self.broker,
            "PIKER_EMS__SYNC": "normal",  # what a process has written, no kill undoes
            "PIKER_EMS__RECONCILE_S": "0.2",
            "PIKER_EMS__GRACE_S": "0.3",
        }

    def close(self) -> None:
        kill(self._child)
        os.close(self._market)
        pk.remove_segments(self.namespace)


@contextlib.contextmanager
def open_world(broker: str = plain_broker.NAME, seed: int = 0) -> Iterator[World]:
    """A world, whose environment is this process's."""
    plain_broker.register()
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="piker-ems-") as folder:
        world = World(Path(folder), broker, seed)
        try:
            world.wait_for_market()
            os.environ.update(world.environment())
            yield world
        finally:
            os.environ.clear()
            os.environ.update(before)
            world.close()


class Journal:
    """Lines that a kill does not undo once they are written."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def say(self, *words: object) -> None:
        os.write(self._file, " ".join(map(str, words)).encode() + b"\n")


def read_journal(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def run_trio(work: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
    """`trio.run`, the one error of a group as itself."""
    try:
        return trio.run(work, *arguments)
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
