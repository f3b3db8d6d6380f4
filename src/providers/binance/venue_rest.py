"""The REST side of a simulated Binance: `/api/v3` of spot, `/fapi/v1` of USD-M.

Rules this file owns:

1. Every call is weighed before it is answered, and every answer tells the weight used.
2. What needs a key is checked as the venue does, the clock before the signature; the
   venue's own key may read old trades of USD-M and has no permission for more.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

import msgspec
import trio

from piker_core.simulation.http import Call, Reply
from piker_core.simulation.limits import Traffic
from piker_core.simulation.market import NS

from .venue_calls import Calls
from .venue_errors import (
    BAD_KEY,
    BAD_SIGNATURE,
    BUSY,
    EARLY,
    LATE,
    NO_PERMISSION,
    Refused,
    banned,
    illegal,
    missing,
    over_weight,
)
from .venue_faults import Faults
from .venue_link import Limits
from .venue_params import Params
from .venue_symbols import MS, US
from .venue_weights import Query, WeightMeter

API_KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
API_SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
_LONGEST_WINDOW_MS = 60_000.0
_PAGE = (
    "<html>\r\n<head><title>{0} {1}</title></head>\r\n<body>\r\n"
    "<center><h1>{0} {1}</h1></center>\r\n</body>\r\n</html>\r\n"
)


class Shape(NamedTuple):
    """What tells the two sides apart: prefixes of paths, methods below them.

    `private` methods are signed, `keyed` ones want a key, `gone` ones were removed;
    `strict` sides refuse parameters that they do not know.
    """

    prefixes: tuple[str, ...]
    private: frozenset[str]
    gone: frozenset[str]
    keyed: frozenset[str]
    strict: bool
    weigh: Callable[[str, Query], int]


class RestServer:
    """Answers REST calls about one side's exchange."""

    def __init__(
        self, calls: Calls, faults: Faults, shape: Shape, *, limits: Limits
    ) -> None:
        self.requests: Counter[str] = Counter()
        self.traffic = Traffic()
        self.meter = WeightMeter(
            limits.weight,
            window_s=limits.weight_window_s,
            patience=limits.patience,
            ban_s=limits.ban_s,
        )
        self._calls = calls
        self._exchange = calls.exchange
        self._faults = faults
        self._shape = shape

    async def answer(self, call: Call) -> Reply:
        """Answer one call, after the delay and with the fault that are switched on."""
        self.requests[call.path] += 1
        self.traffic.begin(trio.current_time())
        try:
            if self._faults.slow_rest_s:
                await trio.sleep(self._faults.slow_rest_s)
            return self._faulty() or self._weighed(call)
        finally:
            self.traffic.end()

    def now_s(self) -> float:
        """The time as the venue tells it, in Unix s."""
        return self._calls.told_ns() / NS

    def _faulty(self) -> Reply | None:
        """The answer of a fault that is due."""
        match self._faults.take_rest():
            case "html":
                return _page(HTTPStatus(self._faults.html_status))
            case "unavailable":
                return Refused(*BUSY, HTTPStatus.SERVICE_UNAVAILABLE).reply()
            case "throttle":
                after = (("Retry-After", str(self._faults.retry_after_s)),)
                return over_weight(self.meter.limit).reply(after)
        return None

    def _weighed(self, call: Call) -> Reply:
        method = self._method(call.path)
        weight = self._shape.weigh(method, call.query) if method else 1
        now_s = self.now_s()
        verdict = self.meter.take(weight, now_s)
        used = str(self.meter.used)
        headers = (("X-MBX-USED-WEIGHT", used), ("X-MBX-USED-WEIGHT-1M", used))
        if verdict.status is not HTTPStatus.OK:
            after = ("Retry-After", str(int(verdict.until_s - now_s) + 1))
            error = over_weight(self.meter.limit)
            if verdict.status is HTTPStatus.IM_A_TEAPOT:
                error = banned(int(verdict.until_s * 1000))
            return error.reply((*headers, after))
        try:
            return self._result(call, method)._replace(headers=headers)
        except Refused as refused:
            return refused.reply(headers)

    def _method(self, path: str) -> str:
        """The part of a path after the side's prefix."""
        for prefix in self._shape.prefixes:
            if path.startswith(prefix):
                return path.removeprefix(prefix)
        return ""

    def _result(self, call: Call, method: str) -> Reply:
        if method in self._shape.gone:
            return _page(HTTPStatus.GONE)
        if method in self._shape.private:
            self._check_signed(call)
            raise Refused(*NO_PERMISSION, HTTPStatus.UNAUTHORIZED)
        answer = self._calls.methods.get(method)
        if answer is None:
            return _page(HTTPStatus.NOT_FOUND)
        if call.method != "GET":
            return _page(HTTPStatus.METHOD_NOT_ALLOWED)
        if method in self._shape.keyed:
            _check_key(call)
        params = Params(
            call.query,
            self._exchange,
            refused=self._faults.refused_symbols,
            unit=self._unit(call),
            strict=self._shape.strict,
        )
        made = answer(params, self._exchange.advance())
        return Reply(msgspec.json.encode(made))

    def _unit(self, call: Call) -> int:
        """What times are counted in, in ns."""
        name = call.headers.get("x-mbx-time-unit", "MILLISECOND").upper()
        if name == "MICROSECOND" and self._shape.strict:
            return US
        if name not in ("MILLISECOND", "MICROSECOND"):
            text = "Invalid value for time unit; expected either MICROSECOND or"
            raise Refused(-1194, f"{text} MILLISECOND.")
        return MS

    def _check_signed(self, call: Call) -> None:
        """Refuse a signed call whose key, clock or signature is wrong."""
        _check_key(call)
        fields = dict(call.query)
        sent = call.query_text + call.body.decode("latin-1")
        for pair in call.body.decode("latin-1").split("&"):
            name, _, text = pair.partition("=")
            fields.setdefault(name, text)
        for name in ("timestamp", "signature"):
            if not fields.get(name):
                raise missing(name)
        now_ms = self._calls.told_ns() / MS
        stamp_ms = _number("timestamp", fields["timestamp"])
        window_ms = _number("recvWindow", fields.get("recvWindow", "5000"))
        if stamp_ms >= 10**14:
            stamp_ms /= 1000
        if window_ms > _LONGEST_WINDOW_MS:
            raise Refused(-1131, "recvWindow must be less than 60000.")
        if stamp_ms >= now_ms + 1000:
            raise Refused(*EARLY)
        if now_ms - stamp_ms > window_ms:
            raise Refused(*LATE)
        payload, _, signature = sent.rpartition("&signature=")
        secret, signed = API_SECRET.encode(), payload.encode("latin-1")
        if hmac.new(secret, signed, hashlib.sha256).hexdigest() != signature.lower():
            raise Refused(*BAD_SIGNATURE)


def _check_key(call: Call) -> None:
    key = call.headers.get("x-mbx-apikey")
    if not key:
        raise Refused(*BAD_KEY, HTTPStatus.UNAUTHORIZED)
    if key != API_KEY:
        raise Refused(*NO_PERMISSION, HTTPStatus.UNAUTHORIZED)


def _number(name: str, text: str) -> float:
    whole, _, part = text.partition(".")
    if (
        not (f"{whole}{part}".isascii() and f"{whole}{part}".isdigit())
        or len(text) > 24
    ):
        raise illegal(name, "^[0-9]{1,20}$")
    return float(text)


def _page(status: HTTPStatus) -> Reply:
    page = _PAGE.format(status.value, status.phrase)
    return Reply(page.encode(), status, "text/html")
