"""Writers of journals that are killed: what was promised is there, once, in order."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KILLS = 40


def counted(*options: str) -> Any:
    """What `python -m tests.journal_kills` has counted."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.journal_kills", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_at_random_moments() -> None:
    told = counted("--kills", str(KILLS))
    assert told["kills"] == KILLS and told["records"]


def test_at_every_call_of_the_system() -> None:
    parts = ("0", "0.5", "1") if os.environ.get("PIKER_HEAVY") else ("0.5",)
    told = counted("--calls", *parts)
    assert told["kills"] > 40 * len(parts)
    assert told["cut"] and told["whole"]
