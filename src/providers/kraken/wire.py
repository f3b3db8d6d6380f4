"""Kraken's WebSocket v2 frames: bytes to Structs, Structs to quotes.

1. Prices and sizes are the nearest doubles of the decimals on the wire; times are cut
   to microseconds, which is what the venue sends here.
2. Every element of `data` counts: trades with one time stamp share a frame.
3. Unknown fields are ignored; what does not fit is a ProviderError with the frame.

Source: https://docs.kraken.com/api/docs/guides/spot-ws-intro and the pages of the
channels trade, ticker and status.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from piker_core.adapter.frames import Frames, Part
from piker_core.adapter.trades import best_ticks
from piker_core.errors import ProviderError

NS = 1_000_000_000
Quote = dict[str, Any]


class TradeRow(msgspec.Struct, frozen=True, gc=False):
    """One trade; `side` is the taker's, `trade_id` rises by one in a book."""

    symbol: str
    side: str
    price: float
    qty: float
    trade_id: int
    timestamp: str
    ord_type: str = ""


class TickerRow(msgspec.Struct, frozen=True, gc=False):
    """Best bid and ask; `last` only if the pair traded within 24 hours."""

    symbol: str
    bid: float
    bid_qty: float
    ask: float
    ask_qty: float
    last: float | None = None
    timestamp: str = ""


class StatusRow(msgspec.Struct, frozen=True):
    """The trading engine's state: online, cancel_only, maintenance or post_only."""

    system: str
    version: str = ""


class TradeFrame(msgspec.Struct, frozen=True):
    """Trades of the `trade` channel; `type` is snapshot or update."""

    channel: str
    type: str
    data: list[TradeRow]


class TickerFrame(msgspec.Struct, frozen=True):
    """Rows of the `ticker` channel."""

    channel: str
    type: str
    data: list[TickerRow]


class StatusFrame(msgspec.Struct, frozen=True):
    """Rows of the `status` channel."""

    channel: str
    data: list[StatusRow]


class AckResult(msgspec.Struct, frozen=True):
    """What was subscribed to."""

    channel: str = ""
    symbol: str = ""
    warnings: list[str] = []


class Ack(msgspec.Struct, frozen=True):
    """The answer to a request, one for each symbol; `error` if it was refused."""

    method: str
    success: bool = False
    result: AckResult | None = None
    error: str = ""
    symbol: str = ""
    req_id: int | None = None


class Heartbeat(msgspec.Struct, frozen=True):
    """The connection is alive."""


class Unknown(msgspec.Struct, frozen=True):
    """A frame of a channel or method that nobody asked for."""

    name: str


class _Envelope(msgspec.Struct):
    channel: str = ""
    method: str = ""


Frame = TradeFrame | TickerFrame | StatusFrame | Ack | Heartbeat | Unknown

_HEARTBEAT = Heartbeat()
_envelope = msgspec.json.Decoder(_Envelope).decode
_by_channel: dict[str, Any] = {
    "trade": msgspec.json.Decoder(TradeFrame).decode,
    "ticker": msgspec.json.Decoder(TickerFrame).decode,
    "status": msgspec.json.Decoder(StatusFrame).decode,
}
_ack = msgspec.json.Decoder(Ack).decode
_trade = _by_channel["trade"]
_METHODS = ("subscribe", "unsubscribe", "pong")


def decode_frame(raw: bytes) -> Frame:
    """One WebSocket message as a Struct. Raises ProviderError with the frame."""
    try:
        if raw.startswith(b'{"channel":"trade"'):  # the hot one, decoded in one pass
            frame: Frame = _trade(raw)
            return frame
        return _decode_any(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProviderError(f"a frame cannot be decoded: {error}", frame=raw) from None


def _decode_any(raw: bytes) -> Frame:
    envelope = _envelope(raw)
    if envelope.channel == "heartbeat":
        return _HEARTBEAT
    decode = _by_channel.get(envelope.channel)
    if decode is not None and not envelope.method:
        frame: Frame = decode(raw)
        return frame
    if envelope.method in _METHODS:
        return _ack(raw)
    return Unknown(envelope.method or envelope.channel)


def rows_by_symbol(frame: TradeFrame) -> dict[str, list[TradeRow]]:
    """Every element of `data`, by market, in the order of the frame."""
    by_symbol: dict[str, list[TradeRow]] = {}
    for row in frame.data:
        by_symbol.setdefault(row.symbol, []).append(row)
    return by_symbol


def split_frame(raw: bytes) -> list[Part]:
    """What a frame tells of its markets. Raises ProviderError as `decode_frame`."""
    frame = decode_frame(raw)
    if isinstance(frame, TradeFrame):
        return [Part(*market) for market in rows_by_symbol(frame).items()]
    if isinstance(frame, TickerFrame):
        return [Part(row.symbol, row, best=True) for row in frame.data]
    return []


@lru_cache(maxsize=256)
def _second_ns(text: str) -> int:
    return int(datetime.fromisoformat(text + "+00:00").timestamp()) * NS


def decode_time(text: str) -> int:
    """RFC 3339 UTC to nanoseconds, cut to microseconds. Raises ValueError."""
    if len(text) < 20 or not text.endswith("Z"):
        raise ValueError(f"{text!r} is no RFC 3339 time in UTC")
    digits = text[20:-1][:6]
    if digits and (text[19] != "." or not digits.isdecimal()):
        raise ValueError(f"{text!r} is no RFC 3339 time in UTC")
    return _second_ns(text[:19]) + int(digits.ljust(6, "0")) * 1000


def normalize_trade(row: TradeRow) -> Quote:
    """A trade as a tick. Raises ValueError for a time that cannot be read."""
    return {
        "type": "trade",
        "price": row.price,
        "size": row.qty,
        "time_ns": decode_time(row.timestamp),
        "id": row.trade_id,
        "side": row.side,
    }


def normalize_trades(symbol: str, rows: Sequence[TradeRow]) -> Quote:
    """The trades of one market as a quote, in the order of the frame."""
    ticks = [normalize_trade(row) for row in rows]
    return {"symbol": symbol, "last": rows[-1].price, "ticks": ticks}


def normalize_ticker(
    symbol: str, row: TickerRow, before: TickerRow | None, now_ns: int
) -> Quote:
    """What changed of the best bid and ask, as a quote."""
    time_ns = decode_time(row.timestamp) if row.timestamp else now_ns
    best = (row.bid, row.bid_qty, row.ask, row.ask_qty)
    known = None
    if before is not None:
        known = (before.bid, before.bid_qty, before.ask, before.ask_qty)
    quote: Quote = {"symbol": symbol, "ticks": best_ticks(known, best, time_ns)}
    if row.last is not None:
        quote["last"] = row.last
    return quote


def subscribe_request(
    channel: str,
    symbols: Sequence[str],
    req_id: int,
    *,
    method: str = "subscribe",
    **params: Any,
) -> bytes:
    """A subscription of several symbols to one channel, or the end of it.

    It is acked once a symbol.
    """
    asked = {"channel": channel, "symbol": list(symbols)} | params
    return msgspec.json.encode({"method": method, "params": asked, "req_id": req_id})


FRAMES = Frames(split_frame, normalize_trades, normalize_ticker)
