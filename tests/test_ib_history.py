"""History by TWS: frames, flat rows, empty spans, and every refusal."""

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pendulum
import pytest
import trio

import piker_core as pk
from piker_core.calendars import NS
from providers.ib import contracts as contracts_room
from providers.ib.api import Client, get_client
from providers.ib.archive import BAR_SIZES
from providers.ib.config import Config
from providers.ib.history import GetOhlc, open_history_client
from providers.ib.hours import Hours, contract_hours
from providers.ib.venue import Tape, Venue, open_venue
from tests.ib_gateway import CRYPTO, FOREX, INDEX, STOCK, front

ALL = ("open", "high", "low", "close", "volume", "count")


@asynccontextmanager
async def opened(
    *, settings: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Venue, Client]]:
    known = {"live_rate": 40.0, "history_s": 3 * 3600.0, "server_version": 178}
    async with open_venue(**(known | options)) as venue:
        quick = {"settle_s": 0.2, "history_timeout_s": 1.0, "identical_s": 0.0}
        config = Config(port=venue.port, **(quick | (settings or {})))
        async with get_client(config) as client:
            yield venue, client


def assert_candles(
    rows: np.ndarray[Any, Any],
    venue: Venue,
    symbol: str,
    period: int,
    *,
    what: str = "TRADES",
    fields: tuple[str, ...] = ALL,
) -> None:
    start, end = int(rows["time"][0]), int(rows["time"][-1]) + period
    candles = venue.candles(symbol, period, start, end, what=what)
    assert rows["time"].tolist() == [candle.time_s for candle in candles]
    for row, candle in zip(rows, candles, strict=True):
        for field in fields:
            assert float(row[field]) == float(getattr(candle, field)), (row, candle)


def past(minutes: float) -> pendulum.DateTime:
    return pendulum.now("UTC").subtract(seconds=round(minutes * 60))


@asynccontextmanager
async def history(client: Client, name: str) -> AsyncIterator[GetOhlc]:
    async with open_history_client(name, client=client) as (get_ohlc, limits):
        assert limits["erlangs"] == 3 and limits["rate"] > 0
        yield get_ohlc


@pytest.mark.parametrize("period", [1, 5, 30, 60, 300, 3600])
async def test_rows_are_the_venues_candles_and_final(period: int) -> None:
    async with opened() as (venue, client):
        name, symbol = front(venue)
        async with history(client, name) as get_ohlc:
            rows, start, end = await get_ohlc(period)
        assert (np.diff(rows["time"]) == period).all()
        assert start.timestamp() == rows["time"][0]
        assert end.timestamp() == rows["time"][-1] + period <= time.time()
        assert end.timestamp() > time.time() - period - 2
        assert_candles(rows, venue, symbol, period)
        assert len(rows) <= BAR_SIZES[period].most_s / period


@pytest.mark.parametrize(
    ("name", "symbol", "what", "fields"),
    [
        (STOCK, "AAPL", "TRADES", ALL),
        (FOREX, "EUR.USD", "BID", ALL[:4]),
        (INDEX, "SPX", "TRADES", ALL[:4]),
        (CRYPTO, "BTC.USD", "AGGTRADES", ALL),
    ],
)
async def test_every_class_has_its_history(
    name: str, symbol: str, what: str, fields: tuple[str, ...]
) -> None:
    async with opened() as (venue, client):
        async with history(client, name) as get_ohlc:
            rows, _, _ = await get_ohlc(60)
        assert_candles(rows, venue, symbol, 60, what=what, fields=fields)
        if what == "BID":
            assert (rows["volume"] == 0).all() and (rows["count"] > 0).any()
            flat = rows["count"] == 0
            assert (rows["open"][flat] == rows["close"][flat]).all()


async def test_a_span_with_a_start_is_as_many_frames_as_it_needs() -> None:
    async with opened() as (venue, client):
        name, symbol = front(venue)
        async with history(client, name) as get_ohlc:
            rows, _, _ = await get_ohlc(1, past(10), past(90))
        assert len(rows) == 80 * 60 and (np.diff(rows["time"]) == 1).all()
        assert_candles(rows, venue, symbol, 1)
        assert venue.statistics().requests["reqHistoricalData"] == 3


async def test_a_start_before_the_first_trade_gives_what_there_is() -> None:
    async with opened(history_s=600.0) as (venue, client):
        name, symbol = front(venue)
        async with history(client, name) as get_ohlc:
            rows, start, _ = await get_ohlc(60, None, past(60))
        assert_candles(rows, venue, symbol, 60)
        assert start > past(15)


async def test_seconds_that_the_venue_leaves_out_are_flat_rows() -> None:
    async with opened(tape=Tape(flat_bars=False)) as (venue, client):
        name, symbol = front(venue)
        async with history(client, name) as get_ohlc:
            rows, _, _ = await get_ohlc(1)
        assert (np.diff(rows["time"]) == 1).all()
        flat = (rows["flags"] & int(pk.BarFlag.FLAT)) != 0
        assert flat.sum() > 100 and (rows["volume"][flat] == 0).all()
        assert_candles(rows[~flat], venue, symbol, 1)


async def test_no_rows_are_made_up_for_closed_hours() -> None:
    async with opened(tape=Tape(flat_bars=False)) as (venue, client):
        name, _ = front(venue)
        listing = await client.listing(name)
        now = pendulum.now("UTC")
        opening, closing = now.subtract(minutes=20), now.subtract(minutes=25)
        text = (
            f"{closing:%Y%m%d}:0000-{closing:%Y%m%d}:{closing:%H%M};"
            f"{opening:%Y%m%d}:{opening:%H%M}-{opening:%Y%m%d}:2400"
        )
        closed = msgspec.structs.replace(listing, trading_hours=text, zone="UTC")
        client.gateway.known[listing.symbol] = closed
        async with history(client, name) as get_ohlc:
            rows, _, _ = await get_ohlc(1, past(18), past(28))
        hours = closed.hours("trading")
        flat = rows[(rows["flags"] & int(pk.BarFlag.FLAT)) != 0]
        assert len(flat) and (np.diff(rows["time"]) > 1).any()
        assert all(hours.is_open(int(at) * NS) for at in flat["time"])


async def test_an_end_in_closed_hours_is_the_session_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened() as (venue, client):
        name, _ = front(venue)
        closed_s = math.floor(time.time() / 60) * 60 - 1800

        def early(*_: object) -> Hours:
            hours = contract_hours("", "")
            monkeypatch.setattr(
                hours, "last_open_ns", lambda ns: min(ns, closed_s * NS)
            )
            return hours

        monkeypatch.setattr("providers.ib.history.known_hours", early)
        async with history(client, name) as get_ohlc:
            rows, _, end = await get_ohlc(1)
        assert end.timestamp() == closed_s and len(rows) == 2000
    assert contracts_room.known_hours is not early


async def test_an_empty_span_is_no_data_and_before_the_first_date_never() -> None:
    async with opened(history_s=600.0, live_rate=0.0) as (venue, client):
        async with history(client, front(venue)[0]) as get_ohlc:
            with pytest.raises(pk.DataUnavailable, match="no history before"):
                await get_ohlc(1, past(120))
            with pytest.raises(pk.NoData, match="no final 60 s bar"):
                await get_ohlc(60, past(-30), past(-10))


async def test_small_bars_do_not_reach_back_for_ever() -> None:
    async with opened() as (venue, client):
        async with history(client, front(venue)[0]) as get_ohlc:
            with pytest.raises(pk.DataUnavailable, match="180 days"):
                await get_ohlc(1, past(200 * 1440))
        assert "reqHistoricalData" not in venue.statistics().requests


async def test_a_period_that_tws_has_no_bars_of_is_our_mistake() -> None:
    async with opened() as (venue, client):
        async with history(client, front(venue)[0]) as get_ohlc:
            with pytest.raises(ValueError, match=r"7 is none of 1, 5, 10"):
                await get_ohlc(7)
            with pytest.raises(ValueError, match="time zone"):
                await get_ohlc(60, pendulum.naive(2026, 1, 1))


async def test_a_complaint_about_the_pace_is_a_throttle_and_all_rest() -> None:
    async with opened(settings={"pacing_wait_s": 1.0}) as (venue, client):
        venue.faults.throttle(1)
        name, _ = front(venue)
        async with history(client, name) as get_ohlc:
            with pytest.raises(pk.DataThrottle, match="pacing violation") as caught:
                await get_ohlc(60)
            assert caught.value.retry_after == 60.0
            with pytest.raises(pk.DataThrottle, match="60 requests in 600 s"):
                await get_ohlc(60)


async def test_no_answer_is_an_error_within_the_deadline() -> None:
    async with opened() as (venue, client):
        venue.faults.history_never_answers(1)
        async with history(client, front(venue)[0]) as get_ohlc:
            with pytest.raises(pk.ProviderError, match="did not answer within 1 s"):
                await get_ohlc(60)
            await get_ohlc(60)


async def test_competing_sessions_and_missing_rights_are_errors_with_their_text() -> (
    None
):
    async with opened() as (venue, client):
        name, symbol = front(venue)
        async with history(client, name) as get_ohlc:
            venue.faults.competing_session()
            with pytest.raises(pk.ProviderError, match="different IP address"):
                await get_ohlc(60)
            venue.faults.competing_session(False)
            venue.faults.refuse_symbol(symbol)
            with pytest.raises(pk.ProviderError, match="ermission"):
                await get_ohlc(60)


async def test_lots_of_old_servers_become_shares() -> None:
    async with opened(server_version=157) as (venue, client):
        async with history(client, STOCK) as get_ohlc:
            rows, _, _ = await get_ohlc(60)
        start, end = int(rows["time"][0]), int(rows["time"][-1]) + 60
        candles = venue.candles("AAPL", 60, start, end)
        for row, candle in zip(rows, candles, strict=True):
            assert row["volume"] % 100 == 0
            assert abs(float(row["volume"]) - float(candle.volume)) < 100


async def test_a_cut_connection_is_waited_for() -> None:
    async with opened(settings={"history_timeout_s": 5.0}) as (venue, client):
        async with history(client, front(venue)[0]) as get_ohlc:
            await get_ohlc(60)
            session = await client.session()
            venue.faults.refuse_connections()
            venue.faults.cut()
            await session.lost.wait()

            async def come_back() -> None:
                await trio.sleep(0.3)
                venue.faults.refuse_connections(False)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(come_back)
                rows, _, _ = await get_ohlc(300)
            assert len(rows)
