"""What Kraken's trading engine lets an account do a pair: a counter that decays.

1. Every action adds to the counter of its pair, by the age of the order it is about;
   the counter falls by `decay` a second. Above the threshold actions are refused.
2. Nothing is sent that would pass the threshold: whoever sends waits for room, in the
   order of asking, or is told how long it would take.
3. The venue's own word on the counter counts where it is higher: others spend from it,
   too. Threshold and decay are those of the account's tier, which the venue tells.

Source: https://docs.kraken.com/api/docs/guides/spot-ratelimits
"""

from collections import defaultdict

import trio

TIERS = {60: 1.0, 125: 2.34, 180: 3.75}
"""Threshold of a tier and what its counter falls by a second."""
_AMEND = ((5.0, 3), (10.0, 2), (15.0, 1))
_CANCEL = ((5.0, 8), (10.0, 6), (15.0, 5), (45.0, 4), (90.0, 2), (300.0, 1))


def add_cost(orders: int = 1) -> float:
    """Of new orders; in a batch they cost half."""
    return 1.0 if orders == 1 else orders / 2


def amend_cost(age_s: float) -> float:
    """Of a change, `age_s` after the order was made or changed."""
    return 1.0 + _by_age(_AMEND, age_s)


def cancel_cost(age_s: float) -> float:
    """Of a cancel, `age_s` after the order was made or changed."""
    return float(_by_age(_CANCEL, age_s))


def _by_age(table: tuple[tuple[float, int], ...], age_s: float) -> int:
    return next((cost for below_s, cost in table if age_s < below_s), 0)


class _Counter:
    """The counter of one pair."""

    def __init__(self) -> None:
        self.count = 0.0
        self.counted_at = trio.current_time()
        self.turn = trio.Lock()


class EngineLimits:
    """The counters of an account. Belongs to one trio run; times are trio's.

    `threshold` 0: the lowest tier's until the venue tells.
    """

    def __init__(self, threshold: int = 0) -> None:
        self._fixed = bool(threshold)
        self._threshold = threshold or min(TIERS)
        self._counters: defaultdict[str, _Counter] = defaultdict(_Counter)

    @property
    def threshold(self) -> int:
        """What the counter of a pair may come to."""
        return self._threshold

    @property
    def decay(self) -> float:
        """What a counter falls by a second."""
        known = [each for each in TIERS if each <= self._threshold]
        return TIERS[max(known)] if known else min(TIERS.values())

    def tell_threshold(self, threshold: int) -> None:
        """The venue says what the account's is; one that was configured stays."""
        if not self._fixed and threshold > 0:
            self._threshold = threshold

    def count(self, pair: str) -> float:
        """The counter of a pair now."""
        counter, now = self._counters[pair], trio.current_time()
        fallen = (now - counter.counted_at) * self.decay
        counter.count = max(counter.count - fallen, 0.0)
        counter.counted_at = now
        return counter.count

    def delay_s(self, pair: str, cost: float, *, keep: float = 0.0) -> float:
        """How long until an action of this cost has room; 0: it has now.

        `keep`: what it leaves free. One that costs more than there is has room when the
        counter is empty.
        """
        most = max(self._threshold - keep, 0.0)
        over = self.count(pair) + min(cost, most) - most
        return over / self.decay if over > 1e-9 else 0.0

    async def spend(
        self, pair: str, cost: float, *, patience_s: float, keep: float = 0.0
    ) -> float:
        """Wait for room and take it: returns 0, else how long it would have taken.

        Nothing is taken where it would take longer than `patience_s`. `keep` is left
        free for others that are dearer.
        """
        give_up = trio.current_time() + patience_s
        async with self._counters[pair].turn:
            while (delay := self.delay_s(pair, cost, keep=keep)) > 0:
                if trio.current_time() + delay > give_up:
                    return delay
                await trio.sleep(delay)  # and look again: others may have spent, too
            self._counters[pair].count += cost
            return 0.0

    def adopt(self, pair: str, count: float) -> None:
        """The venue says what a pair's counter is; lower ones are old news."""
        self._counters[pair].count = max(self.count(pair), count)

    def full(self, pair: str) -> None:
        """The venue refused an action of this pair: there is no room at all."""
        self.adopt(pair, float(self._threshold))
