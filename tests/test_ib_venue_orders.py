"""Clients by others (ib_async, the official ibapi) trade at the simulated gateway."""

import json
import sys
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trio

from providers.ib.venue import Venue
from providers.ib.venue_order_frames import completed_frame, open_order_frame
from tests.ib_orders import open_orders_venue

PEERS = Path(__file__).with_name("ib_order_peers.py")
VERSIONS = pytest.mark.parametrize("version", [157, 178])
Got = dict[str, Any]


async def trade(peer: str, venue: Venue) -> tuple[Got, float]:
    """What a client understood, in a process of its own, and the price it took at."""
    price = float(venue.market("AAPL").price(venue.market("AAPL").quote.ask)) + 5
    command = [sys.executable, str(PEERS), peer, str(venue.port), str(price)]
    done = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    got: Got = json.loads(done.stdout)
    return got, price


def needs(peer: str) -> pytest.MarkDecorator:
    """Skips where a client is not installed."""
    return pytest.mark.skipif(
        find_spec(peer) is None, reason=f"needs {peer}: pip install {peer}"
    )


@pytest.mark.parametrize(
    ("kind", "differ", "more"),
    [(5, {1, 2, 3, 11, 14, 15, 16, 18, 24, 94}, 1),
     (101, {2, 13, 14, 15, 17, 23, 77, 87, 90, 94, 95}, 0)],
)  # fmt: skip
async def test_orders_are_told_in_the_layout_of_recorded_ones(
    captures: Path, kind: int, differ: set[int], more: int
) -> None:
    """All fields but those of this very order; `more`: recorded after the last one."""
    with (captures / "ib" / "wire_messages.jsonl").open() as lines:
        rows = [json.loads(line) for line in lines]
    row = next(row for row in rows if row["msg_id"] == kind and row["n_fields"] > 20)
    told = row["message"].split("\0")[: -1 - more]
    async with open_orders_venue() as venue:
        ticket = venue.orders.by_hand("AAPL", "buy", Decimal(2), Decimal(10))
    frame = (open_order_frame if kind == 5 else completed_frame)(166, ticket)
    ours = frame[4:].decode().split("\0")[:-1]
    assert len(ours) == len(told)
    pairs = enumerate(zip(ours, told, strict=True))
    assert {at for at, (own, other) in pairs if own != other} <= differ


@needs("ib_async")
@VERSIONS
async def test_ib_async_trades(version: int) -> None:
    async with open_orders_venue(server_version=version) as venue:
        got, price = await trade("ib_async", venue)
        (report,) = venue.orders.fills("take")
        assert got["what_if"] == [round(price * 5 / 4, 4), 1.0]
        assert got["filled"] == ["Filled", 5.0]
        assert got["fill"] == [report.exec_id, float(report.price), 5.0]
        assert got["paid"] == 1.0 and got["mean"] == float(report.price)
        assert got["seen"] == [["rest", 7, price - 31]]
        assert got["own"] == 0
        assert got["canceled"] == got["refused"] == "Cancelled"
        assert got["completed"] == [["take", "Filled", 5.0], ["rest", "Cancelled", 0.0]]
        assert got["executions"] == [[report.exec_id, "take"]]
        cost = float(report.price) + 0.2
        assert got["positions"] == [["AAPL", 5.0, pytest.approx(cost)]]
        assert got["portfolio"] == [["AAPL", 5.0]]
        assert got["codes"] == [201, 202, 10148]
        assert got["next_id"] > max(row.order_id for row in venue.orders.tickets)
        assert [row.ref for row in venue.orders.tickets] == ["take", "rest"]


@needs("ibapi")
@VERSIONS
async def test_the_official_client_trades(version: int) -> None:
    async with open_orders_venue(server_version=version) as venue:
        got, price = await trade("ibapi", venue)
        assert got["version"] == 157
        (report,) = venue.orders.fills("take")
        assert got["what_if"] == [True, round(price * 5 / 4, 4), 1.0]
        assert got["fill"][2:] == [report.exec_id, float(report.price), 5.0, "take", 2]
        assert got["fee"] == [report.exec_id, 1.0, "USD"]
        row = got["changed"]
        assert row[1:6] == ["AAPL", price - 31, 7.0, "rest", 9]
        assert "EQUITY WITH LOAN VALUE" in got["refused"]
        assert [row[:3] for row in got["completed"]] == [
            ["take", "Filled", 5.0],
            ["rest", "Cancelled", 0.0],
        ]
        assert got["completed"][0][3:] == ["Filled Size: 5", "AAPL"]
        cost = float(report.price) + 0.2
        assert got["positions"] == [["DU1234567", "AAPL", 5.0, pytest.approx(cost)]]
        assert got["next_id"] == 3
