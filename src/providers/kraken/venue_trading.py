"""The account of a simulated Kraken, as `piker-core check` trades with it."""

from decimal import Decimal
from typing import Any

import msgspec

from piker_core.simulation.matching import Execution, VenueOrder
from piker_core.simulation.private import (
    OrderSwitches,
    PrivateFill,
    PrivateOrder,
    Terms,
    as_fills,
)

from .venue import Venue
from .venue_reports import execution_id, rest_trade

_SYMBOL = "xbtusd"
_WRONG = {
    "api_key": "w1rong0simulated/key/of/nobody00000000000000000000000000",
    "api_secret": (
        "d3Jvbmcgc2VjcmV0IG9mIG5vYm9keSwgc2l4dHktZm91ciBieXRlcyBsb25nIGFzIHRoZSB2"
        "ZW51ZSdzIGFyZS4uLi4="
    ),
}


class PrivateSide:
    """See `piker_core.simulation.private.PrivateSide`."""

    account = "kraken"
    terms = Terms(
        symbol=_SYMBOL,
        size=Decimal("0.04"),
        too_small=Decimal("0.00001"),
        too_much=Decimal(1000),
    )

    def __init__(self, venue: Venue) -> None:
        self._venue, self._orders = venue, venue.orders
        self._market = venue.market(_SYMBOL)
        account = venue.orders.account
        self.keys = {"api_key": account.api_key, "api_secret": account.api_secret}
        self.wrong_keys = dict(_WRONG)
        self.secrets = (*self.keys.values(), *self.wrong_keys.values())
        faults = venue.order_faults
        self.switches = OrderSwitches(
            lose_answer=lambda done: faults.lie("silent", done=done),
            repeat=lambda on: faults.double_reports(float(on)),
            disorder=lambda on: faults.swap_reports(float(on) / 2),
            cut=faults.cut,
        )

    def best(self) -> tuple[Decimal, Decimal]:
        """Bid and ask now."""
        quote = self._market.quote
        return self._market.price(quote.bid), self._market.price(quote.ask)

    def print_trade(self, price: Decimal, size: Decimal) -> Decimal:
        """Let a trade happen that orders alone see."""
        matching = self._orders.matching
        return matching.print_trade(self._market.pair.symbol, price, size)

    def order(self, reqid: str) -> PrivateOrder | None:
        """The newest order of a client order id."""
        orders = self._orders.of(reqid)
        if not orders:
            return None
        newest = orders[-1]
        return PrivateOrder(
            reqid=reqid,
            side=newest.side,
            price=newest.price or Decimal(0),
            size=newest.size,
            filled=newest.filled,
            is_open=newest.state == "open",
        )

    def taken(self, reqid: str) -> int:
        """How many orders were taken under this id."""
        return self._orders.accepted(reqid)

    def open_orders(self) -> list[str]:
        """The client order ids of what is open."""
        return [each.client_id for each in self._orders.matching.open_orders()]

    def fills(self) -> list[PrivateFill]:
        """All executions of the pair."""
        return as_fills(self._executions(), lambda order: order.client_id)

    def position(self) -> Decimal:
        """The balance of the base."""
        return self._orders.matching.balances[self._market.pair.base.name]

    def refused_for_rate(self) -> int:
        """What the engine and private REST refused for its rate."""
        return self._orders.counter.refused + self._venue.private.refused

    def records(self) -> list[Any]:
        """Values of TradesHistory with their keys."""
        pair = self._market.pair
        rows = [
            rest_trade(order, each, pair) | {"txid": execution_id(each)}
            for order, each in self._executions()
        ]
        records: list[Any] = msgspec.json.decode(msgspec.json.encode(rows))
        return records

    def _executions(self) -> list[tuple[VenueOrder, Execution]]:
        symbol = self._market.pair.symbol
        return [row for row in self._orders.fills() if row[0].symbol == symbol]


def open_private(venue: Venue) -> PrivateSide:
    """The private side of a venue."""
    return PrivateSide(venue)
