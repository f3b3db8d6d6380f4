"""What was said on a recorded connection, and what was said because it was asked."""

from typing import Any
from urllib.parse import urlsplit

import msgspec

from piker_core.conformance.recording import Message, Session

ID_KEYS = ("id", "req_id", "reqid")
Json = dict[str, Any]


def decoded(text: bytes) -> Json:
    """A JSON object; {} for anything else."""
    try:
        return msgspec.json.decode(text, type=Json)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def request_id(message: Json) -> tuple[str, Any] | None:
    """The key and the value of the id that a message has."""
    for key in ID_KEYS:
        if message.get(key) is not None:
            return key, message[key]
    return None


class Script:
    """One recorded connection: requests, their answers, and all that came besides."""

    def __init__(self, session: Session) -> None:
        self.path = urlsplit(session.url).path
        self.place = 0
        self.requests = [decoded(message.text) for message in session.sent]
        self._answers: list[list[Json]] = [[] for _ in self.requests]
        self.messages: list[Message] = []
        ids = {request_id(asked): n for n, asked in enumerate(self.requests)}
        ids.pop(None, None)
        for message in session.received:
            found = request_id(decoded(message.text))
            if found in ids:
                self._answers[ids[found]].append(decoded(message.text))
            else:
                self.messages.append(message)

    def answer(self, asked: Json, number: int) -> list[bytes]:
        """Answers to a client's request, its `number`th."""
        own = request_id(asked)
        plain = _without_id(asked)
        same = [
            n for n, other in enumerate(self.requests) if _without_id(other) == plain
        ]
        place = same[0] if same else number
        if own is None or place >= len(self._answers):
            return []
        return [
            msgspec.json.encode(answer | {own[0]: own[1]})
            for answer in self._answers[place]
        ]


def _without_id(message: Json) -> Json:
    return {key: value for key, value in message.items() if key not in ID_KEYS}
