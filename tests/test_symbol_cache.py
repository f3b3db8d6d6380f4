"""Symbol tables on disk: fetched when old, whole or not there, not believed blindly."""

# ruff: noqa: ASYNC240 - nothing else runs in these tests while they look at a file

import json
import logging
import os
import time
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import piker_core as pk
from piker_core.symbol_cache import SymbolCache, is_loopback, table_path
from piker_core.symbol_table import Listing, SymbolTable

SOURCE = "https://api.venue.test"


def table_of(*symbols: str) -> SymbolTable:
    markets = [
        pk.MktPair(
            base=pk.Asset(symbol[:3]),
            quote=pk.Asset("usd", "fiat", Decimal("0.01")),
            symbol=symbol,
            venue_symbol=symbol.upper(),
            provider="venue",
            price_tick=Decimal("0.25"),
            size_tick=Decimal("1e-8"),
        )
        for symbol in symbols
    ]
    return SymbolTable(
        "venue",
        [Listing(mkt, (f"{mkt.symbol}!",), details={"n": 7}) for mkt in markets],
    )


class Venue:
    """Answers with a table, or fails as told."""

    def __init__(self, *symbols: str) -> None:
        self.symbols = symbols or ("xbtusd", "ethusd")
        self.error: Exception | None = None
        self.asked = 0

    async def fetch(self) -> SymbolTable:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        return table_of(*self.symbols)


def new_cache(**more: Any) -> SymbolCache[SymbolTable]:
    options: dict[str, Any] = {"build": lambda table: table, "ttl_s": 60.0}
    return SymbolCache("venue", SOURCE, **(options | more))


@pytest.fixture
def path(caches: Path) -> Path:
    return table_path("venue", SOURCE)


@pytest.fixture
def stored(path: Path) -> dict[str, Any]:
    """What a good file holds; written by `put`."""
    trio.run(new_cache().get, Venue().fetch)
    good: dict[str, Any] = json.loads(path.read_text())
    return good


def put(path: Path, content: object) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.message for each in caplog.records if each.levelno >= logging.WARNING]


async def test_a_table_is_kept_for_the_next_process(path: Path, caches: Path) -> None:
    venue = Venue()
    before = await new_cache().get(venue.fetch)
    assert path.is_relative_to(caches / "piker-core" / "venue")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    after = await new_cache().get(venue.fetch)
    assert venue.asked == 1
    assert after.listings == before.listings
    assert after.find("XBTUSD!").details == {"n": 7}


async def test_it_is_fetched_again_when_it_is_old_or_told_to(
    autojump_clock: trio.testing.MockClock,
) -> None:
    venue, cache = Venue(), new_cache()
    for pause_s, refresh, asked in ((0, False, 1), (59, False, 1), (2, False, 2)):
        await trio.sleep(pause_s)
        await cache.get(venue.fetch, refresh=refresh)
        assert venue.asked == asked
    await trio.sleep(1)
    await cache.get(venue.fetch, refresh=True)
    assert venue.asked == 3


async def test_a_file_that_is_old_is_fetched_again(
    path: Path, stored: dict[str, Any]
) -> None:
    put(path, stored | {"fetched_ns": time.time_ns() - 61 * 10**9})
    venue = Venue("ltcusd")
    table = await new_cache().get(venue.fetch)
    assert [*table.markets] == ["ltcusd.venue"] and venue.asked == 1
    assert json.loads(path.read_text())["listings"][0]["market"]["symbol"] == "ltcusd"


async def test_it_is_fetched_once_for_all_who_ask(path: Path) -> None:
    venue, cache = Venue(), new_cache()
    async with trio.open_nursery() as nursery:
        for refresh in (False, True, False, True):
            nursery.start_soon(partial(cache.get, venue.fetch, refresh=refresh))
    assert venue.asked <= 2


@pytest.mark.parametrize(
    ("age_s", "said"), [(7000, "fetched 7000 s ago"), (90_000, "25.0 h old")]
)
@pytest.mark.parametrize(
    "error",
    [
        pk.ProviderError("it answers nonsense"),
        pk.DataThrottle("it answers nonsense", retry_after=5),
        ConnectionRefusedError("it answers nonsense"),
    ],
)
async def test_an_old_table_serves_when_the_venue_does_not_and_its_age_is_said(
    path: Path,
    stored: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    age_s: int,
    said: str,
) -> None:
    put(path, stored | {"fetched_ns": time.time_ns() - age_s * 10**9})
    venue = Venue()
    venue.error = error
    table = await new_cache().get(venue.fetch)
    assert len(table) == 2 and venue.asked == 1
    [text] = warnings(caplog)
    assert f"old table of venue's markets, {said}: it answers nonsense" in text
    with pytest.raises(type(error)):
        await new_cache().get(venue.fetch, refresh=True)


async def test_a_table_of_the_future_counts_as_old(
    path: Path, stored: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    put(path, stored | {"fetched_ns": time.time_ns() + 10**12})
    venue = Venue("ltcusd")
    venue.error = pk.ProviderError("down")
    assert len(await new_cache().get(venue.fetch)) == 2
    assert "fetched nobody knows when" in caplog.text


async def test_without_any_table_the_venues_error_comes_out() -> None:
    venue = Venue()
    venue.error = pk.ProviderError("down")
    with pytest.raises(pk.ProviderError, match="down"):
        await new_cache().get(venue.fetch)


BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "is damaged: ": lambda good: json.dumps(good)[:-90],
    "is damaged:": lambda _: "",
    "is damaged": lambda good: good | {"listings": [{"market": {}}]},
    "has format 2, not 1": lambda good: good | {"format": 2, "listings": "new"},
    "is of kraken, ": lambda good: good | {"provider": "kraken"},
    "is of venue, http://x": lambda good: good | {"source": "http://x"},
}


@pytest.mark.parametrize("why", BROKEN)
async def test_a_damaged_or_foreign_file_is_passed_over_said_once_and_written_anew(
    path: Path, stored: dict[str, Any], caplog: pytest.LogCaptureFixture, why: str
) -> None:
    put(path, BROKEN[why](stored))
    venue, cache = Venue("ltcusd"), new_cache()
    for _ in range(3):
        assert len(await cache.get(venue.fetch)) == 1
    [text] = warnings(caplog)
    assert f"{path} is passed over: it {why}" in text
    assert venue.asked == 1
    assert len(await new_cache().get(venue.fetch)) == 1
    assert venue.asked == 1


async def test_what_the_provider_cannot_use_is_passed_over(
    stored: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def build(table: SymbolTable) -> SymbolTable:
        if "ltcusd.venue" not in table.markets:
            raise ValueError("no ltcusd in it")
        return table

    assert len(await new_cache(build=build).get(Venue("ltcusd").fetch)) == 1
    assert "it does not fit: no ltcusd in it" in caplog.text


async def test_a_file_that_others_can_write_or_that_leads_elsewhere_is_passed_over(
    path: Path, stored: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.chmod(0o622)
    venue = Venue("ltcusd")
    await new_cache().get(venue.fetch)
    assert path.stat().st_mode & 0o777 == 0o600
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    await new_cache().get(venue.fetch)
    assert not path.is_symlink() and venue.asked == 2
    assert "it can be written by others" in caplog.text


async def test_a_folder_that_cannot_be_written_costs_the_file_alone(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.parent.mkdir(parents=True)
    path.parent.write_text("a file where the folder should be")
    cache = new_cache(ttl_s=0.0)
    for _ in range(3):
        assert len(await cache.get(Venue().fetch)) == 2
    told = [text for text in warnings(caplog) if "cannot be written" in text]
    assert len(told) == 1 and str(path) in told[0]


async def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, stored: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr("msgspec.json.encode", fail)
    assert len(await new_cache().get(Venue("ltcusd").fetch, refresh=True)) == 1
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


async def test_what_writers_that_died_have_left_is_removed(
    path: Path, stored: dict[str, Any]
) -> None:
    old, new = (path.with_name(f"{path.name}.{n}.tmp") for n in ("old", "new"))
    for each in (old, new):
        each.touch()
    os.utime(old, (1, 1))
    await new_cache().get(Venue().fetch, refresh=True)
    assert not old.exists() and new.exists()


async def test_a_simulated_venue_leaves_nothing_on_disk(caches: Path) -> None:
    venue, cache = Venue(), new_cache(on_disk=False)
    await cache.get(venue.fetch)
    assert len(await cache.get(venue.fetch)) == 2 and venue.asked == 1
    assert not caches.exists()


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8080/x", True),
        ("ws://[::1]:9", True),
        ("http://localhost", True),
        ("https://api.kraken.com", False),
        ("http://10.0.0.1", False),
        ("nonsense", False),
    ],
)
def test_an_address_of_this_machine_is_told_from_others(url: str, local: bool) -> None:
    assert is_loopback(url) == local


def test_tables_of_two_sources_lie_apart(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    one, other = (table_path("venue", source, environ) for source in ("a", "b"))
    assert one != other and one.parent == tmp_path / "piker-core" / "venue"
    assert table_path("venue", "a", {}).is_relative_to(Path.home() / ".cache")
