"""One market of a watch: what is armed in it, what rows tell of ticks that were lost."""

import time
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.core.rings import BarReader
from piker_core.core.triggers import Triggers
from piker_core.dtypes import BarFlag
from piker_core.errors import NotFound, OrderError

NS = 1_000_000_000
LATE_S = 900
"""Ticks that come so late may have been lost too: rows are looked at again from there."""
QUIET_S = 5
"""A market of which nothing was heard for so long may be one whose feed is down: what
traded meanwhile is told later, but came before an order that is sent now."""
_HIGHEST = 1e300
"""High of a second of which nothing counts."""
_NEVER_S = 1 << 33
_UNTOLD = int(BarFlag.FLAT | BarFlag.SYNTHETIC_GAP)
"""Flags of rows in which nothing traded, as far as is known."""


class Armed(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger, and what has to be kept to arm it again after a restart.

    `price`: the level; 0 for a trail, whose `distance` is positive. `direction`: 1
    fires when the price rises to the level, or by the distance from its lowest since;
    -1 when it falls. `position`: where in the tick ring it was sent; `since_ns`: the
    time of the last trade that was known then (0: none), `row_s` its second, of which
    the prices up to then went from `low` to `high`. `best`: of a trail, then.
    """

    fqme: str
    price: float
    direction: int
    position: tuple[int, int]
    since_ns: int = 0
    row_s: int = 0
    high: float = 0.0
    low: float = 0.0
    distance: float = 0.0
    best: float = 0.0


class Fired(msgspec.Struct, frozen=True):
    """A trigger that was reached: at `price`, by the tick at `place` in those polled.

    `from_bars`: the tick was lost, the row of its second (`time_ns`) says that it was;
    `place` is then -1, and `price` that of the level, or the row's close for a trail.
    """

    oid: str
    fqme: str
    price: float
    time_ns: int
    place: int
    from_bars: bool = False


class Waiting(msgspec.Struct):
    """Something armed: its key among its market's triggers, and its order's name."""

    key: int
    oid: str
    armed: Armed


class Unread(msgspec.Struct, frozen=True):
    """Seconds and prices of the ticks of a market that are still to be tested."""

    seconds: NDArray[np.int64]
    prices: NDArray[np.float64]


class WatchedMarket:
    """Triggers of one market, its rows of 1 s, and its last trade and quote."""

    def __init__(self, fqme: str, bars: BarReader, bars_from: str) -> None:
        self.fqme = fqme
        self.bars = bars
        self.number = -1
        """In the tick ring; -1: it has no name there yet."""
        self.book = Triggers(bars_from)
        self.armed: dict[int, Waiting] = {}
        self.restored: dict[int, Waiting] = {}
        """Armed before a restart: the rows since are still to be looked at."""
        self._bars_from = bars_from

    def last(self) -> tuple[float, int] | None:
        """The last price and its time: of the ticks, else the newest row's close."""
        price, time_ns = self.book.last
        if time_ns:
            return price, time_ns
        try:
            row = self.bars.last()
        except NotFound:
            return None
        return float(row["close"]), int(row["time"]) * NS

    # -- arming ------------------------------------------------------------------------

    def arming(
        self,
        price: float,
        direction: int | None,
        position: tuple[int, int],
        distance: float = 0.0,
        best: float | None = None,
    ) -> Armed:
        """What a new trigger is to be; its direction is set by the last price known."""
        last = self.last()
        if last is None and (direction is None or (distance and best is None)):
            raise OrderError(
                f"{self.fqme} has no price yet, so it is not known from which side "
                "a trigger is reached: give a direction, or wait for a trade"
            )
        known = last[0] if last else 0.0
        since_ns, row_s, high, low = self._now(last[1] if last else 0)
        return Armed(
            fqme=self.fqme,
            price=price,
            direction=direction or (-1 if price < known else 1),
            position=position,
            since_ns=since_ns,
            row_s=row_s,
            high=high,
            low=low,
            distance=distance,
            best=(known if best is None else best) if distance else 0.0,
        )

    def _now(self, last_ns: int) -> tuple[int, int, float, float]:
        """The venue's time, at least, and of its second the range that prices had.

        It is that of the last trade, for what else there was may not have arrived yet;
        where that was long ago, by so much later as has passed since it was received.
        """
        now_ns = time.time_ns()
        if not last_ns:
            return 0, now_ns // NS, _HIGHEST, 0.0
        heard_ns = self.book.heard_ns or now_ns
        quiet_ns = now_ns - heard_ns - QUIET_S * NS
        if quiet_ns > 0:
            since_ns = last_ns + quiet_ns
            return since_ns, since_ns // NS, _HIGHEST, 0.0
        row_s, high, low = self.book.second
        if not row_s:
            row = self.bars.last()
            row_s, high, low = int(row["time"]), float(row["high"]), float(row["low"])
        return min(last_ns, now_ns), row_s, high, low

    def put(self, waiting: Waiting) -> None:
        """Begin to test it."""
        _add(self.book, waiting.key, waiting.armed)
        self.armed[waiting.key] = waiting

    def take(self, key: int) -> bool:
        """Forget it; whether it was there."""
        self.book.remove(key)
        found = self.armed.pop(key, None) or self.restored.pop(key, None)
        return found is not None

    def fired(self, key: int, price: float, time_ns: int, place: int) -> Fired:
        """What a trigger that the book has let go becomes."""
        waiting = self.armed.pop(key)
        return Fired(waiting.oid, self.fqme, price, time_ns, place)

    # -- ticks that were lost ----------------------------------------------------------

    def rows_since(self, lost: bool) -> NDArray[Any]:
        """The rows that tell of lost ticks, or of all since what is restored was sent.

        Those that did not trade or are placeholders say nothing: the trades that repair
        a gap come as ticks.
        """
        starts = [each.armed.row_s for each in self.restored.values()]
        if lost and self.armed:
            starts.append(self._seen_s() - LATE_S)
        rows = self.bars.between(min(starts, default=_NEVER_S), _NEVER_S)
        traded: NDArray[Any] = rows[rows["flags"] & _UNTOLD == 0]
        return traded

    def _seen_s(self) -> int:
        """The second up to which ticks were tested."""
        return self.book.second[0] or max(
            each.armed.row_s for each in self.armed.values()
        )

    def make_good(self, rows: NDArray[Any], unread: Unread, lost: bool) -> list[Fired]:
        """What rows tell: of lost ticks, and of all time for what is restored.

        Of a row, what the ticks tested before or those `unread` tell is left out.
        """
        found: list[Fired] = []
        if lost and self.armed:
            found += self._of_lost(rows, unread)
        if self.restored:
            found += self._of_restored(rows, unread)
        return sorted(found, key=lambda each: each.time_ns)

    def _of_lost(self, rows: NDArray[Any], unread: Unread) -> list[Fired]:
        _, high, low = self.book.second
        seen_s = self._seen_s()
        late, rows = _split(rows[rows["time"] >= seen_s - LATE_S], seen_s)
        found = self._late(late)
        known = _without_part(_without(rows, unread), seen_s, high, low)
        for key, place in self.book.feed_rows(known):
            found.append(self._by_row(self.armed.pop(key), rows[place]))
        return found

    def _late(self, rows: NDArray[Any]) -> list[Fired]:
        """Levels that a trade reached which was late, and lost."""
        if not len(rows):
            return []
        found = []
        for key in self.book.check(rows["high"].max(), rows["low"].min()):
            waiting = self.armed[key]
            row = _first_reached(waiting.armed, rows)
            if row is not None:
                self.take(key)
                found.append(self._by_row(waiting, row))
        return found

    def _of_restored(self, rows: NDArray[Any], unread: Unread) -> list[Fired]:
        waiting = sorted(self.restored.values(), key=lambda each: each.armed.row_s)
        self.restored = {}
        rows = rows[rows["time"] >= waiting[0].armed.row_s]
        known = _without(rows, unread)
        book, found, start = Triggers(), [], 0
        resting: dict[int, Waiting] = {}

        def test(stop: int) -> None:
            for key, place in book.feed_rows(known[start:stop]):
                found.append(self._by_row(resting.pop(key), rows[start + place]))

        for each in waiting:
            armed = each.armed
            stop = int(np.searchsorted(rows["time"], armed.row_s, "right"))
            if stop > start:
                test(stop)
                start = stop
            own = known[max(stop - 1, 0) : stop]
            part = _without_part(own.copy(), armed.row_s, armed.high, armed.low)
            alone = Triggers()
            _add(alone, each.key, armed)
            if len(part) and part["time"][0] == armed.row_s and alone.feed_rows(part):
                found.append(self._by_row(each, rows[stop - 1]))
                continue
            if armed.distance:
                armed = msgspec.structs.replace(armed, best=alone.best(each.key))
                each = msgspec.structs.replace(each, armed=armed)
            _add(book, each.key, armed)
            resting[each.key] = each
        test(len(rows))
        for key, each in sorted(resting.items()):
            if each.armed.distance:
                armed = msgspec.structs.replace(each.armed, best=book.best(key))
                each = msgspec.structs.replace(each, armed=armed)
            self.put(each)
        return found

    def _by_row(self, waiting: Waiting, row: Any) -> Fired:
        price = waiting.armed.price or float(row["close"])
        time_ns = int(row["time"]) * NS
        return Fired(waiting.oid, self.fqme, price, time_ns, -1, from_bars=True)


def _add(book: Triggers, key: int, armed: Armed) -> None:
    if armed.distance:
        book.add_trail(key, armed.distance, armed.direction, armed.best, armed.since_ns)
    else:
        book.add(key, armed.price, armed.direction, armed.since_ns)


def _split(rows: NDArray[Any], second: int) -> tuple[NDArray[Any], NDArray[Any]]:
    place = int(np.searchsorted(rows["time"], second))
    return rows[:place], rows[place:]


def _without(rows: NDArray[Any], unread: Unread) -> NDArray[Any]:
    """A copy of rows, in which what unread ticks may have made is not known (NAN)."""
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


def _without_part(
    rows: NDArray[Any], second: int, high: float, low: float
) -> NDArray[Any]:
    """Of the row of that second, what came after it went from `low` to `high`."""
    own = rows["time"] == second
    rows["open"][own] = np.nan
    rows["high"][own & (rows["high"] <= high)] = np.nan
    rows["low"][own & (rows["low"] >= low)] = np.nan
    return rows


def _first_reached(armed: Armed, rows: NDArray[Any]) -> Any:
    """The first row that reaches a level after it was armed; None if none does."""
    rows = rows[rows["time"] >= armed.row_s]
    rows = _without_part(rows.copy(), armed.row_s, armed.high, armed.low)
    reached = (
        rows["high"] >= armed.price
        if armed.direction > 0
        else rows["low"] <= armed.price
    )
    return rows[np.argmax(reached)] if reached.any() else None
