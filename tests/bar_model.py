"""The rules of docs/bars.md in plain Python, exact and slow: what an engine must do."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
from bar_rows import (
    BACKFILLED,
    FLAT,
    FOREVER,
    GAP,
    NS,
    PARTIAL,
    REPAIRED,
    REVISED,
    Record,
    Ring,
    Row,
    Trade,
    Values,
    flat,
    runs,
)
from numpy.typing import NDArray

from piker_core.core.rings import COUNTERS

OPEN_GAPS = 32


class MarketModel:
    """A market: what its rings, records and counters must be after each call."""

    def __init__(
        self,
        capacities: dict[int, int],
        *,
        fill: str = "flat",
        late_window_s: float = 900,
        sessions: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.rings = [Ring(period, capacities[period]) for period in sorted(capacities)]
        self.filled = fill == "flat"
        self.window_ns = int(late_window_s * NS)
        self.sessions = sessions
        self.closed = False
        self.skipped = 0
        self.feed_status = "starting"
        self.loss = "lost"
        self.live_from_ns = FOREVER
        self.told_until_ns: int | None = None
        self.told_from_ns = FOREVER
        self.early: tuple[int, int] | None = None
        self.loss_begins = False
        self.newest_ns = 0
        self.newest_trade_ns = 0
        self.clock_ns = 0
        self.arrivals = 0
        self.ids: set[int] = set()
        self.open_gaps: dict[int, int] = {}
        self.counters = dict.fromkeys(COUNTERS, 0)

    # Sessions

    @property
    def status(self) -> str:
        shut = self.closed and self.feed_status not in ("starting", "stopped")
        return "closed" if shut else self.feed_status

    def first_open(self, start_ns: int, end_ns: int) -> int:
        """The first moment at which the market is open, or the end."""
        if self.sessions is None:
            return min(start_ns, end_ns)
        opened = [
            max(open_ns, start_ns) for open_ns, c in self.sessions if c > start_ns
        ]
        return min([*opened, end_ns])

    def opens(self, ring: "Ring", bar: int) -> bool:
        end_ns = (bar + ring.period) * NS
        return self.sessions is None or self.first_open(bar * NS, end_ns) < end_ns

    def set_sessions(self, sessions: Sequence[tuple[int, int]] | None) -> None:
        self.sessions = sessions
        if self.clock_ns:
            self.closed = (
                self.first_open(self.clock_ns, self.clock_ns + 1) > self.clock_ns
            )

    # Which rows there are

    def in_open_gap(self, start: int, end: int) -> bool:
        return any(a < end * NS and start * NS < b for a, b in self.open_gaps.items())

    def lost_until(self, ring: Ring, following: int, bar: int) -> int:
        """Of the bars from `following` to `bar`, those before this one are lost."""
        if self.loss == "closed":
            return following
        if self.feed_status != "live":
            return bar
        if self.loss == "none":
            return following
        if self.live_from_ns == FOREVER:
            return bar
        known = ring.bar(self.live_from_ns // NS)
        if self.first_open(known * NS, (known + ring.period) * NS) < self.live_from_ns:
            known += ring.period
        return min(max(known, following), bar)

    def note_open(self, place: int, start: int, end: int, cause: str) -> None:
        """A record for each run of bars with open time."""
        ring = self.rings[place]
        bars = [bar for bar in range(start, end, ring.period) if self.opens(ring, bar)]
        for run_start, run_end in runs(bars, ring.period):
            self.note(place, run_start, run_end, cause)

    def note(self, place: int, start: int, end: int, cause: str) -> None:
        """A record for each run of bars that no record touches."""
        own = self.rings[place]
        everywhere = place == 0 and cause == "feed down"
        bars = [b for b in range(start, end, own.period) if not own.on_record(b)]
        for run_start, run_end in runs(bars, own.period):
            for ring in self.rings if everywhere else [own]:
                ring.put(Record(run_start * NS, run_end * NS, cause))
            self.counters["gaps"] += 1

    def fill(self, place: int, bar: int) -> None:
        """The rows between the newest one and a bar that follows it."""
        ring = self.rings[place]
        following = max(
            ring.rows[-1].time + ring.period,
            -(-self.skipped // ring.period) * ring.period,
        )
        if bar <= following:
            return
        told = 0 if self.told_until_ns is None else self.told_until_ns // NS
        lost = max(following, min(bar, ring.bar(told)))
        known = self.lost_until(ring, following, bar)
        if known > lost:
            self.note_open(place, lost, known, "feed down")
        filled = following if self.filled else bar
        if self.loss == "closed" and self.filled:
            live = self.feed_status == "live" and self.live_from_ns < FOREVER
            filled = ring.bar(self.live_from_ns // NS) if live else bar
            filled = max(filled, following)
        bars = [
            time
            for time in range(following, bar, ring.period)
            if self.opens(ring, time)
        ]
        begin = bars[-(ring.capacity - 1)] if len(bars) >= ring.capacity else following
        if begin > filled:
            self.note_open(place, filled, begin, "clock jump")
        price = ring.rows[-1].values.close
        for time in [each for each in bars if each >= begin]:
            open_gap = self.in_open_gap(time, time + ring.period)
            gone = open_gap or lost <= time < known
            if time >= filled or open_gap:
                ring.append(Row(time, FLAT | (GAP if gone else 0), flat(price)))
                self.counters["gap_rows" if gone else "flat_rows"] += 1

    def partial(self, ring: Ring, bar: int) -> int:
        begins = ring.fresh or (self.feed_status == "live" and self.loss == "lost")
        open_ns = self.first_open(bar * NS, (bar + ring.period) * NS)
        first_ns = open_ns if self.opens(ring, bar) else bar * NS
        return PARTIAL if begins and self.live_from_ns > first_ns else 0

    def resumed(self) -> None:
        if self.feed_status == "live":
            self.loss = "none"
        elif self.feed_status == "closed":
            self.loss = "closed"

    # Trades

    def trade(self, trade: Trade) -> int:
        if trade.id in self.ids:
            self.counters["duplicates"] += 1
            return 0
        self.ids |= {trade.id} - {0}
        self.arrivals += 1
        self.counters["ticks"] += 1
        self.fold(replace(trade, arrival=self.arrivals))
        return 1

    def trades(self, trades: Iterable[Trade]) -> int:
        return sum([self.trade(trade) for trade in trades])

    def fold(self, trade: Trade) -> None:
        shortest, second = self.rings[0], trade.time_ns // NS
        newest = shortest.rows[-1].time if shortest.rows else -FOREVER
        self.newest_trade_ns = max(self.newest_trade_ns, trade.time_ns)
        self.newest_ns = max(self.newest_ns, trade.time_ns)
        how = [self.place(place, trade) for place in range(len(self.rings))]
        self.counters["revisions"] += how[0] in ("late", "inexact")
        self.counters["late"] += second < newest
        self.counters["late_inexact"] += "inexact" in how
        self.counters["unplaced"] += "unplaced" in how
        if second >= newest + shortest.period:
            self.resumed()

    def place(self, place: int, trade: Trade) -> str:
        ring = self.rings[place]
        bar = ring.bar(trade.time_ns // NS)
        if not ring.rows or bar > ring.rows[-1].time:
            if ring.rows:
                self.fill(place, bar)
            flags = self.partial(ring, bar) if trade.time_ns > bar * NS else 0
            ring.append(Row(bar, flags, ordered=[trade]))
            ring.fresh = False
            return "new"
        found = [at for at, row in enumerate(ring.rows) if row.time == bar]
        if not found:
            return "unplaced"
        if found[0] == len(ring.rows) - 1:
            ring.rows[-1].add(trade, exact=True)
            return "new"
        return self.revise(ring, found[0], trade)

    def revise(self, ring: Ring, at: int, trade: Trade) -> str:
        row = ring.rows[at]
        end = row.time + ring.period
        old = self.newest_ns - end * NS > self.window_ns
        exact = not old or self.in_open_gap(row.time, end)
        close = row.values.close
        row.add(trade, exact=exact)
        row.flags |= REVISED
        price = row.values.close
        for after in ring.rows[at + 1 :] if price != close else ():
            if not after.flags & FLAT or after.values.close == price:
                break
            after.be_flat(price)
            after.flags |= REVISED if after is not ring.rows[-1] else 0
        return "late" if exact else "inexact"

    # Clock, status, gaps, history

    def step(self, now_ns: int) -> None:
        if now_ns < self.clock_ns:
            return
        self.clock_ns = now_ns
        self.closed = self.first_open(now_ns, now_ns + 1) > now_ns
        if self.feed_status == "live":
            self.step_rows(now_ns)

    def step_rows(self, now_ns: int) -> None:
        second = now_ns // NS
        if self.live_from_ns == FOREVER:
            self.live_from_ns = second * NS
        self.newest_ns = max(self.newest_ns, now_ns)
        rows = self.rings[0].rows
        newer = bool(rows) and second >= rows[-1].time + self.rings[0].period
        for place, ring in enumerate(self.rings):
            bar = ring.bar(second)
            if ring.rows and bar > ring.rows[-1].time:
                self.fill(place, bar)
                if self.filled and self.first_open(bar * NS, now_ns + 1) <= now_ns:
                    flags = FLAT | self.partial(ring, bar)
                    ring.append(Row(bar, flags, flat(ring.rows[-1].values.close)))
                    ring.fresh = False
                    self.counters["flat_rows"] += 1
        if newer:
            if self.loss == "closed" and self.closed:
                self.skipped = second + 1
            self.resumed()

    def set_status(self, status: str, since_ns: int | None = None) -> None:
        if not self.rings[0].rows and self.feed_status == "live" != status:
            self.keep_early(status)
        if status == "closed":
            rows, period = self.rings[0].rows, self.rings[0].period
            end_ns = (rows[-1].time + period) * NS if rows else 0
            live = bool(rows) and self.feed_status == "live"
            told = live and self.live_from_ns <= end_ns
            if self.loss != "lost" or told or (rows and self.gap_after(end_ns)):
                self.loss = "closed"
                if rows:
                    self.live_from_ns = FOREVER
        elif status == "live":
            self.loss = self.loss if self.rings[0].rows else "none"
            self.loss_begins = False
        elif self.feed_status == "live":
            if self.loss == "none":
                self.told_until_ns, self.loss_begins = None, True
            self.loss = "lost"
            if self.rings[0].rows:
                self.live_from_ns = FOREVER
        self.feed_status = status
        if since_ns is not None:
            self.live_from_ns = since_ns

    def keep_early(self, status: str) -> None:
        """When the market was live before it had rows."""
        self.told_from_ns = self.live_from_ns
        if status == "closed" and self.live_from_ns <= self.newest_ns:
            if self.early:
                period = self.rings[0].period
                first, last = (self.rings[0].bar(ns // NS) for ns in self.early)
                self.note_open(0, first, last + period, "feed down")
            self.early = self.live_from_ns, self.newest_ns

    def make_early(self) -> None:
        """The rows of that time."""
        assert self.early
        now = self.feed_status, self.loss, self.live_from_ns
        self.feed_status, self.loss, self.live_from_ns = "live", "lost", self.early[0]
        closed, self.early = self.early[1], None
        self.step_rows(closed)
        self.feed_status, self.loss, self.live_from_ns = now
        if self.feed_status != "live":
            self.live_from_ns = FOREVER
        elif self.live_from_ns != FOREVER:
            self.skipped = self.live_from_ns // NS

    def add_gap(
        self, start_ns: int, end_ns: int, cause: str, *, repaired: bool = False
    ) -> None:
        if repaired:
            self.complete(start_ns, end_ns)
        elif self.feed_status != "live" and self.loss_begins:
            self.told_until_ns, self.loss_begins = start_ns, False
        elif self.feed_status != "live" and self.told_until_ns is not None:
            self.told_until_ns = min(self.told_until_ns, start_ns)
        self.open_gaps.pop(start_ns, None)
        if not repaired:
            if len(self.open_gaps) == OPEN_GAPS:
                del self.open_gaps[next(iter(self.open_gaps))]
            self.open_gaps[start_ns] = end_ns
        for ring in self.rings:
            if repaired:
                self.mark(ring, start_ns, end_ns)
            added = ring.put(Record(start_ns, end_ns, cause, repaired))
            self.counters["gaps"] += added and ring is self.rings[0]
            if repaired:
                ring.close_provisional(start_ns, end_ns)

    def gap_after(self, time_ns: int) -> bool:
        return any(end_ns > time_ns for end_ns in self.open_gaps.values())

    def complete(self, start_ns: int, end_ns: int) -> None:
        """All trades up to the end are known: so are the rows."""
        rows = self.rings[0].rows
        of_loss = start_ns == self.told_until_ns and self.live_from_ns <= end_ns
        known = self.told_from_ns != FOREVER
        if not rows and self.feed_status == "live" and of_loss and known:
            self.live_from_ns = self.told_from_ns
        newest = (rows[-1].time if rows else 0) * NS < end_ns
        for place, ring in enumerate(self.rings):
            bar = ring.bar(end_ns // NS)
            if ring.rows and bar > ring.rows[-1].time:
                self.fill(place, bar)
        if newest and self.loss == "lost" and not self.gap_after(end_ns):
            self.resumed()
            for ring in self.rings:
                ring.fresh = False

    def mark(self, ring: Ring, start_ns: int, end_ns: int) -> None:
        for row in ring.rows:
            begin, end = row.time * NS, (row.time + ring.period) * NS
            gone = row.flags & (GAP | (PARTIAL if begin >= start_ns else 0))
            made = any(start_ns < time_ns < end_ns for time_ns in row.ends)
            touched = begin < end_ns and start_ns < end
            other = any(
                not record.repaired
                and record.start_ns != start_ns
                and record.cause != "feed down"
                and record.start_ns < end
                and begin < record.end_ns
                for record in ring.records
            )
            if touched and not other and (gone or made or row.flags & REVISED):
                row.flags = row.flags & ~gone | REPAIRED

    def prepend(self, period: int, history: NDArray[np.void]) -> int:
        ring = next(ring for ring in self.rings if ring.period == period)
        count = min(len(history), ring.capacity - len(ring.rows))
        rows = []
        for row in history[len(history) - count :]:
            begun = Values(
                float(row["open"]),
                float(row["high"]),
                float(row["low"]),
                float(row["close"]),
                Fraction(float(row["volume"])),
                int(row["count"]),
                float(row["bar_wap"]),
            )
            empty = not begun.count and not begun.volume
            flags = BACKFILLED | (FLAT if empty else 0)
            rows.append(Row(int(row["time"]), flags, begun))
        if rows and not ring.rows:
            rows[-1].closes = True
        starts = rows and not ring.rows
        ring.rows[:0] = rows
        ring.first -= count
        if starts and self.early and self.rings[0].rows:
            self.make_early()
        elif starts and self.loss == "none" and self.rings[0].fresh:
            self.loss = "none" if self.live_from_ns == FOREVER else "lost"
        if starts and self.live_from_ns <= self.clock_ns:
            self.step(self.clock_ns)
        return count

    def reopen(self) -> None:
        """Another writer goes on; all ticks are still in the tick ring."""
        self.feed_status, self.loss, self.live_from_ns = "starting", "lost", FOREVER
        self.clock_ns = self.skipped = 0
        self.closed = self.loss_begins = False
        self.early, self.told_from_ns = None, FOREVER
        self.told_until_ns = None
        rows = [ring.rows[-1].time * NS for ring in self.rings if ring.rows]
        self.newest_ns = max([self.newest_trade_ns, *rows])
        for ring in self.rings:
            ring.fresh = True
        unrepaired = [r for r in self.rings[0].records if not r.repaired]
        self.open_gaps = {r.start_ns: r.end_ns for r in unrepaired[-OPEN_GAPS:]}
