"""Kills order gateways that trade at a simulated Kraken, over real sockets.

    python -m tests.ems_kraken_kills --kills 40 [--seed N]

As `tests.ems_kills`, with the provider that ships: requests over the private WebSocket,
questions over REST. The venue lies about requests, doubles and swaps what it reports,
loses some of it and cuts connections. Prints a JSON line; exits with 1 if anything is
wrong.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path

import trio

import piker_core as pk
from piker_core.broker import BrokerOrder
from piker_core.orders import BrokerdFill, State
from providers.kraken.venue import Limits, Venue
from providers.kraken.venue_reports import execution_id
from tests.ems_kills import Journal, hear, hear_rest, is_living
from tests.ems_truth import Kept, lives, unheard, wrong
from tests.ems_world import read_journal, run_trio
from tests.kraken_broker import LENIENT, SYMBOL, V2, open_quiet_venue
from tests.plain_broker.words import Held, Truth

ROOT = Path(__file__).resolve().parents[1]
ACCOUNT, BROKER = "kraken", "kraken"
HELD_AT_FIRST = Decimal(10)
LONGEST_S, START_S, SETTLE_S = 0.6, 30.0, 60.0
A_LOOK = 10
LIES = ("silent", "unavailable", "busy", "internal")


# ---- the strategy, in a process of its own -------------------------------------------


async def trade(journal_path: str, name: str, seed: int) -> None:
    """Send, change and cancel until killed."""
    chance, journal = random.Random(seed), Journal(Path(journal_path))
    async with pk.open_ems(SYMBOL, mode="live", client="strategy") as (
        client,
        stream,
        _,
        _,
        dialogs,
    ):
        sys.stdout.write("opened\n")
        sys.stdout.flush()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, stream, journal)
            for number in range(1, 1 << 30):
                living = [oid for oid, s in dialogs.items() if is_living(s)]
                what = chance.choice(("send", "send", "update", "cancel"))
                price = Decimal(80_000 + chance.randint(0, 900)) + Decimal(number) / 10
                if what == "send" or not living:
                    oid = f"{name}.{number}"
                    order = pk.Order(
                        oid=oid,
                        action="buy",
                        exec_mode="live",
                        symbol=SYMBOL,
                        account=ACCOUNT,
                        price=price,
                        size=Decimal(chance.randint(1, 9)) / 1000,
                    )
                    await client.send(order)
                    journal.say("stored", oid)
                elif what == "update":
                    await client.update(chance.choice(living), price=price)
                else:
                    await client.cancel(chance.choice(living))
                await trio.sleep(chance.uniform(0, 0.02))


async def settle(journal_path: str) -> None:
    """Be there until the lines of the input end."""
    journal = Journal(Path(journal_path))
    async with pk.open_ems(SYMBOL, mode="live", client="strategy") as (_, stream, *_):
        sys.stdout.write("opened\n")
        sys.stdout.flush()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, stream, journal)
            async for _ in trio.lowlevel.FdStream(os.dup(0)):
                pass
            nursery.cancel_scope.cancel()
    hear_rest(stream, journal)


# ---- what is true --------------------------------------------------------------------


def truth_of(venue: Venue) -> Truth:
    """All orders and fills of the venue."""
    held = []
    for client_id, taken in venue.orders.matching.accepted.items():
        order = venue.orders.of(client_id)[-1]
        states: dict[str, State] = {"open": "open", "filled": "closed"}
        broker_order = BrokerOrder(
            reqid=client_id,
            broker_id="",
            symbol=SYMBOL,
            status=states.get(order.state, "canceled"),
            action="buy",
            price=order.price or Decimal(0),
            size=order.size,
            filled=order.filled,
        )
        held.append(Held(broker_order, taken=taken))
    fills = [
        BrokerdFill(
            time_ns=0,
            broker_time=each.time_ns,
            reqid=order.client_id,
            size=each.size,
            price=each.price,
            action="buy",
            fill_id=execution_id(each),
        )
        for order, each in venue.orders.fills()
    ]
    position = HELD_AT_FIRST + sum((fill.size for fill in fills), Decimal(0))
    return Truth(held, fills, str(position), {})


class KrakenKilling:
    """Kills, and what they have come to."""

    def __init__(self, venue: Venue, folder: Path, seed: int) -> None:
        self.venue, self.folder = venue, folder
        self.random = random.Random(seed)
        self.journal = folder / "journal"
        self.kills = 0
        self.faults: list[str] = []

    async def run(self, kills: int) -> None:
        """Kill, and look at everything now and then."""
        while self.kills < kills and not self.faults:
            self.rough()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.market)
                for _ in range(min(A_LOOK, kills - self.kills)):
                    await self.kill_one()
                nursery.cancel_scope.cancel()
            await self.look()

    def rough(self, rate: float = 0.2) -> None:
        faults = self.venue.orders.faults
        faults.double_reports(rate)
        faults.swap_reports(rate)
        faults.reports_first(rate)

    async def market(self) -> None:
        """Others trade, now and then through all orders; and things go wrong."""
        faults = self.venue.orders.faults
        while True:
            await trio.sleep(self.random.expovariate(20))
            price = str(80_000 + self.random.randint(0, 990))
            size = str(Decimal(self.random.randint(1, 20)) / 1000)
            self.venue.orders.print_trade(V2, price, size)
            what = self.random.random()
            if what < 0.05:
                lie = self.random.choice(LIES)
                faults.lie(lie, done=self.random.random() < 0.7)  # type: ignore[arg-type]
            elif what < 0.07:
                faults.lose_reports(self.random.randint(1, 3))
                faults.cut()

    @asynccontextmanager
    async def process(self, *words: str) -> AsyncIterator[trio.Process]:
        """A strategy; killed with the block."""
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tests.ems_kraken_kills", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        try:
            yield process
        finally:
            with trio.CancelScope(shield=True), suppress(ProcessLookupError):
                process.kill()
                await process.wait()

    async def kill_one(self) -> None:
        self.kills += 1
        seed = str(self.random.randrange(1 << 32))
        words = ("trade", str(self.journal), f"s{self.kills}", seed)
        async with self.process(*words) as process:
            assert process.stdout is not None
            if self.random.random() < 0.8:
                with trio.fail_after(START_S):
                    await process.stdout.receive_some()
                await trio.sleep(self.random.uniform(0, LONGEST_S))
            else:
                await trio.sleep(self.random.uniform(0.3, 1.5))
            if process.returncode is not None:
                self.faults.append(f"{words} ended by itself: {process.returncode}")

    async def look(self) -> None:
        """Let all become known, and look at it."""
        self.rough(0.0)
        async with self.process("settle", str(self.journal)) as process:
            assert process.stdin is not None and process.stdout is not None
            with trio.fail_after(START_S):
                await process.stdout.receive_some()
            with trio.move_on_after(SETTLE_S):
                while wrong(self.kept(), truth_of(self.venue)):
                    await trio.sleep(0.1)
            await process.stdin.aclose()
            await process.wait()
        journal = read_journal(self.journal)
        heard = {int(words[1]) for words in journal if words[0] == "heard"}
        stored = {words[1] for words in journal if words[0] == "stored"}
        kept = self.kept()
        self.faults += wrong(kept, truth_of(self.venue)) + lives(kept)
        self.faults += unheard(kept, heard)
        known = {status.oid for status in kept.statuses}
        self.faults += [f"{oid}: stored, and lost" for oid in stored - known]

    def kept(self) -> Kept:
        return Kept(self.folder / "state", BROKER, ACCOUNT)


async def kill_all(kills: int, seed: int, folder: Path) -> KrakenKilling:
    """A venue, its feed, and the kills."""
    os.environ |= {
        "PIKER_NAMESPACE": f"kills{os.getpid()}",
        "PIKER_CONFIG": os.devnull,
        "PIKER_STATE": str(folder / "state"),
        "PIKER_ACCOUNT__KRAKEN__LIVE": "true",
        "PIKER_EMS__SYNC": "normal",
        "PIKER_EMS__RECONCILE_S": "2",
        "PIKER_EMS__GRACE_S": "1",
    }
    async with open_quiet_venue(
        seed=seed, account={"calls": 1e6}, limits=Limits(attempts=1 << 20)
    ) as venue:
        for key, value in (venue.config | LENIENT).items():
            os.environ[f"PIKER_KRAKEN__{key.upper()}"] = str(value)
        killing = KrakenKilling(venue, folder, seed)
        async with pk.open_feed([SYMBOL]):
            await killing.run(kills)
        return killing


def main() -> int:
    if sys.argv[1:2] == ["trade"]:
        run_trio(trade, sys.argv[2], sys.argv[3], int(sys.argv[4]))
    if sys.argv[1:2] == ["settle"]:
        run_trio(settle, sys.argv[2])
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    sys.stderr.write(f"seed {options.seed}\n")
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="piker-ems-") as folder:
        killing = run_trio(kill_all, options.kills, options.seed, Path(folder))
        kept = killing.kept()
    pk.remove_segments(os.environ["PIKER_NAMESPACE"])
    figures = {
        "kills": killing.kills,
        "orders": len(kept.dialogs),
        "fills": len(kept.lines),
        "statuses": len(kept.statuses),
        "seed": options.seed,
        "seconds": round(time.monotonic() - began_s, 1),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    for fault in killing.faults:
        sys.stderr.write(fault + "\n")
    return 1 if killing.faults else 0


if __name__ == "__main__":
    sys.exit(main())
