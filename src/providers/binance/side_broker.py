"""Orders of one side of Binance: what both sides have in common.

1. What is refused is told as a `BrokerdError`; what is unknown, or was not sent, is
   raised.
2. Reports and answers go the same way: each is noted, and passed on as it came.
3. What of an order is not remembered, after a restart say, is asked for: its legs one
   after another, until there is none.

`SpotBroker` and `UsdmBroker` add how orders are sent and reports are heard.
"""

import abc
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal

import trio

from piker_core.broker import BrokerLink, BrokerOrder
from piker_core.errors import (
    BrokerDown,
    DataThrottle,
    NotFound,
    PikerError,
    ProviderError,
)
from piker_core.orders import (
    BrokerdCancel,
    BrokerdError,
    BrokerdFill,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdOrderAck,
    BrokerdPosition,
    BrokerdStatus,
)

from .account import Account
from .api import Config
from .kept_socket import KeptSocket, Socket
from .legs import Known, LegName, Orders
from .markets import PROVIDER, Symbol
from .order_calls import OutcomeUnknown, Refusal
from .reports import (
    Balances,
    Fill,
    Other,
    Positions,
    Report,
    Terminated,
    broker_order,
    decode_event,
    fill_message,
    market_name,
)

log = logging.getLogger(__name__)

Send = Callable[[BrokerdMessage | BrokerLink], None]
_ZERO = Decimal(0)


def plain_text(number: Decimal) -> str:
    """A number as the venue takes it: exact, without an exponent or needless zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def time_in_force(order: BrokerdOrder) -> str:
    """How long an order stands, as the venue says it. Raises Refusal."""
    if order.tif == "day":
        raise Refusal(0, "Binance has no orders for the day: tif must be gtc, ioc, fok")
    if order.post_only and order.tif != "gtc":
        raise Refusal(0, f"a post_only order stands: its tif is gtc, not {order.tif}")
    return order.tif.upper()


class SideBroker(abc.ABC):
    """The orders of an account on one side; usable by several tasks at once."""

    kept: KeptSocket

    def __init__(self, name: str, account: Account, config: Config, send: Send) -> None:
        self.account, self.config = account, config
        self.known = Orders()
        self.counts: Counter[str] = Counter()
        self.markets: dict[str, Symbol] = {}
        self._name, self._send = name, send
        self._names: dict[str, str] = {}
        self._primed = False

    @property
    def up(self) -> bool:
        """Whether reports are heard."""
        return self.kept.current is not None

    @abc.abstractmethod
    async def run(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Hear reports for ever; started when the first connection stands."""

    @abc.abstractmethod
    async def place(self, order: BrokerdOrder, symbol: Symbol, known: Known) -> None:
        """Send a new order. Raises Refusal, OutcomeUnknown, BrokerDown."""

    @abc.abstractmethod
    async def change(self, order: BrokerdOrder, symbol: Symbol, known: Known) -> None:
        """Send the change of an order. Raises as `place`."""

    @abc.abstractmethod
    async def take_back(self, symbol: str, name: str) -> None:
        """Send a cancel of an order at the venue. Raises as `place`."""

    @abc.abstractmethod
    async def positions(self) -> list[BrokerdPosition]:
        """What the account holds of the markets that are known here."""

    # Requests

    async def add(self, fqme: str) -> Symbol:
        """A market that is traded from now on. Raises NotFound."""
        table = await self.account.side.table()
        symbol = table.find(fqme)
        self.markets[symbol.venue_symbol] = symbol
        return symbol

    async def submit(self, order: BrokerdOrder) -> None:
        """Send an order or its change; see `TradeDialog.submit`."""
        self.counts["requests"] += 1
        reqid = str(order.reqid)
        try:
            symbol = await self._prepare(order.symbol)
            venue_symbol = symbol.venue_symbol
            known = self.known.note(reqid, venue_symbol, order.action, order.oid)
            async with known.turn:
                await self._settle(known)
                if known.leg is None and order.is_change:
                    await self._look_up(known)
                if known.leg is None and order.is_change:
                    raise Refusal(0, "there is no open order to change")
                if known.leg is None:
                    await self.place(order, symbol, known)
                elif known.asks(order.price, order.size):
                    self._confirm(known, order)
                else:
                    await self.change(order, symbol, known)
        except (Refusal, NotFound) as error:
            self.refuse(str(error), reqid, order.oid, order.symbol)
        except OutcomeUnknown:
            self.counts["unknown"] += 1
            raise

    async def _prepare(self, fqme: str) -> Symbol:
        """The market of a request. Raises NotFound, BrokerDown."""
        try:
            return await self.add(fqme)
        except (ProviderError, DataThrottle) as error:
            raise BrokerDown(f"not sent: {error}") from None

    async def cancel(self, cancel: BrokerdCancel) -> None:
        """Send a cancel; see `TradeDialog.cancel`."""
        self.counts["requests"] += 1
        reqid = str(cancel.reqid)
        known = self.known.find(reqid)
        try:
            if known is None:
                symbol = (await self._prepare(cancel.symbol)).venue_symbol
                await self.take_back(symbol, reqid)
                return
            async with known.turn:
                await self._settle(known)
                await self.take_back(known.symbol, known.name)
        except (Refusal, NotFound) as error:
            self.refuse(str(error), reqid, cancel.oid, cancel.symbol)
        except OutcomeUnknown:
            self.counts["unknown"] += 1
            raise

    async def _settle(self, known: Known) -> None:
        """Find out about a leg that may have been made, before anything is done."""
        if known.unsure and known.legs:
            await self._look_up(known)

    async def _look_up(self, known: Known) -> None:
        """Ask for an order, before anything is sent. Raises BrokerDown."""
        try:
            await self._walk(known.reqid, known.symbol)
        except ProviderError as error:
            raise BrokerDown(f"not sent: {error}") from None

    def refuse(self, reason: str, reqid: str, oid: str = "", symbol: str = "") -> None:
        """Tell that a request was refused."""
        self.counts["refusals"] += 1
        self._send(BrokerdError(reason=reason, oid=oid, reqid=reqid, symbol=symbol))

    def acknowledge(
        self, known: Known, report: Report, fills: Sequence[Fill] = ()
    ) -> None:
        """Tell that the venue has an order, or its change, and how it stands."""
        self.counts["acks"] += 1
        self._send(
            BrokerdOrderAck(
                reqid=known.reqid,
                oid=known.oid,
                account=self._name,
                broker_id=report.broker_id,
                time_ns=report.time_ns,
            )
        )
        for fill in fills:
            self._tell_fill(fill, report)
        self.take_report(report)

    def _confirm(self, known: Known, order: BrokerdOrder) -> None:
        """The venue has it as it is asked for."""
        time_ns = self.account.side.clock.now_ns()
        self._send(
            BrokerdOrderAck(
                reqid=known.reqid, oid=order.oid, account=self._name, time_ns=time_ns
            )
        )
        self._tell_newest(known, time_ns)

    # Reports

    def take_event(self, raw: bytes, socket: Socket) -> None:
        """What the user stream tells. Never raises."""
        try:
            event = decode_event(raw)
            if isinstance(event, Report):
                self.take_report(event)
            elif isinstance(event, Terminated):
                self.counts["terminated"] += 1
                log.info("%s: the venue says %s", self.account.side.name, event.kind)
                socket.renew.set()
            elif isinstance(event, Other):
                if not event.known:
                    self._puzzle("unknown", f"an event {event.kind!r:.40}", raw)
            else:
                self.take_holdings(event)
        except (PikerError, ValueError) as error:
            self._puzzle("malformed", str(error), raw)
        except Exception as error:
            if not self.counts["failed"]:
                log.exception("an event could not be handled")
            self._puzzle("failed", repr(error), raw)

    def _puzzle(self, kind: str, text: str, raw: bytes) -> None:
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            log.warning("%s: %s: %.300r", self.account.side.name, text, raw)

    def take_holdings(self, event: Balances | Positions) -> None:
        """What the account holds has changed."""
        for position in self.holdings(event):
            self._send(position)

    @abc.abstractmethod
    def holdings(self, event: Balances | Positions) -> list[BrokerdPosition]:
        """The positions in an event, of the markets that are known here."""

    def note(self, report: Report) -> Known:
        """Remember what a report says; the order that it is of."""
        name = report.name
        known = self.known.note(name.reqid, report.symbol, report.action)
        leg = self.known.leg(
            known, name.number, report.price, report.size, report.time_ns
        )
        leg.note(report.state, report.filled, report.avg_price)
        self.known.own(report.symbol, report.broker_id, name.reqid)
        return known

    def take_report(self, report: Report) -> None:
        """Pass on what is told of an order."""
        known, number = self.note(report), report.name.number
        now_ns = self.account.side.clock.now_ns()
        if report.fill is not None:
            self._tell_fill(report.fill, report)
        if number == known.newest and not report.replaced:
            self._send(self._status(report, known.before(number), now_ns))
        elif number < known.newest and report.fill is not None:
            self._tell_newest(known, report.time_ns)

    def _tell_fill(self, fill: Fill, report: Report) -> None:
        self.counts["fills"] += 1
        self._send(
            fill_message(
                fill,
                reqid=report.name.reqid,
                action=report.action,
                fqme=self.fqme(report.symbol),
                now_ns=self.account.side.clock.now_ns(),
            )
        )

    @staticmethod
    def _status(report: Report, before: Decimal, now_ns: int) -> BrokerdStatus:
        return BrokerdStatus(
            time_ns=report.time_ns or now_ns,
            reqid=report.name.reqid,
            status=report.state,
            filled=before + report.filled,
            remaining=max(report.size - report.filled, _ZERO),
            reason=report.reason if report.state == "canceled" else "",
            broker_details={"client_order_id": str(report.name), "kind": report.kind},
            broker_id=report.broker_id,
        )

    def _tell_newest(self, known: Known, time_ns: int, reason: str = "") -> None:
        """How an order stands by what is remembered of its newest leg."""
        leg = known.leg
        assert leg is not None
        self._send(
            BrokerdStatus(
                time_ns=time_ns,
                reqid=known.reqid,
                status=leg.state,
                filled=known.before(known.newest) + leg.filled,
                remaining=max(leg.size - leg.filled, _ZERO),
                reason=reason,
            )
        )

    # What the venue has

    async def order(self, reqid: str, symbol: str) -> BrokerOrder | None:
        """The order of this client order id; see `TradeDialog.order`."""
        return await self._walk(reqid, (await self.add(symbol)).venue_symbol)

    async def _walk(self, reqid: str, symbol: str) -> BrokerOrder | None:
        """Ask for the legs of an order, until there is no other."""
        newest: Report | None = None
        number = 0
        while True:
            name = str(LegName(reqid, number))
            report = await self.account.order(symbol, name=name)
            if report is None:
                break
            known, newest = self.note(report), report
            if report.state != "canceled":
                break
            number += 1
        if newest is None:
            return None
        known.unsure = False
        return broker_order(newest, known, self.fqme(symbol))

    async def orders(self) -> list[BrokerOrder]:
        """All open orders; see `TradeDialog.orders`."""
        found = []
        for report in await self.account.open_orders():
            found.append(await self._completed(report))
        return found

    async def _completed(self, report: Report) -> BrokerOrder:
        """An order with what the legs before this one have filled."""
        known = self.note(report)
        for number in range(report.name.number - 1, -1, -1):
            if number not in known.legs:
                name = str(LegName(known.reqid, number))
                leg = await self.account.order(report.symbol, name=name)
                if leg is None:
                    break  # a name of others that looks like one of ours
                self.note(leg)
        return broker_order(report, known, self.fqme(report.symbol))

    async def prime(self) -> None:
        """Learn of the open orders, once, before anything is heard of them."""
        if not self._primed:
            await self.orders()
            self._primed = True

    async def fills(self, since_ns: int, symbol: str = "") -> list[BrokerdFill]:
        """Executions since then; see `TradeDialog.fills`."""
        if symbol:
            wanted = [(await self.add(symbol)).venue_symbol]
        else:
            wanted = list({*self.markets, *self._names})
        found: list[BrokerdFill] = []
        for venue_symbol in wanted:
            for row in await self.account.trades(venue_symbol, since_ns):
                found.append(
                    fill_message(
                        row.fill,
                        reqid=await self._owner(venue_symbol, str(row.orderId)),
                        action="buy" if row.bought else "sell",
                        fqme=self.fqme(venue_symbol),
                        now_ns=self.account.side.clock.now_ns(),
                    )
                )
        return sorted(found, key=lambda fill: fill.broker_time)

    async def _owner(self, symbol: str, broker_id: str) -> str:
        """Whose leg an id of the venue is; "" where it does not know any more."""
        owner = self.known.owner(symbol, broker_id)
        if owner is None:
            report = await self.account.order(symbol, broker_id=broker_id)
            owner = report.name.reqid if report is not None else ""
            self.known.own(symbol, broker_id, owner)
        return owner

    async def cancel_all(self) -> None:
        """Cancel every open order of this side; see `TradeDialog.cancel_all`."""
        reports = await self.account.open_orders()
        failure: ProviderError | None = None
        for symbol in {report.symbol for report in reports}:
            try:
                await self.sweep(symbol)
            except ProviderError as error:
                failure = error
        if failure is not None:
            raise failure

    @abc.abstractmethod
    async def sweep(self, symbol: str) -> None:
        """Cancel the open orders of a market. Raises as `place`."""

    def fqme(self, symbol: str) -> str:
        """Our name of a market by the venue's."""
        listed = self.markets.get(symbol)
        if listed is not None:
            return listed.fqme
        name = self._names.get(symbol)
        if name is None:
            name = market_name(symbol, contract=self.account.contracts)
            self._names[symbol] = name
        return name

    def position(
        self, symbol: Symbol, size: Decimal, price: Decimal = _ZERO
    ) -> BrokerdPosition:
        """What the account holds of a market."""
        return BrokerdPosition(
            broker=PROVIDER,
            account=self._name,
            symbol=symbol.fqme,
            size=size,
            avg_price=price,
            currency=symbol.market.quote.name,
        )
