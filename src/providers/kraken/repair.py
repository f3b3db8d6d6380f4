"""Lost trades fetched from the venue's list and folded in, while live data flow."""

import logging
import time

import numpy as np
import trio
from numpy.typing import NDArray

from piker_core.errors import DataThrottle, NotFound, PikerError
from piker_core.tasks import Backoff

from .api import Client
from .market_feed import MarketFeed
from .markets import Pair
from .pages import TradePages
from .wire import NS

READS_MOST = 6
"""How often the venue's list is read for ids that it does not have."""
PAGES_MOST = 200
"""A gap of more trades than these pages hold stays unrepaired, on record."""

_EVER_NS = 1 << 62

log = logging.getLogger("providers.kraken")


async def fetch_seam(
    client: Client, market: MarketFeed, pair: Pair
) -> NDArray[np.void] | None:
    """All trades of the running minute; None if the venue does not tell."""
    begin_ns = market.seam_ns - 1000
    try:
        trades, holes = await TradePages(client, pair).between(begin_ns, _EVER_NS)
    except PikerError as error:
        log.warning("%s: the running minute is not known: %s", market.symbol, error)
        return None
    return None if holes else trades


async def repair(client: Client, market: MarketFeed, pair: Pair) -> None:
    """Fetch until no trade is missing and every gap that has ended is closed.

    Patient with a throttled or failing venue; gives up what is too long to be fetched.
    """
    backoff = Backoff(0.5, 60.0)
    complained = False
    reads = 0
    backoff.next_s()
    while market.gaps or market.tracker.missing:
        try:
            asked_ns = time.time_ns()
            newest_id = await _fetch(client, market, pair)
            if newest_id is None:
                market.give_up()
                return
            reads += 1
            final = reads >= READS_MOST
            if market.close_gaps(asked_ns, newest_id, final=final):
                return
        except DataThrottle as error:
            await trio.sleep(error.retry_after)
            continue
        except NotFound as error:
            log.warning("%s: %s", market.symbol, error)
            market.give_up()
            return
        except (PikerError, OSError) as error:
            if not complained:
                log.warning("%s: repair waits: %s", market.symbol, error)
            complained = True
        await trio.sleep(backoff.next_s())


async def _fetch(client: Client, market: MarketFeed, pair: Pair) -> int | None:
    """Push what is missing; the newest id listed, None if not all can be had."""
    spans = [span.after_ns - 1000 for span in market.tracker.missing]
    since_ns = max(min([gap.since_ns for gap in market.gaps] + spans), 0)
    newest_id = pages = 0
    async for trades, hole_ns in TradePages(client, pair).walk(since_ns, _EVER_NS):
        pages += 1
        if hole_ns or pages > PAGES_MOST:
            return None
        if len(trades):
            newest_id = max(newest_id, int(trades["id"].max()))
            await market.take_history(trades)
    return newest_id


async def is_silent(client: Client, market: MarketFeed, pair: Pair) -> bool:
    """Whether the venue lists trades that the stream should have told of by now."""
    if not market.tracker.started:
        return False
    since_ns = max(market.tracker.newest_ns - 1000, 0)
    trades, _ = await client.trades(pair, since_ns=since_ns)
    due_ns = time.time_ns() - 5 * NS
    due = trades[trades["time_ns"] < due_ns]
    return bool(len(due)) and market.tracker.wants(int(due["id"].max()))
