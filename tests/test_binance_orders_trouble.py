"""What goes wrong with orders at the simulated Binance, and what is known after it."""

import logging
from contextlib import ExitStack
from decimal import Decimal as D

import pytest
import trio

import piker_core as pk
from piker_core.adapter.rest import OutcomeUnknown
from piker_core.broker import BrokerLink
from piker_core.errors import BrokerDown
from piker_core.orders import BrokerdError, BrokerdFill, BrokerdStatus
from providers.binance.venue import API_KEY, API_SECRET, Limits, open_venue
from providers.binance.venue_usdm_account import UsdmAccount
from tests.binance_orders import (
    SPOT,
    USDM,
    make_config,
    open_dialog,
    open_orders,
)

both = pytest.mark.parametrize("name", [SPOT, USDM])


# Outcomes that are not known


@both
@pytest.mark.parametrize("executed", [True, False])
@pytest.mark.parametrize("lost", [True, False], ids=["no answer", "-1007"])
async def test_an_unknown_outcome_is_raised_and_found_out_by_the_orders_name(
    name: str, executed: bool, lost: bool
) -> None:
    async with open_orders(name) as heard:
        faults = heard.venue.faults
        switch = faults.lose_answers if lost else faults.time_out_orders
        switch(1, executed=executed)
        with pytest.raises(OutcomeUnknown, match="do not send it again"):
            await heard.place("x1")
        if lost and name == SPOT:
            await heard.back()
        known = await heard.known("x1")
        assert heard.account.accepted["x1"] == executed
        if executed:
            assert known and (known.status, known.reqid) == ("open", "x1")
        else:
            assert known is None
        assert heard.dialog.statistics()["unknown"] == 1
        assert not heard.of(BrokerdError)


@pytest.mark.parametrize("executed", [True, False])
async def test_an_unknown_replacement_is_found_out_before_the_next_request(
    executed: bool,
) -> None:
    async with open_orders(SPOT) as heard:
        order = await heard.place("v1")
        await heard.acked("v1")
        heard.venue.faults.drop_reports(1.0)
        heard.venue.faults.time_out_orders(1, executed=executed)
        with pytest.raises(OutcomeUnknown):
            await heard.update(order, price=heard.price("50"))
        known = await heard.known("v1")
        assert known and known.status == "open"
        assert known.price == heard.price("50" if executed else "100")
        await heard.cancel(order)
        await heard.status("v1", "canceled")
        assert heard.account.matching.open_orders() == []


@both
async def test_a_cancel_of_unknown_outcome_is_raised(name: str) -> None:
    async with open_orders(name) as heard:
        order = await heard.place("q1")
        heard.venue.faults.time_out_orders(1, executed=True)
        with pytest.raises(OutcomeUnknown):
            await heard.cancel(order)
        known = await heard.known("q1")
        assert known and known.status == "canceled"


# Reports that are doubled, shuffled, late or lost


@both
async def test_doubled_and_shuffled_reports_come_to_the_same_truth(name: str) -> None:
    async with open_orders(name) as heard:
        heard.venue.faults.duplicate_reports(0.7)
        heard.venue.faults.disorder_reports(1.0)
        for number in range(12):
            reqid = f"d{number}"
            await heard.place(reqid, price=heard.price("-1000"), size=D("0.001"))
            await heard.wait(lambda reqid=reqid: heard.fills(reqid))
        executions = heard.account.matching.executions()
        for order, execution in executions:
            fills = heard.fills(order.client_id).values()
            assert [f.price for f in fills] == [execution.price]
            most = max(s.filled for s in heard.of(BrokerdStatus, order.client_id))
            assert most == order.filled
        assert len(heard.of(BrokerdFill)) > len(executions) == 12
        assert {
            "duplicate_reports",
            "disorder_reports",
        } <= heard.venue.faults.done.keys()


async def test_reports_that_are_late_come_after_the_answer() -> None:
    async with open_orders(SPOT) as heard:
        heard.venue.faults.delay_reports(0.3)
        await heard.place("e1", price=heard.price("-1000"), size=D("0.001"))
        first = await heard.wait(lambda: heard.of(BrokerdFill, "e1"))
        assert first and (await heard.status("e1", "closed")).filled == D("0.001")
        await heard.wait(lambda: len(heard.of(BrokerdFill, "e1")) == 2)
        assert len(heard.fills("e1")) == 1


@both
async def test_what_was_missed_while_disconnected_is_told_when_asked(name: str) -> None:
    async with open_orders(name) as heard:
        order = await heard.place("g1")
        await heard.acked("g1")
        heard.venue.faults.refuse_connections()
        heard.venue.faults.cut()
        await heard.wait(lambda: heard.links()[-1] is False)
        heard.account.matching.print_trade(heard.symbol, order.price, D("0.004"))
        if name == SPOT:
            with pytest.raises(BrokerDown, match="not connected"):
                await heard.place("g2")
        heard.venue.faults.refuse_connections(False)
        await heard.back()
        (known,) = await heard.dialog.orders()
        assert (known.filled, known.size) == (D("0.004"), D("0.01"))
        (fill,) = await heard.dialog.fills(order.time_ns - 10**9, name)
        assert (fill.reqid, fill.size) == ("g1", D("0.004"))
        heard.account.matching.print_trade(heard.symbol, order.price, D(1))
        status = await heard.status("g1", "closed")
        assert status.filled == D("0.01")
        assert heard.account.accepted["g2"] == 0


@both
async def test_a_stream_that_the_venue_ends_is_replaced(name: str) -> None:
    async with open_orders(name) as heard:
        heard.venue.faults.terminate_user_streams()
        await heard.back()
        assert False not in heard.links()
        await heard.place("h1")
        await heard.wait(
            lambda: [
                s for s in heard.of(BrokerdStatus, "h1") if s.broker_details["kind"]
            ]
        )
        assert heard.dialog.statistics()["terminated"] >= 1


async def test_a_key_that_is_revoked_is_noticed_and_asked_for_again() -> None:
    async with open_orders(SPOT) as heard:
        heard.venue.faults.revoke_key()
        await heard.back()
        await heard.place("j1")
        await heard.status("j1", "open")


@both
async def test_a_connection_is_replaced_before_its_end_without_a_loss(
    name: str,
) -> None:
    settings = {"rotate_s": 0.3, "overlap_s": 0.2}
    async with open_orders(name, **settings) as heard:
        order = await heard.place("o1", size=D("0.1"))
        matching = heard.account.matching
        count = 0
        while heard.side.kept.rotations < 3:
            matching.print_trade(heard.symbol, order.price, D("0.001"))
            count += 1
            await trio.sleep(0.03)
        await heard.wait(lambda: heard.filled("o1") == D("0.001") * count)
        assert False not in heard.links()


@both
async def test_a_shutdown_that_is_announced_is_no_loss(name: str) -> None:
    async with open_orders(name, overlap_s=0.1) as heard:
        heard.venue.faults.shutdown(0.8)
        await heard.back()
        await heard.place("s1")
        await heard.status("s1", "open")
        await trio.sleep(1.0)
        assert False not in heard.links()


@both
async def test_a_connection_that_is_silent_is_dead(name: str) -> None:
    async with open_orders(name, liveness_s=0.3, rest_timeout_s=1.0) as heard:
        heard.venue.faults.half_open()
        await heard.wait(lambda: not heard.side.up)
        heard.venue.faults.half_open(False)
        await heard.back()
        await heard.place("s1")
        await heard.status("s1", "open")


async def test_a_listen_key_is_renewed_in_time() -> None:
    async with open_orders(USDM, listen_key_s=0.05) as heard:
        account = heard.account
        assert isinstance(account, UsdmAccount)
        with trio.fail_after(10):
            while account.renewals < 3:
                await trio.sleep(0.02)
        account.listen_key = ""
        await heard.back()
        await heard.place("k1")
        await heard.status("k1", "open")


# Limits and the clock


async def test_too_many_orders_are_refused_and_then_wait_their_time() -> None:
    limits = Limits(orders=3)
    async with (
        open_venue(seed=3, pairs=["BTCUSDT"], live_rate=0, limits=limits) as venue,
        open_dialog(venue, SPOT) as heard,
    ):
        kept_back = 0
        for number in range(8):
            try:
                await heard.place(f"n{number}", price=heard.price("100"))
            except BrokerDown:
                kept_back += 1
        taken = sum(heard.account.accepted.values())
        errors = heard.of(BrokerdError)
        assert 3 <= taken <= 6  # the window of 10 s may end in between
        assert kept_back + len(errors) + taken == 8
        assert all("Too many new orders" in error.reason for error in errors)


@both
async def test_a_clock_that_is_off_is_asked_for_and_the_order_sent_again(
    name: str,
) -> None:
    async with open_orders(name) as heard:
        heard.venue.faults.skew_clock(-30)
        await heard.place("s1")
        await heard.acked("s1")
        assert heard.account.accepted["s1"] == 1
        assert -31 < heard.side.account.side.clock.offset_s < -29


@both
async def test_an_order_does_not_wait_behind_calls_for_data(name: str) -> None:
    async with open_orders(name) as heard:
        limiter = heard.side.account.side.rest.limiter
        burst = heard.side.config.rest_burst
        async with trio.open_nursery() as nursery:
            limiter.spend(burst - 200)
            nursery.start_soon(limiter.acquire, burst - 1)
            await trio.sleep(0.01)
            order = await heard.place("h1")
            await heard.cancel(order)
            await heard.status("h1", "canceled")
            assert limiter.delay(burst - 1) > 5
            nursery.cancel_scope.cancel()


async def test_a_ban_keeps_orders_back() -> None:
    async with open_orders(SPOT) as heard:
        heard.venue.faults.ban(60)
        with pytest.raises(pk.ProviderError):
            await heard.dialog.orders()
        with pytest.raises(BrokerDown, match="limits leave no room"):
            await heard.place("b1")
        assert heard.account.accepted["b1"] == 0


# Nonsense, and keys


@both
async def test_nonsense_is_counted_and_ends_nothing(name: str) -> None:
    async with open_orders(name) as heard:
        frames = [n for n in heard.venue.faults.broken if n != "giant"]
        heard.venue.faults.malformed(frames)
        await heard.place("z1")
        await heard.status("z1", "open")
        await heard.wait(lambda: heard.dialog.statistics()["malformed"])
        assert heard.dialog.statistics()["unknown"]


@both
async def test_keys_are_in_no_log_and_no_error(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as levels:
        for logger in ("", "websockets", "httpx", "httpcore", "providers"):
            levels.enter_context(caplog.at_level(logging.DEBUG, logger=logger or None))
        async with open_orders(name) as heard:
            order = await heard.place("c1")
            await heard.cancel(order)
            await heard.place("c2", price=D("0.001"))
            heard.venue.faults.cut()
            await heard.back()
            said = repr(heard.messages) + repr(make_config(heard.venue))
            said += repr(vars(heard.dialog)) + repr(heard.dialog.spot.api)
    ours = [row for row in caplog.records if row.name != "websockets.server"]
    text = "\n".join(row.getMessage() for row in ours)
    assert "HTTP Request" in text and order.reqid
    for secret in (API_KEY, API_SECRET, "pqia91ma19a5s61cv6a81va65sdf19v8a65a1"):
        assert secret not in text and secret not in said


async def test_one_side_that_is_lost_leaves_the_other_at_work() -> None:
    async with (
        open_venue(seed=5, live_rate=0, history_s=60) as venue,
        open_dialog(venue, SPOT) as heard,
    ):
        usdm = heard.dialog.usdm
        await heard.wait(lambda: usdm.up)
        venue.usdm.sockets.reset_all()
        await heard.wait(lambda: usdm.up and usdm.kept.connections == 2)
        assert [each for each in heard.of(BrokerLink) if not each.up] == []
        await heard.place("a1")
        await heard.status("a1", "open")
