"""Kraken's public REST interface as a client, and its markets by name.

Source: https://docs.kraken.com/api/docs/guides/spot-rest-intro
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import msgspec
import trio

from piker_core.adapter.defaults import (
    Count,
    NotNegative,
    Positive,
    StreamLimits,
)
from piker_core.adapter.rest import (
    Reply,
    Rest,
    RestStatistics,
    checked_url,
    open_rest,
)
from piker_core.adapter.shared import share
from piker_core.config import Secret, load_section
from piker_core.symbol_cache import SymbolCache, is_loopback
from piker_core.symbol_table import SymbolTable
from piker_core.symbols import MktPair

from .answers import (
    INTERVALS,
    PAGE_TRADES,
    Rows,
    SystemStatus,
    Ticker,
    decode_ohlc,
    decode_pairs,
    decode_trades,
)
from .markets import PROVIDER, Pair, PairTable, describe_market
from .rest import SITE, judge

__all__ = [
    "INTERVALS",
    "PAGE_TRADES",
    "Client",
    "Config",
    "MktPair",
    "Pair",
    "PairTable",
    "RestStatistics",
    "SystemStatus",
    "Ticker",
    "get_client",
    "get_mkt_info",
    "name",
    "open_symbol_search",
]

Deadline = Annotated[float, msgspec.Meta(ge=0.5, le=60)]
DeadMan = Annotated[int, msgspec.Meta(ge=0, lt=86400)]
NotNegativeCount = Annotated[int, msgspec.Meta(ge=0)]

name = PROVIDER
SearchFunction = Callable[[str], Awaitable[dict[str, MktPair]]]


class Config(StreamLimits, frozen=True, forbid_unknown_fields=True):
    """`[kraken]`: addresses, keys and patience.

    `rest_url` is without `/0`. The table of pairs is kept for `pairs_ttl_s`. A bar
    counts as finished `settle_s` after its end. For all others see the bases.

    Of orders: a connection may take `connect_timeout_s` to be there at the start, and
    an answer `reply_timeout_s`, after which what became of a request is unknown. The
    venue refuses a new order or a change that reaches it `order_deadline_s` after it
    was made. A new order or a change waits `order_wait_s` at most for room in the
    engine's limits, of which it leaves `cancel_room` free; a cancel `cancel_wait_s`.
    `order_threshold` is what the counter of a pair may come to (0: what the venue says
    of the account). All orders are canceled by the venue `dead_man_s` after it heard
    from us last (0: never). Private calls spend `private_rate` a second after
    `private_burst`; a key that was refused is not tried again for `lockout_s`.
    """

    ws_url: str = "wss://ws.kraken.com/v2"
    ws_auth_url: str = "wss://ws-auth.kraken.com/v2"
    rest_url: str = "https://api.kraken.com"
    api_key: Secret = Secret()
    api_secret: Secret = Secret()
    liveness_s: Positive = 5.0
    pairs_ttl_s: Positive = 600.0
    settle_s: NotNegative = 0.5
    connect_timeout_s: Positive = 15.0
    reply_timeout_s: Positive = 10.0
    order_deadline_s: Deadline = 5.0
    order_wait_s: NotNegative = 2.0
    cancel_wait_s: NotNegative = 10.0
    cancel_room: NotNegative = 16.0
    order_threshold: NotNegativeCount = 0
    dead_man_s: DeadMan = 0
    private_rate: Positive = 0.33
    private_burst: Count = 12
    lockout_s: Positive = 900.0


class Client:
    """Kraken's public REST calls; made by `get_client`.

    A pair is named by any of its names or given as `Pair`. Usable by several tasks at
    once; all clients of a trio run share one limiter and one table of pairs. Calls can
    be cancelled at any time. They raise NotFound for an unknown pair, DataThrottle when
    the venue asks for patience, else ProviderError.
    """

    def __init__(
        self, config: Config, rest: Rest, table: SymbolCache[PairTable]
    ) -> None:
        self.config = config
        self._rest = rest
        self._table = table

    def statistics(self) -> RestStatistics:
        """Counters since the client was opened."""
        return self._rest.statistics()

    async def system_status(self) -> SystemStatus:
        """Whether the venue trades."""
        reply = await self._get("SystemStatus", {}, subject="system status")
        return reply.decode(SystemStatus)

    async def asset_pairs(self, *, refresh: bool = False) -> dict[str, Pair]:
        """All pairs by REST key; asked for again if the table is old or `refresh`."""
        return (await self.pair_table(refresh=refresh)).pairs

    async def pair_table(self, *, refresh: bool = False) -> PairTable:
        """The shared table of pairs; fetched once however many ask for it at a time.

        An old table is used on when the venue does not give a new one.
        """
        return await self._table.get(self._fetch_table, refresh=refresh)

    async def _fetch_table(self) -> SymbolTable:
        reply = await self._get("AssetPairs", {}, subject="all pairs")
        return (await trio.to_thread.run_sync(decode_pairs, reply)).symbols

    async def _get(
        self, method: str, params: dict[str, str | int], *, subject: str
    ) -> Reply:
        return await self._rest.get(f"/0/public/{method}", params, subject=subject)

    async def pair(self, pair: str | Pair) -> Pair:
        """The pair of a name, `xbtusd.kraken` or any other it has."""
        return pair if isinstance(pair, Pair) else (await self.pair_table()).find(pair)

    async def ticker(self, names: Sequence[str | Pair]) -> dict[str, Ticker]:
        """Best quotes, last price and the day's figures by REST key."""
        if not names:
            return {}
        pairs = [await self.pair(each) for each in names]
        reply = await self._get(
            "Ticker",
            {"pair": ",".join(pair.altname for pair in pairs)},
            subject=", ".join(pair.fqme for pair in pairs),
        )
        return reply.decode(dict[str, Ticker])

    async def ohlc(
        self, pair: str | Pair, interval: int = 1, since: int | None = None
    ) -> tuple[Rows, int]:
        """The venue's own bars of `interval` minutes: (rows of OHLCV_DTYPE, last).

        The newest 720, or those of them since `since` (seconds UTC), ascending. The
        last row is the forming one; `last` is the time of the newest finished row.
        `bar_wap` is the venue's vwap, which is cut to the price tick; flat rows have
        their close there and the flag FLAT.
        """
        if interval not in INTERVALS:
            raise ValueError(f"interval {interval!r} is none of {INTERVALS} minutes")
        known = await self.pair(pair)
        params: dict[str, str | int] = {"pair": known.altname, "interval": interval}
        if since is not None:
            params["since"] = since
        return decode_ohlc(await self._get("OHLC", params, subject=known.fqme))

    async def trades(
        self, pair: str | Pair, since_ns: int | None = None, count: int = PAGE_TRADES
    ) -> tuple[Rows, int]:
        """A page of trades: (ticks of TICK_DTYPE in the venue's order, last_ns).

        The first `count` (1 to 1000) since `since_ns`, or the newest ones. `last_ns` is
        the exact time of the last of them, the `since_ns` of the next page, which may
        begin with trades of this one: tell them by their ids. `time_ns` is cut to
        microseconds, as the WebSocket has it, for one order of all trades. Prices and
        sizes are the doubles nearest to the venue's decimals.
        """
        if not 1 <= count <= PAGE_TRADES:
            raise ValueError(f"count {count!r} must be 1 to {PAGE_TRADES}")
        known = await self.pair(pair)
        params: dict[str, str | int] = {"pair": known.altname, "count": count}
        if since_ns is not None:
            params["since"] = since_ns
        return decode_trades(await self._get("Trades", params, subject=known.fqme))


@asynccontextmanager
async def get_client(
    config: Config | None = None, *, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[Client]:
    """Open a client with `config`, by default the `[kraken]` table.

    `transport` takes the place of the network (tests, recordings). Raises ConfigError
    for an unusable `rest_url`; nothing is sent yet.
    """
    if config is None:
        config = load_section(PROVIDER, Config)
    url = config.rest_url.rstrip("/").removesuffix("/0")
    url = checked_url(url, SITE, example="https://api.kraken.com")
    key = (PROVIDER, "pairs", url, config.rest_rate, config.rest_burst)
    table = share(key, lambda: _open_table(url, config.pairs_ttl_s))
    async with open_rest(
        SITE, config, url=url, judge=judge, transport=transport
    ) as rest:
        yield Client(config, rest, table)


def _open_table(url: str, ttl_s: float) -> SymbolCache[PairTable]:
    on_disk = not is_loopback(url)
    return SymbolCache(PROVIDER, url, build=PairTable.of, ttl_s=ttl_s, on_disk=on_disk)


async def get_mkt_info(
    fqme_or_symbol: str, *, client: Client | None = None
) -> tuple[MktPair, Pair]:
    """The market of a name: `xbtusd`, `xbtusd.kraken`, `XBT/USD` or `BTC/USD`.

    Raises NotFound with the names that come near it.
    """
    async with _client_or_new(client) as opened:
        pair = await opened.pair(fqme_or_symbol)
        return describe_market(pair), pair


@asynccontextmanager
async def open_symbol_search(
    *, client: Client | None = None
) -> AsyncIterator[SearchFunction]:
    """A search over all names of the pairs: `await search("btcus")` -> markets by fqme.

    Best first, at most 50: a pair whose name is, begins with, has or resembles the
    pattern. {} if there is none.
    """
    async with _client_or_new(client) as opened:

        async def search(pattern: str) -> dict[str, MktPair]:
            table = await opened.pair_table()
            pairs = await trio.to_thread.run_sync(table.search, pattern)
            return {pair.fqme: describe_market(pair) for pair in pairs}

        yield search


@asynccontextmanager
async def _client_or_new(client: Client | None) -> AsyncIterator[Client]:
    if client is not None:
        yield client
        return
    async with get_client() as opened:
        yield opened
