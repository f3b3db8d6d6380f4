"""Feeds that ask the writer for markets, in processes that are killed and closed."""

import os
from collections.abc import Callable, Iterator

import fakevenue
import pytest
import trio

import piker_core as pk
from tests.askers import Asker, Askers, Ids, ended, opened, wait_until

A, B, C = (f"{name}usd.fakevenue" for name in ("aaa", "bbb", "ccc"))


@pytest.fixture(autouse=True)
def plan(namespace: str, monkeypatch: pytest.MonkeyPatch) -> fakevenue.Plan:
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    fakevenue.plan.__init__()  # type: ignore[misc]
    return fakevenue.plan


@pytest.fixture
def askers(plan: fakevenue.Plan) -> Iterator[Askers]:
    with Askers() as askers:
        yield askers


async def test_a_market_that_the_writer_does_not_feed_is_asked_for(
    askers: Askers,
) -> None:
    async with pk.open_feed([A]) as feed:
        asker = await askers.open(A, B)
        told = asker.event("open") or {}
        assert told["roles"] == {"fakevenue": "reader"}
        assert told["quotes"][B]["last"] == 100.0 and told["quotes"][B]["fqme"] == B
        assert told["quotes"][A]["last"] > 0
        assert feed.roles == {"fakevenue": "writer"}
        with pk.attach_bars(B) as bars:
            assert bars.status == "live"
        await Ids(B).more()
        assert set(fakevenue.plan.sent) == {"aaausd", "bbbusd"}
        assert fakevenue.plan.sessions == 2


async def test_a_second_feed_of_the_same_process_asks_like_any_other() -> None:
    async with pk.open_feed([A]) as one:
        async with pk.open_feed([B]) as two:
            assert two.roles == {"fakevenue": "reader"}
            assert two.flumes[B].status == "live"
        await wait_until(lambda: two.roles and fakevenue.plan.sessions == 2)
        with pk.attach_bars(B) as bars:
            await wait_until(lambda: bars.status == "stopped")
        assert one.flumes[A].status == "live"


@pytest.mark.parametrize("end", [Asker.kill, Asker.close])
async def test_a_market_is_dropped_with_its_last_asker_and_no_other_is_disturbed(
    end: Callable[[Asker], None], askers: Askers
) -> None:
    async with pk.open_feed([A]):
        one, two = await askers.open(B, C), await askers.open(B)
        kept, left = Ids(A), Ids(B)
        with pk.attach_bars(B) as bars, pk.attach_bars(C) as other:
            end(one)
            await wait_until(lambda: other.status == "stopped")
            await left.more()  # somebody is there
            assert bars.status == "live"
            end(two)
            await wait_until(lambda: bars.status == "stopped")
            sent = len(fakevenue.plan.sent["bbbusd"])
            await kept.more(20)
            assert len(fakevenue.plan.sent["bbbusd"]) == sent
            assert len(bars.snapshot(10)) and bars.generation == 1
        kept.assert_whole()
        left.assert_whole()
        assert fakevenue.plan.sessions == 2


async def test_a_market_that_is_dropped_is_not_back_filled_any_more() -> None:
    async def get_ohlc(*arguments: object, **options: object) -> None:
        await trio.sleep_forever()

    fakevenue.plan.history = get_ohlc
    async with pk.open_feed([A]):
        async with pk.open_feed([B]):
            await wait_until(lambda: len(fakevenue.plan.histories_open) == 2)
        await wait_until(lambda: fakevenue.plan.histories_open == ["aaausd"])
        async with pk.open_feed([B]):
            await wait_until(lambda: len(fakevenue.plan.histories_open) == 2)


async def test_a_call_goes_on_for_the_markets_that_are_left_of_it(
    askers: Askers,
) -> None:
    fakevenue.plan.tells = True
    async with pk.open_feed([A]):
        both = await askers.open(B, C)
        await askers.open(B)
        kept = Ids(B)
        with pk.attach_bars(C) as dropped:
            both.kill()
            await wait_until(lambda: dropped.status == "stopped")
            ids = Ids(C)
            await kept.more(20)  # the venue goes on telling of both
            assert ids.poll() == []
            assert len(fakevenue.plan.sent["cccusd"]) > dropped.statistics()["ticks"]
            again = await askers.open(C)
            await ids.more()
            assert dropped.status == "live" and dropped.generation == 1
            again.kill()
            await wait_until(lambda: dropped.status == "stopped")
        kept.assert_whole()
        ids.assert_whole()
        assert fakevenue.plan.sessions == 3


async def test_a_market_asked_for_again_goes_on_with_a_gap_on_record(
    askers: Askers,
) -> None:
    async with pk.open_feed([A]):
        asker = await askers.open(B)
        with pk.attach_bars(B) as bars:
            await Ids(B).more()
            asker.kill()
            await wait_until(lambda: bars.status == "stopped")
            time_s, head = int(bars.last()["time"]), bars.head
            await trio.sleep(2.1)
            assert bars.head == head  # no row is invented meanwhile
            await askers.open(B)
            await wait_until(lambda: len(bars.gaps()))
            [gap] = bars.gaps()
            assert gap["start_ns"] >= time_s * 10**9 and not gap["repaired"]
            assert bars.generation == 1
            rows = bars.snapshot(100)
            assert rows["time"].tolist() == list(
                range(rows["time"][0], rows["time"][0] + len(rows))
            )


@pytest.mark.parametrize(
    ("symbol", "kind", "text"),
    [
        ("nosuch", "NotFound", "fakevenue has no market 'nosuch'"),
        ("refused", "ProviderError", "fakevenue refuses refused"),
    ],
)
async def test_what_the_provider_says_no_to_is_the_askers_error_alone(
    symbol: str, kind: str, text: str, askers: Askers, caplog: pytest.LogCaptureFixture
) -> None:
    async with pk.open_feed([A]) as feed:
        kept = Ids(A)
        asker = await askers.start(B, f"{symbol}.fakevenue")
        error = await ended(asker)
        assert (error["kind"], error["text"]) == (kind, text)
        await askers.open(B)
        await kept.more()
        kept.assert_whole()
        assert feed.flumes[A].status == "live"
    assert not caplog.records


async def test_a_market_without_a_first_quote_is_the_askers_error_alone(
    askers: Askers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pk.open_feed([A]):
        monkeypatch.setenv("PIKER_FEED__FIRST_QUOTE_S", "0.3")
        monkeypatch.setattr("piker_core.feeder.LIVE_S", 0.0)
        with Askers() as hasty:
            asker = await hasty.start("muteusd.fakevenue")
            error = await ended(asker)
        assert error["kind"] == "FeedError"
        assert "no first quote of muteusd within 0.3 s" in error["text"]
        await askers.open(B)


async def test_a_call_that_ends_is_begun_again_and_touches_no_others_markets(
    askers: Askers,
) -> None:
    async with pk.open_feed([A]) as feed:
        kept, statuses = Ids(A), set()
        fakevenue.plan.fail_at = [5, 0]
        await askers.open(B)
        with pk.attach_bars(B) as bars:
            await wait_until(lambda: bars.status == "reconnecting")
            while fakevenue.plan.sessions < 4:
                statuses.add(feed.flumes[A].status)
                await kept.more(1)
            await wait_until(lambda: bars.status == "live")
        await Ids(B).more()
        kept.assert_whole()
        assert statuses == {"live"}


async def test_two_that_ask_for_a_market_at_once_share_it(askers: Askers) -> None:
    async with pk.open_feed([A]):
        many = [await askers.start(B) for _ in range(6)]
        for asker in many:
            await opened(asker)
        assert fakevenue.plan.sessions == 2
        ids = Ids(B)
        for asker in many[1:]:
            asker.kill()
        await ids.more()
        ids.assert_whole()


async def test_ones_error_is_not_anothers_who_asked_for_part_of_it() -> None:
    async def ask_too_much() -> None:
        with pytest.raises(pk.ProviderError, match="refuses refused"):
            async with pk.open_feed([B, "refused.fakevenue"]):
                raise AssertionError("it opened")

    async def ask() -> None:
        async with pk.open_feed([B]) as feed:
            assert feed.flumes[B].status == "live"

    fakevenue.plan.quiet = True
    async with pk.open_feed([A]):
        fakevenue.plan.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_too_much)
            await wait_until(lambda: fakevenue.plan.sessions == 2)
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.05)  # both wait for one call
            fakevenue.plan.gate.set()
    assert fakevenue.plan.sessions == 3


async def test_an_asker_that_dies_while_it_waits_leaves_nothing(askers: Askers) -> None:
    async with pk.open_feed([A]):
        kept = Ids(A)
        for _ in range(5):
            count = fakevenue.plan.sessions
            asker = await askers.start("muteusd.fakevenue")
            await wait_until(lambda n=count: fakevenue.plan.sessions > n)
            asker.kill()
            with pk.attach_bars("muteusd.fakevenue") as bars:
                await wait_until(lambda bars=bars: bars.status == "stopped")
        await kept.more()
        kept.assert_whole()


async def test_asking_and_dying_again_and_again_leaves_nothing(askers: Askers) -> None:
    async with pk.open_feed([A]):
        kept, ids = Ids(A), None
        tasks = trio.lowlevel.current_statistics().tasks_living
        for number in range(50):
            asker = await askers.start(B)
            if number % 5:  # else it dies right after asking
                await opened(asker)
                ids = ids or Ids(B)
            asker.kill()
        with pk.attach_bars(B) as bars:
            await wait_until(lambda: bars.status == "stopped")
            assert bars.generation == 1
        await wait_until(
            lambda: trio.lowlevel.current_statistics().tasks_living <= tasks
        )
        await askers.open(B)
        assert ids is not None
        await ids.more()
        ids.assert_whole()
        await kept.more()
        kept.assert_whole()
