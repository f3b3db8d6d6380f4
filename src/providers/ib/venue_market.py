"""The market of one contract: whole sizes, trading hours, quotes that are remembered.

Rules this file owns:

1. Sizes are multiples of the contract's step. Where hours are kept, nothing trades and
   no quote changes outside of them.
2. Every quote that was in force is on record, so that bars and ticks of bid, ask and
   midpoint are as exact as those of trades.
3. The day's totals are those of the trades since the trading day began, or since they
   were last reset.
"""

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from piker_core.simulation.exchange import Exchange
from piker_core.simulation.market import NS, BestQuote, Market
from piker_core.simulation.totals import Rows, Totals, total_groups

from .venue_contracts import VenueContract
from .venue_hours import Hours, always

QUOTE_ROW = np.dtype(
    [(name, "<i8") for name in ("time_ns", "bid", "ask", "bid_size", "ask_size")]
)
_CHUNK = 1024


class Bar(NamedTuple):
    """A bar in units; prices may be halves of one, of a midpoint, or means.

    Bars of quotes have volume, wap and count -1.
    """

    time_s: int
    open: int | Fraction
    high: int | Fraction
    low: int | Fraction
    close: int | Fraction
    volume: int = -1
    wap: int | Fraction = -1
    trades: int = -1


class ContractMarket(Market[VenueContract]):
    """One contract's trades and quotes; `keep_hours` closes it outside of its hours."""

    def __init__(
        self,
        contract: VenueContract,
        seed: int,
        *,
        start_ns: int,
        history_s: float,
        live_rate: float,
        history_rate: float,
        keep_hours: bool = False,
    ) -> None:
        hours = contract.hours
        self.hours: Hours = hours if keep_hours else always(hours.zone)
        self._past_quotes: Rows = np.zeros(_CHUNK, QUOTE_ROW)
        self._quoted = 0
        self._reset_ns = 0
        super().__init__(
            contract,
            seed,
            start_ns=start_ns,
            history_s=history_s,
            live_rate=live_rate,
            history_rate=history_rate,
        )

    # What a contract draws differently

    def _make_history(self, start_ns: int, history_s: float, rate: float) -> None:
        super()._make_history(start_ns, history_s, rate)
        rows = self.rows()
        if not len(rows):
            return
        last = rows[np.flatnonzero(np.diff(rows["time_ns"], append=2**62))]
        spread = self._quote_rng.integers(1, 4, len(last)) * self.pair.tick_units
        quotes: Rows = np.zeros(len(last), QUOTE_ROW)
        quotes["time_ns"] = last["time_ns"]
        quotes["bid"] = last["price"] - np.where(last["buy"], spread, 0)
        quotes["ask"] = quotes["bid"] + spread
        mean = np.log(self.pair.typical_size * 10)
        for name in ("bid_size", "ask_size"):
            drawn = self._quote_rng.lognormal(mean, 1.0, len(last)) * 10**8
            quotes[name] = self._whole(drawn.astype(np.int64))
        self._record(quotes)

    def _append(self, rows: Rows) -> None:
        if not self.hours.always:
            self.hours.shift_open(rows["time_ns"])
        super()._append(rows)

    def _sizes(self, count: int) -> NDArray[np.int64]:
        return np.maximum(super()._sizes(count), self.pair.step_units)

    def _whole(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sizes rounded up to whole steps."""
        step = self.pair.step_units
        return -(-sizes // step) * step

    def flutter(self, now_ns: int) -> BestQuote:
        """Change the best quote without a trade, at the next opening if closed."""
        opening_ns = self.hours.following(now_ns // NS).begin_s * NS
        if opening_ns > now_ns:
            self.next_quote_ns = opening_ns
            return self.quote
        return super().flutter(now_ns)

    def _set_quote(self, time_ns: int) -> BestQuote:
        quote = super()._set_quote(time_ns)
        if self.hours.at(time_ns // NS):
            row = (time_ns, quote.bid, quote.ask, quote.bid_size, quote.ask_size)
            self._record(np.array([row], QUOTE_ROW))
        return quote

    def _record(self, quotes: Rows) -> None:
        end = self._quoted + len(quotes)
        if end > len(self._past_quotes):
            grown: Rows = np.zeros(max(end, 2 * len(self._past_quotes)), QUOTE_ROW)
            grown[: self._quoted] = self._past_quotes[: self._quoted]
            self._past_quotes = grown
        self._past_quotes[self._quoted : end] = quotes
        self._quoted = end

    # Reading

    def is_open(self, now_ns: int) -> bool:
        """Whether it trades at a time."""
        return self.hours.at(now_ns // NS) is not None

    def quotes(self) -> Rows:
        """All quotes so far, oldest first (a view)."""
        return self._past_quotes[: self._quoted]

    def quotes_between(self, begin_ns: int, end_ns: int) -> Rows:
        """Quotes set with begin <= time < end (a view)."""
        quotes = self.quotes()
        edges = np.searchsorted(quotes["time_ns"], (begin_ns, end_ns))
        return quotes[edges[0] : edges[1]]

    def first_s(self, traded: bool) -> int:
        """When the first trade was, or the first quote; 0 before there is one."""
        rows = self.rows() if traded else self.quotes()
        return int(rows["time_ns"][0]) // NS if len(rows) else 0

    def reset_day(self, now_ns: int) -> None:
        """Begin the day's totals again, with the trades after now."""
        self._reset_ns = now_ns + 1

    def day_begin_ns(self, now_ns: int) -> int:
        """When the trades began of which the day's totals are made."""
        day_ns = self.hours.trading_day(now_ns // NS).begin_s * NS
        return max(day_ns, self._reset_ns)

    def close_before(self, now_ns: int) -> int:
        """Price of the last trade before this trading day, else the start price."""
        day_ns = self.hours.trading_day(now_ns // NS).begin_s * NS
        return self.last_units(self.index_at(day_ns))

    # Bars of a stretch without a break in it

    def trade_bars(self, period_s: int, begin_ns: int, end_ns: int) -> list[Bar]:
        """Bars of the trades with begin <= time < end, flat ones between them.

        Bars end at multiples of the period, so the first may be short and is then named
        by the begin. There is none before the first trade.
        """
        first, after = self.index_at(begin_ns), self.index_at(end_ns)
        rows = self.rows()[first:after]
        period_ns = period_s * NS
        keys = rows["time_ns"] // period_ns
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        traded: dict[int, Totals] = {}
        if len(rows):
            traded = dict(
                zip(keys[starts].tolist(), total_groups(rows, starts), strict=True)
            )
        if not first and not len(rows):
            return []
        low = begin_ns // period_ns if first else int(keys[0])
        close = self.last_units(first)
        made = []
        for key in range(low, -(-end_ns // period_ns)):
            bar = traded.get(key) or Totals(close, close, close, close, 0, 0, 0)
            close = bar.close
            time_s = max(key * period_s, begin_ns // NS)
            wap = bar.vwap if bar.count else close
            made.append(Bar(time_s, *_prices(bar), bar.volume, wap, bar.count))
        return made

    def quote_bars(
        self, what: str, period_s: int, begin_ns: int, end_ns: int
    ) -> list[Bar]:
        """Bars of BID, ASK, MIDPOINT or BID_ASK in begin <= time < end.

        A bar opens with the quote in force at its begin. Those of BID_ASK open with the
        mean bid over time and close with the mean ask, high and low are extremes.
        """
        quotes, period_ns = self.quotes(), period_s * NS
        times = quotes["time_ns"]
        made = []
        for key in range(begin_ns // period_ns, -(-end_ns // period_ns)):
            low_ns = max(key * period_ns, begin_ns)
            high_ns = min((key + 1) * period_ns, end_ns)
            index, after = np.searchsorted(times, (low_ns, high_ns)).tolist()
            part = quotes[max(index - 1, 0) : after]
            if len(part):
                prices = _quote_prices(what, part, low_ns, high_ns)
                made.append(Bar(low_ns // NS, *prices))
        return made


def _prices(bar: Totals) -> tuple[int, int, int, int]:
    return (bar.open, bar.high, bar.low, bar.close)


def _quote_prices(
    what: str, part: Rows, begin_ns: int, end_ns: int
) -> tuple[int | Fraction, int | Fraction, int | Fraction, int | Fraction]:
    if what == "BID_ASK":
        edges = np.append(np.maximum(part["time_ns"], begin_ns), end_ns)
        lasted = [int(step) for step in np.diff(edges)]
        whole = sum(lasted)
        means = [
            Fraction(
                sum(p * n for p, n in zip(part[side].tolist(), lasted, strict=True)),
                whole,
            )
            for side in ("bid", "ask")
        ]
        return means[0], int(part["ask"].max()), int(part["bid"].min()), means[1]
    if what == "MIDPOINT":
        sums = (part["bid"] + part["ask"]).tolist()
        row = (sums[0], max(sums), min(sums), sums[-1])
        return tuple(Fraction(each, 2) for each in row)  # type: ignore[return-value]
    side = part["bid" if what == "BID" else "ask"].tolist()
    return side[0], max(side), min(side), side[-1]


ContractExchange = Exchange[VenueContract]
