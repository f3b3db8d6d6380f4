"""`verify`: digests of the bars in a store, in a journal or in rings."""

from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.cli.failures import MISSING, OK, misused
from piker_core.cli.output import Output
from piker_core.cli.record_replay import tell_cut
from piker_core.core.rings import BarReader, attach_bars, checked_namespace
from piker_core.digest import DayDigest, day_digests
from piker_core.errors import NotFound
from piker_core.replay import replay_bars
from piker_core.segments import list_segments
from piker_core.store import open_store

COLUMNS = ("market", "period", "day", "rows", "digest")
Bars = tuple[str, int, NDArray[np.void]]


def run_verify(out: Output, place: str, *, namespace: str | None) -> int:
    """Print the digests of a store, a journal or a namespace's rings; the exit code."""
    if bool(place) == (namespace is not None):
        return misused(
            "verify takes the folder of a journal, or either the URL of a store or "
            "--namespace NAME"
        )
    if place and "://" not in place:
        return verify_journal(out, place)
    bars = stored_bars(place) if place else ring_bars(namespace)
    return print_digests(out, bars)


def print_digests(out: Output, bars: Iterable[Bars]) -> int:
    """A line each; the exit code, which says whether there were any."""
    found: list[DayDigest] = []
    for fqme, period, rows in bars:
        for digest in day_digests(fqme, period, rows):
            found.append(digest)
            if out.json:
                out.record("digest", **msgspec.to_builtins(digest))
    if not out.json and found:
        cells = [[str(value) for value in msgspec.structs.astuple(d)] for d in found]
        out.table(COLUMNS, cells)
    if not found:
        out.note("no bars of which there is a digest")
    return OK if found else MISSING


def verify_journal(out: Output, folder: str) -> int:
    """Print the digests of what a journal gives; the exit code, VENUE if it is cut."""
    bars, report = replay_bars(folder)
    code = print_digests(
        out, [(fqme, period, rows[:-1]) for fqme, period, rows in bars]
    )
    return tell_cut(out, report) or code


def stored_bars(url: str) -> Iterator[Bars]:
    """All series of a store. Raises StoreError."""
    with open_store(url) as store:
        for series in store.series():
            fqme, period = series.fqme, series.period
            yield fqme, period, store.read_ohlcv(fqme, period)


def ring_bars(namespace: str | None) -> Iterator[Bars]:
    """The closed rows of a namespace's rings.

    Those of one that is removed meanwhile are left out.
    """
    space = checked_namespace(namespace)
    for ring in list_segments(space):
        if ring.kind != "bars":
            continue
        try:
            with attach_bars(ring.fqme, period=ring.period, namespace=space) as bars:
                yield ring.fqme, ring.period, closed_rows(bars)
        except NotFound:
            continue


def closed_rows(bars: BarReader) -> NDArray[np.void]:
    """The rows of a ring but the last: nobody can tell whether it was still forming."""
    return bars.snapshot(bars.head - bars.first)[:-1]
