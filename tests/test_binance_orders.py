"""Orders at the simulated Binance over real sockets, on spot and on USD-M."""

from decimal import Decimal as D
from http import HTTPStatus

import msgspec
import pytest
import trio

import piker_core as pk
from piker_core.errors import BrokerDown
from piker_core.orders import BrokerdCancel, BrokerdPosition, BrokerdStatus
from providers.binance.broker import open_trade_dialog
from providers.binance.venue import open_venue
from providers.binance.venue_errors import NO_PERMISSION, Refused
from tests.binance_orders import (
    SPOT,
    USDM,
    Heard,
    make_config,
    open_dialog,
    open_orders,
)

both = pytest.mark.parametrize("name", [SPOT, USDM])


@both
async def test_an_order_is_taken_rests_and_is_canceled(name: str) -> None:
    async with open_orders(name) as heard:
        order = await heard.place("a1")
        ack = await heard.acked("a1")
        assert (ack.oid, ack.account) == ("mine a1", "binance")
        (known,) = heard.account.orders("a1")
        assert ack.broker_id == str(4_000_000_000 + known.number)
        status = await heard.status("a1", "open")
        assert (status.filled, status.remaining) == (0, D("0.01"))
        await heard.cancel(order)
        status = await heard.status("a1", "canceled")
        assert (status.filled, status.remaining) == (0, D("0.01"))
        assert known.state == "canceled" and heard.account.accepted["a1"] == 1


@both
async def test_an_order_that_takes_is_filled_at_once_with_its_fee(name: str) -> None:
    async with open_orders(name) as heard:
        await heard.place("t1", price=heard.price("-1000"), size=D("0.002"))
        (fill,) = (await heard.wait(lambda: heard.fills("t1"))).values()
        status = await heard.status("t1", "closed")
        (execution,) = heard.account.orders("t1")[0].executions
        assert (fill.size, fill.price) == (execution.size, execution.price)
        assert fill.fee == pytest.approx(execution.fee, abs=D("1e-8"))
        assert (fill.fee_currency, fill.liquidity) == ("usdt", "taker")
        assert (fill.action, fill.symbol) == ("buy", name)
        assert (status.filled, status.remaining) == (D("0.002"), 0)


@both
async def test_parts_of_a_resting_order_are_told_one_by_one(name: str) -> None:
    async with open_orders(name) as heard:
        order = await heard.place("p1")
        matching = heard.account.matching
        for size in ("0.003", "0.002"):
            matching.print_trade(heard.symbol, order.price, D(size))
        await heard.wait(lambda: heard.filled("p1") == D("0.005"))
        assert [f.size for f in heard.fills("p1").values()] == [D("0.003"), D("0.002")]
        assert {f.liquidity for f in heard.fills("p1").values()} == {"maker"}
        await heard.wait(lambda: (s := heard.last("p1")) and s.filled == D("0.005"))
        told = [s.filled for s in heard.of(BrokerdStatus, "p1") if s.filled]
        assert told == [D("0.003"), D("0.005")]
        matching.print_trade(heard.symbol, order.price, D(1))
        status = await heard.status("p1", "closed")
        assert (status.filled, status.remaining) == (D("0.01"), 0)


@both
async def test_an_update_changes_size_and_price_and_keeps_the_name(name: str) -> None:
    async with open_orders(name) as heard:
        order = await heard.place("u1")
        order = await heard.update(order, size=D("0.006"))
        await heard.acked("u1", 2)
        order = await heard.update(order, price=heard.price("50"), size=D("0.008"))
        await heard.acked("u1", 3)
        known = await heard.known("u1")
        assert known and known.status == "open"
        assert (known.size, known.price) == (D("0.008"), heard.price("50"))
        assert [each.reqid for each in await heard.dialog.orders()] == ["u1"]
        assert len(heard.account.matching.open_orders()) == 1
        assert not [s for s in heard.of(BrokerdStatus, "u1") if s.status != "open"]
        await heard.cancel(order)
        await heard.status("u1", "canceled")
        assert heard.account.matching.open_orders() == []


@both
async def test_what_was_filled_before_an_update_counts_after_it(name: str) -> None:
    async with open_orders(name) as heard:
        order = await heard.place("f1")
        matching = heard.account.matching
        matching.print_trade(heard.symbol, order.price, D("0.003"))
        await heard.wait(lambda: heard.filled("f1"))
        order = await heard.update(order, price=heard.price("50"), size=D("0.012"))
        await heard.acked("f1", 2)
        known = await heard.known("f1")
        assert known and (known.size, known.filled) == (D("0.012"), D("0.003"))
        matching.print_trade(heard.symbol, order.price, D("0.004"))
        await heard.wait(lambda: heard.filled("f1") == D("0.007"))
        status = await heard.wait(
            lambda: [s for s in heard.of(BrokerdStatus, "f1") if s.filled == D("0.007")]
        )
        assert status[-1].remaining == D("0.005")
        matching.print_trade(heard.symbol, order.price, D(1))
        status = [await heard.status("f1", "closed")]
        assert (status[0].filled, status[0].remaining) == (D("0.012"), 0)
        assert sum(f.size for f in await heard.dialog.fills(0, name)) == D("0.012")


REFUSED = {
    "too dear": ({"size": D(500)}, "insufficient balance", "Margin is insufficient"),
    "off the tick": ({"price": D("50000.001")}, "PRICE_FILTER", "tick size"),
    "off the step": ({"size": D("0.0100001")}, "LOT_SIZE", "Precision"),
    "too small": ({"size": D("0.00001")}, "NOTIONAL", "Precision|Quantity"),
    "too cheap": ({"price": D(100)}, "NOTIONAL", "notional"),
    "for the day": ({"tif": "day"}, "for the day", "for the day"),
    "makes and takes": ({"post_only": True, "tif": "ioc"}, "stands", "stands"),
    "nowhere": ({"symbol": "xyz.binance"}, "no market", "no market"),
}


@both
@pytest.mark.parametrize("case", REFUSED)
async def test_a_refused_order_is_told_with_the_reason(name: str, case: str) -> None:
    terms, *reasons = REFUSED[case]
    if name == USDM and "symbol" in terms:
        terms = {"symbol": "xyz.usdtm.perp.binance"}
    async with open_orders(name) as heard:
        await heard.place("r1", **terms)
        error = await heard.error("r1")
        assert error.oid == "mine r1"
        with pytest.raises(AssertionError):
            assert heard.account.orders("r1")
        assert any(word in error.reason for word in reasons[name == USDM].split("|"))


@both
async def test_a_post_only_order_that_would_take_is_refused(name: str) -> None:
    async with open_orders(name) as heard:
        await heard.place("m1", price=heard.price("-1000"), post_only=True)
        error = await heard.error("m1")
        assert "immediately match" in error.reason or "as maker" in error.reason
        await heard.place("m2", post_only=True)
        await heard.status("m2", "open")
        assert heard.account.orders("m2")[0].post_only


@both
@pytest.mark.parametrize("tif", ["ioc", "fok"])
async def test_what_does_not_stand_expires(name: str, tif: str) -> None:
    async with open_orders(name) as heard:
        await heard.place("i1", tif=tif)
        status = await heard.status("i1", "canceled")
        assert "expired" in status.reason


@both
async def test_an_unknown_order_is_none_and_its_cancel_is_refused(name: str) -> None:
    async with open_orders(name) as heard:
        assert await heard.known("nobody") is None
        ghost = BrokerdCancel(
            oid="x", time_ns=0, account="binance", reqid="nobody", symbol=name
        )
        await heard.dialog.cancel(ghost)
        assert "Unknown order" in (await heard.error("nobody")).reason
        with pytest.raises(BrokerDown, match="name its market"):
            await heard.dialog.cancel(msgspec.structs.replace(ghost, symbol=""))


@both
async def test_an_update_to_what_is_so_already_is_acknowledged(name: str) -> None:
    async with open_orders(name) as heard:
        order = await heard.place("e1")
        await heard.update(order)
        await heard.acked("e1", 2)
        assert heard.account.counted == 1


@both
async def test_an_update_below_what_is_filled_is_refused(name: str) -> None:
    async with open_orders(name) as heard:
        order = await heard.place("b1")
        heard.account.matching.print_trade(heard.symbol, order.price, D("0.004"))
        await heard.wait(lambda: heard.filled("b1"))
        await heard.update(order, size=D("0.003"))
        assert "no more than what is filled" in (await heard.error("b1")).reason
        known = await heard.known("b1")
        assert known and (known.status, known.size) == ("open", D("0.01"))


async def test_a_smaller_size_keeps_the_place_in_the_queue_and_another_price_not() -> (
    None
):
    async with open_orders(SPOT) as heard:
        order = await heard.place("k1")
        order = await heard.update(order, size=D("0.005"))
        await heard.acked("k1", 2)
        (first,) = heard.account.orders("k1")
        assert first.amendments == 1 and heard.account.accepted == {"k1": 1}
        await heard.update(order, price=heard.price("20"))
        await heard.acked("k1", 3)
        assert heard.account.accepted == {"k1": 1, "k1-1": 1}
        assert first.state == "canceled"


async def test_a_replacement_that_finds_the_old_order_filled_does_nothing() -> None:
    async with open_orders(SPOT) as heard:
        heard.venue.faults.drop_reports(1.0)
        order = await heard.place("z1")
        heard.account.matching.print_trade(heard.symbol, order.price, D("0.004"))
        await heard.update(order, price=heard.price("50"))
        assert "cancel restrictions" in (await heard.error("z1")).reason
        (only,) = heard.account.matching.open_orders()
        assert heard.account.accepted == {"z1": 1} and only.filled == D("0.004")


async def test_a_leg_is_cut_by_what_the_one_before_it_filled_in_between() -> None:
    async with open_orders(SPOT) as heard:
        order = await heard.place("y1")
        matching = heard.account.matching
        matching.print_trade(heard.symbol, order.price, D("0.002"))
        await heard.wait(lambda: heard.filled("y1"))
        heard.venue.faults.drop_reports(1.0)
        matching.print_trade(heard.symbol, order.price, D("0.003"))
        await heard.update(order, price=heard.price("50"))
        known = await heard.known("y1")
        assert known and (known.size, known.filled) == (D("0.01"), D("0.005"))
        (leg,) = matching.open_orders()
        assert leg.size == D("0.005")


async def test_a_replacement_whose_new_order_is_refused_ends_the_order() -> None:
    async with open_orders(SPOT) as heard:
        order = await heard.place("w1")
        heard.venue.faults.refuse_replacements(1)
        await heard.update(order, price=heard.price("50"))
        assert "insufficient balance" in (await heard.error("w1")).reason
        status = await heard.status("w1", "canceled")
        assert "made room" in status.reason
        known = await heard.known("w1")
        assert known and known.status == "canceled"


async def test_positions_of_contracts_are_told_and_reduced() -> None:
    async with open_orders(USDM) as heard:
        await heard.place("l1", price=heard.price("-1000"), size=D("0.02"))
        await heard.wait(lambda: heard.of(BrokerdPosition))
        (position,) = await heard.dialog.positions()
        bought = heard.account.orders("l1")[0]
        assert (position.symbol, position.size) == (USDM, bought.filled)
        assert position.avg_price == pytest.approx(bought.cost / bought.filled)
        assert heard.of(BrokerdPosition)[-1] == position
        sell = {"action": "sell", "reduce_only": True, "price": heard.price("1000")}
        await heard.place("l2", size=D("0.5"), **sell)
        assert "ReduceOnly" in (await heard.error("l2")).reason
        await heard.place("l3", size=bought.filled, **sell)
        await heard.status("l3", "closed")
        await heard.wait(lambda: heard.of(BrokerdPosition)[-1].size == 0)


async def test_positions_of_spot_are_balances_of_the_base() -> None:
    async with open_orders(SPOT) as heard:
        await heard.place("s1", price=heard.price("-1000"), size=D("0.02"))
        await heard.status("s1", "closed")
        await heard.wait(lambda: heard.of(BrokerdPosition))
        (position,) = await heard.dialog.positions()
        assert (position.symbol, position.size) == (SPOT, D("10.02"))
        assert heard.of(BrokerdPosition)[-1].size == D("10.02")
        await heard.place("s2", reduce_only=True)
        assert "reduce_only" in (await heard.error("s2")).reason


@both
async def test_all_orders_are_canceled_at_once(name: str) -> None:
    async with open_orders(name) as heard:
        for number in range(3):
            await heard.place(f"c{number}")
        await heard.dialog.cancel_all()
        for number in range(3):
            await heard.status(f"c{number}", "canceled")
        assert await heard.dialog.orders() == []
        await heard.dialog.cancel_all()


@both
async def test_another_dialog_knows_orders_legs_and_fills_of_the_one_before(
    name: str,
) -> None:
    async with open_orders(name) as heard:
        order = await heard.place("n1")
        matching = heard.account.matching
        matching.print_trade(heard.symbol, order.price, D("0.002"))
        await heard.wait(lambda: heard.filled("n1"))
        order = await heard.update(order, price=heard.price("50"))
        await heard.acked("n1", 2)
        async with open_dialog(heard.venue, name) as other:
            (known,) = await other.dialog.orders()
            assert (known.reqid, known.filled) == ("n1", D("0.002"))
            assert known.size == D("0.01")
            matching.print_trade(heard.symbol, order.price, D("0.003"))
            fill = await other.wait(lambda: other.fills("n1"))
            assert [each.size for each in fill.values()] == [D("0.003")]
            last = await other.wait(lambda: other.last("n1"))
            assert last and (last.filled, last.remaining) == (D("0.005"), D("0.005"))
            fills = await other.dialog.fills(0, name)
            assert [(f.reqid, f.size) for f in fills] == [
                ("n1", D("0.002")),
                ("n1", D("0.003")),
            ]
            await other.update(order, price=heard.price("20"))
            await other.acked("n1")
            await other.cancel(order)
            await other.status("n1", "canceled")
        assert matching.open_orders() == []


async def test_orders_of_others_are_told_under_their_own_names() -> None:
    async with open_orders(SPOT) as heard:
        matching = heard.account.matching
        for client_id in ("web_1x9", "x-99999"):
            matching.place(
                "BTCUSDT", "buy", size=D(1), price=D(20000), client_id=client_id
            )
        orders = await heard.dialog.orders()
        assert [each.reqid for each in orders] == ["web_1x9", "x"]
        assert orders[1].broker_details == {"client_order_id": "x-99999"}
        await heard.wait(lambda: heard.of(BrokerdStatus, "web_1x9"))


async def test_both_sides_are_served_where_no_market_is_named() -> None:
    async with open_orders(SPOT) as heard:
        config = make_config(heard.venue)
        async with open_trade_dialog("binance", config=config) as dialog:
            assert dialog.account == "binance" and list(dialog.accounts) == ["binance"]
            assert await dialog.orders() == []


async def test_keys_that_are_missing_or_refused_are_an_error_that_says_so() -> None:
    async with open_orders(SPOT) as heard:
        bare = make_config(heard.venue, api_key=pk.config.Secret())
        with pytest.raises(pk.ConfigError, match=r"need api_key.*\[binance\]"):
            async with open_trade_dialog("binance", config=bare):
                raise AssertionError("it opened")
        wrong = make_config(heard.venue, api_key=pk.config.Secret("other"))
        for symbols in ([], [SPOT]):
            with pytest.raises(pk.ProviderError, match=r"refuses the api_key"):
                async with open_trade_dialog("binance", symbols, config=wrong):
                    raise AssertionError("it opened")


@pytest.mark.parametrize("symbols", [[], [SPOT]])
async def test_a_key_that_may_trade_spot_alone_serves_spot(
    symbols: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(method: str) -> object:
        raise Refused(*NO_PERMISSION, HTTPStatus.UNAUTHORIZED)

    async with open_venue(seed=5, live_rate=0, history_s=60) as venue:
        monkeypatch.setattr(venue.usdm.account, "key_method", refuse)
        config = make_config(venue)
        async with open_trade_dialog("binance", symbols, config=config) as dialog:
            with trio.fail_after(10):
                while len(await dialog.positions()) != len(symbols):
                    await trio.sleep(0.01)
            heard = Heard(dialog, venue, SPOT)  # type: ignore[arg-type]
            await heard.place("s1")
            assert heard.account.accepted["s1"] == 1
            with pytest.raises(BrokerDown, match="USD-M refuses the api_key"):
                await heard.place("s2", symbol=USDM)
        with pytest.raises(pk.ProviderError, match="USD-M refuses the api_key"):
            async with open_trade_dialog("binance", [USDM], config=config):
                raise AssertionError("it opened")


async def test_a_venue_that_is_not_reached_is_an_error() -> None:
    async with open_orders(SPOT) as heard:
        nowhere = {"ws_api_url": "ws://127.0.0.1:9", "connect_timeout_s": 0.5}
        config = make_config(heard.venue, **nowhere)
        with pytest.raises(pk.ProviderError, match="connect_timeout_s"):
            async with open_trade_dialog("binance", [SPOT], config=config):
                raise AssertionError("it opened")


async def test_iteration_ends_with_the_dialog() -> None:
    async with open_orders(SPOT) as heard:
        config = make_config(heard.venue)
        async with trio.open_nursery() as nursery:
            async with open_trade_dialog("binance", [SPOT], config=config) as dialog:
                other = Heard(dialog, heard.venue, SPOT)  # type: ignore[arg-type]
                nursery.start_soon(other.listen)
        assert other.links() and all(other.links())
