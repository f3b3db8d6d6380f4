"""Who trades in a check: orders by the provider's dialog, beside the venue's truth."""

import itertools
import time
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from functools import partial
from typing import Any, Literal, TypeVar

import msgspec
import trio

from piker_core.broker import BrokerLink, BrokerOrder
from piker_core.conformance.process import SubjectProcess, Told
from piker_core.conformance.report import Failed
from piker_core.conformance.resources import Resources
from piker_core.orders import (
    BrokerdCancel,
    BrokerdError,
    BrokerdFill,
    BrokerdOrder,
    BrokerdOrderAck,
    BrokerdPosition,
    BrokerdStatus,
)
from piker_core.simulation.private import PrivateOrder, PrivateSide
from piker_core.symbols import MktPair

Side = Literal["buy", "sell"]
Said = (
    BrokerdOrderAck
    | BrokerdStatus
    | BrokerdFill
    | BrokerdError
    | BrokerdPosition
    | BrokerLink
)
M = TypeVar("M", bound=Said)
FAR = Decimal("0.05")
"""How far from the market an order rests, as a part of its price."""
THROUGH = Decimal("0.01")
WITHIN_S = 20.0
_POLL_S = 0.05


class Trader:
    """One dialog with a simulated venue, and what it has said."""

    mkt: MktPair
    at_first: Resources

    def __init__(
        self, subject: SubjectProcess, private: PrivateSide, name: str
    ) -> None:
        self.subject, self.private = subject, private
        self.terms = private.terms
        self.symbol = f"{private.terms.symbol}.{name}"
        self.said: list[Said] = []
        self.is_open = self.has_account = False
        self._known = False
        self._begun_ns = time.time_ns() - 10**9
        self._numbers = itertools.count()

    # The dialog

    async def know(self) -> None:
        """Ask for the market, look at what the process holds, watch for keys; once."""
        if not self._known:
            secrets = list(self.private.secrets)
            await self.subject.ask("secrets_watch", secrets=secrets)
            market = await self.subject.ask("market", name=self.terms.symbol)
            self.mkt = msgspec.convert(market, MktPair, strict=False)
            self.at_first = await self.look()
            self._known = True

    async def look(self) -> Resources:
        """What the process holds now."""
        return msgspec.convert(await self.subject.ask("resources"), Resources)

    async def unseen(self) -> int:
        """How many lines were logged so far. Raises Failed if a key was seen."""
        found = await self.subject.ask("secrets_seen")
        if found["seen"]:
            raise Failed(f"a key was seen in {', '.join(dict.fromkeys(found['seen']))}")
        lines: int = found["lines"]
        return lines

    async def open(self) -> None:
        """Open the dialog unless it is open, and wait until it works."""
        if self.is_open:
            return
        await self.know()
        lacks = (await self.dial({}))["lacks"]
        if lacks:
            raise Failed(f"the dialog lacks {', '.join(lacks)}")
        self.said, self.is_open = [], True
        await self.until_link(up=True)

    async def dial(self, settings: dict[str, str]) -> Any:
        """Open a dialog with these settings; Told for what it raises."""
        return await self.subject.ask(
            "dialog_open",
            account=self.private.account,
            symbols=[self.symbol],
            settings=settings,
        )

    async def close(self) -> float:
        """Close it; the seconds that took."""
        self.is_open = False
        took_s: float = await self.subject.ask("dialog_close")
        return took_s

    # What it says

    async def read(self, within_s: float = 0.0) -> None:
        """Take in what was said; wait for something for so long."""
        rows = await self.subject.ask(
            "dialog_said", after=len(self.said), patience_s=within_s
        )
        self.said += msgspec.convert(rows, list[Said])

    async def until(self, look: Callable[[], object], failing: str) -> None:
        """Wait until what was said is enough. Raises Failed."""
        begun_s = trio.current_time()
        await self.read()
        while not look():
            if trio.current_time() - begun_s > WITHIN_S:
                said = ", ".join(_brief(message) for message in self.said[-6:])
                raise Failed(f"{failing}, for {WITHIN_S:g} s; last said: {said}")
            await self.read(_POLL_S)

    def of(self, kind: type[M], reqid: str = "") -> list[M]:
        """Messages of a kind, of one order if it is named."""
        return [
            message
            for message in self.said
            if isinstance(message, kind)
            and (not reqid or getattr(message, "reqid", "") == reqid)
        ]

    def is_up(self) -> bool:
        """Whether the connection was said to be there at last."""
        links = self.of(BrokerLink)
        return bool(links) and links[-1].up

    async def until_link(self, *, up: bool, since: int = 0) -> None:
        """Wait until the connection is said to be (or not to be) there."""
        state = "there" if up else "lost"
        await self.until(
            lambda: any(
                isinstance(message, BrokerLink) and message.up is up
                for message in self.said[since:]
            ),
            f"no BrokerLink says that the connection is {state}",
        )

    async def until_status(self, reqid: str, *states: str) -> BrokerdStatus:
        """Wait for a status of an order; the first one."""

        def found() -> list[BrokerdStatus]:
            rows = self.of(BrokerdStatus, reqid)
            return [row for row in rows if row.status in states]

        await self.until(
            found, f"order {reqid} is not told to be {' or '.join(states)}"
        )
        return found()[0]

    async def until_filled(self, reqid: str, size: Decimal) -> list[BrokerdFill]:
        """Wait for fills of so much; each once, by its id."""
        await self.until(
            lambda: filled_of(self.fills_of(reqid)) >= size,
            f"fills of order {reqid} do not add up to {size}",
        )
        return self.fills_of(reqid)

    def fills_of(self, reqid: str) -> list[BrokerdFill]:
        """What was told of fills, the newest word on each."""
        newest = {fill.fill_id: fill for fill in self.of(BrokerdFill, reqid)}
        return list(newest.values())

    # Orders: a connection that is not there yet is waited for

    def new_id(self) -> str:
        """A client order id that was not used before."""
        return f"k{time.time_ns() // 1_000_000_000:x}n{next(self._numbers)}"

    def price(self, side: Side, away: Decimal) -> Decimal:
        """So far through the market, as a part of the price; negative: behind it."""
        bid, ask = self.private.best()
        sign = 1 if side == "buy" else -1
        exact = (ask if side == "buy" else bid) * (1 + sign * away)
        tick = self.mkt.price_tick
        return (exact / tick).to_integral_value() * tick

    def make(
        self,
        side: Side,
        price: Decimal,
        *,
        size: Decimal | None = None,
        reqid: str = "",
    ) -> BrokerdOrder:
        """An order as the gateway sends it."""
        reqid = reqid or self.new_id()
        return BrokerdOrder(
            oid=f"oid-{reqid}",
            account=self.private.account,
            time_ns=time.time_ns(),
            symbol=self.symbol,
            price=price,
            size=self.terms.size if size is None else size,
            action=side,
            reqid=reqid,
        )

    async def submit(self, order: BrokerdOrder) -> None:
        """Submit an order or its change; Told for what is raised."""
        await self.subject.ask("dialog_submit", order=msgspec.to_builtins(order))

    async def place(
        self, side: Side, away: Decimal, size: Decimal | None = None
    ) -> BrokerdOrder:
        """Submit a new order that has to be taken."""
        order = self.make(side, self.price(side, away), size=size)
        await self._once_up(partial(self.submit, order))
        return order

    async def rest(self, side: Side = "buy", size: Decimal | None = None) -> str:
        """Place an order that rests, and wait until it is told to; its reqid."""
        order = await self.place(side, -FAR, size)
        reqid = str(order.reqid)
        await self.until_status(reqid, "open")
        return reqid

    async def change(self, reqid: str, price: Decimal, size: Decimal) -> None:
        """Change an order, and wait until that is acknowledged and true."""
        truth = self.truth(reqid)
        acks = len(self.of(BrokerdOrderAck, reqid))
        changed = self.make(truth.side, price, size=size, reqid=reqid)
        await self._once_up(partial(self.submit, changed))
        await self.until(
            lambda: len(self.of(BrokerdOrderAck, reqid)) > acks,
            f"the change of order {reqid} is not acknowledged",
        )
        truth = self.truth(reqid)
        if (truth.price, truth.size) != (price, size):
            raise Failed(
                f"order {reqid} was changed to {size} at {price}, and is {truth.size} "
                f"at {truth.price} at the venue"
            )

    async def cancel(self, reqid: str) -> None:
        """Cancel an order; Told for what is raised."""
        cancel = BrokerdCancel(
            oid=f"oid-{reqid}",
            time_ns=time.time_ns(),
            account=self.private.account,
            reqid=reqid,
            symbol=self.symbol,
        )
        await self.subject.ask("dialog_cancel", cancel=msgspec.to_builtins(cancel))

    async def end(self, *reqids: str) -> None:
        """Cancel orders, and wait until they are told to have ended."""
        for reqid in reqids:
            await self._once_up(partial(self.cancel, reqid))
        for reqid in reqids:
            await self.until_status(reqid, "canceled", "closed")

    async def _once_up(self, call: Callable[[], Awaitable[None]]) -> None:
        """Make a request; one that was not sent again, while the connection is away."""
        begun_s = trio.current_time()
        while True:
            try:
                return await call()
            except Told as error:
                late = trio.current_time() - begun_s > WITHIN_S
                if error.kind != "BrokerDown" or late:
                    raise
            await trio.sleep(_POLL_S)

    # What it knows

    async def call(self, method: str, *arguments: Any) -> Any:
        """What a method of the dialog gives; Told for what it raises."""
        return await self.subject.ask(
            "dialog_call", method=method, arguments=list(arguments)
        )

    async def order(self, reqid: str) -> BrokerOrder | None:
        """What it says of an order."""
        row = await self.call("order", reqid, self.symbol)
        return msgspec.convert(row, BrokerOrder | None)

    async def orders(self) -> dict[str, BrokerOrder]:
        """Open orders by their reqid."""
        rows = msgspec.convert(await self.call("orders"), list[BrokerOrder])
        return {row.reqid: row for row in rows}

    async def fills(self, since_ns: int = 0) -> list[BrokerdFill]:
        """Fills of the market; by default all since the check began."""
        since_ns = since_ns or self._begun_ns
        rows = await self.call("fills", since_ns, self.symbol)
        return msgspec.convert(rows, list[BrokerdFill])

    async def position(self) -> Decimal:
        """What it says the account holds of the market."""
        rows = msgspec.convert(await self.call("positions"), list[BrokerdPosition])
        sizes = [row.size for row in rows if row.symbol == self.symbol]
        return sizes[0] if sizes else Decimal(0)

    async def told_order(self, reqid: str) -> BrokerOrder | None:
        """What it says of an order, as soon as it can tell; Failed if it cannot."""
        begun_s = trio.current_time()
        while True:
            try:
                return await self.order(reqid)
            except Told as error:
                if not error.known or trio.current_time() - begun_s > WITHIN_S:
                    raise
            await trio.sleep(_POLL_S)

    def truth(self, reqid: str) -> PrivateOrder:
        """The order at the venue. Raises Failed if there is none."""
        order = self.private.order(reqid)
        if order is None:
            raise Failed(f"the venue has no order {reqid}")
        return order

    def part(self) -> Decimal:
        """A fourth of an order's size."""
        return self.terms.size / 4


def filled_of(fills: Iterable[Any]) -> Decimal:
    """The sum of the sizes of fills."""
    return sum((fill.size for fill in fills), Decimal(0))


def _brief(message: Said) -> str:
    kind = type(message).__name__.removeprefix("Brokerd")
    what = getattr(message, "status", getattr(message, "reason", ""))
    return f"{kind} {getattr(message, 'reqid', '')} {what}".strip()
