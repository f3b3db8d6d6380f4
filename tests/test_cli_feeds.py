"""`feed`, `search` and `providers`, with providers made for the test."""

import signal
import subprocess
from pathlib import Path

import pytest

import piker_core as pk
from piker_core.cli import failures
from piker_core.provider import provider_names
from tests.commands import (
    NO_NETWORK,
    PYTHON,
    Following,
    Providers,
    invoke,
    on_terminal,
    private_shm,
    records,
    run,
    told_once,
)


@pytest.fixture
def providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Providers:
    """Makes providers for the commands that a test runs."""
    return Providers(tmp_path, monkeypatch)


# Feeds


def test_a_feed_prints_bars_status_and_gaps_as_json(
    providers: Providers, namespace: str
) -> None:
    done = run("feed", f"aaa.{providers.make()}", "--seconds", "3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["status"] for line in records(done.stdout, "status")] == ["live"]
    gaps = records(done.stdout, "gap")
    assert [(gap["cause"], gap["repaired"]) for gap in gaps] == [
        ("test", False),
        ("test", True),
    ]
    bars = records(done.stdout, "bar")
    assert 2 <= len(bars) <= 4
    times = [bar["time"] for bar in bars]
    assert times == list(range(times[0], times[0] + len(times)))
    with pk.attach_bars("aaa.tinyvenue") as ring:
        rows = {row["time"]: row for row in ring.snapshot(100)}
        assert ring.status == "stopped"
    for bar in bars[1:]:
        assert bar["volume"] == rows[bar["time"]]["volume"] > 0


def test_a_feed_prints_text_lines_into_a_pipe(
    providers: Providers, namespace: str
) -> None:
    name = providers.make()
    done = run("feed", f"aaa.{name}", f"bbb.{name}", "--seconds", "2.2")
    heading, *lines = done.stdout.splitlines()
    assert heading.startswith("market")
    assert {line.split()[0] for line in lines} == {"aaa.tinyvenue", "bbb.tinyvenue"}
    for text in ("writing tinyvenue's rings", "gap opened", "gap repaired", ": live"):
        assert text in done.stderr


def test_a_feed_that_is_interrupted_closes_its_rings(
    providers: Providers, namespace: str
) -> None:
    for number, code in (
        (signal.SIGINT, failures.INTERRUPTED),
        (signal.SIGTERM, failures.TERMINATED),
        (signal.SIGHUP, failures.HUNG_UP),
    ):
        name = providers.make(name=f"fake{code}")
        with Following("feed", f"aaa.{name}") as follow:
            assert follow.next("status")["status"] == "live"
            ended, _, err = follow.end(number)
            assert (ended, err) == (code, "")
        with pk.attach_bars(f"aaa.{name}") as bars:
            assert (bars.status, bars.writer_alive) == ("stopped", False)


def test_a_feed_whose_output_nobody_reads_closes_its_rings_quietly(
    providers: Providers, namespace: str
) -> None:
    process = subprocess.Popen(
        [*PYTHON, "feed", f"aaa.{providers.make()}", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == failures.OK
    with pk.attach_bars("aaa.tinyvenue") as bars:
        assert bars.status == "stopped"


def test_a_feed_is_a_live_table_on_a_terminal(
    providers: Providers, namespace: str
) -> None:
    code, text = on_terminal("feed", f"aaa.{providers.make()}", "--seconds", "1.5")
    assert code == 0
    for word in ("market", "aaa.tinyvenue", "live", "100.0", "Ctrl-C ends it"):
        assert word in text


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
    body: str, code: int, text: str, providers: Providers, namespace: str
) -> None:
    sentence = told_once(run("feed", f"aaa.{providers.make(body)}", "--json"), code)
    assert text in sentence


def test_a_traceback_is_shown_with_debug(providers: Providers, namespace: str) -> None:
    name = providers.make('raise ValueError("a slip")')
    done = run("feed", f"aaa.{name}", "--debug")
    assert done.returncode == failures.BUG
    assert "Traceback" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("piker-core: unexpected")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["feed", "nosuch.tinyvenue"], 3, "no market 'nosuch'"),
        (["feed", "aaa.nosuchvenue"], 3, "no provider named 'nosuchvenue'"),
        (["search", "aaa", "--provider", "nosuchvenue"], 3, "no provider named"),
        (["search", "broken", "--provider", "tinyvenue"], 4, "answers nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_unknown_names_and_failing_venues_are_told(
    words: list[str], code: int, text: str, providers: Providers, namespace: str
) -> None:
    providers.make()
    assert text in told_once(run(*words, "--json"), code)


def test_a_second_feed_asks_the_first_for_its_markets(
    providers: Providers, namespace: str
) -> None:
    name = providers.make()
    with Following("feed", f"aaa.{name}") as follow:
        follow.until("status")
        done = run("feed", f"aaa.{name}", f"bbb.{name}", "--seconds", "2", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        bars = records(done.stdout, "bar")
        assert {bar["fqme"] for bar in bars} == {f"aaa.{name}", f"bbb.{name}"}
        rings = {ring.fqme: ring for ring in pk.list_segments() if ring.period == 1}
        pids = {ring.writer_pid for ring in rings.values()}
        assert pids == {follow.process.pid}
        told = run("feed", f"nosuch.{name}", "--json")
        assert "no market 'nosuch'" in told_once(told, failures.MISSING)
        follow.until("bar")


def test_a_market_that_cannot_be_asked_for_is_exit_code_4(
    providers: Providers, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    name = providers.make()
    with Following("feed", f"aaa.{name}") as follow:
        follow.until("bar")
        sentence = told_once(run("feed", f"bbb.{name}"), failures.VENUE)
        assert f"process {follow.process.pid} writes {name}'s rings" in sentence
        _, _, err = follow.end(signal.SIGINT)
        assert err.count("has no control socket") == 1


CONFIGS = {
    "unknown key": b"[feed]\nseconds_bak = 3\n",
    "unknown table": b"[nosuchthing]\n",
    "wrong type": b"[feed]\nseconds_back = 'many'\n",
    "no TOML": b"feed]",
    "not UTF-8": b"\xff\xfe",
    "a folder": None,
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_bad_configuration_is_told_with_its_file(
    what: str, providers: Providers, namespace: str
) -> None:
    path, content = providers.folder / "config.toml", CONFIGS[what]
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    sentence = told_once(invoke("feed", "xbtusd.kraken"), failures.MACHINE)
    assert str(path) in sentence


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


def test_shared_memory_that_is_full_is_told(
    providers: Providers, namespace: str
) -> None:
    words = private_shm("-o size=2m tmpfs /dev/shm")
    done = subprocess.run(
        [*words, *PYTHON, "feed", f"aaa.{providers.make()}"],
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
        [*words, *PYTHON, *command],
        capture_output=True,
        text=True,
    )
    sentence = told_once(done, failures.MACHINE)
    assert "/dev/shm" in sentence
    assert "mount a tmpfs there" in sentence


# Search and providers


def test_a_search_prints_the_markets_found(
    providers: Providers, namespace: str
) -> None:
    name = providers.make()
    done = run("search", "aa", "--provider", name, "--json")
    [market] = records(done.stdout)
    assert (market["fqme"], market["price_tick"]) == (f"aaa.{name}", "0.1")
    assert (market["kind"], market["market_kind"]) == ("market", "perp")
    table = run("search", "aa", "--provider", name)
    assert f"aaa.{name}" in table.stdout


def test_a_search_without_a_hit_is_exit_code_3(
    providers: Providers, namespace: str
) -> None:
    done = run("search", "zzz", "--provider", providers.make())
    assert (done.returncode, done.stdout) == (failures.MISSING, "")
    assert "no market of tinyvenue matches 'zzz'" in done.stderr


def test_one_failing_provider_does_not_keep_the_others_from_answering(
    providers: Providers, namespace: str
) -> None:
    name = providers.make()
    providers.install("second", f"from {name} import *\nname = 'second'\n")
    done = run("search", "aa", "--json", env=NO_NETWORK)
    assert done.returncode == failures.VENUE
    assert [market["provider"] for market in records(done.stdout, "market")] == [
        "second"
    ]
    failed = [error["provider"] for error in records(done.stdout, "error")]
    assert sorted(failed) == provider_names()  # those that come with it


def test_installed_providers_are_listed_with_capabilities_and_errors(
    providers: Providers, namespace: str
) -> None:
    providers.install("broken", "import nosuchmodule\n")
    providers.install("small", "name = 'small'\nasync def stream_quotes(): ...\n")
    done = run("providers", "--json")
    assert done.returncode == 0
    found = {line["name"]: line for line in records(done.stdout, "provider")}
    assert set(found) == {"broken", "small", *provider_names()}
    assert found["small"]["capabilities"] == ["name", "stream_quotes"]
    assert found["small"]["version"] == "1.5"
    assert found["small"]["path"] == str(providers.folder / "small.py")
    assert "nosuchmodule" in found["broken"]["error"]
    assert found["broken"]["path"] == str(providers.folder / "broken.py")
    assert "open_history_client" in found["kraken"]["capabilities"]
    assert "nosuchmodule" in run("providers").stdout
