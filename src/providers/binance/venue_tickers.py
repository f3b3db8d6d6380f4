"""Tickers of a simulated Binance, over REST and as events.

The figures of a day are those of the last 24 hours, from the full minute on.
"""

from decimal import Decimal
from fractions import Fraction

from piker_core.simulation.listing import SIZE_DECIMALS
from piker_core.simulation.market import DAY_NS, NS
from piker_core.simulation.numbers import fixed_text
from piker_core.simulation.totals import Totals, total

from .venue_depth import update_id
from .venue_symbols import MS, TRADING, SymbolMarket

_MINUTES = 5


def price_ticker(market: SymbolMarket, now_ns: int) -> dict[str, object]:
    """A row of `ticker/price`."""
    pair = market.pair
    made: dict[str, object] = {
        "symbol": pair.symbol,
        "price": pair.price_text(market.last_units()),
    }
    return made | ({"time": now_ns // MS} if pair.contract else {})


def _best(market: SymbolMarket) -> tuple[str, str, str, str]:
    """Bid, its size, ask and its size; zeros for a symbol that does not trade."""
    pair, quote = market.pair, market.quote
    if pair.status != TRADING:
        return (pair.price_text(0), pair.size_text(0)) * 2
    return (
        pair.price_text(quote.bid),
        pair.size_text(quote.bid_size),
        pair.price_text(quote.ask),
        pair.size_text(quote.ask_size),
    )


def book_ticker(market: SymbolMarket) -> dict[str, object]:
    """A row of `ticker/bookTicker`."""
    bid, bid_size, ask, ask_size = _best(market)
    made: dict[str, object] = {
        "symbol": market.pair.symbol,
        "bidPrice": bid,
        "bidQty": bid_size,
        "askPrice": ask,
        "askQty": ask_size,
    }
    if market.pair.contract:
        made |= {
            "time": market.quote.time_ns // MS,
            "lastUpdateId": update_id(market),
        }
    return made


def average_price(market: SymbolMarket, now_ns: int, unit: int) -> dict[str, object]:
    """The answer of `avgPrice`: the mean of five minutes, else the last price."""
    rows = market.between(now_ns - _MINUTES * 60 * NS, now_ns + 1)
    price = Fraction(market.last_units())
    if len(rows):
        price = total(rows).vwap
    last = market.rows()[-1:]
    return {
        "mins": _MINUTES,
        "price": _mean_text(market, price),
        "closeTime": int(last["time_ns"][0]) // unit if len(last) else 0,
    }


def _mean_text(market: SymbolMarket, price: Fraction) -> str:
    """A mean price with eight decimals, cut."""
    scale = 10 ** (SIZE_DECIMALS - market.pair.price_decimals)
    return fixed_text(int(price * scale), SIZE_DECIMALS)


def _day(market: SymbolMarket, now_ns: int) -> Totals:
    last = market.last_units()
    return market.day(now_ns) or Totals(last, last, last, last, 0, 0, 0)


def _last_size(market: SymbolMarket) -> int:
    closing = market.rows()[-1:]
    return int(closing["size"][0]) if len(closing) else 0


def _percent(change: int, start: int) -> str:
    return f"{Decimal(change) * 100 / start:.3f}"


def day_ticker(
    market: SymbolMarket, now_ns: int, unit: int, *, mini: bool = False
) -> dict[str, object]:
    """A row of `ticker/24hr`, or its short form."""
    pair, day = market.pair, _day(market, now_ns)
    bid, bid_size, ask, ask_size = _best(market)
    begin_ns = now_ns - DAY_NS
    before = market.rows()[: market.index_at(begin_ns)][-1:]
    previous = int(before["price"][0]) if len(before) else day.open
    full = {
        "priceChange": pair.price_text(day.close - day.open),
        "priceChangePercent": _percent(day.close - day.open, day.open),
        "weightedAvgPrice": _mean_text(market, day.vwap),
    }
    quotes = {
        "prevClosePrice": pair.price_text(previous),
        "lastPrice": pair.price_text(day.close),
        "lastQty": pair.size_text(_last_size(market)),
        "bidPrice": bid,
        "bidQty": bid_size,
        "askPrice": ask,
        "askQty": ask_size,
    }
    if mini:
        full, quotes = {}, {"lastPrice": quotes["lastPrice"]}
    elif pair.contract:
        quotes = {name: quotes[name] for name in ("lastPrice", "lastQty")}
    return {
        "symbol": pair.symbol,
        **full,
        **quotes,
        "openPrice": pair.price_text(day.open),
        "highPrice": pair.price_text(day.high),
        "lowPrice": pair.price_text(day.low),
        "volume": pair.size_text(day.volume),
        "quoteVolume": pair.notional_text(day.notional),
        "openTime": begin_ns // unit,
        "closeTime": now_ns // unit,
        "firstId": day.first_id,
        "lastId": day.last_id,
        "count": day.count,
    }


def mini_ticker_event(
    market: SymbolMarket, now_ns: int, unit: int
) -> dict[str, object]:
    """The 24hrMiniTicker event."""
    row = day_ticker(market, now_ns, unit, mini=True)
    return _event("24hrMiniTicker", market, now_ns // unit, row, _MINI_FIELDS)


def ticker_event(market: SymbolMarket, now_ns: int, unit: int) -> dict[str, object]:
    """The 24hrTicker event."""
    row = day_ticker(market, now_ns, unit)
    return _event("24hrTicker", market, now_ns // unit, row, _FIELDS)


def _event(
    kind: str,
    market: SymbolMarket,
    time: int,
    row: dict[str, object],
    fields: dict[str, str],
) -> dict[str, object]:
    """An event of those fields that the row has."""
    made: dict[str, object] = {"e": kind, "E": time, "s": market.pair.symbol}
    made |= {key: row[name] for key, name in fields.items() if name in row}
    return made | ({"ps": market.pair.pair, "st": 1} if market.pair.contract else {})


_FIELDS = {
    "p": "priceChange",
    "P": "priceChangePercent",
    "w": "weightedAvgPrice",
    "x": "prevClosePrice",
    "c": "lastPrice",
    "Q": "lastQty",
    "b": "bidPrice",
    "B": "bidQty",
    "a": "askPrice",
    "A": "askQty",
    "o": "openPrice",
    "h": "highPrice",
    "l": "lowPrice",
    "v": "volume",
    "q": "quoteVolume",
    "O": "openTime",
    "C": "closeTime",
    "F": "firstId",
    "L": "lastId",
    "n": "count",
}
_MINI_FIELDS = {"c": "lastPrice", "o": "openPrice", "h": "highPrice", "l": "lowPrice"}
_MINI_FIELDS |= {"v": "volume", "q": "quoteVolume"}
