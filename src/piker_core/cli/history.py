"""`history`: what a store lacks of a market is fetched from its venue."""

import math
import signal
import sys
import time
from typing import Any, Self

import trio

from piker_core.backfill import Filled, fill_store
from piker_core.cli.moments import parse_moment
from piker_core.cli.output import Output, utc_text
from piker_core.config import default_store_url
from piker_core.store.opening import open_store, without_password
from piker_core.store.protocol import Store
from piker_core.tasks import open_nursery

TELL_S, NOTE_S = 1.0, 10.0
"""How often progress is told at most: to programs, and to people without a terminal."""


def fetch_history(
    out: Output,
    fqme: str,
    *,
    period: int,
    start: str,
    end: str | None,
    store_url: str | None,
) -> None:
    """Fetch with a progress bar, notes or JSON lines, until done or interrupted."""
    now_s = time.time()
    start_s = math.floor(parse_moment(start, now_s))
    end_s = math.ceil(parse_moment(end or "now", now_s))
    url = store_url or default_store_url()
    span = {"start_s": start_s, "end_s": end_s}
    progress = Progress(out, fqme=fqme, period=period, store=without_password(url))
    with open_store(url) as store, progress:
        trio.run(_fill, store, fqme, period, span, progress)
    if progress.interrupted:
        out.note("interrupted; the same command goes on from here")
        raise KeyboardInterrupt


async def _fill(
    store: Store, fqme: str, period: int, span: dict[str, int], progress: "Progress"
) -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(_wait_interrupt, nursery.cancel_scope, progress)
        progress.tell(await fill_store(store, fqme, period, **span, tell=progress.tell))
        progress.complete = True
        nursery.cancel_scope.cancel()


async def _wait_interrupt(scope: trio.CancelScope, progress: "Progress") -> None:
    """Cancel at the first Ctrl-C, so that what has come is stored; not at others."""
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async for _ in signals:
            break
    progress.interrupted = True
    scope.cancel()


class Progress:
    """How a back-fill goes on, as it is shown; what came of it, at the end."""

    def __init__(self, out: Output, **about: Any) -> None:
        self.complete = self.interrupted = False
        self._out = out
        self._about = about
        self._filled = Filled()
        self._began_s = self._told_s = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if sys.stdout.isatty() and not self._out.json:
            self._bar = _progress_bar()
            self._task = self._bar.add_task(
                self._about["fqme"], total=None, rate="", holes=""
            )
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._out.json:
            for start_s, end_s in self._filled.holes if self.complete else ():
                self._out.record("hole", start_s=start_s, end_s=end_s)
            self._out.record("history", **self._about, **self._figures())
        elif self.complete or self._filled.covered_s:
            self._out.line(self._summary())

    def tell(self, filled: Filled) -> None:
        """So far it has come."""
        self._filled = filled
        now_s = time.monotonic()
        if self._bar is not None:
            self._bar.update(
                self._task,
                total=filled.wanted_s,
                completed=filled.covered_s,
                rate=f"{self._rate():,.0f} rows/s",
                holes=_counted(len(filled.holes), "hole"),
            )
            return
        if now_s - self._told_s < (TELL_S if self._out.json else NOTE_S):
            return
        self._told_s = now_s
        if self._out.json:
            self._out.record("progress", **self._figures())
        else:
            share = filled.covered_s / max(filled.wanted_s, 1)
            left = "?" if self._eta_s() is None else f"{self._eta_s():.0f} s"
            self._out.note(f"{share:.0%}, {self._rate():,.0f} rows/s, {left} left")

    def _rate(self) -> float:
        return self._filled.rows / max(time.monotonic() - self._began_s, 1e-3)

    def _eta_s(self) -> float | None:
        """Seconds that the rest takes, as far as one can tell."""
        filled, gone_s = self._filled, time.monotonic() - self._began_s
        if not filled.covered_s:
            return None
        return gone_s * (filled.wanted_s - filled.covered_s) / filled.covered_s

    def _figures(self) -> dict[str, Any]:
        filled = self._filled
        return {
            "complete": self.complete,
            "wanted_s": filled.wanted_s,
            "covered_s": filled.covered_s,
            "rows": filled.rows,
            "changed": filled.changed,
            "requests": filled.requests,
            "holes": len(filled.holes),
            "begins_s": filled.begins_s,
            "rows_per_s": round(self._rate(), 1),
            "eta_s": self._eta_s(),
        }

    def _summary(self) -> str:
        filled, about = self._filled, self._about
        text = (
            f"{about['fqme']}, {about['period']} s: {filled.rows:,} rows fetched with "
            f"{_counted(filled.requests, 'request')}, {filled.changed:,} new or "
            f"changed in {about['store']}"
        )
        if not filled.wanted_s and self.complete:
            return f"{text}: nothing was missing"
        if filled.begins_s is not None:
            text += f"; no history before {utc_text(filled.begins_s)}"
        if self.complete and filled.holes:
            text += f"; {_counted(len(filled.holes), 'hole')}: " + _spans(filled.holes)
        return text


def _spans(holes: list[tuple[int, int]], most: int = 5) -> str:
    texts = [f"{utc_text(start)} to {utc_text(end)}" for start, end in holes[:most]]
    more = len(holes) - most
    return ", ".join(texts) + (f" and {more} more" if more > 0 else "")


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def _progress_bar() -> Any:
    from rich.progress import (
        BarColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[holes]}"),
    )
