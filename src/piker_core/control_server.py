"""The writer's end of the control socket: connections, and the leases they hold.

1. A lease lasts as long as its connection, however that ends.
2. No client can harm another, or the feed: what is long, slow, silent or nonsense is
   answered with an error or closed, what does not read is not waited for.
3. Clients see the end when the writer's lock is free: the sockets are closed last.
"""

import logging
import math
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    contextmanager,
    suppress,
)
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import msgspec
import trio

from piker_core.control import (
    MOST_ASKED,
    Ask,
    Fed,
    Leased,
    Link,
    LinkError,
    Refused,
    frame_message,
    refusal,
)
from piker_core.control_socket import (
    close_in_children,
    listen,
    peer_uid,
    remove_socket,
)
from piker_core.errors import PikerError
from piker_core.symbols import parse_fqme

MOST_LINKS = 256
"""Connections at a time."""
MOST_ASKS = 64
"""Asks over one connection."""
MOST_BAD = 16
"""Messages of one connection that may be nonsense."""
ASK_S = 10.0
"""How long a connection may take to ask for something."""
MOST_WITHIN_S = 3600.0
_PAUSE_S = 0.1

log = logging.getLogger("piker_core.control")
Lease = AbstractAsyncContextManager[dict[str, dict[str, Any]]]


class Server:
    """Serves the feeds of other processes. Enter it before the engine is opened.

    `listening` while the engine is open; `run` while that is so.
    """

    def __init__(self, provider: str, namespace: str) -> None:
        self.provider = provider
        self.namespace = namespace
        self._listener: socket.socket | None = None
        self._links: set[Link] = set()
        self._leased: Counter[str] = Counter()
        self._changed = trio.Event()
        self._complained = False
        self._decoder = msgspec.msgpack.Decoder(Ask)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links:
            link.close()
        if self._listener is not None:
            self._listener.close()

    @contextmanager
    def listening(self) -> Iterator[Path | None]:
        """The socket's file, there for as long as the block lasts.

        None, and said, where it cannot be made: the feed goes on without.
        """
        try:
            self._listener, path = listen(self.provider, self.namespace)
        except (OSError, PikerError) as error:
            name = self.provider
            text = "%s has no control socket, nobody can ask for markets: %s"
            log.warning(text, name, error)
            yield None
            return
        try:
            yield path
        finally:
            try:
                remove_socket(path)
            except (OSError, PikerError) as error:
                log.warning("the control socket stays: %s", error)

    @contextmanager
    def leasing(self, symbols: Sequence[str]) -> Iterator[None]:
        """Tell all that these symbols are fed for attached feeds, while it lasts."""
        self._change(symbols, 1)
        try:
            yield
        finally:
            self._change(symbols, -1)

    def _change(self, symbols: Sequence[str], by: int) -> None:
        for symbol in symbols:
            self._leased[symbol] += by
        self._leased = +self._leased
        self._changed.set()
        self._changed = trio.Event()

    async def run(self, open_lease: Callable[..., Lease]) -> None:
        """Serve connections until cancelled."""
        assert self._listener is not None
        listener = trio.socket.from_stdlib_socket(self._listener)
        async with trio.open_nursery() as nursery:
            while True:
                if sock := await self._accept(listener):
                    self._admit(sock, open_lease, nursery)

    # Connections

    async def _accept(self, listener: trio.socket.SocketType) -> socket.socket | None:
        try:
            accepted, _ = await listener.accept()
        except OSError as error:  # no descriptors are left, or the like
            self._complain(f"a connection cannot be accepted: {error}")
            await trio.sleep(_PAUSE_S)
            return None
        return close_in_children(socket.socket(fileno=accepted.detach()))

    def _admit(
        self,
        sock: socket.socket,
        open_lease: Callable[..., Lease],
        nursery: trio.Nursery,
    ) -> None:
        if peer_uid(sock) != os.geteuid():
            sock.close()
        elif len(self._links) >= MOST_LINKS:
            text = f"process {os.getpid()} has {MOST_LINKS} connections already"
            self._complain(f"{text}: one more was refused")
            with sock, suppress(OSError):
                sock.send(frame_message(Refused(text, kind="FeedError")))
        else:
            link = Link(sock, MOST_ASKED)
            self._links.add(link)
            nursery.start_soon(self._serve, link, open_lease)

    def _complain(self, text: str) -> None:
        """Say the first of a kind of trouble that may come by the thousand."""
        log.log(logging.DEBUG if self._complained else logging.WARNING, "%s", text)
        self._complained = True

    async def _serve(self, link: Link, open_lease: Callable[..., Lease]) -> None:
        """One connection. Cancelled, it stays open: see rule 3."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell_leased, link)
                await self._hear(link, open_lease, nursery)
                nursery.cancel_scope.cancel()
        except Exception:
            log.exception("a connection of %s's control socket", self.provider)
        self._links.discard(link)
        link.close()

    async def _tell_leased(self, link: Link) -> None:
        while True:
            changed = self._changed
            if not await link.send(Leased(sorted(self._leased))):
                return
            await changed.wait()

    async def _hear(
        self, link: Link, open_lease: Callable[..., Lease], nursery: trio.Nursery
    ) -> None:
        """Take asks until the end, or until nothing sensible can be expected."""
        asks = bad = 0
        while bad < MOST_BAD:
            try:
                raw = await link.receive(math.inf if asks else ASK_S)
                if raw is None:
                    return
                ask = self._decoder.decode(raw)
                self._check(ask, asks)
            except LinkError as error:
                await link.send(Refused(str(error)))
                return
            except (PikerError, ValueError, RecursionError) as error:
                bad += 1
                await link.send(Refused(f"a message is refused: {error}"))
                continue
            asks += 1
            nursery.start_soon(self._hold, link, ask, open_lease)

    def _check(self, ask: Ask, asks: int) -> None:
        if asks >= MOST_ASKS:
            raise PikerError(f"at most {MOST_ASKS} asks over one connection")
        if not ask.symbols:
            raise PikerError("an ask needs symbols")
        for symbol in ask.symbols:
            parse_fqme(f"{symbol}.{self.provider}")
        if not ask.within_s > 0:
            raise PikerError(f"within_s {ask.within_s} must be a number of seconds")

    async def _hold(
        self, link: Link, ask: Ask, open_lease: Callable[..., Lease]
    ) -> None:
        """A lease, from the ask to the end of its connection."""
        symbols = list(dict.fromkeys(ask.symbols))
        within_s = min(ask.within_s, MOST_WITHIN_S)
        async with AsyncExitStack() as stack:
            try:
                lease = open_lease(symbols, within_s=within_s, patient=ask.patient)
                quotes = plain_quotes(await stack.enter_async_context(lease))
            except Exception as error:  # noqa: BLE001 - the asker is told
                log.info("%s was refused: %s", ", ".join(symbols), error)
                await link.send(refusal(error, ask.id))
                return
            stack.enter_context(self.leasing(symbols))
            await link.send(Fed(ask.id, quotes))
            await trio.sleep_forever()


def plain_quotes(quotes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Quotes as others can read them: numbers, texts and the like; no ticks."""
    return {
        symbol: {
            name: _plain(value)
            for name, value in quote.items()
            if value is None or isinstance(value, str | int | float | Decimal)
        }
        | {"ticks": []}
        for symbol, quote in quotes.items()
    }


def _plain(value: str | int | float | Decimal | None) -> str | int | float | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int):
        return int(value) if abs(value) < 1 << 63 else None
    return float(value)
