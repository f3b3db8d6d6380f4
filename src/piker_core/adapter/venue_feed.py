"""The markets of a venue over its WebSocket: what a provider's `feed.py` derives from.

1. Every acknowledgement is awaited and matched. A refusal of the first session is an
   error that names the market; a later one stops that market alone.
2. What the engine refuses is counted, logged once, and fetched later where it was a
   trade.

A provider gives `url`, `encode` and `take`, and names the topics of a market in `add`.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import Any

import trio

from piker_core.adapter.defaults import StreamLimits
from piker_core.adapter.market_feed import MarketFeed
from piker_core.adapter.stream import Link, RefusedError, Stream, StreamStatistics
from piker_core.adapter.subscriptions import Topic, TopicRequest
from piker_core.adapter.tap import tap_of
from piker_core.adapter.trades import Quote
from piker_core.adapter.watch import watch
from piker_core.errors import DataThrottle, PikerError
from piker_core.messages import FeedInit
from piker_core.tasks import open_nursery


class VenueFeed:
    """Markets, their topics, and the connections that carry them.

    `name` is the provider's; `send_chan` takes the quotes.
    """

    url_key = "ws_url"

    def __init__(self, name: str, limits: StreamLimits, send_chan: Any) -> None:
        self.section = name
        self.limits = limits
        self.patience_s = 0.0
        self.trading = True
        self.log = logging.getLogger(f"providers.{name}")
        self.stream = Stream(self, limits, log=self.log, tap=tap_of(send_chan))
        self.complain = self.stream.complain
        self.live = self.stream.live
        self.markets: dict[str, MarketFeed] = {}
        self._of: dict[Topic, MarketFeed] = {}
        self._trades: dict[Topic, MarketFeed] = {}
        self._send_chan = send_chan

    def statistics(self) -> StreamStatistics:
        """Counters of the stream."""
        return self.stream.statistics()

    # Markets

    def add(
        self,
        venue_symbol: str,
        market: MarketFeed,
        *,
        trades: Topic | None = None,
        others: Sequence[Topic] = (),
    ) -> None:
        """Take a market into the stream, before or while it runs.

        `trades` is the topic that decides whether the market is live; all its topics
        share a connection. Without, its trades come by another feed, which looks after
        it, and this one has only the other topics.
        """
        self.markets[venue_symbol] = market
        topics = list(others)
        if trades is not None:
            market.trading = self.trading
            self._trades[trades] = market
            topics.insert(0, trades)
        self._of.update(dict.fromkeys(topics, market))
        self.stream.add(topics)

    def remove(self, venue_symbol: str) -> None:
        """Take a market out of the stream; it is stopped if its trades come here."""
        market = self.markets.pop(venue_symbol)
        topics = [topic for topic, owner in self._of.items() if owner is market]
        self.stream.remove(topics)
        for topic in topics:
            del self._of[topic]
        if any(self._trades.pop(topic, None) for topic in topics):
            market.stop("unsubscribed", "it is not subscribed to any more")

    def set_trading(self, trading: bool) -> None:
        """Whether the venue trades at all now."""
        self.trading = trading
        for market in self.markets.values():
            market.set_trading(trading)

    def market(self, venue_symbol: str, raw: bytes) -> MarketFeed | None:
        """The market of a frame's symbol; None, and counted, if it is not ours."""
        market = self.markets.get(venue_symbol)
        if market is None:
            text = f"a frame of {venue_symbol!r}, which was not subscribed to"
            self.complain("unknown", text, raw)
        return market

    # Host of the markets

    async def send(self, quote: Quote) -> bool:
        """Push a quote; whether the engine took it. What it refuses is counted."""
        try:
            await self._send_chan.send(quote)
        except PikerError as error:
            self.complain("refused", f"a quote was refused: {error}", quote)
            return False
        return True

    def watched(self) -> Iterable[MarketFeed]:
        """The markets whose trades come here."""
        return self._trades.values()

    def abandon(self, market: MarketFeed, reason: str) -> None:
        """End the connection that does not tell of a market what it should."""
        for topic, owner in self._trades.items():
            if owner is market:
                self.stream.abandon(topic, reason)

    def look(self) -> None:
        """Look after the connections."""
        self.stream.look()

    # The venue's part of the stream: `url`, `encode` and `take` are the provider's

    async def url(self) -> str:
        """Where to connect."""
        raise NotImplementedError

    def encode(self, request: TopicRequest) -> bytes | None:
        """The message of a request; None if nothing is to be sent, which is an ack."""
        raise NotImplementedError

    async def take(self, link: Link, raw: bytes) -> None:
        """A message came in. ProviderError and ValueError: it was not understood."""
        raise NotImplementedError

    def group(self, topic: Topic) -> Hashable:
        """Topics of one group may be in one request; by default all."""
        return None

    def subscribed(self, topic: Topic) -> None:
        """A topic is served from now on."""
        market = self._trades.get(topic)
        if market is None:
            return
        try:
            market.up(time.time_ns())
        except Exception as error:  # noqa: BLE001 - logged by the market
            market.fail("its start failed", error)

    def refused(self, topic: Topic, reason: str) -> None:
        """The venue does not serve a topic."""
        market = self._of[topic]
        words = topic if isinstance(topic, str) else " ".join(map(str, topic))
        text = f"{self.section} refuses {market.symbol} ({words}): {reason}"
        if not self.live.is_set():
            raise RefusedError(text)
        self.log.warning("%s", text)
        if topic in self._trades:
            market.stop("refused", reason)

    def lost(self, topics: Sequence[Topic], cause: str, heard_ns: int) -> None:
        """No connection carries these any more."""
        for market in self._markets_of(topics):
            market.down(cause, heard_ns)

    def stale(self, topics: Sequence[Topic]) -> None:
        """Nothing was heard of these for too long."""
        for market in self._markets_of(topics):
            market.stale()

    def _markets_of(self, topics: Sequence[Topic]) -> list[MarketFeed]:
        return [self._trades[topic] for topic in topics if topic in self._trades]


async def run_feed(
    feed: VenueFeed,
    inits: Sequence[FeedInit],
    first_quotes: Callable[[], Awaitable[dict[str, Quote]]],
    *,
    feed_is_live: trio.Event,
    task_status: trio.TaskStatus[Any],
) -> None:
    """The rest of a provider's `stream_quotes`, once its markets are added; for ever.

    `first_quotes` asks for a quote with `last` of every market, by symbol; it is asked
    again when it is throttled.
    """
    async with open_nursery() as nursery:
        nursery.start_soon(feed.stream.run)
        nursery.start_soon(watch, feed, nursery)
        while True:
            try:
                quotes = await first_quotes()
                break
            except DataThrottle as error:
                await trio.sleep(error.retry_after)
        for quote in quotes.values():
            await feed.send(quote)
        task_status.started((list(inits), quotes))
        await feed.live.wait()
        feed_is_live.set()
