"""Small rings of made-up trades, for tests of the rings themselves."""

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import piker_core as pk

FQME = "xbtusd.kraken"
BASE_S = 1_600_000_020  # a whole minute, years ago
NS = 1_000_000_000
START = 2**40  # sequence of the first live row
SMALL = 256  # rows asked for; the ring rounds up to whole pages
_numbers = itertools.count()


def new_namespace() -> str:
    """A namespace that no other test has, for where no fixture can be used."""
    return f"made{os.getpid()}x{next(_numbers)}"


@contextmanager
def open_rings(
    namespace: str, *, rows: int = SMALL, ticks: int = 64, **options: Any
) -> Iterator[tuple[pk.FeedEngine, pk.Market]]:
    """An engine with one live market that makes rows of trades only."""
    options = {"periods": (1,), "fill": "none"} | options
    periods = options["periods"]
    with pk.open_engine(
        "kraken", namespace=namespace, tick_capacity=ticks, late_window_s=1e6
    ) as engine:
        market = engine.add_market(
            FQME, capacity=dict.fromkeys(periods, rows), **options
        )
        market.set_status("live", since_ns=0)
        yield engine, market


def trades_at(times_ns: Sequence[int], first_id: int) -> NDArray[np.void]:
    """One trade a time, numbered; price and size follow from the number."""
    ticks = np.zeros(len(times_ns), pk.TICK_DTYPE)
    numbers = np.arange(first_id, first_id + len(times_ns))
    ticks["type"] = pk.TICK_TYPES["trade"]
    ticks["time_ns"] = times_ns
    ticks["id"] = numbers
    ticks["price"] = price_of(numbers)
    ticks["size"] = size_of(numbers)
    return ticks


def price_of(numbers: Any) -> Any:
    """A price that jumps about, exact in binary."""
    return 1000 + numbers * 2_654_435_761 % 4096 * 0.25


def size_of(numbers: Any) -> Any:
    """A size whose sums are exact in binary."""
    return 0.25 * (1 + numbers % 7)


def history(times_s: Sequence[int]) -> NDArray[np.void]:
    """Rows from history that follow from their time."""
    rows = np.zeros(len(times_s), pk.OHLCV_DTYPE)
    times = np.asarray(times_s, np.int64)
    rows["time"] = times
    for name in ("open", "close", "bar_wap"):
        rows[name] = price_of(times)
    rows["high"] = price_of(times) + 1
    rows["low"] = price_of(times) - 1
    rows["volume"] = size_of(times)
    rows["count"] = 1 + times % 5
    return rows


def tell_apart(rows: NDArray[np.void]) -> list[tuple[int, int, int]]:
    """Index, time and number of trades of each row."""
    return [(int(r["index"]), int(r["time"]), int(r["count"])) for r in rows]


def paths(namespace: str) -> dict[str, Path]:
    """The file of each kind of ring in a namespace."""
    return {ring.kind: Path(ring.path) for ring in pk.list_segments(namespace)}


def make(namespace: str, rows: int = 5) -> dict[str, Path]:
    """A ring of each kind that a writer has closed."""
    with open_rings(namespace) as (engine, market):
        times = [(BASE_S + i) * NS for i in range(rows)]
        engine.push_ticks(market, trades_at(times, 1))
    return paths(namespace)


def attach(kind: str, namespace: str) -> None:
    """Attach a reader and let it go."""
    if kind == "bars":
        pk.attach_bars(FQME, namespace=namespace).close()
    else:
        pk.attach_ticks("kraken", namespace=namespace).close()


def open_again(namespace: str) -> None:
    """Let a new writer find what is there."""
    with open_rings(namespace) as (engine, market):
        engine.push_ticks(market, trades_at([(BASE_S + 1000) * NS], 1000))
