"""`store repair`: holes and wrong rows of a store are fetched from the venue again."""

import msgspec
import numpy as np
import trio

from piker_core.backfill import limits_pace, missing_spans, open_history
from piker_core.cli.failures import OK
from piker_core.cli.output import Output, utc_text
from piker_core.cli.store_checks import read_whole
from piker_core.cli.store_views import bounds, counted, for_each
from piker_core.dtypes import BarFlag
from piker_core.errors import PikerError, StoreError
from piker_core.fetch import Fetch, Rows, Span
from piker_core.provider import find_provider
from piker_core.store.faults import find_faults
from piker_core.store.protocol import Series, Store
from piker_core.symbols import parse_fqme

NAMED = 5
"""How many holes are named in a line."""


class Repaired(msgspec.Struct, kw_only=True):
    """What came of one series: spans asked for, rows that came, what is left."""

    wanted: list[Span]
    faults: int
    rows: int = 0
    changed: int = 0
    requests: int = 0
    holes: list[Span] = []


def repair_series(
    out: Output,
    fqme: str | None,
    *,
    period: int | None,
    start: str | None,
    end: str | None,
    store_url: str | None,
) -> int:
    """Fetch what is missing or wrong, series by series, and say what stays a hole."""
    span = bounds(start, end)

    def repair(store: Store, one: Series) -> int:
        _tell(out, one, trio.run(_repair, store, one, *span))
        return OK

    return for_each(store_url, fqme, period, repair)


async def _repair(
    store: Store, one: Series, start_s: int | None, end_s: int | None
) -> Repaired:
    """Fetch and write. Raises PikerError; what came before it is stored then."""
    first_s = max(one.first_s, start_s or 0) // one.period * one.period
    last_s = one.last_s + one.period
    last_s = last_s if end_s is None else min(last_s, end_s)
    rows = await trio.to_thread.run_sync(_readable, store, one)
    wrong = [fault.time_s for fault in find_faults(rows, one.period)]
    wrong = sorted({time_s for time_s in wrong if first_s <= time_s < last_s})
    good = np.sort(rows[~np.isin(rows["time"], wrong)], order="time")
    spans = missing_spans(good, one.period, first_s, last_s)
    repaired = Repaired(wanted=spans, faults=len(wrong))
    if spans:
        await _fetch(store, one, repaired)
        rows = await trio.to_thread.run_sync(
            store.read_ohlcv, one.fqme, one.period, first_s, last_s
        )
        lost = int(BarFlag.SYNTHETIC_GAP)
        repaired.holes = missing_spans(rows, one.period, first_s, last_s, unsure=lost)
    return repaired


def _readable(store: Store, one: Series) -> Rows:
    rows, damaged = read_whole(store, one)
    if damaged:
        raise StoreError(damaged[0])
    return rows


async def _fetch(store: Store, one: Series, repaired: Repaired) -> None:
    """Rows of the wanted spans from the provider, written as they come."""
    symbol, name = parse_fqme(one.fqme)
    provider = find_provider(name)
    if not hasattr(provider, "open_history_client"):
        raise PikerError(f"provider {name} has no history: it cannot repair a store")

    async def take(rows: Rows, *_: int) -> None:
        rows["flags"] |= int(BarFlag.BACKFILLED)
        if len(rows):
            changed = await trio.to_thread.run_sync(
                store.write_ohlcv, one.fqme, one.period, rows
            )
            repaired.changed += changed
        repaired.rows += len(rows)

    async with open_history(provider, symbol) as (get_ohlc, limits):
        fetch = Fetch(get_ohlc, one.period, limits_pace(limits), name=one.fqme)
        await fetch.run(repaired.wanted, take)
        repaired.requests = fetch.requests


def _tell(out: Output, one: Series, repaired: Repaired) -> None:
    if out.json:
        about = {"fqme": one.fqme, "period": one.period}
        for hole in repaired.holes:
            out.record("hole", **about, start_s=hole.start_s, end_s=hole.end_s)
        out.record(
            "repaired",
            **about,
            wanted_s=sum(span.end_s - span.start_s for span in repaired.wanted),
            faults=repaired.faults,
            rows=repaired.rows,
            changed=repaired.changed,
            requests=repaired.requests,
            holes=len(repaired.holes),
        )
        return
    out.line(f"{one.fqme}, {one.period} s: {_summary(repaired)}")


def _summary(repaired: Repaired) -> str:
    if not repaired.wanted:
        return "nothing is missing or wrong"
    text = (
        f"{counted(len(repaired.wanted), 'span')} asked for, "
        f"{counted(repaired.faults, 'wrong row')} among them; "
        f"{counted(repaired.rows, 'row')} came with "
        f"{counted(repaired.requests, 'request')}, {repaired.changed:,} of them new or "
        "changed; "
    )
    if not repaired.holes:
        return text + "no hole is left"
    spans = [
        f"{utc_text(hole.start_s)} to {utc_text(hole.end_s)}"
        for hole in repaired.holes[:NAMED]
    ]
    more = len(repaired.holes) - NAMED
    count = counted(len(repaired.holes), "hole")
    return (
        text
        + f"{count} left, of which the venue has no rows: "
        + ", ".join(spans)
        + (f" and {more} more" if more > 0 else "")
    )
