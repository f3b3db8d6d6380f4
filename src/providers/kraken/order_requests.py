"""Orders as Kraken wants them, and what is remembered of a request on its way."""

from typing import Any, Literal

import msgspec

from piker_core.orders import BrokerdCancel, BrokerdOrder

from .order_states import SentTerms
from .private_wire import number

_MOST_ID = 18


class Note(msgspec.Struct, kw_only=True):
    """Which order a request is about, and what became of the request."""

    kind: Literal["add", "amend", "cancel"]
    reqid: str
    oid: str
    symbol: str
    venue_symbol: str
    outcome: Literal["unknown", "taken", "refused", "session"] = "unknown"

    @classmethod
    def of(cls, order: BrokerdOrder, venue_symbol: str, *, changed: bool) -> "Note":
        """Of an order, or a change of one."""
        return cls(
            kind="amend" if changed else "add",
            reqid=str(order.reqid),
            oid=order.oid,
            symbol=order.symbol,
            venue_symbol=venue_symbol,
        )

    @classmethod
    def of_cancel(cls, cancel: BrokerdCancel, venue_symbol: str) -> "Note":
        """Of a cancel."""
        return cls(
            kind="cancel",
            reqid=str(cancel.reqid),
            oid=cancel.oid,
            symbol=cancel.symbol,
            venue_symbol=venue_symbol,
        )


def check_order(order: BrokerdOrder) -> str:
    """Why an order cannot be sent; "" if it can."""
    reqid = "" if order.reqid is None else str(order.reqid)
    if not 0 < len(reqid) <= _MOST_ID or not (reqid.isascii() and reqid.isalnum()):
        return f"reqid {reqid!r:.40} must be 1 to {_MOST_ID} letters and digits"
    if order.price <= 0 or order.size <= 0:
        return f"price {order.price} and size {order.size} must be over 0"
    if order.tif == "day":
        return "tif 'day': Kraken's markets never close; use gtc, ioc or fok"
    if order.post_only and order.tif != "gtc":
        return f"post_only with tif {order.tif!r}: a post-only order rests, use gtc"
    if order.reduce_only and order.action == "buy":
        return "reduce_only: a buy of spot makes a position larger, never smaller"
    return ""


def sent_terms(order: BrokerdOrder, venue_symbol: str) -> SentTerms:
    """A new order as it will be known until the venue tells of it."""
    return SentTerms(venue_symbol, order.action, order.size, order.price)


def order_params(order: BrokerdOrder) -> dict[str, Any]:
    """A new order without its market, as it stands in a batch."""
    params: dict[str, Any] = {
        "order_type": "limit",
        "side": order.action,
        "order_qty": number(order.size),
        "limit_price": number(order.price),
        "time_in_force": order.tif,
        "cl_ord_id": str(order.reqid),
    }
    return params | {"post_only": True} if order.post_only else params


def add_params(order: BrokerdOrder, symbol: str, deadline: str) -> dict[str, Any]:
    """A new order in a market."""
    return order_params(order) | {"symbol": symbol, "deadline": deadline}


def amend_params(order: BrokerdOrder, deadline: str) -> dict[str, Any]:
    """Another price and size for an order; the size is the whole order's."""
    params: dict[str, Any] = {
        "cl_ord_id": str(order.reqid),
        "order_qty": number(order.size),
        "limit_price": number(order.price),
        "deadline": deadline,
    }
    return params | {"post_only": True} if order.post_only else params
