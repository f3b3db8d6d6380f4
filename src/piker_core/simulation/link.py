"""The server's end of one WebSocket connection of a simulated venue.

Rules this file owns:

1. A client is never waited for: its frames wait in an outbox of bounded size, and when
   that is full the connection is reset, as venues do with slow consumers.
2. Frames keep their order. All that wait go out together, in as few writes as it takes.
"""

import abc
import contextlib
import math
from collections import deque
from collections.abc import Callable
from http import HTTPStatus

import trio
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from piker_core.simulation.line import Line

CLOSE_TIMEOUT_S = 2.0
_CHUNK = 65536
_BATCH_BYTES = 1 << 18
_FRAME_COST = 64  # what a frame costs in memory beyond its text

Refusal = tuple[HTTPStatus, str]


def text_frame(text: bytes) -> bytes:
    """A text message as a server sends it, ready for the wire (RFC 6455, 5.2)."""
    size = len(text)
    if size < 126:
        return bytes((0x81, size)) + text
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + text
    return b"\x81\x7f" + size.to_bytes(8, "big") + text


class Tally:
    """What all links of a server did: frames `sent`, slow connections `dropped`."""

    def __init__(self) -> None:
        self.sent = 0
        self.dropped = 0


class Link(abc.ABC):
    """One client's connection, and the frames on their way to it.

    `lag_s` holds back what is queued from now on for so long.
    """

    def __init__(self, line: Line, *, tally: Tally, outbox_bytes: int) -> None:
        self.line = line
        self.lag_s = 0.0
        self._tally = tally
        self._limit_bytes = outbox_bytes
        self._protocol = ServerProtocol()
        self._outbox: deque[tuple[float, bytes]] = deque()
        self._waiting_bytes = 0
        self._parts: list[bytes] = []
        self._wake = trio.Event()
        self._reading = trio.CancelScope()
        self._over = False

    @abc.abstractmethod
    def hear(self, text: bytes) -> None:
        """A message came in."""

    def hear_control(self, opcode: Opcode, payload: bytes) -> None:  # noqa: B027
        """A ping or a pong came in; pings are answered already."""

    def reply(self, text: bytes) -> None:
        """Queue a text message."""
        self.put(text_frame(text))

    def put(self, frame: bytes) -> None:
        """Queue a frame made by `text_frame`."""
        if self.line.frozen or self._over:
            return
        if self._waiting_bytes > self._limit_bytes:
            self._tally.dropped += 1
            self.reset()
            return
        self._queue(frame)

    def ping(self, payload: bytes) -> None:
        """Queue a ping."""
        if not self._over:
            self._protocol.send_ping(payload)
            self._flush()

    def reset(self) -> None:
        """End the connection at once."""
        self._over = True
        self._outbox.clear()
        self.line.reset()

    def close(self, code: int, reason: str = "") -> None:
        """End the connection with a closing handshake, after what waits."""
        if self._over:
            return
        self._protocol.send_close(code, reason)
        self._flush()

    async def run(
        self, check: Callable[[Request], Refusal | None], opened: Callable[[], None]
    ) -> None:
        """Shake hands, call `opened` unless `check` refuses, serve until the end."""
        broken = (trio.BrokenResourceError, trio.ClosedResourceError)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            with self._reading, contextlib.suppress(*broken):
                received = bytes(await self.line.receive_some(_CHUNK))
                while received:
                    self._protocol.receive_data(received)
                    self._flush()
                    for event in self._protocol.events_received():
                        self._handle(event, check, opened)
                    self._flush()
                    received = bytes(await self.line.receive_some(_CHUNK))
            self._over = True
            nursery.cancel_scope.cancel()

    def _handle(
        self,
        event: Request | Frame | object,
        check: Callable[[Request], Refusal | None],
        opened: Callable[[], None],
    ) -> None:
        if isinstance(event, Request):
            refusal = check(event)
            reject, accept = self._protocol.reject, self._protocol.accept
            response = accept(event) if refusal is None else reject(*refusal)
            response.headers["Server"] = "cloudflare"
            self._protocol.send_response(response)
            if self._protocol.state is State.OPEN:
                self._flush()
                opened()
        elif isinstance(event, Frame) and not self._over:
            if event.opcode in (Opcode.PING, Opcode.PONG):
                self.hear_control(event.opcode, bytes(event.data))
            elif event.opcode is not Opcode.CLOSE:
                self._parts.append(bytes(event.data))
                if event.fin:
                    text = b"".join(self._parts)
                    self._parts.clear()
                    self.hear(text)

    def _flush(self) -> None:
        """Queue what the protocol has to say; begin to end once that is due."""
        for written in self._protocol.data_to_send():
            self._queue(written)
        if self._protocol.close_expected() and self._reading.deadline == math.inf:
            self._over = True
            self._reading.deadline = trio.current_time() + CLOSE_TIMEOUT_S

    def _queue(self, frame: bytes) -> None:
        due_s = trio.current_time() + self.lag_s if self.lag_s else 0.0
        self._outbox.append((due_s, frame))
        self._waiting_bytes += len(frame) + _FRAME_COST
        self._wake.set()

    async def _write(self) -> None:
        broken = (trio.BrokenResourceError, trio.ClosedResourceError)
        with contextlib.suppress(*broken):
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._outbox:
                    if self._outbox[0][0]:
                        await trio.sleep_until(self._outbox[0][0])
                    await self._write_due()

    async def _write_due(self) -> None:
        """Write what is due; an empty frame ends our half of the connection."""
        now_s = trio.current_time()
        batch: list[bytes] = []
        size = 0
        while self._outbox and size < _BATCH_BYTES and self._outbox[0][0] <= now_s:
            frame = self._outbox.popleft()[1]
            if not frame:
                await self.line.send_all(b"".join(batch))
                await self.line.send_eof()
                return
            batch.append(frame)
            size += len(frame)
        await self.line.send_all(b"".join(batch))
        self._waiting_bytes -= size + _FRAME_COST * len(batch)
        self._tally.sent += len(batch)
