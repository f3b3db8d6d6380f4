"""Records on their way into blocks: the side of a journal that its caller meets."""

import os
import struct
import weakref
from pathlib import Path

import msgspec

from piker_core.errors import JournalError
from piker_core.journal.disk import SegmentWriter, Written
from piker_core.journal.folder import give_up_lock
from piker_core.journal.layout import MOST_BODY, RECORD
from piker_core.journal.queue import BlockQueue
from piker_core.journal.records import Kind, Lost

_pack = RECORD.pack

_journals: "weakref.WeakSet[JournalWriter]" = weakref.WeakSet()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """When a block is handed over."""

    block_bytes: int
    block_ns: int


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """`lost`: records that were not written; of the others those in the files."""

    lost: int
    written: Written


class JournalWriter:
    """The writer of a journal; made by `open_journal`. For one thread at a time."""

    def __init__(
        self,
        folder: Path,
        lock: int,
        writer: SegmentWriter,
        queue_bytes: int,
        limits: Limits,
    ) -> None:
        self.folder = folder
        self.lost = 0
        """Records that were not written since it was opened."""
        self._lock = lock
        self._writer = writer
        self._queue = BlockQueue(writer, queue_bytes)
        self._block_bytes, self._block_ns = limits.block_bytes, limits.block_ns
        self._parts: list[bytes] = []
        self._held = self._due_ns = 0
        self._missing: Lost | None = None
        _journals.add(self)

    def append(
        self,
        kind: int,
        time_ns: int,
        body: bytes | bytearray | memoryview,
        source: int = 0,
    ) -> None:
        """Write a record: a `Kind`, receive time (UTC ns), body, connection number.

        Never waits for the disk. Raises JournalError once when something is wrong
        there; the record is taken, see above. ValueError for what cannot be written:
        a body above 64 MiB, a kind above 255, a source that is no 32-bit number.
        """
        parts = self._parts
        if not parts:
            self._due_ns = time_ns + self._block_ns
        try:
            part = _pack(kind, source, time_ns, len(body)) + body
        except struct.error as error:
            raise ValueError(
                f"no record of kind {kind!r}, source {source!r} at {time_ns!r} ns can "
                f"be written: {error}"
            ) from None
        parts.append(part)
        self._held += len(part)
        if (
            self._held >= self._block_bytes
            or time_ns >= self._due_ns
            or self._queue.error is not None
        ):
            self._hand_over()

    def flush(self, *, wait: bool = False) -> None:
        """Hand over what was appended; with `wait` return when it is in the file.

        Raises JournalError as `append` does, and with `wait` each time that an attempt
        to write fails.
        """
        if self._parts or self._block_bytes < 0:
            self._hand_over()
        if wait:
            self._queue.wait()
        if self._queue.error is not None:
            raise self._queue.take_error()

    def wait_room(self) -> None:
        """Wait until half of the queue to the disk is free, so that nothing is lost.

        For whoever writes faster than any disk and may wait, as a converter does.
        Raises JournalError if the disk fails.
        """
        self._queue.wait(self._queue.most_bytes // 2)

    def statistics(self) -> Counts:
        """Counts since it was opened."""
        return Counts(
            lost=self.lost, written=msgspec.structs.replace(self._writer.written)
        )

    def close(self) -> None:
        """Write what is left, make the journal complete, give up the lock.

        Waits for the disk. Raises JournalError if something could not be written; it
        is closed then, too. More than once does nothing.
        """
        if self._lock < 0:
            return
        lock, self._lock = self._lock, -1
        try:
            error = self._put_rest()
            left = self._queue.close()
            error, self._queue.error = self._queue.error or error, None
            self.lost += left
            left += self._missing.records or 0 if self._missing else 0
            if left or error:
                more = f"; {left} records were not written" if left else ""
                raise JournalError(f"{error or self.folder}{more}")
        finally:
            self._block_bytes = -1
            give_up_lock(lock)

    def _put_rest(self) -> JournalError | None:
        """Hand over all there is, for which the disk must have caught up."""
        error = None
        if self._parts:
            self._put(self._parts, self._held)
            self._parts, self._held = [], 0
        if self._missing is not None:
            try:
                self._queue.wait()
            except JournalError as failed:
                error = failed
            self._put_missing()
        return error

    def _hand_over(self) -> None:
        """Give the block to the queue; tell what is wrong, once."""
        parts, held = self._parts, self._held
        self._parts, self._held = [], 0
        if self._block_bytes < 0:
            raise JournalError(f"journal {self.folder} is closed")
        size = len(parts[-1])
        if size > RECORD.size + MOST_BODY:
            self._parts, self._held = parts[:-1], held - size
            raise ValueError(
                f"a body of {size - RECORD.size} bytes cannot be written, "
                f"{MOST_BODY} are the most"
            )
        if size >= self._block_bytes and len(parts) > 1:
            self._put(parts[:-1], held - size)
            self._put(parts[-1:], size)
        else:
            self._put(parts, held)
        if self._queue.error is not None:
            raise self._queue.take_error()

    def _put(self, parts: list[bytes], size: int) -> None:
        told = self._missing is None or self._put_missing()
        if not (told and self._queue.put(parts, size)):
            self._miss(parts)

    def _put_missing(self) -> bool:
        """Write down what is missing, in its place; False if that has no room."""
        lost = self._missing
        assert lost is not None
        body = msgspec.json.encode(lost)
        part = _pack(Kind.LOST, 0, lost.last_ns, len(body)) + body
        if not self._queue.put([part], len(part)):
            return False
        self._missing = None
        return True

    def _miss(self, parts: list[bytes]) -> None:
        before = self._missing
        first_ns = RECORD.unpack_from(parts[0])[2]
        self.lost += len(parts)
        self._missing = Lost(
            records=len(parts) + (before.records or 0 if before else 0),
            cause=before.cause if before else self._queue.cause,
            first_ns=before.first_ns if before else first_ns,
            last_ns=RECORD.unpack_from(parts[-1])[2],
        )

    def leave_to_parent(self) -> None:
        """In a forked child: the files stay the parent's, here it is closed."""
        if self._lock >= 0:
            os.close(self._lock)
            self._writer.close()
        self._lock = self._block_bytes = -1


def _leave_all() -> None:
    for journal in list(_journals):
        journal.leave_to_parent()


os.register_at_fork(after_in_child=_leave_all)
