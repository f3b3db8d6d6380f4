"""What Binance's REST calls answer, decoded: trades, aggregates, klines and tickers.

Rows of klines are arrays and may grow: what stands behind the columns named here is
ignored, as are unknown fields of objects. Numbers are text; they become the nearest
double. A number that is no finite price or size is a `ProviderError`.

Source: https://developers.binance.com/docs/binance-spot-api-docs/rest-api
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

import piker_core as pk
from piker_core.adapter.rest import Reply

from .wire import decode_time

Rows = NDArray[Any]
T = TypeVar("T")

NS = 1_000_000_000
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)
_SIDES = {True: -1, False: 1, None: 0}


class _TradeRow(msgspec.Struct, gc=False):
    id: int
    price: float
    qty: float
    time: int
    isBuyerMaker: bool | None = None


class _AggregateRow(msgspec.Struct, gc=False):
    a: int
    p: float
    q: float
    f: int
    l: int  # noqa: E741 - the venue's name
    T: int
    m: bool | None = None


class _Kline(msgspec.Struct, array_like=True, gc=False):
    time: int
    open: float
    high: float
    low: float
    close: float
    volume: str
    close_time: int
    cost: str
    count: int


class _Price(msgspec.Struct):
    symbol: str
    price: float


class _Book(msgspec.Struct):
    symbol: str
    bidPrice: float
    askPrice: float


class _Time(msgspec.Struct):
    serverTime: int


class FirstId(msgspec.Struct, frozen=True, gc=False):
    """The ids an aggregate begins with: its own, and that of its first trade."""

    aggregate: int = msgspec.field(name="a")
    trade: int = msgspec.field(name="f")


def decode_server_time(reply: Reply) -> int:
    """The venue's time in ns."""
    return _guarded(reply, lambda: decode_time(reply.decode(_Time).serverTime))


def decode_trades(reply: Reply) -> Rows:
    """Trades as TICK_DTYPE, oldest first."""
    rows = _decode(reply, list[_TradeRow])
    return _ticks(
        reply,
        time_ns=_times(reply, [row.time for row in rows]),
        price=[row.price for row in rows],
        size=[row.qty for row in rows],
        id=[row.id for row in rows],
        side=[_SIDES[row.isBuyerMaker] for row in rows],
        count=[1] * len(rows),
    )


def decode_aggregates(reply: Reply) -> Rows:
    """Aggregates as TICK_DTYPE, oldest first: ids are theirs, counts of trades."""
    rows = _decode(reply, list[_AggregateRow])
    return _ticks(
        reply,
        time_ns=_times(reply, [row.T for row in rows]),
        price=[row.p for row in rows],
        size=[row.q for row in rows],
        id=[row.a for row in rows],
        side=[_SIDES[row.m] for row in rows],
        count=[row.l - row.f + 1 for row in rows],
    )


def decode_first_id(reply: Reply) -> FirstId | None:
    """The first aggregate of an answer; None if it is empty."""
    rows = _decode(reply, list[FirstId])
    return rows[0] if rows else None


def decode_klines(reply: Reply) -> Rows:
    """Klines as OHLCV_DTYPE in the venue's order, also those of no trade.

    `bar_wap` is the venue's cost by its volume, by decimals.
    """
    rows = _decode(reply, list[_Kline])
    bars = np.zeros(len(rows), pk.OHLCV_DTYPE)
    if not rows:
        return bars
    bars["time"] = [time // NS for time in _times(reply, [row.time for row in rows])]
    for field in ("open", "high", "low", "close"):
        bars[field] = _prices(reply, [getattr(row, field) for row in rows])
    bars["volume"] = _sizes(reply, [_number(reply, row.volume) for row in rows])
    bars["count"] = _fitting(reply, [row.count for row in rows])
    bars["bar_wap"] = [_wap(reply, row) for row in rows]
    bars["flags"][bars["count"] == 0] = pk.BarFlag.FLAT
    return bars


def decode_prices(reply: Reply) -> dict[str, float]:
    """Last prices by symbol; 0 where nothing ever traded."""
    rows = _decode(reply, list[_Price])
    _sizes(reply, [row.price for row in rows])
    return {row.symbol: row.price for row in rows}


def decode_books(reply: Reply) -> dict[str, tuple[float, float]]:
    """Best bid and ask by symbol; 0 for an empty side."""
    rows = _decode(reply, list[_Book])
    _sizes(reply, [price for row in rows for price in (row.bidPrice, row.askPrice)])
    return {row.symbol: (row.bidPrice, row.askPrice) for row in rows}


def _decode(reply: Reply, kind: type[T]) -> T:
    """The result as `kind`, numbers in texts as numbers."""
    return _guarded(
        reply, lambda: msgspec.json.decode(reply.result, type=kind, strict=False)
    )


def _guarded(reply: Reply, read: Callable[[], T]) -> T:
    try:
        return read()
    except _UNDECODABLE as error:
        raise reply.refuse(str(error)) from None


def _ticks(reply: Reply, **columns: Any) -> Rows:
    ticks = np.zeros(len(columns["id"]), pk.TICK_DTYPE)
    columns["price"] = _prices(reply, columns["price"])
    columns["size"] = _sizes(reply, columns["size"])
    for name in ("id", "count"):
        columns[name] = _fitting(reply, columns[name])
    if np.any(columns["count"] < 1) or np.any(columns["count"] >= 2**32):
        raise reply.refuse("an aggregate that ends before it begins")
    for name, column in columns.items():
        ticks[name] = column
    ticks["type"] = pk.TICK_TYPES["trade"]
    return ticks


def _times(reply: Reply, times: list[int]) -> list[int]:
    return _guarded(reply, lambda: [decode_time(time) for time in times])


def _fitting(reply: Reply, numbers: list[int]) -> Rows:
    """Whole numbers from 0 on that an int64 holds."""
    if numbers and not 0 <= min(numbers) <= max(numbers) < 2**63:
        raise reply.refuse(f"a number of {min(numbers)} or {max(numbers)}")
    return np.array(numbers, np.int64)


def _prices(reply: Reply, prices: list[float]) -> Rows:
    column = _sizes(reply, prices)
    if np.any(column == 0):
        raise reply.refuse("a price of 0")
    return column


def _sizes(reply: Reply, sizes: list[float]) -> Rows:
    """Finite numbers that are not negative."""
    column = np.array(sizes, np.float64)
    wrong = ~((column >= 0) & (column < np.inf))
    if np.any(wrong):
        raise reply.refuse(f"{column[wrong][0]} is no price or size")
    return column


def _number(reply: Reply, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise reply.refuse(f"{text!r:.40} is no price or size") from None


def _wap(reply: Reply, row: _Kline) -> float:
    """Cost by volume, rounded once; the close of a bar without volume."""
    try:
        cost, volume = Decimal(row.cost), Decimal(row.volume)
        if cost >= 0:
            return float(cost / volume) if cost and volume else row.close
    except ArithmeticError:
        pass  # no number
    raise reply.refuse(f"{row.cost!r:.40} is no cost")
