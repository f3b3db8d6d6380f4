"""The kill switch: while a file of the state folder is there, nothing is sent.

It works over processes and restarts. Whatever is in the file, or in its place, its
being there is what counts.
"""

import os
import pwd
import tempfile
import time
from pathlib import Path

import msgspec

from piker_core.errors import PikerError

NAME = "ems.kill"
_MOST = 4096


class Killed(msgspec.Struct, frozen=True):
    """What the file holds: why, since when (UTC nanoseconds) and by whom."""

    reason: str = ""
    time_ns: int = 0
    user: str = ""


def kill(folder: Path, reason: str = "") -> None:
    """Stop all sending of the gateways whose state is in `folder`, from now on.

    Raises PikerError if it cannot be written.
    """
    content = msgspec.json.encode(Killed(_line(reason), time.time_ns(), _user()))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{NAME}.", dir=folder)  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(folder / NAME)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync(folder)
    except OSError as error:
        if killed(folder):  # what is in its place does as well
            return
        raise PikerError(
            f"the kill switch {folder / NAME} cannot be set: {error}; stop the gateway"
        ) from None


def killed(folder: Path) -> str:
    """Why nothing is to be sent; empty: it may be. Costs one stat; never raises."""
    path = folder / NAME
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return f"the kill switch {path} cannot be looked at: {error}"
    told = _read(path)
    parts = [f"{path} has stopped all sending"]
    if told.time_ns > 0:
        seconds = min(told.time_ns // 1_000_000_000, 253_402_300_799)  # of year 9999
        parts.append(
            time.strftime(" since %Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
        )
    if told.user:
        parts.append(f" (by {_line(told.user)})")
    if told.reason:
        parts.append(f": {_line(told.reason)}")
    return "".join(parts) + "; `piker-core ems resume` lets it go on"


def resume(folder: Path) -> bool:
    """Let orders be sent again; whether they were stopped.

    Raises PikerError if the file cannot be removed.
    """
    path = folder / NAME
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise PikerError(
            f"the kill switch {path} cannot be removed: {error}; remove it by hand"
        ) from None
    return True


def _read(path: Path) -> Killed:
    """What is in the file; nothing, if that is not to be had. Waits for no one."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags)
        with os.fdopen(handle, "rb") as file:
            return msgspec.json.decode(file.read(_MOST), type=Killed)
    except (OSError, RecursionError, ValueError):
        return Killed()


def _line(text: str) -> str:
    """Text of a stranger as part of a sentence."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:200].strip()


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _sync(folder: Path) -> None:
    """Have the file's name on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
