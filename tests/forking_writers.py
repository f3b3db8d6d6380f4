"""A process that forks writers on demand, for tests that kill them.

    python -m tests.forking_writers NAMESPACE PROGRESS-FILE

Reads lines: `start` forks a writer and answers with its pid, `reap` waits for the last
one. A writer opens the engine, goes on after the newest trade that the rings know, and
notes in the progress file the number of the newest trade whose push has returned.
"""

import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import piker_core as pk
from tests.ring_making import BASE_S, FQME, NS, price_of, size_of

PERIODS = (1, 60)
ROWS = 1 << 18
TICKS = 1 << 12
BATCH = 7
A_SECOND = 5  # trades
LATE = 3 * NS


def trades(first: int, count: int) -> NDArray[np.void]:
    """Trades by number: five a second, every 41st of them three seconds late."""
    numbers = np.arange(first, first + count)
    ticks = np.zeros(count, pk.TICK_DTYPE)
    ticks["type"] = pk.TICK_TYPES["trade"]
    ticks["id"] = numbers
    ticks["price"] = price_of(numbers)
    ticks["size"] = size_of(numbers)
    ticks["time_ns"] = (BASE_S + numbers // A_SECOND) * NS + numbers % A_SECOND
    ticks["time_ns"] -= np.where((numbers % 41 == 0) & (numbers > 41), LATE, 0)
    return ticks


def open_writer(namespace: str) -> tuple[pk.FeedEngine, pk.Market]:
    """The engine and market of every writer of these tests."""
    engine = pk.open_engine(
        "kraken", namespace=namespace, tick_capacity=TICKS, late_window_s=1e6
    )
    market = engine.add_market(
        FQME, periods=PERIODS, capacity=dict.fromkeys(PERIODS, ROWS), fill="none"
    )
    market.set_status("live", since_ns=0)
    return engine, market


def write_for_ever(namespace: str, progress: NDArray[np.int64]) -> None:
    """One trade, then a batch, and so on until killed."""
    engine, market = open_writer(namespace)
    number = market.last_id + 1
    while True:
        (trade,) = trades(number, 1)
        engine.push_trade(
            market,
            int(trade["time_ns"]),
            float(trade["price"]),
            float(trade["size"]),
            id=number,
        )
        progress[0] = number
        engine.push_ticks(market, trades(number + 1, BATCH))
        number += 1 + BATCH
        progress[0] = number - 1


def main() -> None:
    namespace, path = sys.argv[1], Path(sys.argv[2])
    progress: NDArray[np.int64] = np.memmap(path, np.int64, "r+", shape=(1,))
    pid = 0
    for line in sys.stdin:
        if line == "reap\n":
            os.waitpid(pid, 0)
        else:
            pid = os.fork()
            if not pid:
                write_for_ever(namespace, progress)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
