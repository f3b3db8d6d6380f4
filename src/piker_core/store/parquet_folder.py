"""Where the files of the Parquet store are, and how they are replaced.

    <root>/provider=kraken/market=xbtusd.kraken/period=60/year=2024/2024-01.parquet

A file of bars shorter than a minute is of a day (2024-01-31.parquet), others of a
month. A file is replaced by renaming a whole one that is on disk, so it is old or new
at any moment; a market's folder is locked meanwhile, which needs no file.
"""

import fcntl
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from piker_core.errors import StoreError
from piker_core.store.rows import LONGEST_NAME, LONGEST_PERIOD

WAIT_S = 30.0
"""How long a writer waits for another one of the same market."""
LOOK_AGAIN_S = 0.003
TEMPORARY = ".piker-core.tmp"
"""One a folder: under the market's lock only one is written at a time."""
PROVIDER = re.compile(r"provider=[a-z0-9_-]+")
MARKET = re.compile(r"market=(?:[a-z0-9_-]+\.)+[a-z0-9_-]+")
PERIOD = re.compile(r"period=[1-9][0-9]{0,7}")
YEAR = re.compile(r"year=[0-9]{4}")
PARTITION = re.compile(r"[0-9]{4}-[0-9]{2}(-[0-9]{2})?\.parquet")


class Partition(NamedTuple):
    """A file of a series, and the range of times that belongs into it."""

    name: str
    start_s: int
    end_s: int
    path: Path


class Folder:
    """The folder of one series, market and period, whether or not it exists."""

    def __init__(self, root: Path, market: str, period: int, made: set[Path]) -> None:
        provider = market.rpartition(".")[2]
        self.root = root
        self.market = market
        self.period = period
        self._made = made
        self.market_path = root / f"provider={provider}" / f"market={market}"
        self.path = self.market_path / f"period={period}"
        self.by_day = period < 60

    def partition(self, time_s: int) -> Partition:
        """The partition that a time belongs into."""
        moment = datetime.fromtimestamp(time_s, UTC)
        if self.by_day:
            start = time_s - time_s % 86_400
            return self._partition(f"{moment:%Y-%m-%d}", start, start + 86_400)
        first = datetime(moment.year, moment.month, 1, tzinfo=UTC)
        later = moment.year + moment.month // 12, moment.month % 12 + 1
        end = datetime(*later, 1, tzinfo=UTC)
        start_s, end_s = int(first.timestamp()), int(end.timestamp())
        return self._partition(f"{moment:%Y-%m}", start_s, end_s)

    def _partition(self, name: str, start_s: int, end_s: int) -> Partition:
        path = self.path / f"year={name[:4]}" / f"{name}.parquet"
        return Partition(name, start_s, end_s, path)

    def existing(self, start_s: int, end_s: int) -> list[Path]:
        """Files that may have rows with start <= time < end, oldest first."""
        if start_s >= end_s:
            return []
        oldest = self.partition(start_s).path.name
        newest = self.partition(end_s - 1).path.name
        return [
            self.path / year / name
            for year in _names(self.path, YEAR)
            if oldest[:4] <= year[5:] <= newest[:4]
            for name in _names(self.path / year, PARTITION)
            if len(name) == len(oldest) and oldest <= name <= newest
        ]

    def make(self, path: Path) -> None:
        """Make a folder of the store, on disk when this returns."""
        if path in self._made and path.is_dir():
            return
        inside = self.root in path.parents
        if inside or not path.parent.is_dir():
            self.make(path.parent)
        path.mkdir(exist_ok=True)
        with nullcontext() if inside else suppress(PermissionError):
            sync_folder(path.parent)
        self._made.add(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone in writing this market, of all threads and processes.

        Raises StoreError if another one writes for longer than `WAIT_S`.
        """
        self.make(self.market_path)
        with _locked(self.market_path, WAIT_S):
            yield


def replace(path: Path, content: bytes) -> None:
    """Put a whole file in place of what is there, on disk when this returns."""
    temporary = path.with_name(TEMPORARY)
    try:
        _write(temporary, content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _write(path: Path, content: bytes) -> None:
    """Make a file, on disk when this returns."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(path, flags, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(path: Path) -> None:
    """Have the names in a folder on disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sweep(root: Path) -> None:
    """Remove what writers of any market have left that died.

    A market that is being written is cleaned by who writes it.
    """
    folders = {left.parents[2] for left in root.glob(f"{'*/' * 4}{TEMPORARY}")}
    for folder in folders:
        if MARKET.fullmatch(folder.name):
            with suppress(StoreError, OSError), _locked(folder, 0):
                pass


@contextmanager
def _locked(market: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock of a market's folder, in which nothing temporary is left then.

    The lock is of the open folder, so it ends with the process.
    """
    folder = os.open(market, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(folder, market, wait_s)
        try:
            for left in market.glob(f"*/*/{TEMPORARY}"):
                left.unlink(missing_ok=True)
            yield
        finally:  # a process that was forked meanwhile has the folder open, too
            fcntl.flock(folder, fcntl.LOCK_UN)
    finally:
        os.close(folder)


def _lock(folder: int, path: Path, wait_s: float) -> None:
    """Take a lock. No system call waits for one and gives up after a time."""
    pause, end = threading.Event(), time.monotonic() + wait_s
    while True:
        try:
            return fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise StoreError(
                    f"{path} is being written by another process, for {wait_s:.0f} s "
                    "by now: end that one (`fuser -v` shows it), or try again later"
                ) from None
        pause.wait(LOOK_AGAIN_S)


def stored_series(root: Path) -> list[tuple[str, int]]:
    """Markets and periods that have a folder."""
    return [
        (market[7:], int(period[7:]))
        for provider in _names(root, PROVIDER)
        for market in _names(root / provider, MARKET)
        if market.endswith(f".{provider[9:]}")
        if len(market[7:]) <= LONGEST_NAME
        for period in _names(root / provider / market, PERIOD)
        if int(period[7:]) <= LONGEST_PERIOD
    ]


def _names(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    """Sorted names in a folder, which need not be there, that are of ours."""
    with suppress(FileNotFoundError, NotADirectoryError):
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
        return sorted(filter(pattern.fullmatch, names))
    return []
