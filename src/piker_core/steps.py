"""Multiples of a decimal step, such as a price tick of 0.25 or 5: exact, no floats."""

from decimal import (
    MAX_EMAX,
    MIN_EMIN,
    Context,
    Decimal,
    DecimalException,
    Inexact,
    InvalidOperation,
)

ROUNDINGS = ("nearest", "down", "up")
SENDERS_WAY = {"buy": "down", "sell": "up"}
"""How a price is rounded so that who sends it pays no more and gets no less."""

_EXACT = Context(  # room for the largest double in steps of the smallest
    prec=700, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation]
)


def exact_decimal(number: Decimal | float | str) -> Decimal:
    """A number as the decimal that it prints as: 0.1 is 0.1, exactly.

    Raises ValueError for what is no finite number.
    """
    try:
        plain = isinstance(number, Decimal | int | str)
        exact = Decimal(number if plain else repr(float(number)))
    except (DecimalException, TypeError, ValueError):
        raise ValueError(f"{number!r:.80} is no decimal number") from None
    if not exact.is_finite():
        raise ValueError(f"{number!r:.80} is not finite")
    return exact


def quantize(
    number: Decimal | float | str, tick: Decimal, rounding: str = "nearest"
) -> Decimal:
    """The multiple of `tick` that is nearest, or next "down" or "up", to a number.

    Exact for ticks such as 0.25, 5 and 1e-8. Floats count as the decimal they print
    as; down is towards minus infinity; of two that are as near it is the even multiple.
    Raises ValueError for a tick that is not positive, a number that is not finite or
    too large, and another rounding.
    """
    exact = exact_decimal(number)
    if not tick.is_finite() or tick <= 0:
        raise ValueError(f"a step is a positive number, not {tick}")
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding {rounding!r} must be one of {', '.join(ROUNDINGS)}")
    try:
        steps, rest = _EXACT.divmod(exact, tick)
        steps = _EXACT.add(steps, _correction(steps, rest, tick, rounding))
        return _plain(_EXACT.multiply(steps, tick))
    except DecimalException:
        raise ValueError(f"{number!r:.80} is too large for steps of {tick}") from None


def tick_digits(tick: Decimal) -> int:
    """How many decimals the multiples of a step have: 2 for 0.25, 0 for 5 and 1."""
    exponent = tick.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def decimal_tick(digits: int) -> Decimal:
    """The step of the last of so many decimals: 0.01 for 2."""
    return Decimal(1).scaleb(-digits)


def step_text(number: Decimal, tick: Decimal) -> str:
    """A multiple of a step as a venue takes it: no exponent, the step's decimals."""
    return f"{number:.{tick_digits(tick)}f}"


def _correction(steps: Decimal, rest: Decimal, tick: Decimal, rounding: str) -> int:
    """What to add to the steps, which were cut towards zero and left this rest."""
    if rounding == "down":
        return -(rest < 0)
    if rounding == "up":
        return int(rest > 0)
    twice = _EXACT.multiply(rest.copy_abs(), Decimal(2))
    away = twice > tick or (twice == tick and bool(_EXACT.remainder(steps, Decimal(2))))
    return (1 if rest > 0 else -1) if away else 0


def _plain(number: Decimal) -> Decimal:
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and exponent > 0:
        return _EXACT.quantize(number, Decimal(1))
    return number.copy_abs() if number.is_zero() else number
