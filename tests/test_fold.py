"""The fold: sums in which no order shows, and bars of trades at rest."""

import random
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bar_rows import NS, Row, Trade, tick_array
from compilers import compile_c, run_c
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import piker_core as pk
from piker_core.dtypes import TICK_TYPES

T0 = 1_732_320_000
VALUES = ["time", "open", "high", "low", "close", "volume", "count", "bar_wap"]
REVISED = int(pk.BarFlag.REVISED)
QUICK = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
Ticks = NDArray[np.void]
_numbers = count()


@pytest.fixture
def fold_live(namespace: str) -> Any:
    """A function that pushes ticks into a new market, and gives its rows."""
    with pk.open_engine("test", namespace=namespace, tick_capacity=1 << 17) as engine:

        def fold(
            ticks: Ticks, period: int = 1, way: str = "batch", **more: Any
        ) -> Ticks:
            fqme = f"pair{next(_numbers)}.test"
            market = engine.add_market(
                fqme, periods=(period,), capacity={period: 1 << 14}, **more
            )
            market.set_status("live", since_ns=0)
            for place in range(0, len(ticks), len(ticks) if way == "batch" else 1):
                part = ticks[place:] if way == "batch" else ticks[place : place + 1]
                engine.push_ticks(market, part)
            with pk.attach_bars(fqme, period=period, namespace=namespace) as bars:
                return bars.snapshot(bars.capacity)

        yield fold


def in_seconds(groups: list[list[tuple[float, float]]]) -> Ticks:
    """Prices and sizes, a second for each group."""
    return tick_array(
        [
            Trade((T0 + second) * NS + number, price, size)
            for second, group in enumerate(groups)
            for number, (price, size) in enumerate(group)
        ]
    )


# Sums


@pytest.mark.parametrize("step", ["1e-8", "0.00001", "0.01", "0.25", "1", "1000"])
def test_no_order_of_a_bars_trades_shows_in_its_sums(
    step: str, fold_live: Callable[..., Ticks]
) -> None:
    """Alike sizes make means that lie between two doubles: half of all ties."""
    rng, groups = random.Random(step), []
    for _ in range(1200):
        alike, most = rng.random() < 0.5, rng.choice([1, 1000])
        sizes = [float(Decimal(step) * rng.randint(1, most)) for _ in range(6)]
        trades = [
            (rng.randint(600_000, 600_040) / 10, sizes[0] if alike else size)
            for size in sizes[: rng.randint(2, 6)]
        ]
        groups += [rng.sample(trades, len(trades)) for _ in range(6)]
    rows = fold_live(in_seconds(groups))
    for name in ("volume", "bar_wap"):
        bits = rows[name].view(np.int64).reshape(-1, 6)
        assert (bits == bits[:, :1]).all(), name


@QUICK
@given(
    step=st.sampled_from(["1e-8", "0.001", "0.25", "100"]),
    trades=st.lists(
        st.tuples(st.integers(1, 10**7), st.integers(0, 10**6)), min_size=1, max_size=40
    ),
)
def test_sums_are_the_exact_ones_correctly_rounded(
    step: str, trades: list[tuple[int, int]], fold_live: Callable[..., Ticks]
) -> None:
    steps = [Decimal(step) * size for _, size in trades]
    pairs = [
        (price / 100, float(size))
        for (price, _), size in zip(trades, steps, strict=True)
    ]
    row = fold_live(in_seconds([pairs]))[0]
    volume = sum(Fraction(size) for _, size in pairs)
    worth = sum(Fraction(price) * Fraction(size) for price, size in pairs)
    assert row["volume"] == float(volume)
    assert row["bar_wap"] == (float(worth / volume) if volume else row["close"])
    digits = max(0, -int(Decimal(step).normalize().as_tuple().exponent))
    assert Decimal(repr(round(float(row["volume"]), digits))) == sum(steps)


def test_sums_beyond_the_range_of_a_double_stay_finite_and_between_low_and_high(
    fold_live: Callable[..., Ticks],
) -> None:
    huge, tiny = 1e308, 1e-300
    groups = [
        [(huge, huge), (1.0, huge)],
        [(1.0, huge), (2.0, huge), (3.0, huge)],
        [(tiny, tiny), (2 * tiny, tiny)],
        [(huge, tiny), (huge / 2, 1.0)],
    ]
    rows = fold_live(in_seconds(groups))
    for name in VALUES:
        assert np.isfinite(rows[name]).all(), name
    assert (rows["low"] <= rows["bar_wap"]).all()
    assert (rows["bar_wap"] <= rows["high"]).all()


IDS = """
#include <stdio.h>
#include "ids.h"

int main(void) {
    static const int64_t steps[] = {1, 7, 8, 64, 4096, 1000003, -1, INT64_C(1) << 33};
    for (unsigned s = 0; s < sizeof steps / sizeof *steps; s++) {
        pk_ids ids = {0};
        const int64_t *place = NULL;
        for (int64_t n = 1; n <= 200000; n++) {
            if (pk_ids_has(&ids, n * steps[s]) || pk_ids_add(&ids, n * steps[s])) {
                return 1;
            }
            if (n > 1 && ids.order != place) {
                return 2;
            }
            place = ids.order;
        }
        uint32_t run = 0, longest = 0, slots = 2 * ids.room;
        for (uint32_t i = 0; i < 2 * slots; i++) {
            run = ids.table[i % slots] ? run + 1 : 0;
            longest = run > longest ? run : longest;
        }
        int known = ids.count == 65536 && pk_ids_has(&ids, 200000 * steps[s]) &&
                    pk_ids_has(&ids, (200000 - 65535) * steps[s]) &&
                    !pk_ids_has(&ids, (200000 - 65536) * steps[s]);
        printf("%d %u\\n", known, longest);
        pk_ids_free(&ids);
    }
    return 0;
}
"""


def test_exactly_the_last_65536_ids_are_known_and_none_is_far_from_its_place(
    tmp_path: Path,
) -> None:
    """A removal walks to the end of a run of full slots: rising ids must make none."""
    source = tmp_path / "ids.c"
    source.write_text(IDS)
    lines = run_c(compile_c("gcc", source, tmp_path / "ids")).split("\n")[:-1]
    assert len(lines) == 8
    for line in lines:
        known, longest = line.split()
        assert known == "1" and int(longest) < 2000, lines


# Order


@st.composite
def disorder(draw: st.DrawFn) -> Ticks:
    """Trades of some seconds in any order of arrival; the oldest comes first."""
    some = st.builds(
        Trade,
        st.builds(
            lambda second, ns: (T0 + second) * NS + ns,
            st.integers(1, 9) | st.integers(1, 150),
            st.sampled_from([0, 0, 1, 500_000_000, 999_999_999]),
        ),
        st.integers(990, 1010).map(lambda tenths: tenths / 10),
        st.sampled_from([0.0, 1e-8, 0.01, 0.01, 0.3, 12.5, 123_456.789]),
        st.just(0) | st.integers(1, 40),
        st.sampled_from([0, 1, 5]),
    )
    trades = draw(st.lists(some, max_size=60))
    first = Trade(T0 * NS, 100.0, 1.0, id=1000)
    ticks = tick_array([first, *trades])
    kinds = ["trade", "trade", "trade", "utrade", "dark_trade", "bid"]
    ticks["type"][1:] = [
        TICK_TYPES[draw(st.sampled_from(kinds))] for _ in range(len(trades))
    ]
    return ticks


def by_hand(ticks: Ticks, period: int) -> dict[int, Row]:
    """The bars that traded, by the rules: each id once, the first to arrive."""
    rows: dict[int, Row] = {}
    known: set[int] = set()
    for arrival, tick in enumerate(ticks):
        if tick["type"] > TICK_TYPES["dark_trade"] or int(tick["id"]) in known:
            continue
        known |= {int(tick["id"])} - {0}
        if tick["type"] != TICK_TYPES["dark_trade"]:
            time_ns = int(tick["time_ns"])
            price, size = float(tick["price"]), float(tick["size"])
            number = int(tick["count"]) or 1
            trade = Trade(time_ns, price, size, int(tick["id"]), number, arrival)
            bar = time_ns // NS // period * period
            rows.setdefault(bar, Row(bar, 0)).ordered.append(trade)
    return rows


@QUICK
@given(
    ticks=disorder(),
    period=st.sampled_from([1, 5, 60]),
    way=st.sampled_from(["batch", "each"]),
)
def test_bars_of_trades_at_rest_are_the_engines_bit_for_bit(
    ticks: Ticks, period: int, way: str, fold_live: Callable[..., Ticks]
) -> None:
    live, rest = fold_live(ticks, period, way), pk.fold_ticks(ticks, period)
    assert rest["index"].tolist() == [0] * len(rest)
    for name in VALUES:
        assert live[name].tobytes() == rest[name].tobytes(), name
    assert (live["flags"] & ~REVISED == rest["flags"]).all()
    traded = by_hand(ticks, period)
    for row in rest:
        if int(row["time"]) in traded:
            wanted = traded[int(row["time"])].values
            assert row["open"] == wanted.open and row["close"] == wanted.close
            assert row["volume"] == float(wanted.volume)
            assert row["count"] == wanted.count and row["bar_wap"] == wanted.wap
        else:
            assert row["count"] == 0


@QUICK
@given(ticks=disorder(), seed=st.integers(0, 1000))
def test_no_order_of_arrival_shows_in_the_rows(
    ticks: Ticks, seed: int, fold_live: Callable[..., Ticks]
) -> None:
    """But for trades of one time and id (or none), whose order is that of arrival."""
    keys = list(zip(ticks["time_ns"].tolist(), ticks["id"].tolist(), strict=True))
    ids = ticks["id"][ticks["id"] > 0].tolist()
    ticks = ticks[
        [
            keys.count(key) == 1 and (not key[1] or ids.count(key[1]) == 1)
            for key in keys
        ]
    ]
    other = ticks.copy()
    np.random.default_rng(seed).shuffle(other[1:])
    rows = fold_live(ticks), fold_live(other)
    for name in VALUES:
        assert rows[0][name].tobytes() == rows[1][name].tobytes(), name


# Bars of trades at rest


def two_trades() -> Ticks:
    return tick_array(
        [Trade((T0 + 10) * NS, 5.0, 1.0), Trade((T0 + 13) * NS + 1, 7.0, 1.0)]
    )


@pytest.mark.parametrize(
    ("window", "closes"),
    [
        ({}, {10: 5.0, 11: 5.0, 12: 5.0, 13: 7.0}),
        ({"start_s": T0 + 8}, {10: 5.0, 11: 5.0, 12: 5.0, 13: 7.0}),
        (
            {"start_s": T0 + 8, "close": 4.0},
            {8: 4.0, 9: 4.0, 10: 5.0, 11: 5.0, 12: 5.0, 13: 7.0},
        ),
        ({"start_s": T0 + 12}, {12: 5.0, 13: 7.0}),
        ({"start_s": T0 + 12, "end_s": T0 + 13}, {12: 5.0}),
        ({"end_s": T0 + 16}, {10: 5.0, 11: 5.0, 12: 5.0, 13: 7.0, 14: 7.0, 15: 7.0}),
        ({"end_s": T0 + 9}, {}),
        ({"start_s": T0 + 20, "end_s": T0 + 22}, {20: 7.0, 21: 7.0}),
    ],
)
def test_rows_are_those_that_begin_in_the_window(
    window: dict[str, Any], closes: dict[int, float]
) -> None:
    rows = pk.fold_ticks(two_trades(), 1, **window)
    assert dict(zip(rows["time"] - T0, rows["close"], strict=True)) == closes


def test_a_bar_that_begins_before_the_window_is_left_out() -> None:
    assert pk.fold_ticks(two_trades(), 60)["time"].tolist() == [T0]
    later = pk.fold_ticks(two_trades(), 60, start_s=T0 + 1, end_s=T0 + 61)
    assert later["time"].tolist() == [T0 + 60] and later["close"].tolist() == [7.0]


def test_without_trades_there_are_rows_only_where_a_close_is_known() -> None:
    none = np.zeros(0, pk.TICK_DTYPE)
    window = {"start_s": T0, "end_s": T0 + 3}
    assert len(pk.fold_ticks(none, 1, **window)) == 0
    assert len(pk.fold_ticks(none, 1, close=2.0)) == 0
    rows = pk.fold_ticks(none, 1, close=2.0, **window)
    assert rows["bar_wap"].tolist() == [2.0] * 3
    assert (rows["flags"] == int(pk.BarFlag.FLAT)).all()


def test_of_a_repeated_id_the_first_to_arrive_counts() -> None:
    trades = [Trade(T0 * NS + 5, 2.0, 1.0, id=7), Trade(T0 * NS, 1.0, 1.0, id=7)]
    assert pk.fold_ticks(tick_array(trades), 1)["close"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("error", "change"),
    [
        (TypeError, {"ticks": [1, 2]}),
        (TypeError, {"ticks": np.zeros(3)}),
        (TypeError, {"ticks": np.zeros((2, 2), pk.TICK_DTYPE)}),
        (TypeError, {"period": 1.0}),
        (TypeError, {"period": None}),
        (ValueError, {"period": 0}),
        (ValueError, {"period": -1}),
        (ValueError, {"period": 1 << 40}),
        (TypeError, {"start_s": 1.5}),
        (ValueError, {"start_s": -1}),
        (ValueError, {"end_s": 1 << 60}),
        (ValueError, {"close": float("nan")}),
        (ValueError, {"close": 0.0}),
        (TypeError, {"close": "1"}),
        (TypeError, {"sessions": [1, 2]}),
        (ValueError, {"sessions": [(2, 1)]}),
    ],
)
def test_what_cannot_be_folded_is_refused(error: Any, change: dict[str, Any]) -> None:
    wanted: dict[str, Any] = {"ticks": two_trades(), "period": 1} | change
    with pytest.raises(error):
        pk.fold_ticks(wanted.pop("ticks"), wanted.pop("period"), **wanted)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price", 0.0),
        ("price", np.inf),
        ("size", -1.0),
        ("size", np.nan),
        ("time_ns", -1),
        ("time_ns", 1 << 62),
    ],
)
def test_a_trade_that_an_engine_refuses_is_a_bad_tick(field: str, value: Any) -> None:
    ticks = two_trades()
    ticks[field][1] = value
    with pytest.raises(pk.BadTick, match=field.partition("_")[0]):
        pk.fold_ticks(ticks, 1)


# Bars of quotes


@pytest.mark.parametrize(
    ("source", "closes", "counts"),
    [
        ("bid", [1.0, 1.5], [1, 1]),
        ("ask", [3.0, 3.5], [2, 1]),
        ("mid", [2.0, 2.5], [2, 2]),
    ],
)
def test_bars_of_quotes(
    source: str, closes: list[float], counts: list[int], fold_live: Callable[..., Ticks]
) -> None:
    quotes = [("ask", 0, 4.0), ("bid", 0, 1.0), ("ask", 0, 3.0)]
    quotes += [("ask", 1, 3.5), ("bid", 1, 1.5), ("trade", 1, 9.0)]
    ticks = np.concatenate(
        [
            tick_array([Trade((T0 + second) * NS + n, price, 0.5)], kind)
            for n, (kind, second, price) in enumerate(quotes)
        ]
    )
    rows = fold_live(ticks, bars_from=source)
    assert rows["close"].tolist() == closes
    assert rows["count"].tolist() == counts
    assert rows["volume"].tolist() == [
        0.0 if source == "mid" else 0.5 * n for n in counts
    ]
    if source == "mid":
        assert rows["open"].tolist() == [2.5, 2.25]
