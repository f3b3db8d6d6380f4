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

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

from piker_core.errors import NotFound, PikerError
from piker_core.fqme import Fqme

from .config import PROVIDER, Config

FOREX_VENUES = frozenset(("idealpro",))
CRYPTO_VENUES = frozenset(("paxos", "zerohash"))
SMART = "smart"
_MOST = 1e300
_SHOWN = 10


def parse_name(name: str) -> Fqme:
    """The parts of a market name, with or without `.ib`; raises NotFound."""
    plain = name.strip().lower().removesuffix(f".{PROVIDER}")
    try:
        wanted = Fqme.parse(f"{plain}.{PROVIDER}")
    except PikerError:
        wanted = None
    if wanted is None or wanted.kind:
        raise NotFound(
            f"{name!r:.80} names no contract: write "
            "<symbol>.<venue>[.<expiry or option>].ib, such as aapl.nasdaq.ib, "
            "mnq.cme.20261218.ib, aapl.smart.20261218-c-250.ib or eurusd.idealpro.ib"
        )
    return wanted


def queries(wanted: Fqme) -> list[dict[str, Any]]:
    """Fields of the contracts that a name may mean, the likeliest first."""
    venue, ticker = wanted.venue, _ticker(wanted)
    exchange = venue.upper()
    direct = {"symbol": ticker, "exchange": exchange}
    dated = direct | {"lastTradeDateOrContractMonth": wanted.expiry}
    if wanted.strike is not None:
        fields = dated | {"right": wanted.right.upper(), "strike": float(wanted.strike)}
        return [{"secType": kind} | fields for kind in ("OPT", "FOP")]
    if wanted.expiry:
        return [{"secType": "FUT"} | dated]
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
    return [
        routed | {"primaryExchange": exchange},
        *({"secType": kind} | direct for kind in ("STK", "IND", "CMDTY", "FUT")),
    ]


def futures_query(contract: Any) -> dict[str, Any]:
    """Fields of the futures on what a search has found."""
    return {
        "secType": "FUT",
        "symbol": contract.symbol,
        "exchange": contract.primaryExchange.partition(".")[0],
        "currency": contract.currency,
    }


def listing_name(contract: Any, venue: str = "") -> str:
    """Our name of a contract that TWS described, without the provider.

    `venue`: how its venue was called, if it was. Raises PikerError for what has none.
    """
    pair = contract.symbol.lower().replace(" ", "-").replace(".", "-")
    if contract.secType in ("CASH", "CRYPTO"):
        pair += contract.currency.lower()
    option = contract.secType in ("OPT", "FOP")
    dated = option or contract.secType == "FUT"
    return Fqme(
        pair=pair,
        venue=venue or _venue(contract),
        expiry=expiry_text(contract) if dated else "",
        right=contract.right[:1].lower() if option else "",
        strike=(step(contract.strike) or Decimal(0)) if option else None,
        provider=PROVIDER,
    ).symbol


def _ticker(wanted: Fqme) -> str:
    """The pair as TWS writes a symbol."""
    return wanted.pair.upper().replace("-", " ")


def _venue(contract: Any) -> str:
    name = contract.exchange
    if contract.secType == "STK":
        name = contract.primaryExchange or name
    return str(name.partition(".")[0].lower()) or SMART


def expiry_text(contract: Any) -> str:
    """The last trading day, or the month, of a contract that TWS described."""
    return str(contract.lastTradeDateOrContractMonth)[:8]


def choose(wanted: Fqme, rows: Iterable[Any], config: Config) -> Any | None:
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


def _fits(wanted: Fqme, contract: Any) -> bool:
    if wanted.venue in ("", SMART) or contract.secType != "STK":
        return True
    return wanted.venue in (_venue(contract), contract.exchange.lower())


def _is_own_class(wanted: Fqme) -> Callable[[Any], bool]:
    """Futures of one symbol differ in size: the one whose class is its symbol."""

    def is_it(contract: Any) -> bool:
        return bool(
            contract.secType == "FUT" and contract.tradingClass == _ticker(wanted)
        )

    return is_it


def _is_in(currency: str) -> Callable[[Any], bool]:
    def is_it(contract: Any) -> bool:
        return bool(contract.secType == "STK" and contract.currency == currency)

    return is_it


def ambiguous(wanted: Fqme, rows: Sequence[Any]) -> NotFound:
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
