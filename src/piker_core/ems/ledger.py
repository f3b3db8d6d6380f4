"""An account's positions and its profit of the day, kept up with each transaction.

Sans-IO. A ledger begins with what `ledger_rows.open_ledger` read, which is the last day
line by line, and what was before as a sum. What comes for an older day is not guessed
at: its market is in `older` until `ledger_rows.reload` has read it again.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

import msgspec

from piker_core.ems.holding import EXACT, Entry, Holding, Line, Place, shortest
from piker_core.errors import OrderError
from piker_core.orders import BrokerdPosition, Transaction

END_NS = (1 << 63) - 1
"""No transaction is of this time, or of a later one."""
DAY_NS = 86_400_000_000_000
LATE_NS = 3_600_000_000_000
"""How long before midnight lines are kept one by one."""
_ZERO = Decimal(0)
log = logging.getLogger("piker_core.ems")
Price = Callable[[str], Decimal | None]
"""What tells the price of a market now; None: it is not known."""


class Terms(msgspec.Struct, frozen=True):
    """What a market is of: its quote currency, its base, units of it in a contract."""

    currency: str = ""
    base: str = ""
    multiplier: Decimal = Decimal(1)


class Mark(NamedTuple):
    """The price that a market had when a UTC day (counted from 1970) began."""

    day: int
    symbol: str
    price: Decimal


class _Moved(NamedTuple):
    """Of a day's transfers without a price: sizes, and what they were worth then."""

    size: Decimal
    worth: Decimal


class DayProfit(msgspec.Struct, frozen=True):
    """Profit of a UTC day in one currency, negative: a loss.

    `realised` by closing, `unrealised`: what positions are worth more than when the day
    began, `fees` paid in this currency or in a base, priced at its fill. `unpriced`:
    positions without a price, counted as unchanged.
    """

    realised: Decimal = _ZERO
    unrealised: Decimal = _ZERO
    fees: Decimal = _ZERO
    unpriced: tuple[str, ...] = ()

    @property
    def total(self) -> Decimal:
        """All of it, fees paid."""
        return EXACT.subtract(EXACT.add(self.realised, self.unrealised), self.fees)


class Known(NamedTuple):
    """The version of a transaction that counts, and where it stands."""

    revision: int
    tells_fee: bool
    place: Place


class Book:
    """One market's line, with the version of each transaction in it that counts.

    Those of the day before the line are known too: a repeat of one may be of another
    time, where a venue tells times by more digits here than there.
    """

    def __init__(self, line: Line, known: dict[str, Known] | None = None) -> None:
        self.line = line
        self.known = known or {}

    def is_known(self, transaction: Transaction) -> bool:
        """Whether it, or a later version of it, is there."""
        known = self.known.get(transaction.tid)
        return known is not None and version(transaction) <= known[:2]

    def take(self, transaction: Transaction, order: int) -> bool:
        """Put a transaction where it belongs; False: that is before the line."""
        known = self.known.get(transaction.tid)
        place = Place(transaction.time_ns, known.place.order if known else order)
        corrects = transaction.revision > 0 and known is None
        if not self.line.reaches(min(place, known.place if known else place)):
            return False
        if corrects and self.line.after is not None:
            return False
        if known is not None and place != known.place:
            self.line.remove(known.place)
        self.put(transaction, place)
        return True

    def put(self, transaction: Transaction, place: Place) -> None:
        """Put a transaction in a place that the line reaches."""
        self.line.put(Entry(place, transaction))
        self.known[transaction.tid] = Known(*version(transaction), place)

    def forget(self, time_ns: int) -> None:
        """Keep no single lines of before a time."""
        if self.line.forget(time_ns):
            self.known = {
                tid: known
                for tid, known in self.known.items()
                if known.place.time_ns >= time_ns - DAY_NS
            }


class Ledger:
    """Holdings of one account by market, and its profit of the day by currency."""

    def __init__(self, broker: str, account: str) -> None:
        self.broker, self.account = broker, account
        self.older: set[str] = set()
        """Markets that something came for which is older than what is kept of them."""
        self.refused = 0
        self._terms: dict[str, Terms] = {}
        self._unsaved_terms: dict[str, Terms] = {}
        self._books: dict[str, Book] = {}
        self._order = 0
        self._day = -1
        self._opening: dict[str, Decimal] = {}
        self._last: dict[str, Decimal] = {}
        self._moved: dict[str, _Moved] = {}
        self._unsaved: list[Mark] = []

    def describe(self, symbol: str, terms: Terms) -> None:
        """Say what a market is of; without it, profits are in an unnamed currency."""
        if self._terms.get(symbol) != terms:
            self._terms[symbol] = self._unsaved_terms[symbol] = terms

    def load_terms(self, terms: Mapping[str, Terms]) -> None:
        """Take back what was saved of markets."""
        self._terms.update(terms)

    def take_terms(self) -> dict[str, Terms]:
        """What is newly said of markets and should be saved, each once."""
        terms, self._unsaved_terms = self._unsaved_terms, {}
        return terms

    def terms(self, symbol: str) -> Terms:
        """What a market is of, as far as it was said."""
        return self._terms.get(symbol, Terms())

    def begin(self, symbol: str, book: Book, order: int) -> None:
        """Put a market's lines in the place of what is known of it.

        `order`: that of the last transaction ever recorded.
        """
        self._books[symbol] = book
        self._order = max(self._order, order)
        self.older.discard(symbol)

    def apply(self, transactions: Iterable[Transaction]) -> list[Transaction]:
        """Take in transactions, in the order in which they are recorded.

        Returns those that are new, or may be: `ledger_rows.record` knows all. A market
        that is in `older` afterwards is as it was. What cannot be in a ledger is
        counted in `refused`.
        """
        new = []
        for transaction in filter(self._is_sound, transactions):
            book = self._books.get(transaction.symbol)
            if book is None:
                book = self._books[transaction.symbol] = Book(Line(Holding()))
            if book.is_known(transaction):
                continue
            self._order += 1
            new.append(transaction)
            if not book.take(transaction, self._order):
                self.older.add(transaction.symbol)
        return new

    def _is_sound(self, transaction: Transaction) -> bool:
        try:
            check_transaction(transaction)
        except OrderError as error:
            (log.debug if self.refused else log.warning)("%s", error)
            self.refused += 1
            return False
        return True

    @property
    def is_empty(self) -> bool:
        """Whether there never was a transaction."""
        return not self._books

    def size(self, symbol: str) -> Decimal:
        """What is held of a market now."""
        book = self._books.get(symbol)
        return book.line.now.size if book else _ZERO

    def holdings(self) -> dict[str, Holding]:
        """All that is or was held, by market; copies."""
        return {symbol: book.line.now.copy() for symbol, book in self._books.items()}

    def position(self, symbol: str) -> BrokerdPosition:
        """What is held of a market now, as a message."""
        book = self._books.get(symbol)
        held = book.line.now if book else Holding()
        return BrokerdPosition(
            broker=self.broker,
            account=self.account,
            symbol=symbol,
            size=shortest(held.size),
            avg_price=held.told_price(),
            currency=self.terms(symbol).currency,
        )

    def positions(self) -> list[BrokerdPosition]:
        """All positions, those that are flat too, in alphabetical order."""
        return [self.position(symbol) for symbol in sorted(self._books) if symbol]

    def load_marks(self, marks: Iterable[Mark]) -> None:
        """Take back the marks of the day that were saved before."""
        for mark in marks:
            self._begin_day(mark.day)
            self._opening[mark.symbol] = mark.price
            self._last.setdefault(mark.symbol, mark.price)

    def load_prices(self, prices: Mapping[str, Decimal]) -> None:
        """Take back the last prices known before: what has no mark begins with them."""
        self._last.update(prices)
        for symbol in prices if self._day >= 0 else ():
            if symbol not in self._opening:
                self._open(symbol, prices[symbol])

    def held_prices(self) -> dict[str, Decimal]:
        """The last prices known of what is held, for `load_prices`."""
        return {
            symbol: price for symbol, price in self._last.items() if self.size(symbol)
        }

    def take_marks(self) -> list[Mark]:
        """The marks that are new and should be saved, each once."""
        marks, self._unsaved = self._unsaved, []
        return marks

    def day_profit(self, price: Price, now_ns: int, symbol: str) -> Decimal:
        """Profit of this UTC day in the quote currency of a market, all of it.

        If nobody said which one that is: the worst of any currency.
        """
        profits = self.day_profits(price, now_ns)
        if symbol not in self._terms:
            return min((profit.total for profit in profits.values()), default=_ZERO)
        return profits.get(self.terms(symbol).currency, DayProfit()).total

    def day_profits(self, price: Price, now_ns: int) -> dict[str, DayProfit]:
        """Profit of this UTC day by currency.

        `price` tells what a market is worth now, as far as it is known. What was held
        when the day began counts from the last price known then, or else from the
        first one that is told on this day.
        """
        self._begin_day(now_ns // DAY_NS)
        sums: dict[str, DayProfit] = {}
        for symbol, book in self._books.items():
            self._mark(symbol, price(symbol))
            self._add_profit(sums, symbol, book.line)
        return sums

    def _mark(self, symbol: str, price: Decimal | None) -> None:
        if price is not None:
            self._last[symbol] = price
            if symbol not in self._opening:
                self._open(symbol, price)

    def _add_profit(self, sums: dict[str, DayProfit], symbol: str, line: Line) -> None:
        terms, now = self.terms(symbol), line.now
        begin = line.before(self._day * DAY_NS)
        gained = self._gain_of_transfers(symbol, line)
        if now.count == begin.count and not now.size:
            return
        opening = self._opening.get(symbol, begin.avg_price)
        price = self._last.get(symbol, now.avg_price)
        grown = EXACT.subtract(now.unrealised(price), begin.unrealised(opening))
        realised = EXACT.subtract(now.realised, begin.realised)
        unpriced = now.size and symbol not in self._last
        profit = DayProfit(
            EXACT.multiply(realised, terms.multiplier),
            EXACT.multiply(EXACT.subtract(grown, gained), terms.multiplier),
            unpriced=(symbol,) if unpriced else (),
        )
        _add(sums, terms.currency, profit)
        for currency in now.fees:
            if currency and currency.lower() == terms.base.lower():
                fee = _grown(now.priced_fees, begin.priced_fees, currency)
                _add(sums, terms.currency, DayProfit(fees=fee))
            else:
                fee = _grown(now.fees, begin.fees, currency)
                place = currency if terms.currency else ""
                _add(sums, place or terms.currency, DayProfit(fees=fee))

    def _gain_of_transfers(self, symbol: str, line: Line) -> Decimal:
        """What seems to be earned by transfers of the day that tell no price.

        They count as bought at the last price known then, or else the first one since.
        """
        begin, now = line.before(self._day * DAY_NS), line.now
        if symbol not in self._opening:
            return _ZERO
        moved = EXACT.subtract(now.moved, begin.moved)
        known = self._moved.get(symbol)
        if known is None:
            known = _Moved(moved, EXACT.multiply(moved, self._opening[symbol]))
        elif moved != known.size:
            more = EXACT.subtract(moved, known.size)
            worth = EXACT.multiply(more, self._last[symbol])
            known = _Moved(moved, EXACT.add(known.worth, worth))
        self._moved[symbol] = known
        cost = EXACT.subtract(now.moved_cost, begin.moved_cost)
        return EXACT.subtract(known.worth, cost)

    def _begin_day(self, day: int) -> None:
        if day <= self._day:
            return
        self._day = day
        self._opening, self._moved = {}, {}
        for symbol, price in self._last.items():
            self._open(symbol, price)
        for book in self._books.values():
            book.forget(day * DAY_NS - LATE_NS)

    def _open(self, symbol: str, price: Decimal) -> None:
        self._opening[symbol] = price
        self._unsaved.append(Mark(self._day, symbol, price))


class Difference(msgspec.Struct, frozen=True):
    """A position that the broker tells otherwise, and a sentence about it."""

    symbol: str
    own: Decimal
    told: Decimal
    text: str


def differences(
    own: Iterable[BrokerdPosition], told: Iterable[BrokerdPosition]
) -> list[Difference]:
    """Where sizes of the ledger and of the broker differ. What one lacks is 0."""
    ours, theirs = _sizes(own), _sizes(told)
    found = []
    for symbol in sorted(ours.keys() | theirs.keys()):
        mine, his = ours.get(symbol, _ZERO), theirs.get(symbol, _ZERO)
        if mine != his:
            more = EXACT.subtract(his, mine)
            text = (
                f"the broker tells a position of {shortest(his):f} {symbol}, the "
                f"ledger has {shortest(mine):f}: {shortest(more):+f} is not in it"
            )
            found.append(Difference(symbol, mine, his, text))
    return found


def check_transaction(transaction: Transaction) -> None:
    """Raises OrderError for what cannot be in a ledger."""
    name = f"transaction {transaction.tid!r:.60} of {transaction.symbol!r:.60}"
    if not transaction.tid:
        raise OrderError(f"{name} must have the venue's id of it")
    if transaction.kind == "split" and transaction.size <= 0:
        raise OrderError(f"{name}: a unit becomes more than 0, not {transaction.size}")
    for what in ("time_ns", "revision"):
        number = getattr(transaction, what)
        if not 0 <= number < END_NS:
            raise OrderError(f"{name}: {what} {number} must be from 0 to 2**63 - 2")


def version(transaction: Transaction) -> tuple[int, bool]:
    """Which version of a transaction this is: the highest one counts.

    A fee that is told later completes a revision; none is told as 0 of no currency.
    """
    return transaction.revision, bool(transaction.fee or transaction.fee_currency)


def _sizes(positions: Iterable[BrokerdPosition]) -> dict[str, Decimal]:
    sizes: dict[str, Decimal] = {}
    for position in positions:
        known = sizes.get(position.symbol, _ZERO)
        sizes[position.symbol] = EXACT.add(known, position.size)
    return sizes


def _grown(
    now: dict[str, Decimal], before: dict[str, Decimal], currency: str
) -> Decimal:
    return EXACT.subtract(now.get(currency, _ZERO), before.get(currency, _ZERO))


def _add(sums: dict[str, DayProfit], currency: str, profit: DayProfit) -> None:
    held = sums.get(currency, DayProfit())
    sums[currency] = DayProfit(
        EXACT.add(held.realised, profit.realised),
        EXACT.add(held.unrealised, profit.unrealised),
        EXACT.add(held.fees, profit.fees),
        held.unpriced + profit.unpriced,
    )
