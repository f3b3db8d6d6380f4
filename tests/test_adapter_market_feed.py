"""One market: its first minute, its gaps, its repair, its own troubles."""

import errno
import logging
import time
from typing import Any

import pytest
import trio

import piker_core as pk
from piker_core.adapter.market_feed import EVER_NS, MarketFeed, best_ticks
from piker_core.adapter.repair import fetch_seam, is_silent, repair
from tests.adapter_host import (
    NS,
    Host,
    Listing,
    gaps,
    open_host,
    quote,
    rows,
    tick,
    volumes,
)

NOW_NS = time.time_ns() // (60 * NS) * 60 * NS - 300 * NS
"""The begin of a minute, some minutes ago."""


def add(host: Host, listing: Listing | None = None, **more: Any) -> MarketFeed:
    """A market of the host; it holds nothing once it is up if there is no list."""
    handle = host.engine.add_market("abcusd.acme", capacity={1: 4096, 60: 4096})
    market = MarketFeed("abcusd", handle, host, trades=listing, **more)
    host.markets.append(market)
    return market


async def begin(host: Host, market: MarketFeed, *ticks: Any) -> None:
    """Go live with the running minute known: these trades of it."""
    market.up(NOW_NS)
    await market.release(rows(list(ticks)), now_ns=NOW_NS)


# The first minute


async def test_what_comes_in_during_the_first_fetch_is_held_and_told_once(
    namespace: str,
) -> None:
    with open_host(namespace) as host:
        listing = Listing(*(tick(n, NOW_NS + n * NS) for n in range(1, 6)))
        market = add(host, listing)
        market.up(NOW_NS + 6 * NS)
        assert market.handle.status == "backfilling" and market.reason
        await market.take(quote(tick(5, NOW_NS + 5 * NS), tick(6, NOW_NS + 6 * NS)))
        assert market.handle.last_id == 0
        trades = await fetch_seam(host, market)
        await market.release(trades, now_ns=NOW_NS + 6 * NS)
        assert market.handle.status == "live" and market.reason == ""
        await market.take(quote(tick(7, NOW_NS + 7 * NS)))
        assert volumes(host) == {NOW_NS // NS + n: 1.0 for n in range(1, 8)}
        assert gaps(host) == [] and not market.incomplete


async def test_what_comes_in_while_the_minute_is_pushed_comes_behind_it(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_host(namespace) as host:
        market = add(host, Listing())
        live = [tick(n, NOW_NS + 5 * NS + n) for n in range(300, 303)]
        pushed: list[int] = []
        send = host.send

        async def send_slowly(quote_: Any) -> bool:
            done = await send(quote_)
            pushed.extend(each["id"] for each in quote_["ticks"])
            if live:  # another task's frame
                await market.take(quote(live.pop(0)))
            return done

        monkeypatch.setattr(host, "send", send_slowly)
        market.up(NOW_NS)
        await market.take(quote(tick(299, NOW_NS + 4 * NS)))
        listed = [tick(n, NOW_NS + n * NS // 100) for n in range(100, 300)]
        await market.release(rows(listed), now_ns=NOW_NS + 4 * NS)
        await market.take(quote(tick(303, NOW_NS + 6 * NS)))
        assert pushed == list(range(100, 304)) and not market.incomplete
        assert market.handle.statistics()["late"] == 0


async def test_trades_from_before_the_minute_are_no_news_and_not_missing(
    namespace: str,
) -> None:
    with open_host(namespace) as host:
        market = add(host, Listing())
        market.up(NOW_NS)
        old = [tick(n, NOW_NS - NS) for n in (40, 41)]
        await market.take(quote(*old, tick(44, NOW_NS + NS)), repeated=True)
        await market.release(
            rows([*old, tick(42, NOW_NS - 1), tick(43, NOW_NS)]), now_ns=NOW_NS
        )
        assert set(volumes(host)) == {NOW_NS // NS, NOW_NS // NS + 1}
        assert not market.tracker.missing


async def test_a_minute_that_cannot_be_fetched_is_a_gap(namespace: str) -> None:
    with open_host(namespace) as host:
        listing = Listing(tick(8, NOW_NS + NS))
        listing.errors = [pk.ProviderError("away")]
        market = add(host, listing)
        market.up(NOW_NS + 5 * NS)
        await market.take(quote(tick(9, NOW_NS + 5 * NS)))
        assert await fetch_seam(host, market) is None
        await market.release(None, now_ns=NOW_NS + 5 * NS)
        assert gaps(host) == [("start", False)] and market.handle.status == "live"
        await repair(host, market)
        assert gaps(host) == [("start", True)]
        with pk.attach_bars("abcusd.acme", period=60, namespace=namespace) as bars:
            assert bars.last()["volume"] == 2.0


# Gaps


async def test_a_clock_that_is_late_after_a_loss_does_not_make_it_longer(
    namespace: str,
) -> None:
    with open_host(namespace) as host:
        listing = Listing(*(tick(n, NOW_NS + n * NS) for n in (3, 10, 20)))
        market = add(host, listing)
        await begin(host, market, tick(3, NOW_NS + 3 * NS))
        market.down("cut", NOW_NS + 4 * NS)
        market.up(NOW_NS + 20 * NS)
        host.engine.step(NOW_NS + 23 * NS)
        assert gaps(host) == [("cut", False)]
        await repair(host, market)
        assert gaps(host) == [("cut", True)]
        with pk.attach_bars("abcusd.acme", namespace=namespace) as bars:
            flags = bars.snapshot(100)["flags"]
        assert not (flags & int(pk.BarFlag.SYNTHETIC_GAP)).any()


async def test_a_lost_interval_is_fetched_from_the_last_trade_before_it(
    namespace: str,
) -> None:
    with open_host(namespace) as host:
        listing = Listing(*(tick(n, NOW_NS + n * NS) for n in range(30)))
        market = add(host, listing)
        await begin(host, market, tick(3, NOW_NS + 3 * NS))
        market.down("cut", NOW_NS + 4 * NS)
        assert (market.handle.status, market.reason) == ("reconnecting", "cut")
        market.up(NOW_NS + 20 * NS)
        await market.take(quote(tick(20, NOW_NS + 20 * NS)))
        assert gaps(host) == [("cut", False)]
        await repair(host, market)
        assert gaps(host) == [("cut", True)] and not market.incomplete
        ((since_ns, until_ns, first_id),) = listing.asked
        assert (first_id, until_ns) == (3, EVER_NS) and since_ns <= NOW_NS + 3 * NS
        assert volumes(host) == {NOW_NS // NS + n: 1.0 for n in range(3, 30)}


async def test_a_gap_stays_open_until_the_list_has_what_was_known_before_it(
    namespace: str, autojump_clock: trio.testing.MockClock
) -> None:
    with open_host(namespace) as host:
        listing = Listing(tick(1, NOW_NS + NS))
        market = add(host, listing)
        await begin(host, market, *(tick(n, NOW_NS + n * NS) for n in (1, 2)))
        market.down("cut", NOW_NS + 3 * NS)
        market.up(NOW_NS + 9 * NS)
        assert not await market.fill(NOW_NS + 9 * NS, final=False)
        listing.ticks += [tick(2, NOW_NS + 2 * NS), tick(3, NOW_NS + 3 * NS)]
        assert not await market.fill(NOW_NS + 8 * NS, final=False)  # asked too early
        assert await market.fill(NOW_NS + 9 * NS, final=False)
        assert gaps(host) == [("cut", True)]


@pytest.mark.parametrize("rounded_ns", [-1000, 1000])
async def test_a_trade_fetched_stands_between_its_neighbours_though_lists_round(
    rounded_ns: int, namespace: str
) -> None:
    at_ns = NOW_NS + 3 * NS // 2  # one taker's order, four trades
    burst = [tick(n, at_ns, price=100.0 + n) for n in range(1, 5)]
    with open_host(namespace) as host:
        listing = Listing(*(t | {"time_ns": at_ns + rounded_ns} for t in burst))
        market = add(host, listing)
        await begin(host, market, tick(0, NOW_NS))
        for number in (2, 3):
            await market.take(quote(burst[number - 1]))
        await market.take(quote(tick(5, at_ns + NS, price=0.5)))
        market.notice_jumps(time.monotonic() + 1)
        await repair(host, market)
        with pk.attach_bars("abcusd.acme", period=1, namespace=namespace) as bars:
            row = bars.between(at_ns // NS, at_ns // NS + 1)[0]
            assert (row["count"], row["open"], row["close"]) == (4, 101.0, 104.0)


async def test_a_jump_whose_later_trade_has_an_earlier_time_is_a_gap_too(
    namespace: str,
) -> None:
    with open_host(namespace) as host:
        listing = Listing(*(tick(n, NOW_NS + (9 - n) * NS) for n in (4, 3, 2)))
        market = add(host, listing)
        await begin(host, market, tick(2, NOW_NS + 7 * NS))
        await market.take(quote(tick(4, NOW_NS + 5 * NS)))
        market.notice_jumps(time.monotonic() + 1)
        assert gaps(host) == [("trades missing in stream", False)]
        await repair(host, market)
        assert gaps(host) == [("trades missing in stream", True)]


async def test_a_listed_time_that_is_far_off_is_kept(namespace: str) -> None:
    with open_host(namespace) as host:
        listing = Listing(tick(2, NOW_NS + 9 * NS))
        market = add(host, listing)
        await begin(host, market, tick(1, NOW_NS + NS))
        await market.take(quote(tick(3, NOW_NS + 3 * NS)))
        market.notice_jumps(time.monotonic() + 1)
        await repair(host, market)
        assert NOW_NS // NS + 9 in volumes(host)


async def test_ids_that_the_list_does_not_have_in_the_end_never_were(
    namespace: str, autojump_clock: trio.testing.MockClock
) -> None:
    with open_host(namespace, repair_reads=3) as host:
        listing = Listing(*(tick(n, NOW_NS + n * NS) for n in (1, 2)))
        market = add(host, listing)
        await begin(host, market, *(tick(n, NOW_NS + n * NS) for n in (1, 2)))
        await market.take(quote(tick(5, NOW_NS + 5 * NS)))
        market.notice_jumps(time.monotonic() + 1)
        assert gaps(host) == [("trades missing in stream", False)]
        await repair(host, market)
        assert len(listing.asked) == 3 and not market.incomplete


async def test_ids_that_the_list_passes_over_never_were(namespace: str) -> None:
    with open_host(namespace) as host:
        listing = Listing(*(tick(n, NOW_NS + n * NS) for n in (1, 2, 7)))
        market = add(host, listing)
        await begin(host, market, tick(1, NOW_NS + NS))
        await market.take(quote(tick(7, NOW_NS + 7 * NS)))
        market.notice_jumps(time.monotonic() + 1)
        await repair(host, market)
        assert len(listing.asked) == 1 and not market.incomplete
        assert set(volumes(host)) == {NOW_NS // NS + n for n in (1, 2, 7)}


@pytest.mark.parametrize("what", ["a hole", "too long", "unknown", "no list"])
async def test_what_cannot_be_fetched_stays_on_record(
    what: str, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_host(namespace, repair_pages=3) as host:
        listing = Listing(*(tick(n, NOW_NS + n * NS) for n in range(1, 20)))
        market = add(host, listing)
        await begin(host, market, tick(1, NOW_NS + NS))
        market.down("cut", NOW_NS + 2 * NS)
        market.up(NOW_NS + 20 * NS)
        if what == "a hole":
            listing.hole_ns = NOW_NS + 3 * NS
        elif what == "unknown":
            listing.errors = [pk.NotFound("acme has no abcusd")]
        elif what == "no list":
            market.trades = None
        await repair(host, market)
        assert gaps(host) == [("cut", False)] and not market.incomplete
        assert "gap (cut) stays unrepaired" in caplog.text


async def test_a_venue_that_is_away_or_throttles_is_waited_for(
    namespace: str, autojump_clock: trio.testing.MockClock
) -> None:
    with open_host(namespace) as host:
        listing = Listing(*(tick(n, NOW_NS + n * NS) for n in range(1, 20)))
        listing.errors = [
            pk.ProviderError("away"),
            pk.DataThrottle("not now", retry_after=100.0),
            OSError(errno.ENOSPC, "full"),
        ]
        market = add(host, listing)
        await begin(host, market, tick(1, NOW_NS + NS))
        market.down("cut", NOW_NS + 2 * NS)
        market.up(NOW_NS + 20 * NS)
        await repair(host, market)
        assert gaps(host) == [("cut", True)] and trio.current_time() > 100


async def test_a_restart_asks_from_the_newest_row_on(namespace: str) -> None:
    with open_host(namespace) as host:
        market = add(host, Listing())
        await begin(host, market, *(tick(n, NOW_NS + n * NS) for n in (1, 2)))
    with open_host(namespace) as host:
        listing = Listing(*(tick(n, NOW_NS + n * NS) for n in range(1, 6)))
        market = add(host, listing)
        market.up(NOW_NS + 6 * NS)
        assert market.started and gaps(host) == [("restart", False)]
        await repair(host, market)
        assert listing.asked[0][2] == 2
        assert volumes(host) == {NOW_NS // NS + n: 1.0 for n in range(1, 6)}


# Ids


async def test_a_market_whose_first_id_is_0_counts_it_once(namespace: str) -> None:
    with open_host(namespace) as host:
        listing = Listing(*(tick(n, NOW_NS + n * NS) for n in range(4)))
        market = add(host, listing)
        await begin(host, market)
        await market.take(quote(tick(0, NOW_NS), tick(1, NOW_NS + NS)))
        for repeated in (False, True):  # as during a replacement, or of a snapshot
            await market.take(quote(tick(0, NOW_NS)), repeated=repeated)
        market.down("cut", NOW_NS + 2 * NS)
        market.up(NOW_NS + 4 * NS)
        await repair(host, market)
        assert volumes(host) == {NOW_NS // NS + n: 1.0 for n in range(4)}
        assert not market.incomplete and gaps(host) == [("cut", True)]


async def test_the_trade_with_id_0_is_fetched_when_nothing_is_known(
    namespace: str,
) -> None:
    with open_host(namespace) as host:
        listing = Listing(*(tick(n, NOW_NS + n) for n in range(3)))
        market = add(host, listing)
        market.up(NOW_NS)
        await market.release(None, now_ns=NOW_NS + 3)
        await repair(host, market)
        assert volumes(host) == {NOW_NS // NS: 3.0}


async def test_aggregates_count_for_their_trades_in_stream_and_list(
    namespace: str,
) -> None:
    with open_host(namespace) as host:
        listing = Listing(*(tick(n, NOW_NS) | {"count": 10 + n} for n in range(1, 4)))
        market = add(host, listing)
        await begin(host, market, listing.ticks[0])
        await market.take(quote(listing.ticks[2]))
        market.notice_jumps(time.monotonic() + 1)
        await repair(host, market)
        with pk.attach_bars("abcusd.acme", period=1, namespace=namespace) as bars:
            assert bars.last()["count"] == 11 + 12 + 13


async def test_the_list_shows_whether_the_stream_is_silent(namespace: str) -> None:
    with open_host(namespace, audit_grace_s=5.0) as host:
        listing = Listing(*(tick(n, NOW_NS + n * NS) for n in range(1, 4)))
        market = add(host, listing)
        assert not await is_silent(host, market)  # nothing is known yet
        await begin(host, market, *listing.ticks)
        assert not await is_silent(host, market)
        listing.ticks.append(tick(4, time.time_ns()))
        assert not await is_silent(host, market)  # it may be on its way
        listing.ticks.append(tick(5, NOW_NS + 5 * NS))
        assert await is_silent(host, market)


async def test_a_quiet_market_is_looked_at_ever_less_often(namespace: str) -> None:
    with open_host(namespace, audit_s=10.0) as host:
        market = add(host, Listing())
        assert not market.audit_due(time.monotonic() + 1e6)  # it has not started
        await begin(host, market, tick(1, NOW_NS))
        heard_s = market.heard_s
        due = [t for t in range(100_000) if market.audit_due(heard_s + t)]
        assert due[:4] == [11, 34, 103, 310]
        assert due[-1] - due[-2] == 3601
        market.heard_s += 50_000  # it traded
        assert not market.audit_due(heard_s + 50_010)
        assert market.audit_due(heard_s + 50_011)


# Trouble


async def test_what_breaks_in_one_market_stops_it_with_the_reason(
    namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = [True]

    def normalize(symbol: str, given: Any) -> Any:
        if broken[0]:
            raise KeyError("price")
        return given

    with open_host(namespace) as host:
        now_ns = time.time_ns()
        listing = Listing(*(tick(n, now_ns + n) for n in range(1, 6)))
        market = add(host, listing, normalize=normalize)
        await begin(host, market, tick(1, now_ns + 1))
        await market.take(quote(tick(2, now_ns + 2)))
        assert market.handle.status == "stopped" and market.failed
        assert market.reason == "a trade could not be handled: KeyError('price')"
        broken[0] = False
        await market.take(quote(tick(3, now_ns + 3)))
        assert market.handle.last_id == 1  # it is not listened to
        market.up(time.time_ns())
        await market.take(quote(tick(4, now_ns + 4)))
        await repair(host, market)
        assert market.handle.status == "live" and market.reason == ""
        assert gaps(host) == [("failed: KeyError", True)]
        assert sum(volumes(host).values()) == 5
    assert "Traceback" in caplog.text


async def test_a_market_that_fails_again_is_tried_later_each_time(
    namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    with open_host(namespace) as host:
        market = add(host, Listing())
        await begin(host, market)
        waits = []
        for _ in range(9):
            market.fail("a test", RuntimeError("x"))
            waits.append(market.retry_s - time.monotonic())
            market.up(time.time_ns())
        assert 2 < waits[0] <= 5 and 140 < waits[-1] <= 300


async def test_nonsense_and_a_full_disk_are_counted_and_stop_nothing(
    namespace: str,
) -> None:
    def normalize(symbol: str, given: Any) -> Any:
        if isinstance(given, Exception):
            raise given
        return given

    with open_host(namespace) as host:
        market = add(host, Listing(), normalize=normalize)
        await begin(host, market, tick(1, NOW_NS))
        await market.take(ValueError("'soon' is no time"))
        await market.take(pk.ProviderError("no size"))
        host.error = OSError(errno.ENOSPC, "/dev/shm is full")
        await market.take(quote(tick(2, NOW_NS)))
        host.error = None
        await market.take(quote(tick(3, NOW_NS)))
        assert host.counts == {"malformed": 2, "no_space": 1}
        assert market.handle.status == "live" and market.handle.last_id == 3
        assert [(span.first, span.last) for span in market.tracker.missing] == [(2, 2)]


async def test_closed_rings_are_told_to_whoever_reads(namespace: str) -> None:
    with open_host(namespace) as host:
        market = add(host, Listing())
        await begin(host, market)
        host.error = trio.BrokenResourceError()
        with pytest.raises(trio.BrokenResourceError):
            await market.take(quote(tick(2, NOW_NS)))


async def test_a_trade_that_the_engine_refuses_has_not_been_seen(
    namespace: str,
) -> None:
    with open_host(namespace) as host:
        market = add(host, Listing())
        await begin(host, market, tick(1, NOW_NS))
        await market.take(quote(tick(2, NOW_NS, price=float("nan"))))
        assert host.counts == {"refused": 1} and market.tracker.wants(2)


# Best quotes


def test_best_ticks_tell_only_what_changed() -> None:
    def kinds(before: Any, best: Any) -> list[tuple[str, float, float]]:
        return [
            (one["type"], one["price"], one["size"])
            for one in best_ticks(before, best, 5)
        ]

    best = (10.0, 1.0, 11.0, 2.0)
    assert kinds(None, best) == [("bid", 10.0, 1.0), ("ask", 11.0, 2.0)]
    assert kinds(best, best) == []
    assert kinds(best, (10.0, 3.0, 11.0, 2.0)) == [("bsize", 10.0, 3.0)]
    assert kinds(best, (10.0, 1.0, 12.0, 2.0)) == [("ask", 12.0, 2.0)]
    assert kinds(best, (0.0, 0.0, 11.0, 5.0)) == [("asize", 11.0, 5.0)]


async def test_a_last_price_that_no_trade_told_of_is_suspicious(namespace: str) -> None:
    def normalize_best(symbol: str, row: Any, before: Any, now_ns: int) -> Any:
        return {"symbol": symbol, "ticks": [], "last": row}

    with open_host(namespace) as host:
        market = add(host, Listing(), normalize_best=normalize_best)
        await begin(host, market, tick(1, NOW_NS, price=100.0))
        await market.take_best(100.0, NOW_NS)
        assert not market.suspect_s
        await market.take_best(101.0, NOW_NS)
        assert market.suspect_s
        await market.take(quote(tick(2, NOW_NS, price=101.0)))
        assert not market.suspect_s


async def test_a_venue_that_does_not_trade_closes_its_markets(namespace: str) -> None:
    with open_host(namespace) as host:
        market = add(host, Listing())
        market.set_trading(False)
        assert market.handle.status == "starting"
        await begin(host, market)
        assert market.handle.status == "closed"
        market.set_trading(True)
        assert market.handle.status == "live"
        market.stop("refused", "delisted")
        market.set_trading(False)
        assert (market.handle.status, market.reason) == ("stopped", "delisted")
