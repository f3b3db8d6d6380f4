"""What fuzzing does with the order gateway: bytes at its socket, and orders' lives.

A life is a row of requests and of messages of a broker, in any order, doubled or late
or about orders that never were. Whatever comes, the gateway goes on, what it holds fits
together, each request has its answer, and each message leaves a trace: a change, or a
counter.
"""

import contextlib
import itertools
import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from piker_core.ems import gateway as gateways
from piker_core.ems import server
from piker_core.ems import turn as turns
from piker_core.ems.ledger import Ledger
from piker_core.ems.lifecycle import ENDS, Dialog
from piker_core.ems.link import UNREADABLE, Ask, decode_asked, decode_told
from piker_core.ems.risk import Risk, RiskConfig
from piker_core.ems.turn import Around, Prices, Turn
from piker_core.errors import NotFound
from piker_core.orders import (
    BrokerdError,
    BrokerdFill,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdOrderAck,
    BrokerdPosition,
    BrokerdStatus,
    Cancel,
    Order,
    Update,
)
from piker_core.symbols import Asset, MktPair

logging.getLogger("piker_core.ems").disabled = True  # it complains of what is wrong
FQME = "xbtusd.kraken"
MKT = MktPair(
    base=Asset("xbt"),
    quote=Asset("usd"),
    symbol="xbtusd",
    venue_symbol="XBT/USD",
    provider="kraken",
    price_tick=Decimal("0.1"),
    size_tick=Decimal("0.01"),
)
OIDS = ("a", "b", "c")
REQIDS: tuple[str | int, ...] = ("r0", "r1", "r2", "r3", "r4", "nobody", "", 7)
FILLS = ("f0", "f1", "f2", "f3", "")
SIZES = tuple(map(Decimal, ("0.25", "0.5", "1", "2", "0.01", "1e9")))
FILLED = (*SIZES, Decimal(0), Decimal(-1))
PRICES = tuple(map(Decimal, ("100", "99.9", "0.1", "1e9")))
STATES = ("pending", "open", "closed", "canceled")
MOST = 24
"""Steps of a life."""
EMPTY = RiskConfig()
LIMITED = RiskConfig(max_position=Decimal(3), max_open_orders=Decimal(2))


def find_market(fqme: str) -> MktPair:
    if fqme != FQME:
        raise NotFound(f"no market {fqme!r:.40}")
    return MKT


class Bench:
    """A gateway, and what must be true of it."""

    def __init__(self, limits: RiskConfig, mode: str) -> None:
        self.used: set[str] = set()
        self.kept: dict[str, bytes] = {}
        self.seq = 0
        self.triggered: set[str] = set()
        self.new: set[str] = set()
        numbers, now = itertools.count(), itertools.count(1)
        around = Around(
            find_market=find_market,
            prices=lambda _: Prices(99.9, 100.1, 100.0),
            is_used=self.used.__contains__,
            new_reqid=lambda: f"r{next(numbers)}",
            killed=lambda: "",
            now_ns=now.__next__,
            note=lambda _: "",
        )
        self.around, self.mode, self.limits = around, mode, limits
        self.ledger = Ledger("kraken", "kraken")
        self.gateway = self.made(())

    def made(self, dialogs: tuple[Dialog, ...]) -> gateways.Gateway:
        return gateways.Gateway(
            "kraken",
            "kraken",
            mode=self.mode,
            around=self.around,
            risk=Risk(self.limits),
            ledger=self.ledger,
            dialogs=dialogs,
            seq=self.seq,
        )

    def restart(self) -> None:
        """As after a kill: with what was stored."""
        decode = msgspec.msgpack.decode
        dialogs = [decode(raw, type=Dialog) for raw in self.kept.values()]
        living = tuple(dialog for dialog in dialogs if not dialog.ended)
        self.gateway = self.made(living)
        assert set(self.gateway.living) == {dialog.oid for dialog in living}

    def ask(self, request: Order | Update | Cancel) -> None:
        self.gateway.ask("s", request)
        turn = self.turn()
        assert turn.said or turn.dirty, "a request without any answer"

    def hear(self, message: BrokerdMessage) -> None:
        before = sum(self.gateway.counters.values())
        self.gateway.heard(message)
        turn = self.turn()
        counted = sum(self.gateway.counters.values()) > before
        assert counted or turn.dirty, "a message without a trace"

    def turn(self) -> Turn:
        """Take a turn, as a desk does, and look at it."""
        turn = self.gateway.take_turn()
        for said in turn.said:
            self.seq += 1
            assert said.status.seq == self.seq
            if said.status.resp == "triggered":
                assert said.status.oid not in self.triggered
                self.triggered.add(said.status.oid)
        for oid, dialog in turn.dirty.items():
            self.used.add(oid)
            self.kept[oid] = msgspec.msgpack.encode(dialog)
        for sent in turn.sends:
            if isinstance(sent, BrokerdOrder) and str(sent.reqid) not in self.new:
                self.new.add(str(sent.reqid))
                assert self.gateway.by_reqid[str(sent.reqid)].asked == "new"
        self.check()
        return turn

    def check(self) -> None:
        """What holds after anything."""
        gateway, working = self.gateway, {"buy": Decimal(0), "sell": Decimal(0)}
        assert len(gateway.by_reqid) == len(gateway.living)
        for oid, dialog in gateway.living.items():
            assert not dialog.ended and dialog.state not in ENDS
            assert dialog.oid == oid and gateway.by_reqid[dialog.reqid] is dialog
            assert not (dialog.kept_here and dialog.asked)
            assert dialog.asked or not dialog.unknown
            assert dialog.asked or dialog.ending or not dialog.waiting
            if dialog.order.action != "alert":
                working[dialog.order.action] += turns._most(dialog)
        for side, size in working.items():
            assert gateway._working.get((FQME, side), Decimal(0)) == size


# ---- lives ---------------------------------------------------------------------------


class Life:
    """Steps that a row of bytes chooses."""

    def __init__(self, choices: bytes) -> None:
        self.choices, self.place = choices, 0

    def pick(self, values: tuple[Any, ...]) -> Any:
        self.place += 1
        return values[self.choices[self.place - 1] % len(values)]

    def steps(self, bench: Bench) -> None:
        """Until the bytes are used up."""
        for _ in range(MOST):
            try:
                self.pick(STEPS)(self, bench)
            except IndexError:
                if self.place <= len(self.choices):
                    raise
                return

    def order(self, bench: Bench) -> None:
        stop, trail = self.pick(((None, None),) * 3 + ((1, None), (None, 1)))
        bench.ask(
            Order(
                oid=self.pick(OIDS),
                action=self.pick(("buy", "sell", "alert")),
                exec_mode=self.pick(("live", "live", "dark", "paper")),
                symbol=self.pick((FQME,) * 7 + ("other.kraken",)),
                account=self.pick(("kraken",) * 7 + ("other",)),
                price=self.pick(PRICES),
                size=self.pick(SIZES),
                stop=stop,
                trail=trail,
                oco=self.pick(("", "", "g")),
            )
        )

    def update(self, bench: Bench) -> None:
        price, size = self.pick((None, *PRICES)), self.pick((None, *SIZES))
        bench.ask(Update(oid=self.pick(OIDS), price=price, size=size))

    def cancel(self, bench: Bench) -> None:
        bench.ask(Cancel(oid=self.pick(OIDS)))

    def cancel_all(self, bench: Bench) -> None:
        bench.gateway.cancel_all(self.pick((None, "s", "t")))
        bench.turn()

    def ack(self, bench: Bench) -> None:
        reqid, oid = self.pick(REQIDS), self.pick(OIDS)
        bench.hear(BrokerdOrderAck(reqid=reqid, oid=oid, account="kraken"))

    def status(self, bench: Bench) -> None:
        bench.hear(
            BrokerdStatus(
                time_ns=1,
                reqid=self.pick(REQIDS),
                status=self.pick(STATES),
                filled=self.pick(FILLED),
                remaining=self.pick(FILLED),
            )
        )

    def fill(self, bench: Bench) -> None:
        bench.hear(
            BrokerdFill(
                time_ns=1,
                broker_time=self.pick((1, 2, 0, -1, 1 << 62)),
                reqid=self.pick(REQIDS),
                size=self.pick(FILLED),
                price=self.pick((*PRICES, Decimal(0))),
                action=self.pick(("buy", "sell")),
                fill_id=self.pick(FILLS),
                revision=self.pick((0, 0, 1, -1)),
                fee=self.pick((None, Decimal("0.1"))),
                symbol=self.pick((FQME, "", "other.kraken", "\0")),
            )
        )

    def error(self, bench: Bench) -> None:
        reqid = self.pick((*REQIDS, None))
        bench.hear(BrokerdError(reason="no", reqid=reqid, oid=self.pick(OIDS)))

    def position(self, bench: Bench) -> None:
        size = self.pick(FILLED)
        place = {"broker": "kraken", "account": "kraken", "symbol": FQME}
        bench.hear(BrokerdPosition(size=size, avg_price=Decimal(1), **place))

    def fired(self, bench: Bench) -> None:
        bench.gateway.fired(self.pick(OIDS), Decimal(100), 1)
        bench.turn()

    def found(self, bench: Bench) -> None:
        reqid, since_ns = str(self.pick(REQIDS)), self.pick((0, 1 << 62))
        bench.gateway.found(reqid, self.pick(PRICES), self.pick(SIZES), since_ns)
        bench.turn()

    def doubt(self, bench: Bench) -> None:
        bench.gateway.in_doubt(str(self.pick(REQIDS)))
        bench.turn()

    def lost(self, bench: Bench) -> None:
        reqid = str(self.pick(REQIDS))
        if self.pick((True, False)):
            bench.gateway.not_sent(reqid, "why")
        else:
            bench.gateway.not_known(reqid, "why", self.pick((0, 1 << 62)))
        bench.turn()

    def restart(self, bench: Bench) -> None:
        bench.restart()


STEPS: tuple[Callable[[Life, Bench], None], ...] = (
    *(Life.order, Life.order, Life.order, Life.update, Life.update, Life.cancel),
    *(Life.ack, Life.ack, Life.status, Life.status, Life.fill, Life.fill, Life.fill),
    *(Life.error, Life.fired, Life.found, Life.doubt, Life.lost, Life.restart),
    *(Life.cancel_all, Life.position),
)


# ---- the socket ----------------------------------------------------------------------


def try_line(raw: bytes) -> None:
    """What both ends of a line do with a message."""
    with contextlib.suppress(*UNREADABLE):
        decode_told(raw)
    try:
        message = decode_asked(raw)
    except UNREADABLE:
        number = server.number_of(raw)
        assert number is None or 0 < number < 1 << 63
        return
    if isinstance(message, Ask):
        bench = Bench(EMPTY, "live")
        known = {"symbol": FQME, "account": "kraken", "action": "buy"}
        for oid, exec_mode in (("a", "live"), ("b", "dark")):
            order = Order(
                oid=oid, exec_mode=exec_mode, price=Decimal(1), size=Decimal(1), **known
            )
            bench.ask(order)
        bench.ask(message.request)
        bench.restart()


def try_orders(raw: bytes) -> None:
    """A life, or bytes at the socket: the first byte says which."""
    kind = raw[:1]
    if kind >= b"\x80":
        try_line(raw[1:])
    elif kind:
        odd, paper = kind[0] & 1, kind[0] & 2
        bench = Bench(LIMITED if odd else EMPTY, "paper" if paper else "live")
        Life(raw[1:]).steps(bench)
