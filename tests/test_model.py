"""The core's headers on a weak memory: all executions of small scenarios hold, and each
ordering, stamp and check is needed: without it the model finds a violation."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.compilers import CORE, compile_c
from tests.test_sync import SITES, Site

MODEL = Path(__file__).parent / "model"
SCENARIOS = len(re.findall(r'^    \{"', (MODEL / "ring_model.c").read_text(), re.M))
RUN_S = 600
OPTIONS = ("-Wno-error", "-Wno-clobbered", "-Wno-missing-field-initializers")
LITMUS = {
    "store buffering": "0000 0100 1000 1100",
    "store buffering, fences": "0100 1000 1100",
    "store buffering, one fence": "0000 0100 1000 1100",
    "message, relaxed": "0000 0100 1000 1100",
    "message, not acquired": "0000 0100 1000 1100",
    "message, release and acquire": "0000 0100 1100",
    "message, fences": "0000 0100 1100",
    "message, fence and acquire": "0000 0100 1100",
    "message, release and fence": "0000 0100 1100",
    "coherence": "0000 0100 0200 1100 1200 2200",
    "independent reads": " ".join(f"{n:04b}" for n in range(16)),
    "independent reads, fences": " ".join(f"{n:04b}" for n in range(16) if n != 10),
    "updates": "0100 1000",
}
WEAKER = (
    (re.compile(r"pk_store_release\("), "pk_store("),
    (re.compile(r"pk_load_acquire\("), "pk_load("),
    (re.compile(r"atomic_thread_fence\(\w+\);"), ";"),
    (re.compile(r"memory_order_(acquire|release)"), "memory_order_relaxed"),
)
DEVICES = {
    "the odd stamp": ("ring.h", "pk_store(stamp, 2 * number - 1);", ";"),
    "the stamp's recheck": ("ring.h", "pk_load(stamp) == before && row", "row"),
    "the row's own index": (
        "ring.h",
        "pk_load(stamp) == before && row->index == (int64_t)sequence",
        "pk_load(stamp) == before",
    ),
    "the redo record's index": (
        "ring.h",
        "before % 2 == 0 && row->index == (int64_t)sequence",
        "before % 2 == 0",
    ),
    "the stamp's recheck after the redo record": (
        "ring.h",
        "== PK_OK && pk_load(stamp) == before",
        "== PK_OK",
    ),
    "the redo record's stamp": (
        "ring.h",
        "    pk_store(&redo->stamp, stamp + 1);\n    atomic",
        "    atomic",
    ),
    "the redo record": (
        "ring.h",
        "    pk_copy_in(redo->row, row, PK_ROW_WORDS);\n",
        "",
    ),
    "raising first before the slot is taken": (
        "ring.h",
        "        pk_store(&header->first, ++b->first);",
        "        ++b->first;",
    ),
    "finishing a rewrite": ("ring.h", "if (pk_resume_rewrite(b))", "if (0)"),
    "withdrawing a half-written redo record": (
        "ring.h",
        "        pk_store(&redo->sequence, 0); ",
        "        ",
    ),
    "a number of a killed write is not given again": (
        "ring.h",
        "b->clock = pk_load(&header->clock) + 1;",
        "b->clock = pk_load(&header->clock);",
    ),
    "the window's stamps": ("ring.h", "stamp % 2 || stamp > 2 * clock", "stamp % 2"),
    "the window's odd stamps": ("ring.h", "stamp % 2 || stamp > 2 * clock", "0"),
    "placing a gap record that was begun": (
        "ring.h",
        "        pk_place_gap(&b->segment);\n    }\n    if (b->head",
        "    }\n    if (b->head",
    ),
    "the gap record in the header": (
        "ring.h",
        "int moving = stamp % 2 && ",
        "int moving = 0 && stamp % 2 && ",
    ),
    "the gap records' recheck": (
        "ring.h",
        "if (pk_load(&header->table_stamp) == stamp)",
        "if (stamp == stamp)",
    ),
    "the description's odd stamp": (
        "segment.h",
        "pk_store(&header->about_stamp, stamp);",
        ";",
    ),
    "the reason's other place": (
        "segment.h",
        "pk_copy_in((pk_word *)&header->reasons[number % 2]",
        "pk_copy_in((pk_word *)&header->reasons[(number + 1) % 2]",
    ),
    "the reason's recheck": (
        "segment.h",
        "if (pk_load(&header->reason_number) == number)",
        "if (number == number)",
    ),
    "the ticks' intent": ("ticks.h", "pk_store(&header->clock, t->head + 1);", ";"),
    "the ticks' bound": (
        "ticks.h",
        "    *whole = pk_ticks_first(s);",
        "    *whole = 0 * pk_ticks_first(s);",
    ),
    "the turn": (
        "wake.h",
        "atomic_fetch_add_explicit(&s->waits->turn, 1,",
        "atomic_fetch_add_explicit(&s->waits->turn, 0,",
    ),
    "the look after the announcement": (
        "wake.h",
        "            pk_announce(s, PK_SLEEPER);\n            if (pk_head(s) > after)",
        "            pk_announce(s, PK_SLEEPER);\n            if (0)",
    ),
    "the announcement": ("wake.h", "            pk_announce(s, PK_SLEEPER);\n", ""),
    "waking those whom a killed writer forgot": (
        "wake.h",
        "pk_wake_those(s, PK_SLEEPER | PK_DOORBELL);",
        "pk_wake_those(s, 0);",
    ),
}
heavy = pytest.mark.skipif(
    not os.environ.get("PIKER_HEAVY"), reason="takes minutes: set PIKER_HEAVY=1"
)


def build(headers: Path, folder: Path, source: str = "ring_model.c") -> Path:
    return compile_c("gcc", MODEL / source, folder / "model", *OPTIONS, headers=headers)


def run_model(program: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program], capture_output=True, text=True, timeout=RUN_S, check=False
    )


def run_mutant(folder: Path, name: str, old: str, new: str) -> str:
    """The last line of what the model says of changed headers; it must find a fault."""
    headers = folder / "core"
    shutil.copytree(CORE, headers, ignore=shutil.ignore_patterns("*.p*", "__*"))
    text = (headers / name).read_text()
    assert text.count(old) == 1, f"{name} has {text.count(old)} times {old!r}"
    (headers / name).write_text(text.replace(old, new))
    done = run_model(build(headers, folder))
    assert done.returncode == 1, f"nobody misses it: {done.stdout[-300:]}{done.stderr}"
    return done.stdout.splitlines()[-1]


def test_the_weak_memory_allows_what_c11_allows_and_nothing_else(
    tmp_path: Path,
) -> None:
    done = run_model(build(CORE, tmp_path, "litmus.c"))
    lines = [line.split(" = ") for line in done.stdout.splitlines() if " = " in line]
    assert {name: " ".join(sorted(found.split())) for name, found in lines} == LITMUS


def test_no_execution_of_any_scenario_breaks_a_promise(tmp_path: Path) -> None:
    done = run_model(build(CORE, tmp_path))
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    assert len(done.stdout.splitlines()) == SCENARIOS


@heavy
@pytest.mark.parametrize(
    "site", SITES, ids=lambda site: f"{site.label} in {site.place}"
)
def test_without_any_one_ordering_a_promise_is_broken(
    site: Site, tmp_path: Path
) -> None:
    name, _, number = site.place.partition(":")
    lines = (CORE / name).read_text().splitlines(keepends=True)
    line = lines[int(number) - 1]
    weak = line
    for pattern, replacement in WEAKER:
        weak = pattern.sub(replacement, weak)
    before = "".join(lines[: int(number) - 1])[-400:]
    assert "VIOLATED" in run_mutant(tmp_path, name, before + line, before + weak)


@heavy
@pytest.mark.parametrize("device", DEVICES)
def test_without_any_one_safety_device_a_promise_is_broken(
    device: str, tmp_path: Path
) -> None:
    assert "VIOLATED" in run_mutant(tmp_path, *DEVICES[device])
