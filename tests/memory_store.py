"""A store in memory: what flows do with one, seen without files."""

import threading
from typing import Any, Self

import numpy as np

import piker_core as pk

Key = tuple[str, int]


class MemoryStore:
    """As any store. `errors` are raised by the next writes; calls are kept."""

    def __init__(self) -> None:
        self.rows: dict[Key, dict[int, np.void]] = {}
        self.errors: list[Exception] = []
        self.reads: list[tuple[Any, ...]] = []
        self.writes: list[tuple[str, int, Any]] = []
        self.closed = False
        self._lock = threading.Lock()

    def write_ohlcv(self, fqme: str, period: int, rows: Any) -> int:
        with self._lock:
            if self.errors:
                raise self.errors.pop(0)
            assert not (rows["time"] % period).any()
            self.writes.append((fqme, period, rows.copy()))
            kept = self.rows.setdefault((fqme, period), {})
            changed = 0
            for row in rows:
                old, new = kept.get(int(row["time"])), row.copy()
                new["index"] = 0
                changed += old is None or old != new
                kept[int(row["time"])] = new
            return changed

    def read_ohlcv(
        self,
        fqme: str,
        period: int,
        start_s: int | None = None,
        end_s: int | None = None,
    ) -> Any:
        with self._lock:
            self.reads.append((fqme, period, start_s, end_s))
            kept = self.rows.get((fqme, period), {})
            low = -(2**62) if start_s is None else start_s
            high = 2**62 if end_s is None else end_s
            times = sorted(time for time in kept if low <= time < high)
            rows = np.array([kept[time] for time in times], pk.OHLCV_DTYPE)
            rows["index"] = np.arange(len(rows))
            return rows

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
