"""A market against the plain rules: trades in any order, clock, status, gaps."""

import gc
import os
from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest
from bar_model import MarketModel
from bar_rows import NS, Trade, tick_array
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import piker_core as pk
from piker_core.dtypes import STATUSES

T0 = 1_732_320_000
FQME = "xbtusd.kraken"
SLOW = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
_namespaces = (f"machine{os.getpid()}x{number}" for number in count())

seconds = st.one_of(
    st.integers(-3, 3),
    st.integers(-40, 70),
    st.sampled_from([-900, -61, 60, 299, 301, 700]),
)
offsets = st.sampled_from([0, 0, 1, 499_999_999, 500_000_000, 999_999_999])
prices = st.integers(990, 1010).map(lambda tenths: tenths / 10)
sizes = st.sampled_from([0.0, 1e-8, 0.1, 0.1, 0.25, 0.3, 7.0, 123.45678901, 1e6])
ids = st.one_of(st.just(0), st.integers(1, 30), st.integers(-3, 10_000))


@st.composite
def sessions(draw: st.DrawFn) -> list[tuple[int, int]] | None:
    """None: always open; else spans, in ns from now."""
    if draw(st.booleans()):
        return None
    times = st.tuples(st.integers(-70, 700), offsets)
    some = sorted(draw(st.sets(times, max_size=10)))
    spans = [(second * NS + ns) for second, ns in some]
    if len(spans) > 2 and draw(st.booleans()):
        spans.insert(2, spans[1])  # two that touch
    return list(zip(spans[::2], spans[1::2], strict=False))


@st.composite
def trades(draw: st.DrawFn) -> list[tuple[int, int, float, float, int, int]]:
    """Trades that arrive together: seconds and nanoseconds from now, and the rest."""
    spread = draw(seconds)
    some = st.tuples(
        st.integers(-4, 4).map(lambda second: second + spread),
        offsets,
        prices,
        sizes,
        ids,
        st.sampled_from([1, 1, 3]),
    )
    return draw(st.lists(some, min_size=1, max_size=6))


def tick_dict(trade: Trade) -> dict[str, Any]:
    return {
        "type": "trade",
        "price": trade.price,
        "size": trade.size,
        "time_ns": trade.time_ns,
        "id": trade.id,
        "count": trade.count,
    }


@pytest.fixture(scope="module", autouse=True)
def only_what_is_new_is_collected() -> Iterator[None]:
    """A collection need not look through all that other tests have left."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class MarketMachine(RuleBasedStateMachine):
    """One market and its model, which must agree after every call."""

    @initialize(
        periods=st.sampled_from([(1, 60), (1,), (5, 60, 300), (1, 7), (60,)]),
        fill=st.sampled_from(["flat", "flat", "none"]),
        window=st.sampled_from([0, 5, 900]),
        live=st.booleans(),
        spans=sessions(),
    )
    def open(
        self,
        periods: tuple[int, ...],
        fill: str,
        window: float,
        live: bool,
        spans: list[tuple[int, int]] | None,
    ) -> None:
        self.namespace = next(_namespaces)
        self.periods, self.fill, self.window = periods, fill, window
        self.now = T0
        self.opened = 0
        self.sessions = self.at_now(spans)
        self.open_engine()
        capacities = {
            period: ring.capacity for period, ring in self.market.bars.items()
        }
        self.model = MarketModel(
            capacities, fill=fill, late_window_s=window, sessions=self.sessions
        )
        self.readers = {
            period: pk.attach_bars(FQME, period=period, namespace=self.namespace)
            for period in periods
        }
        if live:
            self.set_status("live", None)

    def open_engine(self) -> None:
        self.engine = pk.open_engine(
            "kraken",
            namespace=self.namespace,
            tick_capacity=4096,
            late_window_s=self.window,
        )
        self.market = self.engine.add_market(
            FQME,
            periods=self.periods,
            fill=self.fill,
            capacity=dict.fromkeys(self.periods, 256),
            sessions=self.sessions,
        )

    def at_now(self, spans: list[tuple[int, int]] | None) -> Any:
        if spans is None:
            return None
        return [(self.now * NS + start, self.now * NS + end) for start, end in spans]

    def teardown(self) -> None:
        if hasattr(self, "namespace"):
            for reader in self.readers.values():
                reader.close()
            self.engine.close()
            pk.remove_segments(self.namespace)

    @rule(some=trades(), way=st.sampled_from(["each", "quote", "batch"]))
    def push(
        self, some: list[tuple[int, int, float, float, int, int]], way: str
    ) -> None:
        pushed = [
            Trade((self.now + second) * NS + ns, price, size, trade_id, number)
            for second, ns, price, size, trade_id, number in some
        ]
        taken = self.model.trades(pushed)
        if way == "quote":
            quote = {"symbol": "xbtusd", "ticks": [tick_dict(t) for t in pushed]}
            assert self.engine.push(quote) == taken
        elif way == "batch":
            assert self.engine.push_ticks(self.market, tick_array(pushed)) == taken
        else:
            for t in pushed:
                self.engine.push_trade(
                    self.market, t.time_ns, t.price, t.size, t.id, count=t.count
                )

    @rule(
        ahead=st.one_of(st.integers(-2, 3), st.sampled_from([60, 400, 20_000])),
        ns=offsets,
    )
    def step(self, ahead: int, ns: int) -> None:
        self.now = max(self.now, self.now + ahead)
        now_ns = (self.now + min(ahead, 0)) * NS + ns
        self.engine.step(now_ns)
        self.model.step(now_ns)

    @rule(
        status=st.sampled_from([*STATUSES, "live", "live"]), since=st.none() | seconds
    )
    def set_status(self, status: str, since: int | None) -> None:
        since_ns = None
        if since is not None and status == "live":
            since_ns = (self.now + since) * NS + 1
        self.market.set_status(status, since_ns=since_ns)
        self.model.set_status(status, since_ns)

    @rule(spans=sessions())
    def set_sessions(self, spans: list[tuple[int, int]] | None) -> None:
        self.sessions = self.at_now(spans)
        self.market.set_sessions(self.sessions)
        self.model.set_sessions(self.sessions)

    @rule(start=seconds, length=st.integers(0, 70), ns=offsets)
    def open_gap(self, start: int, length: int, ns: int) -> None:
        start_ns = (self.now + start) * NS + ns
        self._gap(start_ns, start_ns + length * NS, repaired=False)

    @precondition(lambda self: self.model.open_gaps)
    @rule(which=st.integers(0, 31), longer=st.sampled_from([0, 0, 0, 5]))
    def close_gap(self, which: int, longer: int) -> None:
        gaps = list(self.model.open_gaps.items())
        start_ns, end_ns = gaps[which % len(gaps)]
        self._gap(start_ns, end_ns + longer * NS, repaired=True)

    @rule(start=seconds, length=st.integers(0, 70))
    def repair_at_once(self, start: int, length: int) -> None:
        start_ns = (self.now + start) * NS
        self._gap(start_ns, start_ns + length * NS, repaired=True)

    def _gap(self, start_ns: int, end_ns: int, *, repaired: bool) -> None:
        self.market.add_gap(
            start_ns=start_ns, end_ns=end_ns, cause="lost", repaired=repaired
        )
        self.model.add_gap(start_ns, end_ns, "lost", repaired=repaired)

    @rule(
        period=st.integers(0, 4),
        rows=st.lists(st.tuples(prices, sizes, st.integers(0, 3)), max_size=9),
        hole=st.integers(0, 2),
    )
    def prepend(
        self, period: int, rows: list[tuple[float, float, int]], hole: int
    ) -> None:
        chosen = self.periods[period % len(self.periods)]
        times = self.market.bars[chosen].times()
        end = times[0] if times else (self.now - self.now % chosen)
        history = np.zeros(len(rows), pk.OHLCV_DTYPE)
        history["time"] = end - (np.arange(len(rows), 0, -1) + hole) * chosen
        after = self.readers[chosen].snapshot(self.readers[chosen].capacity)[:1]
        for row, (price, size, number) in zip(history[::-1], rows, strict=True):
            row["volume"], row["count"] = size, number
            is_flat = len(after) and not after["count"] and not after["volume"]
            row["close"] = after["close"][0] if is_flat else price
            row["open"] = row["bar_wap"] = row["close"] + (0.5 if size or number else 0)
            row["high"], row["low"] = row["open"], row["close"]
            after = np.atleast_1d(row)
        assert self.market.bars[chosen].prepend(history) == self.model.prepend(
            chosen, history
        )

    @rule(cleanly=st.booleans())
    def reopen(self, cleanly: bool) -> None:
        self.opened += 1
        if cleanly:
            self.engine.close()
        else:  # as a death would: nothing is said to anyone
            del self.engine, self.market
            gc.collect()
        self.open_engine()
        self.model.reopen()

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "namespace"):
            return
        for ring in self.model.rings:
            reader = self.readers[ring.period]
            rows, wanted = reader.snapshot(reader.capacity), ring.array()
            assert (reader.first, len(rows)) == (ring.first, len(wanted))
            for name in rows.dtype.names or ():
                differ = np.flatnonzero(rows[name] != wanted[name])
                assert not len(differ), (name, rows[differ[:3]], wanted[differ[:3]])
            records = [
                (gap["start_ns"], gap["end_ns"], gap["cause"].decode(), gap["repaired"])
                for gap in reader.gaps()
            ]
            assert records == [
                (gap.start_ns, gap.end_ns, gap.cause, gap.repaired)
                for gap in ring.records
            ]
            assert reader.statistics() == self.market.statistics()
        assert self.market.statistics() == self.model.counters
        assert {reader.status for reader in self.readers.values()} == {
            self.model.status
        }
        assert self.market.status == self.model.status
        assert self.market.feed_status == self.model.feed_status


MarketMachine.TestCase.settings = SLOW
TestMarketMachine = MarketMachine.TestCase
