"""One market of a watch: what is armed in it, and the last that is known of it."""

import time
from typing import Any

import msgspec
from numpy.typing import NDArray

from piker_core.core.rings import BarReader
from piker_core.core.triggers import Triggers
from piker_core.ems.lost import (
    HIGHEST,
    NS,
    Armed,
    Unread,
    Waiting,
    add_to,
    first_reached,
    replayed,
    traded,
    with_best,
    without_part,
    without_unread,
)
from piker_core.errors import OrderError

UNNUMBERED = 0xFFFF_FFFF
"""Number of a market that has no name in the tick ring yet."""
LATE_S = 900
"""Ticks that come so late may be among the lost: rows are looked at from there on."""
_NEVER_S = 1 << 33


class Fired(msgspec.Struct, frozen=True):
    """A trigger that was reached: at `price`, by the tick at `place` in those polled.

    In a market whose middles count, `price` is that of the bid or ask that made it.

    `from_bars`: the tick was lost, the row of its second (`time_ns`) says that it was;
    `place` is then -1, and `price` that of the level, or the row's close for a trail.
    """

    oid: str
    fqme: str
    price: float
    time_ns: int
    place: int
    from_bars: bool = False


class WatchedMarket:
    """Triggers of one market, its rows of 1 s, and its last trade and quote."""

    def __init__(self, fqme: str, bars: BarReader, bars_from: str) -> None:
        self.fqme = fqme
        self.bars = bars
        self.number = UNNUMBERED
        self.book = Triggers(bars_from)
        self.lost = False
        """Ticks were lost, and the rows were not looked at yet."""
        self.damaged = False
        """They could not be read when this was tried last."""
        self._armed: dict[int, Waiting] = {}
        self._restored: dict[int, Waiting] = {}
        self._added_ns = time.monotonic_ns()
        self._owed = 0
        """Rows below this sequence are still to come; 0: all are there."""

    def last(self) -> tuple[float, int] | None:
        """The last price and its time, by the ticks or the newest row."""
        self._learn()
        price, time_ns = self.book.last
        return (price, time_ns) if time_ns else None

    def _learn(self) -> None:
        """Of the newest row, as long as there was no tick, and nothing can fire."""
        if not self.book.last[1] and not len(self.book):
            self.book.feed_rows(self.bars.snapshot(1))

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
        known, last_ns = last or (0.0, 0)
        since_ns, row_s, high, low = self._now(last_ns)
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
        """The venue's time, at least, and the range that prices of its second had.

        It is that of the last trade: others may not have arrived yet. While the feed is
        down, or a gap is repaired, trades are missing that came before an order which
        is sent now, but will be told later.
        """
        now_ns = time.time_ns()
        if not last_ns:
            return 0, now_ns // NS, HIGHEST, 0.0
        since_ns = min(last_ns, now_ns)
        if self.bars.status != "live":
            heard_ns = self.book.heard_ns or self._added_ns
            since_ns += max(time.monotonic_ns() - heard_ns, 0)
        ends = self.bars.gaps()
        open_ends = ends["end_ns"][(ends["repaired"] == 0) & (ends["end_ns"] <= now_ns)]
        since_ns = max(since_ns, int(open_ends.max(initial=0)))
        if since_ns // NS > self.book.second[0]:
            return since_ns, since_ns // NS, HIGHEST, 0.0
        return since_ns, *self.book.second

    def put(self, waiting: Waiting) -> None:
        """Begin to test it. Raises ValueError if it can be no trigger."""
        add_to(self.book, waiting.key, waiting.armed)
        self._armed[waiting.key] = waiting

    def restore(self, waiting: Waiting) -> None:
        """Begin to test it as soon as the rows since it was armed were looked at."""
        self._restored[waiting.key] = waiting

    def take(self, key: int) -> bool:
        """Forget it; whether it was there."""
        self.book.remove(key)
        own = self._restored if key in self._restored else self._armed
        return own.pop(key, None) is not None

    def armed(self, key: int) -> Armed | None:
        """How it is armed now: a trail has moved."""
        waiting = self._armed.get(key) or self._restored.get(key)
        if waiting is None:
            return None
        if key in self._armed and waiting.armed.distance:
            return with_best(waiting, self.book.best(key)).armed
        return waiting.armed

    def fired(self, key: int, tick: Any, place: int) -> Fired:
        """What a trigger that the book has let go becomes."""
        price, time_ns = float(tick["price"]), int(tick["time_ns"])
        return Fired(self._armed.pop(key).oid, self.fqme, price, time_ns, place)

    # -- ticks that were lost ----------------------------------------------------------

    @property
    def unsettled(self) -> bool:
        """Whether rows are to be looked at before the next tick is tested."""
        return self.lost or bool(self._restored)

    @property
    def owed(self) -> bool:
        """Whether rows of the time before those that there were may still come."""
        return self._owed > 0

    def untested_rows(self) -> NDArray[Any]:
        """The rows since what is restored was armed, or since ticks were lost."""
        starts = [each.armed.row_s for each in self._restored.values()]
        if self.lost:
            starts.append(self._seen()[0] - LATE_S)
        return traded(self.bars.between(min(starts, default=_NEVER_S), _NEVER_S))

    def _seen(self) -> tuple[int, float, float]:
        """The second up to which all was tested, and the range that it had."""
        second, high, low = self.book.second
        if second:
            return second, high, low
        return max((w.armed.row_s for w in self._armed.values()), default=0), HIGHEST, 0

    def settle(self, rows: NDArray[Any], unread: Unread) -> list[Fired]:
        """What rows tell of lost ticks, and of all time for what is restored.

        `rows`: what `untested_rows` gave before the `unread` ticks were looked at.
        """
        known = without_unread(rows, unread)
        found = self._of_lost(rows, known) if self.lost else []
        found += self._of_restored(rows, known) if self._restored else []
        self.lost = False
        return found

    def _of_lost(self, rows: NDArray[Any], known: NDArray[Any]) -> list[Fired]:
        second, high, low = self._seen()
        late = (rows["time"] >= second - LATE_S) & (rows["time"] < second)
        found = self._late(rows[late])
        since = rows["time"] >= second
        own, part = rows[since], without_part(known[since], second, high, low)
        for key, place in self.book.feed_rows(part):
            found.append(self._by_row(self._armed.pop(key), own[place]))
        return found

    def _late(self, rows: NDArray[Any]) -> list[Fired]:
        """Levels that trades have reached which came late, and were lost."""
        found = []
        if len(rows):
            for key in self.book.check(rows["high"].max(), rows["low"].min()):
                waiting = self._armed[key]
                row = first_reached(waiting.armed, rows)
                if row is not None:
                    self.take(key)
                    found.append(self._by_row(waiting, row))
        return found

    def _of_restored(self, rows: NDArray[Any], known: NDArray[Any]) -> list[Fired]:
        fired, resting = replayed(self._restored.values(), known)
        self._restored = {}
        for each in resting:
            self.put(each)
        self._owe()
        return [self._by_row(each, rows[place]) for each, place in fired]

    def _by_row(self, waiting: Waiting, row: Any) -> Fired:
        price = waiting.armed.price or float(row["close"])
        time_ns = int(row["time"]) * NS
        return Fired(waiting.oid, self.fqme, price, time_ns, -1, from_bars=True)

    # -- rows that come later ----------------------------------------------------------

    def _owe(self) -> None:
        """Do the rows not reach back to where all that rests was armed?"""
        first = self.bars.first
        oldest = self.bars.snapshot(1, end=first + 1)
        since_s = min((w.armed.row_s for w in self._armed.values()), default=_NEVER_S)
        reached = len(oldest) and int(oldest["time"][0]) <= since_s
        self._owed = 0 if reached or since_s == _NEVER_S else first

    def history(self) -> list[Fired]:
        """Levels reached in rows of history that were put before those looked at.

        They move trails, too, but fire none: where the price went since is not known.
        """
        first = self.bars.first if self._owed else 0
        if first >= self._owed:
            return []
        rows = traded(self.bars.snapshot(self._owed - first, end=self._owed))
        found = self._late(rows)
        for key, each in self._armed.items():
            since = rows[rows["time"] > each.armed.row_s]
            if each.armed.distance and len(since):
                self._move(key, each, since["high"].max(), since["low"].min())
        self._owe()
        return found

    def _move(self, key: int, waiting: Waiting, high: float, low: float) -> None:
        best = self.book.best(key)
        far = max(best, high) if waiting.armed.direction < 0 else min(best, low)
        self.book.remove(key)
        add_to(self.book, key, with_best(waiting, far).armed)
