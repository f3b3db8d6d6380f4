"""One private connection of Kraken's: requests and their answers, subscriptions.

1. A request is sent by one task, whole, in the order of posting; whoever posted it may
   be cancelled meanwhile. What was not sent yet when the connection ends certainly was
   not done; of what was, without an answer, nobody knows.
2. `sequence` of a channel rises by one. A jump is a loss: the channel is subscribed to
   anew, and its snapshot tells what is.
3. Alive is what sends: half of `liveness_s` of silence asks for a sign of life, all of
   it is death.
4. The token is in every request: none is logged, by nobody.

Source: https://docs.kraken.com/api/docs/guides/spot-ws-auth
"""

import logging
import math
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import trio
from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
from websockets.trio.client import ClientConnection

from piker_core.adapter.websocket import connect
from piker_core.config import Secret
from piker_core.errors import ConfigError, ProviderError
from piker_core.tasks import Backoff, open_nursery

from .api import Config
from .order_requests import Note
from .private_wire import (
    Answer,
    BalancesFrame,
    ExecutionsFrame,
    PrivateFrame,
    decode_private,
    decode_results,
    encode_request,
)

log = logging.getLogger("providers.kraken.broker")

CHANNELS: dict[str, dict[str, Any]] = {
    "executions": {"snap_orders": True, "snap_trades": False, "ratecounter": True},
    "balances": {"snapshot": True},
}
INVALID_SESSION = "ESession:Invalid session"
_SNAPSHOT_S = 2.0
"""How long a snapshot is waited for after its subscription was acknowledged."""
_SILENT = logging.Logger("frames")
_SILENT.disabled = True


class Asked:
    """A request on its way, and the orders that it is about.

    `done` is set at its end: then there is an `answer`, or the connection is lost.
    """

    __slots__ = ("answer", "done", "method", "notes", "params", "sent", "withdrawn")

    def __init__(
        self, method: str, params: dict[str, Any] | None, notes: Sequence[Note]
    ) -> None:
        self.method, self.params, self.notes = method, params, notes
        self.done = trio.Event()
        self.answer: Answer | None = None
        self.sent = self.withdrawn = False


class LinkHost(Protocol):
    """Whose connection it is."""

    def take(self, frame: PrivateFrame, raw: bytes) -> None:
        """A frame of a channel. ProviderError and ValueError: not understood."""

    def answered(self, asked: Asked) -> None:
        """A request about orders was answered, perhaps after its caller left."""

    def subscribed(self, maxratecount: int | None) -> None:
        """All channels are told of, snapshots included; again after a loss."""

    def missed(self, reason: str) -> None:
        """Something was lost of a channel; `subscribed` follows."""

    def lost(self, reason: str) -> None:
        """The connection is gone; the next one begins anew."""

    def complain(self, kind: str, text: str, frame: object) -> None:
        """Count it, and log the first of its kind."""


class PrivateLink:
    """One connection, with the token it was opened with."""

    def __init__(self, host: LinkHost, config: Config, token: Secret) -> None:
        self.works = trio.Event()
        """Set when all is subscribed to."""
        self.ready = False
        """The same, and it has not ended."""
        self._host, self._config, self._token = host, config, token
        self._out, self._queue = trio.open_memory_channel[tuple[int, Asked]](math.inf)
        self._asked: dict[int, Asked] = {}
        self._number = 0
        self._sequences: dict[str, int] = {}
        self._snapshots: dict[str, trio.Event] = {}
        self._renewing: set[str] = set()
        self._backoffs = {channel: Backoff() for channel in CHANNELS}
        self._heard = trio.Event()
        self._scope = trio.CancelScope()
        self._reason = ""
        self._nursery: trio.Nursery

    # Requests

    def post(
        self, method: str, params: dict[str, Any] | None, notes: Sequence[Note] = ()
    ) -> Asked:
        """Have a request sent."""
        asked = Asked(method, params, notes)
        if self._reason:
            asked.done.set()
            return asked
        self._number += 1
        self._asked[self._number] = asked
        self._out.send_nowait((self._number, asked))
        return asked

    async def ask(self, method: str, params: dict[str, Any]) -> Answer:
        """Send a request that changes no order. ProviderError: no answer, a refusal."""
        asked = self.post(method, params)
        with trio.move_on_after(self._config.ack_timeout_s):
            await asked.done.wait()
        if asked.answer is None:
            raise ProviderError(f"Kraken did not answer {method}")
        if not asked.answer.success:
            raise ProviderError(f"Kraken refuses {method}: {asked.answer.error}")
        return asked.answer

    def notes(self) -> list[Sequence[Note]]:
        """Those of the requests that are not answered."""
        return [asked.notes for asked in self._asked.values()]

    def abandon(self, reason: str) -> None:
        """End the connection: it is dead, whatever its socket says."""
        self._reason = self._reason or reason
        self._scope.cancel()

    # The connection

    async def run(self) -> str:
        """Serve until the connection is lost; returns why it was."""
        try:
            with self._scope:
                self._reason = await self._connect()
        finally:
            self.ready = False
            self._reason = self._reason or "closed"
            for asked in self._asked.values():
                asked.done.set()
            self._asked.clear()
            self._out.close()
            self._queue.close()
        return self._reason

    async def _connect(self) -> str:
        limits = self._config
        try:
            async with (
                connect(
                    limits.ws_auth_url,
                    proxy=None,
                    compression=None,
                    logger=_SILENT,
                    max_size=limits.ws_frame_bytes,
                    max_queue=None,
                    open_timeout=limits.ack_timeout_s,
                    close_timeout=1.0,
                ) as connection,
                open_nursery() as self._nursery,
            ):
                self._nursery.start_soon(self._write, connection)
                self._nursery.start_soon(self._watch)
                self._nursery.start_soon(self._begin)
                await self._read(connection)
        except InvalidURI as error:
            raise ConfigError(f"[kraken] ws_auth_url: {error}") from None
        except (OSError, WebSocketException, trio.BrokenResourceError) as error:
            return _cause(error)
        raise AssertionError("a connection is read for ever")

    async def _write(self, connection: ClientConnection) -> None:
        async for number, asked in self._queue:
            if asked.withdrawn:
                del self._asked[number]
                continue
            if asked.params is None:
                message = msgspec.json.encode(
                    {"method": asked.method, "req_id": number}
                )
            else:
                message = encode_request(
                    asked.method, asked.params, number, self._token
                )
            asked.sent = True
            try:
                await connection.send(message, text=True)
            except (ConnectionClosed, OSError, trio.BrokenResourceError):
                return  # the reader is told, too

    async def _watch(self) -> None:
        """Ask for a sign of life when it is quiet; give up when it stays so."""
        half_s, asked = self._config.liveness_s / 2, False
        while True:
            heard = False
            with trio.move_on_after(half_s):
                await self._heard.wait()
                heard = True
            self._heard = trio.Event() if heard else self._heard
            if heard:
                asked = False
                await trio.sleep(half_s / 8)  # not once a frame
            elif asked:
                self.abandon(f"no frame for {self._config.liveness_s:g} s")
            else:
                asked = True
                self.post("ping", None)

    async def _read(self, connection: ClientConnection) -> None:
        while True:
            raw = await connection.recv(decode=False)
            self._heard.set()
            try:
                self._take(raw)
            except (ProviderError, ValueError) as error:
                text = f"a private frame was not understood: {error}"
                self._host.complain("malformed", text, raw)
            except Exception as error:
                log.exception("a private frame could not be handled")
                text = f"a private frame was not handled: {error!r}"
                self._host.complain("failed", text, raw)

    # Frames

    def _take(self, raw: bytes) -> None:
        frame = decode_private(raw)
        if isinstance(frame, Answer):
            self._answer(frame, raw)
            return
        try:
            self._host.take(frame, raw)
        finally:
            if isinstance(frame, ExecutionsFrame | BalancesFrame):
                self._follow(frame)

    def _answer(self, answer: Answer, raw: bytes) -> None:
        asked = self._asked.pop(answer.req_id or 0, None)
        if asked is None:
            text = "an answer to nothing that was asked"
            self._host.complain("unknown", text, raw)
            return
        asked.answer = answer
        try:
            if asked.notes:
                self._host.answered(asked)
        finally:
            asked.done.set()
        if INVALID_SESSION in answer.error:
            self.abandon("the session's token is refused")

    def _follow(self, frame: ExecutionsFrame | BalancesFrame) -> None:
        """Look whether something was lost of a channel.

        While it is subscribed to anew, what comes before the snapshot says nothing.
        """
        channel, sequence = frame.channel, frame.sequence
        snapshot, renewing = frame.type == "snapshot", channel in self._renewing
        if snapshot:
            self._snapshots.setdefault(channel, trio.Event()).set()
        last = self._sequences.get(channel)
        if sequence is None or (last is None and renewing and not snapshot):
            return
        if snapshot or last is None or sequence == last + 1:
            self._sequences[channel] = sequence
        elif sequence > last + 1 and not renewing:
            self._renewing.add(channel)
            self._host.missed(f"{sequence - last - 1} messages of {channel} are lost")
            self._nursery.start_soon(self._renew, channel)

    # Subscriptions

    async def _begin(self) -> None:
        limit: int | None = None
        try:
            for channel in CHANNELS:
                limit = await self._subscribe(channel) or limit
        except ProviderError as error:
            self.abandon(str(error))
            return
        self.ready = True
        self.works.set()
        self._host.subscribed(limit)

    async def _renew(self, channel: str) -> None:
        """Subscribe to a channel anew: at once, then with more and more patience."""
        await trio.sleep(self._backoffs[channel].next_s())
        try:
            await self.ask("unsubscribe", {"channel": channel})
            limit = await self._subscribe(channel)
        except ProviderError as error:
            self.abandon(str(error))
            return
        self._renewing.discard(channel)
        if not self._renewing:
            self._host.subscribed(limit)

    async def _subscribe(self, channel: str) -> int | None:
        """Subscribe, and wait for the snapshot; what the venue says of its limit."""
        self._snapshots[channel] = trio.Event()
        self._sequences.pop(channel, None)
        answer = await self.ask("subscribe", {"channel": channel, **CHANNELS[channel]})
        with trio.move_on_after(_SNAPSHOT_S):
            await self._snapshots[channel].wait()
        results = decode_results(answer)
        return results[0].maxratecount if results else None


def _cause(error: Exception) -> str:
    """Why a connection was lost, in a few words."""
    if isinstance(error, ConnectionClosed):
        return f"connection closed ({error.rcvd.code if error.rcvd else 1006})"
    if isinstance(error, TimeoutError):
        return "connection timed out"
    if isinstance(error, OSError):
        return f"no connection ({error.strerror or type(error).__name__})"
    return f"no connection ({type(error).__name__})"
