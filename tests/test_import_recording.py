"""Recordings by others become journals: every frame, in its order, with its time."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from piker_core.journal import Kind, Record, decode_answer, read_journal
from tests.commands import invoke, told_once
from tests.recorded_session import write_session

STAMP = 1_723_161_253_937_085_768


def journal_records(folder: Path) -> list[Record]:
    with read_journal(folder) as reader:
        found = list(reader)
        assert reader.cut is None and not reader.statistics().unknown
    return found


def import_files(*files: Path, out: Path, options: tuple[str, ...] = ()) -> Any:
    arguments = [*map(str, files), "--out", str(out), "--provider", "venue"]
    done = invoke("import-recording", *arguments, *options, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_stamped_lines_are_one_connection_with_their_own_times(tmp_path: Path) -> None:
    plain, packed = tmp_path / "first", tmp_path / "second.gz"
    plain.write_bytes(b'%d {"a": 1}\r\n%d {"b": " 2"}\n' % (STAMP, STAMP + 5))
    packed.write_bytes(gzip.compress(b"%d x\n" % (STAMP - 7)))
    told = import_files(
        plain,
        packed,
        out=tmp_path / "journal",
        options=("--market", "ab", "--market=c"),
    )
    assert (told["opened"], told["received"], told["closed"]) == (1, 3, 1)
    session, opened, *frames, closed = journal_records(tmp_path / "journal")
    assert json.loads(session.body) == {
        "provider": "venue",
        "recorder": "piker-core import-recording",
        "markets": ["ab", "c"],
    }
    assert (opened.kind, opened.source) == (Kind.OPENED, 1)
    assert json.loads(opened.body) == {"url": "recording:first"}
    assert [(each.time_ns, each.body, each.source) for each in frames] == [
        (STAMP, b'{"a": 1}', 1),
        (STAMP + 5, b'{"b": " 2"}', 1),
        (STAMP - 7, b"x", 1),
    ]
    assert (closed.kind, closed.time_ns) == (Kind.CLOSED, STAMP - 7)


def test_a_session_becomes_connections_requests_and_answers_by_time(
    tmp_path: Path,
) -> None:
    files = write_session(tmp_path / "recorded")
    import_files(*files, out=tmp_path / "journal")
    _, *found = journal_records(tmp_path / "journal")
    lines = [line for file in files for line in file.read_text().splitlines()]
    kinds = Counter(Kind(each.kind) for each in found)
    assert kinds == {
        Kind.OPENED: 1,
        Kind.SENT: sum(" <- " in line for line in lines),
        Kind.ANSWER: sum(" -> " in line for line in lines),
        Kind.RECEIVED: sum(line[0].isdigit() for line in lines),
        Kind.CLOSED: 1,
    }
    assert [each.time_ns for each in found] == sorted(each.time_ns for each in found)
    received = [each for each in found if each.kind == Kind.RECEIVED]
    stamp, _, text = next(line for line in lines if line[0].isdigit()).partition(": ")
    assert received[0].time_ns == round(float(stamp) * 1e6) * 1000
    assert received[0].body.decode() == text
    answers = [decode_answer(x.body) for x in found if x.kind == Kind.ANSWER]
    assert {answer.url.partition("?")[0] for answer in answers} == {
        "/v1/markets",
        "/v1/tickers",
        "/v1/trades",
        "/v1/bars",
    }
    assert all(json.loads(answer.body) for answer in answers)


def test_a_recorded_day_of_binance_is_whole_in_the_journal(
    captures: Path, tmp_path: Path
) -> None:
    files = [
        captures / "binance" / f"spot_btcusdt_{day}.gz"
        for day in ("20240808", "20240809")
    ]
    told = import_files(*files, out=tmp_path, options=("--market", "btcusdt"))
    assert told["received"] == 99_574
    assert told["stored"] < told["raw"] / 4
    found = [x for x in journal_records(tmp_path) if x.kind == Kind.RECEIVED]
    place = 0
    for path in files:
        with gzip.open(path) as file:
            for line in file:
                stamp, _, frame = line.rstrip().partition(b" ")
                assert (found[place].time_ns, found[place].body) == (int(stamp), frame)
                place += 1
    assert place == len(found)
    assert len(list(tmp_path.glob("*.journal"))) == 2, "a segment a day"


@pytest.mark.parametrize("name", ["BINANCE", "BINANCE_US"])
def test_recorded_sessions_with_their_answers_are_taken_whole(
    name: str, captures: Path, tmp_path: Path
) -> None:
    files = sorted((captures / "binance").glob(f"recording_{name}.*"))
    told = import_files(*files, out=tmp_path)
    lines = [line for file in files for line in file.read_bytes().splitlines()]
    assert told["received"] == sum(line[:1].isdigit() for line in lines)
    assert told["answer"] == sum(b" -> " in line[:200] for line in lines)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (gzip.compress(b"1 {}\n" * 99, mtime=0)[:-9], "is damaged"),
        (b"", "no message of a WebSocket"),
        (b"hello\n", "line 1 is none of a recorded session"),
        (b"123 {}\n99x {}\n", "line 2 is none of a recording"),
        (b"123 {}\n%d {}\n" % 2**63, "line 2 is none of a recording"),
    ],
)
def test_a_file_of_neither_format_is_refused_in_one_sentence(
    text: bytes, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "recorded"
    path.write_bytes(text)
    out = str(tmp_path / "journal")
    done = invoke("import-recording", str(path), "--out", out, "--provider", "venue")
    assert told in told_once(done, 5)
