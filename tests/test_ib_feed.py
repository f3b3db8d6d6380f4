"""Interactive Brokers' stream against a simulated TWS: every fault, exact bars."""

import logging
from functools import partial

import numpy as np
import pytest
import trio

import piker_core as pk
from tests.ib_gateway import (
    CRYPTO,
    FOREX,
    INDEX,
    STOCK,
    assert_paid,
    front,
    open_gaps,
    open_pointed,
    settle,
    wait_repaired,
    wait_until,
    wrong_rows,
)
from tests.ib_scenes import Scenes, open_feed, point

GAP = int(pk.BarFlag.SYNTHETIC_GAP)
scenes = Scenes()


@scenes.add
async def bars_of_every_class_are_the_venues_own_from_the_first_row() -> None:
    async with point(settings={"tick_by_tick_lines": 5}) as venue:
        future, symbol = front(venue)
        known = {
            future: (symbol, "TRADES"),
            STOCK: ("AAPL", "TRADES"),
            FOREX: ("EUR.USD", "BID"),
            CRYPTO: ("BTC.USD", "AGGTRADES"),
        }
        async with open_feed(list(known)) as feed:
            for fqme, flume in feed.flumes.items():
                assert flume.first_quote["last"] > 0
                await settle(flume)
                await wait_until(lambda f=flume: f.rt.head - f.rt.first > 4)
                await wait_until(lambda f=flume: f.hist.head - f.hist.first > 10)
                symbol, what = known[fqme]
                fields = "ohlc" if what == "BID" else "ohlcvn"
                for bars in (flume.rt, flume.hist):
                    assert not wrong_rows(venue, bars, symbol, what=what, fields=fields)
                    assert not len(bars.gaps())
            statistics = feed.statistics()[future]
            assert statistics["stream"]["source"] == "ticks"
            assert statistics["unplaced"] == statistics["refused"] == 0
        assert venue.statistics().pacing_refused == 0
        assert venue.statistics().message_refused == 0


@scenes.add
async def a_cut_connection_costs_no_trade_and_leaves_a_repaired_gap() -> None:
    async with point() as venue:
        future, symbol = front(venue)
        async with open_feed([future, FOREX]) as feed:
            flume, forex = feed.flumes[future], feed.flumes[FOREX]
            await settle(flume)
            venue.faults.refuse_connections()
            venue.faults.cut()
            await wait_until(lambda: flume.status == "reconnecting")
            rows = flume.rt.head
            await trio.sleep(2.1)
            assert flume.rt.head == rows  # no row is invented while the feed is down
            venue.faults.refuse_connections(False)
            await wait_repaired(flume)
            (gap,) = flume.rt.gaps()
            assert gap["cause"].startswith(b"connection lost")
            assert (flume.rt.snapshot(100)["flags"] & int(pk.BarFlag.REPAIRED)).any()
            assert not wrong_rows(venue, flume.rt, symbol)
            assert not wrong_rows(venue, flume.hist, symbol)
            await wait_repaired(forex)
            assert not wrong_rows(venue, forex.rt, "EUR.USD", what="BID", fields="ohlc")


async def an_outage_is_repaired_with_and_without_subscriptions(
    lost: bool,
) -> None:
    async with point() as venue:
        future, symbol = front(venue)
        async with open_feed([future, STOCK]) as feed:
            flume = feed.flumes[future]
            await settle(flume)
            venue.faults.outage(2.0, lost=lost)
            await wait_until(lambda: flume.status == "reconnecting")
            for each in feed.flumes.values():
                await wait_repaired(each)
            assert b"TWS lost its link (1100)" in flume.rt.gaps()["cause"].tolist()
            assert not wrong_rows(venue, flume.rt, symbol)
            assert not wrong_rows(venue, feed.flumes[STOCK].rt, "AAPL")
            assert feed.statistics()[future]["stream"]["connections"] == 1


@scenes.add
async def the_daily_restart_is_survived() -> None:
    async with point() as venue:
        future, symbol = front(venue)
        async with open_feed([future]) as feed:
            flume = feed.flumes[future]
            await settle(flume)
            venue.faults.restart(2.5)
            await wait_until(lambda: flume.status == "reconnecting")
            await wait_repaired(flume)
            assert not wrong_rows(venue, flume.rt, symbol)
            assert not wrong_rows(venue, flume.hist, symbol)


@scenes.add
async def a_half_open_connection_is_found_by_its_silence() -> None:
    hasty = {"ping_s": 0.5, "liveness_s": 1.0, "connect_timeout_s": 1.0}
    async with point(settings=hasty) as venue:
        future, symbol = front(venue)
        async with open_feed([future]) as feed:
            flume = feed.flumes[future]
            await settle(flume)
            venue.faults.half_open()
            await wait_until(lambda: flume.status == "stale")
            venue.faults.half_open(False)
            await wait_repaired(flume)
            assert not wrong_rows(venue, flume.rt, symbol)
            assert feed.statistics()[future]["stream"]["stale"] >= 1


@scenes.add
async def a_market_without_a_slot_is_sampled_and_its_volume_is_exact() -> None:
    async with point() as venue:
        venue.faults.slots(1)
        future, symbol = front(venue)
        async with open_feed([STOCK, future]) as feed:
            for flume in feed.flumes.values():
                await settle(flume)
            sources = {
                fqme: each["stream"]["source"]
                for fqme, each in feed.statistics().items()
            }
            assert sorted(sources.values()) == ["sampled", "ticks"]
            sampled = [name for name, source in sources.items() if source == "sampled"]
            names = {future: symbol, STOCK: "AAPL"}
            rows = feed.flumes[sampled[0]].rt
            await assert_paid(venue, rows, names[sampled[0]])
            times = feed.statistics()[sampled[0]]["stream"]["times"]
            assert times == "exchange, milliseconds"


@scenes.add
async def a_broken_data_farm_makes_silent_markets_stale() -> None:
    async with point() as venue:
        future, symbol = front(venue)
        async with open_feed([future]) as feed:
            flume = feed.flumes[future]
            await settle(flume)
            venue.faults.connectivity(2103)
            await wait_until(lambda: flume.status == "stale")
            venue.faults.connectivity(2104)
            await wait_repaired(flume)
            assert flume.rt.gaps()["cause"].tolist() == [b"data farm broken"]
            assert not wrong_rows(venue, flume.rt, symbol)


@scenes.add
async def a_restored_link_without_ticks_is_asked_again() -> None:
    async with point() as venue:
        future, symbol = front(venue)
        async with open_feed([future]) as feed:
            flume = feed.flumes[future]
            await settle(flume)
            venue.faults.silent()
            venue.faults.outage(0.5)
            await wait_until(lambda: flume.status == "reconnecting")
            asked = venue.statistics().requests["reqMktData"]
            await wait_until(lambda: venue.statistics().requests["reqMktData"] > asked)
            venue.faults.silent(False)
            await wait_repaired(flume)
            assert not wrong_rows(venue, flume.rt, symbol)


@scenes.add
async def history_that_never_answers_delays_the_repair_alone() -> None:
    async with point(settings={"history_timeout_s": 3}) as venue:
        future, symbol = front(venue)
        async with open_feed([future]) as feed:
            flume = feed.flumes[future]
            await wait_until(lambda: flume.hist.head - flume.hist.first > 10)
            await settle(flume)
            venue.faults.history_never_answers(2)
            venue.faults.cut()
            await wait_until(lambda: flume.status == "live" and len(flume.rt.gaps()))
            head = flume.rt.head
            await wait_until(lambda: flume.rt.head > head + 1)
            assert open_gaps(flume.rt)
            await wait_repaired(flume)
            assert not wrong_rows(venue, flume.rt, symbol)


@scenes.add
async def dropped_ticks_are_found_by_the_volume_and_fetched() -> None:
    async with point(live_rate=30.0) as venue:
        future, symbol = front(venue)
        async with open_feed([future]) as feed:
            flume = feed.flumes[future]
            await settle(flume)
            await trio.sleep(1.5)
            venue.faults.drop(0.4)
            await wait_until(lambda: len(flume.rt.gaps()))
            venue.faults.drop(0.0)
            await wait_repaired(flume)
            await wait_until(lambda: not wrong_rows(venue, flume.rt, symbol))
            assert feed.statistics()[future]["stream"]["missed"] > 0
            assert flume.rt.gaps()["cause"][0] == b"trades missing in stream"


@scenes.add
async def broken_framing_ends_the_connection_and_nothing_else() -> None:
    async with point() as venue:
        future, symbol = front(venue)
        async with open_feed([future]) as feed:
            flume = feed.flumes[future]
            await settle(flume)
            venue.faults.malformed(["giant_length"])
            await wait_repaired(flume)
            assert flume.rt.gaps()["cause"][0].startswith(b"broken framing")
            assert not wrong_rows(venue, flume.rt, symbol)


@scenes.add
async def bytes_may_come_one_at_a_time() -> None:
    async with point(live_rate=20.0, contracts=["EUR.USD", "AAPL"]) as venue:
        venue.faults.byte_at_a_time()
        async with open_feed([STOCK]) as feed:
            flume = feed.flumes[STOCK]
            await settle(flume)
            assert not wrong_rows(venue, flume.rt, "AAPL")


@scenes.add
async def a_second_session_goes_on_in_the_rings_of_the_first() -> None:
    async with point() as venue:
        future, symbol = front(venue)
        async with open_feed([future]) as feed:
            await settle(feed.flumes[future])
        await trio.sleep(1.5)
        async with open_feed([future]) as feed:
            flume = feed.flumes[future]
            await wait_repaired(flume)
            assert flume.rt.generation == 2
            assert flume.rt.gaps()["cause"].tolist() == [b"restart"]
            assert not wrong_rows(venue, flume.rt, symbol)
            assert not wrong_rows(venue, flume.hist, symbol)


@scenes.add
async def the_days_volume_may_begin_again() -> None:
    async with point(settings={"tick_by_tick_lines": 0}) as venue:
        future, symbol = front(venue)
        async with open_feed([future]) as feed:
            flume = feed.flumes[future]
            await settle(flume)
            venue.faults.reset_volume()
            await trio.sleep(3.0)
            await assert_paid(venue, flume.rt, symbol)
            assert feed.statistics()[future]["stream"]["resets"] == 1


@scenes.add
async def prices_of_an_index_make_bars_without_volume() -> None:
    async with point() as venue:
        async with open_feed([INDEX]) as feed:
            flume = feed.flumes[INDEX]
            await settle(flume)
            rows = flume.rt.snapshot(10)
            assert (rows["volume"] == 0).all() and (rows["count"] > 0).any()
            assert not wrong_rows(venue, flume.rt, "SPX", fields="c")
            assert np.isfinite(rows["bar_wap"]).all()


@scenes.add
async def nothing_is_left_at_the_gateway_when_a_feed_has_ended() -> None:
    async with point() as venue:
        async with open_feed([STOCK]) as feed:
            await settle(feed.flumes[STOCK])
        await wait_until(lambda: venue.statistics().lines == 0)
        await wait_until(lambda: venue.statistics().connections == 0)


for how, lost in (("1101", True), ("1102", False)):
    outage = partial(an_outage_is_repaired_with_and_without_subscriptions, lost)
    scenes.add(outage, f"an outage of the link that ends with {how} is repaired")


@pytest.mark.parametrize("name", scenes.names)
def test_the_feed(name: str) -> None:
    scenes.check(name)


async def test_another_session_with_the_data_makes_markets_stale_and_is_said_once(
    namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "providers.ib")
    async with open_pointed(monkeypatch) as venue:
        future, symbol = front(venue)
        async with pk.open_feed([future, STOCK]) as feed:
            flume = feed.flumes[future]
            await settle(flume)
            venue.faults.competing_session()
            await wait_until(lambda: flume.status == "stale")
            await trio.sleep(1.5)
            venue.faults.competing_session(False)
            for each in feed.flumes.values():
                await wait_repaired(each)
            assert not wrong_rows(venue, flume.rt, symbol)
    said = [r for r in caplog.records if "competing live session" in r.getMessage()]
    assert len(said) == 1


async def test_broken_messages_are_counted_and_logged_once(
    namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from providers.ib.venue_faults import MALFORMED

    caplog.set_level(logging.WARNING, "providers.ib")
    async with open_pointed(monkeypatch) as venue:
        future, symbol = front(venue)
        async with pk.open_feed([future]) as feed:
            flume = feed.flumes[future]
            await settle(flume)
            small = MALFORMED[: MALFORMED.index("large") + 1]
            for _ in range(2):
                venue.faults.malformed(small)
            await settle(flume)
            stream = feed.statistics()[future]["stream"]
            assert stream["malformed"] >= 10 and stream["unknown"] == 2
            assert stream["connections"] == 1
            assert not wrong_rows(venue, flume.rt, symbol)
    texts = [r.getMessage() for r in caplog.records if "counted only" in r.getMessage()]
    assert len(texts) == len({text.split(":")[0] for text in texts})


async def test_seconds_are_back_filled_below_the_live_rows(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_pointed(monkeypatch) as venue:
        monkeypatch.setenv("PIKER_FEED__SECONDS_BACK", "800")
        future, symbol = front(venue)
        async with pk.open_feed([future]) as feed:
            rt = feed.flumes[future].rt
            await wait_until(lambda: rt.head - rt.first > 790)
            rows = rt.snapshot(2000)
            assert (np.diff(rows["time"]) == 1).all()
            assert not wrong_rows(venue, rt, symbol)
            assert not (rows["flags"] & GAP).any()
