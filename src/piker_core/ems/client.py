"""A strategy's end: requests out, statuses in, over any line to the gateway.

Requests are numbered. One that is not done when a line is lost is said again over the
next one, under its number, by which the gateway knows what it has done already.
"""

import math
from collections.abc import Callable
from decimal import Decimal

import trio

from piker_core.ems.link import Done, Hello, Told, Welcome
from piker_core.errors import OrderError, PikerError
from piker_core.orders import BrokerdPosition, Cancel, Order, Status, Update

Number = Decimal | str | float
Positions = dict[tuple[str, str], dict[str, BrokerdPosition]]
Message = Status | BrokerdPosition


class _Pending:
    """A request that is not done yet."""

    def __init__(self, request: Order | Update | Cancel | None) -> None:
        self.request = request
        self.done = trio.Event()
        self.error = ""


class OrderClient:
    """Sends orders, and requests about them. Made by `open_ems`.

    The forms that are awaited return when the request is on disk, those with `_nowait`
    at once. What becomes of it is in the stream. All raise OrderError for what cannot
    be an order, PikerError where it cannot be stored.
    """

    def __init__(
        self,
        session: str,
        *,
        cancels: bool = False,
        adopts: bool = True,
        symbols: list[str],
    ) -> None:
        self.session, self.symbols = session, symbols
        self.cancels, self.adopts = cancels, adopts
        self.positions: Positions = {}
        self.dialogs: dict[str, Status] = {}
        self.accounts: list[str] = []
        self.opened = trio.Event()
        """It was let in, or `refused`, for this reason."""
        self.refused = ""
        self.sink, self.stream = trio.open_memory_channel[Message](math.inf)
        self._post: Callable[[int, Order | Update | Cancel | None], None] | None = None
        self._pending: dict[int, _Pending] = {}
        self._number = 0
        self._seq = -1

    # Requests

    async def send(self, order: Order) -> None:
        """Send an order."""
        await self._done(self._ask(_checked(order)))

    async def update(
        self,
        oid: str,
        *,
        price: Number | None = None,
        size: Number | None = None,
        stop: Number | None = None,
        trail: Number | None = None,
    ) -> None:
        """Give an order another price, or size; what is None stays."""
        await self._done(self._ask(_update(oid, price, size, stop, trail)))

    async def cancel(self, oid: str) -> None:
        """Cancel an order."""
        await self._done(self._ask(Cancel(oid=oid)))

    async def cancel_all(self) -> None:
        """Cancel every order of the account, those of other clients too."""
        await self._done(self._ask(None))

    def send_nowait(self, order: Order) -> None:
        """`send`, without waiting until it is on disk."""
        self._ask(_checked(order))

    def update_nowait(
        self,
        oid: str,
        *,
        price: Number | None = None,
        size: Number | None = None,
        stop: Number | None = None,
        trail: Number | None = None,
    ) -> None:
        """`update`, without waiting until it is on disk."""
        self._ask(_update(oid, price, size, stop, trail))

    def cancel_nowait(self, oid: str) -> None:
        """`cancel`, without waiting until it is on disk."""
        self._ask(Cancel(oid=oid))

    def _ask(self, request: Order | Update | Cancel | None) -> _Pending:
        self._number += 1
        pending = self._pending[self._number] = _Pending(request)
        if self._post is not None:
            self._post(self._number, request)
        return pending

    async def _done(self, pending: _Pending) -> None:
        await pending.done.wait()
        if pending.error:
            raise PikerError(pending.error)

    async def flush(self) -> None:
        """Wait until every request so far is done."""
        for pending in list(self._pending.values()):
            await pending.done.wait()

    # The line

    def hello(self) -> Hello:
        """What a line begins with."""
        return Hello(
            session=self.session,
            seq=self._seq,
            cancels=self.cancels,
            adopts=self.adopts,
            symbols=self.symbols,
        )

    def welcome(
        self,
        welcome: Welcome,
        post: Callable[[int, Order | Update | Cancel | None], None],
    ) -> None:
        """The gateway has let this client in: say again what it has not done."""
        self.accounts[:] = welcome.accounts
        for position in welcome.positions:
            self._hold(position)
        self.dialogs |= {status.oid: status for status in welcome.dialogs}
        self._seq = max(self._seq, 0)
        self._post = post
        for number in sorted(self._pending):
            if number <= welcome.number:
                self._pending.pop(number).done.set()
            else:
                post(number, self._pending[number].request)
        self.opened.set()

    def refuse(self, reason: str) -> None:
        """The gateway does not let this client in."""
        self.refused = reason
        self.opened.set()

    def line_lost(self) -> None:
        """Nothing more comes over the line; requests wait for the next one."""
        self._post = None

    def deliver(self, messages: list[Told]) -> None:
        """What the gateway says, in order."""
        for message in messages:
            if isinstance(message, Done):
                pending = self._pending.pop(message.number, None)
                if pending is not None:
                    pending.error = message.error
                    pending.done.set()
                continue
            if isinstance(message, BrokerdPosition):
                self._hold(message)
            elif message.seq <= self._seq:
                continue
            else:
                self._seq = message.seq
                self._note(message)
            self.sink.send_nowait(message)

    def _note(self, status: Status) -> None:
        """Keep the newest status; an error about a request changes no order."""
        if not status.about_request or status.oid not in self.dialogs:
            self.dialogs[status.oid] = status

    def _hold(self, position: BrokerdPosition) -> None:
        place = (position.broker, position.account)
        self.positions.setdefault(place, {})[position.symbol] = position


def _checked(order: Order) -> Order:
    if not isinstance(order, Order):
        raise OrderError(f"{order!r:.80} is no Order")
    return order


def _update(
    oid: str,
    price: Number | None,
    size: Number | None,
    stop: Number | None,
    trail: Number | None,
) -> Update:
    update = Update(oid=oid, price=price, size=size, stop=stop, trail=trail)  # type: ignore[arg-type]
    if (price, size, stop, trail) == (None, None, None, None):
        raise OrderError(f"the update of order {oid!r} changes nothing")
    return update
