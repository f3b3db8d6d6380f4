"""Faults of simulated venues: the ways venues fail their clients, each on a switch.

What a fault looks like on the wire is the venue's own; how often and to whom it happens
is decided here.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Generic, Protocol, TypeVar

F = TypeVar("F")


class Lines(Protocol):
    """What the switches need of the venue that they are in."""

    def cut_connections(self) -> int:
        """Reset every connection; returns how many."""

    def freeze_connections(self) -> int:
        """Make the open connections silent and deaf; returns how many."""


class FaultSite(Lines, Protocol):
    """What the faults need of the venue they are switched on in."""

    def close_connections(self, code: int, reason: str) -> int:
        """Close every WebSocket connection with a handshake; returns how many."""

    def broadcast_raw(self, text: bytes) -> int:
        """Send text as it is to every WebSocket connection; returns to how many."""

    def start_maintenance(self, seconds: float) -> None:
        """Stop trading, and be back online after so long."""


class Switches(Generic[F]):
    """Those that any venue has; rates are parts of all trade frames.

    A trade frame is what a client is sent at once of one market.
    """

    _site: Lines

    def __init__(self, site: Lines, seed: int) -> None:
        self._site = site
        self._rng = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.refusing = False
        self.frozen = False
        self.acks_silent = False
        self.refused_symbols: set[str] = set()
        self.slow_rest_s = 0.0
        self._rates: dict[str, float] = {}
        self._rest: dict[str, int] = {}

    def cut(self) -> int:
        """Reset every connection (TCP RST); returns how many."""
        return self._count("cut", self._site.cut_connections())

    def refuse_connections(self, on: bool = True) -> None:
        """Accept connections and close them before the handshake."""
        self.refusing = on

    def half_open(self, on: bool = True) -> None:
        """Keep sockets open, send nothing, swallow everything (pings too).

        A connection that was open meanwhile stays dead for good, as a half-open TCP
        connection does; connections made after `half_open(False)` work.
        """
        self.frozen = on
        if on:
            self._count("half_open", self._site.freeze_connections())

    def silent_acks(self, on: bool = True) -> None:
        """Swallow subscribe requests: no ack, no frames of what they name."""
        self.acks_silent = on

    def refuse_symbol(self, symbol: str, on: bool = True) -> None:
        """Treat new requests for a symbol as the venue treats unknown ones."""
        (self.refused_symbols.add if on else self.refused_symbols.discard)(symbol)

    def duplicate(self, rate: float) -> None:
        """Send trade frames twice."""
        self._set_rate("duplicate", rate)

    def disorder(self, rate: float) -> None:
        """Send trade frames after the next one, or mix the two."""
        self._set_rate("disorder", rate)

    def drop(self, rate: float) -> None:
        """Silently lose trade frames."""
        self._set_rate("drop", rate)

    def unavailable(self, calls: int) -> None:
        """Answer the next calls that the service is unavailable."""
        self._rest["unavailable"] = calls

    def slow_rest(self, seconds: float) -> None:
        """Wait this long before each answer."""
        self.slow_rest_s = seconds

    # What the venue asks

    def take_rest(self) -> str | None:
        """The fault of the next call, if one is due."""
        for name, left in self._rest.items():
            if left > 0:
                self._rest[name] = left - 1
                self._count(name, 1)
                return name
        return None

    def shape(self, held: list[F], frame: F) -> list[F]:
        """The trade frames to send in place of one, on one connection and pair.

        `held` keeps, between calls, the frame that was put off.
        """
        if self._hit("drop"):
            return []
        if held:
            frames = self.mix(held.pop(), frame)
        elif self._hit("disorder"):
            held.append(frame)
            return []
        else:
            frames = [frame]
        return [copy for row in frames for copy in [row] * (1 + self._hit("duplicate"))]

    def mix(self, late: F, frame: F) -> list[F]:
        """What becomes of a frame that was put off and the next one."""
        return [frame, late]

    def _set_rate(self, name: str, rate: float) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"{name} rate {rate} is not between 0 and 1")
        self._rates.pop(name, None)
        if rate:
            self._rates[name] = rate

    def _hit(self, name: str) -> bool:
        rate = self._rates.get(name, 0.0)
        hit = rate > 0 and self._rng.random() < rate
        if hit:
            self._count(name, 1)
        return hit

    def _count(self, name: str, times: int) -> int:
        self.done[name] += times
        return times


class Faults(Switches[F]):
    """Switches, each to be called at any time, of a venue of WebSocket and REST.

    `broken` holds the frames of `malformed` by name, as an attribute the names alone;
    those in `too_large` are sent only when asked for by name.
    """

    _site: FaultSite

    def __init__(
        self,
        site: FaultSite,
        seed: int,
        broken: Mapping[str, bytes],
        *,
        too_large: Iterable[str] = (),
    ) -> None:
        super().__init__(site, seed)
        self.broken = tuple(broken)
        self._broken = broken
        self._at_rate = [
            text for name, text in broken.items() if name not in set(too_large)
        ]

    def close(self, code: int = 1001, reason: str = "") -> int:
        """Close every WebSocket connection with a close frame; returns how many."""
        return self._count("close", self._site.close_connections(code, reason))

    def malformed(self, rate: float | Iterable[str | bytes]) -> None:
        """Put broken frames between trade frames, or send the listed ones at once.

        A list holds names of broken frames or raw texts; each goes to every connection.
        """
        if isinstance(rate, (int, float)):
            self._set_rate("malformed", rate)
            return
        for text in rate:
            raw = text.encode() if isinstance(text, str) else text
            if isinstance(text, str) and text in self._broken:
                raw = self._broken[text]
            self._count("malformed", self._site.broadcast_raw(raw))

    def html(self, calls: int) -> None:
        """Answer the next calls with a gateway's HTML page."""
        self._rest["html"] = calls

    def maintenance(self, seconds: float) -> None:
        """Trade nothing for so long, in the stages the venue goes through."""
        self._count("maintenance", 1)
        self._site.start_maintenance(seconds)

    # What the venue asks

    @property
    def calm(self) -> bool:
        """Whether no fault of trade frames is on."""
        return not self._rates

    def broken_frame(self) -> bytes | None:
        """A broken frame to send before the next trade frame, if one is due."""
        return self._rng.choice(self._at_rate) if self._hit("malformed") else None

    def shuffle(self, names: list[str]) -> list[str]:
        """The names in another order: acks come in any."""
        return self._rng.sample(names, len(names))
