"""Client order ids, and what all orders under one `reqid` add up to.

1. Spot cannot change an order but makes another in its place: a leg. The first one has
   the `reqid` as its client order id, the next ones `reqid-1`, `reqid-2`. What cancels
   a leg to make room for leg 2 is named `reqid-2r`: such a cancel ends nothing.
2. A `reqid` has filled what all its legs have; its size is what the legs before the
   newest one have filled, and the size of that.
3. What a leg has filled never shrinks, in whichever order the venue tells it.
"""

import re
from collections import OrderedDict
from decimal import Decimal
from typing import NamedTuple

import trio

from piker_core.orders import Side, State

_NAME = re.compile(r"([0-9a-z]{1,18})(?:-([1-9][0-9]{0,5}))?(r)?")
_MOST_ENDED = 4096
"""Orders that are remembered after their end, to tell whose late reports are."""
_ZERO = Decimal(0)


class LegName(NamedTuple):
    """A client order id: of which order, its leg, and whether it makes room for it."""

    reqid: str
    number: int = 0
    replaces: bool = False

    def __str__(self) -> str:
        suffix = f"-{self.number}" if self.number else ""
        return f"{self.reqid}{suffix}{'r' * self.replaces}"


def parse_name(text: str) -> LegName:
    """The parts of a client order id; one that is none of ours is a name of its own."""
    match = _NAME.fullmatch(text)
    if match is None or (match[3] and not match[2]):
        return LegName(text)
    return LegName(match[1], int(match[2] or 0), bool(match[3]))


class Leg:
    """One order at the venue: what it is, its size, and how much is filled."""

    __slots__ = ("cost", "filled", "price", "size", "state", "time_ns")

    def __init__(self) -> None:
        self.price = self.size = self.filled = self.cost = _ZERO
        self.time_ns = 0
        self.state: State = "open"

    def note(self, state: State, filled: Decimal, avg_price: Decimal = _ZERO) -> None:
        """The venue says so. An end is final."""
        if filled > self.filled:
            self.filled, self.cost = filled, filled * avg_price
        if self.state == "open":
            self.state = state


class Known:
    """All legs of a `reqid`; `unsure` while there may be one more.

    Requests about it take `turn`, so that each knows what the one before has done.
    """

    def __init__(self, reqid: str, symbol: str, action: Side, oid: str = "") -> None:
        self.reqid, self.symbol, self.action = reqid, symbol, action
        self.oid, self.unsure = oid, False
        self.turn = trio.Lock()
        self.legs: dict[int, Leg] = {}

    @property
    def newest(self) -> int:
        """The number of the newest leg."""
        return max(self.legs, default=0)

    @property
    def name(self) -> str:
        """The client order id of the newest leg."""
        return str(LegName(self.reqid, self.newest))

    @property
    def leg(self) -> Leg | None:
        """The newest leg; None before the venue has one."""
        return self.legs.get(self.newest)

    @property
    def ended(self) -> bool:
        """Whether its newest leg is at its end."""
        return self.leg is not None and self.leg.state != "open"

    def asks(self, price: Decimal, size: Decimal) -> bool:
        """Whether it stands at this price, and has this size as a whole."""
        leg = self.leg
        return (
            leg is not None
            and leg.state == "open"
            and leg.price == price
            and self.before(self.newest) + leg.size == size
        )

    def before(self, number: int) -> Decimal:
        """What the legs before this one have filled."""
        return sum(
            (leg.filled for each, leg in self.legs.items() if each < number), _ZERO
        )

    @property
    def avg_price(self) -> Decimal:
        """Of all that is filled; 0 where nothing is."""
        filled = self.before(self.newest + 1)
        cost = sum((leg.cost for leg in self.legs.values()), _ZERO)
        return cost / filled if filled else _ZERO


class Orders:
    """The orders that this dialog has sent or heard of, and whose they are."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._by_broker_id: OrderedDict[tuple[str, str], str] = OrderedDict()

    def find(self, reqid: str) -> Known | None:
        """The order of this name, if anything is known of it."""
        return self._known.get(reqid)

    def note(self, reqid: str, symbol: str, action: Side, oid: str = "") -> Known:
        """The order of this name, from now on known."""
        known = self._known.get(reqid)
        if known is None:
            known = self._known[reqid] = Known(reqid, symbol, action, oid)
            self._forget()
        known.oid = known.oid or oid
        return known

    @staticmethod
    def leg(
        known: Known, number: int, price: Decimal, size: Decimal, time_ns: int
    ) -> Leg:
        """A leg of an order, from now on known; of what is told the newest holds."""
        leg = known.legs.setdefault(number, Leg())
        if time_ns >= leg.time_ns:
            leg.price, leg.size, leg.time_ns = price, size, time_ns
        return leg

    def own(self, symbol: str, broker_id: str, reqid: str) -> None:
        """The venue's own id of a leg of an order."""
        self._by_broker_id[symbol, broker_id] = reqid
        while len(self._by_broker_id) > 2 * _MOST_ENDED:
            self._by_broker_id.popitem(last=False)

    def owner(self, symbol: str, broker_id: str) -> str | None:
        """The order that has a leg of this id at the venue."""
        return self._by_broker_id.get((symbol, broker_id))

    def _forget(self) -> None:
        """Let go of the oldest that have ended."""
        if len(self._known) <= _MOST_ENDED:
            return
        for reqid, known in self._known.items():
            if known.ended:
                del self._known[reqid]
                return
