"""Market names: `<pair>[.<venue>[.<expiry or class>]].<provider>`, in lower case.

    xbtusd.kraken                     spot
    eurusd.idealpro.ib                forex, or any pair at a venue
    btcusdt.usdtm.perp.binance        perpetual: a class, which begins with a letter
    btcusdt.usdtm.20261225.binance    dated future: day of expiry, or month (202612)
    aapl.smart.20261218-c-250.ib      option: expiry, c or p, strike
    aapl.smart.20261218-p-2_5.ib      the same: _ is the decimal point of a strike

Parts are of `[a-z0-9_-]`. A market has one name: a strike has no needless zero.
"""

import re
from datetime import date
from decimal import Decimal

import msgspec

from piker_core.errors import PikerError

RIGHTS = ("c", "p")
"""Call and put."""

_PART = re.compile(r"[a-z0-9_-]+")
_CLASS = re.compile(r"[a-z][a-z0-9_-]*")
_OPTION = re.compile(r"([0-9]{6,8})-([a-z]+)-([0-9_]+)")
_STRIKE = re.compile(r"(0|[1-9][0-9]*)(_[0-9]*[1-9])?")


class Fqme(msgspec.Struct, frozen=True, kw_only=True):
    """A market name in its parts; `str()` puts them together.

    `expiry` is YYYYMMDD or YYYYMM, `kind` the class in its place (`perp`), `right` and
    `strike` those of an option. Raises PikerError for parts that make no name.
    """

    pair: str
    provider: str
    venue: str = ""
    expiry: str = ""
    kind: str = ""
    right: str = ""
    strike: Decimal | None = None

    def __post_init__(self) -> None:
        for part in (self.pair, self.venue or "-", self.provider):
            if not _PART.fullmatch(part):
                raise self._refuse(f"{part!r} is not of [a-z0-9_-]")
        if not self.venue and (self.expiry or self.kind or self.right):
            raise self._refuse("an expiry or class stands behind a venue")
        if self.kind and (self.expiry or self.right or not _CLASS.fullmatch(self.kind)):
            raise self._refuse(f"{self.kind!r} is no class such as perp")
        if self.expiry and not _is_expiry(self.expiry):
            raise self._refuse(f"{self.expiry!r} is no day or month, such as 20261218")
        if self.right or self.strike is not None:
            self._check_option()

    def _check_option(self) -> None:
        if not self.expiry:
            raise self._refuse("an option has an expiry")
        if self.right not in RIGHTS:
            raise self._refuse(f"{self.right!r} is no right: c for a call, p for a put")
        strike = self.strike
        if strike is None or not strike.is_finite() or strike < 0:
            raise self._refuse(f"{strike} is no strike")

    def _refuse(self, why: str) -> PikerError:
        parts = (self.pair, self.venue, self.expiry or self.kind, self.provider)
        return _refuse(".".join(part for part in parts if part), why)

    @classmethod
    def parse(cls, fqme: str) -> "Fqme":
        """The parts of a name. Raises PikerError for what is none."""
        parts = fqme.split(".") if isinstance(fqme, str) else []
        if not 2 <= len(parts) <= 4:
            raise _refuse(fqme, "it has two to four parts, joined by dots")
        if not all(_PART.fullmatch(part) for part in parts):
            raise _refuse(fqme, "its parts are of [a-z0-9_-]")
        pair, venue, tail = (*parts[:-1], "", "")[:3]
        expiry, kind, right, strike = _read_tail(fqme, tail)
        return cls(
            pair=pair,
            provider=parts[-1],
            venue=venue,
            expiry=expiry,
            kind=kind,
            right=right,
            strike=strike,
        )

    @property
    def tail(self) -> str:
        """What stands behind the venue: expiry, class or option; empty for others."""
        if self.strike is not None:
            return f"{self.expiry}-{self.right}-{_strike_text(self.strike)}"
        return self.expiry or self.kind

    @property
    def symbol(self) -> str:
        """The name without its provider."""
        return ".".join(part for part in (self.pair, self.venue, self.tail) if part)

    def __str__(self) -> str:
        return f"{self.symbol}.{self.provider}"


def parse_fqme(fqme: str) -> tuple[str, str]:
    """Split a name into what stands before the last dot and the provider.

    Raises PikerError unless it is at least two dot-joined parts of `[a-z0-9_-]`.
    """
    parts = fqme.split(".") if isinstance(fqme, str) else []
    if len(parts) < 2 or not all(_PART.fullmatch(part) for part in parts):
        raise _refuse(fqme, "write <pair>.<provider> in lower case")
    return ".".join(parts[:-1]), parts[-1]


def _read_tail(fqme: str, tail: str) -> tuple[str, str, str, Decimal | None]:
    """Expiry, class, right and strike of what stands behind the venue."""
    option = _OPTION.fullmatch(tail)
    if option is None:
        return ("", tail, "", None) if tail[:1].isalpha() else (tail, "", "", None)
    expiry, right, strike = option.groups()
    if not _STRIKE.fullmatch(strike):
        raise _refuse(fqme, f"strike {strike} is not plain, such as 250, 2_5 or 0_05")
    return expiry, "", right, Decimal(strike.replace("_", "."))


def _is_expiry(text: str) -> bool:
    if not text.isascii() or not text.isdigit() or len(text) not in (6, 8):
        return False
    day = text if len(text) == 8 else f"{text}01"
    try:
        return bool(date.fromisoformat(f"{day[:4]}-{day[4:6]}-{day[6:]}"))
    except ValueError:
        return False


def _strike_text(strike: Decimal) -> str:
    text = f"{strike:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace(".", "_")


def _refuse(fqme: object, why: str) -> PikerError:
    return PikerError(
        f"{fqme!r:.80} is not a market name: {why} "
        "(<pair>[.<venue>[.<expiry or class>]].<provider>, such as xbtusd.kraken)"
    )
