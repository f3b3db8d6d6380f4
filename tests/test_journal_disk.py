"""A disk that is full, fails or is slow: told once, losses are on record."""

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piker_core.errors import JournalError
from piker_core.journal import (
    JournalWriter,
    Kind,
    Lost,
    Record,
    open_journal,
)
from piker_core.journal import queue as block_queue
from piker_core.journal.disk import Settings
from tests.commands import private_shm
from tests.journal_making import frame, frames, read, segments, write

SMALL: dict[str, Any] = {"block_bytes": 150, "compress": "none", "fsync": "never"}


class Disk:
    """Calls of the system that fail or wait when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error = 0
        """What `pwrite` fails with after half of its work; 0: nothing."""
        self.works = threading.Event()
        self.works.set()
        self._pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", self.pwrite)
        monkeypatch.setattr(block_queue, "RETRY_S", 3600.0)

    def pwrite(self, file: int, raw: bytes, offset: int) -> int:
        self.works.wait()
        if not self.error:
            return self._pwrite(file, raw, offset)
        self._pwrite(file, raw[: len(raw) // 2], offset)
        raise OSError(self.error, os.strerror(self.error))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def put(journal: JournalWriter, records: list[Record]) -> None:
    for each in records:
        journal.append(each.kind, each.time_ns, each.body, each.source)


def put_until_told(journal: JournalWriter, start: int) -> tuple[str, int]:
    """Append until it raises: what it says, and the number of the next record."""
    for number in range(start, start + 1_000_000):
        try:
            put(journal, [frame(number)])
        except JournalError as error:
            return str(error), number + 1
    raise AssertionError("nothing was told")


def test_a_full_disk_is_told_once_and_nothing_is_lost_when_there_is_room_again(
    disk: Disk, tmp_path: Path
) -> None:
    with open_journal(tmp_path, **SMALL) as journal:
        put(journal, frames(9))
        journal.flush(wait=True)
        path = segments(tmp_path)[0]
        size = path.stat().st_size
        disk.error = errno.ENOSPC
        told, number = put_until_told(journal, 9)
        assert str(path) in told and "No space left" in told
        put(journal, frames(5, start=number))  # not told again
        journal.flush()
        with pytest.raises(JournalError, match="still cannot be written"):
            journal.flush(wait=True)
        assert path.stat().st_size == size, "half a block was left"
        disk.error = 0
        journal.flush(wait=True)
        disk.error = errno.EIO
        told, number = put_until_told(journal, number + 5)
        assert "Input/output error" in told
        disk.error = 0
    assert journal.lost == 0
    assert read(tmp_path) == (frames(number), None)


def test_the_next_record_tells_even_if_its_block_is_not_full(
    disk: Disk, tmp_path: Path
) -> None:
    with open_journal(tmp_path, fsync="never", block_s=1e4) as journal:
        put(journal, frames(1))
        disk.error = errno.ENOSPC
        journal.flush()
        told, number = put_until_told(journal, 1)
        assert "No space left" in told and journal.statistics().written.blocks == 0
        disk.error = 0
    assert read(tmp_path) == (frames(number), None)


def lost_and_found(folder: Path) -> tuple[list[int], list[Lost]]:
    """Numbers of the records, and what the journal says is missing between them."""
    found, cut = read(folder)
    assert cut is None
    numbers: list[int] = []
    losses = []
    for each in found:
        if each.kind == Kind.LOST:
            lost = msgspec.json.decode(each.body, type=Lost)
            losses.append(lost)
            assert lost.first_ns == frame(len(numbers)).time_ns
            numbers += [-1] * (lost.records or 0)
            assert lost.last_ns == frame(len(numbers) - 1).time_ns
        else:
            numbers.append(json.loads(each.body)["number"])
    return numbers, losses


def test_what_has_no_room_to_wait_is_counted_and_the_journal_says_so(
    disk: Disk, tmp_path: Path
) -> None:
    with open_journal(tmp_path, queue_bytes=2000, **SMALL) as journal:
        disk.works.clear()
        told, number = put_until_told(journal, 0)
        assert "does not keep up" in told
        put(journal, frames(50, start=number))
        assert journal.lost > 40
        disk.works.set()
        journal.flush(wait=True)
        for each in frames(50, start=number + 50):
            put(journal, [each])
            journal.wait_room()
        lost = journal.lost
    numbers, losses = lost_and_found(tmp_path)
    assert len(numbers) == number + 100 and numbers.count(-1) == lost
    assert [n for n in numbers if n >= 0] == [
        n for n, m in enumerate(numbers) if m >= 0
    ]
    assert [each.cause for each in losses] == ["the disk does not keep up"]


class OneByOne:
    """Stands in for a `SegmentWriter`: writes a block for each that it is let."""

    path = Path("journal")
    settings = Settings(folder=path, segment_bytes=1, fsync_close=False, fsync_s=None)

    def __init__(self) -> None:
        self.let = threading.Semaphore(0)
        self.blocks: list[list[bytes]] = []

    def write(self, parts: list[bytes]) -> None:
        self.let.acquire()
        self.blocks.append(parts)

    def sync_due_s(self) -> None:
        return None

    def end_segment(self, code: int) -> None: ...

    def close(self) -> None: ...


def test_a_queue_that_was_full_takes_nothing_until_half_of_it_is_free() -> None:
    writer = OneByOne()
    queue = block_queue.BlockQueue(writer, 100)  # type: ignore[arg-type]
    parts = [[b"%d" % number] for number in range(9)]
    assert all(queue.put(each, 20) for each in parts[:5])
    assert not queue.put(parts[5], 20)
    assert "100 bytes wait" in str(queue.take_error())
    writer.let.release()
    queue.wait(80)
    assert not queue.put(parts[6], 20) and queue.error is None
    writer.let.release(2)
    queue.wait(40)
    assert queue.put(parts[7], 10)
    writer.let.release(9)
    assert queue.close() == 0
    assert writer.blocks == [*parts[:5], parts[7]]


def test_what_is_lost_to_a_full_disk_is_said_even_if_nothing_follows(
    disk: Disk, tmp_path: Path
) -> None:
    with open_journal(tmp_path, queue_bytes=1000, **SMALL) as journal:
        disk.error = errno.ENOSPC
        put(journal, frames(1))
        with pytest.raises(JournalError, match="No space left"):
            journal.flush(wait=True)
        put(journal, frames(60, start=1))
        assert journal.lost
        disk.error = 0
    numbers, losses = lost_and_found(tmp_path)
    assert len(numbers) == 61 and numbers[-1] == -1
    assert {each.cause for each in losses} == {"No space left on device"}


def test_a_journal_that_is_closed_on_a_full_disk_says_what_is_missing(
    disk: Disk, tmp_path: Path
) -> None:
    threads = threading.active_count()
    with open_journal(tmp_path, **SMALL | {"block_bytes": 1000}) as journal:
        put(journal, frames(6))
        journal.flush(wait=True)
        disk.error = errno.ENOSPC
        put(journal, frames(4, start=6))
        with pytest.raises(JournalError, match=r"No space left.*; 4 records were not"):
            journal.close()
    assert threading.active_count() == threads
    found, cut = read(tmp_path)
    assert found == frames(6) and cut is not None
    disk.error = 0
    write(tmp_path, frames(4, start=6))
    found, cut = read(tmp_path)
    assert [x for x in found if x.kind != Kind.LOST] == frames(10) and cut is None


def test_a_folder_that_cannot_be_written_is_refused_at_once(
    disk: Disk, tmp_path: Path
) -> None:
    disk.error = errno.ENOSPC
    with pytest.raises(JournalError, match="No space left"):
        write(tmp_path, [])
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be made"):
        write(tmp_path / "file" / "journal", [])


def test_a_disk_that_does_not_sync_is_told_and_no_record_is_written_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fails = threading.Event()
    fdatasync = os.fdatasync

    def sync(file: int) -> None:
        if fails.is_set():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fdatasync(file)

    monkeypatch.setattr(os, "fdatasync", sync)
    with open_journal(tmp_path, **SMALL | {"fsync": "block"}) as journal:
        put(journal, frames(10))
        journal.flush(wait=True)
        fails.set()
        put(journal, frames(1, start=10))
        with pytest.raises(JournalError, match="Input/output"):
            journal.flush(wait=True)
        fails.clear()
        put(journal, frames(5, start=11))
    assert read(tmp_path) == (frames(16), None)


@contextmanager
def failing_calls(failures: list[bool]) -> Iterator[None]:
    """Calls of the system fail as these say, then no more."""
    left = iter(failures)

    def failing(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread() is threading.main_thread() or not next(
                left, False
            ):
                return call(*arguments, **options)
            if call is pwrite:
                file, raw, offset = arguments
                pwrite(file, raw[: len(raw) // 2], offset)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        return run

    pwrite = os.pwrite
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_queue, "RETRY_S", 0.0001)
        for name in ("open", "pwrite", "ftruncate", "fdatasync", "fsync"):
            patch.setattr(os, name, failing(getattr(os, name)))
        yield


@settings(max_examples=60, deadline=None)
@given(
    failures=st.lists(st.booleans(), max_size=60),
    fsync=st.sampled_from(["never", "close", "block"]),
)
def test_whatever_fails_no_record_is_lost_twice_or_out_of_order(
    failures: list[bool], fsync: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    options = SMALL | {"fsync": fsync, "segment_bytes": 700}
    with open_journal(folder, **options) as journal:
        with failing_calls(failures):
            for each in frames(60):
                with suppress(JournalError):
                    put(journal, [each])
            while True:
                try:
                    journal.flush(wait=True)
                    break
                except JournalError:
                    continue
    assert read(folder) == (frames(60), None)
    assert len(segments(folder)) > 3


FILL = """
import os, sys
from piker_core.errors import JournalError
from piker_core.journal import open_journal, read_journal
folder = sys.argv[1]
filler = os.path.join(folder, "filler")
with open(filler, "wb") as file:
    file.write(bytes(600_000))
number, told = 0, []
with open_journal(os.path.join(folder, "journal"), block_bytes=10_000,
                  segment_bytes=150_000, compress="none") as journal:
    while not told:
        try:
            journal.append(4, number, b"%1000d" % number)
            if number % 20 == 0:
                journal.flush(wait=True)
        except JournalError as error:
            told.append(str(error))
        number += 1
    for _ in range(100):
        journal.append(4, number, b"%1000d" % number)
        number += 1
    os.unlink(filler)
    journal.flush(wait=True)
    journal.append(4, number, b"%1000d" % number)
with read_journal(os.path.join(folder, "journal")) as reader:
    found = [int(each.body) for each in reader]
assert reader.cut is None and found == list(range(number + 1)), (len(found), number)
assert len(told) == 1 and "No space left" in told[0], told
assert number > 300, number
"""


def test_a_file_system_that_is_full_for_a_while_loses_nothing(tmp_path: Path) -> None:
    words = private_shm(f"-o size=1m tmpfs {tmp_path}")
    done = subprocess.run(
        [*words, sys.executable, "-c", FILL, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
