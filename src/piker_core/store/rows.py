"""What all stores do with rows: checks, merging, holes. Numpy alone."""

import operator

import numpy as np
from numpy.typing import NDArray

from piker_core.dtypes import OHLCV_DTYPE, BarFlag
from piker_core.errors import StoreError
from piker_core.fqme import parse_fqme

NS = 1_000_000_000
END_S = 9_214_646_400
"""The year 2262: later times do not fit into 64 bits of nanoseconds."""
LONGEST_PERIOD = 366 * 86_400
LONGEST_NAME = 200
HOLE_DTYPE = np.dtype([("start_ns", "<i8"), ("end_ns", "<i8")])
REQUIRED_DTYPE = np.dtype(
    [(name, OHLCV_DTYPE[name]) for name in OHLCV_DTYPE.names or () if name != "flags"]
)
"""A row without its flags."""


def checked_fqme(fqme: str) -> str:
    """A market's name, as it is. Raises PikerError for what is none."""
    parse_fqme(fqme)
    if len(fqme) > LONGEST_NAME:
        raise StoreError(
            f"{fqme[:40]}... has {len(fqme)} characters: a store keeps markets whose "
            f"names have up to {LONGEST_NAME}"
        )
    return fqme


def checked_period(period: int) -> int:
    """A period in whole seconds. Raises ValueError, TypeError."""
    seconds = operator.index(period)
    if not 1 <= seconds <= LONGEST_PERIOD:
        raise ValueError(
            f"period {seconds} must be whole seconds, 1 to {LONGEST_PERIOD} (366 days)"
        )
    return seconds


def checked_range(start_s: int | None, end_s: int | None) -> tuple[int, int]:
    """Bounds of a range, None being none, cut to the times that rows can have."""
    start = 0 if start_s is None else operator.index(start_s)
    end = END_S if end_s is None else operator.index(end_s)
    return min(max(start, 0), END_S), min(max(end, 0), END_S)


def checked_rows(rows: NDArray[np.void], period: int) -> NDArray[np.void]:
    """Rows as a store takes them: a copy, sorted, each time once, `index` from 0.

    Of two rows with one time the last is taken. Raises TypeError for what is no array
    of rows, ValueError for a time that is negative, too late or off the period.
    """
    if not isinstance(rows, np.ndarray) or rows.ndim != 1:
        raise TypeError(f"rows must be an array of OHLCV_DTYPE, not {rows!r:.80}")
    if rows.dtype not in (OHLCV_DTYPE, REQUIRED_DTYPE):
        raise TypeError(
            f"rows must be of OHLCV_DTYPE, with or without its flags, not {rows.dtype}"
        )
    own = np.zeros(len(rows), OHLCV_DTYPE)
    for name in rows.dtype.names or ():
        own[name] = rows[name]
    _check_times(own["time"], period)
    return numbered(_sorted(own))


def _check_times(times: NDArray[np.int64], period: int) -> None:
    wrong = (times < 0) | (times >= END_S) | (times % period != 0)
    if wrong.any():
        place = int(wrong.argmax())
        raise ValueError(
            f"time {times[place]} of row {place} must be a multiple of {period} s, "
            f"from 0 (1970) to before {END_S} (2262); nothing of the batch was taken"
        )


def _sorted(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Ascending, each time once, the last of those that have the same."""
    if (np.diff(rows["time"]) > 0).all():
        return rows
    ascending = rows[np.argsort(rows["time"], kind="stable")]
    is_last = np.append(np.diff(ascending["time"]) > 0, True)
    unique: NDArray[np.void] = ascending[is_last]
    return unique


def numbered(rows: NDArray[np.void]) -> NDArray[np.void]:
    """The same rows, `index` counting from 0."""
    rows["index"] = np.arange(len(rows))
    return rows


def merged(
    old: NDArray[np.void], new: NDArray[np.void]
) -> tuple[NDArray[np.void], int]:
    """Old rows with new ones put in, and how many of the new ones make a difference.

    Both ascend, each time once. Any bit but those of `index` is a difference.
    """
    places = np.searchsorted(old["time"], new["time"])
    known = np.zeros(len(new), bool)
    inside = places < len(old)
    known[inside] = old["time"][places[inside]] == new["time"][inside]
    differ = (_bits(old[places[known]]) != _bits(new[known])).any(axis=1)
    changed = int(differ.sum() + (~known).sum())
    if not changed:
        return old, 0
    rows = np.concatenate([old, new[~known]])
    rows[places[known]] = new[known]
    return numbered(_sorted(rows)), changed


def _bits(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """Rows as a table of the 64-bit words of all fields but `index`."""
    width = len(OHLCV_DTYPE.names or ())
    return np.ascontiguousarray(rows).view("<i8").reshape(len(rows), width)[:, 1:]


def is_placeholder(rows: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which rows stand for an interval without a feed."""
    marked: NDArray[np.bool_] = (rows["flags"] & int(BarFlag.SYNTHETIC_GAP)) != 0
    return marked


def holes(rows: NDArray[np.void], period: int) -> NDArray[np.void]:
    """Where rows that ascend have none between them, or placeholders only."""
    times = rows["time"]
    placeholders = times[is_placeholder(rows)]
    ends = times + period
    apart = times[1:] > ends[:-1]
    return joined(
        np.concatenate([ends[:-1][apart], placeholders]),
        np.concatenate([times[1:][apart], placeholders + period]),
    )


def joined(starts_s: NDArray[np.int64], ends_s: NDArray[np.int64]) -> NDArray[np.void]:
    """Holes of spans in any order; those that touch or overlap are one."""
    order = np.argsort(starts_s, kind="stable")
    starts, ends = starts_s[order], np.maximum.accumulate(ends_s[order])
    first, last = np.ones(len(starts), bool), np.ones(len(starts), bool)
    first[1:] = starts[1:] > ends[:-1]
    last[:-1] = first[1:]
    found = np.zeros(int(first.sum()), HOLE_DTYPE)
    found["start_ns"], found["end_ns"] = starts[first] * NS, ends[last] * NS
    return found
