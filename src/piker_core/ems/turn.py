"""What follows from what comes in: a turn, and the orders that it is about."""

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

    @property
    def worth(self) -> Decimal | None:
        """What a position is worth now; None: it is not known."""
        middle = (self.bid + self.ask) / 2 if self.bid and self.ask else 0.0
        return _price(middle or self.last or self.bid or self.ask)


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
        self.notes: dict[str, str] = {}
        """What the broker's side wants noted."""

    def __bool__(self) -> bool:
        lists = self.said or self.dirty or self.transactions or self.sends
        return bool(lists or self.notes)


class Around(NamedTuple):
    """What the gateway asks of what is around it."""

    find_market: Callable[[str], MktPair]
    """Raises PikerError for a market that cannot be traded here."""
    prices: Callable[[str], Prices]
    is_used: Callable[[str], bool]
    """Whether an order of this oid ended before."""
    note: Callable[[str], str]
    """What was noted of a key; empty if nothing was."""
    new_reqid: Callable[[], str]
    killed: Callable[[], str]
    now_ns: Callable[[], int]


class Orders:
    """The orders of one account, and what is common to all that happens to them."""

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
            is_sent=updated is not None and not updated.kept_here,
            is_triggered=updated is not None and updated.is_triggered,
        )

    def _others(self, symbol: str, side: str, own: "_Counted | None") -> Decimal:
        """What all orders of a side may still fill, one of them aside."""
        working = self._working.get((symbol, side), Decimal(0))
        return working - own.size if own and own.place == (symbol, side) else working

    def _mark(self, symbol: str) -> Decimal | None:
        """The price that a position is worth now."""
        return self._around.prices(symbol).worth

    # ---- what goes to the broker ----------------------------------------------------

    def _send_new(self, dialog: Dialog) -> None:
        dialog.asked, dialog.asked_ns = "new", self._around.now_ns()
        self._send_order(dialog, dialog.order)

    def _send_update(self, dialog: Dialog, wanted: Order) -> None:
        dialog.asked, dialog.asked_update = "update", wanted
        dialog.changed = True
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
            is_change=dialog.asked == "update",
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
            self._send_cancel(dialog)
        self._touch(dialog)

    def _send_cancel(self, dialog: Dialog) -> None:
        cancel = BrokerdCancel(
            oid=dialog.oid,
            time_ns=dialog.asked_ns,
            account=self.account,
            reqid=dialog.reqid,
            symbol=dialog.order.symbol,
        )
        self.turn.sends.append(cancel)

    def _answered(self, dialog: Dialog) -> None:
        """The request at the broker has its answer: send what waits."""
        dialog.asked, dialog.asked_update, dialog.unknown = "", None, False
        dialog.answered_ns = self._around.now_ns()
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
            if killed := self._around.killed():
                raise PikerError(f"kill: {killed}")
            mkt = self._around.find_market(wanted.symbol)
            self._send_update(dialog, self._steps(wanted, mkt))
        except PikerError as error:
            told = BrokerdError(reason=str(error), oid=dialog.oid, reqid=dialog.reqid)
            update = Update(oid=dialog.oid, price=wanted.price, size=wanted.size)
            self._say(dialog, "error", told, req=update)

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

    # ---- saying ---------------------------------------------------------------------

    def _touch(self, dialog: Dialog) -> None:
        """It has changed: have it stored, and count anew what it may still fill."""
        self.turn.dirty[dialog.oid] = dialog
        old = self._counted.pop(dialog.oid, None)
        if old is not None:
            self._working[old.place] -= old.size
        if dialog.oid in self.living and dialog.order.action != "alert":
            place = (dialog.order.symbol, dialog.order.action)
            size = _most(dialog)
            self._counted[dialog.oid] = _Counted(place, size)
            self._working[place] = self._working.get(place, Decimal(0)) + size

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


def _most(dialog: Dialog) -> Decimal:
    """What an order may still fill, with the updates that are under way."""
    sizes = [update.size for update in dialog.waiting if update.size is not None]
    if dialog.asked_update is not None:
        sizes.append(dialog.asked_update.size)
    return max([dialog.remaining, *(size - dialog.filled for size in sizes)])


def _price(price: float) -> Decimal | None:
    """A price of a tick as it prints; None: there is none."""
    return Decimal(repr(price)) if price else None
