"""Kraken's stream against the simulated venue: every fault, and the bars stay exact."""

import json
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
import trio

import piker_core as pk
from piker_core.adapter.link import Link
from piker_core.adapter.repair import fetch_seam
from piker_core.adapter.subscriptions import TopicRequest
from providers.kraken.api import Client, Config
from providers.kraken.feed import KrakenFeed
from providers.kraken.markets import Pair
from providers.kraken.venue import Venue, open_venue
from tests.kraken_answers import pair

FQME = "xbtusd.kraken"
QUIET = "mlneur.kraken"
GAP = int(pk.BarFlag.SYNTHETIC_GAP)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short deadlines, and no configuration of the user's."""
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    monkeypatch.setenv("PIKER_KRAKEN__LIVENESS_S", "1.5")
    monkeypatch.setenv("PIKER_KRAKEN__ACK_TIMEOUT_S", "1.5")
    monkeypatch.setenv("PIKER_KRAKEN__REST_RATE", "40")
    monkeypatch.setenv("PIKER_KRAKEN__REST_BURST", "40")
    monkeypatch.setenv("PIKER_FEED__SECONDS_BACK", "0")


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a venue that the provider is pointed at."""

    @asynccontextmanager
    async def open_pointed(**options: Any) -> AsyncIterator[Venue]:
        known = {"seed": 5, "live_rate": 60.0, "history_s": 900.0}
        free = {"rest_rate": 100.0, "rest_burst": 100}
        async with open_venue(**(known | free | options)) as venue:
            monkeypatch.setenv("PIKER_KRAKEN__WS_URL", venue.ws_url)
            monkeypatch.setenv("PIKER_KRAKEN__REST_URL", venue.rest_url)
            yield venue

    return open_pointed


async def wait_until(look: Any) -> None:
    while not look():
        await trio.sleep(0.02)


def count_wrong(venue: Venue, bars: pk.BarReader, *, settled_s: float = 1.0) -> int:
    """Rows that are not the venue's own candles, and traded candles without a row.

    Of rows that ended less than `settled_s` ago trades may be on their way.
    """
    rows = bars.snapshot(bars.head - bars.first)
    rows = rows[rows["time"] + bars.period <= time.time() - settled_s]
    name = bars.fqme.partition(".")[0].upper()
    start, end = int(rows["time"][0]), int(rows["time"][-1]) + bars.period
    candles = {c.time_s: c for c in venue.candles(name, bars.period, start, end)}
    times = set(rows["time"].tolist())
    wrong = sum(1 for t, c in candles.items() if c.count and t not in times)
    for row in rows:
        c = candles[int(row["time"])]
        want = [float(price) for price in (c.open, c.high, c.low, c.close)]
        got = [row[field] for field in ("open", "high", "low", "close")]
        wrong += row["count"] != c.count
        wrong += want != got or round(float(row["volume"]), 8) != float(c.volume)
    return wrong


def open_gaps(bars: pk.BarReader) -> int:
    gaps = bars.gaps()
    return int((gaps["repaired"] == 0).sum())


async def settle(flume: pk.Flume) -> None:
    """Live, with rows up to now, and a few rows older.

    The rows of the running minute come by and by.
    """
    await wait_until(lambda: flume.status == "live")
    await wait_until(lambda: flume.rt.head > flume.rt.first)
    await wait_until(lambda: int(flume.rt.last()["time"]) >= int(time.time()) - 1)
    head = flume.rt.head
    await wait_until(lambda: flume.rt.head > head + 1)


async def wait_repaired(flume: pk.Flume) -> None:
    """Live, at least one gap on record, and all of them repaired."""
    rt = flume.rt
    await wait_until(lambda: flume.status == "live" and len(rt.gaps()))
    await wait_until(lambda: not open_gaps(rt))
    head = rt.head
    await wait_until(lambda: rt.head > head + 1)


async def test_bars_of_a_calm_venue_are_its_own_from_the_first_row(
    point: Any, namespace: str
) -> None:
    async with point() as venue, pk.open_feed([FQME, QUIET]) as feed:
        flume = feed.flumes[FQME]
        assert str(flume.market.price_tick) == "0.1"
        assert all(each.first_quote["last"] > 0 for each in feed.flumes.values())
        await wait_until(lambda: flume.rt.head - flume.rt.first > 3)
        await wait_until(lambda: flume.hist.head - flume.hist.first > 10)
        assert count_wrong(venue, flume.rt) == 0
        assert count_wrong(venue, flume.hist) == 0
        assert not len(flume.rt.gaps())
        rows = flume.hist.snapshot(1000)
        assert (np.diff(rows["time"]) == 60).all()
        assert not (rows["flags"] & int(pk.BarFlag.PARTIAL)).any()
        statistics = feed.statistics()[FQME]
        assert statistics["unplaced"] == statistics["refused"] == 0


async def test_no_row_is_begun_while_the_running_minute_is_fetched(
    point: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = trio.Event()

    async def fetch_slowly(*arguments: Any) -> Any:
        await may_end.wait()
        return await fetch_seam(*arguments)

    monkeypatch.setattr("piker_core.adapter.watch.fetch_seam", fetch_slowly)
    monkeypatch.setenv("PIKER_KRAKEN__HOLD_S", "600")
    async with point() as venue, pk.open_feed([FQME]) as feed:
        flume = feed.flumes[FQME]
        await wait_until(lambda: flume.hist.head - flume.hist.first > 10)
        assert flume.status == "backfilling"
        beat = flume.rt.heartbeat_ns
        await wait_until(lambda: flume.rt.heartbeat_ns > beat)  # the clock has stepped
        newest = flume.hist.head
        assert flume.rt.head == flume.rt.first
        may_end.set()
        await settle(flume)
        rows = flume.hist.snapshot(1000)
        assert flume.hist.head > newest and not len(flume.hist.gaps())
        assert not (rows["flags"] & int(pk.BarFlag.PARTIAL)).any()
        assert count_wrong(venue, flume.rt) == 0


async def test_every_trade_and_quote_reaches_the_subscriber_once(
    point: Any, namespace: str
) -> None:
    async with point() as venue, pk.open_feed([FQME]) as feed:
        ids: list[int] = []
        kinds: set[str] = set()
        async for quotes in feed.stream():
            for tick in quotes[FQME]["ticks"]:
                kinds.add(tick["type"])
                if tick["type"] == "trade":
                    ids.append(tick["id"])
            if len(ids) > 100 and len(kinds) > 3:
                break
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        truth = {trade.trade_id: trade for trade in venue.trades("XBTUSD")}
        assert set(ids) <= set(truth)
        assert {"trade", "bid", "ask"} <= kinds


async def test_a_cut_connection_costs_no_trade_and_leaves_a_repaired_gap(
    point: Any, namespace: str
) -> None:
    async with point() as venue, pk.open_feed([FQME]) as feed:
        flume = feed.flumes[FQME]
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
        assert gap["cause"] == b"connection closed (1006)" and gap["repaired"]
        repaired = flume.rt.snapshot(100)["flags"] & int(pk.BarFlag.REPAIRED)
        assert repaired.any()
        assert count_wrong(venue, flume.rt) == 0
        assert count_wrong(venue, flume.hist) == 0


async def test_a_half_open_connection_is_found_by_its_silence(
    point: Any, namespace: str
) -> None:
    async with point() as venue, pk.open_feed([FQME]) as feed:
        flume = feed.flumes[FQME]
        await settle(flume)
        venue.faults.half_open()
        await wait_until(lambda: flume.status in ("stale", "reconnecting"))
        venue.faults.half_open(False)
        await wait_repaired(flume)
        assert count_wrong(venue, flume.rt) == 0
        assert feed.statistics()[FQME]["stream"]["stale"] >= 1


async def test_repeated_disordered_and_dropped_frames_change_no_bar(
    point: Any, namespace: str
) -> None:
    async with point(live_rate=200.0) as venue, pk.open_feed([FQME]) as feed:
        flume = feed.flumes[FQME]
        await settle(flume)
        venue.faults.duplicate(0.2)
        venue.faults.disorder(0.2)
        venue.faults.drop(0.1)
        await wait_until(lambda: venue.faults.done["drop"] > 5)
        await wait_until(lambda: venue.faults.done["duplicate"] > 5)
        for fault in (venue.faults.duplicate, venue.faults.disorder, venue.faults.drop):
            fault(0.0)
        head = flume.rt.head
        await wait_until(lambda: flume.rt.head > head + 3)  # a last loss is noticed
        await wait_repaired(flume)
        assert count_wrong(venue, flume.rt) == 0
        assert flume.rt.statistics()["duplicates"] > 0
        assert feed.statistics()[FQME]["stream"]["connections"] == 1


async def test_broken_frames_are_counted_and_logged_once(
    point: Any, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    from providers.kraken.venue_faults import MALFORMED

    caplog.set_level(logging.WARNING, "providers.kraken")
    async with point() as venue, pk.open_feed([FQME]) as feed:
        flume = feed.flumes[FQME]
        await settle(flume)
        small = [name for name in MALFORMED if name not in ("large", "giant")]
        for names in (small, small, ["large"], small):
            venue.faults.malformed(names)
        venue.faults.malformed(["giant"])
        await settle(flume)
        stream = feed.statistics()[FQME]["stream"]
        assert stream["malformed"] >= 24 and stream["unknown"] >= 9
        assert stream["refused"] >= 3 and stream["connections"] == 1
        assert count_wrong(venue, flume.rt) == 0
    texts = [r.getMessage() for r in caplog.records if "counted only" in r.getMessage()]
    assert len(texts) == len({text.split(":")[0] for text in texts}) == 3


async def test_a_symbol_that_the_venue_refuses_is_an_error_with_its_name(
    point: Any, namespace: str
) -> None:
    async with point() as venue:
        venue.faults.refuse_symbol("BTC/USD")
        with pytest.raises(pk.ProviderError, match=r"xbtusd.*BTC/USD.*not supported"):
            async with pk.open_feed([FQME, "ethusd.kraken"]):
                raise AssertionError("it opened")


async def test_a_market_refused_later_stops_alone(point: Any, namespace: str) -> None:
    async with point() as venue, pk.open_feed([FQME, "ethusd.kraken"]) as feed:
        await settle(feed.flumes[FQME])
        venue.faults.refuse_symbol("ETH/USD")
        venue.faults.cut()
        await wait_until(lambda: feed.flumes["ethusd.kraken"].status == "stopped")
        await wait_repaired(feed.flumes[FQME])
        assert feed.statistics()[FQME]["stream"]["refusals"] == 2  # trade and ticker


async def test_unanswered_subscriptions_are_tried_again(
    point: Any, namespace: str
) -> None:
    async with point() as venue, pk.open_feed([FQME]) as feed:
        await settle(feed.flumes[FQME])
        venue.faults.silent_acks()
        venue.faults.cut()
        connections = venue.statistics().connections_ever
        await wait_until(lambda: venue.statistics().connections_ever > connections + 1)
        venue.faults.silent_acks(False)
        await wait_repaired(feed.flumes[FQME])
        assert count_wrong(venue, feed.flumes[FQME].rt) == 0


async def test_maintenance_closes_the_market_without_rows_or_gaps(
    point: Any, namespace: str
) -> None:
    async with point() as venue, pk.open_feed([FQME]) as feed:
        flume = feed.flumes[FQME]
        await settle(flume)
        venue.faults.maintenance(3.0)
        await wait_until(lambda: flume.status == "closed")
        await wait_until(lambda: flume.status == "live")
        head = flume.rt.head
        await wait_until(lambda: flume.rt.head > head + 1)
        assert not len(flume.rt.gaps())
        assert count_wrong(venue, flume.rt) == 0


async def test_repair_waits_for_a_venue_that_throttles_and_fails(
    point: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_KRAKEN__THROTTLE_PAUSE_S", "0.3")
    async with point() as venue, pk.open_feed([FQME]) as feed:
        flume = feed.flumes[FQME]
        await wait_until(lambda: flume.hist.head - flume.hist.first > 10)
        await settle(flume)
        venue.faults.throttle(2)
        venue.faults.html(2)
        venue.faults.cut()
        await wait_repaired(flume)
        assert venue.faults.done["throttle"] == venue.faults.done["html"] == 2
        assert count_wrong(venue, flume.rt) == 0


async def test_a_second_session_goes_on_in_the_rings_of_the_first(
    point: Any, namespace: str
) -> None:
    async with point() as venue:
        async with pk.open_feed([FQME]) as feed:
            await settle(feed.flumes[FQME])
        await trio.sleep(1.5)
        async with pk.open_feed([FQME]) as feed:
            flume = feed.flumes[FQME]
            await wait_repaired(flume)
            assert flume.rt.generation == 2
            assert flume.rt.gaps()["cause"].tolist() == [b"restart"]
            assert count_wrong(venue, flume.rt) == 0
            assert count_wrong(venue, flume.hist) == 0


async def test_seconds_are_back_filled_below_the_live_rows(
    point: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_FEED__SECONDS_BACK", "800")
    async with point() as venue, pk.open_feed([FQME, QUIET]) as feed:
        for flume in feed.flumes.values():
            await wait_until(lambda rt=flume.rt: rt.head - rt.first > 790)
            rows = flume.rt.snapshot(2000)
            assert (np.diff(rows["time"]) == 1).all()
            assert count_wrong(venue, flume.rt) == 0
            assert not (rows["flags"] & GAP).any()


async def test_no_network_is_one_sentence(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_KRAKEN__WS_URL", "ws://127.0.0.1:9/v2")
    monkeypatch.setenv("PIKER_KRAKEN__REST_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PIKER_KRAKEN__REST_ATTEMPTS", "1")
    with pytest.raises(pk.ProviderError, match=r"127\.0\.0\.1:9"):
        async with pk.open_feed([FQME]):
            raise AssertionError("it opened")


async def test_a_websocket_address_that_is_none_is_a_configuration_error(
    point: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with point():
        monkeypatch.setenv("PIKER_KRAKEN__WS_URL", "nonsense")
        with pytest.raises(pk.ConfigError, match="ws_url"):
            async with pk.open_feed([FQME]):
                raise AssertionError("it opened")


async def test_requests_are_of_one_channel_and_end_as_they_began(
    namespace: str,
) -> None:
    with pk.open_engine("kraken", namespace=namespace) as engine:
        client = SimpleNamespace(config=Config(ws_burst=9))
        feed = KrakenFeed(cast(Client, client), engine.send_channel())
        for altname, wsname in (("XBTUSD", "XBT/USD"), ("ETHUSD", "ETH/USD")):
            ((key, row),) = pair(altname, wsname, altname).items()
            known = msgspec.convert(row | {"key": key}, Pair, strict=False)
            handle = engine.add_market(f"{known.symbol}.kraken", capacity={1: 256})
            feed.add_pair(known.symbol, known, handle)
        link = feed.stream.new_link(feed.stream.lanes[0])
        asked = [json.loads(feed.encode(request) or b"") for request in requests(link)]
        assert [(r["method"], r["params"]["channel"]) for r in asked] == [
            ("subscribe", "trade"),
            ("subscribe", "ticker"),
        ]
        assert asked[0]["params"]["symbol"] == ["BTC/USD", "ETH/USD"]
        for request in asked:
            for symbol in request["params"]["symbol"]:
                await feed.take(link, ack(request, symbol))
        assert feed.live.is_set() and link.book.settled
        feed.remove("ETH/USD")
        for request in [json.loads(feed.encode(r) or b"") for r in requests(link)]:
            assert request["method"] == "unsubscribe"
            assert request["params"]["symbol"] == ["ETH/USD"]
            await feed.take(link, ack(request, "ETH/USD"))
        assert link.book.in_state("acked") == [
            ("trade", "BTC/USD"),
            ("ticker", "BTC/USD"),
        ]
        assert not link.book.in_state("leaving")


def requests(link: Link) -> Iterator[TopicRequest]:
    """All that is to be sent now."""
    while (request := link.book.next_request(time.monotonic())) is not None:
        yield request


def ack(request: dict[str, Any], symbol: str) -> bytes:
    """The venue's answer for one symbol of a request."""
    result = {"channel": request["params"]["channel"], "symbol": symbol}
    answer = {"method": request["method"], "success": True, "result": result}
    return json.dumps(answer | {"req_id": request["req_id"]}).encode()
