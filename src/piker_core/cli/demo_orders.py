"""Paper orders of `piker-core demo`: placed, changed, filled, canceled, triggered."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal

import msgspec
import trio

from piker_core.ems.client import OrderClient
from piker_core.ems.opening import open_ems
from piker_core.feed import Flume
from piker_core.orders import BrokerdFill, BrokerdPosition, ExecMode, Order, Status

WAIT_S = 12.0
"""How long an order may take to be what it is expected to be."""
PATIENCE_S = 1.5
"""How long a triggered order may wait for the market, before it goes there."""
SIZE = Decimal("0.01")
_FAR = Decimal("0.05")
_THROUGH = Decimal("0.01")
ENDS = {
    "taken": "closed",
    "canceled": "canceled",
    "changed": "closed",
    "dark-above": "",
    "dark-below": "",
}
"""By order, its last word. Of the dark ones one triggers, the other is canceled."""
Side = Literal["buy", "sell"]
Say = Callable[[Status], None]


class Outcome(msgspec.Struct, frozen=True):
    """What became of an order: the words that were said of it, what is filled."""

    oid: str
    side: str
    size: Decimal
    price: Decimal
    said: list[str]
    filled: Decimal
    expected: bool


class PaperOrders:
    """Five paper orders of one market, and what was said of them.

    `say` is told each status as it comes.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._orders: dict[str, Order] = {}
        self._statuses: dict[str, list[Status]] = {}
        self._position = Decimal(0)
        self._client: OrderClient
        self._more = trio.Event()

    async def run(self, flume: Flume, namespace: str) -> None:
        """Send the orders one after another, and wait for what becomes of them."""
        symbol = flume.market.fqme
        async with open_ems(symbol, namespace=namespace, client="demo") as opened:
            self._client, stream = opened[0], opened[1]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, stream)
                await self._take(flume)
                await self._cancel(flume)
                await self._change(flume)
                await self._trigger(flume)
                nursery.cancel_scope.cancel()

    async def _listen(self, stream: Any) -> None:
        async for message in stream:
            if isinstance(message, BrokerdPosition):
                self._position = message.size
            else:
                self._statuses.setdefault(message.oid, []).append(message)
                self._say(message)
            self._more.set()
            self._more = trio.Event()

    async def _until(self, look: Callable[[], object]) -> None:
        """Wait until something holds, or for so long: the verdict is in the end."""
        with trio.move_on_after(WAIT_S):
            while not look():
                await self._more.wait()

    # The orders

    async def _take(self, flume: Flume) -> None:
        await self._send("taken", "buy", _away(flume, _THROUGH))
        await self._until(lambda: self._is("taken", "closed"))

    async def _cancel(self, flume: Flume) -> None:
        price = _away(flume, -_FAR)
        await self._send("canceled", "buy", price)
        await self._until(lambda: self._is("canceled", "open"))
        await self._client.update("canceled", price=price - flume.market.price_tick)
        await self._until(lambda: self._said("canceled").count("open") == 2)
        await self._client.cancel("canceled")
        await self._until(lambda: self._is("canceled", "canceled"))

    async def _change(self, flume: Flume) -> None:
        await self._send("changed", "buy", _away(flume, -_FAR))
        await self._until(lambda: self._is("changed", "open"))
        await self._client.update("changed", price=_away(flume, _THROUGH))
        await self._until(lambda: self._is("changed", "closed"))

    async def _trigger(self, flume: Flume) -> None:
        """A dark order on either side of the last price: the market reaches one."""
        await flume.rt.changed(after=flume.rt.head)  # trades of now are known
        last, tick = _away(flume, Decimal(0)), flume.market.price_tick
        pair = {"dark-above": last + 2 * tick, "dark-below": last - 2 * tick}
        for oid, price in pair.items():
            await self._send(oid, "sell", price, exec_mode="dark", oco="dark")
        await self._until(lambda: any(self._is(oid, "triggered") for oid in pair))
        with trio.move_on_after(PATIENCE_S):
            await self._until(lambda: all(self._end(oid) for oid in pair))
        for oid in pair:
            if self._is(oid, "triggered") and not self._end(oid):
                await self._client.update(oid, price=_away(flume, -_THROUGH))
        await self._until(lambda: all(self._end(oid) for oid in pair))

    async def _send(
        self,
        oid: str,
        side: Side,
        price: Decimal,
        *,
        exec_mode: ExecMode = "paper",
        oco: str = "",
    ) -> None:
        order = Order(
            action=side,
            exec_mode=exec_mode,
            oid=oid,
            symbol=self._client.symbols[0],
            account="paper",
            price=price,
            size=SIZE,
            oco=oco,
        )
        self._orders[oid] = order
        await self._client.send(order)

    # What was said

    def _said(self, oid: str) -> list[str]:
        return [status.resp for status in self._statuses.get(oid, [])]

    def _is(self, oid: str, resp: str) -> bool:
        return resp in self._said(oid)

    def _end(self, oid: str) -> str:
        """The word with which it ended; an error after that is about a request."""
        ends = (word for word in self._said(oid) if word in ("closed", "canceled"))
        return next(ends, "")

    def _filled(self, oid: str) -> Decimal:
        messages = [status.brokerd_msg for status in self._statuses.get(oid, [])]
        fills = (each.size for each in messages if isinstance(each, BrokerdFill))
        return sum(fills, Decimal(0))

    # The verdict

    def outcomes(self) -> list[Outcome]:
        """What became of each order, and whether that was to be."""
        triggered = [oid for oid in ENDS if self._is(oid, "triggered")]
        held = sum(
            (
                self._filled(oid) * (1 if order.action == "buy" else -1)
                for oid, order in self._orders.items()
            ),
            Decimal(0),
        )
        whole = held == self._position
        return [
            Outcome(
                oid=oid,
                side=order.action,
                size=order.size,
                price=order.price,
                said=self._said(oid),
                filled=self._filled(oid),
                expected=whole and self._as_expected(oid, triggered),
            )
            for oid, order in self._orders.items()
        ]

    def _as_expected(self, oid: str, triggered: list[str]) -> bool:
        end = ENDS[oid] or ("closed" if oid in triggered else "canceled")
        size = SIZE if end == "closed" else Decimal(0)
        one = bool(ENDS[oid]) or len(triggered) == 1
        return one and self._end(oid) == end and self._filled(oid) == size


def _away(flume: Flume, part: Decimal) -> Decimal:
    """A price so far above the last one, as a part of it, in whole steps."""
    exact = Decimal(repr(flume.rt.last_price)) * (1 + part)
    tick = flume.market.price_tick
    return (exact / tick).to_integral_value() * tick


def verdict_text(outcomes: list[Outcome]) -> str:
    """How many were as expected."""
    good = sum(outcome.expected for outcome in outcomes)
    return f"{good} of {len(ENDS)} paper orders as expected"


def are_good(outcomes: list[Outcome]) -> bool:
    """Whether all were sent, and all were as expected."""
    return len(outcomes) == len(ENDS) and all(o.expected for o in outcomes)


def outcome_text(outcome: Outcome) -> str:
    """An order in one line."""
    words = ", ".join(outcome.said) or "nothing was said"
    return (
        f"{outcome.oid:10}  {outcome.side:4} {outcome.size} at {outcome.price}: {words}"
    )
