"""Traded size is the growth of the session's volume, counted once."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.ib.volume import VolumeMeter, decimal_size, decode_rt_volume

D = Decimal


def test_the_first_total_is_where_counting_begins() -> None:
    meter = VolumeMeter()
    assert meter.take(D(12_251_450), 0.0) == 0
    assert meter.take(D(12_252_450), 0.1) == 1000
    assert meter.total == 12_252_450


def test_a_first_total_with_its_trade_counts_the_trade_alone() -> None:
    meter = VolumeMeter()
    assert meter.take(D(500), 0.0, D(7)) == 7
    assert meter.take(D(510), 0.1, D(3)) == 10  # the growth, not the last size


def test_what_two_sources_tell_counts_once() -> None:
    meter = VolumeMeter()
    meter.take(D(100), 0.0)
    assert meter.take(D(105), 0.1, D(5)) == 5
    assert meter.take(D(105), 0.1) == 0


def test_what_was_traded_between_two_subscriptions_is_the_jump() -> None:
    meter = VolumeMeter()
    meter.take(D(100), 0.0)
    meter.take(D(105), 0.1)
    meter.begin()
    meter.begin()  # the next one told nothing
    assert meter.jump is None
    assert meter.take(D(150), 9.0, D(4)) == 4
    assert meter.jump == 41
    meter.begin()
    meter.take(D(7), 99.0)  # another session: nobody knows
    assert meter.jump is None


def test_a_lower_total_is_old_news() -> None:
    meter = VolumeMeter()
    for total in (100, 150, 140, 150):
        grown = meter.take(D(total), 0.0)
    assert grown == 0 and meter.backwards == 1
    assert meter.take(D(160), 0.1) == 10


def test_a_far_lower_total_after_a_pause_is_another_session() -> None:
    meter = VolumeMeter()
    meter.take(D(9000), 0.0)
    assert meter.take(D(12), 61.0) == 12
    assert meter.take(D(15), 61.1) == 3
    assert meter.resets == 1


def test_without_a_pause_another_session_needs_a_second_word() -> None:
    meter = VolumeMeter()
    meter.take(D(9000), 0.0)
    assert meter.take(D(0), 1.0) == 0
    assert meter.take(D(4), 1.1) == 4
    assert meter.resets == 1
    meter.take(D(9000), 2.0)
    assert meter.take(D(10), 2.1) == 0  # a stray old message
    assert meter.take(D(9001), 2.2) == 1 and meter.resets == 1


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=60))
def test_growth_sums_to_the_last_total_less_the_first(steps: list[int]) -> None:
    meter = VolumeMeter()
    totals = [sum(steps[: n + 1]) + 10**7 for n in range(len(steps))]
    grown = sum(meter.take(D(total), 0.0) for total in totals)
    assert grown == totals[-1] - totals[0]


def test_the_recorded_volume_is_the_growth_and_last_sizes_are_a_part_of_it(
    captures: Path,
) -> None:
    meter, grown, sizes = VolumeMeter(), D(0), D(0)
    totals = []
    for line in (captures / "ib" / "streaming_ticks.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["tickType"] == 8:
            totals.append(row["size"])
            grown += meter.take(D(repr(row["size"])), 0.0)
        elif row["tickType"] == 5:
            sizes += D(repr(row["size"]))
    assert grown == D(repr(totals[-1])) - D(repr(totals[0])) == 1_869_079
    assert 0.3 < sizes / grown < 0.5


def test_rt_volume_has_price_size_milliseconds_and_total() -> None:
    told = decode_rt_volume("100.11;1.5;1795444320123;4321.25;100.05;true")
    assert (told.price, told.size, told.total) == (100.11, D("1.5"), D("4321.25"))
    assert told.time_ns == 1_795_444_320_123_000_000 and told.single
    odd = decode_rt_volume(";0;1795444320123;4321;100.05;false")
    assert odd.price is None and not odd.single


@pytest.mark.parametrize(
    "text",
    ["", "1;2;3;4", "a;b;c;d;e;f", "100.5;1", "100.5;1;yesterday;1000;100.5;true"],
)
def test_what_is_no_rt_volume_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"RTVolume|size"):
        decode_rt_volume(text)


def test_the_greatest_numbers_stand_for_none() -> None:
    assert decimal_size(9.223372036854775807e18) is None
    assert decimal_size("0.00000001") == D("1e-8")
    for bad in (-100.0, float("nan"), "many"):
        with pytest.raises(ValueError, match="no size"):
            decimal_size(bad)
