"""The connection to TWS: greeting, deadlines, client ids; every failure a sentence."""

import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import piker_core as pk
from providers.ib.api import Client, get_client
from providers.ib.config import Config
from providers.ib.gateway import LINGER_S
from providers.ib.session import open_session
from providers.ib.venue import HistoryLimits, open_venue
from tests.ib_gateway import STOCK, wait_until

Serve = Callable[[trio.SocketStream], Awaitable[None]]


def quick(port: int, **settings: Any) -> Config:
    known = {
        "connect_timeout_s": 0.5,
        "request_timeout_s": 1.0,
        "history_timeout_s": 1.0,
        "settle_s": 0.0,
    }
    return Config(port=port, **(known | settings))


async def contracts(client: Client) -> str:
    return (await client.listing(STOCK)).local_symbol


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    """A port on which something else than TWS speaks."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        )
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def framed(*fields: object) -> bytes:
    payload = "".join(f"{field}\0" for field in fields).encode()
    return struct.pack(">I", len(payload)) + payload


GREETING = framed(178, "20261123 00:40:00 UTC") + framed(15, 1, "DU1") + framed(9, 1, 7)


async def ask_in_vain(config: Config) -> str:
    async with get_client(config) as client:
        with pytest.raises(pk.PikerError) as caught:
            await contracts(client)
    return str(caught.value)


async def test_a_gateway_that_does_not_run_is_one_sentence_with_the_usual_ports() -> (
    None
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        text = await ask_in_vain(quick(free.getsockname()[1]))
    assert "Connection refused" in text and "set host and port in [ib]" in text
    assert "4002" in text and text.count(". ") == 0


async def test_a_host_that_is_none_is_one_sentence() -> None:
    text = await ask_in_vain(quick(4002, host="nowhere.invalid"))
    assert "nowhere.invalid:4002" in text


async def test_a_port_that_says_nothing_is_one_sentence() -> None:
    async def silent(stream: trio.SocketStream) -> None:
        async for _ in stream:
            pass

    async with serving(silent) as port:
        text = await ask_in_vain(quick(port))
    assert "does not speak the TWS API" in text and "port in [ib]" in text


async def test_a_web_server_on_the_port_is_the_same_sentence() -> None:
    async def http(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        async for _ in stream:
            pass

    async with serving(http) as port:
        assert "does not speak the TWS API" in await ask_in_vain(quick(port))


async def test_a_connection_that_is_closed_at_once_is_one_sentence() -> None:
    async def closing(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    async with serving(closing) as port:
        text = await ask_in_vain(quick(port))
    assert "closed the connection at once" in text and "trusted" in text


async def test_a_server_that_is_too_old_is_one_sentence() -> None:
    async def old(stream: trio.SocketStream) -> None:
        await stream.send_all(framed(76, "20101123 00:40:00 EST"))
        async for _ in stream:
            pass

    async with serving(old) as port:
        assert "version 76" in await ask_in_vain(quick(port))


async def test_an_account_of_another_login_is_a_configuration_error() -> None:
    async with open_venue(contracts=["AAPL"], live_rate=0.1) as venue:
        text = await ask_in_vain(quick(venue.port, account="U7"))
    assert "'U7' of [ib]" in text and "DU1234567" in text


async def test_a_client_id_in_use_is_an_error_that_names_the_key() -> None:
    async with open_venue(contracts=["AAPL"], live_rate=0.1) as venue:
        config = quick(venue.port, client_id=9)
        async with open_session(config, 9, Counter()):
            async with get_client(config) as client:
                with pytest.raises(pk.ConfigError, match=r"client_id 9.*\[ib\].*auto"):
                    await contracts(client)


async def test_automatic_client_ids_pass_over_those_in_use() -> None:
    first = 100 + os.getpid() % 900
    async with open_venue(contracts=["AAPL"], live_rate=0.1) as venue:
        config = quick(venue.port)
        async with open_session(config, first, Counter()):
            async with open_session(config, first + 1, Counter()):
                async with get_client(config) as client:
                    assert await contracts(client) == "AAPL"
                    assert venue.statistics().client_ids[-1] == first + 2


async def test_all_clients_of_an_address_share_a_connection_until_the_last_one() -> (
    None
):
    async with open_venue(contracts=["AAPL", "MSFT"], live_rate=0.1) as venue:
        config = quick(venue.port, client_id=3)

        async def use() -> None:
            async with get_client(config) as client:
                await contracts(client)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(use)
        await use()
        assert venue.statistics().connections_ever == 1
        assert venue.statistics().requests["reqContractDetails"] == 1
        await trio.sleep(LINGER_S)
        await wait_until(lambda: venue.statistics().connections == 0)
        await use()  # with the same id, as soon as TWS lets go of it
        assert venue.statistics().connections_ever >= 2


async def test_an_answer_that_does_not_come_is_an_error_and_is_cancelled() -> None:
    async with open_venue(contracts=["AAPL"], live_rate=0.1) as venue:
        venue.faults.history_never_answers(1)
        async with get_client(quick(venue.port)) as client:
            listing = await client.listing(STOCK)
            with pytest.raises(pk.ProviderError, match=r"within 1 s.*bars of aapl"):
                await client.archive.bars(listing, 60, 1_800_000_000, 3600)
            await wait_until(lambda: venue.statistics().history_open == 0)
            assert venue.statistics().requests["cancelHistoricalData"] == 1


async def test_a_request_that_is_cancelled_is_cancelled_at_tws() -> None:
    async with open_venue(contracts=["AAPL"], live_rate=0.1) as venue:
        venue.faults.slow_rest(600.0)
        async with get_client(quick(venue.port)) as client:
            listing = await client.listing(STOCK)
            with trio.move_on_after(0.2) as limit:
                await client.archive.bars(listing, 60, 1_800_000_000, 3600)
            assert limit.cancelled_caught
            await wait_until(lambda: venue.statistics().history_open == 0)


async def test_answers_missing_in_a_row_end_the_connection() -> None:
    async with open_venue(contracts=["AAPL"], live_rate=0.1) as venue:
        venue.faults.history_never_answers(99)
        config = quick(venue.port, timeouts_most=2, history_timeout_s=0.3)
        async with get_client(config) as client:
            listing = await client.listing(STOCK)
            for hour in range(2):
                end_s = 1_800_000_000 + hour * 3600
                with pytest.raises(pk.ProviderError):
                    await client.archive.bars(listing, 60, end_s, 3600)
            await wait_until(lambda: venue.statistics().connections_ever == 2)
            assert await contracts(client) == "AAPL"


async def test_requests_keep_the_rate_however_many_there_are() -> None:
    limits = HistoryLimits(requests=1000)
    async with open_venue(
        contracts=["AAPL"], live_rate=0.1, history_limits=limits
    ) as venue:
        async with get_client(quick(venue.port, request_timeout_s=5.0)) as client:
            async with trio.open_nursery() as nursery:
                for _ in range(120):
                    nursery.start_soon(client._descriptions, {"conId": 265598})
        assert venue.statistics().message_refused == 0
        assert venue.statistics().message_rate <= 46


async def test_a_lost_connection_fails_what_was_asked_and_is_made_again() -> None:
    async with open_venue(contracts=["AAPL"], live_rate=0.1) as venue:
        venue.faults.slow_rest(600.0)
        config = quick(venue.port, history_timeout_s=30.0)
        async with get_client(config) as client, trio.open_nursery() as nursery:
            listing = await client.listing(STOCK)

            async def ask() -> None:
                with pytest.raises(pk.ProviderError, match=r"was lost \(connection"):
                    await client.archive.bars(listing, 60, 1_800_000_000, 3600)

            nursery.start_soon(ask)
            await wait_until(lambda: venue.statistics().history_open == 1)
            venue.faults.cut()
            await wait_until(lambda: venue.statistics().connections_ever == 2)


async def test_a_changed_port_is_followed() -> None:
    moved = 0

    async def leaving(stream: trio.SocketStream) -> None:
        nonlocal moved
        await stream.receive_some()
        await stream.send_all(GREETING)
        text = "TWS socket port has been reset. Please reconnect on the new port - "
        await stream.send_all(framed(4, 2, -1, 1300, f"{text}{moved}", ""))
        async for _ in stream:
            pass

    async with open_venue(contracts=["AAPL"], live_rate=0.1) as venue:
        moved = venue.port
        async with serving(leaving) as port, get_client(quick(port)) as client:
            await client.session()
            await wait_until(lambda: venue.statistics().connections == 1)


async def test_silence_is_asked_for_the_time_and_ends_the_connection() -> None:
    asked: list[bytes] = []

    async def greeting(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(GREETING)
        async for chunk in stream:
            asked.append(bytes(chunk))

    async with serving(greeting) as port:
        config = quick(port, ping_s=0.4, liveness_s=0.4)
        async with open_session(config, 1, Counter()) as session:
            await session.lost.wait()
            assert session.silent and session.reason.startswith("nothing heard")
    assert framed(49, 1) in b"".join(asked)


async def test_messages_between_two_chunks_wait_for_a_slow_reader() -> None:
    async def flooding(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(GREETING)
        try:
            while True:
                await stream.send_all(framed(2, 6, 1, 8, 5) * 5000)
        except trio.BrokenResourceError:
            pass

    async with serving(flooding) as port:
        async with open_session(quick(port), 1, Counter()) as session:
            gate = trio.Event()
            session.brakes.append(gate.wait)
            heard: list[str] = []
            session.handlers[1] = lambda name, _: heard.append(name)
            await trio.sleep(0.3)
            stuck = len(heard)
            await trio.sleep(0.3)
            assert len(heard) == stuck
            gate.set()
            await wait_until(lambda: len(heard) > stuck)


def test_nothing_is_left_when_the_loop_has_ended() -> None:
    async def use() -> None:
        async with open_venue(contracts=["AAPL"], live_rate=0.1) as venue:
            async with get_client(quick(venue.port)) as client:
                await contracts(client)

    trio.run(use)
    threads, descriptors = (
        threading.active_count(),
        len(list(Path("/proc/self/fd").iterdir())),
    )
    for _ in range(3):
        trio.run(use)
    assert threading.active_count() == threads
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
