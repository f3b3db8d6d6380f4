"""Ticks that fold into exactly the venue's bars, of what is not known of them."""

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import piker_core as pk
from piker_core.calendars import NS
from providers.ib.known import Known, KnownTrades
from providers.ib.rebuild import row_ticks
from tests.ib_listing import FOREX, FUTURE

S = 1_795_444_320
FIELDS = ("open", "high", "low", "close", "volume", "count")


def market(listing: Any = FUTURE) -> Any:
    return SimpleNamespace(listing=listing, known=KnownTrades())


def as_array(ticks: list[dict[str, Any]], kind: str = "trade") -> Any:
    rows = np.zeros(len(ticks), pk.TICK_DTYPE)
    for row, tick in zip(rows, ticks, strict=True):
        assert tick["type"] == kind
        row["type"] = pk.TICK_TYPES["trade"]
        for name in ("price", "size", "time_ns"):
            row[name] = tick[name]
        row["count"] = tick.get("count", 1)
    return rows


def bar_of(trades: list[tuple[int, int]]) -> Any:
    ticks = [
        {"type": "trade", "price": price / 4, "size": size, "time_ns": S * NS + place}
        for place, (price, size) in enumerate(trades)
    ]
    (row,) = pk.fold_ticks(as_array(ticks), 1, start_s=S, end_s=S + 1)
    return row


trades = st.lists(
    st.tuples(st.integers(80_000, 80_400), st.integers(1, 50)), min_size=1, max_size=9
)


@given(trades)
def test_a_bar_of_trades_becomes_ticks_that_fold_into_it(
    made: list[tuple[int, int]],
) -> None:
    bar = bar_of(made)
    ticks = row_ticks(market(), bar)
    assert 1 <= len(ticks) <= 4
    (row,) = pk.fold_ticks(as_array(ticks), 1, start_s=S, end_s=S + 1)
    for field in FIELDS[:4]:
        assert row[field] == bar[field]
    assert row["volume"] == pytest.approx(bar["volume"], rel=1e-12)
    assert row["count"] == max(bar["count"], len(ticks)) == bar["count"]
    assert row["bar_wap"] == pytest.approx(bar["bar_wap"], rel=1e-12)


def test_of_a_second_that_is_half_known_the_rest_is_added() -> None:
    half = market()
    half.known.put(Known(1, S * NS, "trade", 20_000.0, Decimal(3)))
    bar = bar_of([(80_000, 3), (80_100, 5), (79_900, 2)])
    ticks = row_ticks(half, bar)
    assert sum(tick["size"] for tick in ticks) == pytest.approx(7)
    assert ticks[-1]["price"] == 79_900 / 4
    assert {tick["price"] for tick in ticks} >= {80_100 / 4}


def test_of_a_second_that_is_known_nothing_is_added() -> None:
    whole = market()
    whole.known.put(Known(1, S * NS, "trade", 20_000.0, Decimal(10)))
    assert row_ticks(whole, bar_of([(80_000, 3), (80_100, 5), (79_900, 2)])) == []


def test_a_bar_of_quotes_becomes_quotes_without_size() -> None:
    bar = bar_of([(80_000, 1), (80_100, 1), (79_900, 1), (80_050, 1)])
    bar["volume"], bar["count"] = 0, 1
    ticks = row_ticks(market(FOREX), bar)
    prices = [tick["price"] for tick in ticks]
    assert prices[0] == 20_000.0 and prices[-1] == 80_050 / 4
    assert {max(prices), min(prices)} == {80_100 / 4, 79_900 / 4}
    assert all(tick["size"] == 0 and tick["type"] == "bid" for tick in ticks)
