"""Records of a journal into engines, see `events` and `played`."""

from types import TracebackType
from typing import Self

import msgspec

from piker_core.adapter import events
from piker_core.adapter.played import BareEngine, Counts, PlayedEngine
from piker_core.errors import JournalError, NotFound, PikerError, SegmentError
from piker_core.journal.records import Kind, Lost, Record
from piker_core.segments import list_segments

_UNPLAYABLE = (PikerError, msgspec.MsgspecError, ValueError, LookupError, TypeError)
_decode = msgspec.json.decode


class Player:
    """Plays records into the rings of a namespace. A context manager.

    What cannot be played is counted as unknown, and changes nothing.
    """

    def __init__(self, namespace: str) -> None:
        self.counts = Counts()
        self.markets: set[str] = set()
        self._namespace = namespace
        self._engines: dict[int, PlayedEngine] = {}
        self._providers: set[str] = set()
        self._of: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for played in self._engines.values():
            played.engine.close()

    def play(self, record: Record) -> None:
        """One record.

        Raises SegmentError and OSError of the rings; NotFound, JournalError if the
        provider that is needed to decode frames is not there, or cannot.
        """
        self.counts.records += 1
        try:
            self._play(record)
        except (SegmentError, NotFound, JournalError):
            raise
        except _UNPLAYABLE:
            self.counts.unknown += 1

    def _play(self, record: Record) -> None:
        kind, source = record.kind, record.source
        if kind == Kind.QUOTE:
            quoted = _decode(record.body, type=events.Quoted)
            self._engines[source].quote(quoted)
        elif kind == Kind.RECEIVED:
            self.counts.frames += 1
            self._engines[self._of.get(source, 0)].hear(record)
        elif kind == Kind.CLOCK:
            self._engines[source].engine.step(record.time_ns)
        elif kind == Kind.STATUS:
            said = _decode(record.body, type=events.Said)
            self._engines[source].say(said)
        elif kind == Kind.GAP:
            gap = _decode(record.body, type=events.Gap)
            self._engines[source].add_gap(gap)
        elif kind == Kind.MARKET:
            described = _decode(record.body, type=events.Described)
            self._engines[source].describe(described)
            self.markets |= self._engines[source].by_name.keys()
        elif kind == Kind.OPENED:
            self._of[source] = _decode(record.body, type=events.Opened).engine
        elif kind == Kind.SESSION:
            self._begin(_decode(record.body, type=events.Began))
        elif kind == Kind.LOST:
            self._note_hole(_decode(record.body, type=Lost))

    def _note_hole(self, lost: Lost) -> None:
        """Records are missing: what they told is lost for all markets."""
        self.counts.holes += 1
        for played in self._engines.values() if lost.first_ns else ():
            for fqme in played.by_name:
                gap = events.Gap(
                    fqme=fqme,
                    start_ns=lost.first_ns,
                    end_ns=max(lost.last_ns, lost.first_ns),
                    cause="hole in the journal",
                )
                played.add_gap(gap)

    def _begin(self, began: events.Began) -> None:
        """An engine is opened, or closed: it was the last of its provider."""
        if began.anew:
            self._engines[began.engine].forget()
            return
        for number, played in list(self._engines.items()):
            if number == began.engine or played.provider == began.provider:
                self._engines.pop(number).engine.close()
        if began.ended:
            return
        if began.provider not in self._providers:
            self._check_unused(began.provider)
        self._providers.add(began.provider)
        shape = PlayedEngine if began.engine else BareEngine
        played = shape(began, self._namespace, self.counts)
        self._engines[began.engine] = played
        self.markets |= played.by_name.keys()

    def _check_unused(self, provider: str) -> None:
        """Raises SegmentError if there are rings already."""
        for segment in list_segments(self._namespace):
            if segment.provider == provider:
                raise SegmentError(
                    f"namespace {self._namespace!r} has rings of {provider} already, "
                    "and a replay begins with none: give --namespace another name, or "
                    "remove them (piker_core.remove_segments)"
                )
