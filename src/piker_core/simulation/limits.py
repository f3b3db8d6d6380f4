"""How often a simulated venue lets its clients call and connect."""

from collections import deque


class TokenBucket:
    """A burst of so many calls, then `rate` a second; times are in seconds.

    A refused call costs nothing.
    """

    def __init__(self, rate: float, burst: float) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(f"rate {rate} must be over 0 and burst {burst} at least 1")
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._filled_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Whether a call is let through now."""
        if self._filled_s is not None:
            earned = (now_s - self._filled_s) * self._rate
            self._tokens = min(self._burst, self._tokens + earned)
        self._filled_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class AttemptLimit:
    """At most so many attempts in any window, then a ban as long as the window."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit = limit
        self._window_s = window_s
        self._attempts: deque[float] = deque()
        self._banned_until_s = 0.0

    def take(self, now_s: float) -> bool:
        """Whether an attempt is let through now."""
        if now_s < self._banned_until_s:
            return False
        while self._attempts and self._attempts[0] <= now_s - self._window_s:
            self._attempts.popleft()
        if len(self._attempts) >= self._limit:
            self._banned_until_s = now_s + self._window_s
            return False
        self._attempts.append(now_s)
        return True


class SlidingLimit:
    """At most so many calls in any window; those that are refused count as well."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._window_s = window_s
        self._calls: deque[float] = deque(maxlen=limit)

    def take(self, now_s: float) -> bool:
        """Whether a call is let through now."""
        full = len(self._calls) == self._calls.maxlen
        refused = full and now_s < self._calls[0] + self._window_s
        self._calls.append(now_s)
        return not refused


class Traffic:
    """Counts calls: how many at once, how many in any one second, at the most."""

    def __init__(self) -> None:
        self.most_at_once = 0
        self.most_a_second = 0
        self._open = 0
        self._begun: deque[float] = deque()

    def begin(self, now_s: float) -> None:
        """A call begins."""
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        self._begun.append(now_s)
        while self._begun[0] <= now_s - 1:
            self._begun.popleft()
        self.most_a_second = max(self.most_a_second, len(self._begun))

    def end(self) -> None:
        """A call ends."""
        self._open -= 1
