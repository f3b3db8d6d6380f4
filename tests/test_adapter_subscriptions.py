"""The subscription book: batches, pace, acknowledgements, changes while it runs."""

from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from piker_core.adapter.subscriptions import SubscriptionBook, Topic, TopicRequest

EVER = float("inf")


def topics(count: int) -> list[Topic]:
    return [f"t{number}" for number in range(count)]


def drain(book: SubscriptionBook, now_s: float = 0.0) -> list[TopicRequest]:
    """All requests, each when it may be sent."""
    requests = []
    while (wait_s := book.wait_s(now_s)) < EVER:
        now_s += wait_s
        request = book.next_request(now_s)
        assert request is not None
        requests.append(request)
    return requests


def test_a_request_holds_a_batch_of_one_group() -> None:
    def channel(topic: Topic) -> Hashable:
        return topic[0]

    pairs = ["A", "B", "C"]
    asked: list[Topic] = [(c, p) for p in pairs for c in ("trade", "ticker")]
    book = SubscriptionBook(asked, batch=2, burst=9, group=channel)
    assert [(r.number, r.verb, r.topics) for r in drain(book)] == [
        (1, "subscribe", (("trade", "A"), ("trade", "B"))),
        (2, "subscribe", (("ticker", "A"), ("ticker", "B"))),
        (3, "subscribe", (("trade", "C"),)),
        (4, "subscribe", (("ticker", "C"),)),
    ]


@given(
    st.integers(1, 60),
    st.integers(1, 10),
    st.floats(0.5, 50),
    st.integers(1, 6),
)
def test_every_topic_is_asked_for_once_and_no_faster_than_the_pace(
    count: int, batch: int, rate: float, burst: int
) -> None:
    book = SubscriptionBook(topics(count), batch=batch, rate=rate, burst=burst)
    now_s, sent = 0.0, []
    while (wait_s := book.wait_s(now_s)) < EVER:
        assert book.next_request(now_s) is None or wait_s == 0
        now_s = now_s + wait_s if wait_s else now_s
        sent.append(now_s)
        if wait_s:
            assert book.next_request(now_s) is not None
    assert sorted(map(str, book.in_state("pending"))) == sorted(map(str, topics(count)))
    assert len(sent) == -(-count // batch)
    for first in range(len(sent)):
        for last in range(first, len(sent)):
            most = (sent[last] - sent[first]) * rate + burst
            assert last - first + 1 <= most + 1e-3


def test_one_message_at_a_time_keeps_its_distance() -> None:
    book = SubscriptionBook(topics(3), batch=1, rate=4.0, burst=1)
    assert book.next_request(10.0) is not None
    assert book.wait_s(10.0) == pytest.approx(0.25)
    assert book.next_request(10.2) is None
    assert book.next_request(10.25) is not None
    assert book.wait_s(99.0) == 0.0


def test_acknowledgements_by_topic_are_matched_and_others_change_nothing() -> None:
    book = SubscriptionBook(topics(2))
    assert not book.ack("t0")  # not asked for yet
    (request,) = drain(book)
    assert not book.settled and request.topics == ("t0", "t1")
    assert book.ack("t0") and not book.ack("t0") and not book.ack("t9")
    assert book.refuse("t1", "no such market") and not book.refuse("t1", "again")
    assert book.settled
    assert (book.state("t0"), book.state("t1")) == ("acked", "refused")
    assert book.reason("t1") == "no such market" and book.reason("t0") == ""


def test_acknowledgements_by_request_are_for_all_its_topics() -> None:
    book = SubscriptionBook(topics(5), batch=2, burst=9)
    drain(book)
    assert book.ack_request(2) == ["t2", "t3"] and book.ack_request(2) == []
    assert book.refuse_request(1, "too many") == ["t0", "t1"]
    assert book.ack_request(7) == [] and not book.knows(7) and book.knows(3)
    assert book.in_state("pending") == ["t4"]


def test_an_answer_is_overdue_after_its_time_counted_from_its_own_request() -> None:
    book = SubscriptionBook(topics(2), batch=1, rate=0.1, burst=1, ack_timeout_s=5.0)
    book.next_request(0.0)
    book.next_request(10.0)
    assert book.overdue(5.0) == [] and book.overdue(5.1) == ["t0"]
    book.ack("t0")
    assert book.overdue(15.0) == [] and book.overdue(15.1) == ["t1"]


def test_topics_come_and_go_while_it_runs() -> None:
    book = SubscriptionBook(topics(2), burst=99)
    drain(book)
    book.ack_request(1)
    book.want(["t1", "t2"])
    book.drop(["t0", "t9"])
    leave, ask = drain(book)
    assert (leave.verb, leave.topics) == ("unsubscribe", ("t0",))
    assert (ask.verb, ask.topics) == ("subscribe", ("t2",))
    assert book.ack_request(leave.number) == []
    assert book.state("t0") is None and book.state("t2") == "pending"


def test_what_was_dropped_and_is_wanted_again_is_asked_for_after_it_ended() -> None:
    book = SubscriptionBook(topics(1), burst=99)
    drain(book)
    book.drop(["t0"])  # before its acknowledgement came
    assert not book.ack("t0") and book.settled
    (leave,) = drain(book)
    book.want(["t0"])
    (ask,) = drain(book)
    assert (leave.verb, ask.verb) == ("unsubscribe", "subscribe")
    assert not book.ended("t0")  # that is the new subscription
    assert book.ack_request(ask.number) == ["t0"]


@pytest.mark.parametrize("acked", [False, True])
def test_one_that_was_dropped_and_is_wanted_again_before_the_venue_knew_goes_on(
    acked: bool,
) -> None:
    book = SubscriptionBook(topics(1), rate=1.0, burst=1)
    drain(book)
    if acked:
        book.ack("t0")
    book.drop(["t0"])
    book.want(["t0"])
    assert book.wait_s(9.0) == EVER
    assert acked or book.ack("t0")
    assert book.state("t0") == "acked"


def test_a_topic_that_ends_by_its_own_answer_is_forgotten() -> None:
    book = SubscriptionBook(topics(1))
    drain(book)
    book.ack("t0")
    book.drop(["t0"])
    drain(book, 9.0)
    assert book.ended("t0") and book.state("t0") is None and not book.ended("t0")


def test_one_that_was_refused_is_asked_for_again_when_it_is_wanted_again() -> None:
    book = SubscriptionBook(topics(1))
    drain(book)
    book.refuse("t0", "not now")
    assert book.wait_s(9.0) == EVER
    book.want(["t0"])
    assert drain(book, 9.0)[0].topics == ("t0",)


def test_a_probe_is_a_request_like_others() -> None:
    book = SubscriptionBook(rate=1.0, burst=1)
    book.probe()
    book.probe()
    (request,) = drain(book)
    assert (request.verb, request.topics) == ("probe", ())
    assert book.knows(request.number) and book.ack_request(request.number) == []


class Both(RuleBasedStateMachine):
    """A book, and a venue that keeps its own list of what it serves."""

    names = st.sampled_from([f"t{number}" for number in range(6)])

    @initialize(batch=st.integers(1, 3))
    def begin(self, batch: int) -> None:
        self.book = SubscriptionBook(batch=batch, rate=1.0, burst=1)
        self.now_s = 0.0
        self.wanted: set[Topic] = set()
        self.served: set[Topic] = set()
        self.queue: list[TopicRequest] = []

    @rule(topic=names)
    def want(self, topic: str) -> None:
        self.book.want([topic])
        self.wanted.add(topic)

    @rule(topic=names)
    def drop(self, topic: str) -> None:
        self.book.drop([topic])
        self.wanted.discard(topic)

    @rule(seconds=st.floats(0, 3))
    def send(self, seconds: float) -> None:
        self.now_s += seconds
        request: Any = self.book.next_request(self.now_s)
        if request is not None:
            self.queue.append(request)

    @precondition(lambda self: self.queue)
    @rule()
    def answer(self) -> None:
        request = self.queue.pop(0)
        if request.verb == "subscribe":
            self.served.update(request.topics)
        else:
            self.served.difference_update(request.topics)
        self.book.ack_request(request.number)

    @invariant()
    def what_is_acknowledged_is_served_once_the_line_is_empty(self) -> None:
        if not hasattr(self, "book") or self.queue:
            return
        assert set(self.book.in_state("acked")) <= self.served & self.wanted
        if self.book.wait_s(self.now_s) == EVER:
            assert self.served == self.wanted == set(self.book.in_state("acked"))


TestBoth = Both.TestCase
TestBoth.settings = settings(max_examples=300, deadline=None)
