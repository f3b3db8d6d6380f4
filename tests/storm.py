"""A storm of faults, at any number of simulated venues at once.

    python -m tests.storm --providers kraken binance --seconds 180 --seed 2

The venues cut, stall, refuse, repeat, disorder, drop and garble, each with the faults
that are its own (`storm_kraken.py` and others), while one feed of all of them writes
its rings in a process of its own. Afterwards every row of both periods must be the
venue's own, every gap on record and repaired, and nothing may be left open. Prints a
line of JSON; the exit code is 1 if anything is wrong. `--speed 12` has an hour pass in
five minutes, see `storm_speed.py`.
"""

import argparse
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import linear_regression
from typing import Any

import msgspec
import trio

import piker_core as pk
from piker_core.conformance.truth import Comparison, Steps
from piker_core.segments import list_segments
from tests.storm_feed import Held, read_lines
from tests.storm_site import Ring, Site
from tests.storm_speed import Meter, accelerate

NAMES = ("kraken", "binance", "ib")
PERIODS = (1, 60)
MARKS = tuple(part / 10 for part in range(1, 11))
"""Parts of the storm after which memory is looked at."""
WARM_S = 300.0
"""Of shorter storms memory says nothing: what is used once is being loaded."""
GROWTH_MB = 2.5
"""So much memory may grow by in the second half of a storm, tables of ids aside.

Those fill with the trades, up to 1.5 MB a market. The rest is flat but for what the
heap gives back a little later: that makes it go up and down by 1 to 2 MB.
"""
PAUSE_S = (1.0, 4.0)
CALM_S = 90.0
"""Longest wait for everything to be repaired once the storm is over."""
SETTLED_S = 5.0
"""For so long trades may be on their way, and losses not be noticed."""
LAST_WORDS_S = 2.0
"""A process that ends without an answer has so long to say why."""
LOOK_S = 0.2
NEAR_NS = 5_000_000_000
"""Gaps so near to one that is open are shown with it."""
ROOT = Path(__file__).resolve().parents[1]


class Market:
    """Rings of one market, as another process sees them."""

    def __init__(self, fqme: str, steps: Steps, namespace: str, stack: ExitStack):
        self.fqme, self.steps = fqme, steps
        self.rings = [
            stack.enter_context(pk.attach_bars(fqme, period=each, namespace=namespace))
            for each in PERIODS
        ]
        self.looked: list[Ring] = []

    @property
    def status(self) -> str:
        return self.rings[0].status

    def unrepaired(self) -> list[str]:
        """Gap records that are open, and its status if it is not live."""
        found = [] if self.status == "live" else [self.status]
        for bars in self.rings:
            gaps = bars.gaps()
            for gap in gaps[gaps["repaired"] == 0]:
                near = (gaps["start_ns"] < gap["end_ns"] + NEAR_NS) & (
                    gaps["end_ns"] > gap["start_ns"] - NEAR_NS
                )
                beside = gaps[near].tolist()
                found.append(f"{bars.period} s {gap} among {beside}")
        return [f"{self.fqme}: {text}" for text in found]


@dataclasses.dataclass
class Front:
    """One venue in the storm, its markets, and what was seen of them."""

    site: Site
    venue: Any
    markets: list[Market] = dataclasses.field(default_factory=list)
    closed: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    struck: dict[str, int] = dataclasses.field(default_factory=dict)
    open: list[str] = dataclasses.field(default_factory=list)
    ticks: int = 0
    lost: int = 0

    async def rage(self, seconds: float, seed: int) -> None:
        """Faults of every kind, at random, until the time is up; then none."""
        rng = random.Random(f"{seed} {self.site.name}")
        for name, rate in self.site.rates.items():
            getattr(self.venue.faults, name)(rate)
        end_s = trio.current_time() + seconds
        while trio.current_time() < end_s:
            await trio.sleep(rng.uniform(*PAUSE_S))
            await self.strike(rng)
        for name in self.site.rates:
            getattr(self.venue.faults, name)(0.0)

    async def strike(self, rng: random.Random) -> None:
        """One fault, and its end."""
        name = rng.choice(sorted(self.site.strikes))
        strike, begun_s = self.site.strikes[name], time.time()
        self.struck[name] = self.struck.get(name, 0) + 1
        strike.begin(self.venue.faults, rng)
        await trio.sleep(rng.uniform(*strike.lasts_s))
        strike.end(self.venue.faults)
        if strike.closes:
            with trio.move_on_after(CALM_S):
                while any(market.status != "live" for market in self.markets):
                    await trio.sleep(0.1)
            self.closed.append((begun_s, time.time()))

    async def read(self, namespace: str) -> None:
        """Read every tick, as another process does."""
        with pk.attach_ticks(self.site.name, namespace=namespace) as ring:
            cursor = ring.cursor("live")
            while True:
                await cursor.ready()
                self.ticks += len(cursor.poll())
                self.lost = cursor.lost

    def unrepaired(self) -> list[str]:
        """What is not as it was before the storm."""
        return [text for market in self.markets for text in market.unrepaired()]

    def look(self) -> None:
        """Keep what the rings have now; the trades of the last rows may be to come."""
        self.open, until_s = self.unrepaired(), time.time() - SETTLED_S
        for market in self.markets:
            market.looked = [Ring(bars, until_s) for bars in market.rings]

    def report(self) -> dict[str, Any]:
        """What was seen, beside what the venue has."""
        found, rings = Comparison(), []
        for market in self.markets:
            rings += market.looked
            for ring in market.looked:
                found.add(
                    self.site.compare(self.venue, ring, market.steps, self.closed)
                )
        return {
            "rows": found.rows,
            "trades": found.trades,
            "wrong": len(found.wrong),
            "wrong_first": found.wrong[:5],
            "gaps": sum(len(ring.gaps) for ring in rings if ring.period == 1),
            "unrepaired": self.open,
            "placeholders": sum(ring.placeholders() for ring in rings),
            "ticks": self.ticks,
            "lost": self.lost,
            "strikes": self.struck,
            "faults": dict(self.venue.faults.done),
        }


class FeedProcess:
    """The feed in its process, and what it answers."""

    def __init__(
        self, process: trio.Process, answers: AsyncGenerator[str, None]
    ) -> None:
        self._process, self._answers = process, answers

    async def answer(self) -> Any:
        """Its next one. Raises RuntimeError if it has ended."""
        line = await anext(self._answers, None)
        if line is None:
            with trio.move_on_after(LAST_WORDS_S):
                await self._process.wait()
            raise RuntimeError("the process of the feed has ended: see its last words")
        return msgspec.json.decode(line)

    async def ask(self, what: str) -> Any:
        """An answer to a question."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(what.encode() + b"\n")
        return await self.answer()


@asynccontextmanager
async def open_process(
    module: Sequence[str], environ: dict[str, str]
) -> AsyncIterator[FeedProcess]:
    """A module with its arguments, such as a feed; it is ended with the context."""
    command = [sys.executable, "-m", *module]
    async with trio.open_nursery() as nursery:

        async def run(task_status: Any) -> None:
            pipe = subprocess.PIPE
            process = await trio.lowlevel.open_process(
                command, stdin=pipe, stdout=pipe, env=environ, cwd=ROOT
            )
            assert process.stdin is not None and process.stdout is not None
            async with process.stdin, process.stdout:
                try:
                    task_status.started(process)
                    await process.wait()
                finally:
                    process.kill()
                    with trio.CancelScope(shield=True):
                        await process.wait()

        process = await nursery.start(run)
        async with aclosing(read_lines(process.stdout)) as answers:
            yield FeedProcess(process, answers)
        nursery.cancel_scope.cancel()


async def rage_all(
    fronts: Sequence[Front], process: FeedProcess, seconds: float, seed: int
) -> list[Held]:
    """The storm at all venues at once; what the feed held at the marks of it."""
    held, begun_s = [], trio.current_time()
    async with trio.open_nursery() as nursery:
        for front in fronts:
            nursery.start_soon(front.rage, seconds, seed)
        for mark in MARKS:
            await trio.sleep_until(begun_s + mark * seconds)
            held.append(msgspec.convert(await process.ask("held"), Held))
    return held


def growth_mb(held: Sequence[Held]) -> float:
    """How much more memory, tables aside, by a line through the second half."""
    late = range(len(held) // 2 - 1, len(held))
    rest = [(held[at].memory - held[at].tables) / 2**20 for at in late]
    return linear_regression(late, rest).slope * (len(late) - 1)


async def calm(fronts: Sequence[Front]) -> None:
    """Wait until all has been well for a while, for `CALM_S` at most."""
    with trio.move_on_after(CALM_S):
        well_s = 0.0
        while well_s < max(front.site.quiet_s for front in fronts):
            await trio.sleep(LOOK_S)
            well = not any(front.unrepaired() for front in fronts)
            well_s = well_s + LOOK_S if well else 0.0


async def ride(
    fronts: Sequence[Front], process: FeedProcess, namespace: str, **options: Any
) -> dict[str, Any]:
    """A feed through the storm; what it counted and what was wrong."""
    ticks = await process.answer()
    async with trio.open_nursery() as nursery:
        with ExitStack() as stack:
            for front in fronts:
                nursery.start_soon(front.read, namespace)
                front.markets = [
                    Market(fqme, Steps(*map(Decimal, steps)), namespace, stack)
                    for fqme, steps in ticks.items()
                    if fqme.endswith(f".{front.site.name}")
                ]
            held = await rage_all(fronts, process, **options)
            await calm(fronts)
            for front in fronts:
                front.look()
            told = await process.ask("statistics")
            providers = {front.site.name: front.report() for front in fronts}
            for front in fronts:
                stream = told[front.markets[0].fqme].get("stream")
                providers[front.site.name]["stream"] = stream
            nursery.cancel_scope.cancel()
    return {
        "providers": providers,
        "memory_mb": [round(each.memory / 2**20, 1) for each in held],
        "tables_mb": [round(each.tables / 2**20, 1) for each in held],
        "growth_mb": round(growth_mb(held), 2),
    }


async def storm(
    sites: Sequence[Site], namespace: str, *, seconds: float, seed: int
) -> dict[str, Any]:
    """The whole of it."""
    with tempfile.TemporaryDirectory(prefix="pk") as folder:
        async with AsyncExitStack() as venues:
            fronts = [
                Front(site, await venues.enter_async_context(site.open_venue(seed)))
                for site in sites
            ]
            environ = {
                **os.environ,
                "PIKER_CONFIG": os.devnull,
                "PIKER_NAMESPACE": namespace,
                "PIKER_FEED__SECONDS_BACK": "600",
                "XDG_CACHE_HOME": folder,
                "XDG_RUNTIME_DIR": folder,
            }
            fqmes = []
            for front in fronts:
                environ |= front.site.environ(front.venue)
                symbols = front.site.symbols(front.venue)
                fqmes += [f"{symbol}.{front.site.name}" for symbol in symbols]
            meter = Meter()
            command = ["tests.storm_feed", *fqmes]
            async with open_process(command, environ) as process:
                options = {"seconds": seconds, "seed": seed}
                report = await ride(fronts, process, namespace, **options)
                report["growth_mb"] *= seconds >= WARM_S
                report["leaked"] = await process.ask("close")
                report["speed"] = meter.speeds()
        sockets = find_sockets(folder)
    expected = len(fqmes) * len(PERIODS) + len(sites)
    found = len(list_segments(namespace))
    if sockets or found != expected:
        report["leaked"] |= {"sockets": sockets, "segments": found - expected}
    return report


def find_sockets(folder: str) -> list[str]:
    """Sockets that are left in a folder."""
    return [str(path) for path in Path(folder).rglob("*") if path.is_socket()]


def faulty(report: dict[str, Any]) -> list[str]:
    """What is wrong, in words."""
    wrong = [
        f"{name}: {kind} {row[kind]}"
        for name, row in report["providers"].items()
        for kind in ("wrong", "unrepaired", "placeholders", "lost")
        if row[kind]
    ]
    if report["growth_mb"] > GROWTH_MB:
        wrong.append(f"memory grew by {report['growth_mb']} MB: {report['memory_mb']}")
    return [*wrong, *(f"leaked {kind}" for kind in report["leaked"])]


def known_sites() -> list[str]:
    """Providers that are installed."""
    return [name for name in NAMES if find_spec(f"providers.{name}")]


def find_site(name: str) -> Site:
    """What is particular of a venue. Raises ImportError without its extra."""
    site: Site = import_module(f"tests.storm_{name}").SITE
    return site


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--providers", nargs="+", default=known_sites(), choices=NAMES)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=1.0, help="of all clocks")
    options = parser.parse_args()
    accelerate(options.speed, ["-m", "tests.storm", *sys.argv[1:]])
    namespace = f"storm{os.getpid()}"
    sites = [find_site(name) for name in options.providers]
    given = {"seconds": options.seconds, "seed": options.seed}
    try:
        report = trio.run(lambda: storm(sites, namespace, **given))
    finally:
        pk.remove_segments(namespace, force=True)
    wrong = faulty(report)
    sys.stdout.write(json.dumps(given | report | {"faulty": wrong}) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
