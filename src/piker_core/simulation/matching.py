"""Orders at a simulated venue, matched against its market; and what they cost.

Rules this file owns:

1. The market does not notice: its trades stay what the seed says. An order takes what
   the best quote shows, the size of each quote once; what is left of it rests.
2. A resting order is filled at its own price by trades at that price or through it,
   and by quotes that cross it: best price first, then oldest; each size once.
3. Open orders hold what they may cost, with fees. One that needs more than is free is
   refused, and so is one off the tick or the step, or below the minimum.
4. A change of the size keeps the place in the queue unless the order grows; another
   price loses it. A size that is filled already ends the order.
5. What happens is told to the listener at once, in its order; nothing is forgotten.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Generic, Literal, TypeVar

import msgspec

from piker_core.simulation.exchange import Exchange
from piker_core.simulation.listing import SIZE_DECIMALS, Listing
from piker_core.simulation.market import BestQuote, Market
from piker_core.simulation.totals import Rows

P = TypeVar("P", bound=Listing)

Side = Literal["buy", "sell"]
OrderState = Literal["open", "filled", "canceled", "expired"]
EventKind = Literal["new", "fill", "filled", "amended", "canceled", "expired"]
Reason = Literal[
    "funds", "tick", "step", "minimum", "cost", "price", "size", "symbol", "ended"
]

_ZERO = Decimal(0)


class OrderRefused(Exception):
    """An order, or a change of one, is not taken; `reason` says what is wrong."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One fill. `number` counts those of a venue; `fee` is in quote currency.

    `trade_id` is that of the trade that did it; where none did, it is the number.
    """

    number: int
    trade_id: int
    time_ns: int
    price: Decimal
    size: Decimal
    fee: Decimal
    maker: bool

    @property
    def cost(self) -> Decimal:
        """In quote currency, without the fee."""
        return self.price * self.size


class VenueOrder(msgspec.Struct, kw_only=True, eq=False):
    """An order as the venue has it; `price` None: at the market.

    `number` counts the orders of a venue, `place` is the one in the queue.
    """

    number: int
    symbol: str
    side: Side
    size: Decimal
    price: Decimal | None
    client_id: str = ""
    tif: Literal["gtc", "ioc", "fok"] = "gtc"
    post_only: bool = False
    time_ns: int = 0
    ended_ns: int = 0
    changed_ns: int = 0
    amendments: int = 0
    state: OrderState = "open"
    reason: str = ""
    place: int = 0
    executions: list[Execution] = []

    @property
    def filled(self) -> Decimal:
        """Size that was executed."""
        return sum((each.size for each in self.executions), _ZERO)

    @property
    def cost(self) -> Decimal:
        """Of what was executed, without fees."""
        return sum((each.cost for each in self.executions), _ZERO)

    @property
    def fee(self) -> Decimal:
        """Of what was executed."""
        return sum((each.fee for each in self.executions), _ZERO)

    @property
    def remaining(self) -> Decimal:
        """What is left to execute."""
        return max(self.size - self.filled, _ZERO)


class OrderEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened to an order; `execution` where it was filled.

    `filled` follows the fill that completes an order.
    """

    kind: EventKind
    order: VenueOrder
    time_ns: int
    execution: Execution | None = None
    reason: str = ""


class Matching(Generic[P]):
    """The orders of one account, a listener of its exchange.

    `assets`: base and quote of a pair. `cost_min`: the least cost of an order. Fees
    are parts of the cost. `accepted` counts the orders taken by client id.
    """

    def __init__(
        self,
        exchange: Exchange[P],
        listener: Callable[[OrderEvent], None],
        *,
        assets: Callable[[P], tuple[str, str]],
        balances: Mapping[str, Decimal],
        maker_fee: Decimal = Decimal("0.0025"),
        taker_fee: Decimal = Decimal("0.004"),
        cost_min: Decimal = Decimal("0.5"),
    ) -> None:
        self.orders: dict[int, VenueOrder] = {}
        self.accepted: Counter[str] = Counter()
        self.balances = defaultdict(Decimal, balances)
        self._exchange, self._tell = exchange, listener
        self._assets, self._cost_min = assets, cost_min
        self._fees = {True: maker_fee, False: taker_fee}
        self._open: dict[str, list[VenueOrder]] = {}
        self._executions = self._places = 0
        self._taken: dict[str, tuple[int, dict[Side, Decimal]]] = {}
        exchange.listeners.append(self)

    # The truth

    def of(self, client_id: str) -> list[VenueOrder]:
        """All orders that were taken under a client id, oldest first."""
        return [each for each in self.orders.values() if each.client_id == client_id]

    def open_orders(self, symbol: str = "") -> list[VenueOrder]:
        """Those that stand, oldest first."""
        lists = [self._open.get(symbol, [])] if symbol else self._open.values()
        return sorted((o for orders in lists for o in orders), key=lambda o: o.number)

    def executions(self) -> list[tuple[VenueOrder, Execution]]:
        """All fills with their orders, oldest first."""
        pairs = [(o, each) for o in self.orders.values() for each in o.executions]
        return sorted(pairs, key=lambda pair: pair[1].number)

    def held(self, asset: str) -> Decimal:
        """What open orders hold of an asset."""
        held = _ZERO
        for order in self.open_orders():
            needs = self._needs(order, order.price, order.remaining)
            held += needs[1] if needs[0] == asset else _ZERO
        return held

    # Requests

    def place(
        self,
        symbol: str,
        side: Side,
        *,
        size: Decimal,
        price: Decimal | None = None,
        client_id: str = "",
        tif: Literal["gtc", "ioc", "fok"] = "gtc",
        post_only: bool = False,
        check_only: bool = False,
    ) -> VenueOrder:
        """Take an order, and fill of it what can be; OrderRefused if it is not taken.

        `post_only`: canceled if it would take. `check_only`: nothing is taken.
        """
        now_ns = self._exchange.advance()
        order = VenueOrder(
            number=len(self.orders) + 1,
            symbol=symbol,
            side=side,
            size=size,
            price=price,
            client_id=client_id,
            tif=tif,
            post_only=post_only,
            time_ns=now_ns,
            changed_ns=now_ns,
            executions=[],
        )
        market = self._market(symbol)
        self._check(market, order, price, size)
        if check_only:
            return order
        self.orders[order.number] = order
        self.accepted[client_id] += 1
        self._rest(order)
        self._say("new", order)
        self._begin(market, order)
        return order

    def amend(
        self,
        order: VenueOrder,
        *,
        size: Decimal | None = None,
        price: Decimal | None = None,
        post_only: bool = False,
    ) -> None:
        """Change an open order in place; OrderRefused leaves it as it was."""
        self._exchange.advance()
        if order.state != "open":
            raise OrderRefused("ended")
        size = order.size if size is None else size
        price = order.price if price is None else price
        market = self._market(order.symbol)
        if size > order.filled:
            self._check(market, order, price, size, known=True)
        moved = price != order.price or size > order.size
        order.size, order.price = size, price
        order.post_only = post_only or order.post_only
        order.amendments += 1
        order.changed_ns = self._exchange.now_ns
        if moved:
            self._open[order.symbol].remove(order)
            self._rest(order)
        self._say("amended", order)
        if order.filled >= order.size:
            self.cancel(order, reason="Order amended below what is filled")
        elif moved:
            self._begin(market, order)

    def cancel(self, order: VenueOrder, *, reason: str = "User requested") -> None:
        """End an open order; OrderRefused if it has ended."""
        self._exchange.advance()
        if order.state != "open":
            raise OrderRefused("ended")
        self._end(order, "canceled", reason)

    def print_trade(self, symbol: str, price: Decimal, size: Decimal) -> Decimal:
        """Let a trade happen that own orders alone see; returns what they took."""
        self._exchange.advance()
        market = self._market(symbol)
        return self._print(market, price, size, 0, self._exchange.now_ns)

    # What the exchange tells

    def on_trades(self, market: Market[P], bursts: list[Rows]) -> None:
        """Fill resting orders by trades, and by the quote that follows them."""
        if not self._open.get(market.pair.symbol):
            return
        for rows in bursts:
            for time_ns, price, size, trade_id, *_ in rows.tolist():
                lots = Decimal(size).scaleb(-SIZE_DECIMALS)
                self._print(market, market.price(price), lots, trade_id, time_ns)
        self.on_quote(market)

    def on_quote(self, market: Market[P]) -> None:
        """Fill resting orders that the quote crosses."""
        for order in self._queue(market.pair.symbol):
            self._take(market, order, maker=True)

    def on_system(self, system: str) -> None:
        """The state of the system changes no order."""

    # Checks

    def _market(self, symbol: str) -> Market[P]:
        market = self._exchange.find(symbol)
        if market is None:
            raise OrderRefused("symbol")
        return market

    def _check(
        self,
        market: Market[P],
        order: VenueOrder,
        price: Decimal | None,
        size: Decimal,
        *,
        known: bool = False,
    ) -> None:
        pair = market.pair
        if price is not None and price <= 0:
            raise OrderRefused("price")
        if price is not None and price % pair.tick:
            raise OrderRefused("tick")
        if size <= 0:
            raise OrderRefused("size")
        if size % pair.step:
            raise OrderRefused("step")
        if size < Decimal(pair.size_min):
            raise OrderRefused("minimum")
        worth = self._worth(market, order.side) if price is None else price
        if worth * size < self._cost_min:
            raise OrderRefused("cost")
        asset, needed = self._needs(order, worth, size - order.filled)
        held = self.held(asset)
        if known:
            held -= self._needs(order, order.price, order.remaining)[1]
        if needed > self.balances[asset] - held:
            raise OrderRefused("funds")

    def _worth(self, market: Market[P], side: Side) -> Decimal:
        quote = market.quote
        return market.price(quote.ask if side == "buy" else quote.bid)

    def _needs(
        self, order: VenueOrder, price: Decimal | None, size: Decimal
    ) -> tuple[str, Decimal]:
        """The asset that an order takes, and how much of it, fees included."""
        market = self._market(order.symbol)
        base, quote = self._assets(market.pair)
        if order.side == "sell":
            return base, size
        worth = self._worth(market, "buy") if price is None else price
        return quote, worth * size * (1 + max(self._fees.values()))

    # Matching

    def _rest(self, order: VenueOrder) -> None:
        self._places += 1
        order.place = self._places
        self._open.setdefault(order.symbol, []).append(order)

    def _queue(self, symbol: str) -> list[VenueOrder]:
        """Open orders of a market, best price first on their sides, then oldest."""
        orders = self._open.get(symbol, ())
        return sorted(orders, key=lambda o: (_rank(o), o.place))

    def _begin(self, market: Market[P], order: VenueOrder) -> None:
        """A new order, or one with another price: what it takes, what becomes of it."""
        shown = self._shown(market, order)
        if shown and order.post_only:
            self._end(order, "canceled", "Post only order")
            return
        if order.tif == "fok" and shown < order.remaining:
            self._end(order, "canceled", "Fill or kill order could not be filled")
            return
        self._take(market, order, maker=False)
        if order.state == "open" and (order.price is None or order.tif == "ioc"):
            self._end(order, "expired", "Immediate or cancel order")

    def _shown(self, market: Market[P], order: VenueOrder) -> Decimal:
        """What the other side shows at a price the order takes, not taken yet."""
        quote = market.quote
        best, size = _opposite(quote, order.side)
        if order.price is not None:
            sign = 1 if order.side == "buy" else -1
            if (market.price(best) - order.price) * sign > 0:
                return _ZERO
        number, taken = self._taken.get(order.symbol, (-1, {}))
        if number != market.quote_number:
            taken = {}
        shown = Decimal(size).scaleb(-SIZE_DECIMALS)
        return max(shown - taken.get(order.side, _ZERO), _ZERO)

    def _take(self, market: Market[P], order: VenueOrder, *, maker: bool) -> None:
        size = min(self._shown(market, order), order.remaining)
        if size <= 0 or order.state != "open":
            return
        number, taken = self._taken.get(order.symbol, (-1, {}))
        if number != market.quote_number:
            taken = {}
        taken[order.side] = taken.get(order.side, _ZERO) + size
        self._taken[order.symbol] = (market.quote_number, taken)
        best = market.price(_opposite(market.quote, order.side)[0])
        price = order.price if maker and order.price is not None else best
        self._fill(market, order, price, size, maker=maker)

    def _print(
        self,
        market: Market[P],
        price: Decimal,
        size: Decimal,
        trade_id: int,
        time_ns: int,
    ) -> Decimal:
        left = size
        for order in self._queue(market.pair.symbol):
            if order.price is None or order.time_ns > time_ns or left <= 0:
                continue  # it came after the trade
            sign = 1 if order.side == "buy" else -1
            if (order.price - price) * sign >= 0:
                part = min(left, order.remaining)
                left -= part
                self._fill(
                    market, order, order.price, part, maker=True, trade_id=trade_id
                )
        return size - left

    def _fill(
        self,
        market: Market[P],
        order: VenueOrder,
        price: Decimal,
        size: Decimal,
        *,
        maker: bool,
        trade_id: int = 0,
    ) -> None:
        self._executions += 1
        execution = Execution(
            number=self._executions,
            trade_id=trade_id or self._executions,
            time_ns=self._exchange.now_ns,
            price=price,
            size=size,
            fee=price * size * self._fees[maker],
            maker=maker,
        )
        order.executions.append(execution)
        base, quote = self._assets(market.pair)
        sign = 1 if order.side == "buy" else -1
        self.balances[base] += sign * size
        self.balances[quote] -= sign * execution.cost + execution.fee
        self._say("fill", order, execution=execution)
        if not order.remaining:
            self._end(order, "filled")

    def _end(
        self,
        order: VenueOrder,
        state: Literal["filled", "canceled", "expired"],
        reason: str = "",
    ) -> None:
        order.state, order.reason = state, reason
        order.ended_ns = self._exchange.now_ns
        self._open[order.symbol].remove(order)
        self._say(state, order, reason=reason)

    def _say(
        self,
        kind: EventKind,
        order: VenueOrder,
        *,
        execution: Execution | None = None,
        reason: str = "",
    ) -> None:
        self._tell(
            OrderEvent(
                kind=kind,
                order=order,
                time_ns=self._exchange.now_ns,
                execution=execution,
                reason=reason,
            )
        )


def _rank(order: VenueOrder) -> Decimal:
    """The lower, the sooner it is filled."""
    price = order.price or _ZERO
    return -price if order.side == "buy" else price


def _opposite(quote: BestQuote, side: Side) -> tuple[int, int]:
    """Price and size that an order of this side would take, in units."""
    if side == "buy":
        return quote.ask, quote.ask_size
    return quote.bid, quote.bid_size
