"""Binance's symbols, of spot and of USD-M, by our names: decoding, look-up, search.

Spot's BTCUSDT is `btcusdt.binance`. A contract is named by its pair, its margin asset
and its expiry: `btcusdt.usdtm.perp.binance` never expires, `btcusdt.usdtm.20261225.
binance` is BTCUSDT_261225. Filters, fields and statuses that are new are ignored.

Source: https://developers.binance.com/docs/binance-spot-api-docs/filters
"""

import difflib
import logging
import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import msgspec

from piker_core.adapter.rest import Reply
from piker_core.errors import NotFound
from piker_core.symbols import Asset, MktPair

from .wire import decode_time

log = logging.getLogger(__name__)

PROVIDER = "binance"
TRADING = "TRADING"
FIAT = frozenset(
    (
        *("usd", "eur", "gbp", "try", "brl", "jpy", "aud", "pln", "ron"),
        *("zar", "uah", "ars", "mxn", "czk", "cop", "idr", "ngn"),
    )
)
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_NEAR = 5
_LIKE = 0.6


class Symbol(msgspec.Struct, frozen=True, kw_only=True):
    """A symbol of the venue; `name` is ours without the provider.

    `status` is TRADING, or why it does not trade. `pair` is the symbol without a
    delivery date, `margin` the asset a contract is settled in. Steps and least sizes
    are in units of the base, `min_notional` in units of the quote; 0 is no limit.
    """

    name: str
    venue_symbol: str
    pair: str
    status: str
    base: str
    quote: str
    price_tick: Decimal
    size_tick: Decimal
    quote_tick: Decimal
    min_size: Decimal
    min_notional: Decimal
    margin: str = ""

    @property
    def fqme(self) -> str:
        """The full market name."""
        return f"{self.name}.{PROVIDER}"

    @property
    def trading(self) -> bool:
        """Whether it trades now."""
        return self.status == TRADING

    def names(self) -> tuple[str, ...]:
        """What finds it, in lower case: our name, and the venue's where that is it."""
        return (self.name, f"{self.base}{self.quote}".lower())


class _Filter(msgspec.Struct):
    filterType: str = ""
    tickSize: Any = None
    stepSize: Any = None
    minQty: Any = None
    minNotional: Any = None
    notional: Any = None


class _Row(msgspec.Struct):
    """A symbol of exchangeInfo, of either side."""

    symbol: str
    status: str
    baseAsset: str
    quoteAsset: str
    filters: list[_Filter] = []
    quotePrecision: Annotated[int, msgspec.Meta(ge=0, le=30)] = 8
    pair: str = ""
    marginAsset: str = ""


class _Info(msgspec.Struct):
    symbols: list[msgspec.Raw]
    serverTime: int = 0


class SymbolTable:
    """The symbols of one side, by their names."""

    def __init__(self, symbols: Iterable[Symbol], where: str) -> None:
        self.symbols = {symbol.name: symbol for symbol in symbols}
        self._where = where

    def find(self, name: str) -> Symbol:
        """The symbol of this name. Raises NotFound with the names that come near it."""
        symbol = self.symbols.get(plain(name))
        if symbol is not None:
            return symbol
        near = difflib.get_close_matches(plain(name), self.symbols, _NEAR, _LIKE)
        names = ", ".join(self.symbols[like].fqme for like in near)
        hint = f"near it: {names}" if near else "nothing comes near it"
        raise NotFound(
            f"{self._where} has no market {name!r:.80}; {hint} "
            "(piker-core search lists them)"
        )


def plain(name: str) -> str:
    """A name as it is looked up: lower case, no slash, no blanks, no provider."""
    joined = "".join(name.lower().replace("/", "").split())
    return joined.removesuffix(f".{PROVIDER}")


def decode_table(reply: Reply, *, contracts: bool) -> tuple[SymbolTable, int]:
    """An exchangeInfo as a table, and the venue's time in ns (0: not told).

    A symbol that cannot be understood, or whose name is none of ours, is left out.
    """
    info = reply.decode(_Info)
    symbols, left_out = [], 0
    for raw in info.symbols:
        try:
            row = msgspec.json.decode(raw, type=_Row)
            symbols.append(_read(row, contract=contracts))
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            left_out += 1
            log.debug("%.80r is left out: %s", bytes(raw), error)
    if left_out:
        log.info("%d symbols of %s are left out", left_out, reply.url)
    if info.symbols and not symbols:
        raise reply.refuse("no symbol in it can be understood")
    try:
        time_ns = decode_time(info.serverTime)
    except ValueError:
        time_ns = 0
    return SymbolTable(symbols, reply.site.name), time_ns


def decode_statuses(reply: Reply) -> dict[str, str]:
    """The statuses in an exchangeInfo by the venue's symbols."""
    statuses = {}
    for raw in reply.decode(_Info).symbols:
        try:
            row = msgspec.json.decode(raw, type=_Row)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        statuses[row.symbol] = row.status
    return statuses


def _read(row: _Row, *, contract: bool) -> Symbol:
    """A symbol in our words. Raises ValueError for what makes no market."""
    pair = row.pair or row.symbol
    name = _name_contract(row, pair) if contract else pair.lower()
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of [a-z0-9_-]")
    by_type = {each.filterType: each for each in row.filters}
    price, lot = by_type.get("PRICE_FILTER"), by_type.get("LOT_SIZE")
    least = by_type.get("NOTIONAL") or by_type.get("MIN_NOTIONAL") or _Filter()
    if price is None or lot is None:
        raise ValueError(f"{row.symbol} has no PRICE_FILTER or no LOT_SIZE")
    quote_tick = Decimal(1).scaleb(-row.quotePrecision)
    return Symbol(
        name=name,
        venue_symbol=row.symbol,
        pair=pair,
        status=row.status,
        base=row.baseAsset,
        quote=row.quoteAsset,
        price_tick=_step(price.tickSize) or quote_tick,
        size_tick=_step(lot.stepSize) or Decimal("1e-8"),
        quote_tick=quote_tick,
        min_size=_step(lot.minQty),
        min_notional=_step(least.minNotional or least.notional or "0"),
        margin=row.marginAsset if contract else "",
    )


def _name_contract(row: _Row, pair: str) -> str:
    """btcusdt.usdtm.perp, or with the day of delivery."""
    venue = f"{row.marginAsset or row.quoteAsset}m"
    _, dated, day = row.symbol.partition("_")
    if dated and not (len(day) == 6 and day.isascii() and day.isdecimal()):
        raise ValueError(f"{row.symbol} is no day of delivery")
    return f"{pair}.{venue}.{f'20{day}' if dated else 'perp'}".lower()


def _step(text: Any) -> Decimal:
    """A number that is finite and not negative, its needless zeros cut."""
    try:
        number = Decimal(text if isinstance(text, str) else "")
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0 or abs(number.adjusted()) > 30:
        raise ValueError(f"{text!r:.40} is no step or size")
    return number.normalize()


def describe_market(symbol: Symbol) -> MktPair:
    """The symbol as a market."""
    return MktPair(
        base=_asset(symbol.base, symbol.size_tick),
        quote=_asset(symbol.quote, symbol.quote_tick),
        symbol=symbol.name,
        venue_symbol=symbol.venue_symbol,
        provider=PROVIDER,
        price_tick=symbol.price_tick,
        size_tick=symbol.size_tick,
        min_size=symbol.min_size,
    )


def _asset(name: str, tick: Decimal) -> Asset:
    name = name.lower()
    return Asset(name, "fiat" if name in FIAT else "crypto", tick)


def search_symbols(
    symbols: Iterable[Symbol], pattern: str, *, limit: int = 50
) -> list[Symbol]:
    """Symbols one of whose names is, begins with, has or resembles the pattern.

    Best first, at most `limit`, of alike ones those that trade. Takes long enough to be
    called from a thread.
    """
    wanted = plain(pattern).replace("-", "").replace("_", "")
    if not wanted:
        return []
    matcher = difflib.SequenceMatcher(b=wanted, autojunk=False)
    hits = []
    for symbol in symbols:
        score = max(_score(matcher, wanted, name) for name in symbol.names())
        if score >= _LIKE:
            order = (score < 1, not symbol.trading, -score, symbol.name)
            hits.append((order, symbol))
    return [symbol for _, symbol in sorted(hits, key=lambda hit: hit[0])[:limit]]


def _score(matcher: "difflib.SequenceMatcher[str]", wanted: str, name: str) -> float:
    """How well a name answers: 3 is the same, 2 and more its start, 1 a part of it."""
    if wanted in name:
        return (2.0 if name.startswith(wanted) else 1.0) + len(wanted) / len(name)
    matcher.set_seq1(name)
    if matcher.real_quick_ratio() < _LIKE or matcher.quick_ratio() < _LIKE:
        return 0.0
    return matcher.ratio()
