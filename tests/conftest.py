"""What the tests share: recordings, throw-away namespaces, a watchdog."""

import contextlib
import faulthandler
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import piker_core as pk
from tests.postgres_server import NoServer, PostgresServer, open_server

WATCHDOG_S = float(os.environ.get("PIKER_WATCHDOG_S", "300"))
AGAIN_S, GRACE_S = 5.0, 20.0
_numbers = itertools.count()
_stderr = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep the standard error that there is while no test's output is captured."""
    config.stash[_stderr] = os.dup(2)


# A shell ignores SIGINT for what it runs in the background, and nohup SIGHUP: children
# would inherit that, and the commands that tests interrupt would go on for ever.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        interrupted = _number == signal.SIGINT
        signal.signal(
            _number, signal.default_int_handler if interrupted else signal.SIG_DFL
        )


@pytest.fixture(autouse=True)
def watchdog(request: pytest.FixtureRequest) -> Iterator[None]:
    """Interrupts the run with every thread's stack when a test hangs.

    As Ctrl-C would, so that processes are ended and segments removed; again if need be
    (what a garbage collection raises is lost). In the end the process is ended.
    """
    stderr = request.config.stash[_stderr]

    def interrupt(*_: object) -> None:
        faulthandler.dump_traceback(stderr)
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, WATCHDOG_S, AGAIN_S)
    faulthandler.dump_traceback_later(WATCHDOG_S + GRACE_S, exit=True, file=stderr)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own, for the test and the processes that it starts."""
    folder = tmp_path / "caches"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session", autouse=True)
def runtime_folder() -> Iterator[Path]:
    """A runtime folder of the run's own: killed writers leave sockets there."""
    folder = Path(tempfile.mkdtemp(prefix="pk"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield folder
    shutil.rmtree(folder)


@pytest.fixture
def captures() -> Path:
    """Folder of the recordings; skips where there are none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "captures"
    folder = Path(os.environ.get("PIKER_CAPTURES") or beside)
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}: set PIKER_CAPTURES")
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole run; skips where none can be had."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(open_server())
        except NoServer as error:
            pytest.skip(str(error))
        yield server


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A namespace of its own, also as `$PIKER_NAMESPACE`; its segments are removed."""
    name = f"test{os.getpid()}x{next(_numbers)}"
    monkeypatch.setenv("PIKER_NAMESPACE", name)
    yield name
    pk.remove_segments(name)
