"""Orders at the simulated Binance: a dialog, and all that it has said."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal as D
from typing import Any, TypeVar

import msgspec
import trio

from piker_core.broker import BrokerLink, BrokerOrder
from piker_core.config import Secret
from piker_core.orders import (
    BrokerdCancel,
    BrokerdError,
    BrokerdFill,
    BrokerdOrder,
    BrokerdOrderAck,
    BrokerdStatus,
)
from providers.binance.api import Config
from providers.binance.broker import BinanceDialog, open_trade_dialog
from providers.binance.side_broker import SideBroker
from providers.binance.venue import API_KEY, API_SECRET, Venue, VenueSymbol, open_venue
from providers.binance.venue_account import VenueAccount

SPOT, USDM = "btcusdt.binance", "btcusdt.usdtm.perp.binance"
PATIENCE_S = 10.0
M = TypeVar("M")


class Heard:
    """A dialog and what it said, in its order."""

    def __init__(self, dialog: BinanceDialog, venue: Venue, name: str) -> None:
        self.dialog, self.venue, self.name = dialog, venue, name
        self.messages: list[Any] = []
        self._news = trio.Event()

    async def listen(self) -> None:
        async for message in self.dialog:
            self.messages.append(message)
            self._news.set()
            self._news = trio.Event()

    async def wait(self, wanted: Callable[[], M]) -> M:
        """Until something is true of what was heard."""
        with trio.move_on_after(PATIENCE_S):
            while not (found := wanted()):
                await self._news.wait()
            return found
        told = "\n".join(map(str, self.messages))
        raise AssertionError(f"this was all that was said:\n{told}")

    # What was said

    def of(self, kind: type[M], reqid: str = "") -> list[M]:
        found = [each for each in self.messages if isinstance(each, kind)]
        return [each for each in found if not reqid or str(each.reqid) == reqid]  # type: ignore[attr-defined]

    def fills(self, reqid: str) -> dict[str, BrokerdFill]:
        """Fills by their id: a repeat is the same one."""
        return {each.fill_id: each for each in self.of(BrokerdFill, reqid)}

    def filled(self, reqid: str) -> D:
        return sum((each.size for each in self.fills(reqid).values()), D(0))

    def last(self, reqid: str) -> BrokerdStatus | None:
        """The last status of an order."""
        return next(reversed(self.of(BrokerdStatus, reqid)), None)

    async def status(self, reqid: str, status: str) -> BrokerdStatus:
        """Wait until the last status of an order is this one."""

        def told() -> BrokerdStatus | None:
            last = self.last(reqid)
            return last if last is not None and last.status == status else None

        found = await self.wait(told)
        assert found is not None
        return found

    async def error(self, reqid: str) -> BrokerdError:
        """Wait until a request about an order was refused."""
        return (await self.wait(lambda: self.of(BrokerdError, reqid)))[-1]

    def links(self) -> list[bool]:
        return [each.up for each in self.of(BrokerLink)]

    async def back(self, connections: int = 2) -> None:
        """Wait until the side is connected, for the so-manieth time."""
        side = self.side
        await self.wait(lambda: side.up and side.kept.connections >= connections)

    # Requests

    @property
    def side(self) -> SideBroker:
        return self.dialog.spot if self.name == SPOT else self.dialog.usdm

    @property
    def account(self) -> VenueAccount:
        return self.venue.account(self.name.removesuffix(".binance"))

    @property
    def symbol(self) -> str:
        return self.venue.market(self.name.removesuffix(".binance")).pair.symbol

    def price(self, away: str = "0") -> D:
        """The best bid, so much lower."""
        market = self.venue.market(self.name.removesuffix(".binance"))
        return market.price(market.quote.bid) - D(away)

    async def place(self, reqid: str, **terms: Any) -> BrokerdOrder:
        """Send an order to buy 0.01, 100 below the best bid unless it is said."""
        usual: dict[str, Any] = {
            "oid": f"mine {reqid}",
            "account": "binance",
            "time_ns": time.time_ns(),
            "symbol": self.name,
            "price": self.price("100"),
            "size": D("0.01"),
            "action": "buy",
            "reqid": reqid,
        }
        order = BrokerdOrder(**usual | terms)
        await self.dialog.submit(order)
        return order

    async def update(self, order: BrokerdOrder, **terms: Any) -> BrokerdOrder:
        changed = msgspec.structs.replace(order, **terms)
        await self.dialog.submit(changed)
        return changed

    async def cancel(self, order: BrokerdOrder) -> None:
        await self.dialog.cancel(
            BrokerdCancel(
                oid=order.oid,
                time_ns=time.time_ns(),
                account="binance",
                reqid=order.reqid,
                symbol=order.symbol,
            )
        )

    async def acked(self, reqid: str, times: int = 1) -> BrokerdOrderAck:
        return (
            await self.wait(
                lambda: (
                    acks
                    if len(acks := self.of(BrokerdOrderAck, reqid)) >= times
                    else []
                )
            )
        )[-1]

    async def known(self, reqid: str) -> BrokerOrder | None:
        return await self.dialog.order(reqid, self.name)


def make_config(venue: Venue, **settings: Any) -> Config:
    keys = {"api_key": Secret(API_KEY), "api_secret": Secret(API_SECRET)}
    return Config(**(venue.config | keys | settings))


@asynccontextmanager
async def open_dialog(venue: Venue, name: str, **settings: Any) -> AsyncIterator[Heard]:
    """A dialog with a venue, for the markets of the side of one."""
    config = make_config(venue, **settings)
    async with open_trade_dialog("binance", [name], config=config) as dialog:
        assert isinstance(dialog, BinanceDialog)
        heard = Heard(dialog, venue, name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heard.listen)
            yield heard
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_orders(
    name: str, *, live_rate: float = 0.0, seed: int = 5, **settings: Any
) -> AsyncIterator[Heard]:
    """A venue whose market stands still unless it is said, and a dialog with it."""
    pairs: list[str | VenueSymbol] = [name.removesuffix(".binance")]
    async with (
        open_venue(seed=seed, pairs=pairs, live_rate=live_rate, history_s=60) as venue,
        open_dialog(venue, name, **settings) as heard,
    ):
        yield heard
