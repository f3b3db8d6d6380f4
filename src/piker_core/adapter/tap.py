"""Taps: what goes on between a feed and its engine is written down, see `events`.

1. A tap costs nothing where there is none: it is asked for once, when a channel, a
   market or a connection is made, and stands in its way only then.
2. What the engine has refused has changed nothing, and is not written.
3. A quote made of a frame bears a mark; by it the push names the frame, for as long as
   its ticks are the very ones of the frame. What cannot be named is written whole.
"""

from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from decimal import Decimal
from numbers import Real
from operator import index
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.adapter import events
from piker_core.dtypes import TICK_DTYPE, TICK_TYPES
from piker_core.journal.records import Kind

MARK = "tap"
"""The key of a quote's mark; the engine does not look at it."""

Listener = Callable[[Any, bytes], Coroutine[Any, Any, None]]
Normalize = Callable[..., dict[str, Any]]


class Sink(Protocol):
    """Where records go."""

    @property
    def epoch(self) -> int:
        """Rises with each hole: what was written before cannot be referred to."""

    def write(self, kind: int, body: bytes, source: int, time_ns: int = 0) -> None:
        """Write a record, by default of now."""

    def lose(self, cause: str) -> None:
        """What should be written cannot be."""

    def number_connection(self) -> int:
        """The number of another connection."""


class Frame:
    """A frame that is being handled, and how much of it each market has taken."""

    __slots__ = ("epoch", "number", "parts")

    def __init__(self, number: int, epoch: int) -> None:
        self.number, self.epoch = number, epoch
        self.parts: dict[str, int] = {}


class Mark:
    """Which take made a quote, and its ticks as they were then."""

    __slots__ = ("epoch", "take", "ticks")

    def __init__(self, take: int, epoch: int, ticks: list[Any]) -> None:
        self.take, self.epoch, self.ticks = take, epoch, ticks


_frame: ContextVar[Frame | None] = ContextVar("tapped_frame", default=None)


class Tap:
    """Writes down what happens to one engine, from its opening to its end.

    `frames`: its provider can decode frames once more, see `frames`.
    """

    def __init__(self, sink: Sink, began: events.Began, *, frames: bool) -> None:
        self.source = began.engine
        self._began = began
        self._by_frame = frames
        self._sink = sink
        self._epoch = sink.epoch
        self._frames = self._takes = 0
        self._taken: events.Quoted | None = None
        self._numbers: dict[str, int] = {}
        self.write(Kind.SESSION, began)

    def end(self) -> None:
        """The engine is about to be closed."""
        self.write(Kind.SESSION, msgspec.structs.replace(self._began, ended=True))

    def write(self, kind: Kind, event: events.Body) -> None:
        """Write an event; what was taken before and not pushed comes first.

        One that cannot be written is a hole, and no error.
        """
        self.settle()
        try:
            body = events.encode_body(event)
        except (TypeError, ValueError) as error:
            self._sink.lose(f"a record cannot be written: {error!r}")
        else:
            self._sink.write(kind, body, self.source)

    def settle(self) -> None:
        """What was taken last is not pushed at once."""
        if self._taken is not None:
            taken, self._taken = self._taken, None
            taken.kept, taken.take = True, self._takes
            self._sink.write(Kind.QUOTE, events.encode_body(taken), self.source)

    def step(self, now_ns: int) -> None:
        """The clock has stepped."""
        self.settle()
        self._sink.write(Kind.CLOCK, b"", self.source, now_ns)

    def number(self, fqme: str, symbol: str) -> int:
        """The number of a market that is opened now."""
        number = len(self._numbers) // 2
        self._numbers |= {fqme: number, symbol: number}
        return number

    # Frames

    def listen(self, take: Listener, url: str) -> Listener:
        """What handles the frames of a new connection, tapped.

        What is behind a question mark in its address may be secret, and is not written.
        """
        number = self.connect(url.partition("?")[0])

        async def listener(link: Any, raw: bytes) -> None:
            _frame.set(self.hear(number, raw, link.heard_ns))
            await take(link, raw)

        return listener

    def connect(self, url: str) -> int:
        """A connection is open; its number."""
        number = self._sink.number_connection()
        opened = events.Opened(url=url, engine=self.source)
        self.settle()
        self._sink.write(Kind.OPENED, events.encode_body(opened), number)
        return number

    def hear(self, connection: int, raw: bytes, heard_ns: int) -> Frame:
        """A frame came in."""
        self.settle()
        if self._epoch != self._sink.epoch:
            self._begin_anew()
        self._sink.write(Kind.RECEIVED, bytes(raw), connection, heard_ns)
        self._frames += 1
        return Frame(self._frames, self._epoch)

    def _begin_anew(self) -> None:
        """After a hole frames are counted anew."""
        self._epoch, self._frames = self._sink.epoch, 0
        event = msgspec.structs.replace(self._began, anew=True)
        self._sink.write(Kind.SESSION, events.encode_body(event), self.source)

    def begin(self, symbol: str, details: bytes = b"") -> None:
        """A market's frames begin: nothing of earlier ones is known to its stream."""
        number = self._numbers.get(symbol)
        if number is not None and self._by_frame:
            event = events.Described(
                fqme=symbol, number=number, begins=True, details=details
            )
            self.write(Kind.MARKET, event)

    def call(
        self, symbol: str, name: str, arguments: list[Any], frame: Frame | None = None
    ) -> None:
        """A market's state was called, see `frames.Tapes`; perhaps for a frame."""
        number = frame.number if frame else 0
        market = self._numbers[symbol]
        event = events.Quoted(
            market=market, call=name, arguments=arguments, frame=number
        )
        self.write(Kind.QUOTE, event)

    def call_for_ticks(
        self, symbol: str, name: str, arguments: list[Any], ticks: list[Any]
    ) -> None:
        """The same, and it has given these ticks, which bear marks from now on."""
        market = self._numbers[symbol]
        event = events.Quoted(market=market, call=name, arguments=arguments)
        if ticks:
            self._takes += 1
            event.take = self._takes
            mark = Mark(self._takes, self._sink.epoch, ticks)
            for tick in ticks:
                tick[MARK] = mark
        self.write(Kind.QUOTE, event)

    @property
    def epoch(self) -> int:
        """Rises with each hole: states before it and after it are not the same."""
        return self._sink.epoch

    def marking(self, normalize: Normalize) -> Normalize:
        """A market's `normalize`, whose quotes bear marks if frames are known."""
        if not self._by_frame:
            return normalize

        def marked(symbol: str, *arguments: Any) -> dict[str, Any]:
            quote = normalize(symbol, *arguments)
            frame = _frame.get()
            if frame is not None:
                part = frame.parts.get(symbol, 0)
                frame.parts[symbol] = part + 1
                self._note_take(frame, symbol, part, quote)
            return quote

        return marked

    def _note_take(
        self, frame: Frame, symbol: str, part: int, quote: dict[str, Any]
    ) -> None:
        self.settle()
        market = self._numbers.get(symbol)
        if market is None or frame.epoch != self._sink.epoch:
            return
        self._takes += 1
        self._taken = events.Quoted(frame=frame.number, market=market, part=part)
        quote[MARK] = Mark(self._takes, frame.epoch, quote["ticks"])

    # Pushes

    def push(self, quote: Any) -> None:
        """A quote was pushed; one that cannot be written is a hole, and no error."""
        try:
            self._push(quote)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            self._sink.lose(f"a quote cannot be written: {error!r}")

    def _push(self, quote: Any) -> None:
        mark = _mark_of(quote)
        if mark is None or mark.epoch != self._sink.epoch:
            self.write(Kind.QUOTE, _quoted(quote))
            return
        try:
            places = _places(quote["ticks"], mark.ticks)
        except ValueError:
            self.write(Kind.QUOTE, _quoted(quote))
            return
        taken = self._taken
        if taken is not None and mark.take == self._takes and places is None:
            self._taken = None
            self._sink.write(Kind.QUOTE, events.encode_body(taken), self.source)
        else:
            self.write(Kind.QUOTE, events.Quoted(take=mark.take, places=places))

    def push_ticks(self, market: int, records: NDArray[np.void]) -> None:
        """Records of the tick ring's shape were pushed."""
        body = np.ascontiguousarray(records, TICK_DTYPE).tobytes()
        self.write(Kind.QUOTE, events.Quoted(market=market, records=body))


def _mark_of(quote: Any) -> Mark | None:
    """The mark of a quote, or that of its ticks."""
    if type(quote) is not dict:
        return None
    mark: Mark | None = quote.get(MARK)
    if mark is None and quote.get("ticks") and type(quote["ticks"][0]) is dict:
        mark = quote["ticks"][0].get(MARK)
    return mark


def _places(ticks: list[Any], of: list[Any]) -> list[int] | None:
    """Where ticks are among those of a take; None: all of them, as they are there.

    Raises ValueError for one that is not there.
    """
    if ticks is of:
        return None
    at = {id(tick): place for place, tick in enumerate(of)}
    places = [at.get(id(tick), -1) for tick in ticks]
    if -1 in places:
        raise ValueError("a tick of another take")
    return None if places == list(range(len(of))) else places


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "type": str,
    "price": float,
    "size": float,
    "time_ns": index,
    "time": float,
    "id": index,
    "side": lambda side: str(side) if isinstance(side, str) else int(side),
    "count": index,
}
"""Fields of a tick, and what the engine makes of them."""


def _quoted(quote: Any) -> events.Quoted:
    """A quote that the engine has taken, as plain numbers and text."""
    get = quote.get if isinstance(quote, Mapping) else lambda key: getattr(quote, key)
    last = get("last")
    return events.Quoted(
        symbol=str(get("symbol")),
        ticks=[_ticked(tick) for tick in get("ticks") or ()],
        last=float(last) if last is not None and _is_number(last) else None,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | Decimal) and not isinstance(value, bool)


def _ticked(tick: Any) -> dict[str, Any]:
    if not isinstance(tick, dict):
        tick = {name: getattr(tick, name) for name in _FIELDS}
    if tick["type"] not in TICK_TYPES:  # the engine has not looked at the rest
        return {"type": str(tick["type"])}
    return {
        name: read(tick[name])
        for name, read in _FIELDS.items()
        if tick.get(name) is not None
    }


def tap_of(thing: Any) -> Tap | None:
    """The tap of a channel or a market's handle, if it has one."""
    tap = getattr(thing, "tap", None)
    return tap if isinstance(tap, Tap) else None
