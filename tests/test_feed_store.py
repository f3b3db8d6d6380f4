"""A feed with a store: it begins with what is there, and leaves what it has seen."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakevenue
import numpy as np
import pytest
import trio

import piker_core as pk
from piker_core.dtypes import BarFlag
from piker_core.store import open_store
from tests.history_book import Book

FQME = "xbtusd.fakevenue"
DAY = 86400
WRITER = """
import sys, trio, piker_core as pk
async def main():
    async with pk.open_feed(sys.argv[1:]) as feed:
        print("open", flush=True)
        await trio.sleep_forever()
trio.run(main)
"""
BACKFILLED = int(BarFlag.BACKFILLED)


@pytest.fixture(autouse=True)
def plan(namespace: str, monkeypatch: pytest.MonkeyPatch) -> fakevenue.Plan:
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    fakevenue.plan.__init__()  # type: ignore[misc]
    return fakevenue.plan


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"parquet://{tmp_path}/store"


class Books:
    """History of 1 s and 60 s at a venue, and what it was asked for."""

    def __init__(self) -> None:
        self.of = {period: Book(0, period=period, most=720) for period in (1, 60)}
        for book in self.of.values():
            book.delay_s = 0.0

    async def get_ohlc(
        self, timeframe: float, end_dt: Any = None, start_dt: Any = None
    ) -> Any:
        return await self.of[int(timeframe)].get_ohlc(timeframe, end_dt, start_dt)

    def asked_s(self, period: int) -> int:
        """Seconds that requests covered, a frame where they had no start."""
        most_s = 720 * period
        asked = self.of[period].asked
        return sum(min(e - (e - most_s if s is None else s), most_s) for s, e in asked)


def put_history(url: str, books: Books, end_s: int) -> None:
    """A day of both periods into a store."""
    with open_store(url) as store:
        for period, book in books.of.items():
            rows = book.rows(end_s - DAY, end_s // period * period)
            store.write_ohlcv(FQME, period, rows)


def plain(rows: Any) -> Any:
    own = rows.copy()
    own["index"] = 0
    own["flags"] &= ~BACKFILLED
    return own.tolist()


async def wait_first(bars: Any, first_s: int) -> None:
    with trio.fail_after(60):
        while not len(bars.between(0, first_s + bars.period)):
            await trio.sleep(0.02)


async def test_a_feed_begins_with_the_store_and_asks_only_for_what_it_lacks(
    plan: fakevenue.Plan, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_FEED__SECONDS_BACK", str(DAY - 3600))
    monkeypatch.setenv("PIKER_FEED__MINUTES_BACK", str(DAY // 60 - 60))
    books = Books()
    plan.history = books.get_ohlc
    stored_s = int(time.time()) // 60 * 60 - 600
    put_history(url, books, stored_s)
    began_s = int(time.time())
    async with pk.open_feed([FQME], store=url) as feed:
        flume = feed.flumes[FQME]
        await wait_first(flume.hist, began_s - DAY + 3660)
        await wait_first(flume.rt, began_s - DAY + 3660)
        missing_s = time.time() - stored_s
        rows = flume.rt.between(began_s - DAY + 3660, stored_s)
        assert (np.diff(flume.rt.snapshot(100_000)["time"]) == 1).all()
    assert plain(rows) == plain(books.of[1].rows(began_s - DAY + 3660, stored_s))
    assert (rows["flags"] & BACKFILLED).all()
    for period, book in books.of.items():
        assert book.asked and books.asked_s(period) <= missing_s + period
        assert all(start is not None and start >= stored_s for start, _ in book.asked)


async def test_what_a_feed_has_seen_is_in_the_store_when_it_has_ended(
    plan: fakevenue.Plan, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_FEED__SECONDS_BACK", "3000")
    books = Books()
    plan.history = books.get_ohlc
    async with pk.open_feed([FQME], store=url) as feed:
        await wait_first(feed.flumes[FQME].rt, int(time.time()) - 2990)
        await trio.sleep(2.5)
    with open_store(url) as store:
        for period in (1, 60):
            with pk.attach_bars(FQME, period=period) as bars:
                ring = bars.snapshot(bars.capacity)
            kept = store.read_ohlcv(FQME, period)
            assert kept.size and plain(kept) == plain(ring[: len(kept)])
            assert len(ring) - len(kept) <= 1
            assert kept["time"][-1] + period <= time.time()
            assert not len(store.gaps(FQME, period))


async def test_a_feed_that_is_opened_again_elsewhere_has_its_history_back(
    plan: fakevenue.Plan, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_FEED__SECONDS_BACK", "2000")
    books = Books()
    plan.history = books.get_ohlc
    async with pk.open_feed([FQME], store=url) as feed:
        await wait_first(feed.flumes[FQME].rt, int(time.time()) - 1990)
        await trio.sleep(2.0)
    with open_store(url) as store:
        kept = store.read_ohlcv(FQME, 1)
    pk.remove_segments(namespace)
    for book in books.of.values():
        book.asked.clear()
    again_s = time.time()
    async with pk.open_feed([FQME], store=url) as feed:
        rt = feed.flumes[FQME].rt
        await wait_first(rt, int(time.time()) - 1950)
        rows = rt.between(int(kept["time"][0]), int(kept["time"][-1]) + 1)
    sure = (kept["flags"] & int(BarFlag.PARTIAL)) == 0
    same = np.isin(rows["time"], kept["time"][sure])
    assert len(rows) > 1900
    assert plain(rows[same]) == plain(kept[np.isin(kept["time"], rows["time"][same])])
    assert books.asked_s(1) <= time.time() - again_s + 10


@pytest.fixture
def writer(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Another process, which feeds the market and keeps its rows."""
    monkeypatch.setenv("PIKER_FEED__STORE", url)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, FQME],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"open\n"
        yield child
        child.kill()
        child.wait()


async def test_what_a_killed_feed_had_not_stored_is_stored_by_who_takes_over(
    writer: Any, url: str
) -> None:
    async with pk.open_feed([FQME]) as feed:
        assert feed.roles == {"fakevenue": "reader"}
        await trio.sleep(2.0)
        writer.kill()
        with trio.fail_after(30):
            while feed.roles != {"fakevenue": "writer"}:
                await trio.sleep(0.05)
        await trio.sleep(1.5)
    with open_store(url) as store, pk.attach_bars(FQME) as bars:
        kept = store.read_ohlcv(FQME, 1)
        ring = bars.snapshot(bars.capacity)
    assert len(kept) >= 3 and plain(kept) == plain(ring[: len(kept)])
    assert len(ring) - len(kept) <= 1


async def test_a_provider_without_history_has_that_of_the_store(
    plan: fakevenue.Plan, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(fakevenue, "open_history_client")
    put_history(url, Books(), int(time.time()) - 100)
    async with pk.open_feed([FQME], store=url) as feed:
        rt = feed.flumes[FQME].rt
        await wait_first(rt, int(time.time()) - 3590)
        assert len(rt.snapshot(10_000)) > 3400


async def test_a_venue_that_fails_leaves_the_history_of_the_store(
    plan: fakevenue.Plan, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piker_core.fetch.TRIES", 1)

    async def failing(*_: Any, **__: Any) -> Any:
        raise pk.ProviderError("HTTP 502")

    plan.history = failing
    put_history(url, Books(), int(time.time()) - 100)
    async with pk.open_feed([FQME], store=url) as feed:
        await wait_first(feed.flumes[FQME].rt, int(time.time()) - 3590)


async def test_the_configuration_names_a_store(
    plan: fakevenue.Plan, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_FEED__STORE", url)
    async with pk.open_feed([FQME]):
        await trio.sleep(2.2)
    with open_store(url) as store:
        assert {series.fqme for series in store.series()} == {FQME}


async def test_a_store_that_cannot_be_opened_is_told_at_once() -> None:
    with pytest.raises(pk.StoreError, match="is no store"):
        async with pk.open_feed([FQME], store="sqlite:///nowhere"):
            raise AssertionError("it opened")
