"""What Kraken says of orders, put into the words of orders and kept for the reader.

1. Answers tell whether a request was taken; what became of an order is told by the
   stream. Both are told as they come, in the order in which they come.
2. A cancel that came too late is looked up: the reader hears what the order is.
3. What is not understood is counted, logged once of its kind, and left.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Sequence

import trio

from piker_core.broker import BrokerLink, BrokerOrder
from piker_core.errors import ProviderError
from piker_core.orders import (
    BrokerdCancel,
    BrokerdError,
    BrokerdFill,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdOrderAck,
)

from .account_facts import AccountFacts
from .engine_limits import EngineLimits
from .order_errors import explain, judge_error
from .order_requests import Note
from .order_states import OrderStates
from .private_link import Asked
from .private_wire import (
    BalancesFrame,
    ExecutionsFrame,
    Heartbeat,
    PrivateFrame,
    Result,
    decode_results,
)
from .wire import StatusFrame

log = logging.getLogger("providers.kraken.broker")

Message = BrokerdMessage | BrokerLink


class OrderMessages:
    """A dialog's messages: the host of its private connection (`LinkHost`).

    `counts` is what the dialog counts; `received` is where its reader takes them.
    """

    def __init__(
        self,
        account: str,
        *,
        facts: AccountFacts,
        states: OrderStates,
        limits: EngineLimits,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._account = account
        self._facts, self._states, self._limits = facts, states, limits
        self._send, self.received = trio.open_memory_channel[Message](math.inf)
        self._doubts, self._doubted = trio.open_memory_channel[Note](math.inf)
        self._told_up = False

    # For the dialog

    def say(self, messages: Sequence[Message]) -> None:
        """Tell the reader."""
        for message in messages:
            if isinstance(message, BrokerdFill):
                self.counts["fills"] += 1
            self._send.send_nowait(message)

    def refuse(self, request: BrokerdOrder | BrokerdCancel, reason: str) -> None:
        """Tell that a request was not sent, and why."""
        self.counts["refused_here"] += 1
        error = BrokerdError(
            reason=reason,
            oid=request.oid,
            reqid=request.reqid,
            symbol=request.symbol,
        )
        self.say([error])

    def forget(self, notes: Sequence[Note]) -> None:
        """New orders that were certainly not taken."""
        for note in notes:
            if note.kind == "add":
                self.say(self._states.refused(note.reqid))

    async def find(self, reqid: str, *, pending: bool) -> BrokerOrder | None:
        """Ask for an order; `pending`: a request for it is on its way."""
        broker_id = self._states.broker_id(reqid)
        found = await self._facts.order(reqid, broker_id)
        if found is not None:
            self.say(self._states.identify(found.broker_id, reqid))
        elif not pending and not broker_id:
            self.say(self._states.refused(reqid))
        return found

    async def resolve_doubts(self) -> None:
        """Look up, for ever, what became of orders whose cancels came too late."""
        async for note in self._doubted:
            told = self._states.ended(note.reqid)
            if told is not None:
                self.say([told])
                continue
            try:
                found = await self.find(note.reqid, pending=False)
            except ProviderError as problem:
                log.warning("order %s cannot be looked up: %s", note.reqid, problem)
                found = None
            if found is None or found.status in ("pending", "open"):
                self._tell_refusal(note, "EOrder:Unknown order")
            else:
                self.say([self._facts.status_of(found)])

    # What the connection tells

    def take(self, frame: PrivateFrame, raw: bytes) -> None:
        """Orders and balances."""
        if isinstance(frame, ExecutionsFrame):
            self._take_executions(frame, raw)
        elif isinstance(frame, BalancesFrame):
            self.say(self._facts.take_balances(frame))
        elif isinstance(frame, StatusFrame):
            for status in frame.data:
                log.info("kraken's engine is %s", status.system)
        elif not isinstance(frame, Heartbeat):
            self.complain("unknown_frames", "a frame of an unknown channel", raw)

    def _take_executions(self, frame: ExecutionsFrame, raw: bytes) -> None:
        """A row that is not understood is left; those beside it are taken."""
        for row in frame.data:
            symbol = row.symbol or self._states.symbol_of_id(row.order_id)
            if row.ratecount is not None and symbol:
                self._limits.adopt(symbol, row.ratecount)
            try:
                told = self._states.take(row, snapshot=frame.type == "snapshot")
            except ValueError as error:
                text = f"an event of an order was not understood: {error}"
                self.complain("malformed", text, raw)
            else:
                self.say(told)

    def answered(self, asked: Asked) -> None:
        """The answer to a request about orders, whoever waits for it or not."""
        answer, notes = asked.answer, asked.notes
        assert answer is not None
        if not answer.success:
            for note in notes:
                self._refused(note, answer.error)
            return
        results = decode_results(answer)
        if asked.method == "batch_cancel":
            self._canceled(notes, results)
            return
        if len(results) != len(notes):
            text = f"{len(results)} results of {len(notes)} in an answer"
            raise ProviderError(text, frame=bytes(answer.result))
        for note, result in zip(notes, results, strict=True):
            if result.error:
                self._refused(note, result.error)
            else:
                self._taken(note, result)

    def _canceled(self, notes: Sequence[Note], results: Sequence[Result]) -> None:
        """A batch of cancels: the venue says how many were, not which."""
        count = results[0].count if results else 0
        self.counts["cancels"] += count
        for note in notes:
            note.outcome = "taken"
            if count < len(notes):
                self._doubts.send_nowait(note)

    def _taken(self, note: Note, result: Result) -> None:
        note.outcome = "taken"
        if note.kind == "cancel":
            self.counts["cancels"] += 1
            return
        self.counts["acks"] += 1
        held: Sequence[Message] = ()
        if note.kind == "add" and result.order_id:
            held = self._states.identify(result.order_id, note.reqid)
        ack = BrokerdOrderAck(
            reqid=note.reqid,
            oid=note.oid,
            account=self._account,
            broker_id=result.order_id or self._states.broker_id(note.reqid),
            time_ns=time.time_ns(),
        )
        self.say([ack, *held])

    def _refused(self, note: Note, error: str) -> None:
        kind = judge_error(error)
        if kind == "unknown":
            note.outcome = "unknown"
            return
        self.forget([note])
        if kind == "session":
            note.outcome = "session"
            return
        note.outcome = "refused"
        self.counts["refusals"] += 1
        if kind == "throttled":
            self.counts["throttled"] += 1
            self._limits.full(note.venue_symbol)
        if kind == "gone" and note.kind == "cancel":
            self._doubts.send_nowait(note)
        else:
            self._tell_refusal(note, error)

    def _tell_refusal(self, note: Note, error: str) -> None:
        refusal = BrokerdError(
            reason=explain(error),
            oid=note.oid,
            reqid=note.reqid,
            symbol=note.symbol,
            broker_details={"error": error},
        )
        self.say([refusal])

    def subscribed(self, maxratecount: int | None) -> None:
        """All channels are there, and their snapshots are told."""
        if maxratecount is not None:
            self._limits.tell_threshold(maxratecount)
        self._tell_link(up=True)

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        self._tell_link(up=False, reason=reason)

    def missed(self, reason: str) -> None:
        """Something was lost of a channel, which is subscribed to anew."""
        self.counts["jumps"] += 1
        self._tell_link(up=False, reason=reason)

    def complain(self, kind: str, text: str, frame: object) -> None:
        """Count it, and log the first of its kind."""
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            log.warning("%s; more are counted only: %.300r", text, frame)

    def _tell_link(self, *, up: bool, reason: str = "") -> None:
        if up != self._told_up:
            self._told_up = up
            self.say([BrokerLink(up=up, reason=reason)])
