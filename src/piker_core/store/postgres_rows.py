"""Rows as PostgreSQL's binary formats have them, put there and back by numpy.

COPY: https://www.postgresql.org/docs/current/sql-copy.html (Binary Format)
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from piker_core.dtypes import OHLCV_DTYPE
from piker_core.store.rows import numbered

Rows = NDArray[np.void]

FIELDS = tuple(name for name in OHLCV_DTYPE.names or () if name != "index")
"""Columns of a row: `index` belongs to a ring and is not stored."""
GAP_FIELDS = ("time", "flags")
"""What of a row says where holes are."""
_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TAIL = b"\xff\xff"


def _big_endian(name: str) -> str:
    return ">" + OHLCV_DTYPE[name].str[1:]


_COPIED = np.dtype(
    [("fields", ">i2")]
    + [
        part
        for name in FIELDS
        for part in ((f"{name} size", ">i4"), (name, _big_endian(name)))
    ]
)
"""A row of COPY: how many fields, then each with its length before it."""


def copy_bytes(rows: Rows) -> bytes:
    """Rows as the whole text of a binary COPY with the columns `FIELDS`."""
    copied = np.zeros(len(rows), _COPIED)
    copied["fields"] = len(FIELDS)
    for name in FIELDS:
        copied[f"{name} size"] = OHLCV_DTYPE[name].itemsize
        copied[name] = rows[name]
    return _HEAD + copied.tobytes() + _TAIL


def joined_rows(blocks: Iterable[bytes], fields: Sequence[str] = FIELDS) -> Rows:
    """`OHLCV_DTYPE` rows, ascending and numbered, of blocks of values in network order.

    Fields that the blocks have not are 0.
    """
    values = np.dtype([(name, _big_endian(name)) for name in fields])
    parts = [np.frombuffer(block, values) for block in blocks]
    rows = np.zeros(sum(map(len, parts)), OHLCV_DTYPE)
    start = 0
    for part in parts:
        span: Any = rows[start : start + len(part)]
        for name in fields:
            span[name] = part[name]
        start += len(part)
    if not (np.diff(rows["time"]) > 0).all():
        rows = rows[np.argsort(rows["time"], kind="stable")]
    return numbered(rows)
