"""Frugal streams: small reads while little comes, whole and in order whatever comes."""

import shutil
import ssl
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import memory_stream_pair
from websockets.trio.server import ServerConnection, serve

from piker_core.adapter.frugal import LEAST, MOST, FrugalSocket, FrugalStream
from piker_core.adapter.websocket import connect

TEXTS = [bytes([letter]) * size for letter, size in enumerate((3, 900, 70_000, 20, 5))]


class Told(trio.abc.Stream):
    """Gives what it is asked for of what has come; notes what it was asked for."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.left = list(chunks)
        self.asked: list[int | None] = []

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        self.asked.append(max_bytes)
        chunk, self.left[0] = self.left[0][:max_bytes], self.left[0][max_bytes:]
        if not self.left[0]:
            del self.left[0]
        return chunk

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


async def test_reads_are_small_until_one_comes_back_full() -> None:
    told = Told([b"a" * 200, b"b" * (LEAST + 1), b"c" * 300, b"d"])
    stream = FrugalStream(told)
    sizes = [len(await stream.receive_some()) for _ in range(5)]
    assert sizes == [200, LEAST, 1, 300, 1]
    assert told.asked == [LEAST, LEAST, MOST, LEAST, LEAST]


async def test_no_more_is_read_than_the_caller_asks_for() -> None:
    told = Told([b"a" * 3 * MOST])
    stream = FrugalStream(told)
    assert [len(await stream.receive_some(each)) for each in (10, MOST, 7)] == [
        10,
        MOST,
        7,
    ]


async def test_one_direction_of_a_socket_can_be_ended_alone() -> None:
    near, far = memory_stream_pair()
    async with FrugalSocket(near) as stream, far:
        await stream.wait_send_all_might_not_block()
        await stream.send_all(b"last words")
        await stream.send_eof()
        assert await far.receive_some() == b"last words"
        assert await far.receive_some() == b""
        await far.send_all(b"understood")
        assert await stream.receive_some() == b"understood"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and its certificate for localhost, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    path, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    options = "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    command = [openssl, *options.split(), *names.split()]
    command += ["-keyout", str(key), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


async def tell(socket: ServerConnection) -> None:
    """Send all texts and end."""
    for text in TEXTS:
        await socket.send(text)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_messages_of_all_sizes_come_whole(
    secure: bool, request: pytest.FixtureRequest
) -> None:
    theirs = ours = None
    if secure:
        path = request.getfixturevalue("certificate")
        theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        theirs.load_cert_chain(path)
        ours = ssl.create_default_context(cafile=path)
    async with trio.open_nursery() as nursery:
        start = partial(serve, tell, 0, host="localhost", ssl=theirs)
        server = await nursery.start(start)
        port = server.listeners[0].socket.getsockname()[1]
        url = f"{'wss' if secure else 'ws'}://localhost:{port}"
        async with connect(url, ssl=ours, proxy=None, compression=None) as connection:
            assert isinstance(connection.stream, FrugalStream)
            assert [message async for message in connection] == TEXTS
        nursery.cancel_scope.cancel()
