"""Rows and records of rings in plain Python, exact and slow: what a bar must be.

Prices are floats, which are never computed with; sums are fractions. A market's rows
are lists of trades, and what a row says of them is worked out when it is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

import piker_core as pk

NS = 1_000_000_000
START = 1 << 40
FOREVER = (1 << 63) - 1
FLAT, PARTIAL, BACKFILLED, REVISED, REPAIRED, GAP = (int(flag) for flag in pk.BarFlag)


@dataclass(frozen=True)
class Trade:
    """One trade as it is pushed."""

    time_ns: int
    price: float
    size: float
    id: int = 0
    count: int = 1
    arrival: int = 0

    @property
    def key(self) -> tuple[int, int, int]:
        return self.time_ns, self.id, self.arrival


def tick_array(trades: Sequence[Trade], kind: str = "trade") -> NDArray[np.void]:
    """Trades for `push_ticks`."""
    ticks = np.zeros(len(trades), pk.TICK_DTYPE)
    ticks["type"] = pk.TICK_TYPES[kind]
    for name in ("time_ns", "price", "size", "id", "count"):
        ticks[name] = [getattr(trade, name) for trade in trades]
    return ticks


@dataclass(frozen=True)
class Values:
    """What a row says: its prices, its sums, its count."""

    open: float
    high: float
    low: float
    close: float
    volume: Fraction = Fraction(0)
    count: int = 0
    wap: float = 0.0


@dataclass
class Row:
    """A bar: what it began with, and the trades that came into it."""

    time: int
    flags: int
    start: Values | None = None
    ordered: list[Trade] = field(default_factory=list)
    unordered: list[Trade] = field(default_factory=list)
    closes: bool = False
    """A history row whose last trade counts as older than any that come."""

    def add(self, trade: Trade, *, exact: bool) -> None:
        if self.flags & FLAT:
            self.start, self.flags = None, self.flags & ~FLAT
            exact = True
        (self.ordered if exact else self.unordered).append(trade)

    @property
    def ends(self) -> list[int]:
        """The times of the trades that make its open and its close."""
        times = sorted(trade.key for trade in self.ordered)
        known = [self.start is None, self.start is None or self.closes]
        return [
            at[0] for at, is_ in zip(times[:1] + times[-1:], known, strict=False) if is_
        ]

    def be_flat(self, price: float) -> None:
        self.start = flat(price)

    @property
    def values(self) -> Values:
        trades = self.ordered + self.unordered
        if not trades:
            assert self.start is not None
            return self.start
        prices = [trade.price for trade in trades]
        volume = sum((Fraction(trade.size) for trade in trades), Fraction(0))
        worth = sum((Fraction(t.price) * Fraction(t.size) for t in trades), Fraction(0))
        count = sum(trade.count for trade in trades)
        first = min(self.ordered, key=lambda trade: trade.key, default=None)
        last = max(self.ordered, key=lambda trade: trade.key, default=None)
        if begun := self.start:
            prices += begun.high, begun.low
            worth += Fraction(begun.wap) * begun.volume
            volume, count = volume + begun.volume, count + begun.count
            close = last.price if last and self.closes else begun.close
            opened = begun.open
        else:
            assert first is not None
            assert last is not None
            opened, close = first.price, last.price
        wap = float(worth / volume) if volume else close
        high, low = max(prices), min(prices)
        wap = wap if low <= wap <= high else close
        return Values(opened, high, low, close, volume, count, wap)


def runs(bars: Sequence[int], period: int) -> list[tuple[int, int]]:
    """The start and end of each run of neighbours."""
    among = set(bars)
    starts = [bar for bar in bars if bar - period not in among]
    ends = [bar + period for bar in bars if bar + period not in among]
    return list(zip(starts, ends, strict=True))


def flat(price: float) -> Values:
    """A bar in which nothing traded."""
    return Values(price, price, price, price, wap=price)


@dataclass
class Record:
    """A gap record."""

    start_ns: int
    end_ns: int
    cause: str
    repaired: bool = False


class Ring:
    """The rows and gap records of one period."""

    def __init__(self, period: int, capacity: int) -> None:
        self.period, self.capacity = period, capacity
        self.rows: list[Row] = []
        self.first = START
        self.records: list[Record] = []
        self.fresh = True

    def bar(self, second: int) -> int:
        return second - second % self.period

    def append(self, row: Row) -> None:
        self.rows.append(row)
        if len(self.rows) > self.capacity:
            del self.rows[0]
            self.first += 1

    def put(self, record: Record) -> bool:
        """Change the newest record of this loss, or add one; whether it was added."""
        newest = list(reversed(range(len(self.records))))
        same = [
            at for at in newest if self.records[at].start_ns == record.start_ns
        ] or [
            at
            for at in newest
            if self.records[at].cause == "feed down"
            and self.records[at].start_ns < record.end_ns
            and record.start_ns < self.records[at].end_ns
        ]
        if same:
            self.records[same[0]] = replace(record)
        else:
            self.records.append(replace(record))
        return not same

    def close_provisional(self, start_ns: int, end_ns: int) -> None:
        """What the engine noted of bars that a repaired gap covers is repaired too."""
        first = self.bar(start_ns // NS) * NS
        last = (self.bar((end_ns - 1) // NS) + self.period) * NS
        for record in self.records:
            if record.cause == "feed down" and (
                first <= record.start_ns and record.end_ns <= last
            ):
                record.repaired = True

    def on_record(self, bar: int) -> bool:
        end_ns = (bar + self.period) * NS
        return any(r.start_ns < end_ns and bar * NS < r.end_ns for r in self.records)

    def array(self) -> NDArray[np.void]:
        """The rows as a reader must see them."""
        rows = np.zeros(len(self.rows), pk.OHLCV_DTYPE)
        for place, row in enumerate(self.rows):
            v = row.values
            rows[place] = (
                self.first + place,
                row.time,
                v.open,
                v.high,
                v.low,
                v.close,
                float(v.volume),
                v.count,
                v.wap,
                row.flags,
            )
        return rows
