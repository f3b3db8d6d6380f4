"""Scripts that run where a folder is mounted in another way: small, or to be read."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def small(folder: Path, size: str) -> str:
    """How to mount a folder that holds no more than that."""
    return f"mount -t tmpfs -o size={size} tmpfs '{folder}'"


def unwritable(folder: Path) -> str:
    """How to mount a folder so that nobody can write into it."""
    return f"mount --bind '{folder}' '{folder}' && mount -o remount,bind,ro '{folder}'"


def run_mounted(mount: str, script: str, folder: Path) -> str:
    """What a script prints; the folder is its argument. Skips where that cannot be."""
    for way in (["unshare", "-m"], ["unshare", "-rm"]):
        before = [*way, "sh", "-c", f'{mount} && exec "$@"', "sh"]
        if (
            shutil.which("unshare")
            and not subprocess.run(
                [*before, "true"], cwd=folder, capture_output=True, check=False
            ).returncode
        ):
            break
    else:
        pytest.skip("this machine allows no private mounts")
    done = subprocess.run(
        [*before, sys.executable, "-c", script, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
