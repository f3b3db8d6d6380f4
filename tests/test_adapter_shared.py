"""One object a run, and tables that are fetched once."""

import pytest
import trio
import trio.testing

import piker_core as pk
from piker_core.adapter.shared import Table, share

Clock = trio.testing.MockClock


class Source:
    """Counts how often it is asked; fails while `broken`."""

    def __init__(self) -> None:
        self.asked = 0
        self.broken = False

    async def fetch(self) -> int:
        self.asked += 1
        asked = self.asked
        await trio.sleep(1)
        if self.broken:
            raise pk.ProviderError("the venue is away")
        return asked


def test_an_object_is_made_once_a_run() -> None:
    async def ask() -> tuple[object, object, object]:
        return share("a", object), share("a", object), share("b", object)

    first, again, other = trio.run(ask)
    assert first is again and first is not other
    assert trio.run(ask)[0] is not first


async def test_a_table_is_fetched_once_however_many_ask(autojump_clock: Clock) -> None:
    source, table = Source(), Table[int]("markets", ttl_s=60)
    got: list[int] = []

    async def ask() -> None:
        got.append(await table.get(source.fetch, refresh=False))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert got == [1] * 5
    await trio.sleep(61)
    await ask()
    assert got[-1] == source.asked == 2


async def test_those_who_refresh_at_the_same_time_share_one_fetch(
    autojump_clock: Clock,
) -> None:
    source, table = Source(), Table[int]("markets", ttl_s=60)
    await table.get(source.fetch, refresh=False)
    await trio.sleep(1)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(lambda: table.get(source.fetch, refresh=True))
    assert source.asked == 2


async def test_an_old_table_is_better_than_none(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    source, table = Source(), Table[int]("markets", ttl_s=60)
    source.broken = True
    with pytest.raises(pk.ProviderError):
        await table.get(source.fetch, refresh=False)
    source.broken = False
    assert await table.get(source.fetch, refresh=False) == 2
    await trio.sleep(61)
    source.broken = True
    assert await table.get(source.fetch, refresh=False) == 2
    assert "using an old table of markets: the venue is away" in caplog.text
    with pytest.raises(pk.ProviderError):
        await table.get(source.fetch, refresh=True)
