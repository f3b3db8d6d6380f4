"""Whatever a private connection says: only understood, or refused in the known ways."""

from decimal import Decimal as D
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from piker_core.errors import ProviderError
from piker_core.orders import BrokerdError, BrokerdOrderAck
from providers.kraken.order_messages import OrderMessages
from providers.kraken.order_requests import Note
from providers.kraken.order_states import OrderStates
from providers.kraken.private_link import Asked
from providers.kraken.private_wire import Answer, decode_private

odd = st.one_of(
    st.sampled_from(
        ["NaN", "sNaN", "-Infinity", "1E+999999", "", "trade", "buy", "O1"]
    ),
    st.sampled_from(
        ["2026-01-01T00:00:00.000000Z", "BTC/USD", "filled", "pending_new"]
    ),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.none(),
    st.booleans(),
    st.lists(st.integers(), max_size=2),
)
NAMES = (
    *("order_id", "cl_ord_id", "exec_type", "order_status", "symbol", "side"),
    *("order_qty", "limit_price", "cum_qty", "exec_id", "last_qty", "last_price"),
    *("fees", "timestamp", "ratecount", "reason"),
)


class NoFacts:
    """Balances are not of interest here."""

    def take_balances(self, frame: object) -> list[Any]:
        return []


class NoLimits:
    """Nor are the engine's."""

    def adopt(self, pair: str, count: float) -> None:
        """The venue says what a pair's counter is."""

    def full(self, pair: str) -> None:
        """The venue refused an action of this pair."""


def make_messages() -> OrderMessages:
    states, facts, limits = OrderStates(str, lambda: 1), NoFacts(), NoLimits()
    return OrderMessages("a", facts=facts, states=states, limits=limits)  # type: ignore[arg-type]


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(NAMES), odd, min_size=6).map(
            lambda row: {"order_id": "O1", **row}
        ),
        max_size=3,
    )
)
def test_rows_of_any_kind_are_taken_or_refused_in_the_known_ways(rows: Any) -> None:
    messages = make_messages()
    frame = {"channel": "executions", "type": "update", "data": rows, "sequence": 1}
    try:
        raw = msgspec.json.encode(frame)
        decoded = decode_private(raw)
    except (ProviderError, ValueError):
        return
    messages.take(decoded, raw)  # what is wrong with a row is counted


async def test_what_is_wrong_with_one_row_leaves_those_beside_it() -> None:
    messages = make_messages()
    raw = msgspec.json.encode(
        {
            "channel": "executions",
            "type": "update",
            "data": [
                {"order_id": "O1", "symbol": "X", "order_qty": "NaN", "side": "buy"},
                {
                    "order_id": "O2",
                    "symbol": "X",
                    "order_qty": 1.5,
                    "side": "buy",
                    "order_status": "new",
                },
            ],
        }
    )
    messages.take(decode_private(raw), raw)
    assert messages.counts["malformed"] == 1
    told: Any = messages.received.receive_nowait()
    assert (told.broker_id, told.remaining) == ("O2", D("1.5"))


def make_note(reqid: str) -> Note:
    return Note(
        kind="add", reqid=reqid, oid=f"oid-{reqid}", symbol="x.kraken", venue_symbol="X"
    )


async def test_a_batch_in_which_one_order_is_refused_tells_each() -> None:
    messages = make_messages()
    asked = Asked("batch_add", {}, [make_note("a"), make_note("b")])
    asked.answer = Answer(
        method="batch_add",
        success=True,
        result=msgspec.Raw(
            b'{"orders":[{"order_id":"O1"},{"error":"EOrder:Insufficient funds"}]}'
        ),
    )
    messages.answered(asked)
    ack, error = (messages.received.receive_nowait() for _ in range(2))
    assert isinstance(ack, BrokerdOrderAck)
    assert (ack.reqid, ack.broker_id) == ("a", "O1")
    assert isinstance(error, BrokerdError)
    assert (error.reqid, error.oid) == ("b", "oid-b")
    assert [note.outcome for note in asked.notes] == ["taken", "refused"]


async def test_an_answer_with_too_few_results_leaves_the_outcome_unknown() -> None:
    messages = make_messages()
    asked = Asked("batch_add", {}, [make_note("a"), make_note("b")])
    asked.answer = Answer(
        method="batch_add", success=True, result=msgspec.Raw(b'[{"order_id":"O1"}]')
    )
    with pytest.raises(ProviderError, match="1 results of 2"):
        messages.answered(asked)
    assert {note.outcome for note in asked.notes} == {"unknown"}
