"""Trades and best quotes on their way: from lists as rows, in quotes as ticks."""

from collections.abc import AsyncGenerator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

NS = 1_000_000_000
EVER_NS = 1 << 62
SLACK_NS = 1000
"""How much lists may round their times; they are asked for from as much earlier."""

Quote = dict[str, Any]
Trades = NDArray[np.void]
"""Rows of TICK_DTYPE."""

Best = tuple[float, float, float, float]
"""Bid, its size, ask, its size."""


def best_ticks(before: Best | None, best: Best, time_ns: int) -> list[Quote]:
    """What changed of the best bid and ask, as ticks.

    A new price is a `bid` or `ask` tick, a new size alone a `bsize` or `asize` one; an
    empty side (price 0) makes none.
    """
    ticks = []
    for price_type, size_type, at in (("bid", "bsize", 0), ("ask", "asize", 2)):
        price, size = best[at], best[at + 1]
        kind = price_type
        if before is not None and before[at] == price:
            if before[at + 1] == size:
                continue
            kind = size_type
        if price > 0:
            tick = {"type": kind, "price": price, "size": size, "time_ns": time_ns}
            ticks.append(tick)
    return ticks


class TradeList(Protocol):
    """A venue's own list of one market's trades."""

    def walk(
        self, since_ns: int, until_ns: int, first_id: int
    ) -> AsyncGenerator[tuple[Trades, int], None]:
        """Pages of trades (TICK_DTYPE), oldest first, each trade once.

        From trade `first_id` on if that is known (not -1) and the venue can, else from
        `since_ns`, up to `until_ns`; more on both sides does no harm. With each page
        the time (ns) at which trades cannot be had that should be there, or 0. Raises
        NotFound, DataThrottle, ProviderError.
        """


def tick_of(row: np.void) -> Quote:
    """A row as a tick."""
    return {
        "type": "trade",
        "price": float(row["price"]),
        "size": float(row["size"]),
        "time_ns": int(row["time_ns"]),
        "id": int(row["id"]),
        "side": int(row["side"]),
        "count": int(row["count"]),
    }
