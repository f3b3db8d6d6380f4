"""Orders by TWS: one account of a login, over a connection with a number of its own.

Rules this file owns:

1. The connection has the client id `order_client_id`, for ever the same: TWS lets a
   client change and cancel only what was placed under its own. All accounts of a
   process share it; it is made again when it is lost.
2. After every connection, and every return of IB's servers, the open orders and the
   day's executions are asked for before it is said that the broker is there. Nothing
   that TWS says of an execution is ever passed over, whatever it says of its links.
3. An order's number is above all that its client id had; its `orderRef` is the reqid,
   by which it is found again among open orders, ended ones and executions.
4. What was written and not answered in `request_timeout_s`, or before the connection
   was lost, is `OutcomeUnknown`. Nothing is sent twice.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
import trio

from piker_core.adapter.answers import OutcomeUnknown
from piker_core.broker import BrokerLink, BrokerOrder
from piker_core.errors import (
    BrokerDown,
    ConfigError,
    NotFound,
    OrderError,
    PikerError,
    ProviderError,
)
from piker_core.orders import (
    BrokerdCancel,
    BrokerdFill,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdPosition,
)
from piker_core.tasks import open_nursery

from . import order_lists
from .api import Client
from .config import PROVIDER, Config, load_config
from .contracts import Listing
from .gateway import Gateway, open_gateway
from .library import check_installed, load_library
from .links import Event
from .order_book import Book, Held
from .order_codes import DUPLICATE_ID, refusal
from .order_words import (
    WhatIf,
    make_contract,
    make_order,
    read_what_if,
    size_or_zero,
    unit_price,
)
from .session import Session

log = logging.getLogger("providers.ib")
Said = BrokerdMessage | BrokerLink


class Dialog:
    """A `TradeDialog` of an account; made by `open_trade_dialog`.

    `account` is what it was asked for by, `code` TWS's name of the account. A fill
    comes without a fee at first and again, with the same id and revision, with it: such
    a repeat completes the fill. Positions' prices have IB's commissions in them.
    """

    def __init__(self, gateway: Gateway, account: str) -> None:
        self.account = account
        self.accounts: Sequence[str] = ()
        self.code = ""
        self._gateway = gateway
        self._config = gateway.config
        self._client = Client(gateway)
        self._counts: Counter[str] = Counter()
        self._listings: dict[str, Listing] = {}
        self._session: Session | None = None
        self._book: Book
        self._trials: dict[int, Callable[[tuple[Any, ...]], None]] = {}
        self._doubtful: list[Held] = []
        self._wake = trio.Event()
        self._up: bool | None = None
        self._send, self._said = trio.open_memory_channel[Said](float("inf"))

    # What the gateway of orders asks

    async def submit(self, order: BrokerdOrder) -> None:
        """As `TradeDialog.submit`: refusals are messages, OutcomeUnknown is raised."""
        if order.reqid is None:
            raise OrderError(f"order {order.oid!r} has no reqid")
        session = self._ready()
        known = self._book.get(str(order.reqid))
        if known is not None and known.ended:
            self._book.refuse(order, f"it is {known.status} already", dead=False)
            return
        self._counts["requests"] += 1
        try:
            listing = await self._listing(order.symbol)
            made = make_order(order, self.code, self._config)
        except (NotFound, OrderError) as error:
            self._book.refuse(order, str(error), dead=known is None)
            return
        except ProviderError as error:
            raise BrokerDown(f"order {order.oid!r} was not sent: {error}") from error
        session = self._ready()
        if known is None:
            await self._place(session, order, listing, made)
        else:
            await self._change(session, order, known, listing, made)

    async def _place(
        self, session: Session, order: BrokerdOrder, listing: Listing, made: Any
    ) -> None:
        order_id = session.next_order_id()
        held = self._book.add(order, order_id, listing.con_id)
        self._write(session, held, listing, made)
        await self._answered(session, held, f"order {order.oid!r}")

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
            elif self._session is not session or session.lost.is_set():
                raise BrokerDown(f"order {order.oid!r} was not changed: {self._why()}")
            if reason:
                self._book.refuse(order, reason, dead=False)
                return
            held.asked = "change" if held.asked != "new" else "new"
            held.wanted = (order.price, order.size)
            held.oid, held.label = order.oid, order.account
            self._write(session, held, listing, made)
            await self._answered(session, held, f"the change of order {order.oid!r}")

    def _write(self, session: Session, held: Held, listing: Listing, made: Any) -> None:
        held.answer = trio.Event()
        session.requests.placeOrder(held.order_id, make_contract(listing), made)

    async def cancel(self, cancel: BrokerdCancel) -> None:
        """As `TradeDialog.cancel`."""
        reqid = str(cancel.reqid)
        session = self._ready()
        self._counts["requests"] += 1
        held = self._book.get(reqid)
        if held is None:
            await self._list_open(session)
            held = self._book.get(reqid)
        reason = "TWS has no such open order" if held is None else self._not_ours(held)
        if held is not None and held.ended:
            reason = f"it is {held.status} already"
        if held is None or reason:
            self._book.refuse_cancel(reqid, cancel.oid, cancel.symbol, reason)
            return
        held.canceling, held.answer = True, trio.Event()
        session.requests.cancelOrder(held.order_id)
        await self._answered(session, held, f"the cancel of order {cancel.oid!r}")

    async def _answered(self, session: Session, held: Held, what: str) -> None:
        """Wait for the answer to what was written."""
        with trio.move_on_after(self._config.request_timeout_s):
            async with trio.open_nursery() as nursery:
                for event in (held.answer, session.lost):
                    nursery.start_soon(_end_with, event, nursery.cancel_scope)
        told = held.asked == "new" and held.word != ""
        if held.answer.is_set() or (told and not session.lost.is_set()):
            return  # TWS has it at least: the acknowledgement follows
        self._counts["unknown"] += 1
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
        return aiter(self._said)

    async def order(self, reqid: str, symbol: str) -> BrokerOrder | None:
        """As `TradeDialog.order`: of open orders, those that ended, and executions."""
        session = self._ready()
        await self._list_open(session)
        held = self._book.get(reqid)
        if held is not None and held.seen >= self._book.round:
            return await self._named(held)
        ended = await order_lists.completed(session, self._config)
        await self._list_executions(session)
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
                self._book.forget(held)
        return found

    async def orders(self) -> list[BrokerOrder]:
        """As `TradeDialog.orders`: those by hand and of other clients too."""
        await self._list_open(self._ready())
        seen = [held for held in self._book.seen() if not held.ended]
        return [await self._named(held) for held in seen]

    async def fills(self, since_ns: int, symbol: str = "") -> list[BrokerdFill]:
        """As `TradeDialog.fills`; TWS knows the executions of the running day alone.

        Fees of the newest ones may follow by iteration.
        """
        await self._list_executions(self._ready())
        found = []
        for fill in self._newest_fills():
            if fill.broker_time >= since_ns:
                con_id = fill.broker_details["con_id"]
                name = fill.symbol or await self._name(con_id)
                found.append(msgspec.structs.replace(fill, symbol=name))
        found.sort(key=lambda fill: fill.broker_time)
        return [fill for fill in found if not symbol or fill.symbol == symbol]

    def _newest_fills(self) -> list[BrokerdFill]:
        newest: dict[str, BrokerdFill] = {}
        for fill in self._book.fills.values():
            other = newest.get(fill.fill_id)
            if other is None or other.revision <= fill.revision:
                newest[fill.fill_id] = fill
        return list(newest.values())

    async def positions(self) -> list[BrokerdPosition]:
        """As `TradeDialog.positions`."""
        rows = await order_lists.positions(self._ready(), self._config)
        found = []
        for account, contract, size, cost in rows:
            if account != self.code:
                continue
            symbol = await self._name(contract.conId)
            multiplier = self._listings[symbol].multiplier if symbol else Decimal(1)
            found.append(
                BrokerdPosition(
                    broker=PROVIDER, account=self.account,
                    symbol=symbol or contract.localSymbol, size=size_or_zero(size),
                    avg_price=unit_price(cost, multiplier) if size else Decimal(0),
                    currency=contract.currency,
                )
            )  # fmt: skip
        return found

    async def cancel_all(self) -> None:
        """As `TradeDialog.cancel_all`.

        TWS's own request is for all accounts of the login: where there are several,
        our orders of this one are canceled one by one, and ProviderError names those
        that only another client may cancel.
        """
        session = self._ready()
        if len(self.accounts) == 1:
            session.requests.reqGlobalCancel()
            return
        await self._list_open(session)
        left = []
        for held in self._book.seen():
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
        session = self._ready()
        listing = await self._listing(order.symbol)
        made = make_order(order, self.code, self._config)
        made.whatIf = True
        order_id = session.next_order_id()
        answers: list[Any] = []
        done = trio.Event()

        def take(arguments: tuple[Any, ...]) -> None:
            answers.append(arguments)
            done.set()

        self._trials[order_id] = take
        try:
            session.requests.placeOrder(order_id, make_contract(listing), made)
            with trio.move_on_after(self._config.request_timeout_s):
                await done.wait()
        finally:
            del self._trials[order_id]
        if not answers:
            raise ProviderError(f"TWS did not reckon order {order.oid!r} in time")
        if len(answers[0]) == 2:
            raise ProviderError(refusal(*answers[0]))
        return read_what_if(answers[0][-1])

    def statistics(self) -> dict[str, int]:
        """Counters of the orders, and of the connection."""
        shared = self._gateway.counts
        names = ("messages", "malformed", "unknown", "timeouts", "connections")
        counted = {f"link_{name}": shared[name] for name in names}
        reconnects = max(shared["connections"] - 1, 0)
        return {**counted, **self._counts, "reconnects": reconnects}

    # The connection

    async def begin(self, symbols: Sequence[str]) -> None:
        """Connect for the first time, and know the markets; raises PikerError."""
        session = await self._gateway.session()
        self.accounts = tuple(session.accounts)
        self.code = choose_account(self.account, self.accounts, self._config)
        self.account = self.account or self.code
        self._book = Book(
            self.code, session.client_id,
            emit=self._tell, doubt=self._note_doubt, counts=self._counts,
        )  # fmt: skip
        for symbol in symbols:
            await self._listing(symbol)
        self._attach(session)
        try:
            await self._learn(session)
        except BaseException:
            self._detach(session)
            raise

    async def run(self) -> None:
        """Stay connected, and ask about orders in doubt; until cancelled."""
        try:
            while True:
                session = self._session or await self._gateway.session(patient=True)
                if self._session is None:
                    self._attach(session)
                try:
                    await self._serve(session)
                finally:
                    self._detach(session)
                    self._say_link(up=False, reason=session.reason or "closed by us")
        finally:
            self._send.close()

    async def _serve(self, session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_with, session.lost, nursery.cancel_scope)
            while True:
                try:
                    await self._work(session)
                except ProviderError as error:
                    log.info("orders are asked for again: %s", error)
                    session.abandon("it does not tell the orders")
                    await session.lost.wait()
                await self._wake.wait()
                self._wake = trio.Event()

    async def _work(self, session: Session) -> None:
        """What there is to do: learn, if that was not done; settle doubts."""
        if session.links.up and not self._up:
            await self._learn(session)
        while self._doubtful and self._up:
            held = self._doubtful.pop(0)
            self._book.settle(held, await self.order(held.reqid, held.symbol))

    async def _learn(self, session: Session) -> None:
        """Open orders and executions, and then that the broker is there."""
        if session.client_id == 0:
            session.requests.reqAutoOpenOrders(True)
        await self._list_open(session)
        await self._list_executions(session)
        if session.links.up:
            self._say_link(up=True)

    def _attach(self, session: Session) -> None:
        self._session = session
        session.orders.append(self._hear)
        session.notices.append(self._notice)

    def _detach(self, session: Session) -> None:
        self._session = None
        session.orders.remove(self._hear)
        session.notices.remove(self._notice)

    def _ready(self) -> Session:
        """The connection; raises BrokerDown while there is none that leads to IB."""
        session = self._session
        if session is None or session.lost.is_set() or not self._up:
            raise BrokerDown(f"not sent: {self._why()}")
        return session

    def _why(self) -> str:
        session = self._session
        if session is not None and not session.lost.is_set():
            return "TWS has no connection to IB's servers now"
        return f"no connection to TWS at {self._config.address} now"

    # What TWS says

    def _hear(self, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            self._take(name, arguments)
        except (PikerError, ArithmeticError, AttributeError, TypeError) as error:
            assert self._session is not None
            self._session.complain("odd", f"{name} is not understood: {error}", name)

    def _take(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "error":
            order_id, code, text = arguments
            if code == DUPLICATE_ID and self._session is not None:
                self._session.requests.reqIds(1)
            if order_id in self._trials:
                self._trials[order_id]((code, text))
                return
        elif name == "openOrder":
            order_id, order = arguments[0], arguments[2]
            if order.whatIf and order.clientId == self._config.order_client_id:
                if order_id in self._trials:
                    self._trials[order_id](arguments)
                return
            if self._session and order.clientId == self._session.client_id:
                self._session.pass_order_id(order_id)
        self._book.take(name, arguments)

    def _notice(self, event: Event, code: int, text: str) -> None:
        if event == "lost":
            self._say_link(up=False, reason=f"{text.strip()} (code {code})")
        elif event in ("back", "back empty"):
            self._up = False
            self._wake.set()

    def _note_doubt(self, held: Held) -> None:
        if held not in self._doubtful:
            self._doubtful.append(held)
        self._wake.set()

    def _say_link(self, *, up: bool, reason: str = "") -> None:
        if self._up is not up:
            self._up = up
            self._tell(BrokerLink(up=up, reason=reason))

    def _tell(self, message: Said) -> None:
        self._send.send_nowait(message)

    # Lists

    async def _list_open(self, session: Session) -> None:
        async with session.orders_turn:
            self._book.round += 1
            await order_lists.ask_list(
                session, self._config, lambda requests: requests.reqAllOpenOrders(),
                "openOrderEnd", "open orders",
            )  # fmt: skip

    async def _list_executions(self, session: Session) -> None:
        """All executions of the day, which the book gets to hear."""
        wanted = load_library().ExecutionFilter(acctCode=self.code)
        await session.ask(
            lambda requests, number: requests.reqExecutions(number, wanted),
            lambda *_: True,
            what="executions",
            timeout_s=self._config.request_timeout_s,
        )

    # Markets

    async def _listing(self, symbol: str) -> Listing:
        listing = self._listings.get(symbol)
        if listing is None:
            listing = self._listings[symbol] = await self._client.listing(symbol)
            self._book.symbols.setdefault(listing.con_id, symbol)
        return listing

    async def _name(self, con_id: int) -> str:
        """The market of a contract; "" if TWS does not describe it."""
        symbol = self._book.symbols.get(con_id, "")
        if symbol:
            return symbol
        try:
            listing = await self._client.listing_by_id(con_id)
        except PikerError as error:
            log.info("a contract of an order has no name: %s", error)
            return ""
        self._listings.setdefault(listing.fqme, listing)
        return self._book.symbols.setdefault(con_id, listing.fqme)

    async def _named(self, held: Held) -> BrokerOrder:
        held.symbol = held.symbol or await self._name(held.con_id)
        return held.described()


async def _end_with(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def choose_account(wanted: str, accounts: Sequence[str], config: Config) -> str:
    """The account that is meant; raises ConfigError where it is none or may be many."""
    listed = ", ".join(accounts)
    for account in accounts:
        if wanted.upper() == account.upper():
            return account
    if wanted not in ("", PROVIDER):
        raise ConfigError(
            f"account {wanted!r} is none of this login of TWS: there are {listed}"
        )
    if config.account:
        return config.account
    if len(accounts) > 1:
        raise ConfigError(
            f"this login of TWS has the accounts {listed}: name one, or set account in "
            "[ib]"
        )
    return accounts[0]


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
        dialog = Dialog(gateway, account)
        await dialog.begin(symbols)
        async with open_nursery() as nursery:
            nursery.start_soon(dialog.run)
            try:
                yield dialog
            finally:
                nursery.cancel_scope.cancel()
