"""Clients of a desk: who is there, and who hears of which order.

1. An order's statuses go to the client that sent it. Of a client that is gone, the next
   one that adopts takes over the orders, and hears what that one has not; a client that
   has a name comes back for its own.
2. Who asks something about another's order hears what becomes of it, too.
3. What a client has heard is stored with the next turn: one that is back by itself says
   up to where it has heard; one that is new may hear again what a killed one did.
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

    `here`: it is in this process, and leaves with the desk.
    """

    def __init__(
        self, session: Session, deliver: Callable[[list[Told]], None], *, here: bool
    ) -> None:
        self.session, self.deliver, self.here = session, deliver, here


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
        self._known = database.sessions()
        self._adopted: dict[str, str] = {}
        self._late: dict[str, Dialog] = {}
        """Orders that have ended and whose client has not heard all of it."""
        self._heard: dict[str, Dialog] = {}
        """Orders of which a client has heard since they were stored."""
        self._changed: dict[str, Session] = {}
        self._gone: list[str] = []
        self._watchers: dict[str, set[str]] = {}
        """By order: clients beside its own that asked something about it."""

    def begin(self, gateway: Gateway, ended: Iterable[Dialog]) -> None:
        """These are the orders, as stored. `ended`: those of which not all is told."""
        self._gateway = gateway
        self._late = {dialog.oid: dialog for dialog in ended}
        self._heard.clear()

    # Coming and going

    def admit(self, hello: Hello) -> bool:
        """Whether a client may come in; it is known from now on."""
        if hello.session in self._seats and hello.seq < 0:
            return False
        session = self._known.get(hello.session) or Session(hello.session)
        if hello.seq < 0:
            session.number = 0
        session.cancels = hello.cancels
        self._known[session.id] = self._changed[session.id] = session
        return True

    def let_in(self, entering: Entering) -> None:
        """Give a client its seat, its orders, and what it has missed of them."""
        hello = entering.hello
        seat = Seat(self._known[hello.session], entering.deliver, here=entering.here)
        self._seats[hello.session] = seat
        mine = self._orders_of(hello)
        missed: dict[int, Status] = {}
        for dialog in mine:
            after = dialog.told if hello.seq < 0 else hello.seq
            statuses = self._database.statuses(dialog.oid, after)
            missed |= {status.seq: status for status in statuses}
            if statuses:
                dialog.told = statuses[-1].seq
                self._heard[dialog.oid] = dialog
            self._late.pop(dialog.oid, None)
        if hello.seq >= 0:
            told = self._database.told_to(hello.session, hello.seq)
            missed |= {status.seq: status for status in told}
        entering.welcomed(seat, self._welcome(seat, mine))
        seat.deliver([missed[seq] for seq in sorted(missed)])

    def _orders_of(self, hello: Hello) -> list[Dialog]:
        """A client's own orders, and those that it takes over."""
        orders = [*self._gateway.living.values(), *self._late.values()]
        mine = [dialog for dialog in orders if dialog.session == hello.session]
        if hello.seq < 0 and hello.adopts:
            adopted = [dialog for dialog in orders if self._is_orphan(dialog)]
            self._adopted.update((d.oid, hello.session) for d in adopted)
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
        del self._seats[session.id]
        self._gone.append(session.id)
        self._known.pop(session.id, None)
        return True

    def forsaken(self) -> list[str]:
        """Clients that did not come back and whose orders are to be canceled."""
        known = self._known.values()
        return [one.id for one in known if one.cancels and one.id not in self._seats]

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
        seat = self._seats.get(dialog.session)
        return seat or self._seats.get(self._adopted.get(dialog.oid, ""))

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
                dialog.told = status.seq
                self._heard[dialog.oid] = dialog
            elif dialog.ended:
                self._late[dialog.oid] = dialog
            if dialog.ended:
                self._watchers.pop(status.oid, None)
        for hearer in hearers & boxes.keys():
            boxes[hearer].append(status)

    def take_news(self, *, closing: bool = False) -> News:
        """What is to be stored of clients now. `closing`: those of here leave."""
        if closing:
            for seat in [one for one in self._seats.values() if one.here]:
                self.leave(seat)
        news = News(list(self._changed.values()), self._gone, self._heard)
        self._changed, self._gone, self._heard = {}, [], {}
        return news
