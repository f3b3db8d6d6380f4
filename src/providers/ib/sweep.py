"""Seconds that were told trade by trade beside TWS's own bars: what lacks is fetched.

The volume (`audit`) does not tell of every loss: not before it is known how far it is
ahead of a new subscription's trades, nor after it was last seen to agree before the
subscription ended, nor while its own messages are lost. So nothing stays as it was told
without having been compared.

Rules this file owns:

1. Every `sweep_s`, and soon after a subscription began, the seconds since the last
   comparison that have settled are compared by their volume with the venue's bars of
   1 s: a request for up to 2000 of them, which waits for all that are urgent. Trades
   told by samples are not compared.
2. Seconds of which less was told than the bar has are a gap, repaired like any other.
   Those of which more was told are not listed yet, if they are new: the next sweep
   begins with them.
3. What cannot be compared for _KEEP_SWEEPS sweeps or _KEEP_S is not compared any more,
   and counted. Where repair has found nothing VAIN_MOST times in a row, bars and trades
   do not mean the same: no more sweeps, and a warning.
"""

import logging
import math
import time
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

import trio

from piker_core.calendars import NS
from piker_core.errors import NoData, PikerError
from piker_core.tasks import Backoff

from .api import Client
from .archive import BAR_SIZES
from .market_feed import MarketFeed

if TYPE_CHECKING:
    from .feed import Stream

_MOST_S = BAR_SIZES[1].most_s
LOOK_S = 1.0
SOON_S = 5.0
"""So long after a subscription began its first seconds are compared."""
_KEEP_SWEEPS = 4
_KEEP_S = 1200
"""So much, at least, of what was told is kept until it can be compared."""
_LISTED_S = 30
"""A second so old is listed as it will be."""
_TOGETHER_S = 10
"""Seconds that lack something and are not further apart are one gap."""
_LEAST = Decimal("1e-9")
"""Volumes of bars come as doubles."""
_FAILURES_MOST = 16

log = logging.getLogger("providers.ib")


class Turns:
    """When each market is to be compared, in seconds of one clock.

    Every `every_s`, and SOON_S after a subscription has begun; but a fifth of `every_s`
    apart. A market that cannot be compared, ever less often.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._due_s: dict[str, float] = {}
        self._last_s: dict[str, float] = {}
        self._begun_ns: dict[str, int] = {}
        self._backoffs: dict[str, Backoff] = {}

    def is_due(self, symbol: str, begun_ns: int, now_s: float) -> bool:
        """Whether it is a market's turn; its subscription began at `begun_ns`."""
        due_s = self._due_s.setdefault(symbol, now_s + self._every_s)
        if self._begun_ns.get(symbol) != begun_ns:
            self._begun_ns[symbol] = begun_ns
            rested_s = self._last_s.get(symbol, -math.inf) + self._every_s / 5
            due_s = min(due_s, max(now_s + SOON_S, rested_s))
            self._due_s[symbol] = due_s
        return now_s >= due_s

    def take(self, symbol: str, now_s: float) -> None:
        """It is compared now."""
        self._last_s[symbol], self._due_s[symbol] = now_s, now_s + self._every_s

    def succeed(self, symbol: str) -> None:
        """It could be compared."""
        self._backoffs.pop(symbol, None)

    def fail(self, symbol: str, now_s: float) -> None:
        """It could not."""
        longest_s = _FAILURES_MOST * self._every_s
        backoff = self._backoffs.setdefault(symbol, Backoff(self._every_s, longest_s))
        self._due_s[symbol] = now_s + max(backoff.next_s(), self._every_s)


async def sweep(stream: "Stream") -> None:
    """Compare what was told of all markets, one after the other, for ever."""
    turns = Turns(stream.config.sweep_s)
    while True:
        await trio.sleep(min(LOOK_S, stream.config.sweep_s))
        for symbol, market in stream.markets.items():
            session, now_s = stream.lines.session, trio.current_time()
            due = turns.is_due(symbol, market.up_ns, now_s)
            if not due or session is None or not session.links.lists:
                continue
            turns.take(symbol, now_s)
            try:
                await compare(stream.client, market)
            except (PikerError, OSError) as error:
                log.info("%s: its rows are compared later: %s", symbol, error)
                turns.fail(symbol, trio.current_time())
            else:
                turns.succeed(symbol)


async def compare(client: Client, market: MarketFeed) -> None:
    """One market's seconds beside TWS's; those that lack something become gaps.

    Raises what the archive raises.
    """
    first_s, until_s = _span(client, market)
    if until_s <= first_s:
        return
    listed = await _volumes(client, market, first_s, until_s)
    await market.wait_read()
    if market.swept_s != first_s:  # meanwhile it has begun anew
        return
    new_s = max(first_s, until_s - _LISTED_S)
    until_s = min(until_s, *_in_doubt(market))
    told = {second: market.known.size(second) for second in range(first_s, until_s)}
    if not told:
        return
    market.swept_s, lacking = beside(told, listed, new_s)
    market.compared += market.swept_s - first_s
    for start_s, end_s in together(lacking):
        market.open_sweep_gap(start_s, end_s)


async def _volumes(
    client: Client, market: MarketFeed, first_s: int, until_s: int
) -> dict[int, Decimal]:
    try:
        rows = await client.archive.bars(market.listing, 1, until_s, until_s - first_s)
    except NoData:
        return {}
    return {
        int(row["time"]): Decimal(repr(float(row["volume"])))
        for row in rows
        if first_s <= row["time"] < until_s
    }


def _span(client: Client, market: MarketFeed) -> tuple[int, int]:
    """The seconds to compare: none of a gap, and none whose trades may be under way."""
    now_s = time.time_ns() // NS
    if not market.told_by_tick:
        market.swept_s = max(market.swept_s, now_s)
        return 0, 0
    first_s = max(market.swept_s, market.tape.sampled_s)
    if first_s < now_s - _keep_s(client):
        market.uncompared += now_s - _keep_s(client) - first_s
        first_s = now_s - _keep_s(client)
    market.swept_s = first_s
    settle_s = math.ceil(client.config.settle_s)
    until_s = min(now_s, market.heard_ns // NS) - settle_s
    until_s = min(until_s, first_s + _MOST_S, *_in_doubt(market))
    whole = market.up and not market.held and market.tape.source == "ticks"
    return first_s, until_s if whole else 0


def _in_doubt(market: MarketFeed) -> list[int]:
    """The first seconds of what is to be repaired; one far away if there is nothing."""
    return [gap.next_s for gap in market.gaps] or [1 << 40]


def _keep_s(client: Client) -> int:
    return min(max(int(_KEEP_SWEEPS * client.config.sweep_s), _KEEP_S), _MOST_S)


def beside(
    told: Mapping[int, Decimal], listed: Mapping[int, Decimal], new_s: int
) -> tuple[int, list[int]]:
    """Up to which second what was told could be compared, and where it lacks something.

    Volumes by second, `told` of each one in turn; from `new_s` on those of which more
    was told than is listed are not listed yet.
    """
    lacking: list[int] = []
    second = -1
    for second, size in told.items():
        volume = listed.get(second, Decimal(0))
        if size > volume + _LEAST and second >= new_s:
            return second, lacking
        if size < volume - _LEAST:
            lacking.append(second)
    return second + 1, lacking


def together(seconds: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending seconds as spans, the end exclusive; those that are near are one."""
    spans: list[tuple[int, int]] = []
    for second in seconds:
        if spans and second < spans[-1][1] + _TOGETHER_S:
            spans[-1] = spans[-1][0], second + 1
        else:
            spans.append((second, second + 1))
    return spans
