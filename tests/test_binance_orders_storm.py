"""Orders while everything goes wrong at once: what is known in the end is the truth."""

import random
from collections.abc import Callable
from decimal import Decimal as D
from functools import partial
from typing import Any

import pytest
import trio

from piker_core.adapter.rest import OutcomeUnknown
from piker_core.broker import BrokerOrder
from piker_core.errors import BrokerDown, ProviderError
from piker_core.orders import BrokerdOrder
from providers.binance.venue import Limits, open_venue
from tests.binance_orders import SPOT, USDM, Heard, open_dialog

ORDERS = 60
FREE = Limits(orders=10_000, attempts=10_000)
SETTINGS = {
    "order_rate": 1e4, "order_burst": 10_000, "usdm_order_rate": 1e4,
    "usdm_order_burst": 10_000, "rest_timeout_s": 2.0, "connect_rate": 1e3,
    "overlap_s": 0.1,
}  # fmt: skip


async def found_out(heard: Heard, reqid: str) -> BrokerOrder | None:
    """An order as the venue has it, asked until it can be told."""
    with trio.fail_after(20):
        while True:
            try:
                return await heard.known(reqid)
            except ProviderError:
                await trio.sleep(0.05)


async def live(heard: Heard, reqid: str, rng: random.Random) -> None:
    """The life of one order: placed, changed, canceled, as a gateway would do it."""
    order = BrokerdOrder(
        oid=reqid, account="binance", time_ns=1, symbol=heard.name, action="buy",
        price=heard.price(str(rng.choice([-30, 0, 5, 60]))), reqid=reqid,
        size=D(rng.randint(2, 30)) / 1000,
    )  # fmt: skip
    if not await request(heard, reqid, heard.dialog.submit, order):
        return
    for _ in range(rng.randint(0, 3)):
        await trio.sleep(rng.uniform(0, 0.05))
        price = heard.price(str(rng.choice([-20, 0, 5, 60])))
        changes: dict[str, Any] = {"size": D(rng.randint(2, 30)) / 1000}
        if rng.random() < 0.7:
            changes["price"] = price
        await request(heard, reqid, heard.update, order, **changes)
    if rng.random() < 0.7:
        await request(heard, reqid, heard.cancel, order)


async def request(
    heard: Heard, reqid: str, send: Any, order: BrokerdOrder, **changes: Any
) -> bool:
    """Whether the venue has the order after a request, which is never sent twice."""
    try:
        await send(order, **changes)
    except BrokerDown:
        pass
    except OutcomeUnknown:
        return await found_out(heard, reqid) is not None
    return heard.side.known.find(reqid) is not None


async def stir(heard: Heard, rng: random.Random) -> None:
    """One fault after another."""
    faults = heard.venue.faults
    ways: list[Callable[[], object]] = [
        *(partial(faults.time_out_orders, 1, executed=done) for done in (True, False)),
        *(partial(faults.lose_answers, 1, executed=done) for done in (True, False)),
        *(partial(faults.delay_reports, seconds) for seconds in (0.1, 0.0)),
        partial(faults.refuse_replacements, 1),
        partial(faults.unavailable, 1),
        faults.cut,
        faults.terminate_user_streams,
    ]
    while True:
        for fault in rng.sample(ways, len(ways)):
            await trio.sleep(rng.uniform(0.03, 0.1))
            fault()


async def trade(heard: Heard, rng: random.Random) -> None:
    """Trades near the best bid that only orders here see."""
    while True:
        await trio.sleep(0.01)
        price, size = heard.price(str(rng.randint(-10, 10))), D(rng.randint(1, 9))
        heard.account.matching.print_trade(heard.symbol, price, size / 1000)


@pytest.mark.parametrize("name", [SPOT, USDM])
@pytest.mark.parametrize("seed", [1, 2])
async def test_orders_come_to_the_truth_through_every_fault(
    name: str, seed: int
) -> None:
    rng = random.Random(seed)
    pairs = [name.removesuffix(".binance")]
    async with (
        open_venue(
            seed=seed, pairs=pairs, live_rate=20, history_s=60, limits=FREE,
            usdm_limits=FREE,
        ) as venue,
        open_dialog(venue, name, **SETTINGS) as heard,
    ):  # fmt: skip
        venue.faults.duplicate_reports(0.2)
        venue.faults.disorder_reports(0.5)
        venue.faults.drop_reports(0.1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stir, heard, rng)
            nursery.start_soon(trade, heard, rng)
            async with trio.open_nursery() as lives:
                for number in range(ORDERS):
                    lives.start_soon(live, heard, f"s{number}", rng)
                    await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        await check(heard)


async def check(heard: Heard) -> None:
    """Whether all that can be asked for is what the venue has."""
    faults = heard.venue.faults
    for switch in ("time_out", "time_out_done", "lose", "lose_done"):
        faults.take_order(switch)
    faults.unavailable(0)
    account = heard.account
    names = {order.client_id for order in account.matching.open_orders()}
    listed = await heard.dialog.orders()
    assert names >= {o.broker_details["client_order_id"] for o in listed}
    with trio.fail_after(20):
        while account.matching.open_orders():  # nothing is filled after that
            await heard.dialog.cancel_all()
    truth: dict[str, D] = {}
    for order, execution in account.matching.executions():
        reqid = order.client_id.partition("-")[0]
        truth[reqid] = truth.get(reqid, D(0)) + execution.size
    assert max(account.accepted.values()) == 1, "an order was sent twice"
    for number in range(ORDERS):
        reqid = f"s{number}"
        known = await found_out(heard, reqid)
        assert (known is not None) == (account.accepted[reqid] == 1)
        if known is not None:
            assert known.filled == truth.get(reqid, 0)
    fills: dict[str, D] = {}
    for fill in await heard.dialog.fills(0, heard.name):
        reqid = str(fill.reqid)
        fills[reqid] = fills.get(reqid, D(0)) + fill.size
    assert fills == truth
    assert await heard.dialog.orders() == []
    heard_of = {fill_id for reqid in truth for fill_id in heard.fills(reqid)}
    assert len(heard_of) <= len(account.matching.executions())
    assert faults.done["cut"]
    if heard.name == SPOT:
        assert heard.dialog.statistics()["replaced"]
