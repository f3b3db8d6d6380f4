"""A storm of faults for minutes: `python tests/storm.py --seconds 180 [--seed N]`.

A simulated Kraken cuts, stalls, refuses, repeats, disorders, drops and garbles while a
feed writes its rings. Afterwards every row of both periods must be the venue's own,
every gap on record and repaired, and nothing may be left open. Prints a JSON line.
"""

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import trio

import piker_core as pk
from providers.kraken.venue import Venue, open_venue

FQMES = ("xbtusd.kraken", "ethusd.kraken", "mlneur.kraken")
SETTINGS = {
    "PIKER_CONFIG": os.devnull,
    "PIKER_KRAKEN__LIVENESS_S": "2",
    "PIKER_KRAKEN__ACK_TIMEOUT_S": "2",
    "PIKER_KRAKEN__REST_RATE": "20",
    "PIKER_KRAKEN__THROTTLE_PAUSE_S": "0.5",
    "PIKER_FEED__SECONDS_BACK": "600",
}
FIELDS = ("open", "high", "low", "close", "count")
SETTLED_S = 1.0
"""Trades of rows that ended less long ago may be on their way."""
CALM_S = 60.0
"""Longest wait for everything to be repaired once the storm is over."""


async def rage(venue: Venue, seconds: float, seed: int) -> None:
    """Faults of every kind, at random, until the time is up; then none."""
    faults, rng = venue.faults, random.Random(seed)
    rates = {faults.duplicate: 0.05, faults.disorder: 0.1, faults.drop: 0.02}
    for switch, rate in rates.items():
        switch(rate)
    faults.malformed(0.05)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await trio.sleep(rng.uniform(1.0, 4.0))
        await strike(faults, rng)
    for switch in (*rates, faults.malformed):
        switch(0.0)


async def strike(faults: Any, rng: random.Random) -> None:
    """One fault, and its end."""
    kind = rng.choice(
        ["cut", "half", "closed", "refuse", "throttle", "html", "slow", "acks", "bad"]
    )
    if kind == "half":
        faults.half_open()
        await trio.sleep(rng.uniform(0.5, 4.0))
        faults.half_open(False)
    elif kind == "closed":
        faults.maintenance(2.0)
        await trio.sleep(2.5)
    elif kind == "bad":
        faults.malformed(["large", "nan_price", "negative_size", "bad_time", "empty"])
    else:
        if kind == "refuse":
            faults.refuse_connections()
        elif kind == "throttle":
            faults.throttle(rng.randrange(1, 4))
        elif kind == "html":
            faults.html(rng.randrange(1, 4))
        elif kind == "slow":
            faults.slow_rest(1.0)
        elif kind == "acks":
            faults.silent_acks()
        faults.cut()
        await trio.sleep(rng.uniform(0.0, 3.0))
        faults.refuse_connections(False)
        faults.silent_acks(False)
        faults.slow_rest(0.0)


def differences(venue: Venue, bars: pk.BarReader) -> tuple[int, list[str]]:
    """How many rows were compared, and what of them is not as the venue has it."""
    rows = bars.snapshot(bars.head - bars.first)
    rows = rows[rows["time"] + bars.period <= time.time() - SETTLED_S]
    start_s, end_s = int(rows["time"][0]), int(rows["time"][-1]) + bars.period
    name = bars.fqme.partition(".")[0].upper()
    candles = {c.time_s: c for c in venue.candles(name, bars.period, start_s, end_s)}
    times = set(rows["time"].tolist())
    wrong = [
        f"{bars.fqme} {bars.period} s: {time_s} traded and has no row"
        for time_s, candle in candles.items()
        if candle.count and time_s not in times
    ]
    for row in rows:
        candle = candles[int(row["time"])]
        want = [float(getattr(candle, field)) for field in FIELDS]
        got = [float(row[field]) for field in FIELDS]
        volume = round(float(row["volume"]), 8)
        if want != got or volume != float(candle.volume):
            wrong.append(f"{bars.fqme} {bars.period} s: {row} is not {candle}")
        if row["flags"] & pk.BarFlag.SYNTHETIC_GAP:
            wrong.append(f"{bars.fqme} {bars.period} s: {row} is a placeholder")
    if (np.diff(rows["time"]) <= 0).any():
        wrong.append(f"{bars.fqme} {bars.period} s: times do not rise")
    return len(rows), wrong


def unrepaired(feed: pk.Feed) -> int:
    """Gap records that are still open, or markets that are not live."""
    waiting = 0
    for flume in feed.flumes.values():
        waiting += flume.status != "live"
        for bars in (flume.rt, flume.hist):
            waiting += int((bars.gaps()["repaired"] == 0).sum())
    return waiting


async def ride(venue: Venue, seconds: float, seed: int) -> dict[str, Any]:
    """A feed through the storm; what it counted and what was wrong."""
    async with pk.open_feed(FQMES) as feed:
        await trio.sleep(1.0)
        await rage(venue, seconds, seed)
        with trio.move_on_after(CALM_S):
            await trio.sleep(3.0)
            while unrepaired(feed):
                await trio.sleep(0.2)
            await trio.sleep(1.5)
        rows, wrong, gaps = 0, [], 0
        for flume in feed.flumes.values():
            for bars in (flume.rt, flume.hist):
                compared, found = differences(venue, bars)
                rows, wrong = rows + compared, wrong + found
            gaps += len(flume.rt.gaps())
        return {
            "rows": rows,
            "gaps": gaps,
            "unrepaired": unrepaired(feed),
            "faults": dict(venue.faults.done),
            "stream": feed.statistics()[FQMES[0]]["stream"],
            "wrong": wrong,
        }


def open_things() -> tuple[int, int]:
    """Descriptors of the process and tasks of the run."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    return len(list(Path("/proc/self/fd").iterdir())), tasks


async def storm(seconds: float, seed: int) -> dict[str, Any]:
    """The whole of it; `leaked` descriptors and tasks are those left by the feed."""
    options = {"live_rate": 40.0, "history_s": 1200.0, "rest_rate": 50.0}
    async with open_venue(seed=seed, rest_burst=100, **options) as venue:
        os.environ["PIKER_KRAKEN__WS_URL"] = venue.ws_url
        os.environ["PIKER_KRAKEN__REST_URL"] = venue.rest_url
        async with pk.open_feed(FQMES[:1]):  # what is opened once for ever is open now
            await trio.sleep(0.5)
        await trio.sleep(0.5)
        pk.remove_segments(os.environ["PIKER_NAMESPACE"])
        before = open_things()
        report = await ride(venue, seconds, seed)
        for _ in range(50):  # the venue's side of the sockets closes a little later
            await trio.sleep(0.1)
            if open_things() <= before:
                break
        after = open_things()
    report["leaked"] = [
        max(0, now - then) for now, then in zip(after, before, strict=True)
    ]
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    namespace = os.environ["PIKER_NAMESPACE"] = f"storm{os.getpid()}"
    os.environ.update(SETTINGS)
    try:
        report = trio.run(storm, options.seconds, options.seed)
    finally:
        pk.remove_segments(namespace)
    report["wrong"], count = report["wrong"][:5], len(report["wrong"])
    sys.stdout.write(json.dumps({"wrong_rows": count} | report) + "\n")
    return 1 if count or report["unrepaired"] or any(report["leaked"]) else 0


if __name__ == "__main__":
    sys.exit(main())
