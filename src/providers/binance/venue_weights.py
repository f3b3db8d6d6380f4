"""Request weights of a simulated Binance, and who is let through.

Rules this file owns:

1. Weight is counted in windows of the wall clock: a minute's begins at its :00.
2. A call that is refused for anything but the limit costs its weight all the same.
3. Whoever goes on calling after `patience` refusals is banned; each ban is twice as
   long as the one before, up to three days.
"""

import math
from http import HTTPStatus
from typing import NamedTuple

import msgspec

Query = dict[str, str]
_LONGEST_BAN_S = 3 * 86_400.0


class Verdict(NamedTuple):
    """What becomes of a call; `until_s` is when calls are let through again."""

    status: HTTPStatus
    until_s: float = 0.0


class WeightMeter:
    """The weight one address has used; times are in Unix s."""

    def __init__(
        self, limit: int, *, window_s: float, patience: int, ban_s: float
    ) -> None:
        self.limit = limit
        self.used = 0
        self.most = 0
        self.refused = 0
        self.bans = 0
        self._window_s = window_s
        self._window = -1
        self._patience = patience
        self._ignored = 0
        self._ban_s = ban_s
        self._banned_until_s = 0.0

    def take(self, weight: int, now_s: float) -> Verdict:
        """Count a call; whether it is let through."""
        if now_s < self._banned_until_s:
            return Verdict(HTTPStatus.IM_A_TEAPOT, self._banned_until_s)
        window = math.floor(now_s / self._window_s)
        if window != self._window:
            self._window, self.used, self._ignored = window, 0, 0
        self.used += weight
        if self.used <= self.limit:
            self.most = max(self.most, self.used)
            return Verdict(HTTPStatus.OK)
        self.refused += 1
        self._ignored += 1
        if self._ignored > self._patience:
            self.ban(self._ban_s, now_s)
            self._ban_s = min(2 * self._ban_s, _LONGEST_BAN_S)
            return Verdict(HTTPStatus.IM_A_TEAPOT, self._banned_until_s)
        return Verdict(HTTPStatus.TOO_MANY_REQUESTS, (window + 1) * self._window_s)

    def ban(self, seconds: float, now_s: float) -> None:
        """Let nothing through for so long."""
        self.bans += 1
        self._banned_until_s = now_s + seconds


_SPOT = {"aggTrades": 4, "trades": 25, "historicalTrades": 25, "exchangeInfo": 20}
_SPOT |= {"klines": 2, "uiKlines": 2, "avgPrice": 2, "ticker/price": 2}
_SPOT |= {"ticker/bookTicker": 2}
_USDM = {"aggTrades": 20, "trades": 5, "historicalTrades": 20, "ticker/24hr": 1}
_USDM |= {"ticker/price": 1, "ticker/bookTicker": 2}
_USDM_ALL = {"ticker/24hr": 40, "ticker/price": 2, "ticker/bookTicker": 5}


def spot_weight(method: str, query: Query) -> int:
    """What a call of the spot side costs."""
    if method == "depth":
        return _step(_limit(query, 100), (100, 5), (500, 25), (1000, 50), most=250)
    if method.startswith("ticker/") and "symbol" not in query:
        several = _several(query)
        if method != "ticker/24hr":
            return 4
        return _step(several, (20, 2), (100, 40), most=80) if several else 80
    return _SPOT.get(method, 2 if method == "ticker/24hr" else 1)


def usdm_weight(method: str, query: Query) -> int:
    """What a call of the USD-M side costs, by what was measured."""
    if method == "depth":
        if "limit" not in query:
            return 1
        return _step(_limit(query, 500), (50, 2), (100, 5), (500, 10), most=20)
    if method == "klines":
        if "limit" not in query:
            return 5
        return _step(_limit(query, 500), (100, 1), (500, 2), (1000, 5), most=10)
    if method in _USDM_ALL and "symbol" not in query:
        return _USDM_ALL[method]
    return _USDM.get(method, 1)


def _step(size: int, *steps: tuple[int, int], most: int) -> int:
    return next((weight for up_to, weight in steps if size <= up_to), most)


def _limit(query: Query, default: int) -> int:
    text = query.get("limit", "")
    return int(text) if text.isascii() and text.isdigit() else default


def _several(query: Query) -> int:
    """How many symbols a query names, 0 for all."""
    try:
        return len(msgspec.json.decode(query.get("symbols", ""), type=list[str]))
    except msgspec.DecodeError:
        return 0
