"""A market of an engine, with readers of its rings, told of in seconds from T0."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from bar_rows import NS

import piker_core as pk
from piker_core.segments import ring_name

T0 = 1_732_320_000
"""A whole minute."""
OpenMarket = Callable[..., "Opened"]


def spans(*seconds: tuple[float, float]) -> list[tuple[int, int]]:
    """Sessions, told of in seconds from T0."""
    return [
        (round((T0 + opens) * 1000) * 1_000_000, round((T0 + shuts) * 1000) * 1_000_000)
        for opens, shuts in seconds
    ]


class Opened:
    """An engine's market, told of in seconds from T0."""

    def __init__(self, engine: Any, market: Any, namespace: str) -> None:
        self.engine, self.market = engine, market
        self.bars = {
            period: pk.attach_bars(market.fqme, period=period, namespace=namespace)
            for period in market.bars
        }
        self._ids = count(1)

    def trade(self, second: float, price: float = 100.0) -> int:
        time_ns = round((T0 + second) * 1000) * 1_000_000
        taken: int = self.engine.push_trade(
            self.market, time_ns, price, 0.5, next(self._ids)
        )
        return taken

    def step(self, second: float) -> None:
        self.engine.step(round((T0 + second) * 1000) * 1_000_000)

    def gap(self, start: float, end: float, *, repaired: bool = False) -> None:
        start_ns, end_ns = (int((T0 + second) * NS) for second in (start, end))
        self.market.add_gap(
            start_ns=start_ns, end_ns=end_ns, cause="lost", repaired=repaired
        )

    def rows(self, period: int = 1) -> Any:
        return self.bars[period].snapshot(5000)

    def seconds(self, period: int = 1) -> list[int]:
        return (self.rows(period)["time"] - T0).tolist()

    def having(self, flag: pk.BarFlag, period: int = 1) -> list[int]:
        rows = self.rows(period)
        return (rows["time"][rows["flags"] & int(flag) != 0] - T0).tolist()

    def gaps(self, period: int = 1) -> list[tuple[float, float, str, int]]:
        return [
            (start / NS - T0, end / NS - T0, cause.decode(), repaired)
            for start, end, cause, repaired in self.bars[period].gaps().tolist()
        ]

    def ring_file(self, period: int) -> str:
        """Name of a ring's file in /dev/shm."""
        return ring_name(
            self.engine.namespace, self.engine.provider, self.market.fqme, period
        )

    @property
    def counters(self) -> dict[str, int]:
        return dict(self.market.statistics())


@contextmanager
def open_engine(namespace: str) -> Iterator[OpenMarket]:
    """A function that opens a market in one engine, with readers by period."""
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=1 << 14) as engine:

        def open_one(
            name: str = "xbtusd", status: str | None = "live", **more: Any
        ) -> Opened:
            more = {"periods": (1, 60), "capacity": {1: 4096, 60: 256}} | more
            market = engine.add_market(f"{name}.kraken", **more)
            if status:
                market.set_status(status)
            return Opened(engine, market, namespace)

        yield open_one
