"""Turns of a desk: what comes at once is taken one after the other."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ems_stage import Stage, open_stage, order, trader


@pytest.fixture
def stage(
    namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    monkeypatch.setenv("PIKER_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    monkeypatch.setenv("PIKER_EMS__SYNC", "normal")
    with open_stage(namespace) as opened:
        yield opened


async def test_of_a_group_one_is_filled_though_ticks_for_both_come_at_once(
    stage: Stage,
) -> None:
    async with trader() as one:
        for oid, price in (("near", 95), ("far", 94)):
            await one.client.send(order(oid, price, oco="g"))
            await one.until(oid, "open")
        for price in (94.9, 93.9, 93.0):
            stage.trade(price)
        await one.until("near", "closed")
        await one.until("far", "canceled")
        assert "fill" not in one.resps("far")


async def test_an_update_to_less_than_is_filled_ends_the_order_as_it_is(
    stage: Stage,
) -> None:
    stage.quote(99.9, 100.1, 0.2)
    async with trader() as one:
        await one.client.send(order("it", 100.1))
        await one.until("it", "fill")
        await one.client.update("it", size="0.1")
        status = await one.until("it", "canceled")
        filled = status.brokerd_msg
        assert filled is not None and str(filled.filled) == "0.200"  # type: ignore[union-attr]
