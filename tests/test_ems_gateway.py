"""The gateway without disk or wire: any requests, whatever a broker says."""

import itertools
from collections import defaultdict
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piker_core.ems.gateway import Gateway
from piker_core.ems.ledger import Ledger
from piker_core.ems.lifecycle import ENDS
from piker_core.ems.risk import Risk, RiskConfig
from piker_core.ems.turn import Around, Prices, Turn, _most
from piker_core.errors import NotFound
from piker_core.orders import (
    BrokerdCancel,
    BrokerdError,
    BrokerdFill,
    BrokerdOrder,
    BrokerdOrderAck,
    BrokerdStatus,
    Cancel,
    Order,
    Status,
    Update,
)
from piker_core.symbols import Asset, MktPair

FQME = "xbtusd.kraken"
MKT = MktPair(
    base=Asset("xbt"),
    quote=Asset("usd"),
    symbol="xbtusd",
    venue_symbol="XBT/USD",
    provider="kraken",
    price_tick=Decimal("0.1"),
    size_tick=Decimal("0.01"),
)


class Bench:
    """A gateway, and all that it ever said, sent and had stored."""

    def __init__(self, **limits: Any) -> None:
        self.used: set[str] = set()
        self.notes: dict[str, str] = {}
        self.said: list[Status] = []
        self.by_oid: dict[str, list[Status]] = defaultdict(list)
        self.sent: list[BrokerdOrder | BrokerdCancel] = []
        self.killed = ""
        numbers = itertools.count()
        around = Around(
            find_market=self.find,
            prices=lambda _: Prices(99.9, 100.1, 100.0),
            is_used=self.used.__contains__,
            note=lambda key: self.notes.get(key, ""),
            new_reqid=lambda: f"r{next(numbers)}",
            killed=lambda: self.killed,
            now_ns=itertools.count(1).__next__,
        )
        self.gateway = Gateway(
            "kraken",
            "kraken",
            mode="live",
            around=around,
            risk=Risk(RiskConfig(**limits)),
            ledger=Ledger("kraken", "kraken"),
        )

    def find(self, fqme: str) -> MktPair:
        if fqme != FQME:
            raise NotFound(f"no market {fqme!r}")
        return MKT

    def turn(self) -> Turn:
        turn = self.gateway.take_turn()
        self.said += [said.status for said in turn.said]
        for status, dialog, _ in turn.said:
            if dialog is not None:
                self.by_oid[status.oid].append(status)
        self.used.update(turn.dirty)
        self.notes |= turn.notes
        self.sent += turn.sends
        return turn

    def ask(self, request: Order | Update | Cancel, session: str = "s") -> list[str]:
        self.gateway.ask(session, request)
        return [said.status.resp for said in self.turn().said]

    def hear(self, *messages: Any) -> list[str]:
        for message in messages:
            self.gateway.heard(message)
        return [said.status.resp for said in self.turn().said]


def order(oid: str = "it", **fields: Any) -> Order:
    plain = {"action": "buy", "exec_mode": "live", "symbol": FQME, "account": "kraken"}
    return Order(**plain | {"oid": oid, "price": "100", "size": "1"} | fields)


def ack(reqid: str = "r0") -> BrokerdOrderAck:
    return BrokerdOrderAck(reqid=reqid, oid="it", account="kraken", broker_id="B1")


def status(state: str, filled: str = "0", reqid: str = "r0") -> BrokerdStatus:
    rest = Decimal(1) - Decimal(filled)
    return BrokerdStatus(
        time_ns=1, reqid=reqid, status=state, filled=filled, remaining=rest
    )  # type: ignore[arg-type]


def fill(name: str, size: str, reqid: str = "r0", **fields: Any) -> BrokerdFill:
    plain = {"time_ns": 1, "broker_time": 1, "action": "buy", "price": "100"}
    more = {"fill_id": name, "size": size, "reqid": reqid}
    return BrokerdFill(**plain | more | fields)


def test_an_order_lives_from_pending_to_closed() -> None:
    bench = Bench()
    assert bench.ask(order()) == ["pending"]
    assert bench.hear(ack(), status("open")) == ["open"]
    assert bench.hear(fill("f1", "0.25"), fill("f2", "0.75")) == [
        "fill",
        "fill",
        "closed",
    ]
    last = bench.said[-1].brokerd_msg
    assert isinstance(last, BrokerdStatus)
    assert (last.filled, last.remaining) == (Decimal(1), Decimal(0))
    assert bench.gateway.ledger.size(FQME) == 1 and not bench.gateway.living


def test_filled_before_new_and_doubled_new_make_one_order() -> None:
    bench = Bench()
    bench.ask(order())
    assert bench.hear(fill("f1", "1")) == ["fill", "closed"]
    assert bench.hear(ack(), status("open"), status("open"), fill("f1", "1")) == []
    assert bench.gateway.ledger.size(FQME) == 1


def test_an_end_waits_for_the_fills_that_it_tells_of() -> None:
    bench = Bench()
    bench.ask(order())
    assert bench.hear(ack(), status("canceled", "0.5")) == []
    assert bench.hear(fill("f1", "0.25")) == ["fill"]
    assert bench.hear(fill("f2", "0.25")) == ["fill", "canceled"]


def test_a_fill_after_the_end_is_told_and_held() -> None:
    bench = Bench()
    bench.ask(order())
    assert bench.hear(ack(), status("canceled")) == ["canceled"]
    assert bench.hear(fill("f1", "0.25")) == ["fill"]
    assert bench.gateway.ledger.size(FQME) == Decimal("0.25")
    assert bench.gateway.living == {}


def test_a_fill_of_an_order_of_nobody_is_in_the_ledger() -> None:
    bench = Bench()
    assert bench.hear(fill("f1", "0.25", reqid="someone", symbol=FQME)) == []
    assert bench.gateway.ledger.size(FQME) == Decimal("0.25")
    assert bench.gateway.counters["foreign"] == 1


def test_what_is_asked_while_a_request_is_out_waits_for_its_answer() -> None:
    bench = Bench()
    bench.ask(order())
    bench.ask(Update(oid="it", price="101"))
    bench.ask(Update(oid="it", size="2"))
    assert len(bench.sent) == 1
    bench.hear(ack())
    update = bench.sent[-1]
    assert isinstance(update, BrokerdOrder) and len(bench.sent) == 2
    assert (update.reqid, update.price, update.size) == ("r0", Decimal(101), Decimal(2))
    bench.ask(Cancel(oid="it"))
    assert len(bench.sent) == 2
    bench.hear(ack())
    assert isinstance(bench.sent[-1], BrokerdCancel) and len(bench.sent) == 3


def test_a_refused_order_is_dead_and_a_refused_update_changes_nothing() -> None:
    bench = Bench()
    bench.ask(order("one"))
    assert bench.hear(BrokerdError(reason="no funds", reqid="r0")) == ["error"]
    assert "one" not in bench.gateway.living
    bench.ask(order("two"))
    bench.hear(ack("r1"), status("open", reqid="r1"))
    bench.ask(Update(oid="two", price="101"))
    assert bench.hear(BrokerdError(reason="bad price", reqid="r1")) == ["error"]
    assert bench.gateway.living["two"].order.price == 100
    assert bench.hear(BrokerdError(reason="what?", reqid="r1")) == []


def test_an_oid_is_used_once_for_ever() -> None:
    bench = Bench()
    bench.ask(order())
    assert bench.ask(order(size="5")) == ["error"]
    bench.hear(fill("f1", "1"))
    assert bench.ask(order()) == ["error"]
    assert len(bench.sent) == 1


def test_an_order_that_ended_in_this_turn_has_used_its_oid_too() -> None:
    bench = Bench()
    bench.gateway.ask("s", order(exec_mode="dark"))
    bench.gateway.ask("s", Cancel(oid="it"))
    bench.gateway.ask("s", order())
    resps = [said.status.resp for said in bench.turn().said]
    assert resps == ["dark_open", "canceled", "error"] and not bench.sent


def test_a_request_in_doubt_is_settled_by_what_the_broker_has() -> None:
    bench = Bench()
    bench.ask(order())
    bench.gateway.in_doubt("r0")
    bench.gateway.found("r0", Decimal(100), Decimal(1))
    assert bench.hear(status("open")) == ["open"]
    bench.ask(Update(oid="it", price="101"))
    bench.gateway.in_doubt("r0")
    bench.gateway.found("r0", Decimal(101), Decimal(1))
    assert [said.status.resp for said in bench.turn().said] == ["open"]
    bench.ask(Update(oid="it", price="102"))
    bench.gateway.in_doubt("r0")
    bench.gateway.found("r0", Decimal(101), Decimal(1))
    assert [said.status.resp for said in bench.turn().said] == ["error"]
    assert bench.gateway.living["it"].order.price == 101


def test_an_order_that_the_broker_does_not_know_is_over() -> None:
    bench = Bench()
    bench.ask(order("never"))
    bench.gateway.in_doubt("r0")
    bench.gateway.not_known("r0", "unknown there")
    bench.ask(order("gone"))
    bench.hear(ack("r1"), status("open", reqid="r1"))
    bench.gateway.not_known("r1", "unknown there")
    bench.turn()
    assert bench.by_oid["never"][-1].resp == "error"
    assert bench.by_oid["gone"][-1].resp == "canceled"


def test_of_a_group_one_is_filled_and_the_others_are_canceled() -> None:
    bench = Bench()
    bench.ask(order("one", oco="g"))
    bench.ask(order("two", oco="g", action="sell"))
    bench.ask(order("kept", oco="g", action="sell", stop="90"))
    bench.ask(order("other"))
    bench.hear(ack("r0"), ack("r1"), fill("f1", "0.1"))
    cancels = [sent for sent in bench.sent if isinstance(sent, BrokerdCancel)]
    assert [cancel.oid for cancel in cancels] == ["two"]
    assert "kept" not in bench.gateway.living and "other" in bench.gateway.living


def test_a_trigger_sends_the_order_once_and_asks_the_rules_again() -> None:
    bench = Bench(max_order_size="1")
    bench.ask(order(exec_mode="dark"))
    assert not bench.sent
    bench.gateway.fired("it", Decimal(100), 5)
    bench.gateway.fired("it", Decimal(100), 6)
    turn = bench.turn()
    assert [said.status.resp for said in turn.said] == ["triggered"]
    assert len(bench.sent) == 1
    bench.ask(order("late", exec_mode="dark"))
    bench.killed = "stopped"
    bench.gateway.fired("late", Decimal(100), 7)
    assert [said.status.resp for said in bench.turn().said] == ["triggered", "error"]
    assert len(bench.sent) == 1


def test_the_kill_switch_lets_cancels_pass_alone() -> None:
    bench = Bench()
    bench.ask(order())
    bench.hear(ack(), status("open"))
    bench.killed = "stopped"
    assert bench.ask(order("next")) == ["error"]
    assert bench.ask(Update(oid="it", price="101")) == ["error"]
    bench.ask(Cancel(oid="it"))
    assert isinstance(bench.sent[-1], BrokerdCancel)


def test_what_was_triggered_waits_for_the_link_and_a_plain_order_does_not() -> None:
    bench = Bench()
    bench.ask(order("stop", stop="101"))
    bench.gateway.fired("stop", Decimal(101), 5)
    bench.turn()
    bench.gateway.not_sent("r0", "no link", down=True)
    assert "stop" in bench.gateway.living and not bench.turn().said
    bench.gateway.not_known("r0", "unknown there")
    bench.gateway.try_again()
    bench.turn()
    assert [sent.reqid for sent in bench.sent] == ["r0", "r0"]
    assert bench.hear(ack(), status("open")) == ["open"]
    bench.ask(order("plain"))
    bench.gateway.not_sent("r1", "no link", down=True)
    assert [said.status.resp for said in bench.turn().said] == ["error"]


def test_what_waits_for_the_link_can_be_canceled() -> None:
    bench = Bench()
    bench.ask(order("stop", stop="101"))
    bench.gateway.fired("stop", Decimal(101), 5)
    bench.gateway.not_sent("r0", "no link", down=True)
    assert bench.ask(Cancel(oid="stop")) == ["triggered", "canceled"]
    bench.gateway.try_again()
    assert not bench.gateway.living and not bench.turn().sends


def test_a_cancel_that_was_not_sent_is_sent_when_there_is_a_link() -> None:
    bench = Bench()
    bench.ask(order())
    bench.hear(ack(), status("open"))
    bench.ask(Cancel(oid="it"))
    bench.gateway.not_sent("r0", "no link", down=True)
    bench.gateway.try_again()
    assert len([s for s in bench.turn().sends if isinstance(s, BrokerdCancel)]) == 1


def test_a_group_is_canceled_however_often_that_is_refused() -> None:
    bench = Bench()
    bench.ask(order("one", oco="g"))
    bench.ask(order("two", oco="g", action="sell"))
    bench.hear(ack("r0"), ack("r1"), fill("f1", "0.1"))
    for _ in range(3):
        assert bench.hear(BrokerdError(reason="rate limit", reqid="r1")) == []
        bench.gateway.try_again()
        bench.turn()
    cancels = [sent for sent in bench.sent if isinstance(sent, BrokerdCancel)]
    assert [cancel.oid for cancel in cancels] == ["two"] * 4


def test_a_group_that_was_filled_takes_no_more_and_is_one_clients() -> None:
    bench = Bench()
    bench.ask(order("one", oco="g"))
    bench.ask(order("theirs", oco="g"), session="other")
    bench.hear(ack("r0"), ack("r1"), fill("f1", "1"))
    assert bench.ask(order("late", oco="g")) == ["error"]
    assert "theirs" in bench.gateway.living
    assert bench.ask(order("fine", oco="g"), session="other") == ["pending"]


def test_a_trigger_that_the_rules_refuse_leaves_its_group_alone() -> None:
    bench = Bench()
    bench.ask(order("profit", oco="g", action="sell"))
    bench.hear(ack(), status("open"))
    bench.ask(order("stop", oco="g", action="sell", stop="99"))
    bench.killed = "stopped"
    bench.gateway.fired("stop", Decimal(99), 5)
    assert [said.status.resp for said in bench.turn().said] == ["triggered", "error"]
    assert "profit" in bench.gateway.living and len(bench.sent) == 1


def test_an_update_that_waits_is_not_sent_after_the_kill_switch() -> None:
    bench = Bench()
    bench.ask(order())
    bench.ask(Update(oid="it", price="101"))
    bench.killed = "stopped"
    assert bench.hear(ack()) == ["error"]
    assert len(bench.sent) == 1


def test_updates_on_their_way_count_for_the_position() -> None:
    bench = Bench(max_position="5")
    bench.ask(order("one"))
    bench.hear(ack(), status("open"))
    bench.ask(Update(oid="one", size="4"))
    assert bench.ask(order("two", size="2")) == ["error"]
    bench.hear(BrokerdError(reason="no", reqid="r0"))
    assert bench.ask(order("three", size="2")) == ["pending"]


def test_the_collar_holds_updates_of_what_was_triggered() -> None:
    bench = Bench(price_collar="0.1")
    bench.ask(order(exec_mode="dark"))
    bench.gateway.fired("it", Decimal(100), 5)
    bench.turn()
    bench.hear(ack(), status("open"))
    assert bench.ask(Update(oid="it", price="50")) == ["error"]
    assert bench.ask(Update(oid="it", price="50", stop="50")) == ["error"]
    assert bench.ask(Update(oid="it", price="95")) == []


def test_a_trail_far_through_the_market_is_sent_when_it_fires() -> None:
    bench = Bench(price_collar="0.05")
    assert bench.ask(order(action="sell", trail="5", price="80")) == ["dark_open"]
    bench.gateway.fired("it", Decimal(95), 5)
    assert [said.status.resp for said in bench.turn().said] == ["triggered"]
    assert len(bench.sent) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"account": "other"}, "account 'other'"),
        ({"brokers": ["binance"]}, "brokers"),
        ({"symbol": "nosuch.kraken"}, "nosuch"),
        ({"size": "0.001"}, "size_tick"),
        ({"exec_mode": "paper"}, "paper"),
        ({"action": "alert", "stop": "99"}, "alert"),
    ],
)
def test_an_order_that_cannot_be_here_is_refused(
    fields: dict[str, Any], words: str
) -> None:
    bench = Bench()
    assert bench.ask(order(**fields)) == ["error"]
    assert words in repr(bench.said[-1].brokerd_msg) and not bench.sent


OIDS = st.sampled_from(["a", "b", "c"])
REQIDS = st.sampled_from(["r0", "r1", "r2", "r3", "nobody"])
SIZES = st.sampled_from(["0.25", "0.5", "1", "2"])
MODES = st.sampled_from(["live", "dark"])
SIDES = st.sampled_from(["buy", "sell", "alert"])
ORDERS = st.builds(
    order,
    OIDS,
    size=SIZES,
    action=SIDES,
    exec_mode=MODES,
    oco=st.sampled_from(["", "g"]),
    stop=st.sampled_from([None, "99"]),
)
UPDATES = st.builds(lambda oid, size: Update(oid=oid, size=size), OIDS, SIZES)
CANCELS = st.builds(lambda oid: Cancel(oid=oid), OIDS)
FILLS = st.builds(
    fill,
    st.sampled_from(["f1", "f2", "f3", "f4"]),
    SIZES,
    reqid=REQIDS,
    symbol=st.just(FQME),
    revision=st.sampled_from([0, 0, 0, 1]),
)
STATUSES = st.builds(
    status,
    st.sampled_from(["pending", "open", "closed", "canceled"]),
    st.sampled_from(["0", "0.25", "1"]),
    REQIDS,
)
ERRORS = st.builds(lambda reqid: BrokerdError(reason="no", reqid=reqid), REQIDS)
OTHERS = st.tuples(
    st.sampled_from(
        ["fired", "in_doubt", "not_known", "not_sent", "found", "down", "try_again"]
    ),
    OIDS,
    REQIDS,
)
STEPS = st.one_of(
    *(ORDERS, UPDATES, CANCELS, st.builds(ack, REQIDS), FILLS, STATUSES, ERRORS, OTHERS)
)


def do(bench: Bench, step: Any) -> None:
    gateway = bench.gateway
    if isinstance(step, Order | Update | Cancel):
        gateway.ask("s", step)
    elif not isinstance(step, tuple):
        gateway.heard(step)
    elif step[0] == "try_again":
        gateway.try_again()
    elif step[0] == "down":
        gateway.not_sent(step[2], "no link", down=True)
    else:
        name, oid, reqid = step
        arguments = {
            "fired": (oid, Decimal(100), 1),
            "in_doubt": (reqid,),
            "found": (reqid, Decimal(100), Decimal(1)),
        }
        getattr(gateway, name)(*arguments.get(name, (reqid, "why")))


def check(bench: Bench) -> None:
    """What holds after any step."""
    gateway = bench.gateway
    assert [one.seq for one in bench.said] == list(range(1, len(bench.said) + 1))
    for oid, dialog in gateway.living.items():
        assert not dialog.ended and gateway.by_reqid[dialog.reqid] is dialog
        assert dialog.oid == oid and not (dialog.kept_here and dialog.asked)
    assert len(gateway.by_reqid) == len(gateway.living)
    for side in ("buy", "sell"):
        working = [_most(d) for d in gateway.living.values()]
        mine = [d.order.action == side for d in gateway.living.values()]
        whole = sum((w for w, m in zip(working, mine, strict=True) if m), Decimal(0))
        assert gateway._working.get((FQME, side), Decimal(0)) == whole


def check_lives(bench: Bench, corrected: bool) -> None:
    """What was said of each order, from its beginning to its end."""
    for oid, statuses in bench.by_oid.items():
        resps = [one.resp for one in statuses]
        ends = [one.resp in ENDS and not one.about_request for one in statuses]
        end = ends.index(True) if True in ends else len(resps)
        assert set(resps[end + 1 :]) <= {"error", "fill"}, (oid, resps)
        assert resps.count("triggered") <= 1
        if end < len(resps) and resps[end] != "error" and not corrected:
            assert told_filled(statuses[end]) == sum_of_fills(statuses[:end])
    news = [one.reqid for one in bench.sent if isinstance(one, BrokerdOrder)]
    assert len(set(news)) == len({one.oid for one in bench.sent if one.reqid in news})


def told_filled(end: Status) -> Decimal:
    assert isinstance(end.brokerd_msg, BrokerdStatus)
    return end.brokerd_msg.filled


def sum_of_fills(statuses: list[Status]) -> Decimal:
    told = [one.brokerd_msg for one in statuses if one.resp == "fill"]
    return sum((one.size for one in told if isinstance(one, BrokerdFill)), Decimal(0))


@settings(max_examples=500, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_any_messages_in_any_order_leave_it_sound(steps: list[Any]) -> None:
    bench = Bench()
    for step in steps:
        do(bench, step)
        bench.turn()
        check(bench)
    fills = [step for step in steps if isinstance(step, BrokerdFill)]
    check_lives(bench, corrected=any(one.revision for one in fills))
