"""Kills writers by the thousand under readers' eyes.

    python -m tests.kill_writer --kills 10000 --readers 8 [--seed N]

Forks a writer, lets it write, kills it and starts the next one in the same rings: by
SIGKILL at a random moment, from its first instructions on, or stopped at a random
moment, stepped by single machine instructions and killed there. Readers in processes of
their own, attached once, check all they read. Every `CHECK_EVERY` kills all rows since
the last check must be those of the trades that were acknowledged, bit for bit. Prints a
JSON line of what was counted; exits with 1 if anything was torn, lost, left behind or
held up.
"""

import argparse
import ctypes
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

import piker_core as pk
from tests.forking_writers import (
    A_SECOND,
    BATCH,
    PERIODS,
    TICKS,
    open_writer,
    trades,
    write_for_ever,
)
from tests.ring_making import BASE_S, FQME

VALUES = ["time", "open", "high", "low", "close", "volume", "count", "bar_wap"]
ROOT = Path(__file__).resolve().parents[1]
CHECK_EVERY = 50
LONGEST_S = 0.008
MOST_STEPS = 3000
HUNG_S = 20.0
PTRACE_SINGLESTEP, PTRACE_ATTACH = 9, 16
WAYS = ("signal", "early signal", "steps")
BEATS, BAD, FILES, MAPS, STOP, PLACES = range(6)


class Eyes:
    """Readers attached once, which check all they read."""

    def __init__(self, namespace: str) -> None:
        self.bars = [
            pk.attach_bars(FQME, period=period, namespace=namespace)
            for period in PERIODS
        ]
        self.cursor = pk.attach_ticks("kraken", namespace=namespace).cursor("oldest")
        self.heads = [0, 0]
        self.newest_id = 0
        self.looks = 0

    def look(self) -> None:
        """Rows, windows, newest rows, gaps and ticks: whole and never older."""
        for place, bars in enumerate(self.bars):
            head = bars.head
            assert head >= self.heads[place]
            self.heads[place] = head
            check_rows(bars.snapshot(100), PERIODS[place])
            check_rows(np.atleast_1d(np.array(bars.last())), PERIODS[place])
            window = bars.window(100)
            copy = window.copy()
            if bars.intact(window):
                check_rows(copy, PERIODS[place])
            bars.gaps()
        ticks = self.cursor.poll()
        if len(ticks):
            first = int(ticks["id"][0])
            assert np.array_equal(
                ticks[["id", "time_ns", "price", "size"]],
                trades(first, len(ticks))[["id", "time_ns", "price", "size"]],
            )
            assert first > self.newest_id
            self.newest_id = int(ticks["id"][-1])
        self.looks += 1


def check_rows(rows: NDArray[np.void], period: int) -> None:
    """What holds of any rows at any moment."""
    assert (np.diff(rows["index"]) == 1).all()
    assert (np.diff(rows["time"]) > 0).all()
    assert (rows["time"] % period == 0).all()
    assert (rows["count"] > 0).all()
    for name in ("open", "close", "bar_wap"):
        assert (rows["low"] <= rows[name]).all()
        assert (rows[name] <= rows["high"]).all()


def check_exact(namespace: str, last_id: int, from_s: int = 0) -> None:
    """The rows from a whole minute on are those of all trades up to the last."""
    first_id = max((from_s - BASE_S) * A_SECOND - 100, 1)
    some = trades(first_id, last_id - first_id + 1)
    for period in PERIODS:
        bars = pk.attach_bars(FQME, period=period, namespace=namespace)
        with bars:
            rows = bars.between(from_s, 1 << 40)
        expected = pk.fold_ticks(some, period)
        expected = expected[(expected["count"] > 0) & (expected["time"] >= from_s)]
        assert rows[VALUES].tolist() == expected[VALUES].tolist()


def recover(namespace: str) -> int:
    """Let a writer recover the rings and say the number of the newest trade in them.

    That is the newest published; the newest in venue order may be another.
    """
    engine, _ = open_writer(namespace)
    with engine:
        cursor = pk.attach_ticks("kraken", namespace=namespace).cursor("oldest")
        return int(cursor.poll(TICKS)["id"].max())


def resources() -> tuple[int, int]:
    """Open files and mappings of this process."""
    maps = Path("/proc/self/maps").read_text().count("/dev/shm/")
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), maps


def read_until_told(namespace: str, path: Path, place: int) -> None:
    """A reader's process: its looks are its heart beats."""
    shared = np.memmap(path, np.int64, "r+").reshape(-1, PLACES)[place]
    eyes = Eyes(namespace)
    before = resources()
    try:
        while not shared[STOP]:
            eyes.look()
            shared[BEATS] = eyes.looks
    except BaseException:
        traceback.print_exc()
        shared[BAD] = 1
        raise
    after = resources()
    shared[FILES], shared[MAPS] = after[0] - before[0], after[1] - before[1]


class Killing:
    """Writers one after the other, and their ends."""

    def __init__(self, namespace: str, folder: Path, readers: int, seed: int) -> None:
        self.namespace, self.random = namespace, random.Random(seed)
        progress = folder / "progress"
        progress.write_bytes(bytes(8))
        self.progress: NDArray[np.int64] = np.memmap(progress, np.int64, "r+")
        self.path = folder / "readers"
        self.path.write_bytes(bytes(8 * PLACES * readers))
        self.shared = np.memmap(self.path, np.int64, "r+").reshape(-1, PLACES)
        self.ways: Counter[str] = Counter()
        self.restarts_s: list[float] = []
        self.exact_from_s = 0
        self.readers: list[subprocess.Popen[bytes]] = []
        self._ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self._ptrace.argtypes = [ctypes.c_long] * 4

    def start_readers(self) -> None:
        """Rings are there by now."""
        for place in range(len(self.shared)):
            arguments = [self.namespace, str(self.path), str(place)]
            self.readers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.kill_writer", "--reader", *arguments],
                    cwd=ROOT,
                    env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
                )
            )
        self.wait(lambda: bool((self.shared[:, BEATS] > 0).all()))

    def wait(self, look: Callable[[], Any]) -> None:
        """Until it is so; a reader or writer that is stuck is a failure."""
        end = time.monotonic() + HUNG_S
        while not look():
            if time.monotonic() > end:
                raise TimeoutError("hung")
            os.sched_yield()

    def start(self) -> int:
        """Fork a writer."""
        pid = os.fork()
        if not pid:
            try:
                write_for_ever(self.namespace, self.progress)
            finally:  # it ended by itself, which no writer does
                traceback.print_exc()
                os._exit(1)
        return pid

    def kill_one(self) -> None:
        """One writer's life."""
        way = self.random.choice(WAYS)
        before, started = int(self.progress[0]), time.monotonic()
        pid = self.start()
        if way != "early signal":
            self.wait(lambda: self.progress[0] > before)
            self.restarts_s.append(time.monotonic() - started)
        time.sleep(self.random.random() * LONGEST_S)
        if way == "steps" and not self.step(pid):
            way = "signal"
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"the writer ended by itself: {status}"
        self.ways[way] += 1

    def step(self, pid: int) -> bool:
        """Stop it and let it do some instructions; False where nobody may trace it."""
        if self._ptrace(PTRACE_ATTACH, pid, 0, 0):
            return False
        os.waitpid(pid, 0)
        for _ in range(self.random.randrange(MOST_STEPS)):
            self._ptrace(PTRACE_SINGLESTEP, pid, 0, 0)
            os.waitpid(pid, 0)
        return True

    def check(self) -> None:
        """All that was acknowledged is there, and no more; all readers still look."""
        acknowledged = int(self.progress[0])
        last_id = recover(self.namespace)
        assert acknowledged <= last_id <= acknowledged + BATCH, (acknowledged, last_id)
        check_exact(self.namespace, last_id, self.exact_from_s)
        self.exact_from_s = (BASE_S + last_id // A_SECOND) // 60 * 60 - 60
        beats = self.shared[:, BEATS].copy()
        self.wait(
            lambda: bool(((self.shared[:, BEATS] > beats) | self.shared[:, BAD]).all())
        )

    def stop_readers(self) -> None:
        self.shared[:, STOP] = 1
        for reader in self.readers:
            reader.wait(HUNG_S)


def run(kills: int, readers: int, seed: int) -> dict[str, object]:
    """What was counted."""
    namespace = f"kill{os.getpid()}"
    began = time.monotonic()
    with TemporaryDirectory() as folder:
        killing = Killing(namespace, Path(folder), readers, seed)
        lost = hung = 0
        try:
            killing.kill_one()
            while not killing.progress[0]:
                killing.kill_one()
            killing.start_readers()
            files = len(pk.list_segments(namespace))
            before = resources()
            while sum(killing.ways.values()) < kills:
                killing.kill_one()
                if sum(killing.ways.values()) % CHECK_EVERY == 0:
                    killing.check()
            killing.check()
            left = len(pk.list_segments(namespace)) - files
            left += sum(max(b - a, 0) for a, b in zip(before, resources(), strict=True))
        except TimeoutError:
            hung, left = 1, 0
        except AssertionError:
            traceback.print_exc()
            lost, left = 1, 0
        finally:
            killing.stop_readers()
            pk.remove_segments(namespace, force=True)
        restarts = [1000 * s for s in killing.restarts_s]
        return {
            "kills": sum(killing.ways.values()),
            **killing.ways,
            "readers": readers,
            "looks": int(killing.shared[:, BEATS].sum()),
            "trades": int(killing.progress[0]),
            "torn": int(killing.shared[:, BAD].sum()),
            "lost": lost,
            "hung": hung,
            "leaks": left + int(np.abs(killing.shared[:, [FILES, MAPS]]).sum()),
            "restart_ms_median": round(statistics.median(restarts), 2),
            "restart_ms_most": round(max(restarts), 2),
            "seconds": round(time.monotonic() - began, 1),
            "seed": seed,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--readers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--reader", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        namespace, path, place = options.reader
        read_until_told(namespace, Path(path), int(place))
        return 0
    counted = run(options.kills, options.readers, options.seed)
    sys.stdout.write(json.dumps(counted) + "\n")
    return int(any(counted[name] for name in ("torn", "lost", "hung", "leaks")))


if __name__ == "__main__":
    sys.exit(main())
