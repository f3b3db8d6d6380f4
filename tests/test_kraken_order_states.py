"""Rows of executions put together: partial, doubled, shuffled, of others."""

import random
from decimal import Decimal as D
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piker_core.orders import BrokerdFill, BrokerdStatus
from providers.kraken.order_states import OrderStates, SentTerms
from providers.kraken.private_wire import ExecutionRow

SENT = SentTerms("BTC/USD", "buy", D("1.0"), D(100))
NOW_NS = 1_800_000_000 * 10**9


def make_states() -> OrderStates:
    return OrderStates(lambda symbol: f"{symbol}.fqme", lambda: NOW_NS)


def stamp(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}.000000Z"


def pending(order_id: str = "O1", **fields: Any) -> ExecutionRow:
    given = {
        "cl_ord_id": "a1",
        "symbol": "BTC/USD",
        "side": "buy",
        "order_qty": D("1.0"),
        "limit_price": D(100),
        "exec_type": "pending_new",
        "order_status": "pending_new",
        "timestamp": stamp(1),
    }
    return ExecutionRow(order_id=order_id, **(given | fields))


def row(kind: str, status: str, second: int, **fields: Any) -> ExecutionRow:
    return ExecutionRow(
        order_id=fields.pop("order_id", "O1"),
        exec_type=kind,
        order_status=status,
        timestamp=stamp(second),
        **fields,
    )


def trade(number: int, size: str, cum: str | None, second: int) -> ExecutionRow:
    return row(
        "trade",
        "partially_filled",
        second,
        exec_id=f"T{number}",
        last_qty=D(size),
        last_price=D(100),
        cum_qty=None if cum is None else D(cum),
    )


def last_status(states: OrderStates, rows: list[ExecutionRow]) -> BrokerdStatus:
    told = [m for each in rows for m in states.take(each, snapshot=False)]
    return [m for m in told if isinstance(m, BrokerdStatus)][-1]


LIFE = [
    pending(),
    row("new", "new", 2),
    trade(1, "0.25", "0.25", 3),
    row("amended", "partially_filled", 4, order_qty=D("2.0"), limit_price=D(101)),
    trade(2, "0.5", "0.75", 5),
    trade(3, "1.25", "2.0", 6),
    row("filled", "filled", 6, cum_qty=D("2.0")),
]


def test_a_whole_life_is_told_step_by_step() -> None:
    states, told = make_states(), []
    for each in LIFE:
        told += states.take(each, snapshot=False)
    statuses = [m for m in told if isinstance(m, BrokerdStatus)]
    assert [(m.status, m.filled, m.remaining) for m in statuses] == [
        ("pending", D(0), D("1.0")),
        ("open", D(0), D("1.0")),
        ("open", D("0.25"), D("0.75")),
        ("open", D("0.25"), D("1.75")),
        ("open", D("0.75"), D("1.25")),
        ("open", D("2.0"), D(0)),
        ("closed", D("2.0"), D(0)),
    ]
    fills = [m for m in told if isinstance(m, BrokerdFill)]
    assert [(m.fill_id, m.size) for m in fills] == [
        ("T1", D("0.25")),
        ("T2", D("0.5")),
        ("T3", D("1.25")),
    ]
    assert {m.reqid for m in told} == {"a1"}
    assert {m.symbol for m in fills} == {"BTC/USD.fqme"}


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 8), st.booleans())
def test_rows_in_any_order_and_number_come_to_the_same(
    rng: random.Random, doubled: int, canceled: bool
) -> None:
    end = row("canceled", "canceled", 9, cum_qty=D("0.75"), reason="User requested")
    life = [*LIFE[:5], end] if canceled else LIFE
    rows = life + rng.choices(life, k=doubled)
    rng.shuffle(rows)
    states = make_states()
    told = [m for each in rows for m in states.take(each, snapshot=False)]
    statuses = [m for m in told if isinstance(m, BrokerdStatus)]
    final = states.ended("a1")
    assert final is not None
    wanted = ("canceled", D("0.75"), D("1.25")) if canceled else ("closed", D(2), D(0))
    assert (final.status, final.filled, final.remaining) == wanted
    assert [m.filled for m in statuses] == sorted(m.filled for m in statuses)
    ranks = {"pending": 0, "open": 1, "closed": 2, "canceled": 2}
    assert [ranks[m.status] for m in statuses] == sorted(
        ranks[m.status] for m in statuses
    )
    fills = {m.fill_id: m.size for m in told if isinstance(m, BrokerdFill)}
    assert sum(fills.values()) == (D("0.75") if canceled else D("2.0"))
    assert {m.reqid for m in told} == {"a1"}


def test_fills_without_a_sum_are_summed_once_each() -> None:
    states = make_states()
    rows = [pending(), trade(1, "0.25", None, 3), trade(1, "0.25", None, 3)]
    assert last_status(states, rows).filled == D("0.25")
    assert last_status(states, [trade(2, "0.5", None, 4)]).filled == D("0.75")


def test_a_canceled_order_keeps_its_reason_and_takes_a_late_fill() -> None:
    states = make_states()
    rows = [pending(), row("canceled", "canceled", 5, reason="Post only order")]
    told = last_status(states, rows)
    assert (told.status, told.reason) == ("canceled", "Post only order")
    late = last_status(states, [trade(1, "0.25", "0.25", 4)])
    assert (late.status, late.filled) == ("canceled", D("0.25"))


def test_a_snapshot_has_the_newest_terms() -> None:
    states = make_states()
    last_status(states, [pending(timestamp=stamp(30))])
    told = states.take(
        pending(order_qty=D(5), order_status="new", timestamp=stamp(1)), snapshot=True
    )
    assert isinstance(told[0], BrokerdStatus)
    assert (told[0].status, told[0].remaining) == ("open", D(5))


def test_rows_of_an_order_without_a_client_id_wait_for_an_answer_that_is_due() -> None:
    states = make_states()
    states.submitted("a1", SENT)
    rows = [pending(cl_ord_id=""), trade(1, "0.25", "0.25", 3)]
    assert [states.take(each, snapshot=False) for each in rows] == [[], []]
    told = states.identify("O1", "a1")
    assert [type(m).__name__ for m in told] == [
        "BrokerdStatus",
        "BrokerdFill",
        "BrokerdStatus",
    ]
    assert {m.reqid for m in told} == {"a1"}  # type: ignore[union-attr]
    assert states.held == 2


def test_rows_of_others_are_told_at_once_or_when_no_answer_is_due() -> None:
    states = make_states()
    (told,) = states.take(pending(cl_ord_id=""), snapshot=False)
    assert isinstance(told, BrokerdStatus)
    assert told.reqid == ""
    states.submitted("a1", SENT)
    assert states.take(pending("O2", cl_ord_id=""), snapshot=False) == []
    (held,) = states.refused("a1")
    assert isinstance(held, BrokerdStatus)
    assert held.broker_id == "O2"


def test_a_row_of_an_order_of_which_nothing_is_known_waits_for_its_first() -> None:
    states = make_states()
    assert states.take(row("new", "new", 2), snapshot=False) == []
    told = states.take(pending(), snapshot=False)
    assert [m.status for m in told if isinstance(m, BrokerdStatus)] == [
        "pending",
        "open",
    ]


def test_an_order_whose_first_row_was_lost_is_known_as_it_was_sent() -> None:
    states = make_states()
    states.submitted("a1", SENT)
    assert states.identify("O1", "a1") == []
    told = last_status(states, [trade(1, "0.25", "0.25", 3)])
    assert (told.reqid, told.filled, told.remaining) == ("a1", D("0.25"), D("0.75"))


@pytest.mark.parametrize(
    "broken",
    [
        row("trade", "new", 3, exec_id="T1", last_qty=D(1)),
        row("trade", "new", 3, last_qty=D(1), last_price=D(1)),
        trade(1, "NaN", None, 3),
    ],
)
def test_an_execution_that_lacks_something_is_refused(broken: ExecutionRow) -> None:
    states = make_states()
    states.take(pending(), snapshot=False)
    with pytest.raises(ValueError):
        states.take(broken, snapshot=False)


def test_ages_are_known_of_orders_sent_here_and_of_those_that_were_told() -> None:
    clock = [NOW_NS]
    states = OrderStates(str, lambda: clock[0])
    states.changed("x")
    clock[0] += 7 * 10**9
    assert states.age_s("x") == 7
    assert states.age_s("never heard of") == 0  # the dearest: nothing is passed
    states.take(pending(), snapshot=True)
    assert states.age_s("a1") > 10**6


def test_ended_orders_are_forgotten_in_the_end_and_open_ones_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("providers.kraken.order_states._ENDED", 10)
    states = make_states()
    states.take(pending("open", cl_ord_id="open"), snapshot=False)
    for number in range(60):
        name = f"O{number}"
        states.take(pending(name, cl_ord_id=name), snapshot=False)
        states.take(row("canceled", "canceled", 2, order_id=name), snapshot=False)
    known = [number for number in range(60) if states.knows(f"O{number}")]
    assert 10 <= len(known) <= 21
    assert known[-1] == 59
    assert states.knows("open")
