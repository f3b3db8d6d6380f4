"""Ticks out of TWS's messages: by tick, sampled, of quotes; recorded and composed."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

import piker_core as pk
from piker_core.calendars import NS
from providers.ib.tape import Tape, Tick, normalize_tick
from tests.ib_listing import FOREX, FUTURE, INDEX

T0 = 1_795_444_320
MARKS = SimpleNamespace(unreported=False, pastLimit=False)
DARK = SimpleNamespace(unreported=True, pastLimit=False)
PAST = SimpleNamespace(unreported=False, pastLimit=True)


def rt(price: float, size: int, ms: int, total: int) -> tuple[str, tuple[Any, ...]]:
    return "tickString", (48, f"{price};{size};{T0 * 1000 + ms};{total};1.0;true")


def each(
    second: int, price: float, size: float, marks: Any = MARKS
) -> tuple[str, tuple[Any, ...]]:
    return "tickByTickAllLast", (2, T0 + second, price, size, marks, "CME", "")


def play(
    tape: Tape, messages: Sequence[tuple[str, tuple[Any, ...]]], now_ns: int = T0 * NS
) -> list[Tick]:
    for name, arguments in messages:
        tape.take(name, arguments, now_ns)
    return tape.flush(now_ns)


def trades(ticks: list[Tick]) -> list[tuple[float, float]]:
    return [(t["price"], t["size"]) for t in ticks if t["type"] == "trade"]


def begun(listing: Any = FUTURE, *, by_tick: bool = False) -> Tape:
    tape = Tape(listing)
    tape.begin((T0 - 5) * NS, by_tick=by_tick)
    return tape


def test_volume_of_bars_of_the_recording_is_the_growth_of_its_total(
    captures: Path, namespace: str
) -> None:
    tape = Tape(FUTURE)
    totals = []
    with pk.open_engine("ib", namespace=namespace, max_skew_s=1e9) as engine:
        market = engine.add_market(FUTURE.fqme, size_tick="1")
        for line in (
            (captures / "ib" / "streaming_ticks.jsonl").read_text().splitlines()
        ):
            row = json.loads(line)
            kind, now = row["tickType"], datetime.fromisoformat(row["time"])
            now_ns = int(now.timestamp() * 1e6) * 1000
            if kind in (1, 2, 4):
                told = ("priceSizeTick", (kind, row["price"], row["size"]))
            else:
                told = ("tickSize", (kind, row["size"]))
            if kind == 8:
                totals.append(row["size"])
            ticks = play(tape, [told], now_ns)
            if ticks:
                engine.push({"symbol": FUTURE.symbol, "ticks": ticks})
        assert market.statistics()["refused"] == 0
        for period in (1, 60):
            with pk.attach_bars(FUTURE.fqme, period=period) as bars:
                rows = bars.snapshot(10_000)
            assert float(rows["volume"].sum()) == totals[-1] - totals[0] == 1_869_079
            assert (rows["high"] >= rows["low"]).all()
    assert tape.sampler.local > 0 and tape.times == "arrival"


def test_a_growth_is_a_trade_at_the_rt_volumes_price_and_millisecond() -> None:
    tape = begun()
    ticks = play(tape, [rt(100.0, 1, 5, 50), rt(101.0, 2, 9, 57), rt(101.0, 2, 9, 57)])
    assert trades(ticks) == [(100.0, 1.0), (101.0, 7.0)]  # 5 of them were not told
    assert [t["time_ns"] - T0 * NS for t in ticks] == [5_000_000, 9_000_000]
    assert tape.times == "exchange, milliseconds"


def test_volume_ticks_beside_rt_volume_count_nothing_twice() -> None:
    tape = begun()
    first = [("priceSizeTick", (4, 99.0, 1.0)), ("tickSize", (8, 40.0))]
    assert trades(play(tape, first)) == []
    group = [
        ("tickString", (45, str(T0))),
        ("priceSizeTick", (4, 100.0, 3.0)),
        ("tickSize", (8, 43.0)),  # before its RTVolume
        rt(100.0, 3, 250, 43),
    ]
    (trade,) = play(tape, group)
    assert (trade["price"], trade["size"]) == (100.0, 3.0)
    assert trade["time_ns"] == T0 * NS + 250_000_000
    assert trades(play(tape, [("tickSize", (8, 50.0))])) == [(100.0, 7.0)]  # odd lots


def test_totals_in_another_unit_are_left_to_the_rt_volume() -> None:
    tape = begun()
    play(tape, [("priceSizeTick", (4, 99.0, 1.0)), ("tickSize", (8, 432_100.0))])
    ticks = play(tape, [rt(100.0, 2, 1, 4323), ("tickSize", (8, 432_300.0))])
    assert trades(ticks) == [(100.0, 2.0)]


def test_without_rt_volume_the_last_trades_second_counts() -> None:
    tape = begun()
    play(tape, [("priceSizeTick", (4, 99.0, 1.0)), ("tickSize", (8, 40.0))])
    group = [("tickString", (45, str(T0 + 3))), ("tickSize", (8, 42.0))]
    (trade,) = play(tape, group, now_ns=(T0 + 4) * NS)
    assert trade["time_ns"] == (T0 + 3) * NS and not tape.sampler.local


def test_an_rt_volume_from_before_the_subscription_is_no_trade() -> None:
    tape = begun()
    assert trades(play(tape, [rt(100.0, 9, -3_600_000, 50)])) == []
    assert trades(play(tape, [rt(101.0, 1, 0, 51)])) == [(101.0, 1.0)]


def test_each_tick_is_a_trade_of_its_second_in_order() -> None:
    tape = begun(by_tick=True)
    ticks = play(tape, [each(0, 10.0, 2), each(0, 11.0, 3), each(9, 12.0, 4)])
    assert trades(ticks) == [(10.0, 2.0), (11.0, 3.0), (12.0, 4.0)]
    times = [t["time_ns"] for t in ticks]
    assert times == sorted(times) and len(set(times)) == 3
    assert [time_ns // NS - T0 for time_ns in times] == [0, 0, 9]
    assert times[0] >= T0 * NS + NS // 2  # earlier ones may be missing
    assert times[2] < (T0 + 9) * NS + NS // 2
    assert tape.times == "exchange, seconds"


def test_trades_of_one_second_keep_their_order_over_subscriptions() -> None:
    tape = begun(by_tick=True)
    tape.remember(T0 * NS + 700_000_000)  # of an earlier writer
    times = []
    for price in range(10):
        told = play(tape, [each(0, float(price + 1), 1), each(0, float(price + 2), 1)])
        times += [tick["time_ns"] for tick in told]
        tape.begin(T0 * NS, by_tick=True)
    assert times == sorted(set(times)) and len(times) == 20
    assert times[0] > T0 * NS + 700_000_000 and times[-1] < (T0 + 1) * NS
    room = np.diff(times)[1::2]  # for what was lost between two of them
    assert (room > 10_000).all()


def test_however_many_trades_a_second_has_they_stay_in_it() -> None:
    tape = begun(by_tick=True)
    told = play(tape, [each(0, 10.0, 1)] * 5000)
    times = [tick["time_ns"] for tick in told]
    assert times == sorted(set(times)) and times[-1] < (T0 + 1) * NS


def test_odd_lots_and_the_like_are_dark_and_trades_past_a_limit_utrades() -> None:
    tape = begun(by_tick=True)
    ticks = play(tape, [each(0, 10.0, 1, DARK), each(0, 11.0, 3, PAST)])
    assert [t["type"] for t in ticks] == ["dark_trade", "utrade"]
    assert tape.sampler.last == 11.0


def test_samples_are_held_until_it_is_decided_who_tells_of_trades() -> None:
    tape = begun(by_tick=True)
    assert play(tape, [rt(100.0, 1, 5, 50)]) == [] and tape.waiting == 1
    assert trades(play(tape, [each(0, 100.0, 1)])) == [(100.0, 1.0)]
    assert not tape.waiting and tape.source == "ticks"
    assert trades(play(tape, [rt(101.0, 4, 9, 54)])) == []
    refused = begun(by_tick=True)
    play(refused, [rt(100.0, 1, 5, 50)])
    refused.decide("sampled")
    assert trades(play(refused, [rt(101.0, 4, 9, 54)])) == [(100.0, 1.0), (101.0, 4.0)]


def test_trades_of_a_lines_first_second_need_not_be_told_one_by_one() -> None:
    tape = Tape(FUTURE)
    tape.begin((T0 - 1) * NS, by_tick=True)
    assert play(tape, [rt(100.0, 1, 900, 50)]) == [] and not tape.waiting
    assert play(tape, [rt(100.0, 1, 1005, 51)]) == [] and tape.waiting == 1


def test_lots_become_shares() -> None:
    tape = begun(msgspec.structs.replace(FUTURE, lot=100), by_tick=True)
    assert trades(play(tape, [each(0, 10.0, 2)])) == [(10.0, 200.0)]
    ticks = play(tape, [("priceSizeTick", (1, 9.9, 3.0))])
    assert (ticks[0]["type"], ticks[0]["size"]) == ("bid", 300.0)


def test_best_quotes_are_told_when_they_change() -> None:
    tape = begun()
    ticks = play(
        tape,
        [
            ("priceSizeTick", (1, 99.5, 4.0)),
            ("priceSizeTick", (2, 100.0, 5.0)),
            ("priceSizeTick", (1, 99.5, 4.0)),
            ("tickSize", (0, 6.0)),
            ("tickSize", (3, 5.0)),
        ],
    )
    assert [(t["type"], t["price"], t["size"]) for t in ticks] == [
        ("bid", 99.5, 4.0),
        ("ask", 100.0, 5.0),
        ("bsize", 99.5, 6.0),
    ]
    play(tape, [("priceSizeTick", (1, -1.0, 0.0))])
    assert tape.best == {"ask": 100.0}


def test_delayed_kinds_count_as_their_live_ones() -> None:
    tape = begun()
    messages = [
        ("marketDataType", (3,)),
        ("priceSizeTick", (68, 50.0, 1.0)),
        ("tickSize", (74, 10.0)),
        ("tickSize", (74, 14.0)),
    ]
    assert trades(play(tape, messages)) == [(50.0, 4.0)]
    assert tape.sampler.delayed and tape.sampler.local == 1


@pytest.mark.parametrize("price", [-5.0, float("nan"), float("inf"), 1.797e308, 0.0])
def test_what_is_no_price_moves_nothing(price: float) -> None:
    tape = begun()
    assert (
        play(tape, [("priceSizeTick", (kind, price, 1.0)) for kind in (1, 2, 4)]) == []
    )
    assert tape.price is None


def test_an_index_makes_trades_without_size() -> None:
    tape = begun(INDEX)
    prices = [("priceSizeTick", (4, price, 0.0)) for price in (10.0, 11.0, 11.0, 12.0)]
    assert trades(play(tape, prices)) == [(11.0, 0.0), (12.0, 0.0)]


def bid_ask(second: int, bid: float, ask: float) -> tuple[str, tuple[Any, ...]]:
    return "tickByTickBidAsk", (T0 + second, bid, ask, 5.0, 6.0, MARKS)


def test_a_second_of_quotes_begins_with_the_quote_in_force() -> None:
    tape = begun(FOREX, by_tick=True)
    play(tape, [("priceSizeTick", (1, 1.1, 2.0)), ("priceSizeTick", (2, 1.2, 2.0))])
    ticks = play(tape, [bid_ask(7, 1.15, 1.2), bid_ask(7, 1.14, 1.2)])
    bids = [(t["price"], t["size"]) for t in ticks if t["type"] == "bid"]
    assert bids == [(1.1, 0.0), (1.15, 0.0), (1.14, 0.0)]
    assert ("bsize", 5.0) in [(t["type"], t["size"]) for t in ticks]
    ticks = play(tape, [bid_ask(9, 1.16, 1.2)])
    assert [t["price"] for t in ticks if t["type"] == "bid"] == [1.14, 1.16]


def test_sampled_quotes_of_a_market_of_quotes_wait_for_the_decision() -> None:
    tape = begun(FOREX, by_tick=True)
    first = [("priceSizeTick", (1, 1.1, 2.0)), ("priceSizeTick", (2, 1.2, 2.0))]
    assert play(tape, first) == [] and tape.price == 1.1
    tape.decide("sampled")
    assert {t["type"] for t in tape.flush(T0 * NS)} == {"bid", "bsize", "ask", "asize"}


def test_normalize_tick_makes_a_tick_of_a_past_trade() -> None:
    moment = datetime.fromisoformat("2026-11-23T14:30:00+00:00")
    row = SimpleNamespace(time=moment, price=5.0, size=2.0, tickAttribLast=DARK)
    tick = normalize_tick(row)
    assert (tick["type"], tick["price"], tick["size"]) == ("dark_trade", 5.0, 2.0)
    assert tick["time_ns"] == int(moment.timestamp()) * NS
