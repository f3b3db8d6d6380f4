"""The command line: what it prints, and how it ends when something goes wrong."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import piker_core as pk
from piker_core.cli import failures, output
from piker_core.cli.commands import app
from piker_core.cli.rows import price_digits
from piker_core.segments import ring_name

BASE_S = 1_600_000_000
SMALL = {1: 256, 60: 256}
COMMANDS = (
    "demo",
    "feed",
    "bars",
    "ticks",
    "search",
    "providers",
    "segments",
    "doctor",
)
Done = subprocess.CompletedProcess[str]

FAKE = '''
"""A provider for tests: a trade a tenth of a second, and whatever BODY does."""
import time
from contextlib import asynccontextmanager
import trio
import piker_core as pk
from piker_core.symbols import Asset, MktPair

name = "{name}"

async def get_mkt_info(symbol):
    if symbol == "nosuch":
        raise pk.NotFound("fake has no market 'nosuch'")
    return MktPair(base=Asset("b"), quote=Asset("q"), symbol=symbol, provider=name,
                   venue_symbol=symbol, price_tick="0.1", size_tick="1e-8")

@asynccontextmanager
async def open_symbol_search():
    async def search(pattern):
        if pattern == "broken":
            raise pk.ProviderError("the venue answers nonsense")
        mkt = await get_mkt_info("aaa")
        return {{mkt.fqme: mkt}} if pattern in "aaa" else {{}}
    yield search

async def stream_quotes(send_chan, symbols, shm, feed_is_live, loglevel=None,
                        task_status=trio.TASK_STATUS_IGNORED):
    {body}
    inits = [pk.FeedInit(symbol=s, mkt=await get_mkt_info(s)) for s in symbols]
    task_status.started((inits, {{s: {{"last": 100.0}} for s in symbols}}))
    feed_is_live.set()
    number = 0
    while True:
        number += 1
        for s in symbols:
            tick = {{"type": "trade", "price": 100.0, "size": 0.5,
                     "time_ns": time.time_ns(), "id": number}}
            await send_chan.send({{"symbol": s, "ticks": [tick]}})
        if number == 5:
            now = time.time_ns()
            gap = dict(start_ns=now - 10**9, end_ns=now, cause="test")
            shm[symbols[0]].add_gap(**gap)
            await trio.sleep(0.2)
            shm[symbols[0]].add_gap(**gap, repaired=True)
        await trio.sleep(0.1)
'''


def run(*words: str, env: dict[str, str] | None = None) -> Done:
    return subprocess.run(
        [sys.executable, "-m", "piker_core", *words],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | (env or {}),
    )


def records(text: str, kind: str | None = None) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if kind in (None, line["kind"])]


def told_once(done: Done, code: int) -> str:
    """The sentence that a command ended with: one line, no traceback, this exit code."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = [
        line for line in done.stderr.splitlines() if line.startswith("piker-core: ")
    ]
    assert len(lines) == 1, done.stderr
    assert done.stderr.rstrip().splitlines()[-1] == lines[0]
    return lines[0]


def push(
    engine: pk.FeedEngine, market: pk.Market, second: int, number: int = 0
) -> None:
    time_ns = (BASE_S + second) * 10**9 + number
    engine.push_trade(
        market, time_ns, 100.0 + second, 0.5, id=1 + second * 100 + number
    )


@contextmanager
def rings(
    namespace: str, seconds: int = 3, *, symbol: str = "xbtusd", ticks: int = 64
) -> Iterator[tuple[pk.FeedEngine, pk.Market]]:
    """An open engine with one market and one trade in each of some seconds."""
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=ticks) as engine:
        market = engine.add_market(f"{symbol}.kraken", capacity=SMALL, fill="none")
        market.set_status("live")
        for second in range(seconds):
            push(engine, market, second)
        yield engine, market


class Following:
    """A command that goes on, and its JSON lines as they come."""

    def __init__(self, *words: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "piker_core", *words, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (env or {}),
        )

    def next(self, kind: str) -> dict[str, Any]:
        """The next line, which is of this kind."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        found: dict[str, Any] = json.loads(line)
        assert found["kind"] == kind, line
        return found

    def end(self, number: int) -> tuple[int, str, str]:
        """Send a signal: exit code, what was left on stdout, stderr."""
        self.process.send_signal(number)
        out, err = self.process.communicate()
        return self.process.returncode, out, err

    def __enter__(self) -> "Following":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a provider package that commands find by its module path."""

    def make(body: str = "pass", name: str = "fakevenue") -> str:
        (tmp_path / name).mkdir()
        text = FAKE.format(name=name, body=body)
        (tmp_path / name / "__init__.py").write_text(text)
        return name

    search_path = os.pathsep.join(
        filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])
    )
    monkeypatch.setenv("PYTHONPATH", search_path)
    monkeypatch.setenv("PIKER_CONFIG", str(tmp_path / "config.toml"))
    return make


def private_shm(options: str) -> list[str]:
    """Words that run a command with a /dev/shm of its own; skips where none may."""
    script = f'mount -t tmpfs {options} && exec "$@"'
    for way in (["unshare", "-m"], ["unshare", "-rm"]):
        words = [*way, "sh", "-c", script, "sh"]
        if (
            shutil.which("unshare")
            and not subprocess.run([*words, "true"], capture_output=True).returncode
        ):
            return words
    pytest.skip("no private mount namespace here (unshare -m)")


# Start and help


def test_help_imports_neither_numpy_nor_trio_nor_httpx() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "piker_core", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "piker_core" in imported
    assert not imported & {"numpy", "trio", "httpx", "msgspec", "rich", "websockets"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_documents_its_exit_codes_and_shared_options(
    command: str,
) -> None:
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    for text in ("Exit codes:", "3  not found", "--json", "--namespace", "--debug"):
        assert text in done.output


def test_the_command_list_documents_the_exit_codes() -> None:
    done = CliRunner().invoke(app, ["--help"])
    assert all(command in done.output for command in COMMANDS)
    assert "5  machine or configuration in trouble" in done.output


def test_the_console_script_is_the_module() -> None:
    points = entry_points(group="console_scripts", name="piker-core")
    assert {point.value for point in points} == {"piker_core.cli:main"}


def test_the_version_is_that_of_the_package() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"piker-core {pk.__version__}\n")


@pytest.mark.parametrize(
    "words",
    [
        ["nosuchcommand"],
        ["bars"],
        ["bars", "a.b", "--period", "0"],
        ["bars", "a.b", "-n", "-1"],
        ["feed"],
        ["feed", "XBTUSD"],
        ["feed", "xbtusd"],
        ["segments", "--namespace", "a/b"],
        ["demo", "--seconds", "1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(words: list[str], namespace: str) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == failures.USAGE
    assert "Usage:" in done.output


# Bars


def test_bars_of_another_process_are_printed_as_a_table(namespace: str) -> None:
    with rings(namespace) as (engine, market):
        push(engine, market, 1, 7)
        done = run("bars", "xbtusd.kraken", "-n", "2")
    heading, *rows = done.stdout.splitlines()
    assert heading.split()[:3] == ["time", "(UTC)", "open"]
    assert rows[0].split() == [
        "2020-09-13", "12:26:41", "101.00000000", "101.00000000", "101.00000000",
        "101.00000000", "1", "2", "101", "PARTIAL", "REVISED",
    ] or "REVISED" in rows[0]  # fmt: skip
    assert len(rows) == 2
    assert "xbtusd.kraken, 1 s: live, its writer lives" in done.stderr


def test_bars_as_json_are_the_rows_of_the_ring(namespace: str) -> None:
    with rings(namespace, seconds=5):
        done = run("bars", "xbtusd.kraken", "--json", "-n", "4")
        with pk.attach_bars("xbtusd.kraken") as bars:
            rows = bars.snapshot(4)
    printed = records(done.stdout, "bar")
    names = rows.dtype.names or ()
    assert [tuple(row[name] for name in names) for row in printed] == rows.tolist()
    assert {row["fqme"] for row in printed} == {"xbtusd.kraken"}
    assert done.stderr == ""


def test_bars_of_a_longer_period_are_another_ring(namespace: str) -> None:
    with rings(namespace, seconds=100):
        done = run("bars", "xbtusd.kraken", "--period", "60", "--json")
    assert [row["time"] % 60 for row in records(done.stdout)] == [0, 0]


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
        sentence = told_once(run(*words), failures.MISSING)
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
            [sys.executable, "-m", "piker_core", "bars", "xbtusd.kraken", "-f"],
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


def test_a_reader_of_the_output_that_goes_away_ends_the_command_quietly(
    namespace: str,
) -> None:
    with rings(namespace) as (engine, market):
        with Following("bars", "xbtusd.kraken", "-f") as follow:
            follow.next("status")
            assert follow.process.stdout is not None
            follow.process.stdout.close()
            follow.process.stdout = None
            push(engine, market, 3)
            push(engine, market, 4)
            _, err = follow.process.communicate()
            assert (follow.process.returncode, err) == (failures.OK, "")


def test_output_that_cannot_be_written_is_told(namespace: str) -> None:
    with rings(namespace), Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "piker_core", "bars", "xbtusd.kraken", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == failures.MACHINE
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


# Ticks


def test_ticks_are_printed_with_their_codes_spelled_out(namespace: str) -> None:
    with rings(namespace, seconds=5) as (engine, _):
        tick = {"type": "bid", "price": 99.0, "size": 2.0, "time_ns": BASE_S * 10**9}
        engine.push({"symbol": "xbtusd", "ticks": [tick]})
        done = run("ticks", "kraken", "-n", "2", "--json")
        table = run("ticks", "kraken", "-n", "2")
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
        done = run("ticks", "kraken", "--market", "ethusd.kraken", "--json")
        sentence = told_once(
            run("ticks", "kraken", "--market", "no.kraken", "--json"), failures.MISSING
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
            seen, lost = [], 0
            while lost + len(seen) < 1000:
                assert follow.process.stdout is not None
                line = json.loads(follow.process.stdout.readline())
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

KILLED = """
import os, signal, sys
import piker_core as pk
engine = pk.open_engine("ib", namespace=sys.argv[1], tick_capacity=64)
engine.add_market("dead.ib", capacity={1: 64, 60: 64}).set_status("live")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_dead_rings_are_listed_and_collected_and_others_stay(namespace: str) -> None:
    subprocess.run([sys.executable, "-c", KILLED, namespace])
    with rings(namespace):
        listed = records(run("segments", "--json").stdout)
        assert [(line["provider"], line["dead"]) for line in listed] == [
            ("ib", True), ("ib", True), ("ib", True),
            ("kraken", False), ("kraken", False), ("kraken", False),
        ]  # fmt: skip
        table = run("segments")
        assert f"process {os.getpid()}" in table.stdout
        assert "3 of them dead" in table.stderr
        collected = run("segments", "--gc", "--json")
        assert {line["provider"] for line in records(collected.stdout)} == {"ib"}
        assert all(line["removed"] for line in records(collected.stdout))
        again = run("segments", "--gc")
        assert (again.returncode, again.stdout) == (0, "")
        assert "0 dead rings removed" in again.stderr
        assert len(records(run("segments", "--json").stdout)) == 3


def test_segments_of_all_namespaces_are_listed_when_asked_for(namespace: str) -> None:
    with rings(namespace):
        here = records(run("segments", "--json", "--namespace", "nowhere").stdout)
        everywhere = records(run("segments", "--json", "--all").stdout)
    assert here == []
    assert sum(line["namespace"] == namespace for line in everywhere) == 3


def test_a_damaged_segment_is_listed_with_the_reason(namespace: str) -> None:
    with rings(namespace):
        pass
    path = Path("/dev/shm", ring_name(namespace, "kraken", "xbtusd.kraken", 1))
    os.truncate(path, 9000)
    spoilt = [
        line for line in records(run("segments", "--json").stdout) if line["reason"]
    ]
    assert [(line["kind"], line["path"]) for line in spoilt] == [("damaged", str(path))]
    assert "do not fit its file" in run("segments").stdout


# Feeds


def test_a_feed_prints_bars_status_and_gaps_as_json(fake: Any, namespace: str) -> None:
    done = run("feed", f"aaa.{fake()}", "--seconds", "3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["status"] for line in records(done.stdout, "status")] == ["live"]
    gaps = records(done.stdout, "gap")
    assert [(gap["cause"], gap["repaired"]) for gap in gaps] == [
        ("test", False),
        ("test", True),
    ]
    bars = records(done.stdout, "bar")
    assert 2 <= len(bars) <= 4
    assert [b["time"] - a["time"] for a, b in zip(bars, bars[1:], strict=False)] == [
        1
    ] * (len(bars) - 1)
    with pk.attach_bars("aaa.fakevenue") as ring:
        rows = {row["time"]: row for row in ring.snapshot(100)}
        assert ring.status == "stopped"
    for bar in bars[1:]:
        assert bar["volume"] == rows[bar["time"]]["volume"] > 0


def test_a_feed_prints_text_lines_into_a_pipe(fake: Any, namespace: str) -> None:
    name = fake()
    done = run("feed", f"aaa.{name}", f"bbb.{name}", "--seconds", "2.2")
    heading, *lines = done.stdout.splitlines()
    assert heading.startswith("market")
    assert {line.split()[0] for line in lines} == {"aaa.fakevenue", "bbb.fakevenue"}
    for text in ("writing fakevenue's rings", "gap opened", "gap repaired", ": live"):
        assert text in done.stderr


def test_a_feed_that_is_interrupted_closes_its_rings(fake: Any, namespace: str) -> None:
    for number, code in (
        (signal.SIGINT, failures.INTERRUPTED),
        (signal.SIGTERM, failures.TERMINATED),
    ):
        name = fake(name=f"fake{code}")
        with Following("feed", f"aaa.{name}") as follow:
            assert follow.next("status")["status"] == "live"
            ended, _, err = follow.end(number)
            assert (ended, err) == (code, "")
        with pk.attach_bars(f"aaa.{name}") as bars:
            assert (bars.status, bars.writer_alive) == ("stopped", False)


def test_a_feed_is_a_live_table_on_a_terminal(fake: Any, namespace: str) -> None:
    code, text = on_terminal("feed", f"aaa.{fake()}", "--seconds", "1.5")
    assert code == 0
    for word in ("market", "aaa.fakevenue", "live", "100.0", "Ctrl-C ends it"):
        assert word in text


def test_bars_are_a_ruled_table_on_a_terminal(namespace: str) -> None:
    with rings(namespace):
        code, text = on_terminal("bars", "xbtusd.kraken")
    assert code == 0
    assert "┃" in text
    assert "2020-09-13 12:26:40" in text


def on_terminal(*words: str) -> tuple[int, str]:
    """Run a command on a pseudo-terminal 160 columns wide: exit code and output."""
    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "piker_core", *words],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": "160", "TERM": "xterm"},
    )
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(mine, 65536):
            text += chunk
    except OSError:  # a terminal whose other end is closed
        process.wait()
    finally:
        os.close(mine)
    return process.wait(), text.decode()


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ('raise pk.ProviderError("the venue is closed")', 4, "the venue is closed"),
        ('raise ConnectionRefusedError(111, "refused", "host")', 4, "host: refused"),
        ('raise ValueError("a slip")', 1, "unexpected ValueError: a slip (a bug"),
        ("raise pk.ConfigError('no key')", 5, "no key"),
        (
            "raise ExceptionGroup('', [ExceptionGroup('', [pk.FeedError('inner')])])",
            4,
            "inner",
        ),
    ],
)
def test_what_a_provider_raises_is_one_sentence_and_an_exit_code(
    body: str, code: int, text: str, fake: Any, namespace: str
) -> None:
    sentence = told_once(run("feed", f"aaa.{fake(body)}", "--json"), code)
    assert text in sentence


def test_a_traceback_is_shown_with_debug(fake: Any, namespace: str) -> None:
    name = fake('raise ValueError("a slip")')
    done = run("feed", f"aaa.{name}", "--debug")
    assert done.returncode == failures.BUG
    assert "Traceback" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("piker-core: unexpected")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["feed", "nosuch.fakevenue"], 3, "no market 'nosuch'"),
        (["feed", "aaa.nosuchvenue"], 3, "no provider named 'nosuchvenue'"),
        (["search", "aaa", "--provider", "nosuchvenue"], 3, "no provider named"),
        (["search", "broken", "--provider", "fakevenue"], 4, "answers nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_unknown_names_and_failing_venues_are_told(
    words: list[str], code: int, text: str, fake: Any, namespace: str
) -> None:
    fake()
    assert text in told_once(run(*words, "--json"), code)


def test_a_market_that_the_writer_does_not_feed_is_exit_code_4(
    fake: Any, namespace: str
) -> None:
    name = fake()
    with Following("feed", f"aaa.{name}") as follow:
        follow.next("status")
        time.sleep(1.1)  # a heartbeat
        sentence = told_once(run("feed", f"bbb.{name}"), failures.VENUE)
    assert f"process {follow.process.pid} writes {name}'s rings" in sentence


CONFIGS = {
    "unknown key": "[feed]\nseconds_bak = 3\n",
    "unknown table": "[nosuchthing]\n",
    "wrong type": "[feed]\nseconds_back = 'many'\n",
    "no TOML": "feed]",
    "not UTF-8": b"\xff\xfe",
    "a folder": None,
}


@pytest.mark.parametrize("what", CONFIGS)
@pytest.mark.parametrize("command", ["feed", "doctor"])
def test_a_bad_configuration_is_told_with_its_file(
    what: str, command: str, fake: Any, namespace: str, tmp_path: Path
) -> None:
    path, content = tmp_path / "config.toml", CONFIGS[what]
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if command == "feed":
        sentence = told_once(run("feed", f"aaa.{fake()}"), failures.MACHINE)
        assert str(path) in sentence
        return
    done = run("doctor", "--json", "--seconds", "0.1")
    assert done.returncode == failures.MACHINE
    [failed] = [line for line in records(done.stdout) if line["state"] == "fail"]
    assert failed["name"] == "configuration"
    assert str(path) in failed["text"]


NO_NETWORK = {
    "PIKER_KRAKEN__REST_URL": "http://127.0.0.1:1",
    "PIKER_KRAKEN__WS_URL": "ws://127.0.0.1:1/v2",
    "PIKER_KRAKEN__REST_ATTEMPTS": "1",
    "PIKER_CONFIG": "/dev/null",
}


@pytest.mark.parametrize(
    "words", [["feed", "xbtusd.kraken"], ["search", "btc", "--provider", "kraken"]]
)
def test_no_network_is_exit_code_4(words: list[str], namespace: str) -> None:
    sentence = told_once(run(*words, "--json", env=NO_NETWORK), failures.VENUE)
    assert "http://127.0.0.1:1" in sentence


def test_an_unknown_override_is_told_with_those_allowed(namespace: str) -> None:
    env = NO_NETWORK | {"PIKER_KRAKEN__WS_URLL": "ws://127.0.0.1:1"}
    sentence = told_once(run("feed", "xbtusd.kraken", env=env), failures.MACHINE)
    assert "PIKER_KRAKEN__WS_URLL" in sentence
    assert "PIKER_KRAKEN__WS_URL," in sentence


def test_shared_memory_that_is_full_is_told(fake: Any, namespace: str) -> None:
    words = private_shm("-o size=2m tmpfs /dev/shm")
    done = subprocess.run(
        [*words, sys.executable, "-m", "piker_core", "feed", f"aaa.{fake()}"],
        capture_output=True,
        text=True,
    )
    assert "no space left in /dev/shm" in told_once(done, failures.MACHINE)


@pytest.mark.parametrize("command", [["segments"], ["bars", "xbtusd.kraken"]])
def test_a_machine_without_shared_memory_is_told(
    command: list[str], namespace: str
) -> None:
    words = private_shm("tmpfs /dev && mknod -m 666 /dev/null c 1 3")
    done = subprocess.run(
        [*words, sys.executable, "-m", "piker_core", *command],
        capture_output=True,
        text=True,
    )
    sentence = told_once(done, failures.MACHINE)
    assert "/dev/shm" in sentence
    assert "mount a tmpfs there" in sentence


# Search and providers


def test_a_search_prints_the_markets_found(fake: Any, namespace: str) -> None:
    name = fake()
    done = run("search", "aa", "--provider", name, "--json")
    [market] = records(done.stdout)
    assert (market["fqme"], market["price_tick"]) == (f"aaa.{name}", "0.1")
    table = run("search", "aa", "--provider", name)
    assert f"aaa.{name}" in table.stdout


def test_a_search_without_a_hit_is_exit_code_3(fake: Any, namespace: str) -> None:
    done = run("search", "zzz", "--provider", fake())
    assert (done.returncode, done.stdout) == (failures.MISSING, "")
    assert "no market of fakevenue matches 'zzz'" in done.stderr


def install(folder: Path, name: str, code: str) -> None:
    """A distribution with one provider, as an installer would leave it."""
    (folder / f"{name}.py").write_text(textwrap.dedent(code))
    info = folder / f"{name}-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n"
    )
    (info / "entry_points.txt").write_text(f"[piker_core.providers]\n{name} = {name}\n")


def test_one_failing_provider_does_not_keep_the_others_from_answering(
    fake: Any, namespace: str, tmp_path: Path
) -> None:
    name = fake()
    install(tmp_path, "second", f"from {name} import *\nname = 'second'\n")
    done = run("search", "aa", "--json", env=NO_NETWORK)
    assert done.returncode == failures.VENUE
    assert [market["provider"] for market in records(done.stdout, "market")] == [
        "second"
    ]
    assert [error["provider"] for error in records(done.stdout, "error")] == ["kraken"]


def test_installed_providers_are_listed_with_capabilities_and_errors(
    fake: Any, namespace: str, tmp_path: Path
) -> None:
    install(tmp_path, "broken", "import nosuchmodule\n")
    install(tmp_path, "small", "name = 'small'\nasync def stream_quotes(): ...\n")
    done = run("providers", "--json")
    assert done.returncode == 0
    found = {line["name"]: line for line in records(done.stdout, "provider")}
    assert set(found) == {"broken", "kraken", "small"}
    assert found["small"]["capabilities"] == ["name", "stream_quotes"]
    assert found["small"]["version"] == "1.5"
    assert found["small"]["path"] == str(tmp_path / "small.py")
    assert "nosuchmodule" in found["broken"]["error"]
    assert found["broken"]["path"] == str(tmp_path / "broken.py")
    assert "open_history_client" in found["kraken"]["capabilities"]
    assert "nosuchmodule" in run("providers").stdout


# Doctor


def states(done: Done) -> dict[str, str]:
    return {line["name"]: line["state"] for line in records(done.stdout, "check")}


def test_the_doctor_finds_this_machine_fit_and_leaves_nothing(namespace: str) -> None:
    before = {path.name for path in Path("/dev/shm").iterdir()}
    done = run(
        "doctor", "--json", "--seconds", "0.3", env={"PIKER_CONFIG": "/dev/null"}
    )
    assert done.returncode == 0, done.stdout
    found = states(done)
    for name in ("locks", "reservation", "memory order", "waking", "kill", "providers"):
        assert found[name] == "ok"
    [ring] = [line for line in records(done.stdout) if line["name"] == "memory order"]
    figures = ring["figures"]
    assert figures["rows_read"] > 0
    assert figures["rows_torn"] == figures["torn_after_kill"] == 0
    assert figures["ticks_read"] + figures["ticks_lost"] == figures["ticks_pushed"] > 0
    after = {path.name for path in Path("/dev/shm").iterdir()}
    assert not {name for name in after - before if name.startswith(own_prefix(done))}


def own_prefix(done: Done) -> str:
    """What the names of the doctor's own rings began with is in no output: none stay."""
    assert done.returncode == 0
    return "piker-core-doctor"


def test_the_doctor_fails_for_a_provider_that_cannot_be_imported(
    fake: Any, namespace: str, tmp_path: Path
) -> None:
    install(tmp_path, "broken", "import nosuchmodule\n")
    done = run("doctor", "--seconds", "0.1")
    assert done.returncode == failures.MACHINE
    [line] = [line for line in done.stdout.splitlines() if line.startswith("fail")]
    assert "broken: provider module broken cannot be imported" in line
    assert "1 failed" in done.stderr


def test_the_doctor_fails_where_shared_memory_is_too_small(namespace: str) -> None:
    words = private_shm("-o size=1m tmpfs /dev/shm")
    done = subprocess.run(
        [*words, sys.executable, "-m", "piker_core", "doctor", "--json"],
        capture_output=True,
        text=True,
        env=os.environ | {"PIKER_CONFIG": "/dev/null"},
    )
    assert done.returncode == failures.MACHINE, done.stderr
    found = states(done)
    assert found["shared memory"] == found["self-test"] == "fail"
    assert "Traceback" not in done.stderr


# Sentences, numbers and times


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (pk.NotFound("no ring"), 3, "no ring"),
        (pk.ProviderError("odd answer"), 4, "odd answer"),
        (pk.DataThrottle("wait", retry_after=1.0), 4, "wait"),
        (pk.WriterBusy("taken"), 5, "taken"),
        (pk.PikerError("misspelt"), 5, "misspelt"),
        (TimeoutError("too long"), 4, "too long"),
        (
            OSError(28, "No space left", "/dev/shm/x"),
            5,
            "/dev/shm/x: No space left: free",
        ),
        (OSError(28, "no space left in /dev/shm: do this"), 5, "do this"),
        (FileNotFoundError(2, "No such file", "/dev/shm"), 5, "mount a tmpfs there"),
        (KeyError("k"), 1, "unexpected KeyError: 'k' (a bug"),
        (AssertionError(), 1, "unexpected AssertionError (a bug"),
        (KeyboardInterrupt(), 130, ""),
        (failures.OutputClosed(), 0, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_has_an_exit_code_and_a_sentence(
    error: BaseException, code: int, text: str
) -> None:
    group = BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [error])])
    for raised in (error, group):
        found, sentence = failures.explain(raised)
        assert found == code
        assert text in sentence
        assert bool(text) == bool(sentence)


def test_of_several_errors_the_unexpected_one_is_told() -> None:
    group = ExceptionGroup("both", [pk.FeedError("ended"), ZeroDivisionError("by 0")])
    code, sentence = failures.explain(group)
    assert code == failures.BUG
    assert "ZeroDivisionError" in sentence
    assert sentence.endswith("(and 1 more errors)")


def test_an_interrupt_among_errors_is_an_interrupt() -> None:
    group = BaseExceptionGroup("", [ValueError("late"), KeyboardInterrupt()])
    assert failures.explain(group) == (failures.INTERRUPTED, "")


@pytest.mark.parametrize(
    ("number", "text"),
    [(83769.7, "83769.7"), (1e-8, "0.00000001"), (0.1 + 0.2, "0.3"), (5e15, "5000000000000000"), (0.0, "0")],
)  # fmt: skip
def test_numbers_are_written_without_noise_and_exponent(
    number: float, text: str
) -> None:
    assert output.decimal_text(number) == text


@pytest.mark.parametrize(
    ("tick", "digits"), [("0.1", 1), ("0.25", 2), ("5", 0), ("1e-8", 8), ("10", 0)]
)
def test_prices_have_the_decimals_of_their_tick(tick: str, digits: int) -> None:
    from decimal import Decimal

    assert price_digits(Decimal(tick)) == digits


@pytest.mark.parametrize(
    ("cells", "right"),
    [
        (["1", "2.5", "-3"], True),
        (["39 MB", "8.7 kB"], True),
        (["1/256", ""], True),
        (["2026-01-01 00:00:00"], False),
        (["live", "1"], False),
        (["", ""], False),
        ([], False),
    ],
)
def test_columns_of_numbers_are_aligned_to_the_right(
    cells: Sequence[str], right: bool
) -> None:
    assert output.numeric(cells) is right


def test_sizes_spans_and_times_are_written_for_people() -> None:
    assert output.bytes_text(999) == "999 B"
    assert output.bytes_text(8_658_944) == "8.7 MB"
    assert output.bytes_text(479_383_552) == "479 MB"
    assert output.span_text(12.4) == "12 s"
    assert output.span_text(7200) == "2.0 h"
    assert output.utc_text(0.25, 3) == "1970-01-01 00:00:00.250"
    assert output.utc_text(2.0**62) == f"{2.0**62} s"
