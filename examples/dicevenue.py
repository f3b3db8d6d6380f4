"""Your own provider in 60 lines: a venue that rolls dice. Found as a plain module.

PYTHONPATH=examples piker-core feed six.dicevenue --seconds 5
"""

import random
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import trio

import piker_core as pk

name = "dicevenue"
ohlc_dtype = pk.OHLCV_DTYPE
capabilities = {"quotes": True, "history": False, "search": False, "orders": False}


async def get_mkt_info(symbol: str) -> tuple[pk.MktPair, None]:
    """Say what a market is: its assets, its steps. Raises NotFound for others."""
    if symbol not in ("six", "twenty"):
        raise pk.NotFound(f"dicevenue has no die {symbol!r}: try six or twenty")
    mkt = pk.MktPair(
        base=pk.Asset(symbol, atype="die"),
        quote=pk.Asset("pip", atype="points"),
        symbol=symbol,
        venue_symbol=symbol.upper(),
        provider=name,
        price_tick=Decimal(1),
        size_tick=Decimal(1),
    )
    return mkt, None


async def stream_quotes(
    send_chan: Any,
    symbols: Sequence[str],
    shm: dict[str, Any],
    feed_is_live: trio.Event,
    loglevel: str | None = None,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Send quotes for ever. `shm[symbol]` is the market's handle: gaps, status."""
    inits = [pk.FeedInit(symbol, (await get_mkt_info(symbol))[0]) for symbol in symbols]
    task_status.started((inits, {symbol: {"last": 3.0} for symbol in symbols}))
    feed_is_live.set()
    number = max(shm[symbol].last_id for symbol in symbols)
    while True:
        await trio.sleep(random.uniform(0.0, 0.2))
        number += 1
        symbol = random.choice(list(symbols))
        roll = random.randint(1, 6 if symbol == "six" else 20)
        tick = {"type": "trade", "price": float(roll), "size": 1.0, "id": number}
        tick |= {"time_ns": time.time_ns()}
        await send_chan.send({"symbol": symbol, "ticks": [tick]})
