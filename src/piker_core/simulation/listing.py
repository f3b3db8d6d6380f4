"""What a simulated market needs to know of the pair it trades."""

from decimal import Decimal

import msgspec

SIZE_DECIMALS = 8


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A pair's name, its precision and its part of the trading.

    Prices are counted in units of 10**-price_decimals; `tick_units` of them make one
    tick. Sizes are counted in units of 1e-8; `step_units` of them make one step.
    `live_share` and `history_share` are parts of the venue's trade rates; a pair whose
    `live_share` is 0 is quoted but never trades live. `first_id` is its first trade's
    id, `first_group` the number of its first group of trades.
    """

    symbol: str
    price_decimals: int
    start_units: int
    typical_size: float
    size_min: str
    live_share: float
    history_share: float
    first_id: int
    first_group: int = 0
    tick_units: int = 1
    step_units: int = 1

    @property
    def tick(self) -> Decimal:
        """The price step."""
        return Decimal(self.tick_units).scaleb(-self.price_decimals)

    @property
    def step(self) -> Decimal:
        """The size step."""
        return Decimal(self.step_units).scaleb(-SIZE_DECIMALS)

    def names(self) -> tuple[str, ...]:
        """Every name the venue knows the pair by."""
        return (self.symbol,)
