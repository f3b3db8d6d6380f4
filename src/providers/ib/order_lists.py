"""Lists that TWS gives of orders and positions, and orders that are no longer open.

Most lists have no number: who asks holds `orders_turn` of the session until the end.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from piker_core.broker import BrokerOrder
from piker_core.orders import BrokerdFill, State

from .config import Config
from .order_book import Held
from .order_codes import state_of
from .order_words import side_of, size_or_zero
from .session import Session

Row = tuple[Any, ...]


async def ask_list(
    session: Session,
    config: Config,
    send: Callable[[Any], None],
    end: str,
    what: str,
) -> None:
    """Ask for a list and wait for its end; its messages go to `session.orders`."""
    await session.ask(
        lambda requests, _: send(requests),
        lambda *_: True,
        what=what,
        timeout_s=config.request_timeout_s,
        key=end,
    )


async def _gather(
    session: Session,
    config: Config,
    send: Callable[[Any], None],
    *,
    each: str,
    end: str,
    what: str,
) -> list[Row]:
    rows: list[Row] = []

    def take(name: str, arguments: Row) -> None:
        if name == each:
            rows.append(arguments)

    async with session.orders_turn:
        session.orders.append(take)
        try:
            await ask_list(session, config, send, end, what)
        finally:
            session.orders.remove(take)
    return rows


async def completed(session: Session, config: Config) -> list[Row]:
    """Orders that have ended, by hand and by API: contract, order, state."""
    return await _gather(
        session,
        config,
        lambda requests: requests.reqCompletedOrders(False),
        each="completedOrder",
        end="completedOrdersEnd",
        what="completed orders",
    )


async def positions(session: Session, config: Config) -> list[Row]:
    """Account, contract, size and cost of each, the last one told of each."""
    rows = await _gather(
        session,
        config,
        lambda requests: requests.reqPositions(),
        each="position",
        end="positionEnd",
        what="positions",
    )
    session.send(session.requests.cancelPositions)
    return list({(row[0], row[1].conId): row for row in rows}.values())


def find(rows: Sequence[Row], reqid: str, account: str) -> Row | None:
    """The newest order of an account that has a reference."""
    for row in reversed(rows):
        if row[1].orderRef == reqid and row[1].account in ("", account):
            return row
    return None


def describe_ended(row: Row, fills: Sequence[BrokerdFill], symbol: str) -> BrokerOrder:
    """An order that has ended; TWS gives its size as 0 once it is filled."""
    _, order, state = row
    filled = max(size_or_zero(order.filledQuantity), sum_sizes(fills))
    status = state_of(state.status) or "canceled"
    return BrokerOrder(
        reqid=order.orderRef,
        broker_id=str(order.permId or ""),
        symbol=symbol,
        status=status,
        action=side_of(order.action),
        price=size_or_zero(order.lmtPrice),
        size=max(size_or_zero(order.totalQuantity), filled),
        filled=filled,
        avg_price=mean_price(fills),
        reason=state.completedStatus,
        broker_details={"perm_id": order.permId, "ended": state.completedTime},
    )


def describe_filled(
    fills: Sequence[BrokerdFill], reqid: str, symbol: str, held: Held | None
) -> BrokerOrder:
    """An order of which nothing but executions is left: it is not open any more."""
    filled, last = sum_sizes(fills), fills[-1]
    size = max(held.size if held is not None else filled, filled)
    status: State = "closed" if filled == size else "canceled"
    return BrokerOrder(
        reqid=reqid,
        broker_id=str(last.broker_details["perm_id"] or ""),
        symbol=symbol,
        status=status,
        action=last.action,
        price=held.price if held is not None else last.price,
        size=size,
        filled=filled,
        avg_price=mean_price(fills),
        reason="known by its executions alone",
    )


def sum_sizes(fills: Sequence[BrokerdFill]) -> Decimal:
    """The sum of some fills' sizes."""
    return sum((fill.size for fill in fills), start=Decimal(0))


def mean_price(fills: Sequence[BrokerdFill]) -> Decimal:
    """The mean price of some fills; 0 if there are none."""
    size = sum_sizes(fills)
    paid = sum((fill.size * fill.price for fill in fills), start=Decimal(0))
    return paid / size if size else Decimal(0)
