"""Kills `piker-core history` at random moments, and looks at the store after each.

`python -m tests.backfill_kills --kills 200`: a simulated Kraken, its history fetched
into Parquet files by the command, which is killed again and again. After each kill no
row may be missing that was there before, none may be there twice, and all must be the
venue's own; the command goes on until all is there. Then it begins anew.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import trio

import piker_core as pk
from piker_core.store import open_store
from providers.kraken.venue import Venue, open_venue

FQME, NAME = "xbtusd.kraken", "XBTUSD"
HISTORY_S = 4 * 3600
COMMAND = [sys.executable, "-m", "piker_core", "history", FQME, "--period", "1"]


@asynccontextmanager
async def open_site() -> AsyncIterator[Venue]:
    """A venue with some hours of trades, which refuses nobody."""
    free = {"rest_rate": 500.0, "rest_burst": 500.0}
    async with open_venue(
        seed=5, history_s=HISTORY_S + 600.0, history_rate=2.0, live_rate=5.0, **free
    ) as venue:
        yield venue


def environment(venue: Venue) -> dict[str, str]:
    return os.environ | {
        "PIKER_CONFIG": os.devnull,
        "PIKER_KRAKEN__REST_URL": venue.rest_url,
        "PIKER_KRAKEN__REST_RATE": "100",
        "PIKER_KRAKEN__REST_BURST": "100",
    }


def truth(venue: Venue, start_s: int, end_s: int) -> dict[int, tuple[Any, ...]]:
    """The venue's own candles, by time."""
    return {
        candle.time_s: (
            *(float(getattr(candle, n)) for n in ("open", "high", "low", "close")),
            round(float(candle.volume), 8),
            candle.count,
        )
        for candle in venue.candles(NAME, 1, start_s, end_s)
    }


def check(rows: Any, before: Any, true: dict[int, tuple[Any, ...]]) -> None:
    """Raises AssertionError for rows that are not the venue's, or are there no more."""
    times = rows["time"]
    assert (np.diff(times) > 0).all(), "a time twice"
    assert np.isin(before["time"], times).all(), "history shrank"
    for row in rows:
        own = tuple(row[n] for n in ("open", "high", "low", "close"))
        assert (*own, round(float(row["volume"]), 8), row["count"]) == true[
            int(row["time"])
        ]


async def run_once(command: list[str], env: dict[str, str], kill_s: float) -> int:
    """The command, killed after so long; its exit code."""
    process = await trio.lowlevel.open_process(command, env=env, stdout=-3, stderr=-3)
    with trio.move_on_after(kill_s):
        await process.wait()
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    return await process.wait()


async def kill_often(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """So many kills; what came of them."""
    rng = random.Random(seed)
    done, killed, rounds, most_rows = 0, 0, 0, 0
    longest_s = 4.0
    async with open_site() as venue:
        start_s = int(time.time()) - HISTORY_S
        end_s = start_s + HISTORY_S - 60
        true = truth(venue, start_s, end_s)
        while killed < kills or not most_rows:
            url = f"parquet://{folder}/{rounds}"
            env = environment(venue)
            span = [
                f"--{n}={t}" for n, t in (("start", iso(start_s)), ("end", iso(end_s)))
            ]
            before = np.zeros(0, pk.OHLCV_DTYPE)
            code = -1
            while code != 0 and (killed < kills or not most_rows):
                kill_s = rng.uniform(0.2, longest_s)
                code = await run_once([*COMMAND, *span, "--store", url], env, kill_s)
                assert code in (0, -signal.SIGKILL), code
                killed += code != 0
                with open_store(url) as store:
                    rows = store.read_ohlcv(FQME, 1)
                await trio.to_thread.run_sync(check, rows, before, true)
                # a slow machine needs longer to begin
                longest_s = 4.0 if len(rows) > len(before) else longest_s * 1.5
                before = rows
                most_rows = max(most_rows, len(rows))
            if code == 0:
                assert len(before) == end_s - start_s, len(before)
                done += 1
            rounds += 1
    return {"kills": killed, "completed": done, "rounds": rounds, "rows": most_rows}


def iso(time_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_s))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = partial(kill_often, options.kills, options.seed, Path(folder))
        sys.stdout.write(json.dumps(trio.run(work)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
