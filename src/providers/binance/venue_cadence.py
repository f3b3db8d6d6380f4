"""Streams that speak by the clock: klines, tickers and depth.

Each is asked at its times for the events that are due, as functions of the unit of time
they are to be printed in.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from piker_core.simulation.market import NS

from .venue_depth import Book, Level, Tap, update_id
from .venue_frames import depth_event, encode_json, kline_frame, partial_event
from .venue_klines import Bar, Interval, kline_event
from .venue_symbols import SymbolMarket
from .venue_tickers import mini_ticker_event, ticker_event

Event = Callable[[int], bytes]


class Cadence(Protocol):
    """What a stream has to say, time after time."""

    def due(self, now_ns: int) -> Iterator[Event]:
        """The events of now."""

    def close(self) -> None:
        """Nobody listens any longer."""


class Klines:
    """A symbol's klines: each change of the running one, and every end."""

    def __init__(self, market: SymbolMarket, interval: str, now_ns: int) -> None:
        self._market = market
        self._interval = Interval(interval)
        self._open_s = self._interval.open_s(now_ns // NS)
        self._head = -1

    def due(self, now_ns: int) -> Iterator[Event]:
        """The klines that have ended, and the running one if it changed."""
        running_s = self._interval.open_s(now_ns // NS)
        while self._open_s < running_s:
            next_s = self._interval.next_s(self._open_s)
            yield from self._bars(next_s, now_ns, closed=True)
            self._open_s, self._head = next_s, -1
        if self._market.head != self._head:
            next_s = self._interval.next_s(running_s)
            yield from self._bars(next_s, now_ns, closed=False)
            self._head = self._market.head

    def _bars(self, end_s: int, now_ns: int, *, closed: bool) -> Iterator[Event]:
        for bar in self._interval.bars(self._market, self._open_s, end_s):
            if closed or bar[1].count:
                yield partial(self._event, bar, now_ns, closed)

    def _event(self, bar: Bar, now_ns: int, closed: bool, unit: int) -> bytes:
        pair = self._market.pair
        row = kline_event(pair, self._interval, bar, closed=closed, unit=unit)
        return kline_frame(pair, row, now_ns, unit)

    def close(self) -> None:
        """Nothing is kept."""


class Tickers:
    """Tickers of the symbols that changed since the last time."""

    def __init__(
        self, markets: Sequence[SymbolMarket], *, mini: bool, together: bool
    ) -> None:
        self._markets = markets
        self._make = mini_ticker_event if mini else ticker_event
        self._together = together
        self._seen = [-1] * len(markets)

    def due(self, now_ns: int) -> Iterator[Event]:
        """One event, or none where nothing changed."""
        changed = []
        for number, market in enumerate(self._markets):
            if market.quote_number != self._seen[number]:
                self._seen[number] = market.quote_number
                changed.append(market)
        if changed:
            yield partial(self._event, changed, now_ns)

    def _event(self, changed: list[SymbolMarket], now_ns: int, unit: int) -> bytes:
        rows = [self._make(market, now_ns, unit) for market in changed]
        return encode_json(rows if self._together else rows[0])

    def close(self) -> None:
        """Nothing is kept."""


class Changes:
    """A book's changed levels."""

    def __init__(self, market: SymbolMarket, book: Book) -> None:
        self._market = market
        self._tap = Tap(book, market)

    def due(self, now_ns: int) -> Iterator[Event]:
        """What changed since the last time."""
        before = self._tap.last
        taken = self._tap.take()
        if taken is not None:
            newest, bids, asks = taken
            yield partial(
                depth_event, self._market, (before, newest), (bids, asks), now_ns
            )

    def close(self) -> None:
        """Follow the book no longer."""
        self._tap.close()


class Top:
    """A book's best levels."""

    def __init__(self, market: SymbolMarket, book: Book, levels: int) -> None:
        self._market = market
        self._book = book
        self._levels = levels
        self._last = update_id(market)

    def due(self, now_ns: int) -> Iterator[Event]:
        """The best levels, if the book changed."""
        before, self._last = self._last, update_id(self._market)
        if before != self._last:
            levels = self._book.best(self._levels)
            yield partial(self._event, levels, (before, self._last), now_ns)

    def _event(
        self,
        levels: tuple[list[Level], list[Level]],
        span: tuple[int, int],
        now_ns: int,
        unit: int,
    ) -> bytes:
        if self._market.pair.contract:
            return depth_event(self._market, span, levels, now_ns, unit)
        return partial_event(self._market, levels)

    def close(self) -> None:
        """Nothing is kept."""
