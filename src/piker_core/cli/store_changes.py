"""`store delete`: rows are removed, after a question."""

import sys

import typer

from piker_core.cli.failures import OK, misused
from piker_core.cli.output import Output, utc_text
from piker_core.cli.store_views import bounds, chosen_series, counted, opened, shown_url
from piker_core.errors import NotFound


def delete_rows(
    out: Output,
    fqme: str,
    *,
    period: int,
    start: str | None,
    end: str | None,
    yes: bool,
    store_url: str | None,
) -> int:
    """Ask, delete, say how many rows there were. Raises NotFound if there are none."""
    start_s, end_s = bounds(start, end)
    with opened(store_url) as store:
        shown = shown_url(store_url)
        chosen_series(store, shown, fqme, period)
        times = store.read_ohlcv(fqme, period, start_s, end_s)["time"]
        what = f"of {fqme}, {period} s"
        if not len(times):
            raise NotFound(f"{shown} has no rows {what} in that span")
        span = f"{utc_text(int(times[0]))} to {utc_text(int(times[-1]))}"
        if not yes:
            if not sys.stdin.isatty():
                return misused("nobody can be asked here: delete needs --yes")
            question = f"Delete {counted(len(times), 'row')} {what}, {span}?"
            if not typer.confirm(question, err=True):
                out.note("nothing was deleted")
                return OK
        deleted = store.delete(fqme, period, start_s, end_s)
    if out.json:
        out.record("deleted", fqme=fqme, period=period, rows=deleted)
    else:
        out.line(f"{counted(deleted, 'row')} {what} deleted: {span}")
    return OK
