"""Bars by other libraries, where these are installed (the extra `bench`)."""

from collections.abc import Callable
from typing import Any

from benchmarks.common import NS, Case
from benchmarks.trades import START_NS, Tape

POLARS_TICKS = 100_000


def nautilus_cases(trades: int) -> list[Case]:
    """1 s and 60 s bars by nautilus_trader; bars only, no rings. Raises ImportError.

    Once from its own TradeTicks, ready made, once with their making from numbers.
    """
    from nautilus_trader.model.data import TradeTick
    from nautilus_trader.model.enums import AggressorSide
    from nautilus_trader.model.identifiers import TradeId
    from nautilus_trader.model.objects import Price, Quantity
    from nautilus_trader.test_kit.providers import TestInstrumentProvider

    instrument = TestInstrumentProvider.btcusdt_binance()
    sides = {1: AggressorSide.BUYER, -1: AggressorSide.SELLER}

    def make(call: Any) -> Any:
        time_ns, price, size, number, side, _ = call
        return TradeTick(
            instrument.id,
            Price(price, 2),
            Quantity(size + 1e-6, 6),  # its precision; a size of 0 is refused
            sides[side],
            TradeId(str(number)),
            time_ns,
            time_ns,
        )

    return [
        _nautilus_case("nautilus, ready ticks (bars only)", instrument, trades, make),
        _nautilus_case("nautilus, with their making", instrument, trades, None, make),
    ]


def _nautilus_case(
    name: str,
    instrument: Any,
    trades: int,
    before: Callable[[Any], Any] | None,
    meanwhile: Callable[[Any], Any] | None = None,
) -> Case:
    from nautilus_trader.common.component import TestClock
    from nautilus_trader.data.aggregation import TimeBarAggregator
    from nautilus_trader.model.data import BarType

    clock = TestClock()
    clock.set_time(START_NS)
    bars: list[Any] = []
    aggregators = [
        TimeBarAggregator(
            instrument,
            BarType.from_str(f"{instrument.id}-{spec}-LAST-INTERNAL"),
            bars.append,
            clock,
        )
        for spec in ("1-SECOND", "1-MINUTE")
    ]
    for each in aggregators:
        if hasattr(each, "start_timer"):  # since 1.222
            each.set_running(True)
            each.start_timer()
    short, long = (each.handle_trade_tick for each in aggregators)
    tape = Tape()

    def prepare() -> list[Any]:
        calls = tape.calls(trades)
        return [before(call) for call in calls] if before else list(calls)

    def run(ticks: list[Any]) -> None:
        for tick in ticks:
            made = meanwhile(tick) if meanwhile else tick
            short(made)
            long(made)
        for event in clock.advance_time(clock.timestamp_ns() + NS):
            event.handle()
        if not bars:
            raise RuntimeError("nautilus_trader made no bar of a second of trades")
        bars.clear()

    return Case(name, run, trades, prepare)


def polars_case() -> Case:
    """1 s and 60 s bars of a frame of ticks at rest by polars. Raises ImportError."""
    import polars as pl

    rows = Tape().records(POLARS_TICKS)
    frame = pl.DataFrame(
        {name: rows[name] for name in ("time_ns", "price", "size")}
    ).with_columns(pl.col("time_ns").cast(pl.Datetime("ns")))
    price, size = pl.col("price"), pl.col("size")
    bars = [
        price.first().alias("open"),
        price.max().alias("high"),
        price.min().alias("low"),
        price.last().alias("close"),
        size.sum().alias("volume"),
        pl.len().alias("count"),
        ((price * size).sum() / size.sum()).alias("bar_wap"),
    ]

    def run(_: None) -> None:
        for every in ("1s", "60s"):
            frame.group_by_dynamic("time_ns", every=every).agg(bars)

    return Case("polars group_by_dynamic (bars only)", run, POLARS_TICKS)
