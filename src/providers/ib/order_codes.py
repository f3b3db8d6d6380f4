"""What TWS's words and numbers about orders mean.

Source: https://interactivebrokers.github.io/tws-api/order_submission.html and
https://interactivebrokers.github.io/tws-api/message_codes.html
"""

from typing import Literal

from piker_core.orders import State, TimeInForce

Meaning = Literal["warning", "canceled", "cancel failed", "refused", "unclear"]
"""What a message on an order is.

"warning": the order lives on. "canceled": it has ended. "cancel failed": a cancel was
not done, or was not needed. "refused": what was asked was not done; a new order is
dead. "unclear": TWS has to be asked what became of it.
"""

STATES: dict[str, State] = {
    "ApiPending": "pending",
    "PendingSubmit": "pending",
    "PreSubmitted": "open",
    "Submitted": "open",
    "PendingCancel": "open",
    "Filled": "closed",
    "Cancelled": "canceled",
    "ApiCancelled": "canceled",
    "Inactive": "canceled",
}
TAKEN = frozenset(("PreSubmitted", "Submitted", "Filled"))
"""Words that say that IB has the order as it is told."""
TIMES: dict[TimeInForce, str] = {"gtc": "GTC", "day": "DAY", "ioc": "IOC", "fok": "FOK"}
LIST_ENDS = frozenset(("openOrderEnd", "completedOrdersEnd", "positionEnd"))
"""Messages that end lists which were asked for without a number."""
DUPLICATE_ID = 103
REJECTED = 201
INVALID = 321
READ_ONLY = (
    "the API of TWS is read-only: untick Read-Only API in TWS (Global Configuration, "
    "API, Settings) and connect again"
)

_CANCELED = 202
_WARNINGS = frozenset((165, 399, 404, 434, 492, 10167, 10349))
_CANCEL_FAILED = frozenset((161, 10147, 10148))
_NO_SUCH_ORDER = frozenset((135, 136))
_REFUSED = frozenset(
    (
        *(103, 104, 105, 107, 109, 110, 111, 113, 116, 200, 201, 203, 320, 321),
        *(322, 329, 382, 383, 387, 388, 391, 436, 460, 463, 10052, 10268),
    )
)


def state_of(word: str, why_held: str = "") -> State | None:
    """What an order is by a word of TWS; None for one that is not known.

    An order that is held, while shares to sell short are looked for, may be called
    inactive and yet come alive.
    """
    if word == "Inactive" and why_held:
        return "open"
    return STATES.get(word)


def meaning_of(code: int, *, canceling: bool) -> Meaning:
    """What an error on an order is. `canceling`: its cancel is not answered yet."""
    if 2100 <= code < 2200 or code in _WARNINGS:
        return "warning"
    if code == _CANCELED:
        return "canceled"
    if code in _CANCEL_FAILED or (canceling and code in _NO_SUCH_ORDER):
        return "cancel failed"
    if code in _REFUSED or code in _NO_SUCH_ORDER:
        return "refused"
    return "unclear"


def refusal(code: int, text: str) -> str:
    """A refusal as a sentence, with what mends it where that is known."""
    plain = " ".join(text.split())
    if is_read_only(code, text):
        return f"{READ_ONLY} (code {code})"
    if code == DUPLICATE_ID:
        plain += "; another program uses this client id: set order_client_id in [ib]"
    return f"TWS: {plain} (code {code})"


def is_read_only(code: int, text: str) -> bool:
    """Whether it says that orders are not taken at all."""
    return code == INVALID and "read-only" in text.lower()


def split_execution(exec_id: str) -> tuple[str, int]:
    """An execution's id without its last part, and the revision that this says.

    It is 01 at first, which is revision 0. A correction has the same id with a higher
    last part.
    """
    head, dot, last = exec_id.rpartition(".")
    if dot and last.isdecimal():
        return head, max(int(last) - 1, 0)
    return exec_id, 0
