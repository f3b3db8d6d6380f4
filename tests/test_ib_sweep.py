"""Seconds told trade by trade beside TWS's bars: what lacks is missed and repaired."""

import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import trio
from numpy.typing import NDArray
from trio.testing import MockClock, wait_all_tasks_blocked

import piker_core as pk
from piker_core.calendars import NS
from piker_core.errors import NoData, ProviderError
from providers.ib import sweep, watch
from providers.ib.archive import Page, PastTick
from providers.ib.audit import VAIN_MOST, Audit
from providers.ib.config import Config
from providers.ib.hours import Hours
from providers.ib.known import Known, KnownTrades
from providers.ib.links import Links
from providers.ib.market_feed import MarketFeed
from providers.ib.repair import repair
from providers.ib.sweep import SOON_S, Turns, beside, compare, together
from providers.ib.tape import Tape
from tests.ib_gateway import front, open_pointed, settle, wait_until, wrong_rows
from tests.ib_listing import FUTURE

pytest.importorskip("ib_async")
D = Decimal
TOLD = {5: D(3), 6: D(0), 7: D("0.3")}
TRADES = ((9.0, 2), (9.5, 1), (9.25, 4))
"""Price and size of the trades of every second."""
MARKS = SimpleNamespace(unreported=False, pastLimit=False)


def test_seconds_of_which_less_was_told_than_is_listed_lack_something() -> None:
    assert beside(TOLD, {5: D(3), 7: D("0.3")}, 0) == (8, [])
    assert beside(TOLD, {5: D(4), 6: D(1), 7: D("0.3")}, 0) == (8, [5, 6])
    assert beside(TOLD, {5: D(3), 7: D("0.30000000000000004")}, 0) == (8, [])


def test_new_seconds_that_are_not_all_listed_yet_are_compared_later() -> None:
    assert beside(TOLD, {5: D(4), 6: D(0)}, 6) == (7, [5])
    assert beside(TOLD, {5: D(4), 6: D(0)}, 8) == (8, [5])


def test_seconds_that_are_near_each_other_are_one_gap() -> None:
    assert together([]) == []
    assert together([5, 6, 12, 40]) == [(5, 13), (40, 41)]


def test_history_is_not_to_be_had_while_its_farm_is_away() -> None:
    links = Links()
    assert links.lists
    links.take(2105, "HMDS data farm connection is broken:ushmds")
    links.take(2106, "HMDS data farm connection is OK:euhmds")
    assert not links.lists
    links.take(2107, "HMDS data farm connection is inactive:ushmds")
    assert links.lists
    links.take(1100, "Connectivity between IB and TWS has been lost")
    assert not links.lists


def test_seconds_are_of_the_subscription_that_told_them_last() -> None:
    known = KnownTrades()
    for epoch, second in ((1, 5), (2, 5), (2, 6)):
        known.put(Known(epoch, second * NS, "trade", 1.0, D(1)))
    known.epoch = 3
    assert known.epoch_of(5, 6) == known.epoch_of(4, 9) == 2
    assert known.epoch_of(7, 9) == 3


def test_markets_are_compared_regularly_and_soon_after_a_subscription_began() -> None:
    turns = Turns(300.0)
    assert not turns.is_due("a", 1, 10.0) and turns.is_due("a", 1, 10.0 + SOON_S)
    turns.take("a", 15.0)
    turns.succeed("a")
    assert not turns.is_due("a", 1, 314.0) and turns.is_due("a", 1, 315.0)
    turns.take("a", 315.0)
    assert not turns.is_due("a", 2, 320.0)  # the last time is not long ago
    assert not turns.is_due("a", 2, 374.0) and turns.is_due("a", 2, 375.0)
    for failure in range(9):
        turns.fail("a", 1000.0 * failure)
    assert not turns.is_due("a", 2, 10_300.0)  # ever less often
    assert turns.is_due("a", 2, 14_000.0)


async def test_markets_are_compared_in_turn_while_history_can_be_had(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    links = Links()

    async def note(_: object, market: Any) -> None:
        compared.append(market.symbol)
        if market.symbol == "a":
            raise ProviderError("its bars cannot be had")

    monkeypatch.setattr(sweep, "compare", note)
    markets = {name: SimpleNamespace(symbol=name, up_ns=1) for name in "ab"}
    stream: Any = SimpleNamespace(
        client=None,
        config=Config(sweep_s=20.0),
        lines=SimpleNamespace(session=SimpleNamespace(links=links)),
        markets=markets,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweep.sweep, stream)
        await trio.sleep(SOON_S + 2)
        assert compared == ["a", "b"]
        links.take(2105, "HMDS data farm connection is broken:ushmds")
        await trio.sleep(60)
        assert compared == ["a", "b"]
        links.take(2106, "HMDS data farm connection is OK:ushmds")
        await trio.sleep(2)
        assert compared == ["a", "b"] * 2
        stream.lines.session = None
        await trio.sleep(60)
        assert compared == ["a", "b"] * 2
        nursery.cancel_scope.cancel()


class Archive:
    """TWS's history: TRADES in every second from `first_s` on."""

    def __init__(self, first_s: int) -> None:
        self.first_s = first_s
        self.asked: list[tuple[int, int]] = []
        self.error: Exception | None = None
        self.more = 0.0
        self.meanwhile: Callable[[], object] = int

    async def bars(
        self, _: object, period: int, end_s: int, span_s: int
    ) -> NDArray[np.void]:
        assert period == 1
        self.asked.append((end_s - span_s, end_s))
        self.meanwhile()
        if self.error is not None:
            raise self.error
        rows = np.zeros(end_s - self.first_s, pk.OHLCV_DTYPE)
        rows["time"] = range(self.first_s, end_s)
        rows["volume"] = sum(size for _, size in TRADES) + self.more
        return rows

    async def trades(self, _: object, start_s: int) -> Page:
        ticks = [
            PastTick(second, "trade", price, D(size))
            for second in range(start_s, start_s + 20)
            for price, size in TRADES
        ]
        return Page(ticks, start_s + 20, last=False)


class Scene:
    """A market that is told trade by trade for 20 s, and lost some of them."""

    def __init__(self, engine: pk.FeedEngine) -> None:
        self.now_s = int(time.time())
        self.first_s = self.now_s - 40
        self.engine = engine
        handle = engine.add_market(f"{FUTURE.symbol}.ib")
        self.hours = Hours({}, ZoneInfo("UTC"))
        self.market = MarketFeed(
            FUTURE.symbol, FUTURE, handle, self.push, Tape(FUTURE), self.hours
        )
        self.archive = Archive(self.first_s)
        config = Config(settle_s=0.0)
        self.client: Any = SimpleNamespace(config=config, archive=self.archive)

    async def push(self, quote: dict[str, Any]) -> bool:
        self.engine.push(quote)
        return True

    async def tell(self, lost: Sequence[tuple[int, int]] = ()) -> None:
        """All trades but those lost, by second and place, counted from 0."""
        market, begun_ns = self.market, self.first_s * NS
        market.ask(begun_ns, by_tick=True)
        market.tape.decide("ticks")
        market.come_up(begun_ns)
        await market.release([], begun_ns)
        market.swept_s = self.first_s
        for second in range(21):
            told_s = self.first_s + second
            for place, (price, size) in enumerate(TRADES):
                if (second, place) not in lost:
                    trade = (2, told_s, price, float(size), MARKS)
                    market.take("tickByTickAllLast", trade, told_s * NS)
            await market.flush(told_s * NS)


@pytest.fixture
def scene(namespace: str) -> Iterator[Scene]:
    with pk.open_engine("ib", tick_capacity=1024, namespace=namespace) as engine:
        yield Scene(engine)


async def test_a_loss_that_no_volume_has_told_of_is_repaired(
    scene: Scene, namespace: str
) -> None:
    await scene.tell(lost=[(0, 2), (3, 1), (19, 0)])
    await compare(scene.client, scene.market)
    first, last = scene.market.gaps
    assert (first.next_s, first.until_s) == (scene.first_s, scene.first_s + 4)
    assert (last.next_s, last.until_s) == (scene.first_s + 19, scene.first_s + 20)
    await repair(scene.client, scene.market)
    assert scene.market.missed == 3
    with pk.attach_bars(f"{FUTURE.symbol}.ib", namespace=namespace) as bars:
        rows = bars.between(scene.first_s, scene.first_s + 20)
        assert len(rows) == 20 and bars.gaps()["repaired"].all()
    assert (rows["count"] == 3).all() and (rows["volume"] == 7).all()
    assert (rows["open"] == 9.0).all() and (rows["close"] == 9.25).all()
    await compare(scene.client, scene.market)
    assert not scene.market.gaps


async def test_each_second_is_compared_once(scene: Scene) -> None:
    await scene.tell()
    await compare(scene.client, scene.market)
    await compare(scene.client, scene.market)
    assert scene.archive.asked == [(scene.first_s, scene.first_s + 20)]
    assert scene.market.compared == 20 and not scene.market.gaps


async def test_what_was_told_is_kept_until_it_was_compared(scene: Scene) -> None:
    await scene.tell()
    market, later_s = scene.market, scene.first_s + 48
    trade = (2, later_s, 9.0, 1.0, MARKS)
    market.take("tickByTickAllLast", trade, later_s * NS)
    await market.flush(later_s * NS)
    assert market.known.size(scene.first_s) == 7
    market.swept_s = scene.first_s + 1
    market.take("tickByTickAllLast", trade, later_s * NS)
    await market.flush(later_s * NS)
    assert market.known.size(scene.first_s) == 0
    assert market.known.size(scene.first_s + 1) == 7


async def test_what_an_earlier_subscription_lacks_is_one_of_its_trades(
    scene: Scene,
) -> None:
    await scene.tell(lost=[(2, 0)])
    earlier, scene.market.known.epoch = scene.market.known.epoch, 9
    await compare(scene.client, scene.market)
    assert scene.market.gaps[0].epoch == earlier


async def test_what_was_told_by_samples_and_what_a_gap_holds_is_not_compared(
    scene: Scene,
) -> None:
    await scene.tell(lost=[(2, 0)])
    scene.market.open_audit_gap((scene.first_s + 12) * NS, (scene.first_s + 13) * NS)
    scene.market.tape.sampled_s = scene.first_s + 4
    await compare(scene.client, scene.market)
    assert scene.archive.asked == [(scene.first_s + 4, scene.first_s + 10)]
    assert len(scene.market.gaps) == 1


async def test_what_another_has_missed_meanwhile_is_one_gap(scene: Scene) -> None:
    await scene.tell(lost=[(9, 0), (15, 0)])
    gap_ns = (scene.first_s + 14) * NS
    scene.archive.meanwhile = lambda: scene.market.open_audit_gap(gap_ns, gap_ns)
    await compare(scene.client, scene.market)
    assert [gap.sweep for gap in scene.market.gaps] == [False, True]
    assert scene.market.swept_s == scene.market.gaps[0].next_s


async def test_a_failure_of_history_leaves_all_to_the_next_sweep(scene: Scene) -> None:
    await scene.tell(lost=[(2, 0)])
    scene.archive.error = ProviderError("no farm")
    with pytest.raises(ProviderError):
        await compare(scene.client, scene.market)
    scene.archive.error = NoData("query returned no data")
    await compare(scene.client, scene.market)  # of seconds so new it may be a delay
    assert not scene.market.gaps and scene.market.compared == 0
    scene.archive.error = None
    await compare(scene.client, scene.market)
    assert len(scene.market.gaps) == 1


async def test_seconds_that_could_not_be_compared_for_long_are_counted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.tell()
    monkeypatch.setattr(sweep, "_MOST_S", 12)
    await compare(scene.client, scene.market)
    assert scene.market.uncompared >= 10
    assert scene.market.uncompared + scene.market.compared >= 20


async def test_bars_that_are_not_of_the_trades_told_are_not_compared_for_ever(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.tell()
    scene.archive.more = 1.0  # what no list of trades has
    for second in range(VAIN_MOST):
        assert scene.market.told_by_tick
        scene.market.swept_s = scene.first_s + second
        await compare(scene.client, scene.market)
        scene.market.swept_s = scene.first_s
        await repair(scene.client, scene.market)
    assert not scene.market.told_by_tick
    assert "not compared any more" in caplog.text
    asked = len(scene.archive.asked)
    await compare(scene.client, scene.market)
    assert len(scene.archive.asked) == asked and not scene.market.gaps


async def test_what_was_told_before_historys_answer_is_no_loss_though_not_taken_yet(
    scene: Scene,
) -> None:
    await scene.tell(lost=[(19, 1)])
    market, second = scene.market, scene.first_s + 19
    market.come += 1  # it has come in, and waits
    market.open_audit_gap(second * NS, second * NS + 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(repair, scene.client, market)
        nursery.start_soon(compare, scene.client, market)
        await wait_all_tasks_blocked()
        assert market.gaps and scene.archive.asked
        price, size = TRADES[1]
        trade = (2, second, price, float(size), MARKS)
        market.take("tickByTickAllLast", trade, scene.now_s * NS)
        await market.flush(scene.now_s * NS)
        market.note_read(market.come)
    assert market.missed == 0 and not market.gaps


def test_a_market_is_sampled_only_if_its_trades_are_certain_not_to_be_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[str] = []
    stream: Any = SimpleNamespace(leave_ticks=lambda _, why: left.append(why))
    market, waiting_s = scene.market, dict[str, float]()
    clock = {"s": 0.0}
    monkeypatch.setattr("trio.current_time", lambda: clock["s"])

    def look(after_s: float) -> int:
        for _ in range(2):
            watch._watch_trades(stream, market, 0, waiting_s)
            clock["s"] += after_s
        watch._watch_trades(stream, market, 0, waiting_s)
        return len(left)

    def sample(total: int, after_s: int) -> None:
        text = f"9.0;1;{(scene.first_s + after_s) * 1000};{total};9.0;true"
        market.take("tickString", (48, text), (scene.first_s + after_s) * NS)
        market.tape.flush((scene.first_s + after_s) * NS)

    market.ask(scene.first_s * NS, by_tick=True)
    sample(50, 1)
    assert look(60.0) == 0  # it may have been traded before the line began
    sample(51, 3)
    assert look(watch.DECIDE_S) == 0  # the message of one may be lost
    sample(52, 4)
    sample(53, 5)
    market.go_down("cut", scene.first_s * NS)
    assert look(60.0) == 0  # nothing can be told
    market.come_up((scene.first_s + 6) * NS)
    for total in range(54, 58):
        sample(total, total - 46)
    assert look(watch.DECIDE_S) == 1


async def test_a_return_so_short_that_no_clock_steps_leaves_nothing_on_record(
    scene: Scene, namespace: str
) -> None:
    await scene.tell()
    market, step = scene.market, scene.engine.step
    at_ns = [scene.first_s * NS + round(second * NS) for second in (21, 24.6, 26.6)]
    step(at_ns[0])
    market.go_down("cut", at_ns[0])
    step(at_ns[0] + 2 * NS)
    for begun_ns in at_ns[1:]:
        market.ask(begun_ns, by_tick=True)
        market.tape.decide("ticks")
        market.come_up(begun_ns)
        if begun_ns == at_ns[1]:
            market.go_down("cut", begun_ns + 2 * NS - 100)
    step(at_ns[2] + 3 * NS)
    await repair(scene.client, market)
    with pk.attach_bars(f"{FUTURE.symbol}.ib", namespace=namespace) as bars:
        open_gaps = [gap for gap in bars.gaps().tolist() if not gap[3]]
        rows = bars.snapshot(bars.head - bars.first)
    assert open_gaps == [] and len(rows) == 30
    assert not (rows["flags"] & int(pk.BarFlag.SYNTHETIC_GAP)).any()


async def test_what_was_held_when_a_first_start_failed_was_not_told(
    scene: Scene,
) -> None:
    market, begun_ns = scene.market, scene.first_s * NS
    market.ask(begun_ns, by_tick=True)
    market.tape.decide("ticks")
    market.come_up(begun_ns)
    trade = (2, scene.first_s, *TRADES[0], MARKS)
    market.take("tickByTickAllLast", trade, begun_ns)
    await market.flush(begun_ns)
    assert market.held and market.known.size(scene.first_s) == 2
    market.go_down("refused (10197)", begun_ns)
    assert not market.held and market.known.size(scene.first_s) == 0


async def test_losses_that_only_bars_tell_of_are_found_by_a_feed(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Audit, "look", lambda *_: 0)
    patient = {"sweep_s": 0.5, "history_requests": 1000, "burst_requests": 90}
    async with open_pointed(monkeypatch, settings=patient) as venue:
        fqme, symbol = front(venue)
        async with pk.open_feed([fqme]) as feed:
            flume = feed.flumes[fqme]
            await settle(flume)
            before_s = time.time()
            venue.faults.drop(0.2)
            await wait_until(lambda: venue.faults.done["drop"] > 10)
            venue.faults.drop(0.0)
            await wait_until(lambda: len(flume.rt.gaps()))
            await wait_until(lambda: time.time() > before_s + 4)
            await wait_until(lambda: flume.rt.gaps()["repaired"].all())
            await wait_until(
                lambda: not wrong_rows(venue, flume.rt, symbol, settled_s=3.0)
            )
            assert feed.statistics()[fqme]["stream"]["missed"] > 0
