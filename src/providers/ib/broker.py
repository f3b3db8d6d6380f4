"""Orders by TWS: one account of a login; see `order_link` for the connection.

Rules this file owns:

1. An order's number is above all that its client id had; its `orderRef` is the reqid,
   by which it is found again among open orders, ended ones and executions.
2. What was written and not answered in `request_timeout_s`, or before the connection
   was lost, is `OutcomeUnknown`. Nothing is sent twice.
"""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
import trio

from piker_core.adapter.answers import OutcomeUnknown
from piker_core.broker import BrokerOrder
from piker_core.errors import (
    BrokerDown,
    ConfigError,
    NotFound,
    OrderError,
    ProviderError,
)
from piker_core.orders import (
    BrokerdCancel,
    BrokerdFill,
    BrokerdOrder,
    BrokerdPosition,
)
from piker_core.tasks import open_nursery

from . import order_lists
from .codes import ClientIdInUse
from .config import PROVIDER, Config, load_config
from .contracts import Listing
from .gateway import open_gateway
from .library import check_installed
from .order_book import Held
from .order_codes import refusal
from .order_link import OrderLink, Said, end_with
from .order_words import (
    WhatIf,
    make_contract,
    make_order,
    read_what_if,
    size_or_zero,
    unit_price,
)
from .session import Session


class Dialog:
    """A `TradeDialog` of an account; made by `open_trade_dialog`.

    `account` is what it was asked for by, `code` TWS's name of the account. A fill
    comes without a fee at first and again, with the same id and revision, with it: such
    a repeat completes the fill. Positions' prices have IB's commissions in them.
    """

    def __init__(self, link: OrderLink, shared: Counter[str]) -> None:
        self.account, self.code = link.account, link.code
        self.accounts = link.accounts
        self._link = link
        self._config = link.config
        self._shared = shared

    # What the gateway of orders asks

    async def submit(self, order: BrokerdOrder) -> None:
        """As `TradeDialog.submit`: refusals are messages, OutcomeUnknown is raised."""
        if order.reqid is None:
            raise OrderError(f"order {order.oid!r} has no reqid")
        session = self._link.ready()
        known = self._link.book.get(str(order.reqid))
        if known is None and order.is_change:
            self._link.book.refuse(order, "it is not open any more", dead=False)
            return
        if known is not None and known.ended:
            self._link.book.refuse(order, f"it is {known.status} already", dead=False)
            self._link.book.repeat(known)
            return
        self._link.counts["requests"] += 1
        try:
            listing = await self._link.listing(order.symbol)
            made = make_order(order, self.code, self._config)
        except (NotFound, OrderError) as error:
            self._link.book.refuse(order, str(error), dead=known is None)
            return
        except ProviderError as error:
            raise BrokerDown(f"order {order.oid!r} was not sent: {error}") from error
        session = self._link.ready()
        if known is None:
            await self._place(session, order, listing, made)
        else:
            await self._change(session, order, known, listing, made)

    async def _place(
        self, session: Session, order: BrokerdOrder, listing: Listing, made: Any
    ) -> None:
        order_id = session.next_order_id()
        held = self._link.book.add(order, order_id, listing.con_id)
        held.turn.acquire_nowait()  # nobody else knows of it
        try:
            self._write(session, held, listing, made)
            await self._answered(session, held.answer, f"order {order.oid!r}", held)
        finally:
            held.turn.release()

    async def _change(
        self,
        session: Session,
        order: BrokerdOrder,
        held: Held,
        listing: Listing,
        made: Any,
    ) -> None:
        async with held.turn:
            reason = self._not_ours(held)
            if held.ended:
                reason = f"it is {held.status} already"
            elif self._link.session is not session or session.lost.is_set():
                raise BrokerDown(
                    f"order {order.oid!r} was not changed: {self._link.why()}"
                )
            if reason:
                self._link.book.refuse(order, reason, dead=False)
                return
            held.asked = "change" if held.asked != "new" else "new"
            held.wanted = (order.price, order.size)
            held.oid, held.label = order.oid, order.account
            self._write(session, held, listing, made)
            what = f"the change of order {order.oid!r}"
            await self._answered(session, held.answer, what)

    def _write(self, session: Session, held: Held, listing: Listing, made: Any) -> None:
        held.answer = trio.Event()
        session.requests.placeOrder(held.order_id, make_contract(listing), made)

    async def cancel(self, cancel: BrokerdCancel) -> None:
        """As `TradeDialog.cancel`."""
        reqid = str(cancel.reqid)
        session = self._link.ready()
        self._link.counts["requests"] += 1
        held = self._link.book.get(reqid)
        if held is None:
            await self._link.list_open(session)
            held = self._link.book.get(reqid)
        reason = "TWS has no such open order" if held is None else self._not_ours(held)
        if held is not None and held.ended:
            reason = f"it is {held.status} already"
        if held is None or reason:
            self._link.book.refuse_cancel(reqid, cancel.oid, cancel.symbol, reason)
            if held is not None:
                self._link.book.repeat(held)
            return
        if not held.canceling:
            held.canceling, held.over = True, trio.Event()
        session.requests.cancelOrder(held.order_id)
        what = f"the cancel of order {cancel.oid!r}"
        await self._answered(session, held.over, what)

    async def _answered(
        self, session: Session, answer: trio.Event, what: str, new: Held | None = None
    ) -> None:
        """Wait for the answer to what was written; of a `new` order, for a word."""
        with trio.move_on_after(self._config.request_timeout_s):
            async with trio.open_nursery() as nursery:
                for event in (answer, session.lost):
                    nursery.start_soon(end_with, event, nursery.cancel_scope)
        told = new is not None and new.word != ""
        if answer.is_set() or (told and not session.lost.is_set()):
            return  # TWS has it at least: the acknowledgement follows
        self._link.counts["unknown"] += 1
        why = session.reason or f"no answer in {self._config.request_timeout_s:g} s"
        if not session.lost.is_set():
            session.miss(what)
        raise OutcomeUnknown(
            f"TWS at {self._config.address} may have done {what} or not ({why}): ask "
            "for the order, do not send it again"
        )

    def _not_ours(self, held: Held) -> str:
        """Why an order cannot be changed here; "" if it can."""
        own = self._config.order_client_id
        if held.order_id and held.client_id == own:
            return ""
        if held.client_id == 0 or not held.order_id:
            return "it was made by hand in TWS: set order_client_id = 0 in [ib]"
        return (
            f"it was placed under client id {held.client_id}, and TWS lets only that "
            f"one change it: set order_client_id = {held.client_id} in [ib]"
        )

    def __aiter__(self) -> AsyncIterator[Said]:
        """All that TWS says, as messages."""
        return aiter(self._link.said)

    async def order(self, reqid: str, symbol: str) -> BrokerOrder | None:
        """As `TradeDialog.order`: of open orders, those that ended, and executions."""
        session = self._link.ready()
        told = await self._link.list_open(session)
        held = self._link.book.get(reqid)
        if held is not None and held.seen >= told:
            return await self._link.named(held)
        ended = await order_lists.completed(session, self._config)
        await self._link.list_executions(session)
        fills = [row for row in self._newest_fills() if row.reqid == reqid]
        row = order_lists.find(ended, reqid, self.code)
        if row is not None:
            found = order_lists.describe_ended(row, fills, symbol)
        elif fills:
            found = order_lists.describe_filled(fills, reqid, symbol, held)
        elif held is not None and held.ended:
            found = held.described()
        else:
            found = None
            if held is not None:
                self._link.book.forget(held)
        return found

    async def orders(self) -> list[BrokerOrder]:
        """As `TradeDialog.orders`: those by hand and of other clients too."""
        told = await self._link.list_open(self._link.ready())
        seen = [held for held in self._link.book.seen(told) if not held.ended]
        return [await self._link.named(held) for held in seen]

    async def fills(self, since_ns: int, symbol: str = "") -> list[BrokerdFill]:
        """As `TradeDialog.fills`; TWS knows the executions of the running day alone.

        Fees of the newest ones may follow by iteration.
        """
        await self._link.list_executions(self._link.ready())
        found = []
        for fill in self._newest_fills():
            if fill.broker_time >= since_ns:
                con_id = fill.broker_details["con_id"]
                name = fill.symbol or await self._link.name(con_id)
                found.append(msgspec.structs.replace(fill, symbol=name))
        found.sort(key=lambda fill: fill.broker_time)
        return [fill for fill in found if not symbol or fill.symbol == symbol]

    def _newest_fills(self) -> list[BrokerdFill]:
        newest: dict[str, BrokerdFill] = {}
        for fill in self._link.book.fills.values():
            other = newest.get(fill.fill_id)
            if other is None or other.revision <= fill.revision:
                newest[fill.fill_id] = fill
        return list(newest.values())

    async def positions(self) -> list[BrokerdPosition]:
        """As `TradeDialog.positions`."""
        rows = await order_lists.positions(self._link.ready(), self._config)
        found = []
        for account, contract, size, cost in rows:
            if account != self.code:
                continue
            symbol = await self._link.name(contract.conId)
            multiplier = (
                self._link.listings[symbol].multiplier if symbol else Decimal(1)
            )
            found.append(
                BrokerdPosition(
                    broker=PROVIDER, account=self.account,
                    symbol=symbol or contract.localSymbol, size=size_or_zero(size),
                    avg_price=unit_price(cost, multiplier) if size else Decimal(0),
                    currency=contract.currency.lower(),
                )
            )  # fmt: skip
        return found

    async def cancel_all(self) -> None:
        """As `TradeDialog.cancel_all`.

        TWS's own request is for all accounts of the login: where there are several,
        our orders of this one are canceled one by one, and ProviderError names those
        that only another client may cancel.
        """
        session = self._link.ready()
        if len(self.accounts) == 1:
            session.requests.reqGlobalCancel()
            return
        told = await self._link.list_open(session)
        left = []
        for held in self._link.book.seen(told):
            if held.ended:
                continue
            if self._not_ours(held):
                left.append(held.reqid or held.broker_id)
            else:
                session.requests.cancelOrder(held.order_id)
        if left:
            raise ProviderError(
                f"orders of other clients were not canceled: {', '.join(left)}; cancel "
                "them in TWS"
            )

    async def what_if(self, order: BrokerdOrder) -> WhatIf:
        """What an order would cost and bind, without placing it.

        Raises as `submit` does, and ProviderError for an order that TWS refuses.
        """
        session = self._link.ready()
        listing = await self._link.listing(order.symbol)
        made = make_order(order, self.code, self._config)
        made.whatIf = True
        order_id = session.next_order_id()
        answers: list[Any] = []
        done = trio.Event()

        def take(arguments: tuple[Any, ...]) -> None:
            answers.append(arguments)
            done.set()

        self._link.trials[order_id] = take
        try:
            session.requests.placeOrder(order_id, make_contract(listing), made)
            with trio.move_on_after(self._config.request_timeout_s):
                await done.wait()
        finally:
            del self._link.trials[order_id]
        if not answers:
            raise ProviderError(f"TWS did not reckon order {order.oid!r} in time")
        if len(answers[0]) == 2:
            raise ProviderError(refusal(*answers[0]))
        return read_what_if(answers[0][-1])

    def statistics(self) -> dict[str, int]:
        """Counters of the orders, and of the connection."""
        shared = self._shared
        names = ("messages", "malformed", "unknown", "timeouts", "connections")
        counted = {f"link_{name}": shared[name] for name in names}
        reconnects = max(shared["connections"] - 1, 0)
        return {**counted, **self._link.counts, "reconnects": reconnects}


@asynccontextmanager
async def open_trade_dialog(
    account: str, symbols: Sequence[str] = (), *, config: Config | None = None
) -> AsyncIterator[Dialog]:
    """Trade for an account of TWS's login: its code, or `ib` (or "") for the only one.

    Connects under `order_client_id` and knows `symbols`, open orders and executions
    when it begins. Raises ConfigError for an account that is none, or a client id that
    is in use; ProviderError if TWS is not reached, or its API is read-only.
    """
    check_installed()
    settings = config or load_config()
    settings = msgspec.structs.replace(settings, client_id=settings.order_client_id)
    async with open_gateway(settings) as gateway:
        link = OrderLink(gateway, account)
        try:
            await link.begin(symbols)
        except ClientIdInUse:
            raise ConfigError(
                f"TWS at {settings.address} has a client with order_client_id "
                f"{settings.order_client_id} already, perhaps another process that "
                "trades: end it, or set another order_client_id in [ib]"
            ) from None
        async with open_nursery() as nursery:
            dialog = Dialog(link, gateway.counts)
            nursery.start_soon(link.run, dialog.order)
            try:
                yield dialog
            finally:
                nursery.cancel_scope.cancel()
