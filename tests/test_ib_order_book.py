"""TWS's messages about orders as ours: recorded ones, and what follows from each."""

import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ib_async
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piker_core.errors import OrderError
from piker_core.orders import (
    BrokerdError,
    BrokerdFill,
    BrokerdOrderAck,
    BrokerdStatus,
)
from providers.ib import codec, order_lists
from providers.ib.broker import Dialog
from providers.ib.config import Config
from providers.ib.order_book import Book, Held
from providers.ib.order_codes import (
    meaning_of,
    refusal,
    split_execution,
    state_of,
)
from providers.ib.order_link import choose_account
from providers.ib.order_words import make_order as make_ib_order
from providers.ib.order_words import norm_trade, number, unit_price
from tests.ib_orders import make_order

ACCOUNT, CLIENT = "DU1234567", 90
TSLA = "tsla.nasdaq.ib"
RECORDED = 166
"""The server version of the recorded messages."""


class Ear:
    """A book, what it said, and which orders it doubts."""

    def __init__(self, client_id: int = CLIENT) -> None:
        self.said: list[Any] = []
        self.doubts: list[Held] = []
        self.counts: Counter[str] = Counter()
        self.book = Book(
            ACCOUNT,
            client_id,
            emit=self.said.append,
            doubt=self.doubts.append,
            counts=self.counts,
        )

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.said if isinstance(message, kind)]

    def add(self, reqid: str = "r1", order_id: int = 1) -> Held:
        return self.book.add(make_order(reqid, Decimal(100)), order_id, 7)

    def status(
        self, word: str, filled: float = 0, left: float = 5, **more: Any
    ) -> None:
        known = {"order_id": 1, "perm_id": 77, "client_id": CLIENT, "why_held": ""}
        row = known | more
        self.book.take(
            "orderStatus",
            (
                row["order_id"], word, filled, left, 100.5, row["perm_id"], 0, 100.5,
                row["client_id"], row["why_held"], 0.0,
            ),
        )  # fmt: skip

    def order(
        self, word: str, price: float = 100.0, size: float = 5, **more: Any
    ) -> None:
        known = {
            "orderId": 1, "clientId": CLIENT, "permId": 77, "orderRef": "r1",
            "account": ACCOUNT, "action": "BUY", "totalQuantity": size,
            "lmtPrice": price,
        }  # fmt: skip
        made = ib_async.Order(**(known | more))
        contract = ib_async.Contract(conId=7, secType="STK")
        state = ib_async.OrderState(status=word)
        self.book.take("openOrder", (made.orderId, contract, made, state))

    def error(self, code: int, text: str = "because", order_id: int = 1) -> None:
        self.book.take("error", (order_id, code, text))

    def fill(
        self, exec_id: str, size: float = 2, request: int = -1, **more: Any
    ) -> None:
        known = {
            "execId": exec_id, "acctNumber": ACCOUNT, "side": "BOT", "shares": size,
            "price": 100.25, "permId": 77, "clientId": CLIENT, "orderId": 1,
            "cumQty": size, "avgPrice": 100.25, "orderRef": "r1",
            "time": datetime(2026, 11, 23, tzinfo=UTC), "lastLiquidity": 1,
        }  # fmt: skip
        kind = more.pop("kind", "STK")
        contract = ib_async.Contract(conId=7, secType=kind)
        execution = ib_async.Execution(**(known | more))
        self.book.take("execDetails", (request, contract, execution))

    def fee(self, exec_id: str, paid: float) -> None:
        report = ib_async.CommissionReport(exec_id, paid, "USD")
        self.book.take("commissionReport", (report,))


def recorded(captures: Path, *kinds: int) -> list[list[str]]:
    rows = []
    with (captures / "ib" / "wire_messages.jsonl").open() as lines:
        for line in map(json.loads, lines):
            fields = line["message"].split("\0")
            if line["msg_id"] in kinds and line["n_fields"] not in (
                4,
                5,
                6,
                12,
                113,
                114,
            ):
                end = 2 if fields[0] == "59" else 1  # it was recorded with one NUL more
                rows.append(fields[:-end])
    return rows


def read(rows: list[list[str]]) -> list[tuple[str, tuple[Any, ...]]]:
    told: list[tuple[str, tuple[Any, ...]]] = []
    inbox = codec.Inbox(lambda *row: told.append(row), "20230224 12:00:00 US/Eastern")
    reader = codec.Reader(inbox, RECORDED)
    for fields in rows:
        reader.interpret(fields)
    return told


# Recorded messages


def test_a_recorded_order_is_filled_and_then_has_its_fee(captures: Path) -> None:
    ear = Ear(client_id=100)
    ear.book.symbols[76792991] = TSLA
    rows = [
        row
        for row in recorded(captures, 3, 5, 11, 59)
        if row[0] == "59" or "13" in row[:3]
    ]
    told = read(rows)
    names = [name for name, _ in told]
    assert {"openOrder", "orderStatus", "execDetails", "commissionReport"} <= set(names)
    for name, arguments in told:
        if name == "openOrder":
            arguments[2].orderRef = "mine"
        ear.book.take(name, arguments)
    fill = ear.of(BrokerdFill)[0]
    assert (fill.size, fill.price, fill.action) == (100, Decimal("196.52"), "buy")
    assert fill.fill_id == "00025b46.63f8f39c.01" and fill.revision == 0
    assert fill.symbol == TSLA and fill.liquidity == "taker" and fill.fee is None
    eastern = datetime(2023, 2, 24, 17, 4, 56, tzinfo=UTC)
    assert fill.broker_time == int(eastern.timestamp()) * 10**9
    assert ear.of(BrokerdFill)[-1].fee == 1
    status = [row.status for row in ear.of(BrokerdStatus)]
    assert status[0] == "open" and "closed" in status
    assert ear.book.get("mine").symbol == TSLA  # type: ignore[union-attr]


def test_a_recorded_cancel_is_the_end(captures: Path) -> None:
    ear = Ear(client_id=100)
    ear.add("c1", 41)
    rows = recorded(captures, 3, 4)
    for name, arguments in read([row for row in rows if "41" in row[:3]]):
        ear.book.take(name, arguments[:3] if name == "error" else arguments)
    assert [row.status for row in ear.of(BrokerdStatus)] == ["canceled", "canceled"]
    assert "202" in ear.of(BrokerdStatus)[-1].reason


def test_a_recorded_order_that_has_ended_is_described_with_its_size(
    captures: Path,
) -> None:
    ((_, row),) = read(recorded(captures, 101))
    row[1].orderRef = "mine"
    found = order_lists.find([row], "mine", ACCOUNT)
    assert found is not None
    order = order_lists.describe_ended(found, (), "aapl.nasdaq.ib")
    assert (order.status, order.size, order.filled) == ("closed", 100, 100)
    assert order.broker_id == "1824933227" and order.reason == "Filled Size: 100"
    assert order_lists.find([row], "mine", "DU7") is None


# Words and numbers


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("ApiPending", "pending"), ("PendingSubmit", "pending"),
        ("PreSubmitted", "open"), ("Submitted", "open"), ("PendingCancel", "open"),
        ("Filled", "closed"), ("Cancelled", "canceled"), ("ApiCancelled", "canceled"),
        ("Inactive", "canceled"), ("Sleeping", None),
    ],
)  # fmt: skip
def test_every_word_is_a_state_and_others_are_none(
    word: str, state: str | None
) -> None:
    assert state_of(word) == state


def test_an_order_that_is_held_is_no_dead_one() -> None:
    assert state_of("Inactive", "locate") == "open"


@pytest.mark.parametrize(
    ("code", "canceling", "meaning"),
    [
        (399, False, "warning"), (2109, False, "warning"), (202, False, "canceled"),
        (201, False, "refused"), (103, False, "refused"), (161, True, "cancel failed"),
        (10147, False, "cancel failed"), (10148, True, "cancel failed"),
        (135, True, "cancel failed"), (135, False, "refused"), (9999, False, "unclear"),
    ],
)  # fmt: skip
def test_codes_mean_what_they_mean_by_what_was_asked(
    code: int, canceling: bool, meaning: str
) -> None:
    assert meaning_of(code, canceling=canceling) == meaning


def test_a_read_only_api_and_a_number_used_twice_say_what_mends_them() -> None:
    text = "The API interface is currently in Read-Only mode."
    assert "untick Read-Only API" in refusal(321, text)
    assert "order_client_id" in refusal(103, "Duplicate order id")
    assert refusal(201, "Order\n rejected") == "TWS: Order rejected (code 201)"


@pytest.mark.parametrize(
    ("exec_id", "parts"),
    [
        ("0001.02.01.01", ("0001.02.01", 0)),
        ("0001.02.01.02", ("0001.02.01", 1)),
        ("0001.02.01.11", ("0001.02.01", 10)),
        ("0001.02.01.00", ("0001.02.01", 0)),
        ("odd", ("odd", 0)),
        ("a.b", ("a.b", 0)),
        ("", ("", 0)),
    ],
)
def test_the_last_part_of_an_execution_is_its_revision(
    exec_id: str, parts: tuple[str, int]
) -> None:
    assert split_execution(exec_id) == parts


@given(st.decimals(Decimal("0.00000001"), 10**9, places=8))
def test_numbers_with_15_digits_come_back_exactly(value: Decimal) -> None:
    if len(value.normalize().as_tuple().digits) <= 15:
        assert number(float(value)) == value


@pytest.mark.parametrize("none", ["1.7976931348623157E308", "", "NaN", "Infinity", "x"])
def test_what_stands_for_no_number_is_none(none: str) -> None:
    assert number(none) is None


def test_the_cost_of_a_contract_is_the_price_of_a_unit_times_its_multiplier() -> None:
    assert unit_price(302525.0, Decimal(50)) == Decimal("6050.5")
    assert unit_price(100.25, Decimal(0)) == Decimal("100.25")


def test_an_order_goes_out_exact_and_without_exponents() -> None:
    asked = make_order("r1", Decimal("0.00001"), size=Decimal("1E-7"), tif="fok")
    order = make_ib_order(asked, ACCOUNT, Config(outside_rth=True))
    assert (order.totalQuantity, order.lmtPrice) == ("0.0000001", "0.00001")
    assert (order.action, order.tif, order.orderRef) == ("BUY", "FOK", "r1")
    assert order.account == ACCOUNT and order.outsideRth


@pytest.mark.parametrize("flag", ["post_only", "reduce_only"])
def test_flags_that_there_are_not_are_refused(flag: str) -> None:
    with pytest.raises(OrderError, match="Interactive Brokers has no"):
        make_ib_order(make_order("r1", Decimal(1), **{flag: True}), ACCOUNT, Config())


@pytest.mark.parametrize("zone", ["UTC", "US/Eastern"])
def test_the_zone_of_the_greeting_is_that_of_times_without_one(zone: str) -> None:
    assert codec.zone_of(f"20261123 00:40:00 {zone}") == zone


@pytest.mark.parametrize("text", ["20261123 00:40:00", "", "20261123 00:40:00 Mars/X"])
def test_a_greeting_without_a_zone_leaves_ours(text: str) -> None:
    assert codec.zone_of(text) == ""


# Ledger


def fill_of(**more: Any) -> Any:
    execution = ib_async.Execution(
        execId="0001.02.01", time=datetime(2026, 11, 23, 15, tzinfo=UTC), side="SLD",
        shares=3, price=190.5, permId=77, orderRef="r1",
    )  # fmt: skip
    contract = ib_async.Contract(
        secType="STK", symbol="AAPL", exchange="NASDAQ", currency="USD"
    )
    report = ib_async.CommissionReport("0001.02.01", 1.25, "USD")
    parts = {"contract": contract, "execution": execution, "commissionReport": report}
    return ib_async.Fill(**(parts | more), time=execution.time)


def test_norm_trade_makes_a_line_of_a_ledger_of_a_fill() -> None:
    line = norm_trade(fill_of())
    assert line is not None
    assert (line.kind, line.tid, line.revision) == ("fill", "0001.02", 0)
    assert (line.size, line.price, line.fee) == (-3, Decimal("190.5"), Decimal("1.25"))
    assert (line.symbol, line.reqid) == ("aapl.nasdaq.ib", "r1")
    assert line.time_ns == 1_795_446_000 * 10**9


def test_norm_trade_leaves_out_sums_and_fees_that_are_not_told() -> None:
    bag = ib_async.Contract(secType="BAG", symbol="AAPL")
    assert norm_trade(fill_of(contract=bag)) is None
    line = norm_trade(fill_of(commissionReport=ib_async.CommissionReport()))
    assert line is not None and (line.fee, line.fee_currency) == (0, "")


# What follows from what


def test_ib_s_word_acknowledges_an_order_once_and_not_tws_s() -> None:
    ear = Ear()
    held = ear.add()
    ear.status("PendingSubmit")
    assert not ear.of(BrokerdOrderAck) and not held.answer.is_set()
    ear.status("PreSubmitted")
    ear.status("Submitted")
    assert len(ear.of(BrokerdOrderAck)) == 1 and held.answer.is_set()
    assert [row.status for row in ear.of(BrokerdStatus)] == ["pending", "open", "open"]


def test_a_fill_before_the_order_acknowledges_it() -> None:
    ear = Ear()
    ear.add()
    ear.fill("1.1.01")
    kinds = [type(message) for message in ear.said]
    assert kinds == [BrokerdOrderAck, BrokerdFill]
    assert ear.of(BrokerdFill)[0].liquidity == "maker"


def test_a_change_is_acknowledged_when_it_is_told_as_it_was_wanted() -> None:
    ear = Ear()
    held = ear.add()
    ear.order("Submitted")
    held.asked, held.wanted = "change", (Decimal(99), Decimal(7))
    ear.status("Submitted")
    ear.order("Submitted")
    assert len(ear.of(BrokerdOrderAck)) == 1
    ear.order("Submitted", price=99.0, size=7)
    assert len(ear.of(BrokerdOrderAck)) == 2
    assert (held.price, held.size) == (99, 7)


def test_a_fee_before_its_fill_is_the_fill_s() -> None:
    ear = Ear()
    ear.add()
    ear.fee("1.1.01", 1.5)
    ear.fill("1.1.01")
    ear.fee("1.1.01", 1.5)
    (fill,) = ear.of(BrokerdFill)
    assert fill.fee == Decimal("1.5")


def test_a_fee_that_is_none_is_not_told_as_one() -> None:
    ear = Ear()
    ear.add()
    ear.fill("1.1.01")
    ear.fee("1.1.01", 1.7976931348623157e308)
    assert ear.of(BrokerdFill)[-1].fee is None


def test_executions_that_were_asked_for_are_told_if_they_are_news() -> None:
    ear = Ear()
    ear.add()
    ear.fill("1.1.01")
    ear.fill("1.1.01", request=5)
    ear.fill("1.2.01", request=5)
    ear.fill("1.2.01")
    ids = [row.fill_id for row in ear.of(BrokerdFill)]
    assert ids == ["1.1", "1.2", "1.2"]


def test_the_sum_of_a_combination_and_another_account_are_not_ours() -> None:
    ear = Ear()
    ear.fill("1.1.01", kind="BAG")
    ear.fill("1.2.01", acctNumber="DU7")
    ear.order("Submitted", account="DU7")
    assert not ear.said and ear.book.get("r1") is None


def test_an_order_that_was_not_known_is_found_by_its_reference() -> None:
    ear = Ear()
    ear.book.round = 3
    ear.order("Submitted", clientId=4, orderId=9)
    held = ear.book.get("r1")
    assert held is not None and (held.client_id, held.order_id) == (4, 9)
    assert ear.book.seen(3) == [held] and ear.book.seen(4) == []
    ear.status("Filled", 5, 0, client_id=4, order_id=9)
    assert ear.of(BrokerdStatus)[-1].status == "closed"


def test_a_number_that_is_used_again_is_another_order() -> None:
    ear = Ear()
    ear.order("Submitted")
    ear.order("Submitted", permId=78, orderRef="r2")
    first, second = ear.book.get("r1"), ear.book.get("r2")
    assert first is not second and second is not None and second.perm_id == 78
    ear.status("Filled", 5, 0, perm_id=77)
    assert first is not None and first.status == "closed" and second.status == "open"


def test_what_has_ended_does_not_come_alive() -> None:
    ear = Ear()
    held = ear.add()
    ear.status("Filled", 5, 0)
    ear.status("Submitted", 2, 3)
    assert held.status == "closed" and held.filled == 5


def test_an_end_that_tells_no_sizes_has_all_of_it_left() -> None:
    ear = Ear()
    ear.add()
    ear.status("Inactive", 0, 0)
    (status,) = ear.of(BrokerdStatus)
    assert (status.status, status.filled, status.remaining) == ("canceled", 0, 5)


def test_a_word_that_nobody_knows_changes_nothing_and_is_counted() -> None:
    ear = Ear()
    held = ear.add()
    ear.status("Submitted")
    ear.status("Sleeping")
    assert held.status == "open" and ear.counts["status"] == 1


def test_statuses_of_orders_that_were_never_told_are_counted() -> None:
    ear = Ear()
    ear.status("Submitted", order_id=5)
    ear.error(201, order_id=5)
    assert not ear.said and ear.counts["foreign"] == 1


def test_a_rejected_new_order_is_refused_and_dead_with_all_of_its_size_left() -> None:
    ear = Ear()
    ear.add()
    ear.error(201)
    (error,), (status,) = ear.of(BrokerdError), ear.of(BrokerdStatus)
    assert error.reqid == "r1" and error.oid == "o-r1"
    assert (status.status, status.filled, status.remaining) == ("canceled", 0, 5)


def test_a_rejection_of_an_order_that_stood_ends_it() -> None:
    ear = Ear()
    ear.add()
    ear.status("Submitted")
    ear.error(201)
    assert not ear.of(BrokerdError)
    assert ear.of(BrokerdStatus)[-1].status == "canceled"


def test_a_refused_change_is_an_error_and_the_order_is_looked_at() -> None:
    ear = Ear()
    held = ear.add()
    ear.status("Submitted")
    held.asked, held.wanted = "change", (Decimal(99), Decimal(7))
    ear.error(105)
    assert len(ear.of(BrokerdError)) == 1 and ear.doubts == [held]
    assert held.status == "open" and held.asked == ""


def test_a_cancel_that_failed_is_an_error_and_the_order_is_looked_at() -> None:
    ear = Ear()
    held = ear.add()
    ear.status("Submitted")
    held.canceling = True
    ear.error(10148)
    assert len(ear.of(BrokerdError)) == 1 and ear.doubts == [held]
    ear.book.settle(held, None)
    assert ear.of(BrokerdStatus)[-1].status == "canceled"


def test_a_doubt_about_an_order_that_lives_is_over() -> None:
    ear = Ear()
    held = ear.add()
    ear.error(9999, "The sun shines")
    assert ear.doubts == [held] and not ear.of(BrokerdError)
    ear.status("Submitted")
    ear.book.settle(held, held.described())
    assert not ear.of(BrokerdError)
    assert ear.of(BrokerdStatus)[-1].status == "open"


WORDS = st.sampled_from(
    ["PendingSubmit", "PreSubmitted", "Submitted", "PendingCancel", "Cancelled",
     "Filled", "Inactive", "Nonsense"]
)  # fmt: skip
NUMBERS = st.sampled_from([0.0, 1.0, 5.0, 1.7976931348623157e308, float("nan"), -1.0])
STEPS = st.one_of(
    st.tuples(st.just("status"), WORDS, NUMBERS),
    st.tuples(st.just("order"), WORDS, NUMBERS),
    st.tuples(st.just("fill"), st.sampled_from(["1.1.01", "1.1.02", "x"]), NUMBERS),
    st.tuples(st.just("fee"), st.sampled_from(["1.1.01", "x"]), NUMBERS),
    st.tuples(st.just("error"), st.integers(100, 11000), NUMBERS),
)


@given(st.lists(STEPS, max_size=25))
def test_no_order_of_messages_is_too_much(steps: list[Any]) -> None:
    ear = Ear()
    ear.add()
    for name, word, value in steps:
        if name == "error":
            ear.error(word)
        else:
            getattr(ear, name)(word, value)
    assert len(ear.of(BrokerdOrderAck)) <= 1
    for row in ear.of(BrokerdStatus):
        assert row.filled.is_finite() and row.remaining.is_finite()


# Accounts


@pytest.mark.parametrize(
    ("wanted", "accounts", "code"),
    [
        ("", "U1", "U1"),
        ("ib", "U1", "U1"),
        ("u2", "U1 U2", "U2"),
        ("U2", "U1 U2", "U2"),
    ],
)
def test_an_account_is_the_only_one_or_the_named_one(
    wanted: str, accounts: str, code: str
) -> None:
    assert choose_account(wanted, accounts.split(), Config()) == code


def test_the_dialog_is_what_a_broker_is() -> None:
    link = SimpleNamespace(account="ib", code="U1", accounts=("U1",), config=Config())
    dialog = Dialog(link, Counter())  # type: ignore[arg-type]
    assert (dialog.account, dialog.code, dialog.accounts) == ("ib", "U1", ("U1",))
