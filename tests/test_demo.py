"""`demo`: venue, feed, rings and a reading process, and its verdict on differences."""

import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import trio
from numpy.typing import NDArray

import piker_core as pk
from piker_core.cli import failures
from piker_core.cli.demo import Demo, find_venue, only_these, run_demo
from piker_core.cli.demo_check import Comparison, compare, difference
from piker_core.cli.demo_orders import (
    ENDS,
    SIZE,
    Outcome,
    PaperOrders,
    are_good,
    outcome_text,
    verdict_text,
)
from piker_core.cli.demo_reader import RingReader, latency_us, read_until, torn_rows
from piker_core.cli.output import Output
from piker_core.orders import BrokerdFill, BrokerdPosition, Status
from piker_core.segments import list_segments
from tests.commands import BASE_S, PYTHON, Following, records, rings, run, told_once

WHOLE = {"published": 9, "ticks": 9, "lost": 0, "rows": 3, "rows_read": 9, "torn": 0}


def test_the_demo_ends_with_bars_equal_to_the_venues_and_leaves_nothing(
    namespace: str,
) -> None:
    process = subprocess.Popen(
        [*PYTHON, "demo", "--seconds", "6", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate()
    assert process.returncode == failures.OK, err + out
    [summary] = records(out, "summary")
    assert summary["good"]
    assert summary["equal"] == summary["bars"] >= 9
    assert summary["counted"] == summary["trades"] > 50
    assert summary["unequal"] == []
    assert summary["gaps"] == summary["gaps_repaired"] > 0
    reader = summary["reader"]
    assert reader["ticks"] == reader["published"] > 50
    assert reader["rows_read"] > reader["rows"] > 0
    assert reader["lost"] == reader["torn"] == 0
    assert 0 < reader["latency_us"]["median"] <= reader["latency_us"]["p99"]
    assert {gap["repaired"] for gap in records(out, "gap")} == {False, True}
    assert len({bar["fqme"] for bar in records(out, "bar")}) == 3
    assert {line["pid"] for line in records(out, "reader")} != {process.pid}
    assert list_segments(f"demo{process.pid}") == []
    check_orders(out, summary["orders"])


def check_orders(out: str, outcomes: list[dict[str, Any]]) -> None:
    assert [outcome["oid"] for outcome in outcomes] == list(ENDS)
    assert all(outcome["expected"] for outcome in outcomes)
    statuses = [line["status"] for line in records(out, "order")]
    for outcome in outcomes:
        mine = [each for each in statuses if each["oid"] == outcome["oid"]]
        assert [each["resp"] for each in mine] == outcome["said"]
    filled = [Decimal(outcome["filled"]) for outcome in outcomes]
    assert filled[:3] == [SIZE, 0, SIZE] and sorted(filled[3:]) == [0, SIZE]
    triggered = [o["oid"] for o in outcomes if "triggered" in o["said"]]
    assert len(triggered) == 1 and triggered[0].startswith("dark-")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, failures.INTERRUPTED), (signal.SIGTERM, failures.TERMINATED)],
)
def test_the_demo_leaves_nothing_when_it_is_interrupted(
    number: int, code: int, namespace: str
) -> None:
    with Following("demo", "--seconds", "60") as follow:
        reader = follow.until("reader")["pid"]
        assert list_segments(f"demo{follow.process.pid}")
        ended, _, err = follow.end(number)
        assert ended == code
        assert "Traceback" not in err
        assert list_segments(f"demo{follow.process.pid}") == []
        with pytest.raises(ProcessLookupError):
            os.kill(reader, 0)


def test_the_demo_leaves_rings_alone_that_are_not_its_own(namespace: str) -> None:
    with rings(namespace):
        pass
    done = run("demo", "--seconds", "6", "--namespace", namespace)
    assert namespace in told_once(done, failures.MACHINE)
    assert len(list_segments(namespace)) == 3


def test_the_demo_removes_its_rings_when_the_venue_cannot_be_opened(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> Any:
        with rings(namespace):
            raise pk.ProviderError("no venue today")

    monkeypatch.setattr(find_venue(), "open_venue", broken)
    with pytest.raises(pk.ProviderError):
        run_demo(Output(json=True), seconds=6.0, namespace=namespace)
    assert list_segments(namespace) == []


def test_the_demo_uses_no_configuration_of_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIKER_KRAKEN__API_KEY", "mine")
    monkeypatch.setenv("PIKER_CONFIG", "/home/me/config.toml")
    before = dict(os.environ)
    with only_these({"PIKER_KRAKEN__WS_URL": "ws://127.0.0.1:9"}):
        ours = {
            key: text for key, text in os.environ.items() if key.startswith("PIKER")
        }
        assert "PIKER_KRAKEN__API_KEY" not in ours
        assert ours["PIKER_CONFIG"] == os.devnull
        assert ours["PIKER_KRAKEN__WS_URL"] == "ws://127.0.0.1:9"
    assert dict(os.environ) == before


# The verdict


@pytest.mark.parametrize(
    ("compared", "report", "gaps", "code"),
    [
        ({}, {}, [True], failures.OK),
        ({"equal": 2}, {}, [True], failures.VENUE),
        ({"counted": 8}, {}, [True], failures.VENUE),
        ({"bars": 0, "equal": 0}, {}, [True], failures.VENUE),
        ({}, {"lost": 1, "ticks": 8}, [True], failures.VENUE),
        ({}, {"ticks": 8}, [True], failures.VENUE),
        ({}, {"torn": 1}, [True], failures.VENUE),
        ({}, {"ticks": 0, "published": 0}, [True], failures.VENUE),
        ({}, {}, [True, False], failures.VENUE),
        ({}, {}, [], failures.VENUE),
        ({"orders": 4}, {}, [True], failures.VENUE),
    ],
)
def test_the_exit_code_is_0_only_if_all_was_equal_and_whole(
    compared: dict[str, int],
    report: dict[str, int],
    gaps: list[bool],
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    counts: dict[str, Any] = {"bars": 3, "equal": 3, "trades": 9, "counted": 9}
    counts |= compared
    good = counts.pop("orders", 5)
    result = Comparison(**counts)
    demo = Demo(Output(json=True), "unused", 6.0)
    outcomes = [outcome(oid, expected=n < good) for n, oid in enumerate(ENDS)]
    demo.orders = SimpleNamespace(outcomes=lambda: outcomes)  # type: ignore[assignment]
    demo.report = WHOLE | report | {"latency_us": {}}
    demo.gaps = {("a.kraken", number): state for number, state in enumerate(gaps)}
    assert demo.conclude(result) == code
    [summary] = records(capsys.readouterr().out)
    assert summary["good"] == (code == failures.OK)


# The verdict on paper orders

SAID = {
    "taken": ["pending", "open", "fill", "closed"],
    "canceled": ["pending", "open", "open", "canceled"],
    "changed": ["pending", "open", "open", "fill", "closed"],
    "dark-above": ["dark_open", "triggered", "open", "fill", "closed", "error"],
    "dark-below": ["dark_open", "canceled"],
}


def outcome(oid: str, *, expected: bool = True) -> Outcome:
    return Outcome(oid, "buy", SIZE, Decimal(100), SAID[oid], SIZE, expected)


async def told(**changed: list[str]) -> PaperOrders:
    """Paper orders of which these words were said, and a position that fits SAID."""
    orders = PaperOrders(lambda _: None)
    sides = ("buy", "buy", "buy", "sell", "sell")
    send, receive = trio.open_memory_channel[Any](100)
    async with trio.open_nursery() as nursery, send:
        nursery.start_soon(orders._listen, receive)
        for oid, side in zip(ENDS, sides, strict=True):
            order = {"action": side, "size": SIZE, "price": Decimal(100)}
            orders._orders[oid] = SimpleNamespace(**order)  # type: ignore[assignment]
            for word in changed.get(oid.replace("-", "_"), SAID[oid]):
                fill = BrokerdFill(
                    time_ns=1, broker_time=1, reqid="r", size=SIZE, price=1, action=side
                )
                message = fill if word == "fill" else None
                await send.send(
                    Status(time_ns=1, oid=oid, resp=word, brokerd_msg=message)
                )
        position = {"broker": "kraken", "account": "paper", "symbol": "x.kraken"}
        await send.send(BrokerdPosition(**position, size=SIZE, avg_price=1))
    return orders


async def test_paper_orders_are_as_expected_by_their_ends_fills_and_position() -> None:
    outcomes = (await told()).outcomes()
    assert are_good(outcomes) and not are_good(outcomes[:4])
    assert verdict_text(outcomes) == "5 of 5 paper orders as expected"
    assert outcome_text(outcomes[0]).endswith(
        "buy  0.01 at 100: " + ", ".join(SAID["taken"])
    )


@pytest.mark.parametrize(
    ("changed", "good"),
    [
        ({"canceled": ["pending", "open", "closed"]}, 4),
        ({"canceled": ["pending", "open"]}, 4),
        ({"dark_below": ["dark_open", "triggered", "canceled"]}, 3),
        ({"dark_above": ["dark_open", "canceled"]}, 0),
        ({"taken": ["pending", "open", "closed"]}, 0),
        ({"taken": []}, 0),
    ],
)
async def test_a_paper_order_that_is_otherwise_is_counted(
    changed: dict[str, list[str]], good: int
) -> None:
    outcomes = (await told(**changed)).outcomes()
    assert sum(each.expected for each in outcomes) == good
    assert not are_good(outcomes)


class Candle(msgspec.Struct):
    """A venue's candle of three trades: 100, 103, 101 at half a unit each."""

    time_s: int = BASE_S
    open: Decimal = Decimal(100)
    high: Decimal = Decimal(103)
    low: Decimal = Decimal(100)
    close: Decimal = Decimal(101)
    volume: Decimal = Decimal("1.50000000")
    count: int = 3
    notional: Decimal = Decimal(152)


def three_trades(namespace: str) -> NDArray[np.void]:
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=64) as engine:
        market = engine.add_market("abc.kraken", capacity={1: 64, 60: 64}, fill="none")
        for number, price in enumerate((100.0, 103.0, 101.0)):
            engine.push_trade(
                market, BASE_S * 10**9 + number, price, 0.5, id=1 + number
            )
        with pk.attach_bars("abc.kraken") as bars:
            return bars.snapshot(10)


def test_a_row_that_is_the_venues_candle_has_no_difference(namespace: str) -> None:
    [row] = three_trades(namespace).tolist()
    assert difference(row, Candle()) == ""


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("open", 100.1, "prices"),
        ("high", 103.1, "prices"),
        ("low", 99.9, "prices"),
        ("close", 101.1, "prices"),
        ("volume", 1.50000001, "volume"),
        ("count", 4, "4 trades instead of 3"),
        ("bar_wap", 101.3333, "bar_wap"),
    ],
)
def test_a_row_that_differs_in_one_field_is_told(
    field: str, value: float, text: str, namespace: str
) -> None:
    rows = three_trades(namespace)
    rows[field] = value
    assert text in difference(rows.tolist()[0], Candle())


def test_rows_are_compared_for_every_second_of_every_market(namespace: str) -> None:
    three_trades(namespace)
    candles = [Candle(), Candle(time_s=BASE_S + 1)]
    venue = SimpleNamespace(candles=lambda *_: candles)
    with pk.attach_bars("abc.kraken") as bars:
        flumes: Any = {"abc.kraken": SimpleNamespace(rt=bars)}
        names = {"abc.kraken": "ABC"}
        whole = compare(venue, flumes, names, BASE_S, BASE_S + 1)
        short = compare(venue, flumes, names, BASE_S, BASE_S + 3)
    assert (whole.good, whole.bars, whole.equal) == (True, 1, 1)
    assert (short.good, short.bars, short.equal) == (False, 3, 1)
    assert (short.counted, short.trades) == (3, 6)
    assert "no such bar" in short.unequal[0]
    assert "the venue has no such candle" in short.unequal[1]


# The reading process


def test_the_reader_counts_ticks_and_rows_and_measures_latency(namespace: str) -> None:
    with rings(namespace) as (engine, market):
        reader = RingReader(namespace, ["xbtusd.kraken"])
        for second in range(3, 8):
            engine.push_trade(market, (BASE_S + second) * 10**9, 100.0, 1.0)
        reader.read_once(1.0)
        report = reader.report()
    assert (report["ticks"], report["published"], report["lost"]) == (5, 5, 0)
    assert (report["rows"], report["rows_read"], report["torn"]) == (5, 8, 0)
    assert 0 < report["latency_us"]["min"] < 60e6


def test_the_reader_counts_what_it_lost(namespace: str) -> None:
    with rings(namespace) as (engine, market):
        reader = RingReader(namespace, ["xbtusd.kraken"])
        for number in range(200):
            engine.push_trade(market, (BASE_S + 3) * 10**9 + number, 100.0, 1.0)
        reader.read_once(1.0)
        report = reader.report()
    assert report["lost"] > 0
    assert report["lost"] + report["ticks"] == report["published"] == 200


def test_the_reader_reports_once_more_when_it_is_told_to_end(namespace: str) -> None:
    with rings(namespace):
        reader = RingReader(namespace, ["xbtusd.kraken"])
        reports: list[dict[str, Any]] = []
        answers = iter([False, False, True])
        read_until(lambda: next(answers), reader, reports.append)
    assert len(reports) == 1
    assert reports[0]["rows_read"] == 9


def test_the_reading_process_tells_in_one_sentence_why_it_cannot_read(
    namespace: str,
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "piker_core.cli.demo_reader", namespace, "no.kraken"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert "there is no ring of no.kraken" in told_once(done, failures.MISSING)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("open", 104.0),
        ("close", 99.0),
        ("bar_wap", 103.5),
        ("high", 100.5),
        ("low", 101.5),
        ("volume", -1.0),
        ("count", -1),
        ("count", 0),
        ("flags", 1),
        ("index", 7),
        ("time", 0),
    ],
)
def test_a_row_that_no_writer_publishes_counts_as_torn(
    field: str, value: float, namespace: str
) -> None:
    rows = np.concatenate([three_trades(namespace)] * 2)
    rows["index"][1] += 1
    rows["time"][1] += 1
    assert torn_rows(rows) == 0
    rows[field][1] = value
    assert torn_rows(rows) == 1


def test_flat_rows_are_not_torn(namespace: str) -> None:
    with pk.open_engine("kraken", tick_capacity=64) as engine:
        market = engine.add_market("abc.kraken", capacity={1: 64, 60: 64})
        now_ns = time.time_ns()
        market.set_status("live")
        engine.push_trade(market, now_ns, 100.0, 1.0)
        engine.step(now_ns + 3 * 10**9)
        with pk.attach_bars("abc.kraken") as bars:
            rows = bars.snapshot(10)
    assert rows["count"].tolist() == [1, 0, 0, 0]
    assert torn_rows(rows) == 0
    rows["volume"][2] = 1.0
    assert torn_rows(rows) == 1


def test_quantiles_are_those_of_the_samples() -> None:
    samples = [1000 * number for number in range(100, 0, -1)]
    assert latency_us(samples) == {"min": 1.0, "median": 50.0, "p99": 99.0}
    assert latency_us([]) == {}
