"""What a writer finds of those before it, and how it mends what they left.

The last segment has no end if its writer died. Its whole blocks stay, what follows them
is cut off, and it gets an end that says so. A single half-written block, which is all
that a kill leaves, is dropped; anything else (a power loss, a damaged file) is moved
aside to `NAME.torn` first, so that nothing is destroyed that somebody may want to look
at. Earlier segments are not looked at.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from piker_core.errors import JournalError
from piker_core.journal.folder import list_segments, open_regular
from piker_core.journal.layout import (
    CLOSED,
    RECOVERED,
    Block,
    OtherVersion,
    encode_block,
)
from piker_core.journal.segment import Fault, SegmentReader

ASIDE = ".torn"
DIED = "the writer before this one died"

log = logging.getLogger("piker_core.journal")


class Place(msgspec.Struct, frozen=True):
    """Where a writer goes on: its segment and block; `journal` is b"" for a new one.

    `lost`: why records are missing before it, "" if none are.
    """

    journal: bytes = b""
    segment: int = 0
    block: int = 0
    lost: str = ""


def find_place(folder: Path, most_torn: int) -> Place:
    """Where to go on in a folder whose lock is held, its last segment made complete.

    `most_torn`: bytes of a half-written block. Raises JournalError for a last segment
    that is foreign, damaged in its header, or cannot be mended.
    """
    segments = list_segments(folder)
    while segments:
        number, path = segments.popitem()
        try:
            with SegmentReader(path) as segment:
                found = segment.read_header()
                if not isinstance(found, Fault):
                    return _mended(segment, number, most_torn)
        except OtherVersion as error:
            raise JournalError(f"{path} is of {error}: take another folder") from None
        if not found.torn:
            raise JournalError(
                f"{path} is damaged ({found.reason}): nothing is written behind it, "
                "take another folder"
            )
        log.warning("%s was removed: its writer died when it made it", path)
        _do("removed", path, path.unlink)
        if not segments:
            return Place()
    return Place()


def _mended(segment: SegmentReader, number: int, most_torn: int) -> Place:
    """Read a segment to its last whole block and give it an end, if it has none."""
    while isinstance(found := segment.read_stored(), tuple):
        segment.accept(found[0])
    assert segment.header is not None
    lost = ""
    if segment.end is None:
        lost = _cut(segment, number, found, most_torn)
    elif segment.end.code != CLOSED:
        lost = DIED
    return Place(segment.header.journal, number + 1, segment.next_block, lost)


def _cut(
    segment: SegmentReader, number: int, fault: Fault | None, most_torn: int
) -> str:
    """Cut off what is not whole; why records are missing now."""
    path, offset = segment.path, segment.offset
    torn, lost = path.stat().st_size - offset, DIED
    if torn > (most_torn if fault is None or fault.torn else 0):
        aside = path.with_name(path.name + ASIDE)
        _do("moved aside", aside, lambda: _copy_tail(path, offset, aside))
        lost = f"{path.name} was damaged, {torn} bytes of it are in {aside.name}"
    if torn:
        log.warning(
            "%s: %d bytes after byte %d were cut off (%s)",
            path,
            torn,
            offset,
            fault.reason if fault else "not whole",
        )
    end = encode_end(RECOVERED, number, segment.next_block)
    _do("mended", path, lambda: _finish(path, offset, end))
    return lost


def encode_end(code: int, segment: int, block: int) -> bytes:
    """The end of a segment."""
    return encode_block(Block(True, code, 0, 0, 0, segment, block, 0, 0, 0), b"")


def _copy_tail(path: Path, offset: int, aside: Path) -> None:
    with path.open("rb") as file, aside.open("wb") as copy:
        file.seek(offset)
        while part := file.read(1 << 20):
            copy.write(part)


def _finish(path: Path, offset: int, end: bytes) -> None:
    descriptor = open_regular(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, offset)
        os.pwrite(descriptor, end, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _do(what: str, path: Path, work: Callable[[], object]) -> None:
    try:
        work()
    except OSError as error:
        raise JournalError(
            f"{path} cannot be {what} after its writer died: {error.strerror}"
        ) from None
