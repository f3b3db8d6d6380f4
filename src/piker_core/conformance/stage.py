"""A simulated venue, a provider in a process that is pointed at it, and its rings."""

import math
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from types import ModuleType
from typing import Any

import msgspec
import trio

from piker_core.conformance.process import SubjectProcess, open_subject
from piker_core.conformance.report import Failed, NotApplicable
from piker_core.conformance.resources import Resources
from piker_core.conformance.rings import PERIODS, Rings
from piker_core.conformance.trader import Trader
from piker_core.conformance.truth import Comparison, Steps
from piker_core.conformance.venues import (
    check_surface,
    exemptions,
    for_orders,
    open_private,
    open_venue,
    pointed,
)
from piker_core.control_socket import remove_socket, socket_paths
from piker_core.segments import remove_segments
from piker_core.simulation.private import PrivateSide
from piker_core.simulation.venue import SimulatedVenue

NS = 1_000_000_000
MOST_MARKETS = 3
LOOK_S = 0.02
QUIET_S = 0.4
CLOSING_S = 15.0
COMPARE_S = 0.1
UNKNOWN = {"price_tick": "1e-8", "size_tick": "1e-8"}
"""A market of a provider that describes none."""
CALLS = ("rest_requests", "requests")
"""How venues name their counters of calls."""


class Patience(msgspec.Struct, frozen=True):
    """How long a provider may take before a check has failed.

    A feed is open and live within `open_s`, live again within `live_s`; a loss is
    noticed within `notice_s`, repaired within `repair_s` (what never was is given up
    after some looks only); rows are exact within `settle_s`.
    """

    open_s: float = 30.0
    live_s: float = 20.0
    notice_s: float = 20.0
    repair_s: float = 45.0
    settle_s: float = 8.0


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
        patience: Patience,
        private: PrivateSide | None = None,
    ) -> None:
        self.provider, self.venue, self.subject = provider, venue, subject
        self.patience = patience
        self.namespace = namespace
        self.name = str(provider.name)
        self.symbols = list(venue.symbols)[:MOST_MARKETS]
        self.markets: dict[str, dict[str, Any]] = {}
        self.steps: dict[str, Steps] = {}
        self.opening: dict[str, Any] = {}
        self.was_open = False
        self.at_first: Resources
        self.closed: list[tuple[float, float]] = []
        self.exempt = exemptions(provider)
        self.can_repair = bool(
            getattr(provider, "capabilities", {}).get("repair", True)
        )
        self._rings: Rings | None = None
        self._trader = Trader(subject, private, self.name) if private else None

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
        self._rings = Rings(self.name, self.namespace, self.symbols)
        await self.until(
            self.rings.live, "the markets are not live", self.patience.open_s
        )
        await self.seconds(1)

    async def describe(self) -> None:
        """Ask for what the provider says of the markets, once."""
        for symbol in self.symbols:
            if symbol not in self.markets:
                market: dict[str, Any] = UNKNOWN | {"venue_symbol": symbol}
                if hasattr(self.provider, "get_mkt_info"):
                    market = await self.subject.ask("market", name=symbol)
                ticks = (Decimal(market[key]) for key in ("price_tick", "size_tick"))
                self.markets[symbol], self.steps[symbol] = market, Steps(*ticks)

    async def close_feed(self) -> dict[str, Any]:
        """Close the feed; what the process said of it."""
        self.detach()
        self.opening = {}
        told: dict[str, Any] = await self.subject.ask("close", within_s=CLOSING_S)
        return told

    async def resources(self) -> Resources:
        """What the provider's process holds now."""
        return msgspec.convert(await self.subject.ask("resources"), Resources)

    def detach(self) -> None:
        """Let go of the rings."""
        if self._rings is not None:
            self._rings.close()
            self._rings = None

    @property
    def rings(self) -> Rings:
        """The rings of the feed that is open."""
        assert self._rings is not None
        return self._rings

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

    # Orders

    @property
    def trader(self) -> Trader:
        """Who trades; of a stage that was opened to trade."""
        assert self._trader is not None
        return self._trader

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
                told = f" ({self._rings.told()})" if self._rings is not None else ""
                raise Failed(f"{failing}, for {within_s:g} s{told}")
            await trio.sleep(LOOK_S)

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

        await self.until(still, "calls are made all the time", self.patience.live_s)

    async def lose(self, lose: Callable[[], object]) -> None:
        """Lose the connections, and wait until that shows: they may be back at once."""
        before = self.rings.records()
        connections = self.counter("connections_ever")
        lose()
        if connections is not None:
            await self.until(
                lambda: (self.counter("connections_ever") or 0) > connections,
                "no new connection is made",
                self.patience.notice_s,
            )
        else:
            await self.until(
                lambda: self.rings.down() or self.rings.records() != before,
                "nothing says that the connection is lost",
                self.patience.notice_s,
            )

    async def seconds(self, count: int) -> None:
        """Wait until so many more seconds are rows of every market."""
        before = self.rings.heads()

        def come() -> bool:
            heads = self.rings.heads()
            return all(head >= before[s] + count for s, head in heads.items())

        await self.until(
            come,
            f"no {count} further rows were appended",
            count + self.patience.live_s,
        )

    async def repaired(self) -> None:
        """Wait until all are live and no gap is open, where gaps can be repaired."""
        patience = self.patience
        await self.until(
            self.rings.live, "the markets are not live again", patience.live_s
        )
        if self.can_repair:
            await self.until(
                lambda: not self.rings.open_gaps(),
                "a gap is not repaired",
                patience.repair_s,
            )

    async def exact(self, periods: Sequence[int] = PERIODS) -> Comparison:
        """Wait until all rows that have ended by now are the venue's own.

        Raises Failed with what is different when they are not for `settle_s`.
        """
        end_s = math.ceil(time.time())
        await self.until(
            lambda: self.rings.newest_s() >= end_s,
            "no further rows were appended",
            self.patience.live_s,
        )
        deadline_s = trio.current_time() + self.patience.settle_s
        while True:
            found = self.rings.compare(
                self.venue,
                self.steps,
                end_s,
                periods=periods,
                closed=self.closed,
                exact_gaps=self.can_repair,
            )
            if not found.wrong:
                return found
            if not self.subject.alive or trio.current_time() > deadline_s:
                raise Failed(found.first_wrong())
            await trio.sleep(COMPARE_S)


def forget_rings(provider: str, namespace: str) -> None:
    """Remove what a provider's process has left, however it ended."""
    remove_segments(namespace, force=True)
    for path in socket_paths(provider, namespace):
        remove_socket(path)


@asynccontextmanager
async def open_stage(
    provider: ModuleType,
    spec: str,
    namespace: str,
    *,
    patience: Patience,
    seed: int,
    lenient: bool = True,
    trades: bool = False,
) -> AsyncIterator[Stage]:
    """Open a venue, and a provider that is pointed at it; the rings are removed.

    With `trades` it has the venue's private side, and the provider the keys to it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="piker-check-") as folder:
            async with open_venue(provider, seed=seed, lenient=lenient) as venue:
                check_surface(venue)
                environ = pointed(provider, venue.config, namespace, hasty=lenient)
                private = open_private(provider, venue) if trades else None
                if private is not None:
                    environ |= for_orders(provider, private, folder)
                async with open_subject(spec, environ) as subject:
                    stage = Stage(
                        provider, venue, subject, namespace, patience, private
                    )
                    try:
                        yield stage
                    finally:
                        stage.detach()
    finally:
        forget_rings(str(provider.name), namespace)
