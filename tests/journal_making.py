"""Journals of tests: records that say which they are, written and read."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from piker_core.journal import Cut, Kind, Record, open_journal, read_journal

BASE_NS = 1_732_300_000 * 10**9
DAY_NS = 86_400 * 10**9


def frame(number: int, size: int = 40) -> Record:
    """The record of a number: a body of that size, a millisecond after the last."""
    body = f'{{"number":{number}}}'.ljust(size).encode()
    return Record(int(Kind.RECEIVED), BASE_NS + number * 1_000_000, number % 5, body)


def frames(count: int, size: int = 40, start: int = 0) -> list[Record]:
    """Records of consecutive numbers."""
    return [frame(number, size) for number in range(start, start + count)]


def write(folder: Path, records: Iterable[Record], **options: Any) -> None:
    """Write a journal, or go on in it, and close it."""
    with open_journal(folder, **({"fsync": "never"} | options)) as journal:
        for each in records:
            journal.append(each.kind, each.time_ns, each.body, each.source)


def read(folder: Path) -> tuple[list[Record], Cut | None]:
    """All records, and where it is cut."""
    with read_journal(folder) as reader:
        return list(reader), reader.cut


def segments(folder: Path) -> list[Path]:
    """The files, in their order."""
    return sorted(folder.glob("*.journal"))
