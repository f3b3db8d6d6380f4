"""A bare client of the simulated Kraken, and the shape of what it receives."""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import trio
from websockets.trio.client import ClientConnection, connect

from providers.kraken.venue import Venue, VenueTrade

PATIENCE_S = 20.0
Frame = dict[str, Any]


class Client:
    """A connection and all it has received; fractions are `Decimal`."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[Frame] = []

    async def read(self) -> Frame:
        """The next frame."""
        with trio.fail_after(PATIENCE_S):
            frame: Frame = json.loads(await self.socket.recv(), parse_float=Decimal)
        self.frames.append(frame)
        return frame

    async def read_to_end(self) -> None:
        """Read until the connection ends, which raises `ConnectionClosed`."""
        while True:
            await self.read()

    async def wait(self, wanted: Callable[[Frame], bool]) -> Frame:
        """The next frame that is wanted; those before it are passed over."""
        with trio.fail_after(PATIENCE_S):
            while not wanted(frame := await self.read()):
                pass
        return frame

    async def wait_channel(self, channel: str, kind: str = "update") -> Frame:
        """The next frame of a channel."""
        return await self.wait(
            lambda frame: frame.get("channel") == channel and frame.get("type") == kind
        )

    async def ask(self, **request: Any) -> None:
        """Send a request."""
        await self.socket.send(json.dumps(request))

    async def subscribe(
        self, channel: str, *symbols: str, method: str = "subscribe", **params: Any
    ) -> list[Frame]:
        """Subscribe, and wait for one answer per symbol."""
        if symbols:
            params["symbol"] = symbols
        await self.ask(method=method, params={"channel": channel, **params})
        answers = max(len(symbols), 1)
        return [
            await self.wait(lambda frame: "success" in frame) for _ in range(answers)
        ]

    async def read_trades(self, until_id: int) -> list[Frame]:
        """All trades so far, once that with an id has come."""
        while True:
            trades = self.trades()
            if trades and trades[-1]["trade_id"] >= until_id:
                return trades
            await self.wait_channel("trade")

    def trades(self) -> list[Frame]:
        """All trades received so far."""
        return [
            trade
            for frame in self.frames
            if frame.get("channel") == "trade"
            for trade in frame["data"]
        ]


@asynccontextmanager
async def open_client(
    venue: Venue, *, max_size: int | None = 2**20, max_queue: int | None = None
) -> AsyncIterator[Client]:
    """A connection whose status frame has been read.

    With a `max_queue` it stops reading from the network when so many frames wait; it
    must then be drained before it is left, or websockets 17 waits for ever.
    """
    async with connect(
        venue.ws_url,
        proxy=None,
        compression=None,
        max_size=max_size,
        max_queue=max_queue,
        close_timeout=1,
    ) as socket:
        client = Client(socket)
        await client.read()
        yield client


def as_received(truth: VenueTrade, symbol: str) -> Frame:
    """How a trade the venue knows looks in a frame, its time in ns."""
    return {
        "symbol": symbol,
        "side": truth.side,
        "price": truth.exact_price,
        "qty": truth.exact_size,
        "ord_type": truth.ord_type,
        "trade_id": truth.trade_id,
        "timestamp": truth.time_ns // 1000 * 1000,
    }


def with_ns(trade: Frame) -> Frame:
    """A trade of a frame, its time in ns."""
    return trade | {"timestamp": parse_ns(trade["timestamp"])}


def parse_ns(stamp: str) -> int:
    """RFC 3339 to Unix ns, exactly."""
    seconds, _, part = stamp.removesuffix("Z").partition(".")
    whole = datetime.fromisoformat(seconds + "+00:00").timestamp()
    return int(whole) * 10**9 + int(part.ljust(9, "0"))


def shape(text: str | bytes) -> Any:
    """What a JSON text is made of: keys in order, types, and the formats of numbers.

    Lists become the set of their elements' shapes, so their lengths do not count.
    """
    parsed = json.loads(
        text,
        object_pairs_hook=lambda pairs: tuple((key, _form(row)) for key, row in pairs),
        parse_float=_number,
        parse_int=_number,
    )
    return _form(parsed)


def _form(value: Any) -> Any:
    if isinstance(value, list):
        return frozenset(_form(row) for row in value)
    if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return "text " + _number(value).kind
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value):
        return re.sub(r"\d", "0", value)
    if isinstance(value, _Number):
        return value.kind
    return value if isinstance(value, tuple) else type(value).__name__


class _Number:
    """How a number is written: integer, so many decimals, exponent, or a time."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def _number(token: str) -> _Number:
    if "e" in token.lower():
        return _Number("exponent")
    whole, _, part = token.partition(".")
    if not part:
        return _Number("integer")
    if len(whole) >= 10 and 1 <= len(part) <= 7:
        return _Number("seconds")
    return _Number(f"{len(part)} decimals")
