"""The store in PostgreSQL: what it keeps, and what it says when something is wrong."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

import piker_core as pk
from piker_core.store import Store, open_store, postgres_tables
from piker_core.store.postgres_links import CONNECTIONS
from piker_core.store.postgres_rows import FIELDS, copy_bytes, joined_rows
from piker_core.store.rows import holes
from tests.postgres_server import PASSWORD, PostgresServer

FQME = "xbtusd.kraken"
START_S = 1_704_067_200
Rows = NDArray[np.void]


def rows_at(start: int, count: int, price: float = 100.0) -> Rows:
    """Rows of minutes, counted from `START_S`; none of their values is another's."""
    rows = np.zeros(count, pk.OHLCV_DTYPE)
    rows["time"] = START_S + 60 * np.arange(start, start + count)
    for shift, name in enumerate(("open", "high", "low", "close", "bar_wap")):
        rows[name] = price + shift / 7 + np.arange(count) / 3
    rows["volume"], rows["count"], rows["flags"] = 0.1 + 0.2, 7, 4
    rows["index"] = np.arange(count)
    return rows


def words(rows: Rows) -> list[bytes]:
    """Rows as their bits, `index` aside."""
    return [row.tobytes()[8:] for row in rows]


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """The URL of an empty database."""
    return postgres.new_database()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as store:
        yield store


# Rows


def test_every_bit_of_a_row_comes_back(store: Store) -> None:
    rows = rows_at(0, 8)
    odd = np.array([0x8000000000000000, 1, 0x7FF0000000000001, 0xFFF8DEADBEEF0001])
    rows["volume"][:4] = odd.astype("<u8").view("<f8")
    rows["close"][:2] = np.inf, -np.inf
    rows["count"][:2] = 2**62, -(2**63)
    assert store.write_ohlcv(FQME, 60, rows) == 8
    assert words(store.read_ohlcv(FQME, 60)) == words(rows)
    assert store.write_ohlcv(FQME, 60, rows) == 0


@pytest.mark.parametrize("name", FIELDS[1:])
def test_a_change_of_any_field_counts_once(store: Store, name: str) -> None:
    rows = rows_at(0, 5)
    store.write_ohlcv(FQME, 60, rows)
    rows[name][3] += 1
    assert store.write_ohlcv(FQME, 60, rows) == 1
    assert store.write_ohlcv(FQME, 60, rows) == 0
    assert words(store.read_ohlcv(FQME, 60)) == words(rows)


def test_zeros_of_another_sign_and_other_nans_are_changes(store: Store) -> None:
    rows = rows_at(0, 1)
    bits = rows["volume"].view("<u8")
    for pattern in (0, 1 << 63, 0x7FF8000000000000, 0x7FF8000000000001):
        bits[0] = pattern
        assert store.write_ohlcv(FQME, 60, rows) == 1
        assert store.write_ohlcv(FQME, 60, rows) == 0
        assert store.read_ohlcv(FQME, 60)["volume"].view("<u8")[0] == pattern


def test_a_read_of_many_blocks_is_in_order(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_at(0, 100)
    store.write_ohlcv(FQME, 60, rows[50:])
    store.write_ohlcv(FQME, 60, rows[:50])
    monkeypatch.setattr(postgres_tables, "BLOCK_ROWS", 7)
    assert words(store.read_ohlcv(FQME, 60)) == words(rows)
    some = store.read_ohlcv(FQME, 60, START_S + 61, START_S + 3000)
    assert words(some) == words(rows[2:50])
    assert some["index"].tolist() == list(range(48))


def test_blocks_that_a_server_gives_in_disorder_are_sorted() -> None:
    rows = rows_at(0, 9)
    content = copy_bytes(rows)[19:-2]
    width = len(content) // 9
    values = [
        b"".join(row[2 + 12 * n + 4 : 2 + 12 * n + 12] for n in range(len(FIELDS)))
        for row in (content[n * width : (n + 1) * width] for n in range(9))
    ]
    shuffled = joined_rows([b"".join(values[5:]), b"".join(reversed(values[:5]))])
    assert words(shuffled) == words(rows)


def test_gaps_are_the_holes_of_the_rows(store: Store) -> None:
    rows = rows_at(0, 60)
    rows["flags"][20:25] = int(pk.BarFlag.SYNTHETIC_GAP)
    kept = np.delete(rows, slice(40, 50))
    store.write_ohlcv(FQME, 60, kept)
    assert store.gaps(FQME, 60).tolist() == holes(kept, 60).tolist()
    assert len(store.gaps(FQME, 60)) == 2


def test_a_span_or_a_whole_series_is_deleted(store: Store) -> None:
    for fqme in (FQME, "ethusd.kraken"):
        store.write_ohlcv(fqme, 60, rows_at(0, 10))
    assert store.delete(FQME, 60, START_S + 60, START_S + 180) == 2
    assert [one.rows for one in store.series()] == [10, 8]
    assert store.delete(FQME, 60) == 8
    assert [one.fqme for one in store.series()] == ["ethusd.kraken"]
    assert store.delete(FQME, 60) == 0


def test_a_database_that_nobody_wrote_to_is_an_empty_store(
    store: Store, url: str, postgres: PostgresServer
) -> None:
    assert store.series() == []
    assert len(store.read_ohlcv(FQME, 60)) == 0
    assert len(store.gaps(FQME, 60)) == 0
    assert store.delete(FQME, 60) == 0
    assert store.write_ohlcv(FQME, 60, rows_at(0, 0)) == 0
    made = postgres.execute("SELECT to_regnamespace('piker') IS NOT NULL", url=url)
    assert made == [(False,)]


# Transactions and writers


def test_of_a_batch_that_the_server_refuses_nothing_is_written(
    store: Store, url: str, postgres: PostgresServer
) -> None:
    store.write_ohlcv(FQME, 60, rows_at(0, 10))
    postgres.execute("ALTER TABLE piker.ohlcv ADD CHECK (flags < 9)", url=url)
    rows = rows_at(5, 10, price=200.0)
    rows["flags"][9] = 9
    with pytest.raises(pk.StoreError, match="check constraint"):
        store.write_ohlcv(FQME, 60, rows)
    assert words(store.read_ohlcv(FQME, 60)) == words(rows_at(0, 10))
    assert store.write_ohlcv(FQME, 60, rows[:9]) == 9


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
def test_writers_of_one_market_take_turns_and_lose_nothing(
    url: str, postgres: PostgresServer, isolation: str
) -> None:
    name = url.rpartition("/")[2]
    postgres.execute(
        f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'"
    )
    turns, barrier = range(12), threading.Barrier(4)

    def write(number: int) -> None:
        with open_store(url) as store:
            barrier.wait()
            for turn in turns:
                rows = rows_at(20 * turn + 5 * number, 8, price=100.0 + turn)
                store.write_ohlcv(FQME, 60, rows[:: 1 if number % 2 else -1])

    with ThreadPoolExecutor(4) as crew:
        for done in [crew.submit(write, number) for number in range(4)]:
            done.result()
    with open_store(url) as store:
        (one,) = store.series()
    assert one.rows == 20 * len(turns) + 3


def test_a_writer_that_waits_too_long_says_so(
    store: Store,
    url: str,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import psycopg

    store.write_ohlcv(FQME, 60, rows_at(0, 1))
    with psycopg.connect(url) as other:
        postgres_tables.lock(other, FQME)
        monkeypatch.setattr(postgres_tables, "LOCK_S", 0.05)
        assert store.write_ohlcv("ethusd.kraken", 60, rows_at(0, 1)) == 1
        with pytest.raises(pk.StoreError, match="another writer holds this market"):
            store.write_ohlcv(FQME, 60, rows_at(0, 2))
    assert store.write_ohlcv(FQME, 60, rows_at(0, 2)) == 1


def test_tables_are_made_once_however_many_write_first(url: str) -> None:
    barrier = threading.Barrier(6)

    def write(number: int) -> int:
        with open_store(url) as store:
            barrier.wait()
            return store.write_ohlcv(f"m{number}.kraken", 60, rows_at(0, 5))

    with ThreadPoolExecutor(6) as crew:
        assert list(crew.map(write, range(6))) == [5] * 6
    with open_store(url) as store:
        assert len(store.series()) == 6


def test_threads_share_a_store_and_few_connections(
    url: str, store: Store, postgres: PostgresServer
) -> None:
    def work(number: int) -> int:
        store.write_ohlcv(FQME, 60, rows_at(number, 1))
        return len(store.read_ohlcv(FQME, 60))

    with ThreadPoolExecutor(20) as crew:
        assert max(crew.map(work, range(60))) == 60
    name = url.rpartition("/")[2]
    count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
    assert 1 <= postgres.execute(count)[0][0] <= CONNECTIONS


def test_a_closed_store_lets_go_of_its_connections_and_says_so(
    url: str, postgres: PostgresServer
) -> None:
    store = open_store(url)
    store.write_ohlcv(FQME, 60, rows_at(0, 1))
    store.close()
    store.close()
    with pytest.raises(pk.StoreError, match="is closed"):
        store.read_ohlcv(FQME, 60)
    postgres.execute(f"DROP DATABASE {url.rpartition('/')[2]}")


# TimescaleDB


def hypertables(postgres: PostgresServer, url: str) -> int:
    known = "SELECT to_regclass('_timescaledb_catalog.hypertable') IS NOT NULL"
    if postgres.execute(known, url=url) == [(False,)]:
        return 0
    count = "SELECT count(*) FROM _timescaledb_catalog.hypertable"
    return int(postgres.execute(count, url=url)[0][0])


def test_rows_are_in_a_hypertable_where_the_server_has_loaded_timescaledb(
    store: Store, url: str, postgres: PostgresServer
) -> None:
    if not postgres.hypertables:
        pytest.skip("the server has no TimescaleDB: set PIKER_POSTGRES_BIN to one's")
    store.write_ohlcv(FQME, 60, rows_at(0, 100_000))
    assert hypertables(postgres, url) == 1
    assert store.write_ohlcv(FQME, 60, rows_at(50_000, 10, price=1.0)) == 10
    assert len(store.read_ohlcv(FQME, 60)) == 100_000


def test_without_timescaledb_rows_are_in_a_plain_table(
    store: Store,
    url: str,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if postgres.hypertables:
        monkeypatch.setattr(postgres_tables, "_HAS_TIMESCALE", "SELECT false")
    store.write_ohlcv(FQME, 60, rows_at(0, 10))
    assert hypertables(postgres, url) == 0
    assert len(store.read_ohlcv(FQME, 60)) == 10


def test_an_extension_that_cannot_be_created_is_done_without(
    store: Store,
    url: str,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offered = "SELECT true"  # whether or not it is: its name is wrong here
    monkeypatch.setattr(postgres_tables, "_HAS_TIMESCALE", offered)
    monkeypatch.setattr(postgres_tables, "_EXTENSION", "CREATE EXTENSION nosuch")
    assert store.write_ohlcv(FQME, 60, rows_at(0, 10)) == 10
    assert hypertables(postgres, url) == 0
    assert len(store.read_ohlcv(FQME, 60)) == 10


# What is told


def told(work: Callable[[], object]) -> str:
    """The sentence that a call ends with: one line, without the password."""
    with pytest.raises(pk.StoreError) as caught:
        work()
    text = str(caught.value)
    assert PASSWORD not in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("127.0.0.1", "nowhere.invalid", "check the host's name"),
        (":{port}/", ":1/", "Connection refused: is PostgreSQL running there?"),
        (f":{PASSWORD}@", f":{PASSWORD}x@", "password authentication failed"),
        ("/postgres", "/nosuch", 'database "nosuch" does not exist: create it'),
        ("//piker:", "//stranger:", 'failed for user "stranger": check user and'),
        ("/postgres", "/postgres?nonsense=1", "is no URL of PostgreSQL"),
        (":{port}/", ":many/", 'invalid integer value "many"'),
    ],
)
def test_what_cannot_be_opened_is_told_in_one_sentence(
    postgres: PostgresServer, old: str, new: str, words: str
) -> None:
    part = old.format(port=postgres.port)
    assert part in postgres.url()
    wrong = postgres.url().replace(part, new)
    assert words in told(lambda: open_store(wrong))


def test_a_missing_psycopg_is_told_with_the_extra_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("piker_core.store.p")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    text = told(lambda: open_store(f"postgresql://me:{PASSWORD}@localhost/none"))
    assert "pip install 'piker-core[postgres]'" in text


def test_who_may_only_read_reads_and_is_told_of_missing_rights(
    store: Store, url: str, postgres: PostgresServer
) -> None:
    store.write_ohlcv(FQME, 60, rows_at(0, 10))
    name = "reader_" + url.rpartition("/")[2]
    postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    theirs = url.replace("//piker:", f"//{name}:")
    with open_store(theirs) as other:
        text = told(lambda: other.read_ohlcv(FQME, 60))
        assert "permission denied" in text and "docs/postgres.md" in text
        for right in ("USAGE ON SCHEMA piker", "SELECT ON ALL TABLES IN SCHEMA piker"):
            postgres.execute(f"GRANT {right} TO {name}", url=url)
        assert words(other.read_ohlcv(FQME, 60)) == words(rows_at(0, 10))
        assert len(other.series()) == 1
        assert len(other.gaps(FQME, 60)) == 0
        for work in (
            lambda: other.write_ohlcv(FQME, 60, rows_at(0, 20)),
            lambda: other.delete(FQME, 60),
        ):
            assert "permission denied" in told(work)
    assert len(store.read_ohlcv(FQME, 60)) == 10


def test_a_schema_of_ones_own_is_right_enough(
    url: str, postgres: PostgresServer
) -> None:
    name = "writer_" + url.rpartition("/")[2]
    postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    theirs = url.replace("//piker:", f"//{name}:")
    with open_store(theirs) as store:
        text = told(lambda: store.write_ohlcv(FQME, 60, rows_at(0, 10)))
        assert "permission denied for database" in text and "docs/postgres.md" in text
        postgres.execute(f"CREATE SCHEMA piker AUTHORIZATION {name}", url=url)
        assert store.write_ohlcv(FQME, 60, rows_at(0, 10)) == 10
        assert store.delete(FQME, 60) == 10


def test_tables_of_another_version_are_neither_read_nor_written(
    store: Store, url: str, postgres: PostgresServer
) -> None:
    store.write_ohlcv(FQME, 60, rows_at(0, 10))
    postgres.execute("UPDATE piker.version SET version = 2", url=url)
    with open_store(url) as later:
        for work in (
            lambda: later.read_ohlcv(FQME, 60),
            lambda: later.write_ohlcv(FQME, 60, rows_at(0, 1)),
            later.series,
        ):
            assert "tables of version 2" in told(work)
