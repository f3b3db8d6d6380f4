"""The numpy layouts of a bar row, a tick record and a gap record, and their codes."""

from enum import IntFlag
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

OHLCV_DTYPE = np.dtype(
    [
        ("index", "<i8"),
        ("time", "<i8"),
        ("open", "<f8"),
        ("high", "<f8"),
        ("low", "<f8"),
        ("close", "<f8"),
        ("volume", "<f8"),
        ("count", "<i8"),
        ("bar_wap", "<f8"),
        ("flags", "<i8"),
    ]
)

TICK_DTYPE = np.dtype(
    {
        "names": [
            "seq",
            "time_ns",
            "recv_ns",
            "price",
            "size",
            "id",
            "market",
            "count",
            "type",
            "side",
            "flags",
        ],
        "formats": [
            "<u8",
            "<i8",
            "<i8",
            "<f8",
            "<f8",
            "<i8",
            "<u4",
            "<u4",
            "<u2",
            "i1",
            "u1",
        ],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 52, 56, 58, 59],
        "itemsize": 64,
    }
)

GAP_DTYPE = np.dtype(
    [("start_ns", "<i8"), ("end_ns", "<i8"), ("cause", "S40"), ("repaired", "<i8")]
)

TICK_TYPES = MappingProxyType(
    {
        "trade": 1,
        "utrade": 2,
        "dark_trade": 3,
        "bid": 4,
        "ask": 5,
        "bsize": 6,
        "asize": 7,
        "last": 8,
        "volume": 9,
    }
)

STATUSES = (
    "starting",
    "live",
    "stale",
    "reconnecting",
    "backfilling",
    "closed",
    "stopped",
)


class BarFlag(IntFlag):
    """Bits of a row's `flags`."""

    FLAT = 1
    """No trade in the bar: all prices are the previous close."""
    PARTIAL = 2
    """Opened in mid-bar: what traded before in it is unknown."""
    BACKFILLED = 4
    """Prepended from history."""
    REVISED = 8
    """Changed after its end by a late trade."""
    REPAIRED = 16
    """Lost to a gap, then made exact from the venue's trades."""
    SYNTHETIC_GAP = 32
    """Placeholder for an interval without a feed; not a statement about trading."""


def session_array(sessions: "ArrayLike") -> "NDArray[np.int64]":
    """Sessions as rows of (open_ns, close_ns), UTC.

    Raises TypeError for what is no array of whole numbers, ValueError if they do not
    ascend or overlap.
    """
    spans = np.asarray(sessions)
    if spans.size == 0:
        return np.zeros((0, 2), np.int64)
    if spans.ndim != 2 or spans.shape[1] != 2 or spans.dtype.kind != "i":
        raise TypeError(
            "sessions are rows of (open_ns, close_ns), whole numbers, "
            f"not {sessions!r:.80}"
        )
    own = np.ascontiguousarray(spans, np.int64)
    if (own[:, 0] >= own[:, 1]).any() or (own[:-1, 1] > own[1:, 0]).any():
        raise ValueError(
            "sessions ascend, each from its opening to a later close, without overlap"
        )
    return own
