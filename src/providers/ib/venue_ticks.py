"""What a subscription to market data is told: sampled quotes, and tick by tick.

Rules this file owns:

1. `Sampled` sends what changed since it last sent, so trades between two samples are
   seen as growth of the volume alone.
2. `EachTick` sends every trade or quote once, in order, times in whole seconds.
"""

from collections.abc import Callable, Collection
from typing import Any, Protocol

import numpy as np

from piker_core.simulation.market import NS
from piker_core.simulation.totals import Rows, Totals, merge, total

from .venue_directory import Found
from .venue_faults import Group
from .venue_frames import frame, price_text, wap_text
from .venue_tape import Tape, midpoint_fields, quote_fields, trade_fields

BID_SIZE, BID, ASK, ASK_SIZE, LAST, LAST_SIZE = 0, 1, 2, 3, 4, 5
HIGH, LOW, VOLUME, CLOSE, OPEN = 6, 7, 8, 9, 14
LAST_TIMESTAMP, RT_VOLUME, HALTED, RT_TRADE_VOLUME = 45, 48, 49, 77
DELAYED = {
    BID: 66, ASK: 67, LAST: 68, BID_SIZE: 69, ASK_SIZE: 70, LAST_SIZE: 71, HIGH: 72,
    LOW: 73, VOLUME: 74, CLOSE: 75, OPEN: 76, LAST_TIMESTAMP: 88,
}  # fmt: skip
_STRINGS = {"233": RT_VOLUME, "375": RT_TRADE_VOLUME}
_SIZE_OF = {BID: BID_SIZE, ASK: ASK_SIZE, LAST: LAST_SIZE}
TICK_KINDS = {"Last": 1, "AllLast": 2, "BidAsk": 3, "MidPoint": 4}


class Receiver(Protocol):
    """What ticks need of a connection."""

    version: int


class Sampled:
    """One reqMktData: what its client knows, and the frames that update it."""

    def __init__(
        self,
        client: Receiver,
        request_id: int,
        found: Found,
        tape: Tape,
        *,
        generic: Collection[str] = (),
        delayed: bool = False,
    ) -> None:
        self.market = found.market
        self._version = client.version
        self._id = request_id
        self._contract = found.contract
        self._tape = tape
        told = () if delayed else generic
        self._strings = [name for name in _STRINGS if name in told]
        self._delayed = delayed
        self._sent: dict[int, tuple[object, ...]] = {}
        self._day_ns = -1
        self._index = 0
        self._totals: Totals | None = None
        self._told: Totals | None = None
        self._printed: int | None = None

    def first(self, now_ns: int) -> Group:
        """All that is known, for a new subscription."""
        strings, self._strings = self._strings, []
        group = self.update(now_ns)
        self._strings = strings  # they tell of trades to come
        return [*group, frame(45, 6, self._id, HALTED, 0)]

    def update(self, now_ns: int, upto: int | None = None) -> Group:
        """Frames for what is new, with trades up to a row; empty if nothing is."""
        market = self.market
        if self._delayed:
            now_ns -= int(self._tape.delay_s * NS)
            upto = market.index_at(now_ns + 1)
        group = self._price(CLOSE, market.close_before(now_ns))
        if self._contract.prints:
            group += self._trades(now_ns, market.head if upto is None else upto)
        return group + (self._quote(now_ns) if self._contract.sized else [])

    def _trades(self, now_ns: int, upto: int) -> Group:
        market, contract = self.market, self._contract
        fresh = self._take(now_ns, upto)
        group: Group = []
        if self._printed is not None:
            row = market.rows()[self._printed]
            price, time_s = int(row["price"]), int(row["time_ns"]) // NS
            size = int(row["size"]) if contract.sized else 0
            group += self._string(LAST_TIMESTAMP, str(time_s))
            group += self._price(LAST, price, size)
            for generic in self._strings if fresh and contract.sized else ():
                group += self._string(_STRINGS[generic], self._rt_text(row, generic))
        day = self._totals
        if contract.sized:
            group += self._size(VOLUME, day.volume if day else 0)
        if day:
            group += self._price(HIGH, day.high) + self._price(LOW, day.low)
            group += self._price(OPEN, day.open)
        return group

    def _take(self, now_ns: int, upto: int) -> bool:
        """Count the trades before a row; whether one of them was printed."""
        market = self.market
        day_ns = market.day_begin_ns(now_ns)
        if day_ns != self._day_ns:
            self._day_ns, self._index = day_ns, market.index_at(day_ns)
            self._totals = self._told = None
            self._printed = self._last_printed(market.rows()[: self._index], 0)
        rows = market.rows()[self._index : upto]
        if not len(rows):
            return False
        self._totals = merge(self._totals, total(rows))
        least = self._tape.printed_from(self._contract)
        told = rows[rows["size"] >= least]
        if len(told):
            self._told = merge(self._told, total(told))
            self._printed = self._last_printed(rows, self._index)
        self._index = upto
        return len(told) > 0

    def _last_printed(self, rows: Rows, first: int) -> int | None:
        least = self._tape.printed_from(self._contract)
        printed = np.flatnonzero(rows["size"] >= least)
        return first + int(printed[-1]) if len(printed) else None

    def _rt_text(self, row: Any, generic: str) -> str:
        contract = self._contract
        day = self._totals if generic == "233" else self._told
        stamp = self.market.rows()["time_ns"]
        same = np.searchsorted(stamp, (row["time_ns"], row["time_ns"] + 1))
        parts = (
            price_text(contract, int(row["price"])),
            self._size_text(int(row["size"])),
            str(int(row["time_ns"]) // 10**6),
            self._size_text(day.volume if day else 0),
            wap_text(contract, day.vwap if day else 0),
            "true" if same[1] - same[0] == 1 else "false",
        )
        return ";".join(parts)

    def _quote(self, now_ns: int) -> Group:
        market = self.market
        if not market.is_open(now_ns):
            return self._price(BID, -1, 0) + self._price(ASK, -1, 0)
        quotes = market.quotes()
        index = int(np.searchsorted(quotes["time_ns"], now_ns, "right")) - 1
        if index < 0:
            return []
        _, bid, ask, bid_size, ask_size = quotes[index].tolist()
        return self._price(BID, bid, bid_size) + self._price(ASK, ask, ask_size)

    # Frames, each only if it says something new

    def _changed(self, tick: int, *values: object) -> bool:
        changed = self._sent.get(tick) != values
        self._sent[tick] = values
        return changed

    def _kind(self, tick: int) -> int:
        return DELAYED.get(tick, tick) if self._delayed else tick

    def _size_text(self, units: int) -> str:
        return self._tape.size(self._contract, units, self._version)

    def _price(self, tick: int, units: int, size: int | None = None) -> Group:
        size_tick = _SIZE_OF.get(tick)
        sized = size_tick is not None and size is not None
        resized = sized and self._changed(size_tick or 0, size)
        text = "-1" if units == -1 else price_text(self._contract, units)
        size_part = self._size_text(size or 0)
        group: Group = []
        if self._changed(tick, units):
            kind = self._kind(tick)
            group.append(frame(1, 6, self._id, kind, text, size_part, 0))
            resized = resized and tick == LAST  # a quote's size has come with its price
        if resized and size_tick is not None:
            group.append(frame(2, 6, self._id, self._kind(size_tick), size_part))
        return group

    def _size(self, tick: int, units: int) -> Group:
        if not self._changed(tick, units):
            return []
        return [frame(2, 6, self._id, self._kind(tick), self._size_text(units))]

    def _string(self, tick: int, text: str) -> Group:
        if not self._changed(tick, text):
            return []
        return [frame(46, 6, self._id, self._kind(tick), text)]


class EachTick:
    """One reqTickByTickData of a kind of `TICK_KINDS`."""

    def __init__(
        self,
        client: Receiver,
        request_id: int,
        found: Found,
        tape: Tape,
        kind: str,
    ) -> None:
        self.market = found.market
        self._version = client.version
        self._id = request_id
        self._contract = found.contract
        self._tape = tape
        self._kind = TICK_KINDS[kind]
        self._next = len(self._source())

    def _source(self) -> Rows:
        trades = self._kind <= TICK_KINDS["AllLast"]
        return self.market.rows() if trades else self.market.quotes()

    def updates(self) -> list[Group]:
        """What is new: a group for each time stamp."""
        rows = self._source()[self._next :]
        self._next += len(rows)
        if not len(rows):
            return []
        encode = self._encoder()
        bursts = np.split(rows, np.flatnonzero(np.diff(rows["time_ns"])) + 1)
        groups = [
            [made for row in burst.tolist() for made in encode(row)] for burst in bursts
        ]
        return [group for group in groups if group]

    def _encoder(self) -> Callable[[tuple[Any, ...]], Group]:
        if self._kind <= TICK_KINDS["AllLast"]:
            return self._trade
        return self._bid_ask if self._kind == TICK_KINDS["BidAsk"] else self._midpoint

    def _trade(self, row: tuple[Any, ...]) -> Group:
        fields = trade_fields(self._contract, row, self._version, self._tape)
        time_s, mask, price, size, exchange, conditions = fields
        if mask and self._kind == TICK_KINDS["Last"]:
            return []
        head = (99, self._id, self._kind, time_s)
        return [frame(*head, price, size, mask, exchange, conditions)]

    def _bid_ask(self, row: tuple[Any, ...]) -> Group:
        fields = quote_fields(self._contract, row, self._version, self._tape)
        time_s, mask, *values = fields
        return [frame(99, self._id, self._kind, time_s, *values, mask)]

    def _midpoint(self, row: tuple[Any, ...]) -> Group:
        return [frame(99, self._id, self._kind, *midpoint_fields(self._contract, row))]
