"""Orders by TWS: placed, changed, canceled, filled and found again, over sockets."""

from collections import Counter
from decimal import Decimal

import pytest
import trio

import piker_core as pk
from piker_core.adapter.answers import OutcomeUnknown
from piker_core.errors import BrokerDown, ConfigError
from piker_core.orders import BrokerdFill, BrokerdStatus
from providers.ib.broker import open_trade_dialog
from providers.ib.session import open_session
from tests.ib_gateway import wait_until
from tests.ib_orders import (
    AAPL,
    FAR,
    make_order,
    open_desk,
    open_orders_venue,
    open_pair,
    settings,
)

VERSIONS = pytest.mark.parametrize("version", [157, 178])
TWO = ("DU1234567", "DU7654321")


@VERSIONS
async def test_an_order_that_takes_is_acknowledged_filled_and_then_has_its_fee(
    version: int,
) -> None:
    async with open_pair(server_version=version) as (venue, desk):
        await desk.place("a1", size=5)
        assert desk.acks("a1")[0].oid == "o-a1"
        await desk.until_status("a1", "closed")
        await desk.until(lambda: any(fill.fee for fill in desk.fills("a1")))
        fills = desk.fills("a1")
        assert {fill.fill_id for fill in fills} == {fills[0].fill_id}
        assert fills[0].fee is None and fills[-1].fee == 1
        assert fills[-1].fee_currency == "usd" and fills[-1].liquidity == "taker"
        assert {fill.revision for fill in fills} == {0}
        (told,) = venue.orders.fills("a1")
        assert (fills[0].price, fills[0].size) == (told.price, Decimal(5))
        assert abs(fills[0].broker_time - told.execution.time_ns) < 10**9
        assert venue.orders.accepted["a1"] == 1


@VERSIONS
async def test_an_order_rests_is_changed_under_its_number_and_canceled(
    version: int,
) -> None:
    async with open_pair(server_version=version) as (venue, desk):
        order = await desk.rest("r1", size=5)
        status = await desk.until_status("r1", "open")
        assert (status.filled, status.remaining) == (0, 5)
        changed = order.price - 1
        await desk.place("r1", price=changed, size=9)
        assert len(desk.acks("r1")) == 2
        (ticket,) = venue.orders.of("r1")
        assert (ticket.order.price, ticket.order.size) == (changed, 9)
        found = await desk.dialog.order("r1", AAPL)
        assert found is not None and (found.price, found.size) == (changed, 9)
        await desk.cancel("r1")
        ended = await desk.until_status("r1", "canceled")
        assert (ended.filled, ended.remaining) == (0, 9)
        assert ticket.word == "Cancelled" and venue.orders.accepted["r1"] == 1


async def test_a_resting_order_is_filled_in_parts_by_trades_through_it() -> None:
    async with open_pair() as (venue, desk):
        order = await desk.rest("p1", size=10)
        assert venue.orders.print_trade("AAPL", order.price, Decimal(4)) == 4
        await desk.until(lambda: desk.fills("p1"))
        partly = [row for row in desk.of(BrokerdStatus, "p1") if row.filled == 4]
        await desk.until(lambda: partly or desk.of(BrokerdStatus, "p1")[-1].filled == 4)
        found = await desk.dialog.order("p1", AAPL)
        assert found is not None and found.status == "open"
        assert (found.filled, found.avg_price) == (4, order.price)
        venue.orders.print_trade("AAPL", order.price - 1, Decimal(50))
        await desk.until_status("p1", "closed")
        fills = {fill.fill_id: fill for fill in desk.fills("p1")}
        assert [fill.size for fill in fills.values()] == [4, 6]
        assert {fill.liquidity for fill in fills.values()} == {"maker"}


async def test_an_order_for_now_or_never_that_finds_nothing_is_canceled() -> None:
    async with open_pair() as (venue, desk):
        for reqid, tif in (("i1", "ioc"), ("f1", "fok")):
            price = desk.price("buy", -FAR)
            await desk.place(reqid, price=price, tif=tif)
            ended = await desk.until_status(reqid, "canceled")
            assert ended.remaining == 5
            assert venue.orders.of(reqid)[0].tif == tif.upper()


async def test_a_rejected_order_is_a_refusal_and_is_dead() -> None:
    async with open_pair() as (venue, desk):
        await desk.rest("m1", size=1_000_000)
        (error,) = desk.errors("m1")
        assert "EQUITY WITH LOAN VALUE" in error.reason and "201" in error.reason
        assert desk.of(BrokerdStatus, "m1")[0].status == "canceled"
        assert not desk.acks("m1") and not venue.orders.accepted["m1"]
        assert await desk.dialog.order("m1", AAPL) is not None


@pytest.mark.parametrize(
    ("price", "part"), [("100.005", "minimum price variation"), ("-", "no contract")]
)
async def test_what_tws_does_not_take_is_one_sentence(price: str, part: str) -> None:
    async with open_pair() as (_, desk):
        if price == "-":
            await desk.place("x1", price=Decimal(1), symbol="nothing.nasdaq.ib")
        else:
            await desk.place("x1", price=Decimal(price))
        (error,) = desk.errors("x1")
        assert part in error.reason
        assert desk.of(BrokerdStatus, "x1")[-1].status == "canceled"


@pytest.mark.parametrize("flag", ["post_only", "reduce_only"])
async def test_flags_that_tws_has_not_are_refused_before_anything_is_sent(
    flag: str,
) -> None:
    async with open_pair() as (venue, desk):
        await desk.rest("g1", **{flag: True})
        assert "Interactive Brokers has no" in desk.errors("g1")[0].reason
        assert not venue.orders.accepted


async def test_a_warning_is_no_refusal(caplog: pytest.LogCaptureFixture) -> None:
    async with open_pair() as (venue, desk):
        venue.orders.faults.warn()
        await desk.rest("w1")
        assert desk.acks("w1") and not desk.errors("w1")
        assert "code 399" in caplog.text
        assert desk.dialog.statistics()["warning 399"] == 1


async def test_a_refused_change_leaves_the_order_as_it_was() -> None:
    async with open_pair() as (venue, desk):
        order = await desk.rest("c1", size=5)
        venue.orders.faults.refuse(110, "The price does not conform")
        await desk.place("c1", price=order.price - 1)
        assert len(desk.errors("c1")) == 1 and len(desk.acks("c1")) == 1
        found = await desk.dialog.order("c1", AAPL)
        assert found is not None and found.status == "open"
        assert found.price == order.price
        await desk.place("c1", price=order.price - 2)
        assert len(desk.acks("c1")) == 2


async def test_a_code_that_nobody_knows_is_settled_by_asking() -> None:
    async with open_pair() as (venue, desk):
        venue.orders.faults.refuse(9999, "The weather is bad")
        await desk.rest("u1")
        await desk.until_status("u1", "canceled")
        assert "The weather is bad" in desk.errors("u1")[0].reason


async def test_a_cancel_of_what_is_over_is_a_refusal() -> None:
    async with open_pair() as (_, desk):
        await desk.place("d1")
        await desk.until_status("d1", "closed")
        await desk.cancel("d1")
        assert "closed already" in desk.errors("d1")[0].reason
        assert desk.of(BrokerdStatus, "d1")[-1].status == "closed"
        await desk.cancel("never")
        assert "no such open order" in desk.errors("never")[0].reason


async def test_a_cancel_that_comes_too_late_is_settled_by_asking() -> None:
    async with open_pair() as (venue, desk):
        order = await desk.rest("l1")
        (ticket,) = venue.orders.of("l1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.cancel, "l1")
            await trio.lowlevel.checkpoint()
            venue.orders.print_trade("AAPL", order.price, Decimal(50))
        await desk.until_status("l1", "closed")
        assert ticket.word == "Filled"


async def test_doubled_and_disordered_messages_are_passed_on_as_they_come() -> None:
    async with open_pair() as (venue, desk):
        venue.orders.faults.doubled = venue.orders.faults.disordered = True
        await desk.place("o1")
        await desk.until_status("o1", "closed")
        await desk.until(lambda: any(fill.fee for fill in desk.fills("o1")))
        await desk.dialog.order("o1", AAPL)
        await desk.settle()  # whatever came is here now
        kinds = [type(row).__name__ for row in desk.said if row != desk.said[0]]
        assert kinds.index("BrokerdFill") < kinds.index("BrokerdStatus")
        closed = [row for row in desk.of(BrokerdStatus, "o1") if row.status == "closed"]
        assert len(closed) >= 2
        assert len(desk.acks("o1")) == 1


async def test_a_correction_has_the_same_id_and_a_higher_revision() -> None:
    async with open_pair() as (venue, desk):
        await desk.place("k1")
        await desk.until(lambda: desk.fills("k1"))
        first = desk.fills("k1")[0]
        venue.orders.correct("k1", first.price + 1)
        await desk.until(lambda: desk.fills("k1")[-1].revision == 1)
        last = desk.fills("k1")[-1]
        assert (last.fill_id, last.price) == (first.fill_id, first.price + 1)
        fills = await desk.dialog.fills(0)
        assert [(row.fill_id, row.revision) for row in fills] == [(first.fill_id, 1)]


async def test_a_fee_that_is_late_is_a_repeat_of_the_fill() -> None:
    async with open_pair() as (venue, desk):
        venue.orders.faults.late_commission_s = 0.3
        await desk.place("t1")
        await desk.until_status("t1", "closed")
        (early,) = await desk.dialog.fills(0, AAPL)
        assert early.fee is None and early.reqid == "t1"
        await desk.until(lambda: desk.fills("t1")[-1].fee == 1)
        (later,) = await desk.dialog.fills(0)
        assert later.fee == 1 and later.fill_id == early.fill_id


async def test_the_fills_of_a_time_and_a_market_are_told() -> None:
    async with open_pair() as (_, desk):
        await desk.place("t1")
        await desk.until_status("t1", "closed")
        (fill,) = await desk.dialog.fills(0)
        assert await desk.dialog.fills(fill.broker_time + 1) == []
        assert await desk.dialog.fills(0, "msft.nasdaq.ib") == []


async def test_what_if_tells_margin_and_commission_and_places_nothing() -> None:
    async with open_pair() as (venue, desk):
        order = make_order("h1", Decimal(100), size=40)
        figures = await desk.dialog.what_if(order)
        assert figures.initial_margin_change == 1000
        assert (figures.commission, figures.currency) == (1, "usd")
        assert figures.least_commission is None
        assert not venue.orders.tickets and not desk.of(BrokerdStatus)
        with pytest.raises(pk.ProviderError, match="EQUITY"):
            await desk.dialog.what_if(make_order("h2", Decimal(100), size=10**6))
        await desk.rest("h3")
        assert desk.acks("h3")


async def test_positions_are_of_one_unit_whatever_the_multiplier() -> None:
    async with open_orders_venue() as venue:
        future = next(
            row.pair for row in venue.markets if row.pair.market_name.startswith("es.")
        )
        name = f"{future.market_name}.ib"
        async with open_desk(venue, symbols=(name,)) as desk:
            price = desk.price("buy", Decimal(10), future.symbol)
            await desk.place("e1", price=price, size=1, symbol=name)
            await desk.place("s1", action="sell", size=3)
            await desk.until_status("s1", "closed")
            rows = {row.symbol: row for row in await desk.dialog.positions()}
            assert set(rows) == {name, AAPL}
            paid = venue.orders.fills("e1")[0].price
            assert rows[name].size == 1 and rows[AAPL].size == -3
            assert rows[name].avg_price == paid + Decimal(1) / 50
            await desk.dialog.orders()  # what was sent before has been read
            assert venue.statistics().requests["cancelPositions"] == 1
            assert rows[name].account == "ib" and rows[name].currency == "usd"


async def test_orders_of_others_are_listed_and_cannot_be_touched() -> None:
    async with open_orders_venue() as venue, open_desk(venue) as desk:
        async with open_desk(venue, order_client_id=91) as other:
            await other.rest("o1")
        hand = venue.orders.by_hand("AAPL", "sell", Decimal(2), Decimal(900))
        await desk.rest("m1")
        rows = {row.broker_id: row for row in await desk.dialog.orders()}
        assert {row.reqid for row in rows.values()} == {"o1", "m1", ""}
        assert rows[str(hand.perm_id)].action == "sell"
        assert {row.symbol for row in rows.values()} == {AAPL}
        await desk.cancel("o1")
        assert "order_client_id = 91" in desk.errors("o1")[0].reason
        assert not venue.orders.of("o1")[0].ended


async def test_client_0_takes_hold_of_orders_made_by_hand() -> None:
    async with open_orders_venue() as venue:
        hand = venue.orders.by_hand("AAPL", "buy", Decimal(2), Decimal(10))
        async with open_desk(venue, order_client_id=0) as desk:
            (row,) = await desk.dialog.orders()
            assert row.broker_details["order_id"] == hand.order_id != 0
            await desk.dialog.cancel_all()
            assert await desk.dialog.orders() == []
            assert hand.word == "Cancelled"


async def test_all_orders_are_canceled_at_once() -> None:
    async with open_pair() as (venue, desk):
        for number in range(3):
            await desk.rest(f"n{number}")
        await desk.dialog.cancel_all()
        for number in range(3):
            await desk.until_status(f"n{number}", "canceled")
        assert await desk.dialog.orders() == []
        assert venue.statistics().requests["reqGlobalCancel"] == 1


# Accounts


async def test_of_several_accounts_one_must_be_named() -> None:
    async with open_orders_venue(accounts=TWO) as venue:
        with pytest.raises(ConfigError, match="DU1234567, DU7654321: name one"):
            async with open_trade_dialog("ib", config=settings(venue)):
                pass
        with pytest.raises(ConfigError, match="'U1' is none of this login"):
            async with open_trade_dialog("U1", config=settings(venue)):
                pass


async def test_two_accounts_share_a_connection_and_hear_their_own_alone() -> None:
    async with open_orders_venue(accounts=TWO) as venue:
        async with open_desk(venue, TWO[0]) as one, open_desk(venue, TWO[1]) as two:
            assert tuple(one.dialog.accounts) == TWO
            await one.place("one", size=1)
            await two.place("two", size=2)
            await one.until_status("one", "closed")
            await two.until_status("two", "closed")
            assert not one.fills("two") and not two.fills("one")
            (row,) = await two.dialog.positions()
            assert (row.size, row.account) == (2, TWO[1])
            assert venue.statistics().client_ids == (90,)
            await one.rest("r1")
            await two.rest("r2")
            assert [row.reqid for row in await one.dialog.orders()] == ["r1"]
            await one.dialog.cancel_all()
            await one.until_status("r1", "canceled")
            assert not venue.orders.of("r2")[0].ended


async def test_the_account_of_the_configuration_is_the_one_that_is_meant() -> None:
    async with open_orders_venue(accounts=TWO) as venue:
        config = settings(venue, account=TWO[1])
        async with open_trade_dialog("ib", config=config) as dialog:
            await dialog.submit(make_order("q1", Decimal(10)))
            assert (dialog.account, dialog.code) == ("ib", TWO[1])
            assert venue.orders.of("q1")[0].account == TWO[1]


# Connections


async def test_a_client_id_that_is_in_use_is_one_sentence() -> None:
    async with open_orders_venue() as venue:
        async with open_session(settings(venue), 90, Counter()):
            with pytest.raises(ConfigError, match="order_client_id 90 already"):
                async with open_trade_dialog("ib", config=settings(venue)):
                    pass


async def test_a_read_only_api_is_one_sentence() -> None:
    async with open_orders_venue() as venue:
        venue.orders.faults.read_only = True
        with pytest.raises(pk.ProviderError, match="untick Read-Only API"):
            async with open_trade_dialog("ib", config=settings(venue)):
                pass


async def test_an_api_that_becomes_read_only_refuses_with_the_same_sentence() -> None:
    async with open_pair() as (venue, desk):
        venue.orders.faults.read_only = True
        await desk.rest("v1")
        assert "untick Read-Only API" in desk.errors("v1")[0].reason
        assert desk.of(BrokerdStatus, "v1")[-1].status == "canceled"


@pytest.mark.parametrize("fault", ["swallow", "cut_before"])
async def test_an_order_that_was_not_taken_is_unknown_and_then_known_not_to_be(
    fault: str,
) -> None:
    async with open_pair() as (venue, desk):
        getattr(venue.orders.faults, fault)()
        with pytest.raises(OutcomeUnknown, match="do not send it again"):
            await desk.rest("z1")
        if fault == "cut_before":
            await desk.until_link(up=True, count=2)
        assert await desk.dialog.order("z1", AAPL) is None
        assert venue.orders.accepted["z1"] == 0
        await desk.cancel("z1")
        assert "no such open order" in desk.errors("z1")[0].reason


@pytest.mark.parametrize("fault", ["lose_answer", "cut_after"])
async def test_an_order_whose_answer_was_lost_is_unknown_and_then_found(
    fault: str,
) -> None:
    async with open_pair() as (venue, desk):
        getattr(venue.orders.faults, fault)()
        with pytest.raises(OutcomeUnknown):
            await desk.rest("z2")
        if fault == "cut_after":
            assert not (await desk.until_link(up=False)).up
            await desk.until_link(up=True, count=2)
        found = await desk.dialog.order("z2", AAPL)
        assert found is not None and found.status == "open"
        await desk.settle()
        assert desk.acks("z2") and venue.orders.accepted["z2"] == 1
        await desk.place("z2", price=found.price - 1)
        await desk.cancel("z2")
        await desk.until_status("z2", "canceled")
        assert venue.orders.accepted["z2"] == 1


async def test_an_order_that_filled_while_its_answer_was_lost_is_found_filled() -> None:
    async with open_pair() as (venue, desk):
        venue.orders.faults.cut_after()
        with pytest.raises(OutcomeUnknown):
            await desk.place("z3")
        await desk.until_link(up=True, count=2)
        found = await desk.dialog.order("z3", AAPL)
        assert found is not None and (found.status, found.filled) == ("closed", 5)
        assert found.avg_price == venue.orders.fills("z3")[0].price
        await desk.settle()
        assert {fill.size for fill in desk.fills("z3")} == {5}


async def test_what_was_filled_while_the_connection_was_lost_is_told_after_it() -> None:
    async with open_pair() as (venue, desk):
        order = await desk.rest("b1")
        venue.faults.cut()
        venue.orders.print_trade("AAPL", order.price, Decimal(50))
        await desk.until_link(up=True, count=2)
        await desk.until(lambda: desk.fills("b1"))
        found = await desk.dialog.order("b1", AAPL)
        assert found is not None and found.status == "closed"
        assert desk.dialog.statistics()["reconnects"] == 1


async def test_without_a_connection_nothing_is_sent_and_that_is_said() -> None:
    async with open_pair() as (venue, desk):
        venue.faults.restart(60.0)
        await desk.until_link(up=False)
        with pytest.raises(BrokerDown, match="not sent"):
            await desk.rest("n1")
        with pytest.raises(BrokerDown):
            await desk.cancel("n1")
        assert not venue.orders.accepted


@pytest.mark.parametrize("code", [1101, 1102])
async def test_ib_s_servers_that_are_lost_and_back_are_down_and_up(code: int) -> None:
    async with open_pair() as (venue, desk):
        order = await desk.rest("s1")
        venue.faults.connectivity(1100)
        down = await desk.until_link(up=False)
        assert "1100" in down.reason
        with pytest.raises(BrokerDown, match="IB's servers"):
            await desk.rest("s2")
        venue.orders.print_trade("AAPL", order.price, Decimal(50))
        await desk.until(lambda: desk.fills("s1"))  # heard all the same
        venue.faults.connectivity(code)
        await desk.until_link(up=True, count=2)
        await desk.rest("s2")
        assert desk.acks("s2")


async def test_a_dialog_that_opens_while_ib_is_lost_is_down_until_it_is_back() -> None:
    async with open_orders_venue() as venue:
        venue.faults.connectivity(1100)
        async with open_desk(venue) as desk:
            assert not (await desk.until_link(up=False)).up
            with pytest.raises(BrokerDown, match="not sent"):
                await desk.rest("a1")
            venue.faults.connectivity(1102)
            await desk.until_link(up=True)
            await desk.rest("a1")
            assert desk.acks("a1")


async def test_farms_that_are_lost_do_not_concern_orders() -> None:
    async with open_pair() as (venue, desk):
        for code in (2103, 2105, 2157):
            venue.faults.connectivity(code)
        await desk.rest("f1")
        assert desk.acks("f1") and len(desk.said) > 1
        assert not [row for row in desk.said if getattr(row, "up", True) is False]


async def test_a_new_process_finds_the_orders_of_the_old_one_and_changes_them() -> None:
    async with open_orders_venue() as venue:
        async with open_desk(venue) as old:
            await old.rest("a1")
            await old.place("a2")
            await old.rest("a3")
            await old.cancel("a3")
        await wait_until(lambda: not venue.statistics().connections)
        async with open_desk(venue) as new:
            one = await new.dialog.order("a1", AAPL)
            two = await new.dialog.order("a2", AAPL)
            three = await new.dialog.order("a3", AAPL)
            assert one is not None and one.status == "open"
            assert two is not None and (two.status, two.size) == ("closed", 5)
            assert three is not None and three.status == "canceled"
            await new.place("a1", price=one.price - 1)
            await new.rest("a4")
            (ticket,) = venue.orders.of("a1")
            assert ticket.order.price == one.price - 1
            numbers = [row.order_id for row in venue.orders.tickets]
            assert numbers == sorted(set(numbers))
            assert [row.reqid for row in await new.dialog.fills(0)] == ["a2"]


async def test_numbers_that_tws_begins_anew_do_not_hit_open_orders() -> None:
    async with open_orders_venue() as venue:
        async with open_desk(venue) as old:
            first = await old.rest("a1")
        await wait_until(lambda: not venue.statistics().connections)
        venue.orders.reset_ids()
        async with open_desk(venue) as new:
            await new.rest("a2", size=7)
            numbers = [row.order_id for row in venue.orders.tickets]
            assert numbers == [1, 2]
            assert venue.orders.of("a1")[0].order.size == first.size


async def test_after_the_daily_restart_only_what_is_open_is_known() -> None:
    async with open_orders_venue() as venue:
        async with open_desk(venue) as desk:
            await desk.place("d1")
            await desk.rest("d2", tif="day")
            await desk.rest("d3")
            venue.orders.end_day()
            await desk.until_status("d2", "canceled")
            venue.faults.restart(0.2)
            await desk.until_link(up=True, count=2)
            assert [row.reqid for row in await desk.dialog.orders()] == ["d3"]
            known = await desk.dialog.order("d1", AAPL)
            assert known is not None and known.status == "closed"  # remembered here
        await wait_until(lambda: not venue.statistics().connections)
        async with open_desk(venue) as fresh:
            assert await fresh.dialog.order("d1", AAPL) is None
            assert await fresh.dialog.fills(0) == []
            (row,) = await fresh.dialog.positions()
            assert row.size == 5


async def test_a_cancel_while_the_order_is_not_answered_ends_both() -> None:
    async with open_pair() as (venue, desk):
        venue.orders.faults.pending = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.rest, "q1")
            await desk.until(lambda: desk.of(BrokerdStatus, "q1"))
            assert desk.of(BrokerdStatus, "q1")[0].status == "pending"
            for _ in range(2):
                nursery.start_soon(desk.cancel, "q1")
        assert not desk.acks("q1")
        await desk.until_status("q1", "canceled")


async def test_an_order_that_tws_alone_has_is_no_unknown_one() -> None:
    async with open_pair(settings={"request_timeout_s": 0.3}) as (venue, desk):
        venue.orders.faults.pending = True
        await desk.rest("q1")
        found = await desk.dialog.order("q1", AAPL)
        assert found is not None and found.status == "pending"
        assert not desk.acks("q1")


async def test_many_orders_at_once_have_numbers_of_their_own() -> None:
    async with open_pair() as (venue, desk):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(desk.rest, f"x{number}")
        assert sorted(venue.orders.accepted.values()) == [1] * 20
        assert len({row.order_id for row in venue.orders.tickets}) == 20
        assert len({row.broker_id for row in await desk.dialog.orders()}) == 20


async def test_what_a_dialog_says_ends_with_it() -> None:
    async with open_orders_venue() as venue:
        async with open_trade_dialog("", config=settings(venue)) as dialog:
            assert dialog.account == "DU1234567"
        said = [message async for message in dialog]
        assert not isinstance(said[-1], BrokerdFill) and not said[-1].up  # type: ignore[union-attr]
