"""What is known of a contract, and what follows from it for us.

Source: https://interactivebrokers.github.io/tws-api/contract_details.html
"""

import logging
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from piker_core.errors import PikerError
from piker_core.symbols import Asset, MktPair

from .config import PROVIDER, Config
from .hours import Hours, contract_hours
from .names import expiry_text, step

log = logging.getLogger("providers.ib")
_SIZE_RULES = 164
_OLD_LOT = 100
_QUOTED = frozenset(("CASH", "CMDTY", "CFD"))
_KINDS = {
    "STK": "stock",
    "FUT": "future",
    "OPT": "option",
    "FOP": "option",
    "CASH": "forex",
    "IND": "index",
    "CRYPTO": "spot",
    "CMDTY": "commodity",
}
_ASSETS = {"forex": "fiat", "spot": "crypto"}
"""Classes of what is traded, where they have other names than the market's."""
Rule = tuple[tuple[Decimal, Decimal], ...]


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What TWS says of a contract, and what follows for us.

    `symbol` is its name here without the provider. `price_rule` holds (from price,
    step), `lot` the unit of the sizes of its messages, `bars_from` what its bars are
    made of. Contracts named `quotes` have no trades, those named `prices` trades
    without size.
    """

    symbol: str
    con_id: int
    sec_type: str
    ticker: str
    exchange: str
    primary: str
    currency: str
    local_symbol: str
    trading_class: str
    multiplier: Decimal
    expiry: str
    strike: Decimal
    right: str
    long_name: str
    price_tick: Decimal
    price_rule: Rule
    price_magnifier: int
    size_tick: Decimal
    min_size: Decimal
    lot: int
    bars_from: str
    trading_hours: str
    liquid_hours: str
    zone: str

    @property
    def fqme(self) -> str:
        """The full market name."""
        return f"{self.symbol}.{PROVIDER}"

    @property
    def kind(self) -> str:
        """What TWS tells of it: trades, prices (of an index) or quotes."""
        if self.sec_type in _QUOTED:
            return "quotes"
        return "prices" if self.sec_type == "IND" else "trades"

    @property
    def what(self) -> str:
        """The kind of history that its bars are."""
        if self.kind == "quotes":
            return {"bid": "BID", "ask": "ASK", "mid": "MIDPOINT"}[self.bars_from]
        return "AGGTRADES" if self.sec_type == "CRYPTO" else "TRADES"

    def tick_at(self, price: Decimal) -> Decimal:
        """The price step that holds at a price."""
        steps = [step for edge, step in self.price_rule if edge <= price]
        return steps[-1] if steps else self.price_tick

    def hours(self, which: str) -> Hours:
        """Its "trading" or "liquid" hours; raises PikerError for an odd text."""
        text = self.trading_hours if which == "trading" else self.liquid_hours
        return contract_hours(text, self.zone)


def read_rule(increments: Iterable[Any]) -> Rule:
    """A market rule as (from price, step), ascending."""
    rows = ((Decimal(repr(row.lowEdge)), step(row.increment)) for row in increments)
    return tuple(sorted((edge, size) for edge, size in rows if size is not None))


def rule_id(row: Any) -> int | None:
    """The market rule that holds where the contract is asked for; None if it says none.

    Rules are listed in the order of the exchanges.
    """
    ids = [part for part in row.marketRuleIds.split(",") if part.strip().isdigit()]
    places = row.validExchanges.split(",")
    if not ids:
        return None
    exchange = row.contract.exchange
    place = places.index(exchange) if exchange in places else 0
    return int(ids[place] if place < len(ids) else ids[0])


def describe(
    symbol: str, row: Any, rule: Rule, config: Config, server_version: int
) -> Listing:
    """A description by TWS as a `Listing`; raises PikerError without a price step."""
    contract = row.contract
    price_tick = step(row.minTick) or min((size for _, size in rule), default=None)
    if price_tick is None:
        raise PikerError(f"TWS says no price step of {symbol}.{PROVIDER}")
    quoted = contract.secType in _QUOTED
    return Listing(
        symbol=symbol,
        con_id=contract.conId,
        sec_type=contract.secType,
        ticker=contract.symbol,
        exchange=contract.exchange,
        primary=contract.primaryExchange,
        currency=contract.currency,
        local_symbol=contract.localSymbol,
        trading_class=contract.tradingClass,
        multiplier=_multiplier(contract.multiplier),
        expiry=expiry_text(contract),
        strike=step(contract.strike) or Decimal(0),
        right=contract.right[:1].lower(),
        long_name=row.longName,
        price_tick=price_tick,
        price_rule=rule,
        price_magnifier=row.priceMagnifier or 1,
        size_tick=step(row.sizeIncrement) or step(row.minSize) or Decimal(1),
        min_size=step(row.minSize) or Decimal(0),
        lot=_lot(contract, config, server_version),
        bars_from=config.quote_bars_from if quoted else "trade",
        trading_hours=row.tradingHours,
        liquid_hours=row.liquidHours,
        zone=row.timeZoneId,
    )


def _multiplier(text: str) -> Decimal:
    return Decimal(text) if re.fullmatch(r"\d+(\.\d+)?", text) else Decimal(1)


def _lot(contract: Any, config: Config, server_version: int) -> int:
    if contract.secType != "STK" or contract.currency != "USD":
        return 1
    return config.us_stock_lot or (_OLD_LOT if server_version < _SIZE_RULES else 1)


def describe_market(listing: Listing) -> MktPair:
    """The contract as a market; its `venue_symbol` is TWS's local symbol."""
    kind = _KINDS.get(listing.sec_type, listing.sec_type.lower())
    asset = _ASSETS.get(kind, kind)
    return MktPair(
        base=Asset(listing.ticker.lower(), asset, listing.size_tick),
        quote=Asset(listing.currency.lower(), "fiat", Decimal("0.01")),
        symbol=listing.symbol,
        venue_symbol=listing.local_symbol or listing.ticker,
        provider=PROVIDER,
        price_tick=listing.price_tick,
        size_tick=listing.size_tick,
        min_size=listing.min_size,
        kind=kind,
        multiplier=listing.multiplier,
    )


def contract_fields(listing: Listing) -> dict[str, Any]:
    """What names the contract in requests for its quotes and history."""
    return {
        "conId": listing.con_id,
        "symbol": listing.ticker,
        "secType": listing.sec_type,
        "exchange": listing.exchange,
        "currency": listing.currency,
        "includeExpired": listing.sec_type == "FUT",
    }


def known_hours(listing: Listing, which: str) -> Hours:
    """The hours of a contract; always open if their text cannot be read."""
    try:
        return listing.hours(which)
    except PikerError as error:
        log.warning("%s counts as always open: %s", listing.fqme, error)
        return contract_hours("", "")
