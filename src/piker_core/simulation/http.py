"""HTTP/1.1 with keep-alive over trio streams, as much as a REST venue speaks."""

import contextlib
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import h11
import trio

KEEP_ALIVE_S = 75.0
_CHUNK = 65536
_BODY_MAX = 1 << 16


class Call(NamedTuple):
    """A request; of repeated query parameters the last counts.

    `query_text` is the query as it was sent; names of headers are in lower case.
    """

    method: str
    path: str
    query: dict[str, str]
    query_text: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """An answer, whole; `headers` are those beyond the usual."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


async def serve_http(
    stream: trio.abc.Stream, answer: Callable[[Call], Awaitable[Reply]]
) -> None:
    """Serve the requests of one connection, one after another, until either side ends.

    Broken requests are answered with status 400; a connection without a request for
    `KEEP_ALIVE_S` is closed.
    """
    connection = h11.Connection(h11.SERVER)
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            try:
                while (call := await _next_call(connection, stream)) is not None:
                    reply = await answer(call)
                    await _send(connection, stream, reply, call.method == "HEAD")
                    if connection.our_state is not h11.DONE:
                        return
                    connection.start_next_cycle()
            except h11.RemoteProtocolError as error:
                if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    reply = Reply(str(error).encode(), HTTPStatus.BAD_REQUEST)
                    await _send(connection, stream, reply)


async def _next_call(
    connection: h11.Connection, stream: trio.abc.Stream
) -> Call | None:
    """The next request; None at the end, or where a body is too long."""
    request: h11.Request | None = None
    body = bytearray()
    with trio.move_on_after(KEEP_ALIVE_S):
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(_CHUNK)))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data) and len(body) <= _BODY_MAX:
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                return _read_call(request, bytes(body))
            else:
                return None
    return None


def _read_call(request: h11.Request, body: bytes) -> Call:
    try:
        target = urlsplit(request.target.decode("ascii"))
    except ValueError as error:
        raise h11.RemoteProtocolError(f"target: {error}") from None
    return Call(
        request.method.decode("ascii"),
        target.path,
        dict(parse_qsl(target.query, keep_blank_values=True)),
        target.query,
        {
            name.decode("ascii"): text.decode("latin-1")
            for name, text in request.headers
        },
        body,
    )


async def _send(
    connection: h11.Connection,
    stream: trio.abc.Stream,
    reply: Reply,
    head_only: bool = False,
) -> None:
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", reply.content_type),
        ("Content-Length", str(len(reply.body))),
        ("Server", "cloudflare"),
        *reply.headers,
    ]
    response = h11.Response(
        status_code=reply.status, reason=reply.status.phrase, headers=headers
    )
    parts = [
        connection.send(response),
        connection.send(h11.Data(data=b"" if head_only else reply.body)),
        connection.send(h11.EndOfMessage()),
    ]
    await stream.send_all(b"".join(part for part in parts if part))
