"""Back-fill into a ring, several frames at once, of a venue and a store."""

import time
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

import piker_core as pk
from piker_core.dtypes import BarFlag
from piker_core.fetch import Pace
from piker_core.history import backfill
from piker_core.keeper import RingKeeper
from tests.history_book import Book
from tests.memory_store import MemoryStore

FQME = "xbtusd.kraken"
NS = 1_000_000_000
BACKFILLED = int(BarFlag.BACKFILLED)


class Fed:
    """A live market with one trade, and what its ring has below that."""

    def __init__(self, engine: Any, *, capacity: int = 20_000) -> None:
        self.now_s = int(time.time())
        self.market = engine.add_market(FQME, periods=(1,), capacity={1: capacity})
        self.market.set_status("live", since_ns=self.now_s * NS)
        engine.push_trade(self.market, self.now_s * NS, 50.0, 1.0, id=1)
        self.engine = engine

    async def fill(self, book: Any, rows_back: int, store: Any = None) -> Any:
        """The rows below the live one, after a back-fill."""
        get_ohlc = getattr(book, "get_ohlc", book)
        pace = Pace(4, 1000.0)
        await backfill(get_ohlc, self.market, 1, rows_back, pace, store=store)
        with pk.attach_bars(FQME) as bars:
            rows = bars.snapshot(bars.capacity)
        assert rows["time"][-1] == self.now_s
        assert (rows["flags"][:-1] & BACKFILLED).all()
        return plain(rows[:-1])


def plain(rows: Any) -> Any:
    own = rows.copy()
    own["index"] = 0
    own["flags"] &= ~BACKFILLED
    return own


def open_engine() -> Any:
    return pk.open_engine("kraken", tick_capacity=64)


@pytest.mark.parametrize("manner", ["plain", "short", "wide", "twice", "disordered"])
async def test_frames_that_come_in_any_order_are_stitched_without_holes(
    namespace: str, autojump_clock: trio.testing.MockClock, manner: str
) -> None:
    book = Book(0, manner=manner, seed=4)
    with open_engine() as engine:
        fed = Fed(engine)
        rows = await fed.fill(book, 5000)
        true = book.rows(int(rows["time"][0]), fed.now_s)
    assert rows.tolist() == true.tolist() and len(rows) >= 4998
    assert book.most_running > 1


async def test_the_store_comes_first_and_the_venue_fills_its_holes(
    namespace: str, autojump_clock: trio.testing.MockClock
) -> None:
    book, store = Book(0), MemoryStore()
    with open_engine() as engine:
        fed = Fed(engine)
        now_s = fed.now_s
        for start_s, end_s in ((4000, 3000), (2000, 1500), (1400, 10)):
            stored = book.rows(now_s - start_s, now_s - end_s)
            store.write_ohlcv(FQME, 1, stored)
        rows = await fed.fill(book, 3900, store)
    assert rows.tolist() == book.rows(int(rows["time"][0]), now_s).tolist()
    assert len(rows) >= 3898
    for start_s, end_s in book.asked:
        middle_s = now_s - (start_s + end_s) // 2
        assert middle_s <= 10 or 1400 <= middle_s <= 1500 or 2000 <= middle_s <= 3000


async def test_rows_that_do_not_know_all_stand_where_the_venue_has_none(
    namespace: str, autojump_clock: trio.testing.MockClock
) -> None:
    book, store = Book(0), MemoryStore()
    with open_engine() as engine:
        fed = Fed(engine)
        stored = book.rows(fed.now_s - 500, fed.now_s - 10)
        stored["flags"][100:110] = int(BarFlag.PARTIAL)
        stored["close"][100:110] = 1.0
        store.write_ohlcv(FQME, 1, stored)
        low_s = int(stored["time"][100])
        book.holes = [(low_s, low_s + 5)]
        rows = await fed.fill(book, 500, store)
    at = np.searchsorted(rows["time"], low_s)
    assert (np.diff(rows["time"]) == 1).all()
    assert rows["close"][at : at + 5].tolist() == [1.0] * 5
    exact = book.rows(low_s + 5, low_s + 10)
    assert rows[at + 5 : at + 10].tolist() == exact.tolist()


async def test_stored_rows_between_small_holes_are_those_of_the_ring(
    namespace: str, autojump_clock: trio.testing.MockClock
) -> None:
    book, store = Book(0), MemoryStore()
    with open_engine() as engine:
        fed = Fed(engine)
        stored = book.rows(fed.now_s - 1000, fed.now_s)
        stored["close"] = 7.0
        kept = stored[stored["time"] % 5 > 1]
        store.write_ohlcv(FQME, 1, kept)
        rows = await fed.fill(book, 990, store)
    assert (np.diff(rows["time"]) == 1).all() and len(book.asked) < 30
    assert (rows["close"][rows["time"] % 5 > 1] == 7.0).all()
    true = book.rows(int(rows["time"][0]), fed.now_s)
    lost = rows["time"] % 5 <= 1
    assert rows[lost].tolist() == true[lost].tolist()


async def test_a_venue_that_fails_in_the_middle_leaves_what_is_known(
    namespace: str, autojump_clock: trio.testing.MockClock
) -> None:
    book, store = Book(0), MemoryStore()

    async def failing(*args: Any, end_dt: Any, **more: Any) -> Any:
        if end_dt.timestamp() < fed.now_s - 1000:
            raise pk.ProviderError("HTTP 502")
        return await book.get_ohlc(*args, end_dt=end_dt, **more)

    with open_engine() as engine:
        fed = Fed(engine)
        old = book.rows(fed.now_s - 3000, fed.now_s - 2000)
        store.write_ohlcv(FQME, 1, old)
        rows = await fed.fill(failing, 3000, store)
    known = rows["time"] < fed.now_s - 2000
    assert rows[known].tolist() == old[old["time"] >= rows["time"][0]].tolist()
    newer = rows[~known]
    true = book.rows(int(newer["time"][0]), fed.now_s)
    assert newer.tolist() == true.tolist() and len(newer) >= 1000


async def test_a_full_ring_ends_it(
    namespace: str, autojump_clock: trio.testing.MockClock
) -> None:
    book = Book(0)
    with open_engine() as engine:
        fed = Fed(engine, capacity=1000)
        rows = await fed.fill(book, 100_000)
        capacity = fed.market.bars[1].capacity
    assert len(rows) == capacity - 1 and (np.diff(rows["time"]) == 1).all()
    assert len(book.asked) < 100


async def test_rows_that_came_from_the_store_are_not_written_to_it(
    namespace: str, autojump_clock: trio.testing.MockClock
) -> None:
    book, store = Book(0), MemoryStore()
    with open_engine() as engine:
        fed = Fed(engine)
        store.write_ohlcv(FQME, 1, book.rows(fed.now_s - 2000, fed.now_s))
        await fed.fill(book, 1900, store)
        store.writes.clear()
        with pk.attach_bars(FQME) as bars:
            RingKeeper(store, bars).keep()
    times = [int(t) for _, _, rows in store.writes for t in rows["time"]]
    assert times in ([], [fed.now_s])


async def test_a_store_that_cannot_be_read_is_done_without(
    namespace: str, autojump_clock: trio.testing.MockClock
) -> None:
    book = Book(0)

    class Broken(MemoryStore):
        def read_ohlcv(self, *_: Any) -> Any:
            raise pk.StoreError("the server is gone")

    with open_engine() as engine:
        rows = await Fed(engine).fill(book, 300, Broken())
    assert len(rows) >= 299


@pytest.mark.parametrize("rows_back", [600, 3000])
async def test_no_span_is_asked_for_twice_where_there_is_nothing(
    namespace: str, autojump_clock: trio.testing.MockClock, rows_back: int
) -> None:
    book = Book(0)
    with open_engine() as engine:
        fed = Fed(engine)
        book.holes = [(fed.now_s - 450, fed.now_s + 9)]
        rows = await fed.fill(book, rows_back)
    true = book.rows(int(rows["time"][0]), fed.now_s)
    assert rows.tolist() == true.tolist() and len(rows) >= rows_back - 452
    assert len(set(book.asked)) == len(book.asked)
