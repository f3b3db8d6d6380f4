"""Killed order gateways: `python -m tests.ems_kills` and `ems_paper_kills` do more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KILLS = int(os.environ.get("PIKER_EMS_KILLS", "10"))


@pytest.mark.parametrize("script", ["ems_kills", "ems_paper_kills"])
def test_killed_gateways_lose_and_double_nothing(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.{script}", "--kills", str(KILLS), "--jobs", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["kills"] == KILLS and figures["orders"] > 0
