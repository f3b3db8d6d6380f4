"""One connection to TWS under trio: greeting, requests with deadlines, subscriptions.

ib_async writes the requests and reads the messages (`codec`), but its asyncio
connection is never made: bytes go over a trio stream. Tried on trio 0.35 and Python
3.11 to 3.13 against one loopback server, 20,000 ticks:

* trio-asyncio 0.16 changes the event loop policy of the whole process when imported,
  after which plain asyncio fails in any thread that runs trio, and leans on child
  watchers, which are deprecated since 3.12 and gone in 3.14. A round trip took 114-135
  us, a tick 9-11 us of CPU.
* A thread with its own loop costs two hops a message (13-15 us of CPU a tick, round
  trips 117-167 us), gives cancellation and errors only by message, and has to be
  stopped and joined by whoever was cancelled.
* Bytes over a trio stream: 8-9 us of CPU a tick, 85-105 us a round trip; cancelling a
  scope ends everything, errors are those of the task, there is no thread. The times
  that the exchange gives, which ib_async drops above this floor, are kept.

Rules this file owns:

1. Every request has a deadline; `timeouts_most` missed ones in a row end the
   connection. What is no longer waited for is cancelled at TWS.
2. Silence of `ping_s` is answered with a question for the time; a connection that says
   nothing for `liveness_s` more is dead, whatever its socket says.
3. At most `message_rate` frames leave within any second, a quarter of them at once.
4. A message that cannot be read is counted, logged once of its kind, and left.
"""

import errno
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from piker_core.errors import ConfigError, ProviderError
from piker_core.tasks import open_nursery

from . import codes, order_codes
from .answer import Answer, Ends
from .config import Config
from .dial import dial
from .library import load_codec
from .links import Event, Links
from .outbox import Outbox

if TYPE_CHECKING:
    from .codec import Frames, Reader

CHUNK = 1 << 16
_FIRST_ID = 1 << 30
"""Far above the numbers of orders, which errors name in the same field."""
_UNNUMBERED = frozenset(("nextValidId", "managedAccounts", "currentTime"))
_ORDERS = frozenset(
    (
        *("openOrder", "orderStatus", "execDetails", "commissionReport"),
        *("completedOrder", "position"),
    )
)
"""Messages about orders and positions, whoever asked for them or did not."""

log = logging.getLogger("providers.ib")
Handler = Callable[[str, tuple[Any, ...]], None]


class Session:
    """A connection that was greeted; made by `open_session`.

    `handlers` takes the messages of a request by its number, `notices` what concerns
    all, as (event of `links`, code, text); both are called while messages are read and
    must not fail. `brakes` are awaited between chunks: so a reader that is too fast
    waits. `requests` has ib_async's request methods, `fields` the message that is read.
    `orders` are told messages about orders and positions, and the errors on orders;
    `orders_turn` is held by who asks for a list of them, which has no number.
    """

    requests: Any

    def __init__(
        self,
        config: Config,
        client_id: int,
        stream: trio.abc.Stream,
        counts: Counter[str],
    ) -> None:
        self.config = config
        self.client_id = client_id
        self.handlers: dict[Hashable, Handler] = {}
        self.links = Links()
        self.notices: list[Callable[[Event, int, str], None]] = []
        self.orders: list[Handler] = []
        self.orders_turn = trio.Lock()
        self.silent = False
        self.brakes: list[Callable[[], Awaitable[None]]] = []
        self.counts = counts
        self.lost = trio.Event()
        self.reason = ""
        self.next_port: int | None = None
        self.accounts: list[str] = []
        self.order_id = 0
        self.heard_s = trio.current_time()
        self.version = 0
        self.fields: list[str] = []
        self._codec = load_codec()
        self._stream = stream
        self._frames: Frames = self._codec.Frames()
        self._reader: Reader
        self._outbox = Outbox(stream, config.message_rate)
        self._answers: set[Answer] = set()
        self._timeouts = 0
        self._id = _FIRST_ID
        self._scope = trio.CancelScope()
        self._greeted = trio.Event()

    @property
    def address(self) -> str:
        """Where TWS is, for people."""
        return self.config.address

    def next_id(self) -> int:
        """A number for a request."""
        self._id += 1
        return self._id

    def next_order_id(self) -> int:
        """A number for a new order: higher than any that this client id had."""
        self.order_id += 1
        return self.order_id - 1

    def pass_order_id(self, number: int) -> None:
        """An order has this number: those to come have higher ones."""
        self.order_id = max(self.order_id, number + 1)

    def silence_s(self) -> float:
        """How long nothing was heard."""
        return trio.current_time() - self.heard_s

    def abandon(self, reason: str) -> None:
        """End the connection: it is of no use, whatever its socket says."""
        self.reason = self.reason or reason
        self._scope.cancel()

    # Requests

    async def ask(
        self,
        send: Callable[[Any, int], None],
        ends: Ends,
        *,
        what: str,
        timeout_s: float,
        cancel: Callable[[Any, int], None] | None = None,
        key: Hashable = None,
    ) -> list[tuple[Any, ...]]:
        """Send a request and collect its messages until one `ends` it.

        `send` is given the number of the request, by which answers are told apart,
        unless `key` says otherwise. Raises what `codes.request_error` makes of a
        refusal, ProviderError when TWS is silent for `timeout_s` or the connection is
        lost. Given up in any way, it is cancelled at TWS.
        """
        number = self.next_id()
        key = number if key is None else key
        answer = Answer(what, ends)
        if self.lost.is_set():
            raise self._lost_error(what)
        self.handlers[key] = answer.take
        self._answers.add(answer)
        try:
            send(self.requests, number)
            with trio.move_on_after(timeout_s + self._outbox.wait_s) as limit:
                await answer.done.wait()
            if limit.cancelled_caught and not answer.done.is_set():
                raise self._timed_out(what, timeout_s)
        finally:
            self.handlers.pop(key, None)
            self._answers.discard(answer)
            if cancel is not None and not answer.done.is_set():
                self.send(partial(cancel, self.requests, number))
        self._timeouts = 0
        if answer.error is not None:
            raise answer.error
        return answer.rows

    def send(self, request: Callable[[], None]) -> None:
        """Send what asks for no answer; nothing if the connection is lost."""
        if not self.lost.is_set():
            request()

    def miss(self, what: str) -> None:
        """Something was not answered in time; too often in a row is the end."""
        self.counts["timeouts"] += 1
        self._timeouts += 1
        log.debug("TWS does not answer: %s", what)
        if self._timeouts >= self.config.timeouts_most:
            self.abandon(f"{self._timeouts} requests in a row were not answered")

    def _timed_out(self, what: str, timeout_s: float) -> ProviderError:
        self.miss(what)
        return ProviderError(
            f"TWS at {self.address} did not answer within {timeout_s:g} s: {what}"
        )

    def _lost_error(self, what: str) -> ProviderError:
        return ProviderError(
            f"the connection to TWS at {self.address} was lost ({self.reason}): {what}"
        )

    # The connection

    async def greet(self) -> None:
        """Shake hands and introduce ourselves; raises PikerError for who does not."""
        try:
            with trio.fail_after(self.config.connect_timeout_s):
                await self._stream.send_all(self._codec.hello())
                while not self._greeted.is_set():
                    if not await self._receive():
                        raise codes.closed_error(self.address)
                    await self._outbox.flush()
        except trio.TooSlowError:
            raise codes.silent_error(self.address) from None
        except self._codec.BrokenFraming:
            raise codes.silent_error(self.address) from None
        except (OSError, trio.BrokenResourceError):
            raise codes.closed_error(self.address) from None
        account = self.config.account
        if account and account not in self.accounts:
            raise ConfigError(
                f"account {account!r} of [ib] is none of this login's: "
                + ", ".join(self.accounts)
            )

    async def run(self) -> None:
        """Read and write until the connection is lost; then `reason` says why."""
        try:
            with self._scope:
                async with open_nursery() as nursery:
                    nursery.start_soon(self._outbox.run)
                    nursery.start_soon(self._watch)
                    await self._read()
                    nursery.cancel_scope.cancel()
        except (OSError, trio.BrokenResourceError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            number = getattr(cause, "errno", None)
            name = errno.errorcode.get(number or 0, type(error).__name__)
            self.reason = self.reason or f"connection lost ({name})"
        finally:
            self.end()

    def end(self) -> None:
        """Nothing will come in any more: whoever waits is told."""
        self.reason = self.reason or "disconnected"
        self.lost.set()
        for answer in list(self._answers):
            answer.fail(self._lost_error("nothing more will be heard"))

    async def _read(self) -> None:
        try:
            while await self._receive():
                for brake in list(self.brakes):
                    await brake()
            self.reason = self.reason or "connection closed"
        except self._codec.BrokenFraming as error:
            self.reason = f"broken framing ({error})"

    async def _receive(self) -> bool:
        """Take one chunk; False at the end of the stream."""
        chunk = await self._stream.receive_some(CHUNK)
        self.heard_s = trio.current_time()
        for fields in self._frames.feed(chunk):
            if self.version:
                self._interpret(fields)
            else:
                self._agree(fields)
        return bool(chunk)

    def _agree(self, fields: list[str]) -> None:
        """The greeting of TWS: its version, and its time."""
        if len(fields) != 2 or not fields[0].isdigit():
            raise self._codec.BrokenFraming("no greeting")
        self.version = int(fields[0])
        if self.version < self._codec.OLDEST:
            raise ProviderError(
                f"TWS at {self.address} is too old (server version {self.version}, "
                f"{self._codec.OLDEST} is needed): update it"
            )
        self.requests = self._codec.Requests(self._outbox.add, self.version)
        inbox = self._codec.Inbox(self._take, fields[1])
        self._reader = self._codec.Reader(inbox, self.version)
        self.requests.start(self.client_id)

    def _interpret(self, fields: list[str]) -> None:
        self.counts["messages"] += 1
        self.fields = fields
        try:
            self._reader.interpret(fields)
        except self._codec.Malformed as error:
            self.complain("malformed", f"a message was not understood: {error}", fields)
        except self._codec.Unknown:
            self.complain("unknown", "a message of an unknown number", fields)

    def complain(self, kind: str, text: str, frame: Any) -> None:
        """Count it, and log the first of its kind."""
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            log.warning("%s; more are counted only: %.300r", text, frame)

    def _take(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "error":
            self._take_error(*arguments[:3])
            return
        if name in _ORDERS:
            self._tell_orders(name, arguments)
            return
        key: Hashable = arguments[0] if arguments else name
        if name in _UNNUMBERED:
            self._take_unnumbered(name, arguments[0])
            return
        if name == "marketRule":
            key = (name, key)
        handler = self.handlers.get(key)
        if handler is None:
            self.counts["unmatched"] += 1
        else:
            handler(name, arguments[1:])

    def _take_unnumbered(self, name: str, value: Any) -> None:
        if name == "managedAccounts":
            self.accounts = [account for account in value.split(",") if account]
        elif name == "nextValidId":
            self.order_id = max(self.order_id, value)
        if self.accounts and self.order_id:
            self._greeted.set()

    def _tell_orders(self, name: str, arguments: tuple[Any, ...]) -> None:
        if not self.orders:
            self.counts["unmatched"] += 1
        for listener in list(self.orders):
            listener(name, arguments)

    def _take_error(self, number: int, code: int, text: str) -> None:
        if code == codes.CLIENT_ID_IN_USE and not self._greeted.is_set():
            raise codes.client_id_error(self.client_id, self.address)
        handler = self.handlers.get(number)
        if handler is not None:
            handler("error", (code, text))
        elif number == codes.SYSTEM:
            self._refuse_lists(code, text)
            self._take_notice(code, text)
        elif self.orders and number and number < _FIRST_ID:
            self._tell_orders("error", (number, code, text))
        elif not codes.is_echo(code, text):
            self.complain(f"error {code}", f"error {code} on no request of ours", text)

    def _refuse_lists(self, code: int, text: str) -> None:
        """A list of orders has no number, so its refusal has none either."""
        if code == order_codes.INVALID:
            for key in [key for key in self.handlers if key in order_codes.LIST_ENDS]:
                self.handlers[key]("error", (code, text))

    def _take_notice(self, code: int, text: str) -> None:
        if code == codes.PORT_CHANGED:
            digits = "".join(filter(str.isdigit, text.rpartition("-")[2]))
            self.next_port = int(digits) if digits else None
            self.abandon("TWS listens on another port")
        event = self.links.take(code, text)
        for notice in list(self.notices):
            notice(event, code, text)

    async def _watch(self) -> None:
        """Ask for the time when nothing is heard; give up when nothing comes then."""
        config = self.config
        asked_s: float | None = None
        while True:
            await trio.sleep(min(config.ping_s, config.liveness_s) / 4)
            silence_s = self.silence_s()
            if silence_s <= config.ping_s:
                asked_s = None
            elif asked_s is None:  # it may be us who slept
                asked_s = trio.current_time()
                self.requests.reqCurrentTime()
            elif trio.current_time() - asked_s > config.liveness_s:
                self.counts["stale"] += 1
                self.silent = True
                self.abandon(f"nothing heard for {silence_s:.0f} s")


@asynccontextmanager
async def open_session(
    config: Config, client_id: int, counts: Counter[str]
) -> AsyncIterator[Session]:
    """Connect and greet; the session ends with the block, and counts in `counts`.

    Raises ProviderError if nobody listens, or who listens does not greet; ConfigError
    for a `client_id` that is in use and an account that is not ours.
    """
    stream = await dial(config)
    async with stream:
        session = Session(config, client_id, stream, counts)
        await session.greet()
        async with open_nursery() as nursery:
            nursery.start_soon(session.run)
            try:
                yield session
            finally:
                session.abandon("closed by us")
