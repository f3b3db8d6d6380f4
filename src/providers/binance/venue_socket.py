"""The WebSocket server of one side of a simulated Binance."""

from functools import partial
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

import trio
from websockets.http11 import Request

from piker_core.simulation.limits import AttemptLimit
from piker_core.simulation.line import Line
from piker_core.simulation.link import Refusal
from piker_core.simulation.sockets import GOING_AWAY
from piker_core.simulation.sockets import SocketServer as CommonServer

from .venue_faults import Faults
from .venue_frames import shutdown_event
from .venue_link import Limits, Link
from .venue_publisher import Publisher
from .venue_requests import Desk
from .venue_streams import MARKET, PUBLIC
from .venue_symbols import MS, US, SymbolExchange
from .venue_usdm_account import UsdmAccount
from .venue_ws_api import ApiDesk

_BEAT_S = 0.05
_UNITS = {"MILLISECOND": MS, "MICROSECOND": US}
_PRIVATE = "/private/"
_NOT_FOUND = (HTTPStatus.NOT_FOUND, "Not Found\n")


class SocketServer(CommonServer[Link]):
    """All WebSocket clients of a side, and what they are told."""

    def __init__(
        self,
        exchange: SymbolExchange,
        faults: Faults,
        publisher: Publisher,
        api: ApiDesk,
        *,
        limits: Limits,
        usdm: bool,
    ) -> None:
        super().__init__(faults, AttemptLimit(limits.attempts, limits.attempts_s))
        self.limits = limits
        self.desk = Desk(faults, most_streams=limits.streams, nested=usdm)
        self.api = api
        self.join = publisher.join
        self.leave = publisher.leave
        self._exchange = exchange
        self._publisher = publisher
        self._usdm = usdm

    # Connections

    def make_link(self, line: Line) -> Link:
        """The connection on a line."""
        return Link(line, self)

    def check(self, link: Link, request: Request) -> Refusal | None:
        """Read the path: how events look, and the first streams."""
        target = urlsplit(request.path)
        path, query = target.path, parse_qs(target.query)
        if self._usdm and path.startswith((f"/{PUBLIC}/", f"/{MARKET}/", _PRIVATE)):
            _, link.route, path = path.split("/", 2)
            path = f"/{path}"
        unit = query.get("timeUnit", ["MILLISECOND"])[-1].upper()
        if unit not in _UNITS:
            return HTTPStatus.BAD_REQUEST, "Invalid value for time unit\n"
        if not self._usdm:
            link.unit = _UNITS[unit]
            if path == "/ws-api/v3":
                link.api = True
                link.limits_told = query.get("returnRateLimits", ["true"])[-1] == "true"
                return None
        elif self._is_user_stream(path):
            link.user = True
            return None
        names = "/".join(query.get("streams", []))
        if path == "/stream":
            link.combined = True
        elif path == "/ws" or path.startswith("/ws/"):
            names = unquote(path[4:])
        else:
            return _NOT_FOUND
        link.streams = dict.fromkeys(name for name in names.split("/") if name)
        return None

    def _is_user_stream(self, path: str) -> bool:
        """Whether a path of USD-M is that of the account's stream."""
        account = self.api.account
        key = account.listen_key if isinstance(account, UsdmAccount) else ""
        return bool(key) and path == f"/ws/{key}"

    def opened(self, link: Link) -> None:
        """Begin with the streams of the path."""
        if link.user:
            self.api.account.subscribers.append(link)
        if len(link.streams) > self.limits.streams:
            self.desk.refuse(link)
            return
        for name in link.streams:
            self._publisher.join(link, name)

    def ended(self, link: Link) -> None:
        """Forget a client."""
        self.api.left(link)
        if link.user:
            self.api.account.subscribers.remove(link)
        for name in link.streams:
            self._publisher.leave(link, name)

    async def beat(self) -> None:
        """Send what is due by the clock; look after the connections."""
        while True:
            self._publisher.beat()
            self.api.account.flush()
            now_s, now_ns = trio.current_time(), self._exchange.now_ns
            for link in self.links:
                link.beat(now_s, now_ns)
            await trio.sleep(_BEAT_S - now_ns / 10**9 % _BEAT_S)

    # What the faults need

    def announce_shutdown(self, seconds: float) -> int:
        """Tell every connection that it ends after so long; returns how many."""
        links = tuple(self.links)
        now_ns = self._exchange.advance()
        for link in links:
            link.reply(shutdown_event(now_ns, combined=link.combined))
        self._nursery.start_soon(partial(self._close_later, links, seconds))
        return len(links)

    async def _close_later(self, links: tuple[Link, ...], seconds: float) -> None:
        await trio.sleep(seconds)
        for link in links:
            link.close(GOING_AWAY)
