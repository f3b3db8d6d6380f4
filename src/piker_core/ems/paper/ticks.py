"""Ticks of one market for the paper engine: those that matter, found by numpy.

A tick that no order waits for changes nothing but the best bid and ask, of which the
last ones are enough. So it makes no difference how ticks are cut into batches, nor
whether they are many, for numpy, or so few that they are all looked at.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from math import inf
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from piker_core.dtypes import TICK_TYPES
from piker_core.ems.paper.book import PaperMarket, PaperOrder
from piker_core.steps import quantize

_BID, _ASK, _TRADE = 1, 2, 3
_KINDS = np.zeros(1 << 16, np.uint8)
for _name, _kind in (
    *(("bid", _BID), ("bsize", _BID), ("ask", _ASK), ("asize", _ASK)),
    ("trade", _TRADE),
):
    _KINDS[TICK_TYPES[_name]] = _kind
_KIND_OF: list[int] = _KINDS.tolist()
_CHUNK = 512
"""Ticks looked at before what matters is found anew: it changes with every fill."""
_MARGIN = 0.75
"""Price ticks by which floats may seem off; what is found is compared exactly."""
_MOST_PRICES = 4096
_FEW = 6
"""Ticks that are looked at one by one before numpy has begun."""


class Interest(NamedTuple):
    """What a market waits for that ticks may change: queues, levels that were taken."""

    buys: float
    sells: float
    taken: tuple[Decimal, ...]

    def misses(self, now: "Interest") -> bool:
        """Is more waited for now, or less of what makes many ticks matter?"""
        wider = now.buys > self.buys or now.sells < self.sells
        return wider or now.taken != self.taken


class Tick(NamedTuple):
    """A tick that matters, exactly; `at`: its place among its market's."""

    at: int
    kind: int
    price: Decimal
    size: Decimal
    time_ns: int
    venue_ns: int


class TickRun(Protocol):
    """The ticks of one market, in order, as the engine goes through them.

    A tick's time is when it was received, or else the venue's.
    """

    market: PaperMarket

    def __len__(self) -> int: ...

    def place(self, at: int) -> int:
        """Where a tick is in its batch."""

    def first_after(self, start: int, time_ns: int) -> int:
        """Place of the first tick from `start` on that is later than a time."""

    def run(self, start: int, stop: int) -> Iterator[Tick]:
        """Give those of [start, stop) that matter to the market.

        Who runs it stops when `interest` misses something, and runs it anew from there.
        """

    def end_of_chunk(self, start: int, stop: int) -> int:
        """How far to `run` at once."""

    def absorb(self, start: int, stop: int) -> None:
        """Leave the market with the best bid and ask of the end of [start, stop)."""


def by_market(
    rows: NDArray[np.void], find: Callable[[int], PaperMarket | None]
) -> list[TickRun]:
    """Usable ticks of a batch, of each market that is found by its number."""
    if len(rows) <= _FEW:
        return _few_by_market(rows, find)
    rows = usable(rows)
    numbers, runs = rows["market"], list[TickRun]()
    for number in np.unique(numbers).tolist():
        market = find(number)
        if market is not None:
            runs.append(MarketTicks(market, rows, np.flatnonzero(numbers == number)))
    return runs


def usable(ticks: NDArray[np.void]) -> NDArray[np.void]:
    """Those with a price and a size that numbers of a market can be."""
    price, size = ticks["price"], ticks["size"]
    good = (price > 0) & (price < inf) & (size >= 0) & (size < inf)
    return ticks if good.all() else ticks[good]


def _few_by_market(
    rows: NDArray[np.void], find: Callable[[int], PaperMarket | None]
) -> list[TickRun]:
    runs: dict[int, FewTicks] = {}
    for place, row in enumerate(rows.tolist()):
        _, venue_ns, received_ns, price, size, _, number, _, code, _, _ = row
        if not (0 < price < inf and 0 <= size < inf):
            continue
        if number not in runs:
            market = find(number)
            if market is None:
                continue
            runs[number] = FewTicks(market)
        ticks = runs[number].ticks
        runs[number].places.append(place)
        ticks.append(
            Tick(
                len(ticks),
                _KIND_OF[code],
                price_of(runs[number].market, price),
                quantize(size, runs[number].market.size_tick, "down"),
                received_ns if received_ns > 0 else venue_ns,
                venue_ns,
            )
        )
    return list(runs.values())


class FewTicks:
    """A `TickRun` of so few ticks that all are looked at."""

    def __init__(self, market: PaperMarket) -> None:
        self.market = market
        self.ticks: list[Tick] = []
        self.places: list[int] = []

    def __len__(self) -> int:
        return len(self.ticks)

    def place(self, at: int) -> int:
        return self.places[at]

    def first_after(self, start: int, time_ns: int) -> int:
        later = (tick.at for tick in self.ticks[start:] if tick.time_ns > time_ns)
        return next(later, len(self.ticks))

    def run(self, start: int, stop: int) -> Iterator[Tick]:
        return (tick for tick in self.ticks[start:stop] if tick.kind)

    def end_of_chunk(self, start: int, stop: int) -> int:
        return stop

    def absorb(self, start: int, stop: int) -> None:
        """All of them were looked at."""


class MarketTicks:
    """A `TickRun` of many ticks: rows of TICK_DTYPE, those at `places`."""

    def __init__(
        self,
        market: PaperMarket,
        rows: NDArray[np.void],
        places: NDArray[np.intp] | None = None,
    ) -> None:
        self.market, self.places = market, places
        whole = places is None or len(places) == len(rows)
        self.rows = rows if whole else rows[places]
        self.kind = _KINDS[self.rows["type"]]
        self.price = self.rows["price"]
        received = self.rows["recv_ns"]
        self.time = np.where(received > 0, received, self.rows["time_ns"])

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, at: int) -> int:
        return at if self.places is None else int(self.places[at])

    def first_after(self, start: int, time_ns: int) -> int:
        later = np.flatnonzero(self.time[start:] > time_ns)
        return start + int(later[0]) if len(later) else len(self.rows)

    def run(self, start: int, stop: int) -> Iterator[Tick]:
        for at in np.flatnonzero(self._matters(slice(start, stop))).tolist():
            yield self._tick(start + at)

    def end_of_chunk(self, start: int, stop: int) -> int:
        market = self.market
        waits = market.buys or market.sells or market.bids.taken or market.asks.taken
        return min(stop, start + _CHUNK) if waits else stop

    def absorb(self, start: int, stop: int) -> None:
        kinds = self.kind[start:stop]
        bids = start + np.flatnonzero(kinds == _BID)
        asks = start + np.flatnonzero(kinds == _ASK)
        for side, own, others, best in (
            (self.market.bids, bids, asks, np.min),
            (self.market.asks, asks, bids, np.max),
        ):
            if len(own):
                tick = self._tick(int(own[-1]))
                side.show(tick.price, tick.size, tick.time_ns)
                others = others[others > own[-1]]
            if len(others):
                crossing = price_of(self.market, float(best(self.price[others])))
                side.pass_by(crossing, int(self.time[others[0]]))

    def _tick(self, at: int) -> Tick:
        row, market = self.rows[at], self.market
        return Tick(
            at,
            int(self.kind[at]),
            price_of(market, float(row["price"])),
            quantize(float(row["size"]), market.size_tick, "down"),
            int(self.time[at]),
            int(row["time_ns"]),
        )

    def _matters(self, part: slice) -> NDArray[np.bool_]:
        market, price, kind = self.market, self.price[part], self.kind[part]
        bid, ask, trade = kind == _BID, kind == _ASK, kind == _TRADE
        found = np.zeros(len(kind), bool)
        margin = _MARGIN * float(market.price_tick)
        if market.buys:
            top = float(market.buys[0].price) + margin
            found |= (ask | trade) & (price <= top)
            found |= bid & (price <= _queue_price(market.buys, -inf) + margin)
        if market.sells:
            bottom = float(market.sells[0].price) - margin
            found |= (bid | trade) & (price >= bottom)
            found |= ask & (price >= _queue_price(market.sells, inf) - margin)
        if market.asks.taken:
            low = float(min(market.asks.taken)) - margin
            found |= (ask | bid) & (price >= low)
        if market.bids.taken:
            high = float(max(market.bids.taken)) + margin
            found |= (ask | bid) & (price <= high)
        if market.buys or market.sells:
            found |= (kind > 0) & (self.time[part] <= market.latest_ns)
        return found


def interest(market: PaperMarket) -> Interest:
    """What a market waits for now."""
    return Interest(
        _queue_price(market.buys, -inf),
        _queue_price(market.sells, inf),
        (*market.bids.taken, *market.asks.taken),
    )


def is_trade(tick: Tick) -> bool:
    return tick.kind == _TRADE


def is_bid(tick: Tick) -> bool:
    return tick.kind == _BID


def price_of(market: PaperMarket, price: float) -> Decimal:
    """The nearest price of a market, as a decimal."""
    known = market.prices.get(price)
    if known is None:
        if len(market.prices) >= _MOST_PRICES:
            market.prices.clear()
        known = market.prices[price] = quantize(price, market.price_tick)
    return known


def _queue_price(orders: list[PaperOrder], none: float) -> float:
    """The best price at which an order waits in a queue."""
    return next((float(one.price) for one in orders if one.ahead != 0), none)
