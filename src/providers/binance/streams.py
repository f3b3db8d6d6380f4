"""Binance's WebSocket streams, and what their frames mean for the markets.

1. The venue acknowledges what it does not know, and then says nothing: symbols are
   looked up before, and a market that stays silent is compared with the venue's list.
2. Best quotes carry the number of the book's update: an older one, of a connection that
   is being replaced, is left out.
3. A market that trades is open, whatever its status was.
4. Ids and times rise together: a trade that is far ahead by its id and far behind by
   its time is none, and would spoil the count of ids.

Source: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
"""

from collections.abc import Sequence
from typing import Any

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from piker_core.adapter.market_feed import MarketFeed
from piker_core.adapter.stream import Link
from piker_core.adapter.subscriptions import Topic, TopicRequest
from piker_core.adapter.trades import NS
from piker_core.adapter.venue_feed import VenueFeed
from piker_core.errors import ConfigError, ProviderError

from .api import Config
from .markets import PROVIDER
from .wire import (
    AGGREGATE,
    BEST,
    TRADE,
    Aggregate,
    Answer,
    Best,
    Shutdown,
    Trade,
    control,
    decode_frame,
    decode_time,
)

_FAR_NS = 60 * NS
_ROWS: dict[str, tuple[type[Trade | Aggregate], ...]] = {
    TRADE: (Trade,),
    AGGREGATE: (Aggregate,),
    BEST: (),
}
_METHODS = {
    "subscribe": "SUBSCRIBE",
    "unsubscribe": "UNSUBSCRIBE",
    "probe": "LIST_SUBSCRIPTIONS",
}


class BinanceFeed(VenueFeed):
    """The streams at one address; `key` is that of the address in `[binance]`.

    `kind` is what is told of trades: each, aggregates of them, or nothing.
    """

    def __init__(
        self, config: Config, send_chan: Any, *, key: str, path: str, kind: str
    ) -> None:
        super().__init__(PROVIDER, config, send_chan)
        self.config, self.kind = config, kind
        self._rows = _ROWS[kind]
        self.url_key = key
        self._url = _checked_address(getattr(config, key), key) + path
        self._updates: dict[str, int] = {}

    async def url(self) -> str:
        """Where to connect."""
        return self._url

    def encode(self, request: TopicRequest) -> bytes | None:
        """A control message with the number of the request."""
        streams = [str(topic) for topic in request.topics]
        return control(_METHODS[request.verb], request.number, streams)

    async def take(self, link: Link, raw: bytes) -> None:
        """Sort a frame out."""
        frame = decode_frame(raw)
        if isinstance(frame, self._rows):
            if market := self.market(frame.symbol, raw):
                if frame.id > market.tracker.expected:
                    _check_jump(frame, market)
                if not market.trading:
                    market.set_trading(True)
                await market.take(frame)
        elif isinstance(frame, Best):
            if market := self.market(frame.symbol, raw):
                await self._take_best(market, frame, link)
        elif isinstance(frame, Answer):
            self._take_answer(link, frame, raw)
        elif isinstance(frame, Shutdown):
            self.log.info("the server of %s is about to end", self._url)
            link.rotate()
        else:
            self.complain("unknown", "a frame that nobody asked for", raw)

    async def _take_best(self, market: MarketFeed, frame: Best, link: Link) -> None:
        if frame.update > self._updates.get(frame.symbol, -1):
            self._updates[frame.symbol] = frame.update
            await market.take_best(frame, link.heard_ns)

    def _take_answer(self, link: Link, answer: Answer, raw: bytes) -> None:
        number = answer.id if isinstance(answer.id, int) else -1
        if answer.error:
            known = link.refuse_request(number, answer.error)
        else:
            known = link.ack_request(number)
        if not known:
            text = f"an answer to nothing that was asked: {answer.error or 'done'}"
            self.complain("unknown", text, raw)

    def lost(self, topics: Sequence[Topic], cause: str, heard_ns: int) -> None:
        """No connection carries these any more; their updates may begin anew."""
        self._updates.clear()
        super().lost(topics, cause, heard_ns)


def _check_jump(row: Trade | Aggregate, market: MarketFeed) -> None:
    """A trade after which others are missing. Raises ProviderError if it is none."""
    if decode_time(row.time) < market.tracker.newest_ns - _FAR_NS:
        raise ProviderError(
            f"trade {row.id} at {row.time} is newer by its id and older by its time "
            f"than trade {market.tracker.expected - 1} of {market.symbol}"
        )


def _checked_address(text: str, key: str) -> str:
    """An address without a slash at its end. Raises ConfigError that names its key."""
    try:
        parse_uri(text)
    except InvalidURI:
        raise ConfigError(
            f"[{PROVIDER}] {key} {text!r} must be like wss://stream.binance.com:9443"
        ) from None
    return text.rstrip("/")
