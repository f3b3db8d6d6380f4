"""A private WebSocket that is kept: it comes back, and is replaced before its end.

1. A connection counts from the moment it is greeted: what the venue wants to be told
   first (`Kept.greet`) was acknowledged.
2. A lost connection is tried again at once, then with jittered back-off. Whoever waits
   for an answer on it is told that there will be none.
3. A planned replacement is opened and greeted first; the old one is listened to for
   `overlap_s` more, and until its last answer: nothing that the venue says is missed.
4. Nothing of what is sent is logged: requests carry keys, addresses carry tokens.
"""

import logging
import math
import random
from collections.abc import Callable
from typing import Protocol

import trio
from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
from websockets.trio.client import ClientConnection

from piker_core.adapter.defaults import StreamLimits
from piker_core.adapter.limiter import Limiter
from piker_core.adapter.shared import share
from piker_core.adapter.websocket import connect
from piker_core.errors import ConfigError, DataThrottle, PikerError, ProviderError
from piker_core.tasks import Backoff, open_nursery

from .markets import PROVIDER

log = logging.getLogger(__name__)
_quiet = logging.getLogger(f"{__name__}.frames")
_quiet.setLevel(logging.INFO)
"""websockets logs every frame at DEBUG; those of these connections never are."""

_PROVEN_S = 5.0
_EARLY = 0.1
"""By which part of `rotate_s` a connection is replaced early, at random."""


class NotConnected(ProviderError):
    """Nothing was sent: there is no connection."""


class LostAnswer(ProviderError):
    """A request was sent, or may have been, and there will be no answer."""


class RefusedKeys(ProviderError):
    """The venue does not serve these keys: trying again is no use."""


class Socket:
    """One connection: requests that wait for their answers, and its end."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.renew = trio.Event()
        self.reason = ""
        self.greeted = False
        self.scope = trio.CancelScope()
        self._connection: ClientConnection | None = None
        self._waiting: dict[str, tuple[trio.Event, list[bytes]]] = {}

    @property
    def waits(self) -> bool:
        """Whether an answer is due."""
        return bool(self._waiting)

    def opened(self, connection: ClientConnection) -> None:
        """It can be sent on from now on."""
        self._connection = connection

    def end(self, reason: str) -> None:
        """It is dead: wake all who wait."""
        self.reason = self.reason or reason
        self._connection = None
        self.ended.set()
        for event, _ in self._waiting.values():
            event.set()

    async def ask(self, number: str, message: bytes, timeout_s: float) -> bytes:
        """Send a request; the answer. Raises NotConnected, or LostAnswer."""
        connection = self._connection
        if connection is None:
            raise NotConnected(f"not sent: {self.reason or 'no connection'}")
        arrived, answer = trio.Event(), list[bytes]()
        self._waiting[number] = arrived, answer
        try:
            with trio.move_on_after(timeout_s):
                try:
                    await connection.send(message, text=True)
                except (ConnectionClosed, OSError, trio.BrokenResourceError) as error:
                    raise LostAnswer(f"sent in part: {lost_because(error)}") from None
                await arrived.wait()
        finally:
            del self._waiting[number]
        if answer:
            return answer[0]
        if arrived.is_set():
            raise LostAnswer(f"no answer: {self.reason}")
        raise LostAnswer(f"no answer within {timeout_s:g} s")

    def answer(self, number: str, raw: bytes) -> bool:
        """Hand an answer over. False if nobody waits for one of this number."""
        waiting = self._waiting.get(number)
        if waiting is None:
            return False
        waiting[1].append(raw)
        waiting[0].set()
        return True

    async def handed(self) -> None:
        """Wait until who asked has the answer: what came after it is told after it."""
        while any(answer for _, answer in self._waiting.values()):
            await trio.lowlevel.checkpoint()


class Kept(Protocol):
    """What a private stream has to say about its connections.

    `label` is what logs call it, `url_key` the key of its address in `[binance]`.
    """

    label: str
    url_key: str

    async def url(self) -> str:
        """Where to connect; asked before every connection."""

    async def greet(self, socket: Socket) -> None:
        """Say what has to be said first. Raises RefusedKeys, ProviderError."""

    def take(self, socket: Socket, raw: bytes) -> None:
        """A message was received. Never raises."""


class KeptSocket:
    """The connection of one private stream; `tell` hears of its ups and downs."""

    def __init__(
        self, kept: Kept, limits: StreamLimits, tell: Callable[[bool, str], None]
    ) -> None:
        self.current: Socket | None = None
        self.connections = self.rotations = 0
        self._kept, self._limits, self._tell = kept, limits, tell

    async def run(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep a connection for ever; started when the first one is greeted.

        Raises RefusedKeys if the venue refuses the keys before that.
        """
        backoff, greeted = Backoff(), False
        async with open_nursery() as nursery:
            while True:
                await trio.sleep(backoff.next_s())
                socket = await self._open(nursery, greeted)
                if socket is None or socket.ended.is_set():
                    continue
                self._take_over(socket, nursery)
                if not greeted:
                    greeted = True
                    task_status.started()
                await self._wait_end(socket, backoff)

    async def _wait_end(self, socket: Socket, backoff: Backoff) -> None:
        """Until it is lost, or time to replace it."""
        after_s = self._limits.rotate_s * random.uniform(1 - _EARLY, 1)
        began_s = trio.current_time()
        with trio.move_on_after(after_s or math.inf):
            async with trio.open_nursery() as nursery:
                for event in (socket.ended, socket.renew):
                    nursery.start_soon(_cancel_after, event, nursery.cancel_scope)
        if trio.current_time() - began_s > _PROVEN_S:
            backoff.reset()

    def _take_over(self, socket: Socket, nursery: trio.Nursery) -> None:
        before, self.current = self.current, socket
        if before is not None:
            self.rotations += 1
            nursery.start_soon(self._retire, before)
        self._tell(True, "")

    async def _retire(self, socket: Socket) -> None:
        """Listen to a replaced connection for a while, and let it end."""
        await trio.sleep(self._limits.overlap_s)
        with trio.move_on_after(self._limits.ack_timeout_s):
            while socket.waits and not socket.ended.is_set():
                with trio.move_on_after(self._limits.overlap_s or 0.1):
                    await socket.ended.wait()
        socket.reason = "replaced"
        socket.scope.cancel()

    async def _open(self, nursery: trio.Nursery, greeted: bool) -> Socket | None:
        """A connection that is greeted; None where it came to nothing."""
        socket = Socket()
        try:
            await nursery.start(self._serve, socket)
        except RefusedKeys as error:
            if not greeted:
                raise
            log.warning("%s: %s", self._kept.label, error)
            return None
        except (ProviderError, DataThrottle) as error:
            log.warning("%s: no connection: %s", self._kept.label, error)
            return None
        return socket

    async def _serve(self, socket: Socket, task_status: trio.TaskStatus[None]) -> None:
        """One connection, until it is lost. Raises ProviderError before its start."""
        try:
            with socket.scope:
                await self._connect(socket, task_status)
        except InvalidURI as error:
            key = self._kept.url_key
            raise ConfigError(f"[{PROVIDER}] {key}: {error}") from None
        except (OSError, WebSocketException, trio.BrokenResourceError) as error:
            socket.end(lost_because(error))
            if not socket.greeted:
                raise ProviderError(lost_because(error)) from None
        finally:
            socket.end(socket.reason or "closed")
            was_current = self.current is socket
            if was_current:
                self.current = None
            if was_current and trio.current_effective_deadline() > -math.inf:
                log.info("%s: connection lost: %s", self._kept.label, socket.reason)
                self._tell(False, f"{self._kept.label}: {socket.reason}")

    async def _connect(
        self, socket: Socket, task_status: trio.TaskStatus[None]
    ) -> None:
        limits, url = self._limits, await self._kept.url()
        await self._attempts(url).acquire()
        async with connect(
            url,
            proxy=None,
            compression=None,
            max_size=limits.ws_frame_bytes,
            max_queue=None,
            open_timeout=limits.ack_timeout_s,
            close_timeout=1.0,
            ping_interval=limits.liveness_s,
            ping_timeout=limits.liveness_s,
            logger=_quiet,
        ) as connection:
            self.connections += 1
            socket.opened(connection)
            async with open_nursery() as tasks:
                tasks.start_soon(self._read, socket, connection)
                await self._kept.greet(socket)
                socket.greeted = True
                task_status.started()

    async def _read(self, socket: Socket, connection: ClientConnection) -> None:
        try:
            while True:
                self._kept.take(socket, await connection.recv(decode=False))
                await socket.handed()
        except (ConnectionClosed, OSError, trio.BrokenResourceError) as error:
            socket.end(lost_because(error))

    def _attempts(self, url: str) -> Limiter:
        """How often this host may be connected to, by all of this run."""
        rate, burst = self._limits.connect_rate, self._limits.connect_burst
        host = url.partition("://")[2].partition("/")[0]
        key = ("connect private", host, rate, burst)
        return share(key, lambda: Limiter(rate, burst))


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def lost_because(error: Exception) -> str:
    """Why a connection was lost, in a few words."""
    if isinstance(error, ConnectionClosed):
        code = error.rcvd.code if error.rcvd else 1006
        return f"connection closed ({code})"
    if isinstance(error, TimeoutError):
        return "connection timed out"
    if isinstance(error, PikerError):
        return str(error)
    cause = getattr(error, "strerror", None) or type(error).__name__
    return f"no connection ({cause})"
