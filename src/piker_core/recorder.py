"""Feeds into a journal: everything that a replay needs, while they run.

A journal that cannot be written is said once. It never slows or ends a feed: what is
lost is counted, and the journal itself tells of it as soon as it can be written again.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from types import ModuleType
from typing import Any, cast

import msgspec

from piker_core.adapter import events
from piker_core.adapter.frames import Frames, Tapes
from piker_core.adapter.tap import Tap
from piker_core.adapter.tapped import TappedEngine
from piker_core.core.engine import FeedEngine
from piker_core.core.ticks import attach_ticks
from piker_core.errors import PikerError
from piker_core.journal import open_journal
from piker_core.journal.records import Kind, Lost

MOST_CAUSE = 500

log = logging.getLogger("piker_core.record")


class RecorderStatistics(msgspec.Struct, frozen=True):
    """Counters of a recorder. `lost`: records that could not be written.

    `trouble`: what has kept them from being written last.
    """

    records: int = 0
    frames: int = 0
    bytes: int = 0
    lost: int = 0
    trouble: str = ""


class Recorder:
    """Writes the records of all engines of a process into one journal."""

    def __init__(self, journal: Any) -> None:
        self.epoch = 0
        self._journal = journal
        self._engines = self._connections = 0
        self._records = self._frames = self._bytes = self._lost = self._left_out = 0
        self._trouble = ""

    def statistics(self) -> RecorderStatistics:
        """Counters since it was opened."""
        return RecorderStatistics(
            records=self._records,
            frames=self._frames,
            bytes=self._bytes,
            lost=self._lost + self._left_out,
            trouble=self._trouble,
        )

    def number_connection(self) -> int:
        """The number of another connection."""
        self._connections += 1
        return self._connections

    def write(self, kind: int, body: bytes, source: int, time_ns: int = 0) -> None:
        """Write a record, by default of now. Raises nothing."""
        try:
            self._journal.append(kind, time_ns or time.time_ns(), body, source)
        except ValueError as error:
            self.lose(str(error))
        except (PikerError, OSError) as error:
            self._complain(str(error))
        self._records += 1
        self._frames += kind == Kind.RECEIVED
        self._bytes += len(body)
        if self._journal.lost != self._lost:
            self._lost = self._journal.lost
            self.epoch += 1

    def lose(self, cause: str) -> None:
        """What should be written cannot be: say so here and there."""
        self._complain(cause)
        self.epoch += 1
        self._left_out += 1
        lost = Lost(records=1, cause=cause[:MOST_CAUSE])
        self.write(Kind.LOST, msgspec.json.encode(lost), 0)

    def _complain(self, text: str) -> None:
        if not self._trouble:
            log.error("the journal is in trouble, feeds go on: %s", text)
        self._trouble = text

    def finish(self) -> None:
        """Write the rest; what cannot be written is said and counted, not raised."""
        try:
            self._journal.close()
        except PikerError as error:
            self._complain(str(error))
        self._lost = self._journal.lost

    @contextmanager
    def tapping(self, engine: FeedEngine, provider: ModuleType) -> Iterator[FeedEngine]:
        """The engine, all that is done to it in the block written down."""
        self._engines += 1
        began = events.Began(
            provider=engine.provider,
            recorder="piker-core",
            engine=self._engines,
            module=provider.__name__,
            namespace=engine.namespace,
        )
        frames = isinstance(getattr(provider, "frames", None), Frames | Tapes)
        tap = Tap(self, began, frames=frames)
        try:
            yield cast("FeedEngine", TappedEngine(tap, engine))
        finally:
            tap.end()

    async def record_ticks(self, provider: str, namespace: str | None) -> None:
        """Write the records of a provider's tick ring as they are, for ever."""
        with attach_ticks(provider, namespace=namespace) as ring:
            cursor, lost = ring.cursor("live"), 0
            while True:
                await cursor.ready()
                rows, before = cursor.poll(), lost
                lost = cursor.lost
                if lost > before:
                    self._complain(f"{lost - before} ticks were overwritten unread")
                self.write(Kind.TICKS, rows.tobytes(), 0)


@contextmanager
def open_recorder(folder: str | PathLike[str], **options: Any) -> Iterator[Recorder]:
    """A recorder into a journal; `options` are those of `open_journal`.

    Raises JournalError if the folder cannot be written, or has a writer.
    """
    with open_journal(folder, **options) as journal:
        recorder = Recorder(journal)
        try:
            yield recorder
        finally:
            recorder.finish()


@contextmanager
def recording(
    journal: str | PathLike[str] | Recorder | None,
) -> Iterator[Recorder | None]:
    """A recorder into a folder; one that is given, or none, is none of ours."""
    if isinstance(journal, str | PathLike):
        with open_recorder(journal) as recorder:
            yield recorder
    else:
        yield journal


@contextmanager
def recorded(
    engine: FeedEngine, provider: ModuleType, recorder: Recorder | None
) -> Iterator[FeedEngine]:
    """The engine as it is, or with a recorder's tap on it."""
    if recorder is None:
        yield engine
    else:
        with recorder.tapping(engine, provider) as tapped:
            yield tapped
