"""Folders of stores for tests: what is in them, and who writes there meanwhile."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FQME, OTHER = "xbtusd.kraken", "ethusd.kraken"
TURNS = 25
"""Batches of ten rows that a writer beside others writes."""

HOLD = """
import fcntl, os, sys
folder = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(folder, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


class Locked:
    """Another process writes a market meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.command = [sys.executable, "-c", HOLD, str(folder)]

    def __enter__(self) -> "subprocess.Popen[str]":
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def files(url: str) -> list[Path]:
    """All files there are."""
    root = Path(url.removeprefix("parquet://"))
    return sorted(path for path in root.rglob("*") if path.is_file())
