"""The rings of a feed under check: statuses, gaps, and rows beside the venue's."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from piker_core.conformance.truth import Comparison, Spans, Steps, check_rows
from piker_core.core.rings import BarReader, attach_bars
from piker_core.simulation.venue import SimulatedVenue

PERIODS = (1, 60)


class Rings:
    """The rings of some markets of a provider; `fed` are those that are to be live."""

    def __init__(self, provider: str, namespace: str, symbols: Sequence[str]) -> None:
        self.fed = list(symbols)
        self._symbols = list(symbols)
        self._bars = {
            (symbol, period): attach_bars(
                f"{symbol}.{provider}", period=period, namespace=namespace
            )
            for symbol in symbols
            for period in PERIODS
        }

    def close(self) -> None:
        """Let go of them."""
        for bars in self._bars.values():
            bars.close()

    def bars(self, symbol: str, period: int = 1) -> BarReader:
        """One of them."""
        return self._bars[symbol, period]

    # Statuses

    def statuses(self) -> list[str]:
        """Of the markets that are to be live."""
        return [self.bars(symbol).status for symbol in self.fed]

    def live(self) -> bool:
        """Whether all of those are live."""
        return all(status == "live" for status in self.statuses())

    def down(self) -> bool:
        """Whether none of those is live."""
        return all(status != "live" for status in self.statuses())

    def told(self) -> str:
        """All markets with their statuses, for people."""
        return ", ".join(f"{s} {self.bars(s).status}" for s in self._symbols)

    def heads(self) -> dict[str, int]:
        """Where the rows of each market end."""
        return {symbol: self.bars(symbol).head for symbol in self.fed}

    def newest_s(self) -> int:
        """The newest time to which all markets have rows."""
        return min(int(self.bars(symbol).last()["time"]) for symbol in self.fed)

    # Gaps

    def gaps(self, symbol: str) -> NDArray[np.void]:
        """Gap records of a market."""
        return self.bars(symbol).gaps()

    def records(self) -> dict[str, int]:
        """How many gap records each market has."""
        return {symbol: len(self.gaps(symbol)) for symbol in self.fed}

    def recorded(self) -> int:
        """How many gap records there are."""
        return sum(self.records().values())

    def open_gaps(self) -> int:
        """How many gaps are not repaired."""
        return sum(int((self.gaps(s)["repaired"] == 0).sum()) for s in self.fed)

    # Rows

    def compare(
        self,
        venue: SimulatedVenue,
        steps: Mapping[str, Steps],
        end_s: int,
        *,
        periods: Sequence[int] = PERIODS,
        closed: Spans = (),
        exact_gaps: bool = True,
    ) -> Comparison:
        """All rows that have ended by a time, beside the venue's candles.

        `closed`: spans when nothing traded. Without `exact_gaps` what overlaps an open
        gap is not compared.
        """
        found = Comparison()
        for symbol in self.fed:
            for period in periods:
                bars = self.bars(symbol, period)
                rows = bars.snapshot(bars.head - bars.first)
                rows = rows[rows["time"] + period <= end_s]
                if not len(rows):
                    continue
                last_s = int(rows["time"][-1]) + period
                checked = check_rows(
                    rows,
                    bars.gaps(),
                    venue.candles(symbol, period, int(rows["time"][0]), last_s),
                    steps[symbol],
                    period=period,
                    name=f"{symbol} {period} s",
                    closed=closed,
                    exact_gaps=exact_gaps,
                )
                found.add(checked)
        return found
