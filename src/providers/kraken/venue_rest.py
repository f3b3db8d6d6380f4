"""The REST side of a simulated Kraken: `/0/public/...`, and the way to private calls.

Rules this file owns:

1. A result is keyed by the pair's REST key, whatever name was asked for.
2. Errors have HTTP status 200 and no result.
3. `Trades` gives the rows at `since` and later, and its `last` is the time of the last
   row of the page: trades of that time come again on the next page, none is left out.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus

import trio

from piker_core.simulation.http import Call, Reply
from piker_core.simulation.limits import TokenBucket, Traffic
from piker_core.simulation.market import NS

from .venue_faults import Faults
from .venue_frames import INTERVALS, encode_json
from .venue_orders import Refused
from .venue_pairs import (
    PairExchange,
    PairMarket,
    describe_asset,
    describe_pair,
    list_assets,
)
from .venue_private import PrivateRest
from .venue_rows import book, ohlc_row, price_text, ticker_row, trade_row

OHLC_ROWS = 720
TRADE_ROWS = 1000
DEPTH_LEVELS = 500
PUBLIC = "/0/public/"
PRIVATE = "/0/private/"
INVALID_ARGUMENTS = "EGeneral:Invalid arguments"
_SINCE_NS_FROM = 10**12  # a `since` of this size is in ns, a smaller one in seconds
_INFO = {
    "leverage": ("leverage_buy", "leverage_sell"),
    "fees": ("fees", "fees_maker", "fee_volume_currency"),
    "margin": ("margin_call", "margin_stop"),
}
_BAD_GATEWAY = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    b"<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>cloudflare</center>\r\n"
    b"</body>\r\n</html>\r\n"
)

Query = dict[str, str]


class _Refused(Exception):
    """A call that is answered with an error."""


class RestServer:
    """Answers REST calls about an exchange.

    `rate` a second after a burst of `burst`: how often calls are let through.
    """

    def __init__(
        self,
        exchange: PairExchange,
        faults: Faults,
        private: PrivateRest,
        *,
        rate: float,
        burst: float,
    ) -> None:
        self.requests: Counter[str] = Counter()
        self.refused = 0
        self.traffic = Traffic()
        self._exchange = exchange
        self._faults = faults
        self._private = private
        self._bucket = TokenBucket(rate, burst)
        self._methods: dict[str, Callable[[Query, int], object]] = {
            "Time": self._time,
            "SystemStatus": self._system_status,
            "Assets": self._assets,
            "AssetPairs": self._asset_pairs,
            "Ticker": self._ticker,
            "OHLC": self._ohlc,
            "Trades": self._trades,
            "Depth": self._depth,
            "Spread": self._spread,
        }

    async def answer(self, call: Call) -> Reply:
        """Answer one call, after the delay and with the fault that are switched on."""
        if not call.path.startswith((PUBLIC, PRIVATE)):
            return Reply(b"Not Found", HTTPStatus.NOT_FOUND, "text/html")
        private = call.path.startswith(PRIVATE)
        if call.method not in (("GET", "POST") if private else ("GET",)):
            return Reply(b"Not Allowed", HTTPStatus.METHOD_NOT_ALLOWED, "text/html")
        self.requests[call.path.rpartition("/")[2]] += 1
        self.traffic.begin(trio.current_time())
        try:
            if self._faults.slow_rest_s:
                await trio.sleep(self._faults.slow_rest_s)
            return self._faulty(private) or self._result(call)
        finally:
            self.traffic.end()

    def _faulty(self, private: bool) -> Reply | None:
        """The answer of a fault that is due, or of the rate limit of public calls."""
        until_s = self._faults.throttled_until
        match self._faults.take_rest():
            case "html":
                return Reply(_BAD_GATEWAY, HTTPStatus.BAD_GATEWAY, "text/html")
            case "unavailable":
                return _error("EService:Unavailable")
            case "throttle" if until_s is not None:
                return _error(f"EService: Throttled: {until_s}")
            case "throttle":
                return _error("EGeneral:Too many requests")
        if private or self._bucket.take(trio.current_time()):
            return None
        self.refused += 1
        return _error("EGeneral:Too many requests")

    def _result(self, call: Call) -> Reply:
        if call.path.startswith(PRIVATE):
            return self._private_result(call)
        method = self._methods.get(call.path.removeprefix(PUBLIC))
        if method is None:
            return _error("EGeneral:Unknown method")
        try:
            result = method(call.query, self._exchange.advance())
        except _Refused as refused:
            return _error(str(refused))
        return Reply(encode_json({"error": [], "result": result}))

    def _private_result(self, call: Call) -> Reply:
        self._exchange.advance()
        try:
            result = self._private.answer(call.path.removeprefix(PRIVATE), call)
        except Refused as refused:
            return _error(str(refused))
        return Reply(encode_json({"error": [], "result": result}))

    # The venue

    def _time(self, query: Query, now_ns: int) -> object:
        now = datetime.fromtimestamp(now_ns // NS, UTC)
        return {
            "unixtime": now_ns // NS,
            "rfc1123": f"{now:%a, %d %b %y %H:%M:%S} +0000",
        }

    def _system_status(self, query: Query, now_ns: int) -> object:
        now = datetime.fromtimestamp(now_ns // NS, UTC)
        return {
            "status": self._exchange.system,
            "timestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        }

    def _assets(self, query: Query, now_ns: int) -> object:
        listed = list_assets([market.pair for market in self._exchange.markets])
        names = _names(query, "asset")
        if names:
            known = {name: row for row in listed for name in (row.code, row.altname)}
            if not known.keys() >= set(names):
                raise _Refused("EQuery:Unknown asset")
            listed = [known[name] for name in names]
        return {asset.code: describe_asset(asset) for asset in listed}

    def _asset_pairs(self, query: Query, now_ns: int) -> object:
        rows = {
            market.pair.key: describe_pair(market.pair) for market in self._asked(query)
        }
        kind = query.get("info", "info")
        if kind == "info":
            return rows
        if kind not in _INFO:
            raise _Refused(INVALID_ARGUMENTS)
        return {
            key: {field: row[field] for field in _INFO[kind]}
            for key, row in rows.items()
        }

    # Markets

    def _ticker(self, query: Query, now_ns: int) -> object:
        return {
            market.pair.key: ticker_row(market, now_ns) for market in self._asked(query)
        }

    def _ohlc(self, query: Query, now_ns: int) -> object:
        market = self._one(query)
        interval = _integer(query, "interval", 1)
        since_s = _integer(query, "since", 0)
        if interval not in INTERVALS:
            raise _Refused(INVALID_ARGUMENTS)
        period_s = interval * 60
        running_s = now_ns // NS // period_s * period_s
        end_s = running_s + period_s
        bars = market.bars(period_s, end_s - OHLC_ROWS * period_s, end_s)
        rows = [
            ohlc_row(market.pair, time_s, bar)
            for time_s, bar in bars
            if time_s >= min(since_s, running_s)
        ]
        return {market.pair.key: rows, "last": running_s - period_s}

    def _trades(self, query: Query, now_ns: int) -> object:
        market = self._one(query)
        count = _integer(query, "count", TRADE_ROWS)
        if not 1 <= count <= TRADE_ROWS:
            raise _Refused(INVALID_ARGUMENTS)
        since_ns = 0
        rows = market.rows()[-count:]
        if "since" in query:
            since_ns = _since_ns(query)
            first = market.index_at(since_ns)
            rows = market.rows()[first : first + count]
        last_ns = int(rows["time_ns"][-1]) if len(rows) else since_ns
        page = [trade_row(market.pair, row) for row in rows.tolist()]
        return {market.pair.key: page, "last": str(last_ns)}

    def _depth(self, query: Query, now_ns: int) -> object:
        market = self._one(query)
        count = _integer(query, "count", 100)
        if not 1 <= count <= DEPTH_LEVELS:
            raise _Refused(INVALID_ARGUMENTS)
        return {market.pair.key: book(market, count)}

    def _spread(self, query: Query, now_ns: int) -> object:
        market = self._one(query)
        rows = [
            (time_s, price_text(market.pair, bid), price_text(market.pair, ask))
            for time_s, bid, ask in self._exchange.spreads(market)
        ]
        return {market.pair.key: rows, "last": rows[-1][0]}

    def _asked(self, query: Query) -> Sequence[PairMarket]:
        """The markets `pair` names; all of them without it."""
        names = _names(query, "pair")
        found = [self._exchange.find(name) for name in names]
        markets = [market for market in found if market is not None]
        if len(markets) != len(names):
            raise _Refused("EQuery:Unknown asset pair")
        return markets or self._exchange.markets

    def _one(self, query: Query) -> PairMarket:
        if "pair" not in query:
            raise _Refused(INVALID_ARGUMENTS)
        market = self._exchange.find(query["pair"])
        if market is None:
            raise _Refused("EQuery:Unknown asset pair")
        return market


def _error(text: str) -> Reply:
    return Reply(encode_json({"error": [text]}))


def _names(query: Query, field: str) -> list[str]:
    return query[field].split(",") if query.get(field) else []


def _integer(query: Query, field: str, default: int) -> int:
    text = query.get(field)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _Refused(INVALID_ARGUMENTS)
    return int(text)


def _since_ns(query: Query) -> int:
    since = _integer(query, "since", 0)
    return since if since >= _SINCE_NS_FROM else since * NS
