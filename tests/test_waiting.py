"""Waiting for rings: threads on a futex, trio tasks by a doorbell, nothing left."""

import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import piker_core as pk
from piker_core import waiting
from tests.ring_making import BASE_S, FQME, NS, START, open_rings, trades_at

SOON_S = 20.0
"""A watchdog for what happens at once; nothing is measured by it."""
PLACES = 56
IDLE_S = 2.0
KEY = os.getpid() << 16 | 1
"""Of a doorbell: their addresses belong to the machine, not to a test run."""


@pytest.fixture
def rings(namespace: str) -> Iterator[tuple[pk.FeedEngine, pk.Market]]:
    with open_rings(namespace) as pair:
        yield pair


class Pusher:
    """Pushes one trade in a second of its own at each call."""

    def __init__(self, pair: tuple[pk.FeedEngine, pk.Market]) -> None:
        self.engine, self.market = pair
        self.pushed = 0

    def __call__(self) -> None:
        time_ns = (BASE_S + self.pushed) * NS
        self.engine.push_ticks(self.market, trades_at([time_ns], self.pushed + 1))
        self.pushed += 1


@pytest.fixture
def push(rings: tuple[pk.FeedEngine, pk.Market]) -> Pusher:
    return Pusher(rings)


def wait_page(namespace: str, kind: str = "bars") -> bytes:
    """The page in which readers announce that they wait."""
    (ring,) = (r for r in pk.list_segments(namespace) if r.kind == kind)
    page = os.sysconf("SC_PAGESIZE")
    return Path(ring.path).read_bytes()[page : page + 512]


def keys(namespace: str, kind: str = "bars") -> list[int]:
    """Doorbells that are hung out."""
    words = struct.unpack_from(f"<{PLACES}Q", wait_page(namespace, kind), 64)
    return [key for key in words if key]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def until(truth: Any) -> None:
    """Give other threads the processor until something is true."""
    end = time.monotonic() + SOON_S
    while not truth():
        assert time.monotonic() < end, "it never became true"
        os.sched_yield()


def waits_on_futex(thread: threading.Thread) -> bool:
    """Whether the kernel has put a thread to sleep in a futex call."""
    path = Path(f"/proc/self/task/{thread.native_id}/syscall")
    return path.read_text().split()[0] == FUTEX_CALL


FUTEX_CALL = {"x86_64": "202", "aarch64": "98"}.get(os.uname().machine, "")


# ---- threads -------------------------------------------------------------------------


def test_wait_returns_at_once_when_the_head_is_there_already(push: Pusher) -> None:
    bars = pk.attach_bars(FQME)
    push()
    assert bars.wait(after=START) == START + 1
    assert bars.wait(after=-5) == START + 1


def test_wait_returns_the_old_head_when_time_is_up(push: Pusher) -> None:
    bars = pk.attach_bars(FQME)
    for timeout in (0, 0.001, -1, -float("inf")):
        assert bars.wait(after=START, timeout=timeout) == START


def test_a_cursor_that_waits_says_whether_there_is_a_tick(push: Pusher) -> None:
    cursor = pk.attach_ticks("kraken").cursor()
    assert cursor.wait(timeout=0.001) is False
    push()
    assert cursor.wait(timeout=None) is True
    cursor.poll()
    assert cursor.wait(timeout=0) is False


@pytest.mark.parametrize("timeout", [float("nan"), "1", []])
def test_a_timeout_that_is_no_time_is_refused(timeout: Any, push: Pusher) -> None:
    bars = pk.attach_bars(FQME)
    with pytest.raises((ValueError, TypeError)):
        bars.wait(after=START, timeout=timeout)


@pytest.mark.skipif(not FUTEX_CALL, reason="number of the futex call is not known here")
def test_a_sleeping_thread_is_woken_by_a_publish_without_the_gil(
    namespace: str, push: Pusher
) -> None:
    bars = pk.attach_bars(FQME)
    heads: list[int] = []
    thread = threading.Thread(target=lambda: heads.append(bars.wait(after=START)))
    thread.start()
    until(lambda: waits_on_futex(thread))
    waiting_before, turn_before = struct.unpack_from("<2I", wait_page(namespace))
    push()
    thread.join(SOON_S)
    assert heads == [START + 1]
    assert (waiting_before, struct.unpack_from("<2I", wait_page(namespace))) == (
        *(1, (0, turn_before + 1)),
    )


def test_every_one_of_many_publishes_is_seen_by_every_waiting_thread(
    namespace: str, push: Pusher
) -> None:
    count, followers = 300, 4
    ends: list[int] = []
    turns = threading.Semaphore(0)

    def follow() -> None:
        head = START
        with pk.attach_bars(FQME, namespace=namespace) as bars:
            turns.release()
            while head < START + count:
                head = bars.wait(after=head, timeout=SOON_S)
                turns.release()
        ends.append(head)

    threads = [threading.Thread(target=follow) for _ in range(followers)]
    for thread in threads:
        thread.start()
    for _ in range(count):
        for _ in range(followers):
            assert turns.acquire(timeout=SOON_S)
        push()
    for thread in threads:
        thread.join(SOON_S)
    assert ends == [START + count] * followers


INTERRUPTED = """
import signal, sys
import piker_core as pk
bars = pk.attach_bars("xbtusd.kraken", namespace=sys.argv[1])
class Stop(Exception): pass
def say(what):
    sys.stdout.write(what + "\\n")
    sys.stdout.flush()
def stop(*_):
    raise Stop
signal.signal(signal.SIGUSR1, stop)
signal.signal(signal.SIGUSR2, lambda *_: say("handled"))
say("ready")
try:
    bars.wait(after=bars.head)
except Stop:
    say("stopped")
"""


def test_a_waiting_main_thread_handles_signals_and_waits_on_unless_they_raise(
    namespace: str, push: Pusher
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, namespace],
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        status = Path(f"/proc/{child.pid}/syscall")
        until(lambda: status.read_text().split()[0] == FUTEX_CALL or not FUTEX_CALL)
        child.send_signal(signal.SIGUSR2)
        assert child.stdout.readline() == "handled\n"
        child.send_signal(signal.SIGUSR1)
        assert child.stdout.readline() == "stopped\n"
        assert child.wait(SOON_S) == 0


def test_a_publish_leaves_the_wait_page_alone_while_nobody_waits(
    namespace: str, push: Pusher
) -> None:
    push()
    turn = wait_page(namespace)[4:8]
    for _ in range(100):
        push()
    assert wait_page(namespace)[4:8] == turn
    bars = pk.attach_bars(FQME)
    bars.wait(after=bars.head, timeout=0.001)
    push()
    assert wait_page(namespace)[4:8] != turn


# ---- trio ----------------------------------------------------------------------------


def test_a_thread_that_waits_sleeps_all_the_time(push: Pusher, namespace: str) -> None:
    push()
    bars = pk.attach_bars(FQME, namespace=namespace)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    bars.wait(bars.head, timeout=IDLE_S)
    woken = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
    assert woken < 10 * IDLE_S  # one that polls each millisecond is woken a thousand


async def test_a_task_that_waits_sleeps_nearly_all_the_time(
    push: Pusher, namespace: str
) -> None:
    push()
    bars = pk.attach_bars(FQME, namespace=namespace)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    with trio.move_on_after(IDLE_S):
        await bars.changed(bars.head)
    woken = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
    assert woken < 30 * IDLE_S


async def test_changed_and_ready_return_at_once_after_a_checkpoint(
    push: Pusher,
) -> None:
    push()
    bars, cursor = pk.attach_bars(FQME), pk.attach_ticks("kraken").cursor("oldest")
    with trio.testing.assert_checkpoints():
        assert await bars.changed(after=START) == START + 1
    with trio.testing.assert_checkpoints():
        await cursor.ready()


async def test_a_publish_wakes_every_task_that_waits(
    namespace: str, push: Pusher
) -> None:
    heads: list[int] = []
    with trio.fail_after(SOON_S):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                bars = pk.attach_bars(FQME)
                nursery.start_soon(collect, bars, heads)
            while len(keys(namespace)) < 5:
                await trio.lowlevel.checkpoint()
            push()
    assert heads == [START + 1] * 5


async def collect(bars: pk.BarReader, heads: list[int]) -> None:
    heads.append(await bars.changed(after=START))


async def test_a_cursor_is_ready_when_a_tick_of_any_market_is_there(
    namespace: str, push: Pusher
) -> None:
    cursor = pk.attach_ticks("kraken").cursor()
    with trio.fail_after(SOON_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cursor.ready)
            while not keys(namespace, "ticks"):
                await trio.lowlevel.checkpoint()
            push()
    assert len(cursor.poll()) == 1


async def test_cancelling_a_wait_leaves_no_file_thread_or_doorbell(
    namespace: str, push: Pusher
) -> None:
    bars, cursor = pk.attach_bars(FQME), pk.attach_ticks("kraken").cursor()
    files, threads = open_files(), threading.active_count()
    for _ in range(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bars.changed, START)
            nursery.start_soon(cursor.ready)
            while not (keys(namespace) and keys(namespace, "ticks")):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert keys(namespace) == keys(namespace, "ticks") == []
    assert open_files() == files
    assert threading.active_count() <= threads  # idle ones of earlier tests may end


async def test_a_wait_that_was_answered_leaves_nothing_behind(
    namespace: str, push: Pusher
) -> None:
    bars = pk.attach_bars(FQME)
    files = open_files()
    with trio.fail_after(SOON_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bars.changed, START)
            while not keys(namespace):
                await trio.lowlevel.checkpoint()
            push()
    assert keys(namespace) == []
    assert open_files() == files


async def test_no_publish_is_missed_between_the_look_and_the_sleep(
    push: Pusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The doorbell alone must wake: a lost ring would hang until the watchdog.
    monkeypatch.setattr(waiting, "SAFETY_S", 10 * SOON_S)
    bars = pk.attach_bars(FQME)
    head = START
    with trio.fail_after(2 * SOON_S):
        async with trio.open_nursery() as nursery:
            for turn in range(300):
                nursery.start_soon(push_after, push, turn % 4)
                head = await bars.changed(after=head)
                assert head == START + turn + 1


async def push_after(push: Pusher, checkpoints: int) -> None:
    for _ in range(checkpoints):
        await trio.lowlevel.checkpoint()
    push()


async def test_more_waiters_than_places_for_doorbells_are_all_woken(
    namespace: str, push: Pusher
) -> None:
    bars = pk.attach_bars(FQME)
    heads: list[int] = []
    waiters = PLACES + 10
    with trio.fail_after(SOON_S):
        async with trio.open_nursery() as nursery:
            for _ in range(waiters):
                nursery.start_soon(collect, bars, heads)
            while len(keys(namespace)) < PLACES:
                await trio.lowlevel.checkpoint()
            push()
    assert heads == [START + 1] * waiters
    assert keys(namespace) == []


async def test_the_doorbell_of_a_killed_reader_is_taken_down_by_the_writer(
    namespace: str, push: Pusher
) -> None:
    bars = pk.attach_bars(FQME)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
        bell.bind(f"\0piker-core-{KEY:016x}")
        assert bars.doorbell(-1, KEY) == 0
    assert keys(namespace) == [KEY]
    push()
    assert keys(namespace) == []


async def test_a_doorbell_whose_reader_does_not_read_never_holds_up_the_writer(
    namespace: str, push: Pusher
) -> None:
    bars = pk.attach_bars(FQME)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
        bell.bind(f"\0piker-core-{KEY:016x}")
        place = bars.doorbell(-1, KEY)
        for _ in range(2000):
            bars.doorbell(place, 0)
            push()
        assert keys(namespace) == [KEY]
        bars.doorbell(place, KEY)
    assert keys(namespace) == []


def test_a_place_that_is_none_is_refused(push: Pusher) -> None:
    bars, cursor = pk.attach_bars(FQME), pk.attach_ticks("kraken").cursor()
    for place in (PLACES, 2**31 - 1):
        for key in (0, 5):
            with pytest.raises(ValueError, match="no place"):
                bars.doorbell(place, key)
            with pytest.raises(ValueError, match="no place"):
                cursor.doorbell(place, key)


async def test_a_reader_closed_while_a_task_waits_for_it_ends_the_wait(
    namespace: str, push: Pusher
) -> None:
    bars = pk.attach_bars(FQME)
    files = open_files()

    async def close_when_waited_for() -> None:
        while not keys(namespace):
            await trio.lowlevel.checkpoint()
        bars.close()
        push()

    with trio.fail_after(SOON_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_when_waited_for)
            with pytest.raises(pk.PikerError, match="closed"):
                await bars.changed(after=START)
    assert open_files() == files
