"""A simulated TWS or IB Gateway on loopback, and the truth to compare with.

It speaks the text protocol of the socket API, trades by itself from a seed, keeps the
venue's limits and fails on demand. Alone: `python -m providers.ib.venue --help`.
"""

import argparse
import math
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

import msgspec
import trio

from piker_core.simulation.market import VenueCandle, VenueTrade

from .venue_bars import Series
from .venue_contracts import VenueContract, select_contracts
from .venue_directory import Found
from .venue_faults import Faults
from .venue_frames import NEWEST, OLDEST
from .venue_hours import Hours
from .venue_link import Limits
from .venue_market import ContractMarket
from .venue_orders import Orders
from .venue_pacing import HistoryLimits, Worst
from .venue_server import GatewayServer
from .venue_tape import Tape
from .venue_truth import VenueQuote, exact_candles, exact_quotes, exact_volume

__all__ = [
    "EXEMPT",
    "LENIENT",
    "PATIENCE",
    "HistoryLimits",
    "Hours",
    "Limits",
    "Tape",
    "Venue",
    "VenueCandle",
    "VenueContract",
    "VenueQuote",
    "VenueStatistics",
    "VenueTrade",
    "open_venue",
]

ACCOUNT = "DU1234567"
LENIENT: dict[str, object] = {
    "server_version": NEWEST,
    "tape": Tape(sample_s=0.05),
    "history_limits": HistoryLimits(
        requests=600, requests_s=10.0, identical_s=0.0, same=100
    ),
}
"""Options that lift its limits."""
PATIENCE: dict[str, object] = {
    "ping_s": 1.0,
    "settle_s": 0.3,
    "sweep_s": 2.0,
    "restore_s": 2.0,
    "farm_grace_s": 1.0,
    "request_timeout_s": 2.0,
    "history_timeout_s": 10.0,
    "refused_retry_s": 1.0,
    "identical_s": 0.0,
    "burst_requests": 90,
    "history_requests": 500,
    "history_window_s": 10.0,
    "pacing_pause_s": 1.5,
    "search_interval_s": 0.1,
    "tick_by_tick_interval_s": 0.0,
}
"""Keys of `[ib]` with which the provider soon notices what it waits for otherwise."""
_NO_IDS = "trades have no ids: one told twice is two, and their order is that of coming"
EXEMPT = {"frames.repeated": _NO_IDS, "frames.disordered": _NO_IDS}
"""Checks that make no sense with this protocol, and why."""
_HISTORY = ("reqHistoricalData", "reqHistoricalTicks", "reqHeadTimeStamp")


class VenueStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a venue has seen so far.

    `connections` are open now, of `connections_ever`; `connections_refused` were turned
    away and `connections_dropped` were too slow. `lines` are subscriptions to market
    data, `tick_by_tick` those of them that are tick by tick. `requests` counts calls by
    name, `rest_requests` those for history; `message_rate` is the most a client sent in
    any second, `message_refused` how many were over the limit. `history_open` are
    unfinished requests, `pacing` the worst windows of those that are paced,
    `pacing_refused` how many were over a limit.
    """

    connections: int
    connections_ever: int
    connections_refused: int
    connections_dropped: int
    client_ids: tuple[int, ...]
    lines: int
    tick_by_tick: int
    frames_sent: int
    requests: dict[str, int]
    rest_requests: dict[str, int]
    message_rate: int
    message_refused: int
    history_open: int
    pacing: Worst
    pacing_refused: int


class Venue:
    """A running simulated gateway; see `open_venue`.

    All methods are synchronous and belong to the thread of the venue's event loop.
    """

    def __init__(
        self,
        markets: Sequence[ContractMarket],
        *,
        seed: int,
        server_version: int,
        limits: Limits,
        history_limits: HistoryLimits,
        tape: Tape,
        accounts: Sequence[str],
    ) -> None:
        self.host, self.port = "", 0
        self._tape = tape
        self._server = GatewayServer(
            markets, seed=seed, version=server_version, accounts=accounts, tape=tape,
            limits=limits, history_limits=history_limits,
        )  # fmt: skip
        self._exchange = self._server.exchange
        self.markets = tuple(markets)
        self._named = {name: row for row in markets for name in row.pair.names()}
        self.faults: Faults = self._server.faults
        self.orders: Orders = self._server.orders

    @property
    def config(self) -> dict[str, object]:
        """The `[ib]` table of a configuration that leads here."""
        place = {"host": self.host, "port": self.port}
        return {**place, "client_id": 1, "account": self.orders.accounts.codes[0]}

    @property
    def symbols(self) -> tuple[str, ...]:
        """Market names of what trades and is told trade by trade, busiest first."""
        told = [row.pair for row in self.markets if row.pair.is_told]
        told.sort(key=lambda contract: -contract.live_share)
        return tuple(contract.market_name for contract in told)

    # The truth

    def market(self, name: str) -> ContractMarket:
        """The market of a contract, by any of its names; raises `ValueError`."""
        if name not in self._named:
            listed = ", ".join(row.pair.symbol for row in self.markets)
            raise ValueError(f"no contract {name!r} at this venue: {listed}")
        return self._named[name]

    def trades(self, name: str) -> list[VenueTrade]:
        """All trades of a contract up to now, oldest first: the truth."""
        self._exchange.advance()
        return self.market(name).trades()

    def quotes(self, name: str) -> list[VenueQuote]:
        """All quotes of a contract up to now, oldest first: the truth."""
        self._exchange.advance()
        return exact_quotes(self.market(name))

    def volume(self, name: str) -> float:
        """Size traded on this trading day, as tick type 8 tells it."""
        now_ns = self._exchange.advance()
        return exact_volume(self.market(name), now_ns)

    def candles(
        self,
        name: str,
        period_s: int,
        start_s: int,
        end_s: int,
        *,
        what: str = "TRADES",
        rth: bool = False,
    ) -> list[VenueCandle]:
        """Exact bars with start <= time < end of trading time, times in Unix s.

        Flat ones are included; there is none before the first trade or quote and none
        after the running one. `what` is as in reqHistoricalData; bars of quotes have
        volume, count and vwap -1.
        """
        now_ns = self._exchange.advance()
        market = self.market(name)
        found = Found(market, market.pair.exchanges[0], market.pair.sec_type)
        series = Series(found, what, period_s, rth, self._tape, NEWEST)
        return exact_candles(series, start_s, end_s, now_ns)

    def statistics(self) -> VenueStatistics:
        """Counters since the start."""
        server = self._server
        ids = (link.client_id for link in server.links if not link.over)
        requests = dict(server.desk.requests)
        return VenueStatistics(
            connections=len(server.links),
            connections_ever=server.accepted,
            connections_refused=server.refused,
            connections_dropped=server.dropped,
            client_ids=tuple(sorted(number for number in ids if number is not None)),
            lines=server.live.lines,
            tick_by_tick=len(server.live.each),
            frames_sent=server.sent,
            requests=requests,
            rest_requests={name: requests.get(name, 0) for name in _HISTORY},
            message_rate=server.worst_rate,
            message_refused=server.rate_refused,
            history_open=len(server.history.open),
            pacing=server.history.pacing.worst,
            pacing_refused=server.history.pacing.refused,
        )

    @asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator["Venue"]:
        """Trade, and serve on a port; connections are closed in the end."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._exchange.run)
            serve = partial(self._server.run, host, port)
            self.host, self.port = await nursery.start(serve)
            try:
                yield self
            except Exception as error:  # noqa: BLE001 - raised below, outside the group
                failure = error
            finally:
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure


@asynccontextmanager
async def open_venue(
    *,
    seed: int = 0,
    contracts: Sequence[str | VenueContract] | None = None,
    live_rate: float = 20.0,
    history_rate: float = 3.0,
    history_s: float = 2 * 3600,
    keep_hours: bool = False,
    host: str = "127.0.0.1",
    port: int = 0,
    server_version: int = OLDEST,
    limits: Limits | None = None,
    history_limits: HistoryLimits | None = None,
    tape: Tape | None = None,
    accounts: Sequence[str] = (ACCOUNT,),
) -> AsyncIterator[Venue]:
    """Run a simulated gateway inside the caller's trio loop.

    `contracts` are symbols or definitions, all of the catalogue by default. `live_rate`
    and `history_rate` are trades a second over all of them, `history_s` the length of
    the history. With `keep_hours` contracts trade in their hours alone, else always.
    Port 0 takes a free one. A client gets `server_version` or its own newest, if that
    is older. `accounts` are those of its login.

    Raises `ValueError` for an unknown contract or version and `OSError` for a port in
    use. Trades go by the wall clock, limits by trio's. The history is drawn in a
    thread; leaving the context closes all connections.
    """
    if not OLDEST <= server_version <= NEWEST:
        raise ValueError(
            f"server_version {server_version} is not between {OLDEST} and {NEWEST}"
        )
    chosen = select_contracts(contracts, datetime.now(UTC).date())
    draw = partial(
        _draw, chosen, seed, history_s=history_s, live_rate=live_rate,
        history_rate=history_rate, keep_hours=keep_hours,
    )  # fmt: skip
    made = Venue(
        await trio.to_thread.run_sync(draw, abandon_on_cancel=True),
        seed=seed,
        server_version=server_version,
        limits=limits or Limits(),
        history_limits=history_limits or HistoryLimits(),
        tape=tape or Tape(),
        accounts=accounts,
    )
    async with made.serve(host, port) as venue:
        yield venue


def _draw(
    contracts: Sequence[VenueContract],
    seed: int,
    *,
    history_s: float,
    live_rate: float,
    history_rate: float,
    keep_hours: bool,
) -> list[ContractMarket]:
    start_ns = time.time_ns()
    return [
        ContractMarket(
            contract,
            seed,
            start_ns=start_ns,
            history_s=history_s,
            live_rate=live_rate,
            history_rate=history_rate,
            keep_hours=keep_hours,
        )
        for contract in contracts
    ]


async def _serve_alone(options: argparse.Namespace) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_venue(
            seed=options.seed,
            port=options.port,
            live_rate=options.rate,
            server_version=options.server_version,
            keep_hours=options.keep_hours,
        ) as venue:
            sys.stdout.write(msgspec.json.encode(venue.config).decode() + "\n")
            sys.stdout.flush()
            with trio.move_on_after(options.seconds):
                async for _ in signals:
                    return


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, or for so many seconds."""
    parser = argparse.ArgumentParser(
        prog="python -m providers.ib.venue",
        description="A simulated IB Gateway on loopback; prints its address as JSON.",
    )
    add = parser.add_argument
    add("--seed", type=int, default=0, help="what the trades are drawn from")
    add("--port", type=int, default=0, help="0: a free one")
    add("--rate", type=float, default=20.0, help="trades a second over all contracts")
    add("--server-version", type=int, default=OLDEST, help=f"{OLDEST} to {NEWEST}")
    add("--keep-hours", action="store_true", help="trade in the venue's hours alone")
    add("--seconds", type=float, default=math.inf, help="stop by itself after that")
    trio.run(_serve_alone, parser.parse_args(arguments))


if __name__ == "__main__":
    main()
