"""What a connection is subscribed to: a book without sockets or clocks of its own.

1. A topic is wanted, asked for (pending), and then acknowledged or refused. What is
   wanted and not asked for goes out as requests of at most `batch` topics of one group.
2. Requests go out at `rate` a second after `burst` at once, whatever they are for.
3. Acknowledgements are matched by the topic or by the number of the request, whichever
   the venue gives; what answers nothing that was asked is told so, and changes nothing.
4. A new connection has a new book: all that is wanted, nothing asked yet.

Times are seconds of any clock that the caller keeps to.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Literal

import msgspec

Topic = str | tuple[str, ...]
"""A venue's stream of one market, such as ("trade", "BTC/USD") or "btcusdt@trade"."""

State = Literal["wanted", "pending", "acked", "refused", "leaving"]


class TopicRequest(msgspec.Struct, frozen=True):
    """What is to be sent now. `number` counts the requests of a connection from 1."""

    number: int
    verb: Literal["subscribe", "unsubscribe", "probe"]
    topics: tuple[Topic, ...]


class _Entry:
    """A topic's state.

    Of one that is leaving: the state `before`, and the request that says so (0: none).
    """

    __slots__ = ("before", "due_s", "leave", "reason", "state")

    def __init__(self) -> None:
        self.state: State = "wanted"
        self.before: State = "wanted"
        self.leave = 0
        self.due_s = 0.0
        self.reason = ""


def _one_group(topic: Topic) -> Hashable:  # noqa: ARG001 - a group of all
    """All topics may be in one request."""
    return None


class SubscriptionBook:
    """The topics of one connection.

    `group` names what a request may hold one of, such as the channel of a topic. A
    request that is not answered `ack_timeout_s` after it was sent is overdue.
    """

    def __init__(
        self,
        topics: Iterable[Topic] = (),
        *,
        batch: int = 100,
        rate: float = 5.0,
        burst: int = 1,
        ack_timeout_s: float = 10.0,
        group: Callable[[Topic], Hashable] = _one_group,
    ) -> None:
        self._batch, self._rate, self._burst = batch, rate, burst
        self._ack_timeout_s, self._group = ack_timeout_s, group
        self._entries: dict[Topic, _Entry] = {}
        self._requests: dict[int, tuple[Topic, ...]] = {}
        self._number = 0
        self._sent = 0.0
        self._counted_s: float | None = None
        self._probe = False
        self.want(topics)

    # Wishes

    def want(self, topics: Iterable[Topic]) -> None:
        """Subscribe to these, too; one that was refused is asked for again."""
        for topic in topics:
            entry = self._entries.get(topic)
            if entry is None or entry.state == "refused" or entry.leave:
                self._entries[topic] = _Entry()
            elif entry.state == "leaving":  # which the venue does not know yet
                entry.state = entry.before

    def drop(self, topics: Iterable[Topic]) -> None:
        """End these subscriptions; a topic that was never asked for is forgotten."""
        for topic in topics:
            entry = self._entries.get(topic)
            if entry is None or entry.state in ("wanted", "refused"):
                self._entries.pop(topic, None)
            elif entry.state != "leaving":
                entry.state, entry.before = "leaving", entry.state

    def probe(self) -> None:
        """Send something that the venue answers, to see whether it is alive."""
        self._probe = True

    # Requests

    def wait_s(self, now_s: float) -> float:
        """How long until there is something to send; infinite when nothing is left."""
        if not self._probe and not any(
            entry.state == "wanted" or (entry.state == "leaving" and not entry.leave)
            for entry in self._entries.values()
        ):
            return float("inf")
        return max(self._used(now_s) + 1 - self._burst, 0.0) / self._rate

    def next_request(self, now_s: float) -> TopicRequest | None:
        """What to send now, if anything; it counts as sent."""
        if self.wait_s(now_s) > 1e-9:
            return None
        self._sent, self._counted_s = self._used(now_s) + 1, now_s
        self._number += 1
        request = self._leave() or self._ask(now_s) or self._look()
        self._requests[self._number] = request.topics
        return request

    def _used(self, now_s: float) -> float:
        """How much of the burst is used up."""
        if self._counted_s is None:
            return 0.0
        return max(self._sent - (now_s - self._counted_s) * self._rate, 0.0)

    def _leave(self) -> TopicRequest | None:
        batch = self._pick(
            topic
            for topic, entry in self._entries.items()
            if entry.state == "leaving" and not entry.leave
        )
        if not batch:
            return None
        for topic in batch:
            self._entries[topic].leave = self._number
        return TopicRequest(self._number, "unsubscribe", batch)

    def _ask(self, now_s: float) -> TopicRequest | None:
        batch = self._pick(
            topic for topic, entry in self._entries.items() if entry.state == "wanted"
        )
        if not batch:
            return None
        for topic in batch:
            entry = self._entries[topic]
            entry.state = "pending"
            entry.due_s = now_s + self._ack_timeout_s
        return TopicRequest(self._number, "subscribe", batch)

    def _look(self) -> TopicRequest:
        self._probe = False
        return TopicRequest(self._number, "probe", ())

    def _pick(self, topics: Iterable[Topic]) -> tuple[Topic, ...]:
        """As many topics as a request holds, of the group of the first."""
        batch: list[Topic] = []
        group: Hashable = None
        for topic in topics:
            if not batch:
                group = self._group(topic)
            if self._group(topic) == group:
                batch.append(topic)
            if len(batch) == self._batch:
                break
        return tuple(batch)

    # Answers

    def knows(self, number: int) -> bool:
        """Whether a request of this number was sent and is not answered."""
        return number in self._requests

    def topics_of(self, number: int) -> tuple[Topic, ...]:
        """What a request was about; () if there was none of this number."""
        return self._requests.get(number, ())

    def ack(self, topic: Topic) -> bool:
        """The venue serves this topic. False if that was not asked."""
        entry = self._entries.get(topic)
        if entry is None or entry.state not in ("pending", "leaving"):
            return False
        if entry.state == "leaving":
            entry.before = "acked"
            return False
        entry.state = "acked"
        return True

    def refuse(self, topic: Topic, reason: str) -> bool:
        """The venue does not serve this topic. False if that was not asked."""
        entry = self._entries.get(topic)
        if entry is None or entry.state not in ("pending", "leaving"):
            return False
        if entry.state == "leaving":
            if not entry.leave:
                del self._entries[topic]
            return False
        entry.state, entry.reason = "refused", reason
        return True

    def ack_request(self, number: int) -> list[Topic]:
        """The venue did what the request of this number says; the topics it serves now.

        The answer to a request to unsubscribe ends its topics.
        """
        topics = [topic for topic in self.topics_of(number) if self.ack(topic)]
        self._requests.pop(number, None)
        for topic, entry in list(self._entries.items()):
            if entry.state == "leaving" and entry.leave == number:
                del self._entries[topic]
        return topics

    def refuse_request(self, number: int, reason: str) -> list[Topic]:
        """The venue refused the whole request; the topics that it does not serve."""
        topics = [t for t in self.topics_of(number) if self.refuse(t, reason)]
        self._requests.pop(number, None)
        return topics

    def ended(self, topic: Topic) -> bool:
        """The venue has ended this topic as it was asked to. False if it was not."""
        entry = self._entries.get(topic)
        if entry is None or entry.state != "leaving":
            return False
        del self._entries[topic]
        return True

    # State

    def state(self, topic: Topic) -> State | None:
        """Of a topic; None if it is not wanted."""
        entry = self._entries.get(topic)
        return None if entry is None else entry.state

    def reason(self, topic: Topic) -> str:
        """Why a topic was refused."""
        entry = self._entries.get(topic)
        return "" if entry is None else entry.reason

    def in_state(self, *states: State) -> list[Topic]:
        """The topics in any of these states."""
        return [t for t, entry in self._entries.items() if entry.state in states]

    @property
    def settled(self) -> bool:
        """Whether every wanted topic has had its answer."""
        return not any(
            entry.state in ("wanted", "pending") for entry in self._entries.values()
        )

    def overdue(self, now_s: float) -> list[Topic]:
        """Topics that should have been answered by now."""
        return [
            topic
            for topic, entry in self._entries.items()
            if entry.state == "pending" and now_s > entry.due_s
        ]
