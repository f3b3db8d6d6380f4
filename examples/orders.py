"""Paper orders on live quotes: one on each side, at the last price.

python examples/orders.py xbtusd.kraken
"""

import sys
import uuid
from decimal import Decimal

import trio

import piker_core as pk


async def main(fqme: str, seconds: float) -> None:
    """Rest an order on either side; place the next one when one is filled."""
    async with (
        pk.open_feed([fqme]) as feed,
        pk.open_ems(fqme, cancel_on_disconnect=True) as (client, stream, *_),
    ):
        flume = feed.flumes[fqme]

        async def place(action: str) -> None:
            order = pk.Order(
                oid=f"{action}-{uuid.uuid4().hex}",
                action=action,
                exec_mode="live",
                symbol=fqme,
                account="paper",
                price=flume.market.quantize_price(flume.rt.last_price),
                size=Decimal(10) * flume.market.size_tick,
            )
            await client.send(order)

        for action in ("buy", "sell"):
            await place(action)
        with trio.move_on_after(seconds):
            async for message in stream:
                if isinstance(message, pk.BrokerdPosition):
                    print(f"position {message.size} at {message.avg_price}")
                elif message.resp in ("closed", "canceled", "error"):
                    print(message.oid.split("-")[0], message.resp)
                    await place(message.oid.split("-")[0])


if __name__ == "__main__":
    trio.run(
        main,
        sys.argv[1] if len(sys.argv) > 1 else "xbtusd.kraken",
        float(sys.argv[2]) if len(sys.argv) > 2 else 30.0,
    )
