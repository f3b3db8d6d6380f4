"""Multiples of decimal steps: exact, within one step, and the same again."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piker_core.steps import (
    ROUNDINGS,
    decimal_tick,
    exact_decimal,
    quantize,
    step_text,
    tick_digits,
)

TICKS = [
    *("1e-8", "0.00000001", "0.0001", "0.000005", "0.01", "0.05", "0.1", "0.25"),
    *("0.5", "1", "2.5", "5", "10", "1E+2", "0.015625", "0.333", "1e-18"),
]
ticks = st.sampled_from(TICKS).map(Decimal)
floats = st.floats(allow_nan=False, allow_infinity=False)
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=12)
prices = st.decimals("0.000001", "1000000", places=9)
numbers = st.one_of(
    floats, prices, decimals, decimals.map(str), prices.map(str), st.integers()
)


def is_multiple(number: Decimal, tick: Decimal) -> bool:
    return (Fraction(number) / Fraction(tick)).denominator == 1


@given(numbers, ticks, st.sampled_from(ROUNDINGS))
def test_a_result_is_an_exact_multiple_less_than_a_step_away_and_stays(
    number: float | str | Decimal, tick: Decimal, rounding: str
) -> None:
    result = quantize(number, tick, rounding)
    distance = Fraction(result) - Fraction(exact_decimal(number))
    assert is_multiple(result, tick)
    assert abs(distance) < Fraction(tick)
    for again in ROUNDINGS:
        assert quantize(result, tick, again) == result


@given(numbers, ticks)
def test_down_is_never_above_up_never_below_and_nearest_the_nearer_of_both(
    number: float | str | Decimal, tick: Decimal
) -> None:
    exact = Fraction(exact_decimal(number))
    down, near, up = (
        Fraction(quantize(number, tick, how)) for how in ("down", "nearest", "up")
    )
    assert down <= exact <= up
    assert near in (down, up)
    assert abs(near - exact) == min(up - exact, exact - down)
    if down < exact and up - exact == exact - down:
        assert (near / Fraction(tick)).numerator % 2 == 0


@given(numbers, ticks)
def test_a_result_prints_without_an_exponent_and_reads_back(
    number: float | str | Decimal, tick: Decimal
) -> None:
    result = quantize(number, tick)
    text = step_text(result, tick)
    assert "E" not in text.upper()
    assert len(text.partition(".")[2]) == tick_digits(tick)
    assert Decimal(text) == result


@pytest.mark.parametrize(
    ("number", "tick", "down", "nearest", "up"),
    [
        (0.1 + 0.2, "0.1", "0.3", "0.3", "0.4"),
        (0.3, "0.1", "0.3", "0.3", "0.3"),
        ("100.37", "0.25", "100.25", "100.25", "100.50"),
        (7.5, "5", "5", "10", "10"),
        (12.5, "5", "10", "10", "15"),
        (-1.3, "0.5", "-1.5", "-1.5", "-1.0"),
        ("1e-9", "1e-8", "0", "0", "1E-8"),
        (149, "1E+2", "100", "100", "200"),
        (1e308, "1e-8", "1e308", "1e308", "1e308"),
        (np.float64(1.05), "0.1", "1.0", "1.0", "1.1"),
    ],
)
def test_ticks_such_as_these_are_kept(
    number: float | str, tick: str, down: str, nearest: str, up: str
) -> None:
    for rounding, wanted in zip(
        ("down", "nearest", "up"), (down, nearest, up), strict=True
    ):
        assert quantize(number, Decimal(tick), rounding) == Decimal(wanted)


@pytest.mark.parametrize(
    ("number", "tick", "rounding", "why"),
    [
        (float("nan"), "0.1", "nearest", "nan is not finite"),
        (float("inf"), "0.1", "nearest", "inf is not finite"),
        (Decimal("sNaN"), "0.1", "nearest", "not finite"),
        ("1e999999", "0.1", "nearest", "too large for steps of 0.1"),
        ("twelve", "0.1", "nearest", "'twelve' is no decimal number"),
        (None, "0.1", "nearest", "None is no decimal number"),
        (1, "0", "nearest", "a step is a positive number, not 0"),
        (1, "-0.1", "nearest", "not -0.1"),
        (1, "NaN", "nearest", "not NaN"),
        (1, "0.1", "sideways", "'sideways' must be one of nearest, down, up"),
    ],
)
def test_what_has_no_multiple_is_refused(
    number: object, tick: str, rounding: str, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        quantize(number, Decimal(tick), rounding)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tick", "digits"),
    [("0.1", 1), ("0.10", 1), ("0.25", 2), ("5", 0), ("10", 0), ("1e-8", 8)],
)
def test_a_tick_has_the_decimals_that_its_multiples_need(
    tick: str, digits: int
) -> None:
    assert tick_digits(Decimal(tick)) == digits


@pytest.mark.parametrize("digits", [0, 1, 2, 8])
def test_so_many_decimals_are_a_tick(digits: int) -> None:
    assert tick_digits(decimal_tick(digits)) == digits
    assert str(decimal_tick(2)) == "0.01"
