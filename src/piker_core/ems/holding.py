"""What an account holds of one market, and what that cost: exact, one line at a time.

Average cost: what makes a position larger moves its average price; what makes it
smaller leaves it, and realises a profit; what turns it over starts anew at its price.
Fees are apart. Sans-IO.
"""

from bisect import bisect_left, insort
from decimal import Context, Decimal
from typing import NamedTuple

import msgspec

from piker_core.orders import Transaction

EXACT = Context(prec=100)
"""Wide enough for sums and products of a ledger; averages are rounded at its end."""
_FINE = Decimal("1e-28")
"""Where an average price is rounded when it is told."""
_FINEST = Decimal("1e-40")
"""The same for very small ones: no number of a message is finer."""
_ZERO = Decimal(0)
_EVERY = 256
"""Transactions between two holdings that a line keeps."""


class Holding(msgspec.Struct):
    """Size, average price and profit, in prices times sizes, after some transactions.

    `size` is negative when short; `avg_price` is 0 where `size` is. `fees` are by
    currency (negative: earned), `priced_fees` the same times the price of each fill:
    what fees in the base are worth in the quote currency. `moved`: the sizes of
    transfers without a price, `moved_cost`: what they count as. `count`: of
    transactions.
    """

    size: Decimal = _ZERO
    avg_price: Decimal = _ZERO
    realised: Decimal = _ZERO
    fees: dict[str, Decimal] = {}
    priced_fees: dict[str, Decimal] = {}
    moved: Decimal = _ZERO
    moved_cost: Decimal = _ZERO
    count: int = 0

    def apply(self, transaction: Transaction) -> None:
        """Take in one transaction: of this market, the next one by time.

        A transfer counts as a fill at its price; without one (0), at the average.
        """
        self.count += 1
        if transaction.fee:
            self._pay(transaction)
        if transaction.kind == "split":
            self.size = EXACT.multiply(self.size, transaction.size)
            if self.size:
                self.avg_price = EXACT.divide(self.avg_price, transaction.size)
        elif transaction.kind == "fill":
            self._trade(transaction.size, transaction.price)
        elif transaction.kind == "transfer":
            self._transfer(transaction.size, transaction.price)

    def unrealised(self, price: Decimal) -> Decimal:
        """Profit of what is held, were it worth this price."""
        return EXACT.multiply(EXACT.subtract(price, self.avg_price), self.size)

    def told_price(self) -> Decimal:
        """The average price as messages have it: to 28 decimals, small ones to 40."""
        small = self.avg_price.adjusted() < -9
        return shortest(EXACT.quantize(self.avg_price, _FINEST if small else _FINE))

    def copy(self) -> "Holding":
        """The same, to go on by itself."""
        return msgspec.structs.replace(
            self, fees=dict(self.fees), priced_fees=dict(self.priced_fees)
        )

    def _trade(self, change: Decimal, price: Decimal) -> None:
        size = EXACT.add(self.size, change)
        if self.size * change < 0:
            closed = min(change.copy_abs(), self.size.copy_abs())
            gain = EXACT.multiply(EXACT.subtract(price, self.avg_price), closed)
            if self.size < 0:
                gain = gain.copy_negate()
            self.realised = EXACT.add(self.realised, gain)
            if not size:
                self.avg_price = _ZERO
            elif change.copy_abs() > closed:
                self.avg_price = price
        elif change:
            cost = EXACT.multiply(self.avg_price, self.size)
            cost = EXACT.add(cost, EXACT.multiply(price, change))
            self.avg_price = EXACT.divide(cost, size)
        self.size = size

    def _transfer(self, change: Decimal, price: Decimal) -> None:
        if not price:
            price = self.avg_price
            self.moved = EXACT.add(self.moved, change)
            cost = EXACT.multiply(change, price)
            self.moved_cost = EXACT.add(self.moved_cost, cost)
        self._trade(change, price)

    def _pay(self, transaction: Transaction) -> None:
        fee, currency = transaction.fee, transaction.fee_currency
        self.fees[currency] = EXACT.add(self.fees.get(currency, _ZERO), fee)
        if transaction.price:
            worth = EXACT.multiply(fee, transaction.price)
            known = self.priced_fees.get(currency, _ZERO)
            self.priced_fees[currency] = EXACT.add(known, worth)


class Place(NamedTuple):
    """Where a transaction stands in its market: by time, then as they were recorded."""

    time_ns: int
    order: int


class Entry(NamedTuple):
    """A transaction in its place."""

    place: Place
    transaction: Transaction


class Line:
    """The transactions of one market from some place on, and the holding they make.

    Late ones and corrections are put where they belong; what follows is counted again.
    """

    def __init__(self, holding: Holding, after: Place | None = None) -> None:
        self.after = after
        """The last place that is in the holding it begins with; None: the beginning."""
        self._entries: list[Entry] = []
        self._kept = [holding.copy()]
        """Holdings after each `_EVERY` entries."""
        self.now = holding.copy()
        self._earlier: tuple[int, Holding] | None = None
        """The last answer of `before`, as long as it is right."""

    def __len__(self) -> int:
        return len(self._entries)

    def reaches(self, place: Place) -> bool:
        """Whether what belongs there can be put there."""
        return self.after is None or place > self.after

    def put(self, entry: Entry) -> None:
        """Take in a transaction, in the place of what it supersedes if that is here."""
        entries = self._entries
        if not entries or entry.place > entries[-1].place:
            self._append(entry)
            return
        index = bisect_left(entries, entry.place, key=_place)
        if index < len(entries) and entries[index].place == entry.place:
            entries[index] = entry
        else:
            insort(entries, entry, key=_place)
        self._recount(index)

    def remove(self, place: Place) -> None:
        """Take out what is there: a correction has moved it."""
        index = bisect_left(self._entries, place, key=_place)
        if index < len(self._entries) and self._entries[index].place == place:
            del self._entries[index]
            self._recount(index)

    def before(self, time_ns: int) -> Holding:
        """The holding as it was before a time, which the line must reach.

        Others than the last one asked for are counted again. Not to be changed.
        """
        if self._earlier is not None and self._earlier[0] == time_ns:
            return self._earlier[1]
        index = bisect_left(self._entries, Place(time_ns, -1), key=_place)
        first = index // _EVERY
        holding = self._kept[first].copy()
        for entry in self._entries[first * _EVERY : index]:
            holding.apply(entry.transaction)
        self._earlier = time_ns, holding
        return holding

    def forget(self, time_ns: int) -> bool:
        """Fold what is before a time into the holding that the line begins with.

        Returns whether there was anything.
        """
        index = bisect_left(self._entries, Place(time_ns, -1), key=_place)
        if not index:
            return False
        begin = self.before(time_ns)
        self.after = self._entries[index - 1].place
        del self._entries[:index]
        self._kept = [begin]
        self._recount(0)
        return True

    def _append(self, entry: Entry) -> None:
        self._entries.append(entry)
        self.now.apply(entry.transaction)
        if self._earlier is not None and entry.place.time_ns < self._earlier[0]:
            self._earlier = None
        if len(self._entries) % _EVERY == 0:
            self._kept.append(self.now.copy())

    def _recount(self, index: int) -> None:
        self._earlier = None
        first = index // _EVERY
        rest = self._entries[first * _EVERY :]
        del self._kept[first + 1 :], self._entries[first * _EVERY :]
        self.now = self._kept[first].copy()
        for entry in rest:
            self._append(entry)


def shortest(number: Decimal) -> Decimal:
    """A number without idle zeros and without a positive exponent."""
    plain = number.normalize(EXACT)
    exponent = plain.as_tuple().exponent
    if isinstance(exponent, int) and exponent > 0:
        return EXACT.quantize(plain, Decimal(1))
    return plain


def _place(entry: Entry) -> Place:
    return entry.place
