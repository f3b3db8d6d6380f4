"""Orders in bad weather: reports that come twice, answers that do not come, cuts."""

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import trio

from piker_core.conformance.broker_orders import check_fills, check_once, opened
from piker_core.conformance.process import Told
from piker_core.conformance.report import Failed, NotApplicable, Passed
from piker_core.conformance.stage import Stage
from piker_core.conformance.trader import FAR, THROUGH, Trader, filled_of
from piker_core.ems.gateway import Gateway
from piker_core.ems.ledger import Ledger
from piker_core.ems.risk import Risk, RiskConfig
from piker_core.ems.turn import Around, Prices
from piker_core.orders import (
    BrokerdCancel,
    BrokerdPosition,
    Cancel,
    Order,
    Status,
    Update,
)

BURST = 60
AGAIN_S = 1.5
"""How long to look whether something is sent again."""
_MOST_WAIT_S = 15.0


class OwnGateway:
    """The gateway of orders, without a desk: its requests go to the dialog at once."""

    def __init__(self, trader: Trader) -> None:
        self.trader = trader
        account, broker = trader.private.account, trader.symbol.rpartition(".")[2]
        around = Around(
            find_market=lambda _: trader.mkt,
            prices=lambda _: Prices(),
            is_used=lambda _: False,
            new_reqid=trader.new_id,
            killed=lambda: "",
            now_ns=time.time_ns,
        )
        self.gateway = Gateway(
            broker,
            account,
            mode="live",
            around=around,
            risk=Risk(RiskConfig()),
            ledger=Ledger(broker, account),
        )
        self.statuses: list[Status] = []
        self._heard = len(trader.said)

    async def ask(self, request: Order | Update | Cancel) -> None:
        """A request of a strategy."""
        self.gateway.ask("check", request)
        await self._act()

    async def hear(self) -> None:
        """Take in what the dialog has said since."""
        await self.trader.read(0.05)
        for message in self.trader.said[self._heard :]:
            if not isinstance(message, BrokerdPosition) and hasattr(message, "reqid"):
                self.gateway.heard(message)
        self._heard = len(self.trader.said)
        await self._act()

    async def _act(self) -> None:
        turn = self.gateway.take_turn()
        self.statuses += [said.status for said in turn.said]
        for request in turn.sends:
            reqid = str(request.reqid)
            if isinstance(request, BrokerdCancel):
                await self.trader.cancel(reqid)
            else:
                await self.trader.submit(request)

    async def until(self, look: Callable[[], object], failing: str) -> None:
        """Listen until something holds. Raises Failed."""
        begun_s = trio.current_time()
        while not look():
            if trio.current_time() - begun_s > _MOST_WAIT_S:
                told = ", ".join(f"{s.oid} {s.resp}" for s in self.statuses[-6:])
                raise Failed(f"{failing}, for {_MOST_WAIT_S:g} s; last: {told}")
            await self.hear()

    def resps(self, oid: str) -> list[str]:
        """The words that were said of an order."""
        return [status.resp for status in self.statuses if status.oid == oid]

    def reqid(self, oid: str) -> str:
        """Its client order id."""
        return next(str(s.reqid) for s in self.statuses if s.oid == oid)

    async def until_said(self, oid: str, resp: str, count: int = 1) -> None:
        """Wait until a word was said of an order so often."""
        await self.until(
            lambda: self.resps(oid).count(resp) >= count,
            f"the gateway does not say {resp!r} of order {oid!r}",
        )

    def order(self, oid: str, side: str, price: Decimal) -> Order:
        """An order of a strategy."""
        return Order(
            action=side,  # type: ignore[arg-type]
            exec_mode="live",
            oid=oid,
            symbol=self.trader.symbol,
            account=self.trader.private.account,
            price=price,
            size=self.trader.terms.size,
        )


async def check_reports(stage: Stage) -> Passed:
    """Reports twice and disordered: the gateway makes each status of them, once."""
    trader = await opened(stage)
    switches = trader.private.switches
    shaken = [switch for switch in (switches.repeat, switches.disorder) if switch]
    if not shaken:
        raise NotApplicable("the simulated venue neither repeats nor disorders reports")
    for switch in shaken:
        switch(True)
    try:
        own = OwnGateway(trader)
        held = trader.private.position()
        await _trade(own)
        await _check_statuses(own, held)
    finally:
        for switch in shaken:
            switch(False)
    return Passed(
        f"{len(own.statuses)} statuses, each once, of {own.gateway.counters['repeated']} "
        "repeats and more"
    )


async def _trade(own: OwnGateway) -> None:
    trader = own.trader
    private, part = trader.private, trader.part()
    rests = trader.price("buy", -FAR)
    await own.ask(own.order("taken", "buy", trader.price("buy", THROUGH)))
    for oid in ("parted", "changed", "canceled"):
        await own.ask(own.order(oid, "buy", rests))
        await own.until_said(oid, "open")
    await own.ask(Cancel(oid="canceled"))
    await own.until_said("canceled", "canceled")
    lower = rests - 4 * trader.mkt.price_tick
    await own.ask(Update(oid="changed", price=lower))
    await own.until_said("changed", "open", 2)
    private.print_trade(rests, part)
    await own.until_said("parted", "fill")
    private.print_trade(rests, trader.terms.size - part)
    private.print_trade(lower, trader.terms.size)
    for oid in ("taken", "parted", "changed"):
        await own.until_said(oid, "closed")


async def _check_statuses(own: OwnGateway, held: Decimal) -> None:
    trader = own.trader
    await trio.sleep(0.2)
    await own.hear()
    size = trader.terms.size
    for oid, end in (
        *(("taken", "closed"), ("parted", "closed"), ("changed", "closed")),
        ("canceled", "canceled"),
    ):
        resps = own.resps(oid)
        if resps.count(end) != 1 or resps[-1] != end or resps[0] != "pending":
            raise Failed(f"the gateway says {resps} of order {oid!r}")
        filled = filled_of(
            status.brokerd_msg
            for status in own.statuses
            if status.oid == oid and status.resp == "fill"
        )
        if filled != (size if end == "closed" else 0):
            raise Failed(f"fills of order {oid!r} add up to {filled}")
        check_once(trader, own.reqid(oid))
    bought = trader.private.position() - held
    if own.gateway.ledger.size(trader.symbol) != bought:
        raise Failed(
            f"the ledger has {own.gateway.ledger.size(trader.symbol)}, the venue's "
            f"position has grown by {bought}"
        )


async def check_lost_answer(stage: Stage) -> Passed:
    """No answer: OutcomeUnknown; order() says what was done, and it is not repeated."""
    trader = await opened(stage)
    switch = trader.private.switches.lose_answer
    if switch is None:
        raise NotApplicable("the simulated venue does not lose answers to orders")
    for done in (True, False):
        await _check_unknown(trader, switch, done)
    return Passed("OutcomeUnknown both times, done and not, and order() tells which")


async def check_cut_request(stage: Stage) -> Passed:
    """The connection is lost before the answer: the same."""
    trader = await opened(stage)
    switch = trader.private.switches.cut_request
    if switch is None:
        raise NotApplicable("the simulated venue does not cut in place of an answer")
    for done in (True, False):
        since = len(trader.said)
        await _check_unknown(trader, switch, done)
        await trader.until_link(up=True, since=since)
    return Passed("OutcomeUnknown both times, done and not, and order() tells which")


async def _check_unknown(
    trader: Trader, switch: Callable[[bool], object], done: bool
) -> None:
    order = trader.make("buy", trader.price("buy", -FAR))
    reqid = str(order.reqid)
    switch(done)
    try:
        await trader.submit(order)
    except Told as error:
        if error.kind != "OutcomeUnknown":
            raise Failed(
                f"an order whose answer was lost raises {error}, not OutcomeUnknown"
            ) from None
    else:
        raise Failed("an order whose answer was lost raises no OutcomeUnknown")
    await _check_told(trader, reqid, done)
    await trio.sleep(AGAIN_S)
    taken = trader.private.taken(reqid)
    if taken != int(done):
        raise Failed(
            f"the venue {'took' if done else 'did not take'} an order whose answer was "
            f"lost, and has {taken} of its reqid now: it was sent again"
        )
    if done:
        await trader.end(reqid)


async def _check_told(trader: Trader, reqid: str, done: bool) -> None:
    """Whether `order` tells what was done, as soon as it can."""
    found: Any = await trader.told_order(reqid)
    if done and (found is None or found.status not in ("open", "pending")):
        raise Failed(f"order() says {found} of an order that the venue has open")
    if not done and found is not None and found.status in ("open", "pending"):
        raise Failed(f"order() says {found.status} of an order that was never taken")


async def check_cut(stage: Stage) -> Passed:
    """The connection is cut: told, and what was missed can be asked for."""
    trader = await opened(stage)
    cut = trader.private.switches.cut
    if cut is None:
        raise NotApplicable("the simulated venue does not cut connections")
    refuse = stage.fault("refuse_connections")
    missed = await trader.rest()
    price = trader.truth(missed).price
    kept = await trader.rest(size=trader.terms.size)
    since, begun_ns = len(trader.said), time.time_ns()
    refuse()
    cut()
    await trader.until_link(up=False, since=since)
    trader.private.print_trade(price, trader.terms.size)
    await _check_not_sent(trader)
    back = len(trader.said)
    refuse(False)
    await trader.until_link(up=True, since=back)
    await _check_missed(trader, missed, kept, begun_ns)
    await trader.end(kept)
    return Passed("down and up were told; orders(), order() and fills() have it all")


async def _check_not_sent(trader: Trader) -> None:
    order = trader.make("buy", trader.price("buy", -FAR))
    try:
        await trader.submit(order)
    except Told as error:
        if error.kind != "BrokerDown":
            raise Failed(
                f"an order without a connection raises {error}, not BrokerDown"
            ) from None
    else:
        raise Failed("an order without a connection raises no BrokerDown")


async def _check_missed(trader: Trader, missed: str, kept: str, begun_ns: int) -> None:
    there = await trader.orders()
    if missed in there or kept not in there:
        raise Failed(
            f"after the cut orders() has {sorted(there)}; {missed} was filled meanwhile "
            f"and {kept} is open"
        )
    found = await trader.told_order(missed)
    if found is None or (found.status, found.filled) != ("closed", trader.terms.size):
        raise Failed(f"after the cut order() says {found} of an order that was filled")
    rows = [row for row in await trader.fills(begun_ns - 10**9) if row.reqid == missed]
    if len({row.fill_id for row in rows}) != len(rows):
        raise Failed("fills() has an execution twice")
    check_fills(trader, missed, rows)
    check_once(trader, kept)


async def check_limits(stage: Stage) -> Passed:
    """As many orders at once as a strategy may send: the venue refuses none for that."""
    trader = await opened(stage)
    begun_s = trio.current_time()
    price = trader.price("buy", -FAR)
    least = trader.part()
    orders = [trader.make("buy", price, size=least) for _ in range(BURST)]
    not_sent = await _at_once([lambda o=o: trader.submit(o) for o in orders])  # type: ignore[misc]
    taken = [str(o.reqid) for o in orders if trader.private.taken(str(o.reqid))]
    await _at_once([lambda name=name: trader.cancel(name) for name in taken])  # type: ignore[misc]
    refused = trader.private.refused_for_rate()
    if refused:
        raise Failed(f"the venue refused {refused} requests that were over its limits")
    if not taken:
        raise Failed(f"of {BURST} orders none was taken")
    took_s = trio.current_time() - begun_s
    return Passed(
        f"{len(taken)} of {BURST} orders taken, {not_sent} not sent, none refused for "
        f"its rate, {took_s:.1f} s",
        {"taken": len(taken), "seconds": round(took_s, 2)},
    )


async def _at_once(calls: list[Callable[[], Any]]) -> int:
    """Make calls side by side; how many were not sent. Raises Failed for other errors."""
    failures: list[Told] = []

    async def run(call: Callable[[], Any]) -> None:
        try:
            await call()
        except Told as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(run, call)
    for error in failures:
        if error.kind != "BrokerDown":
            raise Failed(f"one of many orders raises {error}")
    return len(failures)
