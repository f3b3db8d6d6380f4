"""Orders of a simulated gateway's clients: placed, changed, canceled, matched, told.

Rules this file owns:

1. An order belongs to the client id and the number that placed it, and has a lasting
   number, its permId. A number above all that its client had is a new order; that of an
   open one changes it.
2. Its client is told what becomes of it, wherever it is connected from now; nobody else
   unless he asks, or is client 0 and has bound what was made by hand.
3. Executions, and orders that have ended, are told until the day ends.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

import trio

from piker_core.simulation.market import NS
from piker_core.simulation.matching import Matching, OrderEvent, OrderRefused
from piker_core.simulation.matching import VenueOrder as Matched

from .venue_account import Accounts
from .venue_contracts import VenueContract
from .venue_directory import Directory, Found, Refused, Wanted
from .venue_frames import SYSTEM, Fields, frame
from .venue_link import Link
from .venue_market import ContractExchange
from .venue_order_faults import OrderFaults
from .venue_order_frames import (
    Asked,
    Report,
    Ticket,
    commission_frame,
    completed_frame,
    execution_frame,
    open_order_frame,
    read_order,
    status_frame,
)

_FIRST_PERM = 1_376_327_563
_PLENTY = Decimal(10) ** 15
READ_ONLY = (
    "Error validating request.-'cf' : cause - "
    "The API interface is currently in Read-Only mode."
)
_TIMES = {"GTC": "gtc", "DAY": "gtc", "IOC": "ioc", "FOK": "fok"}
_REFUSALS = {
    "tick": (110, "The price does not conform to the minimum price variation"),
    "price": (201, "Order rejected - reason:Invalid price"),
    "size": (434, "The order size cannot be zero."),
    "step": (387, "Order size does not conform to the market rule"),
    "minimum": (388, "Order size is smaller than the minimum requirement."),
    "ended": (104, "Cannot modify a filled order."),
}  # fmt: skip
_DEAD = {"filled": "Filled", "canceled": "Cancelled", "expired": "Cancelled"}


class Orders:
    """All orders of a gateway; `accepted` counts those taken by reference.

    The truth is in `tickets` and `reports`; `links` gives the clients that are there.
    """

    def __init__(
        self,
        exchange: ContractExchange,
        directory: Directory,
        links: Callable[[], Iterable[Link]],
        accounts: Sequence[str],
    ) -> None:
        self.faults = OrderFaults()
        self.tickets: list[Ticket] = []
        self.reports: list[Report] = []
        self.accepted: Counter[str] = Counter()
        self.accounts = Accounts(accounts)
        self.nursery: trio.Nursery
        self._exchange = exchange
        self._directory = directory
        self._links = links
        self._next_ids: Counter[int] = Counter()
        self._by_match: dict[int, Ticket] = {}
        self._binding: set[Link] = set()
        self._mute: set[int] = set()
        self._day_begin = [0, 0]
        self._events: list[OrderEvent] = []
        self._matching = Matching[VenueContract](
            exchange, self._on_event,
            assets=lambda pair: (f"contract {pair.con_id}", pair.currency),
            balances=_balances(exchange), cost_min=Decimal(0),
        )  # fmt: skip

    # The truth

    def of(self, ref: str) -> list[Ticket]:
        """All orders that were taken under a reference, oldest first."""
        return [ticket for ticket in self.tickets if ticket.ref == ref]

    def fills(self, ref: str) -> list[Report]:
        """Executions of a reference, as they are told now, oldest first."""
        return [report for report in self.reports if report.ticket.ref == ref]

    def print_trade(self, symbol: str, price: Decimal, size: Decimal) -> Decimal:
        """Let a trade happen that orders alone see; returns what they took of it."""
        return self._matching.print_trade(symbol, price, size)

    def by_hand(
        self, symbol: str, side: str, size: Decimal, price: Decimal, account: str = ""
    ) -> Ticket:
        """An order as a person places it in TWS: of no client, without a number."""
        wanted = Wanted(0, symbol, "STK", "", 0.0, "", "", "SMART", "", "USD", "", "")
        asked = Asked(
            order_id=0, contract=wanted, action=side.upper(), size=size, kind="LMT",
            price=price, tif="GTC", account=account or self.accounts.codes[0], ref="",
            outside_rth=False, what_if=False,
        )  # fmt: skip
        return self._accept(0, asked, self._directory.resolve(wanted))

    def correct(self, ref: str, price: Decimal) -> Report:
        """Correct the last execution of an order: the same id, a higher last part."""
        report = self.fills(ref)[-1]
        report.price = price
        report.revision += 1
        self._tell_execution(report)
        return report

    def end_day(self) -> None:
        """The daily restart: orders for the day expire, lists of what was are empty."""
        for ticket in self.tickets:
            if ticket.tif == "DAY" and not ticket.ended:
                self._matching.cancel(ticket.order, reason="End of day")
        self._day_begin = [len(self.tickets), len(self.reports)]

    def reset_ids(self) -> None:
        """Say 1 is the next number of every client, as a button in TWS does."""
        self._next_ids.clear()

    # Requests

    def place(self, link: Link, fields: Fields) -> None:
        """placeOrder: a new order, the change of one, or what one would do."""
        asked = read_order(fields, link.version)
        client_id = link.client_id or 0
        if self.faults.read_only:
            raise Refused(321, READ_ONLY)
        if asked.what_if:
            self._reckon(link, client_id, asked)
            return
        fate = self.faults.take()
        if fate == "cut_before":
            link.reset()
        if fate in ("cut_before", "swallow"):
            return
        if fate == "lose_answer":
            self._mute.add(client_id)
        if fate == "cut_after":
            link.over = True
        try:
            self._place(link, client_id, asked, warn=fate == "warn")
        finally:
            self._mute.discard(client_id)
            if fate == "cut_after":
                link.reset()

    def _place(self, link: Link, client_id: int, asked: Asked, *, warn: bool) -> None:
        found = self._directory.resolve(asked.contract)
        known = self._find(client_id, asked.order_id)
        if known is not None and not known.ended:
            self._change(known, asked, found)
            return
        if known is not None and known.word == "Filled":
            raise Refused(104, "Cannot modify a filled order.")
        if known is not None or asked.order_id < self.next_id(client_id):
            raise Refused(103, "Duplicate order id")
        self._check(asked, found)
        if warn:
            text = "Order Message:\nWarning: your order will not be placed at the ex"
            link.error(asked.order_id, 399, f"{text}change until the market opens")
        self._accept(client_id, asked, found)

    def _check(self, asked: Asked, found: Found) -> None:
        if not asked.account and len(self.accounts.codes) > 1:
            raise Refused(435, "You must specify an account.")
        if asked.account and asked.account not in self.accounts.codes:
            raise Refused(321, f"Error validating request.-'bN' : cause - Invalid "
                          f"account code '{asked.account}'.")  # fmt: skip
        if asked.tif not in _TIMES:
            raise Refused(391, f"The time-in-force is invalid: {asked.tif}.")
        if asked.kind not in ("LMT", "MKT"):
            raise Refused(387, "Unsupported order type for this exchange and security "
                          "type.")  # fmt: skip
        margin = self.accounts.margin(found, self._worth(asked, found), asked.size)
        equity = self.accounts.equity
        if margin > equity:
            raise Refused(201, "Order rejected - reason:YOUR ORDER IS NOT ACCEPTED. IN "
                          "ORDER TO OBTAIN THE DESIRED POSITION YOUR EQUITY WITH LOAN "
                          f"VALUE [{equity} USD] MUST EXCEED THE INITIAL MARGIN "
                          f"[{margin:.2f} USD]")  # fmt: skip

    def _worth(self, asked: Asked, found: Found) -> Decimal:
        """The price of an order, or about that of the market."""
        return asked.price or found.market.price(found.market.last_units())

    def _accept(self, client_id: int, asked: Asked, found: Found) -> Ticket:
        self._events, before = [], self._events
        size, now_s = asked.size, int(time.time())
        try:
            matched = self._matching.place(
                found.contract.symbol,
                "buy" if asked.action == "BUY" else "sell",
                size=size, price=asked.price, client_id=asked.ref,
                tif=_TIMES[asked.tif],  # type: ignore[arg-type]
            )  # fmt: skip
        except OrderRefused as refused:
            raise _refused(refused) from None
        finally:
            events, self._events = self._events, before
        ticket = Ticket(
            client_id=client_id, order_id=asked.order_id,
            perm_id=_FIRST_PERM + len(self.tickets),
            account=asked.account or self.accounts.codes[0], ref=asked.ref,
            kind=asked.kind, tif=asked.tif, outside_rth=asked.outside_rth, found=found,
            order=matched, ended_s=now_s,
        )  # fmt: skip
        self.tickets.append(ticket)
        self.accepted[asked.ref] += 1
        self._by_match[matched.number] = ticket
        if asked.order_id > 0:
            self._next_ids[client_id] = asked.order_id + 1
        if not asked.order_id:
            self._bind(ticket)
        self._tell_new(ticket, events)
        return ticket

    def _tell_new(self, ticket: Ticket, events: list[OrderEvent]) -> None:
        """An order that was just taken: what it is now, and what became of it."""
        later = [event for event in events if event.kind != "new"]
        if not self.faults.disordered:
            self._tell_order(ticket, filled=Decimal(0))
        if self.faults.pending:
            return
        ticket.word = "Submitted"
        for event in later:
            self._happen(ticket, event)
        if self.faults.disordered or not later:
            word, ticket.word = ticket.word, "Submitted"
            self._tell_order(ticket, filled=Decimal(0))
            ticket.word = word

    def _change(self, ticket: Ticket, asked: Asked, found: Found) -> None:
        side = "buy" if asked.action == "BUY" else "sell"
        other = found.contract is not ticket.contract or side != ticket.order.side
        if other or asked.kind != ticket.kind:
            raise Refused(105, "Order being modified does not match original order.")
        try:
            self._matching.amend(ticket.order, size=asked.size, price=asked.price)
        except OrderRefused as refused:
            raise _refused(refused) from None
        if not ticket.ended:
            self._tell_order(ticket)

    def _reckon(self, link: Link, client_id: int, asked: Asked) -> None:
        found = self._directory.resolve(asked.contract)
        self._check(asked, found)
        margins = self.accounts.reckon(found, self._worth(asked, found), asked.size)
        matched = Matched(
            number=0, symbol=found.contract.symbol,
            side="buy" if asked.action == "BUY" else "sell", size=asked.size,
            price=asked.price,
        )  # fmt: skip
        ticket = Ticket(
            client_id=client_id, order_id=asked.order_id, perm_id=0,
            account=asked.account, ref=asked.ref, kind=asked.kind, tif=asked.tif,
            outside_rth=False, found=found, order=matched, word="PreSubmitted",
        )  # fmt: skip
        self._next_ids[client_id] = max(asked.order_id + 1, self.next_id(client_id))
        link.send(open_order_frame(link.version, ticket, margins))

    def cancel(self, link: Link, fields: Fields) -> None:
        """cancelOrder."""
        fields.integer()  # version
        number = fields.read_id()
        ticket = self._find(link.client_id or 0, number)
        text = f"OrderId {number} that needs to be cancelled"
        if ticket is None:
            raise Refused(10147, f"{text} is not found.")
        if ticket.word == "Filled":
            raise Refused(161, "Cancel attempted when order is not in a cancellable "
                          f"state. Order permId ={ticket.perm_id}")  # fmt: skip
        if ticket.ended:
            raise Refused(10148, f"{text} cannot be cancelled, state: {ticket.word}.")
        ticket.word = "PendingCancel"
        self._tell_status(ticket)
        self._matching.cancel(ticket.order, reason="")

    def cancel_all(self, link: Link, _: Fields) -> None:
        """reqGlobalCancel: all accounts and clients."""
        if self.faults.read_only:
            link.error(SYSTEM, 321, READ_ONLY)
            return
        for ticket in self.tickets:
            if not ticket.ended:
                self._matching.cancel(ticket.order, reason="")

    def open_orders(self, link: Link, _: Fields) -> None:
        """reqOpenOrders: those of the client; client 0 gets those by hand as well."""
        self._list_open(link, lambda ticket: ticket.client_id == link.client_id)

    def all_open_orders(self, link: Link, _: Fields) -> None:
        """reqAllOpenOrders."""
        self._list_open(link, lambda _: True)

    def _list_open(self, link: Link, wanted: Callable[[Ticket], bool]) -> None:
        if self.faults.read_only:
            link.error(SYSTEM, 321, READ_ONLY)
            return
        self._exchange.advance()
        for ticket in self.tickets:
            if not ticket.ended and wanted(ticket):
                frames = open_order_frame(link.version, ticket), status_frame(ticket)
                link.send(*frames)
        link.send(frame(53, 1))

    def auto_open_orders(self, link: Link, fields: Fields) -> None:
        """reqAutoOpenOrders: client 0 takes hold of orders made by hand."""
        fields.integer()  # version
        if link.client_id:
            raise Refused(321, "Error validating request.-'cG' : cause - Only the "
                          "default client (i.e 0) can auto bind orders.")  # fmt: skip
        if fields.flag():
            self._binding.add(link)
            for ticket in self.tickets:
                if not ticket.client_id and not ticket.order_id:
                    self._bind(ticket)

    def completed(self, link: Link, fields: Fields) -> None:
        """reqCompletedOrders."""
        fields.flag()
        for ticket in self.tickets[self._day_begin[0] :]:
            if ticket.ended:
                link.send(completed_frame(link.version, ticket))
        link.send(frame(102))

    def executions(self, link: Link, fields: Fields) -> None:
        """reqExecutions; commissions follow their executions."""
        fields.integer()  # version
        request_id, client_id = fields.read_id(), fields.integer()
        account = fields.text()
        self._exchange.advance()
        for report in self.reports[self._day_begin[1] :]:
            ticket = report.ticket
            if client_id not in (0, ticket.client_id):
                continue
            if account in ("", ticket.account):
                link.send(execution_frame(link.version, request_id, report))
                if not self.faults.late_commission_s:
                    link.send(commission_frame(report))
        link.send(frame(55, 1, request_id))

    def next_id(self, client_id: int) -> int:
        """The number that the next order of a client may have."""
        return self._next_ids[client_id] or 1

    def forget(self, link: Link) -> None:
        """A client has gone."""
        self._binding.discard(link)
        self.accounts.forget(link)

    # What becomes of orders

    def _on_event(self, event: OrderEvent) -> None:
        ticket = self._by_match.get(event.order.number)
        if ticket is None:
            self._events.append(event)
        else:
            self._happen(ticket, event)

    def _happen(self, ticket: Ticket, event: OrderEvent) -> None:
        if event.execution is not None:
            self._fill(ticket, event)
        elif event.kind in _DEAD:
            ticket.word = _DEAD[event.kind]
            ticket.ended_s = event.time_ns // NS
            self._tell_order(ticket)
            if ticket.word == "Cancelled":
                text = f"Order Canceled - reason:{event.reason}"
                self._tell_error(ticket, 202, text)

    def _fill(self, ticket: Ticket, event: OrderEvent) -> None:
        execution, order = event.execution, ticket.order
        assert execution is not None
        report = Report(
            ticket=ticket, execution=execution,
            number=f"{ticket.perm_id & 0xFFFFFFFF:08x}.{execution.number:08x}.01",
            price=execution.price, size=execution.size, sum_size=order.filled,
            mean_price=order.cost / order.filled,
            commission=self.accounts.commission(ticket.contract, execution.size),
        )  # fmt: skip
        self.reports.append(report)
        self.accounts.fill(report)
        self._tell_execution(report)
        if order.remaining:
            self._tell_status(ticket)

    def _find(self, client_id: int, order_id: int) -> Ticket | None:
        for ticket in reversed(self.tickets):
            if (ticket.client_id, ticket.order_id) == (client_id, order_id):
                return ticket
        return None

    def _bind(self, ticket: Ticket) -> None:
        if self._binding:
            numbers = (each.order_id for each in self.tickets)
            ticket.order_id = min(-1, *numbers) - 1

    # Telling

    def _audience(self, ticket: Ticket) -> list[Link]:
        if ticket.client_id in self._mute:
            return []
        there = [link for link in self._links() if link.client_id == ticket.client_id]
        if not ticket.client_id and ticket.order_id <= 0:
            there = [link for link in there if link in self._binding]
        return there

    def _tell_order(self, ticket: Ticket, filled: Decimal | None = None) -> None:
        for link in self._audience(ticket):
            link.send(open_order_frame(link.version, ticket))
        self._tell_status(ticket, filled)

    def _tell_status(self, ticket: Ticket, filled: Decimal | None = None) -> None:
        times = 2 if self.faults.doubled else 1
        for link in self._audience(ticket):
            link.send(*[status_frame(ticket, filled)] * times)

    def _tell_error(self, ticket: Ticket, code: int, text: str) -> None:
        for link in self._audience(ticket):
            link.error(ticket.order_id, code, text)

    def _tell_execution(self, report: Report) -> None:
        for link in self._audience(report.ticket):
            link.send(execution_frame(link.version, SYSTEM, report))
        self.nursery.start_soon(self._tell_commission, report)

    async def _tell_commission(self, report: Report) -> None:
        """A little later than the execution, as ever."""
        await trio.sleep(self.faults.late_commission_s)
        for link in self._audience(report.ticket):
            link.send(commission_frame(report))


def _balances(exchange: ContractExchange) -> dict[str, Decimal]:
    """More than anyone trades: what margin allows is looked at before."""
    pairs = [market.pair for market in exchange.markets]
    names = {f"contract {pair.con_id}" for pair in pairs}
    return dict.fromkeys(names | {pair.currency for pair in pairs}, _PLENTY)


def _refused(refused: OrderRefused) -> Refused:
    code, text = _REFUSALS.get(
        refused.reason, (201, f"Order rejected - reason:{refused.reason}")
    )
    return Refused(code, text)
