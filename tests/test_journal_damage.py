"""A journal that is cut or damaged gives its beginning, and says where it ends."""

import os
import shutil
import struct
import zlib
from pathlib import Path

import msgspec
import pytest

from piker_core.errors import JournalError
from piker_core.journal import Cut, Kind, Lost, open_journal, read_journal
from piker_core.journal.layout import (
    BLOCK,
    HEADER,
    RECORD,
    ZSTD,
    Block,
    Malformed,
    encode_block,
)
from piker_core.journal.packing import open_packer, unpack
from tests.journal_making import BASE_NS, frame, frames, read, segments, write

COUNT = 12
SMALL = {"block_bytes": 130, "compress": "none"}


def check_prefix(folder: Path, count: int = COUNT) -> tuple[int, Cut | None]:
    """How many records were read, and where it is cut; they are the first ones."""
    found, cut = read(folder)
    assert found == frames(count)[: len(found)]
    return len(found), cut


def block_ends(raw: bytes) -> list[int]:
    """Where blocks end, and the header before them."""
    ends = [HEADER.size]
    while ends[-1] < len(raw) and raw[ends[-1] : ends[-1] + 4] == b"BLK1":
        stored = BLOCK.unpack_from(raw, ends[-1])[2]
        ends.append(ends[-1] + BLOCK.size + stored)
    return ends


@pytest.mark.parametrize("options", [SMALL, {"block_bytes": 130}])
def test_every_cut_is_noticed_and_what_is_whole_is_read(
    options: dict[str, object], tmp_path: Path
) -> None:
    write(tmp_path, frames(COUNT), **options)
    path = segments(tmp_path)[0]
    raw = path.read_bytes()
    ends = block_ends(raw)
    assert len(ends) > 3
    for size in range(len(raw)):
        path.write_bytes(raw[:size])
        count, cut = check_prefix(tmp_path)
        whole = [end for end in ends if end <= size]
        assert cut is not None and cut.file == str(path)
        assert cut.cut_at == (whole[-1] if whole else 0)
        assert count == 3 * max(len(whole) - 1, 0)


@pytest.mark.parametrize("options", [SMALL, {"block_bytes": 130}])
def test_every_flipped_byte_is_noticed_and_what_is_before_its_block_is_read(
    options: dict[str, object], tmp_path: Path
) -> None:
    write(tmp_path, frames(COUNT), **options)
    path = segments(tmp_path)[0]
    raw = path.read_bytes()
    ends = block_ends(raw)
    for at in range(len(raw)):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :])
        count, cut = check_prefix(tmp_path)
        whole = [end for end in ends if end <= at]
        assert cut is not None and cut.cut_at == (whole[-1] if whole else 0), at
        assert count == 3 * max(len(whole) - 1, 0)


def test_bytes_behind_the_end_are_noticed(tmp_path: Path) -> None:
    write(tmp_path, frames(COUNT))
    path = segments(tmp_path)[0]
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\0")
    count, cut = check_prefix(tmp_path)
    assert count == COUNT
    assert cut == Cut(str(path), size, "1 bytes after its end")


def test_a_block_that_is_gone_or_there_twice_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, frames(COUNT), **SMALL)
    path = segments(tmp_path)[0]
    raw = path.read_bytes()
    a, b, c = block_ends(raw)[1:4]
    for damaged in (raw[:a] + raw[b:], raw[:b] + raw[a:], raw[:a] + raw[b:c] + raw[a:]):
        path.write_bytes(damaged)
        count, cut = check_prefix(tmp_path)
        assert count in (3, 6) and cut is not None
        assert "is missing: block" in cut.reason


@pytest.mark.parametrize("gone", range(5))
def test_a_segment_that_is_gone_is_noticed_and_later_ones_are_not_read(
    gone: int, tmp_path: Path
) -> None:
    write(tmp_path, frames(15), segment_bytes=200, **SMALL)
    files = segments(tmp_path)
    assert len(files) == 5
    files[gone].unlink()
    count, cut = check_prefix(tmp_path, 15)
    assert count == 3 * gone
    assert cut is not None and f"segment {gone}" in cut.reason
    assert "missing" in cut.reason
    assert cut.later == tuple(map(str, files[gone + 1 :]))


def test_segments_in_each_others_place_or_of_another_journal_are_refused(
    tmp_path: Path,
) -> None:
    for name, start in (("a", 0), ("b", 0)):
        write(tmp_path / name, frames(9, start=start), segment_bytes=200, **SMALL)
    ours, others = segments(tmp_path / "a"), segments(tmp_path / "b")
    second = ours[1].read_bytes()
    ours[1].write_bytes(others[1].read_bytes())
    count, cut = check_prefix(tmp_path / "a")
    assert count == 3 and cut is not None and "another journal" in cut.reason
    ours[1].write_bytes(ours[2].read_bytes())
    count, cut = check_prefix(tmp_path / "a")
    assert count == 3 and cut is not None and "segment 2 by its header" in cut.reason
    ours[1].write_bytes(second)
    assert read(tmp_path / "a") == (frames(9), None)


def test_a_segment_of_a_copy_that_went_its_own_way_is_refused(tmp_path: Path) -> None:
    ours, copy = tmp_path / "ours", tmp_path / "copy"
    write(ours, frames(3), **SMALL)
    shutil.copytree(ours, copy)
    for folder, count in ((ours, 3), (copy, 9)):
        write(folder, frames(count, start=3), **SMALL)
        write(folder, frames(3, start=3 + count), **SMALL)
    assert read(ours) == (frames(9), None) and read(copy) == (frames(15), None)
    shutil.copy(segments(copy)[2], segments(ours)[2])
    count, cut = check_prefix(ours)
    assert count == 6 and cut is not None
    assert cut.reason == "it begins with block 4, not 2"


def test_a_file_that_is_none_of_ours_is_a_cut_and_nothing_is_written_behind_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "00000000.journal").write_bytes(b"somebody's diary" * 9)
    found, cut = read(tmp_path)
    assert found == [] and cut is not None and "does not begin as" in cut.reason
    with pytest.raises(JournalError, match=r"damaged.*take another folder"):
        write(tmp_path, frames(1))
    assert len(segments(tmp_path)) == 1


def test_another_layout_version_is_refused_with_a_sentence_that_says_so(
    tmp_path: Path,
) -> None:
    write(tmp_path, frames(1))
    path = segments(tmp_path)[0]
    raw = bytearray(path.read_bytes())
    raw[8] = 2
    raw[60:64] = struct.pack("<I", zlib.crc32(raw[:60]))
    path.write_bytes(raw)
    for work in (lambda: read(tmp_path), lambda: write(tmp_path, [])):
        with pytest.raises(JournalError, match="version 2, this release reads 1"):
            work()


def test_what_is_no_plain_file_is_refused_and_waits_for_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "00000000.journal")
    with pytest.raises(JournalError, match="no plain file"):
        read(tmp_path)
    with pytest.raises(JournalError, match="no plain file"):
        write(tmp_path, [])


def forge(folder: Path, block: Block, payload: bytes) -> Cut | None:
    """A journal whose only block is this one, its checksum right; where it is cut."""
    write(folder, [])
    path = segments(folder)[0]
    path.write_bytes(path.read_bytes()[: HEADER.size] + encode_block(block, payload))
    found, cut = read(folder)
    assert found == []
    return cut


BOMB = open_packer(1)(bytes(1 << 28))
RAW = RECORD.pack(4, 0, BASE_NS, 5) + b"hello"


TWO = open_packer(1)(bytes(500)) + open_packer(1)(bytes(500))


def head(code: int, stored: int, raw: int, records: int = 1) -> Block:
    return Block(False, code, stored, raw, records, 0, 0, BASE_NS, BASE_NS, 0)


@pytest.mark.parametrize(
    ("block", "payload"),
    [
        pytest.param(head(ZSTD, len(BOMB), 60_000), BOMB, id="bomb"),
        pytest.param(head(0, 2 * len(RAW), 2 * len(RAW)), RAW * 2, id="more records"),
        pytest.param(head(ZSTD, len(TWO), 500), TWO, id="two frames"),
        pytest.param(head(ZSTD, 20, 1000), bytes(20), id="no frame"),
        pytest.param(head(ZSTD, 9, 1000), open_packer(1)(bytes(1000))[:9], id="part"),
        pytest.param(head(0, len(RAW), len(RAW) + 1), RAW, id="stored is not raw"),
        pytest.param(head(0, len(RAW), len(RAW), 2), RAW, id="records"),
        pytest.param(head(0, len(RAW) - 1, len(RAW) - 1), RAW[:-1], id="record"),
        pytest.param(head(0, len(RAW), len(RAW), 0), RAW, id="none"),
        pytest.param(head(7, len(RAW), len(RAW)), RAW, id="compression"),
        pytest.param(head(0, 0, 0), b"", id="nothing"),
        pytest.param(head(0, 2**32 - 1, 2**32 - 1), RAW, id="stored"),
    ],
)
def test_a_forged_block_is_a_cut_and_takes_no_memory(
    block: Block, payload: bytes, tmp_path: Path
) -> None:
    cut = forge(tmp_path, block, payload)
    assert cut is not None and cut.cut_at == HEADER.size


@pytest.mark.parametrize(("raw", "records"), [(2**32 - 1, 1), (1 << 25, 2)])
def test_a_block_that_would_be_too_long_is_not_even_unpacked(
    raw: int, records: int, tmp_path: Path
) -> None:
    cut = forge(tmp_path, head(ZSTD, len(BOMB), raw, records), BOMB)
    assert cut is not None
    assert cut.reason == f"a block of {len(BOMB)} bytes for {raw}"


def test_an_end_with_records_is_none(tmp_path: Path) -> None:
    end = Block(True, 1, 0, 0, 5, 0, 0, 0, 0, 0)
    cut = forge(tmp_path, end, b"")
    assert cut is not None and cut.reason == "an end that is none"


@pytest.mark.parametrize("length", [999, 1001])
def test_a_frame_is_of_the_length_that_its_block_says(length: int) -> None:
    with pytest.raises(Malformed, match="not of the"):
        unpack(open_packer(1)(bytes(1000)), length)
    assert unpack(open_packer(1)(bytes(1000)), 1000) == bytes(1000)


def test_a_block_is_one_frame_and_nothing_behind_it() -> None:
    with pytest.raises(Malformed, match="not of the"):
        unpack(TWO, 500)


def test_a_header_of_this_version_has_nothing_more_in_it(tmp_path: Path) -> None:
    write(tmp_path, frames(3))
    path = segments(tmp_path)[0]
    raw = bytearray(path.read_bytes())
    raw[50] = 1
    raw[60:64] = struct.pack("<I", zlib.crc32(raw[:60]))
    path.write_bytes(raw)
    found, cut = read(tmp_path)
    assert found == [] and cut is not None and "more in it" in cut.reason


def test_a_good_block_among_the_forged_ones_is_read(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        forge(tmp_path, head(0, len(RAW), len(RAW)), RAW)


# ---- writers that come after one that died ----


def left_open(folder: Path) -> Path:
    """A journal as a killed writer leaves it: whole blocks, no end."""
    write(folder, frames(COUNT), **SMALL)
    path = segments(folder)[-1]
    os.truncate(path, path.stat().st_size - BLOCK.size)
    return path


def mended(folder: Path, whole: int) -> Lost:
    """Go on in it: what was whole is there, then the word of a loss, then the new."""
    write(folder, frames(2, start=50), **SMALL)
    found, cut = read(folder)
    assert cut is None
    assert found[:whole] == frames(whole) and found[whole + 1 :] == frames(2, start=50)
    assert found[whole].kind == Kind.LOST
    return msgspec.json.decode(found[whole].body, type=Lost)


def test_the_next_writer_goes_on_behind_the_last_whole_block(tmp_path: Path) -> None:
    path = left_open(tmp_path)
    ends = block_ends(path.read_bytes())
    for torn in (0, 1, 60, 130):
        folder = tmp_path / f"torn{torn}"
        folder.mkdir()
        raw = path.read_bytes()
        (folder / path.name).write_bytes(raw[: ends[3] + torn])
        lost = mended(folder, 9)
        assert lost.records is None and "died" in lost.cause
        assert not list(folder.glob("*.torn")), "half a block is nothing to keep"


@pytest.mark.parametrize(("block", "byte"), [(2, 9), (3, 0)])
def test_more_than_half_a_block_is_moved_aside(
    block: int, byte: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = left_open(tmp_path)
    raw = path.read_bytes()
    at = block_ends(raw)[block]
    damaged = raw[: at + byte] + b"\xff" + raw[at + byte + 1 :]
    path.write_bytes(damaged)
    lost = mended(tmp_path, 3 * block)
    assert lost.cause.startswith(f"{path.name} was damaged")
    assert (tmp_path / f"{path.name}.torn").read_bytes() == damaged[at:]
    assert f"{len(damaged) - at} bytes after byte {at} were cut off" in caplog.text


@pytest.mark.parametrize("size", [0, 1, HEADER.size - 1])
def test_a_segment_that_was_just_being_made_is_made_again(
    size: int, tmp_path: Path
) -> None:
    left_open(tmp_path)
    write(tmp_path, [], **SMALL)
    path = segments(tmp_path)[-1]
    os.truncate(path, size)
    found, cut = read(tmp_path)
    assert found == frames(COUNT) and cut is not None and cut.cut_at == 0
    mended(tmp_path, COUNT)


def test_an_end_of_a_writer_that_closed_tells_of_no_loss(tmp_path: Path) -> None:
    for start in (0, 4, 8):
        write(tmp_path, frames(4, start=start))
    assert read(tmp_path) == (frames(12), None)


def test_a_living_writer_with_a_half_written_block_is_no_damage(tmp_path: Path) -> None:
    with open_journal(tmp_path, **SMALL) as journal:  # type: ignore[arg-type]
        journal.append(4, BASE_NS, frame(0).body)
        journal.flush(wait=True)
        path = segments(tmp_path)[0]
        whole = path.read_bytes()
        with read_journal(tmp_path) as reader:
            assert len(list(reader)) == 1
            rewritten = whole[64:-9] + bytes(9)
            for part in (whole[64:70], whole[64:130], whole[64:-1], rewritten):
                path.write_bytes(whole + part)
                assert not list(reader) and reader.cut is None and reader.writing
            path.write_bytes(whole + b"x" * 60)
            assert not list(reader)
            assert reader.cut is not None and reader.cut.cut_at == len(whole)


def test_an_earlier_segment_is_damaged_whether_or_not_a_writer_lives(
    tmp_path: Path,
) -> None:
    write(tmp_path, frames(COUNT), **SMALL)
    path = segments(tmp_path)[0]
    with open_journal(tmp_path, **SMALL):  # type: ignore[arg-type]
        os.truncate(path, path.stat().st_size - BLOCK.size - 1)
        count, cut = check_prefix(tmp_path)
    assert count == 9 and cut is not None and len(cut.later) == 1


def test_a_writer_that_dies_under_a_reader_leaves_a_cut(tmp_path: Path) -> None:
    with open_journal(tmp_path, **SMALL) as journal:  # type: ignore[arg-type]
        journal.append(4, BASE_NS, frame(0).body)
        journal.flush(wait=True)
        with read_journal(tmp_path) as reader:
            assert list(reader) == frames(1)
            raw = segments(tmp_path)[0].read_bytes()
            journal.close()
            segments(tmp_path)[0].write_bytes(raw)
            assert not list(reader)
            assert reader.cut is not None and "was killed" in reader.cut.reason
