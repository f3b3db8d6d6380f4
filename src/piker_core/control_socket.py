"""The control socket's file: where it is, whose it must be, who may connect.

It is named like the tick ring of the writer that it belongs to, and lies in the user's
runtime folder. Whoever holds the writer's lock may replace it.
"""

import logging
import os
import socket
import stat
import struct
import tempfile
import weakref
from pathlib import Path

from piker_core.errors import PikerError
from piker_core.segments import ring_name

RUN_USER = Path("/run/user")
"""Where `$XDG_RUNTIME_DIR` lies by custom."""
MOST_PATH = 107
"""Bytes that the system takes for the name of a socket."""
BACKLOG = 128
_CREDENTIALS = struct.Struct("3i")

log = logging.getLogger("piker_core.control")
_sockets: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()


def socket_paths(provider: str, namespace: str) -> list[Path]:
    """Where the socket of a provider's writer is made, then where else it may be."""
    return paths_of(ring_name(namespace, provider))


def paths_of(name: str) -> list[Path]:
    """Where a socket of this name is made, then where else it may be.

    The runtime folder comes first; who has none uses the temporary folder.
    """
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "")
    if not runtime.is_absolute():
        runtime = RUN_USER / str(os.geteuid())
        folders = [runtime / "piker-core"] if runtime.is_dir() else []
    else:
        folders = [runtime / "piker-core"]
    folders.append(Path(tempfile.gettempdir()) / f"piker-core-{os.geteuid()}")
    return [folder / name for folder in folders]


def listen(provider: str, namespace: str) -> tuple[socket.socket, Path]:
    """`listen_at`, for the writer of a provider's rings, who holds its lock."""
    return listen_at(ring_name(namespace, provider))


def listen_at(name: str) -> tuple[socket.socket, Path]:
    """A listening socket of mode 0600, and its file. For who holds the lock to it.

    The socket of one that died is replaced. Raises PikerError where the folder or the
    file is not this user's own, OSError.
    """
    path = paths_of(name)[0]
    if len(os.fsencode(path)) > MOST_PATH:
        raise PikerError(
            f"the control socket {path} would have a name of more than {MOST_PATH} "
            "bytes: set XDG_RUNTIME_DIR to a shorter one"
        )
    _make_folder(path.parent)
    remove_socket(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        os.fchmod(sock.fileno(), 0o600)  # the file never has another mode
        sock.bind(os.fspath(path))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return close_in_children(sock), path


def connect(provider: str, namespace: str) -> socket.socket | None:
    """`connect_to` the writer of a provider's rings."""
    return connect_to(ring_name(namespace, provider))


def connect_to(name: str) -> socket.socket | None:
    """A connection, None if no process of this user's listens there. At once.

    Raises BlockingIOError when more are waiting to be let in than there is room for.
    """
    for path in paths_of(name):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(os.fspath(path))
            if peer_uid(sock) == os.geteuid():
                return close_in_children(sock)
        except BlockingIOError:
            sock.close()
            raise
        except OSError as error:
            log.debug("%s: %s", path, error)
        sock.close()
    return None


def remove_socket(path: Path) -> None:
    """Remove the file of a socket, if there is one. For who holds the writer's lock.

    Raises PikerError where it is something else, or another user's; OSError.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
        raise PikerError(f"{path} is no socket of this user's: remove it")
    path.unlink()


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end of a connection."""
    size = _CREDENTIALS.size
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(_CREDENTIALS.unpack(found)[1])


def close_in_children(sock: socket.socket) -> socket.socket:
    """Have a socket closed in forked children, which would keep it open for ever."""
    _sockets.add(sock)
    return sock


def _close_inherited() -> None:
    for sock in list(_sockets):
        sock.close()


os.register_at_fork(after_in_child=_close_inherited)


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PikerError(f"{folder} is no folder of this user's: remove it")
    if status.st_mode & 0o077:
        raise PikerError(f"{folder} is open to others: chmod 700 {folder}")
