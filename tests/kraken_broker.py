"""A dialog with the simulated Kraken over real sockets, and all that it says."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, TypeVar

import trio

from piker_core.broker import BrokerLink
from piker_core.config import Secret
from piker_core.orders import BrokerdCancel, BrokerdFill, BrokerdOrder, BrokerdStatus
from providers.kraken.api import Config
from providers.kraken.broker import KrakenDialog, open_trade_dialog
from providers.kraken.venue import Account, Venue, open_venue

PATIENCE_S = 20.0
SYMBOL, V2 = "xbtusd.kraken", "BTC/USD"
LENIENT = {"private_rate": 50.0, "private_burst": 100}
T = TypeVar("T")


def config_of(venue: Venue, **keys: Any) -> Config:
    """`[kraken]` that points at a venue, with its key."""
    told: dict[str, Any] = dict(venue.config)
    for name in ("api_key", "api_secret"):
        told[name] = Secret(told[name])
    return Config(**(told | LENIENT | keys))


class Trader:
    """A dialog, and what it said so far."""

    def __init__(self, venue: Venue, dialog: KrakenDialog) -> None:
        self.venue, self.dialog = venue, dialog
        self.heard: list[Any] = []
        self._news = trio.Event()

    async def listen(self) -> None:
        async for message in self.dialog:
            self.heard.append(message)
            self._news.set()
            self._news = trio.Event()

    async def wait(self, wanted: Callable[[Any], bool], *, after: int = 0) -> Any:
        """The first message from number `after` on that is wanted."""
        with trio.fail_after(PATIENCE_S):
            while True:
                for message in self.heard[after:]:
                    if wanted(message):
                        return message
                await self._news.wait()

    async def wait_kind(self, kind: type[T], *, after: int = 0) -> T:
        """The first message of a kind."""
        found: T = await self.wait(lambda m: isinstance(m, kind), after=after)
        return found

    async def wait_status(self, reqid: str, status: str, *, after: int = 0) -> Any:
        """The first status of an order that says so."""
        return await self.wait(
            lambda m: (
                isinstance(m, BrokerdStatus) and (m.reqid, m.status) == (reqid, status)
            ),
            after=after,
        )

    async def wait_link(self, up: bool, *, after: int = 0) -> Any:
        """The first word on the connection that says so."""
        return await self.wait(
            lambda m: isinstance(m, BrokerLink) and m.up is up, after=after
        )

    def fills(self) -> dict[str, BrokerdFill]:
        """All fills so far, by their ids."""
        return {m.fill_id: m for m in self.heard if isinstance(m, BrokerdFill)}

    def print_trade(self, price: str, size: str) -> Decimal:
        """Others trade."""
        return self.venue.orders.print_trade(V2, price, size)


def order(
    reqid: str, price: str = "80000.0", size: str = "0.01", **terms: Any
) -> BrokerdOrder:
    """An order to buy, far below the market."""
    given = {"action": "buy", "symbol": SYMBOL} | terms
    return BrokerdOrder(
        oid=f"oid-{reqid}",
        account="kraken",
        time_ns=time.time_ns(),
        price=Decimal(price),
        size=Decimal(size),
        reqid=reqid,
        **given,
    )


def cancel(reqid: str) -> BrokerdCancel:
    """The end of it."""
    return BrokerdCancel(
        oid=f"oid-{reqid}",
        time_ns=time.time_ns(),
        account="kraken",
        reqid=reqid,
        symbol=SYMBOL,
    )


@asynccontextmanager
async def open_trader(venue: Venue, **keys: Any) -> AsyncIterator[Trader]:
    """A dialog whose messages are read."""
    async with open_trade_dialog(
        "kraken", [SYMBOL], config=config_of(venue, **keys)
    ) as dialog:
        trader = Trader(venue, dialog)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trader.listen)
            yield trader
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_quiet_venue(**options: Any) -> AsyncIterator[Venue]:
    """A venue where nothing trades by itself, and calls are not counted."""
    given = {"seed": 4, "live_rate": 0, "history_s": 60.0, "rest_burst": 1000.0}
    account = options.pop("account", {})
    free = {"calls": 1000.0, "threshold": 10_000, "open_orders": 1000}
    made = Account(**(free | account))
    async with open_venue(**(given | {"account": made} | options)) as venue:
        yield venue
