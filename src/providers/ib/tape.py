"""Ticks of one market out of what TWS tells of it: by tick, or sampled.

Rules this file owns:

1. Tick by tick every trade is told once, with the exchange's second. Within it times
   rise, whatever subscription told them: so their order is not lost, and a lost trade
   fits in wherever it belongs. The first one after a loss leaves half of what is left
   of its second to those that may be missing before it.
2. Sampled, each growth of the session's volume is a trade, see `sampled`.
3. A trade comes from one of the two only. Until it is decided which, sampled ones are
   held.
4. What is traded but never printed (odd lots, average prices) is a `dark_trade`, what
   is printed past a limit a `utrade`.
5. Where bars are made of quotes, a second's first tick repeats the quote in force, as
   the venue's bars do, and sizes are in ticks of their own: such bars have no volume.

Sources: https://interactivebrokers.github.io/tws-api/tick_types.html and
https://interactivebrokers.github.io/tws-api/tick_data.html
"""

import math
from collections import Counter
from decimal import Decimal
from typing import Any

from piker_core.calendars import NS

from .audit import Audit
from .contracts import Listing
from .sampled import Growth, Sampler
from .volume import decimal_size

STEP_NS = 1_000
_PARTS = 1_000
EDGE_S = 1
"""Seconds after the first one of a subscription whose trades may not all be known."""
_BID_SIZE, _BID, _ASK, _ASK_SIZE, _LAST = 0, 1, 2, 3, 4
_VOLUME, _CLOSE, _LAST_TIME, _RT_VOLUME, _RT_TRADE_VOLUME = 8, 9, 45, 48, 77
_LIVE_KIND = {
    66: _BID, 67: _ASK, 68: _LAST, 69: _BID_SIZE, 70: _ASK_SIZE, 74: _VOLUME,
    75: _CLOSE,
}  # fmt: skip
"""Kinds of delayed ticks, as those of live ones. Of the times of delayed trades no use
is made: their bars lie when they arrive, as nothing else would be seen of them live."""
_STRINGS = {233: _RT_VOLUME, 375: _RT_TRADE_VOLUME}
_SIDES = {_BID: "bid", _ASK: "ask", _BID_SIZE: "bid", _ASK_SIZE: "ask"}
_LATE_SECONDS = 8
_SAMPLED_S = 2
"""A sample may stand for trades of this second and the next."""

Tick = dict[str, Any]


class Tape:
    """One market's state between two messages; `flush` gives the ticks since.

    `rt_volume`: 233 or 375, the generic tick that was asked for.
    """

    def __init__(self, listing: Listing, rt_volume: int = 233) -> None:
        self.listing = listing
        self.source = "sampled"
        self.close: float | None = None
        self.best: dict[str, float] = {}
        self.sizes: dict[str, float] = {}
        self.sampler = Sampler(listing.lot)
        self.audit = Audit()
        self.counts: Counter[str] = Counter()
        self.sampled_s = 0
        self._string = _STRINGS[rt_volume]
        self._lot = Decimal(listing.lot)
        self._ticks: list[Tick] = []
        self._held: list[Tick] = []
        self._begun_s = 0
        self._edge_s: int | None = None
        self._newest_s = 0
        self._times: dict[int, int] = {}
        self._begun: set[int] = set()

    def remember(self, time_ns: int) -> None:
        """An earlier writer has told a trade of this time."""
        self._times[time_ns // NS] = time_ns

    def begin(self, now_ns: int, *, by_tick: bool) -> None:
        """Another subscription begins; `by_tick`: tick-by-tick data were asked for."""
        self.source = "undecided" if by_tick else "sampled"
        self.sampler.begin(now_ns)
        self.audit.begin(now_ns)
        self._held.clear()
        self._begun_s = now_ns // NS
        self._edge_s = None
        self._newest_s = 0
        self._begun.clear()

    def resume(self, now_ns: int) -> None:
        """The same subscription goes on after a loss."""
        source = self.source
        self.begin(now_ns, by_tick=False)
        self.source = source
        if self.listing.kind == "quotes":
            self.best.clear()
            self.sizes.clear()

    def decide(self, source: str) -> None:
        """From now on trades come from "ticks" or "sampled"."""
        self._collect(self._begun_s * NS)
        if self.source == "undecided" and source == "sampled":
            for tick in self._held:
                self._tell_sampled(tick)
            if self.listing.kind == "quotes":
                for side in self.best:
                    self._tell_quote(side, price=True)
        self.source = source
        self._held.clear()

    @property
    def price(self) -> float | None:
        """The newest price known: of a trade, else of yesterday's, else a quote."""
        quote = self.best.get(self.listing.bars_from) or self.best.get("bid")
        if self.listing.kind == "quotes":
            return quote or self.close
        return self.sampler.last or self.close or quote

    @property
    def times(self) -> str:
        """Of what kind the times of its ticks are."""
        if self.source == "ticks":
            return "exchange, seconds"
        if self.sampler.named:
            return "exchange, milliseconds"
        return "arrival" if self.sampler.local else "exchange, seconds"

    @property
    def waiting(self) -> int:
        """How many trades are held that should have been told one by one, too.

        Those of the first second do not count: the other line may have begun after it.
        """
        edge_s = self._begun_s + EDGE_S
        return sum(tick["time_ns"] // NS > edge_s for tick in self._held)

    def flush(self, now_ns: int) -> list[Tick]:
        """The ticks since the last call; `now_ns` is their time of arrival."""
        self.sampler.settle(now_ns)
        self._collect(now_ns)
        self.sampler.end_chunk()
        ticks, self._ticks = self._ticks, []
        for tick in ticks:
            if tick["time_ns"] is None:
                tick["time_ns"] = now_ns
        return ticks

    def take(self, name: str, arguments: tuple[Any, ...], now_ns: int) -> None:
        """One message on the market's lines; raises ValueError for nonsense."""
        if name == "tickByTickAllLast":
            self._take_trade(now_ns, *arguments[1:5])
        elif name == "tickByTickBidAsk":
            self._take_both(*arguments[:5])
        elif name == "priceSizeTick":
            self._take_price(now_ns, *arguments)
        elif name == "tickSize":
            self._take_size(now_ns, *arguments)
        elif name == "tickString":
            self._take_string(now_ns, *arguments)
        elif name == "marketDataType":
            self.sampler.delayed = arguments[0] in (3, 4)
        else:
            self.counts[name] += 1

    # Tick by tick

    def _take_trade(
        self, now_ns: int, second: int, price: float, size: float, marks: Any
    ) -> None:
        units = decimal_size(size)
        if not is_price(price) or units is None:
            raise ValueError(f"no trade: price {price!r}, size {size!r}")
        if self.source != "ticks":
            self.decide("ticks")
        kind = trade_type(marks)
        if kind != "dark_trade" or self._string == _RT_VOLUME:
            self.audit.tell(second, price, units * self._lot, now_ns)
        if kind != "dark_trade":
            self.sampler.last = price
        time_ns = self._exchange_ns(second)
        self._ticks.append(_tick(kind, price, float(units * self._lot), time_ns))

    def _take_both(
        self, second: int, bid: float, ask: float, bid_size: float, ask_size: float
    ) -> None:
        if self.source != "ticks":
            self.decide("ticks")
        follows = (self._newest_s or self._begun_s) < second
        time_ns = self._exchange_ns(second)
        if follows:
            for side, price in self.best.items():
                self._ticks.append(_tick(side, price, 0.0, time_ns))
        for side, price, size in (("bid", bid, bid_size), ("ask", ask, ask_size)):
            self._set_quote(side, price, size, time_ns)

    def _exchange_ns(self, second: int) -> int:
        if self._edge_s is None:
            self._edge_s = second + EDGE_S
        last_ns, end_ns = self._times.get(second, second * NS), (second + 1) * NS
        step_ns = min(STEP_NS, (end_ns - last_ns) // _PARTS)
        if second not in self._begun and second <= self._edge_s:
            step_ns = (end_ns - last_ns) // 2
        self._begun.add(second)
        self._times[second] = last_ns + step_ns
        if len(self._times) > _LATE_SECONDS:
            oldest = min(self._times)
            del self._times[oldest]
            self._begun.discard(oldest)
        self._newest_s = max(second, self._newest_s)
        return last_ns + step_ns

    # Sampled

    def _take_price(self, now_ns: int, kind: int, price: float, size: float) -> None:
        kind = _LIVE_KIND.get(kind, kind)
        if kind in (_BID, _ASK):
            side = _SIDES[kind]
            if self._quotes_are_sampled():
                self._set_quote(side, price, size, None)
            elif is_price(price):
                self.best[side] = price
        elif kind == _LAST and is_price(price):
            self._take_last(price, now_ns)
        elif kind == _CLOSE and is_price(price):
            self.close = price

    def _take_size(self, now_ns: int, kind: int, size: float) -> None:
        kind = _LIVE_KIND.get(kind, kind)
        units = decimal_size(size)
        if units is None:
            return
        if kind == _VOLUME and self.listing.kind == "trades":
            self.sampler.take_total(units, now_ns)
        elif kind in (_BID_SIZE, _ASK_SIZE) and self._quotes_are_sampled():
            side = _SIDES[kind]
            if side in self.best and self.sizes.get(side) != float(units * self._lot):
                self.sizes[side] = float(units * self._lot)
                self._tell_quote(side, price=False)

    def _take_string(self, now_ns: int, kind: int, text: str) -> None:
        if kind == _LAST_TIME:
            self.sampler.take_time(text, now_ns)
        elif kind == self._string and self.listing.kind == "trades":
            told = self.sampler.take_rt_volume(text, now_ns)
            if self.source == "ticks" and told.price and told.size:
                size, total = told.size * self._lot, told.total * self._lot
                second = told.time_ns // NS
                self.audit.marks.mark(second, told.price, size, total, now_ns)

    def _take_last(self, price: float, now_ns: int) -> None:
        """A trade's price: that of an index is all that there is of a trade."""
        sampler = self.sampler
        before = sampler.last
        sampler.take_last(price, now_ns)
        if self.listing.kind == "prices" and before not in (None, price):
            time_ns = sampler.stamp_ns
            sampler.local += time_ns is None
            self._add_sampled((price, Decimal(0), time_ns or now_ns))

    def _collect(self, now_ns: int) -> None:
        """What the volume has grown by."""
        for growth in self.sampler.drain():
            if self.source != "sampled":
                self.audit.grow(growth[1], now_ns)
            if self.source != "ticks":
                self._add_sampled(growth)

    def _add_sampled(self, growth: Growth) -> None:
        price, size, time_ns = growth
        tick = _tick("trade", price, float(size), time_ns)
        if self.source == "undecided":
            self._held.append(tick)
        else:
            self._tell_sampled(tick)

    def _tell_sampled(self, tick: Tick) -> None:
        self._ticks.append(tick)
        self.sampled_s = max(self.sampled_s, tick["time_ns"] // NS + _SAMPLED_S)

    # Quotes

    def _quotes_are_sampled(self) -> bool:
        return self.listing.kind != "quotes" or self.source == "sampled"

    def _set_quote(
        self, side: str, price: float, size: float, time_ns: int | None
    ) -> None:
        if not is_price(price):
            self.best.pop(side, None)
            self.sizes.pop(side, None)
            return
        units = decimal_size(size)
        size = 0.0 if units is None else float(units * self._lot)
        moved = self.best.get(side) != price
        if moved or self.sizes.get(side) != size:
            self.best[side], self.sizes[side] = price, size
            self._tell_quote(side, price=moved, time_ns=time_ns)

    def _tell_quote(
        self, side: str, *, price: bool, time_ns: int | None = None
    ) -> None:
        """A new price is a `bid` or `ask` tick, a new size alone `bsize` or `asize`."""
        best, size = self.best[side], self.sizes.get(side, 0.0)
        if price and self.listing.kind == "quotes":
            self._ticks.append(_tick(side, best, 0.0, time_ns))
            price = False
        kind = side if price else f"{side[0]}size"
        self._ticks.append(_tick(kind, best, size, time_ns))


def normalize_tick(row: Any) -> Tick:
    """A trade of ib_async's (`TickByTickAllLast`, `HistoricalTickLast`) as a tick."""
    return {
        "type": trade_type(row.tickAttribLast),
        "price": row.price,
        "size": row.size,
        "time_ns": int(row.time.timestamp()) * NS,
    }


def trade_type(marks: Any) -> str:
    """The type of a trade with TWS's marks `unreported` and `pastLimit`."""
    if marks.unreported:
        return "dark_trade"
    return "utrade" if marks.pastLimit else "trade"


def is_price(price: float) -> bool:
    """Whether it is one: TWS says -1, 0 or the greatest double for none."""
    return math.isfinite(price) and 0 < price < 1e300


def _tick(kind: str, price: float, size: float, time_ns: int | None) -> Tick:
    return {"type": kind, "price": price, "size": size, "time_ns": time_ns}
