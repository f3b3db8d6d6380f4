"""Which rows a market has whose sessions are known: nights, losses, restarts."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bar_rows import NS, Trade, tick_array
from opened_market import T0, OpenMarket, open_engine, spans

import piker_core as pk

NIGHT = spans((0, 120), (50_000, 50_120))
GAP = pk.BarFlag.SYNTHETIC_GAP


@pytest.fixture
def open_market(namespace: str) -> Iterator[OpenMarket]:
    with open_engine(namespace) as opens:
        yield opens


def test_a_clock_that_is_on_time_makes_no_row_while_the_session_is_closed(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=NIGHT)
    m.trade(118.5)
    for second in (118, 119, 120, 121, 3000, 49_999):
        m.step(second)
    assert m.seconds() == [118, 119]
    m.step(50_000)
    m.step(50_001)
    assert m.seconds() == [118, 119, 50_000, 50_001]
    assert m.seconds(60) == [60, 49_980]
    assert m.gaps() == m.gaps(60) == []


def test_one_step_over_a_whole_night_makes_the_rows_of_both_sessions_alone(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=NIGHT)
    m.trade(115.5)
    m.step(50_003)
    assert m.seconds() == [*range(115, 120), *range(50_000, 50_004)]
    assert m.seconds(60) == [60, 49_980]
    assert (m.rows()["close"] == 100.0).all()
    assert m.gaps() == m.gaps(60) == []
    assert m.counters["flat_rows"] == 9
    assert m.having(GAP) == []


def test_status_is_closed_between_the_sessions_and_readers_are_told_at_the_boundary(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=NIGHT)
    m.trade(1)
    told = []
    for second in (119, 119.999, 120, 49_999, 50_000, 60_000):
        m.step(second)
        told.append(m.market.status)
        assert {bars.status for bars in m.bars.values()} == {m.market.status}
    assert told == ["live", "live", "closed", "closed", "live", "closed"]
    assert m.market.feed_status == "live"


def test_what_the_feed_does_meanwhile_shows_when_the_session_opens(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=NIGHT)
    m.market.set_status("live", since_ns=T0 * NS)
    m.trade(119.5)
    m.step(130)
    m.market.set_status("stale", reason="no heartbeat")
    assert (m.market.status, m.bars[1].status_reason) == ("closed", "")
    assert m.market.feed_status == "stale"
    m.step(50_000)
    assert (m.market.status, m.bars[1].status_reason) == ("stale", "no heartbeat")


def test_a_market_that_has_not_started_or_has_stopped_is_not_called_closed(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=NIGHT, status=None)
    m.step(200)
    assert m.market.status == "starting"
    m.market.set_status("live")
    assert m.market.status == "closed"
    m.market.set_status("stopped")
    assert m.market.status == "stopped"


def test_whoever_waits_is_woken_when_the_session_closes(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=NIGHT)
    m.trade(119.5)
    path = Path("/dev/shm") / m.ring_file(1)

    def turns() -> int:  # what sleepers sleep on
        page = path.read_bytes()[4096:4104]
        return int.from_bytes(page[4:], "little")

    before = turns()
    m.step(120)
    assert turns() == before + 1
    m.step(121)
    assert turns() == before + 1


def test_the_first_trade_of_a_session_may_come_before_the_clock(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=NIGHT)
    m.trade(119)
    m.step(120)
    m.trade(50_002.5, 101.0)
    m.step(50_003)
    assert m.seconds() == [119, 50_000, 50_001, 50_002, 50_003]
    assert m.rows()["count"].tolist() == [1, 0, 0, 1, 0]


def test_a_trade_out_of_hours_makes_its_row_and_nothing_else(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=NIGHT)
    m.trade(119)
    m.step(120)
    m.trade(700.5, 99.0)
    m.step(701)
    m.step(9000)
    assert m.seconds() == [119, 700]
    assert m.seconds(60) == [60, 660]
    assert m.market.status == "closed"
    m.step(50_001)
    assert m.seconds() == [119, 700, 50_000, 50_001]
    assert m.rows()["close"].tolist() == [100.0, 99.0, 99.0, 99.0]
    assert m.rows(60)["open"].tolist() == [100.0, 99.0, 99.0]
    assert m.gaps() == []


def test_a_batch_over_a_night_is_as_its_trades_one_by_one(
    open_market: OpenMarket,
) -> None:
    images = []
    for number, batched in enumerate((True, False)):
        m = open_market(f"pair{number}", sessions=NIGHT)
        times = (1, 118, 300, 301, 50_003, 50_119, 70_000)
        trades = [Trade((T0 + s) * NS + 1, 5.0 + s, 1.0) for s in times]
        for part in [trades] if batched else [[trade] for trade in trades]:
            m.engine.push_ticks(m.market, tick_array(part))
        images.append((m.rows().tobytes(), m.rows(60).tobytes()))
        assert m.seconds()[-1] == 70_000 and len(m.rows()) == 119 + 2 + 120 + 1
    assert images[0] == images[1]


def test_pages_are_reserved_for_the_rows_that_come_not_for_the_night(
    open_market: OpenMarket,
) -> None:
    capacity = {1: 100_000, 60: 256}
    m = open_market(sessions=NIGHT, capacity=capacity)
    m.trade(119)
    path = Path("/dev/shm") / m.ring_file(1)
    before = path.stat().st_blocks
    m.step(50_010)
    assert len(m.rows()) == 12
    assert path.stat().st_blocks - before < 200


def test_a_feed_that_was_down_at_night_alone_has_lost_nothing(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=NIGHT)
    m.trade(119.5)
    m.step(121)
    m.market.set_status("reconnecting")
    m.step(10_000)
    m.market.set_status("live", since_ns=(T0 + 20_000) * NS + 1)
    m.step(20_001)
    m.step(50_002)
    assert m.seconds() == [119, 50_000, 50_001, 50_002]
    assert m.gaps() == m.gaps(60) == []
    assert m.having(GAP) == m.having(GAP, 60) == []
    assert m.having(pk.BarFlag.PARTIAL)[1:] == []


def test_a_loss_over_two_sessions_is_on_record_for_what_was_open(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=NIGHT)
    m.trade(100.5)
    m.market.set_status("reconnecting")
    m.market.set_status("live", since_ns=(T0 + 50_010) * NS)
    m.step(50_012)
    lost = [(101, 120, "feed down", 0), (50_000, 50_010, "feed down", 0)]
    assert m.gaps() == m.gaps(60) == lost
    assert m.having(GAP) == [*range(101, 120), *range(50_000, 50_010)]
    assert m.seconds() == [*range(100, 120), *range(50_000, 50_013)]
    assert m.counters["gaps"] == 2


def test_a_providers_record_over_a_night_makes_placeholders_of_open_time_alone(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=NIGHT)
    m.trade(110.5)
    m.market.set_status("reconnecting")
    m.gap(110.5, 50_005)
    m.market.set_status("live", since_ns=(T0 + 50_005) * NS)
    m.step(50_006)
    gone = [*range(111, 120), *range(50_000, 50_005)]
    assert m.having(GAP) == gone
    assert m.gaps() == [(110.5, 50_005, "lost", 0)]
    m.trade(50_001.5, 77.0)
    m.gap(110.5, 50_005, repaired=True)
    assert m.having(GAP) == []
    assert m.having(pk.BarFlag.REPAIRED) == gone
    assert m.rows()["close"][-1] == 77.0


def test_a_writer_that_was_away_for_the_night_has_lost_nothing(namespace: str) -> None:
    with open_engine(namespace) as opens:
        m = opens(sessions=NIGHT)
        m.trade(119.5)
        m.step(120)
    with open_engine(namespace) as opens:
        m = opens(sessions=NIGHT, status=None)
        m.market.set_status("live", since_ns=(T0 + 49_000) * NS)
        m.step(50_000)
    with open_engine(namespace) as opens:
        m = opens(sessions=NIGHT, status=None)
        assert m.seconds() == [119, 50_000]
        assert m.gaps() == m.gaps(60) == []


def test_a_bar_is_partial_only_if_the_feed_began_after_the_session_in_it(
    open_market: OpenMarket,
) -> None:
    late_open = spans((90, 400))
    for number, (since, partial) in enumerate(((80, []), (95, [60]))):
        m = open_market(f"pair{number}", sessions=late_open, status=None)
        m.market.set_status("live", since_ns=(T0 + since) * NS)
        m.trade(100.5)
        assert m.having(pk.BarFlag.PARTIAL, 60) == partial
    m = open_market("pair9", sessions=late_open, status=None)
    m.market.set_status("live", since_ns=(T0 + 30) * NS)
    m.trade(20.5)  # out of hours, and before the feed was whole
    assert m.having(pk.BarFlag.PARTIAL) == [20]
    assert m.having(pk.BarFlag.PARTIAL, 60) == [0]


def test_a_bar_whose_session_begins_after_the_loss_is_not_lost(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=spans((0, 60), (90, 400)))
    m.trade(59.5)
    m.market.set_status("reconnecting")
    m.market.set_status("live", since_ns=(T0 + 80) * NS)
    m.step(200)
    assert m.having(GAP, 60) == m.having(GAP) == []
    assert m.gaps() == m.gaps(60) == []
    assert m.seconds(60) == [0, 60, 120, 180]


def test_the_row_of_a_bar_comes_when_its_session_opens(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=spans((0, 60), (90.5, 400)))
    m.trade(59.5)
    for second, minutes in ((60, [0]), (90, [0]), (91, [0, 60])):
        m.step(second)
        assert m.seconds(60) == minutes
    assert m.seconds() == [59, 90, 91]


def test_two_sessions_in_one_bar_make_one_row_and_one_record(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=spans((0, 130.25), (130.5, 130.75), (131, 200)))
    m.trade(5)
    m.step(150)
    assert m.seconds() == list(range(5, 151))
    m.market.set_status("stale")
    m.market.set_status("live", since_ns=(T0 + 190) * NS)
    m.step(195)
    assert m.gaps() == [(151, 190, "feed down", 0)]


def test_a_market_that_its_venue_closes_too_has_no_rows_for_the_time(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=NIGHT)
    m.trade(80)
    m.step(85)
    m.market.set_status("closed")
    m.step(110)
    m.market.set_status("live")
    m.step(130)
    m.step(50_002)
    assert m.seconds() == [*range(80, 86), 50_000, 50_001, 50_002]
    assert m.gaps() == []


def test_a_jump_of_more_open_time_than_the_ring_has_is_a_gap_of_open_time(
    open_market: OpenMarket,
) -> None:
    m = open_market(sessions=spans((0, 500), (5000, 5200)), capacity={1: 256, 60: 256})
    m.trade(0)
    m.step(5100)
    rows = m.bars[1].capacity
    assert len(m.rows()) == rows
    first = 500 - (rows - 101)
    assert m.seconds() == [*range(first, 500), *range(5000, 5101)]
    assert m.gaps() == [(1, first, "clock jump", 0)]


def test_without_flat_rows_sessions_say_what_is_a_loss(open_market: OpenMarket) -> None:
    m = open_market(sessions=NIGHT, fill="none")
    m.trade(100)
    m.market.set_status("reconnecting")
    m.market.set_status("live", since_ns=(T0 + 49_000) * NS)
    m.trade(50_001)
    assert m.seconds() == [100, 50_001]
    assert m.gaps() == [(101, 120, "feed down", 0)]


@pytest.mark.parametrize("period", [1, 60])
def test_bars_of_trades_at_rest_have_the_rows_that_the_engine_makes(
    open_market: OpenMarket, period: int
) -> None:
    hours = spans((0, 120), (300.5, 410), (411, 500), (900, 1000))
    chance = random.Random(5)
    times = sorted(chance.randrange(0, 1100 * NS) for _ in range(12))
    trades = [Trade(T0 * NS + t, 90.0 + chance.random(), 0.25) for t in times]
    ticks = tick_array(trades)
    m = open_market(sessions=hours)
    m.engine.push_ticks(m.market, ticks)
    live, rest = m.rows(period), pk.fold_ticks(ticks, period, sessions=hours)
    for name in ("time", "open", "high", "low", "close", "volume", "count", "bar_wap"):
        assert live[name].tolist() == rest[name].tolist()
    assert len(rest) < len(pk.fold_ticks(ticks, period))
    assert len(pk.fold_ticks(ticks, 1, sessions=[])) == len({t // NS for t in times})


def test_sessions_can_change_while_the_market_runs(open_market: OpenMarket) -> None:
    m = open_market()
    m.trade(0)
    m.step(3)
    m.market.set_sessions(spans((0, 3), (10, 12)))
    assert m.market.status == "closed"
    m.step(11)
    assert (m.market.status, m.seconds()) == ("live", [0, 1, 2, 3, 10, 11])
    m.market.set_sessions([])  # closed for good
    m.step(20)
    assert (m.market.status, m.seconds()[-1]) == ("closed", 11)
    m.market.set_sessions(None)
    assert m.market.status == "live"
    m.step(21)
    assert m.seconds()[-10:] == list(range(12, 22))


def test_arrays_of_the_calendars_kind_are_taken(open_market: OpenMarket) -> None:
    m = open_market(sessions=np.array(NIGHT, np.int64))
    m.trade(119)
    m.step(200)
    assert m.seconds() == [119]
    m.market.set_sessions(np.array(NIGHT, np.int64)[::-1][::-1])


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ([(5, 5)], ValueError),
        ([(5, 4)], ValueError),
        ([(5, 9), (8, 12)], ValueError),
        ([(5, 9), (1, 2)], ValueError),
        ([(5, 2**64 - 1)], TypeError),
        ([5, 9], TypeError),
        ([(5, 9, 11)], TypeError),
        ([(0.5, 9.0)], TypeError),
        ("always", TypeError),
        ([("a", "b")], TypeError),
    ],
)
def test_what_are_no_sessions_is_refused_and_nothing_changes(
    open_market: OpenMarket, bad: Any, kind: type[Exception]
) -> None:
    m = open_market(sessions=NIGHT)
    with pytest.raises(kind, match="sessions"):
        m.market.set_sessions(bad)
    with pytest.raises(kind, match="sessions"):
        m.engine.add_market("ethusd.kraken", sessions=bad)
    m.trade(119)
    m.step(200)
    assert m.seconds() == [119]


def test_an_engine_that_is_closed_takes_no_sessions(open_market: OpenMarket) -> None:
    m = open_market(sessions=NIGHT)
    m.step(200)
    m.engine.close()
    assert m.market.status == "stopped"
    with pytest.raises(pk.PikerError, match="closed"):
        m.market.set_sessions(None)
