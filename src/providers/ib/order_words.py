"""TWS's messages about orders as messages of ours, and ours as TWS's.

Rules this file owns:

1. TWS has doubles: each is taken as its shortest decimal. The greatest double, and the
   empty text, are no number.
2. An execution's id without its last part is the fill's, the last part less one its
   revision. Its fee comes in a message of its own, later as a rule.
3. A position's cost is for a whole contract; ours is for one unit.
4. Currencies are written as our markets have them, in small letters.
"""

import time
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec

from piker_core.errors import OrderError, ProviderError
from piker_core.orders import BrokerdFill, BrokerdOrder, Side, Transaction

from .config import PROVIDER, Config
from .contracts import Listing, contract_fields
from .library import load_library
from .names import listing_name
from .order_codes import TIMES, split_execution

NS = 1_000_000_000
_MOST = 1e300
_LIQUIDITY: dict[int, Literal["maker", "taker"]] = {1: "maker", 2: "taker"}
COMBINED = "BAG"
"""The class of a combination, whose legs are told as well."""


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """What an order would do, as TWS reckons; None: it does not say.

    Margins are in the account's currency, `commission` (between `least_commission` and
    `most_commission`, where it is not certain) in `currency`. `warning` is its text.
    """

    initial_margin_change: Decimal | None
    maintenance_margin_change: Decimal | None
    equity_change: Decimal | None
    initial_margin_after: Decimal | None
    maintenance_margin_after: Decimal | None
    equity_after: Decimal | None
    commission: Decimal | None
    least_commission: Decimal | None
    most_commission: Decimal | None
    currency: str
    warning: str


def number(value: float | str) -> Decimal | None:
    """A number of TWS's as a decimal; None for what stands for none."""
    try:
        plain = float(value)
    except ValueError:
        return None
    if not abs(plain) < _MOST:
        return None
    return Decimal(repr(plain)).normalize() + 0


def size_or_zero(value: float | str) -> Decimal:
    """A number of TWS's, 0 if there is none."""
    return number(value) or Decimal(0)


def side_of(word: str) -> Side:
    """`BUY`, `BOT`, `SELL`, `SLD` or `SSHORT` as a side."""
    return "buy" if word.upper().startswith("B") else "sell"


def unit_price(cost: float, multiplier: Decimal) -> Decimal:
    """A cost for a whole contract as a price of one unit."""
    return size_or_zero(cost) / (multiplier or Decimal(1))


def time_ns(when: datetime) -> int:
    """A time of TWS's, which has seconds, in nanoseconds."""
    return int(when.timestamp()) * NS


def make_contract(listing: Listing) -> Any:
    """A contract as requests about orders name it."""
    fields = contract_fields(listing)
    del fields["includeExpired"]
    return load_library().Contract(**fields)


def make_order(order: BrokerdOrder, account: str, config: Config) -> Any:
    """An order as TWS takes it; raises OrderError for what it cannot be there."""
    if order.post_only:
        raise OrderError("Interactive Brokers has no post-only orders: leave it out")
    if order.reduce_only:
        raise OrderError("Interactive Brokers has no reduce-only orders: leave it out")
    return load_library().Order(
        action=order.action.upper(),
        orderType="LMT",
        totalQuantity=f"{order.size:f}",
        lmtPrice=f"{order.price:f}",
        tif=TIMES[order.tif],
        account=account,
        orderRef=str(order.reqid),
        outsideRth=config.outside_rth,
    )


def read_what_if(state: Any) -> WhatIf:
    """The figures in the state of an order that was only to be reckoned."""
    return WhatIf(
        initial_margin_change=number(state.initMarginChange),
        maintenance_margin_change=number(state.maintMarginChange),
        equity_change=number(state.equityWithLoanChange),
        initial_margin_after=number(state.initMarginAfter),
        maintenance_margin_after=number(state.maintMarginAfter),
        equity_after=number(state.equityWithLoanAfter),
        commission=number(state.commission),
        least_commission=number(state.minCommission),
        most_commission=number(state.maxCommission),
        currency=state.commissionCurrency.lower(),
        warning=state.warningText,
    )


def read_fill(execution: Any, reqid: str, symbol: str) -> BrokerdFill:
    """An execution as a fill whose fee is not known yet."""
    fill_id, revision = split_execution(execution.execId)
    return BrokerdFill(
        time_ns=time.time_ns(),
        broker_time=time_ns(execution.time),
        reqid=reqid,
        size=size_or_zero(execution.shares),
        price=size_or_zero(execution.price),
        action=side_of(execution.side),
        fill_id=fill_id,
        revision=revision,
        liquidity=_LIQUIDITY.get(execution.lastLiquidity, ""),
        symbol=symbol,
        broker_details={
            "exec_id": execution.execId,
            "perm_id": execution.permId,
            "client_id": execution.clientId,
            "order_id": execution.orderId,
            "exchange": execution.exchange,
            "account": execution.acctNumber,
        },
    )


def norm_trade(record: Any) -> Transaction | None:
    """A `Fill` of ib_async as a line of a ledger; None for what is none of its own.

    That is the sum of a combination, whose legs are told too. The fee is 0 as long as
    no commission was reported. A stock is named by where it was executed, since TWS
    does not say where it is listed. Raises ProviderError for what is no `Fill`.
    """
    try:
        return _transaction(record)
    except (AttributeError, TypeError, ValueError, ArithmeticError) as error:
        raise ProviderError(
            f"a trade cannot be understood: {error}", frame=repr(record)[:500]
        ) from None


def _transaction(record: Any) -> Transaction | None:
    contract, execution = record.contract, record.execution
    if contract.secType == COMBINED:
        return None
    tid, revision = split_execution(execution.execId)
    size = size_or_zero(execution.shares)
    report = record.commissionReport
    paid = number(report.commission) if report and report.execId else None
    return Transaction(
        kind="fill",
        tid=tid,
        time_ns=time_ns(execution.time),
        symbol=f"{listing_name(contract)}.{PROVIDER}",
        size=size if side_of(execution.side) == "buy" else -size,
        price=size_or_zero(execution.price),
        fee=paid or Decimal(0),
        fee_currency=report.currency.lower() if paid is not None else "",
        revision=revision,
        reqid=execution.orderRef,
        details={"exec_id": execution.execId, "perm_id": execution.permId},
    )
