"""The store that is a folder: its files, ranges, holes, other tools that read it."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import piker_core as pk
from tests.store_rows import FEB_S, JAN_S, ODD, PAYLOAD, VALUES, bars, check_same, every

pyarrow = pytest.importorskip("pyarrow")

FQME = "xbtusd.kraken"
DAY_S = 86_400
NS = 10**9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "bars"


@pytest.fixture
def store(root: Path) -> Iterator[pk.Store]:
    with pk.open_store(f"parquet://{root}") as opened:
        yield opened


def files(root: Path) -> list[str]:
    """All files there are, by their path within."""
    return sorted(
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()
    )


def states(root: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        name: (
            (root / name).stat().st_ino,
            (root / name).stat().st_mtime_ns,
            (root / name).read_bytes(),
        )
        for name in files(root)
    }


# ---- opening -------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "nonsense", "parquet", "mysql://u@h/x", "://", 7])
def test_a_url_of_no_store_is_an_error_that_says_how_one_is_written(url: str) -> None:
    with pytest.raises(
        pk.StoreError, match="write parquet:///path/of/a/folder"
    ) as said:
        pk.open_store(url)
    assert str(url) in str(said.value)


@pytest.mark.parametrize("url", ["parquet://", "parquet://bars", "parquet://./bars"])
def test_a_folder_is_named_from_the_root_on(url: str) -> None:
    with pytest.raises(pk.StoreError, match="write parquet:///path"):
        pk.open_store(url)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("words")
    for name in ("file", "file/x", "file/x/y"):
        with pytest.raises(pk.StoreError, match=f"{tmp_path / name} is no folder"):
            pk.open_store(f"parquet://{tmp_path / name}")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:s3cret@host/x",
        "mysql://user:s3/c@r@et@host/x",
        "mysql://host/x?user=u&password=s3cret&more=1",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(pk.StoreError) as said:
        pk.open_store(url)
    assert "***" in str(said.value)
    assert "s3" not in str(said.value)
    assert "et@" not in str(said.value)


def test_without_pyarrow_a_sentence_says_what_to_install(root: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "import piker_core as pk\n"
        "try:\n    pk.open_store(sys.argv[1])\n"
        "except pk.StoreError as error:\n    sys.stdout.write(str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"parquet://{root}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "pip install 'piker-core[store]'" in done.stdout
    assert "\n" not in done.stdout


def test_the_package_is_imported_without_pyarrow() -> None:
    code = (
        "import sys; import piker_core as pk; pk.open_store\n"
        "sys.stdout.write(str('pyarrow' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "False", done.stderr


def test_opening_and_reading_make_nothing(root: Path, store: pk.Store) -> None:
    assert len(store.read_ohlcv(FQME, 60)) == len(store.gaps(FQME, 60)) == 0
    assert store.series() == []
    assert store.delete(FQME, 60) == 0
    assert store.write_ohlcv(FQME, 60, bars([])) == 0
    assert not root.exists()


def test_the_first_write_makes_the_folders_above_it_too(root: Path) -> None:
    deep = root / "of" / "a" / "user"
    with pk.open_store(f"parquet://{deep}") as store:
        assert store.write_ohlcv(FQME, 60, bars(every(JAN_S, 5))) == 5
    assert len(files(deep)) == 1


def test_a_closed_store_refuses_all_calls(store: pk.Store) -> None:
    store.close()
    store.close()
    for call in (
        lambda: store.series(),
        lambda: store.read_ohlcv(FQME, 60),
        lambda: store.write_ohlcv(FQME, 60, bars([])),
        lambda: store.gaps(FQME, 60),
        lambda: store.delete(FQME, 60),
    ):
        with pytest.raises(pk.StoreError, match="closed"):
            call()


# ---- rows ----------------------------------------------------------------------------


def test_every_bit_of_a_row_comes_back(root: Path, store: pk.Store) -> None:
    rows = bars(every(FEB_S - 300, 20))
    rows["volume"][: len(ODD)] = ODD
    rows["close"][3:5] = PAYLOAD
    rows["count"][:3] = 2**63 - 1, -(2**63), 0
    rows["flags"][0] = -1
    assert store.write_ohlcv(FQME, 60, rows) == 20
    check_same(store.read_ohlcv(FQME, 60), rows)
    with pk.open_store(f"parquet://{root}") as again:
        check_same(again.read_ohlcv(FQME, 60), rows)
        assert again.write_ohlcv(FQME, 60, rows) == 0


def test_markets_and_periods_are_apart(store: pk.Store) -> None:
    names = (
        "a.ib",
        "a.cme.ib",
        "a.cme.20261218.ib",
        "a.kraken",
        "a-.kraken",
        "a_.kraken",
    )
    keys = [(name, period) for name in names for period in (1, 5, 60, 3600)]
    for number, (name, period) in enumerate(keys):
        store.write_ohlcv(name, period, bars(every(JAN_S, 5, period), number))
    for number, (name, period) in enumerate(keys):
        check_same(
            store.read_ohlcv(name, period), bars(every(JAN_S, 5, period), number)
        )
    assert [(one.fqme, one.period) for one in store.series()] == sorted(keys)


def test_a_read_is_a_copy(store: pk.Store) -> None:
    store.write_ohlcv(FQME, 60, bars(every(JAN_S, 5)))
    store.read_ohlcv(FQME, 60)["close"] = -1.0
    check_same(store.read_ohlcv(FQME, 60), bars(every(JAN_S, 5)))


def test_a_write_of_a_few_rows_keeps_all_others(store: pk.Store) -> None:
    times = every(FEB_S - 60 * 500, 1000)
    store.write_ohlcv(FQME, 60, bars(times))
    assert store.write_ohlcv(FQME, 60, bars(times[::100], 1)) == 10
    wanted = bars(times)
    wanted[::100] = bars(times[::100], 1)
    check_same(store.read_ohlcv(FQME, 60), wanted)


def test_a_refused_batch_writes_nothing(root: Path, store: pk.Store) -> None:
    with pytest.raises(ValueError, match="nothing of the batch"):
        store.write_ohlcv(FQME, 60, bars([JAN_S, FEB_S, FEB_S + 1]))
    assert not root.exists()


def test_ranges_are_half_open_and_cross_files(store: pk.Store) -> None:
    times = np.concatenate([every(month - 300, 10) for month in (JAN_S, FEB_S)])
    store.write_ohlcv(FQME, 60, bars(times))
    near = [time + shift for time in times.tolist() for shift in (-1, 0, 1)]
    for start in (None, -(2**63), *near[::5], 2**63 - 1):
        for end in (None, 0, *near[::7], 2**63 - 1):
            low, high = start if start is not None else 0, end
            wanted = times[(times >= low) & (times < (2**62 if high is None else high))]
            check_same(store.read_ohlcv(FQME, 60, start, end), bars(wanted))


def test_a_range_decodes_only_the_row_groups_that_it_needs(
    store: pk.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    store.write_ohlcv(FQME, 1, bars(every(JAN_S, DAY_S, 1)))
    read, asked = pq.ParquetFile.read_row_groups, []

    def watched(file: object, groups: list[int], **options: object) -> object:
        asked.append(groups)
        return read(file, groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", watched)
    rows = store.read_ohlcv(FQME, 1, JAN_S + 21_599, JAN_S + 21_601)
    check_same(rows, bars([JAN_S + 21_599, JAN_S + 21_600]))
    store.read_ohlcv(FQME, 1, JAN_S + 80_000, JAN_S + 80_001)
    store.read_ohlcv(FQME, 1, JAN_S + 21_600, JAN_S + 43_200)
    assert asked == [[0, 1], [3], [1]]


# ---- files ---------------------------------------------------------------------------


def test_a_second_is_filed_by_day_and_a_minute_by_month(
    root: Path, store: pk.Store
) -> None:
    store.write_ohlcv("mnq.cme.20261218.ib", 1, bars([FEB_S - 1, FEB_S]))
    store.write_ohlcv("mnq.cme.20261218.ib", 60, bars([FEB_S - 60, FEB_S]))
    store.write_ohlcv(FQME, 86_400, bars([0, 365 * DAY_S]))
    assert files(root) == [
        "provider=ib/market=mnq.cme.20261218.ib/period=1/year=2024/2024-01-31.parquet",
        "provider=ib/market=mnq.cme.20261218.ib/period=1/year=2024/2024-02-01.parquet",
        "provider=ib/market=mnq.cme.20261218.ib/period=60/year=2024/2024-01.parquet",
        "provider=ib/market=mnq.cme.20261218.ib/period=60/year=2024/2024-02.parquet",
        "provider=kraken/market=xbtusd.kraken/period=86400/year=1970/1970-01.parquet",
        "provider=kraken/market=xbtusd.kraken/period=86400/year=1971/1971-01.parquet",
    ]


def test_an_append_touches_the_newest_file_alone(root: Path, store: pk.Store) -> None:
    store.write_ohlcv(FQME, 60, bars(every(JAN_S, 90, DAY_S)))
    before = states(root)
    store.write_ohlcv(FQME, 60, bars(every(JAN_S + 85 * DAY_S, 10, 60), 1))
    after = states(root)
    assert [name for name in after if after[name] != before.get(name)] == [
        "provider=kraken/market=xbtusd.kraken/period=60/year=2024/2024-03.parquet"
    ]


def test_rows_that_are_there_touch_no_file(root: Path, store: pk.Store) -> None:
    store.write_ohlcv(FQME, 60, bars(every(JAN_S, 90, DAY_S)))
    before = states(root)
    assert store.write_ohlcv(FQME, 60, bars(every(JAN_S, 90, DAY_S))) == 0
    assert states(root) == before


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_are_readable_as_the_mask_says(
    mask: int, root: Path, store: pk.Store
) -> None:
    before = os.umask(mask)
    try:
        store.write_ohlcv(FQME, 60, bars([JAN_S]))
    finally:
        os.umask(before)
    (path,) = root.rglob("*.parquet")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_page_checksums_are_written(root: Path, store: pk.Store) -> None:
    import pyarrow.parquet as pq

    rows = bars(every(JAN_S, 1000))
    store.write_ohlcv(FQME, 60, rows)
    (path,) = root.rglob("*.parquet")
    content = bytearray(path.read_bytes())
    place = content.index(rows["open"][500:501].tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert len(pq.ParquetFile(path).read()) == 1000
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


# ---- what there is, and holes --------------------------------------------------------


def test_series_are_counted_without_decoding_rows(
    store: pk.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from piker_core.store import parquet_files

    store.write_ohlcv("b.kraken", 1, bars(every(FEB_S - 5, 10, 1)))
    store.write_ohlcv("a.kraken", 60, bars(every(FEB_S, 3, 86_400)))
    monkeypatch.delattr(parquet_files, "decode")
    assert store.series() == [
        pk.Series("a.kraken", 60, 3, FEB_S, FEB_S + 2 * 86_400),
        pk.Series("b.kraken", 1, 10, FEB_S - 5, FEB_S + 4),
    ]
    assert len(store.gaps("b.kraken", 1)) == 0


def test_holes_are_found_within_files_and_between_them(store: pk.Store) -> None:
    times = every(JAN_S, 60 * 24 * 95)
    keep = np.ones(len(times), bool)
    spans = [
        (5, 6),
        (100, 1600),
        (44_000, 46_000),
        (60_000, 100_000),
        (110_000, 110_001),
    ]
    for start, end in spans:
        keep[start:end] = False
    store.write_ohlcv(FQME, 60, bars(times[keep]))
    for number in range(len(spans) + 1):
        found = store.gaps(FQME, 60)
        assert found.dtype.names == ("start_ns", "end_ns")
        assert ((found["start_ns"] // NS - JAN_S) // 60).tolist() == [
            start for start, _ in spans[number:]
        ]
        assert ((found["end_ns"] // NS - JAN_S) // 60).tolist() == [
            end for _, end in spans[number:]
        ]
        if number < len(spans):
            start, end = spans[number]
            store.write_ohlcv(FQME, 60, bars(times[start:end]))


def test_placeholders_are_holes_until_they_are_replaced(store: pk.Store) -> None:
    rows = bars(every(FEB_S - 600, 20))
    marked = rows.copy()
    marked["flags"][8:13] = int(pk.BarFlag.SYNTHETIC_GAP)
    store.write_ohlcv(FQME, 60, np.delete(marked, 13))
    assert store.gaps(FQME, 60).tolist() == [((FEB_S - 120) * NS, (FEB_S + 240) * NS)]
    store.write_ohlcv(FQME, 60, rows[8:14])
    assert len(store.gaps(FQME, 60)) == 0


# ---- removing ------------------------------------------------------------------------


def test_rows_of_a_range_are_removed_and_the_empty_file_with_them(
    root: Path, store: pk.Store
) -> None:
    times = every(JAN_S, 90, DAY_S)
    store.write_ohlcv(FQME, 60, bars(times))
    assert store.delete(FQME, 60, JAN_S + 20 * DAY_S, FEB_S + 29 * DAY_S) == 40
    check_same(store.read_ohlcv(FQME, 60), bars(np.delete(times, range(20, 60))))
    assert [Path(name).stem for name in files(root)] == ["2024-01", "2024-03"]
    assert store.delete(FQME, 60, JAN_S + 25 * DAY_S, FEB_S) == 0
    assert store.delete(FQME, 60) == 50
    assert files(root) == []
    assert store.series() == []


def test_rows_come_back_after_all_were_removed(root: Path, store: pk.Store) -> None:
    import shutil

    for remove in (lambda: store.delete(FQME, 60), lambda: shutil.rmtree(root)):
        store.write_ohlcv(FQME, 60, bars([JAN_S]))
        remove()
        assert len(store.read_ohlcv(FQME, 60)) == 0
        assert store.write_ohlcv(FQME, 60, bars([JAN_S])) == 1
        check_same(store.read_ohlcv(FQME, 60), bars([JAN_S]))


# ---- other tools ---------------------------------------------------------------------


def by_pyarrow(root: Path) -> dict[str, NDArray[np.generic]]:
    import pyarrow.dataset

    table = pyarrow.dataset.dataset(root, format="parquet").to_table()
    return {name: table[name].to_numpy() for name in table.column_names}


def by_duckdb(root: Path) -> dict[str, NDArray[np.generic]]:
    import duckdb

    query = f"SELECT * FROM '{root}/**/*.parquet' WHERE market = '{FQME}'"
    with duckdb.connect() as connection:
        return dict(connection.execute(query).fetchnumpy())


def by_polars(root: Path) -> dict[str, NDArray[np.generic]]:
    import polars

    frame = polars.read_parquet(f"{root}/**/*.parquet")
    return {name: frame[name].to_numpy() for name in frame.columns}


def by_pandas(root: Path) -> dict[str, NDArray[np.generic]]:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(root)
    return {name: frame[name].to_numpy() for name in frame.columns}


@pytest.mark.parametrize("read", [by_pyarrow, by_duckdb, by_polars, by_pandas])
def test_other_tools_read_the_files(
    read: Callable[[Path], dict[str, NDArray[np.generic]]], root: Path, store: pk.Store
) -> None:
    pytest.importorskip(read.__name__.removeprefix("by_"))
    rows = bars(every(FEB_S - 86_400, 90_000, 1))
    rows["volume"][: len(ODD)] = ODD
    rows["close"][5:7] = PAYLOAD
    rows["count"][40:44] = 2**63 - 1, -(2**63), -1, 2**62
    store.write_ohlcv(FQME, 1, rows)
    columns = read(root)
    order = np.argsort(columns["time"])
    for name in VALUES:
        column = np.asarray(columns[name])[order]
        assert column.dtype == pk.OHLCV_DTYPE[name]
        assert (column.view("i8") == np.ascontiguousarray(rows[name]).view("i8")).all()


def test_every_file_says_by_its_footer_what_it_is(root: Path, store: pk.Store) -> None:
    store.write_ohlcv(FQME, 60, bars(every(JAN_S, 3)))
    (path,) = root.rglob("*.parquet")
    entry = pyarrow.parquet.read_metadata(path).metadata[b"piker-core"].decode()
    assert re.fullmatch(
        r'piker-core-bars [0-9a-f]{8} [0-9a-f]{8} \{"format":1,'
        r'"market":"xbtusd.kraken","period":60,"partition":"2024-01","rows":3,'
        rf'"first_s":{JAN_S},"last_s":{JAN_S + 120},"holes":false\}}',
        entry,
    )
