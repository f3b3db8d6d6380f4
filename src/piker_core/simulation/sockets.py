"""The WebSocket server of a simulated venue: who connects, and how it all ends."""

import abc
from functools import partial
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import trio
from websockets.http11 import Request

from piker_core.simulation.faults import Faults
from piker_core.simulation.limits import AttemptLimit
from piker_core.simulation.line import Gate, Line
from piker_core.simulation.link import Link, Refusal, Tally

GOING_AWAY = 1001
L = TypeVar("L", bound=Link)


class SocketServer(abc.ABC, Generic[L]):
    """All WebSocket clients of a venue.

    `accepted` counts connections that were opened, `refused` those turned away.
    """

    def __init__(self, faults: Faults[Any], attempts: AttemptLimit) -> None:
        self.links: set[L] = set()
        self.accepted = 0
        self.refused = 0
        self.tally = Tally()
        self.lag_s = 0.0
        self._faults = faults
        self._attempts = attempts
        self._nursery: trio.Nursery
        self._accepting = trio.CancelScope()
        self._ended = trio.Event()

    @abc.abstractmethod
    def make_link(self, line: Line) -> L:
        """The connection on a line."""

    @abc.abstractmethod
    def check(self, link: L, request: Request) -> Refusal | None:
        """What is wrong with a handshake, if anything."""

    @abc.abstractmethod
    def opened(self, link: L) -> None:
        """A connection was opened."""

    @abc.abstractmethod
    def ended(self, link: L) -> None:
        """An opened connection is over."""

    @abc.abstractmethod
    async def beat(self) -> None:
        """Do what is to be done from time to time, until cancelled."""

    # Connections

    async def run(
        self,
        listener: trio.SocketListener,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self.beat)
            task_status.started()
            with self._accepting:
                await trio.serve_listeners(
                    self._serve,
                    [Gate(listener, self._admit)],
                    handler_nursery=self._nursery,
                )

    async def close(self) -> None:
        """Close the listener and every connection, and wait for their end."""
        self._accepting.cancel()
        for link in self.links:
            if link.line.frozen:
                link.reset()
        self.close_all(GOING_AWAY, "")
        while self.links:
            await self._ended.wait()

    def _admit(self, line: Line) -> bool:
        if self._faults.refusing:
            self.refused += 1
            line.reset()
        elif self._faults.frozen:
            self._nursery.start_soon(line.swallow)
        else:
            return True
        return False

    async def _serve(self, line: Line) -> None:
        link = self.make_link(line)
        link.lag_s = self.lag_s
        try:
            await link.run(partial(self._check, link), partial(self._join, link))
        finally:
            if link in self.links:
                self.links.discard(link)
                self.ended(link)
                self._ended.set()
                self._ended = trio.Event()

    def _check(self, link: L, request: Request) -> Refusal | None:
        if not self._attempts.take(trio.current_time()):
            self.refused += 1
            return HTTPStatus.TOO_MANY_REQUESTS, "error code: 1015\n"
        return self.check(link, request)

    def _join(self, link: L) -> None:
        self.links.add(link)
        self.accepted += 1
        self.opened(link)

    # All of them

    def reset_all(self) -> int:
        """Reset every connection; returns how many."""
        links = tuple(self.links)
        for link in links:
            link.reset()
        return len(links)

    def freeze_all(self) -> int:
        """Make every connection silent and deaf; returns how many."""
        fresh = [link for link in self.links if not link.line.frozen]
        for link in fresh:
            link.line.frozen = True
        return len(fresh)

    def close_all(self, code: int, reason: str) -> int:
        """Close every connection; returns how many."""
        for link in self.links:
            link.close(code, reason)
        return len(self.links)

    def send_all(self, text: bytes) -> int:
        """Send a message to every connection; returns to how many."""
        for link in self.links:
            link.reply(text)
        return len(self.links)

    def delay_all(self, seconds: float) -> None:
        """Send every frame from now on so much later than it is made."""
        self.lag_s = seconds
        for link in self.links:
            link.lag_s = seconds
