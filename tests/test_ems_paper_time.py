"""The paper engine over time: latency, late ticks, restarts, what ticks cost."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from piker_core.config import load_section
from piker_core.ems.paper.engine import PaperConfig
from piker_core.errors import ConfigError, OrderError
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


# -- time ------------------------------------------------------------------------------


def test_requests_are_under_way_for_the_latency() -> None:
    paper = Paper(ask=(0.1, 5), latency_s=0.0025)
    assert paper.order("a", "buy", 1, 1) == []
    sent_ns = paper.now_ns
    assert paper.engine.next_due_ns == sent_ns + 2_500_000
    assert paper.engine.order("a") is None
    assert paper.show(ask=(0.2, 5)) == []
    given = paper.show(ask=(0.3, 5))
    assert [(one.price, one.time_ns) for one in given] == [
        (at(0.2), sent_ns + 2_500_000)
    ]
    paper.order("b", "buy", -1, 1)
    paper.cancel("b")
    said = paper.engine.advance(paper.now_ns + 5 * MS)
    assert statuses(said) == [("open", 0, 1), ("canceled", 0, 1)]
    assert paper.engine.next_due_ns is None


def test_a_cancel_that_is_under_way_comes_too_late_for_a_trade_before_it() -> None:
    paper = Paper(latency_s=0.0015)
    paper.order("a", "buy", -1, 1)
    paper.engine.advance(paper.now_ns + 2 * MS)
    paper.now_ns += 5 * MS
    paper.cancel("a")
    assert [one.size for one in paper.trade(-2, 0.5)] == [D("0.5")]
    assert paper.trade(-2, 0.5) == []
    assert paper.status("a") == "canceled"


def test_a_cancel_never_overtakes_its_order_nor_comes_later_than_it_is_due() -> None:
    paper = Paper(latency_s=0.0015)
    paper.order("a", "buy", -1, 1)
    paper.cancel("a")
    paper.now_ns += 5 * MS
    assert paper.trade(-2, 1) == []
    assert paper.status("a") == "canceled"


def test_jitter_is_of_the_seed_and_keeps_the_requests_of_an_order_in_order() -> None:
    def due(seed: int) -> list[int | None]:
        paper = Paper(latency_s=1, jitter_s=5, seed=seed)
        moments = []
        for number in range(20):
            paper.order("a", "buy", -1 - number, 1)
            moments.append(paper.engine.next_due_ns)
        said = paper.engine.advance(paper.now_ns + 10_000 * MS)
        assert errors(said) == []
        order = paper.engine.order("a")
        assert order is not None
        assert order.price == at(-20)
        return moments

    assert due(1) == due(1)
    assert due(1) != due(2)


def test_ticks_from_before_an_order_do_not_fill_it() -> None:
    paper = Paper()
    rows = [("trade", float(at(-5)), 1.0, paper.step())]
    paper.order("a", "buy", -1, 1)
    assert paper.engine.feed(ticks(rows)) == []
    assert len(paper.trade(-5, 1)) == 1


@pytest.mark.parametrize("clock", [True, False])
def test_a_quote_from_before_an_order_that_comes_after_it_is_taken_as_it_was_shown(
    clock: bool,
) -> None:
    paper = Paper()
    rows = [*paper.quotes(ask=(2, 1)), *paper.quotes(ask=(1, 3))]
    paper.order("a", "buy", 5, "0.5", tif="gtc")
    paper.order("b", "buy", 5, "1.5", tif="gtc")
    assert paper.filled("b") == D("1.5")  # of the quote that was known
    paper.order("c", "buy", 5, 100, tif="gtc")
    before = paper.filled("c")
    assert paper.engine.feed(ticks(rows)) == []
    if clock:
        assert paper.engine.next_due_ns == paper.now_ns
        given = fills(paper.hear(paper.engine.advance(paper.now_ns)))
    else:
        given = paper.trade(50, 1)
    assert [(one.size, one.price, one.liquidity) for one in given] == [
        (100 - before, at(1), "taker")
    ]


def test_the_queue_of_an_order_is_that_of_the_last_quote_before_it() -> None:
    paper = Paper(bid=(-0.1, 1))
    rows = paper.quotes(bid=(-0.1, 5))
    paper.order("a", "buy", -0.1, 1)
    paper.engine.feed(ticks(rows))
    assert paper.trade(-0.1, 4.5) == []
    assert [one.size for one in paper.trade(-0.1, 1)] == [D("0.5")]


def test_a_post_only_order_that_came_after_such_a_quote_is_canceled() -> None:
    paper = Paper()
    rows = paper.quotes(ask=(-1, 1))
    paper.order("a", "buy", 0, 1, post_only=True)
    assert paper.engine.feed(ticks(rows)) == []
    assert statuses(paper.engine.advance(paper.now_ns)) == [("canceled", 0, 1)]


# -- restarts --------------------------------------------------------------------------


def again(paper: Paper, states: bool = True) -> Paper:
    """The same market after a restart."""
    after = Paper(bid=None, ask=None)
    after.now_ns = paper.now_ns
    orders = paper.engine.orders()
    kept = (
        {one.reqid: paper.engine.state(one.reqid) for one in orders} if states else {}
    )
    markets = {FQME: paper.engine.market_state(FQME)} if states else {}
    kept, markets = json.loads(json.dumps([kept, markets]))
    after.engine.restore(orders, states=kept, markets=markets)
    return after


def test_orders_go_on_after_a_restart_where_they_were() -> None:
    paper = Paper(bid=(-0.1, 3), ask=(0.1, 1))
    paper.order("a", "buy", 0.1, 2)
    paper.order("q", "buy", -0.1, 1, tif="day")
    paper.trade(-0.1, 0.5)
    after = again(paper)
    assert [one.fill_id for one in after.trade(-0.1, 2.5)] == ["a.3"]
    given = after.trade(-0.1, 1.75)
    assert given[0].fill_id == "q.1"
    assert given[0].broker_details["why"] == "a trade at its price, 1 were ahead"
    said = after.engine.expire(after.step())
    assert statuses(said) == [("canceled", D("0.75"), D("0.25"))]


def test_orders_without_a_state_come_last_and_name_no_fill_twice() -> None:
    paper = Paper(bid=(-0.1, 3))
    paper.order("a", "buy", -1, 1)
    paper.trade(-2, 0.25)
    after = again(paper, states=False)
    assert after.trade(-1, 9) == []
    given = after.trade(-2, 0.25)
    assert [one.size for one in given] == [D("0.25")]
    assert given[0].fill_id not in {"a.1"}
    assert after.engine.order("a").filled == D("0.5")  # type: ignore[union-attr]


def test_what_was_taken_before_a_restart_is_not_there_after_it() -> None:
    paper = Paper(ask=(0.1, 1))
    paper.order("a", "buy", 0.1, 1)
    after = again(paper)
    after.engine.prime(FQME, ticks(paper.quotes((-0.1, 5), (0.1, 1))))
    assert took(after.order("b", "buy", 0.1, 1)) == []


def test_the_print_of_what_was_taken_before_a_restart_is_not_given_after_it() -> None:
    paper = Paper(ask=(0.1, 1))
    paper.order("a", "buy", 0.1, 2)
    assert again(paper).trade(0.1, 1) == []


def test_a_quote_that_waits_to_be_taken_is_taken_after_a_restart() -> None:
    paper = Paper()
    rows = paper.quotes(ask=(-1, 1))
    paper.order("a", "buy", 0, 1)
    assert paper.engine.feed(ticks(rows)) == []
    after = again(paper)
    assert after.engine.next_due_ns == paper.now_ns
    assert took(after.engine.advance(paper.now_ns)) == [(1, -1)]


def test_priming_fills_nothing() -> None:
    paper = Paper(bid=None, ask=None)
    paper.order("a", "buy", 0, 1)
    rows = [
        *paper.quotes((-5, 1), (-1, 1)),
        ("trade", float(at(-9)), 1.0, paper.step()),
    ]
    paper.engine.prime(FQME, ticks(rows))
    assert paper.filled("a") == 0
    assert [one.price for one in paper.show(ask=(-1, 2))] == [at(0)]


def test_what_cannot_be_restored_is_refused() -> None:
    paper = Paper()
    paper.order("a", "buy", -1, 1)
    order = paper.engine.orders()[0]
    stranger = msgspec.structs.replace(order, symbol="no.kraken")
    with pytest.raises(OrderError, match=r"order 'a' is of no\.kraken: add_market it"):
        paper.engine.restore([stranger])
    with pytest.raises(OrderError, match=r"the state of order 'a' is none: .*seq"):
        paper.engine.restore([order], states={"a": {"seq": "x"}})
    with pytest.raises(OrderError, match=f"the state of market {FQME} is none"):
        paper.engine.restore([], markets={FQME: {}})
    with pytest.raises(
        ValueError, match=r"market 'no\.kraken' is not there: add_market"
    ):
        paper.engine.prime("no.kraken", ticks([]))
    with pytest.raises(ValueError, match=r"market xbtusd\.kraken is already there"):
        paper.engine.add_market(FQME, price_tick=D(1), size_tick=D(1))


# -- configuration and cost ------------------------------------------------------------


def test_the_configuration_has_a_table_for_it(tmp_path: Any) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[paper]\ntaker_fee = 0.0026\nlatency_s = 0.05\n")
    environ = {"PIKER_CONFIG": str(path), "PIKER_PAPER__MAKER_FEE": "0.0016"}
    config = load_section("paper", PaperConfig, environ=environ)
    assert config == PaperConfig(
        maker_fee=D("0.0016"), taker_fee=D("0.0026"), latency_s=0.05
    )
    path.write_text("[paper]\nlatency_s = -1\n")
    with pytest.raises(ConfigError, match="latency_s"):
        load_section("paper", PaperConfig, environ=environ)


def test_ticks_that_no_order_waits_for_are_not_looked_at_one_by_one() -> None:
    paper = Paper()
    offsets = np.random.default_rng(1).normal(0, 1, 20_000).round(1)
    kinds = ("bid", "ask", "trade")
    rows = [
        (kinds[number % 3], float(at(offset)), 1.0, paper.step())
        for number, offset in enumerate(offsets)
    ]
    paper.engine.feed(ticks(rows))
    paper.order("far", "buy", -50, 1)
    paper.order("high", "sell", 50, 1)
    paper.now_ns += 10**9
    for row in (batch := ticks(rows)):
        row["recv_ns"] = paper.step()
    paper.engine.feed(batch)
    assert paper.engine.statistics()["ticks"] == 40_000
    assert paper.engine.statistics()["examined"] == 0
