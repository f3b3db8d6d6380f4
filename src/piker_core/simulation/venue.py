"""The surface of a simulated venue: what `piker-core check` needs to run a provider.

A provider's package has a module `venue` with an asynchronous context manager

    open_venue(*, seed=0, live_rate=20.0, history_rate=3.0, history_s=3600.0, ...)

that yields a `SimulatedVenue`. Options that it does not have are not given to it. Where
the module has a mapping `LENIENT`, those are options of `open_venue` that lift the
venue's limits, and where it has a mapping `PATIENCE`, those are keys of the provider's
configuration that make it notice soon what it otherwise waits for: checks of other
things than limits are run with both. A mapping `EXEMPT` has checks that the venue's
protocol makes pointless, and why: they are reported as not applicable, with the reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol


class Candle(Protocol):
    """A bar as the venue publishes it, exact; `time_s` is its open, Unix seconds.

    `vwap` is exact, or cut to the price step; a flat bar may have 0 there.
    """

    time_s: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    count: int
    vwap: Decimal


class Trade(Protocol):
    """A trade as the venue knows it; `time_ns` is UTC."""

    time_ns: int


class SimulatedVenue(Protocol):
    """A running simulated venue, and the truth to compare with.

    Everything is synchronous and belongs to the venue's event loop. A symbol is the
    name that the provider uses, such as `xbtusd`.
    """

    @property
    def config(self) -> Mapping[str, Any]:
        """Keys of the provider's configuration that point it here.

        Such as ws_url, rest_url, host, port; and any others that it needs to, such as
        those of its patience.
        """

    @property
    def symbols(self) -> Sequence[str]:
        """What trades live, busiest first."""

    @property
    def faults(self) -> Any:
        """The switches of faults: as many of `VenueFaults` as the venue has."""

    def trades(self, symbol: str) -> Sequence[Trade]:
        """All trades up to now, oldest first."""

    def candles(
        self, symbol: str, period_s: int, start_s: int, end_s: int
    ) -> Sequence[Candle]:
        """Exact bars with start <= time < end, flat ones included, times in Unix s.

        There is none before the first trade and none after the running one.
        """

    def statistics(self) -> Any:
        """Counters, as many as the venue has.

        `connections_ever`; `rest_requests` (calls by name), `rest_refused` (those over
        the limits), `rest_concurrency` (the most at once).
        """


class VenueFaults(Protocol):
    """Switches, each to be called at any time. Every one of them is optional.

    What a venue lacks is reported as not applicable. Rates are parts of all messages
    that tell of trades; `calls` are the next calls for data (REST, or requests).
    """

    done: Mapping[str, int]
    """How often each fault has happened, by the name of its switch."""
    broken: Sequence[str]
    """Names of broken messages that `malformed` knows."""

    def cut(self) -> Any:
        """Reset every connection (TCP RST)."""

    def close(self) -> Any:
        """Close every connection in the way of the protocol."""

    def rotate(self) -> Any:
        """End every connection as at the end of the life that the venue gives it."""

    def shutdown(self, seconds: float) -> Any:
        """Announce the end of every connection, and end them after so long."""

    def refuse_connections(self, on: bool = True) -> Any:
        """Accept connections and close them before the handshake."""

    def half_open(self, on: bool = True) -> Any:
        """Keep sockets open, send nothing, swallow everything.

        Connections that were open meanwhile stay dead; new ones work afterwards.
        """

    def silent_acks(self, on: bool = True) -> Any:
        """Swallow subscriptions: no answer, no data."""

    def refuse_symbol(self, symbol: str, on: bool = True) -> Any:
        """Refuse new subscriptions of a market, by the venue's name of it.

        That is its `MktPair.venue_symbol`.
        """

    def duplicate(self, rate: float) -> Any:
        """Send messages twice."""

    def disorder(self, rate: float) -> Any:
        """Send messages after the next one."""

    def drop(self, rate: float) -> Any:
        """Silently lose messages."""

    def malformed(self, rate: float | Iterable[str | bytes]) -> Any:
        """Put broken messages between others, or send the listed ones at once.

        A list holds names of `broken` or raw bytes; each goes to every connection.
        """

    def throttle(self, calls: int) -> Any:
        """Answer the next calls that there are too many."""

    def html(self, calls: int) -> Any:
        """Answer the next calls with an HTML page."""

    def unavailable(self, calls: int) -> Any:
        """Answer the next calls that the service is unavailable."""

    def slow_rest(self, seconds: float) -> Any:
        """Wait this long before each answer."""

    def maintenance(self, seconds: float) -> Any:
        """Trade nothing for so long."""

    def skew_clock(self, seconds: float) -> Any:
        """Tell the time by a clock that is so far ahead."""
