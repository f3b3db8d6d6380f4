"""The built modules without one of their safety devices: which test misses it?

    python -m tests.mutants [DEVICE...]

Each device is taken out of a copy of the checkout, the modules are built again and the
file of the test that owns it is run. Prints the first test that failed for each; exit
code 1 when a device is missed by nobody, or not by its own test. Some ten minutes.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CORE = Path("src/piker_core/core")
BUILD_S = 300
TESTS_S = 600
INSTALL = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation")


class Mutant(NamedTuple):
    """A device, what takes it out of a file, and the test that must fail then."""

    device: str
    file: str
    old: str
    new: str
    test: str


FILES = "test_segment_files.py::"
FOREIGN = FILES + "test_foreign_content_is_refused_with_a_sentence"
FORGED = FILES + "test_a_forged_size_or_offset_is_refused"
LYING_BARS = FILES + "test_a_new_writer_refuses_numbers_of_a_bar_ring"
LYING_ROW = FILES + "test_a_new_writer_refuses_a_newest_row_that_cannot_be"
FULL = "test_full_shm.py::test_a_ring_that_finds_no_space_loses_nothing"
KILLED = "test_recover.py::test_a_kill_at_any_instruction_loses_and_repeats_nothing"

MUTANTS = (
    Mutant(
        "writer's lock",
        "lock.h",
        "} else if (fcntl(fd, F_OFD_SETLK, &whole)) {",
        "} else if (0 && fcntl(fd, F_OFD_SETLK, &whole)) {",
        "test_locks.py::test_a_second_writer_is_told_so_in_the_same_process_too",
    ),
    Mutant(
        "lock forgotten by a forked child",
        "lock.h",
        "            close(lock->fd);\n            lock->fd = -1;\n        }\n    }\n"
        "    pk_locks = NULL;",
        "        }\n    }\n    pk_locks = NULL;",
        "test_locks.py::test_the_lock_is_not_kept_by_what_a_forked_child_inherited",
    ),
    Mutant(
        "pages reserved before they are touched",
        "segment.h",
        "    if (pk_is_reserved(s, low, high)) {\n        return 0;",
        "    if (1 || pk_is_reserved(s, low, high)) {\n        return 0;",
        FULL,
    ),
    Mutant(
        "one ring's share of the space",
        "segment.h",
        "return more <= left && held / PK_SHARE <= left - more;",
        "return more <= left + 0 * held;",
        FULL,
    ),
    Mutant(
        "checksum of the header",
        "layout.h",
        "id->checksum != pk_checksum(id)",
        "0 && id->checksum != pk_checksum(id)",
        FILES + "test_any_changed_byte_of_the_identity_is_refused",
    ),
    Mutant(
        "sizes and offsets of the header",
        "layout.h",
        "if (sane && !memcmp(&wanted, id, sizeof wanted) && id->total_size == size &&",
        "if (sane && (1 || !memcmp(&wanted, id, sizeof wanted)) && "
        "id->total_size == size &&",
        FORGED,
    ),
    Mutant(
        "length of the file",
        "layout.h",
        "id->total_size == size &&",
        "(1 || id->total_size == size) &&",
        FOREIGN,
    ),
    Mutant(
        "layout version",
        "layout.h",
        "id->version != PK_VERSION",
        "0 && id->version != PK_VERSION",
        FOREIGN,
    ),
    Mutant(
        "texts that end",
        "layout.h",
        "pk_ends(id->fqme, sizeof id->fqme)",
        "(1 || pk_ends(id->fqme, sizeof id->fqme))",
        FILES + "test_a_text_without_an_end_is_refused",
    ),
    Mutant(
        "owner and kind of the file",
        "segment.h",
        "if (!S_ISREG(status.st_mode) || status.st_uid != geteuid())",
        "if (0)",
        FOREIGN,
    ),
    Mutant("no symbolic links", "segment.h", " | O_NOFOLLOW", "", FOREIGN),
    Mutant(
        "whose ring it is",
        "rings.pyx",
        "    if segment.namespace != namespace or",
        "    if False and segment.namespace != namespace or",
        FILES + "test_another_ring_under_this_rings_name_is_refused",
    ),
    Mutant(
        "readers' pages are read-only",
        "segment.h",
        "int rights = writer ? PROT_READ | PROT_WRITE : PROT_READ;",
        "int rights = PROT_READ | PROT_WRITE;",
        FILES + "test_a_reader_maps_all_but_the_wait_page_read_only",
    ),
    Mutant(
        "numbers of a ring that is taken over",
        "ring.h",
        "return b->head >= PK_START && b->head < 2 * PK_START && b->first",
        "return 1 || b->head >= PK_START && b->head < 2 * PK_START && b->first",
        LYING_BARS,
    ),
    Mutant(
        "rows of a ring that is taken over",
        "ring.h",
        "return row->index == (int64_t)sequence && row->time >= 0 &&",
        "return 1 || (row->index == (int64_t)sequence) && row->time >= 0 &&",
        LYING_BARS,
    ),
    Mutant(
        "a blank file is replaced",
        "segments.pxi",
        "    if status == PK_BLANK:\n        pk_remove_file(name)\n        return 0\n",
        "",
        FILES + "test_a_creation_that_died_is_not_found_by_readers",
    ),
    Mutant(
        "the redo record is finished",
        "ring.h",
        "    if (pk_resume_rewrite(b)) {",
        "    if (0 && pk_resume_rewrite(b)) {",
        KILLED,
    ),
    Mutant(
        "ticks published but not folded are folded",
        "recover.h",
        "int error = pk_refold_ticks("
        "m, sequences, pk_chain_walk(chain, m->id, sequences, room), done);",
        "int error = 0; (void)done; (void)pk_refold_ticks;",
        KILLED,
    ),
)


def copy_checkout(folder: Path) -> None:
    """The files that git knows of, as they are in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def run(folder: Path, arguments: tuple[str, ...], limit_s: int) -> str:
    """What a run of this Python in the copy printed, its own modules in use."""
    site = folder / "site"
    editable = ROOT / "build" / Path(sys.prefix).name.removeprefix(".")
    environ = os.environ | {
        "PYTHONPATH": str(site),
        "MESONPY_EDITABLE_SKIP": str(editable),
    }
    done = subprocess.run(
        (sys.executable, *arguments),
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    return done.stdout + done.stderr


def build(folder: Path) -> None:
    """Build what has changed, and check that it is what will be imported."""
    shutil.rmtree(folder / "site", ignore_errors=True)
    options = (f"--config-settings=build-dir={folder / 'built'}", "--target", "site")
    said = run(folder, (*INSTALL, *options, "."), BUILD_S)
    where = "import piker_core.core.rings as rings; print(rings.__file__)"
    found = run(folder, ("-c", where), TESTS_S).strip()
    if not found.startswith(str(folder / "site")):
        raise SystemExit(f"the mutant was not built: {found}\n{said}")


def first_failure(folder: Path, mutant: Mutant) -> str:
    """The first test of the owner's file that fails, or the end of what was said."""
    file = "tests/" + mutant.test.partition("::")[0]
    said = run(
        folder, ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", file), TESTS_S
    )
    for line in said.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            return line.split(" ", 1)[1].partition(" - ")[0].removeprefix("tests/")
    if "Timeout (" in said or "Fatal Python error" in said:
        return f"{mutant.test} (it dies)"
    return "nobody misses it: " + said.strip().splitlines()[-1]


def main() -> int:
    """Try the named devices, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("device", nargs="*", help="some of the devices; else all")
    wanted = parser.parse_args().device
    unknown = set(wanted) - {mutant.device for mutant in MUTANTS}
    if unknown:
        parser.error(f"no such device: {', '.join(sorted(unknown))}")
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="piker-mutants-") as name:
        folder = Path(name)
        copy_checkout(folder)
        for mutant in MUTANTS:
            if wanted and mutant.device not in wanted:
                continue
            source = folder / CORE / mutant.file
            text = source.read_text()
            if text.count(mutant.old) != 1:
                raise SystemExit(f"{mutant.device}: {mutant.file} has changed")
            source.write_text(text.replace(mutant.old, mutant.new))
            build(folder)
            failed = first_failure(folder, mutant)
            source.write_text(text)
            missed = failed.startswith(mutant.test)
            survivors += not missed
            sys.stdout.write(f"{'ok' if missed else 'NO'} {mutant.device}: {failed}\n")
            sys.stdout.flush()
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
