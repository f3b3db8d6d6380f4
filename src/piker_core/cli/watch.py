"""What has changed in a bar ring since the last look: rows, revisions, status, gaps."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from piker_core.cli.output import reasoned
from piker_core.cli.rows import bar_fields
from piker_core.core.rings import BarReader

WATCHED_ROWS = 900
"""How many of the newest rows are watched for revisions."""

Row = tuple[Any, ...]
Event = tuple[str, Any]
"""`bar` or `revision` and its row, `lost` and how many rows, else a kind and fields."""


class RingWatch:
    """Looks at one ring again and again; each look yields what is new.

    A row counts as closed when a later one exists, or when nobody is to write in it any
    more. Rows from `start` on are told; 0 closed rows before them by default.
    """

    def __init__(self, bars: BarReader, back: int = 0) -> None:
        self.bars = bars
        self.head = bars.head
        self._state: dict[str, Any] = {}
        self._gaps = self._read_gaps()
        self._next = max(self._closed_end(self._read_state()) - back, bars.first)
        self._told = bars.snapshot(WATCHED_ROWS, end=self._next)

    def look(self) -> Iterator[Event]:
        """What has changed: first the status, then gaps, revisions and closed rows."""
        self.head = self.bars.head
        state = self._read_state()
        if state != self._state:
            self._state = state
            yield "status", state
        yield from self._look_at_gaps()
        yield from self._look_back()
        yield from self._look_ahead(self._closed_end(state))

    def _read_state(self) -> dict[str, Any]:
        bars = self.bars
        return read_status(bars) | {
            "writer_alive": bars.writer_alive,
            "generation": bars.generation,
        }

    def _closed_end(self, state: dict[str, Any]) -> int:
        final = state["status"] in ("closed", "stopped") or not state["writer_alive"]
        return max(self.head if final else self.head - 1, self.bars.first)

    def _look_ahead(self, end: int) -> Iterator[Event]:
        if end <= self._next:
            return
        rows = self.bars.snapshot(end - self._next, end=end)
        missed = end - self._next - len(rows)
        self._next = end
        if missed > 0:
            yield "lost", missed
        self._told = np.concatenate((self._told, rows))[-WATCHED_ROWS:]
        for row in rows.tolist():
            yield "bar", row

    def _look_back(self) -> Iterator[Event]:
        rows = self.bars.snapshot(len(self._told), end=self._next)
        old = self._told[len(self._told) - len(rows) :]
        self._told = rows
        for row in _changed(rows, old):
            yield "revision", row

    def _look_at_gaps(self) -> Iterator[Event]:
        gaps = self._read_gaps()
        for start_ns, gap in gaps.items():
            if start_ns not in self._gaps and gap["repaired"]:
                yield "gap", gap | {"repaired": False}  # it was open, between two looks
            if self._gaps.get(start_ns) != gap:
                yield "gap", gap
        self._gaps = gaps

    def _read_gaps(self) -> dict[int, dict[str, Any]]:
        return {
            start_ns: {
                "start_ns": start_ns,
                "end_ns": end_ns,
                "cause": cause.decode("utf-8", "replace"),
                "repaired": bool(repaired),
            }
            for start_ns, end_ns, cause, repaired in self.bars.gaps().tolist()
        }


def read_status(bars: BarReader) -> dict[str, Any]:
    """The status of a ring and, where there is one, its reason."""
    while True:
        status, reason = bars.status, bars.status_reason
        if status == bars.status:
            return {"status": status} | ({"reason": reason} if reason else {})


def status_text(state: dict[str, Any]) -> str:
    """What `read_status` found, in words."""
    return reasoned(state["status"], state.get("reason", ""))


def _changed(rows: NDArray[np.void], old: NDArray[np.void]) -> list[Row]:
    """Rows that are not, byte for byte, what they were."""
    if rows.tobytes() == old.tobytes():
        return []
    raw = f"V{rows.dtype.itemsize}"
    differ = rows.view(raw) != old.view(raw)
    changed: list[Row] = rows[differ].tolist()
    return changed


def event_fields(kind: str, content: Any) -> dict[str, Any]:
    """An event's content as the fields of a JSON object."""
    if kind in ("bar", "revision"):
        return bar_fields(content)
    return {"rows": content} if kind == "lost" else content
