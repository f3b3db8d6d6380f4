"""One segment, read block by block as far as it is whole."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from piker_core.errors import JournalError
from piker_core.journal.folder import open_regular
from piker_core.journal.layout import (
    BLOCK,
    HEADER,
    ZSTD,
    Block,
    Header,
    Malformed,
    checked_crc,
    decode_block,
    decode_header,
)
from piker_core.journal.packing import unpack


class Fault(msgspec.Struct, frozen=True):
    """Why a segment is read no further than its last good block.

    `torn`: more bytes could make it whole, or a rewrite of its last ones, so that with
    a living writer it is no damage.
    """

    reason: str
    torn: bool


class SegmentReader:
    """A segment file, from its header to its last good block.

    `offset` is the end of what was read and found good; `end` the end of a complete
    segment, once it was read. Raises JournalError if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = open_regular(path)
        except OSError as error:
            raise JournalError(f"{path} cannot be read: {error.strerror}") from None
        self.offset = 0
        self.header: Header | None = None
        self.end: Block | None = None
        self.next_block = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back; more than once does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read_header(self) -> Header | Fault:
        """The header, or why it is none. Raises OtherVersion, and JournalError."""
        raw = self._read(HEADER.size, 0)
        try:
            self.header = decode_header(raw)
        except Malformed as error:
            if type(error) is not Malformed:
                raise
            return Fault(str(error), torn=len(raw) < HEADER.size)
        self.offset = HEADER.size
        self.next_block = self.header.first_block
        return self.header

    def read_block(self) -> tuple[Block, bytes] | Fault | None:
        """The next block and its raw payload; None at the end of all there is.

        The same again until it is accepted. At the end of a complete segment `end` is
        set. Raises JournalError.
        """
        found = self.read_stored()
        if not isinstance(found, tuple):
            return found
        block, stored = found
        try:
            raw = unpack(stored, block.raw) if block.code == ZSTD else stored
        except Malformed as error:
            return Fault(str(error), torn=False)
        return block, raw

    def accept(self, block: Block) -> None:
        """Go past a block that is good."""
        self.offset += BLOCK.size + block.stored
        if block.end:
            self.end = block
        else:
            self.next_block += 1

    def read_stored(self) -> tuple[Block, bytes] | Fault | None:
        """The next block as `read_block` has it, but its payload as it is stored."""
        size = os.fstat(self._file).st_size
        if self.end is not None:
            more = size - self.offset
            return Fault(f"{more} bytes after its end", torn=False) if more else None
        if size <= self.offset:
            short = Fault("it has become shorter", torn=False)
            return short if size < self.offset else None
        found = self._read_checked(size)
        if isinstance(found, tuple) and found[0].end:
            self.accept(found[0])
            return self.read_stored()
        return found

    def _read_checked(self, size: int) -> tuple[Block, bytes] | Fault:
        """The next block or end, if its size, checksum and place are right."""
        raw = self._read(BLOCK.size, self.offset)
        if len(raw) < BLOCK.size:
            return Fault(f"{len(raw)} bytes of a block's head", torn=True)
        try:
            block = decode_block(raw)
        except Malformed as error:
            return Fault(str(error), torn=False)
        end = self.offset + BLOCK.size + block.stored
        if end > size:
            return Fault(f"{size - self.offset} bytes of a block", torn=True)
        last = end == size
        stored = self._read(block.stored, self.offset + BLOCK.size)
        if len(stored) < block.stored or not checked_crc(raw, stored, block.crc):
            return Fault("the checksum of a block is wrong", torn=last)
        assert self.header is not None
        if (block.segment, block.number) != (self.header.number, self.next_block):
            return Fault(
                f"block {self.next_block} of segment {self.header.number} is missing: "
                f"block {block.number} of segment {block.segment} is in its place",
                torn=False,
            )
        return block, stored

    def _read(self, count: int, offset: int) -> bytes:
        try:
            return os.pread(self._file, count, offset)
        except OSError as error:
            raise JournalError(
                f"{self.path} cannot be read at byte {offset}: {error.strerror}"
            ) from None
