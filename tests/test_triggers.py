"""Triggers of a market, tested on every tick, beside a model that looks at each."""

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import piker_core as pk
from piker_core.core.triggers import Triggers, feed_all, of_markets
from tests.compilers import compile_c, run_c

NS = 1_000_000_000
CODES = pk.TICK_TYPES
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def ticks_of(*told: tuple[Any, ...]) -> Any:
    """Records of (type, price[, time_ns[, market[, size]]])."""
    ticks = np.zeros(len(told), pk.TICK_DTYPE)
    for tick, (kind, price, *more) in zip(ticks, told, strict=True):
        time_ns, market, size = (*more, *(NS, 0, 1.0)[len(more) :])
        tick["type"], tick["price"], tick["time_ns"] = CODES[kind], price, time_ns
        tick["market"], tick["size"] = market, size
    return ticks


def rows_of(*told: tuple[float, float, float, float]) -> Any:
    """Records of (open, high, low, close); of high and low the greater is the high."""
    rows = np.zeros(len(told), pk.OHLCV_DTYPE)
    for row, (opens, high, low, close) in zip(rows, told, strict=True):
        row["open"], row["close"] = opens, close
        row["high"], row["low"] = (low, high) if low > high else (high, low)
    return rows


def trades(*prices: float) -> Any:
    return ticks_of(*(("trade", price) for price in prices))


# ---- the model -----------------------------------------------------------------------


class Waiting(msgspec.Struct):
    """A trigger of the model: of a trail, `price` is the distance."""

    key: int
    price: float
    direction: int
    since_ns: int
    best: float | None = None

    def reached(self, price: float) -> bool:
        if self.best is None:
            return (price - self.price) * self.direction >= 0
        stop = self.best + self.price * self.direction
        slack = abs(self.best) * 2.0**-50 * self.direction
        return (price - (stop - slack)) * self.direction >= 0

    def follow(self, price: float) -> None:
        if self.best is not None and (price - self.best) * self.direction < 0:
            self.best = price

    def passes(self, row: Any) -> bool:
        """Is it reached in a row, in any case? Its best follows."""
        near, far = ("low", "high") if self.direction < 0 else ("high", "low")
        if self.best is None:
            return self.reached(row[near])
        self.follow(row["open"])
        if self.reached(row["open"]) or self.reached(row[near]):
            return True
        self.follow(row[far])
        self.follow(row["close"])
        return self.reached(row["close"])


class Model:
    """What Triggers promise, told without a thought for what it costs."""

    def __init__(self) -> None:
        self.waiting: dict[int, Waiting] = {}
        self.trails_since_ns = -(2**63)

    def add(self, each: Waiting) -> None:
        self.waiting[each.key] = each
        if each.best is not None:
            self.trails_since_ns = max(self.trails_since_ns, each.since_ns)

    def feed(self, ticks: Any) -> list[tuple[int, int]]:
        fired = []
        for place, tick in enumerate(ticks):
            if tick["type"] in (1, 2) and tick["market"] == 0:
                keys = self._tick(float(tick["price"]), int(tick["time_ns"]))
                fired += [(key, place) for key in keys]
        return fired

    def _tick(self, price: float, time_ns: int) -> list[int]:
        keys = []
        for each in list(self.waiting.values()):
            since_ns = each.since_ns if each.best is None else self.trails_since_ns
            if time_ns < since_ns:
                continue
            each.follow(price)
            if each.reached(price):
                keys.append(each.key)
                del self.waiting[each.key]
        return keys

    def feed_rows(self, rows: Any) -> list[tuple[int, int]]:
        fired = []
        for place, row in enumerate(rows):
            for each in list(self.waiting.values()):
                if each.passes(row):
                    fired.append((each.key, place))
                    del self.waiting[each.key]
        return fired

    def check(self, high: float, low: float) -> list[int]:
        return [
            each.key
            for each in self.waiting.values()
            if each.best is None and each.reached(high if each.direction > 0 else low)
        ]


PRICES = st.one_of(
    st.integers(1, 30).map(float),
    st.integers(600_000, 600_040).map(lambda tenths: tenths / 10),
)
KNOWN = st.one_of(PRICES, PRICES, st.just(math.nan))
TIMES = st.integers(0, 6)
SIGNS = st.sampled_from([1, -1])
DISTANCES = st.sampled_from([0.1, 0.2, 0.3, 1.0, 2.0, 5.0])
STEPS = st.one_of(
    st.tuples(st.just("add"), PRICES, SIGNS, TIMES),
    st.tuples(st.just("trail"), DISTANCES, SIGNS, PRICES, st.integers(0, 2)),
    st.tuples(st.just("remove"), st.integers(0, 60)),
    st.tuples(st.just("check"), PRICES, PRICES),
    st.tuples(st.just("rows"), st.lists(st.tuples(*[KNOWN] * 4), max_size=4)),
    st.tuples(
        st.just("feed"),
        st.lists(
            st.tuples(
                st.sampled_from(["trade", "trade", "utrade", "dark_trade", "bid"]),
                PRICES,
                TIMES,
                st.sampled_from([0, 0, 0, 1]),
            ),
            max_size=12,
        ),
    ),
)


def take(step: tuple[Any, ...], key: int, own: Triggers, model: Model) -> None:
    """One step by both; what they answer is compared."""
    kind, *more = step
    if kind == "add":
        price, direction, since_ns = more
        own.add(key, price, direction, since_ns)
        model.add(Waiting(key, price, direction, since_ns))
    elif kind == "trail":
        distance, side, best, since_ns = more
        own.add_trail(key, distance, side, best, since_ns)
        model.add(Waiting(key, distance, side, since_ns, best))
    elif kind == "remove":
        assert own.remove(more[0]) == (model.waiting.pop(more[0], None) is not None)
    elif kind == "check":
        assert own.check(max(more), min(more)) == model.check(max(more), min(more))
    elif kind == "rows":
        rows = rows_of(*more[0])
        assert own.feed_rows(rows) == model.feed_rows(rows)
    else:
        ticks = ticks_of(*more[0])
        assert own.feed(ticks, 0) == model.feed(ticks)


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=60))
def test_whatever_comes_they_fire_what_a_look_at_each_of_them_would(
    steps: list[tuple[Any, ...]],
) -> None:
    own, model = Triggers(), Model()
    for key, step in enumerate(steps):
        take(step, key, own, model)
        assert len(own) == len(model.waiting)
        for each in model.waiting.values():
            if each.best is not None:
                assert own.best(each.key) == each.best


def test_thousands_of_levels_and_trails_fire_what_a_look_at_each_would() -> None:
    rng = np.random.default_rng(3)
    own, model = Triggers(), Model()
    price = 60_000.0
    for key in range(3000):
        if key % 3:
            level = round(price + rng.normal(0, 30), 1)
            step: tuple[Any, ...] = ("add", level, 1 if level > price else -1, 0)
        else:
            distance = round(abs(rng.normal(0, 20)) + 0.1, 1)
            step = ("trail", distance, 1 if key % 2 else -1, round(price, 1), 0)
        take(step, key, own, model)
        walk = np.cumsum(rng.normal(0, 1, 5)) + price
        price = float(walk[-1])
        told = tuple(("trade", round(float(each), 1)) for each in walk)
        take(("feed", told), key, own, model)
        if key % 7 == 0:
            take(("remove", int(rng.integers(0, key + 1))), key, own, model)
    assert 100 < len(own) < 2000


# ---- what counts, told one by one ----------------------------------------------------


def test_a_level_fires_when_it_is_touched_and_only_once() -> None:
    own = Triggers()
    own.add(7, 101.0, 1)
    own.add(8, 99.0, -1)
    assert own.feed(trades(100.0, 100.9, 101.0, 102.0, 99.0), 0) == [(7, 2), (8, 4)]
    assert own.feed(trades(101.0, 99.0), 0) == []
    assert len(own) == 0


def test_what_fires_at_one_tick_comes_in_the_order_in_which_it_was_added() -> None:
    own = Triggers()
    for key, price in ((3, 103.0), (1, 101.0), (2, 102.0)):
        own.add(key, price, 1)
    own.add_trail(4, 5.0, 1, 98.0)
    assert own.feed(trades(110.0), 0) == [(3, 0), (1, 0), (2, 0), (4, 0)]


def test_a_trail_follows_the_best_price_and_fires_when_it_is_left_by_its_distance() -> (
    None
):
    own = Triggers()
    own.add_trail(1, 5.0, -1, 100.0)
    assert own.feed(trades(96.0, 104.0, 99.1), 0) == []
    assert own.best(1) == 104.0
    assert own.feed(trades(99.0), 0) == [(1, 0)]


def test_a_trail_is_touched_by_a_decimal_price_whatever_the_rounding() -> None:
    for tenths in range(600_000, 600_400):
        for away in (1, 2, 3, 7):
            own = Triggers()
            own.add_trail(1, away / 10, -1, tenths / 10)
            assert own.feed(trades((tenths - away) / 10 + 0.1), 0) == []
            assert own.feed(trades((tenths - away) / 10), 0) == [(1, 0)]


def test_trades_that_the_venue_timed_before_the_order_do_not_fire_it() -> None:
    own = Triggers()
    own.add(1, 101.0, 1, since_ns=5 * NS)
    own.add(2, 101.0, 1, since_ns=2 * NS)
    late = ticks_of(("trade", 102.0, 3 * NS), ("trade", 101.0, 5 * NS))
    assert own.feed(late, 0) == [(2, 0), (1, 1)]


@pytest.mark.parametrize(
    ("bars_from", "places"), [("trade", 1), ("bid", 2), ("ask", 3), ("mid", 5)]
)
def test_the_prices_count_that_make_the_bars(bars_from: str, places: int) -> None:
    own = Triggers(bars_from)
    own.add(1, 10.0, 1)
    told = ticks_of(
        ("dark_trade", 10.0),
        ("trade", 10.0),
        ("bid", 10.0),
        ("ask", 10.0),
        ("bid", 9.0),
        ("ask", 11.0),
        ("last", 10.0),
    )
    told["market"][0] = 0
    if bars_from == "mid":  # 10 and 10 would do at once
        told = told[[0, 1, 4, 4, 4, 5]]
    assert own.feed(told, 0) == [(1, places)]


def test_it_knows_the_last_price_the_quote_and_the_range_of_the_second() -> None:
    own = Triggers()
    assert own.last[1] == 0 and math.isnan(own.last[0])
    assert own.second[0] == 0 and own.quote == (0.0, 0.0, 0.0, 0.0)
    told = [("trade", 7.0, NS), ("trade", 5.0, 2 * NS + 5), ("trade", 6.0, 2 * NS + 4)]
    told += [("bid", 4.0, NS, 0, 2.0), ("asize", 0.0, NS, 0, 3.0)]  # type: ignore[list-item]
    own.feed(ticks_of(*told, ("trade", 9.0, 2 * NS, 1)), 0)
    assert own.last == (5.0, 2 * NS + 5)
    assert own.second == (2, 6.0, 5.0)
    assert own.quote == (4.0, 2.0, 0.0, 3.0)


def test_a_range_names_the_levels_that_it_reaches_and_leaves_them() -> None:
    own = Triggers()
    for key, (price, direction) in enumerate([(11.0, 1), (12.0, 1), (9.0, -1)]):
        own.add(key, price, direction)
    own.add_trail(9, 1.0, -1, 10.0)
    assert own.check(11.0, 9.0) == [0, 2]
    assert own.check(10.9, 9.1) == []
    assert len(own) == 4


def test_many_markets_are_fed_in_one_pass() -> None:
    books = [Triggers(), None, Triggers()]
    for number in (0, 2):
        books[number].add(number, 10.0, 1)  # type: ignore[union-attr]
    told = ticks_of(*(("trade", 10.0, NS, market) for market in (1, 2, 3, 0)))
    assert feed_all(told, books) == [(2, 1), (0, 3)]


def test_the_ticks_of_some_markets_are_picked_and_not_copied_where_these_are_all() -> (
    None
):
    told = ticks_of(*(("trade", 10.0 + n, NS, n) for n in (1, 2, 9, 0, 2)))
    own, highest = of_markets(told, np.array([True, False, True]))
    assert own["price"].tolist() == [12.0, 10.0, 12.0] and highest == 9
    assert own.dtype == pk.TICK_DTYPE
    assert of_markets(told, np.ones(10, bool))[0] is told
    assert len(of_markets(told[:0], np.ones(0, bool))[0]) == 0


def test_prices_are_told_as_they_count_and_nothing_is_tested() -> None:
    own = Triggers("mid")
    own.add(1, 5.0, 1)
    told = ticks_of(("bid", 9.0), ("ask", 11.0), ("trade", 3.0), ("bid", 10.0))
    more = ticks_of(("bid", 1.0, NS, 4), ("ask", 12.0))
    np.testing.assert_equal(
        own.prices([told, more], 0), [math.nan, 10.0, math.nan, 10.5, math.nan, 11.0]
    )
    assert own.quote == (0.0, 0.0, 0.0, 0.0) and len(own) == 1


def test_of_a_row_a_trail_fires_where_it_did_in_any_case() -> None:
    nan = math.nan
    for side, sign in ((-1, 1), (1, -1)):
        for row, fires, best in (
            ((100.0, 104.0, 96.0, 100.0), False, 104.0),
            ((100.0, 104.0, 95.0, 100.0), True, 0.0),
            ((100.0, 104.0, 96.0, 99.0), True, 0.0),
            ((103.0, 104.0, 98.0, 104.0), True, 0.0),
            ((nan, 104.0, 98.0, nan), False, 104.0),
            ((nan, nan, 95.0, nan), True, 0.0),
            ((nan, 104.0, nan, nan), False, 104.0),
        ):
            own = Triggers()
            own.add_trail(1, 5.0, side, 100.0)
            told = [100 + sign * (price - 100) for price in row]
            told[1:3] = told[1:3][::sign]
            assert own.feed_rows(rows_of((*told,))) == [(1, 0)] * fires
            if not fires:
                assert own.best(1) == 100 + sign * (best - 100)


@pytest.mark.parametrize("price", [math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_what_is_no_price_is_refused_and_changes_nothing(price: float) -> None:
    own = Triggers()
    for add in (
        lambda: own.add(1, price, 1),
        lambda: own.add_trail(1, price, 1, 5.0),
        lambda: own.add_trail(1, 5.0, 1, price),
    ):
        with pytest.raises(ValueError, match="must be finite and positive"):
            add()
    assert len(own) == 0 and not own.remove(1)


def test_misuse_is_refused() -> None:
    own = Triggers()
    own.add(1, 5.0, 1)
    with pytest.raises(ValueError, match="there is a trigger 1 already"):
        own.add(1, 5.0, 1)
    with pytest.raises(ValueError, match="direction 0 must be 1 or -1"):
        own.add(2, 5.0, 0)
    with pytest.raises(ValueError, match="must be trade, bid, ask, mid"):
        Triggers("last")
    with pytest.raises(TypeError, match="array of TICK_DTYPE"):
        own.feed(np.zeros(3), 0)
    with pytest.raises(TypeError, match="books are Triggers or None"):
        feed_all(trades(1.0), [3])  # type: ignore[list-item]
    with pytest.raises(pk.NotFound, match="there is no trail 1"):
        own.best(1)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_header_is_clean_under_sanitizers_and_agrees_with_a_look_at_each(
    compiler: str, tmp_path: Path
) -> None:
    source = Path(__file__).parent / "c" / "triggers.c"
    program = compile_c(compiler, source, tmp_path / "triggers", *SANITIZED)
    assert "fired" in run_c(program, "20000")
