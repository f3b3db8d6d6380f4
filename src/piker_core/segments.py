"""Rings of this machine: what lies in shared memory, whose it is, and taking it away.

A ring is named after hashes of its namespace, user and market; all else is in its
header. A provider's rings belong together: the lock on its tick ring says whether their
writer lives. What is removed is removed under that lock, bars before ticks, so a writer
that is just opening finds its rings either whole or gone.
"""

import errno
import fcntl
import os
import re
import stat
import struct
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from piker_core.core.rings import checked_namespace, describe_segment
from piker_core.dtypes import STATUSES
from piker_core.errors import NotFound, SegmentError, WriterBusy

FOLDER = Path("/dev/shm")
BLANK_S = 10.0
"""A blank file older than this is a creation that died: creating takes milliseconds."""

_NAME = re.compile(r"pk[0-9a-f]{8}\.[0-9a-f]{16}")
_STEM = len("pk00000000.")
_FLOCK = struct.Struct("hhqqi0q")
_FNV_START = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3
_WORD = 0xFFFFFFFFFFFFFFFF


class SegmentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One file of shared memory that is named as a ring.

    `kind` is "bars", "ticks", "blank" (a creation that has not ended), "damaged" or
    "foreign", the last three with a `reason`. `period` in seconds, 0 for ticks; `size`
    and `committed` in bytes; `status` as in the header, for bars, and `status_reason`
    where its writer gave one; `dead`: its writer is gone without having closed it, so
    `collect_segments` would remove it.
    """

    name: str
    path: str
    kind: str
    reason: str = ""
    namespace: str = ""
    provider: str = ""
    fqme: str = ""
    period: int = 0
    rows: int = 0
    capacity: int = 0
    size: int = 0
    committed: int = 0
    status: str = ""
    status_reason: str = ""
    writer_alive: bool = False
    writer_pid: int = 0
    generation: int = 0
    created_ns: int = 0
    heartbeat_ns: int = 0
    age_s: float = 0.0
    dead: bool = False


def list_segments(
    namespace: str | None = None, *, everywhere: bool = False
) -> list[SegmentInfo]:
    """The rings of a namespace, or of all namespaces and users; damaged ones too.

    Sorted by namespace, provider, market and period. Maps nothing and takes no lock.
    Raises PikerError for a misspelt namespace, OSError without shared memory.
    """
    space = None if everywhere else checked_namespace(namespace)
    return _judge(_read(space))


def remove_segments(namespace: str, *, force: bool = False) -> int:
    """Remove all rings of a namespace of this user; how many files there were.

    Attached readers keep what they have mapped. Folders and files of other users stay.
    Raises WriterBusy while a writer lives, SegmentError where that cannot be asked, and
    removes nothing then, unless `force`: a writer writes on where nobody can attach.
    """
    space = checked_namespace(namespace)
    if force:
        return len(_unlink_all(_read(space)))
    with ExitStack() as locks:
        held = _lock_all(_read(space), locks)
        # A writer that came meanwhile has a lock that is not among those held; a lock
        # that was made for this removal alone goes with the stack.
        found = [
            ring
            for ring in _read(space)
            if _lock_name(ring) in held and held[_lock_name(ring)] != ring.name
        ]
        return len(_unlink_all(found))


def collect_segments(
    namespace: str | None = None, *, everywhere: bool = False
) -> list[SegmentInfo]:
    """Remove the rings of this user whose writer died without closing them.

    Kept: rings with a living writer, rings closed cleanly (status `stopped`: a next
    writer resumes them), a tick ring beside bars that are kept, damaged and foreign
    files. Blank files go when they are older than `BLANK_S` and no writer lives in
    their namespace. Returns what was removed. Never waits for a lock.
    """
    space = None if everywhere else checked_namespace(namespace)
    dead = [ring for ring in _judge(_read(space)) if ring.dead]
    removed: list[SegmentInfo] = []
    for group in sorted({(ring.namespace, ring.provider) for ring in dead}):
        if group != ("", ""):
            removed += _collect_group(*group)
    for ring in dead:
        if ring.kind == "blank":
            removed += _collect_blank(ring)
    return removed


def ring_name(namespace: str, provider: str, fqme: str = "", period: int = 0) -> str:
    """File name of a bar ring, or of a provider's tick ring, which is its lock too."""
    space = _fnv(f"{os.getuid()}/{namespace}")
    return f"{_prefix(space)}{_fnv(f'{provider}/{fqme}/{period}', space):016x}"


def _fnv(text: str, value: int = _FNV_START) -> int:
    for byte in text.encode():
        value = (value ^ byte) * _FNV_PRIME & _WORD
    return value


def _prefix(space: int) -> str:
    return f"pk{(space ^ space >> 32) & 0xFFFFFFFF:08x}."


def _read(space: str | None) -> list[SegmentInfo]:
    """Files named as rings, of one namespace or of all, not yet judged."""
    start = "pk" if space is None else _prefix(_fnv(f"{os.getuid()}/{space}"))
    found = []
    for path in FOLDER.iterdir():
        if path.name.startswith(start) and _NAME.fullmatch(path.name):
            with suppress(NotFound, FileNotFoundError):
                found.append(_examine(path.name))
    if space is not None:
        found = [ring for ring in found if ring.namespace in ("", space)]
    return sorted(
        found, key=lambda r: (r.namespace, r.provider, r.fqme, r.period, r.name)
    )


def _examine(name: str) -> SegmentInfo:
    path = FOLDER / name
    status = path.lstat()
    header = describe_segment(name.encode())
    kind, reason = header["kind"], header.get("reason", "")
    if not reason and header["status"] >= len(STATUSES):
        kind, reason = "damaged", f"has an impossible status, {header['status']}"
    elif not reason and header["first"] > header["head"]:
        kind, reason = "damaged", "has an impossible head or first"
    elif not reason and name != _own_name(header):
        kind, reason = "foreign", "is not named after what it holds: a copy"
    if kind == "foreign" and status.st_uid != os.geteuid():
        reason = f"is a file of another user's (uid {status.st_uid})"
    common: dict[str, Any] = {
        "name": name,
        "path": str(path),
        "kind": kind,
        "size": status.st_size,
        "committed": status.st_blocks * 512,
        "age_s": round(time.time() - status.st_mtime, 3),
    }
    if reason:
        return SegmentInfo(**common, reason=reason)
    return SegmentInfo(**common | _facts(header))


def _own_name(header: dict[str, Any]) -> str:
    return ring_name(
        *(header[key] for key in ("namespace", "provider", "fqme", "period"))
    )


def _facts(header: dict[str, Any]) -> dict[str, Any]:
    bars = header["kind"] == "bars"
    held = header["head"] - header["first"] if bars else header["head"]
    same = ("namespace", "provider", "fqme", "period", "capacity", "generation")
    facts = {name: header[name] for name in (*same, "writer_pid", "created_ns")}
    return facts | {
        "rows": min(held, header["capacity"]),
        "status": STATUSES[header["status"]] if bars else "",
        "status_reason": header["status_reason"] if bars else "",
        "heartbeat_ns": header["heartbeat_ns"],
        "age_s": round((time.time_ns() - header["created_ns"]) / 1e9, 3),
    }


def _judge(rings: list[SegmentInfo], own: Collection[str] = ()) -> list[SegmentInfo]:
    """Say which writers live and what is dead. `own`: locks that the caller holds."""
    locks = {ring.name: _lock_name(ring) for ring in rings}
    lives = {lock: lock not in own and _is_held(lock) for lock in set(locks.values())}
    busy = {name[:_STEM] for name, lock in locks.items() if lives[lock] is not False}
    resumable = {
        locks[ring.name]
        for ring in rings
        if ring.kind == "bars" and ring.status == "stopped"
    }
    judged = []
    for ring in rings:
        lock = locks[ring.name]
        left = {
            "bars": ring.status != "stopped",
            "ticks": lock not in resumable,
            "blank": ring.age_s > BLANK_S and ring.name[:_STEM] not in busy,
        }.get(ring.kind, False)
        alive = lives[lock]
        marks = {"writer_alive": bool(alive), "dead": left and alive is False}
        judged.append(msgspec.structs.replace(ring, **marks))
    return judged


def _lock_name(ring: SegmentInfo) -> str:
    """The file whose lock this ring's writer holds; its own, where nothing is known."""
    return ring_name(ring.namespace, ring.provider) if ring.provider else ring.name


def _is_held(name: str) -> bool | None:
    """Whether anybody holds the lock of a file; None where it cannot be asked."""
    try:
        descriptor = _open(name)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)


def _open(name: str, flags: int = 0) -> int:
    safe = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(FOLDER / name, safe | flags, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(FOLDER / name))
    return descriptor


def _take(descriptor: int) -> None:
    whole = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, whole)


def _is_current(descriptor: int, name: str) -> bool:
    """Whether an open file still is the one of its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), (FOLDER / name).lstat())
    except FileNotFoundError:
        return False


@contextmanager
def _held(name: str) -> Iterator[bool]:
    """Hold the lock of a tick ring, made blank where it is missing; whether it was.

    Raises BlockingIOError where somebody has it, other OSErrors where it cannot be had.
    """
    while True:
        missing = not os.path.lexists(FOLDER / name)
        try:
            descriptor = _open(name, os.O_CREAT | os.O_EXCL if missing else 0)
        except (FileExistsError, FileNotFoundError):
            continue
        with ExitStack() as closing:
            closing.callback(os.close, descriptor)
            _take(descriptor)
            if not _is_current(descriptor, name):
                continue
            if missing:
                closing.callback(_unlink, name)
            yield missing
            return


def _unlink(name: str) -> bool:
    """Remove a file of this user; False where it is none, or gone already."""
    try:
        if (FOLDER / name).lstat().st_uid != os.geteuid():
            return False
        (FOLDER / name).unlink()
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        return False
    return True


def _unlink_all(rings: list[SegmentInfo]) -> list[SegmentInfo]:
    """Remove bars first, the locks last; what was there."""
    ordered = sorted(rings, key=lambda ring: ring.kind != "bars")
    return [ring for ring in ordered if _unlink(ring.name)]


def _lock_all(rings: list[SegmentInfo], locks: ExitStack) -> dict[str, str]:
    """Hold the locks of all writers of these rings; their names, twice if just made.

    Raises WriterBusy or SegmentError and leaves the locks to the stack.
    """
    held = {}
    for name, ring in {_lock_name(ring): ring for ring in rings}.items():
        if ring.kind == "foreign" and not _is_regular(ring.name):
            held[name] = ""
            continue
        try:
            held[name] = name if locks.enter_context(_held(name)) else ""
        except BlockingIOError:
            who = f"process {ring.writer_pid}" if ring.writer_pid else "a process"
            raise WriterBusy(
                f"{who} writes {ring.provider or ring.name} in namespace "
                f"{ring.namespace!r}: close it first, then remove its rings"
            ) from None
        except OSError as error:
            raise SegmentError(
                f"{FOLDER / name} cannot be locked ({error.strerror}): "
                "remove it by hand, or force"
            ) from None
    return held


def _is_regular(name: str) -> bool:
    return stat.S_ISREG((FOLDER / name).lstat().st_mode)


def _collect_group(namespace: str, provider: str) -> list[SegmentInfo]:
    """Remove a provider's dead rings, judged again under its lock."""
    lock = ring_name(namespace, provider)
    try:
        with _held(lock):
            rings = [
                ring
                for ring in _judge(_read(namespace), {lock})
                if ring.provider == provider and ring.dead
            ]
            return _unlink_all(rings)
    except OSError:
        return []  # a writer came meanwhile, or the lock is no file of ours


def _collect_blank(ring: SegmentInfo) -> list[SegmentInfo]:
    """Remove a creation that died, if it still is that very file."""
    try:
        descriptor = _open(ring.name)
    except OSError:
        return []
    try:
        _take(descriptor)
        old = time.time() - os.fstat(descriptor).st_mtime > BLANK_S
        still = old and _examine(ring.name).kind == "blank"
        if still and _is_current(descriptor, ring.name) and _unlink(ring.name):
            return [ring]
        return []
    except (OSError, NotFound):
        return []
    finally:
        os.close(descriptor)
