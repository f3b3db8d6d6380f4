"""Rows of trades, and exact sums of them."""

from fractions import Fraction

import msgspec
import numpy as np
from numpy.typing import NDArray

TRADE_ROW = np.dtype(
    [
        ("time_ns", "<i8"),
        ("price", "<i8"),
        ("size", "<i8"),
        ("id", "<i8"),
        ("group", "<i8"),
        ("buy", "?"),
        ("market", "?"),
    ]
)
Rows = NDArray[np.void]


class Totals(msgspec.Struct, frozen=True):
    """Exact totals of some trades, in integer units; ids are -1 if there are none.

    `bought` and `bought_notional` are of the trades whose taker bought.
    """

    open: int
    high: int
    low: int
    close: int
    volume: int
    notional: int
    count: int
    bought: int = 0
    bought_notional: int = 0
    first_id: int = -1
    last_id: int = -1

    @property
    def vwap(self) -> Fraction:
        """Mean price in price units; 0 without volume."""
        return Fraction(self.notional, self.volume) if self.volume else Fraction(0)


def total(rows: Rows) -> Totals:
    """Exact totals of at least one row."""
    return total_groups(rows, np.zeros(1, np.int64))[0]


def total_groups(rows: Rows, starts: NDArray[np.int64]) -> list[Totals]:
    """Exact totals of the groups of rows that begin at `starts`, ascending.

    A product of price and size may pass 2**53 and a sum of them 2**63, so the sizes
    are summed in two halves and put together as Python integers.
    """
    price, size = rows["price"], rows["size"]
    bought = np.where(rows["buy"], size, 0)
    last = np.append(starts[1:], len(rows)) - 1
    columns = zip(
        price[starts].tolist(),
        np.maximum.reduceat(price, starts).tolist(),
        np.minimum.reduceat(price, starts).tolist(),
        price[last].tolist(),
        np.add.reduceat(size, starts).tolist(),
        _notionals(price, size, starts),
        (last + 1 - starts).tolist(),
        np.add.reduceat(bought, starts).tolist(),
        _notionals(price, bought, starts),
        rows["id"][starts].tolist(),
        rows["id"][last].tolist(),
        strict=True,
    )
    return [Totals(*column) for column in columns]


def _notionals(
    price: NDArray[np.int64], size: NDArray[np.int64], starts: NDArray[np.int64]
) -> list[int]:
    high_part = np.add.reduceat(price * (size >> 20), starts).tolist()
    low_part = np.add.reduceat(price * (size & 0xFFFFF), starts).tolist()
    return [(h << 20) + low for h, low in zip(high_part, low_part, strict=True)]


def merge(first: Totals | None, second: Totals | None) -> Totals | None:
    """Totals of two adjacent spans, the earlier one first."""
    if first is None or second is None:
        return first or second
    return Totals(
        first.open,
        max(first.high, second.high),
        min(first.low, second.low),
        second.close,
        first.volume + second.volume,
        first.notional + second.notional,
        first.count + second.count,
        first.bought + second.bought,
        first.bought_notional + second.bought_notional,
        first.first_id if first.count else second.first_id,
        second.last_id if second.count else first.last_id,
    )
