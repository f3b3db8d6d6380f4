"""Back-fill into a ring: stitched below live rows, whatever the venue does."""

import os
import time
from typing import Any

import numpy as np
import pendulum
import pytest
import trio
import trio.testing

import piker_core as pk
from piker_core import fetch, history
from piker_core.fetch import Pace
from piker_core.history import backfill

FQME = "xbtusd.kraken"
NS = 1_000_000_000


class Book:
    """A venue's history: one row a second from `start_s`, at most `most` a frame."""

    def __init__(self, start_s: int, most: int = 100) -> None:
        self.start_s, self.most = start_s, most
        self.holes: list[tuple[int, int]] = []
        self.errors: list[Exception] = []
        self.calls: list[int] = []
        self.behind_s = 0
        self.running = 0
        self.most_running = 0

    def rows(self, start_s: int, end_s: int) -> Any:
        times = [
            second
            for second in range(max(start_s, self.start_s), end_s)
            if not any(low <= second < high for low, high in self.holes)
        ]
        rows = np.zeros(len(times), pk.OHLCV_DTYPE)
        rows["time"] = times
        for field in ("open", "high", "low", "close", "bar_wap"):
            rows[field] = 10.0 + np.array(times, np.int64) % 7
        rows["volume"], rows["count"] = 1.0, 1
        return rows

    async def get_ohlc(
        self, timeframe: float, end_dt: Any = None, start_dt: Any = None
    ) -> Any:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await trio.sleep(0.01)
        self.running -= 1
        end_s = int(end_dt.timestamp()) - self.behind_s
        self.calls.append(end_s)
        if self.errors:
            raise self.errors.pop(0)
        if end_s <= self.start_s:
            raise pk.DataUnavailable("before the listing")
        rows = self.rows(end_s - self.most, end_s)
        if not len(rows):
            raise pk.NoData("nothing there")
        return rows, pendulum.from_timestamp(rows["time"][0]), end_dt


@pytest.fixture
def now_s() -> int:
    return int(time.time())


def fast() -> Pace:
    return Pace(2, 1000.0)


def five_minutes(until_s: float) -> Any:
    """Rows of the newest minutes that are over; in each there was a trade."""
    end_s = int(until_s) // 60 * 60
    rows = np.zeros(5, pk.OHLCV_DTYPE)
    rows["time"] = np.arange(end_s - 300, end_s, 60)
    rows["volume"], rows["count"] = 1.0, 1
    for field in ("open", "high", "low", "close", "bar_wap"):
        rows[field] = 10.0
    return rows


def open_ring(engine: Any, live_s: int | None) -> tuple[Any, Any]:
    market = engine.add_market(FQME, periods=(1,), capacity={1: 5000})
    market.set_status("live", since_ns=(live_s or int(time.time())) * NS)
    if live_s is not None:
        engine.push_trade(market, live_s * NS, 50.0, 1.0, id=1)
    return market, market.bars[1]


async def test_frames_are_stitched_below_the_live_rows(
    namespace: str, now_s: int, autojump_clock: trio.testing.MockClock
) -> None:
    book = Book(now_s - 5000)
    with pk.open_engine("kraken", tick_capacity=64) as engine:
        market, _ring = open_ring(engine, now_s)
        added = await backfill(book.get_ohlc, market, 1, 450, fast())
        with pk.attach_bars(FQME) as bars:
            rows = bars.snapshot(1000)
    assert 449 <= added <= 452 and len(rows) == added + 1
    assert (np.diff(rows["time"]) == 1).all() and rows["time"][-1] == now_s
    assert (rows["flags"][:-1] & int(pk.BarFlag.BACKFILLED)).all()
    assert rows["close"][-1] == 50.0
    assert book.calls == sorted(book.calls, reverse=True)


async def test_an_empty_ring_is_filled_up_to_now(
    namespace: str, now_s: int, autojump_clock: trio.testing.MockClock
) -> None:
    book = Book(now_s - 5000)
    with pk.open_engine("kraken", tick_capacity=64) as engine:
        market, ring = open_ring(engine, None)
        assert await backfill(book.get_ohlc, market, 1, 150, fast()) >= 150
        last_s = ring.times()[1]
        assert last_s == pytest.approx(now_s - 1, abs=2)
        engine.step((last_s + 2) * NS)
        with pk.attach_bars(FQME) as bars:
            rows = bars.snapshot(3)
        assert (np.diff(rows["time"]) == 1).all()
        assert not (rows["flags"] & int(pk.BarFlag.SYNTHETIC_GAP)).any()
        assert rows["close"][-1] == rows["close"][0]
    del market


async def test_a_hole_of_hours_is_stepped_over(
    namespace: str, now_s: int, autojump_clock: trio.testing.MockClock
) -> None:
    book = Book(now_s - 20_000)
    book.holes = [(now_s - 4000, now_s - 200)]
    with pk.open_engine("kraken", tick_capacity=64) as engine:
        market, _ring = open_ring(engine, now_s)
        await backfill(book.get_ohlc, market, 1, 4200, fast())
        with pk.attach_bars(FQME) as bars:
            rows = bars.snapshot(10_000)
    assert rows["time"][0] == pytest.approx(now_s - 4200, abs=2)
    steps = np.diff(rows["time"])
    assert sorted(set(steps.tolist())) == [1, 3801]


async def test_it_ends_at_the_listing(
    namespace: str, now_s: int, autojump_clock: trio.testing.MockClock
) -> None:
    book = Book(now_s - 130)
    with pk.open_engine("kraken", tick_capacity=64) as engine:
        market, _ring = open_ring(engine, now_s)
        assert await backfill(book.get_ohlc, market, 1, 4000, fast()) == 130


async def test_a_throttle_is_waited_for_and_a_fault_tried_again(
    namespace: str, now_s: int, autojump_clock: trio.testing.MockClock
) -> None:
    book = Book(now_s - 5000)
    book.errors = [
        pk.DataThrottle("slow down", retry_after=30.0),
        pk.ProviderError("HTTP 502"),
        pk.ProviderError("HTTP 502"),
    ]
    began = trio.current_time()
    with pk.open_engine("kraken", tick_capacity=64) as engine:
        market, _ring = open_ring(engine, now_s)
        assert await backfill(book.get_ohlc, market, 1, 200, fast()) >= 199
    assert trio.current_time() - began >= 30.0
    assert book.calls[0] == book.calls[3]


async def test_a_venue_that_goes_on_failing_ends_it(
    namespace: str, now_s: int, autojump_clock: trio.testing.MockClock
) -> None:
    book = Book(now_s - 5000)
    book.errors = [pk.ProviderError("HTTP 502")] * 100
    with pk.open_engine("kraken", tick_capacity=64) as engine:
        market, _ring = open_ring(engine, now_s)
        assert await backfill(book.get_ohlc, market, 1, 200, fast()) == 0
    assert len(book.calls) == fetch.TRIES


async def test_seconds_between_history_and_the_first_live_row_are_flat(
    namespace: str, now_s: int, autojump_clock: trio.testing.MockClock
) -> None:
    book = Book(now_s - 5000)
    with pk.open_engine("kraken", tick_capacity=64) as engine:
        market, _ring = open_ring(engine, None)

        async def late_trade(*args: Any, **kwargs: Any) -> Any:
            rows, start_dt, end_dt = await book.get_ohlc(*args, **kwargs)
            if len(book.calls) == 1:  # the first live trade comes while we wait
                engine.push_trade(market, (now_s + 4) * NS, 50.0, 1.0, id=1)
            return rows[rows["time"] <= now_s], start_dt, end_dt

        await backfill(late_trade, market, 1, 90, fast())
        with pk.attach_bars(FQME) as bars:
            rows = bars.snapshot(1000)
    assert (np.diff(rows["time"]) == 1).all() and rows["time"][-1] == now_s + 4
    flat = rows[:-1][rows["time"][:-1] > now_s]
    assert len(flat) >= 2
    assert not flat["count"].any() and len(set(flat["close"].tolist())) == 1


async def test_a_minute_that_ended_while_the_feed_opened_is_not_taken_for_flat(
    namespace: str,
    now_s: int,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    minute = now_s // 60 * 60 - 120
    clock = [minute + 59.5]
    monkeypatch.setattr("piker_core.history.time.time", lambda: clock[0])
    with pk.open_engine("kraken", tick_capacity=64) as engine:
        market = engine.add_market(FQME, periods=(60,), capacity={60: 500})

        async def get_ohlc(timeframe: float, end_dt: Any, **_: Any) -> Any:
            rows = five_minutes(min(end_dt.timestamp(), clock[0]))
            if clock[0] < minute + 60:  # the next minute begins, and trades
                clock[0] = minute + 60.2
                market.set_status("live", since_ns=(minute + 60) * NS)
                engine.push_trade(market, (minute + 60) * NS, 50.0, 1.0, id=1)
            return rows, None, None

        await backfill(get_ohlc, market, 60, 5, fast())
        with pk.attach_bars(FQME, period=60) as bars:
            rows = bars.snapshot(3)
    assert rows["time"].tolist() == [minute - 60, minute, minute + 60]
    assert rows["count"].tolist() == [1, 1, 1]


async def test_history_waits_for_a_feed_that_is_slow_to_be_live(
    namespace: str,
    now_s: int,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    minute = now_s // 60 * 60 - 120
    clock = [minute + 58.0]
    monkeypatch.setattr("piker_core.history.time.time", lambda: clock[0])
    with pk.open_engine("kraken", tick_capacity=64) as engine:
        market = engine.add_market(FQME, periods=(60,), capacity={60: 500})
        market.set_status("backfilling")

        async def get_ohlc(timeframe: float, end_dt: Any, **_: Any) -> Any:
            return five_minutes(min(end_dt.timestamp(), clock[0])), None, None

        async with trio.open_nursery() as nursery:
            nursery.start_soon(backfill, get_ohlc, market, 60, 5, fast())
            await trio.sleep(4.0)
            clock[0] = minute + 62.0
            market.set_status("live", since_ns=(minute + 60) * NS)
        engine.step(int((minute + 63) * NS))
        with pk.attach_bars(FQME, period=60) as bars:
            rows = bars.snapshot(3)
    assert rows["time"].tolist() == [minute - 60, minute, minute + 60]
    assert rows["count"].tolist() == [1, 1, 0]
    assert not (rows["flags"] & int(pk.BarFlag.SYNTHETIC_GAP)).any()


async def test_trades_of_the_feeds_own_time_are_not_counted_twice(
    namespace: str, now_s: int, autojump_clock: trio.testing.MockClock
) -> None:
    book = Book(now_s - 500)
    with pk.open_engine("kraken", tick_capacity=64) as engine:
        market = engine.add_market(FQME, periods=(1,), capacity={1: 500})
        market.set_status("live", since_ns=(now_s - 5) * NS)
        await backfill(book.get_ohlc, market, 1, 50, fast())
        engine.push_trade(market, (now_s - 4) * NS, 50.0, 1.0, id=1)
        with pk.attach_bars(FQME) as bars:
            rows = bars.snapshot(3)
    assert rows["time"].tolist() == [now_s - 6, now_s - 5, now_s - 4]
    assert rows["count"].tolist() == [1, 0, 1]


@pytest.mark.parametrize("repaired_after_s", [5.0, 100.0])
async def test_trades_of_a_gap_at_the_start_are_not_counted_twice(
    namespace: str,
    now_s: int,
    autojump_clock: trio.testing.MockClock,
    repaired_after_s: float,
) -> None:
    gap = {"start_ns": (now_s - 9) * NS, "end_ns": (now_s - 5) * NS, "cause": "start"}
    book = Book(now_s - 500)
    with pk.open_engine("kraken", tick_capacity=64) as engine:
        market = engine.add_market(FQME, periods=(1,), capacity={1: 500})
        market.add_gap(**gap)
        market.set_status("live", since_ns=(now_s - 5) * NS)
        engine.push_trade(market, (now_s - 5) * NS, 50.0, 1.0, id=9)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backfill, book.get_ohlc, market, 1, 50, fast())
            await trio.sleep(repaired_after_s)
            engine.push_trade(market, (now_s - 7) * NS, 50.0, 1.0, id=7)
            market.add_gap(**gap, repaired=True)
        with pk.attach_bars(FQME) as bars:
            rows = bars.snapshot(5)
    assert rows["time"].tolist() == [now_s - n for n in (9, 8, 7, 6, 5)]
    in_time = repaired_after_s < history.BEGIN_S
    assert rows["count"].tolist() == ([1] * 5 if in_time else [0, 0, 1, 0, 1])
    assert not (rows["flags"] & int(pk.BarFlag.SYNTHETIC_GAP)).any()


async def test_no_more_requests_run_at_once_or_a_second_than_allowed(
    namespace: str, now_s: int, autojump_clock: trio.testing.MockClock
) -> None:
    book = Book(now_s - 5000, most=20)
    pace = Pace(2, 10.0)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(pace.call, book.get_ohlc, 1, now_s - number)
    assert len(book.calls) == 20 and book.most_running <= 2
    assert trio.current_time() - began >= 1.89


async def test_a_ring_with_history_is_left_alone(
    namespace: str, now_s: int, autojump_clock: trio.testing.MockClock
) -> None:
    book = Book(now_s - 5000)
    with pk.open_engine("kraken", tick_capacity=64) as engine:
        market, _ring = open_ring(engine, now_s)
        await backfill(book.get_ohlc, market, 1, 300, fast())
        calls = len(book.calls)
        await backfill(book.get_ohlc, market, 1, 200, fast())
    assert len(book.calls) == calls
    assert os.environ["PIKER_NAMESPACE"] == namespace
