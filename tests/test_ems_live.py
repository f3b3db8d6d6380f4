"""Orders through the gateway to a simulated Kraken, over real sockets."""

import logging
import os
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import pytest
import trio

import piker_core as pk
from piker_core.errors import ConfigError
from providers.kraken.venue import Venue
from tests.kraken_broker import LENIENT, SYMBOL, open_quiet_venue

PATIENCE_S = 30.0


class Desk:
    """A strategy that keeps all that it hears."""

    def __init__(self, opened: Any) -> None:
        self.client, self.stream, self.positions, _, self.dialogs = opened
        self.statuses: dict[str, list[pk.Status]] = defaultdict(list)
        self._news = trio.Event()

    async def listen(self) -> None:
        async for message in self.stream:
            if isinstance(message, pk.Status):
                self.statuses[message.oid].append(message)
            self._news.set()
            self._news = trio.Event()

    def resps(self, oid: str) -> list[str]:
        return [status.resp for status in self.statuses[oid]]

    async def wait(self, oid: str, resp: str, count: int = 1) -> pk.Status:
        with trio.fail_after(PATIENCE_S):
            while self.resps(oid).count(resp) < count:
                await self._news.wait()
        return self.statuses[oid][self.resps(oid).index(resp)]

    async def hold(self, size: D) -> None:
        with trio.fail_after(PATIENCE_S):
            while self.held() != size:
                await self._news.wait()

    def held(self) -> D:
        held = self.positions.get(("kraken", "kraken"), {}).get(SYMBOL)
        return D(0) if held is None else held.size

    async def send(self, oid: str, price: str, size: str, **more: Any) -> None:
        plain = {"action": "buy", "exec_mode": "live", "account": "kraken"}
        await self.client.send(
            pk.Order(oid=oid, symbol=SYMBOL, price=price, size=size, **(plain | more))
        )


@asynccontextmanager
async def open_desk(**options: Any) -> AsyncIterator[Desk]:
    async with pk.open_ems(SYMBOL, mode="live", **options) as opened:
        desk = Desk(opened)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.listen)
            yield desk
            nursery.cancel_scope.cancel()


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, namespace: str) -> None:
    """A state folder of its own, and an account that may trade."""
    monkeypatch.setenv("PIKER_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    monkeypatch.setenv("PIKER_NAMESPACE", namespace)
    monkeypatch.setenv("PIKER_ACCOUNT__KRAKEN__LIVE", "true")
    monkeypatch.setenv("PIKER_EMS__RECONCILE_S", "2")
    monkeypatch.setenv("PIKER_EMS__GRACE_S", "1")


@pytest.fixture
async def venue(allowed: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Venue]:
    async with open_quiet_venue() as opened:
        for key, value in (opened.config | LENIENT).items():
            monkeypatch.setenv(f"PIKER_KRAKEN__{key.upper()}", str(value))
        yield opened


async def test_an_order_lives_at_the_venue_as_it_does_here(venue: Venue) -> None:
    async with open_desk() as desk:
        await desk.hold(D(10))
        await desk.send("one", "80000", "0.03")
        reqid = str((await desk.wait("one", "open")).reqid)
        venue.orders.print_trade("BTC/USD", "80000", "0.01")
        await desk.wait("one", "fill")
        await desk.client.update("one", price="80001")
        await desk.wait("one", "open", 2)
        venue.orders.print_trade("BTC/USD", "80000.5", "5")
        closed = await desk.wait("one", "closed")
        assert isinstance(closed.brokerd_msg, pk.BrokerdStatus)
        assert closed.brokerd_msg.filled == D("0.03")
        await desk.hold(D("10.03"))
        assert venue.orders.accepted(reqid) == 1
        await desk.send("two", "80000", "0.01")
        await desk.wait("two", "open")
        await desk.client.cancel("two")
        await desk.wait("two", "canceled")
        await desk.send("three", "80000", "0.0000001")
        await desk.wait("three", "error")
    assert desk.resps("one")[:2] == ["pending", "open"]


async def test_what_happens_while_nobody_is_there_is_heard_by_the_next(
    venue: Venue,
) -> None:
    async with open_desk() as desk:
        await desk.hold(D(10))
        for oid in ("filled", "rests", "gone"):
            await desk.send(oid, "80000", "0.01")
            await desk.wait(oid, "open")
    gone = venue.orders.of(str(desk.dialogs["gone"].reqid))[0]
    venue.orders.cancel(gone)
    venue.orders.print_trade("BTC/USD", "80000", "0.01")
    async with open_desk() as desk:
        await desk.wait("filled", "closed")
        await desk.wait("gone", "canceled")
        assert desk.dialogs["rests"].resp == "open"
        await desk.hold(D("10.01"))


class Tape:
    """Trades in the rings, which this process writes."""

    def __init__(self, engine: pk.FeedEngine) -> None:
        self._engine, self._id = engine, 0

    def trade(self, price: float) -> None:
        self._id += 1
        tick = {"type": "trade", "price": price, "size": 0.1, "id": self._id}
        ticks = [tick | {"time_ns": time.time_ns()}]
        self._engine.push({"symbol": "xbtusd", "ticks": ticks})


@pytest.fixture
def tape(namespace: str) -> Iterator[Tape]:
    with pk.open_engine("kraken", namespace=namespace) as engine:
        engine.add_market(SYMBOL, price_tick="0.1", size_tick="1e-8").set_status("live")
        tape = Tape(engine)
        tape.trade(85000)
        yield tape


async def test_a_stop_that_was_reached_meanwhile_is_sent_at_the_next_start(
    venue: Venue, tape: Tape
) -> None:
    async with open_desk() as desk:
        await desk.send("stop", "60000", "0.01", action="sell", stop="84000")
        await desk.wait("stop", "dark_open")
    tape.trade(83999)
    async with open_desk() as desk:
        await desk.wait("stop", "closed")
    assert "error" not in desk.resps("stop")


async def test_a_stop_that_is_reached_without_a_link_is_sent_when_it_is_back(
    venue: Venue, tape: Tape
) -> None:
    async with open_desk() as desk:
        await desk.send("stop", "60000", "0.01", action="sell", stop="84000")
        await desk.wait("stop", "dark_open")
        venue.order_faults.cut()
        tape.trade(83999)
        await desk.wait("stop", "closed")
    assert "error" not in desk.resps("stop")


async def test_live_mode_has_to_be_allowed(
    allowed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIKER_ACCOUNT__KRAKEN__LIVE")
    with pytest.raises(ConfigError, match="live = true"):
        async with open_desk():
            raise AssertionError


async def test_keys_are_in_no_log_output_database_or_process(
    venue: Venue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All that a command says at DEBUG, and all that it leaves, without the keys."""
    secrets = [venue.config[name] for name in ("api_key", "api_secret")]
    words = ["order", "buy", SYMBOL, "0.01", "80000", "--live", "--debug", "--json"]
    command = [sys.executable, "-m", "piker_core", *words]
    said = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
    wrong = os.environ | {"PIKER_KRAKEN__API_SECRET": "d3Jvbmc="}
    failed = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False, env=wrong
    )
    assert said.returncode == 0 and b'"open"' in said.stdout
    assert failed.returncode != 0 and b"key" in failed.stderr.lower()
    caplog.set_level(logging.DEBUG)
    async with open_desk() as desk:
        await desk.send("mine", "80000", "0.01")
        await desk.wait("mine", "open")
        command_line = await trio.Path("/proc/self/cmdline").read_bytes()
    left = [path.read_bytes() for path in (tmp_path / "state").rglob("*.*")]
    everything = [said.stdout, said.stderr, failed.stdout, failed.stderr, command_line]
    texts = [caplog.text.encode(), *everything, *left]
    assert len(left) >= 2 and len(caplog.text) > 100 and len(said.stderr) > 100
    for secret in secrets:
        assert not any(secret.encode() in text for text in texts)
        assert venue.config["api_secret"].encode() not in said.stderr


async def test_accounts_that_may_not_trade_are_told_so(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_KRAKEN__API_KEY", "")
    with pytest.raises(ConfigError, match="api_key"):
        async with open_desk():
            raise AssertionError
