"""The socket of an account's gateway: clients in other processes, and how to be one.

Mode 0600, in the user's runtime folder. Whoever holds the lock of the account listens;
a client whose line ends tries for the lock itself, then for the next one's socket.
"""

import logging
import os
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import trio

from piker_core.control import Link
from piker_core.control_socket import (
    close_in_children,
    listen_at,
    peer_uid,
    remove_socket,
)
from piker_core.ems.client import OrderClient
from piker_core.ems.desk import Desk
from piker_core.ems.link import (
    MOST,
    UNREADABLE,
    VERSION,
    Ask,
    Bye,
    Done,
    Heard,
    Hello,
    Kill,
    Number,
    Refused,
    Told,
    Welcome,
    decode_asked,
    decode_told,
)
from piker_core.ems.seats import Asked, Entering, Seat
from piker_core.errors import PikerError
from piker_core.orders import Cancel, Order, Update
from piker_core.tasks import open_nursery

HELLO_S = 10.0
WELCOME_S = 30.0
"""How long a gateway that takes over may need to read what is stored."""
REFUSAL_S = 1.0
MOST_LINES = 256
_PAUSE_S = 0.1


class _Numbered(msgspec.Struct):
    """As much of a request as it takes to answer it."""

    number: Number


_decode_numbered = msgspec.msgpack.Decoder(_Numbered).decode

log = logging.getLogger("piker_core.ems")


@contextmanager
def listening(name: str) -> Iterator[socket.socket]:
    """The listening socket of a gateway. Raises PikerError, OSError."""
    sock, path = listen_at(name)
    with sock:
        try:
            yield sock
        finally:
            try:
                remove_socket(path)
            except (OSError, PikerError) as error:
                log.warning("the gateway's socket stays: %s", error)


class Server:
    """Lets clients in, for a desk. `most_waiting`: messages one may leave unread."""

    def __init__(self, desk: Desk, most_waiting: int) -> None:
        self._desk, self._most_waiting = desk, most_waiting
        self._lines = 0

    async def run(self, sock: socket.socket) -> None:
        """Serve until cancelled."""
        listener = trio.socket.from_stdlib_socket(sock)
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    accepted, _ = await listener.accept()
                except OSError as error:  # no descriptors are left, or the like
                    log.warning("a client cannot be let in: %s", error)
                    await trio.sleep(_PAUSE_S)
                    continue
                plain = close_in_children(socket.socket(fileno=accepted.detach()))
                if peer_uid(plain) != os.geteuid() or self._lines >= MOST_LINES:
                    plain.close()
                else:
                    self._lines += 1
                    nursery.start_soon(self._serve, Link(plain, MOST))

    async def _serve(self, link: Link) -> None:
        with link:
            try:
                hello = await _hello(link)
                if hello is not None:
                    await _Line(self._desk, link, self._most_waiting).run(hello)
            except (PikerError, *UNREADABLE) as error:
                log.warning("a client of the gateway: %s", error)
                with trio.move_on_after(REFUSAL_S):
                    await link.send(Refused(reason=str(error)))
            finally:
                self._lines -= 1


async def _hello(link: Link) -> Hello | None:
    """Who a client is. Raises PikerError for one that cannot be served."""
    raw = await link.receive(HELLO_S)
    if raw is None:
        return None
    hello = decode_asked(raw)
    if not isinstance(hello, Hello):
        raise PikerError("a client begins with hello")
    if hello.version > VERSION:
        raise PikerError(f"this gateway speaks version {VERSION}, not {hello.version}")
    return hello


class _Line:
    """One client in another process."""

    def __init__(self, desk: Desk, link: Link, most_waiting: int) -> None:
        self._desk, self._link, self._most = desk, link, most_waiting
        self._told: deque[Told | Welcome] = deque()
        self._scope = trio.CancelScope()
        self._awake = trio.Event()
        self._seat: Seat | None = None
        self._entered = trio.Event()
        self._why = ""
        self._caught_up = False
        self._left = False

    async def run(self, hello: Hello) -> None:
        """Until the client is gone. Raises PikerError if it is not let in."""
        entering = Entering(hello, self._deliver, self._welcomed, self._refused)
        self._desk.put(entering)
        try:
            async with open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                nursery.start_soon(self._say)
                await self._entered.wait()
                if self._why:
                    raise PikerError(self._why)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self._left = True
            if self._seat is not None:
                self._desk.put(self._seat)

    def _welcomed(self, seat: Seat, welcome: Welcome) -> None:
        self._seat = seat
        if self._left:
            self._desk.put(seat)
        self._told.append(welcome)
        self._awake.set()
        self._entered.set()

    def _refused(self, reason: str) -> None:
        self._why = reason
        self._entered.set()

    def _deliver(self, messages: list[Told]) -> None:
        """Have it told; one that leaves too much unread is let go.

        What it has missed comes first, however much that is.
        """
        self._told.extend(messages)
        self._awake.set()
        if not self._caught_up:
            self._caught_up = True
            self._most += len(messages)
        elif len(self._told) > self._most and not self._scope.cancel_called:
            log.warning("a client leaves %d messages unread: let go", self._most)
            self._scope.cancel()

    async def _say(self) -> None:
        while True:
            await self._awake.wait()
            self._awake = trio.Event()
            while self._told:
                if not await self._link.send(self._told.popleft()):
                    self._scope.cancel()

    async def _read(self) -> None:
        assert self._seat is not None
        while (raw := await self._link.receive()) is not None:
            try:
                message = decode_asked(raw)
            except UNREADABLE as error:
                self._refuse(raw, str(error))
                continue
            if isinstance(message, Ask):
                self._desk.put(Asked(self._seat, message.number, message.request))
            elif isinstance(message, Kill):
                self._desk.put(Asked(self._seat, message.number, None))
            elif isinstance(message, Heard):
                self._seat.heard = message.seq
            elif isinstance(message, Bye):
                self._seat.leaves = True

    def _refuse(self, raw: bytes, why: str) -> None:
        """Answer a request that cannot be read, if it has a number at all."""
        number = number_of(raw)
        if number is not None:
            self._deliver([Done(number, f"the request cannot be read: {why}")])
        log.warning("a client of the gateway said what cannot be read: %s", why)


def number_of(raw: bytes) -> int | None:
    """The number of a request that cannot be read."""
    try:
        return _decode_numbered(raw).number
    except UNREADABLE:
        return None


class _Outbox:
    """The line of a client to another process, which takes what is said."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._asks: deque[Ask | Kill | Bye] = deque()
        self._heard = self._said = 0
        self._awake, self._idle = trio.Event(), trio.Event()

    def post(self, number: int, request: Order | Update | Cancel | None) -> None:
        self._asks.append(Kill(number) if request is None else Ask(number, request))
        self._awake.set()

    def heard(self, seq: int) -> None:
        self._heard = seq
        self._awake.set()

    async def leave(self) -> None:
        await self._all_said()
        self._asks.append(Bye())
        self._awake.set()
        await self._all_said()

    async def _all_said(self) -> None:
        while self._asks or self._heard > self._said:
            await self._idle.wait()

    async def run(self, scope: trio.CancelScope) -> None:
        """Say it, until nobody is there any more."""
        while True:
            await self._awake.wait()
            self._awake, self._idle = trio.Event(), trio.Event()
            while self._asks or self._heard > self._said:
                message = self._asks[0] if self._asks else Heard(self._heard)
                if not await self._link.send(message):
                    scope.cancel()
                if isinstance(message, Heard):
                    self._said = message.seq
                else:
                    self._asks.popleft()
            self._idle.set()


async def follow(client: OrderClient, link: Link) -> None:
    """Be a client of another process's gateway until the line ends.

    Raises PikerError if it is not let in.
    """
    with link:
        if not await link.send(client.hello()):
            return
        if (raw := await link.receive(WELCOME_S)) is None:
            return
        welcome = decode_told(raw)
        if not isinstance(welcome, Welcome):
            reason = getattr(welcome, "reason", "it answers with something else")
            raise PikerError(f"the gateway of this account refuses a client: {reason}")
        outbox = _Outbox(link)
        client.welcome(welcome, outbox)
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(outbox.run, nursery.cancel_scope)
                await _listen(client, link)
                nursery.cancel_scope.cancel()
        finally:
            client.line_lost()


async def _listen(client: OrderClient, link: Link) -> None:
    while (raw := await link.receive()) is not None:
        try:
            message = decode_told(raw)
        except UNREADABLE as error:
            log.warning("the gateway said what cannot be read: %s", error)
            continue
        if isinstance(message, Refused):
            raise PikerError(f"the gateway lets this client go: {message.reason}")
        if not isinstance(message, Welcome):
            client.deliver([message])
