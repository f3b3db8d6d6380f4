"""The second process of `piker-core demo`: reads rings without an event loop.

`python -m piker_core.cli.demo_reader NAMESPACE FQME...` reports once a second, as JSON
lines, what it has read, how late, and what was lost or torn. It ends, with a last
report, when its standard input is closed.
"""

import json
import select
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from piker_core.cli.failures import guard
from piker_core.core.rings import BarReader, attach_bars
from piker_core.core.ticks import attach_ticks
from piker_core.dtypes import BarFlag

REPORT_S = 1.0
WAIT_S = 0.05
LOOK_BACK = 120
"""Rows of each market that are read again, and checked, at every wake."""


class RingReader:
    """Reads the ticks of one provider and the 1 s rows of some of its markets."""

    def __init__(self, namespace: str, fqmes: Sequence[str]) -> None:
        provider = fqmes[0].rpartition(".")[2]
        self.bars: list[BarReader] = [
            attach_bars(fqme, period=1, namespace=namespace) for fqme in fqmes
        ]
        self.cursor = attach_ticks(provider, namespace=namespace).cursor(
            start="live", markets=list(fqmes)
        )
        self.start = self.cursor.position
        self.starts = [bars.head for bars in self.bars]
        self.ticks = 0
        self.rows_read = 0
        self.torn = 0
        self.latencies_ns: list[int] = []

    def read_once(self, timeout_s: float) -> None:
        """Wait for a tick, take all there are, then read and check the newest rows."""
        if self.cursor.wait(timeout=timeout_s):
            while len(records := self.cursor.poll()):
                now_ns = time.time_ns()
                self.ticks += len(records)
                self.latencies_ns += (now_ns - records["recv_ns"]).tolist()
        for bars in self.bars:
            rows = bars.snapshot(LOOK_BACK)
            self.rows_read += len(rows)
            self.torn += torn_rows(rows)

    def report(self) -> dict[str, Any]:
        """What has been read so far; `latency_us` from publish to read."""
        seen = [
            bars.head - start
            for bars, start in zip(self.bars, self.starts, strict=True)
        ]
        return {
            "published": self.cursor.position - self.start,
            "ticks": self.ticks,
            "lost": self.cursor.lost,
            "rows": sum(seen),
            "rows_read": self.rows_read,
            "torn": self.torn,
            "latency_us": latency_us(self.latencies_ns),
        }


def latency_us(latencies_ns: Sequence[int]) -> dict[str, float]:
    """Minimum, median and 99th percentile in microseconds; empty without samples."""
    if not latencies_ns:
        return {}
    ordered = np.sort(np.array(latencies_ns)) / 1e3
    named = {"min": 0.0, "median": 0.5, "p99": 0.99}
    places = {name: int(part * (len(ordered) - 1)) for name, part in named.items()}
    return {name: round(float(ordered[place]), 1) for name, place in places.items()}


def torn_rows(rows: NDArray[np.void]) -> int:
    """How many rows are none that a writer ever published whole."""
    low, high = rows["low"], rows["high"]
    slack = high * 1e-12
    bad = (rows["volume"] < 0) | (rows["count"] < 0)
    for name in ("open", "close", "bar_wap"):
        bad |= (rows[name] < low - slack) | (rows[name] > high + slack)
    flat = rows["count"] == 0
    bad |= flat & ((low != high) | (rows["volume"] != 0))
    bad |= flat != (rows["flags"] & BarFlag.FLAT != 0)
    bad[1:] |= (np.diff(rows["index"]) != 1) | (np.diff(rows["time"]) <= 0)
    return int(bad.sum())


def read_until(
    ended: Callable[[], bool],
    reader: RingReader,
    tell: Callable[[dict[str, Any]], None],
) -> None:
    """Read and report until told to end; a last report is told then."""
    due = time.monotonic() + REPORT_S
    while not ended():
        reader.read_once(WAIT_S)
        if time.monotonic() >= due:
            due += REPORT_S
            tell(reader.report())
    reader.read_once(0.0)
    tell(reader.report())


def main(namespace: str, *fqmes: str) -> None:
    """Read the rings of a namespace until standard input is closed."""
    reader = RingReader(namespace, fqmes)

    def ended() -> bool:
        return bool(select.select([sys.stdin], [], [], 0)[0])

    def tell(report: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()

    tell(reader.report())
    read_until(ended, reader, tell)


if __name__ == "__main__":
    sys.exit(guard(partial(main, *sys.argv[1:])))
