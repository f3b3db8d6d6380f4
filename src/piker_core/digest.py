"""Digests of bars, by which those of a feed, a replay and a history are compared.

1. A row counts if something traded in it. Flat rows (nothing traded, all prices the
   previous close) and placeholders of a gap (SYNTHETIC_GAP) are no statement of the
   venue's, and whether they exist depends on the feed and on `fill`: they do not count.
   Nor do PARTIAL rows, which tell of a part of their bar.
2. The forming row is for the caller to leave out: only he knows which one it is.
3. `index` and `flags` do not count: they say where a row came from. All else does, bit
   for bit: `time i8, open f8, high f8, low f8, close f8, volume f8, count i8,
   bar_wap f8`, little endian, 64 bytes a row, ascending by time.
4. -0.0 is 0.0, and every NaN the quiet one without a payload (7ff8000000000000).
5. The digest is BLAKE2b of 16 bytes over those of a UTC day, with the person
   `piker-bars-1`. The day of a row is that of its open. Market and period are not in
   it, so that bars of one market under two names can be compared.
"""

from datetime import UTC, datetime
from hashlib import blake2b

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.dtypes import OHLCV_DTYPE, BarFlag

PERSON = b"piker-bars-1"
DAY_S = 86_400
COUNTED = np.dtype(
    [
        (name, OHLCV_DTYPE[name])
        for name in OHLCV_DTYPE.names or ()
        if name not in ("index", "flags")
    ]
)
_PRICES = ("open", "high", "low", "close")
_UNKNOWN = int(BarFlag.SYNTHETIC_GAP | BarFlag.PARTIAL)


class DayDigest(msgspec.Struct, frozen=True, order=True):
    """Digest of a market's bars of one UTC day (`2026-01-31`) and how many counted."""

    market: str
    period: int
    day: str
    rows: int
    digest: str


def day_digests(fqme: str, period: int, rows: NDArray[np.void]) -> list[DayDigest]:
    """Digests of rows of OHLCV_DTYPE, ascending by time, a day each; see above.

    Days without a row that counts have none. Raises ValueError if times do not ascend.
    """
    if len(rows) and (np.diff(rows["time"]) <= 0).any():
        raise ValueError(f"rows of {fqme}, {period} s: their times do not ascend")
    counted = counted_rows(rows)
    days = counted["time"] // DAY_S
    starts = np.flatnonzero(np.diff(days, prepend=days[:1] - 1))
    return [
        DayDigest(
            fqme,
            period,
            datetime.fromtimestamp(int(part["time"][0]), UTC).date().isoformat(),
            len(part),
            blake2b(part.tobytes(), digest_size=16, person=PERSON).hexdigest(),
        )
        for part in np.split(counted, starts[1:])
        if len(part)
    ]


def counted_rows(rows: NDArray[np.void]) -> NDArray[np.void]:
    """The rows that count, their fields canonical; a copy of dtype `COUNTED`."""
    price = rows["close"]
    flat = (rows["count"] == 0) & (rows["volume"] == 0)
    for name in _PRICES:
        flat &= rows[name] == price
    known = rows[~flat & (rows["flags"] & _UNKNOWN == 0)]
    counted = np.empty(len(known), COUNTED)
    for name in COUNTED.names or ():
        column = known[name]
        if COUNTED[name].kind == "f":
            column = np.where(np.isnan(column), np.nan, column + 0.0)
        counted[name] = column
    return counted
