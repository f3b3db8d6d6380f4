"""Sessions with a venue that were recorded: what was sent, received and answered.

A line each: `URL <-> t` a connection, `URL <- t: text` sent on it, `t: text` received
on the last one, `URL -> t: text` an answer over HTTP; t is the receive time in Unix
seconds. Lines that begin with `configuration:` are left out.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec

from piker_core.errors import PikerError

_ADDRESSED = re.compile(
    rb"(?P<url>(?:ws|http)s?://\S+) (?P<way><->|<-|->) (?P<time>\d+(?:\.\d+)?)"
    rb"(?:: ?(?P<text>.*))?"
)
_RECEIVED = re.compile(rb"(?P<time>\d+(?:\.\d+)?): ?(?P<text>.*)")
_LEFT_OUT = b"configuration:"


class Message(msgspec.Struct, frozen=True):
    """A text, and when it was received or sent (Unix s)."""

    time_s: float
    text: bytes


class Session(msgspec.Struct):
    """One connection: what was sent on it, and what was received."""

    url: str
    sent: list[Message] = []
    received: list[Message] = []


class Answer(msgspec.Struct, frozen=True):
    """An answer over HTTP, by path and parameters."""

    path: str
    query: dict[str, str]
    message: Message


class Recording(msgspec.Struct):
    """All that was recorded, in the order of the files."""

    sessions: list[Session] = []
    answers: list[Answer] = []

    @property
    def begin_s(self) -> float:
        """When the first message was received."""
        return min(s.received[0].time_s for s in self.sessions if s.received)

    @property
    def end_s(self) -> float:
        """When the last one was."""
        return max(s.received[-1].time_s for s in self.sessions if s.received)

    def find(self, path: str, query: dict[str, str]) -> list[Answer]:
        """Answers to a call: to that very one, else to the one that is most like it."""
        there = [answer for answer in self.answers if answer.path == path]
        same = [answer for answer in there if answer.query == query]
        if same or not there:
            return same

        def likeness(answer: Answer) -> int:
            return len(answer.query.items() & query.items())

        best = max(there, key=likeness)
        return [answer for answer in there if answer.query == best.query]


def read_recording(paths: Sequence[Path]) -> Recording:
    """Read the files of a session.

    Raises OSError, and PikerError for a line that is none of the format, or if there is
    no message of a WebSocket in them.
    """
    recording = Recording()
    for path in paths:
        _read(path, recording)
    recording.sessions = [s for s in recording.sessions if s.received]
    if not recording.sessions:
        names = ", ".join(map(str, paths))
        raise PikerError(f"{names}: no message of a WebSocket was recorded in there")
    return recording


def _read(path: Path, recording: Recording) -> None:
    current: Session | None = None
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip() or line.startswith(_LEFT_OUT):
            continue
        received = _RECEIVED.fullmatch(line)
        addressed = _ADDRESSED.fullmatch(line)
        if received and current is not None:
            current.received.append(_message(received))
        elif addressed and addressed["way"] == b"->":
            recording.answers.append(_answer(addressed))
        elif addressed and addressed["way"] == b"<->":
            current = Session(addressed["url"].decode())
            recording.sessions.append(current)
        elif addressed and current is not None:
            current.sent.append(_message(addressed))
        else:
            raise PikerError(
                f"{path}, line {number} is none of a recorded session: {line[:60]!r}; "
                "URL <-> t, URL <- t: text, t: text and URL -> t: text are"
            )


def _message(match: re.Match[bytes]) -> Message:
    return Message(float(match["time"]), match["text"] or b"")


def _answer(match: re.Match[bytes]) -> Answer:
    url = urlsplit(match["url"].decode())
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    return Answer(url.path, query, _message(match))
