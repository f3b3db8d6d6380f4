"""One provider of a feed: its rings are written here, or followed and taken over.

1. Whoever has the engine's lock writes; it is tried first, and again at every sign that
   the writer is gone: the end of the connection to it, at the latest LOOK_S.
2. Attached feeds hold a lease of their markets over the writer's control socket. They
   ask each new writer again, by themselves.
3. A new writer goes on with what attached feeds had leased of the last one, for
   REASK_S; then it feeds what has been asked for again.
4. A writer without a control socket is followed by its rings alone.
"""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from piker_core.config import FeedConfig
from piker_core.control import (
    MOST_TOLD,
    Ask,
    Fed,
    Leased,
    Link,
    LinkError,
    Told,
    refused_error,
)
from piker_core.control_server import Server
from piker_core.control_socket import connect, socket_paths
from piker_core.core.engine import open_engine
from piker_core.core.rings import BarReader, attach_bars
from piker_core.core.ticks import TickReader, attach_ticks
from piker_core.errors import FeedError, NotFound, PikerError, WriterBusy
from piker_core.feeder import Feeder
from piker_core.stream import LIVE_S, Quote
from piker_core.tasks import Backoff, open_nursery

if TYPE_CHECKING:
    from piker_core.store.protocol import Store

LOOK_S = 0.2
"""How often it is looked whether the writer is alive, beside what tells at once."""
BEAT_NS = 2_500_000_000
"""Heartbeats come every second: one that is older was the last."""
REASK_S = 5.0
"""How long a new writer feeds what its predecessor's clients have not asked it for."""
ANSWER_S = 5.0
"""How much later than it must a writer may answer."""

log = logging.getLogger("piker_core.feed")
_told: "msgspec.msgpack.Decoder[Told]" = msgspec.msgpack.Decoder(Told)


class Source:
    """One provider of a feed, written here or attached to."""

    def __init__(
        self,
        provider: ModuleType,
        name: str,
        *,
        symbols: list[str],
        namespace: str,
        config: FeedConfig,
    ) -> None:
        self.provider = provider
        self.name = name
        self.symbols = symbols
        self.namespace = namespace
        self.config = config
        self.store: Store | None = None
        self.role = "reader"
        self.first_quotes: dict[str, Quote] = {}
        self.opened = trio.Event()
        self._feeder: Feeder | None = None
        self._leased: list[str] = []
        self._leased_in = 0  # the generation whose writer said so
        self._stepped = (0, 0)
        self._alone_s = 0.0
        self._complaint = ""

    @property
    def details(self) -> dict[str, dict[str, Any]]:
        """What the provider says of the markets that are fed here, by symbol."""
        return self._feeder.details if self._feeder else {}

    async def run(self) -> None:
        """Write the rings, or follow who does; for ever. `opened` when all are fed.

        Raises what keeps the markets from being opened; later that is tried again.
        """
        backoff, pause = Backoff(0.1, 5.0), Backoff(0.005, LOOK_S)
        self._alone_s = trio.current_time()
        while True:
            try:
                await self._write()
            except WriterBusy:
                backoff.reset()
            except (PikerError, OSError) as error:
                if not self.opened.is_set():
                    raise
                log.warning("%s cannot be taken over: %s", self.name, error)
                await trio.sleep(backoff.next_s())
                continue
            if await self._follow():
                pause.reset()
            await trio.sleep(pause.next_s())

    # Writing

    async def _write(self) -> None:
        """Write the rings until cancelled. Raises WriterBusy, what the start raises."""
        with (
            Server(self.name, self.namespace) as server,
            open_engine(self.name, namespace=self.namespace) as engine,
            server.listening() as path,
        ):
            left = self._left(path is not None)
            feeder = Feeder(self.provider, engine, self.config, self.store)
            self.role, self._feeder = "writer", feeder
            try:
                async with open_nursery() as nursery:
                    await nursery.start(feeder.run)
                    if path:
                        nursery.start_soon(server.run, feeder.open_lease)
                    keep_s = REASK_S if path else math.inf
                    nursery.start_soon(self._inherit, feeder, server, left, keep_s)
                    await self._hold(feeder)
            finally:
                self.role, self._feeder = "reader", None

    async def _hold(self, feeder: Feeder) -> None:
        """Have this feed's own markets fed, until cancelled."""
        patient = self.opened.is_set()
        async with feeder.open_lease(self.symbols, patient=patient) as quotes:
            if not patient:
                self.first_quotes = quotes
                self.opened.set()
            await trio.sleep_forever()

    async def _inherit(
        self, feeder: Feeder, server: Server, left: Sequence[str], keep_s: float
    ) -> None:
        """Go on with what the last writer fed for others, until they ask again."""
        async with feeder.open_lease(left, patient=True):
            with server.leasing(left):
                await feeder.adopt()
                await trio.sleep(keep_s)

    def _left(self, listens: bool) -> list[str]:
        """What the last writer fed for others; as the rings say it, if it did not."""
        left = set(self._leased)
        with self._attach_ticks() as ticks:
            silent = self._leased_in != ticks.generation - 1
            if silent and (self.opened.is_set() or (not listens and _beats(ticks))):
                left.update(self._beating(ticks, left=True))
        return sorted(left.difference(self.symbols))

    def _beating(self, ticks: TickReader, *, left: bool) -> list[str]:
        """Symbols whose rings the writer of these ticks steps, or has `left`."""
        fed = []
        for fqme in ticks.markets():
            try:
                with attach_bars(fqme, period=1, namespace=self.namespace) as bars:
                    beats = ticks.heartbeat_ns - bars.heartbeat_ns < BEAT_NS
                    if beats and (left or _is_fed(bars)):
                        fed.append(fqme.removesuffix(f".{self.name}"))
            except PikerError as error:
                log.debug("%s: %s", fqme, error)
        return fed

    # Attached

    async def _follow(self) -> bool:
        """Have markets fed by the writer, until it is gone; whether it ever did."""
        try:
            sock = connect(self.name, self.namespace)
        except BlockingIOError:  # others are before us
            sock, listens = None, True
        else:
            listens = sock is not None
        if sock is not None:
            self._stepped = (0, 0)
            with Link(sock, MOST_TOLD) as link:
                fed = await self._ask(link)
            self._alone_s = trio.current_time()
            return fed
        if not self.opened.is_set():
            self._look_at_rings(listens)
        return False

    async def _ask(self, link: Link) -> bool:
        """A lease for as long as the writer lives; whether there was one."""
        fed = False
        patient, within_s = self.opened.is_set(), self.config.first_quote_s
        await link.send(Ask(1, self.symbols, within_s, patient))
        most_s = math.inf if patient else within_s + LIVE_S + ANSWER_S
        with trio.CancelScope(deadline=trio.current_time() + most_s) as limit:
            while (message := await self._hear(link)) is not None:
                if isinstance(message, Leased):
                    self._note_leased(message.symbols)
                elif isinstance(message, Fed):
                    fed, limit.deadline = True, math.inf
                    self.first_quotes |= message.quotes
                    self.opened.set()
                elif self.opened.is_set():
                    self._complain(message.text)
                    return False
                else:
                    raise refused_error(message)
        if limit.cancelled_caught:
            raise FeedError(
                f"{self._writer()} and does not answer on its control socket: "
                "look what it is doing, or end it"
            )
        return fed

    def _complain(self, text: str) -> None:
        """Say once what an attached feed cannot do about itself."""
        level = logging.DEBUG if text == self._complaint else logging.WARNING
        log.log(level, "%s is not fed: %s", self.name, text)
        self._complaint = text

    async def _hear(self, link: Link) -> Told | None:
        """What the writer says next; None when it is gone."""
        while True:
            raw = None
            with trio.move_on_after(LOOK_S) as limit:
                try:
                    raw = await link.receive()
                except LinkError as error:
                    self._complain(f"{self._writer()} and says nonsense: {error}")
            if raw is not None:
                try:
                    return _told.decode(raw)
                except ValueError as error:
                    log.debug("a message that is not understood: %s", error)
            elif not limit.cancelled_caught or not self._writer_lives():
                return None

    def _note_leased(self, symbols: list[str]) -> None:
        self._leased = symbols
        with suppress(PikerError), self._attach_ticks() as ticks:
            self._leased_in = ticks.generation

    def _writer_lives(self) -> bool:
        """Whether the lock is held; that is seen without the connection's end, too."""
        try:
            with self._attach_ticks() as ticks:
                return ticks.writer_alive
        except PikerError:
            return True  # it makes them just now

    def _writer(self) -> str:
        who = "a process"
        with suppress(PikerError), self._attach_ticks() as ticks:
            who = f"process {ticks.writer_pid}"
        return f"{who} writes {self.name}'s rings in namespace {self.namespace}"

    def _look_at_rings(self, listens: bool) -> None:
        """Open by the rings alone, where their writer cannot be asked but feeds all.

        Raises FeedError where it does not, once its clock has been seen to step: it
        would have listened before.
        """
        stepped, missing = False, self.symbols
        with suppress(NotFound), self._attach_ticks() as ticks:
            beat = ticks.generation, ticks.heartbeat_ns
            if beat[0] != self._stepped[0]:
                self._stepped = beat
            stepped = beat > self._stepped and _beats(ticks) and not listens
            if stepped:
                fed = self._beating(ticks, left=False)
                missing = [symbol for symbol in self.symbols if symbol not in fed]
        if not missing:
            self.opened.set()
        elif stepped or trio.current_time() - self._alone_s > self.config.first_quote_s:
            names = ", ".join(f"{symbol}.{self.name}" for symbol in missing)
            path = socket_paths(self.name, self.namespace)[0]
            why = "is overrun" if listens else f"is missing ({path})"
            raise FeedError(
                f"{self._writer()} without {names}, and its control socket {why}: "
                "open it there, or end that process"
            )

    def _attach_ticks(self) -> TickReader:
        return attach_ticks(self.name, namespace=self.namespace)


def _is_fed(bars: BarReader) -> bool:
    """Whether a market that is stepped is fed, and has a price."""
    started = bars.status != "starting" or bars.last_price > 0
    return started and bars.status != "stopped"


def _beats(ticks: TickReader) -> bool:
    """Whether the writer's clock has stepped just now."""
    return time.time_ns() - ticks.heartbeat_ns < BEAT_NS
