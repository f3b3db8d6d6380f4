"""Bar rings against a plain Python model: rows, windows, copies, searches, wrap."""

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import piker_core as pk
from tests.ring_making import (
    BASE_S,
    FQME,
    NS,
    SMALL,
    START,
    history,
    new_namespace,
    open_rings,
    price_of,
    size_of,
    trades_at,
)

FIELDS = ("time", "open", "high", "low", "close", "volume", "count")


class ModelRow:
    """What a row must say: a row of history, or the trades of its second."""

    def __init__(self, time: int, flags: int = 0) -> None:
        self.time = time
        self.flags = flags
        self.version = 0
        self.trades: list[tuple[int, int]] = []
        self.fixed: tuple[Any, ...] = ()

    def values(self) -> tuple[Any, ...]:
        """Time, prices, volume and count."""
        if self.fixed:
            return self.fixed
        numbers = [number for _, number in sorted(self.trades)]
        prices = [price_of(number) for number in numbers]
        volume = sum(size_of(number) for number in numbers)
        extremes = (max(prices), min(prices))
        return (self.time, prices[0], *extremes, prices[-1], volume, len(numbers))


class BarRing(RuleBasedStateMachine):
    """Appends, revisions and history, and everything a reader can ask meanwhile."""

    @initialize()
    def open(self) -> None:
        self.closing = ExitStack()
        self.namespace = new_namespace()
        self.engine, self.market = self.closing.enter_context(
            open_rings(self.namespace)
        )
        self.reader = self.closing.enter_context(
            pk.attach_bars(FQME, namespace=self.namespace)
        )
        self.capacity = self.reader.capacity
        self.rows: dict[int, ModelRow] = {}
        self.first = self.head = START
        self.next_id = 1
        self.windows: list[tuple[Any, int, list[int]]] = []

    def teardown(self) -> None:
        if hasattr(self, "closing"):
            self.closing.close()
            pk.remove_segments(self.namespace)

    # ---- what a writer does ----------------------------------------------------------

    def push(self, time_ns: int) -> None:
        taken = self.engine.push_ticks(self.market, trades_at([time_ns], self.next_id))
        assert taken == 1
        self.next_id += 1

    @rule(steps=st.lists(st.integers(1, 90), min_size=1, max_size=120))
    def append(self, steps: list[int]) -> None:
        newest = self.rows[self.head - 1].time if self.rows else BASE_S
        times = newest + np.cumsum(steps)
        ticks = trades_at((times * NS).tolist(), self.next_id)
        assert self.engine.push_ticks(self.market, ticks) == len(steps)
        for number, time in enumerate(times.tolist(), self.next_id):
            self.rows[self.head] = ModelRow(time)
            self.rows[self.head].trades.append((time * NS, number))
            self.head += 1
        self.next_id += len(steps)
        self.first = max(self.first, self.head - self.capacity)
        self.rows = {i: row for i, row in self.rows.items() if i >= self.first}

    @precondition(lambda self: self.rows)
    @rule(back=st.integers(0, 300), after_ns=st.integers(0, NS - 1))
    def revise(self, back: int, after_ns: int) -> None:
        sequence = max(self.head - 1 - back, self.first, START)
        if sequence not in self.rows:
            return
        row = self.rows[sequence]
        self.push(row.time * NS + after_ns)
        row.trades.append((row.time * NS + after_ns, self.next_id - 1))
        row.version += 1
        if sequence != self.head - 1:
            row.flags |= pk.BarFlag.REVISED

    @rule(count=st.integers(1, 100), gap=st.integers(1, 500))
    def prepend(self, count: int, gap: int) -> None:
        oldest = self.rows[self.first].time if self.rows else BASE_S
        times = list(range(oldest - gap - count + 1, oldest - gap + 1))
        room = self.capacity - (self.head - self.first)
        kept = self.market.bars[1].prepend(history(times))
        assert kept == min(count, room)
        for time in reversed(times[len(times) - kept :]):
            self.first -= 1
            row = ModelRow(time, pk.BarFlag.BACKFILLED)
            row.fixed = tuple(history([time])[0][list(FIELDS)].item())
            self.rows[self.first] = row

    # ---- what a reader sees ----------------------------------------------------------

    def check(self, rows: Any, start: int, stop: int) -> None:
        assert rows["index"].tolist() == list(range(start, stop))
        for row in rows:
            expected = self.rows[int(row["index"])]
            assert tuple(row[name].item() for name in FIELDS) == expected.values()
            assert row["flags"] == expected.flags
            assert row["low"] <= row["bar_wap"] <= row["high"]

    @rule(count=st.integers(-2, 400), back=st.integers(-3, 400))
    def copy_and_view(self, count: int, back: int) -> None:
        end = self.head - back
        stop = min(max(end, self.first), self.head)
        start = max(stop - max(count, 0), self.first)
        self.check(self.reader.snapshot(count, end=end), start, stop)
        window = self.reader.window(count, end=end)
        self.check(window, start, stop)
        assert self.reader.intact(window)
        versions = [self.rows[i].version for i in range(start, stop)]
        self.windows.append((window, start, versions))

    @invariant()
    def windows_know_whether_they_were_touched(self) -> None:
        for window, start, versions in getattr(self, "windows", []):
            untouched = all(
                i >= self.first and self.rows[i].version == version
                for i, version in enumerate(versions, start)
            )
            assert self.reader.intact(window) == untouched

    @rule(low=st.integers(-600, 9000), span=st.integers(-5, 9000))
    def between(self, low: int, span: int) -> None:
        rows = self.reader.between(BASE_S + low, BASE_S + low + span)
        times = {
            i: row.time
            for i, row in self.rows.items()
            if BASE_S + low <= row.time < BASE_S + low + span
        }
        assert {int(row["index"]): int(row["time"]) for row in rows} == times

    @invariant()
    def extent_and_newest_row_are_those_of_the_model(self) -> None:
        if hasattr(self, "reader"):
            assert (self.reader.first, self.reader.head) == (self.first, self.head)
            if self.rows:
                last = self.reader.last()
                self.check(np.array([last], last.dtype), self.head - 1, self.head)


BarRing.TestCase.settings = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestBarRing = BarRing.TestCase


# ---- one behaviour at a time ---------------------------------------------------------


def fill(
    engine: pk.FeedEngine, market: pk.Market, seconds: int, start: int = 0
) -> None:
    """One row a second, numbered from `start`."""
    times = [(BASE_S + start + i) * NS for i in range(seconds)]
    assert engine.push_ticks(market, trades_at(times, start + 1)) == seconds


def test_rows_pushed_ten_times_the_capacity_leave_the_newest(namespace: str) -> None:
    with open_rings(namespace) as (engine, market):
        bars = pk.attach_bars(FQME, namespace=namespace)
        fill(engine, market, 10 * bars.capacity)
        assert (bars.first, bars.head) == (
            START + 9 * bars.capacity,
            bars.first + bars.capacity,
        )
        rows = bars.snapshot(10**9)
        assert rows["time"].tolist() == list(
            range(BASE_S + 9 * bars.capacity, BASE_S + 10 * bars.capacity)
        )


def test_a_window_across_the_wrap_is_one_contiguous_view(namespace: str) -> None:
    with open_rings(namespace) as (engine, market):
        bars = pk.attach_bars(FQME, namespace=namespace)
        fill(engine, market, bars.capacity + bars.capacity // 2)
        window = bars.window(bars.capacity)
        assert len(window) == bars.capacity
        assert window.flags.c_contiguous
        assert not window.flags.owndata
        assert (np.diff(window["index"]) == 1).all()


def test_a_window_shows_what_is_written_after_it_was_taken(namespace: str) -> None:
    with open_rings(namespace) as (engine, market):
        bars = pk.attach_bars(FQME, namespace=namespace)
        fill(engine, market, 3)
        window, copy = bars.window(3), bars.snapshot(3)
        engine.push_ticks(market, trades_at([(BASE_S + 2) * NS + 1], 50))
        assert window["count"].tolist() == [1, 1, 2]
        assert copy["count"].tolist() == [1, 1, 1]


def test_windows_cannot_be_written_to(namespace: str) -> None:
    with open_rings(namespace) as (engine, market):
        bars = pk.attach_bars(FQME, namespace=namespace)
        fill(engine, market, 3)
        window = bars.window(3)
        with pytest.raises(ValueError, match="read-only"):
            window["close"][0] = 1.0
        with pytest.raises(ValueError, match="WRITEABLE"):
            window.setflags(write=True)


def test_a_window_outlives_its_reader_and_the_removal_of_the_ring(
    namespace: str,
) -> None:
    with open_rings(namespace) as (engine, market):
        bars = pk.attach_bars(FQME, namespace=namespace)
        fill(engine, market, 3)
        window, before = bars.window(3), bars.snapshot(3)
        bars.close()
    del bars, engine, market
    pk.remove_segments(namespace)
    assert window.tolist() == before.tolist()


@pytest.mark.parametrize(
    ("view", "touched"),
    [
        (lambda w: w[:4], False),
        (lambda w: w[4:6], True),
        (lambda w: w[::-1], True),
        (lambda w: w[::2], True),
        (lambda w: w[:4][::-1], False),
        (lambda w: w["close"], True),
        (lambda w: w["close"][:3], False),
        (lambda w: w[:0], False),
        (lambda w: w.view("f8").reshape(-1, 10)[:, 3:5], True),
        (lambda w: w.view("f8").reshape(-1, 10)[:4], False),
    ],
)
def test_intact_of_a_view_is_about_the_rows_it_spans(
    view: Any, touched: bool, namespace: str
) -> None:
    with open_rings(namespace) as (engine, market):
        bars = pk.attach_bars(FQME, namespace=namespace)
        fill(engine, market, 10)
        part = view(bars.window(10))
        assert bars.intact(part)
        engine.push_ticks(market, trades_at([(BASE_S + 4) * NS + 1], 50))
        assert bars.intact(part) is not touched


def test_intact_refuses_arrays_that_are_no_windows_of_its_ring(namespace: str) -> None:
    with open_rings(namespace) as (engine, market):
        bars, other = (pk.attach_bars(FQME, namespace=namespace) for _ in range(2))
        fill(engine, market, 3)
        for strange in (bars.snapshot(3), np.zeros(3), other.window(3)):
            with pytest.raises(ValueError, match="window"):
                bars.intact(strange)
        with pytest.raises(TypeError):
            bars.intact(None)  # type: ignore[arg-type]


def test_last_of_a_ring_without_rows_is_not_found(namespace: str) -> None:
    with open_rings(namespace):
        bars = pk.attach_bars(FQME, namespace=namespace)
        with pytest.raises(pk.NotFound, match="no row"):
            bars.last()
        assert len(bars.window(5)) == len(bars.snapshot(5)) == 0
        assert len(bars.between(0, 2**62)) == 0
        assert bars.intact(bars.window(5))


def test_a_prepend_that_is_too_long_keeps_its_newest_part(namespace: str) -> None:
    with open_rings(namespace) as (engine, market):
        bars = pk.attach_bars(FQME, namespace=namespace)
        fill(engine, market, 10)
        rows = history(range(BASE_S - 2 * bars.capacity, BASE_S))
        kept = market.bars[1].prepend(rows)
        assert kept == bars.capacity - 10
        assert bars.first == START - kept
        assert bars.snapshot(10**6)["time"][0] == BASE_S - kept
        assert market.bars[1].prepend(history([BASE_S - 10**6])) == 0


def test_a_prepend_that_overlaps_rows_is_refused_and_changes_nothing(
    namespace: str,
) -> None:
    with open_rings(namespace) as (engine, market):
        bars = pk.attach_bars(FQME, namespace=namespace)
        fill(engine, market, 3)
        before = bars.snapshot(10).tolist()
        with pytest.raises(ValueError, match="overlaps"):
            market.bars[1].prepend(history([BASE_S - 1, BASE_S]))
        assert bars.snapshot(10).tolist() == before


@given(
    low=st.one_of(st.integers(-5, 15), st.floats(-5, 15)),
    high=st.one_of(st.integers(-5, 15), st.floats(-5, 15)),
)
@settings(deadline=None, max_examples=60)
def test_between_takes_whole_and_broken_seconds(low: float, high: float) -> None:
    namespace = new_namespace()
    try:
        with open_rings(namespace) as (engine, market):
            bars = pk.attach_bars(FQME, namespace=namespace)
            fill(engine, market, 10)
            found = bars.between(BASE_S + low, BASE_S + high)["time"].tolist()
            assert found == [
                BASE_S + i
                for i in range(10)
                if BASE_S + low <= BASE_S + i < BASE_S + high
            ]
    finally:
        pk.remove_segments(namespace)


def test_between_takes_any_size_of_number_and_refuses_what_is_none(
    namespace: str,
) -> None:
    with open_rings(namespace) as (engine, market):
        bars = pk.attach_bars(FQME, namespace=namespace)
        fill(engine, market, 3)
        assert len(bars.between(-(10**30), 10**30)) == 3
        assert len(bars.between(float("-inf"), float("inf"))) == 3
        with pytest.raises(ValueError, match="NaN"):
            bars.between(float("nan"), 5)
        with pytest.raises(TypeError):
            bars.between("0", "5")  # type: ignore[arg-type]


def test_end_of_a_window_is_clamped_whatever_its_size(namespace: str) -> None:
    with open_rings(namespace) as (engine, market):
        bars = pk.attach_bars(FQME, namespace=namespace)
        fill(engine, market, 3)
        assert len(bars.window(10, end=2**90)) == 3
        assert len(bars.snapshot(10, end=-(2**90))) == 0
        with pytest.raises(TypeError):
            bars.window(10, end=1.5)  # type: ignore[arg-type]


def test_a_closed_reader_says_so(namespace: str) -> None:
    with open_rings(namespace) as (engine, market):
        fill(engine, market, 3)
        with pk.attach_bars(FQME, namespace=namespace) as bars:
            window = bars.window(3)
        for use in (
            lambda: bars.head,
            lambda: bars.status,
            lambda: bars.writer_alive,
            lambda: bars.generation,
            bars.last,
            lambda: bars.window(3),
            lambda: bars.intact(window),
            lambda: bars.snapshot(3),
            lambda: bars.between(0, 5),
            lambda: bars.wait(0, 0),
            bars.gaps,
            bars.statistics,
        ):
            with pytest.raises(pk.PikerError, match="closed"):
                use()
        assert repr(bars) == "<BarReader closed>"
        bars.close()


def test_readers_cannot_be_made_without_attaching() -> None:
    with pytest.raises(TypeError, match="attach_bars"):
        pk.BarReader()
    with pytest.raises(pk.PikerError, match="closed"):
        _ = pk.BarReader.__new__(pk.BarReader).head


@pytest.mark.parametrize(
    "fqme", ["", "xbtusd", ".kraken", "a.b\0c", "\ud800.kraken", 7]
)
def test_attaching_to_what_is_no_market_is_not_found(fqme: Any, namespace: str) -> None:
    with pytest.raises(pk.NotFound):
        pk.attach_bars(fqme)


@pytest.mark.parametrize("period", [0, -1, 7, 2**31, 2**80])
def test_attaching_to_a_period_that_nobody_writes_is_not_found(
    period: int, namespace: str
) -> None:
    with open_rings(namespace), pytest.raises(pk.NotFound):
        pk.attach_bars(FQME, period=period)


@pytest.mark.parametrize("space", [" ", "a/b", "ü", "x" * 64, "a b"])
def test_a_misspelt_namespace_is_refused(space: str) -> None:
    with pytest.raises(pk.PikerError, match="namespace"):
        pk.attach_bars(FQME, namespace=space)


def test_gap_records_are_kept_in_order_and_the_oldest_fall_off(namespace: str) -> None:
    with open_rings(namespace) as (engine, market):
        bars = pk.attach_bars(FQME, namespace=namespace)
        fill(engine, market, 3)
        for i in range(600):
            market.add_gap(
                start_ns=i * NS,
                end_ns=(i + 1) * NS,
                cause=f"cause {i}",
                repaired=i % 2 > 0,
            )
        gaps = bars.gaps()
        assert 200 < len(gaps) < 600
        assert gaps["start_ns"].tolist() == [
            i * NS for i in range(600 - len(gaps), 600)
        ]
        assert gaps["cause"][-1] == b"cause 599"
        assert gaps["repaired"].tolist() == [i % 2 for i in range(600 - len(gaps), 600)]


def test_a_gap_record_that_is_changed_keeps_its_place(namespace: str) -> None:
    with open_rings(namespace) as (engine, market):
        bars = pk.attach_bars(FQME, namespace=namespace)
        fill(engine, market, 3)
        market.add_gap(start_ns=5, end_ns=6, cause="first")
        market.add_gap(start_ns=7, end_ns=8, cause="second")
        market.add_gap(start_ns=5, end_ns=9, cause="x" * 60, repaired=True)
        assert bars.gaps().tolist() == [(5, 9, b"x" * 39, 1), (7, 8, b"second", 0)]


def test_what_the_provider_says_of_a_market_is_there_for_readers(
    namespace: str,
) -> None:
    said = b'{"symbol": "xbtusd"}'
    with open_rings(namespace, about=said):
        bars = pk.attach_bars(FQME, namespace=namespace)
        assert bars.about == said
    with open_rings(namespace, about=b"y" * 511):
        assert bars.about == b"y" * 511
    with open_rings(namespace):
        assert bars.about == b""


def test_a_new_writer_of_a_ring_keeps_its_rows_and_windows(namespace: str) -> None:
    with open_rings(namespace) as (engine, market):
        bars = pk.attach_bars(FQME, namespace=namespace)
        fill(engine, market, 5)
        window, generation = bars.window(5), bars.generation
        before = bars.snapshot(5).tolist()
    assert (bars.status, bars.writer_alive) == ("stopped", False)
    with open_rings(namespace, rows=4 * SMALL) as (engine, market):
        assert bars.writer_alive
        assert bars.generation == generation + 1
        assert bars.snapshot(5).tolist() == before
        assert bars.intact(window)
        fill(engine, market, 5, start=5)
        assert bars.head == START + 10
