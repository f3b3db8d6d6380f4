"""The connection that all of a process share: TWS gives out few, and each has a number.

Rules this file owns:

1. One connection an address and client id, from the first user until LINGER_S after the
   last. It lives in a task of trio's own, for its users come and go in any order.
2. It is made again when it is lost, at once at first, then with back-off. Who asks for
   a session and is not patient gets the error of the next failed attempt.
3. The client id "auto" is the next free one. A fixed one that is in use is an error.
"""

import logging
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio

from piker_core.errors import PikerError, ProviderError
from piker_core.tasks import Backoff

from . import codes
from .config import Config
from .contracts import Listing, Rule
from .library import load_codec
from .session import Session, open_session

LINGER_S = 0.5
_PROVEN_S = 5.0
_FIRST_ID, _IDS = 100, 900
_CLASH_S = 0.2
_OWN_TRIES = 10
_TRIES = 32
"""As many clients as TWS takes."""

log = logging.getLogger("providers.ib")


class Gateway:
    """The shared connection to one address; made by `open_gateway`."""

    def __init__(self, config: Config, before: "Gateway | None" = None) -> None:
        self.config = config
        self._before = before
        self.counts: Counter[str] = Counter()
        self.users = 0
        self.known: dict[str, Listing] = {}
        self.rules: dict[int, Rule] = {}
        self.finding: dict[str, trio.Lock] = {}
        self.joining: dict[str, trio.Event] = {}
        """Markets of feeds, by symbol: set once the running minute's trades are in."""
        self.search_turn = trio.Lock()
        self.search_at_s = 0.0
        self._session: Session | None = None
        self._changed = trio.Event()
        self._kick = trio.Event()
        self._idle = trio.Event()
        self._busy = trio.Event()
        self._attempts = 0
        self._failure: PikerError = ProviderError("not connected yet")
        self._scope = trio.CancelScope()
        self._port = config.port
        self._clashes = 0
        self.client_id = config.client_id
        self.retired = trio.Event()
        self.ended = trio.Event()

    @property
    def was_connected(self) -> bool:
        """Whether TWS was there once."""
        return self.counts["connections"] > 0

    async def session(self, *, patient: bool = False) -> Session:
        """The session that is open now, or the next one.

        Unless `patient`, raises the error of the attempt to connect that fails next.
        """
        attempts = self._attempts
        self._kick.set()
        while True:
            if self._session is not None and not self._session.lost.is_set():
                return self._session
            if not patient and self._attempts > attempts:
                raise type(self._failure)(str(self._failure))
            await self._changed.wait()

    # Users

    def enter(self) -> None:
        """One user more."""
        self.users += 1
        self._busy.set()

    def leave(self) -> None:
        """One user less."""
        self.users -= 1
        if not self.users:
            self._busy = trio.Event()
            self._idle.set()

    # The task

    async def run(self) -> None:
        """Be connected until nobody needs it; nothing comes out of here."""
        try:
            with self._scope:
                if self._before is not None:
                    await self._before.ended.wait()
                await trio.to_thread.run_sync(load_codec)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._end_when_idle)
                    await self._connect_for_ever()
        except Exception as error:
            log.exception("the connection to TWS at %s failed", self.config.address)
            self._fail(ProviderError(f"the connection to TWS failed: {error}"))
        finally:
            self.retired.set()
            self.ended.set()

    async def _end_when_idle(self) -> None:
        while True:
            await self._idle.wait()
            self._idle = trio.Event()
            with trio.move_on_after(LINGER_S):
                await self._busy.wait()
            if not self.users:
                self.retired.set()
                self._scope.cancel()

    async def _connect_for_ever(self) -> None:
        backoff = Backoff()
        while True:
            began_s = trio.current_time()
            try:
                await self._connect_once()
            except codes.ClientIdInUse as error:
                if self._may_try_another():
                    await trio.sleep(_CLASH_S)
                    continue
                self._fail(error)
            except (PikerError, OSError) as error:
                self._fail(error)
            except Exception as error:
                log.exception("the connection to TWS at %s ends", self.config.address)
                self._fail(error)
            if trio.current_time() - began_s > _PROVEN_S:
                backoff.reset()
            self._kick = trio.Event()
            with trio.move_on_after(backoff.next_s()):
                await self._kick.wait()

    async def _connect_once(self) -> None:
        """One connection, until it is lost."""
        config = msgspec.structs.replace(self.config, port=self._port)
        self._port = self.config.port
        if self.client_id == "auto":
            self.client_id = _FIRST_ID + os.getpid() % _IDS
        try:
            async with open_session(
                config, int(self.client_id), self.counts
            ) as session:
                self.counts["connections"] += 1
                self._clashes = 0
                self._session = session
                self._tell()
                await session.lost.wait()
                self._port = session.next_port or self.config.port
                log.info("connection to TWS lost: %s", session.reason)
        finally:
            self._session = None

    def _may_try_another(self) -> bool:
        """After a clash: the next client id, or once more our own.

        TWS may not have noticed yet that the last one who had it, we, has gone.
        """
        self._clashes += 1
        tries = _OWN_TRIES
        if self.config.client_id == "auto":
            self.client_id = int(self.client_id) + 1
            tries = _TRIES
        elif self._before is None and not self.was_connected:
            tries = 0
        if self._clashes <= tries:
            return True
        self._clashes = 0
        return False

    def _fail(self, error: Exception) -> None:
        known = error if isinstance(error, PikerError) else ProviderError(str(error))
        if self._attempts == 0 or str(known) != str(self._failure):
            log.info("%s", known)
        self._failure = known
        self._attempts += 1
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


_gateways: trio.lowlevel.RunVar[dict[tuple[str, int, int | str], Gateway]] = (
    trio.lowlevel.RunVar("ib_gateways")
)


@asynccontextmanager
async def open_gateway(config: Config) -> AsyncIterator[Gateway]:
    """The shared connection of an address, kept at least as long as the block lasts.

    Nothing is waited for yet. Raises PikerError if the extra `ib` is not installed.
    """
    gateway = _shared(config)
    gateway.enter()
    try:
        yield gateway
    finally:
        gateway.leave()


def _shared(config: Config) -> Gateway:
    try:
        gateways = _gateways.get()
    except LookupError:
        gateways = {}
        _gateways.set(gateways)
    key = (config.host, config.port, config.client_id)
    gateway = gateways.get(key)
    if gateway is None or gateway.retired.is_set():
        gateway = gateways[key] = Gateway(config, gateway)
        trio.lowlevel.spawn_system_task(gateway.run, name=f"ib {config.address}")
    return gateway
