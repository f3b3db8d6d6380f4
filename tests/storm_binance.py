"""A storm of faults at a simulated Binance: `python -m tests.storm_binance --seed 2`.

It cuts, stalls, refuses, announces its end, bans, repeats, disorders, drops and garbles
while a feed of both its sides writes rings. Afterwards every row must be the venue's
own, every gap on record and repaired, and nothing may be left open. Prints a JSON line.
"""

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import trio

import piker_core as pk
from providers.binance.venue import Limits, Venue, open_venue
from providers.binance.venue_faults import Faults
from tests.binance_feeds import (
    DATED,
    PERP,
    SPOT,
    THIN,
    closed_rows,
    find_differences,
)

FQMES = (SPOT, THIN, PERP, DATED)
SETTINGS = {
    "PIKER_CONFIG": os.devnull,
    "PIKER_BINANCE__LIVENESS_S": "2",
    "PIKER_BINANCE__ACK_TIMEOUT_S": "2",
    "PIKER_BINANCE__ROTATE_S": "5",
    "PIKER_BINANCE__OVERLAP_S": "0.5",
    "PIKER_BINANCE__STATUS_S": "1",
    "PIKER_BINANCE__AUDIT_S": "5",
    "PIKER_BINANCE__REST_WEIGHT": "50000",
    "PIKER_BINANCE__REST_RATE": "500",
    "PIKER_BINANCE__USDM_REST_WEIGHT": "50000",
    "PIKER_BINANCE__USDM_REST_RATE": "500",
    "PIKER_FEED__SECONDS_BACK": "600",
}
KINDS = (
    *("cut", "half", "halt", "shutdown", "rotate", "refuse", "throttle", "ban"),
    *("html", "busy", "slow", "acks"),
)
RATES = {"duplicate": 0.05, "disorder": 0.1, "drop": 0.02, "malformed": 0.02}
CALM_S = 90.0
"""Longest wait for everything to be repaired once the storm is over."""


async def rage(faults: Faults, seconds: float, seed: int) -> None:
    """Faults of every kind in turn, at random, until the time is up; then none."""
    rng = random.Random(seed)
    for name, rate in RATES.items():
        getattr(faults, name)(rate)
    end = time.monotonic() + seconds
    left: list[str] = []
    while time.monotonic() < end:
        left = left or rng.sample(KINDS, len(KINDS))
        await trio.sleep(rng.uniform(1.0, 4.0))
        await strike(faults, left.pop(), rng)
    for name in RATES:
        getattr(faults, name)(0.0)


async def strike(faults: Faults, kind: str, rng: random.Random) -> None:
    """One fault, and its end."""
    if kind == "half":
        faults.half_open()
        await trio.sleep(rng.uniform(0.5, 4.0))
        faults.half_open(False)
    elif kind == "halt":
        faults.maintenance(3.0)
        await trio.sleep(4.0)
    elif kind == "shutdown":
        while not faults.shutdown(3.0):  # nobody is connected
            await trio.sleep(0.2)
        await trio.sleep(3.0)
    elif kind == "rotate":
        faults.rotate()
    else:
        calls = rng.randrange(1, 4)
        switches = {
            "refuse": faults.refuse_connections,
            "throttle": lambda: faults.throttle(calls),
            "ban": lambda: faults.ban(3.0),
            "html": lambda: faults.html(calls, status=502),
            "busy": lambda: faults.unavailable(calls),
            "slow": lambda: faults.slow_rest(1.0),
            "acks": faults.silent_acks,
        }
        switches.get(kind, lambda: None)()
        faults.cut()
        await trio.sleep(rng.uniform(0.0, 3.0))
        faults.refuse_connections(False)
        faults.silent_acks(False)
        faults.slow_rest(0.0)


def unrepaired(feed: pk.Feed) -> int:
    """Gap records that are still open, placeholders, and markets that are not live."""
    waiting = 0
    for flume in feed.flumes.values():
        waiting += flume.status != "live"
        for bars in (flume.rt, flume.hist):
            waiting += int((bars.gaps()["repaired"] == 0).sum())
            flags = closed_rows(bars)["flags"]
            waiting += int((flags & int(pk.BarFlag.SYNTHETIC_GAP) > 0).sum())
    return waiting


async def ride(venue: Venue, seconds: float, seed: int) -> dict[str, Any]:
    """A feed through the storm; what it counted and what was wrong."""
    async with pk.open_feed(FQMES) as feed:
        await trio.sleep(1.0)
        await rage(venue.faults, seconds, seed)
        with trio.move_on_after(CALM_S):
            await trio.sleep(3.0)
            while unrepaired(feed):
                await trio.sleep(0.2)
            await trio.sleep(1.5)
        rings = [
            bars for flume in feed.flumes.values() for bars in (flume.rt, flume.hist)
        ]
        return {
            "wrong": await find_differences(venue, feed),
            "rows": sum(len(closed_rows(bars)) for bars in rings),
            "gaps": sum(len(bars.gaps()) for bars in rings),
            "unrepaired": unrepaired(feed),
            "faults": dict(venue.faults.done),
            "streams": {fqme: feed.statistics()[fqme]["stream"] for fqme in FQMES[1:3]},
            "refused": venue.statistics().rest_refused,
        }


def open_things() -> tuple[int, int]:
    """Descriptors of the process and tasks of the run."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    return len(list(Path("/proc/self/fd").iterdir())), tasks


async def storm(seconds: float, seed: int) -> dict[str, Any]:
    """The whole of it; `leaked` descriptors and tasks are those left by the feed."""
    limits = Limits(weight=50_000, life_s=60.0)
    options = {"live_rate": 100.0, "history_s": 1200.0, "seed": seed}
    async with open_venue(**options, limits=limits, usdm_limits=limits) as venue:
        for key, url in venue.config.items():
            os.environ[f"PIKER_BINANCE__{key.upper()}"] = url
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
    report["leaked"] = [max(0, b - a) for a, b in zip(before, after, strict=True)]
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
    sys.stdout.write(json.dumps(report) + "\n")
    return 1 if report["wrong"] or report["unrepaired"] or any(report["leaked"]) else 0


if __name__ == "__main__":
    sys.exit(main())
