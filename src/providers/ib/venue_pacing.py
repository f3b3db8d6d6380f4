"""How many requests for history a simulated gateway stands, and who asked too many.

Source: https://interactivebrokers.github.io/tws-api/historical_limitations.html
"""

from collections import deque
from collections.abc import Hashable

import msgspec

STEPS_S: dict[str, int] = {
    "1 secs": 1, "5 secs": 5, "10 secs": 10, "15 secs": 15, "30 secs": 30,
    "1 min": 60, "2 mins": 120, "3 mins": 180, "5 mins": 300, "10 mins": 600,
    "15 mins": 900, "20 mins": 1200, "30 mins": 1800, "1 hour": 3600,
    "2 hours": 7200, "3 hours": 10_800, "4 hours": 14_400, "8 hours": 28_800,
    "1 day": 86_400, "1W": 604_800, "1M": 2_592_000,
}  # fmt: skip
"""Bar sizes, as they must be written, and their seconds."""

LONGEST_S: dict[str, int] = {
    "1 secs": 2000, "5 secs": 3600, "10 secs": 14_400, "15 secs": 14_400,
    "30 secs": 28_800, "1 min": 86_400, "2 mins": 172_800, "3 mins": 604_800,
    "5 mins": 604_800, "10 mins": 604_800, "15 mins": 604_800, "20 mins": 604_800,
    "30 mins": 2_678_400, "1 hour": 2_678_400, "2 hours": 2_678_400,
    "3 hours": 2_678_400, "4 hours": 2_678_400, "8 hours": 2_678_400,
}  # fmt: skip
"""How long a span may be asked for in bars of a size; longer bars have no limit."""


class HistoryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on requests for history; the defaults are the venue's.

    Of bars up to 30 s, ticks and head times: `requests` in `requests_s`, none identical
    within `identical_s`, fewer than `same` for one contract in `same_s`; and of all,
    `open_requests` at once. `longest_s` is the longest span by bar size.
    """

    requests: int = 60
    requests_s: float = 600.0
    identical_s: float = 15.0
    same: int = 6
    same_s: float = 2.0
    open_requests: int = 50
    ticks: int = 1000
    longest_s: dict[str, int] = msgspec.field(default_factory=LONGEST_S.copy)


class Worst(msgspec.Struct, frozen=True):
    """The most requests of small bars in any window of each kind."""

    requests: int = 0
    same: int = 0
    identical: int = 0


class Pacing:
    """Counts the requests that are paced; those refused count as well."""

    def __init__(self, limits: HistoryLimits) -> None:
        self._limits = limits
        self._all: deque[tuple[float, int]] = deque()
        self._same: dict[Hashable, deque[float]] = {}
        self._identical: dict[Hashable, deque[float]] = {}
        self.worst = Worst()
        self.refused = 0

    def take(
        self, now_s: float, contract: Hashable, request: Hashable, cost: int = 1
    ) -> bool:
        """Whether a request keeps the limits; `cost` 2 is for bid and ask together."""
        limits = self._limits
        self._all.append((now_s, cost))
        while len(self._all) > 1 and self._all[0][0] <= now_s - limits.requests_s:
            self._all.popleft()
        requests = sum(each for _, each in self._all)
        same = _count(self._same, contract, now_s, limits.same_s)
        identical = _count(self._identical, request, now_s, limits.identical_s)
        self.worst = Worst(
            max(self.worst.requests, requests),
            max(self.worst.same, same),
            max(self.worst.identical, identical),
        )
        kept = requests <= limits.requests and same < limits.same and identical == 1
        self.refused += not kept
        return kept


def _count(
    times: dict[Hashable, deque[float]], key: Hashable, now_s: float, window_s: float
) -> int:
    """Note a request; returns how many of its key there are in the window."""
    kept = times.setdefault(key, deque())
    kept.append(now_s)
    while len(kept) > 1 and kept[0] <= now_s - window_s:
        kept.popleft()
    return len(kept)
