"""The paper engine: what fills an order, at what price, and what it says of it."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from piker_core.ems.paper.engine import PaperEngine
from piker_core.orders import BrokerdFill, BrokerdOrderAck, BrokerdStatus
from tests.paper_market import (
    FQME,
    MS,
    Paper,
    at,
    errors,
    fills,
    statuses,
    ticks,
    took,
)

D = Decimal
SIDES = pytest.mark.parametrize(("action", "away"), [("buy", -1), ("sell", 1)])


def facing(action: str, *level: Any) -> dict[str, Any]:
    """A quote of the side that an order of this action would take."""
    return {"ask" if action == "buy" else "bid": level}


def beside(action: str, *level: Any) -> dict[str, Any]:
    return {"bid" if action == "buy" else "ask": level}


# -- taking ----------------------------------------------------------------------------


@SIDES
def test_a_marketable_order_takes_what_is_shown_at_the_shown_price(
    action: str, away: int
) -> None:
    paper = Paper(**facing(action, -0.1 * away, 0.5))
    said = paper.order("a", action, -5 * away, 1)
    assert took(said) == [(D("0.5"), D("-0.1") * away)]
    assert [type(one) for one in said] == [BrokerdOrderAck, BrokerdStatus, BrokerdFill]
    assert paper.status("a") == "open"


@SIDES
def test_what_is_shown_is_taken_once_and_growth_of_it_is_new(
    action: str, away: int
) -> None:
    paper = Paper(**facing(action, -0.1 * away, 0.5))
    paper.order("a", action, -5 * away, 2)
    assert paper.show(**facing(action, -0.1 * away, 0.5)) == []
    assert [one.size for one in paper.show(**facing(action, -0.1 * away, 0.75))] == [
        D("0.25")
    ]
    assert took(paper.order("b", action, -5 * away, 1)) == []


@SIDES
def test_a_quote_that_comes_to_a_resting_order_trades_at_the_price_of_the_order(
    action: str, away: int
) -> None:
    paper = Paper(**facing(action, -0.1 * away, 0.5))
    paper.order("a", action, -5 * away, 1)
    given = paper.show(**facing(action, 2 * -away, 0.25))
    assert [(one.size, one.price, one.liquidity) for one in given] == [
        (D("0.25"), at(-5 * away), "maker")
    ]
    assert statuses(paper.said) == [("open", 0, 1)]


@SIDES
def test_one_sided_books_take_and_fill(action: str, away: int) -> None:
    paper = Paper(**{"bid": None, "ask": None} | beside(action, 0.1 * away, 1))
    paper.order("rest", action, 10 * away, "0.5")
    other = "sell" if action == "buy" else "buy"
    said = paper.order("take", other, 5 * away, "0.25")
    assert took(said) == [(D("0.25"), D("0.1") * away)]
    assert paper.filled("rest") == 0
    paper.trade(15 * away, 5)
    assert paper.status("rest") == "closed"


# -- resting ---------------------------------------------------------------------------


@SIDES
def test_trades_through_a_price_fill_at_it_no_more_than_they_traded(
    action: str, away: int
) -> None:
    paper = Paper()
    paper.order("a", action, 10 * away, 1)
    assert paper.trade(9.9 * away, 5) == []
    for size in (0.25, 0.25, 5):
        given = paper.trade(15 * away, size)
        assert [one.price for one in given] == [at(10 * away)]
    assert [one.size for one in fills(paper.said)] == [D("0.25"), D("0.25"), D("0.5")]
    assert statuses(paper.said) == [("open", 0, 1), ("closed", 1, 0)]


@SIDES
def test_a_trade_at_its_price_fills_when_what_was_shown_before_it_is_through(
    action: str, away: int
) -> None:
    paper = Paper(**beside(action, 0.1 * away, 3))
    paper.order("a", action, 0.1 * away, 1)
    assert paper.trade(0.1 * away, 2) == []
    given = paper.trade(0.1 * away, 1.5)
    assert [one.size for one in given] == [D("0.5")]
    assert given[0].broker_details["why"] == "a trade at its price, 1 were ahead"
    assert [one.size for one in paper.trade(0.1 * away, 9)] == [D("0.5")]


@SIDES
def test_an_order_that_improves_the_market_waits_for_nobody(
    action: str, away: int
) -> None:
    paper = Paper(bid=(-1, 100), ask=(1, 100))
    paper.order("a", action, 0.5 * away, 1)
    assert [one.size for one in paper.trade(0.5 * away, 0.5)] == [D("0.5")]


@SIDES
def test_the_queue_of_an_order_behind_the_best_is_what_is_shown_when_it_is_the_best(
    action: str, away: int
) -> None:
    paper = Paper()
    paper.order("a", action, 1 * away, 1)
    assert paper.trade(1 * away, 50) == []
    paper.show(**beside(action, 1 * away, 2))
    assert paper.trade(1 * away, 1.5) == []
    assert [one.size for one in paper.trade(1 * away, 0.75)] == [D("0.25")]


@SIDES
def test_no_more_are_ahead_than_are_shown(action: str, away: int) -> None:
    paper = Paper()
    paper.order("a", action, 0.1 * away, 1)
    paper.show(**beside(action, 0.1 * away, 3))
    paper.show(**beside(action, 0.1 * away, 200))
    assert paper.trade(0.1 * away, 3) == []
    assert [one.size for one in paper.trade(0.1 * away, 0.5)] == [D("0.5")]
    paper.order("b", action, 0.1 * away, 1)
    paper.show(**beside(action, 0.3 * away, 7))
    paper.trade(0.1 * away, 0.75)
    assert (paper.filled("a"), paper.filled("b")) == (1, D("0.25"))


@pytest.mark.parametrize(("how", "given"), [("none", 0), ("proportional", D("0.5"))])
def test_cancellations_shorten_the_queue_in_proportion_only_if_asked_for(
    how: str, given: Decimal
) -> None:
    paper = Paper(bid=(-0.1, 4), cancels_ahead=how)
    paper.order("a", "buy", -0.1, 1)
    paper.show(bid=(-0.1, 12))
    paper.trade(-0.1, 2)
    paper.show(bid=(-0.1, 5))  # 12 less 2 that traded, so half was canceled
    paper.trade(-0.1, 1.5)
    assert paper.filled("a") == given


def test_what_is_left_of_a_queue_is_rounded_up_to_a_whole_size() -> None:
    paper = Paper(bid=(-0.1, 0.00000002), cancels_ahead="proportional")
    paper.order("a", "buy", -0.1, 1)
    paper.show(bid=(-0.1, 0.00000005))
    paper.show(bid=(-0.1, 0.00000003))
    paper.trade(-0.1, 0.00000002)
    assert paper.filled("a") == 0


def test_a_trade_is_shared_in_order_of_price_then_of_time() -> None:
    paper = Paper()
    for reqid, offset in (("late", -10), ("low", -11), ("high", -9)):
        paper.order(reqid, "buy", offset, 1)
    paper.order("later", "buy", -10, 1)
    given = paper.trade(-15, 2.5)
    assert [(one.reqid, one.size, one.price) for one in given] == [
        ("high", 1, at(-9)),
        ("late", 1, at(-10)),
        ("later", D("0.5"), at(-10)),
    ]


def test_a_trade_is_not_given_to_both_sides() -> None:
    paper = Paper(bid=None, ask=None)
    paper.order("buy", "buy", 5, 1)
    paper.order("sell", "sell", -5, 1)
    assert [(one.reqid, one.size) for one in paper.trade(0, 1.5)] == [
        ("buy", 1),
        ("sell", D("0.5")),
    ]


def test_what_was_taken_of_a_quote_is_not_given_again_when_its_trade_prints() -> None:
    paper = Paper(ask=(0.1, 2))
    paper.order("a", "buy", 0.1, 3)
    assert paper.filled("a") == 2
    assert paper.trade(0.1, 1.5) == []
    assert [one.size for one in paper.trade(0.1, 1)] == [D("0.5")]


def test_the_print_of_a_level_that_is_gone_is_expected_for_a_few_seconds() -> None:
    for wait_ms, given in ((100, []), (6000, [D(1)])):
        paper = Paper(ask=(0.1, 2))
        paper.order("a", "buy", 0.1, 3)
        paper.show(ask=(0.2, 5))
        paper.now_ns += wait_ms * MS
        assert [one.size for one in paper.trade(0.1, 1)] == given


def test_a_level_behind_a_better_one_keeps_what_was_taken_of_it() -> None:
    paper = Paper(ask=(0.3, 2))
    paper.order("a", "buy", 0.3, 2)
    paper.show(ask=(0.2, 1))
    paper.show(ask=(0.3, 2))
    assert took(paper.order("b", "buy", 0.3, 2, tif="ioc")) == []
    paper.show(ask=(0.4, 1))
    paper.show(ask=(0.3, 2))
    assert took(paper.order("c", "buy", 0.3, 2, tif="ioc")) == [(2, D("0.3"))]


def test_a_side_that_the_other_has_crossed_is_not_there_to_be_taken() -> None:
    paper = Paper(bid=(-0.1, 5), ask=(0.1, 5))
    paper.show(ask=(-2, 1))
    assert took(paper.order("a", "sell", -1, 1)) == []


def test_trades_that_are_no_trades_of_the_book_fill_nothing() -> None:
    paper = Paper()
    paper.order("a", "buy", -1, 1)
    rows = [
        (kind, float(at(-5)), 5.0, paper.step())
        for kind in ("utrade", "dark_trade", "last", "volume")
    ]
    assert paper.engine.feed(ticks(rows)) == []
    assert paper.engine.statistics()["examined"] == 0


def test_numbers_that_are_none_are_left_out() -> None:
    paper = Paper()
    paper.order("a", "buy", -1, 1)
    bad = [(np.nan, 1.0), (-1.0, 1.0), (np.inf, 1.0), (59990.0, np.nan), (0.0, 1.0)]
    rows = [
        (kind, *pair, paper.step()) for pair in bad for kind in ("ask", "trade", "bid")
    ]
    assert paper.engine.feed(ticks(rows)) == []
    assert took(paper.order("b", "buy", 1, 1)) == [(1, D("0.1"))]


# -- changes ---------------------------------------------------------------------------


def test_a_change_into_the_market_takes() -> None:
    paper = Paper()
    paper.order("a", "buy", -20, "0.5")
    said = paper.order("a", "buy", 5, "0.5")
    assert isinstance(said[0], BrokerdOrderAck)
    assert took(said) == [(D("0.5"), D("0.1"))]
    assert statuses(said) == [("open", 0, D("0.5")), ("closed", D("0.5"), 0)]


@pytest.mark.parametrize(
    ("changes", "first"),
    [([(-1, 1)], "a"), ([(-1, 3)], "b"), ([(-0.9, 2), (-1, 2)], "b")],
)
def test_less_size_keeps_the_place_in_time_and_more_or_another_price_loses_it(
    changes: list[tuple[float, int]], first: str
) -> None:
    paper = Paper(bid=(-5, 1))
    paper.order("a", "buy", -1, 2)
    paper.order("b", "buy", -1, 2)
    for offset, size in changes:
        assert errors(paper.order("a", "buy", offset, size)) == []
    assert [one.reqid for one in paper.trade(-1, 0.5)] == [first]


def test_less_size_than_was_filled_closes_an_order() -> None:
    paper = Paper()
    paper.order("a", "buy", -1, 1)
    paper.trade(-2, 0.5)
    said = paper.order("a", "buy", -1, "0.25")
    assert statuses(said) == [("closed", D("0.5"), 0)]
    assert paper.trade(-2, 5) == []


def test_what_is_ended_or_another_order_cannot_be_changed() -> None:
    paper = Paper()
    paper.order("a", "buy", 5, 1)
    paper.order("b", "buy", -5, 1)
    assert errors(paper.order("a", "buy", -5, 1)) == ["order 'a' is closed already"]
    assert errors(paper.order("b", "sell", -5, 1)) == [f"order 'b' is to buy {FQME}"]
    assert paper.filled("b") == 0


def test_cancels_end_orders_once() -> None:
    paper = Paper()
    paper.order("a", "buy", -5, 1)
    paper.trade(-6, 0.25)
    assert statuses(paper.cancel("a")) == [("canceled", D("0.25"), D("0.75"))]
    assert errors(paper.cancel("a")) == ["order 'a' is canceled already"]
    assert errors(paper.cancel("c")) == ["there is no order 'c'"]
    assert paper.trade(-6, 5) == []


# -- kinds of orders -------------------------------------------------------------------


def test_ioc_takes_what_there_is_and_fok_all_or_nothing() -> None:
    paper = Paper(ask=(0.1, 2))
    assert took(paper.order("fok", "buy", 1, 3, tif="fok")) == []
    assert paper.reason("fok") == "fok: only 2.00000000 is shown at its price"
    assert statuses(paper.order("ioc", "buy", 1, 3, tif="ioc")) == [
        ("open", 0, 3),
        ("canceled", 2, 1),
    ]
    paper.show(ask=(0.2, 3))
    assert took(paper.order("all", "buy", 1, 3, tif="fok")) == [(3, D("0.2"))]
    assert paper.status("all") == "closed"


def test_post_only_never_takes() -> None:
    paper = Paper()
    said = paper.order("a", "sell", -0.1, 1, post_only=True)
    assert statuses(said) == [("canceled", 0, 1)]
    assert paper.reason("a") == "post-only: would take at once"
    paper.order("b", "sell", 0.1, 1, post_only=True)
    assert errors(paper.order("b", "sell", -1, 1, post_only=True)) == [
        "post-only order 'b' would take at 59999"
    ]
    assert paper.status("b") == "open"


def test_reduce_only_never_makes_a_position_larger() -> None:
    paper = Paper()
    paper.order("no", "sell", -5, 1, reduce_only=True)
    assert paper.reason("no") == "reduce-only: would not reduce, the position is 0"
    paper.engine.set_position(FQME, D(2))
    paper.order("rest", "sell", 5, 5, reduce_only=True)
    paper.order("other", "sell", 6, 5, reduce_only=True)
    paper.order("some", "sell", -5, "0.5", reduce_only=True)
    assert paper.engine.position(FQME) == D("1.5")
    assert [(one.reqid, one.size) for one in paper.trade(7, 9)] == [("rest", D("1.5"))]
    assert statuses(paper.said)[-2:] == [
        ("canceled", D("1.5"), D("3.5")),
        ("canceled", 0, 5),
    ]
    assert paper.engine.position(FQME) == 0


def test_a_reduce_only_order_that_takes_all_there_is_to_reduce_does_not_rest() -> None:
    paper = Paper()
    paper.engine.set_position(FQME, D(-1))
    paper.order("a", "buy", 5, 3, reduce_only=True)
    assert (paper.status("a"), paper.filled("a")) == ("canceled", 1)


def test_day_orders_end_with_the_session() -> None:
    paper = Paper()
    paper.order("day", "buy", -5, 1, tif="day")
    paper.order("gtc", "buy", -5, 1)
    assert paper.engine.expire(paper.step(), "ethusd.kraken") == []
    assert statuses(paper.engine.expire(paper.step(), FQME)) == [("canceled", 0, 1)]
    assert [order.reqid for order in paper.engine.orders()] == ["gtc"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (
            {"symbol": "no.kraken"},
            "unknown symbol 'no.kraken'; there are: xbtusd.kraken",
        ),
        ({"price": "0.05"}, "price 60000.05 must be a positive multiple of 0.1"),
        ({"size": "1e-9"}, "size 1E-9 must be a positive multiple of 1E-8"),
        ({"size": "1e30"}, "1E+30 at 60000 is worth more than any order"),
        ({"reqid": ""}, "an order needs a reqid"),
    ],
)
def test_what_the_venue_cannot_take_is_refused(more: dict[str, str], why: str) -> None:
    paper = Paper()
    words = {"reqid": "a", "price": "0", "size": "1"} | more
    reqid, price, size = words.pop("reqid"), words.pop("price"), words.pop("size")
    assert errors(paper.order(reqid, "buy", price, size, **words)) == [why]
    assert paper.engine.orders() == []
    assert paper.engine.statistics()["refused"] == 1


def test_an_order_of_another_account_is_refused() -> None:
    paper = Paper()
    paper.engine = PaperEngine("kraken", "other")
    paper.engine.add_market(FQME, price_tick=D(1), size_tick=D(1))
    assert errors(paper.order("a", "buy", 0, 1)) == ["account 'paper' must be 'other'"]


# -- fees, names, numbers --------------------------------------------------------------


def test_fees_are_exact_and_of_the_side_that_waited_or_came() -> None:
    paper = Paper(ask=(0.1, 1), maker_fee=D("-0.0001"), taker_fee=D("0.0026"))
    taken = fills(paper.order("a", "buy", 0.1, 2))[0]
    assert (taken.fee, taken.fee_currency) == (D("156.00026"), "usd")
    assert taken.liquidity == "taker"
    made = paper.trade(-1, 0.5)[0]
    assert (made.fee, made.liquidity) == (D("-3.000005"), "maker")


def test_a_fill_says_why_and_its_tick() -> None:
    paper = Paper()
    took_it = fills(paper.order("a", "buy", 1, 1))[0]
    assert took_it.broker_details == {
        "why": "took the ask",
        "tick_price": "60000.1",
        "tick_size": "100",
    }
    paper.order("b", "sell", 1, 1)
    came = paper.show(bid=(2, 0.5))[0]
    assert came.broker_details["why"] == "the bid came to it"
    through = paper.trade(3, 0.25)[0]
    assert through.broker_details["why"] == "a trade went through its price"
    assert through.broker_time == through.time_ns == paper.now_ns


def test_every_fill_has_a_name_of_its_own() -> None:
    paper = Paper(ask=(0.1, 1))
    paper.order("a", "buy", 0.1, 3)
    paper.trade(-1, 0.5)
    paper.trade(-1, 0.5)
    assert [one.fill_id for one in fills(paper.said)] == ["a.1", "a.2", "a.3"]


def test_floats_of_ticks_are_the_decimals_that_they_print_as() -> None:
    paper = Paper(bid=None, ask=None)
    paper.show(ask=(0.1, 0.1 + 0.2))
    given = fills(paper.order("a", "buy", 5, 3))[0]
    assert (given.price, given.size) == (D("60000.1"), D("0.3"))
    assert str(given.price) == "60000.1"


def test_an_order_tells_what_it_is() -> None:
    paper = Paper(ask=(0.1, 1))
    paper.order("a", "buy", 1, 3)
    paper.trade(-1, 1)
    order = paper.engine.order("a")
    assert order is not None
    assert (order.status, order.filled, order.avg_price) == (
        "open",
        D(2),
        D("60000.55"),
    )
    assert paper.engine.order("b") is None


def test_ticks_of_many_markets_are_told_apart_and_told_in_order() -> None:
    paper = Paper()
    paper.engine.add_market(
        "b.kraken", price_tick=D("0.1"), size_tick=D(1), market_id=7
    )
    paper.order("a", "buy", -1, 1)
    paper.order("b", "buy", -1, 1, symbol="b.kraken")
    rows = [("trade", float(at(-2)), 0.5, paper.step()) for _ in range(4)]
    batch = ticks(rows)
    batch["market"] = [3, 7, 0, 7]
    batch["size"] = [9, 1, 0.5, 1]
    assert [one.reqid for one in fills(paper.engine.feed(batch))] == ["b", "a"]
    batch["market"] = 5
    assert [one.reqid for one in fills(paper.engine.feed(batch, {5: FQME}))] == ["a"]
