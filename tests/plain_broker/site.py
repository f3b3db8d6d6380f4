"""The broker at work: a TCP server that executes, reports, and has faults by chance."""

import math
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

import msgspec
import trio

from piker_core.broker import BrokerOrder
from piker_core.orders import BrokerdMessage
from tests.plain_broker.book import Book
from tests.plain_broker.words import Answer, Ask, decode_ask, encode

STEP = Decimal("0.001")
LINE = 1 << 20


class Manner(msgspec.Struct, frozen=True):
    """Chances of what may go wrong with a request, a report, a query; pauses.

    `unanswered`: it is done, and no answer comes; `dropped`: neither; `late`: it is
    done after up to `late_s`, without an answer; `refused`; `cut`: it is done and the
    line is cut. Of reports: `doubled`, `delayed` behind later ones. Of queries:
    `failing`. An order is filled, in parts, about each `pause_s`; those at a price
    below `rest` are not.
    """

    unanswered: float = 0.0
    dropped: float = 0.0
    late: float = 0.0
    late_s: float = 0.1
    refused: float = 0.0
    cut: float = 0.0
    doubled: float = 0.0
    delayed: float = 0.0
    failing: float = 0.0
    pause_s: float = 0.004
    rest: float = 100.0


ROUGH = Manner(
    unanswered=0.05,
    dropped=0.03,
    late=0.05,
    refused=0.03,
    cut=0.02,
    doubled=0.2,
    delayed=0.2,
    failing=0.1,
)


class Line:
    """A dialog's connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.outbox, self.waiting = trio.open_memory_channel[Answer](math.inf)
        self.scope = trio.CancelScope()

    async def say(self) -> None:
        async for answer in self.waiting:
            await self.stream.send_all(encode(answer) + b"\n")


class Site:
    """Serves one account."""

    def __init__(self, book: Book, manner: Manner, seed: int) -> None:
        self.book, self.manner = book, manner
        self.random = random.Random(seed)
        self.lines: list[Line] = []
        self.nursery: trio.Nursery

    async def run(self, sock: socket.socket) -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        async with trio.open_nursery() as self.nursery:
            self.nursery.start_soon(self._trade)
            await trio.serve_listeners(self._serve, [listener])

    # Lines

    async def _serve(self, stream: trio.SocketStream) -> None:
        line = Line(stream)
        self.lines.append(line)
        received = b""
        try:
            with line.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(line.say)
                    while chunk := await stream.receive_some(1 << 16):
                        *lines, received = (received + chunk).split(b"\n")
                        for raw in lines:
                            self.nursery.start_soon(self._do, line, decode_ask(raw))
                    nursery.cancel_scope.cancel()
        except* (OSError, trio.BrokenResourceError):
            pass  # the other end was killed
        finally:
            self.lines.remove(line)
            await trio.aclose_forcefully(stream)

    def tell(self, reports: list[BrokerdMessage]) -> None:
        """Say to all that listen what has happened, as well as it goes."""
        for report in reports:
            self._report(report)
            if self._is("doubled"):
                self.nursery.start_soon(self._report_later, report)

    def _report(self, report: BrokerdMessage) -> None:
        if self._is("delayed"):
            self.nursery.start_soon(self._report_later, report)
        else:
            self._say(Answer(0, report=report))

    async def _report_later(self, report: BrokerdMessage) -> None:
        await trio.sleep(self.random.uniform(0, 0.02))
        self._say(Answer(0, report=report))

    def _say(self, answer: Answer) -> None:
        for line in self.lines:
            line.outbox.send_nowait(answer)

    def _is(self, what: str) -> bool:
        return self.random.random() < getattr(self.manner, what)

    # Requests

    async def _do(self, line: Line, ask: Ask) -> None:
        if ask.order is None and ask.cancel is None:
            line.outbox.send_nowait(self._answer(ask))
            return
        if self._is("dropped"):
            return
        answered = True
        if self._is("late"):
            await trio.sleep(self.random.uniform(0, self.manner.late_s))
            answered = False
        reqid = str(ask.order.reqid if ask.order else ask.cancel and ask.cancel.reqid)
        if self._is("refused"):
            self.tell(self.book.refuse(reqid, "too many orders"))
        elif ask.order is not None:
            self.tell(self.book.submit(ask.order))
        elif ask.cancel is not None:
            self.tell(self.book.cancel(ask.cancel))
        if self._is("cut"):
            line.scope.cancel()
        elif answered and not self._is("unanswered"):
            line.outbox.send_nowait(Answer(ask.id))

    def _answer(self, ask: Ask) -> Answer:
        book = self.book
        if ask.do == "truth":
            return Answer(ask.id, truth=book.truth())
        if ask.do == "calm":
            self.manner = msgspec.convert(ask.manner, Manner)
            return Answer(ask.id)
        if ask.do == "cut":
            for line in self.lines:
                line.scope.cancel()
            return Answer(ask.id)
        if ask.do == "trade":
            self.tell(book.fill(ask.reqid, Decimal(str(ask.manner["size"]))))
            return Answer(ask.id)
        if self._is("failing"):
            return Answer(ask.id, refused="EService:Busy")
        if ask.do == "order":
            held = book.held.get(ask.reqid)
            return Answer(ask.id, order=held.order if held else None)
        if ask.do == "fills":
            fills = [f for f in book.fills if f.broker_time >= ask.since_ns]
            return Answer(ask.id, fills=fills)
        if ask.do == "positions":
            return Answer(ask.id, positions=book.positions())
        if ask.do == "cancel_all":
            self._cancel_all()
        return Answer(ask.id, orders=book.open_orders())

    def _cancel_all(self) -> None:
        for order in self.book.open_orders():
            self.tell([self.book.end(order.reqid, "canceled")])

    # The market

    async def _trade(self) -> None:
        """Fill orders, a part at a time."""
        while True:
            await trio.sleep(self.random.expovariate(1 / self.manner.pause_s))
            open_ones = [
                order
                for order in self.book.open_orders()
                if order.price >= self.manner.rest
            ]
            if open_ones:
                order = self.random.choice(open_ones)
                self.tell(self.book.fill(order.reqid, self._part(order)))

    def _part(self, order: BrokerOrder) -> Decimal:
        left = order.size - order.filled
        part = left * self.random.choice((1, 2, 4)) / 4
        return max(part.quantize(STEP), STEP)


@contextmanager
def open_site(book: Book, manner: Manner, seed: int) -> Iterator[int]:
    """A broker in a process of its own; its port."""
    sock = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if not child:
        status = 1
        try:
            sock.setblocking(False)
            trio.run(Site(book, manner, seed).run, sock)
            status = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(status)
    port = int(sock.getsockname()[1])
    sock.close()
    try:
        yield port
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


class Control:
    """Asks a broker what is true, and tells it how to be. Blocks."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._file = self._sock.makefile("rb")

    def ask(self, ask: Ask) -> Answer:
        self._sock.sendall(encode(ask) + b"\n")
        while True:
            answer = msgspec.json.decode(self._file.readline(), type=Answer)
            if answer.id == ask.id:
                return answer

    def close(self) -> None:
        self._file.close()
        self._sock.close()
