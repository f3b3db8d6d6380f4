"""The exchange behind the servers of a simulated venue: its markets, clock and state.

Rules this file owns:

1. Trades happen at their time by the wall clock and are told to the listeners at once.
   Whoever reads first calls `advance`, so no answer lags behind the clock.
2. Nothing trades and no quote changes unless the system is online. What was due in
   between happens later by the length of the pause; the trades themselves stay.
3. A market costs nothing until it is due: those that are come from a heap.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import trio

from piker_core.simulation.listing import Listing
from piker_core.simulation.market import NS, Market, VenueCandle
from piker_core.simulation.totals import Rows

SPREADS = 200
P = TypeVar("P", bound=Listing)
_STAGES = (("maintenance", 0.5), ("cancel_only", 0.25), ("post_only", 0.25))


class Listener(Protocol[P]):
    """Who is told of what happens."""

    def on_trades(self, market: Market[P], bursts: list[Rows]) -> None:
        """Trades happened, oldest first, one time stamp a burst."""

    def on_quote(self, market: Market[P]) -> None:
        """The best quote changed without a trade."""

    def on_system(self, system: str) -> None:
        """The state of the system changed."""


class Exchange(Generic[P]):
    """Markets that trade by a clock, the wall's unless another is given.

    `now_ns` is the time up to which everything has happened. `least_sleep_s` is how
    long `run` sleeps at the least: what is due meanwhile happens late, and together.
    """

    def __init__(
        self,
        markets: Sequence[Market[P]],
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        least_sleep_s: float = 0.0005,
    ) -> None:
        self.markets = tuple(markets)
        self.listeners: list[Listener[P]] = []
        self.system = "online"
        self._names = {
            name: market for market in markets for name in market.pair.names()
        }
        self._spreads: dict[str, deque[tuple[int, int, int]]] = {
            market.pair.symbol: deque(maxlen=SPREADS) for market in markets
        }
        self._clock_ns = clock_ns
        self._least_sleep_s = least_sleep_s
        self.now_ns = 0
        self._halted_ns = 0
        self._dues: list[tuple[int, int]] = []
        self._online = trio.Event()
        self._online.set()
        self._stages = trio.CancelScope()
        for market in markets:
            self._note_spread(market)
        self._schedule()

    def find(self, name: str) -> Market[P] | None:
        """The market of a pair, by any of its names."""
        return self._names.get(name)

    def spreads(self, market: Market[P]) -> Sequence[tuple[int, int, int]]:
        """Newest quotes of a market, oldest first: time in s, bid, ask in units."""
        return self._spreads[market.pair.symbol]

    def candles(
        self, market: Market[P], period_s: int, start_s: int, end_s: int
    ) -> list[VenueCandle]:
        """Exact bars with start <= time < end, flat ones included, times in Unix s.

        There is none before the first trade and none after the running one.
        """
        now_s = self.advance() // NS
        end_s = min(end_s, now_s // period_s * period_s + period_s)
        bars = market.bars(period_s, start_s, end_s)
        return [market.candle(time_s, bar) for time_s, bar in bars]

    # The clock

    def advance(self) -> int:
        """Let everything happen that is due by now; returns now in ns, never less."""
        self.now_ns = now_ns = max(self.now_ns, self._clock_ns())
        dues = self._dues
        while self.system == "online" and dues and dues[0][0] <= now_ns:
            number = heapq.heappop(dues)[1]
            market = self.markets[number]
            self._happen(market, now_ns)
            heapq.heappush(dues, (market.next_ns(), number))
        return now_ns

    def _happen(self, market: Market[P], now_ns: int) -> None:
        bursts = market.release(now_ns)
        if bursts:
            self._note_spread(market)
            for listener in self.listeners:
                listener.on_trades(market, bursts)
        if market.next_quote_ns <= now_ns:
            market.flutter(now_ns)
            self._note_spread(market)
            for listener in self.listeners:
                listener.on_quote(market)

    async def run(self) -> None:
        """Trade until cancelled."""
        if not self.markets:
            await trio.sleep_forever()
        while True:
            await self._online.wait()
            self.advance()
            wait_s = (self._dues[0][0] - self._clock_ns()) / NS
            await trio.sleep(max(wait_s, self._least_sleep_s))

    def _schedule(self) -> None:
        dues = ((market.next_ns(), n) for n, market in enumerate(self.markets))
        self._dues = sorted(dues)

    def _note_spread(self, market: Market[P]) -> None:
        quote = market.quote
        row = (quote.time_ns // NS, quote.bid, quote.ask)
        self._spreads[market.pair.symbol].append(row)

    # Maintenance

    def halt(self) -> trio.CancelScope:
        """Stop trading now, for maintenance; returns the scope for `maintain`."""
        if self.system == "online":
            self._halted_ns = self.advance()
            self._online = trio.Event()
        self._set_system("maintenance")
        self._stages.cancel()
        self._stages = trio.CancelScope()
        return self._stages

    async def maintain(self, seconds: float, stages: trio.CancelScope) -> None:
        """Go from maintenance back to online, unless halted again on the way."""
        with stages:
            for system, share in _STAGES:
                self._set_system(system)
                await trio.sleep(seconds * share)
            self._resume()

    def _resume(self) -> None:
        pause_ns = max(self.now_ns, self._clock_ns()) - self._halted_ns
        for market in self.markets:
            market.defer(pause_ns)
            market.next_quote_ns += pause_ns
        self._schedule()
        self._set_system("online")
        self._online.set()

    def _set_system(self, system: str) -> None:
        if system != self.system:
            self.system = system
            for listener in self.listeners:
                listener.on_system(system)
