"""Losses and halts that come close together, and clocks that come late."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

import piker_core as pk
from piker_core.adapter import market_feed
from piker_core.adapter.market_feed import MarketFeed
from piker_core.adapter.repair import repair
from tests.adapter_host import NS, Host, Listing, gaps, open_host, quote, rows, tick

BEGIN_NS = time.time_ns() // (60 * NS) * 60 * NS - 300 * NS
PLACEHOLDER = int(pk.BarFlag.SYNTHETIC_GAP)


def at(second: float) -> int:
    """So long after the begin, UTC ns."""
    return BEGIN_NS + round(second * NS)


class Scene:
    """A market that traded in its first two seconds, and the time of its feed."""

    def __init__(self, host: Host) -> None:
        self.host, self.now_ns = host, at(2)
        self.listing = Listing(tick(1, at(0.5)), tick(2, at(1.5)))
        handle = host.engine.add_market("abcusd.acme", capacity={1: 4096, 60: 4096})
        self.market = MarketFeed("abcusd", handle, host, trades=self.listing)

    def time_ns(self) -> int:
        """In place of the wall clock's."""
        return self.now_ns

    async def begin(self) -> None:
        self.market.up(at(0))
        await self.market.release(rows(self.listing.ticks), now_ns=at(0))

    def step(self, second: float) -> None:
        self.host.engine.step(at(second))

    def say(self, second: float, *, trading: bool, asked: float | None = None) -> None:
        """What the venue answers to a question, or says by itself."""
        self.now_ns = at(second)
        asked_ns = 0 if asked is None else at(asked)
        self.market.set_trading(trading, asked_ns=asked_ns)

    async def trade(self, number: int, second: float, *, told: bool = True) -> None:
        """A trade happens; whether the stream tells of it."""
        self.listing.ticks.append(tick(number, at(second)))
        if told:
            await self.market.take(quote(self.listing.ticks[-1]))

    async def repair(self) -> None:
        self.now_ns = at(60)
        await repair(self.host, self.market)

    def seconds(self) -> dict[int, int]:
        """Of each second that has a row how many trades there were in it."""
        got = self._snapshot()
        return {int(row["time"]) - BEGIN_NS // NS: int(row["count"]) for row in got}

    def placeholders(self) -> int:
        return int((self._snapshot()["flags"] & PLACEHOLDER > 0).sum())

    def _snapshot(self) -> Any:
        namespace = self.host.engine.namespace
        with pk.attach_bars("abcusd.acme", namespace=namespace) as bars:
            return bars.snapshot(100)


@pytest.fixture
def scene(namespace: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with open_host(namespace) as host:
        made = Scene(host)
        monkeypatch.setattr(market_feed, "time", made, raising=True)
        monkeypatch.setattr(made, "monotonic", time.monotonic, raising=False)
        yield made


# The clock is late


async def test_what_was_told_between_two_losses_is_not_lost_though_no_clock_steps(
    scene: Scene,
) -> None:
    await scene.begin()
    market = scene.market
    market.down("cut", at(1.6))
    market.up(at(1.8))
    market.down("cut again", at(4.3))
    market.up(at(4.6))
    scene.step(5)
    assert gaps(scene.host) == [("cut", False), ("cut again", False)]
    await scene.repair()
    assert gaps(scene.host) == [("cut", True), ("cut again", True)]
    assert list(scene.seconds()) == [0, 1, 2, 3, 4, 5] and not scene.placeholders()


async def test_what_is_fetched_while_it_is_down_makes_no_loss_before_it(
    scene: Scene,
) -> None:
    await scene.begin()
    market = scene.market
    market.down("cut", at(1.6))
    market.up(at(1.8))
    market.down("cut again", at(4.3))
    await scene.trade(3, 5.4, told=False)
    assert await market.fill(at(5.5), final=False)
    market.up(at(5.6))
    scene.step(6)
    await scene.repair()
    assert gaps(scene.host) == [("cut", True), ("cut again", True)]
    assert scene.seconds() == {0: 1, 1: 1, 2: 0, 3: 0, 4: 0, 5: 1, 6: 0}
    assert not scene.placeholders()


# Halts


async def test_a_halt_soon_after_a_loss_is_not_lost(scene: Scene) -> None:
    await scene.begin()
    scene.market.down("cut", at(1.6))
    scene.market.up(at(1.7))
    scene.say(1.9, trading=False, asked=1.8)
    scene.say(20.5, trading=False, asked=20.4)
    scene.say(22.5, trading=True)
    scene.step(23)
    await scene.repair()
    assert gaps(scene.host) == [("cut", True)] and not scene.placeholders()
    assert list(scene.seconds()) == [0, 1, 19, 20, 21, 22, 23]


async def test_trades_before_the_first_that_is_told_after_a_halt_have_rows(
    scene: Scene,
) -> None:
    await scene.begin()
    scene.say(2.5, trading=False, asked=2.4)
    scene.say(13.2, trading=False, asked=13.1)
    await scene.trade(3, 14.2, told=False)
    scene.now_ns = at(16.6)
    await scene.trade(4, 16.5)
    scene.market.notice_jumps(time.monotonic() + 1)
    await scene.repair()
    assert {second: n for second, n in scene.seconds().items() if n} == {
        0: 1, 1: 1, 14: 1, 16: 1,
    }  # fmt: skip
    assert scene.market.handle.statistics()["unplaced"] == 0


async def test_there_is_a_row_for_each_second_since_the_venue_said_no_last(
    scene: Scene,
) -> None:
    await scene.begin()
    scene.step(2)
    scene.say(2.5, trading=False, asked=2.4)
    scene.market.down("cut", at(2.6))
    scene.market.up(at(4.6))  # it trades again, but who knows
    await scene.repair()
    scene.say(8.1, trading=True)
    scene.step(9)
    assert list(scene.seconds()) == list(range(10)) and not scene.placeholders()


async def test_a_word_that_no_question_was_asked_for_is_a_second_late_at_most(
    scene: Scene,
) -> None:
    await scene.begin()
    scene.say(1.9, trading=False)
    scene.say(50.9, trading=True)
    scene.step(51)
    assert list(scene.seconds()) == [0, 1, 49, 50, 51]


async def test_a_market_whose_listed_trades_are_newer_than_its_halt_is_open(
    scene: Scene,
) -> None:
    await scene.begin()
    scene.say(1.9, trading=False, asked=1.8)
    scene.market.down("cut", at(1.95))
    scene.market.up(at(6.5))
    for number, second in ((3, 5.2), (4, 9.2)):
        await scene.trade(number, second, told=False)
    await scene.repair()
    assert scene.market.handle.status == "live"
    assert list(scene.seconds()) == list(range(10)) and not scene.placeholders()


async def test_a_loss_before_the_first_row_after_a_halt_is_not_all_of_the_halt(
    scene: Scene,
) -> None:
    await scene.begin()
    scene.say(1.9, trading=False, asked=1.8)
    scene.say(40.2, trading=False, asked=40.1)
    scene.say(41.2, trading=True)
    scene.market.stale()
    scene.market.down("cut", at(41.3))
    scene.market.up(at(42.6))
    scene.step(43)
    assert gaps(scene.host) == [("cut", False)]
    await scene.repair()
    assert gaps(scene.host) == [("cut", True)]
    assert list(scene.seconds()) == [0, 1, 39, 40, 41, 42, 43]
    assert not scene.placeholders()
