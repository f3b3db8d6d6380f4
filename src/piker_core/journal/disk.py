"""The segment that is written: blocks at its end, rotation, fsync. Waits for the disk.

A block is written at the place behind the last good one. If that fails, it is tried
again at the same place, so that nothing half-written is ever left before another block.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from piker_core.journal.folder import open_regular
from piker_core.journal.layout import (
    HEADER,
    NONE,
    RECORD,
    ROTATED,
    ZSTD,
    Block,
    Header,
    encode_block,
    encode_header,
    segment_name,
)
from piker_core.journal.recovery import Place, encode_end

DAY_NS = 86_400 * 10**9
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How segments are written; see `open_journal`.

    `fsync_s`: how long a block may wait for the disk, 0: it may not, None: for ever;
    `fsync_close`: a segment that is complete may not.
    """

    folder: Path
    segment_bytes: int
    fsync_close: bool
    fsync_s: float | None


class Written(msgspec.Struct):
    """What has reached the files."""

    segments: int = 0
    blocks: int = 0
    records: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0


class SegmentWriter:
    """Writes blocks behind each other, from segment to segment. For one thread.

    Every method may raise OSError and may then be called again.
    """

    def __init__(
        self, settings: Settings, place: Place, pack: Callable[[bytes], bytes] | None
    ) -> None:
        self.settings = settings
        self.written = Written()
        self.path = settings.folder / segment_name(place.segment)
        self._pack = pack
        self._journal = place.journal
        self._number, self._block = place.segment, place.block
        self._file = -1
        self._end = 0
        self._day: int | None = None
        """Latest UTC day of the segment's blocks; None: it has none."""
        self._complete = False
        self._encoded: tuple[list[bytes], Block, bytes] | None = None
        self._unsynced_s: float | None = None

    def open_segment(self) -> None:
        """Make the file of the segment, where it is not yet made."""
        if self._file >= 0:
            return
        self.path = self.settings.folder / segment_name(self._number)
        file = open_regular(self.path, NEW_FILE)
        header = Header(self._number, time.time_ns(), self._journal, self._block)
        try:
            _write(file, encode_header(header), 0)
            if self.settings.fsync_s is not None:
                self._sync_folder()
        except BaseException:
            os.close(file)
            with suppress(OSError):
                self.path.unlink()
            raise
        self._file, self._end, self._day = file, HEADER.size, None
        self.written.segments += 1

    def write(self, parts: list[bytes]) -> None:
        """Write the records of a block, in a new segment if the last one is full."""
        if self._encoded is None or self._encoded[0] is not parts:
            self._encoded = (parts, *self._pack_block(parts))
        _, block, payload = self._encoded
        day = block.first_ns // DAY_NS
        full = self._end + len(payload) > self.settings.segment_bytes
        later = self._day is not None and day > self._day
        if self._complete or later or (full and self._day is not None):
            self.end_segment(ROTATED)
        self.open_segment()
        block = msgspec.structs.replace(block, segment=self._number, number=self._block)
        self._append(encode_block(block, payload))
        self._encoded = None
        self._day = day if self._day is None else max(self._day, day)
        self._block += 1
        self._count(block)

    def sync(self) -> None:
        """Have the disk take what was written."""
        if self._file >= 0 and self._unsynced_s is not None:
            self._unsynced_s = time.monotonic()
            os.fdatasync(self._file)
            self._unsynced_s = None

    def sync_due_s(self) -> float | None:
        """How long until `sync` should be called; None: no need."""
        if self._unsynced_s is None or self.settings.fsync_s is None:
            return None
        due_s = self._unsynced_s + self.settings.fsync_s
        return max(due_s - time.monotonic(), 0.0)

    def end_segment(self, code: int) -> None:
        """Make the segment complete and close it."""
        if self._file < 0:
            return
        if not self._complete:
            self._append(encode_end(code, self._number, self._block))
            self._complete = True
        if self.settings.fsync_close:
            self.sync()
            self._sync_folder()
        self.close()
        self._complete = False
        self._number += 1

    def close(self) -> None:
        """Give the file back as it is."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _pack_block(self, parts: list[bytes]) -> tuple[Block, bytes]:
        raw = b"".join(parts)
        stored = self._pack(raw) if self._pack else raw
        code = ZSTD
        if len(stored) >= len(raw):
            code, stored = NONE, raw
        first_ns = RECORD.unpack_from(parts[0])[2]
        last_ns = RECORD.unpack_from(parts[-1])[2]
        sizes = (len(stored), len(raw), len(parts))
        return Block(False, code, *sizes, 0, 0, first_ns, last_ns, 0), stored

    def _append(self, raw: bytes) -> None:
        try:
            _write(self._file, raw, self._end)
        except OSError:
            with suppress(OSError):  # the next attempt writes over it anyway
                os.ftruncate(self._file, self._end)
            raise
        self._end += len(raw)
        if self._unsynced_s is None:
            self._unsynced_s = time.monotonic()

    def _count(self, block: Block) -> None:
        self.written.blocks += 1
        self.written.records += block.records
        self.written.raw_bytes += block.raw
        self.written.stored_bytes += block.stored

    def _sync_folder(self) -> None:
        folder = os.open(self.settings.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write(file: int, raw: bytes, offset: int) -> None:
    left = memoryview(raw)
    while left:
        count = os.pwrite(file, left, offset)
        left, offset = left[count:], offset + count
