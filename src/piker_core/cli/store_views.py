"""`store list` and `store gaps`: what a store has, and what it lacks."""

import math
import time
from collections.abc import Callable

from piker_core.cli.failures import OK, OutputClosed, report
from piker_core.cli.moments import parse_moment
from piker_core.cli.output import Output, span_text, utc_text
from piker_core.config import default_store_url
from piker_core.errors import NotFound
from piker_core.store.opening import open_store, without_password
from piker_core.store.parquet_folder import stored_series
from piker_core.store.protocol import Series, Store

NAMED = 10
"""How many series are named in an error."""
NS = 1_000_000_000


def opened(store_url: str | None) -> Store:
    """The store of an option, or the default one."""
    return open_store(store_url or default_store_url())


def shown_url(store_url: str | None) -> str:
    """The same store, as it is told."""
    return without_password(store_url or default_store_url())


def bounds(start: str | None, end: str | None) -> tuple[int | None, int | None]:
    """A span as it was typed, in seconds; None where there is no bound."""
    now_s = time.time()
    return (
        None if start is None else math.floor(parse_moment(start, now_s)),
        None if end is None else math.ceil(parse_moment(end, now_s)),
    )


def chosen_series(
    store: Store,
    shown: str,
    fqme: str | None,
    period: int | None,
    *,
    damaged: bool = False,
) -> list[Series]:
    """Series of a market and a period, or all; NotFound if those named have none.

    `damaged`: those, too, of which no file can be read; they have 0 rows.
    """
    known = store.series()
    if damaged:
        known = sorted(known + _passed_over(store, known))
    chosen = [
        one
        for one in known
        if fqme in (None, one.fqme) and period in (None, one.period)
    ]
    if not chosen and (fqme or period):
        names = ", ".join(f"{one.fqme} ({one.period} s)" for one in known[:NAMED])
        more = f" and {len(known) - NAMED} more" if len(known) > NAMED else ""
        wanted = " of ".join(
            ([f"bars of {period} s"] if period else ["bars"]) + ([fqme] if fqme else [])
        )
        raise NotFound(
            f"{shown} has no {wanted}; it has {names or 'nothing'}{more}: "
            "piker-core history fetches bars"
        )
    return chosen


def _passed_over(store: Store, known: list[Series]) -> list[Series]:
    """Series that have a folder, if it is a store of files, and are not known."""
    root = getattr(store, "root", None)
    if root is None:
        return []
    names = {(one.fqme, one.period) for one in known}
    return [
        Series(fqme=fqme, period=period, rows=0, first_s=0, last_s=0)
        for fqme, period in stored_series(root)
        if (fqme, period) not in names
    ]


def for_each(
    store_url: str | None,
    fqme: str | None,
    period: int | None,
    work: Callable[[Store, Series], int],
    *,
    damaged: bool = False,
) -> int:
    """Do something with each series; the trouble of one is told and stops no other.

    The first exit code that is not 0.
    """
    codes = []
    with opened(store_url) as store:
        shown = shown_url(store_url)
        for one in chosen_series(store, shown, fqme, period, damaged=damaged):
            try:
                codes.append(work(store, one))
            except OutputClosed:
                raise
            except Exception as error:  # noqa: BLE001 - told; a provider's fault may be any
                codes.append(report(error))
    return next(filter(None, codes), OK)


def show_series(
    out: Output, fqme: str | None, *, period: int | None, store_url: str | None
) -> int:
    """Print a table of series."""
    table = []

    def show(store: Store, one: Series) -> int:
        gaps = store.gaps(one.fqme, one.period)
        missing_s = int((gaps["end_ns"] - gaps["start_ns"]).sum()) // NS
        if out.json:
            out.record(
                "series",
                fqme=one.fqme,
                period=one.period,
                rows=one.rows,
                first_s=one.first_s,
                last_s=one.last_s,
                gaps=len(gaps),
                missing_s=missing_s,
            )
        table.append(
            (
                one.fqme,
                f"{one.period} s",
                str(one.rows),
                utc_text(one.first_s),
                utc_text(one.last_s),
                str(len(gaps)),
                span_text(missing_s) if missing_s else "",
            )
        )
        return OK

    code = for_each(store_url, fqme, period, show)
    if table and not out.json:
        names = ("market", "period", "rows", "first (UTC)", "last (UTC)", "gaps")
        out.table((*names, "missing"), table)
    out.note(f"{counted(len(table), 'series', '')} in {shown_url(store_url)}")
    return code


def show_gaps(
    out: Output, fqme: str | None, *, period: int | None, store_url: str | None
) -> int:
    """Print a table of holes."""
    table = []

    def show(store: Store, one: Series) -> int:
        for start_ns, end_ns in store.gaps(one.fqme, one.period).tolist():
            start_s, end_s = start_ns // NS, end_ns // NS
            rows = (end_s - start_s) // one.period
            if out.json:
                out.record(
                    "gap",
                    fqme=one.fqme,
                    period=one.period,
                    start_ns=start_ns,
                    end_ns=end_ns,
                    rows=rows,
                )
            table.append(
                (
                    one.fqme,
                    f"{one.period} s",
                    utc_text(start_s),
                    utc_text(end_s),
                    span_text(end_s - start_s),
                    str(rows),
                )
            )
        return OK

    code = for_each(store_url, fqme, period, show)
    if table and not out.json:
        names = ("market", "period", "start (UTC)", "end (UTC)", "length", "rows")
        out.table(names, table)
    out.note(f"{counted(len(table), 'gap')} in {shown_url(store_url)}")
    return code


def counted(count: int, word: str, plural: str = "s") -> str:
    """A number of things: `1 row`, `2,000 rows`."""
    return f"{count:,} {word}{'' if count == 1 else plural}"
