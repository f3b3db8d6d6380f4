"""What TWS has said of the orders of one account, and what follows for the gateway.

Rules this file owns:

1. An order is known by the numbers of its client and of itself, by its `permId` where
   it has none (made by hand), and by our name of it, its reference.
2. It is acknowledged when IB has it, not when TWS has: a fill says so, too. A change is
   acknowledged when TWS tells the order as it was wanted.
3. Every status and every execution is passed on as it comes, doubled or early. A fill
   is passed on again, with the same id and revision, once its fee is known.
4. Executions that were asked for are passed on if they are news.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import msgspec
import trio

from piker_core.broker import BrokerOrder
from piker_core.orders import (
    BrokerdError,
    BrokerdFill,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdOrderAck,
    BrokerdStatus,
    Side,
    State,
)

from .order_codes import REJECTED, TAKEN, meaning_of, refusal, state_of
from .order_words import COMBINED, number, read_fill, side_of, size_or_zero

log = logging.getLogger("providers.ib")
_LIVE_EXECUTION = -1
_ENDED = ("closed", "canceled")


class Held:
    """An order as far as it is known.

    `answer` is set when it, or a change of it, was answered, `over` when a cancel was.
    `asked`: "new" or "change" while that is not answered; `canceling` likewise. `word`
    is TWS's for its state. `turn` is held by who changes it.
    """

    def __init__(self, reqid: str, symbol: str) -> None:
        self.reqid, self.symbol, self.oid = reqid, symbol, ""
        self.order_id = self.client_id = self.perm_id = self.con_id = 0
        self.action: Side = "buy"
        self.price = self.size = self.filled = self.average = Decimal(0)
        self.wanted: tuple[Decimal, Decimal] | None = None
        self.status: State = "pending"
        self.word = self.reason = self.label = ""
        self.asked = ""
        self.canceling = False
        self.seen = 0
        self.time_ns = 0
        self.answer, self.over = trio.Event(), trio.Event()
        self.turn = trio.Lock()

    @property
    def broker_id(self) -> str:
        """TWS's lasting number of it."""
        return str(self.perm_id or "")

    @property
    def ended(self) -> bool:
        """Whether nothing more will become of it."""
        return self.status in _ENDED

    def details(self) -> dict[str, Any]:
        """What only TWS knows it by."""
        return {
            "order_id": self.order_id,
            "client_id": self.client_id,
            "perm_id": self.perm_id,
            "word": self.word,
        }

    def described(self) -> BrokerOrder:
        """It as the gateway gets it."""
        return BrokerOrder(
            reqid=self.reqid, broker_id=self.broker_id, symbol=self.symbol,
            status=self.status, action=self.action, price=self.price, size=self.size,
            filled=self.filled, avg_price=self.average, time_ns=self.time_ns,
            reason=self.reason, broker_details=self.details(),
        )  # fmt: skip


class Book:
    """The orders of one account; `take` is told TWS's messages, `emit` ours.

    `symbols` are market names by contract number, `doubts` is told orders that TWS has
    to be asked about. Nothing is waited for and nothing sent.
    """

    def __init__(
        self,
        account: str,
        client_id: int,
        *,
        emit: Callable[[BrokerdMessage], None],
        doubt: Callable[[Held], None],
        counts: Counter[str],
    ) -> None:
        self.account = account
        self.symbols: dict[int, str] = {}
        self.fills: dict[str, BrokerdFill] = {}
        self.round = 0
        self._client_id = client_id
        self._emit_to = emit
        self._doubt = doubt
        self._counts = counts
        self._orders: dict[str, Held] = {}
        self._by_number: dict[tuple[int, int], Held] = {}
        self._by_perm: dict[int, Held] = {}
        self._fees: dict[str, tuple[Decimal, str]] = {}

    # What is known

    def get(self, reqid: str) -> Held | None:
        """The order that we call so."""
        return self._orders.get(reqid)

    def forget(self, held: Held) -> None:
        """TWS does not know it."""
        self._orders.pop(held.reqid, None)
        self._by_number.pop((held.client_id, held.order_id), None)

    def seen(self, since: int) -> list[Held]:
        """The orders that TWS has told since a round."""
        unique = {id(held): held for held in self._all() if held.seen >= since}
        return list(unique.values())

    def _all(self) -> Iterable[Held]:
        yield from self._by_number.values()
        yield from self._by_perm.values()

    def add(self, order: BrokerdOrder, order_id: int, con_id: int) -> Held:
        """A new order that is about to be sent."""
        held = Held(str(order.reqid), order.symbol)
        held.client_id, held.order_id, held.con_id = self._client_id, order_id, con_id
        held.action, held.price, held.size = order.action, order.price, order.size
        held.asked, held.time_ns = "new", time.time_ns()
        held.oid, held.label = order.oid, order.account
        self._orders[held.reqid] = self._by_number[self._client_id, order_id] = held
        return held

    def refuse(self, order: BrokerdOrder, reason: str, *, dead: bool = True) -> None:
        """An order was not taken; `dead`: it was a new one."""
        reqid = str(order.reqid)
        self._say_error(reqid, order.oid, order.symbol, reason)
        if dead:
            self._emit(
                BrokerdStatus(
                    time_ns=time.time_ns(), reqid=reqid, status="canceled",
                    remaining=order.size, reason=reason,
                )
            )  # fmt: skip

    def refuse_cancel(self, reqid: str, oid: str, symbol: str, reason: str) -> None:
        """A cancel was not done."""
        self._say_error(reqid, oid, symbol, reason)

    def repeat(self, held: Held) -> None:
        """Say again what an order is."""
        self._say(held)

    # What TWS says

    def take(self, name: str, arguments: tuple[Any, ...]) -> None:
        """One message."""
        if name == "openOrder":
            self._take_order(*arguments)
        elif name == "orderStatus":
            self._take_status(*arguments)
        elif name == "execDetails":
            self._take_execution(*arguments)
        elif name == "commissionReport":
            self._take_fee(*arguments)
        elif name == "error":
            self._take_error(*arguments)

    def _take_order(self, order_id: int, contract: Any, order: Any, state: Any) -> None:
        if order.whatIf or order.account not in ("", self.account):
            return
        held = self._find(order.clientId, order_id, order.permId)
        if held is None:
            held = Held(order.orderRef, "")
        self._learn(held, order.clientId, order_id, order.permId)
        held.con_id = contract.conId
        held.symbol = held.symbol or self.symbols.get(contract.conId, "")
        if order.orderRef:
            held.reqid = order.orderRef
            self._orders[order.orderRef] = held
        held.action, held.seen = side_of(order.action), self.round
        held.price = size_or_zero(order.lmtPrice)
        held.size = size_or_zero(order.totalQuantity) or held.size
        self._move(held, state.status)
        if held.status == "closed":
            held.filled = max(held.filled, held.size)
        if held.word in TAKEN:
            self._acknowledge(held)
        if held.ended and not held.answer.is_set():
            self._say(held)

    def _take_status(
        self,
        order_id: int,
        word: str,
        filled: float,
        remaining: float,
        average: float,
        perm_id: int,
        parent_id: int,
        last_price: float,
        client_id: int,
        why_held: str,
        *more: Any,
    ) -> None:
        held = self._find(client_id, order_id, perm_id)
        if held is None:
            self._counts["foreign"] += 1
            return
        self._learn(held, client_id, order_id, perm_id)
        self._move(held, word, why_held)
        done = size_or_zero(filled)
        held.filled = max(held.filled, done)
        held.average = number(average) or held.average
        if word in TAKEN and held.asked == "new":
            self._acknowledge(held)
        left = size_or_zero(remaining)
        if not done + left:
            left = held.size
        self._say(held, done, left)

    def _find(self, client_id: int, order_id: int, perm_id: int) -> Held | None:
        """By its lasting number, else by the client's, if that is not another's."""
        held = self._by_perm.get(perm_id) if perm_id else None
        if held is None and order_id:
            held = self._by_number.get((client_id, order_id))
            if held is not None and held.perm_id not in (0, perm_id) and perm_id:
                held = None
        return held

    def _learn(self, held: Held, client_id: int, order_id: int, perm_id: int) -> None:
        held.client_id, held.order_id = client_id, order_id
        held.perm_id = perm_id or held.perm_id
        if order_id:
            self._by_number[client_id, order_id] = held
        if held.perm_id:
            self._by_perm[held.perm_id] = held

    def _move(self, held: Held, word: str, why_held: str = "") -> None:
        state = state_of(word, why_held)
        held.word = word
        if state is None:
            self._complain("status", word)
        elif not held.ended or state in _ENDED:
            held.status = state

    def _acknowledge(self, held: Held) -> None:
        """IB has it; of a change, if it is told as it was wanted."""
        if held.asked == "change" and held.wanted != (held.price, held.size):
            return
        if held.asked:
            held.asked, held.wanted = "", None
            self._counts["acks"] += 1
            self._emit(
                BrokerdOrderAck(
                    reqid=held.reqid, oid=held.oid, account=held.label,
                    broker_id=held.broker_id, time_ns=time.time_ns(),
                )
            )  # fmt: skip
            held.answer.set()

    def _say(
        self, held: Held, filled: Decimal | None = None, left: Decimal | None = None
    ) -> None:
        """What it is now; an ended one answers whatever was asked."""
        filled = held.filled if filled is None else filled
        if not held.reqid:
            self._counts["foreign"] += 1
            return
        self._emit(
            BrokerdStatus(
                time_ns=time.time_ns(), reqid=held.reqid, status=held.status,
                filled=filled, remaining=held.size - filled if left is None else left,
                reason=held.reason, broker_id=held.broker_id,
                broker_details=held.details(),
            )
        )  # fmt: skip
        if held.ended:
            held.asked, held.canceling = "", False
            held.answer.set()
            held.over.set()
        elif held.word == "PendingCancel":
            held.over.set()

    # Executions

    def _take_execution(self, request: int, contract: Any, execution: Any) -> None:
        if execution.acctNumber not in ("", self.account):
            return
        if contract.secType == COMBINED:
            return
        client_id, order_id = execution.clientId, execution.orderId
        held = self._find(client_id, order_id, execution.permId)
        if held is None and execution.orderRef:
            held = self._orders.get(execution.orderRef)
        symbol = self.symbols.get(contract.conId, "")
        reqid = execution.orderRef
        if held is not None:
            symbol, reqid = held.symbol or symbol, held.reqid or reqid
            held.filled = max(held.filled, size_or_zero(execution.cumQty))
            held.average = number(execution.avgPrice) or held.average
            if held.asked == "new":
                self._acknowledge(held)
        known = self.fills.get(execution.execId)
        fill = read_fill(execution, reqid, symbol)
        fill.broker_details["con_id"] = contract.conId
        fill = self._with_fee(fill)
        self.fills[execution.execId] = fill
        if request == _LIVE_EXECUTION or known is None:
            self._counts["fills"] += 1
            self._emit(fill)

    def _take_fee(self, report: Any) -> None:
        paid = number(report.commission)
        if paid is None:
            return
        fee = paid, report.currency.lower()
        before = self._fees.get(report.execId)
        self._fees[report.execId] = fee
        fill = self.fills.get(report.execId)
        if fill is not None and before != fee:
            self.fills[report.execId] = fill = self._with_fee(fill)
            self._emit(fill)

    def _with_fee(self, fill: BrokerdFill) -> BrokerdFill:
        paid, currency = self._fees.get(fill.broker_details["exec_id"], (None, ""))
        if paid is None:
            return fill
        return msgspec.structs.replace(fill, fee=paid, fee_currency=currency)

    # Errors

    def _take_error(self, order_id: int, code: int, text: str) -> None:
        held = self._by_number.get((self._client_id, order_id))
        if held is None:
            return
        meaning = meaning_of(code, canceling=held.canceling)
        reason = refusal(code, text)
        if meaning == "warning":
            self._complain(f"warning {code}", f"order {held.reqid!r}: {reason}")
        elif meaning == "canceled":
            self._end(held, reason)
        elif meaning == "cancel failed":
            held.canceling = False
            self._say_error(held.reqid, held.oid, held.symbol, reason)
            held.over.set()
            self._doubt(held)
        elif meaning == "refused":
            self._refused(held, code, reason)
        else:
            held.reason = reason
            self._complain(f"error {code}", f"order {held.reqid!r}: {reason}")
            self._doubt(held)

    def _refused(self, held: Held, code: int, reason: str) -> None:
        """A new order is dead, a changed one as it was; one that rested has ended."""
        if held.asked == "new":
            self._say_error(held.reqid, held.oid, held.symbol, reason)
            self._end(held, reason)
        elif held.asked == "change":
            held.asked, held.wanted = "", None
            self._say_error(held.reqid, held.oid, held.symbol, reason)
            held.answer.set()
            self._doubt(held)
        elif code == REJECTED and not held.canceling:
            self._end(held, reason)
        else:
            held.canceling = False
            self._say_error(held.reqid, held.oid, held.symbol, reason)
            held.over.set()
            self._doubt(held)

    def _end(self, held: Held, reason: str) -> None:
        held.reason = reason
        if held.status != "closed":
            held.status = "canceled"
        self._say(held)

    def settle(self, held: Held, found: BrokerOrder | None) -> None:
        """TWS was asked about an order in doubt: that is what it knows."""
        reason = held.reason
        if found is None:
            if held.asked == "new":
                self._say_error(held.reqid, held.oid, held.symbol, reason)
            self._end(held, reason or "TWS does not know it any more")
            return
        held.status, held.filled = found.status, max(found.filled, held.filled)
        held.size = found.size or held.size
        if held.ended and held.asked == "new" and held.status == "canceled":
            self._say_error(held.reqid, held.oid, held.symbol, reason)
        held.reason = reason if held.ended else ""
        self._say(held)

    # Out

    def _say_error(self, reqid: str, oid: str, symbol: str, reason: str) -> None:
        self._counts["refusals"] += 1
        self._emit(BrokerdError(reason=reason, oid=oid, reqid=reqid, symbol=symbol))

    def _emit(self, message: BrokerdMessage) -> None:
        self._emit_to(message)

    def _complain(self, kind: str, text: str) -> None:
        """Count it, and log the first of its kind."""
        self._counts[kind] += 1
        if self._counts[kind] == 1:
            log.warning("%s; more of this kind are counted only", text)
