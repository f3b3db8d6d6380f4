"""What Kraken's REST calls answer, decoded: pairs, tickers, bars and trades.

Rows are arrays in the venue and may grow: what stands behind the fields named here is
ignored, as are unknown fields of objects. Numbers are text; they become the nearest
double. A number that is no finite price or size is a `ProviderError`.

Source: https://docs.kraken.com/api/docs/guides/spot-rest-intro
"""

import logging
import math
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

import piker_core as pk
from piker_core.adapter.rest import Reply

from .markets import Pair, PairTable

log = logging.getLogger(__name__)

INTERVALS = (1, 5, 15, 30, 60, 240, 1440, 10080, 21600)
"""Minutes a bar of OHLC can have."""
OHLC_ROWS = 720
"""How many of the newest bars OHLC has, the forming one among them."""
PAGE_TRADES = 1000
"""The most trades in one answer."""

Rows = NDArray[Any]

_LATEST_S = 2**33
_SIDES = {"b": 1, "s": -1}
_TRADE = pk.TICK_TYPES["trade"]


class SystemStatus(msgspec.Struct, frozen=True):
    """`status` is online, maintenance, cancel_only or post_only."""

    status: str
    timestamp: str = ""


class Ticker(msgspec.Struct, frozen=True):
    """A value of REST Ticker, fields named as the venue's, and the usual words.

    `a`, `b`: price, whole lots, size; `c`: price, size; the others: today, last 24 h.
    """

    a: tuple[str, str, str]
    b: tuple[str, str, str]
    c: tuple[str, str]
    v: tuple[str, str]
    p: tuple[str, str]
    t: tuple[int, int]
    l: tuple[str, str]  # noqa: E741 - the venue's name
    h: tuple[str, str]
    o: str

    def __post_init__(self) -> None:
        texts = (*self.a, *self.b, *self.c, *self.v, *self.p, *self.l, *self.h, self.o)
        if not all(math.isfinite(float(text)) for text in texts):
            raise ValueError("a number that is not finite")

    @property
    def ask(self) -> float:
        """Best ask."""
        return float(self.a[0])

    @property
    def ask_size(self) -> float:
        """Size at the best ask."""
        return float(self.a[2])

    @property
    def bid(self) -> float:
        """Best bid."""
        return float(self.b[0])

    @property
    def bid_size(self) -> float:
        """Size at the best bid."""
        return float(self.b[2])

    @property
    def last(self) -> float:
        """Price of the last trade."""
        return float(self.c[0])

    @property
    def volume(self) -> float:
        """Size traded in the last 24 hours."""
        return float(self.v[1])


class _TradeRow(msgspec.Struct, array_like=True):
    price: str
    size: str
    time: Decimal
    side: str
    ord_type: str
    misc: str
    trade_id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Last(msgspec.Struct):
    """Text in Trades, a number in OHLC."""

    last: (
        Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
        | Annotated[str, msgspec.Meta(pattern="^[0-9]{1,19}$")]
    )


class _OhlcRow(msgspec.Struct, array_like=True):
    time: Annotated[int, msgspec.Meta(ge=0, lt=_LATEST_S)]
    open: str
    high: str
    low: str
    close: str
    vwap: str
    volume: str
    count: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


def decode_pairs(reply: Reply) -> PairTable:
    """The table of pairs; one that cannot be understood is left out, and logged."""
    pairs: dict[str, Pair] = {}
    for key, raw in reply.decode(dict[str, msgspec.Raw]).items():
        try:
            pair = msgspec.json.decode(raw, type=Pair)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("pair %s is left out: %s", key, error)
            continue
        pairs[key] = msgspec.structs.replace(pair, key=key)
    if not pairs:
        raise reply.refuse("no pair in it")
    return PairTable(pairs)


def decode_ohlc(reply: Reply) -> tuple[Rows, int]:
    """Bars of OHLCV_DTYPE in the venue's order; the time of the last finished one."""
    part, last = _sole_result(reply)
    decoded = part.decode(list[_OhlcRow])
    bars = np.zeros(len(decoded), pk.OHLCV_DTYPE)
    for number, row in enumerate(decoded):
        close = _price(reply, row.close)
        wap, flags = close, pk.BarFlag.FLAT
        if row.count:
            flags = pk.BarFlag(0)
            wap = _size(reply, row.vwap) or close
        bars[number] = (
            0,
            row.time,
            _price(reply, row.open),
            _price(reply, row.high),
            _price(reply, row.low),
            close,
            _size(reply, row.volume),
            row.count,
            wap,
            flags,
        )
    return bars, last


def decode_trades(reply: Reply) -> tuple[Rows, int]:
    """Ticks of TICK_DTYPE in the venue's order, and the exact time of the last, ns."""
    part, last = _sole_result(reply)
    decoded = part.decode(list[_TradeRow])
    ticks = np.zeros(len(decoded), pk.TICK_DTYPE)
    for name, values in (
        ("time_ns", [_time_ns(reply, row.time) for row in decoded]),
        ("price", [_price(reply, row.price) for row in decoded]),
        ("size", [_size(reply, row.size) for row in decoded]),
        ("id", [row.trade_id for row in decoded]),
        ("side", [_SIDES.get(row.side, 0) for row in decoded]),
        ("count", 1),
        ("type", _TRADE),
    ):
        ticks[name] = values
    return ticks, last


def _sole_result(reply: Reply) -> tuple[Reply, int]:
    """What stands under the pair's key, whichever it is, and `last` as an int."""
    last = int(reply.decode(_Last).last)
    parts = reply.decode(dict[str, msgspec.Raw])
    del parts["last"]
    if len(parts) != 1:
        raise reply.refuse(f"expected one pair, got {sorted(parts)[:5]}")
    return reply.part(parts.popitem()[1]), last


def _time_ns(reply: Reply, seconds: Decimal) -> int:
    """Nanoseconds, cut to microseconds: by decimals, a double is too coarse."""
    if not seconds.is_finite() or not 0 <= seconds < _LATEST_S:
        raise reply.refuse(f"a trade at {seconds!s:.80}")
    return int(seconds * 1_000_000) * 1000


def _price(reply: Reply, text: str) -> float:
    price = _size(reply, text)
    if not price:
        raise reply.refuse(f"a price of {text!r:.80}")
    return price


def _size(reply: Reply, text: str) -> float:
    """A finite number that is not negative."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise reply.refuse(f"{text!r:.80} is no price or size")
    return number
