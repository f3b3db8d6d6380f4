"""Writing a journal: records at its end, from the hot path of a feed.

What is lost when
    the process is killed: what was not flushed: at most `block_bytes` and `block_s` of
        records, and what was still in the queue to the disk;
    the machine loses power: that, and what the disk was not told to keep:
        fsync="block"  nothing more: each block is synced before the next is written
        fsync="second" the last second (or, fsync=N, the last N seconds)
        fsync="close"  the segment that was being written
        fsync="never"  what the system had not written by itself, 30 s on most

A disk that is full or fails is told once, as JournalError from the next `append` or
`flush`; the record of that call is taken all the same. Blocks wait in a queue of
`queue_bytes` and are written when that works again. Only what does not fit in there is
lost: it is counted, and a LOST record in its place says how many records and why.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import msgspec

from piker_core.errors import JournalError
from piker_core.journal.disk import SegmentWriter, Settings
from piker_core.journal.folder import take_lock
from piker_core.journal.layout import BLOCK, MOST_BLOCK
from piker_core.journal.packing import open_packer
from piker_core.journal.records import Kind, Lost
from piker_core.journal.recovery import find_place
from piker_core.journal.writer import JournalWriter, Limits

SEGMENT_BYTES = 64 << 20
BLOCK_BYTES = 256 << 10
QUEUE_BYTES = 64 << 20
BLOCK_S = 1.0
LEVEL = 1
MOST_BLOCK_BYTES = MOST_BLOCK // 4
FSYNC = ("never", "close", "second", "block")
COMPRESS = ("zstd", "none")
MOST_S = 86_400.0
_SYNC_S = {"second": 1.0, "block": 0.0}


@contextmanager
def open_journal(
    folder: str | PathLike[str],
    *,
    segment_bytes: int = SEGMENT_BYTES,
    block_bytes: int = BLOCK_BYTES,
    block_s: float = BLOCK_S,
    queue_bytes: int = QUEUE_BYTES,
    compress: str = "zstd",
    level: int = LEVEL,
    fsync: str | float = "close",
) -> Iterator[JournalWriter]:
    """Write a journal in a folder, which is made where it is not there; or go on in it.

    A new segment is begun now, when the last one has `segment_bytes`, and with a new
    day (UTC) of the records. A block is handed to the disk's thread when it holds
    `block_bytes` or a record comes `block_s` after its first one. `compress`: "zstd",
    at `level`, or "none"; `fsync`: see above, a number is seconds.

    What a writer that died left half-written is cut off (see `recovery`), and a LOST
    record tells of it. Raises JournalError if another writer is at work there, the
    folder cannot be written, its last segment is damaged, or there is no zstd;
    ValueError for an option that is none.
    """
    _check(segment_bytes, block_bytes, block_s, queue_bytes, compress, fsync)
    path = Path(folder)
    pack = open_packer(level) if compress == "zstd" else None
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(f"journal {path} cannot be made: {error.strerror}") from None
    limits = Limits(block_bytes=block_bytes, block_ns=round(block_s * 1e9))
    settings = Settings(
        folder=path,
        segment_bytes=segment_bytes,
        fsync_close=fsync != "never",
        fsync_s=_SYNC_S.get(fsync) if isinstance(fsync, str) else fsync,
    )
    journal = _open(settings, pack, queue_bytes, limits)
    try:
        yield journal
    finally:
        journal.close()


def _open(
    settings: Settings,
    pack: Callable[[bytes], bytes] | None,
    queue_bytes: int,
    limits: Limits,
) -> JournalWriter:
    folder = settings.folder
    lock = take_lock(folder)
    try:
        place = find_place(folder, BLOCK.size + 2 * limits.block_bytes)
        if not place.journal:
            place = msgspec.structs.replace(place, journal=secrets.token_bytes(16))
        writer = SegmentWriter(settings, place, pack)
        try:
            writer.open_segment()
        except OSError as error:
            raise JournalError(
                f"{writer.path} cannot be made: {error.strerror}"
            ) from None
        journal = JournalWriter(folder, lock, writer, queue_bytes, limits)
    except BaseException:
        os.close(lock)
        raise
    if place.lost:
        lost = msgspec.json.encode(Lost(records=None, cause=place.lost))
        journal.append(Kind.LOST, time.time_ns(), lost)
    return journal


def _check(
    segment_bytes: int,
    block_bytes: int,
    block_s: float,
    queue_bytes: int,
    compress: str,
    fsync: str | float,
) -> None:
    if compress not in COMPRESS:
        raise ValueError(f"compress is one of {COMPRESS}, not {compress!r}")
    if not (fsync in FSYNC if isinstance(fsync, str) else 0 < fsync <= MOST_S):
        raise ValueError(f"fsync is one of {FSYNC} or seconds above 0, not {fsync!r}")
    if not 0 < block_bytes <= MOST_BLOCK_BYTES:
        raise ValueError(
            f"block_bytes is from 1 to {MOST_BLOCK_BYTES}, not {block_bytes}"
        )
    if not 0 <= block_s <= MOST_S:
        raise ValueError(f"block_s is from 0 to {MOST_S:g}, not {block_s!r}")
    if segment_bytes <= 0 or queue_bytes <= 0:
        raise ValueError(
            f"segment_bytes and queue_bytes are above 0, not {segment_bytes} and "
            f"{queue_bytes}"
        )
