"""Kraken's pairs under all their names: the table, look-up and search.

A pair has a REST key (XXBTZUSD), an `altname` (XBTUSD), a `wsname` (XBT/USD) and, over
WebSocket v2, a symbol with today's asset names (BTC/USD). Its name with us is the
altname in lower case, `xbtusd.kraken`; all the others find it too.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated

import msgspec

from piker_core.symbol_table import Listing, SymbolTable
from piker_core.symbols import Asset, MktPair

PROVIDER = "kraken"
RENAMED = {"XBT": "BTC", "XDG": "DOGE"}
FIAT = frozenset(("USD", "EUR", "GBP", "CAD", "JPY", "AUD", "CHF", "AED", "BRL", "MXN"))

Decimals = Annotated[int, msgspec.Meta(ge=0, le=30)]


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A value of REST AssetPairs, fields named as the venue's, and its `key`.

    `tick_size` is the price step, `ordermin` the least size in units of the base,
    `costmin` the least cost in units of the quote; `fees` and `fees_maker` are rows of
    30-day volume and percent.
    """

    key: str = ""
    altname: str
    wsname: str = ""
    aclass_base: str = "currency"
    base: str
    aclass_quote: str = "currency"
    quote: str
    cost_decimals: Decimals = 8
    pair_decimals: Decimals
    lot_decimals: Decimals
    lot_multiplier: int = 1
    leverage_buy: tuple[int, ...] = ()
    leverage_sell: tuple[int, ...] = ()
    fees: tuple[tuple[float, ...], ...] = ()
    fees_maker: tuple[tuple[float, ...], ...] = ()
    fee_volume_currency: str = ""
    ordermin: Decimal = Decimal(0)
    costmin: Decimal = Decimal(0)
    tick_size: Decimal | None = None
    status: str = "online"

    def __post_init__(self) -> None:
        if not self.altname:
            raise ValueError("a pair without altname")
        tick = self.tick_size
        if tick is not None and not (tick.is_finite() and tick > 0):
            raise ValueError(f"tick_size {tick} of {self.altname} is not positive")
        if not (self.ordermin.is_finite() and self.costmin.is_finite()):
            raise ValueError(f"ordermin or costmin of {self.altname} is not finite")

    @property
    def symbol(self) -> str:
        """The pair's name with us, without the provider: `xbtusd`."""
        return self.altname.lower()

    @property
    def fqme(self) -> str:
        """The full market name: `xbtusd.kraken`."""
        return f"{self.symbol}.{PROVIDER}"

    @property
    def v2_symbol(self) -> str:
        """The name over WebSocket v2: `BTC/USD`; empty where there is no wsname."""
        return "/".join(RENAMED.get(part, part) for part in self.wsname.split("/"))

    @property
    def price_tick(self) -> Decimal:
        """The price step, which is not always one of the last decimal."""
        return self.tick_size or Decimal(1).scaleb(-self.pair_decimals)

    @property
    def size_tick(self) -> Decimal:
        """The size step in units of the base."""
        return Decimal(1).scaleb(-self.lot_decimals)

    def names(self) -> tuple[str, ...]:
        """Every name that finds the pair, in lower case without slash."""
        names = (self.altname, self.wsname, self.v2_symbol, self.key)
        return tuple(dict.fromkeys(plain(name) for name in names if name))


def plain(name: str) -> str:
    """A name as it is looked up: lower case, no slash, no blanks, no provider."""
    joined = "".join(name.lower().replace("/", "").split())
    return joined.removesuffix(f".{PROVIDER}")


def describe_market(pair: Pair) -> MktPair:
    """The pair as a market; its `venue_symbol` is the name over WebSocket v2."""
    base, _, quote = pair.v2_symbol.partition("/")
    return MktPair(
        base=_asset(base or pair.base, pair.aclass_base, pair.size_tick),
        quote=_asset(
            quote or pair.quote,
            pair.aclass_quote,
            Decimal(1).scaleb(-pair.cost_decimals),
        ),
        symbol=pair.symbol,
        venue_symbol=pair.v2_symbol or pair.altname,
        provider=PROVIDER,
        price_tick=pair.price_tick,
        size_tick=pair.size_tick,
        min_size=pair.ordermin,
        min_notional=pair.costmin,
    )


def _asset(name: str, aclass: str, tick: Decimal) -> Asset:
    if aclass != "currency":
        return Asset(name.lower(), aclass, tick)
    return Asset(name.lower(), "fiat" if name in FIAT else "crypto", tick)


def list_pair(pair: Pair) -> Listing:
    """The pair as a market in a table, with what Kraken says of it."""
    details = msgspec.to_builtins(pair)
    return Listing(describe_market(pair), pair.names(), details=details)


class PairTable:
    """The pairs by REST key, and by all their names."""

    def __init__(
        self, pairs: Mapping[str, Pair], symbols: SymbolTable | None = None
    ) -> None:
        self.pairs = dict(pairs)
        self.symbols = symbols or SymbolTable(PROVIDER, map(list_pair, pairs.values()))
        self._by_fqme = {pair.fqme: pair for pair in self.pairs.values()}

    @classmethod
    def of(cls, symbols: SymbolTable) -> "PairTable":
        """The pairs of a table that was kept. Raises msgspec.ValidationError."""
        details = [listing.details for listing in symbols.listings.values()]
        pairs = msgspec.convert(details, list[Pair])
        return cls({pair.key: pair for pair in pairs}, symbols)

    def find(self, name: str) -> Pair:
        """The pair of this name, whichever of its names it is.

        Raises NotFound with the name and what comes near it.
        """
        return self._by_fqme[self.symbols.find(name).market.fqme]

    def search(self, pattern: str, *, limit: int = 50) -> list[Pair]:
        """Pairs that the pattern means, best first; see `SymbolTable.search`."""
        found = self.symbols.search(pattern, limit=limit)
        return [self._by_fqme[market.fqme] for market in found]
