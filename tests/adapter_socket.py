"""A venue that never was, over WebSocket on loopback, and its provider's feed.

It trades numbered trades in every market, tells them to whoever subscribed to
`trade:<market>`, answers a request as a whole or topic by topic, and fails on demand.
"""

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import msgspec
import numpy as np
import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.server import ServerConnection, serve

import piker_core as pk
from piker_core.adapter.defaults import StreamLimits
from piker_core.adapter.market_feed import MarketFeed, Trades
from piker_core.adapter.stream import Link
from piker_core.adapter.subscriptions import TopicRequest
from piker_core.adapter.venue_feed import VenueFeed, run_feed
from piker_core.feeder import run_clock
from piker_core.simulation.line import Gate, Line
from piker_core.tasks import open_nursery

NS = 1_000_000_000


class Trade(msgspec.Struct):
    """One trade as the venue tells it."""

    topic: str
    id: int
    time_ns: int
    price: float
    size: float


class Message(msgspec.Struct):
    """Any message of the venue."""

    trade: Trade | None = None
    ok: int | str | None = None
    no: int | str | None = None
    why: str = ""
    bye: bool = False


class Client:
    """One connection at the venue: what it subscribed to, what it sent and when."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.topics: set[str] = set()
        self.sent: list[tuple[float, str, list[str]]] = []
        self._out, self._queue = trio.open_memory_channel[bytes](math.inf)

    def tell(self, message: Any) -> None:
        """Queue a message, after those before it."""
        self._out.send_nowait(msgspec.json.encode(message))

    async def write(self) -> None:
        """Send what is queued until the connection ends."""
        with contextlib.suppress(
            ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError
        ):
            async for raw in self._queue:
                await self.socket.send(raw, text=True)

    @property
    def line(self) -> Line:
        return cast(Line, self.socket.stream)


class AcmeVenue:
    """The servers and the truth."""

    def __init__(self) -> None:
        self.url = ""
        self.clients: list[Client] = []
        self.ever = 0
        self.trades: defaultdict[str, list[Trade]] = defaultdict(list)
        self.first_id = 1
        self.pause_s = 0.005
        self.by_topic = False
        self.refuse: dict[str, str] = {}
        self.deaf = self.closed = self.trading_stopped = False
        self.mute: set[str] = set()
        self.lists = 0
        self.list_error: Exception | None = None

    # What tests do to it

    def cut(self) -> None:
        """Reset every connection."""
        for client in self.clients:
            client.line.reset()

    def say(self, message: dict[str, Any]) -> None:
        """Tell everybody something."""
        for client in self.clients:
            client.tell(message)

    def trade(self, market: str, time_ns: int | None = None) -> Trade:
        """Let a market trade now; returns the trade, which is told."""
        done = self.trades[market]
        number = self.first_id + len(done)
        price = 100.0 + number % 7
        at_ns = time.time_ns() if time_ns is None else time_ns
        trade = Trade(f"trade:{market}", number, at_ns, price, 0.5)
        done.append(trade)
        for client in self.clients:
            if trade.topic in client.topics and market not in self.mute:
                client.tell({"trade": trade})
        return trade

    # The server

    async def run(
        self, markets: Sequence[str], task_status: trio.TaskStatus[None]
    ) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        host, port = listener.socket.getsockname()[:2]
        self.url = f"ws://{host}:{port}/"
        gate = cast(trio.SocketListener, Gate(listener, self._admit))
        async with trio.open_nursery() as nursery:
            await nursery.start(
                partial(
                    serve,
                    self._serve,
                    listeners=[gate],
                    compression=None,
                    ping_interval=None,
                    close_timeout=0.1,
                )
            )
            task_status.started()
            while True:
                await trio.sleep(self.pause_s)
                for market in () if self.trading_stopped else markets:
                    self.trade(market)

    def _admit(self, line: Line) -> bool:
        if self.closed:
            line.reset()
        return not self.closed

    async def _serve(self, socket: ServerConnection) -> None:
        client = Client(socket)
        self.clients.append(client)
        self.ever += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.write)
                async for raw in socket:
                    self._answer(client, msgspec.json.decode(raw))
                nursery.cancel_scope.cancel()
        except* (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.clients.remove(client)

    def _answer(self, client: Client, request: dict[str, Any]) -> None:
        verb, topics, number = request["op"], request["topics"], request["n"]
        client.sent.append((time.monotonic(), verb, topics))
        refused = {t: self.refuse[t] for t in topics if t in self.refuse}
        if verb == "unsubscribe":
            client.topics.difference_update(topics)
        elif verb == "subscribe" and (self.by_topic or not refused):
            client.topics.update(set(topics) - set(refused))
        if self.deaf:
            return
        answers: list[dict[str, Any]] = [{"ok": number}]
        if self.by_topic and topics:
            answers = [
                {"no": t, "why": refused[t]} if t in refused else {"ok": t}
                for t in topics
            ]
        elif refused:
            answers = [{"no": number, "why": next(iter(refused.values()))}]
        for answer in answers:
            client.tell(answer)


@asynccontextmanager
async def open_acme(*markets: str) -> AsyncIterator[AcmeVenue]:
    """A venue that trades these markets."""
    venue = AcmeVenue()
    async with trio.open_nursery() as nursery:
        await nursery.start(venue.run, markets)
        yield venue
        nursery.cancel_scope.cancel()


class AcmeList:
    """The venue's list of a market's trades: by id where one is known, else by time."""

    page = 100

    def __init__(self, venue: AcmeVenue, market: str) -> None:
        self._venue, self._market = venue, market

    async def walk(
        self, since_ns: int, until_ns: int, first_id: int
    ) -> AsyncGenerator[tuple[Trades, int], None]:
        """See `TradeList`."""
        self._venue.lists += 1
        await trio.lowlevel.checkpoint()
        if self._venue.list_error is not None:
            raise self._venue.list_error
        known = self._venue.trades[self._market]
        if first_id >= 0:
            wanted = [trade for trade in known if trade.id >= first_id]
        else:
            wanted = [t for t in known if since_ns <= t.time_ns < until_ns]
        for place in range(0, len(wanted) or 1, self.page):
            yield rows(wanted[place : place + self.page]), 0


def rows(trades: Sequence[Trade]) -> Trades:
    """Trades as TICK_DTYPE."""
    ticks = np.zeros(len(trades), pk.TICK_DTYPE)
    for name in ("id", "time_ns", "price", "size"):
        ticks[name] = [getattr(trade, name) for trade in trades]
    ticks["count"], ticks["type"] = 1, pk.TICK_TYPES["trade"]
    return ticks


def normalize(symbol: str, trades: Sequence[Trade]) -> dict[str, Any]:
    """Trades of a frame as a quote."""
    ticks = [
        {
            "type": "trade",
            "price": trade.price,
            "size": trade.size,
            "time_ns": trade.time_ns,
            "id": trade.id,
        }
        for trade in trades
    ]
    return {"symbol": symbol, "last": trades[-1].price, "ticks": ticks}


class AcmeFeed(VenueFeed):
    """The provider's side."""

    probes = False
    engine: pk.FeedEngine

    def __init__(self, venue_url: str, send_chan: Any, **limits: Any) -> None:
        known = {"liveness_s": 2.0, "ack_timeout_s": 2.0, "overlap_s": 0.1}
        super().__init__("acme", StreamLimits(**(known | limits)), send_chan)
        self.venue_url = venue_url

    async def url(self) -> str:
        return self.venue_url

    def encode(self, request: TopicRequest) -> bytes | None:
        if request.verb == "probe" and not self.probes:
            return None
        return msgspec.json.encode(
            {"op": request.verb, "topics": request.topics, "n": request.number}
        )

    async def take(self, link: Link, raw: bytes) -> None:
        message = msgspec.json.decode(raw, type=Message)
        if message.trade is not None:
            name = message.trade.topic.partition(":")[2]
            if market := self.market(name, raw):
                await market.take([message.trade])
        elif message.bye:
            link.rotate()
        elif message.no is not None:
            refuse = link.refuse if isinstance(message.no, str) else link.refuse_request
            refuse(message.no, message.why)  # type: ignore[arg-type]
        elif message.ok is not None:
            ack = link.ack if isinstance(message.ok, str) else link.ack_request
            ack(message.ok)  # type: ignore[arg-type]
        else:
            self.complain("unknown", "a frame of an unknown channel", raw)


@asynccontextmanager
async def open_feed(
    venue: AcmeVenue, *markets: str, namespace: str, **limits: Any
) -> AsyncIterator[AcmeFeed]:
    """A running feed of these markets into rings; `feed.handles` are theirs."""
    with pk.open_engine("acme", namespace=namespace) as engine:
        feed = AcmeFeed(venue.url, engine.send_channel(), **limits)
        feed.engine = engine
        for market in markets:
            add_market(venue, feed, market)
        async with open_nursery() as nursery:
            nursery.start_soon(run_clock, engine)
            live = trio.Event()
            start = partial(run_feed, feed, [], no_quotes, feed_is_live=live)
            await nursery.start(lambda task_status: start(task_status=task_status))
            yield feed
            nursery.cancel_scope.cancel()


def add_market(venue: AcmeVenue, feed: AcmeFeed, market: str) -> MarketFeed:
    """Take a market into a feed."""
    handle = feed.engine.add_market(f"{market}.acme", capacity={1: 4096, 60: 4096})
    trades = AcmeList(venue, market)
    added = MarketFeed(market, handle, feed, trades=trades, normalize=normalize)
    feed.add(market, added, trades=f"trade:{market}")
    return added


async def no_quotes() -> dict[str, Any]:
    """First quotes of a venue that has none."""
    return {}


async def wait_until(look: Any) -> None:
    while not look():
        await trio.sleep(0.01)
