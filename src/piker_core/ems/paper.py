"""The paper engine: a venue that fills orders by what a real one shows and trades.

It has no clock, no tasks and no chance of its own: what it says is a function of what
it is given, in order, so a replay of the same ticks and requests says the same.
"""

from bisect import insort
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal, localcontext
from random import Random
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.broker import BrokerOrder
from piker_core.ems.paper_book import ZERO, Given, PaperMarket, PaperOrder
from piker_core.ems.paper_messages import (
    Message,
    Request,
    acknowledgement,
    as_told,
    execution,
    refusal,
    status,
)
from piker_core.ems.paper_state import (
    market_state,
    order_state,
    restore_market,
    restored_order,
)
from piker_core.ems.paper_ticks import (
    MarketTicks,
    interest,
    is_bid,
    is_trade,
    usable,
)
from piker_core.errors import OrderError
from piker_core.orders import BrokerdCancel, BrokerdOrder, State
from piker_core.steps import quantize

NotNegative = Annotated[float, msgspec.Meta(ge=0)]

_EXACT = Context(prec=100)
_MOST_ENDED = 65536
"""Ended orders that are remembered."""
_REDUCED = "reduce-only: nothing is left to reduce"


class PaperConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[paper]`: the paper engine.

    `maker_fee`, `taker_fee`: fractions of what a fill is worth; negative ones are
    earned. `latency_s`: how long a request is under way to the venue, and by how much
    longer at most, by chance (`jitter_s`, of which `seed` is the seed).
    `cancels_ahead`: "none" if an order in a queue moves up by trades alone,
    "proportional" if cancellations are taken to be spread evenly over the queue.
    """

    maker_fee: Decimal = ZERO
    taker_fee: Decimal = ZERO
    latency_s: NotNegative = 0.0
    jitter_s: NotNegative = 0.0
    seed: int = 0
    cancels_ahead: Literal["none", "proportional"] = "none"


class _Due(NamedTuple):
    """What is done at a time: a request arrives, or an order takes what it missed."""

    due_ns: int
    number: int
    fqme: str
    what: Request | PaperOrder


class _Terms(msgspec.Struct):
    """What a market's fills cost, and in what."""

    currency: str
    maker_fee: Decimal
    taker_fee: Decimal


class PaperEngine:
    """One paper account at one broker. Not thread-safe.

    Times are UTC nanoseconds. What is returned are messages of the venue, in the order
    in which it says them. Ticks that came before a request are to be fed before it.
    """

    def __init__(
        self, broker: str, account: str = "paper", config: PaperConfig | None = None
    ) -> None:
        self.broker, self.account = broker, account
        self.config = config or PaperConfig()
        self._latency_ns = round(self.config.latency_s * 1e9)
        self._markets: dict[str, PaperMarket] = {}
        self._terms: dict[str, _Terms] = {}
        self._ids: dict[int, str] = {}
        self._orders: dict[str, PaperOrder] = {}
        self._ended: deque[str] = deque()
        self._due: list[_Due] = []
        self._said: list[Message] = []
        self._counts: Counter[str] = Counter()
        self._number = 0

    def add_market(
        self,
        fqme: str,
        *,
        price_tick: Decimal,
        size_tick: Decimal,
        currency: str = "",
        market_id: int | None = None,
        maker_fee: Decimal | None = None,
        taker_fee: Decimal | None = None,
    ) -> None:
        """Take orders for a market. `market_id`: its number in ticks; `currency`: that
        of its prices and fees; the fees are those of the configuration if not given.

        Raises ValueError for a market that is already there.
        """
        if fqme in self._markets:
            raise ValueError(f"market {fqme} is already there")
        self._markets[fqme] = PaperMarket(
            fqme,
            price_tick,
            size_tick,
            proportional=self.config.cancels_ahead == "proportional",
            postpone=self._postpone,
        )
        config = self.config
        self._terms[fqme] = _Terms(
            currency,
            config.maker_fee if maker_fee is None else maker_fee,
            config.taker_fee if taker_fee is None else taker_fee,
        )
        if market_id is not None:
            self._ids[market_id] = fqme

    def prime(self, fqme: str, ticks: NDArray[np.void]) -> None:
        """Let a market know what was shown before now; fills nothing.

        `ticks`: rows of TICK_DTYPE of that market alone, oldest first.
        """
        rows = MarketTicks(self._markets[fqme], usable(ticks))
        rows.absorb(0, len(rows))

    # -- requests ----------------------------------------------------------------------

    def submit(self, order: BrokerdOrder, now_ns: int) -> list[Message]:
        """A new order, or the change of a living one; refusals are `BrokerdError`."""
        return self._request(order, order.symbol, now_ns)

    def cancel(self, cancel: BrokerdCancel, now_ns: int) -> list[Message]:
        """Cancel an order; one that is unknown or ended is a `BrokerdError`."""
        known = self._orders.get(str(cancel.reqid))
        return self._request(cancel, known.symbol if known else cancel.symbol, now_ns)

    def expire(self, now_ns: int, fqme: str = "") -> list[Message]:
        """The session of a market, or of all, is over: its day orders end."""
        for order in self._living():
            if order.tif == "day" and fqme in ("", order.symbol):
                self._end(order, "canceled", "the session is over", now_ns)
        return self._flush()

    def _request(self, request: Request, fqme: str, now_ns: int) -> list[Message]:
        delay_ns = self._latency_ns + self._jitter_ns(request, now_ns)
        before = [due.due_ns for due in self._due if _is_of(due, request)]
        due_ns = max([now_ns + delay_ns, *before])
        if due_ns > now_ns:
            self._schedule(due_ns, fqme, request)
            return []
        with localcontext(_EXACT):
            self._do(request, now_ns)
        return self._flush()

    def _jitter_ns(self, request: Request, now_ns: int) -> int:
        if not self.config.jitter_s:
            return 0
        chance = Random(f"{self.config.seed}/{request.reqid}/{now_ns}").random()
        return round(self.config.jitter_s * 1e9 * chance)

    def _schedule(self, due_ns: int, fqme: str, what: Request | PaperOrder) -> None:
        self._number += 1
        insort(self._due, _Due(due_ns, self._number, fqme, what))

    def _postpone(self, order: PaperOrder) -> None:
        """A quote from before an order went live reached us after it: it takes that
        when no newer one can come any more, as it would have done."""
        if not any(due.what is order for due in self._due):
            self._schedule(order.live_ns, order.symbol, order)

    def _do(self, what: Request | PaperOrder, now_ns: int) -> None:
        if isinstance(what, PaperOrder):
            if what.living:
                self._take(what, now_ns)
            return
        known = self._orders.get(str(what.reqid))
        if isinstance(what, BrokerdCancel):
            self._cancel(what, known, now_ns)
        elif known is None:
            self._new(what, now_ns)
        else:
            self._change(what, known, now_ns)

    def _cancel(
        self, cancel: BrokerdCancel, known: PaperOrder | None, now_ns: int
    ) -> None:
        if known is None:
            self._refuse(cancel, f"there is no order {cancel.reqid!r}")
        elif not known.living:
            self._refuse(cancel, f"order {cancel.reqid!r} is {known.status} already")
        else:
            self._counts["cancels"] += 1
            self._end(known, "canceled", "canceled", now_ns)

    def _new(self, request: BrokerdOrder, now_ns: int) -> None:
        problem = self._problem(request)
        if problem or request.reqid is None:
            self._refuse(request, problem)
            return
        self._number += 1
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
            seq=self._number,
        )
        self._orders[str(order.reqid)] = order
        self._counts["orders"] += 1
        self._said.append(acknowledgement(order, self.account, now_ns))
        reason = self._unfit(order)
        if reason:
            self._end(order, "canceled", reason, now_ns)
        else:
            self._said.append(status(order, now_ns))
            self._enter(order, now_ns)

    def _change(self, request: BrokerdOrder, order: PaperOrder, now_ns: int) -> None:
        market = self._markets[order.symbol]
        problem = self._problem(request) or self._fixed(request, order)
        if problem:
            self._refuse(request, problem)
            return
        self._counts["changes"] += 1
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
            self._number += 1
            order.seq, order.live_ns = self._number, now_ns
            self._enter(order, now_ns)

    def _enter(self, order: PaperOrder, now_ns: int) -> None:
        """An order comes into the market: it takes, and the rest of it waits."""
        market = self._markets[order.symbol]
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
        free = self._markets[order.symbol].facing(order).free(request.price)
        if order.post_only and free > 0:
            return f"post-only order {order.reqid!r} would take at {request.price}"
        return ""

    def _problem(self, request: BrokerdOrder) -> str:
        """Why an order cannot be taken, "" if it can."""
        market = self._markets.get(request.symbol)
        if request.reqid is None or request.reqid == "":
            return "an order needs a reqid"
        if request.account != self.account:
            return f"account {request.account!r} must be {self.account!r}"
        if market is None:
            known = ", ".join(sorted(self._markets)) or "none"
            return f"unknown symbol {request.symbol!r}; there are: {known}"
        for name, value, tick in (
            ("price", request.price, market.price_tick),
            ("size", request.size, market.size_tick),
        ):
            if value <= 0 or quantize(value, tick) != value:
                return f"{name} {value} must be a positive multiple of {tick}"
        return ""

    def _unfit(self, order: PaperOrder) -> str:
        """Why a new order ends before it is filled or rests, "" if it does not."""
        market = self._markets[order.symbol]
        if not market.allowed(order):
            held = f"the position is {market.position}"
            return f"reduce-only: would not reduce, {held}"
        if order.post_only and market.free(order) > 0:
            return "post-only: would take at once"
        if order.tif == "fok" and market.free(order) < order.remaining:
            return f"fok: only {market.free(order)} is shown at its price"
        return ""

    def _take(self, order: PaperOrder, now_ns: int) -> None:
        market = self._markets[order.symbol]
        market.take(order)
        self._tell_fills(market, now_ns, now_ns)

    # -- ticks and time ----------------------------------------------------------------

    def feed(
        self,
        ticks: NDArray[np.void],
        markets: Mapping[int, str] | None = None,
    ) -> list[Message]:
        """What ticks (TICK_DTYPE, of any markets, in order) make of the orders.

        `markets`: names of the markets' numbers, if not those of `add_market`.
        """
        names = self._ids if markets is None else markets
        rows = usable(ticks)
        self._counts["ticks"] += len(rows)
        said: list[tuple[int, Message]] = []
        for number in np.unique(rows["market"]).tolist():
            market = self._markets.get(names.get(number, ""))
            if market is not None:
                places = np.flatnonzero(rows["market"] == number)
                own = rows if len(places) == len(rows) else rows[places]
                with localcontext(_EXACT):
                    said += self._feed(market, MarketTicks(market, own), places)
        said.sort(key=lambda pair: pair[0])
        return [message for _, message in said]

    def _feed(
        self, market: PaperMarket, ticks: MarketTicks, places: NDArray[np.intp]
    ) -> list[tuple[int, Message]]:
        """Ticks of one market; each message with the place of the tick it came by."""
        said: list[tuple[int, Message]] = []
        start = 0
        while start < len(ticks):
            due = next((due for due in self._due if due.fqme == market.fqme), None)
            stop = len(ticks)
            if due is not None:
                stop = ticks.first_after(start, due.due_ns)
            if due is not None and stop == start:
                self._due.remove(due)
                self._do(due.what, due.due_ns)
                said += [(int(places[start]), one) for one in self._flush()]
            else:
                start = self._match(market, ticks, start, stop, places, said)
        return said

    def _match(
        self,
        market: PaperMarket,
        ticks: MarketTicks,
        start: int,
        stop: int,
        places: NDArray[np.intp],
        said: list[tuple[int, Message]],
    ) -> int:
        """Match up to `stop`, or until something else is waited for; returns where."""
        stop = ticks.end_of_chunk(start, stop)
        waits, awaited = interest(market), len(self._due)
        for tick in ticks.run(start, stop):
            self._counts["examined"] += 1
            if is_trade(tick):
                market.trade(tick.price, tick.size, tick.time_ns)
            else:
                market.quote(is_bid(tick), tick.price, tick.size, tick.time_ns)
            self._tell_fills(market, tick.time_ns, tick.venue_ns)
            said += [(int(places[tick.at]), one) for one in self._flush()]
            if interest(market) != waits or len(self._due) != awaited:
                stop = tick.at + 1
                break
        ticks.absorb(start, stop)
        return stop

    @property
    def next_due_ns(self) -> int | None:
        """When `advance` is to be called; None: not before something else is done."""
        return self._due[0].due_ns if self._due else None

    def advance(self, now_ns: int) -> list[Message]:
        """Do what is due by this time. All ticks received until then were fed."""
        with localcontext(_EXACT):
            while self._due and self._due[0].due_ns <= now_ns:
                due = self._due.pop(0)
                self._do(due.what, due.due_ns)
        return self._flush()

    # -- what it says ------------------------------------------------------------------

    def _flush(self) -> list[Message]:
        said, self._said = self._said, []
        return said

    def _refuse(self, request: Request, reason: str) -> None:
        self._counts["refused"] += 1
        self._said.append(refusal(request, reason))

    def _tell_fills(self, market: PaperMarket, now_ns: int, venue_ns: int) -> None:
        given, market.given = market.given, []
        for fill in given:
            self._tell_fill(fill, now_ns, venue_ns)
        if given:
            for order in [*market.buys, *market.sells]:
                if order.living and not market.allowed(order):
                    self._end(order, "canceled", _REDUCED, now_ns)

    def _tell_fill(self, fill: Given, now_ns: int, venue_ns: int) -> None:
        order, terms = fill.order, self._terms[fill.order.symbol]
        self._counts["fills"] += 1
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
        self._markets[order.symbol].remove(order)
        self._said.append(status(order, now_ns))
        self._ended.append(str(order.reqid))
        if len(self._ended) > _MOST_ENDED:
            del self._orders[self._ended.popleft()]

    # -- what it keeps -----------------------------------------------------------------

    def _living(self) -> list[PaperOrder]:
        return [order for order in self._orders.values() if order.living]

    def order(self, reqid: str | int) -> BrokerOrder | None:
        """An order, ended ones too; None: there is none."""
        order = self._orders.get(str(reqid))
        return None if order is None else as_told(order)

    def orders(self) -> list[BrokerOrder]:
        """All living orders, in the order of their time."""
        return [as_told(one) for one in sorted(self._living(), key=lambda o: o.seq)]

    def position(self, fqme: str) -> Decimal:
        """What is held of a market: what was set, and the fills since."""
        return self._markets[fqme].position

    def set_position(self, fqme: str, size: Decimal) -> None:
        """So much is held of a market; reduce-only orders go by it."""
        self._markets[fqme].position = size

    def statistics(self) -> dict[str, int]:
        """Counters: ticks, examined, orders, changes, cancels, refused, fills."""
        names = (
            *("ticks", "examined", "orders", "changes"),
            *("cancels", "refused", "fills"),
        )
        return {name: self._counts[name] for name in names}

    def state(self, reqid: str | int) -> dict[str, Any]:
        """What `restore` needs beside a `BrokerOrder`; plain values. {} if unknown."""
        order = self._orders.get(str(reqid))
        return {} if order is None else order_state(order)

    def market_state(self, fqme: str) -> dict[str, Any]:
        """What is shown, taken and held of a market, for `restore`; plain values."""
        return market_state(self._markets[fqme])

    def restore(
        self,
        orders: Sequence[BrokerOrder],
        *,
        states: Mapping[str, Mapping[str, Any]] | None = None,
        markets: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Take over orders as they were; fills nothing.

        `states` by reqid and `markets` by fqme are what `state` and `market_state`
        gave. An order without a state, or with that of before its last fill, is behind
        the others of its price and behind what is shown there.
        Raises OrderError for an order of a market that was not added, or for a state
        that is none.
        """
        with localcontext(_EXACT):
            for fqme, state in (markets or {}).items():
                restore_market(self._markets[fqme], state)
            kept = [
                restored_order(order, (states or {}).get(order.reqid))
                for order in orders
            ]
            kept.sort(key=lambda one: (not one.whole, one.order.seq, one.order.time_ns))
            self._number = max([self._number, *(order.seq for order, _ in kept)])
            for order, whole in kept:
                self._restore(order, whole)

    def _restore(self, order: PaperOrder, whole: bool) -> None:
        market = self._markets.get(order.symbol)
        if market is None:
            raise OrderError(
                f"order {order.reqid!r} is of {order.symbol}: add_market it first"
            )
        self._orders[str(order.reqid)] = order
        if not whole:  # so many fills it had at most: none is numbered twice
            order.fills = max(order.fills, int(order.filled / market.size_tick))
        if not order.living:
            self._ended.append(str(order.reqid))
        elif whole:
            market.place(order)
        else:
            self._number += 1
            order.seq = self._number
            market.rest(order)


def _is_of(due: _Due, request: Request) -> bool:
    """Is it a request about the same order? They arrive in the order of sending."""
    return not isinstance(due.what, PaperOrder) and due.what.reqid == request.reqid
