"""The provider in a process of its own, and how it is asked."""

import math
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from piker_core.conformance.report import Failed

ANSWER_S = 40.0
"""How long any answer may take."""
END_S = 2.0
_LINES = 40
_MODULE = "piker_core.conformance.subject"


class Told(Exception):
    """What a provider raised: the name of the error, its text, whether it is ours."""

    def __init__(
        self, kind: str, text: str, *, known: bool, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.text, self.known = kind, text, known
        self.retry_after = retry_after


class _Reply(msgspec.Struct):
    id: int
    result: Any = None
    error: dict[str, Any] | None = None


class SubjectProcess:
    """The process of a provider under check; made by `open_subject`."""

    def __init__(self, process: trio.Process) -> None:
        self.pid = process.pid
        self._process = process
        self._replies: dict[int, _Reply] = {}
        self._events: dict[int, trio.Event] = {}
        self._number = 0
        self._turn = trio.Lock()
        self._stderr: deque[str] = deque(maxlen=_LINES)
        self._ended = trio.Event()

    async def ask(self, do: str, *, within_s: float = ANSWER_S, **what: Any) -> Any:
        """Ask for something. Raises Told for what the provider raises, Failed if there
        is no answer."""
        self._number += 1
        number = self._number
        event = self._events[number] = trio.Event()
        try:
            await self._send({"id": number, "do": do} | what)
            with trio.move_on_after(within_s):
                await event.wait()
        finally:
            del self._events[number]
        reply = self._replies.pop(number, None)
        if reply is None:
            if self._ended.is_set():
                raise Failed(await self.obituary())
            raise Failed(f"no answer to {do} within {within_s:g} s")
        if reply.error is not None:
            raise Told(**reply.error)
        return reply.result

    async def _send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        async with self._turn:
            try:
                await self._process.stdin.send_all(msgspec.json.encode(request) + b"\n")
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise Failed(await self.obituary()) from None

    @property
    def alive(self) -> bool:
        """Whether the process still answers."""
        return not self._ended.is_set()

    async def obituary(self) -> str:
        """Why the process has ended, with its last words."""
        with trio.move_on_after(5.0):
            await self._process.wait()
        words = next((line for line in reversed(self._stderr) if line.strip()), "")
        code = self._process.returncode
        return f"the provider's process ended with code {code}: {words or 'no words'}"

    def log(self) -> list[str]:
        """The newest lines of its log."""
        return list(self._stderr)

    async def end(self) -> None:
        """Have the process close what it has open, and end."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        with trio.move_on_after(END_S):
            await self._process.wait()

    # Reading, by `open_subject`

    async def read_answers(self) -> None:
        """Hand out the answers until the process ends."""
        assert self._process.stdout is not None
        rest = b""
        async for chunk in self._process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                reply = msgspec.json.decode(line, type=_Reply)
                if reply.id in self._events:
                    self._replies[reply.id] = reply
                    self._events[reply.id].set()
        self._ended.set()
        for event in self._events.values():
            event.set()

    async def read_log(self) -> None:
        """Keep the newest lines of its log."""
        assert self._process.stderr is not None
        rest = b""
        async for chunk in self._process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            self._stderr += [line.decode(errors="replace") for line in lines]


@asynccontextmanager
async def open_subject(
    spec: str, environ: Mapping[str, str], *, behind_ns: int = 0
) -> AsyncIterator[SubjectProcess]:
    """Run a provider in a process of its own; it is killed if it does not end itself.

    `behind_ns`: by how much its wall clock goes behind.
    """
    command = [sys.executable, "-m", _MODULE, spec]
    if behind_ns:
        command.append(str(behind_ns))
    pipe = subprocess.PIPE
    # In a session of its own, or Ctrl-C would hit it as well.
    process = await trio.lowlevel.open_process(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=dict(environ),
        start_new_session=True,
    )
    subject = SubjectProcess(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(subject.read_answers)
            nursery.start_soon(subject.read_log)
            try:
                yield subject
                await subject.end()
            finally:
                nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + math.inf):
            await process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()
