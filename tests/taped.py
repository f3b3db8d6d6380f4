"""What the tests of journals share: taps into a list, rings and what plays them."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.lib.recfunctions import repack_fields
from numpy.typing import NDArray

import piker_core as pk
from piker_core.adapter import events
from piker_core.adapter.played import Counts
from piker_core.adapter.player import Player
from piker_core.adapter.tap import Tap
from piker_core.adapter.tapped import TappedEngine
from piker_core.journal import Record

Rings = dict[tuple[str, int], NDArray[np.void]]


class Tape:
    """A sink of records that keeps them; while `broken` it loses them."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.epoch = 0
        self.broken = False
        self.connections = 0
        self.lost: list[str] = []

    def write(self, kind: int, body: bytes, source: int, time_ns: int = 0) -> None:
        if self.broken:
            self.epoch += 1
            return
        time_ns = time_ns or time.time_ns()
        self.records.append(Record(int(kind), time_ns, source, body))

    def lose(self, cause: str) -> None:
        self.lost.append(cause)
        self.epoch += 1

    def number_connection(self) -> int:
        self.connections += 1
        return self.connections


@contextmanager
def tapped(
    tape: Tape, namespace: str, *, provider: str = "kraken", module: str = ""
) -> Iterator[Any]:
    """An engine whose calls are written on a tape."""
    with pk.open_engine(provider, namespace=namespace, tick_capacity=4096) as engine:
        began = events.Began(provider=provider, engine=1, module=module)
        tap = Tap(tape, began, frames=bool(module))
        yield TappedEngine(tap, engine)
        tap.end()


def play(records: Iterable[Record], namespace: str) -> tuple[Rings, Counts]:
    """The rings that records give, in a namespace that is removed again."""
    try:
        with Player(namespace) as player:
            for record in records:
                player.play(record)
        return rings(player.markets, namespace), player.counts
    finally:
        pk.remove_segments(namespace)


MOST_TICKS = 4000
TICK_FIELDS = [name for name in pk.TICK_DTYPE.names or () if name != "recv_ns"]


def rings(fqmes: Iterable[str], namespace: str) -> Rings:
    """All rows of some markets, by name and period; 0: their provider's newest ticks.

    When a tick was received is left out: that is when it was replayed.
    """
    found: Rings = {}
    for provider in {fqme.rpartition(".")[2] for fqme in fqmes}:
        with pk.attach_ticks(provider, namespace=namespace) as ring:
            ticks = ring.cursor(start="oldest").poll(ring.capacity)[-MOST_TICKS:]
            found[provider, 0] = repack_fields(ticks[TICK_FIELDS])
    for fqme in fqmes:
        for period in (1, 60):
            with pk.attach_bars(fqme, period=period, namespace=namespace) as bars:
                found[fqme, period] = bars.snapshot(bars.head - bars.first)
    return found


def unequal(one: Rings, other: Rings) -> list[str]:
    """Rings that are not the same bit for bit, with the first row that differs."""
    wrong = []
    for key in sorted(one.keys() | other.keys()):
        mine, its = one.get(key), other.get(key)
        if mine is None or its is None or len(mine) != len(its):
            lengths = [None if each is None else len(each) for each in (mine, its)]
            wrong.append(f"{key}: rows {lengths}")
        elif mine.tobytes() != its.tobytes():
            place = int(np.flatnonzero(mine != its)[0])
            wrong.append(f"{key}, row {place}: {mine[place]} and {its[place]}")
    return wrong
