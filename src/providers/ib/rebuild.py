"""A gap rebuilt from the venue's 1 s bars: ticks that fold into exactly those rows.

Rules this file owns:

1. Each row that traded becomes up to four ticks: open, high, low and close, in an order
   that folds into them. The sizes lie where the mean price comes out, and the counts
   sum to that of the bar, as far as there are not fewer than ticks.
2. Of what was told of the same second already only the rest is added.
3. Rows of quotes become quotes of that side, without size.
"""

import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import numpy as np

from piker_core.calendars import NS

from .api import Client
from .archive import BAR_SIZES
from .tape import Tick

if TYPE_CHECKING:
    from .market_feed import Gap, MarketFeed

log = logging.getLogger("providers.ib")


async def rebuild(
    client: Client, market: "MarketFeed", gap: "Gap"
) -> AsyncIterator[list[Tick]]:
    """Ticks for the seconds of a gap, oldest first; its `next_s` is past them then."""
    most_s = BAR_SIZES[1].most_s
    while gap.next_s < gap.until_s:
        end_s = min(gap.next_s + most_s, gap.until_s)
        rows = await client.archive.bars(
            market.listing, 1, end_s, end_s - gap.next_s, urgent=True
        )
        await market.wait_read()
        inside = rows[(rows["time"] >= gap.next_s) & (rows["time"] < end_s)]
        ticks: list[Tick] = []
        for row in inside[inside["count"] > 0]:
            ticks += row_ticks(market, row)
        yield ticks
        gap.next_s = end_s


def row_ticks(market: "MarketFeed", row: np.void) -> list[Tick]:
    """Ticks that make one row of what is known of its second."""
    kind = market.listing.bars_from
    second = int(row["time"])
    volume = float(row["volume"]) - float(market.known.size(second))
    count = int(row["count"]) - market.known.count(second)
    if row["volume"] > 0 and volume <= 0:
        return []
    high, low = float(row["high"]), float(row["low"])
    edges = [float(row["open"]), float(row["close"])]
    inner = [price for price in {high, low} if price not in edges]
    prices = [edges[0], *inner, edges[1]] if count > 1 or inner else edges[:1]
    if edges[0] != edges[1] and len(prices) == 1:
        prices = edges
    sizes = _share(prices, volume, float(row["bar_wap"]))
    spare = max(count - len(prices), 0) if row["volume"] > 0 else 0
    times = [second * NS + place for place in range(len(prices))]
    if len(prices) > 1:
        times[-1] = (second + 1) * NS - 1
    return [
        {"type": kind, "price": price, "size": size, "time_ns": time_ns, "count": more}
        for price, size, time_ns, more in zip(
            prices, sizes, times, [1 + spare] + [1] * (len(prices) - 1), strict=True
        )
    ]


def _share(prices: list[float], volume: float, mean: float) -> list[float]:
    """Sizes at some prices that sum to a volume and have a mean price."""
    sizes = [0.0] * len(prices)
    if volume <= 0:
        return sizes
    high, low = prices.index(max(prices)), prices.index(min(prices))
    part = 1.0
    if prices[high] > prices[low]:
        part = (mean - prices[low]) / (prices[high] - prices[low])
    part = min(max(part, 0.0), 1.0)
    sizes[high] = volume * part
    sizes[low] += volume - sizes[high]
    return sizes
