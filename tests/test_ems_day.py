"""The profit of the day: by the clock, over restarts, and without all prices."""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from piker_core.ems import desk
from piker_core.ems.database import database_path
from piker_core.ems.ledger import DAY_NS, Ledger, Mark, Terms
from piker_core.orders import Transaction
from tests.ems_stage import FQME, open_stage, order, trader, until

TODAY = 20_000 * DAY_NS
HOUR = 3_600_000_000_000


def line(tid: str, size: float, price: float, time_ns: int, **more: Any) -> Transaction:
    known = {"kind": "fill", "symbol": FQME}
    numbers = {"size": Decimal(str(size)), "price": Decimal(str(price))}
    return Transaction(tid=tid, time_ns=time_ns, **(known | numbers | more))  # type: ignore[arg-type]


def at(price: float | None) -> Callable[[str], Decimal | None]:
    return lambda _: None if price is None else Decimal(str(price))


def ledger_of(*lines: Transaction) -> Ledger:
    ledger = Ledger("kraken", "paper")
    ledger.apply(lines)
    return ledger


def test_a_transfer_without_a_price_counts_as_bought_at_the_first_one_known() -> None:
    ledger = ledger_of(line("in", 2, 0, TODAY, kind="transfer"))
    assert ledger.day_profit(at(None), TODAY + 1, FQME) == 0
    assert ledger.day_profit(at(100), TODAY + 2, FQME) == 0
    assert ledger.day_profit(at(90), TODAY + 3, FQME) == -20
    ledger.apply([line("out", -1, 80, TODAY + 4)])
    assert ledger.day_profit(at(90), TODAY + 5, FQME) == -30
    again = ledger_of(
        line("in", 2, 0, TODAY, kind="transfer"), line("out", -1, 80, TODAY + 4)
    )
    again.load_marks(ledger.take_marks())
    assert again.day_profit(at(90), TODAY + 6, FQME) == -30
    assert again.day_profit(at(95), TODAY + DAY_NS, FQME) == 5


def test_a_transfer_later_in_the_day_counts_at_the_price_of_its_time() -> None:
    ledger = ledger_of(line("a", 1, 100, TODAY - HOUR))
    assert ledger.day_profit(at(100), TODAY, FQME) == 0
    assert ledger.day_profit(at(80), TODAY + 1, FQME) == -20
    ledger.apply([line("in", 5, 0, TODAY + 2, kind="transfer")])
    assert ledger.day_profit(at(80), TODAY + 3, FQME) == -20
    ledger.apply([line("out", -3, 0, TODAY + 4, kind="transfer")])
    assert ledger.day_profit(at(80), TODAY + 5, FQME) == -20
    assert ledger.day_profit(at(79), TODAY + 6, FQME) == -23


def test_a_day_without_a_mark_begins_with_the_last_price_that_was_kept() -> None:
    bought = line("a", 1, 100, TODAY - HOUR)
    ledger = ledger_of(bought)
    ledger.day_profits(at(97), TODAY - 1)
    kept = ledger.held_prices()
    assert kept == {FQME: Decimal(97)}
    again = ledger_of(bought)
    again.load_prices(kept)
    assert again.day_profit(at(90), TODAY + HOUR, FQME) == -7
    again = ledger_of(bought)
    again.load_marks([Mark(TODAY // DAY_NS, FQME, Decimal(99))])
    again.load_prices(kept)
    assert again.day_profit(at(90), TODAY + HOUR, FQME) == -9


def test_of_markets_without_a_currency_profits_and_fees_are_added_up() -> None:
    fee = {"fee": Decimal(3), "fee_currency": "usd"}
    ledger = ledger_of(line("a", 1, 100, TODAY, **fee))
    assert ledger.day_profit(at(95), TODAY + 1, FQME) == -8
    ledger.describe(FQME, Terms("usd"))
    assert ledger.day_profit(at(95), TODAY + 1, FQME) == -8


async def test_prices_of_what_is_held_are_marked_and_kept_by_the_clock(
    namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIKER_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    monkeypatch.setattr(desk, "MARK_NS", 10_000_000)
    monkeypatch.setattr(desk, "LOOK_S", 0.02)
    path = database_path(tmp_path / "state", "kraken", "paper")

    def read(query: str) -> list[Any]:
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute(query).fetchall()

    def kept() -> dict[str, str]:
        rows = read("SELECT value FROM notes WHERE key = 'prices'")
        return msgspec.json.decode(rows[0][0]) if rows else {}  # type: ignore[no-any-return]

    with open_stage(namespace) as stage:
        async with trader() as one:
            await one.client.send(order("it", 100.1))
            await one.until("it", "closed")
            await until(lambda: kept() == {FQME: "100.0"}, "the price is kept")
            stage.quote(89.9, 90.1)
            await until(lambda: kept() == {FQME: "90.0"}, "the new price is kept")
        marks = read("SELECT price, day FROM marks")
        assert marks == [("100.0", time.time_ns() // DAY_NS)]
