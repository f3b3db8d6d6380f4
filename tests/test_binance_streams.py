"""What Binance's frames mean for the markets, without sockets."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import numpy as np
import pytest
import trio
import trio.testing

import piker_core as pk
from piker_core.adapter.stream import Link, RefusedError
from providers.binance.api import Config
from providers.binance.client import Side
from providers.binance.feed import SideFeed
from providers.binance.streams import BinanceFeed
from providers.binance.wire import AGGREGATE, BEST, TRADE
from tests.binance_answers import Venue, info, ok, spot_symbol

T0_US = 1_790_000_000_000_000
SYMBOLS = info(
    spot_symbol("BTC", "USDT"),
    spot_symbol("ETH", "USDT"),
    spot_symbol("BCC", "BTC", status="BREAK"),
)


class Bench:
    """One side of two markets that is connected to nothing."""

    def __init__(self, engine: pk.FeedEngine, side: Side, *, apart: bool) -> None:
        self.engine = engine
        channel, config = engine.send_channel(), Config()
        at: Any = {"key": "ws_url", "path": "/stream"}
        kind = AGGREGATE if apart else TRADE
        self.feed = BinanceFeed(config, channel, **at, kind=kind)
        self.best = BinanceFeed(config, channel, **at, kind=BEST) if apart else None
        self.side = SideFeed(side, self.feed, self.best)

    async def add(self, name: str) -> Any:
        symbol = (await self.side.side.table()).find(name)
        handle = self.engine.add_market(
            f"{name}.binance", capacity={1: 4096, 60: 4096}, price_tick="0.01"
        )
        self.side.add(name, symbol, handle)
        market = self.feed.markets[symbol.venue_symbol]
        market.trades = None  # nothing can be fetched here
        return market

    def link(self, feed: BinanceFeed | None = None) -> Link:
        """A connection that has asked for all topics."""
        stream = (feed or self.feed).stream
        link = stream.new_link(stream.lanes[0])
        request = link.book.next_request(0.0)
        assert request is not None
        return link

    def kinds(self) -> list[tuple[int, str]]:
        """Market and kind of all ticks so far."""
        names = {code: name for name, code in pk.TICK_TYPES.items()}
        with pk.attach_ticks("binance") as ticks:
            rows = ticks.cursor(start="oldest").poll()
            return [(int(row["market"]), names[int(row["type"])]) for row in rows]


@pytest.fixture
async def bench(namespace: str) -> AsyncIterator[Bench]:
    venue = Venue("/api/v3/exchangeInfo", ok(SYMBOLS))
    async with venue.open_client() as client:
        with pk.open_engine("binance", tick_capacity=1 << 12) as engine:
            made = Bench(engine, client.spot, apart=False)
            for name in ("btcusdt", "ethusdt"):
                await made.add(name)
            yield made


@pytest.fixture
async def apart(namespace: str) -> AsyncIterator[Bench]:
    venue = Venue("/api/v3/exchangeInfo", ok(SYMBOLS))
    async with venue.open_client() as client:
        with pk.open_engine("binance", tick_capacity=1 << 12) as engine:
            made = Bench(engine, client.spot, apart=True)
            await made.add("btcusdt")
            yield made


def trade(number: int, symbol: str = "BTCUSDT", *, second: float = 0.0) -> bytes:
    event = {
        "e": "trade", "s": symbol, "t": number, "p": "100.00", "q": "0.5",
        "T": T0_US + int(second * 1e6), "m": False,
    }  # fmt: skip
    name = f"{symbol.lower()}@trade"
    return msgspec.json.encode({"stream": name, "data": event})


def best(update: int, bid: str, symbol: str = "BTCUSDT") -> bytes:
    event = {"u": update, "s": symbol, "b": bid, "B": "1", "a": "200", "A": "1"}
    name = f"{symbol.lower()}@bookTicker"
    return msgspec.json.encode({"stream": name, "data": event})


async def test_one_request_asks_for_all_streams_and_its_answer_makes_them_live(
    bench: Bench,
) -> None:
    link = bench.feed.stream.new_link(bench.feed.stream.lanes[0])
    request = link.book.next_request(0.0)
    assert request is not None
    assert msgspec.json.decode(bench.feed.encode(request) or b"") == {
        "method": "SUBSCRIBE",
        "id": 1,
        "params": [
            *("btcusdt@trade", "btcusdt@bookTicker"),
            *("ethusdt@trade", "ethusdt@bookTicker"),
        ],
    }
    await bench.feed.take(link, b'{"result":null,"id":1}')
    assert bench.feed.live.is_set()
    assert {m.handle.status for m in bench.feed.markets.values()} == {"live"}


async def test_a_probe_is_a_list_of_subscriptions_and_any_answer_will_do(
    bench: Bench,
) -> None:
    link = bench.link()
    await bench.feed.take(link, b'{"result":null,"id":1}')
    link.book.probe()
    request = link.book.next_request(1.0)
    assert request is not None
    asked = msgspec.json.decode(bench.feed.encode(request) or b"")
    assert asked == {"method": "LIST_SUBSCRIPTIONS", "id": 2}
    await bench.feed.take(link, b'{"result":["btcusdt@trade"],"id":2}')
    assert not bench.feed.statistics().unknown


@pytest.mark.parametrize(
    "raw",
    [
        b'{"code":2,"msg":"Invalid request: no","id":1}',
        b'{"error":{"code":2,"msg":"Invalid request: no"},"id":1}',
    ],
)
async def test_a_refused_request_is_an_error_with_a_market_and_its_stream(
    bench: Bench, raw: bytes
) -> None:
    with pytest.raises(RefusedError, match=r"btcusdt \(btcusdt@trade\): Invalid"):
        await bench.feed.take(bench.link(), raw)


async def test_answers_to_nothing_are_counted(bench: Bench) -> None:
    link = bench.link()
    for raw in (
        b'{"result":null,"id":77}',
        b'{"result":null,"id":"x"}',
        b'{"result":null,"id":null}',
        b'{"error":{"code":4,"msg":"Too many subscriptions"}}',
    ):
        await bench.feed.take(link, raw)
    assert bench.feed.statistics().unknown == 4 and not bench.feed.live.is_set()


async def test_trades_go_to_their_markets_and_strangers_are_counted(
    bench: Bench,
) -> None:
    link = bench.link()
    await bench.feed.take(link, b'{"result":null,"id":1}')
    for raw in (trade(7), trade(9, "ETHUSDT"), trade(8), trade(1, "XYZ")):
        await bench.feed.take(link, raw)
    last = [market.handle.last_id for market in bench.feed.markets.values()]
    assert last == [8, 9] and bench.feed.statistics().unknown == 1


async def test_an_older_update_of_the_best_quote_is_left_out(bench: Bench) -> None:
    old, new = bench.link(), bench.link()
    for link in (old, new):
        await bench.feed.take(link, b'{"result":null,"id":1}')
    for link, update, bid in (
        *((old, 5, "101"), (new, 6, "102"), (old, 5, "101"), (old, 6, "102")),
        *((new, 7, "103"), (new, 4, "99")),
    ):
        await bench.feed.take(link, best(update, bid))
    assert [kind for _, kind in bench.kinds()] == ["bid", "ask", "bid", "bid"]
    bench.feed.lost(["btcusdt@trade"], "cut", 1)
    await bench.feed.take(new, best(1, "104"))  # the venue may count anew
    assert [kind for _, kind in bench.kinds()][4:] == ["bid"]


async def test_an_announced_end_has_the_connection_replaced(bench: Bench) -> None:
    link = bench.link()
    assert not link.renew.is_set()
    raw = b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}'
    await bench.feed.take(link, raw)
    assert link.renew.is_set()


async def test_a_market_that_does_not_trade_is_closed_until_it_does(
    bench: Bench,
) -> None:
    market = await bench.add("bccbtc")
    link = bench.link()
    await bench.feed.take(link, b'{"result":null,"id":1}')
    assert market.handle.status == "closed"
    assert bench.feed.markets["ETHUSDT"].handle.status == "live"
    await bench.feed.take(link, trade(7, "BCCBTC"))
    assert market.trading and market.handle.status == "live"


async def test_best_quotes_that_go_apart_decide_nothing(apart: Bench) -> None:
    assert apart.best is not None and apart.side.feeds == [apart.feed, apart.best]
    link, other = apart.link(), apart.link(apart.best)
    handle = apart.feed.markets["BTCUSDT"].handle
    await apart.best.take(other, b'{"result":null,"id":1}')
    assert apart.best.live.is_set() and handle.status == "starting"
    await apart.best.take(other, best(5, "101"))
    assert [kind for _, kind in apart.kinds()] == ["bid", "ask"]
    await apart.feed.take(link, b'{"result":null,"id":1}')
    assert handle.status == "live"
    apart.best.lost(["btcusdt@bookTicker"], "cut", 1)
    assert handle.status == "live"
    assert not list(apart.best.watched())


async def test_a_trade_ahead_by_its_id_and_behind_by_its_time_is_none(
    bench: Bench,
) -> None:
    market, link = bench.feed.markets["BTCUSDT"], bench.link()
    await bench.feed.take(link, b'{"result":null,"id":1}')
    await bench.feed.take(link, trade(7, second=5))
    with pytest.raises(
        pk.ProviderError, match=r"trade 99 at .* than trade 7 of btcusdt"
    ):
        await bench.feed.take(link, trade(99, second=-3600))
    assert market.tracker.expected == 8 and market.handle.last_id == 7


async def test_a_jump_with_a_time_that_is_a_little_older_is_a_gap_of_no_length(
    bench: Bench,
) -> None:
    market, link = bench.feed.markets["BTCUSDT"], bench.link()
    await bench.feed.take(link, b'{"result":null,"id":1}')
    await bench.feed.take(link, trade(7, second=5))
    await bench.feed.take(link, trade(99, second=4))
    market.notice_jumps(float("inf"))
    assert market.handle.status == "live"
    (gap,) = market.gaps
    assert gap.start_ns + 1 == gap.end_ns == (T0_US + 5 * 10**6) * 1000 + 1


class FewTrades:
    """A list of trades 8 and 9, by time or from an id that it has."""

    async def walk(self, since_ns: int, until_ns: int, first_id: int) -> Any:
        rows = np.zeros(2, pk.TICK_DTYPE)
        rows["id"], rows["price"], rows["size"], rows["count"] = (8, 9), 100.0, 0.5, 1
        rows["type"], rows["time_ns"] = pk.TICK_TYPES["trade"], (T0_US + 9) * 1000
        yield rows[rows["id"] >= first_id], 0


async def test_what_was_lost_behind_an_id_that_never_was_is_fetched_by_time(
    bench: Bench,
) -> None:
    market, link = bench.feed.markets["BTCUSDT"], bench.link()
    await bench.feed.take(link, b'{"result":null,"id":1}')
    await bench.feed.take(link, trade(7))
    await bench.feed.take(link, trade(10**12))
    market.trades = FewTrades()
    market.down("cut", T0_US * 1000)
    now_ns = (T0_US + 10) * 1000
    market.up(now_ns)
    assert not await market.fill(now_ns + 1, final=False)
    assert not await market.fill(now_ns + 1, final=True)
    assert await market.fill(now_ns + 1, final=True)
    assert not market.gaps and market.tracker.expected == 10
    with pk.attach_bars("btcusdt.binance", period=1) as bars:
        assert bars.gaps()["repaired"].tolist() == [1]
        assert bars.last()["count"] == 4  # the one that never was, too


async def test_an_aggregate_is_not_taken_where_trades_are_told(bench: Bench) -> None:
    raw = trade(5).replace(b'"t":5', b'"a":5,"f":3,"l":4')
    await bench.feed.take(bench.link(), raw.replace(b"@trade", b"@aggTrade"))
    assert bench.feed.statistics().unknown == 1 and not bench.kinds()


async def test_a_trade_is_not_taken_where_aggregates_or_quotes_are_told(
    apart: Bench,
) -> None:
    for feed in apart.side.feeds:
        await feed.take(apart.link(feed), trade(5))
        assert feed.statistics().unknown == 1
    assert not apart.kinds()


async def test_the_status_of_quiet_markets_is_looked_up(
    bench: Bench,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    statuses = {"BTCUSDT": "BREAK"}
    asked: list[list[str]] = []

    async def look_up(self: Side, symbols: Any) -> dict[str, str]:
        asked.append([symbol.venue_symbol for symbol in symbols])
        if len(asked) == 1:
            raise pk.ProviderError("not now")
        return statuses

    monkeypatch.setattr(Side, "statuses", look_up)
    bench.feed.config = msgspec.structs.replace(bench.feed.config, status_s=60.0)
    link = bench.link()
    await bench.feed.take(link, b'{"result":null,"id":1}')
    for market in bench.feed.markets.values():
        market.heard_s -= 100
    with trio.move_on_after(130):
        await bench.side.watch_status()
    assert asked == [["BTCUSDT", "ETHUSDT"]] * 2
    shown = {m.symbol: m.handle.status for m in bench.feed.markets.values()}
    assert shown == {"btcusdt": "closed", "ethusdt": "closed"}
    statuses |= {"BTCUSDT": "TRADING", "ETHUSDT": "TRADING"}
    with trio.move_on_after(70):
        await bench.side.watch_status()
    assert {m.handle.status for m in bench.feed.markets.values()} == {"live"}


async def test_first_quotes_have_what_is_known(bench: Bench) -> None:
    quotes = await bench.side.first_quotes()
    assert quotes == {
        "btcusdt": {
            "symbol": "btcusdt",
            "last": 4.000002,
            "bid": 4.0,
            "ask": 4.000002,
            "ticks": [],
        },
        "ethusdt": {"symbol": "ethusdt", "ticks": []},
    }


def test_an_address_that_is_none_is_an_error_with_its_key() -> None:
    config = Config(usdm_ws_url="fstream.binance.com")
    with pytest.raises(pk.ConfigError, match=r"\[binance\] usdm_ws_url 'fstream"):
        BinanceFeed(config, None, key="usdm_ws_url", path="/stream", kind=BEST)
