"""`record` and `replay`: feeds into a journal, a journal into rings."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import trio

from piker_core.cli.failures import MACHINE, OK, VENUE
from piker_core.cli.output import Output
from piker_core.core.rings import checked_namespace
from piker_core.core.ticks import attach_ticks
from piker_core.errors import PikerError
from piker_core.feed import Feed, open_feed
from piker_core.fqme import parse_fqme
from piker_core.recorder import Recorder, open_recorder
from piker_core.replay import Report, replay
from piker_core.segments import remove_segments


def run_record(
    out: Output,
    fqmes: list[str],
    folder: Path,
    *,
    seconds: float | None,
    ticks: bool,
    namespace: str | None,
    **options: Any,
) -> int:
    """Feed markets into a journal; the exit code, MACHINE if records were lost."""
    with open_recorder(folder, **options) as recorder:
        limit_s = math.inf if seconds is None else seconds
        try:
            trio.run(_record, out, fqmes, recorder, namespace, limit_s, ticks)
        finally:
            recorder.finish()
            _tell_recorded(out, folder, recorder)
    return MACHINE if recorder.statistics().lost else OK


async def _record(
    out: Output,
    fqmes: list[str],
    recorder: Recorder,
    namespace: str | None,
    limit_s: float,
    ticks: bool,
) -> None:
    with _own_namespace(out, fqmes, checked_namespace(namespace)) as space:
        async with (
            open_feed(fqmes, namespace=space, journal=recorder) as feed,
            trio.open_nursery() as nursery,
        ):
            _check_written(feed)
            out.note(f"recording {', '.join(fqmes)}; rings in namespace {space}")
            for provider in feed.roles if ticks else ():
                nursery.start_soon(recorder.record_ticks, provider, space)
            await trio.sleep(limit_s)
            nursery.cancel_scope.cancel()


@contextmanager
def _own_namespace(out: Output, fqmes: Sequence[str], space: str) -> Iterator[str]:
    """Where we can be the writer: there, or in a namespace that is removed later."""
    busy = {}
    for provider in sorted({parse_fqme(fqme)[1] for fqme in fqmes}):
        with suppress(PikerError), attach_ticks(provider, namespace=space) as ring:
            if ring.writer_alive:
                busy[provider] = ring.writer_pid
    if not busy:
        yield space
        return
    own = f"record{os.getpid()}"
    who = ", ".join(f"process {pid} writes {name}" for name, pid in busy.items())
    out.note(
        f"{who} in namespace {space} and shows no frames: these markets are recorded "
        f"over connections of their own, in namespace {own}"
    )
    try:
        yield own
    finally:
        remove_segments(own, force=True)


def _check_written(feed: Feed) -> None:
    """Raises PikerError if another process was faster."""
    for provider, role in feed.roles.items():
        if role != "writer":
            raise PikerError(
                f"another process has begun to write {provider}'s rings just now: "
                "record again"
            )


def _tell_recorded(out: Output, folder: Path, recorder: Recorder) -> None:
    counts = recorder.statistics()
    if out.json:
        out.record("recorded", out=str(folder), **msgspec.structs.asdict(counts))
        return
    out.line(f"{counts.records} records, {counts.frames} frames of them, in {folder}")
    if counts.trouble:
        lost = f"{counts.lost} records were lost" if counts.lost else "nothing was lost"
        out.line(f"{lost}: {counts.trouble}")


def run_replay(
    out: Output, folder: Path, *, speed: float, namespace: str | None
) -> int:
    """Play a journal into rings; the exit code, VENUE if it is cut or damaged."""
    report = trio.run(lambda: replay(folder, namespace=namespace, speed=speed))
    if out.json:
        out.record("replayed", **report_fields(report))
    else:
        counts = report.counts
        out.line(
            f"{counts.records} records, {counts.frames} frames, {counts.quotes} quotes "
            f"and {counts.ticks} ticks of {len(report.markets)} markets in namespace "
            f"{checked_namespace(namespace)}"
        )
        if counts.unknown or counts.holes:
            out.line(f"{counts.unknown} records unknown, {counts.holes} holes")
    return tell_cut(out, report)


def report_fields(report: Report) -> dict[str, Any]:
    """What was replayed, for JSON."""
    cut = report.cut and {"file": report.cut.file, "cut_at": report.cut.cut_at}
    counts = msgspec.structs.asdict(report.counts)
    return {**counts, "markets": report.markets, "cut": cut}


def tell_cut(out: Output, report: Report) -> int:
    """Say where a journal is cut or damaged; the exit code."""
    cut = report.cut
    if cut is None:
        return OK
    if out.json:
        out.record("cut", file=cut.file, cut_at=cut.cut_at, reason=cut.reason)
    else:
        out.line(
            f"the journal is cut or damaged: {cut.file} is whole up to byte "
            f"{cut.cut_at} only, and was replayed up to there: {cut.reason}"
        )
    return VENUE
