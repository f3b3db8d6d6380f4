"""`doctor`: is this machine fit, and what to do where it is not."""

import ctypes
import errno
import fcntl
import os
import platform
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from piker_core.cli.catalogue import describe_providers
from piker_core.cli.failures import MACHINE, OK, explain
from piker_core.cli.output import Output, bytes_text
from piker_core.cli.selftest import run_selftest
from piker_core.config import FeedConfig, config_path, load_section
from piker_core.provider import find_provider
from piker_core.segments import FOLDER, list_segments

LITTLE_SPACE = 256 << 20
NO_SPACE = 16 << 20
FEW_FILES = 1024
FEW_MAPPINGS = 65_000
GOOD_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")
PACKAGES = ("numpy", "msgspec", "trio", "websockets", "httpx", "pendulum")
STA_UNSYNC = 0x40


class Check(msgspec.Struct, frozen=True):
    """One line of the report: `state` is "ok", "warn" or "fail"."""

    name: str
    state: str
    text: str
    advice: str = ""
    figures: dict[str, Any] = {}


def run_doctor(out: Output, *, seconds: float, namespace: str | None) -> int:
    """Print all checks as they are done; the exit code."""
    failed = warned = 0
    for check in _all_checks(seconds, namespace):
        failed += check.state == "fail"
        warned += check.state == "warn"
        if out.json:
            out.record("check", **msgspec.to_builtins(check))
            continue
        out.line(f"{check.state:4}  {check.name:14}  {check.text}")
        if check.advice:
            out.line(f"{'':22}-> {check.advice}")
    out.note(f"{failed} failed, {warned} to look at")
    return MACHINE if failed else OK


def _all_checks(seconds: float, namespace: str | None) -> Iterator[Check]:
    simple: dict[str, Callable[[], Check]] = {
        "system": check_system,
        "packages": check_packages,
        "shared memory": check_shared_memory,
        "reservation": check_reservation,
        "locks": check_locks,
        "clock": check_clock,
        "clock sync": check_clock_sync,
        "open files": check_open_files,
        "mappings": check_mappings,
        "rings": lambda: check_rings(namespace),
        "configuration": check_configuration,
    }
    for name, check in simple.items():
        yield from _safely(name, check)
    yield from _safely("providers", check_providers)
    yield from _safely("self-test", lambda: check_ring(seconds))


def _safely(name: str, check: Callable[[], Check | list[Check]]) -> list[Check]:
    """What cannot even be checked has failed, and is no reason to stop."""
    try:
        found = check()
        return found if isinstance(found, list) else [found]
    except Exception as error:  # noqa: BLE001 - it becomes a line of the report
        return [Check(name, "fail", explain(error)[1])]


def check_system() -> Check:
    """Operating system, processor, Python."""
    cores = len(os.sched_getaffinity(0))
    page_size = os.sysconf("SC_PAGESIZE")
    text = (
        f"{platform.system()} {platform.release()} {platform.machine()}, "
        f"{cores} cores, pages of {page_size} bytes, Python {platform.python_version()}"
    )
    figures = {"cores": cores, "page_size": page_size}
    if struct.calcsize("P") != 8 or sys.byteorder != "little":
        advice = "rings need a 64-bit little-endian machine"
        return Check("system", "fail", text, advice, figures)
    if cores < 2:
        advice = (
            "writer and readers share one core: latencies are those of the scheduler"
        )
        return Check("system", "warn", text, advice, figures)
    return Check("system", "ok", text, "", figures)


def check_packages() -> Check:
    """Versions of what is needed."""
    versions, missing = {}, []
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            missing.append(name)
    text = ", ".join(f"{name} {number}" for name, number in versions.items())
    if missing:
        advice = f"pip install {' '.join(missing)}"
        return Check("packages", "fail", f"missing: {', '.join(missing)}", advice)
    return Check("packages", "ok", text, "", versions)


def check_shared_memory() -> Check:
    """Is /dev/shm a writable tmpfs with room?"""
    name = "shared memory"
    if not FOLDER.is_dir():
        advice = f"mount -t tmpfs tmpfs {FOLDER}"
        return Check(name, "fail", f"there is no {FOLDER}", advice)
    with tempfile.NamedTemporaryFile(dir=FOLDER, prefix="piker-core-doctor"):
        pass
    space = os.statvfs(FOLDER)
    free, size = (n * space.f_frsize for n in (space.f_bavail, space.f_blocks))
    text = f"{FOLDER}, {bytes_text(free)} of {bytes_text(size)} free"
    figures = {"free_bytes": free, "size_bytes": size}
    more = f"mount -o remount,size=2G {FOLDER} (in a container: --shm-size=2g)"
    if free < NO_SPACE:
        return Check(name, "fail", text, more, figures)
    if free < LITTLE_SPACE:
        return Check(name, "warn", f"{text}: room for few markets", more, figures)
    if _file_system(FOLDER) != "tmpfs":
        advice = f"mount -t tmpfs tmpfs {FOLDER}: on a disk it is slow"
        return Check(name, "warn", f"{text}, no tmpfs", advice, figures)
    return Check(name, "ok", text, "", figures)


def _file_system(folder: Path) -> str:
    lines = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    mounts = [line.split() for line in lines]
    kinds = [fields[2] for fields in mounts if fields[1] == str(folder)]
    return kinds[-1] if kinds else ""


def check_reservation() -> Check:
    """Can pages be reserved ahead, so that a full tmpfs is an error and no crash?"""
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryFile(dir=FOLDER) as file:
        offset, length = ctypes.c_int64(0), ctypes.c_int64(1 << 16)
        if libc.fallocate(file.fileno(), 0, offset, length):
            text = f"fallocate fails: {os.strerror(ctypes.get_errno())}"
            advice = f"{FOLDER} must be a tmpfs of this kernel"
            return Check("reservation", "fail", text, advice)
        held = os.fstat(file.fileno()).st_blocks * 512
    if held < 1 << 16:
        text = f"fallocate reserved {held} bytes of {1 << 16}"
        return Check("reservation", "fail", text, f"{FOLDER} must be a tmpfs")
    return Check("reservation", "ok", "fallocate reserves pages")


def check_locks() -> Check:
    """Do locks belong to open files, and end with them?"""
    flock = struct.Struct("hhqqi0q")
    whole = flock.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    with tempfile.NamedTemporaryFile(dir=FOLDER, prefix="piker-core-doctor") as file:
        asking = os.open(file.name, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.fcntl(file.fileno(), fcntl.F_OFD_SETLK, whole)
            answer = fcntl.fcntl(asking, fcntl.F_OFD_GETLK, whole)
            seen = flock.unpack(answer)[0] != fcntl.F_UNLCK
        except OSError as error:
            text = f"locks of open file descriptions fail: {error.strerror}"
            return Check("locks", "fail", text, "a Linux kernel since 3.15 has them")
        finally:
            os.close(asking)
    if not seen:
        text = "a lock of this very process is not seen by another descriptor"
        return Check("locks", "fail", text, f"{FOLDER} must be a local tmpfs")
    return Check("locks", "ok", "locks of open file descriptions are seen")


def check_clock() -> Check:
    """How fine is the wall clock, and how dear?"""
    resolution_ns = time.clock_getres(time.CLOCK_REALTIME) * 1e9
    began = time.perf_counter_ns()
    for _ in range(20_000):
        time.time_ns()
    cost_ns = (time.perf_counter_ns() - began) / 20_000
    source = _first_line(
        "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    )
    text = (
        f"resolution {resolution_ns:.0f} ns, a reading costs {cost_ns:.0f} ns, "
        f"source {source or 'unknown'}"
    )
    figures = {"resolution_ns": resolution_ns, "cost_ns": round(cost_ns, 1)}
    if resolution_ns > 1000 or cost_ns > 500 or (source and source not in GOOD_CLOCKS):
        advice = (
            "a clock source such as tsc is finer and cheaper (kernel: clocksource=tsc)"
        )
        return Check("clock", "warn", text, advice, figures)
    return Check("clock", "ok", text, "", figures)


def check_clock_sync() -> Check:
    """Does the kernel think that its clock is synchronized?"""
    timex = ctypes.create_string_buffer(512)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    if state < 0:
        why = errno.errorcode.get(ctypes.get_errno(), "an error")
        return Check("clock sync", "ok", f"not known here ({why} from adjtimex)")
    fields = struct.unpack_from("=I4xqqqqi", timex.raw)
    error_ms, status = fields[3] / 1e3, fields[5]
    if state == 5 or status & STA_UNSYNC:
        text = "the kernel's clock is not synchronized, or it is not told"
        advice = "run chrony or ntpd: rows are appended by this clock's seconds"
        return Check("clock sync", "warn", text, advice)
    text = f"synchronized, at most {error_ms:.1f} ms off"
    return Check("clock sync", "ok", text, "", {"max_error_ms": error_ms})


def check_open_files() -> Check:
    """How many files may be open?"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"at most {soft} at once, {hard} if asked for"
    if 0 <= soft < FEW_FILES:
        return Check("open files", "warn", text, f"ulimit -n {min(hard, 65536)}")
    return Check("open files", "ok", text, "", {"soft": soft, "hard": hard})


def check_mappings() -> Check:
    """A ring takes three mappings: how many may a process have?"""
    most = int(_first_line("/proc/sys/vm/max_map_count") or 0)
    text = f"at most {most} a process, enough for {most // 6} markets of two periods"
    if 0 < most < FEW_MAPPINGS:
        return Check("mappings", "warn", text, "sysctl vm.max_map_count=262144")
    return Check("mappings", "ok", text, "", {"max_map_count": most})


def check_rings(namespace: str | None) -> Check:
    """Are there dead or damaged rings?"""
    rings = list_segments(namespace, everywhere=namespace is None)
    own = [ring for ring in rings if "another user" not in ring.reason]
    used = bytes_text(sum(ring.committed for ring in own))
    dead = sum(ring.dead for ring in own)
    spoilt = [ring for ring in own if ring.kind in ("damaged", "foreign")]
    text = f"{len(own)} use {used}, {dead} dead, {len(spoilt)} damaged or foreign"
    if spoilt:
        return Check(
            "rings", "warn", text, f"rm {' '.join(r.path for r in spoilt[:5])}"
        )
    if dead:
        return Check("rings", "warn", text, "piker-core segments --all --gc")
    return Check("rings", "ok", text)


def check_configuration() -> Check:
    """Is every table of the configuration valid, and every override?"""
    path = config_path()
    load_section("feed", FeedConfig)
    for installed in describe_providers():
        if not installed.error:
            shape = getattr(find_provider(installed.name), "Config", None)
            if shape is not None:
                load_section(installed.name, shape)
    found = f"{path} is valid" if path.exists() else f"there is no {path}: defaults"
    return Check("configuration", "ok", found)


def check_providers() -> list[Check]:
    """Can every installed provider be imported?"""
    providers = describe_providers()
    if not providers:
        advice = "install a package with an entry point in piker_core.providers"
        return [Check("providers", "warn", "none is installed", advice)]
    good = [f"{p.name} {p.version}" for p in providers if not p.error]
    checks = [
        Check("provider", "fail", f"{p.name}: {p.error}", f"reinstall {p.module}")
        for p in providers
        if p.error
    ]
    if good:
        checks.insert(0, Check("providers", "ok", ", ".join(good)))
    return checks


def check_ring(seconds: float) -> list[Check]:
    """A ring in two processes: torn rows, waking, and what a kill leaves."""
    test = run_selftest(seconds)
    figures = msgspec.to_builtins(test)
    whole = test.rows_torn == test.torn_after_kill == 0
    moved = test.rows_read > 0 and test.ticks_read > 0
    whole = whole and test.ticks_read + test.ticks_lost == test.ticks_pushed
    woken = test.wake_us and not test.pings_missed
    killed = test.alive_before_kill and not test.alive_after_kill and test.resumed
    report = "report it, with this machine's processor"
    times = ", ".join(f"{name} {value:g} us" for name, value in test.wake_us.items())
    return [
        Check(
            "memory order",
            "ok" if whole and moved else "fail",
            f"{test.rows_torn} of {test.rows_read} rows torn while "
            f"{test.pushes_per_s:,} trades a second were pushed; "
            f"{test.ticks_read} ticks read, {test.ticks_lost} lost and counted",
            "" if whole and moved else report,
            figures,
        ),
        Check(
            "waking",
            "ok" if woken else "fail",
            f"a sleeping process reads a tick after {times or 'no time known'}"
            + (f"; {test.pings_missed} never" if test.pings_missed else ""),
            "" if woken else f"futex does not wake across processes: {report}",
        ),
        Check(
            "kill",
            "ok" if killed else "fail",
            f"the next writer resumed a killed one's ring in {test.resume_ms:g} ms"
            if killed
            else "a killed writer's ring was not resumed",
            "" if killed else report,
        ),
    ]


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip().partition("\n")[0]
    except OSError:
        return ""
