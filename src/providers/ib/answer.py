"""What comes in for one request, until it ends or fails."""

from collections.abc import Callable
from typing import Any

import trio

from piker_core.errors import PikerError

from . import codes

Ends = Callable[[str, tuple[Any, ...]], bool]


class Answer:
    """What came in for one request."""

    def __init__(self, what: str, ends: Ends) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.error: PikerError | None = None
        self.done = trio.Event()
        self._what = what
        self._ends = ends

    def take(self, name: str, arguments: tuple[Any, ...]) -> None:
        """A message on the request."""
        if name == "error":
            code, text = arguments
            if not codes.is_notice(code):
                self.fail(codes.request_error(code, text, self._what))
            return
        if arguments:
            self.rows.append(arguments)
        if self._ends(name, arguments):
            self.done.set()

    def fail(self, error: PikerError) -> None:
        """There will be no more."""
        if not self.done.is_set():
            self.error = error
            self.done.set()
