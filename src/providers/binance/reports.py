"""What Binance says of orders, trades and accounts: bytes and records to our messages.

1. Reports of both streams, rows of lists and answers to requests become a `Report`.
2. `executionReport` names an order by `C` where something was done to it, such as a
   cancel, which has an id of its own in `c`; by `c` else. USD-M always has it in `c`.
3. Numbers are text and stay exact decimals. Fees are positive where they were paid.
4. Ids of trades are of a market: a fill's id is the market's name and the trade's id.

Source: https://developers.binance.com/docs/binance-spot-api-docs/user-data-stream and
the user data streams of the USD-M documents.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec

from piker_core.broker import BrokerOrder
from piker_core.errors import ProviderError
from piker_core.orders import BrokerdFill, Side, State, Transaction

from .legs import Known, LegName, parse_name
from .markets import PROVIDER
from .wire import decode_time

Liquidity = Literal["maker", "taker", ""]

_STATES: dict[str, State] = {
    "NEW": "open",
    "PENDING_NEW": "open",
    "PARTIALLY_FILLED": "open",
    "PENDING_CANCEL": "open",
    "FILLED": "closed",
    "CANCELED": "canceled",
    "REJECTED": "canceled",
    "EXPIRED": "canceled",
    "EXPIRED_IN_MATCH": "canceled",
}
_SIDES: dict[str, Side] = {"BUY": "buy", "SELL": "sell"}
_NOTHING = ("", "NONE", "0", "null")
"""How the venue says that there is no reason."""
_MARGIN = ("usdt", "usdc", "fdusd", "busd", "bfusd", "usd1", "btc")
_TERMINAL = ("eventStreamTerminated", "listenKeyExpired", "serverShutdown")
_OF_NO_ORDER = frozenset(
    (
        *("balanceUpdate", "externalLockUpdate", "listStatus", "TRADE_LITE"),
        *("ACCOUNT_CONFIG_UPDATE", "MARGIN_CALL", "CONDITIONAL_ORDER_TRIGGER_REJECT"),
    )
)
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)
_ZERO = Decimal(0)


class Fill(msgspec.Struct, frozen=True):
    """One execution: `id` is the trade's, `fee` None if it is not told."""

    id: int
    price: Decimal
    size: Decimal
    time_ns: int
    fee: Decimal | None = None
    fee_currency: str = ""
    liquidity: Liquidity = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the venue has it, and the execution that it is told with.

    `kind`: what happened, as the venue calls it; "" if it was asked for.
    """

    symbol: str
    name: LegName
    broker_id: str
    state: State
    action: Side
    price: Decimal
    size: Decimal
    filled: Decimal
    time_ns: int
    kind: str = ""
    avg_price: Decimal = _ZERO
    reason: str = ""
    fill: Fill | None = None

    @property
    def replaced(self) -> bool:
        """Whether it was canceled for another leg in its place."""
        return self.name.replaces


class Balances(msgspec.Struct, frozen=True):
    """What an account has of some assets, what is locked included; by asset."""

    totals: dict[str, Decimal]


class Positions(msgspec.Struct, frozen=True):
    """Size and entry price of contracts, by the venue's symbol."""

    held: dict[str, tuple[Decimal, Decimal]]


class Terminated(msgspec.Struct, frozen=True):
    """The stream ends, or will soon."""

    kind: str


class Other(msgspec.Struct, frozen=True):
    """An event that is of no order; `known` if that is how it should be."""

    kind: str
    known: bool


Event = Report | Balances | Positions | Terminated | Other


# The venue's forms


class _Execution(msgspec.Struct):
    """`executionReport`, and `o` of ORDER_TRADE_UPDATE."""

    s: str
    c: str
    S: str
    X: str
    x: str
    i: int
    p: Decimal
    q: Decimal
    z: Decimal
    T: int
    C: str | None = None
    l: Decimal = _ZERO  # noqa: E741 - the venue's name
    L: Decimal = _ZERO
    n: Decimal | None = None
    N: str | None = None
    t: int = -1
    m: bool = False
    r: Any = ""
    eR: Any = ""
    er: Any = ""
    Z: Decimal = _ZERO
    ap: Decimal | None = None


class _Balance(msgspec.Struct):
    a: str
    f: Decimal = _ZERO
    l: Decimal = _ZERO  # noqa: E741 - the venue's name


class _Position(msgspec.Struct):
    s: str
    pa: Decimal
    ep: Decimal = _ZERO
    ps: str = "BOTH"


class _Account(msgspec.Struct):
    P: list[_Position] = []


class _Event(msgspec.Struct):
    """The head of an event, and those parts in which others are nested."""

    e: str = ""
    o: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    a: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    B: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class OrderRow(msgspec.Struct):
    """An order in a list, or in the answer to a request, of either side."""

    symbol: str
    orderId: int
    clientOrderId: str = ""
    origClientOrderId: str = ""
    price: Decimal = _ZERO
    origQty: Decimal | None = None
    qty: Decimal | None = None
    executedQty: Decimal = _ZERO
    cummulativeQuoteQty: Decimal = _ZERO
    avgPrice: Decimal | None = None
    status: str = ""
    side: str = ""
    time: int = 0
    updateTime: int = 0
    transactTime: int = 0
    fills: list[dict[str, Any]] = []


class TradeRow(msgspec.Struct):
    """A trade of the account in a list, of either side."""

    symbol: str
    id: int
    orderId: int
    price: Decimal
    qty: Decimal
    time: int
    commission: Decimal = _ZERO
    commissionAsset: str = ""
    isBuyer: bool | None = None
    buyer: bool | None = None
    isMaker: bool | None = None
    maker: bool | None = None

    @property
    def bought(self) -> bool:
        """Whether the account bought."""
        return bool(self.buyer if self.isBuyer is None else self.isBuyer)

    @property
    def fill(self) -> Fill:
        """The trade as an execution."""
        made = self.maker if self.isMaker is None else self.isMaker
        return Fill(
            self.id,
            _finite(self.price),
            _finite(self.qty),
            decode_time(self.time),
            _finite(self.commission),
            self.commissionAsset.lower(),
            "maker" if made else "taker",
        )


_decode_head = msgspec.json.Decoder(_Event).decode
_decode_execution = msgspec.json.Decoder(_Execution, strict=False).decode
_decode_account = msgspec.json.Decoder(_Account, strict=False).decode
_decode_balances = msgspec.json.Decoder(list[_Balance], strict=False).decode


def decode_event(raw: bytes | msgspec.Raw) -> Event:
    """An event of a user stream, in its wrapper or bare. Raises ProviderError."""
    try:
        return _decode_event(raw)
    except (*_UNDECODABLE, ArithmeticError) as error:
        raise ProviderError(
            f"a report cannot be decoded: {error}", frame=bytes(raw)
        ) from None


def _decode_event(raw: bytes | msgspec.Raw) -> Event:
    head = _decode_head(raw)
    for nested in (head.event, head.data):
        if nested is not msgspec.UNSET:
            return _decode_event(nested)
    if head.e == "executionReport":
        return _report(_decode_execution(raw))
    if head.e == "ORDER_TRADE_UPDATE" and head.o is not msgspec.UNSET:
        return _report(_decode_execution(head.o))
    if head.e == "ACCOUNT_UPDATE" and head.a is not msgspec.UNSET:
        rows = _decode_account(head.a).P
        one_way = (row for row in rows if row.ps == "BOTH")
        return Positions({row.s: (_finite(row.pa), _finite(row.ep)) for row in one_way})
    if head.e == "outboundAccountPosition" and head.B is not msgspec.UNSET:
        held = _decode_balances(head.B)
        return Balances(
            {row.a.lower(): _finite(row.f) + _finite(row.l) for row in held}
        )
    if head.e in _TERMINAL:
        return Terminated(head.e)
    return Other(head.e, head.e in _OF_NO_ORDER)


def _report(row: _Execution) -> Report:
    traded = row.x == "TRADE" and row.l > 0
    filled = _finite(row.z)
    average = row.ap if row.ap is not None else (row.Z / filled if filled else _ZERO)
    name = parse_name(row.C if row.C not in (None, *_NOTHING) else row.c)
    if row.C and parse_name(row.c).replaces:
        name = name._replace(replaces=True)
    return Report(
        symbol=row.s,
        name=name,
        broker_id=str(row.i),
        state=_state(row.X),
        action=_side(row.S),
        price=_finite(row.p),
        size=_finite(row.q),
        filled=filled,
        time_ns=decode_time(row.T),
        kind=row.x,
        avg_price=_finite(average),
        reason=_reason(row),
        fill=_execution_fill(row) if traded else None,
    )


def _execution_fill(row: _Execution) -> Fill:
    return Fill(
        row.t,
        _finite(row.L),
        _finite(row.l),
        decode_time(row.T),
        None if row.n is None else _finite(row.n),
        (row.N or "").lower(),
        "maker" if row.m else "taker",
    )


def _reason(row: _Execution) -> str:
    """Why an order was refused, or came to its end by itself."""
    told = [str(each) for each in (row.r, row.eR, row.er) if str(each) not in _NOTHING]
    ended = _end_text(row.X)
    return ", ".join([ended, *told] if ended else told)


def _end_text(status: str) -> str:
    """An end that nobody asked for, in words."""
    asked = _STATES.get(status) != "canceled" or status == "CANCELED"
    return "" if asked else status.lower().replace("_", " ")


def row_report(row: OrderRow, asked: str = "") -> Report:
    """An order of a list or an answer; `asked`: the client order id it was asked by.

    Raises ValueError for one that cannot be.
    """
    filled = _finite(row.executedQty)
    size = row.origQty if row.origQty is not None else row.qty
    average = row.avgPrice
    if average is None:
        average = _finite(row.cummulativeQuoteQty) / filled if filled else _ZERO
    time = row.transactTime or row.updateTime or row.time
    return Report(
        symbol=row.symbol,
        name=parse_name(asked or row.origClientOrderId or row.clientOrderId),
        broker_id=str(row.orderId),
        state=_state(row.status),
        action=_side(row.side),
        price=_finite(row.price),
        size=_finite(size if size is not None else _ZERO),
        filled=filled,
        time_ns=decode_time(time) if time else 0,
        avg_price=_finite(average),
        reason=_end_text(row.status),
    )


def _state(status: str) -> State:
    try:
        return _STATES[status]
    except KeyError:
        raise ValueError(f"a status {status!r:.40}") from None


def _side(side: str) -> Side:
    try:
        return _SIDES[side]
    except KeyError:
        raise ValueError(f"a side {side!r:.40}") from None


def _finite(number: Decimal) -> Decimal:
    if not number.is_finite():
        raise ValueError(f"{number} is no price or size")
    return number


# Our messages


def market_name(symbol: str, *, contract: bool) -> str:
    """Our name of a market by the venue's, where no table of symbols is at hand."""
    pair, dated, day = symbol.lower().partition("_")
    if not contract:
        return f"{symbol.lower()}.{PROVIDER}"
    margin = next((each for each in _MARGIN if pair.endswith(each)), "usdt")
    return f"{pair}.{margin}m.{f'20{day}' if dated else 'perp'}.{PROVIDER}"


def fill_id(fqme: str, trade_id: int) -> str:
    """The id of an execution, of which there is one with this broker."""
    return f"{fqme.removesuffix(f'.{PROVIDER}')}:{trade_id}"


def fill_message(
    fill: Fill, *, reqid: str, action: Side, fqme: str, now_ns: int
) -> BrokerdFill:
    """An execution as the gateway is told of it."""
    return BrokerdFill(
        time_ns=now_ns,
        broker_time=fill.time_ns,
        reqid=reqid,
        size=fill.size,
        price=fill.price,
        action=action,
        fill_id=fill_id(fqme, fill.id),
        fee=fill.fee,
        fee_currency=fill.fee_currency,
        liquidity=fill.liquidity,
        symbol=fqme,
    )


def broker_order(report: Report, known: Known, fqme: str) -> BrokerOrder:
    """An order as the venue has it, with what the legs before have filled."""
    before = known.before(report.name.number)
    return BrokerOrder(
        reqid=report.name.reqid,
        broker_id=report.broker_id,
        symbol=fqme,
        status=report.state,
        action=report.action,
        price=report.price,
        size=before + report.size,
        filled=before + report.filled,
        avg_price=known.avg_price,
        time_ns=report.time_ns,
        reason=report.reason if report.state == "canceled" else "",
        broker_details={"client_order_id": str(report.name)},
    )


def norm_trade(record: Mapping[str, Any]) -> Transaction | None:
    """A trade of the account as a line of its ledger; None for what is none.

    `record`: a row of `myTrades` or `userTrades`, or an `executionReport` or
    ORDER_TRADE_UPDATE, in its wrapper or bare. Rows do not name their order's client
    id. Raises ProviderError for one that cannot be understood.
    """
    try:
        return _norm_trade(record)
    except (*_UNDECODABLE, KeyError, ArithmeticError) as error:
        raise ProviderError(
            f"a trade cannot be understood: {error}", frame=repr(record)[:500]
        ) from None


def _norm_trade(record: Mapping[str, Any]) -> Transaction | None:
    if not isinstance(record, Mapping):
        raise ValueError(f"{record!r:.60} is no record")
    for wrapper in ("event", "data"):
        if isinstance(record.get(wrapper), Mapping):
            return _norm_trade(record[wrapper])
    if "e" in record:
        return _executed(record)
    row = msgspec.convert(record, TradeRow, strict=False)
    contract = "isBuyer" not in record
    return _transaction(row.fill, row.symbol, row.bought, contract, record)


def _executed(record: Mapping[str, Any]) -> Transaction | None:
    contract = record["e"] == "ORDER_TRADE_UPDATE"
    if not contract and record["e"] != "executionReport":
        return None
    inner = record["o"] if contract else record
    report = _report(msgspec.convert(inner, _Execution, strict=False))
    if report.fill is None:
        return None
    bought = report.action == "buy"
    made = _transaction(report.fill, report.symbol, bought, contract, inner)
    return msgspec.structs.replace(made, reqid=report.name.reqid)


def _transaction(
    fill: Fill, symbol: str, bought: bool, contract: bool, record: Mapping[str, Any]
) -> Transaction:
    fqme = market_name(symbol, contract=contract)
    return Transaction(
        kind="fill",
        tid=fill_id(fqme, fill.id),
        time_ns=fill.time_ns,
        symbol=fqme,
        size=fill.size if bought else -fill.size,
        price=fill.price,
        fee=fill.fee or _ZERO,
        fee_currency=fill.fee_currency,
        details=dict(record),
    )
