"""From the tick ring of a provider to triggers: which were reached, by which tick."""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

from piker_core.core.rings import attach_bars, checked_namespace, describe_segment
from piker_core.core.ticks import attach_ticks
from piker_core.core.triggers import Triggers, feed_all, of_markets
from piker_core.dtypes import TICK_TYPES
from piker_core.ems.lost import NS, Armed, Unread, Waiting, add_to
from piker_core.ems.watched import UNNUMBERED, Fired, WatchedMarket
from piker_core.errors import NotFound, OrderError, SegmentError
from piker_core.segments import ring_name

__all__ = ["Armed", "Fired", "Polled", "Watch"]

log = logging.getLogger("piker_core.ems")

LOOK_S = 1.0
"""How often it is looked whether the rings were removed and made anew."""
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
        self._markets: dict[str, WatchedMarket] = {}
        self._open: dict[str, WatchedMarket] = {}
        """Markets of which rows are to be looked at."""
        self._stale: set[str] = set()
        """Markets whose rows are still those of rings that were removed."""
        self._keys: dict[str, tuple[int, WatchedMarket]] = {}
        self._count = 0
        self._ahead: list[tuple[int, WatchedMarket, Waiting]] = []
        """Armed further on in the ring than is tested yet, by position."""
        self._attach()
        if position is not None and position[0] == self._ring:
            self._begin(position[1] if position[1] <= self._ticks.head else "oldest")
        elif position is not None:
            self._begin("oldest")

    # -- rings -------------------------------------------------------------------------

    def _attach(self) -> None:
        self._ticks = attach_ticks(self.provider, namespace=self.namespace)
        self._ring = self._made_ns()
        self._looked_s = time.monotonic()
        self._begin("live")
        self._number()

    def _begin(self, start: str | int) -> None:
        self._cursor = self._ticks.cursor(start)
        self._known_lost = 0

    def _made_ns(self) -> int:
        """When the ring of that name was made, which tells it from another one."""
        name = ring_name(self.namespace, self.provider).encode()
        return int(describe_segment(name).get("created_ns", 0))

    def _look_for_ticks(self) -> bool:
        """Attach again where the rings were made anew; whether they were."""
        with suppress(NotFound, SegmentError):  # its writer is not done: next time
            if self._made_ns() not in (0, self._ring):
                self._attach()
                log.warning("rings of %s were made anew: attached", self.provider)
                self._begin("oldest")
                self._give_up_ahead(None)
                self._stale = set(self._markets)
                self._look_for_bars()
                return True
        return False

    def _look_for_bars(self) -> None:
        for fqme in sorted(self._stale):
            with suppress(NotFound, SegmentError):
                bars = attach_bars(fqme, period=1, namespace=self.namespace)
                market = self._markets[fqme]
                market.bars.close()
                market.bars = bars
                self._stale.discard(fqme)
                self._lose(market)

    def _number(self) -> None:
        """A market has its number as soon as its writer has given the ring its name."""
        watched = [self._markets.get(name) for name in self._ticks.markets()]
        for market in self._markets.values():
            market.number = UNNUMBERED
        for number, named in enumerate(watched):
            if named is not None:
                named.number = number
        self._by_number = watched
        self._names = {
            market.number: fqme
            for fqme, market in self._markets.items()
            if market.number != UNNUMBERED
        }
        self._books = [None if each is None else each.book for each in watched]
        self._wanted = np.array([each is not None for each in watched], bool)

    @property
    def names(self) -> dict[int, str]:
        """The markets by their numbers in the ticks that were polled last."""
        return self._names

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
        self._number()
        if market.number != UNNUMBERED:
            self._seed(market)

    def _seed(self, market: WatchedMarket) -> None:
        """Its last trade and quote, of the ticks before the cursor."""
        end, back = self._cursor.position, _SEED
        while True:
            own = self.past(market.fqme, back)
            types = set(np.unique(own["type"]).tolist())
            if end - self._ticks.first < back or (types & _TRADED and types >= _QUOTED):
                market.book.feed(own, market.number)
                return
            back *= 8

    def past(self, fqme: str, most: int) -> NDArray[np.void]:
        """Ticks of a market among so many that were polled last. Raises NotFound."""
        number, end = self._market(fqme).number, self._cursor.position
        start = max(self._ticks.first, end - most)
        tail = self._ticks.cursor(start).poll(max(end - start, 0))
        own: NDArray[np.void] = tail[(tail["market"] == number) & (tail["seq"] < end)]
        return own

    def _market(self, fqme: str) -> WatchedMarket:
        market = self._markets.get(fqme)
        if market is None:
            raise NotFound(f"{fqme!r:.80} is not watched: add_market() first")
        return market

    def last(self, fqme: str) -> tuple[float, int] | None:
        """The last price that counts and its time (UTC nanoseconds); None: none yet."""
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

    def _put(
        self, oid: str, market: WatchedMarket, armed: Armed, stored: bool
    ) -> Armed:
        self._count += 1
        waiting = Waiting(self._count, oid, armed)
        ring, sequence = armed.position
        add_to(Triggers(), 0, armed)
        if not stored:
            market.put(waiting)
        elif (
            ring == self._ring and self._cursor.position < sequence <= self._ticks.head
        ):
            self._ahead.append((sequence, market, waiting))
            self._ahead.sort(key=lambda each: each[0])
        else:
            self._restore(market, waiting)
        self._keys[oid] = (waiting.key, market)
        return armed

    def armed(self, oid: str) -> Armed | None:
        """How an order is armed now: a trail has moved. None: it is not."""
        key, market = self._keys.get(oid, (0, None))
        found = market.armed(key) if market is not None else None
        ahead = [each.armed for _, _, each in self._ahead if each.key == key]
        return found or (ahead[0] if ahead else None)

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
        """Return once a poll would find something, or after `LOOK_S`. Cancellable."""
        with trio.move_on_after(LOOK_S):
            await self._cursor.ready()

    def poll(self, most: int = 4096) -> Polled:
        """The next ticks, at most `most`, of the markets watched; what they reached."""
        ticks = self._cursor.poll(most)
        if time.monotonic() - self._looked_s > LOOK_S:
            self._looked_s = time.monotonic()
            self._look_for_bars()
            if not len(ticks) and self._look_for_ticks():
                ticks = self._cursor.poll(most)
        own, highest = of_markets(ticks, self._wanted)
        if len(ticks) and highest >= len(self._wanted):
            self._number()
            own, _ = of_markets(ticks, self._wanted)
        lost = self._note_lost(ticks)
        fired = self._settle(ticks) if self._open else []
        if len(ticks):
            fired += self._test(own)
        for each in fired:
            del self._keys[each.oid]
        return Polled(own, fired, lost, self.position)

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
        heard_ns = time.monotonic_ns()
        for key, place in feed_all(ticks[start:stop], self._books, heard_ns):
            tick = ticks[start + place]
            market = self._by_number[int(tick["market"])]
            if market is not None:
                fired.append(market.fired(key, tick, start + place))
        return fired

    # -- ticks that were lost ----------------------------------------------------------

    def _note_lost(self, ticks: NDArray[np.void]) -> int:
        lost = self._cursor.lost - self._known_lost
        if lost:
            self._known_lost += lost
            for market in self._markets.values():
                self._lose(market)
            self._give_up_ahead(int(ticks["seq"][0]) if len(ticks) else None)
        return lost

    def _lose(self, market: WatchedMarket) -> None:
        market.lost = True
        self._open[market.fqme] = market

    def _restore(self, market: WatchedMarket, waiting: Waiting) -> None:
        market.restore(waiting)
        self._open[market.fqme] = market

    def _give_up_ahead(self, first: int | None) -> None:
        """What was armed among ticks that are lost goes by the rows; None: all."""
        kept = []
        for sequence, market, waiting in self._ahead:
            if first is None or sequence < first:
                self._restore(market, waiting)
            else:
                kept.append((sequence, market, waiting))
        self._ahead = kept

    def _settle(self, polled: NDArray[np.void]) -> list[Fired]:
        """What rows tell of the time before the ticks that were polled.

        They are read before the ticks that are still to come: a high of theirs that
        none of these has is of one that is lost. A market whose rows cannot be read is
        looked at again next time.
        """
        rows: list[tuple[WatchedMarket, NDArray[Any]]] = []
        fired: list[Fired] = []
        for market in self._open.values():
            try:
                fired += market.history()
                if market.unsettled:
                    rows.append((market, market.untested_rows()))
                market.damaged = False
            except SegmentError as error:
                if not market.damaged:
                    log.error("rows of %s cannot be read: %s", market.fqme, error)
                market.damaged = True
        unread = self._unread(polled) if rows else []
        for market, own in rows:
            prices = market.book.prices(unread, market.number)
            told = np.isfinite(prices)
            times_ns = np.concatenate([ticks["time_ns"] for ticks in unread])
            fired += market.settle(own, Unread(times_ns[told] // NS, prices[told]))
        self._open = {
            fqme: market
            for fqme, market in self._open.items()
            if market.unsettled or market.owed
        }
        return sorted(fired, key=lambda each: each.time_ns)

    def _unread(self, polled: NDArray[np.void]) -> list[NDArray[np.void]]:
        """Those polled and all that are in the ring after them."""
        place = self._cursor.position
        rest = self._ticks.cursor(place).poll(max(self._ticks.head - place, 0))
        return [polled, rest]

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
