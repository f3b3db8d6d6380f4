"""Market names (fqme) and the exact price and size steps of a market."""

import re
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_UP, Decimal

import msgspec

from piker_core.errors import PikerError

_PART = re.compile(r"[a-z0-9_-]+")
_ROUNDING = {"nearest": ROUND_HALF_EVEN, "down": ROUND_DOWN, "up": ROUND_UP}


class Asset(msgspec.Struct, frozen=True):
    """What is traded or paid with. `tx_tick` is its smallest amount."""

    name: str
    atype: str = "crypto"
    tx_tick: Decimal = Decimal("1e-8")


class MktPair(msgspec.Struct, frozen=True, kw_only=True):
    """A market: base against quote at a venue, with decimal steps.

    `symbol` is the name used with this provider (without its suffix), `venue_symbol`
    the venue's own name.
    """

    base: Asset
    quote: Asset
    symbol: str
    venue_symbol: str
    provider: str
    price_tick: Decimal
    size_tick: Decimal
    venue: str = ""
    expiry: str = ""
    min_size: Decimal = Decimal(0)

    @property
    def fqme(self) -> str:
        """The full market name, such as `xbtusd.kraken`."""
        parts = (self.symbol, self.venue, self.expiry, self.provider)
        return ".".join(part for part in parts if part)

    def quantize_price(
        self, price: Decimal | float | str, rounding: str = "nearest"
    ) -> Decimal:
        """The multiple of the price tick nearest to (or "down", "up" from) a price."""
        return quantize(price, self.price_tick, rounding)

    def quantize_size(
        self, size: Decimal | float | str, rounding: str = "down"
    ) -> Decimal:
        """The multiple of the size tick below (or "nearest" to, "up" from) a size."""
        return quantize(size, self.size_tick, rounding)


def quantize(
    number: Decimal | float | str, tick: Decimal, rounding: str = "nearest"
) -> Decimal:
    """The multiple of `tick` chosen by `rounding`, for ticks such as 0.25 and 5 too.

    Floats count as the decimal they print as. Raises ValueError for a tick that is not
    positive or a number that is not finite.
    """
    exact = Decimal(repr(number)) if isinstance(number, float) else Decimal(number)
    if not exact.is_finite() or not tick > 0:
        raise ValueError(f"cannot quantize {number!r} to multiples of {tick}")
    steps = (exact / tick).to_integral_value(rounding=_ROUNDING[rounding])
    return steps * tick


def parse_fqme(fqme: str) -> tuple[str, str]:
    """Split `<pair>[.<venue>...].<provider>` into (symbol, provider).

    Raises PikerError unless it is at least two dot-joined parts of `[a-z0-9_-]`.
    """
    parts = fqme.split(".") if isinstance(fqme, str) else []
    if len(parts) < 2 or not all(_PART.fullmatch(part) for part in parts):
        raise PikerError(
            f"{fqme!r} is not a market name: write <pair>.<provider> in lower case, "
            "such as xbtusd.kraken"
        )
    return ".".join(parts[:-1]), parts[-1]
