"""The control socket's protocol: what a writer and the feeds attached to it say.

A message is its length, four bytes big-endian, and a msgpack map whose `type` names it.
Fields that are not known are ignored, types that are not known are answered with a
`Refused`. A connection is a lease: what was asked for over it is fed until it closes.
See docs/control.md.
"""

import math
import os
import socket
import struct
from types import TracebackType
from typing import Any, Self

import msgspec
import trio

from piker_core.errors import (
    BadTick,
    ConfigError,
    DataThrottle,
    DataUnavailable,
    FeedError,
    NoData,
    NotFound,
    PikerError,
    ProviderError,
    SegmentError,
    WriterBusy,
)

MOST_ASKED = 1 << 18
"""Bytes of a message to the writer; thousands of symbols."""
MOST_TOLD = 1 << 22
"""Bytes of a message from the writer."""
MESSAGE_S = 10.0
"""How long a message may take from its first byte to its last."""
_MOST_FRAME = 4096
_LENGTH = struct.Struct(">I")
_PLAIN = {
    kind.__name__: kind
    for kind in (
        *(PikerError, NotFound, WriterBusy, BadTick, SegmentError, ConfigError),
        *(FeedError, NoData, DataUnavailable),
    )
}
_KINDS = {"ProviderError", "DataThrottle", *_PLAIN}
_BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Feed these markets of your provider for as long as this connection lasts.

    Answered by `Fed` or `Refused` with the same id, at the latest `within_s` after it.
    `patient`: the asker knows the markets and waits for as long as it takes; this is
    answered at once.
    """

    id: int
    symbols: list[str]
    within_s: float = 20.0
    patient: bool = False


class Fed(msgspec.Struct, frozen=True, tag="fed"):
    """The markets that were asked for are fed; their first quotes by symbol."""

    id: int
    quotes: dict[str, dict[str, Any]] = {}


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """What was asked is not done. `id` is 0 where the message could not be read.

    `kind` is the error's class, `text` what it says; the rest belongs to some of them.
    """

    text: str
    id: int = 0
    kind: str = "PikerError"
    errno: int = 0
    filename: str = ""
    retry_after: float = 0.0
    frame: Any = None


class Leased(msgspec.Struct, frozen=True, tag="leased"):
    """Symbols that attached feeds have asked for: who takes over goes on with them."""

    symbols: list[str]


Told = Fed | Refused | Leased
"""What a writer says."""


class LinkError(PikerError):
    """The other end does not keep to the protocol: nothing more can be read of it."""


class Link:
    """One end of a connection, by whole messages.

    Any task may send; one task receives. `most`: bytes of a message that is received.
    """

    def __init__(self, sock: socket.socket, most: int) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._most = most
        self._received = bytearray()
        self._sending = trio.StrictFIFOLock()

    async def send(self, message: msgspec.Struct) -> bool:
        """Send a message; False if nobody is there any more.

        Waits where the other end does not read. Cancelled, the connection is of no use.
        """
        framed = frame_message(message)
        async with self._sending:
            try:
                await self._stream.send_all(framed)
            except _BROKEN:
                return False
        return True

    async def receive(self, idle_s: float = math.inf) -> bytes | None:
        """The next message, None at the end. Cancelled, nothing is lost.

        Raises LinkError for a message that is too long, or too slow, or does not begin
        within `idle_s`.
        """
        wait_s = MESSAGE_S if self._received else idle_s
        with trio.CancelScope(deadline=trio.current_time() + wait_s) as limit:
            while (end := self._end()) is None:
                try:
                    chunk = await self._stream.receive_some(1 << 16)
                except _BROKEN:
                    return None
                if not chunk:
                    return None
                if not self._received:
                    limit.deadline = trio.current_time() + MESSAGE_S
                self._received += chunk
            message = bytes(self._received[_LENGTH.size : end])
            del self._received[:end]
            return message
        allowed_s = MESSAGE_S if self._received else idle_s
        raise LinkError(f"no whole message came within {allowed_s:g} s")

    def _end(self) -> int | None:
        """Where the first message ends, None if it is not all there."""
        if len(self._received) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._received)
        if length > self._most:
            raise LinkError(f"a message of {length} bytes; at most {self._most}")
        end = _LENGTH.size + int(length)
        return end if len(self._received) >= end else None

    def close(self) -> None:
        """Close this end. A second time it does nothing."""
        self._stream.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def frame_message(message: msgspec.Struct) -> bytes:
    """A message as it goes over the wire."""
    content = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(content)) + content


def refusal(error: Exception, number: int) -> Refused:
    """An error as the answer to an ask."""
    if isinstance(error, OSError):
        return Refused(
            id=number,
            kind="OSError",
            text=_encodable(error.strerror or error),
            errno=error.errno or 0,
            filename=_encodable(error.filename or ""),
        )
    if not isinstance(error, PikerError):
        text = f"process {os.getpid()} failed: {type(error).__name__}: {error}"
        text = _encodable(f"{text} (a bug there)")
        return Refused(id=number, kind="FeedError", text=text)
    frame = getattr(error, "frame", None)
    if isinstance(frame, str):
        frame = _encodable(frame)
    return Refused(
        id=number,
        kind=next(k.__name__ for k in type(error).__mro__ if k.__name__ in _KINDS),
        text=_encodable(error),
        retry_after=getattr(error, "retry_after", 0.0),
        frame=frame[:_MOST_FRAME] if isinstance(frame, bytes | str) else None,
    )


def _encodable(value: Any) -> str:
    """Text that UTF-8 can express: names of files may hold anything."""
    text = os.fsdecode(value) if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "replace").decode()


def refused_error(refused: Refused) -> Exception:
    """The error that an answer stands for, of the class that it had in the writer."""
    if refused.kind == "OSError":
        if not refused.errno:
            return OSError(refused.text)
        return OSError(refused.errno, refused.text, refused.filename or None)
    if refused.kind == "DataThrottle":
        return DataThrottle(refused.text, retry_after=refused.retry_after)
    if refused.kind == "ProviderError":
        return ProviderError(refused.text, frame=refused.frame)
    if refused.kind not in _PLAIN:
        return FeedError(f"{refused.kind}: {refused.text}")
    return _PLAIN[refused.kind](refused.text)
