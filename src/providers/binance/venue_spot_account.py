"""The spot account of a simulated Binance: what its requests answer, what it reports.

Source: rest-api.md, web-socket-api.md and user-data-stream.md of the spot API's
documents; reports have the fields and the order of recorded ones.
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
    UNKNOWN_ORDER,
    Event,
    Tif,
    VenueAccount,
    order_id,
    state_text,
    trade_id,
)
from .venue_errors import Refused, invalid
from .venue_faults import Faults
from .venue_params import Params
from .venue_symbols import SymbolExchange, SymbolMarket, VenueSymbol

BALANCES = {
    "BTC": Decimal(10),
    "ETH": Decimal(100),
    "DOGE": Decimal(1_000_000),
    "BNB": Decimal(5),
    "USDT": Decimal(1_000_000),
}
_DAY_NS = 86_400 * NS
_RESTRICTED = (-2011, "Order was not canceled due to cancel restrictions.")
_KINDS = {"new": "NEW", "fill": "TRADE", "amended": "REPLACED"}
_FILTERS = {
    "tick": "PRICE_FILTER",
    "price": "PRICE_FILTER",
    "step": "LOT_SIZE",
    "minimum": "LOT_SIZE",
    "cost": "NOTIONAL",
}


def eight(number: Decimal) -> str:
    """A number as spot prints it."""
    return f"{number:.8f}"


class SpotAccount(VenueAccount):
    """The account of spot."""

    def __init__(
        self, exchange: SymbolExchange, faults: Faults, *, most_orders: int
    ) -> None:
        super().__init__(exchange, faults, BALANCES, most_orders=most_orders)
        self.methods = {
            ("POST", "order"): self._place,
            ("POST", "order/test"): self._test,
            ("GET", "order"): self._status,
            ("DELETE", "order"): self._cancel,
            ("POST", "order/cancelReplace"): self._replace,
            ("PUT", "order/amend/keepPriority"): self._amend,
            ("GET", "openOrders"): self._open_orders,
            ("DELETE", "openOrders"): self._cancel_all,
            ("GET", "allOrders"): self._all_orders,
            ("GET", "account"): self._account,
            ("GET", "myTrades"): self._my_trades,
        }

    # Requests

    def _place(self, params: Params, unit: int) -> object:
        asked = self.ask(params)
        self.count_order()
        order = self.take(asked)
        return self._placed(order, params, unit)

    def _test(self, params: Params, unit: int) -> object:
        self.ask(params)
        return {}

    def _status(self, params: Params, unit: int) -> object:
        return self.order_row(self.find(params), unit)

    def _cancel(self, params: Params, unit: int) -> object:
        name = self.client_id(params, "newClientOrderId")
        return self._end(params, unit, name, "o")

    def _end(self, params: Params, unit: int, name: str, prefix: str) -> object:
        try:
            order = self.find(params, prefix)
        except Refused as refused:
            if refused.code != -2013:
                raise
            raise Refused(*UNKNOWN_ORDER) from None
        if order.state != "open":
            raise Refused(*UNKNOWN_ORDER)
        if params.has("cancelRestrictions"):
            restriction = params.text("cancelRestrictions")
            if (restriction == "ONLY_NEW") == bool(order.filled):
                raise Refused(*_RESTRICTED)
        self.cancel(order, name)
        row = self._head(order) | {
            "origClientOrderId": self.names[order.number],
            "clientOrderId": name,
            "transactTime": order.ended_ns // unit,
        }
        return row | self._figures(order)

    def _replace(self, params: Params, unit: int) -> object:
        mode = params.text("cancelReplaceMode")
        if mode not in ("STOP_ON_FAILURE", "ALLOW_FAILURE"):
            raise invalid("cancelReplaceMode")
        asked = self.ask(params)
        self.count_order()
        done: dict[str, object] = {"cancelResult": "SUCCESS"}
        name = self.client_id(params, "cancelNewClientOrderId")
        try:
            done["cancelResponse"] = self._end(params, unit, name, "cancelO")
        except Refused as refused:
            done["cancelResult"] = "FAILURE"
            done["cancelResponse"] = {"code": refused.code, "msg": refused.text}
            if mode == "STOP_ON_FAILURE":
                done |= {"newOrderResult": "NOT_ATTEMPTED", "newOrderResponse": None}
                raise _failed(-2022, "failed", HTTPStatus.BAD_REQUEST, done) from None
        try:
            if self.faults.take_order("refuse_replacement"):
                raise self.refused("funds", asked.market)
            order = self.take(asked)
        except Refused as refused:
            done["newOrderResult"] = "FAILURE"
            done["newOrderResponse"] = {"code": refused.code, "msg": refused.text}
            raise _failed(
                -2021, "partially failed", HTTPStatus.CONFLICT, done
            ) from None
        done |= {
            "newOrderResult": "SUCCESS",
            "newOrderResponse": self._placed(order, params, unit),
        }
        if done["cancelResult"] == "FAILURE":
            raise _failed(-2021, "partially failed", HTTPStatus.CONFLICT, done)
        return done

    def _amend(self, params: Params, unit: int) -> object:
        order = self.find(params)
        size = self.number(params, "newQty")
        if order.state != "open":
            raise Refused(*UNKNOWN_ORDER)
        if not order.filled < size < order.size:
            text = "The requested quantity is not less than the current one."
            raise Refused(-2038, f"Order amend (quantity reduction) rejected. {text}")
        before = self.names[order.number]
        self.names[order.number] = self.client_id(params, "newClientOrderId")
        try:
            self.matching.amend(order, size=size)
        except OrderRefused as refused:
            self.names[order.number] = before
            raise self.refused(refused.reason, params.market()) from None
        amended = self._head(order) | {
            "origClientOrderId": before,
            "clientOrderId": self.names[order.number],
            "price": eight(order.price or Decimal(0)),
            "qty": eight(order.size),
            "executedQty": eight(order.filled),
            "preventedQty": "0.00000000",
            "cumulativeQuoteQty": eight(order.cost),
            "status": state_text(order),
            "timeInForce": order.tif.upper(),
            "type": self._type(order),
            "side": order.side.upper(),
        }
        return {
            "transactTime": order.changed_ns // unit,
            "executionId": order.number * 100 + order.amendments,
            "amendedOrder": amended,
        }

    def _open_orders(self, params: Params, unit: int) -> object:
        symbol = params.market().pair.symbol if params.has("symbol") else ""
        orders = self.matching.open_orders(symbol)
        return [self.order_row(order, unit) for order in orders]

    def _cancel_all(self, params: Params, unit: int) -> object:
        orders = self.matching.open_orders(params.market().pair.symbol)
        if not orders:
            raise Refused(*UNKNOWN_ORDER)
        for order in orders:
            self.cancel(order, self.client_id(params, "newClientOrderId"))
        return [self.order_row(order, unit) for order in orders]

    def _all_orders(self, params: Params, unit: int) -> object:
        symbol = params.market().pair.symbol
        first = params.integer("orderId") or 0
        orders = self.matching.orders.values()
        rows = [o for o in orders if o.symbol == symbol and order_id(o) >= first]
        return [self.order_row(o, unit) for o in rows[-params.limit(500, 1000) :]]

    def _account(self, params: Params, unit: int) -> object:
        rows = []
        for asset, total in self.matching.balances.items():
            held = self.matching.held(asset)
            if total or not params.has("omitZeroBalances"):
                free, locked = eight(total - held), eight(held)
                rows.append({"asset": asset, "free": free, "locked": locked})
        return {
            "makerCommission": 10,
            "takerCommission": 10,
            "canTrade": True,
            "accountType": "SPOT",
            "updateTime": self.exchange.now_ns // unit,
            "balances": rows,
            "permissions": ["SPOT"],
            "uid": 354937868,
        }

    def _my_trades(self, params: Params, unit: int) -> object:
        rows = self.trades(params, unit, limits=(500, 1000), span_ns=_DAY_NS)
        return [self.trade_row(order, each, unit) for order, each in rows]

    # How it looks

    def terms(self, params: Params, kind: str) -> tuple[Tif, bool]:
        """How long an order stands, and whether it may take."""
        if kind == "LIMIT_MAKER":
            if params.has("timeInForce"):
                raise Refused(-1106, "Parameter 'timeInForce' sent when not required.")
            return "gtc", True
        if kind == "MARKET":
            return "ioc", False
        if kind != "LIMIT":
            raise Refused(-1116, "Invalid orderType.")
        terms: dict[str, Tif] = {"GTC": "gtc", "IOC": "ioc", "FOK": "fok"}
        tif = params.text("timeInForce")
        if tif not in terms:
            raise Refused(-1115, "Invalid timeInForce.")
        return terms[tif], False

    def refused(self, reason: str, market: SymbolMarket) -> Refused:
        """What an order is refused with."""
        if reason in _FILTERS:
            return Refused(-1013, f"Filter failure: {_FILTERS[reason]}")
        if reason == "post_only":
            return Refused(-2010, "Order would immediately match and take.")
        text = "Account has insufficient balance for requested action."
        return Refused(-2010, text)

    def cost_min(self, pair: VenueSymbol) -> Decimal:
        """The least that an order is worth."""
        return Decimal("5" if pair.quote == "USDT" else "0.0001")

    def settle(self, event: OrderEvent) -> None:
        """Balances are the matching's."""

    def _head(self, order: VenueOrder) -> dict[str, object]:
        return {
            "symbol": order.symbol,
            "orderId": order_id(order),
            "orderListId": -1,
        }

    def _figures(self, order: VenueOrder) -> dict[str, object]:
        return {
            "price": eight(order.price or Decimal(0)),
            "origQty": eight(order.size),
            "executedQty": eight(order.filled),
            "origQuoteOrderQty": "0.00000000",
            "cummulativeQuoteQty": eight(order.cost),
            "status": state_text(order),
            "timeInForce": order.tif.upper(),
            "type": self._type(order),
            "side": order.side.upper(),
            "selfTradePreventionMode": "EXPIRE_MAKER",
        }

    @staticmethod
    def _type(order: VenueOrder) -> str:
        if order.price is None:
            return "MARKET"
        return "LIMIT_MAKER" if order.post_only else "LIMIT"

    def _placed(self, order: VenueOrder, params: Params, unit: int) -> object:
        row = self._head(order) | {
            "clientOrderId": self.names[order.number],
            "transactTime": order.time_ns // unit,
        }
        kind = params.text("newOrderRespType") if params.has("newOrderRespType") else ""
        if kind == "ACK":
            return row
        row |= self._figures(order) | {"workingTime": order.time_ns // unit}
        if kind == "RESULT":
            return row
        fills = [
            {
                "price": eight(each.price),
                "qty": eight(each.size),
                "commission": eight(each.fee),
                "commissionAsset": self._quote(order),
                "tradeId": trade_id(each),
            }
            for each in order.executions
        ]
        return row | {"fills": fills}

    def _quote(self, order: VenueOrder) -> str:
        market = self.exchange.find(order.symbol)
        assert market is not None
        return market.pair.quote

    def order_row(self, order: VenueOrder, unit: int) -> dict[str, object]:
        """An order in a list."""
        return (
            self._head(order)
            | {"clientOrderId": self.names[order.number]}
            | self._figures(order)
            | {
                "stopPrice": "0.00000000",
                "icebergQty": "0.00000000",
                "time": order.time_ns // unit,
                "updateTime": (order.ended_ns or order.changed_ns) // unit,
                "isWorking": True,
                "workingTime": order.time_ns // unit,
            }
        )

    def trade_row(self, order: VenueOrder, each: Execution, unit: int) -> object:
        """A trade in a list."""
        return {
            "symbol": order.symbol,
            "id": trade_id(each),
            "orderId": order_id(order),
            "orderListId": -1,
            "price": eight(each.price),
            "qty": eight(each.size),
            "quoteQty": eight(each.cost),
            "commission": eight(each.fee),
            "commissionAsset": self._quote(order),
            "time": each.time_ns // unit,
            "isBuyer": order.side == "buy",
            "isMaker": each.maker,
            "isBestMatch": True,
        }

    # Reports

    def events(self, event: OrderEvent) -> list[Event]:
        """What streams say of it."""
        if event.kind == "filled":
            return []
        report = self._report(event)
        return [report, self._balances(event)]

    def _report(self, event: OrderEvent) -> Event:
        order, execution = event.order, event.execution
        name, before = self.names[order.number], ""
        state = state_text(order)
        if event.kind == "new":
            state = "NEW"
        elif event.kind == "fill":
            state = "PARTIALLY_FILLED" if order.remaining else "FILLED"
        kind = _KINDS.get(event.kind, state)
        if state == "CANCELED":
            name, before = self.cancels.get(order.number, name), name
        elif event.kind == "amended":
            before = name
        filled, cost = eight(order.filled), eight(order.cost)
        size, price = eight(order.size), eight(order.price or Decimal(0))
        number = event.order.number * 1000 + len(order.executions) * 10
        number += len(kind)
        quote, type_text = self._quote(order), self._type(order)
        nothing = Decimal(0)
        last = (
            (execution.size, execution.price, execution.fee, execution.cost)
            if execution is not None
            else (nothing, nothing, nothing, nothing)
        )
        working = event.kind == "new" or (
            order.state == "open" and bool(order.remaining)
        )

        def make(unit: int) -> dict[str, object]:
            now = event.time_ns // unit
            return {
                "e": "executionReport",
                "E": now,
                "s": order.symbol,
                "c": name,
                "S": order.side.upper(),
                "o": type_text,
                "f": order.tif.upper(),
                "q": size,
                "p": price,
                "P": "0.00000000",
                "F": "0.00000000",
                "g": -1,
                "C": before,
                "x": kind,
                "X": state,
                "r": "NONE",
                "i": order_id(order),
                "l": eight(last[0]),
                "z": filled,
                "L": eight(last[1]),
                "n": eight(last[2]) if execution is not None else "0",
                "N": quote if execution is not None else None,
                "T": now,
                "t": trade_id(execution) if execution is not None else -1,
                "I": number,
                "w": working,
                "m": execution is not None and execution.maker,
                "M": execution is not None,
                "O": order.time_ns // unit,
                "Z": cost,
                "Y": eight(last[3]),
                "Q": "0.00000000",
                "W": order.time_ns // unit,
                "V": "EXPIRE_MAKER",
                "newlyInvented": {"since": now},
            }

        return make

    def _balances(self, event: OrderEvent) -> Event:
        market = self.exchange.find(event.order.symbol)
        assert market is not None
        rows = []
        for asset in (market.pair.base, market.pair.quote):
            held = self.matching.held(asset)
            free = eight(self.matching.balances[asset] - held)
            rows.append({"a": asset, "f": free, "l": eight(held)})

        def make(unit: int) -> dict[str, object]:
            now = event.time_ns // unit
            return {"e": "outboundAccountPosition", "E": now, "u": now, "B": rows}

        return make


def _failed(
    code: int, how: str, status: HTTPStatus, done: dict[str, object]
) -> Refused:
    """A replacement that failed, in part or as a whole."""
    refused = Refused(code, f"Order cancel-replace {how}.", status)
    refused.extra = done
    return refused
