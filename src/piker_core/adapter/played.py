"""One engine of a journal, played again: its markets, and what its frames tell.

1. What a frame tells is decoded and normalized by the provider's own `frames`, in the
   order in which the feed did so, with the best quote that it knew then; it is pushed
   when the feed pushed it.
2. A journal without references to frames, as a converter makes it, has its quotes
   pushed as they came, and its clock stepped on each second of the recorded time.
"""

from collections import OrderedDict
from typing import Any

import msgspec

from piker_core.adapter import events
from piker_core.adapter.frames import Frames, Part, Tapes
from piker_core.core.engine import Market, open_engine
from piker_core.errors import JournalError
from piker_core.journal.records import Record
from piker_core.provider import find_provider

NS = 1_000_000_000
FRAMES_MOST = 4096
"""So many frames back something may be taken of one."""
TAKES_MOST = 65_536
"""So many quotes that were taken and not pushed are kept."""
SKEW_S = 1e9
"""The clock here says nothing of the times there."""


class Counts(msgspec.Struct):
    """What was played. `unknown`: records that were not; `holes`: LOST ones."""

    records: int = 0
    frames: int = 0
    quotes: int = 0
    ticks: int = 0
    unknown: int = 0
    holes: int = 0


class PlayedMarket:
    """A market of a played engine, and what its stream knows of it."""

    def __init__(self, market: Market, about: bytes) -> None:
        self.market = market
        self.symbol = market.symbol
        self.best: Any = None
        self.tape: Any = None
        try:
            described = msgspec.json.decode(about)
        except msgspec.DecodeError:
            described = {}
        self.venue_symbol = described.get("venue_symbol", "")


class PlayedEngine:
    """One engine of a journal, as it was from its opening to its end."""

    def __init__(self, began: events.Began, namespace: str, counts: Counts) -> None:
        self.provider = began.provider
        self.engine = open_engine(
            began.provider, namespace=namespace, max_skew_s=SKEW_S
        )
        self.markets: dict[int, PlayedMarket] = {}
        self.by_name: dict[str, PlayedMarket] = {}
        self._module = began.module or began.provider
        self._frames: Frames | Tapes | None = None
        self._counts = counts
        self._raw: OrderedDict[int, tuple[bytes, int]] = OrderedDict()
        self._heard = 0
        self._split: tuple[int, list[Part]] = (0, [])
        self._kept: OrderedDict[int, dict[str, Any]] = OrderedDict()

    @property
    def frames(self) -> Frames:
        """How its provider decodes. Raises NotFound if it is not installed."""
        found = self._decoding()
        if not isinstance(found, Frames):
            raise JournalError(f"frames of {self.provider} have no parts")
        return found

    @property
    def tapes(self) -> Tapes:
        """The same of a provider whose markets have a state."""
        found = self._decoding()
        if not isinstance(found, Tapes):
            raise JournalError(f"markets of {self.provider} have no state")
        return found

    def _decoding(self) -> Frames | Tapes:
        if self._frames is None:
            module = find_provider(self._module)
            found = getattr(module, "frames", None)
            if not isinstance(found, Frames | Tapes):
                raise JournalError(
                    f"{module.__name__} has no `frames`: the version that recorded "
                    "this journal had"
                )
            self._frames = found
        return self._frames

    def forget(self) -> None:
        """A hole: nothing of before is referred to any more."""
        self._raw.clear()
        self._kept.clear()
        self._heard = 0
        self._split = (0, [])

    def hear(self, record: Record) -> None:
        """A frame came in."""
        self._heard += 1
        self._raw[self._heard] = (record.body, record.time_ns)
        if len(self._raw) > FRAMES_MOST:
            self._raw.popitem(last=False)

    def say(self, said: events.Said) -> None:
        """A market's status."""
        market = self.by_name[said.fqme].market
        market.set_status(said.status, since_ns=said.since_ns, reason=said.reason)

    def add_gap(self, gap: events.Gap) -> None:
        """A gap of a market."""
        self.by_name[gap.fqme].market.add_gap(
            start_ns=gap.start_ns,
            end_ns=gap.end_ns,
            cause=gap.cause,
            repaired=gap.repaired,
        )

    def open(self, event: events.Described) -> PlayedMarket:
        """A market is opened."""
        options = dict(event.options or {})
        if options.get("capacity"):  # numbers are text as keys of JSON
            rows = options["capacity"].items()
            options["capacity"] = {int(period): count for period, count in rows}
        market = self.engine.add_market(
            event.fqme,
            about=event.about,
            sessions=events.decode_sessions(event.sessions),
            **options,
        )
        played = PlayedMarket(market, event.about)
        self.markets[event.number] = self.by_name[event.fqme] = played
        return played

    def describe(self, event: events.Described) -> None:
        """A market is opened, or something is done to it."""
        if event.options is not None:
            self.open(event)
            return
        played = self.markets[event.number]
        if event.period:
            ring = played.market.bars[event.period]
            if not event.found or ring.head == ring.first:
                ring.prepend(events.decode_rows(event.rows))
        elif event.hours:
            sessions = events.decode_sessions(event.sessions)
            played.market.set_sessions(sessions)
        elif event.begins:
            played.best = None
            played.tape = self.tapes.open(event.details) if event.details else None

    def quote(self, event: events.Quoted) -> None:
        """Something was pushed, or taken to be pushed later."""
        if event.call:
            self._call(event)
            return
        if event.frame:
            quote = self._take(event)
            if event.kept:
                self._keep(event.take, quote)
                return
        elif event.take and event.places is None:
            quote = self._kept.pop(event.take)
        elif event.take:
            quote = self._kept[event.take]
            ticks = quote["ticks"]
            quote = quote | {"ticks": [ticks[place] for place in event.places or ()]}
        elif event.records:
            market = self.markets[event.market].market
            ticks = events.decode_ticks(event.records)
            self._counts.ticks += self.engine.push_ticks(market, ticks)
            return
        else:
            quote = {"symbol": event.symbol, "last": event.last, "ticks": event.ticks}
        self.push(quote)

    def push(self, quote: dict[str, Any]) -> None:
        """A quote into the rings."""
        self._counts.ticks += self.engine.push(quote)
        self._counts.quotes += 1

    def _keep(self, take: int, quote: dict[str, Any]) -> None:
        self._kept[take] = quote
        if len(self._kept) > TAKES_MOST:
            self._kept.popitem(last=False)

    def _call(self, event: events.Quoted) -> None:
        """What was done with a market's state."""
        played = self.markets[event.market]
        raw = self._raw[event.frame][0] if event.frame else b""
        ticks = self.tapes.call(played.tape, event.call, event.arguments, raw)
        if event.take:
            self._keep(event.take, {"symbol": played.symbol, "ticks": ticks})

    def _take(self, event: events.Quoted) -> dict[str, Any]:
        """What a frame tells of a market, as the feed has made a quote of it."""
        played = self.markets[event.market]
        raw, heard_ns = self._raw[event.frame]
        if self._split[0] != event.frame:
            self._split = (event.frame, list(self.frames.split(raw)))
        name = played.venue_symbol
        parts = [part for part in self._split[1] if part.venue_symbol == name]
        return self.normalized(played, parts[event.part], heard_ns)

    def normalized(
        self, played: PlayedMarket, part: Part, heard_ns: int
    ) -> dict[str, Any]:
        """A part of a frame as a quote."""
        if not part.best:
            return self.frames.normalize(played.symbol, part.rows)
        before, played.best = played.best, part.rows
        return self.frames.normalize_best(played.symbol, part.rows, before, heard_ns)


class BareEngine(PlayedEngine):
    """An engine for frames alone: its markets are those that are named."""

    def __init__(self, began: events.Began, namespace: str, counts: Counts) -> None:
        super().__init__(began, namespace, counts)
        self._clock_s = 0
        for name in began.markets:
            self.describe(events.Described(fqme=name))

    def describe(self, event: events.Described) -> None:
        """A market is named: it is live from the next second of the clock on."""
        fqme = event.fqme.removesuffix(f".{self.provider}") + f".{self.provider}"
        if fqme not in self.by_name:
            number, options = len(self.markets), event.options or {}
            event = msgspec.structs.replace(
                event, fqme=fqme, number=number, options=options
            )
            self.open(event).market.set_status("live")

    def hear(self, record: Record) -> None:
        """A frame came in: all that it tells of known markets is pushed."""
        second = record.time_ns // NS
        if second > self._clock_s:
            self._clock_s = second
            self.engine.step(second * NS)
        for part in self.frames.split(record.body):
            played = self._find(part.venue_symbol)
            if played is not None:
                quote = self.normalized(played, part, record.time_ns)
                if quote["ticks"]:
                    self.push(quote)

    def _find(self, venue_symbol: str) -> PlayedMarket | None:
        """A market by the venue's name of it, as far as that can be told."""
        plain = "".join(filter(str.isalnum, venue_symbol)).lower()
        for played in self.by_name.values():
            if venue_symbol == played.venue_symbol:
                return played
            if plain == played.symbol.partition(".")[0]:
                return played
        return None
