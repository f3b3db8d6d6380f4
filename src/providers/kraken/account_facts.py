"""What Kraken says an account has: orders, executions and balances, over REST.

Answers are put into the words of orders. Markets are found by any of their names; what
is listed under a name that is not in the table of pairs is left out, and logged.
"""

import logging
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Literal, cast

from piker_core.broker import BrokerOrder
from piker_core.errors import NotFound, PikerError
from piker_core.orders import (
    BrokerdFill,
    BrokerdMessage,
    BrokerdPosition,
    BrokerdStatus,
    Side,
    State,
)

from .api import Client
from .markets import PROVIDER, Pair, PairTable
from .private_rest import PrivateClient, RestOrder, RestTrade
from .private_wire import BalancesFrame
from .wire import NS

log = logging.getLogger("providers.kraken.broker")

_STATES: dict[str, State] = {
    "pending": "pending",
    "open": "open",
    "closed": "closed",
    "canceled": "canceled",
    "expired": "canceled",
}
_LIQUIDITY: dict[bool | None, Literal["maker", "taker", ""]] = {
    True: "maker",
    False: "taker",
    None: "",
}
_ZERO = Decimal(0)


class AccountFacts:
    """One account's orders, executions and balances, by the names of the engine."""

    def __init__(
        self,
        account: str,
        symbols: Sequence[str],
        client: Client,
        private: PrivateClient,
        table: PairTable,
    ) -> None:
        self._account = account
        self._client, self._private, self._table = client, private, table
        self._traded = {pair.v2_symbol: pair for pair in map(table.find, symbols)}

    # Markets

    async def find(self, name: str) -> Pair | None:
        """The pair of a name; a table that lacks it is asked for again."""
        try:
            return self._table.find(name)
        except NotFound:
            pass
        try:
            self._table = await self._client.pair_table(refresh=True)
            return self._table.find(name)
        except PikerError as error:
            log.warning("%s", error)
            return None

    def trades(self, pair: Pair) -> None:
        """A pair is traded from now on: its positions are told."""
        self._traded[pair.v2_symbol] = pair

    def fqme_of(self, name: str) -> str:
        """The full name of a market by any of the venue's names."""
        try:
            return self._table.find(name).fqme
        except NotFound:
            return f"{name.replace('/', '').lower()}.{PROVIDER}"

    # Orders

    async def order(self, reqid: str, broker_id: str) -> BrokerOrder | None:
        """The order of a client id, by the venue's id where that is known.

        Open orders are asked for first: one that ends meanwhile is in the other list.
        """
        found: dict[str, RestOrder] = {}
        if broker_id:
            found = await self._private.query_orders([broker_id])
        if not found:
            found = await self._private.open_orders(reqid)
        if not found:
            found = await self._private.closed_orders(reqid)
        if not found:
            return None
        newest = max(found, key=lambda order_id: found[order_id].opentm)
        return self._order(newest, found[newest], reqid)

    async def orders(self) -> list[BrokerOrder]:
        """All open orders, oldest first."""
        found = await self._private.open_orders()
        orders = [
            self._order(order_id, order, order.cl_ord_id or "")
            for order_id, order in found.items()
        ]
        return sorted(orders, key=lambda order: order.time_ns)

    def _order(self, order_id: str, order: RestOrder, reqid: str) -> BrokerOrder:
        return BrokerOrder(
            reqid=reqid,
            broker_id=order_id,
            symbol=self.fqme_of(order.descr.pair),
            status=_STATES.get(order.status, "open"),
            action=cast(Side, order.descr.type),
            price=order.descr.price,
            size=order.vol,
            filled=order.vol_exec,
            avg_price=order.price,
            time_ns=int(order.opentm * NS),
            reason=order.reason or "",
            broker_details={"status": order.status, "fee": str(order.fee)},
        )

    def status_of(self, order: BrokerOrder) -> BrokerdStatus:
        """An order that was looked up, as it would have been told."""
        return BrokerdStatus(
            time_ns=time.time_ns(),
            reqid=order.reqid,
            status=order.status,
            filled=order.filled,
            remaining=max(order.size - order.filled, _ZERO),
            reason=order.reason,
            broker_id=order.broker_id,
        )

    # Executions

    async def fills(
        self, since_ns: int, symbol: str, reqid_of: Callable[[str], str | None]
    ) -> list[BrokerdFill]:
        """Executions since then, oldest first; `reqid_of` an order id, if known."""
        trades = await self._private.trades(since_ns)
        if symbol:
            wanted = self.fqme_of(symbol)
            trades = [each for each in trades if self.fqme_of(each.pair) == wanted]
        reqids = {each.ordertxid: reqid_of(each.ordertxid) for each in trades}
        unknown = [order_id for order_id, reqid in reqids.items() if reqid is None]
        if unknown:
            orders = await self._private.query_orders(unknown)
            for order_id, order in orders.items():
                reqids[order_id] = order.cl_ord_id or ""
        return [self._fill(each, reqids[each.ordertxid] or "") for each in trades]

    def _fill(self, trade: RestTrade, reqid: str) -> BrokerdFill:
        symbol, currency = self.fqme_of(trade.pair), ""
        try:
            currency = self._table.find(trade.pair).v2_symbol.partition("/")[2].lower()
        except NotFound:
            log.warning("an execution of the unknown market %s", trade.pair)
        return BrokerdFill(
            time_ns=time.time_ns(),
            broker_time=int(trade.time * NS),
            reqid=reqid,
            size=trade.vol,
            price=trade.price,
            action=cast(Side, trade.type),
            broker_details={"order_id": trade.ordertxid, "trade_id": trade.trade_id},
            fill_id=trade.txid,
            fee=trade.fee,
            fee_currency=currency,
            liquidity=_LIQUIDITY[trade.maker],
            symbol=symbol,
        )

    # Balances

    async def positions(self) -> list[BrokerdPosition]:
        """The base's balance of every market that is traded here."""
        if not self._traded:
            return []
        balances = await self._private.balances()
        return [
            self._position(pair, balances.get(pair.base, _ZERO))
            for pair in self._traded.values()
        ]

    def take_balances(self, frame: BalancesFrame) -> list[BrokerdMessage]:
        """The positions that balances tell of."""
        told: list[BrokerdMessage] = []
        for row in frame.data:
            size = row.spot
            if size is None:
                continue
            told += [
                self._position(pair, size)
                for pair in self._traded.values()
                if pair.v2_symbol.partition("/")[0] == row.asset
            ]
        return told

    def _position(self, pair: Pair, size: Decimal) -> BrokerdPosition:
        return BrokerdPosition(
            broker=PROVIDER,
            account=self._account,
            symbol=pair.fqme,
            size=size,
            avg_price=_ZERO,
            currency=pair.v2_symbol.partition("/")[2].lower(),
        )
