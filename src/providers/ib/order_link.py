"""The connection of an account that trades: what it knows, and when it is there.

Rules this file owns:

1. The connection has the client id `order_client_id`, for ever the same: TWS lets a
   client change and cancel only what was placed under its own. All accounts of a
   process share it; it is made again when it is lost.
2. After every connection, and every return of IB's servers, the open orders and the
   day's executions are asked for before it is said that the broker is there. Nothing
   that TWS says of an execution is ever passed over, whatever it says of its links.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from piker_core.broker import BrokerLink, BrokerOrder
from piker_core.errors import BrokerDown, ConfigError, PikerError, ProviderError
from piker_core.orders import BrokerdMessage

from . import order_lists
from .api import Client
from .config import PROVIDER, Config
from .contracts import Listing
from .gateway import Gateway
from .library import load_library
from .links import Event
from .order_book import Book, Held
from .order_codes import DUPLICATE_ID, meaning_of
from .session import Session

log = logging.getLogger("providers.ib")
_MISFITS = (
    *(ArithmeticError, AttributeError, LookupError, PikerError, TypeError),
    ValueError,
)
Said = BrokerdMessage | BrokerLink
Find = Callable[[str, str], Awaitable[BrokerOrder | None]]


class OrderLink:
    """The connection of one account.

    `account` is what it was asked for by, `code` TWS's name of it. `book` has its
    orders, `said` is what is told of them, `trials` who waits for the figures of an
    order by its number.
    """

    book: Book

    def __init__(self, gateway: Gateway, account: str) -> None:
        self.account, self.code = account, ""
        self.accounts: Sequence[str] = ()
        self.config = gateway.config
        self.counts: Counter[str] = Counter()
        self.listings: dict[str, Listing] = {}
        self.session: Session | None = None
        self.trials: dict[int, Callable[[tuple[Any, ...]], None]] = {}
        self._gateway = gateway
        self._client = Client(gateway)
        self._doubtful: list[Held] = []
        self._wake = trio.Event()
        self._up: bool | None = None
        self._send, self.said = trio.open_memory_channel[Said](float("inf"))

    # The connection

    async def begin(self, symbols: Sequence[str]) -> None:
        """Connect for the first time, and know the markets; raises PikerError."""
        session = await self._gateway.session()
        self.accounts = tuple(session.accounts)
        self.code = choose_account(self.account, self.accounts, self.config)
        self.account = self.account or self.code
        self.book = Book(
            self.code, session.client_id,
            emit=self._tell, doubt=self._note_doubt, counts=self.counts,
        )  # fmt: skip
        self._attach(session)
        try:
            await self._know(session, symbols)
            await self._learn(session)
        except BaseException:
            self._detach(session)
            raise

    async def _know(self, session: Session, symbols: Sequence[str]) -> None:
        """Look markets up; one that TWS cannot describe now is when it is traded."""
        for symbol in symbols:
            try:
                await self.listing(symbol)
            except ProviderError as error:
                if session.links.up:
                    raise
                log.info("%s is not looked up yet: %s", symbol, error)

    async def run(self, find: Find) -> None:
        """Stay connected, and `find` orders in doubt; until cancelled."""
        try:
            while True:
                session = self.session or await self._gateway.session(patient=True)
                if self.session is None:
                    self._attach(session)
                try:
                    await self._serve(session, find)
                finally:
                    self._detach(session)
                    self._say_link(up=False, reason=session.reason or "closed by us")
        finally:
            self._send.close()

    async def _serve(self, session: Session, find: Find) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_with, session.lost, nursery.cancel_scope)
            while True:
                try:
                    await self._work(session, find)
                except ProviderError as error:
                    log.info("orders are asked for again: %s", error)
                    session.abandon("it does not tell the orders")
                    await session.lost.wait()
                await self._wake.wait()
                self._wake = trio.Event()

    async def _work(self, session: Session, find: Find) -> None:
        """What there is to do: learn, if that was not done; settle doubts."""
        if session.links.up and not self._up:
            await self._learn(session)
        while self._doubtful and self._up:
            held = self._doubtful.pop(0)
            self.book.settle(held, await find(held.reqid, held.symbol))

    async def _learn(self, session: Session) -> None:
        """Open orders and executions, and then that the broker is there."""
        if session.client_id == 0:
            session.requests.reqAutoOpenOrders(True)
        await self.list_open(session)
        await self.list_executions(session)
        if session.links.up:
            self._say_link(up=True)
        else:
            self._say_link(up=False, reason=self.why())

    def _attach(self, session: Session) -> None:
        self.session = session
        session.orders.append(self._hear)
        session.notices.append(self._notice)

    def _detach(self, session: Session) -> None:
        self.session = None
        session.orders.remove(self._hear)
        session.notices.remove(self._notice)

    def ready(self) -> Session:
        """The connection; raises BrokerDown while there is none that leads to IB."""
        session = self.session
        if session is None or session.lost.is_set() or not self._up:
            raise BrokerDown(f"not sent: {self.why()}")
        return session

    def why(self) -> str:
        """Why nothing can be sent."""
        session = self.session
        if session is not None and not session.lost.is_set():
            return (
                "TWS is not connected to IB's servers, or has not told the orders yet"
            )
        return f"no connection to TWS at {self.config.address} now"

    # What TWS says

    def _hear(self, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            self._take(name, arguments)
        except _MISFITS as error:
            assert self.session is not None
            self.session.complain("odd", f"{name} is not understood: {error}", name)

    def _take(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "error":
            order_id, code, text = arguments
            if code == DUPLICATE_ID and self.session is not None:
                self.session.requests.reqIds(1)
            if order_id in self.trials:
                if meaning_of(code, canceling=False) != "warning":
                    self.trials[order_id]((code, text))
                return
        elif name == "openOrder":
            order_id, order = arguments[0], arguments[2]
            if order.whatIf and order.clientId == self.config.order_client_id:
                if order_id in self.trials:
                    self.trials[order_id](arguments)
                return
            if self.session and order.clientId == self.session.client_id:
                self.session.pass_order_id(order_id)
        self.book.take(name, arguments)

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

    async def list_open(self, session: Session) -> int:
        """Have all open orders told; returns the round in which they are seen."""
        async with session.orders_turn:
            self.book.round += 1
            told = self.book.round
            await order_lists.ask_list(
                session, self.config, lambda requests: requests.reqAllOpenOrders(),
                "openOrderEnd", "open orders",
            )  # fmt: skip
        return told

    async def list_executions(self, session: Session) -> None:
        """All executions of the day, which the book gets to hear."""
        wanted = load_library().ExecutionFilter(acctCode=self.code)
        await session.ask(
            lambda requests, number: requests.reqExecutions(number, wanted),
            lambda *_: True,
            what="executions",
            timeout_s=self.config.request_timeout_s,
        )

    # Markets

    async def listing(self, symbol: str) -> Listing:
        """The contract of a market, asked for once."""
        listing = self.listings.get(symbol)
        if listing is None:
            listing = self.listings[symbol] = await self._client.listing(symbol)
            self.book.symbols.setdefault(listing.con_id, symbol)
        return listing

    async def name(self, con_id: int) -> str:
        """The market of a contract; "" if TWS does not describe it."""
        symbol = self.book.symbols.get(con_id, "")
        if symbol:
            return symbol
        try:
            listing = await self._client.listing_by_id(con_id)
        except PikerError as error:
            log.info("a contract of an order has no name: %s", error)
            return ""
        self.listings.setdefault(listing.fqme, listing)
        return self.book.symbols.setdefault(con_id, listing.fqme)

    async def named(self, held: Held) -> BrokerOrder:
        """An order with its market's name."""
        held.symbol = held.symbol or await self.name(held.con_id)
        return held.described()


async def end_with(event: trio.Event, scope: trio.CancelScope) -> None:
    """Cancel a scope once something has happened."""
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
