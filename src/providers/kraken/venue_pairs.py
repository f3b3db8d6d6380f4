"""The pairs and assets a simulated Kraken lists, under all their names."""

from collections.abc import Sequence

import msgspec

from piker_core.simulation.exchange import Exchange
from piker_core.simulation.listing import SIZE_DECIMALS, Listing
from piker_core.simulation.market import Market

_TAKER = ((0, 0.4), (10000, 0.35), (50000, 0.24), (100000, 0.22), (250000, 0.2))
_MAKER = ((0, 0.25), (10000, 0.2), (50000, 0.14), (100000, 0.12), (250000, 0.1))


class VenueAsset(msgspec.Struct, frozen=True):
    """An asset: REST code (XXBT), REST altname (XBT), WS v2 id (BTC)."""

    code: str
    altname: str
    name: str
    decimals: int
    display_decimals: int
    borrowable: bool = True


class VenuePair(Listing, frozen=True, kw_only=True):
    """A pair under its four names; `symbol` is the one of WebSocket v2."""

    key: str
    altname: str
    wsname: str
    base: VenueAsset
    quote: VenueAsset
    cost_decimals: int

    def names(self) -> tuple[str, ...]:
        """Every name REST accepts for the pair."""
        return (self.key, self.altname, self.wsname, self.symbol)


PairMarket = Market[VenuePair]
PairExchange = Exchange[VenuePair]

_BTC = VenueAsset("XXBT", "XBT", "BTC", 10, 5)
_ETH = VenueAsset("XETH", "ETH", "ETH", 10, 5)
_DOGE = VenueAsset("XXDG", "XDG", "DOGE", 8, 2)
_MLN = VenueAsset("XMLN", "MLN", "MLN", 10, 5, borrowable=False)
_USD = VenueAsset("ZUSD", "USD", "USD", 4, 2)
_EUR = VenueAsset("ZEUR", "EUR", "EUR", 4, 2)
_USDT = VenueAsset("USDT", "USDT", "USDT", 8, 4)

CATALOGUE: tuple[VenuePair, ...] = (
    VenuePair(
        symbol="BTC/USD", key="XXBTZUSD", altname="XBTUSD", wsname="XBT/USD",
        base=_BTC, quote=_USD, price_decimals=1, cost_decimals=5, start_units=837443,
        typical_size=0.01, size_min="0.00005", live_share=0.5, history_share=0.5,
        first_id=109116693,
    ),
    VenuePair(
        symbol="ETH/USD", key="XETHZUSD", altname="ETHUSD", wsname="ETH/USD",
        base=_ETH, quote=_USD, price_decimals=2, cost_decimals=5, start_units=271355,
        typical_size=0.3, size_min="0.002", live_share=0.25, history_share=0.25,
        first_id=71903220,
    ),
    VenuePair(
        symbol="BTC/USDT", key="XBTUSDT", altname="XBTUSDT", wsname="XBT/USDT",
        base=_BTC, quote=_USDT, price_decimals=1, cost_decimals=5, start_units=837612,
        typical_size=0.01, size_min="0.00005", live_share=0.2, history_share=0.15,
        first_id=10218208,
    ),
    VenuePair(
        symbol="DOGE/USD", key="XDGUSD", altname="XDGUSD", wsname="XDG/USD",
        base=_DOGE, quote=_USD, price_decimals=7, cost_decimals=9,
        start_units=1843500, tick_units=50, typical_size=900.0, size_min="13",
        live_share=0.05, history_share=0.08, first_id=29440817,
    ),
    VenuePair(
        symbol="MLN/EUR", key="XMLNZEUR", altname="MLNEUR", wsname="MLN/EUR",
        base=_MLN, quote=_EUR, price_decimals=3, cost_decimals=6, start_units=7120,
        tick_units=5, typical_size=2.0, size_min="0.3", live_share=0.0,
        history_share=0.02, first_id=1180344,
    ),
)  # fmt: skip


def select_pairs(pairs: Sequence[str | VenuePair] | None) -> tuple[VenuePair, ...]:
    """Look the pairs up in the catalogue; all of it for None, each pair once.

    Raises `ValueError` for an unknown name.
    """
    if pairs is None:
        return CATALOGUE
    known = {name: pair for pair in CATALOGUE for name in pair.names()}
    chosen = []
    for pair in pairs:
        if isinstance(pair, str):
            if pair not in known:
                listed = ", ".join(row.symbol for row in CATALOGUE)
                raise ValueError(f"no pair {pair!r} in the catalogue: {listed}")
            pair = known[pair]
        chosen.append(pair)
    if not chosen:
        raise ValueError("pairs is empty: name at least one, or pass None for all")
    return tuple(dict.fromkeys(chosen))


def describe_pair(pair: VenuePair) -> dict[str, object]:
    """The value of a pair in REST `AssetPairs`."""
    leverage = [2, 3, 4, 5, 6, 7, 8, 9, 10] if pair.live_share else []
    return {
        "altname": pair.altname,
        "wsname": pair.wsname,
        "aclass_base": "currency",
        "base": pair.base.code,
        "aclass_quote": "currency",
        "quote": pair.quote.code,
        "lot": "unit",
        "cost_decimals": pair.cost_decimals,
        "pair_decimals": pair.price_decimals,
        "lot_decimals": SIZE_DECIMALS,
        "lot_multiplier": 1,
        "leverage_buy": leverage,
        "leverage_sell": leverage,
        "fees": _TAKER,
        "fees_maker": _MAKER,
        "fee_volume_currency": "ZUSD",
        "margin_call": 80,
        "margin_stop": 40,
        "ordermin": pair.size_min,
        "costmin": "0.5",
        "tick_size": f"{pair.tick:f}",
        "status": "online",
        "long_position_limit": 80,
        "short_position_limit": 80,
    }


def describe_asset(asset: VenueAsset) -> dict[str, object]:
    """The value of an asset in REST `Assets`."""
    return {
        "aclass": "currency",
        "altname": asset.altname,
        "decimals": asset.decimals,
        "display_decimals": asset.display_decimals,
        "collateral_value": 1.0,
        "status": "enabled",
    }


def list_assets(pairs: Sequence[VenuePair]) -> list[VenueAsset]:
    """The assets of the pairs, each once, in order of appearance."""
    found: dict[str, VenueAsset] = {}
    for pair in pairs:
        found.setdefault(pair.base.code, pair.base)
        found.setdefault(pair.quote.code, pair.quote)
    return list(found.values())
