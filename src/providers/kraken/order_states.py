"""What is known of an account's orders: rows of `executions` put together.

1. A row tells what changed. Rows come doubled, late and out of order: a state never
   goes back, a filled size never shrinks, an execution counts once. What rows say in
   any order and number comes to the same.
2. Price and size are those of the newest row that has them; a snapshot is newest.
3. Orders are known by the venue's id and, if they have one, by the client's. While an
   order of ours awaits its answer, rows of orders without a client id are held: they
   may be its. Rows of an order whose terms are not known are held until they are: by
   its first row, by a snapshot, or as it was sent from here.
4. Ended orders are remembered for a while, as rows of them may come again.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Literal, cast

import msgspec

from piker_core.orders import (
    BrokerdFill,
    BrokerdMessage,
    BrokerdStatus,
    Side,
    State,
    exact,
)

from .private_wire import ExecutionRow
from .wire import NS, decode_time

_STATES: dict[str, State] = {
    "pending_new": "pending",
    "new": "open",
    "partially_filled": "open",
    "filled": "closed",
    "canceled": "canceled",
    "expired": "canceled",
}
_RANKS: dict[State, int] = {"pending": 0, "open": 1, "closed": 2, "canceled": 2}
_LIQUIDITY: dict[str, Literal["maker", "taker"]] = {"m": "maker", "t": "taker"}
_ENDED = 4096
"""Ended orders that are remembered."""
_HELD = 1024
"""Rows that are held at most."""
_NUMBERS = ("order_qty", "limit_price", "cum_qty", "last_qty", "last_price")
_ZERO = Decimal(0)


class OrderState(msgspec.Struct, kw_only=True):
    """An order as far as its rows have told."""

    order_id: str
    reqid: str = ""
    symbol: str = ""
    side: str = ""
    size: Decimal = _ZERO
    price: Decimal = _ZERO
    terms_ns: int = 0
    status: State = "pending"
    reason: str = ""
    told_filled: Decimal = _ZERO
    executed: dict[str, Decimal] = {}

    @property
    def filled(self) -> Decimal:
        """The most that is known to be filled."""
        return max(self.told_filled, sum(self.executed.values(), _ZERO))

    @property
    def ended(self) -> bool:
        """Whether nothing more becomes of it."""
        return _RANKS[self.status] == 2


class SentTerms(msgspec.Struct, frozen=True):
    """An order as it was sent from here; `symbol` is that of WebSocket v2."""

    symbol: str
    side: str
    size: Decimal
    price: Decimal


class OrderStates:
    """All orders of an account that were heard of.

    `fqme_of`: the market of a v2 symbol. `now_ns`: our clock.
    """

    def __init__(
        self, fqme_of: Callable[[str], str], now_ns: Callable[[], int]
    ) -> None:
        self.held = 0
        """Rows that were held so far."""
        self._fqme_of, self._now_ns = fqme_of, now_ns
        self._orders: OrderedDict[str, OrderState] = OrderedDict()
        self._ids: dict[str, str] = {}
        self._changed_ns: dict[str, int] = {}
        self._awaited: dict[str, SentTerms] = {}
        self._waiting: list[ExecutionRow] = []

    # Orders by their client id

    def submitted(self, reqid: str, terms: SentTerms) -> None:
        """An order is about to be sent: its answer is awaited."""
        self._awaited[reqid] = terms

    def refused(self, reqid: str) -> list[BrokerdMessage]:
        """It was not taken, or it is not there: what was held may be told now."""
        self._awaited.pop(reqid, None)
        return self._release()

    def identify(self, order_id: str, reqid: str) -> list[BrokerdMessage]:
        """An answer says which order it is: tells what was held for it."""
        terms = self._awaited.pop(reqid, None)
        state = self._state(order_id)
        state.reqid = reqid
        self._ids[reqid] = order_id
        if terms is not None and not state.symbol:
            state.symbol, state.side = terms.symbol, terms.side
            state.size, state.price = terms.size, terms.price
        return self._release()

    def knows(self, reqid: str) -> bool:
        """Whether an order was sent under this id, or was heard of."""
        return reqid in self._ids or reqid in self._awaited

    def broker_id(self, reqid: str) -> str:
        """The venue's id of an order, "" if it is not known."""
        return self._ids.get(reqid, "")

    def reqid_of(self, order_id: str) -> str | None:
        """The client's id of an order, "" if it has none; None: nothing is known."""
        state = self._orders.get(order_id)
        return state.reqid if state is not None and state.symbol else None

    def symbol_of(self, reqid: str) -> str:
        """The v2 symbol of an order, by the client's id; "" if it is not known."""
        return self.symbol_of_id(self.broker_id(reqid))

    def symbol_of_id(self, order_id: str) -> str:
        """The same by the venue's id."""
        state = self._orders.get(order_id)
        return "" if state is None else state.symbol

    def ended(self, reqid: str) -> BrokerdStatus | None:
        """The last status of an order, by the client's id, if it has ended."""
        state = self._orders.get(self.broker_id(reqid))
        if state is None or not state.ended:
            return None
        return self._status(state, "status")

    # Ages, for the venue's limits

    def changed(self, reqid: str) -> None:
        """An order is made or changed now."""
        self._changed_ns[reqid] = self._now_ns()

    def age_s(self, reqid: str) -> float:
        """How long ago that was at the latest; 0 if nothing is known."""
        now_ns = self._now_ns()
        state = self._orders.get(self.broker_id(reqid))
        told_ns = state.terms_ns if state is not None and state.terms_ns else now_ns
        return (now_ns - self._changed_ns.get(reqid, told_ns)) / NS

    # Rows

    def take(self, row: ExecutionRow, *, snapshot: bool) -> list[BrokerdMessage]:
        """What a row tells, as messages. ValueError: it cannot be understood."""
        for name in _NUMBERS:
            value = getattr(row, name)
            if value is not None:
                exact(value, name)
        state = self._state(row.order_id)
        if row.cl_ord_id:
            state.reqid = row.cl_ord_id
            self._ids[row.cl_ord_id] = row.order_id
            self._awaited.pop(row.cl_ord_id, None)
        unknown = not state.symbol and (not row.symbol or row.order_qty is None)
        doubtful = not state.reqid and self._awaited and not snapshot
        if unknown or doubtful:
            self.held += 1
            self._waiting.append(row)
            del self._waiting[:-_HELD]
            return []
        told: list[BrokerdMessage] = list(self._tell(state, row, snapshot=snapshot))
        if any(each.order_id == row.order_id for each in self._waiting):
            told += self._release()
        return told

    def _state(self, order_id: str) -> OrderState:
        state = self._orders.get(order_id)
        if state is None:
            state = self._orders[order_id] = OrderState(order_id=order_id, executed={})
            self._forget()
        return state

    def _forget(self) -> None:
        """Ended orders beyond those that are remembered, the oldest first."""
        if len(self._orders) <= 2 * _ENDED:
            return
        ended = [each for each in self._orders.values() if each.ended]
        for state in ended[: len(ended) - _ENDED]:
            del self._orders[state.order_id]
            self._ids.pop(state.reqid, None)
            self._changed_ns.pop(state.reqid, None)

    def _release(self) -> list[BrokerdMessage]:
        """Take once more what was held."""
        waiting, self._waiting = self._waiting, []
        told: list[BrokerdMessage] = []
        for row in waiting:
            told += self.take(row, snapshot=False)
        return told

    def _tell(
        self, state: OrderState, row: ExecutionRow, *, snapshot: bool
    ) -> Iterator[BrokerdStatus | BrokerdFill]:
        self._merge_terms(state, row, snapshot=snapshot)
        if row.cum_qty is not None:
            state.told_filled = max(state.told_filled, row.cum_qty)
        if row.exec_type == "trade":
            yield self._fill(state, row)
        self._merge_status(state, row)
        yield self._status(state, row.exec_type)

    def _status(self, state: OrderState, exec_type: str) -> BrokerdStatus:
        filled = state.filled
        return BrokerdStatus(
            time_ns=self._now_ns(),
            reqid=state.reqid,
            status=state.status,
            filled=filled,
            remaining=max(state.size - filled, _ZERO),
            reason=state.reason,
            broker_id=state.order_id,
            broker_details={"exec_type": exec_type},
        )

    def _merge_terms(
        self, state: OrderState, row: ExecutionRow, *, snapshot: bool
    ) -> None:
        """Symbol and side never change; price and size are the newest."""
        state.symbol = state.symbol or row.symbol
        state.side = state.side or row.side
        time_ns = decode_time(row.timestamp) if row.timestamp else state.terms_ns
        if time_ns < state.terms_ns and not snapshot:
            return
        if row.order_qty is not None or row.limit_price is not None:
            state.terms_ns = time_ns
        if row.order_qty is not None:
            state.size = row.order_qty
        if row.limit_price is not None:
            state.price = row.limit_price

    def _merge_status(self, state: OrderState, row: ExecutionRow) -> None:
        status = _STATES.get(row.order_status)
        if row.exec_type in ("filled", "canceled", "expired"):
            status = _STATES[row.exec_type]
        if status is not None and _RANKS[status] > _RANKS[state.status]:
            state.status = status
        if state.status == "canceled":
            reason = row.reason or row.cancel_reason or row.exec_type
            state.reason = state.reason or reason

    def _fill(self, state: OrderState, row: ExecutionRow) -> BrokerdFill:
        if row.last_qty is None or row.last_price is None or not row.exec_id:
            raise ValueError(f"an execution of {row.order_id} without size or price")
        state.executed[row.exec_id] = row.last_qty
        fee, currency = _fee(row)
        details: dict[str, Any] = {"order_id": row.order_id, "trade_id": row.trade_id}
        return BrokerdFill(
            time_ns=self._now_ns(),
            broker_time=decode_time(row.timestamp),
            reqid=state.reqid,
            size=row.last_qty,
            price=row.last_price,
            action=cast(Side, row.side or state.side),
            broker_details=details,
            fill_id=row.exec_id,
            fee=fee,
            fee_currency=currency,
            liquidity=_LIQUIDITY.get(row.liquidity_ind, ""),
            symbol=self._fqme_of(state.symbol),
        )


def _fee(row: ExecutionRow) -> tuple[Decimal | None, str]:
    """The fee of an execution in the currency of its greatest part."""
    if not row.fees:
        return None, ""
    asset = max(row.fees, key=lambda fee: abs(fee.qty)).asset
    same = [fee.qty for fee in row.fees if fee.asset == asset]
    return sum(same, _ZERO), asset.lower()
