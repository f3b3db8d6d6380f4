"""What does not happen: silence, missing acks and trades; and what is done then."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import numpy as np
import trio
from numpy.typing import NDArray

from piker_core.errors import PikerError

from .market_feed import MarketFeed
from .markets import Pair
from .repair import fetch_seam, is_silent, repair

if TYPE_CHECKING:
    from .feed import Stream

Work = Callable[["Stream", MarketFeed, Pair], Awaitable[None]]

LOOK_S = 0.25
DISORDER_S = 1.0
"""How long a jump of ids may be mere disorder."""
SUSPECT_S = 10.0
"""How long the ticker may know of a trade that the trade channel did not tell."""

log = logging.getLogger("providers.kraken")


async def watch(stream: "Stream", nursery: trio.Nursery) -> None:
    """Look for what does not happen, for ever; repairs run in `nursery`."""
    while True:
        await trio.sleep(LOOK_S)
        if stream.silence_s() > stream.config.liveness_s:
            stream.go_stale()
        elif overdue := stream.overdue_acks():
            log.warning("no acknowledgement of %s", overdue)
            stream.abandon("no acknowledgement")
        for venue_symbol, market in stream.markets.items():
            pair = stream.pairs[venue_symbol]
            await _watch_market(stream, nursery, market, pair)


async def _watch_market(
    stream: "Stream", nursery: trio.Nursery, market: MarketFeed, pair: Pair
) -> None:
    now_s = time.monotonic()
    if market.held is not None and now_s > market.held_until_s:
        await _release(stream, market, None)
    market.notice_jumps(now_s - DISORDER_S)
    if market.repairing:
        return
    if market.held is not None:
        nursery.start_soon(_alone, _join_seam, stream, market, pair)
    elif market.gaps:
        nursery.start_soon(_alone, _repair, stream, market, pair)
    elif market.suspect_s and now_s - market.suspect_s > SUSPECT_S:
        market.suspect_s = 0.0
        nursery.start_soon(_alone, _audit, stream, market, pair)
    else:
        return
    market.repairing = True


async def _alone(work: Work, stream: "Stream", market: MarketFeed, pair: Pair) -> None:
    """One fetch of a market at a time."""
    try:
        await work(stream, market, pair)
    finally:
        market.repairing = False


async def _join_seam(stream: "Stream", market: MarketFeed, pair: Pair) -> None:
    held = market.held
    trades = await fetch_seam(stream.client, market, pair)
    if market.held is held:  # else the time is up, or another session began
        await _release(stream, market, trades)


async def _release(
    stream: "Stream", market: MarketFeed, trades: NDArray[np.void] | None
) -> None:
    try:
        now_ns = time.time_ns()
        await market.release(trades, trading=stream.trading, now_ns=now_ns)
    except OSError as error:
        stream.complain("no_space", str(error), market.symbol)


async def _repair(stream: "Stream", market: MarketFeed, pair: Pair) -> None:
    await repair(stream.client, market, pair)


async def _audit(stream: "Stream", market: MarketFeed, pair: Pair) -> None:
    """The ticker tells of trades that the trade channel did not: is it silent?"""
    try:
        if await is_silent(stream.client, market, pair):
            stream.abandon(f"no trades of {market.symbol}, though it trades")
    except PikerError as error:
        log.warning("%s: cannot be audited: %s", market.symbol, error)
