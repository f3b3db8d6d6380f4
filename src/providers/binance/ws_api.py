"""Spot's WebSocket API: requests and answers on one connection, and the user stream.

1. Every request is signed; the user stream is subscribed to with a signature, which
   works with any kind of key, before a connection counts as open.
2. A time stamp that was refused is looked into, and sent once more.
3. An answer that does not come, or says that it is not known what was done, is
   `OutcomeUnknown`.

Source: https://developers.binance.com/docs/binance-spot-api-docs/websocket-api
"""

import itertools
import logging
from collections.abc import Awaitable, Callable

import msgspec
import trio

from piker_core.adapter.answers import outcome_unknown
from piker_core.errors import BrokerDown, ConfigError, DataThrottle, ProviderError

from .api import Config
from .client import Side
from .kept_socket import KeptSocket, LostAnswer, NotConnected, RefusedKeys, Socket
from .markets import PROVIDER
from .order_calls import Pace, RateLimit, Refusal, is_undecided, keys_refused
from .signing import Keys, Texts, stamp

log = logging.getLogger(__name__)

_PATH = "/ws-api/v3?timeUnit=MICROSECOND"
_SUBSCRIBE = "userDataStream.subscribe.signature"
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_UNAUTHORIZED = 401


class _Head(msgspec.Struct):
    """What tells an answer from an event."""

    id: int | str | None = None
    status: int | None = None


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Until(msgspec.Struct):
    serverTime: int = 0
    retryAfter: int = 0


class _Answer(msgspec.Struct):
    status: int
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None
    rateLimits: list[RateLimit] = []


class Partly(Refusal):
    """A request of two parts of which one failed, or both; `parts` is what they did."""

    def __init__(self, code: int, text: str, parts: msgspec.Raw, frame: bytes) -> None:
        super().__init__(code, text, frame)
        self.parts = parts


def checked_ws_url(text: str, key: str) -> str:
    """An address without a slash at its end. Raises ConfigError that names its key."""
    scheme, _, host = text.rstrip("/").partition("://")
    if scheme not in ("ws", "wss") or not host or set(host) & set("/?#"):
        raise ConfigError(
            f"[{PROVIDER}] {key} {text!r} must be like wss://ws-api.binance.com:443"
        )
    return f"{scheme}://{host}"


class WsApi:
    """The WebSocket API of one account.

    `take_event` hears of all that is no answer; `before` is awaited before the user
    stream is subscribed to.
    """

    label = "Binance's WebSocket API"
    url_key = "ws_api_url"

    def __init__(
        self,
        config: Config,
        side: Side,
        keys: Keys,
        pace: Pace,
        *,
        take_event: Callable[[bytes, Socket], None],
        tell: Callable[[bool, str], None],
        before: Callable[[], Awaitable[None]],
    ) -> None:
        self.kept = KeptSocket(self, config, tell)
        self.requests = 0
        self._config, self._side, self._keys, self._pace = config, side, keys, pace
        self._url = checked_ws_url(config.ws_api_url, self.url_key) + _PATH
        self._take_event, self._before = take_event, before
        self._numbers = itertools.count(1)

    # For the connection

    async def url(self) -> str:
        """Where to connect."""
        return self._url

    async def greet(self, socket: Socket) -> None:
        """Subscribe to the user stream."""
        try:
            await self._before()
            await self._twice(socket, _SUBSCRIBE, {})
        except ProviderError as error:
            if keys_refused(error):
                raise RefusedKeys(
                    f"Binance refuses the api_key of [{PROVIDER}]: {error}; it has to "
                    "be one that may trade spot, from this address"
                ) from None
            raise

    def take(self, socket: Socket, raw: bytes) -> None:
        """An answer goes to who waits for it; all else is an event."""
        try:
            head = msgspec.json.decode(raw, type=_Head)
        except _UNDECODABLE:
            head = _Head()
        if head.status is None:
            self._take_event(raw, socket)
        elif head.id is not None:
            socket.answer(str(head.id), raw)
        elif head.status == _UNAUTHORIZED:
            log.warning("%s: the key is not valid any more", self.label)
            socket.renew.set()

    # Requests

    async def call(self, method: str, params: Texts, *, orders: int = 0) -> msgspec.Raw:
        """Have something done; its result.

        Raises Refusal (Partly if it has parts), OutcomeUnknown, BrokerDown.
        """
        socket = self.kept.current
        if socket is None:
            raise BrokerDown(f"not sent: {self.label} is not connected")
        return await self._twice(socket, method, params, orders)

    async def _twice(
        self, socket: Socket, method: str, params: Texts, orders: int = 0
    ) -> msgspec.Raw:
        try:
            return await self._once(socket, method, params, orders)
        except Refusal as error:
            if not error.of_clock:
                raise
        try:
            await self._side.sync_clock()
        except (ProviderError, DataThrottle) as error:
            raise BrokerDown(f"not sent: the time is not known: {error}") from None
        return await self._once(socket, method, params, orders)

    async def _once(
        self, socket: Socket, method: str, params: Texts, orders: int
    ) -> msgspec.Raw:
        taken = await self._pace.take(orders=orders)
        number = f"{next(self._numbers)}"
        now = stamp(self._side.clock, self._config.recv_window_ms)
        signed = self._keys.request({**params, **now})
        message = msgspec.json.encode(
            {"id": number, "method": method, "params": signed}
        )
        sent_at = trio.current_time()
        self.requests += 1
        try:
            raw = await socket.ask(number, message, self._config.rest_timeout_s)
        except NotConnected as error:
            raise BrokerDown(str(error)) from None
        except LostAnswer as error:
            raise outcome_unknown(f"{self.label}, {method}: {error}", None) from None
        try:
            answer = msgspec.json.decode(raw, type=_Answer)
        except _UNDECODABLE as error:
            raise outcome_unknown(f"{self.label}, {method}: {error}", raw) from None
        self._pace.adopt(answer.rateLimits, taken, self._config.rest_weight)
        return self._result(answer, raw, method, sent_at)

    def _result(
        self, answer: _Answer, raw: bytes, method: str, sent_at: float
    ) -> msgspec.Raw:
        if answer.status == 200 and answer.result is not msgspec.UNSET:
            return answer.result
        error = answer.error or _Error()
        if answer.status in (418, 429):
            self._pace.throttled(error.code, sent_at, _wait_s(error))
            raise Refusal(error.code, error.msg, raw)
        if answer.status == 200 or is_undecided(error.code, answer.status):
            text = f"{self.label}, {method}: {error.msg} (code {error.code})"
            raise outcome_unknown(text, raw)
        if error.data is not msgspec.UNSET:
            raise Partly(error.code, error.msg, error.data, raw)
        raise Refusal(error.code, error.msg, raw)


def _wait_s(error: _Error) -> float | None:
    """For how long not to call, as an error says."""
    if error.data is msgspec.UNSET:
        return None
    try:
        until = msgspec.json.decode(error.data, type=_Until)
    except _UNDECODABLE:
        return None
    if not until.retryAfter or not until.serverTime:
        return None
    return max(0.0, (until.retryAfter - until.serverTime) / 1000)
