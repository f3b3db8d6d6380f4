"""The engine's counter: what actions cost, what has room, who waits for it."""

import pytest
import trio
import trio.testing

from providers.kraken.engine_limits import (
    EngineLimits,
    add_cost,
    amend_cost,
    cancel_cost,
)

PAIR = "BTC/USD"


@pytest.mark.parametrize(
    ("age_s", "amend", "cancel"),
    [
        (0, 4, 8),
        (-0.5, 4, 8),
        (5, 3, 6),
        (10, 2, 5),
        (15, 1, 4),
        (45, 1, 2),
        (90, 1, 1),
        (300, 1, 0),
        (float("inf"), 1, 0),
    ],
)
def test_what_an_action_costs_depends_on_the_orders_age(
    age_s: float, amend: int, cancel: int
) -> None:
    assert (amend_cost(age_s), cancel_cost(age_s)) == (amend, cancel)


def test_orders_of_a_batch_cost_half() -> None:
    assert [add_cost(n) for n in (1, 2, 15)] == [1, 1, 7.5]


@pytest.mark.parametrize(
    ("told", "decay"), [(60, 1.0), (125, 2.34), (180, 3.75), (40, 1.0), (150, 2.34)]
)
async def test_the_decay_is_that_of_the_tier(told: int, decay: float) -> None:
    limits = EngineLimits()
    limits.tell_threshold(told)
    assert (limits.threshold, limits.decay) == (told, decay)


async def test_a_threshold_that_was_configured_stays() -> None:
    limits = EngineLimits(30)
    limits.tell_threshold(180)
    assert limits.threshold == 30


async def test_who_waits_gets_room_in_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = EngineLimits()
    assert await limits.spend(PAIR, 60, patience_s=0) == 0
    done: list[tuple[int, float]] = []

    async def wait(number: int) -> None:
        assert await limits.spend(PAIR, 2, patience_s=10) == 0
        done.append((number, trio.current_time()))

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
    assert [number for number, _ in done] == [0, 1, 2]
    assert [at - begun for _, at in done] == pytest.approx([2, 4, 6])


async def test_who_would_wait_too_long_takes_nothing_and_is_told_how_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = EngineLimits()
    await limits.spend(PAIR, 60, patience_s=0)
    assert await limits.spend(PAIR, 5, patience_s=2) == pytest.approx(5)
    assert limits.count(PAIR) == pytest.approx(60)
    assert await limits.spend("ETH/USD", 5, patience_s=0) == 0
    await trio.sleep(60)
    assert limits.count(PAIR) == 0


async def test_the_venues_word_counts_where_it_is_higher(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = EngineLimits()
    await limits.spend(PAIR, 10, patience_s=0)
    limits.adopt(PAIR, 4.0)
    assert limits.count(PAIR) == 10
    limits.adopt(PAIR, 58.0)
    assert await limits.spend(PAIR, 3, patience_s=0) == pytest.approx(1)
    limits.full(PAIR)
    assert limits.delay_s(PAIR, 1) == pytest.approx(1)


async def test_what_costs_more_than_the_threshold_waits_for_an_empty_counter(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = EngineLimits()
    await limits.spend(PAIR, 4, patience_s=0)
    begun = trio.current_time()
    assert await limits.spend(PAIR, 400, patience_s=10) == 0
    assert trio.current_time() - begun == pytest.approx(4)


async def test_a_wait_that_grows_too_long_meanwhile_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = EngineLimits()
    await limits.spend(PAIR, 60, patience_s=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_fill_up, limits)
        assert await limits.spend(PAIR, 3, patience_s=4) > 1


async def _fill_up(limits: EngineLimits) -> None:
    await trio.sleep(2)
    limits.full(PAIR)


async def test_room_is_left_for_what_is_dearer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = EngineLimits()
    assert await limits.spend(PAIR, 44, patience_s=0, keep=16) == 0
    assert await limits.spend(PAIR, 1, patience_s=0, keep=16) == pytest.approx(1)
    assert await limits.spend(PAIR, 16, patience_s=0) == 0
