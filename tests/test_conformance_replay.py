"""Checks by a recorded session: reading one, serving it, and what comes of faults."""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import trio

import piker_core as pk
from piker_core.conformance.recording import Message, Session, read_recording
from piker_core.conformance.replay import addresses
from piker_core.conformance.report import Finding
from piker_core.conformance.runner import check_recording
from piker_core.conformance.script import Script
from tests.broken_feeds import DEAF_TO_THE_PAST, TWICE
from tests.broken_providers import make_provider
from tests.recorded_session import write_session

SOUND, DEAF, DOUBLE, LACKING = "replaysound", "replaydeaf", "replaydouble", "replaylack"
Found = dict[str, dict[str, Finding]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """What is found of some providers by the same recording, side by side."""
    folder = tmp_path_factory.mktemp("replay")
    before = list(sys.path)
    try:
        make_provider(SOUND, folder, ())
        make_provider(DEAF, folder, DEAF_TO_THE_PAST.changes)
        make_provider(DOUBLE, folder, TWICE.changes)
        make_provider(LACKING, folder, ())
        yield trio.run(check_all, folder)
    finally:
        sys.path[:] = before


async def check_all(folder: Path) -> Found:
    findings: dict[str, list[Finding]] = {}

    async def check(name: str, *only: str) -> None:
        files = write_session(folder / name, name=name, seconds=4.0)
        if name == LACKING:
            files = files[1:]
        findings[name] = []
        await check_recording(
            import_module(name),
            name,
            findings[name].append,
            read_recording(files),
            symbols=["btcusd", "ethusd"],
            only=only or ["replay"],
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(check, SOUND)
        nursery.start_soon(check, DEAF, "replay.cut")
        nursery.start_soon(check, DOUBLE, "replay.spoilt")
        nursery.start_soon(check, LACKING, "replay.clean", "replay.cut")
    return {name: {f.check: f for f in those} for name, those in findings.items()}


def test_a_sound_provider_has_the_same_bars_under_every_fault(found: Found) -> None:
    findings = found[SOUND]
    assert len(findings) == 5
    for finding in findings.values():
        assert finding.state == "passed", finding
    # both markets trade twice a message, 20 times a second, from 12.25 to 16
    assert findings["replay.clean"].figures == {"rows": 8, "trades": 2 * 2 * 75}


def test_trades_that_a_cut_connection_costs_are_found(found: Found) -> None:
    finding = found[DEAF]["replay.cut"]
    assert finding.state == "failed"
    assert DEAF_TO_THE_PAST.text in finding.text


def test_trades_that_count_twice_are_found(found: Found) -> None:
    assert found[DOUBLE]["replay.spoilt"].state == "failed"


def test_calls_that_were_not_recorded_are_named(found: Found) -> None:
    finding = found[LACKING]["replay.clean"]
    assert finding.state == "failed"
    assert "not in the recording: GET /v1/markets {}" in finding.text
    assert found[LACKING]["replay.cut"].state == "failed"


# Reading


def test_a_recording_is_read_with_its_times(tmp_path: Path) -> None:
    recording = read_recording(write_session(tmp_path, seconds=1.0))
    (session,) = recording.sessions
    assert session.url == "wss://stream.newvenue.test/v1"
    assert [json.loads(message.text)["id"] for message in session.sent] == [41, 42]
    assert recording.begin_s == 1_700_000_011.25
    assert recording.end_s == pytest.approx(1_700_000_013.201)
    (answer,) = recording.find("/v1/markets", {})
    assert answer.message.text.startswith(b'[{"market"')
    asked = {"market": "ETH-USD", "since": "99"}
    (like,) = recording.find("/v1/trades", asked)
    assert like.query == {"market": "ETH-USD", "since": "1"}
    assert recording.find("/v1/haiku", {}) == []


@pytest.mark.parametrize("name", ["DERIBIT.ws.1.0", "KUCOIN.ws.1.0"])
def test_recordings_of_others_are_read(captures: Path, name: str) -> None:
    path = captures / name.partition(".")[0].lower() / name
    recording = read_recording([path, path.with_name(name.partition(".")[0] + ".0")])
    assert len(recording.sessions) == 1 and recording.answers
    assert len(recording.sessions[0].received) > 100
    assert 20 < recording.end_s - recording.begin_s < 60


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("haiku", "line 1 is none of a recorded session: b'haiku'"),
        ("1.5: text before any connection", "line 1 is none"),
        ("wss://a/b <- 1.5: sent before", "line 1 is none"),
        ("wss://a/b <-> 1.5\n1.6: x\nftp://x -> 1.7: y", "line 3 is none"),
        ("https://a/b -> 1.5: {}", "no message of a WebSocket"),
        ("", "no message of a WebSocket"),
    ],
)
def test_what_is_no_recording_is_said_with_its_line(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(pk.PikerError, match=words):
        read_recording([path])


# Serving


def script(sent: list[Any], received: list[Any]) -> Script:
    def messages(texts: list[Any]) -> list[Message]:
        return [
            Message(float(n), json.dumps(text).encode()) for n, text in enumerate(texts)
        ]

    return Script(Session("wss://a/b", messages(sent), messages(received)))


def test_answers_go_to_who_asks_the_same_with_its_own_id() -> None:
    first, second = {"op": "sub", "id": 1, "of": "a"}, {"op": "sub", "id": 2, "of": "b"}
    answers = [{"id": 2, "ok": True}, {"id": 1, "ok": False}, {"trade": 5}]
    replay = script([first, second], answers)
    assert [json.loads(message.text) for message in replay.messages] == [{"trade": 5}]
    (told,) = replay.answer({"op": "sub", "id": 77, "of": "b"}, 0)
    assert json.loads(told) == {"id": 77, "ok": True}
    (told,) = replay.answer({"op": "something else", "id": "x"}, 0)
    assert json.loads(told) == {"id": "x", "ok": False}
    assert replay.answer({"op": "sub"}, 0) == replay.answer({"id": 1}, 9) == []


def test_a_provider_without_an_address_of_a_websocket_is_told() -> None:
    class Config(msgspec.Struct):
        ws_url: str = "wss://stream.test/v2?x=1"
        rest_url: str = "https://api.test"
        name: str = "plain"

    provider = ModuleType("madeup")
    provider.Config = Config  # type: ignore[attr-defined]
    assert addresses(provider, "a:1", "b:2") == {
        "ws_url": "ws://a:1/v2",
        "rest_url": "http://b:2",
    }
    with pytest.raises(pk.PikerError, match="no Config with the address"):
        addresses(ModuleType("madeup"), "a:1", "b:2")
