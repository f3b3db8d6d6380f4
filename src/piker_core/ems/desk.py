"""The gateway of one account at work: its turns, its clients, its broker.

1. What comes in is taken in turns: ticks first, then requests and messages in the order
   in which they came. A turn is stored in one commit, in a thread; only then is
   anything of it sent or told.
2. Where a turn cannot be stored (the disk is full), it did not happen: requests are
   answered with an error, the state is read again from what is stored, and what the
   broker said is kept for the next turn.
3. An order's statuses go to the client that sent it. Of a client that is gone, the next
   new one takes over the orders, and hears what that one has not.
"""

import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import trio

from piker_core.config import EmsConfig
from piker_core.ems.database import Database, Session, Stored
from piker_core.ems.gateway import Gateway
from piker_core.ems.kill_switch import killed
from piker_core.ems.ledger import Ledger
from piker_core.ems.ledger_rows import open_ledger, reload
from piker_core.ems.lifecycle import Dialog
from piker_core.ems.link import Done, Hello, Told, Welcome
from piker_core.ems.markets import Markets
from piker_core.ems.risk import Risk
from piker_core.ems.turn import Around, Said, Turn
from piker_core.orders import (
    BrokerdCancel,
    BrokerdMessage,
    BrokerdOrder,
    Cancel,
    Order,
    Status,
    Update,
)

RETRY_S = 1.0
"""How long to wait for a disk that took nothing."""
RETURN_S = 2.0
"""How long a client may take to come back to the next gateway of its account."""
LOOK_S = 1.0
"""How often ticks are looked at while no order waits for one."""

log = logging.getLogger("piker_core.ems")


class Broker(Protocol):
    """Where orders go: the paper engine, at once, or a venue, after the commit."""

    at_once: bool

    def begin(self, dialogs: Sequence[Dialog], ledger: Ledger) -> None:
        """Orders that live, as they are stored; said again after a failed commit."""

    def take(self, message: BrokerdOrder | BrokerdCancel) -> Iterable[BrokerdMessage]:
        """Send it; what is known of it at once."""

    def feed(self, ticks: Any) -> Iterable[BrokerdMessage]:
        """Ticks of the markets, in order."""

    def advance(self, now_ns: int) -> Iterable[BrokerdMessage]:
        """What is due by the clock, all ticks until then being fed."""

    def keep(self, dialogs: Iterable[Dialog]) -> Iterable[Dialog]:
        """Those of these orders of which there is something new to be stored."""

    @property
    def waits(self) -> bool:
        """Whether an order waits for ticks."""

    @property
    def due_ns(self) -> int | None:
        """When `advance` is to be called next, if at all."""


class Seat:
    """A client that is there: `deliver` takes what it is told, and must not wait."""

    def __init__(
        self, session: Session, deliver: Callable[[list[Told]], None], *, here: bool
    ) -> None:
        self.session = session
        self.deliver = deliver
        self.here = here
        """It is in this process, and leaves with the desk."""


class Asked(NamedTuple):
    """A request of a client, and its number."""

    seat: Seat
    number: int
    request: Order | Update | Cancel | None


class Entering(NamedTuple):
    """A client that wants to be let in."""

    hello: Hello
    deliver: Callable[[list[Told]], None]
    welcomed: Callable[[Seat, Welcome], None]
    refused: Callable[[str], None]
    here: bool = False


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
        self._seats: dict[str, Seat] = {}
        self._known: dict[str, Session] = {}
        self._adopted: dict[str, str] = {}
        self._late: dict[str, Dialog] = {}
        """Orders that have ended and whose client has not heard all of it."""
        self._heard: dict[str, Dialog] = {}
        """Orders of which a client has heard since they were stored."""
        self._changed: dict[str, Session] = {}
        self._gone: list[str] = []
        self._failed = ""
        self._stored = Turn()
        self._load()

    def _load(self) -> None:
        """Begin with what is stored."""
        dialogs = self.database.dialogs()
        living = [dialog for dialog in dialogs if not dialog.ended]
        self._late = {d.oid: d for d in dialogs if d.ended}
        self.ledger = open_ledger(
            self.database.connection, self.name, self.account, time.time_ns()
        )
        self.markets.describe(self.ledger)
        around = Around(
            find_market=self.markets.find,
            prices=self.markets.prices,
            is_used=self.database.is_used,
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
        self.markets.resume(self.database.note("ticks"), living)
        sent = [dialog for dialog in living if not dialog.kept_here]
        self.broker.begin(sent, self.ledger)

    # ---- what comes in --------------------------------------------------------------

    def put(self, item: Input) -> None:
        """Have something taken in the next turn."""
        self._inputs.append(item)
        self._awake.set()

    def hear(self, message: BrokerdMessage) -> None:
        """A message of the broker."""
        self.put(lambda gateway: gateway.heard(message))

    async def run(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Take turns until cancelled; then store who has heard what."""
        self._known = self.database.sessions()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look)
                nursery.start_soon(self._forsake)
                task_status.started()
                while True:
                    await self._awake.wait()
                    self._awake = trio.Event()
                    await self._take_turn()
        finally:
            with trio.CancelScope(shield=True):
                await self._close()

    async def _look(self) -> None:
        """Wake for ticks: for each if an order waits for one, else now and then."""
        while True:
            most_s = LOOK_S
            if self.broker.due_ns is not None:
                most_s = min(most_s, max(self.broker.due_ns - time.time_ns(), 0) / 1e9)
            if self.markets.waits or self.broker.waits:
                await self.markets.ready(most_s)
            else:
                await trio.sleep(most_s)
            self._awake.set()
            await trio.lowlevel.checkpoint()

    async def _forsake(self) -> None:
        """Of clients that do not come back: cancel what they wanted canceled."""
        await trio.sleep(RETURN_S)
        for one, session in self._known.items():
            if session.cancels and one not in self._seats:
                self.put(partial(Gateway.cancel_all, session=one))

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
        self._tell(turn, answers)
        for arrival in arrivals:
            self._let_in(arrival)
        for message in turn.sends:
            self.broker.take(message)

    def _take(
        self,
        item: Input,
        answers: list[tuple[Seat, Done]],
        arrivals: list[Entering],
    ) -> None:
        if isinstance(item, Asked):
            if item.number > item.seat.session.number:
                item.seat.session.number = item.number
                self._changed[item.seat.session.id] = item.seat.session
                if item.request is None:
                    self.gateway.cancel_all()
                else:
                    self.gateway.ask(item.seat.session.id, item.request)
            answers.append((item.seat, Done(item.number)))
        elif isinstance(item, Entering):
            self._receive(item, arrivals)
        elif isinstance(item, Seat):
            self._leave(item)
        else:
            item(self.gateway)

    def _receive(self, entering: Entering, arrivals: list[Entering]) -> None:
        """Note a client that comes. A new one begins to count at 1."""
        hello = entering.hello
        is_here = hello.session in self._seats or any(
            other.hello.session == hello.session for other in arrivals
        )
        if hello.seq < 0 and is_here:
            entering.refused(
                f"client {hello.session!r} is here already: each has a name of its own"
            )
            return
        session = self._known.get(hello.session)
        if session is None or hello.seq < 0:
            session = Session(hello.session)
        session.cancels = hello.cancels
        self._known[session.id] = self._changed[session.id] = session
        arrivals.append(entering)

    def _ticks(self) -> None:
        """All ticks that there are: to the paper engine, and to triggers, in order."""
        for ticks, fired in self.markets.poll():
            if len(ticks):
                self._listen(self.broker.feed(ticks))
            if fired is not None:
                price = Decimal(repr(fired.price))
                self.gateway.fired(fired.oid, price, fired.time_ns)
                self._follow()
        self._listen(self.broker.advance(time.time_ns()))

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
                dialog.armed = self.markets.arm(dialog.order)
            if self.broker.at_once:
                sends, turn.sends = turn.sends, []
                for message in sends:
                    for answer in self.broker.take(message):
                        self.gateway.heard(answer)

    async def _store(
        self, inputs: list[Input], answers: list[tuple[Seat, Done]]
    ) -> bool:
        """Commit the turn; False if that failed, and it did not happen."""
        turn = self._stored = self.gateway.take_turn()
        changed, self._changed = self._changed, {}
        gone, self._gone = self._gone, []
        if not (turn or changed or gone):
            return True
        for dialog in self.broker.keep(self.gateway.living.values()):
            turn.dirty[dialog.oid] = dialog
        heard, self._heard = self._heard, {}
        turn.dirty = heard | turn.dirty
        notes = {"ticks": self.markets.position}
        marks = self.ledger.take_marks()
        stored = Stored(turn, list(changed.values()), gone, notes, marks)
        try:
            await trio.to_thread.run_sync(
                self.database.commit, stored, self.name, self.account
            )
        except (sqlite3.Error, OSError) as error:
            await self._undo(inputs, answers, str(error))
            return False
        for symbol in reload(self.database.connection, self.ledger, time.time_ns()):
            turn.positions[symbol] = self.ledger.position(symbol)
        if self._failed:
            log.warning("%s: stores again", self.database.path)
            self._failed = ""
        return True

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
        await trio.sleep(RETRY_S)
        self._load()
        self._awake.set()

    async def _close(self) -> None:
        """Store who has heard what. A disk that is full now costs a repeat later."""
        seats = [one for one, seat in self._seats.items() if seat.here]
        turn = self.gateway.take_turn()
        turn.dirty = self._heard | turn.dirty
        stored = Stored(
            turn, (), [*self._gone, *seats], {"ticks": self.markets.position}
        )
        try:
            await trio.to_thread.run_sync(
                self.database.commit, stored, self.name, self.account
            )
        except (sqlite3.Error, OSError) as error:
            log.error("%s cannot be written: %s", self.database.path, error)

    # ---- clients --------------------------------------------------------------------

    def _owner(self, dialog: Dialog) -> Seat | None:
        """The client that hears of an order."""
        seat = self._seats.get(dialog.session)
        return seat or self._seats.get(self._adopted.get(dialog.oid, ""))

    def _tell(self, turn: Turn, answers: list[tuple[Seat, Done]]) -> None:
        """Tell clients what is stored now: statuses, positions, then answers."""
        boxes: dict[str, list[Told]] = {seat_id: [] for seat_id in self._seats}
        for said in turn.said:
            self._tell_status(said, boxes)
        for position in turn.positions.values():
            for box in boxes.values():
                box.append(position)
        for seat, done in answers:
            if seat.session.id in boxes:
                boxes[seat.session.id].append(done)
        for seat_id, box in boxes.items():
            if box:
                self._seats[seat_id].deliver(box)

    def _tell_status(self, said: Said, boxes: dict[str, list[Told]]) -> None:
        status, dialog, asker = said
        owner = self._owner(dialog) if dialog is not None else None
        if dialog is not None and owner is not None:
            boxes[owner.session.id].append(status)
            dialog.told = status.seq
            self._heard[dialog.oid] = dialog
        elif dialog is not None and dialog.ended:
            self._late[dialog.oid] = dialog
        if asker in boxes and (owner is None or owner.session.id != asker):
            boxes[asker].append(status)

    def _let_in(self, entering: Entering) -> None:
        """Give a client its seat, its orders, and what it has missed of them."""
        hello = entering.hello
        session = self._known[hello.session]
        seat = Seat(session, entering.deliver, here=entering.here)
        self._seats[hello.session] = seat
        mine = [d for d in self._all() if d.session == hello.session]
        if hello.seq < 0:
            adopted = [d for d in self._all() if self._owner(d) is None]
            self._adopted.update((d.oid, hello.session) for d in adopted)
            mine += adopted
        missed: list[Status] = []
        for dialog in mine:
            after = dialog.told if hello.seq < 0 else max(hello.seq, 0)
            statuses = self.database.statuses(dialog.oid, after)
            missed += statuses
            if statuses:
                dialog.told = statuses[-1].seq
                self._heard[dialog.oid] = dialog
            self._late.pop(dialog.oid, None)
        if hello.seq >= 0:
            missed += self._refusals(hello, {status.seq for status in missed})
        missed.sort(key=lambda status: status.seq)
        entering.welcomed(seat, self._welcome(seat, mine))
        seat.deliver([*missed])

    def _refusals(self, hello: Hello, known: set[int]) -> list[Status]:
        """What a client that is back has missed beside its living orders."""
        told = self.database.told_to(hello.session, hello.seq)
        return [status for status in told if status.seq not in known]

    def _all(self) -> list[Dialog]:
        return [*self.gateway.living.values(), *self._late.values()]

    def _welcome(self, seat: Seat, mine: Iterable[Dialog]) -> Welcome:
        last = [self._last_status(dialog) for dialog in mine if not dialog.ended]
        return Welcome(
            number=seat.session.number,
            seq=self.gateway.seq,
            accounts=[self.account],
            positions=self.ledger.positions(),
            dialogs=[status for status in last if status is not None],
        )

    def _last_status(self, dialog: Dialog) -> Status | None:
        """The newest status of an order that says how it is."""
        states = [
            status
            for status in self.database.statuses(dialog.oid)
            if status.resp not in ("fill", "error") and status.reqid is not None
        ]
        return states[-1] if states else None

    def _leave(self, seat: Seat) -> None:
        """A client is gone."""
        session = seat.session
        if self._seats.get(session.id) is not seat:
            return
        del self._seats[session.id]
        self._gone.append(session.id)
        self._known.pop(session.id, None)
        if session.cancels:
            self.gateway.cancel_all(session.id)

    def refuse_all(self, reason: str) -> None:
        """Answer what has come in and is not taken any more."""
        for item in self._inputs:
            if isinstance(item, Asked):
                item.seat.deliver([Done(item.number, reason)])


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
