"""Calls to an engine and its markets: arguments, ends of life, missing room."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from bar_rows import NS, Trade, tick_array
from test_full_shm import in_small_shm

import piker_core as pk

FQME = "xbtusd.kraken"
T0 = 1_732_320_000
SMALL = {1: 256, 60: 256}
__all__ = ["in_small_shm"]


@pytest.fixture
def engine(namespace: str) -> Iterator[Any]:
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=4096) as engine:
        yield engine


@pytest.fixture
def market(engine: Any) -> Any:
    market = engine.add_market(FQME, capacity=SMALL)
    market.set_status("live")
    engine.push_trade(market, T0 * NS, 5.0, 1.0, id=1)
    return market


# Arguments


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (pk.PikerError, {"provider": "a.b"}),
        (pk.PikerError, {"provider": ""}),
        (pk.PikerError, {"provider": "x" * 32}),
        (pk.PikerError, {"provider": "a\0b"}),
        (pk.PikerError, {"provider": None}),
        (ValueError, {"tick_capacity": 0}),
        (ValueError, {"tick_capacity": 1.5}),
        (ValueError, {"max_skew_s": -1}),
        (ValueError, {"max_skew_s": math.nan}),
        (ValueError, {"late_window_s": math.nan}),
        (ValueError, {"late_window_s": -0.1}),
        (TypeError, {"late_window_s": "900"}),
    ],
)
def test_an_engine_that_cannot_be_is_refused(
    error: Any, options: dict[str, Any], namespace: str
) -> None:
    provider = options.pop("provider", "kraken")
    with pytest.raises(error):
        pk.open_engine(provider, **options)
    assert not pk.list_segments(namespace)


def test_windows_without_end_are_taken(namespace: str) -> None:
    forever = {"max_skew_s": math.inf, "late_window_s": 1e300}
    with pk.open_engine("kraken", tick_capacity=64, **forever) as engine:
        market = engine.add_market(FQME, capacity=SMALL)
        assert engine.push_trade(market, 2_000_000_000 * NS, 1.0, 1.0) == 1
        assert engine.push_trade(market, 0, 1.0, 1.0) == 1


@pytest.mark.parametrize(
    "fqme", [None, 5, "", "xbtusd", ".kraken", "xbtusd.binance", "x" * 60 + ".kraken"]
)
def test_a_market_of_another_name_is_refused(fqme: Any, engine: Any) -> None:
    with pytest.raises(pk.PikerError):
        engine.add_market(fqme)


def test_a_market_is_there_once_by_each_of_its_names(engine: Any) -> None:
    engine.add_market("a.kraken", capacity=SMALL)
    for again in ("a.kraken", "a.kraken.kraken"):
        with pytest.raises(pk.PikerError, match="already"):
            engine.add_market(again, capacity=SMALL)


@pytest.mark.parametrize(
    "options",
    [
        {"periods": ()},
        {"periods": (0,)},
        {"periods": (1, 1)},
        {"periods": (1.5,)},
        {"periods": tuple(range(1, 10))},
        {"capacity": {1: 0}},
        {"fill": "flats"},
        {"bars_from": "last"},
        {"about": "text"},
        {"about": b"x" * 512},
        {"price_tick": "1" * 40},
    ],
)
def test_a_market_that_cannot_be_is_refused_and_can_be_added_after(
    options: dict[str, Any], engine: Any
) -> None:
    with pytest.raises(ValueError):
        engine.add_market(FQME, **({"capacity": SMALL} | options))
    engine.add_market(FQME, capacity=SMALL)


@pytest.mark.parametrize(
    ("error", "bad"),
    [
        (TypeError, 1.5),
        (TypeError, None),
        (TypeError, "1"),
        (ValueError, -1),
        (ValueError, 2**62 + 1),
        (ValueError, 2**70),
        (ValueError, 10**5000),
    ],
    ids=["float", "None", "text", "negative", "beyond", "long", "digits"],
)
def test_times_are_whole_nanoseconds(
    error: Any, bad: Any, engine: Any, market: Any
) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: engine.step(bad),
        lambda: market.add_gap(start_ns=bad, end_ns=2**62, cause="x"),
        lambda: market.add_gap(start_ns=0, end_ns=bad, cause="x"),
    ]
    if bad is not None:
        calls.append(lambda: market.set_status("live", since_ns=bad))
    with pk.attach_bars(FQME) as bars:
        for call in calls:
            with pytest.raises(error):
                call()
        assert bars.head - bars.first == 1 and len(bars.gaps()) == 0


def test_statuses_and_gaps_that_cannot_be_are_refused(market: Any) -> None:
    for status in ("alive", "", None, 1, []):
        with pytest.raises(ValueError, match="status"):
            market.set_status(status)
    with pytest.raises(ValueError, match="since_ns"):
        market.set_status("stale", since_ns=0)
    with pytest.raises(ValueError, match="none"):
        market.add_gap(start_ns=5, end_ns=4, cause="x")
    with pytest.raises(ValueError, match="ahead of the clock"):
        market.add_gap(start_ns=0, end_ns=2**62, cause="x", repaired=True)
    assert market.status == "live"


def test_a_cause_is_cut_between_two_characters(market: Any) -> None:
    market.add_gap(start_ns=0, end_ns=1, cause="\N{EURO SIGN}" * 20)
    with pk.attach_bars(FQME) as bars:
        assert bars.gaps()["cause"][0].decode() == "\N{EURO SIGN}" * 13


def history(count: int, end_s: int = T0) -> Any:
    rows = np.zeros(count, pk.OHLCV_DTYPE)
    rows["time"] = np.arange(end_s - count, end_s)
    for name in ("open", "high", "low", "close", "bar_wap", "volume"):
        rows[name] = 2.0
    rows["count"] = 1
    return rows


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        *(("time", bad) for bad in (T0 - 1, -5, 2**60)),
        *(("close", bad) for bad in (math.nan, math.inf)),
        *(("volume", -1.0), ("count", -1)),
    ],
)
def test_history_that_cannot_be_is_refused_whole(
    field: str, bad: Any, market: Any
) -> None:
    rows = history(4)
    rows[field][2 if field == "time" and bad > 0 else 0] = bad
    with pytest.raises(ValueError, match=r"history|times"):
        market.bars[1].prepend(rows)
    assert market.bars[1].times() == (T0, T0)


def test_history_that_is_no_array_of_rows_is_refused(market: Any) -> None:
    whole = history(4)
    without = np.zeros(4, [("time", "i8"), ("open", "f8")])
    for bad in (None, [1], np.zeros(3), whole.reshape(2, 2), without):
        with pytest.raises(ValueError, match="history"):
            market.bars[1].prepend(bad)
    floats = whole.astype([(name, "f8") for name in whole.dtype.names])
    floats["time"][1] += 0.5
    with pytest.raises(ValueError, match="whole numbers"):
        market.bars[1].prepend(floats)
    floats["time"][1] -= 0.5
    assert market.bars[1].prepend(floats) == 4


def test_history_off_its_period_is_refused(market: Any) -> None:
    rows = history(2, T0 - 58)
    with pytest.raises(ValueError, match="multiples of 60"):
        market.bars[60].prepend(rows)


def test_a_late_trade_goes_into_a_row_of_history(engine: Any, market: Any) -> None:
    """Its first and last trade are the venue's: which ones, only the venue knows."""
    rows = history(3)
    rows["count"][1], rows["volume"][1] = 0, 6.0  # a venue that does not count
    market.bars[1].prepend(rows)
    for second in (1, 2):
        engine.push_trade(market, (T0 - second) * NS + 5, 8.0, 2.0, id=70 + second)
    with pk.attach_bars(FQME) as bars:
        after = bars.snapshot(3, end=bars.head - 1)
    for row, volume in zip(after[1:], (8.0, 4.0), strict=True):
        assert (row["open"], row["close"], row["high"]) == (2.0, 2.0, 8.0)
        assert row["volume"] == volume
        assert row["bar_wap"] == (2.0 * (volume - 2.0) + 8.0 * 2.0) / volume
    assert after["count"].tolist() == [1, 1, 2]


# Ends of life


def test_a_closed_engine_refuses_everything_in_a_sentence(
    engine: Any, market: Any
) -> None:
    ring = market.bars[1]
    engine.close()
    engine.close()
    assert engine.closed
    calls: list[Callable[[], Any]] = [
        lambda: engine.push({"symbol": "xbtusd", "ticks": []}),
        lambda: engine.push_trade(market, T0 * NS, 1.0, 1.0),
        lambda: engine.push_trade(market, T0 * NS, -1.0, 1.0),
        lambda: engine.push_ticks(market, np.zeros(1, pk.TICK_DTYPE)),
        lambda: engine.step(T0 * NS),
        lambda: engine.add_market("ethusd.kraken"),
        engine.send_channel,
        lambda: market.set_status("live"),
        lambda: market.add_gap(start_ns=0, end_ns=1, cause="x"),
        lambda: ring.prepend(history(1)),
        ring.times,
    ]
    for call in calls:
        with pytest.raises(pk.PikerError, match="closed"):
            call()
    assert market.statistics()["ticks"] == 1
    with pk.attach_bars(FQME) as bars:
        assert bars.status == "stopped" and bars.last()["count"] == 1


def test_a_market_of_another_engine_is_refused(engine: Any, market: Any) -> None:
    with pk.open_engine("binance", tick_capacity=64) as other:
        for call in (
            lambda: other.push_trade(market, T0 * NS, 1.0, 1.0),
            lambda: other.push_ticks(market, np.zeros(1, pk.TICK_DTYPE)),
        ):
            with pytest.raises(pk.PikerError, match="another engine"):
                call()


FORK = """
import os, sys
import trio
import piker_core as pk
engine = pk.open_engine("kraken", tick_capacity=64)
market = engine.add_market("a.kraken", capacity={1: 256, 60: 256})
channel = engine.send_channel()
tick = {"type": "trade", "price": 1.0, "size": 1.0, "time": 5}
quote = {"symbol": "a", "ticks": [tick]}
child = os.fork()
if not child:
    assert engine.closed
    try:
        channel.send_nowait(quote)
    except trio.BrokenResourceError as error:
        assert "fork" in str(error)
        engine.close()
        os._exit(0)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert channel.send_nowait(quote) == 1 and not engine.closed
engine.close()
"""


def test_a_forked_child_cannot_send_and_its_parent_goes_on(namespace: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def reopened(engine: Any, **options: Any) -> tuple[Any, Any]:
    engine.close()
    again = pk.open_engine("kraken", tick_capacity=4096)
    return again, again.add_market(FQME, capacity=SMALL, **options)


def test_ids_and_the_newest_trade_are_known_again_after_a_restart(
    engine: Any, market: Any
) -> None:
    engine.push_trade(market, (T0 + 3) * NS, 7.0, 1.0, id=9)
    again, same = reopened(engine)
    with again:
        newest = same.last_id, same.last_time_ns, same.last_price
        assert newest == (9, (T0 + 3) * NS, 7.0)
        assert again.push_trade(same, (T0 + 3) * NS, 7.0, 1.0, id=9) == 0
        assert same.statistics()["duplicates"] == 1
        assert same.statistics()["ticks"] == 2


def test_the_newest_trade_is_known_when_other_markets_filled_the_tick_ring(
    engine: Any, market: Any
) -> None:
    engine.push_trade(market, (T0 + 3) * NS, 7.0, 1.0, id=9)
    other = engine.add_market("ethusd.kraken", capacity=SMALL)
    flood = tick_array([Trade(T0 * NS, 1.0, 1.0)] * 4096)
    engine.push_ticks(other, flood)
    again, same = reopened(engine)
    with again:
        assert (same.last_id, same.last_time_ns) == (9, (T0 + 3) * NS)
        assert same.last_price == 7.0


def test_open_gaps_are_open_again_after_a_restart(engine: Any, market: Any) -> None:
    for start in range(40):
        market.add_gap(start_ns=start * 10, end_ns=start * 10 + 5, cause="x")
    again, same = reopened(engine, fill="none")
    with again:
        same.add_gap(start_ns=390, end_ns=395, cause="x", repaired=True)
        with pk.attach_bars(FQME) as bars:
            assert bars.gaps()["repaired"].tolist() == [0] * 39 + [1]


def test_a_new_period_begins_where_it_is_added(engine: Any, market: Any) -> None:
    again, same = reopened(engine, periods=(1, 60, 300))
    with again:
        same.set_status("live")
        assert same.bars[300].times() == ()
        again.push_trade(same, (T0 + 9) * NS, 6.0, 2.0, id=5)
        for period, count in ((1, 1), (60, 2), (300, 1)):
            with pk.attach_bars(FQME, period=period) as bars:
                assert bars.last()["count"] == count


# Room that is not there

FULL = """
import errno, os
import numpy as np
import piker_core as pk
NS, BASE = 10**9, 1_600_000_020
engine = pk.open_engine("kraken", tick_capacity=1024)
market = engine.add_market("a.kraken", capacity={1: 10**6, 60: 10**6})
market.set_status("live")
ticks = np.zeros(2, pk.TICK_DTYPE)
ticks["type"], ticks["price"], ticks["size"], ticks["id"] = 1, 5.0, 1.0, [1, 2]
ticks["time_ns"] = [BASE * NS, (BASE + 300_000) * NS]
bars = [pk.attach_bars("a.kraken", period=period) for period in (1, 60)]
reader = pk.attach_ticks("kraken")

def state():
    rows = [each.snapshot(10**6).tobytes() for each in bars]
    return rows, reader.head, market.statistics(), market.last_id

def refused(call, *args):
    before = state()
    try:
        call(*args)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
    else:
        raise SystemExit("there is room for it")
    assert state() == before

refused(engine.push_ticks, market, ticks)
assert engine.push_trade(market, BASE * NS, 5.0, 1.0, id=1) == 1
refused(engine.push_trade, market, (BASE + 300_000) * NS, 5.0, 1.0, 2)
refused(engine.step, (BASE + 300_000) * NS)
market.set_status("reconnecting")
gap = {"start_ns": BASE * NS, "end_ns": (BASE + 300_000) * NS, "cause": "x"}
refused(lambda: market.add_gap(**gap, repaired=True))
assert len(bars[0].gaps()) == 0
assert engine.push_trade(market, (BASE + 1) * NS, 5.0, 1.0, id=2) == 1
"""


def test_rows_that_find_no_room_leave_all_as_it_was(
    in_small_shm: Callable[[str], str],
) -> None:
    in_small_shm(FULL)
