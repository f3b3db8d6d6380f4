"""Faults of a simulated gateway: every way TWS fails its clients, on a switch."""

from collections.abc import Iterable
from typing import Protocol

from piker_core.simulation.faults import Lines, Switches

from .venue_frames import frame

Group = list[bytes]
"""Frames that tell one client of the same event."""


class FaultSite(Lines, Protocol):
    """What the faults need of the venue they are switched on in."""

    def close_connections(self) -> int:
        """Close every connection in order; returns how many."""

    def broadcast_malformed(self, broken: str | bytes) -> int:
        """Send a broken frame to every connection; returns to how many."""

    def notify(self, code: int) -> None:
        """Tell every client a system code, and let it come true."""

    def begin_outage(self, seconds: float, lost: bool) -> None:
        """Be without connection for so long, then 1101 or 1102."""

    def begin_restart(self, seconds: float) -> None:
        """Be away for so long: no connections, the port closed."""

    def begin_competition(self) -> None:
        """End all market data: it goes to another session."""

    def reset_volume(self) -> None:
        """Begin the day's volume of every contract at 0."""


ID = "{id}"
"""Stands for the request id of a subscription."""
_MESSAGES: dict[str, tuple[object, ...]] = {
    "unknown_message": (250, 1, "weather", "rain"),
    "no_number": ("haiku", 1),
    "no_fields": (),
    "truncated": (1, 6, ID),
    "letters": (1, 6, ID, 4, "high", "many", 0),
    "more_fields": (1, 6, ID, 4, 100.5, 100, 0, "and", "more"),
    "nan_price": (1, 6, ID, 4, "NaN", 100, 0),
    "infinite_price": (1, 6, ID, 4, "Infinity", 100, 0),
    "unset_price": (1, 6, ID, 4, "1.7976931348623157E308", 100, 0),
    "negative_price": (1, 6, ID, 4, "-5", 100, 0),
    "negative_size": (2, 6, ID, 8, "-100"),
    "unset_size": (2, 6, ID, 8, "9223372036854775807"),
    "unknown_request": (1, 6, 987654321, 4, 100.5, 100, 0),
    "unknown_tick": (1, 6, ID, 998, 100.5, 100, 0),
    "letters_volume": (46, 6, ID, 48, "a;b;c;d;e;f"),
    "short_volume": (46, 6, ID, 48, "100.5;1"),
    "empty_volume": (46, 6, ID, 48, ""),
    "bad_time_volume": (46, 6, ID, 48, "100.5;1;yesterday;1000;100.5;true"),
    "letters_tick_by_tick": (99, ID, 2, "now", "high", "many", 0, "NYSE", ""),
    "unknown_tick_by_tick": (99, ID, 9, 1700000000, 1, 1, 0),
    "unknown_error": (4, 2, -1, 99999, "A code that nobody knows"),
    "large": (4, 2, -1, 2100, "x" * 700_000),
}
_RAW: dict[str, bytes] = {
    "giant_length": b"\x7f\xff\xff\xff4\x002\x00",
    "zero_length": b"\0\0\0\0",
    "garbage": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "partial": b"\0\0\1\0004\x002\x00-1\x00",
    "no_end": b"\0\0\0\x0749\x001\x0017",
    "bad_utf8": b"\0\0\0\x0e4\x002\x00-1\x002100\x00\xff\x00",
}
_RESTART_S = 1.0
MALFORMED = (*_MESSAGES, *_RAW)
"""Names of broken frames. Those after `large` break the framing or its encoding."""


def malformed_frame(name: str, request_id: int) -> bytes:
    """A broken frame, aimed at a subscription."""
    if name in _RAW:
        return _RAW[name]
    fields = _MESSAGES[name]
    return frame(*(request_id if field == ID else field for field in fields))


class Faults(Switches[Group]):
    """Switches, each to be called at any time; rates are parts of all tick groups.

    A tick group is what one client is sent at once for one subscription. What is asked
    for while acknowledgements are silent is swallowed; a symbol that is refused has
    delayed data alone. `unavailable` is 165 to requests for history, no server for it.
    """

    broken = MALFORMED
    _site: FaultSite

    def __init__(self, site: FaultSite, seed: int) -> None:
        super().__init__(site, seed)
        self.bytewise = False
        self.competing = False
        self.tick_slots = 5
        self._silent: set[str | None] = set()

    # Connections

    def close(self) -> int:
        """Close every connection (TCP FIN); returns how many."""
        return self._count("close", self._site.close_connections())

    def restart(self, seconds: float) -> None:
        """The daily restart: connections end, the port is closed for so long."""
        self._count("restart", 1)
        self._site.begin_restart(seconds)

    def rotate(self) -> None:
        """The daily restart, a short one."""
        self.restart(_RESTART_S)

    def byte_at_a_time(self, on: bool = True) -> None:
        """Send every byte by itself."""
        self.bytewise = on

    # What the gateway says of itself

    def connectivity(self, code: int) -> None:
        """Tell every client a system code, and let it come true.

        1100 (lost), 2103 (market data farm) and 2105 (history farm) stop the data;
        2104 and 2106, 1102 (kept) and 1101 (subscriptions lost) bring them back.
        What is asked for while the connection is lost is never answered.
        """
        self._count("connectivity", 1)
        self._site.notify(code)

    def outage(self, seconds: float, *, lost: bool = False) -> None:
        """1100, and after so long 1102, or 1101 if the subscriptions are lost."""
        self._count("outage", 1)
        self._site.begin_outage(seconds, lost)

    def silent(self, on: bool = True, *, symbol: str | None = None) -> None:
        """Send no market data, of one contract or at all; requests are answered."""
        (self._silent.add if on else self._silent.discard)(symbol)

    def competing_session(self, on: bool = True) -> None:
        """Another session has the market data: 10197 to every subscription."""
        self.competing = on
        if on:
            self._count("competing_session", 1)
            self._site.begin_competition()

    def slots(self, count: int) -> None:
        """How many tick-by-tick subscriptions there may be; 10190 beyond that."""
        self.tick_slots = count

    def reset_volume(self) -> None:
        """Begin the day's volume at 0, as the turn of the trading day does."""
        self._count("reset_volume", 1)
        self._site.reset_volume()

    # Ticks

    def malformed(self, rate: float | Iterable[str | bytes]) -> None:
        """Put broken frames before tick groups, or send the listed ones at once.

        A list holds names of `MALFORMED` or raw bytes; each goes to every connection.
        By rate no frame breaks the framing.
        """
        if isinstance(rate, (int, float)):
            self._set_rate("malformed", rate)
            return
        for broken in rate:
            if isinstance(broken, str) and broken not in MALFORMED:
                known = ", ".join(MALFORMED)
                raise ValueError(f"no broken frame {broken!r}: there are {known}")
            self._count("malformed", self._site.broadcast_malformed(broken))

    # History

    def history_never_answers(self, requests: int) -> None:
        """Swallow the next requests for history."""
        self._rest["history_never_answers"] = requests

    def throttle(self, calls: int) -> None:
        """Answer the next requests for history with 162, pacing violation."""
        self._rest["throttle"] = calls

    # What the venue asks

    def muted(self, symbol: str) -> bool:
        """Whether no market data of a contract may be sent."""
        return None in self._silent or symbol in self._silent

    def shape_for(
        self, held: list[Group], group: Group, request_id: int
    ) -> list[Group]:
        """The groups to send in place of one; `held` keeps what is put off."""
        return self._broken_group(request_id) + self.shape(held, group)

    def _broken_group(self, request_id: int) -> list[Group]:
        if not self._hit("malformed"):
            return []
        return [[malformed_frame(self._rng.choice(tuple(_MESSAGES)), request_id)]]
