"""Calls to one side of Binance, spot or USD-M: each has hosts and limits of its own.

Spot is asked for microseconds, so that its lists and its streams tell one time. What a
call weighs is what the venue says it does; what it has counted comes with each answer.

Source: https://developers.binance.com/docs/binance-spot-api-docs/rest-api and the
market data endpoints of the USD-M documents.
"""

from collections.abc import Sequence
from contextlib import suppress

import msgspec
import trio

from piker_core.adapter.clock import VenueClock
from piker_core.adapter.rest import Params, Reply, Request, Rest, RestStatistics, Site
from piker_core.errors import NotFound
from piker_core.symbol_cache import SymbolCache
from piker_core.symbol_table import SymbolTable

from .answers import (
    FirstId,
    Rows,
    decode_aggregates,
    decode_books,
    decode_first_id,
    decode_klines,
    decode_prices,
    decode_server_time,
    decode_trades,
)
from .markets import SideTable, Symbol, decode_statuses, decode_table
from .rest import SPOT_SITE, USDM_SITE

MS_NS, US_NS = 1_000_000, 1_000
PAGE_ROWS = 1000
"""The most rows of an answer."""
_FEW = 100
"""More symbols than this are not named in a call: all are asked for."""


class Shape(msgspec.Struct, frozen=True):
    """What tells the sides apart: paths, weights, and intervals of klines in s.

    `names`: whether calls can name several symbols. `unit_ns`: what times are counted
    in.
    """

    site: Site
    prefix: str
    weights: dict[str, int]
    intervals: dict[int, str]
    names: bool
    unit_ns: int


_MINUTES = {60: "1m", 180: "3m", 300: "5m", 900: "15m", 1800: "30m"}
_MINUTES |= {hours * 3600: f"{hours}h" for hours in (1, 2, 4, 6, 8, 12)} | {86400: "1d"}

SPOT = Shape(
    site=SPOT_SITE,
    prefix="/api/v3",
    weights={"exchangeInfo": 20, "klines": 2, "aggTrades": 4, "historicalTrades": 25}
    | {"ticker/price": 4, "ticker/bookTicker": 4, "time": 1},
    intervals={1: "1s"} | _MINUTES,
    names=True,
    unit_ns=US_NS,
)
USDM = Shape(
    site=USDM_SITE,
    prefix="/fapi/v1",
    weights={"exchangeInfo": 1, "klines": 5, "aggTrades": 20}
    | {"ticker/price": 2, "ticker/bookTicker": 5, "time": 1},
    intervals=_MINUTES,
    names=False,
    unit_ns=MS_NS,
)


class Side:
    """The calls of one side; made by `get_client`. Usable by several tasks at once.

    They raise NotFound for an unknown symbol, DataThrottle when the venue asks for
    patience, else ProviderError, and can be cancelled at any time.
    """

    def __init__(self, shape: Shape, rest: Rest, table: SymbolCache[SideTable]) -> None:
        self.shape, self.rest = shape, rest
        self._table = table
        rest.resync = self.sync_clock

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.shape.site.name

    @property
    def clock(self) -> VenueClock:
        """What is known of the venue's clock."""
        return self.rest.clock

    def statistics(self) -> RestStatistics:
        """Counters since the client was opened."""
        return self.rest.statistics()

    async def _get(self, method: str, params: Params, subject: str) -> Reply:
        return await self.rest.get(
            f"{self.shape.prefix}/{method}",
            params,
            subject=subject,
            cost=self.shape.weights[method],
            sign=_in_microseconds if self.shape.unit_ns == US_NS else None,
        )

    # The venue

    async def keep_time(self, every_s: float) -> None:
        """Ask for the venue's time now and then, for ever."""
        await self.rest.keep_time(every_s)

    async def sync_clock(self) -> None:
        """Ask for the venue's time."""
        reply = await self._get("time", {}, "its time")
        self._note_time(decode_server_time(reply), reply)

    def _note_time(self, time_ns: int, reply: Reply) -> None:
        if reply.moment is not None:
            self.clock.note(time_ns, reply.moment, resolution_ns=self.shape.unit_ns)

    async def table(self, *, refresh: bool = False) -> SideTable:
        """The shared table of symbols; asked for again if it is old, or to refresh it.

        An old table is used on when the venue does not give a new one.
        """
        return await self._table.get(self._fetch_table, refresh=refresh)

    async def _fetch_table(self) -> SymbolTable:
        params = {"showPermissionSets": "false"} if self.shape.names else {}
        reply = await self._get("exchangeInfo", params, "all symbols")
        table, time_ns = await trio.to_thread.run_sync(
            lambda: decode_table(reply, contracts=not self.shape.names)
        )
        if time_ns:
            self._note_time(time_ns, reply)
        return table

    async def statuses(self, symbols: Sequence[Symbol]) -> dict[str, str]:
        """The status of each symbol now, by the venue's names; one may be missing."""
        subject = "the status of symbols"
        reply = await self._get_of("exchangeInfo", symbols, subject)
        return await trio.to_thread.run_sync(decode_statuses, reply)

    # Quotes

    async def prices(self, symbols: Sequence[Symbol]) -> dict[str, float]:
        """Last prices by the venue's names, of others too; 0 if it never traded."""
        reply = await self._get_of("ticker/price", symbols, _names(symbols))
        return decode_prices(reply)

    async def books(self, symbols: Sequence[Symbol]) -> dict[str, tuple[float, float]]:
        """Best bids and asks by the venue's names, others' too; 0 for none."""
        reply = await self._get_of("ticker/bookTicker", symbols, _names(symbols))
        return decode_books(reply)

    async def _get_of(
        self, method: str, symbols: Sequence[Symbol], subject: str
    ) -> Reply:
        """An answer about symbols, and perhaps about others.

        One that is not listed any more must not hide the others: then all are asked
        for, as they are where names cannot be given, or would be too many.
        """
        if self.shape.names and len(symbols) <= _FEW:
            names = [symbol.venue_symbol for symbol in symbols]
            params = {"symbols": msgspec.json.encode(names).decode()}
            with suppress(NotFound):
                return await self._get(method, params, subject)
        return await self._get(method, {}, subject)

    # Trades and klines

    async def trades(
        self, symbol: Symbol, first_id: int | None = None, limit: int = PAGE_ROWS
    ) -> Rows:
        """Trades as TICK_DTYPE, ascending: from an id on, or the newest. Spot only."""
        params: dict[str, str | int] = {"symbol": symbol.venue_symbol, "limit": limit}
        if first_id is not None:
            params["fromId"] = first_id
        return decode_trades(await self._get("historicalTrades", params, symbol.fqme))

    async def aggregates(
        self, symbol: Symbol, first_id: int | None = None, limit: int = PAGE_ROWS
    ) -> Rows:
        """Aggregates as TICK_DTYPE, ascending: from an id on, or the newest."""
        params: dict[str, str | int] = {"symbol": symbol.venue_symbol, "limit": limit}
        if first_id is not None:
            params["fromId"] = first_id
        return decode_aggregates(await self._get("aggTrades", params, symbol.fqme))

    async def first_since(self, symbol: Symbol, since_ns: int) -> FirstId | None:
        """The ids of the first trade at a time or later; None if there is none yet."""
        params: dict[str, str | int] = {
            "symbol": symbol.venue_symbol,
            "startTime": since_ns // MS_NS,
            "limit": 1,
        }
        return decode_first_id(await self._get("aggTrades", params, symbol.fqme))

    async def klines(
        self,
        symbol: Symbol,
        interval: str,
        *,
        start_s: int | None = None,
        end_s: int | None = None,
        limit: int = PAGE_ROWS,
    ) -> Rows:
        """Klines with start <= time < end as OHLCV_DTYPE, ascending, at most `limit`.

        The first ones if there is a start, else the last. The running one is among
        them.
        """
        params: dict[str, str | int] = {
            "symbol": symbol.venue_symbol,
            "interval": interval,
            "limit": limit,
        }
        if start_s is not None:
            params["startTime"] = start_s * 1000
        if end_s is not None:
            params["endTime"] = end_s * 1000 - 1
        return decode_klines(await self._get("klines", params, symbol.fqme))


def _in_microseconds(request: Request) -> Request:
    headers = request.headers | {"X-MBX-TIME-UNIT": "MICROSECOND"}
    return msgspec.structs.replace(request, headers=headers)


def _names(symbols: Sequence[Symbol]) -> str:
    shown = ", ".join(symbol.fqme for symbol in symbols[:3])
    return f"{shown} and more" if len(symbols) > 3 else shown
