"""Trades found again among those told one by one, though trading never rests.

Rules this file owns:

1. A mark is a trade that was told with the total volume. Found again by second, price
   and size, it says how far the total is ahead of the sizes told: always by the same,
   if nothing is lost. Where several look alike, one of them is it.
2. What SURE marks in a row have in common is so. When that is more than before, trades
   were lost since the last mark that agreed with what was before, and was alone.
3. A mark waits for WAIT_S: its trade may be told a little later.
"""

from collections import deque
from decimal import Decimal
from typing import NamedTuple

SURE = 3
WAIT_S = 0.5
_KEEP_NS = 10_000_000_000


class Told(NamedTuple):
    """A trade and the sum of all sizes up to it, or of a mark the total volume."""

    second: int
    price: float
    size: Decimal
    total: Decimal
    at_ns: int


class Marks:
    """The marks of one subscription."""

    def __init__(self) -> None:
        self._told: deque[Told] = deque()
        self._marks: deque[Told] = deque()
        self._sum = Decimal(0)
        self.begin()

    def begin(self) -> None:
        """Another subscription: nothing is agreed upon."""
        self._told.clear()
        self._marks.clear()
        self._ahead: set[Decimal] = set()
        self._good_ns = 0
        self._maybe: set[Decimal] = set()
        self._agree = 0
        self._agree_ns = 0

    def tell(self, second: int, price: float, size: Decimal, now_ns: int) -> None:
        """A trade was told."""
        self._sum += size
        self._told.append(Told(second, price, size, self._sum, now_ns))
        while self._told[0].at_ns < now_ns - _KEEP_NS:
            self._told.popleft()

    def mark(
        self, second: int, price: float, size: Decimal, total: Decimal, now_ns: int
    ) -> None:
        """A trade was told with the total volume."""
        self._marks.append(Told(second, price, size, total, now_ns))

    def look(self, now_ns: int) -> tuple[int, Decimal]:
        """Since when (ns) trades are missing, and of what size; (0, 0) if none are."""
        while self._marks and self._marks[0].at_ns < now_ns - WAIT_S * 1e9:
            mark = self._marks.popleft()
            if found := self._find(mark):
                since_ns, lost = self._weigh(found, mark.at_ns)
                if since_ns:
                    return since_ns, lost
        return 0, Decimal(0)

    def shift(self, lost: Decimal) -> None:
        """So much was lost, as is known otherwise."""
        self._ahead = {ahead + lost for ahead in self._ahead}

    def _find(self, mark: Told) -> set[Decimal]:
        """How far the total may be ahead by this mark."""
        return {mark.total - told.total for told in self._told if told[:3] == mark[:3]}

    def _weigh(self, found: set[Decimal], at_ns: int) -> tuple[int, Decimal]:
        if agreed := self._ahead & found:
            self._ahead = agreed
            self._good_ns = at_ns if len(found) == 1 else self._good_ns
            self._agree, self._maybe = 0, set()
            return 0, Decimal(0)
        common = self._maybe & found
        if not common:
            self._agree, self._agree_ns, common = 0, at_ns, found
        self._maybe = common
        self._agree += 1
        if self._agree < SURE:
            return 0, Decimal(0)
        before, self._ahead = self._ahead, common
        self._agree, self._maybe = 0, set()
        changes = (after - old for after in common for old in before)
        change = min(changes, key=abs, default=Decimal(0))
        since_ns = self._good_ns
        if not before or change > 0:
            self._good_ns = self._agree_ns
        return (since_ns, change) if change > 0 else (0, Decimal(0))
