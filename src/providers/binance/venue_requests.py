"""Control messages of a client of a simulated Binance, and what answers them.

Nothing here touches a socket: `Desk.answer` takes a message and a `Client`, and the
client's `reply` takes the answers. Spot's errors are flat, USD-M's nested.
"""

import contextlib
from typing import Annotated, Protocol

import msgspec
from websockets.frames import CloseCode

from .venue_faults import Faults

_Id = (
    Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    | Annotated[str, msgspec.Meta(max_length=36)]
    | None
)
METHODS = (
    *("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS"),
    *("SET_PROPERTY", "GET_PROPERTY"),
)
_EXPECTED = ", ".join(f"`{method}`" for method in METHODS)
_INVALID = "Invalid request"
TOO_MANY = "Too many subscriptions"


class Client(Protocol):
    """What the desk needs of a connection."""

    streams: dict[str, None]
    combined: bool

    def reply(self, text: bytes) -> None:
        """Send an answer."""

    def close(self, code: int, reason: str = "") -> None:
        """End the connection."""

    def subscribe(self, name: str) -> None:
        """Begin to send a stream."""

    def unsubscribe(self, name: str) -> None:
        """End it."""


class _Wrong(Exception):
    """A message that is answered with an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Desk:
    """Answers the messages of all clients of one side."""

    def __init__(self, faults: Faults, *, most_streams: int, nested: bool) -> None:
        self._faults = faults
        self._most_streams = most_streams
        self._nested = nested

    def answer(self, client: Client, text: bytes) -> None:
        """Answer one message."""
        known: dict[str, object] = {}
        try:
            message = _decode(text)
            known = {"id": _read_id(message)}
            method = _read_method(message, len(text))
            if method == "SUBSCRIBE" and self._faults.acks_silent:
                return
            result = self._carry_out(client, method, message.get("params"))
        except _Wrong as wrong:
            error: dict[str, object] = {"code": wrong.code, "msg": wrong.text}
            error = {"error": error} if self._nested else error
            client.reply(msgspec.json.encode(error | known))
            return
        if result is not self:
            client.reply(msgspec.json.encode({"result": result, **known}))

    def refuse(self, client: Client) -> None:
        """Tell a client that it has too many streams, and end its connection."""
        error: dict[str, object] = {"code": 4, "msg": TOO_MANY}
        client.reply(msgspec.json.encode({"error": error} if self._nested else error))
        client.close(CloseCode.POLICY_VIOLATION, _INVALID)

    def _carry_out(self, client: Client, method: str, params: object) -> object:
        """Do what is asked; the result, or the desk itself where there is no answer."""
        if method == "LIST_SUBSCRIPTIONS":
            if params:
                raise _Wrong(2, f"{_INVALID}: too many parameters")
            return list(client.streams)
        if method.endswith("_PROPERTY"):
            return _property(client, params, change=method == "SET_PROPERTY")
        try:
            names = msgspec.convert(params, list[str])
        except msgspec.ValidationError:
            raise _Wrong(
                2, f"{_INVALID}: params must be a list of stream names"
            ) from None
        if method == "UNSUBSCRIBE":
            for name in names:
                client.unsubscribe(name)
        elif len(client.streams.keys() | set(names)) > self._most_streams:
            self.refuse(client)
            return self
        else:
            for name in names:
                client.subscribe(name)
        return None


def _decode(text: bytes) -> dict[str, object]:
    try:
        message = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        where = "at line 1 column 1"
        raise _Wrong(3, f"Invalid JSON: expected value {where}") from None
    if not isinstance(message, dict):
        raise _Wrong(2, f"{_INVALID}: expected an object")
    return message


def _read_id(message: dict[str, object]) -> int | str | None:
    if "id" in message:
        with contextlib.suppress(msgspec.ValidationError):
            known: int | str | None = msgspec.convert(message["id"], _Id)
            return known
    raise _Wrong(2, f"{_INVALID}: request ID must be an unsigned integer")


def _read_method(message: dict[str, object], length: int) -> str:
    method = message.get("method")
    if not isinstance(method, str):
        raise _Wrong(2, f"{_INVALID}: missing field `method` at line 1 column {length}")
    if method not in METHODS:
        raise _Wrong(
            2,
            f"{_INVALID}: unknown variant `{method}`, expected one of {_EXPECTED} "
            f"at line 1 column {length}",
        )
    return method


def _property(client: Client, params: object, *, change: bool) -> object:
    """Read or set whether a client's events are wrapped."""
    given = params if isinstance(params, list) else []
    if not given or not isinstance(given[0], str):
        raise _Wrong(2, f"{_INVALID}: property name must be a string")
    if len(given) > 1 + change:
        raise _Wrong(2, f"{_INVALID}: too many parameters")
    if given[0] != "combined":
        raise _Wrong(0, "Unknown property")
    if not change:
        return client.combined
    if len(given) < 2 or not isinstance(given[1], bool):
        raise _Wrong(1, "Invalid value type: expected Boolean")
    client.combined = given[1]
    return None
