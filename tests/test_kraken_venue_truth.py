"""The simulated Kraken tells the truth over WebSocket, from its start to its end."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
import trio
from venue_client import PATIENCE_S, Client, as_received, open_client, parse_ns, with_ns
from websockets.exceptions import ConnectionClosed

from providers.kraken.venue import Limits, Venue, open_venue

QUIET = "MLN/EUR"  # it never trades live


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(seed=7, history_s=600, live_rate=300) as opened:
        yield opened


@pytest.fixture
async def client(venue: Venue) -> AsyncIterator[Client]:
    async with open_client(venue) as opened:
        yield opened


async def test_trades_received_equal_those_of_the_venue(
    venue: Venue, client: Client
) -> None:
    await client.subscribe("trade", "BTC/USD", snapshot=True)
    while len(client.trades()) < 200:
        await client.wait_channel("trade")
    truth = [as_received(trade, "BTC/USD") for trade in venue.trades("XBTUSD")]
    received = await client.read_trades(truth[-1]["trade_id"])
    first = received[0]["trade_id"] - truth[0]["trade_id"]
    received = [with_ns(trade) for trade in received[: len(truth) - first]]
    assert received == truth[first:]
    ids = [trade["trade_id"] for trade in received]
    assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_a_snapshot_of_fifty_trades_is_sent_only_when_asked_for(
    client: Client,
) -> None:
    await client.subscribe("trade", "ETH/USD")
    await client.subscribe("trade", "BTC/USD", snapshot=True)
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    sizes: dict[str, int] = {}
    while len(kinds["ETH/USD"]) < 3 or len(kinds["BTC/USD"]) < 3:
        frame = await client.wait(lambda frame: frame.get("channel") == "trade")
        kinds[frame["data"][0]["symbol"]].append(frame["type"])
        sizes.setdefault(frame["type"], len(frame["data"]))
    assert sizes["snapshot"] == 50
    assert set(kinds["ETH/USD"]) == {"update"}
    assert kinds["BTC/USD"][0] == "snapshot"
    assert set(kinds["BTC/USD"][1:]) == {"update"}


async def test_trades_with_one_time_stamp_are_in_one_frame(client: Client) -> None:
    await client.subscribe("trade", "BTC/USD")
    stamps: list[str] = []
    lengths = set()
    while len(stamps) < 60:
        frame = await client.wait_channel("trade")
        (stamp,) = {trade["timestamp"] for trade in frame["data"]}
        stamps.append(stamp)
        lengths.add(len(frame["data"]))
    assert len(set(stamps)) == len(stamps)
    assert max(lengths) > 1


async def test_running_bars_are_exact_at_each_update(
    venue: Venue, client: Client
) -> None:
    await client.subscribe("trade", "BTC/USD", snapshot=True)
    await client.subscribe("ohlc", "BTC/USD", interval=5, snapshot=False)
    for _ in range(30):
        frame = await client.wait_channel("ohlc")
    (bar,) = frame["data"]
    begin_ns, end_ns = parse_ns(bar["interval_begin"]), parse_ns(frame["timestamp"])
    inside = [
        trade
        for trade in venue.trades("BTC/USD")
        if begin_ns <= trade.time_ns <= end_ns
    ]
    prices = [trade.exact_price for trade in inside]
    volume = sum((trade.exact_size for trade in inside), Decimal(0))
    notional = sum(
        (trade.exact_price * trade.exact_size for trade in inside), Decimal(0)
    )
    assert bar["volume"] == volume
    assert bar["trades"] == len(inside)
    assert (bar["open"], bar["close"]) == (prices[0], prices[-1])
    assert (bar["high"], bar["low"]) == (max(prices), min(prices))
    assert 0 <= notional / volume - bar["vwap"] < Decimal("0.1")
    assert begin_ns % (300 * 10**9) == 0


async def test_the_bar_snapshot_equals_the_candles_that_traded(venue: Venue) -> None:
    async with open_client(venue) as client:
        await client.subscribe("ohlc", "MLN/EUR")
        frame = await client.wait_channel("ohlc", "snapshot")
    bars = {parse_ns(bar["interval_begin"]) // 10**9: bar for bar in frame["data"]}
    candles = venue.candles(QUIET, 60, 0, 2**40)
    traded = [candle for candle in candles if candle.count][-10:]
    assert [candle.time_s for candle in traded] == list(bars)
    for candle in traded:
        bar = bars[candle.time_s]
        assert (bar["open"], bar["high"]) == (candle.open, candle.high)
        assert (bar["low"], bar["close"]) == (candle.low, candle.close)
        assert (bar["volume"], bar["trades"]) == (candle.volume, candle.count)
        assert bar["vwap"] == candle.vwap


async def test_the_ticker_follows_trades_or_the_best_quote(client: Client) -> None:
    await client.subscribe("ticker", "BTC/USD", event_trigger="trades")
    await client.subscribe("ticker", QUIET, event_trigger="bbo", snapshot=False)
    await client.subscribe("trade", "BTC/USD")
    rows: dict[str, dict[str, Any]] = {}
    with trio.fail_after(PATIENCE_S):
        while rows.keys() != {"BTC/USD", QUIET} or not client.trades():
            (row,) = (await client.wait_channel("ticker"))["data"]
            rows[row["symbol"]] = row
    (row,) = (await client.wait(is_ticker_of_a_trade))["data"]
    last = client.trades()[-1]
    assert (row["last"], row["timestamp"]) == (last["price"], last["timestamp"])
    for frame in client.frames:
        if frame.get("channel") == "ticker":
            (row,) = frame["data"]
            assert row["bid"] < row["ask"]
            assert row["low"] <= row["last"] <= row["high"]


def is_ticker_of_a_trade(frame: dict[str, Any]) -> bool:
    """Whether a frame is BTC/USD's ticker after a trade."""
    return (
        frame.get("channel") == "ticker"
        and frame["type"] == "update"
        and frame["data"][0]["symbol"] == "BTC/USD"
    )


async def test_a_pair_that_does_not_trade_is_acknowledged_and_stays_silent(
    venue: Venue, client: Client
) -> None:
    (ack,) = await client.subscribe("trade", QUIET, snapshot=True)
    assert ack["success"]
    (ack,) = await client.subscribe("ticker", QUIET)
    assert ack["success"]
    truth = [as_received(trade, QUIET) for trade in venue.trades(QUIET)]
    await client.wait(lambda frame: frame == {"channel": "heartbeat"})
    assert [with_ns(trade) for trade in client.trades()] == truth[-50:]
    assert not [frame for frame in client.frames if frame.get("type") == "update"][1:]


async def test_candles_are_the_sums_of_the_trades_flat_ones_included(
    venue: Venue,
) -> None:
    candles = venue.candles(QUIET, 1, 0, 2**40)
    trades = defaultdict(list)
    for trade in venue.trades(QUIET):
        trades[trade.time_ns // 10**9].append(trade)
    assert candles[0].time_s == min(trades)
    assert trades.keys() <= {candle.time_s for candle in candles}
    for before, candle in itertools.pairwise(candles):
        assert candle.time_s == before.time_s + 1
        inside = trades[candle.time_s]
        assert candle.count == len(inside)
        assert candle.volume == sum(trade.exact_size for trade in inside)
        prices = [trade.exact_price for trade in inside] or [before.close]
        assert (candle.open, candle.close) == (prices[0], prices[-1])
        assert (candle.high, candle.low) == (max(prices), min(prices))
    assert {candle.count for candle in candles} > {0, 1}


async def test_the_truth_reaches_up_to_now_even_if_the_loop_is_behind(
    venue: Venue,
) -> None:
    due_ns = venue.market("XBTUSD").due_ns()
    assert due_ns is not None
    while time.time_ns() < due_ns:
        pass  # the venue's own tasks do not run meanwhile
    assert venue.trades("XBTUSD")[-1].time_ns >= due_ns
    due_ns = venue.market("XBTUSD").due_ns()
    assert due_ns is not None
    while time.time_ns() < due_ns:
        pass
    before = len(venue.market("XBTUSD").rows())
    venue.candles("XBTUSD", 1, 0, 2**40)
    assert len(venue.market("XBTUSD").rows()) > before


async def test_the_seed_makes_the_market() -> None:
    markets = []
    for seed in (3, 3, 4):
        async with open_venue(seed=seed, history_s=300, pairs=["XBTUSD"]) as venue:
            trades = venue.trades("BTC/USD")[:300]
        start_ns = trades[0].time_ns
        markets.append(
            [
                (
                    row.trade_id,
                    (row.time_ns - start_ns) // 1000,
                    (row.exact_price, row.exact_size, row.side, row.ord_type),
                )
                for row in trades
            ]
        )
    assert markets[0] == markets[1]
    assert markets[0] != markets[2]


async def test_a_client_that_does_not_read_is_dropped_and_slows_nobody() -> None:
    limits = Limits(outbox_bytes=2 << 20)
    async with open_venue(history_s=60, live_rate=300, limits=limits) as venue:
        async with open_client(venue) as good, open_client(venue, max_queue=2) as stuck:
            for client in (good, stuck):
                await client.subscribe("trade", "BTC/USD")
            while not venue.statistics().connections_dropped:
                venue.faults.malformed(["large"])
                await good.wait(lambda frame: frame.get("channel") == "weather")
            while venue.statistics().connections > 1:
                await trio.lowlevel.checkpoint()
            truth = venue.trades("BTC/USD")
            received = await good.read_trades(truth[-1].trade_id)
            ids = [trade["trade_id"] for trade in received]
            assert ids == list(range(ids[0], ids[0] + len(ids)))
            with pytest.raises(ConnectionClosed):
                await stuck.read_to_end()


async def test_leaving_says_goodbye_and_errors_of_the_body_pass_as_they_are() -> None:
    async with trio.open_nursery() as nursery:
        ended = trio.Event()

        async def stay(venue: Venue, ready: trio.Event) -> None:
            async with open_client(venue) as client:
                ready.set()
                with pytest.raises(ConnectionClosed):
                    await client.read_to_end()
                assert client.socket.close_code == 1001
                ended.set()

        async def fail() -> None:
            async with open_venue(history_s=60) as venue:
                ready = trio.Event()
                nursery.start_soon(stay, venue, ready)
                await ready.wait()
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await fail()
        await ended.wait()


async def test_an_unknown_pair_and_a_port_in_use_are_errors() -> None:
    with pytest.raises(ValueError, match="FOO/BAR"):
        async with open_venue(pairs=["FOO/BAR"]):
            pass
    async with open_venue(history_s=60) as venue:
        with pytest.raises(ValueError, match="FOO/BAR"):
            venue.market("FOO/BAR")
        port = int(venue.rest_url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            async with open_venue(history_s=60, rest_port=port):
                pass


async def test_statistics_count_connections_subscriptions_and_frames(
    venue: Venue,
) -> None:
    async with open_client(venue) as client:
        await client.subscribe("trade", "BTC/USD", "ETH/USD")
        during = venue.statistics()
        await client.wait_channel("trade")
    async with open_client(venue):
        pass
    while venue.statistics().connections:
        await trio.lowlevel.checkpoint()
    after = venue.statistics()
    assert (during.connections, during.subscriptions) == (1, 2)
    assert (after.connections_ever, after.subscriptions) == (2, 0)
    assert after.frames_sent >= len(client.frames) + 1


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_alone_it_serves_until_a_signal_and_leaves_cleanly(
    signal_number: signal.Signals,
) -> None:
    command = [sys.executable, "-m", "providers.kraken.venue", "--seed", "3"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    ) as process:
        try:
            assert process.stdout is not None
            urls = json.loads(process.stdout.readline())
            reply = httpx.get(f"{urls['rest_url']}/0/public/SystemStatus")
            assert reply.json()["result"]["status"] == "online"
            assert urls["ws_url"].endswith("/v2")
            process.send_signal(signal_number)
            out, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out, errors) == (0, b"", b"")


def test_alone_it_stops_after_its_seconds() -> None:
    command = [sys.executable, "-m", "providers.kraken.venue", "--seconds", "0.1"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    urls = {"ws_url", "ws_auth_url", "rest_url"}
    assert set(json.loads(done.stdout)) == urls | {"api_key", "api_secret"}
    assert done.stderr == b""
