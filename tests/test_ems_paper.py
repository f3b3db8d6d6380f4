"""The paper engine: what fills an order, at what price, and what it says of it."""

from decimal import Decimal
from typing import Any

import pytest

from piker_core.orders import BrokerdFill, BrokerdOrderAck, BrokerdStatus
from tests.paper_market import Paper, at, fills, statuses, took

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
