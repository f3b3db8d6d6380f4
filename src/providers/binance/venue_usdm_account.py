"""The USD-M account of a simulated Binance, in one-way mode, and its listen key.

Margin is not counted: an order is refused for it when it is worth more than there is. A
reduce-only order is refused unless the position is as large, where the venue would cut
it.

Source: the USD-M documents: trade, account, and user data streams.
"""

from decimal import Decimal
from http import HTTPStatus

from piker_core.simulation.market import NS
from piker_core.simulation.matching import (
    Execution,
    OrderEvent,
    OrderRefused,
    VenueOrder,
)

from .venue_account import (
    NO_ORDER,
    UNKNOWN_ORDER,
    Event,
    Tif,
    VenueAccount,
    order_id,
    state_text,
    trade_id,
)
from .venue_errors import Refused
from .venue_faults import Faults
from .venue_params import Params
from .venue_symbols import SymbolExchange, SymbolMarket, VenueSymbol

_WEEK_NS = 7 * 86_400 * NS
_PLENTY = Decimal(10) ** 12
_MARGIN = Decimal(5_000_000)
_KEY_LIFE_NS = 3600 * NS
_ZERO = Decimal(0)
_KINDS = {"new": "NEW", "fill": "TRADE", "amended": "AMENDMENT"}
_NO_MAKER = "Due to the order could not be executed as maker"
_REFUSED = {
    "tick": (-4014, "Price not increased by tick size."),
    "price": (-4001, "Price less than 0."),
    "step": (-1111, "Precision is over the maximum defined for this asset."),
    "minimum": (-4003, "Quantity less than or equal to zero."),
    "cost": (
        -4164,
        "Order's notional must be no smaller than 5 (unless you choose reduce only).",
    ),
    "post_only": (-5022, f"{_NO_MAKER}, the Post Only order will be rejected."),
    "funds": (-2019, "Margin is insufficient."),
}
NO_LISTEN_KEY = (-1125, "This listenKey does not exist.")


class _Position:
    """Size and entry price of a contract."""

    __slots__ = ("entry", "size")

    def __init__(self) -> None:
        self.size = self.entry = _ZERO

    def trade(self, size: Decimal, price: Decimal) -> None:
        """A fill; a positive size was bought."""
        total = self.size + size
        if self.size * size >= 0:
            worth = abs(self.size) * self.entry + abs(size) * price
            self.entry = worth / abs(total) if total else _ZERO
        elif self.size * total < 0:
            self.entry = price
        elif not total:
            self.entry = _ZERO
        self.size = total


class UsdmAccount(VenueAccount):
    """The account of USD-M."""

    maker_fee, taker_fee = Decimal("0.0002"), Decimal("0.0005")

    def __init__(
        self, exchange: SymbolExchange, faults: Faults, *, most_orders: int
    ) -> None:
        balances = {row.pair.base: _PLENTY for row in exchange.markets}
        balances["USDT"] = _MARGIN
        super().__init__(exchange, faults, balances, most_orders=most_orders)
        self.held: dict[str, _Position] = {}
        self.listen_key = ""
        self.renewals = 0
        self._key_ends_ns = 0
        self._keys = 0
        self._reducing: set[int] = set()
        self.methods = {
            ("POST", "order"): self._place,
            ("PUT", "order"): self._modify,
            ("GET", "order"): self._status,
            ("DELETE", "order"): self._cancel,
            ("GET", "openOrders"): self._open_orders,
            ("DELETE", "allOpenOrders"): self._cancel_all,
            ("GET", "allOrders"): self._all_orders,
            ("GET", "balance"): self._balance,
            ("GET", "positionRisk"): self._position_risk,
            ("GET", "userTrades"): self._user_trades,
        }

    # The listen key

    def key_method(self, method: str) -> object:
        """POST, PUT or DELETE of the listen key. Raises Refused."""
        now_ns = self.exchange.advance()
        valid = self.listen_key and now_ns < self._key_ends_ns
        if method == "POST":
            if not valid:
                self._keys += 1
                self.listen_key = (
                    f"pqia91ma19a5s61cv6a81va65sdf19v8a65a1{self._keys:07d}"
                )
            self._key_ends_ns = now_ns + _KEY_LIFE_NS
            return {"listenKey": self.listen_key}
        if not valid:
            raise Refused(*NO_LISTEN_KEY)
        if method == "DELETE":
            self.listen_key = ""
            return {}
        self.renewals += 1
        self._key_ends_ns = now_ns + _KEY_LIFE_NS
        return {"listenKey": self.listen_key}

    def expire_key(self) -> Event:
        """The key is not good any more; what its stream says."""
        key, self.listen_key = self.listen_key, ""
        now_ns = self.exchange.now_ns

        def make(unit: int) -> dict[str, object]:
            return {"e": "listenKeyExpired", "E": now_ns // unit, "listenKey": key}

        return make

    # Requests

    def _place(self, params: Params, unit: int) -> object:
        asked = self.ask(params)
        reduces = params.has("reduceOnly") and params.text("reduceOnly") == "true"
        if reduces:
            held = self._position(asked.market.pair.symbol).size
            room = -held if asked.side == "buy" else held
            if asked.size > room:
                raise Refused(-2022, "ReduceOnly Order is rejected.")
        self.count_order()
        if reduces:
            self._reducing.add(len(self.matching.orders) + 1)
        return self.order_row(self.take(asked), unit)

    def _modify(self, params: Params, unit: int) -> object:
        order = self.find(params)
        market = params.market()
        size, price = self.number(params, "quantity"), self.number(params, "price")
        if params.text("side").lower() != order.side:
            raise Refused(-1102, "Mandatory parameter 'side' was malformed.")
        if order.state != "open":
            raise Refused(*NO_ORDER)
        if size == order.size and price == order.price:
            raise Refused(-5027, "No need to modify the order.")
        self.check_filters(market, price, size)
        self.count_order()
        try:
            self.matching.amend(order, size=size, price=price)
        except OrderRefused as refused:
            raise self.refused(refused.reason, market) from None
        return self.order_row(order, unit)

    def _status(self, params: Params, unit: int) -> object:
        return self.order_row(self.find(params), unit)

    def _cancel(self, params: Params, unit: int) -> object:
        try:
            order = self.find(params)
        except Refused as refused:
            if refused.code != NO_ORDER[0]:
                raise
            raise Refused(*UNKNOWN_ORDER) from None
        self.cancel(order)
        return self.order_row(order, unit)

    def _open_orders(self, params: Params, unit: int) -> object:
        symbol = params.market().pair.symbol if params.has("symbol") else ""
        orders = self.matching.open_orders(symbol)
        return [self.order_row(order, unit) for order in orders]

    def _cancel_all(self, params: Params, unit: int) -> object:
        for order in self.matching.open_orders(params.market().pair.symbol):
            self.cancel(order)
        text = "The operation of cancel all open order is done."
        return {"code": HTTPStatus.OK.value, "msg": text}

    def _all_orders(self, params: Params, unit: int) -> object:
        symbol = params.market().pair.symbol
        first = params.integer("orderId") or 0
        orders = self.matching.orders.values()
        rows = [o for o in orders if o.symbol == symbol and order_id(o) >= first]
        return [self.order_row(o, unit) for o in rows[-params.limit(500, 1000) :]]

    def _balance(self, params: Params, unit: int) -> object:
        total = f"{self.matching.balances['USDT']:.8f}"
        return [
            {
                "accountAlias": "SgsR",
                "asset": "USDT",
                "balance": total,
                "crossWalletBalance": total,
                "crossUnPnl": "0.00000000",
                "availableBalance": total,
                "maxWithdrawAmount": total,
                "marginAvailable": True,
                "updateTime": self.exchange.now_ns // unit,
            }
        ]

    def _position_risk(self, params: Params, unit: int) -> object:
        rows = []
        for symbol, position in self.held.items():
            if position.size or self.matching.open_orders(symbol):
                rows.append(
                    {
                        "symbol": symbol,
                        "positionSide": "BOTH",
                        "positionAmt": f"{position.size:f}",
                        "entryPrice": f"{position.entry:f}",
                        "breakEvenPrice": f"{position.entry:f}",
                        "markPrice": f"{position.entry:f}",
                        "unRealizedProfit": "0.0",
                        "marginAsset": "USDT",
                        "updateTime": self.exchange.now_ns // unit,
                    }
                )
        return rows

    def _user_trades(self, params: Params, unit: int) -> object:
        if params.has("fromId") and (params.has("startTime") or params.has("endTime")):
            raise Refused(-1128, "Combination of optional parameters invalid.")
        rows = self.trades(params, unit, limits=(500, 1000), span_ns=_WEEK_NS)
        return [self._trade_row(order, each, unit) for order, each in rows]

    # How it looks

    def terms(self, params: Params, kind: str) -> tuple[Tif, bool]:
        """How long an order stands, and whether it may take."""
        if kind == "MARKET":
            return "ioc", False
        if kind != "LIMIT":
            raise Refused(-1116, "Invalid orderType.")
        terms: dict[str, Tif] = {"GTC": "gtc", "GTX": "gtc", "IOC": "ioc", "FOK": "fok"}
        tif = params.text("timeInForce")
        if tif not in terms:
            raise Refused(-1115, "Invalid timeInForce.")
        return terms[tif], tif == "GTX"

    def refused(self, reason: str, market: SymbolMarket) -> Refused:
        """What an order is refused with."""
        return Refused(*_REFUSED.get(reason, _REFUSED["funds"]))

    def cost_min(self, pair: VenueSymbol) -> Decimal:
        """The least that an order is worth."""
        return Decimal(5)

    def _position(self, symbol: str) -> _Position:
        return self.held.setdefault(symbol, _Position())

    def settle(self, event: OrderEvent) -> None:
        """Keep positions up to date."""
        order, execution = event.order, event.execution
        position = self._position(order.symbol)
        if execution is not None:
            sign = 1 if order.side == "buy" else -1
            position.trade(sign * execution.size, execution.price)

    @staticmethod
    def _tif(order: VenueOrder) -> str:
        return "GTX" if order.post_only else order.tif.upper()

    @staticmethod
    def _type(order: VenueOrder) -> str:
        return "MARKET" if order.price is None else "LIMIT"

    def order_row(self, order: VenueOrder, unit: int) -> dict[str, object]:
        """An order in a list, and in the answer to a request."""
        filled = order.filled
        average = order.cost / filled if filled else _ZERO
        return {
            "orderId": order_id(order),
            "symbol": order.symbol,
            "status": state_text(order),
            "clientOrderId": self.names[order.number],
            "price": f"{order.price or _ZERO:f}",
            "avgPrice": f"{average:.8f}",
            "origQty": f"{order.size:f}",
            "executedQty": f"{filled:f}",
            "cumQty": f"{filled:f}",
            "cumQuote": f"{order.cost:f}",
            "timeInForce": self._tif(order),
            "type": self._type(order),
            "reduceOnly": order.number in self._reducing,
            "closePosition": False,
            "side": order.side.upper(),
            "positionSide": "BOTH",
            "stopPrice": "0",
            "workingType": "CONTRACT_PRICE",
            "priceProtect": False,
            "origType": self._type(order),
            "priceMatch": "NONE",
            "selfTradePreventionMode": "EXPIRE_MAKER",
            "goodTillDate": 0,
            "time": order.time_ns // unit,
            "updateTime": (order.ended_ns or order.changed_ns) // unit,
        }

    def _trade_row(self, order: VenueOrder, each: Execution, unit: int) -> object:
        return {
            "symbol": order.symbol,
            "id": trade_id(each),
            "orderId": order_id(order),
            "side": order.side.upper(),
            "price": f"{each.price:f}",
            "qty": f"{each.size:f}",
            "realizedPnl": "0",
            "quoteQty": f"{each.cost:f}",
            "commission": f"{each.fee:.8f}",
            "commissionAsset": "USDT",
            "time": each.time_ns // unit,
            "positionSide": "BOTH",
            "buyer": order.side == "buy",
            "maker": each.maker,
        }

    # Reports

    def events(self, event: OrderEvent) -> list[Event]:
        """What streams say of it."""
        if event.kind == "filled":
            return []
        made = [self._update(event)]
        if event.execution is not None:
            made.append(self._account_update(event))
        return made

    def _update(self, event: OrderEvent) -> Event:
        order, execution = event.order, event.execution
        state = state_text(order)
        if event.kind == "new":
            state = "NEW"
        elif event.kind == "fill":
            state = "PARTIALLY_FILLED" if order.remaining else "FILLED"
        row = self.order_row(order, 1)
        told: dict[str, object] = {
            "s": order.symbol,
            "c": row["clientOrderId"],
            "S": row["side"],
            "o": row["type"],
            "f": row["timeInForce"],
            "q": row["origQty"],
            "p": row["price"],
            "ap": row["avgPrice"],
            "sp": "0",
            "x": _KINDS.get(event.kind, state),
            "X": state,
            "i": row["orderId"],
            "l": f"{execution.size:f}" if execution is not None else "0",
            "z": row["executedQty"],
            "L": f"{execution.price:f}" if execution is not None else "0",
            "n": f"{execution.fee:.8f}" if execution is not None else "0",
            "N": "USDT",
            "t": trade_id(execution) if execution is not None else 0,
            "b": "0",
            "a": "0",
            "m": execution is not None and execution.maker,
            "R": row["reduceOnly"],
            "wt": "CONTRACT_PRICE",
            "ot": row["type"],
            "ps": "BOTH",
            "cp": False,
            "rp": "0",
            "pP": False,
            "si": 0,
            "ss": 0,
            "V": "EXPIRE_MAKER",
            "pm": "NONE",
            "gtd": 0,
            "er": "0",
        }

        def make(unit: int) -> dict[str, object]:
            now = event.time_ns // unit
            return {
                "e": "ORDER_TRADE_UPDATE",
                "T": now,
                "E": now,
                "o": told | {"T": now},
            }

        return make

    def _account_update(self, event: OrderEvent) -> Event:
        symbol = event.order.symbol
        position = self._position(symbol)
        total = f"{self.matching.balances['USDT']:.8f}"
        told = {
            "m": "ORDER",
            "B": [{"a": "USDT", "wb": total, "cw": total, "bc": "0"}],
            "P": [
                {
                    "s": symbol,
                    "pa": f"{position.size:f}",
                    "ep": f"{position.entry:f}",
                    "bep": f"{position.entry:f}",
                    "cr": "0",
                    "up": "0",
                    "mt": "cross",
                    "iw": "0",
                    "ps": "BOTH",
                }
            ],
        }

        def make(unit: int) -> dict[str, object]:
            now = event.time_ns // unit
            return {"e": "ACCOUNT_UPDATE", "E": now, "T": now, "a": told}

        return make
