"""The public REST calls of a simulated Binance: what each of them answers.

Rules this file owns:

1. Of a range with neither end the newest rows come; from a start the oldest from there;
   up to an end the newest up to there; both ends are inclusive, rows ascend.
2. The running kline is the last one; where nothing traded a kline is flat.
"""

from collections.abc import Callable

from piker_core.simulation.market import NS
from piker_core.simulation.totals import Rows

from .venue_depth import Books, update_id
from .venue_errors import (
    BAD_COMBINATION,
    BAD_INTERVAL,
    Refused,
)
from .venue_frames import level_rows
from .venue_klines import SPOT_INTERVALS, Interval, kline_row
from .venue_params import Params
from .venue_symbols import MS, SymbolExchange, SymbolMarket
from .venue_tickers import book_ticker, day_ticker, price_ticker
from .venue_trades import aggregate_row, first_aggregates, last_aggregates, trade_row

Method = Callable[[Params, int], object]


class Calls:
    """What both sides answer alike; `methods` are by path, below the side's prefix.

    Every method takes the parameters and the venue's time in ns.
    """

    intervals = SPOT_INTERVALS
    most_klines = 1000
    old_trades_limit = (500, 1000)

    def __init__(
        self,
        exchange: SymbolExchange,
        books: Books,
        told_ns: Callable[[int], int],
    ) -> None:
        self.exchange = exchange
        self.methods: dict[str, Method] = {
            "ping": self._ping,
            "time": self._time,
            "aggTrades": self._aggregates,
            "trades": self._trades,
            "historicalTrades": self._old_trades,
            "klines": self.klines,
            "depth": self._depth,
            "ticker/price": self._price,
            "ticker/bookTicker": self._book_ticker,
            "ticker/24hr": self._day,
        }
        self._books = books
        self._told_ns = told_ns

    def told_ns(self) -> int:
        """The time as the venue tells it."""
        return self._told_ns(self.exchange.advance())

    # The venue

    def _ping(self, params: Params, now_ns: int) -> object:
        params.known()
        return {}

    def _time(self, params: Params, now_ns: int) -> object:
        params.known()
        return {"serverTime": self.told_ns() // params.unit}

    # Trades

    def _trades(self, params: Params, now_ns: int) -> object:
        params.known("symbol", "limit")
        market = params.market()
        rows = market.rows()[-params.limit(500, 1000) :]
        return [trade_row(market.pair, row, params.unit) for row in rows.tolist()]

    def _old_trades(self, params: Params, now_ns: int) -> object:
        params.known("symbol", "limit", "fromId")
        market = params.market()
        limit = params.limit(*self.old_trades_limit)
        from_id = params.integer("fromId")
        rows = market.rows()[-limit:]
        if from_id is not None:
            begin = max(from_id - market.pair.first_id, 0)
            rows = market.rows()[begin : begin + limit]
        return [trade_row(market.pair, row, params.unit) for row in rows.tolist()]

    def _aggregates(self, params: Params, now_ns: int) -> object:
        params.known("symbol", "limit", "fromId", "startTime", "endTime")
        market = params.market()
        limit = params.limit(500, 1000)
        from_id = params.integer("fromId")
        start_ns, end_ns = params.span_ns()
        if from_id is not None and (start_ns is not None or end_ns is not None):
            raise Refused(*BAD_COMBINATION)
        self.check_span(start_ns, end_ns)
        self.check_age(start_ns, end_ns, now_ns)
        if from_id is not None:
            rows = market.rows()
            begin = int(rows["group"].searchsorted(from_id))
            found = first_aggregates(rows[begin:], limit)
        elif start_ns is not None:
            found = first_aggregates(_span(market, start_ns, end_ns), limit)
        else:
            found = last_aggregates(_span(market, start_ns, end_ns), limit)
        return [aggregate_row(market.pair, row, params.unit) for row in found]

    def check_span(self, start_ns: int | None, end_ns: int | None) -> None:
        """Refuse what does not go together."""

    def check_age(self, start_ns: int | None, end_ns: int | None, now_ns: int) -> None:
        """Refuse spans of aggregates that are too long or too old."""

    # Klines

    def klines(self, params: Params, now_ns: int) -> object:
        """Bars of an interval."""
        params.known("symbol", "interval", "startTime", "endTime", "timeZone", "limit")
        market = params.market()
        name = params.text("interval")
        if name not in self.intervals:
            raise Refused(*BAD_INTERVAL)
        if params.has("timeZone") and params.text("timeZone") not in ("0", "0:00"):
            raise Refused(-1130, "Data sent for parameter 'timeZone' is not valid.")
        limit = params.limit(500, self.most_klines)
        interval = Interval(name)
        start_ns, end_ns = params.span_ns()
        self.check_span(start_ns, end_ns)
        after_s = interval.next_s(interval.open_s(now_ns // NS))
        if end_ns is not None and -(-end_ns // NS) < after_s:
            after_s = interval.first_s(-(-end_ns // NS))
        begin_s = interval.move_s(after_s, -limit)
        if start_ns is not None:
            listed_s = interval.open_s(_first_s(market, after_s))
            begin_s = max(interval.first_s(min(-(-start_ns // NS), after_s)), listed_s)
            after_s = min(after_s, interval.move_s(begin_s, limit))
        bars = interval.bars(market, begin_s, after_s)
        return [kline_row(market.pair, interval, bar, params.unit) for bar in bars]

    # Quotes

    def _depth(self, params: Params, now_ns: int) -> object:
        params.known("symbol", "limit", "symbolStatus")
        market = params.market()
        bids, asks = self._books.open(market).best(self.depth_limit(params))
        times = {"E": now_ns // MS, "T": market.quote.time_ns // MS}
        return {
            "lastUpdateId": update_id(market),
            **(times if market.pair.contract else {}),
            "bids": level_rows(market.pair, bids),
            "asks": level_rows(market.pair, asks),
        }

    def depth_limit(self, params: Params) -> int:
        """How many levels a side are asked for."""
        return params.limit(100, 5000)

    def _price(self, params: Params, now_ns: int) -> object:
        params.known("symbol", "symbols", "symbolStatus")
        return self._each(params, lambda market: price_ticker(market, now_ns))

    def _book_ticker(self, params: Params, now_ns: int) -> object:
        params.known("symbol", "symbols", "symbolStatus")
        return self._each(params, book_ticker)

    def _day(self, params: Params, now_ns: int) -> object:
        params.known("symbol", "symbols", "type", "symbolStatus")
        kind = params.text("type") if params.has("type") else "FULL"
        if kind not in ("FULL", "MINI"):
            raise Refused(-1139, "Invalid ticker type.")
        unit, mini = params.unit, kind == "MINI"
        return self._each(
            params, lambda market: day_ticker(market, now_ns, unit, mini=mini)
        )

    def _each(self, params: Params, row: Callable[[SymbolMarket], object]) -> object:
        """A row of the symbol that was asked for, or a list of them."""
        several = params.markets()
        if several is None and params.has("symbol"):
            return row(params.market())
        return [row(market) for market in several or self.listed()]

    def listed(self) -> list[SymbolMarket]:
        """The markets of a ticker without a symbol."""
        return list(self.exchange.markets)


def _span(market: SymbolMarket, start_ns: int | None, end_ns: int | None) -> Rows:
    """Trades with start <= time < end."""
    return market.between(start_ns or 0, 2**63 - 1 if end_ns is None else end_ns)


def _first_s(market: SymbolMarket, default_s: int) -> int:
    """When the first trade happened."""
    return int(market.rows()["time_ns"][0]) // NS if market.head else default_s
