"""Frames about orders as a simulated gateway reads and writes them."""

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from piker_core.simulation.market import NS
from piker_core.simulation.matching import Execution, VenueOrder

from .venue_contracts import VenueContract
from .venue_directory import Found, Refused, Wanted
from .venue_frames import Fields, field_text, frame, time_text

NO_PROFILE = 177
DURATION, POST_TO_ATS, AUTO_CANCEL, PEGGED = 159, 160, 162, 170
REVISED = 178
UNSET = "1.7976931348623157E308"
_UNSET_INT = 2**31 - 1
_UNSUPPORTED = "Unsupported order type for this exchange and security type."
MARGINS = (
    *("init_before", "maint_before", "equity_before"),
    *("init_change", "maint_change", "equity_change"),
    *("init_after", "maint_after", "equity_after"),
)


class Asked(msgspec.Struct, kw_only=True):
    """What a placeOrder asks for."""

    order_id: int
    contract: Wanted
    action: str
    size: Decimal
    kind: str
    price: Decimal | None
    tif: str
    account: str
    ref: str
    outside_rth: bool
    what_if: bool


class Ticket(msgspec.Struct, kw_only=True, eq=False):
    """An order of a client, with the numbers by which clients know it.

    `word` is its status; `order` what the matching has of it. `told` counts frames
    about it that were sent or lost.
    """

    client_id: int
    order_id: int
    perm_id: int
    account: str
    ref: str
    kind: str
    tif: str
    outside_rth: bool
    found: Found
    order: VenueOrder
    word: str = "PendingSubmit"
    ended_s: int = 0
    bound_to: int = 0

    @property
    def contract(self) -> VenueContract:
        """What it is for."""
        return self.found.contract

    @property
    def ended(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.order.state != "open"


class Report(msgspec.Struct, kw_only=True, eq=False):
    """An execution as it is told: its id, revision and commission."""

    ticket: Ticket
    execution: Execution
    number: str
    revision: int = 1
    price: Decimal
    size: Decimal
    sum_size: Decimal
    mean_price: Decimal
    commission: Decimal

    @property
    def exec_id(self) -> str:
        """Its id, of which the last part is the revision."""
        return f"{self.number}.{self.revision:02d}"


def read_order(fields: Fields, version: int) -> Asked:
    """A placeOrder of a plain order; raises `Refused` for what is not simulated."""
    order_id = fields.read_id()
    contract = fields.contract()
    skip(fields, 2)
    action, size, kind = fields.text(), decimal_field(fields), fields.text()
    price, _ = decimal_field(fields), fields.text()
    tif, _, account = fields.text() or "DAY", fields.text(), fields.text()
    skip(fields, 2)
    ref = fields.text()
    skip(fields, 6)
    outside_rth = fields.flag()
    skip(fields, 1)
    if contract.sec_type == "BAG":
        raise Refused(387, _UNSUPPORTED)
    skip(fields, 7 + (version < NO_PROFILE) + 22)
    if fields.text():  # deltaNeutralOrderType
        raise Refused(387, _UNSUPPORTED)
    skip(fields, 11)
    if fields.text():  # hedgeType
        raise Refused(387, _UNSUPPORTED)
    skip(fields, 4)
    if fields.flag() or fields.text():  # delta neutral contract, algorithm
        raise Refused(387, _UNSUPPORTED)
    skip(fields, 1)
    return Asked(
        order_id=order_id, contract=contract, action=action, size=size or Decimal(0),
        kind=kind, price=price if kind == "LMT" else None, tif=tif, account=account,
        ref=ref, outside_rth=outside_rth, what_if=fields.flag(),
    )  # fmt: skip


def skip(fields: Fields, count: int) -> None:
    """Pass over some fields."""
    for _ in range(count):
        fields.text()


def decimal_field(fields: Fields) -> Decimal | None:
    """The next field as a decimal; None if it is empty."""
    text = fields.text()
    try:
        return Decimal(text) if text else None
    except ArithmeticError:
        raise Refused(320, f"Error reading request:Unable to parse {text!r}") from None


def plain(value: Decimal) -> str:
    """A number as TWS prints it."""
    return f"{value.normalize():f}" if value else "0"


def contract_fields(found: Found, exchange: str) -> tuple[object, ...]:
    """Eleven fields, from conId to tradingClass."""
    row = found.contract
    expiry = f"{row.expiry:%Y%m%d}" if row.expiry else ""
    return (
        row.con_id, row.ticker, row.sec_type, expiry, f"{row.strike:g}",
        row.right or "?", row.multiplier, exchange, row.currency, row.local_symbol,
        row.trading_class,
    )  # fmt: skip


def open_order_frame(
    version: int, ticket: Ticket, margins: Mapping[str, object] | None = None
) -> bytes:
    """openOrder; with `margins` it tells what an order would do."""
    order = ticket.order
    price = plain(order.price) if order.price is not None else "0.0"
    state = margins or {}
    figures = [state.get(name, UNSET) for name in MARGINS]
    money = [state.get(name, "") for name in ("commission", "least", "most", "money")]
    none = [UNSET] * 5
    fields: list[object] = [
        5, ticket.order_id, *contract_fields(ticket.found, ticket.found.exchange),
        order.side.upper(), plain(order.size), ticket.kind, price, "0.0", ticket.tif,
        "", ticket.account, "", 0, ticket.ref, ticket.client_id, ticket.perm_id,
        ticket.outside_rth, 0, 0, "", f"{ticket.perm_id}.0/{ticket.account}/100",
        *([""] * (4 if version < NO_PROFILE else 3)),
        # from modelCode to deltaNeutralAuxPrice
        "", "", "", "", "", 0, "", -1, 0, "", "", "", "", "", _UNSET_INT, 0, 0, 0, "",
        3, 0, 0, "", 0, 0, "", 0, "None", "", 0, "", "", "", "?", 0, 0, "",
        0, 0, "", "", "", "", "", 0, 0, 0, _UNSET_INT, _UNSET_INT, "", "", 0, "",
        "IB", 0, 0, "", 0, margins is not None, ticket.word, *figures, *money,
        state.get("warning", ""), 0, 0, 0, "None", *none, UNSET, 0, "", "", "",
        0, 1, 0, 0, 0,
    ]  # fmt: skip
    fields += [""] * (version >= DURATION) + [""] * (version >= POST_TO_ATS)
    fields += [0] * (version >= AUTO_CANCEL) + [""] * (5 * (version >= PEGGED))
    return frame(*fields)


def status_frame(ticket: Ticket, filled: Decimal | None = None) -> bytes:
    """orderStatus; `filled` in place of what is."""
    order = ticket.order
    done = order.filled if filled is None else filled
    mean = order.cost / order.filled if order.filled else Decimal(0)
    last = order.executions[-1].price if order.executions else Decimal(0)
    left = max(order.size - done, Decimal(0))
    return frame(
        3, ticket.order_id, ticket.word, plain(done), plain(left), plain(mean),
        ticket.perm_id, 0, plain(last), ticket.client_id, "", 0,
    )  # fmt: skip


def execution_frame(version: int, request_id: int, report: Report) -> bytes:
    """execDetails."""
    ticket = report.ticket
    at = time_text(report.execution.time_ns // NS, ticket.contract.hours.zone, version)
    place = ticket.contract.exchange
    fields = [
        11, request_id, ticket.order_id, *contract_fields(ticket.found, place),
        report.exec_id, at, ticket.account, place,
        "BOT" if ticket.order.side == "buy" else "SLD", plain(report.size),
        plain(report.price), ticket.perm_id, ticket.client_id, 0,
        plain(report.sum_size), plain(report.mean_price), ticket.ref, "", "", "",
        1 if report.execution.maker else 2,
    ]  # fmt: skip
    return frame(*fields, *([0] if version >= REVISED else []))


def commission_frame(report: Report) -> bytes:
    """commissionReport."""
    money = report.ticket.contract.currency
    paid = plain(report.commission)
    return frame(59, 1, report.exec_id, paid, money, UNSET, UNSET, "")


def completed_frame(version: int, ticket: Ticket) -> bytes:
    """completedOrder; the size of a filled one is 0, as TWS has it."""
    order = ticket.order
    size = "0" if ticket.word == "Filled" else plain(order.size)
    at = time_text(ticket.ended_s, ticket.contract.hours.zone, REVISED)
    text = f"Filled Size: {plain(order.filled)}" if order.filled else ticket.word
    price = plain(order.price) if order.price is not None else "0.0"
    fields: list[object] = [
        101, *contract_fields(ticket.found, ticket.found.exchange), order.side.upper(),
        size, ticket.kind, price, "0.0", ticket.tif, "", ticket.account, "", 0,
        ticket.ref, ticket.perm_id, ticket.outside_rth, 0, 0, "",
        *([""] * (4 if version < NO_PROFILE else 3)),
        "", "", "", "", "", 0, "", -1, "", "", "", "", "", _UNSET_INT, 0, 0, "", 3, 0,
        "", 0, "None", "", 0, 0, 0, "", 0, 0, "", "", "", 0, 0, 0, _UNSET_INT,
        _UNSET_INT, "", "", "", "IB", 0, 0, "", 0, ticket.word, 0, 0, 0, UNSET, UNSET,
        0, 1, 0, "", plain(order.filled), _UNSET_INT, 0, "Not an insider", 0, 0,
        2**63 - 1, at, text,
    ]  # fmt: skip
    return frame(*fields, *([""] * (5 * (version >= PEGGED))))


def position_fields(found: Found, size: Decimal, cost: Decimal) -> tuple[object, ...]:
    """A contract and what is held of it, as a position has them."""
    fields = contract_fields(found, "")
    return (*fields, plain(size), field_text(round(cost, 8)))
