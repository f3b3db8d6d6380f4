"""One account's orders, what was said of them, and its ledger: an SQLite file.

1. One commit a turn holds all that a turn changes; nothing of a turn leaves the process
   before its commit has returned.
2. The file is written by one process, which holds the lock of the file beside it.
   Others may read it while it is written (`open_reader`).
3. A file of a newer version is refused; an older one is brought up to date.
"""

import fcntl
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import msgspec

from piker_core.ems import ledger_rows
from piker_core.ems.ledger import Mark, Terms
from piker_core.ems.lifecycle import Dialog
from piker_core.ems.turn import Turn
from piker_core.errors import NotFound, PikerError, WriterBusy
from piker_core.orders import BrokerdError, Status

VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    oid TEXT PRIMARY KEY,
    reqid TEXT NOT NULL UNIQUE,
    session TEXT NOT NULL,
    symbol TEXT NOT NULL,
    state TEXT NOT NULL,
    living INTEGER NOT NULL,
    untold INTEGER NOT NULL,
    dialog BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS orders_living ON orders (oid) WHERE living OR untold;
CREATE TABLE IF NOT EXISTS statuses (
    seq INTEGER PRIMARY KEY,
    oid TEXT NOT NULL,
    session TEXT NOT NULL,
    status BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS statuses_oid ON statuses (oid);
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    cancels INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
log = logging.getLogger("piker_core.ems")
_decode_dialog = msgspec.msgpack.Decoder(Dialog).decode
_decode_status = msgspec.msgpack.Decoder(Status).decode


class Session(msgspec.Struct):
    """A client as it is stored.

    `number`: of its newest request. `cancels`: its orders are canceled when it is gone.
    """

    id: str
    number: int = 0
    cancels: bool = False


class Stored(NamedTuple):
    """What a turn changes, beside what the gateway says."""

    turn: Turn
    sessions: Iterable[Session] = ()
    gone: Iterable[str] = ()
    notes: Mapping[str, str] = MappingProxyType({})
    marks: Iterable[Mark] = ()
    terms: Mapping[str, Terms] = MappingProxyType({})


def database_path(folder: Path, broker: str, account: str) -> Path:
    """Where the orders of an account are kept."""
    return folder / f"{broker}.{account}.db"


class Database:
    """The open file of an account, for its one writer. Made by `open_database`.

    Any one thread at a time may call it.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection

    # Reading

    def dialogs(self) -> list[Dialog]:
        """All orders that live, and those whose client has not heard of their end."""
        query = "SELECT oid, session, dialog FROM orders WHERE living OR untold"
        dialogs = []
        for oid, session, blob in self.connection.execute(query).fetchall():
            try:
                dialogs.append(_decode_dialog(blob))
            except _UNREADABLE as error:
                self._end_unreadable(oid, session, str(error))
        return dialogs

    def dialog(self, oid: str) -> Dialog | None:
        """An order, ended or not."""
        rows = self.connection.execute("SELECT dialog FROM orders WHERE oid = ?", [oid])
        row = rows.fetchone()
        return _decode_dialog(row[0]) if row else None

    def is_used(self, oid: str) -> bool:
        """Whether there was ever an order of this name."""
        rows = self.connection.execute("SELECT 1 FROM orders WHERE oid = ?", [oid])
        return rows.fetchone() is not None

    def is_ours(self, reqid: str) -> bool:
        """Whether there was ever an order with this client order id."""
        query = "SELECT 1 FROM orders WHERE reqid = ?"
        return self.connection.execute(query, [reqid]).fetchone() is not None

    def seq(self) -> int:
        """The place of the newest status."""
        row = self.connection.execute("SELECT max(seq) FROM statuses").fetchone()
        return int(row[0] or 0)

    def statuses(self, oid: str, after: int = 0) -> list[Status]:
        """What was said of an order behind a place, in order."""
        query = "SELECT status FROM statuses WHERE oid = ? AND seq > ? ORDER BY seq"
        rows = self.connection.execute(query, [oid, after])
        return [_decode_status(row[0]) for row in rows]

    def told_to(self, session: str, after: int) -> list[Status]:
        """What was said to a client behind a place, in order."""
        query = "SELECT status FROM statuses WHERE seq > ? AND session = ? ORDER BY seq"
        rows = self.connection.execute(query, [after, session])
        return [_decode_status(row[0]) for row in rows]

    def sessions(self) -> dict[str, Session]:
        """Clients that did not leave, by id."""
        rows = self.connection.execute("SELECT id, number, cancels FROM sessions")
        return {row[0]: Session(row[0], row[1], bool(row[2])) for row in rows}

    def note(self, key: str, default: str = "") -> str:
        """A word that was noted."""
        query = "SELECT value FROM notes WHERE key = ?"
        row = self.connection.execute(query, [key]).fetchone()
        return str(row[0]) if row else default

    # Writing

    def _end_unreadable(self, oid: str, session: str, why: str) -> None:
        """An order that cannot be read ends; its client is told, and others go on."""
        reason = (
            f"order {oid!r} cannot be read from {self.path}: {why}: it is not looked "
            "after any more; cancel it at the broker if it is there"
        )
        log.error("%s", reason)
        status = Status(
            time_ns=time.time_ns(),
            oid=oid,
            resp="error",
            src="ems",
            brokerd_msg=BrokerdError(reason=reason, oid=oid),
            seq=self.seq() + 1,
        )
        row = (status.seq, oid, session, msgspec.msgpack.encode(status))
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.execute(
                "UPDATE orders SET state = 'error', living = 0, untold = 0 "
                "WHERE oid = ?",
                [oid],
            )
            self.connection.execute("INSERT INTO statuses VALUES (?, ?, ?, ?)", row)

    def commit(self, stored: Stored, broker: str, account: str) -> None:
        """Store a turn, whole or not at all. Raises sqlite3.Error."""
        turn, run = stored.turn, self.connection.executemany
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            run(
                "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (oid) "
                "DO UPDATE SET session = excluded.session, state = excluded.state, "
                "living = excluded.living, untold = excluded.untold, "
                "dialog = excluded.dialog",
                [_order_row(dialog) for dialog in turn.dirty.values()],
            )
            run("INSERT INTO statuses VALUES (?, ?, ?, ?)", _status_rows(turn))
            ledger_rows.record(self.connection, broker, account, turn.transactions)
            ledger_rows.save_marks(self.connection, stored.marks)
            ledger_rows.save_terms(self.connection, stored.terms)
            run(
                "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)",
                [(s.id, s.number, int(s.cancels)) for s in stored.sessions],
            )
            run("DELETE FROM sessions WHERE id = ?", [(one,) for one in stored.gone])
            run(
                "INSERT OR REPLACE INTO notes VALUES (?, ?)", list(stored.notes.items())
            )

    def close(self) -> None:
        """Close the file. A second time it does nothing."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _order_row(dialog: Dialog) -> tuple[Any, ...]:
    blob = msgspec.msgpack.encode(dialog)
    order = dialog.order
    place = (order.oid, dialog.reqid, dialog.session, order.symbol)
    marks = (int(not dialog.ended), int(dialog.told < dialog.said))
    return (*place, dialog.state, *marks, blob)


def _status_rows(turn: Turn) -> list[tuple[Any, ...]]:
    encode = msgspec.msgpack.encode
    return [
        (s.seq, s.oid, dialog.session if dialog else asker, encode(s))
        for s, dialog, asker in turn.said
    ]


@contextmanager
def open_database(
    folder: Path, broker: str, account: str, *, mode: str, sync: str = "full"
) -> Iterator[Database]:
    """Open the orders of an account to write them, alone.

    `mode`: "paper" or "live"; an account is of one of them for ever. Raises WriterBusy
    if another process has them open, PikerError for a file of another kind or mode or
    of a newer version, OSError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = database_path(folder, broker, account)
    with _locked(path), _connected(path, sync) as connection:
        database = Database(path, connection)
        _decide_mode(database, mode)
        yield database


def _decide_mode(database: Database, mode: str) -> None:
    """Who first opens an account decides. Raises PikerError for another mode then."""
    decided = database.note("mode")
    if not decided:
        database.commit(Stored(Turn(), notes={"mode": mode}), "", "")
    elif decided != mode:
        raise PikerError(
            f"{database.path} holds the orders of a {decided} account, and is not "
            f"opened in {mode} mode: name another account"
        )


@contextmanager
def open_reader(folder: Path, broker: str, account: str) -> Iterator[Database]:
    """Open the orders of an account to look at them, whoever writes them.

    Raises NotFound if there are none, PikerError as `open_database`.
    """
    path = database_path(folder, broker, account)
    if not path.exists():
        raise NotFound(
            f"there are no orders of account {account!r} of {broker}: {path}"
        )
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
    try:
        _check_version(connection, path)
        yield Database(path, connection)
    except sqlite3.DatabaseError as error:
        raise _trouble(path, error) from error
    finally:
        connection.close()


_locks: set[int] = set()


def _release_inherited() -> None:
    """A forked child is not the gateway, and must not hold its lock."""
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


os.register_at_fork(after_in_child=_release_inherited)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The lock of an account, which ends with the process that has it."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WriterBusy(
                f"the orders of {path} are open in another gateway"
            ) from None
        _locks.add(descriptor)
        yield
    finally:
        _locks.discard(descriptor)
        os.close(descriptor)


@contextmanager
def _connected(path: Path, sync: str) -> Iterator[sqlite3.Connection]:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise PikerError(f"{path} is open to others: chmod 600 {path}")
    connection = sqlite3.connect(
        path, timeout=5.0, isolation_level=None, check_same_thread=False
    )
    try:
        _check_version(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            f"PRAGMA synchronous = {'FULL' if sync == 'full' else 'NORMAL'}"
        )
        connection.executescript(_SCHEMA + ledger_rows.SCHEMA)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        yield connection
    except sqlite3.DatabaseError as error:
        raise PikerError(f"{path} cannot be used: {error}") from error
    finally:
        connection.close()


def _trouble(path: Path, error: sqlite3.Error) -> PikerError:
    """What keeps a file from being used, and what mends it."""
    folder = path.parent
    if _takes_files(folder):
        return PikerError(f"{path} cannot be used: {error}: look at its disk")
    return PikerError(
        f"{path} cannot be used: {error}: its folder {folder} must be writable, for "
        "who reads it, too"
    )


def _takes_files(folder: Path) -> bool:
    """Whether files can be made in a folder, as a database needs it to be read."""
    read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    return not read_only and os.access(folder, os.W_OK)


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise PikerError(f"{path} is no database of orders: {error}") from None
        raise _trouble(path, error) from None
    if version > VERSION:
        raise PikerError(
            f"{path} is of version {version}, this is piker-core for {VERSION}: "
            "install a newer one"
        )
