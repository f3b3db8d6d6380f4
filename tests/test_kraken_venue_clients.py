"""A client by others (ccxt) speaks to the simulated Kraken and gets the truth."""

import asyncio
from typing import Any

import pytest
import trio

from providers.kraken.venue import Venue, open_venue

ccxt = pytest.importorskip("ccxt", reason="needs ccxt: pip install ccxt")

SYMBOL = "BTC/USD"
TRADES = 60


def fetch(rest_url: str) -> dict[str, Any]:
    """What ccxt's blocking client gets over REST."""
    client = ccxt.kraken({"enableRateLimit": False})
    client.urls["api"] = {"public": rest_url, "private": rest_url}
    client.load_markets()
    first = client.fetch_trades(SYMBOL, since=1, limit=700)
    return {
        "markets": client.markets,
        "trades": first,
        "bars": client.fetch_ohlcv(SYMBOL, "1m"),
        "ticker": client.fetch_ticker(SYMBOL),
        "book": client.fetch_order_book(SYMBOL, 10),
        "status": client.fetch_status()["status"],
    }


async def watch(rest_url: str, ws_url: str) -> tuple[list[Any], Any]:
    """Trades and a ticker that ccxt.pro, under asyncio, gets over WebSocket."""
    import ccxt.pro

    client = ccxt.pro.kraken({"enableRateLimit": False, "newUpdates": True})
    client.urls["api"].update(public=rest_url, private=rest_url)
    client.urls["api"]["ws"].update(publicV2=ws_url)
    trades: list[Any] = []
    try:
        while len(trades) < TRADES:
            trades += await client.watch_trades(SYMBOL)
        return trades, await client.watch_ticker(SYMBOL)
    finally:
        await client.close()


async def test_ccxt_gets_the_truth_over_rest() -> None:
    async with open_venue(seed=11, live_rate=0) as venue:
        got = await trio.to_thread.run_sync(fetch, venue.rest_url)
        assert got["status"] == "ok"
        check_markets(venue, got["markets"])
        assert [
            (row["id"], row["price"], row["amount"], row["side"], row["type"])
            for row in got["trades"]
        ] == [
            (str(row.trade_id), row.price, row.size, row.side, row.ord_type)
            for row in venue.trades(SYMBOL)[:700]
        ]
        assert [row["timestamp"] for row in got["trades"]] == [
            row.time_ns // 10**6 for row in venue.trades(SYMBOL)[:700]
        ]
        assert got["bars"] == [
            [
                row.time_s * 1000,
                *map(float, (row.open, row.high, row.low, row.close, row.volume)),
            ]
            for row in venue.candles(SYMBOL, 60, 0, 2**40)[: len(got["bars"])]
        ]
        last = venue.trades(SYMBOL)[-1]
        assert got["ticker"]["last"] == last.price
        assert got["book"]["bids"][0][0] < got["book"]["asks"][0][0]


def check_markets(venue: Venue, markets: dict[str, Any]) -> None:
    """Whether ccxt found every pair, under its v2 symbol and with its precision."""
    assert len(markets) == 5
    for symbol, market in markets.items():
        pair = venue.market(symbol).pair
        assert market["id"] == pair.key
        assert market["precision"]["price"] == 10**-pair.price_decimals
        assert market["limits"]["amount"]["min"] == float(pair.size_min)


async def test_ccxt_pro_gets_the_truth_over_websocket() -> None:
    async with open_venue(seed=12, live_rate=200) as venue:
        trades, ticker = await trio.to_thread.run_sync(
            lambda: asyncio.run(watch(venue.rest_url, venue.ws_url))
        )
        truth = {str(row.trade_id): row for row in venue.trades(SYMBOL)}
    ids = [row["id"] for row in trades]
    assert [int(number) for number in ids] == list(
        range(int(ids[0]), int(ids[0]) + len(ids))
    )
    for row in trades:
        known = truth[row["id"]]
        assert (row["price"], row["amount"]) == (known.price, known.size)
        assert (row["side"], row["type"]) == (known.side, known.ord_type)
        assert row["timestamp"] == known.time_ns // 10**6
    assert ticker["bid"] < ticker["ask"]
    assert ticker["last"] in {row.price for row in truth.values()}
