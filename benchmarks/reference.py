"""Builds the C row, the reference in plain C, and imports it."""

import importlib.util
import os
import shlex
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SOURCE = Path(__file__).with_name("c_row.c")
FLAGS = ("-O3", "-shared", "-fPIC", "-ffp-contract=off")


@contextmanager
def open_c_row() -> Iterator[Any]:
    """The module that `c_row.c` makes, compiled by `$CC` (else cc) in a new folder.

    Raises FileNotFoundError without a compiler, CalledProcessError if it fails.
    """
    compiler = shlex.split(os.environ.get("CC", "cc"))
    include = sysconfig.get_path("include")
    with TemporaryDirectory() as folder:
        built = Path(folder) / f"c_row{sysconfig.get_config_var('EXT_SUFFIX')}"
        command = [*compiler, *FLAGS, f"-I{include}", str(SOURCE), "-o", str(built)]
        subprocess.run(command, check=True)
        yield load_c_row(built)


def load_c_row(built: str | Path) -> Any:
    """The module in a file that `open_c_row` has made, in this process or another."""
    spec = importlib.util.spec_from_file_location("c_row", built)
    if spec is None or spec.loader is None:
        raise ImportError(f"{built} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
