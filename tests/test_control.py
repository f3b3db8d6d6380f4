"""The control socket's messages, and clients that keep to nothing."""

import errno
import os
import random
import struct
from collections.abc import AsyncIterator
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import trio

import piker_core as pk
from piker_core import control, control_server, control_socket
from piker_core.control import Ask, Fed, Leased, Refused, frame_message
from piker_core.control_server import Server
from piker_core.errors import DataThrottle
from tests.control_clients import (
    PROVIDER,
    Desk,
    assert_serves,
    connect,
    connect_raw,
    count_files,
    hear,
    open_server,
    told_decoder,
    wait_until,
)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def server(desk: Desk, namespace: str) -> AsyncIterator[Server]:
    async with open_server(desk, namespace) as server:
        yield server


# Leases


async def test_an_ask_is_held_until_its_connection_closes(
    server: Server, desk: Desk
) -> None:
    with connect(server.namespace) as link:
        await link.send(Ask(1, ["xbtusd", "ethusd", "xbtusd"], within_s=3.0))
        answer = await hear(link)
        assert isinstance(answer, Fed) and set(answer.quotes) == {"xbtusd", "ethusd"}
        assert desk.held == ["xbtusd", "ethusd"]
        assert desk.asked == [{"within_s": 3.0, "patient": False}]
        await link.send(Ask(2, ["mlneur"], patient=True))
        assert (await hear(link)) == Fed(2, {"mlneur": {"last": 1.5, "ticks": []}})
        assert desk.held == ["xbtusd", "ethusd", "mlneur"]
    await wait_until(lambda: not desk.held)


async def test_all_are_told_what_is_leased_when_it_changes(server: Server) -> None:
    with connect(server.namespace) as one, connect(server.namespace) as two:
        assert told_decoder.decode(await one.receive() or b"") == Leased([])
        await two.send(Ask(1, ["xbtusd"]))
        assert told_decoder.decode(await one.receive() or b"") == Leased(["xbtusd"])
        two.close()
        assert told_decoder.decode(await one.receive() or b"") == Leased([])


ERRORS = [
    pk.NotFound("fakevenue has no market 'x'"),
    pk.FeedError("nothing came"),
    pk.ConfigError("no such key"),
    pk.PikerError("anything"),
    pk.ProviderError("it refuses", frame=b"\x00raw"),
    pk.ProviderError("it refuses", frame="text"),
    DataThrottle("too often", retry_after=2.5),
    OSError("net"),
    OSError(errno.ENOSPC, "no space left in /dev/shm"),
    ConnectionRefusedError(errno.ECONNREFUSED, "refused", "host"),
    OSError(errno.EBADF, "bad", "7"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_an_error_has_its_class_and_its_text_at_the_asker(
    error: Exception, server: Server, desk: Desk
) -> None:
    desk.error = error
    with connect(server.namespace) as link:
        await link.send(Ask(1, ["xbtusd"]))
        refused = await hear(link)
        assert isinstance(refused, Refused) and refused.id == 1
        came = control.refused_error(refused)
        assert type(came) is type(error) and str(came) == str(error)
        for name in ("frame", "retry_after", "errno", "filename"):
            assert getattr(came, name, None) == getattr(error, name, None)
        desk.error = None
        await link.send(Ask(2, ["xbtusd"]))
        assert isinstance(await hear(link), Fed)


async def test_what_no_text_can_express_is_told_as_well_as_can_be(
    server: Server, desk: Desk
) -> None:
    for error in (
        pk.ProviderError("\udc80 is odd", frame="\udc80"),
        OSError(errno.ENOENT, "missing", b"/tmp/\x80"),
        OSError(errno.EBADF, "bad", 7),
        KeyError("\udc80"),
    ):
        desk.error = error
        with connect(server.namespace) as link:
            await link.send(Ask(1, ["xbtusd"]))
            assert isinstance(await hear(link), Refused)


async def test_an_error_of_a_providers_own_class_comes_as_the_one_it_derives_from(
    server: Server, desk: Desk
) -> None:
    class Special(pk.ProviderError):
        pass

    desk.error = Special("odd")
    with connect(server.namespace) as link:
        await link.send(Ask(1, ["xbtusd"]))
        refused = await hear(link)
        assert isinstance(refused, Refused)
        assert type(control.refused_error(refused)) is pk.ProviderError


async def test_a_bug_of_the_provider_is_a_feed_error_that_names_the_process(
    server: Server, desk: Desk
) -> None:
    desk.error = KeyError("oops")
    with connect(server.namespace) as link:
        await link.send(Ask(1, ["xbtusd"]))
        refused = await hear(link)
        assert isinstance(refused, Refused)
        error = control.refused_error(refused)
        assert isinstance(error, pk.FeedError)
        assert f"process {os.getpid()} failed: KeyError: 'oops'" in str(error)


def test_an_error_of_a_newer_writer_is_a_feed_error() -> None:
    error = control.refused_error(Refused("text", kind="NotYetThought"))
    assert type(error) is pk.FeedError and "NotYetThought: text" in str(error)
    assert type(control.refused_error(Refused("x", kind="errors"))) is pk.FeedError


def test_quotes_are_told_as_plain_numbers_and_texts() -> None:
    import numpy as np

    quote = {
        "last": np.float64(2.5),
        "bid": Decimal("1.25"),
        "big": 2**70,
        "ask": True,
        "x": object(),
        "n": 3,
    }
    quotes = {"a": quote | {"ticks": [object()], "text": "t", "none": None}}
    plain = control_server.plain_quotes(quotes)
    want = {"last": 2.5, "bid": 1.25, "big": None, "ask": True, "n": 3}
    assert plain == {"a": want | {"ticks": [], "text": "t", "none": None}}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plain)) == plain


# The protocol, kept to or not


async def test_bytes_may_come_one_at_a_time(server: Server, desk: Desk) -> None:
    async with connect_raw(server.namespace) as client:
        for byte in frame_message(Ask(1, ["xbtusd"])):
            await client.send_all(bytes([byte]))
            await trio.lowlevel.checkpoint()
        await wait_until(lambda: desk.held == ["xbtusd"])


async def test_messages_may_come_all_at_once(server: Server, desk: Desk) -> None:
    async with connect_raw(server.namespace) as client:
        await client.send_all(b"".join(frame_message(Ask(i, ["a"])) for i in range(9)))
        await wait_until(lambda: desk.held == ["a"] * 9)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "stop_everything", "id": 3},
        {"type": "ask", "id": "three", "symbols": ["xbtusd"]},
        {"type": "ask", "id": 3},
        {"type": "ask", "id": 3, "symbols": []},
        {"type": "ask", "id": 3, "symbols": ["XBT/USD"]},
        {"type": "ask", "id": 3, "symbols": ["../../etc"]},
        {"type": "ask", "id": 3, "symbols": ["xbtusd"], "within_s": float("nan")},
        {"type": "ask", "id": 3, "symbols": ["xbtusd"], "within_s": -1},
        [],
        None,
        "text",
    ],
    ids=str,
)
async def test_a_message_that_is_none_is_refused_and_the_connection_goes_on(
    message: Any, server: Server, desk: Desk
) -> None:
    content = msgspec.msgpack.encode(message)
    with connect(server.namespace) as link:
        await link._stream.send_all(struct.pack(">I", len(content)) + content)
        answer = await hear(link)
        assert isinstance(answer, Refused) and answer.id == 0
        assert answer.text.startswith("a message is refused: ")
        assert not desk.asked
        await link.send(Ask(1, ["xbtusd"]))
        assert isinstance(await hear(link), Fed)


async def test_fields_that_are_not_known_are_ignored(server: Server) -> None:
    message = {"type": "ask", "id": 1, "symbols": ["xbtusd"], "colour": {"a": [1]}}
    content = msgspec.msgpack.encode(message)
    with connect(server.namespace) as link:
        await link._stream.send_all(struct.pack(">I", len(content)) + content)
        assert isinstance(await hear(link), Fed)


@pytest.mark.parametrize("length", [control.MOST_ASKED + 1, 1 << 31, 0xFFFFFFFF])
async def test_a_giant_length_is_refused_before_it_is_read(
    length: int, server: Server
) -> None:
    with connect(server.namespace) as link:
        await link._stream.send_all(struct.pack(">I", length) + b"x")
        answer = await hear(link)
        assert isinstance(answer, Refused) and f"{length} bytes" in answer.text
        with pytest.raises(EOFError):
            await hear(link)
    await assert_serves(server)


async def test_nonsense_without_end_ends_the_connection(server: Server) -> None:
    with connect(server.namespace) as link:
        for _ in range(control_server.MOST_BAD):
            await link._stream.send_all(struct.pack(">I", 1) + b"\xc1")
            assert isinstance(await hear(link), Refused)
        with pytest.raises(EOFError):
            await hear(link)


async def test_asks_without_end_are_refused(server: Server, desk: Desk) -> None:
    with connect(server.namespace) as link:
        for number in range(control_server.MOST_ASKS):
            await link.send(Ask(number, ["xbtusd"]))
            assert isinstance(await hear(link), Fed)
        await link.send(Ask(1000, ["ethusd"]))
        answer = await hear(link)
        assert isinstance(answer, Refused) and "at most 64 asks" in answer.text
        assert set(desk.held) == {"xbtusd"}


@pytest.mark.parametrize("seed", range(4))
async def test_garbage_harms_nobody(seed: int, server: Server, desk: Desk) -> None:
    rng = random.Random(seed)
    ask = frame_message(Ask(1, ["xbtusd"]))
    with connect(server.namespace) as other:
        await other.send(Ask(5, ["ethusd"]))
        assert isinstance(await hear(other), Fed)
        for _ in range(100):
            junk = bytearray(rng.randbytes(rng.randrange(1, 200)))
            if rng.random() < 0.7:  # a message with some bytes changed
                junk = bytearray(ask * rng.randrange(1, 4))
                for _ in range(rng.randrange(1, 5)):
                    junk[rng.randrange(len(junk))] = rng.randrange(256)
            async with connect_raw(server.namespace) as client:
                await client.send_all(bytes(junk[: rng.randrange(1, len(junk) + 1)]))
                await trio.lowlevel.checkpoint()
        await wait_until(lambda: desk.held == ["ethusd"])
        await assert_serves(server)


async def test_deeply_nested_nonsense_is_refused(server: Server) -> None:
    content = b"\x81\xa1x" * 60_000
    with connect(server.namespace) as link:
        await link._stream.send_all(struct.pack(">I", len(content)) + content)
        assert isinstance(await hear(link), Refused)
    await assert_serves(server)


async def test_who_says_nothing_is_sent_away(
    server: Server, autojump_clock: trio.testing.MockClock
) -> None:
    with connect(server.namespace) as link:
        answer = await hear(link)
        assert isinstance(answer, Refused) and "within 10 s" in answer.text
        assert trio.current_time() >= control_server.ASK_S
        with pytest.raises(EOFError):
            await hear(link)


async def test_who_does_not_end_a_message_is_sent_away(
    server: Server, autojump_clock: trio.testing.MockClock
) -> None:
    framed = frame_message(Ask(2, ["xbtusd"]))
    with connect(server.namespace) as link:
        await link.send(Ask(1, ["xbtusd"]))
        assert isinstance(await hear(link), Fed)
        await trio.sleep(100 * control_server.ASK_S)  # it may be silent for ever
        await link._stream.send_all(framed[:-1])
        answer = await hear(link)
        assert isinstance(answer, Refused) and "within 10 s" in answer.text


async def test_a_thousand_connections_harm_nobody(server: Server, desk: Desk) -> None:
    before = count_files()
    with connect(server.namespace) as other:
        await other.send(Ask(5, ["ethusd"]))
        assert isinstance(await hear(other), Fed)
        refused = 0
        links = []
        for _ in range(1000):
            link = connect(server.namespace)
            await trio.testing.wait_all_tasks_blocked()
            links.append(link)
        for link in links[control_server.MOST_LINKS :]:
            answer = await hear(link)
            assert isinstance(answer, Refused) and "256 connections" in answer.text
            refused += 1
        assert refused == 1000 - control_server.MOST_LINKS
        assert desk.held == ["ethusd"]
        for link in links:
            link.close()
        await wait_until(lambda: len(server._links) == 1)
        await assert_serves(server)
    await wait_until(lambda: count_files() == before)


async def test_connections_that_nobody_lets_in_are_busy_not_missing(
    namespace: str,
) -> None:
    with Server(PROVIDER, namespace) as server, server.listening():
        with ExitStack() as waiting:

            def connect_without_end() -> None:
                while sock := control_socket.connect(PROVIDER, namespace):
                    waiting.enter_context(sock)

            with pytest.raises(BlockingIOError):
                connect_without_end()


async def test_who_does_not_read_is_not_waited_for(server: Server, desk: Desk) -> None:
    symbols = [f"market{number:04}" for number in range(2000)]
    with connect(server.namespace) as deaf:
        await deaf.send(Ask(1, symbols))
        await wait_until(lambda: len(desk.held) == len(symbols))
        for number in range(100):  # each is told of the others' leases, 30 kB a time
            with connect(server.namespace) as link:
                await link.send(Ask(number, ["xbtusd"]))
                assert isinstance(await hear(link), Fed)
        assert len(desk.held) >= len(symbols)
    await wait_until(lambda: not desk.held)
