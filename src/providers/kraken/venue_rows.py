"""Rows of a simulated Kraken's REST replies, numbers in the venue's own formats."""

import numpy as np

from piker_core.simulation.listing import SIZE_DECIMALS
from piker_core.simulation.market import DAY_NS, NS
from piker_core.simulation.numbers import fixed_text
from piker_core.simulation.totals import Totals, total

from .venue_pairs import PairMarket, VenuePair


def _decimals(pair: VenuePair) -> int:
    """Decimals of prices in REST, other than in OHLC rows: more than the pair has."""
    return max(pair.price_decimals, pair.cost_decimals)


def price_text(pair: VenuePair, units: int) -> str:
    """A price as all replies but `OHLC` print it."""
    decimals = _decimals(pair)
    return fixed_text(units * 10 ** (decimals - pair.price_decimals), decimals)


def trade_row(
    pair: VenuePair, row: tuple[int, int, int, int, int, bool, bool]
) -> tuple[object, ...]:
    """A row of `Trades`, from one of `TRADE_ROW`."""
    time_ns, price, size, trade_id, _, buy, at_market = row
    return (
        price_text(pair, price),
        fixed_text(size, SIZE_DECIMALS),
        time_ns / NS,
        "b" if buy else "s",
        "m" if at_market else "l",
        "",
        trade_id,
    )


def ohlc_row(pair: VenuePair, time_s: int, bar: Totals) -> tuple[object, ...]:
    """A row of `OHLC`; a bar without trades has volume 0 and vwap 0."""
    prices = (bar.open, bar.high, bar.low, bar.close, int(bar.vwap))
    texts = (fixed_text(units, pair.price_decimals) for units in prices)
    return (time_s, *texts, fixed_text(bar.volume, SIZE_DECIMALS), bar.count)


def ticker_row(market: PairMarket, now_ns: int) -> dict[str, object]:
    """A row of `Ticker`: figures of today (UTC) and of the last 24 hours."""
    pair, quote, last = market.pair, market.quote, market.last_units()
    still = Totals(last, last, last, last, 0, 0, 0)
    rows = market.between(now_ns // DAY_NS * DAY_NS, now_ns + 1)
    today = total(rows) if len(rows) else still
    spans = (today, market.day(now_ns) or still)
    closing = market.rows()[-1:]
    size = int(closing["size"][0]) if len(closing) else 0
    decimals = _decimals(pair)
    scale = 10 ** (decimals - pair.price_decimals)
    return {
        "a": _quoted(pair, quote.ask, quote.ask_size),
        "b": _quoted(pair, quote.bid, quote.bid_size),
        "c": (price_text(pair, last), fixed_text(size, SIZE_DECIMALS)),
        "v": [fixed_text(span.volume, SIZE_DECIMALS) for span in spans],
        "p": [fixed_text(int(span.vwap * scale), decimals) for span in spans],
        "t": [span.count for span in spans],
        "l": [price_text(pair, span.low) for span in spans],
        "h": [price_text(pair, span.high) for span in spans],
        "o": price_text(pair, today.open),
    }


def _quoted(pair: VenuePair, units: int, size: int) -> tuple[str, str, str]:
    """Price, whole lots (rounded up) and the same with three decimals."""
    lots = -(-size // 10**SIZE_DECIMALS)
    return (price_text(pair, units), str(lots), f"{lots}.000")


def book(market: PairMarket, count: int) -> dict[str, object]:
    """Price levels around the best quote, the same for as long as that stands."""
    pair, quote = market.pair, market.quote
    rng = np.random.Generator(np.random.PCG64(quote.time_ns))
    asks = _levels(rng, market, quote.ask, quote.ask_size, count)
    bids = _levels(rng, market, quote.bid, quote.bid_size, count, step=-1)
    now_s = quote.time_ns // NS
    return {
        side: [
            (
                price_text(pair, units),
                fixed_text(max(size // 10**5, 1), 3),
                now_s - age_s,
            )
            for units, size, age_s in levels
            if units > 0
        ]
        for side, levels in (("asks", asks), ("bids", bids))
    }


def _levels(
    rng: np.random.Generator,
    market: PairMarket,
    best: int,
    best_size: int,
    count: int,
    *,
    step: int = 1,
) -> list[tuple[int, int, int]]:
    """Price in units, size in units and age in s of `count` levels, the best first."""
    ticks = np.concatenate([[0], np.cumsum(rng.geometric(0.3, count - 1))])
    prices = best + ticks * market.pair.tick_units * step
    mean = np.log(market.pair.typical_size * 10 ** (SIZE_DECIMALS + 1))
    sizes = rng.lognormal(mean, 1.0, count).astype(np.int64)
    sizes[0] = best_size
    ages_s = rng.integers(0, 90, count)
    return list(zip(prices.tolist(), sizes.tolist(), ages_s.tolist(), strict=True))
