"""Bytes of the TWS API into calls, and requests into bytes, without a socket or a loop.

The layouts are those of ib_async: its `Client` writes requests, its `Decoder` reads
messages. Of the former only `sendMsg` is replaced, so its asyncio connection is never
made; see `session` for why. Importing this module needs the extra `ib`.

1. A frame is a 32-bit big-endian length and as many bytes: fields of text, each ended
   by a NUL, the first of them the message's number.
2. A message is told as `(name, arguments)`, named as the method of ib_async's wrapper.
3. What is not understood raises `Malformed` or `Unknown` for that frame alone; only a
   length that no frame has ends the connection.
"""

import struct
from collections.abc import Callable, Iterator
from datetime import UTC
from functools import partial
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import ib_async
from ib_async.decoder import Decoder

MOST_FRAME = 16 << 20
OLDEST = ib_async.Client.MinClientVersion
_HELLO = f"v{OLDEST}..{ib_async.Client.MaxClientVersion}".encode()
_START_API = 71
_MISFITS = (
    *(ArithmeticError, AttributeError, LookupError, StopIteration, TypeError),
    ValueError,
)
Take = Callable[[str, tuple[Any, ...]], None]


class BrokenFraming(Exception):
    """The stream of bytes is no stream of frames (any more)."""


class Malformed(Exception):
    """A message that does not fit its layout."""


class Unknown(Exception):
    """A message of a number that nobody knows."""


class Inbox:
    """What the decoder calls: every method passes its name and arguments on."""

    defaultTimezone = UTC

    def __init__(self, take: Take, greeting: str = "") -> None:
        """`greeting`: the time in TWS's greeting, whose zone times without one have."""
        self._take = take
        self.ib = SimpleNamespace(TimezoneTWS=zone_of(greeting))

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)
        told = partial(self._tell, name)
        setattr(self, name, told)
        return told

    def _tell(self, name: str, *arguments: Any) -> None:
        self._take(name, arguments)


class Reader(Decoder):
    """Messages to calls; unlike its base it raises what it cannot read."""

    def wrap(
        self, methodName: str, types: list[Any], skip: int = 2
    ) -> Callable[[list[str]], None]:
        """A handler for a message whose fields are the arguments of a method."""
        method = getattr(self.wrapper, methodName)
        readers = [_READERS[kind] for kind in types]

        def handle(fields: list[str]) -> None:
            values = fields[skip : skip + len(readers)]
            method(*(read(text) for read, text in zip(readers, values, strict=True)))

        return handle

    def interpret(self, fields: list[str]) -> None:
        """One message; raises Unknown or Malformed."""
        try:
            handler = self.handlers.get(int(fields[0]))
            if handler is not None:
                handler(fields)
        except _MISFITS as error:
            raise Malformed(f"{type(error).__name__}: {error}") from error
        if handler is None:
            raise Unknown(fields[0])


_READERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: lambda text: int(text or 0),
    float: lambda text: float(text or 0),
    bool: lambda text: bool(int(text or 0)),
}


class Requests(ib_async.Client):
    """Request methods such as `reqMktData`, each of which writes one frame."""

    def __init__(self, write: Callable[[bytes], None], version: int) -> None:
        super().__init__(None)  # type: ignore[no-untyped-call]
        self._write = write
        self._version = version

    def isConnected(self) -> bool:
        """Always: whether there is a connection is not this object's concern."""
        return True

    def serverVersion(self) -> int:
        """The version that was agreed on."""
        return self._version

    def sendMsg(self, msg: str) -> None:
        """Write a message as a frame."""
        self._write(pack(msg.encode()))

    def start(self, client_id: int) -> None:
        """The first request of a connection."""
        self.send(_START_API, 2, client_id, "")  # type: ignore[no-untyped-call]


def zone_of(greeting: str) -> str:
    """The zone of a time such as `20261123 00:40:00 UTC`; "" (ours) if it has none.

    TWS names zones as its machine does, which is ours as a rule.
    """
    name = greeting.partition(" ")[2].partition(" ")[2].strip()
    try:
        return ZoneInfo(name).key if name else ""
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ""


def pack(payload: bytes) -> bytes:
    """A frame of a payload."""
    return struct.pack(">I", len(payload)) + payload


def hello() -> bytes:
    """What a client says first."""
    return b"API\0" + pack(_HELLO)


class Frames:
    """A stream of bytes, cut into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes | bytearray) -> Iterator[list[str]]:
        """The fields of each frame that is complete; raises BrokenFraming."""
        buffer = self._buffer
        buffer += chunk
        begin = 0
        try:
            while len(buffer) - begin >= 4:
                length = int.from_bytes(buffer[begin : begin + 4], "big")
                if length > MOST_FRAME:
                    raise BrokenFraming(f"a frame of {length} bytes")
                end = begin + 4 + length
                if len(buffer) < end:
                    break
                payload = bytes(buffer[begin + 4 : end])
                begin = end
                fields = payload.decode("utf-8", "backslashreplace").split("\0")
                if fields[-1] == "":
                    fields.pop()
                yield fields
        finally:
            del buffer[:begin]
