"""The order book of a simulated symbol.

Rules this file owns:

1. Ids of book updates are the numbers of the market's quotes, one for each: what
   bookTicker says at `u` is the top of the book after the update `u`.
2. The changes after an update, applied to the book as it was there, give the book as it
   is; they name a level once, with its size now, 0 for one that is gone.
"""

import heapq
import random

from .venue_symbols import SymbolMarket

LEVELS = 1000
_NEAR_TICKS = 40
_FIRST_UPDATE = 50_093_239_000  # ids are as long as the venue's

Level = tuple[int, int]


def update_id(market: SymbolMarket) -> int:
    """The id of the newest update of a market's book."""
    return _FIRST_UPDATE + market.pair.first_id % 9973 + market.quote_number


class Book:
    """Levels by price in units; those who follow its changes hold a `Tap`."""

    def __init__(self, market: SymbolMarket) -> None:
        self._market = market
        self._rng = random.Random(market.pair.symbol)
        self._tick = market.pair.tick_units
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.taps: set[Tap] = set()
        self._quote = quote = market.quote
        self._fill(self.bids, quote.bid, -self._tick)
        self._fill(self.asks, quote.ask, self._tick)
        self.update()

    def update(self) -> None:
        """Follow the market's quote, which has changed."""
        before, self._quote = self._quote, self._market.quote
        quote = self._quote
        for price in range(before.bid, quote.bid, -self._tick):
            self._set(self.bids, price, 0)
        for price in range(before.ask, quote.ask, self._tick):
            self._set(self.asks, price, 0)
        self._flutter(self.bids, quote.bid, -self._tick)
        self._flutter(self.asks, quote.ask, self._tick)
        self._set(self.bids, quote.bid, quote.bid_size)
        self._set(self.asks, quote.ask, quote.ask_size)

    def best(self, count: int) -> tuple[list[Level], list[Level]]:
        """The best so many bids and asks, the best first."""
        bids = heapq.nlargest(count, self.bids.items())
        return bids, heapq.nsmallest(count, self.asks.items())

    def _fill(self, side: dict[int, int], price: int, step: int) -> None:
        while len(side) < LEVELS and price > 0:
            side[price] = self._size()
            price += step * self._rng.choice((1, 1, 1, 2, 3, 9))

    def _flutter(self, side: dict[int, int], best: int, step: int) -> None:
        """Change a few levels near the best; where there are too many the last go."""
        for _ in range(self._rng.randint(0, 3)):
            price = best + step * self._rng.randint(1, _NEAR_TICKS)
            if price > 0:
                gone = price in side and self._rng.random() < 0.3
                self._set(side, price, 0 if gone else self._size())
        while len(side) > 2 * LEVELS:
            self._set(side, min(side) if step < 0 else max(side), 0)

    def _size(self) -> int:
        pair = self._market.pair
        drawn = int(self._rng.expovariate(0.1 / pair.typical_size) * 10**8)
        return drawn // pair.step_units * pair.step_units + pair.step_units

    def _set(self, side: dict[int, int], price: int, size: int) -> None:
        if size:
            side[price] = size
        elif side.pop(price, None) is None:
            return
        for tap in self.taps:
            (tap.bids if side is self.bids else tap.asks).add(price)


class Tap:
    """The changes of a book since they were taken last."""

    def __init__(self, book: Book, market: SymbolMarket) -> None:
        self.bids: set[int] = set()
        self.asks: set[int] = set()
        self.last = update_id(market)
        self._book = book
        self._market = market
        book.taps.add(self)

    def take(self) -> tuple[int, list[Level], list[Level]] | None:
        """The newest id, changed bids and asks; None if there are none."""
        newest = update_id(self._market)
        if newest == self.last:
            return None
        self.last = newest
        book = self._book
        bids = [(price, book.bids.get(price, 0)) for price in sorted(self.bids)]
        asks = [(price, book.asks.get(price, 0)) for price in sorted(self.asks)]
        self.bids.clear()
        self.asks.clear()
        return newest, bids, asks

    def close(self) -> None:
        """Follow no longer."""
        self._book.taps.discard(self)


class Books:
    """The books somebody has asked for; a market costs nothing before."""

    def __init__(self) -> None:
        self._books: dict[str, Book] = {}

    def open(self, market: SymbolMarket) -> Book:
        """The book of a market."""
        symbol = market.pair.symbol
        if symbol not in self._books:
            self._books[symbol] = Book(market)
        return self._books[symbol]

    def update(self, market: SymbolMarket) -> None:
        """Follow a market's quote, which has changed."""
        book = self._books.get(market.pair.symbol)
        if book is not None:
            book.update()
