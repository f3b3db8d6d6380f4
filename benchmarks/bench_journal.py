"""What a journal costs: a frame appended and read again, and what it takes on disk.

The frames are those of a recorded session of Binance (trades, best quotes, depth); the
reference is gzip of the same lines, as recorders commonly write them.
"""

import gzip
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.common import Case, Figure, Options, Row, main, measure, pin
from piker_core.journal import JournalWriter, Kind, Record, open_journal, read_journal

CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "captures"
DAYS = ("20240808", "20240809")
QUICK = 10_000
MOST_ROUNDS = 15
ROOMY = 1 << 30
"""Of the queue to the disk: all frames, so that nothing waits and nothing is lost."""
LEVELS = (("zstd", 1), ("zstd", 3), ("none", 1))
GZIP_LEVELS = (1, 6)


def load_frames(folder: Path, most: int) -> list[Record]:
    """Frames with their receive times, in their order."""
    records: list[Record] = []
    for day in DAYS:
        with gzip.open(folder / f"spot_btcusdt_{day}.gz") as file:
            for line in file:
                stamp, _, body = line.rstrip().partition(b" ")
                records.append(Record(int(Kind.RECEIVED), int(stamp), 1, body))
                if len(records) == most:
                    return records
    return records


def label(compress: str, level: int) -> str:
    """What a case is called."""
    return f"journal, {compress} {level}" if compress == "zstd" else "journal, plain"


class Bench:
    """The same frames, in journals and in files of gzip."""

    def __init__(self, folder: Path, records: list[Record], open_ones: ExitStack):
        self.folder = folder
        self.records = records
        self.open_ones = open_ones
        self._numbers = itertools.count()
        raw = sum(len(each.body) for each in records)
        self.frames = f"{len(records):,} frames of {raw / len(records):.0f} bytes"

    def cases(self, *, whole: bool) -> Iterator[Case]:
        """Write all frames; `whole` until they are in the file."""
        for compress, level in LEVELS:
            yield Case(
                label(compress, level),
                partial(self.append_all, whole=whole),
                len(self.records),
                partial(self.new_journal, compress, level),
            )
        for level in GZIP_LEVELS:
            yield Case(
                f"gzip -{level}",
                partial(self.pack, level=level),
                len(self.records),
                partial(self.folder.joinpath, "packed"),
            )

    def new_journal(self, compress: str, level: int) -> JournalWriter:
        """One in a folder of its own; the last one is closed before."""
        self.open_ones.close()
        folder = self.folder / str(next(self._numbers))
        return self.open_ones.enter_context(
            open_journal(
                folder, compress=compress, level=level, queue_bytes=ROOMY, fsync="never"
            )
        )

    def append_all(self, journal: JournalWriter, *, whole: bool) -> None:
        append = journal.append
        for each in self.records:
            append(each.kind, each.time_ns, each.body, each.source)
        if whole:
            journal.flush(wait=True)

    def pack(self, path: Path, *, level: int) -> None:
        with gzip.open(path, "wb", level) as file:
            write = file.write
            for each in self.records:
                write(b"%d %s\n" % (each.time_ns, each.body))

    def written(self, compress: str, level: int) -> Path:
        """A journal that is closed."""
        journal = self.new_journal(compress, level)
        self.append_all(journal, whole=True)
        journal.close()
        return journal.folder

    def packed(self, level: int) -> Path:
        """A file of gzip."""
        path = self.folder / f"packed{level}"
        self.pack(path, level=level)
        return path


def read_all(folder: Path) -> None:
    """Every record."""
    with read_journal(folder) as reader:
        for _ in reader:
            pass


def read_lines(path: Path) -> None:
    """Every line, its time and its frame."""
    with gzip.open(path) as file:
        for line in file:
            stamp, _, body = line.rstrip().partition(b" ")
            Record(int(Kind.RECEIVED), int(stamp), 1, body)


def read_cases(bench: Bench) -> Iterator[Case]:
    count = len(bench.records)
    for each in LEVELS:
        folder = bench.written(*each)
        yield Case(label(*each), read_all, count, partial(Path, folder))
    path = bench.packed(6)
    yield Case("gzip, split into lines", read_lines, count, partial(Path, path))


def sizes(bench: Bench) -> Iterator[Figure]:
    count = len(bench.records)
    for each in LEVELS:
        size = sum(path.stat().st_size for path in bench.written(*each).iterdir())
        yield Figure(label(*each), size / count, size / count, "B")
    for level in GZIP_LEVELS:
        size = bench.packed(level).stat().st_size
        yield Figure(f"gzip -{level}", size / count, size / count, "B")


def rows(options: Options) -> Iterator[Row]:
    folder = Path(os.environ.get("PIKER_CAPTURES") or CAPTURES) / "binance"
    if not folder.is_dir():
        yield Row("a journal", note=f"no recordings in {folder}: set PIKER_CAPTURES")
        return
    records = load_frames(folder, QUICK if options.quick else -1)
    options = Options(options.quick, rounds=min(options.rounds, MOST_ROUNDS))
    with tempfile.TemporaryDirectory() as name, ExitStack() as open_ones:
        bench = Bench(Path(name), records, open_ones)
        note = "a journal packs and writes in a thread of its own, gzip in the caller's"
        appended = list(bench.cases(whole=False))
        yield measure(f"append, {bench.frames}", appended, options, note=note)
        pin()
        whole = list(bench.cases(whole=True))
        yield measure("append, all in the file, on one core", whole, options)
        yield measure("read", list(read_cases(bench)), options)
        yield Row("on disk, a frame", list(sizes(bench)))


if __name__ == "__main__":
    main("Journals beside gzip", rows)
