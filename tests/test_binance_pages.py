"""Binance's lists of trades and aggregates, walked page by page."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest

import piker_core as pk
from piker_core.adapter.trades import EVER_NS
from providers.binance.pages import AggregatePages, TradePages
from tests.binance_answers import Venue, ok

T0_MS = 1_790_000_000_000
STEP_MS = 40
FIRST_ID, FIRST_AGGREGATE = 5000, 700
OLD, AGGREGATED = "/api/v3/historicalTrades", "/api/v3/aggTrades"
GROUP = 3
"""So many trades make an aggregate."""


class Lists(Venue):
    """`count` trades, one every 40 ms, three of them an aggregate at one time."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.trades = [
            {
                "id": FIRST_ID + n,
                "price": "10.5",
                "qty": "0.5",
                "time": (T0_MS + n // GROUP * GROUP * STEP_MS) * 1000,
                "isBuyerMaker": False,
            }
            for n in range(count)
        ]
        self.aggregates = [
            {
                "a": FIRST_AGGREGATE + n // GROUP,
                "p": "10.5",
                "q": "1.5",
                "f": FIRST_ID + n,
                "l": FIRST_ID + min(n + GROUP, count) - 1,
                "T": self.trades[n]["time"],
                "m": False,
            }
            for n in range(0, count, GROUP)
        ]

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path not in (OLD, AGGREGATED):
            return await super().answer(request)
        self.calls.append(request)
        query = request.url.params
        limit = int(query["limit"])
        rows: list[dict[str, Any]] = self.trades
        key, time = "id", "time"
        if request.url.path == AGGREGATED:
            rows, key, time = self.aggregates, "a", "T"
        if "fromId" in query:
            rows = [row for row in rows if row[key] >= int(query["fromId"])][:limit]
        elif "startTime" in query:
            from_us = int(query["startTime"]) * 1000
            rows = [row for row in rows if row[time] >= from_us][:limit]
        else:
            rows = rows[-limit:]
        return ok(rows)


def at_ns(number: int) -> int:
    """When a trade of this number happened."""
    return (T0_MS + number // GROUP * GROUP * STEP_MS) * 10**6


@asynccontextmanager
async def open_pages(
    venue: Lists, kind: type[TradePages] = TradePages
) -> AsyncIterator[TradePages]:
    async with venue.open_client() as client:
        yield kind(client.spot, await client.symbol("btcusdt"))


async def ids(pages: TradePages, *span: int) -> list[int]:
    """The ids of a walk; nothing is ever missing."""
    walked: list[int] = []
    async for page, hole_ns in pages.walk(*span):
        assert not hole_ns and page.dtype == pk.TICK_DTYPE
        walked += page["id"].tolist()
    return walked


async def test_pages_from_an_id_join_exactly() -> None:
    venue = Lists(2500)
    async with open_pages(venue) as pages:
        walked = await ids(pages, at_ns(10), EVER_NS, FIRST_ID + 10)
        assert walked == list(range(FIRST_ID + 10, FIRST_ID + 2500))
        assert venue.count(OLD) == 3 and not venue.count(AGGREGATED)
        until = await ids(pages, at_ns(10), at_ns(1100), FIRST_ID + 10)
        assert until == list(range(FIRST_ID + 10, FIRST_ID + 2010))


async def test_a_page_that_is_just_full_is_followed_by_one_more() -> None:
    venue = Lists(1000)
    async with open_pages(venue) as pages:
        assert len(await ids(pages, at_ns(0), EVER_NS, FIRST_ID)) == 1000
        assert venue.count(OLD) == 2


async def test_from_a_time_the_newest_page_may_be_all_there_is_to_ask() -> None:
    venue = Lists(2500)
    async with open_pages(venue) as pages:
        walked = await ids(pages, at_ns(2100), EVER_NS, -1)
        assert walked == list(range(FIRST_ID + 2099, FIRST_ID + 2500))
        assert venue.count(OLD) == 1 and not venue.count(AGGREGATED)


async def test_from_an_older_time_the_first_id_is_found() -> None:
    venue = Lists(2500)
    async with open_pages(venue) as pages:
        walked = await ids(pages, at_ns(300), EVER_NS, -1)
        assert walked == list(range(FIRST_ID + 300, FIRST_ID + 2500))
        assert venue.count(AGGREGATED) == 1


async def test_the_newest_trade_is_told_where_nothing_traded_since() -> None:
    async with open_pages(Lists(50)) as pages:
        assert await ids(pages, at_ns(10**6), EVER_NS, -1) == [FIRST_ID + 49]
    async with open_pages(Lists(0)) as pages:
        assert await ids(pages, at_ns(0), EVER_NS, -1) == []


async def test_aggregates_are_walked_by_ids_of_their_own() -> None:
    venue = Lists(4000)
    async with open_pages(venue, AggregatePages) as pages:
        walked = await ids(pages, at_ns(0), EVER_NS, FIRST_AGGREGATE)
        assert walked == list(range(FIRST_AGGREGATE, FIRST_AGGREGATE + 1334))
        walked = await ids(pages, at_ns(300), EVER_NS, -1)
        assert walked == list(range(FIRST_AGGREGATE + 100, FIRST_AGGREGATE + 1334))
        assert not venue.count(OLD)


@pytest.mark.parametrize("kind", [TradePages, AggregatePages])
async def test_trades_between_two_times_are_those_and_no_others(
    kind: type[TradePages],
) -> None:
    async with open_pages(Lists(4000), kind) as pages:
        ticks = await pages.between(at_ns(300), at_ns(3300))
        assert ticks.dtype == pk.TICK_DTYPE and ticks["count"].sum() == 3000
        assert ticks["time_ns"][0] == at_ns(300) and ticks["time_ns"][-1] < at_ns(3300)
        assert (np.diff(ticks["id"]) == 1).all()
        assert not len(await pages.between(at_ns(10**6), at_ns(10**7)))
        assert not len(await pages.between(0, at_ns(0)))


async def test_an_id_of_another_list_is_as_good_as_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_pages(Lists(10_000)) as pages:
        walked = await ids(pages, at_ns(9600), EVER_NS, FIRST_ID + 10)
        assert walked == list(range(FIRST_ID + 9599, FIRST_ID + 10_000))
        assert "5010 is no id of its list" in caplog.text


async def test_a_list_that_lags_behind_the_stream_is_no_other_one() -> None:
    async with open_pages(Lists(100)) as pages:
        assert await ids(pages, at_ns(99), EVER_NS, FIRST_ID + 100) == []


async def test_a_walk_can_be_left_early() -> None:
    venue = Lists(5000)
    async with open_pages(venue) as pages:
        async with aclosing(pages.walk(at_ns(0), EVER_NS, FIRST_ID)) as walk:
            async for page, _ in walk:
                assert len(page) == 1000
                break
        assert venue.count(OLD) == 1
