"""The server side of a simulated gateway: its port, its clients, its clock."""

import socket
from collections.abc import Sequence
from functools import partial
from typing import cast

import trio

from piker_core.simulation.line import Gate, Line
from piker_core.simulation.market import NS

from .venue_bars import REAL_TIME_S
from .venue_directory import Directory
from .venue_faults import Faults, malformed_frame
from .venue_history import History
from .venue_link import Limits, Link
from .venue_live import COMPETING, Live
from .venue_market import ContractExchange, ContractMarket
from .venue_orders import Orders
from .venue_pacing import HistoryLimits
from .venue_requests import Desk
from .venue_status import (
    HISTORY_BROKEN,
    LOST,
    RESTORED,
    RESTORED_LOST,
    Status,
    notice_frame,
)
from .venue_tape import Tape

_LEAST_SLEEP_S = 0.001


class GatewayServer:
    """All clients of a gateway, and what they are told."""

    def __init__(
        self,
        markets: Sequence[ContractMarket],
        *,
        seed: int,
        version: int,
        accounts: Sequence[str],
        limits: Limits,
        history_limits: HistoryLimits,
        tape: Tape,
    ) -> None:
        self.version = version
        self.limits = limits
        self.links: set[Link] = set()
        self.accepted = self.refused = self.dropped = self.sent = 0
        self.worst_rate = self.rate_refused = 0
        self._markets = markets
        self.exchange = exchange = ContractExchange(markets)
        self.faults = faults = Faults(self, seed)
        self._tape = tape
        self._status = status = Status()
        directory = Directory(markets)
        self.live = Live(
            directory, exchange, faults, status, tape=tape, lines=limits.lines
        )
        self.history = History(
            directory, exchange, faults, status, limits=history_limits, tape=tape
        )
        self.orders = Orders(exchange, directory, lambda: self.links, accounts)
        self.desk = Desk(
            self, directory, exchange, status, live=self.live, history=self.history,
            orders=self.orders, tape=tape,
        )  # fmt: skip
        self._nursery: trio.Nursery
        self._door = trio.CancelScope()
        self._away_s = 0.0
        exchange.listeners.append(self.live)

    # The port

    async def run(
        self,
        host: str,
        port: int,
        task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; starts with the address."""
        listener, *others = await trio.open_tcp_listeners(port, host=host)
        for other in others:
            await other.aclose()
        address = listener.socket.getsockname()
        async with trio.open_nursery() as nursery:
            self._nursery = self.history.nursery = self.orders.nursery = nursery
            if self._tape.sample_s:
                nursery.start_soon(self._sample)
            nursery.start_soon(self._tick_seconds)
            task_status.started(address[:2])
            while True:
                await self._open_door(listener)
                listener = await self._reopen(listener.socket.family, address)

    async def _open_door(self, listener: trio.SocketListener) -> None:
        """Accept clients until the door is closed."""
        with trio.CancelScope() as self._door:
            gate = Gate(listener, self._admit)
            await trio.serve_listeners(
                self._serve_client, [gate], handler_nursery=self._nursery
            )

    async def _reopen(
        self, family: int, address: tuple[str, int]
    ) -> trio.SocketListener:
        """Listen again where it was, after a while in which nobody can connect.

        A bound socket that does not listen refuses connections and keeps the port.
        """
        reserved = trio.socket.socket(family, socket.SOCK_STREAM)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await reserved.bind(address)
        try:
            await trio.sleep(self._away_s)
        except BaseException:
            reserved.close()
            raise
        reserved.listen()
        return trio.SocketListener(reserved)

    def _admit(self, line: Line) -> bool:
        if self.faults.refusing or len(self.links) >= self.limits.clients:
            self.refused += 1
            line.reset()
        elif self.faults.frozen:
            self._nursery.start_soon(line.swallow)
        else:
            return True
        return False

    async def _serve_client(self, line: Line) -> None:
        link = Link(line, self)
        self.links.add(link)
        self.accepted += 1
        try:
            await link.run(partial(self.desk.answer, link))
        finally:
            self.links.discard(link)
            self.desk.forget(link)

    # What links and the desk ask

    def bytewise(self) -> bool:
        """Whether every byte is to be sent by itself."""
        return self.faults.bytewise

    def note_rate(self, messages: int, refused: bool) -> None:
        """A client has sent so many messages within a second."""
        self.worst_rate = max(self.worst_rate, messages)
        self.rate_refused += refused

    def claim(self, link: Link, client_id: int) -> bool:
        """Give a client its id; whether it was free."""
        there = (other.client_id for other in self.links if not other.over)
        if client_id in there:
            return False
        link.client_id = client_id
        return True

    # The clock

    async def _sample(self) -> None:
        while True:
            await trio.sleep(self._tape.sample_s)
            self.live.sample(self.exchange.advance())

    async def _tick_seconds(self) -> None:
        """Send the bars of time that runs: on each second, and each fifth."""
        second = self.exchange.advance() // NS
        while True:
            now_ns = self.exchange.advance()
            if now_ns // NS > second:
                if self._status.has("history"):
                    self.history.update(now_ns)
                for end_s in range(second + 1, now_ns // NS + 1):
                    if end_s % REAL_TIME_S == 0:
                        self.live.send_five(end_s)
                second = now_ns // NS
            await trio.sleep(max(second + 1 - now_ns / NS, _LEAST_SLEEP_S))

    # What the faults need (FaultSite)

    def cut_connections(self) -> int:
        """Reset every connection; returns how many."""
        links = tuple(self.links)
        for link in links:
            link.reset()
        return len(links)

    def close_connections(self) -> int:
        """Close every connection in order; returns how many."""
        links = tuple(self.links)
        for link in links:
            link.end()
        return len(links)

    def freeze_connections(self) -> int:
        """Make every connection silent and deaf; returns how many."""
        fresh = [link for link in self.links if not link.line.frozen]
        for link in fresh:
            link.line.frozen = True
        return len(fresh)

    def broadcast_malformed(self, broken: str | bytes) -> int:
        """Send a broken frame to every connection; returns to how many."""
        for link in self.links:
            ids = [number for each, number in self.live.sampled if each is link]
            raw = broken
            if isinstance(broken, str):
                raw = malformed_frame(broken, ids[0] if ids else 1)
            link.send(cast(bytes, raw))
        return len(self.links)

    def notify(self, code: int) -> None:
        """Tell every client a system code, and let it come true."""
        self._status.change(code)
        if code in (HISTORY_BROKEN, RESTORED_LOST):
            self.history.end_updates()
        if code == RESTORED_LOST:
            self.live.lose_all()
        for link in self.links:
            if link.client_id is not None:
                link.send(notice_frame(link.version, code))

    def begin_outage(self, seconds: float, lost: bool) -> None:
        """Be without connection for so long."""
        self.notify(LOST)
        self._nursery.start_soon(self._end_outage, seconds, lost)

    async def _end_outage(self, seconds: float, lost: bool) -> None:
        await trio.sleep(seconds)
        self.notify(RESTORED_LOST if lost else RESTORED)

    def begin_restart(self, seconds: float) -> None:
        """Be away for so long."""
        self._away_s = seconds
        self.close_connections()
        self._door.cancel()

    def begin_competition(self) -> None:
        """End all market data: it goes to another session."""
        self.live.lose_all(10197, COMPETING)

    def reset_volume(self) -> None:
        """Begin the day's volume of every contract at 0."""
        now_ns = self.exchange.advance()
        for market in self._markets:
            market.reset_day(now_ns)
