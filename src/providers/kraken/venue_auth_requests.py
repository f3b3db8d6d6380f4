"""Requests of private WebSocket v2 clients, and the frames that answer them."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, Protocol, cast

import msgspec

from .venue_frames import ack_frame, encode_json, pong_frame, refusal_frame
from .venue_order_faults import TEXTS
from .venue_orders import INVALID, Orders, Refused, Terms
from .venue_reports import order_id

CHANNELS = ("executions", "balances")
NOT_HERE = (
    "Public market data subscriptions are unavailable on this endpoint. "
    "Try ws.kraken.com"
)
INVALID_SESSION = "ESession:Invalid session"
MALFORMED = "Malformed request"
_ORDER_METHODS = (
    *("add_order", "amend_order", "cancel_order", "cancel_all"),
    *("batch_add", "batch_cancel"),
)
BATCH_ADD = range(2, 16)
BATCH_CANCEL = range(2, 51)

Params = dict[str, Any]


class AuthClient(Protocol):
    """A private connection, as its requests know it."""

    sequences: dict[str, int]
    counts_told: bool

    def reply(self, text: bytes) -> None:
        """Send the answer to a request."""


class Hub(Protocol):
    """The server of private connections, as requests know it."""

    def admit(self, link: Any, token: str) -> bool:
        """Whether a request with this token may be answered."""

    def snapshot(self, link: Any, channel: str) -> None:
        """Send what is, to begin a subscription."""

    def tell(self, events: Any) -> None:
        """Tell every client of what happened."""

    def later(self, link: Any, frame: bytes, seconds: float) -> None:
        """Send an answer after a while."""


class _Request(msgspec.Struct):
    method: str
    params: Params = {}
    req_id: int | None = None


class AuthDesk:
    """Answers the requests of all private clients."""

    def __init__(self, orders: Orders, hub: Hub) -> None:
        self._orders, self._hub = orders, hub
        self._methods: dict[str, Callable[[Params], list[Any]]] = {
            "add_order": self._add,
            "amend_order": self._amend,
            "cancel_order": self._cancel,
            "cancel_all": self._cancel_all,
            "cancel_all_orders_after": self._cancel_after,
            "batch_add": self._batch_add,
            "batch_cancel": self._batch_cancel,
        }

    def answer(self, link: AuthClient, text: bytes) -> None:
        """Answer one request."""
        time_in = time.time_ns()
        try:
            decode = msgspec.json.Decoder(_Request, float_hook=Decimal).decode
            request = decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            frame = refusal_frame(None, MALFORMED, None, (time_in, time.time_ns()))
            link.reply(frame)
            return
        if request.method == "ping":
            link.reply(pong_frame(request.req_id, (time_in, time.time_ns())))
            return
        try:
            self._serve(link, request, time_in)
        except Refused as refused:
            link.reply(self._refusal(request, str(refused), time_in))

    def _serve(self, link: AuthClient, request: _Request, time_in: int) -> None:
        token = request.params.get("token")
        if not self._hub.admit(link, token if isinstance(token, str) else ""):
            raise Refused(INVALID_SESSION)
        if request.method in ("subscribe", "unsubscribe"):
            self._change(link, request, time_in)
        elif request.method in self._methods:
            self._order(link, request, time_in)
        else:
            raise Refused("Method(s) not found")

    def _refusal(self, request: _Request, text: str, time_in: int) -> bytes:
        times = (time_in, time.time_ns())
        return refusal_frame(request.method, text, request.req_id, times)

    # Subscriptions

    def _change(self, link: AuthClient, request: _Request, time_in: int) -> None:
        channel = request.params.get("channel")
        if channel not in CHANNELS:
            raise Refused(NOT_HERE)
        times = (time_in, time.time_ns())
        if request.method == "unsubscribe":
            if channel not in link.sequences:
                raise Refused("Subscription Not Found")
            del link.sequences[channel]
            link.reply(
                ack_frame("unsubscribe", {"channel": channel}, request.req_id, times)
            )
            return
        if channel in link.sequences:
            raise Refused("Already subscribed")
        result: dict[str, object] = {"channel": channel, "snapshot": True}
        if channel == "executions":
            link.counts_told = bool(request.params.get("ratecounter"))
            result = {
                "channel": channel,
                "maxratecount": self._orders.account.threshold,
                "snap_orders": True,
                "snap_trades": False,
                "warnings": ["cancel_reason is deprecated, use reason"],
            }
        link.sequences[channel] = 0
        link.reply(ack_frame("subscribe", result, request.req_id, times))
        self._hub.snapshot(link, channel)

    # Orders

    def _order(self, link: AuthClient, request: _Request, time_in: int) -> None:
        """Do what is asked and say so; faults may lie about it."""
        faults = self._orders.faults
        lie = faults.take_lie() if request.method in _ORDER_METHODS else None
        frames: list[bytes] = []
        self._orders.begin()
        try:
            if lie is None or lie[1]:
                results = self._methods[request.method](request.params)
                frames = [self._result(request, result, time_in) for result in results]
        except Refused as refused:
            frames = [self._refusal(request, str(refused), time_in)]
        finally:
            events = self._orders.end()
        if lie is not None:
            text = TEXTS.get(lie[0])
            frames = [] if text is None else [self._refusal(request, text, time_in)]
        if faults.hit("reports_first"):
            self._hub.tell(events)
            events = []
        for frame in frames:
            if faults.reply_late_s:
                self._hub.later(link, frame, faults.reply_late_s)
            else:
                link.reply(frame)
        self._hub.tell(events)

    def _result(self, request: _Request, result: Any, time_in: int) -> bytes:
        """The answer of one result; a text is an error."""
        if isinstance(result, str):
            return self._refusal(request, result, time_in)
        if isinstance(result, list):
            frame = msgspec.json.decode(
                ack_frame(request.method, {}, request.req_id, (time_in, time_in))
            )
            return encode_json(frame | {"result": result})
        times = (time_in, time.time_ns())
        return ack_frame(request.method, result, request.req_id, times)

    def _add(self, params: Params) -> list[Any]:
        order = self._orders.add(read_terms(params, _symbol(self._orders, params)))
        if order is None:
            return [{}]
        return [_named(order)]

    def _batch_add(self, params: Params) -> list[Any]:
        rows = params.get("orders")
        if not isinstance(rows, list) or len(rows) not in BATCH_ADD:
            raise Refused(f"{INVALID}:orders")
        symbol = _symbol(self._orders, params)
        shared = {"deadline": params.get("deadline", "")}
        batch = [read_terms(row | shared, symbol) for row in rows]
        return [[_named(order) for order in self._orders.add_batch(batch)]]

    def _amend(self, params: Params) -> list[Any]:
        name = params.get("order_id") or params.get("cl_ord_id")
        order = self._orders.find(_text(name))
        self._orders.amend(
            order,
            size=_number(params, "order_qty"),
            price=_number(params, "limit_price"),
            post_only=params.get("post_only") is True,
            deadline=_text(params.get("deadline")),
        )
        result = {"amend_id": f"TTW6PD-RC36L-{order.amendments:06d}"} | _named(order)
        return [result]

    def _cancel(self, params: Params) -> list[Any]:
        """One answer for each order."""
        results: list[Any] = []
        for name in _names(params, "order_id") + _names(params, "cl_ord_id"):
            try:
                order = self._orders.find(name)
                self._orders.cancel(order)
                results.append(_named(order))
            except Refused as refused:
                results.append(str(refused))
        if not results:
            raise Refused(f"{INVALID}:order_id")
        return results

    def _batch_cancel(self, params: Params) -> list[Any]:
        names = _names(params, "orders") + _names(params, "cl_ord_id")
        if len(names) not in BATCH_CANCEL:
            raise Refused(f"{INVALID}:orders")
        count = 0
        for name in names:
            try:
                self._orders.cancel(self._orders.find(name))
                count += 1
            except Refused:
                continue  # the answer has the count alone
        return [{"count": count}]

    def _cancel_all(self, params: Params) -> list[Any]:
        return [{"count": self._orders.cancel_all()}]

    def _cancel_after(self, params: Params) -> list[Any]:
        timeout_s = params.get("timeout")
        if not isinstance(timeout_s, int):
            raise Refused(f"{INVALID}:timeout")
        self._orders.cancel_after(timeout_s)
        return [trigger_times(timeout_s)]


def trigger_times(timeout_s: int) -> dict[str, object]:
    """What is said of a dead-man's switch."""
    now = datetime.now(UTC)
    due = now + timedelta(seconds=timeout_s)
    trigger = f"{due:%Y-%m-%dT%H:%M:%SZ}" if timeout_s else "0"
    return {"currentTime": f"{now:%Y-%m-%dT%H:%M:%SZ}", "triggerTime": trigger}


def read_terms(params: Params, symbol: str) -> Terms:
    """A new order of a request. Raises Refused."""
    side, kind = params.get("side"), params.get("order_type")
    tif = _text(params.get("time_in_force", "gtc")).lower()
    if side not in ("buy", "sell") or kind not in ("limit", "market"):
        raise Refused(f"{INVALID}:{'side' if side not in ('buy', 'sell') else kind}")
    if tif not in ("gtc", "ioc", "fok"):
        raise Refused(f"{INVALID}:time_in_force")
    size, price = _number(params, "order_qty"), _number(params, "limit_price")
    if size is None or (price is None) != (kind == "market"):
        raise Refused(f"{INVALID}:{'order_qty' if size is None else 'limit_price'}")
    return Terms(
        symbol=symbol,
        side=cast(Literal["buy", "sell"], side),
        size=size,
        price=price,
        tif=cast(Literal["gtc", "ioc", "fok"], tif),
        post_only=params.get("post_only") is True,
        client_id=_text(params.get("cl_ord_id")),
        deadline=_text(params.get("deadline")),
        validate=params.get("validate") is True,
    )


def _symbol(orders: Orders, params: Params) -> str:
    symbol = _text(params.get("symbol"))
    try:
        market = orders.market(symbol)
    except Refused:
        market = None
    if market is None or market.pair.symbol != symbol:
        raise Refused(f"Currency pair not supported {symbol}")
    return symbol


def _number(params: Params, field: str) -> Decimal | None:
    """A JSON number with a decimal point, as the venue insists."""
    value = params.get(field)
    if value is None:
        return None
    if not isinstance(value, Decimal):
        raise Refused(f"{field.capitalize()} field must be a number_float")
    try:
        if not value.is_finite():
            raise Refused(f"{INVALID}:{field}")
    except InvalidOperation:
        raise Refused(f"{INVALID}:{field}") from None
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _names(params: Params, field: str) -> list[str]:
    value = params.get(field)
    return (
        [each for each in value if isinstance(each, str)]
        if isinstance(value, list)
        else []
    )


def _named(order: Any) -> dict[str, object]:
    named: dict[str, object] = {"order_id": order_id(order)}
    return named | {"cl_ord_id": order.client_id} if order.client_id else named
