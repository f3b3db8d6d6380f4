"""A client by others (ccxt) speaks to the simulated Binance and gets the truth."""

import asyncio
from typing import Any

import pytest
import trio

from providers.binance.venue import Venue, open_venue

ccxt = pytest.importorskip("ccxt", reason="needs ccxt: pip install ccxt")

SPOT = "BTC/USDT"
CONTRACT = "BTC/USDT:USDT"
NAMES = {SPOT: "btcusdt", CONTRACT: "btcusdt.usdtm.perp"}
TRADES = 40
UPDATES = 10


def point(client: Any, config: dict[str, str]) -> Any:
    """Have a client of ccxt call the venue."""
    client.enableRateLimit = False
    markets = {"fetchMarkets": {"types": ["spot", "linear"]}}
    client.options.update(markets, fetchMargins=False, fetchCurrencies=False)
    for name, url in client.urls["api"].items():
        if isinstance(url, str):
            url = url.replace("https://api.binance.com", config["rest_url"])
            url = url.replace("https://fapi.binance.com", config["usdm_rest_url"])
            client.urls["api"][name] = url
    return client


def fetch(config: dict[str, str]) -> dict[str, Any]:
    """What ccxt's blocking client gets over REST."""
    client = point(ccxt.binance(), config)
    client.load_markets()
    return {
        "markets": client.markets,
        "status": client.fetch_status()["status"],
        "time": client.fetch_time(),
        "books": [client.fetch_order_book(name, 10) for name in NAMES],
        "tickers": [client.fetch_ticker(name) for name in NAMES],
        "trades": [client.fetch_trades(name, limit=700) for name in NAMES],
        "bars": [
            client.fetch_ohlcv(name, interval, since=1, limit=600)
            for name, interval in ((SPOT, "1s"), (SPOT, "1m"), (CONTRACT, "1m"))
        ],
    }


async def watch(config: dict[str, str], name: str) -> dict[str, Any]:
    """What ccxt.pro, under asyncio, gets over WebSocket."""
    import ccxt.pro

    client = point(ccxt.pro.binance({"newUpdates": True}), config)
    # it knows spot by a `/stream` in the URL, and gives the path a number
    client.urls["api"]["ws"].update(
        spot=f"{config['ws_url']}/ws/stream", linear=f"{config['usdm_ws_url']}/ws"
    )
    trades: list[Any] = []
    interval = "1s" if name == SPOT else "1m"
    try:
        while len(trades) < TRADES:
            trades += await client.watch_trades(name)
        for _ in range(UPDATES):
            book = await client.watch_order_book(name)
        bars = await client.watch_ohlcv(name, interval)
        ticker = await client.watch_ticker(name)
        quote = (await client.watch_bids_asks([name]))[name]
    finally:
        await client.close()
    made = {"trades": trades, "book": book, "bars": bars, "ticker": ticker}
    return made | {"quote": quote}


async def test_ccxt_gets_the_truth_over_rest() -> None:
    async with open_venue(seed=11, live_rate=0) as venue:
        got = await trio.to_thread.run_sync(fetch, venue.config)
        assert got["status"] == "ok"
        check_markets(venue, got["markets"])
        for name, trades in zip(NAMES.values(), got["trades"], strict=True):
            check_aggregates(venue, name, trades)
        spans = (("btcusdt", 1), ("btcusdt", 60), ("btcusdt.usdtm.perp", 60))
        for (name, period_s), bars in zip(spans, got["bars"], strict=True):
            check_bars(venue, name, period_s, bars)
        for name, ticker in zip(NAMES.values(), got["tickers"], strict=True):
            assert ticker["last"] == venue.trades(name)[-1].price
        for book in got["books"]:
            assert book["bids"][0][0] < book["asks"][0][0]
            assert len(book["bids"]) == 10


def check_markets(venue: Venue, markets: dict[str, Any]) -> None:
    """Whether ccxt found every symbol, with its kind, its steps and its state."""
    assert len(markets) == 12
    for symbol, market in markets.items():
        name = market["id"]
        if market["swap"]:
            name = f"{name.lower()}.usdtm.perp"
        pair = venue.market(name).pair
        assert market["type"] == {"": "spot", "PERPETUAL": "swap"}.get(
            pair.contract, "future"
        ), symbol
        assert market["precision"]["price"] == float(pair.tick)
        assert market["precision"]["amount"] == float(pair.step)
        assert market["active"] == (pair.status == "TRADING")
    assert markets["BTC/USDT:USDT-301227"]["expiry"] == 1924588800000


def check_aggregates(venue: Venue, name: str, rows: list[Any]) -> None:
    """Whether rows are the newest aggregates of the venue, which stand for trades."""
    truth = {row.trade_id: row for row in venue.trades(name)}
    for row in rows:
        first, last = row["info"]["f"], row["info"]["l"]
        inside = [truth[number] for number in range(first, last + 1)]
        assert row["price"] == inside[0].price
        assert row["amount"] == float(sum(part.exact_size for part in inside))
        assert row["side"] == inside[0].side
        assert row["timestamp"] == inside[0].time_ns // 10**6
    assert rows[-1]["info"]["l"] == max(truth)
    assert len(rows) == 700


def check_bars(venue: Venue, name: str, period_s: int, bars: list[Any]) -> None:
    """Whether bars are the candles of the venue from the first on."""
    assert len(bars) > 100
    assert bars == [
        [
            row.time_s * 1000,
            *map(float, (row.open, row.high, row.low, row.close, row.volume)),
        ]
        for row in venue.candles(name, period_s, 0, 2**40)[: len(bars)]
    ]


@pytest.mark.parametrize("name", NAMES)
async def test_ccxt_pro_gets_the_truth_over_websocket(name: str) -> None:
    async with open_venue(seed=12, live_rate=800) as venue:
        got = await trio.to_thread.run_sync(
            lambda: asyncio.run(watch(venue.config, name))
        )
        known = venue.trades(NAMES[name])
        bars = {row.time_s: row for row in venue.candles(NAMES[name], 1, 0, 2**40)}
    truth = {str(row.trade_id): row for row in known}
    ids = [int(row["id"]) for row in got["trades"]]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    for row in got["trades"]:
        trade = truth[row["id"]]
        assert (row["price"], row["amount"]) == (trade.price, trade.size)
        assert row["side"] == trade.side
        assert row["timestamp"] == trade.time_ns // 10**6
    assert got["book"]["bids"][0][0] < got["book"]["asks"][0][0]
    assert got["quote"]["bid"] < got["quote"]["ask"]
    assert got["ticker"]["last"] in {row.price for row in known}
    if name == SPOT:
        bar = bars[got["bars"][-1][0] // 1000]
        assert got["bars"][-1][1:3] == [float(bar.open), float(bar.high)]
