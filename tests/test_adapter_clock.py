"""The venue's clock: bounds that hold together, alarms once a crossing."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piker_core.adapter.clock import NS, Moment, VenueClock

T0 = 1_800_000_000 * NS
MS = 1_000_000


def note(
    clock: VenueClock, offset_ms: float, trip_ms: float, there: float = 0.5
) -> None:
    """An answer of a venue that is `offset_ms` ahead; its stamp was made on the way."""
    sent_ns = T0
    at_ns = int(sent_ns + trip_ms * there * MS + offset_ms * MS)
    clock.note(at_ns, Moment(sent_ns, int(sent_ns + trip_ms * MS)))


def test_nothing_is_known_at_first() -> None:
    clock = VenueClock("acme")
    assert clock.offset_s == 0 and clock.uncertainty_s == float("inf")


def test_the_least_round_trip_decides() -> None:
    clock = VenueClock("acme")
    note(clock, 120, 400, there=0.9)
    note(clock, 120, 10, there=0.9)
    note(clock, 120, 2000, there=0.1)
    assert clock.offset_s == pytest.approx(0.120, abs=0.006)
    assert clock.uncertainty_s < 0.006


@given(
    st.floats(-3600_000, 3600_000),
    st.lists(st.tuples(st.floats(1, 3000), st.floats(0, 1)), min_size=1),
)
def test_the_true_offset_is_always_within_the_bounds(
    offset_ms: float, samples: list[tuple[float, float]]
) -> None:
    clock = VenueClock("acme")
    for trip_ms, there in samples:
        note(clock, offset_ms, trip_ms, there)
    assert abs(clock.offset_s - offset_ms / 1000) <= clock.uncertainty_s + 1e-5
    assert clock.uncertainty_s <= min(t for t, _ in samples) / 2000 + 1e-3
    assert clock.jumps == 0


def test_whole_seconds_become_exact_when_there_are_enough_of_them() -> None:
    clock = VenueClock("acme")
    for step in range(40):
        sent_ns = T0 + step * 27 * MS
        at_ns = (sent_ns + 5 * MS + 200 * MS) // NS * NS
        clock.note(at_ns, Moment(sent_ns, sent_ns + 10 * MS), resolution_ns=NS)
    assert clock.offset_s == pytest.approx(0.2, abs=0.03)


def test_a_date_header_tells_the_time_and_nonsense_tells_nothing() -> None:
    clock = VenueClock("acme")
    moment = Moment(1_762_820_230 * NS, 1_762_820_230 * NS)
    clock.note_date("Tue, 11 Nov 2025 00:17:04 GMT", moment)
    assert clock.offset_s == pytest.approx(-5.5)
    for text in (None, "", "yesterday", "Tue, 99 Nov 2025 00:17:04 GMT"):
        clock.note_date(text, moment)
    assert clock.samples == 1


def test_the_time_at_the_venue_is_ours_and_the_offset() -> None:
    import time

    clock = VenueClock("acme")
    note(clock, 60_000, 1)
    assert clock.now_ns() - time.time_ns() > 59 * NS
    assert clock.now_s() - time.time() > 59


def test_the_alarm_is_given_once_a_crossing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    clock = VenueClock("acme", alarm_s=0.5)
    for _ in range(3):
        note(clock, 450, 20)
    assert not caplog.records
    for _ in range(3):
        note(clock, 700, 20)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the clock of acme is +0.700 s off this machine's, 0.500 at most are fine"
    ]
    note(clock, 0, 20)
    assert clock.jumps == 2 and "jumped by -0.700 s" in caplog.text
    note(clock, -900, 20)
    assert sum("off this" in record.getMessage() for record in caplog.records) == 2


def test_no_alarm_is_given_on_a_slow_answer_that_proves_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = VenueClock("acme", alarm_s=0.5)
    note(clock, 0, 3000, there=0.0)  # looks as if it were 1.5 s off
    assert clock.offset_s == pytest.approx(-1.5)
    assert not caplog.records
