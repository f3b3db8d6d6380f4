"""Orders and fills as a simulated Kraken prints them: rows of executions, of REST."""

from decimal import Decimal
from typing import Any

import msgspec

from piker_core.simulation.listing import SIZE_DECIMALS
from piker_core.simulation.market import NS
from piker_core.simulation.matching import Execution, OrderEvent, VenueOrder

from .venue_frames import stamp_us
from .venue_pairs import VenuePair

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_COST_DECIMALS = 5
_REST_STATES = {"filled": "closed"}

Row = dict[str, Any]


def make_id(letter: str, number: int) -> str:
    """An id as the venue's: OXXXXX-XXXXX-XXXXXX, of the number of an order or fill."""
    digits = ""
    rest = number * 2_654_435_761 % 2**75  # one to one, and no order to be seen
    for _ in range(15):
        rest, digit = divmod(rest, 32)
        digits += _ALPHABET[digit]
    text = letter + digits + "A"
    return f"{text[:6]}-{text[6:11]}-{text[11:]}"


def number(exact: Decimal, decimals: int) -> msgspec.Raw:
    """A JSON number with so many decimals."""
    return msgspec.Raw(f"{exact:.{decimals}f}".encode())


def order_id(order: VenueOrder) -> str:
    """The venue's id of an order."""
    return make_id("O", order.number)


def execution_id(execution: Execution) -> str:
    """The venue's id of a fill."""
    return make_id("T", execution.number)


def average(order: VenueOrder) -> Decimal:
    """Mean price of what was executed; 0 if nothing was."""
    return order.cost / order.filled if order.filled else Decimal(0)


# executions


def rows_of(event: OrderEvent, pair: VenuePair) -> list[Row]:
    """What the channel `executions` tells of an event: a row each."""
    order = event.order
    if event.kind == "new":
        return [pending_row(order, pair), _changed(event, "new", "new")]
    if event.kind == "fill":
        assert event.execution is not None
        return [_trade(event, event.execution, pair)]
    if event.kind == "amended":
        return [
            _changed(event, "amended", _standing(order))
            | {"order_qty": number(order.size, SIZE_DECIMALS), "amended": True}
            | _limit(order, pair)
        ]
    row = _changed(event, event.kind, event.kind) | _sums(order, pair)
    if event.reason:
        row |= {"cancel_reason": event.reason, "reason": event.reason}
    return [row]


def snapshot_row(order: VenueOrder, pair: VenuePair) -> Row:
    """An open order in a snapshot."""
    return (
        pending_row(order, pair)
        | {"exec_type": "new", "order_status": _standing(order)}
        | _sums(order, pair)
    )


def pending_row(order: VenueOrder, pair: VenuePair) -> Row:
    """The first row of an order, which alone has all of it."""
    row: Row = {
        "order_id": order_id(order),
        "symbol": order.symbol,
        "order_qty": number(order.size, SIZE_DECIMALS),
        "cum_cost": number(Decimal(0), _COST_DECIMALS),
        "time_in_force": order.tif.upper(),
        "exec_type": "pending_new",
        "side": order.side,
        "order_type": "limit" if order.price is not None else "market",
        "order_userref": 0,
        "limit_price_type": "static",
        **_limit(order, pair),
        "stop_price": number(Decimal(0), 1),
        "order_status": "pending_new",
        "fee_usd_equiv": number(Decimal(0), _COST_DECIMALS),
        "fee_ccy_pref": "fciq",
        "timestamp": stamp_us(order.time_ns),
    }
    if order.post_only:
        row["post_only"] = True
    if order.client_id:
        row["cl_ord_id"] = order.client_id
    return row


def _limit(order: VenueOrder, pair: VenuePair) -> Row:
    if order.price is None:
        return {}
    return {"limit_price": number(order.price, pair.price_decimals)}


def _standing(order: VenueOrder) -> str:
    return "partially_filled" if order.filled else "new"


def _changed(event: OrderEvent, exec_type: str, status: str) -> Row:
    return {
        "timestamp": stamp_us(event.time_ns),
        "order_status": status,
        "exec_type": exec_type,
        "order_userref": 0,
        "order_id": order_id(event.order),
    }


def _sums(order: VenueOrder, pair: VenuePair) -> Row:
    return {
        "cum_qty": number(order.filled, SIZE_DECIMALS),
        "cum_cost": number(order.cost, _COST_DECIMALS),
        "fee_usd_equiv": number(order.fee, _COST_DECIMALS),
        "avg_price": number(average(order), pair.price_decimals),
    }


def _trade(event: OrderEvent, execution: Execution, pair: VenuePair) -> Row:
    order = event.order
    return {
        "order_id": order_id(order),
        "order_userref": 0,
        "exec_id": execution_id(execution),
        "exec_type": "trade",
        "trade_id": execution.trade_id,
        "symbol": order.symbol,
        "side": order.side,
        "last_qty": number(execution.size, SIZE_DECIMALS),
        "last_price": number(execution.price, pair.price_decimals),
        "liquidity_ind": "m" if execution.maker else "t",
        "cost": number(execution.cost, _COST_DECIMALS),
        "order_type": "limit" if order.price is not None else "market",
        "timestamp": stamp_us(execution.time_ns),
        "order_status": "partially_filled",  # of the last one, too
        **_sums(order, pair),
        "fees": [
            {"asset": pair.quote.name, "qty": number(execution.fee, _COST_DECIMALS)}
        ],
    }


# balances


def ledger_rows(
    event: OrderEvent, pair: VenuePair, balances: dict[str, Decimal]
) -> list[Row]:
    """The two lines of a fill, which share its id."""
    execution, order = event.execution, event.order
    assert execution is not None
    sign = 1 if order.side == "buy" else -1
    legs = (
        (pair.base.name, sign * execution.size, Decimal(0)),
        (pair.quote.name, -sign * execution.cost, execution.fee),
    )
    return [
        {
            "ledger_id": make_id("L", 2 * execution.number + leg),
            "ref_id": execution_id(execution),
            "timestamp": stamp_us(execution.time_ns),
            "type": "trade",
            "asset": asset,
            "asset_class": "currency",
            "category": "trade",
            "wallet_type": "spot",
            "wallet_id": "main",
            "amount": number(amount, SIZE_DECIMALS),
            "fee": number(fee, _COST_DECIMALS),
            "balance": number(balances[asset], SIZE_DECIMALS),
        }
        for leg, (asset, amount, fee) in enumerate(legs)
    ]


def balance_row(asset: str, balance: Decimal) -> Row:
    """A balance in a snapshot."""
    exact = number(balance, SIZE_DECIMALS)
    return {
        "asset": asset,
        "asset_class": "currency",
        "balance": exact,
        "wallets": [{"type": "spot", "id": "main", "balance": exact}],
    }


# REST


def rest_order(order: VenueOrder, pair: VenuePair) -> Row:
    """A value of OpenOrders, ClosedOrders and QueryOrders."""
    price = Decimal(0) if order.price is None else order.price
    kind = "limit" if order.price is not None else "market"
    size = f"{order.size:.{SIZE_DECIMALS}f}"
    row: Row = {
        "refid": None,
        "userref": 0,
        "status": _REST_STATES.get(order.state, order.state),
        "opentm": _seconds(order.time_ns),
        "starttm": 0,
        "expiretm": 0,
        "descr": {
            "pair": pair.altname,
            "type": order.side,
            "ordertype": kind,
            "price": f"{price:.{pair.price_decimals}f}",
            "price2": "0",
            "leverage": "none",
            "order": f"{order.side} {size} {pair.altname} @ {kind} {price:f}",
            "close": "",
        },
        "vol": size,
        "vol_exec": f"{order.filled:.{SIZE_DECIMALS}f}",
        "cost": f"{order.cost:.{_COST_DECIMALS}f}",
        "fee": f"{order.fee:.{_COST_DECIMALS}f}",
        "price": f"{average(order):.{_COST_DECIMALS}f}",
        "stopprice": "0.00000",
        "limitprice": "0.00000",
        "misc": "",
        "oflags": "post,fciq" if order.post_only else "fciq",
        "trades": [execution_id(each) for each in order.executions],
    }
    if order.client_id:
        row["cl_ord_id"] = order.client_id
    if order.state != "open":
        row["closetm"] = _seconds(order.ended_ns)
        row["reason"] = order.reason or None
    return row


def rest_trade(order: VenueOrder, execution: Execution, pair: VenuePair) -> Row:
    """A value of TradesHistory."""
    return {
        "ordertxid": order_id(order),
        "postxid": "TKH2SE-M7IF5-CFI7LT",
        "pair": pair.key,
        "time": _seconds(execution.time_ns),
        "type": order.side,
        "ordertype": "limit" if order.price is not None else "market",
        "price": f"{execution.price:.{pair.price_decimals}f}",
        "cost": f"{execution.cost:.{_COST_DECIMALS}f}",
        "fee": f"{execution.fee:.{_COST_DECIMALS}f}",
        "vol": f"{execution.size:.{SIZE_DECIMALS}f}",
        "margin": "0.00000",
        "misc": "",
        "trade_id": execution.trade_id,
        "maker": execution.maker,
    }


def _seconds(time_ns: int) -> msgspec.Raw:
    """Seconds with the decimals that tell microseconds."""
    seconds, rest = divmod(time_ns, NS)
    return msgspec.Raw(f"{seconds}.{rest // 1000:06d}".encode())
