"""What an engine takes and refuses: it says why, counts it, and changes nothing."""

import math
import re
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from bar_rows import NS, Trade, tick_array

import piker_core as pk

FQME = "xbtusd.kraken"
T0 = 1_732_320_000
FAR = 4_000_000_000 * NS
GOOD = {
    "type": "trade",
    "price": 100.0,
    "size": 1.0,
    "time_ns": (T0 + 1) * NS,
    "id": 9,
    "side": "buy",
    "count": 1,
}
Way = Callable[["Opened", dict[str, Any]], int]


class Stranger:
    """An object of a class that the engine does not know."""

    def __repr__(self) -> str:
        return "Stranger()"


class Opened:
    """An engine with one market, and all that a refusal must not change."""

    def __init__(self, engine: Any, namespace: str) -> None:
        self.engine = engine
        self.market = engine.add_market(FQME, capacity={1: 256, 60: 256})
        self.market.set_status("live")
        engine.push_trade(self.market, T0 * NS, 99.0, 1.0, id=1)
        self.bars = [
            pk.attach_bars(FQME, period=period, namespace=namespace)
            for period in (1, 60)
        ]
        self.ticks = pk.attach_ticks("kraken", namespace=namespace)

    def state(self) -> tuple[Any, ...]:
        counters = self.market.statistics()
        del counters["refused"]
        return (
            *(bars.snapshot(256).tobytes() for bars in self.bars),
            *(bars.last_price for bars in self.bars),
            *(bars.gaps().tobytes() for bars in self.bars),
            self.ticks.head,
            self.market.last_id,
            self.market.status,
            counters,
        )

    @property
    def refused(self) -> int:
        return int(self.market.statistics()["refused"])


@pytest.fixture
def opened(namespace: str) -> Iterator[Opened]:
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=4096) as engine:
        yield Opened(engine, namespace)


def quote(*ticks: Any, **more: Any) -> dict[str, Any]:
    return {"symbol": "xbtusd", "ticks": list(ticks)} | more


# Bad values, by every way in


def by_dict(opened: Opened, tick: dict[str, Any]) -> int:
    return int(opened.engine.push(quote(tick)))


def by_struct(opened: Opened, tick: dict[str, Any]) -> int:
    return int(opened.engine.push(pk.Quote("xbtusd", [pk.Tick(**tick)])))


def by_trade(opened: Opened, tick: dict[str, Any]) -> int:
    named = {name: tick[name] for name in ("id", "side", "count")}
    values = (tick[name] for name in ("time_ns", "price", "size"))
    return int(opened.engine.push_trade(opened.market, *values, **named))


def by_array(opened: Opened, tick: dict[str, Any]) -> int:
    ticks = np.zeros(1, pk.TICK_DTYPE)
    ticks["type"] = pk.TICK_TYPES["trade"]
    for name in ("price", "size", "time_ns", "id", "side", "count"):
        ticks[name] = 1 if tick[name] == "buy" else tick[name]
    return int(opened.engine.push_ticks(opened.market, ticks))


WAYS: tuple[Way, ...] = (by_dict, by_struct, by_trade, by_array)
UNTYPED = WAYS[:3]
NO_NUMBERS = [
    "abc",
    "1",
    b"1",
    bytearray(b"1"),
    [],
    {},
    (),
    Stranger(),
    1j,
    True,
    np.array([1.0]),
    np.datetime64(5, "ns"),
]
NOT_FINITE = [math.nan, math.inf, -math.inf]
BEYOND = [10**400, -(10**400), 10**5000, Decimal("NaN"), Decimal("sNaN")]
NOT_WHOLE = [*NO_NUMBERS, 1.0, 1.5, math.nan, Decimal(1), Fraction(1, 2)]
TOO_LONG = [2**63, -(2**70), 10**5000]
MATRIX: list[tuple[str, Any, tuple[Way, ...]]] = [
    *(("price", bad, WAYS) for bad in (*NOT_FINITE, 0.0, -0.0, -1.0)),
    *(("size", bad, WAYS) for bad in (*NOT_FINITE, -0.5, -1e-300)),
    *(("time_ns", bad, WAYS) for bad in (-1, -(2**63), FAR, 2**63 - 1)),
    *(("side", bad, WAYS) for bad in (2, -2, 127)),
    *((name, bad, UNTYPED) for name in ("price", "size") for bad in NO_NUMBERS),
    *((name, bad, UNTYPED) for name in ("price", "size") for bad in BEYOND),
    *((name, bad, UNTYPED) for name in ("id", "count") for bad in NOT_WHOLE),
    *((name, bad, UNTYPED) for name in ("id", "count") for bad in TOO_LONG),
    *(("time_ns", bad, UNTYPED) for bad in (*NOT_WHOLE, *TOO_LONG)),
    *(("side", bad, UNTYPED) for bad in ("up", "BUY", 1.0, b"buy", [], Stranger())),
    *(("count", bad, UNTYPED) for bad in (-1, 2**32)),
]
ALLOWED = {
    "price": "finite",
    "size": "finite",
    "time_ns": "whole number|positive|at most",
    "id": "whole number",
    "count": "whole number|positive number below",
    "side": r"buy.*sell",
}


def case_name(value: Any) -> str:
    if callable(value):
        return str(value.__name__)
    try:
        return repr(value)[:24]
    except ValueError:
        return "digits"


@pytest.mark.parametrize(
    ("field", "bad", "way"),
    [(field, bad, way) for field, bad, ways in MATRIX for way in ways],
    ids=case_name,
)
def test_a_bad_value_is_refused_by_name_counted_and_changes_nothing(
    field: str, bad: Any, way: Way, opened: Opened
) -> None:
    before = opened.state()
    with pytest.raises(pk.BadTick) as refusal:
        way(opened, GOOD | {field: bad})
    text = str(refusal.value)
    assert text.startswith("tick 0:") and field in text
    assert re.search(ALLOWED[field], text), text
    assert any(
        name in text for name in (case_name(bad)[:12], type(bad).__name__, "nan")
    )
    assert opened.state() == before and opened.refused == 1
    assert way(opened, GOOD) == 1, "a good tick with the same id is taken"


@pytest.mark.parametrize("field", ["type", "price", "size", "time_ns"])
def test_a_tick_without_a_field_is_refused_by_its_name(
    field: str, opened: Opened
) -> None:
    before = opened.state()
    short = {name: value for name, value in GOOD.items() if name != field}
    for tick in (short, GOOD | {field: None}):
        with pytest.raises(pk.BadTick, match=field):
            opened.engine.push(quote(tick))
    assert opened.state() == before and opened.refused == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 9e9, "now", 10**400, True])
def test_a_bad_time_in_seconds_is_refused(bad: Any, opened: Opened) -> None:
    tick = GOOD | {"time_ns": None, "time": bad}
    for pushed in (quote(tick), pk.Quote("xbtusd", [pk.Tick(**tick)])):
        with pytest.raises(pk.BadTick, match="time"):
            opened.engine.push(pushed)
    assert opened.refused == 2


@pytest.mark.parametrize("bad", [None, 5, "trade", [], (), {}, Stranger()])
def test_what_is_no_tick_is_refused(bad: Any, opened: Opened) -> None:
    before = opened.state()
    with pytest.raises(pk.BadTick, match="tick 1"):
        opened.engine.push(quote(GOOD, bad))
    assert opened.state() == before


def test_a_quote_with_one_bad_tick_is_refused_whole_and_the_error_says_which(
    opened: Opened,
) -> None:
    before = opened.state()
    ticks = [GOOD, GOOD | {"id": 10, "type": "mood"}, GOOD | {"id": 11, "size": -1.0}]
    with pytest.raises(pk.BadTick, match="tick 2: size"):
        opened.engine.push(quote(*ticks, last=5.0))
    assert opened.state() == before and opened.refused == 1


def test_a_batch_with_one_bad_record_is_refused_whole_and_the_error_says_which(
    opened: Opened,
) -> None:
    before = opened.state()
    batch = tick_array([Trade((T0 + s) * NS, 5.0, 1.0, 10 + s) for s in range(5)])
    batch["type"][1] = 99
    batch["price"][3] = 0.0
    with pytest.raises(pk.BadTick, match="tick 3: price"):
        opened.engine.push_ticks(opened.market, batch)
    assert opened.state() == before and opened.refused == 1
    batch["price"][3] = 5.0
    assert opened.engine.push_ticks(opened.market, batch) == 4
    assert opened.market.statistics()["unknown"] == 1


@pytest.mark.parametrize(
    "bad",
    [
        *(None, 5, 2.5, "xbtusd", b"xbtusd", [], [GOOD], (), Stranger(), {}),
        *({"ticks": [GOOD]}, {"symbol": "nosuch"}, {"symbol": None}, {"symbol": 5}),
        *({"symbol": []}, {"symbol": "\ud800"}, {"symbol": "x" * 100_000}),
        *({"symbol": "xbtusd", "ticks": bad} for bad in (5, "trade", {}, 0, "", True)),
        {"symbol": "xbtusd", "ticks": np.array([1, 2])},
        {"symbol": "xbtusd", "ticks": (tick for tick in [GOOD])},
        pk.Quote(symbol="nosuch"),
    ],
    ids=lambda bad: repr(bad)[:40],
)
def test_what_is_no_quote_of_a_market_is_an_error(bad: Any, opened: Opened) -> None:
    before = opened.state()
    with pytest.raises(pk.PikerError) as refusal:
        opened.engine.push(bad)
    assert len(str(refusal.value)) < 400
    assert opened.state() == before


@pytest.mark.parametrize("symbol", ["xbtusd", FQME, np.str_("xbtusd")])
def test_a_market_is_found_by_either_of_its_names(symbol: str, opened: Opened) -> None:
    assert opened.engine.push({"symbol": symbol, "ticks": [GOOD]}) == 1


@pytest.mark.parametrize(
    "value",
    [
        *("buy", "sell", "", None, 1, -1, 0),
        *(np.int8(1), np.int64(-1), np.str_("buy")),
    ],
)
def test_sides_that_are_known(value: Any, opened: Opened) -> None:
    cursor = opened.ticks.cursor(start="live")
    for number, way in enumerate((by_dict, by_struct, by_trade)):
        way(opened, GOOD | {"side": value, "id": 20 + number})
    sides = {"buy": 1, "sell": -1}
    wanted = sides.get(value, 0) if isinstance(value, str) else int(value or 0)
    assert cursor.poll()["side"].tolist() == [wanted] * 3


def test_numbers_of_other_kinds_are_numbers(opened: Opened) -> None:
    tick = GOOD | {
        "price": Decimal("100.5"),
        "size": np.float32(0.5),
        "time_ns": np.int64((T0 + 2) * NS),
        "id": np.uint32(77),
        "count": np.int16(3),
    }
    assert by_dict(opened, tick) == 1
    row = opened.bars[0].last()
    assert (row["close"], row["volume"], row["count"]) == (100.5, 0.5, 3)
    assert opened.market.last_id == 77


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros(3, "f4,i8"), [1, 2], None, 5])
def test_what_is_no_array_of_records_is_a_type_error(bad: Any, opened: Opened) -> None:
    with pytest.raises(TypeError, match="TICK_DTYPE"):
        opened.engine.push_ticks(opened.market, bad)
    with pytest.raises(TypeError, match="TICK_DTYPE"):
        opened.engine.push_ticks(opened.market, np.zeros((2, 2), pk.TICK_DTYPE))


def test_records_may_be_packed_strided_or_of_a_part_of_an_array(opened: Opened) -> None:
    trades = tick_array([Trade((T0 + s) * NS, 5.0, 1.0, 10 + s) for s in range(8)])
    packed = np.concatenate([trades[:2], trades[2:4]])
    assert packed.dtype != pk.TICK_DTYPE
    assert opened.engine.push_ticks(opened.market, packed) == 4
    assert opened.engine.push_ticks(opened.market, trades[7:3:-2]) == 2
    assert opened.engine.push_ticks(opened.market, trades[:0]) == 0
    assert opened.market.statistics()["ticks"] == 7


# Values with a mind of their own


class Meddler(float):
    """A price that does something while it is read."""

    act: Callable[[], Any]

    def __float__(self) -> float:
        self.act()
        return 5.0


class MeddlingDecimal(Decimal):
    act: Callable[[], Any]

    def __float__(self) -> float:
        self.act()
        return 5.0


def meddler(act: Callable[[], Any]) -> Decimal:
    value = MeddlingDecimal(5)
    value.act = act
    return value


def test_a_value_that_pushes_while_it_is_read_is_refused(opened: Opened) -> None:
    inner = quote(*[GOOD | {"id": number} for number in range(100, 400)])
    before = opened.state()
    price = meddler(lambda: opened.engine.push(inner))
    with pytest.raises(pk.PikerError, match="push"):
        opened.engine.push(quote(GOOD | {"price": price}))
    assert opened.state() == before
    batch = tick_array([Trade(T0 * NS, 5.0, 1.0)])
    price = meddler(lambda: opened.engine.push_ticks(opened.market, batch))
    with pytest.raises(pk.PikerError, match="push"):
        opened.engine.push(quote(GOOD | {"price": price}))
    assert opened.engine.push(quote(GOOD)) == 1


def test_a_value_that_changes_its_quote_while_it_is_read_is_refused(
    opened: Opened,
) -> None:
    before = opened.state()
    ticks: list[Any] = []
    price = meddler(lambda: ticks.extend([GOOD] * 1000))
    ticks.append(GOOD | {"price": price})
    with pytest.raises(pk.PikerError, match="change"):
        opened.engine.push({"symbol": "xbtusd", "ticks": ticks})
    assert opened.state() == before


def test_a_value_that_closes_the_engine_while_it_is_read_writes_nothing(
    opened: Opened,
) -> None:
    price = meddler(opened.engine.close)
    with pytest.raises(pk.PikerError, match="closed"):
        opened.engine.push(quote(GOOD | {"price": price}))
    assert opened.bars[0].last()["count"] == 1
    with pytest.raises(pk.PikerError, match="closed"):
        opened.engine.push_trade(opened.market, T0 * NS, price, 1.0)


def test_an_error_of_a_value_comes_out_and_the_engine_goes_on(opened: Opened) -> None:
    before = opened.state()

    def fail() -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        opened.engine.push(quote(GOOD, GOOD | {"price": meddler(fail)}))
    with pytest.raises(RuntimeError, match="mine"):
        opened.engine.push(quote(GOOD, last=meddler(fail)))
    assert opened.state() == before
    assert opened.engine.push(quote(GOOD)) == 1


# What is ignored, and what a quote says besides


def test_unknown_types_are_ignored_and_counted(opened: Opened) -> None:
    ticks = [GOOD | {"type": "weird"}, GOOD, GOOD | {"type": "\ud800"}]
    assert opened.engine.push(quote(*ticks)) == 1
    assert opened.market.statistics()["unknown"] == 2


@pytest.mark.parametrize("ticks", [[], (), None])
def test_a_quote_without_ticks_is_fine(ticks: Any, opened: Opened) -> None:
    assert opened.engine.push({"symbol": "xbtusd", "ticks": ticks}) == 0


def test_last_seeds_the_price_of_a_market_without_trades(opened: Opened) -> None:
    other = opened.engine.add_market("ethusd.kraken", capacity={1: 256, 60: 256})
    for last in (math.nan, -1.0, 0.0, "5", None, [], 10**400):
        opened.engine.push({"symbol": "ethusd", "last": last})
        assert other.last_price == 0.0
    opened.engine.push({"symbol": "ethusd", "last": 7.5})
    with pk.attach_bars("ethusd.kraken") as bars:
        assert (other.last_price, bars.last_price) == (7.5, 7.5)
        assert bars.head == bars.first
    opened.engine.push({"symbol": "ethusd", "last": 8.0})
    assert other.last_price == 7.5
    opened.engine.push({"symbol": "xbtusd", "last": 1.0})
    assert opened.market.last_price == 99.0


def test_a_time_ahead_of_the_wall_clock_is_refused_beyond_the_skew(
    namespace: str,
) -> None:
    with pk.open_engine("kraken", max_skew_s=1000, tick_capacity=64) as engine:
        market = engine.add_market(FQME, capacity={1: 256, 60: 256})
        engine.step(2**61)
        now = time.time_ns()
        assert engine.push_trade(market, now + 900 * NS, 1.0, 1.0) == 1
        with pytest.raises(pk.BadTick, match="max_skew_s"):
            engine.push_trade(market, now + 1100 * NS, 1.0, 1.0)
