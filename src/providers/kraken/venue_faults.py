"""Faults of a simulated Kraken: every way a venue fails its clients, on a switch."""

import numpy as np

from piker_core.simulation.faults import Faults as CommonFaults
from piker_core.simulation.faults import FaultSite
from piker_core.simulation.totals import Rows

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


class Faults(CommonFaults[Rows]):
    """Switches, each to be called at any time; rates are parts of all trade frames.

    Frames are the bursts of `TRADE_ROW` that go into one. A symbol that is refused is
    answered `Currency pair not supported`, `unavailable` is `EService:Unavailable` with
    HTTP 200, `html` is HTTP 502. Of a maintenance half is maintenance, then come
    cancel_only and post_only.
    """

    def __init__(self, site: FaultSite, seed: int) -> None:
        super().__init__(site, seed, MALFORMED, too_large=["giant"])
        self.throttled_until: int | None = None

    def close(
        self, code: int = 1001, reason: str = "CloudFlare WebSocket proxy restarting"
    ) -> int:
        """Close every WebSocket connection with a close frame; returns how many."""
        return super().close(code, reason)

    def throttle(self, calls: int, *, until_s: int | None = None) -> None:
        """Answer the next calls `EGeneral:Too many requests` with HTTP 200.

        With `until_s`, a Unix time, `EService: Throttled: <until_s>` instead.
        """
        self._rest["throttle"] = calls
        self.throttled_until = until_s

    def mix(self, late: Rows, frame: Rows) -> list[Rows]:
        """The later one first, or trades swapped between the two."""
        if self._rng.random() < 0.5:
            return list(_swap(late, frame))
        return [frame, late]


def _swap(first: Rows, second: Rows) -> tuple[Rows, Rows]:
    """The two frames with the last trade of one and the first of the other swapped."""
    first, second = np.copy(first), np.copy(second)
    kept = first[-1].copy()
    first[-1] = second[0]
    second[0] = kept
    return first, second
