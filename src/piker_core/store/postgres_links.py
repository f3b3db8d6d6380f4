"""Connections to one database: lent to one thread at a time, made anew when lost."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from piker_core.errors import StoreError
from piker_core.store.opening import without_password

Link = psycopg.Connection[Any]

CONNECTIONS = 8
"""How many a store has at most; threads beyond that wait for their turn."""
DEFAULTS = {
    "connect_timeout": "10",
    "application_name": "piker-core",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""What the URL may set in another way: a dead server is noticed within a minute."""
_ADVICE = (
    ("Connection refused", "is PostgreSQL running there?"),
    ("No such file", "is PostgreSQL running there?"),
    ("timeout", "is the host reachable?"),
    ("resolve", "check the host's name"),
    ("Name or service", "check the host's name"),
    ("Temporary failure", "check the host's name"),
    ("password", "check user and password in the URL, or in ~/.pgpass"),
    ("does not exist", "create it first (createdb, createuser)"),
    ("pg_hba", "let this host in, in the server's pg_hba.conf"),
)
_REMEDIES = {
    "55P03": "another writer holds this market, try again",
    "42501": "grant the rights that docs/postgres.md names",
}


class Links:
    """The connections of a store to the database of its URL. Raises StoreError.

    Any thread may borrow one; `shown` is the URL without its password.
    """

    def __init__(self, url: str) -> None:
        self.shown, self._words = _read_url(url)
        self._idle: list[Link] = []
        self._closed = False
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(CONNECTIONS)
        self._put_back(self._connect())

    @contextmanager
    def borrow(self) -> Iterator[Link]:
        """A connection without a transaction; what it raises becomes a StoreError."""
        with self._turns:
            link = self._take() or self._connect()
            try:
                yield link
            except psycopg.Error as error:
                raise self._explained(error, lost=link.closed) from None
            finally:
                self._put_back(link)

    def close(self) -> None:
        """Close them; those that are lent, when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    def _take(self) -> Link | None:
        with self._lock:
            if self._closed:
                raise StoreError(f"the store {self.shown} is closed")
            return self._idle.pop() if self._idle else None

    def _put_back(self, link: Link) -> None:
        """Keep it for the next; all go once one is lost: the server has restarted."""
        at_rest = link.info.transaction_status == TransactionStatus.IDLE
        with self._lock:
            if at_rest and not self._closed:
                self._idle.append(link)
                return
            gone = [link]
            if link.closed:
                gone += self._idle
                self._idle = []
        for one in gone:
            one.close()

    def _connect(self) -> Link:
        try:
            link = psycopg.connect(
                "", **self._words, autocommit=True, prepare_threshold=None
            )
        except psycopg.Error as error:
            reason = _first_line(error)
            advice = [words for part, words in _ADVICE if part in reason][:1]
            raise StoreError(
                f"{self.shown} cannot be opened: {': '.join([reason, *advice])}"
            ) from None
        # A snapshot taken before the lock of a market was given would be too old.
        link.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        return link

    def _explained(self, error: psycopg.Error, *, lost: bool) -> StoreError:
        reason = _first_line(error)
        if lost:
            return StoreError(
                f"the connection to {self.shown} was lost: {reason}; try again"
            )
        advice = _REMEDIES.get(error.sqlstate or "")
        text = f"{self.shown}: {reason}"
        return StoreError(f"{text}: {advice}" if advice else text)


def _read_url(url: str) -> tuple[str, dict[str, Any]]:
    """How a URL is shown, and what is in it."""
    try:
        words = conninfo_to_dict(url)
    except psycopg.Error:
        raise StoreError(
            f"{without_password(url)!r} is no URL of PostgreSQL: write "
            "postgresql://user:password@host:port/database"
        ) from None
    user = f"{words['user']}@" if words.get("user") else ""
    port = f":{words['port']}" if words.get("port") else ""
    place = f"{words.get('host') or 'local socket'}{port}"
    return f"postgresql://{user}{place}/{words.get('dbname', '')}", DEFAULTS | words


def _first_line(error: psycopg.Error) -> str:
    """What the server or the library said, without where it said it."""
    said = error.diag.message_primary or str(error)
    line = (said.splitlines() or [type(error).__name__])[0].rpartition("failed: ")[2]
    return re.sub(r"^(FATAL|ERROR): +", "", line).rstrip(".")
