"""A journal into rings: the same decode, the same calls, at any speed.

1. A replay depends on the journal alone: it asks no venue, and the clock only for when
   to go on. Each record is played in its order, with the times that it has.
2. A damaged journal ends where it is damaged: what is whole has been played.
3. Rings that are there already would be gone on with: they are refused.
"""

from collections.abc import Iterator
from os import PathLike, getpid

import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

from piker_core.adapter.played import Counts
from piker_core.adapter.player import Player
from piker_core.core.rings import attach_bars, checked_namespace
from piker_core.journal import Cut, read_journal
from piker_core.segments import list_segments, remove_segments

NS = 1_000_000_000
YIELD_EVERY = 256


class Report(msgspec.Struct, frozen=True):
    """What was replayed; `markets` are full names, `cut` where it is damaged."""

    counts: Counts
    markets: list[str]
    cut: Cut | None


async def replay(
    folder: str | PathLike[str], *, namespace: str | None = None, speed: float = 0.0
) -> Report:
    """Play a journal into the rings of a namespace, which stay.

    `speed`: 1 is real time, 10 ten times as fast, 0 as fast as it goes. Raises
    JournalError if there is no journal, SegmentError if the namespace has rings of its
    providers already, NotFound if one that is needed to decode frames is not installed.
    """
    if not speed >= 0:
        raise ValueError(f"speed {speed!r} must be 0 or a positive factor")
    space, begin_s, begin_ns = checked_namespace(namespace), trio.current_time(), -1
    with read_journal(folder) as reader, Player(space) as player:
        for number, record in enumerate(reader):
            if begin_ns < 0:
                begin_ns = record.time_ns
            due_s = begin_s + (record.time_ns - begin_ns) / NS / speed if speed else 0.0
            if due_s > trio.current_time():
                await trio.sleep_until(due_s)
            elif number % YIELD_EVERY == 0:
                await trio.lowlevel.checkpoint()
            player.play(record)
        player.counts.unknown += reader.statistics().unknown
        return Report(player.counts, sorted(player.markets), reader.cut)


def replay_bars(
    folder: str | PathLike[str],
) -> tuple[list[tuple[str, int, NDArray[np.void]]], Report]:
    """The rows of every market and period that a replay gives, and what it says.

    In rings of a namespace of its own, which are removed. Not to be called inside trio.
    """
    namespace = f"replay{getpid()}"
    try:
        report = trio.run(lambda: replay(folder, namespace=namespace))
        return list(_rows(namespace)), report
    finally:
        remove_segments(namespace, force=True)


def _rows(namespace: str) -> Iterator[tuple[str, int, NDArray[np.void]]]:
    for ring in list_segments(namespace):
        if ring.kind == "bars":
            name = ring.fqme, ring.period
            with attach_bars(name[0], period=name[1], namespace=namespace) as bars:
                yield *name, bars.snapshot(bars.head - bars.first)
