"""Exit codes, and one clear sentence for everything that can go wrong.

Nothing heavy is imported here: the help text needs this module.
"""

import errno
import logging
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

from piker_core.errors import (
    BadTick,
    DataThrottle,
    DataUnavailable,
    FeedError,
    NoData,
    NotFound,
    OrderError,
    PikerError,
    ProviderError,
)

OK, BUG, USAGE, MISSING, VENUE, MACHINE = range(6)
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
HUNG_UP = 128 + signal.SIGHUP

EXIT_CODES = """\b
Exit codes:
  0  all went well, or the reader of the output has had enough
  1  unexpected: a bug (run again with --debug)
  2  wrong usage
  3  not found: ring, market, symbol or provider
  4  feed, venue, network or their data in trouble
  5  machine or configuration in trouble: config file, shared memory, another writer
  129, 130, 143  ended by the terminal's closing, by Ctrl-C, by SIGTERM
"""

_VENUE = (ProviderError, FeedError, NoData, DataUnavailable, DataThrottle, BadTick)
_NETWORK = (ConnectionError, TimeoutError, socket.gaierror)
_ADVICE = {
    errno.ENOSPC: "free some space (piker-core segments --gc), or enlarge it",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOMEM: "free some memory, or raise the limits of this process",
    errno.EACCES: "check whose it is and its mode",
}


class OutputClosed(Exception):
    """The reader of standard output has gone away, as `| head` does."""


class _State:
    signal = signal.SIGINT
    """What interrupts: Ctrl-C, or another signal that is passed on as one."""


@contextmanager
def catch_termination() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, so that it closes its rings.

    A signal that is ignored, as `nohup` has it, stays ignored.
    """

    def interrupt(number: int, _frame: FrameType | None) -> None:
        _State.signal = signal.Signals(number)
        signal.raise_signal(signal.SIGINT)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    caught = [n for n in numbers if signal.getsignal(n) is signal.SIG_DFL]
    for number in caught:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def guard(work: Callable[[], int | None], *, debug: bool = False) -> int:
    """Do the work of a command; its exit code, whatever it raises told on stderr.

    `debug` shows tracebacks and all log records.
    """
    try:
        with _log_to_stderr(debug):
            code = work() or OK
            write_stdout()
    except BaseException as error:  # noqa: BLE001 - ends here, told and with a code
        code = report(error, debug=debug)
    return code


def report(error: BaseException, *, debug: bool = False) -> int:
    """Tell on stderr what went wrong; the exit code."""
    code, sentence = explain(error)
    if debug and sentence:
        traceback.print_exception(error, file=sys.stderr)
    if sentence:
        sys.stderr.write(f"piker-core: {sentence}\n")
    if any(isinstance(leaf, OutputClosed) for leaf in leaves(error)):
        drop_stdout()
    return code


def misused(text: str) -> int:
    """Tell on stderr why options do not go together; the exit code."""
    sys.stderr.write(f"piker-core: {text}\n")
    return USAGE


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code for an error, and the sentence that says what to do, or nothing."""
    found = leaves(error)
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in found):
        return 128 + _State.signal, ""
    if any(isinstance(leaf, OutputClosed) for leaf in found):
        return OK, ""
    worst = min(found, key=lambda leaf: isinstance(leaf, PikerError | OSError))
    more = f" (and {len(found) - 1} more errors)" if len(found) > 1 else ""
    return _code(worst), _sentence(worst) + more


def leaves(error: BaseException) -> list[BaseException]:
    """The errors of a group of groups, cancellations aside; the error if it is none."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    found = [leaf for part in error.exceptions for leaf in leaves(part)]
    return [leaf for leaf in found if type(leaf).__name__ != "Cancelled"] or [error]


def _code(error: BaseException) -> int:
    if isinstance(error, NotFound):
        return MISSING
    if isinstance(error, OrderError):
        return USAGE
    if isinstance(error, _VENUE + _NETWORK):
        return VENUE
    return MACHINE if isinstance(error, PikerError | OSError) else BUG


def _sentence(error: BaseException) -> str:
    if isinstance(error, PikerError):
        return str(error)
    if isinstance(error, OSError):
        text = error.strerror or str(error) or type(error).__name__
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        advice = _ADVICE.get(error.errno or 0, "")
        if error.filename == "/dev/shm":
            advice = "mount a tmpfs there (piker-core doctor tells more)"
        return f"{where}{text}" + (f": {advice}" if advice and where else "")
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"unexpected {text} (a bug: run again with --debug and report it)"


def write_stdout(text: str = "") -> None:
    """Write and flush. Raises OutputClosed when nobody reads the output any more."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise OutputClosed from None
    except OSError:
        drop_stdout()  # what is still buffered would fail once more at the very end
        raise


def check_stdout() -> None:
    """Raise OutputClosed when nobody reads the output any more."""
    try:
        descriptor = sys.stdout.fileno()
    except OSError:
        return  # none of the system's
    poll = select.poll()
    poll.register(descriptor, 0)
    if any(event & select.POLLERR for _, event in poll.poll(0)):
        raise OutputClosed


def drop_stdout() -> None:
    """Point standard output at nothing, so that nothing complains at the very end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes where `sys.stderr` points when it writes: a live table redirects it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


@contextmanager
def _log_to_stderr(debug: bool) -> Iterator[None]:
    """Warnings of all, and with `debug` every record of ours."""
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    root = logging.getLogger()
    ours = [logging.getLogger(name) for name in ("piker_core", "providers")]
    levels = [logger.level for logger in ours]
    root.addHandler(handler)
    for logger in ours if debug else ():
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for logger, level in zip(ours, levels, strict=True):
            logger.setLevel(level)
