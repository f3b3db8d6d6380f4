"""All orders of one account, without clock, disk or wire: what comes in, what follows.

1. Whatever comes in changes the gateway at once and leaves what follows from it in
   `turn`: what is to be stored, then done at the broker, then told. Nothing of it may
   be done before it is stored.
2. Every request of a client is answered by a `Status` at least: the order's next one,
   or an "error" that names why. An error about an order that goes on changes nothing.
3. A message of a broker that belongs to no order of ours, or says nothing new, is
   counted. A fill that belongs to none is in the ledger all the same.
"""

from decimal import Decimal

import msgspec

from piker_core.ems.lifecycle import Dialog
from piker_core.ems.turn import Orders, Request
from piker_core.errors import PikerError
from piker_core.orders import (
    BrokerdError,
    BrokerdFill,
    BrokerdMessage,
    BrokerdOrderAck,
    BrokerdStatus,
    Cancel,
    Order,
    Update,
)

LATEST = 1 << 62
"""A time that nothing is newer than."""


class Gateway(Orders):
    """The orders of one account at one broker. `mode`: "paper" or "live"."""

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
        if order.oid in self.living or self._is_used(order.oid):
            raise PikerError(
                f"oid {order.oid!r} was used before: every order has its own"
            )
        self._check_place(order)
        self._check_terms(session, order)
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
                f"account {order.account!r} is not the one that is open, "
                f"{self.account!r}"
            )
        if order.brokers and self.broker not in order.brokers:
            raise PikerError(
                f"brokers {order.brokers} do not include {self.broker!r}, "
                "the only one here"
            )
        if order.exec_mode == "paper" and self.mode != "paper":
            raise PikerError(
                'exec_mode "paper" in live mode: open_ems(..., mode="paper") for it'
            )

    def _check_terms(self, session: str, order: Order) -> None:
        """Raises PikerError for terms that do not go together."""
        if order.action == "alert" and _stops(order):
            raise PikerError("an alert has a price alone: leave out stop and trail")
        if order.oco and self._is_gone(_group(session, order)):
            raise PikerError(
                f"group {order.oco!r} has had its fill or trigger: name another"
            )

    def _update(self, session: str, update: Update) -> None:
        dialog = self._living(update.oid)
        if dialog.cancel_called or dialog.cancel_waits:
            raise PikerError(f"order {update.oid!r} is being canceled")
        if not dialog.kept_here and (update.stop, update.trail) != (None, None):
            raise PikerError(
                f"order {update.oid!r} waits for no trigger: it has no stop or trail"
            )
        mkt = self._around.find_market(dialog.order.symbol)
        wanted = self._steps(dialog.updated(update), mkt)
        self._check_risk(wanted, mkt, dialog)
        if dialog.kept_here:
            if _trigger(wanted) != _trigger(dialog.order):
                self.turn.to_arm.append(dialog)
            dialog.order = wanted
            self._say(dialog, "dark_open", None, req=update, asker=session)
        elif dialog.waits_for_link:
            dialog.order = wanted
            self._say(dialog, dialog.state, None, req=update, asker=session)
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
        elif dialog.waits_for_link:
            self._end(dialog, "canceled", "canceled by the strategy", req=cancel)
        elif dialog.cancel_called or dialog.cancel_waits:
            raise PikerError(f"order {cancel.oid!r} is being canceled already")
        else:
            self._ask_cancel(dialog)

    def _is_used(self, oid: str) -> bool:
        """Whether an order of this name was there, stored already or not."""
        return oid in self.turn.dirty or self._around.is_used(oid)

    def _living(self, oid: str) -> Dialog:
        dialog = self.living.get(oid)
        if dialog is None:
            what = "has ended" if self._is_used(oid) else "is unknown"
            raise PikerError(f"order {oid!r} {what}: there is nothing to change")
        return dialog

    def cancel_all(self, session: str | None = None) -> None:
        """Cancel what lives: of one client, or all."""
        for dialog in list(self.living.values()):
            mine = session is None or dialog.session == session
            if mine and not (dialog.cancel_called or dialog.cancel_waits):
                self._cancel("", Cancel(oid=dialog.oid))

    def fired(self, oid: str, price: Decimal, time_ns: int) -> None:
        """A trigger was reached, by a trade at this price."""
        dialog = self.living.get(oid)
        if dialog is None or not dialog.hear("trigger"):
            self.counters["ignored"] += 1
            return
        self.turn.to_disarm.append(oid)
        reason = f"a trade at {price} at {time_ns}"
        if dialog.order.action == "alert":
            self._cancel_group(dialog)
            self._end(dialog, "triggered", reason)
            return
        self._say(dialog, "triggered", None, reason=reason)
        self._send_triggered(dialog)

    def _send_triggered(self, dialog: Dialog) -> None:
        """Send an order whose trigger was reached, if the rules allow it now."""
        try:
            mkt = self._around.find_market(dialog.order.symbol)
            dialog.order = self._steps(dialog.order, mkt)
            self._check_risk(dialog.order, mkt, dialog)
        except PikerError as error:
            dialog.hear("refused")
            told = BrokerdError(reason=str(error), oid=dialog.oid, reqid=dialog.reqid)
            self._bury(dialog)
            self._say(dialog, "error", told, req=dialog.order)
            return
        self._cancel_group(dialog)
        dialog.hear("send")
        self._send_new(dialog)

    def _cancel_group(self, dialog: Dialog) -> None:
        """One of a group has its turn: the others are canceled, and those to come."""
        group = _group(dialog.session, dialog.order)
        if not dialog.order.oco or self._is_gone(group):
            return
        self.turn.notes[group] = "1"
        for other in list(self.living.values()):
            if other is dialog or _group(other.session, other.order) != group:
                continue
            if other.kept_here or other.waits_for_link:
                self.turn.to_disarm.append(other.oid)
                reason = f"order {dialog.oid!r} of group {other.order.oco!r} went"
                self._end(other, "canceled", reason)
            else:
                other.must_cancel = True
                if not (other.cancel_called or other.cancel_waits):
                    self._ask_cancel(other)

    def _is_gone(self, group: str) -> bool:
        """Whether an order of a group was filled or triggered."""
        return bool(self.turn.notes.get(group) or self._around.note(group))

    def try_again(self) -> None:
        """There is a link to the broker: send what waits, cancel what must be."""
        for dialog in list(self.living.values()):
            if dialog.asked or not (dialog.unsent or dialog.must_cancel):
                continue
            again, dialog.unsent = dialog.unsent, False
            if again and not dialog.acked:
                self._send_triggered(dialog)
            elif again or not dialog.ending:
                self._ask_cancel(dialog)

    def cannot_arm(self, dialog: Dialog, reason: str) -> None:
        """An order's trigger cannot be watched for: it ends."""
        if dialog.hear("refused"):
            told = BrokerdError(reason=reason, oid=dialog.oid, reqid=dialog.reqid)
            self._bury(dialog)
            self._say(dialog, "error", told, req=dialog.order)

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

    def _settle(self, dialog: Dialog) -> None:
        """End the order if all that it waits for is here."""
        if dialog.ended:
            return
        if dialog.changed and dialog.filled > dialog.order.size:  # filled meanwhile
            size = dialog.filled
            dialog.order = msgspec.structs.replace(dialog.order, size=size)
        if dialog.filled >= dialog.order.size and not dialog.changed:
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
        if dialog.asked == "new":
            dialog.hear("refused")
            self._bury(dialog)
        elif not dialog.asked:
            self.counters["ignored"] += 1
            return
        dialog.cancel_called = dialog.cancel_called and dialog.asked != "cancel"
        if dialog.ended or dialog.asked != "cancel" or not dialog.must_cancel:
            self._say(dialog, "error", error, req=_asked(dialog))
        if not dialog.ended:
            self._answered(dialog)
            self._settle(dialog)

    def not_sent(self, reqid: str, reason: str, *, down: bool = False) -> None:
        """A request was certainly not sent. `down`: because there is no link.

        What was triggered, and a cancel, then wait for the link; a new order, whose
        price is of now, does not, nor does an update.
        """
        dialog = self.by_reqid.get(reqid)
        if dialog is None:
            return
        triggered = dialog.asked == "new" and _is_kept(dialog.order)
        if down and (triggered or dialog.asked == "cancel"):
            dialog.asked, dialog.unsent = "", True
            self._touch(dialog)
        else:
            self._refused(BrokerdError(reason=reason, oid=dialog.oid, reqid=reqid))

    def not_known(self, reqid: str, reason: str, since_ns: int = LATEST) -> None:
        """The broker, asked after this time, does not know an order."""
        dialog = self.by_reqid.get(reqid)
        if dialog is None or dialog.kept_here or _is_newer(dialog, since_ns):
            return
        if dialog.waits_for_link:
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

    def found(
        self, reqid: str, price: Decimal, size: Decimal, since_ns: int = LATEST
    ) -> None:
        """The broker was asked, after this time, and has an order so.

        What was in doubt is known then. Where nothing is, the broker is believed: a
        change was done after all, or by others.
        """
        dialog = self.by_reqid.get(reqid)
        if dialog is None or dialog.kept_here or _is_newer(dialog, since_ns):
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
                self._say(dialog, "error", told, req=_asked(dialog))
            self._answered(dialog)
        if not dialog.asked:
            self._believe(dialog, price, size)

    def _believe(self, dialog: Dialog, price: Decimal, size: Decimal) -> None:
        """An order is at the broker as nobody here has asked for it, or not lately."""
        order = dialog.order
        if (order.price, order.size) != (price, size):
            dialog.order = msgspec.structs.replace(order, price=price, size=size)
            dialog.changed = True
            reason = f"the broker has it so: {size} at {price}"
            self._say(dialog, dialog.state, None, reason=reason)
            self._settle(dialog)


def _is_newer(dialog: Dialog, since_ns: int) -> bool:
    """Whether something was asked or answered since, which is not in what was found."""
    return max(dialog.asked_ns, dialog.answered_ns) >= since_ns


def _is_kept(order: Order) -> bool:
    """Whether an order waits here for its trigger."""
    return order.action == "alert" or order.exec_mode == "dark" or _stops(order)


def _stops(order: Order) -> bool:
    return order.stop is not None or order.trail is not None


def _trigger(order: Order) -> tuple[str, Decimal | None]:
    """What an order that is kept here waits for."""
    if order.trail is not None:
        return "trail", order.trail
    return ("stop", order.stop) if order.stop is not None else ("price", order.price)


def _group(session: str, order: Order) -> str:
    """The note of a group: groups are those of a client."""
    return f"oco.{session}.{order.oco}" if order.oco else ""


def _asked(dialog: Dialog) -> Request:
    """The request about an order that is at the broker."""
    wanted = dialog.asked_update
    if dialog.asked == "update" and wanted is not None:
        return Update(oid=dialog.oid, price=wanted.price, size=wanted.size)
    return Cancel(oid=dialog.oid) if dialog.asked == "cancel" else dialog.order
