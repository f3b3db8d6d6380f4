"""Which trades of a second are known, where only their order tells them apart.

Rules this file owns:

1. A subscription is an epoch. Trades of one second that an earlier one told are the
   first ones of the venue's list, those that a later one told are the last ones.
2. Trades told one by one are found again in the list by type, price and size, in order
   as far as can be.
   Where that fails, as for those told as growth of a total, their sizes are counted:
   as many of the list are known as their size amounts to. Growth has the time of its
   last trade, so what is known too much of a second is of the one before.
3. What is missing is put between the known trades that stand about it in the list, with
   times in the middle: so what is found missing later has room, too.
"""

from bisect import bisect_right
from collections.abc import Container, Iterable, Sequence
from decimal import Decimal
from itertools import accumulate, chain
from typing import NamedTuple

from piker_core.calendars import NS

from .archive import PastTick
from .tape import Tick

PRINTED = frozenset(("trade", "utrade"))
TRADES = PRINTED | {"dark_trade"}
_KEEP_S = 30
_NONE = Decimal(0)


class Known(NamedTuple):
    """A trade that was told; one whose price is 0 is the sum of several."""

    epoch: int
    time_ns: int
    type: str
    price: float
    size: Decimal


class KnownTrades:
    """The trades of one market that were told lately, by second."""

    def __init__(self) -> None:
        self.epoch = 0
        self.newest_s = 0
        self._seconds: dict[int, list[Known]] = {}
        self._oldest_s = 0

    def clear(self) -> None:
        """Nothing was told after all."""
        self._seconds.clear()

    def add(self, ticks: Sequence[Tick], epoch: int | None = None) -> None:
        """Trades were told, by this epoch's subscription unless another is named."""
        of = self.epoch if epoch is None else epoch
        for tick in ticks:
            if tick["type"] in TRADES:
                size = Decimal(repr(float(tick["size"])))
                trade = Known(of, tick["time_ns"], tick["type"], tick["price"], size)
                self.put(trade)

    def put(self, trade: Known) -> None:
        """A trade was told."""
        second = trade.time_ns // NS
        self._seconds.setdefault(second, []).append(trade)
        self.newest_s = max(self.newest_s, second)

    def forget(self, oldest_s: int) -> None:
        """Drop seconds before this one, the first of any gap, that are old as well."""
        oldest_s = min(oldest_s, self.newest_s - _KEEP_S)
        if oldest_s > self._oldest_s:
            self._oldest_s = oldest_s
            for second in [each for each in self._seconds if each < oldest_s]:
                del self._seconds[second]

    def size(self, second: int) -> Decimal:
        """What is known to have been printed in a second."""
        return _printed_size(self._seconds.get(second, ()))

    def count(self, second: int) -> int:
        """How many are known to have been printed in a second."""
        return sum(trade.type in PRINTED for trade in self._seconds.get(second, ()))

    def epoch_of(self, start_s: int, end_s: int) -> int:
        """The last one that has told of some seconds; the running one if none has."""
        epochs = [
            trade.epoch
            for second in range(start_s, end_s)
            for trade in self._seconds.get(second, ())
        ]
        return max(epochs, default=self.epoch)

    def lost_run(
        self, listed: Sequence[PastTick], first_s: int, epoch: int, lost: Decimal
    ) -> list[Tick] | None:
        """Of all trades since a second those between two subscriptions, by their size.

        `lost` is exactly what was traded between them, `epoch` the first of the two.
        None if no trades in a row have that size.
        """
        known = [
            trade
            for second, trades in self._seconds.items()
            for trade in trades
            if second >= first_s and trade.epoch <= epoch
        ]
        told = sum((trade.size for trade in known), _NONE)
        printed = [tick for tick in listed if tick.type in PRINTED]
        run = _run(listed, told, lost) or _run(printed, told, lost)
        if run is None:
            return None
        last_ns = max((trade.time_ns for trade in known), default=0)
        begins = {last_ns // NS: last_ns + 1}
        return [
            _tick(tick, begins.get(tick.second, tick.second * NS) + place)
            for place, tick in enumerate(run)
        ]

    def missing(
        self,
        second: int,
        listed: Sequence[PastTick],
        epoch: int,
        carried: Decimal = _NONE,
    ) -> tuple[list[Tick], Decimal]:
        """Of all trades of a second those not told; and what was told too much.

        `epoch`: the last one before the gap in question. `carried`: what was told too
        much of the second after: growth of a total may reach back into this one.
        """
        known = sorted(self._seconds.get(second, ()), key=lambda trade: trade.time_ns)
        before = [trade for trade in known if trade.epoch <= epoch]
        after = [trade for trade in known if trade.epoch > epoch]
        excess = max(_printed_size(known) + carried - _printed_size(listed), _NONE)
        places = None if carried else _find(before, after, listed)
        if places is None:
            listed = [tick for tick in listed if tick.type in PRINTED]
            places = _count(second, before, after, listed, carried)
        return _placed(second, listed, places), excess


def _run(
    listed: Sequence[PastTick], told: Decimal, lost: Decimal
) -> Sequence[PastTick] | None:
    """Trades in a row of a size, the ones that begin nearest to what was told."""
    sums = [_NONE, *accumulate(tick.size for tick in listed)]
    ends = {total: place for place, total in enumerate(sums)}
    begins = [place for place, total in enumerate(sums) if total + lost in ends]
    if not begins:
        return None
    begin = min(begins, key=lambda place: abs(sums[place] - told))
    return listed[begin : ends[sums[begin] + lost]]


def _find(
    before: Sequence[Known], after: Sequence[Known], listed: Sequence[PastTick]
) -> dict[int, int] | None:
    """Times of the known trades by their places in the list; None if one is not in.

    In order from either end. One that can only be found out of order is there all the
    same: among trades that look alike another was taken for it before.
    """
    places: dict[int, int] = {}
    begin, end = 0, len(listed)
    for trade in before:
        found = _next(trade, listed, chain(range(begin, end), range(begin)), places)
        if found < 0:
            return None
        places[found] = trade.time_ns
        begin = max(begin, found + 1)
    for trade in reversed(after):
        backward = chain(range(end - 1, -1, -1), range(end, len(listed)))
        found = _next(trade, listed, backward, places)
        if found < 0:
            return None
        places[found] = trade.time_ns
        end = min(end, found)
    return places


def _next(
    trade: Known,
    listed: Sequence[PastTick],
    places: Iterable[int],
    taken: Container[int],
) -> int:
    for place in places:
        tick = listed[place]
        alike = (tick.type, tick.price, tick.size) == trade[2:]
        if alike and place not in taken:
            return place
    return -1


def _count(
    second: int,
    before: Sequence[Known],
    after: Sequence[Known],
    listed: Sequence[PastTick],
    carried: Decimal,
) -> dict[int, int]:
    """The same, by how much of the list the known sizes amount to from either end."""
    begin = _fits(listed, _printed_size(before))
    last_ns = max((trade.time_ns for trade in before), default=second * NS)
    places = dict.fromkeys(range(begin), last_ns)
    rest = listed[begin:][::-1]
    end = len(listed) - _fits(rest, _printed_size(after) + carried)
    next_ns = min((trade.time_ns for trade in after), default=(second + 1) * NS)
    return places | dict.fromkeys(range(end, len(listed)), next_ns)


def _fits(listed: Sequence[PastTick], size: Decimal) -> int:
    """How many trades from the first on have no more than a size in all."""
    if not size:
        return 0
    return bisect_right(list(accumulate(tick.size for tick in listed)), size)


def _placed(
    second: int, listed: Sequence[PastTick], places: dict[int, int]
) -> list[Tick]:
    """What is listed and not known, in the middle of the time that is left for it."""
    ticks: list[Tick] = []
    last_ns, run = second * NS - 1, list[PastTick]()
    for place, tick in enumerate(listed):
        if place not in places:
            run.append(tick)
            continue
        ticks += _between(run, last_ns, places[place])
        last_ns, run = max(places[place], last_ns), []
    return ticks + _between(run, last_ns, (second + 1) * NS)


def _between(run: Sequence[PastTick], before_ns: int, after_ns: int) -> list[Tick]:
    """Trades with times that rise from one time to another, as far as there is room."""
    room_ns, parts = max(after_ns - before_ns, 1), len(run) + 1
    return [
        _tick(tick, before_ns + max(room_ns * place // parts, 1))
        for place, tick in enumerate(run, 1)
    ]


def _tick(tick: PastTick, time_ns: int) -> Tick:
    return {
        "type": tick.type,
        "price": tick.price,
        "size": float(tick.size),
        "time_ns": time_ns,
    }


def _printed_size(trades: Sequence[Known | PastTick]) -> Decimal:
    return sum((trade.size for trade in trades if trade.type in PRINTED), _NONE)
