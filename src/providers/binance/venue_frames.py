"""The events a simulated Binance sends for trades, quotes and books.

Keys and their order follow recorded frames, on USD-M those of the venue's documents.
Times are counted in units of so many ns.
"""

import msgspec

from .venue_depth import Level, update_id
from .venue_symbols import MS, SymbolMarket, VenueSymbol
from .venue_trades import Aggregate, Row

_BOOL = ("false", "true")

encode_json = msgspec.json.encode


def envelope(stream: str, event: bytes) -> bytes:
    """An event of a combined stream."""
    return b'{"stream":%b,"data":%b}' % (encode_json(stream), event)


def trade_event(symbol: VenueSymbol, row: Row, now_ns: int, unit: int) -> bytes:
    """One trade."""
    time_ns, price, size, trade_id, _, buy, _ = row
    name, price_text = symbol.symbol, symbol.price_text(price)
    size_text, maker = symbol.size_text(size), _BOOL[not buy]
    now, time = now_ns // unit, time_ns // unit
    if symbol.contract:
        text = (
            f'{{"e":"trade","E":{now},"T":{time},"s":"{name}","t":{trade_id},'
            f'"p":"{price_text}","q":"{size_text}","X":"MARKET","m":{maker},"st":1}}'
        )
    else:
        text = (
            f'{{"e":"trade","E":{now},"s":"{name}","t":{trade_id},"p":"{price_text}",'
            f'"q":"{size_text}","T":{time},"m":{maker},"M":true}}'
        )
    return text.encode()


def aggregate_event(
    symbol: VenueSymbol, row: Aggregate, now_ns: int, unit: int
) -> bytes:
    """One aggregate of trades."""
    name, now, time = symbol.symbol, now_ns // unit, row.time_ns // unit
    price, size = symbol.price_text(row.price), symbol.size_text(row.size)
    maker = _BOOL[not row.buy]
    if symbol.contract:
        text = (
            f'{{"e":"aggTrade","E":{now},"a":{row.number},"s":"{name}","p":"{price}",'
            f'"q":"{size}","nq":"{size}","f":{row.first_id},"l":{row.last_id},'
            f'"T":{time},"m":{maker},"st":1}}'
        )
    else:
        text = (
            f'{{"e":"aggTrade","E":{now},"s":"{name}","a":{row.number},"p":"{price}",'
            f'"q":"{size}","f":{row.first_id},"l":{row.last_id},"T":{time},'
            f'"m":{maker},"M":true}}'
        )
    return text.encode()


def book_event(market: SymbolMarket, now_ns: int, unit: int) -> bytes:
    """The best quote; on spot it has neither a type nor a time."""
    pair, quote, update = market.pair, market.quote, update_id(market)
    best = (
        f'"b":"{pair.price_text(quote.bid)}","B":"{pair.size_text(quote.bid_size)}",'
        f'"a":"{pair.price_text(quote.ask)}","A":"{pair.size_text(quote.ask_size)}"'
    )
    if pair.contract:
        time = quote.time_ns // unit
        text = (
            f'{{"e":"bookTicker","u":{update},"s":"{pair.symbol}","ps":"{pair.pair}",'
            f'{best},"T":{time},"E":{now_ns // unit},"st":1}}'
        )
    else:
        text = f'{{"u":{update},"s":"{pair.symbol}",{best}}}'
    return text.encode()


def depth_event(
    market: SymbolMarket,
    span: tuple[int, int],
    levels: tuple[list[Level], list[Level]],
    now_ns: int,
    unit: int,
) -> bytes:
    """Changed bids and asks, after the first id of the span up to the second."""
    pair, (before, last) = market.pair, span
    made: dict[str, object] = {"e": "depthUpdate", "E": now_ns // unit}
    if pair.contract:
        made["T"] = market.quote.time_ns // unit
    made["s"] = pair.symbol
    if pair.contract:
        made["ps"] = pair.pair
    made |= {"U": before + 1, "u": last}
    if pair.contract:
        made["pu"] = before
    bids, asks = (level_rows(pair, side) for side in levels)
    made |= {"b": bids, "a": asks}
    return encode_json(made | ({"st": 1} if pair.contract else {}))


def partial_event(
    market: SymbolMarket, levels: tuple[list[Level], list[Level]]
) -> bytes:
    """The best levels on spot."""
    bids, asks = (level_rows(market.pair, side) for side in levels)
    return encode_json({"lastUpdateId": update_id(market), "bids": bids, "asks": asks})


def level_rows(symbol: VenueSymbol, levels: list[Level]) -> list[tuple[str, str]]:
    """Levels of a book as they are printed."""
    return [
        (symbol.price_text(price), symbol.size_text(size)) for price, size in levels
    ]


def shutdown_event(now_ns: int, *, combined: bool) -> bytes:
    """The server is about to end."""
    event = encode_json({"e": "serverShutdown", "E": now_ns // MS})
    return envelope("!serverShutdown", event) if combined else event


def kline_frame(
    symbol: VenueSymbol, bar: dict[str, object], now_ns: int, unit: int
) -> bytes:
    """A kline, running or closed."""
    return encode_json(
        {"e": "kline", "E": now_ns // unit, "s": symbol.symbol, "k": bar}
    )
