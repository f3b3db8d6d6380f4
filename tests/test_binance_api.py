"""Binance's markets by name, its recorded answers decoded, its configuration."""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio.testing

import piker_core as pk
from piker_core.config import load_section
from providers import binance
from providers.binance import api, reports
from providers.binance.markets import Symbol
from tests.binance_answers import (
    SPOT,
    Venue,
    contract,
    error,
    filters,
    info,
    ok,
    spot_symbol,
)

INFO, USDM_INFO = "/api/v3/exchangeInfo", "/fapi/v1/exchangeInfo"

# Markets


async def test_a_spot_symbol_becomes_a_market() -> None:
    async with Venue().open_client() as client:
        market, symbol = await api.get_mkt_info("ethbtc.binance", client=client)
    assert market.fqme == "ethbtc.binance" and market.symbol == "ethbtc"
    assert (market.base.name, market.quote.name) == ("eth", "btc")
    assert market.venue_symbol == "ETHBTC"
    assert (market.price_tick, market.size_tick) == (Decimal("1e-5"), Decimal("1e-4"))
    assert (market.min_size, market.max_size) == (Decimal("1e-4"), Decimal(9000))
    assert (market.kind, market.venue, market.expiry) == ("spot", "", "")
    assert market.min_notional == 5 and symbol.status == "TRADING"


@pytest.mark.parametrize(
    ("name", "venue_symbol", "kind"),
    [
        ("btcusdt.usdtm.perp", "BTCUSDT", "perp"),
        ("btcusdc.usdcm.perp", "BTCUSDC", "perp"),
        ("btcusdt.usdtm.20261225", "BTCUSDT_261225", "future"),
        ("tslausdt.usdtm.perp", "TSLAUSDT", "perp"),  # of a type that is new
    ],
)
async def test_a_contract_becomes_a_market(
    name: str, venue_symbol: str, kind: str
) -> None:
    async with Venue().open_client() as client:
        market, symbol = await api.get_mkt_info(f"{name}.binance", client=client)
    assert market.fqme == f"{name}.binance"
    assert market.venue_symbol == symbol.venue_symbol == venue_symbol
    assert market.kind == kind and f".{market.venue}." in market.fqme
    assert market.expiry == ("20261225" if kind == "future" else "")
    assert (market.price_tick, market.size_tick) == (Decimal("0.1"), Decimal("0.001"))
    assert market.min_notional == 100


@pytest.mark.parametrize(
    "name", ["BTCUSDT", "btc/usdt", " BTC/USDT.binance ", "btcusdt"]
)
async def test_names_are_found_however_they_are_written(name: str) -> None:
    async with Venue().open_client() as client:
        assert (await client.symbol(name)).fqme == "btcusdt.binance"


async def test_fiat_is_told_from_crypto() -> None:
    async with Venue().open_client() as client:
        market, _ = await api.get_mkt_info("btceur", client=client)
    assert (market.base.atype, market.quote.atype) == ("crypto", "fiat")


async def test_an_unknown_name_is_told_what_comes_near() -> None:
    async with Venue().open_client() as client:
        with pytest.raises(pk.NotFound, match=r"binance has.*'btcusdx'.*btcusdt\.bin"):
            await client.symbol("btcusdx")
        with pytest.raises(pk.NotFound, match=r"near it: .*btcusdt\.usdtm\.20261225"):
            await client.symbol("btcusdt.usdtm.20261226")
        with pytest.raises(pk.NotFound, match="nothing comes near"):
            await client.symbol("zzzz")


BAD_SYMBOLS: dict[str, dict[str, Any]] = {
    "no price filter": spot_symbol("AAA", "BTC", filters=filters()[2:]),
    "no lot size": spot_symbol("AAA", "BTC", filters=filters()[:2]),
    "filters are text": spot_symbol("AAA", "BTC", filters="none"),
    "a tick that is none": spot_symbol("AAA", "BTC", filters=filters("x")),
    "a negative tick": spot_symbol("AAA", "BTC", filters=filters("-0.01")),
    "an endless tick": spot_symbol("AAA", "BTC", filters=filters("Infinity")),
    "a tick out of reach": spot_symbol("AAA", "BTC", filters=filters("1e-9999")),
    "a tick that is a list": spot_symbol("AAA", "BTC", filters=filters([])),  # type: ignore[arg-type]
    "decimals out of reach": spot_symbol("AAA", "BTC", quotePrecision=10**9),
    "no status": spot_symbol("AAA", "BTC", status=None),
    "a name that is none of ours": spot_symbol("A A", "BTC"),
    "another script": spot_symbol("币安人生", "USDT"),
}


@pytest.mark.parametrize("symbol", BAD_SYMBOLS.values(), ids=BAD_SYMBOLS.keys())
async def test_a_symbol_that_is_not_understood_is_left_out_alone(
    symbol: dict[str, Any],
) -> None:
    venue = Venue(INFO, ok(info(symbol, spot_symbol("ETH", "BTC"))))
    async with venue.open_client() as client:
        assert list((await client.spot.table()).symbols) == ["ethbtc.binance"]


async def test_a_step_of_zero_is_no_filter() -> None:
    symbol = spot_symbol("AAA", "BTC", filters=filters("0.00000000", "0.00000000"))
    async with Venue(INFO, ok(info(symbol))).open_client() as client:
        found = await client.symbol("aaabtc")
    assert found.market.price_tick == found.market.size_tick == Decimal("1e-8")


async def test_steps_of_whole_numbers_are_written_without_exponents() -> None:
    symbol = spot_symbol("AAA", "BTC", filters=filters("10.00000000", "1.00000000"))
    async with Venue(INFO, ok(info(symbol))).open_client() as client:
        market = (await client.symbol("aaabtc")).market
    steps = (market.price_tick, market.size_tick, market.max_size)
    assert [str(step) for step in steps] == ["10", "1", "9000"]


async def test_a_contract_with_an_odd_day_is_left_out() -> None:
    odd = [contract("BTCUSDT_SOON"), contract("BTCUSDT_261325")]
    async with Venue(USDM_INFO, ok(info(*odd, contract("BTCUSDT")))).open_client() as c:
        assert list((await c.usdm.table()).symbols) == ["btcusdt.usdtm.perp.binance"]


async def test_a_table_in_which_nothing_is_understood_is_an_error() -> None:
    async with Venue(INFO, ok(info({"symbol": 7}))).open_client() as client:
        with pytest.raises(pk.ProviderError, match="no symbol in it"):
            await client.spot.table()


# The tables


async def test_a_table_is_fetched_once_and_again_when_it_is_old(
    autojump_clock: trio.testing.MockClock,
) -> None:
    venue = Venue()
    venue.delay_s = 0.1
    async with venue.open_client(symbols_ttl_s=100.0) as client:
        async with trio.open_nursery() as nursery:
            for name in ("btcusdt", "ethbtc", "btcusdt"):
                nursery.start_soon(client.symbol, name)
        await client.symbol("ethusdt")
        assert venue.count(INFO) == 1 and venue.count(USDM_INFO) == 0
        await trio.sleep(101)
        await client.symbol("ethusdt")
        assert venue.count(INFO) == 2


async def test_an_old_table_is_used_on_when_there_is_no_new_one(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    refused = error(-1003, "Too many", 429, Retry_After="1")
    venue = Venue(INFO, ok(SPOT), refused)
    async with venue.open_client(symbols_ttl_s=100.0) as client:
        await client.symbol("ethusdt")
        await trio.sleep(101)
        assert (await client.symbol("ethusdt")).venue_symbol == "ETHUSDT"
    assert "old table" in caplog.text


async def test_only_the_side_that_a_name_belongs_to_is_asked() -> None:
    venue = Venue(INFO, httpx.Response(403))
    async with venue.open_client() as client:
        await client.symbol("btcusdt.usdtm.perp")
        assert venue.count(INFO) == 0
        with pytest.raises(pk.ProviderError):
            await client.symbol("btcusdt")


async def test_symbols_are_named_in_a_call_unless_there_are_too_many() -> None:
    venue = Venue(INFO, ok(SPOT), ok(SPOT), ok(SPOT))
    async with venue.open_client() as client:
        symbol = await client.symbol("btcusdt")
        statuses = await client.spot.statuses([symbol])
        assert statuses["BCCBTC"] == "BREAK" and statuses["BTCUSDT"] == "TRADING"
        assert venue.calls[-1].url.params["symbols"] == '["BTCUSDT"]'
        await client.spot.statuses([symbol] * 101)
        assert "symbols" not in venue.calls[-1].url.params
        await client.usdm.statuses([symbol])
        assert "symbols" not in venue.calls[-1].url.params


def test_the_next_process_knows_both_tables_and_uses_them_when_the_venue_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    venue = Venue(INFO, ok(SPOT), httpx.Response(403))

    async def ask(ttl_s: float) -> list[Symbol]:
        async with venue.open_client(symbols_ttl_s=ttl_s) as client:
            names = ("bccbtc", "btcusdt.usdtm.20261225")
            return [await client.symbol(name) for name in names]

    first = trio.run(ask, 600.0)
    assert [symbol.status for symbol in first] == ["BREAK", "TRADING"]
    assert trio.run(ask, 600.0) == first
    assert venue.count(INFO) == venue.count(USDM_INFO) == 1
    assert trio.run(ask, 1e-9) == first
    assert venue.count(INFO) == venue.count(USDM_INFO) == 2
    assert "using an old table of binance's markets" in caplog.text


async def test_tables_of_a_venue_on_this_machine_are_not_kept(caches: Path) -> None:
    here = {"rest_url": "http://127.0.0.1:9", "usdm_rest_url": "http://localhost:9"}
    async with Venue().open_client(**here) as client:
        await client.symbol("btcusdt")
        await client.symbol("btcusdt.usdtm.perp")
    assert not await trio.Path(caches).exists()


def test_a_kept_table_without_statuses_is_passed_over(
    caches: Path, caplog: pytest.LogCaptureFixture
) -> None:
    venue = Venue()

    async def ask() -> Symbol:
        async with venue.open_client() as client:
            return await client.symbol("btcusdt")

    first = trio.run(ask)
    (path,) = caches.glob("piker-core/binance/symbols-*.json")
    path.write_bytes(path.read_bytes().replace(b'"status"', b'"mood"'))
    assert trio.run(ask) == first and venue.count(INFO) == 2
    assert "is passed over" in caplog.text


async def test_a_symbol_that_is_gone_does_not_hide_the_others() -> None:
    gone = error(-1121, "Invalid symbol.")
    venue = Venue(INFO, ok(SPOT), gone, ok(info(spot_symbol("ETH", "BTC"))))
    async with venue.open_client() as client:
        symbols = [await client.symbol(name) for name in ("btcusdt", "ethbtc")]
        assert await client.spot.statuses(symbols) == {"ETHBTC": "TRADING"}
        venue.path, venue.script = "/api/v3/ticker/price", [gone]
        assert await client.spot.prices(symbols) == {"BTCUSDT": 4.000002}


# Search


async def search(venue: Venue, pattern: str) -> list[str]:
    async with venue.open_client() as client:
        async with api.open_symbol_search(client=client) as find:
            return list(await find(pattern))


async def test_a_search_finds_names_of_both_sides_best_first() -> None:
    found = await search(Venue(), "btcusdt")
    assert found[0] == "btcusdt.binance"
    assert {"btcusdt.usdtm.perp.binance", "btcusdt.usdtm.20261225.binance"} < set(found)
    assert (await search(Venue(), "tsla"))[0] == "tslausdt.usdtm.perp.binance"
    assert (await search(Venue(), "ethbtx"))[0] == "ethbtc.binance"
    assert await search(Venue(), "") == await search(Venue(), "zzzzzzzz") == []


async def test_what_does_not_trade_is_found_last() -> None:
    halted = spot_symbol("BTC", "USDT", status="HALT")
    venue = Venue(INFO, ok(info(halted, spot_symbol("WBTC", "TRY"))))
    found = await search(venue, "btc")
    assert found[-1] == "btcusdt.binance" and "wbtctry.binance" in found


async def test_a_search_knows_tables_that_are_new(
    autojump_clock: trio.testing.MockClock,
) -> None:
    later = info(spot_symbol("BTC", "USDT"), spot_symbol("NEW", "USDT"))
    venue = Venue(INFO, ok(SPOT), ok(later))
    async with venue.open_client(symbols_ttl_s=100.0) as client:
        assert await client.search("newusdt") == []
        await trio.sleep(101)
        assert [s.fqme for s in await client.search("newusdt")] == ["newusdt.binance"]


async def test_a_search_does_without_a_side_that_is_out_of_reach(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = await search(Venue(USDM_INFO, httpx.Response(403)), "btcusdt")
    assert "btcusdt.binance" in found and not any("usdtm" in name for name in found)
    assert "left out" in caplog.text


async def test_a_search_without_any_table_is_an_error() -> None:
    class Refusing(Venue):
        async def answer(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(403)

    with pytest.raises(pk.ProviderError, match="HTTP 403"):
        await search(Refusing(), "btcusdt")


# Recorded answers


def recorded_info(captures: Path, name: str) -> httpx.Response:
    first = (captures / "binance" / name).read_bytes().splitlines()[0]
    return httpx.Response(200, content=first.partition(b": ")[2])


def recorded(captures: Path, path: str, number: int = 0) -> httpx.Response:
    answers = json.loads((captures / "binance" / "rest_recordings.json").read_bytes())
    return ok(answers[path][number]["data"])


@pytest.mark.parametrize(
    ("name", "count", "symbol", "tick"),
    [
        ("recording_BINANCE.0", 1500, "nknusdt", "0.0001"),
        ("recording_BINANCE_US.0", 100, "compusdt", "0.01"),
    ],
)
async def test_recorded_tables_are_understood_whole(
    captures: Path, name: str, count: int, symbol: str, tick: str
) -> None:
    answer = recorded_info(captures, name)
    listed = len(answer.json()["symbols"])
    async with Venue(INFO, answer).open_client() as client:
        table = await client.spot.table()
        assert len(table.symbols) == listed > count
        assert table.find(symbol).market.price_tick == Decimal(tick)
        assert any(not each.trading for each in table.symbols.values())


async def test_a_recorded_table_of_later_years_is_understood(captures: Path) -> None:
    answer = recorded(captures, "/api/v3/exchangeInfo")
    async with Venue(INFO, answer).open_client() as client:
        assert len((await client.spot.table()).symbols) == 25


async def test_recorded_quotes_are_understood(captures: Path) -> None:
    script = ok([recorded(captures, "/api/v3/ticker/bookTicker").json()])
    venue = Venue("/api/v3/ticker/bookTicker", script)
    async with venue.open_client() as client:
        symbol = await client.symbol("btcusdt")
        books = await client.spot.books([symbol])
        assert books == {"BTCUSDT": (6621.55, 6622.1)}
        assert await client.spot.prices([symbol]) == {"BTCUSDT": 4.000002}


async def test_recorded_trades_are_understood(captures: Path) -> None:
    answer = recorded(captures, "/api/v3/trades")
    async with Venue("/api/v3/historicalTrades", answer).open_client() as client:
        ticks = await client.spot.trades(await client.symbol("ethbtc"))
    rows = answer.json()
    assert len(ticks) == 1000
    assert ticks["id"].tolist() == [row["id"] for row in rows]
    assert ticks["price"].tolist() == [float(row["price"]) for row in rows]
    assert ticks["time_ns"].tolist() == [row["time"] * 10**6 for row in rows]
    sides = [-1 if row["isBuyerMaker"] else 1 for row in rows]
    assert ticks["side"].tolist() == sides


async def test_recorded_aggregates_are_understood(captures: Path) -> None:
    for number in range(23):
        answer = recorded(captures, "/api/v3/aggTrades", number)
        async with Venue("/api/v3/aggTrades", answer).open_client() as client:
            ticks = await client.spot.aggregates(await client.symbol("btcusdt"))
        rows = answer.json()
        assert ticks["id"].tolist() == [row["a"] for row in rows]
        assert ticks["count"].tolist() == [row["l"] - row["f"] + 1 for row in rows]


# The package and its configuration


def test_the_package_has_the_contracts_names() -> None:
    assert binance.name == "binance" and binance.ohlc_dtype == pk.OHLCV_DTYPE
    assert binance.norm_trade is reports.norm_trade
    assert all(hasattr(binance, name) for name in binance.__all__)
    assert binance.capabilities["quotes"] and binance.capabilities["orders"]


def test_every_key_can_come_from_the_environment() -> None:
    environ = {
        "PIKER_CONFIG": "/dev/null",
        "PIKER_BINANCE__TRADES": "aggtrade",
        "PIKER_BINANCE__USDM_REST_RATE": "7",
        "PIKER_BINANCE__API_KEY": "hush",
    }
    config = load_section("binance", api.Config, environ=environ)
    assert config.trades == "aggtrade" and config.of_usdm().rest_rate == 7
    assert config.api_key.reveal() == "hush" and "hush" not in repr(config)


def test_the_documents_tell_every_key_and_its_default() -> None:
    text = (Path(__file__).parents[1] / "docs" / "binance.md").read_text()
    told: dict[str, str] = {}
    for line in text.partition("## Settings")[2].splitlines():
        if line.startswith("| `"):
            keys, defaults = (
                re.findall(r"`([^`]+)`", line.split("|")[1]),
                line.split("|"),
            )
            values = defaults[2].replace("`", "").split(",")
            told |= {key: each.strip() for key, each in zip(keys, values, strict=True)}
    config = api.Config()
    secret = {"api_key", "api_secret"}
    assert told.keys() >= set(api.Config.__annotations__) - secret
    for key, value in told.items():
        default = getattr(config, key)
        assert value == (default if isinstance(default, str) else f"{default:g}"), key


@pytest.mark.parametrize("key", ["rest_url", "usdm_rest_url"])
@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "https://", "http://[::1"])
async def test_an_address_that_is_none_is_an_error_with_its_key(
    key: str, url: str
) -> None:
    config = msgspec.structs.replace(api.Config(), **{key: url})
    with pytest.raises(pk.ConfigError, match=rf"\[binance\] {key}"):
        async with api.get_client(config):
            raise AssertionError("it opened")
