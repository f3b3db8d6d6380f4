"""`store verify`: every row of a store is read and checked."""

import time
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from piker_core.cli.failures import OK, VENUE
from piker_core.cli.output import Output, utc_text
from piker_core.cli.store_views import for_each, shown_url
from piker_core.dtypes import OHLCV_DTYPE
from piker_core.errors import StoreError
from piker_core.store.faults import find_faults
from piker_core.store.protocol import Series, Store

DAY_S = 86_400


def verify_series(
    out: Output, fqme: str | None, *, period: int | None, store_url: str | None
) -> int:
    """Print a line for each fault. Exit code 4 if there are any."""
    totals = {"series": 0, "rows": 0, "faults": 0}

    def verify(store: Store, one: Series) -> int:
        rows, damaged = read_whole(store, one)
        faults = find_faults(rows, one.period)
        for text in damaged:
            _tell(out, one, None, "damaged", text)
        for fault in faults:
            _tell(out, one, fault.time_s, fault.rule, fault.text)
        count = len(faults) + len(damaged)
        totals["series"] += 1
        totals["rows"] += len(rows)
        totals["faults"] += count
        if out.json:
            about = {"fqme": one.fqme, "period": one.period}
            out.record("verified", **about, rows=len(rows), faults=count)
        return VENUE if count else OK

    code = for_each(store_url, fqme, period, verify, damaged=True)
    out.note(
        f"{totals['rows']:,} rows of {totals['series']} series in "
        f"{shown_url(store_url)}: {totals['faults'] or 'nothing'} wrong"
    )
    return code


def read_whole(store: Store, one: Series) -> tuple[NDArray[np.void], list[str]]:
    """All rows of a series that can be read, and what is said of those that cannot.

    When the whole cannot be read its months, and their days, are read one by one.
    Raises StoreError where nothing of the store can be.
    """
    try:
        return store.read_ohlcv(one.fqme, one.period), []
    except StoreError as error:
        said = [str(error)]
        store.series()
    parts = [np.zeros(0, OHLCV_DTYPE)]
    for start_s, end_s in _months(0, max(one.last_s, int(time.time()))):
        try:
            parts.append(store.read_ohlcv(one.fqme, one.period, start_s, end_s))
        except StoreError:
            days, told = _readable_days(store, one, start_s, end_s)
            parts += days
            said += told
    return np.concatenate(parts), list(dict.fromkeys(said))


def _readable_days(
    store: Store, one: Series, start_s: int, end_s: int
) -> tuple[list[NDArray[np.void]], list[str]]:
    parts, said = [], []
    for day_s in range(start_s, end_s, DAY_S):
        try:
            day = (day_s, day_s + DAY_S)
            parts.append(store.read_ohlcv(one.fqme, one.period, *day))
        except StoreError as error:
            said.append(str(error))
    return parts, said


def _months(first_s: int, last_s: int) -> list[tuple[int, int]]:
    """Calendar months, UTC, from one time to another: no file spans more."""
    moment = datetime.fromtimestamp(first_s, UTC)
    year, month, spans = moment.year, moment.month, []
    start_s = 0
    while start_s <= last_s:
        start_s = int(datetime(year, month, 1, tzinfo=UTC).timestamp())
        year, month = year + month // 12, month % 12 + 1
        spans.append((start_s, int(datetime(year, month, 1, tzinfo=UTC).timestamp())))
        start_s = spans[-1][1]
    return spans


def _tell(out: Output, one: Series, time_s: int | None, rule: str, text: str) -> None:
    if out.json:
        fault = {"fqme": one.fqme, "period": one.period, "time": time_s, "rule": rule}
        out.record("fault", **fault, text=text)
    else:
        when = "" if time_s is None else f"{utc_text(time_s)}  "
        out.line(f"{one.fqme}, {one.period} s  {when}{rule}: {text}")
