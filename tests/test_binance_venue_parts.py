"""Parts of the simulated Binance by themselves: desk, weights, streams, intervals."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piker_core.simulation.limits import SlidingLimit
from piker_core.simulation.market import Market
from providers.binance.venue import Limits, VenueSymbol, open_venue
from providers.binance.venue_depth import Book, Tap, update_id
from providers.binance.venue_faults import Faults
from providers.binance.venue_klines import SPOT_INTERVALS, USDM_INTERVALS, Interval
from providers.binance.venue_link import Pings
from providers.binance.venue_requests import METHODS, Desk
from providers.binance.venue_streams import ALL, Stream, parse_stream
from providers.binance.venue_symbols import SPOT, USDM, make_crowd
from providers.binance.venue_trades import aggregate, first_aggregates, last_aggregates
from providers.binance.venue_weights import WeightMeter, spot_weight, usdm_weight

NS = 10**9


class Recorder:
    """A client of the desk that keeps the answers."""

    def __init__(self) -> None:
        self.streams: dict[str, None] = {}
        self.combined = False
        self.answers: list[bytes] = []
        self.closed: list[int] = []
        self.reply = self.answers.append

    def close(self, code: int, reason: str = "") -> None:
        self.closed.append(code)

    def subscribe(self, name: str) -> None:
        self.streams[name] = None

    def unsubscribe(self, name: str) -> None:
        self.streams.pop(name, None)


FAULTS = Faults(None, 0)  # type: ignore[arg-type]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
WORDS = st.sampled_from(["a@trade", "combined", True])
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(METHODS) | JSON,
        "params": st.lists(st.sampled_from(["a@trade", "combined", True]) | JSON)
        | JSON,
        "id": st.integers() | st.none() | JSON,
    },
)


@pytest.mark.parametrize("nested", [False, True])
@given(text=st.text() | JSON.map(json.dumps) | MESSAGES.map(json.dumps))
def test_whatever_is_asked_the_answer_is_a_result_or_an_error(
    text: str, nested: bool
) -> None:
    desk, client = Desk(FAULTS, most_streams=3, nested=nested), Recorder()
    desk.answer(client, text.encode(errors="surrogatepass"))
    (answer,) = [json.loads(text) for text in client.answers]
    if "result" in answer:
        assert set(answer) == {"result", "id"}
        assert not client.closed
    else:
        error = answer["error"] if nested else answer
        assert isinstance(error["code"], int)
        assert isinstance(error["msg"], str)
    assert len(client.streams) <= 3


def test_swallowed_subscriptions_have_no_answer() -> None:
    faults = Faults(None, 0)  # type: ignore[arg-type]
    faults.silent_acks()
    desk, client = Desk(faults, most_streams=3, nested=False), Recorder()
    desk.answer(client, b'{"method":"SUBSCRIBE","params":["a@trade"],"id":1}')
    assert client.answers == []
    assert client.streams == {}


# Limits


def test_a_sliding_limit_lets_so_many_through_in_any_window() -> None:
    limit = SlidingLimit(3, 1.0)
    times = [0.0, 0.5, 0.9, 1.0, 1.1, 1.6, 2.7, 2.8, 2.9, 3.69, 3.85]
    assert [limit.take(time) for time in times] == [
        True, True, True, True, False, False, True, True, True, False, True,
    ]  # fmt: skip
    assert all(limit.take(10 + 0.34 * number) for number in range(100))


def test_a_pong_answers_its_ping_and_those_before_but_none_after() -> None:
    pings = Pings()
    assert pings.oldest_s() == math.inf
    for number in range(4):
        pings.send(b"%d" % number, float(number))
    pings.answer(b"anything")
    assert pings.oldest_s() == 0
    pings.answer(b"1")
    assert pings.oldest_s() == 2
    pings.answer(b"0")
    assert pings.oldest_s() == 2
    pings.answer(b"3")
    assert pings.oldest_s() == math.inf


def meter(**options: Any) -> WeightMeter:
    """A meter of 100 in a minute."""
    return WeightMeter(100, window_s=60, **({"patience": 2, "ban_s": 120} | options))


def test_weight_is_counted_in_minutes_of_the_wall_clock() -> None:
    counter = meter()
    assert counter.take(60, 119.0).status is HTTPStatus.OK
    refused = counter.take(60, 119.5)
    assert (refused.status, refused.until_s) == (429, 120.0)
    assert counter.used == 120
    assert counter.take(60, 120.0).status is HTTPStatus.OK
    assert (counter.used, counter.most, counter.refused) == (60, 60, 1)


def test_going_on_after_refusals_is_a_ban_and_bans_grow() -> None:
    counter = meter()
    counter.take(100, 0.0)
    statuses = [counter.take(1, 1.0 + number).status for number in range(4)]
    assert statuses == [429, 429, 418, 418]
    assert counter.take(1, 122.9).status == 418
    assert counter.take(1, 123.0).status == 200
    counter.take(100, 124.0)
    for number in range(3):
        verdict = counter.take(1, 125.0 + number)
    assert (verdict.status, verdict.until_s) == (418, 126.0 + 240)
    assert counter.bans == 2


def test_a_ban_is_no_longer_than_three_days() -> None:
    counter = meter(patience=0, ban_s=2 * 86400)
    counter.take(101, 0.0)
    verdict = counter.take(101, 2 * 86400.0)
    assert verdict.until_s == 5 * 86400


SPOT_WEIGHTS = {
    "ping": 1, "time": 1, "exchangeInfo": 20, "klines": 2, "aggTrades": 4, "trades": 25,
    "historicalTrades": 25, "avgPrice": 2, "depth": 5, "depth limit=100": 5,
    "depth limit=101": 25, "depth limit=500": 25, "depth limit=1000": 50,
    "depth limit=5000": 250, "ticker/24hr": 80, "ticker/24hr symbol=A": 2,
    'ticker/24hr symbols=["A","B"]': 2, "ticker/price": 4, "ticker/price symbol=A": 2,
    "ticker/bookTicker": 4, "ticker/bookTicker symbol=A": 2, "depth limit=x": 5,
    f"ticker/24hr symbols={json.dumps([str(n) for n in range(21)])}": 40,
    f"ticker/24hr symbols={json.dumps([str(n) for n in range(101)])}": 80,
}  # fmt: skip
USDM_WEIGHTS = {
    "ping": 1, "exchangeInfo": 1, "aggTrades": 20, "trades": 5, "historicalTrades": 20,
    "depth": 1, "depth limit=50": 2, "depth limit=100": 5, "depth limit=500": 10,
    "depth limit=1000": 20, "klines": 5, "klines limit=100": 1, "klines limit=101": 2,
    "klines limit=500": 2, "klines limit=1000": 5, "klines limit=1500": 10,
    "ticker/24hr": 40, "ticker/24hr symbol=A": 1, "ticker/price": 2,
    "ticker/price symbol=A": 1, "ticker/bookTicker": 5, "ticker/bookTicker symbol=A": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("weigh", "weights"), [(spot_weight, SPOT_WEIGHTS), (usdm_weight, USDM_WEIGHTS)]
)
def test_calls_weigh_what_the_documents_say(
    weigh: Callable[[str, dict[str, str]], int], weights: dict[str, int]
) -> None:
    for call, weight in weights.items():
        method, _, pair = call.partition(" ")
        name, _, text = pair.partition("=")
        assert weigh(method, {name: text} if name else {}) == weight, call


# Streams and intervals


@pytest.mark.parametrize(
    ("name", "usdm", "wanted"),
    [
        ("a@trade", False, Stream("trade", "a")),
        ("币安人生usdt@trade", True, Stream("trade", "币安人生usdt")),
        ("a@kline_1s", False, Stream("kline", "a", "1s", 1000)),
        ("a@kline_1M", False, Stream("kline", "a", "1M", 2000)),
        ("a@kline_1s", True, None),
        ("a@kline_1m", True, Stream("kline", "a", "1m", 250)),
        ("a@kline1m", False, None),
        ("a@depth", False, Stream("depth", "a", "", 1000)),
        ("a@depth@100ms", False, Stream("depth", "a", "", 100)),
        ("a@depth@250ms", True, None),
        ("a@depth@500ms", False, None),
        ("a@depth@", False, None),
        ("a@depth20@500ms", True, Stream("partial", "a", "20", 500)),
        ("a@depth7", False, None),
        ("a@ticker", False, Stream("ticker", "a", "", 1000)),
        ("a@tickers", False, None),
        ("a@trade@100ms", False, None),
        ("A@trade", False, None),
        ("!miniTicker@arr", False, Stream("miniTicker", ALL, "", 1000)),
        ("!ticker@arr", False, None),
        ("!ticker@arr", True, Stream("ticker", ALL, "", 1000)),
        ("!bookTicker", False, None),
        ("", False, None),
    ],
)
def test_a_stream_is_what_its_name_says(
    name: str, usdm: bool, wanted: Stream | None
) -> None:
    assert parse_stream(name, usdm=usdm) == wanted


def test_usdm_has_no_klines_of_a_second() -> None:
    assert set(SPOT_INTERVALS) - set(USDM_INTERVALS) == {"1s"}


@given(
    st.sampled_from(SPOT_INTERVALS),
    st.integers(10**9, 2 * 10**9),
    st.integers(-40, 40),
)
def test_intervals_follow_each_other_without_a_gap(
    name: str, time_s: int, bars: int
) -> None:
    interval = Interval(name)
    open_s = interval.open_s(time_s)
    next_s = interval.next_s(open_s)
    assert open_s <= time_s < next_s
    assert interval.open_s(next_s - 1) == open_s
    assert interval.open_s(next_s) == next_s
    assert interval.first_s(time_s) == (open_s if open_s == time_s else next_s)
    assert interval.first_s(open_s) == open_s
    there = interval.move_s(open_s, bars)
    assert interval.open_s(there) == there
    assert interval.move_s(there, -bars) == open_s
    day = datetime.fromtimestamp(open_s, UTC)
    if name == "1w":
        assert day.weekday() == 0
    if name == "1M":
        assert day.day == 1


# Markets


def market(symbol: VenueSymbol = SPOT[0], seed: int = 1) -> Market[VenueSymbol]:
    """A market with a short history."""
    return Market(
        symbol, seed, start_ns=10**18, history_s=600, live_rate=50, history_rate=50
    )


def test_groups_of_trades_rise_by_one_over_chunks_drawn_apart() -> None:
    made = market()
    while made.head < 5000:
        due_ns = made.due_ns()
        assert due_ns is not None
        made.release(due_ns + NS)
    rows = made.rows()
    aggregates = aggregate(rows.tolist())
    numbers = [row.number for row in aggregates]
    first = made.pair.first_group
    assert numbers == list(range(first, first + len(numbers)))
    assert sum(row.last_id - row.first_id + 1 for row in aggregates) == len(rows)
    assert first_aggregates(rows, 7) == aggregates[:7]
    assert last_aggregates(rows, 7) == aggregates[-7:]
    assert first_aggregates(rows[:0], 7) == last_aggregates(rows[:0], 7) == []


@given(st.integers(0, 2**32), st.sampled_from([*SPOT[:5], *USDM[:3]]))
def test_a_book_follows_the_quote_and_its_changes_tell_all(
    seed: int, symbol: VenueSymbol
) -> None:
    made = market(symbol, seed)
    book = Book(made)
    tap = Tap(book, made)
    sides = {"bids": dict(book.bids), "asks": dict(book.asks)}
    for number in range(30):
        if number % 3:
            made.flutter(10**18 + number)
        else:
            made.release((made.due_ns() or 0) + NS)
        book.update()
        bids, asks = book.best(1)
        quote = made.quote
        assert bids == [(quote.bid, quote.bid_size)]
        assert asks == [(quote.ask, quote.ask_size)]
        if number % 4 == 3:
            before = tap.last
            taken = tap.take()
            assert taken is not None
            newest, *changed = taken
            assert before < newest == update_id(made)
            for side, levels in zip(sides.values(), changed, strict=True):
                side.update(levels)
                for price, size in levels:
                    if not size:
                        del side[price]
            assert sides == {"bids": book.bids, "asks": book.asks}
    tap.close()
    assert not book.taps


def test_numbers_are_printed_as_each_side_prints_them() -> None:
    spot, contract = SPOT[0], USDM[0]
    assert spot.price_text(6184263) == "61842.63000000"
    assert spot.size_text(1000) == "0.00001000"
    assert spot.notional_text(6184263 * 1000) == "0.61842630"
    assert contract.price_text(6184260) == "61842.60"
    assert contract.size_text(10**5) == "0.001"
    assert contract.notional_text(6184260 * 10**5) == "61.84260"


def test_a_crowd_trades_all_there_is_alike() -> None:
    crowd = make_crowd(200)
    assert len({row.symbol for row in crowd}) == 200
    assert abs(sum(row.live_share for row in crowd) - 1) < 1e-9


# Weight over the wire


async def test_every_answer_tells_the_weight_and_too_much_of_it_is_refused() -> None:
    limits = Limits(weight=50, weight_window_s=10**6, patience=2, ban_s=60)
    async with open_venue(history_s=60, limits=limits) as venue:
        base = venue.config["rest_url"] + "/api/v3"
        async with httpx.AsyncClient() as http:
            replies = [await http.get(f"{base}/exchangeInfo") for _ in range(2)]
            replies.append(await http.get(f"{base}/klines?symbol=NOPE&interval=1m"))
            used = [row.headers["x-mbx-used-weight-1m"] for row in replies]
            assert used == ["20", "40", "42"]
            assert replies[2].status_code == 400
            refused = [await http.get(f"{base}/exchangeInfo") for _ in range(4)]
        assert [row.status_code for row in refused] == [429, 429, 418, 418]
        assert all(int(row.headers["retry-after"]) > 0 for row in refused)
        assert {row.json()["code"] for row in refused} == {-1003}
        assert "current limit is 50 request weight" in refused[0].json()["msg"]
        assert "IP banned until" in refused[2].json()["msg"]
        statistics = venue.statistics()
    assert statistics.rest_requests == {"/api/v3/exchangeInfo": 6, "/api/v3/klines": 1}
    assert (statistics.rest_refused, statistics.rest_bans) == (3, 1)
    assert statistics.rest_weight == 42
