"""How far a venue's clock is from ours.

1. A time stamp of the venue lies between sending and receiving: that bounds the offset
   from both sides. The bounds of all samples hold together, so the one with the least
   round trip decides.
2. Clocks drift: bounds widen with their age. A sample that contradicts them is a jump
   of either clock, and begins anew.
"""

import logging
import time
from email.utils import parsedate_to_datetime

import msgspec

NS = 1_000_000_000
DRIFT = 100e-6
"""By how much the bounds widen on both sides, seconds a second."""

log = logging.getLogger("piker_core.adapter")


class Moment(msgspec.Struct, frozen=True):
    """When a call was sent and its answer received, by our clock (UTC ns).

    `received_ns` is `sent_ns` and what a clock that is never set says has passed.
    """

    sent_ns: int
    received_ns: int


class VenueClock:
    """The estimate of one venue; warns once each time it gets worse than `alarm_s`."""

    def __init__(self, venue: str, *, alarm_s: float = 0.5) -> None:
        self.venue = venue
        self.samples = self.jumps = 0
        self._alarm_s = alarm_s
        self._low_s = self._high_s = 0.0
        self._noted_at = 0.0
        self._alarmed = False

    @property
    def offset_s(self) -> float:
        """The venue's time minus ours; 0 until something is known."""
        return (self._low_s + self._high_s) / 2

    @property
    def uncertainty_s(self) -> float:
        """By how much the offset may be wrong; infinite while nothing is known."""
        return (self._high_s - self._low_s) / 2 if self.samples else float("inf")

    def now_ns(self) -> int:
        """The time at the venue now, UTC ns."""
        return time.time_ns() + int(self.offset_s * NS)

    def now_s(self) -> float:
        """The same in seconds."""
        return time.time() + self.offset_s

    def note(self, venue_ns: int, moment: Moment, *, resolution_ns: int = 0) -> None:
        """An answer carried the venue's time, cut to multiples of `resolution_ns`."""
        low_s = (venue_ns - moment.received_ns) / NS
        high_s = (venue_ns + resolution_ns - moment.sent_ns) / NS
        now = time.monotonic()
        if self.samples:
            slack_s = (now - self._noted_at) * DRIFT
            known = self._low_s - slack_s, self._high_s + slack_s
            before_s = self.offset_s
            if low_s <= known[1] and known[0] <= high_s:
                low_s, high_s = max(low_s, known[0]), min(high_s, known[1])
            else:
                self._jump((low_s + high_s) / 2 - before_s)
        self._low_s, self._high_s, self._noted_at = low_s, high_s, now
        self.samples += 1
        self._look()

    def note_date(self, text: str | None, moment: Moment) -> None:
        """An answer had this Date header; one that cannot be read says nothing."""
        try:
            venue_ns = int(parsedate_to_datetime(text or "").timestamp()) * NS
        except ValueError:
            return
        self.note(venue_ns, moment, resolution_ns=NS)

    def _jump(self, by_s: float) -> None:
        self.jumps += 1
        if abs(by_s) > self._alarm_s:
            log.warning(
                "the clock of %s jumped by %+.3f s against this machine's: check the "
                "time synchronization here (timedatectl)",
                self.venue,
                by_s,
            )

    def _look(self) -> None:
        """Warn once it is certain that the clocks are apart; again after they agree."""
        apart = self._low_s > self._alarm_s or self._high_s < -self._alarm_s
        if apart and not self._alarmed:
            log.warning(
                "the clock of %s is %+.3f s off this machine's, %.3f at most are fine: "
                "check the time synchronization here (timedatectl)",
                self.venue,
                self.offset_s,
                self._alarm_s,
            )
        if apart:
            self._alarmed = True
        elif -self._alarm_s < self._low_s and self._high_s < self._alarm_s:
            self._alarmed = False
