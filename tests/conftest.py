"""What the tests share: recordings, throw-away namespaces, a watchdog."""

import faulthandler
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import piker_core as pk

WATCHDOG_S = float(os.environ.get("PIKER_WATCHDOG_S", "300"))
_numbers = itertools.count()
_stderr = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep the standard error that there is while no test's output is captured."""
    config.stash[_stderr] = os.dup(2)


@pytest.fixture(autouse=True)
def watchdog(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ends the run with every thread's stack when a test hangs."""
    stderr = request.config.stash[_stderr]
    faulthandler.dump_traceback_later(WATCHDOG_S, exit=True, file=stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own, for the test and the processes that it starts."""
    folder = tmp_path / "caches"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def captures() -> Path:
    """Folder of the recordings; skips where there are none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "captures"
    folder = Path(os.environ.get("PIKER_CAPTURES") or beside)
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}: set PIKER_CAPTURES")
    return folder


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A namespace of its own, also as `$PIKER_NAMESPACE`; its segments are removed."""
    name = f"test{os.getpid()}x{next(_numbers)}"
    monkeypatch.setenv("PIKER_NAMESPACE", name)
    yield name
    pk.remove_segments(name)
