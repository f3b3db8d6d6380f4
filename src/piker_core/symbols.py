"""What is traded where: assets and markets, with their exact steps and limits."""

from decimal import Decimal

import msgspec

from piker_core.errors import PikerError
from piker_core.fqme import Fqme, parse_fqme
from piker_core.steps import SENDERS_WAY, quantize, step_text, tick_digits

__all__ = ["Asset", "Fqme", "MktPair", "parse_fqme", "quantize"]

_set = msgspec.structs.force_setattr


class Asset(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is traded or paid with.

    `atype` is its class, such as crypto, fiat, stock, index, commodity or bond;
    `tx_tick` its smallest amount.
    """

    name: str
    atype: str = "crypto"
    tx_tick: Decimal = Decimal("1e-8")


class MktPair(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A market: base against quote at a venue, with decimal steps.

    `symbol` is the name used with this provider (the full name without its suffix),
    `venue_symbol` the venue's own name. `kind` is spot, forex, stock, index, perp,
    future, option or another class. `expiry` (YYYYMMDD, or a month), `right` (c or p)
    and `strike` are of contracts that have them. What the symbol says of these, they
    have; a symbol that is a bare pair is completed by them. A contract stands for
    `multiplier` units of the base.

    Sizes are in units of the base, or contracts. An order has a size of `min_size` to
    `max_size`, and is worth at least `min_notional` of the quote; 0 and None: no limit.
    `calendar` names the sessions of the market, see `piker_core.calendars`.
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
    kind: str = "spot"
    right: str = ""
    strike: Decimal | None = None
    multiplier: Decimal = Decimal(1)
    max_size: Decimal | None = None
    min_notional: Decimal = Decimal(0)
    calendar: str = "24/7"

    def __post_init__(self) -> None:
        if self.expiry and not self.expiry[:1].isdigit():  # a class, where it stands
            _set(self, "kind", self.expiry)
            _set(self, "expiry", "")
        if "." in self.symbol:
            self._adopt(self.name)
        elif self.venue:
            _set(self, "symbol", self._named().symbol)

    def _adopt(self, name: Fqme | None) -> None:
        """Take over what the name says, where the fields do not say it."""
        if name is None:
            return
        for field in ("venue", "expiry", "right", "strike"):
            if not getattr(self, field):
                _set(self, field, getattr(name, field))
        if self.kind == "spot":
            dated = "future" if name.strike is None else "option"
            _set(self, "kind", dated if name.expiry else name.kind or "spot")

    def _named(self) -> Fqme:
        return Fqme(
            pair=self.symbol,
            provider=self.provider,
            venue=self.venue,
            expiry=self.expiry,
            kind="perp" if self.kind == "perp" else "",
            right=self.right,
            strike=self.strike,
        )

    @property
    def fqme(self) -> str:
        """The full market name, such as `xbtusd.kraken`."""
        return f"{self.symbol}.{self.provider}"

    @property
    def name(self) -> Fqme | None:
        """The full market name in its parts; None if it is of another form."""
        try:
            return Fqme.parse(self.fqme)
        except PikerError:
            return None

    @property
    def price_digits(self) -> int:
        """Decimals of a price."""
        return tick_digits(self.price_tick)

    @property
    def size_digits(self) -> int:
        """Decimals of a size."""
        return tick_digits(self.size_tick)

    def quantize_price(
        self, price: Decimal | float | str, rounding: str = "nearest"
    ) -> Decimal:
        """The multiple of the price tick nearest to (or "down", "up" from) a price."""
        return quantize(price, self.price_tick, rounding)

    def quantize_order_price(
        self, price: Decimal | float | str, action: str
    ) -> Decimal:
        """A price as an order can have it, never to the sender's disadvantage.

        That is the multiple of the price tick next below for a "buy", next above for a
        "sell". Raises ValueError for another action and for what is no price.
        """
        if action not in SENDERS_WAY:
            raise ValueError(f"action {action!r} must be buy or sell")
        return quantize(price, self.price_tick, SENDERS_WAY[action])

    def quantize_size(
        self, size: Decimal | float | str, rounding: str = "down"
    ) -> Decimal:
        """The multiple of the size tick below (or "nearest" to, "up" from) a size."""
        return quantize(size, self.size_tick, rounding)

    def price_text(self, price: Decimal | float | str) -> str:
        """The nearest multiple of the price tick, as text with the tick's decimals."""
        return step_text(self.quantize_price(price), self.price_tick)

    def size_text(self, size: Decimal | float | str) -> str:
        """The multiple of the size tick below, as text with the tick's decimals."""
        return step_text(self.quantize_size(size), self.size_tick)
