"""Bars of 1 s at rest: stored, loaded, by range, beside DuckDB and polars."""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

import piker_core as pk
from benchmarks.common import Case, Options, Row, figure, main, measure
from benchmarks.store_peers import (
    DuckTable,
    duckdb_on_files,
    polars_on_files,
    polars_write,
)

START_S = 1_704_067_200
DAY_S, HOUR_S = 86_400, 3600
FLAT = 0.3
"""Part of the seconds in which nothing trades."""
BATCH = 60
INSTALL = "pip install 'piker-core[bench,store]' measures {} here too"


class Stage(msgspec.Struct, frozen=True):
    """Rows, the same rows in every kind of store, and a folder for more."""

    rows: NDArray[np.void]
    fqme: str
    stores: dict[str, pk.Store]
    duck: DuckTable | None
    polars: bool
    folder: Path

    @property
    def end_s(self) -> int:
        return int(self.rows["time"][-1]) + 1

    def files(self) -> list[str]:
        """The Parquet files of the store."""
        return sorted(map(str, (self.folder / "store").rglob("*.parquet")))


def made_rows(number: int) -> NDArray[np.void]:
    """Bars of 1 s like those of a busy market: prices of 0.01, sizes of 0.00001."""
    chance = np.random.default_rng(17)
    flat = chance.random(number) < FLAT
    flat[0] = False
    steps = np.cumsum(chance.normal(0, 1.2, number) * ~flat)
    traded = np.maximum.accumulate(np.where(flat, 0, np.arange(number)))
    close = np.round(42_000 + steps, 2)[traded]

    def near(price: NDArray[Any], width: float, side: int) -> NDArray[Any]:
        apart = np.abs(chance.normal(0, width, number)) * side
        return np.where(flat, close, np.round(price + apart, 2))

    rows = np.zeros(number, pk.OHLCV_DTYPE)
    rows["time"], rows["close"] = START_S + np.arange(number), close
    rows["open"] = near(close, 0.5, 1)
    rows["high"] = near(np.maximum(rows["open"], close), 0.3, 1)
    rows["low"] = near(np.minimum(rows["open"], close), 0.3, -1)
    rows["volume"] = np.where(flat, 0, np.round(chance.exponential(0.3, number), 5))
    rows["count"] = np.where(flat, 0, 1 + chance.poisson(8, number))
    middle = (rows["high"] + rows["low"] + close) / 3
    rows["bar_wap"] = np.where(flat, close, middle)
    rows["flags"] = np.where(flat, int(pk.BarFlag.FLAT), 0)
    return rows


def rows(options: Options) -> Iterator[Row]:
    number = options.own.rows or (2 * DAY_S if options.quick else 1_000_000)
    few = msgspec.structs.replace(options, rounds=2 if options.quick else 5)
    more = msgspec.structs.replace(options, rounds=5 if options.quick else 15)
    with ExitStack() as stack:
        stage = open_stage(stack, made_rows(number), options.own.postgres)
        try:
            yield store_row(stage, few)
            yield size_row(stage)
            yield read_row(stage, f"load {number:,} rows of 1 s", number, few)
            if number >= DAY_S:
                goal = "<= 10 ms"
                yield read_row(stage, "load a day of 1 s rows", DAY_S, more, goal)
            yield read_row(stage, "load an hour of 1 s rows", HOUR_S, more)
            yield append_row(stage, more)
            yield list_row(stage, more)
        finally:
            if options.own.postgres:
                stage.stores["PostgreSQL"].delete(stage.fqme, 1)


def open_stage(stack: ExitStack, given: NDArray[np.void], postgres: str) -> Stage:
    """Stores of all kinds, filled."""
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="piker-bench-")))
    urls = {"piker-core, Parquet": f"parquet://{folder}/store"}
    if postgres:
        urls["PostgreSQL"] = postgres
    stores = {
        name: stack.enter_context(pk.open_store(url)) for name, url in urls.items()
    }
    duck = None
    if find_spec("duckdb"):
        duck = DuckTable(folder / "duck.db")
        stack.callback(duck.close)
        duck.write(given)
        duck.settle()
    fqme = f"bench{os.getpid()}.kraken"
    for store in stores.values():
        store.write_ohlcv(fqme, 1, given)
    polars = find_spec("polars") is not None
    return Stage(given, fqme, stores, duck, polars, folder)


def missing(stage: Stage) -> str:
    """A note of the peers that are not installed."""
    names = ["duckdb"] * (stage.duck is None) + ["polars"] * (not stage.polars)
    return INSTALL.format(" and ".join(names)) if names else ""


def store_row(stage: Stage, options: Options) -> Row:
    """All rows into an empty store, on disk when it returns."""
    numbers = count()

    def into(store: pk.Store) -> Callable[[None], None]:
        def run(_: None) -> None:
            fqme = f"{next(numbers)}{stage.fqme}"
            store.write_ohlcv(fqme, 1, stage.rows)

        return run

    def emptied(store: pk.Store) -> Callable[[], None]:
        def prepare() -> None:
            for one in store.series():
                if one.fqme.endswith(stage.fqme) and one.fqme != stage.fqme:
                    store.delete(one.fqme, one.period)

        return prepare

    cases = [
        Case(name, into(store), prepare=emptied(store))
        for name, store in stage.stores.items()
    ]
    if stage.duck is not None:
        cases.append(
            Case("DuckDB", lambda table: table.write(stage.rows), prepare=fresh(stage))
        )
    if stage.polars:
        path = stage.folder / "polars.parquet"
        name = "polars, one Parquet file, not synced"
        cases.append(Case(name, lambda _: polars_write(stage.rows, path)))
    row = measure(f"store {len(stage.rows):,} rows of 1 s", cases, options)
    for store in stage.stores.values():
        emptied(store)()
    return msgspec.structs.replace(row, note=missing(stage))


def fresh(stage: Stage) -> Callable[[], DuckTable]:
    """What makes an empty table of DuckDB's."""
    tables: list[DuckTable] = []

    def prepare() -> DuckTable:
        for table in tables:
            table.close()
            table.path.unlink()
        tables[:] = [DuckTable(stage.folder / "other.db")]
        return tables[0]

    return prepare


def size_row(stage: Stage) -> Row:
    """What the rows take on disk."""
    sizes = {
        "piker-core, Parquet": sum(Path(path).stat().st_size for path in stage.files())
    }
    if stage.duck is not None:
        sizes["DuckDB"] = stage.duck.path.stat().st_size
    if stage.polars:
        sizes["polars, one Parquet file"] = (
            (stage.folder / "polars.parquet").stat().st_size
        )
    sizes["the array"] = stage.rows.nbytes
    figures = [figure(name, [size], "B") for name, size in sizes.items()]
    return Row(f"{len(stage.rows):,} rows on disk", figures)


def read_row(
    stage: Stage, what: str, number: int, options: Options, goal: str = ""
) -> Row:
    """The newest full hours or days, as rows; by others, as columns."""
    end = stage.end_s if number == len(stage.rows) else stage.end_s // number * number
    start, paths = end - number, stage.files()

    def by(store: pk.Store) -> Callable[[None], object]:
        return lambda _: store.read_ohlcv(stage.fqme, 1, start, end)

    cases = [Case(name, by(store)) for name, store in stage.stores.items()]
    check_count(cases[0].run(None), number)
    duck = stage.duck
    if duck is not None:
        cases.append(Case("DuckDB, its own file", lambda _: duck.read(start, end)))
        cases.append(duckdb_case(paths, start, end))
    if stage.polars:
        own = [str(stage.folder / "polars.parquet")]
        for name, chosen in (("our Parquet", paths), ("its own file", own)):
            cases.append(polars_case(name, chosen, start, end))
    cases.append(mapped_case(stage, start, end))
    return measure(what, cases, options, goal=goal, note=missing(stage))


def check_count(found: Any, number: int) -> None:
    """There is nothing to compare when rows are missing."""
    if len(found) != number:
        raise RuntimeError(f"{len(found)} rows were read, not {number}")


def duckdb_case(paths: list[str], start_s: int, end_s: int) -> Case:
    name = "DuckDB, our Parquet"
    return Case(name, lambda _: duckdb_on_files(paths, start_s, end_s))


def polars_case(name: str, paths: list[str], start_s: int, end_s: int) -> Case:
    return Case(f"polars, {name}", lambda _: polars_on_files(paths, start_s, end_s))


def mapped_case(stage: Stage, start_s: int, end_s: int) -> Case:
    """A copy of rows from a file of nothing but rows: no codec, no checksum."""
    path = stage.folder / "rows.npy"
    if not path.exists():
        np.save(path, stage.rows)
    mapped = np.load(path, mmap_mode="r")

    def run(_: None) -> None:
        first, last = np.searchsorted(mapped["time"], [start_s, end_s])
        mapped[first:last].copy()

    return Case("a mapped file of rows", run)


def append_row(stage: Stage, options: Options) -> Row:
    """A minute of rows after the last ones, on disk when it returns."""
    last = stage.rows[-BATCH:].copy()
    after = count(1)

    def prepare() -> NDArray[np.void]:
        batch = last.copy()
        batch["time"] += BATCH * next(after)
        return batch

    def into(store: pk.Store) -> Callable[[NDArray[np.void]], object]:
        return lambda batch: store.write_ohlcv(stage.fqme, 1, batch)

    cases = [
        Case(name, into(store), prepare=prepare) for name, store in stage.stores.items()
    ]
    if stage.duck is not None:
        cases.append(Case("DuckDB", stage.duck.write, prepare=prepare))
    what = f"append {BATCH} rows of 1 s"
    return measure(what, cases, options, note=missing(stage))


def list_row(stage: Stage, options: Options) -> Row:
    """What there is and its holes, without decoding rows."""
    days = -(-len(stage.rows) // DAY_S)

    def listed(store: pk.Store) -> Callable[[None], object]:
        return lambda _: store.series()

    def holes(store: pk.Store) -> Callable[[None], object]:
        return lambda _: store.gaps(stage.fqme, 1)

    cases = [
        Case(f"{name}, {what}", make(store), compared=False)
        for name, store in stage.stores.items()
        for what, make in (("series()", listed), ("gaps()", holes))
    ]
    return measure(f"what {days} files have", cases, options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--rows", type=int, default=0, help="of 1 s; 1,000,000 if unsaid"
    )
    parser.add_argument("--postgres", default="", metavar="URL", help="measured too")
    main("Bars at rest", rows, parser)
