"""The tables of a database, and every statement that is sent to it.

piker.ohlcv     market, period, time and the fields of a row; a hypertable of
                TimescaleDB where that is loaded in the server, else a plain table
piker.version   one row: the version of this layout
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import psycopg

from piker_core.errors import StoreError
from piker_core.store.postgres_rows import FIELDS, GAP_FIELDS

Link = psycopg.Connection[Any]

VERSION = 1
LOCK_S = 60
"""Longest wait for another writer of the same market."""
BLOCK_ROWS = 1_000_000
"""How many periods one value of a read spans: the server allows 1 GB."""
CHUNK_S = 28 * 86_400
"""What a chunk of a hypertable spans."""

_INTEGERS = ("time", "count", "flags")
_TYPES = {
    name: "bigint" if name in _INTEGERS else "double precision" for name in FIELDS
}
_COLUMNS = ", ".join(f'"{name}" {_TYPES[name]} NOT NULL' for name in FIELDS)
_NAMES = ", ".join(f'"{name}"' for name in FIELDS)
_ASSIGNED = ", ".join(f'"{name}" = excluded."{name}"' for name in FIELDS[1:])


def _record(table: str) -> str:
    return "ROW(" + ", ".join(f'{table}."{name}"' for name in FIELDS[1:]) + ")::record"


# By a query of the catalogue: what to_regclass found before a lock was given is kept.
ARE_THERE = """
    SELECT EXISTS (SELECT FROM pg_tables
        WHERE schemaname = 'piker' AND tablename = 'ohlcv')"""
READ_VERSION = "SELECT version FROM piker.version"
LOCK = (
    "SELECT set_config('lock_timeout', %s, true), "
    "pg_advisory_xact_lock(hashtextextended(%s, 0))"
)
FRESH = (
    f"CREATE TEMPORARY TABLE IF NOT EXISTS piker_fresh ({_COLUMNS}) "
    "ON COMMIT DELETE ROWS"
)
COPY = f"COPY pg_temp.piker_fresh ({_NAMES}) FROM STDIN (FORMAT BINARY)"
# `*<>` compares the bits of two records: -0.0 is not 0.0, a NaN is itself.
UPSERT = f"""
    INSERT INTO piker.ohlcv AS old (market, period, {_NAMES})
    SELECT %s::text, %s::bigint, {_NAMES} FROM pg_temp.piker_fresh ORDER BY "time"
    ON CONFLICT (market, period, "time") DO UPDATE SET {_ASSIGNED}
    WHERE {_record("old")} *<> {_record("excluded")}"""
_OF_SPAN = 'market = %s AND period = %s AND "time" >= %s AND "time" < %s'


def _read(fields: Sequence[str]) -> str:
    """One value for many rows, which no message a row keeps waiting."""
    values = " || ".join(
        f'{"int8send" if name in _INTEGERS else "float8send"}("{name}")'
        for name in fields
    )
    return f"""
        SELECT string_agg(content, '') FROM (
            SELECT "time" / %s AS block, {values} AS content FROM piker.ohlcv
            WHERE {_OF_SPAN} ORDER BY "time") AS sorted
        GROUP BY block ORDER BY block"""


READ = _read(FIELDS)
READ_GAPS = _read(GAP_FIELDS)
DELETE = f"DELETE FROM piker.ohlcv WHERE {_OF_SPAN}"
SERIES = """
    SELECT market, period, count(*), min("time"), max("time") FROM piker.ohlcv
    GROUP BY market, period ORDER BY market, period"""

# IF NOT EXISTS asks for the right to create one even where it exists.
_HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'piker')"
_MAKE = (
    "CREATE TABLE piker.version (version integer NOT NULL)",
    f"INSERT INTO piker.version VALUES ({VERSION})",
    f"""CREATE TABLE piker.ohlcv (market text COLLATE "C" NOT NULL,
    period bigint NOT NULL, {_COLUMNS}, PRIMARY KEY (market, period, "time"))""",
)
# A server that offers the extension without loading it ends the session of who asks.
_HAS_TIMESCALE = """
    SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
    AND current_setting('timescaledb.disable_load', true) IS NOT NULL"""
_EXTENSION = "CREATE EXTENSION IF NOT EXISTS timescaledb"
_EXTENSION_SCHEMA = """
    SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace
    ON pg_namespace.oid = extnamespace WHERE extname = 'timescaledb'"""
_HYPERTABLE = (
    "SELECT {}.create_hypertable('piker.ohlcv', 'time', "
    f"chunk_time_interval => {CHUNK_S}::bigint, create_default_indexes => false)"
)


def are_there(link: Link, where: str) -> bool:
    """Whether the tables exist. Raises StoreError if they are of another version."""
    if not _is_so(link, ARE_THERE):
        return False
    found = link.execute(READ_VERSION).fetchall()
    if found != [(VERSION,)]:
        versions = ", ".join(str(version) for (version,) in found) or "none"
        raise StoreError(
            f"{where} has tables of version {versions}, this program reads and writes "
            f"version {VERSION}: install the piker-core that made them, or use "
            "another database"
        )
    return True


def make_tables(link: Link) -> None:
    """Create them, unless another process just did."""
    with link.transaction():
        lock(link, "tables of piker-core")
        if _is_so(link, ARE_THERE):
            return
        if not _is_so(link, _HAS_SCHEMA):
            link.execute("CREATE SCHEMA piker")
        for statement in _MAKE:
            link.execute(statement)
        _make_hypertable(link)


def _make_hypertable(link: Link) -> None:
    """Where TimescaleDB cannot be had the plain table does as well."""
    if _is_so(link, _HAS_TIMESCALE):
        with contextlib.suppress(psycopg.DatabaseError), link.transaction():
            link.execute(_EXTENSION)
            (schema,) = link.execute(_EXTENSION_SCHEMA).fetchone() or ("public",)
            link.execute(_HYPERTABLE.format(schema).encode())


def lock(link: Link, name: str) -> None:
    """Be the only writer under this name until the transaction ends."""
    link.execute(LOCK, (f"{LOCK_S}s", name))


def _is_so(link: Link, question: str) -> bool:
    (answer,) = link.execute(question).fetchone() or (False,)
    return bool(answer)
