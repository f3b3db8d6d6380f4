"""Shared memory that is full: an error that says so, nothing lost, others go on."""

import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest


@pytest.fixture
def in_small_shm() -> Callable[[str], str]:
    """Run a script where /dev/shm has 2 MB; what it printed."""
    mount = 'mount -t tmpfs -o size=2m tmpfs /dev/shm && exec "$@"'
    ways = (["unshare", "-m"], ["unshare", "-rm"])
    able = [
        way
        for way in ways
        if shutil.which("unshare")
        and not subprocess.run(
            [*way, "sh", "-c", mount, "sh", "true"], capture_output=True, check=False
        ).returncode
    ]
    if not able:
        pytest.skip("this machine allows no private mount of /dev/shm")

    def run(script: str) -> str:
        done = subprocess.run(
            [*able[0], "sh", "-c", mount, "sh", sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


GROW = """
import errno, os, sys
import piker_core as pk
NS, BASE = 10**9, 1_600_000_020
engine = pk.open_engine("kraken", tick_capacity=1024)
small = engine.add_market("a.kraken", periods=(1,), capacity={1: 1024}, fill="none")
big = engine.add_market("b.kraken", periods=(1,), capacity={1: 10**6}, fill="none")
for i in range(400):
    engine.push_trade(small, (BASE + i) * NS, 100.0, 1.0, id=i + 1)
rows = 0
try:
    while True:
        engine.push_trade(big, (BASE + rows) * NS, 100.0, 1.0, id=rows + 1)
        rows += 1
except OSError as error:
    assert error.errno == errno.ENOSPC, error
    assert "space" in str(error) and "--gc" in str(error), error
bars = pk.attach_bars("b.kraken")
assert bars.head - bars.first == rows, (bars.head - bars.first, rows)
assert bars.snapshot(rows)["time"].tolist() == list(range(BASE, BASE + rows))
left = os.statvfs("/dev/shm")
for i in range(400, 1400):
    engine.push_trade(small, (BASE + i) * NS, 100.0, 1.0, id=i + 1)
third = engine.add_market("c.kraken", periods=(1,), capacity={1: 256}, fill="none")
engine.push_trade(third, BASE * NS, 100.0, 1.0, id=1)
os.unlink(max(os.scandir("/dev/shm"), key=lambda entry: entry.stat().st_size).path)
sys.stdout.write(f"{rows * 152} {left.f_bavail * left.f_frsize}")
"""


def test_a_ring_that_finds_no_space_loses_nothing_and_leaves_room_for_others(
    in_small_shm: Callable[[str], str],
) -> None:
    held, left = (int(number) for number in in_small_shm(GROW).split())
    assert held > 1_000_000
    assert left > held // 10


REFUSE = """
import errno, os
import piker_core as pk
try:
    pk.open_engine("kraken", tick_capacity=1 << 20)
except OSError as error:
    assert error.errno == errno.ENOSPC and "space" in str(error), error
else:
    raise SystemExit("a tick ring of 64 MB fits into 2 MB")
assert os.listdir("/dev/shm") == []
engine = pk.open_engine("kraken", tick_capacity=1024)
with open("/dev/shm/filler", "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
    file.truncate(file.tell() - 12 * 4096)
before = sorted(os.listdir("/dev/shm"))
try:
    engine.add_market("a.kraken", periods=(1, 60, 3600))
except OSError as error:
    assert error.errno == errno.ENOSPC, error
else:
    raise SystemExit("three rings fit into twelve pages")
assert sorted(os.listdir("/dev/shm")) == before
os.unlink("/dev/shm/filler")
engine.add_market("a.kraken", periods=(1, 60, 3600))
"""


def test_rings_that_do_not_fit_are_refused_and_leave_nothing_behind(
    in_small_shm: Callable[[str], str],
) -> None:
    in_small_shm(REFUSE)


def test_history_that_finds_no_space_is_an_error_that_loses_nothing(
    in_small_shm: Callable[[str], str],
) -> None:
    said = in_small_shm(
        """
import sys
import numpy as np
import piker_core as pk
engine = pk.open_engine("kraken", tick_capacity=1024)
market = engine.add_market("a.kraken", periods=(1,), capacity={1: 10**6})
rows = np.zeros(20_000, pk.OHLCV_DTYPE)
rows["time"] = np.arange(20_000) + 1_600_000_000
for name in ("open", "high", "low", "close", "bar_wap"):
    rows[name] = 1.0
try:
    market.bars[1].prepend(rows)
except OSError as error:
    sys.stdout.write(str(error))
assert market.bars[1].head == market.bars[1].first
assert market.bars[1].prepend(rows[-2000:]) == 2000
"""
    )
    assert "no space" in said
