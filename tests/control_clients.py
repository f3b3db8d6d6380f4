"""What the tests of the control socket share: a server without a feed, and clients."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from piker_core import control, control_socket
from piker_core.control import Ask, Fed, Leased, Link, Told
from piker_core.control_server import Server

PROVIDER = "fakevenue"
told_decoder: "msgspec.msgpack.Decoder[Told]" = msgspec.msgpack.Decoder(Told)


class Desk:
    """Leases without a feed: what is held now, and an error for whoever asks."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.error: Exception | None = None

    @asynccontextmanager
    async def open_lease(
        self, symbols: list[str], **options: Any
    ) -> AsyncIterator[dict[str, Any]]:
        self.asked.append(options)
        if self.error:
            raise self.error
        self.held += symbols
        try:
            yield {symbol: {"last": 1.5} for symbol in symbols}
        finally:
            for symbol in symbols:
                self.held.remove(symbol)


@asynccontextmanager
async def open_server(desk: Desk, namespace: str) -> AsyncIterator[Server]:
    """A listening server whose leases are the desk's."""
    with Server(PROVIDER, namespace) as server, server.listening() as path:
        assert path is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run, desk.open_lease)
            yield server
            nursery.cancel_scope.cancel()


def connect(namespace: str) -> Link:
    """A client that keeps to the protocol."""
    sock = control_socket.connect(PROVIDER, namespace)
    assert sock is not None
    return Link(sock, control.MOST_TOLD)


def connect_raw(namespace: str) -> trio.SocketStream:
    """A client that sends what it likes."""
    sock = control_socket.connect(PROVIDER, namespace)
    assert sock is not None
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


async def hear(link: Link) -> Told:
    """The next message that is none about leases. EOFError at the end."""
    while (raw := await link.receive()) is not None:
        message = told_decoder.decode(raw)
        if not isinstance(message, Leased):
            return message
    raise EOFError


async def wait_until(look: Callable[[], Any]) -> None:
    while not look():
        await trio.sleep(0.005)


async def assert_serves(server: Server) -> None:
    """Another client gets what it asks for."""
    with connect(server.namespace) as link:
        await link.send(Ask(7, ["other"]))
        assert await hear(link) == Fed(7, {"other": {"last": 1.5, "ticks": []}})


def count_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
