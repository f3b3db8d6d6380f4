"""A simulated TWS with a dialog that trades at it, and what the dialog said."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, TypeVar

import trio
from trio.testing import wait_all_tasks_blocked

from piker_core.broker import BrokerLink
from piker_core.orders import (
    BrokerdCancel,
    BrokerdError,
    BrokerdFill,
    BrokerdOrder,
    BrokerdOrderAck,
    BrokerdStatus,
)
from providers.ib.broker import Dialog, open_trade_dialog
from providers.ib.config import Config
from providers.ib.venue import Venue, open_venue

AAPL = "aapl.nasdaq.ib"
FAR = Decimal(20)
PATIENCE_S = 15.0
M = TypeVar("M")


def settings(venue: Venue, **more: Any) -> Config:
    """Configuration of a client that soon loses patience."""
    known = {"request_timeout_s": 2.0, "connect_timeout_s": 5.0, "ping_s": 2.0}
    return Config(port=venue.port, **(known | more))


class Desk:
    """A dialog, and all that it has said so far, by kind."""

    def __init__(self, venue: Venue, dialog: Dialog) -> None:
        self.venue = venue
        self.dialog = dialog
        self.said: list[Any] = []
        self._changed = trio.Event()

    async def listen(self) -> None:
        """Keep what is said."""
        async for message in self.dialog:
            self.said.append(message)
            self._changed.set()
            self._changed = trio.Event()

    async def settle(self) -> None:
        """Let all that was received be heard."""
        await wait_all_tasks_blocked()

    def of(self, kind: type[M], reqid: str = "") -> list[M]:
        """Messages of a kind, of one order if it is named."""
        return [
            message
            for message in self.said
            if isinstance(message, kind)
            and (not reqid or getattr(message, "reqid", "") == reqid)
        ]

    async def until(self, look: Callable[[], object]) -> None:
        """Wait until something holds; fails if it does not in time."""
        with trio.fail_after(PATIENCE_S):
            while not look():
                await self._changed.wait()

    async def until_status(self, reqid: str, status: str) -> BrokerdStatus:
        """Wait for a status of an order; returns the first one."""

        def found() -> list[BrokerdStatus]:
            rows = self.of(BrokerdStatus, reqid)
            return [row for row in rows if row.status == status]

        await self.until(found)
        return found()[0]

    async def until_link(self, up: bool, count: int = 1) -> BrokerLink:
        """Wait until the connection was said to be (or not to be) there so often."""

        def found() -> list[BrokerLink]:
            return [row for row in self.of(BrokerLink) if row.up is up]

        await self.until(lambda: len(found()) >= count)
        return found()[-1]

    def acks(self, reqid: str) -> list[BrokerdOrderAck]:
        """Acknowledgements of an order."""
        return self.of(BrokerdOrderAck, reqid)

    def fills(self, reqid: str) -> list[BrokerdFill]:
        """Fills of an order."""
        return self.of(BrokerdFill, reqid)

    def errors(self, reqid: str) -> list[BrokerdError]:
        """Refusals about an order."""
        return self.of(BrokerdError, reqid)

    def price(
        self, side: str, away: Decimal = Decimal(0), name: str = "AAPL"
    ) -> Decimal:
        """A price that takes what is there, by so much and more; or rests if < 0."""
        market = self.venue.market(name)
        quote = market.quote
        if side == "buy":
            return market.price(quote.ask) + away
        return market.price(quote.bid) - away

    async def place(
        self,
        reqid: str,
        *,
        price: Decimal | None = None,
        size: int | str = 5,
        action: str = "buy",
        symbol: str = AAPL,
        **more: Any,
    ) -> BrokerdOrder:
        """Submit an order; by default one that takes at once."""
        price = self.price(action, Decimal(1)) if price is None else price
        order = make_order(
            reqid, price, size=size, action=action, symbol=symbol, **more
        )
        await self.dialog.submit(order)
        await self.settle()
        return order

    async def rest(self, reqid: str, **more: Any) -> BrokerdOrder:
        """Submit an order that waits far below the market."""
        return await self.place(reqid, price=self.price("buy", -FAR), **more)

    async def cancel(self, reqid: str) -> None:
        """Cancel an order."""
        await self.dialog.cancel(
            BrokerdCancel(oid=f"o-{reqid}", time_ns=1, account="ib", reqid=reqid)
        )
        await self.settle()


def make_order(reqid: str, price: Decimal, **more: Any) -> BrokerdOrder:
    """An order as the gateway of orders sends it."""
    known = {"size": 5, "action": "buy", "symbol": AAPL, "account": "ib"}
    return BrokerdOrder(
        oid=f"o-{reqid}", time_ns=1, price=price, reqid=reqid, **(known | more)
    )


@asynccontextmanager
async def open_desk(
    venue: Venue, account: str = "ib", symbols: tuple[str, ...] = (AAPL,), **more: Any
) -> AsyncIterator[Desk]:
    """A dialog that is listened to, from its first `BrokerLink` on."""
    config = settings(venue, **more)
    async with open_trade_dialog(account, symbols, config=config) as dialog:
        desk = Desk(venue, dialog)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.listen)
            await desk.until(lambda: desk.of(BrokerLink))
            yield desk
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_pair(**options: Any) -> AsyncIterator[tuple[Venue, Desk]]:
    """A venue and a desk at it; keys of `[ib]` go by `settings`."""
    keys = options.pop("settings", {})
    async with open_orders_venue(**options) as venue, open_desk(venue, **keys) as desk:
        yield venue, desk


@asynccontextmanager
async def open_orders_venue(**options: Any) -> AsyncIterator[Venue]:
    """A venue that trades slowly: the quote stays long enough to be hit."""
    known = {"seed": 7, "live_rate": 4.0, "history_s": 60.0, "server_version": 178}
    async with open_venue(**(known | options)) as venue:
        yield venue
