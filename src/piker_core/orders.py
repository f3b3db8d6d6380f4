"""Messages of orders: what strategies, the gateway and brokers say to each other.

A strategy sends `Order`, `Update` and `Cancel` and hears `Status` and
`BrokerdPosition`. A broker hears `BrokerdOrder` and `BrokerdCancel` and says the other
`Brokerd...`. On the wire they are maps with a tag, `msg`; fields that are not known are
ignored and those that are missing have their default, so older and newer ends get on.

Prices and sizes are `Decimal`; text, integers and floats (as they are printed) are
taken for it. What no number of an order can be is refused with `OrderError`.
"""

from decimal import Decimal, InvalidOperation
from typing import Any, Literal, get_args

import msgspec

from piker_core.errors import OrderError

Action = Literal["buy", "sell", "alert"]
Side = Literal["buy", "sell"]
ExecMode = Literal["live", "dark", "paper"]
TimeInForce = Literal["gtc", "ioc", "fok", "day"]
Resp = Literal[
    "pending",
    "open",
    "dark_open",
    "triggered",
    "closed",
    "fill",
    "canceled",
    "error",
]
State = Literal["pending", "open", "closed", "canceled"]
"""What an order is at a broker; an expired or refused one is canceled."""

MOST_OID = 64
"""Characters of an order id."""
_MOST_DIGITS = 40
_set = msgspec.structs.force_setattr


def exact(value: Decimal | str | float, what: str) -> Decimal:
    """A number of an order, exactly. Raises OrderError that names `what` it is."""
    try:
        number = Decimal(repr(value) if isinstance(value, float) else value)
        exponent = number.as_tuple().exponent
    except (InvalidOperation, TypeError, ValueError):
        raise OrderError(f"{what} {value!r:.60} is no number") from None
    if not isinstance(exponent, int):
        raise OrderError(f"{what} {value!r:.60} is no finite number")
    if abs(exponent) > _MOST_DIGITS or abs(number.adjusted()) > _MOST_DIGITS:
        raise OrderError(f"{what} {value!r:.60} has more than {_MOST_DIGITS} digits")
    return number


def _check_word(value: object, what: str, allowed: object) -> None:
    words = get_args(allowed)
    if value not in words:
        raise OrderError(f"{what} {value!r:.40} must be {', '.join(words)}")


def _check_text(value: object, what: str) -> None:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise OrderError(f"{what} {value!r:.40} must be text of printable characters")
    if len(value) > MOST_OID:
        raise OrderError(f"{what} {value!r:.40} has more than {MOST_OID} characters")


class _Numbers(msgspec.Struct, tag_field="msg", kw_only=True, frozen=True):
    """A message whose decimal fields are made exact."""

    def __post_init__(self) -> None:
        kind = type(self)
        for name in _DECIMALS[kind.__name__]:
            value = getattr(self, name)
            if value is not None:
                _set(self, name, exact(value, f"{name} of {kind.__name__}"))


class Order(_Numbers, tag="order", frozen=True):
    """An order of a strategy.

    `oid`: its name, used once for ever. `action`: "buy", "sell", or "alert", which only
    tells that `price` was reached. `exec_mode`: "live" goes to the broker at once,
    "dark" is kept until a trade reaches `price`, and is then a limit order at it;
    "paper" goes to the paper engine. `price`: quote currency; `size`: units of the
    base, positive. `brokers`: those it may go to; none named: that of the symbol.

    `tif`: how long it stands: "gtc" until canceled, "day" until the session's end,
    "ioc" and "fok" not at all. `post_only`: canceled rather than taking. `reduce_only`:
    never makes a position larger. `stop`: kept until a trade reaches this price, then a
    limit order at `price`. `trail`: kept until the price has come back by so much from
    its best since, then a limit order at `price`, which may be well through the market.
    `oco`: of orders that share this name one is filled; the others
    are canceled.
    """

    action: Action
    exec_mode: ExecMode
    oid: str
    symbol: str
    account: str
    price: Decimal
    size: Decimal
    brokers: list[str] = []
    tif: TimeInForce = "gtc"
    post_only: bool = False
    reduce_only: bool = False
    stop: Decimal | None = None
    trail: Decimal | None = None
    oco: str = ""
    version: int = 1

    def __post_init__(self) -> None:
        _Numbers.__post_init__(self)
        _check_text(self.oid, "oid")
        _check_word(self.action, "action", Action)
        _check_word(self.exec_mode, "exec_mode", ExecMode)
        _check_word(self.tif, "tif", TimeInForce)
        for name in ("price", "size", "stop", "trail"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise OrderError(f"{name} {value} of order {self.oid!r} must be > 0")


class Update(_Numbers, tag="update", frozen=True):
    """Another price, or size, for an order; what is None stays as it is."""

    oid: str
    price: Decimal | None = None
    size: Decimal | None = None
    stop: Decimal | None = None
    trail: Decimal | None = None

    def __post_init__(self) -> None:
        _Numbers.__post_init__(self)
        for name in ("price", "size", "stop", "trail"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise OrderError(f"{name} {value} of order {self.oid!r} must be > 0")


class Cancel(_Numbers, tag="cancel", frozen=True):
    """An order is wanted no more."""

    oid: str
    symbol: str = ""
    version: int = 1


class BrokerdOrder(_Numbers, tag="brokerd_order", frozen=True):
    """An order for a broker: a new one, or another price or size of a known `reqid`.

    `reqid` is the client order id that the venue gets to know it by: at most 18 of
    [0-9a-z], the same for the order's whole life. `size`: of the whole order, filled
    part included. `is_change`: it is the change of one that was sent before, and must
    not become a new one where that has ended. `stop`: not given by the gateway, which
    keeps stops itself.
    """

    oid: str
    account: str
    time_ns: int
    symbol: str
    price: Decimal
    size: Decimal
    action: Side
    reqid: str | int | None = None
    tif: TimeInForce = "gtc"
    post_only: bool = False
    reduce_only: bool = False
    is_change: bool = False
    version: int = 1


class BrokerdCancel(_Numbers, tag="brokerd_cancel", frozen=True):
    """An order is to be canceled at the broker."""

    oid: str
    time_ns: int
    account: str
    reqid: str | int | None = None
    symbol: str = ""
    version: int = 1


class BrokerdOrderAck(_Numbers, tag="brokerd_ack", frozen=True):
    """The broker has an order (or its change). `broker_id`: the venue's own id."""

    reqid: str | int
    oid: str
    account: str
    broker_id: str = ""
    time_ns: int = 0
    version: int = 1


class BrokerdStatus(_Numbers, tag="brokerd_status", frozen=True):
    """What an order is at the broker. `filled` and `remaining` add up to its size."""

    time_ns: int
    reqid: str | int
    status: State
    filled: Decimal = Decimal(0)
    remaining: Decimal = Decimal(0)
    reason: str = ""
    broker_details: dict[str, Any] = {}
    broker_id: str = ""
    version: int = 1


class BrokerdFill(_Numbers, tag="brokerd_fill", frozen=True):
    """One execution: `size` of it alone, positive, at `price`.

    `broker_time`: the venue's, UTC nanoseconds. `fill_id`: the venue's id of it, by
    which a repeat is known; a correction has the same id and a higher `revision`.
    `fee`: paid (negative: earned) in `fee_currency`; None: not told yet. `liquidity`:
    "maker", "taker", or "" if not told.
    """

    time_ns: int
    broker_time: int
    reqid: str | int
    size: Decimal
    price: Decimal
    action: Side
    broker_details: dict[str, Any] = {}
    fill_id: str = ""
    revision: int = 0
    fee: Decimal | None = None
    fee_currency: str = ""
    liquidity: Literal["maker", "taker", ""] = ""
    symbol: str = ""
    version: int = 1


class BrokerdError(_Numbers, tag="brokerd_error", frozen=True):
    """A request was refused; the order, if there was one, is as it was before."""

    reason: str
    oid: str = ""
    reqid: str | int | None = None
    symbol: str = ""
    broker_details: dict[str, Any] = {}
    version: int = 1


class BrokerdPosition(_Numbers, tag="brokerd_position", frozen=True):
    """What an account holds of a market: `size` is negative when short.

    `avg_price`: of the fills that made it, without fees; 0 where `size` is.
    """

    broker: str
    account: str
    symbol: str
    size: Decimal
    avg_price: Decimal
    currency: str = ""
    version: int = 1


BrokerdMessage = (
    BrokerdOrderAck | BrokerdStatus | BrokerdFill | BrokerdError | BrokerdPosition
)


class Status(_Numbers, tag="status", frozen=True):
    """What became of an order, or of a request about it.

    `brokerd_msg`: the fill of a "fill", the error of an "error", else a status with
    what is filled and what remains. `src`: the broker, or "ems". `seq`: place among all
    that the gateway of the account ever said. `cancel_called`: a cancel was sent.
    """

    time_ns: int
    oid: str
    resp: Resp
    reqid: str | int | None = None
    req: Order | Update | Cancel | None = None
    src: str = ""
    cancel_called: bool = False
    brokerd_msg: BrokerdMessage | None = None
    seq: int = 0
    version: int = 1

    @property
    def about_request(self) -> bool:
        """An error about an update, a cancel, or an order whose oid was used before."""
        is_order = isinstance(self.req, Order) and self.reqid is not None
        return self.resp == "error" and not is_order


class Transaction(_Numbers, tag="transaction", frozen=True):
    """A line of an account's ledger, as `norm_trade` of a provider makes them.

    `kind`: a "fill" of `size` (positive bought, negative sold) at `price`, with its
    `fee`; a "fee" apart from a fill; a "transfer" of `size` in (or out, negative) at
    the price that it is to count for; a "split": each unit becomes `size` units.
    `tid`: the venue's id of it, unique with the broker; a correction has the same one
    and a higher `revision`.
    """

    kind: Literal["fill", "fee", "transfer", "split"]
    tid: str
    time_ns: int
    symbol: str
    size: Decimal = Decimal(0)
    price: Decimal = Decimal(0)
    fee: Decimal = Decimal(0)
    fee_currency: str = ""
    revision: int = 0
    reqid: str = ""
    oid: str = ""
    details: dict[str, Any] = {}
    version: int = 1


_DECIMALS = {
    "Transaction": ("size", "price", "fee"),
    "Order": ("price", "size", "stop", "trail"),
    "Update": ("price", "size", "stop", "trail"),
    "BrokerdOrder": ("price", "size"),
    "BrokerdStatus": ("filled", "remaining"),
    "BrokerdFill": ("size", "price", "fee"),
    "BrokerdPosition": ("size", "avg_price"),
    **dict.fromkeys(
        ("Cancel", "BrokerdCancel", "BrokerdOrderAck", "BrokerdError", "Status"), ()
    ),
}
