"""What an account of one side has: orders, trades, balances, positions, over REST.

1. Lists are per market and of short spans: they are read by time until something is
   found, from there on by id, so that nothing is skipped; from the first id on where
   that would be too many spans.
2. A row of which nothing can be made is counted and left out.

Source: https://developers.binance.com/docs/binance-spot-api-docs/rest-api, account
endpoints, and those of the USD-M documents.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from piker_core.adapter.rest import Reply, Request
from piker_core.errors import DataThrottle, NotFound, ProviderError

from .client import US_NS, Side
from .order_calls import NO_SUCH_ORDER, Pace, call_order
from .reports import OrderRow, Report, TradeRow, row_report
from .rest import error_code
from .signing import Keys, make_header, make_signer

log = logging.getLogger(__name__)
T = TypeVar("T")

_MS_NS = 1_000_000
_DAY_NS = 86_400 * 10**9
_PAGE_ROWS = 1000
_MOST_SPANS = 30
"""Of a longer time all trades are read, by their ids."""
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)
_ZERO = Decimal(0)


class _Wallet(msgspec.Struct):
    asset: str
    free: Decimal = _ZERO
    locked: Decimal = _ZERO


class _Wallets(msgspec.Struct):
    balances: list[_Wallet]


class _Position(msgspec.Struct):
    symbol: str
    positionAmt: Decimal = _ZERO
    entryPrice: Decimal = _ZERO


class Account:
    """Signed calls of one side, and what they answer. All raise ProviderError."""

    def __init__(self, side: Side, keys: Keys, pace: Pace, window_ms: float) -> None:
        self.side, self.pace = side, pace
        self.counts: Counter[str] = Counter()
        self.contracts = not side.shape.names
        unit = "MICROSECOND" if side.shape.unit_ns == US_NS else ""
        self._sign = make_signer(keys, side.clock, window_ms, unit=unit)
        self._header = make_header(keys)
        self._prefix = side.shape.prefix

    async def change(
        self, method: str, path: str, params: dict[str, Any], *, orders: int = 0
    ) -> Reply:
        """Have something done. Raises Refusal, OutcomeUnknown, BrokerDown."""
        request = Request(
            method, f"{self._prefix}/{path}", params, form=True, changes=True
        )
        return await call_order(
            self.side.rest,
            request,
            subject=f"{method} {path}",
            sign=self._sign,
            pace=self.pace,
            orders=orders,
        )

    async def listen_key(self, method: str) -> Reply:
        """The key of the user stream: POST asks for it, PUT keeps it. USD-M only."""
        request = Request(method, f"{self._prefix}/listenKey", {})
        return await self.side.rest.call(
            request, subject="the user stream", sign=self._header
        )

    async def get(self, path: str, params: dict[str, Any], *, cost: float) -> Reply:
        """Ask for something."""
        if not path.startswith("/"):
            path = f"{self._prefix}/{path}"
        subject = params.get("symbol") or "the account"
        try:
            return await self.side.rest.get(
                path, params, subject=str(subject), cost=cost, sign=self._sign
            )
        except (NotFound, DataThrottle) as error:
            raise ProviderError(str(error)) from error

    # Orders

    async def open_orders(self, symbol: str = "") -> list[Report]:
        """All open orders, of one market or of all."""
        params = {"symbol": symbol} if symbol else {}
        few, all_of_them = (1.0, 40.0) if self.contracts else (6.0, 80.0)
        reply = await self.get(
            "openOrders", params, cost=few if symbol else all_of_them
        )
        rows = self._rows(reply, OrderRow)
        return list(self._reports(rows))

    def _reports(self, rows: Iterable[OrderRow]) -> Iterator[Report]:
        for row in rows:
            try:
                yield row_report(row)
            except ValueError as error:
                self._leave_out(repr(row), error)

    async def order(
        self, symbol: str, *, name: str = "", broker_id: str = ""
    ) -> Report | None:
        """The order of a client order id, or of the venue's; None: there is none."""
        params = {"symbol": symbol}
        params |= {"origClientOrderId": name} if name else {"orderId": broker_id}
        try:
            cost = 1.0 if self.contracts else 4.0
            reply = await self.get("order", params, cost=cost)
        except ProviderError as error:
            if error_code(error) == NO_SUCH_ORDER:
                return None
            raise
        try:
            row = msgspec.json.decode(reply.result, type=OrderRow, strict=False)
            return row_report(row, asked=name)
        except _UNREADABLE as error:
            raise reply.refuse(str(error)) from None

    # Trades

    async def trades(self, symbol: str, since_ns: int) -> list[TradeRow]:
        """Trades of a market since then, oldest first."""
        path, span_ns, cost = "myTrades", _DAY_NS, 20.0
        if self.contracts:
            path, span_ns, cost = "userTrades", 7 * _DAY_NS, 5.0
        start_ns, now_ns = since_ns, self.side.clock.now_ns()
        asked = {"symbol": symbol, "limit": _PAGE_ROWS}
        if now_ns - since_ns > _MOST_SPANS * span_ns:
            start_ns, page = 0, await self._page(path, asked | {"fromId": 0}, cost)
        else:
            page = []
            while not page and start_ns <= now_ns:
                end_ns = start_ns + span_ns
                span = {"startTime": start_ns // _MS_NS}
                span["endTime"] = end_ns // _MS_NS - 1
                page = await self._page(path, asked | span, cost)
                start_ns = end_ns
        found = page
        while page and (len(page) == _PAGE_ROWS or 0 < start_ns <= now_ns):
            after = {"fromId": max(row.id for row in page) + 1}
            page = await self._page(path, asked | after, cost)
            found, start_ns = found + page, 0
        found.sort(key=lambda row: row.id)
        first_ns = since_ns // _MS_NS * _MS_NS
        return [row for row in found if row.fill.time_ns >= first_ns]

    async def _page(
        self, path: str, params: dict[str, Any], cost: float
    ) -> list[TradeRow]:
        return self._rows(await self.get(path, params, cost=cost), TradeRow)

    # What it holds

    async def balances(self) -> dict[str, Decimal]:
        """What there is of each asset, what is locked included. Spot only."""
        reply = await self.get("account", {"omitZeroBalances": "true"}, cost=20.0)
        try:
            rows = msgspec.json.decode(reply.result, type=_Wallets, strict=False)
        except _UNREADABLE as error:
            raise reply.refuse(str(error)) from None
        return {row.asset.lower(): row.free + row.locked for row in rows.balances}

    async def positions(self) -> dict[str, tuple[Decimal, Decimal]]:
        """Size and entry price by the venue's symbol; of both sides of a hedge the sum.

        USD-M only.
        """
        reply = await self.get("/fapi/v3/positionRisk", {}, cost=5.0)
        held: dict[str, tuple[Decimal, Decimal]] = {}
        for row in self._rows(reply, _Position):
            size, price = held.get(row.symbol, (_ZERO, _ZERO))
            entry = row.entryPrice if row.positionAmt else price
            held[row.symbol] = (size + row.positionAmt, entry)
        return held

    # Rows

    def _rows(self, reply: Reply, kind: type[T]) -> list[T]:
        rows = []
        for raw in reply.decode(list[msgspec.Raw]):
            try:
                rows.append(msgspec.json.decode(raw, type=kind, strict=False))
            except _UNREADABLE as error:
                self._leave_out(bytes(raw), error)
        return rows

    def _leave_out(self, row: object, error: Exception) -> None:
        self.counts["malformed"] += 1
        if self.counts["malformed"] == 1:
            log.warning("%.200r is left out: %s", row, error)
