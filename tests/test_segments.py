"""Listing and removing the rings of this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import piker_core as pk
from piker_core import segments
from piker_core.core.rings import describe_segment
from piker_core.segments import SegmentInfo, collect_segments, list_segments, ring_name

SHM = Path("/dev/shm")
BASE_NS = 1_600_000_000_000_000_000
SMALL = {1: 128, 60: 128}
WRITER = """
import sys, time
import piker_core as pk
provider, namespace, *markets = sys.argv[1:]
engine = pk.open_engine(provider, namespace=namespace, tick_capacity=64)
for name in markets:
    market = engine.add_market(f"{name}.{provider}", capacity={1: 128, 60: 128})
    market.set_status("live")
    engine.push_trade(market, 1600000000000000000, 100.0, 1.0, id=1)
sys.stdout.write("ready\\n")
sys.stdout.flush()
for line in sys.stdin:
    engine.push_trade(market, 1600000001000000000, 100.0, 1.0, id=2)
    sys.stdout.write("pushed\\n")
    sys.stdout.flush()
"""


@contextmanager
def writer(
    namespace: str, provider: str = "kraken", *markets: str
) -> Iterator[subprocess.Popen[str]]:
    """A process that writes the rings of some markets until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, provider, namespace, *(markets or ("xbtusd",))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def killed(namespace: str, provider: str = "kraken", *markets: str) -> None:
    with writer(namespace, provider, *markets):
        pass


def make_rings(
    namespace: str, symbol: str = "xbtusd", provider: str = "kraken"
) -> None:
    """Rings of one market, closed cleanly."""
    with pk.open_engine(provider, namespace=namespace, tick_capacity=64) as engine:
        market = engine.add_market(f"{symbol}.{provider}", capacity=SMALL)
        market.set_status("live")
        engine.push_trade(market, BASE_NS, 100.0, 1.0, id=1)


def by_kind(namespace: str) -> dict[str, list[SegmentInfo]]:
    found: dict[str, list[SegmentInfo]] = {}
    for ring in list_segments(namespace):
        found.setdefault(ring.kind, []).append(ring)
    return found


def bar_path(namespace: str, symbol: str = "xbtusd") -> Path:
    return SHM / ring_name(namespace, "kraken", f"{symbol}.kraken", 1)


def tick_path(namespace: str) -> Path:
    return SHM / ring_name(namespace, "kraken")


def age(path: Path) -> None:
    """Make a file look older than any creation lasts."""
    then = time.time() - segments.BLANK_S - 1
    os.utime(path, (then, then))


def test_rings_of_a_living_writer_are_listed_with_what_their_headers_say(
    namespace: str,
) -> None:
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=64) as engine:
        market = engine.add_market("xbtusd.kraken", capacity=SMALL)
        market.set_status("live")
        for second in range(3):
            engine.push_trade(
                market, BASE_NS + second * 10**9, 100.0, 1.0, id=1 + second
            )
        engine.step(time.time_ns())
        ticks, seconds, minutes = list_segments(namespace)
    assert (ticks.kind, ticks.period, ticks.rows, ticks.fqme) == ("ticks", 0, 3, "")
    assert (seconds.kind, seconds.period, minutes.period) == ("bars", 1, 60)
    assert seconds.fqme == minutes.fqme == "xbtusd.kraken"
    assert seconds.status == "live"
    for ring in (ticks, seconds, minutes):
        assert ring.namespace == namespace
        assert ring.provider == "kraken"
        assert ring.writer_alive
        assert not ring.dead
        assert ring.writer_pid == os.getpid()
        assert ring.generation == 1
        assert ring.size == Path(ring.path).stat().st_size
        assert 0 < ring.committed <= ring.size
        assert 0 <= ring.age_s < 60
        assert abs(time.time_ns() - ring.heartbeat_ns) < 60e9


def test_a_ring_is_named_as_the_engine_names_it(namespace: str) -> None:
    make_rings(namespace)
    names = {path.name for path in SHM.iterdir()}
    assert ring_name(namespace, "kraken") in names
    assert ring_name(namespace, "kraken", "xbtusd.kraken", 1) in names
    assert ring_name(namespace, "kraken", "xbtusd.kraken", 60) in names


def test_a_ring_of_a_name_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(pk.NotFound, match="there is no"):
        describe_segment(b"pk00000000.0000000000000000")


def test_the_namespace_of_the_environment_is_the_default(namespace: str) -> None:
    make_rings(namespace)
    assert [ring.namespace for ring in list_segments()] == [namespace] * 3


@pytest.mark.parametrize("name", ["", "a/b", "x" * 64, "späte"])
def test_a_misspelt_namespace_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Callable[[str], object]] = [
        list_segments,
        collect_segments,
        pk.remove_segments,
    ]
    for call in calls:
        with pytest.raises(pk.PikerError, match="namespace"):
            call(name)


def test_another_namespace_is_listed_only_where_all_are_asked_for(
    namespace: str,
) -> None:
    other = namespace + "other"
    make_rings(namespace)
    make_rings(other)
    try:
        assert {ring.namespace for ring in list_segments(namespace)} == {namespace}
        everywhere = {ring.namespace for ring in list_segments(everywhere=True)}
        assert {namespace, other} <= everywhere
        assert pk.remove_segments(namespace) == 3
        assert len(list_segments(other)) == 3
    finally:
        pk.remove_segments(other)


def test_rings_closed_cleanly_are_kept_by_a_collection(namespace: str) -> None:
    make_rings(namespace)
    assert collect_segments(namespace) == []
    rings = list_segments(namespace)
    assert [ring.status for ring in rings] == ["", "stopped", "stopped"]
    assert not any(ring.dead or ring.writer_alive for ring in rings)


def test_rings_of_a_killed_writer_are_dead_and_collected(namespace: str) -> None:
    killed(namespace)
    rings = list_segments(namespace)
    assert [ring.dead for ring in rings] == [True] * 3
    removed = collect_segments(namespace)
    assert {ring.name for ring in removed} == {ring.name for ring in rings}
    assert list_segments(namespace) == []
    assert collect_segments(namespace) == []


def test_a_killed_writers_rings_go_and_the_rings_beside_them_stay(
    namespace: str,
) -> None:
    killed(namespace, "kraken", "dead")
    make_rings(namespace, "stopped")
    make_rings(namespace, "other", "binance")
    removed = collect_segments(namespace)
    assert {ring.fqme for ring in removed} == {"dead.kraken"}
    kept = [
        (ring.provider, ring.fqme, ring.period) for ring in list_segments(namespace)
    ]
    assert kept == [
        ("binance", "", 0),
        ("binance", "other.binance", 1),
        ("binance", "other.binance", 60),
        ("kraken", "", 0),
        ("kraken", "stopped.kraken", 1),
        ("kraken", "stopped.kraken", 60),
    ]
    with pk.attach_bars("stopped.kraken", namespace=namespace) as bars:
        assert len(bars.snapshot(10)) == 1


def test_a_writer_that_is_stopped_by_a_signal_still_lives(namespace: str) -> None:
    with writer(namespace) as process:
        process.send_signal(signal.SIGSTOP)
        assert collect_segments(namespace) == []
        with pytest.raises(pk.WriterBusy):
            pk.remove_segments(namespace)
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("push\n")
        process.stdin.flush()
        assert process.stdout.readline() == "pushed\n"
        with pk.attach_bars("xbtusd.kraken", namespace=namespace) as bars:
            assert len(bars.snapshot(10)) == 2


def test_nothing_is_removed_while_one_writer_of_the_namespace_lives(
    namespace: str,
) -> None:
    make_rings(namespace, "idle", "binance")
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=64) as engine:
        engine.add_market("xbtusd.kraken", capacity=SMALL)
        with pytest.raises(
            pk.WriterBusy, match=rf"process {os.getpid()} writes kraken"
        ):
            pk.remove_segments(namespace)
        assert len(list_segments(namespace)) == 6
        assert pk.remove_segments(namespace, force=True) == 6
        assert list_segments(namespace) == []
    make_rings(namespace)
    assert pk.remove_segments(namespace) == 3


def test_a_namespace_without_rings_has_nothing_to_remove(namespace: str) -> None:
    assert pk.remove_segments(namespace) == 0


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF
    path.write_bytes(content)


def other_version(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8] = 2
    path.write_bytes(content)


def replace_by_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def replace(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        path.unlink()
        make(path)

    return act


SPOILT: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "damaged header": ("damaged", "damaged header", damage),
    "cut": ("damaged", "sizes", lambda path: os.truncate(path, 8192)),
    "other version": ("foreign", "layout version 2", other_version),
    "text": (
        "foreign",
        "no piker-core ring",
        lambda path: path.write_text("hello" * 999),
    ),
    "empty": ("blank", "blank", lambda path: path.write_bytes(b"")),
    "zeros": ("blank", "blank", lambda path: path.write_bytes(bytes(70_000))),
    "folder": ("foreign", "not a file", replace(Path.mkdir)),
    "link": (
        "foreign",
        "cannot be opened",
        replace(lambda p: p.symlink_to("/etc/motd")),
    ),
    "dangling link": ("foreign", "cannot", replace(lambda p: p.symlink_to("nothing"))),
    "fifo": ("foreign", "not a file", replace(os.mkfifo)),
    "socket": ("foreign", "cannot be opened", replace_by_socket),
}
SPECIAL = {"folder", "link", "dangling link", "fifo", "socket"}


@pytest.mark.parametrize("ring", [bar_path, tick_path])
@pytest.mark.parametrize("what", SPOILT)
def test_what_is_no_ring_is_listed_with_the_reason_and_not_collected(
    what: str, ring: Callable[[str], Path], namespace: str
) -> None:
    kind, reason, spoil = SPOILT[what]
    make_rings(namespace)
    path = ring(namespace)
    spoil(path)
    try:
        [spoilt] = [found for found in list_segments(namespace) if found.reason]
        assert spoilt.kind == kind
        assert reason in spoilt.reason
        assert spoilt.path == str(path)
        assert not spoilt.dead
        collect_segments(namespace)
        assert os.path.lexists(path)
        if ring is tick_path and what in SPECIAL:
            with pytest.raises(pk.SegmentError, match="cannot be locked"):
                pk.remove_segments(namespace)
            assert len(list_segments(namespace)) == 3
        pk.remove_segments(namespace, force=what in SPECIAL)
        assert os.path.lexists(path) == (what == "folder")
    finally:
        if path.is_dir():
            path.rmdir()


def test_a_copy_of_a_ring_under_another_name_is_foreign(namespace: str) -> None:
    make_rings(namespace)
    copy = SHM / ring_name(namespace, "kraken", "copy.kraken", 1)
    copy.write_bytes(bar_path(namespace).read_bytes())
    assert [
        (ring.path, "copy" in ring.reason) for ring in by_kind(namespace)["foreign"]
    ] == [(str(copy), True)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
def test_a_file_of_another_user_is_listed_and_never_removed(namespace: str) -> None:
    make_rings(namespace)
    path = bar_path(namespace)
    os.chown(path, 65534, 65534)
    try:
        [foreign] = by_kind(namespace)["foreign"]
        assert "another user's (uid 65534)" in foreign.reason
        assert collect_segments(namespace) == []
        assert pk.remove_segments(namespace) == 2
        assert path.exists()
    finally:
        path.unlink()


def test_a_creation_that_died_is_collected_once_it_is_old(namespace: str) -> None:
    path = bar_path(namespace)
    path.write_bytes(bytes(4096))
    assert collect_segments(namespace) == []
    age(path)
    [ring] = list_segments(namespace)
    assert (ring.kind, ring.dead) == ("blank", True)
    assert [removed.path for removed in collect_segments(namespace)] == [str(path)]
    assert not path.exists()


def test_a_blank_file_stays_while_a_writer_of_its_namespace_lives(
    namespace: str,
) -> None:
    path = bar_path(namespace, "ethusd")
    with pk.open_engine("binance", namespace=namespace, tick_capacity=64):
        path.write_bytes(b"")
        age(path)
        assert collect_segments(namespace) == []
        assert path.exists()


def test_bars_whose_tick_ring_is_gone_are_collected_and_no_lock_stays(
    namespace: str,
) -> None:
    killed(namespace)
    tick_path(namespace).unlink()
    assert len(collect_segments(namespace)) == 2
    assert list_segments(namespace) == []


def test_bars_whose_tick_ring_is_gone_are_removed_and_no_lock_stays(
    namespace: str,
) -> None:
    make_rings(namespace)
    tick_path(namespace).unlink()
    assert pk.remove_segments(namespace) == 2
    assert list_segments(namespace) == []


def test_a_lock_is_that_of_the_file_which_has_the_name_now(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening a file and locking it, somebody else removes and remakes it."""
    killed(namespace)
    path, take = tick_path(namespace), segments._take
    taken: list[int] = []

    def slow_take(descriptor: int) -> None:
        if not taken:
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
        take(descriptor)
        taken.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(segments, "_take", slow_take)
    assert len(collect_segments(namespace)) == 3
    assert len(set(taken)) == 2


RESTARTS = """
import gc
import sys
import piker_core as pk
namespace = sys.argv[1]
opened = busy = 0
while opened < 300:
    try:
        engine = pk.open_engine("kraken", namespace=namespace, tick_capacity=64)
    except pk.WriterBusy:
        busy += 1
        assert busy < 100_000
        continue
    market = engine.add_market("xbtusd.kraken", capacity={1: 128, 60: 128})
    market.set_status("live")
    engine.push_trade(market, 1600000000000000000 + opened * 10**9, 100.0, 1.0)
    reader = pk.attach_bars("xbtusd.kraken", namespace=namespace)
    assert reader.last()["close"] == 100.0
    opened += 1
    if opened % 3 == 0:
        engine.close()
    del engine, market, reader
    gc.collect()
sys.stdout.write(str(opened))
"""


def test_a_writer_that_is_just_opening_keeps_its_rings(namespace: str) -> None:
    """A process opens rings over and over; dropped without close, they look killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", RESTARTS, namespace],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    removed = 0
    while process.poll() is None:
        removed += len(collect_segments(namespace))
    out, err = process.communicate()
    assert (out, process.returncode) == ("300", 0), err
    assert removed + len(collect_segments(namespace)) > 0  # the last ones are dead now


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 1567), st.binary(min_size=1, max_size=8)), max_size=8
    ),
    length=st.none() | st.integers(0, 8192),
)
def test_no_header_makes_a_listing_fail(
    changes: list[tuple[int, bytes]], length: int | None, namespace: str
) -> None:
    path = bar_path(namespace)
    if not path.exists():
        make_rings(namespace)
    good = path.read_bytes()
    content = bytearray(good)
    for place, new in changes:
        content[place : place + len(new)] = new
    try:
        path.write_bytes(content[:length])
        [ring] = [ring for ring in list_segments(namespace) if ring.path == str(path)]
        assert ring.kind in ("bars", "blank", "damaged", "foreign")
        assert bool(ring.reason) == (ring.kind != "bars")
    finally:
        path.write_bytes(good)
