"""A contract's opening and closing in its rings: no rows, no gaps while closed."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
import trio

import piker_core as pk
from piker_core.calendars import FOREVER_NS, NS
from providers.ib.hours import Hours, Span
from providers.ib.venue import Hours as VenueHours
from providers.ib.venue import Venue
from providers.ib.venue_contracts import list_contracts
from tests.ib_gateway import wait_repaired, wait_until, wrong_rows
from tests.ib_scenes import Scenes, open_feed, point

_hours: ContextVar[Hours] = ContextVar("hours")
scenes = Scenes(
    {
        "providers.ib.hours._JOIN_NS": 0,
        "providers.ib.feed.known_hours": lambda *_: _hours.get(),
        "providers.ib.history.known_hours": lambda *_: _hours.get(),
    }
)


class Given(Hours):
    """Hours of which the spans are given, in seconds UTC."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        super().__init__({date.min: ()}, ZoneInfo("UTC"))
        self._given = [(begin * NS, end * NS) for begin, end in spans]

    @property
    def told_until_ns(self) -> int:
        return FOREVER_NS

    def _around(self, start_ns: int, end_ns: int) -> list[Span]:
        return list(self._given)


@asynccontextmanager
async def open_closing(
    spans: Sequence[tuple[int, int]], **settings: Any
) -> AsyncIterator[tuple[Venue, str, str]]:
    """A venue of one future with such hours, its full name and the venue's symbol."""
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    midnight = day.timestamp()
    minutes = tuple(
        ((max(begin, midnight) - midnight) / 60, (end - midnight) / 60)
        for begin, end in spans
    )
    every = (0, 1, 2, 3, 4, 5, 6)
    kept = VenueHours(zone="UTC", trading=minutes, liquid=minutes, weekdays=every)  # type: ignore[arg-type]
    future = next(row for row in list_contracts(day.date()) if row.ticker == "MNQ")
    contract = msgspec.structs.replace(future, hours=kept, live_share=1.0)
    assert contract.expiry is not None
    _hours.set(Given(spans))
    async with point(
        contracts=[contract], keep_hours=True, live_rate=20.0, settings=settings
    ) as venue:
        name = f"mnq.cme.{contract.expiry:%Y%m%d}.ib"
        yield venue, name, contract.symbol


def rows_of(flume: pk.Flume) -> np.ndarray[Any, Any]:
    return flume.rt.snapshot(flume.rt.head - flume.rt.first)


def inside(flume: pk.Flume, start_s: int, end_s: int) -> list[int]:
    times = rows_of(flume)["time"].tolist()
    assert times == sorted(set(times))
    return [at for at in times if start_s <= at < end_s]


@scenes.add
async def a_market_is_closed_between_its_sessions_without_rows_or_gaps() -> None:
    now_s = int(time.time())
    closes, opens, ends = now_s + 7, now_s + 10, now_s + 9000
    spans = [(now_s - 9000, closes), (opens, ends)]
    async with open_closing(spans) as (venue, name, symbol):
        async with open_feed([name]) as feed:
            flume = feed.flumes[name]
            await wait_until(lambda: flume.status == "live")
            await wait_until(lambda: flume.status == "closed")
            assert closes <= time.time()
            await wait_until(lambda: time.time() > opens - 1)
            assert inside(flume, closes - 2, ends) == [closes - 2, closes - 1]
            await wait_until(lambda: flume.status == "live")
            await wait_until(lambda: time.time() > opens + 3.5)
            assert not inside(flume, closes, opens)
            assert {opens + 1, opens + 2} <= set(inside(flume, opens, ends))
            assert not len(flume.rt.gaps())
            assert not wrong_rows(venue, flume.rt, symbol)


@scenes.add
async def a_market_that_is_closed_at_the_start_has_a_price_and_no_rows() -> None:
    now_s = int(time.time())
    opens = now_s + 7
    spans = [(now_s - 9000, now_s - 100), (opens, now_s + 9000)]
    async with open_closing(spans) as (venue, name, symbol):
        async with open_feed([name]) as feed:
            flume = feed.flumes[name]
            assert flume.first_quote["last"] > 0
            await wait_until(lambda: flume.status == "closed")
            await wait_until(lambda: time.time() > opens - 1)
            assert not inside(flume, now_s - 100, opens)
            await wait_until(lambda: flume.status == "live")
            await wait_until(lambda: time.time() > opens + 3.5)
            assert not wrong_rows(venue, flume.rt, symbol)
            live = rows_of(flume)
            live = live[live["time"] >= opens]
            assert len(live) > 1
            assert not (live["flags"] & int(pk.BarFlag.PARTIAL)).any()


@scenes.add
async def of_a_loss_over_closed_hours_only_the_open_parts_are_gaps() -> None:
    now_s = int(time.time())
    closes, opens, ends = now_s + 8, now_s + 10, now_s + 9000
    spans = [(now_s - 9000, closes), (opens, ends)]
    async with open_closing(spans) as (venue, name, symbol):
        async with open_feed([name]) as feed:
            flume = feed.flumes[name]
            await wait_until(lambda: flume.status == "live")
            await wait_until(lambda: time.time() > closes - 2.5)
            venue.faults.refuse_connections()
            venue.faults.cut()
            await wait_until(lambda: time.time() > opens + 1.5)
            venue.faults.refuse_connections(False)
            await wait_until(lambda: len(flume.rt.gaps()) == 2)
            await wait_repaired(flume)
            first, second = flume.rt.gaps()
            assert first["end_ns"] == closes * NS
            assert second["start_ns"] == opens * NS
            assert not inside(flume, closes, opens)
            assert not wrong_rows(venue, flume.rt, symbol)


@scenes.add
async def a_loss_within_closed_hours_is_none() -> None:
    now_s = int(time.time())
    spans = [(now_s - 9000, now_s - 100), (now_s + 900, now_s + 9000)]
    async with open_closing(spans) as (venue, name, _):
        async with open_feed([name]) as feed:
            flume = feed.flumes[name]
            await wait_until(lambda: flume.status == "closed")
            asked = venue.statistics().requests["reqMktData"]
            venue.faults.refuse_connections()
            venue.faults.cut()
            await wait_until(lambda: venue.statistics().connections == 0)
            venue.faults.refuse_connections(False)
            await wait_until(lambda: venue.statistics().requests["reqMktData"] > asked)
            rows = rows_of(flume)
            await trio.sleep(2.1)
            assert flume.status == "closed"
            assert len(rows_of(flume)) == len(rows)
            assert not len(flume.rt.gaps())


@scenes.add
async def a_closed_market_that_says_nothing_is_not_stale() -> None:
    now_s = int(time.time())
    opens = now_s + 7
    spans = [(now_s - 9000, now_s - 100), (opens, now_s + 9000)]
    async with open_closing(spans, silence_s=0.5) as (venue, name, symbol):
        async with open_feed([name]) as feed:
            flume = feed.flumes[name]
            await wait_until(lambda: flume.status == "closed")
            venue.faults.silent()
            asked = venue.statistics().requests["reqMktData"]
            await wait_until(lambda: time.time() > opens - 0.5)
            assert venue.statistics().requests["reqMktData"] == asked
            await wait_until(lambda: flume.status == "stale")
            venue.faults.silent(False)
            await wait_repaired(flume)
            assert flume.rt.gaps()["start_ns"].tolist() == [opens * NS]
            assert not wrong_rows(venue, flume.rt, symbol)


@pytest.mark.parametrize("name", scenes.names)
def test_sessions(name: str) -> None:
    scenes.check(name)
