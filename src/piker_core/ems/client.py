"""A strategy's end: requests out, statuses in, over any line to the gateway.

Requests are numbered. One that is not done when a line is lost is said again over the
next one, under its number, by which the gateway knows what it has done already.
"""

import math
import uuid
from collections import deque
from decimal import Decimal
from typing import Literal, Protocol

import msgspec
import trio

from piker_core.ems.link import (
    UNREADABLE,
    Ask,
    Done,
    Hello,
    Told,
    Welcome,
    decode_asked,
)
from piker_core.errors import OrderError, PikerError
from piker_core.orders import BrokerdPosition, Cancel, Order, Status, Update

Number = Decimal | str | float
Positions = dict[tuple[str, str], dict[str, BrokerdPosition]]
Message = Status | BrokerdPosition


class Line(Protocol):
    """A way to the gateway. Nothing of it waits but `leave`."""

    def post(self, number: int, request: Order | Update | Cancel | None) -> None:
        """Say a request; None: cancel all."""

    def heard(self, seq: int) -> None:
        """Say up to which status the strategy has taken them."""

    async def leave(self) -> None:
        """Wait until all is said, and done that is to be done when a client leaves."""


class Messages(trio.abc.ReceiveChannel[Message]):
    """What the gateway says, in order, none lost.

    Who asks for a message has taken care of the one before: what was not asked for is
    told again to who comes after a strategy that was killed.
    """

    def __init__(self) -> None:
        self._sink, self._stream = trio.open_memory_channel[Message](math.inf)
        self._seqs: deque[int] = deque()
        self._taken = 0
        self.heard = 0
        """Up to which status they are taken care of."""
        self.line: Line | None = None

    def put(self, message: Message, seq: int) -> None:
        """One more; `seq`: the last status by then. None goes to a closed stream."""
        try:
            self._sink.send_nowait(message)
        except trio.BrokenResourceError:
            return
        self._seqs.append(seq)

    def receive_nowait(self) -> Message:
        """The next message. Raises trio.WouldBlock if there is none."""
        self.settle(self._taken)
        message = self._stream.receive_nowait()
        self._taken = self._seqs.popleft()
        return message

    async def receive(self) -> Message:
        """The next message, when there is one."""
        self.settle(self._taken)
        message = await self._stream.receive()
        self._taken = self._seqs.popleft()
        return message

    def settle(self, seq: int) -> None:
        """All up to here are taken care of."""
        if seq > self.heard:
            self.heard = seq
            if self.line is not None:
                self.line.heard(seq)

    async def aclose(self) -> None:
        """Nothing more is wanted."""
        await self._stream.aclose()


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
        mode: Literal["paper", "live"],
    ) -> None:
        self.session, self.symbols, self.mode = session, symbols, mode
        self.cancels, self.adopts = cancels, adopts
        self._life = uuid.uuid4().hex
        self.positions: Positions = {}
        self.dialogs: dict[str, Status] = {}
        self.accounts: list[str] = []
        self.opened = trio.Event()
        """It was let in, or `refused`, for this reason."""
        self.refused = ""
        self.stream = Messages()
        self._line: Line | None = None
        self._pending: dict[int, _Pending] = {}
        self._number = 0
        self._news = trio.Event()
        self._seq = -1
        self._closed = False

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
        if self._closed:
            raise PikerError("this client has left its gateway: open_ems() again")
        request = _readable(request)
        self._number += 1
        pending = self._pending[self._number] = _Pending(request)
        if self._line is not None:
            self._line.post(self._number, request)
        return pending

    async def _done(self, pending: _Pending) -> None:
        await pending.done.wait()
        if pending.error:
            raise PikerError(pending.error)

    async def flush(self) -> None:
        """Wait until every request so far is done."""
        for pending in list(self._pending.values()):
            await pending.done.wait()

    async def leave(self, *, settled: bool, sent: bool) -> None:
        """Say what is to be said at the end. `settled`: no more is to be told again.

        `sent`: orders are waited for until the broker has heard of them.
        """
        if settled:
            self.stream.settle(self._seq)
        await self.flush()
        while sent and any(one.resp == "pending" for one in self.dialogs.values()):
            self._news = trio.Event()
            await self._news.wait()
        if settled:
            self.stream.settle(self._seq)
        if self._line is not None:
            await self._line.leave()

    def close(self) -> None:
        """No gateway will be there any more: what is not done never will be."""
        self._closed = True
        for pending in self._pending.values():
            pending.error = "the gateway has ended; it is not known if this was done"
            pending.done.set()
        self._pending.clear()

    # The line

    def hello(self) -> Hello:
        """What a line begins with."""
        return Hello(
            session=self.session,
            seq=self._seq,
            cancels=self.cancels,
            adopts=self.adopts,
            symbols=self.symbols,
            mode=self.mode,
            life=self._life,
        )

    def welcome(self, welcome: Welcome, line: Line) -> None:
        """The gateway has let this client in: say again what it has not done."""
        self.accounts[:] = welcome.accounts
        for position in welcome.positions:
            self._hold(position)
        self.dialogs |= {status.oid: status for status in welcome.dialogs}
        self._seq = max(self._seq, 0)
        self._line = self.stream.line = line
        line.heard(self.stream.heard)
        for number in sorted(self._pending):
            if number <= welcome.number:
                self._pending.pop(number).done.set()
            else:
                line.post(number, self._pending[number].request)
        self.opened.set()

    def refuse(self, reason: str) -> None:
        """The gateway does not let this client in."""
        self.refused = reason
        self.opened.set()

    def line_lost(self) -> None:
        """Nothing more comes over the line; requests wait for the next one."""
        self._line = self.stream.line = None

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
            self.stream.put(message, self._seq)
        self._news.set()

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


def _readable(
    request: Order | Update | Cancel | None,
) -> Order | Update | Cancel | None:
    """A request as the gateway reads it. Raises OrderError if it cannot."""
    if request is None:
        return None
    try:
        ask = decode_asked(msgspec.msgpack.encode(Ask(1, request)))
    except (*UNREADABLE, UnicodeEncodeError, TypeError, OverflowError) as error:
        raise OrderError(f"{request!r:.200} cannot be sent: {error}") from None
    assert isinstance(ask, Ask)
    return ask.request


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
