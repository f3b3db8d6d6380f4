"""Orders through a storm of all faults at once: in the end the facts are the truth."""

import random
from decimal import Decimal as D

import pytest
import trio

from piker_core.adapter.answers import OutcomeUnknown
from piker_core.errors import BrokerDown, ProviderError
from piker_core.orders import BrokerdStatus
from tests.kraken_broker import (
    SYMBOL,
    V2,
    Trader,
    cancel,
    open_quiet_venue,
    open_trader,
    order,
)

STEPS = 120
STATES = {"filled": "closed", "expired": "canceled"}


class Storm:
    """Random requests, and random faults between them."""

    def __init__(self, trader: Trader, seed: int) -> None:
        self.trader, self.rng = trader, random.Random(seed)
        self.sent: list[str] = []
        self.certain: set[str] = set()
        """Orders that certainly were not taken."""

    async def run(self) -> None:
        faults = self.trader.venue.order_faults
        faults.reports_first(0.5)
        faults.double_reports(0.2)
        faults.swap_reports(0.03)
        for number in range(STEPS):
            self.strike()
            request = self.send_order if number % 3 != 2 else self.change
            try:
                await request(number)
            except BrokerDown:
                with trio.fail_after(60):
                    while self.trader.dialog._connection.link is None:
                        await trio.sleep(0.01)
            except OutcomeUnknown:
                continue
            await trio.sleep(0.005)

    def strike(self) -> None:
        faults, rng = self.trader.venue.order_faults, self.rng
        roll = rng.random()
        if roll < 0.02:
            faults.cut()
        elif roll < 0.03:
            faults.invalidate_tokens()
        elif roll < 0.1:
            faults.lose_reports(rng.randint(1, 3))
        elif roll < 0.2:
            kind = rng.choice(["silent", "unavailable", "late", "internal"])
            done = kind != "late" and rng.random() < 0.5
            faults.lie(kind, done=done)

    def price(self) -> str:
        market = self.trader.venue.market(V2)
        return str(market.price(market.quote.bid) - self.rng.randint(-5, 20))

    async def send_order(self, number: int) -> None:
        reqid = f"w{number}"
        self.sent.append(reqid)
        try:
            await self.trader.dialog.submit(order(reqid, self.price(), "0.02"))
        except BrokerDown:
            self.certain.add(reqid)
            raise

    async def change(self, number: int) -> None:
        reqid = self.rng.choice(self.sent)
        if self.rng.random() < 0.5 and reqid not in self.certain:
            await self.trader.dialog.cancel(cancel(reqid))
        elif self.trader.dialog._states.knows(reqid):
            await self.trader.dialog.submit(order(reqid, self.price(), "0.03"))


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_taken_twice_and_the_facts_are_the_truth(seed: int) -> None:
    async with (
        open_quiet_venue(live_rate=100, pairs=["BTC/USD"], seed=seed) as venue,
        open_trader(venue, reply_timeout_s=0.2) as trader,
    ):
        storm = Storm(trader, seed)
        await storm.run()
        await settle(trader)
        orders = venue.orders
        for reqid in storm.sent:
            found, known = await trader.dialog.order(reqid, SYMBOL), orders.of(reqid)
            assert orders.accepted(reqid) <= 1, reqid
            assert (found is not None) == bool(known), reqid
            if reqid in storm.certain:
                assert not known, reqid
            if found is not None:
                (truth,) = known
                state = STATES.get(truth.state, truth.state)
                assert (found.status, found.filled) == (state, truth.filled), reqid
                assert (found.size, found.price) == (truth.size, truth.price), reqid
        fills = {f.fill_id: (f.reqid, f.size) for f in await trader.dialog.fills(0)}
        truths = [(o.client_id, each.size) for o, each in orders.fills()]
        assert sorted(fills.values()) == sorted(truths)
        for fill_id, fill in trader.fills().items():
            assert fills[fill_id] == (fill.reqid, fill.size)
        for told in trader.heard:
            if isinstance(told, BrokerdStatus) and told.status != "canceled":
                assert told.filled + told.remaining in (D("0.02"), D("0.03"))
        assert truths
        assert venue.orders.counter.refused == 0
        assert venue.private.bad_nonces == 0
        assert trader.dialog.statistics()["connections"] > 1


async def settle(trader: Trader) -> None:
    """End the faults and all orders, however often it takes."""
    faults = trader.venue.order_faults
    for switch in (faults.reports_first, faults.double_reports, faults.swap_reports):
        switch(0.0)
    faults.lose_reports(0)
    while faults.take_lie() is not None:
        pass
    with trio.fail_after(20):
        while trader.venue.orders.matching.open_orders():
            try:
                await trader.dialog.cancel_all()
            except ProviderError:
                await trio.sleep(0.1)
