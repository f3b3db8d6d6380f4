"""Look-up by any name, and a search that finds what a trader means among thousands."""

import random
from decimal import Decimal
from string import ascii_lowercase
from typing import Any

import pytest

import piker_core as pk
from piker_core.symbol_search import ASSET_NAMES
from piker_core.symbol_table import Listing, SymbolTable

FIAT = ("usd", "eur", "gbp", "jpy", "chf", "cad", "aud", "cny")
QUOTES = ("usdt", "usdc", "usd", "eur", "btc")


def listing(base: str, quote: str, symbol: str, *more: str, **fields: Any) -> Listing:
    mkt = pk.MktPair(
        base=pk.Asset(base),
        quote=pk.Asset(quote),
        symbol=symbol,
        venue_symbol=f"{base}{quote}".upper(),
        provider="binance",
        price_tick=Decimal("0.01"),
        size_tick=Decimal("0.001"),
    )
    return Listing(mkt, (f"{base}/{quote}", *more), **fields)


def thousands() -> list[Listing]:
    """Spot, perpetual and dated markets of all known assets and of made-up ones."""
    letters = random.Random(20261125)
    made_up = {
        "".join(letters.choices(ascii_lowercase, k=letters.choice([3, 3, 4, 5])))
        for _ in range(600)
    }
    known = [name for name in ASSET_NAMES if name not in (*FIAT, "xbt", "xdg")]
    bases = [*known, *sorted(made_up - set(ASSET_NAMES)), "wbtc", "ethw", "stbtc"]
    found = []
    for base in bases:
        found += [listing(base, q, base + q) for q in QUOTES if q != base]
        if base != "usdt":
            found.append(listing(base, "usdt", f"{base}usdt.usdtm.perp"))
            found.append(listing(base, "usdt", f"{base}usdt.usdtm.20261225"))
            found.append(listing(base, "usdt", f"{base}usdt.usdtm.20270326"))
    random.Random(7).shuffle(found)
    return found


@pytest.fixture(scope="module")
def table() -> SymbolTable:
    return SymbolTable("binance", thousands())


@pytest.mark.parametrize(
    ("pattern", "first"),
    [
        ("btc", ["btcusd", "btcusdt", "btcusdc", "btceur"]),
        ("BTC", ["btcusd", "btcusdt"]),
        ("bitcoin", ["btcusd", "btcusdt"]),
        ("xbt/usd", ["btcusd"]),
        ("btc/usdt", ["btcusdt", "btcusdt.usdtm.perp"]),
        ("BTC-USDT", ["btcusdt"]),
        ("btcusdt", ["btcusdt", "btcusdt.usdtm.perp", "btcusdt.usdtm.20261225"]),
        ("btcusdt.binance", ["btcusdt"]),
        ("BTCUSDT perp", ["btcusdt.usdtm.perp"]),
        ("perp btc", ["btcusdt.usdtm.perp"]),
        ("btcusdt 20270326", ["btcusdt.usdtm.20270326"]),
        ("btcusdt future", ["btcusdt.usdtm.20261225", "btcusdt.usdtm.20270326"]),
        ("wbtc", ["wbtcusd"]),
        ("eth", ["ethusd", "ethusdt"]),
        ("ethereum", ["ethusd"]),
        ("etherum", ["ethusd", "ethusdt", "ethusdc"]),  # as people write it
        ("etherium", ["ethusd"]),
        ("bticoin", ["btcusd"]),
        ("tehter", ["usdtusd"]),
        ("solan", ["solusd"]),  # begun
        ("ethusd", ["ethusd", "ethusdt"]),
        ("ehtusd", ["ethusd"]),  # letters swapped
        ("eth eur", ["etheur"]),
        ("ethereum euro", ["etheur"]),
        ("dogecoin perp", ["dogeusdt.usdtm.perp"]),
        ("zqzqzqzq", []),
        ("btc zqzqzqzq", []),
        ("", []),
        (" /-. ", []),
    ],
)
def test_what_a_trader_means_comes_first(
    table: SymbolTable, pattern: str, first: list[str]
) -> None:
    assert len(table) > 4000
    found = [market.symbol for market in table.search(pattern)]
    assert found[: len(first)] == first
    assert bool(found) == bool(first)


def test_no_more_are_found_than_asked_for(table: SymbolTable) -> None:
    assert len(table.search("usdt")) == 50
    assert len(table.search("usdt", limit=3)) == 3
    assert table.search("usdt", limit=0) == []


def test_what_a_market_is_called_finds_it() -> None:
    apple = listing("aapl", "usd", "aapl.smart", title="Apple Inc. (NASDAQ)")
    micron = listing("mu", "usd", "mu.smart", title="Micron Technology")
    table = SymbolTable("binance", [micron, apple])
    for pattern in ("apple", "nasdaq apple", "aple", "inc"):
        assert [market.symbol for market in table.search(pattern)] == ["aapl.smart"]


@pytest.mark.parametrize(
    "name",
    ["xbtusd", "XBTUSD", "xbtusd.binance", "XBT/USD", "btc-usd", "BTC USD", "XXBTZUSD"],
)
def test_any_of_its_names_finds_a_market(name: str) -> None:
    wanted = listing("xbt", "usd", "xbtusd", "BTC/USD", "XXBTZUSD")
    table = SymbolTable("binance", [listing("eth", "usd", "ethusd"), wanted])
    assert table.find(name) is wanted
    assert table.markets["xbtusd.binance"] is wanted.market
    assert [*table] == [each.market for each in table.listings.values()]


def test_a_full_name_goes_before_another_markets_alias() -> None:
    alias = listing("btc", "usdt", "btcusdt.usdtm.perp", "btcusdt")
    spot = listing("btc", "usdt", "btcusdt")
    assert SymbolTable("binance", [alias, spot]).find("btcusdt") is spot


def test_an_unknown_name_is_told_with_what_comes_near(table: SymbolTable) -> None:
    with pytest.raises(pk.NotFound, match=r"'btcusdx'.*btcusd\.binance"):
        table.find("btcusdx")
    with pytest.raises(pk.NotFound, match="'zqzqzqzq'; nothing comes near it"):
        table.find("zqzqzqzq")
