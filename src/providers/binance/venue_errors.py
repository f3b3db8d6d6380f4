"""Errors of a simulated Binance's REST side, as the venue words them.

Source: errors.md of the spot API's documents; the -4000s are of USD-M.
"""

from http import HTTPStatus

import msgspec

from piker_core.simulation.http import Reply


class Refused(Exception):
    """A call that is answered with an error; `extra` is what it says besides."""

    def __init__(
        self, code: int, text: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.status = status
        self.extra: dict[str, object] | None = None

    def body(self) -> dict[str, object]:
        """The error itself."""
        error: dict[str, object] = {"code": self.code, "msg": self.text}
        return error if self.extra is None else error | {"data": self.extra}

    def reply(self, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
        """The answer."""
        return Reply(msgspec.json.encode(self.body()), self.status, headers=headers)


def missing(name: str) -> Refused:
    """A mandatory parameter is not there."""
    return Refused(
        -1102,
        f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.",
    )


def illegal(name: str, legal: str) -> Refused:
    """A parameter does not match a pattern."""
    return Refused(
        -1100,
        f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.",
    )


def invalid(name: str) -> Refused:
    """A parameter has a value that is not allowed."""
    return Refused(-1130, f"Data sent for parameter '{name}' is not valid.")


BAD_SYMBOL = (-1121, "Invalid symbol.")
BAD_INTERVAL = (-1120, "Invalid interval.")
BAD_COMBINATION = (-1128, "Combination of optional parameters invalid.")
BAD_KEY = (-2014, "API-key format invalid.")
NO_PERMISSION = (-2015, "Invalid API-key, IP, or permissions for action.")
TOO_BIG = (-1127, "More than 1 hours between startTime and endTime.")
TOO_OLD = (-4166, "Search window is restricted to recent 2 days only.")
BACKWARDS = (-1023, "Start time is greater than end time.")
_OVERLOADED = "Server is currently overloaded with other requests."
_TIMEOUT = "Timeout waiting for response from backend server. Send status unknown;"
TIMEOUT = (-1007, f"{_TIMEOUT} execution status unknown.")
BUSY = (-1008, f"{_OVERLOADED} Please try again in a few minutes.")
LATE = (-1021, "Timestamp for this request is outside of the recvWindow.")
EARLY = (
    -1021,
    "Timestamp for this request was 1000ms ahead of the server's time.",
)
BAD_SIGNATURE = (-1022, "Signature for this request is not valid.")
_POLLING = "Please use WebSocket Streams for live updates to avoid"


def over_weight(limit: int) -> Refused:
    """Too much weight in a minute."""
    text = (
        f"Too much request weight used; current limit is {limit} request weight per 1 "
        f"MINUTE. {_POLLING} polling the API."
    )
    return Refused(-1003, text, HTTPStatus.TOO_MANY_REQUESTS)


def banned(until_ms: int) -> Refused:
    """The address is banned; 418 is how the venue says so."""
    text = (
        f"Way too much request weight used; IP banned until {until_ms}. "
        f"{_POLLING} bans."
    )
    return Refused(-1003, text, HTTPStatus.IM_A_TEAPOT)
