"""Kraken's private frames: recorded ones, shapes of batches, exact numbers."""

import json
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piker_core.config import Secret
from piker_core.errors import ProviderError
from providers.kraken import private_wire as wire
from providers.kraken.wire import StatusFrame


def recorded(captures: Path, name: str) -> list[str]:
    lines = (captures / "kraken" / name).read_text().splitlines()
    return [json.loads(line)["message"] for line in lines]


def frames(captures: Path, kind: type[Any]) -> list[Any]:
    texts = recorded(captures, "private_messages.jsonl")
    texts += recorded(captures, "v2_frames.jsonl")
    decoded = [wire.decode_private(t.encode()) for t in texts if t.startswith("{")]
    return [frame for frame in decoded if isinstance(frame, kind)]


def test_every_recorded_frame_is_decoded_into_its_kind(captures: Path) -> None:
    for kind, least in (
        (wire.ExecutionsFrame, 6),
        (wire.BalancesFrame, 2),
        (wire.Answer, 15),
        (wire.Heartbeat, 2),
        (StatusFrame, 4),
    ):
        assert len(frames(captures, kind)) >= least, kind


def test_recorded_executions_are_exact(captures: Path) -> None:
    rows = {
        row.order_id: row
        for frame in frames(captures, wire.ExecutionsFrame)
        for row in frame.data
        if row.exec_type in ("pending_new", "trade", "canceled")
    }
    pending = rows["OF6QIS-MYM6V-XTHHZF"]
    assert (pending.order_qty, pending.limit_price) == (D("0.00009073"), D("95771.3"))
    trade = rows["NG6PUE-C7MXN-CFCAMC"]
    assert (trade.last_qty, trade.last_price) == (D("0.00016000"), D("63377.2"))
    assert (trade.fees, trade.liquidity_ind) == ([wire.Fee("USD", D("0.04051"))], "t")
    canceled = rows["OXFRRV-RHDOI-SBQOPK"]
    assert (canceled.reason, canceled.cum_qty) == ("User requested", D(0))


def test_recorded_balances_are_those_of_the_spot_wallet(captures: Path) -> None:
    rows = [row for frame in frames(captures, wire.BalancesFrame) for row in frame.data]
    spot = {row.asset: row.spot for row in rows}
    assert spot["USD"] == D("1.34")  # of 160.2405 in all wallets
    assert spot["KAR"] == D("774.63669826")
    assert spot["ADX"] == D("147.19060069")
    earning = wire.BalanceRow(asset="BTC", balance=D(5), wallet_type="earn")
    assert earning.spot is None


def test_recorded_answers_tell_their_orders_and_errors(captures: Path) -> None:
    answers = frames(captures, wire.Answer)
    added = next(a for a in answers if a.method == "add_order" and a.success)
    (result,) = wire.decode_results(added)
    assert (result.order_id, result.cl_ord_id) == ("OPS23M-VS41G-DDE5Z2", "client-zero")
    batch = next(a for a in answers if a.method == "batch_add")
    assert [each.order_id for each in wire.decode_results(batch)] == [
        "JQDNTT-MZEIZ-OZKUDD",
        "X67GEK-3VQWM-HPNQ89",
    ]
    limits = [
        wire.decode_results(a)[0].maxratecount
        for a in answers
        if b"executions" in bytes(a.result)
    ]
    assert limits == [180]
    refused = next(a for a in answers if a.error == "ESession:Invalid session")
    assert not refused.success


def test_both_shapes_of_a_batchs_results_are_understood() -> None:
    raw = (
        b'{"method":"batch_add","req_id":1,"success":true,"result":{"orders":'
        b'[{"order_id":"A"},{"error":"EOrder:Insufficient funds"}]}}'
    )
    answer = wire.decode_private(raw)
    assert isinstance(answer, wire.Answer)
    first, second = wire.decode_results(answer)
    assert (first.order_id, second.error) == ("A", "EOrder:Insufficient funds")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"channel":"executions","type":"update","data":{}}',
        b'{"channel":"executions","type":"update","data":[{"order_id":1}]}',
        b'{"channel":"balances","type":"update","data":[{"asset":"BTC"}]}',
        b'{"method":"add_order","success":"yes"}',
    ],
)
def test_what_is_no_frame_is_refused_with_the_frame(raw: bytes) -> None:
    with pytest.raises(ProviderError) as refused:
        wire.decode_private(raw)
    assert refused.value.frame == raw


def test_a_result_that_is_nonsense_is_a_provider_error() -> None:
    answer = wire.decode_private(b'{"method":"add_order","success":true,"result":7}')
    assert isinstance(answer, wire.Answer)
    with pytest.raises(ProviderError, match="add_order"):
        wire.decode_results(answer)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12))
def test_numbers_are_exact_in_full_and_have_a_point(exact: D) -> None:
    text = bytes(wire.number(exact)).decode()
    assert D(text) == exact
    assert "." in text
    assert "e" not in text.lower()


@pytest.mark.parametrize(
    ("exact", "text"),
    [
        ("1E-8", "0.00000001"),
        ("80000", "80000.0"),
        ("1E+5", "100000.0"),
        ("0.10", "0.1"),
    ],
)
def test_numbers_are_never_written_with_an_exponent(exact: str, text: str) -> None:
    assert bytes(wire.number(D(exact))).decode() == text


def test_a_request_has_its_token_and_exact_numbers() -> None:
    raw = wire.encode_request(
        "add_order", {"order_qty": wire.number(D("1E-8"))}, 7, Secret("tok")
    )
    assert raw == (
        b'{"method":"add_order","params":{"order_qty":0.00000001,"token":"tok"},'
        b'"req_id":7}'
    )


def test_deadlines_are_cut_to_milliseconds() -> None:
    stamp = wire.stamp_ms(1_795_668_413_553_999_999)
    assert stamp == "2026-11-26T04:46:53.553Z"
