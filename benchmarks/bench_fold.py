"""Ticks into the tick ring and into 1 s and 60 s bars, beside the same in plain C."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

import piker_core as pk
from benchmarks.common import Case, Options, Row, main, measure, namespace, pin
from benchmarks.peers import nautilus_cases, polars_case
from benchmarks.reference import open_c_row
from benchmarks.trades import Call, Quotes, Tape

FQME = "xbtusd.kraken"
TICKS = 1 << 17
ROWS = 3 * 86_400
TRADES = 1000
BATCH = 4096
MARKETS = 1000
ALONE = "the loop and the call alone"
INSTALL = "pip install 'piker-core[bench]' measures {} here too"


class Bench(msgspec.Struct, frozen=True):
    """An engine and the C row, each with a tape of the same trades."""

    engine: pk.FeedEngine
    market: pk.Market
    c: Any
    space: str
    tape: Tape
    c_tape: Tape

    def for_c(
        self, take: Callable[[Tape], Any], *, reads_clock: bool
    ) -> Callable[[], Any]:
        """What prepares a case of the C row."""

        def prepare() -> Any:
            self.c.read_clock(reads_clock)
            return take(self.c_tape)

        return prepare


def rows(options: Options) -> Iterator[Row]:
    pin()
    with open_c_row() as c, namespace() as space:
        with pk.open_engine("kraken", namespace=space, tick_capacity=TICKS) as engine:
            market = engine.add_market(FQME)
            market.set_status("live")
            c.open_rings(["xbtusd"], TICKS, ROWS)
            bench = Bench(engine, market, c, space, Tape(), Tape())
            _check(bench)
            yield quote_row(bench, 1, options)
            yield quote_row(bench, 10, options)
            yield trade_row(bench, options)
            yield batch_row(bench, options)
            c.close_rings()
        yield from market_rows(c, space, options)


def _check(bench: Bench) -> None:
    """The C row makes the same bars, or there is nothing to compare."""
    for own, reference in zip(
        bench.tape.calls(TRADES), bench.c_tape.calls(TRADES), strict=True
    ):
        bench.engine.push_trade(bench.market, *own)
        bench.c.push_trade(0, *reference)
    for place, period in enumerate((1, 60)):
        with pk.attach_bars(FQME, period=period, namespace=bench.space) as bars:
            row = bars.last()
        volume, wap, _ = bench.c.newest(0, place)
        close = math.isclose
        if not (close(row["volume"], volume) and close(row["bar_wap"], wap)):
            raise RuntimeError(f"{period} s: {row}, but {volume}, {wap} by the C row")


def _each(push: Callable[[Any], object]) -> Callable[[Quotes], None]:
    def run(quotes: Quotes) -> None:
        for quote in quotes:
            push(quote)

    return run


def quote_row(bench: Bench, trades: int, options: Options) -> Row:
    """A quote dict of so many trades."""
    quotes, c = TRADES // trades, bench.c

    def own() -> Quotes:
        return bench.tape.quotes(quotes, trades)

    quiet = bench.for_c(lambda tape: tape.quotes(quotes, trades), reads_clock=False)
    timed = bench.for_c(lambda tape: tape.quotes(quotes, trades), reads_clock=True)
    cases = [
        Case("piker-core", _each(bench.engine.push), TRADES, own),
        Case("C row", _each(c.push), TRADES, quiet),
        Case("C row that guesses the key order", _each(c.push_guessing), TRADES, quiet),
        Case("C row that reads the clock", _each(c.push), TRADES, timed),
    ]
    note = ""
    if trades == 1:
        bare = _each(c.call_with_one)
        cases.append(Case(ALONE, bare, TRADES, own, compared=False))
        try:
            cases += nautilus_cases(TRADES)
        except ImportError:
            note = INSTALL.format("nautilus_trader")
    what = f"quote dict, {trades} trade{'s' * (trades > 1)}, a tick"
    return measure(what, cases, options, goal="<= 1.0x", note=note)


def trade_row(bench: Bench, options: Options) -> Row:
    """`push_trade` in a Python loop."""
    c = bench.c

    def loop(push: Callable[..., object], first: object) -> Callable[[Any], None]:
        def run(calls: list[Call]) -> None:
            for time_ns, price, size, number, side, count in calls:
                push(first, time_ns, price, size, number, side, count)

        return run

    def own() -> list[Call]:
        return bench.tape.calls(TRADES)

    quiet = bench.for_c(lambda tape: tape.calls(TRADES), reads_clock=False)
    timed = bench.for_c(lambda tape: tape.calls(TRADES), reads_clock=True)
    cases = [
        Case("piker-core", loop(bench.engine.push_trade, bench.market), TRADES, own),
        Case("C row", loop(c.push_trade, 0), TRADES, quiet),
        Case("C row that reads the clock", loop(c.push_trade, 0), TRADES, timed),
        Case(ALONE, loop(c.call_with_seven, 0), TRADES, own, compared=False),
    ]
    return measure("push_trade", cases, options, goal="<= 1.1x")


def batch_row(bench: Bench, options: Options) -> Row:
    """`push_ticks` of an array, each tick published by itself."""

    def own(array: NDArray[np.void]) -> None:
        bench.engine.push_ticks(bench.market, array)

    def reference(array: NDArray[np.void]) -> None:
        bench.c.push_ticks(0, array)

    timed = bench.for_c(lambda tape: tape.records(BATCH), reads_clock=True)
    cases = [
        Case("piker-core", own, BATCH, lambda: bench.tape.records(BATCH)),
        Case("C row", reference, BATCH, timed),
    ]
    note = ""
    try:
        cases.append(polars_case())
    except ImportError:
        note = INSTALL.format("polars")
    what = f"push_ticks of {BATCH:,}, a tick"
    return measure(what, cases, options, goal="<= 1.1x", note=note)


def market_rows(c: Any, space: str, options: Options) -> Iterator[Row]:
    """A quote of one trade to a thousand markets in turn, and to one."""
    symbols = [f"m{number}" for number in range(MARKETS)]
    capacity = {1: 256, 60: 256}
    step_ns = 10_000
    with pk.open_engine("many", namespace=space, tick_capacity=TICKS) as engine:
        for symbol in symbols:
            engine.add_market(f"{symbol}.many", capacity=capacity).set_status("live")
        yield _spread("quote dict, 1 trade", engine.push, symbols, step_ns, options)
    c.open_rings(symbols, TICKS, 256)
    yield _spread("the same, C row", c.push, symbols, step_ns, options)
    c.close_rings()


def _spread(
    what: str,
    push: Callable[[Any], object],
    symbols: list[str],
    step_ns: int,
    options: Options,
) -> Row:
    many, one = Tape(tuple(symbols[1:]), step_ns), Tape((symbols[0],), step_ns)
    cases = [
        Case("1,000 markets in turn", _each(push), TRADES, lambda: many.quotes(TRADES)),
        Case("one market", _each(push), TRADES, lambda: one.quotes(TRADES)),
    ]
    return measure(what, cases, options, goal="<= 1.3x")


if __name__ == "__main__":
    main("Ticks into rings and bars, for one tick", rows)
