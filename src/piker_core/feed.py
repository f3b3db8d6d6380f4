"""`open_feed`: quotes of any markets, from the rings of whoever writes them.

The first process that opens a provider's feed writes its rings; others attach, and ask
it for markets that it does not feed yet. When the writer ends or dies, one of the
attached takes over, with all that anyone who is still there has asked for.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from piker_core.config import FeedConfig, load_section
from piker_core.core.rings import BarReader, attach_bars, checked_namespace
from piker_core.core.ticks import TickReader, attach_ticks
from piker_core.feeder import unknown_mkt
from piker_core.provider import find_provider
from piker_core.quotes import Quote, QuoteStream
from piker_core.source import Source
from piker_core.symbols import MktPair, parse_fqme
from piker_core.tasks import open_nursery

if TYPE_CHECKING:
    from piker_core.store.protocol import Store


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

    def __init__(self, sources: Sequence[Source], tick_throttle: float | None) -> None:
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
    store: str | None = None,
) -> AsyncIterator[Feed]:
    """Open markets, by names such as `xbtusd.kraken`, for as long as the block lasts.

    Returns when each has a last price; history and live data go on flowing into the
    rings. Raises NotFound for an unknown provider or symbol, ProviderError if the venue
    refuses or cannot be reached, FeedError if there is no price in time or the process
    that writes the provider's rings cannot be asked for a market, ConfigError: the same
    whether this process feeds a market or asks for it. `tick_throttle`: see
    `Feed.stream`. `store`: URL of a store, by default `store` in [feed]; where this
    process writes the rings, history comes from there as far as it goes, and closed
    rows are kept there. Raises StoreError if it cannot be opened.
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
        Source(
            find_provider(name), name, symbols=symbols, namespace=space, config=config
        )
        for name, symbols in wanted.items()
    ]
    feed = Feed(sources, tick_throttle)
    url = config.store if store is None else store
    async with _open_store(url) as kept, open_nursery() as nursery:
        for source in sources:
            source.store = kept
            nursery.start_soon(source.run)
        for source in sources:
            await source.opened.wait()
        try:
            for source in sources:
                feed.flumes |= _open_flumes(source)
            yield feed
        finally:
            for flume in feed.flumes.values():
                flume.rt.close()
                flume.hist.close()
                flume.ticks.close()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _open_store(url: str) -> AsyncIterator["Store | None"]:
    if not url:
        yield None
        return
    from piker_core.store import open_store

    store = await trio.to_thread.run_sync(open_store, url)
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(store.close)


def _open_flumes(source: Source) -> dict[str, Flume]:
    """Readers of a provider's markets, by full name."""
    flumes = {}
    ticks = attach_ticks(source.name, namespace=source.namespace)
    for symbol in source.symbols:
        fqme = f"{symbol}.{source.name}"
        rt = attach_bars(fqme, period=1, namespace=source.namespace)
        hist = attach_bars(fqme, period=60, namespace=source.namespace)
        quote = source.first_quotes.get(symbol) or {
            "symbol": symbol,
            "fqme": fqme,
            "last": rt.last_price or None,
            "ticks": [],
        }
        market = _mkt_of(rt, symbol, source.name)
        flumes[fqme] = Flume(market, quote, rt, hist, ticks)
    return flumes


def _mkt_of(bars: BarReader, symbol: str, provider: str) -> MktPair:
    """What the writer has left in the ring about its market."""
    try:
        return msgspec.json.decode(bars.about, type=MktPair)
    except msgspec.MsgspecError:
        return unknown_mkt(symbol, provider)
