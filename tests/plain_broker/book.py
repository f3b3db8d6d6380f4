"""The broker's orders and fills: what is true, whatever the gateway hears of it."""

import time
from decimal import Decimal
from itertools import count

import msgspec

from piker_core.broker import BrokerOrder
from piker_core.orders import (
    BrokerdCancel,
    BrokerdError,
    BrokerdFill,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdOrderAck,
    BrokerdPosition,
    BrokerdStatus,
    State,
)
from tests.plain_broker.words import Held, Truth

ZERO = Decimal(0)


class Book:
    """Orders by `reqid`, each taken once; executions numbered from 1."""

    def __init__(self, broker: str, account: str, symbol: str) -> None:
        self.broker, self.account, self.symbol = broker, account, symbol
        self.held: dict[str, Held] = {}
        self.fills: list[BrokerdFill] = []
        self.counts = dict.fromkeys(("asked", "taken", "changed", "refused"), 0)
        self._numbers = count(1)
        self._last_ns = 0

    def submit(self, asked: BrokerdOrder) -> list[BrokerdMessage]:
        """Take a new order, or change one; what is said of it."""
        self.counts["asked"] += 1
        reqid = str(asked.reqid)
        held = self.held.get(reqid)
        if held is None and asked.is_change:
            return self.refuse(reqid, f"order {reqid} is not known")
        if held is None:
            held = self.held[reqid] = self._take(asked)
        else:
            place = (str(asked.price), str(asked.size))
            held.doubled += place in held.seen
            held.seen.append(place)
            order = held.order
            if order.status != "open" or asked.size <= order.filled:
                return self.refuse(reqid, f"order {order.broker_id} cannot be changed")
            self.counts["changed"] += 1
            changes = {"price": asked.price, "size": asked.size}
            held.order = msgspec.structs.replace(order, **changes)
        ack = BrokerdOrderAck(
            reqid=reqid,
            oid=asked.oid,
            account=self.account,
            broker_id=held.order.broker_id,
            time_ns=time.time_ns(),
        )
        return [ack, self._status(held)]

    def _take(self, asked: BrokerdOrder) -> Held:
        self.counts["taken"] += 1
        order = BrokerOrder(
            reqid=str(asked.reqid),
            broker_id=f"B{next(self._numbers)}",
            symbol=asked.symbol,
            status="open",
            action=asked.action,
            price=asked.price,
            size=asked.size,
            filled=ZERO,
            time_ns=self._now_ns(),
        )
        return Held(order, taken=1, seen=[(str(asked.price), str(asked.size))])

    def cancel(self, asked: BrokerdCancel) -> list[BrokerdMessage]:
        """Cancel an order that is open."""
        reqid = str(asked.reqid)
        held = self.held.get(reqid)
        if held is None or held.order.status != "open":
            return self.refuse(reqid, f"order {reqid} is not open")
        return [self.end(reqid, "canceled")]

    def refuse(self, reqid: str, reason: str) -> list[BrokerdMessage]:
        """Say no to a request."""
        self.counts["refused"] += 1
        return [BrokerdError(reason=reason, reqid=reqid)]

    def fill(self, reqid: str, size: Decimal) -> list[BrokerdMessage]:
        """Execute a part of an open order, at its price."""
        held = self.held[reqid]
        order = held.order
        size = min(size, order.size - order.filled)
        now_ns = self._now_ns()
        fill = BrokerdFill(
            time_ns=now_ns,
            broker_time=now_ns,
            reqid=reqid,
            size=size,
            price=order.price,
            action=order.action,
            fill_id=f"F{len(self.fills) + 1}",
            fee=Decimal("0.01"),
            fee_currency="usd",
            symbol=order.symbol,
        )
        self.fills.append(fill)
        held.order = msgspec.structs.replace(order, filled=order.filled + size)
        if held.order.filled < order.size:
            return [fill, self._status(held)]
        return [fill, self.end(reqid, "closed")]

    def end(self, reqid: str, how: State) -> BrokerdMessage:
        """Let no more happen to an order."""
        held = self.held[reqid]
        held.order = msgspec.structs.replace(held.order, status=how)
        return self._status(held)

    def _status(self, held: Held) -> BrokerdMessage:
        order = held.order
        return BrokerdStatus(
            time_ns=time.time_ns(),
            reqid=order.reqid,
            status=order.status,
            filled=order.filled,
            remaining=order.size - order.filled,
            broker_id=order.broker_id,
        )

    def _now_ns(self) -> int:
        """No two of the broker's times are the same."""
        self._last_ns = max(self._last_ns + 1, time.time_ns())
        return self._last_ns

    def open_orders(self) -> list[BrokerOrder]:
        return [h.order for h in self.held.values() if h.order.status == "open"]

    def position(self) -> Decimal:
        """The sum of all fills."""
        signed = (f.size if f.action == "buy" else -f.size for f in self.fills)
        return sum(signed, ZERO)

    def positions(self) -> list[BrokerdPosition]:
        size = self.position()
        return [
            BrokerdPosition(
                broker=self.broker,
                account=self.account,
                symbol=self.symbol,
                size=size,
                avg_price=Decimal(1) if size else ZERO,
            )
        ]

    def truth(self) -> Truth:
        held = list(self.held.values())
        return Truth(held, self.fills, str(self.position()), self.counts)
