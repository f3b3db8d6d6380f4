"""Back-fill of a store: what it lacks is fetched, once, and nothing is lost."""

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

import piker_core as pk
from piker_core.backfill import Filled, fill, fill_store, missing_spans, open_history
from piker_core.dtypes import BarFlag
from piker_core.fetch import Pace
from piker_core.store import open_store
from tests.history_book import Book
from tests.memory_store import MemoryStore

FQME = "xbtusd.kraken"
END = 1_700_000_400
HOUR, DAY, NS = 3600, 86400, 1_000_000_000


async def filled_by(
    book: Book, store: Any, start_s: int, end_s: int | None = END
) -> Filled:
    return await fill(
        book.get_ohlc,
        store,
        FQME,
        period=book.period,
        start_s=start_s,
        end_s=end_s,
        pace=Pace(3, 100.0),
    )


def told(rows: Any) -> Any:
    """What rows say, the ring's own matters aside."""
    plain = rows.copy()
    plain["index"], plain["flags"] = 0, 0
    return plain.tolist()


async def test_an_empty_store_is_filled_exactly(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book, store = Book(END - 1000), MemoryStore()
    book.holes = [(END - 700, END - 600)]
    filled = await filled_by(book, store, END - 5000)
    assert told(store.read_ohlcv(FQME, 1)) == told(book.rows(0, END))
    assert filled.rows == filled.changed == 900
    assert filled.holes == [(END - 5000, END - 1000), (END - 700, END - 600)]
    assert filled.begins_s == END - 1000
    assert filled.covered_s == filled.wanted_s == 5000
    assert filled.requests == len(book.asked)


async def test_what_is_in_the_store_is_not_asked_for_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book, store = Book(0), MemoryStore()
    store.write_ohlcv(FQME, 1, book.rows(END - 900, END - 600))
    store.write_ohlcv(FQME, 1, book.rows(END - 500, END - 20))
    filled = await filled_by(book, store, END - 1000)
    assert sorted(book.asked) == [
        (END - 1000, END - 900),
        (END - 600, END - 500),
        (END - 20, END),
    ]
    assert filled.rows == filled.wanted_s == 220 and not filled.holes
    await filled_by(book, store, END - 1000)
    assert len(book.asked) == 3


@pytest.mark.parametrize("flag", [BarFlag.PARTIAL, BarFlag.SYNTHETIC_GAP])
async def test_rows_that_do_not_know_all_are_asked_for(
    autojump_clock: trio.testing.MockClock, flag: BarFlag
) -> None:
    book, store = Book(0), MemoryStore()
    rows = book.rows(END - 100, END)
    rows["flags"][40:42] = int(flag)
    rows["close"][40:42] = 1.0
    store.write_ohlcv(FQME, 1, rows)
    filled = await filled_by(book, store, END - 100)
    assert book.asked == [(END - 60, END - 58)] and filled.changed == 2
    assert told(store.read_ohlcv(FQME, 1)) == told(book.rows(END - 100, END))


async def test_a_back_fill_that_was_cancelled_goes_on_where_it_stopped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    autojump_clock.autojump_threshold = 0.02  # not while a thread reads or writes
    book, store = Book(0), MemoryStore()
    rows = 0
    for _ in range(1000):
        with trio.move_on_after(0.4) as scope:
            await filled_by(book, store, END - 5000)
        kept = store.read_ohlcv(FQME, 1)
        assert len(kept) >= rows
        rows = len(kept)
        if not scope.cancelled_caught:
            break
    else:
        raise AssertionError("it never ended")
    assert told(store.read_ohlcv(FQME, 1)) == told(book.rows(END - 5000, END))
    written = np.concatenate([batch["time"] for _, _, batch in store.writes])
    assert len(written) == len(set(written.tolist())) == 5000


async def test_a_full_disk_ends_it_and_the_next_run_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book, store = Book(0), MemoryStore()
    await filled_by(book, store, END - 300)
    store.errors = [pk.StoreError("the disk is full")]
    with pytest.raises(pk.StoreError, match="full"):
        await filled_by(book, store, END - 5000)
    assert len(store.read_ohlcv(FQME, 1)) >= 300
    await filled_by(book, store, END - 5000)
    assert told(store.read_ohlcv(FQME, 1)) == told(book.rows(END - 5000, END))


async def test_the_forming_row_is_never_stored(
    autojump_clock: trio.testing.MockClock,
) -> None:
    now_s = int(time.time())
    book, store = Book(0, period=60, manner="wide"), MemoryStore()
    await filled_by(book, store, now_s - 7200, None)
    await filled_by(book, store, now_s - 7200, now_s + 7200)
    newest_s = int(store.read_ohlcv(FQME, 60)["time"][-1])
    assert newest_s <= int(time.time()) - 60
    assert all(end_s <= time.time() for _, end_s in book.asked)


@pytest.mark.parametrize("period", [1, 60])
async def test_holes_a_listing_and_throttles_leave_an_exact_series_on_disk(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, period: int
) -> None:
    since_s = END - (9 * DAY if period == 60 else 6 * HOUR)
    book = Book(since_s, period=period, most=720)
    nap = (END - 5 * HOUR, END - 2 * HOUR)
    weekend = (END - 4 * DAY, END - 2 * DAY)
    book.holes = [nap, weekend]
    book.errors = [pk.DataThrottle("slow down", retry_after=20.0), pk.NoData("none")]
    true = book.rows(0, END)
    with open_store(f"parquet://{tmp_path}") as store:
        for _ in range(2):
            await filled_by(book, store, since_s - DAY)
        assert told(store.read_ohlcv(FQME, period)) == told(true)
        gaps = [(g // NS, e // NS) for g, e in store.gaps(FQME, period).tolist()]
    assert gaps == ([weekend, nap] if period == 60 else [nap])
    assert len(book.asked) < 200


async def test_a_sparse_series_does_not_take_a_request_for_each_hole(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piker_core.backfill.READ_ROWS", 130)
    book, store = Book(0), MemoryStore()
    book.holes = [(END - n, END - n + 2) for n in range(3, 3000, 5)]
    await filled_by(book, store, END - 3000)
    assert told(store.read_ohlcv(FQME, 1)) == told(book.rows(END - 3000, END))
    stored = store.read_ohlcv(FQME, 1)
    stored["close"] = 7.0
    store.write_ohlcv(FQME, 1, stored)
    store.writes.clear()
    book.asked.clear()
    filled = await filled_by(book, store, END - 3000)
    assert not store.writes and len(book.asked) < 60
    assert len(filled.holes) == 600


async def test_progress_is_told_and_adds_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book, store = Book(0), MemoryStore()
    seen: list[tuple[int, int]] = []
    await fill(
        book.get_ohlc,
        store,
        FQME,
        period=1,
        start_s=END - 1500,
        end_s=END,
        pace=Pace(3, 100.0),
        tell=lambda now: seen.append((now.covered_s, now.rows)),
    )
    assert len(seen) > 3 and seen == sorted(seen) and seen[-1] == (1500, 1500)


async def test_the_provider_of_a_market_is_found_by_its_name(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, store = Book(0), MemoryStore()
    venue = ModuleType("bookish")

    @asynccontextmanager
    async def open_history_client(symbol: str) -> AsyncIterator[Any]:
        assert symbol == "abc"
        yield book.get_ohlc, {"erlangs": 2, "rate": 50}

    venue.open_history_client = open_history_client  # type: ignore[attr-defined]
    venue.stream_quotes = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bookish", venue)
    await fill_store(store, "abc.bookish", 1, start_s=END - 1500, end_s=END)
    assert len(store.read_ohlcv("abc.bookish", 1)) == 1500
    assert book.most_running == 2
    del venue.open_history_client
    with pytest.raises(pk.PikerError, match="bookish has no history"):
        await fill_store(store, "abc.bookish", 1, start_s=0)


def test_missing_spans_are_what_lies_between_the_rows() -> None:
    book = Book(0, period=60)
    book.holes = [(6000, 6060), (6600, 7200)]
    rows = book.rows(3000, 9000)
    assert missing_spans(rows, 60, 600, 12000) == [
        (600, 3000),
        (6000, 6060),
        (6600, 7200),
        (9000, 12000),
    ]
    assert missing_spans(rows, 60, 3600, 5400) == []
    assert missing_spans(rows[:0], 60, 600, 1200) == [(600, 1200)]
    assert missing_spans(rows, 60, 600, 600) == []


async def test_a_throttle_while_the_market_is_looked_for_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    refusals = [pk.DataThrottle("too many", retry_after=30.0)] * 2

    @asynccontextmanager
    async def open_history_client(symbol: str) -> AsyncIterator[tuple[Any, Any]]:
        if refusals:
            raise refusals.pop()
        yield Book(0).get_ohlc, {"erlangs": 1, "rate": 1}

    provider = SimpleNamespace(open_history_client=open_history_client)
    async with open_history(provider, "xbtusd") as (_, limits):  # type: ignore[arg-type]
        assert limits["rate"] == 1
    assert not refusals and trio.current_time() >= 60.0
