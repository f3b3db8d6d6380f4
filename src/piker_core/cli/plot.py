"""`plot`: rows of a store or of a ring as a picture."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from piker_core.cli.chart import draw_chart
from piker_core.cli.failures import OK, misused
from piker_core.cli.output import Output
from piker_core.cli.rows import digits_of
from piker_core.cli.store_views import bounds, chosen_series, counted, opened, shown_url
from piker_core.core.rings import attach_bars, checked_namespace
from piker_core.errors import NotFound

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = NDArray[np.void]
FORMATS = ("png", "svg", "pdf")
Span = tuple[int | None, int | None]


def plot_chart(
    out: Output,
    fqme: str,
    *,
    period: int,
    start: str | None,
    end: str | None,
    newest: int,
    file: Path,
    store_url: str | None,
    namespace: str | None,
    live: bool,
) -> int:
    """Draw rows into a file, which is replaced when the picture is whole."""
    form = file.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        return misused(f"{file} is no picture's name: it ends in .png, .svg or .pdf")
    span = bounds(start, end)
    digits: int | None = None
    if live:
        rows, digits = _ring_rows(fqme, period, span, newest, namespace)
    else:
        rows = _stored_rows(fqme, period, span, newest, store_url)
    if not len(rows):
        raise NotFound(f"there are no rows of {fqme}, {period} s, in that span")
    figure = draw_chart(
        rows,
        fqme,
        period,
        digits=digits,
        start_s=span[0],
        end_s=None if span[1] is None else min(span[1], int(time.time())),
    )
    _save(figure, file, form)
    if out.json:
        about = {"fqme": fqme, "period": period, "file": str(file)}
        out.record("plotted", **about, rows=len(rows))
    else:
        out.line(f"{counted(len(rows), 'row')} of {fqme}, {period} s in {file}")
    return OK


def _save(figure: "Figure", file: Path, form: str) -> None:
    """Put a picture in place of what has its name, when it is whole."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        figure.savefig(part, format=form)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _stored_rows(
    fqme: str, period: int, span: Span, newest: int, store_url: str | None
) -> Rows:
    start_s, end_s = span
    with opened(store_url) as store:
        (one,) = chosen_series(store, shown_url(store_url), fqme, period)
        if start_s is None:
            stop_s = one.last_s + period
            if end_s is not None:
                stop_s = min(stop_s, -(-end_s // period) * period)
            start_s = stop_s - newest * period
        return store.read_ohlcv(fqme, period, start_s, end_s)


def _ring_rows(
    fqme: str, period: int, span: Span, newest: int, namespace: str | None
) -> tuple[Rows, int | None]:
    """Rows of a ring, and how many decimals its prices have."""
    start_s, end_s = span
    space = checked_namespace(namespace)
    with attach_bars(fqme, period=period, namespace=space) as bars:
        rows = bars.snapshot(bars.head - bars.first)
        if end_s is not None:
            rows = rows[rows["time"] < end_s]
        chosen = rows[-newest:] if start_s is None else rows[rows["time"] >= start_s]
        return chosen, digits_of(bars)
