"""The examples run as a reader would run them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

import piker_core as pk
from tests.compilers import compile_c
from tests.ring_making import BASE_S, FQME, NS, make, open_rings, trades_at

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(EXAMPLES), *sys.path])
    return os.environ | {"PYTHONPATH": path, "PIKER_CONFIG": os.devnull} | more


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def test_an_embedded_engine_gives_exact_bars(namespace: str) -> None:
    output = run("embed_engine.py")
    assert "(60000. , 60000. , 59999.9, 59999.9, 1.5 )" in output
    assert "'late': 1" in output and "'duplicates': 1" in output
    assert "lost: 0" in output


async def test_a_provider_of_ones_own_feeds_a_strategy_and_a_reader(
    namespace: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("PIKER_STATE", str(tmp_path))
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    outputs: dict[str, str] = {}

    async def keep(name: str, *arguments: str) -> None:
        call: Any = lambda: run(name, *arguments)  # noqa: E731
        outputs[name] = await trio.to_thread.run_sync(call)

    async with pk.open_feed(["six.dicevenue"]) as feed:
        flume = feed.flumes["six.dicevenue"]
        while flume.rt.head == flume.rt.first:
            await trio.sleep(0.02)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, "strategy.py", "six.dicevenue", "3")
            nursery.start_soon(keep, "orders.py", "six.dicevenue", "4")
            nursery.start_soon(keep, "tail_bars.py", "six.dicevenue", "4")
    assert "six.dicevenue opened at" in outputs["strategy.py"]
    assert "buy" in outputs["strategy.py"] or "sell" in outputs["strategy.py"]
    assert len(outputs["tail_bars.py"].splitlines()) >= 5
    assert "position 1" in outputs["orders.py"] or "position -" in outputs["orders.py"]


def test_the_provider_example_is_sixty_lines() -> None:
    lines = (EXAMPLES / "dicevenue.py").read_text().splitlines()
    assert sum(1 for line in lines if line.strip()) <= 60


@pytest.fixture(params=["gcc", "clang"])
def c_reader(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The reader in C, which knows the format from its document only."""
    source = EXAMPLES / "c" / "tail_bars.c"
    return compile_c(
        request.param, source, tmp_path / "tail_bars", headers=source.parent
    )


def test_a_reader_in_c_sees_live_bars_of_several_writers(
    namespace: str, c_reader: Path
) -> None:
    with open_rings(namespace) as (engine, market):
        engine.push_ticks(market, trades_at([BASE_S * NS], 1))
        arguments = [c_reader, namespace, FQME, "1", "40"]
        reader = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        for i in range(1, 21):
            engine.push_ticks(market, trades_at([(BASE_S + i) * NS], i + 1))
    with open_rings(namespace) as (engine, market):
        for i in range(21, 41):
            engine.push_ticks(market, trades_at([(BASE_S + i) * NS], i + 1))
        said, _ = reader.communicate(timeout=60)
    with pk.attach_bars(FQME, namespace=namespace) as bars:
        rows = bars.snapshot(41)[:40]
    assert reader.returncode == 0
    names = [name for name in rows.dtype.names or () if name != "index"]
    assert [tuple(map(float, line.split())) for line in said.splitlines()] == [
        tuple(float(row[name]) for name in names) for row in rows
    ]


def test_a_reader_in_c_says_what_is_wrong_with_a_ring(
    namespace: str, c_reader: Path
) -> None:
    def refusal() -> str:
        arguments = [c_reader, namespace, FQME, "1", "1"]
        done = subprocess.run(
            arguments, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1 and not done.stdout
        return done.stderr

    assert "no such ring" in refusal()
    path = make(namespace)["bars"]
    whole = path.read_bytes()
    for offset, reason in ((0, "version"), (8, "version"), (40, "damaged")):
        path.write_bytes(whole[:offset] + b"\xff" + whole[offset + 1 :])
        assert reason in refusal()
    path.write_bytes(whole[:-4096])
    assert "sizes" in refusal()


def test_the_reader_in_c_is_short() -> None:
    assert len((EXAMPLES / "c" / "piker_bars.h").read_text().splitlines()) < 150
