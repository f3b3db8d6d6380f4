"""Reading files of the Parquet store: verified rows, and summaries from footers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from piker_core.errors import StoreError
from piker_core.store import parquet_files as files
from piker_core.store.parquet_folder import Folder
from piker_core.store.rows import END_S


def read_tables(
    folder: Folder,
    paths: list[Path],
    start_s: int = 0,
    end_s: int = END_S,
    columns: tuple[str, ...] = files.COLUMNS,
) -> list[Any]:
    """Tables of rows with start <= time < end of those files that are there."""
    tables = []
    for path in paths:
        with suppress(FileNotFoundError), _damage(path):
            content = path.read_bytes()
            _check_place(files.verify(content), folder, path)
            tables.append(files.decode(content, start_s, end_s, columns))
    return tables


def read_summary(folder: Folder, path: Path) -> files.Summary | None:
    """What a file holds, from its footer alone; None if it is not there."""
    with suppress(FileNotFoundError), _damage(path):
        summary = files.read_summary(_tail(path))
        _check_place(summary, folder, path)
        return summary
    return None


def _check_place(summary: files.Summary, folder: Folder, path: Path) -> None:
    """A file that was moved is not taken for another. Raises Damaged."""
    own = summary.market, summary.period, summary.partition
    if own != (folder.market, folder.period, path.stem):
        raise files.Damaged(f"is of {own[0]}, {own[1]} s, {own[2]}, not of this folder")


def _tail(path: Path) -> bytes:
    """The end of a file, its footer in it."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        tail = os.pread(file.fileno(), files.TAIL, max(0, size - files.TAIL))
        wanted = files.footer_size(tail)
        if len(tail) < wanted <= size:
            tail = os.pread(file.fileno(), wanted, size - wanted)
        return tail


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What is wrong with a file, as a StoreError that names it."""
    try:
        yield
    except files.Damaged as error:
        raise StoreError(
            f"{path} {error}; put a good copy in its place, or remove it and fetch its "
            "rows again"
        ) from None
