"""What a gateway has kept, held against what the broker knows."""

import sqlite3
from collections import Counter
from decimal import Decimal
from pathlib import Path

import msgspec

from piker_core.ems.database import database_path
from piker_core.ems.lifecycle import Dialog
from piker_core.orders import Status
from tests.plain_broker.words import Held, Truth

ZERO = Decimal(0)
STATES = {"closed": "closed", "canceled": "canceled"}


class Kept:
    """All of an account's file."""

    def __init__(self, state: Path, broker: str, account: str) -> None:
        path = database_path(state, broker, account)
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        try:
            connection.execute("BEGIN")
            rows = connection.execute("SELECT dialog FROM orders").fetchall()
            said = connection.execute("SELECT status FROM statuses ORDER BY seq")
            statuses = said.fetchall()
            self.lines = connection.execute(
                "SELECT tid, size, kind FROM transactions"
            ).fetchall()
        finally:
            connection.close()
        self.dialogs = [msgspec.msgpack.decode(row[0], type=Dialog) for row in rows]
        self.statuses = [
            msgspec.msgpack.decode(row[0], type=Status) for row in statuses
        ]

    @property
    def living(self) -> list[Dialog]:
        return [dialog for dialog in self.dialogs if not dialog.ended]


def wrong(kept: Kept, truth: Truth) -> list[str]:
    """What differs, a sentence each."""
    held = {one.order.reqid: one for one in truth.held}
    dialogs = {dialog.reqid: dialog for dialog in kept.dialogs}
    found = [f"{reqid}: taken twice" for reqid, one in held.items() if one.taken != 1]
    found += [
        f"{reqid}: sent twice: {one.seen}" for reqid, one in held.items() if one.doubled
    ]
    found += [f"{reqid}: unknown here" for reqid in held if reqid not in dialogs]
    for reqid, dialog in dialogs.items():
        found += _of_order(dialog, held.get(reqid))
    return found + _of_fills(kept, truth)


def _of_order(dialog: Dialog, held: Held | None) -> list[str]:
    name = f"order {dialog.oid} ({dialog.reqid}, {dialog.state})"
    if held is None:
        at_broker = dialog.state in ("open", "closed") or dialog.filled
        in_flight = not dialog.ended and not dialog.kept_here
        return [f"{name}: the broker never had it"] if at_broker or in_flight else []
    order = held.order
    found = []
    if dialog.ended != (order.status != "open"):
        found.append(f"{name}: {order.status} at the broker")
    elif dialog.state in STATES and STATES[dialog.state] != order.status:
        found.append(f"{name}: ended there as {order.status}")
    if dialog.filled != order.filled:
        found.append(f"{name}: filled {dialog.filled}, there {order.filled}")
    if dialog.ended:
        return found
    if (dialog.order.price, dialog.order.size) != (order.price, order.size):
        mine = f"{dialog.order.size} at {dialog.order.price}"
        found.append(f"{name}: {mine}, there {order.size} at {order.price}")
    if dialog.asked or dialog.unknown:
        found.append(f"{name}: waits for its {dialog.asked}")
    return found


def _of_fills(kept: Kept, truth: Truth) -> list[str]:
    lines = Counter(tid for tid, _, kind in kept.lines if kind == "fill")
    fills = Counter(fill.fill_id for fill in truth.fills)
    found = [f"fill {tid} {n} times in the ledger" for tid, n in lines.items() if n > 1]
    found += [f"fill {tid} is not in the ledger" for tid in fills if tid not in lines]
    found += [f"fill {tid} is the broker's never" for tid in lines if tid not in fills]
    position = sum((Decimal(size) for _, size, _ in kept.lines), ZERO)
    if position != Decimal(truth.position):
        found.append(f"position {position}, there {truth.position}")
    return found


def unheard(kept: Kept, heard: set[int]) -> list[str]:
    """Statuses that were said of orders and no strategy ever got."""
    orders = {dialog.oid for dialog in kept.dialogs}
    return [
        f"{status.resp} of {status.oid} (number {status.seq}) was heard by nobody"
        for status in kept.statuses
        if status.seq not in heard and status.oid in orders and status.reqid
    ]


def lives(kept: Kept) -> list[str]:
    """What is wrong with the statuses of each order, one by one."""
    found = []
    resps: dict[str, list[str]] = {}
    for status in kept.statuses:
        if status.reqid is not None and status.resp != "error":
            resps.setdefault(status.oid, []).append(status.resp)
    for dialog in kept.dialogs:
        said = resps.get(dialog.oid, [])
        ends = [n for n, resp in enumerate(said) if resp in ("closed", "canceled")]
        if ends and ends != [len(said) - 1]:
            found.append(f"{dialog.oid}: goes on after its end: {said}")
        if dialog.ended and dialog.state != "error" and said[-1] != dialog.state:
            found.append(f"{dialog.oid}: {dialog.state}, the last status is {said[-1]}")
        if said.count("triggered") > 1:
            found.append(f"{dialog.oid}: triggered more than once: {said}")
    return found
