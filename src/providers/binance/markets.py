"""Binance's symbols, of spot and of USD-M, by our names: decoding, look-up, search.

Spot's BTCUSDT is `btcusdt.binance`. A contract is named by its pair, its margin asset
and its expiry: `btcusdt.usdtm.perp.binance` never expires, `btcusdt.usdtm.20261225.
binance` is BTCUSDT_261225. Filters, fields and statuses that are new are ignored.

Source: https://developers.binance.com/docs/binance-spot-api-docs/filters
"""

import logging
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Annotated, Any

import msgspec

from piker_core.adapter.rest import Reply
from piker_core.errors import PikerError
from piker_core.fqme import Fqme
from piker_core.steps import decimal_tick, exact_decimal
from piker_core.symbol_table import Listing, SymbolTable
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
_SIZE_TICK = Decimal("1e-8")
"""Of a symbol without a step of sizes."""
_MAGNITUDE = 30
"""Steps and sizes of more digits before or behind the point are nonsense."""
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, ValueError, PikerError)


class Symbol(msgspec.Struct, frozen=True):
    """A market of the venue; `status` is TRADING, or why it does not trade."""

    market: MktPair
    status: str

    @property
    def fqme(self) -> str:
        """The full market name."""
        return self.market.fqme

    @property
    def venue_symbol(self) -> str:
        """The venue's own name."""
        return self.market.venue_symbol

    @property
    def trading(self) -> bool:
        """Whether it trades now."""
        return self.status == TRADING


class _Details(msgspec.Struct):
    """What a table keeps of a symbol besides the market."""

    status: str


class SideTable:
    """The symbols of one side: by full name in `symbols`, by any name with `find`."""

    def __init__(self, table: SymbolTable) -> None:
        """Raises msgspec.ValidationError for a table of something else."""
        self.table = table
        rows = table.listings.values()
        details = msgspec.convert([row.details for row in rows], list[_Details])
        self.symbols = {
            row.market.fqme: Symbol(row.market, detail.status)
            for row, detail in zip(rows, details, strict=True)
        }

    def find(self, name: str) -> Symbol:
        """The symbol of this name. Raises NotFound with the names that come near it."""
        return self.symbols[self.table.find(name).market.fqme]


class Catalogue:
    """The symbols of several sides, to be searched as one."""

    def __init__(self, sides: Iterable[SideTable]) -> None:
        self.sides = list(sides)
        self._symbols: dict[str, Symbol] = {}
        listings: list[Listing] = []
        for side in self.sides:
            self._symbols |= side.symbols
            listings += side.table.listings.values()
        self._table = SymbolTable(PROVIDER, listings)

    def search(self, pattern: str, *, limit: int = 50) -> list[Symbol]:
        """At most `limit` symbols that a pattern means, best first.

        Those that do not trade come behind all others. See `SymbolTable.search`.
        """
        markets = self._table.search(pattern, limit=len(self._symbols))
        found = [self._symbols[market.fqme] for market in markets]
        return sorted(found, key=lambda symbol: not symbol.trading)[:limit]


class _Filter(msgspec.Struct):
    filterType: str = ""
    tickSize: Any = None
    stepSize: Any = None
    minQty: Any = None
    maxQty: Any = None
    minNotional: Any = None
    notional: Any = None


class _Row(msgspec.Struct):
    """A symbol of exchangeInfo, of either side."""

    symbol: str
    status: str
    baseAsset: str
    quoteAsset: str
    filters: list[_Filter] = []
    quotePrecision: Annotated[int, msgspec.Meta(ge=0, le=_MAGNITUDE)] = 8
    pair: str = ""
    marginAsset: str = ""


class _Info(msgspec.Struct):
    symbols: list[msgspec.Raw]
    serverTime: int = 0


def is_contract(name: str) -> bool:
    """Whether a name, with or without the provider, is of USD-M: it has a venue."""
    return "." in name.strip().lower().removesuffix(f".{PROVIDER}")


def decode_table(reply: Reply, *, contracts: bool) -> tuple[SymbolTable, int]:
    """An exchangeInfo as a table, and the venue's time in ns (0: not told).

    A symbol that cannot be understood, or whose name is none of ours, is left out.
    """
    info = reply.decode(_Info)
    listings = list(_listings(info.symbols, contracts=contracts))
    if len(listings) < len(info.symbols):
        left_out = len(info.symbols) - len(listings)
        log.info("%d symbols of %s are left out", left_out, reply.url)
    if info.symbols and not listings:
        raise reply.refuse("no symbol in it can be understood")
    try:
        time_ns = decode_time(info.serverTime)
    except ValueError:
        time_ns = 0
    return SymbolTable(PROVIDER, listings), time_ns


def _listings(rows: Iterable[msgspec.Raw], *, contracts: bool) -> Iterator[Listing]:
    for raw in rows:
        try:
            row = msgspec.json.decode(raw, type=_Row)
            market = _read_market(row, contract=contracts)
        except _UNREADABLE as error:
            log.debug("%.80r is left out: %s", bytes(raw), error)
        else:
            yield Listing(market, details={"status": row.status})


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


def _read_market(row: _Row, *, contract: bool) -> MktPair:
    """A symbol as a market. Raises PikerError, ValueError for what makes none."""
    by_type = {each.filterType: each for each in row.filters}
    price, lot = by_type.get("PRICE_FILTER"), by_type.get("LOT_SIZE")
    least = by_type.get("NOTIONAL") or by_type.get("MIN_NOTIONAL") or _Filter()
    if price is None or lot is None:
        raise ValueError(f"{row.symbol} has no PRICE_FILTER or no LOT_SIZE")
    quote_tick = decimal_tick(row.quotePrecision)
    size_tick = _step(lot.stepSize) or _SIZE_TICK
    return MktPair(
        base=_asset(row.baseAsset, size_tick),
        quote=_asset(row.quoteAsset, quote_tick),
        symbol=_name(row, contract=contract).symbol,
        venue_symbol=row.symbol,
        provider=PROVIDER,
        price_tick=_step(price.tickSize) or quote_tick,
        size_tick=size_tick,
        min_size=_step(lot.minQty),
        max_size=_step(lot.maxQty or 0) or None,
        min_notional=_step(least.minNotional or least.notional or 0),
    )


def _name(row: _Row, *, contract: bool) -> Fqme:
    """btcusdt; of a contract btcusdt.usdtm.perp, or with the day of delivery."""
    if not contract:
        return Fqme(pair=row.symbol.lower(), provider=PROVIDER)
    symbol, dated, day = row.symbol.partition("_")
    pair = (row.pair or symbol).lower()
    venue = f"{row.marginAsset or row.quoteAsset}m".lower()
    if not dated:
        return Fqme(pair=pair, provider=PROVIDER, venue=venue, kind="perp")
    return Fqme(pair=pair, provider=PROVIDER, venue=venue, expiry=f"20{day}")


def _step(number: Any) -> Decimal:
    """A number that is finite and not negative, its needless zeros cut: 10, 0.5."""
    step = exact_decimal(number)
    if step < 0 or abs(step.adjusted()) > _MAGNITUDE:
        raise ValueError(f"{number!r:.40} is no step or size")
    return Decimal(int(step)) if step == int(step) else step.normalize()


def _asset(name: str, tick: Decimal) -> Asset:
    name = name.lower()
    return Asset(name, "fiat" if name in FIAT else "crypto", tick)
