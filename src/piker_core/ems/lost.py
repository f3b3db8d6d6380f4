"""What rows of 1 s tell of ticks that were lost: which triggers these have reached.

Of a row the ticks that were tested before it was looked at, or are still to be tested,
are left out: its high and low count where they lie beyond the prices of those. What is
not known of it then is NAN. Rows that did not trade, or are placeholders of a gap, say
nothing: the trades that repair a gap come as ticks.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.core.triggers import Triggers
from piker_core.dtypes import BarFlag

NS = 1_000_000_000
HIGHEST = 1e300
"""High of a second of which nothing counts; its low is 0."""
_UNTOLD = int(BarFlag.FLAT | BarFlag.SYNTHETIC_GAP)


class Armed(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger, and what has to be kept to arm it again after a restart.

    `price`: the level; 0 for a trail, whose `distance` is positive. `direction`: 1
    fires when the price rises to the level, or by the distance from its lowest since;
    -1 when it falls. `position`: where in the tick ring it was sent; `since_ns`: the
    venue's time then, as far as it was known (0: not at all), `row_s` its second, of
    which the prices up to then went from `low` to `high`. `best`: of a trail, then.
    """

    fqme: str
    price: float
    direction: int
    position: tuple[int, int]
    since_ns: int = 0
    row_s: int = 0
    high: float = HIGHEST
    low: float = 0.0
    distance: float = 0.0
    best: float = 0.0


class Waiting(msgspec.Struct, frozen=True):
    """Something armed: its key among its market's triggers, and its order's name."""

    key: int
    oid: str
    armed: Armed


class Unread(msgspec.Struct, frozen=True):
    """Seconds and prices of the ticks of a market that are still to be tested."""

    seconds: NDArray[np.int64]
    prices: NDArray[np.float64]


def add_to(book: Triggers, key: int, armed: Armed) -> None:
    """Put it among the triggers of a market. Raises ValueError if it can be none."""
    if armed.distance:
        book.add_trail(key, armed.distance, armed.direction, armed.best, armed.since_ns)
    else:
        book.add(key, armed.price, armed.direction, armed.since_ns)


def with_best(waiting: Waiting, best: float) -> Waiting:
    """The same trail, whose best is another one by now."""
    armed = msgspec.structs.replace(waiting.armed, best=best)
    return msgspec.structs.replace(waiting, armed=armed)


def traded(rows: NDArray[Any]) -> NDArray[Any]:
    """Those of the rows that say something."""
    own: NDArray[Any] = rows[rows["flags"] & _UNTOLD == 0]
    return own


def without_unread(rows: NDArray[Any], unread: Unread) -> NDArray[Any]:
    """A copy of rows in which nothing is known that unread ticks may have made."""
    rows = rows.copy()
    if not len(rows) or not len(unread.seconds):
        return rows
    place = np.searchsorted(rows["time"], unread.seconds)
    place[place == len(rows)] = 0
    ours = rows["time"][place] == unread.seconds
    high = np.full(len(rows), -np.inf)
    low = np.full(len(rows), np.inf)
    np.maximum.at(high, place[ours], unread.prices[ours])
    np.minimum.at(low, place[ours], unread.prices[ours])
    rows["high"][rows["high"] <= high] = np.nan
    rows["low"][rows["low"] >= low] = np.nan
    for name in ("open", "close"):
        rows[name][np.isfinite(high)] = np.nan
    return rows


def without_part(
    rows: NDArray[Any], second: int, high: float, low: float
) -> NDArray[Any]:
    """A copy in which, of the row of that second, its first part is not known.

    Its prices went then from `low` to `high`.
    """
    rows = rows.copy()
    own = rows["time"] == second
    rows["open"][own] = np.nan
    rows["high"][own & (rows["high"] <= high)] = np.nan
    rows["low"][own & (rows["low"] >= low)] = np.nan
    return rows


def first_reached(armed: Armed, rows: NDArray[Any]) -> Any:
    """The first row that reaches a level after it was armed; None if none does."""
    rows = rows[rows["time"] >= armed.row_s]
    rows = without_part(rows, armed.row_s, armed.high, armed.low)
    if armed.direction > 0:
        reached = rows["high"] >= armed.price
    else:
        reached = rows["low"] <= armed.price
    return rows[np.argmax(reached)] if reached.any() else None


def replayed(
    waiting: Iterable[Waiting], rows: NDArray[Any]
) -> tuple[list[tuple[Waiting, int]], list[Waiting]]:
    """Triggers armed at some time, and the rows since.

    `rows`: ascending, what is not known of them NAN. Returns those that fired, each
    with the place of the row, and the others, trails with the best they have now.
    """
    book, resting = Triggers(), dict[int, Waiting]()
    fired: list[tuple[Waiting, int]] = []
    start = 0

    def feed(stop: int) -> None:
        for key, place in book.feed_rows(rows[start:stop]):
            fired.append((resting.pop(key), start + place))

    for each in sorted(waiting, key=lambda each: each.armed.row_s):
        stop = int(np.searchsorted(rows["time"], each.armed.row_s, "right"))
        feed(stop)
        start = stop
        rests = _after_own_row(each, rows[max(stop - 1, 0) : stop])
        if rests is None:
            fired.append((each, stop - 1))
        else:
            add_to(book, each.key, rests.armed)
            resting[each.key] = rests
    feed(len(rows))
    return fired, [
        with_best(each, book.best(key)) if each.armed.distance else each
        for key, each in sorted(resting.items())
    ]


def _after_own_row(waiting: Waiting, row: NDArray[Any]) -> Waiting | None:
    """It, after the rest of the row in which it was armed; None if it fired there."""
    armed = waiting.armed
    if not len(row) or row["time"][0] != armed.row_s:
        return waiting
    book = Triggers()
    add_to(book, 0, armed)
    if book.feed_rows(without_part(row, armed.row_s, armed.high, armed.low)):
        return None
    return with_best(waiting, book.best(0)) if armed.distance else waiting
