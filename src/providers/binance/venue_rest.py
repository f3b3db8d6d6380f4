"""The REST side of a simulated Binance: `/api/v3` of spot, `/fapi/v1` of USD-M.

Rules this file owns:

1. Every call is weighed before it is answered, and every answer tells the weight used.
2. What needs a key is checked as the venue does, the clock before the signature; what
   is asked of the account that is not simulated there is no permission for.
"""

from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec
import trio

from piker_core.simulation.http import Call, Reply
from piker_core.simulation.limits import Traffic
from piker_core.simulation.market import NS

from .venue_account import VenueAccount
from .venue_calls import Calls
from .venue_errors import BUSY, NO_PERMISSION, Refused, banned, over_weight
from .venue_faults import Faults
from .venue_link import Limits
from .venue_params import Params
from .venue_signed import check_key, check_signature, check_stamp
from .venue_symbols import MS, US
from .venue_usdm_account import UsdmAccount
from .venue_weights import Query, WeightMeter
from .venue_ws_api import Silent, with_faults

_SIGNED = ("timestamp", "signature", "recvWindow")

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
        self,
        calls: Calls,
        faults: Faults,
        shape: Shape,
        account: VenueAccount,
        *,
        limits: Limits,
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
        self._account = account

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
            reply = self._result(call, method)
            return reply._replace(headers=(*headers, *reply.headers))
        except Silent:
            raise trio.BrokenResourceError from None
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
            return self._private(call, method)
        if method == "listenKey" and not self._shape.strict:
            return self._listen_key(call)
        answer = self._calls.methods.get(method)
        if answer is None:
            return _page(HTTPStatus.NOT_FOUND)
        if call.method != "GET":
            return _page(HTTPStatus.METHOD_NOT_ALLOWED)
        if method in self._shape.keyed:
            check_key(call.headers.get("x-mbx-apikey"))
        params = self._params(call, call.query)
        made = answer(params, self._exchange.advance())
        return Reply(msgspec.json.encode(made))

    def _params(self, call: Call, fields: dict[str, str]) -> Params:
        return Params(
            fields,
            self._exchange,
            refused=self._faults.refused_symbols,
            unit=self._unit(call),
            strict=self._shape.strict,
        )

    def _unit(self, call: Call) -> int:
        """What times are counted in, in ns."""
        name = call.headers.get("x-mbx-time-unit", "MILLISECOND").upper()
        if name == "MICROSECOND" and self._shape.strict:
            return US
        if name not in ("MILLISECOND", "MICROSECOND"):
            text = "Invalid value for time unit; expected either MICROSECOND or"
            raise Refused(-1194, f"{text} MILLISECOND.")
        return MS

    def _private(self, call: Call, method: str) -> Reply:
        """Answer a signed call."""
        fields = self._signed_fields(call)
        answer = self._account.methods.get((call.method, method))
        if answer is None:
            raise Refused(*NO_PERMISSION, HTTPStatus.UNAUTHORIZED)
        params = self._params(call, fields)
        with_faults(self._faults, call.method, before=True)
        made = answer(params, self._unit(call))
        with_faults(self._faults, call.method, before=False)
        self._account.flush()
        count = str(self._account.counted)
        headers = (("X-MBX-ORDER-COUNT-10S", count),) if method == "order" else ()
        return Reply(msgspec.json.encode(made), headers=headers)

    def _signed_fields(self, call: Call) -> dict[str, str]:
        """The parameters of a signed call. Raises Refused."""
        check_key(call.headers.get("x-mbx-apikey"))
        fields = dict(parse_qsl(call.body.decode("latin-1"), keep_blank_values=True))
        fields |= call.query
        check_stamp(fields, self._calls.told_ns() / MS)
        sent = call.query_text + call.body.decode("latin-1")
        payload, _, signature = sent.rpartition("&signature=")
        check_signature(payload.encode("latin-1"), signature)
        return {name: text for name, text in fields.items() if name not in _SIGNED}

    def _listen_key(self, call: Call) -> Reply:
        """Answer a call about the key of the user stream."""
        check_key(call.headers.get("x-mbx-apikey"))
        assert isinstance(self._account, UsdmAccount)
        return Reply(msgspec.json.encode(self._account.key_method(call.method)))


def _page(status: HTTPStatus) -> Reply:
    page = _PAGE.format(status.value, status.phrase)
    return Reply(page.encode(), status, "text/html")
