"""Answers of Kraken's REST, and a scripted server of them behind a mock transport."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio

from providers.kraken import api

Answer = httpx.Response | Exception

TRADES = {
    "XXBTZUSD": [
        ["30243.40000", "0.34507674", 1688669597.8277369, "b", "m", "", 61044952],
        ["30243.30000", "0.00376960", 1688669598.2804112, "s", "l", "", 61044953],
    ],
    "last": "1688669598280411200",
}
OHLC = {
    "XXBTZUSD": [
        [1688671200, "30306.1", "30306.2", "30305.7", "30305.7", "30306.1", "3.3", 23],
        [1688671260, "30305.7", "30305.7", "30305.7", "30305.7", "0.0", "0.0000", 0],
        [1688671320, "30304.5", "30304.5", "30300.0", "30300.0", "30300.0", "4.4", 18],
    ],
    "last": 1688671260,
}


def pair(altname: str, wsname: str, key: str, **more: Any) -> dict[str, Any]:
    base, quote = wsname.split("/")
    fields = {
        "altname": altname, "wsname": wsname, "aclass_base": "currency", "base": base,
        "aclass_quote": "currency", "quote": quote, "cost_decimals": 5,
        "pair_decimals": 1, "lot_decimals": 8, "tick_size": "0.1",
        "ordermin": "0.00005", "status": "online", "a_new_field": {"of": "the venue"},
    }  # fmt: skip
    return {key: fields | more}


PAIRS = (
    pair("XBTUSD", "XBT/USD", "XXBTZUSD")
    | pair("XBTUSDT", "XBT/USDT", "XBTUSDT")
    | pair("ETHUSD", "ETH/USD", "XETHZUSD", pair_decimals=2, tick_size="0.01")
    | pair("XDGUSD", "XDG/USD", "XDGUSD", pair_decimals=7, tick_size="0.0000050")
    | pair("SOLUSD", "SOL/USD", "SOLUSD", pair_decimals=2, tick_size=None)
)
BY_METHOD = {
    "AssetPairs": PAIRS,
    "Trades": TRADES,
    "OHLC": OHLC,
    "SystemStatus": {"status": "online", "timestamp": "2025-11-11T00:17:10Z"},
}


def ok(result: Any, *warnings: str) -> httpx.Response:
    return httpx.Response(200, json={"error": list(warnings), "result": result})


def error(text: str) -> httpx.Response:
    return httpx.Response(200, json={"error": [text]})


class Venue:
    """Answers by method; before that, of one method, the scripted answers in turn."""

    def __init__(self, method: str = "Trades", *script: Answer) -> None:
        self.calls: list[httpx.Request] = []
        self.times: list[float] = []
        self.method, self.script = method, list(script)
        self.delay_s = 0.0

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        self.times.append(trio.current_time())
        method = request.url.path.removeprefix("/0/public/")
        await trio.sleep(self.delay_s)
        if method == self.method and self.script:
            scripted = self.script.pop(0)
            if isinstance(scripted, Exception):
                raise scripted
            return scripted
        return ok(BY_METHOD[method])

    def count(self, method: str) -> int:
        return sum(call.url.path.endswith(method) for call in self.calls)

    @asynccontextmanager
    async def open_client(self, **settings: Any) -> AsyncIterator[api.Client]:
        config = api.Config(**{"rest_rate": 1e6, **settings})
        transport = httpx.MockTransport(self.answer)
        async with api.get_client(config, transport=transport) as client:
            yield client
