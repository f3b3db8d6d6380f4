"""The two sides of a simulated Binance: what is spot's own, and what USD-M's.

Source: rest-api.md of the spot API's documents; USD-M's documents, and what was
measured there where it differs.
"""

from functools import partial

import trio

from piker_core.simulation.http import serve_http
from piker_core.simulation.market import NS
from piker_core.simulation.serving import address

from .venue_calls import Calls
from .venue_depth import Books
from .venue_errors import BACKWARDS, BAD_COMBINATION, TOO_BIG, TOO_OLD, Refused
from .venue_faults import Faults
from .venue_info import (
    assets,
    describe_spot,
    describe_usdm,
    permissions_of,
    rate_limits,
)
from .venue_klines import USDM_INTERVALS
from .venue_link import Limits
from .venue_params import Params
from .venue_publisher import Publisher
from .venue_rest import RestServer, Shape
from .venue_socket import SocketServer
from .venue_spot_account import SpotAccount
from .venue_symbols import MS, SymbolExchange, SymbolMarket, VenueSymbol
from .venue_tickers import average_price
from .venue_usdm_account import UsdmAccount
from .venue_weights import spot_weight, usdm_weight
from .venue_ws_api import ApiDesk

_HOUR_NS = 3600 * NS
_DEPTHS = (5, 10, 20, 50, 100, 500, 1000)
_ACCOUNT = ("account", "order", "order/test", "openOrders", "allOrders")
_SPOT_ACCOUNT = (
    *("myTrades", "rateLimit/order", "account/commission"),
    *("order/cancelReplace", "order/amend/keepPriority"),
)
_USDM_ACCOUNT = ("balance", "userTrades", "positionRisk", "allOpenOrders")
SPOT_SHAPE = Shape(
    prefixes=("/api/v3/", "/sapi/v1/"),
    private=frozenset({*_ACCOUNT, *_SPOT_ACCOUNT}),
    gone=frozenset({"userDataStream"}),
    keyed=frozenset(),
    strict=True,
    weigh=spot_weight,
)
USDM_SHAPE = Shape(
    prefixes=("/fapi/v1/", "/fapi/v2/", "/fapi/v3/"),
    private=frozenset({*_ACCOUNT, *_USDM_ACCOUNT}),
    gone=frozenset(),
    keyed=frozenset({"historicalTrades"}),
    strict=False,
    weigh=usdm_weight,
)


class SpotCalls(Calls):
    """What spot has of its own."""

    def __init__(
        self, exchange: SymbolExchange, books: Books, faults: Faults, limits: Limits
    ) -> None:
        super().__init__(exchange, books, faults.told_ns)
        self._weight, self._orders = limits.weight, limits.orders
        self.methods |= {
            "uiKlines": self.klines,
            "avgPrice": self._average,
            "exchangeInfo": self._info,
            "system/status": self._system,
        }

    def _system(self, params: Params, now_ns: int) -> object:
        if self.exchange.system == "online":
            return {"status": 0, "msg": "normal"}
        return {"status": 1, "msg": "system_maintenance"}

    def _info(self, params: Params, now_ns: int) -> object:
        params.known(
            *("symbol", "symbols", "permissions", "symbolStatus", "showPermissionSets")
        )
        sets = not params.has("showPermissionSets") or (
            params.text("showPermissionSets") == "true"
        )
        system = self.exchange.system
        rows = [
            describe_spot(pair, pair.status_in(system), sets=sets)
            for pair in self._asked(params)
        ]
        return {
            "timezone": "UTC",
            "serverTime": self.told_ns() // params.unit,
            "rateLimits": rate_limits(self._weight, (self._orders, 200_000)),
            "exchangeFilters": [],
            "symbols": rows,
        }

    def _asked(self, params: Params) -> list[VenueSymbol]:
        """The symbols that `exchangeInfo` is asked for."""
        if params.has("symbol") or params.has("symbols"):
            if params.has("permissions") or params.has("symbolStatus"):
                raise Refused(*BAD_COMBINATION)
            several = params.markets()
            return [row.pair for row in several or [params.market()]]
        wanted = params.permissions("permissions") or ["SPOT", "MARGIN", "LEVERAGED"]
        found = [
            row.pair
            for row in params.known_markets()
            if set(wanted) & set(permissions_of(row.pair))
        ]
        if not params.has("symbolStatus"):
            return found
        status = params.text("symbolStatus")
        if status not in ("TRADING", "HALT", "BREAK"):
            raise Refused(-1122, "Invalid symbolStatus.")
        system = self.exchange.system
        return [pair for pair in found if pair.status_in(system) == status]

    def _average(self, params: Params, now_ns: int) -> object:
        params.known("symbol")
        return average_price(params.market(), now_ns, params.unit)


class UsdmCalls(Calls):
    """What USD-M has of its own."""

    intervals = USDM_INTERVALS
    most_klines = 1500
    old_trades_limit = (100, 500)

    def __init__(
        self, exchange: SymbolExchange, books: Books, faults: Faults, limits: Limits
    ) -> None:
        super().__init__(exchange, books, faults.told_ns)
        self._weight, self._orders = limits.weight, limits.orders
        self.methods["exchangeInfo"] = self._info

    def _info(self, params: Params, now_ns: int) -> object:
        symbols = [row.pair for row in params.known_markets()]
        system = self.exchange.system
        return {
            "timezone": "UTC",
            "serverTime": self.told_ns() // MS,
            "futuresType": "U_MARGINED",
            "rateLimits": rate_limits(self._weight, (self._orders, 1_728_000)),
            "exchangeFilters": [],
            "assets": assets(symbols),
            "symbols": [describe_usdm(row, row.status_in(system)) for row in symbols],
        }

    def check_span(self, start_ns: int | None, end_ns: int | None) -> None:
        """Refuse a start after the end."""
        if start_ns is not None and end_ns is not None and start_ns >= end_ns:
            raise Refused(*BACKWARDS)

    def check_age(self, start_ns: int | None, end_ns: int | None, now_ns: int) -> None:
        """Refuse spans of more than an hour, and a start more than two days ago."""
        if start_ns is None:
            return
        if end_ns is not None and end_ns - start_ns > _HOUR_NS + MS:
            raise Refused(*TOO_BIG)
        if start_ns < now_ns - 48 * _HOUR_NS:
            raise Refused(*TOO_OLD)

    def depth_limit(self, params: Params) -> int:
        """How many levels a side are asked for: one of a few numbers."""
        limit = params.integer("limit")
        if limit not in (None, *_DEPTHS):
            raise Refused(-4021, f"{limit} is not valid depth limit")
        return limit or 500

    def listed(self) -> list[SymbolMarket]:
        """The contracts that trade."""
        return [row for row in self.exchange.markets if row.pair.status == "TRADING"]


class Side:
    """One side: its exchange, its account and its two servers."""

    def __init__(
        self, exchange: SymbolExchange, faults: Faults, *, limits: Limits, usdm: bool
    ) -> None:
        books = Books()
        publisher = Publisher(exchange, faults, books, usdm=usdm)
        exchange.listeners.append(publisher)
        make_calls = UsdmCalls if usdm else SpotCalls
        calls = make_calls(exchange, books, faults, limits)
        shape = USDM_SHAPE if usdm else SPOT_SHAPE
        self.exchange = exchange
        make_account = UsdmAccount if usdm else SpotAccount
        self.account: UsdmAccount | SpotAccount = make_account(
            exchange, faults, most_orders=limits.orders
        )
        self.rest = RestServer(calls, faults, shape, self.account, limits=limits)
        self.desk = ApiDesk(self.account, faults, self.rest.meter)
        self.sockets = SocketServer(
            exchange, faults, publisher, self.desk, limits=limits, usdm=usdm
        )
        self.ws_url = ""
        self.rest_url = ""

    async def start(
        self,
        nursery: trio.Nursery,
        ws: trio.SocketListener,
        rest: trio.SocketListener,
    ) -> None:
        """Trade and serve."""
        nursery.start_soon(self.exchange.run)
        await nursery.start(self.sockets.run, ws)
        answer = partial(serve_http, answer=self.rest.answer)
        await nursery.start(trio.serve_listeners, answer, [rest])
        self.ws_url = f"ws://{address(ws)}"
        self.rest_url = f"http://{address(rest)}"
