"""What was lost is fetched from the venue's list and folded in; live data flow on."""

import time
from contextlib import aclosing

import numpy as np
import trio

from piker_core.adapter.market_feed import Host, MarketFeed
from piker_core.adapter.trades import EVER_NS, NS, SLACK_NS, Trades
from piker_core.dtypes import TICK_DTYPE
from piker_core.errors import DataThrottle, NotFound, PikerError
from piker_core.tasks import Backoff


async def fetch_seam(host: Host, market: MarketFeed) -> Trades | None:
    """All trades of the running minute; None if the venue does not tell."""
    assert market.trades is not None
    begin_ns = market.seam_ns - SLACK_NS
    pages = [np.zeros(0, TICK_DTYPE)]
    try:
        async with aclosing(market.trades.walk(begin_ns, EVER_NS, -1)) as walk:
            async for page, hole_ns in walk:
                if hole_ns:
                    return None
                pages.append(page)
    except PikerError as error:
        host.log.warning(
            "%s: the running minute is not known: %s", market.symbol, error
        )
        return None
    return np.concatenate(pages, dtype=TICK_DTYPE)  # else without padding


async def repair(host: Host, market: MarketFeed) -> None:
    """Fetch until no trade is missing and every gap that has ended is closed.

    Patient with a throttled or failing venue; gives up what is too long to be fetched,
    and what the venue has no list of.
    """
    if market.trades is None:
        market.give_up("the venue has no list of trades")
        return
    backoff = Backoff(0.5, 60.0)
    complained = False
    reads = 0
    backoff.next_s()
    while market.incomplete:
        try:
            final = reads + 1 >= host.limits.repair_reads
            if await market.fill(time.time_ns(), final=final):
                return
            reads += 1
        except DataThrottle as error:
            await trio.sleep(error.retry_after)
            continue
        except NotFound as error:
            market.give_up(str(error))
            return
        except (PikerError, OSError) as error:
            if not complained:
                host.log.warning("%s: repair waits: %s", market.symbol, error)
            complained = True
        await trio.sleep(backoff.next_s())


async def is_silent(host: Host, market: MarketFeed) -> bool:
    """Whether the venue lists trades that the stream should have told of by now."""
    newest = market.since_last()
    if newest is None or market.trades is None:
        return False
    since_ns, last_id = newest
    async with aclosing(market.trades.walk(since_ns, EVER_NS, last_id)) as pages:
        async for page, _ in pages:
            due_ns = time.time_ns() - int(host.limits.audit_grace_s * NS)
            return market.misses(page[page["time_ns"] < due_ns])
    return False
