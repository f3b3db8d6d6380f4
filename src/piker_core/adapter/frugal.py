"""Streams that ask for no more room than what comes in needs.

What is read is put into bytes of the size that was asked for, and cut to what came: of
64 kB for a frame of 200 bytes the frame stays at the beginning of a hole. Freed ones
are kept by the allocator of the C library for the next of their size, each in its hole,
so a process that hears small frames for hours grows by megabytes.

Reads are small until one comes back full: then there is more, and the next is large.
"""

import trio

LEAST, MOST = 4096, 65536


class FrugalStream(trio.abc.Stream):
    """A stream, read by small pieces as long as little comes in."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._most = LEAST

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See `trio.abc.ReceiveStream`."""
        asked = min(self._most, max_bytes or MOST)
        received = await self._stream.receive_some(asked)
        self._most = MOST if len(received) == asked else LEAST
        return received

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        await self._stream.aclose()


class FrugalSocket(FrugalStream, trio.abc.HalfCloseableStream):
    """The same of TCP, which can be closed by halves."""

    _stream: trio.abc.HalfCloseableStream

    async def send_eof(self) -> None:
        """See `trio.abc.HalfCloseableStream`."""
        await self._stream.send_eof()
