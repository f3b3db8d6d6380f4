"""Orders at a simulated venue: what they take, when they are filled, what they cost."""

from decimal import Decimal as D

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piker_core.simulation.exchange import Exchange
from piker_core.simulation.listing import SIZE_DECIMALS, Listing
from piker_core.simulation.market import Market
from piker_core.simulation.matching import Matching, OrderEvent, OrderRefused

START_NS = 1_700_000_000 * 10**9
PAIR = Listing(
    symbol="AB",
    price_decimals=2,
    start_units=10000,
    typical_size=1.0,
    size_min="0.02",
    live_share=1.0,
    history_share=0.0,
    first_id=1000,
    tick_units=5,
    step_units=10**6,
)


class Place:
    """A venue of one pair whose clock is moved by hand."""

    def __init__(self, *, live_rate: float = 0.0, **options: object) -> None:
        self.now_ns = START_NS
        market = Market(
            PAIR,
            3,
            start_ns=START_NS,
            history_s=0,
            live_rate=live_rate,
            history_rate=0,
        )
        self.market = market
        self.exchange = Exchange([market], clock_ns=lambda: self.now_ns)
        self.events: list[OrderEvent] = []
        self.matching: Matching[Listing] = Matching(
            self.exchange,
            self.events.append,
            assets=lambda pair: (pair.symbol[0], pair.symbol[1]),
            balances={"A": D(1000), "B": D(100_000)},
            **options,  # type: ignore[arg-type]
        )
        self.exchange.advance()

    @property
    def bid(self) -> D:
        return self.market.price(self.market.quote.bid)

    @property
    def ask(self) -> D:
        return self.market.price(self.market.quote.ask)

    @property
    def ask_size(self) -> D:
        return D(self.market.quote.ask_size).scaleb(-SIZE_DECIMALS)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


def test_an_order_below_the_ask_rests_and_is_filled_at_its_price_by_trades() -> None:
    place = Place()
    order = place.matching.place("AB", "buy", size=D(2), price=D("90"), client_id="a")
    assert place.matching.print_trade("AB", D("90.05"), D(5)) == 0
    assert place.matching.print_trade("AB", D("89"), D("0.5")) == D("0.5")
    assert (order.state, order.remaining) == ("open", D("1.5"))
    assert place.matching.print_trade("AB", D("90"), D(5)) == D("1.5")
    assert place.kinds() == ["new", "fill", "fill", "filled"]
    assert [fill.price for fill in order.executions] == [D(90), D(90)]
    assert [fill.maker for fill in order.executions] == [True, True]


def test_a_marketable_order_takes_what_the_quote_shows_once() -> None:
    place = Place()
    shown, ask = place.ask_size, place.ask
    first = place.matching.place("AB", "buy", size=shown + 1, price=ask + 1)
    second = place.matching.place("AB", "buy", size=D(1), price=ask)
    assert (first.filled, first.executions[0].price) == (shown, ask)
    assert not first.executions[0].maker
    assert (first.remaining, second.filled) == (D(1), D(0))


def test_trades_fill_the_better_price_first_and_then_the_older_order() -> None:
    place = Place()
    orders = [
        place.matching.place("AB", "buy", size=D(1), price=D(price))
        for price in (90, 91, 91)
    ]
    place.matching.print_trade("AB", D(80), D("2.5"))
    assert [order.filled for order in orders] == [D("0.5"), D(1), D(1)]
    place = Place()
    orders = [
        place.matching.place("AB", "buy", size=D(1), price=D(91)) for _ in range(2)
    ]
    place.matching.amend(orders[0], price=D(91), size=D(2))  # it grows: to the end
    place.matching.print_trade("AB", D(91), D(1))
    assert [order.filled for order in orders] == [D(0), D(1)]


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"price": D("90.01")}, "tick"),
        ({"price": D(90), "size": D("1.001")}, "step"),
        ({"price": D("90"), "size": D("0.00")}, "size"),
        ({"price": D(90), "size": D("0.01")}, "minimum"),
        ({"price": D("0.05"), "size": D("0.02")}, "cost"),
        ({"price": D(-5)}, "price"),
        ({"price": D(90), "size": D(10**6)}, "funds"),
        ({"price": D(90), "symbol": "ZZ"}, "symbol"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason_and_changes_nothing(
    terms: dict[str, D], reason: str
) -> None:
    place = Place()
    with pytest.raises(OrderRefused) as refused:
        place.matching.place(**({"symbol": "AB", "side": "buy", "size": D(1)} | terms))  # type: ignore[arg-type]
    assert refused.value.reason == reason
    assert (place.events, place.matching.orders) == ([], {})


def test_open_orders_hold_what_they_may_cost() -> None:
    place = Place(maker_fee=D(0), taker_fee=D("0.01"))
    place.matching.place("AB", "buy", size=D(1000), price=D(90))
    assert place.matching.held("B") == D("90900")
    with pytest.raises(OrderRefused, match="funds"):
        place.matching.place("AB", "buy", size=D(110), price=D(90))
    place.matching.cancel(place.matching.open_orders()[0])
    assert place.matching.held("B") == 0
    place.matching.place("AB", "buy", size=D(1100), price=D(90))


def test_a_post_only_order_that_would_take_is_canceled() -> None:
    place = Place()
    order = place.matching.place(
        "AB", "buy", size=D(1), price=place.ask, post_only=True
    )
    assert (order.state, order.reason) == ("canceled", "Post only order")
    assert place.kinds() == ["new", "canceled"]


def test_what_an_immediate_order_cannot_take_expires() -> None:
    place = Place()
    shown = place.ask_size
    ioc = place.matching.place("AB", "buy", size=shown + 1, price=place.ask, tif="ioc")
    assert (ioc.state, ioc.filled) == ("expired", shown)
    fok = place.matching.place("AB", "buy", size=D(1), price=place.ask, tif="fok")
    assert (fok.state, fok.filled) == ("canceled", D(0))


def test_an_order_amended_below_what_is_filled_ends() -> None:
    place = Place()
    order = place.matching.place("AB", "buy", size=D(2), price=D(90))
    place.matching.print_trade("AB", D(90), D(1))
    place.matching.amend(order, size=D("0.5"))
    assert order.state == "canceled"
    with pytest.raises(OrderRefused, match="ended"):
        place.matching.cancel(order)


def test_the_markets_own_trades_fill_and_tell_their_ids() -> None:
    place = Place(live_rate=50)
    order = place.matching.place("AB", "buy", size=D(50), price=place.bid)
    place.now_ns += 60 * 10**9
    place.exchange.advance()
    ids = {trade.trade_id for trade in place.market.trades()}
    by_trades = [each for each in order.executions if each.trade_id >= 1000]
    assert by_trades
    assert {each.trade_id for each in by_trades} <= ids


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["place", "amend", "cancel", "print", "wait"]),
            st.booleans(),
            st.integers(1, 400),
            st.integers(1, 300),
        ),
        max_size=40,
    )
)
def test_no_size_is_lost_and_no_balance_goes_below_zero(
    steps: list[tuple[str, bool, int, int]],
) -> None:
    place = Place(live_rate=5)
    matching = place.matching
    for word, buy, ticks, lots in steps:
        price, size = D("90") + D(ticks) * PAIR.tick, D(lots) * PAIR.step
        standing = matching.open_orders()
        try:
            if word == "place":
                matching.place("AB", "buy" if buy else "sell", size=size, price=price)
            elif word == "amend" and standing:
                matching.amend(standing[lots % len(standing)], size=size, price=price)
            elif word == "cancel" and standing:
                matching.cancel(standing[lots % len(standing)])
            elif word == "print":
                assert matching.print_trade("AB", price, size) <= size
            else:
                place.now_ns += ticks * 10**7
        except OrderRefused:
            pass
        assert all(balance >= 0 for balance in matching.balances.values())
        assert matching.held("A") <= matching.balances["A"]
    fills = matching.executions()
    signed = sum((e.size if o.side == "buy" else -e.size for o, e in fills), D(0))
    paid = sum((e.cost if o.side == "buy" else -e.cost for o, e in fills), D(0))
    fees = sum((e.fee for _, e in fills), D(0))
    assert matching.balances["A"] == 1000 + signed
    assert matching.balances["B"] == 100_000 - paid - fees
    for order in matching.orders.values():
        assert order.filled <= order.size or order.state == "canceled"
        # an order that is made as small as what is filled of it is canceled
        assert order.remaining == 0 or order.state != "filled"
        assert order.remaining > 0 or order.state != "open"
