"""A storm of faults that is recorded: live rows, replayed rows and the venue's own.

    python -m tests.replay_storm --providers kraken ib --seconds 60 --seed 3

After a storm (`storm.py`) has compared the rings with the venues, the journal of its
feed is replayed twice. All rings must be the same, flags included. Prints a line of
JSON; the exit code is 1 if anything is wrong. With `--out` the journal is kept: what
the storm has done to the rings can be played again.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

import piker_core as pk
from piker_core.replay import Report, replay
from tests import storm
from tests.taped import Rings, rings, unequal


@contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """Have the feed of a storm recorded."""
    os.environ["STORM_JOURNAL"] = str(folder)
    try:
        yield
    finally:
        del os.environ["STORM_JOURNAL"]


async def played(folder: Path, namespace: str) -> tuple[Report, float, Rings]:
    """A replay into a namespace, the time that it took, and its rings."""
    begun_s = time.perf_counter()
    report = await replay(folder, namespace=namespace)
    took_s = time.perf_counter() - begun_s
    try:
        return report, took_s, rings(report.markets, namespace)
    finally:
        pk.remove_segments(namespace)


async def replay_storm(
    sites: Sequence[storm.Site],
    namespace: str,
    folder: Path,
    *,
    seconds: float,
    seed: int,
) -> dict[str, Any]:
    """A recorded storm and two replays.

    `unequal`: what is not as it was played again; `faulty`: that, and what the storm
    has done to the rings.
    """
    with recorded(folder):
        weather = await storm.storm(sites, namespace, seconds=seconds, seed=seed)
    first, took_s, one = await played(folder, f"{namespace}a")
    _, _, two = await played(folder, f"{namespace}b")
    size = sum(entry.stat().st_size for entry in os.scandir(folder))
    live = rings(first.markets, namespace)
    wrong = [f"live and replayed: {text}" for text in unequal(live, one)]
    wrong += [f"replayed twice: {text}" for text in unequal(one, two)]
    if first.cut or first.counts.unknown or first.counts.holes:
        wrong.append(f"the journal: {first}")
    counts = first.counts
    return {
        "rows": sum(len(rows) for (_, period), rows in live.items() if period),
        "frames": counts.frames,
        "records": counts.records,
        "ticks": counts.ticks,
        "bytes": size,
        "frames_a_second": round(counts.frames / took_s),
        "markets": first.markets,
        "weather": weather["providers"],
        "unequal": wrong,
        "faulty": wrong + storm.faulty(weather),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = storm.known_sites()
    parser.add_argument("--providers", nargs="+", default=names, choices=storm.NAMES)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the journal is kept")
    options = parser.parse_args()
    namespace = f"rstorm{os.getpid()}"
    sites = [storm.find_site(name) for name in options.providers]
    given = {"seconds": options.seconds, "seed": options.seed}
    try:
        with tempfile.TemporaryDirectory(prefix="pk") as name:
            folder = options.out or Path(name)
            report = trio.run(lambda: replay_storm(sites, namespace, folder, **given))
    finally:
        for suffix in ("", "a", "b"):
            pk.remove_segments(namespace + suffix, force=True)
    sys.stdout.write(json.dumps(given | report) + "\n")
    return 1 if report["faulty"] else 0


if __name__ == "__main__":
    sys.exit(main())
