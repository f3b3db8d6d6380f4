"""`feed`: run feeds until stopped, as a live table, plain lines or JSON lines."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from piker_core.cli.output import Output, aligned, decimal_text, rich_table, utc_text
from piker_core.cli.rows import (
    BAR_COLUMNS,
    BAR_RIGHT,
    BAR_WIDTHS,
    bar_cells,
    price_text,
)
from piker_core.cli.watch import Event, RingWatch, event_fields, status_text
from piker_core.feed import Feed, Flume, open_feed

LOOK_S = 0.5
"""How often status and gaps are looked at while no bar is closed."""
REFRESH_HZ = 4.0

COLUMNS = (
    *("market", "status", "last", "bid", "ask", "open", "high", "low", "close"),
    *("volume", "count", "ticks", "repaired", "revised", "delay ms"),
)
MARKET_WIDTH = 18


def run_feed(
    out: Output,
    fqmes: list[str],
    *,
    seconds: float | None,
    tick_throttle: float | None,
    namespace: str | None,
    journal: Path | None = None,
) -> None:
    """Feed markets, or attach to their writer, for so many seconds or until Ctrl-C."""
    limit_s = math.inf if seconds is None else seconds
    trio.run(_feed, out, fqmes, limit_s, tick_throttle, namespace, journal)


async def _feed(
    out: Output,
    fqmes: list[str],
    limit_s: float,
    tick_throttle: float | None,
    namespace: str | None,
    journal: Path | None,
) -> None:
    async with open_feed(fqmes, namespace=namespace, journal=journal) as feed:
        for provider, role in feed.roles.items():
            verb = "writing" if role == "writer" else "reading what another writes of"
            out.note(f"{verb} {provider}'s rings")
        with trio.move_on_after(limit_s):
            if sys.stdout.isatty() and not out.json:
                await LiveTable(feed, tick_throttle or REFRESH_HZ).run()
            else:
                await _print_events(out, feed)


async def _print_events(out: Output, feed: Feed) -> None:
    if not out.json:
        heading = aligned(BAR_COLUMNS, BAR_WIDTHS, BAR_RIGHT)
        out.line(f"{'market':{MARKET_WIDTH}}  {heading}")
    async with trio.open_nursery() as nursery:
        for fqme, flume in feed.flumes.items():
            nursery.start_soon(_print_market, out, fqme, flume)


async def _print_market(out: Output, fqme: str, flume: Flume) -> None:
    watch = RingWatch(flume.rt)
    digits = flume.market.price_digits
    while True:
        out.check()
        for kind, content in watch.look():
            if out.json:
                out.record(kind, fqme=fqme, **event_fields(kind, content))
            else:
                _print_event(out, fqme, (kind, content), digits)
        with trio.move_on_after(LOOK_S):
            await flume.rt.changed(after=watch.head)


def _print_event(out: Output, fqme: str, event: Event, digits: int) -> None:
    kind, content = event
    if kind in ("bar", "revision"):
        cells = aligned(bar_cells(content, digits), BAR_WIDTHS, BAR_RIGHT)
        mark = "  (revised)" if kind == "revision" else ""
        out.line(f"{fqme:{MARKET_WIDTH}}  {cells}{mark}")
    elif kind == "status":
        out.note(f"{fqme}: {status_text(content)}")
    elif kind == "gap":
        out.note(f"{fqme}: {gap_text(content)}")
    else:
        out.note(f"{fqme}: {content} rows fell off the ring before they were read")


def gap_text(gap: dict[str, Any]) -> str:
    """A gap record in words."""
    lasted_s = (gap["end_ns"] - gap["start_ns"]) / 1e9
    state = "gap repaired" if gap["repaired"] else "gap opened"
    start = utc_text(gap["start_ns"] / 1e9)[11:]
    return f"{state}: {lasted_s:.1f} s from {start} ({gap['cause']})"


class LiveTable:
    """A line a market on a terminal, rewritten some times a second.

    `title` and `caption` are asked for what stands above and below it.
    """

    def __init__(
        self,
        feed: Feed,
        refresh_hz: float,
        *,
        title: Callable[[], str] = lambda: "Ctrl-C ends it",
        caption: Callable[[], str] = lambda: "",
    ) -> None:
        self.feed = feed
        self.refresh_hz = refresh_hz
        self.title = title
        self.caption = caption
        self.latest: dict[str, dict[str, Any]] = {
            fqme: dict(flume.first_quote) for fqme, flume in feed.flumes.items()
        }
        self.delays_ms: dict[str, float] = {}

    async def run(self) -> None:
        """Show the table until cancelled."""
        from rich.live import Live

        with Live(self._table(), refresh_per_second=8) as live:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_quotes)
                while True:
                    await trio.sleep(1 / self.refresh_hz)
                    live.update(self._table())

    async def _read_quotes(self) -> None:
        async for quotes in self.feed.stream(tick_throttle=self.refresh_hz):
            for fqme, quote in quotes.items():
                newest = quote["ticks"][-1]
                self.delays_ms[fqme] = (newest["recv_ns"] - newest["time_ns"]) / 1e6
                self.latest[fqme] |= quote

    def _table(self) -> Any:
        rows = [
            market_cells(fqme, flume, self.latest[fqme], self.delays_ms.get(fqme))
            for fqme, flume in self.feed.flumes.items()
        ]
        title = f"{utc_text(time.time())} UTC  {self.title()}"
        return rich_table(COLUMNS, rows, title=title, caption=self.caption())


def market_cells(
    fqme: str,
    flume: Flume,
    quote: Mapping[str, Any] | None = None,
    delay_ms: float | None = None,
) -> tuple[str, ...]:
    """The state of a market as the texts of `COLUMNS`."""
    counters, gaps = flume.rt.statistics(), flume.rt.gaps()
    open_gaps = int((gaps["repaired"] == 0).sum())
    digits = flume.market.price_digits
    shown = dict(quote or {}) | {"last": flume.rt.last_price}
    prices = [_price(shown.get(name), digits) for name in ("last", "bid", "ask")]
    rows = flume.rt.snapshot(1).tolist()
    bar = rows[0] if rows else (0,) * 10
    return (
        fqme,
        flume.status,
        *prices,
        *(price_text(price, digits) if rows else "" for price in bar[2:6]),
        decimal_text(bar[6]),
        str(bar[7]),
        str(counters["ticks"]),
        f"{len(gaps) - open_gaps}/{len(gaps)}",
        str(counters["revisions"]),
        "" if delay_ms is None else f"{delay_ms:.1f}",
    )


def _price(value: object, digits: int) -> str:
    return price_text(float(value), digits) if isinstance(value, int | float) else ""
