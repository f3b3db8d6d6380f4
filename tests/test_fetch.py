"""Frames of history: a venue's pace, the spans that are asked for, what answers say."""

import itertools
import time
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

import piker_core as pk
from piker_core.fetch import TRIES, Fetch, Pace, Plan, Span, final_rows
from tests.history_book import Book

HOUR, DAY = 3600, 86400
END = 1_700_000_400
"""A whole hour."""


class Taken:
    """What a fetch hands over, and whether the spans fit together."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []
        self.parts: list[Any] = []

    async def take(self, rows: Any, start_s: int, end_s: int) -> None:
        assert start_s < end_s
        assert not len(rows) or start_s <= rows["time"][0] <= rows["time"][-1] < end_s
        self.spans.append((start_s, end_s))
        self.parts.append(rows)

    def rows(self) -> Any:
        """All rows; the spans that they are of lie side by side."""
        spans = sorted(self.spans)
        for before, after in itertools.pairwise(spans):
            assert before[1] == after[0]
        together = np.concatenate(self.parts)
        return together[np.argsort(together["time"], kind="stable")]


async def fetched(book: Book, pace: Pace, start_s: int, end_s: int) -> Any:
    taken = Taken()
    fetch = Fetch(book.get_ohlc, book.period, pace, name="x.y")
    await fetch.run([Span(start_s, end_s)], taken.take)
    rows = taken.rows()
    assert (min(taken.spans)[0], max(taken.spans)[1]) == (start_s, end_s)
    return rows


def most_a_second(times_s: list[float]) -> int:
    """The most of these that lie within one second."""
    ordered = sorted(times_s)
    return max(sum(1 for t in ordered if s <= t < s + 1.0) for s in ordered)


@pytest.mark.parametrize("manner", ["plain", "short", "wide", "twice", "disordered"])
@pytest.mark.parametrize("heeds_start", [True, False])
async def test_whatever_way_a_venue_answers_the_rows_are_exact(
    autojump_clock: trio.testing.MockClock, manner: str, heeds_start: bool
) -> None:
    book = Book(0, manner=manner, heeds_start=heeds_start, seed=len(manner))
    book.holes = [(END - 2000, END - 1990), (END - 1000, END - 400)]
    rows = await fetched(book, Pace(3, 100.0), END - 3000, END)
    assert rows.tolist() == book.rows(END - 3000, END).tolist()


@pytest.mark.parametrize(
    ("period", "hole_s", "most"),
    [(1, 3 * HOUR, 1000), (60, 3 * HOUR, 720), (60, 2 * DAY, 720), (60, 60, 720)],
)
async def test_a_hole_of_minutes_hours_or_days_is_stepped_over(
    autojump_clock: trio.testing.MockClock, period: int, hole_s: int, most: int
) -> None:
    start_s = END - 5 * DAY if period == 60 else END - 6 * HOUR
    book = Book(0, period=period, most=most)
    book.holes = [(END - hole_s - HOUR, END - HOUR)]
    rows = await fetched(book, Pace(3, 10.0), start_s, END)
    assert rows.tolist() == book.rows(start_s, END).tolist()
    assert len(set(book.asked)) == len(book.asked)


async def test_empty_answers_are_believed_no_farther_than_answers_reach(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book = Book(0, most=150, heeds_start=False)
    book.holes = [(END - 900, END)]
    rows = await fetched(book, Pace(1, 100.0), END - 1000, END)
    assert rows.tolist() == book.rows(END - 1000, END).tolist()


async def test_it_ends_where_the_venue_has_nothing_older(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book, taken = Book(END - 1234), Taken()
    fetch = Fetch(book.get_ohlc, 1, Pace(3, 100.0), name="x.y")
    await fetch.run([Span(END - DAY, END - 3000), Span(END - 3000, END)], taken.take)
    assert taken.rows()["time"].tolist() == list(range(END - 1234, END))
    assert fetch.begins_s is not None and fetch.begins_s <= END - 1234
    assert fetch.requests < 40


async def test_several_frames_are_under_way_and_never_more_than_allowed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book, other = Book(0), Book(0, period=60, most=50)
    book.delay_s = other.delay_s = 1.0
    pace = Pace(4, 5.0)
    running: list[int] = []

    async def count() -> None:
        while True:
            running.append(book.running + other.running)
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        async with trio.open_nursery() as both:
            both.start_soon(fetched, book, pace, END - 5000, END)
            both.start_soon(fetched, other, pace, END - DAY, END)
        nursery.cancel_scope.cancel()
    assert max(running) == 4
    assert most_a_second(book.begun_s + other.begun_s) <= 5
    assert book.most_running > 1 and other.most_running > 1


async def test_the_rate_is_used_up_where_requests_are_quick(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book = Book(0)
    book.delay_s = 0.0
    await fetched(book, Pace(2, 10.0), END - 5000, END)
    assert most_a_second(book.begun_s) == 10
    assert book.begun_s[-1] - book.begun_s[0] < (len(book.begun_s) - 1) / 10 + 0.01


async def test_a_throttle_stops_everybody_who_shares_the_pace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book, other = Book(0), Book(0, period=60)
    book.delay_s = other.delay_s = 0.0
    pace = Pace(2, 100.0)
    book.errors = [pk.DataThrottle("slow down", retry_after=30.0)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetched, book, pace, END - 500, END)
        await trio.testing.wait_all_tasks_blocked()
        began_s = trio.current_time()
        nursery.start_soon(fetched, other, pace, END - DAY, END)
    assert min(other.begun_s) >= began_s + 29.9
    assert book.begun_s[1] >= book.begun_s[0] + 30.0


async def test_faults_are_tried_again_and_many_in_a_row_end_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book = Book(0)
    book.errors = [pk.ProviderError("HTTP 502") for _ in range(TRIES - 1)]
    assert len(await fetched(book, Pace(1, 10.0), END - 250, END)) == 250
    book.errors = [pk.ProviderError("HTTP 502") for _ in range(100)]
    with pytest.raises(pk.ProviderError, match="502"):
        await fetched(book, Pace(3, 10.0), END - 2500, END)
    assert not book.running


async def test_what_a_store_raises_ends_it_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book = Book(0)
    fetch = Fetch(book.get_ohlc, 1, Pace(4, 100.0), name="x.y")

    async def refuse(rows: Any, start_s: int, end_s: int) -> None:
        await trio.sleep(1.0)
        raise pk.StoreError("the disk is full")

    with pytest.raises(pk.StoreError, match="full"):
        await fetch.run([Span(END - 5000, END)], refuse, frame_rows=100)


async def test_what_has_come_is_taken_before_a_cancellation_ends_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book, taken = Book(0), Taken()
    fetch = Fetch(book.get_ohlc, 1, Pace(3, 100.0), name="x.y")

    async def slowly(rows: Any, start_s: int, end_s: int) -> None:
        await trio.sleep(1.0)
        await taken.take(rows, start_s, end_s)

    with trio.move_on_after(1.5) as scope:
        await fetch.run([Span(END - 5000, END)], slowly, frame_rows=100)
    assert scope.cancelled_caught and len(taken.spans) > 3
    assert trio.current_time() > 1.5 and not book.running


def test_the_forming_row_and_what_lies_ahead_is_left_out() -> None:
    now_s = int(time.time()) // 60 * 60
    book = Book(0, period=60)
    rows = final_rows(book.rows(now_s - 600, now_s + 600), 60, now_s + 600)
    assert rows["time"][-1] <= int(time.time()) // 60 * 60 - 60


def test_rows_of_another_layout_become_ours() -> None:
    names = pk.OHLCV_DTYPE.names or ()
    theirs = Book(0).rows(10, 20)[[n for n in names if n != "flags"][::-1]]
    assert final_rows(theirs, 1, 20).tolist() == Book(0).rows(10, 20).tolist()


def test_times_off_the_period_are_refused() -> None:
    with pytest.raises(pk.ProviderError, match="begins at 11 s"):
        final_rows(Book(0).rows(11, 12), 60, 100)


def test_a_plan_gives_the_newest_frame_first() -> None:
    plan = Plan([Span(0, 5000), Span(9000, 9500)], 1)
    plan.learn(2000)
    spans = []
    while (span := plan.next()) is not None:
        spans.append(tuple(span))
    assert spans == [(9000, 9500), (3000, 5000), (1000, 3000), (0, 1000)]


def test_a_plan_forgets_what_lies_before_the_beginning() -> None:
    plan = Plan([Span(0, 5000), Span(9000, 9500)], 1)
    assert plan.drop_before(3000) == [Span(0, 3000)]
    assert plan.spans == [Span(3000, 5000), Span(9000, 9500)]


async def test_no_request_goes_beyond_what_is_missing_but_one_of_a_long_span(
    autojump_clock: trio.testing.MockClock,
) -> None:
    book, taken = Book(0, most=1500), Taken()
    fetch = Fetch(book.get_ohlc, 1, Pace(3, 100.0), name="x.y")
    spans = [Span(END - 40_000, END - 20_000), Span(END - 5, END)]
    await fetch.run(spans, taken.take)
    assert (END - 5, END) in book.asked
    assert [asked for asked in book.asked if asked[0] is None] == [(None, END - 20_000)]
    longest = max(e - s for s, e in book.asked if s is not None)
    assert longest == 1500 and len(book.asked) == 2 + -(-18_500 // 1500)
