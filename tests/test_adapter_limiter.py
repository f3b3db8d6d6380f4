"""The limiter: rate, order, pauses, costs, and what a venue reports of its budgets."""

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from piker_core.adapter.limiter import Limiter, Used
from tests.adapter_site import clock_at

Clock = trio.testing.MockClock


async def taken(limiter: Limiter, *costs: float) -> list[float]:
    """When calls of these costs, one after another, may be made, from now on."""
    begin, times = trio.current_time(), []
    for cost in costs:
        await limiter.acquire(cost)
        times.append(trio.current_time() - begin)
    return times


async def test_a_burst_goes_through_and_then_the_rate_holds(
    autojump_clock: Clock,
) -> None:
    limiter = Limiter(4.0, 3)
    times = await taken(limiter, *[1] * 7)
    assert times == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1.0])
    await trio.sleep(60)
    assert await taken(limiter, *[1] * 4) == pytest.approx([0, 0, 0, 0.25])


async def test_waiters_are_served_in_the_order_they_came_whatever_they_cost(
    autojump_clock: Clock,
) -> None:
    limiter, served = Limiter(1.0, 5), []

    async def wait(number: int) -> None:
        await limiter.acquire(5 if number % 2 else 1)
        served.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
    assert served == list(range(8))


async def test_a_cancelled_wait_takes_no_token(autojump_clock: Clock) -> None:
    limiter = Limiter(1.0, 1)
    await limiter.acquire()
    begin = trio.current_time()
    with trio.move_on_after(0.5) as scope:
        await limiter.acquire()
    assert scope.cancelled_caught and limiter.spent == 1
    await limiter.acquire()
    assert trio.current_time() - begin == pytest.approx(1.0)


async def test_a_call_that_costs_more_waits_longer(autojump_clock: Clock) -> None:
    limiter = Limiter(10.0, 20)
    assert await taken(limiter, 15, 10, 1, 1) == pytest.approx([0, 0.5, 0.6, 0.7])


async def test_a_cost_over_the_burst_waits_for_a_full_bucket_and_leaves_a_debt(
    autojump_clock: Clock,
) -> None:
    limiter = Limiter(1.0, 4)
    assert await taken(limiter, 1, 10, 1) == pytest.approx([0, 1, 8])


@given(st.lists(st.floats(0.5, 30), max_size=30))
def test_no_span_of_time_sees_more_than_its_rate_and_a_burst(
    costs: list[float],
) -> None:
    async def spend() -> list[float]:
        return await taken(Limiter(7.0, 20), *costs)

    times = trio.run(spend, clock=trio.testing.MockClock(autojump_threshold=0))
    for first in range(len(times)):
        for last in range(first, len(times)):
            spent = sum(costs[first : last + 1])
            # the last may take the bucket as deep into debt as it is over the burst
            most = 7.0 * (times[last] - times[first]) + 20 + max(costs[last] - 20, 0)
            assert spent <= most + 1e-3


# Pauses


async def test_a_pause_holds_for_those_who_already_wait(autojump_clock: Clock) -> None:
    limiter = Limiter(2.0, 1, pause_s=5)
    await limiter.acquire()
    begin, times = trio.current_time(), []

    async def wait() -> None:
        await limiter.acquire()
        times.append(trio.current_time() - begin)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert limiter.throttle(sent_at=trio.current_time()) == pytest.approx(5.0)
    assert times == pytest.approx([5.0, 5.5, 6.0])


async def test_a_pause_is_as_long_as_the_venue_says_but_has_a_limit(
    autojump_clock: Clock,
) -> None:
    limiter = Limiter(1.0, 1, pause_s=5, longest_s=600)
    assert limiter.throttle(sent_at=1.0, wait_s=17) == pytest.approx(17)
    assert limiter.throttle(sent_at=2.0, wait_s=10**9) == pytest.approx(600)
    await limiter.acquire()
    assert trio.current_time() == pytest.approx(600)


# What the venue reports


async def test_the_rest_of_a_reported_window_is_all_that_is_spent_in_it(
    autojump_clock: Clock,
) -> None:
    limiter = Limiter(100.0, 100, wall_s=clock_at(30.0))
    spent = await limiter.acquire(5)
    limiter.adopt(Used(85, 100, 60.0), spent=spent, sent_s=30.0)
    # 15 are left until the minute is over, 30 s from now
    assert await taken(limiter, 10, 5, 1, 50) == pytest.approx([0, 0, 30, 30])


async def test_what_was_spent_since_the_call_is_not_in_its_report(
    autojump_clock: Clock,
) -> None:
    limiter = Limiter(100.0, 100, wall_s=clock_at(0.0))
    spent = await limiter.acquire(5)
    await limiter.acquire(10)
    limiter.adopt(Used(80, 100, 60.0), spent=spent, sent_s=0.0)
    assert await taken(limiter, 10, 1) == pytest.approx([0, 60])


async def test_an_older_report_does_not_give_back_what_a_newer_one_took(
    autojump_clock: Clock,
) -> None:
    limiter = Limiter(100.0, 100, wall_s=clock_at(0.0))
    first = await limiter.acquire()
    second = await limiter.acquire()
    limiter.adopt(Used(99, 100, 60.0), spent=second, sent_s=0.0)  # others spend, too
    limiter.adopt(Used(10, 100, 60.0), spent=first, sent_s=0.0)
    assert await taken(limiter, 1, 1) == pytest.approx([0, 60])


async def test_a_report_of_a_window_that_is_over_says_nothing(
    autojump_clock: Clock,
) -> None:
    limiter = Limiter(100.0, 100, wall_s=clock_at(59.0))
    spent = await limiter.acquire()
    await trio.sleep(2)
    limiter.adopt(Used(100, 100, 60.0), spent=spent, sent_s=59.0)
    assert await taken(limiter, 1) == pytest.approx([0])


async def test_of_several_windows_the_last_that_is_full_decides(
    autojump_clock: Clock,
) -> None:
    limiter = Limiter(100.0, 100, wall_s=clock_at(0.0))
    spent = await limiter.acquire()
    limiter.adopt(Used(50, 50, 10.0), spent=spent, sent_s=0.0)
    limiter.adopt(Used(999, 1000, 86400.0), spent=spent, sent_s=0.0)
    assert await taken(limiter, 1, 1) == pytest.approx([10, 86400])
