"""Markets as Structs: their names, what fits into a ring, prices of orders."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import piker_core as pk
from piker_core.fqme import Fqme

USD = pk.Asset("usd", "fiat", Decimal("0.01"))
OPTION: dict[str, Any] = {
    "base": pk.Asset("aapl", "stock", Decimal(1)),
    "quote": USD,
    "symbol": "aapl.smart.20261218-c-250",
    "venue_symbol": "AAPL  261218C00250000",
    "provider": "ib",
    "price_tick": Decimal("0.05"),
    "size_tick": Decimal(1),
    "multiplier": Decimal(100),
    "min_size": Decimal(1),
    "max_size": Decimal(100_000),
    "min_notional": Decimal("0.5"),
    "calendar": "XNYS",
}


def market(symbol: str = "xbtusd", **more: Any) -> pk.MktPair:
    fields: dict[str, Any] = {
        "base": pk.Asset("xbt"),
        "quote": USD,
        "symbol": symbol,
        "venue_symbol": symbol.upper(),
        "provider": "kraken",
        "price_tick": Decimal("0.1"),
        "size_tick": Decimal("1e-8"),
    }
    return pk.MktPair(**(fields | more))


@pytest.mark.parametrize(
    ("symbol", "kind", "venue", "expiry", "right", "strike"),
    [
        ("xbtusd", "spot", "", "", "", None),
        ("eurusd.idealpro", "spot", "idealpro", "", "", None),
        ("btcusdt.usdtm.perp", "perp", "usdtm", "", "", None),
        ("mnq.cme.20261218", "future", "cme", "20261218", "", None),
        ("a.smart.20261218-p-2_5", "option", "smart", "20261218", "p", Decimal("2.5")),
    ],
)
def test_a_market_is_what_its_symbol_says(
    symbol: str, kind: str, venue: str, expiry: str, right: str, strike: Decimal | None
) -> None:
    mkt = market(symbol)
    assert (mkt.kind, mkt.venue, mkt.expiry) == (kind, venue, expiry)
    assert (mkt.right, mkt.strike) == (right, strike)
    assert mkt.fqme == f"{symbol}.kraken"
    assert mkt.name == Fqme.parse(mkt.fqme)


@pytest.mark.parametrize(
    ("fields", "symbol"),
    [
        ({"venue": "idealpro"}, "xbtusd.idealpro"),
        ({"venue": "usdtm", "kind": "perp"}, "xbtusd.usdtm.perp"),
        ({"venue": "usdtm", "expiry": "perp"}, "xbtusd.usdtm.perp"),
        ({"venue": "cme", "expiry": "20261218"}, "xbtusd.cme.20261218"),
        (
            {"venue": "v", "expiry": "202612", "right": "c", "strike": Decimal("2.50")},
            "xbtusd.v.202612-c-2_5",
        ),
    ],
)
def test_a_bare_pair_is_completed_by_the_fields(
    fields: dict[str, Any], symbol: str
) -> None:
    mkt = market(**fields)
    assert (mkt.symbol, mkt.fqme) == (symbol, f"{symbol}.kraken")
    assert market(symbol) == market(symbol, venue=mkt.venue)


def test_what_is_said_of_a_market_goes_before_its_name() -> None:
    mkt = market("eurusd.idealpro", kind="forex", calendar="fx")
    assert (mkt.kind, mkt.calendar) == ("forex", "fx")


def test_a_symbol_of_another_form_is_left_as_it_is() -> None:
    mkt = market("A/B.c.d.e.f")
    assert (mkt.fqme, mkt.name, mkt.venue) == ("A/B.c.d.e.f.kraken", None, "")


def test_a_market_is_the_same_after_json_and_defaults_take_no_room() -> None:
    for mkt in (market(), pk.MktPair(**OPTION)):
        text = msgspec.json.encode(mkt)
        assert msgspec.json.decode(text, type=pk.MktPair) == mkt
    text = msgspec.json.encode(market())
    for absent in (b"multiplier", b"calendar", b"kind", b"strike", b"max_size"):
        assert absent not in text


def test_the_fullest_description_fits_into_a_ring_and_is_read_back(
    namespace: str,
) -> None:
    mkt = pk.MktPair(**OPTION)
    about = msgspec.json.encode(mkt)
    assert len(about) < 480
    with pk.open_engine("ib", namespace=namespace, tick_capacity=64) as engine:
        engine.add_market(mkt.fqme, about=about, capacity={1: 64, 60: 64})
        with pk.attach_bars(mkt.fqme) as bars:
            assert msgspec.json.decode(bars.about, type=pk.MktPair) == mkt


def test_fields_that_are_not_known_are_ignored_and_old_texts_still_read() -> None:
    old = {
        "base": {"name": "xbt", "atype": "crypto", "tx_tick": "1E-8"},
        "quote": {"name": "usd", "atype": "fiat", "tx_tick": "0.01"},
        "symbol": "xbtusd",
        "venue_symbol": "BTC/USD",
        "provider": "kraken",
        "price_tick": "0.1",
        "size_tick": "1E-8",
        "venue": "",
        "expiry": "",
        "min_size": "0.0001",
    }
    mkt = msgspec.convert(old, pk.MktPair)
    new = old | {"colour": "green", "base": old["base"] | {"mood": 7}}  # type: ignore[operator]
    assert msgspec.convert(new, pk.MktPair) == mkt
    assert mkt.min_size == Decimal("0.0001") and mkt.fqme == "xbtusd.kraken"


ticks = st.sampled_from(["0.1", "0.25", "5", "1e-8", "0.05", "1"]).map(Decimal)
prices = st.one_of(
    st.floats(0.0001, 1e9), st.decimals("0.0001", "1000000000", places=8)
)


@given(prices, ticks)
def test_an_order_price_is_never_to_the_senders_disadvantage(
    price: float | Decimal, tick: Decimal
) -> None:
    mkt = market(price_tick=tick)
    exact = Decimal(repr(price)) if isinstance(price, float) else price
    buy, sell = (mkt.quantize_order_price(price, action) for action in ("buy", "sell"))
    assert buy <= exact <= sell
    assert exact - buy < tick and sell - exact < tick
    assert buy % tick == 0 and sell % tick == 0
    for action, rounded in (("buy", buy), ("sell", sell)):
        assert mkt.quantize_order_price(rounded, action) == rounded
        assert mkt.quantize_order_price(str(exact), action) == rounded


def test_another_action_is_refused() -> None:
    with pytest.raises(ValueError, match="action 'hold' must be buy or sell"):
        market().quantize_order_price(1, "hold")


def test_sizes_are_rounded_down_and_texts_have_the_ticks_decimals() -> None:
    mkt = market(price_tick=Decimal("0.25"), size_tick=Decimal("0.001"))
    assert mkt.quantize_size("0.0019999") == Decimal("0.001")
    assert (mkt.price_digits, mkt.size_digits) == (2, 3)
    assert mkt.price_text(100.4) == "100.50"
    assert mkt.size_text(0.1 + 0.2) == "0.300"
    assert mkt.quantize_price(100.4) == Decimal("100.5")
