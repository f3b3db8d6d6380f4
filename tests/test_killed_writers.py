"""Writers killed at random moments under readers' eyes: nothing torn, nothing lost."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.forking_writers import BATCH
from tests.kill_writer import Eyes, check_exact, recover, run

KILLS = 40
LONGEST_S = 0.01
SOON_S = 30.0
ROOT = Path(__file__).resolve().parents[1]


class Writers:
    """Writers one after the other, each in a process of its own."""

    def __init__(self, namespace: str, folder: Path) -> None:
        path = folder / "progress"
        path.write_bytes(bytes(8))
        self.progress: NDArray[np.int64] = np.memmap(path, np.int64, "r", shape=(1,))
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.forking_writers", namespace, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )
        self.pid = 0

    @property
    def acknowledged(self) -> int:
        """Number of the newest trade whose push has returned."""
        return int(self.progress[0])

    def ask(self, word: str) -> int:
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write(word + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def start(self) -> None:
        """Start a writer and wait until it has pushed something."""
        before, end = self.acknowledged, time.monotonic() + SOON_S
        self.pid = self.ask("start")
        while self.acknowledged == before:
            assert time.monotonic() < end, "the writer does not write"
            os.sched_yield()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.ask("reap")
        self.pid = 0


@pytest.fixture
def writers(namespace: str, tmp_path: Path) -> Iterator[Writers]:
    writers = Writers(namespace, tmp_path)
    with writers.server:
        yield writers
        if writers.pid:
            writers.kill()
        writers.server.terminate()


def test_readers_beside_a_writer_see_whole_rows_and_ticks_only(
    namespace: str, writers: Writers
) -> None:
    writers.start()
    eyes = Eyes(namespace)
    while eyes.looks < 2000:
        eyes.look()
    writers.kill()
    assert eyes.newest_id > 1000


def test_killed_writers_lose_nothing_that_was_pushed_and_tear_nothing(
    namespace: str, writers: Writers
) -> None:
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    moments = random.Random(seed)
    writers.start()
    eyes = Eyes(namespace)
    for _ in range(KILLS):
        end = time.monotonic() + moments.random() * LONGEST_S
        eyes.look()
        while time.monotonic() < end:
            eyes.look()
        writers.kill()
        assert not eyes.bars[0].writer_alive
        eyes.look()
        writers.start()
    writers.kill()
    last_id = recover(namespace)
    assert writers.acknowledged <= last_id <= writers.acknowledged + BATCH
    assert eyes.bars[0].generation == KILLS + 2
    check_exact(namespace, last_id)


def test_a_writer_stopped_in_the_middle_holds_up_no_reader(
    namespace: str, writers: Writers
) -> None:
    writers.start()
    eyes = Eyes(namespace)
    for _ in range(KILLS):
        os.kill(writers.pid, signal.SIGSTOP)
        eyes.look()
        os.kill(writers.pid, signal.SIGCONT)
        eyes.look()
    assert eyes.bars[0].writer_alive
    writers.kill()


def test_hundreds_of_kills_at_any_instruction_leave_nothing_torn_lost_or_behind() -> (
    None
):
    kills = 300 if os.environ.get("PIKER_HEAVY") else 60
    counted = run(kills, readers=3, seed=random.randrange(2**32))
    sys.stdout.write(f"{counted}\n")
    assert [counted[name] for name in ("torn", "lost", "hung", "leaks")] == [0, 0, 0, 0]
    assert counted["kills"] == kills
