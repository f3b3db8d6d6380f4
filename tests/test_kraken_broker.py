"""Orders at a simulated Kraken over real sockets: their whole life, and the facts."""

from collections.abc import AsyncIterator
from decimal import Decimal as D

import pytest
import trio

from piker_core.broker import BrokerLink
from piker_core.config import Secret
from piker_core.errors import ConfigError, NotFound, ProviderError
from piker_core.orders import (
    BrokerdError,
    BrokerdFill,
    BrokerdOrderAck,
    BrokerdPosition,
    BrokerdStatus,
)
from providers.kraken.api import Config
from providers.kraken.broker import open_trade_dialog
from providers.kraken.venue import Venue
from tests.kraken_broker import (
    SYMBOL,
    V2,
    Trader,
    cancel,
    config_of,
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
    async with open_trader(venue) as opened:
        yield opened


async def test_the_link_is_up_and_the_position_told_at_the_start(
    trader: Trader,
) -> None:
    await trader.wait_link(True)
    position = await trader.wait_kind(BrokerdPosition)
    assert (position.symbol, position.size) == (SYMBOL, D(10))
    assert (position.broker, position.currency) == ("kraken", "usd")


async def test_an_order_is_acknowledged_open_filled_in_parts_and_closed(
    trader: Trader,
) -> None:
    await trader.dialog.submit(order("a1", size="0.03"))
    ack = await trader.wait_kind(BrokerdOrderAck)
    assert (ack.reqid, ack.oid) == ("a1", "oid-a1")
    opened = await trader.wait_status("a1", "open")
    assert (opened.filled, opened.remaining) == (D(0), D("0.03"))
    assert trader.print_trade("80000", "0.01") == D("0.01")
    assert trader.print_trade("79999.9", "5") == D("0.02")
    closed = await trader.wait_status("a1", "closed")
    assert (closed.filled, closed.remaining) == (D("0.03"), D(0))
    fills = list(trader.fills().values())
    assert [fill.size for fill in fills] == [D("0.01"), D("0.02")]
    truth = [each for _, each in trader.venue.orders.fills()]
    for fill, known in zip(fills, truth, strict=True):
        assert (fill.reqid, fill.action, fill.symbol) == ("a1", "buy", SYMBOL)
        assert (fill.price, fill.liquidity) == (D(80000), "maker")
        assert (fill.fee, fill.fee_currency) == (known.fee, "usd")
        assert fill.broker_time == known.time_ns // 1000 * 1000
    positions = [m.size for m in trader.heard if isinstance(m, BrokerdPosition)]
    assert positions == [D(10), D("10.01"), D("10.03")]


async def test_a_marketable_order_is_filled_at_once_as_a_taker(trader: Trader) -> None:
    await trader.dialog.submit(order("m1", price="90000", size="0.001"))
    await trader.wait_status("m1", "closed")
    (fill,) = trader.fills().values()
    assert fill.liquidity == "taker"
    assert fill.price < 90000


async def test_a_known_order_is_changed_in_place_with_its_whole_size(
    trader: Trader,
) -> None:
    await trader.dialog.submit(order("a1", size="0.02"))
    trader.print_trade("80000", "0.01")
    await trader.wait_kind(BrokerdFill)
    count = len(trader.heard)
    await trader.dialog.submit(order("a1", price="80001.5", size="0.05"))
    changed = await trader.wait(
        lambda m: isinstance(m, BrokerdStatus) and m.remaining == D("0.04"), after=count
    )
    assert (changed.status, changed.filled) == ("open", D("0.01"))
    (known,) = trader.venue.orders.of("a1")
    assert (known.price, known.size, known.amendments) == (D("80001.5"), D("0.05"), 1)
    assert trader.venue.orders.accepted("a1") == 1


async def test_an_order_of_an_earlier_dialog_is_known_and_changed(
    venue: Venue,
) -> None:
    async with open_trader(venue) as first:
        await first.dialog.submit(order("old1"))
    async with open_trader(venue) as second:
        told = await second.wait_status("old1", "open")
        assert told.remaining == D("0.01")
        await second.dialog.submit(order("old1", price="80002.0"))
        await second.dialog.cancel(cancel("old1"))
        await second.wait_status("old1", "canceled")
    async with open_trader(venue) as third:  # which has never heard of it
        found = await third.dialog.order("old1", SYMBOL)
        assert found is not None
        assert (found.status, found.reason) == ("canceled", "User requested")
    assert venue.orders.accepted("old1") == 1
    assert venue.orders.of("old1")[0].price == D("80002.0")


async def test_a_canceled_order_says_why(trader: Trader) -> None:
    await trader.dialog.submit(order("c1"))
    await trader.dialog.cancel(cancel("c1"))
    canceled = await trader.wait_status("c1", "canceled")
    assert canceled.reason == "User requested"
    assert trader.venue.orders.matching.open_orders() == []


async def test_the_cancel_of_a_filled_order_tells_that_it_is_closed(
    trader: Trader,
) -> None:
    await trader.dialog.submit(order("f1"))
    trader.print_trade("80000", "1")
    await trader.wait_status("f1", "closed")
    count = len(trader.heard)
    await trader.dialog.cancel(cancel("f1"))
    told = await trader.wait_kind(BrokerdStatus, after=count)
    assert (told.reqid, told.status) == ("f1", "closed")


async def test_the_cancel_of_an_order_that_there_is_not_is_refused(
    trader: Trader,
) -> None:
    await trader.dialog.cancel(cancel("nix"))
    error = await trader.wait_kind(BrokerdError)
    assert (error.reqid, error.oid) == ("nix", "oid-nix")
    assert "EOrder:Unknown order" in error.reason


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"price": "80000.05"}, "EOrder:Tick size check failed"),
        ({"size": "0.00001"}, "EOrder:Order minimum not met"),
        ({"size": "900"}, "EOrder:Insufficient funds"),
        ({"symbol": "nothing.kraken"}, "does not trade"),
        ({"tif": "day"}, "never close"),
        ({"reduce_only": True}, "reduce_only"),
        ({"post_only": True, "tif": "ioc"}, "post_only"),
    ],
)
async def test_a_refused_order_is_an_error_and_may_be_sent_again(
    trader: Trader, terms: dict[str, str], words: str
) -> None:
    await trader.dialog.submit(order("r1", **terms))
    error = await trader.wait_kind(BrokerdError)
    assert words in error.reason
    assert (error.reqid, error.oid) == ("r1", "oid-r1")
    assert trader.venue.orders.of("r1") == []
    await trader.dialog.submit(order("r1"))
    await trader.wait_status("r1", "open")


async def test_a_reqid_that_the_venue_cannot_have_is_refused_here(
    trader: Trader,
) -> None:
    await trader.dialog.submit(order("x" * 19))
    assert "1 to 18" in (await trader.wait_kind(BrokerdError)).reason


async def test_a_post_only_order_that_would_take_is_canceled(trader: Trader) -> None:
    await trader.dialog.submit(order("p1", price="90000", post_only=True))
    canceled = await trader.wait_status("p1", "canceled")
    assert canceled.reason == "Post only order"


async def test_immediate_orders_do_not_stand(trader: Trader) -> None:
    await trader.dialog.submit(order("i1", tif="ioc"))
    await trader.wait_status("i1", "canceled")
    await trader.dialog.submit(order("k1", price="90000", size="9", tif="fok"))
    canceled = await trader.wait_status("k1", "canceled")
    assert canceled.filled == 0


async def test_many_orders_go_in_one_request_and_are_canceled_in_one(
    trader: Trader,
) -> None:
    wanted = [order(f"b{n}") for n in range(20)]
    await trader.dialog.submit_many(wanted)
    for each in wanted:
        await trader.wait_status(str(each.reqid), "open")
    assert trader.dialog.statistics()["requests"] == 2
    assert trader.venue.orders.counter.count(V2) == pytest.approx(10, abs=0.5)
    trader.venue.orders.print_trade(V2, "80000", "0.01")  # b0 is gone by then
    await trader.dialog.cancel_many([cancel(str(each.reqid)) for each in wanted])
    for each in wanted[1:]:
        await trader.wait_status(str(each.reqid), "canceled")
    assert trader.dialog.statistics()["requests"] == 3


async def test_a_batch_that_is_refused_refuses_each_of_its_orders(
    trader: Trader,
) -> None:
    await trader.dialog.submit_many([order("b1"), order("b2", price="80000.01")])
    await trader.wait(lambda m: isinstance(m, BrokerdError) and m.reqid == "b2")
    errors = [m.reqid for m in trader.heard if isinstance(m, BrokerdError)]
    assert errors == ["b1", "b2"]
    assert trader.venue.orders.matching.orders == {}


async def test_all_orders_are_canceled_at_once(trader: Trader) -> None:
    for number in range(3):
        await trader.dialog.submit(order(f"c{number}"))
    await trader.dialog.cancel_all()
    for number in range(3):
        await trader.wait_status(f"c{number}", "canceled")


async def test_the_facts_are_those_of_the_venue(trader: Trader) -> None:
    await trader.dialog.submit(order("f1", size="0.02"))
    await trader.dialog.submit(order("f2", price="80001", size="0.01"))
    trader.print_trade("80000", "0.015")  # f2 first, then of f1 a half
    found = await trader.dialog.order("f1", SYMBOL)
    assert found is not None
    assert (found.reqid, found.status, found.filled) == ("f1", "open", D("0.005"))
    assert (found.price, found.avg_price) == (D(80000), D(80000))
    assert (found.symbol, found.size) == (SYMBOL, D("0.02"))
    closed = await trader.dialog.order("f2", SYMBOL)
    assert closed is not None
    assert (closed.status, closed.filled) == ("closed", D("0.01"))
    assert await trader.dialog.order("nix", SYMBOL) is None
    assert [each.reqid for each in await trader.dialog.orders()] == ["f1"]
    fills = await trader.dialog.fills(0)
    assert [(each.reqid, each.size) for each in fills] == [
        ("f2", D("0.01")),
        ("f1", D("0.005")),
    ]
    assert {each.fill_id for each in fills} == set(trader.fills())
    for fill in fills:
        streamed = trader.fills()[fill.fill_id]
        same = ("price", "size", "fee", "fee_currency", "liquidity", "broker_time")
        for name in (*same, "action", "symbol"):
            assert getattr(fill, name) == getattr(streamed, name), name
    assert [p.size for p in await trader.dialog.positions()] == [D("10.015")]


async def test_fills_are_read_page_by_page_since_a_time(trader: Trader) -> None:
    await trader.dialog.submit(order("p1", size="1"))
    for _ in range(130):
        trader.print_trade("80000", "0.001")
        await trio.lowlevel.checkpoint()
    truth = [each for _, each in trader.venue.orders.fills()]
    fills = await trader.dialog.fills(0)
    assert [each.size for each in fills] == [D("0.001")] * 130
    assert len({each.fill_id for each in fills}) == 130
    since_ns = truth[70].time_ns // 1000 * 1000
    later = await trader.dialog.fills(since_ns, SYMBOL)
    assert [each.broker_time >= since_ns for each in later] == [True] * len(later)
    assert len(later) == sum(each.time_ns >= since_ns for each in truth)
    assert await trader.dialog.fills(0, "ethusd.kraken") == []


async def test_orders_of_others_are_told_without_a_reqid(venue: Venue) -> None:
    matching = venue.orders.matching
    async with open_trader(venue) as trader:
        await trader.wait_link(True)
        matching.place(V2, "buy", size=D("0.01"), price=D(80000))
        told = await trader.wait_kind(BrokerdStatus)
        assert (told.reqid, told.status) == ("", "pending")
        (standing,) = await trader.dialog.orders()
        assert (standing.reqid, standing.broker_id) == ("", told.broker_id)


async def test_two_dialogs_of_one_key_work_side_by_side(venue: Venue) -> None:
    async with open_trader(venue) as one, open_trader(venue) as two:
        async with trio.open_nursery() as nursery:
            for trader, letter in ((one, "a"), (two, "b")):
                for number in range(5):
                    reqid = f"{letter}{number}"
                    nursery.start_soon(trader.dialog.submit, order(reqid))
                    nursery.start_soon(trader.dialog.orders)
        await one.wait_status("b4", "open")
        assert len(await two.dialog.orders()) == 10
    assert venue.private.bad_nonces == 0


async def test_the_dead_mans_switch_is_put_off_and_taken_away_at_the_end(
    venue: Venue,
) -> None:
    async with open_trader(venue, dead_man_s=2) as trader:
        await trader.dialog.submit(order("d1"))
        with trio.fail_after(5):
            while venue.orders.trigger_at == float("inf"):
                await trio.sleep(0.01)
        first = venue.orders.trigger_at
        with trio.fail_after(5):
            while venue.orders.trigger_at == first:
                await trio.sleep(0.01)
    assert venue.orders.trigger_at == float("inf")
    assert venue.orders.of("d1")[0].state == "open"


async def test_a_dead_man_has_his_orders_canceled(venue: Venue) -> None:
    async with open_trader(venue, dead_man_s=1, liveness_s=30.0) as trader:
        await trader.dialog.submit(order("d1"))
        with trio.fail_after(5):
            while venue.orders.trigger_at == float("inf"):
                await trio.sleep(0.01)
        venue.order_faults.half_open()
        venue.faults.refuse_connections()
        with trio.fail_after(10):
            while venue.orders.of("d1")[0].state == "open":
                await trio.sleep(0.01)


async def test_missing_keys_are_named_with_how_to_set_them(venue: Venue) -> None:
    config = config_of(venue, api_secret=Secret())
    with pytest.raises(ConfigError, match=r"api_secret missing.*PIKER_KRAKEN__API"):
        async with open_trade_dialog("kraken", config=config):
            pass


async def test_a_key_that_is_refused_is_a_provider_error(venue: Venue) -> None:
    config = config_of(venue, api_key=Secret("wrong"))
    with pytest.raises(ProviderError, match="EAPI:Invalid key"):
        async with open_trade_dialog("kraken", config=config):
            pass
    config = config_of(venue, api_secret=Secret("c2VjcmV0"))
    with pytest.raises(ProviderError, match="EAPI:Invalid signature"):
        async with open_trade_dialog("kraken", config=config):
            pass


async def test_a_venue_that_is_not_reached_is_a_provider_error(venue: Venue) -> None:
    config = config_of(venue, ws_auth_url="ws://127.0.0.1:9/v2", connect_timeout_s=0.5)
    with pytest.raises(ProviderError, match=r"within 0.5 s .*ws_auth_url"):
        async with open_trade_dialog("kraken", config=config):
            pass


async def test_an_address_that_is_none_is_named(venue: Venue) -> None:
    config = config_of(venue, ws_auth_url="http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="ws_auth_url"):
        async with open_trade_dialog("kraken", config=config):
            pass


async def test_a_market_that_there_is_not_is_not_found(venue: Venue) -> None:
    with pytest.raises(NotFound, match="nothing"):
        async with open_trade_dialog(
            "kraken", ["nothing.kraken"], config=config_of(venue)
        ):
            pass


async def test_the_dialog_ends_without_leaving_a_connection(venue: Venue) -> None:
    async with open_trader(venue) as trader:
        await trader.wait_link(True)
    with trio.fail_after(5):
        while venue._auth.links:
            await trio.sleep(0.01)


async def test_trading_by_the_markets_own_trades_adds_up() -> None:
    async with (
        open_quiet_venue(live_rate=200, pairs=["BTC/USD"]) as venue,
        open_trader(venue) as trader,
    ):
        best = venue.market("BTC/USD")
        for number in range(10):
            price = best.price(best.quote.ask) + 2 - number
            await trader.dialog.submit(order(f"t{number}", str(price), "0.02"))
        await trader.wait_kind(BrokerdFill)
        await trader.dialog.cancel_all()
        with trio.fail_after(10):
            while len(trader.fills()) < len(venue.orders.fills()):
                await trio.sleep(0.01)
        bought = sum((fill.size for fill in trader.fills().values()), D(0))
        assert venue.orders.matching.balances["BTC"] == 10 + bought


def test_the_configuration_has_the_limits_of_the_venue() -> None:
    config = Config()
    assert (config.private_rate, config.order_threshold) == (0.33, 0)
    assert not config.api_key
    assert BrokerLink(up=True).reason == ""
