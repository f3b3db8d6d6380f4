"""How often a venue may be asked: a token bucket, and what the venue itself counts.

1. Every attempt takes its cost, retries too; waiters are served in the order of their
   calls, and one that is cancelled has taken nothing.
2. A pause is a debt of tokens, so it holds for those who already wait.
3. What the venue reports of a window outweighs the bucket: until the window ends no
   more is spent than it has left, whoever else spends from it.
4. One limiter for each host, credential and kind of call. Belongs to one trio run.
"""

import math
import time
from collections.abc import Callable

import msgspec
import trio

_ROUNDING = 1e-6


class Used(msgspec.Struct, frozen=True):
    """A venue's word on a budget: `used` of `limit` in the running window.

    Windows of `window_s` are aligned to the clock: one of 60 s ends at :00.
    """

    used: float
    limit: float
    window_s: float


class _Window:
    """What a reported budget has left, until it ends (wall clock)."""

    __slots__ = ("ends_s", "left")

    def __init__(self, ends_s: float, left: float) -> None:
        self.ends_s, self.left = ends_s, left


class Limiter:
    """`rate` of cost a second, at most `burst` saved up.

    `wall_s`: the venue's wall clock, for the windows it reports of.
    """

    def __init__(
        self,
        rate: float,
        burst: float,
        *,
        pause_s: float = 5.0,
        longest_s: float = 300.0,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._rate, self._burst = rate, float(burst)
        self._pause_s, self._longest_s, self._wall_s = pause_s, longest_s, wall_s
        self._tokens = float(burst)
        self._counted_at = trio.current_time()
        self._turn = trio.Lock()
        self._throttled_at = -math.inf
        self._streak = 0
        self._windows: dict[float, _Window] = {}
        self.spent = 0.0
        """Cost of all calls so far."""

    async def acquire(self, cost: float = 1.0) -> float:
        """Wait until a call of this cost may be made, and take the cost.

        Returns `spent` with it, for `adopt`. A cost over the burst waits for a full
        bucket and leaves a debt.
        """
        async with self._turn:
            while (delay := self.delay(cost)) > 0:  # noqa: ASYNC110 - pauses prolong it
                await trio.sleep(delay)
            return self.spend(cost)

    def spend(self, cost: float) -> float:
        """Take a cost at once, before all who wait; returns as `acquire` does.

        For what must not wait behind other calls; `delay` says if there is room.
        """
        self._tokens -= cost
        self.spent += cost
        for window in self._windows.values():
            window.left -= cost
        return self.spent

    def delay(self, cost: float = 1.0) -> float:
        """Seconds until a call of this cost may be made."""
        now = trio.current_time()
        earned = (now - self._counted_at) * self._rate
        self._tokens = min(self._tokens + earned, self._burst)
        self._counted_at = now
        missing = min(cost, self._burst) - self._tokens
        delay = missing / self._rate if missing > _ROUNDING else 0.0
        return max(delay, self._window_delay(cost)) if self._windows else delay

    def _window_delay(self, cost: float) -> float:
        """Seconds until the last of the windows that have too little left ends."""
        now_s = self._wall_s()
        over = [
            span for span, window in self._windows.items() if window.ends_s <= now_s
        ]
        for span in over:
            del self._windows[span]
        waits = [w.ends_s - now_s for w in self._windows.values() if w.left < cost]
        return max(waits, default=0.0)

    def adopt(self, reported: Used, *, spent: float, sent_s: float) -> None:
        """The answer to a call says how much of a budget is used.

        `spent`: what `acquire` returned for the call; what was spent since cannot be in
        the report. `sent_s`: when it was sent, by `wall_s`; a report of a window that
        is over by now says nothing.
        """
        span, now_s = reported.window_s, self._wall_s()
        if sent_s // span != now_s // span:
            return
        left = reported.limit - reported.used - (self.spent - spent)
        ends_s = (now_s // span + 1) * span
        known = self._windows.get(span)
        if known is not None and known.ends_s == ends_s:
            left = min(left, known.left)
        self._windows[span] = _Window(ends_s, left)

    def throttle(self, *, sent_at: float, wait_s: float | None = None) -> float:
        """The venue refused a call sent at `sent_at` (trio time): stop everybody.

        The pause is what the venue asked for, else `pause_s`, doubled each time in a
        row. Calls that were already under way at the last refusal do not count again.
        Returns the seconds until the next call.
        """
        delay = self.delay()
        if sent_at > self._throttled_at:
            self._throttled_at = trio.current_time()
            self._streak = min(self._streak + 1, 10)
            own = self._pause_s * 2 ** (self._streak - 1)
            delay = max(delay, own if wait_s is None else wait_s)
        else:
            delay = max(delay, wait_s or 0.0)
        delay = min(delay, self._longest_s)
        self._tokens = min(self._tokens, 1 - delay * self._rate)
        return delay

    def answered(self, *, sent_at: float) -> None:
        """A call sent at `sent_at` was served: the next refusal is a first one."""
        if sent_at > self._throttled_at:
            self._streak = 0
