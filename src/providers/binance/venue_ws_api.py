"""The WebSocket API of a simulated Binance: requests about orders, and user streams.

Nothing here touches a socket: `ApiDesk.answer` takes a message and an `ApiClient`,
whose `reply` takes the answers. What is asked for is what REST answers.

Source: web-socket-api.md of the spot API's documents.
"""

import itertools
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Protocol

import msgspec

from piker_core.simulation.market import NS

from .venue_account import Event, VenueAccount
from .venue_errors import NO_PERMISSION, TIMEOUT, Refused, over_weight
from .venue_faults import Faults
from .venue_params import Params
from .venue_signed import check_request
from .venue_symbols import MS
from .venue_weights import WeightMeter

METHODS = {
    "order.place": ("POST", "order"),
    "order.test": ("POST", "order/test"),
    "order.status": ("GET", "order"),
    "order.cancel": ("DELETE", "order"),
    "order.cancelReplace": ("POST", "order/cancelReplace"),
    "order.amend.keepPriority": ("PUT", "order/amend/keepPriority"),
    "openOrders.status": ("GET", "openOrders"),
    "openOrders.cancelAll": ("DELETE", "openOrders"),
    "allOrders": ("GET", "allOrders"),
    "account.status": ("GET", "account"),
    "myTrades": ("GET", "myTrades"),
}
_SIGNED = ("apiKey", "signature", "timestamp", "recvWindow")
_SUBSCRIBE = "userDataStream.subscribe.signature"
_FIRST_SUBSCRIPTION = 0


class ApiClient(Protocol):
    """What the desk needs of a connection; `unit` is what its times count, in ns."""

    unit: int
    limits_told: bool

    def reply(self, text: bytes) -> None:
        """Send a message."""

    def reset(self) -> None:
        """End the connection at once."""


class UserStream:
    """A connection's subscription to the account."""

    def __init__(self, client: ApiClient, number: int) -> None:
        self.client, self.number = client, number

    def report(self, event: Event) -> None:
        """Something happened."""
        told = {"subscriptionId": self.number, "event": event(self.client.unit)}
        self.client.reply(msgspec.json.encode(told))


class ApiDesk:
    """Answers the requests of all clients of the WebSocket API."""

    def __init__(
        self, account: VenueAccount, faults: Faults, meter: WeightMeter
    ) -> None:
        self.account = account
        self.requests = 0
        self._faults, self._meter = faults, meter
        self._streams: dict[ApiClient, UserStream] = {}
        self._numbers = itertools.count(_FIRST_SUBSCRIPTION)

    @property
    def clients(self) -> list[ApiClient]:
        """Those that hear of the account."""
        return list(self._streams)

    def left(self, client: ApiClient) -> None:
        """A connection has ended."""
        stream = self._streams.pop(client, None)
        if stream is not None:
            self.account.subscribers.remove(stream)

    def terminate(self) -> int:
        """End all user streams, and say so; returns how many."""
        now_ns = self.account.exchange.now_ns
        streams = list(self._streams.values())
        for stream in streams:
            stream.report(
                lambda unit: {"e": "eventStreamTerminated", "E": now_ns // unit}
            )
            self.left(stream.client)
        return len(streams)

    def revoke(self) -> int:
        """Tell all that hear of the account of a key that is not valid."""
        code, text = NO_PERMISSION
        error = {"code": code, "msg": text}
        clients = self.clients
        for client in clients:
            answer = {"id": None, "status": HTTPStatus.UNAUTHORIZED, "error": error}
            client.reply(msgspec.json.encode(answer))
            self.left(client)
        return len(clients)

    def answer(self, client: ApiClient, text: bytes) -> None:
        """Answer one message."""
        self.requests += 1
        number: object = None
        status, part = HTTPStatus.OK, dict[str, object]()
        try:
            message = _decode(text)
            number = message.get("id")
            part["result"] = self._done(client, message)
        except Silent:
            client.reset()
            self.account.flush()
            return
        except Refused as refused:
            status, part = refused.status, {"error": refused.body()}
        answer = {"id": number, "status": status.value, **part}
        if client.limits_told:
            answer["rateLimits"] = self._limits()
        made = msgspec.json.encode(answer)
        self.account.flush(partial(client.reply, made))

    def _done(self, client: ApiClient, message: Mapping[str, object]) -> object:
        method = message.get("method")
        fields = _fields(message.get("params"))
        now_ns = self._faults.told_ns(self.account.exchange.advance())
        if method == "ping":
            return {}
        if method == "time":
            return {"serverTime": now_ns // client.unit}
        verdict = self._meter.take(1, now_ns / NS)
        if verdict.status is not HTTPStatus.OK:
            refused = over_weight(self._meter.limit)
            refused.extra = {
                "serverTime": now_ns // MS,
                "retryAfter": int(verdict.until_s * 1000),
            }
            raise refused
        check_request(fields, now_ns / MS)
        if method == _SUBSCRIBE:
            return self._subscribe(client)
        if method not in METHODS:
            raise Refused(-1100, f"Unknown method '{method}'.")
        return self._called(client, METHODS[str(method)], fields)

    def _subscribe(self, client: ApiClient) -> object:
        if client in self._streams:
            raise Refused(-2035, "User Data Stream subscription already active.")
        stream = UserStream(client, next(self._numbers))
        self._streams[client] = stream
        self.account.subscribers.append(stream)
        return {"subscriptionId": stream.number}

    def _called(
        self, client: ApiClient, call: tuple[str, str], fields: Mapping[str, str]
    ) -> object:
        query = {name: text for name, text in fields.items() if name not in _SIGNED}
        params = Params(
            query,
            self.account.exchange,
            refused=self._faults.refused_symbols,
            unit=client.unit,
            strict=True,
        )
        with_faults(self._faults, call[0], before=True)
        made = self.account.methods[call](params, client.unit)
        with_faults(self._faults, call[0], before=False)
        return made

    def _limits(self) -> list[dict[str, object]]:
        rows = (
            ("REQUEST_WEIGHT", "MINUTE", 1, self._meter.limit, self._meter.used),
            ("ORDERS", "SECOND", 10, self.account.most_orders, self.account.counted),
        )
        names = ("rateLimitType", "interval", "intervalNum", "limit", "count")
        return [dict(zip(names, row, strict=True)) for row in rows]


class Silent(Exception):
    """There is no answer: the connection ends instead."""


def with_faults(faults: Faults, http_method: str, *, before: bool) -> None:
    """What goes wrong with a request that changes something, before or after it did."""
    if http_method == "GET":
        return
    if faults.take_order("time_out" if before else "time_out_done"):
        raise Refused(*TIMEOUT, HTTPStatus.INTERNAL_SERVER_ERROR)
    if faults.take_order("lose" if before else "lose_done"):
        raise Silent


def _decode(text: bytes) -> Mapping[str, object]:
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Refused(-1100, "Illegal characters found in a parameter.") from None


def _fields(params: object) -> dict[str, str]:
    """Parameters as texts, as they are signed."""
    if not isinstance(params, dict):
        return {}
    return {
        str(name): each if isinstance(each, str) else msgspec.json.encode(each).decode()
        for name, each in params.items()
    }
