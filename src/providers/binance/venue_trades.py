"""Trades of a simulated Binance and the aggregates of them, as REST prints them.

An aggregate is what one taker got at one price and time: consecutive trades, of which
it carries the first id, the last id and the sum of sizes.
"""

from collections.abc import Iterable
from typing import NamedTuple

from piker_core.simulation.totals import Rows

from .venue_symbols import VenueSymbol

Row = tuple[int, int, int, int, int, bool, bool]


class Aggregate(NamedTuple):
    """Some trades as one, price and size in units."""

    number: int
    price: int
    size: int
    first_id: int
    last_id: int
    time_ns: int
    buy: bool


def aggregate(rows: Iterable[Row]) -> list[Aggregate]:
    """The aggregates of consecutive trades, given as lists of `TRADE_ROW` fields."""
    made: list[Aggregate] = []
    for time_ns, price, size, trade_id, group, buy, _ in rows:
        if made and made[-1].number == group:
            last = made.pop()
            made.append(last._replace(size=last.size + size, last_id=trade_id))
        else:
            made.append(Aggregate(group, price, size, trade_id, trade_id, time_ns, buy))
    return made


def trade_row(symbol: VenueSymbol, row: Row, unit: int) -> dict[str, object]:
    """A row of `trades`, times in units of so many ns."""
    time_ns, price, size, trade_id, _, buy, _ = row
    made: dict[str, object] = {
        "id": trade_id,
        "price": symbol.price_text(price),
        "qty": symbol.size_text(size),
        "quoteQty": symbol.notional_text(price * size),
        "time": time_ns // unit,
        "isBuyerMaker": not buy,
    }
    return made | ({"isRPITrade": False} if symbol.contract else {"isBestMatch": True})


def aggregate_row(symbol: VenueSymbol, row: Aggregate, unit: int) -> dict[str, object]:
    """A row of `aggTrades`, times in units of so many ns."""
    made: dict[str, object] = {
        "a": row.number,
        "p": symbol.price_text(row.price),
        "q": symbol.size_text(row.size),
    }
    if symbol.contract:
        made["nq"] = symbol.size_text(row.size)
    made |= {
        "f": row.first_id,
        "l": row.last_id,
        "T": row.time_ns // unit,
        "m": not row.buy,
    }
    return made if symbol.contract else made | {"M": True}


def first_aggregates(rows: Rows, count: int) -> list[Aggregate]:
    """The first so many aggregates of rows."""
    if not len(rows):
        return []
    end = int(rows["group"].searchsorted(rows["group"][0] + count))
    return aggregate(rows[:end].tolist())


def last_aggregates(rows: Rows, count: int) -> list[Aggregate]:
    """The last so many aggregates of rows, each whole."""
    if not len(rows):
        return []
    begin = int(rows["group"].searchsorted(rows["group"][-1] - count + 1))
    return aggregate(rows[begin:].tolist())
