"""WebSocket connections that come back, and are replaced before the venue ends them.

1. A lost connection is tried again at once, then with jittered back-off; no fault of
   the network, of DNS, of TLS or of the venue ends the stream.
2. Alive is what sends: no message for `liveness_s` means dead, whatever the socket
   says. Half-way there the venue is asked for a sign of life, if it can be asked.
3. Many topics are spread over lanes, each with a connection of its own. What a lane
   loses touches no topic of another.
4. A planned replacement is opened and subscribed first, then the old connection is
   closed after `overlap_s`. Both are listened to meanwhile: what comes twice is told
   apart downstream, by its id. A topic is lost only when no connection carries it.
5. A message that cannot be understood is counted, logged once of its kind, and left.

The venue's part is a `StreamVenue`, which can be tested without sockets.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Protocol

import msgspec
import trio
from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
from websockets.trio.client import ClientConnection

from piker_core.adapter.defaults import StreamLimits
from piker_core.adapter.limiter import Limiter
from piker_core.adapter.link import Lane, Link
from piker_core.adapter.shared import share
from piker_core.adapter.subscriptions import SubscriptionBook, Topic, TopicRequest
from piker_core.adapter.tap import Listener, Tap
from piker_core.adapter.websocket import connect
from piker_core.errors import ConfigError, DataThrottle, ProviderError
from piker_core.tasks import Backoff, open_nursery

__all__ = [
    "Lane",
    "Link",
    "RefusedError",
    "Stream",
    "StreamStatistics",
    "StreamVenue",
]

_PROVEN_S = 5.0
_ROTATE_EARLY = 0.1
"""By which part of `rotate_s` a connection is replaced early, at random."""


class RefusedError(ProviderError):
    """The venue refused a subscription before the stream was live."""


class StreamStatistics(msgspec.Struct, frozen=True):
    """Counters of the stream since it began."""

    frames: int = 0
    malformed: int = 0
    unknown: int = 0
    refused: int = 0
    no_space: int = 0
    refusals: int = 0
    connections: int = 0
    stale: int = 0
    rotations: int = 0
    failed: int = 0


class StreamVenue(Protocol):
    """What a venue has to say about its WebSocket.

    `section` of the configuration and `url_key` there, for errors; `patience_s`: the
    least wait before the next connection, such as during maintenance.
    """

    section: str
    url_key: str
    patience_s: float

    async def url(self) -> str:
        """Where to connect; asked before every connection, so it may have a token."""

    def group(self, topic: Topic) -> Hashable:
        """Topics of one group may be in one request."""

    def encode(self, request: TopicRequest) -> bytes | None:
        """The message of a request; None if nothing is to be sent, which is an ack."""

    async def take(self, link: Link, raw: bytes) -> None:
        """A message came in. Answers to requests go to `link`.

        ProviderError and ValueError mean that it was not understood.
        """

    def subscribed(self, topic: Topic) -> None:
        """A topic that no connection carried is served from now on."""

    def refused(self, topic: Topic, reason: str) -> None:
        """The venue does not serve a topic; RefusedError ends the stream."""

    def lost(self, topics: Sequence[Topic], cause: str, heard_ns: int) -> None:
        """No connection carries these any more.

        `heard_ns`: when the last message came in (UTC ns).
        """

    def stale(self, topics: Sequence[Topic]) -> None:
        """Nothing was heard for too long; `lost` follows."""


class Stream:
    """All connections to one address."""

    def __init__(
        self,
        venue: StreamVenue,
        limits: StreamLimits,
        *,
        log: logging.Logger,
        tap: Tap | None = None,
    ) -> None:
        self.live = trio.Event()
        self.counts: Counter[str] = Counter()
        self.lanes: list[Lane] = []
        self._venue, self._limits, self._log = venue, limits, log
        self._tap = tap
        self._nursery: trio.Nursery | None = None

    def statistics(self) -> StreamStatistics:
        """Counters of the stream."""
        counts = dict(self.counts)
        for lane in self.lanes:
            for link in lane.links:
                counts["frames"] = counts.get("frames", 0) + link.frames
        return StreamStatistics(**counts)

    def complain(self, kind: str, text: str, frame: Any) -> None:
        """Count it, and log the first of its kind with the frame."""
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            self._log.warning("%s; more are counted only: %.300r", text, frame)

    # Topics

    def add(self, topics: Sequence[Topic]) -> None:
        """Subscribe to these, all on one connection, now and after every loss."""
        most = self._limits.ws_topics
        if len(topics) > most:
            raise ValueError(f"{len(topics)} topics of one market, {most} a connection")
        for lane in self.lanes:
            if len(lane.topics) + len(topics) <= most:
                break
        else:
            lane = Lane()
            self.lanes.append(lane)
            if self._nursery is not None:
                self._nursery.start_soon(self._keep, lane)
        lane.topics.update(dict.fromkeys(topics))
        for link in lane.links:
            link.book.want(topics)
            link.wake()

    def remove(self, topics: Iterable[Topic]) -> None:
        """End these subscriptions; a connection without any is closed."""
        gone = set(topics)
        for lane in list(self.lanes):
            mine = [topic for topic in lane.topics if topic in gone]
            for topic in mine:
                del lane.topics[topic]
            for link in lane.links:
                link.book.drop(mine)
                link.wake()
            if not lane.topics:
                self.lanes.remove(lane)
                lane.scope.cancel()

    def rotate(self) -> None:
        """Have all connections replaced now."""
        for link in self._links():
            link.rotate()

    def abandon(self, topic: Topic, reason: str) -> None:
        """End the connections that carry a topic: they are dead for it."""
        for lane in self.lanes:
            if topic in lane.topics:
                for link in lane.links:
                    link.abandon(reason)

    # Answers, from the links

    def tell_losses(self, lane: Lane) -> None:
        """Before another connection serves topics: what dead ones carried is lost.

        The oldest is first: it was heard first, or alone.
        """
        for link in lane.links:
            if not link.dead or link.loss_told:
                continue
            link.loss_told = True
            if lost := lane.loses(link):
                heard_ns = link.heard_ns or time.time_ns()
                self._venue.lost(lost, link.reason[:39], heard_ns)

    def acked(self, lane: Lane, link: Link, topics: Sequence[Topic]) -> None:
        """The venue serves topics on a connection."""
        for topic in topics:
            if not lane.carries(topic, link):
                self._venue.subscribed(topic)
        self._settle(lane, link)

    def refused(
        self, lane: Lane, link: Link, topics: Sequence[Topic], reason: str
    ) -> None:
        """The venue does not serve topics on a connection."""
        for topic in topics:
            self.counts["refusals"] += 1
            if not lane.carries(topic, link):
                self._venue.refused(topic, reason)
        self._settle(lane, link)

    def _settle(self, lane: Lane, link: Link) -> None:
        """A connection that has all its answers is ready."""
        if link.ready.is_set() or not link.book.settled:
            return
        link.ready_s = time.monotonic()
        link.ready.set()
        lane.answered = True
        if all(each.answered for each in self.lanes):
            self.live.set()

    # What does not happen

    def look(self) -> None:
        """Call this often: it ends connections that are silent or owe an answer."""
        now_s, liveness_s = time.monotonic(), self._limits.liveness_s
        for link in self._links():
            silence_s = link.silence_s(now_s)
            if link.dead:
                continue
            if silence_s > liveness_s:
                self._go_stale(link)
            elif overdue := link.book.overdue(now_s):
                self._log.warning("no acknowledgement of %s", overdue)
                link.abandon("no acknowledgement")
            elif silence_s > liveness_s / 2:
                link.probe()

    def _go_stale(self, link: Link) -> None:
        """Nothing was heard for too long."""
        self.counts["stale"] += 1
        for lane in self.lanes:
            if link in lane.links:
                self._venue.stale([t for t in lane.topics if not lane.carries(t, link)])
        link.abandon(f"no frame for {self._limits.liveness_s:g} s")

    def _links(self) -> list[Link]:
        return [link for lane in self.lanes for link in lane.links]

    # Connections

    async def run(self) -> None:
        """Keep all lanes connected, for ever. Ends by cancellation, or RefusedError."""
        try:
            async with open_nursery() as self._nursery:
                for lane in self.lanes:
                    self._nursery.start_soon(self._keep, lane)
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def _keep(self, lane: Lane) -> None:
        """A lane's connections, one after another, as long as it has topics."""
        backoff = Backoff()
        with lane.scope:
            async with open_nursery() as nursery:
                while True:
                    lane.idle, lane.proven = trio.Event(), False
                    nursery.start_soon(
                        self._session, lane, self.new_link(lane), nursery
                    )
                    await lane.idle.wait()
                    if lane.proven:
                        backoff.reset()
                    await trio.sleep(max(backoff.next_s(), self._venue.patience_s))

    def new_link(self, lane: Lane) -> Link:
        """A connection of a lane before it is open, with a book of its own.

        Tests without sockets take requests from its book and hand it to `take`.
        """
        limits = self._limits
        book = SubscriptionBook(
            lane.topics,
            batch=limits.ws_batch,
            rate=limits.ws_rate,
            burst=limits.ws_burst,
            ack_timeout_s=limits.ack_timeout_s,
            group=self._venue.group,
        )
        link = Link(self, lane, book)
        lane.links.append(link)
        return link

    async def _session(
        self,
        lane: Lane,
        link: Link,
        nursery: trio.Nursery,
        before: Link | None = None,
    ) -> None:
        """One connection, until it is lost or replaced."""
        try:
            with link.scope:
                link.reason = await self._connect(lane, link, nursery, before)
            self._log.info("connection ended: %s", link.reason)
            link.ended = True
            self.tell_losses(lane)
        finally:
            lane.links.remove(link)
            self.counts["frames"] += link.frames
            link.over.set()
        if link.ready_s and time.monotonic() - link.ready_s > _PROVEN_S:
            lane.proven = True
        if not lane.links:
            lane.idle.set()

    async def _connect(
        self, lane: Lane, link: Link, nursery: trio.Nursery, before: Link | None
    ) -> str:
        """Open a connection and serve it until it is lost; why it was."""
        limits = self._limits
        try:
            url = await self._venue.url()
            await self._attempts(url).acquire()
            async with connect(
                url,
                proxy=None,
                compression=None,
                max_size=limits.ws_frame_bytes,
                max_queue=None,  # a full one keeps websockets 17.4 from closing
                open_timeout=limits.ack_timeout_s,
                close_timeout=1.0,
            ) as connection:
                self.counts["connections"] += 1
                link.heard_ns = time.time_ns()
                async with open_nursery() as tasks:
                    tasks.start_soon(self._write, link, connection)
                    tasks.start_soon(self._replace, lane, link, nursery, before)
                    await self._read(link, connection, url)
        except InvalidURI as error:
            key = self._venue.url_key
            raise ConfigError(f"[{self._venue.section}] {key}: {error}") from None
        except RefusedError:
            raise
        except (ProviderError, DataThrottle) as error:
            self._log.warning("no address to connect to: %s", error)
            return "no address to connect to"
        except (OSError, WebSocketException, trio.BrokenResourceError) as error:
            return _cause(error)
        raise AssertionError("a connection is read for ever")

    def _attempts(self, url: str) -> Limiter:
        """How often this address may be connected to, by all of this run."""
        rate, burst = self._limits.connect_rate, self._limits.connect_burst
        key = ("connect", url.partition("?")[0], rate, burst)
        return share(key, lambda: Limiter(rate, burst))

    async def _read(self, link: Link, connection: ClientConnection, url: str) -> None:
        """Hand every message to the venue, until the connection is lost."""
        receive, time_ns = connection.recv, time.time_ns
        take: Listener = self._venue.take
        if self._tap is not None:
            take = self._tap.listen(take, url)
        while True:
            raw = await receive(decode=False)
            link.heard_ns = time_ns()
            link.frames += 1
            try:
                await take(link, raw)
            except (RefusedError, trio.BrokenResourceError, trio.ClosedResourceError):
                raise  # or the rings are closed
            except (ProviderError, ValueError) as error:
                text = f"a frame was not understood: {error}"
                self.complain("malformed", text, raw)
            except OSError as error:  # its trades are fetched when there is space again
                self.complain("no_space", str(error), raw)
            except Exception as error:  # noqa: BLE001 - the first is logged whole
                if not self.counts["failed"]:
                    self._log.exception("a frame could not be handled")
                self.complain("failed", f"a frame was not handled: {error!r}", raw)

    async def _write(self, link: Link, connection: ClientConnection) -> None:
        """Send requests when it is their time."""
        while True:
            request = await link.wait_request()
            message = self._venue.encode(request)
            if message is None:
                link.ack_request(request.number)
                continue
            try:
                await connection.send(message, text=True)
            except (ConnectionClosed, OSError, trio.BrokenResourceError):
                return  # the reader is told, too

    async def _replace(
        self, lane: Lane, link: Link, nursery: trio.Nursery, before: Link | None
    ) -> None:
        """Take over from the connection `before`; when it is time, be replaced."""
        await link.ready.wait()
        if before is not None:
            await trio.sleep(self._limits.overlap_s)
            self.counts["rotations"] += 1
            before.abandon("replaced")
        after_s = self._limits.rotate_s * random.uniform(1 - _ROTATE_EARLY, 1)
        with trio.move_on_after(after_s or float("inf")):
            await link.renew.wait()
        backoff = Backoff(1.0, 60.0)
        while True:  # one that comes to nothing is tried again while this one lasts
            await trio.sleep(backoff.next_s())
            successor = self.new_link(lane)
            nursery.start_soon(self._session, lane, successor, nursery, link)
            await successor.over.wait()


def _cause(error: Exception) -> str:
    """Why a connection was lost, in a few words: they go into the gap record."""
    if isinstance(error, ConnectionClosed):
        code = error.rcvd.code if error.rcvd else 1006
        return f"connection closed ({code})"
    if isinstance(error, TimeoutError):
        return "connection timed out"
    if isinstance(error, OSError):
        return f"no connection ({error.strerror or type(error).__name__})"
    return f"no connection ({type(error).__name__})"
