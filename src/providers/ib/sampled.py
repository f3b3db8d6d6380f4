"""Trades of a market that is sampled: each growth of the session's volume is one.

Rules this file owns:

1. A growth that an RTVolume tells has its price and millisecond.
2. One that tick type 8 alone tells has the last price, as soon as there is one, and the
   last trade's second or, if that is not told, the time of arrival (counted as local).
3. Tick type 8 is settled after what came in with it: an RTVolume of the same trade may
   stand before or behind it.
"""

from decimal import Decimal

from piker_core.calendars import NS

from .volume import RtVolume, VolumeMeter, decode_rt_volume

_OLD_NS = 60 * NS

Growth = tuple[float, Decimal, int]
"""Price, size and time of a trade."""


class Sampler:
    """The volume of one market, in units of `lot`; `drain` gives what it grew by."""

    def __init__(self, lot: int) -> None:
        self.meter = VolumeMeter()
        self.last: float | None = None
        self.local = 0
        self.named = False
        self.delayed = False
        self._lot = lot
        self._pending: tuple[Decimal, float | None] | None = None
        self._grown: list[Growth] = []
        self._owed: list[tuple[Decimal, int]] = []
        self._stamp_s = 0
        self._begun_ns = 0

    def begin(self, now_ns: int) -> None:
        """Another subscription: what was missed in between is not growth."""
        self.meter.begin()
        self._pending = None
        self._owed.clear()
        self.named = False
        self._begun_ns = now_ns

    @property
    def stamp_ns(self) -> int | None:
        """The last trade's second, if it was told with what came in now."""
        return self._stamp_s * NS if self._stamp_s and not self.delayed else None

    def take_last(self, price: float, now_ns: int) -> None:
        """The price of the last trade."""
        self.settle(now_ns)
        self.last = price

    def take_time(self, text: str, now_ns: int) -> None:
        """The second of the last trade."""
        self.settle(now_ns)
        self._stamp_s = int(text) if text.isdecimal() else 0

    def take_total(self, units: Decimal, now_ns: int) -> None:
        """The session's volume, by tick type 8."""
        total = units * self._lot
        if self.named and self.meter.is_unlike(total):
            return
        if self._pending is not None and self._pending != (total, self.last):
            self.settle(now_ns)
        self._pending = (total, self.last)

    def take_rt_volume(self, text: str, now_ns: int) -> RtVolume:
        """A trade, and the volume with it; raises ValueError for nonsense."""
        told = decode_rt_volume(text)
        total = told.total * self._lot
        if not self.named and self.meter.is_unlike(total):
            self.meter.begin()
        self.named = True
        fresh = told.time_ns >= self._begun_ns - _OLD_NS
        size = told.size * self._lot if told.size is not None and fresh else None
        growth = self.meter.take(total, now_ns / NS, size)
        self.last = told.price or self.last
        self._grow(growth, self.last, told.time_ns)
        return told

    def settle(self, now_ns: int) -> None:
        """Count a total of tick type 8, unless its RTVolume was counted meanwhile."""
        if self._pending is None:
            return
        (total, price), self._pending = self._pending, None
        growth = self.meter.take(total, now_ns / NS)
        time_ns = self.stamp_ns
        if growth and time_ns is None:
            self.local += 1
        self._grow(growth, price, time_ns or now_ns)

    def end_chunk(self) -> None:
        """What comes in next has not come in with this."""
        self._stamp_s = 0

    def drain(self) -> list[Growth]:
        """The trades since the last call."""
        grown, self._grown = self._grown, []
        return grown

    def _grow(self, growth: Decimal, price: float | None, time_ns: int) -> None:
        if growth:
            self._owed.append((growth, time_ns))
        if price is not None:
            self._grown += [(price, size, owed_ns) for size, owed_ns in self._owed]
            self._owed.clear()
