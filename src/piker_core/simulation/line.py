"""TCP as a simulated venue needs it: lines that can go dead, and a door to close."""

import contextlib
import socket
import struct
from collections.abc import Callable

import trio

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Line(trio.abc.HalfCloseableStream):
    """A TCP stream that can be reset, or made silent and deaf.

    A frozen line drops what comes and what is sent, which is what a half-open
    connection looks like from the other end, until the peer closes it.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.frozen = False
        self.heard_s = trio.current_time()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or drop if frozen."""
        if self.frozen:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """See `trio.abc.HalfCloseableStream`."""
        await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """The next bytes; a frozen line hears nothing but the end."""
        while True:
            received = await self._stream.receive_some(max_bytes)
            if not received or not self.frozen:
                self.heard_s = trio.current_time()
                return received

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        await self._stream.aclose()

    async def swallow(self) -> None:
        """Stay frozen until the peer gives up."""
        self.frozen = True
        async with self:
            with contextlib.suppress(
                trio.BrokenResourceError, trio.ClosedResourceError
            ):
                await self.receive_some()

    def reset(self) -> None:
        """Close at once with a TCP reset; what was not sent yet is lost."""
        with contextlib.suppress(OSError):  # the peer may have been first
            self._stream.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
            )
        self._stream.socket.close()


class Gate(trio.abc.Listener[Line]):
    """A listener that asks about each connection before anybody speaks on it.

    `admit` returns whether the line goes on to the server; a line it turns away is
    its own to deal with.
    """

    def __init__(
        self, listener: trio.SocketListener, admit: Callable[[Line], bool]
    ) -> None:
        self._listener = listener
        self._admit = admit
        self.socket = listener.socket

    async def accept(self) -> Line:
        """The next line that was admitted."""
        while True:
            line = Line(await self._listener.accept())
            if self._admit(line):
                return line

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        await self._listener.aclose()
