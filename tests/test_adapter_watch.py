"""The watch over markets: one market's trouble is its own."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from piker_core.adapter import market_feed
from piker_core.adapter.market_feed import MarketFeed
from piker_core.adapter.watch import watch
from tests.adapter_host import NS, Host, Listing, gaps, open_host, quote, rows, tick
from tests.adapter_socket import wait_until


def add(host: Host, symbol: str, listing: Listing | None) -> MarketFeed:
    handle = host.engine.add_market(f"{symbol}.acme", capacity={1: 4096, 60: 4096})
    market = MarketFeed(symbol, handle, host, trades=listing)
    host.markets.append(market)
    return market


@asynccontextmanager
async def open_watch(host: Host) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, host, nursery)
        yield
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("piker_core.adapter.watch.LOOK_S", 0.01)


class Broken(Listing):
    """A list that breaks the code: at its start, or with each page."""

    async def walk(self, since_ns: int, until_ns: int, first_id: int) -> Any:
        self.asked.append((since_ns, until_ns, first_id))
        await trio.lowlevel.checkpoint()
        raise KeyError("a bug")
        yield


async def test_a_first_minute_whose_fetch_breaks_is_a_gap_and_others_go_on(
    namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_host(namespace) as host:
        now_ns = time.time_ns()
        bad, good = add(host, "bad", Broken()), add(host, "good", Listing())
        async with open_watch(host):
            for market in (bad, good):
                market.up(now_ns)
                given = quote(tick(1, now_ns), symbol=market.symbol)
                await market.take(given)
            for market in (bad, good):
                await wait_until(lambda m=market: m.handle.status == "live")
            await wait_until(lambda: not bad.gaps)
            assert bad.handle.last_id == good.handle.last_id == 1
        assert gaps(host, "bad") == [("start", False)] and gaps(host, "good") == []
    assert "repair failed: KeyError" in caplog.text


async def test_a_repair_that_breaks_leaves_the_gap_on_record_and_the_market_live(
    namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_host(namespace) as host:
        now_ns = time.time_ns()
        bad = add(host, "bad", Broken())
        good = add(host, "good", Listing(tick(1, now_ns), tick(2, now_ns + 1)))
        for market in (bad, good):
            market.up(now_ns)
            await market.release(None, now_ns=now_ns + 2)
            await market.take(quote(tick(2, now_ns + 1), symbol=market.symbol))
        async with open_watch(host):
            await wait_until(lambda: not bad.gaps and not good.gaps)
            await bad.take(quote(tick(3, now_ns + 3), symbol="bad"))
        assert bad.handle.status == "live" and bad.handle.last_id == 3
        assert gaps(host, "bad") == [("start", False)]
        assert gaps(host, "good") == [("start", True)]


async def test_a_market_that_failed_is_tried_again(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(market_feed, "_RETRY_S", (0.05, 0.05))
    with open_host(namespace) as host:
        now_ns = time.time_ns()
        market = add(host, "bad", Listing(*(tick(n, now_ns + n) for n in range(1, 4))))
        market.up(now_ns)
        await market.release(None, now_ns=now_ns)
        market.fail("a test", RuntimeError("x"))
        async with open_watch(host):
            await wait_until(lambda: market.handle.status == "live")
            await wait_until(lambda: not market.gaps)
        assert ("failed: RuntimeError", True) in gaps(host, "bad")


async def test_a_market_that_failed_is_not_live_while_its_connection_is_lost(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(market_feed, "_RETRY_S", (0.01, 0.01))
    with open_host(namespace) as host:
        market, other = add(host, "bad", Listing()), add(host, "good", Listing())
        market.up(time.time_ns())
        await market.release(None, now_ns=time.time_ns())
        market.fail("a test", RuntimeError("x"))
        market.down("cut", time.time_ns())
        async with open_watch(host):
            other.up(time.time_ns())
            await wait_until(lambda: other.handle.status == "live")
            await trio.sleep(0.1)  # for a try that must not come
        assert market.handle.status == "reconnecting"


async def test_trades_held_that_break_the_code_stop_that_market_alone(
    namespace: str,
) -> None:
    with open_host(namespace) as host:
        bad, good = add(host, "bad", Listing()), add(host, "good", Listing())
        async with open_watch(host):
            for market in (bad, good):
                market.up(time.time_ns())
            given = quote(tick(1, time.time_ns()), symbol="bad")
            del given["ticks"][0]["id"]
            await bad.take(given)
            await wait_until(lambda: bad.handle.status == "stopped")
            await wait_until(lambda: good.handle.status == "live")
        assert bad.reason == "what was held could not be told: KeyError('id')"


async def test_the_hold_ends_when_its_time_is_up(namespace: str) -> None:
    class Slow(Listing):
        async def walk(self, since_ns: int, until_ns: int, first_id: int) -> Any:
            await trio.sleep_forever()
            yield

    with open_host(namespace, hold_s=0.05) as host:
        market = add(host, "slow", Slow())
        async with open_watch(host):
            market.up(time.time_ns())
            await market.take(quote(tick(1, time.time_ns()), symbol="slow"))
            await wait_until(lambda: market.handle.status == "live")
            assert market.handle.last_id == 1
        assert gaps(host, "slow") == [("start", False)]


async def test_a_fetch_for_a_session_that_is_over_ends_no_other_hold(
    namespace: str,
) -> None:
    class Stepped(Listing):
        def __init__(self) -> None:
            super().__init__()
            self.turns = [trio.Event(), trio.Event()]

        async def walk(self, since_ns: int, until_ns: int, first_id: int) -> Any:
            turn = self.turns[len(self.asked)]
            self.asked.append((since_ns, until_ns, first_id))
            await turn.wait()
            yield rows([]), 0

    with open_host(namespace, hold_s=600.0) as host:
        listing = Stepped()
        market = add(host, "abc", listing)
        async with open_watch(host):
            market.up(time.time_ns())
            await wait_until(lambda: listing.asked)
            market.down("cut", time.time_ns())
            market.up(time.time_ns())
            listing.turns[0].set()
            await wait_until(lambda: len(listing.asked) == 2)
            assert market.held is not None
            listing.turns[1].set()
            await wait_until(lambda: market.handle.status == "live")
        assert gaps(host, "abc") == []


async def test_a_watch_that_breaks_stops_that_market_alone(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_host(namespace) as host:
        bad, good = add(host, "bad", Listing()), add(host, "good", Listing())

        def stumble(noticed_before_s: float) -> None:
            raise KeyError("a bug")

        monkeypatch.setattr(bad, "notice_jumps", stumble)
        async with open_watch(host):
            good.up(time.time_ns())
            await wait_until(lambda: bad.handle.status == "stopped")
            await wait_until(lambda: good.handle.status == "live")
        assert bad.reason == "the watch of it failed: KeyError('a bug')"


async def test_suspicion_that_lasts_and_a_list_with_news_make_the_stream_dead(
    namespace: str,
) -> None:
    with open_host(namespace, suspect_s=0.05, audit_grace_s=0.01) as host:
        before_ns = time.time_ns() - NS
        listing = Listing(tick(1, before_ns), tick(2, before_ns + 1))
        market = add(host, "abc", listing)
        market.up(before_ns)
        await market.release(None, now_ns=before_ns)
        market.give_up("a test")
        await market.take(quote(tick(1, before_ns), symbol="abc"))
        market.suspect_s = time.monotonic()
        async with open_watch(host):
            await wait_until(lambda: host.abandoned)
        assert host.abandoned == ["no trades of abc, though it trades"]
