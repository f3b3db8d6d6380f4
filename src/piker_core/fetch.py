"""History of a market, fetched: frames newest first, as fast as its venue allows.

Rules this file owns:

1. At most `erlangs` requests of a provider run at once, and at most `rate` begin in any
   second, whichever markets and periods they are of. A throttled one stops them all.
2. Each request has both ends of its span, but the first of a long span: what comes of
   that tells how long a frame is.
3. What an answer leaves out at its beginning is asked for again. An empty one is
   stepped over, as far as answers are known to reach: a venue may look at no more than
   the newest frame of a span. No span is asked for twice that was answered.
4. A row is taken once, if it is in the span and over: the forming one never is.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pendulum
import trio
from numpy.typing import NDArray

from piker_core.dtypes import OHLCV_DTYPE
from piker_core.errors import (
    DataThrottle,
    DataUnavailable,
    NoData,
    PikerError,
    ProviderError,
)
from piker_core.tasks import Backoff, open_nursery

Rows = NDArray[np.void]
GetOhlc = Callable[..., Awaitable[tuple[Rows, Any, Any]]]
TRIES = 6
"""How often a request may fail in a row before all is given up; throttles aside."""
FRAME_ROWS, LEAST_ROWS = 1000, 100
"""Rows of a frame as long as that is not known, and at least."""
LONG_ROWS = 2000
"""A span of more rows may be used to learn how long a frame is."""
_ROUNDING = 1 + 1e-9

log = logging.getLogger("piker_core.history")


class Span(NamedTuple):
    """Rows with start <= time < end."""

    start_s: int
    end_s: int


Take = Callable[[Rows, int, int], Awaitable[None]]
"""Is given the rows of a span, all that there are: `(rows, start_s, end_s)`."""


class Pace:
    """At most `erlangs` requests at once and `rate` a second, for all of a provider."""

    def __init__(self, erlangs: int = 1, rate: float = 1.0) -> None:
        self.erlangs = max(int(erlangs), 1)
        self._slots = trio.CapacityLimiter(self.erlangs)
        self._turn = trio.Lock()
        self._interval_s = _ROUNDING / rate if rate > 0 else 0.0
        self._next_s = 0.0

    def pause(self, seconds: float) -> None:
        """Let no request begin for so long, whoever waits for its turn."""
        self._next_s = max(self._next_s, trio.current_time() + seconds)

    async def call(
        self, get_ohlc: GetOhlc, period: int, end_s: int, start_s: int | None = None
    ) -> Rows:
        """The rows of a span, or of one frame that ends there, when it is its turn.

        What get_ohlc raises; DataThrottle has stopped everybody who shares the pace.
        """
        async with self._slots:
            async with self._turn:
                while (wait_s := self._next_s - trio.current_time()) > 0:  # noqa: ASYNC110 - pauses prolong it
                    await trio.sleep(wait_s)
                self._next_s = trio.current_time() + self._interval_s
            span = {"end_dt": pendulum.from_timestamp(end_s)}
            if start_s is not None:
                span["start_dt"] = pendulum.from_timestamp(start_s)
            try:
                rows, _, _ = await get_ohlc(float(period), **span)
            except DataThrottle as error:
                self.pause(error.retry_after)
                raise
        return rows


class Plan:
    """Spans still to be asked for, the newest first."""

    def __init__(self, spans: Iterable[Span], period: int) -> None:
        self.spans = sorted(span for span in spans if span.start_s < span.end_s)
        self.period = period
        self.frame_s = FRAME_ROWS * period
        self.reach_s = LEAST_ROWS * period
        """How far back an answer is known to reach."""

    def learn(self, rows: int) -> None:
        """A frame has so many rows."""
        self.frame_s = max(rows, LEAST_ROWS) * self.period

    def note(self, rows: int) -> None:
        """An answer had so many rows."""
        self.reach_s = max(self.reach_s, rows * self.period)

    def next(self) -> Span | None:
        """The newest frame, taken off the plan."""
        if not self.spans:
            return None
        span = self.spans.pop()
        cut_s = max(span.start_s, span.end_s - self.frame_s)
        self.give_back(Span(span.start_s, cut_s))
        return Span(cut_s, span.end_s)

    def give_back(self, span: Span) -> None:
        """Ask for this, too."""
        if span.start_s < span.end_s:
            self.spans.append(span)
            self.spans.sort()

    def drop_before(self, end_s: int) -> list[Span]:
        """There is nothing before `end_s`: what is taken off the plan for that."""
        older = [s for s in self.spans if s.start_s < end_s]
        self.spans = [s for s in self.spans if s.start_s >= end_s]
        for span in older:
            self.give_back(Span(max(span.start_s, end_s), span.end_s))
        return [Span(s.start_s, min(s.end_s, end_s)) for s in older]


class Fetch:
    """Requests for the rows of one market and period."""

    def __init__(
        self, get_ohlc: GetOhlc, period: int, pace: Pace, *, name: str
    ) -> None:
        self.period = period
        self.name = name
        self.requests = 0
        self.begins_s: int | None = None
        """No older history, said the venue."""
        self._get_ohlc = get_ohlc
        self._pace = pace
        self._asked = 0
        self._changed = trio.Event()

    async def ask(self, end_s: int, start_s: int | None = None) -> Rows:
        """Rows of a span, or of one frame before `end_s`; none where there are none.

        Tried again after faults. Raises DataUnavailable where there will never be any,
        ProviderError when the venue goes on failing.
        """
        backoff = Backoff(0.5, 10.0)
        while True:
            self.requests += 1
            try:
                rows = await self._pace.call(
                    self._get_ohlc, self.period, end_s, start_s
                )
                return final_rows(rows, self.period, end_s)
            except NoData:
                return np.zeros(0, OHLCV_DTYPE)
            except DataThrottle as error:
                log.info("%s: history waits: %s", self.name, error)
            except ValueError as error:
                text = f"{self.name} has no history of {self.period} s: {error}"
                raise PikerError(text) from error
            except ProviderError as error:
                wait_s = backoff.next_s()
                if backoff.failures >= TRIES:
                    raise
                log.warning("%s: history of %d s: %s", self.name, self.period, error)
                await trio.sleep(wait_s)

    async def run(
        self, spans: Iterable[Span], take: Take, *, frame_rows: int = 0
    ) -> None:
        """Fetch spans, several frames at once; `take` each as soon as it has come.

        Not in their order, but together exactly the spans. A `take` is not cancelled
        once it has begun. `frame_rows`: what is known of a frame's length. Raises
        ProviderError when the venue goes on failing.
        """
        plan = Plan(spans, self.period)
        if frame_rows:
            plan.learn(frame_rows)
        else:
            await self._learn(plan, take)
        errors: list[Exception] = []
        async with open_nursery() as nursery:
            for _ in range(self._pace.erlangs):
                nursery.start_soon(self._work, plan, take, errors, nursery.cancel_scope)
        if errors:
            raise errors[0]

    async def _learn(self, plan: Plan, take: Take) -> None:
        """A frame of the newest long span, as long as the venue makes it."""
        long_s = LONG_ROWS * self.period
        spans = [span for span in plan.spans if span.end_s - span.start_s > long_s]
        if not spans:
            return
        span = spans[-1]
        plan.spans.remove(span)
        try:
            rows = await self.ask(span.end_s)
        except DataUnavailable:
            plan.give_back(span)
            await self._end(plan, take, span.end_s)
            return
        if not len(rows):
            plan.give_back(span)
            return
        plan.learn(len(rows))
        plan.note(len(rows))
        first_s = max(int(rows["time"][0]), span.start_s)
        plan.give_back(Span(span.start_s, first_s))
        await _take(take, rows, first_s, span.end_s)

    async def _work(
        self, plan: Plan, take: Take, errors: list[Exception], scope: trio.CancelScope
    ) -> None:
        """Answer spans of a plan as long as there may be any; an error ends all."""
        while not errors:
            span = plan.next()
            if span is None and not self._asked:
                return
            if span is None:
                await self._changed.wait()
                continue
            self._asked += 1
            try:
                await self._answer(plan, span, take)
            except (PikerError, OSError) as error:
                errors.append(error)
                scope.cancel()
            finally:
                self._asked -= 1
                self._changed.set()
                self._changed = trio.Event()

    async def _answer(self, plan: Plan, span: Span, take: Take) -> None:
        """Ask for a span; what was left out at its beginning goes back to the plan."""
        try:
            found = await self.ask(span.end_s, span.start_s)
        except DataUnavailable:
            plan.give_back(span)
            await self._end(plan, take, span.end_s)
            return
        plan.note(len(found))
        first_s = span.end_s - plan.reach_s
        if len(found):
            first_s = int(found["time"][0])
        first_s = max(first_s, span.start_s)
        plan.give_back(Span(span.start_s, first_s))
        await _take(take, found, first_s, span.end_s)

    async def _end(self, plan: Plan, take: Take, end_s: int) -> None:
        self.begins_s = max(self.begins_s or end_s, end_s)
        for span in plan.drop_before(end_s):
            await _take(take, np.zeros(0, OHLCV_DTYPE), span.start_s, span.end_s)


async def _take(take: Take, rows: Rows, start_s: int, end_s: int) -> None:
    """What has come is not lost when the back-fill is cancelled."""
    with trio.CancelScope(shield=True):
        await take(rows[rows["time"] >= start_s], start_s, end_s)
    await trio.lowlevel.checkpoint_if_cancelled()


def final_rows(rows: Rows, period: int, end_s: int) -> Rows:
    """Rows of a venue before an end as ours: in order, each time once, all over.

    The last of those with one time counts. Raises ProviderError for times that are no
    multiples of the period.
    """
    end_s = min(end_s, int(time.time()) // period * period)
    own = np.zeros(len(rows), OHLCV_DTYPE)
    for field in OHLCV_DTYPE.names or ():
        if field in (rows.dtype.names or ()):
            own[field] = rows[field]
    own = own[own["time"] < end_s]
    if np.any(own["time"] % period):
        odd_s = int(own["time"][own["time"] % period != 0][0])
        raise ProviderError(f"a row of {period} s begins at {odd_s} s: no multiple")
    order = np.argsort(own["time"], kind="stable")
    own = own[order]
    last = np.append(np.diff(own["time"]) != 0, True)[: len(own)]
    unique: Rows = own[last]
    return unique
