"""A trio SendChannel into an engine: its send() is the push, without queue or hop."""

from collections.abc import Callable
from typing import Any

import trio

YIELD_EVERY = 64
YIELD_AFTER_S = 0.001


class EngineChannel(trio.abc.SendChannel[Any]):
    """Sends quotes (dicts or `Quote`) into the rings.

    `send` publishes before it returns. It yields to other tasks after every 64 quotes or
    every millisecond, so a checkpoint is not paid for each tick. Raises BadTick or
    PikerError for what the engine refuses, trio.ClosedResourceError when closed. A
    cancelled `send` has pushed its quote if it got as far as yielding.
    """

    def __init__(self, push: Callable[[Any], int]) -> None:
        self._push = push
        self._sent = 0
        self._yield_at = 0.0
        self._closed = False

    def send_nowait(self, value: Any) -> int:
        """Push one quote at once; how many ticks were taken."""
        if self._closed:
            raise trio.ClosedResourceError
        return self._push(value)

    async def send(self, value: Any) -> None:
        """Push one quote at once, then let other tasks run if it is their turn."""
        self.send_nowait(value)
        self._sent += 1
        if self._sent % YIELD_EVERY == 0 or trio.current_time() >= self._yield_at:
            await trio.lowlevel.checkpoint()
            self._yield_at = trio.current_time() + YIELD_AFTER_S

    def clone(self) -> "EngineChannel":
        """Another end of the same engine, closed by itself."""
        return EngineChannel(self._push)

    def close(self) -> None:
        """Close this end; the engine stays open."""
        self._closed = True

    async def aclose(self) -> None:
        """Close this end; the engine stays open."""
        self.close()
        await trio.lowlevel.checkpoint()
