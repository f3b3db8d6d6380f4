"""Reading rings, opening and attaching them, importing, and from process to process."""

import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import piker_core as pk
from benchmarks.common import (
    Case,
    Options,
    Row,
    figure,
    main,
    measure,
    namespace,
    pin,
)
from benchmarks.latency import latency_rows
from benchmarks.reference import open_c_row
from benchmarks.trades import START_NS
from piker_core.core.engine import DEFAULT_ROWS

FQME = "xbtusd.kraken"
CALLS = 10_000
OPENS = 20
READING = "from piker_core import attach_bars, attach_ticks"
NUMPY = "import numpy"
NOTHING = "import sys"


def rows(options: Options) -> Iterator[Row]:
    with open_c_row() as c, namespace() as space:
        yield from latency_rows(c, space, options)
    pin()
    with namespace() as space, pk.open_engine("kraken", namespace=space) as engine:
        market = engine.add_market(FQME)
        market.set_status("live")
        for second in range(2000):
            time_ns = START_NS + second * 1_000_000_000
            engine.push_trade(market, time_ns, 60_000.0 + second % 7, 0.5)
        yield from reading_rows(space, options)
        yield attach_row(space, options)
        yield open_row(engine, options)
        yield committed_row(engine, space)
    yield import_row(options)


def reading_rows(space: str, options: Options) -> Iterator[Row]:
    """The calls that a strategy makes all the time, beside a slice of a numpy array."""
    with (
        pk.attach_bars(FQME, namespace=space) as bars,
        pk.attach_ticks("kraken", namespace=space) as ticks,
    ):
        window, last, snapshot = bars.window, bars.last, bars.snapshot
        poll = ticks.cursor().poll
        array = snapshot(2000)
        for what, own, name, other, goal in (
            ("window(300)", lambda: window(300), "[-300:]", lambda: array[-300:], 1.65),
            ("last()", lambda: last(), "[-1]", lambda: array[-1], 1.25),
            ("poll(), empty", lambda: poll(), "[-300:]", lambda: array[-300:], 0.8),
            (
                "snapshot(300)",
                lambda: snapshot(300),
                "[-300:].copy()",
                lambda: array[-300:].copy(),
                0,
            ),
        ):
            cases = [
                Case("piker-core", _repeated(own), CALLS),
                Case(f"a numpy array's {name}", _repeated(other), CALLS),
                Case("the loop alone", _repeated(lambda: None), CALLS, compared=False),
            ]
            yield measure(what, cases, options, goal=f"<= {goal}x" if goal else "")


def _repeated(call: Callable[[], object]) -> Callable[[None], None]:
    def run(_: None) -> None:
        for _i in range(CALLS):
            call()

    return run


def attach_row(space: str, options: Options) -> Row:
    """Attaching to a ring and letting go of it, beside opening and mapping the file."""
    (path,) = (
        Path(ring.path)
        for ring in pk.list_segments(space)
        if ring.fqme == FQME and ring.period == 1
    )

    def attach(_: None) -> None:
        for _i in range(OPENS):
            pk.attach_bars(FQME, namespace=space).close()

    def map_it(_: None) -> None:
        for _i in range(OPENS):
            descriptor = os.open(path, os.O_RDWR)
            mmap.mmap(descriptor, 0).close()
            os.close(descriptor)

    cases = [
        Case("piker-core", attach, OPENS),
        Case("open, mmap, munmap, close of the file", map_it, OPENS),
    ]
    return measure("attach_bars() and close()", cases, options, goal="<= 200 us")


def open_row(engine: pk.FeedEngine, options: Options) -> Row:
    """A new ring of the default capacity, beside such a file with all its memory."""
    numbers = count()
    length = DEFAULT_ROWS[1] * pk.OHLCV_DTYPE.itemsize

    def open_rings(fqmes: list[str]) -> None:
        for fqme in fqmes:
            engine.add_market(fqme, periods=(1,))

    def reserve(_: None) -> None:
        descriptor = os.memfd_create("reserved")
        os.posix_fallocate(descriptor, 0, length)
        mmap.mmap(descriptor, length).close()
        os.close(descriptor)

    cases = [
        Case("piker-core", open_rings, 5, lambda: _names(numbers, 5)),
        Case("a file of as many rows, reserved and mapped", reserve),
    ]
    return measure("add_market(periods=(1,))", cases, options, goal="<= 2 ms")


def _names(numbers: Iterator[int], wanted: int) -> list[str]:
    return [f"new{next(numbers)}.kraken" for _ in range(wanted)]


def committed_row(engine: pk.FeedEngine, space: str) -> Row:
    """Memory that a ring takes with its first row, and the length it can grow to."""
    market = engine.add_market("small.kraken", periods=(1,))
    engine.push_trade(market, START_NS, 60_000.0, 0.5)
    (ring,) = (each for each in pk.list_segments(space) if each.fqme == "small.kraken")
    figures = [
        figure("piker-core", [ring.committed], "B"),
        figure("all its rows", [ring.size], "B"),
    ]
    return Row("memory of a ring with one row", figures, "<= 1 MB")


def import_row(options: Options) -> Row:
    """A new interpreter that imports the reading side, less one that does not."""
    samples: dict[str, list[float]] = {name: [] for name in (READING, NUMPY, NOTHING)}
    with TemporaryDirectory() as folder:
        environ = _plain_copy(Path(folder))
        for turn in range(4 if options.quick else 30):
            for statement, values in samples.items():
                began = time.perf_counter_ns()
                command = [sys.executable, "-c", statement]
                subprocess.run(command, check=True, env=environ)
                if turn:
                    values.append(time.perf_counter_ns() - began)
    bare = figure("", samples[NOTHING]).minimum
    names = (("piker-core, attach_bars and attach_ticks", READING), (NUMPY, NUMPY))
    figures = [
        figure(name, [each - bare for each in samples[of]]) for name, of in names
    ]
    return Row("import of the reading side", figures, "<= 1.2x")


def _plain_copy(folder: Path) -> dict[str, str]:
    """The package's modules as a wheel lays them, and an environment that imports them.

    The finder of an editable install, which looks for changed sources, is left out.
    """
    editable = [
        str(parent)
        for module in list(sys.modules.values())
        for parent in Path(getattr(module, "__file__", None) or "/").parents
        if module.__name__.startswith("piker_core.")
        and (parent / "build.ninja").exists()
    ]
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "piker_core" and module.__file__:
            source = Path(module.__file__)
            parts = (
                name.split(".") if source.stem == "__init__" else name.split(".")[:-1]
            )
            target = folder.joinpath(*parts)
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    skip = {"MESONPY_EDITABLE_SKIP": os.pathsep.join(set(editable))}
    return os.environ | skip | {"PYTHONPATH": str(folder)}


if __name__ == "__main__":
    main("Reading and opening rings", rows)
