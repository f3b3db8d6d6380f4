"""A journal gives back what was written, in order, and tells where it was cut."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piker_core.journal import (
    Cut,
    Kind,
    Record,
    open_journal,
    read_journal,
)

BASE_NS = 1_732_300_000 * 10**9
DAY_NS = 86_400 * 10**9

record = st.builds(
    Record,
    st.sampled_from(list(map(int, Kind))),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=60),
)


def frames(count: int, size: int = 40, start: int = 0) -> list[Record]:
    """Records with bodies that say which they are."""
    return [
        Record(
            int(Kind.RECEIVED),
            BASE_NS + number * 1_000_000,
            1 + number % 3,
            f'{{"number":{number}}}'.ljust(size).encode(),
        )
        for number in range(start, start + count)
    ]


def write(folder: Path, records: Iterable[Record], **options: object) -> None:
    with open_journal(folder, **options) as journal:  # type: ignore[arg-type]
        for each in records:
            journal.append(each.kind, each.time_ns, each.body, each.source)


def read(folder: Path) -> tuple[list[Record], Cut | None]:
    with read_journal(folder) as reader:
        return list(reader), reader.cut


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.journal"))


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
            fsync="never",
        )
    assert read(folder) == ([each for batch in batches for each in batch], None)
