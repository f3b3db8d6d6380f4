"""How much was traded since: the growth of the session's total volume.

Rules this file owns:

1. What is counted is growth of the total. Sizes that come with it are what was last
   seen, not all that was traded (they sum to a fraction of it).
2. The first total is where counting begins, unless what came with it says how much of
   it is new. What was traded since the last one before it is the `jump`.
3. Of several sources the highest total counts, so nothing is counted twice. Sources
   that are not in one unit are never mixed: the one that names its trades wins.
4. A lower total is old news, unless it is the beginning of another session: less than
   half, and after a pause, or confirmed by a second one that is not lower.
"""

import re
from decimal import Decimal, InvalidOperation

ZERO = Decimal(0)
RESET_AFTER_S = 60.0
_HALF = Decimal("0.5")
_UNLIKE = 10
_MOST = Decimal(10) ** 15
"""Above it are the values by which TWS says that there is none."""


class VolumeMeter:
    """The session's total volume of one market."""

    def __init__(self) -> None:
        self.backwards = 0
        self.resets = 0
        self.jump: Decimal | None = None
        self._total: Decimal | None = None
        self._left: Decimal | None = None
        self._grown_s = 0.0
        self._low: Decimal | None = None

    @property
    def total(self) -> Decimal | None:
        """The highest total of this session; None before the first one."""
        return self._total

    def begin(self) -> None:
        """Another subscription: what was missed in between is `jump`, not growth."""
        self._left = self._left if self._total is None else self._total
        self._total = self._low = self.jump = None

    def take(
        self, total: Decimal, now_s: float, size: Decimal | None = None
    ) -> Decimal:
        """A new total; how much of it was not counted yet.

        `size`: that of the trade that the total was told with, if it was.
        """
        before = self._total
        if before is None:
            self._total, self._grown_s = total, now_s
            own = ZERO if size is None else min(size, total)
            if self._left is not None and total - own >= self._left:
                self.jump = total - own - self._left
            return own
        if total > before:
            self._total, self._grown_s, self._low = total, now_s, None
            return total - before
        if total == before:
            return ZERO
        self.backwards += 1
        return self._maybe_reset(before, total, now_s)

    def _maybe_reset(self, before: Decimal, total: Decimal, now_s: float) -> Decimal:
        if total >= before * _HALF:
            return ZERO
        paused = now_s - self._grown_s >= RESET_AFTER_S
        if not paused and (self._low is None or total < self._low):
            self._low = total
            return ZERO
        self.resets += 1
        self._total, self._grown_s, self._low = total, now_s, None
        return total

    def is_unlike(self, total: Decimal) -> bool:
        """Whether a total can only be in another unit than this one's."""
        known = self._total
        if not known or not total:
            return False
        return total * _UNLIKE < known or known * _UNLIKE < total


class RtVolume:
    """One string of tick type 48 or 77: a trade, and the total with it.

    `price` and `size` are None in strings without them.
    """

    __slots__ = ("price", "single", "size", "time_ns", "total")

    def __init__(
        self,
        price: float | None,
        size: Decimal | None,
        time_ns: int,
        total: Decimal,
        single: bool,
    ) -> None:
        self.price = price
        self.size = size
        self.time_ns = time_ns
        self.total = total
        self.single = single


def decode_rt_volume(text: str) -> RtVolume:
    """`price;size;epoch_ms;total;vwap;single_trade`; raises ValueError."""
    parts = text.split(";")
    if len(parts) < 4 or not re.fullmatch(r"\d{12,14}", parts[2]):
        raise ValueError(f"{text[:80]!r} is no RTVolume")
    price = float(parts[0]) if parts[0] else None
    size = decimal_size(parts[1]) if parts[1] else None
    total = decimal_size(parts[3])
    if total is None:
        raise ValueError(f"{text[:80]!r} has no total volume")
    single = len(parts) > 5 and parts[5].strip().lower() == "true"
    return RtVolume(price, size, int(parts[2]) * 1_000_000, total, single)


def decimal_size(value: str | float) -> Decimal | None:
    """A size as it is written; None for what says that there is none.

    Raises ValueError for what is no number or negative.
    """
    try:
        size = Decimal(value if isinstance(value, str) else repr(value))
    except InvalidOperation:
        raise ValueError(f"{value!r} is no size") from None
    if not size.is_finite() or size < 0:
        raise ValueError(f"{value!r} is no size")
    return None if size > _MOST else size
