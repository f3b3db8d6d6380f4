"""An account of a simulated TWS, as `piker-core check` trades with it."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from piker_core.simulation.private import (
    OrderSwitches,
    PrivateFill,
    PrivateOrder,
    Terms,
)

from .library import load_library
from .venue import Venue
from .venue_order_frames import Report

_NAME = "AAPL"


class PrivateSide:
    """See `piker_core.simulation.private.PrivateSide`. TWS has no keys."""

    account = "ib"
    secrets: tuple[str, ...] = ()

    def __init__(self, venue: Venue) -> None:
        self.keys: dict[str, Any] = {}
        self.wrong_keys: dict[str, Any] = {}
        self._venue, self._orders = venue, venue.orders
        self._market = venue.market(_NAME)
        self.terms = Terms(
            symbol=self._market.pair.market_name,
            size=Decimal(40),
            too_small=Decimal("0.5"),
            too_much=Decimal(1_000_000),
        )
        faults = venue.orders.faults
        self.switches = OrderSwitches(
            lose_answer=lambda done: faults.lose_answer() if done else faults.swallow(),
            cut_request=lambda done: (
                faults.cut_after() if done else faults.cut_before()
            ),
            repeat=lambda on: setattr(faults, "doubled", on),
            disorder=lambda on: setattr(faults, "disordered", on),
            cut=venue.faults.cut,
        )

    def best(self) -> tuple[Decimal, Decimal]:
        """Bid and ask now."""
        quote = self._market.quote
        return self._market.price(quote.bid), self._market.price(quote.ask)

    def print_trade(self, price: Decimal, size: Decimal) -> Decimal:
        """Let a trade happen that orders alone see."""
        return self._orders.print_trade(self._market.pair.symbol, price, size)

    def order(self, reqid: str) -> PrivateOrder | None:
        """The newest order of a reference."""
        tickets = self._orders.of(reqid)
        if not tickets:
            return None
        order = tickets[-1].order
        return PrivateOrder(
            reqid=reqid,
            side=order.side,
            price=order.price or Decimal(0),
            size=order.size,
            filled=order.filled,
            is_open=order.state == "open",
        )

    def taken(self, reqid: str) -> int:
        """How many orders were taken under this reference."""
        return self._orders.accepted[reqid]

    def open_orders(self) -> list[str]:
        """The references of what is open."""
        return [each.ref for each in self._orders.tickets if not each.ended]

    def fills(self) -> list[PrivateFill]:
        """All executions of the contract."""
        return [
            PrivateFill(
                reqid=each.ticket.ref,
                side=each.ticket.order.side,
                price=each.price,
                size=each.size,
            )
            for each in self._reports()
        ]

    def position(self) -> Decimal:
        """What the account holds of the contract."""
        accounts = self._orders.accounts
        return accounts.size(accounts.codes[0], self._market.pair.con_id)

    def refused_for_rate(self) -> int:
        """Messages over the rate."""
        return self._venue.statistics().message_refused

    def records(self) -> list[Any]:
        """Executions as ib_async has them."""
        return [self._record(each) for each in self._reports()]

    def _reports(self) -> list[Report]:
        con_id = self._market.pair.con_id
        reports = self._orders.reports
        return [row for row in reports if row.ticket.contract.con_id == con_id]

    def _record(self, report: Report) -> Any:
        library = load_library()
        ticket, row = report.ticket, report.ticket.contract
        contract = library.Contract(
            secType=row.sec_type,
            conId=row.con_id,
            symbol=row.ticker,
            exchange=row.exchange,
            primaryExchange=row.exchange,
            currency=row.currency,
            localSymbol=row.local_symbol,
        )
        time_ns = report.execution.time_ns
        execution = library.Execution(
            execId=report.exec_id,
            time=_utc(time_ns),
            acctNumber=ticket.account,
            exchange=row.exchange,
            side="BOT" if ticket.order.side == "buy" else "SLD",
            shares=float(report.size),
            price=float(report.price),
            permId=ticket.perm_id,
            clientId=ticket.client_id,
            orderId=ticket.order_id,
            orderRef=ticket.ref,
        )
        paid = library.CommissionReport(
            report.exec_id, float(report.commission), row.currency
        )
        return library.Fill(contract, execution, paid, _utc(time_ns))


def _utc(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns / 1e9, UTC)


def open_private(venue: Venue) -> PrivateSide:
    """The private side of a venue."""
    return PrivateSide(venue)
