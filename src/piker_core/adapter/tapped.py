"""An engine and its markets behind a tap: each call is made, then written down.

What the engine refuses is raised, and not written: it has changed nothing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from piker_core.adapter import events
from piker_core.adapter.tap import Tap
from piker_core.channel import EngineChannel
from piker_core.core.engine import BarWriter, FeedEngine, Market
from piker_core.core.rings import attach_bars
from piker_core.dtypes import OHLCV_DTYPE, TICK_DTYPE, TICK_TYPES
from piker_core.journal.records import Kind

FOUND_ROWS = 3600
"""So many of the newest rows are written of a ring that was there already."""
_SIDES = {"buy": 1, "sell": -1, "": 0, None: 0}


class TappedBars:
    """A ring of a tapped market."""

    def __init__(self, tap: Tap, market: int, bars: BarWriter) -> None:
        self._tap, self._market, self._bars = tap, market, bars

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bars, name)

    def prepend(self, rows: NDArray[np.void]) -> int:
        """As of the ring."""
        fitted = self._bars.prepend(rows)
        event = events.Described(
            fqme=self._bars.fqme,
            number=self._market,
            period=self._bars.period,
            rows=_whole_rows(rows).tobytes(),
        )
        self._tap.write(Kind.MARKET, event)
        return fitted


def _whole_rows(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Rows with all fields, those that are missing 0."""
    own = np.zeros(len(rows), OHLCV_DTYPE)
    for name in set(own.dtype.names or ()) & set(rows.dtype.names or ()):
        own[name] = rows[name]
    return own


class TappedMarket:
    """A market of a tapped engine."""

    def __init__(self, tap: Tap, number: int, market: Market) -> None:
        self.tap = tap
        self.number = number
        self.market = market
        self.fqme = market.fqme
        self.bars = {
            period: TappedBars(tap, number, bars)
            for period, bars in market.bars.items()
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self.market, name)

    def set_status(
        self, status: str, *, since_ns: int | None = None, reason: str = ""
    ) -> None:
        """As of the market."""
        self.market.set_status(status, since_ns=since_ns, reason=reason)
        said = events.Said(
            fqme=self.fqme, status=status, since_ns=since_ns, reason=reason
        )
        self.tap.write(Kind.STATUS, said)

    def set_sessions(self, sessions: Any) -> None:
        """As of the market."""
        self.market.set_sessions(sessions)
        event = events.Described(
            fqme=self.fqme,
            number=self.number,
            hours=True,
            sessions=events.encode_sessions(sessions),
        )
        self.tap.write(Kind.MARKET, event)

    def add_gap(
        self, *, start_ns: int, end_ns: int, cause: str, repaired: bool = False
    ) -> None:
        """As of the market."""
        self.market.add_gap(
            start_ns=start_ns, end_ns=end_ns, cause=cause, repaired=repaired
        )
        gap = events.Gap(
            fqme=self.fqme,
            start_ns=int(start_ns),
            end_ns=int(end_ns),
            cause=str(cause),
            repaired=bool(repaired),
        )
        self.tap.write(Kind.GAP, gap)


class TappedEngine:
    """An engine all of whose changes are written down."""

    def __init__(self, tap: Tap, engine: FeedEngine) -> None:
        self.tap = tap
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def add_market(self, fqme: str, **options: Any) -> TappedMarket:
        """As of the engine; what its rings had before is written, too."""
        market = self._engine.add_market(fqme, **options)
        number = self.tap.number(market.fqme, market.symbol)
        described = events.Described(
            fqme=market.fqme,
            number=number,
            about=options.pop("about", b""),
            sessions=events.encode_sessions(options.pop("sessions", None)),
            options=options,
        )
        self.tap.write(Kind.MARKET, described)
        for period, bars in market.bars.items():
            if bars.head > bars.first:
                self._note_found(number, market.fqme, period)
        return TappedMarket(self.tap, number, market)

    def _note_found(self, number: int, fqme: str, period: int) -> None:
        namespace = self._engine.namespace
        with attach_bars(fqme, period=period, namespace=namespace) as bars:
            rows = bars.snapshot(FOUND_ROWS)
        found = events.Described(
            fqme=fqme, number=number, period=period, rows=rows.tobytes(), found=True
        )
        self.tap.write(Kind.MARKET, found)

    def push(self, quote: Any) -> int:
        """As of the engine."""
        taken = self._engine.push(quote)
        self.tap.push(quote)
        return taken

    def push_trade(
        self,
        market: TappedMarket,
        time_ns: int,
        price: float,
        size: float,
        id: int = 0,
        side: int | str | None = 0,
        count: int = 1,
    ) -> int:
        """As of the engine."""
        given = (time_ns, price, size, id, side, count)
        taken = self._engine.push_trade(market.market, *given)
        row = np.zeros(1, TICK_DTYPE)
        row["type"] = TICK_TYPES["trade"]
        row["time_ns"], row["price"], row["size"] = time_ns, float(price), float(size)
        row["id"], row["count"] = id, count
        row["side"] = side if isinstance(side, int) else _SIDES[side]
        self.tap.push_ticks(market.number, row)
        return taken

    def push_ticks(self, market: TappedMarket, array: NDArray[np.void]) -> int:
        """As of the engine."""
        taken = self._engine.push_ticks(market.market, array)
        self.tap.push_ticks(market.number, array)
        return taken

    def step(self, now_ns: int) -> None:
        """As of the engine; rows that find no memory are made later, here as there."""
        try:
            self._engine.step(now_ns)
        finally:
            if not self._engine.closed:
                self.tap.step(now_ns)

    def send_channel(self) -> EngineChannel:
        """As of the engine."""
        return EngineChannel(self)  # type: ignore[arg-type]
