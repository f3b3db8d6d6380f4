"""The first quote of every market: from what TWS says, else from its history."""

import logging
import time
from typing import TYPE_CHECKING

import trio

from piker_core.errors import DataThrottle, NoData, ProviderError

from .market_feed import MarketFeed, Quote

if TYPE_CHECKING:
    from .feed import Stream

FIRST_QUOTE_S = 1.0
"""How long TWS may take to say a price once all lines have spoken."""
_DAY_S = 86400

log = logging.getLogger("providers.ib")


async def first_quotes(stream: "Stream") -> dict[str, Quote]:
    """A quote with `last` for every market, as soon as TWS has said one.

    Raises ProviderError if it has refused one.
    """
    await stream.live.wait()
    if stream.error is not None:
        raise stream.error
    with trio.move_on_after(FIRST_QUOTE_S):
        await stream.priced.wait()
    quotes: dict[str, Quote] = {}
    for symbol, market in stream.markets.items():
        last = market.tape.price or await _last_close(stream, market)
        quote: Quote = {"symbol": symbol, "last": last, "ticks": []}
        quote |= market.tape.best
        await stream.send(quote)
        quotes[symbol] = quote
    return quotes


async def _last_close(stream: "Stream", market: MarketFeed) -> float | None:
    """The close of the last day that history has; None if it has none."""
    try:
        rows = await stream.client.archive.bars(
            market.listing, _DAY_S, int(time.time()), 5 * _DAY_S, urgent=True
        )
    except (NoData, DataThrottle, ProviderError) as error:
        log.warning("%s has no last price: %s", market.symbol, error)
        return None
    return float(rows["close"][-1]) if len(rows) else None
