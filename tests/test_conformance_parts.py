"""What the conformance kit is made of, piece by piece."""

import os
import sys
import textwrap
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

import piker_core as pk
from piker_core.conformance import shutdown, truth
from piker_core.conformance.cases import chosen, names
from piker_core.conformance.contract import mismatches
from piker_core.conformance.process import Told, open_subject
from piker_core.conformance.report import Failed, Finding, NotApplicable
from piker_core.conformance.resources import Resources, differences, leaked
from piker_core.conformance.runner import check_provider
from piker_core.conformance.stage import Patience, Stage
from piker_core.conformance.tap import Tap
from piker_core.conformance.venues import pointed, venue_name
from piker_core.simulation.market import VenueCandle

STEPS = truth.Steps(Decimal("0.1"), Decimal("0.01"))
MINUTE = 1_700_000_040
CANDLE = VenueCandle(
    MINUTE,
    Decimal("100.1"),
    Decimal("100.5"),
    Decimal("99.9"),
    Decimal("100.2"),
    Decimal("1.23"),
    4,
    Decimal("100.1"),
    Decimal("123.123"),
)
ROW = {
    "time": MINUTE,
    "open": 100.1,
    "high": 100.5,
    "low": 99.9,
    "close": 100.2,
    "volume": 1.23,
    "count": 4,
    "bar_wap": 100.16,
    "flags": 0,
}


def rows(*made: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    table = np.zeros(len(made), pk.OHLCV_DTYPE)
    for number, row in enumerate(made):
        for name, value in row.items():
            table[number][name] = value
    return table


def gaps(*spans: tuple[float, float, bool]) -> np.ndarray[Any, Any]:
    table = np.zeros(len(spans), pk.GAP_DTYPE)
    for number, (start_s, end_s, repaired) in enumerate(spans):
        start_ns, end_ns = int(start_s * 1e9), int(end_s * 1e9)
        table[number] = (start_ns, end_ns, b"test", repaired)
    return table


def times(*seconds: int, **more: Any) -> np.ndarray[Any, Any]:
    return rows(*({"time": MINUTE + second, **more} for second in seconds))


# Rows beside candles


def test_a_row_equal_to_its_candle_has_no_difference() -> None:
    assert truth.difference(ROW, CANDLE, STEPS) == ""
    flat = msgspec.structs.replace(CANDLE, count=0, vwap=Decimal(0))
    assert truth.difference(ROW | {"count": 0, "bar_wap": 100.2}, flat, STEPS) == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("open", 100.0),
        ("high", 100.6),
        ("low", 99.8),
        ("close", 100.3),
        ("volume", 1.24),
        ("volume", float("nan")),
        ("count", 5),
        ("bar_wap", 100.21),
        ("bar_wap", float("nan")),
    ],
)
def test_a_difference_in_any_field_is_told(field: str, value: float) -> None:
    text = truth.difference(ROW | {field: value}, CANDLE, STEPS)
    kind = "prices" if field in truth.PRICES else field
    assert text.startswith(kind) and str(value) in text


def test_rows_are_compared_but_those_of_which_the_venue_cannot_tell() -> None:
    table = rows(ROW, ROW | {"time": MINUTE + 1}, ROW | {"time": MINUTE + 9})
    found = truth.compare(table, [CANDLE], STEPS, period=1, name="x")
    assert (found.rows, found.trades) == (3, 12)
    assert [text.partition(": ")[2] for text in found.wrong] == [
        "the venue has no such candle"
    ] * 2
    doubtful = [(MINUTE + 0.5, MINUTE + 3.0)]
    found = truth.compare(table, [CANDLE], STEPS, period=1, name="x", doubtful=doubtful)
    assert (found.rows, len(found.wrong)) == (1, 1)


def test_every_second_is_a_row_or_on_record_or_closed() -> None:
    holes = times(0, 1, 4, 9)
    none = gaps()
    assert len(truth.missing(holes, none, period=1, name="x")) == 6
    on_record = gaps((MINUTE + 2.5, MINUTE + 4.0, False))
    left = truth.missing(holes, on_record, period=1, name="x")
    assert len(left) == 4 and all("neither a row nor a gap" in text for text in left)
    closed = [(MINUTE + 5, MINUTE + 9)]
    assert not truth.missing(holes, on_record, period=1, name="x", closed=closed)
    assert truth.missing(times(1, 0), none, period=1, name="x")
    assert truth.missing(times(0, 1), none, period=60, name="x")
    assert not truth.missing(times(), none, period=1, name="x")


def test_repaired_gaps_show_in_their_rows_and_placeholders_have_gaps() -> None:
    repaired, gap = int(pk.BarFlag.REPAIRED), int(pk.BarFlag.SYNTHETIC_GAP)
    span = gaps((MINUTE + 0.5, MINUTE + 5, True))
    silent = times(1, 2, 3, count=2)
    assert truth.misflagged(silent, span, period=1, name="x")
    assert not truth.misflagged(times(1, 2, count=2), span, period=1, name="x")
    silent["flags"][1] = repaired
    assert not truth.misflagged(silent, span, period=1, name="x")
    placeholder = times(7, flags=gap)
    assert truth.misflagged(placeholder, span, period=1, name="x")
    still_open = gaps((MINUTE + 7, MINUTE + 8, False))
    assert not truth.misflagged(placeholder, still_open, period=1, name="x")
    assert truth.unrepaired(still_open) == [(MINUTE + 7, MINUTE + 8)]


# What is left open


def held(**more: Any) -> Resources:
    empty = {"descriptors": [], "threads": [], "tasks": [], "rings": []}
    known = {"unclosed": [], "memory": 1 << 20, "cpu_s": 1.0, "wall_s": 10.0}
    return msgspec.convert(empty | known | more, Resources)


def test_what_is_there_afterwards_alone_has_leaked() -> None:
    before = held(descriptors=["/a", "socket:[1]"], threads=["main"])
    after = held(
        descriptors=["/a", "socket:[7] to port 80", "socket:[1]"],
        threads=["main"],
        unclosed=["unclosed socket"],
    )
    assert leaked(before, after) == {
        "descriptors": ["socket:[7] to port 80"],
        "unclosed": ["unclosed socket"],
    }
    assert leaked(before, before) == leaked(after, before) == {}
    other = held(descriptors=["/a", "socket:[9]"], threads=["main"])
    assert leaked(before, other) == {}  # another socket, and no more than before


def test_figures_are_of_the_time_between_two_looks() -> None:
    after = held(memory=3 << 20, cpu_s=1.5, wall_s=12.0, descriptors=["/a"])
    used = differences(held(), after)
    assert (used["memory_growth"], used["cpu_share"]) == (2 << 20, 0.25)
    assert used["descriptors"] == 1


@pytest.mark.usefixtures("namespace")
async def test_rings_that_are_not_closed_are_told(namespace: str) -> None:
    stage = cast(Stage, SimpleNamespace(was_open=True, opening={}, namespace=namespace))
    with pytest.raises(Failed, match="no ring is left"):
        await shutdown.check_segments(stage)
    with pk.open_engine("fake", namespace=namespace, tick_capacity=64) as engine:
        engine.add_market("aaa.fake", capacity={1: 64, 60: 64})
        with pytest.raises(Failed, match="has a writer still"):
            await shutdown.check_segments(stage)
    passed = await shutdown.check_segments(stage)
    assert passed.text == "3 rings are stopped, without a writer"


OPENS = """
from contextlib import asynccontextmanager
EXEMPT = {{"storm.all": "no storms"}}
@asynccontextmanager
async def open_venue():
    {code}
    yield
"""

# Contract and cases


def test_a_function_is_called_as_the_engine_calls_it() -> None:
    def good(one: int, two: int = 0, **more: int) -> None: ...

    def wants(one: int, *, mood: str) -> None: ...

    assert not mismatches(good, [(1, ()), (0, ("one", "two", "three"))])
    (text,) = mismatches(wants, [(1, ())])
    assert "missing a required argument: 'mood'" in text
    (text,) = mismatches(good, [(3, ())])
    assert "too many positional arguments" in text
    assert mismatches(cast(Any, 7), [(0, ())]) == ["it cannot be called"]


def test_checks_are_chosen_by_name_or_by_kind() -> None:
    assert chosen([]) == set(names())
    assert chosen(["reconnect.cut"]) == {"reconnect.cut"}
    assert chosen(["history", "storm"]) >= {"history.minutes", "storm.all"}
    with pytest.raises(
        ValueError, match=r"no check 'haiku'; there are contract\.names"
    ):
        chosen(["haiku"])
    assert len(names()) == len(set(names()))


def module(**parts: Any) -> ModuleType:
    made = ModuleType("madeup")
    vars(made).update({"name": "madeup"} | parts)
    return made


def test_a_provider_is_pointed_by_its_environment_and_nothing_of_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Config(msgspec.Struct):
        liveness_s: float = 9.0
        ack_timeout_s: float = 9.0

    monkeypatch.setenv("PIKER_MADEUP__API_SECRET", "secret")
    monkeypatch.setenv("PIKER_CONFIG", "/home/user/config.toml")
    config = {"host": "::1", "port": 7, "ack_timeout_s": 4.5, "nothing": None}
    found = pointed(module(Config=Config), config, "space")
    own = {key: value for key, value in found.items() if "MADEUP" in key}
    assert own == {
        "PIKER_MADEUP__HOST": "::1",
        "PIKER_MADEUP__PORT": "7",
        "PIKER_MADEUP__ACK_TIMEOUT_S": "4.5",
        "PIKER_MADEUP__LIVENESS_S": "2.0",
    }
    assert found["PIKER_CONFIG"] == os.devnull
    assert found["PIKER_NAMESPACE"] == "space"
    calm = pointed(module(Config=Config), {}, "space", hasty=False)
    assert not any("MADEUP" in key for key in calm)
    assert os.environ["PIKER_CONFIG"] == "/home/user/config.toml"


async def test_without_a_venue_only_the_contract_is_checked() -> None:
    findings: list[Finding] = []
    provider = module()
    assert venue_name(provider) == ""
    summary = await check_provider(provider, "madeup", findings.append)
    states = {finding.check: finding.state for finding in findings}
    assert states["contract.names"] == "failed"
    assert states["reconnect.cut"] == "not applicable"
    assert summary.failed == 1 and summary.not_applicable > 30
    provider = module(stream_quotes=lambda: None)
    await check_provider(provider, "madeup", findings.append, only=["exact"])
    assert "no simulated venue" in findings[-1].text


async def test_a_venue_that_does_not_open_is_told_once_a_lane(package: Any) -> None:
    package("venueless", "name = 'venueless'\nasync def stream_quotes(): ...\n")
    findings: list[Finding] = []
    for code, words in (
        ("raise OSError('no port is free')", "no port is free"),
        ("yield object()", "the simulated venue has no config, symbols"),
    ):
        broken = module(stream_quotes=lambda: None, name="venueless")
        broken.__name__ = "venueless"
        venue = ModuleType("venueless.venue")
        exec(OPENS.format(code=code), vars(venue))
        venue.__spec__ = cast(Any, SimpleNamespace(name="venueless.venue"))
        sys.modules["venueless.venue"] = venue
        sys.modules["venueless"] = broken
        only = ["history.minutes", "history.span", "storm"]
        await check_provider(broken, "venueless", findings.append, only=only)
        states = {f.check: f.state for f in findings[-3:]}
        assert states["history.minutes"] == "failed"
        assert states["history.span"] == "not applicable"
        assert states["storm.all"] == "not applicable"
        assert all(words in f.text for f in findings[-3:] if f.check != "storm.all")
        assert "its venue says: no storms" in findings[-3].text
    del sys.modules["venueless.venue"], sys.modules["venueless"]


def test_a_fault_that_a_venue_lacks_is_not_applicable() -> None:
    faults = SimpleNamespace(cut=lambda: 3)
    venue = SimpleNamespace(faults=faults, symbols=["a"], statistics=lambda: None)
    stage = Stage(module(), cast(Any, venue), cast(Any, None), "space", Patience())
    assert stage.fault("cut")() == 3
    with pytest.raises(NotApplicable, match="no fault 'rotate'"):
        stage.fault("rotate")
    with pytest.raises(NotApplicable, match="does not count calls"):
        stage.calls()
    assert stage.done("cut") is None


# The process


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a module that can be imported here and in other processes."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, code: str) -> dict[str, str]:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}

    return make


async def test_what_a_provider_raises_is_told_by_its_name(package: Any) -> None:
    environ = package(
        "raising",
        """
        import piker_core as pk
        name = "raising"
        async def stream_quotes(): ...
        async def get_mkt_info(name):
            print("to stdout, which is not the answers'")
            if name == "slow":
                raise pk.DataThrottle("wait", retry_after=2.5)
            raise KeyError(name)
        """,
    )
    async with open_subject("raising", environ) as subject:
        with pytest.raises(Told, match="DataThrottle: wait") as caught:
            await subject.ask("market", name="slow")
        assert caught.value.known and caught.value.retry_after == 2.5
        with pytest.raises(Told, match="KeyError: 'x'") as caught:
            await subject.ask("market", name="x")
        assert not caught.value.known
        assert await subject.ask("statistics") == {}
        assert any("to stdout" in line for line in subject.log())


async def test_a_process_that_ends_is_told_with_its_last_words(package: Any) -> None:
    environ = package(
        "ending",
        """
        import os, sys
        name = "ending"
        async def stream_quotes(): ...
        async def get_mkt_info(name):
            print("farewell", file=sys.stderr, flush=True)
            os._exit(7)
        """,
    )
    async with open_subject("ending", environ) as subject:
        with pytest.raises(Failed, match="ended with code 7: farewell"):
            await subject.ask("market", name="x")
        assert not subject.alive
        with pytest.raises(Failed, match="ended with code 7"):
            await subject.ask("statistics")


async def test_an_answer_that_does_not_come_is_a_failure(package: Any) -> None:
    environ = package(
        "silent",
        """
        import trio
        name = "silent"
        async def stream_quotes(): ...
        async def get_mkt_info(name):
            await trio.sleep_forever()
        """,
    )
    async with open_subject("silent", environ) as subject:
        with pytest.raises(Failed, match=r"no answer to market within 0\.1 s"):
            await subject.ask("market", name="x", within_s=0.1)
        assert await subject.ask("statistics") == {}


def test_the_tap_notes_what_quotes_lack() -> None:
    tap = Tap()
    tick = {"type": "trade", "price": 1.0, "size": 1.0, "time_ns": 5}
    tap.see({"symbol": "a", "ticks": [tick, tick]})
    tap.see(pk.Quote("a", [pk.Tick("bid", 1.0, 1.0, time=5.0)]))
    assert not tap.wrong
    assert tap.ticks == {"a/trade": 2, "a/bid": 1}
    tap.see({"ticks": []})
    tap.see({"symbol": "a", "ticks": None})
    tap.see({"symbol": "a", "ticks": [{"type": "trade", "price": 1.0}]})
    assert [text.partition(":")[0] for text in tap.wrong] == [
        "a quote has no symbol",
        "the ticks of a quote are no list",
        "a tick lacks size, time_ns",
    ]
    tap.start((1, 2), 0.0)
    assert "task_status.started() was not given" in tap.wrong[-1]
    assert tap.report()["quotes"] == 5
