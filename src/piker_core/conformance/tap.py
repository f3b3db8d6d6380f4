"""What a provider says and sends, seen on its way into the engine."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import msgspec
import trio

from piker_core.errors import PikerError

MOST_NOTES = 20
_TICK_KEYS = ("type", "price", "size")


class Tap:
    """Listens to one provider's `stream_quotes`; what is wrong is in `wrong`.

    `started_s` and `live_s` are seconds from the call until the first quotes and the
    live event, -1 before; `first` and `inits` are what it started with.
    """

    def __init__(self) -> None:
        self.sessions = 0
        self.forget()

    def forget(self) -> None:
        """Begin anew, for another session."""
        self.quotes = 0
        self.refused = 0
        self.ticks: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.started_s = self.live_s = -1.0
        self.first: dict[str, Any] = {}
        self.inits: list[dict[str, Any]] = []

    def listen(self, provider: ModuleType) -> None:
        """Listen to a provider from now on."""
        stream: Callable[..., Any] = provider.stream_quotes

        async def stream_quotes(
            send_chan: Any,
            symbols: Sequence[str],
            shm: Mapping[str, Any],
            feed_is_live: trio.Event,
            *more: Any,
            task_status: Any = trio.TASK_STATUS_IGNORED,
            **named: Any,
        ) -> None:
            self.forget()
            self.sessions += 1
            begun_s = time.monotonic()
            await stream(
                TappedChannel(self, send_chan),
                symbols,
                shm,
                TappedEvent(self, feed_is_live, begun_s),
                *more,
                task_status=TappedStatus(self, task_status, begun_s),
                **named,
            )

        provider.stream_quotes = stream_quotes  # type: ignore[attr-defined]

    def note(self, text: str) -> None:
        """Something is wrong; each is noted once."""
        if text not in self.wrong and len(self.wrong) < MOST_NOTES:
            self.wrong.append(text)

    def see(self, quote: Any) -> None:
        """A quote is sent."""
        self.quotes += 1
        if not _field(quote, "symbol"):
            self.note("a quote has no symbol")
            return
        ticks = _field(quote, "ticks")
        if not isinstance(ticks, (list, tuple)):
            self.note("the ticks of a quote are no list")
            return
        for tick in ticks:
            lacks = [key for key in _TICK_KEYS if _field(tick, key) is None]
            if _field(tick, "time_ns") is None and _field(tick, "time") is None:
                lacks.append("time_ns")
            if lacks:
                self.note(f"a tick lacks {', '.join(lacks)}: {tick!r:.120}")
            else:
                self.ticks[f"{_field(quote, 'symbol')}/{_field(tick, 'type')}"] += 1

    def start(self, value: Any, begun_s: float) -> None:
        """The provider has first quotes."""
        self.started_s = time.monotonic() - begun_s
        try:
            inits, quotes = value
            self.first = {str(key): dict(quote) for key, quote in quotes.items()}
            self.inits = [
                {"symbol": init.symbol, "mkt": type(init.mkt).__name__}
                for init in inits
            ]
        except (TypeError, ValueError, AttributeError) as error:
            text = (
                f"task_status.started() was not given (list[FeedInit], dict): {error}"
            )
            self.note(text)

    def report(self) -> dict[str, Any]:
        """All of it, for another process."""
        report = {
            key: value for key, value in vars(self).items() if not key.startswith("_")
        }
        plain: dict[str, Any] = msgspec.json.decode(
            msgspec.json.encode(report, enc_hook=repr)
        )
        return plain


def _field(thing: Any, name: str) -> Any:
    if isinstance(thing, Mapping):
        return thing.get(name)
    return getattr(thing, name, None)


class TappedChannel(trio.abc.SendChannel[Any]):
    """A channel that is listened to."""

    def __init__(self, tap: Tap, channel: Any) -> None:
        self._tap, self._channel = tap, channel

    def send_nowait(self, value: Any) -> Any:
        """See `EngineChannel`."""
        self._tap.see(value)
        try:
            return self._channel.send_nowait(value)
        except PikerError:
            self._tap.refused += 1
            raise

    async def send(self, value: Any) -> None:
        """See `EngineChannel`."""
        self._tap.see(value)
        try:
            await self._channel.send(value)
        except PikerError:
            self._tap.refused += 1
            raise

    def clone(self) -> "TappedChannel":
        """See `EngineChannel`."""
        return TappedChannel(self._tap, self._channel.clone())

    def close(self) -> None:
        """See `EngineChannel`."""
        self._channel.close()

    async def aclose(self) -> None:
        """See `EngineChannel`."""
        await self._channel.aclose()

    def __enter__(self) -> "TappedChannel":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class TappedEvent:
    """A `trio.Event` that is listened to."""

    def __init__(self, tap: Tap, event: trio.Event, begun_s: float) -> None:
        self._tap, self._event, self._begun_s = tap, event, begun_s

    def set(self) -> None:
        """See `trio.Event`."""
        if self._tap.live_s < 0:
            self._tap.live_s = time.monotonic() - self._begun_s
        self._event.set()

    def is_set(self) -> bool:
        """See `trio.Event`."""
        return self._event.is_set()

    async def wait(self) -> None:
        """See `trio.Event`."""
        await self._event.wait()


class TappedStatus:
    """A `trio.TaskStatus` that is listened to."""

    def __init__(self, tap: Tap, status: Any, begun_s: float) -> None:
        self._tap, self._status, self._begun_s = tap, status, begun_s

    def started(self, value: Any = None) -> None:
        """See `trio.TaskStatus`."""
        self._tap.start(value, self._begun_s)
        self._status.started(value)
