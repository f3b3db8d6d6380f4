"""Writers of the Parquet store at once: threads, processes, one that holds on."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import piker_core as pk
from tests.store_places import FQME, OTHER, ROOT, TURNS, Locked, files
from tests.store_rows import FEB_S, JAN_S, bars, check_same, every

pytest.importorskip("pyarrow")

from piker_core.store import parquet_folder


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"parquet://{tmp_path}/bars"


# ---- writers at once -----------------------------------------------------------------


def test_a_market_that_is_written_for_too_long_is_an_error_and_others_go_on(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, bars([JAN_S]))
        folder = files(url)[0].parents[2]
        monkeypatch.setattr(parquet_folder, "WAIT_S", 0.05)
        with Locked(folder):
            with pytest.raises(pk.StoreError, match="by another process") as said:
                store.write_ohlcv(FQME, 60, bars([FEB_S]))
            assert str(folder) in str(said.value)
            check_same(store.read_ohlcv(FQME, 60), bars([JAN_S]))
            store.write_ohlcv(OTHER, 60, bars([JAN_S]))
        assert store.write_ohlcv(FQME, 60, bars([FEB_S])) == 1


def test_a_writer_waits_for_another_one_that_ends(url: str) -> None:
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, bars([JAN_S]))
        with Locked(files(url)[0].parents[2]) as other:
            ending = threading.Timer(0.05, other.kill)
            ending.start()
            assert store.write_ohlcv(FQME, 60, bars([FEB_S])) == 1
            ending.join()


APPEND = """
import sys
import piker_core as pk
from tests.store_places import TURNS
from tests.store_rows import JAN_S, bars, every
url, fqme, shift = sys.argv[1], sys.argv[2], int(sys.argv[3])
with pk.open_store(url) as store:
    for turn in range(TURNS):
        start = JAN_S + 86_400 * turn + shift
        assert store.write_ohlcv(fqme, 60, bars(every(start, 10, 120))) == 10
"""


@pytest.mark.parametrize("names", [(FQME, OTHER), (FQME, FQME)], ids=["two", "one"])
def test_two_processes_that_write_lose_nothing(
    url: str, names: tuple[str, str]
) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND, url, fqme, str(shift)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for fqme, shift in zip(names, (0, 60), strict=True)
    ]
    for writer in writers:
        assert writer.communicate(timeout=100)[1] == ""
        assert writer.returncode == 0
    with pk.open_store(url) as store:
        for fqme in set(names):
            shifts = [
                shift
                for name, shift in zip(names, (0, 60), strict=True)
                if name == fqme
            ]
            times = [
                JAN_S + 86_400 * turn + 120 * step + shift
                for turn in range(TURNS)
                for step in range(10)
                for shift in shifts
            ]
            check_same(store.read_ohlcv(fqme, 60), bars(sorted(times)))


def by_store(root: Path) -> NDArray[Any]:
    with pk.open_store(f"parquet://{root}") as store:
        rows = store.read_ohlcv(FQME, 60)
    check_same(rows, bars(rows["time"]))
    times: NDArray[Any] = rows["time"]
    return times


def by_pyarrow(root: Path) -> NDArray[Any]:
    import pyarrow.dataset

    table = pyarrow.dataset.dataset(root, format="parquet").to_table()
    times: NDArray[Any] = np.sort(table["time"].to_numpy())
    return times


def by_polars(root: Path) -> NDArray[Any]:
    polars = pytest.importorskip("polars")

    def read() -> NDArray[Any]:
        frame = polars.read_parquet(f"{root}/**/*.parquet", columns=["time"])
        times: NDArray[Any] = np.sort(frame["time"].to_numpy())
        return times

    return tried_again(read, polars.exceptions.ComputeError)


def by_duckdb(root: Path) -> NDArray[Any]:
    duckdb = pytest.importorskip("duckdb")

    def read() -> NDArray[Any]:
        with duckdb.connect() as connection:
            query = f"SELECT time FROM '{root}/**/*.parquet' ORDER BY time"
            times: NDArray[Any] = connection.execute(query).fetchnumpy()["time"]
        return times

    return tried_again(read, duckdb.Error)


def tried_again(
    read: Callable[[], NDArray[Any]], error: type[Exception]
) -> NDArray[Any]:
    """For tools that open a file twice, and may meet its replacement in between."""
    for _ in range(20):
        with suppress(error):
            return read()
    return read()


@pytest.mark.parametrize("read", [by_store, by_pyarrow, by_polars, by_duckdb])
def test_readers_meet_no_error_and_no_shrinking_while_files_are_replaced(
    read: Callable[[Path], NDArray[Any]], url: str
) -> None:
    root = Path(url.removeprefix("parquet://"))
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, bars([JAN_S - 60]))
    before = looks = 0
    command = [sys.executable, "-c", APPEND, url, FQME, "0"]
    with subprocess.Popen(command, cwd=ROOT) as writer:
        while writer.poll() is None:
            times = read(root)
            assert (np.diff(times) > 0).all()
            assert len(times) >= before
            before, looks = len(times), looks + 1
    assert writer.returncode == 0
    assert len(read(root)) == 1 + 10 * TURNS
    assert looks


def test_threads_share_a_store(url: str) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(25):
                if number < 2:
                    times = JAN_S + 60 * (20 * turn + 2 * np.arange(10) + number)
                    assert store.write_ohlcv(FQME, 60, bars(times)) == 10
                else:
                    rows = store.read_ohlcv(FQME, 60)
                    check_same(rows, bars(rows["time"]))
                    assert sum(one.rows for one in store.series()) >= len(rows)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    with pk.open_store(url) as store:
        crew = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        assert failures == []
        check_same(store.read_ohlcv(FQME, 60), bars(every(JAN_S, 500)))


def test_no_descriptor_stays_open_whatever_happened(url: str) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, bars([JAN_S, FEB_S]))
        before = count()
        (first, _) = files(url)
        for _ in range(5):
            store.write_ohlcv(FQME, 60, bars(every(JAN_S, 5)))
            store.read_ohlcv(FQME, 60)
            store.gaps(FQME, 60)
            store.series()
        first.write_bytes(b"")
        for call in (store.read_ohlcv, store.gaps, store.delete):
            with pytest.raises(pk.StoreError):
                call(FQME, 60)
        assert count() == before
