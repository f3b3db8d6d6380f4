"""The paper venue: orders of one account and what requests and ticks make of them.

Everything is done at the time that it is given; what the venue says of it is kept until
it is asked for with `said`.
"""

from collections import Counter, deque
from collections.abc import Callable
from decimal import Decimal

import msgspec

from piker_core.ems.paper.book import Given, PaperMarket, PaperOrder
from piker_core.ems.paper.messages import (
    Message,
    Request,
    acknowledgement,
    execution,
    refusal,
    status,
)
from piker_core.errors import OrderError
from piker_core.orders import BrokerdCancel, BrokerdOrder, State
from piker_core.steps import quantize

_MOST_ENDED = 65536
"""Ended orders that are remembered."""
_MOST_WORTH = 30
"""Digits before the point of what an order may be worth; messages have room for it."""
_WOULD_TAKE = "post-only: would take at once"
_REDUCED = "reduce-only: nothing is left to reduce"


class Terms(msgspec.Struct, frozen=True):
    """What a market's fills cost, as a fraction of what they are worth, and in what."""

    currency: str
    maker_fee: Decimal
    taker_fee: Decimal


class PaperVenue:
    """Orders and markets. `postpone`: see `PaperMarket`."""

    def __init__(
        self,
        account: str,
        *,
        proportional: bool,
        postpone: Callable[[PaperOrder], None],
    ) -> None:
        self.account = account
        self.markets: dict[str, PaperMarket] = {}
        self.orders: dict[str, PaperOrder] = {}
        self.counts: Counter[str] = Counter()
        self._proportional, self._postpone = proportional, postpone
        self._terms: dict[str, Terms] = {}
        self._ended: deque[str] = deque()
        self._said: list[Message] = []
        self._last_seq = 0

    def add_market(
        self, fqme: str, price_tick: Decimal, size_tick: Decimal, *, terms: Terms
    ) -> None:
        """Take orders for a market. Raises ValueError if it is already there."""
        if fqme in self.markets:
            raise ValueError(f"market {fqme} is already there")
        self._terms[fqme] = terms
        self.markets[fqme] = PaperMarket(
            fqme,
            price_tick,
            size_tick,
            proportional=self._proportional,
            postpone=self._postpone,
        )

    def market(self, fqme: str) -> PaperMarket:
        """The market of that name. Raises ValueError if there is none."""
        if fqme not in self.markets:
            raise ValueError(f"market {fqme!r} is not there: add_market it first")
        return self.markets[fqme]

    def said(self) -> list[Message]:
        """What was said since this was called before."""
        said, self._said = self._said, []
        return said

    def living(self) -> list[PaperOrder]:
        """Orders that may still be filled, in the order of their time."""
        living = [order for order in self.orders.values() if order.living]
        return sorted(living, key=lambda order: order.seq)

    def do(self, request: Request, now_ns: int) -> None:
        """What a request that has arrived asks for."""
        known = self.orders.get(str(request.reqid))
        if isinstance(request, BrokerdCancel):
            self._cancel(request, known, now_ns)
        elif known is None:
            self._new(request, now_ns)
        else:
            self._change(request, known, now_ns)

    def expire(self, now_ns: int, fqme: str) -> None:
        """Cancel the day orders of a market, of all if it is "", if not newer."""
        for order in self.living():
            old = order.time_ns <= now_ns
            if order.tif == "day" and old and fqme in ("", order.symbol):
                self._end(order, "canceled", "the session is over", now_ns)

    def restore(self, order: PaperOrder, whole: bool) -> None:
        """Take over an order. One that is not `whole` comes last at its price.

        Raises OrderError if its market was not added.
        """
        market = self.markets.get(order.symbol)
        if market is None:
            raise OrderError(
                f"order {order.reqid!r} is of {order.symbol}: add_market it first"
            )
        self.orders[str(order.reqid)] = order
        if not whole:  # so many fills it had at most: none is numbered twice
            order.fills = max(order.fills, int(order.filled / market.size_tick))
            order.seq = self._next_seq()
        self._last_seq = max(self._last_seq, order.seq)
        if not order.living:
            self._ended.append(str(order.reqid))
        elif whole:
            market.place(order)
        else:
            market.rest(order)

    def take_changed(self) -> set[str]:
        """Living orders, by reqid, that have changed since this was called before."""
        changed: set[str] = set()
        for market in self.markets.values():
            changed |= market.changed
            market.changed.clear()
        orders = {reqid: self.orders.get(reqid) for reqid in changed}
        return {reqid for reqid, order in orders.items() if order and order.living}

    def _next_seq(self) -> int:
        self._last_seq += 1
        return self._last_seq

    def _cancel(
        self, cancel: BrokerdCancel, known: PaperOrder | None, now_ns: int
    ) -> None:
        if known is None:
            self._refuse(cancel, f"there is no order {cancel.reqid!r}")
        elif not known.living:
            self._refuse(cancel, f"order {cancel.reqid!r} is {known.status} already")
        else:
            self.counts["cancels"] += 1
            self._end(known, "canceled", "canceled", now_ns)

    def _new(self, request: BrokerdOrder, now_ns: int) -> None:
        problem = self._problem(request)
        if problem or request.reqid is None:
            self._refuse(request, problem)
            return
        order = PaperOrder(
            reqid=request.reqid,
            oid=request.oid,
            symbol=request.symbol,
            action=request.action,
            price=request.price,
            size=request.size,
            tif=request.tif,
            post_only=request.post_only,
            reduce_only=request.reduce_only,
            time_ns=now_ns,
            live_ns=now_ns,
            seq=self._next_seq(),
        )
        self.orders[str(order.reqid)] = order
        self.counts["orders"] += 1
        self._said.append(acknowledgement(order, self.account, now_ns))
        reason = self._unfit(order)
        if reason:
            self._end(order, "canceled", reason, now_ns)
        else:
            self._said.append(status(order, now_ns))
            self._enter(order, now_ns)

    def _change(self, request: BrokerdOrder, order: PaperOrder, now_ns: int) -> None:
        market = self.markets[order.symbol]
        problem = self._problem(request) or self._fixed(request, order)
        if problem:
            self._refuse(request, problem)
            return
        market.changed.add(str(order.reqid))
        self.counts["changes"] += 1
        stays = request.price == order.price and request.size <= order.size
        order.price, order.time_ns = request.price, now_ns
        order.size = max(request.size, order.filled)
        self._said.append(acknowledgement(order, self.account, now_ns))
        if not order.remaining:
            self._end(order, "closed", "its size is what was filled", now_ns)
            return
        self._said.append(status(order, now_ns))
        if not stays:
            market.remove(order)
            order.seq, order.live_ns = self._next_seq(), now_ns
            self._enter(order, now_ns)

    def _enter(self, order: PaperOrder, now_ns: int) -> None:
        """An order comes into the market: it takes, and the rest of it waits."""
        market = self.markets[order.symbol]
        self._take(order, now_ns)
        if not order.living:
            return
        if order.tif in ("ioc", "fok"):
            reason = f"{order.tif}: no more is shown at its price"
            self._end(order, "canceled", reason, now_ns)
        elif not market.allowed(order):
            self._end(order, "canceled", _REDUCED, now_ns)
        else:
            market.rest(order)

    def _fixed(self, request: BrokerdOrder, order: PaperOrder) -> str:
        """Why an order cannot be changed so, "" if it can."""
        if not order.living:
            return f"order {order.reqid!r} is {order.status} already"
        if (request.symbol, request.action) != (order.symbol, order.action):
            return f"order {order.reqid!r} is to {order.action} {order.symbol}"
        free = self.markets[order.symbol].facing(order).free(request.price)
        if order.post_only and free > 0:
            return f"post-only order {order.reqid!r} would take at {request.price}"
        return ""

    def _problem(self, request: BrokerdOrder) -> str:
        """Why an order cannot be taken, "" if it can."""
        market = self.markets.get(request.symbol)
        if request.reqid is None or request.reqid == "":
            return "an order needs a reqid"
        if request.account != self.account:
            return f"account {request.account!r} must be {self.account!r}"
        if market is None:
            known = ", ".join(sorted(self.markets)) or "none"
            return f"unknown symbol {request.symbol!r}; there are: {known}"
        for name, value, tick in (
            ("price", request.price, market.price_tick),
            ("size", request.size, market.size_tick),
        ):
            if value <= 0 or quantize(value, tick) != value:
                return f"{name} {value} must be a positive multiple of {tick}"
        if (request.price * request.size).adjusted() >= _MOST_WORTH:
            return f"{request.size} at {request.price} is worth more than any order"
        return ""

    def _unfit(self, order: PaperOrder) -> str:
        """Why a new order ends before it is filled or rests, "" if it does not."""
        market = self.markets[order.symbol]
        if not market.allowed(order):
            held = f"the position is {market.position}"
            return f"reduce-only: would not reduce, {held}"
        if order.post_only and market.free(order) > 0:
            return _WOULD_TAKE
        if order.tif == "fok" and market.free(order) < order.remaining:
            return f"fok: only {market.free(order)} is shown at its price"
        return ""

    def free(self, order: PaperOrder) -> Decimal:
        """What an order could take at once."""
        return self.markets[order.symbol].free(order)

    def take_missed(self, order: PaperOrder, now_ns: int) -> None:
        """Let a resting order take what it was not shown in time."""
        if order.living and order.post_only and self.free(order):
            self._end(order, "canceled", _WOULD_TAKE, now_ns)
        elif order.living:
            self._take(order, now_ns)

    def _take(self, order: PaperOrder, now_ns: int) -> None:
        market = self.markets[order.symbol]
        market.take(order)
        self.tell_fills(market, now_ns, now_ns)

    def _refuse(self, request: Request, reason: str) -> None:
        self.counts["refused"] += 1
        self._said.append(refusal(request, reason))

    def tell_fills(self, market: PaperMarket, now_ns: int, venue_ns: int) -> None:
        """Say what a market has given; `venue_ns` is the time of the tick there."""
        given, market.given = market.given, []
        for fill in given:
            self._tell_fill(fill, now_ns, venue_ns)
        if given and market.reducing:
            for order in market.reducing.copy():
                if not market.allowed(order):
                    self._end(order, "canceled", _REDUCED, now_ns)

    def _tell_fill(self, fill: Given, now_ns: int, venue_ns: int) -> None:
        order, terms = fill.order, self._terms[fill.order.symbol]
        self.counts["fills"] += 1
        self._said.append(
            execution(
                fill,
                rate=terms.maker_fee if fill.maker else terms.taker_fee,
                currency=terms.currency,
                now_ns=now_ns,
                venue_ns=venue_ns,
            )
        )
        if not order.remaining and fill.number == order.fills:
            self._end(order, "closed", "", now_ns)

    def _end(self, order: PaperOrder, how: State, reason: str, now_ns: int) -> None:
        order.end(how, reason, now_ns)
        self.markets[order.symbol].remove(order)
        self._said.append(status(order, now_ns))
        self._ended.append(str(order.reqid))
        if len(self._ended) > _MOST_ENDED:
            del self.orders[self._ended.popleft()]
