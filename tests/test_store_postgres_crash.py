"""The store in PostgreSQL while servers are killed and connections are cut."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest

import piker_core as pk
from piker_core.store import Store, open_store
from piker_core.store.postgres_links import Links
from tests.postgres_server import PASSWORD, PostgresServer
from tests.test_store_postgres import FQME, START_S, rows_at, told, words

BATCH = 500


class CutLine:
    """A line to a server that is cut after so many bytes to it; 0: never."""

    def __init__(self, port: int) -> None:
        self.cut_after = 0
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                ours = self._listener.accept()[0]
            except OSError:
                return  # closed
            theirs = socket.create_connection(self._server)
            for ends in ((ours, theirs, True), (theirs, ours, False)):
                self._threads.append(threading.Thread(target=self._pass, args=ends))
                self._threads[-1].start()

    def _pass(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        sent = 0
        with source:
            while chunk := _received(source):
                sent += len(chunk)
                if up and self.cut_after and sent > self.cut_after:
                    break
                try:
                    sink.sendall(chunk)
                except OSError:
                    break
            for end in (source, sink):
                _shut(end)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other direction did


class Writing:
    """A thread that writes batches until the store fails, and what it was told."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.acknowledged = 0
        self.error: pk.StoreError | None = None
        self._told = threading.Condition()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        try:
            while True:
                start = self.acknowledged * BATCH
                self.store.write_ohlcv(FQME, 60, rows_at(start, BATCH))
                with self._told:
                    self.acknowledged += 1
                    self._told.notify_all()
        except pk.StoreError as error:
            self.error = error

    def wait(self, batches: int) -> None:
        """Until so many batches are acknowledged."""
        with self._told:
            assert self._told.wait_for(lambda: self.acknowledged >= batches, 60)

    def join(self) -> None:
        self._thread.join()


@contextmanager
def running_again(server: PostgresServer) -> Iterator[None]:
    """Whatever happens in the block, the server runs after it: others need it."""
    try:
        yield
    finally:
        server.kill()
        server.start()


@pytest.mark.parametrize("batches", [1, 4, 9])
def test_a_server_killed_while_it_writes_keeps_whole_acknowledged_batches(
    postgres: PostgresServer, batches: int
) -> None:
    with open_store(postgres.new_database()) as store:
        writing = Writing(store)
        with running_again(postgres):
            writing.wait(batches)
            postgres.kill()
            writing.join()
        assert writing.error is not None
        assert "was lost" in str(writing.error) or "cannot be opened" in str(
            writing.error
        )
        kept = store.read_ohlcv(FQME, 60)
        assert len(kept) % BATCH == 0
        # A batch may have been written without anyone having been told.
        assert len(kept) // BATCH in (writing.acknowledged, writing.acknowledged + 1)
        expected = [rows_at(n, BATCH) for n in range(0, len(kept), BATCH)]
        assert words(kept) == words(np.concatenate(expected))
        assert store.write_ohlcv(FQME, 60, rows_at(len(kept), 5)) == 5


def test_of_a_connection_cut_while_it_copies_nothing_is_written(
    postgres: PostgresServer,
) -> None:
    url = postgres.new_database()
    with closing(CutLine(postgres.port)) as line:
        through = url.replace(f":{postgres.port}/", f":{line.port}/")
        with open_store(through) as store:
            store.write_ohlcv(FQME, 60, rows_at(0, 10))
            line.cut_after = 2_000_000
            with pytest.raises(pk.StoreError, match=r"was lost: .*; try again") as lost:
                store.write_ohlcv(FQME, 60, rows_at(5, 100_000, price=200.0))
            assert PASSWORD not in str(lost.value)
            line.cut_after = 0
            assert words(store.read_ohlcv(FQME, 60)) == words(rows_at(0, 10))
            assert store.write_ohlcv(FQME, 60, rows_at(5, 10, price=200.0)) == 10


def test_after_a_restart_one_call_says_so_and_the_next_works(
    postgres: PostgresServer,
) -> None:
    with open_store(postgres.new_database()) as store:
        store.write_ohlcv(FQME, 60, rows_at(0, 10))
        with running_again(postgres):
            postgres.stop()
        text = told(lambda: store.read_ohlcv(FQME, 60))
        assert "was lost: terminating connection" in text
        assert (
            words(store.read_ohlcv(FQME, 60, START_S + 60)) == words(rows_at(0, 10))[1:]
        )


def test_a_server_that_is_away_is_told_and_found_again(
    postgres: PostgresServer,
) -> None:
    with open_store(postgres.new_database()) as store:
        store.write_ohlcv(FQME, 60, rows_at(0, 10))
        with running_again(postgres):
            postgres.stop()
            assert "was lost" in told(lambda: store.series())
            for _ in range(3):
                assert "is PostgreSQL running there?" in told(lambda: store.series())
        assert len(store.series()) == 1


def test_one_lost_connection_lets_go_of_all_that_lie_idle(
    postgres: PostgresServer,
) -> None:
    links = Links(postgres.new_database())
    with closing(links):
        with links.borrow(), links.borrow(), links.borrow():
            pass
        with running_again(postgres):
            postgres.stop()
        with pytest.raises(pk.StoreError), links.borrow() as link:
            link.execute("SELECT 1")
        for _ in range(3):
            with links.borrow() as link:
                assert link.execute("SELECT 1").fetchall() == [(1,)]
