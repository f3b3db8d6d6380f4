"""What a journal is made of: records, each of a kind.

A record has the time at which what it tells happened here (receive time, UTC ns), the
number of the connection it belongs to (0: none) and a body, which the kind explains.
A reader skips and counts the kinds that it does not know, so new ones may be added;
a number is never given to another kind. Bodies that are JSON may get more members.
"""

from enum import IntEnum

import msgspec

from piker_core.errors import JournalError
from piker_core.journal.layout import RECORD, Malformed


class Kind(IntEnum):
    """What a record tells, and what its body is."""

    SESSION = 1
    """A writer began: JSON `Session`, so that a replay finds the provider."""
    OPENED = 2
    """A connection was opened: JSON with its `url`; `source` is its number."""
    CLOSED = 3
    """A connection ended: JSON with a `reason`, empty if we ended it."""
    RECEIVED = 4
    """A frame that was received: its bytes, as they were decoded."""
    SENT = 5
    """A frame that was sent: its bytes, without secrets."""
    ANSWER = 6
    """An answer over HTTP: see `encode_answer`."""
    MARKET = 7
    """A market was described or subscribed: JSON, with its `fqme`."""
    STATUS = 8
    """A market's status: JSON with `fqme`, `status` and `reason`."""
    GAP = 9
    """A gap of a market's feed: JSON with `fqme`, `start_ns`, `end_ns`, `cause`."""
    TICKS = 10
    """A batch of ticks: rows of `TICK_DTYPE`, 64 bytes each."""
    CLOCK = 11
    """The clock was stepped to the record's time; no body."""
    QUOTE = 12
    """A quote that was pushed: JSON."""
    LOST = 13
    """Records are missing here, and the journal says so itself: JSON `Lost`."""


KNOWN = frozenset(int(kind) for kind in Kind)


class Record(msgspec.Struct, gc=False):
    """One record: a `Kind`, receive time (UTC ns), connection number or 0, body."""

    kind: int
    time_ns: int
    source: int
    body: bytes


def decode_records(raw: bytes, count: int) -> list[Record]:
    """The records of a block's payload. Raises Malformed if they do not fill it."""
    unpack, head = RECORD.unpack_from, RECORD.size
    found, place, end = [], 0, len(raw)
    while place + head <= end:
        kind, source, time_ns, length = unpack(raw, place)
        place += head
        found.append(Record(kind, time_ns, source, raw[place : place + length]))
        place += length
    if place != end or len(found) != count:
        raise Malformed("the records of a block do not fill it")
    return found


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a SESSION record.

    `provider`: whose wire follows; `recorder`: what wrote it; `markets`: names of the
    provider that were asked for.
    """

    provider: str
    recorder: str = ""
    markets: list[str] = []


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a LOST record: what was not written, and why.

    `records`: how many, None if nobody knows (their writer died); their times are from
    `first_ns` to `last_ns`, 0 if unknown.
    """

    records: int | None
    cause: str
    first_ns: int = 0
    last_ns: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer over HTTP: what was asked and what came."""

    method: str = "GET"
    url: str
    status: int = 200
    body: bytes = b""


class _AnswerHead(msgspec.Struct, frozen=True):
    method: str
    url: str
    status: int


def encode_answer(answer: Answer) -> bytes:
    """Body of an ANSWER record: a line of JSON (method, url, status), then the body."""
    head = _AnswerHead(answer.method, answer.url, answer.status)
    return msgspec.json.encode(head) + b"\n" + answer.body


def decode_answer(body: bytes) -> Answer:
    """The answer in an ANSWER record. Raises JournalError if the body is none."""
    line, _, rest = body.partition(b"\n")
    try:
        head = msgspec.json.decode(line, type=_AnswerHead)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise JournalError(
            f"a record is no answer over HTTP ({error}): {line[:60]!r}"
        ) from None
    return Answer(method=head.method, url=head.url, status=head.status, body=rest)
