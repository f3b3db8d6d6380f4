"""What of a second is missing, told from what is known of it by order and size."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piker_core.calendars import NS
from providers.ib.archive import PastTick
from providers.ib.known import Known, KnownTrades

S = 1_795_444_320


def listed(*rows: tuple[float, int] | tuple[float, int, str]) -> list[PastTick]:
    kinds = (row[2] if len(row) > 2 else "trade" for row in rows)
    return [
        PastTick(S, kind, row[0], Decimal(row[1]))
        for row, kind in zip(rows, kinds, strict=True)
    ]


def told(known: KnownTrades, epoch: int, *rows: tuple[float, int, int]) -> None:
    """Price, size and nanoseconds after the second."""
    known.add(
        [
            {"type": "trade", "price": price, "size": size, "time_ns": S * NS + at}
            for price, size, at in rows
        ],
        epoch,
    )


def missing(
    known: KnownTrades, rows: Sequence[PastTick], epoch: int = 1
) -> list[tuple[Any, ...]]:
    """Price, size and nanoseconds after the second."""
    ticks, _ = known.missing(S, rows, epoch)
    return [(tick["price"], tick["size"], tick["time_ns"] - S * NS) for tick in ticks]


def assert_between(found: Sequence[tuple[Any, ...]], *bounds: tuple[int, int]) -> None:
    """The times rise, each within its bounds."""
    times = [at for _, _, at in found]
    assert times == sorted(set(times))
    for at, (after, before) in zip(times, bounds, strict=True):
        assert after < at < before


def test_of_a_second_nothing_is_known_of_all_is_missing_in_order() -> None:
    rows = listed((10.0, 1), (11.0, 2), (12.0, 3, "dark_trade"))
    found = missing(KnownTrades(), rows)
    assert [row[:2] for row in found] == [(10.0, 1), (11.0, 2), (12.0, 3)]
    assert_between(found, *[(-1, NS)] * 3)


def test_what_lies_between_two_subscriptions_is_missing() -> None:
    known = KnownTrades()
    told(known, 1, (10.0, 1, 1000), (10.0, 1, 2000))
    told(known, 2, (10.0, 1, 500_000_000))
    rows = listed((10.0, 1), (10.0, 1), (11.0, 5), (9.0, 2), (10.0, 1))
    found = missing(known, rows)
    assert [row[:2] for row in found] == [(11.0, 5), (9.0, 2)]
    assert_between(found, *[(2000, 500_000_000)] * 2)


def test_what_was_lost_in_the_middle_is_put_in_its_place() -> None:
    known = KnownTrades()
    told(known, 1, (10.0, 1, 1000), (12.0, 1, 2000))
    rows = listed((9.0, 4), (10.0, 1), (11.0, 5), (12.0, 1), (13.0, 1))
    found = missing(known, rows)
    assert [row[:2] for row in found] == [(9.0, 4), (11.0, 5), (13.0, 1)]
    assert_between(found, (-1, 1000), (1000, 2000), (2000, NS))


def test_what_is_found_missing_later_has_its_place_too() -> None:
    known = KnownTrades()
    told(known, 1, (10.0, 1, 1000))
    told(known, 2, (20.0, 1, 500_000_000))
    first = missing(known, listed((10.0, 1), (11.0, 1), (13.0, 1), (20.0, 1)))
    told(known, 1, *((price, int(size), at) for price, size, at in first))
    rows = listed((10.0, 1), (11.0, 1), (12.0, 1), (13.0, 1), (20.0, 1), (21.0, 1))
    found = missing(known, rows)
    assert [row[0] for row in found] == [12.0, 21.0]
    assert_between(found, (first[0][2], first[1][2]), (500_000_000, NS))


def test_trades_that_look_alike_may_have_been_taken_for_each_other() -> None:
    known = KnownTrades()
    told(known, 1, (10.0, 1, 1000), (12.0, 1, 2000), (10.0, 1, 3000), (11.0, 2, 4000))
    told(known, 2, (13.0, 1, 500_000_000))
    rows = listed(
        (10.0, 1), (11.0, 2), (10.0, 1), (12.0, 1), (14.0, 1), (13.0, 1)
    )  # fmt: skip
    assert [row[:2] for row in missing(known, rows)] == [(14.0, 1)]


def test_growth_of_several_trades_is_known_by_its_size() -> None:
    known = KnownTrades()
    told(known, 1, (11.0, 3, 250_000_000))  # told as one, was two
    told(known, 2, (10.0, 4, 900_000_000))
    rows = listed((10.0, 1), (11.0, 2), (12.0, 7), (9.0, 1), (10.0, 3))
    found = missing(known, rows)
    assert [row[:2] for row in found] == [(12.0, 7)]
    assert_between(found, (250_000_000, 900_000_000))


def test_a_sum_of_unknown_prices_is_known_by_its_size_too() -> None:
    known = KnownTrades()
    known.put(Known(0, S * NS + 5, "trade", 0.0, Decimal(3)))
    found = missing(known, listed((10.0, 1), (11.0, 2), (12.0, 7)), 0)
    assert [row[:2] for row in found] == [(12.0, 7)]
    assert_between(found, (5, NS))


def test_what_is_known_and_not_listed_changes_nothing() -> None:
    known = KnownTrades()
    told(known, 2, (10.0, 1, 1000), (11.0, 2, 2000))
    ticks, excess = known.missing(S, listed((10.0, 1)), 1)
    assert ticks == [] and excess == 2


def test_growth_that_reaches_back_is_known_of_the_second_before() -> None:
    known = KnownTrades()
    told(known, 2, (12.0, 9, 50_000_000))  # of which 5 were of the second before
    ticks, excess = known.missing(S, listed((12.0, 4)), 1)
    assert ticks == [] and excess == 5
    rows = listed((10.0, 1), (11.0, 2), (12.0, 5))
    ticks, excess = KnownTrades().missing(S, rows, 1, Decimal(5))
    assert [tick["price"] for tick in ticks] == [10.0, 11.0] and excess == 0


def test_a_loss_of_known_size_is_the_run_of_trades_that_has_it() -> None:
    known = KnownTrades()
    told(known, 1, (10.0, 3, 250_000_000))
    rows = listed((10.0, 1), (10.0, 2), (11.0, 5), (12.0, 4), (13.0, 2), (13.0, 9))
    run = known.lost_run(rows, S, 1, Decimal(11))
    assert run is not None
    assert [(tick["price"], tick["size"]) for tick in run] == [
        (11.0, 5.0),
        (12.0, 4.0),
        (13.0, 2.0),
    ]
    assert [tick["time_ns"] - S * NS for tick in run] == [
        250_000_001,
        250_000_002,
        250_000_003,
    ]
    assert known.lost_run(rows, S, 1, Decimal(0)) == []
    assert known.lost_run(rows, S, 1, Decimal(100)) is None


def test_what_is_not_printed_counts_where_the_volume_counts_it() -> None:
    rows = listed((10.0, 1), (10.0, 2, "dark_trade"), (11.0, 5))
    run = KnownTrades().lost_run(rows, S, 1, Decimal(8))
    assert run is not None and len(run) == 3
    run = KnownTrades().lost_run(rows, S, 1, Decimal(6))
    assert run is not None and [tick["size"] for tick in run] == [1.0, 5.0]


def test_seconds_are_forgotten_when_neither_gap_nor_age_needs_them() -> None:
    known = KnownTrades()
    for second in range(100):
        known.put(Known(1, second * NS, "trade", 1.0, Decimal(1)))
    known.forget(10)
    assert known.size(9) == 0 and known.size(10) == 1
    known.forget(1 << 40)
    assert known.size(60) == 0 and known.size(80) == 1


trades = st.lists(
    st.tuples(st.integers(1, 4).map(float), st.integers(1, 5)), max_size=12
)


@given(trades, st.integers(0, 12), st.integers(0, 12))
def test_known_and_missing_together_are_what_is_listed(
    rows: list[tuple[float, int]], first: int, second: int
) -> None:
    begin, end = sorted((min(first, len(rows)), min(second, len(rows))))
    known = KnownTrades()
    told(known, 1, *((*row, 1000 * (n + 1)) for n, row in enumerate(rows[:begin])))
    half = 500_000_000
    told(known, 2, *((*row, half + n) for n, row in enumerate(rows[end:])))
    found = missing(known, listed(*rows))
    assert [(price, int(size)) for price, size, _ in found] == rows[begin:end]
    times = [at for _, _, at in found]
    assert times == sorted(set(times))
    until = half if rows[end:] else NS
    assert all(1000 * begin <= at < until for at in times)


@pytest.mark.parametrize("lost", range(5))
def test_any_one_of_distinct_trades_is_found(lost: int) -> None:
    rows = [(10.0 + n, 1 + n) for n in range(5)]
    known = KnownTrades()
    told(known, 3, *((*row, 1000 * (n + 1)) for n, row in enumerate(rows) if n != lost))
    (found,) = missing(known, listed(*rows), 3)
    assert found[0] == rows[lost][0]


@given(trades, st.data())
def test_whatever_is_lost_is_found_in_number_however_much_looks_alike(
    rows: list[tuple[float, int]], data: st.DataObject
) -> None:
    known = KnownTrades()
    kept = [data.draw(st.booleans()) for _ in rows]
    change = data.draw(st.integers(0, len(rows)))
    for number, row in enumerate(rows):
        if kept[number]:
            at = 1000 * (number + 1) if number < change else NS // 2 + 1000 * number
            told(known, 1 + (number >= change), (*row, at))
    first = missing(known, listed(*rows))
    told(known, 1, *((price, int(size), at) for price, size, at in first))
    assert len(first) == len(rows) - sum(kept)
    assert missing(known, listed(*rows)) == []
