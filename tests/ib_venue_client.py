"""A bare client of the simulated gateway, and the requests it sends."""

import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any

import trio

from providers.ib.venue import Venue, VenueTrade

PATIENCE_S = 20.0
OLD, NEW = 157, 178
REFUSED = (OSError, trio.EndOfChannel, trio.BrokenResourceError)
"""What a refused connection raises, sooner or later."""
AAPL = {"symbol": "AAPL", "sec_type": "STK", "exchange": "SMART", "currency": "USD"}
EURO = {"symbol": "EUR", "sec_type": "CASH", "exchange": "IDEALPRO", "currency": "USD"}
BITCOIN = {"symbol": "BTC", "sec_type": "CRYPTO", "exchange": "PAXOS"}
INDEX = {"symbol": "SPX", "sec_type": "IND", "exchange": "CBOE"}
_FIELDS = (
    *("con_id", "symbol", "sec_type", "expiry", "strike", "right", "multiplier"),
    *("exchange", "primary", "currency", "local_symbol", "trading_class"),
)
Fields = list[str]
Contract = Mapping[str, object]


def encode(*fields: object) -> bytes:
    """A frame of some fields; booleans are 1 and 0."""
    texts = (int(field) if isinstance(field, bool) else field for field in fields)
    payload = "".join(f"{text}\0" for text in texts).encode()
    return struct.pack(">I", len(payload)) + payload


def twelve(contract: Contract) -> tuple[object, ...]:
    """The contract fields of a request."""
    unknown = contract.keys() - set(_FIELDS)
    assert not unknown
    empty = {"con_id": 0, "strike": 0.0}
    return tuple(contract.get(name, empty.get(name, "")) for name in _FIELDS)


class Client:
    """A connection and all it has received, message by message."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.version = 0
        self.frames: list[Fields] = []
        self.ended = False
        self._bytes = bytearray()

    async def send(self, *fields: object) -> None:
        """Send one request."""
        await self.stream.send_all(encode(*fields))

    async def read(self) -> Fields:
        """The next message; raises `EndOfChannel` at the end of the connection."""
        with trio.fail_after(PATIENCE_S):
            while (fields := self._take()) is None:
                received = await self.stream.receive_some()
                if not received:
                    self.ended = True
                    raise trio.EndOfChannel
                self._bytes += received
        self.frames.append(fields)
        return fields

    def _take(self) -> Fields | None:
        if len(self._bytes) < 4:
            return None
        (length,) = struct.unpack(">I", self._bytes[:4])
        if len(self._bytes) < 4 + length:
            return None
        payload = bytes(self._bytes[4 : 4 + length])
        del self._bytes[: 4 + length]
        return payload.decode(errors="backslashreplace").split("\0")[:-1]

    async def wait(self, wanted: Callable[[Fields], bool]) -> Fields:
        """The next message that is wanted; those before it are passed over."""
        while not wanted(fields := await self.read()):
            pass
        return fields

    async def wait_id(self, *message_ids: int) -> Fields:
        """The next message of one of some kinds."""
        kinds = {str(number) for number in message_ids}
        return await self.wait(lambda fields: bool(fields) and fields[0] in kinds)

    async def wait_error(self, request_id: int | None = None) -> tuple[int, str]:
        """The next error, of a request if one is named: code and text."""
        fields = await self.wait(
            lambda fields: (
                fields[:1] == ["4"]
                and (request_id is None or fields[2] == str(request_id))
            )
        )
        return int(fields[3]), fields[4]

    async def hello(self, low: int, high: int, options: str = "") -> None:
        """Shake hands."""
        text = f"v{low}..{high}" + (f" {options}" if options else "")
        raw = text.encode()
        await self.stream.send_all(b"API\0" + struct.pack(">I", len(raw)) + raw)
        version, _ = await self.read()
        self.version = int(version)

    async def start(self, client_id: int) -> None:
        """startApi, and the greeting up to the last notice."""
        await self.send(71, 2, client_id, "")
        await self.wait(lambda fields: fields[0] == "4" and fields[3] in _LAST_NOTICES)

    async def sync(self) -> None:
        """Wait until everything asked for so far has been answered."""
        await self.send(49, 1)
        await self.wait_id(49)

    async def read_to_end(self) -> None:
        """Read until the connection ends."""
        try:
            while True:
                await self.read()
        except trio.EndOfChannel:
            return

    async def details(self, request_id: int, contract: Contract) -> list[Fields]:
        """All contract details that a request gets."""
        more = ("",) if self.version >= 176 else ()
        await self.send(9, 8, request_id, *twelve(contract), False, "", "", *more)
        found = []
        while (fields := await self.wait_id(10, 52))[0] == "10":
            found.append(fields)
        return found

    async def market_data(
        self,
        request_id: int,
        contract: Contract,
        generic: str = "",
        *,
        snapshot: bool = False,
    ) -> None:
        """reqMktData."""
        options = (False, generic, snapshot, False, "")
        await self.send(1, 11, request_id, *twelve(contract), *options)

    async def tick_by_tick(
        self, request_id: int, contract: Contract, kind: str = "AllLast"
    ) -> None:
        """reqTickByTickData."""
        await self.send(97, request_id, *twelve(contract), kind, 0, False)

    async def history(
        self,
        request_id: int,
        contract: Contract,
        *,
        end: str = "",
        step: str = "1 min",
        duration: str = "1800 S",
        rth: bool = False,
        what: str = "TRADES",
        form: int = 2,
        live: bool = False,
    ) -> None:
        """reqHistoricalData."""
        shown = (False, end, step, duration, rth, what, form, live, "")
        await self.send(20, request_id, *twelve(contract), *shown)

    async def bars(
        self, request_id: int, contract: Contract, **asked: object
    ) -> list[Fields]:
        """The rows of bars that a request gets: date, prices, volume, wap, count."""
        await self.history(request_id, contract, **asked)  # type: ignore[arg-type]
        fields = await self.wait(
            lambda fields: (
                fields[:2] == ["17", str(request_id)]
                or (fields[0] == "4" and fields[2] == str(request_id))
            )
        )
        assert fields[0] == "17", fields
        rows = [fields[at : at + 8] for at in range(5, len(fields), 8)]
        assert len(rows) == int(fields[4])
        return rows

    async def ticks(
        self,
        request_id: int,
        contract: Contract,
        *,
        start: str = "",
        end: str = "",
        number: int = 1000,
        what: str = "TRADES",
        rth: bool = False,
    ) -> list[Fields]:
        """The rows of historical ticks that a request gets."""
        shown = (False, start, end, number, what, rth, False, "")
        await self.send(96, request_id, *twelve(contract), *shown)
        width = {"TRADES": 6, "BID_ASK": 6, "MIDPOINT": 4}[what]
        rows: list[Fields] = []
        done = "0"
        while done == "0":
            _, _, count, *rest, done = await self.wait_id(96, 97, 98)
            rows += [rest[at : at + width] for at in range(0, len(rest), width)]
            assert len(rest) == int(count) * width
        return rows


_LAST_NOTICES = {"2157", "2158", "326"}


async def knock(venue: Venue) -> None:
    """Connect, shake hands and go; raises what that raises."""
    async with connect(venue) as client:
        await client.hello(OLD, NEW)


async def open_line(venue: Venue) -> trio.SocketStream:
    """A TCP connection; raises `OSError` where there is none to be had."""
    return await trio.open_tcp_stream(venue.host, venue.port)


@asynccontextmanager
async def connect(venue: Venue) -> AsyncIterator[Client]:
    """A TCP connection on which nothing was said yet."""
    async with await open_line(venue) as stream:
        yield Client(stream)


@asynccontextmanager
async def open_client(
    venue: Venue, client_id: int = 1, *, high: int = NEW
) -> AsyncIterator[Client]:
    """A client that was greeted."""
    async with connect(venue) as client:
        await client.hello(100, high)
        await client.start(client_id)
        yield client


def find(part: Sequence[Any], whole: Sequence[Any]) -> int:
    """Where a part begins in a whole; fails if it is not there, in one piece."""
    length = len(part)
    places = range(len(whole) - length + 1)
    return next(at for at in places if whole[at : at + length] == part)


def utc(time_s: int) -> str:
    """A time as requests have it."""
    return f"{datetime.fromtimestamp(time_s, UTC):%Y%m%d-%H:%M:%S}"


def folded(trades: list[VenueTrade], period_s: int) -> dict[int, tuple[Any, ...]]:
    """Bars of trades by their open, as a history row has them but for the time."""
    made: dict[int, tuple[Any, ...]] = {}
    opens = (trade.time_ns // 10**9 // period_s * period_s for trade in trades)
    pairs = zip(opens, trades, strict=True)
    for time_s, group in groupby(pairs, key=itemgetter(0)):
        rows = [row for _, row in group]
        prices = [row.exact_price for row in rows]
        volume = sum((row.exact_size for row in rows), Decimal(0))
        made[time_s] = (
            *(prices[0], max(prices), min(prices), prices[-1]),
            volume,
            len(rows),
        )
    return made


def shown(row: Fields) -> tuple[Any, ...]:
    """Open, high, low, close, volume and count of a history row."""
    return (*map(Decimal, row[1:6]), int(row[7]))
