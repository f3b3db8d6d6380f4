"""Rows for tests of stores: each bit of a row follows from its time and version."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import piker_core as pk

JAN_S = 1_704_067_200
"""2024-01-01 00:00 UTC."""
FEB_S = JAN_S + 31 * 86_400
VALUES = tuple(name for name in pk.OHLCV_DTYPE.names or () if name != "index")
ODD = (-0.0, 5e-324, -2.5e-310, np.inf, 1.7976931348623157e308, 0.1 + 0.2)
PAYLOAD = np.array([0x7FF8_0000_DEAD_BEEF, 0xFFF0_0000_0000_0001], "u8").view("f8")
"""NaNs with something in them, a signalling one too."""


def bars(
    times: Iterable[int] | NDArray[Any], version: int | NDArray[np.int64] = 0
) -> NDArray[np.void]:
    """Rows of these times, different in every field from those of other versions."""
    listed = times if isinstance(times, np.ndarray) else list(times)
    own: NDArray[np.int64] = np.asarray(listed, np.int64)
    versions: NDArray[np.int64] = np.asarray(version, np.int64)
    rows = np.zeros(len(own), pk.OHLCV_DTYPE)
    rows["time"], rows["index"] = own, 2**40 + np.arange(len(own))
    for number, name in enumerate(VALUES[1:]):
        word = own * 1_000_003 + versions * 7_919 + number
        word = (word ^ (word >> 29)) * 0x5851_F42D_4C95_7F2D
        word ^= word >> 31
        if rows.dtype[name].kind == "f":
            rows[name] = 100.0 + (word & (2**52 - 1)) * 2.0**-52
        else:
            rows[name] = word & 31
    rows["count"] = version
    return rows


def every(start_s: int, count: int, period: int = 60) -> NDArray[np.int64]:
    """So many times from one on."""
    return start_s + period * np.arange(count)


def words(rows: NDArray[np.void]) -> list[list[int]]:
    """All bits of all fields but `index`."""
    table = np.ascontiguousarray(rows).view("i8").reshape(len(rows), 1 + len(VALUES))
    columns: list[list[int]] = table[:, 1:].tolist()
    return columns


def check_same(rows: NDArray[np.void], wanted: NDArray[np.void]) -> None:
    """Rows as a store gives them equal others in every bit."""
    assert rows.dtype == pk.OHLCV_DTYPE
    assert rows["index"].tolist() == list(range(len(rows)))
    assert rows["time"].tolist() == wanted["time"].tolist()
    assert words(rows) == words(wanted)
