"""Kills writers of a Parquet store and looks at what they left.

    python -m tests.store_kills --kills 200 [--seed N]

Writers append batches that overlap and span several files, and acknowledge each. Some
are killed by SIGKILL at a random moment, while this process reads all the time. Others
kill themselves at a system call: before each one in turn that a batch needs, from the
making of folders to the unlocking, and in the middle of each write. Whenever rows are
read: what was acknowledged is there, what was there before has not shrunk, no time
is twice or missing, each row is as it was written. After the next write nothing
temporary is left. Prints a JSON line; exits with 1 at the first row that is wrong.
"""

import argparse
import fcntl
import itertools
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import piker_core as pk
from tests.store_rows import JAN_S, bars, check_same

FQME, PERIOD = "xbtusd.kraken", 3600
BATCH, STEP = 1000, 500
"""Rows of a batch, and how many of them the next one leaves alone."""
MOST, A_FOLDER = 8, 12
"""Batches of a writer, and kills in one folder: a few years of bars."""
LONGEST_S = 0.05
CALLS = (
    *((os, name) for name in ("open", "close", "write", "fsync", "replace")),
    *((os, name) for name in ("mkdir", "unlink")),
    (fcntl, "flock"),
)


def batch(number: int) -> NDArray[np.void]:
    """Rows that a writer puts at a turn, half of them in place of others."""
    places = STEP * number + np.arange(BATCH)
    return bars(JAN_S + PERIOD * places, 1 + number)


def check(rows: NDArray[np.void], acknowledged: int, least: int) -> None:
    """What holds of all rows, so many batches having been acknowledged."""
    places = np.arange(len(rows))
    assert len(rows) >= max(
        least, STEP * (acknowledged - 1) + BATCH if acknowledged else 0
    )
    versions = rows["count"]
    check_same(rows, bars(JAN_S + PERIOD * places, versions))
    newest = 1 + places // STEP
    assert ((versions == newest) | (versions == newest - 1)).all()
    assert (versions[: STEP * acknowledged] == newest[: STEP * acknowledged]).all()
    assert (versions <= acknowledged + 1).all()


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def finish(store: pk.Store, root: Path, rows: NDArray[np.void]) -> None:
    """The next write, of what is there already, leaves data alone."""
    if len(rows):
        assert store.write_ohlcv(FQME, PERIOD, rows[-1:]) == 0
        assert all(name.endswith(".parquet") for name in files(root)), files(root)


# ---- at random moments ---------------------------------------------------------------


def write_and_wait(root: Path, first: int, pipe: int) -> None:
    """Write some batches, then wait for the end."""
    with pk.open_store(f"parquet://{root}") as store:
        for number in range(first, first + MOST):
            store.write_ohlcv(FQME, PERIOD, batch(number))
            os.write(pipe, b".")
        signal.pause()


def fork(run: Callable[[int], None]) -> tuple[int, int]:
    """A process that acknowledges into a pipe: its pid, and the end to read from."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            run(writing)
            status = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    return pid, reading


def drain(reading: int) -> int:
    """How many batches were acknowledged and not yet counted, the writer being dead."""
    with os.fdopen(reading, "rb") as pipe:
        return len(pipe.read())


class Killing:
    """Kills at random moments, and what they have come to."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.figures = {"kills": 0, "batches": 0, "reads": 0, "remains": 0}

    def run(self, kills: int) -> None:
        while self.figures["kills"] < kills:
            with tempfile.TemporaryDirectory(prefix="piker-kills-") as folder:
                left = kills - self.figures["kills"]
                self.run_in(Path(folder, "store"), min(A_FOLDER, left))

    def run_in(self, root: Path, kills: int) -> None:
        done = least = 0
        with pk.open_store(f"parquet://{root}") as store:
            for _ in range(kills):
                acknowledged, least = self.kill_one(store, root, done, least)
                rows = store.read_ohlcv(FQME, PERIOD)
                done += acknowledged
                check(rows, done, least)
                least = len(rows)
                left = sum(not name.endswith(".parquet") for name in files(root))
                self.figures["remains"] += left
                finish(store, root, rows)
                self.figures["kills"] += 1
                self.figures["batches"] += acknowledged

    def kill_one(
        self, store: pk.Store, root: Path, done: int, least: int
    ) -> tuple[int, int]:
        """Batches that a writer acknowledged, and rows that were read by then."""
        pid, reading = fork(lambda pipe: write_and_wait(root, done, pipe))
        try:
            counted = 0
            for _ in range(self.random.choice((0, 1, 1, 2, 3))):
                counted += len(os.read(reading, 1))
                rows = store.read_ohlcv(FQME, PERIOD)
                self.check_live(rows, done + counted)
                assert len(rows) >= least
                least = len(rows)
                self.figures["reads"] += 1
            select.select([], [], [], self.random.uniform(0, LONGEST_S))
        finally:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return counted + drain(reading), least

    def check_live(self, rows: NDArray[np.void], done: int) -> None:
        """Rows while more batches are written than are known of."""
        check_same(rows, bars(JAN_S + PERIOD * np.arange(len(rows)), rows["count"]))
        assert (
            rows["count"][: STEP * done] == 1 + np.arange(STEP * done) // STEP
        ).all()


# ---- at each system call -------------------------------------------------------------


def die_at(number: int, half: bool) -> None:
    """Kill this process before its call of that number, or in the middle of a write."""
    calls = itertools.count()

    def deadly(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) == number:
                if half and name == "write":
                    file, content = arguments
                    real(file, content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for module, name in CALLS:
        setattr(module, name, deadly(name, getattr(module, name)))


def write_and_die(root: Path, first: int, number: int, half: bool, pipe: int) -> None:
    with pk.open_store(f"parquet://{root}") as store:
        acknowledge = os.write
        die_at(number, half)
        store.write_ohlcv(FQME, PERIOD, batch(first))
        acknowledge(pipe, b".")


def kill_at_each_call(first: int) -> int:
    """Kills by a batch of that number, onto the ones before it; how many there were."""
    with tempfile.TemporaryDirectory(prefix="piker-kills-") as folder:
        before, root = Path(folder, "before"), Path(folder, "store")
        before.mkdir()
        with pk.open_store(f"parquet://{before}") as store:
            for number in range(first):
                store.write_ohlcv(FQME, PERIOD, batch(number))
        for number in itertools.count():
            ended = []
            for half in (False, True):
                shutil.copytree(before, root)
                ended.append(kill_at(root, first, number, half))
                shutil.rmtree(root)
            if all(ended):
                return 2 * number
    raise AssertionError


def kill_at(root: Path, first: int, number: int, half: bool) -> bool:
    """Whether a writer came to its end, having fewer calls than that to do."""
    with pk.open_store(f"parquet://{root}") as store:
        least = len(store.read_ohlcv(FQME, PERIOD))
        pid, reading = fork(lambda pipe: write_and_die(root, first, number, half, pipe))
        _, status = os.waitpid(pid, 0)
        done = drain(reading)
        assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
        assert done == (status == 0)
        rows = store.read_ohlcv(FQME, PERIOD)
        check(rows, first + done, least)
        finish(store, root, rows)
        store.write_ohlcv(FQME, PERIOD, batch(first))
        check(store.read_ohlcv(FQME, PERIOD), first + 1, STEP * first + BATCH)
        return status == 0


def unsynced(fd: Any) -> None:
    """Kills lose nothing that the system has, and each call is tried in turn."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="at random moments")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    sys.stderr.write(f"seed {options.seed}\n")
    killing = Killing(options.seed)
    killing.run(options.kills)
    os.fsync = unsynced
    calls = sum(kill_at_each_call(first) for first in (0, 7))
    figures = killing.figures | {"at calls": calls, "seed": options.seed}
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
