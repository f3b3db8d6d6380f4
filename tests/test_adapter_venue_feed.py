"""What a provider's feed is made of, without sockets: requests out, messages in."""

import errno
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import piker_core as pk
from piker_core.adapter.market_feed import MarketFeed
from piker_core.adapter.stream import Link, RefusedError
from tests.adapter_socket import AcmeFeed, normalize


@pytest.fixture
def feed(namespace: str) -> Iterator[AcmeFeed]:
    """A feed of the markets a and b that is connected to nothing."""
    with pk.open_engine("acme", namespace=namespace) as engine:
        opened = AcmeFeed("ws://nowhere", engine.send_channel())
        opened.engine = engine
        for name in ("a", "b"):
            add(opened, name)
        yield opened


def add(feed: AcmeFeed, name: str) -> MarketFeed:
    handle = feed.engine.add_market(f"{name}.acme", capacity={1: 4096, 60: 4096})
    market = MarketFeed(name, handle, feed, normalize=normalize)
    feed.add(name, market, trades=f"trade:{name}", others=[f"best:{name}"])
    return market


def ask(feed: AcmeFeed) -> tuple[Link, dict[str, Any]]:
    """A connection that has sent its first request, and that request."""
    link = feed.stream.new_link(feed.stream.lanes[0])
    request = link.book.next_request(0.0)
    assert request is not None
    return link, msgspec.json.decode(feed.encode(request) or b"")


def trade(name: str, number: int) -> bytes:
    row = {"topic": f"trade:{name}", "id": number, "time_ns": 10**18 + number}
    return msgspec.json.encode({"trade": row | {"price": 5.0, "size": 1.0}})


async def test_a_request_and_its_answer_make_markets_live(feed: AcmeFeed) -> None:
    link, request = ask(feed)
    assert request["topics"] == ["trade:a", "best:a", "trade:b", "best:b"]
    assert not feed.live.is_set()
    await feed.take(link, b'{"ok":%d}' % request["n"])
    assert feed.live.is_set()
    for market in feed.markets.values():
        assert market.handle.status == "live"
    await feed.take(link, trade("b", 7))
    assert [m.handle.last_id for m in feed.markets.values()] == [0, 7]


async def test_only_the_topic_of_trades_decides(feed: AcmeFeed) -> None:
    link, _ = ask(feed)
    await feed.take(link, b'{"ok":"best:a"}')
    assert feed.markets["a"].handle.status == "starting"
    await feed.take(link, b'{"ok":"trade:a"}')
    assert feed.markets["a"].handle.status == "live"
    feed.live.set()
    await feed.take(link, b'{"no":"best:b","why":"no quotes"}')
    assert feed.markets["b"].handle.status == "starting"
    assert feed.statistics().refusals == 1
    feed.lost(["best:a"], "cut", 5)
    assert feed.markets["a"].handle.status == "live"


async def test_quotes_may_come_by_a_feed_of_their_own(feed: AcmeFeed) -> None:
    quotes = AcmeFeed("ws://elsewhere", feed.engine.send_channel())
    market = feed.markets["a"]
    quotes.add("a", market, others=["quotes:a"])
    link, request = ask(quotes)
    await quotes.take(link, b'{"ok":%d}' % request["n"])
    assert quotes.live.is_set() and market.handle.status == "starting"
    assert list(quotes.watched()) == [] and market in list(feed.watched())
    link, request = ask(feed)
    await feed.take(link, b'{"ok":%d}' % request["n"])
    quotes.stale(["quotes:a"])
    quotes.lost(["quotes:a"], "cut", 5)
    quotes.remove("a")
    assert market.handle.status == "live"
    feed.remove("a")
    assert market.handle.status == "stopped"


@pytest.mark.parametrize("by_topic", [False, True])
async def test_what_a_dead_connection_lost_is_told_before_another_takes_over(
    by_topic: bool, feed: AcmeFeed
) -> None:
    old, request = ask(feed)
    await feed.take(old, b'{"ok":%d}' % request["n"])
    old.heard_ns = time.time_ns() - 10**9
    new, request = ask(feed)
    feed.stale(["trade:a", "trade:b"])
    old.abandon("no frame for 2 s")  # its socket is not closed yet
    for answer in request["topics"] if by_topic else [request["n"]]:
        await feed.take(new, msgspec.json.encode({"ok": answer}))
    for market in feed.markets.values():
        assert market.handle.status == "live"
        assert [gap.start_ns for gap in market.gaps] == [old.heard_ns]


async def test_what_was_lost_first_is_told_first(feed: AcmeFeed) -> None:
    old, request = ask(feed)
    await feed.take(old, b'{"ok":%d}' % request["n"])
    old.heard_ns = time.time_ns() - 10**9
    new, _ = ask(feed)
    new.heard_ns = time.time_ns()
    for link in (new, old):
        link.abandon("no frame for 2 s")
    feed.stream.tell_losses(feed.stream.lanes[0])
    third, request = ask(feed)
    await feed.take(third, b'{"ok":%d}' % request["n"])
    for market in feed.markets.values():
        assert [gap.start_ns for gap in market.gaps] == [old.heard_ns]


async def test_answers_to_nothing_change_nothing(feed: AcmeFeed) -> None:
    link, request = ask(feed)
    for raw in (b'{"ok":99}', b'{"ok":"trade:z"}', b'{"no":99}', b'{"no":"z"}'):
        await feed.take(link, raw)
    assert not link.ack_request(99) and not link.ack("trade:z")
    assert not link.refuse_request(99, "") and not link.refuse("z", "")
    assert len(link.book.in_state("pending")) == 4
    assert link.ack_request(request["n"]) and not link.ack_request(request["n"])


async def test_a_refusal_before_all_is_live_ends_the_stream(feed: AcmeFeed) -> None:
    link, request = ask(feed)
    with pytest.raises(RefusedError, match=r"acme refuses a \(trade:a\): full"):
        await feed.take(link, b'{"no":%d,"why":"full"}' % request["n"])


async def test_a_market_whose_start_fails_stops_alone(
    feed: AcmeFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(now_ns: int) -> None:
        raise OSError(errno.ENOSPC, "/dev/shm is full")

    monkeypatch.setattr(feed.markets["a"], "up", stumble)
    link, request = ask(feed)
    await feed.take(link, b'{"ok":%d}' % request["n"])
    assert feed.live.is_set()
    first, second = feed.markets.values()
    assert first.handle.status == "stopped" and "/dev/shm is full" in first.reason
    assert second.handle.status == "live"


async def test_a_venue_that_does_not_trade_does_not_trade_new_markets_either(
    feed: AcmeFeed,
) -> None:
    feed.set_trading(False)
    market = add(feed, "c")
    market.up(10**18)
    assert market.handle.status == "closed"
    feed.set_trading(True)
    assert market.handle.status == "live"


async def test_quotes_that_the_engine_refuses_are_counted(feed: AcmeFeed) -> None:
    assert not await feed.send({"symbol": "zzz", "ticks": []})
    assert feed.statistics().refused == 1
    feed.engine.close()
    with pytest.raises(Exception, match="closed"):
        await feed.send({"symbol": "a", "ticks": []})


async def test_what_is_lost_says_why_and_silence_is_stale(feed: AcmeFeed) -> None:
    link, request = ask(feed)
    await feed.take(link, b'{"ok":%d}' % request["n"])
    feed.stale(["trade:a"])
    assert feed.markets["a"].handle.status == "stale"
    feed.lost(["trade:a", "best:a"], "no frame for 2 s", 10**18)
    market = feed.markets["a"]
    assert market.handle.status == "reconnecting"
    assert market.reason == "no frame for 2 s"
    assert feed.markets["b"].handle.status == "live"
