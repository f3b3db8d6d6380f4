"""Names of streams: which there are, how often each speaks and where it is to be had.

Source: web-socket-streams.md of the spot API's documents, the market streams of
USD-M's, and what was measured there: book tickers, depth and trades are on /public (and
on paths without a route), all else is on /market.
"""

import re
from typing import NamedTuple

from .venue_klines import SPOT_INTERVALS, USDM_INTERVALS

PUBLIC = "public"
MARKET = "market"
ALL = "!"  # in place of a symbol: a stream of all symbols

_NAME = re.compile(r"(?P<symbol>[^@]*)@(?P<kind>[a-zA-Z]+)(?P<rest>.*)")
# how often on spot and on USD-M, in ms
_PLAIN = {"trade": (0, 0), "aggTrade": (0, 0), "bookTicker": (0, 0)}
_PLAIN |= {"miniTicker": (1000, 2000), "ticker": (1000, 2000)}
_ON_PUBLIC = frozenset({"trade", "bookTicker", "depth", "partial"})


class Stream(NamedTuple):
    """A stream; `option` is an interval or a number of levels.

    `period_ms` is how often it speaks, 0 for as soon as something happens.
    """

    kind: str
    symbol: str
    option: str = ""
    period_ms: int = 0

    @property
    def route(self) -> str:
        """The path of USD-M it is to be had on."""
        return PUBLIC if self.kind in _ON_PUBLIC else MARKET


def parse_stream(name: str, *, usdm: bool) -> Stream | None:
    """What a stream's name means; None if there is no such stream.

    Symbols are in lower case; whether there is such a symbol is not looked at.
    """
    if name.startswith("!"):
        return _parse_all(name, usdm=usdm)
    parts = _NAME.fullmatch(name)
    if parts is None or parts["symbol"] != parts["symbol"].lower():
        return None
    symbol, kind, rest = parts["symbol"], parts["kind"], parts["rest"]
    made = None
    if kind == "kline":
        made = _kline(rest, usdm=usdm)
    elif kind == "depth":
        made = _depth(rest, usdm=usdm)
    elif kind in _PLAIN and not rest:
        made = Stream(kind, "", period_ms=_PLAIN[kind][usdm])
    return None if made is None else made._replace(symbol=symbol)


def _parse_all(name: str, *, usdm: bool) -> Stream | None:
    if name == "!miniTicker@arr":
        return Stream("miniTicker", ALL, period_ms=1000)
    if name == "!ticker@arr" and usdm:  # spot's was retired
        return Stream("ticker", ALL, period_ms=1000)
    return None


def _kline(rest: str, *, usdm: bool) -> Stream | None:
    interval = rest.removeprefix("_")
    known = USDM_INTERVALS if usdm else SPOT_INTERVALS
    if rest == interval or interval not in known:
        return None
    if usdm:
        return Stream("kline", "", interval, 250)
    return Stream("kline", "", interval, 1000 if interval == "1s" else 2000)


def _depth(rest: str, *, usdm: bool) -> Stream | None:
    levels, _, speed = rest.partition("@")
    if levels not in ("", "5", "10", "20"):
        return None
    speeds = {"": 250, "100ms": 100, "500ms": 500} if usdm else {"": 1000, "100ms": 100}
    if speed not in speeds or (rest.endswith("@")):
        return None
    return Stream("partial" if levels else "depth", "", levels, speeds[speed])
