"""Several strategies at one gateway, in one process and in more: who hears what, who
goes on when one is gone, and what strangers can do to it."""

import os
import signal
import sqlite3
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

import piker_core as pk
from piker_core.control_socket import connect_to, paths_of
from piker_core.ems import desk
from piker_core.ems.database import database_path, open_database, open_reader
from piker_core.ems.gateway import Gateway
from piker_core.ems.link import (
    Ask,
    Done,
    Hello,
    Refused,
    Welcome,
    decode_told,
    socket_name,
)
from piker_core.errors import OrderError
from piker_core.orders import Cancel, Order, Update
from tests.commands import invoke, run, told_once
from tests.ems_stage import (
    FQME,
    Peers,
    Stage,
    open_peers,
    open_stage,
    order,
    trader,
    until,
)

LENGTH = struct.Struct(">I")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("PIKER_STATE", str(folder))
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    monkeypatch.setenv("PIKER_EMS__SYNC", "normal")
    return folder


@pytest.fixture
def stage(namespace: str, state: Path) -> Iterator[Stage]:
    with open_stage(namespace) as opened:
        yield opened


@pytest.fixture
async def peers(namespace: str, stage: Stage) -> AsyncIterator[Peers]:
    async with open_peers(namespace) as opened:
        yield opened


# ---- who hears what ------------------------------------------------------------------


async def test_statuses_go_to_who_sent_and_positions_to_all(stage: Stage) -> None:
    async with trader() as one, trader() as other:
        await one.client.send(order("mine", 101))
        await other.client.send(order("yours"))
        await one.until("mine", "closed")
        await other.until("yours", "open")
        await until(lambda: one.held() == other.held() == Decimal("0.5"), "held")
        assert {status.oid for status in one.statuses} == {"mine"}
        assert {status.oid for status in other.statuses} == {"yours"}


async def test_who_asks_about_another_s_order_hears_what_becomes_of_it(
    stage: Stage,
) -> None:
    async with trader() as one, trader() as other:
        await one.client.send(order("it"))
        await one.until("it", "open")
        await other.client.cancel("it")
        await one.until("it", "canceled")
        await other.until("it", "canceled")


async def test_a_name_is_of_one_client_at_a_time(stage: Stage) -> None:
    async with trader(client="a"):
        with pytest.raises(pk.PikerError, match="a client 'a' is there already"):
            async with trader(client="a"):
                raise AssertionError
    async with trader(client="a"):
        pass


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb"])
async def test_a_name_that_cannot_be_one_is_refused(stage: Stage, name: str) -> None:
    with pytest.raises(pk.PikerError, match="1 to 64 printable characters"):
        async with trader(client=name):
            raise AssertionError


async def test_what_was_not_asked_for_is_told_again_after_a_failure(
    stage: Stage,
) -> None:
    class Failure(Exception):
        pass

    async def fail() -> None:
        async with pk.open_ems(FQME, client="a") as (client, stream, _, _, dialogs):
            await client.send(order("it", 101))
            while "it" not in dialogs or dialogs["it"].resp != "closed":
                await trio.sleep(0.005)
            assert (await stream.receive()).resp == "pending"
            await stream.receive()  # says that the first is taken care of
            raise Failure

    with pytest.raises(Failure):
        await fail()
    async with trader(client="a") as again:
        await again.until("it", "closed")
        assert again.resps("it") == ["open", "fill", "closed"]
    async with trader(client="a") as again:
        await again.client.send(order("other"))
        await again.until("other", "open")
        assert again.resps("it") == []


async def test_who_has_heard_all_is_told_nothing_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "LOOK_S", 0.005)
    async with trader() as one:
        await one.client.send(order("it", 101))
        await one.until("it", "closed")
        await trio.sleep(0.2)  # turns in which nothing else happens
    for number in range(2):
        async with trader() as one:
            await one.client.send(order(f"new{number}", 101))
            await one.until(f"new{number}", "closed")
            assert {status.oid for status in one.statuses} == {f"new{number}"}
            await trio.sleep(0.2)


async def test_a_strategy_that_closes_its_stream_harms_nobody(stage: Stage) -> None:
    async with trader() as one:
        async with pk.open_ems(FQME) as (client, stream, *_):
            async with stream:
                await client.send(order("first"))
            await client.send(order("his"))
            await one.client.send(order("it", 101))
            await one.until("it", "closed")
    async with pk.open_ems(FQME) as (client, stream, _, _, dialogs):
        await stream.aclose()
        await client.send(order("last"))
        await until(lambda: dialogs["last"].resp == "open", "it is open")


async def test_a_named_client_counts_its_requests_anew(stage: Stage) -> None:
    async with trader() as owner:
        for turn in range(3):
            async with trader(client="a") as one:
                for number in range(3 - turn):
                    await one.client.send(order(f"{turn}.{number}"))
        await until(lambda: not owner.dialogs, "its own dialogs are none")
    async with trader(client="a") as one:
        assert len(one.dialogs) == 6


async def test_a_client_that_has_left_is_not_kept(stage: Stage, state: Path) -> None:
    def kept() -> int:
        with open_reader(state, "kraken", "paper") as reader:
            return len(reader.sessions())

    async with trader():
        for number in range(5):
            async with trader() as one:
                await one.client.send(order(f"o{number}"))
        async with trader(client="a"):
            pass
        await until(lambda: kept() == 2, "the owner and the one with a name are kept")
        async with trader() as heir:
            assert len(heir.dialogs) == 5


async def test_orders_of_clients_that_are_gone_are_adopted(stage: Stage) -> None:
    async with trader() as owner:
        async with trader() as one, trader(client="a") as named:
            await one.client.send(order("orphan"))
            await named.client.send(order("named"))
            await one.until("orphan", "open")
            await named.until("named", "open")
        assert not owner.dialogs
        async with trader() as heir:
            assert {oid: s.resp for oid, s in heir.dialogs.items()} == {
                "orphan": "open"
            }
            await heir.client.cancel("orphan")
            await heir.until("orphan", "canceled")
        async with trader(client="a") as named:
            assert list(named.dialogs) == ["named"]


# ---- who goes on ---------------------------------------------------------------------


async def test_another_takes_over_when_the_owner_leaves(peers: Peers) -> None:
    owner = await peers.open()
    other = await peers.open()
    await owner.say("send", "first", 90, "live")
    await owner.until("first", "open")
    await other.say("send", "second", 95, "live")
    await other.until("second", "open")
    await owner.leave()
    await other.say("send", "third", 95, "live")
    await other.until("third", "open")
    assert other.statuses["second"] == ["pending", "open"]
    heir = await peers.open()
    await heir.say("dialogs")
    await heir.hears("dialogs first=open")


async def test_another_takes_over_when_the_owner_is_killed(
    peers: Peers, stage: Stage
) -> None:
    owner = await peers.open()
    other = await peers.open()
    await other.say("send", "rests", 95, "live")
    await other.until("rests", "open")
    await other.say("send", "dark", 105, "dark")
    await other.until("dark", "dark_open")
    await owner.kill()
    stage.trade(105.0)
    stage.quote(104.9, 105.0)
    await other.until("dark", "closed")
    stage.trade(94.0)
    await other.until("rests", "closed")
    assert other.statuses["dark"].count("triggered") == 1
    assert other.seqs == sorted(set(other.seqs))


async def test_requests_before_the_owner_s_end_are_done_once(peers: Peers) -> None:
    owner = await peers.open()
    other = await peers.open()
    oids = [f"o{number}" for number in range(200)]
    await other.say("burst", "o", len(oids))
    await other.hears("burst o")
    await owner.kill()
    for oid in oids:
        await other.until(oid, "open")
    assert {tuple(other.statuses[oid]) for oid in oids} == {("pending", "open")}


@pytest.mark.parametrize("manner", ["leave", "kill"])
async def test_orders_of_a_client_are_canceled_when_it_is_gone(
    stage: Stage, peers: Peers, manner: str
) -> None:
    async with trader() as owner:
        peer = await peers.open("--cancels")
        await owner.client.send(order("stays"))
        await peer.say("send", "goes", 90, "live")
        await peer.until("goes", "open")
        await getattr(peer, manner)()
        async with trader() as heir:
            await heir.until("goes", "canceled")
        assert owner.dialogs["stays"].resp == "open"


async def test_orders_of_an_owner_are_canceled_when_it_leaves(stage: Stage) -> None:
    async with trader(cancel_on_disconnect=True) as owner:
        await owner.client.send(order("goes"))
        await owner.until("goes", "open")
    async with trader() as after:
        await after.until("goes", "canceled")
        assert not after.dialogs.keys() - {"goes"}


async def test_orders_of_an_owner_are_canceled_when_it_is_cancelled(
    stage: Stage,
) -> None:
    with trio.CancelScope() as scope:
        async with trader(cancel_on_disconnect=True) as owner:
            await owner.client.send(order("goes"))
            await owner.until("goes", "open")
            scope.cancel()
            await trio.sleep_forever()
    async with trader() as after:
        await after.until("goes", "canceled")


async def test_orders_of_a_killed_owner_are_canceled_by_the_next(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await peers.open("--cancels")
    await owner.say("send", "goes", 90, "live")
    await owner.until("goes", "open")
    await owner.kill()
    monkeypatch.setattr(desk, "RETURN_S", 0.05)
    async with trader() as heir:
        await heir.until("goes", "canceled")


async def test_a_killed_client_that_has_a_name_gets_its_own_back(
    stage: Stage, peers: Peers
) -> None:
    async with trader() as owner:
        peer = await peers.open("--client", "a")
        await peer.say("send", "rests", 90, "live")
        await peer.say("send", "filled", 95, "live")
        await peer.until("filled", "open")
        await peer.kill()
        stage.trade(94.0)
        async with trader() as anyone:
            await anyone.client.send(order("new"))
            await anyone.until("new", "open")
            assert set(anyone.dialogs) == {"new"}
        assert not owner.statuses
        again = await peers.open("--client", "a")
        await again.until("filled", "closed")
        await again.say("dialogs")
        await until(lambda: "dialogs" in again.lines[-1], "its dialogs")
        assert "rests=open" in again.lines[-1]


async def test_a_client_that_does_not_read_is_let_go_and_comes_back(
    stage: Stage,
    peers: Peers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PIKER_EMS__QUEUE", "16")
    async with trader() as owner:
        peer = await peers.open()
        await peer.say("burst", "o", 1500)
        await peer.hears("burst o")
        await until(lambda: peer.statuses["o1499"], "the last one")
        peer.process.send_signal(signal.SIGSTOP)
        for number in range(1500):
            owner.client.cancel_nowait(f"o{number}")
        await owner.client.flush()
        await until(lambda: "let go" in caplog.text, "it is let go")
        peer.process.send_signal(signal.SIGCONT)
        for number in range(1500):
            await peer.until(f"o{number}", "canceled")
        assert peer.seqs == sorted(set(peer.seqs))
        heard = {tuple(resps) for resps in peer.statuses.values() if resps}
        assert heard == {("pending", "open", "canceled")}


async def test_a_forked_child_does_not_keep_the_account(peers: Peers) -> None:
    owner = await peers.open()
    await owner.say("fork")
    await until(lambda: "forked" in owner.lines[-1], "its child")
    child = int(owner.lines[-1].split()[1])
    try:
        other = await peers.open()
        await owner.kill()
        await other.say("send", "it", 90, "live")
        await other.until("it", "open")
    finally:
        os.kill(child, signal.SIGKILL)


async def test_two_state_folders_do_not_meet(
    stage: Stage, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trader() as one:
        await one.client.send(order("it"))
        monkeypatch.setenv("PIKER_STATE", str(state.parent / "other"))
        async with trader() as other:
            await other.client.send(order("it"))
            await other.until("it", "open")
        await one.until("it", "open")
        assert one.resps("it") == ["pending", "open"]


# ---- what cannot be an order ---------------------------------------------------------


async def test_a_trigger_without_any_price_ends_its_order_alone(
    namespace: str, state: Path
) -> None:
    with open_stage(namespace, priced=False) as stage:
        async with trader() as one:
            await one.client.send(order("dark", exec_mode="dark"))
            await one.client.send(order("alert", action="alert"))
            for oid in ("dark", "alert"):
                error = await one.until(oid, "error")
                assert "price" in getattr(error.brokerd_msg, "reason", "")
            stage.trade(100.0)
            await one.client.send(order("again", exec_mode="dark"))
            await one.until("again", "dark_open")
        async with trader() as heir:
            assert list(heir.dialogs) == ["again"]


async def test_half_a_turn_is_not_stored_when_the_gateway_fails(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Gateway.ask

    def fail(self: Gateway, session: str, request: Order | Update | Cancel) -> None:
        ask(self, session, request)
        raise ZeroDivisionError

    with (
        monkeypatch.context() as patch,
        pytest.RaisesGroup(
            ZeroDivisionError, flatten_subgroups=True, allow_unwrapped=True
        ),
    ):
        patch.setattr(Gateway, "ask", fail)
        async with pk.open_ems(FQME) as (client, *_):
            client.send_nowait(order("it"))
            await trio.sleep_forever()
    async with trader() as one:
        assert not one.dialogs
        await one.client.send(order("it"))
        await one.until("it", "open")


async def test_an_order_that_cannot_be_read_ends_and_others_go_on(
    stage: Stage, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with trader() as one:
        for oid in ("bad", "good"):
            await one.client.send(order(oid))
            await one.until(oid, "open")
    path = database_path(state, "kraken", "paper")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE orders SET dialog = x'8101' WHERE oid = 'bad'")
    connection.close()
    for number in range(2):
        async with trader() as one:
            assert list(one.dialogs) == ["good"]
            await one.client.send(order(f"next{number}", 101))
            await one.until(f"next{number}", "closed")
    assert caplog.text.count("order 'bad' cannot be read from") == 1


NO_ORDERS = [{"oco": None}, {"brokers": None}, {"price": None}, {"size": None}]
NO_ORDERS += [{"symbol": 7}, {"oco": "\ud800"}, {"version": 1 << 70}, {"tif": "gtc "}]


@pytest.mark.parametrize("wrong", NO_ORDERS, ids=repr)
async def test_what_cannot_be_an_order_is_refused_where_it_is_made(
    stage: Stage, wrong: dict[str, Any]
) -> None:
    async with trader() as owner, trader() as other:
        for one in (owner, other):
            with pytest.raises(OrderError) as raised:
                await one.client.send(order("wrong", **wrong))
            assert "\n" not in str(raised.value)
            with pytest.raises(OrderError, match="cannot be sent"):
                await one.client.cancel("\ud800")
            with pytest.raises(OrderError, match="cannot be sent"):
                one.client.update_nowait(None, price=1)  # type: ignore[arg-type]
        await owner.client.send(order("it"))
        await owner.until("it", "open")


# ---- strangers -----------------------------------------------------------------------


def own_socket(state: Path) -> str:
    return socket_name(state, "kraken", "paper")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


class Stranger:
    """Somebody at the socket."""

    def __init__(self, state: Path) -> None:
        sock = connect_to(own_socket(state))
        assert sock is not None
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._received = b""

    async def say(self, raw: bytes) -> None:
        await self.stream.send_all(LENGTH.pack(len(raw)) + raw)

    async def hears(self) -> object:
        """The next message, None at the end."""
        with trio.fail_after(30):
            while len(self._received) < 4 or len(self._received) < 4 + self._length():
                try:
                    chunk = await self.stream.receive_some(1 << 16)
                except trio.BrokenResourceError:
                    return None
                if not chunk:
                    return None
                self._received += chunk
        end = 4 + self._length()
        raw, self._received = self._received[4:end], self._received[end:]
        return decode_told(raw)

    def _length(self) -> int:
        return int(LENGTH.unpack(self._received[:4])[0])


WHY = "the gateway of this account refuses a client: "
HELLO = msgspec.msgpack.encode(Hello(session="stranger"))
ASK = {"msg": "ask", "number": 1, "request": {"msg": "cancel", "oid": "none"}}


def encode(message: object) -> bytes:
    return msgspec.msgpack.encode(message)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\xc1" * 50,
        b"\x91" * 5000,
        encode({"msg": "hello"}),
        encode({"msg": "hello", "session": ""}),
        encode({"msg": "hello", "session": "x" * 1000}),
        encode({"msg": "hello", "session": "x", "seq": 2**64 - 1}),
        encode({"msg": "hello", "session": "x", "version": 99}),
        encode(ASK),
        encode([1, 2, 3]),
        encode({"msg": "hello", "session": "fff"}).replace(b"fff", b"\xff\xff\xff"),
    ],
    ids=repr,
)
async def test_a_stranger_who_begins_with_nonsense_is_refused(
    stage: Stage, state: Path, first: bytes
) -> None:
    async with trader() as one:
        stranger = Stranger(state)
        await stranger.say(first)
        assert isinstance(await stranger.hears(), Refused)
        assert await stranger.hears() is None
        await stranger.stream.aclose()
        await one.client.send(order("it"))
        await one.until("it", "open")


async def test_a_message_too_long_to_be_one_ends_the_line_alone(
    stage: Stage, state: Path
) -> None:
    async with trader() as one:
        for said in (b"", HELLO):
            stranger = Stranger(state)
            if said:
                await stranger.say(said)
                assert isinstance(await stranger.hears(), Welcome)
            await stranger.stream.send_all(b"\xff" * 64)
            while (heard := await stranger.hears()) is not None:
                assert isinstance(heard, Refused)
            await stranger.stream.aclose()
        await one.client.send(order("it"))
        await one.until("it", "open")


BAD = [
    {"request": {"msg": "order"}},
    {"request": {"msg": "cancel", "oid": ["x"]}},
    {"request": {"msg": "order", "oid": "x", "price": "NaN"}},
    {"request": {"msg": "update", "oid": "x", "price": "-1"}},
    {"request": {"msg": "update", "oid": "x", "price": "1e999999999"}},
    {"request": 7},
    {},
]


@pytest.mark.parametrize("bad", BAD, ids=repr)
async def test_a_request_that_cannot_be_read_is_answered_by_its_number(
    stage: Stage, state: Path, bad: dict[str, object]
) -> None:
    async with trader() as one:
        stranger = Stranger(state)
        await stranger.say(HELLO)
        assert isinstance(await stranger.hears(), Welcome)
        await stranger.say(encode({"msg": "ask", "number": 5} | bad))
        done = await stranger.hears()
        assert isinstance(done, Done) and done.number == 5
        assert "cannot be read" in done.error
        await stranger.say(encode(Ask(6, order("his"))))
        while not isinstance(done := await stranger.hears(), Done):
            pass
        assert done == Done(6)
        await stranger.stream.aclose()
        await one.client.send(order("it"))
        await one.until("it", "open")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"\x91" * 5000,
        b"\x81" + b"\x81" * 5000,
        encode({"msg": "ask", "number": 2**64 - 1, "request": ASK["request"]}),
        encode({"msg": "ask", "number": "x", "request": ASK["request"]}),
        encode({"msg": "kill", "number": -5}),
        encode({"msg": "heard", "seq": 2**63}),
        encode({"msg": "heard", "seq": -2}),
        encode({"msg": "other"}),
        encode({"msg": "other"}).replace(b"other", b"\xf4\xf4\xf4\xf4\xf4"),
        b"\x81\x81\x01\x02\x03",
        b"\x81\x90\x01",
        encode(HELLO),
    ],
    ids=repr,
)
async def test_nonsense_of_a_client_harms_nobody(
    stage: Stage, state: Path, raw: bytes
) -> None:
    async with trader() as one:
        stranger = Stranger(state)
        await stranger.say(HELLO)
        assert isinstance(await stranger.hears(), Welcome)
        await stranger.say(raw)
        await stranger.say(encode(Ask(1, order("his"))))
        while not isinstance(heard := await stranger.hears(), Done) or heard.error:
            assert heard is not None
        await one.client.send(order("it"))
        await one.until("it", "open")
        await stranger.stream.aclose()


async def test_what_was_heard_that_was_never_said_loses_nothing(
    stage: Stage, state: Path
) -> None:
    async with trader():
        stranger = Stranger(state)
        await stranger.say(HELLO)
        await stranger.hears()
        await stranger.say(encode(Ask(1, order("it"))))
        await stranger.say(encode({"msg": "heard", "seq": 1 << 62}))
        while not isinstance(await stranger.hears(), Done):
            pass
        await stranger.stream.aclose()
    async with trader() as heir:
        assert heir.dialogs["it"].resp == "open"


async def test_the_socket_is_this_user_s_alone(stage: Stage, state: Path) -> None:
    async with trader():
        path = paths_of(own_socket(state))[0]
        assert mode(path) == 0o600
        assert mode(path.parent) == mode(state) == 0o700
        kept = database_path(state, "kraken", "paper")
        for name in (kept, f"{kept}.lock", f"{kept}-wal", f"{kept}-shm"):
            assert mode(Path(name)) == 0o600
    assert path not in list(path.parent.iterdir())


async def test_who_comes_back_to_a_seat_that_another_has_is_refused(
    stage: Stage, state: Path
) -> None:
    async with trader(), trader(client="a") as named:
        for life, seq in (("", 3), ("other", 0), ("", -1)):
            stranger = Stranger(state)
            hello = Hello(session="name:a", life=life, seq=seq)
            await stranger.say(encode(hello))
            refused = await stranger.hears()
            assert isinstance(refused, Refused) and "there already" in refused.reason
            await stranger.stream.aclose()
        await named.client.send(order("it"))
        await named.until("it", "open")


async def test_of_two_that_come_at_once_under_one_name_one_is_let_in(
    stage: Stage,
) -> None:
    refused = []

    async def come() -> None:
        try:
            async with trader(client="a") as one:
                await one.client.send(order(f"o{id(one)}"))
                await trio.sleep(0.2)
        except pk.PikerError as error:
            refused.append(str(error))

    async with trader(), trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(come)
    assert refused == [f"{WHY}a client 'a' is there already"] * 2


async def test_a_client_that_lost_its_line_comes_back_over_the_old_one(
    stage: Stage, state: Path
) -> None:
    async with trader():
        strangers = [Stranger(state) for _ in range(2)]
        for seq, stranger in zip((-1, 0), strangers, strict=True):
            await stranger.say(encode(Hello(session="one", life="its", seq=seq)))
            assert isinstance(await stranger.hears(), Welcome)
        for stranger in strangers:
            await stranger.stream.aclose()


async def test_many_lines_are_let_in_and_more_are_not(
    stage: Stage, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piker_core.ems.server.MOST_LINES", 2)
    async with trader():
        strangers = [Stranger(state) for _ in range(3)]
        for number, stranger in enumerate(strangers):
            hello = Hello(session=f"s{number}")
            try:
                await stranger.say(encode(hello))
            except trio.BrokenResourceError:
                assert number == 2
            assert isinstance(await stranger.hears(), Welcome) == (number < 2)
        for stranger in strangers:
            await stranger.stream.aclose()


# ---- paper and live ------------------------------------------------------------------


async def test_an_account_is_of_one_mode_for_ever(
    stage: Stage, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_ACCOUNT__OWN__LIVE", "true")
    async with trader(account="own"):
        with pytest.raises(pk.PikerError, match="open in paper mode, not in live mode"):
            async with trader(account="own", mode="live"):
                raise AssertionError
    with pytest.raises(pk.PikerError, match=r"orders of a paper account, .* live mode"):
        async with trader(account="own", mode="live"):
            raise AssertionError
    with open_database(state, "kraken", "real", mode="live"):
        pass
    with pytest.raises(pk.PikerError, match=r"orders of a live account, .* paper mode"):
        async with trader(account="real"):
            raise AssertionError
    async with trader(account="own"):
        pass


async def test_a_gateway_refuses_a_line_of_another_mode(
    stage: Stage, state: Path
) -> None:
    async with trader() as one:
        stranger = Stranger(state)
        await stranger.say(encode(Hello(session="live", mode="live")))
        refused = await stranger.hears()
        assert isinstance(refused, Refused) and "paper mode" in refused.reason
        await stranger.stream.aclose()
        await one.client.send(order("it"))
        await one.until("it", "open")


# ---- the file ------------------------------------------------------------------------


async def one_sentence(match: str) -> None:
    with pytest.raises(pk.PikerError, match=match) as raised:
        async with trader():
            raise AssertionError
    assert "\n" not in str(raised.value)


async def test_a_file_of_a_newer_version_is_refused(stage: Stage, state: Path) -> None:
    async with trader():
        pass
    with sqlite3.connect(database_path(state, "kraken", "paper")) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    await one_sentence("is of version 99, .*: install a newer one")


def write(path: Path, content: str) -> None:
    """A private file of this content."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(content)
    path.chmod(0o600)


async def test_a_file_that_is_no_database_is_refused(stage: Stage, state: Path) -> None:
    path = database_path(state, "kraken", "paper")
    write(path, "this is no database at all, whatever its name is" * 100)
    await one_sentence("is no database of orders")
    assert path.read_bytes().startswith(b"this is no database")


async def test_a_file_that_is_open_to_others_is_refused(
    stage: Stage, state: Path
) -> None:
    async with trader():
        pass
    path = database_path(state, "kraken", "paper")
    path.chmod(0o644)
    await one_sentence(f"{path} is open to others: chmod 600 {path}")


async def test_a_folder_that_cannot_be_one_is_refused(
    stage: Stage, state: Path
) -> None:
    write(state, "a file is in its place")
    with pytest.raises((OSError, pk.PikerError), match=str(state)):
        async with trader():
            raise AssertionError


# ---- commands ------------------------------------------------------------------------


async def test_an_order_that_is_canceled_unfilled_is_told_by_the_exit_code(
    stage: Stage, namespace: str
) -> None:
    async def code(*words: str) -> int:
        done = await trio.to_thread.run_sync(
            partial(run, "order", *words, env={"PIKER_NAMESPACE": namespace})
        )
        return done.returncode

    async with trader():
        buy = ("buy", FQME, "0.5")
        assert await code(*buy, "101", "--post-only") == 4
        assert await code(*buy, "90", "--tif", "ioc") == 4
        assert await code("sell", FQME, "0.5", "99", "--reduce-only") == 4
        assert await code("buy", FQME, "2000", "101", "--tif", "ioc") == 0
        assert await code(*buy, "90") == 0


def test_a_provider_that_there_is_not_leaves_no_file(state: Path) -> None:
    done = invoke("order", "buy", "xbtusd.nobody", "1", "5")
    assert "nobody" in told_once(done, 3)
    assert not list(state.glob("*.db*"))


@pytest.mark.parametrize("words", [["orders"], ["positions"], ["ledger"]], ids=repr)
def test_a_folder_that_cannot_be_written_is_named_by_who_reads(
    state: Path, words: list[str]
) -> None:
    with open_database(state, "kraken", "paper", mode="paper"):
        pass
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    way = ["unshare", "-m", "sh", "-c", script, str(state)]
    if subprocess.run([*way, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    done = subprocess.run(
        [*way, sys.executable, "-m", "piker_core", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5 and "no database" not in done.stderr
    assert f"its folder {state} must be writable" in done.stderr


def test_a_damaged_file_is_told_as_what_it_is(state: Path) -> None:
    with open_database(state, "kraken", "paper", mode="paper"):
        pass
    path = database_path(state, "kraken", "paper")
    raw = path.read_bytes()
    path.write_bytes(raw[:100] + b"\xff" * (len(raw) - 100))
    for words in ("orders", "positions", "ledger"):
        done = invoke(words)
        assert done.returncode == 5 and "no database" not in done.stderr
        assert "is malformed: look at its disk" in done.stderr
