"""Which trades are missing: ids rise by one, so a jump is a loss until it is made good.

1. `expected` is one above the highest id seen; ids below it are seen or in `missing`.
2. An id seen late leaves `missing`; a span may split in two, and each part is known to
   lie on its side of that trade.
3. What the venue itself does not list is settled: it never existed.

Where a venue has no ids, two lists of trades are told apart by time, price and size: of
equal ones as many are new as one list has more of them than the other.
"""

from collections import Counter, deque
from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.adapter.trades import EVER_NS

Key = tuple[int, float, float]


class Missing(msgspec.Struct):
    """Ids first..last, not seen; they happened between two times (UTC nanoseconds).

    `noticed_s`: when, on the caller's clock.
    """

    first: int
    last: int
    after_ns: int
    before_ns: int
    noticed_s: float


class IdTracker:
    """The ids of one market's trades, as they come in. The first id may be 0."""

    def __init__(self) -> None:
        self.expected = -1
        self.newest_ns = 0
        self.missing: list[Missing] = []

    def start(self, trade_id: int, time_ns: int) -> None:
        """Count from a trade that is known already, as if all before it were.

        With id -1 none is known: all are missing up to the first that comes in.
        """
        self.expected = trade_id + 1
        self.newest_ns = time_ns
        self.missing.clear()

    @property
    def started(self) -> bool:
        """Whether any id is known."""
        return self.expected >= 0

    def wants(self, trade_id: int) -> bool:
        """Whether this id has not been seen."""
        return trade_id >= self.expected or any(
            span.first <= trade_id <= span.last for span in self.missing
        )

    def see(self, trade_id: int, time_ns: int, now_s: float) -> None:
        """A trade came in."""
        if trade_id >= self.expected:
            if self.started and trade_id > self.expected:
                self.missing.append(
                    Missing(self.expected, trade_id - 1, self.newest_ns, time_ns, now_s)
                )
            self.expected = trade_id + 1
            self.newest_ns = max(time_ns, self.newest_ns)
        elif self.missing:
            self._fill(trade_id, time_ns)

    def skip(self, trade_id: int, time_ns: int) -> None:
        """A trade from before the start: neither it nor older ones are missing."""
        if trade_id >= self.expected:
            self.expected = trade_id + 1
            self.newest_ns = max(time_ns, self.newest_ns)

    def settle(self, newest_id: int) -> None:
        """The venue has told all up to this id: what is not there never was."""
        left = []
        for span in self.missing:
            if span.last > newest_id:
                span.first = max(span.first, newest_id + 1)
                left.append(span)
        self.missing = left

    def overdue(self, noticed_before_s: float) -> list[Missing]:
        """Spans that are missing since before a time: too long to be mere disorder."""
        return [span for span in self.missing if span.noticed_s < noticed_before_s]

    def bounds(self, trade_id: int) -> tuple[int, int]:
        """Between which times (ns) a trade was: ids and times rise together."""
        if trade_id >= self.expected:
            return self.newest_ns, EVER_NS
        for span in self.missing:
            if span.first <= trade_id <= span.last:
                return span.after_ns, span.before_ns
        return 0, EVER_NS

    def _fill(self, trade_id: int, time_ns: int) -> None:
        for place, span in enumerate(self.missing):
            if span.first <= trade_id <= span.last:
                at_ns = min(max(time_ns, span.after_ns), span.before_ns)
                noticed_s = span.noticed_s
                parts = [
                    Missing(span.first, trade_id - 1, span.after_ns, at_ns, noticed_s),
                    Missing(trade_id + 1, span.last, at_ns, span.before_ns, noticed_s),
                ]
                self.missing[place : place + 1] = [
                    part for part in parts if part.first <= part.last
                ]
                return


class TickLog:
    """The newest trades of a market without ids, those of the last `keep_ns`.

    Times count in steps of `resolution_ns`, the coarser of what stream and lists have.
    """

    def __init__(self, resolution_ns: int, keep_ns: int) -> None:
        self.newest_ns = 0
        self._resolution_ns, self._keep_ns = resolution_ns, keep_ns
        self._kept: deque[tuple[int, Key]] = deque()

    def key(self, time_ns: int, price: float, size: float) -> Key:
        """What trades are told apart by."""
        return time_ns // self._resolution_ns, price, size

    def see(self, time_ns: int, price: float, size: float) -> Key:
        """A trade came in; its key."""
        key = self.key(time_ns, price, size)
        self.newest_ns = max(self.newest_ns, time_ns)
        self._kept.append((time_ns, key))
        oldest_ns = self.newest_ns - self._keep_ns
        while self._kept[0][0] < oldest_ns:
            self._kept.popleft()
        return key

    def since(self, time_ns: int) -> Counter[Key]:
        """How often each key of the trades at `time_ns` or later came in."""
        return Counter(key for at_ns, key in self._kept if at_ns >= time_ns)

    def keys(self, trades: NDArray[np.void]) -> list[Key]:
        """The keys of trades of TICK_DTYPE."""
        columns = (trades[name].tolist() for name in ("time_ns", "price", "size"))
        return [self.key(*values) for values in zip(*columns, strict=True)]


def take_new(keys: Iterable[Key], seen: Counter[Key]) -> list[bool]:
    """Which of these are not among `seen`; those that are leave it, one for one."""
    new = []
    for key in keys:
        known = seen[key] > 0
        if known:
            seen[key] -= 1
        new.append(not known)
    return new
