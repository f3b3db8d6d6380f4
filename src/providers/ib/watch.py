"""What does not happen: silence, missing words and trades; and what is done then."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from piker_core.calendars import NS
from piker_core.errors import PikerError

from .contracts import known_hours
from .market_feed import HOLD_S, MarketFeed
from .repair import fetch_seam, repair

if TYPE_CHECKING:
    from .feed import Stream

Work = Callable[["Stream", MarketFeed], Awaitable[None]]

LOOK_S = 0.25
DECIDE_S = 2.0
DOUBT_S = 10.0
SURE = 3
"""How long trades may be known of by samples alone while each should be told: so many
of them, or fewer, as the message of one may have been lost."""
_AHEAD_NS = 86400 * NS
_REFRESH_S = 3600.0
_QUIET_MOST = 6
_DUE = frozenset(("ack", "word", "tick", "turn", "retry"))

log = logging.getLogger("providers.ib")


async def watch(stream: "Stream", nursery: trio.Nursery) -> None:
    """Look for what does not happen, for ever; repairs run in `nursery`."""
    waiting_s: dict[str, float] = {}
    while True:
        await trio.sleep(LOOK_S)
        for market in stream.markets.values():
            now_s, now_ns = trio.current_time(), time.time_ns()
            await _watch_line(stream, market, now_s, now_ns)
            _watch_trades(stream, market, now_ns, waiting_s)
            _watch_gaps(stream, market, nursery)


async def _watch_line(
    stream: "Stream", market: MarketFeed, now_s: float, now_ns: int
) -> None:
    """Words that are due, and silence."""
    session = stream.lines.session
    if session is None:
        return
    if market.awaits in _DUE and now_s > market.due_s:
        if market.awaits == "word" and market.tape.price is None:
            market.come_up(now_ns)
            stream.note_progress()
            return
        if market.awaits == "ack" and session.links.up:
            session.miss(f"market data of {market.symbol}")
        stream.lines.renew(market)
    elif market.closed:
        market.shut_ns = now_ns
    elif market.up and market.heard_ns:
        silence_s = (now_ns - max(market.heard_ns, market.shut_ns)) / NS
        if session.links.broken_farms and silence_s > stream.config.farm_grace_s:
            market.go_down("data farm broken", market.heard_ns, stale=True)
            market.awaits = "farm"
        elif silence_s > stream.config.silence_s * 2**market.quiet:
            market.quiet = min(market.quiet + 1, _QUIET_MOST)
            market.go_down("silence", market.heard_ns, stale=True)
            stream.lines.renew(market)
    await market.flush(now_ns)


def _watch_trades(
    stream: "Stream", market: MarketFeed, now_ns: int, waiting_s: dict[str, float]
) -> None:
    """Trades that one of its two sources does not tell of."""
    tape = market.tape
    waiting = tape.waiting if market.up else 0
    if not waiting:
        waiting_s.pop(market.symbol, None)
    else:
        now_s = trio.current_time()
        decide_s = DECIDE_S if waiting >= SURE else DOUBT_S
        if now_s - waiting_s.setdefault(market.symbol, now_s) > decide_s:
            stream.leave_ticks(market, "nothing is told on its line")
    if market.up and tape.source == "ticks":
        since_ns = tape.audit.look(now_ns)
        if since_ns:
            market.open_audit_gap(since_ns, now_ns)


def _watch_gaps(stream: "Stream", market: MarketFeed, nursery: trio.Nursery) -> None:
    if market.repairing:
        return
    if market.seam is not None:
        work = _join_seam
    elif market.gaps and market.up:
        work = _repair
    else:
        return
    market.repairing = True
    nursery.start_soon(_alone, work, stream, market)


async def _alone(work: Work, stream: "Stream", market: MarketFeed) -> None:
    """One fetch of a market at a time; what goes wrong with it is that market's own."""
    try:
        await work(stream, market)
    except Exception:
        log.exception("%s: its gaps cannot be repaired", market.symbol)
        await trio.sleep(HOLD_S)
    finally:
        market.repairing = False


async def _join_seam(stream: "Stream", market: MarketFeed) -> None:
    """The running minute's trades, if they come in time; then live data flow."""
    seam, ticks = market.seam, None
    assert seam is not None
    settled_ns = seam.until_s * NS + int(stream.config.settle_s * NS)
    await trio.sleep(max(settled_ns - time.time_ns(), 0) / NS)
    with trio.move_on_after(HOLD_S):
        ticks = await fetch_seam(stream.client, market, seam)
    if market.seam is seam:  # else the connection was lost meanwhile
        await market.release(ticks, time.time_ns())
        stream.note_progress()


async def _repair(stream: "Stream", market: MarketFeed) -> None:
    await repair(stream.client, market)


async def keep_hours(stream: "Stream", market: MarketFeed) -> None:
    """Ask for the hours of the days to come before those that are known end."""
    while True:
        await trio.sleep(_REFRESH_S)
        if market.hours.told_until_ns > time.time_ns() + _AHEAD_NS:
            continue
        try:
            listing = await stream.client.listing(market.symbol, refresh=True)
        except PikerError as error:
            log.warning("%s: its hours are not known: %s", market.symbol, error)
        else:
            market.set_hours(known_hours(listing, stream.config.hours))
