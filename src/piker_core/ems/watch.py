"""From the tick ring of a provider to triggers: which were reached, by which tick."""

from collections.abc import Sequence
from decimal import Decimal
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.core.rings import attach_bars, checked_namespace, describe_segment
from piker_core.core.ticks import TickCursor, attach_ticks
from piker_core.core.triggers import Triggers, feed_all
from piker_core.dtypes import TICK_DTYPE, TICK_TYPES
from piker_core.ems.watched import (
    NS,
    Armed,
    Fired,
    Unread,
    Waiting,
    WatchedMarket,
)
from piker_core.errors import NotFound, OrderError
from piker_core.segments import ring_name

__all__ = ["Armed", "Fired", "Polled", "Watch"]

_SEED = 4096
"""Ticks looked at first for what a market did last; then eight times as many."""
_QUOTED = frozenset(TICK_TYPES[name] for name in ("bid", "ask"))
_TRADED = frozenset(TICK_TYPES[name] for name in ("trade", "utrade"))


class Polled(msgspec.Struct, frozen=True):
    """What a poll brought.

    `ticks`: records of the markets that were added, valid until the next poll. `fired`:
    in their order; first those that rows tell of. `lost`: ticks that were overwritten
    before this poll. `position`: up to where all is tested; see `Watch`.
    """

    ticks: NDArray[np.void]
    fired: Sequence[Fired]
    lost: int
    position: tuple[int, int]


class Watch:
    """The triggers of all markets of one provider, and a place in its tick ring.

    `position` is that of an earlier watch, up to which all was tested; None begins with
    the next tick. In a ring that was made anew since, or that is behind it, all ticks
    count. Every tick is tested once; those that were overwritten before are made good
    from the rows of 1 s, where a trade says the same as its high and low. Not
    thread-safe, waits for nothing but in `ready`. Raises NotFound without a tick ring.
    """

    def __init__(
        self,
        provider: str,
        namespace: str | None = None,
        *,
        position: tuple[int, int] | None = None,
    ) -> None:
        self.provider = provider
        self.namespace = checked_namespace(namespace)
        self._ticks = attach_ticks(provider, namespace=self.namespace)
        name = ring_name(self.namespace, provider)
        self._ring = int(describe_segment(name.encode())["created_ns"])
        self._cursor = self._begin(position)
        self._known_lost = 0
        self._markets: dict[str, WatchedMarket] = {}
        self._books: list[Triggers | None] = []
        self._by_number: dict[int, WatchedMarket] = {}
        self._unnumbered = False
        self._wanted = np.zeros(0, bool)
        self._keys: dict[str, tuple[int, WatchedMarket]] = {}
        self._count = 0
        self._ahead: list[tuple[int, WatchedMarket, Waiting]] = []
        """Armed further on in the ring than is tested yet, by position."""

    def _begin(self, position: tuple[int, int] | None) -> TickCursor:
        if position is None:
            return self._ticks.cursor("live")
        ring, sequence = position
        if ring != self._ring or sequence > self._ticks.head:
            return self._ticks.cursor("oldest")
        return self._ticks.cursor(sequence)

    @property
    def position(self) -> tuple[int, int]:
        """Which ring, and the next tick's sequence: for a watch after a restart."""
        return self._ring, self._cursor.position

    # -- markets -----------------------------------------------------------------------

    def add_market(self, fqme: str, bars_from: str = "trade") -> None:
        """Watch a market; once is enough. Raises NotFound if it has no 1 s bars.

        `bars_from`: which prices reach triggers, as in `FeedEngine.add_market`.
        """
        if fqme in self._markets:
            return
        bars = attach_bars(fqme, period=1, namespace=self.namespace)
        market = self._markets[fqme] = WatchedMarket(fqme, bars, bars_from)
        self._find_numbers()
        if market.number >= 0:
            self._seed(market)

    def _find_numbers(self) -> None:
        """A market has its number as soon as its writer has given the ring its name."""
        names = self._ticks.markets()
        watched = [self._markets.get(name) for name in names]
        for number, market in enumerate(watched):
            if market is not None:
                market.number = number
                self._by_number[number] = market
        self._books = [None if each is None else each.book for each in watched]
        self._wanted = np.array([market is not None for market in watched], bool)
        self._unnumbered = len(self._by_number) < len(self._markets)

    def _seed(self, market: WatchedMarket) -> None:
        """Its last trade and quote, of the ticks before the cursor."""
        end, back = self._cursor.position, _SEED
        while True:
            start = max(self._ticks.first, end - back)
            tail = self._ticks.cursor(start).poll(max(end - start, 0))
            own = tail[(tail["market"] == market.number) & (tail["seq"] < end)]
            types = set(np.unique(own["type"]).tolist())
            if end - start < back or (types & _TRADED and types >= _QUOTED):
                market.book.feed(own, market.number)
                return
            back *= 8

    def _market(self, fqme: str) -> WatchedMarket:
        market = self._markets.get(fqme)
        if market is None:
            raise NotFound(f"{fqme!r:.80} is not watched: add_market() first")
        return market

    def last(self, fqme: str) -> tuple[float, int] | None:
        """The last price that counts and its time (UTC nanoseconds), if any is known."""
        return self._market(fqme).last()

    def quote(self, fqme: str) -> tuple[float, float, float, float]:
        """The last bid, its size, the ask and its size; 0.0 for what is not known."""
        return self._market(fqme).book.quote

    # -- arming ------------------------------------------------------------------------

    def arm(
        self,
        oid: str,
        fqme: str,
        price: Decimal | float,
        direction: int | None = None,
        *,
        stored: Armed | None = None,
    ) -> Armed:
        """Fire when a trade reaches `price`; what to store, to arm it again like this.

        `direction`: 1 at it or above, -1 at it or below; None: from the side of the
        last trade known, 1 where it is that trade's price. `stored`: what an earlier
        watch gave; all else is then taken from it. Raises OrderError for an oid that is
        armed and while no price is known, NotFound, ValueError.
        """
        market = self._checked(oid, fqme)
        armed = stored or market.arming(float(price), direction, self.position)
        return self._put(oid, market, armed, stored is not None)

    def arm_trail(
        self,
        oid: str,
        fqme: str,
        distance: Decimal | float,
        direction: int,
        *,
        best: Decimal | float | None = None,
        stored: Armed | None = None,
    ) -> Armed:
        """Fire when the price has come back by `distance` from its best since.

        `direction` -1: below its highest, 1: above its lowest, at first `best`, or the
        last trade known. Otherwise as `arm`.
        """
        market = self._checked(oid, fqme)
        start = None if best is None else float(best)
        armed = stored or market.arming(
            0.0, direction, self.position, float(distance), start
        )
        return self._put(oid, market, armed, stored is not None)

    def _checked(self, oid: str, fqme: str) -> WatchedMarket:
        if oid in self._keys:
            raise OrderError(f"order {oid!r} is armed already: disarm() it first")
        return self._market(fqme)

    def _put(self, oid: str, market: WatchedMarket, armed: Armed, again: bool) -> Armed:
        self._count += 1
        waiting = Waiting(self._count, oid, armed)
        ring, sequence = armed.position
        if not again:
            market.put(waiting)
        elif ring == self._ring and sequence > self._cursor.position:
            self._ahead.append((sequence, market, waiting))
            self._ahead.sort(key=lambda each: each[0])
        else:
            market.restored[waiting.key] = waiting
        self._keys[oid] = (waiting.key, market)
        return armed

    def disarm(self, oid: str) -> bool:
        """Forget a trigger; whether it was armed."""
        found = self._keys.pop(oid, None)
        if found is None:
            return False
        key, market = found
        if not market.take(key):
            self._ahead = [each for each in self._ahead if each[2].key != key]
        return True

    # -- ticks -------------------------------------------------------------------------

    async def ready(self) -> None:
        """Return once a poll would look at something. Cancellable."""
        await self._cursor.ready()

    def poll(self, most: int = 4096) -> Polled:
        """The next ticks, at most `most`, of the markets watched; what they reached."""
        if self._unnumbered:
            self._find_numbers()
        ticks = self._cursor.poll(most)
        lost = self._cursor.lost - self._known_lost
        self._known_lost += lost
        fired = self._make_good(ticks, lost > 0)
        if len(ticks):
            ticks = self._watched(ticks)
            fired += self._test(ticks)
        for each in fired:
            del self._keys[each.oid]
        return Polled(ticks, fired, lost, self.position)

    def _watched(self, ticks: NDArray[np.void]) -> NDArray[np.void]:
        numbers = ticks["market"]
        if numbers.max() >= len(self._wanted):
            self._find_numbers()
        wanted = self._wanted[numbers]
        return ticks if wanted.all() else ticks[wanted]

    def _test(self, ticks: NDArray[np.void]) -> list[Fired]:
        """Feed them, and arm on the way what was armed there."""
        fired: list[Fired] = []
        start = 0
        while self._ahead and self._ahead[0][0] <= self._cursor.position:
            sequence, market, waiting = self._ahead.pop(0)
            stop = int(np.searchsorted(ticks["seq"], sequence))
            fired += self._feed(ticks, start, stop)
            start = stop
            market.put(waiting)
        return fired + self._feed(ticks, start, len(ticks))

    def _feed(self, ticks: NDArray[np.void], start: int, stop: int) -> list[Fired]:
        fired = []
        for key, place in feed_all(ticks[start:stop], self._books):
            tick = ticks[start + place]
            market = self._by_number[int(tick["market"])]
            price, time_ns = float(tick["price"]), int(tick["time_ns"])
            fired.append(market.fired(key, price, time_ns, start + place))
        return fired

    def _make_good(self, polled: NDArray[np.void], lost: bool) -> list[Fired]:
        """What rows tell of ticks that were lost before those polled.

        The rows are read before the ticks that are still to come: what these tell, and
        only that, is no news of the rows.
        """
        if lost:
            self._give_up_ahead(int(polled["seq"][0]) if len(polled) else None)
        markets = [
            market
            for market in self._markets.values()
            if market.restored or (lost and market.armed)
        ]
        if not markets:
            return []
        rows = [market.rows_since(lost) for market in markets]
        place = self._cursor.position
        rest = self._ticks.cursor(place).poll(max(self._ticks.head - place, 0))
        unread = np.concatenate([polled, rest]).astype(TICK_DTYPE)
        fired: list[Fired] = []
        for market, own in zip(markets, rows, strict=True):
            prices = market.book.prices(unread, max(market.number, 0))
            told = np.isfinite(prices)
            seconds = unread["time_ns"][told] // NS
            fired += market.make_good(own, Unread(seconds, prices[told]), lost)
        return fired

    def _give_up_ahead(self, first: int | None) -> None:
        """What was armed at ticks that are lost goes by the rows."""
        place = self._cursor.position if first is None else first
        for sequence, market, waiting in self._ahead:
            if sequence < place:
                market.restored[waiting.key] = waiting
        self._ahead = [each for each in self._ahead if each[0] >= place]

    # -- the end -----------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the rings."""
        self._ticks.close()
        for market in self._markets.values():
            market.bars.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
