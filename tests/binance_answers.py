"""Answers of Binance's REST, and a scripted server of them behind a mock transport."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio

from providers.binance import api

Answer = httpx.Response | Exception

TRADES = [
    {
        "id": 28457, "price": "4.00000100", "qty": "12.00000000",
        "quoteQty": "48.000012", "time": 1499865549590, "isBuyerMaker": True,
        "isBestMatch": True,
    },
    {
        "id": 28458, "price": "4.00000200", "qty": "1.00000000",
        "quoteQty": "4.000002", "time": 1499865549600, "isBuyerMaker": False,
        "isBestMatch": True,
    },
]  # fmt: skip
AGGREGATES = [
    {
        "a": 26129, "p": "0.01633102", "q": "4.70443515", "f": 27781, "l": 27783,
        "T": 1498793709153, "m": True, "M": True,
    },
]  # fmt: skip
KLINE = [
    1499040000000, "0.01634790", "0.80000000", "0.01575800", "0.01577100",
    "148976.11427815", 1499644799999, "2434.19055334", 308, "1756.87402397",
    "28.46694368", "0",
]  # fmt: skip


def filters(tick: str = "0.01000000", step: str = "0.00001000") -> list[dict[str, Any]]:
    return [
        {"filterType": "NEWLY_INVENTED", "tickSize": {"of": ["the", "venue"]}},
        {
            "filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.0",
            "tickSize": tick,
        },
        {
            "filterType": "LOT_SIZE", "minQty": step, "maxQty": "9000.0",
            "stepSize": step,
        },
        {
            "filterType": "NOTIONAL", "minNotional": "5.00000000",
            "applyMinToMarket": True, "maxNotional": "9000000.00000000",
        },
    ]  # fmt: skip


def spot_symbol(base: str, quote: str, **more: Any) -> dict[str, Any]:
    fields = {
        "symbol": base + quote, "status": "TRADING", "baseAsset": base,
        "baseAssetPrecision": 8, "quoteAsset": quote, "quotePrecision": 8,
        "orderTypes": ["LIMIT", "NEWLY_INVENTED"], "filters": filters(),
        "permissions": [], "newField": {"of": "the venue"},
    }  # fmt: skip
    return fields | more


def contract(symbol: str, quote: str = "USDT", **more: Any) -> dict[str, Any]:
    pair = symbol.partition("_")[0]
    rows = [*filters("0.10", "0.001")[:3]]
    rows.append({"filterType": "MIN_NOTIONAL", "notional": "100"})
    fields = {
        "symbol": symbol, "pair": pair, "contractType": "PERPETUAL",
        "deliveryDate": 4133404800000, "status": "TRADING",
        "baseAsset": pair.removesuffix(quote), "quoteAsset": quote,
        "marginAsset": quote, "pricePrecision": 2, "quantityPrecision": 3,
        "quotePrecision": 8, "filters": rows,
    }  # fmt: skip
    return fields | more


def info(*symbols: dict[str, Any]) -> dict[str, Any]:
    return {"timezone": "UTC", "serverTime": 1790000000000, "symbols": list(symbols)}


SPOT = info(
    spot_symbol("BTC", "USDT"),
    spot_symbol("ETH", "USDT"),
    spot_symbol("ETH", "BTC", filters=filters("0.00001000", "0.00010000")),
    spot_symbol("BTC", "EUR"),
    spot_symbol("BCC", "BTC", status="BREAK"),
    spot_symbol("币安人生", "USDT"),
)
USDM = info(
    contract("BTCUSDT"),
    contract("BTCUSDC", "USDC"),
    contract("BTCUSDT_261225", contractType="CURRENT_QUARTER"),
    contract("TSLAUSDT", contractType="TRADIFI_PERPETUAL"),
    contract("FTTUSDT", status="SETTLING"),
)
BY_PATH: dict[str, Any] = {
    "/api/v3/exchangeInfo": SPOT,
    "/fapi/v1/exchangeInfo": USDM,
    "/api/v3/historicalTrades": TRADES,
    "/api/v3/aggTrades": AGGREGATES,
    "/fapi/v1/aggTrades": AGGREGATES,
    "/api/v3/klines": [KLINE],
    "/api/v3/ticker/price": [{"symbol": "BTCUSDT", "price": "4.00000200"}],
    "/api/v3/ticker/bookTicker": [
        {
            "symbol": "BTCUSDT",
            "bidPrice": "4.00000000",
            "bidQty": "431.00000000",
            "askPrice": "4.00000200",
            "askQty": "9.00000000",
        }
    ],
    "/api/v3/time": {"serverTime": 1790000000000123},
}


def ok(result: Any, **headers: str) -> httpx.Response:
    return httpx.Response(200, json=result, headers=headers)


def error(code: int, text: str, status: int = 400, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): each for name, each in headers.items()}
    return httpx.Response(status, json={"code": code, "msg": text}, headers=named)


class Venue:
    """Answers by path; before that, of one path, the scripted answers in turn."""

    def __init__(self, path: str = "", *script: Answer) -> None:
        self.calls: list[httpx.Request] = []
        self.times: list[float] = []
        self.path, self.script = path, list(script)
        self.delay_s = 0.0

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        self.times.append(trio.current_time())
        await trio.sleep(self.delay_s)
        if request.url.path == self.path and self.script:
            scripted = self.script.pop(0)
            if isinstance(scripted, Exception):
                raise scripted
            return scripted
        return ok(BY_PATH[request.url.path])

    def count(self, path: str) -> int:
        return sum(call.url.path == path for call in self.calls)

    @asynccontextmanager
    async def open_client(self, **settings: Any) -> AsyncIterator[api.Client]:
        free = {"rest_rate": 1e6, "usdm_rest_rate": 1e6}
        transport = httpx.MockTransport(self.answer)
        config = api.Config(**(free | settings))
        async with api.get_client(config, transport=transport) as client:
            yield client
