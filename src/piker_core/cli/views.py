"""`bars` and `ticks`: another process's view of the rings."""

from collections import deque
from collections.abc import Iterable
from typing import Any

from piker_core.cli.output import Output, aligned
from piker_core.cli.rows import (
    BAR_COLUMNS,
    BAR_RIGHT,
    BAR_WIDTHS,
    TICK_COLUMNS,
    TICK_RIGHT,
    TICK_WIDTHS,
    bar_cells,
    bar_fields,
    digits_of,
    tick_cells,
    tick_fields,
)
from piker_core.cli.watch import (
    Event,
    RingWatch,
    event_fields,
    read_status,
    status_text,
)
from piker_core.core.rings import (
    BarReader,
    attach_bars,
    checked_namespace,
    describe_segment,
)
from piker_core.core.ticks import TickCursor, TickReader, attach_ticks
from piker_core.errors import NotFound
from piker_core.segments import list_segments, ring_name

LOOK_S = 0.5
"""How often a view that follows looks at status, revisions and the ring's file."""


def show_bars(
    out: Output,
    fqme: str,
    *,
    period: int,
    count: int,
    follow: bool,
    namespace: str | None,
) -> None:
    """Print the newest rows of a bar ring and, if asked, every one that is closed."""
    view = BarView(out, fqme, period, checked_namespace(namespace))
    if not follow:
        view.show_newest(count)
        return
    view.begin(count)
    while True:
        view.follow_once()


def show_ticks(
    out: Output,
    provider: str,
    *,
    count: int,
    follow: bool,
    market: str | None,
    namespace: str | None,
) -> None:
    """Print the newest ticks of a provider and, if asked, all that come."""
    view = TickView(out, provider, market, checked_namespace(namespace))
    try:
        view.show_newest(count)
        while follow:
            view.follow_once()
    finally:
        view.tell_lost(at_end=True)


class BarView:
    """Rows of one ring as they are closed, revised, or lost; survives new writers."""

    def __init__(self, out: Output, fqme: str, period: int, namespace: str) -> None:
        self.out = out
        self.fqme = fqme
        self.period = period
        self.namespace = namespace
        self.name = ring_name(namespace, fqme.rpartition(".")[2], fqme, period)
        self.bars = self._attach()
        self.created_ns = created_ns(self.name)
        self.digits = digits_of(self.bars)
        self.watch = RingWatch(self.bars)

    def show_newest(self, count: int) -> None:
        """Print the newest rows, the forming one too."""
        rows = self.bars.snapshot(count).tolist()
        if self.out.json:
            for row in rows:
                self.out.record("bar", fqme=self.fqme, **bar_fields(row))
            return
        self._note_state(
            read_status(self.bars) | {"writer_alive": self.bars.writer_alive}
        )
        self.out.table(BAR_COLUMNS, [bar_cells(row, self.digits) for row in rows])

    def begin(self, back: int) -> None:
        """Print what is known of the ring and its newest closed rows."""
        if not self.out.json:
            self.out.line(aligned(BAR_COLUMNS, BAR_WIDTHS, BAR_RIGHT))
        self.watch = RingWatch(self.bars, back)
        self._tell(self.watch.look())

    def follow_once(self) -> None:
        """Wait for a row or a while, then print what has changed."""
        before = self.watch.head
        head = self.bars.wait(after=before, timeout=LOOK_S)
        self.out.check()
        self._tell(self.watch.look())
        if head == before and created_ns(self.name) not in (0, self.created_ns):
            self._attach_again()

    def _tell(self, events: Iterable[Event]) -> None:
        for kind, content in events:
            if self.out.json:
                self.out.record(kind, fqme=self.fqme, **event_fields(kind, content))
            elif kind in ("bar", "revision"):
                mark = "  (revised)" if kind == "revision" else ""
                cells = bar_cells(content, self.digits)
                self.out.line(aligned(cells, BAR_WIDTHS, BAR_RIGHT) + mark)
            elif kind == "status":
                self._note_state(content)
            elif kind == "lost":
                self.out.note(f"{content} rows fell off the ring before they were read")

    def _note_state(self, state: dict[str, Any]) -> None:
        writer = "its writer lives" if state["writer_alive"] else "nobody writes it"
        self.out.note(f"{self.fqme}, {self.period} s: {status_text(state)}, {writer}")

    def _attach(self) -> BarReader:
        try:
            return attach_bars(self.fqme, period=self.period, namespace=self.namespace)
        except NotFound as error:
            raise NotFound(f"{error}; {what_there_is(self.namespace)}") from None

    def _attach_again(self) -> None:
        """The ring was removed and made anew: go on in the new one."""
        try:
            self.bars = self._attach()
        except NotFound:
            return
        self.created_ns = created_ns(self.name)
        self.out.note(f"{self.fqme}, {self.period} s: its ring was made anew")
        self.watch = RingWatch(self.bars, self.bars.capacity)
        self._tell(self.watch.look())


class TickView:
    """Ticks of one provider as they come, and how many were lost."""

    def __init__(
        self, out: Output, provider: str, market: str | None, namespace: str
    ) -> None:
        self.out = out
        self.provider = provider
        self.market = market
        self.namespace = namespace
        self.name = ring_name(namespace, provider)
        self.ticks = self._attach()
        self.created_ns = created_ns(self.name)
        self.cursor = self._cursor("live")
        self.alive: bool | None = None
        self.told = 0

    def show_newest(self, count: int) -> None:
        """Print the newest ticks that are in the ring."""
        self._tell_state()
        first = max(self.ticks.head - count, self.ticks.first)
        self.cursor = self._cursor("oldest" if self.market else first)
        newest: deque[tuple[Any, ...]] = deque(maxlen=count)
        while len(records := self.cursor.poll()):
            newest.extend(records.tolist())
        if not self.out.json:
            self.out.line(aligned(TICK_COLUMNS, TICK_WIDTHS, TICK_RIGHT))
        self._print(newest)

    def follow_once(self) -> None:
        """Wait for ticks or a while, then print them."""
        ready = self.cursor.wait(timeout=LOOK_S)
        while len(records := self.cursor.poll()):
            self._print(records.tolist())
        self.tell_lost()
        self.out.check()
        if not ready:
            self._tell_state()
            if created_ns(self.name) not in (0, self.created_ns):
                self._attach_again()

    def tell_lost(self, *, at_end: bool = False) -> None:
        """Say how many ticks were overwritten unread, if more were, or at the end."""
        lost = self.cursor.lost
        if lost == self.told and not at_end:
            return
        self.told = lost
        if self.out.json:
            self.out.record("lost", provider=self.provider, ticks=lost)
        self.out.note(f"{lost} ticks lost")

    def _tell_state(self) -> None:
        alive = self.ticks.writer_alive
        if alive == self.alive:
            return
        self.alive = alive
        if self.out.json:
            self.out.record("status", provider=self.provider, writer_alive=alive)
        writer = f"process {self.ticks.writer_pid} writes" if alive else "nobody writes"
        self.out.note(f"{self.provider}'s ticks: {writer}")

    def _print(self, records: Iterable[tuple[Any, ...]]) -> None:
        names = self.ticks.markets()
        for record in records:
            fqme = names[record[6]] if record[6] < len(names) else str(record[6])
            if self.out.json:
                self.out.record("tick", **tick_fields(record, fqme))
            else:
                cells = tick_cells(record, fqme)
                self.out.line(aligned(cells, TICK_WIDTHS, TICK_RIGHT))

    def _attach(self) -> TickReader:
        try:
            return attach_ticks(self.provider, namespace=self.namespace)
        except NotFound as error:
            raise NotFound(f"{error}; {what_there_is(self.namespace)}") from None

    def _cursor(self, start: str | int) -> TickCursor:
        wanted = [self.market] if self.market else None
        try:
            return self.ticks.cursor(start=start, markets=wanted)
        except NotFound as error:
            known = ", ".join(self.ticks.markets()) or "none"
            raise NotFound(f"{error}; its markets: {known}") from None

    def _attach_again(self) -> None:
        self.tell_lost(at_end=True)
        try:
            self.ticks = self._attach()
            self.cursor = self._cursor("oldest")
        except NotFound:
            return
        self.created_ns = created_ns(self.name)
        self.told, self.alive = 0, None
        self.out.note(f"{self.provider}'s ticks: the ring was made anew")


def created_ns(name: str) -> int:
    """When the ring that now has this file name was made; 0 if there is none."""
    try:
        return int(describe_segment(name.encode()).get("created_ns", 0))
    except NotFound:
        return 0


def what_there_is(namespace: str) -> str:
    """The rings of a namespace in half a sentence, for those who look for another."""
    rings = [ring for ring in list_segments(namespace) if ring.kind == "bars"]
    names = list(dict.fromkeys(f"{ring.fqme} ({ring.period} s)" for ring in rings))
    if not names:
        return (
            f"namespace {namespace!r} has no bars at all: start a writer with "
            "piker-core feed, or give its --namespace"
        )
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"namespace {namespace!r} has {shown}"
