"""Checks by a recording: bars under faults must equal those of the clean replay.

Every replay has a provider of its own, whose clock goes by the recording. No message is
lost: what could not be sent is sent later.
"""

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from types import ModuleType

import trio

from piker_core.conformance.process import SubjectProcess, Told, open_subject
from piker_core.conformance.recording import Recording
from piker_core.conformance.replay import ReplayVenue, open_replay
from piker_core.conformance.report import Failed, NotApplicable, Passed
from piker_core.conformance.stage import forget_rings
from piker_core.conformance.truth import PRICES, clock, records
from piker_core.conformance.venues import own_namespace, pointed
from piker_core.core.rings import attach_bars
from piker_core.tasks import open_nursery

LONGEST_S = 30.0
"""So much of a recording is replayed."""
LEAD_S = 4.0
"""A provider has so long to be ready before the first message."""
OUTAGE_S = 1.3
SILENCE_S = 4.0
DRAINED_S = 0.3
SETTLED_S = 2.0
OVER_S = 40.0
"""How much longer than the recording a replay may take."""
RATE = 0.2
CLEAN = "replay.clean"
_FIELDS = (*PRICES, "volume", "count", "bar_wap")

Rows = dict[tuple[str, int], tuple[float, ...]]
"""Values of rows that traded, by symbol and time."""
Disturb = Callable[[ReplayVenue], Awaitable[None]]
Outcome = Passed | Failed | NotApplicable


async def leave_alone(venue: ReplayVenue) -> None:
    """Nothing happens to it."""


async def cut(venue: ReplayVenue) -> None:
    """The connection is reset twice, and cannot be made for a while."""
    async with _paused(venue):
        venue.faults.refuse_connections()
        venue.faults.cut()
        await trio.sleep(OUTAGE_S)
        venue.faults.refuse_connections(False)
    await _reach(venue, 2 / 3)
    async with _paused(venue):
        venue.faults.cut()


async def close(venue: ReplayVenue) -> None:
    """The connection is closed in the way of the protocol."""
    async with _paused(venue):
        venue.faults.close()


async def half_open(venue: ReplayVenue) -> None:
    """The connection says nothing any more."""
    async with _paused(venue):
        venue.faults.half_open()
        venue.faults.half_open(False)
        await trio.sleep(SILENCE_S)


async def spoil(venue: ReplayVenue) -> None:
    """Messages come twice, cut short and with nonsense between them."""
    recorded = [m.text for script in venue.scripts for m in script.messages[:50]]
    broken = [text[: len(text) * n // (n + 1)] for n, text in enumerate(recorded, 1)]
    venue.faults.duplicate(RATE)
    venue.faults.malformed(broken)
    venue.faults.malformed([b"", b"null", b"[]", b"{}", b"\x00\xff", b"[" * 2000])


TAKES: dict[str, Disturb] = {
    CLEAN: leave_alone,
    "replay.cut": cut,
    "replay.closed": close,
    "replay.half_open": half_open,
    "replay.spoilt": spoil,
}


@asynccontextmanager
async def _paused(venue: ReplayVenue) -> AsyncIterator[None]:
    """While nothing is on its way and nothing is sent."""
    venue.pause()
    await trio.sleep(DRAINED_S)
    try:
        yield
    finally:
        venue.pause(False)


async def _reach(venue: ReplayVenue, part: float) -> None:
    """Wait until a part of the recording has been played."""
    begin_s = venue.recording.begin_s
    due_s = begin_s + (venue.end_s - begin_s) * part
    await trio.sleep(max(due_s - venue.now_s(), 0))


class Replays:
    """The replays of one recording, side by side."""

    def __init__(
        self,
        provider: ModuleType,
        spec: str,
        recording: Recording,
        symbols: Sequence[str],
        seed: int,
    ) -> None:
        self.provider, self.spec, self.recording = provider, spec, recording
        self.symbols, self.seed = list(symbols), seed
        self._rows: dict[str, Rows] = {}
        self._failures: dict[str, Failed] = {}

    async def run(self, names: Collection[str]) -> dict[str, Outcome]:
        """The outcome of each; the clean one is run in any case."""
        async with open_nursery() as nursery:
            for name in {CLEAN, *names}:
                nursery.start_soon(self._run, name)
        return {name: self._outcome(name) for name in TAKES if name in names}

    def _outcome(self, name: str) -> Outcome:
        if name in self._failures:
            return self._failures[name]
        if CLEAN in self._failures:
            return NotApplicable("the clean replay has failed: nothing to compare with")
        rows, clean = self._rows[name], self._rows[CLEAN]
        trades = int(sum(values[5] for values in rows.values()))
        if name == CLEAN:
            markets = ", ".join(self.symbols)
            text = f"{len(rows)} rows with {trades} trades of {markets}"
            return Passed(text, {"rows": len(rows), "trades": trades})
        wrong = _differences(clean, rows)
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            return Failed(wrong[0] + more)
        return Passed(f"{len(rows)} rows as without", {"rows": len(rows)})

    async def _run(self, name: str) -> None:
        namespace = own_namespace()
        try:
            self._rows[name] = await self._play(namespace, TAKES[name])
        except Failed as failure:
            self._failures[name] = failure
        finally:
            forget_rings(str(self.provider.name), namespace)

    async def _play(self, namespace: str, disturb: Disturb) -> Rows:
        """One replay, with whatever happens to it; the rows that came of it."""
        outcome: Rows | Failed
        async with open_replay(
            self.provider,
            self.recording,
            seed=self.seed,
            longest_s=LONGEST_S,
            lead_s=LEAD_S,
        ) as venue:
            environ = pointed(self.provider, venue.config, namespace)
            behind_ns = int((time.time() - venue.now_s()) * 1e9)
            async with open_subject(self.spec, environ, behind_ns=behind_ns) as subject:
                try:
                    await self._open(subject, venue)
                    await _reach(venue, 1 / 3)
                    await disturb(venue)
                    await self._wait_over(subject, venue)
                    outcome = self._read(venue, namespace)
                except Failed as failure:  # raised below, outside of all groups
                    outcome = failure
        if isinstance(outcome, Failed):
            raise outcome
        return outcome

    async def _open(self, subject: SubjectProcess, venue: ReplayVenue) -> None:
        try:
            await subject.ask("open", symbols=self.symbols)
        except Told as error:
            calls = "; ".join(dict.fromkeys(venue.missing))
            lacks = f"; not in the recording: {calls}" if calls else ""
            raise Failed(f"the feed does not open: {error}{lacks}") from None

    async def _wait_over(self, subject: SubjectProcess, venue: ReplayVenue) -> None:
        """Wait until all has been sent and taken in."""
        span_s = venue.end_s - venue.recording.begin_s
        with trio.move_on_after(span_s + OVER_S):
            while not venue.over:
                if not subject.alive:
                    raise Failed(await subject.obituary())
                await trio.sleep(0.05)
        if not venue.over:
            text = f"it did not listen to the end of the recording, {OVER_S:g} s later"
            raise Failed(text)
        await trio.sleep(SETTLED_S)
        if not subject.alive:
            raise Failed(await subject.obituary())

    def _read(self, venue: ReplayVenue, namespace: str) -> Rows:
        begin_s, end_s = math.ceil(venue.recording.begin_s), math.floor(venue.end_s)
        rows: Rows = {}
        for symbol in self.symbols:
            fqme = f"{symbol}.{self.provider.name}"
            with attach_bars(fqme, period=1, namespace=namespace) as bars:
                found = [r for r in records(bars.between(begin_s, end_s)) if r["count"]]
            if not found:
                raise Failed(f"no trade of {fqme} came of the recording")
            for row in found:
                rows[symbol, row["time"]] = tuple(row[name] for name in _FIELDS)
        return rows


def _differences(clean: Rows, rows: Rows) -> list[str]:
    """In what rows are not those of the clean replay."""
    wrong = []
    for key in sorted(clean.keys() | rows.keys()):
        if clean.get(key) != rows.get(key):
            symbol, time_s = key
            got, want = _shown(rows.get(key)), _shown(clean.get(key))
            wrong.append(f"{symbol} {clock(time_s)}: {got}, without faults {want}")
    return wrong


def _shown(values: tuple[float, ...] | None) -> str:
    if values is None:
        return "no trade"
    return " ".join(f"{n} {v:g}" for n, v in zip(_FIELDS, values, strict=True))
