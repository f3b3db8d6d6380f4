"""The provider under check, in this process of its own: `python -m` this module.

It is told what to do in JSON lines on standard input, and answers on standard output:
`{"id": 1, "do": "open", ...}`, then `{"id": 1, "result": ...}` or `"error"`. Several
requests may be under way. It ends with its input.
"""

import gc
import os
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import msgspec
import trio

import piker_core.feed
from piker_core.conformance.resources import Resources, look
from piker_core.conformance.tap import Tap
from piker_core.conformance.trading import Trading
from piker_core.errors import DataThrottle, PikerError
from piker_core.feed import Feed, open_feed
from piker_core.provider import find_provider
from piker_core.tasks import single_error

LAG_EVERY_S = 0.05
ROW_FIELDS = (
    *("time", "open", "high", "low", "close"),
    *("volume", "count", "bar_wap", "flags"),
)
_CHUNK = 65536


class Subject:
    """A provider, at most one feed of it, and what is seen of them."""

    def __init__(self, spec: str) -> None:
        self.provider = find_provider(spec)
        self.name = str(getattr(self.provider, "name", spec))
        self.tap = Tap()
        self.trading = Trading(self.provider)
        self.lag_s = 0.0
        self._unclosed: list[str] = []
        self._feed: Feed | None = None
        self._scope = trio.CancelScope()
        self._over = trio.Event()
        self._trouble = ""
        self._nursery: trio.Nursery
        self._output: trio.abc.SendStream
        self._turn = trio.Lock()
        if hasattr(self.provider, "stream_quotes"):
            self.tap.listen(self.provider)
        provider = self.provider
        setattr(piker_core.feed, "find_provider", lambda _: provider)  # noqa: B010
        warnings.simplefilter("always", ResourceWarning)
        setattr(warnings, "showwarning", self._show_warning)  # noqa: B010

    def _show_warning(self, message: Any, category: Any, *where: Any) -> None:
        if category is ResourceWarning:
            self._unclosed.append(str(message))

    async def serve(self, source: trio.abc.ReceiveStream, output: Any) -> None:
        """Do what is asked until the input ends."""
        self._output = output
        async with trio.open_nursery() as self._nursery:
            self.trading.nursery = self._nursery
            self._nursery.start_soon(self._watch_lag)
            rest = b""
            async for chunk in source:
                *lines, rest = (rest + bytes(chunk)).split(b"\n")
                for line in lines:
                    self._nursery.start_soon(self._answer, msgspec.json.decode(line))
            self._nursery.cancel_scope.cancel()

    async def _watch_lag(self) -> None:
        while True:
            due_s = trio.current_time() + LAG_EVERY_S
            await trio.sleep_until(due_s)
            self.lag_s = max(self.lag_s, trio.current_time() - due_s)

    async def _answer(self, asked: dict[str, Any]) -> None:
        number, do = asked.pop("id"), asked.pop("do")
        try:
            reply = {"result": await self._method(do)(**asked)}
        except Exception as error:  # noqa: BLE001 - told to who asked
            reply = {"error": _describe(error)}
        line = msgspec.json.encode({"id": number} | reply, enc_hook=repr)
        async with self._turn:
            await self._output.send_all(line + b"\n")

    def _method(self, do: str) -> Callable[..., Awaitable[Any]]:
        """What does it: of the feed here, of orders in `trading`."""
        name = f"do_{do}"
        method: Callable[..., Awaitable[Any]] = getattr(
            self if hasattr(self, name) else self.trading, name
        )
        return method

    # What can be asked

    async def do_open(self, symbols: list[str]) -> dict[str, Any]:
        """Open a feed, as a user does."""
        begun_s = time.monotonic()
        self._scope, self._over = trio.CancelScope(), trio.Event()
        self._trouble = ""
        fqmes = [f"{symbol}.{self.name}" for symbol in symbols]
        await self._nursery.start(self._run_feed, fqmes)
        return {"seconds": time.monotonic() - begun_s}

    async def _run_feed(self, fqmes: list[str], task_status: Any) -> None:
        started = False
        try:
            with self._scope:
                async with open_feed(fqmes) as self._feed:
                    started = True
                    task_status.started(self._feed)
                    await trio.sleep_forever()
        except Exception as error:
            if not started:
                raise
            self._trouble = repr(single_error_of(error))
        finally:
            self._feed = None
            self._over.set()

    async def do_close(self) -> dict[str, Any]:
        """Cancel the feed, as the end of a program does; how long it took."""
        begun_s = time.monotonic()
        self._scope.cancel()
        await self._over.wait()
        return {"seconds": time.monotonic() - begun_s, "trouble": self._trouble}

    async def do_statistics(self) -> dict[str, Any]:
        """Counters of the feed."""
        return {} if self._feed is None else self._feed.statistics()

    async def do_tap(self) -> dict[str, Any]:
        """What was seen of the stream."""
        return self.tap.report()

    async def do_resources(self) -> Resources:
        """What this process holds."""
        gc.collect()
        lag_s, self.lag_s = self.lag_s, 0.0
        return look(self._unclosed, lag_s)

    async def do_market(self, name: str) -> Any:
        """What the provider says of a market."""
        answer = await self.provider.get_mkt_info(name)
        mkt = answer[0] if isinstance(answer, tuple) else answer
        return msgspec.to_builtins(mkt) | {"fqme": mkt.fqme, "is": type(mkt).__name__}

    async def do_search(self, pattern: str) -> list[str]:
        """Full names of the markets that are found."""
        async with self.provider.open_symbol_search() as search:
            return [str(fqme) for fqme in await search(pattern)]

    async def do_history(
        self,
        symbol: str,
        period: int,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> dict[str, Any]:
        """A frame of history, when it was asked for, and the limits told."""
        from pendulum import from_timestamp

        spans = {"start_dt": start_s, "end_dt": end_s}
        named = {key: from_timestamp(s) for key, s in spans.items() if s is not None}
        async with self.provider.open_history_client(symbol) as (get_ohlc, limits):
            asked_s = time.time()
            rows, start, end = await get_ohlc(float(period), **named)
            answered_s = time.time()
        known = rows.dtype.names or ()
        columns = [rows[name].tolist() for name in ROW_FIELDS if name in known]
        return {
            "names": [name for name in ROW_FIELDS if name in known],
            "rows": list(zip(*columns, strict=True)),
            "start_s": _moment_s(start),
            "end_s": _moment_s(end),
            "asked_s": asked_s,
            "answered_s": answered_s,
            "limits": dict(limits),
        }


def single_error_of(error: Exception) -> BaseException:
    """The one error of a group, if there is but one."""
    return single_error(error) if isinstance(error, BaseExceptionGroup) else error


def _describe(error: Exception) -> dict[str, Any]:
    error_ = single_error_of(error)
    fields: dict[str, Any] = {
        "kind": type(error_).__name__,
        "text": str(error_),
        "known": isinstance(error_, PikerError),
    }
    if isinstance(error_, DataThrottle):
        fields["retry_after"] = error_.retry_after
    return fields


def _moment_s(moment: Any) -> float | None:
    """Seconds of an aware datetime; None for anything else."""
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        return moment.timestamp()
    return None


async def _serve(spec: str, source: int, output: int) -> None:
    subject = Subject(spec)
    async with (
        trio.lowlevel.FdStream(source) as lines,
        trio.lowlevel.FdStream(output) as answers,
    ):
        await subject.serve(lines, answers)


def shift_clock(by_ns: int) -> None:
    """Have Python's wall clock go `by_ns` behind, for sessions recorded in the past."""
    time_ns, time_s, by_s = time.time_ns, time.time, by_ns / 1e9
    time.time_ns = lambda: time_ns() - by_ns
    time.time = lambda: time_s() - by_s


def main() -> None:
    """Serve on the descriptors of input and output; prints go to stderr.

    Arguments: the provider, and by how many ns the clock is to go behind.
    """
    if len(sys.argv) > 2:
        shift_clock(int(sys.argv[2]))
    source, output = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    trio.run(_serve, sys.argv[1], source, output)


if __name__ == "__main__":
    main()
