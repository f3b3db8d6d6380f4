"""Quotes from Kraken's WebSocket v2: one connection for all markets, for ever.

1. Every acknowledgement is awaited and matched by channel and symbol. A refusal of the
   first session is an error that names the symbol; a later one stops that market alone.
2. Alive is what sends: no frame for `liveness_s` means dead, whatever the socket says.
3. A lost connection is tried again at once, then with jittered back-off; no fault of
   the network, of DNS, of TLS or of the venue ends the stream.
4. A frame that cannot be understood is counted, logged once of its kind, and left.

Source: https://docs.kraken.com/exchange/guides/websockets/reconnection
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import trio
from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
from websockets.trio.client import ClientConnection, connect

from piker_core.errors import ConfigError, DataThrottle, PikerError, ProviderError
from piker_core.messages import FeedInit
from piker_core.tasks import Backoff, open_nursery

from .api import Client, get_client, get_mkt_info
from .market_feed import MarketFeed
from .markets import Pair
from .watch import watch
from .wire import (
    Ack,
    Heartbeat,
    Quote,
    StatusFrame,
    TickerFrame,
    TradeFrame,
    TradeRow,
    Unknown,
    decode_frame,
    subscribe_request,
)

BATCH = 100
"""Symbols a subscribe request."""
MOST_FRAME = 8 << 20
_PROVEN_S = 5.0
_AFTER_MAINTENANCE_S = 5.0

log = logging.getLogger("providers.kraken")


class StreamStatistics(msgspec.Struct, frozen=True):
    """Counters of the stream since it began."""

    frames: int = 0
    malformed: int = 0
    unknown: int = 0
    refused: int = 0
    no_space: int = 0
    refusals: int = 0
    connections: int = 0
    stale: int = 0


class Stream:
    """The connection and its markets."""

    def __init__(self, client: Client, send_chan: Any) -> None:
        self.client = client
        self.config = client.config
        self.markets: dict[str, MarketFeed] = {}
        self.pairs: dict[str, Pair] = {}
        self.live = trio.Event()
        self._send_chan = send_chan
        self._counts: Counter[str] = Counter()
        self._pending: dict[tuple[str, str], float] = {}
        self._requests: dict[int, str] = {}
        self._scope = trio.CancelScope()
        self._reason = ""
        self.trading = True
        self._heard_s = 0.0
        self._heard_ns = 0
        self._acked_s = 0.0

    def add(self, symbol: str, pair: Pair, handle: Any) -> None:
        """Take a market into the stream, before it runs."""
        venue_symbol = pair.v2_symbol
        self.pairs[venue_symbol] = pair
        self.markets[venue_symbol] = MarketFeed(symbol, handle, self.send)

    def statistics(self) -> StreamStatistics:
        """Counters of the stream."""
        return StreamStatistics(**self._counts)

    async def send(self, quote: Quote) -> bool:
        """Push a quote; whether the engine took it. What it refuses is counted."""
        try:
            await self._send_chan.send(quote)
        except PikerError as error:
            self.complain("refused", f"a quote was refused: {error}", quote)
            return False
        return True

    def complain(self, kind: str, text: str, frame: Any) -> None:
        """Count it, and log the first of its kind with the frame."""
        self._counts[kind] += 1
        if self._counts[kind] == 1:
            log.warning("%s; more are counted only: %.300r", text, frame)

    # Sessions

    async def run(self) -> None:
        """Connect, subscribe, receive; again and again. Ends by cancellation only."""
        backoff = Backoff()
        while True:
            self._acked_s = 0.0
            reason = await self._session()
            log.info("connection lost: %s", reason)
            for market in self.markets.values():
                market.down(reason[:39], self._heard_ns or time.time_ns())
            if self._acked_s and time.monotonic() - self._acked_s > _PROVEN_S:
                backoff.reset()
            wait_s = backoff.next_s()
            if not self.trading:
                wait_s = max(wait_s, _AFTER_MAINTENANCE_S)
            await trio.sleep(wait_s)

    async def _session(self) -> str:
        """One connection, until it is lost; why it was."""
        with trio.CancelScope() as self._scope:
            try:
                async with connect(
                    self.config.ws_url,
                    proxy=None,
                    compression=None,
                    max_size=MOST_FRAME,
                    max_queue=None,  # a full one keeps websockets 17.4 from closing
                    open_timeout=self.config.ack_timeout_s,
                    close_timeout=1.0,
                ) as connection:
                    self._counts["connections"] += 1
                    self._hear()
                    await self._subscribe(connection)
                    while True:
                        await self._take(await connection.recv(decode=False))
            except InvalidURI as error:
                raise ConfigError(f"kraken ws_url: {error}") from None
            except (OSError, WebSocketException, trio.BrokenResourceError) as error:
                return _cause(error)
            finally:
                self._pending.clear()
                self._heard_s = 0.0
        return self._reason

    async def _subscribe(self, connection: ClientConnection) -> None:
        self._requests.clear()
        deadline_s = time.monotonic() + self.config.ack_timeout_s
        symbols = list(self.markets)
        params: dict[str, dict[str, Any]] = {
            "trade": {"snapshot": True},
            "ticker": {"event_trigger": "bbo", "snapshot": True},
        }
        for channel, asked in params.items():
            for place in range(0, len(symbols), BATCH):
                batch = symbols[place : place + BATCH]
                number = len(self._requests) + 1
                self._requests[number] = channel
                for symbol in batch:
                    self._pending[channel, symbol] = deadline_s
                request = subscribe_request(channel, batch, number, **asked)
                await connection.send(request, text=True)

    def _hear(self) -> None:
        self._heard_s = time.monotonic()
        self._heard_ns = time.time_ns()

    def abandon(self, reason: str) -> None:
        """End the session: it is dead, whatever its socket says."""
        self._reason = reason
        self._scope.cancel()

    def silence_s(self) -> float:
        """How long nothing was heard on the connection; 0 without one."""
        return time.monotonic() - self._heard_s if self._heard_s else 0.0

    def overdue_acks(self) -> list[tuple[str, str]]:
        """Subscriptions, by channel and symbol, that should have been answered."""
        now_s = time.monotonic()
        return [key for key, due_s in self._pending.items() if now_s > due_s]

    def go_stale(self) -> None:
        """Nothing was heard for too long."""
        self._heard_s = 0.0
        self._counts["stale"] += 1
        for market in self.markets.values():
            if market.started:
                market.handle.set_status("stale")
        self.abandon(f"no frame for {self.config.liveness_s:g} s")

    # Frames

    async def _take(self, raw: bytes) -> None:
        self._hear()
        self._counts["frames"] += 1
        try:
            frame = decode_frame(raw)
            if isinstance(frame, TradeFrame):
                await self._take_trades(frame, raw)
            elif isinstance(frame, TickerFrame):
                for row in frame.data:
                    if market := self._market(row.symbol, raw):
                        await market.take_ticker(row, self._heard_ns)
            elif isinstance(frame, StatusFrame):
                self._take_status(frame)
            elif isinstance(frame, Ack):
                self._take_ack(frame, raw)
            elif isinstance(frame, Unknown):
                self.complain("unknown", "a frame of an unknown channel", raw)
            else:
                assert isinstance(frame, Heartbeat)
        except (ProviderError, ValueError) as error:
            if isinstance(error, RefusedError):
                raise
            self.complain("malformed", f"a frame was not understood: {error}", raw)
        except OSError as error:  # its trades are fetched when there is space again
            self.complain("no_space", str(error), raw)

    def _market(self, venue_symbol: str, raw: bytes) -> MarketFeed | None:
        market = self.markets.get(venue_symbol)
        if market is None:
            text = f"a frame of {venue_symbol!r}, which was not subscribed to"
            self.complain("unknown", text, raw)
        return market

    async def _take_trades(self, frame: TradeFrame, raw: bytes) -> None:
        """Every element of `data`, by market, in the order of the frame."""
        snapshot = frame.type == "snapshot"
        if not snapshot and frame.type != "update":
            raise ProviderError(f"trade frame of type {frame.type!r}")
        by_symbol: dict[str, list[TradeRow]] = {}
        for row in frame.data:
            by_symbol.setdefault(row.symbol, []).append(row)
        for venue_symbol, rows in by_symbol.items():
            if market := self._market(venue_symbol, raw):
                await market.take_trades(rows, snapshot=snapshot)

    def _take_status(self, frame: StatusFrame) -> None:
        trading = all(row.system == "online" for row in frame.data)
        if trading == self.trading:
            return
        self.trading = trading
        log.info("kraken is %s", ", ".join(row.system for row in frame.data))
        for market in self.markets.values():
            if market.started and market.handle.status in ("live", "closed"):
                market.handle.set_status("live" if trading else "closed")

    def _take_ack(self, ack: Ack, raw: bytes) -> None:
        channel = self._requests.get(ack.req_id or 0, "")
        symbol = ack.symbol
        if ack.result is not None:
            channel = ack.result.channel or channel
            symbol = ack.result.symbol or symbol
        if self._pending.pop((channel, symbol), None) is None:
            if not ack.success:
                self.complain("unknown", f"an unexpected refusal: {ack.error}", raw)
            return
        if not ack.success and ack.error != "Already subscribed":
            self._refuse(channel, symbol, ack.error, raw)
        elif channel == "trade":
            self.markets[symbol].up(time.time_ns(), trading=self.trading)
        if not self._pending:
            self._acked_s = time.monotonic()
            self.live.set()

    def _refuse(self, channel: str, symbol: str, text: str, raw: bytes) -> None:
        self._counts["refusals"] += 1
        name = self.markets[symbol].symbol
        sentence = f"kraken refuses the {channel} channel of {name} ({symbol}): {text}"
        if not self.live.is_set():
            raise RefusedError(sentence, frame=raw)
        log.warning("%s", sentence)
        if channel == "trade":
            self.markets[symbol].refuse()


def _cause(error: Exception) -> str:
    """Why a connection was lost, in a few words: they go into the gap record."""
    if isinstance(error, ConnectionClosed):
        code = error.rcvd.code if error.rcvd else 1006
        return f"connection closed ({code})"
    if isinstance(error, TimeoutError):
        return "connection timed out"
    if isinstance(error, OSError):
        return f"no connection ({error.strerror or type(error).__name__})"
    return f"no connection ({type(error).__name__})"


class RefusedError(ProviderError):
    """The venue refused a subscription before the stream was live."""


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
        log.setLevel(loglevel.upper())
    async with get_client() as client, open_nursery() as nursery:
        stream = Stream(client, send_chan)
        inits = []
        for symbol in symbols:
            mkt, pair = await get_mkt_info(symbol, client=client)
            stream.add(symbol, pair, shm[symbol])
            details = {"pair": pair, "statistics": stream.statistics}
            inits.append(FeedInit(symbol, mkt, details))
        nursery.start_soon(stream.run)
        nursery.start_soon(watch, stream, nursery)
        quotes = await _first_quotes(client, stream)
        task_status.started((inits, quotes))
        await stream.live.wait()
        feed_is_live.set()


async def _first_quotes(client: Client, stream: Stream) -> dict[str, Quote]:
    """A quote with `last` for every market: REST's ticker is never silent."""
    while True:
        try:
            tickers = await client.ticker(list(stream.pairs.values()))
            break
        except DataThrottle as error:
            await trio.sleep(error.retry_after)
    quotes = {}
    for venue_symbol, pair in stream.pairs.items():
        market = stream.markets[venue_symbol]
        ticker = tickers[pair.key]
        quote = {
            "symbol": market.symbol,
            "last": ticker.last,
            "bid": ticker.bid,
            "ask": ticker.ask,
            "ticks": [],
        }
        await stream.send(quote)
        quotes[market.symbol] = quote
    return quotes
