"""The tape of a market written into a journal, and played again.

Its state is what its calls have made of it, and nothing else: so the calls are written
down, of `take` the message that TWS has sent, and a replay makes them again. What a
message means is decoded in both cases by `codec` and `tape`.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from piker_core.adapter.frames import Tapes
from piker_core.adapter.tap import Frame, Tap

from .contracts import Listing
from .library import load_codec
from .session import Session
from .tape import Tape, Tick

Message = tuple[str, tuple[Any, ...]]


class Details(msgspec.Struct, frozen=True):
    """What a tape is made of."""

    listing: Listing
    rt_volume: int


class Heard(msgspec.Struct, frozen=True):
    """Where a message came from: its frame, the version of TWS, its place in there."""

    frame: Frame
    version: int
    place: int = 0


class TappedSession:
    """What a session hears on lines of market data, written down as it comes in."""

    def __init__(self, tap: Tap, session: Session) -> None:
        self._tap, self._session = tap, session
        self._number = tap.connect(f"tws://{session.address}")
        self._fields: list[str] = []
        self._heard = Heard(Frame(0, -1), 0)

    def heard(self) -> Heard:
        """The message that is read now; called once for each thing that it tells."""
        fields = self._session.fields
        if fields is self._fields:
            self._heard = msgspec.structs.replace(
                self._heard, place=self._heard.place + 1
            )
        else:
            self._fields = fields
            raw = "\0".join(fields).encode()
            frame = self._tap.hear(self._number, raw, time.time_ns())
            self._heard = Heard(frame, self._session.version)
        return self._heard


class TappedTape:
    """A tape whose calls are written down until there is a hole in the journal.

    `heard`: the message that is taken now.
    """

    def __init__(self, tap: Tap, symbol: str, details: Details) -> None:
        self.heard: Heard | None = None
        self._tap, self._symbol = tap, symbol
        self._tape = Tape(details.listing, details.rt_volume)
        self._epoch = tap.epoch
        tap.begin(symbol, msgspec.json.encode(details))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tape, name)

    def remember(self, time_ns: int) -> None:
        """As of the tape."""
        self._tape.remember(time_ns)
        self._note("remember", time_ns)

    def begin(self, now_ns: int, *, by_tick: bool) -> None:
        """As of the tape."""
        self._tape.begin(now_ns, by_tick=by_tick)
        self._note("begin", now_ns, by_tick)

    def resume(self, now_ns: int) -> None:
        """As of the tape."""
        self._tape.resume(now_ns)
        self._note("resume", now_ns)

    def decide(self, source: str) -> None:
        """As of the tape."""
        self._tape.decide(source)
        self._note("decide", source)

    def take(self, name: str, arguments: tuple[Any, ...], now_ns: int) -> None:
        """As of the tape; what it raises is raised in a replay, too."""
        try:
            self._tape.take(name, arguments, now_ns)
        finally:
            if self._whole() and self.heard is not None:
                heard = self.heard
                given = [now_ns, heard.version, heard.place]
                self._tap.call(self._symbol, "take", given, heard.frame)

    def flush(self, now_ns: int) -> list[Tick]:
        """As of the tape."""
        ticks = self._tape.flush(now_ns)
        if self._whole():
            self._tap.call_for_ticks(self._symbol, "flush", [now_ns], ticks)
        return ticks

    def _note(self, name: str, *arguments: Any) -> None:
        if self._whole():
            self._tap.call(self._symbol, name, list(arguments))

    def _whole(self) -> bool:
        """Whether all of its calls are in the journal."""
        return self._epoch == self._tap.epoch


@cache
def _decoder(version: int) -> Callable[[bytes], list[Message]]:
    codec = load_codec()
    found: list[Message] = []
    inbox = codec.Inbox(lambda name, arguments: found.append((name, arguments[1:])))
    reader = codec.Reader(inbox, version)

    def decode(raw: bytes) -> list[Message]:
        found.clear()
        reader.interpret(raw.decode().split("\0"))
        return found

    return decode


def open_tape(details: bytes) -> Tape:
    """A market's tape as it was at first."""
    known = msgspec.json.decode(details, type=Details)
    return Tape(known.listing, known.rt_volume)


def call_tape(tape: Tape, name: str, arguments: list[Any], raw: bytes) -> list[Tick]:
    """A call that was written down; the ticks that it gives."""
    if name == "take":
        now_ns, version, place = arguments
        message, values = _decoder(version)(raw)[place]
        try:
            tape.take(message, values, now_ns)
        except Exception:  # noqa: BLE001 - as the feed has counted and left it
            return []
    elif name == "flush":
        return tape.flush(*arguments)
    elif name == "begin":
        tape.begin(arguments[0], by_tick=arguments[1])
    elif name == "resume":
        tape.resume(*arguments)
    elif name == "decide":
        tape.decide(*arguments)
    elif name == "remember":
        tape.remember(*arguments)
    else:
        raise ValueError(f"a tape knows no call {name!r}")
    return []


FRAMES = Tapes(open_tape, call_tape)
