"""The simulated market: a seeded walk of trades per pair, and exact bars of them.

Rules this file owns:

1. A market's trades are a function of the seed, the pair, the rates and the start time
   alone. They are drawn ahead in chunks; `head` counts those that have happened.
2. Prices and sizes are integers of the pair's smallest units; every sum is exact.
3. Ids rise by one. Trades of one burst share a time stamp to the nanosecond; bursts are
   at least 3 us apart and never within 200 ns of a microsecond's edge, so that the
   double REST prints and the microseconds WebSocket prints name the same microsecond.
4. Trades of one burst that follow each other at one price are a group: what one taker
   got at one price and time. Numbers of groups rise by one.
"""

from bisect import bisect_right
from decimal import Decimal
from typing import Generic, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.simulation.listing import SIZE_DECIMALS, Listing
from piker_core.simulation.totals import (
    TRADE_ROW,
    Rows,
    Totals,
    merge,
    total,
    total_groups,
)

NS = 1_000_000_000
DAY_NS = 86_400 * NS
BURST_MAX = 17
_MEAN_BURST = 1.84
_PAUSE_S = (1.5, 4.0)
_CHUNK = 1024
_QUOTES = 256  # drawn ahead

P = TypeVar("P", bound=Listing)


class VenueTrade(msgspec.Struct, frozen=True):
    """A trade as the venue knows it: `price` and `size` floats, `exact_*` decimals."""

    trade_id: int
    time_ns: int
    price: float
    size: float
    side: Literal["buy", "sell"]
    ord_type: Literal["market", "limit"]
    exact_price: Decimal
    exact_size: Decimal


class VenueCandle(msgspec.Struct, frozen=True):
    """A bar as the venue publishes it, exact; `time_s` is its open.

    `vwap` is cut to the pair's price decimals and 0 in a flat bar, as Kraken has it;
    `notional` is the exact sum of price * size.
    """

    time_s: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    count: int
    vwap: Decimal
    notional: Decimal


class BestQuote(msgspec.Struct, frozen=True):
    """Best bid and ask in units, and the time they were set."""

    bid: int
    bid_size: int
    ask: int
    ask_size: int
    time_ns: int


class Market(Generic[P]):
    """One pair's trades: those that happened, and those drawn ahead."""

    def __init__(
        self,
        pair: P,
        seed: int,
        *,
        start_ns: int,
        history_s: float,
        live_rate: float,
        history_rate: float,
    ) -> None:
        self.pair = pair
        self.head = 0
        self.quote_number = 0
        self._made = 0
        self._rows: Rows = np.zeros(_CHUNK, TRADE_ROW)
        stream = np.random.SeedSequence([seed, *pair.symbol.encode()]).spawn(2)
        self._rng = np.random.Generator(np.random.PCG64(stream[0]))
        self._quote_rng = np.random.Generator(np.random.PCG64(stream[1]))
        self._quotes: list[tuple[int, int, int]] = []
        self._live_rate = live_rate * pair.live_share
        self._day: tuple[int, int, Totals | None] = (0, 0, None)
        self._make_history(start_ns, history_s, history_rate * pair.history_share)
        self._drawn_ns = start_ns
        self._ahead_ns: list[int] = []  # times of the rows drawn last,
        self._ahead = 0  # and the index of the first of them
        self.quote = self._set_quote(start_ns)
        self.next_quote_ns = start_ns

    # Drawing

    def _make_history(self, start_ns: int, history_s: float, rate: float) -> None:
        after_ns = start_ns - int(history_s * NS)
        while after_ns < start_ns and rate > 0:
            rows = self._draw(after_ns, rate, _CHUNK)
            if not self._made:  # the first trade opens the history
                rows["time_ns"] -= (rows["time_ns"][0] - after_ns) // 1000 * 1000
            self._append(rows)
            after_ns = int(rows["time_ns"][-1])
        times = self._rows["time_ns"][: self._made]
        self._made = self.head = int(np.searchsorted(times, start_ns - 1000))

    def _draw(self, after_ns: int, rate: float, bursts: int) -> Rows:
        """Draw the next bursts of trades, `rate` trades a second on average."""
        rng = self._rng
        counts = rng.geometric(0.35, bursts) + 1
        counts = np.where(rng.random(bursts) < 0.7, 1, np.minimum(counts, BURST_MAX))
        mean_s = _MEAN_BURST / rate
        pause = min(0.015, 0.2 * mean_s / sum(_PAUSE_S) * 2)
        gaps = rng.exponential(mean_s - pause * sum(_PAUSE_S) / 2, bursts)
        quiet = rng.random(bursts) < pause
        gaps += np.where(quiet, rng.uniform(*_PAUSE_S, bursts), 0.0)
        steps_us = np.maximum((gaps * 1e6).astype(np.int64), 3)
        times = (after_ns // 1000 + np.cumsum(steps_us)) * 1000
        times += rng.integers(200, 800, bursts)

        rows: Rows = np.zeros(int(counts.sum()), TRADE_ROW)
        firsts = np.cumsum(counts) - counts
        buys = rng.random(bursts) < 0.5
        sweep = np.where(np.repeat(buys, counts), 1, -1)
        moves = rng.integers(0, 2, len(rows)) * sweep
        moves[firsts] = rng.integers(-6, 7, bursts)
        rows["time_ns"] = np.repeat(times, counts)
        rows["price"] = self._walk(moves)
        rows["size"] = self._sizes(len(rows))
        rows["id"] = self.pair.first_id + self._made + np.arange(len(rows))
        rows["group"] = self._groups(rows)
        rows["buy"] = np.repeat(buys, counts)
        rows["market"] = np.repeat(rng.random(bursts) < 0.4, counts)
        return rows

    def _groups(self, rows: Rows) -> NDArray[np.int64]:
        """Group numbers of new rows, which begin with a burst of their own."""
        last = self.pair.first_group - 1
        if self._made:
            last = int(self._rows["group"][self._made - 1])
        other = np.diff(rows["time_ns"]) | np.diff(rows["price"])
        return last + 1 + np.concatenate([[0], np.cumsum(other != 0)])

    def _walk(self, moves: NDArray[np.int64]) -> NDArray[np.int64]:
        """Prices after `moves` ticks, reflected at a tenth of the start price."""
        tick = self.pair.tick_units
        floor = self.pair.start_units // tick // 10 or 1
        last = self.last_units(self._made) // tick
        walked = last + np.cumsum(moves) - floor
        return np.asarray((np.abs(walked) + floor) * tick, np.int64)

    def _sizes(self, count: int) -> NDArray[np.int64]:
        scale = 10**SIZE_DECIMALS
        drawn = self._rng.lognormal(np.log(self.pair.typical_size), 1.4, count)
        least = int(Decimal(self.pair.size_min) * scale)
        sizes = np.clip((drawn * scale).astype(np.int64), least, 2**42)
        return np.asarray(sizes // self.pair.step_units * self.pair.step_units)

    def _append(self, rows: Rows) -> None:
        end = self._made + len(rows)
        if end > len(self._rows):
            grown: Rows = np.zeros(max(end, 2 * len(self._rows)), TRADE_ROW)
            grown[: self._made] = self._rows[: self._made]
            self._rows = grown
        self._rows[self._made : end] = rows
        self._made = end

    # Time

    def due_ns(self) -> int | None:
        """When the next trade happens; None for a pair that does not trade live."""
        if self._live_rate <= 0:
            return None
        if self.head == self._made:
            self._ahead = self._made
            self._append(self._draw(self._drawn_ns, self._live_rate, _CHUNK))
            self._ahead_ns = self._rows["time_ns"][self._ahead : self._made].tolist()
            self._drawn_ns = self._ahead_ns[-1]
        return self._ahead_ns[self.head - self._ahead]

    def next_ns(self) -> int:
        """When the next trade or change of the quote happens."""
        due_ns = self.due_ns()
        return self.next_quote_ns if due_ns is None else min(due_ns, self.next_quote_ns)

    def release(self, now_ns: int) -> list[Rows]:
        """Let the trades up to now happen; returns them burst by burst."""
        start = self.head
        while (due := self.due_ns()) is not None and due <= now_ns:
            first = self.head - self._ahead
            self.head = self._ahead + bisect_right(self._ahead_ns, now_ns, first)
        fresh = self._rows[start : self.head]
        if not len(fresh):
            return []
        times = fresh["time_ns"]
        last_ns = int(times[-1])
        self.quote = self._set_quote(last_ns)
        if times[0] == last_ns:
            return [fresh]
        return np.split(fresh, np.flatnonzero(np.diff(times)) + 1)

    def defer(self, pause_ns: int) -> None:
        """Put off all that has not happened yet, by whole microseconds."""
        shift = -(-pause_ns // 1000) * 1000
        self._rows["time_ns"][self.head : self._made] += shift
        self._ahead_ns = [time_ns + shift for time_ns in self._ahead_ns]
        self._drawn_ns += shift

    # The quote

    def flutter(self, now_ns: int) -> BestQuote:
        """Change the best quote without a trade."""
        self.next_quote_ns = now_ns + int(self._quote_rng.uniform(0.2, 1.5) * NS)
        self.quote = self._set_quote(now_ns)
        return self.quote

    def _set_quote(self, time_ns: int) -> BestQuote:
        if not self._quotes:
            self._quotes = self._draw_quotes()
        spread, bid_size, ask_size = self._quotes.pop()
        last = self.last_units(self.head)
        lifted = bool(self._rows["buy"][self.head - 1]) if self.head else True
        bid = last - spread if lifted else last
        self.quote_number += 1
        return BestQuote(bid, bid_size, bid + spread, ask_size, time_ns)

    def _draw_quotes(self) -> list[tuple[int, int, int]]:
        """Spreads, bid sizes and ask sizes to come, in units."""
        rng, step = self._quote_rng, self.pair.step_units
        spreads = rng.integers(1, 4, _QUOTES) * self.pair.tick_units
        mean = np.log(self.pair.typical_size * 10)
        drawn = rng.lognormal(mean, 1.0, (2, _QUOTES)) * 10**SIZE_DECIMALS
        sizes = (drawn.astype(np.int64) // step + 1) * step
        return list(zip(spreads.tolist(), *sizes.tolist(), strict=True))

    # Reading

    def last_units(self, head: int | None = None) -> int:
        """Price in units of the trade before `head`, or the start price."""
        head = self.head if head is None else head
        if not head:
            return self.pair.start_units
        return int(self._rows["price"][head - 1])

    def rows(self) -> Rows:
        """All trades so far, oldest first (a view)."""
        return self._rows[: self.head]

    def index_at(self, time_ns: int) -> int:
        """Index of the first trade at `time_ns` or later."""
        return int(np.searchsorted(self._rows["time_ns"][: self.head], time_ns))

    def between(self, start_ns: int, end_ns: int) -> Rows:
        """Trades with start <= time < end (a view)."""
        return self._rows[self.index_at(start_ns) : self.index_at(end_ns)]

    def day(self, now_ns: int) -> Totals | None:
        """Totals of the last 24 hours, to the minute at the far end."""
        minute = now_ns // (60 * NS) * 60 * NS
        begin = self.index_at(minute - DAY_NS)
        if self._day[:2] != (minute, begin):
            old = self.between(minute - DAY_NS, minute)
            self._day = (minute, begin, total(old) if len(old) else None)
        new = self.between(minute, now_ns + 1)
        return merge(self._day[2], total(new) if len(new) else None)

    def price(self, units: int) -> Decimal:
        """A price in units as an exact decimal."""
        return Decimal(units).scaleb(-self.pair.price_decimals)

    def trades(self) -> list[VenueTrade]:
        """All trades so far, oldest first: the truth."""
        names = ("time_ns", "price", "size", "id", "buy", "market")
        columns = (self.rows()[name].tolist() for name in names)
        return [
            VenueTrade(
                trade_id,
                time_ns,
                float(price := self.price(units)),
                float(size := Decimal(lots).scaleb(-SIZE_DECIMALS)),
                "buy" if buy else "sell",
                "market" if at_market else "limit",
                price,
                size,
            )
            for time_ns, units, lots, trade_id, buy, at_market in zip(
                *columns, strict=True
            )
        ]

    def bars(self, period_s: int, start_s: int, end_s: int) -> list[tuple[int, Totals]]:
        """Bars with start <= time < end, flat ones (count 0) where nothing traded.

        There is no bar before the one of the first trade.
        """
        if not self.head:
            return []
        first_s = int(self._rows["time_ns"][0]) // NS
        start_s = max(start_s, first_s) // period_s * period_s
        before = self.index_at(start_s * NS)
        rows = self._rows[before : self.index_at(end_s * NS)]
        opens = rows["time_ns"] // (period_s * NS)
        starts = np.flatnonzero(np.diff(opens, prepend=-1))
        traded: dict[int, Totals] = {}
        if len(rows):
            times = (opens[starts] * period_s).tolist()
            traded = dict(zip(times, total_groups(rows, starts), strict=True))
        close = self.last_units(before)
        made = []
        for time_s in range(start_s, end_s, period_s):
            bar = traded.get(time_s) or Totals(close, close, close, close, 0, 0, 0)
            close = bar.close
            made.append((time_s, bar))
        return made

    def candle(self, time_s: int, bar: Totals) -> VenueCandle:
        """A bar in exact decimals."""
        decimals = self.pair.price_decimals
        vwap = self.price(int(bar.vwap)) if bar.count else Decimal("0.0")
        notional = Decimal(bar.notional).scaleb(-decimals - SIZE_DECIMALS)
        return VenueCandle(
            time_s,
            self.price(bar.open),
            self.price(bar.high),
            self.price(bar.low),
            self.price(bar.close),
            Decimal(bar.volume).scaleb(-SIZE_DECIMALS),
            bar.count,
            vwap,
            notional,
        )
