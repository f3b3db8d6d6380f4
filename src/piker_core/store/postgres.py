"""A store in PostgreSQL, by psycopg: `open_store("postgresql://user@host/database")`."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import psycopg
from numpy.typing import NDArray

from piker_core.dtypes import OHLCV_DTYPE
from piker_core.store import postgres_tables as tables
from piker_core.store.postgres_links import Links
from piker_core.store.postgres_rows import FIELDS, GAP_FIELDS, copy_bytes, joined_rows
from piker_core.store.protocol import Series
from piker_core.store.rows import (
    checked_fqme,
    checked_period,
    checked_range,
    checked_rows,
    holes,
)

Rows = NDArray[np.void]
Link = psycopg.Connection[Any]


class PostgresStore:
    """Rows of all markets in one table of a database.

    A write is one transaction: all of a batch is there once it is acknowledged, none of
    it before. Any number of threads and processes may read and write; writers of one
    market take turns. All of it raises StoreError; a lost connection is made anew by
    the next call.
    """

    def __init__(self, url: str) -> None:
        """Connect to the database; nothing is created before the first write."""
        self._links = Links(url)
        self._tables_known = False

    def write_ohlcv(self, fqme: str, period: int, rows: Rows) -> int:
        """Merge rows into a series; how many were new or differ in any bit."""
        fqme, period = checked_fqme(fqme), checked_period(period)
        rows = checked_rows(rows, period)
        if not len(rows):
            return 0
        content = copy_bytes(rows)
        with self._links.borrow() as link:
            if not self._has_tables(link):
                tables.make_tables(link)
            with link.transaction():
                tables.lock(link, fqme)
                link.execute(tables.FRESH)
                with link.cursor().copy(tables.COPY) as copy:
                    copy.write(content)
                return link.execute(tables.UPSERT, (fqme, period)).rowcount

    def read_ohlcv(
        self,
        fqme: str,
        period: int,
        start_s: int | None = None,
        end_s: int | None = None,
    ) -> Rows:
        """Rows with start_s <= time < end_s, ascending; None is no bound."""
        fqme, period = checked_fqme(fqme), checked_period(period)
        return self._read(
            tables.READ, FIELDS, fqme, period, checked_range(start_s, end_s)
        )

    def series(self) -> list[Series]:
        """What there is, sorted by market and period."""
        with self._links.borrow() as link:
            if not self._has_tables(link):
                return []
            found = link.execute(tables.SERIES).fetchall()
        return [
            Series(fqme=fqme, period=period, rows=rows, first_s=first_s, last_s=last_s)
            for fqme, period, rows, first_s, last_s in found
        ]

    def gaps(self, fqme: str, period: int) -> Rows:
        """Holes between the first and the last row: missing rows and placeholders."""
        fqme, period = checked_fqme(fqme), checked_period(period)
        span = checked_range(None, None)
        rows = self._read(tables.READ_GAPS, GAP_FIELDS, fqme, period, span)
        return holes(rows, period)

    def delete(
        self,
        fqme: str,
        period: int,
        start_s: int | None = None,
        end_s: int | None = None,
    ) -> int:
        """Remove the rows with start_s <= time < end_s; how many there were."""
        fqme, period = checked_fqme(fqme), checked_period(period)
        with self._links.borrow() as link:
            if not self._has_tables(link):
                return 0
            with link.transaction():
                tables.lock(link, fqme)
                asked = (fqme, period, *checked_range(start_s, end_s))
                return link.execute(tables.DELETE, asked).rowcount

    def close(self) -> None:
        """Close all connections; further calls raise StoreError."""
        self._links.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read(
        self,
        statement: str,
        fields: Sequence[str],
        fqme: str,
        period: int,
        span: tuple[int, int],
    ) -> Rows:
        block_s = tables.BLOCK_ROWS * period
        with self._links.borrow() as link:
            if not self._has_tables(link):
                return np.zeros(0, OHLCV_DTYPE)
            asked = (block_s, fqme, period, *span)
            result = link.cursor(binary=True).execute(statement, asked).pgresult
            assert result is not None
            blocks = (result.get_value(number, 0) for number in range(result.ntuples))
            return joined_rows((block for block in blocks if block), fields)

    def _has_tables(self, link: Link) -> bool:
        if not self._tables_known:
            self._tables_known = tables.are_there(link, self._links.shown)
        return self._tables_known
