"""Tick rings and cursors against a plain Python model: order, losses, filters."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import piker_core as pk
from tests.ring_making import BASE_S, FQME, NS, new_namespace, trades_at

MARKETS = (FQME, "ethusd.kraken", "adausd.kraken")
CAPACITY = 64
selections = st.one_of(st.none(), st.lists(st.sampled_from(MARKETS), unique=True))


class ModelCursor:
    """Where a cursor stands, and what it must have lost."""

    def __init__(self, cursor: pk.TickCursor, place: int, markets: Any) -> None:
        self.cursor = cursor
        self.place = place
        self.lost = 0
        self.wanted = None if markets is None else {MARKETS.index(m) for m in markets}


class TickRing(RuleBasedStateMachine):
    """Ticks of three markets, and cursors that come and fall behind."""

    @initialize()
    def open(self) -> None:
        self.closing = ExitStack()
        self.namespace = new_namespace()
        self.engine = self.closing.enter_context(
            pk.open_engine("kraken", namespace=self.namespace, tick_capacity=CAPACITY)
        )
        self.markets = [
            self.engine.add_market(name, periods=(60,), capacity={60: 256})
            for name in MARKETS
        ]
        self.reader = self.closing.enter_context(
            pk.attach_ticks("kraken", namespace=self.namespace)
        )
        self.capacity = self.reader.capacity
        self.published: list[int] = []  # market of each tick; its id is 1 + its place
        self.cursors: list[ModelCursor] = []

    def teardown(self) -> None:
        if hasattr(self, "closing"):
            self.closing.close()
            pk.remove_segments(self.namespace)

    def oldest(self) -> int:
        return max(0, len(self.published) - self.capacity)

    @rule(market=st.sampled_from(range(len(MARKETS))), count=st.integers(1, 150))
    def publish(self, market: int, count: int) -> None:
        first = len(self.published) + 1
        times = [(BASE_S + first) * NS + i for i in range(count)]
        ticks = trades_at(times, first)
        assert self.engine.push_ticks(self.markets[market], ticks) == count
        self.published += [market] * count

    @rule(start=st.sampled_from(["live", "oldest"]), markets=selections)
    def begin(self, start: str, markets: Any) -> None:
        cursor = self.reader.cursor(start, markets)
        place = self.oldest() if start == "oldest" else len(self.published)
        self.cursors.append(ModelCursor(cursor, place, markets))

    @rule(back=st.integers(-5, 200), markets=selections)
    def begin_at_a_sequence(self, back: int, markets: Any) -> None:
        start = len(self.published) - back
        place = min(max(start, 0), len(self.published))
        cursor = self.reader.cursor(start, markets)
        self.cursors.append(ModelCursor(cursor, place, markets))

    @precondition(lambda self: self.cursors)
    @rule(which=st.integers(0, 20), most=st.integers(-1, 100))
    def poll(self, which: int, most: int) -> None:
        model = self.cursors[which % len(self.cursors)]
        got = model.cursor.poll(most)
        expected: list[tuple[int, int, int]] = []
        if most > 0 and model.place < len(self.published):
            model.lost += max(0, self.oldest() - model.place)
            model.place = max(model.place, self.oldest())
            while len(expected) < most and model.place < len(self.published):
                market = self.published[model.place]
                if model.wanted is None or market in model.wanted:
                    expected.append((model.place, market, model.place + 1))
                model.place += 1
        found = zip(got["seq"], got["market"], got["id"], strict=True)
        assert [(int(s), int(m), int(i)) for s, m, i in found] == expected

    @invariant()
    def cursors_know_their_place_and_their_losses(self) -> None:
        for model in getattr(self, "cursors", []):
            assert model.cursor.position == model.place
            assert model.cursor.lost == model.lost
            assert model.cursor.head == len(self.published)
            behind = model.place < len(self.published)
            assert model.cursor.ready_nowait() is behind

    @invariant()
    def the_reader_knows_the_extent(self) -> None:
        if hasattr(self, "reader"):
            assert self.reader.head == len(self.published)
            assert self.reader.first == self.oldest()


TickRing.TestCase.settings = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestTickRing = TickRing.TestCase


# ---- one behaviour at a time ---------------------------------------------------------


@pytest.fixture
def engine(namespace: str) -> Iterator[pk.FeedEngine]:
    with pk.open_engine("kraken", tick_capacity=CAPACITY) as engine:
        for name in MARKETS:
            engine.add_market(name, periods=(60,), capacity={60: 256})
        yield engine


@pytest.fixture
def reader(engine: pk.FeedEngine) -> pk.TickReader:
    return pk.attach_ticks("kraken")


def push(engine: pk.FeedEngine, count: int, start: int = 0, market: int = 0) -> None:
    symbol = MARKETS[market]
    for number in range(start, start + count):
        tick = {
            "type": "trade",
            "time_ns": BASE_S * NS + number,
            "price": 100.0 + number,
            "size": 0.5,
            "id": number + 1,
            "side": "sell",
            "count": 3,
        }
        assert engine.push({"symbol": symbol, "ticks": [tick]}) == 1


def test_a_record_holds_what_was_pushed(
    engine: pk.FeedEngine, reader: pk.TickReader
) -> None:
    push(engine, 1, start=6, market=1)
    (tick,) = reader.cursor("oldest").poll()
    assert tick["recv_ns"] > BASE_S * NS
    assert {
        name: tick[name].item() for name in tick.dtype.names if name != "recv_ns"
    } == {
        "seq": 0,
        "time_ns": BASE_S * NS + 6,
        "price": 106.0,
        "size": 0.5,
        "id": 7,
        "market": 1,
        "count": 3,
        "type": pk.TICK_TYPES["trade"],
        "side": -1,
        "flags": 0,
    }


def test_every_type_of_tick_comes_through_with_its_code(
    engine: pk.FeedEngine, reader: pk.TickReader
) -> None:
    ticks = [
        {"type": name, "time_ns": BASE_S * NS, "price": 1.0, "size": 1.0}
        for name in pk.TICK_TYPES
    ]
    assert engine.push({"symbol": FQME, "ticks": ticks}) == len(ticks)
    polled = reader.cursor("oldest").poll()
    assert polled["type"].tolist() == list(pk.TICK_TYPES.values())


def test_ten_times_the_capacity_is_lost_to_a_cursor_exactly(
    engine: pk.FeedEngine, reader: pk.TickReader
) -> None:
    cursor = reader.cursor("oldest")
    push(engine, 10 * reader.capacity)
    got = cursor.poll(10**6)
    assert len(got) == reader.capacity
    assert cursor.lost == 9 * reader.capacity
    assert got["seq"].tolist() == list(range(9 * reader.capacity, 10 * reader.capacity))


def test_polls_of_one_at_a_time_and_of_all_at_once_give_the_same(
    engine: pk.FeedEngine, reader: pk.TickReader
) -> None:
    push(engine, 20)
    push(engine, 20, start=20, market=2)
    one, whole = (reader.cursor("oldest") for _ in range(2))
    singles = [one.poll(1).copy() for _ in range(40)]
    assert np.concatenate(singles).tolist() == whole.poll().tolist()
    assert len(one.poll()) == len(whole.poll()) == 0


def test_a_filter_polls_past_other_markets_in_one_go(
    engine: pk.FeedEngine, reader: pk.TickReader
) -> None:
    for turn in range(5):
        push(engine, 9, start=10 * turn)
        push(engine, 1, start=10 * turn + 9, market=1)
    cursor = reader.cursor("oldest", markets=[MARKETS[1]])
    assert cursor.poll(3)["id"].tolist() == [10, 20, 30]
    assert cursor.poll(3)["id"].tolist() == [40, 50]
    assert cursor.lost == 0


def test_a_filter_for_no_market_polls_nothing_and_keeps_up(
    engine: pk.FeedEngine, reader: pk.TickReader
) -> None:
    cursor = reader.cursor("oldest", markets=[])
    push(engine, 5)
    assert len(cursor.poll()) == 0
    assert cursor.position == 5


def test_what_a_poll_gave_is_overwritten_by_the_next_and_is_the_callers_to_change(
    engine: pk.FeedEngine, reader: pk.TickReader
) -> None:
    cursor = reader.cursor("oldest")
    push(engine, 2)
    first = cursor.poll(1)
    kept = first.copy()
    first["price"] = 0.0
    second = cursor.poll(1)
    assert kept["id"].tolist() == [1]
    assert second["id"].tolist() == [2]
    assert reader.cursor("oldest").poll()["price"].tolist() == [100.0, 101.0]


def test_names_and_numbers_of_markets(reader: pk.TickReader) -> None:
    assert reader.markets() == list(MARKETS)
    assert [reader.market(i) for i in range(3)] == list(MARKETS)
    for number in (-1, 3, 10**30):
        with pytest.raises(pk.NotFound, match="no market"):
            reader.market(number)


def test_a_market_added_later_is_found_by_readers_that_are_attached(
    engine: pk.FeedEngine, reader: pk.TickReader
) -> None:
    engine.add_market("solusd.kraken", periods=(60,), capacity={60: 256})
    assert reader.market(3) == "solusd.kraken"
    assert reader.cursor(markets=["solusd.kraken"]).lost == 0


def test_a_cursor_for_an_unknown_market_is_not_found(reader: pk.TickReader) -> None:
    with pytest.raises(pk.NotFound, match="dogeusd"):
        reader.cursor(markets=["dogeusd.kraken"])


@pytest.mark.parametrize("start", ["newest", None, 1.5, True, b"live"])
def test_a_cursor_starts_at_a_sequence_or_one_of_two_words(
    start: Any, reader: pk.TickReader
) -> None:
    with pytest.raises(ValueError, match="live"):
        reader.cursor(start)


@pytest.mark.parametrize("start", [-5, 0, 3, 10**30, np.int64(3)])
def test_a_cursor_beyond_either_end_starts_at_that_end(
    start: Any, engine: pk.FeedEngine, reader: pk.TickReader
) -> None:
    push(engine, 6)
    assert reader.cursor(start).position == min(max(start, 0), 6)


def test_a_closed_reader_says_so_and_its_cursors_go_on(
    engine: pk.FeedEngine, reader: pk.TickReader
) -> None:
    push(engine, 2)
    with reader:
        cursor = reader.cursor("oldest")
    for use in (
        lambda: reader.head,
        lambda: reader.first,
        lambda: reader.capacity,
        lambda: reader.writer_alive,
        reader.markets,
        reader.cursor,
        lambda: reader.market(0),
    ):
        with pytest.raises(pk.PikerError, match="closed"):
            use()
    assert repr(reader) == "<TickReader closed>"
    assert len(cursor.poll()) == 2
    push(engine, 2, start=2)
    assert len(cursor.poll()) == 2


def test_cursors_and_readers_are_not_made_by_their_class() -> None:
    with pytest.raises(TypeError, match="attach_ticks"):
        pk.TickReader()
    with pytest.raises(TypeError, match="cursor"):
        pk.TickCursor()
    stray = pk.TickCursor.__new__(pk.TickCursor)
    for use in (stray.poll, stray.ready_nowait, lambda: stray.head, stray.wait):
        with pytest.raises(pk.PikerError, match="no ring"):
            use()


@pytest.mark.parametrize("provider", ["", "binance", "a/b", "\ud800", 7, None])
def test_a_provider_that_nobody_writes_is_not_found(
    provider: Any, reader: pk.TickReader
) -> None:
    with pytest.raises(pk.NotFound):
        pk.attach_ticks(provider)


def test_a_new_writer_goes_on_where_the_old_one_stopped(namespace: str) -> None:
    with pk.open_engine("kraken", tick_capacity=CAPACITY) as engine:
        engine.add_market(FQME, periods=(60,), capacity={60: 256})
        push(engine, 5)
        reader = pk.attach_ticks("kraken")
        cursor = reader.cursor("oldest")
        assert len(cursor.poll(3)) == 3
        generation = reader.generation
    assert not reader.writer_alive
    with pk.open_engine("kraken", tick_capacity=4 * CAPACITY) as engine:
        engine.add_market(FQME, periods=(60,), capacity={60: 256})
        push(engine, 2, start=5)
        assert reader.generation == generation + 1
        assert cursor.poll()["id"].tolist() == [4, 5, 6, 7]
        assert cursor.lost == 0


def damage(namespace: str, offset: int, value: int) -> None:
    """Change one word of the only tick ring of a namespace."""
    (ring,) = (r for r in pk.list_segments(namespace) if r.kind == "ticks")
    with Path(ring.path).open("r+b") as file:
        file.seek(offset)
        file.write(value.to_bytes(8, "little"))


def test_an_impossible_head_is_an_error_not_a_crash(
    namespace: str, engine: pk.FeedEngine, reader: pk.TickReader
) -> None:
    cursor = reader.cursor("oldest")
    damage(namespace, 1280, 2**63)
    for use in (cursor.poll, cursor.ready_nowait, lambda: reader.head, reader.cursor):
        with pytest.raises(pk.SegmentError, match="impossible head"):
            use()


def test_records_that_are_not_where_they_belong_are_an_error(
    namespace: str, engine: pk.FeedEngine, reader: pk.TickReader
) -> None:
    push(engine, 3)
    damage(namespace, 1280, 5)
    cursor: pk.TickCursor = reader.cursor("oldest")
    with pytest.raises(pk.SegmentError, match="damaged"):
        cursor.poll()
