"""A market of an engine without a venue: its host, its list, what it was told."""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import trio

import piker_core as pk
from piker_core.adapter.defaults import MarketLimits
from piker_core.adapter.market_feed import MarketFeed, Quote, Trades

NS = 1_000_000_000


class Host:
    """Pushes into an engine; counts complaints; notes what was abandoned."""

    def __init__(self, engine: pk.FeedEngine, **limits: Any) -> None:
        self.engine = engine
        self.limits = MarketLimits(**limits)
        self.log = logging.getLogger("tests.adapter")
        self.counts: Counter[str] = Counter()
        self.texts: list[str] = []
        self.abandoned: list[str] = []
        self.markets: list[MarketFeed] = []
        self.error: Exception | None = None

    async def send(self, quote: Quote) -> bool:
        if self.error is not None:
            raise self.error
        try:
            self.engine.push(quote)
        except pk.PikerError as error:
            self.complain("refused", str(error), quote)
            return False
        return True

    def complain(self, kind: str, text: str, frame: Any) -> None:
        self.counts[kind] += 1
        self.texts.append(text)

    def watched(self) -> Iterable[MarketFeed]:
        return self.markets

    def abandon(self, market: MarketFeed, reason: str) -> None:
        self.abandoned.append(reason)

    def look(self) -> None:
        """There are no connections."""


class Listing:
    """A list of trades: the ticks in it, and how it fails."""

    def __init__(self, *ticks: Quote) -> None:
        self.ticks = list(ticks)
        self.asked: list[tuple[int, int, int]] = []
        self.errors: list[Exception] = []
        self.hole_ns = 0
        self.page = 4

    async def walk(
        self, since_ns: int, until_ns: int, first_id: int
    ) -> AsyncGenerator[tuple[Trades, int], None]:
        self.asked.append((since_ns, until_ns, first_id))
        await trio.lowlevel.checkpoint()
        if self.errors:
            raise self.errors.pop(0)
        wanted = [t for t in self.ticks if since_ns <= t["time_ns"] < until_ns]
        for place in range(0, len(wanted) or 1, self.page):
            yield rows(wanted[place : place + self.page]), self.hole_ns


def tick(number: int, time_ns: int, price: float = 100.0, size: float = 1.0) -> Quote:
    """A trade with an id."""
    return {
        "type": "trade",
        "price": price,
        "size": size,
        "time_ns": time_ns,
        "id": number,
    }


def quote(*ticks: Quote, symbol: str = "abcusd") -> Quote:
    return {"symbol": symbol, "ticks": list(ticks)}


def rows(ticks: list[Quote]) -> Trades:
    """Ticks as TICK_DTYPE."""
    out = np.zeros(len(ticks), pk.TICK_DTYPE)
    for name in ("time_ns", "price", "size"):
        out[name] = [one[name] for one in ticks]
    out["id"] = [one.get("id", 0) for one in ticks]
    out["count"] = [one.get("count", 1) for one in ticks]
    out["type"] = pk.TICK_TYPES["trade"]
    return out


@contextmanager
def open_host(namespace: str, **limits: Any) -> Iterator[Host]:
    """A host with an engine of its own."""
    with pk.open_engine("acme", namespace=namespace, max_skew_s=1e6) as engine:
        yield Host(engine, **limits)


def volumes(host: Host, symbol: str = "abcusd") -> dict[int, float]:
    """Volume by time (s) of the 1 s rows in which something traded."""
    name = f"{symbol}.acme"
    with pk.attach_bars(name, period=1, namespace=host.engine.namespace) as bars:
        got = bars.snapshot(bars.head - bars.first)
        return {int(r["time"]): float(r["volume"]) for r in got if r["count"]}


def gaps(host: Host, symbol: str = "abcusd") -> list[tuple[str, bool]]:
    """Cause of each gap on record, and whether it is repaired."""
    name = f"{symbol}.acme"
    with pk.attach_bars(name, period=1, namespace=host.engine.namespace) as bars:
        return [(g["cause"].decode(), bool(g["repaired"])) for g in bars.gaps()]
