"""`store export`: rows of a series in one file, exact, whole or not there."""

import contextlib
import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from piker_core.cli.failures import OK, misused
from piker_core.cli.output import Output
from piker_core.cli.store_views import bounds, chosen_series, counted, opened, shown_url
from piker_core.dtypes import OHLCV_DTYPE
from piker_core.errors import StoreError
from piker_core.store.protocol import Series, Store

Rows = NDArray[np.void]
COLUMNS = [name for name in OHLCV_DTYPE.names or () if name != "index"]
BLOCK_PERIODS = 200_000
"""How many periods are read at once: a long series need not fit into memory."""


def export_rows(
    out: Output,
    fqme: str,
    *,
    period: int,
    start: str | None,
    end: str | None,
    file: Path,
    form: str,
    force: bool,
    store_url: str | None,
) -> int:
    """Write the rows to a new file, or in place of one with `force`."""
    write = _write_csv if form == "csv" else _write_parquet
    with opened(store_url) as store:
        (one,) = chosen_series(store, shown_url(store_url), fqme, period)
        try:
            with whole_file(file, force=force) as part:
                count = write(part, _blocks(store, one, *bounds(start, end)))
        except FileExistsError:
            return misused(f"{file} is there already: --force replaces it")
    size = file.stat().st_size
    if out.json:
        about = {"fqme": fqme, "period": period, "file": str(file), "format": form}
        out.record("exported", **about, rows=count, bytes=size)
    else:
        out.line(f"{counted(count, 'row')} of {fqme}, {period} s in {file}")
    return OK


def _blocks(
    store: Store, one: Series, start_s: int | None, end_s: int | None
) -> Iterator[Rows]:
    """The rows of a span, ascending, some at a time."""
    last_s = one.last_s + 1 if end_s is None else min(end_s, one.last_s + 1)
    step_s = BLOCK_PERIODS * one.period
    for block_s in range(max(one.first_s, start_s or 0), last_s, step_s):
        end_of_block_s = min(block_s + step_s, last_s)
        yield store.read_ohlcv(one.fqme, one.period, block_s, end_of_block_s)


@contextlib.contextmanager
def whole_file(file: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """A file to write to, which appears under its name when it is on disk.

    Raises FileExistsError if there is one and it is not to be replaced.
    """
    path = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with path.open("xb") as part:
            yield part
            part.flush()
            os.fsync(part.fileno())
        if force:
            path.replace(file)
        else:
            file.hardlink_to(path)
    finally:
        path.unlink(missing_ok=True)


def _write_csv(part: IO[bytes], blocks: Iterator[Rows]) -> int:
    """Numbers as Python writes them: each is read back as the same bits."""
    text = io.TextIOWrapper(part, "ascii", newline="")
    lines, count = csv.writer(text, lineterminator="\n"), 0
    lines.writerow(COLUMNS)
    for rows in blocks:
        lines.writerows(rows[COLUMNS].tolist())
        count += len(rows)
    text.detach()
    return count


def _write_parquet(part: IO[bytes], blocks: Iterator[Rows]) -> int:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise StoreError(
            "Parquet needs pyarrow: pip install 'piker-core[store]'"
        ) from None
    shape: Any = arrow.schema(
        [(name, arrow.from_numpy_dtype(OHLCV_DTYPE[name])) for name in COLUMNS]
    )
    count = 0
    with parquet.ParquetWriter(
        part, shape, compression="zstd", write_page_checksum=True
    ) as writer:
        for rows in blocks:
            arrays = [arrow.array(np.ascontiguousarray(rows[name])) for name in COLUMNS]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=shape))
            count += len(rows)
    return count
