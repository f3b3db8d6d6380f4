"""Binance's broker side: the orders of one account, of spot and of USD-M.

1. Both sides have a connection of their own. The dialog is up while one of them is;
   each that comes back is said, so that what it missed is asked for.
2. Sides of the markets that are named must be served; the other one is left out where
   the venue refuses the keys for it, and may come later where it is not reached.

Source: https://developers.binance.com/docs/binance-spot-api-docs/websocket-api and the
USD-M documents.
"""

import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from piker_core.broker import BrokerLink, BrokerOrder, TradeDialog
from piker_core.config import load_section
from piker_core.errors import BrokerDown, ProviderError
from piker_core.orders import (
    BrokerdCancel,
    BrokerdFill,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdPosition,
)
from piker_core.tasks import open_nursery

from .account import Account
from .api import Client, Config, get_client
from .client import Side
from .kept_socket import RefusedKeys
from .markets import PROVIDER, is_contract
from .order_calls import Pace
from .side_broker import SideBroker
from .signing import Keys
from .spot_broker import SpotBroker
from .usdm_broker import UsdmBroker

log = logging.getLogger(__name__)

_COUNTERS = (
    *("requests", "acks", "refusals", "fills", "replaced", "unknown", "malformed"),
    "failed",
    *("terminated", "connections", "reconnects", "rotations"),
)


class BinanceDialog:
    """One account at Binance; see `piker_core.broker.TradeDialog`."""

    def __init__(self, account: str, client: Client, keys: Keys) -> None:
        self.account = account
        self.accounts: Sequence[str] = (account,)
        self._send, self._receive = trio.open_memory_channel[
            BrokerdMessage | BrokerLink
        ](math.inf)
        self._left_out: dict[str, str] = {}
        config = client.config
        put = self._send.send_nowait
        self.spot = SpotBroker(
            account,
            _open_account(client.spot, keys, config),
            config,
            keys,
            send=put,
            tell=self._tell,
        )
        usdm = config.of_usdm()
        self.usdm = UsdmBroker(
            account,
            _open_account(client.usdm, keys, usdm),
            usdm,
            send=put,
            tell=self._tell,
        )

    @property
    def _sides(self) -> tuple[SideBroker, SideBroker]:
        return (self.spot, self.usdm)

    # Connections

    def _tell(self, up: bool, reason: str) -> None:
        """A side came, or was lost."""
        if up or not any(side.up for side in self._sides):
            self._send.send_nowait(BrokerLink(up, reason))

    async def open(self, nursery: trio.Nursery, symbols: Sequence[str]) -> None:
        """Connect the sides; returns when those of the markets that are named work.

        Raises ProviderError for keys that are refused.
        """
        wanted = {self._side_of(symbol) for symbol in symbols}
        for symbol in symbols:
            await self._side_of(symbol).add(symbol)
        for side in self._sides:
            if wanted and side not in wanted:
                nursery.start_soon(self._run_other, side)
        if wanted:
            async with open_nursery() as starting:
                for side in wanted:
                    starting.start_soon(nursery.start, side.run)
            return
        await self._open_any(nursery)

    async def _open_any(self, nursery: trio.Nursery) -> None:
        """Connect both sides; one at least must be served."""
        ready = trio.Event()
        failures: list[RefusedKeys] = []

        async def run(side: SideBroker) -> None:
            try:
                await nursery.start(side.run)
                ready.set()
            except RefusedKeys as error:
                self._leave_out(side, error)
                failures.append(error)
                if len(failures) == len(self._sides):
                    ready.set()

        for side in self._sides:
            nursery.start_soon(run, side)
        await ready.wait()
        if len(failures) == len(self._sides):
            raise failures[0]

    async def _run_other(self, side: SideBroker) -> None:
        """Serve the side that no market was named of, if the venue does."""
        try:
            await side.run()
        except RefusedKeys as error:
            self._leave_out(side, error)

    def _leave_out(self, side: SideBroker, error: RefusedKeys) -> None:
        name = side.account.side.name
        self._left_out[name] = str(error)
        log.info("%s is left out: %s", name, error)

    def _side_of(self, symbol: str) -> SideBroker:
        return self.usdm if is_contract(symbol) else self.spot

    # The dialog

    async def submit(self, order: BrokerdOrder) -> None:
        """Send a new order, or the change of one; see `TradeDialog.submit`."""
        await self._served(order.symbol).submit(order)

    async def cancel(self, cancel: BrokerdCancel) -> None:
        """Send a cancel; see `TradeDialog.cancel`."""
        await self._owner(str(cancel.reqid), cancel.symbol).cancel(cancel)

    def _served(self, symbol: str) -> SideBroker:
        side = self._side_of(symbol)
        reason = self._left_out.get(side.account.side.name)
        if reason is not None:
            raise BrokerDown(f"not sent: {reason}")
        return side

    def _owner(self, reqid: str, symbol: str) -> SideBroker:
        """The side of an order, by its market, or by who remembers it."""
        if symbol:
            return self._served(symbol)
        for side in self._sides:
            if side.known.find(reqid) is not None:
                return side
        raise BrokerDown(
            f"not sent: nothing is known of order {reqid!r}; name its market, too"
        )

    async def __aiter__(self) -> AsyncIterator[BrokerdMessage | BrokerLink]:
        """All that the venue says."""
        async for message in self._receive:
            yield message

    async def order(self, reqid: str, symbol: str) -> BrokerOrder | None:
        """The order of this client order id; see `TradeDialog.order`."""
        return await self._side_of(symbol).order(reqid, symbol)

    async def orders(self) -> list[BrokerOrder]:
        """All open orders of the account."""
        return [row for side in self._asking() for row in await side.orders()]

    async def fills(self, since_ns: int, symbol: str = "") -> list[BrokerdFill]:
        """Executions since then, of a market or of all that are known here."""
        if symbol:
            return await self._side_of(symbol).fills(since_ns, symbol)
        found = [row for side in self._asking() for row in await side.fills(since_ns)]
        return sorted(found, key=lambda fill: fill.broker_time)

    async def positions(self) -> list[BrokerdPosition]:
        """What the venue says the account holds; of spot: the base's balance."""
        return [row for side in self._asking() for row in await side.positions()]

    async def cancel_all(self) -> None:
        """Cancel every open order of the account at once."""
        failure: ProviderError | None = None
        for side in self._asking():
            try:
                await side.cancel_all()
            except ProviderError as error:
                failure = error
        if failure is not None:
            raise failure

    def _asking(self) -> list[SideBroker]:
        """The sides that serve these keys."""
        return [
            side for side in self._sides if side.account.side.name not in self._left_out
        ]

    def statistics(self) -> dict[str, int]:
        """Counters of both sides since the dialog was opened."""
        total: Counter[str] = Counter(dict.fromkeys(_COUNTERS, 0))
        for side in self._sides:
            total.update(side.counts)
            total.update(side.account.counts)
            total["connections"] += side.kept.connections
            total["rotations"] += side.kept.rotations
            again = side.kept.connections - side.kept.rotations - 1
            total["reconnects"] += max(again, 0)
        return dict(total)

    def close(self) -> None:
        """End what iterates."""
        self._send.close()


def _open_account(side: Side, keys: Keys, config: Config) -> Account:
    url = config.rest_url if side.shape.names else config.usdm_rest_url
    pace = Pace(
        side.rest,
        url=url,
        rate=config.order_rate,
        burst=config.order_burst,
        patience_s=config.order_patience_s,
    )
    return Account(side, keys, pace, config.recv_window_ms)


@asynccontextmanager
async def open_trade_dialog(
    account: str, symbols: Sequence[str] = (), *, config: Config | None = None
) -> AsyncIterator[TradeDialog]:
    """Connect to Binance with the keys of `[binance]`, on both sides.

    `symbols`: markets that will be traded. Raises ConfigError without keys,
    ProviderError for keys that are refused, or when the venue is not reached in
    `connect_timeout_s`, NotFound for an unknown market.
    """
    if config is None:
        config = load_section(PROVIDER, Config)
    keys = Keys(config.api_key, config.api_secret)
    async with get_client(config) as client:
        dialog = BinanceDialog(account, client, keys)
        try:
            async with open_nursery() as nursery:
                await _open(dialog, nursery, symbols, config)
                for side in (client.spot, client.usdm):
                    nursery.start_soon(side.keep_time, config.clock_every_s)
                try:
                    yield dialog
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            dialog.close()


async def _open(
    dialog: BinanceDialog,
    nursery: trio.Nursery,
    symbols: Sequence[str],
    config: Config,
) -> None:
    """Connect a dialog. Raises ProviderError where that takes too long."""
    with trio.move_on_after(config.connect_timeout_s) as patience:
        await dialog.open(nursery, symbols)
    if patience.cancelled_caught:
        nursery.cancel_scope.cancel()
        raise ProviderError(
            f"Binance was not reached in {config.connect_timeout_s:g} s "
            f"(connect_timeout_s in [{PROVIDER}]): check the network and the "
            "addresses there"
        )
