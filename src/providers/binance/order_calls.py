"""What becomes of a request about an order: refused, unknown, or never sent.

1. `Refusal`: the venue said no, and nothing has changed. `OutcomeUnknown`: it was sent,
   and it is not known what it did. `BrokerDown`: it was certainly not sent.
2. Orders do not wait for long, nor behind calls for data: where the limits would have
   one wait for more than `order_patience_s`, it is not sent at all.
3. What the venue counts outweighs our own count, of weights and of orders.

Source: https://developers.binance.com/docs/binance-spot-api-docs/errors
"""

from collections.abc import Iterable, Mapping

import msgspec
import trio

from piker_core.adapter.limiter import Limiter, Used
from piker_core.adapter.rest import OutcomeUnknown, Reply, Request, Rest, Signer
from piker_core.adapter.shared import share
from piker_core.errors import BrokerDown, DataThrottle, NotFound, ProviderError

from .rest import CLOCK, ORDER_COUNT, UNDECIDED, WINDOW_S, Error, error_code

__all__ = ["BrokerDown", "OutcomeUnknown", "Pace", "Refusal", "call_order"]

_BAD_KEYS = (-1022, -2008, -2014, -2015)
NO_SUCH_ORDER = -2013
_SPANS = {"SECOND": 1.0, "MINUTE": 60.0, "HOUR": 3600.0, "DAY": 86_400.0}
_COUNT_HEADER, _COUNT_SPAN_S = "x-mbx-order-count-10s", 10.0


class Refusal(ProviderError):
    """The venue refused a request: nothing has changed. `code`: its own, or 0."""

    def __init__(self, code: int, text: str, frame: bytes | str | None = None) -> None:
        super().__init__(f"{text} (code {code})" if code else text, frame=frame)
        self.code = code

    @property
    def of_clock(self) -> bool:
        """Whether it is the time stamp that was refused."""
        return self.code == CLOCK


class RateLimit(msgspec.Struct):
    """A row of `rateLimits`: `count` of `limit` in the running window."""

    rateLimitType: str = ""
    interval: str = ""
    intervalNum: int = 1
    limit: int = 0
    count: int = 0


class Pace:
    """How often orders go to one side: weights, which all calls share, and orders."""

    def __init__(
        self, rest: Rest, *, url: str, rate: float, burst: int, patience_s: float
    ) -> None:
        self._weights, self._patience_s = rest.limiter, patience_s
        self._clock, self._burst = rest.clock, burst
        self._orders = share(
            ("orders", url, rate, burst),
            lambda: Limiter(rate, burst, pause_s=10.0, wall_s=rest.clock.now_s),
        )

    async def take(self, *, orders: int = 0) -> tuple[float, float, float]:
        """Wait for room, and take it. Raises BrokerDown where that takes too long.

        Calls for data that wait are not waited for. Returns what `adopt` wants to know.
        """
        delay = self._weights.delay(1)
        if orders:
            delay = max(delay, self._orders.delay(orders))
        if delay > self._patience_s:
            raise self._no_room(delay)
        spent_orders = 0.0
        with trio.move_on_after(self._patience_s) as patience:
            await trio.sleep(self._weights.delay(1))
            if orders:
                spent_orders = await self._orders.acquire(orders)
        if patience.cancelled_caught:
            raise self._no_room(self._patience_s)
        return self._weights.spend(1), spent_orders, self._clock.now_s()

    def _no_room(self, delay: float) -> BrokerDown:
        return BrokerDown(
            f"not sent: Binance's limits leave no room for {delay:.1f} s, and an order "
            f"waits for {self._patience_s:g} s at most (order_patience_s)"
        )

    def throttled(self, code: int, sent_at: float, wait_s: float | None) -> None:
        """The venue says that there are too many."""
        limiter = self._orders if code == ORDER_COUNT else self._weights
        limiter.throttle(sent_at=sent_at, wait_s=wait_s)

    def adopt(
        self, rows: Iterable[RateLimit], taken: tuple[float, float, float], weight: int
    ) -> None:
        """What the venue has counted, told with an answer."""
        spent, spent_orders, sent_s = taken
        for row in rows:
            span_s = _SPANS.get(row.interval, 0.0) * row.intervalNum
            if row.rateLimitType == "REQUEST_WEIGHT" and span_s == WINDOW_S:
                used = Used(row.count, weight, span_s)
                self._weights.adopt(used, spent=spent, sent_s=sent_s)
            elif row.rateLimitType == "ORDERS" and span_s and row.limit:
                used = Used(row.count, row.limit, span_s)
                self._orders.adopt(used, spent=spent_orders, sent_s=sent_s)

    def adopt_headers(
        self, headers: Mapping[str, str], taken: tuple[float, float, float]
    ) -> None:
        """The same of an answer over HTTP, which tells what was used, not of what."""
        _, spent_orders, sent_s = taken
        text = headers.get(_COUNT_HEADER, "")
        if text.isascii() and text.isdecimal():
            used = Used(float(text), self._burst, _COUNT_SPAN_S)
            self._orders.adopt(used, spent=spent_orders, sent_s=sent_s)


async def call_order(
    rest: Rest, request: Request, *, subject: str, sign: Signer, pace: Pace, orders: int
) -> Reply:
    """A request about an order over HTTP. Raises Refusal, OutcomeUnknown, BrokerDown.

    It is sent again only where nothing was sent, or the time stamp was refused.
    """
    taken = await pace.take(orders=orders)
    sent_at = trio.current_time()
    try:
        reply = await rest.call(
            request, subject=subject, cost=0.0, sign=sign, hurry=True
        )
    except OutcomeUnknown:
        raise
    except (DataThrottle, NotFound) as error:
        raise Refusal(0, str(error)) from None
    except ProviderError as error:
        if error.frame is None:
            raise BrokerDown(f"not sent: {error}") from None
        code = error_code(error)
        if code == ORDER_COUNT:
            pace.throttled(code, sent_at, None)
        raise Refusal(code, _text(error), error.frame) from None
    pace.adopt_headers(reply.headers, taken)
    return reply


def _text(error: ProviderError) -> str:
    """What the venue says, without what our error says around it."""
    try:
        return msgspec.json.decode(error.frame or b"", type=Error).msg
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return str(error)


def keys_refused(error: ProviderError) -> bool:
    """Whether the venue does not serve the keys, or not for this."""
    code = error.code if isinstance(error, Refusal) else error_code(error)
    return code in _BAD_KEYS


def is_undecided(code: int, status: int) -> bool:
    """Whether an error leaves open what was done."""
    return code in UNDECIDED or status >= 500
