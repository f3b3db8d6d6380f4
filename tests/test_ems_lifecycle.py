"""The table of an order's life, and what is counted of its fills."""

from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piker_core.ems.lifecycle import ENDS, LIFE, Dialog, Word
from piker_core.orders import BrokerdFill, Order, Resp, Update

WORDS = get_args(Word)
STATES = [resp for resp in get_args(Resp) if resp != "fill"]


def order(**fields: object) -> Order:
    plain = {
        "action": "buy",
        "exec_mode": "live",
        "oid": "it",
        "symbol": "xbtusd.kraken",
        "account": "paper",
        "price": "100",
        "size": "1",
    }
    return Order(**plain | fields)  # type: ignore[arg-type]


def dialog(state: Resp = "pending", **fields: object) -> Dialog:
    return Dialog(
        order=order(**fields), session="s", reqid="r", state=state, began_ns=1
    )


def fill(name: str = "f1", size: str = "0.25", **fields: object) -> BrokerdFill:
    plain = {"time_ns": 1, "broker_time": 1, "reqid": "r", "price": "100"}
    more = {"action": "buy", "fill_id": name, "size": size}
    return BrokerdFill(**plain | more | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", sorted(ENDS))
@pytest.mark.parametrize("word", WORDS)
def test_nothing_leads_out_of_an_end(end: Resp, word: Word) -> None:
    one = dialog(end)
    assert not one.hear(word) and one.state == end and (end, word) not in LIFE


def test_every_state_can_come_to_an_end() -> None:
    """No order is stuck: from each state some words lead to an end."""
    for state in STATES:
        reached, open_ones = {state}, [state]
        while open_ones:
            here = open_ones.pop()
            for (before, _), after in LIFE.items():
                if before == here and after not in reached:
                    reached.add(after)
                    open_ones.append(after)
        assert reached & ENDS, state


def test_an_alert_ends_when_it_is_triggered() -> None:
    alert, sale = dialog("dark_open", action="alert"), dialog("dark_open")
    assert alert.hear("trigger") and alert.ended and not alert.hear("send")
    assert sale.hear("trigger") and not sale.ended and sale.hear("send")


@given(st.lists(st.sampled_from(WORDS), max_size=30), st.sampled_from(STATES))
def test_any_words_in_any_order_keep_to_the_table(
    words: list[Word], start: Resp
) -> None:
    one, before = dialog(start), start
    for word in words:
        went = one.hear(word)
        after = LIFE.get((before, word), before) if went else before
        assert one.state == after
        if before in ENDS:
            assert not went
        before = one.state


def test_a_fill_counts_once_and_a_correction_takes_its_place() -> None:
    one = dialog()
    assert one.fill(fill()) == "fill"
    assert one.fill(fill()) == ""
    assert one.fill(fill("f2", "0.5")) == "fill"
    assert one.fill(fill("f2", "0.25", revision=1)) == "correction"
    assert one.fill(fill("f2", "0.5")) == ""
    assert one.filled == Decimal("0.5") and one.remaining == Decimal("0.5")


def test_a_fee_that_comes_later_is_news_once() -> None:
    one = dialog()
    assert one.fill(fill()) == "fill"
    assert one.fill(fill(fee="0.1")) == "fee"
    assert one.fill(fill(fee="0.1")) == ""
    assert one.filled == Decimal("0.25")


def test_an_update_keeps_what_it_does_not_name() -> None:
    one = dialog(stop="99")
    assert one.updated(Update(oid="it", price="101")) == order(price="101", stop="99")
    assert one.updated(Update(oid="it", size="2", stop="98")) == order(
        size="2", stop="98"
    )
