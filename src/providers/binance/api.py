"""Binance as a client of both its sides, spot and USD-M, and its markets by name.

Source: https://developers.binance.com/docs/binance-spot-api-docs/rest-api
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

import httpx
import msgspec
import trio

from piker_core.adapter.defaults import Count, NotNegative, Positive, StreamLimits
from piker_core.adapter.rest import checked_url, open_rest
from piker_core.adapter.shared import share
from piker_core.config import Secret, load_section
from piker_core.errors import DataThrottle, ProviderError
from piker_core.symbol_cache import SymbolCache, is_loopback
from piker_core.symbols import MktPair

from .client import SPOT, USDM, Shape, Side
from .markets import PROVIDER, Catalogue, SideTable, Symbol, is_contract
from .rest import Judge

name = PROVIDER
SearchFunction = Callable[[str], Awaitable[dict[str, MktPair]]]

log = logging.getLogger(__name__)


class Config(StreamLimits, frozen=True, forbid_unknown_fields=True):
    """`[binance]`: addresses, keys and limits. Those of USD-M begin with `usdm`.

    Addresses are scheme, host and port. USD-M's streams are on two routes below its
    address; both may be empty. `trades`: a tick for each trade of spot, or one for each
    aggregate of them; USD-M has aggregates only. Of the weight of REST calls
    `rest_weight` a minute is spent at most, other programs' included, which is a little
    less than the venue allows. The tables of symbols are kept for `symbols_ttl_s`. A
    market from which nothing is heard for `status_s` is looked up: it may not trade. A
    bar counts as finished `settle_s` after its end. For all others see the bases.

    Of orders: the keys; signatures are good for `recv_window_ms`; `order_rate` a second
    go out after `order_burst` at once, until the venue says what it has counted, and
    one that would have to wait for more than `order_patience_s` is not sent. To connect
    may take `connect_timeout_s`. The key of USD-M's user stream is renewed every
    `listen_key_s`.
    """

    ws_url: str = "wss://stream.binance.com:9443"
    rest_url: str = "https://api.binance.com"
    ws_api_url: str = "wss://ws-api.binance.com:443"
    usdm_ws_url: str = "wss://fstream.binance.com"
    usdm_rest_url: str = "https://fapi.binance.com"
    usdm_market_route: str = "/market"
    usdm_public_route: str = "/public"
    usdm_private_route: str = "/private"
    api_key: Secret = Secret()
    api_secret: Secret = Secret()
    trades: Literal["trade", "aggtrade"] = "trade"
    rest_rate: Positive = 90.0
    rest_burst: Count = 3000
    rest_weight: Count = 5800
    usdm_rest_rate: Positive = 35.0
    usdm_rest_burst: Count = 1200
    usdm_rest_weight: Count = 2300
    throttle_longest_s: Positive = 259_200.0
    ws_topics: Count = 1024
    ws_rate: Positive = 3.0
    ws_burst: Count = 1
    usdm_ws_rate: Positive = 6.0
    connect_rate: Positive = 0.5
    rotate_s: NotNegative = 82_800.0
    audit_s: NotNegative = 180.0
    symbols_ttl_s: Positive = 3600.0
    status_s: Positive = 60.0
    settle_s: NotNegative = 1.0
    recv_window_ms: Positive = 5000.0
    order_rate: Positive = 5.0
    order_burst: Count = 50
    usdm_order_rate: Positive = 20.0
    usdm_order_burst: Count = 300
    order_patience_s: Positive = 2.0
    connect_timeout_s: Positive = 20.0
    listen_key_s: Positive = 1500.0

    def of_usdm(self) -> "Config":
        """The same with the limits of USD-M as those that apply."""
        return msgspec.structs.replace(
            self,
            rest_rate=self.usdm_rest_rate,
            rest_burst=self.usdm_rest_burst,
            ws_rate=self.usdm_ws_rate,
            order_rate=self.usdm_order_rate,
            order_burst=self.usdm_order_burst,
        )


class Client:
    """Both sides of Binance; made by `get_client`. Usable by several tasks at once."""

    def __init__(self, config: Config, spot: Side, usdm: Side) -> None:
        self.config, self.spot, self.usdm = config, spot, usdm
        self._catalogue: Catalogue | None = None

    def side(self, name: str) -> Side:
        """The side that a market of this name belongs to."""
        return self.usdm if is_contract(name) else self.spot

    async def symbol(self, name: str | Symbol) -> Symbol:
        """The symbol of a name. Raises NotFound with the names that come near it."""
        if isinstance(name, Symbol):
            return name
        return (await self.side(name).table()).find(name)

    async def search(self, pattern: str) -> list[Symbol]:
        """Symbols of both sides that a pattern means; see `Catalogue.search`.

        Of spot alone, say, where the other side cannot be asked.
        """
        sides = await self._tables()
        catalogue = self._catalogue
        if catalogue is None or catalogue.sides != sides:
            catalogue = await trio.to_thread.run_sync(Catalogue, sides)
            self._catalogue = catalogue
        return await trio.to_thread.run_sync(catalogue.search, pattern)

    async def _tables(self) -> list[SideTable]:
        found: list[SideTable] = []
        failure: ProviderError | DataThrottle | None = None
        for side in (self.spot, self.usdm):
            try:
                found.append(await side.table())
            except (ProviderError, DataThrottle) as error:
                log.warning("symbols are left out: %s", error)
                failure = error
        if failure is not None and not found:
            raise failure
        return found


@asynccontextmanager
async def get_client(
    config: Config | None = None, *, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[Client]:
    """Open a client with `config`, by default the `[binance]` table.

    `transport` takes the place of the network (tests, recordings). All clients of a
    trio run share limiters and tables. Raises ConfigError for unusable addresses;
    nothing is sent yet.
    """
    if config is None:
        config = load_section(PROVIDER, Config)
    usdm = config.of_usdm()
    async with (
        _open_side(SPOT, config, config.rest_url, config.rest_weight, transport) as one,
        _open_side(
            USDM, usdm, config.usdm_rest_url, config.usdm_rest_weight, transport
        ) as other,
    ):
        yield Client(config, one, other)


@asynccontextmanager
async def _open_side(
    shape: Shape,
    config: Config,
    address: str,
    weight: int,
    transport: httpx.AsyncBaseTransport | None,
) -> AsyncIterator[Side]:
    site = shape.site
    url = checked_url(address, site, example="https://api.binance.com")
    source = f"{url}{shape.prefix}"
    key = (PROVIDER, "symbols", source, config.rest_rate, config.rest_burst)
    table = share(key, lambda: _open_table(source, config.symbols_ttl_s))
    judge = Judge(site, weight)
    async with open_rest(
        site, config, url=url, judge=judge, credential=shape.prefix, transport=transport
    ) as rest:
        yield Side(shape, rest, table)


def _open_table(source: str, ttl_s: float) -> SymbolCache[SideTable]:
    on_disk = not is_loopback(source)
    return SymbolCache(PROVIDER, source, build=SideTable, ttl_s=ttl_s, on_disk=on_disk)


async def get_mkt_info(
    fqme_or_symbol: str, *, client: Client | None = None
) -> tuple[MktPair, Symbol]:
    """The market of a name: `btcusdt`, `btcusdt.binance`, `btcusdt.usdtm.perp.binance`.

    Raises NotFound with the names that come near it. It may not trade now: see the
    symbol's `status`.
    """
    async with _client_or_new(client) as opened:
        symbol = await opened.symbol(fqme_or_symbol)
        return symbol.market, symbol


@asynccontextmanager
async def open_symbol_search(
    *, client: Client | None = None
) -> AsyncIterator[SearchFunction]:
    """A search over the names of both sides: `await search("btcus")` -> markets.

    By full name, best first, behind them those that do not trade, at most 50. {} if
    there is none.
    """
    async with _client_or_new(client) as opened:

        async def search(pattern: str) -> dict[str, MktPair]:
            found = await opened.search(pattern)
            return {symbol.fqme: symbol.market for symbol in found}

        yield search


@asynccontextmanager
async def _client_or_new(client: Client | None) -> AsyncIterator[Client]:
    if client is not None:
        yield client
        return
    async with get_client() as opened:
        yield opened
