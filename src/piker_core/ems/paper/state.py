"""What of the paper engine is kept over a restart, as plain values."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from piker_core.broker import BrokerOrder
from piker_core.ems.paper.book import Owed, PaperMarket, PaperOrder
from piker_core.errors import OrderError

State = Mapping[str, Any]


class _Side(msgspec.Struct):
    best: Decimal | None
    size: Decimal
    taken: dict[Decimal, Decimal]
    owed: dict[Decimal, Owed]


class _Market(msgspec.Struct):
    bids: _Side
    asks: _Side
    position: Decimal


class Restored(NamedTuple):
    """An order that was kept, and whether its state was that of its last fill."""

    order: PaperOrder
    whole: bool


def order_state(order: PaperOrder) -> dict[str, Any]:
    """All that is known of an order."""
    told: dict[str, Any] = msgspec.to_builtins(order)
    return told


def market_state(market: PaperMarket) -> dict[str, Any]:
    """What is shown and taken of a market, and its position."""
    bids, asks = (
        _Side(side.best, side.size, side.taken, side.owed)
        for side in (market.bids, market.asks)
    )
    told: dict[str, Any] = msgspec.to_builtins(_Market(bids, asks, market.position))
    return told


def restore_market(market: PaperMarket, state: State) -> None:
    """Make a market what it was. Raises OrderError for a state that is none."""
    try:
        kept = msgspec.convert(state, _Market)
    except msgspec.ValidationError as error:
        raise OrderError(
            f"the state of market {market.fqme} is none: {error}"
        ) from None
    for side, was in ((market.bids, kept.bids), (market.asks, kept.asks)):
        side.best, side.size = was.best, was.size
        side.taken, side.owed = was.taken, was.owed
    market.position = kept.position


def restored_order(order: BrokerOrder, state: State | None) -> Restored:
    """An order that was kept, with its state if there is one.

    Raises OrderError for a state that is none.
    """
    facts = {
        "reqid": order.reqid,
        "symbol": order.symbol,
        "action": order.action,
        "price": order.price,
        "size": order.size,
        "filled": order.filled,
        "status": "open" if order.status == "pending" else order.status,
        "reason": order.reason,
        "time_ns": order.time_ns,
    }
    cost = order.avg_price * order.filled
    unknown = {"oid": "", "cost": cost}
    try:
        made = msgspec.convert(unknown | dict(state or {}) | facts, PaperOrder)
        whole = bool(state) and msgspec.convert(state, PaperOrder).filled == made.filled
    except msgspec.ValidationError as error:
        raise OrderError(
            f"the state of order {order.reqid!r} is none: {error}"
        ) from None
    if not whole:
        made.cost = cost
    return Restored(made, whole)
