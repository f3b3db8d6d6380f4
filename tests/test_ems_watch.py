"""A watch: which triggers ticks reach, whatever of the ticks it gets to see."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import trio
import trio.testing

import piker_core as pk
from piker_core.ems import watch as watch_room
from piker_core.ems.watch import Armed, Watch
from piker_core.ems.watched import WatchedMarket
from piker_core.segments import ring_name
from tests.test_captures import binance_trades
from tests.watched_market import (
    FQME,
    NS,
    OTHER,
    RING,
    ROWS,
    T0,
    Stage,
    fired,
    names,
    open_stage,
)


@pytest.fixture
def stage(namespace: str) -> Any:
    with open_stage(namespace) as opened:
        yield opened


# ---- ticks ---------------------------------------------------------------------------


def test_a_trigger_fires_at_the_tick_that_touches_it_and_once(stage: Stage) -> None:
    stage.trade(0, 100.0)
    watch = stage.watch()
    watch.arm("up", FQME, 101.0)
    watch.arm("beyond", FQME, 101.1)
    stage.trade(1, 100.9, 101.0, 100.0, 101.0)
    polled = watch.poll()
    (one,) = polled.fired
    assert (one.oid, one.fqme, one.price, one.place) == ("up", FQME, 101.0, 1)
    assert polled.ticks["price"].tolist() == [100.9, 101.0, 100.0, 101.0]
    assert one.time_ns == (T0 + 1) * NS + 1 and not one.from_bars
    assert names(watch) == [] and watch.disarm("beyond") and not watch.disarm("up")


def test_the_direction_is_that_of_the_last_trade_known_and_is_stored(
    stage: Stage,
) -> None:
    stage.trade(0, 90.0, 100.0)
    watch = stage.watch()
    assert watch.last(FQME) == (100.0, T0 * NS + 1)
    assert watch.arm("up", FQME, 100.5).direction == 1
    down = watch.arm("down", FQME, 99.5)
    assert down.direction == -1 and down.price == 99.5
    assert watch.arm("at", FQME, 100.0).direction == 1
    assert watch.arm("told", FQME, 101.0, -1).direction == -1
    later = stage.watch()
    stage.trade(1, 99.0)
    fired(later)
    again = later.arm("down", FQME, 99.5, stored=down)
    assert again.direction == -1


def test_what_has_to_be_stored_survives_being_written_and_read(stage: Stage) -> None:
    stage.trade(0, 90.0, 100.0)
    watch = stage.watch()
    for armed in (
        watch.arm("up", FQME, 100.5),
        watch.arm_trail("trail", FQME, 5.0, -1),
    ):
        text = msgspec.json.encode(armed)
        assert msgspec.json.decode(text, type=Armed) == armed


def test_only_ticks_of_the_markets_watched_are_polled_and_places_are_among_them(
    stage: Stage,
) -> None:
    stage.trade(0, 100.0)
    watch = stage.watch()
    watch.arm("up", FQME, 101.0)
    stage.trade(1, 200.0, 201.0, of=OTHER)
    stage.trade(1, 100.5, 101.0)
    polled = watch.poll()
    assert polled.ticks["price"].tolist() == [100.5, 101.0]
    assert [each.place for each in polled.fired] == [1]


def test_two_markets_fire_in_the_order_of_their_ticks(stage: Stage) -> None:
    stage.trade(0, 100.0)
    stage.trade(0, 50.0, of=OTHER)
    watch = stage.watch()
    watch.add_market(OTHER)
    watch.arm("one", FQME, 101.0)
    watch.arm("other", OTHER, 49.0)
    stage.trade(1, 49.0, of=OTHER)
    stage.trade(1, 101.0)
    places = [(each.oid, each.fqme, each.place) for each in watch.poll().fired]
    assert places == [("other", OTHER, 0), ("one", FQME, 1)]


def test_a_trail_follows_and_fires(stage: Stage) -> None:
    stage.trade(0, 100.0)
    watch = stage.watch()
    armed = watch.arm_trail("stop", FQME, 5.0, -1)
    assert (armed.best, armed.distance, armed.price) == (100.0, 5.0, 0.0)
    stage.trade(1, 96.0, 110.0, 105.1)
    assert names(watch) == []
    moved = watch.armed("stop")
    assert moved is not None and moved.best == 110.0
    stage.trade(2, 105.0)
    assert [(each.oid, each.price) for each in fired(watch)] == [("stop", 105.0)]


def test_the_last_trade_and_quote_are_found_far_back_in_the_ring(
    namespace: str,
) -> None:
    with open_stage(namespace, tick_capacity=1 << 16) as stage:
        ticks = [("bid", 99.0, 3.0), ("ask", 101.0, 4.0)]
        told = [
            {"type": kind, "price": price, "size": size, "time_ns": T0 * NS}
            for kind, price, size in ticks
        ]
        stage.engine.push({"symbol": "xbtusd", "ticks": told})
        stage.trade(0, 100.0)
        stage.drown(1, 20_000)
        watch = stage.watch()
        assert watch.quote(FQME) == (99.0, 3.0, 101.0, 4.0)
        assert watch.last(FQME) == (100.0, T0 * NS)


def test_without_a_tick_the_newest_row_tells_the_last_price(stage: Stage) -> None:
    stage.trade(0, 103.0, 100.0)
    stage.drown(1)
    watch = stage.watch()
    assert watch.last(FQME) == (100.0, T0 * NS)
    armed = watch.arm("up", FQME, 102.0)
    assert (armed.direction, armed.row_s, armed.high) == (1, T0, 103.0)
    stage.drown(1)
    assert names(watch) == []


def test_what_cannot_be_is_refused_with_a_sentence(stage: Stage) -> None:
    with pytest.raises(pk.NotFound, match="there is no ring of binance's ticks"):
        Watch("binance", stage.namespace)
    watch = stage.watch()
    with pytest.raises(pk.NotFound, match=r"no ring of ltcusd\.kraken"):
        watch.add_market("ltcusd.kraken")
    with pytest.raises(pk.NotFound, match=r"'ltcusd\.kraken' is not watched"):
        watch.arm("one", "ltcusd.kraken", 5.0)
    with pytest.raises(pk.OrderError, match="has no price yet"):
        watch.arm("one", FQME, 5.0)
    watch.arm("one", FQME, 5.0, 1)
    with pytest.raises(pk.OrderError, match="order 'one' is armed already"):
        watch.arm("one", FQME, 5.0, 1)
    with pytest.raises(ValueError, match="price nan must be finite"):
        watch.arm("two", FQME, float("nan"), 1)
    assert watch.armed("two") is None


# ---- ticks that were lost ------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1 << 17, 1 << 12])
def test_a_burst_fires_what_it_reached_and_nothing_beyond(
    namespace: str, capacity: int
) -> None:
    rng = np.random.default_rng(1)
    with open_stage(namespace, tick_capacity=capacity) as stage:
        stage.trade(0, 60_000.0)
        watch = stage.watch()
        for oid, price in (("up", 10), ("down", -10), ("no up", 10.1), ("no", -10.1)):
            watch.arm(oid, FQME, 60_000 + price)
        prices = 60_000 + rng.integers(-90, 90, 10_000) / 10
        prices[1000], prices[2000] = 60_010.0, 59_990.0
        stage.trade(0.1, *prices.tolist())
        assert sorted(names(watch)) == ["down", "up"]
        assert watch.poll().lost == 0


def test_of_the_row_in_which_it_was_sent_only_a_higher_high_counts(
    stage: Stage,
) -> None:
    stage.trade(0, 100.0, 105.0, 95.0, 100.0)
    watch = stage.watch()
    for oid, price in (("in", 104.0), ("low", 96.0), ("up", 106.0), ("no", 107.1)):
        watch.arm(oid, FQME, price)
    stage.drown(0.5)
    assert names(watch) == []
    stage.trade(0.6, 107.0, 100.0)
    stage.drown(0.7)
    assert names(watch) == ["in", "up"]
    stage.trade(1, 104.0, 96.0)
    stage.drown(2)
    found = fired(watch)
    assert [(each.oid, each.price, each.from_bars) for each in found] == [
        ("low", 96.0, True)
    ]
    assert found[0].time_ns == (T0 + 1) * NS and found[0].place == -1


@pytest.mark.parametrize("most", [4096, 2])
def test_what_ticks_that_are_still_there_reach_fires_at_them(
    stage: Stage, most: int
) -> None:
    stage.trade(0, 100.0)
    watch = stage.watch()
    for oid, price in (("lost", 105.0), ("there", 104.0), ("both", 103.0)):
        watch.arm(oid, FQME, price)
    stage.trade(1, 103.0)
    stage.drown(1)
    stage.trade(1, 101.0, 104.0)
    assert [(each.oid, each.from_bars) for each in fired(watch, most)] == [
        ("there", False),
        ("both", False),
    ]
    stage.trade(1.5, 105.0)
    stage.drown(1.5)
    stage.trade(1.6, 101.0)
    assert [(each.oid, each.from_bars) for each in fired(watch)] == [("lost", True)]


def test_rows_that_did_not_trade_or_are_placeholders_fire_nothing(
    stage: Stage,
) -> None:
    stage.trade(0, 100.0)
    watch = stage.watch()
    watch.arm("at", FQME, 100.0)
    stage.trade(1, 99.0)
    fired(watch)
    watch.arm("again", FQME, 99.0)
    stage.step(5)
    stage.markets[FQME].set_status("reconnecting")
    stage.markets[FQME].set_status("live")
    stage.drown(8)
    stage.step(9)
    flags = pk.attach_bars(FQME, namespace=stage.namespace).snapshot(20)["flags"]
    assert (flags & int(pk.BarFlag.SYNTHETIC_GAP)).any()
    assert names(watch) == []


def test_trades_that_repair_a_gap_fire_what_was_armed_before_it_alone(
    stage: Stage,
) -> None:
    market = stage.markets[FQME]
    stage.step(0)
    stage.trade(0, 100.0)
    watch = stage.watch()
    watch.arm("before", FQME, 105.0)
    market.set_status("reconnecting")
    time.sleep(0.002)  # what passes while the feed is down is the clock's
    during = watch.arm("during", FQME, 105.0)
    assert during.since_ns > T0 * NS + 1_000_000
    market.add_gap(
        start_ns=T0 * NS + 1, end_ns=(T0 + 4) * NS, cause="lost", repaired=False
    )
    after = watch.arm("after", FQME, 105.0)
    assert after.since_ns == (T0 + 4) * NS
    market.set_status("live")
    stage.trade(4, 101.0)
    stage.trade(0.001, 105.0)
    assert names(watch) == ["before"]
    stage.trade(5, 105.0)
    assert names(watch) == ["during", "after"]


def test_a_late_trade_that_was_lost_is_found_in_its_row(stage: Stage) -> None:
    stage.trade(0, 100.0)
    watch = stage.watch()
    watch.arm("up", FQME, 105.0)
    stage.trade(9, 101.0)
    assert names(watch) == []
    watch.arm("later", FQME, 105.0)
    stage.trade(4, 105.0)
    stage.drown(9)
    assert [(e.oid, e.time_ns) for e in fired(watch)] == [("up", (T0 + 4) * NS)]


def test_a_trail_fires_by_rows_where_it_did_in_any_case(stage: Stage) -> None:
    for second, trades, fires in (
        (10, [(100.0, 110.0, 104.9)], True),  # the close is 5 below a high
        (20, [(100.0, 94.0, 110.0)], True),  # the low is 5 below the best before
        (30, [(100.0,), (104.0, 100.0, 98.5, 104.0)], True),  # the open is above
        (40, [(100.0, 106.0, 100.5, 103.0)], False),  # nobody knows what came first
    ):
        stage.trade(second, 100.0)
        watch = stage.watch()
        watch.arm_trail("stop", FQME, 5.0, -1)
        for later, prices in enumerate(trades, 1):
            stage.trade(second + later, *prices)
        stage.drown(second + 5)
        assert names(watch) == ["stop"] * fires, second
        if not fires:
            moved = watch.armed("stop")
            assert moved is not None and moved.best == 106.0


def test_the_trouble_of_one_market_is_not_that_of_another(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for fqme in (FQME, OTHER):
        stage.trade(0, 100.0, of=fqme)
    watch = stage.watch()
    watch.add_market(OTHER)
    for fqme in (FQME, OTHER):
        watch.arm(fqme, fqme, 105.0)
    stage.trade(1, 105.0, of=FQME)
    stage.trade(1, 105.0, of=OTHER)
    stage.drown(2)
    whole = WatchedMarket.untested_rows

    def damaged(market: WatchedMarket) -> Any:
        if market.fqme == FQME:
            raise pk.SegmentError("rows are damaged")
        return whole(market)

    with monkeypatch.context() as patch:
        patch.setattr(WatchedMarket, "untested_rows", damaged)
        assert names(watch) == [OTHER] and names(watch) == []
    assert [each.getMessage() for each in caplog.records] == [
        f"rows of {FQME} cannot be read: rows are damaged"
    ]
    assert names(watch) == [FQME]


# ---- restarts ------------------------------------------------------------------------


def test_after_a_restart_each_tick_since_is_tested_once(stage: Stage) -> None:
    stage.trade(0, 100.0)
    watch = stage.watch()
    stored = watch.arm("up", FQME, 105.0)
    stage.trade(1, 101.0)
    position = watch.poll().position
    stage.trade(2, 104.0, 105.0, 106.0)
    later = stage.watch(position)
    assert later.last(FQME) == (101.0, (T0 + 1) * NS)
    later.arm("up", FQME, 105.0, stored=stored)
    polled = later.poll()
    assert polled.ticks["price"].tolist() == [104.0, 105.0, 106.0]
    assert [(each.oid, each.place) for each in polled.fired] == [("up", 1)]
    assert names(later) == []


def test_what_was_overwritten_meanwhile_is_made_good_from_the_rows(
    stage: Stage,
) -> None:
    stage.trade(0, 103.0, 100.0)
    watch = stage.watch()
    position = watch.position
    stored = {
        oid: watch.arm(oid, FQME, price)
        for oid, price in (("in", 102.0), ("up", 105.0), ("no", 105.1), ("low", 95.0))
    }
    trail = watch.arm_trail("trail", FQME, 4.0, -1)
    stage.trade(0.5, 102.5)
    stage.trade(3, 104.0, 105.0, 102.0)
    fired(watch)
    stored["later"] = watch.arm("later", FQME, 107.0)
    stage.drown(4)
    later = stage.watch(position)
    for oid, armed in stored.items():
        later.arm(oid, FQME, armed.price, stored=armed)
    later.arm_trail("trail", FQME, 4.0, -1, stored=trail)
    found = fired(later)
    assert [(each.oid, each.time_ns // NS - T0) for each in found] == [
        ("in", 3),
        ("up", 3),
    ]
    moved = later.armed("trail")
    assert moved is not None and moved.best == 105.0
    stage.trade(5, 101.0, 95.0)
    assert names(later) == ["trail", "low"]


def test_a_trail_that_is_restored_has_followed_the_rest_of_its_own_second(
    stage: Stage,
) -> None:
    stage.trade(0, 106.0, 100.0)
    watch = stage.watch()
    inside, beyond = (watch.arm_trail(each, FQME, 5.0, -1) for each in "ab")
    stage.trade(0.5, 104.0)
    later = stage.watch(watch.position)
    later.arm_trail("inside", FQME, 5.0, -1, stored=inside)
    stage.drown(0.6)
    assert names(later) == []
    kept = later.armed("inside")
    assert kept is not None and kept.best == 104.0  # the close, not what was before
    stage.trade(0.7, 108.0, 104.0)
    last = stage.watch(watch.position)
    last.arm_trail("beyond", FQME, 5.0, -1, stored=beyond)
    stage.drown(0.8)
    assert names(last) == []
    moved = last.armed("beyond")
    assert moved is not None and moved.best == 108.0


def test_an_order_that_was_sent_after_the_position_was_stored_waits_for_its_place(
    stage: Stage,
) -> None:
    stage.trade(0, 100.0)
    watch = stage.watch()
    position = watch.position
    stage.trade(1, 106.0)
    stage.trade(1, 100.0)
    fired(watch)
    stored = watch.arm("up", FQME, 105.0)
    stage.trade(1, 101.0, 105.0)
    later = stage.watch(position)
    later.arm("up", FQME, 105.0, stored=stored)
    assert later.armed("up") == stored
    assert [(each.oid, each.place) for each in later.poll().fired] == [("up", 3)]
    again = stage.watch(position)
    again.arm("up", FQME, 105.0, stored=stored)
    assert again.disarm("up") and names(again) == []


def test_an_order_ahead_whose_place_was_overwritten_goes_by_the_rows(
    stage: Stage,
) -> None:
    stage.trade(0, 100.0)
    watch = stage.watch()
    position = watch.position
    stage.trade(1, 106.0, 100.0)
    fired(watch)
    up, no = (watch.arm(oid, FQME, 105.0) for oid in ("up", "no"))
    later = stage.watch(position)
    later.arm("up", FQME, 105.0, stored=up)
    stage.trade(1.1, 105.0, 100.0)
    stage.trade(2, 105.0, 100.0)
    stage.drown(3)
    assert [e.time_ns // NS - T0 for e in fired(later)] == [2]
    anew = stage.watch((position[0] + 1, position[1]))
    anew.arm("no", FQME, 105.0, stored=no)
    assert names(anew) == ["no"]


def test_in_rings_made_anew_all_ticks_count_and_history_that_comes_later(
    namespace: str,
) -> None:
    with open_stage(namespace) as stage:
        stage.trade(0, 100.0)
        watch = stage.watch()
        stored = {
            oid: watch.arm(oid, FQME, price)
            for oid, price in (("tick", 105.0), ("history", 95.0), ("no", 94.0))
        }
        trail = watch.arm_trail("trail", FQME, 20.0, -1)
        position = watch.position
    pk.remove_segments(namespace)
    with open_stage(namespace) as stage:
        stage.trade(60, 101.0, 105.0, 104.0)
        later = stage.watch(position)
        for oid, armed in stored.items():
            later.arm(oid, FQME, armed.price, stored=armed)
        later.arm_trail("trail", FQME, 20.0, -1, stored=trail)
        assert [(each.oid, each.place) for each in fired(later)] == [("tick", 1)]
        rows = np.zeros(61, pk.OHLCV_DTYPE)
        rows["time"] = T0 - 1 + np.arange(61)
        for name in ("open", "high", "low", "close", "bar_wap"):
            rows[name] = 100.0
        rows["count"], rows["volume"] = 1, 1.0
        rows["low"][30], rows["low"][0], rows["high"][40] = 95.0, 90.0, 110.0
        stage.markets[FQME].bars[1].prepend(rows)
        found = fired(later)
        assert [(e.oid, e.time_ns // NS - T0) for e in found] == [("history", 29)]
        moved = later.armed("trail")
        assert moved is not None and moved.best == 110.0
        stage.trade(61, 90.0)
        assert names(later) == ["no", "trail"]


def test_a_market_of_middles_goes_by_bid_and_ask_and_by_rows_made_of_them(
    stage: Stage,
) -> None:
    def show(second: float, bid: float, ask: float) -> None:
        told = [
            {"type": kind, "price": price, "size": 1.0, "time": T0 + second}
            for kind, price in (("bid", bid), ("ask", ask))
        ]
        stage.engine.push({"symbol": "eurusd", "ticks": told})

    fqme = "eurusd.kraken"
    market = stage.engine.add_market(fqme, capacity=ROWS, bars_from="mid")
    market.set_status("live")
    show(0, 1.0, 1.2)
    watch = stage.watch()
    watch.add_market(fqme, "mid")
    assert watch.last(fqme) == (1.1, T0 * NS)
    for oid, price in (("up", 1.25), ("bars", 1.35), ("no", 1.36)):
        watch.arm(oid, fqme, price)
    show(1, 1.2, 1.3)
    assert [(each.oid, each.price) for each in fired(watch)] == [("up", 1.3)]
    show(2, 1.3, 1.4)
    show(2.5, 1.1, 1.2)
    stage.drown(3)
    assert [(each.oid, each.from_bars) for each in fired(watch)] == [("bars", True)]


def not_yet(fqme: str, **_: Any) -> Any:
    raise pk.NotFound(f"there is no ring of {fqme} yet")


def test_rings_that_are_made_anew_are_attached_again(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_room, "LOOK_S", -1.0)
    with open_stage(namespace) as stage:
        stage.trade(0, 100.0)
        watch = stage.watch()
        for oid, price in (("up", 105.0), ("lost", 106.0), ("no", 107.0)):
            watch.arm(oid, FQME, price)
        before = watch.position
    assert names(watch) == []
    pk.remove_segments(namespace)
    assert names(watch) == []
    with open_stage(namespace) as stage:
        stage.trade(9, 101.0, 106.0)
        stage.drown(10)
        with monkeypatch.context() as patch:
            patch.setattr(watch_room, "attach_bars", not_yet)
            assert names(watch) == []
        stage.trade(11, 105.0)
        found = [(each.oid, each.from_bars) for each in fired(watch)]
        assert found == [("up", True), ("lost", True)]
        assert watch.position == (watch.position[0], stage.ticks.head)
        assert watch.position[0] != before[0]


def test_a_market_whose_rings_are_old_is_found_in_a_new_tick_ring_when_it_comes(
    namespace: str,
) -> None:
    with open_stage(namespace) as stage:
        stage.trade(0, 100.0, of=OTHER)
    (Path("/dev/shm") / ring_name(namespace, "kraken")).unlink()
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=RING) as engine:
        engine.add_market(FQME, capacity=ROWS)
        watch = Watch("kraken", namespace)
        watch.add_market(OTHER)
        assert watch.arm("up", OTHER, 105.0).direction == 1
        assert names(watch) == []
        market = engine.add_market(OTHER, capacity=ROWS)
        engine.push_trade(market, (T0 + 1) * NS, 105.0, 1.0)
        assert [(each.oid, each.place) for each in fired(watch)] == [("up", 0)]


async def wait_and_poll(stage: Stage, watch: Watch) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.ready)
        await trio.testing.wait_all_tasks_blocked()
        stage.trade(1, 101.0)
    assert len(watch.poll().ticks) == 1


def test_ready_returns_when_there_is_a_tick(stage: Stage) -> None:
    with stage.watch() as watch:
        trio.run(wait_and_poll, stage, watch)
    with pytest.raises(pk.PikerError, match="closed"):
        watch.add_market(OTHER)


# ---- whatever comes ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_lost_and_whenever_it_is_restarted_what_was_reached_fires_once(
    seed: int, stage: Stage
) -> None:
    rng = np.random.default_rng(seed)
    stage.trade(0, 100.0)
    watch, position = stage.watch(), None
    stored: dict[str, Armed] = {}
    reached: set[str] = set()
    done: list[str] = []
    for second in range(1, 60):
        oid = f"o{second}"
        fired_now = names(watch) if rng.random() < 0.5 else []
        done += fired_now
        if fired_now or rng.random() < 0.5:
            done += names(watch)
            position = watch.position
            stored[oid] = watch.arm(oid, FQME, 100 + round(rng.normal(0, 6), 1))
        prices = 100 + rng.normal(0, 3, int(rng.integers(1, 60))).round(1)
        stage.trade(second, *prices.tolist())
        for each, armed in stored.items():
            away = (prices - armed.price) * armed.direction
            if armed.row_s < T0 + second and (away >= 0).any():
                reached.add(each)
        if rng.random() < 0.2:
            stage.drown(second, int(rng.integers(1, 2 * RING)))
        if rng.random() < 0.2 and position is not None:
            watch = stage.watch(position)
            for each in stored.keys() - set(done):
                watch.arm(each, FQME, 0, stored=stored[each])
    done += names(watch)
    assert sorted(done) == sorted(reached)
    assert len(reached) > 5


# ---- a writer that never waits -------------------------------------------------------

WALK = 150_000
WRITER = f"""
import sys, time
import numpy as np
import piker_core as pk
steps = np.random.default_rng(int(sys.argv[1])).integers(-2, 3, {WALK})
prices = (1000 + np.cumsum(steps) / 10).tolist()
with pk.open_engine("kraken", tick_capacity=4096) as engine:
    market = engine.add_market({FQME!r}, capacity={{1: 1024, 60: 64}})
    market.set_status("live")
    engine.push_trade(market, time.time_ns(), 1000.0, 1.0)
    print("open", flush=True)
    sys.stdin.readline()
    for number, price in enumerate(prices):
        engine.push_trade(market, time.time_ns(), price, 1.0)
        if number == 9999:
            print("going on", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("most", [4096, 16])
def test_beside_a_writer_that_never_waits_what_was_reached_fires_once(
    namespace: str, most: int
) -> None:
    steps = np.random.default_rng(most).integers(-2, 3, WALK)
    prices = 1000 + np.cumsum(steps) / 10
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(most)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as writer:
        assert writer.stdin and writer.stdout
        assert writer.stdout.readline() == "open\n"
        watch = Watch("kraken", namespace)
        watch.add_market(FQME)
        levels = [1000 + away / 4 for away in range(-400, 401) if away]
        for level in levels:
            watch.arm(str(level), FQME, level)
        writer.stdin.write("go\n")
        assert writer.stdout.readline() == "going on\n"
        found, lost, head = [], 0, pk.attach_ticks("kraken", namespace=namespace)
        while watch.position[1] <= WALK or head.head <= WALK:
            polled = watch.poll(most)
            found += [float(each.oid) for each in polled.fired]
            lost += polled.lost
        found += map(float, names(watch))
        writer.stdin.write("end\n")
    low, high = prices.min(), prices.max()
    assert sorted(found) == [level for level in levels if low <= level <= high]
    assert len(found) > 50 and lost > 5000


# ---- a recorded session --------------------------------------------------------------

ORDERS = 10_000
BEFORE = 1000
"""Trades before the orders are sent."""


def oracle(prices: Any, levels: Any, up: Any) -> Any:
    """Of each level the first of the prices that reaches it; their number if none."""
    highest, lowest = np.maximum.accumulate(prices), -np.minimum.accumulate(prices)
    above, below = np.searchsorted(highest, levels), np.searchsorted(lowest, -levels)
    return np.where(up, above, below)


def recorded_orders(prices: Any) -> tuple[Any, Any]:
    """Prices of orders around those that traded; are they above the last?"""
    rng = np.random.default_rng(5)
    away = 1.2 * max(np.ptp(prices), 1.0)
    levels = (prices[BEFORE - 1] + rng.uniform(-away, away, ORDERS)).round(2)
    return levels, levels >= prices[BEFORE - 1]


@pytest.mark.parametrize("capacity", [1 << 15, 1 << 10])
def test_of_ten_thousand_orders_each_fires_once_where_a_recorded_trade_reaches_it(
    captures: Path, namespace: str, capacity: int
) -> None:
    told = binance_trades(captures)
    with open_stage(namespace, tick_capacity=capacity) as stage:
        market = stage.markets[FQME]
        stage.engine.push_ticks(market, told[:BEFORE])
        watch = stage.watch()
        levels, up = recorded_orders(told["price"])
        for number, level in enumerate(levels.tolist()):
            watch.arm(str(number), FQME, level)
        places: dict[str, int] = {}
        for start in range(BEFORE, len(told), 1500):
            stage.engine.push_ticks(market, told[start : start + 1500])
            polled = watch.poll()
            for each in polled.fired:
                assert each.oid not in places
                lost = each.from_bars
                places[each.oid] = -1 if lost else int(polled.ticks["seq"][each.place])
        first = oracle(told["price"][BEFORE:], levels, up) + BEFORE
        reached = np.flatnonzero(first < len(told))
        assert 1000 < len(reached) < ORDERS - 1000
        assert sorted(map(int, places)) == reached.tolist()
        by_tick = {int(oid): seq for oid, seq in places.items() if seq >= 0}
        later = [oid for oid, seq in by_tick.items() if seq != first[oid]]
        assert all(by_tick[oid] > first[oid] for oid in later)
        if capacity > len(told):
            assert not later and len(by_tick) == len(places)
        else:  # what a lost trade has reached, one that is still there may reach again
            assert len(later) < len(by_tick) < len(places)
