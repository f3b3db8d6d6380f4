"""Killed writers of the Parquet store; `python -m tests.store_kills` has more kills."""

import json
import os
import subprocess
import sys

import pytest

from tests.store_places import ROOT

pytest.importorskip("pyarrow")

KILLS = int(os.environ.get("PIKER_STORE_KILLS", "30"))


def test_killed_writers_leave_old_rows_or_new_ones() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.store_kills", "--kills", str(KILLS)],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["kills"] == KILLS
    assert figures["at calls"] > 100
    assert figures["batches"] > 0
