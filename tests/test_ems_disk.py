"""The order gateway where its file cannot be written: full, locked, broken."""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

import piker_core as pk
from piker_core.ems import desk, reconcile
from piker_core.ems.database import Database, database_path
from piker_core.ems.desk import Desk
from tests import plain_broker
from tests.ems_stage import Stage, open_stage, order, trader, until
from tests.mounted import run_mounted, small, unwritable
from tests.plain_broker.book import Book
from tests.plain_broker.site import Control, Manner, open_site
from tests.plain_broker.words import Ask

Fault = Callable[[Database], contextlib.AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("PIKER_STATE", str(folder))
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    monkeypatch.setenv("PIKER_EMS__SYNC", "normal")
    monkeypatch.setattr(desk, "RETRY_S", 0.02)
    return folder


@pytest.fixture
def stage(namespace: str) -> Iterator[Stage]:
    with open_stage(namespace) as opened:
        yield opened


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch) -> dict[str, Database]:
    """The open file of the gateway, as soon as there is one."""
    found: dict[str, Database] = {}
    real = Desk.__init__

    def made(self: Desk, database: Database, *rest: Any, **options: Any) -> None:
        found["it"] = database
        real(self, database, *rest, **options)

    monkeypatch.setattr(Desk, "__init__", made)
    return found


# ---- faults --------------------------------------------------------------------------


@contextlib.contextmanager
def full(database: Database) -> Iterator[None]:
    """No page more than there are."""
    connection = database.connection
    (most,) = connection.execute("PRAGMA max_page_count").fetchone()
    connection.execute("PRAGMA max_page_count = 1")
    yield
    connection.execute(f"PRAGMA max_page_count = {most}")


@contextlib.contextmanager
def locked(database: Database) -> Iterator[None]:
    """Somebody else writes, and does not end."""
    database.connection.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.close()


@contextlib.contextmanager
def broken(database: Database) -> Iterator[None]:
    """What the last write of a commit says."""

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "commit", fail)
        yield


FAULTS = pytest.mark.parametrize("fault", [full, locked, broken])
SAYS = {
    full: "database or disk is full",
    locked: "database is locked",
    broken: "Input/output error",
}


OIDS = [f"{'x' * 50}{number}" for number in range(500)]


async def refused(
    one: Any, words: str = "", oids: list[str] = OIDS, **known: Any
) -> list[str]:
    """Send until the file takes no more; those that it did not take."""
    wrong: dict[str, str] = {}
    for oid in oids:
        try:
            await one.client.send(order(oid, **known))
        except pk.PikerError as error:
            wrong[oid] = str(error)
            if len(wrong) == 3:
                break
    for text in wrong.values():
        assert words in text and "cannot be written" in text
        assert "nothing was done" in text and "\n" not in text
    return list(wrong)


@FAULTS
async def test_a_request_that_cannot_be_stored_is_not_done_and_says_so(
    stage: Stage,
    state: Path,
    file: dict[str, Database],
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with trader() as one, trader() as other:
        with fault(file["it"]):
            wrong = await refused(one, SAYS[fault])
            assert len(wrong) == 3
            assert await refused(
                other, SAYS[fault], [one.replace("x", "y") for one in OIDS]
            )
        assert caplog.text.count("cannot be written") == 1
        assert str(database_path(state, "kraken", "paper")) in caplog.text
        assert not {status.oid for status in one.statuses} & set(wrong)
        for oid in wrong:
            await one.client.send(order(oid))
            await one.until(oid, "open")
        assert "stores again" in caplog.text
    async with trader(client="who adopts nothing") as after:
        assert not after.dialogs
    async with trader() as after:
        assert set(wrong) <= set(after.dialogs)


@FAULTS
async def test_a_trigger_that_cannot_be_stored_fires_once_all_the_same(
    stage: Stage, file: dict[str, Database], fault: Fault
) -> None:
    async with trader() as one:
        await one.client.send(order("dark", 105, exec_mode="dark"))
        await one.until("dark", "dark_open")
        with fault(file["it"]):
            await refused(one)
            stage.trade(105.0)
            stage.trade(100.0)
            with pytest.raises(pk.PikerError):
                await one.client.cancel("dark")
            assert one.resps("dark") == ["dark_open"]
        await one.until("dark", "triggered")
        await one.until("dark", "closed")
        assert one.resps("dark").count("triggered") == 1
        assert one.resps("dark").count("fill") == 1
        await until(lambda: one.held() == Decimal("0.5"), "its position")


@FAULTS
async def test_orders_of_a_client_that_leaves_then_are_canceled_later(
    stage: Stage,
    file: dict[str, Database],
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(desk, "RETURN_S", 0.05)
    async with trader() as one:
        async with trader(cancel_on_disconnect=True) as other:
            await other.client.send(order("goes"))
            await other.until("goes", "open")
            stack = contextlib.ExitStack()
            stack.enter_context(fault(file["it"]))
            await refused(one)
        await trio.sleep(0.2)
        stack.close()
        async with trader() as heir:
            await heir.until("goes", "canceled")


@FAULTS
async def test_what_the_broker_says_then_is_kept(
    site: int, file: dict[str, Database], fault: Fault
) -> None:
    fqme, known = plain_broker.FQME, {"account": "plain", "symbol": plain_broker.FQME}
    control = Control(site)
    part = Ask(1, "trade", manner={"size": 0.2})
    async with trader(fqme, mode="live", account="plain") as one:
        await one.client.send(order("it", **known))
        status = await one.until("it", "open")
        part = msgspec.structs.replace(part, reqid=str(status.reqid))
        with fault(file["it"]):
            await refused(one, **known)
            await trio.to_thread.run_sync(control.ask, part)
            await trio.sleep(0.2)
            assert one.resps("it") == ["pending", "open"]
        await one.until("it", "fill")
        await trio.to_thread.run_sync(control.ask, part)
        await trio.to_thread.run_sync(control.ask, part)
        await one.until("it", "closed")
        assert one.resps("it") == ["pending", "open", *3 * ["fill"], "closed"]
        assert one.positions[plain_broker.NAME, "plain"][fqme].size == Decimal("0.5")
    control.close()


@pytest.fixture
def site(namespace: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A broker that fills when it is told to, and a market for it; its port."""
    plain_broker.register()
    monkeypatch.setenv("PIKER_ACCOUNT__PLAIN__LIVE", "true")
    monkeypatch.setattr(reconcile, "ASK_S", 0.02)
    book = Book(plain_broker.NAME, "plain", plain_broker.FQME)
    with open_site(book, Manner(rest=1e9), 1) as port, open_plain_market(namespace):
        monkeypatch.setenv(plain_broker.PORT, str(port))
        yield port


@contextlib.contextmanager
def open_plain_market(namespace: str) -> Iterator[None]:
    with pk.open_engine(
        plain_broker.NAME, namespace=namespace, tick_capacity=1024
    ) as engine:
        sizes = {"price_tick": "0.1", "size_tick": "0.001"}
        market = engine.add_market(
            plain_broker.FQME, capacity={1: 256, 60: 256}, **sizes
        )
        market.set_status("live")
        yield


# ---- real ones -----------------------------------------------------------------------

FILL = """
import logging
import os
import sys
from pathlib import Path
import trio
import piker_core as pk
from piker_core.ems import desk
from tests.ems_stage import open_stage, order, trader

desk.RETRY_S = 0.05
logging.basicConfig(level=logging.WARNING)
root = Path(sys.argv[1])
os.environ |= {"PIKER_STATE": str(root / "state"), "PIKER_CONFIG": os.devnull}
ballast = root / "ballast"

async def main():
    with open_stage(os.environ["PIKER_NAMESPACE"]) as stage:
        async with trader() as one:
            ballast.write_bytes(bytes(900_000))
            done = wrong = 0
            while wrong < 3:
                try:
                    await one.client.send(order(f"o{done}"))
                    done += 1
                except pk.PikerError as error:
                    assert str(root) in str(error) and "full" in str(error), error
                    wrong += 1
            stage.trade(85.0)  # fills all that rest, and cannot be stored
            await trio.sleep(0.3)
            ballast.unlink()
            for number in range(done):
                await one.until(f"o{number}", "closed")
            assert one.held() * 2 == done, (one.held(), done)
            await one.client.send(order(f"o{done}"))
            await one.until(f"o{done}", "open")
            assert one.resps(f"o{done}") == ["pending", "open"]
        async with trader() as after:
            assert set(after.dialogs) == {f"o{done}"}
            assert after.held() * 2 == done
    print(done)

trio.run(main)
"""

READ = """
import os
import sys
from pathlib import Path
import trio
import piker_core as pk
from tests.ems_stage import open_stage, trader

os.environ |= {"PIKER_STATE": sys.argv[1], "PIKER_CONFIG": os.devnull}

async def main():
    with open_stage(os.environ["PIKER_NAMESPACE"]):
        try:
            async with trader():
                raise AssertionError
        except (OSError, pk.PikerError) as error:
            assert sys.argv[1] in str(error) and "Read-only" in str(error), error
            assert "\\n" not in str(error)

trio.run(main)
"""


def test_a_full_disk_stops_orders_and_room_lets_them_go_on(
    tmp_path: Path, namespace: str
) -> None:
    assert int(run_mounted(small(tmp_path, "1500k"), FILL, tmp_path)) > 3


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, namespace: str
) -> None:
    run_mounted(unwritable(tmp_path), READ, tmp_path)


async def test_a_file_that_cannot_be_read_again_is_tried_until_it_can(
    stage: Stage, file: dict[str, Database]
) -> None:
    async with trader() as one:
        await one.client.send(order("first"))
        calls: list[int] = []

        def fail(_: Database) -> None:
            calls.append(1)
            raise sqlite3.OperationalError("disk I/O error")

        with pytest.MonkeyPatch.context() as patch, broken(file["it"]):
            patch.setattr(Database, "dialogs", fail)
            with pytest.raises(pk.PikerError, match="cannot be written"):
                await one.client.send(order("second"))
            await until(lambda: len(calls) > 2, "it is tried")
        await one.client.send(order("second"))
        await one.until("second", "open")
        assert one.resps("first") == ["pending", "open"]
