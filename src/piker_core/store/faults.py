"""What is wrong with stored rows by themselves: times, prices, sizes, flat rows."""

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.dtypes import OHLCV_DTYPE, BarFlag

Rows = NDArray[np.void]
Mask = NDArray[np.bool_]
ROUNDING = 1e-9
"""A mean of prices may stand outside of them by this part of itself."""


class Fault(msgspec.Struct, frozen=True):
    """A row that breaks a rule. `rule` is one of `RULES`."""

    time_s: int
    rule: str
    text: str


def find_faults(rows: Rows, period: int) -> list[Fault]:
    """Every rule that a row breaks, in the order of the rows."""
    found = [
        (place, Fault(int(rows["time"][place]), rule, _told(text, rows[place])))
        for rule, (broken, text) in RULES.items()
        for place in np.flatnonzero(broken(rows, period)).tolist()
    ]
    return [fault for _, fault in sorted(found, key=lambda one: one[0])]


def _is_repeated(rows: Rows, _: int) -> Mask:
    return _after_first(np.diff(rows["time"]) == 0, len(rows))


def _is_disordered(rows: Rows, _: int) -> Mask:
    return _after_first(np.diff(rows["time"]) < 0, len(rows))


def _after_first(found: Mask, count: int) -> Mask:
    return np.concatenate([np.zeros(min(count, 1), np.bool_), found])


def _is_off_period(rows: Rows, period: int) -> Mask:
    return np.asarray((rows["time"] % period != 0) | (rows["time"] < 0))


def _is_no_number(rows: Rows, _: int) -> Mask:
    names = ("open", "high", "low", "close", "volume", "bar_wap")
    finite = [np.isfinite(rows[name]) for name in names]
    return np.asarray(~np.all(finite, axis=0))


def _is_low_high(rows: Rows, _: int) -> Mask:
    return np.asarray(rows["low"] > np.minimum(rows["open"], rows["close"]))


def _is_high_low(rows: Rows, _: int) -> Mask:
    return np.asarray(rows["high"] < np.maximum(rows["open"], rows["close"]))


def _is_mean_outside(rows: Rows, _: int) -> Mask:
    room = ROUNDING * np.abs(rows["bar_wap"])
    above = rows["bar_wap"] > rows["high"] + room
    return np.asarray(above | (rows["bar_wap"] < rows["low"] - room))


def _is_negative(rows: Rows, _: int) -> Mask:
    return np.asarray((rows["volume"] < 0) | (rows["count"] < 0))


def _is_flat_with_trades(rows: Rows, _: int) -> Mask:
    flat = (rows["flags"] & int(BarFlag.FLAT)) != 0
    moved = (rows["volume"] != 0) | (rows["count"] != 0)
    for name in ("open", "high", "low", "bar_wap"):
        moved |= rows[name] != rows["close"]
    return np.asarray(flat & moved)


_PRICES = "open {open}, high {high}, low {low}, close {close}, bar_wap {bar_wap}"
RULES: dict[str, tuple[Callable[[Rows, int], Mask], str]] = {
    "repeated": (_is_repeated, "its time is there twice"),
    "disordered": (_is_disordered, "it is older than the row before it"),
    "off_period": (_is_off_period, "{time} s is no multiple of the period"),
    "no_number": (
        _is_no_number,
        f"a value is no number: {_PRICES}, volume {{volume}}",
    ),
    "low": (_is_low_high, "low {low} is above open {open} or close {close}"),
    "high": (_is_high_low, "high {high} is below open {open} or close {close}"),
    "bar_wap": (
        _is_mean_outside,
        "bar_wap {bar_wap} is not from low {low} to high {high}",
    ),
    "negative": (_is_negative, "volume {volume} or count {count} is negative"),
    "flat": (
        _is_flat_with_trades,
        f"it is flat, but not still: {_PRICES}, volume {{volume}}, count {{count}}",
    ),
}
"""What rows are looked at for, and how it is told of one."""


def _told(text: str, row: np.void) -> str:
    return text.format_map(
        dict(zip(OHLCV_DTYPE.names or (), row.tolist(), strict=True))
    )
