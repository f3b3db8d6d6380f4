"""`segments`: the rings of this machine."""

from collections.abc import Sequence

import msgspec

from piker_core.cli.output import Output, bytes_text, reasoned, span_text
from piker_core.segments import SegmentInfo, collect_segments, list_segments

COLUMNS = (
    "namespace",
    "ring",
    "rows",
    "writer",
    "status",
    "age",
    "size",
    "in use",
    "file",
)


def show_segments(
    out: Output, *, gc: bool, everywhere: bool, namespace: str | None
) -> None:
    """Print the rings, or with `gc` remove the dead ones and print those."""
    if gc:
        rings = collect_segments(namespace, everywhere=everywhere)
    else:
        rings = list_segments(namespace, everywhere=everywhere)
    if out.json:
        for ring in rings:
            out.record(**msgspec.to_builtins(ring), removed=gc)
        return
    if rings:
        out.table(COLUMNS, [_cells(ring) for ring in rings])
    out.note(_summary(rings, gc, "--all " if everywhere else ""))


def _cells(ring: SegmentInfo) -> tuple[str, ...]:
    named = f"{ring.fqme}, {ring.period} s" if ring.fqme else f"{ring.provider} ticks"
    return (
        ring.namespace,
        named if ring.provider else ring.kind,
        f"{ring.rows}/{ring.capacity}" if ring.capacity else "",
        _writer(ring),
        reasoned(ring.status, ring.status_reason) if ring.status else ring.reason,
        span_text(ring.age_s),
        bytes_text(ring.size),
        bytes_text(ring.committed),
        ring.path,
    )


def _writer(ring: SegmentInfo) -> str:
    if ring.writer_alive:
        return f"process {ring.writer_pid}" if ring.writer_pid else "a process"
    return "dead" if ring.dead else "none"


def _summary(rings: Sequence[SegmentInfo], gc: bool, scope: str) -> str:
    held = bytes_text(sum(ring.committed for ring in rings))
    if gc:
        return f"{len(rings)} dead rings removed, {held} given back"
    dead = sum(ring.dead for ring in rings)
    hint = f"; piker-core segments {scope}--gc removes the dead" if dead else ""
    return f"{len(rings)} rings use {held}, {dead} of them dead{hint}"
