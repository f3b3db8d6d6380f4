"""What a provider's call has of the engine, and cutting it off from single markets.

A call may have markets that nobody wants any more beside some that are wanted. What it
still does for the former goes nowhere.
"""

import weakref
from collections.abc import Collection
from typing import Any, cast

from piker_core.channel import EngineChannel
from piker_core.core.engine import FeedEngine, Market


class Handle:
    """An engine's market as the provider has it: cut off when the market is dropped."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.cut = False
        self.told = False
        """Whether the provider says by itself what state the market is in."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.market, name)

    def set_status(self, *status: Any, **options: Any) -> None:
        """As of the market."""
        self.told = True
        if not self.cut:
            self.market.set_status(*status, **options)

    def set_sessions(self, sessions: Any) -> None:
        """As of the market."""
        if not self.cut:
            self.market.set_sessions(sessions)

    def add_gap(self, **gap: Any) -> None:
        """As of the market."""
        if not self.cut:
            self.market.add_gap(**gap)


class CutEngine:
    """An engine as the channels of a call have it once some of its markets are dropped.

    What comes of those goes nowhere; all else is the engine's.
    """

    def __init__(self, engine: FeedEngine, dropped: Collection[str]) -> None:
        self._engine = engine
        self._dropped = dropped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def push(self, value: Any) -> int:
        """As of the engine; 0 for what is of a dropped market."""
        get = getattr(value, "get", None)
        symbol = get("symbol") if get else getattr(value, "symbol", None)
        if isinstance(symbol, str) and symbol in self._dropped:
            return 0
        return self._engine.push(value)


class StreamChannel(EngineChannel):
    """The engine's channel, which can be cut off from some markets, its clones too.

    Until then it costs nothing more.
    """

    def __init__(
        self, engine: FeedEngine, ends: "weakref.WeakSet[StreamChannel]"
    ) -> None:
        super().__init__(engine)
        self._ends = ends
        ends.add(self)

    def cut(self, engine: CutEngine) -> None:
        """Push into this from now on."""
        self._engine = cast("FeedEngine", engine)

    def clone(self) -> "StreamChannel":
        """Another end of the same engine, closed by itself."""
        super().clone()
        return StreamChannel(self._engine, self._ends)
