"""Binance's streams against the simulated venue: every fault, and bars stay exact."""

import logging
from typing import Any

import numpy as np
import pytest
import trio

import piker_core as pk
from providers.binance.venue import Limits
from providers.binance.venue_faults import MALFORMED
from tests.binance_feeds import (
    BOTH,
    DATED,
    PERP,
    SPOT,
    THIN,
    Point,
    check_exact,
    closed_rows,
    make_point,
    set_patience,
    settle,
    stream_of,
    wait_repaired,
    wait_until,
)

NS = 10**9


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    set_patience(monkeypatch)


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch) -> Point:
    return make_point(monkeypatch)


async def test_bars_of_a_calm_venue_are_its_own_from_the_first_row(
    point: Point, namespace: str
) -> None:
    async with point() as venue, pk.open_feed([*BOTH, THIN, DATED]) as feed:
        for flume in feed.flumes.values():
            assert flume.first_quote["last"] > 0 and flume.first_quote["bid"] > 0
            await wait_until(lambda hist=flume.hist: hist.head - hist.first > 10)
        await settle(feed)
        await check_exact(venue, feed)
        for flume in feed.flumes.values():
            rows = closed_rows(flume.hist)
            assert (np.diff(rows["time"]) == 60).all()
            assert not (rows["flags"] & int(pk.BarFlag.PARTIAL)).any()
            assert not len(flume.rt.gaps())
            counted = flume.rt.statistics()
            assert counted["unplaced"] == counted["refused"] == 0


@pytest.mark.parametrize("fqme", BOTH)
async def test_every_trade_and_quote_reaches_the_subscriber_once(
    point: Point, namespace: str, fqme: str
) -> None:
    async with point(live_rate=400.0) as venue, pk.open_feed([fqme]) as feed:
        ids: list[int] = []
        trades = 0
        kinds: set[str] = set()
        async for quotes in feed.stream():
            for tick in quotes[fqme]["ticks"]:
                kinds.add(tick["type"])
                if tick["type"] == "trade":
                    ids.append(tick["id"])
                    trades += tick["count"]
            if len(ids) > 100 and len(kinds) > 3:
                break
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert {"trade", "bid", "ask", "bsize", "asize"} >= kinds > {"trade"}
        assert trades >= len(ids)
        told = {trade.trade_id for trade in venue.trades(fqme.rpartition(".")[0])}
        assert (fqme == PERP) != (set(ids) <= told)


async def test_spot_may_be_had_as_aggregates_that_count_their_trades(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_BINANCE__TRADES", "aggtrade")
    async with point() as venue, pk.open_feed([SPOT]) as feed:
        await settle(feed)
        venue.faults.cut()
        await wait_repaired(feed)
        await check_exact(venue, feed)
        ticks: Any = feed.flumes[SPOT].ticks.cursor(start="oldest").poll(1 << 16)
        counts = ticks["count"][ticks["type"] == pk.TICK_TYPES["trade"]]
        assert counts.sum() > 1.1 * len(counts)


async def test_a_cut_connection_costs_no_trade_and_leaves_a_repaired_gap(
    point: Point, namespace: str
) -> None:
    names = [*BOTH, THIN]
    async with point(live_rate=300.0) as venue, pk.open_feed(names) as feed:
        flume = feed.flumes[SPOT]
        await settle(feed)
        venue.faults.refuse_connections()
        venue.faults.cut()
        await wait_until(lambda: flume.status == "reconnecting")
        rows = flume.rt.head
        await trio.sleep(2.1)
        assert flume.rt.head == rows  # no row is invented while the feed is down
        venue.faults.refuse_connections(False)
        await wait_repaired(feed)
        traded = 0
        for each in feed.flumes.values():
            (gap,) = each.rt.gaps()
            assert gap["cause"] == b"connection closed (1006)" and gap["repaired"]
            lost: Any = each.rt.between(gap["start_ns"] // NS + 1, gap["end_ns"] // NS)
            assert len(lost) >= 1  # whole seconds
            lost = lost[lost["count"] > 0]
            assert (lost["flags"] & int(pk.BarFlag.REPAIRED) > 0).all()
            traded += len(lost)
        assert traded
        await check_exact(venue, feed)


async def test_a_half_open_connection_is_found_by_its_silence(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_BINANCE__LIVENESS_S", "1")
    monkeypatch.setenv("PIKER_BINANCE__ACK_TIMEOUT_S", "1")
    async with point() as venue, pk.open_feed(BOTH) as feed:
        await settle(feed)
        venue.faults.half_open()
        for flume in feed.flumes.values():
            await wait_until(lambda f=flume: f.status in ("stale", "reconnecting"))
        venue.faults.half_open(False)
        await wait_repaired(feed)
        await check_exact(venue, feed)
        assert all(stream_of(feed, fqme)["stale"] >= 1 for fqme in BOTH)


async def test_a_stream_that_is_silent_though_it_trades_is_begun_again(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_BINANCE__AUDIT_S", "0.5")
    monkeypatch.setenv("PIKER_BINANCE__AUDIT_GRACE_S", "0.3")
    async with point() as venue, pk.open_feed(BOTH) as feed:
        await settle(feed)
        venue.faults.drop(1.0)  # acknowledged, and best quotes go on
        for flume in feed.flumes.values():
            await wait_until(lambda f=flume: len(f.rt.gaps()))
        venue.faults.drop(0.0)
        await wait_repaired(feed)
        await check_exact(venue, feed)
        for flume in feed.flumes.values():
            assert flume.rt.gaps()["cause"][0].startswith(b"no trades of btcusdt")


async def test_a_stream_that_never_said_anything_is_begun_again(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_BINANCE__AUDIT_S", "0.5")
    monkeypatch.setenv("PIKER_BINANCE__AUDIT_GRACE_S", "0.3")
    async with point() as venue:
        venue.faults.drop(1.0)
        async with pk.open_feed([THIN, DATED]) as feed:
            for flume in feed.flumes.values():
                await wait_until(lambda f=flume: len(f.rt.gaps()))
            venue.faults.drop(0.0)
            await wait_repaired(feed)
            await check_exact(venue, feed)


async def test_repeated_disordered_and_dropped_frames_change_no_bar(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_BINANCE__DISORDER_S", "0.3")
    busy = {"live_rate": 600.0, "pairs": ["btcusdt", "btcusdt.usdtm.perp"]}
    async with point(**busy) as venue, pk.open_feed(BOTH) as feed:
        await settle(feed)
        venue.faults.duplicate(0.2)
        venue.faults.disorder(0.2)
        venue.faults.drop(0.1)
        await wait_until(lambda: venue.faults.done["drop"] > 20)
        await wait_until(lambda: venue.faults.done["duplicate"] > 20)
        for fault in (venue.faults.duplicate, venue.faults.disorder, venue.faults.drop):
            fault(0.0)
        head = feed.flumes[SPOT].rt.head
        await wait_until(lambda: feed.flumes[SPOT].rt.head > head + 1)  # a last loss
        await wait_repaired(feed)
        await check_exact(venue, feed)
        for fqme in BOTH:
            assert feed.flumes[fqme].rt.statistics()["duplicates"] > 0
            assert stream_of(feed, fqme)["connections"] == 1


async def test_broken_frames_are_counted_and_logged_once(
    point: Point, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "providers.binance")
    async with point() as venue, pk.open_feed([SPOT]) as feed:
        await settle(feed)
        small = [name for name in MALFORMED if name not in ("large", "giant")]
        nan = MALFORMED["nan_price"].replace(b"9000000000001", b"1")  # refused as price
        for names in (small, small, ["large"], small, [nan] * 3):
            venue.faults.malformed(names)
        venue.faults.malformed(["giant"])
        await settle(feed)
        stream = stream_of(feed, SPOT)
        assert stream["malformed"] >= 24 and stream["unknown"] >= 9
        assert stream["refused"] >= 3 and stream["connections"] == 1
        await check_exact(venue, feed)
    texts = [r.getMessage() for r in caplog.records if "counted only" in r.getMessage()]
    assert len(texts) == len({text.split(":")[0] for text in texts}) == 3


async def test_an_announced_end_costs_nothing_and_leaves_no_gap(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_BINANCE__OVERLAP_S", "0.3")
    async with point() as venue, pk.open_feed(BOTH) as feed:
        await settle(feed)
        venue.faults.shutdown(4.0)
        for fqme in BOTH:
            await wait_until(lambda f=fqme: stream_of(feed, f)["rotations"] == 1)
        await settle(feed)
        await check_exact(venue, feed)
        assert not any(len(flume.rt.gaps()) for flume in feed.flumes.values())
        assert venue.statistics().connections == 3


async def test_connections_are_replaced_before_the_venue_ends_them(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_BINANCE__ROTATE_S", "0.7")
    monkeypatch.setenv("PIKER_BINANCE__OVERLAP_S", "0.3")
    short = Limits(life_s=3.0)
    async with point(limits=short, usdm_limits=short) as venue:
        async with pk.open_feed(BOTH) as feed:
            for fqme in BOTH:
                await wait_until(lambda f=fqme: stream_of(feed, f)["rotations"] >= 4)
            await settle(feed)
            await check_exact(venue, feed)
            for fqme in BOTH:
                assert not len(feed.flumes[fqme].rt.gaps())
                assert feed.flumes[fqme].rt.statistics()["duplicates"] > 0


async def test_markets_are_spread_over_connections(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_BINANCE__WS_TOPICS", "2")
    names = [SPOT, THIN, "ethusdt.binance", PERP, DATED]
    async with point() as venue, pk.open_feed(names) as feed:
        await settle(feed)
        assert venue.statistics().connections == 3 + 1 + 1
        assert venue.statistics().subscriptions == 2 * len(names)
        venue.faults.cut()
        await wait_repaired(feed)
        await check_exact(venue, feed)


async def test_unanswered_subscriptions_are_tried_again(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_BINANCE__ACK_TIMEOUT_S", "1")
    async with point() as venue, pk.open_feed(BOTH) as feed:
        await settle(feed)
        venue.faults.silent_acks()
        venue.faults.cut()
        ever = venue.statistics().connections_ever
        await wait_until(lambda: venue.statistics().connections_ever > ever + 5)
        venue.faults.silent_acks(False)
        await wait_repaired(feed)
        await check_exact(venue, feed)


async def test_a_second_session_goes_on_in_the_rings_of_the_first(
    point: Point, namespace: str
) -> None:
    async with point() as venue:
        async with pk.open_feed(BOTH) as feed:
            await settle(feed)
        await trio.sleep(1.1)
        async with pk.open_feed(BOTH) as feed:
            await wait_repaired(feed)
            for flume in feed.flumes.values():
                assert flume.rt.generation == 2
                assert flume.rt.gaps()["cause"].tolist() == [b"restart"]
            await check_exact(venue, feed)


async def test_seconds_are_back_filled_below_the_live_rows(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_FEED__SECONDS_BACK", "800")
    async with point() as venue, pk.open_feed([*BOTH, THIN, DATED]) as feed:
        for flume in feed.flumes.values():
            await wait_until(lambda rt=flume.rt: rt.head - rt.first > 790)
            rows: Any = flume.rt.snapshot(2000)
            assert (np.diff(rows["time"]) == 1).all()
        await settle(feed)
        await check_exact(venue, feed)
