"""The simulated Binance's WebSocket side: frames, control messages, limits."""

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from binance_venue_client import (
    Client,
    combined,
    covers,
    kinds,
    open_client,
    usdm,
)
from venue_client import shape
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from providers.binance.venue import USDM, Limits, Venue, open_venue

QUIET = "xrpeth@trade"  # it never trades live
KINDS = ["depth@100ms", "bookTicker", "aggTrade", "kline_1m"]


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(seed=7, history_s=600, live_rate=800) as opened:
        yield opened


@pytest.fixture
async def client(venue: Venue) -> AsyncIterator[Client]:
    async with open_client(combined(venue)) as opened:
        yield opened


# Frames


def recorded(captures: Path, kind: str) -> str:
    """A recorded frame of a kind of stream, with levels on both sides if it has any."""
    text = (captures / "binance" / "recording_BINANCE.ws.1.0").read_text()
    frames = [line.partition(": ")[2] for line in text.splitlines()[1:]]
    found = [row for row in frames if f"@{kind}" in row]
    return next(row for row in found if ":[]" not in row)


@pytest.mark.parametrize("kind", KINDS)
async def test_frames_have_the_keys_and_number_formats_of_recorded_ones(
    venue: Venue, captures: Path, kind: str
) -> None:
    wanted = shape(recorded(captures, kind))
    async with open_client(combined(venue, f"btcusdt@{kind}")) as client:
        with trio.fail_after(10):
            while shape(await client.socket.recv()) != wanted:
                pass


async def test_trades_have_the_keys_and_number_formats_of_recorded_ones(
    venue: Venue, captures: Path
) -> None:
    with gzip.open(captures / "binance" / "spot_btcusdt_20240808.gz", "rt") as lines:
        recorded = next(line for line in lines if "@trade" in line)
    async with open_client(combined(venue, "btcusdt@trade")) as client:
        assert shape(await client.socket.recv()) == shape(recorded.partition(" ")[2])


SYMBOLS = {
    "BINANCE": {"nkn": "btc", "blzeth": "xrpeth", "lrcbtc": "ethbtc", "runeeur": "x"},
    "BINANCE_US": {"crv": "btc", "comp": "eth", "omgbusd": "ethbtc", "zrx": "doge"},
}


async def test_recorded_sessions_get_every_kind_of_frame_they_got(
    venue: Venue, captures: Path
) -> None:
    async with trio.open_nursery() as nursery:
        for session in SYMBOLS:
            nursery.start_soon(hear_all_kinds, venue, captures, session)


async def hear_all_kinds(venue: Venue, captures: Path, session: str) -> None:
    """Connect as in a recorded session, until all kinds of its frames have come."""
    text = (captures / "binance" / f"recording_{session}.ws.1.0").read_text()
    opening, *lines = text.strip().splitlines()
    path = "/" + opening.partition(" <-> ")[0].split("/", 3)[3]
    for theirs, ours in SYMBOLS[session].items():
        path = path.replace(theirs, ours)
    missing = {kinds(json.loads(line.partition(": ")[2])) for line in lines}
    assert len(missing) >= 4
    async with open_client(venue.config["ws_url"] + path) as client:
        with trio.fail_after(20):
            while missing:
                made = kinds(await client.read())
                missing = {wanted for wanted in missing if not covers(made, wanted)}


USDM_EVENTS = {
    "public": {
        "trade": "e E T s t p q X m st",
        "bookTicker": "e u s ps b B a A T E st",
        "depth@100ms": "e E T s ps U u pu b a st",
        "depth5@100ms": "e E T s ps U u pu b a st",
    },
    "market": {
        "aggTrade": "e E a s p q nq f l T m st",
        "kline_1m": "e E s k",
        "miniTicker": "e E s c o h l v q ps st",
        "ticker": "e E s p P w c Q o h l v q O C F L n ps st",
    },
}


@pytest.mark.parametrize("route", USDM_EVENTS)
async def test_usdm_frames_have_the_keys_of_the_documents(
    venue: Venue, route: str
) -> None:
    wanted = {f"btcusdt@{kind}": keys for kind, keys in USDM_EVENTS[route].items()}
    async with open_client(usdm(venue, f"/{route}", *wanted)) as client:
        heard: dict[str, Any] = {}
        while heard.keys() != wanted.keys():
            frame = await client.read()
            heard[frame["stream"]] = frame["data"]
    for name, event in heard.items():
        assert " ".join(event) == wanted[name]
        prices = [event[key] for key in "pbac" if isinstance(event.get(key), str)]
        assert all(len(price.partition(".")[2]) == 2 for price in prices)


async def test_spot_tickers_and_partial_depth_have_the_keys_of_the_documents(
    venue: Venue,
) -> None:
    kinds = ("miniTicker", "ticker", "depth5")
    names = [*(f"btcusdt@{kind}" for kind in kinds), "!miniTicker@arr"]
    async with open_client(combined(venue, *names)) as client:
        mini, ticker, depth, several = [await client.wait_stream(row) for row in names]
    assert " ".join(mini) == "e E s c o h l v q"
    assert " ".join(ticker) == "e E s p P w x c Q b B a A o h l v q O C F L n"
    assert list(depth) == ["lastUpdateId", "bids", "asks"]
    assert [len(depth[side]) for side in ("bids", "asks")] == [5, 5]
    assert {tuple(row) for row in several} == {tuple(mini)}
    assert len(several) > 2


async def test_streams_are_wrapped_on_stream_and_raw_on_ws(venue: Venue) -> None:
    async with open_client(combined(venue, "btcusdt@trade")) as client:
        assert list(await client.read()) == ["stream", "data"]
    for path in ("/ws/btcusdt@trade", "/ws/btcusdt@trade/xrpeth@trade"):
        async with open_client(venue.config["ws_url"] + path) as client:
            assert (await client.read())["e"] == "trade"
    async with open_client(venue.config["ws_url"] + "/ws") as client:
        await client.ask("SUBSCRIBE", "btcusdt@bookTicker")
        assert list(await client.read()) == ["u", "s", "b", "B", "a", "A"]


async def test_times_are_in_milliseconds_or_in_microseconds(venue: Venue) -> None:
    async with trio.open_nursery() as nursery:
        for unit, digits in (("MILLISECOND", 13), ("microsecond", 16)):
            nursery.start_soon(hear_times, venue, unit, digits)


async def hear_times(venue: Venue, unit: str, digits: int) -> None:
    """Times of trades and klines have so many digits in a unit."""
    names = ("btcusdt@trade", "btcusdt@kline_1s")
    url = f"{combined(venue, *names)}&timeUnit={unit}"
    async with open_client(url) as client:
        trade = await client.wait_stream(names[0])
        kline = (await client.wait_stream(names[1]))["k"]
    assert [len(str(trade[key])) for key in "ET"] == [digits] * 2
    assert [len(str(kline[key])) for key in "tT"] == [digits] * 2
    assert (kline["T"] + 1) % 10 ** (digits - 10) == 0


async def test_usdm_streams_are_only_to_be_had_on_their_route(venue: Venue) -> None:
    names = ("btcusdt@trade", "btcusdt@bookTicker", "btcusdt@aggTrade")
    wanted = {"": set(names[:2]), "/public": set(names[:2]), "/market": {names[2]}}
    for route, heard in wanted.items():
        async with open_client(usdm(venue, route)) as client:
            assert (await client.ask("SUBSCRIBE", *names))["result"] is None
            assert (await client.ask("LIST_SUBSCRIPTIONS"))["result"] == list(names)
            while {row["stream"] for row in client.frames if "stream" in row} != heard:
                await client.read()
            with trio.move_on_after(0.3):
                await client.read_to_end()
            assert {row["stream"] for row in client.frames if "stream" in row} == heard


# Control messages


async def test_what_is_unknown_is_acknowledged_and_never_heard_of(
    client: Client,
) -> None:
    names = ["nosuch@trade", "btcusdt@weather", "BTCUSDT@trade", "bccbtc@trade"]
    names += ["x", "@", ""]
    assert await client.ask("SUBSCRIBE", *names) == {"result": None, "id": 1}
    assert (await client.ask("LIST_SUBSCRIPTIONS"))["result"] == names
    with trio.move_on_after(0.2) as silence:
        await client.read()
    assert silence.cancelled_caught


async def test_subscriptions_are_listed_and_end(client: Client) -> None:
    names = ["btcusdt@trade", "ethusdt@trade"]
    assert await client.ask("SUBSCRIBE", *names) == {"result": None, "id": 1}
    assert (await client.ask("SUBSCRIBE", names[0], id=2))["result"] is None
    for name in names:
        await client.wait_stream(name)
    assert (await client.ask("UNSUBSCRIBE", names[0], "never@trade"))["result"] is None
    read = len(client.frames)
    for _ in range(10):
        await client.wait_stream(names[1])
    assert {row["stream"] for row in client.frames[read:]} == {names[1]}
    assert (await client.ask("LIST_SUBSCRIPTIONS", id=3)) == {
        "result": [names[1]],
        "id": 3,
    }


async def test_a_chinese_symbol_is_a_symbol(venue: Venue) -> None:
    name = "币安人生usdt@bookTicker"
    async with open_client(combined(venue)) as client:
        await client.ask("SUBSCRIBE", name)
        assert (await client.wait_stream(name))["s"] == "币安人生USDT"


async def test_events_are_wrapped_as_the_property_says(client: Client) -> None:
    await client.ask("SUBSCRIBE", "btcusdt@trade")
    assert (await client.ask("GET_PROPERTY", "combined"))["result"] is True
    assert (await client.ask("SET_PROPERTY", "combined", False))["result"] is None
    assert (await client.ask("GET_PROPERTY", "combined"))["result"] is False
    assert (await client.read())["e"] == "trade"


WRONG: dict[str, tuple[int, str]] = {
    '{"method":"SUBS': (3, "Invalid JSON: expected value at line 1 column 1"),
    "\x7f": (3, "Invalid JSON"),
    "[1]": (2, "expected an object"),
    '{"method":"SUBSCRIBE","params":["a@trade"]}': (2, "request ID must be"),
    '{"method":"SUBSCRIBE","id":1.5}': (2, "request ID must be an unsigned"),
    '{"id":1}': (2, "missing field `method` at line 1 column 8"),
    '{"method":"DANCE","id":1}': (2, "unknown variant `DANCE`, expected one of `SUBSC"),
    '{"method":"SUBSCRIBE","id":1}': (2, "params must be a list"),
    '{"method":"SUBSCRIBE","params":[7],"id":1}': (2, "params must be a list"),
    '{"method":"LIST_SUBSCRIPTIONS","params":["x"],"id":1}': (2, "too many parameters"),
    '{"method":"GET_PROPERTY","params":[1],"id":1}': (2, "name must be a string"),
    '{"method":"GET_PROPERTY","params":["colour"],"id":1}': (0, "Unknown property"),
    '{"method":"GET_PROPERTY","params":["combined",1],"id":1}': (2, "too many"),
    '{"method":"SET_PROPERTY","params":["combined","x"],"id":1}': (1, "Boolean"),
}


@pytest.mark.parametrize("message", WRONG)
async def test_a_wrong_message_is_answered_flat_on_spot_and_nested_on_usdm(
    venue: Venue, message: str
) -> None:
    code, text = WRONG[message]
    known = {"id": 1} if '"id":1' in message and "1.5" not in message else {}
    for url, nested in ((combined(venue), False), (usdm(venue, ""), True)):
        async with open_client(url) as client:
            await client.socket.send(message)
            answer = await client.read()
            error = answer.pop("error") if nested else answer
            assert error.pop("code") == code
            assert text in error.pop("msg")
            assert answer == known
            assert (await client.ask("LIST_SUBSCRIPTIONS"))["result"] == []


# Limits


async def test_one_stream_too_many_ends_the_connection() -> None:
    error = {"code": 4, "msg": "Too many subscriptions"}
    limits, other = Limits(streams=3), Limits(streams=3, messages=10)
    async with open_venue(history_s=60, limits=limits, usdm_limits=other) as venue:
        names = [f"x{number}@trade" for number in range(4)]
        for url, wanted in (
            (combined(venue), error),
            (usdm(venue, ""), {"error": error}),
        ):
            async with open_client(url) as client:
                await client.ask("SUBSCRIBE", *names[:3])
                await client.ask("SUBSCRIBE", *names[:3])
                message = {"method": "SUBSCRIBE", "params": names[3:], "id": 1}
                await client.socket.send(json.dumps(message))
                assert await client.read() == wanted
                with pytest.raises(ConnectionClosed):
                    await client.read()
                assert client.socket.close_code == 1008
                assert client.socket.close_reason == "Invalid request"
        async with open_client(combined(venue, *names)) as client:
            assert await client.read() == error


@pytest.mark.parametrize(("side", "most"), [("spot", 5), ("usdm", 10)])
async def test_one_message_too_many_in_a_second_ends_the_connection(
    venue: Venue, side: str, most: int
) -> None:
    url = combined(venue) if side == "spot" else usdm(venue, "")
    async with open_client(url) as client:
        for number in range(most + 1):
            message = {"method": "LIST_SUBSCRIPTIONS", "id": number}
            await client.socket.send(json.dumps(message))
        with pytest.raises(ConnectionClosed):
            await client.read_to_end()
        assert len(client.frames) == most
        assert client.socket.close_code == 1008
        assert client.socket.close_reason == "Too many requests"


async def test_pings_and_pongs_count_as_messages(venue: Venue) -> None:
    async with open_client(combined(venue)) as client:
        for number in range(3):
            await client.socket.ping()
            await client.socket.pong(str(number))
        with pytest.raises(ConnectionClosed):
            await client.read_to_end()
        assert client.socket.close_reason == "Too many requests"


async def test_pings_carry_the_time_and_answering_them_keeps_the_connection() -> None:
    limits = Limits(ping_s=0.2, pong_s=0.8)
    async with open_venue(history_s=60, limits=limits) as venue:
        async with open_client(combined(venue, QUIET)) as client:
            with trio.move_on_after(1.3) as quiet:
                await client.read_to_end()
            assert quiet.cancelled_caught
            assert client.socket.close_code is None


HANDSHAKE = (
    b"GET /stream HTTP/1.1\r\nHost: venue\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)


class DeafClient:
    """A client on a bare TCP stream, which answers pings when it likes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = b""
        self.payload = b""

    async def send(self, opcode: Opcode, payload: bytes) -> None:
        """Send a frame."""
        frame = Frame(opcode, payload)
        await self._stream.send_all(frame.serialize(mask=True))

    async def read_opcode(self) -> Opcode:
        """What the next frame is; it is a short one."""
        while len(self._received) < 2 or len(self._received) < 2 + self._received[1]:
            self._received += bytes(await self._stream.receive_some())
        first, size, *_ = self._received
        self.payload = self._received[2 : 2 + size]
        self._received = self._received[2 + size :]
        return Opcode(first & 15)


@asynccontextmanager
async def open_deaf(venue: Venue) -> AsyncIterator[DeafClient]:
    """A connection that has shaken hands."""
    host, port = venue.config["ws_url"].removeprefix("ws://").split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(HANDSHAKE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += bytes(await stream.receive_some(1))
        assert head.startswith(b"HTTP/1.1 101")
        yield DeafClient(stream)


@pytest.mark.parametrize("answer", [b"", b"anything"])
async def test_who_does_not_answer_a_ping_with_its_payload_is_ended(
    answer: bytes,
) -> None:
    limits = Limits(ping_s=0.2, pong_s=0.5)
    async with open_venue(history_s=60, limits=limits) as venue:
        seen: list[bytes] = []
        async with open_deaf(venue) as client:
            with trio.fail_after(10):
                while (await client.read_opcode()) is not Opcode.CLOSE:
                    seen.append(client.payload)
                    await client.send(Opcode.PONG, answer)
        payload = client.payload
        assert payload == (1008).to_bytes(2, "big") + b"Pong timeout"
        assert len(seen) >= 2
        assert all(len(stamp) == 13 and stamp.isdigit() for stamp in seen)


async def test_answering_the_newest_ping_is_enough() -> None:
    limits = Limits(ping_s=0.2, pong_s=1.0)
    async with open_venue(history_s=60, limits=limits) as venue:
        async with open_deaf(venue) as client:
            with trio.move_on_after(1.6) as enough:
                while True:
                    for _ in range(2):
                        assert await client.read_opcode() is Opcode.PING
                    await client.send(Opcode.PONG, client.payload)
        assert enough.cancelled_caught


async def test_a_connection_ends_at_the_end_of_its_life() -> None:
    async with open_venue(history_s=60, limits=Limits(life_s=0.4)) as venue:
        async with open_client(combined(venue)) as old:
            await trio.sleep(0.2)
            async with open_client(combined(venue)) as new:
                with pytest.raises(ConnectionClosed):
                    await old.read()
                assert old.socket.close_code == 1001
                assert new.socket.close_code is None


async def test_too_many_attempts_to_connect_are_turned_away() -> None:
    async with open_venue(history_s=60, limits=Limits(attempts=2)) as venue:
        for _ in range(2):
            async with open_client(combined(venue)):
                pass
        with pytest.raises(InvalidStatus) as caught:
            async with open_client(combined(venue)):
                pass
        assert caught.value.response.status_code == 429
        assert venue.statistics().connections_refused == 1
        async with open_client(usdm(venue, "")):
            pass


def test_the_limits_are_those_of_the_venue() -> None:
    spot = Limits()
    assert (spot.streams, spot.messages, spot.weight) == (1024, 5, 6000)
    assert (spot.attempts, spot.attempts_s) == (300, 300)
    assert (spot.ping_s, spot.pong_s, spot.life_s) == (20, 60, 86400)
    assert (USDM.streams, USDM.messages, USDM.weight) == (1024, 10, 2400)
    assert (USDM.ping_s, USDM.pong_s) == (180, 600)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 404), ("/wsx", 404), ("/ws-api/v2", 404), ("/stream/x", 404),
     ("/market/stream", 404), ("/ws?timeUnit=HOUR", 400)],
)  # fmt: skip
async def test_any_other_path_is_refused(venue: Venue, path: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with open_client(venue.config["ws_url"] + path):
            pass
    assert caught.value.response.status_code == status


async def test_the_configuration_names_every_endpoint(venue: Venue) -> None:
    config: dict[str, Any] = venue.config
    assert set(config) == {
        "ws_url", "rest_url", "ws_api_url", "usdm_ws_url", "usdm_rest_url",
    }  # fmt: skip
    assert all(url.count("/") == 2 and url.count(":") == 2 for url in config.values())
