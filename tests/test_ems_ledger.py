"""The ledger: exact sums of what counts, whatever order and repeats it came with."""

import csv
import io
import sqlite3
from collections.abc import Iterable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piker_core.ems import ledger_rows
from piker_core.ems.holding import Holding
from piker_core.ems.ledger import DAY_NS, Ledger, Mark, Terms, differences
from piker_core.ems.ledger_rows import (
    catch_up,
    export_csv,
    holdings,
    open_ledger,
    record,
    reload,
    save_marks,
    save_terms,
    transactions,
)
from piker_core.errors import OrderError
from piker_core.orders import BrokerdPosition, Transaction

XBT, ETH = "xbtusd.kraken", "ethusd.kraken"
TODAY = 20_000 * DAY_NS
NOW = TODAY + DAY_NS // 2
HOUR = DAY_NS // 24
NEAR = Fraction(1, 10**20)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    opened = new_database()
    yield opened
    opened.close()


def new_database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(ledger_rows.SCHEMA)
    return connection


def fill(tid: str, size: Any, price: Any = 100, **more: Any) -> Transaction:
    fields = {"kind": "fill", "time_ns": NOW, "symbol": XBT} | more
    return Transaction(tid=tid, size=Decimal(size), price=Decimal(price), **fields)


def put(connection: sqlite3.Connection, *lines: Transaction) -> list[str]:
    """Record them; the ids of those that were new."""
    return [line.tid for line in record(connection, "kraken", "paper", lines)]


def opened(connection: sqlite3.Connection, now_ns: int = NOW) -> Ledger:
    return open_ledger(connection, "kraken", "paper", now_ns)


# -- the model: what counts, in fractions ----------------------------------------------


class Model:
    """A ledger in a few lines: all versions kept, everything counted each time."""

    def __init__(self) -> None:
        self.first: dict[tuple[str, str], int] = {}
        self.newest: dict[tuple[str, str], Transaction] = {}

    def record(self, line: Transaction) -> bool:
        key = (line.symbol, line.tid)
        known = self.newest.get(key)
        if known is not None and rank(line) <= rank(known):
            return False
        self.first.setdefault(key, len(self.first))
        self.newest[key] = line
        return True

    def lines(self, symbol: str, end_ns: int = 1 << 63) -> list[Transaction]:
        found = [
            (line.time_ns, self.first[key], line)
            for key, line in self.newest.items()
            if key[0] == symbol and line.time_ns < end_ns
        ]
        return [line for _, _, line in sorted(found, key=lambda place: place[:2])]


def rank(line: Transaction) -> tuple[int, bool]:
    return line.revision, line.fee != 0 or line.fee_currency != ""


class Sum:
    """Size, average, profit and money spent, in fractions."""

    def __init__(self, lines: Iterable[Transaction]) -> None:
        self.size = self.average = self.realised = self.spent = Fraction(0)
        self.fees = Fraction(0)
        for line in lines:
            self.fees += Fraction(line.fee)
            change, price = Fraction(line.size), Fraction(line.price)
            if line.kind == "split":
                self.size *= change
                self.average = self.average / change if self.size else Fraction(0)
            elif line.kind == "fill":
                self.trade(change, price)
            elif line.kind == "transfer":
                self.trade(change, price or self.average)

    def trade(self, change: Fraction, price: Fraction) -> None:
        self.spent += change * price
        size = self.size + change
        if self.size * change < 0:
            closed = min(abs(change), abs(self.size))
            sign = 1 if self.size > 0 else -1
            self.realised += sign * closed * (price - self.average)
            if abs(change) > abs(self.size):
                self.average = price
        elif size:
            self.average = (self.average * self.size + price * change) / size
        self.size = size
        if not size:
            self.average = Fraction(0)


def check(holding: Holding, model: Sum) -> None:
    assert Fraction(holding.size) == model.size
    assert abs(Fraction(holding.avg_price) - model.average) < NEAR
    assert abs(Fraction(holding.realised) - model.realised) < NEAR
    assert sum(map(Fraction, holding.fees.values())) == model.fees
    assert model.size or holding.avg_price == 0


# -- any order of messages -------------------------------------------------------------

sizes = st.decimals("-10", 10, places=8)
prices = st.decimals("0.0001", "100000", places=5)
kinds = st.sampled_from(["fill"] * 6 + ["fee", "transfer", "split"])


@st.composite
def lines(draw: st.DrawFn) -> Transaction:
    """Versions of a few transactions, which may differ in all and by hours in time."""
    kind = draw(kinds)
    size = draw(st.sampled_from(["2", "3", "0.5", "0.1"]).map(Decimal))
    tid = draw(st.integers(0, 30))
    return Transaction(
        kind=kind,
        tid=str(tid),
        time_ns=TODAY + (draw(st.integers(0, 11)) + 8 * (tid % 12) - 84) * HOUR,
        symbol=draw(st.sampled_from([XBT, XBT, ETH])),
        size=size if kind == "split" else draw(sizes),
        price=draw(
            st.one_of(st.just(Decimal(0)), prices) if kind[0] == "t" else prices
        ),
        fee=draw(st.sampled_from(["0", "0", "0.01", "-0.002"]).map(Decimal)),
        fee_currency=draw(st.sampled_from(["", "usd"])),
        revision=draw(st.sampled_from([0, 0, 0, 1, 2])),
    )


@settings(deadline=None)
@given(st.lists(lines(), max_size=60), st.integers(1, 9), st.integers(0, 60))
def test_whatever_comes_in_whatever_order_is_counted_as_by_fractions(
    given_lines: list[Transaction], every: int, reopened: int
) -> None:
    connection, model = new_database(), Model()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_rows, "EVERY", every)
        patch.setattr(ledger_rows, "_MOST", 7)
        ledger = opened(connection)
        for count, line in enumerate(given_lines):
            if count == reopened:
                ledger = opened(connection)
            is_new = model.record(line)
            assert put(connection, line) == [line.tid] * is_new
            assert line in ledger.apply([line]) or not is_new
            assert reload(connection, ledger, NOW) is not None
        kept = ledger.holdings()
        for symbol, holding in holdings(connection).items():
            check(holding, Sum(model.lines(symbol)))
            assert kept[symbol] == holding
            assert list(transactions(connection, symbol=symbol)) == model.lines(symbol)
        check_sums(connection, model)
    connection.close()


def check_sums(connection: sqlite3.Connection, model: Model) -> None:
    """Every sum that is kept is that of all the rows up to its place."""
    query = "SELECT symbol, time_ns, first, holding FROM sums"
    for symbol, time_ns, first, text in connection.execute(query):
        firsts = "SELECT min(seq) FROM transactions WHERE symbol = ? AND tid = ?"
        counted = [
            line
            for line in model.lines(symbol)
            if (
                line.time_ns,
                *connection.execute(firsts, [symbol, line.tid]).fetchone(),
            )
            <= (time_ns, first)
        ]
        check(msgspec.json.decode(text, type=Holding), Sum(counted))


@settings(deadline=None)
@given(st.lists(lines(), max_size=40), prices, prices)
def test_the_day_s_profit_is_what_all_is_worth_now_less_what_it_was_at_midnight(
    given_lines: list[Transaction], opening: Decimal, price: Decimal
) -> None:
    model = Model()
    ledger = Ledger("kraken", "paper")
    for symbol in (XBT, ETH):
        ledger.describe(symbol, Terms("usd", symbol[:3], Decimal(5)))
    ledger.day_profits(lambda _: opening, TODAY)
    ledger.load_marks([Mark(TODAY // DAY_NS, symbol, opening) for symbol in (XBT, ETH)])
    for line in given_lines:
        if line.kind == "transfer" and not line.price:
            continue
        model.record(line)
        ledger.apply([line])
    expected = Fraction(0)
    for symbol in (XBT, ETH):
        now, then = (Sum(model.lines(symbol, end)) for end in (1 << 63, TODAY))
        worth = now.size * Fraction(price) - now.spent
        worth -= then.size * Fraction(opening) - then.spent
        expected += 5 * worth - (now.fees - then.fees)
    profit = ledger.day_profit(lambda _: price, NOW, XBT)
    assert abs(Fraction(profit) - expected) < NEAR


def test_averages_do_not_drift_over_many_fills_that_never_divide_evenly() -> None:
    holding, model = Holding(), []
    for count in range(3000):
        line = fill(str(count), [3, -1, "0.7", -2, "-0.6"][count % 5], 100 + count % 7)
        holding.apply(line)
        model.append(line)
    check(holding, Sum(model))


# -- positions -------------------------------------------------------------------------


def held(*steps: tuple[Any, Any]) -> Holding:
    holding = Holding()
    for count, (size, price) in enumerate(steps):
        holding.apply(fill(str(count), size, price))
    return holding


@pytest.mark.parametrize(
    ("steps", "size", "average", "realised"),
    [
        ([(1, 100), (1, 110)], 2, 105, 0),
        ([(2, 100), (-1, 110)], 1, 100, 10),
        ([(1, 100), (-3, 90)], -2, 90, -10),
        ([(-1, 100), (3, 90)], 2, 90, 10),
        ([(-1, 100), (-1, 110), (1, 90)], -1, 105, 15),
        ([(1, 100), (-1, 101)], 0, 0, 1),
        ([(1, 100), (-1, 101), (2, 50)], 2, 50, 1),
        ([(0, 100)], 0, 0, 0),
    ],
)
def test_a_position_is_of_average_cost(
    steps: list[tuple[int, int]], size: int, average: int, realised: int
) -> None:
    holding = held(*steps)
    assert holding.size == size
    assert (holding.avg_price, holding.realised) == (average, realised)


def test_numbers_of_more_digits_than_arithmetic_has_by_default_stay_exact() -> None:
    size = Decimal("123456789.1234567890123456789012345678")
    holding = held(
        (size, 3), (size, 3), (size.copy_negate(), 5), (size.copy_negate(), 4)
    )
    assert holding.size == 0
    assert holding.realised == 3 * Fraction(size)


def test_what_a_position_message_says_is_a_number_of_a_message() -> None:
    ledger = Ledger("kraken", "paper")
    ledger.describe(XBT, Terms("usd"))
    ledger.apply([fill("a", 1, "0.1"), fill("b", 2, "0.2")])
    ledger.apply([fill("c", 1, "1e-20", symbol=ETH), fill("d", 2, "2e-20", symbol=ETH)])
    position = ledger.position(XBT)
    assert (position.broker, position.account) == ("kraken", "paper")
    assert (position.size, position.currency) == (3, "usd")
    assert position.avg_price == Decimal("0.1666666666666666666666666667")
    assert ledger.position(ETH).avg_price == Decimal("1.66666666666666666667e-20")
    assert [one.symbol for one in ledger.positions()] == [ETH, XBT]
    assert ledger.position("none.kraken").size == ledger.size("none.kraken") == 0


def test_a_split_leaves_what_was_paid_and_a_fee_apart_is_no_trade() -> None:
    holding = held((3, 90))
    holding.apply(fill("split", "0.5", kind="split"))
    assert (holding.size, holding.avg_price) == (Decimal("1.5"), 180)
    fee = {"kind": "fee", "fee": Decimal("0.5"), "fee_currency": "usd"}
    holding.apply(fill("fee", 7, 8, **fee))
    assert (holding.size, holding.realised) == (Decimal("1.5"), 0)
    assert holding.fees == {"usd": Decimal("0.5")}


def test_a_transfer_without_a_price_goes_at_the_average_and_realises_nothing() -> None:
    holding = held((2, 100))
    holding.apply(fill("out", -1, 0, kind="transfer"))
    holding.apply(fill("in", 3, 0, kind="transfer"))
    assert (holding.size, holding.avg_price, holding.realised) == (4, 100, 0)
    holding.apply(fill("sold", -1, 130, kind="transfer"))
    assert (holding.size, holding.realised) == (3, 30)


# -- versions --------------------------------------------------------------------------


def test_a_repeat_is_not_recorded_again_whatever_else_it_says(
    connection: sqlite3.Connection,
) -> None:
    assert put(connection, fill("a", 1), fill("a", 1), fill("b", 2)) == ["a", "b"]
    assert put(connection, fill("a", 5), fill("b", 2, 999)) == []
    assert holdings(connection)[XBT].size == 3


def test_ids_are_of_a_market_so_that_another_market_may_have_the_same(
    connection: sqlite3.Connection,
) -> None:
    assert put(connection, fill("1", 1), fill("1", 2, symbol=ETH)) == ["1", "1"]
    assert {key: one.size for key, one in holdings(connection).items()} == {
        XBT: 1,
        ETH: 2,
    }


def test_a_correction_counts_instead_and_what_it_corrects_stays_on_record(
    connection: sqlite3.Connection,
) -> None:
    put(connection, fill("a", 1, 100), fill("b", 1, 120))
    assert put(connection, fill("a", 3, 100, revision=2)) == ["a"]
    assert put(connection, fill("a", 9, 100, revision=1)) == []
    holding = holdings(connection)[XBT]
    assert (holding.size, holding.avg_price) == (4, 105)
    rows = connection.execute("SELECT tid, size, revision FROM transactions").fetchall()
    assert rows == [("a", "1", 0), ("b", "1", 0), ("a", "3", 2)]


def test_a_fee_that_is_told_later_completes_a_fill_once(
    connection: sqlite3.Connection,
) -> None:
    paid = {"fee": Decimal("0.4"), "fee_currency": "usd"}
    ledger = opened(connection)
    for line, is_new in (
        (fill("a", 1), True),
        (fill("a", 1, **paid), True),
        (fill("a", 1, **paid), False),
        (fill("a", 1), False),
        (fill("b", 1, fee_currency="usd"), True),
        (fill("b", 1, **paid), False),
    ):
        assert bool(put(connection, line)) == bool(ledger.apply([line])) == is_new
    holding = holdings(connection)[XBT]
    assert (holding.size, holding.fees, holding.count) == (
        2,
        {"usd": Decimal("0.4")},
        2,
    )
    assert ledger.holdings()[XBT] == holding


def test_rows_are_only_ever_appended(connection: sqlite3.Connection) -> None:
    changed: list[str] = []
    connection.set_trace_callback(changed.append)
    for revision in range(3):
        put(connection, *(fill(str(tid), 1, revision=revision) for tid in range(400)))
    words = ("UPDATE", "DELETE FROM transactions", "REPLACE INTO transactions")
    assert [text for text in changed if any(word in text for word in words)] == []


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (fill("", 1), "must have the venue's id"),
        (fill("s", 0, kind="split"), "a unit becomes more than 0, not 0"),
        (fill("s", -1, kind="split"), "a unit becomes more than 0"),
        (fill("t", 1, time_ns=1 << 63), "time_ns"),
        (fill("t", 1, time_ns=-1), "time_ns"),
        (fill("r", 1, revision=-1), "revision -1"),
    ],
)
def test_what_cannot_be_a_transaction_is_refused_and_nothing_is_written(
    connection: sqlite3.Connection, line: Transaction, text: str
) -> None:
    with pytest.raises(OrderError, match=text):
        put(connection, fill("good", 1), line)
    assert holdings(connection) == {}
    ledger = Ledger("kraken", "paper")
    assert ledger.apply([line, fill("good", 1)]) == [fill("good", 1)]
    assert (ledger.refused, ledger.size(XBT)) == (1, 1)


# -- late ones, sums, many -------------------------------------------------------------


def test_what_is_older_than_the_ledger_keeps_is_read_again_and_not_guessed(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_rows, "EVERY", 4)
    old = [fill(f"o{n}", 1, 100, time_ns=TODAY - 5 * DAY_NS + n) for n in range(4)]
    put(connection, *old, fill("new", 1, 200))
    ledger = opened(connection)
    late = fill("late", -4, 110, time_ns=TODAY - 6 * DAY_NS)
    put(connection, late)
    assert ledger.apply([late]) == [late]
    assert ledger.older == {XBT}
    assert ledger.size(XBT) == 5
    assert reload(connection, ledger, NOW) == [XBT]
    assert ledger.older == set()
    assert (ledger.size(XBT), ledger.position(XBT).avg_price) == (1, 200)
    fixed = fill("o1", 3, 100, time_ns=NOW, revision=1)
    put(connection, fixed)
    ledger = opened(connection)
    assert ledger.size(XBT) == 3


def test_a_correction_of_what_is_summed_up_is_not_taken_for_a_new_fill(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_rows, "EVERY", 1)
    put(connection, fill("o", 1, 100, time_ns=TODAY - 5 * DAY_NS))
    ledger = opened(connection)
    fixed = fill("o", 2, 100, time_ns=NOW, revision=1)
    assert ledger.apply([fixed]) == [fixed]
    assert ledger.older == {XBT}
    put(connection, fixed)
    reload(connection, ledger, NOW)
    assert ledger.size(XBT) == 2


def test_a_correction_keeps_its_place_among_those_of_the_same_time(
    connection: sqlite3.Connection,
) -> None:
    ledger = opened(connection)
    came = (fill("a", 1, 100), fill("b", -1, 110), fill("c", 1, 120))
    for line in (*came, fill("a", 1, 90, revision=1)):
        put(connection, line)
        ledger.apply([line])
    assert ledger.holdings() == holdings(connection)
    holding = ledger.holdings()[XBT]
    assert (holding.size, holding.avg_price, holding.realised) == (1, 120, 20)


def test_a_late_fill_of_yesterday_changes_what_the_day_began_with() -> None:
    ledger = Ledger("kraken", "paper")
    ledger.apply([fill("a", 1, 100, time_ns=TODAY - 2), fill("b", 1, 100)])
    assert ledger.day_profit(price_of(xbt=100), NOW, XBT) == 0
    ledger.apply([fill("c", -1, 150, time_ns=TODAY - 1)])
    assert ledger.day_profit(price_of(xbt=100), NOW, XBT) == 0
    ledger = Ledger("kraken", "paper")
    ledger.apply([fill("a", 1, 100, time_ns=TODAY - 2)])
    assert ledger.day_profit(price_of(xbt=100), NOW, XBT) == 0
    ledger.apply([fill("c", -1, 150, time_ns=TODAY - 1)])
    assert ledger.day_profit(price_of(xbt=100), NOW, XBT) == 0


def test_a_fill_that_a_correction_moves_to_today_was_not_there_when_it_began() -> None:
    ledger = Ledger("kraken", "paper")
    ledger.apply([fill("a", 1, 100, time_ns=TODAY - 1)])
    ledger.day_profit(price_of(xbt=90), TODAY, XBT)
    assert ledger.day_profit(price_of(xbt=110), NOW, XBT) == 20
    ledger.apply([fill("a", 1, 105, revision=1)])
    assert ledger.day_profit(price_of(xbt=110), NOW, XBT) == 5


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_many_that_come_shuffled_are_each_counted_in_their_place(rng: Any) -> None:
    many = [
        fill(str(n), 1 if n % 3 else -3, 100 + n % 11, time_ns=n) for n in range(900)
    ]
    late = [many.pop(rng.randrange(len(many))) for _ in range(40)]
    ledger = Ledger("kraken", "paper")
    ledger.apply(many)
    ledger.apply(late)
    for line in late[:9]:
        moved = msgspec.structs.replace(line, time_ns=rng.randrange(900), revision=1)
        ledger.apply([moved])
    lines = [entry.transaction for entry in ledger._books[XBT].line._entries]
    assert [line.time_ns for line in lines] == sorted(line.time_ns for line in lines)
    check(ledger.holdings()[XBT], Sum(lines))


def test_a_late_fill_among_many_is_counted_in_its_place() -> None:
    ledger, model = Ledger("kraken", "paper"), Model()
    for count in range(2000):
        time_ns = TODAY + (count if count % 7 else count // 2) * 1000
        line = fill(
            str(count), 1 if count % 3 else -2, 100 + count % 11, time_ns=time_ns
        )
        model.record(line)
        ledger.apply([line])
    check(ledger.holdings()[XBT], Sum(model.lines(XBT)))


def test_sums_are_kept_now_and_then_so_that_opening_reads_few_rows(
    connection: sqlite3.Connection,
) -> None:
    start = TODAY - 30 * DAY_NS
    many = [fill(str(n), 1 + n % 3, 100, time_ns=start + n) for n in range(5000)]
    assert len(put(connection, *many)) == 5000
    read: list[str] = []
    connection.set_trace_callback(read.append)
    ledger = opened(connection)
    connection.set_trace_callback(None)
    (kept,) = connection.execute("SELECT count(*) FROM sums").fetchone()
    assert kept == 5000 // ledger_rows.EVERY
    assert len(ledger._books[XBT].line) == 5000 % ledger_rows.EVERY
    connection.execute("DELETE FROM sums")
    assert holdings(connection) == ledger.holdings()
    check(ledger.holdings()[XBT], Sum(many))


def test_rows_that_come_newest_first_are_summed_up_a_bounded_part_at_a_time(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_rows, "EVERY", 16)
    monkeypatch.setattr(ledger_rows, "_MOST", 32)
    backwards = [fill(str(n), 1, n, time_ns=TODAY - n) for n in range(1, 400)]
    put(connection, *backwards)
    check(holdings(connection)[XBT], Sum(reversed(backwards)))


def test_sums_that_something_far_back_has_dropped_are_made_again_at_once(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_rows, "EVERY", 16)
    monkeypatch.setattr(ledger_rows, "_MOST", 32)
    start = TODAY - 30 * DAY_NS
    many = [fill(str(n), 1 + n % 3, 100 + n, time_ns=start + n) for n in range(200)]
    late = fill("late", -5, 90, time_ns=start - 1)
    put(connection, *many, late)
    assert len(opened(connection)._books[XBT].line) == 201
    catch_up(connection)
    catch_up(connection)
    ledger = opened(connection)
    assert len(ledger._books[XBT].line) == 0
    check(ledger.holdings()[XBT], Sum([late, *many]))


# -- profit of the day -----------------------------------------------------------------


def price_of(**prices: Any) -> Any:
    return lambda symbol: Decimal(prices[symbol[:3]]) if symbol[:3] in prices else None


def test_a_losing_round_trip_is_a_loss_of_the_day_also_for_the_next_ledger(
    connection: sqlite3.Connection,
) -> None:
    save_terms(connection, {XBT: Terms("usd", "xbt")})
    put(connection, fill("in", 1, "60000.1"), fill("out", -1, 59_800))
    for _ in range(2):
        profit = opened(connection).day_profit(price_of(), NOW, XBT)
        assert profit == Decimal("-200.1")


def test_a_new_day_begins_at_nothing_and_counts_from_the_price_at_midnight() -> None:
    ledger = Ledger("kraken", "paper")
    ledger.apply([fill("a", 2, 100, time_ns=TODAY - HOUR)])
    assert ledger.day_profit(price_of(xbt=90), TODAY - 1, XBT) == -20
    assert ledger.day_profit(price_of(xbt=95), TODAY, XBT) == 10
    assert ledger.day_profit(price_of(), NOW, XBT) == 10
    assert ledger.take_marks()[-1] == Mark(TODAY // DAY_NS, XBT, Decimal(90))
    assert ledger.take_marks() == []


def test_the_price_that_a_day_began_with_is_kept_for_the_next_ledger(
    connection: sqlite3.Connection,
) -> None:
    put(connection, fill("a", 2, 100, time_ns=TODAY - DAY_NS))
    ledger = opened(connection)
    assert ledger.day_profit(price_of(xbt=90), TODAY + 1, XBT) == 0
    save_marks(connection, ledger.take_marks())
    save_marks(connection, [Mark(TODAY // DAY_NS, XBT, Decimal(1))])
    ledger = opened(connection)
    assert ledger.day_profit(price_of(xbt=85), NOW, XBT) == -10
    assert ledger.take_marks() == []


def test_a_position_without_a_price_is_counted_as_unchanged_and_named() -> None:
    ledger = Ledger("kraken", "paper")
    ledger.apply([fill("a", 2, 100), fill("b", -1, 110)])
    (profit,) = ledger.day_profits(price_of(), NOW).values()
    assert (profit.realised, profit.unrealised, profit.unpriced) == (10, 0, (XBT,))
    (profit,) = ledger.day_profits(price_of(xbt=107), NOW).values()
    assert (profit.realised, profit.unrealised, profit.unpriced) == (10, 7, ())


def test_fees_in_the_base_count_at_the_price_of_their_fill_others_apart() -> None:
    ledger = Ledger("binance", "paper")
    ledger.describe(XBT, Terms("usd", "xbt"))
    for count, (currency, fee) in enumerate(
        [("usd", "1"), ("XBT", "0.01"), ("bnb", "0.5"), ("", "2"), ("usd", "-0.25")]
    ):
        line = fill(str(count), 1, 100, fee=Decimal(fee), fee_currency=currency)
        ledger.apply([line])
    profits = ledger.day_profits(price_of(xbt=100), NOW)
    assert {name: profit.total for name, profit in profits.items()} == {
        "usd": Decimal("-3.75"),
        "bnb": Decimal("-0.5"),
    }
    assert profits["usd"].fees == Decimal("3.75")


def test_markets_of_one_currency_are_added_up_and_others_kept_apart() -> None:
    ledger = Ledger("kraken", "paper")
    ledger.describe(XBT, Terms("usd", "xbt"))
    ledger.describe(ETH, Terms("usd", "eth", Decimal(10)))
    ledger.describe("xbteur.kraken", Terms("eur", "xbt"))
    for symbol in (XBT, ETH, "xbteur.kraken"):
        ledger.apply([fill("a", 1, 100, symbol=symbol)])
    prices = price_of(xbt=90, eth=99)
    assert ledger.day_profit(prices, NOW, XBT) == -20
    assert ledger.day_profit(prices, NOW, "xbteur.kraken") == -10


def test_what_a_market_is_of_is_kept_for_the_next_ledger(
    connection: sqlite3.Connection,
) -> None:
    put(connection, fill("a", 1, 100), fill("a", 1, 100, symbol=ETH))
    ledger = opened(connection)
    ledger.describe(XBT, Terms("usd", "xbt", Decimal("0.1")))
    save_terms(connection, ledger.take_terms())
    ledger = opened(connection)
    ledger.describe(XBT, Terms("usd", "xbt", Decimal("0.1")))
    assert ledger.take_terms() == {}
    assert ledger.position(XBT).currency == "usd"
    ledger.describe(XBT, Terms("usd", "xbt", Decimal(1)))
    save_terms(connection, ledger.take_terms())
    assert opened(connection).terms(XBT).multiplier == 1


def test_of_a_market_that_nobody_described_the_worst_profit_counts() -> None:
    ledger = Ledger("kraken", "paper")
    assert ledger.day_profit(price_of(), NOW, ETH) == 0
    ledger.describe(XBT, Terms("usd"))
    ledger.apply([fill("a", 1, 100), fill("a", 1, 100, symbol=ETH)])
    prices = price_of(xbt=90, eth=105)
    assert ledger.day_profit(prices, NOW, ETH) == -10
    assert ledger.day_profit(prices, NOW, "ltcusd.kraken") == -10
    assert ledger.day_profit(prices, NOW, XBT) == -10
    assert ledger.day_profit(price_of(xbt=110, eth=90), NOW, XBT) == 10


def test_days_are_folded_once_they_are_over_and_profits_stay_right() -> None:
    ledger, model = Ledger("kraken", "paper"), []
    for day in range(4):
        for count in range(300):
            time_ns = TODAY + day * DAY_NS + count * HOUR // 20
            line = fill(f"{day}.{count}", 1 if count % 2 else -2, 100, time_ns=time_ns)
            model.append(line)
            ledger.apply([line])
            ledger.day_profit(price_of(xbt=100), time_ns, XBT)
    assert len(ledger._books[XBT].line) == 300
    assert len(ledger._books[XBT].known) == 600
    check(ledger.holdings()[XBT], Sum(model))


# -- views -----------------------------------------------------------------------------


def test_transactions_of_a_span_are_those_that_count_in_it_in_order(
    connection: sqlite3.Connection,
) -> None:
    put(connection, fill("c", 1, time_ns=30), fill("a", 1, time_ns=10))
    put(connection, fill("b", 1, time_ns=20, symbol=ETH), fill("d", 1, time_ns=20))
    put(connection, fill("c", 1, time_ns=11, revision=1))

    def tids(*span: Any, **more: Any) -> str:
        return "".join(line.tid for line in transactions(connection, *span, **more))

    assert tids() == "acbd"
    assert tids(11, 20) == "c"
    assert tids(20) == "bd"
    assert tids(0, 0) == ""
    assert tids(symbol=XBT) == "acd"


def test_a_transaction_comes_back_as_it_was_recorded(
    connection: sqlite3.Connection,
) -> None:
    line = Transaction(
        kind="fill",
        tid="t\n\"'",
        time_ns=5,
        symbol=XBT,
        size=Decimal("-0.10"),
        price=Decimal("1E+3"),
        fee=Decimal("1e-8"),
        fee_currency="usd",
        revision=3,
        reqid="r1",
        oid="ö",
        details={"a": [1, "b"]},
    )
    put(connection, line)
    assert list(transactions(connection)) == [line]


def test_the_ledger_as_csv_has_a_heading_and_plain_numbers(
    connection: sqlite3.Connection,
) -> None:
    put(connection, fill("a", "0.00000001", "1E+3", details={"x": 1}), fill("b,", -2))
    file = io.StringIO()
    assert export_csv(connection, file) == 2
    first, second = csv.DictReader(file.getvalue().splitlines())
    assert list(first)[:3] == ["time_ns", "kind", "tid"]
    assert (first["size"], first["price"], first["fee"]) == ("0.00000001", "1000", "0")
    assert (first["details"], second["tid"]) == ('{"x":1}', "b,")


def test_differences_are_told_by_market_with_both_sizes() -> None:
    def position(symbol: str, size: Any) -> BrokerdPosition:
        return BrokerdPosition("kraken", "x", symbol, Decimal(size), Decimal(0))

    own = [position(XBT, "1.50"), position(ETH, 2), position("a.kraken", 0)]
    told = [position(XBT, "1.5"), position(ETH, "1.75"), position("b.kraken", -1)]
    eth, other = sorted(differences(own, told), key=lambda one: one.own, reverse=True)
    assert eth.text == (
        "the broker tells a position of 1.75 ethusd.kraken, the ledger has 2: "
        "-0.25 is not in it"
    )
    assert (other.symbol, other.own, other.told) == ("b.kraken", 0, -1)
    assert differences(own, own) == []
