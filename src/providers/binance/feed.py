"""Quotes from Binance: the markets of both sides, what they are told, if they trade.

Spot has all on one connection. USD-M has aggregates on one route and best quotes on
another, which are connections of their own; the aggregates decide whether a market is
live. A market whose status is not TRADING is closed, not lost.

An aggregate of USD-M is what fills at one price within 100 ms, and trades of its
insurance fund and of auto-deleveraging are in none: there the venue's own klines may
differ from bars of aggregates by as much.

Source: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
and the market streams of the USD-M documents.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

import trio

from piker_core.adapter.market_feed import MarketFeed
from piker_core.adapter.trades import Quote
from piker_core.adapter.watch import watch
from piker_core.errors import DataThrottle, PikerError, ProviderError
from piker_core.messages import FeedInit
from piker_core.tasks import open_nursery

from .api import Client, get_client
from .client import Side
from .markets import TRADING, Symbol
from .pages import AggregatePages, TradePages
from .streams import BinanceFeed
from .wire import (
    AGGREGATE,
    BEST,
    FRAMES,
    TRADE,
    stream_name,
)


class SideFeed:
    """The markets of one side and their streams; `best` if best quotes go apart."""

    def __init__(
        self, side: Side, feed: BinanceFeed, best: BinanceFeed | None = None
    ) -> None:
        self.side, self.feed = side, feed
        self.symbols: dict[str, Symbol] = {}
        self._best = best

    @property
    def feeds(self) -> list[BinanceFeed]:
        """All streams that have something to tell."""
        feeds = [self.feed] if self._best is None else [self.feed, self._best]
        return feeds if self.symbols else []

    def add(self, name: str, symbol: Symbol, handle: Any) -> None:
        """Take a market in, under the name that it was asked for by."""
        kind = self.feed.kind
        pages = TradePages if kind == TRADE else AggregatePages
        market = MarketFeed(
            name,
            handle,
            self.feed,
            trades=pages(self.side, symbol),
            normalize=FRAMES.normalize,
            normalize_best=FRAMES.normalize_best,
        )
        venue_symbol = symbol.venue_symbol
        self.symbols[venue_symbol] = symbol
        trades, best = (stream_name(venue_symbol, each) for each in (kind, BEST))
        if self._best is None:
            self.feed.add(venue_symbol, market, trades=trades, others=[best])
        else:
            self.feed.add(venue_symbol, market, trades=trades)
            self._best.add(venue_symbol, market, others=[best])
        market.trading = symbol.trading

    async def first_quotes(self) -> dict[str, Quote]:
        """A quote for every market, with `last` if it has ever traded."""
        symbols = list(self.symbols.values())
        if not symbols:
            return {}
        prices = await self.side.prices(symbols)
        books = await self.side.books(symbols)
        quotes = {}
        for venue_symbol, market in self.feed.markets.items():
            bid, ask = books.get(venue_symbol, (0.0, 0.0))
            last = prices.get(venue_symbol, 0.0)
            told = {"last": last, "bid": bid, "ask": ask}
            known: Quote = {field: price for field, price in told.items() if price}
            quotes[market.symbol] = known | {"symbol": market.symbol, "ticks": []}
        return quotes

    async def watch_status(self) -> None:
        """Look up the status of markets from which nothing is heard, for ever."""
        status_s = self.feed.config.status_s
        while True:
            await trio.sleep(status_s)
            since_s = time.monotonic() - status_s
            quiet = [
                venue_symbol
                for venue_symbol, market in self.feed.markets.items()
                if not market.trading or market.heard_s < since_s
            ]
            try:
                await self._look_up(quiet)
            except PikerError as error:
                self.feed.log.warning("the status of markets is not known: %s", error)

    async def _look_up(self, quiet: Sequence[str]) -> None:
        if not quiet:
            return
        asked_s, asked_ns = time.monotonic(), time.time_ns()
        statuses = await self.side.statuses([self.symbols[name] for name in quiet])
        for venue_symbol in quiet:
            market = self.feed.markets[venue_symbol]
            status = statuses.get(venue_symbol, "not listed any more")
            trading = status == TRADING
            if not trading and market.heard_s > asked_s:
                continue  # it has traded since: the answer is of before, or too early
            if trading != market.trading:
                self.feed.log.info("%s: the venue says %s", market.symbol, status)
            market.set_trading(trading, asked_ns=asked_ns)


async def stream_quotes(
    send_chan: Any,
    symbols: Sequence[str],
    shm: dict[str, Any],
    feed_is_live: trio.Event,
    loglevel: str | None = None,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Stream trades and best quotes of `symbols` into `send_chan`, for ever.

    `shm`: each symbol's market handle. Starts with `([FeedInit], {symbol: quote})` as
    soon as the last prices are known; sets `feed_is_live` when all is subscribed.
    Raises NotFound for an unknown symbol, ProviderError for one that does not trade and
    was not fed before, and if the venue refuses one or does not answer at the start.
    Source: streams trade, aggTrade and bookTicker.
    """
    if loglevel is not None:
        logging.getLogger("providers.binance").setLevel(loglevel.upper())
    async with get_client() as client:
        spot, usdm = _make_sides(client, send_chan)
        inits = []
        for name in symbols:
            symbol = await _trading_symbol(client, name, shm[name])
            side = spot if client.side(symbol.fqme) is client.spot else usdm
            side.add(name, symbol, shm[name])
            details = {"symbol": symbol, "statistics": side.feed.statistics}
            inits.append(FeedInit(name, symbol.market, details))
        async with open_nursery() as nursery:
            await _start([spot, usdm], nursery, inits, feed_is_live, task_status)


def _make_sides(client: Client, send_chan: Any) -> tuple[SideFeed, SideFeed]:
    config, usdm = client.config, client.config.of_usdm()
    kind = TRADE if config.trades == "trade" else AGGREGATE
    path = "/stream?timeUnit=MICROSECOND"
    spot = BinanceFeed(config, send_chan, key="ws_url", path=path, kind=kind)
    key, path = "usdm_ws_url", _path(config.usdm_market_route)
    aggregates = BinanceFeed(usdm, send_chan, key=key, path=path, kind=AGGREGATE)
    path = _path(config.usdm_public_route)
    best = BinanceFeed(usdm, send_chan, key=key, path=path, kind=BEST)
    return SideFeed(client.spot, spot), SideFeed(client.usdm, aggregates, best)


def _path(route: str) -> str:
    return f"{route.rstrip('/')}/stream"


async def _trading_symbol(client: Client, name: str, handle: Any) -> Symbol:
    """The symbol of a name. ProviderError if it does not trade and never was fed."""
    symbol = await client.symbol(name)
    if not symbol.trading and handle.status == "starting":
        table = await client.side(name).table(refresh=True)
        symbol = table.find(name)
        if not symbol.trading:
            where = client.side(name).name
            raise ProviderError(
                f"{symbol.fqme} does not trade: its status at {where} is "
                f"{symbol.status}, and only symbols that are {TRADING} have live data"
            )
    return symbol


async def _start(
    sides: Sequence[SideFeed],
    nursery: trio.Nursery,
    inits: Sequence[FeedInit],
    feed_is_live: trio.Event,
    task_status: trio.TaskStatus[Any],
) -> None:
    """Run all streams; tell of the start when the first quotes are known."""
    feeds = [feed for side in sides for feed in side.feeds]
    for feed in feeds:
        nursery.start_soon(feed.stream.run)
        nursery.start_soon(watch, feed, nursery)
    quotes: dict[str, Quote] = {}
    for side in sides:
        if side.symbols:
            nursery.start_soon(side.watch_status)
            nursery.start_soon(side.side.keep_time, side.feed.config.clock_every_s)
        told = await _first_quotes(side)
        for quote in told.values():
            await side.feed.send(quote)
        quotes |= told
    task_status.started((list(inits), quotes))
    for feed in feeds:
        await feed.live.wait()
    feed_is_live.set()


async def _first_quotes(side: SideFeed) -> dict[str, Quote]:
    """They are asked for again when the venue asks for patience."""
    while True:
        try:
            return await side.first_quotes()
        except DataThrottle as error:
            await trio.sleep(error.retry_after)
