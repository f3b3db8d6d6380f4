"""Lines of market data: refusals, slots, samples, odd lots, delayed data, long gaps."""

import logging
from functools import partial
from typing import Any

import pytest
import trio

import piker_core as pk
from providers.ib.venue import HistoryLimits, Limits, Tape
from tests.ib_gateway import (
    CRYPTO,
    FOREX,
    INDEX,
    STOCK,
    assert_paid,
    front,
    open_pointed,
    settle,
    wait_repaired,
    wait_until,
    wrong_rows,
)
from tests.ib_scenes import Scenes, open_feed, point

scenes = Scenes()


@scenes.add
async def slots_go_to_the_first_markets_and_never_to_an_index() -> None:
    settings = {"tick_by_tick_lines": 2}
    async with point(settings=settings) as venue:
        future, _ = front(venue)
        names = [INDEX, future, FOREX, STOCK]
        async with open_feed(names) as feed:
            for name in names:
                await settle(feed.flumes[name])
            sources = [feed.statistics()[name]["stream"]["source"] for name in names]
            assert sources == ["sampled", "ticks", "ticks", "sampled"]
            assert venue.statistics().tick_by_tick == 2


@scenes.add
async def odd_lots_are_dark_and_make_no_bars() -> None:
    tape = Tape(sample_s=0.05, print_min=30)
    async with point(tape=tape, live_rate=100.0) as venue:
        kinds: dict[str, int] = {}
        async with open_feed([STOCK]) as feed:
            flume = feed.flumes[STOCK]
            await settle(flume)
            async for quotes in feed.stream():
                for tick in quotes[STOCK]["ticks"]:
                    kinds[tick["type"]] = kinds.get(tick["type"], 0) + 1
                if kinds.get("dark_trade", 0) > 5 and kinds.get("trade", 0) > 20:
                    break
            venue.faults.cut()
            await wait_repaired(flume)
            rows = flume.rt.snapshot(flume.rt.head - flume.rt.first)[:-2]
            printed: dict[int, list[Any]] = {}
            for trade in venue.trades("AAPL"):
                if trade.size >= 30:
                    printed.setdefault(trade.time_ns // 10**9, []).append(trade)
            for row in rows:
                trades = printed.get(int(row["time"]), [])
                assert row["count"] == len(trades)
                assert row["volume"] == sum(trade.size for trade in trades)
                if trades:
                    assert row["open"] == trades[0].price
                    assert row["close"] == trades[-1].price


async def sampled_volume_is_that_of_all_or_of_printed_trades(
    rt_volume: int,
) -> None:
    settings: dict[str, Any] = {"tick_by_tick_lines": 0, "rt_volume": rt_volume}
    async with point(settings=settings) as venue:
        future, symbol = front(venue)
        async with open_feed([future]) as feed:
            flume = feed.flumes[future]
            await settle(flume)
            await trio.sleep(2.0)
            await assert_paid(venue, flume.rt, symbol)
            stream = feed.statistics()[future]["stream"]
            assert stream["times"] == "exchange, milliseconds"
            assert stream["source"] == "sampled"


@scenes.add
async def a_sampled_market_is_repaired_without_counting_anything_twice() -> None:
    settings = {"tick_by_tick_lines": 0}
    async with point(settings=settings) as venue:
        future, symbol = front(venue)
        async with open_feed([future]) as feed:
            flume = feed.flumes[future]
            await settle(flume)
            venue.faults.outage(1.2)
            await wait_repaired(flume)
            await trio.sleep(0.5)
            await assert_paid(venue, flume.rt, symbol)
            venue.faults.cut()
            await wait_until(lambda: len(flume.rt.gaps()) == 2)
            await wait_repaired(flume)
            await assert_paid(venue, flume.rt, symbol)


@scenes.add
async def delayed_data_are_taken_where_they_are_asked_for() -> None:
    tape = Tape(sample_s=0.05, delay_s=2.0)
    settings = {"market_data_type": 3, "tick_by_tick_lines": 1}
    async with point(tape=tape, settings=settings) as venue:
        venue.faults.refuse_symbol("AAPL")
        async with open_feed([STOCK]) as feed:
            flume = feed.flumes[STOCK]
            await settle(flume)
            stream = feed.statistics()[STOCK]["stream"]
            assert stream["source"] == "sampled" and stream["times"] == "arrival"
            assert flume.rt.snapshot(5)["volume"].sum() > 0


@scenes.add
async def many_markets_start_within_the_limits_of_the_venue() -> None:
    async with point(live_rate=40.0) as venue:
        future, symbol = front(venue)
        stocks = {f"{each.lower()}.nasdaq.ib": each for each in ("MSFT", "TSLA", "AMD")}
        names = [future, STOCK, FOREX, INDEX, CRYPTO, *stocks]
        async with open_feed(names) as feed:
            for name in names:
                await wait_until(lambda f=feed.flumes[name]: f.status == "live")
            await settle(feed.flumes[future])
            assert not wrong_rows(venue, feed.flumes[future].rt, symbol)
            for name, symbol in stocks.items():
                rows = feed.flumes[name].rt
                if rows.head > rows.first + 5:
                    await assert_paid(venue, rows, symbol)
        statistics = venue.statistics()
        assert statistics.message_refused == statistics.pacing_refused == 0


@scenes.add
async def a_server_of_the_oldest_version_serves_as_well() -> None:
    async with point(server_version=157) as venue:
        future, symbol = front(venue)
        async with open_feed([future]) as feed:
            flume = feed.flumes[future]
            await settle(flume)
            venue.faults.cut()
            await wait_repaired(flume)
            assert not wrong_rows(venue, flume.rt, symbol)


for number in (233, 375):
    sampled = partial(sampled_volume_is_that_of_all_or_of_printed_trades, number)
    scenes.add(sampled, f"sampled volume by {number} is exact in the end")


@pytest.mark.parametrize("name", scenes.names)
def test_lines(name: str) -> None:
    scenes.check(name)


async def test_a_market_without_rights_is_an_error_that_names_it(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_pointed(monkeypatch) as venue:
        future, _ = front(venue)
        venue.faults.refuse_symbol("AAPL")
        with pytest.raises(pk.ProviderError) as caught:
            async with pk.open_feed([future, STOCK]):
                raise AssertionError("it opened")
        text = str(caught.value)
        assert "aapl.nasdaq.ib" in text and "code 354" in text
        assert "market_data_type = 3" in text


async def test_a_market_refused_later_leaves_the_others_alone_and_comes_back(
    namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "providers.ib")
    async with open_pointed(monkeypatch) as venue:
        future, symbol = front(venue)
        async with pk.open_feed([future, STOCK]) as feed:
            await settle(feed.flumes[STOCK])
            venue.faults.refuse_symbol("AAPL")
            venue.faults.cut()
            await wait_repaired(feed.flumes[future])
            assert feed.flumes[STOCK].status == "stopped"
            assert feed.flumes[STOCK].rt.status_reason == "refused (354)"
            assert not wrong_rows(venue, feed.flumes[future].rt, symbol)
            venue.faults.refuse_symbol("AAPL", False)
            await wait_repaired(feed.flumes[STOCK])
            assert not wrong_rows(venue, feed.flumes[STOCK].rt, "AAPL")
            assert feed.statistics()[STOCK]["stream"]["refusals"] >= 1
    said = [r for r in caplog.records if "is asked for again" in r.getMessage()]
    assert len(said) == 1 and "aapl.nasdaq.ib" in said[0].getMessage()


async def test_more_markets_than_lines_is_an_error_that_says_so(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_pointed(monkeypatch, limits=Limits(lines=2)) as venue:
        future, _ = front(venue)
        with pytest.raises(pk.ProviderError, match=r"code 101.*fewer markets"):
            async with pk.open_feed([future, STOCK, FOREX]):
                raise AssertionError("it opened")


async def test_a_gap_too_long_for_its_trades_is_rebuilt_from_bars(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.ib.archive.PAGE_TICKS", 5)
    settings = {"repair_pages": 2, "burst_requests": 90, "history_requests": 500}
    limits = HistoryLimits(identical_s=0.0, same=100, requests=1000)
    async with open_pointed(
        monkeypatch, settings=settings, history_limits=limits
    ) as venue:
        future, symbol = front(venue)
        async with pk.open_feed([future]) as feed:
            flume = feed.flumes[future]
            await settle(flume)
            venue.faults.refuse_connections()
            venue.faults.cut()
            await trio.sleep(4.0)
            venue.faults.refuse_connections(False)
            asked = venue.statistics().requests.get("reqHistoricalData", 0)
            await wait_repaired(flume)
            assert venue.statistics().requests["reqHistoricalData"] > asked
            assert not wrong_rows(venue, flume.rt, symbol, fields="ohlcv")


async def test_a_gateway_that_does_not_run_fails_the_feed_with_one_sentence(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.ib_gateway import point

    point(monkeypatch, port=9)
    with pytest.raises(pk.ProviderError, match=r"127\.0\.0\.1:9 \(Connection refused"):
        async with pk.open_feed([STOCK]):
            raise AssertionError("it opened")
