"""`engine.send_channel()`: its send is the push, and other tasks get their turn."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import trio

import piker_core as pk
from piker_core.channel import YIELD_EVERY

FQME = "xbtusd.kraken"
NS = 1_000_000_000


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
    time_ns = time.time_ns() // NS * NS
    tick = {"type": "trade", "price": 5.0, "size": 1.0, "time_ns": time_ns}
    return {"symbol": "xbtusd", "ticks": [tick | {"id": number} | changes]}


async def test_it_is_a_send_channel(engine: Any) -> None:
    channel = engine.send_channel()
    assert isinstance(channel, trio.abc.SendChannel)


async def test_a_quote_is_in_the_rings_before_send_returns(
    engine: Any, bars: pk.BarReader
) -> None:
    channel = engine.send_channel()
    send = channel.send(quote(1))
    send.send(None)  # runs to its checkpoint, not a step of the event loop more
    assert bars.last()["count"] == 1
    send.close()


async def test_other_tasks_run_while_one_sends_without_end(engine: Any) -> None:
    channel = engine.send_channel()
    sent, turns = 0, 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        while sent < 50 * YIELD_EVERY:
            sent += 1
            await channel.send(quote(sent))
        nursery.cancel_scope.cancel()
    assert turns >= 50


async def test_a_checkpoint_is_not_paid_for_each_quote(engine: Any) -> None:
    channel = engine.send_channel()
    with trio.CancelScope() as scope:
        scope.cancel()
        number = 0
        while True:  # ends at the first checkpoint
            number += 1
            await channel.send(quote(number))
            if number == 1:
                break
    quotes = [quote(each) for each in range(2, YIELD_EVERY)]
    yields = 0

    class Count(trio.abc.Instrument):
        def before_task_step(self, task: Any) -> None:
            nonlocal yields
            yields += task is me

    me = trio.lowlevel.current_task()
    trio.lowlevel.add_instrument(count := Count())
    for each in quotes:
        await channel.send(each)
    trio.lowlevel.remove_instrument(count)
    assert yields < len(quotes) / 2


async def test_a_cancelled_send_has_not_pushed_its_quote(
    engine: Any, bars: pk.BarReader
) -> None:
    channel = engine.send_channel()
    sent = 0
    with trio.CancelScope() as scope:
        scope.cancel()
        while sent < 10 * YIELD_EVERY:
            sent += 1
            await channel.send(quote(sent))
    assert scope.cancelled_caught
    assert bars.statistics()["ticks"] == sent - 1


async def test_a_bad_tick_comes_out_and_the_channel_goes_on(
    engine: Any, bars: pk.BarReader
) -> None:
    channel = engine.send_channel()
    with pytest.raises(pk.BadTick, match="price"):
        await channel.send(quote(1, price=-1.0))
    with pytest.raises(pk.PikerError, match="nosuch"):
        await channel.send(quote(1) | {"symbol": "nosuch"})
    await channel.send(quote(1))
    assert bars.statistics()["refused"] == 1 and bars.last()["count"] == 1


async def test_two_tasks_lose_nothing(engine: Any, bars: pk.BarReader) -> None:
    channel = engine.send_channel()

    async def send(numbers: range) -> None:
        for number in numbers:
            await channel.send(quote(number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, range(1, 1000))
        nursery.start_soon(send, range(1000, 2000))
    assert bars.statistics()["ticks"] == 1999


async def test_a_closed_end_refuses_and_its_clone_does_not(engine: Any) -> None:
    channel = engine.send_channel()
    clone = channel.clone()
    async with channel:
        await channel.send(quote(1))
    with pytest.raises(trio.ClosedResourceError):
        await channel.send(quote(2))
    with pytest.raises(trio.ClosedResourceError):
        channel.send_nowait(quote(2))
    await channel.aclose()
    assert clone.send_nowait(quote(2)) == 1


async def test_a_closed_engine_refuses_in_a_sentence(engine: Any) -> None:
    channel = engine.send_channel()
    engine.close()
    with pytest.raises(trio.BrokenResourceError, match="closed"):
        await channel.send(quote(1))
