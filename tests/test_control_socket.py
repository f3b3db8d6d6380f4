"""The control socket's file: where it is, whose it is, what is in its way."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio

from piker_core import control_server, control_socket
from piker_core.control import Ask
from piker_core.control_server import Server
from tests.control_clients import (
    PROVIDER,
    Desk,
    assert_serves,
    connect,
    hear,
    open_server,
    wait_until,
)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose name leaves room for that of a socket."""
    folder = Path(tempfile.mkdtemp(prefix="pk"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def server(desk: Desk, namespace: str) -> AsyncIterator[Server]:
    async with open_server(desk, namespace) as server:
        yield server


async def test_the_socket_is_for_its_user_alone_whatever_the_umask(
    desk: Desk, namespace: str
) -> None:
    umask = os.umask(0)
    try:
        async with open_server(desk, namespace) as server:
            path = control_socket.socket_paths(PROVIDER, namespace)[0]
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.lstat().st_mode) == 0o700
            await assert_serves(server)
        assert not path.exists()
    finally:
        os.umask(umask)


async def test_another_user_is_not_served(
    server: Server, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "peer_uid", lambda _: os.geteuid() + 1)
    with connect(server.namespace) as link:
        await link.send(Ask(1, ["xbtusd"]))
        with pytest.raises(EOFError):
            await hear(link)
        assert not desk.asked


async def test_another_users_server_is_not_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "peer_uid", lambda _: os.geteuid() + 1)
    assert control_socket.connect(PROVIDER, server.namespace) is None


async def test_the_socket_of_a_dead_writer_is_replaced(
    desk: Desk, namespace: str
) -> None:
    path = control_socket.socket_paths(PROVIDER, namespace)[0]
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    assert control_socket.connect(PROVIDER, namespace) is None
    async with open_server(desk, namespace) as server:
        await assert_serves(server)


def make_file(path: Path) -> str:
    path.write_text("mine")
    return "no socket of this user's"


def make_link(path: Path) -> str:
    path.symlink_to("/dev/null")
    return "no socket of this user's"


def make_folder(path: Path) -> str:
    path.mkdir()
    return "no socket of this user's"


def open_folder(path: Path) -> str:
    path.parent.chmod(0o755)
    return f"chmod 700 {path.parent}"


def link_folder(path: Path) -> str:
    path.parent.rmdir()
    path.parent.symlink_to("/tmp")
    return "no folder of this user's"


def lose_runtime(path: Path) -> str:
    path.parent.rmdir()
    path.parent.parent.rmdir()
    return "No such file or directory"


@pytest.mark.parametrize(
    "spoil",
    [make_file, make_link, make_folder, open_folder, link_folder, lose_runtime],
)
def test_what_is_in_the_way_is_refused_and_said_in_one_sentence(
    spoil: Callable[[Path], str],
    namespace: str,
    short_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder))
    path = control_socket.socket_paths(PROVIDER, namespace)[0]
    path.parent.mkdir(mode=0o700)
    text = spoil(path)
    with Server(PROVIDER, namespace) as server, server.listening() as made:
        assert made is None
    [record] = caplog.records
    assert text in record.getMessage() and str(path.parent) in record.getMessage()
    assert not os.path.lexists(path) or not stat.S_ISSOCK(path.lstat().st_mode)


def test_a_runtime_folder_with_too_long_a_name_is_refused(
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 90)))
    with Server(PROVIDER, namespace) as server, server.listening() as made:
        assert made is None
    assert "more than 107 bytes" in caplog.text
    assert control_socket.connect(PROVIDER, namespace) is None


@pytest.mark.parametrize("value", [None, "", "relative/path"])
async def test_without_a_runtime_folder_it_is_in_the_temporary_one(
    value: str | None,
    desk: Desk,
    namespace: str,
    short_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_folder))
    monkeypatch.setattr(control_socket, "RUN_USER", Path("/nonexistent"))
    if value is None:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    async with open_server(desk, namespace) as server:
        own = short_folder / f"piker-core-{os.geteuid()}"
        [path] = control_socket.socket_paths(PROVIDER, namespace)
        assert path.parent == own
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
        await assert_serves(server)
        # A client that has a runtime folder finds it, too.
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
        await assert_serves(server)


FORK = """
import os, signal, sys
from piker_core.control import Ask, frame_message
from piker_core.control_socket import connect
sock = connect(sys.argv[1], sys.argv[2])
sock.setblocking(True)
sock.sendall(frame_message(Ask(1, ["xbtusd"])))
sys.stdin.readline()
if not os.fork():
    signal.pause()  # it outlives its parent
"""


async def test_a_forked_child_does_not_keep_what_its_parent_had_open(
    server: Server, desk: Desk
) -> None:
    parent = await trio.lowlevel.open_process(
        [sys.executable, "-c", FORK, PROVIDER, server.namespace],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert parent.stdin is not None
    try:
        async with parent.stdin:
            await wait_until(lambda: desk.held)
            await parent.stdin.send_all(b"fork\n")
            await parent.wait()
        await wait_until(lambda: not desk.held)
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
