"""Nothing is left behind: no descriptor, mapping, thread or segment."""

import gc
import os
from pathlib import Path

import pytest
import trio

import piker_core as pk
from piker_core.segments import collect_segments
from tests.ring_making import BASE_S, FQME, NS, make, open_rings, paths, trades_at
from tests.storm_feed import look_at_memory

ATTACHES, OPENS, WAITS = 10_000, 1_000, 200


def held() -> tuple[int, int, int]:
    """Open files, mappings of rings, and threads of this process."""
    gc.collect()  # rings that earlier tests have left in cycles
    maps = Path("/proc/self/maps").read_text().count("/dev/shm/")
    return (
        sum(1 for _ in Path("/proc/self/fd").iterdir()),
        maps,
        sum(1 for _ in Path("/proc/self/task").iterdir()),
    )


def assert_held(before: tuple[int, int, int]) -> None:
    """No more than before; idle threads of earlier tests may have ended."""
    *files, threads = held()
    assert (*files, min(threads, before[2])) == (*before[:2], threads)


def test_ten_thousand_attaches_leave_nothing_behind(namespace: str) -> None:
    make(namespace)
    before = held()
    for _ in range(ATTACHES):
        with pk.attach_bars(FQME, namespace=namespace) as bars:
            bars.last()
        pk.attach_ticks("kraken", namespace=namespace).cursor("oldest").poll()
    assert_held(before)


def test_a_thousand_engines_leave_their_rings_and_nothing_else(namespace: str) -> None:
    files = paths(namespace)
    before = held()
    for i in range(OPENS):
        with open_rings(namespace) as (engine, market):
            engine.push_ticks(market, trades_at([(BASE_S + i) * NS], i + 1))
    assert_held(before)
    assert len(paths(namespace)) == len(files) + 2
    assert pk.attach_bars(FQME, namespace=namespace).generation == OPENS


@pytest.mark.skipif(
    "san" in os.environ.get("LD_PRELOAD", ""), reason="sanitizers have tables, too"
)
async def test_tables_of_ids_take_what_they_hold_and_at_most_a_megabyte_and_a_half(
    namespace: str,
) -> None:
    gc.collect()  # those of earlier tests
    before = look_at_memory().tables
    with open_rings(namespace) as (engine, market):
        for known, most in ((1, 8), (300, 16), (5000, 176), (140_000, 1536)):
            for number in range(market.last_id + 1, known + 1):
                engine.push_trade(market, BASE_S * NS, 1.0, 1.0, id=number)
            taken = (look_at_memory().tables - before) // 1024
            if not taken:
                pytest.skip("this kernel does not tell which pages are small ones")
            assert most / 2 < taken <= most
    del engine, market
    gc.collect()
    assert look_at_memory().tables <= before


def test_refused_attaches_and_openings_leave_nothing_behind(namespace: str) -> None:
    path = make(namespace)["bars"]
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" + whole[101:])
    before = held()
    for _ in range(OPENS):
        with pytest.raises(pk.SegmentError):
            pk.attach_bars(FQME, namespace=namespace)
        with pytest.raises(pk.SegmentError), open_rings(namespace):
            raise AssertionError("it opened")
    assert_held(before)


async def test_cancelled_waits_leave_neither_thread_nor_descriptor(
    namespace: str,
) -> None:
    make(namespace)
    bars = pk.attach_bars(FQME, namespace=namespace)
    cursor = pk.attach_ticks("kraken", namespace=namespace).cursor("live")
    before = held()
    for _ in range(WAITS):
        with trio.move_on_after(0.001) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bars.changed, bars.head)
                nursery.start_soon(cursor.ready)
        assert scope.cancelled_caught
    assert_held(before)


def test_collecting_removes_only_what_is_dead(namespace: str) -> None:
    other = f"{namespace}x"
    pid = os.fork()
    if not pid:
        engine = pk.open_engine("kraken", namespace=namespace)
        engine.add_market(FQME, capacity={1: 256, 60: 256})
        os._exit(0)
    os.waitpid(pid, 0)
    try:
        with open_rings(other):
            removed = collect_segments(namespace)
            assert {ring.namespace for ring in removed} == {namespace}
            assert len(removed) == 3 and not pk.list_segments(namespace)
            assert not collect_segments(other)
            assert len(pk.list_segments(other)) == 2
        assert not collect_segments(other)  # closed cleanly: the next one resumes
    finally:
        pk.remove_segments(other)
