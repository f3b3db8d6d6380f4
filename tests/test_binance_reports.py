"""What Binance says of orders: recorded reports, rows, events of USD-M, nonsense."""

import contextlib
import json
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import piker_core as pk
from piker_core.orders import Transaction
from providers.binance import norm_trade
from providers.binance.legs import LegName
from providers.binance.reports import (
    Balances,
    Event,
    Fill,
    OrderRow,
    Other,
    Positions,
    Report,
    Terminated,
    decode_event,
    fill_message,
    market_name,
    row_report,
)

MS = 10**6
EXECUTION: dict[str, Any] = {
    "e": "executionReport", "E": 1499405658658, "s": "ETHBTC", "c": "k7", "S": "BUY",
    "o": "LIMIT", "f": "GTC", "q": "1.00000000", "p": "0.10264410", "P": "0.00000000",
    "F": "0.00000000", "g": -1, "C": "", "x": "NEW", "X": "NEW", "r": "NONE",
    "i": 4293153, "l": "0.00000000", "z": "0.00000000", "L": "0.00000000", "n": "0",
    "N": None, "T": 1499405658657, "t": -1, "I": 8641984, "w": True, "m": False,
    "M": False, "O": 1499405658657, "Z": "0.00000000", "Y": "0.00000000",
}  # fmt: skip
UPDATE: dict[str, Any] = {
    "e": "ORDER_TRADE_UPDATE", "T": 1634553049579, "E": 1634553049581,
    "o": {
        "s": "XRPUSDT", "c": "k8", "S": "SELL", "o": "LIMIT", "f": "GTC", "q": "5",
        "p": "1.0741", "ap": "1.0750", "sp": "0", "x": "TRADE", "X": "PARTIALLY_FILLED",
        "i": 17761651527, "l": "2", "z": "2", "L": "1.0750", "n": "0.00107",
        "N": "USDT", "T": 1634553049579, "t": 159467838, "b": "0", "a": "0", "m": True,
        "R": True, "wt": "CONTRACT_PRICE", "ot": "LIMIT", "ps": "BOTH", "cp": False,
        "rp": "-0.05",
    },
}  # fmt: skip


def event(**fields: Any) -> Event:
    return decode_event(json.dumps(EXECUTION | fields).encode())


def report(**fields: Any) -> Report:
    made = event(**fields)
    assert isinstance(made, Report)
    return made


def flows(captures: Path) -> list[dict[str, Any]]:
    text = (captures / "binance" / "order_flows.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_every_recorded_line_is_understood(captures: Path) -> None:
    rows = flows(captures)
    told = [decode_event(r["message"].encode()) for r in rows if r["channel"] == "ws"]
    reports = [each for each in told if isinstance(each, Report)]
    assert [(r.state, r.filled, r.size) for r in reports] == [
        ("open", 0, D("0.1")),
        ("closed", D("0.1"), D("0.1")),
        ("open", 0, D("0.007")),
        ("closed", D("0.007"), D("0.007")),
    ]
    assert [r.fill for r in reports] == [
        None,
        Fill(207223058, D("193.40000000"), D("0.10000000"), 1634961663038 * MS,
             D("0.00003014"), "bnb", "maker"),
        None,
        Fill(1251701408, D("1125.22000000"), D("0.00700000"), 1760946670456 * MS,
             D("0.00000525"), "bnb", "maker"),
    ]  # fmt: skip
    assert [r.avg_price for r in reports] == [0, D("193.4"), 0, D("1125.22")]
    assert [str(r.name) for r in reports[::2]] == [
        "JQAC6QMAAQAAv957tzEX",
        "x-B3AUXNYV827cefbc0c9748448b195b",
    ]
    held = [each for each in told if isinstance(each, Balances)]
    assert [each.totals["usdt"] for each in held] == [D("21.14364261"), D("1.80364261")]
    assert len(reports) + len(held) == len(told) == 6


def test_the_recorded_answer_to_an_order_is_a_report(captures: Path) -> None:
    (body,) = [r["message"] for r in flows(captures) if r["channel"] == "rest response"]
    made = row_report(msgspec.json.decode(body, type=OrderRow, strict=False))
    assert (made.state, made.size, made.filled) == ("open", D("0.1"), 0)
    assert (made.action, made.price) == ("buy", D("193.4"))
    assert (str(made.name), made.broker_id) == ("JQAC6QMAAQAAv957tzEX", "2428636529")
    assert made.time_ns == 1634961499306 * MS


def test_recorded_trades_are_lines_of_a_ledger(captures: Path) -> None:
    rows = [json.loads(r["message"]) for r in flows(captures) if r["channel"] == "ws"]
    first, second = (made for row in rows if (made := norm_trade(row)) is not None)
    assert first.tid == "ltcusdt:207223058" and first.symbol == "ltcusdt.binance"
    assert (first.size, first.price) == (D("0.1"), D("193.4"))
    assert (first.fee, first.fee_currency) == (D("0.00003014"), "bnb")
    assert first.reqid == "JQAC6QMAAQAAv957tzEX"
    assert second.time_ns == 1760946670456 * MS


STATES = {
    "NEW": "open", "PENDING_NEW": "open", "PARTIALLY_FILLED": "open",
    "FILLED": "closed", "CANCELED": "canceled", "REJECTED": "canceled",
    "EXPIRED": "canceled", "EXPIRED_IN_MATCH": "canceled",
}  # fmt: skip


@pytest.mark.parametrize(("status", "state"), STATES.items())
def test_every_status_of_the_venue_is_one_of_ours(status: str, state: str) -> None:
    assert report(X=status).state == state
    rows = {"symbol": "A", "orderId": 1, "side": "SELL", "status": status}
    assert row_report(msgspec.convert(rows, OrderRow)).state == state


def test_why_an_order_was_refused_or_ended_is_told() -> None:
    assert report(X="REJECTED", x="REJECTED", r="INSUFFICIENT_BALANCES").reason == (
        "rejected, INSUFFICIENT_BALANCES"
    )
    assert report(X="EXPIRED", eR=0).reason == "expired"
    assert report(X="CANCELED").reason == ""


def test_a_cancel_names_the_order_by_the_original_id() -> None:
    gone = report(x="CANCELED", X="CANCELED", c="web_123", C="k7")
    assert gone.name == LegName("k7") and not gone.replaced
    assert report(C=None).name == report(C="null").name == LegName("k7")


def test_a_cancel_that_makes_room_for_another_leg_is_known() -> None:
    gone = report(x="CANCELED", X="CANCELED", c="k7-2r", C="k7-1")
    assert gone.replaced and (gone.name.reqid, gone.name.number) == ("k7", 1)


def test_microseconds_and_wrappers_make_no_difference() -> None:
    plain = report()
    wrapped = {"subscriptionId": 0, "event": EXECUTION | {"T": 1499405658657000}}
    assert decode_event(json.dumps(wrapped).encode()) == plain
    streamed = {"stream": "key", "data": EXECUTION}
    assert decode_event(json.dumps(streamed).encode()) == plain


def test_an_update_of_usdm_is_a_report_with_its_fill() -> None:
    made = decode_event(json.dumps(UPDATE).encode())
    assert isinstance(made, Report) and made.fill is not None
    assert (made.state, made.filled, made.size) == ("open", 2, 5)
    assert (made.action, made.avg_price) == ("sell", D("1.0750"))
    assert made.fill == Fill(
        159467838, D("1.0750"), D(2), 1634553049579 * MS, D("0.00107"), "usdt", "maker"
    )
    line = norm_trade(UPDATE)
    assert line is not None and line.size == -2
    assert line.symbol == "xrpusdt.usdtm.perp.binance"
    assert line.tid == "xrpusdt.usdtm.perp:159467838"


@pytest.mark.parametrize(
    "fields",
    [{"Z": "1E+999999", "z": "1E-999999"}, {"z": "NaN"}, {"Z": "sNaN", "z": "1"},
     {"p": "Infinity"}, {"T": 12}, {"S": "BORROW"}, {"X": "NEWLY_INVENTED"}],
)  # fmt: skip
def test_a_report_that_cannot_be_is_an_error(fields: dict[str, Any]) -> None:
    with pytest.raises(pk.ProviderError, match="a report cannot be decoded"):
        event(**fields)


def test_positions_of_usdm_are_told_in_one_way_mode_alone() -> None:
    rows = [
        {"s": "BTCUSDT", "pa": "-0.5", "ep": "60000.1", "ps": "BOTH"},
        {"s": "ETHUSDT", "pa": "1", "ep": "2000", "ps": "LONG"},
    ]
    told = {"e": "ACCOUNT_UPDATE", "E": 1, "T": 1, "a": {"m": "ORDER", "P": rows}}
    made = decode_event(json.dumps(told).encode())
    assert made == Positions({"BTCUSDT": (D("-0.5"), D("60000.1"))})


@pytest.mark.parametrize(
    "kind", ["eventStreamTerminated", "listenKeyExpired", "serverShutdown"]
)
def test_the_end_of_a_stream_is_known(kind: str) -> None:
    assert decode_event(f'{{"e":"{kind}","E":1}}'.encode()) == Terminated(kind)


def test_other_events_are_known_or_not() -> None:
    assert decode_event(b'{"e":"balanceUpdate"}') == Other("balanceUpdate", True)
    assert decode_event(b'{"e":"haiku"}') == Other("haiku", False)


MY_TRADE = {
    "symbol": "BNBBTC", "id": 28457, "orderId": 100234, "orderListId": -1,
    "price": "4.00000100", "qty": "12.00000000", "quoteQty": "48.000012",
    "commission": "10.10000000", "commissionAsset": "BNB", "time": 1499865549590,
    "isBuyer": False, "isMaker": False, "isBestMatch": True,
}  # fmt: skip
USER_TRADE = {
    "buyer": True, "commission": "0.07819010", "commissionAsset": "USDT", "id": 698759,
    "maker": True, "orderId": 25851813, "price": "7819.01", "qty": "0.002",
    "quoteQty": "15.63802", "realizedPnl": "-0.91539999", "side": "BUY",
    "positionSide": "BOTH", "symbol": "BTCUSDC", "time": 1569514978020,
}  # fmt: skip


def test_rows_of_trades_are_lines_of_a_ledger() -> None:
    assert norm_trade(MY_TRADE) == Transaction(
        kind="fill", tid="bnbbtc:28457", time_ns=1499865549590 * MS,
        symbol="bnbbtc.binance", size=D(-12), price=D("4.000001"), fee=D("10.1"),
        fee_currency="bnb", details=MY_TRADE,
    )  # fmt: skip
    line = norm_trade(USER_TRADE)
    assert line is not None and line.size == D("0.002")
    assert line.symbol == "btcusdc.usdcm.perp.binance"


def test_what_is_no_trade_is_no_line() -> None:
    assert norm_trade(EXECUTION) is None
    assert norm_trade({"e": "balanceUpdate"}) is None


@pytest.mark.parametrize(
    "record",
    [{}, {"e": "executionReport"}, MY_TRADE | {"price": "NaN"}, {"event": {"e": 5}},
     UPDATE | {"o": 1}, MY_TRADE | {"time": 5}, {"e": "ORDER_TRADE_UPDATE"}, [1]],
)  # fmt: skip
def test_a_trade_that_is_nonsense_is_an_error(record: Any) -> None:
    if record == {"event": {"e": 5}}:
        assert norm_trade(record) is None
        return
    with pytest.raises(pk.ProviderError, match="a trade cannot be understood"):
        norm_trade(record)


def test_a_fill_has_the_same_id_however_it_is_told() -> None:
    told = report(
        s="BNBBTC", S="SELL", x="TRADE", X="FILLED", z="12", q="12", l="12", t=28457,
        L="4.000001",
    )  # fmt: skip
    assert told.fill is not None
    fqme = market_name("BNBBTC", contract=False)
    message = fill_message(told.fill, reqid="k7", action="sell", fqme=fqme, now_ns=1)
    line = norm_trade(MY_TRADE)
    assert line is not None and message.fill_id == line.tid


def test_contracts_are_named_by_their_margin_and_their_day() -> None:
    name = market_name("BTCUSDT_261225", contract=True)
    assert name == "btcusdt.usdtm.20261225.binance"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(EXECUTION)), JSON), st.booleans())
def test_no_event_brings_an_error_that_is_not_ours(
    fields: dict[str, Any], contract: bool
) -> None:
    made = EXECUTION | fields
    made = UPDATE | {"o": UPDATE["o"] | fields} if contract else made
    for call in (
        lambda: decode_event(json.dumps(made).encode()),
        lambda: norm_trade(made),
    ):
        with contextlib.suppress(pk.PikerError):
            call()


@settings(max_examples=200, deadline=None)
@given(st.binary())
def test_no_bytes_bring_an_error_that_is_not_ours(raw: bytes) -> None:
    with contextlib.suppress(pk.ProviderError):
        decode_event(raw)
