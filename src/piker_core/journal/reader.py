"""Reading a journal: its records in order, never past what is whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import msgspec

from piker_core.errors import JournalError
from piker_core.journal.folder import has_writer, list_segments
from piker_core.journal.layout import (
    ROTATED,
    Block,
    Header,
    Malformed,
    OtherVersion,
    segment_name,
)
from piker_core.journal.records import KNOWN, Record, decode_records
from piker_core.journal.segment import Fault, SegmentReader


class Cut(msgspec.Struct, frozen=True):
    """Where a journal ends though it should not.

    `file`: path of the segment; `cut_at`: bytes of it that are whole; `later`: segments
    after it, which were not read.
    """

    file: str
    cut_at: int
    reason: str
    later: tuple[str, ...] = ()


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader has read: `unknown` records are of kinds it does not know."""

    segments: int
    blocks: int
    records: int
    unknown: int
    raw_bytes: int
    stored_bytes: int


class JournalReader:
    """Records of a journal, one after the other; made by `read_journal`.

    Iteration ends at the last whole block. If a writer is at work there, `writing` is
    True and a later iteration goes on with what has been written since; if there is
    none and the journal has no end, or is damaged, `cut` says where and why. For one
    thread.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cut: Cut | None = None
        self.writing = False
        self._segment: SegmentReader | None = None
        self._number = 0
        self._journal = b""
        self._next_block = 0
        self._records: Iterator[Record] = iter(())
        self._counts = dict.fromkeys(Statistics.__struct_fields__, 0)

    def __iter__(self) -> Iterator[Record]:
        while True:
            yield from self._records
            if self.cut is not None or not self._read_block():
                return

    def statistics(self) -> Statistics:
        """Counts of what was read so far."""
        return Statistics(**self._counts)

    def close(self) -> None:
        """Give its file back; more than once does nothing."""
        if self._segment is not None:
            self._segment.close()
        self._segment = None

    def _read_block(self) -> bool:
        """Read on to the next block; False if there is none."""
        # Asked first: what is not there afterwards did not come from this writer.
        self.writing = has_writer(self.folder)
        while True:
            if self._segment is None and not self._open_segment():
                return False
            assert self._segment is not None
            found = self._segment.read_block()
            if isinstance(found, tuple):
                return self._take(*found)
            if found is not None:
                return self._stop(found)
            if self._segment.end is None:
                return self._stop(
                    Fault(
                        "it has no end: its writer was killed, or the file was cut "
                        "between two blocks",
                        torn=True,
                    )
                )
            if not self._go_on():
                return False

    def _take(self, block: Block, raw: bytes) -> bool:
        """Make a block's records the next ones; cuts the journal before a bad one."""
        assert self._segment is not None
        try:
            found = decode_records(raw, block.records)
        except Malformed as error:
            return self._stop(Fault(str(error), torn=False))
        known = [record for record in found if record.kind in KNOWN]
        self._records = iter(known)
        self._segment.accept(block)
        counts = self._counts
        counts["blocks"] += 1
        counts["records"] += len(known)
        counts["unknown"] += len(found) - len(known)
        counts["stored_bytes"] += block.stored
        counts["raw_bytes"] += block.raw
        return True

    def _open_segment(self) -> bool:
        """Open the next segment; False if it is not there, or none to be read."""
        segments = list_segments(self.folder)
        path = self.folder / segment_name(self._number)
        if self._number not in segments:
            if self.writing and not any(n > self._number for n in segments):
                return False
            self._end(path, 0, f"segment {self._number} is missing", segments)
            return False
        segment = SegmentReader(path)
        try:
            found = self._checked_header(segment)
        except BaseException:
            segment.close()
            raise
        if isinstance(found, Fault):
            segment.close()
            if not (found.torn and self.writing):
                self._end(path, 0, found.reason, segments)
            return False
        self._segment = segment
        self._journal = found.journal
        self._counts["segments"] += 1
        return True

    def _checked_header(self, segment: SegmentReader) -> Header | Fault:
        """The header of the segment that comes next, of this very journal."""
        try:
            found = segment.read_header()
        except OtherVersion as error:
            raise JournalError(f"{segment.path} is of {error}") from None
        if isinstance(found, Fault):
            return found
        if found.number != self._number:
            return Fault(f"it is segment {found.number} by its header", torn=False)
        if self._journal not in (b"", found.journal):
            return Fault("it is a segment of another journal", torn=False)
        if found.first_block != self._next_block:
            return Fault(
                f"it begins with block {found.first_block}, not {self._next_block}",
                torn=False,
            )
        return found

    def _go_on(self) -> bool:
        """Leave a complete segment; False if it was the last."""
        assert self._segment is not None and self._segment.end is not None
        segments = list_segments(self.folder)
        following = any(number > self._number for number in segments)
        rotated = self._segment.end.code == ROTATED
        if not following and (self.writing or not rotated):
            return False
        if self._number + 1 not in segments:
            text = f"segment {self._number + 1} after it is missing"
            self._end(self._segment.path, self._segment.offset, text, segments)
            return False
        self._next_block = self._segment.next_block
        self._number += 1
        self.close()
        return True

    def _stop(self, fault: Fault) -> bool:
        """End where a fault is, unless it is what a living writer is at."""
        assert self._segment is not None
        segments = list_segments(self.folder)
        last = not any(number > self._number for number in segments)
        if fault.torn and self.writing and last:
            return False
        self._end(self._segment.path, self._segment.offset, fault.reason, segments)
        return False

    def _end(
        self, path: Path, offset: int, reason: str, segments: dict[int, Path]
    ) -> None:
        later = tuple(str(p) for n, p in segments.items() if n > self._number)
        self.cut = Cut(str(path), offset, reason, later)


@contextmanager
def read_journal(folder: str | PathLike[str]) -> Iterator[JournalReader]:
    """Read the journal in a folder, also while it is written.

    Yields a `JournalReader`. Raises JournalError if there is no journal there, if it is
    of another layout version, or cannot be read. Needs no event loop.
    """
    path = Path(folder)
    if not list_segments(path) and not has_writer(path):
        raise JournalError(
            f"{path} holds no journal: piker-core record FQME... --out {path} makes one"
        )
    reader = JournalReader(path)
    try:
        yield reader
    finally:
        reader.close()
