"""A simulated Binance on loopback, spot and USD-M, and the truth to compare with.

It speaks the venue's public protocols (WebSocket streams and REST), trades by itself
from a seed, takes the orders of one account on each side, keeps the venue's limits and
fails on demand. Alone: `python -m providers.binance.venue --help`.
"""

import argparse
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from piker_core.simulation.market import VenueCandle, VenueTrade
from piker_core.simulation.serving import open_servers, serve_alone

from .venue_account import VenueAccount
from .venue_faults import Faults
from .venue_link import USDM, Limits
from .venue_sides import Side
from .venue_signed import API_KEY, API_SECRET
from .venue_symbols import (
    TRADING,
    SymbolExchange,
    SymbolMarket,
    VenueSymbol,
    make_crowd,
    select_symbols,
)
from .venue_usdm_account import UsdmAccount

__all__ = [
    "API_KEY",
    "API_SECRET",
    "USDM",
    "Limits",
    "Venue",
    "VenueCandle",
    "VenueStatistics",
    "VenueSymbol",
    "VenueTrade",
    "make_crowd",
    "open_venue",
]

PATIENCE = {"status_s": 0.5}
"""Keys of the provider's configuration that checks are run with."""

_NS = 10**9
_LEAST_SLEEP_S = 0.004  # trades of so long happen together, which costs far less


class VenueStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a venue has seen so far, on both sides.

    `connections` are WebSocket connections open now, of `connections_ever`;
    `connections_refused` were turned away and `connections_dropped` were too slow.
    `rest_requests` counts calls by path, `rest_refused` those over the weight,
    `rest_bans` the bans; `rest_weight` is the most used in a window, `rest_concurrency`
    and `rest_rate` the most calls at once and in any one second, of either side.
    """

    connections: int
    connections_ever: int
    connections_refused: int
    connections_dropped: int
    subscriptions: int
    frames_sent: int
    rest_requests: dict[str, int]
    rest_refused: int
    rest_bans: int
    rest_weight: int
    rest_concurrency: int
    rest_rate: int


class Venue:
    """A running simulated Binance; see `open_venue`.

    `spot` and `usdm` are its sides. All methods are synchronous and belong to the
    thread of the venue's event loop.
    """

    def __init__(
        self,
        spot: SymbolExchange,
        usdm: SymbolExchange,
        *,
        seed: int,
        limits: Limits,
        usdm_limits: Limits,
    ) -> None:
        self.faults = Faults(self, seed)
        self.spot = Side(spot, self.faults, limits=limits, usdm=False)
        self.usdm = Side(usdm, self.faults, limits=usdm_limits, usdm=True)
        self._sides = (self.spot, self.usdm)
        self._nursery: trio.Nursery

    @property
    def config(self) -> dict[str, str]:
        """The endpoints, by the keys of `[binance]` in the configuration."""
        return {
            "ws_url": self.spot.ws_url,
            "rest_url": self.spot.rest_url,
            "ws_api_url": self.spot.ws_url,
            "usdm_ws_url": self.usdm.ws_url,
            "usdm_rest_url": self.usdm.rest_url,
        }

    @property
    def symbols(self) -> list[str]:
        """What trades live, named as the provider names it, busiest first.

        Without symbols that are not written in ASCII: those are no names of markets.
        """
        pairs = [row.pair for side in self._sides for row in side.exchange.markets]
        pairs.sort(key=lambda pair: -pair.live_share)
        live = (
            pair for pair in pairs if pair.live_share > 0 and pair.status == TRADING
        )
        return [pair.name for pair in live if pair.name.isascii()]

    def market(self, name: str) -> SymbolMarket:
        """The market of a name; raises `ValueError`.

        BTCUSDT and btcusdt are spot's, btcusdt.usdtm.perp is a contract's.
        """
        return self._find(name)[1]

    def _find(self, name: str) -> tuple[Side, SymbolMarket]:
        for side in self._sides:
            market = side.exchange.find(name)
            if market is not None:
                return side, market
        rows = (row.pair.name for side in self._sides for row in side.exchange.markets)
        raise ValueError(f"no symbol {name!r} at this venue: {', '.join(rows)}")

    def trades(self, name: str) -> list[VenueTrade]:
        """All trades of a symbol up to now, oldest first: the truth."""
        side, market = self._find(name)
        side.exchange.advance()
        return market.trades()

    def candles(
        self, name: str, period_s: int, start_s: int, end_s: int
    ) -> list[VenueCandle]:
        """Exact bars with start <= time < end, flat ones included, times in Unix s.

        There is none before the first trade and none after the running one.
        """
        side, market = self._find(name)
        return side.exchange.candles(market, period_s, start_s, end_s)

    def statistics(self) -> VenueStatistics:
        """Counters since the start."""
        sockets = [side.sockets for side in self._sides]
        rest = [side.rest for side in self._sides]
        meters = [row.meter for row in rest]
        return VenueStatistics(
            connections=sum(len(row.links) for row in sockets),
            connections_ever=sum(row.accepted for row in sockets),
            connections_refused=sum(row.refused for row in sockets),
            connections_dropped=sum(row.tally.dropped for row in sockets),
            subscriptions=sum(
                len(link.streams) for row in sockets for link in row.links
            ),
            frames_sent=sum(row.tally.sent for row in sockets),
            rest_requests={path: n for row in rest for path, n in row.requests.items()},
            rest_refused=sum(row.refused for row in meters),
            rest_bans=sum(row.bans for row in meters),
            rest_weight=max(row.most for row in meters),
            rest_concurrency=max(row.traffic.most_at_once for row in rest),
            rest_rate=max(row.traffic.most_a_second for row in rest),
        )

    # The truth about orders

    def account(self, name: str) -> VenueAccount:
        """The account that a market of this name is traded with."""
        return self._find(name)[0].account

    # What the faults need (FaultSite)

    def cut_connections(self) -> int:
        """Reset every WebSocket connection; returns how many."""
        return sum(side.sockets.reset_all() for side in self._sides)

    def freeze_connections(self) -> int:
        """Make the open WebSocket connections silent and deaf; returns how many."""
        return sum(side.sockets.freeze_all() for side in self._sides)

    def close_connections(self, code: int, reason: str) -> int:
        """Close every WebSocket connection with a handshake; returns how many."""
        return sum(side.sockets.close_all(code, reason) for side in self._sides)

    def broadcast_raw(self, text: bytes) -> int:
        """Send text as it is to every WebSocket connection; returns to how many."""
        return sum(side.sockets.send_all(text) for side in self._sides)

    def announce_shutdown(self, seconds: float) -> int:
        """Announce the end of every WebSocket connection, and end them then."""
        return sum(side.sockets.announce_shutdown(seconds) for side in self._sides)

    def delay_frames(self, seconds: float) -> None:
        """Send every WebSocket frame from now on so much later."""
        for side in self._sides:
            side.sockets.delay_all(seconds)

    def terminate_user_streams(self) -> int:
        """End the user streams, as the venue says it; returns how many."""
        count = self.spot.desk.terminate()
        account = self.usdm.account
        if isinstance(account, UsdmAccount) and account.subscribers:
            count += len(account.subscribers)
            account.tell(account.expire_key())
            account.flush()
        return count

    def revoke_key(self) -> int:
        """Tell users of the WebSocket API of a key that is not valid; how many."""
        return self.spot.desk.revoke()

    def ban_address(self, seconds: float) -> None:
        """Answer every REST call of so long with HTTP 418."""
        for side in self._sides:
            side.rest.meter.ban(seconds, side.rest.now_s())

    def start_maintenance(self, seconds: float) -> None:
        """Run the sequence maintenance, cancel_only, post_only, online."""
        for side in self._sides:
            stages = side.exchange.halt()
            self._nursery.start_soon(side.exchange.maintain, seconds, stages)

    # The servers

    @asynccontextmanager
    async def serve(self, host: str, ports: Sequence[int]) -> AsyncIterator["Venue"]:
        """Trade, and serve on four ports; connections are closed in the end."""
        async with open_servers(self._start, self._close, host=host, ports=ports):
            yield self

    async def _start(
        self, nursery: trio.Nursery, listeners: Sequence[trio.SocketListener]
    ) -> None:
        self._nursery = nursery
        await self.spot.start(nursery, *listeners[:2])
        await self.usdm.start(nursery, *listeners[2:])

    async def _close(self) -> None:
        async with trio.open_nursery() as nursery:
            for side in self._sides:
                nursery.start_soon(side.sockets.close)


@asynccontextmanager
async def open_venue(
    *,
    seed: int = 0,
    pairs: Sequence[str | VenueSymbol] | None = None,
    live_rate: float = 20.0,
    history_rate: float = 3.0,
    history_s: float = 2 * 3600,
    clock_offset_s: float = 0.0,
    host: str = "127.0.0.1",
    ports: Sequence[int] = (0, 0, 0, 0),
    limits: Limits | None = None,
    usdm_limits: Limits | None = None,
) -> AsyncIterator[Venue]:
    """Run a simulated Binance inside the caller's trio loop.

    `pairs` are names or definitions, all of the catalogue by default; those with a
    contract go to USD-M. `live_rate` and `history_rate` are trades a second over all
    pairs, `history_s` the length of the history. `clock_offset_s` puts the venue's
    clock ahead, trades and all. `ports`: WebSocket and REST of spot, then of USD-M; 0
    takes a free one. `limits` are those of spot, `usdm_limits` of USD-M.

    Raises `ValueError` for an unknown pair and `OSError` for a port in use. Trades go
    by the wall clock, limits of connections by trio's. The history is drawn in a
    thread; leaving the context closes all connections.
    """
    chosen = select_symbols(pairs)
    offset_ns = int(clock_offset_s * _NS)

    def clock_ns() -> int:
        return time.time_ns() + offset_ns

    draw = partial(
        SymbolMarket,
        seed=seed,
        start_ns=clock_ns(),
        history_s=history_s,
        live_rate=live_rate,
        history_rate=history_rate,
    )
    markets = await trio.to_thread.run_sync(
        lambda: [draw(pair) for pair in chosen], abandon_on_cancel=True
    )
    spot, usdm = (
        SymbolExchange(
            [row for row in markets if bool(row.pair.contract) is contract],
            clock_ns=clock_ns,
            least_sleep_s=_LEAST_SLEEP_S,
        )
        for contract in (False, True)
    )
    made = Venue(
        spot,
        usdm,
        seed=seed,
        limits=limits or Limits(),
        usdm_limits=usdm_limits or USDM,
    )
    async with made.serve(host, ports) as venue:
        yield venue


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, or for so many seconds."""
    parser = argparse.ArgumentParser(
        prog="python -m providers.binance.venue",
        description="A simulated Binance on loopback; prints its URLs as JSON.",
    )
    add = parser.add_argument
    add("--seed", type=int, default=0, help="what the trades are drawn from")
    add("--ports", type=int, nargs=4, default=(0, 0, 0, 0), help="0: a free one")
    add("--rate", type=float, default=20.0, help="trades a second over all symbols")
    add("--crowd", type=int, default=0, help="so many symbols that trade alike instead")
    add("--seconds", type=float, default=math.inf, help="stop by itself after that")
    options = parser.parse_args(arguments)
    venue = open_venue(
        seed=options.seed,
        pairs=make_crowd(options.crowd) if options.crowd else None,
        live_rate=options.rate,
        ports=options.ports,
    )
    trio.run(serve_alone, venue, lambda opened: opened.config, options.seconds)


if __name__ == "__main__":
    main()
