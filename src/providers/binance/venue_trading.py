"""The spot account of a simulated Binance, as `piker-core check` trades with it.

An order of a check may be several of the venue's: the first one has the reqid for its
client order id, those in its place have `reqid-1` and so on.
"""

from decimal import Decimal
from typing import Any

from piker_core.simulation.matching import VenueOrder
from piker_core.simulation.private import (
    OrderSwitches,
    PrivateFill,
    PrivateOrder,
    Terms,
    as_fills,
)

from .venue import API_KEY, API_SECRET, Venue
from .venue_spot_account import SpotAccount
from .venue_symbols import MS

_SYMBOL = "btcusdt"


class PrivateSide:
    """See `piker_core.simulation.private.PrivateSide`."""

    account = "binance"
    terms = Terms(
        symbol=_SYMBOL,
        size=Decimal("0.04"),
        too_small=Decimal("0.00001"),
        too_much=Decimal(1000),
    )

    def __init__(self, venue: Venue) -> None:
        self._venue, self._market = venue, venue.market(_SYMBOL)
        self.keys = {"api_key": API_KEY, "api_secret": API_SECRET}
        self.wrong_keys = {name: key[::-1] for name, key in self.keys.items()}
        self.secrets = (*self.keys.values(), *self.wrong_keys.values())
        account = venue.spot.account
        assert isinstance(account, SpotAccount)
        self._account = account
        faults = venue.faults
        self.switches = OrderSwitches(
            lose_answer=lambda done: faults.time_out_orders(1, executed=done),
            cut_request=lambda done: faults.lose_answers(1, executed=done),
            repeat=lambda on: faults.duplicate_reports(float(on)),
            disorder=lambda on: faults.disorder_reports(float(on)),
            cut=faults.cut,
        )

    def best(self) -> tuple[Decimal, Decimal]:
        """Bid and ask now."""
        self._venue.spot.exchange.advance()
        quote = self._market.quote
        return self._market.price(quote.bid), self._market.price(quote.ask)

    def print_trade(self, price: Decimal, size: Decimal) -> Decimal:
        """Let a trade happen that orders alone see."""
        took = self._account.matching.print_trade(self._market.pair.symbol, price, size)
        self._account.flush()
        return took

    def order(self, reqid: str) -> PrivateOrder | None:
        """What all legs of an order add up to."""
        orders = self._account.matching.orders.values()
        legs = [each for each in orders if self._reqid(each) == reqid]
        if not legs:
            return None
        newest = legs[-1]
        filled = sum((leg.filled for leg in legs), Decimal(0))
        return PrivateOrder(
            reqid=reqid,
            side=newest.side,
            price=newest.price or Decimal(0),
            size=filled - newest.filled + newest.size,
            filled=filled,
            is_open=newest.state == "open",
        )

    def taken(self, reqid: str) -> int:
        """How many orders were taken under this id."""
        return self._account.accepted[reqid]

    def open_orders(self) -> list[str]:
        """The reqids of what is open."""
        return [self._reqid(each) for each in self._account.matching.open_orders()]

    def fills(self) -> list[PrivateFill]:
        """All executions of the market."""
        return as_fills(self._executions(), self._reqid)

    def position(self) -> Decimal:
        """The balance of the base."""
        return self._account.matching.balances[self._market.pair.base]

    def refused_for_rate(self) -> int:
        """Orders over the count, and calls over the weight."""
        return self._account.refused_orders + self._venue.spot.rest.meter.refused

    def records(self) -> list[Any]:
        """Rows of `myTrades`."""
        rows = self._executions()
        return [self._account.trade_row(order, each, MS) for order, each in rows]

    def _executions(self) -> list[tuple[VenueOrder, Any]]:
        symbol = self._market.pair.symbol
        rows = self._account.matching.executions()
        return [row for row in rows if row[0].symbol == symbol]

    def _reqid(self, order: VenueOrder) -> str:
        return self._account.names[order.number].partition("-")[0]


def open_private(venue: Venue) -> PrivateSide:
    """The private side of a venue."""
    return PrivateSide(venue)
