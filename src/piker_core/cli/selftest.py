"""The ring that `doctor` runs: a writing process, this reading one, and a kill.

`python -m piker_core.cli.selftest NAMESPACE` is the writing process; see `run_writer`.
"""

import itertools
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Thread

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.cli.failures import guard
from piker_core.core.engine import FeedEngine, Market, open_engine
from piker_core.core.rings import BarReader, attach_bars
from piker_core.core.ticks import TickCursor, attach_ticks
from piker_core.errors import PikerError
from piker_core.segments import remove_segments

PROVIDER, FQME = "doctor", "selftest.doctor"
BASE_NS = 1_600_000_000_000_000_000
STEP_NS = 1_000_000
"""A thousand trades make a bar."""
SIZE = 0.5
PINGS = 200
REPLY_S = 5.0


class SelfTest(msgspec.Struct, kw_only=True):
    """What a second of a ring showed. Times in the unit of their name."""

    pushes_per_s: int
    rows_read: int
    rows_torn: int
    ticks_pushed: int
    ticks_read: int
    ticks_lost: int
    wake_us: dict[str, float]
    pings_missed: int
    alive_before_kill: bool
    alive_after_kill: bool
    torn_after_kill: int
    resume_ms: float
    resumed: bool


def run_selftest(seconds: float) -> SelfTest:
    """Write and read a ring in two processes, wake, kill the writer, resume.

    Takes about a second more than it reads. Uses some 2 MB of shared memory in a
    namespace of its own and leaves nothing. Raises PikerError or OSError where a ring
    cannot even be opened.
    """
    namespace = f"doctor{os.getpid()}"
    try:
        with _writing_process(namespace) as process:
            return _examine(process, namespace, seconds)
    finally:
        remove_segments(namespace, force=True)


def _examine(
    process: "subprocess.Popen[bytes]", namespace: str, seconds: float
) -> SelfTest:
    bars = attach_bars(FQME, period=1, namespace=namespace)
    ticks = attach_ticks(PROVIDER, namespace=namespace)
    cursor = ticks.cursor()
    start = cursor.position
    rows_read, torn, ticks_read = _read_for(seconds, bars, cursor)
    pushed, lost = cursor.position - start, cursor.lost
    _send(process, b"\n")
    latencies_us, missed = _ping(process, cursor)
    _send(process, b"\n")
    time.sleep(0.02)
    alive = bars.writer_alive
    process.kill()
    process.wait()
    alive_after = bars.writer_alive
    rows = bars.snapshot(bars.capacity)
    resumed, resume_ms = _resume(bars, namespace)
    return SelfTest(
        pushes_per_s=int(pushed / seconds),
        rows_read=rows_read,
        rows_torn=torn,
        ticks_pushed=pushed,
        ticks_read=ticks_read,
        ticks_lost=lost,
        wake_us=_quantiles(latencies_us),
        pings_missed=missed,
        alive_before_kill=alive,
        alive_after_kill=alive_after,
        torn_after_kill=bad_rows(rows),
        resume_ms=round(resume_ms, 3),
        resumed=resumed,
    )


def _read_for(
    seconds: float, bars: BarReader, cursor: TickCursor
) -> tuple[int, int, int]:
    """Read as fast as it goes: rows, torn ones among them, ticks."""
    rows_read = torn = ticks_read = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        rows = bars.snapshot(64)
        rows_read += len(rows)
        torn += bad_rows(rows)
        for _ in range(8):
            ticks_read += len(cursor.poll())
    return rows_read, torn, ticks_read


def bad_rows(rows: NDArray[np.void]) -> int:
    """Rows that the writer of `run_writer` never published."""
    count = rows["count"]
    seen = np.minimum(count, 1000)
    bad = (count < 1) | (count > 1000) | (rows["volume"] != count * SIZE)
    bad |= (rows["open"] != 100.0) | (rows["low"] != 100.0)
    bad |= rows["high"] != 99.0 + np.minimum(seen, 50)
    bad |= rows["close"] != 100.0 + (count - 1) % 50
    bad[1:] |= (np.diff(rows["index"]) != 1) | (np.diff(rows["time"]) != 1)
    return int(bad.sum())


def _ping(
    process: "subprocess.Popen[bytes]", cursor: TickCursor
) -> tuple[list[float], int]:
    """Ask for single trades and sleep until each: microseconds from push to read."""
    latencies_us: list[float] = []
    deadline = time.monotonic() + REPLY_S
    while len(cursor.poll()) or cursor.wait(timeout=0.1):
        if time.monotonic() > deadline:
            raise PikerError("the self-test's writer does not stop pushing")
    missed = 0
    for _ in range(PINGS):
        _send(process, b".")
        if not cursor.wait(timeout=1.0):
            missed += 1
            if missed > 3:
                break
            continue
        now_ns = time.time_ns()
        latencies_us += ((now_ns - cursor.poll()["recv_ns"]) / 1e3).tolist()
    return latencies_us, missed


def _resume(bars: BarReader, namespace: str) -> tuple[bool, float]:
    """Become the next writer of the same ring; milliseconds until it has."""
    head, generation = bars.head, bars.generation
    began = time.perf_counter()
    with _open(namespace) as (engine, market):
        elapsed_ms = (time.perf_counter() - began) * 1e3
        after_ns = market.last_time_ns // 10**9 * 10**9 + 10**9
        engine.push_trade(market, after_ns, 100.0, SIZE)
        grown = bars.head == head + 1 and bars.generation == generation + 1
    return grown, elapsed_ms


def _quantiles(samples: Sequence[float]) -> dict[str, float]:
    if not samples:
        return {}
    low, middle, high = np.quantile(samples, (0.0, 0.5, 0.99)).tolist()
    return {"min": round(low, 1), "median": round(middle, 1), "p99": round(high, 1)}


# The writing process


@contextmanager
def _open(namespace: str) -> Iterator[tuple[FeedEngine, Market]]:
    with open_engine(PROVIDER, namespace=namespace, tick_capacity=1 << 14) as engine:
        market = engine.add_market(
            FQME, periods=(1, 60), capacity={1: 1024, 60: 1024}, fill="none"
        )
        market.set_status("live")
        yield engine, market


@contextmanager
def _writing_process(namespace: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "piker_core.cli.selftest", namespace],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        bufsize=0,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            why = process.communicate()[1].decode().strip().rpartition("\n")[2]
            raise PikerError(f"the self-test's writer has not started ({why})")
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _send(process: "subprocess.Popen[bytes]", text: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(text)


def push_one(engine: FeedEngine, market: Market, number: int) -> None:
    """Trade `number` of the model: a thousand make a bar, prices rise and fall back."""
    engine.push_trade(
        market, BASE_NS + number * STEP_NS, 100.0 + number % 1000 % 50, SIZE
    )


def run_writer(namespace: str) -> None:
    """Push trades as fast as it goes; obey standard input, and end with it.

    A newline stops the pushing, the next one begins it again; any other byte asks for
    one trade.
    """
    asked: deque[bytes] = deque()

    def listen() -> None:
        while byte := os.read(0, 1):
            asked.append(byte)
        asked.append(b"")

    numbers = itertools.count()
    with _open(namespace) as (engine, market):
        Thread(target=listen, daemon=True).start()
        for number in itertools.islice(numbers, 2000):
            push_one(engine, market, number)
        os.write(1, b"ready\n")
        pushing = True
        while not asked or asked[0]:
            if asked and asked.popleft() == b"\n":
                pushing = not pushing
                continue
            for number in itertools.islice(numbers, 100 if pushing else 1):
                push_one(engine, market, number)
            while not asked and not pushing:
                time.sleep(0.0003)  # the reader is asleep before a trade comes


if __name__ == "__main__":
    sys.exit(guard(partial(run_writer, sys.argv[1])))
