"""A bare client of the simulated Binance, and the kinds of what it receives."""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import httpx
import trio
from websockets.trio.client import ClientConnection, connect

from providers.binance.venue import Venue, VenueTrade

PATIENCE_S = 20.0
MS = 10**6
Frame = dict[str, Any]


class Client:
    """A connection and all it has received."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[Frame] = []

    async def read(self) -> Any:
        """The next message."""
        with trio.fail_after(PATIENCE_S):
            frame = json.loads(await self.socket.recv())
        self.frames.append(frame)
        return frame

    async def read_to_end(self) -> None:
        """Read until the connection ends, which raises `ConnectionClosed`."""
        while True:
            await self.read()

    async def wait(self, wanted: Callable[[Frame], bool]) -> Frame:
        """The next message that is wanted; those before it are passed over."""
        with trio.fail_after(PATIENCE_S):
            while True:
                frame: Frame = await self.read()
                if wanted(frame):
                    return frame

    async def wait_stream(self, name: str) -> Frame:
        """The event of the next message of a stream, which is a combined one."""
        frame = await self.wait(lambda frame: frame.get("stream") == name)
        event: Frame = frame["data"]
        return event

    async def ask(self, method: str, *params: Any, id: int | None = 1) -> Frame:
        """Send a control message, and wait for its answer."""
        message: Frame = {"method": method, "id": id}
        if params:
            message["params"] = params
        await self.socket.send(json.dumps(message))
        return await self.wait(lambda frame: "id" in frame and frame["id"] == id)

    def events(self, name: str) -> list[Frame]:
        """The events of a combined stream so far."""
        return [row["data"] for row in self.frames if row.get("stream") == name]


@asynccontextmanager
async def open_client(
    url: str, *, max_size: int | None = 2**20, max_queue: int | None = None
) -> AsyncIterator[Client]:
    """A connection.

    With a `max_queue` it stops reading from the network when so many messages wait; it
    must then be drained before it is left.
    """
    async with connect(
        url,
        proxy=None,
        compression=None,
        max_size=max_size,
        max_queue=max_queue,
        ping_interval=None,
        close_timeout=1,
    ) as socket:
        yield Client(socket)


def combined(venue: Venue, *names: str) -> str:
    """The URL of combined streams of spot."""
    return f"{venue.config['ws_url']}/stream?streams={'/'.join(names)}"


def usdm(venue: Venue, route: str, *names: str) -> str:
    """The URL of combined streams of USD-M by a route."""
    return f"{venue.config['usdm_ws_url']}{route}/stream?streams={'/'.join(names)}"


def as_trade(trade: VenueTrade) -> tuple[int, int, Decimal, Decimal, bool]:
    """A trade the venue knows: id, time in ms, price, size, whether a maker bought."""
    return (
        trade.trade_id,
        trade.time_ns // MS,
        trade.exact_price,
        trade.exact_size,
        trade.side == "sell",
    )


def from_event(event: Frame) -> tuple[int, int, Decimal, Decimal, bool]:
    """The same of a trade event."""
    price, size = Decimal(event["p"]), Decimal(event["q"])
    return event["t"], event["T"], price, size, event["m"]


def kinds(value: Any) -> Any:
    """What something decoded from JSON is made of: keys, types, decimals of numbers.

    Lists become the set of their elements' kinds, so their lengths do not count, but a
    kline, whose elements differ, keeps its order.
    """
    if isinstance(value, dict):
        return frozenset((key, kinds(row)) for key, row in value.items())
    if isinstance(value, list):
        rows = [kinds(row) for row in value]
        kline = len(rows) == 12 and not isinstance(value[0], dict)
        return tuple(rows) if kline else frozenset(rows)
    if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return f"text of {len(value.partition('.')[2])} decimals"
    return type(value).__name__


def covers(ours: Any, theirs: Any) -> bool:
    """Whether kinds have all keys, types and formats of others, and perhaps more."""
    if isinstance(theirs, frozenset) and isinstance(ours, frozenset):
        return all(any(covers(row, wanted) for row in ours) for wanted in theirs)
    if isinstance(theirs, tuple) and isinstance(ours, tuple):
        return len(ours) == len(theirs) and all(map(covers, ours, theirs))
    return bool(ours == theirs)


class Caller:
    """A client of one side's REST server."""

    def __init__(self, http: httpx.AsyncClient, prefix: str) -> None:
        self.http = http
        self._prefix = prefix

    async def send(self, call: str, **headers: str) -> httpx.Response:
        """The reply to a call, whatever it is."""
        return await self.http.get(f"{self._prefix}{call}", headers=headers)

    async def get(self, call: str, **headers: str) -> Any:
        """The answer to a call."""
        reply = await self.send(call, **headers)
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def error(self, call: str, status: int = 400) -> tuple[int, str]:
        """The code and the text of the error a call is answered with."""
        reply = await self.send(call)
        assert reply.status_code == status, reply.text
        error = reply.json()
        assert list(error) == ["code", "msg"]
        return error["code"], error["msg"]


@asynccontextmanager
async def open_caller(venue: Venue, *, usdm: bool = False) -> AsyncIterator[Caller]:
    """A client of spot's REST server, or of USD-M's."""
    url = venue.config["usdm_rest_url" if usdm else "rest_url"]
    async with httpx.AsyncClient(base_url=url) as http:
        yield Caller(http, "/fapi/v1/" if usdm else "/api/v3/")
