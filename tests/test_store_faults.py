"""What is wrong with stored rows by themselves is found, and nothing else is."""

import numpy as np
import pytest

import piker_core as pk
from piker_core.store.faults import RULES, find_faults
from tests.test_cli_store import START_S, minutes

BROKEN = {
    "repeated": ("time", START_S),
    "disordered": ("time", START_S - 60),
    "off_period": ("time", START_S + 61),
    "no_number": ("close", np.nan),
    "low": ("low", 1e6),
    "high": ("high", 1.0),
    "bar_wap": ("bar_wap", 1e6),
    "negative": ("count", -1),
    "flat": ("flags", int(pk.BarFlag.FLAT)),
}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_finds_the_row_that_breaks_it(rule: str) -> None:
    rows = minutes(3)
    rows["high"], rows["low"] = rows["high"] + 1, rows["low"] - 1
    assert find_faults(rows, 60) == []
    field, value = BROKEN[rule]
    rows[field][1] = value
    faults = [fault for fault in find_faults(rows, 60) if fault.rule == rule]
    assert [fault.time_s for fault in faults] == [rows["time"][1]]
    assert "{" not in faults[0].text


def test_a_mean_may_be_rounded_and_flat_rows_and_no_rows_are_right() -> None:
    rows = minutes(3)
    rows["bar_wap"][0] = np.nextafter(rows["high"][0], np.inf)
    rows["flags"][1] = int(pk.BarFlag.FLAT | pk.BarFlag.SYNTHETIC_GAP)
    rows["volume"][1] = rows["count"][1] = 0
    assert find_faults(rows, 60) == []
    assert find_faults(rows[:0], 60) == []
