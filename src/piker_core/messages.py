"""Quotes and ticks as Structs, and what a provider says before its stream."""

from typing import Any

import msgspec


class Tick(msgspec.Struct):
    """One event of a market.

    `type` is a key of `TICK_TYPES`; `price` in the quote currency, `size` in units of
    the base. `time_ns` is the venue's time in UTC nanoseconds; `time` in seconds may
    stand in for it. `id` is the venue's trade id (0: none), `side` "buy" or "sell" of
    the taker, `count` the trades an aggregate stands for.
    """

    type: str
    price: float
    size: float
    time_ns: int | None = None
    time: float | None = None
    id: int = 0
    side: str = ""
    count: int = 1


class Quote(msgspec.Struct):
    """Ticks of one market that arrived together. `last` seeds an unknown close."""

    symbol: str
    ticks: list[Tick] = []
    last: float | None = None


class FeedInit(msgspec.Struct, frozen=True):
    """A provider's word on one symbol before its quotes flow.

    `symbol` as it was subscribed, `mkt` the market it resolved to (a `MktPair`),
    `details` whatever else the venue says.
    """

    symbol: str
    mkt: Any
    details: dict[str, Any] = {}
