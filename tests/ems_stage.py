"""A market that a test moves, and strategies on it, here or in other processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trio
from trio.testing import wait_all_tasks_blocked

import piker_core as pk

FQME = "xbtusd.kraken"
ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 60.0


def add_market(engine: Any, fqme: str) -> None:
    """A market that is fed."""
    market = engine.add_market(
        fqme,
        price_tick="0.1",
        size_tick="0.001",
        capacity={1: 1024, 60: 256},
    )
    market.set_status("live")


class Stage:
    """The writer of the market. Prices are around 100."""

    def __init__(self, engine: Any, *, priced: bool = True) -> None:
        self._engine, self._id = engine, 0
        if priced:
            self.quote(99.9, 100.1)
            self.trade(100.0)

    def add(self, fqme: str) -> None:
        """Write one more market."""
        add_market(self._engine, fqme)

    def _push(self, **levels: tuple[float, float]) -> None:
        ticks = []
        for kind, (price, size) in levels.items():
            tick = {"type": kind, "price": price, "size": size}
            ticks.append(tick | {"time_ns": time.time_ns()})
            if kind == "trade":
                self._id += 1
                ticks[-1] |= {"id": self._id, "side": "sell" if price < 100 else "buy"}
        self._engine.push({"symbol": "xbtusd", "ticks": ticks})
        self._engine.step(time.time_ns())

    def quote(self, bid: float, ask: float, size: float = 1000.0) -> None:
        self._push(
            bid=(bid, size), bsize=(bid, size), ask=(ask, size), asize=(ask, size)
        )

    def trade(self, price: float, size: float = 1000.0) -> None:
        self._push(trade=(price, size))


@contextmanager
def open_stage(namespace: str, *, priced: bool = True) -> Iterator[Stage]:
    """A market of this process. `priced`: it was traded before."""
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=1 << 14) as engine:
        add_market(engine, FQME)
        yield Stage(engine, priced=priced)


def order(oid: str, price: float = 90, action: str = "buy", **more: Any) -> pk.Order:
    """One that rests, if nothing else is said."""
    known = {"exec_mode": "live", "symbol": FQME, "account": "paper", "size": "0.5"}
    return pk.Order(oid=oid, action=action, price=price, **(known | more))  # type: ignore[arg-type]


class Trader:
    """A strategy of this process, and all that it heard."""

    def __init__(self, opened: Any) -> None:
        self.client, self.stream, self.positions, self.accounts, self.dialogs = opened
        self.statuses: list[pk.Status] = []

    async def listen(self) -> None:
        async for message in self.stream:
            if isinstance(message, pk.Status):
                self.statuses.append(message)

    def resps(self, oid: str) -> list[str]:
        return [status.resp for status in self.statuses if status.oid == oid]

    async def until(self, oid: str, resp: str) -> pk.Status:
        """The first status of an order that says this."""
        with trio.fail_after(LIMIT_S):
            while True:
                for status in self.statuses:
                    if (status.oid, status.resp) == (oid, resp):
                        return status
                await trio.sleep(0.005)

    def held(self) -> Decimal:
        for positions in self.positions.values():
            if FQME in positions:
                return positions[FQME].size  # type: ignore[no-any-return]
        return Decimal(0)


@asynccontextmanager
async def trader(fqmes: Any = FQME, **options: Any) -> AsyncIterator[Trader]:
    """A strategy that listens."""
    async with pk.open_ems(fqmes, **options) as opened:
        one = Trader(opened)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.listen)
            yield one
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()


async def until(test: Callable[[], object], what: str) -> None:
    """Wait for it, for so long. Raises TimeoutError that says what did not come."""
    with trio.move_on_after(LIMIT_S):
        while not test():
            await trio.sleep(0.005)
        return
    raise TimeoutError(f"not within {LIMIT_S:g} s: {what}")


class Peer:
    """A strategy in a process of its own, that does what it is told, line by line."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.statuses: dict[str, list[str]] = defaultdict(list)
        self.seqs: list[int] = []

    async def listen(self) -> None:
        assert self.process.stdout is not None
        received = b""
        async for chunk in self.process.stdout:
            *lines, received = (received + chunk).split(b"\n")
            for line in lines:
                self._take(line.decode())

    def _take(self, line: str) -> None:
        words = line.split()
        if words[0] == "status":
            self.statuses[words[1]].append(words[2])
            self.seqs.append(int(words[3]))
        else:
            self.lines.append(line)

    async def say(self, *words: object) -> None:
        assert self.process.stdin is not None
        line = " ".join(map(str, words)) + "\n"
        await self.process.stdin.send_all(line.encode())

    async def until(self, oid: str, resp: str) -> None:
        await until(lambda: resp in self.statuses[oid], f"{resp} of {oid}, {self.told}")

    async def hears(self, line: str) -> None:
        await until(lambda: line in self.lines, f"{line!r}, {self.told}")

    @property
    def told(self) -> str:
        return f"heard {dict(self.statuses)}, {self.lines}"

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def leave(self) -> None:
        """Have it end in order."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        assert await self.process.wait() == 0


class Peers:
    """Processes with strategies, ended with the block."""

    def __init__(self, nursery: trio.Nursery, namespace: str) -> None:
        self._nursery, self._namespace = nursery, namespace
        self._peers: list[Peer] = []

    async def open(self, *options: str) -> Peer:
        """One that has its orders open."""
        command = [sys.executable, "-m", "tests.ems_peer", *options]
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"PIKER_NAMESPACE": self._namespace},
        )
        peer = Peer(process)
        self._peers.append(peer)
        self._nursery.start_soon(peer.listen)
        await peer.hears("opened")
        return peer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with trio.CancelScope(shield=True):
            for peer in self._peers:
                with contextlib.suppress(ProcessLookupError):
                    peer.process.send_signal(signal.SIGCONT)
                    peer.process.kill()
                await peer.process.wait()


@asynccontextmanager
async def open_peers(namespace: str) -> AsyncIterator[Peers]:
    """Strategies of other processes."""
    async with trio.open_nursery() as nursery:
        async with Peers(nursery, namespace) as peers:
            yield peers
        nursery.cancel_scope.cancel()
