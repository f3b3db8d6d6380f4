"""What the answers of Binance's REST mean, on spot and on USD-M.

Errors are `{"code": -1121, "msg": "Invalid symbol."}` with a status of 4xx or 5xx. 429
asks for patience, 418 is a ban: its end is in Retry-After and in the text, and nobody
calls before it. Every answer tells the weight that the address has used in the minute.

Source: https://developers.binance.com/docs/binance-spot-api-docs/errors
"""

import re
import time

import httpx
import msgspec

from piker_core.adapter.answers import (
    Site,
    Verdict,
    decode_body,
    judge_http,
    seconds,
)
from piker_core.adapter.limiter import Used
from piker_core.errors import ProviderError

SPOT_SITE = Site("Binance", "binance")
USDM_SITE = Site(
    "Binance USD-M", "binance", url_key="usdm_rest_url", rate_key="usdm_rest_rate"
)
WINDOW_S = 60.0

UNKNOWN_SYMBOL = -1121
TOO_OLD = -4166
"""USD-M: the span begins before what is kept."""
ORDER_COUNT = -1015
"""Too many orders: the account's limit, which calls for data know nothing of."""
CLOCK = -1021
UNDECIDED = (-1000, -1001, -1006, -1007, -1008, -1016)
"""It may pass; of an order: it may have been done."""
_TOO_MANY = -1003
_RESTRICTED = 451
_BANNED_UNTIL = re.compile(r"banned until (\d{13})\b")


class Error(msgspec.Struct, frozen=True):
    """The body of an answer that is none of success."""

    code: int
    msg: str = ""


def error_code(error: ProviderError) -> int:
    """The venue's code of an error; 0 if it is none of its own."""
    try:
        return msgspec.json.decode(error.frame or b"", type=Error).code
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0


class Judge:
    """Judges the answers of one side, of which `weight` a minute may be asked."""

    def __init__(self, site: Site, weight: int) -> None:
        self._site, self._weight = site, weight

    def __call__(self, answer: httpx.Response) -> Verdict:
        """What an answer means, and the weight it reports."""
        text = answer.headers.get("X-MBX-USED-WEIGHT-1M", "")
        if not (text.isascii() and text.isdecimal()):
            return self._judge(answer)
        used = Used(float(text), self._weight, WINDOW_S)
        return msgspec.structs.replace(self._judge(answer), used=(used,))

    def _judge(self, answer: httpx.Response) -> Verdict:
        status = answer.status_code
        if status == 200:
            return Verdict("ok", result=answer.content)
        error = decode_body(answer, Error)
        if status == _RESTRICTED:
            advice = (
                f"{self._site.name} does not serve this place; for public data "
                "of spot, data-api.binance.vision and data-stream.binance.vision may"
            )
            return Verdict("refused", f"HTTP 451, {advice}")
        if isinstance(error, Verdict):
            return judge_http(answer, self._site)
        return _judge_error(error, answer)


def _judge_error(error: Error, answer: httpx.Response) -> Verdict:
    text = f"{error.msg} (code {error.code})"
    if error.code == ORDER_COUNT:
        return Verdict("refused", text)
    if answer.status_code in (418, 429) or error.code == _TOO_MANY:
        return Verdict("throttled", text, wait_s=_wait_s(error, answer))
    if error.code == UNKNOWN_SYMBOL:
        return Verdict("unknown", text)
    if error.code == CLOCK:
        return Verdict("clock", text)
    if error.code in UNDECIDED or answer.status_code >= 500:
        return Verdict("transient", text)
    return Verdict("refused", text)


def _wait_s(error: Error, answer: httpx.Response) -> float | None:
    """For how long not to call, by the header and by the end of a ban in the text."""
    waits = [seconds(answer.headers.get("Retry-After"))]
    if match := _BANNED_UNTIL.search(error.msg):
        waits.append(int(match[1]) / 1000 - time.time())
    return max((wait for wait in waits if wait is not None), default=None)
