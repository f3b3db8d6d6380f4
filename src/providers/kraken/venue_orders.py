"""Orders at a simulated Kraken, by whichever way they come, and the truth about them.

Rules this file owns:

1. An order that is refused leaves nothing behind; what is refused comes first to last:
   the deadline, the market's mode, the engine's limits, the order itself.
2. Reports of what a request did are kept until the request is answered, or told at
   once where none is being answered.
3. The dead-man's switch cancels everything once its time has come.
"""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Literal

import msgspec
import trio

from piker_core.simulation.market import NS
from piker_core.simulation.matching import (
    Execution,
    Matching,
    OrderEvent,
    OrderRefused,
    VenueOrder,
)

from .venue_account import Account, EngineCounter, amend_cost, cancel_cost
from .venue_order_faults import OrderFaults
from .venue_pairs import PairExchange, PairMarket, VenuePair
from .venue_reports import order_id

UNKNOWN_ORDER = "EOrder:Unknown order"
INVALID = "EGeneral:Invalid arguments"
LIMITED = "EOrder:Rate limit exceeded"
_TEXTS = {
    "funds": "EOrder:Insufficient funds",
    "tick": "EOrder:Tick size check failed",
    "step": f"{INVALID}:volume",
    "minimum": "EOrder:Order minimum not met",
    "cost": "EOrder:Cost minimum not met",
    "price": "EOrder:Invalid price",
    "size": f"{INVALID}:volume",
    "symbol": "EQuery:Unknown asset pair",
    "ended": UNKNOWN_ORDER,
}
_DEADLINE_MOST_S = 60.0


class Refused(Exception):
    """A request is refused with the venue's text."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """A new order as it was asked for; `price` None: at the market."""

    symbol: str
    side: Literal["buy", "sell"]
    size: Decimal
    price: Decimal | None = None
    tif: Literal["gtc", "ioc", "fok"] = "gtc"
    post_only: bool = False
    client_id: str = ""
    deadline: str = ""
    validate: bool = False


class Orders:
    """All orders of the venue's one account.

    `reports` is called with what happened, oldest first, when it may be told.
    """

    def __init__(
        self, exchange: PairExchange, account: Account, faults: OrderFaults
    ) -> None:
        self.account, self.faults = account, faults
        self.counter = EngineCounter(account)
        self.reports: Callable[[list[OrderEvent]], None] = self._keep
        self.trigger_at = float("inf")
        """When everything is canceled (trio's time)."""
        self.matching: Matching[VenuePair] = Matching(
            exchange,
            self._note,
            assets=lambda pair: (pair.base.name, pair.quote.name),
            balances=account.balances,
        )
        self._exchange = exchange
        self._changed: dict[int, float] = {}
        self._handling = False
        self._events: list[OrderEvent] = []

    # The truth, for tests

    def accepted(self, cl_ord_id: str) -> int:
        """How many orders were taken under a client id."""
        return self.matching.accepted[cl_ord_id]

    def of(self, cl_ord_id: str) -> list[VenueOrder]:
        """The orders of a client id, oldest first."""
        return self.matching.of(cl_ord_id)

    def fills(self) -> list[tuple[VenueOrder, Execution]]:
        """All fills with their orders, oldest first."""
        return self.matching.executions()

    def print_trade(self, symbol: str, price: str, size: str) -> Decimal:
        """Let others trade so much at a price; returns what own orders had of it."""
        return self.matching.print_trade(symbol, Decimal(price), Decimal(size))

    # Requests

    def begin(self) -> None:
        """A request is being answered: reports wait."""
        self._handling = True

    def end(self) -> list[OrderEvent]:
        """It was: what it did, to be told now."""
        self._handling = False
        events, self._events = self._events, []
        return events

    def add(self, terms: Terms) -> VenueOrder | None:
        """Take an order; None if it was only to be validated. Raises Refused."""
        self._check_add([terms])
        return self._place(terms)

    def add_batch(self, batch: list[Terms]) -> list[VenueOrder]:
        """Take all orders, or none. Raises Refused."""
        self._check_add(batch)
        for terms in batch:
            self._place(msgspec.structs.replace(terms, validate=True))
        return [order for order in map(self._place, batch) if order is not None]

    def _check_add(self, batch: list[Terms]) -> None:
        symbol = batch[0].symbol
        self._check_deadline(batch[0].deadline)
        self._check_mode(all(terms.post_only for terms in batch))
        ids = {each.client_id for each in self.matching.open_orders()} - {""}
        if any(terms.client_id in ids for terms in batch):
            raise Refused(f"{INVALID}:cl_ord_id")
        standing = len(self.matching.open_orders(symbol))
        if standing + len(batch) > self.account.open_orders:
            raise Refused("EOrder:Orders limit exceeded")
        cost = len(batch) / 2 if len(batch) > 1 else 1
        if not self.counter.add(symbol, cost):
            raise Refused(LIMITED)

    def _place(self, terms: Terms) -> VenueOrder | None:
        try:
            order = self.matching.place(
                terms.symbol,
                terms.side,
                size=terms.size,
                price=terms.price,
                client_id=terms.client_id,
                tif=terms.tif,
                post_only=terms.post_only,
                check_only=terms.validate,
            )
        except OrderRefused as refused:
            raise Refused(_TEXTS[refused.reason]) from None
        if terms.validate:
            return None
        self._changed[order.number] = trio.current_time()
        return order

    def amend(
        self,
        order: VenueOrder,
        *,
        size: Decimal | None,
        price: Decimal | None,
        post_only: bool,
        deadline: str,
    ) -> None:
        """Change an order in place. Raises Refused."""
        self._check_deadline(deadline)
        self._check_mode(post_only)
        if not self.counter.add(order.symbol, amend_cost(self._age_s(order))):
            raise Refused(LIMITED)
        try:
            self.matching.amend(order, size=size, price=price, post_only=post_only)
        except OrderRefused as refused:
            raise Refused(_TEXTS[refused.reason]) from None
        self._changed[order.number] = trio.current_time()

    def cancel(self, order: VenueOrder, reason: str = "User requested") -> None:
        """End an order. Raises Refused."""
        if self._exchange.system == "maintenance":
            raise Refused("EService:Unavailable")
        if order.state != "open":
            raise Refused(UNKNOWN_ORDER)
        if not self.counter.add(order.symbol, cancel_cost(self._age_s(order))):
            raise Refused(LIMITED)
        self.matching.cancel(order, reason=reason)

    def cancel_all(self, reason: str = "User requested") -> int:
        """End all orders; how many."""
        standing = self.matching.open_orders()
        for order in standing:
            self.matching.cancel(order, reason=reason)
        return len(standing)

    def cancel_after(self, timeout_s: int) -> None:
        """Set the dead-man's switch, or take it away with 0."""
        if not 0 <= timeout_s < 86400:
            raise Refused(f"{INVALID}:timeout")
        now = trio.current_time()
        self.trigger_at = now + timeout_s if timeout_s else float("inf")

    def look(self) -> None:
        """Call this often: the dead-man's switch may be due."""
        if trio.current_time() >= self.trigger_at:
            self.trigger_at = float("inf")
            self.cancel_all("Cancel all orders after timeout")

    def find(self, name: str) -> VenueOrder:
        """The order of the venue's id, or the newest of a client id. Raises Refused."""
        for order in reversed(self.matching.orders.values()):
            if name and name in (order_id(order), order.client_id):
                return order
        raise Refused(UNKNOWN_ORDER)

    def market(self, name: str) -> PairMarket:
        """The market of any of its names. Raises Refused."""
        market = self._exchange.find(name)
        if market is None:
            raise Refused("EQuery:Unknown asset pair")
        return market

    def pairs(self) -> list[VenuePair]:
        """All pairs of the venue."""
        return [market.pair for market in self._exchange.markets]

    # What is checked

    def _age_s(self, order: VenueOrder) -> float:
        return trio.current_time() - self._changed.get(order.number, float("-inf"))

    def _check_deadline(self, deadline: str) -> None:
        if not deadline:
            return
        try:
            due_ns = int(datetime.fromisoformat(deadline).timestamp() * NS)
        except ValueError:
            raise Refused(f"{INVALID}:deadline") from None
        left_s = (due_ns - self._exchange.advance()) / NS
        if left_s > _DEADLINE_MOST_S:
            raise Refused(f"{INVALID}:deadline")
        if left_s < 0:
            raise Refused("EService:Deadline elapsed")

    def _check_mode(self, post_only: bool) -> None:
        system = self._exchange.system
        if system == "maintenance":
            raise Refused("EService:Unavailable")
        if system == "cancel_only" or (system == "post_only" and not post_only):
            raise Refused(f"EService:Market in {system} mode")

    # Reports

    def _keep(self, events: list[OrderEvent]) -> None:
        """There is nobody to tell yet."""
        self._events += events

    def _note(self, event: OrderEvent) -> None:
        if self._handling:
            self._events.append(event)
        else:
            self.reports([event])
