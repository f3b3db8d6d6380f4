"""`open_feed`: quotes of any markets, from the rings of whoever writes them.

The first process that opens a provider's feed writes its rings; others attach. When the
writer ends or dies, one of the attached takes over, with all that it was feeding.
"""

import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import msgspec
import trio

from piker_core.config import FeedConfig, load_section
from piker_core.core.engine import open_engine
from piker_core.core.rings import BarReader, attach_bars, checked_namespace
from piker_core.core.ticks import TickReader, attach_ticks
from piker_core.errors import FeedError, NotFound, PikerError, WriterBusy
from piker_core.feeder import Feeder, unknown_mkt
from piker_core.provider import find_provider
from piker_core.quotes import QuoteStream
from piker_core.symbols import MktPair, parse_fqme
from piker_core.tasks import Backoff, open_nursery

LOOK_S = 0.2
"""How often an attached feed looks whether the writer is alive."""
BEAT_NS = 2_500_000_000
"""Heartbeats come every second: one that is older was the last."""

log = logging.getLogger("piker_core.feed")
Quote = dict[str, Any]


class Flume(msgspec.Struct, frozen=True):
    """One market of a feed: `rt` has its 1 s rows, `hist` its 60 s rows.

    `first_quote` has `last`, the newest price known when the feed was opened. `ticks`
    is the provider's tick ring.
    """

    market: MktPair
    first_quote: Quote
    rt: BarReader
    hist: BarReader
    ticks: TickReader

    @property
    def status(self) -> str:
        """`starting live stale reconnecting backfilling closed` or `stopped`."""
        return self.rt.status


class Feed:
    """Open markets by full name, and streams of their quotes."""

    def __init__(
        self, sources: "Sequence[_Source]", tick_throttle: float | None
    ) -> None:
        self.flumes: dict[str, Flume] = {}
        self._sources = sources
        self._tick_throttle = tick_throttle

    @property
    def roles(self) -> dict[str, str]:
        """By provider: `writer` if this feed writes its rings, else `reader`."""
        return {source.name: source.role for source in self._sources}

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Counters by market: those of its rings, and `stream` where we write them."""
        counters: dict[str, dict[str, Any]] = {}
        for fqme, flume in self.flumes.items():
            counters[fqme] = dict(flume.rt.statistics())
        for source in self._sources:
            for symbol, details in source.details.items():
                stream = details.get("statistics")
                if stream is not None and f"{symbol}.{source.name}" in counters:
                    counters[f"{symbol}.{source.name}"]["stream"] = msgspec.to_builtins(
                        stream()
                    )
        return counters

    def stream(self, *, tick_throttle: float | None = None) -> QuoteStream:
        """Quotes from now on, as `{fqme: quote}`; an asynchronous iterator.

        Each tick once, whoever else reads. With `tick_throttle` (by default the feed's)
        at most so many times a second, the ticks of the time between in one quote.
        """
        by_ring: dict[str, tuple[TickReader, list[str]]] = {}
        for fqme, flume in self.flumes.items():
            ring = by_ring.setdefault(flume.ticks.provider, (flume.ticks, []))
            ring[1].append(fqme)
        return QuoteStream(list(by_ring.values()), tick_throttle or self._tick_throttle)


@asynccontextmanager
async def open_feed(
    fqmes: Iterable[str],
    *,
    tick_throttle: float | None = None,
    namespace: str | None = None,
) -> AsyncIterator[Feed]:
    """Open markets, by names such as `xbtusd.kraken`, for as long as the block lasts.

    Returns when each has a last price; history and live data go on flowing into the
    rings. Raises NotFound for an unknown provider or symbol, ProviderError if the venue
    refuses or cannot be reached, FeedError if another process writes the provider's
    rings without a market asked for, ConfigError. `tick_throttle`: see `Feed.stream`.
    """
    space = checked_namespace(namespace)
    config = load_section("feed", FeedConfig)
    if isinstance(fqmes, str):
        raise ValueError(f"open_feed() takes a list of names: [{fqmes!r}]")
    if tick_throttle is not None and not tick_throttle > 0:
        raise ValueError(
            f"tick_throttle {tick_throttle!r} must be a positive rate in Hz"
        )
    wanted: dict[str, list[str]] = {}
    for fqme in dict.fromkeys(fqmes):
        symbol, provider = parse_fqme(fqme)
        wanted.setdefault(provider, []).append(symbol)
    if not wanted:
        raise ValueError("open_feed() needs at least one market name")
    sources = [
        _Source(find_provider(name), name, symbols, space, config)
        for name, symbols in wanted.items()
    ]
    feed = Feed(sources, tick_throttle)
    async with open_nursery() as nursery:
        async with open_nursery() as opening:
            for source in sources:
                opening.start_soon(nursery.start, source.run)
        try:
            for source in sources:
                feed.flumes |= source.attach()
            yield feed
        finally:
            for flume in feed.flumes.values():
                flume.rt.close()
                flume.hist.close()
                flume.ticks.close()
            nursery.cancel_scope.cancel()


class _Source:
    """One provider of a feed, written here or attached to."""

    def __init__(
        self,
        provider: ModuleType,
        name: str,
        symbols: list[str],
        namespace: str,
        config: FeedConfig,
    ) -> None:
        self.provider = provider
        self.name = name
        self.symbols = symbols
        self.namespace = namespace
        self.config = config
        self.role = "reader"
        self.first_quotes: dict[str, Quote] = {}
        self.details: dict[str, dict[str, Any]] = {}

    async def run(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Write the rings, or attach and wait for the writer's end; for ever."""
        try:
            await self._write([], task_status)
        except WriterBusy:
            await self._wait_fed()
            task_status.started()
        backoff = Backoff(0.1, 5.0)
        while True:
            inherited = await self._wait_writer_end()
            try:
                await self._write(inherited, trio.TASK_STATUS_IGNORED)
            except WriterBusy:  # another attached feed was faster
                backoff.reset()
            except PikerError as error:
                log.warning("%s cannot be taken over: %s", self.name, error)
                await trio.sleep(backoff.next_s())

    async def _write(
        self, inherited: list[str], task_status: trio.TaskStatus[None]
    ) -> None:
        with open_engine(self.name, namespace=self.namespace) as engine:
            feeder = Feeder(self.provider, engine, self.config)
            await feeder.add(self.symbols)
            await feeder.add(inherited, required=False)
            self.role = "writer"
            self.first_quotes, self.details = feeder.first_quotes, feeder.details
            try:
                await feeder.run(task_status)
            finally:
                self.role = "reader"

    # Attached

    def _fed(self, ticks: TickReader) -> list[str]:
        """Symbols whose rings the writer of these ticks steps, or stepped last."""
        fed = []
        for fqme in ticks.markets():
            try:
                with attach_bars(fqme, period=1, namespace=self.namespace) as bars:
                    if ticks.heartbeat_ns - bars.heartbeat_ns < BEAT_NS:
                        fed.append(fqme[: -len(self.name) - 1])
            except PikerError as error:
                log.debug("%s: %s", fqme, error)
        return fed

    async def _wait_fed(self) -> None:
        """Wait for a starting writer; FeedError if it feeds other markets."""
        deadline_s = trio.current_time() + self.config.first_quote_s
        missing, pid = self.symbols, 0
        while missing and trio.current_time() < deadline_s:
            await trio.sleep(LOOK_S / 4)
            try:
                with attach_ticks(self.name, namespace=self.namespace) as ticks:
                    pid = ticks.writer_pid
                    beats = time.time_ns() - ticks.heartbeat_ns < BEAT_NS
                    fed = self._fed(ticks) if beats else []
            except NotFound:
                continue
            missing = [symbol for symbol in self.symbols if symbol not in fed]
            if missing and beats:
                break
        if missing:
            names = ", ".join(f"{symbol}.{self.name}" for symbol in missing)
            raise FeedError(
                f"process {pid} writes {self.name}'s rings in namespace "
                f"{self.namespace} without {names}: open it there, or end that process"
            )

    async def _wait_writer_end(self) -> list[str]:
        """Return when the writer's lock is free: the symbols that it was feeding."""
        with attach_ticks(self.name, namespace=self.namespace) as ticks:
            while ticks.writer_alive:  # noqa: ASYNC110 - a lock has no event
                await trio.sleep(LOOK_S)
            return [symbol for symbol in self._fed(ticks) if symbol not in self.symbols]

    def attach(self) -> dict[str, Flume]:
        """Readers of the markets asked for, by full name."""
        flumes = {}
        ticks = attach_ticks(self.name, namespace=self.namespace)
        for symbol in self.symbols:
            fqme = f"{symbol}.{self.name}"
            rt = attach_bars(fqme, period=1, namespace=self.namespace)
            hist = attach_bars(fqme, period=60, namespace=self.namespace)
            quote = self.first_quotes.get(fqme) or {
                "symbol": symbol,
                "fqme": fqme,
                "last": rt.last_price or None,
                "ticks": [],
            }
            flumes[fqme] = Flume(_mkt_of(rt, symbol, self.name), quote, rt, hist, ticks)
        return flumes


def _mkt_of(bars: BarReader, symbol: str, provider: str) -> MktPair:
    """What the writer has left in the ring about its market."""
    try:
        return msgspec.json.decode(bars.about, type=MktPair)
    except msgspec.MsgspecError:
        return unknown_mkt(symbol, provider)
