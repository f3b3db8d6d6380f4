"""Binance's frames, of spot and of USD-M: bytes to Structs, Structs to quotes.

1. Frames come from combined streams, `{"stream":"btcusdt@trade","data":{...}}`. The
   stream's name tells the kind, so the hot ones are decoded in one pass.
2. Numbers are text and become the nearest double; times are in milliseconds or, where
   they were asked for, microseconds, told apart by their size.
3. An aggregate is one tick: its id is the aggregate's own, its `count` the number of
   trades it stands for. Those have one price and one time.
4. Unknown fields are ignored; what does not fit is a ProviderError with the frame.

Source: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
and the market streams of the USD-M documents.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from piker_core.adapter.frames import Frames, Part
from piker_core.adapter.trades import Quote, best_ticks
from piker_core.errors import ProviderError

TRADE, AGGREGATE, BEST = "trade", "aggTrade", "bookTicker"
"""Kinds of streams, as their names end."""

_EARLIEST_MS, _LATEST_MS = 1_262_304_000_000, 4_102_444_800_000  # 2010 to 2100


class Trade(msgspec.Struct, frozen=True, gc=False):
    """A trade; ids rise by one. `maker`: the buyer was, so that the taker sold."""

    symbol: str = msgspec.field(name="s")
    id: int = msgspec.field(name="t")
    price: float = msgspec.field(name="p")
    size: float = msgspec.field(name="q")
    time: int = msgspec.field(name="T")
    maker: bool = msgspec.field(name="m")


class Aggregate(msgspec.Struct, frozen=True, gc=False):
    """Trades `first` to `last`, what one taker got at one price; ids rise by one."""

    symbol: str = msgspec.field(name="s")
    id: int = msgspec.field(name="a")
    price: float = msgspec.field(name="p")
    size: float = msgspec.field(name="q")
    first: int = msgspec.field(name="f")
    last: int = msgspec.field(name="l")
    time: int = msgspec.field(name="T")
    maker: bool = msgspec.field(name="m")


class Best(msgspec.Struct, frozen=True, gc=False):
    """Best bid and ask after an update of the book; spot gives no `time`."""

    symbol: str = msgspec.field(name="s")
    update: int = msgspec.field(name="u")
    bid: float = msgspec.field(name="b")
    bid_size: float = msgspec.field(name="B")
    ask: float = msgspec.field(name="a")
    ask_size: float = msgspec.field(name="A")
    time: int = msgspec.field(name="T", default=0)


class Answer(msgspec.Struct, frozen=True):
    """What a request was answered; `error` if it was refused."""

    id: int | str | None
    error: str = ""


class Shutdown(msgspec.Struct, frozen=True):
    """The server is about to end the connection."""


class Unknown(msgspec.Struct, frozen=True):
    """A frame that nobody asked for."""

    name: str


Frame = Trade | Aggregate | Best | Answer | Shutdown | Unknown


class _TradeFrame(msgspec.Struct, gc=False):
    data: Trade


class _AggregateFrame(msgspec.Struct, gc=False):
    data: Aggregate


class _BestFrame(msgspec.Struct, gc=False):
    data: Best


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


class _Other(msgspec.Struct):
    """Any other frame; errors are flat on spot and nested on USD-M."""

    stream: str = ""
    e: str = ""
    id: int | str | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None
    code: int | None = None
    msg: str = ""


_HOT: dict[bytes, Any] = {
    kind.encode()[:5]: msgspec.json.Decoder(frame, strict=False).decode
    for kind, frame in (
        (TRADE, _TradeFrame),
        (AGGREGATE, _AggregateFrame),
        (BEST, _BestFrame),
    )
}
_other = msgspec.json.Decoder(_Other).decode
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def decode_frame(raw: bytes) -> Frame:
    """One WebSocket message as a Struct. Raises ProviderError with the frame."""
    at = raw.find(b"@") + 1
    try:
        decode = _HOT.get(raw[at : at + 5])
        if decode is not None and raw.startswith(b'{"stream":'):
            frame: Frame = decode(raw).data
            return frame
        return _decode_other(raw)
    except _UNDECODABLE as error:
        raise ProviderError(f"a frame cannot be decoded: {error}", frame=raw) from None


def split_frame(raw: bytes) -> list[Part]:
    """What a frame tells of a market. Raises ProviderError as `decode_frame`."""
    frame = decode_frame(raw)
    if isinstance(frame, Trade | Aggregate | Best):
        return [Part(frame.symbol, frame, best=isinstance(frame, Best))]
    return []


def _decode_other(raw: bytes) -> Frame:
    frame = _other(raw)
    if "serverShutdown" in (frame.e, frame.stream[1:]):
        return Shutdown()
    if frame.error is not None:
        return Answer(frame.id, f"{frame.error.msg} (code {frame.error.code})")
    if frame.code is not None:
        return Answer(frame.id, f"{frame.msg} (code {frame.code})")
    if frame.result is not msgspec.UNSET:
        return Answer(frame.id)
    return Unknown(frame.stream or frame.e)


def decode_time(time: int) -> int:
    """Milliseconds or microseconds UTC to nanoseconds. Raises ValueError."""
    if _EARLIEST_MS <= time < _LATEST_MS:
        return time * 1_000_000
    if _EARLIEST_MS * 1000 <= time < _LATEST_MS * 1000:
        return time * 1000
    raise ValueError(f"{time} is no time of 2010 to 2100 in ms or us")


def trade_tick(row: Trade | Aggregate) -> Quote:
    """A trade or an aggregate as a tick. Raises ValueError for a time that is none."""
    return {
        "type": "trade",
        "price": row.price,
        "size": row.size,
        "time_ns": decode_time(row.time),
        "id": row.id,
        "side": -1 if row.maker else 1,
        "count": row.last - row.first + 1 if isinstance(row, Aggregate) else 1,
    }


def normalize_trade(symbol: str, row: Trade | Aggregate) -> Quote:
    """A trade or an aggregate as a quote."""
    return {"symbol": symbol, "last": row.price, "ticks": [trade_tick(row)]}


def normalize_best(symbol: str, row: Best, before: Best | None, now_ns: int) -> Quote:
    """What changed of the best bid and ask, as a quote; spot's is of `now_ns`."""
    time_ns = decode_time(row.time) if row.time else now_ns
    best = (row.bid, row.bid_size, row.ask, row.ask_size)
    known = None
    if before is not None:
        known = (before.bid, before.bid_size, before.ask, before.ask_size)
    return {"symbol": symbol, "ticks": best_ticks(known, best, time_ns)}


FRAMES = Frames(split_frame, normalize_trade, normalize_best)


def stream_name(symbol: str, kind: str) -> str:
    """The stream of a symbol, such as `btcusdt@trade`."""
    return f"{symbol.lower()}@{kind}"


def control(method: str, number: int, streams: Sequence[str] = ()) -> bytes:
    """A control message: SUBSCRIBE, UNSUBSCRIBE or LIST_SUBSCRIPTIONS."""
    asked: dict[str, Any] = {"method": method, "id": number}
    if streams:
        asked["params"] = list(streams)
    return msgspec.json.encode(asked)
