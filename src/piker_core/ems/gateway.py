"""All orders of one account, without clock, disk or wire: what comes in, what follows.

1. Whatever comes in changes the gateway at once and leaves what follows from it in
   `turn`: what is to be stored, then done at the broker, then told. Nothing of it may
   be done before it is stored.
2. Every request of a client is answered by a `Status` at least: the order's next one,
   or an "error" that names why. An error about an order that goes on changes nothing.
3. A message of a broker that belongs to no order of ours, or says nothing new, is
   counted. A fill that belongs to none is in the ledger all the same.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from piker_core.ems.ledger import Ledger
from piker_core.ems.lifecycle import Dialog
from piker_core.ems.risk import Refusal, Risk, View, quantized
from piker_core.errors import PikerError
from piker_core.orders import (
    BrokerdCancel,
    BrokerdError,
    BrokerdFill,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdOrderAck,
    BrokerdPosition,
    BrokerdStatus,
    Cancel,
    Order,
    Resp,
    Status,
    Transaction,
    Update,
)
from piker_core.symbols import MktPair

Request = Order | Update | Cancel


class Prices(NamedTuple):
    """What is known of a market's price now; 0 where nothing is."""

    bid: float = 0.0
    ask: float = 0.0
    last: float = 0.0


class Said(NamedTuple):
    """A status, and whom else than the order's own client it is for."""

    status: Status
    dialog: Dialog | None
    asker: str = ""


class _Counted(NamedTuple):
    """What an order counts for among those that may still fill."""

    place: tuple[str, str]
    size: Decimal


class Turn:
    """What follows from what came in since the last time it was taken."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.dirty: dict[str, Dialog] = {}
        self.transactions: list[Transaction] = []
        self.positions: dict[str, BrokerdPosition] = {}
        self.sends: list[BrokerdOrder | BrokerdCancel] = []
        self.to_arm: list[Dialog] = []
        self.to_disarm: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.said or self.dirty or self.transactions or self.sends)


class Around(NamedTuple):
    """What the gateway asks of what is around it."""

    find_market: Callable[[str], MktPair]
    """Raises PikerError for a market that cannot be traded here."""
    prices: Callable[[str], Prices]
    is_used: Callable[[str], bool]
    """Whether an order of this oid ended before."""
    new_reqid: Callable[[], str]
    killed: Callable[[], str]
    now_ns: Callable[[], int]


class Gateway:
    """The orders of one account at one broker. `mode`: "paper" or "live"."""

    def __init__(
        self,
        broker: str,
        account: str,
        *,
        mode: str,
        around: Around,
        risk: Risk,
        ledger: Ledger,
        dialogs: Iterable[Dialog] = (),
        seq: int = 0,
    ) -> None:
        self.broker, self.account, self.mode = broker, account, mode
        self.risk, self.ledger = risk, ledger
        self.living = {dialog.oid: dialog for dialog in dialogs}
        self.by_reqid = {dialog.reqid: dialog for dialog in self.living.values()}
        self.seq = seq
        self.turn = Turn()
        self.counters = dict.fromkeys(
            ("requests", "refused", "fills", "foreign", "repeated", "ignored"), 0
        )
        self._around = around
        self._counted: dict[str, _Counted] = {}
        self._working: dict[tuple[str, str], Decimal] = {}
        self._ended: dict[str, Dialog] = {}
        """Of late, by reqid: for fills that come after the end."""
        for dialog in self.living.values():
            self._touch(dialog)
        self.take_turn()

    def take_turn(self) -> Turn:
        """What follows from what came in; the gateway begins a new one."""
        turn, self.turn = self.turn, Turn()
        return turn

    # ---- requests of clients --------------------------------------------------------

    def ask(self, session: str, request: Request) -> None:
        """An order, an update or a cancel of a client."""
        self.counters["requests"] += 1
        try:
            if isinstance(request, Order):
                self._order(session, request)
            elif isinstance(request, Update):
                self._update(session, request)
            else:
                self._cancel(session, request)
        except PikerError as error:
            self.refuse(session, request, str(error))

    def refuse(self, session: str, request: Request, reason: str) -> None:
        """Answer a request with an error; nothing else happens."""
        self.counters["refused"] += 1
        symbol = request.symbol if isinstance(request, Order | Cancel) else ""
        told = BrokerdError(reason=reason, oid=request.oid, symbol=symbol)
        self._say(None, "error", told, oid=request.oid, asker=session, req=request)

    def _order(self, session: str, order: Order) -> None:
        if order.oid in self.living or self._around.is_used(order.oid):
            raise PikerError(
                f"oid {order.oid!r} was used before: every order has its own"
            )
        self._check_place(order)
        mkt = self._around.find_market(order.symbol)
        order = self._steps(order, mkt)
        self._check_risk(order, mkt, None)
        dialog = Dialog(
            order=order,
            session=session,
            reqid=self._around.new_reqid(),
            state="dark_open" if _is_kept(order) else "pending",
            began_ns=self._around.now_ns(),
        )
        self.living[order.oid] = self.by_reqid[dialog.reqid] = dialog
        if dialog.kept_here:
            self.turn.to_arm.append(dialog)
        else:
            self._send_new(dialog)
        self._say(dialog, dialog.state, None, req=order)

    def _check_place(self, order: Order) -> None:
        """Raises PikerError for an order that belongs to another account or broker."""
        if order.account != self.account:
            raise PikerError(
                f"account {order.account!r} is not the one opened here, {self.account!r}"
            )
        if order.brokers and self.broker not in order.brokers:
            raise PikerError(
                f"brokers {order.brokers} do not include {self.broker!r}, the only one here"
            )
        if order.exec_mode == "paper" and self.mode != "paper":
            raise PikerError(
                'exec_mode "paper" in live mode: open_ems(..., mode="paper") for it'
            )

    def _steps(self, order: Order, mkt: MktPair) -> Order:
        """The order in whole steps of its market. Raises PikerError."""
        result = quantized(order, mkt)
        if isinstance(result, Refusal):
            raise PikerError(result.text)
        return result

    def _check_risk(self, order: Order, mkt: MktPair, updated: Dialog | None) -> None:
        refusal = self.risk.check(order, self._view(order, mkt, updated))
        if refusal is not None:
            raise PikerError(refusal.text)

    def _view(self, order: Order, mkt: MktPair, updated: Dialog | None) -> View:
        """What the rules look at, without the order itself."""
        own = self._counted.get(updated.oid) if updated else None
        prices = self._around.prices(order.symbol)
        now_ns = self._around.now_ns()
        filled = updated.filled if updated else Decimal(0)
        return View(
            position=self.ledger.size(order.symbol),
            buying=self._others(order.symbol, "buy", own),
            selling=self._others(order.symbol, "sell", own),
            open_orders=len(self.living) - (updated is not None),
            bid=_price(prices.bid),
            ask=_price(prices.ask),
            last=_price(prices.last),
            day_profit=self.ledger.day_profit(self._mark, now_ns, order.symbol),
            now_ns=now_ns,
            killed=self._around.killed(),
            multiplier=mkt.multiplier,
            filled=filled,
            is_update=updated is not None,
            is_triggered=updated is not None and updated.state == "triggered",
        )

    def _others(self, symbol: str, side: str, own: "_Counted | None") -> Decimal:
        """What all orders of a side may still fill, one of them aside."""
        working = self._working.get((symbol, side), Decimal(0))
        return working - own.size if own and own.place == (symbol, side) else working

    def _mark(self, symbol: str) -> Decimal | None:
        """The price that a position is worth now."""
        bid, ask, last = self._around.prices(symbol)
        price = (bid + ask) / 2 if bid and ask else last or bid or ask
        return _price(price)

    def _update(self, session: str, update: Update) -> None:
        dialog = self._living(update.oid)
        if dialog.cancel_called or dialog.cancel_waits:
            raise PikerError(f"order {update.oid!r} is being canceled")
        mkt = self._around.find_market(dialog.order.symbol)
        wanted = self._steps(dialog.updated(update), mkt)
        self._check_risk(wanted, mkt, dialog)
        if dialog.kept_here:
            dialog.order = wanted
            self.turn.to_disarm.append(dialog.oid)
            self.turn.to_arm.append(dialog)
            self._say(dialog, "dark_open", None, req=update, asker=session)
        elif wanted.size <= dialog.filled:
            self._ask_cancel(dialog)
        elif dialog.asked:
            dialog.waiting.append(update)
            self._touch(dialog)
        else:
            self._send_update(dialog, wanted)

    def _cancel(self, session: str, cancel: Cancel) -> None:
        dialog = self._living(cancel.oid)
        if dialog.kept_here:
            self.turn.to_disarm.append(dialog.oid)
            self._end(dialog, "canceled", "canceled by the strategy", req=cancel)
        elif dialog.cancel_called or dialog.cancel_waits:
            raise PikerError(f"order {cancel.oid!r} is being canceled already")
        else:
            self._ask_cancel(dialog)

    def _living(self, oid: str) -> Dialog:
        dialog = self.living.get(oid)
        if dialog is None:
            ended = self._around.is_used(oid)
            what = "has ended" if ended else "is unknown"
            raise PikerError(f"order {oid!r} {what}: there is nothing to change")
        return dialog

    def cancel_all(self, session: str | None = None) -> None:
        """Cancel what lives: of one client, or all."""
        for dialog in list(self.living.values()):
            mine = session is None or dialog.session == session
            if mine and not (dialog.cancel_called or dialog.cancel_waits):
                self._cancel("", Cancel(oid=dialog.oid))

    # ---- what goes to the broker ----------------------------------------------------

    def _send_new(self, dialog: Dialog) -> None:
        dialog.asked, dialog.asked_ns = "new", self._around.now_ns()
        self._send_order(dialog, dialog.order)

    def _send_update(self, dialog: Dialog, wanted: Order) -> None:
        dialog.asked, dialog.asked_update = "update", wanted
        dialog.asked_ns = self._around.now_ns()
        self._send_order(dialog, wanted)

    def _send_order(self, dialog: Dialog, order: Order) -> None:
        assert order.action != "alert"
        sent = BrokerdOrder(
            oid=order.oid,
            account=self.account,
            time_ns=dialog.asked_ns,
            symbol=order.symbol,
            price=order.price,
            size=order.size,
            action=order.action,
            reqid=dialog.reqid,
            tif=order.tif,
            post_only=order.post_only,
            reduce_only=order.reduce_only,
        )
        self.turn.sends.append(sent)
        self._touch(dialog)

    def _ask_cancel(self, dialog: Dialog) -> None:
        """Send a cancel, or let it wait for the request that is at the broker."""
        if dialog.asked:
            dialog.cancel_waits = True
        else:
            dialog.asked, dialog.asked_ns = "cancel", self._around.now_ns()
            dialog.cancel_called = True
            cancel = BrokerdCancel(
                oid=dialog.oid,
                time_ns=dialog.asked_ns,
                account=self.account,
                reqid=dialog.reqid,
                symbol=dialog.order.symbol,
            )
            self.turn.sends.append(cancel)
        self._touch(dialog)

    def _answered(self, dialog: Dialog) -> None:
        """The request at the broker has its answer: send what waits."""
        dialog.asked, dialog.asked_update, dialog.unknown = "", None, False
        self._touch(dialog)
        if dialog.ended or dialog.ending:
            return
        if dialog.cancel_waits:
            dialog.cancel_waits = False
            dialog.waiting.clear()
            self._ask_cancel(dialog)
        elif dialog.waiting:
            self._send_waiting(dialog)

    def _send_waiting(self, dialog: Dialog) -> None:
        wanted = dialog.order
        for update in dialog.waiting:
            wanted = msgspec.structs.replace(dialog, order=wanted).updated(update)
        dialog.waiting.clear()
        if wanted.size <= dialog.filled:
            self._ask_cancel(dialog)
            return
        try:
            mkt = self._around.find_market(wanted.symbol)
            self._send_update(dialog, self._steps(wanted, mkt))
        except PikerError as error:
            told = BrokerdError(reason=str(error), oid=dialog.oid, reqid=dialog.reqid)
            self._say(dialog, "error", told)

    def fired(self, oid: str, price: Decimal, time_ns: int) -> None:
        """A trigger was reached, by a trade at this price."""
        dialog = self.living.get(oid)
        if dialog is None or not dialog.hear("trigger"):
            self.counters["ignored"] += 1
            return
        self.turn.to_disarm.append(oid)
        reason = f"a trade at {price} at {time_ns}"
        if dialog.order.action == "alert":
            self._end(dialog, "triggered", reason)
            return
        self._say(dialog, "triggered", None, reason=reason)
        self._cancel_group(dialog)
        try:
            mkt = self._around.find_market(dialog.order.symbol)
            dialog.order = self._steps(dialog.order, mkt)
            self._check_risk(dialog.order, mkt, dialog)
        except PikerError as error:
            dialog.hear("refused")
            told = BrokerdError(reason=str(error), oid=oid, reqid=dialog.reqid)
            self._bury(dialog)
            self._say(dialog, "error", told)
            return
        dialog.hear("send")
        self._send_new(dialog)

    def _cancel_group(self, dialog: Dialog) -> None:
        """One of a group has its turn: the others are canceled."""
        for other in list(self.living.values()):
            same = dialog.order.oco and other.order.oco == dialog.order.oco
            if same and other is not dialog:
                if other.kept_here:
                    self.turn.to_disarm.append(other.oid)
                    reason = f"order {dialog.oid!r} of group {other.order.oco!r} went"
                    self._end(other, "canceled", reason)
                elif not (other.cancel_called or other.cancel_waits):
                    self._ask_cancel(other)

    # ---- what the broker says -------------------------------------------------------

    def heard(self, message: BrokerdMessage) -> None:
        """A message of the broker, whatever came before it."""
        if isinstance(message, BrokerdFill):
            self._fill(message)
        elif isinstance(message, BrokerdStatus):
            self._status(message)
        elif isinstance(message, BrokerdOrderAck):
            self._ack(message)
        elif isinstance(message, BrokerdError):
            self._refused(message)
        else:
            self.counters["ignored"] += 1  # positions are compared by the desk

    def _ack(self, ack: BrokerdOrderAck) -> None:
        dialog = self.by_reqid.get(str(ack.reqid))
        if dialog is None:
            self.counters["foreign"] += 1
            return
        dialog.acked = True
        dialog.broker_id = ack.broker_id or dialog.broker_id
        self._touch(dialog)
        if dialog.asked == "update" and dialog.asked_update is not None:
            self._updated(dialog)
        elif dialog.asked == "new":
            self._answered(dialog)

    def _updated(self, dialog: Dialog) -> None:
        """The broker has taken an update."""
        assert dialog.asked_update is not None
        dialog.order = dialog.asked_update
        if dialog.hear("open"):
            self._say(dialog, "open", None)
        self._answered(dialog)
        self._settle(dialog)

    def _status(self, status: BrokerdStatus) -> None:
        dialog = self.by_reqid.get(str(status.reqid))
        if dialog is None:
            self.counters["foreign"] += 1
            return
        dialog.acked = True
        dialog.broker_id = status.broker_id or dialog.broker_id
        if status.status in ("closed", "canceled"):
            dialog.ending = "closed" if status.status == "closed" else "canceled"
            dialog.ending_filled = max(status.filled, dialog.ending_filled)
            dialog.reason = status.reason or dialog.reason
            self._settle(dialog)
            return
        if status.status == "open" and dialog.asked == "new":
            self._answered(dialog)
        if status.status == "open" and dialog.state == "pending":
            dialog.hear("open")
            self._say(dialog, "open", None)
        else:
            self.counters["repeated"] += 1
        self._touch(dialog)

    def _fill(self, fill: BrokerdFill) -> None:
        dialog = self.by_reqid.get(str(fill.reqid)) or self._ended.get(str(fill.reqid))
        if dialog is None:
            self.counters["foreign"] += 1
            self._record(fill, None)
            return
        news = dialog.fill(fill)
        if not news:
            self.counters["repeated"] += 1
            return
        self._record(fill, dialog)
        self._touch(dialog)
        if news != "fill":
            return
        self.counters["fills"] += 1
        dialog.acked = True
        if dialog.asked == "new":
            self._answered(dialog)
        dialog.hear("fill")
        self._say(dialog, "fill", fill)
        self._cancel_group(dialog)
        self._settle(dialog)

    def _record(self, fill: BrokerdFill, dialog: Dialog | None) -> None:
        """Put a fill into the ledger."""
        sign = 1 if fill.action == "buy" else -1
        symbol = fill.symbol or (dialog.order.symbol if dialog else "")
        if not symbol:
            return
        line = Transaction(
            kind="fill",
            tid=fill.fill_id,
            time_ns=fill.broker_time,
            symbol=symbol,
            size=sign * fill.size,
            price=fill.price,
            fee=fill.fee or Decimal(0),
            fee_currency=fill.fee_currency,
            revision=fill.revision,
            reqid=str(fill.reqid or ""),
            oid=dialog.oid if dialog else "",
        )
        self.book_transactions([line])

    def book_transactions(self, lines: Iterable[Transaction]) -> None:
        """Put lines into the ledger; positions that they change are told."""
        for line in self.ledger.apply(lines):
            self.turn.transactions.append(line)
            self.turn.positions[line.symbol] = self.ledger.position(line.symbol)

    def _settle(self, dialog: Dialog) -> None:
        """End the order if all that it waits for is here."""
        if dialog.ended:
            return
        if dialog.filled >= dialog.order.size and dialog.asked != "update":
            self._end(dialog, "closed")
        elif dialog.ending and dialog.filled >= dialog.ending_filled:
            self._end(dialog, dialog.ending, dialog.reason)
        else:
            self._touch(dialog)

    def _refused(self, error: BrokerdError) -> None:
        dialog = self.by_reqid.get(str(error.reqid)) or self.living.get(error.oid)
        if dialog is None or dialog.kept_here:
            self.counters["foreign"] += 1
            return
        if dialog.asked == "new" and not dialog.acked:
            dialog.hear("refused")
            self._bury(dialog)
        elif not dialog.asked:
            self.counters["ignored"] += 1
            return
        dialog.cancel_called = dialog.cancel_called and dialog.asked != "cancel"
        self._say(dialog, "error", error)
        if not dialog.ended:
            self._answered(dialog)
            self._settle(dialog)

    def not_sent(self, reqid: str, reason: str) -> None:
        """A request was certainly not sent."""
        dialog = self.by_reqid.get(reqid)
        if dialog is not None:
            self._refused(BrokerdError(reason=reason, oid=dialog.oid, reqid=reqid))

    def not_known(self, reqid: str, reason: str) -> None:
        """The broker does not know an order, however often it was asked."""
        dialog = self.by_reqid.get(reqid)
        if dialog is None:
            return
        if dialog.acked:
            dialog.ending, dialog.reason = "canceled", reason
            dialog.ending_filled = dialog.filled
            self._settle(dialog)
        else:
            self.not_sent(reqid, reason)

    def in_doubt(self, reqid: str) -> None:
        """It is not known whether the request at the broker was done."""
        dialog = self.by_reqid.get(reqid)
        if dialog is not None and dialog.asked:
            dialog.unknown = True
            self._touch(dialog)

    def found(self, reqid: str, price: Decimal, size: Decimal) -> None:
        """The broker was asked and has the order so: the answer to what was in doubt."""
        dialog = self.by_reqid.get(reqid)
        if dialog is None or dialog.ended:
            return
        dialog.acked = True
        wanted = dialog.asked_update
        if wanted is not None and (wanted.price, wanted.size) == (price, size):
            self._updated(dialog)
        elif dialog.asked and dialog.unknown:
            if dialog.asked != "new":
                reason = (
                    f"the {dialog.asked} was not done, the broker's answer was lost"
                )
                told = BrokerdError(reason=reason, oid=dialog.oid, reqid=reqid)
                dialog.cancel_called = False
                self._say(dialog, "error", told)
            self._answered(dialog)

    # ---- saying ---------------------------------------------------------------------

    def _touch(self, dialog: Dialog) -> None:
        """It has changed: have it stored, and count anew what it may still fill."""
        self.turn.dirty[dialog.oid] = dialog
        old = self._counted.pop(dialog.oid, None)
        if old is not None:
            self._working[old.place] -= old.size
        if dialog.oid in self.living and dialog.order.action != "alert":
            place = (dialog.order.symbol, dialog.order.action)
            self._counted[dialog.oid] = _Counted(place, dialog.remaining)
            before = self._working.get(place, Decimal(0))
            self._working[place] = before + dialog.remaining

    def _end(
        self, dialog: Dialog, state: Resp, reason: str = "", req: Request | None = None
    ) -> None:
        dialog.state = state
        dialog.reason = reason
        self._bury(dialog)
        self._say(dialog, state, None, reason=reason, req=req)

    def _bury(self, dialog: Dialog) -> None:
        self.living.pop(dialog.oid, None)
        self.by_reqid.pop(dialog.reqid, None)
        self._ended[dialog.reqid] = dialog
        if len(self._ended) > 4096:
            del self._ended[next(iter(self._ended))]
        self._touch(dialog)

    def _say(
        self,
        dialog: Dialog | None,
        resp: Resp,
        message: BrokerdMessage | None,
        *,
        oid: str = "",
        asker: str = "",
        reason: str = "",
        req: Request | None = None,
    ) -> None:
        """Put a status into the turn: of an order, or of a request that has none."""
        self.seq += 1
        now_ns = self._around.now_ns()
        if dialog is not None and message is None:
            message = BrokerdStatus(
                time_ns=now_ns,
                reqid=dialog.reqid,
                status=_BROKERS[resp],
                filled=dialog.filled,
                remaining=dialog.remaining,
                reason=reason,
                broker_id=dialog.broker_id,
            )
        status = Status(
            time_ns=now_ns,
            oid=dialog.oid if dialog else oid,
            resp=resp,
            reqid=dialog.reqid if dialog else None,
            req=req,
            src=self.broker if dialog and dialog.acked else "ems",
            cancel_called=bool(dialog and dialog.cancel_called),
            brokerd_msg=message,
            seq=self.seq,
        )
        self.turn.said.append(Said(status, dialog, asker))
        if dialog is not None:
            dialog.said = self.seq
            self._touch(dialog)


_BROKERS: dict[Resp, Any] = {
    **dict.fromkeys(("pending", "dark_open", "triggered"), "pending"),
    **dict.fromkeys(("open", "fill"), "open"),
    "closed": "closed",
    "canceled": "canceled",
    "error": "canceled",
}


def _is_kept(order: Order) -> bool:
    """Whether an order waits here for its trigger."""
    stops = order.stop is not None or order.trail is not None
    return order.action == "alert" or order.exec_mode == "dark" or stops


def _price(price: float) -> Decimal | None:
    """A price of a tick as it prints; None: there is none."""
    return Decimal(repr(price)) if price else None
