"""Recorded reports of orders through the providers' decode into the gateway."""

import itertools
import json
from collections.abc import Sequence
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import msgspec
import pytest

from piker_core.orders import BrokerdMessage
from piker_core.symbols import MktPair
from providers.binance.reports import Report, decode_event, fill_message
from providers.binance.side_broker import SideBroker
from providers.kraken.order_states import OrderStates, SentTerms
from providers.kraken.private_wire import ExecutionRow, decode_private
from tests.test_ems_gateway import FQME, Bench, order


class Fine(Bench):
    """A bench whose market takes any size."""

    def find(self, fqme: str) -> MktPair:
        return msgspec.structs.replace(super().find(fqme), size_tick=D("1e-8"))


FILLED = ["pending", "open", "fill", "closed"]


def binance_orders(captures: Path) -> dict[str, list[Report]]:
    """The recorded reports, by the client id of their order."""
    text = (captures / "binance" / "order_flows.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    told = [decode_event(r["message"].encode()) for r in rows if r["channel"] == "ws"]
    reports = [event for event in told if isinstance(event, Report)]
    by_name = itertools.groupby(reports, lambda report: str(report.name))
    return {name: list(group) for name, group in by_name}


def binance_messages(report: Report) -> list[BrokerdMessage]:
    """What the broker says of a report, under the id that the gateway gave."""
    status = SideBroker._status(report, D(0), report.time_ns)
    messages: list[BrokerdMessage] = [msgspec.structs.replace(status, reqid="r0")]
    if report.fill is not None:
        told = fill_message(
            report.fill, reqid="r0", action=report.action, fqme=FQME, now_ns=1
        )
        messages.insert(0, told)
    return messages


@pytest.mark.parametrize("turn", range(4))
def test_recorded_orders_of_binance_live_as_they_did(captures: Path, turn: int) -> None:
    """In their order, doubled, with FILLED before NEW, and with every fill last."""
    for name, reports in binance_orders(captures).items():
        messages = [told for report in reports for told in binance_messages(report)]
        ways: list[Sequence[Any]] = [
            messages,
            [told for told in messages for _ in range(2)],
            messages[::-1],
            sorted(messages, key=lambda told: "fill" in type(told).__name__.lower()),
        ]
        bench = Fine()
        bench.ask(order(name[:64], size=str(reports[0].size), price="100"))
        bench.hear(*ways[turn])
        resps = [status.resp for status in bench.by_oid[name[:64]]]
        assert resps in (FILLED, ["pending", "fill", "closed"]), resps
        assert bench.gateway.ledger.size(FQME) == reports[-1].filled
        assert not bench.gateway.living


def kraken_rows(captures: Path) -> list[ExecutionRow]:
    """The rows of every recorded message about executions."""
    rows: list[ExecutionRow] = []
    for name in ("private_messages.jsonl", "v2_frames.jsonl"):
        for line in (captures / "kraken" / name).read_text().splitlines():
            raw = json.loads(line)["message"].strip().encode()
            frame = msgspec.json.decode(raw)
            if isinstance(frame, dict) and frame.get("channel") == "executions":
                rows += getattr(decode_private(raw), "data", [])
    return rows


def test_recorded_executions_of_kraken_end_where_they_did(captures: Path) -> None:
    """Each order's rows, under a client id: the gateway's last word is the venue's."""
    by_order: dict[str, list[ExecutionRow]] = {}
    for row in kraken_rows(captures):
        by_order.setdefault(row.order_id, []).append(row)
    ends = {}
    for order_id, rows in by_order.items():
        states = OrderStates(lambda _: FQME, lambda: 1)
        bench = Fine()
        bench.ask(order("it", size="100"))
        side = next((row.side for row in rows if row.side), "buy")
        terms = SentTerms(symbol="BTC/USD", side=side, size=D(100), price=D(100))
        states.submitted("r0", terms)
        told = states.identify(order_id, "r0")
        for row in rows * 2:  # each of them twice
            told += states.take(row, snapshot=False)
        bench.hear(*told)
        filled = sum((row.last_qty or D(0) for row in rows if row.exec_id), D(0))
        assert abs(bench.gateway.ledger.size(FQME)) == filled
        ends[order_id] = bench.by_oid["it"][-1].resp
    assert len(ends) >= 4 and {"open", "canceled"} <= set(ends.values()), ends
