"""Kraken's private REST calls: the session's token, orders, trades and balances.

1. Calls of one key go out one after another, so that their nonces arrive in order.
   What cancels waits for none of them, and for no budget: a nonce that it overtook is
   made anew.
2. A key that the venue refuses is not tried again for `lockout_s`: it locks out those
   who go on trying.
3. Lists come in pages of 50, newest first, of a span that ends when the first page was
   asked for: what happens meanwhile shifts nothing. What comes twice is kept once.

Source: https://docs.kraken.com/api/docs/rest-api/get-open-orders and its neighbours
"""

import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import httpx
import msgspec
import trio

from piker_core.adapter.answers import Reply, Request
from piker_core.adapter.rest import Rest, RestStatistics, checked_url, open_rest
from piker_core.adapter.shared import share
from piker_core.config import Secret
from piker_core.errors import DataThrottle, ProviderError
from piker_core.orders import exact

from .api import Config
from .rest import PRIVATE_SITE, judge_private
from .signing import Credentials

_PAGE = 50
_QUERY = 50
"""Order ids that one QueryOrders takes."""
_FATAL = re.compile(
    r"EAPI:Invalid key|EAPI:Invalid signature|EGeneral:Permission denied"
    r"|EGeneral:Temporary lockout|EAPI:Feature disabled"
)


class KeyRefused(ProviderError):
    """The venue refuses the key: it is not tried again for a while."""


def _check_finite(*numbers: Decimal) -> None:
    """Raises ValueError for a number that is none, or is beyond all measure."""
    for number in numbers:
        exact(number, "a number")


class Description(msgspec.Struct, frozen=True):
    """`descr` of an order."""

    pair: str = ""
    type: str = ""
    ordertype: str = ""
    price: Decimal = Decimal(0)


class RestOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order of OpenOrders, ClosedOrders or QueryOrders, fields as the venue's.

    `price` is the average of what was executed; the limit is the description's.
    """

    status: str
    descr: Description
    vol: Decimal
    vol_exec: Decimal
    price: Decimal = Decimal(0)
    fee: Decimal = Decimal(0)
    opentm: Decimal = Decimal(0)
    reason: str | None = None
    cl_ord_id: str | None = None

    def __post_init__(self) -> None:
        _check_finite(self.vol, self.vol_exec, self.price, self.descr.price)
        _check_finite(self.opentm)


class RestTrade(msgspec.Struct, frozen=True, kw_only=True):
    """A row of TradesHistory, fields as the venue's, and its `txid`."""

    txid: str = ""
    ordertxid: str
    pair: str
    time: Decimal
    type: str
    price: Decimal
    fee: Decimal = Decimal(0)
    vol: Decimal
    trade_id: int | None = None
    maker: bool | None = None

    def __post_init__(self) -> None:
        _check_finite(self.time, self.price, self.fee, self.vol)


class _Token(msgspec.Struct):
    token: str
    expires: int = 900


class _Open(msgspec.Struct):
    open: dict[str, RestOrder]


class _Closed(msgspec.Struct):
    closed: dict[str, RestOrder]


class _Trades(msgspec.Struct):
    trades: dict[str, RestTrade]
    count: int = 0


class _Count(msgspec.Struct):
    count: int = 0


class PrivateClient:
    """Private calls of one key; made by `open_private`.

    All raise ProviderError where the venue does not tell, KeyRefused for the key.
    """

    def __init__(
        self, config: Config, rest: Rest, urgent: Rest, credentials: Credentials
    ) -> None:
        self.config = config
        self.clock = rest.clock
        self._rest, self._urgent, self._credentials = rest, urgent, credentials
        self._turn = share((credentials.name, "turn"), trio.Lock)
        self._locked_until = float("-inf")

    def statistics(self) -> RestStatistics:
        """Counters since the client was opened."""
        return self._rest.statistics()

    async def token(self) -> Secret:
        """A fresh token for a private connection."""
        reply = await self._call("GetWebSocketsToken", {}, "a session's token")
        try:
            return Secret(reply.decode(_Token).token)
        except ProviderError as error:  # its frame may have the token
            raise ProviderError(str(error)) from None

    async def open_orders(self, cl_ord_id: str = "") -> dict[str, RestOrder]:
        """Open orders by the venue's ids; those of a client id alone, if given."""
        params = {"cl_ord_id": cl_ord_id} if cl_ord_id else {}
        reply = await self._call("OpenOrders", params, "open orders")
        return _of_client(reply.decode(_Open).open, cl_ord_id)

    async def closed_orders(self, cl_ord_id: str) -> dict[str, RestOrder]:
        """Ended orders of a client id."""
        params = {"cl_ord_id": cl_ord_id}
        reply = await self._call("ClosedOrders", params, f"order {cl_ord_id}")
        return _of_client(reply.decode(_Closed).closed, cl_ord_id)

    async def query_orders(self, order_ids: Iterable[str]) -> dict[str, RestOrder]:
        """Orders of these ids; one that the venue does not have is left out."""
        wanted, found = list(dict.fromkeys(order_ids)), {}
        for first in range(0, len(wanted), _QUERY):
            ids = ",".join(wanted[first : first + _QUERY])
            reply = await self._call("QueryOrders", {"txid": ids}, "orders by id")
            found.update(reply.decode(dict[str, RestOrder]))
        return found

    async def trades(self, since_ns: int) -> list[RestTrade]:
        """Executions since then, oldest first."""
        end_s, found = time.time() + self.clock.offset_s + 1, dict[str, RestTrade]()
        start_s = max(since_ns // 10**9 - 1, 0)  # what begins at `start` is left out
        while True:
            params: dict[str, str | int | float] = {
                "start": start_s,
                "end": f"{end_s:.3f}",
                "ofs": len(found),
            }
            reply = await self._call("TradesHistory", params, "executions", cost=2.0)
            page = reply.decode(_Trades).trades
            fresh = page.keys() - found.keys()
            found.update(page)
            if len(page) < _PAGE or not fresh:
                break
        trades = [
            msgspec.structs.replace(trade, txid=txid) for txid, trade in found.items()
        ]
        trades = [each for each in trades if int(each.time * 10**9) >= since_ns]
        return sorted(trades, key=lambda each: (each.time, each.trade_id or 0))

    async def balances(self) -> dict[str, Decimal]:
        """Balances by REST names of assets (XXBT), those of other wallets apart."""
        reply = await self._call("Balance", {}, "balances")
        balances = reply.decode(dict[str, Decimal])
        if not all(balance.is_finite() for balance in balances.values()):
            raise reply.refuse("a balance that is no finite number")
        return balances

    async def cancel_all(self) -> int:
        """Cancel all open orders; how many there were."""
        reply = await self._call("CancelAll", {}, "all orders", urgent=True)
        return reply.decode(_Count).count

    async def _call(
        self,
        method: str,
        params: dict[str, Any],
        subject: str,
        *,
        urgent: bool = False,
        cost: float = 1.0,
    ) -> Reply:
        if trio.current_time() < self._locked_until:
            raise KeyRefused(
                f"the key of [kraken] was refused; it is not tried again for "
                f"{self._locked_until - trio.current_time():.0f} s"
            )
        request = Request(
            "POST", f"/0/private/{method}", dict(params), form=True, changes=urgent
        )
        sign = self._credentials.sign
        try:
            if urgent:
                return await self._urgent.call(request, subject=subject, sign=sign)
            async with self._turn:
                return await self._rest.call(
                    request, subject=subject, cost=cost, sign=sign
                )
        except DataThrottle as error:
            raise ProviderError(str(error)) from None
        except ProviderError as error:
            if not (fatal := _FATAL.search(str(error))):
                raise
            self._locked_until = trio.current_time() + self.config.lockout_s
            raise KeyRefused(
                f"Kraken refuses the key of [kraken] api_key: {fatal[0]}; check key, "
                "secret and the key's permissions, and start again after a quarter of "
                "an hour if it is a lockout"
            ) from None


def _of_client(orders: dict[str, RestOrder], cl_ord_id: str) -> dict[str, RestOrder]:
    """Those of a client id, whatever else the venue gave."""
    if not cl_ord_id:
        return orders
    return {
        order_id: order
        for order_id, order in orders.items()
        if order.cl_ord_id == cl_ord_id
    }


@asynccontextmanager
async def open_private(
    config: Config,
    credentials: Credentials,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[PrivateClient]:
    """A client of the private calls. Raises ConfigError for an unusable `rest_url`."""
    url = config.rest_url.rstrip("/").removesuffix("/0")
    url = checked_url(url, PRIVATE_SITE, example="https://api.kraken.com")
    limits = msgspec.structs.replace(
        config, rest_rate=config.private_rate, rest_burst=config.private_burst
    )
    opened = partial(
        open_rest,
        PRIVATE_SITE,
        limits,
        url=url,
        judge=judge_private,
        transport=transport,
    )
    name = credentials.name
    async with (
        opened(credential=name) as rest,
        opened(credential=f"{name} urgent") as urgent,
    ):
        yield PrivateClient(config, rest, urgent, credentials)
