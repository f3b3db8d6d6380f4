"""A trio SendChannel into an engine: its send() is the push, without queue or hop."""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import trio

from piker_core.errors import PikerError

if TYPE_CHECKING:
    from piker_core.core.engine import FeedEngine

YIELD_EVERY = 64
YIELD_AFTER_S = 0.001


class EngineChannel(trio.abc.SendChannel[Any]):
    """Sends quotes (dicts or `Quote`) into the rings of one engine.

    `send` publishes before it returns. It lets other tasks run after every 64 quotes or
    every millisecond, refused ones included, so a checkpoint is not paid for each tick.
    Raises BadTick or PikerError for what the engine refuses, OSError when shared memory
    is full, trio.ClosedResourceError when this end is closed, trio.BrokenResourceError
    when the engine is. Cancelled, it has pushed nothing. Any number of tasks may send,
    each on an end of its own or all on one.
    """

    def __init__(self, engine: "FeedEngine") -> None:
        self._engine = engine
        self._sent = 0
        self._yield_at = 0.0
        self._closed = False

    @property
    def namespace(self) -> str:
        """Where the engine's rings are."""
        return self._engine.namespace

    @property
    def tap(self) -> Any:
        """What writes down all that is done to the engine, None where nothing does."""
        return getattr(self._engine, "tap", None)

    def send_nowait(self, value: Any) -> int:
        """Push one quote at once; how many ticks were taken."""
        if self._closed:
            raise trio.ClosedResourceError("this end of the channel is closed")
        try:
            return self._engine.push(value)
        except PikerError as error:
            if self._engine.closed:
                raise trio.BrokenResourceError(str(error)) from error
            raise

    async def send(self, value: Any) -> None:
        """Push one quote at once, then let other tasks run if it is their turn."""
        self._sent += 1
        if self._sent % YIELD_EVERY and trio.current_time() < self._yield_at:
            self.send_nowait(value)
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self.send_nowait(value)
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._yield_at = trio.current_time() + YIELD_AFTER_S

    def clone(self) -> "EngineChannel":
        """Another end of the same engine, closed by itself."""
        if self._closed:
            raise trio.ClosedResourceError("this end of the channel is closed")
        return EngineChannel(self._engine)

    def close(self) -> None:
        """Close this end; the engine stays open. A second time it does nothing."""
        self._closed = True

    async def aclose(self) -> None:
        """Close this end; the engine stays open."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
