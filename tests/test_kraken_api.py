"""Kraken over REST: recorded answers decoded, pairs by name, the configuration."""

import logging
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing

import piker_core as pk
from piker_core.config import load_section
from piker_core.errors import ConfigError
from providers.kraken import api, wire
from tests.kraken_answers import PAIRS, TRADES, Venue, error, ok, pair

# Recorded answers


def recorded(captures: Path, name: str) -> httpx.Response:
    return httpx.Response(200, content=(captures / "kraken" / name).read_bytes())


async def test_the_recorded_pair_becomes_a_market(captures: Path) -> None:
    venue = Venue("AssetPairs", recorded(captures, "rest_asset_pairs.json"))
    async with venue.open_client() as client:
        market, details = await api.get_mkt_info("btcusdt.kraken", client=client)
    assert market.fqme == "xbtusdt.kraken"
    assert (market.base.name, market.quote.name) == ("btc", "usdt")
    assert market.venue_symbol == details.v2_symbol == "BTC/USDT"
    assert (market.price_tick, market.size_tick) == (Decimal("0.1"), Decimal("1e-8"))
    assert market.min_size == Decimal("0.00005")
    assert details.fees[:2] == ((0, 0.4), (10000, 0.35))


async def test_recorded_trades_have_the_times_of_the_recorded_frames(
    captures: Path,
) -> None:
    path = captures / "kraken" / "xbtusdt_v2_trade_frames.jsonl"
    streamed = {}
    for line in path.read_bytes().splitlines():
        frame = wire.decode_frame(line)
        assert isinstance(frame, wire.TradeFrame)
        for tick in wire.normalize_trades("xbtusdt", frame.data)["ticks"]:
            streamed[tick["id"]] = tick
    venue = Venue("Trades", recorded(captures, "xbtusdt_trades.json"))
    async with venue.open_client() as client:
        ticks, last_ns = await client.trades("xbtusdt")
    assert len(ticks) == len(streamed) == 413
    assert last_ns == 1762804725544982672
    sides = {1: "buy", -1: "sell"}
    for row in ticks:
        tick = streamed[row["id"]]
        assert row["time_ns"] == tick["time_ns"]
        assert (row["price"], row["size"]) == (tick["price"], tick["size"])
        assert sides[int(row["side"])] == tick["side"]
    assert set(ticks["count"]) == set(ticks["type"]) == {1}


async def test_the_recorded_ticker_gives_bid_ask_and_last(captures: Path) -> None:
    venue = Venue("Ticker", recorded(captures, "rest_ticker.json"))
    async with venue.open_client() as client:
        tickers = await client.ticker(["BTC/USDT", "ethusd"])
    ticker = tickers["XBTUSDT"]
    assert (ticker.bid, ticker.ask, ticker.last) == (105944.2, 105944.3, 105899.4)
    assert (ticker.bid_size, ticker.ask_size) == (1.0, 1.0)
    assert ticker.volume == 163.28908096
    assert venue.calls[-1].url.params["pair"] == "XBTUSDT,ETHUSD"


async def test_the_recorded_status_is_online(captures: Path) -> None:
    venue = Venue("SystemStatus", recorded(captures, "rest_system_status.json"))
    async with venue.open_client() as client:
        assert (await client.system_status()).status == "online"


# Decoding


async def test_trade_times_go_by_decimals_and_are_cut_to_microseconds() -> None:
    row = '["0.1","0.00000003",1700000000.9999999,"b","l","",7]'
    body = f'{{"error":[],"result":{{"X":[{row}],"last":"1700000000999999900"}}}}'
    async with Venue("Trades", httpx.Response(200, text=body)).open_client() as client:
        ticks, last_ns = await client.trades("xbtusd", since_ns=1700000000123456789)
    assert ticks["time_ns"].tolist() == [1700000000999999000]
    assert (ticks["price"][0], ticks["size"][0]) == (0.1, 3e-8)
    assert last_ns == 1700000000999999900


async def test_a_page_is_asked_for_by_exact_nanoseconds() -> None:
    venue = Venue()
    async with venue.open_client() as client:
        await client.trades("xbtusd", since_ns=1700000000123456789, count=7)
    params = venue.calls[-1].url.params
    assert dict(params) == {
        "pair": "XBTUSD",
        "count": "7",
        "since": "1700000000123456789",
    }


async def test_an_empty_page_is_no_error() -> None:
    empty = ok({"XXBTZUSD": [], "last": "1700000000000000000"})
    async with Venue("Trades", empty).open_client() as client:
        ticks, last_ns = await client.trades("xbtusd", since_ns=1700000000000000000)
    assert len(ticks) == 0
    assert ticks.dtype == pk.TICK_DTYPE
    assert last_ns == 1700000000000000000


async def test_columns_that_a_venue_adds_are_ignored() -> None:
    rows = [[*row, "new"] for row in TRADES["XXBTZUSD"]]
    answer = ok(TRADES | {"XXBTZUSD": rows})
    async with Venue("Trades", answer).open_client() as client:
        ticks, _ = await client.trades("xbtusd")
    assert ticks["id"].tolist() == [61044952, 61044953]
    assert ticks["side"].tolist() == [1, -1]


async def test_ohlc_rows_have_the_venues_numbers_and_flat_ones_their_close() -> None:
    venue = Venue()
    async with venue.open_client() as client:
        rows, last_s = await client.ohlc("BTC/USD", since=1688671200)
    assert last_s == 1688671260
    assert rows.dtype == pk.OHLCV_DTYPE
    first, flat, forming = rows
    assert first["bar_wap"] == 30306.1
    assert (first["open"], first["high"], first["low"]) == (30306.1, 30306.2, 30305.7)
    assert (first["volume"], first["count"], first["flags"]) == (3.3, 23, 0)
    assert flat["bar_wap"] == flat["close"] == 30305.7
    assert flat["flags"] == pk.BarFlag.FLAT
    assert forming["time"] == 1688671320
    assert venue.calls[-1].url.params["interval"] == "1"
    assert venue.calls[-1].url.params["since"] == "1688671200"


async def test_impossible_arguments_are_refused_before_anything_is_sent() -> None:
    venue = Venue()
    async with venue.open_client() as client:
        with pytest.raises(ValueError, match="interval 2 "):
            await client.ohlc("xbtusd", 2)
        with pytest.raises(ValueError, match="count 1001 "):
            await client.trades("xbtusd", count=1001)
        assert await client.ticker([]) == {}
    assert venue.calls == []


# Pairs by name


@pytest.mark.parametrize(
    "name",
    [
        "xbtusd",
        "xbtusd.kraken",
        "XBTUSD",
        "XBT/USD",
        "BTC/USD",
        "btcusd",
        "btcusd.kraken",
        "XXBTZUSD",
        "btc/usd",
    ],
)
async def test_every_name_of_a_pair_finds_it(name: str) -> None:
    async with Venue().open_client() as client:
        market, details = await api.get_mkt_info(name, client=client)
    assert market.fqme == "xbtusd.kraken"
    assert (details.key, details.v2_symbol) == ("XXBTZUSD", "BTC/USD")


async def test_renamed_assets_are_renamed_as_a_whole_only() -> None:
    more = pair("XBTXUSD", "XBTX/USD", "XBTXUSD") | pair(
        "ETHXBT", "ETH/XBT", "XETHXXBT"
    )
    async with Venue("AssetPairs", ok(PAIRS | more)).open_client() as client:
        pairs = await client.asset_pairs()
    assert pairs["XBTXUSD"].v2_symbol == "XBTX/USD"
    assert pairs["XETHXXBT"].v2_symbol == "ETH/BTC"
    assert pairs["XDGUSD"].v2_symbol == "DOGE/USD"


async def test_price_ticks_that_are_no_power_of_ten_are_kept() -> None:
    async with Venue().open_client() as client:
        doge, _ = await api.get_mkt_info("dogeusd", client=client)
        sol, _ = await api.get_mkt_info("solusd", client=client)
    assert doge.price_tick == Decimal("0.000005")
    assert sol.price_tick == Decimal("0.01")  # no tick_size: by pair_decimals
    assert doge.quote.atype == "fiat"
    assert doge.base.atype == "crypto"


async def test_a_market_has_the_least_size_and_cost_of_an_order() -> None:
    some = pair("AUSD", "A/USD", "AUSD", ordermin="0.002", costmin="0.5")
    async with Venue("AssetPairs", ok(some)).open_client() as client:
        market, _ = await api.get_mkt_info("ausd", client=client)
    assert (market.min_size, market.min_notional) == (Decimal("0.002"), Decimal("0.5"))


async def test_an_unknown_name_is_told_with_what_comes_near() -> None:
    async with Venue().open_client() as client:
        with pytest.raises(pk.NotFound, match=r"'xbtusf'.*xbtusd\.kraken"):
            await api.get_mkt_info("xbtusf", client=client)
        with pytest.raises(pk.NotFound, match=r"'qqqqqq'.*nothing comes near"):
            await api.get_mkt_info("qqqqqq", client=client)
        with pytest.raises(pk.NotFound, match=r"'xbtusd\.binance'"):
            await api.get_mkt_info("xbtusd.binance", client=client)


async def test_the_pairs_are_fetched_once_for_all_who_ask() -> None:
    venue = Venue()
    venue.delay_s = 0.01
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            async with venue.open_client() as client:
                await client.pair("xbtusd")
                await client.asset_pairs()

        for _ in range(5):
            nursery.start_soon(ask)
    assert venue.count("AssetPairs") == 1


async def test_the_pairs_are_fetched_again_when_old_or_told_to(
    autojump_clock: trio.testing.MockClock,
) -> None:
    venue = Venue()
    async with venue.open_client(pairs_ttl_s=60) as client:
        await client.asset_pairs()
        await trio.sleep(59)
        await client.asset_pairs()
        assert venue.count("AssetPairs") == 1
        await trio.sleep(2)
        await client.asset_pairs()
        assert venue.count("AssetPairs") == 2
        await trio.sleep(1)
        await client.asset_pairs(refresh=True)
        assert venue.count("AssetPairs") == 3


async def test_an_old_table_of_pairs_serves_when_the_venue_does_not(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = error("EAPI:Feature disabled")
    venue = Venue("AssetPairs", ok(PAIRS), refusal, refusal, ok(PAIRS))
    async with venue.open_client(pairs_ttl_s=60) as client:
        await client.asset_pairs()
        await trio.sleep(61)
        assert (await client.pair("xbtusd")).key == "XXBTZUSD"
        assert "using an old table" in caplog.text
        with pytest.raises(pk.ProviderError, match="Feature disabled"):
            await client.asset_pairs(refresh=True)


def test_the_next_process_knows_the_pairs_and_serves_them_when_the_venue_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    venue = Venue("AssetPairs", ok(PAIRS), error("EService:Unavailable"))

    async def ask(ttl_s: float) -> api.Pair:
        async with venue.open_client(pairs_ttl_s=ttl_s, rest_attempts=1) as client:
            return await client.pair("BTC/USD")

    first = trio.run(ask, 600)
    assert trio.run(ask, 600) == first and venue.count("AssetPairs") == 1
    assert trio.run(ask, 1e-9) == first and venue.count("AssetPairs") == 2
    assert "using an old table of kraken's markets, fetched 0 s ago" in caplog.text


async def test_the_pairs_of_a_venue_on_this_machine_are_not_kept(caches: Path) -> None:
    async with Venue().open_client(rest_url="http://127.0.0.1:9") as client:
        assert (await client.pair("xbtusd")).key == "XXBTZUSD"
    assert not await trio.Path(caches).exists()


async def test_a_pair_that_cannot_be_understood_is_left_out_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = (
        pair("AUSD", "A/USD", "AUSD", tick_size="NaN")
        | pair("BUSD", "B/USD", "BUSD", pair_decimals=-1)
        | pair("CUSD", "C/USD", "CUSD", ordermin="1E+x")
        | pair("DUSD", "D/USD", "DUSD", tick_size="-0.1")
        | {"EUSD": None, "FUSD": {"altname": "FUSD"}}
    )
    async with Venue("AssetPairs", ok(PAIRS | bad)).open_client() as client:
        pairs = await client.asset_pairs()
    assert pairs.keys() == PAIRS.keys()
    assert all(f"pair {key} is left out" in caplog.text for key in bad)


async def test_a_table_without_any_good_pair_is_an_error() -> None:
    async with Venue("AssetPairs", ok({"A": None})).open_client() as client:
        with pytest.raises(pk.ProviderError, match="no pair in it"):
            await client.asset_pairs()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("btcusd", ["xbtusd", "xbtusdt"]),  # the same, then its start
        ("BTC/USD", ["xbtusd", "xbtusdt"]),
        ("xbt", ["xbtusd", "xbtusdt"]),
        ("doge", ["xdgusd"]),
        ("usdt", ["xbtusdt"]),  # a part
        ("etusd", ["ethusd"]),  # like it
        ("eht-usd", ["ethusd"]),
        ("zzzzz", []),
        ("  ", []),
    ],
)
async def test_the_search_finds_the_best_first(
    pattern: str, expected: list[str]
) -> None:
    async with (
        Venue().open_client() as client,
        api.open_symbol_search(client=client) as search,
    ):
        found = await search(pattern)
    assert [*found][: len(expected)] == [f"{name}.kraken" for name in expected]
    assert bool(found) == bool(expected)
    assert all(market.fqme == fqme for fqme, market in found.items())


# The configuration


def test_every_key_can_be_overridden_by_the_environment(tmp_path: Path) -> None:
    environ = {
        "PIKER_CONFIG": str(tmp_path / "none.toml"),
        "PIKER_KRAKEN__REST_URL": "http://127.0.0.1:8080",
        "PIKER_KRAKEN__REST_BURST": "3",
        "PIKER_KRAKEN__API_SECRET": "hush",
    }
    config = load_section("kraken", api.Config, environ=environ)
    assert (config.rest_url, config.rest_burst) == ("http://127.0.0.1:8080", 3)
    assert config.api_secret.reveal() == "hush"
    assert "hush" not in repr(config)


@pytest.mark.parametrize(("key", "text"), [("REST_RATE", "0"), ("REST_BURST", "0.5")])
def test_impossible_limits_are_refused(key: str, text: str, tmp_path: Path) -> None:
    environ = {
        "PIKER_CONFIG": str(tmp_path / "none.toml"),
        f"PIKER_KRAKEN__{key}": text,
    }
    with pytest.raises(ConfigError, match=key.lower()):
        load_section("kraken", api.Config, environ=environ)


@pytest.mark.parametrize("url", ["api.kraken.com", "ftp://x", "http://", "http://a:b"])
async def test_an_unusable_address_is_told_when_the_client_opens(url: str) -> None:
    with pytest.raises(ConfigError, match="rest_url"):
        async with api.get_client(api.Config(rest_url=url)):
            pass


@pytest.mark.parametrize("tail", ["", "/", "/0", "/0/"])
async def test_the_address_may_end_as_the_venues_own_does(tail: str) -> None:
    venue = Venue()
    async with venue.open_client(rest_url=f"http://kraken.test{tail}") as client:
        await client.system_status()
    assert str(venue.calls[0].url) == "http://kraken.test/0/public/SystemStatus"


async def test_the_configured_venue_is_used_by_default(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("PIKER_KRAKEN__REST_URL", url)
        monkeypatch.setenv("PIKER_KRAKEN__REST_ATTEMPTS", "1")
        with pytest.raises(pk.ProviderError, match=url):
            await api.get_mkt_info("xbtusd")
        with pytest.raises(pk.ProviderError, match=url):
            async with api.open_symbol_search() as search:
                await search("xbt")
