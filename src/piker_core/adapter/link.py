"""One connection of a stream, and the lane of topics that it carries.

What the venue answers is noted in the connection's book and told to the stream.
"""

import time
from collections.abc import Sequence
from typing import Protocol

import trio

from piker_core.adapter.subscriptions import SubscriptionBook, Topic, TopicRequest


class Answered(Protocol):
    """The stream, as its connections know it."""

    def tell_losses(self, lane: "Lane") -> None:
        """Before another connection serves topics: what dead ones carried is lost."""

    def acked(self, lane: "Lane", link: "Link", topics: Sequence[Topic]) -> None:
        """The venue serves topics on a connection."""

    def refused(
        self, lane: "Lane", link: "Link", topics: Sequence[Topic], reason: str
    ) -> None:
        """The venue does not serve topics on a connection."""


class Link:
    """One connection: its book, and what was heard of it."""

    def __init__(self, stream: Answered, lane: "Lane", book: SubscriptionBook) -> None:
        self.book = book
        self.frames = 0
        self.heard_ns = 0
        self.ready = trio.Event()
        self.ready_s = 0.0
        self.over = trio.Event()
        self.renew = trio.Event()
        self.scope = trio.CancelScope()
        self.reason = ""
        self.ended = self.loss_told = False
        self._stream, self._lane = stream, lane
        self._seen_frames = self._probed_frames = -1
        self._seen_s = 0.0
        self._wake = trio.Event()

    # Answers of the venue, for `StreamVenue.take`

    def ack(self, topic: Topic) -> bool:
        """The venue serves a topic. False if that was not asked."""
        self._stream.tell_losses(self._lane)
        if not self.book.ack(topic):
            return False
        self._stream.acked(self._lane, self, [topic])
        return True

    def ack_request(self, number: int) -> bool:
        """The venue did what a request says. False if there was none of this number."""
        known = self.book.knows(number)
        self._stream.tell_losses(self._lane)
        self._stream.acked(self._lane, self, self.book.ack_request(number))
        return known

    def refuse(self, topic: Topic, reason: str) -> bool:
        """The venue does not serve a topic. False if that was not asked."""
        if not self.book.refuse(topic, reason):
            return False
        self._stream.refused(self._lane, self, [topic], reason)
        return True

    def refuse_request(self, number: int, reason: str) -> bool:
        """The venue refused a whole request. False if there was none of this number."""
        known = self.book.knows(number)
        topics = self.book.refuse_request(number, reason)
        self._stream.refused(self._lane, self, topics, reason)
        return known

    @property
    def dead(self) -> bool:
        """Whether it has ended or was abandoned, closed or not."""
        return self.ended or self.scope.cancel_called

    def abandon(self, reason: str) -> None:
        """End the connection: it is dead, whatever its socket says."""
        self.reason = self.reason or reason
        self.scope.cancel()

    def rotate(self) -> None:
        """Have it replaced now, because the venue says that it will end."""
        self.renew.set()

    # For the stream

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()
        self._wake = trio.Event()

    async def wait_request(self) -> TopicRequest:
        """The next request, when it may be sent."""
        while True:
            now_s = time.monotonic()
            request = self.book.next_request(now_s)
            if request is not None:
                return request
            with trio.move_on_after(self.book.wait_s(now_s)):
                await self._wake.wait()

    def silence_s(self, now_s: float) -> float:
        """How long nothing was heard, by those who ask often; 0 before it was open."""
        if self.frames != self._seen_frames or not self.heard_ns:
            self._seen_frames, self._seen_s = self.frames, now_s
        return now_s - self._seen_s

    def probe(self) -> None:
        """Ask for a sign of life, once a silence."""
        if self._probed_frames != self.frames:
            self._probed_frames = self.frames
            self.book.probe()
            self.wake()


class Lane:
    """Topics that share a connection, and the connections that carry them now."""

    def __init__(self) -> None:
        self.topics: dict[Topic, None] = {}
        self.links: list[Link] = []
        self.idle = trio.Event()
        self.scope = trio.CancelScope()
        self.answered = False
        self.proven = False

    def carries(self, topic: Topic, but: Link) -> bool:
        """Whether another of its connections serves a topic."""
        return any(link.book.state(topic) == "acked" for link in self.others(but))

    def others(self, but: Link) -> list[Link]:
        """The connections that are not dead, but one."""
        return [link for link in self.links if link is not but and not link.dead]

    def loses(self, gone: Link) -> list[Topic]:
        """What is not carried any more when a connection is gone.

        While another one is opening, that is only what the lost one carried.
        """
        alone = not self.others(gone)
        return [
            topic
            for topic in self.topics
            if (alone or gone.book.state(topic) == "acked")
            and not self.carries(topic, gone)
        ]
