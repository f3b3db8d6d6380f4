"""Requests for history keep the venue's limits, however many ask."""

from typing import Any

import msgspec
import pytest
import trio
import trio.testing

import piker_core as pk
from providers.ib.config import Config
from providers.ib.ledger import SLACK_S, Ledger, shared_ledger
from providers.ib.venue_pacing import HistoryLimits, Pacing


def ledger(**settings: Any) -> Ledger:
    return Ledger(Config(**settings), trio.current_time)


async def test_no_window_ever_holds_more_than_is_allowed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked = ledger(pacing_wait_s=1e9)
    pacing = Pacing(HistoryLimits())

    async def ask(number: int) -> None:
        for turn in range(9):
            line = f"contract {number % 5}"
            await asked.take((number, turn), line, urgent=number % 4 == 0)
            assert pacing.take(trio.current_time(), line, (number, turn))

    async with trio.open_nursery() as nursery:
        for number in range(25):
            nursery.start_soon(ask, number)
    assert pacing.worst.requests == 60 and pacing.refused == 0
    assert pacing.worst.same == 5


async def test_identical_requests_are_fifteen_seconds_apart(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked = ledger()
    began_s = trio.current_time()
    for _ in range(3):
        await asked.take("request", "line")
    assert trio.current_time() - began_s == pytest.approx(2 * (15 + SLACK_S))


async def test_one_contract_has_no_bursts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked = ledger()
    began_s = trio.current_time()
    for number in range(6):
        await asked.take(number, "line")
    assert trio.current_time() - began_s == pytest.approx(2 + SLACK_S)
    await asked.take(7, "another")
    assert trio.current_time() - began_s == pytest.approx(2 + SLACK_S)


async def test_a_reserve_is_kept_for_what_is_urgent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked = ledger(pacing_wait_s=1.0)
    for number in range(50):
        await asked.take(number, number)
    with pytest.raises(pk.DataThrottle, match="60 requests in 600 s") as caught:
        await asked.take(50, 50)
    assert caught.value.retry_after == pytest.approx(600 + SLACK_S)
    for number in range(60, 70):
        await asked.take(number, number, urgent=True)
    with pytest.raises(pk.DataThrottle):
        await asked.take(70, 70, urgent=True)
    assert asked.used() == 60


async def test_heavy_requests_count_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked = ledger(repair_reserve=0, pacing_wait_s=1.0)
    for number in range(30):
        await asked.take(number, number, weight=2)
    with pytest.raises(pk.DataThrottle):
        await asked.take(31, 31, weight=1)


async def test_after_a_complaint_everybody_rests(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked = ledger()
    asked.rest(60.0)
    began_s = trio.current_time()
    await asked.take(1, 1, urgent=True)
    assert trio.current_time() - began_s == pytest.approx(60.0)


async def test_a_cancelled_wait_leaves_nothing_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked = ledger()
    await asked.take("request", "line")
    with trio.move_on_after(3.0) as limit:
        await asked.take("request", "line")
    assert limit.cancelled_caught and asked.used() == 1
    await asked.take("other", "line")
    assert asked.used() == 2


def test_an_address_has_one_ledger_whatever_loop_asks() -> None:
    config = Config(port=1)
    first = shared_ledger(config)
    trio.run(first.take, "request", "line")
    again = shared_ledger(msgspec.structs.replace(config, history_requests=7))
    assert again is first and again.config.history_requests == 7
    assert again.used() == 1
    assert shared_ledger(Config(port=2)) is not first
