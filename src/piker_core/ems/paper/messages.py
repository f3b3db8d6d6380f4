"""What the paper venue says of its orders."""

from decimal import Context, Decimal

from piker_core.broker import BrokerOrder
from piker_core.ems.paper.book import ZERO, Given, PaperOrder
from piker_core.orders import (
    BrokerdCancel,
    BrokerdError,
    BrokerdFill,
    BrokerdOrder,
    BrokerdOrderAck,
    BrokerdStatus,
)

Message = BrokerdOrderAck | BrokerdStatus | BrokerdFill | BrokerdError
Request = BrokerdOrder | BrokerdCancel

_FEE_STEP = Decimal("1e-18")
_AVERAGE = Context(prec=28)


def refusal(request: Request, reason: str) -> BrokerdError:
    """A request is refused."""
    return BrokerdError(
        reason=reason, oid=request.oid, reqid=request.reqid, symbol=request.symbol
    )


def acknowledgement(order: PaperOrder, account: str, now_ns: int) -> BrokerdOrderAck:
    """The venue has an order, or its change."""
    return BrokerdOrderAck(
        reqid=order.reqid,
        oid=order.oid,
        account=account,
        broker_id=_broker_id(order),
        time_ns=now_ns,
    )


def status(order: PaperOrder, now_ns: int) -> BrokerdStatus:
    """What an order is now."""
    return BrokerdStatus(
        time_ns=now_ns,
        reqid=order.reqid,
        status=order.status,
        filled=order.filled,
        remaining=order.remaining,
        reason=order.reason,
        broker_id=_broker_id(order),
    )


def execution(
    given: Given, *, rate: Decimal, currency: str, now_ns: int, venue_ns: int
) -> BrokerdFill:
    """A fill; `rate` is the fee as a fraction of what it is worth."""
    order, fee = given.order, given.size * given.price * rate
    return BrokerdFill(
        time_ns=now_ns,
        broker_time=venue_ns,
        reqid=order.reqid,
        size=given.size,
        price=given.price,
        action=order.action,
        broker_details={
            "why": given.why,
            "tick_price": f"{given.tick_price.normalize():f}",
            "tick_size": f"{given.tick_size.normalize():f}",
        },
        fill_id=f"{order.reqid}.{given.number}",
        fee=fee.quantize(_FEE_STEP).normalize() if fee else ZERO,
        fee_currency=currency,
        liquidity="maker" if given.maker else "taker",
        symbol=order.symbol,
    )


def as_told(order: PaperOrder) -> BrokerOrder:
    """An order as the venue has it."""
    average = _AVERAGE.divide(order.cost, order.filled) if order.filled else ZERO
    return BrokerOrder(
        reqid=str(order.reqid),
        broker_id=_broker_id(order),
        symbol=order.symbol,
        status=order.status,
        action=order.action,
        price=order.price,
        size=order.size,
        filled=order.filled,
        avg_price=average,
        time_ns=order.time_ns,
        reason=order.reason,
    )


def _broker_id(order: PaperOrder) -> str:
    return f"paper-{order.reqid}"
