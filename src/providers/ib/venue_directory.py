"""How requests name contracts, and which contracts they mean."""

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from .venue_contracts import VenueContract
from .venue_market import ContractMarket

SEC_TYPES = frozenset(
    {"STK", "OPT", "FUT", "CONTFUT", "CASH", "IND", "CRYPTO"}
    | {"FOP", "CFD", "BOND", "CMDTY", "BAG", "FUND", "WAR", "IOPT"}
)
MAX_SAMPLES = 16
UNKNOWN = "No security definition has been found for the request"
INVALID = "Error validating request.-'bZ' : cause - "
_ALIASES = {"ISLAND": "NASDAQ", "GLOBEX": "CME", "IBIS2": "IBIS"}
_RIGHTS = {"CALL": "C", "PUT": "P", "?": "", "0": ""}


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Wanted(NamedTuple):
    """The twelve contract fields of a request; empty ones match all."""

    con_id: int
    ticker: str
    sec_type: str
    expiry: str
    strike: float
    right: str
    multiplier: str
    exchange: str
    primary: str
    currency: str
    local_symbol: str
    trading_class: str


class Found(NamedTuple):
    """A contract's market on one exchange, under the class it was asked for."""

    market: ContractMarket
    exchange: str
    sec_type: str

    @property
    def contract(self) -> VenueContract:
        """The contract itself."""
        return self.market.pair


class Directory:
    """All contracts, by what requests say of them."""

    def __init__(self, markets: Sequence[ContractMarket]) -> None:
        self._markets = tuple(markets)
        self._contracts = tuple(market.pair for market in markets)

    def find(self, wanted: Wanted) -> list[Found]:
        """All that match, one for each exchange unless the request names one."""
        rows = [row for row in self._markets if _matches(row.pair, wanted)]
        if wanted.sec_type == "CONTFUT":
            rows = sorted(rows, key=lambda row: row.pair.expiry or date.max)[:1]
        named = (wanted.exchange,) if wanted.exchange else ()
        return [
            Found(row, exchange, wanted.sec_type or row.pair.sec_type)
            for row in rows
            for exchange in named or row.pair.exchanges
        ]

    def resolve(self, wanted: Wanted) -> Found:
        """The one that matches; raises `Refused` if none or several do."""
        check(wanted)
        if not wanted.exchange:
            raise Refused(321, f"{INVALID}Please enter exchange")
        found = self.find(wanted)
        if not found:
            raise Refused(200, UNKNOWN)
        if len(found) > 1:
            name = wanted.ticker or wanted.local_symbol
            text = f"The contract description specified for {name} is ambiguous."
            raise Refused(200, text)
        return found[0]

    def search(self, pattern: str) -> list[VenueContract]:
        """Contracts whose ticker begins with a text, or whose name has it.

        Of contracts on one underlying there is one, and no more than 16 in all.
        """
        text = pattern.strip().upper()
        found: dict[tuple[str, str, str], VenueContract] = {}
        for row in self._contracts if text else ():
            hit = row.ticker.startswith(text) or text in row.long_name.upper()
            if hit and row.sec_type != "OPT":
                found.setdefault((row.ticker, row.currency, row.exchange), row)
        ranked = sorted(found.values(), key=lambda row: row.ticker != text)
        return ranked[:MAX_SAMPLES]

    def derivatives(self, contract: VenueContract) -> list[str]:
        """Classes of contracts on the same underlying."""
        others = (row for row in self._contracts if row.ticker == contract.ticker)
        kinds = (row.sec_type for row in others if row.currency == contract.currency)
        return sorted({kind for kind in kinds if kind in ("OPT", "FUT")})

    def options(self, under_con_id: int) -> list[VenueContract]:
        """Options on an underlying."""
        return [
            row
            for row in self._contracts
            if row.sec_type == "OPT" and row.under_con_id == under_con_id
        ]


def check(wanted: Wanted) -> None:
    """Raises `Refused` for a contract that names no class that there is."""
    if not wanted.con_id and wanted.sec_type not in SEC_TYPES:
        raise Refused(321, f"{INVALID}Please enter a valid security type")


def exchange_name(name: str) -> str:
    """An exchange under the name it has here."""
    return _ALIASES.get(name, name)


def _matches(row: VenueContract, wanted: Wanted) -> bool:
    exchange = exchange_name(wanted.exchange)
    if exchange and exchange not in row.exchanges:
        return False
    if wanted.con_id:
        return row.con_id == wanted.con_id
    sec_type = "FUT" if wanted.sec_type == "CONTFUT" else wanted.sec_type
    expiry = f"{row.expiry:%Y%m%d}" if row.expiry else ""
    pairs = (
        (wanted.ticker, row.ticker),
        (wanted.currency, row.currency),
        (wanted.local_symbol, row.local_symbol),
        (wanted.trading_class, row.trading_class),
        (wanted.multiplier, row.multiplier),
        (_RIGHTS.get(wanted.right, wanted.right), row.right),
        (exchange_name(wanted.primary), row.exchange),
    )
    return (
        sec_type == row.sec_type
        and bool(wanted.ticker or wanted.local_symbol)
        and all(not text or text == own for text, own in pairs)
        and expiry.startswith(wanted.expiry)
        and wanted.strike in (0.0, row.strike)
    )
