"""Lines of market data on one session: who is told tick by tick, who is sampled.

Rules this file owns:

1. Every market has a line of sampled data. The first `tick_by_tick_lines` that can be
   are told each trade (or quote) on a line of their own.
2. Who was refused that is not asked for it again on this session; nobody within
   `tick_by_tick_interval_s` of the last time.
3. A line that is given back is cancelled at TWS, and heard no more.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from .config import Config
from .contracts import contract_fields
from .library import load_library
from .market_feed import MarketFeed
from .session import Session

Hear = Callable[[MarketFeed, int, str, tuple[Any, ...]], None]


class Lines:
    """The lines of a stream's markets; `hear` takes what is said on them."""

    def __init__(self, config: Config, hear: Hear) -> None:
        self.session: Session | None = None
        self._config = config
        self._hear = hear
        self._by_tick: dict[str, int] = {}
        self._asked_s: dict[str, float] = {}
        self._sampled: set[str] = set()

    def begin(self, session: Session) -> None:
        """Lines are on this session from now on."""
        self.session = session
        self._sampled.clear()
        kind = self._config.market_data_type
        if kind != 1:
            session.send(lambda: session.requests.reqMarketDataType(kind))

    def end(self) -> None:
        """The session is over, and all its lines with it."""
        self.session = None
        self._by_tick.clear()

    def open(self, market: MarketFeed) -> None:
        """Ask for a market's lines, or wait for its turn to be told tick by tick."""
        session = self.session
        if session is None or session.lost.is_set():
            return
        by_tick = self._takes_slot(market)
        now_s = trio.current_time()
        ready_s = self._asked_s.get(market.symbol, -1e9)
        ready_s += self._config.tick_by_tick_interval_s
        if by_tick and ready_s > now_s:
            market.awaits, market.due_s = "turn", ready_s
            return
        market.due_s = now_s + self._config.request_timeout_s
        market.ask(time.time_ns(), by_tick=by_tick)
        if not session.links.up:
            market.awaits = "link"
        contract = load_library().Contract(**contract_fields(market.listing))
        self._sample(session, market, contract)
        if by_tick:
            self._asked_s[market.symbol] = now_s
            self._tell_each(session, market, contract)

    def close(self, market: MarketFeed) -> None:
        """Give a market's lines back."""
        session, lines = self.session, market.lines
        market.lines = []
        by_tick = self._by_tick.pop(market.symbol, 0)
        for line in lines if session is not None else ():
            self._drop(session, line, by_tick=line == by_tick)

    def renew(self, market: MarketFeed) -> None:
        """Ask for its lines again."""
        self.close(market)
        self.open(market)

    def is_by_tick(self, market: MarketFeed, line: int) -> bool:
        """Whether it is the line that tells each trade."""
        return bool(line) and line == self._by_tick.get(market.symbol)

    def leave_ticks(self, market: MarketFeed) -> None:
        """Its trades are not told one by one any more, and not asked for so again."""
        self._sampled.add(market.symbol)
        line = self._by_tick.pop(market.symbol, 0)
        if line in market.lines:
            market.lines.remove(line)
            self._drop(self.session, line, by_tick=True)

    def _takes_slot(self, market: MarketFeed) -> bool:
        able = market.listing.kind != "prices" and market.symbol not in self._sampled
        return able and len(self._by_tick) < self._config.tick_by_tick_lines

    def _sample(self, session: Session, market: MarketFeed, contract: Any) -> None:
        traded = market.listing.kind == "trades"
        generic = str(self._config.rt_volume) if traded else ""
        line = self._add(session, market)
        session.send(
            lambda: session.requests.reqMktData(
                line, contract, generic, False, False, []
            )
        )

    def _tell_each(self, session: Session, market: MarketFeed, contract: Any) -> None:
        kind = "BidAsk" if market.listing.kind == "quotes" else "AllLast"
        line = self._by_tick[market.symbol] = self._add(session, market)
        session.send(
            lambda: session.requests.reqTickByTickData(line, contract, kind, 0, False)
        )

    def _add(self, session: Session, market: MarketFeed) -> int:
        line = session.next_id()
        market.lines.append(line)
        session.handlers[line] = partial(self._hear, market, line)
        return line

    def _drop(self, session: Session | None, line: int, *, by_tick: bool) -> None:
        if session is None:
            return
        session.handlers.pop(line, None)
        requests = session.requests
        cancel = requests.cancelTickByTickData if by_tick else requests.cancelMktData
        session.send(partial(cancel, line))
