"""A journal's folder: its segments, and the lock of its one writer.

The lock is on the file `lock`, held by an open file description that no other process
has: it ends with the process, however that ends, and a forked child gives it up.
"""

import fcntl
import os
import stat
import struct
from contextlib import suppress
from pathlib import Path

from piker_core.errors import JournalError
from piker_core.journal.layout import LOCK, segment_number

_FLOCK = struct.Struct("hhqqi0q")
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def list_segments(folder: Path) -> dict[int, Path]:
    """Segments by their number, ascending; other files are left out.

    Raises JournalError if the folder cannot be read.
    """
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError as error:
        raise JournalError(
            f"journal {folder} cannot be read: {error.strerror}"
        ) from None
    found = {segment_number(name): name for name in names}
    numbers = sorted(number for number in found if number is not None)
    return {number: folder / found[number] for number in numbers}


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a plain file. Raises OSError, JournalError for what is none."""
    descriptor = os.open(path, flags | _FLAGS, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise JournalError(f"{path} is no plain file: take it out of the journal")
    return descriptor


def take_lock(folder: Path) -> int:
    """The descriptor that holds the writer's lock; closing it gives it up.

    Raises JournalError if another writer has it, in this process or another.
    """
    path = folder / LOCK
    try:
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise JournalError(
            f"journal {folder} cannot be written: {error.strerror}"
        ) from None
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _whole_file())
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    except BlockingIOError:
        who = os.pread(descriptor, 20, 0).strip().decode(errors="replace")
        os.close(descriptor)
        raise JournalError(
            f"process {who or 'of unknown number'} writes journal {folder}: "
            "a journal has one writer, take another folder"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise JournalError(f"{path} cannot be locked: {error.strerror}") from None
    return descriptor


def give_up_lock(descriptor: int) -> None:
    """Give up the writer's lock, also where a forked child has not closed it yet."""
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_UNLCK))
    os.close(descriptor)


def has_writer(folder: Path) -> bool:
    """Whether a writer holds the lock now; never takes it."""
    try:
        descriptor = open_regular(folder / LOCK)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise JournalError(
            f"{folder / LOCK} cannot be read: {error.strerror}"
        ) from None
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _whole_file())
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)


def _whole_file(kind: int = fcntl.F_WRLCK) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0)
