"""The contracts a simulated gateway lists: of every class some, most with real ids."""

import calendar
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal

import msgspec

from piker_core.fqme import Fqme
from piker_core.simulation.listing import SIZE_DECIMALS, Listing

from .venue_hours import CME, CRYPTO, FOREX, US_INDEX, US_STOCKS, XETRA, Hours

_SMART_US = ("SMART", "AMEX", "NYSE", "CBOE", "ISE", "ARCA", "NASDAQ", "BATS", "IEX")
_MONTH_CODES = "FGHJKMNQUVXZ"


class VenueContract(Listing, frozen=True, kw_only=True):
    """A contract; `symbol` names it at this venue, `ticker` is IB's symbol.

    `exchange` lists it, `exchanges` trade it, the first one by default. Quoted
    contracts (`prints` False) have no trades that anybody is told, an index prints
    without size (`sized` False).
    """

    ticker: str
    con_id: int
    sec_type: str
    currency: str
    exchange: str
    exchanges: tuple[str, ...]
    hours: Hours
    long_name: str
    local_symbol: str
    trading_class: str
    step_units: int = 10**SIZE_DECIMALS
    multiplier: str = ""
    expiry: date | None = None
    strike: float = 0.0
    right: str = ""
    under_con_id: int = 0
    isin: str = ""
    prints: bool = True
    sized: bool = True

    def names(self) -> tuple[str, ...]:
        """What the venue's own methods know it by."""
        return (self.symbol, str(self.con_id), self.market_name)

    @property
    def is_told(self) -> bool:
        """Whether it trades live, and each trade is told with its size."""
        return self.prints and self.sized and self.live_share > 0

    @property
    def market_name(self) -> str:
        """The market name, without the provider."""
        pair, place = self.ticker.lower(), self.exchange
        if self.sec_type in ("CASH", "CRYPTO"):
            pair += self.currency.lower()
        option = self.sec_type == "OPT"
        return Fqme(
            pair=pair,
            venue=(self.exchanges[0] if option else place).lower(),
            expiry=f"{self.expiry:%Y%m%d}" if self.expiry else "",
            right=self.right.lower(),
            strike=Decimal(repr(self.strike)) if option else None,
            provider="ib",
        ).symbol

    @property
    def size_step(self) -> str:
        """The size step as text, without needless zeros."""
        return f"{self.step.normalize():f}"


# The catalogue


def list_contracts(today: date) -> tuple[VenueContract, ...]:
    """The catalogue of a day: two expiries of each future, and options on AAPL."""
    return (
        *_stocks(),
        *_futures("ES", "E-mini S&P 500", today, 605_000, (620_000_000, 11004968),
                  (0.15, 0.01)),
        *_futures("MNQ", "Micro E-Mini Nasdaq-100 Index", today, 2_150_000,
                  (640_000_000, 362687422), (0.1, 0.01)),
        *_options(today),
        *_others(),
    )  # fmt: skip


def select_contracts(
    contracts: Sequence[str | VenueContract] | None, today: date
) -> tuple[VenueContract, ...]:
    """Look contracts up in the catalogue; all of it for None, each once.

    Raises `ValueError` for an unknown name.
    """
    catalogue = list_contracts(today)
    if contracts is None:
        return catalogue
    known = {name: row for row in catalogue for name in row.names()}
    chosen = []
    for row in contracts:
        if isinstance(row, str):
            if row not in known:
                listed = ", ".join(each.symbol for each in catalogue)
                raise ValueError(f"no contract {row!r} in the catalogue: {listed}")
            row = known[row]
        chosen.append(row)
    if not chosen:
        raise ValueError("contracts is empty: name at least one, or pass None for all")
    return tuple(dict.fromkeys(chosen))


def third_friday(year: int, month: int) -> date:
    """When a month's contracts expire."""
    weeks = calendar.monthcalendar(year, month)
    fridays = [week[calendar.FRIDAY] for week in weeks if week[calendar.FRIDAY]]
    return date(year, month, fridays[2])


def expiries(today: date, step_months: int) -> Iterator[date]:
    """Expiries after a week from today, in months that are multiples of a step."""
    month = today.year * 12 + today.month - 1
    while True:
        day = third_friday(month // 12, month % 12 + 1)
        if (month + 1) % step_months == 0 and day > today + timedelta(days=7):
            yield day
        month += 1


def _stock(
    ticker: str, con_id: int, name: str, units: int, share: float, isin: str
) -> VenueContract:
    return VenueContract(
        symbol=ticker, ticker=ticker, local_symbol=ticker, con_id=con_id,
        sec_type="STK", currency="USD", exchange="NASDAQ", exchanges=_SMART_US,
        hours=US_STOCKS, long_name=name, trading_class="NMS", isin=isin,
        price_decimals=2, start_units=units, typical_size=60.0, size_min="1",
        live_share=share, history_share=share, first_id=1,
    )  # fmt: skip


def _stocks() -> tuple[VenueContract, ...]:
    amd = _stock("AMD", 4391, "ADVANCED MICRO DEVICES", 21_480, 0.05, "US0079031078")
    return (
        _stock("AAPL", 265598, "APPLE INC", 27_150, 0.25, "US0378331005"),
        _stock("MSFT", 272093, "MICROSOFT CORP", 51_215, 0.1, "US5949181045"),
        _stock("TSLA", 76792991, "TESLA INC", 42_035, 0.15, "US88160R1014"),
        amd,
        msgspec.structs.replace(
            amd, symbol="AMD@IBIS", con_id=32596680, currency="EUR", exchange="IBIS",
            exchanges=("SMART", "IBIS"), hours=XETRA, trading_class="XETRA",
            start_units=18_530, live_share=0.0, history_share=0.02,
        ),
    )  # fmt: skip


def _futures(
    ticker: str,
    name: str,
    today: date,
    units: int,
    con_ids: tuple[int, int],
    shares: tuple[float, float],
) -> tuple[VenueContract, ...]:
    made = []
    multiplier = {"ES": "50", "MNQ": "2"}[ticker]
    for share, expiry in zip(shares, expiries(today, 3), strict=False):
        symbol = f"{ticker}{_MONTH_CODES[expiry.month - 1]}{expiry.year % 10}"
        contract = VenueContract(
            symbol=symbol, ticker=ticker, local_symbol=symbol,
            con_id=con_ids[0] + expiry.year * 1000 + expiry.month * 10,
            sec_type="FUT", currency="USD", exchange="CME",
            exchanges=("CME", "QBALGO"), hours=CME, long_name=name,
            trading_class=ticker, multiplier=multiplier, expiry=expiry,
            under_con_id=con_ids[1], price_decimals=2, tick_units=25,
            start_units=units, typical_size=2.0, size_min="1", live_share=share,
            history_share=share, first_id=1,
        )  # fmt: skip
        made.append(contract)
    return tuple(made)


def _options(today: date) -> tuple[VenueContract, ...]:
    expiry = next(expiries(today, 1))
    stock = _stocks()[0]
    made = []
    for number, (strike, right) in enumerate(
        (strike, right) for strike in (270.0, 280.0) for right in ("C", "P")
    ):
        symbol = f"AAPL  {expiry:%y%m%d}{right}{int(strike * 1000):08d}"
        contract = msgspec.structs.replace(
            stock, symbol=symbol, local_symbol=symbol, sec_type="OPT",
            con_id=700_000_000 + expiry.year * 1000 + expiry.month * 10 + number,
            exchange="CBOE", exchanges=("SMART", "AMEX", "CBOE", "ISE"),
            trading_class="AAPL", multiplier="100", expiry=expiry, strike=strike,
            right=right, under_con_id=stock.con_id, isin="", start_units=1_250,
            tick_units=5, typical_size=5.0, live_share=0.005, history_share=0.005,
        )  # fmt: skip
        made.append(contract)
    return tuple(made)


def _others() -> tuple[VenueContract, ...]:
    euro = VenueContract(
        symbol="EUR.USD", ticker="EUR", local_symbol="EUR.USD", con_id=12087792,
        sec_type="CASH", currency="USD", exchange="IDEALPRO", exchanges=("IDEALPRO",),
        hours=FOREX, long_name="European Monetary Union Euro", trading_class="EUR.USD",
        price_decimals=5, tick_units=5, start_units=108_500, typical_size=200_000.0,
        size_min="1", step_units=500 * 10**SIZE_DECIMALS, live_share=0.06,
        history_share=0.06, first_id=1, prints=False,
    )  # fmt: skip
    bitcoin = VenueContract(
        symbol="BTC.USD", ticker="BTC", local_symbol="BTC.USD", con_id=479624278,
        sec_type="CRYPTO", currency="USD", exchange="PAXOS", exchanges=("PAXOS",),
        hours=CRYPTO, long_name="Bitcoin cryptocurrency", trading_class="BTC",
        price_decimals=2, tick_units=25, start_units=9_120_000, typical_size=0.02,
        size_min="0.00000001", step_units=1, live_share=0.04,
        history_share=0.04, first_id=1,
    )  # fmt: skip
    return (
        euro,
        msgspec.structs.replace(
            euro, symbol="USD.JPY", ticker="USD", local_symbol="USD.JPY",
            con_id=15016059, currency="JPY", long_name="United States dollar",
            trading_class="USD.JPY", price_decimals=3, start_units=149_500,
            live_share=0.02, history_share=0.02,
        ),
        VenueContract(
            symbol="SPX", ticker="SPX", local_symbol="SPX", con_id=416904,
            sec_type="IND", currency="USD", exchange="CBOE", exchanges=("CBOE",),
            hours=US_INDEX, long_name="S&P 500 Stock Index", trading_class="SPX",
            price_decimals=2, start_units=604_310, typical_size=1.0, size_min="1",
            live_share=0.03, history_share=0.03, first_id=1, sized=False,
        ),
        bitcoin,
        msgspec.structs.replace(
            bitcoin, symbol="ETH.USD", ticker="ETH", local_symbol="ETH.USD",
            con_id=495759171, long_name="Ethereum cryptocurrency", trading_class="ETH",
            tick_units=5, start_units=308_415, typical_size=0.4, live_share=0.01,
            history_share=0.01,
        ),
    )  # fmt: skip
