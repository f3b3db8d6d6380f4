"""A provider's stream into an engine of this process: clock, supervision, back-fill."""

import logging
import time
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

import msgspec
import trio

from piker_core.config import FeedConfig
from piker_core.core.engine import FeedEngine, Market
from piker_core.errors import DataThrottle, FeedError, NotFound, PikerError
from piker_core.history import Pace, backfill
from piker_core.symbols import Asset, MktPair
from piker_core.tasks import Backoff, open_nursery

NS = 1_000_000_000
LIVE_S = 5.0
"""How long an opening feed waits for real-time data once it has first quotes."""

log = logging.getLogger("piker_core.feed")
Quote = dict[str, Any]


class Feeder:
    """Runs one provider's `stream_quotes` for some symbols into one engine."""

    def __init__(
        self, provider: ModuleType, engine: FeedEngine, config: FeedConfig
    ) -> None:
        self.provider = provider
        self.engine = engine
        self.config = config
        self.markets: dict[str, Market] = {}
        self.first_quotes: dict[str, Quote] = {}
        self.details: dict[str, dict[str, Any]] = {}
        self._pace: Pace | None = None

    async def add(self, symbols: Sequence[str], *, required: bool = True) -> None:
        """Open the rings of symbols.

        Raises NotFound for one that is `required` and unknown, FeedError when the
        provider says nothing for `first_quote_s`.
        """
        with trio.move_on_after(self.config.first_quote_s) as limit:
            await self._add(symbols, required)
        if limit.cancelled_caught:
            raise self._silent("no description")

    def _silent(self, what: str) -> FeedError:
        return FeedError(
            f"{self.engine.provider} gave {what} of {', '.join(self.markets) or 'it'} "
            f"within {self.config.first_quote_s:g} s: try again, or raise "
            "first_quote_s in [feed]"
        )

    async def _add(self, symbols: Sequence[str], required: bool) -> None:
        for symbol in symbols:
            try:
                mkt, details = await self._mkt_info(symbol)
            except PikerError as error:
                if required:
                    raise
                log.warning("%s is not taken over: %s", symbol, error)
                continue
            if mkt.symbol != symbol and required:
                name = f"{symbol}.{self.engine.provider}"
                raise NotFound(f"{name} is called {mkt.fqme} here: ask for that")
            about = msgspec.json.encode(mkt)
            self.markets[symbol] = self.engine.add_market(
                f"{symbol}.{self.engine.provider}",
                price_tick=f"{mkt.price_tick:f}",
                size_tick=f"{mkt.size_tick:f}",
                bars_from=getattr(details, "bars_from", "trade"),
                about=about if len(about) < 512 else b"",
            )

    async def _mkt_info(self, symbol: str) -> tuple[MktPair, Any]:
        """The market, and the provider's details: their `bars_from` is heeded."""
        if not hasattr(self.provider, "get_mkt_info"):
            return unknown_mkt(symbol, self.engine.provider), None
        while True:
            try:
                answer = await self.provider.get_mkt_info(symbol)
            except DataThrottle as error:
                await trio.sleep(error.retry_after)
                continue
            return answer if isinstance(answer, tuple) else (answer, None)

    async def run(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Feed for ever. Started once every market has a first quote.

        What the provider raises before that comes out; later its stream is begun again,
        with back-off.
        """
        async with open_nursery() as nursery:
            nursery.start_soon(run_clock, self.engine)
            with trio.move_on_after(self.config.first_quote_s) as limit:
                await nursery.start(self._supervise)
            if limit.cancelled_caught:
                raise self._silent("no first quote")
            task_status.started()
            if hasattr(self.provider, "open_history_client"):
                for symbol, market in self.markets.items():
                    nursery.start_soon(self._backfill, symbol, market)

    # The stream

    async def _supervise(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await self._stream_once(task_status)
        backoff = Backoff(1.0, 60.0)
        while True:
            for market in self.markets.values():
                if market.status != "stopped":
                    market.set_status("reconnecting")
            await trio.sleep(backoff.next_s())
            try:
                await self._stream_once(trio.TASK_STATUS_IGNORED)
            except PikerError as error:
                log.warning("%s: stream begins again: %s", self.engine.provider, error)

    async def _stream_once(self, task_status: trio.TaskStatus[None]) -> None:
        """Run the provider's stream; returns when one that was started has failed."""
        started = False
        try:
            async with open_nursery() as nursery:
                live = trio.Event()
                channel = self.engine.send_channel()
                inits, quotes = await nursery.start(
                    partial(
                        self.provider.stream_quotes,
                        channel,
                        list(self.markets),
                        dict(self.markets),
                        live,
                    )
                )
                self._keep(inits, quotes)
                nursery.start_soon(self._go_live, live)
                with trio.move_on_after(LIVE_S):
                    await live.wait()
                started = True
                task_status.started()
            self._end()
        except Exception as error:
            if not started:
                raise
            known = isinstance(error, (PikerError, OSError))
            log.error("%s: %s", self.engine.provider, error, exc_info=not known)

    def _keep(self, inits: Sequence[Any], quotes: dict[str, Quote]) -> None:
        for init in inits:
            self.details[init.symbol] = init.details
        for symbol, market in self.markets.items():
            quote = quotes.get(symbol) or quotes.get(market.fqme) or {}
            first: Quote = {"symbol": symbol, "fqme": market.fqme, "ticks": []} | quote
            if first.get("last") is None:
                first["last"] = market.last_price or None
            self.first_quotes[market.fqme] = first
            if first["last"] is not None:
                self.engine.push({"symbol": symbol, "last": first["last"], "ticks": []})

    async def _go_live(self, live: trio.Event) -> None:
        """A provider that says nothing of its markets' state has them live now."""
        await live.wait()
        for market in self.markets.values():
            if market.status == "starting":
                market.set_status("live")

    def _end(self) -> None:
        log.info("%s: the stream has ended", self.engine.provider)
        for market in self.markets.values():
            market.set_status("stopped")

    # History

    async def _backfill(self, symbol: str, market: Market) -> None:
        """Both rings of a market; whatever goes wrong, the feed goes on."""
        back = {60: self.config.minutes_back, 1: self.config.seconds_back}
        try:
            async with self.provider.open_history_client(symbol) as (get_ohlc, limits):
                if self._pace is None:
                    self._pace = Pace(limits.get("erlangs", 1), limits.get("rate", 1))
                for period, rows in back.items():
                    if rows > 0 and period in market.bars:
                        await backfill(get_ohlc, market.bars[period], rows, self._pace)
        except PikerError as error:
            log.warning("%s: back-fill ended: %s", market.fqme, error)
        except Exception:
            log.exception("%s: back-fill failed", market.fqme)


def unknown_mkt(symbol: str, provider: str) -> MktPair:
    """What can be said of a market that no provider describes."""
    return MktPair(
        base=Asset(symbol),
        quote=Asset(""),
        symbol=symbol,
        venue_symbol=symbol,
        provider=provider,
        price_tick=Asset("").tx_tick,
        size_tick=Asset("").tx_tick,
    )


async def run_clock(engine: FeedEngine) -> None:
    """Step an engine on each second of the wall clock, by absolute deadlines."""
    complained = False
    while True:
        await trio.sleep((NS - time.time_ns() % NS) / NS)
        try:
            engine.step(time.time_ns())
            complained = False
        except OSError as error:
            if not complained:
                log.error("%s", error)
            complained = True
