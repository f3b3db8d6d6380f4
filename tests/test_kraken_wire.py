"""Kraken's WebSocket frames: recorded ones decoded, normalized and folded; bad ones."""

import contextlib
import csv
import json
from collections.abc import Iterator
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import piker_core as pk
from providers.kraken import wire

NS = 1_000_000_000
TRADE = (
    b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sell",'
    b'"price":30243.3,"qty":0.0037696,"ord_type":"market","trade_id":4665906,'
    b'"timestamp":"2023-09-25T07:49:37.708706Z"}]}'
)


def recorded_trades(captures: Path) -> Iterator[wire.TradeFrame]:
    path = captures / "kraken" / "xbtusdt_v2_trade_frames.jsonl"
    for line in path.read_bytes().splitlines():
        frame = wire.decode_frame(line)
        assert isinstance(frame, wire.TradeFrame)
        yield frame


def decimal_of(value: float, digits: int) -> Decimal:
    return Decimal(repr(round(float(value), digits)))


def test_recorded_frames_give_the_venues_own_candles(
    captures: Path, namespace: str
) -> None:
    path = captures / "kraken" / "xbtusdt_exchange_candles_1m.csv"
    with path.open(newline="") as file:
        candles = list(csv.DictReader(file))
    trades, most = 0, 0
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=4096) as engine:
        market = engine.add_market("xbtusdt.kraken", price_tick="0.1")
        market.set_status("live")
        second = 0
        for frame in recorded_trades(captures):
            quote = wire.normalize_trades("xbtusdt", frame.data)
            due = quote["ticks"][0]["time_ns"] // NS
            second = second or due
            for step in range(second + 1, due + 1):
                engine.step(step * NS)
            second = due
            trades += engine.push(quote)
            most = max(most, len(frame.data))
        for step in range(second + 1, int(candles[-1]["time_s"]) + 61):
            engine.step(step * NS)
        with pk.attach_bars("xbtusdt.kraken", period=60, namespace=namespace) as bars:
            rows = {int(row["time"]): row for row in bars.snapshot(1000)}
    assert (trades, most) == (413, 17)
    for candle in candles:
        row = rows[int(candle["time_s"])]
        for field in ("open", "high", "low", "close"):
            assert row[field] == float(candle[field]), (candle, field)
        assert decimal_of(row["volume"], 8) == Decimal(candle["volume"])
        assert row["count"] == int(candle["count"])
        if row["count"]:
            vwap = decimal_of(row["bar_wap"], 8).quantize(Decimal("0.1"), ROUND_DOWN)
            assert vwap == Decimal(candle["vwap"])


def test_every_recorded_public_frame_is_understood_or_known_to_be_unknown(
    captures: Path,
) -> None:
    seen: dict[str, int] = {}
    path = captures / "kraken" / "v2_frames.jsonl"
    for line in path.read_text().splitlines():
        record = json.loads(line)
        if record["kind"].startswith(("REST", "futures")):
            continue
        frame = wire.decode_frame(record["message"].encode())
        kind = type(frame).__name__
        seen[kind] = seen.get(kind, 0) + 1
        if isinstance(frame, wire.Unknown):
            assert frame.name in ("ohlc", "executions"), record
    assert {"TradeFrame", "TickerFrame", "StatusFrame", "Ack", "Heartbeat"} <= set(seen)


def test_a_recorded_refusal_names_its_symbol(captures: Path) -> None:
    path = captures / "kraken" / "v2_frames.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    refusals = [each for each in records if each["kind"] == "ack rejected symbol"]
    for record in refusals:
        frame = wire.decode_frame(record["message"].encode())
        assert isinstance(frame, wire.Ack) and not frame.success
        assert frame.symbol.startswith("XBT/") and "not supported" in frame.error
    assert refusals


def test_all_elements_of_a_frame_become_ticks(captures: Path) -> None:
    frames = list(recorded_trades(captures))
    ticks = [wire.normalize_trades("x", frame.data)["ticks"] for frame in frames]
    assert sum(map(len, ticks)) == 413
    assert max(map(len, ticks)) == 17


def test_a_trade_keeps_its_numbers_to_the_last_digit() -> None:
    frame = wire.decode_frame(TRADE)
    assert isinstance(frame, wire.TradeFrame)
    assert wire.normalize_trades("xbtusd", frame.data) == {
        "symbol": "xbtusd",
        "last": 30243.3,
        "ticks": [
            {
                "type": "trade",
                "price": 30243.3,
                "size": 0.0037696,
                "time_ns": 1695628177708706000,
                "id": 4665906,
                "side": "sell",
            }
        ],
    }


def test_the_same_trade_decodes_alike_whatever_the_order_of_its_keys() -> None:
    known = json.loads(TRADE)
    shuffled = json.dumps(dict(reversed(known.items()))).encode()
    assert wire.decode_frame(shuffled) == wire.decode_frame(TRADE)


def test_unknown_fields_are_ignored() -> None:
    known = json.loads(TRADE)
    known["data"][0]["colour"] = {"red": [1]}
    known["sequence"] = 7
    assert wire.decode_frame(json.dumps(known).encode()) == wire.decode_frame(TRADE)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[1,2,3]",
        b"\xff\xfe",
        b'{"channel":"trade","type":"update","data":[{"symbol":',
        b'{"channel":"trade","type":"update","data":{}}',
        b'{"channel":"trade","type":"update","data":null}',
        TRADE.replace(b"30243.3", b"NaN"),
        TRADE.replace(b"30243.3", b'"high"'),
        TRADE.replace(b"4665906", b'"x"'),
        b"[" * 100_000,
    ],
)
def test_a_broken_frame_is_one_error_that_carries_it(raw: bytes) -> None:
    with pytest.raises(pk.ProviderError) as caught:
        wire.decode_frame(raw)
    assert caught.value.frame == raw


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_but_a_provider_error(raw: bytes) -> None:
    with contextlib.suppress(pk.ProviderError):
        wire.decode_frame(raw)


@given(st.integers(0, 4_102_444_800 * 10**6), st.integers(0, 999))
def test_times_are_cut_to_microseconds(time_us: int, beyond: int) -> None:
    from datetime import UTC, datetime, timedelta

    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.%f")
    assert wire.decode_time(f"{text}Z") == time_us * 1000
    assert wire.decode_time(f"{text}{beyond:03d}Z") == time_us * 1000


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2023-09-25T07:49:37.708706", "2023-09-25T07:49:37x123456Z"],
)
def test_what_is_no_utc_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        wire.decode_time(text)


def ticker(**changes: Any) -> wire.TickerRow:
    row = {"symbol": "BTC/USD", "bid": 10.0, "bid_qty": 1.0}
    return wire.TickerRow(**(row | {"ask": 11.0, "ask_qty": 2.0} | changes))


def kinds(quote: dict[str, Any]) -> list[tuple[str, float, float]]:
    return [(tick["type"], tick["price"], tick["size"]) for tick in quote["ticks"]]


def test_a_ticker_tells_only_what_changed() -> None:
    first = ticker(last=10.5, timestamp="2026-01-01T00:00:00.123456Z")
    quote = wire.normalize_ticker("xbtusd", first, None, 5)
    assert kinds(quote) == [("bid", 10.0, 1.0), ("ask", 11.0, 2.0)]
    assert quote["last"] == 10.5
    assert quote["ticks"][0]["time_ns"] == 1767225600123456000
    assert kinds(wire.normalize_ticker("xbtusd", first, first, 5)) == []
    resized = wire.normalize_ticker("xbtusd", ticker(bid_qty=3.0), first, 5)
    assert kinds(resized) == [("bsize", 10.0, 3.0)]
    assert resized["ticks"][0]["time_ns"] == 5 and "last" not in resized
    moved = wire.normalize_ticker("xbtusd", ticker(ask=12.0), first, 5)
    assert kinds(moved) == [("ask", 12.0, 2.0)]


def test_an_empty_side_makes_no_tick() -> None:
    quote = wire.normalize_ticker("xbtusd", ticker(bid=0.0, bid_qty=0.0), None, 5)
    assert kinds(quote) == [("ask", 11.0, 2.0)]
