"""The paper engine behind a gateway: markets that come late, restarts, midnights."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import piker_core as pk
from piker_core.ems import markets, paper_broker, watch
from piker_core.orders import BrokerdError, BrokerdStatus
from tests.ems_stage import FQME, LIMIT_S, Stage, order, trader

OTHER = "ethusd.kraken"


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIKER_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    monkeypatch.setenv("PIKER_EMS__SYNC", "normal")
    monkeypatch.setattr(markets, "LOOK_S", 0.0)


class Writer:
    """A writer of some markets, each around 100."""

    def __init__(self, engine: Any, fqmes: tuple[str, ...]) -> None:
        self._engine = engine
        self.stages: dict[str, Stage] = {}
        for fqme in fqmes:
            self.add(fqme)

    def add(self, fqme: str) -> None:
        market = self._engine.add_market(
            fqme, price_tick="0.1", size_tick="0.001", capacity={1: 1024, 60: 256}
        )
        market.set_status("live")
        self.stages[fqme] = _Stage(self._engine, fqme.partition(".")[0])


class _Stage(Stage):
    def __init__(self, engine: Any, symbol: str) -> None:
        self._symbol = symbol
        super().__init__(_Renamed(engine, symbol))


class _Renamed:
    """An engine to which all that is pushed is of one market."""

    def __init__(self, engine: Any, symbol: str) -> None:
        self._engine, self._symbol = engine, symbol
        self.step = engine.step

    def push(self, message: dict[str, Any]) -> None:
        self._engine.push(message | {"symbol": self._symbol})


@contextmanager
def writing(namespace: str, *fqmes: str) -> Iterator[Writer]:
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=1 << 14) as engine:
        yield Writer(engine, fqmes)


async def _leave_orders_of_other(namespace: str) -> None:
    """Two orders of a market, one at the venue and a stop, are there afterwards."""
    with writing(namespace, FQME, OTHER):
        async with trader([FQME, OTHER], client="it") as one:
            await one.client.send(order("rests", 95, symbol=OTHER))
            await one.until("rests", "open")
            await one.client.send(order("stops", 94, "sell", stop=96, symbol=OTHER))
            await one.until("stops", "dark_open")
    pk.remove_segments(namespace)


async def test_orders_of_a_market_that_is_fed_later_live_again(namespace: str) -> None:
    await _leave_orders_of_other(namespace)
    with writing(namespace, FQME) as writer:
        async with trader(FQME, client="it") as one:
            writer.add(OTHER)
            await one.client.send(order("later", 95.5, symbol=OTHER))
            await one.until("later", "open")
            writer.stages[OTHER].trade(94.9)
            await one.until("rests", "fill")
            await one.until("stops", "triggered")


async def test_a_market_that_is_fed_later_is_found_without_a_request(
    namespace: str,
) -> None:
    await _leave_orders_of_other(namespace)
    with writing(namespace, FQME) as writer:
        async with trader(FQME, client="it") as one:
            writer.add(OTHER)
            with trio.fail_after(LIMIT_S):
                while "fill" not in one.resps("rests"):
                    writer.stages[OTHER].trade(94.9)
                    await trio.sleep(0.02)
            await one.until("stops", "triggered")


async def test_orders_of_a_market_that_is_not_fed_can_be_canceled(
    namespace: str,
) -> None:
    await _leave_orders_of_other(namespace)
    with writing(namespace, FQME) as writer:
        async with trader(FQME, client="it") as one:
            for oid in ("rests", "stops"):
                await one.client.cancel(oid)
                await one.until(oid, "canceled")
            writer.add(OTHER)
            await one.client.send(order("later", 95.5, symbol=OTHER))
            await one.until("later", "open")
            writer.stages[OTHER].trade(94)
            await one.until("later", "fill")
            assert one.resps("rests")[-1] == one.resps("stops")[-1] == "canceled"


async def test_rings_that_are_made_anew_may_number_markets_otherwise(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    with ExitStack() as before:
        before.enter_context(writing(namespace, FQME, OTHER))
        async with trader([FQME, OTHER]) as one:
            for oid, fqme in (("it", FQME), ("other", OTHER)):
                await one.client.send(order(oid, 95, symbol=fqme))
                await one.until(oid, "open")
            before.close()
            pk.remove_segments(namespace)
            with writing(namespace, OTHER, FQME) as writer, trio.fail_after(LIMIT_S):
                while "fill" not in one.resps("it"):
                    writer.stages[FQME].trade(94)
                    await trio.sleep(0.02)
            assert "fill" not in one.resps("other")


async def test_a_day_order_ends_at_the_begin_of_a_gateway_of_a_later_day(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(namespace, FQME) as writer:
        async with trader(client="it") as one:
            for oid, price, tif in (("of a day", 90, "day"), ("lasts", 80, "gtc")):
                await one.client.send(order(oid, price, tif=tif))
                await one.until(oid, "open")
        writer.stages[FQME].quote(89, 89.5)
        monkeypatch.setattr(paper_broker, "DAY_NS", time.time_ns())
        async with trader(client="it") as one:
            await one.client.send(order("of today", 80, tif="day"))
            status = await one.until("of a day", "canceled")
            assert _reason(status) == "the session is over"
            assert "fill" not in one.resps("of a day")
            await one.client.cancel("lasts")
            await one.until("lasts", "canceled")
        async with trader(client="it") as one:
            await one.client.cancel("of today")
            status = await one.until("of today", "canceled")
            assert _reason(status) == "canceled"


async def test_what_was_under_way_when_a_gateway_ended_is_not_sent_later(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(namespace, FQME) as writer:
        async with trader(client="it") as one:
            await one.client.send(order("rests"))
            await one.until("rests", "open")
        monkeypatch.setenv("PIKER_PAPER__LATENCY_S", "600")
        async with trader(client="it") as one:
            await one.client.send(order("new", 99))
            await one.until("new", "pending")
            await one.client.cancel("rests")
            await one.client.send(order("too", 90, "alert"))
            await one.until("too", "dark_open")
        monkeypatch.setenv("PIKER_PAPER__LATENCY_S", "0")
        async with trader(client="it") as one:
            for oid in ("new", "rests"):
                status = await one.until(oid, "error")
                assert _reason(status) == "was not sent: the gateway ended first"
            writer.stages[FQME].quote(98, 98.1)
            await one.client.cancel("rests")
            await one.until("rests", "canceled")
            assert one.resps("new")[-1] == "error"


def _reason(status: pk.Status) -> str:
    message = status.brokerd_msg
    assert isinstance(message, BrokerdStatus | BrokerdError)
    return message.reason
