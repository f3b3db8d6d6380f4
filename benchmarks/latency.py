"""From a writer's push to a reader's poll in another process, beside a C probe.

Each process has a core of its own. The writer stamps a record with the monotonic clock
and publishes it; the reader polls without pause and reads the clock as soon as it has
the record. Engine and probe take turns in the same two processes, with the same stamps
and the same calls from Python around them.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

import piker_core as pk
from benchmarks.common import Figure, Options, Row, figure, pin
from benchmarks.reference import load_c_row
from benchmarks.trades import START_NS

FQME = "fast.latency"
PAUSE_NS = 20_000
WARM_UP = 200
LIMIT_S = 60
READER = "import sys; from benchmarks.latency import read; read(*sys.argv[1:])"
ROOT = Path(__file__).resolve().parents[1]


def latency_rows(c: Any, space: str, options: Options) -> Iterator[Row]:
    """p50 and p99 of both; a note instead where there is one core only."""
    what = "push here to poll() in another process"
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        yield Row(what, note="needs two cores")
        return
    samples = _run(c, space, WARM_UP + (1_000 if options.quick else 20_000))[
        :, WARM_UP:
    ]
    os.sched_setaffinity(0, cores)
    names = ("piker-core", "a C probe of 64 bytes")
    for part, goal in ((50, "<= 1.3x"), (99, "")):
        figures = [
            _percentile(name, values, part)
            for name, values in zip(names, samples, strict=True)
        ]
        yield Row(f"{what}, p{part}", figures, goal)


def _percentile(name: str, values: NDArray[np.int64], part: int) -> Figure:
    """That of each tenth of the run; of these the lowest and the median."""
    tenths = np.array_split(values, 10)
    return figure(name, [float(np.percentile(each, part)) for each in tenths])


def _run(c: Any, space: str, turns: int) -> NDArray[np.int64]:
    """Nanoseconds of each turn, first of the engine, then of the probe."""
    page = os.memfd_create("probe")
    os.ftruncate(page, 4096)
    c.probe_open(page)
    with pk.open_engine("latency", namespace=space) as engine:
        market = engine.add_market(FQME, capacity={1: 4096, 60: 4096})
        market.set_status("live")
        with _open_reader(c.__file__, page, space, turns) as out:
            pin(0)
            if out.readline() != b"ready\n":
                raise RuntimeError("the reading process has ended")
            _write(c, engine, market, turns)
            samples = np.frombuffer(out.read(), np.int64)
    os.close(page)
    return samples.reshape(2, turns)


@contextmanager
def _open_reader(module: str, page: int, space: str, turns: int) -> Iterator[IO[bytes]]:
    arguments = [module, str(page), space, str(turns)]
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, *arguments],
        stdout=subprocess.PIPE,
        pass_fds=[page],
        cwd=ROOT,
    )
    with reader:
        assert reader.stdout is not None
        try:
            yield reader.stdout
        finally:
            reader.kill()


def _write(c: Any, engine: pk.FeedEngine, market: pk.Market, turns: int) -> None:
    clock, push, write = time.monotonic_ns, engine.push_trade, c.probe_write
    for turn in range(turns):
        time_ns = START_NS + turn * 1_000_000
        _wait_for(c, 2 * turn)
        push(market, time_ns, 60_000.0, 0.5, clock())
        _wait_for(c, 2 * turn + 1)
        write(clock())


def _wait_for(c: Any, turn: int) -> None:
    """Until the reader has all before this and polls again."""
    deadline = time.monotonic_ns() + LIMIT_S * 1_000_000_000
    while c.acknowledged() < turn:
        if time.monotonic_ns() > deadline:
            raise TimeoutError("the reading process does not answer")
    polling = time.monotonic_ns() + PAUSE_NS
    while time.monotonic_ns() < polling:
        pass


def read(module: str, page: str, space: str, turns: str) -> None:
    """The reading process; ends itself if nobody writes."""
    signal.alarm(LIMIT_S)
    c = load_c_row(module)
    c.probe_open(int(page))
    samples = np.zeros((2, int(turns)), np.int64)
    with pk.attach_ticks("latency", namespace=space) as ticks:
        poll, probe, clock = ticks.cursor().poll, c.probe_poll, time.monotonic_ns
        pin()
        sys.stdout.buffer.write(b"ready\n")
        sys.stdout.buffer.flush()
        for turn in range(int(turns)):
            while not len(records := poll()):
                pass
            samples[0, turn] = clock() - records["id"][0]
            c.acknowledge()
            while (stamp := probe()) is None:
                pass
            samples[1, turn] = clock() - stamp
            c.acknowledge()
    sys.stdout.buffer.write(samples.tobytes())
