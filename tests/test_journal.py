"""A journal gives back what was written, in order, in any blocks and segments."""

import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piker_core.errors import JournalError
from piker_core.journal import (
    Answer,
    Kind,
    Lost,
    Record,
    decode_answer,
    encode_answer,
    open_journal,
    read_journal,
)
from piker_core.journal.layout import BLOCK, HEADER, MOST_BODY, RECORD
from piker_core.journal.packing import load_zstd
from tests.journal_making import (
    BASE_NS,
    DAY_NS,
    frame,
    frames,
    read,
    segments,
    write,
)

record = st.builds(
    Record,
    st.sampled_from(list(map(int, Kind))),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=60),
)


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.lists(record, max_size=20), max_size=3),
    block_bytes=st.integers(1, 300),
    segment_bytes=st.integers(1, 800),
    compress=st.sampled_from(["zstd", "none"]),
)
def test_what_is_read_is_what_was_written_however_it_was_cut_into_blocks(
    batches: list[list[Record]],
    block_bytes: int,
    segment_bytes: int,
    compress: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    for batch in [[], *batches]:
        write(
            folder,
            batch,
            block_bytes=block_bytes,
            segment_bytes=segment_bytes,
            compress=compress,
        )
    assert read(folder) == ([each for batch in batches for each in batch], None)


def test_the_files_are_as_the_layout_says(tmp_path: Path) -> None:
    write(tmp_path, frames(2), compress="none")
    raw = segments(tmp_path)[0].read_bytes()
    assert segments(tmp_path)[0].name == "00000000.journal"
    assert raw[:8] == b"PIKERJNL" and struct.unpack("<HHI", raw[8:16]) == (1, 64, 0)
    assert raw[64:68] == b"BLK1"
    stored, length, count = struct.unpack("<III", raw[72:84])
    assert stored == length == 2 * (17 + 40) and count == 2
    assert struct.unpack("<qq", raw[96:112]) == (BASE_NS, BASE_NS + 1_000_000)
    at = 64 + 56
    assert struct.unpack("<BIqI", raw[at : at + 17]) == (4, 0, BASE_NS, 40)
    assert raw[at + 17 : at + 57] == frame(0).body
    assert raw[-56:-51] == b"END1\x01"
    assert len(raw) == HEADER.size + 2 * BLOCK.size + 2 * (RECORD.size + 40)


def test_bodies_may_be_any_bytes_and_are_copied(tmp_path: Path) -> None:
    body = bytearray(b"first")
    with open_journal(tmp_path) as journal:
        journal.append(Kind.RECEIVED, BASE_NS, body)
        body[:] = b"other"
        journal.append(Kind.RECEIVED, BASE_NS, memoryview(body)[1:3], 7)
    assert [each.body for each in read(tmp_path)[0]] == [b"first", b"th"]


def test_a_record_larger_than_a_block_gets_its_own(tmp_path: Path) -> None:
    records = [frame(0), frame(1, 5000), frame(2), frame(3, 4096), frame(4)]
    with open_journal(tmp_path, block_bytes=1000) as journal:
        for each in records:
            journal.append(each.kind, each.time_ns, each.body, each.source)
        journal.flush(wait=True)
        assert journal.statistics().written.blocks == 5
    assert read(tmp_path) == (records, None)


def test_the_largest_body_is_taken_and_a_larger_one_refused(tmp_path: Path) -> None:
    largest = bytes(MOST_BODY)
    with open_journal(tmp_path) as journal:
        journal.append(Kind.ANSWER, BASE_NS, largest)
        journal.append(Kind.RECEIVED, BASE_NS, b"before")
        with pytest.raises(ValueError, match="67108864 are the most"):
            journal.append(Kind.ANSWER, BASE_NS, largest + b"x")
        journal.append(Kind.RECEIVED, BASE_NS, b"after")
    found = [each.body for each in read(tmp_path)[0]]
    assert found == [largest, b"before", b"after"]


@pytest.mark.parametrize(
    ("kind", "time_ns", "source"),
    [
        (256, BASE_NS, 0),
        (-1, BASE_NS, 0),
        (4, 2**63, 0),
        (4, BASE_NS, 2**32),
        (4, 0.5, 0),
    ],
)
def test_what_fits_no_record_is_refused_and_changes_nothing(
    kind: int, time_ns: int, source: int, tmp_path: Path
) -> None:
    with open_journal(tmp_path) as journal:
        with pytest.raises(ValueError, match="no record of kind"):
            journal.append(kind, time_ns, b"x", source)
        journal.append(Kind.CLOCK, BASE_NS, b"")
    assert len(read(tmp_path)[0]) == 1


def test_kinds_that_are_not_known_are_skipped_and_counted(tmp_path: Path) -> None:
    kinds = [4, 200, 4, 255, 0]
    write(tmp_path, [Record(kind, BASE_NS, 0, b"x") for kind in kinds])
    with read_journal(tmp_path) as reader:
        assert [each.kind for each in reader] == [4, 4]
        assert reader.statistics().unknown == 3 and reader.cut is None


def test_segments_are_rotated_by_size_and_hold_whole_blocks(tmp_path: Path) -> None:
    write(tmp_path, frames(100), block_bytes=200, segment_bytes=1500, compress="none")
    files = segments(tmp_path)
    assert len(files) > 4
    assert all(path.stat().st_size <= 1500 + BLOCK.size * 2 for path in files)
    assert read(tmp_path) == (frames(100), None)


def test_a_day_has_segments_of_its_own(tmp_path: Path) -> None:
    midnight_ns = (BASE_NS // DAY_NS + 1) * DAY_NS
    times = [midnight_ns - 2, midnight_ns - 1, midnight_ns, midnight_ns - 1]
    records = [Record(4, time_ns, 0, b"x") for time_ns in times]
    write(tmp_path, records, block_bytes=1)
    assert len(segments(tmp_path)) == 2
    assert read(tmp_path) == (records, None)


def test_a_block_is_handed_over_when_its_first_record_is_old(tmp_path: Path) -> None:
    with open_journal(tmp_path, block_s=0.5) as journal:
        for number in range(0, 2000, 100):
            journal.append(4, BASE_NS + number * 1_000_000, b"x")
    with read_journal(tmp_path) as reader:
        assert len(list(reader)) == 20 and reader.statistics().blocks == 4


def test_a_reader_follows_a_writer_and_calls_nothing_a_cut(tmp_path: Path) -> None:
    with open_journal(tmp_path, segment_bytes=2000) as journal:
        with read_journal(tmp_path) as reader:
            seen: list[Record] = []
            for number in range(100):
                each = frame(number)
                journal.append(each.kind, each.time_ns, each.body, each.source)
                if number % 3 == 0:
                    journal.flush(wait=True)
                    seen += reader
                    assert seen == frames(number + 1)
                    assert reader.writing and reader.cut is None
            journal.close()
            seen += reader
            assert seen == frames(100)
            assert not reader.writing and reader.cut is None
    assert len(segments(tmp_path)) > 1


def test_a_reader_that_breaks_off_goes_on_with_the_next_record(tmp_path: Path) -> None:
    write(tmp_path, frames(30), block_bytes=500)
    seen: list[Record] = []
    with read_journal(tmp_path) as reader:
        while len(seen) < 30:
            for each in reader:
                seen.append(each)
                if len(seen) % 7 == 0:
                    break
    assert seen == frames(30)


def test_a_reader_beside_a_busy_writer_sees_every_record_once(tmp_path: Path) -> None:
    seen: list[Record] = []
    with open_journal(tmp_path, segment_bytes=20_000, block_bytes=700) as journal:

        def follow() -> None:
            with read_journal(tmp_path) as reader:
                while len(seen) < 5000 and reader.cut is None:
                    seen.extend(reader)

        follower = threading.Thread(target=follow)
        follower.start()
        for each in frames(5000):
            journal.append(each.kind, each.time_ns, each.body, each.source)
        journal.flush(wait=True)
        follower.join()
    assert seen == frames(5000)


def test_a_folder_has_one_writer_whoever_asks(tmp_path: Path) -> None:
    other = (
        "import sys; from piker_core.journal import open_journal\n"
        "with open_journal(sys.argv[1]): pass"
    )
    asked = [sys.executable, "-c", other, str(tmp_path)]
    with open_journal(tmp_path) as journal:
        journal.append(4, BASE_NS, b"x")
        told = f"process {os.getpid()} writes journal"
        with pytest.raises(JournalError, match=told), open_journal(tmp_path):
            pass
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and told in done.stderr
        with read_journal(tmp_path) as reader:
            list(reader)  # looks at the lock, and does not take it away
        with pytest.raises(JournalError, match=told), open_journal(tmp_path):
            pass
    subprocess.run(asked, check=True)
    assert [each.kind for each in read(tmp_path)[0]] == [4]


FORK = """
import os, signal, sys
from piker_core.errors import JournalError
from piker_core.journal import open_journal
with open_journal(sys.argv[1]) as journal:
    journal.append(4, 1, b"x")
    child = os.fork()
    if not child:
        try:
            journal.append(4, 2, b"of the child")
            journal.flush()
        except JournalError:
            journal.close()
            signal.pause()
        os._exit(1)
    journal.append(4, 3, b"y")
with open_journal(sys.argv[1]) as journal:
    journal.append(4, 4, b"z")
os.kill(child, signal.SIGKILL)
_, status = os.waitpid(child, 0)
assert os.WIFSIGNALED(status), "the child has written"
"""


def test_a_forked_child_neither_writes_nor_keeps_the_lock(tmp_path: Path) -> None:
    script = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    subprocess.run([*script, str(tmp_path)], check=True)
    assert [each.body for each in read(tmp_path)[0]] == [b"x", b"y", b"z"]


def test_a_close_gives_the_lock_up_though_a_child_has_its_descriptor_still(
    tmp_path: Path,
) -> None:
    with open_journal(tmp_path) as journal:
        held = os.dup(journal._lock)
    try:
        with open_journal(tmp_path) as journal:
            journal.append(4, BASE_NS, b"x")
    finally:
        os.close(held)


def test_after_it_is_closed_it_takes_no_more(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.append(4, BASE_NS, b"x")
        journal.close()
        journal.close()
        with pytest.raises(JournalError, match="is closed"):
            journal.append(4, BASE_NS, b"y")
        with pytest.raises(JournalError, match="is closed"):
            journal.flush()
    assert len(read(tmp_path)[0]) == 1


def test_a_folder_without_a_journal_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(JournalError, match=str(folder)):
            read(folder)


def test_files_that_are_no_segments_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", "1.journal", "00000001.journal.old"):
        (tmp_path / name).write_text("mine")
    write(tmp_path, frames(3))
    assert read(tmp_path) == (frames(3), None)
    assert (tmp_path / "1.journal").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"compress": "gzip"}, "compress is one of"),
        ({"fsync": "always"}, "fsync is one of"),
        ({"fsync": 0.0}, "fsync is one of"),
        ({"block_bytes": 0}, "block_bytes is from 1"),
        ({"block_s": -1.0}, "block_s is from 0"),
        ({"segment_bytes": 0}, "above 0"),
    ],
)
def test_an_option_that_is_none_is_refused_by_name(
    options: dict[str, object], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=told):
        write(tmp_path / "journal", [], **options)
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize("fsync", ["never", "close", "second", "block", 0.25])
def test_every_way_to_sync_writes_the_same(fsync: str | float, tmp_path: Path) -> None:
    write(tmp_path, frames(50), fsync=fsync, block_bytes=300, segment_bytes=900)
    assert read(tmp_path) == (frames(50), None)


def test_without_zstd_one_sentence_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "packed", frames(9))
    load_zstd.cache_clear()
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(JournalError, match=r"piker-core\[store\].*--compress none"):
        write(tmp_path / "new", frames(1))
    with pytest.raises(JournalError, match=r"piker-core\[store\]"):
        read(tmp_path / "packed")
    write(tmp_path / "plain", frames(9), compress="none")
    assert read(tmp_path / "plain") == (frames(9), None)


def test_answers_are_taken_apart_as_they_were_put_together() -> None:
    answer = Answer(url="/a?b=1", status=429, body=b'{"x":1}\n{"y":2}', method="POST")
    assert decode_answer(encode_answer(answer)) == answer
    nested = b'{"x":' + b"[" * 100_000
    for body in (b"", b"[]\n", b'{"url":1}\n', b'{"url":"\xe0"}\n', nested):
        with pytest.raises(JournalError, match="no answer over HTTP"):
            decode_answer(body)


def test_losses_are_json() -> None:
    import msgspec

    lost = Lost(records=None, cause="why")
    assert msgspec.json.decode(msgspec.json.encode(lost), type=Lost) == lost
