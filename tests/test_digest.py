"""Digests of bars: equal for equal bars, whatever else rows tell, else unequal."""

import hashlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import piker_core as pk
from piker_core.digest import COUNTED, counted_rows, day_digests

DAY_S = 86_400
BEGIN_S = 20_000 * DAY_S - 3


def bars(count: int = 6, begin_s: int = BEGIN_S) -> Any:
    """Traded rows over midnight."""
    rows = np.zeros(count, pk.OHLCV_DTYPE)
    rows["time"] = begin_s + np.arange(count)
    rows["open"] = rows["close"] = 100.0
    rows["high"], rows["low"], rows["bar_wap"] = 101.0, 99.0, 100.25
    rows["volume"], rows["count"] = 0.75, 3
    return rows


def digests(rows: Any) -> list[tuple[str, int, str]]:
    found = day_digests("xbtusd.kraken", 1, rows)
    return [(each.day, each.rows, each.digest) for each in found]


def test_each_utc_day_has_its_own() -> None:
    first, second = digests(bars())
    assert (first[0], first[1]) == ("2024-10-03", 3)
    assert (second[0], second[1]) == ("2024-10-04", 3)
    assert first[2] != second[2]
    assert digests(bars()[:3]) == [first] and digests(bars()[3:]) == [second]


def test_it_is_what_its_description_says() -> None:
    packed = b"".join(
        struct.pack("<q5dqd", BEGIN_S + n, 100.0, 101.0, 99.0, 100.0, 0.75, 3, 100.25)
        for n in range(3)
    )
    told = hashlib.blake2b(packed, digest_size=16, person=b"piker-bars-1").hexdigest()
    assert digests(bars())[0][2] == told == "8f43ac9ac8db3bc1cafb6322fd708d51"


def test_index_and_flags_do_not_count() -> None:
    rows = bars()
    rows["index"], rows["flags"] = np.arange(6) + 2**40, int(pk.BarFlag.REVISED)
    assert digests(rows) == digests(bars())


@pytest.mark.parametrize("field", COUNTED.names or ())
def test_every_other_bit_counts(field: str) -> None:
    rows = bars()[::2]
    before = digests(rows)
    rows[field].view("u8")[1] ^= np.uint64(1)
    assert digests(rows) != before


def test_flat_rows_placeholders_and_partial_rows_do_not_count() -> None:
    rows = bars(9)
    flat = rows[2:3]
    flat["open"] = flat["high"] = flat["low"] = flat["bar_wap"] = flat["close"]
    flat["volume"] = flat["count"] = 0
    rows["flags"][4], rows["flags"][5] = pk.BarFlag.SYNTHETIC_GAP, pk.BarFlag.PARTIAL
    assert digests(rows) == digests(np.delete(bars(9), [2, 4, 5]))


def test_a_row_without_a_count_that_is_not_flat_counts() -> None:
    rows = bars(2)
    rows["count"] = rows["volume"] = 0
    assert len(counted_rows(rows)) == 2


def test_zeros_and_nans_have_one_form() -> None:
    rows, others = bars(2), bars(2)
    rows["low"], others["low"] = 0.0, -0.0
    rows["bar_wap"] = np.nan
    others["bar_wap"] = np.array([0xFFF8000000000123], "u8").view("f8")[0]
    assert rows.tobytes() != others.tobytes()
    assert digests(rows) == digests(others)


def test_nothing_has_no_digest_and_disorder_is_refused() -> None:
    assert digests(bars(0)) == []
    with pytest.raises(ValueError, match=r"xbtusd\.kraken, 1 s: .* do not ascend"):
        digests(bars()[::-1])


@given(st.sets(st.integers(0, 3 * DAY_S), max_size=30), st.data())
def test_rows_are_counted_once_whatever_their_days(
    seconds: set[int], data: st.DataObject
) -> None:
    rows = bars(len(seconds))
    rows["time"] = BEGIN_S + np.array(sorted(seconds), "i8")
    found = digests(rows)
    assert sum(each[1] for each in found) == len(rows)
    assert [each[0] for each in found] == sorted({each[0] for each in found})
    if len(rows):
        at = data.draw(st.integers(0, len(rows) - 1))
        rows["volume"][at] += 0.25
        changed = digests(rows)
        assert sum(a != b for a, b in zip(found, changed, strict=True)) == 1
