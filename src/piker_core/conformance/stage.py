"""A simulated venue, a provider in a process that is pointed at it, and its rings."""

import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

from piker_core.conformance.process import SubjectProcess, open_subject
from piker_core.conformance.report import Failed, NotApplicable
from piker_core.conformance.resources import Resources
from piker_core.conformance.truth import (
    Comparison,
    Steps,
    compare,
    misflagged,
    missing,
    unrepaired,
)
from piker_core.conformance.venues import check_surface, open_venue, pointed
from piker_core.core.rings import BarReader, attach_bars
from piker_core.segments import remove_segments
from piker_core.simulation.venue import SimulatedVenue

NS = 1_000_000_000
MOST_MARKETS = 3
LOOK_S = 0.02
LIVE_S = 20.0
"""How long a feed may take to be live, and to be live again."""
REPAIR_S = 45.0
"""How long a repair may take: what never was is given up after some looks only."""
SETTLE_S = 8.0
"""How long rows may take to be exact once the market is live."""
QUIET_S = 0.4
PERIODS = (1, 60)
CALLS = ("rest_requests", "requests")
"""How venues name their counters of calls."""


class Stage:
    """One venue, one provider, one feed of its busiest markets at most.

    Everything that waits raises Failed when it waits for too long, and at once when the
    provider's process has ended.
    """

    def __init__(
        self,
        provider: ModuleType,
        venue: SimulatedVenue,
        subject: SubjectProcess,
        namespace: str,
    ) -> None:
        self.provider, self.venue, self.subject = provider, venue, subject
        self.namespace = namespace
        self.name = str(provider.name)
        self.symbols = list(venue.symbols)[:MOST_MARKETS]
        self.markets: dict[str, dict[str, Any]] = {}
        self.opening: dict[str, Any] = {}
        self.was_open = False
        self.at_first: Resources
        self.closed: list[tuple[float, float]] = []
        self.abandoned: set[str] = set()
        self.can_repair = bool(
            getattr(provider, "capabilities", {}).get("repair", True)
        )
        self._bars: dict[tuple[str, int], BarReader] = {}

    # The feed

    async def feed(self) -> None:
        """Open the feed unless it is; returns a second after all markets are live."""
        if self.opening:
            return
        if not self.was_open:
            self.at_first = await self.resources()
            self.was_open = True
        self.opening = await self.subject.ask("open", symbols=self.symbols)
        await self.describe()
        for symbol in self.symbols:
            for period in PERIODS:
                fqme = f"{symbol}.{self.name}"
                self._bars[symbol, period] = attach_bars(
                    fqme, period=period, namespace=self.namespace
                )
        await self.until(self.live, "the markets are not live", LIVE_S)
        await self.seconds(1)

    async def describe(self) -> None:
        """Ask for what the provider says of the markets, once."""
        for symbol in self.symbols:
            if symbol not in self.markets:
                market = await self.subject.ask("market", name=symbol)
                self.markets[symbol] = market

    async def close_feed(self, *, within_s: float = LIVE_S) -> dict[str, Any]:
        """Close the feed; what the process said of it."""
        self.detach()
        self.opening = {}
        told: dict[str, Any] = await self.subject.ask("close", within_s=within_s)
        return told

    async def resources(self) -> Resources:
        """What the provider's process holds now."""
        return msgspec.convert(await self.subject.ask("resources"), Resources)

    def detach(self) -> None:
        """Let go of the rings."""
        for bars in self._bars.values():
            bars.close()
        self._bars.clear()

    def bars(self, symbol: str, period: int = 1) -> BarReader:
        """A ring of the feed."""
        return self._bars[symbol, period]

    def steps(self, symbol: str) -> Steps:
        """The price and size steps of a market."""
        market = self.markets[symbol]
        return Steps(Decimal(market["price_tick"]), Decimal(market["size_tick"]))

    def fed(self) -> list[str]:
        """The markets that are to be live."""
        return [symbol for symbol in self.symbols if symbol not in self.abandoned]

    def statuses(self) -> list[str]:
        """Of those."""
        return [self.bars(symbol).status for symbol in self.fed()]

    def live(self) -> bool:
        """Whether all of those are live."""
        return all(status == "live" for status in self.statuses())

    def down(self) -> bool:
        """Whether none of those is live."""
        return all(status != "live" for status in self.statuses())

    async def counters(self) -> Mapping[str, int]:
        """What the provider counts of its stream. Raises NotApplicable."""
        statistics = await self.subject.ask("statistics")
        stream = statistics.get(f"{self.symbols[0]}.{self.name}", {}).get("stream")
        if stream is None:
            raise NotApplicable(
                "its counters cannot be seen: FeedInit.details has no 'statistics'"
            )
        counters: Mapping[str, int] = stream
        return counters

    # The venue

    def fault(self, name: str) -> Callable[..., Any]:
        """A switch. Raises NotApplicable if the venue has none of this name."""
        switch = getattr(self.venue.faults, name, None)
        if switch is None:
            raise NotApplicable(f"the simulated venue has no fault {name!r}")
        found: Callable[..., Any] = switch
        return found

    def done(self, name: str) -> int | None:
        """How often a fault has happened; None if the venue does not count."""
        counts = getattr(self.venue.faults, "done", None)
        return None if counts is None else int(counts.get(name, 0))

    def counter(self, *names: str) -> int | None:
        """The first of these counters that the venue has; sums of those by name."""
        statistics = self.venue.statistics()
        for name in names:
            value = getattr(statistics, name, None)
            if isinstance(value, Mapping):
                return sum(value.values())
            if value is not None:
                return int(value)
        return None

    def calls(self) -> int:
        """How many calls the venue has seen. Raises NotApplicable."""
        count = self.counter(*CALLS)
        if count is None:
            raise NotApplicable("the simulated venue does not count calls")
        return count

    # Waiting

    async def until(
        self, look: Callable[[], object], failing: str, within_s: float
    ) -> None:
        """Wait for something. Raises Failed, with the words that say what fails."""
        begun_s = trio.current_time()
        while not look():
            if not self.subject.alive:
                raise Failed(await self.subject.obituary())
            if trio.current_time() - begun_s > within_s:
                raise Failed(f"{failing}, for {within_s:g} s{self._told()}")
            await trio.sleep(LOOK_S)

    def _told(self) -> str:
        if not self._bars:
            return ""
        states = ", ".join(f"{s} {self.bars(s).status}" for s in self.symbols)
        return f" ({states})"

    async def quiet(self) -> None:
        """Wait until no call is made any more, such as for the back-fill."""
        if self.counter(*CALLS) is None:
            return
        calls, since_s = -1, 0.0

        def still() -> bool:
            nonlocal calls, since_s
            if calls != self.calls():
                calls, since_s = self.calls(), trio.current_time()
            return trio.current_time() - since_s > QUIET_S

        await self.until(still, "calls are made all the time", LIVE_S)

    async def lose(self, lose: Callable[[], object]) -> None:
        """Lose the connections, and wait until that shows: they may be back at once."""
        before, connections = self.records(), self.counter("connections_ever")
        lose()
        if connections is not None:
            await self.until(
                lambda: (self.counter("connections_ever") or 0) > connections,
                "no new connection is made",
                LIVE_S,
            )
        else:
            await self.until(
                lambda: self.down() or self.records() != before,
                "nothing says that the connection is lost",
                LIVE_S,
            )

    async def seconds(self, count: int) -> None:
        """Wait until so many more seconds are rows of every market."""
        heads = {symbol: self.bars(symbol).head for symbol in self.fed()}
        await self.until(
            lambda: all(self.bars(s).head >= heads[s] + count for s in heads),
            f"no {count} further rows were appended",
            count + SETTLE_S,
        )

    # Truth

    def gaps(self, symbol: str, period: int = 1) -> NDArray[np.void]:
        """Gap records of a market."""
        return self.bars(symbol, period).gaps()

    def records(self) -> dict[str, int]:
        """How many gap records each market has."""
        return {symbol: len(self.gaps(symbol)) for symbol in self.fed()}

    def open_gaps(self) -> int:
        """How many gaps are not repaired."""
        return sum(int((self.gaps(s)["repaired"] == 0).sum()) for s in self.fed())

    async def repaired(self) -> None:
        """Wait until all are live and no gap is open, where gaps can be repaired."""
        await self.until(self.live, "the markets are not live again", LIVE_S)
        if self.can_repair:
            await self.until(
                lambda: not self.open_gaps(), "a gap is not repaired", REPAIR_S
            )

    async def exact(self, periods: tuple[int, ...] = PERIODS) -> Comparison:
        """Wait until all rows that have ended by now are the venue's own.

        Raises Failed with what is different when they are not for `SETTLE_S`.
        """
        end_s = math.ceil(time.time())
        await self.until(
            lambda: all(self._newest_s(s) >= end_s for s in self.fed()),
            "no further rows were appended",
            SETTLE_S,
        )
        found = Comparison()

        def equal() -> bool:
            nonlocal found
            found = self.compare(end_s, periods)
            return not found.wrong

        with_within = trio.current_time() + SETTLE_S
        while not equal():
            if not self.subject.alive or trio.current_time() > with_within:
                raise Failed(found.first_wrong())
            await trio.sleep(LOOK_S * 5)
        return found

    def _newest_s(self, symbol: str) -> int:
        return int(self.bars(symbol).last()["time"])

    def compare(self, end_s: int, periods: tuple[int, ...] = PERIODS) -> Comparison:
        """All rows that have ended by then, beside the venue's candles."""
        found = Comparison()
        for symbol in self.fed():
            for period in periods:
                found.add(self._compare_ring(symbol, period, end_s))
        return found

    def _compare_ring(self, symbol: str, period: int, end_s: int) -> Comparison:
        bars = self.bars(symbol, period)
        rows = bars.snapshot(bars.head - bars.first)
        rows = rows[rows["time"] + period <= end_s]
        if not len(rows):
            return Comparison()
        name = f"{symbol} {period} s"
        gaps = bars.gaps()
        begin_s, last_s = int(rows["time"][0]), int(rows["time"][-1]) + period
        found = compare(
            rows,
            self.venue.candles(symbol, period, begin_s, last_s),
            self.steps(symbol),
            period=period,
            name=name,
            doubtful=[] if self.can_repair else unrepaired(gaps),
        )
        found.wrong += missing(rows, gaps, period=period, name=name, closed=self.closed)
        found.wrong += misflagged(rows, gaps, period=period, name=name)
        return found


@asynccontextmanager
async def open_stage(
    provider: ModuleType, spec: str, namespace: str, *, seed: int, lenient: bool = True
) -> AsyncIterator[Stage]:
    """Open a venue, and a provider that is pointed at it; the rings are removed."""
    try:
        async with open_venue(provider, seed=seed, lenient=lenient) as venue:
            check_surface(venue)
            environ = pointed(provider, venue.config, namespace, hasty=lenient)
            async with open_subject(spec, environ) as subject:
                stage = Stage(provider, venue, subject, namespace)
                try:
                    yield stage
                finally:
                    stage.detach()
    finally:
        remove_segments(namespace, force=True)
