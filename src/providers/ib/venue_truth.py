"""What a simulated gateway knows exactly, for those who compare with it."""

from decimal import Decimal
from fractions import Fraction

import msgspec

from piker_core.simulation.listing import SIZE_DECIMALS
from piker_core.simulation.market import NS, VenueCandle

from .venue_bars import TRADED, Series, cut_sessions, span_bars
from .venue_contracts import VenueContract
from .venue_market import Bar, ContractMarket

_LOTS: int = 10**SIZE_DECIMALS


class VenueQuote(msgspec.Struct, frozen=True):
    """A quote as the venue knows it."""

    time_ns: int
    bid: float
    ask: float
    bid_size: float
    ask_size: float


def exact_quotes(market: ContractMarket) -> list[VenueQuote]:
    """All quotes so far, oldest first."""
    scale = 10**market.pair.price_decimals
    return [
        VenueQuote(time_ns, bid / scale, ask / scale, bids / _LOTS, asks / _LOTS)
        for time_ns, bid, ask, bids, asks in market.quotes().tolist()
    ]


def exact_volume(market: ContractMarket, now_ns: int) -> float:
    """Size traded on this trading day."""
    rows = market.between(market.day_begin_ns(now_ns), now_ns + 1)
    return float(int(rows["size"].sum()) / _LOTS)


def exact_candles(
    series: Series, start_s: int, end_s: int, now_ns: int
) -> list[VenueCandle]:
    """Bars with start <= time < end, from the first one to the running one."""
    market, period_s = series.market, series.period_s
    first_s = market.first_s(series.what in TRADED)
    start_s = max(start_s, first_s // period_s * period_s)
    end_s = min(end_s, now_ns // NS // period_s * period_s + period_s)
    if start_s >= end_s:
        return []
    sessions = market.hours.sessions(start_s, end_s, series.rth)
    bars = span_bars(series, cut_sessions(sessions, start_s, end_s), end_s * NS)
    return [_candle(market.pair, bar) for bar in bars]


def _candle(contract: VenueContract, bar: Bar) -> VenueCandle:
    decimals = contract.price_decimals
    prices = (bar.open, bar.high, bar.low, bar.close)
    opened, high, low, close = (_decimal(units, decimals) for units in prices)
    told = bar.trades >= 0
    volume = Decimal(bar.volume).scaleb(-SIZE_DECIMALS) if told else Decimal(-1)
    vwap = _decimal(bar.wap, decimals) if told else Decimal(-1)
    notional = bar.wap * bar.volume if told else 0
    exact = _decimal(notional, decimals + SIZE_DECIMALS)
    return VenueCandle(
        bar.time_s, opened, high, low, close, volume, bar.trades, vwap, exact
    )


def _decimal(units: int | Fraction, decimals: int) -> Decimal:
    exact = Fraction(units)
    value = Decimal(exact.numerator) / Decimal(exact.denominator)
    return value.scaleb(-decimals)
