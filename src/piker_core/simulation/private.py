"""The private side of a simulated venue: what `piker-core check` needs to trade at it.

A provider's package may have a module `venue_trading` with a function

    open_private(venue) -> PrivateSide

for a venue that its `open_venue` gave. Without one, checks of orders do not apply.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, Protocol

import msgspec

from piker_core.simulation.matching import VenueOrder

Side = Literal["buy", "sell"]


class PrivateOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the venue has it, however many it took to make it one."""

    reqid: str
    side: Side
    price: Decimal
    size: Decimal
    filled: Decimal
    is_open: bool


class PrivateFill(msgspec.Struct, frozen=True, kw_only=True):
    """An execution: `size` of it alone, positive; `reqid` of its order."""

    reqid: str
    side: Side
    price: Decimal
    size: Decimal


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What orders of a check are: their market, and sizes of it.

    `symbol`: the name that the provider uses. `size`: of an order that is well taken,
    and so is its fourth part; `too_small`: below the minimum, None if there is none;
    `too_much`: more than can be paid.
    """

    symbol: str
    size: Decimal
    too_small: Decimal | None
    too_much: Decimal


class OrderSwitches(msgspec.Struct, frozen=True, kw_only=True):
    """Faults of orders; None where the venue has not got it.

    `lose_answer(done)`: the next request about an order is not answered, done or not.
    `cut_request(done)`: the connection is reset in place of the answer. `repeat(on)`:
    reports come twice. `disorder(on)`: what is told at once comes in another order.
    `cut()`: every connection is reset.
    """

    lose_answer: Callable[[bool], object] | None = None
    cut_request: Callable[[bool], object] | None = None
    repeat: Callable[[bool], object] | None = None
    disorder: Callable[[bool], object] | None = None
    cut: Callable[[], object] | None = None


class PrivateSide(Protocol):
    """One account at a simulated venue, and the truth about it.

    Everything is synchronous and belongs to the venue's event loop.
    """

    account: str
    """What `open_trade_dialog` is given."""
    keys: Mapping[str, Any]
    """Keys of the configuration that are let in; none where the venue has none."""
    wrong_keys: Mapping[str, Any]
    """The same, refused by the venue."""
    secrets: Sequence[str]
    """What nobody may get to read."""
    terms: Terms
    switches: OrderSwitches

    def best(self) -> tuple[Decimal, Decimal]:
        """Bid and ask of the market now."""

    def print_trade(self, price: Decimal, size: Decimal) -> Decimal:
        """Let a trade happen that orders alone see; what they took of it."""

    def order(self, reqid: str) -> PrivateOrder | None:
        """The order of a client order id; None: there was never any."""

    def taken(self, reqid: str) -> int:
        """How many orders were taken as new ones under this very id."""

    def open_orders(self) -> list[str]:
        """The client order ids of what is open, oldest first."""

    def fills(self) -> list[PrivateFill]:
        """All executions, oldest first."""

    def position(self) -> Decimal:
        """What the account holds of the market."""

    def refused_for_rate(self) -> int:
        """Requests about orders that were over a limit."""

    def records(self) -> list[Any]:
        """All executions as `norm_trade` takes them; [] if none can be made."""


def as_fills(
    rows: Sequence[tuple[VenueOrder, Any]], name: Callable[[VenueOrder], str]
) -> list[PrivateFill]:
    """Executions of the matching as the truth of a check."""
    return [
        PrivateFill(
            reqid=name(order), side=order.side, price=each.price, size=each.size
        )
        for order, each in rows
    ]
