"""Rows beside the venue's own candles: is each one equal, and is none missing?

1. Prices and count are equal, the volume is when it is rounded to the size step, the
   mean price is within a price step.
2. Every period from the first row to the last is a row, or in a gap record, or in a
   time when the market was closed.
3. No row is a placeholder unless a gap is open, and a gap that was repaired shows in
   its rows: they say REPAIRED. Some may not, as nothing of them was lost, or they were
   not begun before the repair; so of several that traded one is asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.dtypes import BarFlag
from piker_core.simulation.venue import Candle

NS = 1_000_000_000
PRICES = ("open", "high", "low", "close")
Spans = Sequence[tuple[float, float]]
_MAY_BE_SILENT = 2


class Steps(msgspec.Struct, frozen=True):
    """The price and size steps of a market."""

    price: Decimal
    size: Decimal


class Comparison(msgspec.Struct):
    """How many rows were compared, and what of them is not as it should be."""

    rows: int = 0
    trades: int = 0
    wrong: list[str] = []

    def add(self, other: "Comparison") -> None:
        """Take in another one."""
        self.rows += other.rows
        self.trades += other.trades
        self.wrong += other.wrong

    def first_wrong(self) -> str:
        """What is wrong, in a line."""
        more = len(self.wrong) - 2
        text = "; ".join(self.wrong[:2])
        return f"{text} (and {more} more)" if more > 0 else text


def clock(time_s: float) -> str:
    """A time of day, UTC."""
    return f"{datetime.fromtimestamp(time_s, UTC):%H:%M:%S}"


def difference(row: Mapping[str, Any], candle: Candle, steps: Steps) -> str:
    """In what a row differs from a candle, empty if in nothing."""
    got = [row[name] for name in PRICES]
    want = [getattr(candle, name) for name in PRICES]
    if got != [float(price) for price in want]:
        return f"prices {got} instead of {[float(price) for price in want]}"
    if row["count"] != candle.count:
        return f"count {row['count']} instead of {candle.count}"
    volume = Decimal(repr(float(row["volume"])))
    if not volume.is_finite() or volume.quantize(steps.size) != candle.volume:
        return f"volume {row['volume']!r} instead of {candle.volume}"
    mean = candle.vwap if candle.count else candle.close
    if not abs(row["bar_wap"] - float(mean)) <= float(steps.price):
        return f"bar_wap {row['bar_wap']!r} instead of {mean}"
    return ""


def check_rows(
    rows: NDArray[np.void],
    gaps: NDArray[np.void],
    candles: Iterable[Candle],
    steps: Steps,
    *,
    period: int,
    name: str,
    closed: Spans = (),
    exact_gaps: bool = True,
) -> Comparison:
    """All three rules, for the rows of one ring; see `compare` and `missing`.

    Without `exact_gaps` what overlaps an open gap is not compared.
    """
    doubtful = () if exact_gaps else unrepaired(gaps)
    found = compare(rows, candles, steps, period=period, name=name, doubtful=doubtful)
    found.wrong += missing(rows, gaps, period=period, name=name, closed=closed)
    found.wrong += misflagged(rows, gaps, period=period, name=name)
    return found


def compare(
    rows: NDArray[np.void],
    candles: Iterable[Candle],
    steps: Steps,
    *,
    period: int,
    name: str,
    doubtful: Spans = (),
) -> Comparison:
    """Compare rows with candles of the same span.

    `doubtful`: spans (s) that the venue could not tell of; what overlaps is not
    compared.
    """
    known = {candle.time_s: candle for candle in candles}
    found = Comparison()
    for row in records(rows):
        time_s = row["time"]
        if _overlaps(time_s, period, doubtful):
            continue
        candle = known.get(time_s)
        found.rows += 1
        found.trades += int(row["count"])
        if candle is None:
            problem = "the venue has no such candle"
        else:
            problem = difference(row, candle, steps)
        if problem:
            found.wrong.append(f"{name} {clock(time_s)}: {problem}")
    return found


def missing(
    rows: NDArray[np.void],
    gaps: NDArray[np.void],
    *,
    period: int,
    name: str,
    closed: Spans = (),
) -> list[str]:
    """Periods that are neither rows nor on record, and rows out of order."""
    times = rows["time"].tolist()
    if any(b <= a for a, b in pairwise(times)):
        return [f"{name}: the times of the rows do not rise"]
    if any(time_s % period for time_s in times):
        return [f"{name}: a row does not begin at a multiple of {period} s"]
    spans = [*closed, *_spans(gaps)]
    there = set(times)
    return [
        f"{name} {clock(time_s)}: neither a row nor a gap on record"
        for time_s in (range(times[0], times[-1], period) if times else ())
        if time_s not in there and not _overlaps(time_s, period, spans)
    ]


def misflagged(
    rows: NDArray[np.void], gaps: NDArray[np.void], *, period: int, name: str
) -> list[str]:
    """Rows of repaired gaps that do not say so, and placeholders without a gap."""
    still_open = unrepaired(gaps)
    wrong = []
    said, doubtful = [], []
    for row in records(rows):
        time_s, flags = row["time"], row["flags"]
        if _overlaps(time_s, period, still_open):
            continue
        if flags & BarFlag.SYNTHETIC_GAP:
            wrong.append(f"{name} {clock(time_s)}: a placeholder without an open gap")
        elif flags & BarFlag.REPAIRED:
            said.append(time_s)
        elif row["count"]:
            doubtful.append(time_s)
    for start_s, end_s in _spans(gaps[gaps["repaired"] != 0]):
        silent = [t for t in doubtful if start_s <= t and t + period <= end_s]
        traded = [t for t in said if start_s <= t and t + period <= end_s]
        if len(silent) > _MAY_BE_SILENT and not traded:
            wrong.append(f"{name} {clock(silent[0])}: repaired, and not REPAIRED")
    return wrong


def unrepaired(gaps: NDArray[np.void]) -> list[tuple[float, float]]:
    """Spans (s) of the gaps that stay on record."""
    return _spans(gaps[gaps["repaired"] == 0])


def records(rows: NDArray[np.void]) -> list[dict[str, Any]]:
    """Rows by the names of their fields."""
    names = rows.dtype.names or ()
    return [dict(zip(names, row, strict=True)) for row in rows.tolist()]


def _spans(gaps: NDArray[np.void]) -> list[tuple[float, float]]:
    return [
        (start_ns / NS, end_ns / NS)
        for start_ns, end_ns in zip(
            gaps["start_ns"].tolist(), gaps["end_ns"].tolist(), strict=True
        )
    ]


def _overlaps(time_s: float, period: int, spans: Spans) -> bool:
    return any(start < time_s + period and time_s < end for start, end in spans)
