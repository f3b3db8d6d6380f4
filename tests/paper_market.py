"""A market of the paper engine for tests: quotes, trades and orders in few words."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

import piker_core as pk
from piker_core.ems.paper.engine import PaperConfig, PaperEngine
from piker_core.ems.paper.messages import Message
from piker_core.orders import (
    BrokerdCancel,
    BrokerdError,
    BrokerdFill,
    BrokerdOrder,
    BrokerdStatus,
)

FQME = "xbtusd.kraken"
MIDDLE = Decimal(60000)
START_NS = 1_700_000_000_000_000_000
MS = 1_000_000
Number = Decimal | int
Rows = Sequence[tuple[str, float, float, int]]
"""(type, price, size, time_ns)."""


def ticks(rows: Rows, market: int = 0) -> NDArray[np.void]:
    """Rows of TICK_DTYPE, received when they happened."""
    array = np.zeros(len(rows), pk.TICK_DTYPE)
    for row, (kind, price, size, time_ns) in zip(array, rows, strict=True):
        row["type"], row["price"], row["size"] = pk.TICK_TYPES[kind], price, size
        row["time_ns"] = row["recv_ns"] = time_ns
        row["market"] = market
    return array


def at(offset: float | str | Decimal) -> Decimal:
    return MIDDLE + Decimal(str(offset))


class Paper:
    """An engine with one market, prices as offsets from 60,000, a clock of its own."""

    def __init__(self, bid: Any = (-0.1, 100), ask: Any = (0.1, 100), **config: Any):
        self.engine = PaperEngine("kraken", config=PaperConfig(**config))
        self.engine.add_market(
            FQME,
            price_tick=Decimal("0.1"),
            size_tick=Decimal("1e-8"),
            currency="usd",
            market_id=0,
        )
        self.now_ns = START_NS
        self.said: list[Message] = []
        self.engine.prime(FQME, ticks(self.quotes(bid, ask)))

    def step(self) -> int:
        self.now_ns += MS
        return self.now_ns

    def quotes(self, bid: Any = None, ask: Any = None) -> Rows:
        """As providers push them: the price, then its size again."""
        return [
            (kind, float(at(level[0])), float(level[1]), self.step())
            for kinds, level in ((("bid", "bsize"), bid), (("ask", "asize"), ask))
            if level
            for kind in kinds
        ]

    def hear(self, said: list[Message]) -> list[Message]:
        self.said += said
        return said

    def show(self, bid: Any = None, ask: Any = None) -> list[BrokerdFill]:
        return fills(self.hear(self.engine.feed(ticks(self.quotes(bid, ask)))))

    def trade(self, offset: float, size: float) -> list[BrokerdFill]:
        row = ("trade", float(at(offset)), size, self.step())
        return fills(self.hear(self.engine.feed(ticks([row]))))

    def order(
        self, reqid: str, action: Any, offset: Any, size: Any, **more: Any
    ) -> Any:
        """Send an order; what the venue said of it at once."""
        request = BrokerdOrder(
            oid=f"oid-{reqid}",
            account="paper",
            time_ns=self.now_ns,
            symbol=more.pop("symbol", FQME),
            price=at(offset),
            size=Decimal(str(size)),
            action=action,
            reqid=reqid,
            **more,
        )
        return self.hear(self.engine.submit(request, self.step()))

    def cancel(self, reqid: str) -> list[Message]:
        request = BrokerdCancel(
            oid=f"oid-{reqid}", time_ns=self.now_ns, account="paper", reqid=reqid
        )
        return self.hear(self.engine.cancel(request, self.step()))

    def filled(self, reqid: str) -> Number:
        """What its fills add up to; the order has to say the same."""
        total = sum(
            (one.size for one in fills(self.said) if one.reqid == reqid), Decimal(0)
        )
        order = self.engine.order(reqid)
        assert order is not None
        assert order.filled == total
        return total

    def status(self, reqid: str) -> str:
        order = self.engine.order(reqid)
        return "" if order is None else order.status

    def reason(self, reqid: str) -> str:
        order = self.engine.order(reqid)
        return "" if order is None else order.reason


def fills(said: Iterable[Message]) -> list[BrokerdFill]:
    return [message for message in said if isinstance(message, BrokerdFill)]


def errors(said: Iterable[Message]) -> list[str]:
    return [message.reason for message in said if isinstance(message, BrokerdError)]


def statuses(said: Iterable[Message]) -> list[tuple[str, Number, Number]]:
    return [
        (message.status, message.filled, message.remaining)
        for message in said
        if isinstance(message, BrokerdStatus)
    ]


def took(said: Iterable[Message]) -> list[tuple[Number, Number]]:
    """(size, offset of the price) of the fills."""
    return [(fill.size, fill.price - MIDDLE) for fill in fills(said)]
