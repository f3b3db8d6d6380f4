"""Quotes out of tick rings: each subscriber has cursors of its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import trio
from numpy.typing import NDArray

from piker_core.core.ticks import TickCursor, TickReader
from piker_core.dtypes import TICK_TYPES

Quote = dict[str, Any]
_NAMES = {code: name for name, code in TICK_TYPES.items()}
_SIDES = {1: "buy", -1: "sell", 0: ""}
_LATEST = {
    "bid": ("bid", "bsize"),
    "ask": ("ask", "asize"),
    "bsize": ("bid", "bsize"),
    "asize": ("ask", "asize"),
}


class QuoteStream:
    """An asynchronous iterator of `{fqme: quote}`, from the ticks of some markets.

    A quote has `symbol`, `fqme`, its `ticks` in order of publication, and of them the
    newest `last`, `bid`, `bsize`, `ask`, `asize` where they changed. Made by
    `Feed.stream`.
    """

    def __init__(
        self,
        rings: Sequence[tuple[TickReader, list[str]]],
        tick_throttle: float | None,
    ) -> None:
        self._cursors = [
            (reader.cursor(start="live", markets=names), reader.markets())
            for reader, names in rings
        ]
        self._interval_s = 1.0 / tick_throttle if tick_throttle else 0.0
        self._next_s = 0.0

    @property
    def lost(self) -> int:
        """Ticks that were overwritten before this stream read them."""
        return sum(cursor.lost for cursor, _ in self._cursors)

    def __aiter__(self) -> "QuoteStream":
        return self

    async def __anext__(self) -> dict[str, Quote]:
        """The next quotes; waits for a tick. Cancellable, nothing is lost."""
        while True:
            await self._wait()
            quotes: dict[str, Quote] = {}
            for cursor, names in self._cursors:
                while len(rows := cursor.poll()):
                    _collect(quotes, rows, names)
                    if not self._interval_s:
                        break
            if quotes:
                self._next_s = trio.current_time() + self._interval_s
                return quotes

    async def _wait(self) -> None:
        if self._interval_s:
            await trio.sleep_until(self._next_s)
        cursors = [cursor for cursor, _ in self._cursors]
        if any(cursor.ready_nowait() for cursor in cursors):
            await trio.lowlevel.checkpoint()
        elif len(cursors) == 1:
            await cursors[0].ready()
        else:
            await _wait_any(cursors)


async def _wait_any(cursors: Sequence[TickCursor]) -> None:
    async with trio.open_nursery() as nursery:

        async def wait(cursor: TickCursor) -> None:
            await cursor.ready()
            nursery.cancel_scope.cancel()

        for cursor in cursors:
            nursery.start_soon(wait, cursor)


def _collect(
    quotes: dict[str, Quote], rows: NDArray[np.void], names: Sequence[str]
) -> None:
    """Put ticks into the quotes of their markets."""
    for row in rows.tolist():
        _, time_ns, recv_ns, price, size, number, market, count, code, side, _ = row
        fqme = names[market]
        kind = _NAMES[code]
        quote = quotes.get(fqme)
        if quote is None:
            symbol = fqme.rpartition(".")[0]
            quote = quotes[fqme] = {"symbol": symbol, "fqme": fqme, "ticks": []}
        tick = {
            "type": kind,
            "price": price,
            "size": size,
            "time_ns": time_ns,
            "recv_ns": recv_ns,
        }
        if kind in _LATEST:
            price_key, size_key = _LATEST[kind]
            quote[price_key], quote[size_key] = price, size
        else:
            quote["last"] = price
            tick |= {"id": number, "side": _SIDES[side], "count": count}
        quote["ticks"].append(tick)
