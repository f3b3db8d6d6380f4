"""The private WebSocket v2 side of a simulated Kraken: sessions, reports, requests.

Rules this file owns:

1. A token is used within its time, and then lasts as long as the connection that used
   it; every request has one.
2. Each subscription numbers its messages from 1; a client that is to miss one sees the
   jump.
"""

import secrets
from collections.abc import Callable
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import trio
from websockets.frames import CloseCode
from websockets.http11 import Request

from piker_core.simulation.limits import AttemptLimit
from piker_core.simulation.line import Line
from piker_core.simulation.link import Link as CommonLink
from piker_core.simulation.link import Refusal, Tally
from piker_core.simulation.matching import OrderEvent
from piker_core.simulation.sockets import SocketServer as CommonServer

from .venue_auth_requests import AuthDesk
from .venue_faults import Faults
from .venue_frames import HEARTBEAT, encode_json, status_frame
from .venue_link import HEARTBEAT_S, Limits
from .venue_orders import Orders
from .venue_pairs import PairExchange
from .venue_reports import Row, balance_row, ledger_rows, rows_of, snapshot_row

PATH = "/v2"
_BEAT_S = 0.05


class Tokens:
    """Tokens of private sessions, and until when they must be used."""

    def __init__(self, seconds: float) -> None:
        self.made = 0
        self._seconds = seconds
        self._valid: dict[str, float] = {}

    def make(self) -> str:
        """A fresh one."""
        self.made += 1
        token = secrets.token_urlsafe(32)
        self._valid[token] = trio.current_time() + self._seconds
        return token

    def valid(self, token: str) -> bool:
        """Whether a session may begin with it."""
        return self._valid.get(token, -1.0) > trio.current_time()

    def forget(self) -> int:
        """Make all invalid; returns how many."""
        count = len(self._valid)
        self._valid.clear()
        return count


class AuthLink(CommonLink):
    """One private connection: its token, its subscriptions and their numbers."""

    def __init__(
        self,
        line: Line,
        number: int,
        hear: Callable[["AuthLink", bytes], None],
        *,
        tally: Tally,
        limits: Limits,
    ) -> None:
        super().__init__(line, tally=tally, outbox_bytes=limits.outbox_bytes)
        self.number = number
        self.token = ""
        self.sequences: dict[str, int] = {}
        self.counts_told = False
        self.held: list[bytes] = []
        self._hear, self._idle_s = hear, limits.idle_s
        self._spoke_s = trio.current_time()

    def hear(self, text: bytes) -> None:
        """Answer a request."""
        self._hear(self, text)

    def say(self, channel: str, kind: str, rows: list[Row], faults: Any) -> None:
        """Send a message of a channel, numbered; faults may strike it."""
        if channel not in self.sequences:
            return
        self.sequences[channel] += 1
        frame = encode_json(
            {
                "channel": channel,
                "type": kind,
                "data": rows,
                "sequence": self.sequences[channel],
            }
        )
        self._spoke_s = trio.current_time()
        if kind == "snapshot":
            self.reply(frame)
            return
        if faults.take_loss():
            return
        frames = [frame, frame] if faults.hit("double_reports") else [frame]
        if self.held:
            frames += self.held
            self.held = []
        elif faults.hit("swap_reports"):
            self.held = frames
            return
        for each in frames:
            self.reply(each)

    def beat(self, now_s: float) -> bool:
        """Send a heartbeat if one is due; whether the client was idle for too long."""
        if self.sequences:
            if now_s >= self._spoke_s + HEARTBEAT_S:
                self._spoke_s = now_s
                for frame in [HEARTBEAT, *self.held]:
                    self.reply(frame)
                self.held = []
            return False
        return now_s >= self.line.heard_s + self._idle_s and not self.line.frozen


class AuthServer(CommonServer[AuthLink]):
    """All private clients of a venue, and what they are told of their orders."""

    def __init__(
        self,
        exchange: PairExchange,
        orders: Orders,
        faults: Faults,
        *,
        limits: Limits,
    ) -> None:
        super().__init__(faults, AttemptLimit(limits.attempts, limits.attempts_s))
        self.tokens = Tokens(orders.account.token_s)
        self._exchange, self._orders, self._limits = exchange, orders, limits
        self._desk = AuthDesk(orders, self)
        self._numbers = 0
        orders.reports = self.tell
        exchange.listeners.append(self)

    # Connections

    def make_link(self, line: Line) -> AuthLink:
        """The connection on a line."""
        self._numbers += 1
        number = 1 << 63 | self._numbers
        return AuthLink(
            line, number, self._desk.answer, tally=self.tally, limits=self._limits
        )

    def check(self, link: AuthLink, request: Request) -> Refusal | None:
        """Turn a handshake down if the path is wrong."""
        if request.path.partition("?")[0] != PATH:
            return HTTPStatus.NOT_FOUND, "Not Found\n"
        return None

    def opened(self, link: AuthLink) -> None:
        """Greet a client."""
        link.reply(status_frame(self._exchange.system, link.number))

    def ended(self, link: AuthLink) -> None:
        """A client is gone: nothing is kept for it."""

    async def beat(self) -> None:
        """Send heartbeats, end what is idle, look at the dead-man's switch."""
        while True:
            now_s = trio.current_time()
            self._orders.look()
            for link in self.links:
                if link.beat(now_s):
                    link.close(CloseCode.NORMAL_CLOSURE)
            await trio.sleep(_BEAT_S)

    def later(self, link: AuthLink, frame: bytes, seconds: float) -> None:
        """Send an answer after a while."""

        async def send() -> None:
            await trio.sleep(seconds)
            link.reply(frame)

        self._nursery.start_soon(send)

    # Sessions

    def admit(self, link: AuthLink, token: str) -> bool:
        """Whether a request with this token may be answered."""
        if token and (token == link.token or self.tokens.valid(token)):
            link.token = token
            return True
        return False

    def forget_tokens(self) -> int:
        """Make every token invalid, those in use as well."""
        for link in self.links:
            link.token = ""
        return self.tokens.forget()

    # What is told

    def snapshot(self, link: AuthLink, channel: str) -> None:
        """Send what is, to begin a subscription."""
        matching = self._orders.matching
        if channel == "executions":
            rows = [
                snapshot_row(order, self._orders.market(order.symbol).pair)
                for order in matching.open_orders()
            ]
        else:
            rows = [
                balance_row(asset, balance)
                for asset, balance in sorted(matching.balances.items())
            ]
        link.say(channel, "snapshot", rows, self._orders.faults)

    def tell(self, events: list[OrderEvent]) -> None:
        """Tell every client of what happened to orders and balances."""
        for event in events:
            pair = self._orders.market(event.order.symbol).pair
            for row in rows_of(event, pair):
                self._tell_row(row, event.order.symbol)
            if event.kind == "fill":
                balances: dict[str, Decimal] = self._orders.matching.balances
                rows = ledger_rows(event, pair, balances)
                for link in self.links:
                    for row in rows:
                        link.say("balances", "update", [row], self._orders.faults)

    def _tell_row(self, row: Row, symbol: str) -> None:
        count = round(self._orders.counter.count(symbol), 2)
        for link in self.links:
            told = row | {"ratecount": count} if link.counts_told else row
            link.say("executions", "update", [told], self._orders.faults)

    # What the exchange tells

    def on_trades(self, market: object, bursts: object) -> None:
        """Trades are told by the public side."""

    def on_quote(self, market: object) -> None:
        """So are quotes."""

    def on_system(self, system: str) -> None:
        """Send the new state to everybody."""
        for link in self.links:
            link.reply(status_frame(system, link.number))
