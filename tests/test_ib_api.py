"""Contracts of every class by name, search, and what an ambiguous name is answered."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

import piker_core as pk
from piker_core.config import load_section
from providers import ib
from providers.ib.api import Client, get_client, get_mkt_info, open_symbol_search
from providers.ib.config import Config
from providers.ib.venue import Venue, open_venue
from providers.ib.venue_contracts import list_contracts

TODAY = datetime.now(UTC).date()


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(live_rate=0.1, history_s=60.0, server_version=178) as opened:
        yield opened


@pytest.fixture
async def client(venue: Venue) -> AsyncIterator[Client]:
    config = Config(port=venue.port, search_interval_s=0.1)
    async with get_client(config) as opened:
        yield opened


def expiry(ticker: str) -> str:
    days = [row.expiry for row in list_contracts(TODAY) if row.ticker == ticker]
    return f"{next(day for day in days if day):%Y%m%d}"


@pytest.mark.parametrize(
    ("name", "venue_symbol", "tick", "kind"),
    [
        ("aapl.nasdaq.ib", "AAPL", "0.01", "stock"),
        ("aapl.smart.ib", "AAPL", "0.01", "stock"),
        ("amd.ibis.ib", "AMD", "0.01", "stock"),
        ("eurusd.idealpro.ib", "EUR.USD", "0.00005", "fiat"),
        ("usdjpy.idealpro.ib", "USD.JPY", "0.005", "fiat"),
        ("spx.cboe.ib", "SPX", "0.01", "index"),
        ("btcusd.paxos.ib", "BTC.USD", "0.25", "crypto"),
    ],
)
async def test_a_name_finds_its_contract(
    client: Client, name: str, venue_symbol: str, tick: str, kind: str
) -> None:
    mkt, listing = await get_mkt_info(name, client=client)
    assert (mkt.fqme, mkt.venue_symbol) == (name, venue_symbol)
    assert (str(mkt.price_tick), mkt.base.atype) == (tick, kind)
    assert listing.con_id and listing.trading_hours and listing.zone


async def test_a_future_is_named_by_its_last_trading_day(client: Client) -> None:
    name = f"mnq.cme.{expiry('MNQ')}"
    mkt, listing = await get_mkt_info(name, client=client)
    assert mkt.fqme == f"{name}.ib" and str(mkt.price_tick) == "0.25"
    assert (listing.multiplier, listing.what) == (2, "TRADES")
    month, _ = await get_mkt_info(f"mnq.cme.{expiry('MNQ')[:6]}.ib", client=client)
    assert month.fqme == mkt.fqme


async def test_an_option_is_named_by_expiry_right_and_strike(client: Client) -> None:
    options = [row for row in list_contracts(TODAY) if row.sec_type == "OPT"]
    for row in options:
        assert row.expiry is not None
        name = f"aapl.smart.{row.expiry:%Y%m%d}-{row.right.lower()}-{row.strike:g}.ib"
        mkt, listing = await get_mkt_info(name, client=client)
        assert mkt.fqme == name and mkt.venue_symbol == row.local_symbol
        assert (listing.strike, listing.right) == (row.strike, row.right.lower())
        assert listing.multiplier == 100


async def test_a_future_without_expiry_is_an_error_that_lists_them(
    client: Client,
) -> None:
    with pytest.raises(pk.NotFound) as caught:
        await get_mkt_info("mnq.cme.ib", client=client)
    text = str(caught.value)
    assert f"mnq.cme.{expiry('MNQ')}.ib (MNQ" in text and "2 a point" in text
    assert "ask for one of them" in text


async def test_an_unknown_name_is_not_found(client: Client) -> None:
    with pytest.raises(pk.NotFound, match=r"no contract nope\.nasdaq\.ib"):
        await get_mkt_info("nope.nasdaq.ib", client=client)
    with pytest.raises(pk.NotFound, match=r"write <symbol>"):
        await get_mkt_info("a.b.c.d.e", client=client)


async def test_what_was_told_of_a_contract_is_asked_for_once(
    venue: Venue, client: Client
) -> None:
    for _ in range(3):
        await get_mkt_info("aapl.nasdaq.ib", client=client)
    assert venue.statistics().requests["reqContractDetails"] == 1
    await client.listing("aapl.nasdaq", refresh=True)
    assert venue.statistics().requests["reqContractDetails"] == 2


async def test_search_gives_markets_that_can_be_opened(client: Client) -> None:
    async with open_symbol_search(client=client) as search:
        found = await search("AMD")
        assert set(found) == {"amd.nasdaq.ib", "amd.ibis.ib"}
        assert str(found["amd.nasdaq.ib"].price_tick) == "0.01"
        for name in found:
            assert (await get_mkt_info(name, client=client))[0].fqme == name
        assert await search("nothing like it") == await search(" ") == {}


async def test_futures_are_found_by_what_they_are_on(client: Client) -> None:
    async with open_symbol_search(client=client) as search:
        found = await search("mnq")
    assert len(found) == 2 and all(name.startswith("mnq.cme.") for name in found)
    assert sorted(found) == list(found)  # the next expiry first
    assert {market.kind for market in found.values()} == {"future"}


async def test_searches_keep_their_distance(venue: Venue) -> None:
    config = Config(port=venue.port, search_interval_s=0.4)
    async with get_client(config) as client:
        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(client.search, "ZZZ")
        assert trio.current_time() - began_s >= 0.8


async def test_lots_of_old_servers_are_known(venue: Venue) -> None:
    async with open_venue(live_rate=0.1, history_s=60.0, server_version=157) as old:
        async with get_client(Config(port=old.port)) as client:
            assert (await client.listing("aapl.nasdaq")).lot == 100
            assert (await client.listing("amd.ibis")).lot == 1


def test_the_package_is_a_provider_by_the_contract() -> None:
    from piker_core.provider import capabilities, find_provider, provider_names

    assert "ib" in provider_names() and find_provider("ib") is ib
    from piker_core.provider import CONTRACT

    assert set(capabilities(ib)) == set(CONTRACT)
    assert ib.name == "ib" and ib.ohlc_dtype == pk.OHLCV_DTYPE
    assert ib.capabilities["orders"] is True


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("PORT", "0", "port"),
        ("CLIENT_ID", "none", "client_id"),
        ("HOSTS", "x", "unknown key PIKER_IB__HOSTS"),
        ("QUOTE_BARS_FROM", "last", "quote_bars_from"),
    ],
)
def test_settings_that_cannot_be_are_errors_that_name_the_key(
    monkeypatch: pytest.MonkeyPatch, key: str, value: str, said: str
) -> None:
    monkeypatch.setenv("PIKER_CONFIG", "/dev/null")
    monkeypatch.setenv(f"PIKER_IB__{key}", value)
    with pytest.raises(pk.ConfigError, match=said):
        load_section("ib", Config)


def test_every_key_can_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIKER_CONFIG", "/dev/null")
    settings: dict[str, Any] = {"PORT": "7497", "CLIENT_ID": "5", "ACCOUNT": "DU1"}
    for key, value in settings.items():
        monkeypatch.setenv(f"PIKER_IB__{key}", value)
    config = load_section("ib", Config)
    assert (config.port, config.client_id, config.account) == (7497, 5, "DU1")
