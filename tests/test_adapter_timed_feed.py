"""Markets without trade ids: intervals rebuilt by time, edges told apart."""

import random
import time
from collections import Counter
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import piker_core as pk
from piker_core.adapter.continuity import TickLog, take_new
from piker_core.adapter.repair import is_silent, repair
from piker_core.adapter.timed_feed import TimedMarketFeed
from tests.adapter_host import NS, Host, Listing, gaps, open_host, quote, rows, volumes

Clock = trio.testing.MockClock
NOW_NS = time.time_ns() // (60 * NS) * 60 * NS - 300 * NS


def trade(time_ns: int, price: float = 100.0, size: float = 1.0) -> dict[str, Any]:
    """A trade without an id."""
    return {"type": "trade", "price": price, "size": size, "time_ns": time_ns}


def cut(one: dict[str, Any]) -> dict[str, Any]:
    """The same as the list has it, in whole seconds."""
    return one | {"time_ns": one["time_ns"] // NS * NS}


def add(host: Host, listing: Listing | None, resolution_ns: int = 1) -> TimedMarketFeed:
    handle = host.engine.add_market("abcusd.acme", capacity={1: 4096, 60: 4096})
    market = TimedMarketFeed(
        "abcusd", handle, host, trades=listing, resolution_ns=resolution_ns
    )
    host.markets.append(market)
    return market


async def begin(host: Host, market: TimedMarketFeed, *ticks: Any) -> None:
    """Go live with the running minute known: these trades of it."""
    market.up(NOW_NS)
    await market.release(rows(list(ticks)), now_ns=NOW_NS)


# Telling trades apart


@given(
    st.lists(st.integers(0, 3)),
    st.lists(st.integers(0, 3)),
)
def test_of_equal_ones_as_many_are_new_as_there_are_more(
    seen: list[int], listed: list[int]
) -> None:
    def keys(numbers: list[int]) -> list[Any]:
        return [(number, 1.0, 1.0) for number in numbers]

    new = take_new(keys(listed), Counter(keys(seen)))
    fresh = Counter(n for n, wanted in zip(listed, new, strict=True) if wanted)
    assert fresh == Counter(listed) - Counter(seen)


def test_a_log_keeps_the_newest_and_counts_in_steps() -> None:
    log = TickLog(NS, 10 * NS)
    for second in range(30):
        log.see(second * NS + 5, 1.0, 2.0)
    assert log.newest_ns == 29 * NS + 5
    assert set(log.since(0)) == {(second, 1.0, 2.0) for second in range(19, 30)}
    assert set(log.since(28 * NS + 6)) == {(29, 1.0, 2.0)}
    assert log.keys(rows([trade(7 * NS + 999)])) == [(7, 100.0, 1.0)]


# Gaps


async def test_a_lost_interval_is_rebuilt_and_its_edges_are_not_counted_twice(
    namespace: str, autojump_clock: Clock
) -> None:
    with open_host(namespace) as host:
        truth = [trade(NOW_NS + n * NS // 2, price=100.0 + n % 3) for n in range(40)]
        listing = Listing(*map(cut, truth))
        market = add(host, listing, resolution_ns=NS)
        await begin(host, market)
        for one in truth[:11]:  # in the middle of a second
            await market.take(quote(one))
        market.down("cut", NOW_NS + 6 * NS)
        market.up(NOW_NS + 12 * NS)
        for one in truth[25:]:
            await market.take(quote(one))
        assert gaps(host) == [("cut", False)]
        await repair(host, market)
        assert gaps(host) == [("cut", True)] and not market.incomplete
        assert volumes(host) == {NOW_NS // NS + n: 2.0 for n in range(20)}
        ((since_ns, until_ns, first_id),) = listing.asked
        assert since_ns < NOW_NS + 5 * NS and until_ns > NOW_NS + 12 * NS
        assert first_id == -1


@pytest.mark.parametrize("seed", range(6))
async def test_any_loss_at_any_time_is_made_good(
    seed: int, namespace: str, autojump_clock: Clock
) -> None:
    rng = random.Random(seed)
    with open_host(namespace) as host:
        times = sorted(rng.randrange(200 * NS) for _ in range(900))
        truth = [
            trade(NOW_NS + at, price=100.0 + rng.randrange(3), size=rng.choice([1, 2]))
            for at in times
        ]
        listing = Listing(*map(cut, truth))
        market = add(host, listing, resolution_ns=NS)
        await begin(host, market)
        lost, repairs = False, 0
        for number, one in enumerate(truth):
            host.engine.step(one["time_ns"])
            if rng.random() < 0.03 and number > 5:
                lost = not lost
                if lost:
                    market.down("cut", one["time_ns"])
                else:
                    market.up(one["time_ns"])
            if not lost:
                await market.take(quote(one))
            over = all(gap.until_ns <= one["time_ns"] for gap in market.gaps)  # type: ignore[attr-defined]
            if market.gaps and over and rng.random() < 0.1:
                await repair(host, market)
                repairs += 1
        if lost:
            market.up(truth[-1]["time_ns"] + NS)
        await repair(host, market)
        assert all(repaired for _, repaired in gaps(host)) and len(gaps(host)) > 5
        assert repairs > 2
        wanted: Counter[int] = Counter()
        for one in truth:
            wanted[one["time_ns"] // NS] += one["size"]
        assert volumes(host) == wanted


async def test_a_list_is_read_when_it_has_settled(
    namespace: str, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock() -> int:
        return NOW_NS + int(trio.current_time() * NS)

    with (
        open_host(namespace, repair_settle_s=7.0, repair_edge_s=2.0) as host,
        monkeypatch.context() as patch,
    ):
        patch.setattr("piker_core.adapter.timed_feed.time.time_ns", clock)
        listing = Listing()
        market = add(host, listing, resolution_ns=NS)
        await begin(host, market, trade(NOW_NS))
        market.down("cut", NOW_NS)
        market.up(NOW_NS + 60 * NS)
        await repair(host, market)
        assert trio.current_time() == pytest.approx(60 + 2 + 1 + 7, abs=0.01)
        assert len(listing.asked) == 1


async def test_a_repair_that_is_broken_off_counts_nothing_twice(
    namespace: str, autojump_clock: Clock
) -> None:
    with open_host(namespace) as host:
        truth = [trade(NOW_NS + n * NS // 50) for n in range(200)]
        listing = Listing(*truth)
        market = add(host, listing)
        await begin(host, market, truth[0])
        market.down("cut", NOW_NS)
        market.up(NOW_NS + 5 * NS)
        send, sent = host.send, []

        async def fill_up(given: Any) -> bool:
            sent.append(given)
            if len(sent) == 3:
                raise OSError(28, "/dev/shm is full")
            return await send(given)

        host.send = fill_up  # type: ignore[method-assign,assignment]
        await repair(host, market)
        assert len(listing.asked) == 2
        assert sum(volumes(host).values()) == 200 and gaps(host) == [("cut", True)]


async def test_what_cannot_be_listed_stays_on_record(namespace: str) -> None:
    with open_host(namespace) as host:
        listing = Listing(trade(NOW_NS + NS))
        listing.hole_ns = NOW_NS
        market = add(host, listing)
        await begin(host, market, trade(NOW_NS))
        market.down("cut", NOW_NS)
        market.up(NOW_NS + 2 * NS)
        await repair(host, market)
        assert gaps(host) == [("cut", False)] and not market.incomplete


async def test_after_a_restart_no_trade_counts_twice(
    namespace: str, autojump_clock: Clock
) -> None:
    truth = [trade(NOW_NS + n * NS // 4) for n in range(40)]
    with open_host(namespace) as host:
        market = add(host, Listing(), resolution_ns=NS)
        await begin(host, market)
        for one in truth[:8]:
            await market.take(quote(one))
    with open_host(namespace) as host:
        market = add(host, Listing(*map(cut, truth)), resolution_ns=NS)
        market.up(NOW_NS + 10 * NS)
        await repair(host, market)
        assert gaps(host) == [("restart", True)]
        assert volumes(host) == {NOW_NS // NS + n: 4.0 for n in range(10)}


# The first minute, silence


async def test_the_running_minute_and_what_was_held_are_told_once(
    namespace: str,
) -> None:
    with open_host(namespace) as host:
        truth = [trade(NOW_NS + n * NS // 2) for n in range(20)]
        market = add(host, Listing(), resolution_ns=NS)
        market.up(NOW_NS + 8 * NS)
        for one in truth[12:]:
            await market.take(quote(one))
        listed = rows([cut(one) for one in truth[:17]])  # the others come too late
        await market.release(listed, now_ns=NOW_NS + 8 * NS)
        assert volumes(host) == {NOW_NS // NS + n: 2.0 for n in range(10)}
        assert market.handle.status == "live" and gaps(host) == []


async def test_the_list_shows_whether_the_stream_is_silent(namespace: str) -> None:
    with open_host(namespace) as host:
        listing = Listing(trade(NOW_NS), trade(NOW_NS + NS))
        market = add(host, listing, resolution_ns=NS)
        assert not await is_silent(host, market)
        await begin(host, market, *listing.ticks)
        assert not await is_silent(host, market)
        listing.ticks.append(trade(NOW_NS + 5 * NS))
        assert await is_silent(host, market)


async def test_without_a_list_a_market_is_live_at_once(namespace: str) -> None:
    with open_host(namespace) as host:
        market = add(host, None)
        market.up(time.time_ns())
        assert market.handle.status == "live"
        await market.take(quote(trade(time.time_ns())))
        with pk.attach_bars("abcusd.acme", period=1, namespace=namespace) as bars:
            assert bars.last()["volume"] == 1.0
