"""Closed rows of an engine's rings, kept in a store while they are fed.

Rules this file owns:

1. Only rows that are over are stored; the forming one never is.
2. A row that changes later is stored again: late trades, repairs, whatever comes to be
   below. The rings themselves say where: chunks of rows are remembered as windows, and
   one that is not intact any more is compared with what was stored.
3. A row that does not know all (a placeholder, a bar opened in its middle) never
   replaces one that does. Rows that came from the store are not written to it.
4. The feed never waits for the store. What a store does not take is still in the ring
   and is stored later, unless it falls off the ring; that it fails is said once.
"""

import logging
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import trio

from piker_core.backfill import UNSURE
from piker_core.core.engine import FeedEngine, Market
from piker_core.core.rings import BarReader, attach_bars
from piker_core.dtypes import OHLCV_DTYPE, BarFlag
from piker_core.errors import PikerError
from piker_core.fetch import Rows
from piker_core.tasks import Backoff, open_nursery

if TYPE_CHECKING:
    from piker_core.store.protocol import Store

KEEP_S = 5.0
"""Pause between two rounds, and at least as often..."""
SHARE = 9
"""... as long as the last one took: a slow store gets larger batches."""
CLOSE_S = 30.0
"""How long rows are still stored after the feed has ended."""
CHUNK = 1024
"""Rows that are looked at together."""
MOST_CHUNKS = 64
"""Chunks of one ring that are stored in one round."""
RECENT = 4
"""Newest chunks whose stored rows are held in memory, too."""
HANGS_S = 1.0
"""A round ends with a store that takes so long to fail."""
OVER_S = 2.0
"""When the newest row is taken for closed, though no other one follows it."""
_NAMES = [name for name in OHLCV_DTYPE.names or () if name not in ("index", "flags")]

log = logging.getLogger("piker_core.keeper")


class Mark(NamedTuple):
    """Rows `start` to `stop` of a ring are in the store as they were in `window`."""

    start: int
    stop: int
    window: Rows
    rows: Rows | None


class RingKeeper:
    """Stores the rows of one ring. Used by one thread at a time."""

    def __init__(self, store: "Store", bars: BarReader) -> None:
        self.bars = bars
        self.lost = 0
        """Rows that fell off the ring before they were stored."""
        self._store = store
        self._marks: dict[int, Mark] = {}
        self._stop = 0

    def keep(self) -> bool:
        """Store what is new or changed; whether there is more. Raises StoreError."""
        first, stop = self.bars.first, self._closed()
        if self._stop and first > self._stop:
            self.lost += first - self._stop
            self._stop = first
        found: dict[int, Mark] = {}
        for number in range(first // CHUNK, -(-stop // CHUNK)):
            start, end = number * CHUNK, (number + 1) * CHUNK
            if not self._is_kept(number, max(start, first), min(end, stop)):
                found[number] = self._look(max(start, first), min(end, stop))
                if len(found) == MOST_CHUNKS:
                    break
        if found:
            self._write(found)
        self._forget(first // CHUNK, stop // CHUNK - RECENT)
        return len(found) == MOST_CHUNKS

    def _closed(self) -> int:
        """The sequence after the last row that is over."""
        head = self.bars.head
        newest = self.bars.snapshot(1, end=head)
        if not len(newest):
            return head
        end_s = int(newest["time"][0]) + self.bars.period
        return head if end_s + OVER_S <= time.time() else head - 1

    def _is_kept(self, number: int, start: int, stop: int) -> bool:
        mark = self._marks.get(number)
        if mark is None or mark.start > start or mark.stop != stop:
            return False
        return self.bars.intact(mark.window[start - mark.start :])

    def _look(self, start: int, stop: int) -> Mark:
        """Rows as they are now: whatever changes them from now on is noticed."""
        window = self.bars.window(stop - start, end=stop)
        rows = self.bars.snapshot(len(window), end=stop)
        return Mark(stop - len(window), stop, window, rows)

    def _write(self, found: Mapping[int, Mark]) -> None:
        """Store those rows of chunks that say something new."""
        marks = dict(found)
        unknown = [marks[n] for n in marks if self._kept_rows(n) is None]
        stored = self._stored(unknown)
        changes: list[Rows] = []
        for number, mark in marks.items():
            assert mark.rows is not None
            kept = self._kept_rows(number)
            changed, rows = _changes(mark.rows, stored if kept is None else kept)
            changes.append(changed)
            marks[number] = mark._replace(rows=rows)
        batch = np.concatenate(changes)
        if len(batch):
            self._store.write_ohlcv(self.bars.fqme, self.bars.period, batch)
        self._marks |= marks
        self._stop = max(self._stop, *(mark.stop for mark in marks.values()))

    def _kept_rows(self, number: int) -> Rows | None:
        mark = self._marks.get(number)
        return mark.rows if mark else None

    def _stored(self, marks: Iterable[Mark]) -> Rows:
        """What the store has of the time of these chunks."""
        times = [m.rows["time"] for m in marks if m.rows is not None and len(m.rows)]
        if not times:
            return np.zeros(0, OHLCV_DTYPE)
        start_s = min(int(each[0]) for each in times)
        end_s = max(int(each[-1]) for each in times) + self.bars.period
        return self._store.read_ohlcv(self.bars.fqme, self.bars.period, start_s, end_s)

    def _forget(self, first: int, recent: int) -> None:
        """Marks of rows that are gone, and rows of older chunks."""
        for number in [n for n in self._marks if n < first]:
            del self._marks[number]
        for number, mark in list(self._marks.items()):
            if number < recent and mark.rows is not None:
                self._marks[number] = mark._replace(rows=None)


def _changes(rows: Rows, kept: Rows) -> tuple[Rows, Rows]:
    """Those rows that are to be stored, and what is stored then of all their times."""
    places = np.searchsorted(kept["time"], rows["time"])
    known = places < len(kept)
    known[known] = kept["time"][places[known]] == rows["time"][known]
    old = rows.copy()
    old[known] = kept[places[known]]
    other = ~known
    for name in _NAMES:
        other |= rows[name] != old[name]
    other |= ((rows["flags"] ^ old["flags"]) & ~int(BarFlag.BACKFILLED)) != 0
    unsure = (rows["flags"] & UNSURE) != 0
    other &= ~(known & unsure & ((old["flags"] & UNSURE) == 0))
    old[other] = rows[other]
    return rows[other], old


class _Ring:
    """A ring that is kept, and when the store is tried again."""

    def __init__(self, keeper: RingKeeper) -> None:
        self.keeper = keeper
        self.backoff = Backoff(2.0, 60.0)
        self.next_s = 0.0


class Keeper:
    """Keeps the rings of an engine's markets in a store."""

    def __init__(
        self, engine: FeedEngine, store: "Store", markets: Mapping[str, Market]
    ) -> None:
        self._namespace = engine.namespace
        self._store = store
        self._markets = markets
        self._rings: dict[tuple[str, int], _Ring] = {}
        self._failing: set[tuple[str, int]] = set()
        self._told: set[tuple[str, int]] = set()

    async def run(self) -> None:
        """Store what there is, again and again, until cancelled."""
        pause_s = KEEP_S
        while True:
            await trio.sleep(pause_s)
            began_s = trio.current_time()
            more = await self._round()
            took_s = trio.current_time() - began_s
            pause_s = 0.0 if more else max(KEEP_S, SHARE * took_s)

    async def finish(self) -> None:
        """Store the rest, when nothing is pushed any more."""
        for ring in self._rings.values():
            ring.next_s = 0.0
        until_s = trio.current_time() + CLOSE_S
        with trio.CancelScope(shield=True):
            while await self._round() and trio.current_time() < until_s:
                pass
        for ring in self._rings.values():
            ring.keeper.bars.close()

    async def _round(self) -> bool:
        """All rings once; whether there is more of one."""
        names = [
            (market.fqme, period)
            for market in list(self._markets.values())
            for period in market.bars
        ]
        return await trio.to_thread.run_sync(self._keep_all, names)

    def _keep_all(self, names: Collection[tuple[str, int]]) -> bool:
        more = False
        for name in names:
            began_s = time.monotonic()
            more |= self._keep(name)
            if name in self._failing and time.monotonic() - began_s > HANGS_S:
                break
        return more

    def _keep(self, name: tuple[str, int]) -> bool:
        ring = self._attached(name)
        if ring is None or time.monotonic() < ring.next_s:
            return False
        try:
            more = ring.keeper.keep()
        except Exception as error:  # noqa: BLE001 - whatever it is, the feed goes on
            ring.next_s = time.monotonic() + ring.backoff.next_s()
            self._complain(name, error)
            return False
        ring.backoff.reset()
        self._commend(name, ring.keeper.lost)
        return more

    def _attached(self, name: tuple[str, int]) -> _Ring | None:
        if name not in self._rings:
            fqme, period = name
            try:
                bars = attach_bars(fqme, period=period, namespace=self._namespace)
            except PikerError as error:
                log.debug("%s of %d s: %s", fqme, period, error)
                return None
            self._rings[name] = _Ring(RingKeeper(self._store, bars))
        return self._rings[name]

    def _complain(self, name: tuple[str, int], error: Exception) -> None:
        """Say once that the store fails, whatever number of rings it is told of."""
        text = "rows of %s, %d s, wait in their ring to be stored: %s"
        level = logging.DEBUG if self._failing else logging.WARNING
        bug = not isinstance(error, PikerError | OSError)
        log.log(level, text, *name, error, exc_info=bug)
        self._failing.add(name)

    def _commend(self, name: tuple[str, int], lost: int) -> None:
        if name in self._failing:
            self._failing.remove(name)
            if not self._failing:
                log.warning("rows are stored again")
        if lost and name not in self._told:
            self._told.add(name)
            text = (
                "%d rows of %s, %d s, fell off their ring before they were stored: "
                "piker-core history fetches them from the venue"
            )
            log.warning(text, lost, *name)


@asynccontextmanager
async def open_keeper(
    engine: FeedEngine, store: "Store | None", markets: Mapping[str, Market]
) -> AsyncIterator[None]:
    """Keep the rings of markets in a store while the block lasts, and their rest then.

    Nothing without a store. `markets` may grow.
    """
    if store is None:
        yield
        return
    keeper = Keeper(engine, store, markets)
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            yield
            nursery.cancel_scope.cancel()
    finally:
        await keeper.finish()
