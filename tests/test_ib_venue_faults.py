"""Each fault of the simulated gateway does what it says and nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
import trio
from ib_venue_client import (
    AAPL,
    BITCOIN,
    EURO,
    NEW,
    OLD,
    REFUSED,
    Client,
    connect,
    encode,
    find,
    knock,
    open_client,
    twelve,
)

from providers.ib.venue import Tape, Venue, open_venue
from providers.ib.venue_faults import MALFORMED


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(
        seed=5, history_s=60, live_rate=400, server_version=NEW, tape=Tape(sample_s=0)
    ) as opened:
        yield opened


@asynccontextmanager
async def open_ticks(venue: Venue, client_id: int = 1) -> AsyncIterator[Client]:
    """A client that gets every trade of a stock."""
    async with open_client(venue, client_id) as client:
        await client.tick_by_tick(4, AAPL)
        await client.wait_id(99)
        yield client


def told(client: Client) -> list[tuple[int, float, Decimal]]:
    """The trades received, in the order they came."""
    rows = (row for row in client.frames if row[0] == "99")
    return [(int(row[3]), float(row[4]), Decimal(row[5])) for row in rows]


def known(venue: Venue) -> list[tuple[int, float, Decimal]]:
    """The trades of a stock as they are told."""
    trades = venue.trades("AAPL")
    return [(row.time_ns // 10**9, row.price, row.exact_size) for row in trades]


def volumes(client: Client) -> list[Decimal]:
    """The volumes received, in the order they came."""
    rows = (row for row in client.frames if row[:1] == ["2"] and row[3] == "8")
    return [Decimal(row[4]) for row in rows]


def place(client: Client, venue: Venue) -> int:
    """Where the first trades received are among all."""
    return find(told(client)[:8], known(venue))


async def quiet(client: Client, seconds: float = 0.3) -> bool:
    """Whether nothing comes for a while, other than what was on its way."""
    await client.sync()
    with trio.move_on_after(seconds) as patience:
        await client.read()
    return patience.cancelled_caught


# Connections


async def test_cut_resets_every_connection_and_new_ones_work(venue: Venue) -> None:
    async with open_ticks(venue, 1) as first, open_ticks(venue, 2) as second:
        assert venue.faults.cut() == 2
        for client in (first, second):
            with pytest.raises(trio.BrokenResourceError):
                await client.read_to_end()
    async with open_ticks(venue, 1):
        pass
    assert venue.faults.done == {"cut": 2}


async def test_close_ends_connections_in_order(venue: Venue) -> None:
    async with open_ticks(venue) as client:
        assert venue.faults.close() == 1
        await client.read_to_end()
        assert client.ended


async def test_refused_connections_end_before_the_handshake(venue: Venue) -> None:
    async with open_ticks(venue) as old:
        venue.faults.refuse_connections()
        with pytest.raises(REFUSED):
            await knock(venue)
        assert venue.statistics().connections_refused == 1
        venue.faults.refuse_connections(False)
        async with open_ticks(venue, 2):
            pass
        await old.wait_id(99)


async def test_half_open_connections_are_silent_and_deaf_for_good(venue: Venue) -> None:
    async with open_ticks(venue) as client:
        venue.faults.half_open()
        with trio.move_on_after(0.3):
            await client.read_to_end()
        seen = len(client.frames)
        await client.send(49, 1)
        with trio.move_on_after(0.3) as patience:
            await knock(venue)
        assert patience.cancelled_caught
        venue.faults.half_open(False)
        async with open_ticks(venue, 2):
            pass
        with trio.move_on_after(0.3) as patience:
            await client.read()
        assert patience.cancelled_caught
        assert len(client.frames) == seen
        assert not client.ended


async def test_a_restart_closes_the_port_for_a_while_and_keeps_it(venue: Venue) -> None:
    port = venue.port
    async with open_ticks(venue) as client, connect(venue) as silent:
        venue.faults.restart(0.4)
        await client.read_to_end()
        with pytest.raises(REFUSED):
            await silent.read()
        with pytest.raises(OSError, match="connect"):
            await knock(venue)
        with trio.fail_after(5):
            while not await works(venue):
                await trio.sleep(0.05)
        assert venue.port == port
        async with open_ticks(venue):
            pass
        venue.faults.restart(0)
        venue.faults.restart(0)
        with trio.fail_after(5):
            while not await works(venue):
                await trio.sleep(0.05)


async def works(venue: Venue) -> bool:
    """Whether a connection can be made."""
    try:
        await knock(venue)
    except REFUSED:
        return False
    return True


async def test_bytes_one_at_a_time_are_the_same_messages(venue: Venue) -> None:
    async with open_client(venue) as client:
        whole = await client.bars(4, AAPL, duration="60 S", end="20270101-00:00:00")
        venue.faults.byte_at_a_time()
        await client.tick_by_tick(5, AAPL)
        await client.wait_id(99)
        again = await client.bars(6, AAPL, duration="60 S", end="20270101-00:00:00")
        assert [row[0] for row in again][-2:] >= [row[0] for row in whole][-2:]
        venue.faults.byte_at_a_time(False)
        await client.sync()
    assert place(client, venue) > 0


# What the gateway says of itself


async def test_an_outage_is_silent_and_the_volume_tells_what_was_missed(
    venue: Venue,
) -> None:
    async with open_ticks(venue) as client:
        await client.market_data(5, AAPL, "233")
        await client.wait(lambda row: row[0] == "46" and row[3] == "48")
        venue.faults.connectivity(1100)
        code, text = await client.wait_error(-1)
        assert code == 1100
        assert text == "Connectivity between IBKR and Trader Workstation has been lost."
        assert await quiet(client)
        seen, count = len(client.frames), len(volumes(client))
        venue.faults.connectivity(1102)
        code, text = await client.wait_error(-1)
        assert code == 1102
        assert text.endswith(
            "data maintained. All data farms are connected: usfarm; ushmds; secdefil."
        )
        await client.wait_id(99)
        await client.wait(lambda row: row[0] == "2" and row[3] == "8")
        before, after = volumes(client)[count - 1 : count + 1]
        first = next(row for row in client.frames[seen:] if row[0] == "99")
        assert after - before > Decimal(first[5])


async def test_subscriptions_are_lost_with_1101_and_can_be_made_again(
    venue: Venue,
) -> None:
    async with open_ticks(venue) as client:
        await client.market_data(5, AAPL)
        await client.send(50, 3, 6, *twelve(AAPL), 5, "TRADES", False, "")
        await client.history(7, AAPL, step="5 secs", duration="30 S", live=True)
        await client.wait_id(17)
        venue.faults.connectivity(1100)
        venue.faults.connectivity(1101)
        assert (await client.wait_error(-1))[0] == 1100
        assert await client.wait_error(7) == (
            10182,
            "Failed to request live updates (disconnected).",
        )
        code, text = await client.wait_error(-1)
        assert (code, text.rpartition(" - ")[2]) == (1101, "data lost.")
        statistics = venue.statistics()
        assert (statistics.lines, statistics.history_open) == (0, 0)
        assert await quiet(client)
        await client.tick_by_tick(4, AAPL)
        await client.wait_id(99)


@pytest.mark.parametrize("lost", [False, True])
async def test_an_outage_ends_by_itself(venue: Venue, lost: bool) -> None:
    async with open_ticks(venue) as client:
        venue.faults.outage(0.2, lost=lost)
        assert (await client.wait_error(-1))[0] == 1100
        assert (await client.wait_error(-1))[0] == (1101 if lost else 1102)
        assert await quiet(client) == lost


async def test_farms_break_one_by_one(venue: Venue) -> None:
    async with open_ticks(venue) as client:
        venue.faults.connectivity(2103)
        assert await client.wait_error(-1) == (
            2103,
            "Market data farm connection is broken:usfarm",
        )
        assert await quiet(client)
        await client.bars(5, AAPL, duration="60 S")
        venue.faults.connectivity(2105)
        await client.history(6, AAPL, duration="60 S")
        assert (await client.wait_error(6))[0] == 165
        venue.faults.connectivity(2157)
        async with open_client(venue, 2) as late:
            assert [row[3] for row in late.frames[-3:]] == ["2103", "2105", "2157"]
        for code in (2104, 2106, 2158):
            venue.faults.connectivity(code)
        await client.wait_id(99)
        await client.bars(7, AAPL, duration="60 S")
        assert await client.details(8, AAPL)
    with pytest.raises(ValueError, match="no system code 42: there are 1100"):
        venue.faults.connectivity(42)


async def test_silence_is_of_market_data_alone(venue: Venue) -> None:
    async with open_ticks(venue) as client:
        await client.market_data(5, EURO)
        venue.faults.silent(symbol="AAPL")
        await client.sync()
        seen = len(client.frames)
        for _ in range(5):
            await client.wait(lambda row: row[2:3] == ["5"])
        assert not [row for row in client.frames[seen:] if row[0] == "99"]
        venue.faults.silent()
        assert await quiet(client)
        await client.bars(6, AAPL, duration="60 S")
        venue.faults.silent(False)
        venue.faults.silent(False, symbol="AAPL")
        await client.wait_id(99)


async def test_a_competing_session_takes_all_market_data(venue: Venue) -> None:
    async with open_ticks(venue) as client:
        await client.market_data(5, EURO)
        await client.sync()
        venue.faults.competing_session()
        for number in (5, 4):
            assert await client.wait_error(number) == (
                10197,
                "No market data during competing live session",
            )
        assert await quiet(client)
        await client.market_data(6, AAPL)
        assert (await client.wait_error(6))[0] == 10197
        await client.history(7, AAPL)
        code, text = await client.wait_error(7)
        assert code == 162
        assert text.endswith("session is connected from a different IP address")
        venue.faults.competing_session(False)
        await client.market_data(6, AAPL)
        await client.wait(lambda row: row[0] == "2" and row[3] == "8")
        await client.bars(8, AAPL, duration="60 S")


async def test_the_volume_begins_again_as_on_a_new_day(venue: Venue) -> None:
    async with open_client(venue) as client:
        await client.market_data(4, AAPL, "233")
        await client.wait(lambda row: row[0] == "46" and row[3] == "48")
        old = volumes(client)[-1]
        venue.faults.reset_volume()
        assert venue.volume("AAPL") < old
        row = await client.wait(
            lambda row: row[0] == "2" and row[3] == "8" and Decimal(row[4]) < old
        )
        rows = [
            await client.wait(lambda row: row[0] == "46" and row[3] == "48")
            for _ in range(5)
        ]
        total = Decimal(rows[-1][4].split(";")[3])
        assert Decimal(row[4]) <= total
        assert total <= Decimal(venue.volume("AAPL"))


async def test_a_refused_symbol_has_no_history_either(venue: Venue) -> None:
    venue.faults.refuse_symbol("AAPL")
    async with open_client(venue) as client:
        await client.history(4, AAPL)
        code, text = await client.wait_error(4)
        assert code == 162
        assert text.endswith("No market data permissions for NASDAQ STK")
        asked = (False, "20261101-00:00:00", "", 9, "TRADES", False, False, "")
        await client.send(96, 5, *twelve(AAPL), *asked)
        code, text = await client.wait_error(5)
        assert code == 10187
        assert text.startswith("Failed to request historical ticks:No market data per")
        await client.bars(6, BITCOIN, what="AGGTRADES", duration="60 S")
        venue.faults.refuse_symbol("AAPL", False)
        await client.bars(7, AAPL, duration="60 S")


# History


async def test_requests_for_history_are_swallowed_or_refused_as_often_as_said(
    venue: Venue,
) -> None:
    async with open_client(venue) as client:
        venue.faults.history_never_answers(1)
        await client.history(4, AAPL)
        await client.bars(5, AAPL, duration="60 S")
        assert venue.statistics().history_open == 1
        await client.send(25, 1, 4)
        code, text = await client.wait_error(4)
        assert text.endswith("API historical data query cancelled: 4")
        venue.faults.throttle(2)
        for number in (6, 7):
            await client.history(number, AAPL)
            code, text = await client.wait_error(number)
            assert (code, text.endswith("pacing violation")) == (162, True)
        await client.bars(8, AAPL, duration="60 S")
    assert venue.faults.done == {"history_never_answers": 1, "throttle": 2}


# Ticks


async def test_duplicated_ticks_come_twice(venue: Venue) -> None:
    venue.faults.duplicate(1)
    async with open_client(venue) as client:
        await client.tick_by_tick(4, AAPL)
        while len(told(client)) < 60:
            await client.wait_id(99)
        truth = known(venue)
    rows = told(client)
    assert set(rows) <= set(truth)
    assert len(rows) > 1.5 * len(set(rows))
    assert set(venue.faults.done) == {"duplicate"}


async def test_disordered_ticks_lose_and_repeat_nothing(venue: Venue) -> None:
    async with open_ticks(venue) as client:
        while len(told(client)) < 8:
            await client.wait_id(99)
        venue.faults.disorder(0.5)
        while venue.faults.done["disorder"] < 5:
            await client.wait_id(99)
        venue.faults.disorder(0)
        for _ in range(30):
            await client.wait_id(99)
        truth, rows, first = known(venue), told(client), place(client, venue)
    part = truth[first : first + len(rows)]
    assert rows != part
    assert sorted(rows) == sorted(part)


async def test_a_group_put_off_is_sent_before_the_end_of_a_subscription() -> None:
    async with open_venue(
        seed=5, contracts=["AAPL"], history_s=60, live_rate=8, server_version=NEW
    ) as venue:
        venue.faults.disorder(1)
        async with open_client(venue) as client:
            await client.tick_by_tick(4, AAPL)
            with trio.fail_after(10):
                while venue.faults.done["disorder"] != 1:
                    await trio.sleep(0.001)
            await client.send(98, 4)
            await client.sync()
            truth, rows = known(venue), told(client)
    assert rows
    first = truth.index(rows[0])
    assert sorted(rows) == sorted(truth[first : first + len(rows)])


async def test_dropped_ticks_are_lost_and_the_volume_grows_all_the_same(
    venue: Venue,
) -> None:
    async with open_ticks(venue) as client:
        await client.market_data(5, AAPL)
        while len(told(client)) < 8:
            await client.wait_id(99)
        venue.faults.drop(0.5)
        while venue.faults.done["drop"] < 40:
            await client.wait_id(99)
        venue.faults.drop(0)
        await client.wait(lambda row: row[0] == "2" and row[3] == "8")
        truth, rows = known(venue), told(client)
        volume = Decimal(client.frames[-1][4])
        today = sum(row.exact_size for row in venue.trades("AAPL"))
    assert set(rows) <= set(truth)
    assert len(rows) < len(truth) - find(rows[:8], truth)
    assert volume <= today


@pytest.mark.parametrize("name", MALFORMED)
async def test_broken_frames_are_sent_as_they_are(venue: Venue, name: str) -> None:
    async with open_client(venue) as client:
        await client.market_data(41, AAPL)
        await client.wait_id(45)
        await client.send(2, 2, 41)
        await client.sync()
        venue.faults.malformed([name])
        raw = bytes(client._bytes)
        with trio.move_on_after(0.2):
            while True:
                raw += await client.stream.receive_some()
    assert raw
    assert venue.faults.done == {"malformed": 1}


async def test_broken_frames_among_ticks_leave_those_intact(venue: Venue) -> None:
    async with open_ticks(venue) as client:
        venue.faults.malformed(0.3)
        while venue.faults.done["malformed"] < 30:
            await client.read()
        venue.faults.malformed(0)
        await client.sync()
        rows = [row for row in client.frames if row[:3] == ["99", "4", "2"]]
        shown = {(int(row[3]), float(row[4])) for row in rows if row[3].isdigit()}
        truth = [row[:2] for row in known(venue)]
    assert shown <= set(truth)
    assert len(rows) > len(shown)


async def test_raw_bytes_can_be_sent_and_unknown_names_cannot(venue: Venue) -> None:
    async with open_client(venue) as client:
        venue.faults.malformed([encode(49, 1, 77)])
        assert await client.wait_id(49) == ["49", "1", "77"]
    with pytest.raises(ValueError, match="no broken frame 'rain'"):
        venue.faults.malformed(["rain"])
    with pytest.raises(ValueError, match="drop rate 2 is not between 0 and 1"):
        venue.faults.drop(2)


async def test_all_versions_tell_the_same_errors(venue: Venue) -> None:
    async with open_client(venue, 1, high=OLD) as old, open_client(venue, 2) as new:
        for client in (old, new):
            await client.market_data(
                5, {"symbol": "X", "sec_type": "STK", "exchange": "SMART"}
            )
            await client.wait_error(5)
    assert new.frames[-1] == [*old.frames[-1], ""]
