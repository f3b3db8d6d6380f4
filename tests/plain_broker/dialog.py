"""The provider's end: a `TradeDialog` that connects anew whenever its line is cut."""

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

import trio

from piker_core.adapter.answers import OutcomeUnknown
from piker_core.broker import BrokerLink, BrokerOrder
from piker_core.errors import BrokerDown, ProviderError
from piker_core.orders import (
    BrokerdCancel,
    BrokerdFill,
    BrokerdMessage,
    BrokerdOrder,
    BrokerdPosition,
)
from tests.plain_broker.words import Answer, Ask, Do, decode_answer, encode

ANSWER_S = 0.05
QUERY_S = 5.0
PAUSE_S = 0.005


class _Waiting:
    """A request that is at the broker."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: Answer | None = None


class PlainDialog:
    """One account at the broker."""

    def __init__(self, account: str, port: int) -> None:
        self.account = account
        self.accounts: Sequence[str] = [account]
        self._port = port
        self._stream: trio.SocketStream | None = None
        self._waiting: dict[int, _Waiting] = {}
        self._ids = count(1)
        self._sending = trio.Lock()
        self._heard, self._messages = trio.open_memory_channel[
            BrokerdMessage | BrokerLink
        ](math.inf)

    async def run(self) -> None:
        """Keep a line to the broker until cancelled."""
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", self._port)
            except OSError:
                await trio.sleep(PAUSE_S)
                continue
            async with stream:
                self._stream = stream
                self._heard.send_nowait(BrokerLink(up=True))
                try:
                    await self._listen(stream)
                except (OSError, trio.BrokenResourceError):
                    pass
                finally:
                    self._lose()
            self._heard.send_nowait(BrokerLink(up=False, reason="the line was cut"))
            await trio.sleep(PAUSE_S)

    async def _listen(self, stream: trio.SocketStream) -> None:
        received = b""
        while chunk := await stream.receive_some(1 << 16):
            *lines, received = (received + chunk).split(b"\n")
            for raw in lines:
                answer = decode_answer(raw)
                if answer.report is not None:
                    self._heard.send_nowait(answer.report)
                elif (waiting := self._waiting.get(answer.id)) is not None:
                    waiting.answer = answer
                    waiting.done.set()

    def _lose(self) -> None:
        self._stream = None
        for waiting in self._waiting.values():
            waiting.done.set()

    async def _ask(
        self,
        do: Do,
        *,
        reqid: str = "",
        since_ns: int = 0,
        order: BrokerdOrder | None = None,
        cancel: BrokerdCancel | None = None,
    ) -> Answer:
        """Raises BrokerDown if nothing was sent, OutcomeUnknown without an answer."""
        if self._stream is None:
            raise BrokerDown("there is no line to the broker")
        number = next(self._ids)
        waiting = self._waiting[number] = _Waiting()
        ask = Ask(number, do, order, cancel, reqid, since_ns)
        try:
            async with self._sending:
                if self._stream is None:
                    raise BrokerDown("there is no line to the broker any more")
                await self._stream.send_all(encode(ask) + b"\n")
            is_request = order is not None or cancel is not None
            with trio.move_on_after(ANSWER_S if is_request else QUERY_S):
                await waiting.done.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise OutcomeUnknown(f"the line was cut: {error}") from None
        finally:
            del self._waiting[number]
        if waiting.answer is None:
            raise OutcomeUnknown(f"no answer to {do}")
        if waiting.answer.refused:
            raise ProviderError(waiting.answer.refused)
        return waiting.answer

    # What a gateway calls

    async def submit(self, order: BrokerdOrder) -> None:
        await self._ask("submit", order=order)

    async def cancel(self, cancel: BrokerdCancel) -> None:
        await self._ask("cancel", cancel=cancel)

    async def __aiter__(self) -> AsyncIterator[BrokerdMessage | BrokerLink]:
        async for message in self._messages:
            yield message

    async def order(self, reqid: str, symbol: str) -> BrokerOrder | None:
        return (await self._ask("order", reqid=reqid)).order

    async def orders(self) -> list[BrokerOrder]:
        return (await self._ask("orders")).orders

    async def fills(self, since_ns: int, symbol: str = "") -> list[BrokerdFill]:
        return (await self._ask("fills", since_ns=since_ns)).fills

    async def positions(self) -> list[BrokerdPosition]:
        return (await self._ask("positions")).positions

    async def cancel_all(self) -> None:
        await self._ask("cancel_all")

    def statistics(self) -> dict[str, int]:
        return {"waiting": len(self._waiting)}


@asynccontextmanager
async def run_dialog(account: str, port: int) -> AsyncIterator[PlainDialog]:
    """A dialog that keeps its line until it is left."""
    dialog = PlainDialog(account, port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialog.run)
        yield dialog
        nursery.cancel_scope.cancel()
