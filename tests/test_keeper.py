"""Closed rows of rings in a store: new ones, changed ones, never less than before."""

import logging
import threading
import time
from typing import Any

import numpy as np
import pytest
import trio
import trio.lowlevel

import piker_core as pk
from piker_core import keeper
from piker_core.dtypes import BarFlag
from piker_core.keeper import RingKeeper, open_keeper
from tests.memory_store import MemoryStore

FQME = "xbtusd.kraken"
NS = 1_000_000_000
BASE = 1_700_000_040
"""A whole minute."""


def plain(rows: Any) -> Any:
    """What rows say, and their flags but the ring's own one."""
    own = rows.copy()
    own["index"] = 0
    own["flags"] &= ~int(BarFlag.BACKFILLED)
    return own.tolist()


def closed(bars: Any) -> Any:
    """All rows of a ring but the forming one."""
    return bars.snapshot(bars.capacity, end=bars.head - 1)


class Kept:
    """A market with one ring, its keeper and a store."""

    def __init__(self, engine: Any, capacity: int = 5000, since_ns: int = 0) -> None:
        self.engine = engine
        self.store = MemoryStore()
        self.market = engine.add_market(FQME, periods=(1,), capacity={1: capacity})
        self.market.set_status("live", since_ns=BASE * NS + since_ns)
        self.bars = pk.attach_bars(FQME)
        self.keeper = RingKeeper(self.store, self.bars)

    def trade(self, second: float, price: float, number: int) -> None:
        self.engine.push_trade(
            self.market, BASE * NS + int(second * NS), price, 1.0, id=number
        )

    def rows(self) -> Any:
        return self.store.read_ohlcv(FQME, 1)


@pytest.fixture
def forming(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands where the rings are: their newest row is forming."""
    monkeypatch.setattr("piker_core.keeper.time.time", lambda: BASE)


def open_engine() -> Any:
    return pk.open_engine("kraken", tick_capacity=1024)


def test_closed_rows_are_stored_and_the_forming_one_is_not(
    namespace: str, forming: None
) -> None:
    with open_engine() as engine:
        kept = Kept(engine)
        for second in range(50):
            kept.trade(second, 100.0 + second, second + 1)
            kept.keeper.keep()
            assert plain(kept.rows()) == plain(closed(kept.bars))
        assert len(kept.rows()) == 49
        kept.bars.close()
    written = [row for _, _, rows in kept.store.writes for row in rows["time"]]
    assert len(written) == 49


def test_the_newest_row_is_stored_when_it_is_over(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [float(BASE)]
    monkeypatch.setattr("piker_core.keeper.time.time", lambda: now[0])
    with open_engine() as engine:
        kept = Kept(engine)
        kept.trade(0, 100.0, 1)
        now[0] = BASE + 2.9
        kept.keeper.keep()
        assert not len(kept.rows())
        now[0] = BASE + 3.0
        kept.keeper.keep()
        assert len(kept.rows()) == 1
        kept.trade(0, 101.0, 2)
        kept.keeper.keep()
        assert kept.rows()["close"].tolist() == [101.0]
        kept.bars.close()


def test_a_late_trade_in_any_row_is_stored(namespace: str, forming: None) -> None:
    with open_engine() as engine:
        kept = Kept(engine, capacity=20_000)
        kept.trade(0, 100.0, 1)
        engine.step((BASE + 12_000) * NS)
        while kept.keeper.keep():
            pass
        writes = len(kept.store.writes)
        kept.keeper.keep()
        assert len(kept.store.writes) == writes
        for number, second in enumerate((11_990, 9_000, 5_000, 1)):
            kept.trade(second, 50.0 + number, number + 2)
            kept.keeper.keep()
            assert plain(kept.rows()) == plain(closed(kept.bars))
        assert len(kept.store.writes) == writes + 4
        kept.bars.close()


def test_a_gap_that_is_repaired_replaces_its_placeholders(
    namespace: str, forming: None
) -> None:
    gap = {"start_ns": (BASE + 10) * NS, "end_ns": (BASE + 20) * NS, "cause": "cut"}
    with open_engine() as engine:
        kept = Kept(engine)
        for second in range(10):
            kept.trade(second, 100.0, second + 1)
        kept.market.set_status("reconnecting")
        kept.market.add_gap(**gap)
        kept.market.set_status("live", since_ns=(BASE + 20) * NS)
        kept.trade(20, 100.0, 90)
        engine.step((BASE + 25) * NS)
        kept.keeper.keep()
        assert (kept.rows()["flags"] & int(BarFlag.SYNTHETIC_GAP)).any()
        for second in range(10, 20):
            kept.trade(second, 70.0 + second, second + 1)
        kept.market.add_gap(**gap, repaired=True)
        kept.keeper.keep()
        assert plain(kept.rows()) == plain(closed(kept.bars))
        assert not (kept.rows()["flags"] & int(BarFlag.SYNTHETIC_GAP)).any()
        kept.bars.close()


def test_history_that_is_put_below_is_stored_too(namespace: str, forming: None) -> None:
    with open_engine() as engine:
        kept = Kept(engine)
        kept.trade(0, 100.0, 1)
        kept.trade(3, 100.0, 2)
        kept.keeper.keep()
        rows = np.zeros(2000, pk.OHLCV_DTYPE)
        rows["time"] = np.arange(BASE - 2000, BASE)
        for field in ("open", "high", "low", "close", "bar_wap"):
            rows[field] = 9.0
        rows["volume"], rows["count"] = 1.0, 1
        kept.market.bars[1].prepend(rows)
        kept.keeper.keep()
        assert plain(kept.rows()) == plain(closed(kept.bars))
        assert len(kept.rows()) == 2003
        kept.bars.close()


@pytest.mark.parametrize("flag", [BarFlag.SYNTHETIC_GAP, BarFlag.PARTIAL])
def test_a_row_that_knows_less_replaces_none_that_knows_all(
    namespace: str, forming: None, flag: BarFlag
) -> None:
    with open_engine() as engine:
        partial = flag == BarFlag.PARTIAL
        kept = Kept(engine, since_ns=12 * NS + NS // 2 if partial else 0)
        exact = np.zeros(1, pk.OHLCV_DTYPE)
        exact["time"], exact["close"], exact["count"] = BASE + 12, 77.0, 5
        kept.store.write_ohlcv(FQME, 1, exact)
        if partial:
            kept.trade(12.7, 100.0, 1)
        else:
            kept.trade(10, 100.0, 1)
            kept.market.set_status("reconnecting")
            kept.market.set_status("live", since_ns=(BASE + 15) * NS)
        kept.trade(15, 100.0, 2)
        engine.step((BASE + 18) * NS)
        ring = kept.bars.between(BASE + 12, BASE + 13)
        assert ring["flags"][0] & int(flag)
        kept.keeper.keep()
        row = kept.store.read_ohlcv(FQME, 1, BASE + 12, BASE + 13)
        assert row["close"][0] == 77.0 and not row["flags"][0]
        kept.bars.close()


def test_a_new_keeper_of_old_rings_writes_only_what_the_store_lacks(
    namespace: str, forming: None
) -> None:
    with open_engine() as engine:
        kept = Kept(engine)
        for second in range(3000):
            kept.trade(second, 100.0 + second % 9, second + 1)
        kept.keeper.keep()
        kept.trade(3000, 100.0, 4000)
        kept.trade(7, 300.0, 4001)
        kept.store.writes.clear()
        RingKeeper(kept.store, kept.bars).keep()
        times = [int(t) for _, _, rows in kept.store.writes for t in rows["time"]]
        assert times == [BASE + 7, BASE + 2999]
        assert plain(kept.rows()) == plain(closed(kept.bars))
        kept.bars.close()


def test_what_a_store_does_not_take_is_stored_later(
    namespace: str, forming: None
) -> None:
    with open_engine() as engine:
        kept = Kept(engine)
        for second in range(10):
            kept.trade(second, 100.0, second + 1)
        kept.store.errors = [pk.StoreError("the disk is full")] * 3
        for _ in range(3):
            with pytest.raises(pk.StoreError, match="full"):
                kept.keeper.keep()
        kept.keeper.keep()
        assert plain(kept.rows()) == plain(closed(kept.bars))
        kept.bars.close()


def test_rows_that_fell_off_unstored_are_counted_once(
    namespace: str, forming: None
) -> None:
    with open_engine() as engine:
        kept = Kept(engine, capacity=128)
        kept.trade(0, 100.0, 1)
        kept.trade(5, 100.0, 2)
        kept.keeper.keep()
        for turn in range(1, 4):
            engine.step((BASE + turn * 200) * NS)
        kept.store.errors = [pk.StoreError("the disk is full")]
        with pytest.raises(pk.StoreError):
            kept.keeper.keep()
        kept.keeper.keep()
        assert kept.keeper.lost == kept.bars.first - (2**40 + 5) > 300
        assert plain(kept.rows())[5:] == plain(closed(kept.bars))
        kept.bars.close()


async def test_a_feed_keeps_its_rings_and_the_rest_at_the_end(
    namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "KEEP_S", 0.01)
    caplog.set_level(logging.WARNING, "piker_core.keeper")
    store, second = MemoryStore(), int(time.time()) - 60
    store.errors = [pk.StoreError("the server is gone"), ValueError("a bug")] * 2
    markets: dict[str, Any] = {}
    with open_engine() as engine:
        async with open_keeper(engine, store, markets):
            markets["a"] = engine.add_market(FQME, periods=(1, 60))
            engine.push_trade(markets["a"], second * NS, 5.0, 1.0, id=1)
            engine.step((second + 10) * NS)
            with trio.fail_after(20):
                while not len(store.read_ohlcv(FQME, 1)):
                    await trio.sleep(0.01)
            engine.step((second + 20) * NS)
        with pk.attach_bars(FQME) as bars:
            assert plain(store.read_ohlcv(FQME, 1)) == plain(bars.snapshot(99))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "server is gone" in said[0] and "again" in said[1]


async def test_a_store_that_hangs_holds_nothing_up(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "KEEP_S", 0.0)
    entered, go_on = threading.Event(), threading.Event()

    class Hanging(MemoryStore):
        def read_ohlcv(self, *span: Any) -> Any:
            entered.set()
            go_on.wait()
            return super().read_ohlcv(*span)

    store = Hanging()
    with open_engine() as engine:
        markets = {"a": engine.add_market(FQME, periods=(1,))}
        async with open_keeper(engine, store, markets):
            for number in range(1000):
                engine.push_trade(
                    markets["a"], (BASE + number) * NS, 5.0, 1.0, id=number + 1
                )
                await trio.lowlevel.checkpoint()
            await trio.to_thread.run_sync(entered.wait)
            assert markets["a"].statistics()["ticks"] == 1000
            go_on.set()
        assert len(store.read_ohlcv(FQME, 1)) == 1000


async def test_without_a_store_nothing_is_kept(namespace: str) -> None:
    with open_engine() as engine:
        before = trio.lowlevel.current_task().child_nurseries
        async with open_keeper(engine, None, {}):
            assert trio.lowlevel.current_task().child_nurseries == before


def test_two_threads_never_see_a_torn_row(namespace: str, forming: None) -> None:
    stop = threading.Event()
    with open_engine() as engine:
        kept = Kept(engine, capacity=4096)
        kept.trade(0, 100.0, 1)

        def keep() -> None:
            while not stop.is_set():
                kept.keeper.keep()

        thread = threading.Thread(target=keep)
        thread.start()
        for number in range(20_000):
            second = number // 10
            late = second - (number * 7919) % min(second + 1, 600)
            kept.trade(late, 100.0 + number % 13, number + 2)
        stop.set()
        thread.join()
        kept.keeper.keep()
        assert plain(kept.rows()) == plain(closed(kept.bars))
        kept.bars.close()
