"""One client of a simulated gateway: handshake, requests in, frames out.

A client is never waited for: its frames wait in an outbox of bounded size, and when
that is full the connection is reset.
"""

import re
import struct
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import msgspec
import trio

from piker_core.simulation.line import Line

from .venue_frames import OLDEST, SYSTEM, error_frame, frame

START_API = 71
_CHUNK = 65536
_HELLO = b"API\0"
_VERSIONS = re.compile(rb"v(\d{1,4})(?:\.\.(\d{1,4}))?(?: (.*))?", re.DOTALL)
_PACED = "PACEAPI"
_LINGER_S = 1.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a gateway; the defaults are the venue's.

    `clients` at once, of which each may send `messages_per_s` before error 100, and is
    disconnected at the `strikes`-th; `lines` of market data over all clients;
    `request_bytes` a request may have; `outbox_bytes` may wait to be sent to a client.
    """

    clients: int = 32
    messages_per_s: int = 50
    strikes: int = 3
    lines: int = 100
    request_bytes: int = 1 << 20
    outbox_bytes: int = 32 << 20


class Hub(Protocol):
    """What a link needs of the server it belongs to."""

    limits: Limits
    version: int
    dropped: int
    sent: int

    def bytewise(self) -> bool:
        """Whether every byte is to be sent by itself."""

    def note_rate(self, messages: int, refused: bool) -> None:
        """A client has sent so many messages within a second."""


class Link:
    """A client's connection; `client_id` is None until its startApi was accepted.

    It is `over` once it was told to go, whether or not it did.
    """

    def __init__(self, line: Line, hub: Hub) -> None:
        self.line = line
        self.version = 0
        self.client_id: int | None = None
        self.data_type = 1
        self._hub = hub
        self._paced = False
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._wake = trio.Event()
        self.over = False
        self._strikes = 0
        self._times: deque[float] = deque()
        self._received = bytearray()
        self._scope: trio.CancelScope

    # Out

    def send(self, *frames: bytes) -> None:
        """Queue frames."""
        if self.line.frozen or self.over:
            return
        self._outbox.extend(frames)
        self._outbox_bytes += sum(map(len, frames))
        if self._outbox_bytes > self._hub.limits.outbox_bytes:
            self._hub.dropped += 1
            self.reset()
            return
        self._wake.set()

    def error(self, request_id: int, code: int, text: str) -> None:
        """Queue an error."""
        self.send(error_frame(self.version, request_id, code, text))

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            if self._outbox:
                parts = tuple(self._outbox)
                self._outbox.clear()
                await self._send(b"".join(parts))
                self._hub.sent += len(parts)
                self._outbox_bytes -= sum(map(len, parts))
            elif self.over:
                await self.line.send_eof()
                await trio.sleep(_LINGER_S)
                self._scope.cancel()
            else:
                self._wake = trio.Event()

    async def _send(self, raw: bytes) -> None:
        if not self._hub.bytewise():
            await self.line.send_all(raw)
            return
        for index in range(len(raw)):
            await self.line.send_all(raw[index : index + 1])

    # In

    async def run(self, answer: Callable[[int, bytes], None]) -> None:
        """Speak with the client until either side ends the connection.

        `answer` is called with the message id and the whole payload of each request.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                if await self._shake_hands():
                    nursery.start_soon(self._write)
                    while (payload := await self._next_frame()) is not None:
                        if await self._in_rate():
                            self._dispatch(payload, answer)
                self._scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            self.over = True  # the peer is gone, or this side has reset the line

    async def _shake_hands(self) -> bool:
        """Agree on a version; whether the client may go on."""
        while len(self._received) < len(_HELLO):
            if not await self._receive():
                return False
        if not self._received.startswith(_HELLO):
            return False
        del self._received[: len(_HELLO)]
        hello = await self._next_frame()
        match = _VERSIONS.fullmatch(hello) if hello is not None else None
        if match is None:
            return False
        low, high, options = match.groups()
        self.version = min(self._hub.version, int(high or low))
        if self.version < max(int(low), OLDEST):
            return False
        self._paced = _PACED in (options or b"").decode("ascii", "replace")
        now = f"{datetime.now(UTC):%Y%m%d %H:%M:%S} UTC"
        await self._send(frame(self.version, now))
        return True

    async def _next_frame(self) -> bytes | None:
        """The payload of the next frame; None at the end or for one too long."""
        while True:
            if len(self._received) >= 4 and not self.over:
                (length,) = struct.unpack(">I", self._received[:4])
                if length > self._hub.limits.request_bytes:
                    self.error(SYSTEM, 507, "Bad Message Length")
                    self.end()
                elif len(self._received) >= 4 + length:
                    payload = bytes(self._received[4 : 4 + length])
                    del self._received[: 4 + length]
                    return payload
            if not await self._receive():
                return None

    async def _receive(self) -> bool:
        received = await self.line.receive_some(_CHUNK)
        if not self.over:
            self._received += received
        return bool(received)

    async def _in_rate(self) -> bool:
        """Whether a request keeps the limit of messages a second."""
        limit, now_s = self._hub.limits.messages_per_s, trio.current_time()
        times = self._times
        if self._paced:
            while len(times) >= limit and times[-limit] > now_s - 1:
                await trio.sleep_until(times[-limit] + 1)
                now_s = trio.current_time()
        times.append(now_s)
        while times[0] <= now_s - 1:
            times.popleft()
        refused = len(times) > limit
        self._hub.note_rate(len(times), refused)
        if refused:
            self._strikes += 1
            text = (
                "Max rate of messages per second has been exceeded:"
                f"max={limit} rec={len(times)} ({self._strikes})"
            )
            self.error(SYSTEM, 100, text)
            if self._strikes >= self._hub.limits.strikes:
                self.end()
        return not refused

    def _dispatch(self, payload: bytes, answer: Callable[[int, bytes], None]) -> None:
        head, _, _ = payload.partition(b"\0")
        if self.over:
            return
        if not (head.isdigit() and len(head) < 6):
            text = f"Error reading request:Message id {head!r} is no number"
            self.error(SYSTEM, 320, text)
            return
        message_id = int(head)
        started = self.client_id is not None
        if started and message_id == START_API:
            self.error(SYSTEM, 501, "Already connected.")
        elif not started and message_id != START_API:
            self.error(SYSTEM, 504, "Not connected")
        else:
            answer(message_id, payload)

    # The end

    def end(self) -> None:
        """End the connection after what is queued has been sent."""
        self.over = True
        self._wake.set()
        if not self.version:
            self.reset()  # nothing is queued before the handshake

    def reset(self) -> None:
        """End the connection at once with a TCP reset."""
        self.over = True
        self._outbox.clear()
        self.line.reset()
