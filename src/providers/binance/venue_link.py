"""One WebSocket client of a simulated Binance."""

import math
from collections import defaultdict
from typing import Protocol

import msgspec
import trio
from websockets.frames import CloseCode, Opcode

from piker_core.simulation.limits import SlidingLimit
from piker_core.simulation.line import Line
from piker_core.simulation.link import Link as CommonLink
from piker_core.simulation.link import Tally

from .venue_account import Event
from .venue_requests import Desk
from .venue_streams import PUBLIC
from .venue_symbols import MS
from .venue_ws_api import ApiDesk


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one side; the defaults are those of spot, `USDM` has the other's.

    `streams` and `messages` a second (pings and pongs count) of one connection.
    `attempts` in `attempts_s`: connection attempts before a ban of that length. A ping
    every `ping_s` must be answered within `pong_s`; a connection lives `life_s`.
    `outbox_bytes`: what may wait to be sent to a client before it is dropped. `weight`
    in `weight_window_s` is what REST calls may cost; whoever goes on after `patience`
    refusals is banned for `ban_s`, next time for twice that. `orders` in 10 s are what
    an account may send.
    """

    streams: int = 1024
    messages: int = 5
    attempts: int = 300
    attempts_s: float = 300.0
    ping_s: float = 20.0
    pong_s: float = 60.0
    life_s: float = 86_400.0
    outbox_bytes: int = 8 << 20
    weight: int = 6000
    weight_window_s: float = 60.0
    patience: int = 20
    ban_s: float = 120.0
    orders: int = 100


USDM = Limits(messages=10, ping_s=180.0, pong_s=600.0, weight=2400, orders=300)


class Hub(Protocol):
    """What a link needs of the server it belongs to."""

    limits: Limits
    tally: Tally
    desk: Desk
    api: ApiDesk

    def join(self, link: "Link", name: str) -> None:
        """Have a stream sent to a client."""

    def leave(self, link: "Link", name: str) -> None:
        """End that."""


class Pings:
    """Pings that are not answered yet, oldest first; times are in s."""

    def __init__(self) -> None:
        self._sent: dict[bytes, float] = {}

    def send(self, payload: bytes, now_s: float) -> None:
        """Take note of one that is sent."""
        self._sent[payload] = now_s

    def answer(self, payload: bytes) -> None:
        """A pong came: its ping is answered, and those before it, but none after."""
        if payload in self._sent:
            sent = list(self._sent)
            for old in sent[: sent.index(payload) + 1]:
                del self._sent[old]

    def oldest_s(self) -> float:
        """When the oldest was sent; for ever in the future if there is none."""
        return next(iter(self._sent.values()), math.inf)


class Link(CommonLink):
    """One client's connection: its streams, in the order of their subscription.

    `combined` wraps events, `unit` is what their times are counted in, in ns; `route`
    is the path of USD-M it came by. `api`: it is one of the WebSocket API, and is told
    limits if `limits_told`; `user`: it hears of the account alone.
    """

    def __init__(self, line: Line, hub: Hub) -> None:
        super().__init__(line, tally=hub.tally, outbox_bytes=hub.limits.outbox_bytes)
        self.streams: dict[str, None] = {}
        self.combined = False
        self.unit = MS
        self.route = PUBLIC
        self.api = self.user = False
        self.limits_told = True
        self.held: defaultdict[str, list[bytes]] = defaultdict(list)
        self._hub = hub
        self._opened_s = self._pinged_s = trio.current_time()
        self._messages = SlidingLimit(hub.limits.messages, 1.0)
        self._pings = Pings()

    @property
    def form(self) -> tuple[bool, int]:
        """What an event's text depends on besides the event."""
        return self.combined, self.unit

    def report(self, event: Event) -> None:
        """Tell of something that happened to the account of USD-M."""
        self.reply(msgspec.json.encode(event(MS)))

    def subscribe(self, name: str) -> None:
        """Begin to send a stream."""
        self.streams[name] = None
        self._hub.join(self, name)

    def unsubscribe(self, name: str) -> None:
        """End it."""
        self.streams.pop(name, None)
        self._hub.leave(self, name)

    def hear(self, text: bytes) -> None:
        """Answer a request."""
        if self.api:
            self._hub.api.answer(self, text)
        elif self._in_rate():
            self._hub.desk.answer(self, text)

    def hear_control(self, opcode: Opcode, payload: bytes) -> None:
        """Take note of pongs; only those that answer a ping keep the connection."""
        if self._in_rate() and opcode is Opcode.PONG:
            self._pings.answer(payload)

    def _in_rate(self) -> bool:
        """Whether a message is let through; the one too many ends the connection."""
        if self._messages.take(trio.current_time()):
            return True
        self.close(CloseCode.POLICY_VIOLATION, "Too many requests")
        return False

    def beat(self, now_s: float, now_ns: int) -> None:
        """Ping if it is time; end what is too old or does not answer."""
        limits = self._hub.limits
        if now_s >= self._opened_s + limits.life_s:
            self.close(CloseCode.GOING_AWAY)
        elif now_s >= self._pings.oldest_s() + limits.pong_s:
            self.close(CloseCode.POLICY_VIOLATION, "Pong timeout")
        elif now_s >= self._pinged_s + limits.ping_s:
            self._pinged_s = now_s
            payload = str(now_ns // MS).encode()
            self._pings.send(payload, now_s)
            self.ping(payload)
