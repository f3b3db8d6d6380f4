"""How a simulated venue is run: its listeners, its tasks, its end."""

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeVar

import msgspec
import trio

_GOODBYE_S = 1.0
V = TypeVar("V")

Serve = Callable[[trio.Nursery, Sequence[trio.SocketListener]], Awaitable[None]]


@asynccontextmanager
async def open_servers(
    serve: Serve,
    close: Callable[[], Awaitable[None]],
    *,
    host: str,
    ports: Sequence[int],
) -> AsyncIterator[None]:
    """Listen on the ports and run what `serve` starts; in the end `close`, then cancel.

    Port 0 takes a free one. Raises `OSError` for a port in use; errors of the body pass
    as they are, outside any group.
    """
    failure: Exception | None = None
    async with AsyncExitStack() as stack:
        listeners = [
            await stack.enter_async_context(await _listen(host, port)) for port in ports
        ]
        async with trio.open_nursery() as nursery:
            await serve(nursery, listeners)
            try:
                yield
            except Exception as error:  # noqa: BLE001 - raised below, outside the group
                failure = error
            finally:
                with trio.move_on_after(_GOODBYE_S, shield=True):
                    await close()
                nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _listen(host: str, port: int) -> trio.SocketListener:
    """One listener; of the addresses of a host name the first."""
    listener, *others = await trio.open_tcp_listeners(port, host=host)
    for other in others:
        await other.aclose()
    return listener


def address(listener: trio.SocketListener) -> str:
    """Host and port of a listener as they stand in a URL."""
    host, port = listener.socket.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve_alone(
    venue: AbstractAsyncContextManager[V],
    urls: Callable[[V], Mapping[str, str]],
    seconds: float,
) -> None:
    """Run a venue until SIGINT or SIGTERM, or for so long; writes its URLs as JSON."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with venue as opened:
            sys.stdout.write(msgspec.json.encode(urls(opened)).decode() + "\n")
            sys.stdout.flush()
            with trio.move_on_after(seconds):
                async for _ in signals:
                    return
