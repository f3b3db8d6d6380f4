"""The C headers alone: compiled strictly, and run under the sanitizers."""

import os
import shutil
from pathlib import Path

import pytest

from tests.compilers import CORE, compile_c, run_c

SOURCE = Path(__file__).parent / "c" / "stress.c"
CRASH = Path(__file__).parent / "c" / "crash.c"
WRITES = (
    "same second",
    "next second",
    "next minute",
    "late trade",
    "flat seconds",
    "new gap",
    "repaired gap",
    "history",
    "status",
    "night",
)
ASAN = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# gcc's TSan does not model fences; all shared words are atomic, so what it finds are
# plain accesses. Ordering is not its subject.
TSAN = {
    "gcc": ("-g", "-O1", "-fsanitize=thread", "-Wno-tsan"),
    "clang": ("-g", "-O1", "-fsanitize=thread"),
}
READERS = "3"
ROWS = "1024"
compilers = pytest.mark.parametrize("compiler", ["gcc", "clang"])


def remove(name: str) -> None:
    """Take away what a program that was aborted has left."""
    for path in Path("/dev/shm").glob(f"{name}*"):
        path.unlink()


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crash")
    options = ("-g", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all")
    return compile_c("gcc", CRASH, folder / "crash", *options)


@pytest.mark.parametrize("write", WRITES)
def test_a_writer_killed_at_any_store_tears_and_loses_nothing(
    write: str, crash: Path
) -> None:
    name = f"pktest.{os.getpid()}"
    try:
        said = run_c(crash, name, write)
    finally:
        remove(name)
    assert said.count(f"{write}: killed") == 3


def run_stress(program: Path, writes: int) -> None:
    """Let readers check every copy they make while one thread writes `writes` times."""
    name = f"pktest.{os.getpid()}"
    try:
        said = run_c(program, name, ROWS, str(writes), READERS)
        left = list(Path("/dev/shm").glob(f"{name}*"))
    finally:
        remove(name)
    assert said.count("rows") == int(READERS)
    assert left == []


@compilers
def test_readers_of_bare_c_rings_never_see_a_torn_row_tick_or_gap_record(
    compiler: str, tmp_path: Path
) -> None:
    run_stress(compile_c(compiler, SOURCE, tmp_path / "stress"), 500_000)


@compilers
def test_the_headers_are_clean_under_address_and_undefined_behaviour_sanitizers(
    compiler: str, tmp_path: Path
) -> None:
    run_stress(compile_c(compiler, SOURCE, tmp_path / "stress", *ASAN), 100_000)


@compilers
def test_no_plain_access_races_with_another_under_the_thread_sanitizer(
    compiler: str, tmp_path: Path
) -> None:
    run_stress(
        compile_c(compiler, SOURCE, tmp_path / "stress", *TSAN[compiler]), 40_000
    )


@pytest.mark.parametrize("write", [None, *WRITES])
def test_valgrind_has_nothing_to_say_of_a_writer_and_its_readers(
    write: str | None, tmp_path: Path
) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    source = CRASH if write else SOURCE
    program = compile_c("gcc", source, tmp_path / "program", "-g", "-O1", "-DDEPTHS=1")
    name = f"pktest.{os.getpid()}"
    arguments = [name, write] if write else [name, ROWS, "8000", READERS]
    checked = ["valgrind", "-q", "--error-exitcode=9"]
    if not write:  # a kill is a jump there, past what would have been freed
        checked.append("--leak-check=full")
    try:
        run_c(*checked, program, *arguments)
    finally:
        remove(name)


@pytest.mark.parametrize("compiler", ["gcc", "clang", "aarch64-linux-gnu-gcc"])
@pytest.mark.parametrize("header", sorted(path.name for path in CORE.glob("*.h")))
def test_each_header_compiles_by_itself_without_a_warning(
    compiler: str, header: str, tmp_path: Path
) -> None:
    source = tmp_path / "alone.c"
    use = "return pk_watch_forks();" if header == "lock.h" else "return 0;"
    source.write_text(f'#include "{header}"\nint main(void) {{ {use} }}\n')
    compile_c(compiler, source, tmp_path / "alone")
