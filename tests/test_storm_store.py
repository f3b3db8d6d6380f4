"""What a store has of a storm: all closed rows of the rings, as they are at the end."""

from pathlib import Path

import numpy as np
import pytest

import piker_core as pk
from piker_core.dtypes import BarFlag
from piker_core.store import open_store
from tests import storm
from tests.test_storm import sites

SECONDS = 8.0
RING_OWN = int(BarFlag.BACKFILLED)
REPAIRED = int(BarFlag.REPAIRED)


@pytest.mark.parametrize("name", storm.NAMES)
async def test_the_store_has_the_closed_rows_of_the_rings_after_a_storm(
    name: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"parquet://{tmp_path}/store"
    monkeypatch.setenv("PIKER_FEED__STORE", url)
    report = await storm.storm(sites([name]), namespace, seconds=SECONDS, seed=3)
    assert storm.faulty(report) == []
    revised = 0
    with open_store(url) as store:
        series = {each.fqme for each in store.series()}
        assert series and all(fqme.endswith(f".{name}") for fqme in series)
        for fqme in sorted(series):
            for period in (1, 60):
                with pk.attach_bars(fqme, period=period) as bars:
                    ring = bars.snapshot(bars.capacity)
                    revised += bars.statistics()["revisions"]
                    revised += np.count_nonzero(ring["flags"] & REPAIRED)
                kept = store.read_ohlcv(fqme, period)
                assert len(ring) - len(kept) in (0, 1)
                ring = ring[: len(kept)]
                for field in pk.OHLCV_DTYPE.names or ():
                    if field == "flags":
                        assert not ((kept[field] ^ ring[field]) & ~RING_OWN).any()
                    elif field != "index":
                        assert kept[field].tolist() == ring[field].tolist()
    assert revised
