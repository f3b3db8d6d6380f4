"""Kills order gateways, and holds what they kept against what the broker knows.

    python -m tests.ems_kills --kills 1000 [--seed N] [--jobs 2]    at random
    python -m tests.ems_kills --steps                               at each step

A broker that doubles, delays and loses what it says, and executes what it does not
answer, outlives the gateways. Each runs in a process of its own, in live mode, with a
strategy that sends, changes and cancels; it is killed at a random moment or step, and
the next one goes on. Now and then one is let live until all is known: then every order
was taken by the broker at most once, those that live there live here, every fill is in
the ledger once, the position is their sum, and the statuses that were told end in what
the broker says. Prints a JSON line; exits with 1 if anything is wrong.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any
from zlib import crc32

import trio

import piker_core as pk
from piker_core.ems import reconcile
from piker_core.orders import ExecMode
from tests import plain_broker
from tests.ems_steps import Steps
from tests.ems_truth import Kept, lives, unheard, wrong
from tests.ems_world import (
    ACCOUNT,
    Journal,
    World,
    ended,
    fork,
    kill,
    open_world,
    read_journal,
    run_trio,
)
from tests.plain_broker.book import Book
from tests.plain_broker.site import ROUGH, Control, Manner, open_site
from tests.plain_broker.words import Ask, Truth

SETTLE_S = 30.0
LONGEST_S = 0.12
A_ROUND = 25
"""Kills between two looks at everything."""
MOST_STEPS = 250
CALM = Manner(rest=1e9)


class Strategy:
    """Sends, changes and cancels at random, and writes down what it hears."""

    def __init__(self, world: World, name: str, seed: int) -> None:
        self.world, self.name = world, name
        self.random = random.Random(seed)
        self.journal = Journal(world.journal)
        self.sent = 0
        self.changed = 0

    async def run(self, mode: str = "live") -> None:
        """Trade until killed."""
        async with pk.open_ems(
            self.world.fqme, mode=mode, account=ACCOUNT, client="strategy"
        ) as (self.client, stream, _, _, self.dialogs):
            self.journal.say("opened", self.name)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hear, stream, self.journal)
                while True:
                    await self.act()
                    await trio.sleep(self.random.uniform(0, 0.006))

    async def act(self) -> None:
        living = [oid for oid, status in self.dialogs.items() if is_living(status)]
        what = self.random.choice(("send", "send", "update", "update", "cancel"))
        if what == "send" or not living:
            await self.send()
        elif what == "update":
            oid = self.random.choice(living)
            size = self.random.choice((None, Decimal(self.random.randint(2, 40)) / 10))
            await self.client.update(oid, price=self.price(), size=size)
        else:
            await self.client.cancel(self.random.choice(living))

    async def send(self) -> None:
        self.sent += 1
        oid = f"{self.name}.{self.sent}"
        order = pk.Order(
            oid=oid,
            action=self.random.choice(("buy", "sell")),
            exec_mode=self.random.choice(("live", "live", "live", "dark")),
            symbol=self.world.fqme,
            account=ACCOUNT,
            price=self.price(),
            size=Decimal(self.random.randint(2, 40)) / 10,
        )
        self.journal.say("sent", oid)
        if self.random.random() < 0.5:
            self.client.send_nowait(order)
        else:
            await self.client.send(order)
            self.journal.say("stored", oid)

    def price(self) -> Decimal:
        """No price is asked for twice, so that what is sent twice is seen."""
        self.changed += 1
        ticks = crc32(self.name.encode()) % 9000 + self.changed
        return self.random.choice((98, 102)) + Decimal(ticks) / 10**4


def is_living(status: pk.Status) -> bool:
    return status.resp not in ("closed", "canceled", "error")


async def hear(stream: Any, journal: Journal) -> None:
    async for message in stream:
        note(message, journal)


def hear_rest(stream: Any, journal: Journal) -> None:
    """What came until a strategy has left, behind what it asked for."""
    with contextlib.suppress(trio.WouldBlock):
        while True:
            note(stream.receive_nowait(), journal)


def note(message: object, journal: Journal) -> None:
    if isinstance(message, pk.Status):
        journal.say("heard", message.seq, message.oid, message.resp)


async def settle(world: World, control: Control) -> None:
    """Let a gateway live until nothing is wrong, or for so long."""
    journal = Journal(world.journal)
    async with pk.open_ems(
        world.fqme, mode="live", account=ACCOUNT, client="strategy"
    ) as (_, stream, _, _, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, stream, journal)
            with trio.move_on_after(SETTLE_S):
                while wrong(kept_of(world), truth_of(control)):
                    await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
    hear_rest(stream, journal)


def kept_of(world: World) -> Kept:
    return Kept(world.state, world.broker, ACCOUNT)


def truth_of(control: Control) -> Truth:
    truth = control.ask(Ask(1, "truth")).truth
    assert truth is not None
    return truth


def look(world: World, port: int, after: Manner) -> list[str]:
    """Let all become known, and look at it: what is wrong."""
    control = Control(port)
    control.ask(Ask(1, "calm", manner=as_words(CALM)))
    faults = []
    if status := ended(fork(lambda: settling(world, port))):
        faults.append(f"the gateway that was let live ended: {status}")
    kept, truth = kept_of(world), truth_of(control)
    journal = read_journal(world.journal)
    heard = {int(words[1]) for words in journal if words[0] == "heard"}
    stored = {words[1] for words in journal if words[0] == "stored"}
    faults += wrong(kept, truth) + unheard(kept, heard) + lives(kept)
    known = {status.oid for status in kept.statuses}
    faults += [f"{oid}: stored, and lost" for oid in stored - known]
    control.ask(Ask(1, "calm", manner=as_words(after)))
    control.close()
    return faults


class Killing:
    """Kills in one world after another, and what they have come to."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.figures: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self, kills: int) -> None:
        """Kill at random. A world has a few rounds: a gateway finds older orders."""
        while self.figures["kills"] < kills and not self.faults:
            seed = self.random.randrange(1 << 32)
            book = Book(plain_broker.NAME, ACCOUNT, plain_broker.FQME)
            with open_site(book, ROUGH, seed) as port, open_world(seed=seed) as world:
                os.environ[plain_broker.PORT] = str(port)
                for _ in range(4):
                    left = kills - self.figures["kills"]
                    self.round(world, port, min(A_ROUND, left))
                    if self.faults:
                        break
                self.count(world)

    def round(self, world: World, port: int, kills: int) -> None:
        for _ in range(kills):
            self.kill_one(world)
        self.faults += look(world, port, ROUGH)

    def kill_one(self, world: World) -> None:
        self.figures["kills"] += 1
        name = f"s{self.figures['kills']}"
        seed = self.random.randrange(1 << 32)
        by_step = self.random.random() < 0.5
        deadly = self.random.randint(1, MOST_STEPS) if by_step else 0
        pid = fork(lambda: live_and_die(Strategy(world, name, seed), deadly))
        if not by_step:
            time.sleep(self.random.uniform(0, LONGEST_S))
            os.kill(pid, signal.SIGKILL)
        status = ended(pid)
        self.figures["at steps"] += by_step
        if status != -signal.SIGKILL:
            self.faults.append(f"{name} (seed {seed}) ended by itself: {status}")

    def count(self, world: World) -> None:
        kept = kept_of(world)
        self.figures["orders"] += len(kept.dialogs)
        self.figures["fills"] += len(kept.lines)
        self.figures["statuses"] += len(kept.statuses)
        self.figures.update(f"ended {d.state}" for d in kept.dialogs if d.ended)
        self.figures["living at the end"] += len(kept.living)


# ---- at each step --------------------------------------------------------------------

MANNERS = (
    Manner(pause_s=0.002),
    Manner(pause_s=0.002, unanswered=1.0),
    Manner(pause_s=0.002, late=1.0, late_s=0.07),
    Manner(pause_s=0.002, cut=0.5, doubled=0.5, delayed=0.5),
)
WAIT_S = 5.0


SCENARIO: tuple[tuple[str, int, ExecMode], ...] = (
    ("filled", 102, "live"),
    ("changed", 95, "live"),
    ("dark", 50, "dark"),
)


def order(world: World, oid: str, price: int, exec_mode: ExecMode) -> pk.Order:
    return pk.Order(
        oid=oid,
        action="buy",
        exec_mode=exec_mode,
        symbol=world.fqme,
        account=ACCOUNT,
        price=Decimal(price),
        size=Decimal(2),
    )


async def scenario(world: World, life: int) -> None:
    """One order that is filled in parts, one changed and canceled, a dark one."""
    journal = Journal(world.journal)
    async with pk.open_ems(
        world.fqme, mode="live", account=ACCOUNT, client="strategy"
    ) as (client, stream, _, _, dialogs):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, stream, journal)
            for oid, price, exec_mode in SCENARIO:
                if oid not in dialogs:
                    client.send_nowait(order(world, oid, price, exec_mode))
            await until(dialogs, "changed", "open")
            await client.update("changed", price=97 + life, size="2.5")
            await client.update("dark", price=51 + life)
            await client.cancel("changed")
            await until(dialogs, "changed")
            await client.cancel("dark")
            await until(dialogs, "filled")
            nursery.cancel_scope.cancel()
    hear_rest(stream, journal)  # who leaves in order has heard all


async def until(dialogs: dict[str, pk.Status], oid: str, resp: str = "") -> None:
    """Until an order has ended, or is so, or nothing comes of it."""
    with trio.move_on_after(WAIT_S):
        while oid not in dialogs or (
            is_living(dialogs[oid]) and dialogs[oid].resp != resp
        ):
            await trio.sleep(0.001)


def play(world: World, life: int, deadly: int) -> None:
    quick()
    Steps(deadly)
    run_trio(scenario, world, life)


def kill_at_each_step(seed: int, manner: Manner, figures: Counter[str]) -> list[str]:
    """Kills at one step after another, and at one of the next gateway's; faults."""
    with open_world(seed=seed) as world:
        for deadly in range(1, 10_000):
            world.forget()
            book = Book(plain_broker.NAME, ACCOUNT, plain_broker.FQME)
            with open_site(book, manner, seed) as port:
                os.environ[plain_broker.PORT] = str(port)
                statuses = [ended(fork(partial(play, world, 0, deadly)))]
                if statuses == [0]:
                    return []
                statuses.append(ended(fork(partial(play, world, 1, deadly % 40 + 1))))
                figures["kills"] += statuses.count(-signal.SIGKILL)
                faults = look(world, port, CALM)
            if set(statuses) - {0, -signal.SIGKILL}:
                faults.append(f"a gateway ended by itself: {statuses}")
            if faults:
                return [f"killed at step {deadly}, {manner}", *faults]
            figures["steps"] += 1
    raise AssertionError


def steps_job(number: int, pipe: int) -> None:
    """A process's share of the manners."""
    figures: Counter[str] = Counter()
    faults = []
    for manner in MANNERS[number::2]:
        faults += kill_at_each_step(number, manner, figures)
    with os.fdopen(pipe, "w") as file:
        file.write(json.dumps([figures, faults]))


def as_words(manner: Manner) -> dict[str, float]:
    return {name: getattr(manner, name) for name in manner.__struct_fields__}


def quick() -> None:
    """A venue on loopback answers sooner than one far away."""
    reconcile.ASK_S = 0.02


def live_and_die(strategy: Strategy, deadly: int) -> None:
    quick()
    Steps(deadly)
    run_trio(strategy.run)


def settling(world: World, port: int) -> None:
    quick()
    run_trio(settle, world, Control(port))


def job(seed: int, kills: int, pipe: int) -> None:
    """A process's share of the kills; its figures into a pipe."""
    killing = Killing(seed)
    killing.run(kills)
    words = json.dumps([killing.figures, killing.faults[:20]])
    with os.fdopen(pipe, "w") as file:
        file.write(words)


def in_jobs(work: Callable[[int, int], None], jobs: int) -> tuple[Any, list[str]]:
    """Do it in several processes: what all of them have come to."""
    pipes = []
    for number in range(jobs):
        reading, writing = os.pipe()
        pid = fork(partial(work, number, writing))
        os.close(writing)
        pipes.append((pid, reading))
    figures: Counter[str] = Counter()
    faults: list[str] = []
    try:
        for _, reading in pipes:
            with os.fdopen(reading) as file:
                some, others = json.loads(file.read() or '[{}, ["a job failed"]]')
            figures.update(some)
            faults += others
    finally:
        for pid, _ in pipes:
            kill(pid)
    return figures, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="at random")
    parser.add_argument("--steps", action="store_true", help="at each step instead")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    sys.stderr.write(f"seed {options.seed}\n")
    began_s = time.monotonic()
    jobs = min(options.jobs, options.kills)

    def work(number: int, pipe: int) -> None:
        share = options.kills // jobs + (number < options.kills % jobs)
        job(options.seed + number, share, pipe)

    figures, faults = in_jobs(*(steps_job, 2) if options.steps else (work, jobs))
    seconds = round(time.monotonic() - began_s, 1)
    told = dict(sorted(figures.items())) | {"seed": options.seed, "seconds": seconds}
    sys.stdout.write(json.dumps(told) + "\n")
    for fault in faults:
        sys.stderr.write(fault + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
