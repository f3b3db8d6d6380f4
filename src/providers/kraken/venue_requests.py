"""Requests of a WebSocket v2 client and the frames that answer them.

Nothing here touches a socket: `Desk.answer` takes a request's text and a `Client`, and
the client's `reply` and `send` take the frames in their order.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, NamedTuple, Protocol

import msgspec

from .venue_faults import Faults
from .venue_frames import (
    INTERVALS,
    SNAPSHOT_TRADES,
    ack_frame,
    instrument_snapshot,
    ohlc_snapshot,
    pong_frame,
    refusal_frame,
    ticker_frame,
    trade_frame,
)
from .venue_pairs import PairExchange, PairMarket, list_assets

_ReqId = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
PRIVATE_CHANNELS = frozenset({"executions", "balances", "level3"})
PRIVATE_METHODS = frozenset(
    {"add_order", "amend_order", "edit_order", "cancel_order", "cancel_all"}
    | {"cancel_all_orders_after", "batch_add", "batch_cancel"}
)
MALFORMED_REQUEST = "Malformed request"
RATE_EXCEEDED = "Exceeded msg rate"
NOT_HERE = (
    "Private data and trading are unavailable on this endpoint. Try ws-auth.kraken.com"
)


class Topic(NamedTuple):
    """What a client is subscribed to; `option` is an interval or an event trigger."""

    channel: str
    symbol: str = ""
    option: int | str = ""


class Client(Protocol):
    """Where the frames go: what the desk needs of a connection."""

    topics: set[Topic]

    def reply(self, frame: bytes) -> None:
        """Send the answer to a request."""

    def send(self, frame: bytes) -> None:
        """Send a frame of a channel."""

    def subscribe(self, topic: Topic) -> None:
        """Begin to send a topic's frames."""

    def unsubscribe(self, topic: Topic) -> None:
        """End it."""


class _Params(msgspec.Struct, frozen=True):
    """Parameters of subscribe and unsubscribe; unknown ones are ignored."""

    channel: str
    symbol: list[str] = []
    snapshot: bool | None = None
    event_trigger: Literal["trades", "bbo"] | None = None
    interval: int | None = None

    def option(self) -> int | str:
        """The option of the topics these parameters name."""
        if self.channel == "ohlc":
            return self.interval or 1
        return self.event_trigger or "trades" if self.channel == "ticker" else ""

    def with_snapshot(self) -> bool:
        """Whether a snapshot is wanted: by default of all channels but trade."""
        return self.channel != "trade" if self.snapshot is None else self.snapshot


class _Request(msgspec.Struct, frozen=True):
    """The envelope of a request, and when it came in."""

    method: str
    params: object
    req_id: int | None
    time_in: int


class _Refused(Exception):
    """A request, or a symbol of one, that is answered with an error."""

    def __init__(self, text: str, *, symbol: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.symbol = symbol


class Desk:
    """Answers the requests of all clients."""

    def __init__(self, exchange: PairExchange, faults: Faults) -> None:
        self._exchange = exchange
        self._faults = faults

    def answer(self, client: Client, text: str | bytes, *, in_rate: bool) -> None:
        """Answer one request; `in_rate` is False for one too many."""
        time_in = time.time_ns()
        method, req_id = None, None
        try:
            envelope = _decode(text)
            method, req_id = _method(envelope), _req_id(envelope)
            if not in_rate:
                raise _Refused(RATE_EXCEEDED)
            request = _Request(method, envelope.get("params"), req_id, time_in)
            if method == "ping":
                self._ping(client, request, envelope)
            elif method in ("subscribe", "unsubscribe"):
                self._change(client, request)
            elif method in PRIVATE_METHODS:
                raise _Refused(NOT_HERE)
            else:
                raise _Refused("Method(s) not found")
        except _Refused as refused:
            times = (time_in, time.time_ns())
            client.reply(refusal_frame(method, refused.text, req_id, times))

    def _ping(
        self, client: Client, request: _Request, envelope: dict[str, object]
    ) -> None:
        extra = envelope.keys() - {"method", "req_id"}
        if extra:
            field = min(extra)
            raise _Refused(f"Unsupported field: '{field}' for the given msg type: ping")
        client.reply(pong_frame(request.req_id, (request.time_in, time.time_ns())))

    def _change(self, client: Client, request: _Request) -> None:
        params = _read_params(request.params)
        if request.method == "subscribe" and self._faults.acks_silent:
            return
        subscribing = request.method == "subscribe"
        change = self._subscribe if subscribing else self._unsubscribe
        for topic in self._topics(params):
            try:
                change(client, request, params, topic)
            except _Refused as refused:
                frame = refusal_frame(
                    request.method,
                    refused.text,
                    request.req_id,
                    (request.time_in, time.time_ns()),
                    symbol=refused.symbol,
                )
                client.reply(frame)

    def _topics(self, params: _Params) -> Iterator[Topic]:
        """What the parameters name, in the order the answers are to come."""
        if params.channel == "instrument":
            yield Topic("instrument")
            return
        for symbol in self._faults.shuffle(params.symbol):
            yield Topic(params.channel, symbol, params.option())

    def _subscribe(
        self, client: Client, request: _Request, params: _Params, topic: Topic
    ) -> None:
        market = self._market(topic) if topic.symbol else None
        if _same(client.topics, topic) is not None:
            raise _Refused("Already subscribed", symbol=topic.symbol or None)
        result = _result(topic, params.with_snapshot())
        _acknowledge(client, request, result)
        client.subscribe(topic)
        if params.with_snapshot():
            self._send_snapshot(client, topic, market)

    def _unsubscribe(
        self, client: Client, request: _Request, params: _Params, topic: Topic
    ) -> None:
        found = _same(client.topics, topic)
        if found is None:
            raise _Refused("Subscription Not Found", symbol=topic.symbol or None)
        client.unsubscribe(found)
        _acknowledge(client, request, _result(found, None))

    def _market(self, topic: Topic) -> PairMarket:
        market = self._exchange.find(topic.symbol)
        refused = topic.symbol in self._faults.refused_symbols
        # WebSocket v2 knows a pair by its v2 symbol alone, XBT/USD is a REST name
        if market is None or market.pair.symbol != topic.symbol or refused:
            text = f"Currency pair not supported {topic.symbol}"
            raise _Refused(text, symbol=topic.symbol)
        return market

    def _send_snapshot(
        self, client: Client, topic: Topic, market: PairMarket | None
    ) -> None:
        now_ns = time.time_ns()
        if market is None:
            pairs = [market.pair for market in self._exchange.markets]
            client.send(instrument_snapshot(pairs, list_assets(pairs)))
        elif topic.channel == "trade":
            newest = market.rows()[-SNAPSHOT_TRADES:]
            client.send(trade_frame(market.pair, newest, snapshot=True))
        elif topic.channel == "ticker":
            client.send(ticker_frame(market, now_ns, snapshot=True))
        else:
            client.send(ohlc_snapshot(market, int(topic.option), now_ns))


def _decode(text: str | bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _Refused(MALFORMED_REQUEST) from None


def _method(envelope: dict[str, object]) -> str:
    method = envelope.get("method")
    if not isinstance(method, str):
        raise _Refused(MALFORMED_REQUEST)
    return method


def _req_id(envelope: dict[str, object]) -> int | None:
    try:
        return msgspec.convert(envelope.get("req_id"), _ReqId | None)
    except msgspec.ValidationError:
        raise _Refused(MALFORMED_REQUEST) from None


def _read_params(params: object) -> _Params:
    """Check the parameters; raises for a channel that is not to be had here."""
    try:
        read = msgspec.convert(params, _Params)
    except msgspec.ValidationError:
        raise _Refused(MALFORMED_REQUEST) from None
    if read.channel in PRIVATE_CHANNELS:
        raise _Refused(NOT_HERE)
    if read.channel not in ("trade", "ticker", "ohlc", "instrument"):
        raise _Refused("Subscription name invalid")
    if read.channel == "ohlc" and read.interval not in (None, *INTERVALS):
        raise _Refused("Subscription ohlc interval not supported")
    if read.channel != "instrument" and not read.symbol:
        raise _Refused(MALFORMED_REQUEST)
    return read


def _same(topics: Iterable[Topic], wanted: Topic) -> Topic | None:
    """The subscription a topic stands for: a ticker has one event trigger only."""
    for topic in topics:
        if topic == wanted or (
            wanted.channel == topic.channel == "ticker"
            and topic.symbol == wanted.symbol
        ):
            return topic
    return None


def _result(topic: Topic, snapshot: bool | None) -> dict[str, object]:
    """The `result` of an ack, keys in the venue's order; no snapshot if None."""
    result: dict[str, object] = {"channel": topic.channel}
    if topic.channel == "ticker":
        result["event_trigger"] = topic.option
    if topic.channel == "ohlc":
        result["interval"] = topic.option
    if snapshot is not None:
        result["snapshot"] = snapshot
    if topic.symbol:
        result["symbol"] = topic.symbol
    if snapshot is not None and topic.channel == "ohlc":
        result["warnings"] = ["timestamp is deprecated, use interval_begin"]
    if snapshot is not None and topic.channel == "instrument":
        result["warnings"] = ["tick_size is deprecated, use price_increment"]
    return result


def _acknowledge(client: Client, request: _Request, result: dict[str, object]) -> None:
    times = (request.time_in, time.time_ns())
    client.reply(ack_frame(request.method, result, request.req_id, times))
