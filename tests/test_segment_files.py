"""The files of rings: creation, checking, reservation, locks, what is refused."""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import piker_core as pk
from tests.ring_making import (
    BASE_S,
    FQME,
    NS,
    START,
    attach,
    make,
    new_namespace,
    open_again,
    open_rings,
    paths,
    trades_at,
)

PAGE = os.sysconf("SC_PAGESIZE")
HEAD, CLOCK, FIRST, TABLE_COUNT = 1280, 1288, 1344, 1064
TEXTS = ((96, 64), (160, 32), (192, 64), (256, 32), (288, 32), (320, 184))
IDENTITY, CHECKSUM, TABLE_CAPACITY, PERIOD, VERSION = 512, 504, 72, 76, 8


def change(path: Path, offset: int, value: int, size: int = 8) -> None:
    """Write a number into a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(value.to_bytes(size, "little"))


def forge(path: Path, offset: int, value: int, size: int) -> None:
    """Change the identity of a ring and make its checksum right again."""
    change(path, offset, value, size)
    checksum = 0xCBF29CE484222325
    for byte in path.read_bytes()[:CHECKSUM]:
        checksum = (checksum ^ byte) * 0x100000001B3 % 2**64
    change(path, CHECKSUM, checksum)


kinds = pytest.mark.parametrize("kind", ["bars", "ticks"])


# ---- creation ------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0, 0o277, 0o777])
def test_files_are_their_owners_alone_whatever_the_mask(
    mask: int, namespace: str
) -> None:
    before = os.umask(mask)
    try:
        found = make(namespace)
    finally:
        os.umask(before)
    for path in found.values():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_names_of_files_are_short(namespace: str) -> None:
    for path in make(namespace).values():
        assert len(path.name) <= 31


def test_a_big_ring_costs_what_it_holds(namespace: str) -> None:
    with open_rings(namespace, rows=3 * 86400, ticks=1 << 17) as (engine, market):
        found = paths(namespace)
        sizes = {kind: path.stat() for kind, path in found.items()}
        assert sizes["bars"].st_size > 30_000_000
        assert sum(status.st_blocks * 512 for status in sizes.values()) <= 1_000_000
        times = [(BASE_S + i) * NS for i in range(1000)]
        engine.push_ticks(market, trades_at(times, 1))
        assert found["bars"].stat().st_blocks * 512 <= 500_000


def test_capacities_are_rounded_up_to_whole_pages(namespace: str) -> None:
    for rows, ticks in ((1, 1), (257, 65), (1000, 1000)):
        space = f"{namespace}.{rows}"
        with open_rings(space, rows=rows, ticks=ticks) as (_, market):
            capacity = market.bars[1].capacity
            reader = pk.attach_ticks("kraken", namespace=space)
            assert rows <= capacity
            assert ticks <= reader.capacity
            assert capacity * 80 % PAGE == reader.capacity * 64 % PAGE == 0
        pk.remove_segments(space)


@kinds
@pytest.mark.parametrize(
    "content", [b"", bytes(4096), b"PKERRNG1", b"PKERRNG1" + b"\1"]
)
def test_a_creation_that_died_is_not_found_by_readers_and_replaced_by_a_writer(
    content: bytes, kind: str, namespace: str
) -> None:
    path = make(namespace)[kind]
    inode = path.stat().st_ino
    path.write_bytes(content)
    with pytest.raises(pk.NotFound):
        attach(kind, namespace)
    assert pk.remove_segments(namespace) == 2
    make(namespace)
    path.write_bytes(content)
    open_again(namespace)
    attach(kind, namespace)
    assert path.stat().st_ino != inode


def test_a_market_whose_rings_cannot_all_be_made_leaves_none(namespace: str) -> None:
    with open_rings(namespace) as (engine, _):
        before = paths(namespace)
        files = set(Path("/dev/shm").iterdir())
        with pytest.raises(ValueError, match="capacity"):
            engine.add_market("ethusd.kraken", capacity={60: 0})
        assert set(Path("/dev/shm").iterdir()) == files
        assert paths(namespace) == before
        engine.add_market("ethusd.kraken", capacity={1: 256, 60: 256})


# ---- what is refused -----------------------------------------------------------------


@kinds
@pytest.mark.parametrize(
    "put",
    [
        lambda path: path.write_bytes(b"something else " * 1000),
        lambda path: path.write_bytes(b"x" * 9),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: os.truncate(path, path.stat().st_size + PAGE),
        lambda path: change(path, 0, 0x32474E5252454B50),
        lambda path: forge(path, VERSION, 2, 4),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), subprocess.run(["mkfifo", path], check=True)),
        lambda path: (path.unlink(), path.symlink_to("/etc/hostname")),
        lambda path: (path.unlink(), path.symlink_to(path.name)),
    ],
)
def test_foreign_content_is_refused_with_a_sentence_that_names_the_version(
    put: Callable[[Path], object], kind: str, namespace: str
) -> None:
    path = make(namespace)[kind]
    put(path)
    try:
        with pytest.raises(pk.SegmentError, match="version"):
            attach(kind, namespace)
        with pytest.raises(pk.SegmentError, match="version"):
            open_again(namespace)
    finally:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@kinds
def test_any_changed_byte_of_the_identity_is_refused(kind: str, namespace: str) -> None:
    path = make(namespace)[kind]
    content = path.read_bytes()
    for offset in range(IDENTITY):
        change(path, offset, content[offset] ^ 0x10, 1)
        with pytest.raises(pk.SegmentError, match="version"):
            attach(kind, namespace)
        change(path, offset, content[offset], 1)
    attach(kind, namespace)


@kinds
@pytest.mark.parametrize("offset", range(16, 80, 4))
@pytest.mark.parametrize("value", [0, 1, 63, 2**31, 2**32 - 1])
def test_a_forged_size_or_offset_is_refused_before_anything_is_mapped(
    offset: int, value: int, kind: str, namespace: str
) -> None:
    path = make(namespace)[kind]
    old = int.from_bytes(path.read_bytes()[offset : offset + 4], "little")
    forge(path, offset, value, 4)
    harmless = old == value or (offset == PERIOD and (value or kind == "ticks"))
    if harmless:
        attach(kind, namespace)
    else:
        with pytest.raises(pk.SegmentError, match="version"):
            attach(kind, namespace)


@kinds
@pytest.mark.parametrize(("offset", "room"), TEXTS)
def test_a_text_without_an_end_is_refused(
    offset: int, room: int, kind: str, namespace: str
) -> None:
    path = make(namespace)[kind]
    forge(path, offset, int.from_bytes(b"x" * room, "little"), room)
    with pytest.raises(pk.SegmentError, match="sizes"):
        attach(kind, namespace)


@pytest.mark.parametrize("table_capacity", [0, 1])
def test_a_table_too_small_for_a_record_and_a_spare_place_is_refused(
    table_capacity: int, namespace: str
) -> None:
    path = make(namespace)["bars"]
    capacity = capacity_of(path)
    offset = 2 * PAGE
    fields = [offset]
    for size in (table_capacity * 64, capacity * 8, capacity * 64, capacity * 80):
        offset += -(-size // PAGE) * PAGE
        fields.append(offset)
    os.truncate(path, offset)
    for place, value in zip((40, 48, 56, 64, 16), fields, strict=True):
        change(path, place, value)
    forge(path, TABLE_CAPACITY, table_capacity, 4)
    with pytest.raises(pk.SegmentError, match="version"):
        attach("bars", namespace)


@kinds
def test_another_ring_under_this_rings_name_is_refused(
    kind: str, namespace: str
) -> None:
    other = namespace + ".other"
    try:
        path, foreign = make(namespace)[kind], make(other)[kind]
        shutil.copyfile(foreign, path)
        with pytest.raises(pk.SegmentError, match=other):
            attach(kind, namespace)
        with pytest.raises(pk.SegmentError, match="belongs"):
            open_again(namespace)
    finally:
        pk.remove_segments(other)
        path.unlink()


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (HEAD, 0),
        (HEAD, START - 1),
        (HEAD, START + 6),
        (HEAD, 2**62),
        (HEAD, 2**64 - 1),
        (FIRST, START - 1),
        (FIRST, START + 6),
        (FIRST, 0),
        (CLOCK, 2**63),
        (CLOCK, 0),
        (TABLE_COUNT, 2**63),
    ],
)
def test_a_new_writer_refuses_numbers_of_a_bar_ring_that_cannot_be(
    offset: int, value: int, namespace: str
) -> None:
    change(make(namespace)["bars"], offset, value)
    with pytest.raises(pk.SegmentError, match="impossible"):
        open_again(namespace)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (HEAD, 3),
        (HEAD, 6),
        (HEAD, 2**40),
        (HEAD, 2**63),
        (CLOCK, 0),
        (CLOCK, 7),
        (CLOCK, 2**63),
        (TABLE_COUNT, 2**32),
    ],
)
def test_a_new_writer_refuses_numbers_of_a_tick_ring_that_cannot_be(
    offset: int, value: int, namespace: str
) -> None:
    change(make(namespace)["ticks"], offset, value)
    with pytest.raises(pk.SegmentError, match="impossible"):
        open_again(namespace)


@pytest.mark.parametrize("head", [6, 64, 65, 2**40])
def test_a_new_writer_refuses_a_tick_ring_whose_records_are_not_in_their_places(
    head: int, namespace: str
) -> None:
    path = make(namespace)["ticks"]
    change(path, HEAD, head)
    change(path, CLOCK, head)
    with pytest.raises(pk.SegmentError, match="impossible"):
        open_again(namespace)


def test_a_new_writer_refuses_a_newest_row_off_its_period(namespace: str) -> None:
    with open_rings(namespace, periods=(60,)) as (engine, market):
        engine.push_ticks(market, trades_at([BASE_S * NS], 1))
    path = paths(namespace)["bars"]
    change(path, items_of(path) + 80 * (START % capacity_of(path)) + 8, BASE_S + 1)
    with (
        pytest.raises(pk.SegmentError, match="impossible"),
        open_rings(namespace, periods=(60,)),
    ):
        pass


def items_of(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[64:72], "little")


def capacity_of(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[32:40], "little")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("index", START + 3),
        ("time", -1),
        ("time", 2**62),
        ("time", BASE_S - 100),
        ("count", -1),
        ("close", 0x7FF0000000000000),
        ("open", 0x7FF8000000000000),
    ],
)
def test_a_new_writer_refuses_a_newest_row_that_cannot_be(
    field: str, value: int, namespace: str
) -> None:
    path = make(namespace)["bars"]
    slot = (START + 4) % capacity_of(path)
    at = dict(pk.OHLCV_DTYPE.fields or {})[field][1]
    change(path, items_of(path) + 80 * slot + at, value % 2**64)
    with pytest.raises(pk.SegmentError, match="impossible"):
        open_again(namespace)


@given(
    offset=st.integers(IDENTITY // 8, 1568 // 8 - 1), value=st.integers(0, 2**64 - 1)
)
@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
def test_any_word_of_the_state_may_lie_and_nobody_crashes(
    offset: int, value: int
) -> None:
    namespace = new_namespace()
    found = make(namespace)
    try:
        for path in found.values():
            change(path, 8 * offset, value)
        exercise(namespace)
        open_again(namespace)
    except pk.PikerError:
        assert all(path.exists() for path in found.values())
    finally:
        for path in found.values():
            path.unlink()


def exercise(namespace: str) -> None:
    """Everything that readers do."""
    bars = pk.attach_bars(FQME, namespace=namespace)
    for use in (
        bars.last,
        lambda: bars.snapshot(10**6),
        lambda: bars.intact(bars.window(10**6)),
        lambda: bars.between(0, 2**62),
        lambda: bars.wait(bars.head, 0),
        lambda: bars.status,
        lambda: bars.about,
        bars.gaps,
        bars.statistics,
        lambda: pk.attach_ticks("kraken", namespace=namespace).markets(),
        lambda: pk.attach_ticks("kraken", namespace=namespace).cursor("oldest").poll(),
    ):
        with suppress(pk.PikerError):
            use()


@kinds
def test_a_reader_maps_all_but_the_wait_page_read_only(
    kind: str, namespace: str
) -> None:
    path = make(namespace)[kind]
    before = Path("/proc/self/maps").read_text().splitlines()
    if kind == "bars":
        reader: object = pk.attach_bars(FQME, namespace=namespace)
    else:
        reader = pk.attach_ticks("kraken", namespace=namespace)
    after = Path("/proc/self/maps").read_text().splitlines()
    parts = [line.split() for line in after if line.endswith(str(path))]
    assert reader and not [line for line in before if line.endswith(str(path))]
    writable = [part for part in parts if part[1] != "r--s"]
    (wait_page,) = writable
    low, high = (int(address, 16) for address in wait_page[0].split("-"))
    assert wait_page[1] == "rw-s" and high - low == PAGE
    assert int(wait_page[2], 16) == PAGE  # its place in the file
