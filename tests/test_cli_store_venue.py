"""`store repair` against a simulated venue: what it stores are the venue's candles."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import trio

import piker_core as pk
from piker_core.cli import failures
from tests.commands import PYTHON, records
from tests.postgres_server import PostgresServer
from tests.test_kraken_history_venue import assert_true, open_history

FQME = "xbtusd.kraken"


@pytest.mark.parametrize("kind", ["parquet", "postgresql"])
async def test_lost_seconds_become_the_venues_candles(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"parquet://{tmp_path}/bars"
    if kind == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.new_database()
    async with open_history() as (get_ohlc, venue):
        rows, _, _ = await get_ohlc(1)
        with pk.open_store(url) as store:
            kept = np.delete(rows, slice(100, 300))
            kept["low"][50] = kept["high"][50] + 1
            kept["flags"][400:420] |= int(pk.BarFlag.SYNTHETIC_GAP)
            store.write_ohlcv(FQME, 1, kept)
        venue.faults.throttle(1 if kind == "parquet" else 0)
        done = await trio.run_process(
            [*PYTHON, "store", "repair", "--json", "--store", url],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            env=os.environ
            | {"PIKER_KRAKEN__REST_URL": venue.rest_url, "PIKER_CONFIG": "/dev/null"},
        )
        assert done.returncode == failures.OK, done.stdout.decode()
        (told,) = records(done.stdout.decode(), "repaired")
        assert (told["rows"], told["faults"], told["holes"]) == (221, 1, 0)
        with pk.open_store(url) as store:
            mended = store.read_ohlcv(FQME, 1)
        mended["flags"] &= ~int(pk.BarFlag.BACKFILLED)
        assert_true(mended, venue, "xbtusd", 1, cut=False)
        assert len(mended) == len(rows)
