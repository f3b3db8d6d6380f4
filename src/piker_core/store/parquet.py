"""The store that is a folder of Parquet files, which any other tool reads, too."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from piker_core.dtypes import OHLCV_DTYPE
from piker_core.errors import StoreError
from piker_core.store import parquet_files as files
from piker_core.store.parquet_folder import (
    Folder,
    Partition,
    replace,
    stored_series,
    sync_folder,
)
from piker_core.store.protocol import Series
from piker_core.store.rows import (
    END_S,
    NS,
    checked_fqme,
    checked_period,
    checked_range,
    checked_rows,
    holes,
    joined,
    merged,
    numbered,
)

PREFIX = "parquet://"
Key = tuple[int, int, int]
"""Of a file that has not been replaced: inode, time of change, size."""


class ParquetStore:
    """Bars in a folder. See `Store` for what the calls do.

    Readers take no lock. Writers of one market wait for each other, threads and
    processes alike. The folder is made by the first write.
    """

    def __init__(self, url: str) -> None:
        path = Path(url.removeprefix(PREFIX))
        if not path.is_absolute():
            raise StoreError(
                f"{url!r} names no folder: write parquet:///path, three slashes"
            )
        _check_folder(path)
        self.root = path
        self._made: set[Path] = set()
        self._known: dict[Path, tuple[Key, files.Summary]] = {}
        self._lock = threading.Lock()
        self._open = True

    def write_ohlcv(self, fqme: str, period: int, rows: NDArray[np.void]) -> int:
        folder = self._folder(fqme, period)
        own = checked_rows(rows, checked_period(period))
        if not len(own):
            return 0
        with _trouble(folder.market_path, "written"), folder.locked():
            return sum(
                self._write(folder, fqme, period, partition, part)
                for partition, part in _parts(folder, own)
            )

    def _write(
        self,
        folder: Folder,
        fqme: str,
        period: int,
        partition: Partition,
        new: NDArray[np.void],
    ) -> int:
        """Merge rows into one file; how many are new or changed."""
        old = self._read(partition.path, fqme, period, 0, END_S)
        rows, changed = merged(old, new)
        if changed:
            folder.make(partition.path.parent)
            summary = files.summarize(rows, fqme, period, partition.name)
            replace(partition.path, files.encode(rows, summary))
        return changed

    def read_ohlcv(
        self,
        fqme: str,
        period: int,
        start_s: int | None = None,
        end_s: int | None = None,
    ) -> NDArray[np.void]:
        folder = self._folder(fqme, period)
        start, end = checked_range(start_s, end_s)
        with _trouble(folder.path, "read"):
            parts = [
                self._read(path, fqme, period, start, end)
                for path in folder.existing(start, end)
            ]
        return numbered(parts[0] if len(parts) == 1 else _together(parts))

    def _read(
        self,
        path: Path,
        fqme: str,
        period: int,
        start_s: int,
        end_s: int,
        columns: tuple[str, ...] = files.COLUMNS,
    ) -> NDArray[np.void]:
        """Rows of a file; none if it is not there."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return np.zeros(0, OHLCV_DTYPE)
        try:
            _check_place(files.verify(content), path, fqme, period)
            return files.decode(content, start_s, end_s, columns)
        except files.Damaged as error:
            raise StoreError(f"{path} {error}{MEND}") from None

    def series(self) -> list[Series]:
        with _trouble(self.root, "read"):
            found = [
                Series(
                    fqme=fqme,
                    period=period,
                    rows=sum(one.rows for one in summaries),
                    first_s=summaries[0].first_s,
                    last_s=summaries[-1].last_s,
                )
                for fqme, period in stored_series(self.root)
                if (summaries := self._summaries(fqme, period))
            ]
        return sorted(found)

    def gaps(self, fqme: str, period: int) -> NDArray[np.void]:
        folder = self._folder(fqme, period)
        starts, ends = [], []
        before: int | None = None
        with _trouble(folder.path, "read"):
            for path in folder.existing(0, END_S):
                summary = self._summary(path, fqme, period)
                if summary is None:
                    continue
                if before is not None and before + period < summary.first_s:
                    starts.append(np.array([before + period]))
                    ends.append(np.array([summary.first_s]))
                before = summary.last_s
                if summary.holes:
                    columns = ("time", "flags")
                    rows = self._read(path, fqme, period, 0, END_S, columns)
                    found = holes(rows, period)
                    starts.append(found["start_ns"] // NS)
                    ends.append(found["end_ns"] // NS)
        none = [np.zeros(0, np.int64)]
        return joined(np.concatenate(none + starts), np.concatenate(none + ends))

    def delete(
        self,
        fqme: str,
        period: int,
        start_s: int | None = None,
        end_s: int | None = None,
    ) -> int:
        folder = self._folder(fqme, period)
        start, end = checked_range(start_s, end_s)
        if not folder.existing(start, end):
            return 0
        with _trouble(folder.market_path, "written"), folder.locked():
            return sum(
                self._delete(path, fqme, period, start, end)
                for path in folder.existing(start, end)
            )

    def _delete(
        self, path: Path, fqme: str, period: int, start_s: int, end_s: int
    ) -> int:
        """Remove rows of one file; how many there were."""
        old = self._read(path, fqme, period, 0, END_S)
        inside = (old["time"] >= start_s) & (old["time"] < end_s)
        rows = old[~inside]
        if not len(rows):
            path.unlink(missing_ok=True)
            sync_folder(path.parent)
        elif inside.any():
            summary = files.summarize(rows, fqme, period, path.stem)
            replace(path, files.encode(rows, summary))
        return int(inside.sum())

    def close(self) -> None:
        self._open = False
        with self._lock:
            self._known.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _folder(self, fqme: str, period: int) -> Folder:
        if not self._open:
            raise StoreError(f"the store {PREFIX}{self.root} is closed: open it again")
        return Folder(self.root, checked_fqme(fqme), checked_period(period), self._made)

    def _summaries(self, fqme: str, period: int) -> list[files.Summary]:
        paths = self._folder(fqme, period).existing(0, END_S)
        found = (self._summary(path, fqme, period) for path in paths)
        return [summary for summary in found if summary is not None]

    def _summary(self, path: Path, fqme: str, period: int) -> files.Summary | None:
        """What a file holds, from its footer; None if it is not there."""
        try:
            status = path.stat()
            key = status.st_ino, status.st_mtime_ns, status.st_size
            known = self._known.get(path)
            if known is not None and known[0] == key:
                return known[1]
            tail = _tail(path)
        except FileNotFoundError:
            return None
        try:
            summary = files.read_summary(tail)
            _check_place(summary, path, fqme, period)
        except files.Damaged as error:
            raise StoreError(f"{path} {error}{MEND}") from None
        with self._lock:
            self._known[path] = key, summary
        return summary


MEND = "; put a good copy in its place, or remove it and fetch its rows again"


def _check_folder(path: Path) -> None:
    """A folder, or a place where one can be made."""
    try:
        for place in (path, *path.parents):
            if place.exists():
                break
        os.scandir(place).close()
    except OSError as error:
        raise StoreError(
            f"{path} is no folder of a store: {error.strerror or error}"
        ) from None


def _check_place(summary: files.Summary, path: Path, fqme: str, period: int) -> None:
    """A file that was moved is not taken for another."""
    own = summary.market, summary.period, summary.partition
    if own != (fqme, period, path.stem):
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


def _parts(
    folder: Folder, rows: NDArray[np.void]
) -> Iterator[tuple[Partition, NDArray[np.void]]]:
    """Rows by partition, oldest first."""
    while len(rows):
        partition = folder.partition(int(rows["time"][0]))
        count = int(np.searchsorted(rows["time"], partition.end_s))
        yield partition, rows[:count]
        rows = rows[count:]


def _together(parts: list[NDArray[np.void]]) -> NDArray[np.void]:
    return np.concatenate([np.zeros(0, OHLCV_DTYPE), *parts])


@contextmanager
def _trouble(path: Path, what: str) -> Iterator[None]:
    """What the system refuses, as a StoreError that names the file or folder."""
    try:
        yield
    except OSError as error:
        place = error.filename or path
        raise StoreError(
            f"{place} cannot be {what}: {error.strerror or error}"
        ) from error
