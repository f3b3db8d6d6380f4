"""Time that goes faster, by libfaketime (Debian's package `faketime`).

`faketime -m -f '+0 x12'` runs a program and its children under one clock that goes 12
times as fast: what `clock_gettime` tells C and Python, CLOCK_MONOTONIC too, and the
time-outs of epoll, poll, select and nanosleep, so those of trio. Not accelerated are
time-outs of futexes and of locks between threads (`BarReader.wait`, `TickCursor.wait`;
they are woken at once by what they wait for), and idle threads of trio live longer. A
storm waits by trio alone. The processor is not accelerated either: what is measured
under load is how a machine does that is 12 times as slow.

Is it true on this machine? `python -m tests.storm_speed 12` prints how fast each goes.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import trio

import piker_core as pk

_WAIT_S = 6.0


class Meter:
    """How fast the time of this process goes; the kernel tells the real one."""

    def __init__(self) -> None:
        self._begun = self._look()

    def speeds(self) -> list[float]:
        """Of the wall clock, and of the clock of time-outs, since the beginning."""
        wall_s, steady_s, real_s = (
            now - then for now, then in zip(self._look(), self._begun, strict=True)
        )
        return [round(wall_s / real_s, 2), round(steady_s / real_s, 2)]

    def _look(self) -> tuple[float, float, float]:
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
        return time.time(), time.monotonic(), uptime_s


def accelerate(speed: float, arguments: Sequence[str]) -> None:
    """Begin this program anew under a faster clock. Returns if it goes so fast already.

    Exits with a sentence if libfaketime is not installed.
    """
    if speed == 1 or "FAKETIME" in os.environ:
        return
    faketime = shutil.which("faketime")
    if faketime is None:
        sys.exit("--speed needs libfaketime: apt-get install faketime")
    os.environ["NO_FAKE_STAT"] = "1"
    command = [faketime, "-m", "-f", f"+0 x{speed:g}", sys.executable, *arguments]
    os.execv(faketime, command)


def engine_clock_ns() -> int:
    """What the clock of the core says: C asks for the time by itself."""
    namespace = f"storm{os.getpid()}"
    try:
        with pk.open_engine("speed", namespace=namespace, tick_capacity=1024) as engine:
            engine.step(time.time_ns())
            with pk.attach_ticks("speed", namespace=namespace) as ticks:
                return ticks.heartbeat_ns
    finally:
        pk.remove_segments(namespace, force=True)


def measure() -> dict[str, list[float]]:
    """How fast the clocks go while something waits.

    Of `core`: beside that of Python, so 1 if both are the same.
    """
    meter, core_ns, begun_ns = Meter(), engine_clock_ns(), time.time_ns()
    trio.run(trio.sleep, _WAIT_S)
    found = {"trio.sleep": meter.speeds()}
    core_s = (engine_clock_ns() - core_ns) / 1e9
    found["core"] = [round(core_s / ((time.time_ns() - begun_ns) / 1e9), 2)]
    meter = Meter()
    time.sleep(_WAIT_S)
    found["time.sleep"] = meter.speeds()
    return found


if __name__ == "__main__":
    accelerate(float(sys.argv[1]), ["-m", "tests.storm_speed", sys.argv[1]])
    sys.stdout.write(json.dumps(measure()) + "\n")
