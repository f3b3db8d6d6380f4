"""Orders while everything fails: none is taken twice, and no fill is lost."""

import random
from decimal import Decimal

import pytest
import trio

from piker_core.adapter.answers import OutcomeUnknown
from piker_core.broker import BrokerOrder
from piker_core.errors import BrokerDown, ProviderError
from piker_core.orders import BrokerdError, BrokerdStatus
from providers.ib.venue import Venue
from tests.ib_orders import AAPL, FAR, Desk, open_desk, open_orders_venue

ORDERS, STRATEGIES = 4, "ab"
STORM_S = 90.0
FATES = ("lose_answer", "cut_after", "cut_before", "swallow")


async def submit(desk: Desk, reqid: str, price: Decimal, size: int) -> None:
    """Send an order once: again only if it was certainly not sent."""
    while True:
        try:
            await desk.place(reqid, price=price, size=size)
        except BrokerDown:
            await trio.sleep(0.05)
        except OutcomeUnknown:
            return
        else:
            return


async def resolve(desk: Desk, reqid: str) -> BrokerOrder | None:
    """Ask for an order until the answer is known."""
    while True:
        try:
            return await desk.dialog.order(reqid, AAPL)
        except ProviderError:
            await trio.sleep(0.05)


async def trade(desk: Desk, rng: random.Random, name: str) -> None:
    """A strategy: its orders one after the other, some of which fail some way."""
    for number in range(ORDERS):
        reqid = f"{name}{number}"
        if rng.random() < 0.5:
            getattr(desk.venue.orders.faults, rng.choice(FATES))()
        if rng.random() < 0.1:
            desk.venue.faults.cut()
        away = Decimal(1) if rng.random() < 0.6 else -FAR
        await submit(desk, reqid, desk.price("buy", away), rng.randint(1, 9))
        await resolve(desk, reqid)


@pytest.mark.parametrize(("seed", "version"), [(1, 178), (2, 157)])
async def test_a_storm_takes_no_order_twice_and_loses_no_fill(
    seed: int, version: int
) -> None:
    rng = random.Random(seed)
    async with open_orders_venue(seed=seed, server_version=version) as venue:
        venue.orders.faults.doubled = seed % 2 == 0
        venue.faults.byte_at_a_time(seed == 1)
        async with open_desk(venue, request_timeout_s=1.0) as desk:
            with trio.fail_after(STORM_S):
                async with trio.open_nursery() as nursery:
                    for name in STRATEGIES:
                        nursery.start_soon(trade, desk, rng, name)
                await check(venue, desk)


async def check(venue: Venue, desk: Desk) -> None:
    """What the dialog knows is what is so."""
    assert max(venue.orders.accepted.values()) == 1
    for number in range(ORDERS):
        for name in STRATEGIES:
            reqid = f"{name}{number}"
            found = await resolve(desk, reqid)
            tickets = venue.orders.of(reqid)
            if not tickets:
                assert found is None or found.status == "canceled"
                continue
            assert found is not None
            told = {"Filled": "closed", "Submitted": "open", "Cancelled": "canceled"}
            assert found.status == told[tickets[0].word]
            assert found.filled == tickets[0].order.filled
    await desk.settle()
    fills = {fill.fill_id: fill for fill in await desk.dialog.fills(0)}
    truth = {row.number: row for row in venue.orders.reports}
    assert fills.keys() == truth.keys()
    assert {fill.fill_id for fill in desk.fills("")} == truth.keys()
    for number, fill in fills.items():
        row = truth[number]
        assert (fill.price, fill.size) == (row.price, row.size)
        assert (fill.reqid, fill.symbol) == (row.ticket.ref, AAPL)
    rows = await desk.dialog.positions()
    held = sum((row.size for row in rows), start=Decimal(0))
    assert held == sum((row.size for row in truth.values()), start=Decimal(0))
    assert desk.of(BrokerdStatus)
    assert not desk.of(BrokerdError)
