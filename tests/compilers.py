"""The C compilers of this machine, for tests of the headers without Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[1] / "src" / "piker_core" / "core"
STRICT = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")
COMPILE_S = 60
RUN_S = 60
PLAIN = {name: text for name, text in os.environ.items() if name != "LD_PRELOAD"}
"""Programs bring their own sanitizers: not those of a sanitized Python."""


def compile_c(
    compiler: str, source: Path, program: Path, *options: str, headers: Path = CORE
) -> Path:
    """Build a program from one file and the core's headers; skips without compiler."""
    path = shutil.which(compiler)
    if path is None:
        pytest.skip(f"{compiler} is not installed")
    done = subprocess.run(
        [
            path,
            *STRICT,
            *options,
            f"-I{headers}",
            str(source),
            "-o",
            str(program),
            "-lm",
        ],
        capture_output=True,
        text=True,
        timeout=COMPILE_S,
        check=False,
        env=PLAIN,
    )
    if done.returncode and "cannot find -l" in done.stderr + done.stdout:
        pytest.skip(f"{compiler} has no run-time library for {' '.join(options)}")
    assert done.returncode == 0, done.stderr
    return program


def run_c(*command: str | Path) -> str:
    """What a program printed; a failure shows all it said."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
        env=PLAIN,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
