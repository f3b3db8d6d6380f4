"""Orders when things go wrong: lost answers, lost reports, lost connections, limits."""

import logging
import time
from collections.abc import AsyncIterator
from decimal import Decimal as D

import pytest
import trio

from piker_core.adapter.answers import OutcomeUnknown
from piker_core.errors import BrokerDown
from piker_core.orders import (
    BrokerdError,
    BrokerdFill,
    BrokerdOrderAck,
    BrokerdStatus,
)
from providers.kraken.venue import Venue
from tests.kraken_broker import (
    SYMBOL,
    V2,
    Trader,
    cancel,
    open_quiet_venue,
    open_trader,
    order,
)


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_quiet_venue() as opened:
        yield opened


@pytest.fixture
async def trader(venue: Venue) -> AsyncIterator[Trader]:
    async with open_trader(venue, reply_timeout_s=1.0) as opened:
        yield opened


# Answers


@pytest.mark.parametrize("kind", ["silent", "unavailable", "busy", "internal"])
@pytest.mark.parametrize("done", [True, False])
async def test_an_order_without_a_clear_answer_is_unknown_until_it_is_asked_for(
    trader: Trader, kind: str, done: bool
) -> None:
    trader.venue.order_faults.lie(kind, done=done)  # type: ignore[arg-type]
    with pytest.raises(OutcomeUnknown, match="u1"):
        await trader.dialog.submit(order("u1"))
    found = await trader.dialog.order("u1", SYMBOL)
    assert (found is not None) == done
    assert trader.venue.orders.accepted("u1") == int(done)
    if found is not None:
        assert (found.status, found.reqid) == ("open", "u1")
        await trader.wait_status("u1", "open")
    assert trader.dialog.statistics()["unknown"] == 1


async def test_an_unknown_cancel_is_resolved_by_asking(trader: Trader) -> None:
    await trader.dialog.submit(order("u1"))
    trader.venue.order_faults.lie("unavailable", done=True)
    with pytest.raises(OutcomeUnknown, match="cancel_order of u1"):
        await trader.dialog.cancel(cancel("u1"))
    found = await trader.dialog.order("u1", SYMBOL)
    assert found is not None
    assert found.status == "canceled"


async def test_an_order_that_came_too_late_was_not_taken(trader: Trader) -> None:
    trader.venue.order_faults.lie("late", done=False)
    await trader.dialog.submit(order("l1"))
    error = await trader.wait_kind(BrokerdError)
    assert "came too late and was not taken" in error.reason


async def test_the_venue_refuses_what_reaches_it_after_its_deadline(
    venue: Venue,
) -> None:
    async with open_trader(venue, order_deadline_s=0.5) as trader:
        clock = trader.dialog._private.clock
        clock.now_ns = lambda: time.time_ns() - 10**9  # type: ignore[method-assign]
        await trader.dialog.submit(order("l1"))
        error = await trader.wait_kind(BrokerdError)
        assert "EService:Deadline elapsed" in error.reason
    assert venue.orders.accepted("l1") == 0


async def test_an_answer_that_comes_after_the_patience_is_told(trader: Trader) -> None:
    trader.venue.order_faults.late_replies(1.4)
    with pytest.raises(OutcomeUnknown):
        await trader.dialog.submit(order("l1"))
    ack = await trader.wait_kind(BrokerdOrderAck)
    assert ack.reqid == "l1"


async def test_who_stops_waiting_for_an_answer_still_hears_it(trader: Trader) -> None:
    trader.venue.order_faults.late_replies(0.2)
    with trio.move_on_after(0.05):
        await trader.dialog.submit(order("l1"))
    assert (await trader.wait_kind(BrokerdOrderAck)).reqid == "l1"


# Reports


async def test_reports_before_their_answer_are_of_the_order_they_are_of(
    trader: Trader,
) -> None:
    trader.venue.order_faults.reports_first(1.0)
    await trader.dialog.submit(order("e1", price="90000", size="0.001"))
    await trader.wait_status("e1", "closed")
    await trader.wait_kind(BrokerdOrderAck)
    (fill,) = trader.fills().values()
    assert fill.reqid == "e1"
    assert {m.reqid for m in trader.heard if isinstance(m, BrokerdStatus)} == {"e1"}


async def test_doubled_reports_are_passed_on_with_the_same_ids(trader: Trader) -> None:
    trader.venue.order_faults.double_reports(1.0)
    await trader.dialog.submit(order("d1", size="0.02"))
    trader.print_trade("80000", "0.01")
    trader.print_trade("80000", "0.01")
    await trader.wait_status("d1", "closed")
    await trader.dialog.submit(order("d2"))
    await trader.wait_status("d2", "open")
    fills = [m for m in trader.heard if isinstance(m, BrokerdFill)]
    assert len(fills) == 4
    assert sum(fill.size for fill in trader.fills().values()) == D("0.02")
    filled = [
        m.filled
        for m in trader.heard
        if isinstance(m, BrokerdStatus) and m.reqid == "d1"
    ]
    assert filled == sorted(filled)
    assert trader.dialog.statistics().get("jumps", 0) == 0


async def test_reports_out_of_order_are_jumps_and_end_in_the_same_state(
    trader: Trader,
) -> None:
    trader.venue.order_faults.swap_reports(0.5)
    wanted = [f"s{number}" for number in range(10)]
    for reqid in wanted:
        await trader.dialog.submit(order(reqid, size="0.02"))
        trader.print_trade("80000", "0.01")
        trader.print_trade("80000", "0.01")
    await trader.wait_link(False)
    for reqid in wanted:
        found = await trader.dialog.order(reqid, SYMBOL)
        assert found is not None
        assert (found.status, found.filled) == ("closed", D("0.02"))
    assert trader.dialog.statistics()["jumps"] > 0
    assert len(await trader.dialog.fills(0)) == 20


async def test_a_jump_of_the_sequence_is_told_and_the_facts_have_what_was_lost(
    trader: Trader,
) -> None:
    await trader.dialog.submit(order("j1"))
    await trader.dialog.submit(order("j2", price="79000"))
    await trader.wait_status("j2", "open")
    trader.venue.order_faults.lose_reports(4)
    trader.print_trade("80000", "0.01")  # trade, two of balances, filled: all lost
    await trader.dialog.submit(order("j3", price="79000"))
    down = await trader.wait_link(False)
    assert "messages of" in down.reason
    after = trader.heard.index(down)
    await trader.wait_link(True, after=after)
    snapshot = {
        m.reqid: m.status for m in trader.heard[after:] if isinstance(m, BrokerdStatus)
    }
    assert snapshot == {"j2": "open", "j3": "open"}
    found = await trader.dialog.order("j1", SYMBOL)
    assert found is not None
    assert (found.status, found.filled) == ("closed", D("0.01"))
    (fill,) = await trader.dialog.fills(0)
    assert (fill.reqid, fill.size) == ("j1", D("0.01"))
    assert trader.dialog.statistics()["connections"] == 1
    trader.print_trade("79000", "0.01")
    await trader.wait_status("j2", "closed")


async def test_nonsense_is_counted_and_harms_nothing(
    trader: Trader, caplog: pytest.LogCaptureFixture
) -> None:
    await trader.wait_link(True)
    nonsense = [
        *(b"", b"null", b"[1]", b'{"channel":"executions","type":"update"}', b"\xff"),
        b'{"channel":"executions","type":"update","data":[{"order_id":7}]}',
        (
            b'{"channel":"executions","type":"update","data":[{"order_id":"O1","symbol":'
            b'"BTC/USD","exec_type":"trade","exec_id":"T","last_qty":NaN}]}'
        ),
        (
            b'{"channel":"executions","type":"update","data":[{"order_id":"O2","symbol":'
            b'"BTC/USD","exec_type":"trade","exec_id":"T","last_qty":"NaN",'
            b'"last_price":1.0,"side":"buy","timestamp":"2026-01-01T00:00:00.000000Z"}]}'
        ),
        (
            b'{"channel":"executions","type":"update","data":[{"order_id":"O3","symbol":'
            b'"BTC/USD","exec_type":"trade","exec_id":"T","last_qty":1.0,"last_price":1.0,'
            b'"side":"sideways","timestamp":"yesterday"}]}'
        ),
        b'{"channel":"weather","data":[]}',
        b'{"method":"add_order","success":true,"req_id":99999,"result":{}}',
        b'{"method":"add_order","success":"perhaps"}',
    ]
    for raw in nonsense:
        trader.venue._auth.send_all(raw)
    await trader.dialog.submit(order("n1"))
    await trader.wait_status("n1", "open")
    counts = trader.dialog.statistics()
    assert counts["malformed"] >= 8
    assert counts["unknown_frames"] == 1
    assert counts["connections"] == 1
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) <= 4


# Connections


async def test_what_happened_while_the_connection_was_lost_is_in_the_facts(
    trader: Trader,
) -> None:
    await trader.dialog.submit(order("r1", size="0.02"))
    await trader.dialog.submit(order("r2", price="79000"))
    await trader.wait_status("r2", "open")
    since_ns = time.time_ns()
    trader.venue.order_faults.cut()
    down = await trader.wait_link(False)
    trader.print_trade("80000", "0.02")
    after = trader.heard.index(down)
    await trader.wait_link(True, after=after)
    assert [each.reqid for each in await trader.dialog.orders()] == ["r2"]
    found = await trader.dialog.order("r1", SYMBOL)
    assert found is not None
    assert (found.status, found.filled) == ("closed", D("0.02"))
    fills = await trader.dialog.fills(since_ns)
    assert [(each.reqid, each.size) for each in fills] == [("r1", D("0.02"))]
    await trader.dialog.cancel(cancel("r2"))
    await trader.wait_status("r2", "canceled", after=after)
    assert trader.venue._auth.tokens.made == 2


async def test_nothing_is_sent_while_there_is_no_connection(trader: Trader) -> None:
    trader.venue.faults.refuse_connections()
    trader.venue.order_faults.cut()
    await trader.wait_link(False)
    with pytest.raises(BrokerDown, match="no private connection"):
        await trader.dialog.submit(order("n1"))
    with pytest.raises(BrokerDown):
        await trader.dialog.cancel(cancel("n1"))
    assert trader.venue.orders.accepted("n1") == 0
    trader.venue.faults.refuse_connections(False)
    await trader.wait_link(True, after=len(trader.heard))
    await trader.dialog.submit(order("n1"))
    assert trader.venue.orders.accepted("n1") == 1


async def test_all_is_canceled_over_rest_while_there_is_no_connection(
    trader: Trader,
) -> None:
    await trader.wait_link(True)
    await trader.dialog.submit(order("n1"))
    trader.venue.faults.refuse_connections()
    trader.venue.order_faults.cut()
    await trader.wait_link(False)
    await trader.dialog.cancel_all()
    assert trader.venue.orders.of("n1")[0].state == "canceled"


async def test_canceling_all_waits_for_no_other_call(venue: Venue) -> None:
    async with open_trader(venue, private_rate=0.01, private_burst=1) as trader:
        await trader.dialog.submit(order("n1"))
        venue.faults.refuse_connections()
        venue.order_faults.cut()
        await trader.wait_link(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trader.dialog.orders)  # for which there is no budget
            await trio.sleep(0.05)
            with trio.fail_after(5):
                await trader.dialog.cancel_all()
            nursery.cancel_scope.cancel()
    assert venue.orders.of("n1")[0].state == "canceled"


async def test_a_connection_that_is_lost_before_the_answer_leaves_it_unknown(
    venue: Venue,
) -> None:
    async with open_trader(venue) as trader:
        venue.order_faults.lie("silent", done=True)
        async with trio.open_nursery() as nursery:

            async def submit() -> None:
                with pytest.raises(OutcomeUnknown):
                    await trader.dialog.submit(order("c1"))

            nursery.start_soon(submit)
            with trio.fail_after(5):
                while not venue.orders.accepted("c1"):
                    await trio.sleep(0.005)
            venue.order_faults.cut()
        await trader.wait_link(True, after=len(trader.heard))
        found = await trader.dialog.order("c1", SYMBOL)
        assert found is not None
        assert found.status == "open"


async def test_a_silent_connection_is_replaced(venue: Venue) -> None:
    async with open_trader(venue, liveness_s=1.5) as trader:
        await trader.wait_link(True)
        venue.order_faults.half_open()
        down = await trader.wait_link(False)
        assert "no frame for 1.5 s" in down.reason
        await trader.wait_link(True, after=trader.heard.index(down))


async def test_an_invalid_token_is_renewed_and_nothing_was_sent(
    trader: Trader,
) -> None:
    await trader.wait_link(True)
    trader.venue.order_faults.invalidate_tokens()
    with pytest.raises(BrokerDown, match="session"):
        await trader.dialog.submit(order("t1"))
    down = await trader.wait_link(False)
    assert "token" in down.reason
    await trader.wait_link(True, after=trader.heard.index(down))
    await trader.dialog.submit(order("t1"))
    assert trader.venue.orders.accepted("t1") == 1


async def test_a_token_that_is_not_given_is_asked_for_again(venue: Venue) -> None:
    venue.faults.unavailable(2)
    async with open_trader(venue) as trader:
        await trader.wait_link(True)


# The venue's modes and limits


async def test_a_market_that_only_cancels_refuses_orders_and_takes_cancels(
    trader: Trader,
) -> None:
    await trader.dialog.submit(order("m1"))
    trader.venue._exchange.system = "cancel_only"
    await trader.dialog.submit(order("m2"))
    error = await trader.wait_kind(BrokerdError)
    assert "takes cancels alone" in error.reason
    await trader.dialog.cancel(cancel("m1"))
    await trader.wait_status("m1", "canceled")


async def test_no_limit_of_the_engine_is_ever_passed() -> None:
    account = {"threshold": 20, "decay": 1.0}
    keys = {"order_wait_s": 0.2, "cancel_wait_s": 0.2, "cancel_room": 8.0}
    async with (
        open_quiet_venue(account=account) as venue,
        open_trader(venue, **keys) as trader,
    ):
        await trader.wait_link(True)
        for number in range(20):
            await trader.dialog.submit(order(f"l{number}"))
        errors = [m for m in trader.heard if isinstance(m, BrokerdError)]
        assert len(errors) >= 5
        assert "of 20, which has room in" in errors[0].reason
        assert "order_wait_s in [kraken]" in errors[0].reason
        for number in range(3):
            await trader.dialog.cancel(cancel(f"l{number}"))
        await trader.wait_status("l0", "canceled")  # there was room left for it
        late = await trader.wait(
            lambda m: isinstance(m, BrokerdError) and m.reqid == "l2"
        )
        assert "cancel_wait_s in [kraken]" in late.reason
        assert venue.orders.counter.refused == 0
        assert venue.orders.counter.most > 18


async def test_the_venues_word_on_its_limit_is_taken() -> None:
    async with (
        open_quiet_venue(account={"threshold": 60}) as venue,
        open_trader(venue, order_wait_s=0, cancel_room=0) as trader,
    ):
        await trader.wait_link(True)
        for _ in range(59):
            venue.orders.counter.add(V2, 1)  # another process of the account
        await trader.dialog.submit(order("v1"))
        await trader.wait_status("v1", "open")
        await trader.dialog.submit(order("v2"))
        error = await trader.wait_kind(BrokerdError)
        assert "of 60" in error.reason
        assert venue.orders.counter.refused == 0


async def test_a_refusal_for_too_many_stops_the_rest_here(trader: Trader) -> None:
    trader.venue.order_faults.lie("limited", done=False)
    await trader.dialog.submit(order("x1"))
    await trader.wait_kind(BrokerdError)
    assert trader.dialog.statistics()["throttled"] == 1
    requests = trader.dialog.statistics()["requests"]
    limits = trader.dialog._limits
    assert limits.count(V2) == pytest.approx(limits.threshold, abs=1)
    assert requests == 1


async def test_calls_are_kept_within_the_keys_rate() -> None:
    async with (
        open_quiet_venue(account={"calls": 6.0, "calls_decay": 5.0}) as venue,
        open_trader(venue, private_rate=5.0, private_burst=5) as trader,
    ):
        for _ in range(8):
            await trader.dialog.orders()
        assert venue.private.refused == 0


async def test_an_order_may_be_sent_for_as_long_as_it_is_not_known_to_be_taken(
    trader: Trader,
) -> None:
    trader.venue.order_faults.lie("unavailable", done=False)
    with pytest.raises(OutcomeUnknown):
        await trader.dialog.submit(order("u1"))
    await trader.dialog.submit(order("u1"))  # a change, as long as nobody has asked
    assert "Unknown order" in (await trader.wait_kind(BrokerdError)).reason
    assert await trader.dialog.order("u1", SYMBOL) is None
    await trader.dialog.submit(order("u1"))
    await trader.wait_status("u1", "open")
    assert trader.venue.orders.accepted("u1") == 1


async def test_no_key_secret_or_token_is_in_any_log(
    venue: Venue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("websockets.server").setLevel(logging.WARNING)  # the venue's
    tokens: list[str] = []
    make = venue._auth.tokens.make
    venue._auth.tokens.make = lambda: tokens.append(make()) or tokens[-1]  # type: ignore[method-assign, func-returns-value]
    async with open_trader(venue, reply_timeout_s=1.0) as trader:
        await trader.dialog.submit(order("s1"))
        venue.order_faults.lie("silent", done=True)
        with pytest.raises(OutcomeUnknown) as unknown:
            await trader.dialog.submit(order("s2"))
        venue.order_faults.invalidate_tokens()
        with pytest.raises(BrokerDown) as down:
            await trader.dialog.submit(order("s3"))
        await trader.wait_link(True, after=len(trader.heard))
        venue.faults.html(1)
        await trader.dialog.orders()
        said = [repr(trader.dialog.__dict__), repr(vars(trader.dialog._private))]
        said += [repr(unknown.value), repr(down.value), repr(trader.heard)]
        said.append(repr(trader.dialog._connection.__dict__))
    config = venue.config
    said += [record.getMessage() + repr(record.args) for record in caplog.records]
    assert len(tokens) == 2
    assert len(caplog.records) > 20
    for canary in (config["api_key"], config["api_secret"], *tokens):
        assert not [text for text in said if canary in text]
