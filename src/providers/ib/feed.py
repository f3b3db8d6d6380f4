"""Quotes from TWS: all markets over the shared connection, for ever.

Rules this file owns:

1. A refusal of the first session is an error that names the market; later one stops
   that market alone, until it is asked for again and has data.
2. After 1101 and after a lost connection everything is asked for again; after 1102 and
   the return of a data farm, what does not tick soon.
3. A message that cannot be understood is counted, logged once of its kind, and left.

Source: https://interactivebrokers.github.io/tws-api/market_data.html
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, cast

import trio

from piker_core.adapter.tap import tap_of
from piker_core.calendars import NS
from piker_core.errors import PikerError, ProviderError
from piker_core.messages import FeedInit
from piker_core.tasks import Backoff, open_nursery

from . import codes
from .api import Client, get_client, get_mkt_info
from .contracts import Listing, known_hours
from .counters import StreamStatistics
from .first_quotes import first_quotes
from .lines import Lines
from .links import Event
from .market_feed import MarketFeed, Quote
from .session import Session
from .sweep import sweep
from .tape import Tape
from .tapped import Details, Heard, TappedSession, TappedTape
from .watch import keep_hours, watch

Message = tuple[MarketFeed, int, str, tuple[Any, ...], Heard | None]
_INBOX_MOST = 20_000
_RETRY_MOST_S = 600.0

log = logging.getLogger("providers.ib")


class RefusedError(ProviderError):
    """TWS refused a market before the stream was live."""


class Stream:
    """The markets, and what comes in on their lines."""

    def __init__(self, client: Client, send_chan: Any) -> None:
        self.client = client
        self.config = client.config
        self.markets: dict[str, MarketFeed] = {}
        self.live = trio.Event()
        self.priced = trio.Event()
        self.lines = Lines(client.config, self._hear)
        self._send_chan = send_chan
        self._tap = tap_of(send_chan)
        self._tapped: TappedSession | None = None
        self._counts = client.gateway.counts
        self._inbox: deque[Message] = deque()
        self._wake = trio.Event()
        self._drained = trio.Event()
        self._refusals: dict[str, Backoff] = {}
        self._said: set[int] = set()
        self.error: PikerError | None = None

    def add(self, symbol: str, listing: Listing, handle: Any) -> MarketFeed:
        """Take a market into the stream, before it runs."""
        tape = self._open_tape(symbol, listing)
        hours = known_hours(listing, self.config.hours)
        market = MarketFeed(symbol, listing, handle, self.send, tape, hours)
        self.markets[symbol] = market
        self.client.gateway.joining[symbol] = trio.Event()
        return market

    def _open_tape(self, symbol: str, listing: Listing) -> Tape:
        if self._tap is None:
            return Tape(listing, self.config.rt_volume)
        details = Details(listing, self.config.rt_volume)
        return cast("Tape", TappedTape(self._tap, symbol, details))

    def statistics(self, symbol: str) -> StreamStatistics:
        """Counters of the stream, and of one market."""
        market = self.markets[symbol]
        tape = market.tape
        named = {
            key: self._counts[key]
            for key in StreamStatistics.__struct_fields__
            if key in self._counts
        }
        return StreamStatistics(
            source=tape.source,
            times=tape.times,
            local_times=tape.sampler.local,
            missed=market.missed,
            compared=market.compared,
            uncompared=market.uncompared,
            backwards=tape.sampler.meter.backwards,
            resets=tape.sampler.meter.resets,
            pacing_waits=self.client.archive.ledger.waits,
            **named,
        )

    async def send(self, quote: Quote) -> bool:
        """Push a quote; whether the engine took it. What it refuses is counted."""
        try:
            await self._send_chan.send(quote)
        except PikerError as error:
            self._complain("refused", f"a quote was refused: {error}", quote)
            return False
        except OSError as error:
            self._complain("no_space", str(error), quote["symbol"])
            return False
        return True

    def _complain(self, kind: str, text: str, frame: Any) -> None:
        self._counts[kind] += 1
        if self._counts[kind] == 1:
            log.warning("%s; more are counted only: %.300r", text, frame)

    def forget(self) -> None:
        """Its markets are not fed any more: nothing waits for them."""
        for symbol in self.markets:
            joining = self.client.gateway.joining.pop(symbol, None)
            if joining is not None:
                joining.set()

    # Sessions

    async def run(self) -> None:
        """Ask for all markets, take what comes; on each session anew."""
        while True:
            session = await self.client.gateway.session(patient=True)
            try:
                await self._serve(session)
            finally:
                self.lines.end()
            heard_ns = time.time_ns() - int(session.silence_s() * NS)
            for market in self.markets.values():
                market.lines.clear()
                market.go_down(session.reason, heard_ns, stale=session.silent)

    async def _serve(self, session: Session) -> None:
        """One session, until it is lost."""
        if self._tap is not None:
            self._tapped = TappedSession(self._tap, session)
        session.notices.append(self._take_notice)
        session.brakes.append(self._brake)
        self.lines.begin(session)
        try:
            for market in self.markets.values():
                self.lines.open(market)
            async with open_nursery() as nursery:
                nursery.start_soon(self._wake_at, session.lost)
                while not session.lost.is_set() or self._inbox:
                    await self._drain()
                    if not session.lost.is_set():
                        await self._wake.wait()
                        self._wake = trio.Event()
        finally:
            session.notices.remove(self._take_notice)
            session.brakes.remove(self._brake)
            self._drained.set()
            for market in self.markets.values():
                self.lines.close(market)
                market.note_read(market.come)
            self._inbox.clear()

    # Messages

    def _hear(
        self, market: MarketFeed, line: int, name: str, arguments: tuple[Any, ...]
    ) -> None:
        message = self._tapped.heard() if self._tapped else None
        self._inbox.append((market, line, name, arguments, message))
        market.come += 1
        self._wake.set()

    async def _brake(self) -> None:
        """Let a session read on when what it has brought is worked off."""
        while len(self._inbox) > _INBOX_MOST and self.lines.session is not None:
            self._drained = trio.Event()
            await self._drained.wait()

    async def _wake_at(self, event: trio.Event) -> None:
        await event.wait()
        self._wake.set()

    async def _drain(self) -> None:
        """All that has come in: what is of one chunk is pushed at once."""
        touched: dict[str, MarketFeed] = {}
        now_ns = time.time_ns()
        while self._inbox:
            market, line, name, arguments, message = self._inbox.popleft()
            touched[market.symbol] = market
            if line not in market.lines:
                continue
            if name == "error":
                self._take_error(market, line, *arguments)
            else:
                if message is not None:
                    market.tape.heard = message  # type: ignore[attr-defined]
                self._take(market, name, arguments, now_ns)
        for market, come in [(each, each.come) for each in touched.values()]:
            await market.flush(now_ns)
            market.note_read(come)
            if market.up:
                self._served(market)
        self.note_progress()
        self._drained.set()

    def _take(
        self, market: MarketFeed, name: str, arguments: tuple[Any, ...], now_ns: int
    ) -> None:
        """A message of one market: what is wrong with it concerns no other."""
        try:
            market.take(name, arguments, now_ns)
        except Exception as error:  # noqa: BLE001 - logged and counted
            text = f"a message was not understood: {error!r}"
            self._complain("malformed", text, (market.symbol, name, arguments))

    def note_progress(self) -> None:
        """Whether all markets have started, and have a price; which are whole."""
        markets = self.markets.values()
        for market in markets:
            if market.started and not market.held:
                self.client.gateway.joining[market.symbol].set()
        if not self.live.is_set() and all(market.started for market in markets):
            self.live.set()
        if not self.priced.is_set() and all(market.tape.price for market in markets):
            self.priced.set()

    def _take_error(self, market: MarketFeed, line: int, code: int, text: str) -> None:
        """TWS says something of a line."""
        if codes.is_notice(code):
            self._say(code, f"{market.symbol}: {text} (code {code})")
        elif self.lines.is_by_tick(market, line):
            if code != codes.COMPETING and market.awaits != "retry":
                self.leave_ticks(market, f"{text} (code {code})")
        elif not codes.is_echo(code, text):
            self._refuse(market, code, text)

    def leave_ticks(self, market: MarketFeed, why: str) -> None:
        """Its trades are not told one by one: be content with samples."""
        log.info("%s is sampled, not told tick by tick: %s", market.symbol, why)
        told = market.tape.source == "ticks"
        self.lines.leave_ticks(market)
        if told:
            market.go_down("tick by tick ended", market.heard_ns)
            self.lines.renew(market)
        else:
            market.tape.decide("sampled")

    def _refuse(self, market: MarketFeed, code: int, text: str) -> None:
        """No data of a market for now: say why, once, and ask again after a while."""
        self._counts["refusals"] += 1
        error = codes.request_error(code, text, f"market data of {market.listing.fqme}")
        if not self.live.is_set() and not market.started:
            self.error = RefusedError(str(error), frame=f"{code} {text}")
            self.live.set()
            return
        wait = self._refusals.get(market.symbol)
        if wait is None:
            wait = Backoff(self.config.refused_retry_s, _RETRY_MOST_S)
            wait.next_s()  # the first is at once, which is no use here
            self._refusals[market.symbol] = wait
        stale = code == codes.COMPETING
        heard_ns = market.heard_ns or time.time_ns()
        market.go_down(f"refused ({code})", heard_ns, stale=stale, refused=not stale)
        market.awaits, market.due_s = "retry", trio.current_time() + wait.next_s()
        self._say(code, f"{error}; it is asked for again from time to time")

    def _say(self, code: int, text: str) -> None:
        """Log the first of a code, until all is well again."""
        if code not in self._said:
            self._said.add(code)
            log.warning("%s", text)

    def _served(self, market: MarketFeed) -> None:
        """Its data flow: earlier refusals are forgotten."""
        if self._refusals.pop(market.symbol, None) and not self._refusals:
            self._said.clear()

    # Notices

    def _take_notice(self, event: Event, code: int, text: str) -> None:
        """What TWS says of its own connections."""
        if event:
            log.info("TWS: %s (code %d)", text, code)
        if event == "lost":
            for market in self.markets.values():
                market.go_down(f"TWS lost its link ({code})", self._newest_ns())
                market.awaits = "link"
        elif event == "back empty":
            for market in self.markets.values():
                self.lines.renew(market)
        elif event == "back":
            self._expect("link")
        elif event == "farm back":
            self._expect("farm")

    def _expect(self, awaited: str) -> None:
        """Markets that waited for this must tick soon."""
        for market in self.markets.values():
            if market.awaits == awaited and market.listing.kind == "quotes":
                self.lines.renew(market)  # else the quote in force is not known
            elif market.awaits == awaited:
                market.awaits = "tick"
                market.due_s = trio.current_time() + self.config.restore_s

    def _newest_ns(self) -> int:
        """When market data came in last."""
        heard = max((market.heard_ns for market in self.markets.values()), default=0)
        return heard or time.time_ns()


async def stream_quotes(
    send_chan: Any,
    symbols: Sequence[str],
    shm: dict[str, Any],
    feed_is_live: trio.Event,
    loglevel: str | None = None,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Stream trades and best quotes of `symbols` into `send_chan`, for ever.

    `shm`: each symbol's market handle. Starts with `([FeedInit], {symbol: quote})` as
    soon as the last prices are known; sets `feed_is_live` when all are subscribed.
    Raises NotFound for an unknown or ambiguous symbol, ProviderError if TWS cannot be
    reached or refuses one at the start.
    """
    if loglevel is not None:
        log.setLevel(loglevel.upper())
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(get_client())
        stream = Stream(client, send_chan)
        stack.callback(stream.forget)
        nursery = await stack.enter_async_context(open_nursery())
        inits = []
        for symbol in symbols:
            mkt, listing = await get_mkt_info(symbol, client=client)
            market = stream.add(symbol, listing, shm[symbol])
            market.restore(getattr(send_chan, "namespace", None))  # it may be wrapped
            details = {
                "listing": listing,
                "statistics": partial(stream.statistics, symbol),
            }
            inits.append(FeedInit(symbol, mkt, details))
            nursery.start_soon(keep_hours, stream, market)
        nursery.start_soon(stream.run)
        nursery.start_soon(watch, stream, nursery)
        nursery.start_soon(sweep, stream)
        quotes = await first_quotes(stream)
        task_status.started((inits, quotes))
        feed_is_live.set()
