"""Which rows a market has: losses, closed sessions, jumps, repairs, batches."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bar_rows import NS, Trade, tick_array
from opened_market import T0, OpenMarket, open_engine

import piker_core as pk
from piker_core.segments import ring_name


@pytest.fixture
def open_market(namespace: str) -> Iterator[OpenMarket]:
    with open_engine(namespace) as opens:
        yield opens


def test_a_loss_that_nobody_recorded_is_one_record_in_every_period(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.trade(5)
    m.market.set_status("stale")
    m.market.set_status("live")
    m.trade(200)
    for period in (1, 60):
        assert m.gaps(period) == [(6, 200, "feed down", 0)]
    assert m.counters["gaps"] == 1
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == list(range(6, 200))
    assert m.having(pk.BarFlag.SYNTHETIC_GAP, 60) == [60, 120]


def test_what_a_providers_record_leaves_uncovered_is_put_on_record(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.trade(5)
    m.market.set_status("reconnecting")
    m.gap(5.5, 10)
    m.market.set_status("live")
    m.trade(20)
    assert m.gaps() == [(5.5, 10, "lost", 0), (10, 20, "feed down", 0)]


def test_rows_since_the_feed_is_whole_again_are_no_placeholders(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.trade(5)
    m.market.set_status("reconnecting")
    m.market.set_status("live", since_ns=(T0 + 9) * NS + 1)
    m.step(130)
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == [6, 7, 8, 9]
    assert m.seconds() == list(range(5, 131))
    assert m.gaps() == [(6, 10, "feed down", 0)]
    assert m.having(pk.BarFlag.SYNTHETIC_GAP, 60) == []


def flat_history(start: int, end: int) -> np.ndarray:
    """Rows of one price, for seconds from T0."""
    history = np.zeros(end - start, pk.OHLCV_DTYPE)
    history["time"] = T0 + np.arange(start, end)
    for name in ("open", "high", "low", "close", "bar_wap"):
        history[name] = 5.0
    return history


@pytest.mark.parametrize("opens_again", ["before history comes", "after it"])
def test_what_was_told_before_a_market_without_rows_closed_has_rows(
    open_market: OpenMarket, opens_again: str
) -> None:
    m = open_market()
    m.market.set_status("live", since_ns=T0 * NS)
    m.step(1)
    m.step(4)  # live, and nothing has traded
    m.market.set_status("closed")
    m.step(6)
    if opens_again == "after it":
        m.market.bars[1].prepend(flat_history(-3, 2))
        assert m.seconds() == list(range(-3, 5))
    m.market.set_status("live", since_ns=(T0 + 8) * NS)
    m.step(9)
    if opens_again == "before history comes":
        m.market.bars[1].prepend(flat_history(-3, 2))
    m.step(11)
    assert m.seconds() == [*range(-3, 5), *range(8, 12)]
    assert m.gaps() == [] and m.having(pk.BarFlag.SYNTHETIC_GAP) == []


def test_what_is_forgotten_of_a_market_without_rows_is_on_record(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    for second in (1, 11):
        m.market.set_status("live", since_ns=(T0 + second) * NS)
        m.step(second + 3)
        m.market.set_status("closed")
    assert m.gaps() == [(1, 5, "feed down", 0)]


def test_a_gap_that_is_repaired_before_there_are_rows_leaves_no_placeholders(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.market.set_status("live", since_ns=T0 * NS)
    m.step(3)
    m.market.set_status("reconnecting")
    m.gap(3.5, 5.5)
    m.market.set_status("live", since_ns=int((T0 + 5.5) * NS))
    m.step(6)
    m.gap(3.5, 5.5, repaired=True)
    m.market.bars[1].prepend(flat_history(-3, 1))
    m.step(8)
    assert m.seconds() == list(range(-3, 9))
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == []
    assert m.gaps() == [(3.5, 5.5, "lost", 1)]


def test_a_feed_that_is_down_right_after_its_first_history_was_live_until_then(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.step(1)
    m.step(7)  # live, and nothing has traded
    m.market.bars[1].prepend(flat_history(0, 5))
    assert m.seconds() == list(range(8))
    m.market.set_status("reconnecting")
    m.gap(8, 10)
    m.market.set_status("live")
    m.step(10)
    assert m.gaps() == [(8, 10, "lost", 0)]
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == [8, 9]
    m.gap(8, 10, repaired=True)
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == []


def test_a_bar_that_a_loss_reaches_into_is_partial_until_it_is_made_good(
    open_market: OpenMarket,
) -> None:
    m = open_market(status=None)
    m.market.set_status("live", since_ns=T0 * NS)
    m.trade(50)
    m.market.set_status("reconnecting")
    m.gap(50.1, 130.5)
    m.market.set_status("live", since_ns=int((T0 + 130.5) * NS))
    m.step(131)
    assert m.having(pk.BarFlag.PARTIAL, 60) == [120]
    assert m.having(pk.BarFlag.SYNTHETIC_GAP, 60) == [60]
    m.gap(50.1, 130.5, repaired=True)
    assert m.having(pk.BarFlag.PARTIAL, 60) == []
    assert m.having(pk.BarFlag.REPAIRED, 60) == [60, 120]
    assert m.having(pk.BarFlag.REPAIRED) == list(range(51, 131))


@pytest.mark.parametrize("by_clock", [True, False])
def test_the_first_bar_is_partial_where_the_feed_begins_in_its_middle(
    open_market: OpenMarket, by_clock: bool
) -> None:
    m = open_market(status=None)
    for period, ring in m.market.bars.items():
        history = np.zeros(1, pk.OHLCV_DTYPE)
        history["time"] = T0 - period
        for name in ("open", "high", "low", "close", "bar_wap"):
            history[name] = 5.0
        ring.prepend(history)
    m.market.set_status("live", since_ns=None if by_clock else (T0 + 30) * NS)
    if by_clock:
        m.step(30)
    m.trade(30.5)
    assert m.having(pk.BarFlag.PARTIAL, 60) == [0]
    assert m.having(pk.BarFlag.PARTIAL) == []
    m.step(61)
    assert m.having(pk.BarFlag.PARTIAL, 60) == [0]


def test_a_placeholder_stays_one_until_its_record_is_closed(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.trade(0)
    m.market.set_status("reconnecting")
    m.gap(1, 9)
    m.market.set_status("live")
    m.trade(9)
    m.trade(4, 99.0)
    assert 4 in m.having(pk.BarFlag.SYNTHETIC_GAP)
    assert m.having(pk.BarFlag.REPAIRED) == []
    m.gap(1, 9, repaired=True)
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == []
    assert m.having(pk.BarFlag.REPAIRED) == list(range(1, 9))
    assert m.rows()["close"].tolist() == [100.0] * 4 + [99.0] * 5 + [100.0]


def test_what_was_told_before_a_loss_is_not_lost_though_no_step_said_so(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.trade(3.5)
    m.market.set_status("reconnecting")
    m.gap(6.5, 10.5)
    m.market.set_status("live")
    m.trade(11.2)
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == [6, 7, 8, 9, 10]
    m.trade(7.2)
    m.gap(6.5, 10.5, repaired=True)
    assert m.gaps() == [(6.5, 10.5, "lost", 1)]
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == []
    assert m.having(pk.BarFlag.REPAIRED) == [6, 7, 8, 9, 10]


def test_a_gap_closed_before_its_rows_exist_leaves_no_placeholders(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.trade(0.2)
    m.market.set_status("reconnecting")
    m.gap(0.4, 4.05)
    m.market.set_status("live")
    m.trade(2.3)
    m.gap(0.4, 4.05, repaired=True)
    assert m.seconds() == [0, 1, 2, 3]
    m.market.set_status("reconnecting")
    m.gap(4.3, 10)
    m.market.set_status("live")
    m.trade(10.5)
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == [4, 5, 6, 7, 8, 9]
    m.gap(4.3, 10, repaired=True)
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == []
    assert m.having(pk.BarFlag.REPAIRED) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_what_the_engine_noted_is_repaired_with_the_record_that_covers_it(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.trade(0)
    m.market.set_status("reconnecting")
    m.gap(1, 3)
    m.market.set_status("live")
    m.trade(9)
    assert m.gaps() == [(1, 3, "lost", 0), (3, 9, "feed down", 0)]
    m.gap(1, 9)
    m.gap(1, 9, repaired=True)
    assert m.gaps() == [(1, 9, "lost", 1), (3, 9, "feed down", 1)]


def test_the_engine_notes_only_what_no_record_touches(open_market: OpenMarket) -> None:
    m = open_market()
    m.trade(0)
    m.market.set_status("stale")
    m.market.set_status("live")
    m.gap(4.5, 6)
    m.trade(9)
    assert m.gaps() == [
        (4.5, 6, "lost", 0),
        (1, 4, "feed down", 0),
        (6, 9, "feed down", 0),
    ]


def test_rows_that_trades_of_a_repair_opened_or_ended_are_repaired(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.trade(0.2)
    m.market.set_status("reconnecting")
    m.gap(0.5, 5.5)
    m.market.set_status("live")
    m.trade(0.7)
    m.trade(2.3)
    m.trade(5.2)
    m.gap(0.5, 5.5, repaired=True)
    m.trade(5.6)
    m.trade(6.1)
    assert m.having(pk.BarFlag.REPAIRED) == [0, 1, 2, 3, 4, 5]


def test_a_market_that_is_live_again_since_a_known_time_has_rows_from_then_on(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.trade(0.2)
    m.step(1)
    m.market.set_status("closed")
    m.market.set_status("live", since_ns=int((T0 + 4.9) * NS))
    m.step(6)
    m.trade(5.95, 99.0)
    m.trade(4.95, 98.0)
    assert m.seconds() == [0, 1, 4, 5, 6] and m.counters["unplaced"] == 0
    assert m.rows()["close"].tolist() == [100.0, 100.0, 98.0, 99.0, 99.0]
    assert m.having(pk.BarFlag.PARTIAL) == [0]
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == []


def test_rows_of_another_loss_stay_placeholders(open_market: OpenMarket) -> None:
    m = open_market()
    m.trade(50)
    m.market.set_status("reconnecting")
    m.gap(50.5, 70)
    m.gap(90, 130)
    m.market.set_status("live", since_ns=(T0 + 130) * NS)
    m.trade(130)
    m.gap(50.5, 70, repaired=True)
    assert m.having(pk.BarFlag.SYNTHETIC_GAP, 60) == [60]
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == list(range(70, 130))
    m.gap(90, 130, repaired=True)
    assert m.having(pk.BarFlag.SYNTHETIC_GAP, 60) == []


def test_a_loss_without_a_trade_repaired_before_the_next_row_gets_its_rows(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.trade(0)
    m.market.set_status("reconnecting")
    m.gap(0.5, 5.5)
    m.market.set_status("live")
    m.gap(0.5, 5.5, repaired=True)
    assert m.seconds() == [0, 1, 2, 3, 4]
    assert m.having(pk.BarFlag.REPAIRED) == [1, 2, 3, 4]
    m.step(8)
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == []
    assert m.gaps() == [(0.5, 5.5, "lost", 1)] and m.seconds() == list(range(9))


def test_rows_of_an_open_gap_are_placeholders_also_after_its_first_trade(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.trade(0)
    m.market.set_status("reconnecting")
    m.gap(0.5, 5.5)
    m.market.set_status("live")
    m.trade(2, 99.0)
    m.trade(8, 98.0)
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == [1, 3, 4, 5]
    m.trade(4, 97.0)
    m.gap(0.5, 5.5, repaired=True)
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == []
    closes = [100.0, 100.0, 99.0, 99.0, 97.0, 97.0, 97.0, 97.0, 98.0]
    assert m.rows()["close"].tolist() == closes


def test_a_loss_on_record_is_all_that_is_lost_before_a_closed_session(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.trade(0)
    m.market.set_status("reconnecting")
    m.gap(0.5, 3)
    m.market.set_status("closed")
    m.market.set_status("live")
    m.trade(90)
    assert m.seconds() == [0, 1, 2, 90]
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == [1, 2]
    assert m.gaps() == [(0.5, 3, "lost", 0)]


def test_a_loss_that_is_not_on_record_is_not_over_because_the_session_is(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.trade(0)
    m.market.set_status("stale")
    m.market.set_status("closed")
    m.market.set_status("live")
    m.trade(9)
    assert m.gaps() == [(1, 9, "feed down", 0)]


def test_a_loss_that_ended_in_the_newest_row_is_over_in_a_closed_session(
    open_market: OpenMarket,
) -> None:
    m = open_market()
    m.trade(0)
    m.market.set_status("reconnecting")
    m.gap(0.25, 0.75)
    m.market.set_status("live", since_ns=int((T0 + 0.75) * NS))
    m.market.set_status("closed")
    m.market.set_status("live", since_ns=(T0 + 20) * NS)
    m.step(21)
    assert m.seconds() == [0, 20, 21]
    assert [cause for _, _, cause, _ in m.gaps()] == ["lost"]


def test_without_flat_rows_only_a_gap_under_repair_has_placeholders(
    open_market: OpenMarket,
) -> None:
    m = open_market(fill="none")
    m.trade(0)
    m.market.set_status("reconnecting")
    m.gap(500, 503)
    m.market.set_status("live")
    m.trade(600)
    assert m.seconds() == [0, 500, 501, 502, 600]
    m.trade(501.5)
    m.trade(400)
    assert m.counters["unplaced"] == 1 and m.rows()["count"].tolist() == [1, 0, 1, 0, 1]


def test_of_more_open_gaps_than_fit_the_oldest_is_given_up(
    open_market: OpenMarket,
) -> None:
    m = open_market(capacity={1: 4096, 60: 256})
    m.trade(0)
    for start in range(0, 330, 10):
        m.gap(start + 1, start + 2)
    m.step(3000)
    m.trade(1.5, 1.0)
    m.trade(11.5, 1.0)
    assert m.counters["late_inexact"] == 1
    assert len(m.gaps()) == 33 and m.counters["gaps"] == 33


def test_one_jump_of_the_clock_makes_at_most_a_ring_of_rows_and_a_record(
    open_market: OpenMarket,
) -> None:
    m = open_market(periods=(1, 60), capacity={1: 256, 60: 256})
    m.trade(0)
    m.step(7200)
    rows = m.bars[1].capacity
    assert m.seconds() == list(range(7201 - rows, 7201))
    assert m.gaps() == [(1, 7201 - rows, "clock jump", 0)]
    assert m.gaps(60) == [] and m.seconds(60) == list(range(0, 7201, 60))


def test_flags_do_not_show_how_trades_were_batched(open_market: OpenMarket) -> None:
    late = [(3, 99.0), (5, 100.0), (5.5, 98.0), (7, 97.0), (8, 98.0)]
    images = []
    for number, batched in enumerate((True, False)):
        m = open_market(f"pair{number}")
        m.trade(0)
        m.step(20)
        trades = [Trade(int((T0 + s) * NS), price, 1.0) for s, price in late]
        for part in [trades] if batched else [[trade] for trade in trades]:
            m.engine.push_ticks(m.market, tick_array(part))
        images.append(m.rows().tobytes())
    assert images[0] == images[1]


def test_a_batch_into_a_long_quiet_stretch_rewrites_it_once(
    open_market: OpenMarket, namespace: str
) -> None:
    m = open_market(periods=(1,))
    m.trade(0)
    m.step(3000)
    path = Path("/dev/shm") / ring_name(namespace, "kraken", m.market.fqme, 1)

    def row_writes() -> int:
        return int.from_bytes(path.read_bytes()[1288:1296], "little")

    before = row_writes()
    trades = [Trade((T0 + s) * NS, 50.0 + s, 1.0) for s in range(2500, 3000, 2)]
    assert m.engine.push_ticks(m.market, tick_array(trades)) == 250
    assert row_writes() - before <= 500 + 1
    assert m.rows()["close"][-3:].tolist() == [3048.0, 3048.0, 3048.0]


def test_markets_of_one_engine_keep_to_themselves(open_market: OpenMarket) -> None:
    a, b = open_market("xbtusd"), open_market("ethusd")
    a.trade(0, 5.0)
    b.trade(0, 7.0)
    a.trade(1, 6.0)
    b.market.set_status("stale")
    a.step(3)
    assert a.rows()["close"].tolist() == [5.0, 6.0, 6.0, 6.0]
    assert b.rows()["close"].tolist() == [7.0]
    assert a.counters["ticks"] == 2 and b.counters["ticks"] == 1
    assert (a.market.last_id, b.market.last_id) == (2, 1)
    assert (a.market.id, b.market.id) == (0, 1)


def test_the_newest_trade_is_the_last_in_venue_order(open_market: OpenMarket) -> None:
    m = open_market()
    for second, price, trade_id in ((3, 1.0, 8), (3, 2.0, 7), (2, 3.0, 9)):
        m.engine.push_trade(m.market, (T0 + second) * NS, price, 1.0, trade_id)
    newest = m.market.last_time_ns, m.market.last_id, m.market.last_price
    assert newest == ((T0 + 3) * NS, 8, 1.0)


def test_the_clock_makes_placeholders_of_a_gap_on_record_without_flat_rows_too(
    open_market: OpenMarket,
) -> None:
    m = open_market(fill="none")
    m.trade(5)
    m.gap(6, 9)
    m.step(12)
    assert m.seconds() == [5, 6, 7, 8]
    assert m.having(pk.BarFlag.SYNTHETIC_GAP) == [6, 7, 8]
    m.step(13)
    assert m.seconds() == [5, 6, 7, 8]
