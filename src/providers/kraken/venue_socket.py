"""The WebSocket v2 side of a simulated Kraken.

Rules this file owns:

1. A frame that goes to several clients is encoded once.
2. All trades of one burst are in one frame; each pair's frames keep their order, unless
   a fault says otherwise.
"""

import random
from collections import defaultdict
from http import HTTPStatus

import trio
from websockets.frames import CloseCode
from websockets.http11 import Request

from piker_core.simulation.limits import AttemptLimit
from piker_core.simulation.line import Line
from piker_core.simulation.link import Refusal
from piker_core.simulation.sockets import SocketServer as CommonServer
from piker_core.simulation.totals import Rows

from .venue_faults import Faults
from .venue_frames import (
    INTERVALS,
    ohlc_update,
    status_frame,
    ticker_frame,
    trade_frame,
)
from .venue_link import Limits, Link
from .venue_pairs import PairExchange, PairMarket
from .venue_requests import Desk, Topic

PATH = "/v2"
_BEAT_S = 0.1


class SocketServer(CommonServer[Link]):
    """All WebSocket clients of a venue, and what they are told."""

    def __init__(
        self, exchange: PairExchange, faults: Faults, *, seed: int, limits: Limits
    ) -> None:
        super().__init__(faults, AttemptLimit(limits.attempts, limits.attempts_s))
        self.limits = limits
        self.desk = Desk(exchange, faults)
        self._exchange = exchange
        self._audience: defaultdict[Topic, set[Link]] = defaultdict(set)
        self._numbers = random.Random(seed)

    # Connections

    def make_link(self, line: Line) -> Link:
        """The connection on a line; ids are over 2**63, as the venue's are."""
        return Link(line, self._numbers.getrandbits(63) | 1 << 63, self)

    def check(self, link: Link, request: Request) -> Refusal | None:
        """Turn a handshake down if the path is wrong."""
        if request.path.partition("?")[0] != PATH:
            return HTTPStatus.NOT_FOUND, "Not Found\n"
        return None

    def opened(self, link: Link) -> None:
        """Greet a client."""
        link.reply(status_frame(self._exchange.system, link.number))

    def ended(self, link: Link) -> None:
        """Forget a client."""
        for topic in link.topics:
            self._audience[topic].discard(link)

    async def beat(self) -> None:
        """Send heartbeats, and close connections that are idle."""
        while True:
            now_s = trio.current_time()
            for link in self.links:
                if link.beat(now_s):
                    link.close(CloseCode.NORMAL_CLOSURE)
            await trio.sleep(_BEAT_S)

    # Subscriptions

    def join(self, link: Link, topic: Topic) -> None:
        """Add a client to a topic's audience."""
        self._audience[topic].add(link)

    def leave(self, link: Link, topic: Topic) -> None:
        """Remove it; a trade frame that a fault put off is sent first."""
        self._audience[topic].discard(link)
        market = self._exchange.find(topic.symbol)
        if topic.channel == "trade" and market is not None:
            for rows in link.held.pop(topic.symbol, ()):
                link.send(trade_frame(market.pair, rows))

    # What the exchange tells

    def on_trades(self, market: PairMarket, bursts: list[Rows]) -> None:
        """Send trades, running bars and the ticker."""
        symbol = market.pair.symbol
        for rows in bursts:
            self._send_trades(market, rows)
            self._send_bars(market, int(rows["time_ns"][0]))
        self._send_ticker(market, Topic("ticker", symbol, "trades"))
        self._send_ticker(market, Topic("ticker", symbol, "bbo"))

    def on_quote(self, market: PairMarket) -> None:
        """Send the ticker to those who follow the best quote."""
        self._send_ticker(market, Topic("ticker", market.pair.symbol, "bbo"))

    def on_system(self, system: str) -> None:
        """Send the new state to everybody."""
        for link in self.links:
            link.send(status_frame(system, link.number))

    def _send_trades(self, market: PairMarket, rows: Rows) -> None:
        symbol, faults = market.pair.symbol, self._faults
        plain: bytes | None = None
        for link in self._audience[Topic("trade", symbol)]:
            if link.line.frozen:
                continue
            broken = faults.broken_frame()
            if broken is not None:
                link.send(broken)
            for shaped in faults.shape(link.held[symbol], rows):
                if shaped is not rows:
                    link.send(trade_frame(market.pair, shaped))
                    continue
                plain = plain or trade_frame(market.pair, rows)
                link.send(plain)

    def _send_bars(self, market: PairMarket, time_ns: int) -> None:
        for interval in INTERVALS:
            links = self._audience[Topic("ohlc", market.pair.symbol, interval)]
            frame = ohlc_update(market, interval, time_ns) if links else None
            if frame is not None:
                for link in links:
                    link.send(frame)

    def _send_ticker(self, market: PairMarket, topic: Topic) -> None:
        links = self._audience[topic]
        if links:
            frame = ticker_frame(market, market.quote.time_ns)
            for link in links:
                link.send(frame)
