"""Timing, tables and options of all benchmarks."""

import argparse
import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

import piker_core as pk
from piker_core.store.opening import without_password

PACKAGES = (
    *("piker-core", "numpy", "trio", "websockets", "pyarrow", "duckdb", "polars"),
    "nautilus_trader",
)
NS = 1_000_000_000


class Options(msgspec.Struct, frozen=True):
    """What the command line says. `rounds`: how often everything is measured.

    `own` has the options of one benchmark alone.
    """

    quick: bool
    rounds: int
    own: argparse.Namespace = argparse.Namespace()


class Case(msgspec.Struct, frozen=True):
    """Something to time: `run(prepare())` does so many operations.

    `prepare` is not timed. The first case of a measurement is the engine's, the others
    are its references, or not `compared`: a part of all of them.
    """

    name: str
    run: Callable[[Any], object]
    operations: int = 1
    prepare: Callable[[], Any] = lambda: None
    compared: bool = True


class Figure(msgspec.Struct, frozen=True):
    """Cost of one operation: lowest and median of the rounds, in `unit`."""

    name: str
    minimum: float
    median: float
    unit: str = "ns"
    compared: bool = True


class Row(msgspec.Struct, frozen=True):
    """A thing that was measured: the engine's figure, then its references.

    `goal` is what is aimed at: a ratio to the first reference, or a figure. `note` says
    what could not be measured and why.
    """

    what: str
    figures: Sequence[Figure] = ()
    goal: str = ""
    note: str = ""


class Machine(msgspec.Struct, frozen=True):
    """Where the figures come from."""

    command: str
    processor: str
    cores: int
    system: str
    python: str
    versions: dict[str, str]


def measure(
    what: str,
    cases: Sequence[Case],
    options: Options,
    *,
    goal: str = "",
    note: str = "",
) -> Row:
    """Time cases in turn, round by round, so that a disturbance hits all alike."""
    samples: dict[str, list[float]] = {case.name: [] for case in cases}
    with _quiet():
        for turn in range(options.rounds + 1):
            shift = turn % len(cases)
            for case in (*cases[shift:], *cases[:shift]):
                elapsed = _time(case)
                if turn:  # the first round warms up
                    samples[case.name].append(elapsed / case.operations)
    figures = [
        msgspec.structs.replace(
            figure(case.name, samples[case.name]), compared=case.compared
        )
        for case in cases
    ]
    return Row(what, figures, goal, note)


def _time(case: Case) -> int:
    prepared = case.prepare()
    began = time.perf_counter_ns()
    case.run(prepared)
    return time.perf_counter_ns() - began


def figure(name: str, values: Sequence[float], unit: str = "ns") -> Figure:
    """The lowest and the median of some samples."""
    return Figure(name, min(values), statistics.median(values), unit)


@contextmanager
def _quiet() -> Iterator[None]:
    """No garbage collection meanwhile."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def pin(core: int = -1) -> None:
    """Keep this process on one of its cores, counted from the first; -1 is the last."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core]})


@contextmanager
def namespace() -> Iterator[str]:
    """A namespace of this run alone, whose segments are removed at the end."""
    name = f"bench{os.getpid()}"
    try:
        yield name
    finally:
        pk.remove_segments(name)


def machine() -> Machine:
    """This machine, as far as it says what it is."""
    found = {name: _version(name) for name in PACKAGES}
    return Machine(
        command=_command(),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        system=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions={name: text for name, text in found.items() if text},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _command() -> str:
    module = Path(sys.argv[0]).stem
    options = map(without_password, sys.argv[1:])
    return " ".join(["python -m", f"benchmarks.{module}", *options])


def main(
    title: str,
    rows: Callable[[Options], Iterable[Row]],
    parser: argparse.ArgumentParser | None = None,
) -> None:
    """Command line of a benchmark: measure its rows and print them as they come.

    `parser` has the options that are its own.
    """
    parser = parser or argparse.ArgumentParser()
    parser.description = title
    parser.add_argument(
        "--quick", action="store_true", help="few rounds, rough figures"
    )
    parser.add_argument("--json", action="store_true", help="one object a line")
    arguments = parser.parse_args()
    options = Options(arguments.quick, 5 if arguments.quick else 60, arguments)
    if arguments.json:
        _print_json(rows(options))
    else:
        _print_table(title, rows(options))


def _print_json(rows: Iterable[Row]) -> None:
    out = sys.stdout.buffer
    out.write(msgspec.json.encode(machine()) + b"\n")
    for row in rows:
        out.write(msgspec.json.encode(row) + b"\n")
        out.flush()


def _print_table(title: str, rows: Iterable[Row]) -> None:
    about = machine()
    console = Console(highlight=False, width=100 if not sys.stdout.isatty() else None)
    versions = ", ".join(f"{name} {text}" for name, text in about.versions.items())
    console.print(f"[bold]{title}[/]\n{about.command}")
    console.print(f"{about.processor}, {about.cores} cores, {about.system}")
    console.print(f"{about.python}, {versions}\n")
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("what", overflow="fold", ratio=4)
    table.add_column("measured", overflow="fold", ratio=3)
    for heading in ("min", "median", "ratio", "goal"):
        table.add_column(heading, justify="right")
    for row in rows:
        _add(table, row)
    console.print(table)


def _add(table: Table, row: Row) -> None:
    own = row.figures[0] if row.figures else None
    for place, each in enumerate(row.figures):
        ratio = (
            f"{own.median / each.median:.2f}" if own and place and each.compared else ""
        )
        table.add_row(
            "" if place else row.what,
            each.name,
            _amount(each.minimum, each.unit),
            _amount(each.median, each.unit),
            ratio,
            row.goal if place == 1 else "",
        )
    if row.note:
        table.add_row("" if row.figures else row.what, f"[dim]{row.note}[/]")
    table.add_row()


def _amount(number: float, unit: str) -> str:
    if unit == "ns" and number >= 1e6:
        number, unit = number / 1e6, "ms"
    elif unit == "ns" and number >= 1e4:
        number, unit = number / 1e3, "us"
    elif unit == "B" and number >= 1e6:
        number, unit = number / 1e6, "MB"
    elif unit == "B" and number >= 1e4:
        number, unit = number / 1e3, "kB"
    return f"{number:.1f} {unit}" if number < 100 else f"{number:,.0f} {unit}"
