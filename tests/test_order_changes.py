"""The change of an order that a dialog knows nothing of is never sent as a new one.

So it is after a restart, when the order has ended meanwhile.
"""

import trio

from piker_core.orders import BrokerdError, BrokerdOrderAck
from tests.binance_orders import SPOT, open_dialog, open_orders
from tests.ib_orders import open_pair
from tests.kraken_broker import open_quiet_venue, open_trader, order


async def test_kraken_refuses_it() -> None:
    async with open_quiet_venue() as venue, open_trader(venue) as trader:
        await trader.wait_link(True)
        await trader.dialog.submit(order("gone", is_change=True))
        error = await trader.wait_kind(BrokerdError)
        assert error.reqid == "gone" and venue.orders.accepted("gone") == 0


async def test_binance_refuses_it() -> None:
    async with open_orders(SPOT) as heard:
        await heard.back(1)
        await heard.place("gone", is_change=True)
        await heard.error("gone")
        assert heard.account.accepted["gone"] == 0


async def test_binance_finds_the_open_order_of_another_process() -> None:
    async with open_orders(SPOT) as heard:
        placed = await heard.place("it")
        await heard.acked("it")
        async with open_dialog(heard.venue, SPOT) as other:
            await other.back(1)
            await other.update(placed, price=heard.price("200"), is_change=True)
            known = await other.known("it")
            assert known is not None and known.status == "open"
            assert known.price == heard.price("200")
        assert heard.account.accepted["it"] == 1


async def test_ib_refuses_it() -> None:
    async with open_pair() as (_, desk):
        await desk.rest("gone", is_change=True)
        with trio.fail_after(10):
            await desk.until(lambda: desk.errors("gone"))
        assert not desk.of(BrokerdOrderAck, "gone")
