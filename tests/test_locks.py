"""The writer's lock: one writer, no lock outlives it, asking never takes it."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

import piker_core as pk
from tests.ring_making import FQME, attach, make, open_again, open_rings


def test_a_second_writer_is_told_so_in_the_same_process_too(namespace: str) -> None:
    with open_rings(namespace):
        with pytest.raises(pk.WriterBusy, match="kraken"):
            pk.open_engine("kraken", namespace=namespace)
        pk.open_engine("binance", namespace=namespace).close()
    open_again(namespace)


def test_the_lock_is_not_kept_by_what_a_forked_child_inherited(namespace: str) -> None:
    script = """
import os, sys, time
import piker_core as pk
engine = pk.open_engine("kraken", namespace=sys.argv[1], tick_capacity=64)
market = engine.add_market("xbtusd.kraken", periods=(1,), capacity={1: 256})
if os.fork():
    sys.stdin.readline()
    os._exit(0)
try:
    engine.step(0)
    said = "stepped"
except pk.PikerError:
    said = "refused"
sys.stdout.write(f"{os.getpid()} {said}\\n")
sys.stdout.flush()
time.sleep(600)
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", script, namespace],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    with writer:
        assert writer.stdout
        child, said = writer.stdout.readline().split()
        try:
            assert said == "refused"
            bars = pk.attach_bars(FQME, namespace=namespace)
            lives = [bars.writer_alive]
            writer.kill()
            writer.wait(20)
            assert Path(f"/proc/{child}").exists()
            lives.append(bars.writer_alive)
            assert lives == [True, False]
            open_again(namespace)
        finally:
            os.kill(int(child), 9)
            writer.kill()


def test_nothing_of_a_ring_is_left_in_a_program_that_is_executed(
    namespace: str,
) -> None:
    with open_rings(namespace) as (engine, _):
        bars = pk.attach_bars(FQME, namespace=namespace)
        child = subprocess.Popen(
            ["sleep", "600"], close_fds=False, stdout=subprocess.PIPE
        )
        try:
            folder = Path(f"/proc/{child.pid}")
            while (folder / "comm").read_text() != "sleep\n":
                os.sched_yield()
            files = [str(link.readlink()) for link in (folder / "fd").iterdir()]
            assert not [name for name in files if "/dev/shm/pk" in name]
            assert "/dev/shm/pk" not in (folder / "maps").read_text()
            engine.close()
            assert not bars.writer_alive
        finally:
            child.kill()
            child.communicate()


def test_asking_whether_a_writer_lives_never_takes_the_lock(namespace: str) -> None:
    make(namespace)
    bars = pk.attach_bars(FQME, namespace=namespace)
    files = open_files()
    for _ in range(100):
        assert not bars.writer_alive
        with pk.open_engine("kraken", namespace=namespace):
            assert bars.writer_alive
    assert open_files() == files


def test_an_engine_that_is_closed_or_dropped_leaves_no_file_or_mapping(
    namespace: str,
) -> None:
    make(namespace)
    gc.collect()
    files, maps = open_files(), own_maps()
    for _ in range(20):
        open_again(namespace)
        engine = pk.open_engine("kraken", namespace=namespace)
        engine.add_market(FQME, periods=(1,))
        del engine
        gc.collect()
        attach("bars", namespace)
        attach("ticks", namespace)
    assert (open_files(), own_maps()) == (files, maps)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def own_maps() -> int:
    return Path("/proc/self/maps").read_text().count("/dev/shm/")
