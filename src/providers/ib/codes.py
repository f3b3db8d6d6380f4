"""What the numbers of TWS's messages mean, and what each is to its caller.

Source: https://interactivebrokers.github.io/tws-api/message_codes.html
"""

import os

from piker_core.errors import (
    ConfigError,
    DataThrottle,
    NoData,
    NotFound,
    PikerError,
    ProviderError,
)

from .order_codes import READ_ONLY, is_read_only

SYSTEM = -1
"""The request id of what concerns the whole connection."""

LINK_LOST = frozenset((1100, 2110))
LINK_BACK_EMPTY = 1101
LINK_BACK = 1102
PORT_CHANGED = 1300
FARM_BROKEN = 2103
FARM_OK = 2104
HISTORY_BROKEN = 2105
HISTORY_OK = frozenset((2106, 2107))
FARM_NOTICES = frozenset((HISTORY_BROKEN, *HISTORY_OK, 2108, 2119, 2157, 2158))
"""History and definitions, and market data farms that merely rest or connect."""
CLIENT_ID_IN_USE = 326
COMPETING = 10197
TOO_FAST = 100

_NO_DEFINITION = 200
_HISTORY = frozenset((162, 165, 366))
_CANCELLED = frozenset((300, 310, 366))
_NOT_ENTITLED = frozenset((354, 10089, 10168, 10186, 10187, 10189))
_TOO_MANY = frozenset((101, 10190))
_STILL_SERVED = frozenset((399, 10090, 10167))


class PacingViolation(DataThrottle):
    """TWS complains of how often history is asked for."""


def is_notice(code: int) -> bool:
    """Whether a message on a request leaves the request alive."""
    return 2100 <= code < 2200 or code in _STILL_SERVED


def is_echo(code: int, text: str) -> bool:
    """Whether it only says that what was cancelled is over, or was not there."""
    return code in _CANCELLED or (code in _HISTORY and "cancelled" in text)


def farm_name(text: str) -> str:
    """The farm that a notice speaks of: `usfarm` of "...is OK:usfarm"."""
    return text.rpartition(":")[2].strip()


def request_error(code: int, text: str, what: str) -> PikerError:
    """The error of a request that TWS refused; `what` names it, with its market."""
    sentence = f"TWS refuses {what}: {text.strip()} (code {code})"
    if code == _NO_DEFINITION:
        return NotFound(f"TWS knows no contract for {what}: {text.strip()}")
    if code in _HISTORY:
        return _history_error(text, sentence)
    if is_read_only(code, text):
        return ProviderError(f"{READ_ONLY} ({what})", frame=f"{code} {text}")
    if code == TOO_FAST:
        return DataThrottle(sentence, retry_after=1.0)
    if code in _NOT_ENTITLED:
        sentence += (
            "; subscribe to its data at the broker, or set market_data_type = 3 in "
            "[ib] for delayed ones"
        )
    elif code in _TOO_MANY:
        sentence += "; close other lines, or ask for fewer markets"
    return ProviderError(sentence, frame=f"{code} {text}")


def _history_error(text: str, sentence: str) -> PikerError:
    plain = text.lower()
    if "pacing violation" in plain:
        return PacingViolation(sentence, retry_after=1.0)
    if "no data" in plain:
        return NoData(sentence)
    return ProviderError(sentence, frame=text)


class ClientIdInUse(ConfigError):
    """Another client has our number."""


def client_id_error(client_id: int, address: str) -> ClientIdInUse:
    """What to do about another client that has our number."""
    return ClientIdInUse(
        f"TWS at {address} has a client with client_id {client_id} already: set "
        'another client_id in [ib], or "auto" for the next free one'
    )


def silent_error(address: str) -> ProviderError:
    """Something listens, but it does not greet as TWS does."""
    return ProviderError(
        f"{address} takes connections but does not speak the TWS API: check port in "
        "[ib], and in TWS that socket clients are enabled and this machine is trusted"
    )


def closed_error(address: str) -> ProviderError:
    """The connection ended before TWS had greeted."""
    return ProviderError(
        f"TWS at {address} closed the connection at once: check in TWS that socket "
        "clients are enabled and this machine is trusted"
    )


def unreachable_error(address: str, cause: OSError) -> ProviderError:
    """Nobody listens, or there is no such host."""
    why = cause.strerror or str(cause) or type(cause).__name__
    if cause.errno and cause.errno > 0:
        why = os.strerror(cause.errno)
    return ProviderError(
        f"no TWS or IB Gateway can be reached at {address} ({why}): start it and "
        "enable its API, or set host and port in [ib] (TWS: 7496, 7497; Gateway: "
        "4001, 4002)"
    )
