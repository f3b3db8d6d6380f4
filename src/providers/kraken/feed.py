"""Quotes from Kraken's WebSocket v2: trades and best quotes of all markets.

Acknowledgements come one for each symbol of a request. Heartbeats, once a second, tell
a quiet market from a dead connection. While the trading engine is not online, markets
are closed, and connections are not hurried.

Source: https://docs.kraken.com/exchange/guides/websockets/reconnection
"""

import logging
from collections.abc import Hashable, Sequence
from typing import Any

import trio

from piker_core.adapter.market_feed import MarketFeed
from piker_core.adapter.stream import Link
from piker_core.adapter.subscriptions import Topic, TopicRequest
from piker_core.adapter.venue_feed import VenueFeed, run_feed
from piker_core.errors import ProviderError
from piker_core.messages import FeedInit

from .api import Client, get_client, get_mkt_info
from .markets import PROVIDER, Pair
from .pages import TradePages
from .wire import (
    FRAMES,
    Ack,
    Heartbeat,
    Quote,
    StatusFrame,
    TickerFrame,
    TradeFrame,
    Unknown,
    decode_frame,
    rows_by_symbol,
    subscribe_request,
)

_AFTER_MAINTENANCE_S = 5.0
_ASKED: dict[str, dict[str, Any]] = {
    "trade": {"snapshot": True},
    "ticker": {"event_trigger": "bbo", "snapshot": True},
}


class KrakenFeed(VenueFeed):
    """The markets of Kraken and what its frames mean for them."""

    def __init__(self, client: Client, send_chan: Any) -> None:
        super().__init__(PROVIDER, client.config, send_chan)
        self.client = client
        self.pairs: dict[str, Pair] = {}

    def add_pair(self, symbol: str, pair: Pair, handle: Any) -> None:
        """Take a market into the stream."""
        venue_symbol = pair.v2_symbol
        self.pairs[venue_symbol] = pair
        market = MarketFeed(
            symbol,
            handle,
            self,
            trades=TradePages(self.client, pair),
            normalize=FRAMES.normalize,
            normalize_best=FRAMES.normalize_best,
        )
        trades, ticker = ("trade", venue_symbol), ("ticker", venue_symbol)
        self.add(venue_symbol, market, trades=trades, others=[ticker])

    async def first_quotes(self) -> dict[str, Quote]:
        """A quote with `last` for every market: REST's ticker is never silent."""
        tickers = await self.client.ticker(list(self.pairs.values()))
        quotes = {}
        for venue_symbol, pair in self.pairs.items():
            symbol, ticker = self.markets[venue_symbol].symbol, tickers[pair.key]
            quotes[symbol] = {
                "symbol": symbol,
                "last": ticker.last,
                "bid": ticker.bid,
                "ask": ticker.ask,
                "ticks": [],
            }
        return quotes

    # What the stream asks

    async def url(self) -> str:
        """Where to connect."""
        return self.client.config.ws_url

    def group(self, topic: Topic) -> Hashable:
        """A request is for one channel."""
        return topic[0]

    def encode(self, request: TopicRequest) -> bytes | None:
        """A request for some symbols of one channel."""
        if request.verb == "probe":
            return None  # heartbeats are signs of life enough
        channel = request.topics[0][0]
        symbols = [topic[1] for topic in request.topics]
        asked = _ASKED[channel] if request.verb == "subscribe" else {}
        return subscribe_request(
            channel, symbols, request.number, method=request.verb, **asked
        )

    async def take(self, link: Link, raw: bytes) -> None:
        """Sort a frame out."""
        frame = decode_frame(raw)
        if isinstance(frame, TradeFrame):
            await self._take_trades(frame, raw)
        elif isinstance(frame, TickerFrame):
            for row in frame.data:
                if market := self.market(row.symbol, raw):
                    await market.take_best(row, link.heard_ns)
        elif isinstance(frame, StatusFrame):
            self._take_status(frame)
        elif isinstance(frame, Ack):
            self._take_ack(link, frame, raw)
        elif isinstance(frame, Unknown):
            self.complain("unknown", "a frame of an unknown channel", raw)
        else:
            assert isinstance(frame, Heartbeat)

    async def _take_trades(self, frame: TradeFrame, raw: bytes) -> None:
        """Every element of `data`, by market, in the order of the frame."""
        snapshot = frame.type == "snapshot"
        if not snapshot and frame.type != "update":
            raise ProviderError(f"trade frame of type {frame.type!r}")
        for venue_symbol, rows in rows_by_symbol(frame).items():
            if market := self.market(venue_symbol, raw):
                await market.take(rows, repeated=snapshot)

    def _take_status(self, frame: StatusFrame) -> None:
        trading = all(row.system == "online" for row in frame.data)
        if trading == self.trading:
            return
        self.log.info("kraken is %s", ", ".join(row.system for row in frame.data))
        self.patience_s = 0.0 if trading else _AFTER_MAINTENANCE_S
        self.set_trading(trading)

    def _take_ack(self, link: Link, ack: Ack, raw: bytes) -> None:
        asked = link.book.topics_of(ack.req_id or 0)
        channel, symbol = asked[0][0] if asked else "", ack.symbol
        if ack.result is not None:
            channel = ack.result.channel or channel
            symbol = ack.result.symbol or symbol
        topic = (channel, symbol)
        if ack.method == "unsubscribe":
            link.book.ended(topic)
        elif ack.success or ack.error == "Already subscribed":
            link.ack(topic)
        elif not link.refuse(topic, ack.error):
            self.complain("unknown", f"an unexpected refusal: {ack.error}", raw)


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
    Raises NotFound for an unknown symbol, ProviderError if the venue refuses one or
    does not answer at the start. Source: Kraken WebSocket v2, trade and ticker.
    """
    if loglevel is not None:
        logging.getLogger("providers.kraken").setLevel(loglevel.upper())
    async with get_client() as client:
        feed = KrakenFeed(client, send_chan)
        inits = []
        for symbol in symbols:
            mkt, pair = await get_mkt_info(symbol, client=client)
            feed.add_pair(symbol, pair, shm[symbol])
            details = {"pair": pair, "statistics": feed.statistics}
            inits.append(FeedInit(symbol, mkt, details))
        await run_feed(
            feed,
            inits,
            feed.first_quotes,
            feed_is_live=feed_is_live,
            task_status=task_status,
        )
