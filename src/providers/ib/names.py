"""Names of contracts, and which contract a name means.

    aapl.nasdaq.ib aapl.smart.ib   stock at its primary exchange, or anywhere
    mnq.cme.20261218.ib            future by its last trading day
    aapl.smart.20261218-c-250.ib   option: last day, c or p, strike (_ is the point)
    eurusd.idealpro.ib             forex
    spx.cboe.ib                    index
    btcusd.paxos.ib                crypto

A blank in a symbol is written as `-`: `brk-b.nyse.ib`. Stocks are routed by SMART where
they can be; the venue then says which listing is meant.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from piker_core.errors import NotFound

from .config import PROVIDER, Config

FOREX_VENUES = frozenset(("idealpro",))
CRYPTO_VENUES = frozenset(("paxos", "zerohash"))
SMART = "smart"
_MOST = 1e300
_PART = re.compile(r"[a-z0-9_-]+")
_OPTION = re.compile(r"(\d{8})-([cp])-(\d+(?:_\d+)?)")
_EXPIRY = re.compile(r"\d{6}|\d{8}")
_SHOWN = 10


class Wanted(msgspec.Struct, frozen=True):
    """A market name in parts: `tail` is the expiry or option behind the venue."""

    pair: str
    venue: str = ""
    tail: str = ""

    @property
    def symbol(self) -> str:
        """The name without its provider."""
        return ".".join(part for part in (self.pair, self.venue, self.tail) if part)

    @property
    def ticker(self) -> str:
        """The pair as TWS writes a symbol."""
        return self.pair.upper().replace("-", " ")


def parse_name(name: str) -> Wanted:
    """The parts of a market name, with or without `.ib`; raises NotFound."""
    plain = name.strip().lower().removesuffix(f".{PROVIDER}")
    parts = plain.split(".")
    tail = parts[2] if len(parts) == 3 else ""
    named = all(_PART.fullmatch(part) for part in parts) and len(parts) <= 3
    if not named or (tail and not is_tail(tail)):
        raise NotFound(
            f"{name!r} names no contract: write "
            "<symbol>.<venue>[.<expiry or option>].ib, such as aapl.nasdaq.ib, "
            "mnq.cme.20261218.ib, aapl.smart.20261218-c-250.ib or eurusd.idealpro.ib"
        )
    return Wanted(*parts)


def is_tail(text: str) -> bool:
    """Whether it is an expiry (20261218 or 202612) or an option (20261218-c-2_5)."""
    return bool(_EXPIRY.fullmatch(text) or _OPTION.fullmatch(text))


def queries(wanted: Wanted) -> list[dict[str, Any]]:
    """Fields of the contracts that a name may mean, the likeliest first."""
    venue, ticker = wanted.venue, wanted.ticker
    exchange = venue.upper()
    option = _OPTION.fullmatch(wanted.tail)
    if option is not None:
        day, right, strike = option.groups()
        fields = {
            "symbol": ticker,
            "exchange": exchange,
            "lastTradeDateOrContractMonth": day,
            "right": right.upper(),
            "strike": float(strike.replace("_", ".")),
        }
        return [{"secType": kind} | fields for kind in ("OPT", "FOP")]
    if wanted.tail:
        fields = {"symbol": ticker, "exchange": exchange}
        return [
            {"secType": "FUT", "lastTradeDateOrContractMonth": wanted.tail} | fields
        ]
    if venue in FOREX_VENUES | CRYPTO_VENUES:
        base, currency = ticker[:-3], ticker[-3:]
        kind = "CASH" if venue in FOREX_VENUES else "CRYPTO"
        fields = {"symbol": base, "currency": currency, "exchange": exchange}
        return [{"secType": kind} | fields]
    routed = {"secType": "STK", "symbol": ticker, "exchange": "SMART"}
    if not venue:
        return [routed] + [
            {"secType": kind, "symbol": ticker} for kind in ("IND", "FUT")
        ]
    if venue == SMART:
        return [routed, routed | {"secType": "CMDTY"}]
    direct = {"symbol": ticker, "exchange": exchange}
    return [
        routed | {"primaryExchange": exchange},
        *({"secType": kind} | direct for kind in ("STK", "IND", "CMDTY", "FUT")),
    ]


def listing_name(contract: Any, venue: str = "") -> str:
    """Our name of a contract that TWS described, without the provider.

    `venue`: how its venue was called, if it was.
    """
    pair = contract.symbol.lower().replace(" ", "-").replace(".", "-")
    place = venue or _venue(contract)
    tail = ""
    if contract.secType in ("CASH", "CRYPTO"):
        pair += contract.currency.lower()
    elif contract.secType in ("OPT", "FOP"):
        strike = step(contract.strike) or Decimal(0)
        digits = f"{strike:f}".replace(".", "_")
        tail = f"{expiry_text(contract)}-{contract.right[:1].lower()}-{digits}"
    elif contract.secType == "FUT":
        tail = expiry_text(contract)
    return ".".join(part for part in (pair, place, tail) if part)


def _venue(contract: Any) -> str:
    name = contract.exchange
    if contract.secType == "STK":
        name = contract.primaryExchange or name
    return str(name.partition(".")[0].lower()) or SMART


def expiry_text(contract: Any) -> str:
    """The last trading day, or the month, of a contract that TWS described."""
    return str(contract.lastTradeDateOrContractMonth)[:8]


def choose(wanted: Wanted, rows: Iterable[Any], config: Config) -> Any | None:
    """Of the descriptions that TWS gives for a name, the one that it means.

    None if there is none; raises NotFound with the names of several.
    """
    unique = {(row.contract.conId, row.contract.exchange): row for row in rows}
    found = [row for row in unique.values() if _fits(wanted, row.contract)]
    by_id = {row.contract.conId: row for row in found}
    if len(by_id) > 1:
        for narrower in (_is_own_class(wanted), _is_in(config.currency)):
            narrowed = {
                key: row for key, row in by_id.items() if narrower(row.contract)
            }
            by_id = narrowed or by_id
    if len(by_id) > 1:
        raise ambiguous(wanted, list(by_id.values()))
    return next(iter(by_id.values()), None)


def _fits(wanted: Wanted, contract: Any) -> bool:
    if wanted.venue in ("", SMART) or contract.secType != "STK":
        return True
    return wanted.venue in (_venue(contract), contract.exchange.lower())


def _is_own_class(wanted: Wanted) -> Callable[[Any], bool]:
    """Futures of one symbol differ in size: the one whose class is its symbol."""

    def is_it(contract: Any) -> bool:
        return bool(
            contract.secType == "FUT" and contract.tradingClass == wanted.ticker
        )

    return is_it


def _is_in(currency: str) -> Callable[[Any], bool]:
    def is_it(contract: Any) -> bool:
        return bool(contract.secType == "STK" and contract.currency == currency)

    return is_it


def ambiguous(wanted: Wanted, rows: Sequence[Any]) -> NotFound:
    """The error of a name that several contracts have."""
    shown = sorted(_candidate(row) for row in rows)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return NotFound(
        f"{wanted.symbol}.{PROVIDER} may be any of {', '.join(shown[:_SHOWN])}{more}: "
        "ask for one of them"
    )


def _candidate(row: Any) -> str:
    contract = row.contract
    name = f"{listing_name(contract)}.{PROVIDER}"
    size = f", {contract.multiplier} a point" if contract.multiplier else ""
    return f"{name} ({contract.localSymbol}, {contract.currency}{size})"


def step(value: float) -> Decimal | None:
    """A number as its shortest decimal; None for 0 and for what stands for nothing."""
    if not 0 < value < _MOST:
        return None
    return Decimal(repr(value)).normalize() + 0
