"""Binance's feed when REST fails, symbols do not trade or nothing is there at all."""

from pathlib import Path
from typing import Any

import pytest
import trio

import piker_core as pk
from providers.binance.venue import Limits, Venue
from tests.binance_feeds import (
    BOTH,
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


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    set_patience(monkeypatch)


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch) -> Point:
    return make_point(monkeypatch)


def calls(venue: Venue) -> int:
    return sum(venue.statistics().rest_requests.values())


async def settle_filled(venue: Venue, feed: pk.Feed) -> None:
    """Settled, and nothing more is asked of REST."""
    for flume in feed.flumes.values():
        await wait_until(lambda hist=flume.hist: hist.head - hist.first > 10)
    await settle(feed)
    asked = -1
    while asked != calls(venue):
        asked = calls(venue)
        await trio.sleep(0.5)


# REST


async def test_repair_waits_for_a_venue_that_throttles_and_fails(
    point: Point, namespace: str
) -> None:
    async with point() as venue, pk.open_feed(BOTH) as feed:
        await settle_filled(venue, feed)
        venue.faults.throttle(2)
        venue.faults.html(2, status=502)
        venue.faults.unavailable(2)
        venue.faults.cut()
        await wait_repaired(feed)
        done = venue.faults.done
        assert done["throttle"] == done["html"] == done["unavailable"] == 2
        await check_exact(venue, feed)


async def test_nobody_calls_before_a_ban_ends(point: Point, namespace: str) -> None:
    async with point() as venue, pk.open_feed(BOTH) as feed:
        await settle_filled(venue, feed)
        began_s = trio.current_time()
        venue.faults.ban(2.0)
        before = calls(venue)
        venue.faults.cut()
        for flume in feed.flumes.values():
            await wait_until(lambda rt=flume.rt: len(rt.gaps()))
        await wait_until(lambda: calls(venue) >= before + 2)  # one of each side
        await wait_until(lambda: calls(venue) > before + 2)
        assert trio.current_time() - began_s >= 2.0
        await wait_repaired(feed)
        assert venue.statistics().rest_bans == 2  # the fault's own
        await check_exact(venue, feed)


async def test_the_weight_of_a_minute_is_never_overspent(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_BINANCE__REST_WEIGHT", "300")
    monkeypatch.setenv("PIKER_BINANCE__HOLD_S", "0.2")
    few = Limits(weight=300)
    async with point(limits=few) as venue, pk.open_feed([SPOT, THIN]) as feed:
        await settle(feed)
        for _ in range(5):
            ever = venue.statistics().connections_ever
            venue.faults.cut()
            await wait_until(lambda e=ever: venue.statistics().connections_ever > e)
        await settle(feed)
        statistics = venue.statistics()
        assert statistics.rest_refused == statistics.rest_bans == 0
        assert 150 <= statistics.rest_weight <= 300


# Limits of a connection


async def test_pings_are_answered_and_requests_are_paced(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_BINANCE__WS_BATCH", "1")
    strict = Limits(ping_s=0.5, pong_s=1.0)
    names = [SPOT, THIN, "ethusdt.binance"]
    async with point(limits=strict) as venue, pk.open_feed(names) as feed:
        await settle(feed)
        await trio.sleep(1.6)  # the pong of any ping would be late by now
        statistics = venue.statistics()
        assert statistics.connections_ever == statistics.connections == 1
        assert statistics.subscriptions == 2 * len(names)
        await check_exact(venue, feed)


# Markets that do not trade


async def test_a_symbol_that_does_not_trade_is_one_sentence(
    point: Point, namespace: str
) -> None:
    async with point():
        for fqme, status in (
            ("bccbtc.binance", "BREAK"),
            ("fttusdt.usdtm.perp.binance", "SETTLING"),
        ):
            with pytest.raises(
                pk.ProviderError, match=rf"{fqme} does not trade: .* is {status},"
            ):
                async with pk.open_feed([SPOT, fqme]):
                    raise AssertionError("it opened")


async def test_a_halt_of_the_venue_closes_its_markets(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_BINANCE__STATUS_S", "0.5")
    async with point() as venue, pk.open_feed(BOTH) as feed:
        await settle(feed)
        venue.faults.maintenance(2.4)
        for flume in feed.flumes.values():
            await wait_until(lambda f=flume: f.status == "closed")
        heads = [flume.rt.head for flume in feed.flumes.values()]
        await trio.sleep(1.1)
        assert heads == [flume.rt.head for flume in feed.flumes.values()]
        await settle(feed)
        assert not any(len(flume.rt.gaps()) for flume in feed.flumes.values())
        for fqme in BOTH:
            assert stream_of(feed, fqme)["connections"] == 1
        await check_exact(venue, feed)


async def test_a_market_that_is_refused_later_touches_no_other(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_BINANCE__STATUS_S", "0.5")
    async with point() as venue, pk.open_feed([SPOT, "ethusdt.binance"]) as feed:
        await settle(feed)
        venue.faults.refuse_symbol("ETHUSDT")  # acknowledged, and never told
        venue.faults.cut()
        flume = feed.flumes[SPOT]
        await wait_until(
            lambda: len(flume.rt.gaps()) and flume.rt.gaps()["repaired"][0]
        )
        rows = len(closed_rows(flume.rt))
        await wait_until(lambda: len(closed_rows(flume.rt)) > rows + 1)
        other = feed.flumes["ethusdt.binance"]
        assert other.rt.gaps()["repaired"].tolist() == [0]
        await wait_until(lambda: other.status == "closed")  # it is not listed any more
        assert flume.status == "live"
        venue.faults.refuse_symbol("ETHUSDT", False)
        await wait_until(lambda: other.status == "live")
        assert other.rt.gaps()["repaired"][0] == 0


# Nothing there


async def test_an_unknown_symbol_is_one_sentence_with_what_comes_near(
    point: Point, namespace: str
) -> None:
    async with point():
        for name, near in (
            ("btcusdx.binance", r"btcusdt\.binance"),
            ("btcusdt.usdtm.parp.binance", r"btcusdt\.usdtm\.perp\.binance"),
        ):
            text = rf"binance has no market '{name[:-8]}.*near it: .*{near}"
            with pytest.raises(pk.NotFound, match=text):
                async with pk.open_feed([name]):
                    raise AssertionError("it opened")


async def test_a_name_of_another_form_is_told_ours(
    point: Point, namespace: str
) -> None:
    async with point():
        with pytest.raises(pk.PikerError, match="lower case"):
            async with pk.open_feed(["BTCUSDT.binance"]):
                raise AssertionError("it opened")


@pytest.mark.parametrize(("fqme", "key"), [(SPOT, "rest_url"), (PERP, "usdm_rest_url")])
async def test_no_network_is_one_sentence(
    namespace: str, monkeypatch: pytest.MonkeyPatch, fqme: str, key: str
) -> None:
    monkeypatch.setenv(f"PIKER_BINANCE__{key.upper()}", "http://127.0.0.1:9")
    monkeypatch.setenv("PIKER_BINANCE__REST_ATTEMPTS", "1")
    text = rf"127\.0\.0\.1:9.*\n?.*{key} in \[binance\]"
    with pytest.raises(pk.ProviderError, match=text):
        async with pk.open_feed([fqme]):
            raise AssertionError("it opened")


@pytest.mark.parametrize(("fqme", "key"), [(SPOT, "ws_url"), (PERP, "usdm_ws_url")])
async def test_a_websocket_address_that_is_none_is_a_configuration_error(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch, fqme: str, key: str
) -> None:
    async with point():
        monkeypatch.setenv(f"PIKER_BINANCE__{key.upper()}", "nonsense")
        with pytest.raises(pk.PikerError, match=rf"\[binance\] {key}"):
            async with pk.open_feed([fqme]):
                raise AssertionError("it opened")


async def test_one_side_may_be_out_of_reach_while_the_other_is_used(
    point: Point, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with point() as venue:
        monkeypatch.setenv("PIKER_BINANCE__USDM_REST_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("PIKER_BINANCE__USDM_WS_URL", "ws://127.0.0.1:9")
        async with pk.open_feed([SPOT]) as feed:
            await settle(feed)
            await check_exact(venue, feed)


def test_an_unknown_key_is_named_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[binance]\ntardes = "aggtrade"\n')
    monkeypatch.setenv("PIKER_CONFIG", str(path))

    async def open_one() -> Any:
        async with pk.open_feed([SPOT]):
            raise AssertionError("it opened")

    with pytest.raises(pk.ConfigError, match=rf"{path}: \[binance\].*tardes.*trades"):
        trio.run(open_one)
    path.write_text('[binance]\ntrades = "some"\n')
    with pytest.raises(pk.ConfigError, match="trades"):
        trio.run(open_one)
