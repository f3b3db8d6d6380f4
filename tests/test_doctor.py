"""`doctor`: what it finds, and the ring that it runs."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import piker_core as pk
from piker_core.cli import failures
from piker_core.cli.selftest import bad_rows, push_one, run_selftest
from piker_core.segments import list_segments
from tests.commands import KILLED, PYTHON, Done, Providers, private_shm, records, run


@pytest.fixture
def providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Providers:
    """Makes providers for the commands that a test runs."""
    return Providers(tmp_path, monkeypatch)


# Doctor


def states(done: Done) -> dict[str, str]:
    return {line["name"]: line["state"] for line in records(done.stdout, "check")}


def test_the_doctor_finds_this_machine_fit_and_leaves_nothing(namespace: str) -> None:
    process = subprocess.Popen(
        [*PYTHON, "doctor", "--json", "--seconds", "0.3"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PIKER_CONFIG": "/dev/null"},
    )
    out, _ = process.communicate()
    assert process.returncode == failures.OK, out
    found = {line["name"]: line for line in records(out, "check")}
    for name in ("locks", "reservation", "memory order", "waking", "kill", "providers"):
        assert found[name]["state"] == "ok"
    assert "kraken" in found["providers"]["text"]
    assert found["memory order"]["figures"]["ticks_pushed"] > 0
    assert list_segments(f"doctor{process.pid}") == []


def test_the_doctor_fails_for_a_provider_that_cannot_be_imported(
    providers: Providers, namespace: str
) -> None:
    providers.install("broken", "import nosuchmodule\n")
    done = run("doctor", "--seconds", "0.1")
    assert done.returncode == failures.MACHINE
    [line] = [line for line in done.stdout.splitlines() if line.startswith("fail")]
    assert "broken: provider module broken cannot be imported" in line
    assert "1 failed" in done.stderr


def test_the_doctor_fails_where_shared_memory_is_too_small(namespace: str) -> None:
    words = private_shm("-o size=1m tmpfs /dev/shm")
    done = subprocess.run(
        [*words, *PYTHON, "doctor", "--json"],
        capture_output=True,
        text=True,
        env=os.environ | {"PIKER_CONFIG": "/dev/null"},
    )
    assert done.returncode == failures.MACHINE, done.stderr
    found = states(done)
    assert found["shared memory"] == found["self-test"] == "fail"
    assert "Traceback" not in done.stderr


def test_the_doctor_fails_for_a_configuration_with_an_unknown_key(
    providers: Providers, namespace: str
) -> None:
    path = providers.folder / "config.toml"
    path.write_text("[kraken]\nws_urll = 'ws://127.0.0.1:1'\n")
    done = run("doctor", "--json", "--seconds", "0.1")
    assert done.returncode == failures.MACHINE
    [failed] = [line for line in records(done.stdout) if line["state"] == "fail"]
    assert failed["name"] == "configuration"
    assert str(path) in failed["text"]
    assert "ws_urll" in failed["text"]


def test_the_doctor_points_at_dead_rings(namespace: str) -> None:
    subprocess.run([sys.executable, "-c", KILLED, namespace], check=False)
    done = run("doctor", "--seconds", "0.1", "--namespace", namespace)
    [line] = [line for line in done.stdout.splitlines() if " rings " in line]
    assert line.startswith("warn")
    assert "3 dead" in line
    assert "piker-core segments" in done.stdout


def test_the_self_test_measures_and_leaves_nothing() -> None:
    test = run_selftest(0.2)
    assert test.rows_read > 0
    assert test.rows_torn == test.torn_after_kill == test.pings_missed == 0
    assert test.ticks_read + test.ticks_lost == test.ticks_pushed > 0
    assert test.alive_before_kill
    assert not test.alive_after_kill
    assert test.resumed
    assert 0 < test.wake_us["min"] <= test.wake_us["median"] <= test.wake_us["p99"]
    assert list_segments(f"doctor{os.getpid()}") == []


def test_the_self_tests_writer_ends_with_its_parent(namespace: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "piker_core.cli.selftest", namespace],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, b"ready\n")


def model_rows(count: int = 1000) -> NDArray[np.void]:
    """Two rows as the self-test's writer publishes them, the second still forming."""
    with pk.open_engine("doctor", tick_capacity=64) as engine:
        market = engine.add_market("m.doctor", capacity={1: 64, 60: 64}, fill="none")
        for number in range(1000 + count):
            push_one(engine, market, number)
        with pk.attach_bars("m.doctor") as bars:
            return bars.snapshot(2)


@pytest.mark.parametrize("count", [1, 2, 49, 50, 51, 999, 1000])
def test_the_self_test_accepts_every_state_of_a_row(count: int, namespace: str) -> None:
    assert bad_rows(model_rows(count)) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("index", 0),
        ("time", 0),
        ("open", 101.0),
        ("high", 148.0),
        ("low", 99.0),
        ("close", 100.0),
        ("volume", 499.5),
        ("count", 999),
    ],
)
def test_the_self_test_sees_a_row_that_was_never_published(
    field: str, value: float, namespace: str
) -> None:
    rows = model_rows()
    rows[field][1] = value
    assert bad_rows(rows) == 1
