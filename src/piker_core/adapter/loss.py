"""Where a loss begins, and what is known of it until it is made good."""

from typing import Any

import msgspec

from piker_core.adapter.trades import NS

_BEHIND_NS = 10 * NS
"""The clock may be as late as that; older rows are missing as nothing was traded."""


class Gap(msgspec.Struct):
    """An interval without a proof that all its trades are known.

    `since_ns`: from when on to ask the venue; `anchor`: the newest id known before it,
    -1 if none is.
    """

    start_ns: int
    end_ns: int
    cause: str
    since_ns: int
    anchor: int


def newest_row_ns(handle: Any) -> int:
    """When a market's newest row of the shortest period begins; 0 if there is none."""
    times = handle.bars[min(handle.bars)].times()
    return int(times[1]) * NS if times else 0


def rows_end_ns(handle: Any) -> int:
    """When that row ends; 0 if there is none."""
    row_ns = newest_row_ns(handle)
    return row_ns and row_ns + int(min(handle.bars)) * NS


def begin_of_loss(handle: Any, told_ns: int, heard_ns: int) -> int:
    """Where a loss begins of a market that was live since `told_ns` up to `heard_ns`.

    That is the end of its rows, if the clock has not come to what was heard last: of
    those that are missing the engine does not know that nothing was lost.
    """
    end_ns = rows_end_ns(handle)
    if not end_ns:
        return heard_ns
    return min(heard_ns, max(end_ns, told_ns, heard_ns - _BEHIND_NS))
