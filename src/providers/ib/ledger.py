"""How often history may be asked for: what was asked is written down before it is sent.

Rules this file owns:

1. In any window of `window_s` the weights of all requests sum to at most `most`; those
   that are not urgent leave `reserve` of it to those that are.
2. Identical requests are `identical_s` apart, and of one contract and kind at most
   `burst` begin within `burst_window_s`.
3. After a complaint of the venue nothing is sent until its time is over.

One ledger an address, for all clients of the process, whatever event loop they run in.
"""

import time
from collections import deque
from collections.abc import Callable, Hashable

import trio

from piker_core.errors import DataThrottle

from .config import Config

SLACK_S = 0.5
"""Requests may wait so long in the socket: windows count as longer by it."""


class Ledger:
    """Requests for history of one address, newest last."""

    def __init__(
        self, config: Config, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.config = config
        self.waits = 0
        self._clock = clock
        self._all: deque[tuple[float, int]] = deque()
        self._identical: dict[Hashable, float] = {}
        self._bursts: dict[Hashable, deque[float]] = {}
        self._rests_until_s = 0.0
        self._turns = {urgent: trio.Lock() for urgent in (True, False)}

    async def take(
        self,
        request: Hashable,
        line: Hashable,
        *,
        weight: int = 1,
        urgent: bool = False,
    ) -> None:
        """Wait until a request may be sent, and write it down as sent now.

        `request` is all of it, `line` its contract and kind. First come, first served,
        the urgent ones among themselves. Raises DataThrottle if the wait is longer than
        `pacing_wait_s`. Cancelled, nothing was written down.
        """
        deadline_s = self._clock() + self.config.pacing_wait_s
        async with self._turns[urgent]:
            while wait_s := self.delay_s(request, line, weight=weight, urgent=urgent):
                if self._clock() + wait_s > deadline_s:
                    raise DataThrottle(
                        "history is asked for as often as TWS allows "
                        f"({self.config.history_requests} requests in "
                        f"{self.config.history_window_s:g} s): wait {wait_s:.0f} s",
                        retry_after=wait_s,
                    )
                self.waits += 1
                await trio.sleep(wait_s)
            self._note(request, line, weight)

    def delay_s(
        self, request: Hashable, line: Hashable, *, weight: int, urgent: bool
    ) -> float:
        """How long a request would have to wait now; 0 if not at all."""
        now_s = self._clock()
        self._forget(now_s)
        ready_s = [
            self._rests_until_s,
            self._window_ready_s(weight, urgent),
            self._burst_ready_s(line),
        ]
        if request in self._identical:
            ready_s.append(self._identical[request] + self.config.identical_s + SLACK_S)
        return max(max(ready_s) - now_s, 0.0)

    def rest(self, seconds: float) -> None:
        """The venue complained: send nothing for so long."""
        self._rests_until_s = max(self._rests_until_s, self._clock() + seconds)

    def used(self) -> int:
        """Weights within the window that ends now."""
        self._forget(self._clock())
        return sum(weight for _, weight in self._all)

    def _window_ready_s(self, weight: int, urgent: bool) -> float:
        config = self.config
        reserve = 0 if urgent else min(config.repair_reserve, config.history_requests)
        most = max(config.history_requests - reserve, weight)
        over = sum(each for _, each in self._all) + weight - most
        for at_s, each in self._all:
            if over <= 0:
                break
            over -= each
            if over <= 0:
                return at_s + config.history_window_s + SLACK_S
        return 0.0

    def _burst_ready_s(self, line: Hashable) -> float:
        times = self._bursts.get(line, ())
        if len(times) < self.config.burst_requests:
            return 0.0
        first_s = times[-self.config.burst_requests]
        return first_s + self.config.burst_window_s + SLACK_S

    def _note(self, request: Hashable, line: Hashable, weight: int) -> None:
        now_s = self._clock()
        self._all.append((now_s, weight))
        self._identical[request] = now_s
        times = self._bursts.setdefault(line, deque())
        times.append(now_s)

    def _forget(self, now_s: float) -> None:
        """Drop what no rule looks at any more."""
        config = self.config
        while self._all and (
            self._all[0][0] + config.history_window_s + SLACK_S <= now_s
        ):
            self._all.popleft()
        old_s = now_s - config.identical_s - SLACK_S
        for request in [key for key, at_s in self._identical.items() if at_s <= old_s]:
            del self._identical[request]
        for line, times in list(self._bursts.items()):
            while times and times[0] + config.burst_window_s + SLACK_S <= now_s:
                times.popleft()
            if not times:
                del self._bursts[line]


_ledgers: dict[tuple[str, int], Ledger] = {}


def shared_ledger(config: Config) -> Ledger:
    """The ledger of an address; its limits are those of the newest configuration."""
    ledger = _ledgers.setdefault((config.host, config.port), Ledger(config))
    ledger.config = config
    return ledger
