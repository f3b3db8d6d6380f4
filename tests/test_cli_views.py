"""`bars`, `ticks` and `segments`: another process's view of the rings."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import piker_core as pk
from piker_core.cli import failures
from piker_core.segments import ring_name
from tests.commands import (
    BASE_S,
    KILLED,
    PYTHON,
    SMALL,
    Following,
    invoke,
    on_terminal,
    push,
    records,
    rings,
    run,
    told_once,
)

# Bars


def test_bars_of_another_process_are_printed_as_a_table(namespace: str) -> None:
    with rings(namespace) as (engine, market):
        push(engine, market, 1, 7)
        done = invoke("bars", "xbtusd.kraken", "-n", "2")
    heading, *rows = done.stdout.splitlines()
    assert heading.split()[:3] == ["time", "(UTC)", "open"]
    date, clock, *prices, volume, count, wap, flags = rows[0].split()
    assert (date, clock) == ("2020-09-13", "12:26:41")
    assert [float(price) for price in prices] == [101.0] * 4
    assert (volume, count, wap, flags) == ("1", "2", "101", "REVISED")
    assert len(rows) == 2
    assert "xbtusd.kraken, 1 s: live, its writer lives" in done.stderr


def test_bars_as_json_are_the_rows_of_the_ring(namespace: str) -> None:
    with rings(namespace, seconds=5):
        done = invoke("bars", "xbtusd.kraken", "--json", "-n", "4")
        with pk.attach_bars("xbtusd.kraken") as bars:
            rows = bars.snapshot(4)
    printed = records(done.stdout, "bar")
    names = rows.dtype.names or ()
    assert [tuple(row[name] for name in names) for row in printed] == rows.tolist()
    assert {row["fqme"] for row in printed} == {"xbtusd.kraken"}
    assert done.stderr == ""


def test_bars_of_a_longer_period_are_another_ring(namespace: str) -> None:
    with rings(namespace, seconds=100):
        done = invoke("bars", "xbtusd.kraken", "--period", "60", "--json")
    times = [row["time"] - BASE_S for row in records(done.stdout)]
    assert times == [-40, 20, 80]


@pytest.mark.parametrize(
    "words", [["ethusd.kraken"], ["xbtusd.kraken", "--period", "5"]]
)
def test_a_ring_that_does_not_exist_is_told_with_those_that_do(
    words: list[str], namespace: str
) -> None:
    with rings(namespace):
        sentence = told_once(run("bars", *words), failures.MISSING)
    assert words[0] in sentence
    assert "xbtusd.kraken (1 s), xbtusd.kraken (60 s)" in sentence


def test_a_namespace_without_rings_is_told(namespace: str) -> None:
    for words in (["bars", "xbtusd.kraken"], ["ticks", "kraken"]):
        sentence = told_once(invoke(*words), failures.MISSING)
        assert f"namespace {namespace!r} has no bars at all" in sentence
        assert "piker-core feed" in sentence


def test_a_damaged_ring_is_told_and_is_exit_code_5(namespace: str) -> None:
    with rings(namespace):
        pass
    path = Path("/dev/shm", ring_name(namespace, "kraken", "xbtusd.kraken", 1))
    os.truncate(path, 9000)
    sentence = told_once(run("bars", "xbtusd.kraken"), failures.MACHINE)
    assert str(path) in sentence


def test_following_prints_closed_bars_revisions_and_status(namespace: str) -> None:
    with rings(namespace) as (engine, market):
        with Following("bars", "xbtusd.kraken", "-n", "1", "--follow") as follow:
            assert follow.next("status")["status"] == "live"
            assert follow.next("bar")["time"] == BASE_S + 1
            push(engine, market, 3)
            assert follow.next("bar")["time"] == BASE_S + 2
            push(engine, market, 1, 5)
            revised = follow.next("revision")
            assert (revised["time"], revised["count"]) == (BASE_S + 1, 2)
            assert "REVISED" in revised["flag_names"]
            market.set_status("stale")
            assert follow.next("status")["status"] == "stale"
            engine.close()
            last = follow.next("status")
            assert (last["status"], last["writer_alive"]) == ("stopped", False)
            assert follow.next("bar")["time"] == BASE_S + 3
            assert follow.end(signal.SIGINT) == (failures.INTERRUPTED, "", "")


def test_following_goes_on_in_rings_that_were_made_anew(namespace: str) -> None:
    with rings(namespace), Following("bars", "xbtusd.kraken", "-f", "-n0") as follow:
        follow.next("status")
        pk.remove_segments(namespace, force=True)
        with rings(namespace, seconds=7):
            follow.next("status")
            times = [follow.next("bar")["time"] - BASE_S for _ in range(6)]
            assert times == [0, 1, 2, 3, 4, 5]


def test_following_as_text_marks_what_was_revised(namespace: str) -> None:
    with rings(namespace) as (engine, market):
        process = subprocess.Popen(
            [*PYTHON, "bars", "xbtusd.kraken", "-f"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        push(engine, market, 0, 9)
        lines.append(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert [line.split()[1] for line in lines[1:]] == [
        "12:26:40",
        "12:26:41",
        "12:26:40",
    ]
    assert [line.rstrip().endswith("(revised)") for line in lines] == [False] * 3 + [
        True
    ]
    assert process.returncode == failures.TERMINATED
    assert "Traceback" not in err


@pytest.mark.parametrize("more", [0, 2])
@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("command", [["bars", "xbtusd.kraken"], ["ticks", "kraken"]])
def test_a_reader_of_the_output_that_goes_away_ends_the_command_quietly(
    command: list[str], more: int, buffered: str, namespace: str
) -> None:
    with rings(namespace) as (engine, market):
        process = subprocess.Popen(
            [*PYTHON, *command, "-n0", "--follow", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": buffered},
        )
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert json.loads(process.stdout.readline())["kind"] == "status"
            process.stdout.close()
            for second in range(3, 3 + more):
                push(engine, market, second)
            assert process.stderr.read() == ""
            assert process.wait() == failures.OK


@pytest.mark.parametrize("buffered", ["", "1"])
def test_output_that_cannot_be_written_is_told(namespace: str, buffered: str) -> None:
    with rings(namespace), Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PYTHON, "bars", "xbtusd.kraken", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": buffered},
        )
    assert done.returncode == failures.MACHINE
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_bars_are_a_ruled_table_on_a_terminal(namespace: str) -> None:
    with rings(namespace):
        code, text = on_terminal("bars", "xbtusd.kraken")
    assert code == 0
    assert "┃" in text
    assert "2020-09-13 12:26:40" in text


# Ticks


def test_ticks_are_printed_with_their_codes_spelled_out(namespace: str) -> None:
    with rings(namespace, seconds=5) as (engine, _):
        tick = {"type": "bid", "price": 99.0, "size": 2.0, "time_ns": BASE_S * 10**9}
        engine.push({"symbol": "xbtusd", "ticks": [tick]})
        done = invoke("ticks", "kraken", "-n", "2", "--json")
        table = invoke("ticks", "kraken", "-n", "2")
    trade, bid = records(done.stdout, "tick")
    assert (trade["type"], trade["price"], trade["id"]) == ("trade", 104.0, 401)
    assert (bid["type"], bid["price"], bid["market"]) == ("bid", 99.0, "xbtusd.kraken")
    assert records(done.stdout, "lost")[-1]["ticks"] == 0
    assert len(table.stdout.splitlines()) == 3
    assert table.stderr.endswith("0 ticks lost\n")


def test_ticks_of_one_market_are_picked(namespace: str) -> None:
    with rings(namespace) as (engine, market):
        other = engine.add_market("ethusd.kraken", capacity=SMALL)
        for second in range(3, 6):
            push(engine, other, second)
            push(engine, market, second)
        done = invoke("ticks", "kraken", "--market", "ethusd.kraken", "--json")
        sentence = told_once(
            invoke("ticks", "kraken", "--market", "no.kraken", "--json"),
            failures.MISSING,
        )
    assert [tick["price"] for tick in records(done.stdout, "tick")] == [103, 104, 105]
    assert "its markets: xbtusd.kraken, ethusd.kraken" in sentence


def test_following_ticks_counts_exactly_what_a_stopped_reader_lost(
    namespace: str,
) -> None:
    with rings(namespace, seconds=1) as (engine, market):
        with Following("ticks", "kraken", "-n1", "--follow") as follow:
            follow.next("status")
            assert follow.next("tick")["seq"] == 0
            follow.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, follow.process.pid, os.WSTOPPED | os.WNOWAIT)
            for second in range(1, 1001):
                push(engine, market, second)
            follow.process.send_signal(signal.SIGCONT)
            seen: list[int] = []
            lost = 0
            while lost + len(seen) < 1000:
                line = follow.any()
                if line["kind"] == "tick":
                    seen.append(line["seq"])
                else:
                    assert line["kind"] == "lost"
                    lost = line["ticks"]
            assert lost + len(seen) == 1000
            assert lost >= 1000 - 64
            assert seen[-1] == 1000
            code, out, err = follow.end(signal.SIGINT)
            assert (code, err) == (failures.INTERRUPTED, "")
            assert records(out) == [
                {"kind": "lost", "provider": "kraken", "ticks": lost}
            ]


# Segments


def test_dead_rings_are_listed_and_collected_and_others_stay(namespace: str) -> None:
    subprocess.run([sys.executable, "-c", KILLED, namespace], check=False)
    with rings(namespace):
        listed = records(invoke("segments", "--json").stdout)
        assert [(line["provider"], line["dead"]) for line in listed] == [
            ("ib", True), ("ib", True), ("ib", True),
            ("kraken", False), ("kraken", False), ("kraken", False),
        ]  # fmt: skip
        table = invoke("segments")
        assert f"process {os.getpid()}" in table.stdout
        assert "3 of them dead" in table.stderr
        collected = invoke("segments", "--gc", "--json")
        assert {line["provider"] for line in records(collected.stdout)} == {"ib"}
        assert all(line["removed"] for line in records(collected.stdout))
        again = invoke("segments", "--gc")
        assert (again.returncode, again.stdout) == (0, "")
        assert "0 dead rings removed" in again.stderr
        assert len(records(invoke("segments", "--json").stdout)) == 3


def test_segments_of_all_namespaces_are_listed_when_asked_for(namespace: str) -> None:
    with rings(namespace):
        here = records(invoke("segments", "--json", "--namespace", "nowhere").stdout)
        everywhere = records(invoke("segments", "--json", "--all").stdout)
    assert here == []
    assert sum(line["namespace"] == namespace for line in everywhere) == 3


def test_a_damaged_segment_is_listed_with_the_reason(namespace: str) -> None:
    with rings(namespace):
        pass
    path = Path("/dev/shm", ring_name(namespace, "kraken", "xbtusd.kraken", 1))
    os.truncate(path, 9000)
    spoilt = [
        line for line in records(invoke("segments", "--json").stdout) if line["reason"]
    ]
    assert [(line["kind"], line["path"]) for line in spoilt] == [("damaged", str(path))]
    assert "do not fit its file" in invoke("segments").stdout
