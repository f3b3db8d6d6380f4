"""Reports that come twice and disordered, and what the gateway of orders makes of them.

The gateway runs here, without a desk: its requests go to the provider's dialog at once.
"""

import time
from collections.abc import Callable
from decimal import Decimal

import trio

from piker_core.broker import BrokerLink
from piker_core.conformance.broker_orders import check_once, opened
from piker_core.conformance.report import Failed, NotApplicable, Passed
from piker_core.conformance.stage import Stage
from piker_core.conformance.trader import FAR, THROUGH, Trader, filled_of
from piker_core.ems.gateway import Gateway
from piker_core.ems.ledger import Ledger
from piker_core.ems.reconcile import status_of
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

_MOST_WAIT_S = 20.0


class OwnGateway:
    """A gateway whose requests go to the dialog of a trader."""

    def __init__(self, trader: Trader) -> None:
        self.trader = trader
        account, broker = trader.private.account, trader.symbol.rpartition(".")[2]
        around = Around(
            find_market=lambda _: trader.mkt,
            prices=lambda _: Prices(),
            is_used=lambda _: False,
            note=lambda _: "",
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
        news = self.trader.said[self._heard :]
        self._heard = len(self.trader.said)
        for message in news:
            if isinstance(message, BrokerLink):
                if message.up:
                    await self._reconcile()
            elif not isinstance(message, BrokerdPosition):
                self.gateway.heard(message)
        await self._act()

    async def _reconcile(self) -> None:
        """The connection was lost and is back: ask for what was missed."""
        for fill in await self.trader.fills():
            self.gateway.heard(fill)
        for dialog in list(self.gateway.living.values()):
            order = await self.trader.told_order(dialog.reqid)
            if order is not None:
                self.gateway.heard(status_of(order))

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
    repeated = own.gateway.counters["repeated"]
    return Passed(
        f"{len(own.statuses)} statuses, each once, beside {repeated} repeated messages"
    )


async def _trade(own: OwnGateway) -> None:
    trader = own.trader
    private, part = trader.private, trader.part()
    rests = trader.price("buy", -FAR)
    await own.ask(own.order("taken", "buy", trader.price("buy", THROUGH)))
    await own.until_said("taken", "closed")  # or it would have the trades below
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
