"""Trades told one by one against the growth of the volume."""

from decimal import Decimal

from providers.ib.audit import IDLE_S, Audit

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
        audit.tell(D(3), second * S)
        assert audit.look(second * S + 1000) == 0  # the volume comes later
        audit.grow(D(3), second * S + 250_000_000)
        assert rested(audit, second * S + 250_000_000) == 0


def test_volume_that_grows_by_more_is_a_loss_since_the_last_rest() -> None:
    audit = Audit()
    audit.grow(D(5), 1 * S)
    rested(audit, 1 * S)
    good_ns = 1 * S + IDLE
    audit.tell(D(3), 5 * S)
    audit.grow(D(4), 5 * S)
    assert rested(audit, 5 * S) == good_ns
    assert rested(audit, 6 * S) == 0  # said once


def test_more_told_than_the_volume_knows_is_no_loss() -> None:
    audit = Audit()
    rested(audit, 1 * S)
    audit.tell(D(3), 5 * S)
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
    for second in (5, 9):
        audit.grow(D(1), second * S)
        assert rested(audit, second * S)
        audit.judge(0)
    audit.grow(D(1), 15 * S)
    assert rested(audit, 15 * S) == 0 and not audit.trusted
