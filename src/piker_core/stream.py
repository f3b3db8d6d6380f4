"""One `stream_quotes` call under supervision: it is begun again whenever it ends.

1. A call has the markets that were asked for together. What ends it touches no others.
2. A dropped market is cut off at once: nothing of the call reaches its rings any more.
   The call goes on for the other markets, undisturbed, and ends with the last.
3. What keeps it from first quotes is raised to those who wait for them. It is tried
   again for as long as anyone holds one of its markets.
4. What does not start together is tried by halves now and then: where one of them does,
   the trouble is in the other, which goes on as a call of its own.
"""

import logging
import weakref
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from types import ModuleType
from typing import Any

import trio

from piker_core.core.engine import FeedEngine, Market
from piker_core.cutoff import CutEngine, Handle, StreamChannel
from piker_core.errors import FeedError, NotFound, PikerError
from piker_core.tasks import Backoff, open_nursery

LIVE_S = 5.0
"""How long a call that has first quotes is waited for to have real-time data."""
_PROVEN_S = 60.0
_ROUND = 6
"""Of so many tries that fail in a row, two are of halves."""

log = logging.getLogger("piker_core.feed")
Quote = dict[str, Any]


def tell(market: Market, status: str, reason: str = "") -> None:
    """Say what is done with a market, and why if that is not plain."""
    log.debug("%s is %s: %s", market.fqme, status, reason)
    market.set_status(status, reason=reason)


class Attempt:
    """One try of a call; `done` when it has first quotes, or has failed."""

    def __init__(self) -> None:
        self.symbols: frozenset[str] = frozenset()
        self.done = trio.Event()
        self.error: Exception | None = None
        self.waiters = 0


class Stream:
    """A call and its markets.

    `describe` says how a market's rings are opened, `add` opens them; `ready` is told
    of each market that has a first quote, `apart` of those that need another call.
    """

    def __init__(
        self,
        provider: ModuleType,
        engine: FeedEngine,
        *,
        symbols: Iterable[str],
        describe: Callable[[str], Awaitable[dict[str, Any]]],
        add: Callable[[str, dict[str, Any]], Market],
        ready: Callable[[str], None],
        apart: Callable[[Sequence[str]], None],
        first_quote_s: float,
    ) -> None:
        self.symbols = dict.fromkeys(symbols)
        self.quotes: dict[str, Quote] = {}
        self.details: dict[str, dict[str, Any]] = {}
        self.trouble = ""
        """What the last try failed with."""
        self._provider = provider
        self._engine = engine
        self._describe = describe
        self._add = add
        self._ready = ready
        self._apart = apart
        self._first_quote_s = first_quote_s
        self._unknown: dict[str, NotFound] = {}
        self._markets: dict[str, Market] = {}
        self._handles: dict[str, Handle] = {}
        self._dropped: set[str] = set()
        self._channels: weakref.WeakSet[StreamChannel] = weakref.WeakSet()
        self._attempt = Attempt()
        self._scope = trio.CancelScope()

    def drop(self, symbol: str) -> None:
        """Feed a market no more. Its status is `stopped`; the others notice nothing."""
        self.symbols.pop(symbol)
        self._dropped |= {symbol, f"{symbol}.{self._engine.provider}"}
        for end in self._channels:
            end.cut(CutEngine(self._engine, self._dropped))
        if handle := self._handles.pop(symbol, None):
            handle.cut = True
        if market := self._markets.pop(symbol, None):
            tell(market, "stopped", "nobody has it open")
        if not self.symbols:
            self._scope.cancel()

    async def wait_try(self, symbol: str, among: Collection[str]) -> None:
        """Return when the call was tried.

        Raises what keeps a market from its first quote: its own error, or that of a try
        which had markets of `among` only.
        """
        if symbol in self._unknown:
            raise self._unknown[symbol]
        attempt = self._attempt
        attempt.waiters += 1
        try:
            await attempt.done.wait()
        finally:
            attempt.waiters -= 1
        if attempt.error is not None and attempt.symbols.issubset(among):
            raise attempt.error

    async def run(self) -> None:
        """Run the call, again whenever it ends, until all its markets are dropped."""
        backoff = Backoff(1.0, 60.0)
        status, failures = "starting", 0
        with self._scope:
            while True:
                await trio.lowlevel.checkpoint()
                began_s = trio.current_time()
                started = await self._try(status, self._choose(failures))
                failures = 0 if started else failures + 1
                if trio.current_time() - began_s > _PROVEN_S:
                    backoff.reset()
                await trio.sleep(backoff.next_s())
                status = "reconnecting"

    def _choose(self, failures: int) -> list[str]:
        """The markets to try: all, or a half of them, see rule 4."""
        symbols = list(self.symbols)
        half, place = len(symbols) // 2, failures % _ROUND
        if half and place in (2, 3):
            return symbols[:half] if place == 2 else symbols[half:]
        return symbols

    async def _try(self, status: str, symbols: Sequence[str]) -> bool:
        """The call once; whether it had first quotes, whatever ended it."""
        attempt = self._attempt
        attempt.symbols = frozenset(symbols)
        self._unknown.clear()
        self._handles.clear()
        try:
            await self._call(status, symbols, attempt)
            log.info("%s: the stream has ended", self._engine.provider)
            self._tell("stopped", "the stream has ended")
        except Exception as error:  # noqa: BLE001 - told, and tried again
            if not attempt.done.is_set():
                attempt.error = error
            self.trouble = str(error) or type(error).__name__
            self._complain(error, attempt)
            self._tell("reconnecting", self.trouble)
        finally:
            self._attempt = Attempt()
            attempt.done.set()
        return attempt.error is None

    async def _call(
        self, status: str, symbols: Sequence[str], attempt: Attempt
    ) -> None:
        async with open_nursery() as nursery:
            live = trio.Event()
            with trio.move_on_after(self._first_quote_s) as limit:
                await self._open_markets(status, symbols, attempt)
                inits, quotes = await nursery.start(
                    self._provide, live, nursery.cancel_scope
                )
            if limit.cancelled_caught:
                what = "first quote" if self._handles else "description"
                name = self._engine.provider
                raise silence(name, what, symbols, self._first_quote_s)
            self._keep(inits, quotes)
            self._part(attempt.symbols)
            nursery.start_soon(self._go_live, live)
            with trio.move_on_after(LIVE_S):
                await live.wait()
            attempt.done.set()

    async def _open_markets(
        self, status: str, symbols: Sequence[str], attempt: Attempt
    ) -> None:
        """Open the rings of all markets that are known. NotFound without any."""
        for symbol in [s for s in symbols if s not in self._markets]:
            try:
                options = await self._describe(symbol)
            except NotFound as error:
                self._unknown[symbol] = error
                if not attempt.waiters:
                    log.warning("%s is not fed: %s", symbol, error)
                continue
            if symbol in self.symbols:
                self._markets[symbol] = self._add(symbol, options)
        await trio.lowlevel.checkpoint()
        markets = {s: self._markets[s] for s in symbols if s in self._markets}
        if not markets:
            raise next(iter(self._unknown.values()))
        self._handles = {s: Handle(market) for s, market in markets.items()}
        for market in markets.values():
            tell(market, status, "the stream begins")

    def _part(self, started: Collection[str]) -> None:
        """Let go of what was left out of the try that has started, see rule 4."""
        rest = [symbol for symbol in self.symbols if symbol not in started]
        for symbol in rest:
            self.symbols.pop(symbol)
            self._markets.pop(symbol, None)
        self._apart(rest)

    async def _provide(
        self,
        live: trio.Event,
        scope: trio.CancelScope,
        task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """The provider's call; its end is that of the try."""
        await self._provider.stream_quotes(
            StreamChannel(self._engine, self._channels),
            list(self._handles),
            dict(self._handles),
            live,
            task_status=task_status,
        )
        scope.cancel()

    def _keep(self, inits: Sequence[Any], quotes: dict[str, Quote]) -> None:
        for init in inits:
            self.details[init.symbol] = init.details
        for symbol, handle in self._handles.items():
            market = handle.market
            quote = quotes.get(symbol) or quotes.get(market.fqme) or {}
            first: Quote = {"symbol": symbol, "fqme": market.fqme, "ticks": []} | quote
            if first.get("last") is None:
                first["last"] = market.last_price or None
            if first["last"] is not None:
                self._engine.push({"symbol": symbol, "last": first["last"]})
            self.quotes[symbol] = first
            self._ready(symbol)

    async def _go_live(self, live: trio.Event) -> None:
        """A provider that says nothing of its markets' state has them live now."""
        await live.wait()
        for handle in self._handles.values():
            if not handle.told:
                tell(handle.market, "live")

    def _tell(self, status: str, reason: str) -> None:
        for handle in self._handles.values():
            if handle.market.status != "stopped":
                tell(handle.market, status, reason)

    def _complain(self, error: Exception, attempt: Attempt) -> None:
        """Log what ended a try, unless somebody waits for it who is told."""
        name = self._engine.provider
        bug = not isinstance(error, PikerError | OSError)
        if attempt.done.is_set():
            log.error("%s: %s", name, error, exc_info=bug)
        elif not attempt.waiters:
            log.warning("%s: the stream does not start: %s", name, error, exc_info=bug)


def silence(
    provider: str, what: str, symbols: Iterable[str], seconds: float, more: str = ""
) -> FeedError:
    """The error of a provider that does not answer in time."""
    return FeedError(
        f"{provider} gave no {what} of {', '.join(symbols) or 'it'} within "
        f"{seconds:g} s{more}: try again, or raise first_quote_s in [feed]"
    )
