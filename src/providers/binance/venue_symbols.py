"""The symbols a simulated Binance lists, spot and USD-M."""

from collections.abc import Sequence

from piker_core.simulation.exchange import Exchange
from piker_core.simulation.listing import SIZE_DECIMALS, Listing
from piker_core.simulation.market import Market
from piker_core.simulation.numbers import fixed_text

MS, US = 10**6, 10**3  # what times are printed in, in ns
TRADING = "TRADING"
PERPETUAL = "PERPETUAL"
NEVER_MS = 4133404800000  # the delivery date of perpetuals
_SPOT_DECIMALS = 8
_SPOT_STATUS = {
    "online": TRADING,
    "maintenance": "BREAK",
    "cancel_only": "CANCEL_ONLY",
    "post_only": "HALT",
}
_USDM_STATUS = dict.fromkeys(_SPOT_STATUS, "PENDING_TRADING") | {"online": TRADING}


class VenueSymbol(Listing, frozen=True, kw_only=True):
    """A symbol; `contract` is empty on spot, else the contract's type.

    A symbol whose `status` is not TRADING is listed and nothing more. Size steps are
    powers of ten.
    """

    base: str
    quote: str
    contract: str = ""
    status: str = TRADING
    delivery_ms: int = NEVER_MS

    def names(self) -> tuple[str, ...]:
        """The symbol in both cases, and the name that tells USD-M from spot."""
        return (self.symbol, self.symbol.lower(), self.name)

    @property
    def name(self) -> str:
        """btcusdt, btcusdt.usdtm.perp or btcusdt.usdtm.20301227."""
        pair = self.pair.lower()
        if not self.contract:
            return pair
        if self.contract == PERPETUAL:
            return f"{pair}.usdtm.perp"
        return f"{pair}.usdtm.20{self.symbol.rpartition('_')[2]}"

    @property
    def pair(self) -> str:
        """The symbol without a delivery date."""
        return self.base + self.quote

    @property
    def size_decimals(self) -> int:
        """Decimals of the size step."""
        return SIZE_DECIMALS + 1 - len(str(self.step_units))

    # Numbers as the venue prints them: eight decimals on spot, else the contract's

    def price_text(self, units: int) -> str:
        """A price."""
        if self.contract:
            return fixed_text(units, self.price_decimals)
        scale = 10 ** (_SPOT_DECIMALS - self.price_decimals)
        return fixed_text(units * scale, _SPOT_DECIMALS)

    def size_text(self, units: int) -> str:
        """A size."""
        if self.contract:
            scale = 10 ** (SIZE_DECIMALS - self.size_decimals)
            return fixed_text(units // scale, self.size_decimals)
        return fixed_text(units, SIZE_DECIMALS)

    def notional_text(self, units: int) -> str:
        """A sum of price * size, cut where it has more decimals than are printed."""
        if self.contract:
            scale = 10 ** (SIZE_DECIMALS - self.size_decimals)
            decimals = self.price_decimals + self.size_decimals
            return fixed_text(units // scale, decimals)
        return fixed_text(units // 10**self.price_decimals, _SPOT_DECIMALS)

    def status_in(self, system: str) -> str:
        """The status while the venue's system is in some state."""
        if self.status != TRADING:
            return self.status
        return (_USDM_STATUS if self.contract else _SPOT_STATUS)[system]


SymbolMarket = Market[VenueSymbol]
SymbolExchange = Exchange[VenueSymbol]

SPOT: tuple[VenueSymbol, ...] = (
    VenueSymbol(
        symbol="BTCUSDT", base="BTC", quote="USDT", price_decimals=2,
        start_units=6184263, step_units=1000, typical_size=0.01, size_min="0.00001",
        live_share=0.3, history_share=0.3, first_id=3735683259, first_group=3104729883,
    ),
    VenueSymbol(
        symbol="ETHUSDT", base="ETH", quote="USDT", price_decimals=2,
        start_units=268055, step_units=10_000, typical_size=0.2, size_min="0.0001",
        live_share=0.1, history_share=0.1, first_id=1513928841, first_group=1190338271,
    ),
    VenueSymbol(
        symbol="ETHBTC", base="ETH", quote="BTC", price_decimals=5,
        start_units=4334, step_units=10_000, typical_size=0.2, size_min="0.0001",
        live_share=0.05, history_share=0.05, first_id=471336842, first_group=343919112,
    ),
    VenueSymbol(
        symbol="DOGEUSDT", base="DOGE", quote="USDT", price_decimals=5,
        start_units=18435, step_units=10**8, typical_size=900.0, size_min="1",
        live_share=0.07, history_share=0.05, first_id=923585768, first_group=601847739,
    ),
    VenueSymbol(
        symbol="币安人生USDT", base="币安人生", quote="USDT", price_decimals=4,
        start_units=2512, step_units=10**7, typical_size=400.0, size_min="0.1",
        live_share=0.03, history_share=0.03, first_id=8120455, first_group=5011930,
    ),
    VenueSymbol(
        symbol="XRPETH", base="XRP", quote="ETH", price_decimals=7,
        start_units=7716, step_units=10**8, typical_size=40.0, size_min="1",
        live_share=0.0, history_share=0.02, first_id=61180344, first_group=50180271,
    ),
    VenueSymbol(
        symbol="BCCBTC", base="BCC", quote="BTC", price_decimals=6, status="BREAK",
        start_units=79301, step_units=10**5, typical_size=1.0, size_min="0.001",
        live_share=0.0, history_share=0.0, first_id=0,
    ),
)  # fmt: skip

USDM: tuple[VenueSymbol, ...] = (
    VenueSymbol(
        symbol="BTCUSDT", base="BTC", quote="USDT", contract=PERPETUAL,
        price_decimals=2, tick_units=10, start_units=6181240, step_units=10**5,
        typical_size=0.02, size_min="0.001", live_share=0.25, history_share=0.25,
        first_id=5203857913, first_group=2289630111,
    ),
    VenueSymbol(
        symbol="ETHUSDT", base="ETH", quote="USDT", contract=PERPETUAL,
        price_decimals=2, start_units=267981, step_units=10**5, typical_size=0.4,
        size_min="0.001", live_share=0.12, history_share=0.12, first_id=4301992827,
        first_group=1820043990,
    ),
    VenueSymbol(
        symbol="DOGEUSDT", base="DOGE", quote="USDT", contract=PERPETUAL,
        price_decimals=6, tick_units=10, start_units=184210, step_units=10**8,
        typical_size=2500.0, size_min="1", live_share=0.05, history_share=0.05,
        first_id=1390027744, first_group=801930047,
    ),
    VenueSymbol(
        symbol="BTCUSDT_301227", base="BTC", quote="USDT", contract="NEXT_QUARTER",
        delivery_ms=1924588800000, price_decimals=1, start_units=633187,
        step_units=10**5, typical_size=0.02, size_min="0.001", live_share=0.03,
        history_share=0.03, first_id=10218208, first_group=7102939,
    ),
    VenueSymbol(
        symbol="FTTUSDT", base="FTT", quote="USDT", contract=PERPETUAL,
        status="SETTLING", price_decimals=4, start_units=12730, step_units=10**7,
        typical_size=20.0, size_min="0.1", live_share=0.0, history_share=0.0,
        first_id=0,
    ),
)  # fmt: skip


def select_symbols(pairs: Sequence[str | VenueSymbol] | None) -> list[VenueSymbol]:
    """Look symbols up in the catalogue; all of it for None, each once.

    A name is a spot symbol, or that of a contract (`VenueSymbol.name`). Raises
    `ValueError` for an unknown name.
    """
    if pairs is None:
        return [*SPOT, *USDM]
    known = {name: row for row in USDM for name in row.names()}
    known |= {name: row for row in SPOT for name in row.names()}
    chosen = []
    for pair in pairs:
        if isinstance(pair, str):
            if pair not in known:
                listed = ", ".join(row.name for row in (*SPOT, *USDM))
                raise ValueError(f"no symbol {pair!r} in the catalogue: {listed}")
            pair = known[pair]
        chosen.append(pair)
    if not chosen:
        raise ValueError("pairs is empty: name at least one, or pass None for all")
    return list(dict.fromkeys(chosen))


def make_crowd(count: int) -> list[VenueSymbol]:
    """So many spot symbols more, C0000USDT and up, that trade alike."""
    return [
        VenueSymbol(
            symbol=f"C{number:04d}USDT",
            base=f"C{number:04d}",
            quote="USDT",
            price_decimals=4,
            start_units=10_000 + 97 * number,
            step_units=10**6,
            typical_size=50.0,
            size_min="0.01",
            live_share=1 / count,
            history_share=1 / count,
            first_id=1000 * number + 1,
            first_group=700 * number + 1,
        )
        for number in range(count)
    ]
