"""`positions`, `orders`, `ledger` and `ems kill`: what is stored, shown."""

import csv
import io
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from piker_core.cli import load_app
from piker_core.ems import ledger_rows
from piker_core.ems.database import Database, Stored, open_database
from piker_core.ems.kill_switch import NAME, killed
from piker_core.ems.ledger import Terms
from piker_core.ems.lifecycle import Dialog
from piker_core.ems.turn import Turn
from piker_core.orders import Order, Transaction
from tests.commands import invoke, records, run, told_once

FQME = "xbtusd.kraken"
DAY_NS = 86_400 * 10**9
START_NS = 19_723 * DAY_NS  # 2024-01-01


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIKER_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def fill(tid: str, size: Any, price: Any, day: int = 0, **more: Any) -> Transaction:
    return Transaction(
        kind="fill",
        tid=tid,
        time_ns=START_NS + day * DAY_NS,
        symbol=more.pop("symbol", FQME),
        size=Decimal(size),
        price=Decimal(price),
        fee=Decimal("0.5"),
        fee_currency="usd",
        oid=f"o{tid}",
        **more,
    )


def dialog(
    oid: str, state: Any = "open", began_ns: int = START_NS, **more: Any
) -> Dialog:
    fields = {"action": "buy", "exec_mode": "live", "price": "60000.10"} | more
    order = Order(oid=oid, symbol=FQME, account="paper", size="0.50", **fields)  # type: ignore[arg-type]
    return Dialog(
        order=order, session="s", reqid=f"r{oid}", state=state, began_ns=began_ns
    )


def fill_database(database: Database, account: str) -> None:
    turn = Turn()
    turn.transactions += [
        fill("a", "1.50", "60000", details={"x": 1}),
        fill("b", "-0.5", "61000", 1),
        fill("c", 1, 100, 2, symbol="ethusd.kraken"),
        fill("d", -1, 110, 3, symbol="ethusd.kraken"),
    ]
    for one in (
        dialog("second", began_ns=START_NS + 2),
        dialog("first", "dark_open", exec_mode="dark", stop="61000", trail="10"),
        dialog("over", "closed"),
    ):
        turn.dirty[one.oid] = one
    database.commit(Stored(turn), "kraken", account)
    with database.connection:
        terms = Terms("usd", "xbt", Decimal(2))
        ledger_rows.save_terms(database.connection, {FQME: terms})


@pytest.fixture
def stored(folder: Path) -> Path:
    """One account's orders, closed."""
    with open_database(folder, "kraken", "paper", mode="paper") as database:
        fill_database(database, "paper")
    return folder


@pytest.fixture
def running(folder: Path) -> Iterator[Path]:
    """One account's orders while they are written."""
    with open_database(folder, "kraken", "my.own", mode="live") as database:
        fill_database(database, "my.own")
        yield folder


@pytest.mark.parametrize(
    "words", [["positions"], ["orders"], ["ledger"], ["ems", "kill"], ["ems", "resume"]]
)
def test_every_command_documents_its_exit_codes_and_shared_options(
    words: list[str],
) -> None:
    done = CliRunner().invoke(load_app(), [*words, "--help"])
    assert done.exit_code == 0
    for text in ("Exit codes:", "--json", "--namespace", "--debug"):
        assert text in done.output


def test_positions_are_shown_with_what_was_earned_and_paid(stored: Path) -> None:
    (one,) = records(invoke("positions", "--json").stdout, "position")
    assert one == {
        "kind": "position",
        "broker": "kraken",
        "account": "paper",
        "symbol": FQME,
        "size": "1",
        "avg_price": "60000",
        "currency": "usd",
        "realised": "1000",
        "fees": {"usd": "1"},
        "transactions": 2,
    }
    both = records(invoke("positions", "--all", "--json").stdout)
    assert [line["size"] for line in both] == ["0", "1"]
    done = invoke("positions")
    assert "paper (kraken)" in done.stdout and "1 usd" in done.stdout
    assert done.stderr == f"1 position in {stored}\n"


def test_orders_that_live_are_shown_and_with_all_those_that_ended(stored: Path) -> None:
    lines = records(invoke("orders", "--json").stdout, "order")
    assert [line["oid"] for line in lines] == ["first", "second"]
    first = lines[0]
    assert (first["state"], first["exec_mode"]) == ("dark_open", "dark")
    assert (first["price"], first["size"]) == ("60000.1", "0.5")
    assert (first["stop"], first["trail"], first["reqid"]) == ("61000", "10", "rfirst")
    text = invoke("orders").stdout
    assert "buy dark stop 61000 trail 10" in text
    assert "over" not in text and "over" in invoke("orders", "--all").stdout
    newest = records(invoke("orders", "--all", "-n", "1", "--json").stdout)
    assert [line["oid"] for line in newest] == ["second"]


def test_the_ledger_is_shown_by_market_and_span(stored: Path) -> None:
    lines = records(invoke("ledger", "--json").stdout, "transaction")
    assert [line["tid"] for line in lines] == ["a", "b", "c", "d"]
    assert lines[0] == {
        "kind": "transaction",
        "broker": "kraken",
        "account": "paper",
        "what": "fill",
        "tid": "a",
        "time_ns": START_NS,
        "symbol": FQME,
        "size": "1.5",
        "price": "60000",
        "fee": "0.5",
        "fee_currency": "usd",
        "revision": 0,
        "reqid": "",
        "oid": "oa",
        "details": {"x": 1},
    }
    spans = {
        ("--start", "2024-01-02"): "bcd",
        ("--end", "2024-01-03"): "ab",
        (FQME, "--start", "2024-01-02", "--end", "2024-01-04"): "b",
        ("--end", "2023-01-01"): "",
    }
    for words, tids in spans.items():
        lines = records(invoke("ledger", *words, "--json").stdout)
        assert "".join(line["tid"] for line in lines) == tids
    text = invoke("ledger", FQME).stdout
    assert "2024-01-02 00:00:00.000" in text and "0.5 usd" in text


def test_the_ledger_as_csv_is_of_one_account(stored: Path) -> None:
    done = invoke("ledger", FQME, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["tid"] for row in rows] == ["a", "b"]
    assert rows[0]["size"] == "1.50"
    with open_database(stored, "kraken", "other", mode="paper"):
        pass
    sentence = told_once(invoke("ledger", "--csv"), 3)
    assert "has 2: --broker kraken --account other, " in sentence
    assert invoke("ledger", "--csv", "--account", "paper").returncode == 0
    assert "do not go together" in told_once(invoke("ledger", "--csv", "--json"), 2)


def test_what_is_written_just_now_is_shown(running: Path) -> None:
    for words in (["positions"], ["orders"], ["ledger"]):
        done = invoke(*words, "--json")
        assert done.returncode == 0, done.stderr
        assert {line["account"] for line in records(done.stdout)} <= {"my.own", "paper"}
        assert records(done.stdout)
    assert records(invoke("positions", "--account", "my.own", "--json").stdout)


def test_accounts_are_chosen_by_name_and_those_that_are_not_there_are_told(
    stored: Path,
) -> None:
    assert records(invoke("orders", "--broker", "kraken", "--json").stdout)
    sentence = told_once(invoke("orders", "--account", "nobody"), 3)
    assert "account 'nobody'" in sentence and "paper at kraken" in sentence
    assert "at binance" in told_once(invoke("positions", "--broker", "binance"), 3)


def test_a_folder_without_orders_is_no_trouble(folder: Path) -> None:
    for words in (["positions"], ["orders"], ["ledger"]):
        done = invoke(*words)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.startswith("0 ")
    assert not folder.exists()


def test_a_damaged_account_is_told_and_the_others_are_shown(stored: Path) -> None:
    (stored / "binance.paper.db").write_bytes(b"nonsense" * 1000)
    done = invoke("positions", "--json")
    assert "binance.paper.db" in told_once(done, 5)
    assert len(records(done.stdout)) == 1
    sqlite3.connect(stored / "binance.other.db").close()
    assert "binance.other.db" in invoke("orders").stderr


def test_kill_stops_all_until_resume_and_both_say_so(folder: Path) -> None:
    done = invoke("ems", "kill", "--reason", "too fast", "--namespace", "any")
    assert done.returncode == 0
    assert "too fast" in done.stdout and str(folder / NAME) in done.stdout
    assert "too fast" in killed(folder)
    assert "send orders again" in invoke("ems", "resume").stdout
    assert killed(folder) == ""
    assert "were not stopped" in invoke("ems", "resume").stdout
    (one,) = records(invoke("ems", "kill", "--json").stdout, "kill")
    assert one["folder"] == str(folder) and NAME in one["text"]
    (one,) = records(invoke("ems", "resume", "--json").stdout, "resume")
    assert one["was_killed"] is True


def test_kill_works_from_another_process(folder: Path) -> None:
    assert run("ems", "kill", env={"PIKER_STATE": str(folder)}).returncode == 0
    assert killed(folder)
