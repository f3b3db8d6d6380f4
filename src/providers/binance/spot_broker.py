"""Orders of spot, over the WebSocket API.

1. A smaller size at the same price is an amendment, which keeps the order's place in
   the queue. Every other change cancels the order and makes another in one request; it
   fails as a whole if the order has been filled, or begun to be, in between.
2. Where the order filled on while it was replaced, the new leg is made smaller by that.

Source: https://developers.binance.com/docs/binance-spot-api-docs/websocket-api, trading
requests.
"""

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgspec
import trio

from piker_core.adapter.answers import outcome_unknown
from piker_core.orders import BrokerdOrder, BrokerdPosition

from .account import Account
from .api import Config
from .legs import Known, LegName
from .markets import Symbol
from .order_calls import (
    NO_SUCH_ORDER,
    BrokerDown,
    OutcomeUnknown,
    Refusal,
    is_undecided,
)
from .reports import (
    Balances,
    Fill,
    OrderRow,
    Positions,
    Report,
    row_report,
)
from .side_broker import Send, SideBroker, plain_text, time_in_force
from .signing import Keys
from .ws_api import Partly, WsApi

_AMEND_REFUSED = (-1013, -2038)
"""The venue does not amend this order any more; it can still be replaced."""
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)
_ZERO = Decimal(0)


class _FillRow(msgspec.Struct):
    """A fill in the answer to an order: what it took at once."""

    price: Decimal
    qty: Decimal
    tradeId: int
    commission: Decimal | None = None
    commissionAsset: str = ""

    def as_fill(self, time_ns: int) -> Fill:
        """It took, at the time of the order."""
        currency = self.commissionAsset.lower()
        return Fill(
            self.tradeId,
            self.price,
            self.qty,
            time_ns,
            self.commission,
            currency,
            "taker",
        )


class _Amended(msgspec.Struct):
    amendedOrder: OrderRow
    transactTime: int = 0


class _Part(msgspec.Struct):
    """One part of the answer to a replacement: an order, or an error."""

    code: int = 0
    msg: str = ""


class _Replaced(msgspec.Struct):
    cancelResult: str = ""
    newOrderResult: str = ""
    cancelResponse: msgspec.Raw = msgspec.Raw(b"null")
    newOrderResponse: msgspec.Raw = msgspec.Raw(b"null")


class SpotBroker(SideBroker):
    """The spot orders of an account."""

    def __init__(
        self,
        name: str,
        account: Account,
        config: Config,
        keys: Keys,
        *,
        send: Send,
        tell: Callable[[bool, str], None],
    ) -> None:
        super().__init__(name, account, config, send)
        self.api = WsApi(
            config,
            account.side,
            keys,
            account.pace,
            take_event=self.take_event,
            tell=tell,
            before=self.prime,
        )
        self.kept = self.api.kept

    async def run(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep the connection for ever."""
        await self.kept.run(task_status)

    # Requests

    async def place(self, order: BrokerdOrder, symbol: Symbol, known: Known) -> None:
        """Send a new order."""
        params = _terms(order, symbol, order.size)
        params["newClientOrderId"] = known.reqid
        result = await self.api.call("order.place", params, orders=1)
        self.acknowledge(known, *self._placed(result, known.reqid))

    async def change(self, order: BrokerdOrder, symbol: Symbol, known: Known) -> None:
        """Amend or replace an order."""
        leg, before = known.leg, known.before(known.newest)
        assert leg is not None
        size = order.size - before
        if size <= leg.filled:
            raise Refusal(
                0,
                f"size {order.size} of order {order.oid!r} is no more than what is "
                f"filled of it, {before + leg.filled}: cancel it to have no more",
            )
        if order.price == leg.price and size < leg.size:
            try:
                await self._amend(symbol.venue_symbol, known, size)
                return
            except Refusal as error:
                if error.code not in _AMEND_REFUSED:
                    raise
        await self._replace(order, symbol, known, size - leg.filled)

    async def _amend(self, symbol: str, known: Known, size: Decimal) -> None:
        params = {
            "symbol": symbol,
            "origClientOrderId": known.name,
            "newClientOrderId": known.name,
            "newQty": plain_text(size),
        }
        result = await self.api.call("order.amend.keepPriority", params)
        try:
            amended = msgspec.json.decode(result, type=_Amended, strict=False)
            row = amended.amendedOrder
            row.side = row.side or known.action.upper()
            row.transactTime = amended.transactTime
            report = row_report(row, asked=known.name)
        except _UNREADABLE as error:
            raise self._unclear("order.amend.keepPriority", error, result) from None
        self.acknowledge(known, report)

    async def _replace(
        self, order: BrokerdOrder, symbol: Symbol, known: Known, size: Decimal
    ) -> None:
        """Put another leg in the place of the newest one."""
        leg = known.leg
        assert leg is not None
        assumed, number = leg.filled, known.newest + 1
        name = str(LegName(known.reqid, number))
        params = _terms(order, symbol, size) | {
            "cancelReplaceMode": "STOP_ON_FAILURE",
            "cancelOrigClientOrderId": known.name,
            "cancelNewClientOrderId": f"{name}r",
            "cancelRestrictions": "ONLY_PARTIALLY_FILLED" if assumed else "ONLY_NEW",
            "newClientOrderId": name,
        }
        before = known.name
        known.unsure = True
        try:
            result = await self.api.call("order.cancelReplace", params, orders=1)
            canceled = self._read_canceled(result, before)
            report, fills = self._read_new(result, name)
        except Partly as error:
            known.unsure = False
            self._part_failed(known, error, before)
            return
        except (Refusal, BrokerDown):
            known.unsure = False
            raise
        known.unsure = False
        self.note(canceled)
        self.counts["replaced"] += 1
        self.acknowledge(known, report, fills)
        excess = leg.filled - assumed
        if excess > 0:
            await self._cut(symbol.venue_symbol, known, report, size - excess)

    def _read_canceled(self, result: msgspec.Raw, before: str) -> Report:
        """The leg that was canceled."""
        try:
            part = msgspec.json.decode(result, type=_Replaced).cancelResponse
            row = msgspec.json.decode(part, type=OrderRow, strict=False)
            return row_report(row, asked=before)
        except _UNREADABLE as error:
            raise self._unclear("order.cancelReplace", error, result) from None

    def _read_new(
        self, result: msgspec.Raw, name: str
    ) -> tuple[Report, tuple[Fill, ...]]:
        """The leg in its place."""
        part = msgspec.json.decode(result, type=_Replaced).newOrderResponse
        return self._placed(part, name)

    def _part_failed(self, known: Known, error: Partly, before: str) -> None:
        """One part of a replacement failed, or both. Raises Refusal, OutcomeUnknown."""
        try:
            parts = msgspec.json.decode(error.parts, type=_Replaced)
            gone = parts.cancelResult == "SUCCESS"
            failed = parts.newOrderResponse if gone else parts.cancelResponse
            why = msgspec.json.decode(failed, type=_Part)
            row = None
            if gone:
                done = parts.cancelResponse
                row = msgspec.json.decode(done, type=OrderRow, strict=False)
        except _UNREADABLE as unreadable:
            known.unsure = True
            raise self._unclear(
                "order.cancelReplace", unreadable, error.parts
            ) from None
        if is_undecided(why.code, 0):
            known.unsure = True
            raise self._unclear("order.cancelReplace", error, error.parts)
        if row is not None:
            report = self.note(row_report(row, asked=before))
            reason = f"it made room for another one, which was refused: {why.msg}"
            self._tell_newest(report, row_report(row, asked=before).time_ns, reason)
        raise Refusal(why.code, why.msg or str(error), error.frame)

    async def _cut(
        self, symbol: str, known: Known, report: Report, size: Decimal
    ) -> None:
        """Make a leg smaller by what the one before it has filled in between.

        One that cannot be is taken back: the order is never filled beyond its size.
        """
        if report.state != "open":
            return
        if size > report.filled:
            with suppress(Refusal):
                await self._amend(symbol, known, size)
                return
        await self.take_back(symbol, known.name)

    async def take_back(self, symbol: str, name: str) -> None:
        """Send a cancel."""
        params = {"symbol": symbol, "origClientOrderId": name}
        result = await self.api.call("order.cancel", params)
        try:
            row = msgspec.json.decode(result, type=OrderRow, strict=False)
            report = row_report(row, asked=name)
        except _UNREADABLE as error:
            raise self._unclear("order.cancel", error, result) from None
        self.take_report(report)

    async def sweep(self, symbol: str) -> None:
        """Cancel the open orders of a market."""
        try:
            await self.account.change("DELETE", "openOrders", {"symbol": symbol})
        except Refusal as error:
            if error.code not in (NO_SUCH_ORDER, -2011):
                raise

    def _placed(
        self, result: msgspec.Raw, name: str
    ) -> tuple[Report, tuple[Fill, ...]]:
        """An order that the venue has taken, and what it took at once."""
        try:
            row = msgspec.json.decode(result, type=OrderRow, strict=False)
            report = row_report(row, asked=name)
            rows = msgspec.convert(row.fills, list[_FillRow], strict=False)
        except _UNREADABLE as error:
            raise self._unclear("order.place", error, result) from None
        return report, tuple(each.as_fill(report.time_ns) for each in rows)

    def _unclear(
        self, method: str, error: Exception, result: msgspec.Raw
    ) -> OutcomeUnknown:
        return outcome_unknown(f"{self.api.label}, {method}: {error}", bytes(result))

    # What it holds

    async def positions(self) -> list[BrokerdPosition]:
        """The balances of the bases of the markets that are known here."""
        held = await self.account.balances()
        return [
            self.position(symbol, held.get(symbol.market.base.name, _ZERO))
            for symbol in self.markets.values()
        ]

    def holdings(self, event: Balances | Positions) -> list[BrokerdPosition]:
        """The positions in an event."""
        if not isinstance(event, Balances):
            return []
        return [
            self.position(symbol, event.totals[symbol.market.base.name])
            for symbol in self.markets.values()
            if symbol.market.base.name in event.totals
        ]


def _terms(order: BrokerdOrder, symbol: Symbol, size: Decimal) -> dict[str, Any]:
    """What an order says to the venue. Raises Refusal for what spot has not."""
    if order.reduce_only and order.action == "buy":
        raise Refusal(0, "spot has no positions that a reduce_only order could reduce")
    lasts = time_in_force(order)
    terms: dict[str, Any] = {
        "symbol": symbol.venue_symbol,
        "side": order.action.upper(),
        "type": "LIMIT_MAKER" if order.post_only else "LIMIT",
        "quantity": plain_text(size),
        "price": plain_text(order.price),
        "newOrderRespType": "FULL",
    }
    if not order.post_only:
        terms["timeInForce"] = lasts
    return terms
