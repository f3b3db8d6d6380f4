"""Back-fill of a store: what it lacks of a market is fetched and written.

What is in the store is not asked for again, so a back-fill that was ended, killed or
cut off goes on where it stopped: each span is stored as soon as it has come. Rows that
are placeholders or lack trades (SYNTHETIC_GAP, PARTIAL) count as missing.

That a span is empty for good is not remembered: the next run asks for a hole again,
with a request for each frame that it is long.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

from piker_core.dtypes import BarFlag
from piker_core.errors import DataThrottle, PikerError
from piker_core.fetch import TRIES, Fetch, GetOhlc, Pace, Rows, Span
from piker_core.provider import find_provider
from piker_core.symbols import parse_fqme

if TYPE_CHECKING:
    from piker_core.store.protocol import Store

UNSURE = int(BarFlag.SYNTHETIC_GAP | BarFlag.PARTIAL)
"""Rows with these flags do not say all of what traded."""
READ_ROWS = 1_000_000
"""Rows that are read from a store at once."""
FEW_SPANS, NEAR_ROWS = 20, 30
"""If more spans are missing, those with so few rows between them are joined."""


class Filled(msgspec.Struct, kw_only=True):
    """How far a back-fill has come.

    `wanted_s` was missing; of that `covered_s` has been answered, with so many `rows`,
    of which `changed` were new or other ones to the store. `holes` are spans of which
    the venue has no rows, in order at the end; `begins_s`: nothing is older than that.
    """

    wanted_s: int = 0
    covered_s: int = 0
    rows: int = 0
    changed: int = 0
    requests: int = 0
    begins_s: int | None = None
    holes: list[tuple[int, int]] = []


Tell = Callable[[Filled], None]


async def fill_store(
    store: "Store",
    fqme: str,
    period: int,
    *,
    start_s: int,
    end_s: int | None = None,
    tell: Tell | None = None,
) -> Filled:
    """Fetch from the market's provider what a store lacks of start <= time < end.

    Up to the last row that is over, by default. `tell` is called, from this task's
    thread, after each request. Raises NotFound for an unknown provider or market,
    ProviderError when the venue goes on failing, StoreError: what came before is
    stored then. So it is when this is cancelled.
    """
    symbol, name = parse_fqme(fqme)
    provider = find_provider(name)
    if not hasattr(provider, "open_history_client"):
        raise PikerError(f"provider {name} has no history: it cannot fill a store")
    async with open_history(provider, symbol) as (get_ohlc, limits):
        pace = limits_pace(limits)
        return await fill(
            get_ohlc,
            store,
            fqme,
            period=period,
            start_s=start_s,
            end_s=end_s,
            pace=pace,
            tell=tell,
        )


@asynccontextmanager
async def open_history(
    provider: ModuleType, symbol: str
) -> AsyncIterator[tuple[GetOhlc, Mapping[str, float]]]:
    """The provider's client; a throttle while it looks for the market is waited for."""
    for number in range(TRIES):
        async with AsyncExitStack() as stack:
            try:
                opened = await stack.enter_async_context(
                    provider.open_history_client(symbol)
                )
            except DataThrottle as error:
                if number + 1 == TRIES:
                    raise
                wait_s = error.retry_after
            else:
                yield opened
                return
        await trio.sleep(wait_s)


def limits_pace(limits: Mapping[str, float]) -> Pace:
    """The pace that a provider's history client asks for."""
    return Pace(int(limits.get("erlangs", 1)), limits.get("rate", 1))


async def fill(
    get_ohlc: GetOhlc,
    store: "Store",
    fqme: str,
    *,
    period: int,
    start_s: int,
    end_s: int | None,
    pace: Pace,
    tell: Tell | None = None,
) -> Filled:
    """The same with calls of an open history client."""
    now_s = int(time.time()) // period * period
    end_s = now_s if end_s is None else min(-(-end_s // period) * period, now_s)
    start_s = -(-max(start_s, 0) // period) * period
    missing = await trio.to_thread.run_sync(
        _missing, store, fqme, period, start_s, end_s
    )
    spans = near_spans(missing, period)
    fetch = Fetch(get_ohlc, period, pace, name=fqme)
    filled = Filled(wanted_s=sum(span.end_s - span.start_s for span in spans))

    async def take(rows: Rows, start_s: int, end_s: int) -> None:
        rows["flags"] |= int(BarFlag.BACKFILLED)
        new = rows[_are_within(rows["time"], missing)]
        if len(new):
            changed = await trio.to_thread.run_sync(
                store.write_ohlcv, fqme, period, new
            )
            filled.changed += changed
        filled.rows += len(rows)
        filled.covered_s += end_s - start_s
        filled.requests, filled.begins_s = fetch.requests, fetch.begins_s
        empty = missing_spans(rows, period, start_s, end_s, unsure=0)
        filled.holes += [(span.start_s, span.end_s) for span in empty]
        if tell is not None:
            tell(filled)

    await fetch.run(spans, take)
    filled.holes = merged_spans(filled.holes)
    return filled


def _missing(
    store: "Store", fqme: str, period: int, start_s: int, end_s: int
) -> list[Span]:
    """What a store lacks; it is read in parts."""
    found: list[tuple[int, int]] = []
    for part_s in range(start_s, end_s, READ_ROWS * period):
        until_s = min(part_s + READ_ROWS * period, end_s)
        rows = store.read_ohlcv(fqme, period, part_s, until_s)
        found += missing_spans(rows, period, part_s, until_s)
    return [Span(*span) for span in merged_spans(found)]


def _are_within(times: NDArray[np.int64], spans: list[Span]) -> NDArray[np.bool_]:
    """Which times lie in one of the spans, which ascend."""
    starts = np.array([span.start_s for span in spans], np.int64)
    ends = np.array([0, *(span.end_s for span in spans)], np.int64)
    within: NDArray[np.bool_] = times < ends[np.searchsorted(starts, times, "right")]
    return within


def near_spans(spans: list[Span], period: int) -> list[Span]:
    """The same; where there are many, those with only a few rows between them as one.

    A series that has no rows where nothing traded would take a request for each.
    """
    if len(spans) <= FEW_SPANS:
        return spans
    near: list[Span] = []
    for span in spans:
        if near and span.start_s - near[-1].end_s <= NEAR_ROWS * period:
            near[-1] = Span(near[-1].start_s, span.end_s)
        else:
            near.append(span)
    return near


def missing_spans(
    rows: Rows, period: int, start_s: int, end_s: int, *, unsure: int = UNSURE
) -> list[Span]:
    """Spans of start <= time < end without a row, or with one that is `unsure`."""
    times = rows["time"][(rows["flags"] & unsure) == 0]
    times = times[(start_s <= times) & (times < end_s)]
    starts = np.concatenate([[start_s], times + period])
    ends = np.append(times, end_s)
    lost = np.flatnonzero(starts < ends).tolist()
    return [Span(int(starts[n]), int(ends[n])) for n in lost]


def merged_spans(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order; those that touch are one."""
    merged: list[tuple[int, int]] = []
    for start_s, end_s in sorted(spans):
        if merged and merged[-1][1] >= start_s:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end_s))
        else:
            merged.append((start_s, end_s))
    return merged
