"""Each benchmark runs by itself and tells what it measured; no figure is judged."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import common
from benchmarks.common import Case, Options, measure
from benchmarks.trades import Tape

ROOT = Path(__file__).resolve().parents[1]
MODULES = (
    *("bench_ring", "bench_fold", "bench_feed", "bench_binance"),
    *("bench_journal", "bench_store", "bench_triggers"),
)


def run(module: str, *options: str) -> str:
    """Output of `python -m benchmarks.<module> --quick`, which must end well."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            f"benchmarks.{module}",
            "--quick",
            *options,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stderr
    return done.stdout


def check_figures(row: dict[str, Any]) -> None:
    assert row["figures"] or row["note"], row
    for figure in row["figures"]:
        assert 0 < figure["minimum"] <= figure["median"], row


@pytest.mark.parametrize("module", MODULES)
def test_each_benchmark_prints_figures_with_references(module: str) -> None:
    machine, *rows = (json.loads(line) for line in run(module, "--json").splitlines())
    assert machine["processor"] and machine["versions"]["piker-core"]
    assert machine["command"] == f"python -m benchmarks.{module} --quick --json"
    for row in rows:
        check_figures(row)
    assert all(len(row["figures"]) > 1 for row in rows if not row["note"])


def test_the_table_names_command_machine_and_versions() -> None:
    table = run("bench_ring")
    assert "python -m benchmarks.bench_ring --quick" in table
    assert "numpy" in table and "window(300)" in table and "median" in table


def test_the_table_names_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["bench_store.py", "--postgres", "postgresql://me:secret@host/db"]
    monkeypatch.setattr("sys.argv", words)
    assert "secret" not in common._command() and "me" in common._command()


def test_rounds_take_turns_and_the_warm_up_is_left_out() -> None:
    calls: list[str] = []
    cases = [
        Case(name, calls.append, 1, partial(str, name)) for name in ("own", "other")
    ]
    row = measure("taking turns", cases, Options(quick=True, rounds=3))
    assert calls == ["own", "other", "other", "own", "own", "other", "other", "own"]
    assert [figure.name for figure in row.figures] == ["own", "other"]


def test_a_tape_gives_the_same_trades_in_every_form() -> None:
    calls = Tape().calls(20)
    ticks = [tick for quote in Tape().quotes(4, trades=5) for tick in quote["ticks"]]
    records = Tape().records(20)
    assert [(tick["time_ns"], tick["price"], tick["size"]) for tick in ticks] == [
        call[:3] for call in calls
    ]
    assert records["id"].tolist() == [call[3] for call in calls]
    assert {tick["side"] for tick in ticks} == {"buy", "sell"}
