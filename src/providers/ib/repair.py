"""Lost trades fetched by their second and folded in, while live data flow.

Rules this file owns:

1. A gap is asked for when its last second has settled, page by page from its first
   second on; what was fetched is not asked for again, however often the rest fails.
2. A list that lacks trades that were told is not complete yet: it is asked for again.
3. What would take more than `repair_pages` pages, and contracts of which TWS lists no
   trades, are rebuilt from 1 s bars.

Source: https://interactivebrokers.github.io/tws-api/historical_time_and_sales.html
"""

import logging
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from itertools import groupby

import trio

from piker_core.calendars import NS
from piker_core.errors import DataThrottle, NoData, NotFound, PikerError
from piker_core.tasks import Backoff

from .api import Client
from .archive import PastTick
from .market_feed import Gap, MarketFeed
from .rebuild import rebuild
from .tape import Tick

_SHORT_MOST = 5
_SHORT_S = 1.0
_STEP_NS = 1_200_000_000
"""A market that is back is live when the clock has stepped."""
_GUESS_PAGES = 3

log = logging.getLogger("providers.ib")


class TooLongError(Exception):
    """More pages than are allowed."""


async def repair(client: Client, market: MarketFeed) -> None:
    """Close every gap of a market, oldest first.

    Patient with a throttled or failing TWS; what can never be fetched stays on record.
    """
    backoff = Backoff(1.0, 60.0)
    backoff.next_s()
    complaint = ""
    while market.gaps:
        gap = market.gaps[0]
        try:
            await _close(client, market, gap)
            backoff.reset()
            continue
        except DataThrottle as error:
            await trio.sleep(error.retry_after)
            continue
        except (NotFound, NoData) as error:
            market.give_up(gap, str(error))
            continue
        except (PikerError, OSError) as error:
            if str(error) != complaint:
                log.warning("%s: repair waits: %s", market.symbol, error)
            complaint = str(error)
        await trio.sleep(backoff.next_s())


async def _close(client: Client, market: MarketFeed, gap: Gap) -> None:
    settled_ns = gap.until_s * NS + int(client.config.settle_s * NS)
    settled_ns = max(settled_ns, market.up_ns + _STEP_NS)
    await trio.sleep(max(settled_ns - time.time_ns(), 0) / NS)
    if market.listing.kind == "trades" and gap.pages >= 0:
        try:
            async for ticks in missing_trades(client, market, gap):
                await _fold(market, gap, ticks)
            market.close_gap(gap)
            return
        except TooLongError:
            gap.pages = -1
            log.info("%s: a gap too long for its trades", market.symbol)
    if market.listing.bars_from == "mid":
        market.give_up(gap, "bars of midpoints cannot be rebuilt")
        return
    async for ticks in rebuild(client, market, gap):
        await _fold(market, gap, ticks)
    market.close_gap(gap)


async def _fold(market: MarketFeed, gap: Gap, ticks: list[Tick]) -> None:
    """Push trades that were missing; they count as told before the gap's end."""
    market.known.add(ticks, gap.epoch)
    if not await market.push(ticks):
        log.warning("%s: some lost trades were refused", market.symbol)
    gap.found += len(ticks)


async def fetch_seam(
    client: Client, market: MarketFeed, seam: Gap
) -> list[Tick] | None:
    """What was traded in the running minute and not told; None if TWS does not say."""
    found: list[Tick] = []
    by_trades = market.listing.kind == "trades"
    try:
        async for ticks in (
            missing_trades(client, market, seam, 0)
            if by_trades
            else rebuild(client, market, seam)
        ):
            found += ticks
    except NoData:
        return []
    except (PikerError, TooLongError) as error:
        log.warning("%s: the running minute is not known: %s", market.symbol, error)
        return None
    return found


async def missing_trades(
    client: Client, market: MarketFeed, gap: Gap, most_short: int = _SHORT_MOST
) -> AsyncIterator[list[Tick]]:
    """The trades of a gap that were not told, in order, some whole seconds at a time.

    The gap's `next_s` is past them when the next ones are asked for.
    """
    lost = market.lost_size(gap)
    if lost is not None:
        yield await _missing_by_size(client, market, gap, lost)
        gap.next_s = gap.until_s
        return
    first_s, short = gap.next_s, 0
    while gap.next_s < gap.until_s:
        inside, until_s = await _page(client, market, gap, gap.next_s)
        ticks, exceeds = _missing(market, gap, inside, until_s)
        if exceeds and short < most_short and market.tape.source == "ticks":
            short += 1
            await trio.sleep(_SHORT_S)
            continue
        yield ticks
        gap.next_s = until_s
        gap.pages += 1
        _check_length(client, gap, (until_s - first_s) / (gap.until_s - first_s))


async def _missing_by_size(
    client: Client, market: MarketFeed, gap: Gap, lost: Decimal
) -> list[Tick]:
    """The trades of a gap in which exactly so much was traded."""
    listed: list[PastTick] = []
    next_s, gap.pages = gap.next_s, 0
    while next_s < gap.until_s:
        inside, next_s = await _page(client, market, gap, next_s)
        listed += inside
        gap.pages += 1
        _check_length(client, gap, (next_s - gap.next_s) / (gap.until_s - gap.next_s))
    found = market.known.lost_run(listed, gap.next_s, gap.epoch, lost)
    return _missing(market, gap, listed, gap.until_s)[0] if found is None else found


async def _page(
    client: Client, market: MarketFeed, gap: Gap, start_s: int
) -> tuple[list[PastTick], int]:
    """Trades of a gap from a second on, and the second up to which they are all."""
    page = await client.archive.trades(market.listing, start_s)
    await market.wait_read()
    until_s = gap.until_s if page.last else min(page.until_s, gap.until_s)
    return [tick for tick in page.ticks if tick.second < until_s], until_s


def _missing(
    market: MarketFeed, gap: Gap, listed: list[PastTick], until_s: int
) -> tuple[list[Tick], bool]:
    """Of some whole seconds what was not told; whether more was told than is listed."""
    by_second = {
        second: list(ticks)
        for second, ticks in groupby(listed, lambda tick: tick.second)
    }
    parts: list[list[Tick]] = []
    carried, exceeds = Decimal(0), False
    for second in range(until_s - 1, gap.next_s - 1, -1):
        ticks, excess = market.known.missing(
            second, by_second.get(second, []), gap.epoch, carried
        )
        exceeds |= excess > carried
        carried = excess if market.tape.source == "sampled" else Decimal(0)
        parts.append(ticks)
    return [tick for part in reversed(parts) for tick in part], exceeds


def _check_length(client: Client, gap: Gap, done: float) -> None:
    """Raises TooLongError if the gap is going to take too many pages."""
    most = client.config.repair_pages
    if gap.pages > most or (gap.pages >= _GUESS_PAGES and gap.pages / done > most):
        raise TooLongError
