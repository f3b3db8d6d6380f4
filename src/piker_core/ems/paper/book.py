"""One market of the paper engine: what is shown, our orders, who is filled by what.

1. Shown size is given once: what was taken of a level counts against it for as long as
   it is shown; a level that grows has the growth to give, one that shrinks that less.
2. A trade's size is given once, and what was taken of a level before is not given again
   when its trade prints.
3. Our orders are filled in order of price, then of time.
4. A resting order is filled at its own price: it was there first, so whoever came to it
   would have traded at it.
5. At a trade's own price an order waits for what was shown there before it joined.

All numbers are exact multiples of the market's ticks.
"""

from bisect import insort
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

import msgspec

from piker_core.orders import Side, State, TimeInForce

ZERO = Decimal(0)
_MOST_TAKEN = 64
"""Levels of a side of which it is remembered what was taken."""
_PRINT_NS = 5_000_000_000
"""How much later than it was last shown the trade of a level may print."""


class PaperOrder(msgspec.Struct, kw_only=True, eq=False):
    """An order of ours at the paper venue.

    `ahead`: size that is filled before it at its price, None if that is not known yet.
    `seen` and `traded`: what was last shown at its price and has traded there since.
    It is reached by ticks that are later than `live_ns`; `seq` is its place in time.
    `fills`: how many it had.
    """

    reqid: str | int
    oid: str
    symbol: str
    action: Side
    price: Decimal
    size: Decimal
    filled: Decimal = ZERO
    cost: Decimal = ZERO
    tif: TimeInForce = "gtc"
    post_only: bool = False
    reduce_only: bool = False
    status: State = "open"
    reason: str = ""
    time_ns: int = 0
    live_ns: int = 0
    seq: int = 0
    fills: int = 0
    ahead: Decimal | None = None
    seen: Decimal | None = None
    traded: Decimal = ZERO

    @property
    def remaining(self) -> Decimal:
        """What is not filled of its size."""
        return self.size - self.filled

    @property
    def living(self) -> bool:
        """It may still be filled."""
        return self.status == "open"

    def end(self, status: State, reason: str, time_ns: int) -> None:
        """It is not filled any more."""
        self.status, self.reason, self.time_ns = status, reason, time_ns


class Given(NamedTuple):
    """A fill: of which order, at what, and the tick that gave it."""

    order: PaperOrder
    number: int
    price: Decimal
    size: Decimal
    maker: bool
    why: str
    tick_price: Decimal
    tick_size: Decimal


class Owed(NamedTuple):
    """What was taken of a level and may print until then; 0: while it is shown."""

    size: Decimal
    until_ns: int


class Shown:
    """One side of the market's book: its best level, and what we took of its levels."""

    def __init__(self, sign: int) -> None:
        self.sign = sign
        """1 for bids, -1 for asks: of two prices the better has the larger product."""
        self.best: Decimal | None = None
        self.size = ZERO
        self.taken: dict[Decimal, Decimal] = {}
        """By price, of the best level and of those behind it."""
        self.owed: dict[Decimal, Owed] = {}
        """By price, what we took and whose trade may still print."""

    def better(self, one: Decimal, other: Decimal) -> bool:
        """Is the first of two prices of this side strictly better?"""
        return one > other if self.sign > 0 else one < other

    def show(self, price: Decimal, size: Decimal, time_ns: int) -> None:
        """This is the best level now; better ones are gone."""
        self._forget_better(price, time_ns)
        if price in self.taken:
            self.taken[price] = min(self.taken[price], size)
        self.best, self.size = price, size

    def pass_by(self, price: Decimal, time_ns: int) -> None:
        """The other side is now at this price: what was beyond it here is gone."""
        self._forget_better(price, time_ns)
        if self.best is not None and self.better(self.best, price):
            self.best, self.size = None, ZERO

    def free(self, limit: Decimal) -> Decimal:
        """What an order of the other side with this limit could take now."""
        if self.best is None or self.better(limit, self.best):
            return ZERO
        return self.size - self.taken.get(self.best, ZERO)

    def take(self, size: Decimal) -> None:
        """So much of the best level is ours."""
        if self.best is None or not size:
            return
        self.taken[self.best] = self.taken.get(self.best, ZERO) + size
        owed = self.owed.get(self.best, Owed(ZERO, 0))
        self.owed[self.best] = Owed(owed.size + size, 0)
        if len(self.taken) > _MOST_TAKEN:
            self._forget(min(self.taken, key=lambda price: self.sign * price), 0)

    def settle(self, price: Decimal, size: Decimal, time_ns: int) -> Decimal:
        """What of a trade is not the print of something that we took before."""
        owed = self.owed.get(price)
        if owed is None:
            return size
        if 0 < owed.until_ns < time_ns:
            del self.owed[price]
            return size
        known = min(owed.size, size)
        self.owed[price] = owed._replace(size=owed.size - known)
        return size - known

    def _forget_better(self, price: Decimal, time_ns: int) -> None:
        for level in [level for level in self.taken if self.better(level, price)]:
            self._forget(level, time_ns)

    def _forget(self, price: Decimal, time_ns: int) -> None:
        """A level is shown no more; its trade may print for a while."""
        del self.taken[price]
        self.owed[price] = self.owed[price]._replace(until_ns=time_ns + _PRINT_NS)
        for late in [
            at for at, owed in self.owed.items() if 0 < owed.until_ns < time_ns
        ]:
            del self.owed[late]


class PaperMarket:
    """The book of one market and our orders in it, best price first.

    `postpone` is called with an order that a quote crosses which is not later than it.
    """

    def __init__(
        self,
        fqme: str,
        price_tick: Decimal,
        size_tick: Decimal,
        *,
        proportional: bool,
        postpone: Callable[[PaperOrder], None],
    ) -> None:
        self.fqme, self.price_tick, self.size_tick = fqme, price_tick, size_tick
        self.bids, self.asks = Shown(1), Shown(-1)
        self.buys: list[PaperOrder] = []
        self.sells: list[PaperOrder] = []
        self.reducing: list[PaperOrder] = []
        """Those of both that are reduce-only."""
        self.position = ZERO
        self.prices: dict[float, Decimal] = {}
        """Prices of ticks that were made exact."""
        self.given: list[Given] = []
        """Fills that were not told yet."""
        self.changed: set[str] = set()
        """Orders, by reqid, that are otherwise than when this was looked at last."""
        self.latest_ns = 0
        """No order is live for later ticks only than those after this."""
        self._proportional = proportional
        self._postpone = postpone

    def own(self, order: PaperOrder) -> list[PaperOrder]:
        """The resting orders of its side."""
        return self.buys if order.action == "buy" else self.sells

    def facing(self, order: PaperOrder) -> Shown:
        """The side of the book that it would take."""
        return self.asks if order.action == "buy" else self.bids

    def beside(self, order: PaperOrder) -> Shown:
        """The side of the book that it would rest in."""
        return self.bids if order.action == "buy" else self.asks

    def allowed(self, order: PaperOrder) -> Decimal:
        """How much of it may be filled: all that remains, or what reduces."""
        if not order.reduce_only:
            return order.remaining
        held = -self.position if order.action == "buy" else self.position
        return min(order.remaining, max(held, ZERO))

    def free(self, order: PaperOrder) -> Decimal:
        """How much it could take at once."""
        return min(self.facing(order).free(order.price), self.allowed(order))

    def take(self, order: PaperOrder) -> None:
        """Fill it with what is shown, at the price that is shown."""
        side = self.facing(order)
        free, best = self.free(order), side.best
        if free > 0 and best is not None:
            why = "took the ask" if order.action == "buy" else "took the bid"
            tick = (best, side.size)
            side.take(self._give(order, best, free, maker=False, why=why, tick=tick))

    def rest(self, order: PaperOrder) -> None:
        """Put it behind those of its price; the queue ahead of it is what is shown."""
        self.changed.add(str(order.reqid))
        self.join(order)
        self.place(order)

    def place(self, order: PaperOrder) -> None:
        """Put it among the others as it is."""
        if order.reduce_only:
            self.reducing.append(order)
        self.latest_ns = max(self.latest_ns, order.live_ns)
        sign = self.beside(order).sign
        insort(self.own(order), order, key=lambda one: (-sign * one.price, one.seq))

    def remove(self, order: PaperOrder) -> None:
        """It rests no more."""
        for orders in (self.own(order), self.reducing):
            if order in orders:
                orders.remove(order)

    def join(self, order: PaperOrder) -> None:
        """It is the last at its price now."""
        side = self.beside(order)
        order.ahead, order.seen, order.traded = None, None, ZERO
        if side.best is None:
            return
        if side.better(order.price, side.best):
            order.ahead = ZERO
        elif order.price == side.best:
            order.ahead = order.seen = side.size

    def show(self, bid: bool, price: Decimal, size: Decimal, time_ns: int) -> Shown:
        """A level is the best of its side; fills nothing. Returns the side."""
        side, other = (self.bids, self.asks) if bid else (self.asks, self.bids)
        side.show(price, size, time_ns)
        other.pass_by(price, time_ns)
        return side

    def quote(self, bid: bool, price: Decimal, size: Decimal, time_ns: int) -> None:
        """A level is shown as the best of its side."""
        side = self.show(bid, price, size, time_ns)
        against, beside = (self.sells, self.buys) if bid else (self.buys, self.sells)
        for order in against:
            free = side.free(order.price)
            if free <= 0:
                break
            if time_ns <= order.live_ns:
                self._postpone(order)
                continue
            self._lead(order)
            why = "the bid came to it" if bid else "the ask came to it"
            side.take(
                self._give(
                    order, order.price, free, maker=True, why=why, tick=(price, size)
                )
            )
        for order in beside:
            if time_ns > self.latest_ns and side.better(price, order.price):
                break
            self._requeue(order, side, time_ns)

    def trade(self, price: Decimal, size: Decimal, time_ns: int) -> None:
        """A trade printed: what it gives goes to buys first, then to sells."""
        left = size
        for orders, shown in ((self.buys, self.asks), (self.sells, self.bids)):
            reached = []
            for order in orders:
                if shown.better(order.price, price):
                    break
                if time_ns > order.live_ns:
                    reached.append(order)
            if reached:
                left = self._through(reached, price, shown.settle(price, left, time_ns))

    def _through(
        self, reached: list[PaperOrder], price: Decimal, left: Decimal
    ) -> Decimal:
        """Give a trade to the orders that it reached; returns what is left of it."""
        tick = (price, left)
        for order in reached:
            if order.price == price:
                break
            self._lead(order)
            why = "a trade went through its price"
            left -= self._give(order, order.price, left, maker=True, why=why, tick=tick)
        came = left
        for order in reached:
            if order.price != price:
                continue
            if order.ahead is None:
                break
            why = "a trade at its price, none were ahead"
            if order.ahead:
                why = f"a trade at its price, {order.ahead.normalize():f} were ahead"
            most = left - order.ahead
            left -= self._give(order, price, most, maker=True, why=why, tick=tick)
            self.changed.add(str(order.reqid))
            order.ahead = max(order.ahead - came, ZERO)
            order.traded += came
        return left

    def _lead(self, order: PaperOrder) -> None:
        """Nobody is ahead of it."""
        if order.ahead != ZERO:
            self.changed.add(str(order.reqid))
            order.ahead = ZERO

    def _requeue(self, order: PaperOrder, side: Shown, time_ns: int) -> None:
        """The queue ahead of a resting order after a quote of its own side."""
        was = order.ahead, order.seen, order.traded
        self._count_ahead(order, side, time_ns)
        if was != (order.ahead, order.seen, order.traded):
            self.changed.add(str(order.reqid))

    def _count_ahead(self, order: PaperOrder, side: Shown, time_ns: int) -> None:
        if time_ns <= order.live_ns:
            self.join(order)
        elif side.best is None or side.better(side.best, order.price):
            return
        elif order.price != side.best:
            order.ahead = ZERO
        elif order.ahead is None:
            order.ahead = order.seen = side.size
        else:
            if self._proportional:
                self._thin(order, side.size)
            order.ahead = min(order.ahead, side.size)
            order.seen, order.traded = side.size, ZERO

    def _thin(self, order: PaperOrder, size: Decimal) -> None:
        """Cancellations are spread evenly over those ahead and those behind."""
        if order.seen is None or order.ahead is None:
            return
        expected = order.seen - order.traded
        if expected > size and expected > 0:
            steps = order.ahead * size / expected / self.size_tick
            order.ahead = steps.__ceil__() * self.size_tick

    def _give(
        self,
        order: PaperOrder,
        price: Decimal,
        most: Decimal,
        *,
        maker: bool,
        why: str,
        tick: tuple[Decimal, Decimal],
    ) -> Decimal:
        """Fill an order with so much at most; returns how much."""
        size = min(most, self.allowed(order))
        if size <= 0:
            return ZERO
        self.changed.add(str(order.reqid))
        order.filled += size
        order.cost += size * price
        order.fills += 1
        self.position += size if order.action == "buy" else -size
        self.given.append(Given(order, order.fills, price, size, maker, why, *tick))
        if not order.remaining:
            order.status = "closed"
        return size
