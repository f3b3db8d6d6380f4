"""The paper engine: a venue that fills orders by what a real one shows and trades.

It has no clock, no tasks and no chance of its own: what it says is a function of what
it is given, in order, so a replay of the same ticks and requests says the same.
"""

from bisect import insort
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal, localcontext
from random import Random
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.broker import BrokerOrder
from piker_core.ems.paper.book import ZERO, PaperMarket, PaperOrder
from piker_core.ems.paper.messages import Message, Request, as_told
from piker_core.ems.paper.state import (
    market_state,
    order_state,
    restore_market,
    restored_order,
)
from piker_core.ems.paper.ticks import (
    MarketTicks,
    TickRun,
    by_market,
    interest,
    is_bid,
    is_trade,
    usable,
)
from piker_core.ems.paper.venue import PaperVenue, Terms
from piker_core.orders import BrokerdCancel, BrokerdOrder

NotNegative = Annotated[float, msgspec.Meta(ge=0)]

_EXACT = Context(prec=100)


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
        self._venue = PaperVenue(
            account,
            proportional=self.config.cancels_ahead == "proportional",
            postpone=self._postpone,
        )
        self._ids: dict[int, str] = {}
        self._due: list[_Due] = []
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
        """Take orders for a market.

        `market_id`: its number in ticks. `currency`: that of its prices and fees. The
        fees are those of the configuration if not given. Raises ValueError for a market
        that is already there.
        """
        config = self.config
        maker_fee = config.maker_fee if maker_fee is None else maker_fee
        taker_fee = config.taker_fee if taker_fee is None else taker_fee
        terms = Terms(currency, maker_fee, taker_fee)
        self._venue.add_market(fqme, price_tick, size_tick, terms=terms)
        if market_id is not None:
            self._ids[market_id] = fqme

    def prime(self, fqme: str, ticks: NDArray[np.void]) -> None:
        """Let a market know what was shown before now; fills nothing.

        `ticks`: rows of TICK_DTYPE of that market alone, oldest first. Raises
        ValueError for a market that was not added.
        """
        rows = MarketTicks(self._venue.market(fqme), usable(ticks))
        rows.absorb(0, len(rows))

    # -- requests ----------------------------------------------------------------------

    def submit(self, order: BrokerdOrder, now_ns: int) -> list[Message]:
        """A new order, or the change of a living one; refusals are `BrokerdError`."""
        return self._request(order, order.symbol, now_ns)

    def cancel(self, cancel: BrokerdCancel, now_ns: int) -> list[Message]:
        """Cancel an order; one that is unknown or ended is a `BrokerdError`."""
        known = self._venue.orders.get(str(cancel.reqid))
        coming = [due.fqme for due in self._due if _is_of(due, cancel)]
        fqme = known.symbol if known else [*coming, cancel.symbol][0]
        return self._request(cancel, fqme, now_ns)

    def expire(self, now_ns: int, fqme: str = "") -> list[Message]:
        """The session of a market, or of all, is over: its day orders end.

        Those of after this time are of the next one.
        """
        with localcontext(_EXACT):
            self._venue.expire(now_ns, fqme)
        return self._venue.said()

    def _request(self, request: Request, fqme: str, now_ns: int) -> list[Message]:
        delay_ns = self._delay_ns(request, now_ns)
        before = [due.due_ns for due in self._due if _is_of(due, request)]
        due_ns = max([now_ns + delay_ns, *before])
        if due_ns > now_ns:
            self._schedule(due_ns, fqme, request)
            return []
        with localcontext(_EXACT):
            self._do(request, now_ns)
        return self._venue.said()

    def _delay_ns(self, request: Request, now_ns: int) -> int:
        """How long a request is under way: the same one always as long."""
        delay_s = self.config.latency_s
        if self.config.jitter_s:
            chance = Random(f"{self.config.seed}/{request.reqid}/{now_ns}").random()
            delay_s += self.config.jitter_s * chance
        return round(delay_s * 1e9)

    def _schedule(self, due_ns: int, fqme: str, what: Request | PaperOrder) -> None:
        self._number += 1
        insort(self._due, _Due(due_ns, self._number, fqme, what))

    def _postpone(self, order: PaperOrder) -> None:
        """Let an order take later what was shown to it before it went live.

        Such a quote has reached us after the order; it is taken when no newer one from
        before can come any more.
        """
        if not any(due.what is order for due in self._due):
            self._schedule(order.live_ns, order.symbol, order)

    def _do(self, what: Request | PaperOrder, now_ns: int) -> None:
        if not isinstance(what, PaperOrder):
            self._venue.do(what, now_ns)
        else:
            self._venue.take_missed(what, now_ns)

    # -- ticks and time ----------------------------------------------------------------

    def feed(
        self,
        ticks: NDArray[np.void],
        markets: Mapping[int, str] | None = None,
    ) -> list[Message]:
        """What ticks (TICK_DTYPE, of any markets, in order) make of the orders.

        `markets`: names of the markets' numbers, if not those of `add_market`. Ticks of
        others are ignored. The time of a tick is when it was received, or else the
        venue's; it fills orders that went live before it.
        """
        names = self._ids if markets is None else markets
        self._venue.counts["ticks"] += len(ticks)

        def find(number: int) -> PaperMarket | None:
            return self._venue.markets.get(names.get(number, ""))

        said: list[tuple[int, Message]] = []
        with localcontext(_EXACT):
            for run in by_market(ticks, find):
                self._feed(run, said)
        said.sort(key=lambda pair: pair[0])
        return [message for _, message in said]

    def _feed(self, run: TickRun, said: list[tuple[int, Message]]) -> None:
        """Ticks of one market; each message with the place of the tick it came by."""
        start, fqme = 0, run.market.fqme
        while start < len(run):
            due = next((due for due in self._due if due.fqme == fqme), None)
            stop = len(run)
            if due is not None:
                stop = run.first_after(start, due.due_ns)
            if due is not None and stop == start:
                self._due.remove(due)
                self._do(due.what, due.due_ns)
                said += [(run.place(start), one) for one in self._venue.said()]
            else:
                start = self._match(run, start, stop, said)

    def _match(
        self, run: TickRun, start: int, stop: int, said: list[tuple[int, Message]]
    ) -> int:
        """Match up to `stop`, or until something else is waited for; returns where."""
        market, stop = run.market, run.end_of_chunk(start, stop)
        waits, due = interest(market), len(self._due)
        for tick in run.run(start, stop):
            self._venue.counts["examined"] += 1
            if is_trade(tick):
                market.trade(tick.price, tick.size, tick.time_ns)
            else:
                market.quote(is_bid(tick), tick.price, tick.size, tick.time_ns)
            self._venue.tell_fills(market, tick.time_ns, tick.venue_ns)
            said += [(run.place(tick.at), one) for one in self._venue.said()]
            if waits.misses(interest(market)) or len(self._due) != due:
                stop = tick.at + 1
                break
        run.absorb(start, stop)
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
        return self._venue.said()

    # -- what it keeps -----------------------------------------------------------------

    def order(self, reqid: str | int) -> BrokerOrder | None:
        """An order, ended ones too; None: there is none."""
        order = self._venue.orders.get(str(reqid))
        return None if order is None else as_told(order)

    def orders(self) -> list[BrokerOrder]:
        """All living orders, in the order of their time."""
        return [as_told(order) for order in self._venue.living()]

    def position(self, fqme: str) -> Decimal:
        """What is held of a market: what was set, and the fills since."""
        return self._venue.market(fqme).position

    def set_position(self, fqme: str, size: Decimal) -> None:
        """So much is held of a market; reduce-only orders go by it."""
        self._venue.market(fqme).position = size

    def statistics(self) -> dict[str, int]:
        """Counters: ticks, examined, orders, changes, cancels, refused, fills."""
        names = (
            *("ticks", "examined", "orders", "changes"),
            *("cancels", "refused", "fills"),
        )
        return {name: self._venue.counts[name] for name in names}

    def state(self, reqid: str | int) -> dict[str, Any]:
        """What `restore` needs beside a `BrokerOrder`; plain values. {} if unknown."""
        order = self._venue.orders.get(str(reqid))
        return {} if order is None else order_state(order)

    def take_changed(self) -> set[str]:
        """Living orders whose `state` is another than when this was called before."""
        return self._venue.take_changed()

    def market_state(self, fqme: str) -> dict[str, Any]:
        """What is shown, taken and held of a market, for `restore`; plain values."""
        return market_state(self._venue.market(fqme))

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
                restore_market(self._venue.market(fqme), state)
            kept = [
                restored_order(order, (states or {}).get(order.reqid))
                for order in orders
            ]
            kept.sort(key=lambda one: (not one.whole, one.order.seq, one.order.time_ns))
            for order, whole in kept:
                self._venue.restore(order, whole)
            for order, whole in kept:
                if whole and order.living and self._venue.free(order):
                    self._postpone(order)


def _is_of(due: _Due, request: Request) -> bool:
    """Is it a request about the same order? They arrive in the order of sending."""
    if isinstance(due.what, PaperOrder):
        return False
    return str(due.what.reqid) == str(request.reqid)
