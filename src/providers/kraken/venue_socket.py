"""The WebSocket v2 side of a simulated Kraken.

Rules this file owns:

1. A frame that goes to several clients is encoded once.
2. All trades of one burst are in one frame; each pair's frames keep their order, unless
   a fault says otherwise.
"""

import random
from collections import defaultdict
from functools import partial
from http import HTTPStatus
from typing import cast

import trio
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.trio.server import Server, ServerConnection, serve

from piker_core.simulation.limits import AttemptLimit
from piker_core.simulation.line import Gate, Line
from piker_core.simulation.market import Rows

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
_CLOSE_TIMEOUT_S = 2.0


class SocketServer:
    """All WebSocket clients of a venue, and what they are told."""

    def __init__(
        self, exchange: PairExchange, faults: Faults, *, seed: int, limits: Limits
    ) -> None:
        self.limits = limits
        self.links: set[Link] = set()
        self.accepted = 0
        self.refused = 0
        self.dropped = 0
        self.sent = 0
        self._exchange = exchange
        self._faults = faults
        self._desk = Desk(exchange, faults)
        self._attempts = AttemptLimit(limits.attempts, limits.attempts_s)
        self._audience: defaultdict[Topic, set[Link]] = defaultdict(set)
        self._numbers = random.Random(seed)
        self._nursery: trio.Nursery
        self._server: Server

    # Connections

    async def run(
        self,
        listener: trio.SocketListener,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled."""
        gate = cast(trio.SocketListener, Gate(listener, self._admit))
        start = partial(
            serve,
            self._serve_client,
            listeners=[gate],
            process_request=self._check,
            compression=None,
            ping_interval=None,
            close_timeout=_CLOSE_TIMEOUT_S,
            server_header="cloudflare",
        )
        async with trio.open_nursery() as self._nursery:
            self._server = await self._nursery.start(start)
            self._nursery.start_soon(self._beat)
            task_status.started()

    async def close(self) -> None:
        """Close the listener and every connection, code 1001."""
        for link in self.links:
            if link.line.frozen:
                link.reset()
        await self._server.aclose()

    def _admit(self, line: Line) -> bool:
        if self._faults.refusing:
            self.refused += 1
            line.reset()
        elif self._faults.frozen:
            self._nursery.start_soon(line.swallow)
        else:
            return True
        return False

    def _check(self, socket: ServerConnection, request: Request) -> Response | None:
        """Turn a handshake down if the path or the rate of attempts is wrong."""
        if not self._attempts.take(trio.current_time()):
            self.refused += 1
            return socket.respond(HTTPStatus.TOO_MANY_REQUESTS, "error code: 1015\n")
        if request.path.partition("?")[0] != PATH:
            return socket.respond(HTTPStatus.NOT_FOUND, "Not Found\n")
        return None

    async def _serve_client(self, socket: ServerConnection) -> None:
        # connection ids are over 2**63, as the venue's are
        link = Link(socket, self._numbers.getrandbits(63) | 1 << 63, self)
        self.links.add(link)
        self.accepted += 1
        link.reply(status_frame(self._exchange.system, link.number))
        try:
            await link.run(self._desk)
        finally:
            self.links.discard(link)
            for topic in link.topics:
                self._audience[topic].discard(link)

    async def _beat(self) -> None:
        closing: set[Link] = set()
        while True:
            now_s = trio.current_time()
            closing &= self.links
            for link in self.links - closing:
                if link.beat(now_s):
                    closing.add(link)
                    self._nursery.start_soon(link.close, CloseCode.NORMAL_CLOSURE)
            await trio.sleep(_BEAT_S)

    def reset_all(self) -> int:
        """Reset every connection; returns how many."""
        links = tuple(self.links)
        for link in links:
            link.reset()
        return len(links)

    def freeze_all(self) -> int:
        """Make every connection silent and deaf; returns how many."""
        fresh = [link for link in self.links if not link.line.frozen]
        for link in fresh:
            link.line.frozen = True
        return len(fresh)

    def close_all(self, code: int, reason: str) -> int:
        """Close every connection; returns how many."""
        for link in self.links:
            self._nursery.start_soon(link.close, code, reason)
        return len(self.links)

    def send_all(self, frame: bytes) -> int:
        """Send a frame to every connection; returns to how many."""
        for link in self.links:
            link.send(frame)
        return len(self.links)

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
