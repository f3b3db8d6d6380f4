"""The account of one side of a simulated Binance: its orders, by the venue's rules.

Rules this file owns:

1. An order is asked for by the venue's id or by its client order id, which is unique
   among open orders; of several the newest counts.
2. What happens to orders is told to the account's streams by the clock, and with the
   answer that caused it: shuffled, doubled, late or never where a fault says so.
3. Orders are counted in windows of 10 s; what is filled gives no count back.

How orders and reports look is a side's own: `SpotAccount`, `UsdmAccount`.
"""

import abc
import itertools
import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from http import HTTPStatus
from typing import Literal, Protocol, cast

from piker_core.simulation.market import NS
from piker_core.simulation.matching import (
    Execution,
    Matching,
    OrderEvent,
    OrderRefused,
    Side,
    VenueOrder,
)

from .venue_errors import Refused, illegal, invalid, missing
from .venue_faults import Faults
from .venue_params import Params
from .venue_symbols import SymbolExchange, SymbolMarket, VenueSymbol

Event = Callable[[int], dict[str, object]]
"""An event, by the unit that its times are counted in."""
Method = Callable[[Params, int], object]
Tif = Literal["gtc", "ioc", "fok"]

FIRST_ORDER = 4_000_000_000
FIRST_TRADE = 900_000_000
_ORDERS_WINDOW_NS = 10 * NS
_CLIENT_ID = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}")
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
_DECIMALS = 8
NO_ORDER = (-2013, "Order does not exist.")
UNKNOWN_ORDER = (-2011, "Unknown order sent.")


class Subscriber(Protocol):
    """A stream of the account."""

    def report(self, event: Event) -> None:
        """Something happened."""


class Asked:
    """An order that is asked for, checked as far as it can be alone."""

    def __init__(
        self,
        market: SymbolMarket,
        side: Side,
        *,
        size: Decimal,
        price: Decimal | None,
        tif: Tif,
        post_only: bool,
        client_id: str,
    ) -> None:
        self.market, self.side, self.size, self.price = market, side, size, price
        self.tif, self.post_only, self.client_id = tif, post_only, client_id


class VenueAccount(abc.ABC):
    """An account and its streams; `accepted` counts orders taken by client order id."""

    taker_fee = maker_fee = Decimal("0.001")

    def __init__(
        self,
        exchange: SymbolExchange,
        faults: Faults,
        balances: dict[str, Decimal],
        *,
        most_orders: int,
    ) -> None:
        self.exchange, self.faults = exchange, faults
        self.most_orders = most_orders
        self.subscribers: list[Subscriber] = []
        self.matching: Matching[VenueSymbol] = Matching(
            exchange,
            self._happened,
            assets=lambda pair: (pair.base, pair.quote),
            balances=balances,
            maker_fee=self.maker_fee,
            taker_fee=self.taker_fee,
            cost_min=Decimal(0),
        )
        self.names: dict[int, str] = {}
        self.cancels: dict[int, str] = {}
        self.counted = self.refused_orders = 0
        self._window = -1
        self._told: list[tuple[int, Event]] = []
        self._numbers = itertools.count(1)
        self.methods: dict[tuple[str, str], Method] = {}
        """What is answered, by the method of HTTP and the path."""

    # The truth

    @property
    def accepted(self) -> Counter[str]:
        """How often an order was taken under a client order id."""
        return self.matching.accepted

    def orders(self, client_id: str) -> list[VenueOrder]:
        """All orders taken under a client order id, oldest first."""
        return self.matching.of(client_id)

    # Streams

    def _happened(self, event: OrderEvent) -> None:
        order = event.order
        self.names.setdefault(order.number, order.client_id)
        self.settle(event)
        for made in self.events(event):
            self.tell(made)

    @abc.abstractmethod
    def settle(self, event: OrderEvent) -> None:
        """Keep what is a side's own up to date."""

    @abc.abstractmethod
    def events(self, event: OrderEvent) -> list[Event]:
        """What streams say of it."""

    def tell(self, event: Event) -> None:
        """Queue an event for all streams."""
        due_ns = self.exchange.now_ns + int(self.faults.late_reports_s * NS)
        self._told.append((due_ns, event))

    def flush(self, answer: Callable[[], None] | None = None) -> None:
        """Send what is due to the streams, and an answer."""
        now_ns = self.exchange.now_ns
        due = [event for due_ns, event in self._told if due_ns <= now_ns]
        self._told = [each for each in self._told if each[0] > now_ns]
        sends = [answer] if answer is not None else []
        sends += [self._sender(event) for event in self.faults.reports(due)]
        for send in self.faults.mixed(sends):
            send()

    def _sender(self, event: Event) -> Callable[[], None]:
        def send() -> None:
            for subscriber in self.subscribers:
                subscriber.report(event)

        return send

    # Requests

    def ask(self, params: Params) -> Asked:
        """An order as it is asked for. Raises Refused."""
        market = params.market()
        side = params.text("side").lower()
        if side not in ("buy", "sell"):
            raise invalid("side")
        price: Decimal | None = None
        size = self.number(params, "quantity")
        kind = params.text("type")
        tif, post_only = self.terms(params, kind)
        if kind != "MARKET":
            price = self.number(params, "price")
        self.check_filters(market, price, size)
        client_id = self.client_id(params, "newClientOrderId")
        asked = Asked(
            market,
            cast(Side, side),
            size=size,
            price=price,
            tif=tif,
            post_only=post_only,
            client_id=client_id,
        )
        self.check_system()
        return asked

    @abc.abstractmethod
    def terms(self, params: Params, kind: str) -> tuple[Tif, bool]:
        """How long an order stands, and whether it may take."""

    @abc.abstractmethod
    def refused(self, reason: str, market: SymbolMarket) -> Refused:
        """What an order is refused with."""

    def check_filters(
        self, market: SymbolMarket, price: Decimal | None, size: Decimal
    ) -> None:
        """Refuse what the filters of a symbol do."""
        pair = market.pair
        quote = market.quote
        worth = market.price(quote.ask) if price is None else price
        for reason, wrong in (
            ("tick", price is not None and price % pair.tick != 0),
            ("price", price is not None and price <= 0),
            ("minimum", size < Decimal(pair.size_min)),
            ("step", size % pair.step != 0),
            ("cost", worth * size < self.cost_min(pair)),
        ):
            if wrong:
                raise self.refused(reason, market)

    @abc.abstractmethod
    def cost_min(self, pair: VenueSymbol) -> Decimal:
        """The least that an order is worth."""

    def check_system(self) -> None:
        """Refuse orders while nothing trades."""
        if self.exchange.system != "online":
            raise Refused(-2010, "Market is closed.")

    def count_order(self) -> None:
        """Count an order; refuse the one too many."""
        window = self.exchange.advance() // _ORDERS_WINDOW_NS
        if window != self._window:
            self._window, self.counted = window, 0
        if self.counted >= self.most_orders:
            self.refused_orders += 1
            raise Refused(
                -1015,
                f"Too many new orders; current limit is {self.most_orders} orders per "
                "10 SECOND.",
                HTTPStatus.TOO_MANY_REQUESTS,
            )
        self.counted += 1

    def take(self, asked: Asked) -> VenueOrder:
        """Have an order matched. Raises Refused."""
        market = asked.market
        open_ids = (self.names[o.number] for o in self.matching.open_orders())
        if asked.client_id in open_ids:
            raise Refused(-2010, "Duplicate order sent.")
        if asked.post_only and self._would_take(asked):
            raise self.refused("post_only", market)
        try:
            return self.matching.place(
                market.pair.symbol,
                asked.side,
                size=asked.size,
                price=asked.price,
                client_id=asked.client_id,
                tif=asked.tif,
                post_only=asked.post_only,
            )
        except OrderRefused as refused:
            raise self.refused(refused.reason, market) from None

    @staticmethod
    def _would_take(asked: Asked) -> bool:
        market, price = asked.market, asked.price
        if price is None:
            return True
        if asked.side == "buy":
            return price >= market.price(market.quote.ask)
        return price <= market.price(market.quote.bid)

    def find(self, params: Params, prefix: str = "o") -> VenueOrder:
        """The order that a request names. Raises Refused -2013."""
        symbol = params.market().pair.symbol
        id_name, name = ("orderId", "origClientOrderId")
        if prefix == "cancelO":
            id_name, name = ("cancelOrderId", "cancelOrigClientOrderId")
        number = params.integer(id_name)
        found: list[VenueOrder] = []
        if number is not None:
            order = self.matching.orders.get(number - FIRST_ORDER)
            found = [order] if order is not None else []
        elif params.has(name):
            wanted = params.text(name)
            orders = self.matching.orders.values()
            found = [o for o in orders if self.names[o.number] == wanted]
        else:
            raise missing(f"{name}' or '{id_name}")
        found = [order for order in found if order.symbol == symbol]
        if not found:
            raise Refused(*NO_ORDER)
        return found[-1]

    def cancel(self, order: VenueOrder, name: str = "") -> None:
        """End an open order; `name` is the cancel's own. Raises Refused -2011."""
        if order.state != "open":
            raise Refused(*UNKNOWN_ORDER)
        self.cancels[order.number] = name
        self.matching.cancel(order)

    # Parameters

    def number(self, params: Params, name: str) -> Decimal:
        """A mandatory number. Raises Refused."""
        text = params.text(name)
        if not _NUMBER.fullmatch(text):
            raise illegal(name, r"^([0-9]{1,20})(\.[0-9]{1,20})?$")
        number = Decimal(text)
        exponent = number.as_tuple().exponent
        if isinstance(exponent, int) and -exponent > _DECIMALS:
            text = "Precision is over the maximum defined for this asset."
            raise Refused(-1111, text)
        return number

    def client_id(self, params: Params, name: str) -> str:
        """A client order id, made up if none was sent."""
        if not params.has(name):
            return f"venue{next(self._numbers):017d}"
        text = params.text(name)
        if not _CLIENT_ID.fullmatch(text):
            raise illegal(name, r"^[\.A-Z\:/a-z0-9_-]{1,36}$")
        return text

    # Lists

    def trades(
        self, params: Params, unit: int, *, limits: tuple[int, int], span_ns: int
    ) -> list[tuple[VenueOrder, Execution]]:
        """The account's trades that are asked for, oldest first."""
        symbol = params.market().pair.symbol
        limit = params.limit(*limits)
        rows = [row for row in self.matching.executions() if row[0].symbol == symbol]
        from_id = params.integer("fromId")
        start_ns, end_ns = params.span_ns()
        if start_ns is not None and end_ns is not None and end_ns - start_ns > span_ns:
            raise Refused(-1127, "Lookup interval is too big.")
        order_id = params.integer("orderId")
        if order_id is not None:
            rows = [row for row in rows if row[0].number == order_id - FIRST_ORDER]
        if from_id is not None:
            rows = [row for row in rows if row[1].number >= from_id - FIRST_TRADE]
            return rows[:limit]
        if start_ns is not None:
            rows = [row for row in rows if row[1].time_ns >= start_ns]
        if end_ns is not None:
            rows = [row for row in rows if row[1].time_ns < end_ns]
        return rows[:limit] if start_ns is not None else rows[-limit:]


def state_text(order: VenueOrder) -> str:
    """What the venue calls an order's state."""
    if order.state == "open":
        return "PARTIALLY_FILLED" if order.filled else "NEW"
    if order.state == "filled":
        return "FILLED"
    forced = order.reason.startswith("Fill or kill") or order.state == "expired"
    return "EXPIRED" if forced else "CANCELED"


def trade_id(execution: Execution) -> int:
    """The id of an account's trade."""
    return FIRST_TRADE + execution.number


def order_id(order: VenueOrder) -> int:
    """The venue's id of an order."""
    return FIRST_ORDER + order.number
