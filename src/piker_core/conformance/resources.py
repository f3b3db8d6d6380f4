"""What a process holds: descriptors, threads, tasks, mappings, memory, time."""

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import trio

_IDLE_THREAD = "Trio thread "
"""Idle threads that trio keeps for a while; busy ones are named after their work."""
_ASKING = "Subject._answer"
"""Tasks of whoever looks."""
_SELF = Path("/proc/self")


class Resources(msgspec.Struct):
    """What is open now; of each kind the names, as often as there are of them.

    `memory` is what is not shared with others, in bytes; `lag_s` the longest time that
    the event loop was held since the last look.
    """

    descriptors: list[str]
    threads: list[str]
    tasks: list[str]
    rings: list[str]
    unclosed: list[str]
    memory: int
    cpu_s: float
    wall_s: float
    lag_s: float = 0.0


def look(unclosed: list[str], lag_s: float = 0.0) -> Resources:
    """The resources of this process. Call it from a task of the trio run."""
    return Resources(
        descriptors=_descriptors(),
        threads=sorted(_threads()),
        tasks=sorted(_tasks()),
        rings=_rings(),
        unclosed=list(unclosed),
        memory=_memory(),
        cpu_s=time.process_time(),
        wall_s=time.monotonic(),
        lag_s=lag_s,
    )


def leaked(before: Resources, after: Resources) -> dict[str, list[str]]:
    """What is there afterwards and was not before, by kind.

    Sockets and pipes have numbers for names: of them counts how many there are.
    """
    found: dict[str, list[str]] = {}
    for kind in ("descriptors", "threads", "tasks", "rings", "unclosed"):
        known, names = getattr(before, kind), getattr(after, kind)
        more = Counter(map(_kind, names)) - Counter(map(_kind, known))
        names = sorted(names, key=lambda name: name in known)
        kept = []
        for name in names:
            if more[_kind(name)] > 0:
                more[_kind(name)] -= 1
                kept.append(name)
        if kept:
            found[kind] = kept
    return found


def _kind(name: str) -> str:
    return name.partition(":[")[0]


def _descriptors() -> list[str]:
    peers = _peers()
    found = []
    for path in (_SELF / "fd").iterdir():
        try:
            target = str(path.readlink())
        except FileNotFoundError:  # the one that lists the others
            continue
        peer = peers.get(target.partition("[")[2].rstrip("]"), "")
        if target.startswith("/proc/"):
            continue
        found.append(f"{target}{peer}")
    return sorted(found)


def _peers() -> dict[str, str]:
    """Where the TCP sockets of this network lead, by inode."""
    peers = {}
    for name in ("tcp", "tcp6"):
        try:
            lines = (_SELF / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            port = int(fields[2].rpartition(":")[2], 16)
            peers[fields[9]] = f" to port {port}"
    return peers


def _threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if not name.startswith(_IDLE_THREAD)]


def _tasks() -> list[str]:
    """Names of all tasks of the run but those that look."""
    root = trio.lowlevel.current_root_task()
    found: list[str] = []
    waiting = [] if root is None else [root]
    while waiting:
        task = waiting.pop()
        if not task.name.endswith(_ASKING):
            found.append(task.name)
        for nursery in task.child_nurseries:
            waiting.extend(nursery.child_tasks)
    return found


def _rings() -> list[str]:
    """Names of the rings that are mapped."""
    lines = (_SELF / "maps").read_text().splitlines()
    paths = {line.split()[5] for line in lines if "/dev/shm/pk" in line}
    return sorted(paths)


def _memory() -> int:
    for line in (_SELF / "status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def differences(before: Resources, after: Resources) -> dict[str, Any]:
    """How much memory, time and descriptors were used in between."""
    wall_s = max(after.wall_s - before.wall_s, 1e-9)
    return {
        "memory_growth": after.memory - before.memory,
        "memory": after.memory,
        "cpu_share": round((after.cpu_s - before.cpu_s) / wall_s, 4),
        "descriptors": len(after.descriptors),
        "lag_s": round(after.lag_s, 3),
        "wall_s": round(wall_s, 1),
    }
