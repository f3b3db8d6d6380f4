"""What does not happen to markets: missing trades, silence; and what is done then."""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import trio

from piker_core.adapter.market_feed import Host, MarketFeed
from piker_core.adapter.repair import fetch_seam, is_silent, repair
from piker_core.adapter.trades import Trades
from piker_core.errors import PikerError

LOOK_S = 0.25


class Watched(Host, Protocol):
    """Whose markets are watched."""

    def watched(self) -> Iterable[MarketFeed]:
        """All markets, now."""

    def abandon(self, market: MarketFeed, reason: str) -> None:
        """The stream does not tell of a market what it should."""

    def look(self) -> None:
        """Look after whatever is not a market's, such as connections."""


Work = Callable[[Watched, MarketFeed], Awaitable[None]]


async def watch(host: Watched, nursery: trio.Nursery) -> None:
    """Look for what does not happen, for ever; repairs run in `nursery`."""
    while True:
        await trio.sleep(LOOK_S)
        host.look()
        for market in list(host.watched()):
            try:
                await _watch_market(host, nursery, market)
            except OSError as error:
                host.complain("no_space", str(error), market.symbol)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise  # the rings are closed
            except Exception as error:  # noqa: BLE001 - logged by the market
                market.fail("the watch of it failed", error)


async def _watch_market(
    host: Watched, nursery: trio.Nursery, market: MarketFeed
) -> None:
    now_s = time.monotonic()
    if market.failed:
        if now_s > market.retry_s:
            market.up(time.time_ns())
        return
    if market.held is not None and now_s > market.held_until_s:
        await _release(host, market, None)
    market.notice_jumps(now_s - host.limits.disorder_s)
    if market.repairing:
        return
    if market.held is not None:
        nursery.start_soon(_alone, _join_seam, host, market)
    elif market.gaps:
        nursery.start_soon(_alone, repair, host, market)
    elif market.suspect_s and now_s - market.suspect_s > host.limits.suspect_s:
        market.suspect_s = 0.0
        nursery.start_soon(_alone, _audit, host, market)
    elif market.audit_due(now_s):
        nursery.start_soon(_alone, _audit, host, market)
    else:
        return
    market.repairing = True


async def _alone(work: Work, host: Watched, market: MarketFeed) -> None:
    """One fetch of a market at a time; what breaks it is its own trouble alone."""
    try:
        await work(host, market)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise  # the rings are closed
    except Exception as error:
        host.log.error("%s: repair failed: %r", market.symbol, error, exc_info=error)
        market.give_up(f"repair failed: {error!r}")
        if market.held is not None:
            await _release(host, market, None)
    finally:
        market.repairing = False


async def _join_seam(host: Watched, market: MarketFeed) -> None:
    held = market.held
    trades = await fetch_seam(host, market)
    if market.held is held:  # else the time is up, or another session began
        await _release(host, market, trades)


async def _release(host: Watched, market: MarketFeed, trades: Trades | None) -> None:
    try:
        await market.release(trades, now_ns=time.time_ns())
    except OSError as error:
        host.complain("no_space", str(error), market.symbol)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise  # the rings are closed
    except Exception as error:  # noqa: BLE001 - logged by the market
        market.fail("what was held could not be told", error)


async def _audit(host: Watched, market: MarketFeed) -> None:
    """There may be trades that the stream did not tell of: is it silent?"""
    try:
        if await is_silent(host, market):
            host.abandon(market, f"no trades of {market.symbol}, though it trades")
    except PikerError as error:
        host.log.warning("%s: cannot be audited: %s", market.symbol, error)
