"""A venue that says again what was recorded, on loopback, and can fail meanwhile.

1. What was received on a connection is sent when it is its time, once the client has
   asked for as much as was asked for then. Answers to requests, known by the id that
   they have in common, are sent to whoever asks the same, with the id of that request.
2. Nothing is lost: while no client is there, or the replay is paused, messages wait.
3. Calls over HTTP have the recorded answers, by path and parameters.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio
from websockets.http11 import Request

from piker_core.conformance.recording import Message, Recording
from piker_core.conformance.script import Script, decoded
from piker_core.errors import PikerError
from piker_core.simulation.faults import Faults
from piker_core.simulation.http import Call, Reply, serve_http
from piker_core.simulation.limits import AttemptLimit
from piker_core.simulation.line import Line
from piker_core.simulation.link import Link as CommonLink
from piker_core.simulation.link import Refusal
from piker_core.simulation.serving import address, open_servers
from piker_core.simulation.sockets import SocketServer as CommonServer

OUTBOX_BYTES = 64 << 20
PATIENCE_S = 1.0
"""So long after its last request a client is thought to have asked for all."""


class Link(CommonLink):
    """One client's connection."""

    def __init__(self, line: Line, server: "ReplayServer") -> None:
        super().__init__(line, tally=server.tally, outbox_bytes=OUTBOX_BYTES)
        self.script: Script | None = None
        self.asked = 0
        self.heard_s = trio.current_time()

    def hear(self, text: bytes) -> None:
        """Answer a request as it was answered then."""
        self.heard_s = trio.current_time()
        if self.script is not None:
            for answer in self.script.answer(decoded(text), self.asked):
                self.reply(answer)
        self.asked += 1

    @property
    def ready(self) -> bool:
        """Whether it has asked for as much as was asked for then."""
        if self.script is None or self.line.frozen:
            return False
        if self.asked >= len(self.script.requests):
            return True
        waited_s = trio.current_time() - self.heard_s
        return self.asked > 0 and waited_s > PATIENCE_S


class ReplayServer(CommonServer[Link]):
    """The WebSocket side: scripts, and the clients that they are told to."""

    def __init__(self, scripts: Sequence[Script], faults: "ReplayFaults") -> None:
        super().__init__(faults, AttemptLimit(100_000, 60.0))
        self._scripts = scripts

    def make_link(self, line: Line) -> Link:
        """The connection on a line."""
        return Link(line, self)

    def check(self, link: Link, request: Request) -> Refusal | None:
        """Give the client a script of its path that nobody is told, or any."""
        path = request.path.partition("?")[0]
        taken = {other.script for other in self.links}
        free = [script for script in self._scripts if script not in taken]
        like = [script for script in free if script.path == path]
        if not free:
            return HTTPStatus.SERVICE_UNAVAILABLE, "no other connection was recorded\n"
        link.script = (like or free)[0]
        return None

    def opened(self, link: Link) -> None:
        """A client has time to ask from now on."""
        link.heard_s = trio.current_time()

    def ended(self, link: Link) -> None:
        """Nothing is kept of a client."""

    async def beat(self) -> None:
        """There is nothing to do from time to time."""
        await trio.sleep_forever()

    def dismiss(self) -> None:
        """Tell the clients that there are nothing more: their connections end."""
        for link in self.links:
            link.script = None

    def listener(self, script: Script) -> Link | None:
        """The client that is to be told a script now."""
        for link in self.links:
            if link.script is script and link.ready:
                return link
        return None


class ReplayFaults(Faults[bytes]):
    """Faults of connections and calls; messages may come twice."""


class ReplayVenue:
    """What was recorded, played again; made by `open_replay`.

    `missing`: calls that have no recorded answer.
    """

    def __init__(self, recording: Recording, seed: int, *, longest_s: float) -> None:
        self.recording = recording
        self.config: dict[str, str] = {}
        self.missing: list[str] = []
        self.faults = ReplayFaults(self, seed, {})
        self.end_s = min(recording.end_s, recording.begin_s + longest_s)
        self.scripts = [Script(session) for session in recording.sessions]
        self._sockets = ReplayServer(self.scripts, self.faults)
        self._given: dict[str, int] = {}
        self._paused = False
        self.behind_s = 0.0

    # The replay

    @property
    def over(self) -> bool:
        """Whether all has been sent."""
        return all(self._next(script) is None for script in self.scripts)

    def pause(self, on: bool = True) -> None:
        """Send nothing for a while; all of it is sent later."""
        self._paused = on

    def _next(self, script: Script) -> Message | None:
        """What comes next of a script, up to the end of the replay."""
        if script.place >= len(script.messages):
            return None
        message = script.messages[script.place]
        return message if message.time_s <= self.end_s else None

    async def play(self, script: Script) -> None:
        """Send a script, each message when it is its time."""
        while (message := self._next(script)) is not None:
            await trio.sleep(max(message.time_s - self.now_s(), 0.002))
            link = None if self._paused else self._sockets.listener(script)
            if link is not None:
                self._send_due(script, link)

    def _send_due(self, script: Script, link: Link) -> None:
        now_s, held = self.now_s(), list[bytes]()
        while (message := self._next(script)) and message.time_s <= now_s:
            script.place += 1
            broken = self.faults.broken_frame()
            if broken is not None:
                link.reply(broken)
            for text in self.faults.shape(held, message.text):
                link.reply(text)

    def now_s(self) -> float:
        """The time in the recording."""
        return trio.current_time() - self.behind_s

    # What the faults need (FaultSite)

    def cut_connections(self) -> int:
        """Reset every connection; returns how many."""
        self._sockets.dismiss()
        return self._sockets.reset_all()

    def freeze_connections(self) -> int:
        """Make the open connections silent and deaf; returns how many."""
        self._sockets.dismiss()
        return self._sockets.freeze_all()

    def close_connections(self, code: int, reason: str) -> int:
        """Close every connection with a handshake; returns how many."""
        self._sockets.dismiss()
        return self._sockets.close_all(code, reason)

    def broadcast_raw(self, text: bytes) -> int:
        """Send text as it is to every connection; returns to how many."""
        return self._sockets.send_all(text)

    def start_maintenance(self, seconds: float) -> None:
        """A recording has no maintenance. Raises PikerError."""
        raise PikerError("a recording has no maintenance")

    # The servers

    async def answer(self, call: Call) -> Reply:
        """Answer a call with what was answered then; the last answer goes on."""
        fault = self.faults.take_rest()
        if fault is not None:
            page = b"<html><body>502 Bad Gateway</body></html>"
            return Reply(page, HTTPStatus.BAD_GATEWAY, "text/html")
        answers = self.recording.find(call.path, call.query)
        if not answers:
            self.missing.append(f"{call.method} {call.path} {call.query}")
            return Reply(b'{"error":"not recorded"}', HTTPStatus.NOT_FOUND)
        name = f"{call.path} {answers[0].query}"
        number = self._given.get(name, 0)
        self._given[name] = number + 1
        return Reply(answers[min(number, len(answers) - 1)].message.text)

    async def serve(
        self,
        provider: ModuleType,
        nursery: trio.Nursery,
        listeners: Sequence[trio.SocketListener],
    ) -> None:
        """Serve on a port for WebSockets and one for HTTP, and begin to play."""
        sockets, rest = listeners
        self.config = addresses(provider, address(sockets), address(rest))
        for script in self.scripts:
            nursery.start_soon(self.play, script)
        await nursery.start(self._sockets.run, sockets)
        answer = partial(serve_http, answer=self.answer)
        await nursery.start(trio.serve_listeners, answer, [rest])

    async def close(self) -> None:
        """Close all connections."""
        await self._sockets.close()


def addresses(provider: ModuleType, sockets: str, rest: str) -> dict[str, str]:
    """The addresses in a provider's configuration, led to these two.

    Raises PikerError if there is none of a WebSocket.
    """
    shape = getattr(provider, "Config", None)
    fields: Mapping[str, Any] = {}
    if isinstance(shape, type) and issubclass(shape, msgspec.Struct):
        found = msgspec.structs.fields(shape)
        fields = {f.name: f.default for f in found if isinstance(f.default, str)}
    config = {}
    for key, default in fields.items():
        url = urlsplit(default)
        if url.scheme in ("ws", "wss"):
            config[key] = f"ws://{sockets}{url.path}"
        elif url.scheme in ("http", "https"):
            config[key] = f"http://{rest}{url.path}"
    if not any(value.startswith("ws:") for value in config.values()):
        raise PikerError(
            f"{provider.__name__} has no Config with the address of a WebSocket: "
            "a recording cannot be replayed to it"
        )
    return config


@asynccontextmanager
async def open_replay(
    provider: ModuleType,
    recording: Recording,
    *,
    seed: int,
    longest_s: float,
    lead_s: float,
) -> AsyncIterator[ReplayVenue]:
    """Serve a recording; it begins after `lead_s` and is cut after `longest_s`."""
    venue = ReplayVenue(recording, seed, longest_s=longest_s)
    venue.behind_s = trio.current_time() + lead_s - recording.begin_s
    serve = partial(venue.serve, provider)
    async with open_servers(serve, venue.close, host="127.0.0.1", ports=(0, 0)):
        yield venue
