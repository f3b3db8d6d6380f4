"""Between the caller of a journal and the disk: a bounded queue and a thread.

Blocks are written in the order in which they were handed over. One that cannot be
written stays first in the queue and is tried again, every `RETRY_S` and whenever
another one comes. What finds the queue full is refused: the caller counts it.
"""

import logging
import threading
from collections import deque

from piker_core.errors import JournalError
from piker_core.journal.disk import SegmentWriter
from piker_core.journal.layout import CLOSED

RETRY_S = 1.0

log = logging.getLogger("piker_core.journal")


class BlockQueue:
    """Blocks on their way to a `SegmentWriter`, which from now on is the thread's."""

    def __init__(self, writer: SegmentWriter, most_bytes: int) -> None:
        self.error: JournalError | None = None
        """What went wrong and was not told yet; whoever tells it sets it to None."""
        self.cause = ""
        """Why blocks wait."""
        self.failures = 0
        self._writer = writer
        self.most_bytes = most_bytes
        self._blocks: deque[tuple[list[bytes], int]] = deque()
        self._bytes = 0
        self._failing = self._full = self._ending = self._ended = False
        self._in_file = False
        self._changed = threading.Condition()
        name = f"journal {writer.settings.folder.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, parts: list[bytes], size: int) -> bool:
        """Take the records of a block; False if there is no room. Does not wait.

        Once it was full there is room again when half of it is written.
        """
        with self._changed:
            most = self.most_bytes // 2 if self._full else self.most_bytes
            if self._ended or (self._blocks and self._bytes + size > most):
                self._refuse()
                return False
            self._full = False
            self._blocks.append((parts, size))
            self._bytes += size
            self._changed.notify_all()
        return True

    def _refuse(self) -> None:
        """Tell of a disk that is slow; of one that fails the thread has told."""
        if not self._failing:
            self.cause = "the disk does not keep up"
            if not self._full:
                self.error = JournalError(
                    f"{self._writer.path}: {self.cause}, and {self._bytes} bytes wait "
                    "for it already: what comes now is left out and counted"
                )
        self._full = True

    def wait(self, most_bytes: int = 0) -> None:
        """Until at most so much is left to write.

        Raises JournalError as soon as an attempt to write fails.
        """
        with self._changed:
            before = self.failures
            self._changed.notify_all()  # an attempt now, if it is waiting for the next
            while self._bytes > most_bytes:
                if self.failures != before or self._ended:
                    raise self.take_error()
                self._changed.wait()

    def take_error(self) -> JournalError:
        """The error that was not told yet, else one that says the trouble goes on."""
        error, self.error = self.error, None
        path = self._writer.path
        return error or JournalError(f"{path} still cannot be written")

    def close(self) -> int:
        """Write what there is and end the thread; how many records were left.

        Tries once more what could not be written before.
        """
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join()
        self._writer.close()
        return sum(len(parts) for parts, _ in self._blocks)

    # ---- in the thread --------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._work():
                pass
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _work(self) -> bool:
        """Write one block, or sync; False when all is done or given up."""
        with self._changed:
            while not self._blocks and not self._ending:
                if not self._changed.wait(self._writer.sync_due_s()):
                    break
            parts = self._blocks[0][0] if self._blocks else None
            ending = self._ending
        try:
            if parts is not None and not self._in_file:
                self._writer.write(parts)
                self._in_file = True
            elif parts is None and ending:
                self._writer.end_segment(CLOSED)
                return False
            if self._writer.sync_due_s() == 0.0:
                self._writer.sync()
        except (OSError, MemoryError) as error:
            return self._fail(error)
        if parts is not None:
            self._take_out()
        return True

    def _take_out(self) -> None:
        with self._changed:
            self._bytes -= self._blocks.popleft()[1]
            self._in_file = False
            if self._failing:
                log.warning("%s is written again", self._writer.path)
            self._failing = False
            self._changed.notify_all()

    def _fail(self, error: OSError | MemoryError) -> bool:
        """Tell of it, if it is news, and wait a while; False at the end."""
        reason = error.strerror if isinstance(error, OSError) else "out of memory"
        with self._changed:
            self.failures += 1
            self.cause = reason or "unknown"
            if not self._failing:
                self.error = JournalError(
                    f"{self._writer.path} cannot be written: {reason}: what was "
                    "written before is whole, what comes now is kept as long as there "
                    "is room, and written when that works again"
                )
                log.warning("%s", self.error)
            self._failing = True
            self._changed.notify_all()
            if self._ending:
                return False
            self._changed.wait(RETRY_S)
        return True
