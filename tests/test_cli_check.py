"""`check` and `new-provider`: their output, exit codes, and the green runs."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from piker_core.conformance.cases import names
from piker_core.conformance.replays import TAKES
from piker_core.segments import list_segments
from tests.broken_calls import CONTRACT
from tests.broken_providers import make_provider
from tests.commands import PYTHON, Providers, invoke, records, run, told_once
from tests.recorded_session import write_session

NAME = f"acme{os.getpid()}x"
LACKED = {"calls.skewed_clock", "reconnect.rotation", "reconnect.shutdown"}
"""Checks of faults that the simulated Kraken and the skeleton's venue have not."""
NO_FAULT = {"broker.cut_request"}
"""Likewise, of orders at the simulated Kraken."""
ORDERS = {name for name in names() if name.startswith("broker.")}
"""Checks of what the skeleton has not."""


class Runs(NamedTuple):
    """What three whole checks and the tests of the skeleton have said."""

    kraken: list[dict[str, Any]]
    binance: list[dict[str, Any]]
    skeleton: str
    own_tests: str


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Whole checks side by side, in processes of their own."""
    folder = tmp_path_factory.mktemp("generated")
    subprocess.run([*PYTHON, "new-provider", NAME, "--out", str(folder)], check=True)
    (folder / "outer").mkdir()
    (folder / "outer" / "__init__.py").touch()
    (folder / "outer" / NAME).symlink_to(folder / NAME / NAME)
    commands = (
        ([*PYTHON, "check", "kraken", "--json", "--seed", "11"], None),
        ([*PYTHON, "check", "binance", "--json", "--seed", "12"], None),
        ([*PYTHON, "check", f"outer.{NAME}"], folder),
        ([sys.executable, "-m", "pytest", "-q"], folder / NAME),
    )
    own = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    processes = [
        subprocess.Popen(
            command,
            cwd=where,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=own,
        )
        for command, where in commands
    ]
    outputs = [process.communicate(timeout=110)[0].decode() for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return Runs(records(outputs[0]), records(outputs[1]), *outputs[2:])


def test_kraken_passes_all_that_its_venue_can_fail_at(runs: Runs) -> None:
    *findings, summary = runs.kraken
    states = {finding["check"]: finding["state"] for finding in findings}
    assert set(states) == set(names()) - set(TAKES)
    lacked = LACKED | NO_FAULT
    assert {check for check, state in states.items() if state != "passed"} == lacked
    assert summary["kind"] == "summary" and summary["provider"] == "kraken"
    assert summary["passed"] == len(findings) - len(lacked)
    assert summary["failed"] == 0 and summary["not_applicable"] == len(lacked)
    resources = next(f for f in findings if f["check"] == "shutdown.resources")
    assert resources["figures"]["descriptors"] > 0
    assert set(findings[0]) == {
        *("kind", "check", "state", "text", "seconds", "figures", "log")
    }


def test_binance_passes_all(runs: Runs) -> None:
    *findings, summary = runs.binance
    states = {finding["check"]: finding["state"] for finding in findings}
    assert states == dict.fromkeys(set(names()) - set(TAKES), "passed")
    assert summary["provider"] == "binance" and summary["passed"] == len(findings)


def test_a_new_provider_passes_as_it_is(runs: Runs) -> None:
    *lines, last = runs.skeleton.splitlines()
    states = {line[16:].partition(" ")[0]: line[:14].strip() for line in lines}
    lacked = LACKED | ORDERS
    assert {check for check, state in states.items() if state != "passed"} == lacked
    passed = len(lines) - len(lacked)
    assert last.startswith(
        f"{NAME}: {passed} passed, 0 failed, {len(lacked)} not applicable"
    )


def test_a_new_provider_passes_its_own_tests(runs: Runs) -> None:
    assert " passed" in runs.own_tests and "failed" not in runs.own_tests


def test_a_check_leaves_no_rings(runs: Runs) -> None:
    left = [ring for ring in list_segments(everywhere=True) if ring.provider == NAME]
    assert left == []


# What is written


def test_a_new_provider_is_clean_whatever_its_name(tmp_path: Path) -> None:
    for name in ("ab", "a_name_of_twenty_let"):
        done = invoke("new-provider", name, "--out", str(tmp_path), "--json")
        files = [Path(line["path"]) for line in records(done.stdout, "file")]
        assert len(files) == 11 and all(file.is_file() for file in files)
        texts = [file.read_text() for file in files]
        assert not any("newvenue" in text.lower() for text in texts)
        settings = Path(__file__).parents[1] / "pyproject.toml"
        for command in (
            ["check", "--ignore", "I001,ASYNC110,ARG001"],
            ["format", "--check"],
        ):
            ruff = [sys.executable, "-m", "ruff", *command, "--config", str(settings)]
            done_ = subprocess.run(
                [*ruff, str(tmp_path / name)], capture_output=True, text=True
            )
            assert done_.returncode == 0, done_.stdout


@pytest.mark.parametrize("name", ["A", "x", "1ab", "a-b", "class", "json", "kraken"])
def test_a_name_that_cannot_be_one_is_refused(name: str, tmp_path: Path) -> None:
    done = invoke("new-provider", name, "--out", str(tmp_path))
    assert told_once(done, 5).startswith(f"piker-core: {name!r} ")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "acmey").mkdir()
    (tmp_path / "acmey" / "precious").touch()
    done = invoke("new-provider", "acmey", "--out", str(tmp_path))
    assert "is there already" in told_once(done, 5)
    assert [p.name for p in (tmp_path / "acmey").iterdir()] == ["precious"]


# Exit codes


@pytest.fixture
def providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Providers:
    """Makes providers for the commands that a test runs."""
    return Providers(tmp_path, monkeypatch)


def test_a_check_that_fails_is_exit_code_4(tmp_path: Path) -> None:
    before = list(sys.path)
    make_provider("failing", tmp_path, CONTRACT[0].changes)
    sys.path[:] = before
    only = ["--only", "contract.names", "--only", "contract.signatures"]
    done = subprocess.run(
        [*PYTHON, "check", "failing", *only],
        cwd=tmp_path / "failing",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4, done.stderr
    assert done.stdout.splitlines()[1].startswith("failed          contract.signatures")
    assert "failing: 1 passed, 1 failed, 0 not applicable" in done.stdout


def test_a_provider_that_there_is_not_is_exit_code_3() -> None:
    assert "no provider named 'haiku9'" in told_once(invoke("check", "haiku9"), 3)


def test_a_provider_that_cannot_be_imported_is_exit_code_5(
    providers: Providers,
) -> None:
    providers.install("brokenimport", "raise RuntimeError('at import')")
    done = run("check", "brokenimport")
    assert "cannot be imported: RuntimeError('at import')" in told_once(done, 5)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["check", "kraken", "--only", "haiku"], "no check 'haiku'"),
        (["check", "kraken", "--frames", "/nosuch", "--market", "x"], "/nosuch"),
        (["check", "kraken", "--market", "xbtusd"], "need each other"),
        (["check", "kraken", "--seed", "-1"], "greater than or equal to 0"),
        (["check"], "NAME"),
    ],
)
def test_wrong_usage_is_exit_code_2(words: list[str], text: str) -> None:
    done = run(*words)
    assert done.returncode == 2 and text in done.stderr


def test_a_recording_that_is_none_is_exit_code_5(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.write_text("haiku\n")
    done = invoke("check", "kraken", "--frames", str(path), "--market", "xbtusd")
    assert "line 1 is none of a recorded session" in told_once(done, 5)


def test_a_check_by_a_recording_asks_for_nothing_else(tmp_path: Path) -> None:
    files = write_session(tmp_path, seconds=1.0)
    words = [word for file in files for word in ("--frames", str(file))]
    only = ["--only", "contract.names", "--only", "exact"]
    done = invoke("check", "kraken", *words, "--market", "xbtusd", *only, "--json")
    assert done.returncode == 0
    assert [line["check"] for line in records(done.stdout, "check")] == [
        "contract.names"
    ]


def children_of(pid: int) -> list[Path]:
    """Folders in /proc of a process's children."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(path)
    return found


def test_an_interrupted_check_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*PYTHON, "check", "kraken", "--only", "exact"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    space = f"check{process.pid}x"
    while not any(
        r.namespace.startswith(space) for r in list_segments(everywhere=True)
    ):
        assert process.poll() is None
    children = children_of(process.pid)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143 and "Traceback" not in errors
    left = [r for r in list_segments(everywhere=True) if r.namespace.startswith(space)]
    assert left == []
    assert children and not any(child.exists() for child in children)


def test_providers_are_listed_with_their_venues() -> None:
    lines = records(invoke("providers", "--json").stdout, "provider")
    venues = {line["name"]: line["venue"] for line in lines}
    assert venues["kraken"] == "providers.kraken.venue"
    assert "simulated" in invoke("providers").stdout
