"""What a ring's watcher tells, look by look."""

from collections.abc import Iterator

import pytest

import piker_core as pk
from piker_core.cli.watch import RingWatch
from tests.commands import BASE_S, push, rings


@pytest.fixture
def open_ring(namespace: str) -> Iterator[tuple[pk.FeedEngine, pk.Market, RingWatch]]:
    with rings(namespace) as (engine, market), pk.attach_bars("xbtusd.kraken") as bars:
        yield engine, market, RingWatch(bars)


OpenRing = tuple[pk.FeedEngine, pk.Market, RingWatch]


def kinds(watch: RingWatch) -> list[str]:
    return [kind for kind, _ in watch.look()]


def test_the_first_look_tells_the_status_alone(open_ring: OpenRing) -> None:
    _, _, watch = open_ring
    assert list(watch.look()) == [
        ("status", {"status": "live", "writer_alive": True, "generation": 1})
    ]
    assert kinds(watch) == []


def test_rows_before_it_are_told_when_asked_for(open_ring: OpenRing) -> None:
    _, _, watch = open_ring
    times = [row[1] for kind, row in RingWatch(watch.bars, 5).look() if kind == "bar"]
    assert times == [BASE_S, BASE_S + 1]


def test_a_row_is_told_once_when_a_later_one_closes_it(open_ring: OpenRing) -> None:
    engine, market, watch = open_ring
    kinds(watch)
    push(engine, market, 2, 1)
    assert kinds(watch) == []
    push(engine, market, 4)
    [(kind, row)] = watch.look()
    assert (kind, row[1], row[7]) == ("bar", BASE_S + 2, 2)
    assert kinds(watch) == []


def test_the_last_row_is_told_when_the_writer_has_stopped(open_ring: OpenRing) -> None:
    engine, _, watch = open_ring
    kinds(watch)
    engine.close()
    assert kinds(watch) == ["status", "bar"]


def test_the_last_row_is_told_when_the_market_has_closed(open_ring: OpenRing) -> None:
    _, market, watch = open_ring
    kinds(watch)
    market.set_status("closed")
    assert kinds(watch) == ["status", "bar"]


def test_a_row_that_was_told_is_told_again_when_revised(open_ring: OpenRing) -> None:
    engine, market, watch = open_ring
    kinds(watch)
    push(engine, market, 0, 1)
    [(kind, row)] = watch.look()
    assert (kind, row[1], row[7]) == ("revision", BASE_S, 2)
    assert kinds(watch) == []


def test_a_gap_is_told_when_it_opens_and_when_it_is_repaired(
    open_ring: OpenRing,
) -> None:
    _, market, watch = open_ring
    kinds(watch)
    start_ns = (BASE_S + 1) * 10**9
    market.add_gap(start_ns=start_ns, end_ns=start_ns + 5, cause="cut")
    [(_, gap)] = watch.look()
    assert gap == {
        "start_ns": start_ns,
        "end_ns": start_ns + 5,
        "cause": "cut",
        "repaired": False,
    }
    market.add_gap(start_ns=start_ns, end_ns=start_ns + 5, cause="cut", repaired=True)
    assert [gap["repaired"] for kind, gap in watch.look() if kind == "gap"] == [True]
    assert kinds(watch) == []


def test_a_gap_that_opened_and_was_repaired_between_two_looks_is_told_twice(
    open_ring: OpenRing,
) -> None:
    _, market, watch = open_ring
    kinds(watch)
    start_ns = (BASE_S + 1) * 10**9
    for repaired in (False, True):
        market.add_gap(
            start_ns=start_ns, end_ns=start_ns + 5, cause="cut", repaired=repaired
        )
    told = [gap["repaired"] for kind, gap in watch.look() if kind == "gap"]
    assert told == [False, True]


def test_rows_that_fell_off_unread_are_counted(open_ring: OpenRing) -> None:
    engine, market, watch = open_ring
    kinds(watch)
    capacity = watch.bars.capacity
    for second in range(3, 3 + 2 * capacity):
        push(engine, market, second)
    told = list(watch.look())
    [lost] = [content for kind, content in told if kind == "lost"]
    rows = [row[1] for kind, row in told if kind == "bar"]
    assert lost + len(rows) == 2 * capacity
    assert rows[-1] == BASE_S + 2 * capacity + 1
    assert rows == list(range(rows[0], rows[-1] + 1))
