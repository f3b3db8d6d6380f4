"""Rows of stores: what is refused, how old and new ones merge, where holes are."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import piker_core as pk
from piker_core.store.rows import (
    END_S,
    REQUIRED_DTYPE,
    checked_fqme,
    checked_period,
    checked_range,
    checked_rows,
    holes,
    joined,
    merged,
)
from tests.store_rows import JAN_S, PAYLOAD, VALUES, bars, check_same, every

NS = 10**9
places = st.dictionaries(st.integers(0, 30), st.integers(0, 2), max_size=20)


# ---- what is refused -----------------------------------------------------------------


@pytest.mark.parametrize("time_s", [-60, -(2**62), JAN_S + 1, END_S, 2**63 - 8])
def test_times_before_1970_off_the_period_or_too_late_are_refused_by_their_row(
    time_s: int,
) -> None:
    rows = bars([JAN_S, time_s, JAN_S + 120])
    with pytest.raises(ValueError, match=rf"{time_s} of row 1 .* multiple of 60 s"):
        checked_rows(rows, 60)


@pytest.mark.parametrize(
    "rows",
    [
        None,
        [],
        np.zeros(3),
        np.zeros((2, 2), pk.OHLCV_DTYPE),
        np.zeros((), pk.OHLCV_DTYPE),
        bars([JAN_S])[["time", "open"]],
        bars([JAN_S]).tolist(),
        bars([JAN_S]).astype(pk.OHLCV_DTYPE.newbyteorder(">")),
    ],
)
def test_what_are_no_rows_is_refused_with_the_dtype_that_is_wanted(rows: Any) -> None:
    with pytest.raises(TypeError, match="OHLCV_DTYPE"):
        checked_rows(rows, 60)


def test_rows_without_flags_have_none() -> None:
    rows = bars(every(JAN_S, 3))
    taken = checked_rows(
        rows[list(REQUIRED_DTYPE.names or ())].astype(REQUIRED_DTYPE), 60
    )
    rows["flags"] = 0
    check_same(taken, rows)


def test_rows_are_copied_and_numbered_from_0() -> None:
    rows = bars(every(JAN_S, 4))
    taken = checked_rows(rows[::2], 60)
    rows["close"] = -1.0
    check_same(taken, bars([JAN_S, JAN_S + 120]))


def test_disordered_rows_are_sorted_and_of_one_time_the_last_is_taken() -> None:
    given = np.concatenate([bars([180, 60, 60]), bars([180, 0], 1), bars([60], 2)])
    taken = checked_rows(given, 60)
    check_same(taken, np.concatenate([bars([0], 1), bars([60], 2), bars([180], 1)]))


@pytest.mark.parametrize("period", [0, -60, 366 * 86_400 + 1])
def test_periods_are_whole_seconds_up_to_a_year(period: int) -> None:
    with pytest.raises(ValueError, match=f"period {period} "):
        checked_period(period)


@pytest.mark.parametrize("period", [60.0, "60", None])
def test_periods_are_integers(period: Any) -> None:
    with pytest.raises(TypeError):
        checked_period(period)


@pytest.mark.parametrize("name", ["", "..", "../x.ib", "a/b.ib", "A.ib", "x\0.ib", "x"])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(pk.PikerError, match="not a market name"):
        checked_fqme(name)


def test_names_that_would_not_fit_into_a_file_name_are_refused() -> None:
    assert checked_fqme("l" * 197 + ".ib")
    with pytest.raises(pk.StoreError, match="201 characters"):
        checked_fqme("l" * 198 + ".ib")


def test_bounds_are_cut_to_the_times_that_there_are() -> None:
    assert checked_range(None, None) == (0, END_S)
    assert checked_range(-(2**70), 2**70) == (0, END_S)
    assert checked_range(np.int64(5), np.int64(7)) == (5, 7)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        checked_range(0.5, None)  # type: ignore[arg-type]


# ---- merging -------------------------------------------------------------------------


@given(places, places)
def test_merged_rows_are_those_of_two_dicts_and_differences_are_counted(
    before: dict[int, int], after: dict[int, int]
) -> None:
    def rows_of(versions: dict[int, int]) -> Any:
        given = [bars([60 * place], versions[place]) for place in sorted(versions)]
        return checked_rows(np.concatenate([bars([]), *given]), 60)

    rows, changed = merged(rows_of(before), rows_of(after))
    check_same(rows, rows_of(before | after))
    assert changed == sum(before.get(place) != new for place, new in after.items())


@pytest.mark.parametrize("name", VALUES[1:])
def test_one_bit_of_any_field_is_a_difference(name: str) -> None:
    old = bars(every(0, 5))
    new = old[2:3].copy()
    new[name].view("i8")[:] ^= 1
    rows, changed = merged(old, new)
    assert changed == 1
    assert rows[name].view("i8")[2] == new[name].view("i8")[0]


def test_the_index_is_no_difference_and_neither_is_a_nan_that_stays() -> None:
    old = bars(every(0, 2))
    old["volume"] = PAYLOAD
    new = old.copy()
    new["index"] += 9
    assert merged(old, new)[1] == 0
    new["volume"] = PAYLOAD[::-1]
    assert merged(old, new)[1] == 2


def test_zeros_of_two_signs_differ() -> None:
    old = bars([0])
    old["volume"] = 0.0
    new = old.copy()
    new["volume"] = -0.0
    assert merged(old, new)[1] == 1


# ---- holes ---------------------------------------------------------------------------


@given(places, st.integers(1, 3))
def test_holes_are_what_no_row_without_the_flag_covers(
    versions: dict[int, int], period: int
) -> None:
    rows = bars([place * period for place in sorted(versions)])
    rows["flags"] = 0
    marked = [versions[place] == 2 for place in sorted(versions)]
    rows["flags"][marked] = int(pk.BarFlag.SYNTHETIC_GAP | pk.BarFlag.FLAT)
    found = holes(rows, period)
    missing = {
        place
        for hole in found.tolist()
        for place in range(hole[0] // NS // period, hole[1] // NS // period)
    }
    span = range(min(versions), max(versions) + 1) if versions else range(0)
    assert missing == {place for place in span if versions.get(place, 2) == 2}
    assert (found["start_ns"][1:] > found["end_ns"][:-1]).all()


def test_spans_that_touch_or_overlap_are_one_hole() -> None:
    found = joined(np.array([50, 10, 20, 90]), np.array([60, 20, 30, 95]))
    assert (found["start_ns"] // NS).tolist() == [10, 50, 90]
    assert (found["end_ns"] // NS).tolist() == [30, 60, 95]
    found = joined(np.array([0, 10, 50]), np.array([40, 20, 55]))
    assert found.tolist() == [(0, 40 * NS), (50 * NS, 55 * NS)]
