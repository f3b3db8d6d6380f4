"""What a feed does to its rings is what the replay of its journal does."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

import piker_core as pk
from piker_core.cli import failures
from piker_core.cli.demo import only_these
from piker_core.digest import day_digests
from piker_core.journal import Kind, open_journal, read_journal
from piker_core.recorder import open_recorder
from piker_core.replay import Report, replay, replay_bars
from piker_core.segments import list_segments
from providers.binance.wire import Trade, decode_frame, trade_tick
from providers.kraken.venue import open_venue
from tests import storm
from tests.commands import invoke, records, told_once
from tests.replay_storm import replay_storm
from tests.taped import Rings, rings, unequal
from tests.test_storm import sites

FQMES = ["xbtusd.kraken", "ethusd.kraken"]
CAPTURED = [f"spot_btcusdt_2024080{day}.gz" for day in (8, 9)]
NS = 10**9


@asynccontextmanager
async def venue_of(seed: int = 1) -> AsyncIterator[Any]:
    """A venue, and the configuration that leads to it."""
    async with open_venue(
        seed=seed, live_rate=200.0, history_s=600.0, rest_rate=50.0, rest_burst=100
    ) as venue:
        keys = {**venue.config, "rest_rate": 20, "liveness_s": 3}
        with only_these(
            {f"PIKER_KRAKEN__{k}".upper(): str(v) for k, v in keys.items()}
        ):
            yield venue


async def played(folder: Path, namespace: str) -> tuple[Report, Rings]:
    """A replay in rings that are removed again."""
    try:
        report = await replay(folder, namespace=namespace)
        return report, rings(report.markets, namespace)
    finally:
        pk.remove_segments(namespace)


async def check_replay(folder: Path, namespace: str) -> Report:
    """Two replays and the rings of a namespace are the same."""
    report, one = await played(folder, f"{namespace}a")
    _, two = await played(folder, f"{namespace}b")
    assert unequal(rings(report.markets, namespace), one) == []
    assert unequal(one, two) == []
    assert report.counts.unknown == report.counts.holes == 0
    assert report.cut is None
    return report


@pytest.mark.parametrize("name", storm.NAMES)
async def test_rows_of_a_storm_are_replayed_bit_for_bit_and_are_the_venues(
    name: str, namespace: str, tmp_path: Path
) -> None:
    storming = replay_storm(sites([name]), namespace, tmp_path, seconds=6.0, seed=3)
    try:
        report = await storming
    finally:
        for suffix in "ab":
            pk.remove_segments(namespace + suffix)
    assert report["unequal"] == []
    if name != "ib":  # what TWS does not tell is a matter of its own storms
        assert report["faulty"] == []
    assert report["rows"] > 100 and report["ticks"] > 100


async def test_markets_come_and_go_while_they_are_recorded(
    namespace: str, tmp_path: Path
) -> None:
    async with venue_of() as venue:
        async with pk.open_feed(FQMES[:1], namespace=namespace, journal=tmp_path):
            await trio.sleep(1.0)
            async with pk.open_feed(FQMES[1:], namespace=namespace) as other:
                assert other.roles == {"kraken": "reader"}
                await trio.sleep(1.5)
            venue.faults.cut()
            await trio.sleep(1.5)
            async with pk.open_feed(FQMES[1:], namespace=namespace):
                await trio.sleep(1.0)
    report = await check_replay(tmp_path, namespace)
    assert report.markets == sorted(FQMES)
    assert report.counts.frames > 50


async def test_a_journal_is_gone_on_with_in_rings_that_are_resumed(
    namespace: str, tmp_path: Path
) -> None:
    async with venue_of():
        for _ in range(2):
            async with pk.open_feed(FQMES, namespace=namespace, journal=tmp_path):
                await trio.sleep(2.0)
    await check_replay(tmp_path, namespace)


RECORD = """
import os, signal, sys, trio
import piker_core as pk

async def main():
    async with pk.open_feed(sys.argv[3:], namespace=sys.argv[1], journal=sys.argv[2]):
        print("fed", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_who_takes_over_has_a_journal_of_all_that_comes_then(
    namespace: str, tmp_path: Path
) -> None:
    async with venue_of():
        command = [sys.executable, "-c", RECORD, namespace, str(tmp_path / "one")]
        process = await trio.lowlevel.open_process(
            [*command, *FQMES], stdout=subprocess.PIPE, env=dict(os.environ)
        )
        assert process.stdout is not None
        await process.stdout.receive_some()
        async with pk.open_feed(
            FQMES, namespace=namespace, journal=tmp_path / "two"
        ) as feed:
            assert feed.roles == {"kraken": "reader"}
            await trio.sleep(1.5)
            process.kill()
            await process.wait()
            while feed.roles != {"kraken": "writer"}:
                await trio.sleep(0.05)
            begun_s = int(feed.flumes[FQMES[0]].rt.last()["time"])
            await trio.sleep(4.0)
    report, two = await played(tmp_path / "two", f"{namespace}a")
    live = rings(FQMES, namespace)
    names = [name for name in live[FQMES[0], 1].dtype.names if name != "flags"]
    for fqme in FQMES:
        mine, its = live[fqme, 1], two[fqme, 1]
        mine, its = (rows[rows["time"] > begun_s + 1] for rows in (mine, its))
        names = [n for n in mine.dtype.names if n not in ("index", "flags")]
        assert len(mine) >= 2
        assert (mine[names] == its[names]).all()
    assert report.counts.unknown == 0
    first, _ = await played(tmp_path / "one", f"{namespace}b")
    assert first.cut is not None and first.counts.frames


async def test_a_full_disk_is_said_once_and_the_feed_goes_on(
    namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        """A journal whose disk is full for a while."""

        def __init__(self, journal: Any) -> None:
            self.journal, self.lost, self.full = journal, 0, False

        def append(self, *record: Any) -> None:
            if self.full:
                self.lost += 1
                raise pk.JournalError("the disk is full")
            self.journal.append(*record)

        def close(self) -> None:
            self.journal.close()

    with open_recorder(tmp_path) as recorder:
        full = recorder._journal = Full(recorder._journal)
        async with venue_of(), pk.open_feed(
            FQMES, namespace=namespace, journal=recorder
        ) as feed:  # fmt: skip
            for full.full in (True, False):
                head = feed.flumes[FQMES[0]].rt.head
                with trio.fail_after(20):
                    while feed.flumes[FQMES[0]].rt.head < head + 2:
                        await trio.sleep(0.05)
        counts = recorder.statistics()
    assert counts.lost == full.lost > 0 and counts.trouble == "the disk is full"
    said = [r for r in caplog.records if "journal is in trouble" in r.getMessage()]
    assert len(said) == 1
    report, _ = await played(tmp_path, f"{namespace}a")
    assert report.counts.unknown == 0


# Others' recordings


def fold(folder: Path, period: int) -> Any:
    """Bars straight from the trades of a journal of Binance."""
    found = []
    with read_journal(folder) as journal:
        for record in journal:
            if record.kind == Kind.RECEIVED:
                frame = decode_frame(record.body)
                found += [trade_tick(frame)] if isinstance(frame, Trade) else []
    ticks = np.zeros(len(found), pk.TICK_DTYPE)
    ticks["type"] = pk.TICK_TYPES["trade"]
    for name in ("price", "size", "time_ns", "id", "side", "count"):
        ticks[name] = [tick[name] for tick in found]
    return pk.fold_ticks(ticks, period)


def test_a_session_over_midnight_gives_the_bars_of_its_trades_and_of_the_oracle(
    captures: Path, tmp_path: Path, namespace: str
) -> None:
    folder, given = tmp_path / "journal", [captures / "binance" / n for n in CAPTURED]
    done = invoke(
        *("import-recording", *map(str, given), "--out", str(folder)),
        *("--provider", "binance", "--market", "btcusdt"),
    )
    assert done.returncode == 0, done.stderr
    (one, report), (two, _) = replay_bars(folder), replay_bars(folder)
    assert report.counts.unknown == 0 and report.markets == ["btcusdt.binance"]
    for (fqme, period, rows), (_, _, again) in zip(one, two, strict=True):
        assert rows.tobytes() == again.tobytes()
        folded = fold(folder, period)
        for each in (rows, folded):
            each["flags"] = each["index"] = 0
        assert rows.tobytes() == folded.tobytes()
        digests = day_digests(fqme, period, rows)
        assert digests == day_digests(fqme, period, folded)
        assert [digest.day for digest in digests] == ["2024-08-08", "2024-08-09"]
        check_oracle(captures, period, rows)


def check_oracle(captures: Path, period: int, rows: Any) -> None:
    unit = {1: "1s", 60: "1m"}[period]
    path = captures / "binance" / f"spot_btcusdt_expected_{unit}.csv"
    oracle = np.genfromtxt(path, delimiter=",", names=True, dtype=None)
    known = rows[np.isin(rows["time"], oracle["open_time_ms"] // 1000)]
    assert len(known) == len(oracle) > 10
    for name in ("open", "high", "low", "close"):
        assert (known[name] == oracle[name]).all()
    assert (np.round(known["volume"], 8) == oracle["volume"]).all()
    assert (known["count"] == oracle["trades"]).all()


# Speed, damage, commands


def small_journal(folder: Path, seconds: int = 5) -> None:
    """A journal with a frame of Binance's a second."""
    frame = (
        '{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":%d,'
        '"p":"100.0","q":"0.5","T":%d,"m":true,"M":true}}'
    )
    with open_journal(folder, block_s=0.5) as journal:
        begun = b'{"provider":"binance","markets":["btcusdt"]}'
        journal.append(Kind.SESSION, 1_700_000_000 * NS, begun)
        for number in range(1, seconds + 1):
            at_ms = (1_700_000_000 + number) * 1000
            body = (frame % (number, at_ms)).encode()
            journal.append(Kind.RECEIVED, at_ms * 10**6, body, 1)


@pytest.mark.parametrize(("speed", "took_s"), [(1.0, 5.0), (10.0, 0.5), (0.0, 0.0)])
async def test_a_replay_takes_the_recorded_time_divided_by_its_speed(
    speed: float,
    took_s: float,
    namespace: str,
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
) -> None:
    small_journal(tmp_path)
    begun_s = trio.current_time()
    report = await replay(tmp_path, namespace=namespace, speed=speed)
    assert trio.current_time() - begun_s == pytest.approx(took_s)
    assert report.counts.ticks == 5


def test_a_damaged_journal_is_played_as_far_as_it_is_whole(
    namespace: str, tmp_path: Path
) -> None:
    small_journal(tmp_path, 60)
    whole, _ = replay_bars(tmp_path)
    [path] = tmp_path.glob("*.journal")
    path.write_bytes(path.read_bytes()[:-700])
    done = invoke("replay", str(tmp_path), "--namespace", namespace, "--json")
    assert done.returncode == failures.VENUE
    [replayed], [cut] = records(done.stdout, "replayed"), records(done.stdout, "cut")
    assert cut["file"] == str(path) and 0 < cut["cut_at"] < path.stat().st_size
    assert replayed["cut"] == {name: cut[name] for name in ("file", "cut_at")}
    with pk.attach_bars("btcusdt.binance", namespace=namespace) as bars:
        rows = bars.snapshot(bars.head - bars.first)
    settled = len(rows) - 1
    assert settled > 30
    assert rows[:settled].tobytes() == whole[0][2][:settled].tobytes()
    pk.remove_segments(namespace)
    text = invoke("replay", str(tmp_path), "--namespace", namespace)
    assert "damaged" in text.stdout and str(cut["cut_at"]) in text.stdout


def test_rings_that_are_there_already_are_left_alone(
    namespace: str, tmp_path: Path
) -> None:
    small_journal(tmp_path)
    assert invoke("replay", str(tmp_path), "--namespace", namespace).returncode == 0
    before = rings(["btcusdt.binance"], namespace)
    done = invoke("replay", str(tmp_path), "--namespace", namespace)
    assert namespace in told_once(done, failures.MACHINE)
    assert unequal(before, rings(["btcusdt.binance"], namespace)) == []


def test_a_folder_without_a_journal_is_one_sentence(
    namespace: str, tmp_path: Path
) -> None:
    done = invoke("replay", str(tmp_path), "--namespace", namespace)
    assert str(tmp_path) in told_once(done, failures.MACHINE)


async def run(*words: str) -> Any:
    return await trio.run_process(
        [sys.executable, "-m", "piker_core", *words],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


async def test_what_another_process_writes_is_recorded_over_own_connections(
    namespace: str, tmp_path: Path
) -> None:
    words = ["record", FQMES[0], "--out", str(tmp_path), "--seconds", "2", "--ticks"]
    async with venue_of(), pk.open_feed(FQMES, namespace=namespace):
        done = await run(*words)
    assert done.returncode == 0, done.stderr
    told = done.stderr.decode()
    assert f"process {os.getpid()} writes kraken in namespace {namespace}" in told
    own = told.partition("of their own, in namespace ")[2].split()[0]
    assert list_segments(own) == []
    report, _ = await played(tmp_path, f"{namespace}a")
    assert report.markets == FQMES[:1] and report.counts.frames
    with read_journal(tmp_path) as journal:
        assert any(record.kind == Kind.TICKS for record in journal)


async def test_recorded_rings_are_those_of_the_namespace(
    namespace: str, tmp_path: Path
) -> None:
    async with venue_of():
        done = await run("record", *FQMES, "--out", str(tmp_path), "--seconds", "3",
                         "--compress", "none", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    [told] = records(done.stdout.decode(), "recorded")
    report = await check_replay(tmp_path, namespace)
    assert told["frames"] == report.counts.frames > 50 and told["lost"] == 0
    digests = [
        (d.market, d.period, d.digest)
        for (fqme, period), rows in rings(FQMES, namespace).items()
        if period
        for d in day_digests(fqme, period, rows[:-1])
    ]
    done = await run("verify", str(tmp_path), "--json")
    shown = records(done.stdout.decode(), "digest")
    assert sorted((d["market"], d["period"], d["digest"]) for d in shown) == sorted(
        digests
    )


def test_a_provider_that_is_not_installed_is_played_by_its_quotes(
    namespace: str, tmp_path: Path
) -> None:
    tick = b'{"type":"trade","price":1.5,"size":2.0,"time_ns":1700000000000000000}'
    with open_journal(tmp_path) as journal:
        for kind, body in (
            (Kind.SESSION, b'{"provider":"acme","engine":1,"module":"no.such.one"}'),
            (Kind.MARKET, b'{"fqme":"aaa.acme","number":0,"options":{}}'),
            (Kind.QUOTE, b'{"symbol":"aaa","ticks":[%s]}' % tick),
        ):
            journal.append(kind, 1_700_000_000 * NS, body, 1)
    [(fqme, _, rows), _], report = replay_bars(tmp_path)
    assert fqme == "aaa.acme" and rows["volume"].tolist() == [2.0]
    assert report.counts.unknown == 0


def test_frames_of_a_provider_that_is_not_installed_are_one_sentence(
    namespace: str, tmp_path: Path
) -> None:
    with open_journal(tmp_path) as journal:
        for kind, body in (
            (Kind.SESSION, b'{"provider":"acme","engine":1,"module":"no.such.one"}'),
            (Kind.MARKET, b'{"fqme":"aaa.acme","number":0,"options":{}}'),
            (Kind.OPENED, b'{"url":"ws://acme","engine":1}'),
            (Kind.RECEIVED, b"{}"),
            (Kind.QUOTE, b'{"frame":1}'),
        ):
            journal.append(kind, 1_700_000_000 * NS, body, 1)
    done = invoke("replay", str(tmp_path), "--namespace", namespace)
    assert "no.such.one" in told_once(done, failures.MISSING)
