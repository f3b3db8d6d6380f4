"""The examples run as a reader would run them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

import piker_core as pk

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
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
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
            nursery.start_soon(keep, "tail_bars.py", "six.dicevenue", "4")
    assert "six.dicevenue opened at" in outputs["strategy.py"]
    assert "buy" in outputs["strategy.py"] or "sell" in outputs["strategy.py"]
    assert len(outputs["tail_bars.py"].splitlines()) >= 5


def test_the_provider_example_is_sixty_lines() -> None:
    lines = (EXAMPLES / "dicevenue.py").read_text().splitlines()
    assert sum(1 for line in lines if line.strip()) <= 60
