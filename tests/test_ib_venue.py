"""The simulated gateway: handshake, sessions, contracts, accounts, limits."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from ib_venue_client import (
    AAPL,
    BITCOIN,
    NEW,
    OLD,
    REFUSED,
    Client,
    connect,
    knock,
    open_client,
)

from providers.ib.venue import HistoryLimits, Limits, Venue, open_venue

AMD = {"symbol": "AMD", "sec_type": "STK", "exchange": "SMART"}
FUTURE = {"symbol": "ES", "sec_type": "FUT", "exchange": "CME"}


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(seed=3, history_s=60, server_version=NEW) as opened:
        yield opened


@pytest.fixture
async def client(venue: Venue) -> AsyncIterator[Client]:
    async with open_client(venue) as opened:
        yield opened


# Handshake and session


@pytest.mark.parametrize(
    ("server", "low", "high", "agreed"),
    [
        (157, 157, 178, 157),
        (178, 157, 178, 178),
        (178, 100, 157, 157),
        (165, 9, 170, 165),
    ],
)
async def test_the_version_is_the_newest_both_sides_know(
    server: int, low: int, high: int, agreed: int
) -> None:
    async with open_venue(history_s=0, server_version=server) as venue:
        async with connect(venue) as client:
            await client.hello(low, high)
            assert client.version == agreed


async def test_a_client_is_greeted_with_accounts_an_order_id_and_farms(
    venue: Venue,
) -> None:
    async with open_client(venue, client_id=9) as client:
        assert client.frames[1:3] == [["15", "1", "DU1234567"], ["9", "1", "1"]]
        assert [(row[2], row[3]) for row in client.frames[3:]] == [
            ("-1", "2104"),
            ("-1", "2106"),
            ("-1", "2158"),
        ]
        assert client.frames[3][4] == "Market data farm connection is OK:usfarm"
        assert venue.statistics().client_ids == (9,)


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"API\0\0\0\0\x05hello",
        b"API\0\0\0\0\x09v179..200",
        b"API\0\0\0\0\x07v9..150",
        b"API\0\xff\xff\xff\xff",
    ],
)
async def test_a_handshake_that_is_none_ends_the_connection(
    venue: Venue, hello: bytes
) -> None:
    async with connect(venue) as client:
        await client.stream.send_all(hello)
        with pytest.raises(REFUSED):
            await client.read()


async def test_a_handshake_in_single_bytes_is_one_too(venue: Venue) -> None:
    async with connect(venue) as client:
        for byte in b"API\0\0\0\0\x09v157..178":
            await client.stream.send_all(bytes([byte]))
        version, when = await client.read()
        assert version == "178"
        assert when.endswith(" UTC")


async def test_a_client_id_in_use_is_error_326_and_the_end(venue: Venue) -> None:
    async with open_client(venue, 5) as first:
        async with open_client(venue, 5) as second:
            code, text = second.frames[-1][3:5]
            assert code == "326"
            assert text.startswith("Unable to connect as the client id is already in")
            await second.read_to_end()
            assert second.ended
        await first.sync()
        async with open_client(venue, 6) as third:
            await third.sync()
    async with open_client(venue, 5) as again:
        await again.sync()


async def test_nothing_is_answered_before_startapi(venue: Venue) -> None:
    async with connect(venue) as client:
        await client.hello(OLD, NEW)
        await client.send(49, 1)
        assert await client.wait_error() == (504, "Not connected")
        await client.start(1)
        await client.sync()
        await client.send(71, 2, 1, "")
        assert (await client.wait_error())[0] == 501


async def test_so_many_clients_and_no_more() -> None:
    limits = Limits(clients=2)
    async with open_venue(history_s=0, limits=limits) as venue:
        async with open_client(venue, 1), open_client(venue, 2):
            with pytest.raises(REFUSED):
                await knock(venue)
            assert venue.statistics().connections_refused == 1


async def test_more_messages_a_second_than_allowed_are_error_100_then_the_end() -> None:
    async with open_venue(history_s=0) as venue:
        async with open_client(venue) as client:
            for _ in range(60):
                await client.send(49, 1)
            await client.read_to_end()
        errors = [row for row in client.frames if row[0] == "4" and row[3] == "100"]
        assert len(errors) == 3
        assert errors[0][4] == (
            "Max rate of messages per second has been exceeded:max=50 rec=51 (1)"
        )
        assert len([row for row in client.frames if row[0] == "49"]) == 49
        statistics = venue.statistics()
        assert statistics.message_refused == 3
        assert statistics.message_rate == 53


async def test_a_client_that_asked_to_be_paced_is_slowed_down() -> None:
    async with open_venue(history_s=0, limits=Limits(messages_per_s=20)) as venue:
        async with connect(venue) as client:
            await client.hello(OLD, NEW, "+PACEAPI")
            await client.start(1)
            for _ in range(45):
                await client.send(49, 1)
            for _ in range(45):
                await client.wait_id(49)
        statistics = venue.statistics()
        assert statistics.message_refused == 0
        assert statistics.message_rate <= 20


async def test_what_is_no_request_is_an_error_and_not_the_end(client: Client) -> None:
    await client.send("haiku", 1)
    assert (await client.wait_error())[0] == 320
    await client.send(250, 1)
    assert (await client.wait_error())[0] == 321
    await client.send()
    assert (await client.wait_error())[0] == 320
    await client.send(1, 11, "x")
    code, text = await client.wait_error()
    assert (code, text.rpartition(" ")[2]) == (320, '"x"')
    await client.send(1, 11, 5)
    assert await client.wait_error(5) == (
        320,
        "Error reading request:Unable to parse data.  Too short",
    )
    await client.stream.send_all(b"\0\0\0\5\xff\xfe\0\xff\0")
    assert (await client.wait_error())[0] == 320
    await client.sync()


async def test_a_request_of_absurd_length_is_error_507_and_the_end(
    client: Client,
) -> None:
    await client.stream.send_all(b"\x7f\xff\xff\xff9\0")
    assert (await client.wait_error())[0] == 507
    await client.read_to_end()
    assert client.ended


async def test_a_client_that_is_gone_leaves_nothing_behind(venue: Venue) -> None:
    async with open_client(venue) as client:
        await client.market_data(1, AAPL)
        await client.tick_by_tick(2, AAPL)
        await client.history(3, AAPL, live=True, duration="30 S", step="5 secs")
        await client.wait_id(17)
        statistics = venue.statistics()
        assert (statistics.lines, statistics.tick_by_tick) == (2, 1)
        assert statistics.history_open == 1
    with trio.fail_after(5):
        while venue.statistics().connections:
            await trio.sleep(0.01)
    statistics = venue.statistics()
    assert (statistics.lines, statistics.history_open) == (0, 0)


async def test_a_client_that_does_not_read_is_dropped() -> None:
    never = HistoryLimits(requests=10**6, same=10**6, identical_s=0)
    async with open_venue(
        seed=1, limits=Limits(outbox_bytes=200_000), history_limits=never
    ) as venue:
        async with open_client(venue) as client:
            client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            asked: dict[str, Any] = {"step": "1 secs", "duration": "2000 S"}
            with contextlib.suppress(trio.BrokenResourceError):
                for number in range(45):
                    await client.history(number, AAPL, **asked)
            with trio.fail_after(10):
                while not venue.statistics().connections_dropped:
                    await trio.sleep(0.01)


# Contracts


@pytest.mark.parametrize(
    ("contract", "local_symbols"),
    [
        (AAPL, ["AAPL"]),
        ({"con_id": 272093, "exchange": "SMART"}, ["MSFT"]),
        ({"symbol": "AMD", "sec_type": "STK", "exchange": "SMART"}, ["AMD", "AMD"]),
        (
            {
                "symbol": "AMD",
                "sec_type": "STK",
                "exchange": "SMART",
                "primary": "IBIS",
            },
            ["AMD"],
        ),
        ({"symbol": "EUR", "sec_type": "CASH", "exchange": "IDEALPRO"}, ["EUR.USD"]),
        ({"symbol": "SPX", "sec_type": "IND", "exchange": "CBOE"}, ["SPX"]),
        (BITCOIN, ["BTC.USD"]),
        ({"symbol": "AAPL", "sec_type": "STK", "exchange": "ISLAND"}, ["AAPL"]),
    ],
)
async def test_contracts_are_found_by_what_is_said_of_them(
    client: Client, contract: dict[str, object], local_symbols: list[str]
) -> None:
    rows = await client.details(4, contract)
    assert [row[9] for row in rows] == local_symbols
    assert all(row[1] == "4" for row in rows)


async def test_futures_come_with_two_expiries_and_one_by_month(client: Client) -> None:
    future = {"symbol": "ES", "sec_type": "FUT", "exchange": "CME"}
    rows = await client.details(1, future)
    expiries = [row[4].split() for row in rows]
    assert len(rows) == 2
    assert expiries[0] < expiries[1]
    assert expiries[0][1:] == ["08:30", "US/Central"]
    month = expiries[1][0][:6]
    (row,) = await client.details(2, future | {"expiry": month})
    assert row == ["10", "2", *rows[1][2:]]
    (row,) = await client.details(3, future | {"sec_type": "CONTFUT"})
    assert (row[3], row[12]) == ("CONTFUT", rows[0][12])
    assert row[14] == "50"


async def test_options_are_told_apart_by_strike_and_right(client: Client) -> None:
    option = {"symbol": "AAPL", "sec_type": "OPT", "exchange": "SMART"}
    assert len(await client.details(1, option)) == 4
    assert len(await client.details(2, option | {"right": "CALL"})) == 2
    (row,) = await client.details(3, option | {"right": "P", "strike": 280.0})
    assert (row[5], row[6], row[14]) == ("280", "P", "100")
    await client.send(78, 5, "AAPL", "", "STK", 265598)
    rows = []
    while (fields := await client.wait_id(75, 76))[0] == "75":
        rows.append(fields)
    assert {fields[2] for fields in rows} == {"SMART", "AMEX", "CBOE", "ISE"}
    assert rows[0][3:6] == ["265598", "AAPL", "100"]
    assert rows[0][8:] == ["2", "270.0", "280.0"]


async def test_without_an_exchange_there_is_a_row_for_each(client: Client) -> None:
    rows = await client.details(1, {"symbol": "AAPL", "sec_type": "STK"})
    places = [row[7] for row in rows]
    assert len(places) > 5
    assert len(set(places)) == len(places)
    assert {row[12] for row in rows} == {"265598"}


async def test_unknown_contracts_are_error_200_and_classes_321(client: Client) -> None:
    await client.send(9, 8, 7, *unknown("STK"), False, "", "", "")
    assert await client.wait_error(7) == (
        200,
        "No security definition has been found for the request",
    )
    await client.send(9, 8, 8, *unknown("BOAT"), False, "", "", "")
    assert (await client.wait_error(8))[0] == 321
    await client.market_data(
        9, {"symbol": "AMD", "sec_type": "STK", "exchange": "SMART"}
    )
    assert await client.wait_error(9) == (
        200,
        "The contract description specified for AMD is ambiguous.",
    )


def unknown(sec_type: str) -> tuple[object, ...]:
    """A contract that nobody lists."""
    return (0, "XXX", sec_type, "", 0.0, "", "", "SMART", "", "USD", "", "")


@pytest.mark.parametrize(
    ("high", "fields"), [(157, 41), (162, 41), (163, 42), (164, 42), (178, 42)]
)
async def test_details_have_the_fields_of_their_version(
    venue: Venue, high: int, fields: int
) -> None:
    async with open_client(venue, high=high) as client:
        (row,) = await client.details(3, AAPL)
    assert len(row) == fields
    assert (row[1] == "8") == (high < 164)
    at = row.index("AAPL")
    assert row[at : at + 2] == ["AAPL", "STK"]
    assert row[at + 10 : at + 12] == ["265598", "0.01"]
    assert row[at + 12] == ("100" if high < 164 else "")  # sizes are in lots, then not
    assert row[row.index("ISIN") + 1] == "US0378331005"
    assert row[-1] == ("100" if high >= 163 else "COMMON")


async def test_matching_symbols_are_found_by_ticker_and_by_name(client: Client) -> None:
    await client.send(81, 3, "es")
    fields = await client.wait_id(79)
    assert fields[3:10] == ["11004968", "ES", "IND", "CME", "USD", "1", "FUT"]
    await client.send(81, 4, "apple")
    fields = await client.wait_id(79)
    assert fields[2:10] == ["1", "265598", "AAPL", "STK", "NASDAQ", "USD", "1", "OPT"]
    assert fields[10:] == ["APPLE INC", ""]
    await client.send(81, 5, "zzz")
    assert await client.wait_id(79) == ["79", "5", "0"]


async def test_market_rules_give_the_price_step(client: Client) -> None:
    (row,) = await client.details(3, BITCOIN)
    rule = next(text for text in row if text == "2025")
    await client.send(91, rule)
    assert await client.wait_id(93) == ["93", "2025", "1", "0", "0.25"]


# Accounts, of which there is little; orders have tests of their own


async def test_account_requests_end_as_they_should(client: Client) -> None:
    asked = {
        (61, 1): 62,
        (5, 1): 53,
        (16, 1): 53,
        (99, False): 102,
        (6, 2, True, "DU1234567"): 54,
        (76, 1, 4, "DU1234567", "", False): 74,
        (62, 1, 5, "All", "NetLiquidation,Other"): 64,
        (7, 3, 6, 0, "", "", "", "", "", ""): 55,
        (8, 1, 1): 9,
        (17, 1): 15,
    }
    for request, end in asked.items():
        await client.send(*request)
        await client.wait_id(end)
    for request in ((63, 1, 5), (64, 1), (77, 1, 4), (14, 1, 2)):
        await client.send(*request)
    await client.sync()
    assert all(row[3] != "321" for row in client.frames if row[0] == "4")


def test_alone_it_prints_its_address_and_ends_on_a_signal() -> None:
    command = [sys.executable, "-m", "providers.ib.venue", "--server-version", "178"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            config = json.loads(process.stdout.readline())
            assert config["client_id"] == 1
            version = trio.run(agree, config["host"], config["port"])
            assert version == "178"
        finally:
            os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 0


async def agree(host: str, port: int) -> str:
    """The version a gateway chooses."""
    async with await trio.open_tcp_stream(host, port) as stream:
        client = Client(stream)
        await client.hello(OLD, NEW)
        return str(client.version)


def test_a_version_or_contract_that_there_is_not_is_a_valueerror() -> None:
    async def open_with(**options: object) -> None:
        async with open_venue(**options):  # type: ignore[arg-type]
            pass

    with pytest.raises(ValueError, match="server_version 200 is not between 157 and"):
        trio.run(lambda: open_with(server_version=200))
    with pytest.raises(ValueError, match="no contract 'XYZ' in the catalogue: AAPL"):
        trio.run(lambda: open_with(contracts=["XYZ"]))
