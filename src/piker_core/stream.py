"""One `stream_quotes` call under supervision: it is begun again whenever it ends.

1. A call has the markets that were asked for together. What ends it touches no others.
2. A dropped market is cut off at once: nothing of the call reaches its rings any more.
   The call goes on for the other markets, undisturbed, and ends with the last.
3. What keeps it from first quotes is raised to those who wait for them. It is tried
   again for as long as anyone holds one of its markets.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from types import ModuleType
from typing import Any

import trio

from piker_core.channel import EngineChannel
from piker_core.core.engine import FeedEngine, Market
from piker_core.errors import FeedError, NotFound, PikerError
from piker_core.symbols import MktPair
from piker_core.tasks import Backoff, open_nursery

LIVE_S = 5.0
"""How long a call that has first quotes is waited for to have real-time data."""
_PROVEN_S = 60.0

log = logging.getLogger("piker_core.feed")
Quote = dict[str, Any]


def tell(market: Market, status: str, reason: str) -> None:
    """Say what is done with a market."""
    log.debug("%s is %s: %s", market.fqme, status, reason)
    market.set_status(status)


class Handle:
    """An engine's market as the provider has it: cut off when the market is dropped."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.cut = False
        self.told = False
        """Whether the provider says by itself what state the market is in."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.market, name)

    def set_status(self, *status: Any, **options: Any) -> None:
        """As of the market."""
        self.told = True
        if not self.cut:
            self.market.set_status(*status, **options)

    def add_gap(self, **gap: Any) -> None:
        """As of the market."""
        if not self.cut:
            self.market.add_gap(**gap)


class StreamChannel(EngineChannel):
    """The engine's channel, without what comes of dropped markets."""

    def __init__(self, engine: FeedEngine, dropped: set[str]) -> None:
        super().__init__(engine)
        self._dropped = dropped

    def send_nowait(self, value: Any) -> int:
        """Push one quote at once, unless its market is dropped."""
        if self._dropped:
            get = getattr(value, "get", None)
            symbol = get("symbol") if get else getattr(value, "symbol", None)
            if isinstance(symbol, str) and symbol in self._dropped:
                return 0
        return super().send_nowait(value)

    def clone(self) -> "StreamChannel":
        """Another end of the same engine, closed by itself."""
        super().clone()
        return StreamChannel(self._engine, self._dropped)


class Attempt:
    """One try of a call; `done` when it has first quotes, or has failed."""

    def __init__(self) -> None:
        self.symbols: frozenset[str] = frozenset()
        self.done = trio.Event()
        self.error: Exception | None = None
        self.waiters = 0


class Stream:
    """A call and its markets.

    `describe` says what a market is, `add` opens its rings, `ready` is told of each
    that has a first quote.
    """

    def __init__(
        self,
        provider: ModuleType,
        engine: FeedEngine,
        *,
        symbols: Iterable[str],
        describe: Callable[[str], Awaitable[MktPair]],
        add: Callable[[str, MktPair], Market],
        ready: Callable[[str], None],
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
        self._first_quote_s = first_quote_s
        self._unknown: dict[str, NotFound] = {}
        self._handles: dict[str, Handle] = {}
        self._dropped: set[str] = set()
        self._attempt = Attempt()
        self._scope = trio.CancelScope()

    def drop(self, symbol: str) -> None:
        """Feed a market no more. Its status is `stopped`; the others notice nothing."""
        self.symbols.pop(symbol)
        self._dropped |= {symbol, f"{symbol}.{self._engine.provider}"}
        if handle := self._handles.pop(symbol, None):
            handle.cut = True
            tell(handle.market, "stopped", "nobody has it open")
        if not self.symbols:
            self._scope.cancel()

    async def wait_fed(self, symbol: str, among: Collection[str]) -> None:
        """Return when a market has its first quote.

        Raises what keeps it from that: its own error, or that of a try which had
        markets of `among` only.
        """
        while symbol not in self.quotes:
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
        status = "starting"
        with self._scope:
            while True:
                await trio.lowlevel.checkpoint()
                began_s = trio.current_time()
                await self._try(status)
                if trio.current_time() - began_s > _PROVEN_S:
                    backoff.reset()
                await trio.sleep(backoff.next_s())
                status = "reconnecting"

    async def _try(self, status: str) -> None:
        """The call once; whatever ends it."""
        attempt = self._attempt
        attempt.symbols = frozenset(self.symbols)
        self._unknown.clear()
        try:
            await self._call(status, attempt)
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

    async def _call(self, status: str, attempt: Attempt) -> None:
        async with open_nursery() as nursery:
            live = trio.Event()
            with trio.move_on_after(self._first_quote_s) as limit:
                await self._open_markets(status, attempt)
                inits, quotes = await nursery.start(
                    self._provide, live, nursery.cancel_scope
                )
            if limit.cancelled_caught:
                what = "first quote" if self._handles else "description"
                raise silence(
                    self._engine.provider, what, self.symbols, self._first_quote_s
                )
            self._keep(inits, quotes)
            nursery.start_soon(self._go_live, live)
            with trio.move_on_after(LIVE_S):
                await live.wait()
            attempt.done.set()

    async def _open_markets(self, status: str, attempt: Attempt) -> None:
        """Open the rings of all markets that are known. NotFound without any."""
        for symbol in [s for s in self.symbols if s not in self._handles]:
            try:
                mkt = await self._describe(symbol)
            except NotFound as error:
                self._unknown[symbol] = error
                if not attempt.waiters:
                    log.warning("%s is not fed: %s", symbol, error)
                continue
            if symbol in self.symbols:
                self._handles[symbol] = Handle(self._add(symbol, mkt))
        await trio.lowlevel.checkpoint()
        if not self._handles:
            raise next(iter(self._unknown.values()))
        for symbol, handle in self._handles.items():
            tell(handle.market, status, "the stream begins")
            self._handles[symbol] = Handle(handle.market)

    async def _provide(
        self,
        live: trio.Event,
        scope: trio.CancelScope,
        task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """The provider's call; its end is that of the try."""
        await self._provider.stream_quotes(
            StreamChannel(self._engine, self._dropped),
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
                tell(handle.market, "live", "the stream is live")

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
