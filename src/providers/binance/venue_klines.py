"""Klines of a simulated Binance: intervals, bars of them, and how both are printed."""

from datetime import UTC, datetime

from piker_core.simulation.market import NS
from piker_core.simulation.totals import Totals, merge

from .venue_symbols import SymbolMarket, VenueSymbol

_DAY_S = 86_400
_MONDAY_S = 4 * _DAY_S  # weeks begin on Monday, and 1970 on a Thursday
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": _DAY_S, "w": 7 * _DAY_S}
SPOT_INTERVALS: tuple[str, ...] = (
    *("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h"),
    *("1d", "3d", "1w", "1M"),
)
USDM_INTERVALS = SPOT_INTERVALS[1:]

Bar = tuple[int, Totals]


class Interval:
    """A kline interval by its name, case-sensitive; times are in Unix s."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._period_s = int(name[:-1]) * _SECONDS.get(name[-1], 0)
        self._shift_s = _MONDAY_S if name[-1] == "w" else 0

    def open_s(self, time_s: int) -> int:
        """The open of the bar a time falls into."""
        if not self._period_s:
            return _month(time_s)
        return time_s - (time_s - self._shift_s) % self._period_s

    def next_s(self, open_s: int) -> int:
        """The open of the next bar."""
        return (
            open_s + self._period_s if self._period_s else _month(open_s + 32 * _DAY_S)
        )

    def first_s(self, time_s: int) -> int:
        """The first open at a time or later."""
        open_s = self.open_s(time_s)
        return open_s if open_s == time_s else self.next_s(open_s)

    def move_s(self, open_s: int, bars: int) -> int:
        """The open of the bar so many later, or earlier but not before 1970."""
        if self._period_s:
            return max(open_s + bars * self._period_s, self._shift_s)
        while bars > 0:
            open_s, bars = self.next_s(open_s), bars - 1
        while bars < 0 and open_s > 0:
            open_s, bars = _month(open_s - 1), bars + 1
        return open_s

    def bars(self, market: SymbolMarket, start_s: int, end_s: int) -> list[Bar]:
        """Bars from one open up to another; none before that of the first trade."""
        if self._period_s and not self._shift_s:
            return market.bars(self._period_s, start_s, end_s)
        made: dict[int, Totals] = {}
        for day_s, day in market.bars(_DAY_S, start_s, end_s):
            open_s = self.open_s(day_s)
            before = made.get(open_s)
            if before is None or not before.count:
                made[open_s] = day
            elif day.count:
                made[open_s] = merge(before, day) or day
        return list(made.items())


def _month(time_s: int) -> int:
    day = datetime.fromtimestamp(time_s, UTC)
    return time_s // _DAY_S * _DAY_S - (day.day - 1) * _DAY_S


def kline_row(
    symbol: VenueSymbol, interval: Interval, bar: Bar, unit: int
) -> tuple[object, ...]:
    """A row of `klines`, times in units of so many ns."""
    open_s, total = bar
    scale = NS // unit
    return (
        open_s * scale,
        symbol.price_text(total.open),
        symbol.price_text(total.high),
        symbol.price_text(total.low),
        symbol.price_text(total.close),
        symbol.size_text(total.volume),
        interval.next_s(open_s) * scale - 1,
        symbol.notional_text(total.notional),
        total.count,
        symbol.size_text(total.bought),
        symbol.notional_text(total.bought_notional),
        "0",
    )


def kline_event(
    symbol: VenueSymbol, interval: Interval, bar: Bar, *, closed: bool, unit: int
) -> dict[str, object]:
    """The `k` of a kline event, times in units of so many ns."""
    open_s, total = bar
    scale = NS // unit
    return {
        "t": open_s * scale,
        "T": interval.next_s(open_s) * scale - 1,
        "s": symbol.symbol,
        "i": interval.name,
        "f": total.first_id,
        "L": total.last_id,
        "o": symbol.price_text(total.open),
        "c": symbol.price_text(total.close),
        "h": symbol.price_text(total.high),
        "l": symbol.price_text(total.low),
        "v": symbol.size_text(total.volume),
        "n": total.count,
        "x": closed,
        "q": symbol.notional_text(total.notional),
        "V": symbol.size_text(total.bought),
        "Q": symbol.notional_text(total.bought_notional),
        "B": "0",
    }
