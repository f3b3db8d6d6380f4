"""A venue's history as a book, and what it can do to who reads it."""

import random
from typing import Any

import numpy as np
import pendulum
import trio

import piker_core as pk


class Book:
    """Rows of one period from `start_s` on, at most `most` in an answer.

    `holes` have no rows. `manner` tells how answers are: `plain`, `short` (often less
    than a frame), `wide` (rows beyond both ends), `twice` (each row, the first time
    with other prices), `disordered`. `heeds_start`: whether a span's start is looked
    at.
    """

    def __init__(
        self,
        start_s: int,
        *,
        period: int = 1,
        most: int = 100,
        manner: str = "plain",
        heeds_start: bool = True,
        seed: int = 0,
    ) -> None:
        self.start_s, self.period, self.most = start_s, period, most
        self.manner, self.heeds_start = manner, heeds_start
        self.holes: list[tuple[int, int]] = []
        self.errors: list[Exception] = []
        self.delay_s = 0.05
        self.asked: list[tuple[int | None, int]] = []
        self.begun_s: list[float] = []
        self.running = self.most_running = 0
        self.random = random.Random(seed)

    def rows(self, start_s: int, end_s: int) -> Any:
        """All rows of a span, as they truly are."""
        period = self.period
        first_s = max(-(-start_s // period) * period, self.start_s)
        times = np.arange(first_s, max(end_s, first_s), period)
        for low, high in self.holes:
            times = times[(times < low) | (high <= times)]
        rows = np.zeros(len(times), pk.OHLCV_DTYPE)
        rows["time"] = times
        for field in ("open", "high", "low", "close", "bar_wap"):
            rows[field] = 10.0 + times * 2_654_435_761 % 1_000_003 / 7
        rows["volume"], rows["count"] = 1.0, 1
        return rows

    async def get_ohlc(
        self, timeframe: float, end_dt: Any = None, start_dt: Any = None
    ) -> Any:
        assert timeframe == self.period
        start_s = None if start_dt is None else int(start_dt.timestamp())
        end_s = int(end_dt.timestamp())
        self.asked.append((start_s, end_s))
        self.begun_s.append(trio.current_time())
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await trio.sleep(self.delay_s * self.random.uniform(0.2, 2.0))
            return self._answer(start_s, end_s)
        finally:
            self.running -= 1

    def _answer(self, start_s: int | None, end_s: int) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        if end_s <= self.start_s:
            raise pk.DataUnavailable("before the listing")
        low_s = end_s - self.most * self.period
        if start_s is not None and self.heeds_start:
            low_s = max(low_s, start_s)
        rows = self.rows(low_s, end_s)
        if not len(rows):
            raise pk.NoData("nothing there")
        rows = self._changed(rows)
        return rows, pendulum.from_timestamp(rows["time"][0]), end_dt_of(rows, self)

    def _changed(self, rows: Any) -> Any:
        first_s, last_s = int(rows["time"][0]), int(rows["time"][-1])
        period = self.period
        if self.manner == "short":
            return rows[-self.random.randint(1, len(rows)) :]
        if self.manner == "wide":
            return self.rows(first_s - 7 * period, last_s + 5 * period)
        if self.manner == "twice":
            wrong = rows.copy()
            wrong["close"] = 1e6
            return np.concatenate([wrong, rows])
        if self.manner == "disordered":
            order = list(range(len(rows)))
            self.random.shuffle(order)
            return rows[order]
        return rows


def end_dt_of(rows: Any, book: Book) -> Any:
    """The end of an answer's last row."""
    return pendulum.from_timestamp(int(rows["time"][-1]) + book.period)
