"""The simulated gateway keeps trading hours in its trades, bars and texts."""

import time
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from ib_venue_client import AAPL, NEW, Client, folded, open_client, shown, utc

from providers.ib.venue import HistoryLimits, VenueTrade, open_venue

NEVER = HistoryLimits(requests=10**6, same=10**6, identical_s=0)
DAY_S = 86_400


async def test_hours_are_kept_in_trades_bars_and_texts() -> None:
    async with open_venue(
        seed=9, contracts=["AAPL"], history_s=10 * DAY_S, live_rate=1,
        history_rate=0.04, keep_hours=True, server_version=NEW, history_limits=NEVER,
    ) as venue:  # fmt: skip
        hours = venue.market("AAPL").hours
        trades = venue.trades("AAPL")
        assert all(hours.at(row.time_ns // 10**9) for row in trades)
        async with open_client(venue) as client:
            (details,) = await client.details(1, AAPL)
            days = details[26].split(";")
            assert any(day.endswith(":CLOSED") for day in days)
            assert any(":0400-" in day and day.endswith(":2000") for day in days)
            for rth in (False, True):
                asked: dict[str, Any] = {"step": "1 hour", "duration": "1 W"}
                rows = await client.bars(2, AAPL, rth=rth, **asked)
                begins = [int(row[0]) for row in rows]
                assert all(hours.at(begin_s, rth) for begin_s in begins)
                local = {
                    f"{datetime.fromtimestamp(each, ZoneInfo('US/Eastern')):%H:%M}"
                    for each in begins
                }
                assert ("09:30" in local) == rth
                assert ("04:00" in local) != rth
            await check_days(client, trades, hours)


async def check_days(client: Client, trades: list[VenueTrade], hours: Any) -> None:
    """Bars of whole days and of liquid hours are folded from their trades."""
    rows = await client.bars(3, AAPL, step="1 day", duration="1 W")
    liquid = await client.bars(4, AAPL, step="1 day", duration="1 W", rth=True)
    for shown_rows, rth in ((rows, False), (liquid, True)):
        assert 4 <= len(shown_rows) <= 6
        for row in shown_rows[1:-1]:
            day = datetime.strptime(row[0], "%Y%m%d").date()
            (session,) = hours.day_sessions(day, rth)
            inside = [
                trade
                for trade in trades
                if session.begin_s <= trade.time_ns / 10**9 < session.end_s
            ]
            (bar,) = folded(inside, 10**10).values()
            assert shown(row) == bar
    weeks = await client.bars(5, AAPL, step="1W", duration="3 W")
    volume = sum((trade.exact_size for trade in trades), Decimal(0))
    assert sum(Decimal(row[5]) for row in weeks) == volume
    assert 2 <= len(weeks) <= 3
    (month, *_) = await client.bars(6, AAPL, step="1M", duration="1 M")
    assert Decimal(month[1]) == trades[0].exact_price


async def test_a_span_in_seconds_counts_trading_seconds() -> None:
    async with open_venue(
        seed=9, contracts=["AAPL"], history_s=8 * DAY_S, live_rate=0,
        history_rate=0.1, keep_hours=True, server_version=NEW,
    ) as venue:  # fmt: skip
        hours = venue.market("AAPL").hours
        session = hours.before(int(time.time()), True, 2)[0]
        end_s = session.begin_s + 600
        async with open_client(venue) as client:
            rows = await client.bars(4, AAPL, end=utc(end_s), rth=True)
        begins = [int(row[0]) for row in rows]
    assert len(begins) == 30
    assert begins[-10:] == list(range(session.begin_s, end_s, 60))
    before = hours.before(session.begin_s, True, 1)[0]
    assert begins[:20] == list(range(before.end_s - 1200, before.end_s, 60))


async def test_bars_of_an_open_market_do_not_break_at_midnight() -> None:
    async with open_venue(
        seed=9, contracts=["AAPL"], history_s=2 * DAY_S, live_rate=0,
        history_rate=0.2, server_version=NEW,
    ) as venue:  # fmt: skip
        async with open_client(venue) as client:
            rows = await client.bars(4, AAPL, step="4 hours", duration="2 D")
        begins = [int(row[0]) for row in rows]
        truth = folded(venue.trades("AAPL"), 4 * 3600)
        candles = venue.candles("AAPL", 4 * 3600, begins[1], begins[-1])
    assert begins == list(range(begins[0], begins[-1] + 1, 4 * 3600))
    assert begins[0] % (4 * 3600) == 0
    assert [shown(row) for row in rows[1:]] == [truth[each] for each in begins[1:]]
    assert [row.time_s for row in candles] == begins[1:-1]
    assert [(row.volume, row.count) for row in candles] == [
        truth[each][4:] for each in begins[1:-1]
    ]
