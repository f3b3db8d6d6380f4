"""Asked for, dropped, taken over: with a simulated Kraken no trade is lost by it."""

import os
from collections.abc import AsyncIterator, Callable

import pytest

import piker_core as pk
from providers.kraken.venue import Venue, open_venue
from tests.askers import Asker, Askers, wait_until
from tests.test_kraken_feed import count_wrong, open_gaps, settle, wait_repaired

XBT, ETH = "xbtusd.kraken", "ethusd.kraken"


@pytest.fixture
async def venue(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Venue]:
    """A calm venue that feeds of all processes are pointed at."""
    settings = {
        "PIKER_CONFIG": os.devnull,
        "PIKER_KRAKEN__LIVENESS_S": "1.5",
        "PIKER_KRAKEN__REST_RATE": "40",
        "PIKER_KRAKEN__REST_BURST": "40",
        "PIKER_FEED__SECONDS_BACK": "0",
    }
    free = {"rest_rate": 100.0, "rest_burst": 100}
    async with open_venue(seed=5, live_rate=60.0, history_s=900.0, **free) as venue:
        settings |= {"PIKER_KRAKEN__WS_URL": venue.ws_url}
        settings |= {"PIKER_KRAKEN__REST_URL": venue.rest_url}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield venue


async def wait_exact(venue: Venue, flume: pk.Flume) -> None:
    """Return when all rows are the venue's own; a busy machine's trades are late."""
    await wait_until(lambda: count_wrong(venue, flume.rt) == 0)
    await wait_until(lambda: count_wrong(venue, flume.hist) == 0)


async def test_a_market_asked_for_again_is_repaired_and_the_others_are_whole(
    venue: Venue,
) -> None:
    async with pk.open_feed([XBT]) as feed:
        for _ in range(2):
            async with pk.open_feed([ETH]) as asking:
                await settle(asking.flumes[ETH])
            with pk.attach_bars(ETH) as bars:
                await wait_until(lambda bars=bars: bars.status == "stopped")
        connections = venue.statistics().connections_ever
        async with pk.open_feed([ETH]) as asking:
            flume = asking.flumes[ETH]
            await wait_repaired(flume)
            assert set(flume.rt.gaps()["cause"].tolist()) == {b"restart"}
            assert flume.rt.generation == 1
            for each in (flume, feed.flumes[XBT]):
                await wait_exact(venue, each)
        assert venue.statistics().connections_ever == connections + 1
        assert not len(feed.flumes[XBT].rt.gaps())


@pytest.mark.parametrize("end", [Asker.kill, Asker.close])
async def test_a_take_over_loses_no_trade(
    end: Callable[[Asker], None], venue: Venue
) -> None:
    with Askers() as askers:
        writer = await askers.open(XBT)
        async with pk.open_feed([XBT, ETH]) as feed:
            for flume in feed.flumes.values():
                await settle(flume)
            assert feed.roles == {"kraken": "reader"}
            end(writer)
            await wait_until(lambda: feed.roles == {"kraken": "writer"})
            for flume in feed.flumes.values():
                await wait_repaired(flume)
                assert flume.rt.generation == 2 and not open_gaps(flume.rt)
                await wait_exact(venue, flume)
