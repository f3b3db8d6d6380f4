"""Whether the trades told one by one are all: the volume must grow as they do.

Rules this file owns:

1. The shortfall is the growth of the volume less the sizes told. Neither comes at once,
   so it sways while there is trading; after IDLE_S without any it is exact.
2. Where it has risen from one such moment to the next, trades were lost between them.
   Where trading does not rest, `marks` say the same. Either's finding is the other's.
3. Where looking has found nothing VAIN_MOST times in a row, the two do not mean the
   same: no more audits. Once is nothing: a lost message of the volume looks like it.
"""

from decimal import Decimal

from .marks import Marks

IDLE_S = 0.6
"""Longer than the interval at which TWS tells of the volume."""
VAIN_MOST = 8
_SETTLE_NS = 1_000_000_000
"""How long the first samples may tell of what was traded before."""


class Audit:
    """The volume of one market against the trades of one subscription."""

    def __init__(self) -> None:
        self.trusted = True
        self.marks = Marks()
        self._vain = 0
        self._shortfall = Decimal(0)
        self._level: Decimal | None = None
        self._moved_ns = 0
        self._good_ns = 0

    def begin(self, now_ns: int) -> None:
        """Another subscription: where the two stand is known when trading rests."""
        self._shortfall, self._level = Decimal(0), None
        self._moved_ns = now_ns + _SETTLE_NS
        self.marks.begin()

    def grow(self, size: Decimal, now_ns: int) -> None:
        """The volume has grown."""
        self._shortfall += size
        self._moved_ns = max(now_ns, self._moved_ns)

    def tell(self, second: int, price: float, size: Decimal, now_ns: int) -> None:
        """A trade was told."""
        self.marks.tell(second, price, size, now_ns)
        self._shortfall -= size
        self._moved_ns = max(now_ns, self._moved_ns)

    def look(self, now_ns: int) -> int:
        """Since when (ns) trades are missing; 0 if none are known to be."""
        if not self.trusted:
            return 0
        since_ns, lost = self.marks.look(now_ns)
        if since_ns:
            self._level = None if self._level is None else self._level + lost
            return since_ns
        if now_ns - self._moved_ns < IDLE_S * 1e9:
            return 0
        level, self._level = self._level, self._shortfall
        since_ns, self._good_ns = self._good_ns, now_ns
        if level is None or self._shortfall <= level:
            return 0
        self.marks.shift(self._shortfall - level)
        return since_ns

    def judge(self, found: int) -> None:
        """So many trades were missing where this has sent the repair to look."""
        self._vain = 0 if found else self._vain + 1
        if self._vain >= VAIN_MOST:
            self.trusted = False
