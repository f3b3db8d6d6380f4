"""`open_feed`: writing, attaching, taking over, streams; with a provider by plan."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import fakevenue
import msgspec
import numpy as np
import pytest
import trio

import piker_core as pk
from piker_core.calendars import Sessions
from piker_core.feeder import left_options, market_options

FQME = "xbtusd.fakevenue"
OTHER = "ethusd.fakevenue"
WRITER = """
import sys, trio, piker_core as pk
async def main():
    async with pk.open_feed(sys.argv[1:]) as feed:
        print("open", flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


@pytest.fixture(autouse=True)
def plan(namespace: str, monkeypatch: pytest.MonkeyPatch) -> fakevenue.Plan:
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    fakevenue.plan.__init__()  # type: ignore[misc]
    return fakevenue.plan


@pytest.fixture
def writer() -> Iterator[Any]:
    """Starts processes that feed markets; ends those that are left."""
    children = []

    def start(*fqmes: str) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, *fqmes],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def count_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def wait_until(look: Any) -> None:
    while not look():
        await trio.sleep(0.02)


async def collect(stream: Any, counts: Counter[int], enough: int) -> None:
    async for quotes in stream:
        for quote in quotes.values():
            counts.update(tick["id"] for tick in quote["ticks"])
        if len(counts) >= enough:
            return


async def test_a_feed_writes_rows_and_ticks_that_anyone_can_read() -> None:
    async with pk.open_feed([FQME]) as feed:
        flume = feed.flumes[FQME]
        assert feed.roles == {"fakevenue": "writer"}
        assert flume.first_quote["last"] == 100.0 and flume.first_quote["fqme"] == FQME
        assert flume.market.fqme == FQME and str(flume.market.price_tick) == "0.25"
        async for quotes in feed.stream():
            assert set(quotes) == {FQME}
            tick = quotes[FQME]["ticks"][0]
            assert tick["type"] == "trade" and tick["side"] == "buy"
            assert quotes[FQME]["last"] == quotes[FQME]["ticks"][-1]["price"]
            break
        assert flume.status == "live"
        with pk.attach_bars(FQME, period=60) as bars:
            assert bars.last()["count"] > 0
    with pk.attach_bars(FQME, period=1) as bars:
        assert bars.status == "stopped" and not bars.writer_alive


async def test_each_subscriber_gets_every_tick_once() -> None:
    async with pk.open_feed([FQME]) as feed:
        plain: Counter[int] = Counter()
        throttled: Counter[int] = Counter()
        streams = feed.stream(), feed.stream(tick_throttle=20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect, streams[0], plain, 150)
            nursery.start_soon(collect, streams[1], throttled, 150)
        assert all(stream.lost == 0 for stream in streams)
    for counts in (plain, throttled):
        assert set(counts.values()) == {1}
        first, last = min(counts), max(counts)
        assert sorted(counts) == list(range(first, last + 1))


async def test_a_throttled_stream_puts_the_ticks_between_into_one_quote() -> None:
    async with pk.open_feed([FQME], tick_throttle=4) as feed:
        stream = feed.stream()
        await anext(stream)
        await wait_until(lambda: len(fakevenue.plan.sent["xbtusd"]) > 40)
        quotes = await anext(stream)
        assert len(quotes[FQME]["ticks"]) > 3


async def test_quotes_are_not_shared_between_subscribers() -> None:
    async with pk.open_feed([FQME, OTHER]) as feed:
        one, two = feed.stream(), feed.stream()
        first, second = await anext(one), await anext(two)
        first[next(iter(first))]["ticks"].clear()
        assert all(quote["ticks"] for quote in second.values())


async def test_a_quiet_market_opens_with_the_last_price() -> None:
    fakevenue.plan.quiet = True
    async with pk.open_feed([FQME]) as feed:
        flume = feed.flumes[FQME]
        assert flume.first_quote["last"] == 100.0
        assert flume.rt.last_price == 100.0
        assert flume.status == "live"


async def test_another_process_attaches_and_sees_the_same_ticks(writer: Any) -> None:
    writer(FQME, OTHER)
    async with pk.open_feed([FQME]) as feed:
        assert feed.roles == {"fakevenue": "reader"}
        flume = feed.flumes[FQME]
        assert flume.market.fqme == FQME and flume.market.base.name == "xbt"
        assert flume.first_quote["last"] > 0
        counts: Counter[int] = Counter()
        await collect(feed.stream(), counts, 50)
        assert set(counts.values()) == {1}
    assert fakevenue.plan.sessions == 0


async def test_markets_that_the_writer_feeds_and_others_are_opened_together(
    writer: Any,
) -> None:
    writer(OTHER)
    async with pk.open_feed([FQME, OTHER]) as feed:
        assert feed.roles == {"fakevenue": "reader"}
        assert {flume.status for flume in feed.flumes.values()} == {"live"}
        seen: set[str] = set()
        async for quotes in feed.stream():
            seen |= set(quotes)
            if len(seen) == 2:
                break
    with pk.attach_bars(FQME) as bars, pk.attach_bars(OTHER) as other:
        await wait_until(lambda: bars.status == "stopped")
        assert other.status == "live"
    assert fakevenue.plan.sessions == 0


async def test_an_attached_feed_takes_over_when_the_writer_is_killed(
    writer: Any,
) -> None:
    child = writer(FQME, OTHER)
    async with pk.open_feed([FQME]) as feed:
        flume = feed.flumes[FQME]
        generation = flume.rt.generation
        with pk.attach_bars(OTHER, period=1) as other:
            await wait_until(lambda: flume.rt.head > flume.rt.first)
            rows = flume.rt.snapshot(1000)
            child.send_signal(signal.SIGKILL)
            await wait_until(lambda: feed.roles == {"fakevenue": "writer"})
            await wait_until(lambda: flume.rt.generation == generation + 1)
            await wait_until(lambda: flume.status == "live")
            counts: Counter[int] = Counter()
            await collect(feed.stream(), counts, 20)
            await wait_until(lambda: other.status == "stopped")
        kept = flume.rt.between(rows["time"][0], rows["time"][-1])
        assert kept["close"].tolist() == rows["close"][:-1].tolist()
    assert set(fakevenue.plan.sent) == {"xbtusd"}  # who asked for the other is dead


async def test_history_that_fails_is_one_markets_trouble_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def get_ohlc(
        timeframe: float, end_dt: Any = None, start_dt: Any = None
    ) -> Any:
        rows = np.zeros(60, pk.OHLCV_DTYPE)
        end_s = int(end_dt.timestamp())
        rows["time"] = np.arange(end_s - 60 * timeframe, end_s, timeframe)
        for name in ("open", "high", "low", "close", "bar_wap"):
            rows[name] = 99.0
        return rows, start_dt, end_dt

    fakevenue.plan.history = get_ohlc
    fakevenue.plan.broken_history = {"ethusd"}
    async with pk.open_feed([OTHER, FQME]) as feed:
        good, bad = feed.flumes[FQME], feed.flumes[OTHER]
        await wait_until(lambda: good.hist.head - good.hist.first > 600)
        await wait_until(lambda: good.rt.head - good.rt.first > 3000)
        assert {good.status, bad.status} == {"live"}
        assert bad.hist.head - bad.hist.first < 3
    [record] = caplog.records
    assert record.getMessage() == f"{OTHER}: back-fill failed"


def test_what_a_market_is_made_of_is_known_to_the_next_writer() -> None:
    asset = pk.Asset("eur")
    mkt = pk.MktPair(
        base=asset,
        quote=pk.Asset("usd"),
        symbol="eurusd",
        venue_symbol="EUR.USD",
        provider="ib",
        price_tick=Decimal("0.00005"),
        size_tick=Decimal(1),
    )
    for bars_from in ("trade", "mid"):
        options = market_options(mkt, bars_from)
        assert (options["price_tick"], options["bars_from"]) == ("0.00005", bars_from)
        assert left_options(options["about"]) == options
        assert msgspec.json.decode(options["about"], type=pk.MktPair) == mkt
        assert options["sessions"] is None
    shut_at_times = msgspec.structs.replace(mkt, calendar="fx")
    left = left_options(market_options(shut_at_times, "mid")["about"])
    assert len(left["sessions"]) > 50  # weeks
    with pytest.raises(ValueError):
        left_options(b"")


async def test_a_broken_stream_begins_again() -> None:
    fakevenue.plan.fail_at = [5, 0]  # the first time it begins again at once
    async with pk.open_feed([FQME]) as feed:
        flume, cause = feed.flumes[FQME], str(fakevenue.plan.failure)
        await wait_until(lambda: flume.status == "reconnecting")
        await wait_until(lambda: flume.rt.status_reason == cause)
        await wait_until(lambda: fakevenue.plan.sessions == 3)
        counts: Counter[int] = Counter()
        await collect(feed.stream(), counts, 3)
        assert (flume.status, flume.rt.status_reason) == ("live", "")
    assert fakevenue.plan.histories == ["xbtusd"]


async def test_a_bug_of_the_provider_does_not_end_the_feed() -> None:
    fakevenue.plan.fail_at = [5]
    fakevenue.plan.failure = KeyError("oops")
    async with pk.open_feed([FQME]) as feed:
        await wait_until(lambda: fakevenue.plan.sessions == 2)
        await collect(feed.stream(), Counter(), 3)


@pytest.mark.parametrize(
    "error", [pk.ProviderError("refused"), pk.NotFound("no symbol"), OSError("net")]
)
async def test_an_error_at_the_start_comes_out_as_itself(error: Exception) -> None:
    fakevenue.plan.start_error = error
    with pytest.raises(type(error)) as caught:
        async with pk.open_feed([FQME]):
            raise AssertionError("it opened")
    assert caught.value is error


async def test_a_symbol_that_the_provider_does_not_know_is_not_found() -> None:
    fakevenue.plan.unknown = {"nosuch"}
    with pytest.raises(pk.NotFound, match="nosuch"):
        async with pk.open_feed([FQME, "nosuch.fakevenue"]):
            raise AssertionError("it opened")


async def test_a_provider_without_a_first_quote_is_a_feed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[feed]\nfirst_quote_s = 0.2\n")
    monkeypatch.setenv("PIKER_CONFIG", str(path))
    fakevenue.plan.first_quote = False
    with pytest.raises(pk.FeedError, match=r"xbtusd.*0\.2 s"):
        async with pk.open_feed([FQME]):
            raise AssertionError("it opened")


async def test_an_error_of_the_user_comes_out_as_itself() -> None:
    error = RuntimeError("mine")
    with pytest.raises(RuntimeError) as caught:
        async with pk.open_feed([FQME]):
            raise error
    assert caught.value is error


async def test_opening_and_closing_leaves_nothing_behind() -> None:
    async def once() -> None:
        async with pk.open_feed([FQME, OTHER]) as feed:
            await anext(feed.stream())

    await once()
    files = count_files()
    tasks = trio.lowlevel.current_statistics().tasks_living
    for _ in range(5):
        await once()
    assert count_files() == files
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_a_cancelled_feed_closes_its_engine() -> None:
    with trio.CancelScope() as scope:
        async with pk.open_feed([FQME]) as feed:
            await anext(feed.stream())
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    pk.open_engine("fakevenue").close()


@pytest.mark.parametrize(
    ("fqmes", "error"),
    [
        ([], ValueError),
        (FQME, ValueError),
        (["xbtusd"], pk.PikerError),
        (["XBT USD.fakevenue"], pk.PikerError),
        (["xbtusd.nosuchvenue"], pk.NotFound),
    ],
)
async def test_names_that_are_none_are_refused(fqmes: Any, error: type) -> None:
    with pytest.raises(error):
        async with pk.open_feed(fqmes):
            raise AssertionError("it opened")


async def test_a_throttle_that_is_no_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="tick_throttle"):
        async with pk.open_feed([FQME], tick_throttle=0):
            raise AssertionError("it opened")


async def test_a_market_whose_session_is_closed_says_so_and_its_trades_count(
    plan: fakevenue.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "piker_core.calendars.find_calendar", lambda name: Sessions(name, [])
    )
    plan.calendar = "shut"
    async with pk.open_feed([FQME]) as feed:
        flume = feed.flumes[FQME]
        assert flume.market.calendar == "shut"
        await wait_until(lambda: flume.status == "closed")
        head = flume.rt.head
        await wait_until(lambda: flume.rt.head > head)
        assert flume.rt.statistics()["flat_rows"] == 0


async def test_a_calendar_that_is_not_known_is_told_when_the_feed_opens(
    plan: fakevenue.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "exchange_calendars", None)
    plan.calendar = "XZZZ"
    with pytest.raises(pk.PikerError, match="calendar XZZZ needs exchange_calendars"):
        async with pk.open_feed([FQME]):
            pass
