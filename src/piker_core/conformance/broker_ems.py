"""Orders end to end: `open_ems` in live mode, at the simulated venue, with faults."""

from collections import Counter
from collections.abc import Callable
from decimal import Decimal

import msgspec
import trio

from piker_core.conformance.broker_contract import nothing_left
from piker_core.conformance.report import Failed, Passed
from piker_core.conformance.stage import Stage
from piker_core.conformance.trader import FAR, THROUGH, filled_of
from piker_core.orders import BrokerdFill, BrokerdPosition, Order, Status

WITHIN_S = 30.0
_POLL_S = 0.05
_CANCELS = 3
_SENDS = 20
_AGAIN_S = 0.5


class Strategy:
    """A client of `open_ems`, and what it was told."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.trader = stage, stage.trader
        self.told: list[Status | BrokerdPosition] = []

    async def open(self) -> None:
        """Open the account, as a strategy does."""
        await self.trader.know()
        await self.trader.subject.ask(
            "ems_open", symbols=[self.trader.symbol], mode="live"
        )
        self.trader.has_account = True
        await self.until_positions(self.trader.private.position())

    async def read(self, within_s: float = 0.0) -> None:
        """Take in what was told."""
        rows = await self.trader.subject.ask(
            "ems_said", after=len(self.told), patience_s=within_s
        )
        self.told += msgspec.convert(rows, list[Status | BrokerdPosition])

    async def until(self, look: Callable[[], object], failing: str) -> None:
        """Wait until something holds. Raises Failed."""
        begun_s = trio.current_time()
        await self.read()
        while not look():
            if trio.current_time() - begun_s > WITHIN_S:
                last = [f"{s.oid} {s.resp}" for s in self._statuses()[-6:]]
                raise Failed(f"{failing}, for {WITHIN_S:g} s; last: {', '.join(last)}")
            await self.read(_POLL_S)

    def _statuses(self) -> list[Status]:
        return [told for told in self.told if isinstance(told, Status)]

    def of(self, oid: str) -> list[Status]:
        """All that was told of an order."""
        return [status for status in self._statuses() if status.oid == oid]

    def resps(self, oid: str) -> list[str]:
        """The words of that."""
        return [status.resp for status in self.of(oid)]

    async def until_said(self, oid: str, *resps: str) -> None:
        """Wait until one of these words was told of an order."""
        await self.until(
            lambda: set(resps) & set(self.resps(oid)),
            f"order {oid!r} is not told to be {' or '.join(resps)}",
        )

    async def until_positions(self, size: Decimal) -> None:
        """Wait until the ledger holds so much of the market. Raises Failed."""
        begun_s = trio.current_time()
        while (held := await self.position()) != size:
            if trio.current_time() - begun_s > WITHIN_S:
                raise Failed(f"the ledger has {held}, the venue's truth is {size}")
            await trio.sleep(_POLL_S)

    async def position(self) -> Decimal:
        """What the ledger holds of the market."""
        rows = await self.trader.subject.ask("ems_positions")
        positions = msgspec.convert(rows, list[BrokerdPosition])
        sizes = [row.size for row in positions if row.symbol == self.trader.symbol]
        return sizes[0] if sizes else Decimal(0)

    async def send(self, oid: str, side: str, price: Decimal) -> None:
        """Send an order."""
        order = Order(
            action=side,  # type: ignore[arg-type]
            exec_mode="live",
            oid=oid,
            symbol=self.trader.symbol,
            account=self.trader.private.account,
            price=price,
            size=self.trader.terms.size,
        )
        await self.trader.subject.ask("ems_send", order=msgspec.to_builtins(order))

    async def rest(self, oid: str, steps: int = 0) -> Decimal:
        """Send an order that rests; its price."""
        price = self.trader.price("buy", -FAR) - steps * self.trader.mkt.price_tick
        await self.send(oid, "buy", price)
        return price

    async def cancel(self, oid: str) -> None:
        """Cancel an order; again where it was told that this was not done."""
        for _ in range(_CANCELS):
            errors = self.resps(oid).count("error")
            await self.trader.subject.ask("ems_cancel", oid=oid)
            await self.until(
                lambda errors=errors: (  # type: ignore[misc]
                    "canceled" in self.resps(oid)
                    or self.resps(oid).count("error") > errors
                ),
                f"the cancel of order {oid!r} is not answered",
            )
            if "canceled" in self.resps(oid):
                return
        raise Failed(f"order {oid!r} cannot be canceled")

    def reqid(self, oid: str) -> str:
        """The client order id of an order."""
        return next((str(s.reqid) for s in self.of(oid) if s.reqid is not None), "")


async def check_run(stage: Stage) -> Passed:
    """A mixed run with faults: statuses, ledger and position are the venue's truth."""
    strategy = Strategy(stage)
    await strategy.open()
    switches = strategy.trader.private.switches
    await _calm(strategy)
    for switch in (switches.repeat, switches.disorder):
        if switch is not None:
            switch(True)
    await _parted(strategy)
    if switches.lose_answer is not None:
        await _lost_answers(strategy, switches.lose_answer)
    if switches.cut is not None:
        await _cut(strategy, switches.cut)
    await _sold(strategy)
    oids = sorted({status.oid for status in strategy._statuses()})
    for oid in oids:
        _check_order(strategy, oid)
    await strategy.until_positions(strategy.trader.private.position())
    if left := strategy.trader.private.open_orders():
        raise Failed(f"the venue still has {left} open")
    await strategy.trader.unseen()
    return Passed(
        f"{len(oids)} orders, {len(strategy.told)} messages, position "
        f"{await strategy.position()}"
    )


async def _calm(strategy: Strategy) -> None:
    await strategy.send("taken", "buy", strategy.trader.price("buy", THROUGH))
    price = await strategy.rest("changed")
    await strategy.until_said("changed", "open")
    await strategy.trader.subject.ask(
        "ems_update",
        oid="changed",
        price=str(price - 2 * strategy.trader.mkt.price_tick),
    )
    await strategy.until(
        lambda: strategy.resps("changed").count("open") == 2,
        "the change of an order is not told",
    )
    await strategy.cancel("changed")
    await strategy.until_said("taken", "closed")


async def _parted(strategy: Strategy) -> None:
    trader = strategy.trader
    price = await strategy.rest("parted")
    await strategy.until_said("parted", "open")
    trader.private.print_trade(price, trader.part())
    await strategy.until_said("parted", "fill")
    trader.private.print_trade(price, trader.terms.size)
    await strategy.until_said("parted", "closed")


async def _lost_answers(
    strategy: Strategy, lose_answer: Callable[[bool], object]
) -> None:
    """The gateway finds out: done is open, not done is an error."""
    lose_answer(True)
    await strategy.rest("unanswered")
    await strategy.until_said("unanswered", "open")
    lose_answer(False)
    await strategy.rest("swallowed")
    await strategy.until_said("swallowed", "error", "canceled")
    await strategy.cancel("unanswered")


async def _cut(strategy: Strategy, cut: Callable[[], object]) -> None:
    """What was filled meanwhile is known afterwards."""
    price = await strategy.rest("missed", 8)
    await strategy.until_said("missed", "open")
    cut()
    strategy.trader.private.print_trade(price, strategy.trader.terms.size)
    await strategy.until_said("missed", "closed")


async def _sold(strategy: Strategy) -> None:
    """A last order; one that finds no link to the venue is refused, and sent anew."""
    for number in range(_SENDS):
        oid = f"sold{number or ''}"
        await strategy.send(oid, "sell", strategy.trader.price("sell", THROUGH))
        await strategy.until_said(oid, "closed", "error")
        if "closed" in strategy.resps(oid):
            return
        await trio.sleep(_AGAIN_S)
    raise Failed(f"no order is taken any more: {strategy.of(oid)[-1].brokerd_msg}")


def _check_order(strategy: Strategy, oid: str) -> None:
    """Raises Failed unless all that was told of an order is true."""
    private, reqid = strategy.trader.private, strategy.reqid(oid)
    statuses = strategy.of(oid)
    told = Counter(
        (fill.price, fill.size)
        for status in statuses
        if isinstance(fill := status.brokerd_msg, BrokerdFill)
    )
    true = Counter(
        (each.price, each.size) for each in private.fills() if each.reqid == reqid
    )
    if told != true:
        raise Failed(
            f"fills of order {oid!r} are told as {sorted(told.elements())}, the venue "
            f"has {sorted(true.elements())}"
        )
    refused = oid.startswith("sold") and "error" in strategy.resps(oid)
    taken, wanted = private.taken(reqid), int(oid != "swallowed" and not refused)
    if taken != wanted:
        raise Failed(f"the venue took order {oid!r} {taken} times, not {wanted}")
    truth = private.order(reqid)
    filled = truth.filled if truth is not None else Decimal(0)
    ends = {"closed", "canceled"} & set(strategy.resps(oid))
    ends = ends or {"error"} & set(strategy.resps(oid))
    size = strategy.trader.terms.size
    if (ends == {"closed"}) is not (filled == size) or len(ends) != 1:
        raise Failed(f"order {oid!r} has {filled} of {size}, and is told as {ends}")
    if filled_of(f for f in private.fills() if f.reqid == reqid) != filled:
        raise Failed(f"the venue contradicts itself about order {oid!r}")


async def check_end(stage: Stage) -> Passed:
    """An account that is closed leaves nothing open."""
    trader = stage.trader
    if not trader.has_account:
        await Strategy(stage).open()
    took_s = await trader.subject.ask("ems_close", within_s=WITHIN_S)
    return await nothing_left(trader, f"closed within {took_s * 1e3:.0f} ms")
