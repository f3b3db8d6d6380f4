"""A writer that goes on where another was killed, wherever that was."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
from bar_rows import FLAT, PARTIAL, REVISED
from numpy.typing import NDArray
from stepped import (
    FQME,
    SCENES,
    Call,
    NoTracing,
    State,
    in_engine,
    in_model,
    open_markets,
    restore,
    states_of_kill,
)

import piker_core as pk

VALUES = ["index", "time", "open", "high", "low", "close", "volume", "count", "bar_wap"]
BY_CLOCK = ("the clock", "the clock over a night")
MOST_STATES = 150


def all_rows(namespace: str, period: int, fqme: str = FQME) -> NDArray[np.void]:
    with pk.attach_bars(fqme, period=period, namespace=namespace) as bars:
        return bars.snapshot(bars.capacity)


def published(namespace: str) -> int:
    """Trades of the market in the tick ring."""
    with pk.attach_ticks("kraken", namespace=namespace) as ticks:
        return len(ticks.cursor(start="oldest", markets=[FQME]).poll())


def plain_flags(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """Flags that a recovery keeps: not REVISED in a flat row, which says little, nor
    PARTIAL, as the next writer does not know when the dead one began."""
    flags = rows["flags"].copy()
    flags[flags & FLAT != 0] &= ~REVISED
    return flags & ~PARTIAL


def check_rows(rows: NDArray[np.void], wanted: NDArray[np.void], where: str) -> None:
    assert len(rows) == len(wanted), where
    for name in VALUES:
        differ = np.flatnonzero(rows[name] != wanted[name])
        assert not len(differ), (where, name, rows[differ[:2]], wanted[differ[:2]])


def states_or_skip(
    namespace: str, scene: str = "", rings: list[Path] | None = None
) -> list[State]:
    try:
        return states_of_kill(namespace, scene, rings or ())
    except NoTracing as error:
        pytest.skip(f"no process may trace its child here: {error}")


def thinned(states: list[State]) -> list[tuple[int, State]]:
    """Some of the states, the first and the last always."""
    chosen = sorted(Random().sample(range(len(states)), min(MOST_STATES, len(states))))
    return [(n, states[n]) for n in sorted({0, len(states) - 1, *chosen})]


def check_recovered(namespace: str, call: Call, before: list[Call], where: str) -> None:
    """All that was published is in the rows of all periods, once."""
    fresh = published(namespace) - in_model(before).counters["ticks"]
    wanted = in_model([*before, (call[0], call[1][:fresh])])
    done = in_model([*before, call])
    for place, ring in enumerate(wanted.rings):
        rows, rows_wanted = all_rows(namespace, ring.period), ring.array()
        if len(rows) != len(rows_wanted) and not fresh:
            assert len(rows) > len(rows_wanted), (
                where
            )  # placeholders of a loss come first
            assert (
                rows["time"] == done.rings[place].array()["time"][: len(rows)]
            ).all()
            rows = rows[: len(rows_wanted)]
        check_rows(rows, rows_wanted, where)
        assert (plain_flags(rows) == plain_flags(rows_wanted)).all(), where


@pytest.mark.parametrize("scene", SCENES)
def test_a_kill_at_any_instruction_loses_and_repeats_nothing(
    namespace: str, scene: str
) -> None:
    before, call = SCENES[scene]
    done = in_model([*before, call])
    for n, state in thinned(states_or_skip(namespace, scene)):
        where = f"{scene}, state {n}"
        restore(state)
        with open_markets(namespace) as (engine, markets):
            if call[0] == "push":
                check_recovered(namespace, call, before, where)
            if done.feed_status == "closed":
                continue  # to the next writer, what it did not see is a loss
            markets[0].set_status("live", since_ns=0)
            in_engine(engine, markets, call)()
            for ring in done.rings:
                rows, wanted = all_rows(namespace, ring.period), ring.array()
                check_rows(rows, wanted, where)
                if scene not in ("trades after a loss", *BY_CLOCK):
                    assert (plain_flags(rows) == plain_flags(wanted)).all(), where


def test_a_kill_of_the_writer_that_recovers_loses_and_repeats_nothing(
    namespace: str,
) -> None:
    before, call = SCENES["disorder"]
    killed = states_or_skip(namespace, "disorder")
    restore(killed[len(killed) * 3 // 5])
    rings = [path for path in killed[0] if killed[0][path] != killed[-1][path]]
    bars = [path for path in rings if len(killed[0][path]) < 1 << 17]
    states = states_or_skip(namespace, rings=bars)
    assert len(states) > 20
    for n, state in thinned(states):
        restore(state)
        with open_markets(namespace):
            check_recovered(namespace, call, before, f"recovery, state {n}")
