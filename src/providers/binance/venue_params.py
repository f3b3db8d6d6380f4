"""Parameters of REST calls, checked as the venue checks them."""

import re

import msgspec

from piker_core.simulation.market import NS

from .venue_errors import (
    BAD_COMBINATION,
    BAD_SYMBOL,
    Refused,
    illegal,
    invalid,
    missing,
)
from .venue_symbols import MS, US, SymbolExchange, SymbolMarket

_LEGAL_SYMBOL = r"^[\w\-._&&[^a-z]]{1,50}$"
_LEGAL_SYMBOLS = r'^\["[\w\-._&&[^a-z]]{1,50}"(,"[\w\-._&&[^a-z]]{1,50}"){0,}\]$'
_SYMBOL = re.compile(r"[^\Wa-z]([^\Wa-z]|[-.]){0,49}")
_US_FROM = 10**14  # a time of this size is in us, a smaller one in ms


class Params:
    """The parameters of one call; `unit` is what its answer counts times in, in ns.

    Reading one that is wrong raises `Refused`. `strict` refuses symbols in lower case
    and parameters nobody knows, as spot does.
    """

    def __init__(
        self,
        query: dict[str, str],
        exchange: SymbolExchange,
        *,
        refused: set[str],
        unit: int,
        strict: bool,
    ) -> None:
        self.unit = unit
        self._query = query
        self._exchange = exchange
        self._refused = refused
        self._strict = strict

    def known(self, *names: str) -> None:
        """Refuse parameters other than these."""
        if not self._strict:
            return
        expected = len(self._query.keys() & set(names))
        if not names and self._query:
            text = f"expected '0' and received '{len(self._query)}'."
            raise Refused(-1101, f"Too many parameters; {text}")
        if expected != len(self._query):
            text = f"read '{expected}' parameter(s) but was sent '{len(self._query)}'."
            raise Refused(-1104, f"Not all sent parameters were read; {text}")

    def has(self, name: str) -> bool:
        """Whether a parameter was sent."""
        return name in self._query

    def text(self, name: str) -> str:
        """A mandatory parameter."""
        if name not in self._query:
            raise missing(name)
        if not self._query[name]:
            raise Refused(-1105, f"Parameter '{name}' was empty.")
        return self._query[name]

    def integer(self, name: str) -> int | None:
        """A whole number, None if it was not sent."""
        if name not in self._query:
            return None
        text = self.text(name)
        if not (text.isascii() and text.isdigit() and len(text) <= 20):
            raise illegal(name, "^[0-9]{1,20}$")
        if int(text) >= 2**63:
            raise Refused(-1108, f"Parameter '{name}' overflowed.")
        return int(text)

    def limit(self, default: int, most: int) -> int:
        """How many rows are asked for; spot cuts what is too much, USD-M refuses it."""
        limit = self.integer("limit")
        if limit is None:
            return default
        if not limit or (limit > most and not self._strict):
            raise invalid("limit")
        return min(limit, most)

    def span_ns(self) -> tuple[int | None, int | None]:
        """The first ns from `startTime` on and the first after `endTime`, inclusive."""
        return self._time_ns("startTime", 0), self._time_ns("endTime", 1)

    def _time_ns(self, name: str, more: int) -> int | None:
        time = self.integer(name)
        if time is None:
            return None
        return min((time + more) * (US if time >= _US_FROM else MS), 2**63 - NS)

    def permissions(self, name: str) -> list[str]:
        """One value, or a JSON list of them; none if it was not sent."""
        if name not in self._query:
            return []
        text = self.text(name)
        if not text.startswith("["):
            return [text]
        try:
            return msgspec.json.decode(text, type=list[str])
        except msgspec.DecodeError:
            raise invalid(name) from None

    # Symbols

    def market(self) -> SymbolMarket:
        """The market of the mandatory `symbol`."""
        market = self._find("symbol", self.text("symbol"))
        status = market.pair.status_in(self._exchange.system)
        if self._strict and self._query.get("symbolStatus", status) != status:
            text = "The symbol's status does not match the requested symbolStatus."
            raise Refused(-1220, text)
        return market

    def markets(self) -> list[SymbolMarket] | None:
        """The markets of `symbols`; None if it was not sent."""
        if "symbols" not in self._query:
            return None
        if "symbol" in self._query:
            raise Refused(*BAD_COMBINATION)
        try:
            names = msgspec.json.decode(self.text("symbols"), type=list[str])
        except msgspec.DecodeError:
            raise illegal("symbols", _LEGAL_SYMBOLS) from None
        if len(set(names)) < len(names):
            raise Refused(-1151, "Symbol is present multiple times in the list.")
        return [self._find("symbols", name) for name in names]

    def known_markets(self) -> list[SymbolMarket]:
        """All markets but those that a fault makes unknown."""
        rows = self._exchange.markets
        return [row for row in rows if row.pair.symbol not in self._refused]

    def _find(self, name: str, symbol: str) -> SymbolMarket:
        if not self._strict:
            symbol = symbol.upper()
        elif not _SYMBOL.fullmatch(symbol):
            raise illegal(name, _LEGAL_SYMBOL)
        market = self._exchange.find(symbol)
        if market is None or market.pair.symbol != symbol or symbol in self._refused:
            raise Refused(*BAD_SYMBOL)
        return market
