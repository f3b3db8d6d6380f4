"""The simulated gateway's history: bars and ticks are the truth, limits are kept."""

import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import trio
from ib_venue_client import (
    AAPL,
    BITCOIN,
    EURO,
    INDEX,
    NEW,
    OLD,
    Client,
    folded,
    open_client,
    shown,
    twelve,
    utc,
)

from providers.ib.venue import (
    HistoryLimits,
    Tape,
    Venue,
    open_venue,
)

NEVER = HistoryLimits(requests=10**6, same=10**6, identical_s=0)
DAY_S = 86_400
SERVICE = "Historical Market Data Service error message:"


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(
        seed=5, live_rate=40, history_rate=10, server_version=NEW, history_limits=NEVER
    ) as opened:
        yield opened


@pytest.fixture
async def client(venue: Venue) -> AsyncIterator[Client]:
    async with open_client(venue) as opened:
        yield opened


# Bars


@pytest.mark.parametrize(
    ("step", "duration", "period_s"),
    [("1 secs", "1800 S", 1), ("5 secs", "3600 S", 5), ("1 min", "7200 S", 60)],
)
async def test_bars_are_folded_from_the_trades(
    venue: Venue, client: Client, step: str, duration: str, period_s: int
) -> None:
    rows = await client.bars(4, AAPL, step=step, duration=duration)
    truth = folded(venue.trades("AAPL"), period_s)
    begins = [int(row[0]) for row in rows]
    assert begins == list(range(begins[0], begins[-1] + 1, period_s))
    assert abs(begins[-1] - time.time()) < period_s + 5
    most = int(duration.split()[0]) // period_s
    assert most - 1 <= len(rows) <= most
    close = None
    for row in rows[:-1]:  # the last is running
        bar = truth.get(int(row[0]))
        if bar is None:
            assert shown(row) == (*[Decimal(row[1])] * 4, 0, 0)
            assert close in (None, Decimal(row[1]))
        else:
            assert shown(row) == bar
        close = Decimal(row[4])
    candles = {
        row.time_s: row
        for row in venue.candles("AAPL", period_s, begins[0], begins[-1])
    }
    for row in rows[:-1]:
        candle = candles[int(row[0])]
        assert Decimal(row[6]) == round(candle.vwap, 5)
        assert shown(row)[4:] == (candle.volume, candle.count)


async def test_an_end_in_the_past_gives_whole_bars_up_to_it(
    venue: Venue, client: Client
) -> None:
    end_s = int(time.time()) // 60 * 60 - 600
    first = await client.bars(4, AAPL, end=utc(end_s), duration="600 S")
    assert [int(row[0]) for row in first] == list(range(end_s - 600, end_s, 60))
    local = datetime.fromtimestamp(end_s, ZoneInfo("US/Eastern"))
    text = f"{local:%Y%m%d %H:%M:%S} US/Eastern"
    assert await client.bars(5, AAPL, end=text, duration="600 S") == first
    older = await client.bars(6, AAPL, end=utc(end_s - 600), duration="600 S")
    assert int(older[-1][0]) == int(first[0][0]) - 60


async def test_times_are_in_the_format_that_was_asked_for(venue: Venue) -> None:
    end_s = int(time.time()) // 60 * 60 - 600
    asked: dict[str, Any] = {"end": utc(end_s), "duration": "60 S", "form": 1}
    local = datetime.fromtimestamp(end_s - 60, ZoneInfo("US/Eastern"))
    async with open_client(venue, 1) as new, open_client(venue, 2, high=OLD) as old:
        ((new_text, *_),) = await new.bars(4, AAPL, **asked)
        ((old_text, *_),) = await old.bars(4, AAPL, **asked)
        assert new_text == f"{local:%Y%m%d %H:%M:%S} US/Eastern"
        stamp = datetime.fromtimestamp(end_s - 60, UTC)
        assert old_text == f"{stamp:%Y%m%d  %H:%M:%S}"
        for form in (1, 2):
            days = await new.bars(5, AAPL, step="1 day", duration="2 D", form=form)
            today = datetime.now(ZoneInfo("US/Eastern"))
            assert days[-1][0] == f"{today:%Y%m%d}"


async def test_old_clients_get_bars_in_lots(venue: Venue) -> None:
    end_s = int(time.time()) // 60 * 60 - 60
    async with open_client(venue, 1, high=OLD) as old, open_client(venue, 2) as new:
        lots = await old.bars(4, AAPL, end=utc(end_s), duration="600 S")
        shares = await new.bars(4, AAPL, end=utc(end_s), duration="600 S")
    assert [int(row[5]) for row in lots] == [int(row[5]) // 100 for row in shares]
    assert [row[:5] for row in lots] == [row[:5] for row in shares]


async def test_bars_of_quotes_open_with_the_quote_in_force(
    venue: Venue, client: Client
) -> None:
    end_s = int(time.time()) // 60 * 60
    asked: dict[str, Any] = {"end": utc(end_s), "duration": "1200 S"}
    quotes = venue.quotes("EUR.USD")
    kinds: dict[str, Callable[[Any], float]] = {
        "BID": lambda row: float(row.bid),
        "ASK": lambda row: float(row.ask),
        "MIDPOINT": lambda row: float((row.bid + row.ask) / 2),
    }
    for number, (what, value) in enumerate(kinds.items()):
        rows = await client.bars(number, EURO, what=what, **asked)
        assert len(rows) == 20
        for row in rows:
            begin_ns = int(row[0]) * 10**9
            before = [value(each) for each in quotes if each.time_ns < begin_ns][-1:]
            inside = before + [
                value(each)
                for each in quotes
                if begin_ns <= each.time_ns < begin_ns + 60 * 10**9
            ]
            exact = (inside[0], max(inside), min(inside), inside[-1])
            assert tuple(map(float, row[1:5])) == pytest.approx(exact, abs=1e-9)
            assert row[5:] == ["-1", "-1", "-1"]
    rows = await client.bars(9, EURO, what="BID_ASK", **asked)
    for row in rows:
        assert float(row[3]) <= float(row[1]) < float(row[4]) <= float(row[2])


async def test_an_index_has_bars_without_volume(client: Client) -> None:
    rows = await client.bars(4, INDEX)
    assert len({row[4] for row in rows}) > 1
    assert {tuple(row[5:]) for row in rows} == {("0", "0.00000", "0")}


async def test_crypto_wants_aggtrades(venue: Venue, client: Client) -> None:
    await client.history(4, BITCOIN)
    assert (await client.wait_error(4))[0] == 10299
    rows = await client.bars(5, BITCOIN, what="AGGTRADES")
    truth = folded(venue.trades("BTC.USD"), 60)
    assert shown(rows[-3]) == truth[int(rows[-3][0])]
    async with open_client(venue, 3, high=OLD) as old:
        await old.history(4, BITCOIN, what="AGGTRADES")
        assert (await old.wait_error(4))[0] == 10285


async def test_history_can_be_without_flat_bars() -> None:
    async with open_venue(
        seed=5, live_rate=0, history_rate=1, tape=Tape(flat_bars=False)
    ) as venue:
        async with open_client(venue) as client:
            rows = await client.bars(4, AAPL, step="1 secs", duration="2000 S")
    assert 0 < len(rows) < 1000
    assert min(int(row[7]) for row in rows) > 0


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        ({"step": "1 sec"}, 321, "Historical data bar size setting is invalid. Legal"),
        ({"step": "1 secs", "duration": "1 D"}, 162, "invalid step: 1"),
        ({"step": "1 day", "duration": "60 S"}, 162, "invalid step: 86400"),
        ({"duration": "5 X"}, 321, "Invalid duration: 5 X"),
        ({"duration": "90000 S"}, 321, "must be made in days"),
        ({"duration": "400 D"}, 321, "must be made in years"),
        ({"form": 0}, 321, "Date formatting selection of 0 rejected"),
        ({"what": "RAIN"}, 321, "What to show value of RAIN rejected"),
        ({"what": "FEE_RATE"}, 162, "HMDS query returned no data: AAPL@SMART FEE_RATE"),
        ({"end": "yesterday"}, 10314, "End Date/Time: The date, time, or time-zone"),
        ({"end": "20261340-10:00:00"}, 10314, "End Date/Time"),
        ({"end": "20261104 10:00:00 Moon/Sea"}, 10314, "End Date/Time"),
        ({"end": "20000101-00:00:00"}, 162, "no data: AAPL@SMART Trades"),
        ({"step": "1 secs", "duration": "60 S", "live": True}, 321, "5 secs or longer"),
        ({"end": "20261104-10:00:00", "live": True}, 321, "empty end date"),
    ],
)
async def test_bars_that_cannot_be_had_are_an_error_that_says_why(
    client: Client, asked: dict[str, Any], code: int, text: str
) -> None:
    await client.history(4, AAPL, **asked)
    told, why = await client.wait_error(4)
    assert (told, text in why) == (code, True), why


async def test_forex_has_no_trades_and_an_index_no_quotes(client: Client) -> None:
    await client.history(4, EURO)
    text = "HMDS query returned no data: EUR.USD@IDEALPRO Trades"
    assert await client.wait_error(4) == (162, SERVICE + text)
    await client.history(5, INDEX, what="BID")
    assert (await client.wait_error(5))[0] == 162


async def test_a_time_without_a_zone_is_utc_and_a_warning(client: Client) -> None:
    end_s = int(time.time()) // 60 * 60 - 60
    stamp = f"{datetime.fromtimestamp(end_s, UTC):%Y%m%d %H:%M:%S}"
    await client.history(4, AAPL, end=stamp, duration="60 S")
    assert (await client.wait_error(4))[0] == 2174
    assert (await client.wait_id(17))[5] == str(end_s - 60)


async def test_bars_kept_up_to_date_end_as_the_truth(
    venue: Venue, client: Client
) -> None:
    asked: dict[str, Any] = {"step": "5 secs", "duration": "30 S", "live": True}
    rows = await client.bars(4, AAPL, **asked)
    bars = {int(row[0]): shown(row) for row in rows}
    first_s = max(bars)
    while max(bars) <= first_s:
        fields = await client.wait_id(90)
        count, date, opened, close, high, low, _, volume = fields[2:]
        prices = (opened, high, low, close, volume)
        bars[int(date)] = (*map(Decimal, prices), int(count))
    assert bars[first_s] == folded(venue.trades("AAPL"), 5)[first_s]
    await client.send(25, 1, 4)
    text = "API historical data query cancelled: 4"
    assert await client.wait_error(4) == (162, SERVICE + text)
    assert venue.statistics().history_open == 0
    await client.send(25, 1, 4)
    text = "No historical data query found for ticker id:4"
    assert await client.wait_error(4) == (366, text)


# Ticks


async def test_ticks_from_a_start_are_the_trades_to_the_end_of_a_second(
    venue: Venue, client: Client
) -> None:
    truth = venue.trades("AAPL")
    start_s = truth[2000].time_ns // 10**9
    rows = await client.ticks(4, AAPL, start=utc(start_s), number=50)
    first = next(at for at, row in enumerate(truth) if row.time_ns // 10**9 >= start_s)
    part = truth[first : first + len(rows)]
    assert len(rows) >= 50
    assert [(int(row[0]), float(row[2]), Decimal(row[3])) for row in rows] == [
        (row.time_ns // 10**9, row.price, row.exact_size) for row in part
    ]
    after = truth[first + len(rows)]
    assert after.time_ns // 10**9 > int(rows[-1][0])
    assert all(row[1] == "0" for row in rows)


async def test_ticks_before_an_end_are_the_trades_from_a_whole_second(
    venue: Venue, client: Client
) -> None:
    truth = venue.trades("AAPL")
    end_s = truth[-500].time_ns // 10**9
    last = next(at for at, row in enumerate(truth) if row.time_ns // 10**9 >= end_s)
    for number in (1000, *range(1, 30)):
        rows = await client.ticks(number, AAPL, end=utc(end_s), number=number)
        part = truth[last - len(rows) : last]
        assert len(rows) >= number
        assert [(int(row[0]), float(row[2])) for row in rows] == [
            (row.time_ns // 10**9, row.price) for row in part
        ]
        assert truth[last - len(rows) - 1].time_ns // 10**9 < int(rows[0][0])


async def test_ticks_of_quotes_and_midpoints(venue: Venue, client: Client) -> None:
    truth = venue.quotes("EUR.USD")
    start_s = truth[100].time_ns // 10**9
    first = next(at for at, row in enumerate(truth) if row.time_ns // 10**9 >= start_s)
    rows = await client.ticks(4, EURO, start=utc(start_s), number=20, what="BID_ASK")
    assert [tuple(map(float, [row[0], *row[2:]])) for row in rows] == [
        (row.time_ns // 10**9, row.bid, row.ask, row.bid_size, row.ask_size)
        for row in truth[first : first + len(rows)]
    ]
    rows = await client.ticks(5, EURO, start=utc(start_s), number=20, what="MIDPOINT")
    assert [float(row[2]) for row in rows] == pytest.approx(
        [(row.bid + row.ask) / 2 for row in truth[first : first + len(rows)]], abs=1e-9
    )
    assert all((row[1], row[3]) == ("0", "0") for row in rows)


async def test_ticks_that_cannot_be_had(client: Client) -> None:
    now = utc(int(time.time()))
    refused = [("", "", 10, "TRADES"), (now, now, 10, "TRADES")]
    refused += [(now, "", 1001, "TRADES"), (now, "", 0, "TRADES"), (now, "", 9, "RAIN")]
    for number, asked in enumerate(refused):
        head = (96, number, *twelve(AAPL), False)
        await client.send(*head, *asked, False, False, "")
        assert (await client.wait_error(number))[0] == 321
    await client.send(
        96, 9, *twelve(EURO), False, now, "", 9, "TRADES", False, False, ""
    )
    assert (await client.wait_error(9))[0] == 162
    future = utc(int(time.time()) + 3600)
    assert await client.ticks(10, AAPL, start=future) == []


async def test_head_times_are_those_of_the_first_trade(
    venue: Venue, client: Client
) -> None:
    first_s = venue.trades("AAPL")[0].time_ns // 10**9
    await client.send(87, 4, *twelve(AAPL), False, False, "TRADES", 2)
    assert await client.wait_id(88) == ["88", "4", str(first_s)]
    await client.send(87, 5, *twelve(AAPL), False, False, "TRADES", 1)
    assert await client.wait_id(88) == ["88", "5", utc(first_s)]
    await client.send(90, 5)
    await client.sync()


# Limits


async def test_small_bars_are_paced_and_the_worst_windows_counted() -> None:
    async with open_venue(history_s=600, live_rate=0, server_version=NEW) as venue:
        async with open_client(venue) as client:
            small: dict[str, Any] = {"step": "1 secs"}
            await client.bars(1, AAPL, duration="60 S", **small)
            await client.history(2, AAPL, duration="60 S", **small)
            text = "Historical data request pacing violation"
            assert await client.wait_error(2) == (162, SERVICE + text)
            for number in range(3, 6):
                await client.bars(number, AAPL, duration=f"{number + 60} S", **small)
            await client.history(6, AAPL, duration="90 S", **small)
            assert (await client.wait_error(6))[0] == 162
            for number in range(20):
                await client.bars(100 + number, AAPL, duration="600 S")
            statistics = venue.statistics()
    assert statistics.pacing.requests == 6
    assert statistics.pacing.same == 6
    assert statistics.pacing.identical == 2
    assert statistics.pacing_refused == 2


async def test_sixty_small_requests_in_ten_minutes_and_bid_ask_counts_twice() -> None:
    limits = HistoryLimits(requests=10, same=100)
    async with open_venue(
        history_s=600, live_rate=0, server_version=NEW, history_limits=limits
    ) as venue:
        async with open_client(venue) as client:
            for number in range(4):
                if number % 2:
                    await client.ticks(
                        number, AAPL, start=utc(1 + number), what="BID_ASK", number=1
                    )
                else:
                    asked = {"step": "1 secs", "duration": f"{60 + number} S"}
                    await client.bars(number, AAPL, what="BID_ASK", **asked)
            for number in range(4, 6):
                await client.ticks(number, AAPL, start=utc(1 + number), number=1)
            await client.history(9, AAPL, step="1 secs", duration="60 S")
            code, text = await client.wait_error(9)
    assert (code, text.endswith("pacing violation")) == (162, True)


async def test_only_fifty_requests_may_be_open() -> None:
    limits = HistoryLimits(open_requests=2)
    async with open_venue(
        history_s=60, server_version=NEW, history_limits=limits
    ) as venue:
        venue.faults.history_never_answers(2)
        async with open_client(venue) as client:
            for number in range(3):
                await client.history(number, AAPL)
            code, text = await client.wait_error()
            assert code == 322
            assert "Only 2 simultaneous API historical data requests" in text
            await client.history(0, AAPL)
            assert (await client.wait_error(0))[0] == 322
            await client.send(25, 1, 0)
            assert (await client.wait_error(0))[0] == 162
            await client.bars(3, AAPL)


async def test_an_answer_that_was_cancelled_while_it_was_slow_never_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_venue(history_s=60, live_rate=0) as venue:
        venue.faults.slow_rest(30)
        async with open_client(venue) as client:
            begun_s = trio.current_time()
            with pytest.raises(trio.TooSlowError):
                await client.bars(1, AAPL)
            assert trio.current_time() >= begun_s + 20
            await client.send(25, 1, 1)
            assert (await client.wait_error(1))[0] == 162
