"""The gateway of one account at work: its turns, its clients, its broker.

1. What comes in is taken in turns: ticks first, then requests and messages in the order
   in which they came. A turn is stored in one commit, in a thread; only then is
   anything of it sent or told.
2. Where a turn cannot be stored (the disk is full), it did not happen: requests are
   answered with an error, the state is read again from what is stored, and what the
   broker said is kept for the next turn.
"""

import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import trio

from piker_core.config import EmsConfig
from piker_core.ems.database import Database, Stored
from piker_core.ems.gateway import Gateway
from piker_core.ems.kill_switch import killed
from piker_core.ems.ledger import Ledger
from piker_core.ems.ledger_rows import open_ledger, reload
from piker_core.ems.lifecycle import Dialog
from piker_core.ems.link import Done
from piker_core.ems.markets import Markets, Ticks
from piker_core.ems.risk import Risk
from piker_core.ems.seats import Asked, Entering, Seat, Seats
from piker_core.ems.turn import Around, Turn
from piker_core.errors import PikerError
from piker_core.orders import (
    BrokerdCancel,
    BrokerdMessage,
    BrokerdOrder,
)

RETRY_S = 1.0
"""How long to wait for a disk that took nothing."""
RETURN_S = 2.0
"""How long a client may take to come back to the next gateway of its account."""
MARK_NS = 60_000_000_000
"""How often prices are noted for the profit of the day: midnight is among the times."""
LOOK_S = 1.0
"""How often ticks are looked at while no order waits for one."""

log = logging.getLogger("piker_core.ems")


class Broker(Protocol):
    """Where orders go: the paper engine, at once, or a venue, after the commit."""

    at_once: bool

    def begin(
        self, dialogs: Sequence[Dialog], ledger: Ledger, note: Callable[[str], str]
    ) -> None:
        """Orders that live, as they are stored; said again after a failed commit.

        `note` reads what was noted in turns.
        """

    def take(self, message: BrokerdOrder | BrokerdCancel) -> Iterable[BrokerdMessage]:
        """Send it; what is known of it at once."""

    def feed(self, ticks: Any) -> Iterable[BrokerdMessage]:
        """Ticks of the markets, in order."""

    def advance(self, now_ns: int) -> Iterable[BrokerdMessage]:
        """What is due by the clock, all ticks until then being fed."""

    def keep(self, dialogs: Mapping[str, Dialog]) -> Iterable[Dialog]:
        """Those of the orders that live, by reqid, of which there is something new."""

    @property
    def due_ns(self) -> int | None:
        """When `advance` is to be called next, if at all."""


Input = Asked | Entering | Seat | Callable[[Gateway], None]
"""A request, a client that comes, one that leaves, or a change from the broker."""


class Desk:
    """The orders of one account, open here and nowhere else."""

    def __init__(
        self,
        database: Database,
        markets: Markets,
        broker: Broker,
        *,
        place: tuple[str, str],
        mode: str,
        risk: Risk,
        config: EmsConfig,
    ) -> None:
        self.database, self.markets, self.broker = database, markets, broker
        self.name, self.account = place
        self.mode, self.risk, self.config = mode, risk, config
        self.folder: Path = database.path.parent
        self.gateway: Gateway
        self._inputs: list[Input] = []
        self._awake = trio.Event()
        self._seats = Seats(database, self.account)
        self._turned = trio.Event()
        self._failed = ""
        self._stored = Turn()
        self._load()

    def _load(self) -> None:
        """Begin with what is stored."""
        dialogs = self.database.dialogs()
        living = [dialog for dialog in dialogs if not dialog.ended]
        self.ledger = open_ledger(
            self.database.connection, self.name, self.account, time.time_ns()
        )
        noted = self.database.note("prices", "{}")
        self._noted = msgspec.json.decode(noted, type=dict[str, Decimal])
        self._marked_ns = 0
        self.ledger.load_prices(self._noted)
        self.markets.describe(self.ledger)
        around = Around(
            find_market=self.markets.find,
            prices=self.markets.prices,
            is_used=self.database.is_used,
            note=self.database.note,
            new_reqid=_new_reqid,
            killed=lambda: killed(self.folder),
            now_ns=time.time_ns,
        )
        self.gateway = Gateway(
            self.name,
            self.account,
            mode=self.mode,
            around=around,
            risk=self.risk,
            ledger=self.ledger,
            dialogs=living,
            seq=self.database.seq(),
        )
        self._seats.begin(self.gateway, [d for d in dialogs if d.ended])
        self.markets.resume(self.database.note("ticks"), living)
        sent = [dialog for dialog in living if not dialog.kept_here]
        self.broker.begin(sent, self.ledger, self.database.note)
        self._is_loaded = True
        if self.broker.at_once:
            self._give_up_sent()

    def _give_up_sent(self) -> None:
        """What was on its way to a broker that forgets, the paper engine, is lost."""
        reason = f"was not sent: {self._failed or 'the gateway ended first'}"
        for dialog in list(self.gateway.living.values()):
            if dialog.asked:
                self.gateway.not_sent(dialog.reqid, reason)

    # ---- what comes in --------------------------------------------------------------

    def put(self, item: Input) -> None:
        """Have something taken in the next turn."""
        self._inputs.append(item)
        self._awake.set()

    def hear(self, message: BrokerdMessage) -> None:
        """A message of the broker."""
        self.put(lambda gateway: gateway.heard(message))

    async def left(self, session: str) -> None:
        """Wait until no order of a client lives."""
        while any(d.session == session for d in self.gateway.living.values()):
            await self._turned.wait()

    async def run(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Take turns until cancelled; then store who has heard what.

        Not after a failure in the midst of a turn: half of one is never stored.
        """
        whole = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look)
                nursery.start_soon(self._forsake)
                task_status.started()
                try:
                    while True:
                        await self._awake.wait()
                        self._awake = trio.Event()
                        await self._take_turn()
                except trio.Cancelled:
                    whole = True
                    raise
        finally:
            if whole:
                await self._close()

    async def _look(self) -> None:
        """Wake for ticks: for each if an order waits for one, else now and then."""
        while True:
            most_s = LOOK_S
            if self.broker.due_ns is not None:
                most_s = min(most_s, max(self.broker.due_ns - time.time_ns(), 0) / 1e9)
            at_ticks = self.broker.at_once and len(self.gateway.living)
            if self.markets.armed or at_ticks:
                await self.markets.ready(most_s)
            else:
                await trio.sleep(most_s)
            self._awake.set()
            await trio.lowlevel.checkpoint()

    async def _forsake(self) -> None:
        """Of clients that do not come back: cancel what they wanted canceled.

        Again, where the broker could not be told, or did not do it.
        """
        while True:
            await trio.sleep(RETURN_S)
            for session in self._seats.forsaken():
                self.put(partial(Gateway.cancel_all, session=session))

    # ---- a turn ---------------------------------------------------------------------

    async def _take_turn(self) -> None:
        inputs, self._inputs = self._inputs, []
        self._ticks()
        answers: list[tuple[Seat, Done]] = []
        arrivals: list[Entering] = []
        for item in inputs:
            self._take(item, answers, arrivals)
            self._follow()
        if not await self._store(inputs, answers):
            return
        turn = self._stored
        self._seats.tell(turn, answers)
        for arrival in arrivals:
            self._seats.let_in(arrival)
        for message in turn.sends:
            self.broker.take(message)
        self._turned.set()
        self._turned = trio.Event()

    def _take(
        self,
        item: Input,
        answers: list[tuple[Seat, Done]],
        arrivals: list[Entering],
    ) -> None:
        if isinstance(item, Asked):
            if self._seats.is_new(item):
                if item.request is None:
                    self.gateway.cancel_all()
                else:
                    self.gateway.ask(item.seat.session.id, item.request)
            answers.append((item.seat, Done(item.number)))
        elif isinstance(item, Entering):
            if why := self._seats.admit(item.hello):
                item.refused(why)
            else:
                arrivals.append(item)
        elif isinstance(item, Seat):
            if self._seats.leave(item) and item.session.cancels:
                self.gateway.cancel_all(item.session.id)
        else:
            item(self.gateway)

    def _ticks(self) -> None:
        """All ticks that there are: to the paper engine, and to triggers, in order."""
        for ticks, fired in self.markets.poll():
            for some in self._parts(ticks):
                self._listen(self.broker.feed(some))
            if fired is not None:
                price = Decimal(repr(fired.price))
                self.gateway.fired(fired.oid, price, fired.time_ns)
                self._follow()
        now_ns = time.time_ns()
        self._listen(self.broker.advance(now_ns))
        if now_ns // MARK_NS != self._marked_ns // MARK_NS:
            self._mark(now_ns)

    def _mark(self, now_ns: int) -> None:
        """Let the ledger know prices by the clock, and keep them."""
        self._marked_ns = now_ns
        self.ledger.day_profits(lambda fqme: self.markets.prices(fqme).worth, now_ns)
        prices = self.ledger.held_prices()
        if prices != self._noted:
            self._noted = prices
            text = msgspec.json.encode(prices).decode()
            self.gateway.turn.notes["prices"] = text

    def _parts(self, ticks: Ticks) -> Iterator[Ticks]:
        """Ticks as they are fed: one by one where orders hang together.

        What one of them fills cancels others, which must not see the next tick.
        """
        living = self.gateway.living.values()
        tied = self.broker.at_once and any(dialog.order.oco for dialog in living)
        step = 1 if tied else max(len(ticks), 1)
        for start in range(0, len(ticks), step):
            yield ticks[start : start + step]

    def _listen(self, messages: Iterable[BrokerdMessage]) -> None:
        for message in messages:
            self.gateway.heard(message)
        self._follow()

    def _follow(self) -> None:
        """Arm and disarm triggers; what goes to the paper engine goes at once."""
        turn = self.gateway.turn
        while turn.to_disarm or turn.to_arm or (turn.sends and self.broker.at_once):
            for oid in turn.to_disarm:
                self.markets.disarm(oid)
            turn.to_disarm.clear()
            arming, turn.to_arm = turn.to_arm, []
            for dialog in arming:
                self._arm(dialog)
            if self.broker.at_once:
                sends, turn.sends = turn.sends, []
                for message in sends:
                    for answer in self.broker.take(message):
                        self.gateway.heard(answer)

    def _arm(self, dialog: Dialog) -> None:
        """Watch for its trigger; where that cannot be, the order ends with an error."""
        try:
            dialog.armed = self.markets.arm(dialog.order)
        except PikerError as error:
            self.gateway.cannot_arm(dialog, str(error))

    async def _store(
        self, inputs: list[Input], answers: list[tuple[Seat, Done]]
    ) -> bool:
        """Commit the turn; False if that failed, and it did not happen."""
        turn = self._stored = self.gateway.take_turn()
        news = self._seats.take_news()
        if not (turn or any(news)):
            return True
        kept = self.broker.keep(self.gateway.by_reqid)
        trailing = self.markets.keep(self.gateway.living)
        for dialog in (*kept, *trailing):
            turn.dirty[dialog.oid] = dialog
        turn.dirty = news.heard | turn.dirty
        notes = turn.notes | {"ticks": self.markets.position}
        stored = Stored(
            turn,
            news.changed,
            news.gone,
            notes,
            marks=self.ledger.take_marks(),
            terms=self.ledger.take_terms(),
        )
        try:
            await self._commit(stored)
        except (sqlite3.Error, OSError) as error:
            await self._undo(inputs, answers, str(error))
            return False
        for symbol in reload(self.database.connection, self.ledger, time.time_ns()):
            turn.positions[symbol] = self.ledger.position(symbol)
        if self._failed:
            log.warning("%s: stores again", self.database.path)
            self._failed = ""
        return True

    async def _commit(self, stored: Stored) -> None:
        """Commit it, even if cancelled meanwhile: what was taken is not lost then."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(
                self.database.commit, stored, self.name, self.account
            )

    async def _undo(
        self, inputs: list[Input], answers: list[tuple[Seat, Done]], why: str
    ) -> None:
        """A turn could not be stored: answer its requests, keep the rest of it."""
        reason = f"{self.database.path} cannot be written: {why}: nothing was done"
        if self._failed != why:
            log.error("%s", reason)
            self._failed = why
        for seat, done in answers:
            seat.deliver([Done(done.number, reason)])
            seat.session.number = done.number  # it is answered, though not stored
        self._inputs[:0] = [item for item in inputs if not isinstance(item, Asked)]
        self._is_loaded = False
        while not self._is_loaded:
            await trio.sleep(RETRY_S)
            try:
                self._load()
            except (sqlite3.Error, OSError) as error:
                log.warning("%s cannot be read: %s", self.database.path, error)
        self._awake.set()

    async def _close(self) -> None:
        """Store who has heard what. A disk that is full now costs a repeat later."""
        if not self._is_loaded:
            return
        news = self._seats.take_news(closing=True)
        turn = self.gateway.take_turn()
        turn.dirty = news.heard | turn.dirty
        notes = {"ticks": self.markets.position}
        try:
            await self._commit(Stored(turn, news.changed, news.gone, notes))
        except (sqlite3.Error, OSError) as error:
            log.error("%s cannot be written: %s", self.database.path, error)


def _new_reqid() -> str:
    """A client order id for a venue: 18 of [0-9a-z], never the same twice."""
    return "pk" + _base36(secrets.randbits(82)).rjust(16, "0")


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = digits[digit] + text
    return text
