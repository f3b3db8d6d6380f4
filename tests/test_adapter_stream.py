"""Streams against a venue on loopback: lost, silent, replaced, spread, changed."""

import logging
from collections import Counter

import pytest
import trio

import piker_core as pk
from tests.adapter_socket import (
    AcmeFeed,
    AcmeVenue,
    add_market,
    open_acme,
    open_feed,
    wait_until,
)


def told_ids(feed: AcmeFeed, market: str) -> list[int]:
    """The ids in the tick ring, in their order."""
    with pk.attach_ticks("acme", namespace=feed.engine.namespace) as ticks:
        cursor = ticks.cursor(start="oldest", markets=[f"{market}.acme"])
        return [int(row["id"]) for row in cursor.poll(max=100_000)]


def assert_whole(feed: AcmeFeed, venue: AcmeVenue, market: str) -> None:
    """Every trade from the first told to the last is in the rings, once."""
    ids = told_ids(feed, market)
    assert Counter(ids).most_common(1)[0][1] == 1
    assert sorted(ids) == list(range(min(ids), max(ids) + 1))
    assert set(ids) <= {trade.id for trade in venue.trades[market]}


async def settle(feed: AcmeFeed, venue: AcmeVenue, market: str) -> None:
    """Live, and trades have come since."""
    handle = feed.markets[market].handle
    await wait_until(lambda: handle.status == "live")
    newest = venue.trades[market][-1].id if venue.trades[market] else 0
    await wait_until(lambda: handle.last_id > newest)


async def test_trades_of_all_markets_come_whole_from_the_first(namespace: str) -> None:
    async with open_acme("a", "b") as venue:
        async with open_feed(venue, "a", "b", namespace=namespace) as feed:
            for market in ("a", "b"):
                await settle(feed, venue, market)
                assert_whole(feed, venue, market)
            assert told_ids(feed, "a")[0] == 1
            statistics = feed.statistics()
            assert statistics.connections == 1 and statistics.frames > 2
            assert statistics.malformed == statistics.failed == 0


@pytest.mark.parametrize("by_topic", [False, True])
async def test_both_kinds_of_acknowledgement_make_it_live(
    by_topic: bool, namespace: str
) -> None:
    async with open_acme("a", "b") as venue:
        venue.by_topic = by_topic
        async with open_feed(venue, "a", "b", namespace=namespace) as feed:
            await feed.live.wait()
            await settle(feed, venue, "b")


@pytest.mark.parametrize("by_topic", [False, True])
async def test_a_refusal_at_the_start_is_an_error_with_the_market_and_the_reason(
    by_topic: bool, namespace: str
) -> None:
    async with open_acme("a", "b") as venue:
        venue.by_topic = by_topic
        venue.refuse = {"trade:b": "no such stream"}
        pattern = r"acme refuses . \(trade:.\): no such stream"
        with pytest.raises(pk.ProviderError, match=pattern):
            async with open_feed(venue, "a", "b", namespace=namespace):
                await trio.sleep_forever()


async def test_a_market_refused_later_stops_alone_and_says_why(namespace: str) -> None:
    async with open_acme("a", "b") as venue:
        venue.by_topic = True
        async with open_feed(venue, "a", "b", namespace=namespace) as feed:
            await settle(feed, venue, "a")
            venue.refuse = {"trade:b": "delisted"}
            venue.cut()
            await wait_until(lambda: feed.markets["b"].handle.status == "stopped")
            assert feed.markets["b"].reason == "delisted"
            await settle(feed, venue, "a")


async def test_a_cut_leaves_a_gap_that_is_fetched_and_no_trade_missing(
    namespace: str,
) -> None:
    async with open_acme("a") as venue:
        async with open_feed(venue, "a", namespace=namespace) as feed:
            await settle(feed, venue, "a")
            market = feed.markets["a"]
            venue.closed = True
            venue.cut()
            await wait_until(lambda: market.handle.status == "reconnecting")
            known = ("connection closed (1006)", "no connection")
            assert market.reason.startswith(known)  # of the cut, or of a try since
            for _ in range(5):
                venue.trade("a")
            await trio.sleep(0.3)
            venue.closed = False
            await settle(feed, venue, "a")
            await wait_until(lambda: not market.gaps)
            await settle(feed, venue, "a")
            assert_whole(feed, venue, "a")
            with pk.attach_bars("a.acme", period=1, namespace=namespace) as bars:
                (gap,) = bars.gaps()
                assert gap["repaired"] and gap["cause"] == b"connection closed (1006)"


# Silence


async def test_silence_is_death_whatever_the_socket_says(namespace: str) -> None:
    async with open_acme("a") as venue:
        async with open_feed(venue, "a", namespace=namespace, liveness_s=0.4) as feed:
            await settle(feed, venue, "a")
            venue.clients[0].line.frozen = True
            await wait_until(lambda: feed.statistics().stale == 1)
            await settle(feed, venue, "a")
            assert venue.ever == 2


async def test_a_quiet_venue_that_answers_a_probe_is_alive(namespace: str) -> None:
    async with open_acme("a") as venue:
        venue.trading_stopped = True
        async with open_feed(venue, "a", namespace=namespace, liveness_s=0.4) as feed:
            feed.probes = True
            await feed.live.wait()
            await wait_until(lambda: len(venue.clients[0].sent) > 4)
            assert [verb for _, verb, _ in venue.clients[0].sent[1:4]] == ["probe"] * 3
            assert feed.statistics().stale == 0 and venue.ever == 1
            venue.deaf = True
            await wait_until(lambda: venue.ever > 1)
            assert feed.statistics().stale > 0


async def test_requests_that_are_not_answered_end_the_connection(
    namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_acme("a") as venue:
        async with open_feed(
            venue, "a", namespace=namespace, ack_timeout_s=0.4
        ) as feed:
            await settle(feed, venue, "a")
            venue.deaf = True
            venue.cut()
            await wait_until(lambda: venue.ever > 2)
            venue.deaf = False
            await settle(feed, venue, "a")
            await wait_until(lambda: not feed.markets["a"].gaps)
            assert_whole(feed, venue, "a")
    assert "no acknowledgement of ['trade:a']" in caplog.text


async def test_a_market_that_goes_silent_alone_is_found_by_its_list(
    namespace: str,
) -> None:
    async with open_acme("a", "b") as venue:
        async with open_feed(
            venue, "a", "b", namespace=namespace, audit_s=0.3, audit_grace_s=0.1
        ) as feed:
            await settle(feed, venue, "a")
            venue.mute = {"b"}
            await wait_until(lambda: venue.ever > 1)
            venue.mute = set()
            await settle(feed, venue, "b")
            await wait_until(lambda: not feed.markets["b"].gaps)
            assert_whole(feed, venue, "b")
            with pk.attach_bars("b.acme", period=1, namespace=namespace) as bars:
                cause = bars.gaps()[0]["cause"].decode()
                assert cause == "no trades of b, though it trades"


# Replacement


async def test_a_replacement_loses_and_repeats_nothing(namespace: str) -> None:
    async with open_acme("a", "b") as venue:
        venue.pause_s = 0.001
        async with open_feed(venue, "a", "b", namespace=namespace) as feed:
            await settle(feed, venue, "a")
            statuses = set()
            for turn in range(1, 4):
                before = venue.clients[0]
                venue.say({"bye": True})
                while feed.statistics().rotations < turn:
                    statuses.add(feed.markets["a"].handle.status)
                    await trio.sleep(0.005)
                await wait_until(lambda: before not in venue.clients)  # noqa: B023
            await settle(feed, venue, "a")
            assert statuses == {"live"} and venue.ever == 4
            for market in ("a", "b"):
                assert_whole(feed, venue, market)
                with pk.attach_bars(f"{market}.acme", namespace=namespace) as bars:
                    assert not len(bars.gaps())
                    assert bars.statistics()["duplicates"] > 0  # both were heard


async def test_connections_are_replaced_before_they_are_too_old(namespace: str) -> None:
    async with open_acme("a") as venue:
        async with open_feed(venue, "a", namespace=namespace, rotate_s=0.5) as feed:
            await wait_until(lambda: feed.statistics().rotations >= 2)
            assert not feed.markets["a"].gaps
            assert_whole(feed, venue, "a")


async def test_a_replacement_that_fails_is_tried_again_and_costs_nothing(
    namespace: str,
) -> None:
    async with open_acme("a") as venue:
        async with open_feed(
            venue, "a", namespace=namespace, ack_timeout_s=0.3
        ) as feed:
            await settle(feed, venue, "a")
            old = venue.clients[0]
            venue.deaf = True
            feed.stream.rotate()
            await wait_until(lambda: venue.ever > 1)
            await wait_until(lambda: len(venue.clients) == 1)
            assert venue.clients == [old]
            assert feed.markets["a"].handle.status == "live"
            venue.deaf = False
            await wait_until(lambda: feed.statistics().rotations == 1)
            await settle(feed, venue, "a")
            assert_whole(feed, venue, "a")
            assert old not in venue.clients and not feed.markets["a"].gaps


async def test_a_replacement_that_fails_says_nothing_of_markets_that_were_refused(
    namespace: str,
) -> None:
    async with open_acme("a", "b") as venue:
        venue.by_topic = True
        async with open_feed(
            venue, "a", "b", namespace=namespace, ack_timeout_s=0.3
        ) as feed:
            await settle(feed, venue, "b")
            venue.refuse = {"trade:b": "delisted"}
            venue.cut()
            await wait_until(lambda: feed.markets["b"].handle.status == "stopped")
            await settle(feed, venue, "a")
            venue.deaf = True
            feed.stream.rotate()
            ever = venue.ever
            await wait_until(lambda: venue.ever > ever and len(venue.clients) == 1)
            assert feed.markets["b"].handle.status == "stopped"
            assert feed.markets["b"].reason == "delisted"


async def test_when_the_old_connection_dies_first_the_new_one_takes_over(
    namespace: str,
) -> None:
    async with open_acme("a") as venue:
        async with open_feed(venue, "a", namespace=namespace, overlap_s=60.0) as feed:
            await settle(feed, venue, "a")
            feed.stream.rotate()
            await wait_until(lambda: len(venue.clients) == 2)
            await wait_until(lambda: all(c.topics for c in venue.clients))
            await trio.sleep(0.1)
            venue.clients[0].line.reset()
            await wait_until(lambda: len(venue.clients) == 1)
            await settle(feed, venue, "a")
            assert venue.ever == 2 and not feed.markets["a"].gaps
            assert_whole(feed, venue, "a")


async def test_when_the_old_connection_dies_before_the_new_one_serves_it_is_a_gap(
    namespace: str,
) -> None:
    async with open_acme("a") as venue:
        async with open_feed(venue, "a", namespace=namespace) as feed:
            await settle(feed, venue, "a")
            market = feed.markets["a"]
            venue.deaf = True
            feed.stream.rotate()
            await wait_until(lambda: len(venue.clients) == 2)
            venue.clients[0].line.reset()
            await wait_until(lambda: market.handle.status == "reconnecting")
            venue.deaf = False
            await settle(feed, venue, "a")
            await wait_until(lambda: not market.gaps)
            assert_whole(feed, venue, "a")


@pytest.mark.parametrize("wait_s", [0.0, 0.3, 0.6])
async def test_a_replacement_for_a_connection_that_fell_silent_loses_nothing(
    wait_s: float, namespace: str
) -> None:
    async with open_acme("a") as venue:
        async with open_feed(
            venue, "a", namespace=namespace, liveness_s=0.5, overlap_s=1.0
        ) as feed:
            await settle(feed, venue, "a")
            venue.clients[0].line.frozen = True
            await trio.sleep(wait_s)  # before, at or after the time that is dead
            feed.stream.rotate()
            await wait_until(lambda: feed.statistics().stale)
            await settle(feed, venue, "a")
            newest = venue.trades["a"][-1].id
            await wait_until(lambda: newest in told_ids(feed, "a"))
            await wait_until(lambda: not feed.markets["a"].incomplete)
            assert_whole(feed, venue, "a")


# Many topics, changes while it runs, pace


async def test_topics_are_spread_over_as_many_connections_as_it_takes(
    namespace: str,
) -> None:
    names = ("a", "b", "c", "d", "e")
    async with open_acme(*names) as venue:
        async with open_feed(venue, *names, namespace=namespace, ws_topics=2) as feed:
            await feed.live.wait()
            assert sorted(len(c.topics) for c in venue.clients) == [1, 2, 2]
            for market in names:
                await settle(feed, venue, market)
            lone = next(c for c in venue.clients if c.topics == {"trade:e"})
            lone.line.reset()
            await wait_until(lambda: venue.ever == 4)
            await settle(feed, venue, "e")
            await wait_until(lambda: not feed.markets["e"].gaps)
            for market in names:
                assert_whole(feed, venue, market)
                with pk.attach_bars(f"{market}.acme", namespace=namespace) as bars:
                    assert len(bars.gaps()) == (market == "e")


async def test_markets_come_and_go_while_it_runs(namespace: str) -> None:
    async with open_acme("a", "b", "c") as venue:
        async with open_feed(venue, "a", namespace=namespace, ws_topics=2) as feed:
            await settle(feed, venue, "a")
            for market in ("b", "c"):
                add_market(venue, feed, market)
                await settle(feed, venue, market)
                assert_whole(feed, venue, market)
            assert venue.ever == 2
            gone, last = feed.markets["b"].handle, feed.markets["c"].handle
            feed.remove("b")
            assert gone.status == "stopped"
            await wait_until(lambda: {"trade:a"} in [c.topics for c in venue.clients])
            feed.remove("c")
            await wait_until(lambda: len(venue.clients) == 1)
            assert last.status == "stopped"
            await settle(feed, venue, "a")
            assert not feed.markets["a"].gaps and venue.ever == 2


async def test_requests_keep_their_pace_whatever_they_are_for(namespace: str) -> None:
    names = tuple("abcdef")
    async with open_acme(*names) as venue:
        async with open_feed(
            venue, *names, namespace=namespace, ws_batch=1, ws_rate=20.0, ws_burst=2
        ) as feed:
            await feed.live.wait()
            (client,) = venue.clients
            for market in ("a", "b"):
                feed.remove(market)
            await wait_until(lambda: len(client.topics) == 4)
            times = [at_s for at_s, _, _ in client.sent]
            assert len(times) == 8
            for first in range(len(times)):
                for last in range(first, len(times)):
                    most = (times[last] - times[first] + 0.03) * 20 + 2
                    assert last - first + 1 <= most


async def test_attempts_to_connect_are_counted_for_all_connections(
    namespace: str,
) -> None:
    names = tuple("abcdef")
    async with open_acme(*names) as venue:
        begin = trio.current_time()
        async with open_feed(
            venue,
            *names,
            namespace=namespace,
            ws_topics=1,
            connect_rate=10.0,
            connect_burst=2,
        ) as feed:
            await feed.live.wait()
            assert trio.current_time() - begin >= 0.4 and venue.ever == 6


# Trouble with frames


async def test_frames_that_are_not_understood_are_counted_and_logged_once(
    namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with open_acme("a") as venue:
        async with open_feed(venue, "a", namespace=namespace) as feed:
            await settle(feed, venue, "a")
            for _ in range(3):
                venue.say({"trade": {"topic": 5}})
                venue.say({"weather": "rain"})
                venue.say({"trade": {**TRADE, "topic": "trade:zzz"}})
            await wait_until(lambda: feed.statistics().unknown == 6)
            assert feed.statistics().malformed == 3
            await settle(feed, venue, "a")
            assert venue.ever == 1
            assert_whole(feed, venue, "a")
    said = [r for r in caplog.records if "counted only" in r.getMessage()]
    assert len(said) == 2


TRADE = {"topic": "trade:a", "id": 1, "time_ns": 1, "price": 1.0, "size": 1.0}


async def test_a_frame_that_breaks_the_code_ends_neither_stream_nor_connection(
    namespace: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_acme("a") as venue:
        async with open_feed(venue, "a", namespace=namespace) as feed:
            await settle(feed, venue, "a")
            look, turns = feed.market, []

            def stumble(name: str, raw: bytes) -> object:
                turns.append(name)
                if len(turns) < 4:
                    raise KeyError("a bug")
                return look(name, raw)

            monkeypatch.setattr(feed, "market", stumble)
            await settle(feed, venue, "a")
            await wait_until(lambda: not feed.markets["a"].gaps)
            assert feed.statistics().failed == 3 and venue.ever == 1
            await settle(feed, venue, "a")
    assert caplog.text.count("Traceback") == 1


async def test_an_address_that_cannot_be_had_is_asked_for_again(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Exception] = [
        pk.ProviderError("no token"),
        pk.DataThrottle("not now", retry_after=1.0),
    ]

    async def url(self: AcmeFeed) -> str:
        if failures:
            raise failures.pop()
        return self.venue_url

    monkeypatch.setattr(AcmeFeed, "url", url)
    async with open_acme("a") as venue:
        async with open_feed(venue, "a", namespace=namespace) as feed:
            await settle(feed, venue, "a")
            assert not failures


async def test_an_address_that_is_none_is_a_configuration_error(namespace: str) -> None:
    venue = AcmeVenue()
    venue.url = "nonsense"
    with pytest.raises(pk.ConfigError, match=r"\[acme\] ws_url"):
        async with open_feed(venue, "a", namespace=namespace):
            await trio.sleep_forever()


def test_a_market_with_more_topics_than_a_connection_has_is_refused() -> None:
    feed = AcmeFeed("ws://x", None, ws_topics=2)
    with pytest.raises(ValueError, match="3 topics of one market, 2 a connection"):
        feed.stream.add(["x", "y", "z"])
