"""A market with a small tick ring, and a watch of it, told of in seconds from T0."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import piker_core as pk
from piker_core.ems.watch import Fired, Watch

NS = 1_000_000_000
T0 = 1_732_320_000
FQME = "xbtusd.kraken"
OTHER = "ethusd.kraken"
RING = 256
"""Ticks that the ring holds."""
ROWS = {1: 1024, 60: 256}


class Stage:
    """An engine with two markets, whose trades come as they are told."""

    def __init__(self, engine: pk.FeedEngine, namespace: str) -> None:
        self.engine, self.namespace = engine, namespace
        self.markets = {}
        for fqme in (FQME, OTHER):
            self.markets[fqme] = engine.add_market(fqme, capacity=ROWS)
            self.markets[fqme].set_status("live")
        self.ticks = pk.attach_ticks("kraken", namespace=namespace)
        self._ids = count(1)

    def trade(self, second: float, *prices: float, of: str = FQME) -> None:
        """Trades a nanosecond apart, from that second on."""
        for later, price in enumerate(prices):
            time_ns = round((T0 + second) * 1000) * 1_000_000 + later
            self.engine.push_trade(
                self.markets[of], time_ns, price, 1.0, next(self._ids)
            )

    def drown(self, second: float, ticks: int = 2 * RING) -> None:
        """So many trades of the other market that all before is overwritten."""
        self.trade(second, *[50.0] * ticks, of=OTHER)

    def step(self, second: float) -> None:
        self.engine.step(int((T0 + second) * NS))

    def watch(self, position: tuple[int, int] | None = None) -> Watch:
        watch = Watch("kraken", self.namespace, position=position)
        watch.add_market(FQME)
        return watch


@contextmanager
def open_stage(namespace: str, **more: Any) -> Iterator[Stage]:
    more = {"tick_capacity": RING} | more
    with pk.open_engine("kraken", namespace=namespace, **more) as engine:
        yield Stage(engine, namespace)


def fired(watch: Watch, most: int = 4096) -> list[Fired]:
    """All that fires until there is nothing to poll."""
    found: list[Fired] = []
    while True:
        before = watch.position
        polled = watch.poll(most)
        found += polled.fired
        if polled.position == before:
            return found


def names(watch: Watch) -> list[str]:
    """Of the orders that fire until there is nothing to poll."""
    return [each.oid for each in fired(watch)]
