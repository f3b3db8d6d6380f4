"""A contract for tests of the parts that need no TWS."""

from decimal import Decimal

import msgspec

from providers.ib.contracts import Listing

FUTURE = Listing(
    symbol="mnq.cme.20261218",
    con_id=1,
    sec_type="FUT",
    ticker="MNQ",
    exchange="CME",
    primary="",
    currency="USD",
    local_symbol="MNQZ6",
    trading_class="MNQ",
    multiplier=Decimal(2),
    expiry="20261218",
    strike=Decimal(0),
    right="",
    long_name="Micro E-Mini Nasdaq-100 Index",
    price_tick=Decimal("0.25"),
    price_rule=(),
    price_magnifier=1,
    size_tick=Decimal(1),
    min_size=Decimal(1),
    lot=1,
    bars_from="trade",
    trading_hours="",
    liquid_hours="",
    zone="US/Central",
)
FOREX = msgspec.structs.replace(
    FUTURE,
    symbol="eurusd.idealpro",
    sec_type="CASH",
    ticker="EUR",
    exchange="IDEALPRO",
    local_symbol="EUR.USD",
    price_tick=Decimal("0.00005"),
    bars_from="bid",
)
INDEX = msgspec.structs.replace(
    FUTURE, symbol="spx.cboe", sec_type="IND", ticker="SPX", exchange="CBOE"
)
