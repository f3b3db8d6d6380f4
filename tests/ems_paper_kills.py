"""Kills gateways in paper mode, and looks at every order, trigger and fill.

    python -m tests.ems_paper_kills --kills 200 [--seed N] [--jobs 2]

A market goes on by itself. Strategies send orders of all kinds, change and cancel them;
each is killed at a random moment or step. In the end the market goes far up and far
down, so that all that lives is reached: each trigger has fired once, of each group one
at most was filled, each fill is in the ledger once, positions are their sum, nothing
that was stored is lost, and each status was heard. Prints a JSON line; exits with 1 if
anything is wrong.
"""

import argparse
import itertools
import json
import os
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from decimal import Decimal
from functools import partial
from typing import Any

import trio

import piker_core as pk
from piker_core.orders import BrokerdFill
from tests.ems_kills import Strategy, hear, hear_rest, in_jobs
from tests.ems_steps import Steps
from tests.ems_truth import Kept, lives, unheard
from tests.ems_world import (
    ACCOUNT,
    Journal,
    World,
    ended,
    fork,
    open_world,
    read_journal,
    run_trio,
)

A_WORLD = 50
"""Kills in one world: then all is looked at."""
LONGEST_S = 0.15
MOST_STEPS = 400
FAR, PATIENCE_S = 25.0, 60.0
KEPT = ("dark", "stop", "trail")
KINDS = ("take", "rest", *KEPT, "group", "alert")


class PaperStrategy(Strategy):
    """Sends orders of all kinds."""

    async def send(self) -> None:
        kind = self.random.choice(KINDS)
        if kind != "group":
            await self.send_one(kind, "")
            return
        group = f"g{self.name}.{self.sent}"
        for one in self.random.sample(("rest", *KEPT), 2):
            await self.send_one(one, group)

    async def send_one(self, kind: str, group: str) -> None:
        self.sent += 1
        side = self.random.choice((1, -1))
        near = Decimal(self.random.randint(5, 40)) / 10
        prices: dict[str, dict[str, Any]] = {
            "take": {"price": 100 + 6 * side},
            "rest": {"price": 100 - side * near},
            "dark": {"price": 100 + near * self.random.choice((1, -1))},
            "alert": {"price": 100 + near * self.random.choice((1, -1))},
            "stop": {"price": 100 + side * 60, "stop": 100 + side * near},
            "trail": {"price": 100 + side * 60, "trail": near},
        }
        oid = f"{kind}.{self.name}.{self.sent}"
        side_name = "buy" if side > 0 else "sell"
        order = pk.Order(
            oid=oid,
            action="alert" if kind == "alert" else side_name,  # type: ignore[arg-type]
            exec_mode="dark" if kind == "dark" else "live",
            symbol=self.world.fqme,
            account=ACCOUNT,
            size=Decimal(self.random.randint(2, 40)) / 10,
            oco=group,
            **prices[kind],
        )
        self.journal.say("sent", oid, group)
        await self.client.send(order)
        self.journal.say("stored", oid)

    def price(self) -> Decimal:
        """Of an update: somewhere near."""
        return Decimal(self.random.randint(950, 1050)) / 10


async def finish(world: World) -> None:
    """Let the market reach all that lives."""
    journal = Journal(world.journal)
    async with pk.open_ems(
        world.fqme, mode="paper", account=ACCOUNT, client="strategy"
    ) as (_, stream, _, _, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, stream, journal)
            way = (1, -1, 1, -1, 0)
            with trio.move_on_after(PATIENCE_S):
                while True:
                    for where in way:
                        middle = 100 + FAR * where
                        world.move(middle - 1, middle + 1)
                        await trio.sleep(0.3)
                    if not kept_of(world).living:
                        break
            world.move(97, 103)
            nursery.cancel_scope.cancel()
    hear_rest(stream, journal)


def kept_of(world: World) -> Kept:
    return Kept(world.state, world.broker, ACCOUNT)


def wrong(kept: Kept, groups: dict[str, str]) -> list[str]:
    """What is wrong with what was kept, all having been reached."""
    found = [f"{dialog.oid} lives still: {dialog.state}" for dialog in kept.living]
    triggered = Counter(s.oid for s in kept.statuses if s.resp == "triggered")
    for dialog in kept.dialogs:
        kind = dialog.oid.partition(".")[0]
        fires = kind in (*KEPT, "alert") and dialog.state in ("closed", "triggered")
        if fires and triggered[dialog.oid] != 1:
            found.append(f"{dialog.oid}: triggered {triggered[dialog.oid]} times")
        if dialog.filled > dialog.order.size:
            found.append(f"{dialog.oid}: {dialog.filled} of {dialog.order.size} filled")
    return found + _of_groups(kept, groups) + _of_fills(kept)


def _of_groups(kept: Kept, groups: dict[str, str]) -> list[str]:
    """Orders that were filled though another of their group was, while they lived."""
    born: dict[str, int] = {}
    filled: dict[str, int] = {}
    for status in kept.statuses:
        if status.oid in groups and status.reqid is not None:
            born.setdefault(status.oid, status.seq)
            if status.resp == "fill":
                filled.setdefault(status.oid, status.seq)
    return [
        f"of a group: {one} is filled, and then {other}: {_said(kept, one, other)}"
        for one, other in itertools.permutations(filled, 2)
        if groups[one] == groups[other] and born[other] < filled[one] < filled[other]
    ]


def _said(kept: Kept, *oids: str) -> list[str]:
    """What was said of orders, in order."""
    return [
        f"{status.seq} {status.oid} {status.resp} {_reason(status)}"
        for status in kept.statuses
        if status.oid in oids
    ]


def _reason(status: pk.Status) -> str:
    return str(getattr(status.brokerd_msg, "reason", ""))


def _of_fills(kept: Kept) -> list[str]:
    """Fills that were told, fills in orders, and lines of the ledger are the same."""
    told: Counter[str] = Counter()
    sizes: dict[str, Decimal] = defaultdict(Decimal)
    position = Decimal(0)
    for status in kept.statuses:
        fill = status.brokerd_msg
        if status.resp == "fill" and isinstance(fill, BrokerdFill):
            told[fill.fill_id] += 1
            sizes[status.oid] += fill.size
            position += fill.size if fill.action == "buy" else -fill.size
    lines = Counter(tid for tid, _, _ in kept.lines)
    found = [f"fill {tid} told {n} times" for tid, n in told.items() if n > 1]
    found += [
        f"fill {tid} {n} times in the ledger" for tid, n in lines.items() if n > 1
    ]
    if told.keys() != lines.keys():
        found.append(f"told, or in the ledger alone: {told.keys() ^ lines.keys()}")
    for dialog in kept.dialogs:
        if dialog.filled != sizes[dialog.oid]:
            found.append(
                f"{dialog.oid}: filled {dialog.filled}, {sizes[dialog.oid]} told"
            )
    total = sum((Decimal(size) for _, size, _ in kept.lines), Decimal(0))
    if total != position:
        found.append(f"position {total}, by what was told {position}")
    return found


class PaperKilling:
    """Kills in one world after another, and what they have come to."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.figures: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self, kills: int) -> None:
        while self.figures["kills"] < kills and not self.faults:
            latency_s = self.random.choice((0.0, 0.0, 0.003))
            with open_world(seed=self.random.randrange(1 << 32)) as world:
                os.environ["PIKER_PAPER__LATENCY_S"] = str(latency_s)
                left = kills - self.figures["kills"]
                for _ in range(min(A_WORLD, left)):
                    self.kill_one(world)
                self.look(world)

    def kill_one(self, world: World) -> None:
        self.figures["kills"] += 1
        name = f"s{self.figures['kills']}"
        seed = self.random.randrange(1 << 32)
        by_step = self.random.random() < 0.5
        deadly = self.random.randint(1, MOST_STEPS) if by_step else 0
        pid = fork(lambda: live_and_die(PaperStrategy(world, name, seed), deadly))
        if not by_step:
            time.sleep(self.random.uniform(0, LONGEST_S))
            os.kill(pid, signal.SIGKILL)
        status = ended(pid)
        self.figures["at steps"] += by_step
        if status != -signal.SIGKILL:
            self.faults.append(f"{name} (seed {seed}) ended by itself: {status}")

    def look(self, world: World) -> None:
        if status := ended(fork(lambda: run_trio(finish, world))):
            self.faults.append(f"the gateway that was let live ended: {status}")
        kept, journal = kept_of(world), read_journal(world.journal)
        groups = {words[1]: words[2] for words in journal if len(words) == 3}
        if os.environ["PIKER_PAPER__LATENCY_S"] != "0.0":
            groups = {}  # others are filled while a cancel is on its way
        heard = {int(words[1]) for words in journal if words[0] == "heard"}
        stored = {words[1] for words in journal if words[0] == "stored"}
        known = {status.oid for status in kept.statuses}
        self.faults += wrong(kept, groups) + lives(kept) + unheard(kept, heard)
        self.faults += [f"{oid}: stored, and lost" for oid in stored - known]
        self.figures["orders"] += len(kept.dialogs)
        self.figures["fills"] += len(kept.lines)
        self.figures["statuses"] += len(kept.statuses)
        self.figures["triggered"] += sum(s.resp == "triggered" for s in kept.statuses)
        self.figures.update(f"ended {d.state}" for d in kept.dialogs if d.ended)


def live_and_die(strategy: PaperStrategy, deadly: int) -> None:
    Steps(deadly)
    run_trio(partial(strategy.run, "paper"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    sys.stderr.write(f"seed {options.seed}\n")
    began_s = time.monotonic()
    jobs = min(options.jobs, options.kills)

    def work(number: int, pipe: int) -> None:
        killing = PaperKilling(options.seed + number)
        killing.run(options.kills // jobs + (number < options.kills % jobs))
        with os.fdopen(pipe, "w") as file:
            file.write(json.dumps([killing.figures, killing.faults[:20]]))

    figures, faults = in_jobs(work, jobs)
    seconds = round(time.monotonic() - began_s, 1)
    told = dict(sorted(figures.items())) | {"seed": options.seed, "seconds": seconds}
    sys.stdout.write(json.dumps(told) + "\n")
    for fault in faults:
        sys.stderr.write(fault + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
