"""Missing trade ids: jumps noticed, filled in any order, settled by the list."""

from hypothesis import given
from hypothesis import strategies as st

from piker_core.adapter.continuity import IdTracker


def missing_ids(tracker: IdTracker) -> set[int]:
    return {
        number
        for span in tracker.missing
        for number in range(span.first, span.last + 1)
    }


def test_nothing_is_missing_before_the_first_id() -> None:
    tracker = IdTracker()
    assert not tracker.started and tracker.wants(5)
    tracker.see(1000, 1, 0.0)
    assert tracker.started and not tracker.missing and not tracker.wants(999)


def test_a_start_from_nothing_misses_all_before_the_first_id() -> None:
    tracker = IdTracker()
    tracker.start(0, 7)
    tracker.see(4, 9, 1.0)
    assert missing_ids(tracker) == {1, 2, 3}
    assert tracker.missing[0].after_ns == 7 and tracker.missing[0].before_ns == 9


@given(st.permutations(range(1, 30)), st.data())
def test_seen_and_missing_are_those_of_a_set(
    order: list[int], draw: st.DataObject
) -> None:
    tracker, seen = IdTracker(), set()
    tracker.start(0, 0)
    for number in order[: draw.draw(st.integers(0, len(order)))]:
        assert tracker.wants(number)
        tracker.see(number, number, 0.0)
        tracker.see(number, number, 0.0)  # a repeat changes nothing
        seen.add(number)
        highest = max(seen)
        assert tracker.expected == highest + 1
        assert missing_ids(tracker) == set(range(1, highest)) - seen
        assert not tracker.wants(number)
    settled = draw.draw(st.integers(0, 30))
    before = missing_ids(tracker)
    tracker.settle(settled)
    assert missing_ids(tracker) == {number for number in before if number > settled}


def test_a_missing_trade_was_between_its_neighbours() -> None:
    tracker = IdTracker()
    assert tracker.bounds(5)[0] == 0
    tracker.see(10, 100, 0.0)
    tracker.see(15, 150, 0.0)
    assert tracker.bounds(12) == (100, 150)
    assert tracker.bounds(16)[0] == 150 and tracker.bounds(16)[1] > 10**18
    tracker.see(13, 120, 0.0)
    assert tracker.bounds(12) == (100, 120) and tracker.bounds(14) == (120, 150)
    tracker.see(12, 999, 0.0)  # a time that cannot be
    assert tracker.bounds(11) == (100, 120)


def test_a_jump_is_overdue_only_after_a_while() -> None:
    tracker = IdTracker()
    tracker.start(10, 100)
    tracker.see(13, 130, 5.0)
    assert tracker.overdue(5.0) == []
    (span,) = tracker.overdue(5.1)
    assert (span.first, span.last, span.after_ns, span.before_ns) == (11, 12, 100, 130)
    tracker.see(11, 110, 6.0)
    (span,) = tracker.overdue(5.1)
    assert (span.first, span.last) == (12, 12)
