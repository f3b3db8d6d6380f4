"""Frames on their way out, as fast as TWS allows and no faster."""

from collections import deque

import trio


class Outbox:
    """A queue before a stream: `rate` frames within any second, a quarter at once."""

    def __init__(self, stream: trio.abc.SendStream, rate: int) -> None:
        self._stream = stream
        self._burst = max(rate // 4, 1)
        self._rate = max(rate - self._burst, 1)
        self._queue: deque[bytes] = deque()
        self._wake = trio.Event()
        self._spent_s = 0.0

    def add(self, frame: bytes) -> None:
        """Queue a frame."""
        self._queue.append(frame)
        self._wake.set()

    @property
    def wait_s(self) -> float:
        """How long a frame that is queued now may have to wait."""
        return len(self._queue) / self._rate

    async def run(self) -> None:
        """Send what is queued, for ever."""
        while True:
            await self.flush()
            self._wake = trio.Event()
            if not self._queue:
                await self._wake.wait()

    async def flush(self) -> None:
        """Send what is queued now."""
        while self._queue:
            now_s = trio.current_time()
            self._spent_s = max(self._spent_s, now_s - self._burst / self._rate)
            room = int((now_s - self._spent_s) * self._rate + 1e-6)
            if not room:
                await trio.sleep_until(self._spent_s + 1 / self._rate)
                continue
            most = min(room, len(self._queue))
            self._spent_s += most / self._rate
            batch = [self._queue.popleft() for _ in range(most)]
            await self._stream.send_all(b"".join(batch))
