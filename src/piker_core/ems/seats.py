"""Clients of a desk: who is there, and who hears of which order.

1. An order's statuses go to the client that sent it. Of a client that is gone, the next
   one that adopts takes over the orders, and hears what that one has not; a client that
   has a name comes back for its own.
2. Who asks something about another's order hears what becomes of it, too.
3. What a client has heard, it says when it asks for more. That is stored with the next
   turn: one that is new hears again what a killed one may not have taken care of.
4. A client whose line was lost may come back: its requests are not counted anew.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from piker_core.ems.database import Database, Session
from piker_core.ems.gateway import Gateway
from piker_core.ems.lifecycle import Dialog
from piker_core.ems.link import Done, Hello, Told, Welcome
from piker_core.ems.turn import Said, Turn
from piker_core.orders import Cancel, Order, Status, Update

NAMED = "name:"
"""What the sessions of clients begin with that have a name of their own."""


class Seat:
    """A client that is there: `deliver` takes what it is told, and must not wait.

    `here`: it is in this process, and leaves with the desk. `heard`: up to which status
    it has taken care of what it was told.
    """

    def __init__(
        self, session: Session, deliver: Callable[[list[Told]], None], *, here: bool
    ) -> None:
        self.session, self.deliver, self.here = session, deliver, here
        self.heard = 0
        self.leaves = False
        """It has said that it does not come back."""
        self.noted = 0
        """What it had heard when that was looked at last."""


class Asked(NamedTuple):
    """A request of a client, and its number; None: cancel all."""

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


class News(NamedTuple):
    """What is to be stored of clients with the next turn."""

    changed: Sequence[Session]
    gone: Sequence[str]
    heard: dict[str, Dialog]


class Seats:
    """The clients of a desk."""

    def __init__(self, database: Database, account: str) -> None:
        self._database, self._account = database, account
        self._gateway: Gateway
        self._seats: dict[str, Seat] = {}
        self._lives: dict[str, str] = {}
        """By session: which client it is that has a seat, or gets one in this turn."""
        self._known = database.sessions()
        self._late: dict[str, Dialog] = {}
        """Orders that have ended and whose client has not heard all of it."""
        self._told: dict[str, dict[str, int]] = {}
        """By session and order: the last status that was told and may not be heard."""
        self._dirty: dict[str, Dialog] = {}
        """Orders of which a client has heard, or that it took over, since stored."""
        self._changed: dict[str, Session] = {}
        self._gone: list[str] = []
        self._watchers: dict[str, set[str]] = {}
        """By order: clients beside its own that asked something about it."""

    def begin(self, gateway: Gateway, ended: Iterable[Dialog]) -> None:
        """These are the orders, as stored. `ended`: those of which not all is told."""
        self._gateway = gateway
        self._late = {dialog.oid: dialog for dialog in ended}
        self._lives = {one: self._lives.get(one, "") for one in self._seats}
        self._dirty.clear()

    # Coming and going

    def admit(self, hello: Hello) -> str:
        """Why a client may not come in, if so; else it is known from now on."""
        mode = self._gateway.mode
        if hello.mode != mode:
            return (
                f"account {self._account!r} is open in {mode} mode, not in "
                f"{hello.mode} mode: name another account"
            )
        life = self._lives.get(hello.session)
        if life is not None and (hello.seq < 0 or hello.life != life):
            name = hello.session.removeprefix(NAMED)
            return f"a client {name!r} is there already"
        session = self._known.get(hello.session) or Session(hello.session)
        if hello.seq < 0:
            session.number = 0
        session.cancels = hello.cancels
        self._known[session.id] = self._changed[session.id] = session
        self._lives[session.id] = hello.life
        return ""

    def let_in(self, entering: Entering) -> None:
        """Give a client its seat, its orders, and what it has missed of them."""
        hello = entering.hello
        seat = Seat(self._known[hello.session], entering.deliver, here=entering.here)
        self._seats[hello.session] = seat
        self._lives[hello.session] = hello.life
        mine = self._orders_of(hello)
        missed: dict[int, Status] = {}
        for dialog in mine:
            after = dialog.told if hello.seq < 0 else hello.seq
            statuses = self._database.statuses(dialog.oid, after)
            missed |= {status.seq: status for status in statuses}
            self._told.setdefault(hello.session, {})[dialog.oid] = dialog.said
        if hello.seq >= 0:
            told = self._database.told_to(hello.session, hello.seq)
            missed |= {status.seq: status for status in told}
        entering.welcomed(seat, self._welcome(seat, mine))
        seat.deliver([missed[seq] for seq in sorted(missed)])

    def _orders_of(self, hello: Hello) -> list[Dialog]:
        """A client's own orders, and those that it takes over."""
        orders = [*self._gateway.living.values(), *self._late.values()]
        mine = [d for d in orders if hello.session in (d.session, d.adopter)]
        if hello.seq < 0 and hello.adopts:
            adopted = [dialog for dialog in orders if self._is_orphan(dialog)]
            for dialog in adopted:
                dialog.adopter = hello.session
                self._dirty[dialog.oid] = dialog
            mine += adopted
        return mine

    def _is_orphan(self, dialog: Dialog) -> bool:
        """Nobody hears of it, and nobody of that name will come back for it."""
        return self._owner(dialog) is None and not dialog.session.startswith(NAMED)

    def _welcome(self, seat: Seat, mine: Iterable[Dialog]) -> Welcome:
        last = [self._last_status(dialog) for dialog in mine if not dialog.ended]
        return Welcome(
            number=seat.session.number,
            seq=self._gateway.seq,
            accounts=[self._account],
            positions=self._gateway.ledger.positions(),
            dialogs=[status for status in last if status is not None],
        )

    def _last_status(self, dialog: Dialog) -> Status | None:
        """The newest status of an order that says how it is."""
        for status in reversed(self._database.statuses(dialog.oid)):
            if status.resp not in ("fill", "error") and status.reqid is not None:
                return status
        return None

    def leave(self, seat: Seat) -> bool:
        """A client is gone; False if it was not there any more."""
        session = seat.session
        if self._seats.get(session.id) is not seat:
            return False
        self._note_heard(seat)
        self._told.pop(session.id, None)
        del self._seats[session.id]
        self._lives.pop(session.id, None)
        if seat.leaves and not session.id.startswith(NAMED):
            self._forget(session)
        return True

    def forsaken(self) -> list[str]:
        """Clients that are not there and whose orders are still to be canceled."""
        owners = {
            dialog.session
            for dialog in self._gateway.living.values()
            if not (dialog.cancel_called or dialog.cancel_waits)
        }
        known = [self._known[one] for one in owners if one in self._known]
        return [one.id for one in known if one.cancels and one.id not in self._seats]

    def _forget_all(self) -> None:
        """Forget clients that are not there."""
        for seat in [one for one in self._seats.values() if one.here]:
            self.leave(seat)
        for session in list(self._known.values()):
            if session.id not in self._seats:
                self._forget(session)

    def _forget(self, session: Session) -> None:
        """Forget a client that is not there, if nothing is to be canceled of it."""
        living = self._gateway.living.values()
        if session.cancels and any(one.session == session.id for one in living):
            return
        self._gone.append(session.id)
        self._known.pop(session.id, None)

    # Asking and hearing

    def is_new(self, asked: Asked) -> bool:
        """Whether a request was not done before; from now on it was."""
        session, request = asked.seat.session, asked.request
        if asked.number <= session.number:
            return False
        session.number = asked.number
        self._changed[session.id] = session
        dialog = self._gateway.living.get(request.oid) if request else None
        if dialog is not None and self._owner(dialog) is not asked.seat:
            self._watchers.setdefault(dialog.oid, set()).add(session.id)
        return True

    def _owner(self, dialog: Dialog) -> Seat | None:
        """The client that hears of an order."""
        return self._seats.get(dialog.session) or self._seats.get(dialog.adopter)

    def tell(self, turn: Turn, answers: Iterable[tuple[Seat, Done]]) -> None:
        """Tell clients what is stored now: statuses, positions, then answers."""
        boxes: dict[str, list[Told]] = {seat_id: [] for seat_id in self._seats}
        for said in turn.said:
            self._tell_status(said, boxes)
        for position in turn.positions.values():
            for box in boxes.values():
                box.append(position)
        for seat, done in answers:
            if self._seats.get(seat.session.id) is seat:
                boxes[seat.session.id].append(done)
        for seat_id, box in boxes.items():
            if box:
                self._seats[seat_id].deliver(box)

    def _tell_status(self, said: Said, boxes: dict[str, list[Told]]) -> None:
        status, dialog, asker = said
        hearers = {asker} | self._watchers.get(status.oid, set())
        if dialog is not None:
            owner = self._owner(dialog)
            if owner is not None:
                hearers.add(owner.session.id)
                told = self._told.setdefault(owner.session.id, {})
                told[dialog.oid] = status.seq
            if dialog.ended:
                self._late[dialog.oid] = dialog
                self._watchers.pop(status.oid, None)
        for hearer in hearers & boxes.keys():
            boxes[hearer].append(status)

    def _note_heard(self, seat: Seat) -> None:
        """Note what a client has heard of the orders that it was told of."""
        if seat.noted == seat.heard:
            return
        seat.noted = seat.heard
        told = self._told.get(seat.session.id, {})
        for oid, seq in list(told.items()):
            dialog = self._gateway.living.get(oid) or self._late.get(oid)
            if dialog is None:
                continue  # it ends in this turn
            heard = min(seat.heard, seq)
            if heard > dialog.told:
                dialog.told = heard
                self._dirty[oid] = dialog
            if heard == seq:
                del told[oid]
            if dialog.ended and dialog.told >= dialog.said:
                self._late.pop(oid, None)

    def take_news(self, *, closing: bool = False) -> News:
        """What is to be stored of clients now. `closing`: those of here leave."""
        for seat in self._seats.values():
            self._note_heard(seat)
        if closing:
            self._forget_all()
        news = News(list(self._changed.values()), self._gone, self._dirty)
        self._changed, self._gone, self._dirty = {}, [], {}
        return news
