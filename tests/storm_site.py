"""What a storm is told of a venue, and the faults that most venues have."""

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

import piker_core as pk
from piker_core.conformance.truth import Comparison, Spans, Steps, check_rows
from piker_core.simulation.venue import Candle

Begin = Callable[[Any, random.Random], object]
"""Switches a fault on, given the faults of a venue."""
Candles = Callable[[Any, str, int, int, int], Sequence[Candle]]
"""Those of a venue: symbol, period, start, end."""
MOST_S = 3.0


@dataclasses.dataclass(frozen=True)
class Strike:
    """A fault, how long it lasts and how it ends.

    With `closes` the markets do not trade until they are live again.
    """

    begin: Begin
    end: Callable[[Any], object] = lambda _: None
    lasts_s: tuple[float, float] = (0.0, MOST_S)
    closes: bool = False


def _candles(venue: Any, symbol: str, period: int, start: int, end: int) -> Any:
    return venue.candles(symbol, period, start, end)


class Ring:
    """What a ring has at one moment: rows that have ended by a time, and gaps."""

    def __init__(self, bars: pk.BarReader, until_s: float) -> None:
        self.fqme, self.period, self.gaps = bars.fqme, bars.period, bars.gaps()
        rows = bars.snapshot(bars.head - bars.first)
        self.rows = rows[rows["time"] + bars.period <= until_s]

    def placeholders(self) -> int:
        """How many rows stand for what was lost."""
        lost = int(pk.BarFlag.SYNTHETIC_GAP)
        return int((self.rows["flags"] & lost > 0).sum())


@dataclasses.dataclass(frozen=True)
class Site:
    """One venue of a storm.

    `open_venue` takes a seed; `settings` are keys of the provider's configuration
    beside those that lead to the venue. `rates` are faults of messages, on all the
    time; `strikes` come one at a time. Of a symbol in `untold` the venue cannot tell
    what was lost: its rows need not be like the candles. What was lost is missed within
    `quiet_s`.
    """

    name: str
    open_venue: Callable[[int], AbstractAsyncContextManager[Any]]
    symbols: Callable[[Any], Sequence[str]]
    settings: Mapping[str, float]
    rates: Mapping[str, float]
    strikes: Mapping[str, Strike]
    candles: Candles = _candles
    untold: Sequence[str] = ()
    quiet_s: float = 5.0

    def environ(self, venue: Any) -> dict[str, str]:
        """What points the provider at a venue."""
        keys = {**venue.config, **self.settings}
        return {
            f"PIKER_{self.name}__{key}".upper(): str(value)
            for key, value in keys.items()
        }

    def compare(self, venue: Any, ring: Ring, steps: Steps, spans: Spans) -> Comparison:
        """Rows beside the candles; `spans`: when the market was closed."""
        rows, period = ring.rows, ring.period
        if not len(rows):
            return Comparison()
        symbol = ring.fqme.removesuffix(f".{self.name}")
        start_s, end_s = int(rows["time"][0]), int(rows["time"][-1]) + period
        candles = self.candles(venue, symbol, period, start_s, end_s)
        found = check_rows(
            rows,
            ring.gaps,
            _as_rows(candles, rows) if symbol in self.untold else candles,
            steps,
            period=period,
            name=f"{ring.fqme} {period} s",
            closed=spans,
        )
        times = set(rows["time"].tolist())
        found.wrong += [
            f"{ring.fqme} {period} s: {candle} has no row"
            for candle in candles
            if candle.count > 0 and candle.time_s not in times
        ]
        return found


def _as_rows(candles: Sequence[Any], rows: Any) -> list[Candle]:
    """Candles with the values of the rows, where there is a row."""
    known: dict[int, Any] = {int(row["time"]): row for row in rows}
    alike = ("open", "high", "low", "close", "volume", "count")
    return [
        msgspec.structs.replace(
            candle,
            vwap=known[candle.time_s]["bar_wap"],
            **{field: known[candle.time_s][field] for field in alike},
        )
        for candle in candles
        if candle.time_s in known
    ]


def with_cut(begin: Begin = lambda *_: None) -> Begin:
    """A fault that shows when the connections are cut."""

    def both(faults: Any, rng: random.Random) -> None:
        begin(faults, rng)
        faults.cut()

    return both


COMMON = {
    "cut": Strike(with_cut()),
    "half": Strike(
        lambda faults, _: faults.half_open(),
        lambda faults: faults.half_open(False),
        (0.5, 4.0),
    ),
    "refuse": Strike(
        with_cut(lambda faults, _: faults.refuse_connections()),
        lambda faults: faults.refuse_connections(False),
    ),
    "acks": Strike(
        with_cut(lambda faults, _: faults.silent_acks()),
        lambda faults: faults.silent_acks(False),
    ),
    "slow": Strike(
        with_cut(lambda faults, _: faults.slow_rest(1.0)),
        lambda faults: faults.slow_rest(0.0),
    ),
    "throttle": Strike(with_cut(lambda faults, rng: faults.throttle(calls(rng)))),
    "unavailable": Strike(with_cut(lambda faults, rng: faults.unavailable(calls(rng)))),
}
"""Strikes that every venue knows."""


def calls(rng: random.Random) -> int:
    """How many calls fail."""
    return rng.randrange(1, 4)


def closing(seconds: float) -> Strike:
    """The venue does not trade for so long."""
    lasts_s = (seconds + 0.5, seconds + 0.5)
    return Strike(lambda faults, _: faults.maintenance(seconds), lasts_s=lasts_s,
                  closes=True)  # fmt: skip
