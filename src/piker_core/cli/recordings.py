"""`import-recording`: sessions that others recorded, made into a journal."""

import gzip
import heapq
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast
from urllib.parse import urlencode

import msgspec

from piker_core.cli.output import Output, bytes_text
from piker_core.conformance.recording import Session as RecordedSession
from piker_core.conformance.recording import read_recording
from piker_core.errors import PikerError
from piker_core.journal import (
    Answer,
    Kind,
    Record,
    Session,
    encode_answer,
    open_journal,
)

RECORDER = "piker-core import-recording"
MOST_LINE = 1 << 26
ROOM_EVERY = 4096
_GZIP = b"\x1f\x8b"
_STAMPED = re.compile(rb"[0-9]{1,19} \S")
_encode = msgspec.json.encode


def import_files(
    out: Output,
    files: Sequence[Path],
    *,
    folder: Path,
    provider: str,
    markets: Sequence[str],
    compress: str,
) -> None:
    """Write the journal and say what is in it.

    Raises OSError, and PikerError for a file of neither format.
    """
    records = recorded(files)
    first = next(records, None)
    if first is None:
        raise PikerError(f"{', '.join(map(str, files))}: nothing was recorded in there")
    session = Session(provider=provider, recorder=RECORDER, markets=list(markets))
    kinds = dict.fromkeys(Kind, 0)
    with open_journal(folder, compress=compress) as journal:
        journal.append(Kind.SESSION, first.time_ns, _encode(session))
        for number, each in enumerate(_chain(first, records)):
            journal.append(each.kind, each.time_ns, each.body, each.source)
            kinds[Kind(each.kind)] += 1
            if number % ROOM_EVERY == 0:
                journal.wait_room()
        journal.flush(wait=True)
        written = journal.statistics().written
    _tell(out, folder, kinds, written.raw_bytes, written.stored_bytes)


def _chain(first: Record, others: Iterable[Record]) -> Iterator[Record]:
    yield first
    yield from others


def _tell(
    out: Output, folder: Path, kinds: dict[Kind, int], raw: int, stored: int
) -> None:
    counts = {kind.name.lower(): count for kind, count in kinds.items() if count}
    if out.json:
        out.record("journal", folder=str(folder), raw=raw, stored=stored, **counts)
        return
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    out.line(f"{folder}: {told}; {bytes_text(raw)} in {bytes_text(stored)}")


def recorded(files: Sequence[Path]) -> Iterator[Record]:
    """Records of recorded files, of the format that the first of them has.

    Lines of a receive time (ns) and a frame, perhaps in gzip: one connection, in the
    order of the files. Else sessions as `conformance.recording` reads them: all
    connections and answers, merged by their times.
    """
    if _is_stamped(files[0]):
        return _stamped_records(files)
    return _session_records(files)


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """The file, unpacked if need be. PikerError if it cannot be unpacked to its end."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    try:
        with cast("IO[bytes]", gzip.open(path) if packed else path.open("rb")) as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PikerError(f"{path} is damaged: {error}") from None


def _is_stamped(path: Path) -> bool:
    with _open(path) as file:
        return bool(_STAMPED.match(file.read(22)))


def _stamped_records(files: Sequence[Path]) -> Iterator[Record]:
    source, last_ns = 1, 0
    for place, path in enumerate(files):
        for number, (time_ns, frame) in enumerate(_stamped_lines(path)):
            if place == number == 0:
                opened = _encode({"url": f"recording:{path.name}"})
                yield Record(Kind.OPENED, time_ns, source, opened)
            last_ns = time_ns
            yield Record(Kind.RECEIVED, time_ns, source, frame)
    yield _closed(source, last_ns)


def _stamped_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with _open(path) as file:
        number = 0
        while line := file.readline(MOST_LINE):
            number += 1
            stamp, _, frame = line.rstrip(b"\r\n").partition(b" ")
            if not stamp.isdigit() or not frame or int(stamp) >= 1 << 63:
                raise PikerError(
                    f"{path}, line {number} is none of a recording: {line[:60]!r}; a "
                    "receive time in ns, a space and a frame is"
                )
            yield int(stamp), frame


def _session_records(files: Sequence[Path]) -> Iterator[Record]:
    recording = read_recording(files)
    streams: list[Iterable[Record]] = [
        _connection_records(session, number)
        for number, session in enumerate(recording.sessions, 1)
    ]
    answers = [
        Record(
            Kind.ANSWER,
            _ns(answer.message.time_s),
            0,
            encode_answer(
                Answer(url=_url(answer.path, answer.query), body=answer.message.text)
            ),
        )
        for answer in recording.answers
    ]
    streams.append(sorted(answers, key=_time))
    return heapq.merge(*streams, key=_time)


def _connection_records(session: RecordedSession, source: int) -> Iterator[Record]:
    sent = [Record(Kind.SENT, _ns(m.time_s), source, m.text) for m in session.sent]
    received = [
        Record(Kind.RECEIVED, _ns(m.time_s), source, m.text) for m in session.received
    ]
    both = list(heapq.merge(sent, received, key=_time))
    yield Record(Kind.OPENED, both[0].time_ns, source, _encode({"url": session.url}))
    yield from both
    yield _closed(source, both[-1].time_ns)


def _closed(source: int, time_ns: int) -> Record:
    reason = _encode({"reason": "the recording ends"})
    return Record(Kind.CLOSED, time_ns, source, reason)


def _url(path: str, query: dict[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _ns(time_s: float) -> int:
    return round(time_s * 1e6) * 1000


def _time(record: Record) -> int:
    return record.time_ns
