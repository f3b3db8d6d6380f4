"""Rules that the paper engine keeps whatever it is given."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import piker_core as pk
from piker_core.ems.paper import ticks as paper_ticks
from piker_core.ems.paper.engine import PaperConfig, PaperEngine
from piker_core.ems.paper.messages import Message
from piker_core.ems.paper.ticks import MarketTicks
from piker_core.orders import BrokerdCancel, BrokerdFill, BrokerdOrder, BrokerdStatus
from tests.paper_market import FQME, MS, START_NS, at, ticks

D = Decimal
REQIDS = ("a", "b", "c", "d", "e")


class Event(NamedTuple):
    """A tick or a request, `wait` after the one before; a tick received `lag` ago."""

    what: str
    wait: int
    lag: int = 0
    offset: int = 0
    size: int = 1
    reqid: str = ""
    more: tuple[tuple[str, Any], ...] = ()

    @property
    def is_tick(self) -> bool:
        return self.what in pk.TICK_TYPES


plain = {"reqid": st.just(""), "more": st.just(())}
waits = st.sampled_from([0, 1, 1, 1, 2])
offsets = st.integers(-3, 3)
tick_events = st.builds(
    Event,
    what=st.sampled_from(["bid", "ask", "bsize", "asize", "trade", "trade", "last"]),
    wait=waits,
    lag=st.sampled_from([0, 0, 0, 0, 1, 3]),
    offset=offsets,
    size=st.integers(0, 6),
    **plain,
)
order_events = st.builds(
    Event,
    what=st.sampled_from(["buy", "sell"]),
    wait=waits,
    offset=offsets,
    size=st.integers(1, 8),
    reqid=st.sampled_from(REQIDS),
    more=st.sampled_from(
        [
            *([()] * 6),
            (("tif", "ioc"),),
            (("tif", "fok"),),
            (("post_only", True),),
            (("reduce_only", True),),
        ]
    ),
)
other_events = st.builds(
    Event,
    what=st.sampled_from(["cancel", "advance"]),
    wait=waits,
    reqid=st.sampled_from(REQIDS),
    more=st.just(()),
)


def walk(seed: int) -> list[Event]:
    """A market that wanders, with orders on both sides of it and beyond."""
    chance, events, middle = Random(seed), list[Event](), 0
    often = chance.choice((1, 2, 6))
    more = ((), (), (), (("post_only", True),), (("tif", "ioc"),))
    kinds = ("bid", "ask", "trade") * often + ("order", "order", "other")
    for _ in range(100 + 25 * often):
        middle += chance.choice((-1, 0, 0, 0, 0, 1))
        wait, lag = chance.choice((0, 1, 1, 3)), chance.choice((0,) * 9 + (2,))
        kind = chance.choice(kinds)
        size, reqid = chance.randrange(1, 6), chance.choice(REQIDS)
        if kind in ("bid", "ask"):
            away = chance.choice((0, 1, 1, 1, 2)) * (1 if kind == "ask" else -1)
            events.append(Event(kind, wait, lag, middle + away, size))
        elif kind == "trade":
            away = chance.choice((-2, -1, -1, 0, 1, 1, 2))
            events.append(Event(kind, wait, lag, middle + away, size))
        elif kind == "order":
            action, away = chance.choice((("buy", 1), ("sell", -1)))
            offset = middle + away * chance.choice((-2, -1, -1, 0, 1, 2))
            reqid += str(chance.randrange(6))
            words = chance.choice(more)
            events.append(Event(action, wait, 0, offset, 2 * size, reqid, words))
        else:
            what = chance.choice(("cancel", "advance"))
            events.append(Event(what, wait, reqid=reqid + str(chance.randrange(6))))
    return events


scripts = st.one_of(
    st.lists(
        st.one_of(tick_events, tick_events, tick_events, order_events, other_events),
        max_size=60,
    ),
    st.integers(0, 1 << 32).map(walk),
)
configs = st.sampled_from(
    [
        PaperConfig(),
        PaperConfig(cancels_ahead="proportional", taker_fee=D("0.001")),
        PaperConfig(latency_s=0.002, jitter_s=0.002, seed=3),
    ]
)
at_once = st.sampled_from([PaperConfig(), PaperConfig(cancels_ahead="proportional")])


def new_engine(config: PaperConfig) -> PaperEngine:
    engine = PaperEngine("kraken", config=config)
    engine.add_market(FQME, price_tick=D("0.1"), size_tick=D(1), market_id=0)
    return engine


def price(event: Event) -> Decimal:
    return at(D(event.offset) / 10)


class Run:
    """A script on its way through an engine; ticks wait to be fed together."""

    def __init__(self, config: PaperConfig) -> None:
        self.engine = new_engine(config)
        self.now_ns = START_NS
        self.rows: list[tuple[str, float, float, int]] = []
        self.said: list[Message] = []
        self.reqids: set[str] = set()

    def feed(self) -> list[Message]:
        rows, self.rows = self.rows, []
        return self.hear(self.engine.feed(ticks(rows)) if rows else [])

    def hear(self, said: list[Message]) -> list[Message]:
        self.said += said
        return said

    def add_tick(self, event: Event) -> int:
        time_ns = self.now_ns - event.lag * MS
        self.rows.append((event.what, float(price(event)), float(event.size), time_ns))
        return time_ns

    def do(self, event: Event) -> list[Message]:
        """A request, or the clock; what waits is fed before it."""
        self.feed()
        if event.what == "advance":
            return self.hear(self.engine.advance(self.now_ns))
        words: dict[str, Any] = {"oid": event.reqid, "reqid": event.reqid}
        words |= {"account": "paper", "time_ns": self.now_ns}
        if event.what == "cancel":
            cancel = BrokerdCancel(**words)
            return self.hear(self.engine.cancel(cancel, self.now_ns))
        self.reqids.add(event.reqid)
        words |= {"action": event.what, **dict(event.more)}
        size = D(event.size)
        order = BrokerdOrder(**words, symbol=FQME, price=price(event), size=size)
        return self.hear(self.engine.submit(order, self.now_ns))

    def step(self, event: Event) -> None:
        self.now_ns += event.wait * MS
        if event.is_tick:
            self.add_tick(event)
        else:
            self.do(event)

    def restart(self) -> None:
        """Another engine that has what a store would have kept."""
        self.feed()
        old = self.engine
        known = [old.order(reqid) for reqid in sorted(self.reqids)]
        orders = [order for order in known if order is not None]
        states = {order.reqid: old.state(order.reqid) for order in orders}
        kept = json.loads(json.dumps([states, {FQME: old.market_state(FQME)}]))
        self.engine = new_engine(old.config)
        self.engine.restore(orders, states=kept[0], markets=kept[1])


def play(
    script: Sequence[Event], config: PaperConfig, *, cuts: Any = (), restarts: Any = ()
) -> list[Message]:
    run = Run(config)
    for place, event in enumerate(script):
        if place in cuts:
            run.feed()
        if place in restarts:
            run.restart()
        run.step(event)
    run.feed()
    return run.said


def test_the_scripts_of_these_tests_fill_orders_in_every_way() -> None:
    said = [
        message for seed in range(30) for message in play(walk(seed), PaperConfig())
    ]
    whys = Counter(fill.broker_details["why"].partition(",")[0] for fill in of(said))
    assert len(whys) == 6
    assert min(whys.values()) > 10


def event(what: str, offset: int, size: int, reqid: str = "") -> Event:
    return Event(what, 1, 0, offset, size, reqid)


TAKEN_THEN_PASSED_BY = [
    *(event("ask", 0, 2), event("buy", 0, 2, "a")),
    *(event("bid", 1, 1), event("ask", 0, 2), event("buy", 0, 2, "b")),
]
TAKEN_THEN_GONE = [
    *(event("buy", 0, 8, "a"), event("ask", 0, 2)),
    *(event("ask", 3, 1), event("ask", 0, 2)),
]

BEHIND_BY_A_LATE_QUOTE = [
    *(event("bid", -2, 1), event("buy", 0, 8, "a"), Event("bid", 1, 3, 1, 1)),
    *(event("bid", 0, 3), event("trade", 0, 5)),
]


@settings(deadline=None, max_examples=300)
@example(BEHIND_BY_A_LATE_QUOTE, PaperConfig(), set(), 9)
@example(TAKEN_THEN_PASSED_BY, PaperConfig(), set(), 9)
@example(TAKEN_THEN_GONE, PaperConfig(), set(), 9)
@given(scripts, configs, st.sets(st.integers(0, 250)), st.integers(1, 9))
def test_it_makes_no_difference_how_ticks_are_cut_into_batches(
    script: list[Event], config: PaperConfig, cuts: set[int], chunk: int
) -> None:
    whole = play(script, config)
    assert play(script, config, cuts=range(250)) == whole
    with mock.patch.multiple(paper_ticks, _FEW=0, _CHUNK=chunk):
        assert play(script, config) == whole
        assert play(script, config, cuts=cuts) == whole


@settings(deadline=None, max_examples=200)
@given(scripts, configs)
def test_a_tick_that_is_not_looked_at_would_have_changed_nothing(
    script: list[Event], config: PaperConfig
) -> None:
    def everything(self: MarketTicks, part: slice) -> NDArray[np.bool_]:
        kinds: NDArray[np.bool_] = self.kind[part] > 0
        return kinds

    with mock.patch.object(paper_ticks, "_FEW", 0):
        found = play(script, config)
        with mock.patch.object(MarketTicks, "_matters", everything):
            assert play(script, config) == found


@settings(deadline=None, max_examples=300)
@given(scripts, at_once, st.sets(st.integers(0, 250), min_size=1, max_size=9))
def test_an_engine_that_is_restored_goes_on_as_if_it_had_never_stopped(
    script: list[Event], config: PaperConfig, restarts: set[int]
) -> None:
    assert play(script, config, restarts=restarts) == play(script, config)


class Level:
    """What a side shows, and what may be given of it for as long as it stays so."""

    def __init__(self) -> None:
        self.price: Decimal | None = None
        self.size = self.most = self.given = D(0)

    def show(self, price: Decimal, size: Decimal) -> None:
        if price != self.price:
            self.most = self.given = D(0)
            self.price, self.size = price, D(0)
        self.most += max(size - self.size, D(0))
        self.size = size

    def give(self, fills: list[BrokerdFill]) -> None:
        self.given += sum((fill.size for fill in fills), D(0))
        assert self.given <= self.most


class Auditor:
    """Follows a run tick by tick and checks each fill against what was shown."""

    def __init__(self, config: PaperConfig) -> None:
        self.run = Run(config)
        self.bids, self.asks = Level(), Level()
        self.filled: defaultdict[str, Decimal] = defaultdict(Decimal)
        self.ended: set[str] = set()
        self.names: set[str] = set()

    def states(self) -> dict[str, dict[str, Any]]:
        engine = self.run.engine
        return {one.reqid: engine.state(one.reqid) for one in engine.orders()}

    def step(self, event: Event) -> None:
        before = self.states()
        self.run.now_ns += event.wait * MS
        if event.is_tick:
            time_ns = self.run.add_tick(event)
            self.show(event)
            said = self.run.feed()
            self.check_tick(event, said, before, time_ns)
        else:
            said = self.run.do(event)
            for action, level in (("buy", self.asks), ("sell", self.bids)):
                level.give(
                    fills := [fill for fill in of(said) if fill.action == action]
                )
                assert all(fill.price == level.price for fill in fills)
                assert all(fill.liquidity == "taker" for fill in fills)
        self.check_lives(said)

    def show(self, event: Event) -> None:
        if event.what in ("bid", "bsize", "ask", "asize"):
            mine, other = self.bids, self.asks
            if event.what in ("ask", "asize"):
                mine, other = self.asks, self.bids
            mine.show(price(event), D(event.size))
            sign = 1 if mine is self.bids else -1
            if other.price is not None and sign * (price(event) - other.price) > 0:
                other.price = None

    def check_tick(
        self,
        event: Event,
        said: list[Message],
        before: dict[str, dict[str, Any]],
        time_ns: int,
    ) -> None:
        late = [fill for fill in of(said) if fill.liquidity == "taker"]
        made = [fill for fill in of(said) if fill.liquidity == "maker"]
        for fill in late:
            assert before[str(fill.reqid)]["live_ns"] < time_ns
        assert sum((fill.size for fill in made), D(0)) <= event.size
        for fill in made:
            order = before[str(fill.reqid)]
            assert fill.price == D(order["price"])
            assert order["live_ns"] < time_ns
            sign = 1 if fill.action == "buy" else -1
            assert sign * (fill.price - price(event)) >= 0
            if event.what != "trade":
                assert (event.what[0] == "a") == (fill.action == "buy")
            self.check_priority(order, before, time_ns)
        if event.what in ("bid", "bsize"):
            self.bids.give(made)
        elif event.what in ("ask", "asize"):
            self.asks.give(made)

    def check_priority(
        self, filled: dict[str, Any], before: dict[str, dict[str, Any]], time_ns: int
    ) -> None:
        """Whoever comes before an order that was filled is filled, or was canceled."""

        def place(order: dict[str, Any]) -> tuple[Decimal, int]:
            sign = -1 if order["action"] == "buy" else 1
            return sign * D(order["price"]), order["seq"]

        for reqid, order in before.items():
            first = order["action"] == filled["action"] and place(order) < place(filled)
            if first and order["live_ns"] < time_ns and not order["reduce_only"]:
                assert not self.lives(reqid)

    def lives(self, reqid: str) -> bool:
        order = self.run.engine.order(reqid)
        return order is not None and order.status == "open"

    def check_lives(self, said: list[Message]) -> None:
        for message in said:
            reqid = str(getattr(message, "reqid", ""))
            if isinstance(message, BrokerdFill):
                assert reqid not in self.ended
                assert message.size > 0
                assert message.fill_id not in self.names
                self.names.add(message.fill_id)
                self.filled[reqid] += message.size
            elif isinstance(message, BrokerdStatus):
                assert reqid not in self.ended
                if message.status in ("closed", "canceled"):
                    self.ended.add(reqid)
                assert (message.status == "closed") == (message.remaining == 0)
        for reqid, filled in self.filled.items():
            order = self.run.engine.order(reqid)
            assert order is not None
            assert order.filled == filled <= order.size


def of(said: list[Message]) -> list[BrokerdFill]:
    return [message for message in said if isinstance(message, BrokerdFill)]


@settings(deadline=None, max_examples=400)
@given(scripts, at_once)
def test_nothing_is_given_twice_nor_out_of_turn_nor_worse_than_the_limit(
    script: list[Event], config: PaperConfig
) -> None:
    auditor = Auditor(config)
    for event in script:
        auditor.step(event)
