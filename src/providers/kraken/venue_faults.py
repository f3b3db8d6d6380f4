"""Faults of a simulated Kraken: every way a venue fails its clients, on a switch."""

import random
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from piker_core.simulation.market import Rows


class FaultSite(Protocol):
    """What the faults need of the venue they are switched on in."""

    def cut_connections(self) -> int:
        """Reset every WebSocket connection; returns how many."""

    def freeze_connections(self) -> int:
        """Make the open WebSocket connections silent and deaf; returns how many."""

    def close_connections(self, code: int, reason: str) -> int:
        """Close every WebSocket connection with a handshake; returns how many."""

    def broadcast_raw(self, text: bytes) -> int:
        """Send text as it is to every WebSocket connection; returns to how many."""

    def start_maintenance(self, seconds: float) -> None:
        """Run the sequence maintenance, cancel_only, post_only, online."""


MALFORMED: dict[str, bytes] = {
    "broken_json": b'{"channel":"trade","type":"update","data":[{"symbol":',
    "not_json": b"\x7f\x00 upstream connect error",
    "empty": b"",
    "array": b"[1,2,3]",
    "scalar": b"null",
    "unknown_channel": b'{"channel":"weather","type":"update","data":[{"rain":1}]}',
    "unknown_method": b'{"method":"haiku","success":true,"result":{}}',
    "unknown_type": b'{"channel":"trade","type":"delta","data":[]}',
    "object_as_list": b'{"channel":"trade","type":"update","data":{}}',
    "null_rows": b'{"channel":"trade","type":"update","data":null}',
    "wrong_types": (
        b'{"channel":"trade","type":"update","data":[{"symbol":7,"side":[],"price":'
        b'"high","qty":{},"ord_type":null,"trade_id":"x","timestamp":1}]}'
    ),
    "nan_price": (
        b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy",'
        b'"price":NaN,"qty":0.1,"ord_type":"limit","trade_id":900000000001,'
        b'"timestamp":"2026-01-01T00:00:00.000000Z"}]}'
    ),
    "nan_text_price": (
        b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy",'
        b'"price":"NaN","qty":0.1,"ord_type":"limit","trade_id":900000000002,'
        b'"timestamp":"2026-01-01T00:00:00.000000Z"}]}'
    ),
    "infinite_price": (
        b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy",'
        b'"price":1e999,"qty":0.1,"ord_type":"limit","trade_id":900000000003,'
        b'"timestamp":"2026-01-01T00:00:00.000000Z"}]}'
    ),
    "negative_size": (
        b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy",'
        b'"price":83000.1,"qty":-0.1,"ord_type":"limit","trade_id":900000000004,'
        b'"timestamp":"2026-01-01T00:00:00.000000Z"}]}'
    ),
    "missing_fields": (
        b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD",'
        b'"price":83000.1}]}'
    ),
    "unknown_symbol": (
        b'{"channel":"trade","type":"update","data":[{"symbol":"XYZ/ABC","side":"buy",'
        b'"price":1.0,"qty":0.1,"ord_type":"limit","trade_id":5,'
        b'"timestamp":"2026-01-01T00:00:00.000000Z"}]}'
    ),
    "bad_time": (
        b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy",'
        b'"price":83000.1,"qty":0.1,"ord_type":"limit","trade_id":900000000005,'
        b'"timestamp":"yesterday"}]}'
    ),
    "large": b'{"channel":"weather","data":"' + b"x" * 700_000 + b'"}',
    "giant": b'{"channel":"weather","data":"' + b"x" * 4_000_000 + b'"}',
}
"""Broken frames by name. `giant` passes the 1 MiB most clients accept."""

_AT_RATE = tuple(text for name, text in MALFORMED.items() if name != "giant")


class Faults:
    """Switches, each to be called at any time; rates are parts of all trade frames."""

    def __init__(self, site: FaultSite, seed: int) -> None:
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
        self.throttled_until: int | None = None

    # WebSocket connections

    def cut(self) -> int:
        """Reset every WebSocket connection (TCP RST); returns how many."""
        return self._count("cut", self._site.cut_connections())

    def close(
        self, code: int = 1001, reason: str = "CloudFlare WebSocket proxy restarting"
    ) -> int:
        """Close every WebSocket connection with a close frame; returns how many."""
        return self._count("close", self._site.close_connections(code, reason))

    def refuse_connections(self, on: bool = True) -> None:
        """Accept WebSocket connections and close them before the handshake."""
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
        """Swallow subscribe requests: no ack, no frames of that channel."""
        self.acks_silent = on

    def refuse_symbol(self, symbol: str, on: bool = True) -> None:
        """Answer subscriptions of a symbol with `Currency pair not supported`."""
        (self.refused_symbols.add if on else self.refused_symbols.discard)(symbol)

    # Trade frames

    def duplicate(self, rate: float) -> None:
        """Send trade frames twice."""
        self._set_rate("duplicate", rate)

    def disorder(self, rate: float) -> None:
        """Send trade frames after the next one, or swap trades between the two."""
        self._set_rate("disorder", rate)

    def drop(self, rate: float) -> None:
        """Silently lose trade frames."""
        self._set_rate("drop", rate)

    def malformed(self, rate: float | Iterable[str | bytes]) -> None:
        """Put broken frames between trade frames, or send the listed ones at once.

        A list holds names of `MALFORMED` or raw texts; each goes to every connection.
        """
        if isinstance(rate, (int, float)):
            self._set_rate("malformed", rate)
            return
        for text in rate:
            raw = text.encode() if isinstance(text, str) else text
            if isinstance(text, str) and text in MALFORMED:
                raw = MALFORMED[text]
            self._count("malformed", self._site.broadcast_raw(raw))

    # REST and the whole venue

    def throttle(self, calls: int, *, until_s: int | None = None) -> None:
        """Answer the next calls `EGeneral:Too many requests` with HTTP 200.

        With `until_s`, a Unix time, `EService: Throttled: <until_s>` instead.
        """
        self._rest["throttle"] = calls
        self.throttled_until = until_s

    def html(self, calls: int) -> None:
        """Answer the next calls HTTP 502 with an HTML body."""
        self._rest["html"] = calls

    def unavailable(self, calls: int) -> None:
        """Answer the next calls `EService:Unavailable` with HTTP 200."""
        self._rest["unavailable"] = calls

    def slow_rest(self, seconds: float) -> None:
        """Wait this long before each REST answer."""
        self.slow_rest_s = seconds

    def maintenance(self, seconds: float) -> None:
        """Go through maintenance, cancel_only and post_only back to online.

        Half of the time is maintenance; nothing trades until the venue is online.
        """
        self._count("maintenance", 1)
        self._site.start_maintenance(seconds)

    # What the venue asks

    def take_rest(self) -> str | None:
        """The fault of the next REST call, if one is due."""
        for name, left in self._rest.items():
            if left > 0:
                self._rest[name] = left - 1
                self._count(name, 1)
                return name
        return None

    def broken_frame(self) -> bytes | None:
        """A broken frame to send before the next trade frame, if one is due."""
        return self._rng.choice(_AT_RATE) if self._hit("malformed") else None

    def shape(self, held: list[Rows], rows: Rows) -> list[Rows]:
        """The trade frames to send in place of one, on one connection and pair.

        `held` keeps, between calls, the frame that was put off.
        """
        if self._hit("drop"):
            return []
        if held:
            late = held.pop()
            frames = [rows, late]
            if self._rng.random() < 0.5:
                frames = list(_swap(late, rows))
        elif self._hit("disorder"):
            held.append(rows.copy())
            return []
        else:
            frames = [rows]
        return [
            copy for frame in frames for copy in [frame] * (1 + self._hit("duplicate"))
        ]

    def shuffle(self, names: list[str]) -> list[str]:
        """The names in another order: acks come in any."""
        return self._rng.sample(names, len(names))

    def _set_rate(self, name: str, rate: float) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"{name} rate {rate} is not between 0 and 1")
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


def _swap(first: Rows, second: Rows) -> tuple[Rows, Rows]:
    """The two frames with the last trade of one and the first of the other swapped."""
    first, second = np.copy(first), np.copy(second)
    kept = first[-1].copy()
    first[-1] = second[0]
    second[0] = kept
    return first, second
