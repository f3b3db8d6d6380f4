"""The store that is a folder of Parquet files, which any other tool reads, too."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from piker_core.errors import StoreError
from piker_core.store import parquet_files as files
from piker_core.store.parquet_folder import (
    Folder,
    Partition,
    replace,
    stored_series,
    sweep,
    sync_folder,
)
from piker_core.store.parquet_reading import read_summary, read_tables
from piker_core.store.protocol import Series
from piker_core.store.rows import (
    END_S,
    HOLE_DTYPE,
    NS,
    checked_fqme,
    checked_period,
    checked_range,
    checked_rows,
    holes,
    joined,
    merged,
)

PREFIX = "parquet://"
log = logging.getLogger("piker_core.store")


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
        self._said: set[Path] = set()
        self._lock = threading.Lock()
        self._open = True
        self._swept = False

    def write_ohlcv(self, fqme: str, period: int, rows: NDArray[np.void]) -> int:
        folder = self._folder(fqme, period)
        own = checked_rows(rows, folder.period)
        if not len(own):
            return 0
        with self._writing(folder):
            return sum(
                self._write(folder, partition, part)
                for partition, part in _parts(folder, own)
            )

    def _write(
        self, folder: Folder, partition: Partition, new: NDArray[np.void]
    ) -> int:
        """Merge rows into one file; how many are new or changed."""
        old = files.gather(read_tables(folder, [partition.path]))
        rows, changed = merged(old, new)
        if changed:
            folder.make(partition.path.parent)
            _replace(folder, partition.path, rows)
        else:  # whoever wrote them may have died before the file's name was on disk
            sync_folder(partition.path.parent)
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
            return files.gather(
                read_tables(folder, folder.existing(start, end), start, end)
            )

    def series(self) -> list[Series]:
        self._check_open()
        with _trouble(self.root, "read"):
            found = [self._one_series(*names) for names in stored_series(self.root)]
        return sorted(one for one in found if one is not None)

    def _one_series(self, fqme: str, period: int) -> Series | None:
        """What there is of a series; files without a footer are passed over."""
        folder = self._folder(fqme, period)
        summaries = []
        for path in folder.existing(0, END_S):
            try:
                summary = read_summary(folder, path)
            except StoreError as error:
                self._warn(path, error)
                continue
            if summary is not None:
                summaries.append(summary)
        if not summaries:
            return None
        return Series(
            fqme=fqme,
            period=period,
            rows=sum(one.rows for one in summaries),
            first_s=summaries[0].first_s,
            last_s=summaries[-1].last_s,
        )

    def gaps(self, fqme: str, period: int) -> NDArray[np.void]:
        folder = self._folder(fqme, period)
        starts, ends = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        before: int | None = None
        with _trouble(folder.path, "read"):
            for path in folder.existing(0, END_S):
                span, found = self._holes(folder, path)
                if not span:
                    continue
                if before is not None and before + folder.period < span[0]:
                    starts.append(np.array([before + folder.period]))
                    ends.append(np.array([span[0]]))
                before = span[1]
                starts.append(found["start_ns"] // NS)
                ends.append(found["end_ns"] // NS)
        return joined(np.concatenate(starts), np.concatenate(ends))

    def _holes(
        self, folder: Folder, path: Path
    ) -> tuple[tuple[int, int] | None, NDArray[np.void]]:
        """First and last time of a file, if it has any rows, and the holes in it."""
        none = np.zeros(0, HOLE_DTYPE)
        summary = read_summary(folder, path)
        if summary is None:
            return None, none
        if not summary.holes:
            return (summary.first_s, summary.last_s), none
        rows = files.gather(read_tables(folder, [path], columns=("time", "flags")))
        if not len(rows):
            return None, none
        span = int(rows["time"][0]), int(rows["time"][-1])
        return span, holes(rows, folder.period)

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
        with self._writing(folder):
            return sum(
                self._delete(folder, path, start, end)
                for path in folder.existing(start, end)
            )

    def _delete(self, folder: Folder, path: Path, start_s: int, end_s: int) -> int:
        """Remove rows of one file; how many there were."""
        old = files.gather(read_tables(folder, [path]))
        inside = (old["time"] >= start_s) & (old["time"] < end_s)
        if inside.all():
            path.unlink(missing_ok=True)
            sync_folder(path.parent)
        elif inside.any():
            _replace(folder, path, old[~inside])
        return int(inside.sum())

    def close(self) -> None:
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"the store {PREFIX}{self.root} is closed: open it again")

    def _folder(self, fqme: str, period: int) -> Folder:
        self._check_open()
        seconds = checked_period(period)
        return Folder(self.root, checked_fqme(fqme), seconds, self._made)

    @contextmanager
    def _writing(self, folder: Folder) -> Iterator[None]:
        """Alone in writing a market; the first time, others' remains are removed."""
        with _trouble(folder.market_path, "written"):
            with self._lock:
                swept, self._swept = self._swept, True
            if not swept:
                sweep(self.root)
            with folder.locked():
                yield

    def _warn(self, path: Path, error: StoreError) -> None:
        """Log a file's trouble the first time."""
        with self._lock:
            said = path in self._said
            self._said.add(path)
        if not said:
            log.warning("not counted: %s", error)


def _replace(folder: Folder, path: Path, rows: NDArray[np.void]) -> None:
    """Put rows in place of what a file has."""
    summary = files.summarize(rows, folder.market, folder.period, path.stem)
    replace(path, files.encode(rows, summary))


def _check_folder(path: Path) -> None:
    """A folder, or a place where one can be made."""
    with _trouble(path, "opened"):
        found = next(place for place in (path, *path.parents) if place.exists())
        if not found.is_dir():
            raise StoreError(f"{path} is no folder of a store: {found} is a file")


def _parts(
    folder: Folder, rows: NDArray[np.void]
) -> Iterator[tuple[Partition, NDArray[np.void]]]:
    """Rows by partition, oldest first."""
    while len(rows):
        partition = folder.partition(int(rows["time"][0]))
        count = int(np.searchsorted(rows["time"], partition.end_s))
        yield partition, rows[:count]
        rows = rows[count:]


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
