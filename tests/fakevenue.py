"""A provider for tests: trades by plan, history by function; a plain module.

In any process, markets whose names begin with NOSUCH are unknown, those with REFUSED
are refused when they are streamed, and those with MUTE never have a first quote.
"""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import trio

import piker_core as pk

name = "fakevenue"
NS = 1_000_000_000
NOSUCH, REFUSED = "nosuch", "refused"
MUTE = os.environ.get("FAKEVENUE_MUTE", "mute")


class Plan:
    """What the venue does; a test sets fields before it opens a feed.

    `fail_at`: the trades a stream is broken after, one number a session; `history`: a
    `get_ohlc`; `quiet`: no trades at all; `start_error`: raised before the first quote;
    `describe_error`: raised when a market is asked about; `broken_history`: symbols
    whose history cannot be had; `gate`: what a stream waits for before anything;
    `refused`: symbols whose streams are; `tells`: it says of its markets that they are
    live, and closed at the end.
    """

    def __init__(self) -> None:
        self.pause_s = float(os.environ.get("FAKEVENUE_PAUSE_S", "0.01"))
        self.quiet = False
        self.fail_at: list[int] = []
        self.failure: Exception = pk.ProviderError("the venue hung up")
        self.start_error: Exception | None = None
        self.describe_error: Exception | None = None
        self.gate: trio.Event | None = None
        self.tells = False
        self.first_quote = True
        self.history: Callable[..., Awaitable[Any]] | None = None
        self.broken_history: set[str] = set()
        self.refused: set[str] = set()
        self.unknown: set[str] = set()
        self.calendar = "24/7"
        self.sessions = 0
        self.histories: list[str] = []
        self.histories_open: list[str] = []
        self.sent: dict[str, list[int]] = {}


plan = Plan()


async def get_mkt_info(symbol: str) -> tuple[pk.MktPair, None]:
    if plan.describe_error is not None:
        raise plan.describe_error
    if symbol in plan.unknown or symbol.startswith(NOSUCH):
        raise pk.NotFound(f"fakevenue has no market {symbol!r}")
    mkt = pk.MktPair(
        base=pk.Asset(symbol[:3]),
        quote=pk.Asset(symbol[3:]),
        symbol=symbol,
        venue_symbol=symbol.upper(),
        provider=name,
        price_tick=Decimal("0.25"),
        size_tick=Decimal("0.5"),
        calendar=plan.calendar,
    )
    return mkt, None


def trade(number: int, time_ns: int) -> dict[str, Any]:
    price = 100.0 + number % 40 / 4
    return {
        "type": "trade",
        "price": price,
        "size": 0.5,
        "time_ns": time_ns,
        "id": number,
        "side": "buy",
    }


async def stream_quotes(
    send_chan: Any,
    symbols: list[str],
    shm: dict[str, Any],
    feed_is_live: trio.Event,
    loglevel: str | None = None,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    plan.sessions += 1
    if plan.gate is not None:
        await plan.gate.wait()
    if plan.start_error is not None:
        raise plan.start_error
    for symbol in symbols:
        if symbol in plan.refused or symbol.startswith(REFUSED):
            raise pk.ProviderError(f"fakevenue refuses {symbol}", frame=b"no")
    inits = [pk.FeedInit(symbol, (await get_mkt_info(symbol))[0]) for symbol in symbols]
    quotes = {symbol: {"symbol": symbol, "last": 100.0} for symbol in symbols}
    if not plan.first_quote or any(symbol.startswith(MUTE) for symbol in symbols):
        await trio.sleep_forever()
    task_status.started((inits, quotes))
    feed_is_live.set()
    try:
        await trade_on(send_chan, symbols, shm)
    finally:
        if plan.tells:
            for symbol in symbols:
                shm[symbol].set_status("closed")


async def trade_on(send_chan: Any, symbols: list[str], shm: dict[str, Any]) -> None:
    """Trades without end, or as many as the plan says."""
    fail_at = plan.fail_at.pop(0) if plan.fail_at else None
    numbers = {symbol: shm[symbol].last_id for symbol in symbols}
    rounds = 0
    while not plan.quiet and (fail_at is None or rounds < fail_at):
        rounds += 1
        for symbol in symbols:
            number = numbers[symbol] = numbers[symbol] + 1
            if plan.tells:
                shm[symbol].set_status("live")
            ticks = [trade(number, time.time_ns())]
            await send_chan.send({"symbol": symbol, "ticks": ticks})
            plan.sent.setdefault(symbol, []).append(number)
        await trio.sleep(plan.pause_s)
    if plan.quiet:
        await trio.sleep_forever()
    raise plan.failure


@asynccontextmanager
async def open_history_client(symbol: str) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    async def nothing(
        timeframe: float, end_dt: Any = None, start_dt: Any = None
    ) -> Any:
        raise pk.DataUnavailable("there is no history")

    if symbol in plan.broken_history:
        raise KeyError(symbol)
    plan.histories.append(symbol)
    plan.histories_open.append(symbol)
    try:
        yield plan.history or nothing, {"erlangs": 2, "rate": 1000}
    finally:
        plan.histories_open.remove(symbol)
