"""A provider's markets into an engine of this process: leases, clock, back-fill.

A market is fed for as long as anyone holds a lease of it. Markets that are leased
together, and were not fed before, share one `stream_quotes` call (stream).
"""

import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from piker_core.backfill import limits_pace
from piker_core.calendars import engine_sessions
from piker_core.config import FeedConfig
from piker_core.core.engine import FeedEngine, Market
from piker_core.core.rings import attach_bars
from piker_core.core.ticks import attach_ticks
from piker_core.errors import DataThrottle, NotFound, PikerError
from piker_core.fetch import Pace
from piker_core.history import backfill, open_no_history
from piker_core.keeper import open_keeper
from piker_core.stream import LIVE_S, Quote, Stream, silence, tell
from piker_core.symbols import Asset, MktPair
from piker_core.tasks import open_nursery

if TYPE_CHECKING:
    from piker_core.store.protocol import Store

NS = 1_000_000_000
MOST_ABOUT = 511
HISTORY = "open_history_client"

log = logging.getLogger("piker_core.feed")
Options = dict[str, Any]
"""Arguments of `FeedEngine.add_market`."""


class Feeder:
    """Feeds markets of one provider into one engine, while they are leased.

    Their history comes from a `store`, if there is one, and their rows are kept in it.
    """

    def __init__(
        self,
        provider: ModuleType,
        engine: FeedEngine,
        config: FeedConfig,
        store: "Store | None" = None,
    ) -> None:
        self.provider = provider
        self.engine = engine
        self.config = config
        self.store = store
        self.markets: dict[str, Market] = {}
        """Those whose rings are open, fed or not."""
        self._streams: dict[str, Stream] = {}
        self._leases: Counter[str] = Counter()
        self._backfills: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._pace: Pace | None = None

    @property
    def details(self) -> dict[str, dict[str, Any]]:
        """What the provider says of the markets that are fed, by symbol."""
        streams = self._streams.items()
        return {symbol: stream.details.get(symbol, {}) for symbol, stream in streams}

    async def run(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Step the engine's clock and feed what is leased, until cancelled."""
        async with (
            open_keeper(self.engine, self.store, self.markets),
            open_nursery() as self._nursery,
        ):
            self._nursery.start_soon(run_clock, self.engine)
            task_status.started()

    # Leases

    @asynccontextmanager
    async def open_lease(
        self,
        symbols: Sequence[str],
        *,
        within_s: float | None = None,
        patient: bool = False,
    ) -> AsyncIterator[dict[str, Quote]]:
        """Have markets fed while the block lasts; their first quotes, by symbol.

        Raises NotFound for an unknown symbol, FeedError when there is no first quote
        `within_s` (by default `first_quote_s`), and what else the provider raises.
        `patient`: nothing is waited for or raised, the provider is asked again and
        again. Without other leases a market is `stopped` at the end of the block.
        """
        held = dict.fromkeys(symbols)
        self._leases.update(held.keys())
        try:
            old = [s for s in held if s in self._streams and self._is_fed(s)]
            self._start([s for s in held if s not in self._streams])
            if not patient:
                await self._wait_fed(held.keys(), within_s or self.config.first_quote_s)
            yield {} if patient else {s: self._first_quote(s, s in old) for s in held}
        finally:
            for symbol in held:
                self._release(symbol)

    def _is_fed(self, symbol: str) -> bool:
        return symbol in self._streams[symbol].quotes

    def _start(self, symbols: Sequence[str]) -> None:
        """Have the provider stream these markets, in a call of their own."""
        if not symbols:
            return
        assert self._nursery is not None
        stream = Stream(
            self.provider,
            self.engine,
            symbols=symbols,
            describe=self._describe,
            add=self._add,
            ready=self._ready,
            apart=self._start,
            first_quote_s=self.config.first_quote_s,
        )
        self._streams |= dict.fromkeys(symbols, stream)
        self._nursery.start_soon(stream.run)

    def _release(self, symbol: str) -> None:
        self._leases[symbol] -= 1
        if self._leases[symbol]:
            return
        del self._leases[symbol]
        self._streams.pop(symbol).drop(symbol)
        if scope := self._backfills.pop(symbol, None):
            scope.cancel()

    async def _wait_fed(self, symbols: Collection[str], within_s: float) -> None:
        with trio.move_on_after(within_s + LIVE_S) as limit:
            for symbol in symbols:
                while not self._is_fed(symbol):
                    await self._streams[symbol].wait_try(symbol, symbols)
        missing = [symbol for symbol in symbols if not self._is_fed(symbol)]
        if limit.cancelled_caught and missing:
            trouble = self._streams[missing[0]].trouble
            more = f" ({trouble})" if trouble else ""
            raise silence(self.engine.provider, "first quote", missing, within_s, more)

    def _first_quote(self, symbol: str, old: bool) -> Quote:
        """What came first; of a market that was fed before only the newest price."""
        if not old:
            return self._streams[symbol].quotes[symbol]
        market = self.markets[symbol]
        newest = market.last_price or None
        return {"symbol": symbol, "fqme": market.fqme, "last": newest, "ticks": []}

    # Markets

    async def _describe(self, symbol: str) -> Options:
        """How a market's rings are opened. Raises NotFound for another's name."""
        mkt, details = await self._ask_about(symbol)
        if mkt.symbol != symbol:
            name = f"{symbol}.{self.engine.provider}"
            raise NotFound(f"{name} is called {mkt.fqme} here: ask for that")
        bars_from = getattr(details, "bars_from", "trade")
        return await trio.to_thread.run_sync(market_options, mkt, bars_from)

    async def _ask_about(self, symbol: str) -> tuple[MktPair, Any]:
        """The market and the provider's details: their `bars_from` is heeded."""
        if not hasattr(self.provider, "get_mkt_info"):
            return unknown_mkt(symbol, self.engine.provider), None
        while True:
            try:
                answer = await self.provider.get_mkt_info(symbol)
            except DataThrottle as error:
                await trio.sleep(error.retry_after)
                continue
            return answer if isinstance(answer, tuple) else (answer, None)

    def _add(self, symbol: str, options: Options) -> Market:
        """The market in the engine, its rings opened if they are not."""
        if symbol not in self.markets:
            fqme = f"{symbol}.{self.engine.provider}"
            self.markets[symbol] = self.engine.add_market(fqme, **options)
        else:
            self.markets[symbol].set_sessions(options["sessions"])
        return self.markets[symbol]

    async def adopt(self) -> None:
        """Open the rings that a killed writer has left as if they were fed still.

        Who reads them is told that they are not. They are opened by what the writer has
        written about their markets, whether or not the provider can be asked now.
        """
        provider, namespace = self.engine.provider, self.engine.namespace
        with attach_ticks(provider, namespace=namespace) as ticks:
            names = ticks.markets()
        for fqme in names:
            await trio.lowlevel.checkpoint()
            symbol = fqme.removesuffix(f".{provider}")
            if symbol in self.markets:
                continue
            try:
                with (
                    attach_bars(fqme, period=1, namespace=namespace) as bars,
                    attach_bars(fqme, period=60, namespace=namespace),
                ):
                    status, about = bars.status, bars.about
                if status == "stopped":
                    continue
                options = await trio.to_thread.run_sync(left_options, about)
                if symbol not in self.markets:  # a stream had time to open it
                    market = self._add(symbol, options)
                    status = "reconnecting" if symbol in self._streams else "stopped"
                    tell(market, status, "its writer is dead")
            except (OSError, ValueError, PikerError) as error:
                log.debug("%s is left as it is: %s", fqme, error)

    # History

    def _ready(self, symbol: str) -> None:
        """A market has its first quote: what happened before may be fetched."""
        history = self.store is not None or hasattr(self.provider, HISTORY)
        if symbol in self._backfills or not history:
            return
        assert self._nursery is not None
        scope = self._backfills[symbol] = trio.CancelScope()
        self._nursery.start_soon(self._backfill, symbol, self.markets[symbol], scope)

    async def _backfill(
        self, symbol: str, market: Market, scope: trio.CancelScope
    ) -> None:
        """Both rings of a market; whatever goes wrong, the feed goes on."""
        back = {60: self.config.minutes_back, 1: self.config.seconds_back}
        open_client = getattr(self.provider, HISTORY, open_no_history)
        try:
            with scope:
                async with open_client(symbol) as (ask, limits):
                    if self._pace is None:
                        self._pace = limits_pace(limits)
                    for period, rows in back.items():
                        if rows > 0 and period in market.bars:
                            await backfill(
                                ask, market, period, rows, self._pace, store=self.store
                            )
        except PikerError as error:
            log.warning("%s: back-fill ended: %s", market.fqme, error)
        except Exception:
            log.exception("%s: back-fill failed", market.fqme)


def market_options(mkt: MktPair, bars_from: str) -> Options:
    """What the engine is told of a market. `about` says it to the next writer.

    Takes a second for some calendars: call it from a thread. Raises PikerError for one
    that is not known.
    """
    plain = msgspec.to_builtins(mkt)
    if bars_from != "trade":
        plain["bars_from"] = bars_from
    about = msgspec.json.encode(plain)
    return {
        "price_tick": f"{mkt.price_tick:f}",
        "size_tick": f"{mkt.size_tick:f}",
        "bars_from": bars_from,
        "about": about if len(about) <= MOST_ABOUT else b"",
        "sessions": engine_sessions(mkt.calendar),
    }


def left_options(about: bytes) -> Options:
    """The same by what a writer has left. Raises ValueError, too."""
    mkt = msgspec.json.decode(about, type=MktPair)
    return market_options(mkt, msgspec.json.decode(about).get("bars_from", "trade"))


def unknown_mkt(symbol: str, provider: str) -> MktPair:
    """What can be said of a market that no provider describes."""
    return MktPair(
        base=Asset(symbol),
        quote=Asset(""),
        symbol=symbol,
        venue_symbol=symbol,
        provider=provider,
        price_tick=Asset("").tx_tick,
        size_tick=Asset("").tx_tick,
    )


async def run_clock(engine: FeedEngine) -> None:
    """Step an engine on each second of the wall clock, by absolute deadlines."""
    complained = False
    while True:
        await trio.sleep((NS - time.time_ns() % NS) / NS)
        try:
            engine.step(time.time_ns())
            complained = False
        except OSError as error:
            if not complained:
                log.error("%s", error)
            complained = True
