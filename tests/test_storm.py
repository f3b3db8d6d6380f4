"""Short storms of faults, of each provider alone and of all at once."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec

import pytest

from tests import storm

SECONDS = 10.0
CASES = [*([name] for name in storm.NAMES), storm.known_sites()]
EXTRAS = {"ib": "ib_async"}


def sites(names: Sequence[str]) -> list[storm.Site]:
    """What is particular of venues; skips where one of them cannot be had."""
    for name in names:
        missing = {f"providers.{name}", EXTRAS.get(name, "piker_core")}
        missing = {module for module in missing if not find_spec(module)}
        if missing:
            pytest.skip(f"no storm of {name} without {' and '.join(sorted(missing))}")
    return [storm.find_site(name) for name in names]


@pytest.mark.parametrize("names", CASES, ids="+".join)
async def test_bars_are_exact_and_gaps_repaired_after_a_storm(
    names: Sequence[str], namespace: str
) -> None:
    report = await storm.storm(sites(names), namespace, seconds=SECONDS, seed=2)
    assert storm.faulty(report) == []
    for row in report["providers"].values():
        assert row["rows"] > 100 and row["trades"] and row["ticks"] and row["gaps"]
        assert row["strikes"] and row["faults"]


def test_all_clocks_and_waits_of_an_accelerated_storm_go_alike() -> None:
    if shutil.which("faketime") is None:
        pytest.skip("no libfaketime: apt-get install faketime")
    command = [sys.executable, "-m", "tests.storm_speed", "12"]
    ended = subprocess.run(command, cwd=storm.ROOT, capture_output=True, check=True)
    told = json.loads(ended.stdout)
    assert told.pop("core") == [pytest.approx(1.0, abs=0.1)]
    for wall, steady in told.values():
        assert wall == pytest.approx(12.0, abs=3.0)
        assert steady == pytest.approx(12.0, abs=3.0)
