"""Orders of USD-M, over REST, and its user stream.

1. An order is changed in place: it keeps its ids, and its size is that of the whole
   order.
2. The user stream has a key in its address, which is renewed in time; when it is not
   good any more, the next connection has another one.
3. Accounts trade in one-way mode; what a hedge mode account is told to do is refused by
   the venue.

Source: https://developers.binance.com/docs/derivatives/usds-margined-futures
"""

import logging
from collections.abc import Callable
from decimal import Decimal

import msgspec
import trio

from piker_core.adapter.answers import outcome_unknown
from piker_core.adapter.rest import Reply
from piker_core.errors import DataThrottle, PikerError, ProviderError
from piker_core.orders import BrokerdOrder, BrokerdPosition
from piker_core.tasks import open_nursery

from .account import Account
from .api import Config
from .kept_socket import KeptSocket, RefusedKeys, Socket
from .legs import Known
from .markets import PROVIDER, Symbol
from .order_calls import Refusal, keys_refused
from .reports import Balances, OrderRow, Positions, Report, row_report
from .rest import error_code
from .side_broker import Send, SideBroker, plain_text, time_in_force
from .ws_api import checked_ws_url

log = logging.getLogger(__name__)

_NO_LISTEN_KEY = -1125
_NONE = (Decimal(0), Decimal(0))
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


class _ListenKey(msgspec.Struct):
    listenKey: str


class UsdmBroker(SideBroker):
    """The USD-M orders of an account, and its user stream (`Kept`)."""

    label = "Binance USD-M's user stream"
    url_key = "usdm_ws_url"

    def __init__(
        self,
        name: str,
        account: Account,
        config: Config,
        *,
        send: Send,
        tell: Callable[[bool, str], None],
    ) -> None:
        super().__init__(name, account, config, send)
        address = checked_ws_url(config.usdm_ws_url, self.url_key)
        self._url = f"{address}{config.usdm_private_route.rstrip('/')}/ws/"
        self.kept = KeptSocket(self, config, tell)

    # The user stream

    async def url(self) -> str:
        """Where to connect, with a key of its own."""
        try:
            reply = await self.account.listen_key("POST")
        except ProviderError as error:
            raise _key_error(error) from None
        return self._url + reply.decode(_ListenKey).listenKey

    async def greet(self, socket: Socket) -> None:
        """The stream speaks by itself."""
        try:
            await self.prime()
        except ProviderError as error:
            raise _key_error(error) from None

    def take(self, socket: Socket, raw: bytes) -> None:
        """A message was received."""
        self.take_event(raw, socket)

    async def run(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep the stream and its key for ever."""
        async with open_nursery() as nursery:
            await nursery.start(self.kept.run)
            task_status.started()
            while True:
                await trio.sleep(self.config.listen_key_s)
                await self._renew_key()

    async def _renew_key(self) -> None:
        try:
            await self.account.listen_key("PUT")
        except (ProviderError, DataThrottle) as error:
            log.warning("%s: its key was not renewed: %s", self.label, error)
            current = self.kept.current
            code = error_code(error) if isinstance(error, ProviderError) else 0
            if code == _NO_LISTEN_KEY and current is not None:
                current.renew.set()

    # Requests

    async def place(self, order: BrokerdOrder, symbol: Symbol, known: Known) -> None:
        """Send a new order."""
        lasts = time_in_force(order)
        params = {
            "symbol": symbol.venue_symbol,
            "side": order.action.upper(),
            "type": "LIMIT",
            "timeInForce": "GTX" if order.post_only else lasts,
            "quantity": plain_text(order.size),
            "price": plain_text(order.price),
            "newClientOrderId": known.reqid,
            "newOrderRespType": "RESULT",
        }
        if order.reduce_only:
            params["reduceOnly"] = "true"
        reply = await self.account.change("POST", "order", params, orders=1)
        self.acknowledge(known, self._read(reply, known.reqid))

    async def change(self, order: BrokerdOrder, symbol: Symbol, known: Known) -> None:
        """Modify an order."""
        leg = known.leg
        assert leg is not None
        if order.size <= leg.filled:
            raise Refusal(
                0,
                f"size {order.size} of order {order.oid!r} is no more than what is "
                f"filled of it, {leg.filled}: cancel it to have no more",
            )
        params = {
            "symbol": symbol.venue_symbol,
            "side": known.action.upper(),
            "quantity": plain_text(order.size),
            "price": plain_text(order.price),
            "origClientOrderId": known.reqid,
        }
        reply = await self.account.change("PUT", "order", params, orders=1)
        self.acknowledge(known, self._read(reply, known.reqid))

    async def take_back(self, symbol: str, name: str) -> None:
        """Send a cancel."""
        params = {"symbol": symbol, "origClientOrderId": name}
        reply = await self.account.change("DELETE", "order", params)
        self.take_report(self._read(reply, name))

    async def sweep(self, symbol: str) -> None:
        """Cancel the open orders of a market."""
        await self.account.change("DELETE", "allOpenOrders", {"symbol": symbol})

    def _read(self, reply: Reply, name: str) -> Report:
        """The order in an answer."""
        try:
            row = msgspec.json.decode(reply.result, type=OrderRow, strict=False)
            return row_report(row, asked=name)
        except _UNREADABLE as error:
            text = f"{reply.url} ({reply.subject}): {error}"
            raise outcome_unknown(text, reply.body) from None

    # What it holds

    async def positions(self) -> list[BrokerdPosition]:
        """Every position of the account, and that there is none in known markets."""
        held = await self.account.positions()
        for venue_symbol, (size, _) in held.items():
            if size and venue_symbol not in self.markets:
                await self._add_held(venue_symbol)
        told = Positions({name: held.get(name, _NONE) for name in self.markets})
        return self.holdings(told)

    async def _add_held(self, venue_symbol: str) -> None:
        try:
            await self.add(venue_symbol)
        except PikerError as error:
            self.counts["unknown"] += 1
            log.warning("a position in %s is left out: %s", venue_symbol, error)

    def holdings(self, event: Balances | Positions) -> list[BrokerdPosition]:
        """The positions in an event."""
        if not isinstance(event, Positions):
            return []
        return [
            self.position(self.markets[name], size, price if size else _NONE[1])
            for name, (size, price) in event.held.items()
            if name in self.markets
        ]


def _key_error(error: ProviderError) -> ProviderError:
    """An error, or a better one where it is the keys that are refused."""
    if not keys_refused(error):
        return error
    return RefusedKeys(
        f"Binance USD-M refuses the api_key of [{PROVIDER}]: {error}; it has to be one "
        "that may trade futures, from this address"
    )
