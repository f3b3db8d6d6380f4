"""`engine.send_channel()`: its send is the push, and other tasks get their turn."""

from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import trio

import piker_core as pk
from piker_core.channel import YIELD_AFTER_S, YIELD_EVERY

FQME = "xbtusd.kraken"
NS = 1_000_000_000
T0 = 1_732_320_000


@pytest.fixture
def engine(namespace: str) -> Iterator[Any]:
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=1 << 14) as engine:
        engine.add_market(FQME, capacity={1: 256, 60: 256}).set_status("live")
        yield engine


@pytest.fixture
def bars(engine: Any) -> Iterator[pk.BarReader]:
    with pk.attach_bars(FQME) as reader:
        yield reader


def quote(number: int, **changes: Any) -> dict[str, Any]:
    tick = {"type": "trade", "price": 5.0, "size": 1.0, "time_ns": T0 * NS}
    return {"symbol": "xbtusd", "ticks": [tick | {"id": number} | changes]}


async def steps_of(act: Callable[[], Awaitable[Any]]) -> int:
    """How often this task gave way to others while it acted."""
    me, steps = trio.lowlevel.current_task(), 0

    class Count(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal steps
            steps += task is me

    trio.lowlevel.add_instrument(counting := Count())
    try:
        await act()
    finally:
        trio.lowlevel.remove_instrument(counting)
    return steps


# Sending


async def test_it_is_a_send_channel(engine: Any) -> None:
    async with engine.send_channel() as channel:
        assert isinstance(channel, trio.abc.SendChannel)
        assert isinstance(channel, trio.abc.AsyncResource)


async def test_a_quote_is_in_the_rings_before_send_returns(
    engine: Any, bars: pk.BarReader
) -> None:
    channel = engine.send_channel()
    send = channel.send(quote(1))
    send.send(None)  # runs to its checkpoint, not a step of the event loop more
    assert bars.last()["count"] == 1
    send.close()


async def test_send_nowait_says_how_many_ticks_were_taken(engine: Any) -> None:
    channel = engine.send_channel()
    assert channel.send_nowait(quote(1)) == 1
    assert channel.send_nowait(quote(1)) == 0


async def test_what_is_refused_comes_out_and_the_channel_goes_on(
    engine: Any, bars: pk.BarReader
) -> None:
    channel = engine.send_channel()
    for number in range(1, 3 * YIELD_EVERY):  # wherever the turn of others falls
        with pytest.raises(pk.BadTick, match="price"):
            await channel.send(quote(number, price=-1.0))
        with pytest.raises(pk.PikerError, match="nosuch"):
            await channel.send(quote(number) | {"symbol": "nosuch"})
        await channel.send(quote(number))
    counters = bars.statistics()
    assert counters["refused"] == counters["ticks"] == 3 * YIELD_EVERY - 1
    assert counters["duplicates"] == 0


# Turns of other tasks, counted on a clock that stands still


async def test_others_get_a_turn_after_so_many_quotes(
    engine: Any, mock_clock: trio.testing.MockClock
) -> None:
    channel = engine.send_channel()

    async def send() -> None:
        for number in range(1, 50 * YIELD_EVERY + 1):
            await channel.send(quote(number))

    await channel.send(quote(10**6))
    assert await steps_of(send) == 50


async def test_others_get_a_turn_when_time_has_passed(
    engine: Any, mock_clock: trio.testing.MockClock
) -> None:
    channel = engine.send_channel()
    await channel.send(quote(1))

    async def send() -> None:
        for number in range(2, 12):
            await channel.send(quote(number))
            mock_clock.jump(YIELD_AFTER_S / 2)

    assert await steps_of(send) == 4


async def test_others_get_a_turn_also_while_everything_is_refused(
    engine: Any, mock_clock: trio.testing.MockClock
) -> None:
    channel = engine.send_channel()

    async def send() -> None:
        for _ in range(10 * YIELD_EVERY):
            with pytest.raises(pk.BadTick):
                await channel.send(quote(1, size=-1.0))

    assert await steps_of(send) == 11  # the first send of an end gives way too


async def test_a_task_that_sends_without_end_does_not_starve_another(
    engine: Any,
) -> None:
    channel, sent, turns = engine.send_channel(), 0, 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        while turns < 100:
            sent += 1
            await channel.send(quote(sent))
        nursery.cancel_scope.cancel()
    assert sent <= 102 * YIELD_EVERY


async def test_two_senders_take_turns_and_lose_nothing(
    engine: Any, bars: pk.BarReader, mock_clock: trio.testing.MockClock
) -> None:
    channel, order = engine.send_channel(), []

    async def send(end: Any, first: int) -> None:
        for number in range(first, first + 20 * YIELD_EVERY):
            await end.send(quote(number))
            order.append(first)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, channel, 1)
        nursery.start_soon(send, channel.clone(), 10**6)
    assert bars.statistics()["ticks"] == 40 * YIELD_EVERY
    turns = sum(one != following for one, following in pairwise(order))
    assert turns >= 20


# Cancellation


async def test_a_cancelled_send_has_not_pushed_its_quote(
    engine: Any, bars: pk.BarReader
) -> None:
    channel, sent = engine.send_channel(), 0
    with trio.CancelScope() as scope:
        scope.cancel()
        while sent < 10 * YIELD_EVERY:
            sent += 1
            await channel.send(quote(sent))
    assert scope.cancelled_caught
    assert bars.statistics()["ticks"] == sent - 1


async def test_a_cancellation_is_seen_within_so_many_quotes(
    engine: Any, bars: pk.BarReader, mock_clock: trio.testing.MockClock
) -> None:
    channel = engine.send_channel()
    await channel.send(quote(1))
    with trio.CancelScope() as scope:
        scope.cancel()
        for number in range(2, 10 * YIELD_EVERY):
            await channel.send(quote(number))
    assert scope.cancelled_caught
    assert bars.statistics()["ticks"] == YIELD_EVERY - 1


async def test_a_send_that_returned_has_pushed_whatever_was_cancelled_meanwhile(
    engine: Any, bars: pk.BarReader
) -> None:
    channel, returned = engine.send_channel(), 0

    async def send() -> None:
        nonlocal returned
        while True:
            await channel.send(quote(returned + 1))
            returned += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert returned and bars.statistics()["ticks"] == returned


# The end


@pytest.mark.parametrize("way", ["close", "aclose", "with", "async with"])
async def test_a_closed_end_refuses_and_its_clone_does_not(
    way: str, engine: Any
) -> None:
    channel = engine.send_channel()
    clone = channel.clone()
    if way == "close":
        channel.close()
    elif way == "aclose":
        await channel.aclose()
    elif way == "with":
        with channel as same:
            assert same is channel
    else:
        async with channel as same:
            assert same is channel
    for _ in range(2):
        with pytest.raises(trio.ClosedResourceError):
            await channel.send(quote(2))
        with pytest.raises(trio.ClosedResourceError):
            channel.send_nowait(quote(2))
        with pytest.raises(trio.ClosedResourceError):
            channel.clone()
        await channel.aclose()
        channel.close()
    await clone.send(quote(2))


async def test_closing_in_a_cancelled_scope_closes(engine: Any) -> None:
    channel = engine.send_channel()
    with trio.CancelScope() as scope:
        scope.cancel()
        await channel.aclose()
    assert scope.cancelled_caught
    with pytest.raises(trio.ClosedResourceError):
        channel.send_nowait(quote(1))


async def test_an_end_whose_engine_is_closed_is_broken_and_says_why(
    engine: Any,
) -> None:
    channel = engine.send_channel()
    clone = channel.clone()
    engine.close()
    for end in (channel, clone, clone.clone()):
        with pytest.raises(trio.BrokenResourceError, match="closed") as broken:
            await end.send(quote(1))
        assert isinstance(broken.value.__cause__, pk.PikerError)
        await end.aclose()
