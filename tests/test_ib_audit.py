"""Trades told one by one against the growth of the volume."""

import time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import piker_core as pk
from providers.ib.audit import IDLE_S, VAIN_MOST, Audit
from providers.ib.hours import Hours
from providers.ib.market_feed import MarketFeed
from providers.ib.tape import Tape
from tests.ib_listing import FUTURE

S = 10**9
IDLE = int(IDLE_S * S)
D = Decimal


def rested(audit: Audit, at_ns: int) -> int:
    return audit.look(at_ns + IDLE)


def test_volume_that_grows_as_trades_are_told_is_no_loss() -> None:
    audit = Audit()
    audit.grow(D(5), 1 * S)
    assert rested(audit, 1 * S) == 0
    for second in range(2, 9):
        audit.tell(second, 9.0, D(3), second * S)
        assert audit.look(second * S + 1000) == 0  # the volume comes later
        audit.grow(D(3), second * S + 250_000_000)
        assert rested(audit, second * S + 250_000_000) == 0


def test_volume_that_grows_by_more_is_a_loss_since_the_last_rest() -> None:
    audit = Audit()
    audit.grow(D(5), 1 * S)
    rested(audit, 1 * S)
    good_ns = 1 * S + IDLE
    audit.tell(5, 9.0, D(3), 5 * S)
    audit.grow(D(4), 5 * S)
    assert rested(audit, 5 * S) == good_ns
    assert rested(audit, 6 * S) == 0  # said once


def test_more_told_than_the_volume_knows_is_no_loss() -> None:
    audit = Audit()
    rested(audit, 1 * S)
    audit.tell(5, 9.0, D(3), 5 * S)
    assert rested(audit, 5 * S) == 0
    audit.grow(D(3), 7 * S)
    assert rested(audit, 7 * S) > 0  # one of them was told twice: look


def test_another_subscription_begins_anew() -> None:
    audit = Audit()
    rested(audit, 1 * S)
    audit.grow(D(100), 2 * S)
    audit.begin(3 * S)
    audit.grow(D(7), 3 * S)  # it was traded before
    assert rested(audit, 4 * S) == 0
    audit.grow(D(1), 6 * S)
    assert rested(audit, 6 * S) > 0


def test_audits_that_find_nothing_end() -> None:
    audit = Audit()
    rested(audit, 1 * S)
    for turn in range(1, VAIN_MOST + 1):
        assert audit.trusted
        audit.grow(D(1), 5 * turn * S)
        assert rested(audit, 5 * turn * S)
        audit.judge(0)
    audit.grow(D(1), 90 * S)
    assert rested(audit, 90 * S) == 0 and not audit.trusted


async def take_none(quote: dict[str, Any]) -> bool:
    raise AssertionError(f"{quote} was pushed")


def test_gaps_whose_trades_another_one_has_found_were_not_in_vain(
    namespace: str,
) -> None:
    now_ns = time.time_ns()
    with pk.open_engine("ib", tick_capacity=1024) as engine:
        handle = engine.add_market(f"{FUTURE.symbol}.ib")
        hours = Hours({}, ZoneInfo("UTC"))
        market = MarketFeed(
            FUTURE.symbol, FUTURE, handle, take_none, Tape(FUTURE), hours
        )
        for number in range(VAIN_MOST + 1):
            market.open_audit_gap(now_ns - 2 * S + number, now_ns)
        first, *others = market.gaps
        first.found = 3
        for gap in (first, *others):
            market.close_gap(gap)
        assert market.missed == 3 and market.tape.audit.trusted
        for number in range(VAIN_MOST):
            market.open_audit_gap(now_ns + number, now_ns + S)
            market.close_gap(market.gaps[0])
        assert not market.tape.audit.trusted


class Busy:
    """Ten trades a second, each told with the total volume."""

    def __init__(self) -> None:
        self.audit = Audit()
        self.volume = D(5000)
        self.audit.begin(0)

    def trade(self, first_s: int, trades: int, *, lost: int = -1) -> list[int]:
        """So many of them, all told but one; since when they were said to be lost."""
        found = []
        for number in range(trades):
            now_ns = first_s * S + number * S // 10
            trade = (now_ns // S, 9.0 + number % 3, D(1 + number % 2))
            self.volume += trade[2]
            self.audit.grow(trade[2], now_ns)
            if number != lost:
                self.audit.tell(*trade, now_ns)
            self.audit.marks.mark(*trade, self.volume, now_ns)
            found.append(self.audit.look(now_ns))
        return [since_ns for since_ns in found if since_ns]


def test_a_loss_is_found_though_trading_never_rests() -> None:
    busy = Busy()
    assert busy.trade(10, 40) == []
    (since_ns,) = busy.trade(14, 60, lost=20)
    assert 14 * S < since_ns < 16 * S
    assert busy.trade(20, 40) == []


def test_what_was_lost_between_subscriptions_is_not_for_marks_to_say() -> None:
    busy = Busy()
    assert busy.trade(10, 40) == []
    busy.audit.begin(14 * S)
    busy.volume += 77
    assert busy.trade(14, 40) == []


def test_a_loss_that_one_of_the_two_has_found_is_not_found_by_the_other() -> None:
    busy = Busy()
    busy.trade(10, 40)
    assert rested(busy.audit, 15 * S) == 0
    assert len(busy.trade(20, 60, lost=5)) == 1
    assert rested(busy.audit, 30 * S) == 0
    busy.audit.grow(D(1), 31 * S)
    busy.volume += 1
    assert rested(busy.audit, 32 * S) > 0
    assert busy.trade(40, 60) == []
