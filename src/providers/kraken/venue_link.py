"""One WebSocket client of a simulated Kraken.

A client is never waited for: its frames wait in an outbox of bounded size, and when
that is full the connection is reset, as the venue does with slow consumers.
"""

import contextlib
from collections import defaultdict, deque
from typing import Protocol, cast

import msgspec
import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.server import ServerConnection

from piker_core.simulation.limits import TokenBucket
from piker_core.simulation.line import Line
from piker_core.simulation.market import Rows

from .venue_frames import HEARTBEAT
from .venue_requests import Desk, Topic

HEARTBEAT_S = 1.0
_FRAME_COST = 64  # what a frame costs in memory beyond its text


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the WebSocket side; the defaults are the venue's.

    `idle_s`: life of a connection without subscription or message. `attempts` in
    `attempts_s`: connection attempts before a ban of that length. `message_rate` a
    second after a `message_burst`: requests of one connection. `outbox_bytes`: what
    may wait to be sent to a client before it is dropped.
    """

    idle_s: float = 60.0
    attempts: int = 150
    attempts_s: float = 600.0
    message_rate: float = 50.0
    message_burst: float = 100.0
    outbox_bytes: int = 8 << 20


class Hub(Protocol):
    """What a link needs of the server it belongs to."""

    limits: Limits
    dropped: int
    sent: int

    def join(self, link: "Link", topic: Topic) -> None:
        """Add the client to a topic's audience."""

    def leave(self, link: "Link", topic: Topic) -> None:
        """Remove it."""


class Link:
    """One client's connection: its subscriptions, and the frames on their way."""

    def __init__(self, socket: ServerConnection, number: int, hub: Hub) -> None:
        self.number = number
        self.topics: set[Topic] = set()
        self.held: defaultdict[str, list[Rows]] = defaultdict(list)
        self.line = cast(Line, socket.stream)
        self._limits = limits = hub.limits
        self._requests = TokenBucket(limits.message_rate, limits.message_burst)
        self._socket = socket
        self._hub = hub
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._wake = trio.Event()
        self._over = False
        self._spoke_s = self._quiet_s = trio.current_time()

    def reply(self, frame: bytes) -> None:
        """Queue the answer to a request."""
        if self.line.frozen or self._over:
            return
        if self._outbox_bytes > self._limits.outbox_bytes:
            self._hub.dropped += 1
            self.reset()
            return
        self._outbox.append(frame)
        self._outbox_bytes += len(frame) + _FRAME_COST
        self._wake.set()

    def send(self, frame: bytes) -> None:
        """Queue a frame of a channel: no heartbeat is due for a while."""
        self._spoke_s = trio.current_time()
        self.reply(frame)

    def subscribe(self, topic: Topic) -> None:
        """Have a topic's frames sent here from now on."""
        if not self.topics:
            self._spoke_s = trio.current_time()
        self.topics.add(topic)
        self._hub.join(self, topic)

    def unsubscribe(self, topic: Topic) -> None:
        """End that."""
        self._hub.leave(self, topic)
        self.topics.discard(topic)
        self._quiet_s = trio.current_time()

    async def run(self, desk: Desk) -> None:
        """Answer requests and send what is queued until the connection ends."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            with contextlib.suppress(ConnectionClosed):
                async for message in self._socket:
                    in_rate = self._requests.take(trio.current_time())
                    desk.answer(self, message, in_rate=in_rate)
            nursery.cancel_scope.cancel()

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._wake.wait()
                while self._outbox:
                    frame = self._outbox.popleft()
                    await self._socket.send(frame, text=True)
                    self._outbox_bytes -= len(frame) + _FRAME_COST
                    self._hub.sent += 1
                self._wake = trio.Event()

    def beat(self, now_s: float) -> bool:
        """Send a heartbeat if one is due; whether the client was idle for too long."""
        if self.topics:
            if now_s >= self._spoke_s + HEARTBEAT_S:
                self.send(HEARTBEAT)
            return False
        since_s = max(self.line.heard_s, self._quiet_s)
        return now_s >= since_s + self._limits.idle_s and not self.line.frozen

    def reset(self) -> None:
        """End the connection at once."""
        self._over = True
        self._outbox.clear()
        self.line.reset()

    async def close(self, code: int, reason: str = "") -> None:
        """End the connection with a closing handshake."""
        self._over = True
        self._outbox.clear()
        await self._socket.aclose(code, reason)
