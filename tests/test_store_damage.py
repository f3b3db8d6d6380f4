"""The Parquet store beside damaged and foreign files, and remains of dead writers."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

import piker_core as pk
from tests.store_places import FQME, OTHER, Locked, files
from tests.store_rows import FEB_S, JAN_S, bars, check_same, every

pytest.importorskip("pyarrow")

from piker_core.store import parquet_files
from piker_core.store.parquet_folder import TEMPORARY


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"parquet://{tmp_path}/bars"


# ---- damage --------------------------------------------------------------------------


def test_no_flipped_byte_of_a_file_goes_unseen(url: str) -> None:
    rows = bars(every(JAN_S, 3))
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, rows)
        store.write_ohlcv(OTHER, 60, rows)
        path = files(url)[1]
        assert FQME in str(path)
        whole = path.read_bytes()
        for place in range(len(whole)):
            path.write_bytes(
                whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :]
            )
            with pytest.raises(pk.StoreError) as said:
                store.read_ohlcv(FQME, 60)
            assert str(path) in str(said.value), place
        check_same(store.read_ohlcv(OTHER, 60), rows)
        path.write_bytes(whole)
        check_same(store.read_ohlcv(FQME, 60), rows)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 12, 500, -9, -1])
def test_a_file_that_was_cut_is_named_by_all_that_need_it(url: str, size: int) -> None:
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, np.delete(bars(every(JAN_S, 9)), 4))
        (path,) = files(url)
        cut = path.read_bytes()[:size]
        path.write_bytes(cut)
        for call in (
            lambda: store.read_ohlcv(FQME, 60),
            lambda: store.gaps(FQME, 60),
            lambda: store.delete(FQME, 60, JAN_S, JAN_S + 60),
            lambda: store.write_ohlcv(FQME, 60, bars([JAN_S])),
        ):
            with pytest.raises(pk.StoreError, match="is damaged") as said:
                call()
            assert str(path) in str(said.value)
        assert path.read_bytes() == cut
        assert len(store.read_ohlcv(FQME, 60, FEB_S)) == 0
        assert store.write_ohlcv(FQME, 60, bars([FEB_S])) == 1


def test_series_are_counted_beside_a_damaged_file_which_is_named_once(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, bars(every(FEB_S - 120, 5)))
        store.write_ohlcv(OTHER, 60, bars([JAN_S]))
        path = next(
            path for path in files(url) if path.stem == "2024-01" and FQME in str(path)
        )
        path.write_bytes(b"")
        for _ in range(2):
            assert store.series() == [
                pk.Series(OTHER, 60, 1, JAN_S, JAN_S),
                pk.Series(FQME, 60, 3, FEB_S, FEB_S + 120),
            ]
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]


def test_a_file_that_was_moved_is_not_taken_for_another(url: str) -> None:
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, bars([JAN_S, FEB_S]))
        store.write_ohlcv(OTHER, 60, bars([JAN_S]))
        other, first, second = files(url)
        for place, origin in ((first, second), (first, other)):
            kept = place.read_bytes()
            place.write_bytes(origin.read_bytes())
            with pytest.raises(pk.StoreError, match="not of this folder") as said:
                store.read_ohlcv(FQME, 60)
            assert str(place) in str(said.value)
            place.write_bytes(kept)


def test_another_version_s_file_is_named(url: str) -> None:
    rows = bars([JAN_S])
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, rows)
        (path,) = files(url)
        summary = parquet_files.summarize(rows, FQME, 60, "2024-01")
        newer = msgspec.structs.replace(summary, format=2)
        path.write_bytes(parquet_files.encode(rows, newer))
        with pytest.raises(pk.StoreError, match="format 2, this version reads 1"):
            store.read_ohlcv(FQME, 60)


# ---- what is not ours ----------------------------------------------------------------


def test_foreign_files_and_folders_are_left_alone(url: str) -> None:
    rows = bars(every(JAN_S, 9))
    root = Path(url.removeprefix("parquet://"))
    with pk.open_store(url) as store:
        store.write_ohlcv(FQME, 60, rows)
        (own,) = files(url)
        for folder in (root, *(root / name for name in own.relative_to(root).parents)):
            for name in (".DS_Store", "zz.parquet", "notes.tmp", "20240131.parquet"):
                (folder / name).write_text("somebody's words")
            for name in (
                "year=abcd",
                "period=0",
                "period=99999999",
                "market=x",
                "lost",
            ):
                (folder / name / "period=60").mkdir(parents=True, exist_ok=True)
        foreign = {path: path.read_bytes() for path in files(url) if path != own}
        with pk.open_store(url) as again:
            check_same(again.read_ohlcv(FQME, 60), rows)
            assert again.write_ohlcv(FQME, 60, bars([JAN_S + 600])) == 1
            assert again.series() == [pk.Series(FQME, 60, 10, JAN_S, JAN_S + 600)]
            assert again.delete(FQME, 60, JAN_S, JAN_S + 60) == 1
    assert {path: path.read_bytes() for path in files(url) if path != own} == foreign


def test_remains_of_dead_writers_are_removed_with_the_first_write_and_before_each(
    url: str,
) -> None:
    with pk.open_store(url) as store:
        for fqme in (FQME, OTHER):
            store.write_ohlcv(fqme, 60, bars([JAN_S]))
            store.write_ohlcv(fqme, 1, bars([JAN_S]))
        own = files(url)
    remains = [path.with_name(TEMPORARY) for path in own]
    for path in remains:
        path.write_bytes(b"half a file")
    with pk.open_store(url) as store:
        assert len(store.read_ohlcv(FQME, 60)) == 1
        store.write_ohlcv(FQME, 60, bars([JAN_S]))
        assert files(url) == own
        for path in remains:
            path.write_bytes(b"half a file")
        store.write_ohlcv(FQME, 60, bars([JAN_S]))
        assert files(url) == [path for path in files(url) if FQME not in str(path)] + [
            path for path in own if FQME in str(path)
        ]


def test_what_another_process_is_writing_is_not_taken_for_remains(url: str) -> None:
    with pk.open_store(url) as store:
        store.write_ohlcv(OTHER, 60, bars([JAN_S]))
        (own,) = files(url)
        written = own.with_name(TEMPORARY)
        written.write_bytes(b"half a file")
        with Locked(own.parents[2]), pk.open_store(url) as again:
            again.write_ohlcv(FQME, 60, bars([JAN_S]))
            assert written.exists()
