"""The ledger in an account's SQLite file: rows are appended, never changed.

1. A transaction is known by its market and `tid`. Of its versions the highest revision
   counts, and of that the one that tells the fee.
2. Transactions are in order of time, then as their first versions were appended.
3. Sums are kept now and then, so that none has to begin at the beginning. They are made
   from rows alone, and dropped when a row comes that belongs before them.

Nothing is committed here. Threads: those of the connection.
"""

import csv
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Protocol

import msgspec

from piker_core.ems.holding import Holding, Line, Place
from piker_core.ems.ledger import (
    DAY_NS,
    END_NS,
    LATE_NS,
    Book,
    Known,
    Ledger,
    Mark,
    Terms,
    check_transaction,
    version,
)
from piker_core.orders import Transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS transactions (
    seq INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    broker TEXT NOT NULL,
    account TEXT NOT NULL,
    symbol TEXT NOT NULL,
    tid TEXT NOT NULL,
    revision INTEGER NOT NULL,
    tells_fee INTEGER NOT NULL,
    kind TEXT NOT NULL,
    time_ns INTEGER NOT NULL,
    size TEXT NOT NULL,
    price TEXT NOT NULL,
    fee TEXT NOT NULL,
    fee_currency TEXT NOT NULL,
    reqid TEXT NOT NULL,
    oid TEXT NOT NULL,
    details TEXT NOT NULL,
    UNIQUE (symbol, tid, revision, tells_fee)
) STRICT;
CREATE INDEX IF NOT EXISTS transactions_time ON transactions (symbol, time_ns, first);
CREATE TABLE IF NOT EXISTS sums (
    symbol TEXT NOT NULL,
    time_ns INTEGER NOT NULL,
    first INTEGER NOT NULL,
    holding TEXT NOT NULL,
    PRIMARY KEY (symbol, time_ns, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS terms (
    symbol TEXT PRIMARY KEY,
    currency TEXT NOT NULL,
    base TEXT NOT NULL,
    multiplier TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
    day INTEGER NOT NULL,
    symbol TEXT NOT NULL,
    price TEXT NOT NULL,
    PRIMARY KEY (day, symbol)
) STRICT, WITHOUT ROWID;
"""
"""`first` is the `seq` of the first version of a transaction."""
EVERY = 512
"""Rows between two sums."""
_MOST = 4096
"""Transactions that are summed up at once: what is more waits for the next time."""
_COLUMNS = (
    *("kind", "tid", "time_ns", "symbol", "size", "price", "fee", "fee_currency"),
    *("revision", "reqid", "oid", "details"),
)
_COUNTING = f"""
SELECT {", ".join("t." + name for name in _COLUMNS)}, t.first FROM transactions t
WHERE NOT EXISTS (
    SELECT 1 FROM transactions n WHERE n.symbol = t.symbol AND n.tid = t.tid
    AND (n.revision, n.tells_fee) > (t.revision, t.tells_fee)
)
"""
"""Versions that count."""


class SupportsWrite(Protocol):
    """What text can be written to."""

    def write(self, text: str, /) -> object:
        """Write it."""


def record(
    connection: sqlite3.Connection,
    broker: str,
    account: str,
    transactions: Iterable[Transaction],
) -> list[Transaction]:
    """Append transactions; returns those that were not there. In a transaction.

    Raises OrderError, before anything is written, for what cannot be one.
    """
    given = list(transactions)
    for transaction in given:
        check_transaction(transaction)
    return [one for one in given if _append(connection, broker, account, one)]


def open_ledger(
    connection: sqlite3.Connection, broker: str, account: str, now_ns: int
) -> Ledger:
    """The ledger of an account, as it is in the file."""
    ledger = Ledger(broker, account)
    ledger.load_terms(stored_terms(connection))
    day = now_ns // DAY_NS
    marks = connection.execute("SELECT * FROM marks WHERE day = ?", [day])
    ledger.load_marks(Mark(at, symbol, Decimal(price)) for at, symbol, price in marks)
    for symbol in _symbols(connection):
        _load(connection, ledger, symbol, now_ns)
    return ledger


def reload(connection: sqlite3.Connection, ledger: Ledger, now_ns: int) -> list[str]:
    """Read again, after a commit, what was too old for the ledger: these markets."""
    symbols = sorted(ledger.older)
    for symbol in symbols:
        _load(connection, ledger, symbol, now_ns)
    return symbols


def holdings(connection: sqlite3.Connection) -> dict[str, Holding]:
    """What is held of each market that there ever was a transaction of."""
    found = {}
    for symbol in _symbols(connection):
        holding, after = _sum_before(connection, symbol, END_NS)
        for transaction, _ in _rows(connection, symbol, after):
            holding.apply(transaction)
        found[symbol] = holding
    return found


def catch_up(connection: sqlite3.Connection) -> None:
    """Keep sums of all rows that are in none. In a transaction.

    For who is about to open a ledger in which something far back was recorded: all
    sums that followed it are gone.
    """
    for symbol in _symbols(connection):
        while _sum_up(connection, symbol):
            continue


def transactions(
    connection: sqlite3.Connection,
    start_ns: int = 0,
    end_ns: int | None = None,
    symbol: str = "",
) -> Iterator[Transaction]:
    """Transactions from `start_ns` to before `end_ns`, as they count, in order."""
    query = _COUNTING + "AND t.time_ns >= ? AND t.time_ns < ?"
    values: list[object] = [start_ns, END_NS if end_ns is None else end_ns]
    if symbol:
        query += " AND t.symbol = ?"
        values.append(symbol)
    rows = connection.execute(query + " ORDER BY t.time_ns, t.first", values)
    return (_transaction(row) for row in rows)


def export_csv(
    connection: sqlite3.Connection,
    file: SupportsWrite,
    *,
    start_ns: int = 0,
    end_ns: int | None = None,
    symbol: str = "",
) -> int:
    """Write `transactions` with a heading, numbers without exponents; how many."""
    names = ("time_ns", *(name for name in _COLUMNS if name != "time_ns"))
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    count = 0
    for transaction in transactions(connection, start_ns, end_ns, symbol):
        row = {name: getattr(transaction, name) for name in names}
        row |= {name: f"{row[name]:f}" for name in ("size", "price", "fee")}
        row["details"] = _details(transaction)
        writer.writerow(row.values())
        count += 1
    return count


def stored_terms(connection: sqlite3.Connection) -> dict[str, Terms]:
    """What markets are of, as far as it was saved."""
    rows = connection.execute("SELECT symbol, currency, base, multiplier FROM terms")
    return {row[0]: Terms(row[1], row[2], Decimal(row[3])) for row in rows}


def save_terms(connection: sqlite3.Connection, terms: Mapping[str, Terms]) -> None:
    """Keep what markets are of, by symbol. In a transaction."""
    rows = [
        (symbol, of.currency, of.base, str(of.multiplier))
        for symbol, of in terms.items()
    ]
    connection.executemany("INSERT OR REPLACE INTO terms VALUES (?, ?, ?, ?)", rows)


def save_marks(connection: sqlite3.Connection, marks: Iterable[Mark]) -> None:
    """Keep prices that a day began with, where none is. In a transaction."""
    rows = [(mark.day, mark.symbol, str(mark.price)) for mark in marks]
    connection.executemany("INSERT OR IGNORE INTO marks VALUES (?, ?, ?)", rows)


def _append(
    connection: sqlite3.Connection, broker: str, account: str, one: Transaction
) -> bool:
    """Append a version, if it is a higher one than there is."""
    revision, tells_fee = version(one)
    row = connection.execute(
        "SELECT revision, tells_fee, first, time_ns FROM transactions WHERE symbol = ? "
        "AND tid = ? ORDER BY revision DESC, tells_fee DESC LIMIT 1",
        (one.symbol, one.tid),
    ).fetchone()
    if row is not None and (revision, tells_fee) <= (row[0], bool(row[1])):
        return False
    (seq,) = connection.execute(
        "SELECT coalesce(max(seq), 0) + 1 FROM transactions"
    ).fetchone()
    first = seq if row is None else row[2]
    values = (
        *(seq, first, broker, account, one.symbol, one.tid, revision, tells_fee),
        *(one.kind, one.time_ns, str(one.size), str(one.price), str(one.fee)),
        *(one.fee_currency, one.reqid, one.oid, _details(one)),
    )
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO transactions VALUES ({marks})", values)
    earliest = one.time_ns if row is None else min(one.time_ns, row[3])
    connection.execute(
        "DELETE FROM sums WHERE symbol = ? AND (time_ns, first) >= (?, ?)",
        (one.symbol, earliest, first),
    )
    if seq % EVERY == 0:
        query = "SELECT DISTINCT symbol FROM transactions WHERE seq > ?"
        for (symbol,) in connection.execute(query, [seq - EVERY]).fetchall():
            _sum_up(connection, symbol)
    return True


def _sum_up(connection: sqlite3.Connection, symbol: str) -> bool:
    """Keep a sum of the next rows of a market; whether there are more."""
    holding, after = _sum_before(connection, symbol, END_NS)
    rows = list(_rows(connection, symbol, after, most=_MOST))
    if rows:
        for transaction, _ in rows:
            holding.apply(transaction)
        text = msgspec.json.encode(holding).decode()
        connection.execute(
            "INSERT INTO sums VALUES (?, ?, ?, ?)", (symbol, *rows[-1][1], text)
        )
    return len(rows) == _MOST


def _sum_before(
    connection: sqlite3.Connection, symbol: str, time_ns: int
) -> tuple[Holding, Place | None]:
    """The last sum of before a time, and the place up to which it goes."""
    row = connection.execute(
        "SELECT time_ns, first, holding FROM sums WHERE symbol = ? AND time_ns < ? "
        "ORDER BY time_ns DESC, first DESC LIMIT 1",
        (symbol, time_ns),
    ).fetchone()
    if row is None:
        return Holding(), None
    return msgspec.json.decode(row[2], type=Holding), Place(row[0], row[1])


def _load(
    connection: sqlite3.Connection, ledger: Ledger, symbol: str, now_ns: int
) -> None:
    midnight = now_ns - now_ns % DAY_NS
    holding, after = _sum_before(connection, symbol, midnight - LATE_NS)
    book = Book(Line(holding, after), _known_before(connection, symbol, after))
    for transaction, place in _rows(connection, symbol, after):
        book.put(transaction, place)
    (order,) = connection.execute(
        "SELECT coalesce(max(seq), 0) FROM transactions"
    ).fetchone()
    ledger.begin(symbol, book, order)


def _known_before(
    connection: sqlite3.Connection, symbol: str, after: Place | None
) -> dict[str, Known]:
    """What is known of the day before a place, what is there included."""
    if after is None:
        return {}
    rows = connection.execute(
        "SELECT tid, revision, tells_fee, time_ns, first FROM transactions WHERE "
        "symbol = ? AND time_ns >= ? AND (time_ns, first) <= (?, ?) "
        "ORDER BY revision, tells_fee",
        (symbol, after.time_ns - DAY_NS, *after),
    )
    return {
        tid: Known(revision, bool(tells_fee), Place(time_ns, first))
        for tid, revision, tells_fee, time_ns, first in rows
    }


def _rows(
    connection: sqlite3.Connection,
    symbol: str,
    after: Place | None,
    *,
    most: int = -1,
) -> Iterator[tuple[Transaction, Place]]:
    """Transactions of a market behind a place, in order."""
    rows = connection.execute(
        _COUNTING + "AND t.symbol = ? AND (t.time_ns, t.first) > (?, ?) "
        "ORDER BY t.time_ns, t.first LIMIT ?",
        (symbol, *(after or (-1, -1)), most),
    )
    for row in rows:
        transaction = _transaction(row)
        yield transaction, Place(transaction.time_ns, row[-1])


def _symbols(connection: sqlite3.Connection) -> list[str]:
    """Markets that there are transactions of: a look-up for each, not a scan."""
    next_one = "SELECT min(symbol) FROM transactions WHERE symbol > ?"
    (symbol,) = connection.execute("SELECT min(symbol) FROM transactions").fetchone()
    found = []
    while symbol is not None:
        found.append(symbol)
        (symbol,) = connection.execute(next_one, [symbol]).fetchone()
    return found


def _transaction(row: tuple[object, ...]) -> Transaction:
    values = dict(zip(_COLUMNS, row, strict=False))
    values["details"] = msgspec.json.decode(str(values["details"]))
    return Transaction(**values)  # type: ignore[arg-type]


def _details(transaction: Transaction) -> str:
    return msgspec.json.encode(transaction.details, enc_hook=str).decode()
