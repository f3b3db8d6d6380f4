"""Why a market's status is what it is: what readers and listings say of it."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import piker_core as pk
from piker_core.cli.watch import RingWatch
from piker_core.segments import list_segments
from tests.commands import SMALL, Providers, invoke, records, rings, run

Opened = tuple[pk.FeedEngine, pk.Market, pk.BarReader]
WHY = "no trade for 5 s"


@pytest.fixture
def opened(namespace: str) -> Iterator[Opened]:
    with rings(namespace) as (engine, market), pk.attach_bars(market.fqme) as bars:
        yield engine, market, bars


def test_a_status_has_the_reason_that_came_with_it(opened: Opened) -> None:
    _, market, bars = opened
    assert bars.status_reason == ""
    market.set_status("stale", reason=WHY)
    assert (bars.status, bars.status_reason) == ("stale", WHY)
    market.set_status("stale", reason="no heartbeat for 9 s")
    assert bars.status_reason == "no heartbeat for 9 s"


def test_every_period_has_it(opened: Opened) -> None:
    _, market, _ = opened
    market.set_status("stale", reason=WHY)
    for period in market.bars:
        with pk.attach_bars(market.fqme, period=period) as bars:
            assert bars.status_reason == WHY


def test_a_status_without_a_reason_clears_the_one_before(opened: Opened) -> None:
    engine, market, bars = opened
    for status in ("live", "stale"):
        market.set_status("stale", reason=WHY)
        market.set_status(status)
        assert (bars.status, bars.status_reason) == (status, "")
    market.set_status("stale", reason=WHY)
    engine.close()
    assert (bars.status, bars.status_reason) == ("stopped", "")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("x" * 127, "x" * 127),
        ("x" * 128, "x" * 127),
        ("xé" + "é" * 80, "x" + "é" * 63),
        ("a\x1b[31m\nb\0c\ud800", "a [31m b c "),
    ],
)
def test_of_a_reason_127_printable_bytes_are_kept(
    opened: Opened, said: str, kept: str
) -> None:
    _, market, bars = opened
    market.set_status("closed", reason=said)
    assert bars.status_reason == kept


def test_a_reason_is_text(opened: Opened) -> None:
    _, market, bars = opened
    with pytest.raises(TypeError, match="the reason of a status is text, not 7"):
        market.set_status("stale", reason=7)  # type: ignore[arg-type]
    assert (bars.status, bars.status_reason) == ("live", "")


@pytest.mark.parametrize("cleanly", [False, True])
def test_the_reason_of_a_writer_that_died_stays_until_the_next_sets_a_status(
    namespace: str, cleanly: bool
) -> None:
    engine = pk.open_engine("kraken", namespace=namespace, tick_capacity=64)
    market = engine.add_market("xbtusd.kraken", capacity=SMALL, periods=(60,))
    bars = pk.attach_bars("xbtusd.kraken", period=60)
    market.set_status("reconnecting", reason=WHY)
    if cleanly:
        engine.close()
    else:  # as a death would: nothing is said to anyone
        del engine, market
        gc.collect()
        assert (bars.status, bars.status_reason) == ("reconnecting", WHY)
    with pk.open_engine("kraken", namespace=namespace) as engine:
        market = engine.add_market("xbtusd.kraken", capacity=SMALL, periods=(1, 60))
        kept = "" if cleanly else WHY
        for period in (1, 60):
            reader = pk.attach_bars("xbtusd.kraken", period=period)
            assert (reader.status, reader.status_reason) == ("starting", kept)
        market.set_status("live")
        assert (bars.status, bars.status_reason) == ("live", "")


WRITER = """
import sys
import piker_core as pk
engine = pk.open_engine("kraken", namespace=sys.argv[1], tick_capacity=64)
market = engine.add_market("xbtusd.kraken", capacity={1: 256, 60: 256})
texts = [letter * length for letter in "abcdef" for length in (1, 8, 60, 127)]
market.set_status("stale", reason="begins")
print("ready", flush=True)
while True:
    for text in texts:
        market.set_status("stale", reason=text)
        market.set_status("closed", reason=text)
"""


def test_a_reader_beside_a_writer_that_is_killed_never_sees_a_torn_reason(
    namespace: str,
) -> None:
    command = [sys.executable, "-c", WRITER, namespace]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            bars = pk.attach_bars("xbtusd.kraken")
            seen = {bars.status_reason for _ in range(20_000)}
            for _ in range(200):
                seen |= {ring.status_reason for ring in list_segments()}
        finally:
            writer.kill()
    texts = {letter * length for letter in "abcdef" for length in (1, 8, 60, 127)}
    assert seen <= {"", "begins"} | texts and len(seen) > 2
    assert bars.status_reason in {""} | texts


def test_a_watcher_tells_of_a_status_and_of_another_reason_for_it(
    opened: Opened,
) -> None:
    _, market, bars = opened
    watch = RingWatch(bars)
    told = []
    for reason in ("", WHY, WHY, "no heartbeat"):
        market.set_status("stale", reason=reason)
        told += [state.get("reason") for kind, state in watch.look()]
    assert told == [None, WHY, "no heartbeat"]


def test_listings_of_rings_have_it(opened: Opened) -> None:
    _, market, _ = opened
    market.set_status("reconnecting", reason=WHY)
    ticks, *bars = records(invoke("segments", "--json").stdout)
    assert [ring["status_reason"] for ring in (ticks, *bars)] == ["", WHY, WHY]
    assert f"reconnecting ({WHY})" in invoke("segments").stdout


def test_a_view_of_bars_says_it(opened: Opened) -> None:
    _, market, _ = opened
    market.set_status("stale", reason=WHY)
    assert f"stale ({WHY}), its writer lives" in invoke("bars", market.fqme).stderr


def test_a_feed_says_it_in_words_and_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespace: str
) -> None:
    body = f"shm[symbols[0]].set_status('stale', reason={WHY!r})"
    name = Providers(tmp_path, monkeypatch).make(body)
    done = run("feed", f"aaa.{name}", "--seconds", "0.5", "--json")
    [told] = records(done.stdout, "status")
    assert (told["status"], told["reason"]) == ("stale", WHY)
    done = run("feed", f"aaa.{name}", "--seconds", "0.5")
    assert f"aaa.{name}: stale ({WHY})" in done.stderr
