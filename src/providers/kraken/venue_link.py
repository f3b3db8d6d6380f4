"""One WebSocket client of a simulated Kraken."""

from collections import defaultdict
from typing import Protocol

import msgspec
import trio

from piker_core.simulation.limits import TokenBucket
from piker_core.simulation.line import Line
from piker_core.simulation.link import Link as CommonLink
from piker_core.simulation.link import Tally
from piker_core.simulation.totals import Rows

from .venue_frames import HEARTBEAT
from .venue_requests import Desk, Topic

HEARTBEAT_S = 1.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the WebSocket side; the defaults are the venue's.

    `idle_s`: life of a connection without subscription or message. `attempts` in
    `attempts_s`: connection attempts before a ban of that length. `message_rate` a
    second after a `message_burst`: requests of one connection. `outbox_bytes`: what
    may wait to be sent to a client before it is dropped.
    """

    idle_s: float = 60.0
    attempts: int = 150
    attempts_s: float = 600.0
    message_rate: float = 50.0
    message_burst: float = 100.0
    outbox_bytes: int = 8 << 20


class Hub(Protocol):
    """What a link needs of the server it belongs to."""

    limits: Limits
    tally: Tally
    desk: Desk

    def join(self, link: "Link", topic: Topic) -> None:
        """Add the client to a topic's audience."""

    def leave(self, link: "Link", topic: Topic) -> None:
        """Remove it."""


class Link(CommonLink):
    """One client's connection: its subscriptions, and the frames on their way."""

    def __init__(self, line: Line, number: int, hub: Hub) -> None:
        self._limits = limits = hub.limits
        super().__init__(line, tally=hub.tally, outbox_bytes=limits.outbox_bytes)
        self.number = number
        self.topics: set[Topic] = set()
        self.held: defaultdict[str, list[Rows]] = defaultdict(list)
        self._requests = TokenBucket(limits.message_rate, limits.message_burst)
        self._hub = hub
        self._spoke_s = self._quiet_s = trio.current_time()

    def hear(self, text: bytes) -> None:
        """Answer a request."""
        in_rate = self._requests.take(trio.current_time())
        self._hub.desk.answer(self, text, in_rate=in_rate)

    def send(self, frame: bytes) -> None:
        """Queue a frame of a channel: no heartbeat is due for a while."""
        self._spoke_s = trio.current_time()
        self.reply(frame)

    def subscribe(self, topic: Topic) -> None:
        """Have a topic's frames sent here from now on."""
        if not self.topics:
            self._spoke_s = trio.current_time()
        self.topics.add(topic)
        self._hub.join(self, topic)

    def unsubscribe(self, topic: Topic) -> None:
        """End that."""
        self._hub.leave(self, topic)
        self.topics.discard(topic)
        self._quiet_s = trio.current_time()

    def beat(self, now_s: float) -> bool:
        """Send a heartbeat if one is due; whether the client was idle for too long."""
        if self.topics:
            if now_s >= self._spoke_s + HEARTBEAT_S:
                self.send(HEARTBEAT)
            return False
        since_s = max(self.line.heard_s, self._quiet_s)
        return now_s >= since_s + self._limits.idle_s and not self.line.frozen
