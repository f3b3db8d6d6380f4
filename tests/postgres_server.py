"""A PostgreSQL server of the tests' own, from Debian's packages; nothing of it is left.

    python -m tests.postgres_server -- COMMAND {url} ...

runs a command with a server beside it: `{url}` in its arguments, and
$PIKER_TEST_POSTGRES, are the URL of an empty database.
"""

import contextlib
import fcntl
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PASSWORD = "s3cret-pw"
USER = "piker"
START_S = 60.0
INSTALL_S = 600.0
PLAIN = {name: text for name, text in os.environ.items() if name != "LD_PRELOAD"}
"""A server does without the sanitizers of a sanitized Python."""
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.conf")


class NoServer(Exception):
    """There is no PostgreSQL here and none can be installed; the text says why."""


def find_binaries() -> Path:
    """The folder of `postgres` and `initdb`, installed first where that is possible.

    $PIKER_POSTGRES_BIN names one of another build. Raises NoServer.
    """
    if folder := os.environ.get("PIKER_POSTGRES_BIN"):
        return Path(folder)
    if not (found := _installed()):
        _install()
        found = _installed()
    if not found:
        raise NoServer("no postgres and initdb in /usr/lib/postgresql/*/bin")
    return found


def _installed() -> Path | None:
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    whole = [path for path in folders if (path / "initdb").exists()]
    return max(whole, key=lambda path: float(path.parent.name), default=None)


def _install() -> None:
    """Debian's server, without the cluster that its package makes and starts."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise NoServer("PostgreSQL is not installed (Debian: apt-get install it)")
    with Path(tempfile.gettempdir(), "piker-test-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed():
            return
        if not NO_CLUSTER.exists():
            NO_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
            NO_CLUSTER.write_text("create_main_cluster = false\n")
        options = ["-y", "-qq", "--no-install-recommends"]
        options += ["-o", "Dpkg::Options::=--force-confold"]
        for words in (["update", "-qq"], ["install", *options, "postgresql"]):
            done = subprocess.run(
                ["apt-get", *words],
                capture_output=True,
                text=True,
                timeout=INSTALL_S,
                env=PLAIN | {"DEBIAN_FRONTEND": "noninteractive"},
            )
            if done.returncode:
                raise NoServer(f"apt-get {words[0]} failed: {done.stderr[-300:]}")


def _as_other() -> dict[str, Any]:
    """Who the server runs as: it refuses root."""
    if os.geteuid() != 0:
        return {}
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresServer:
    """A running server: TCP on loopback with a password, and a socket in its folder."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder = folder
        self.binaries = binaries
        self.port = _free_port()
        self.hypertables = bool(list(binaries.parent.glob("lib/timescaledb*.so")))
        self._numbers = itertools.count()
        self._log: list[str] = []
        self._is_ready = False
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def create(self) -> None:
        """Make an empty cluster whose superuser is `USER`."""
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run(
            "initdb", f"--pgdata={self.folder}/cluster", f"--username={USER}",
            "--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8",
            "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip

    def _run(self, program: str, *options: str) -> None:
        done = subprocess.run(
            [self.binaries / program, *options],
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=START_S,
            env=PLAIN,
            **_as_other(),
        )
        if done.returncode:
            raise NoServer(f"{program} failed: {done.stderr.strip()}")

    def start(self) -> None:
        """Start it and return when it accepts connections. Raises NoServer."""
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1"]
        settings += [f"unix_socket_directories={self.folder}", "max_connections=60"]
        if self.hypertables:
            settings += ["shared_preload_libraries=timescaledb"]
            settings += ["timescaledb.telemetry_level=off"]
        options = [word for one in settings for word in ("-c", one)]
        self._process = subprocess.Popen(
            [self.binaries / "postgres", "-D", self.folder / "cluster", *options],
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=PLAIN,
            **_as_other(),
        )
        self._is_ready, told = False, threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, told))
        self._reader.start()
        told.wait(START_S)
        if not self._is_ready:
            raise NoServer(f"postgres does not start: {''.join(self._log)[-500:]}")

    def _read(self, process: subprocess.Popen[str], told: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self._log.append(line)
                if "ready to accept connections" in line:
                    self._is_ready = True
                    told.set()
        told.set()

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it: SIGINT cuts all connections and writes what is to be written."""
        if self._process is not None and self._reader is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._reader.join()

    def kill(self) -> None:
        """kill -9 of all its processes at once, if it runs."""
        if self._process is None or self._process.poll() is not None:
            return
        children = self._children()
        self._process.kill()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self.stop(signal.SIGKILL)

    def _children(self) -> list[int]:
        assert self._process is not None
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(word) for word in path.read_text().split()]

    def url(self, database: str = "postgres", user: str = USER) -> str:
        """The URL of a database over TCP."""
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"db{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, *, url: str = "") -> list[tuple[Any, ...]]:
        """Run a statement, on the maintenance database by default; its rows."""
        import psycopg

        with psycopg.connect(url or self.url(), autocommit=True) as link:
            cursor = link.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def open_server() -> Iterator[PostgresServer]:
    """A server in a temporary folder, stopped and removed at the end."""
    binaries = find_binaries()
    folder = Path(tempfile.mkdtemp(prefix="pkpg"))
    try:
        server = PostgresServer(folder, binaries)
        server.create()
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def main(words: list[str]) -> int:
    """Run a command with a server beside it; its exit code."""
    with open_server() as server:
        url = server.new_database()
        command = [word.replace("{url}", url) for word in words if word != "--"]
        environ = os.environ | {"PIKER_TEST_POSTGRES": url}
        return subprocess.run(command, env=environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
