"""What a writer leaves when it is killed, for every instruction at which it can be.

A child process makes one call while its parent steps it, one machine instruction at
a time, and keeps what shared memory holds whenever that has changed: exactly what would
be there after a kill at that point. As a program, this file is the child:
    python stepped.py NAMESPACE [SCENE]
Without a scene, the call is the one that opens rings which another writer left.
"""

import ctypes
import gc
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bar_model import MarketModel
from bar_rows import NS, Trade, tick_array

import piker_core as pk

T0 = 1_732_320_060
FQME, OTHER = "xbtusd.kraken", "ethusd.kraken"
PERIODS = (1, 60)
ROWS, TICKS = 256, 64
MOST_STEPS = 3_000_000
PTRACE_TRACEME, PTRACE_SINGLESTEP = 0, 9

Call = tuple[Any, ...]
State = dict[Path, bytes]


class NoTracing(Exception):
    """This machine lets no process trace its child."""


# Scenes: calls that come before, and the call in which the writer is killed


def trades(*seconds_and_prices: tuple[int, float], first: int = 100) -> list[Trade]:
    """Trades at seconds from T0, with ids that rise from `first`."""
    return [
        Trade((T0 + second) * NS + 500, price, 0.1 * (place + 1), first + place)
        for place, (second, price) in enumerate(seconds_and_prices)
    ]


SESSIONS = [(0, (T0 + 200) * NS), ((T0 + 500) * NS, 1 << 62)]
REOPEN = ("reopen",)
LIVE = ("status", "live", T0 * NS)
QUIET = [
    LIVE,
    ("other", trades((0, 7.0), (9, 8.0), first=1)),
    ("push", trades((0, 100.0), first=1)),
    ("other", trades((30, 9.0), first=5)),
    ("step", (T0 + 70) * NS),
]
LOST = [*QUIET, ("status", "reconnecting", None)]
NIGHT = [*QUIET, ("step", (T0 + 210) * NS)]
GAP = ((T0 + 70) * NS, (T0 + 90) * NS + 5)
REPAIR = [
    *LOST,
    ("gap", *GAP, False),
    ("status", "live", GAP[1]),
    ("push", trades((91, 101.0), first=50)),
    ("push", trades((71, 99.0), (75, 99.5), (88, 98.0), first=60)),
]
SCENES: dict[str, tuple[list[Call], Call]] = {
    "the first trade": ([LIVE], ("push", trades((3, 100.0)))),
    "the first of a second writer": (
        [*QUIET, REOPEN, LIVE],
        ("push", trades((70, 9.0), (60, 8.0))),
    ),
    "trades in order": (
        QUIET,
        ("push", trades((70, 9.0), (73, 101.0), (121, 99.0), (122, 98.0))),
    ),
    "disorder": (
        QUIET,
        ("push", trades((68, 9.0), (-5, 1.0), (61, 8.0), (72, 7.0), (65, 6.0))),
    ),
    "an old price again": (
        QUIET,
        ("push", trades((61, 101.0), (63, 100.0), (66, 99.0), (66, 98.0), (70, 9.0))),
    ),
    "trades after a loss": (
        [*LOST, ("status", "live", (T0 + 90) * NS)],
        ("push", trades((95, 101.0), (93, 102.0))),
    ),
    "the clock": (QUIET, ("step", (T0 + 123) * NS)),
    "a gap's end": (REPAIR, ("gap", *GAP, True)),
    "trades out of hours": (NIGHT, ("push", trades((300, 9.0), (301, 8.0)))),
    "trades of the next session": (NIGHT, ("push", trades((503, 9.0), (505, 8.0)))),
    "trades of a venue that is closed": (
        [*QUIET, ("status", "closed", None)],
        ("push", trades((95, 9.0), (99, 8.0))),
    ),
    "the clock over a night": (QUIET, ("step", (T0 + 510) * NS)),
}


def in_engine(
    engine: pk.FeedEngine, markets: list[pk.Market], call: Call
) -> Callable[[], Any]:
    """A call, ready to be made."""
    name, *args = call
    market = markets[name == "other"]
    if name in ("push", "other"):
        ticks = tick_array(args[0])
        return lambda: engine.push_ticks(market, ticks)
    if name == "step":
        return lambda: engine.step(args[0])
    if name == "status":
        return lambda: market.set_status(args[0], since_ns=args[1])
    start_ns, end_ns, repaired = args
    return lambda: market.add_gap(
        start_ns=start_ns, end_ns=end_ns, cause="x", repaired=repaired
    )


def in_model(calls: list[Call]) -> MarketModel:
    """The market after these calls."""
    model = MarketModel(dict.fromkeys(PERIODS, ROWS), sessions=SESSIONS)
    for name, *args in calls:
        if name == "push":
            model.trades(args[0])
        elif name == "step":
            model.step(args[0])
        elif name == "status":
            model.set_status(args[0], args[1])
        elif name == "gap":
            model.add_gap(args[0], args[1], "x", repaired=args[2])
        elif name == "reopen":
            model.reopen()
    return model


@contextmanager
def open_markets(
    namespace: str, calls: Sequence[Call] = ()
) -> Iterator[tuple[pk.FeedEngine, list[pk.Market]]]:
    """An engine and its two markets, after these calls; the first is looked at."""
    if REOPEN in calls:
        last = len(calls) - 1 - calls[::-1].index(REOPEN)
        with open_markets(namespace, calls[:last]):
            pass
        calls = calls[last + 1 :]
    rows = dict.fromkeys(PERIODS, ROWS)
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=TICKS) as engine:
        markets = [
            engine.add_market(fqme, periods=PERIODS, capacity=rows, sessions=SESSIONS)
            for fqme in (FQME, OTHER)
        ]
        for call in calls:
            in_engine(engine, markets, call)()
        yield engine, markets


# The child


def _be_stepped(namespace: str, scene: str) -> None:
    """Stop, make the call, stop."""
    gc.disable()  # half a million instructions
    ctypes.CDLL(None).ptrace(PTRACE_TRACEME, 0, None, None)
    kill, pid, stop = os.kill, os.getpid(), signal.SIGSTOP
    if not scene:
        with pk.open_engine("kraken", namespace=namespace) as engine:
            engine.add_market(OTHER, periods=PERIODS)
            kill(pid, stop)
            engine.add_market(FQME, periods=PERIODS)
            kill(pid, stop)
        return
    before, call = SCENES[scene]
    with open_markets(namespace, before) as (engine, markets):
        make = in_engine(engine, markets, call)
        kill(pid, stop)
        make()
        kill(pid, stop)


# The parent


class _Stepper:
    """Lets a stopped child do one instruction; False when it has stopped by itself."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self._ptrace.argtypes = [ctypes.c_long] * 4

    def __call__(self) -> bool:
        if self._ptrace(PTRACE_SINGLESTEP, self.pid, 0, 0):
            raise NoTracing(os.strerror(ctypes.get_errno()))
        _, status = os.waitpid(self.pid, 0)
        assert os.WIFSTOPPED(status), f"the child ended: {status}"
        return os.WSTOPSIG(status) != signal.SIGSTOP


@contextmanager
def _stopped_child(*arguments: str) -> Iterator[_Stepper]:
    child = subprocess.Popen([sys.executable, __file__, *arguments])
    try:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            child.returncode = os.waitstatus_to_exitcode(status)
        assert os.WIFSTOPPED(status), "the child failed before its call"
        yield _Stepper(child.pid)
    finally:
        if child.returncode is None:
            child.kill()
            child.wait()


def _mapped_rings(pid: int) -> list[Path]:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sorted({Path(line.split()[5]) for line in lines if "/dev/shm/pk" in line})


def states_of_kill(namespace: str, scene: str = "", rings: Any = ()) -> list[State]:
    """All that the scene's call can leave in shared memory, first to last.

    `rings`: files to look at, where the child has not mapped them yet.
    """
    states: list[State] = []
    with _stopped_child(namespace, scene) as step, ExitStack() as stack:
        views = {}
        for path in rings or _mapped_rings(step.pid):
            file = stack.enter_context(path.open("rb"))
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            views[path] = stack.enter_context(view)
        last: State = {}
        for _ in range(MOST_STEPS):
            for path, view in views.items():
                held = view[:]
                if held != last.get(path):
                    last = last | {path: held}
            if not states or states[-1] is not last:
                states.append(last)
            if not step():
                return states
    raise AssertionError(f"{scene} is not over after {MOST_STEPS} instructions")


def restore(state: State) -> None:
    """Put a state back where it was found."""
    for path, held in state.items():
        with path.open("r+b") as file:
            file.write(held)


if __name__ == "__main__":
    _be_stepped(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
