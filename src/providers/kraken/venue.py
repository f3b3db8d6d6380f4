"""A simulated Kraken on loopback: WebSocket v2 and REST, orders, and the truth.

It speaks the venue's public protocol, trades by itself from a seed, keeps the venue's
limits and fails on demand. Alone: `python -m providers.kraken.venue --help`.
"""

import argparse
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from piker_core.simulation.http import serve_http
from piker_core.simulation.market import VenueCandle, VenueTrade
from piker_core.simulation.serving import address, open_servers, serve_alone

from .venue_account import Account
from .venue_auth import AuthServer
from .venue_faults import Faults
from .venue_link import Limits
from .venue_order_faults import OrderFaults
from .venue_orders import Orders
from .venue_pairs import PairExchange, PairMarket, VenuePair, select_pairs
from .venue_private import PrivateRest
from .venue_rest import RestServer
from .venue_socket import PATH, SocketServer

__all__ = [
    "LENIENT",
    "Account",
    "Limits",
    "Venue",
    "VenueCandle",
    "VenuePair",
    "VenueStatistics",
    "VenueTrade",
    "open_venue",
]

LENIENT = {
    "rest_rate": 100.0,
    "rest_burst": 200.0,
    "account": Account(threshold=1000, calls=1000.0, calls_decay=100.0),
}
"""Options of `open_venue` that lift its limits, for checks of other things."""
PATIENCE = {
    "reply_timeout_s": 2.0,
    "private_rate": 50.0,
    "private_burst": 200,
    "order_threshold": 900,
}
"""Keys of the provider's configuration that checks are run with."""


class VenueStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a venue has seen so far.

    `connections` are WebSocket connections open now, of `connections_ever`;
    `connections_refused` were turned away and `connections_dropped` were too slow.
    `rest_requests` counts calls by method, `rest_refused` those over the rate;
    `rest_concurrency` and `rest_rate` are the most at once and in any one second.
    """

    connections: int
    connections_ever: int
    connections_refused: int
    connections_dropped: int
    subscriptions: int
    frames_sent: int
    rest_requests: dict[str, int]
    rest_refused: int
    rest_concurrency: int
    rest_rate: int


class Venue:
    """A running simulated Kraken; see `open_venue`.

    All methods are synchronous and belong to the thread of the venue's event loop.
    """

    def __init__(
        self,
        exchange: PairExchange,
        *,
        seed: int,
        limits: Limits,
        rest_rate: float,
        rest_burst: float,
        account: Account,
    ) -> None:
        self.ws_url = ""
        self.ws_auth_url = ""
        self.rest_url = ""
        self.faults = Faults(self, seed)
        self.order_faults = OrderFaults(self, seed)
        self.orders = Orders(exchange, account, self.order_faults)
        self._exchange = exchange
        self._nursery: trio.Nursery
        self._sockets = SocketServer(exchange, self.faults, seed=seed, limits=limits)
        self._auth = AuthServer(exchange, self.orders, self.faults, limits=limits)
        self.private = PrivateRest(self.orders, self._auth.tokens)
        self._rest = RestServer(
            exchange, self.faults, self.private, rate=rest_rate, burst=rest_burst
        )
        exchange.listeners.append(self._sockets)

    @property
    def config(self) -> dict[str, str]:
        """Addresses and key, by the keys of `[kraken]` in the configuration."""
        account = self.orders.account
        return {
            "ws_url": self.ws_url,
            "ws_auth_url": self.ws_auth_url,
            "rest_url": self.rest_url,
            "api_key": account.api_key,
            "api_secret": account.api_secret,
        }

    @property
    def symbols(self) -> list[str]:
        """Pairs that trade live, named as the provider names them, busiest first."""
        pairs = [market.pair for market in self._exchange.markets]
        pairs.sort(key=lambda pair: -pair.live_share)
        return [pair.altname.lower() for pair in pairs if pair.live_share > 0]

    def market(self, name: str) -> PairMarket:
        """The market of a pair, by any of its names; raises `ValueError`."""
        market = self._exchange.find(name) or self._exchange.find(name.upper())
        if market is None:
            listed = ", ".join(row.pair.symbol for row in self._exchange.markets)
            raise ValueError(f"no pair {name!r} at this venue: {listed}")
        return market

    def trades(self, name: str) -> list[VenueTrade]:
        """All trades of a pair up to now, oldest first: the truth."""
        self._exchange.advance()
        return self.market(name).trades()

    def candles(
        self, name: str, period_s: int, start_s: int, end_s: int
    ) -> list[VenueCandle]:
        """Exact bars with start <= time < end, flat ones included, times in Unix s.

        There is none before the first trade and none after the running one.
        """
        return self._exchange.candles(self.market(name), period_s, start_s, end_s)

    def statistics(self) -> VenueStatistics:
        """Counters since the start."""
        sockets, rest = self._sockets, self._rest
        return VenueStatistics(
            connections=len(sockets.links),
            connections_ever=sockets.accepted,
            connections_refused=sockets.refused,
            connections_dropped=sockets.tally.dropped,
            subscriptions=sum(len(link.topics) for link in sockets.links),
            frames_sent=sockets.tally.sent,
            rest_requests=dict(rest.requests),
            rest_refused=rest.refused,
            rest_concurrency=rest.traffic.most_at_once,
            rest_rate=rest.traffic.most_a_second,
        )

    # What the faults need (FaultSite, OrderFaultSite)

    def cut_private(self) -> int:
        """Reset every private connection; returns how many."""
        return self._auth.reset_all()

    def freeze_private(self) -> int:
        """Make the open private connections silent and deaf; returns how many."""
        return self._auth.freeze_all()

    def forget_tokens(self) -> int:
        """Make every token of private sessions invalid; returns how many."""
        return self._auth.forget_tokens()

    def cut_connections(self) -> int:
        """Reset every WebSocket connection; returns how many."""
        return self._sockets.reset_all()

    def freeze_connections(self) -> int:
        """Make the open WebSocket connections silent and deaf; returns how many."""
        return self._sockets.freeze_all()

    def close_connections(self, code: int, reason: str) -> int:
        """Close every WebSocket connection with a handshake; returns how many."""
        return self._sockets.close_all(code, reason)

    def broadcast_raw(self, text: bytes) -> int:
        """Send text as it is to every WebSocket connection; returns to how many."""
        return self._sockets.send_all(text)

    def start_maintenance(self, seconds: float) -> None:
        """Run the sequence maintenance, cancel_only, post_only, online."""
        stages = self._exchange.halt()
        self._nursery.start_soon(self._exchange.maintain, seconds, stages)

    # The servers

    @asynccontextmanager
    async def serve(
        self, host: str, ws_port: int, rest_port: int, ws_auth_port: int
    ) -> AsyncIterator["Venue"]:
        """Trade, and serve on three ports; connections are closed in the end."""
        ports = (ws_port, rest_port, ws_auth_port)
        close = self._close
        async with open_servers(self._start, close, host=host, ports=ports):
            yield self

    async def _start(
        self, nursery: trio.Nursery, listeners: Sequence[trio.SocketListener]
    ) -> None:
        ws, rest, auth = listeners
        self._nursery = nursery
        nursery.start_soon(self._exchange.run)
        await nursery.start(self._sockets.run, ws)
        await nursery.start(self._auth.run, auth)
        answer = partial(serve_http, answer=self._rest.answer)
        await nursery.start(trio.serve_listeners, answer, [rest])
        self.ws_url = f"ws://{address(ws)}{PATH}"
        self.ws_auth_url = f"ws://{address(auth)}{PATH}"
        self.rest_url = f"http://{address(rest)}"

    async def _close(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sockets.close)
            nursery.start_soon(self._auth.close)


@asynccontextmanager
async def open_venue(
    *,
    seed: int = 0,
    pairs: Sequence[str | VenuePair] | None = None,
    live_rate: float = 20.0,
    history_rate: float = 3.0,
    history_s: float = 2 * 3600,
    host: str = "127.0.0.1",
    ws_port: int = 0,
    rest_port: int = 0,
    ws_auth_port: int = 0,
    rest_rate: float = 1.0,
    rest_burst: float = 30.0,
    limits: Limits | None = None,
    account: Account | None = None,
) -> AsyncIterator[Venue]:
    """Run a simulated Kraken inside the caller's trio loop.

    `pairs` are names or definitions, all of the catalogue by default. `live_rate` and
    `history_rate` are trades a second over all pairs, `history_s` the length of the
    history. Port 0 takes a free one. REST lets `rest_burst` calls through, then
    `rest_rate` a second; `limits` are those of WebSocket connections, `account` is who
    may give orders.

    Raises `ValueError` for an unknown pair and `OSError` for a port in use. Trades go
    by the wall clock, heartbeats and limits by trio's. The history is drawn in a
    thread; leaving the context closes all connections.
    """
    chosen = select_pairs(pairs)
    rates = {"live_rate": live_rate, "history_rate": history_rate}
    markets = await trio.to_thread.run_sync(
        partial(_draw, chosen, seed, history_s=history_s, **rates),
        abandon_on_cancel=True,
    )
    made = Venue(
        PairExchange(markets),
        seed=seed,
        limits=limits or Limits(),
        rest_rate=rest_rate,
        rest_burst=rest_burst,
        account=account or Account(),
    )
    async with made.serve(host, ws_port, rest_port, ws_auth_port) as venue:
        yield venue


def _draw(
    pairs: Sequence[VenuePair],
    seed: int,
    *,
    history_s: float,
    live_rate: float,
    history_rate: float,
) -> list[PairMarket]:
    start_ns = time.time_ns()
    return [
        PairMarket(
            pair,
            seed,
            start_ns=start_ns,
            history_s=history_s,
            live_rate=live_rate,
            history_rate=history_rate,
        )
        for pair in pairs
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, or for so many seconds."""
    parser = argparse.ArgumentParser(
        prog="python -m providers.kraken.venue",
        description="A simulated Kraken on loopback; prints addresses and key as JSON.",
    )
    add = parser.add_argument
    add("--seed", type=int, default=0, help="what the trades are drawn from")
    add("--ws-port", type=int, default=0, help="0: a free one")
    add("--rest-port", type=int, default=0, help="0: a free one")
    add("--rate", type=float, default=20.0, help="trades a second over all pairs")
    add("--seconds", type=float, default=math.inf, help="stop by itself after that")
    options = parser.parse_args(arguments)
    venue = open_venue(
        seed=options.seed,
        ws_port=options.ws_port,
        rest_port=options.rest_port,
        live_rate=options.rate,
    )
    trio.run(serve_alone, venue, lambda opened: opened.config, options.seconds)


if __name__ == "__main__":
    main()
