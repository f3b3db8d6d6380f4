"""`demo`: a simulated venue, its feed, the rings, a process reading them, orders."""

import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import trio

from piker_core.cli.demo_check import Comparison, compare
from piker_core.cli.demo_orders import (
    PaperOrders,
    are_good,
    outcome_text,
    verdict_text,
)
from piker_core.cli.failures import OK, VENUE
from piker_core.cli.feeds import REFRESH_HZ, LiveTable, gap_text
from piker_core.cli.output import Output, utc_text
from piker_core.cli.watch import RingWatch, event_fields
from piker_core.core.rings import checked_namespace
from piker_core.errors import NotFound, PikerError, SegmentError
from piker_core.feed import Feed, Flume, open_feed
from piker_core.orders import Status
from piker_core.provider import find_provider
from piker_core.segments import list_segments, remove_segments
from piker_core.tasks import open_nursery

PAIRS = {
    "xbtusd.kraken": "XBTUSD",
    "ethusd.kraken": "ETHUSD",
    "xbtusdt.kraken": "XBTUSDT",
}
"""The markets shown, and their names at the venue."""
TRADES_PER_S = 60.0
OUTAGE_S = 1.5
SETTLE_S = 1.2
LATE_S = 5.0
REPAIR_S = 15.0
GOODBYE_S = 5.0


def run_demo(
    out: Output, *, seconds: float, namespace: str | None, journal: Path | None = None
) -> int:
    """Run it for so many seconds; the exit code, 0 if all was equal and whole."""
    space = checked_namespace(namespace) if namespace else f"demo{os.getpid()}"
    if list_segments(space):
        raise SegmentError(
            f"namespace {space!r} has rings already, and the demo removes its own in "
            "the end: leave --namespace away, or give an unused one"
        )
    try:
        return trio.run(Demo(out, space, seconds, journal).run)
    finally:
        remove_segments(space, force=True)


def find_venue() -> ModuleType:
    """The simulated venue in the provider's package. Raises NotFound without one."""
    package = find_provider("kraken").__name__
    try:
        return importlib.import_module(f"{package}.venue")
    except ModuleNotFoundError as error:
        raise NotFound(f"{package} has no simulated venue: {error}") from None


@contextmanager
def only_these(settings: Mapping[str, str]) -> Iterator[None]:
    """Configuration from these variables alone: no file, nothing of the user's."""
    before = dict(os.environ)
    for key in before:
        if key.startswith("PIKER_") and "__" in key:
            del os.environ[key]
    os.environ.update(settings, PIKER_CONFIG=os.devnull)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _settings(venue: Any, folder: str) -> dict[str, str]:
    return {
        "PIKER_STATE": folder,
        "PIKER_KRAKEN__WS_URL": venue.ws_url,
        "PIKER_KRAKEN__REST_URL": venue.rest_url,
        "PIKER_KRAKEN__REST_RATE": "20",
        "PIKER_FEED__SECONDS_BACK": "60",
        "PIKER_FEED__MINUTES_BACK": "20",
    }


class Demo:
    """One run of the demo, in a namespace of its own."""

    def __init__(
        self, out: Output, namespace: str, seconds: float, journal: Path | None = None
    ) -> None:
        self.out = out
        self.journal = journal
        self.namespace = namespace
        self.seconds = seconds
        self.report: dict[str, Any] = {}
        self.said = ""
        self.gaps: dict[tuple[str, int], bool] = {}
        self.orders = PaperOrders(self._say_status)

    async def run(self) -> int:
        """Open all, watch, compare; the exit code."""
        module = find_venue()
        with tempfile.TemporaryDirectory(prefix="piker-demo-") as folder:
            async with module.open_venue(
                pairs=list(PAIRS.values()),
                live_rate=TRADES_PER_S,
                history_s=1800.0,
                rest_rate=50.0,
                rest_burst=100.0,
            ) as venue:
                with only_these(_settings(venue, folder)):
                    async with open_feed(
                        PAIRS, namespace=self.namespace, journal=self.journal
                    ) as feed:
                        return await self._watch(venue, feed)

    async def _watch(self, venue: Any, feed: Feed) -> int:
        started_s = math.floor(time.time()) + 1
        async with self._reading_process() as process, trio.open_nursery() as nursery:
            self.out.note(
                f"a simulated Kraken at {venue.ws_url}, written by process "
                f"{os.getpid()}, read by process {process.pid}; namespace "
                f"{self.namespace}"
            )
            for fqme, each in feed.flumes.items():
                nursery.start_soon(self._follow, fqme, each)
            flume = feed.flumes[next(iter(PAIRS))]
            nursery.start_soon(self._show, feed)
            async with open_nursery() as busy:
                busy.start_soon(self.orders.run, flume, self.namespace)
                await self._disturb(venue)
            await self._wait_repaired(feed)
            ended_s = math.floor(time.time())
            result = await self._compare(venue, feed, started_s, ended_s)
            await self._end_reading(process)
            nursery.cancel_scope.cancel()
        return self.conclude(result)

    async def _disturb(self, venue: Any) -> None:
        """Cut the connection half-way and keep it down for a moment."""
        await trio.sleep(self.seconds / 2)
        self._say("the connection to the venue is cut")
        venue.faults.refuse_connections()
        venue.faults.cut()
        await trio.sleep(OUTAGE_S)
        venue.faults.refuse_connections(False)
        self._say("the venue can be reached again")
        await trio.sleep(max(self.seconds / 2 - OUTAGE_S - SETTLE_S, 0.0))

    async def _wait_repaired(self, feed: Feed) -> None:
        """A gap that is still open gets some time more, within reason."""
        with trio.move_on_after(REPAIR_S):
            while any(_is_broken(flume) for flume in feed.flumes.values()):  # noqa: ASYNC110
                await trio.sleep(0.1)

    async def _compare(
        self, venue: Any, feed: Feed, start_s: int, end_s: int
    ) -> Comparison:
        """Compare, again if need be: the last trades may still be on their way."""
        await trio.sleep(SETTLE_S)
        deadline_s = trio.current_time() + LATE_S
        while True:
            result = compare(venue, feed.flumes, PAIRS, start_s, end_s)
            if result.good or trio.current_time() > deadline_s:
                return result
            await trio.sleep(0.25)

    # The second process

    @asynccontextmanager
    async def _reading_process(self) -> AsyncIterator[trio.Process]:
        # In a session of its own, or Ctrl-C would hit it as well.
        process = await trio.lowlevel.open_process(
            [
                sys.executable,
                "-m",
                "piker_core.cli.demo_reader",
                self.namespace,
                *PAIRS,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, process)
                yield process
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    async def _listen(self, process: trio.Process) -> None:
        assert process.stdout is not None
        rest = b""
        async for chunk in process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.report = json.loads(line)
                if self.out.json:
                    self.out.record("reader", pid=process.pid, **self.report)
        if await process.wait() != 0:
            raise PikerError(
                f"the reading process ended with code {process.returncode}"
            )

    async def _end_reading(self, process: trio.Process) -> None:
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.move_on_after(GOODBYE_S):
            await process.wait()
            return
        raise PikerError(f"the reading process {process.pid} does not end")

    # What is seen meanwhile

    async def _follow(self, fqme: str, flume: Flume) -> None:
        watch = RingWatch(flume.rt)
        while True:
            self.out.check()
            for kind, content in watch.look():
                if self.out.json:
                    self.out.record(kind, fqme=fqme, **event_fields(kind, content))
                if kind == "gap":
                    self.gaps[fqme, content["start_ns"]] = content["repaired"]
                    self._say(f"{fqme}: {gap_text(content)}")
            with trio.move_on_after(0.1):
                await flume.rt.changed(after=watch.head)

    def _say_status(self, status: Status) -> None:
        """Of a paper order."""
        if self.out.json:
            self.out.record("order", status=status)
        self._say(f"order {status.oid}: {status.resp}")

    def _say(self, text: str) -> None:
        self.said = text
        if not sys.stdout.isatty():
            self.out.note(f"{utc_text(time.time())[11:]} {text}")

    async def _show(self, feed: Feed) -> None:
        if self.out.json or not sys.stdout.isatty():
            return
        table = LiveTable(
            feed,
            REFRESH_HZ,
            title=lambda: self.said,
            caption=lambda: reader_text(self.report),
        )
        await table.run()

    # The end

    def conclude(self, result: Comparison) -> int:
        """Tell the verdict; the exit code, 0 only if all was equal and whole."""
        report = self.report
        whole = report["lost"] == report["torn"] == 0 < report["ticks"]
        repaired = bool(self.gaps) and all(self.gaps.values())
        good = result.good and repaired and whole
        good = good and report["ticks"] == report["published"]
        outcomes = self.orders.outcomes()
        good = good and are_good(outcomes)
        if self.out.json:
            self.out.record(
                "summary",
                good=good,
                **result.fields(),
                gaps=len(self.gaps),
                gaps_repaired=sum(self.gaps.values()),
                reader=report,
                orders=outcomes,
            )
        else:
            for line in self._summary(result):
                self.out.line(line)
        return OK if good else VENUE

    def _summary(self, result: Comparison) -> list[str]:
        outcomes = self.orders.outcomes()
        repaired = sum(self.gaps.values())
        return [
            f"bars     {result.equal} of {result.bars} equal the venue's own candles",
            f"trades   {result.counted} of {result.trades} in them",
            f"gaps     {repaired} of {len(self.gaps)} repaired",
            f"reader   {reader_text(self.report)}",
            *(f"order    {outcome_text(outcome)}" for outcome in outcomes),
            f"orders   {verdict_text(outcomes)}",
            *(f"unequal  {text}" for text in result.unequal[:10]),
        ]


def _is_broken(flume: Flume) -> bool:
    return flume.status != "live" or not flume.rt.gaps()["repaired"].all()


def reader_text(report: Mapping[str, Any]) -> str:
    """The reading process's report in one line."""
    if not report:
        return "the reading process has not reported yet"
    text = (
        f"{report['ticks']} ticks and {report['rows']} bars in another process, "
        f"{report['lost']} lost, {report['torn']} torn of {report['rows_read']} rows"
    )
    if latency := report["latency_us"]:
        text += "; publish to read: " + ", ".join(
            f"{name} {value:.0f} us" for name, value in latency.items()
        )
    return text
