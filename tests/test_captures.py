"""Recorded trades of two venues against their own candles, by public names."""

import csv
import gzip
import json
from collections.abc import Iterator
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any

import numpy as np

import piker_core as pk

NS = 1_000_000_000
PRICES = ("open", "high", "low", "close")
Ticks = Any


def as_ticks(rows: list[tuple[int, float, float, int, int]]) -> Ticks:
    """(time_ns, price, size, id, side) as an array of TICK_DTYPE."""
    ticks = np.zeros(len(rows), pk.TICK_DTYPE)
    columns = zip(*rows, strict=True)
    for field, values in zip(
        ("time_ns", "price", "size", "id", "side"), columns, strict=True
    ):
        ticks[field] = values
    ticks["type"], ticks["count"] = pk.TICK_TYPES["trade"], 1
    return ticks


def kraken_trades(captures: Path) -> Ticks:
    text = (captures / "kraken" / "xbtusdt_trades.json").read_text()
    result = json.loads(text, parse_float=Decimal)["result"]
    rows = next(value for key, value in result.items() if key != "last")
    sides = {"b": 1, "s": -1}
    return as_ticks(
        [
            (int(time * NS), float(price), float(size), int(number), sides[side])
            for price, size, time, side, _, _, number in rows
        ]
    )


def binance_trades(captures: Path) -> Ticks:
    def lines() -> Iterator[str]:
        for day in ("20240808", "20240809"):
            path = captures / "binance" / f"spot_btcusdt_{day}.gz"
            with gzip.open(path, "rt") as file:
                yield from file

    rows = []
    for line in lines():
        if '@trade"' in line:
            trade = json.loads(line.partition(" ")[2])["data"]
            side = -1 if trade["m"] else 1
            price, size = float(trade["p"]), float(trade["q"])
            rows.append((trade["T"] * 1_000_000, price, size, trade["t"], side))
    return as_ticks(rows)


def candles(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def engine_rows(ticks: Ticks, part: str, period: int) -> Any:
    """Rows that an engine makes of ticks, pushed in batches into a market `part`."""
    with pk.open_engine("venue", tick_capacity=1 << 15) as engine:
        market = engine.add_market(f"pair{part}.venue", periods=(period,))
        market.set_status("live")
        for place in range(0, len(ticks), 1000):
            engine.push_ticks(market, ticks[place : place + 1000])
        with pk.attach_bars(f"pair{part}.venue", period=period) as bars:
            return bars.snapshot(bars.head - bars.first)


def exact(value: float) -> Decimal:
    return Decimal(repr(round(float(value), 8)))


def test_krakens_trades_give_its_candles(captures: Path, namespace: str) -> None:
    expected = candles(captures / "kraken" / "xbtusdt_exchange_candles_1m.csv")
    rows = {int(r["time"]): r for r in engine_rows(kraken_trades(captures), "", 60)}
    traded = [candle for candle in expected if int(candle["count"])]
    assert len(traded) == 107
    for candle in traded:
        row = rows[int(candle["time_s"])]
        assert all(row[field] == float(candle[field]) for field in PRICES)
        assert exact(row["volume"]) == Decimal(candle["volume"])
        assert row["count"] == int(candle["count"])
        wap = exact(row["bar_wap"]).quantize(Decimal("0.1"), ROUND_DOWN)
        assert wap == Decimal(candle["vwap"])


def test_binances_trades_give_its_bars_of_both_periods(
    captures: Path, namespace: str
) -> None:
    ticks = binance_trades(captures)
    assert len(ticks) == 19904
    for period, unit, count in ((1, "1s", 645), (60, "1m", 12)):
        name = f"spot_btcusdt_expected_{unit}.csv"
        expected = candles(captures / "binance" / name)
        rows = {int(r["time"]): r for r in engine_rows(ticks, f"{period}", period)}
        assert len(expected) == count
        for bar in expected:
            row = rows[int(bar["open_time_ms"]) // 1000]
            assert all(row[field] == float(bar[field]) for field in PRICES)
            assert exact(row["volume"]) == Decimal(bar["volume"])
            assert row["count"] == int(bar["trades"])


def test_history_of_the_same_trades_is_the_engines_bit_for_bit(
    captures: Path, namespace: str
) -> None:
    for number, load in enumerate((kraken_trades, binance_trades)):
        ticks = load(captures)
        for period in (1, 5, 60):
            live = engine_rows(ticks, f"{number}x{period}", period)
            folded = pk.fold_ticks(ticks, period)
            for field in (*PRICES, "time", "volume", "count", "bar_wap"):
                assert live[field].tobytes() == folded[field].tobytes(), field
