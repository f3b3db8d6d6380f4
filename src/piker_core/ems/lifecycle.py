"""The life of one order: a table of what may follow what, and what is kept of it.

1. An order is in one state, the last `resp` that says one. `LIFE` says to which state a
   word leads; a word that is not in it for a state changes nothing.
2. What is filled is the sum of the fills that were told, each known by its id. An order
   is closed when that is its size or, if it was ever updated, when the broker says so.
   A broker that says "closed" or "canceled" before all fills of it are here is believed
   when they are: the end waits for them.
3. An order that has ended stays so. A fill that comes after all, as it has happened, is
   told and counted; it changes no state.
4. At most one request about an order is at the broker; what is asked meanwhile waits.
"""

from decimal import Decimal
from typing import Any, Literal

import msgspec

from piker_core.orders import BrokerdFill, Order, Resp, Update

Word = Literal["open", "fill", "filled", "canceled", "refused", "trigger", "send"]

LIFE: dict[tuple[Resp, Word], Resp] = {
    ("pending", "open"): "open",
    ("pending", "fill"): "open",
    ("pending", "filled"): "closed",
    ("pending", "canceled"): "canceled",
    ("pending", "refused"): "error",
    ("open", "open"): "open",
    ("open", "fill"): "open",
    ("open", "filled"): "closed",
    ("open", "canceled"): "canceled",
    ("dark_open", "trigger"): "triggered",
    ("dark_open", "canceled"): "canceled",
    ("dark_open", "refused"): "error",
    ("triggered", "send"): "pending",
    ("triggered", "refused"): "error",
}
ENDS = frozenset({"closed", "canceled", "error"})
"""States that nothing leads out of; "triggered" is one of an alert."""
Asked = Literal["", "new", "update", "cancel"]
FillNews = Literal["", "fill", "correction", "fee"]


class Dialog(msgspec.Struct, kw_only=True):
    """One order as it is kept: what was wanted, and what has become of it."""

    order: Order
    """As it is now, updates that were taken included."""
    session: str
    """Of the client that sent it."""
    adopter: str = ""
    """Of the client that took it over."""
    reqid: str
    state: Resp
    began_ns: int
    filled: Decimal = Decimal(0)
    broker_id: str = ""
    acked: bool = False
    """The broker has said that it has it."""
    asked: Asked = ""
    """The request that is at the broker."""
    changed: bool = False
    """An update was sent: of its size the broker is asked, not what is known here."""
    asked_update: Order | None = None
    """The order as it is wanted by the update that is at the broker."""
    asked_ns: int = 0
    answered_ns: int = 0
    """When the last request at the broker had its answer."""
    waiting: list[Update] = []
    """Updates that wait for the request at the broker."""
    cancel_waits: bool = False
    cancel_called: bool = False
    unsent: bool = False
    """It is to be sent, or its cancel is, as soon as there is a link to the broker."""
    must_cancel: bool = False
    """It is to be canceled, however often that is refused."""
    unknown: bool = False
    """Nobody knows whether the request at the broker was done."""
    ending: Literal["", "closed", "canceled"] = ""
    """The broker has ended it, and not all of its fills are here."""
    ending_filled: Decimal = Decimal(0)
    fills: dict[str, tuple[int, Decimal, bool]] = {}
    """By id: revision, size, and whether the fee is known."""
    armed: dict[str, Any] = {}
    """How its trigger stands, for after a restart."""
    said: int = 0
    """The place of its last status."""
    told: int = 0
    """The place of the last one that its client got."""
    reason: str = ""
    paper: dict[str, Any] = {}
    """What the paper engine keeps of it."""

    @property
    def oid(self) -> str:
        """The strategy's name of it."""
        return self.order.oid

    @property
    def ended(self) -> bool:
        """Whether nothing more is expected of it."""
        return self.state in ENDS or (
            self.state == "triggered" and self.order.action == "alert"
        )

    @property
    def is_triggered(self) -> bool:
        """Whether its trigger was reached, and it was not sent yet."""
        return not (self.kept_here or self.acked or self.asked or self.ended)

    @property
    def waits_for_link(self) -> bool:
        """Whether it was triggered, and the broker knows nothing of it yet."""
        return self.unsent and not self.acked

    @property
    def kept_here(self) -> bool:
        """Whether it waits for its trigger and no broker knows of it."""
        return self.state == "dark_open"

    @property
    def remaining(self) -> Decimal:
        """What is still to be filled."""
        return max(self.order.size - self.filled, Decimal(0))

    def hear(self, word: Word) -> bool:
        """Go on to where a word leads; False if it leads nowhere from here."""
        after = LIFE.get((self.state, word))
        if after is None or self.ended:
            return False
        self.state = after
        return True

    def fill(self, fill: BrokerdFill) -> FillNews:
        """Count a fill, and say what is new in it.

        A higher revision takes the place of the size that it corrects.
        """
        known = self.fills.get(fill.fill_id)
        has_fee = fill.fee is not None
        if known is None:
            self.fills[fill.fill_id] = (fill.revision, fill.size, has_fee)
            self.filled += fill.size
            return "fill"
        revision, size, had_fee = known
        if fill.revision > revision:
            self.fills[fill.fill_id] = (fill.revision, fill.size, has_fee or had_fee)
            self.filled += fill.size - size
            return "correction"
        if has_fee and not had_fee:
            self.fills[fill.fill_id] = (revision, size, True)
            return "fee"
        return ""

    def updated(self, update: Update) -> Order:
        """The order with another price or size."""
        changes = {
            name: value
            for name in ("price", "size", "stop", "trail")
            if (value := getattr(update, name)) is not None
        }
        return msgspec.structs.replace(self.order, **changes)
