"""Binance's frames: recorded sessions decoded, normalized and folded; bad frames."""

import contextlib
import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import piker_core as pk
from piker_core.errors import ProviderError
from providers.binance import wire

NS = 1_000_000_000
PRICES = ("open", "high", "low", "close")
TRADE = (
    b'{"stream":"bnbbtc@trade","data":{"e":"trade","E":1672515782136,"s":"BNBBTC",'
    b'"t":12345,"p":"0.00100000","q":"100.00000000","T":1672515782136,"m":true,"M":true}}'
)
AGGREGATE = (
    b'{"stream":"bnbbtc@aggTrade","data":{"e":"aggTrade","E":1672515782136,"s":"BNBBTC",'
    b'"a":12345,"p":"0.001","q":"100","f":100,"l":105,"T":1672515782136,"m":false}}'
)
USDM_AGGREGATE = (
    b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1790000000012,"a":2289630111,'
    b'"s":"BTCUSDT","p":"61812.40","q":"0.052","nq":"0.050","f":5203857913,'
    b'"l":5203857915,"T":1790000000001,"m":true,"st":1}}'
)
BEST = (
    b'{"stream":"bnbusdt@bookTicker","data":{"u":400900217,"s":"BNBUSDT",'
    b'"b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}}'
)
USDM_BEST = (
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":7,"s":"BTCUSDT",'
    b'"ps":"BTCUSDT","b":"25.3","B":"31","a":"25.4","A":"40","T":1790000000001,'
    b'"E":1790000000012,"st":1}}'
)


def recorded_session(captures: Path) -> Iterator[bytes]:
    """Frames of the recorded session, in the order of their arrival."""
    for day in ("20240808", "20240809"):
        path = captures / "binance" / f"spot_btcusdt_{day}.gz"
        with gzip.open(path, "rb") as file:
            for line in file:
                yield line.partition(b" ")[2].rstrip()


def recorded_frames(captures: Path, name: str) -> Iterator[bytes]:
    """The frames of a whole recorded connection."""
    for line in (captures / "binance" / name).read_bytes().splitlines():
        time, _, frame = line.partition(b": ")
        if time.replace(b".", b"").isdigit():
            yield frame


def candles(captures: Path, name: str) -> list[dict[str, str]]:
    with (captures / "binance" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def exact(number: float, digits: int = 8) -> Decimal:
    return Decimal(repr(round(float(number), digits)))


class Replay:
    """An engine with one market, stepped by the times of what is pushed."""

    def __init__(self, engine: pk.FeedEngine, fqme: str, **options: Any) -> None:
        self.engine, self.fqme = engine, fqme
        self.market = engine.add_market(fqme, **options)
        self.market.set_status("live")
        self.second = 0

    def push(self, quote: wire.Quote) -> int:
        due = quote["ticks"][0]["time_ns"] // NS
        for second in range(self.second + 1 if self.second else due, due + 1):
            self.engine.step(second * NS)
        self.second = max(due, self.second)
        return self.engine.push(quote)

    def rows(self, period: int) -> Any:
        with pk.attach_bars(self.fqme, period=period) as bars:
            return bars.snapshot(bars.head - bars.first)


def check_bars(rows: Any, oracle: list[dict[str, str]]) -> None:
    """Every field of every bar of an oracle."""
    by_time = {int(row["time"]): row for row in rows}
    for bar in oracle:
        row = by_time[int(bar["open_time_ms"]) // 1000]
        assert all(row[field] == float(bar[field]) for field in PRICES), bar
        assert exact(row["volume"]) == Decimal(bar["volume"])
        assert row["count"] == int(bar["trades"])
        wap = Decimal(bar["quote_volume"]) / Decimal(bar["volume"])
        assert exact(row["bar_wap"]) == round(wap, 8)


# Recorded sessions


def test_a_recorded_session_gives_the_oracles_bars_of_both_periods(
    captures: Path, namespace: str
) -> None:
    kinds: Counter[str] = Counter()
    with pk.open_engine("binance", tick_capacity=1 << 17) as engine:
        replay = Replay(engine, "btcusdt.binance", price_tick="0.01")
        before: wire.Best | None = None
        for raw in recorded_session(captures):
            frame = wire.decode_frame(raw)
            kinds[type(frame).__name__] += 1
            if isinstance(frame, wire.Trade):
                assert replay.push(wire.normalize_trade("btcusdt", frame)) == 1
            elif isinstance(frame, wire.Best):
                now_ns = max(replay.second, 1_723_161_255) * NS
                quote = wire.normalize_best("btcusdt", frame, before, now_ns)
                engine.push(quote)
                before = frame
        seconds, minutes = replay.rows(1), replay.rows(60)
        counted = replay.market.statistics()
    assert kinds["Trade"] == 19904
    assert kinds["Best"] == 73174 and kinds["Unknown"] == 6496  # depth
    assert counted["refused"] == counted["duplicates"] == counted["unplaced"] == 0
    for rows, name, count in ((seconds, "1s", 645), (minutes, "1m", 12)):
        oracle = candles(captures, f"spot_btcusdt_expected_{name}.csv")
        assert len(oracle) == count
        check_bars(rows, oracle)


def test_recorded_aggregates_give_the_venues_candles_and_count_its_trades(
    captures: Path, namespace: str
) -> None:
    path = captures / "binance" / "xrpeth_aggtrades.jsonl"
    counts: Counter[int] = Counter()
    with pk.open_engine("binance", tick_capacity=1 << 13) as engine:
        replay = Replay(engine, "xrpeth.binance")
        for line in path.read_bytes().splitlines():
            event = b'{"s":"XRPETH",' + line[1:]
            raw = b'{"stream":"xrpeth@aggTrade","data":%b}' % event
            frame = wire.decode_frame(raw)
            assert isinstance(frame, wire.Aggregate)
            replay.push(wire.normalize_trade("xrpeth", frame))
            row = json.loads(line)
            counts[row["T"] // 60_000 * 60] += row["l"] - row["f"] + 1
        rows = {int(row["time"]): row for row in replay.rows(60)}
    with (captures / "binance" / "xrpeth_expected_1m.csv").open(newline="") as file:
        oracle = list(csv.DictReader(file))
    assert len(oracle) == 1022
    for bar in oracle:
        row = rows.pop(int(bar["time_ms"]) // 1000)
        assert all(row[field] == float(bar[field]) for field in PRICES)
        assert exact(row["volume"]) == Decimal(bar["volume"])
        assert row["count"] == counts[int(row["time"])]
    assert all(row["flags"] & pk.BarFlag.FLAT for row in rows.values())


def as_frame(row: dict[str, str]) -> bytes:
    """A row of the recorded tables as the frame that it was."""
    return json.dumps(
        {
            "stream": row["Stream"],
            "data": {
                "e": "trade", "E": int(row["EventTime"]), "s": row["Symbol"],
                "t": int(row["TradeId"]), "p": row["Price"], "q": row["Quantity"],
                "T": int(row["TransactionTime"]), "m": row["IsBuyerMarketMaker"] == "1",
                "M": True,
            },
        }
    ).encode()  # fmt: skip


def test_a_trade_with_anothers_id_is_left_out_and_nothing_else_changes(
    captures: Path, namespace: str
) -> None:
    rows, counted = {}, {}
    with pk.open_engine("binance", tick_capacity=1 << 15) as engine:
        for name in ("clean", "faulty"):
            replay = Replay(engine, f"trx{name}.binance", price_tick="0.0001")
            for row in candles(captures, f"faults_spot_trades_{name}.csv"):
                frame = wire.decode_frame(as_frame(row))
                assert isinstance(frame, wire.Trade)
                replay.push(wire.normalize_trade(f"trx{name}", frame))
            rows[name] = replay.rows(1)
            counted[name] = replay.market.statistics()
    assert counted["clean"]["ticks"] == 10000 and counted["faulty"]["ticks"] == 9999
    assert counted["faulty"]["duplicates"] == 1
    clean, faulty = rows["clean"], rows["faulty"]
    differ = [
        (a, b) for a, b in zip(clean.tolist(), faulty.tolist(), strict=True) if a != b
    ]
    ((whole, short),) = differ
    assert whole[1] == short[1] == 1741046401
    assert whole[7] - short[7] == 1 and exact(whole[6] - short[6]) == 865


@pytest.mark.parametrize("name", ["BINANCE", "BINANCE_US"])
def test_every_frame_of_a_recorded_connection_is_understood(
    captures: Path, name: str
) -> None:
    for raw in recorded_frames(captures, f"recording_{name}.ws.1.0"):
        frame, told = wire.decode_frame(raw), json.loads(raw)
        event = told["data"]
        if isinstance(frame, wire.Aggregate):
            tick = wire.trade_tick(frame)
            assert tick["price"] == float(event["p"])
            assert tick["count"] == event["l"] - event["f"] + 1
            assert tick["time_ns"] == event["T"] * 10**6
        elif isinstance(frame, wire.Best):
            assert (frame.update, frame.bid) == (event["u"], float(event["b"]))
            assert frame.time == 0
        else:
            assert frame == wire.Unknown(told["stream"])
            assert "@depth" in told["stream"] or "@kline" in told["stream"]


# Frames by hand


def test_frames_of_trades_become_ticks() -> None:
    frame = wire.decode_frame(TRADE)
    assert isinstance(frame, wire.Trade)
    assert wire.normalize_trade("bnbbtc", frame) == {
        "symbol": "bnbbtc",
        "last": 0.001,
        "ticks": [
            {
                "type": "trade",
                "price": 0.001,
                "size": 100.0,
                "time_ns": 1672515782136 * 10**6,
                "id": 12345,
                "side": -1,
                "count": 1,
            }
        ],
    }
    aggregate, other = wire.decode_frame(AGGREGATE), wire.decode_frame(USDM_AGGREGATE)
    assert isinstance(aggregate, wire.Aggregate) and isinstance(other, wire.Aggregate)
    tick = wire.trade_tick(aggregate)
    assert (tick["id"], tick["count"], tick["side"]) == (12345, 6, 1)
    tick = wire.trade_tick(other)
    assert (tick["id"], tick["count"], tick["size"]) == (2289630111, 3, 0.052)


def test_the_best_quote_is_what_changed_of_it() -> None:
    first = wire.decode_frame(BEST)
    assert isinstance(first, wire.Best)
    quote = wire.normalize_best("bnbusdt", first, None, 7)
    assert [(t["type"], t["price"], t["size"]) for t in quote["ticks"]] == [
        ("bid", 25.3519, 31.21),
        ("ask", 25.3652, 40.66),
    ]
    assert {tick["time_ns"] for tick in quote["ticks"]} == {7}
    moved = msgspec.structs.replace(first, ask=25.4, bid_size=1.0)
    quote = wire.normalize_best("bnbusdt", moved, first, 8)
    assert [tick["type"] for tick in quote["ticks"]] == ["bsize", "ask"]
    emptied = msgspec.structs.replace(first, bid=0.0, bid_size=0.0)
    assert wire.normalize_best("bnbusdt", emptied, first, 9)["ticks"] == []


def test_the_best_quote_of_a_contract_has_the_venues_time() -> None:
    frame = wire.decode_frame(USDM_BEST)
    assert isinstance(frame, wire.Best)
    quote = wire.normalize_best("btcusdt.usdtm.perp", frame, None, 7)
    assert {tick["time_ns"] for tick in quote["ticks"]} == {1790000000001 * 10**6}


def test_times_are_told_apart_by_their_size() -> None:
    assert wire.decode_time(1723161255342) == 1723161255342 * 10**6
    assert wire.decode_time(1741046401271497) == 1741046401271497 * 10**3
    for wrong in (0, -1, 1723161255, 1723161255342000000, 9990000000000, 2**80):
        with pytest.raises(ValueError, match="2010"):
            wire.decode_time(wrong)


ANSWERS = {
    b'{"result":null,"id":1}': wire.Answer(1),
    b'{"result":["btcusdt@bookTicker"],"id":3}': wire.Answer(3),
    b'{"id":"x7","result":null}': wire.Answer("x7"),
    b'{"code":2,"msg":"Invalid request: no","id":4}': wire.Answer(
        4, "Invalid request: no (code 2)"
    ),
    b'{"error":{"code":3,"msg":"Invalid JSON"},"id":5}': wire.Answer(
        5, "Invalid JSON (code 3)"
    ),
    b'{"error":{"code":4,"msg":"Too many subscriptions"}}': wire.Answer(
        None, "Too many subscriptions (code 4)"
    ),
    b'{"e":"serverShutdown","E":1770123456789}': wire.Shutdown(),
    b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}': (
        wire.Shutdown()
    ),
    b'{"stream":"btcusdt@weather","data":{"rain":1}}': wire.Unknown("btcusdt@weather"),
    b'{"stream":"!miniTicker@arr","data":[]}': wire.Unknown("!miniTicker@arr"),
    b'{"status":200,"id":77,"payload":{}}': wire.Unknown(""),
}


@pytest.mark.parametrize("raw", ANSWERS, ids=bytes.decode)
def test_frames_that_are_no_quotes(raw: bytes) -> None:
    assert wire.decode_frame(raw) == ANSWERS[raw]


def test_unknown_fields_are_ignored_and_names_may_be_in_any_script() -> None:
    raw = TRADE.replace(b'"M":true', b'"M":true,"X":{"new":[1]},"zz":null')
    assert wire.decode_frame(raw) == wire.decode_frame(TRADE)
    text = (
        TRADE.decode().replace("bnbbtc", "币安人生usdt").replace("BNBBTC", "币安人生")
    )
    frame = wire.decode_frame(text.encode())
    assert isinstance(frame, wire.Trade) and frame.symbol == "币安人生"


BAD = {
    "cut": TRADE[:90],
    "empty": b"",
    "text": b"upstream connect error",
    "a list": b"[1,2,3]",
    "null": b"null",
    "not UTF-8": TRADE.replace(b"BNBBTC", b"\xff\xfe"),
    "deep": b"[" * 100_000,
    "no event": b'{"stream":"bnbbtc@trade","data":null}',
    "a list of events": b'{"stream":"bnbbtc@trade","data":[]}',
    "no price": TRADE.replace(b'"p":"0.00100000",', b""),
    "a price in words": TRADE.replace(b'"0.00100000"', b'"high"'),
    "an infinite price": TRADE.replace(b'"0.00100000"', b'"1e999"'),
    "an id in words": TRADE.replace(b"12345", b'"x"'),
    "another event": b'{"stream":"bnbbtc@trade","data":{"e":"haiku"}}',
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD.keys())
def test_what_does_not_fit_is_an_error_with_the_frame(raw: bytes) -> None:
    with pytest.raises(ProviderError, match="cannot be decoded") as hit:
        wire.decode_frame(raw)
    assert hit.value.frame == raw


@pytest.mark.parametrize("frame", [TRADE, AGGREGATE, BEST, USDM_BEST, *ANSWERS])
def test_no_cut_of_a_frame_brings_another_error(frame: bytes) -> None:
    for length in range(len(frame)):
        with contextlib.suppress(ProviderError):
            wire.decode_frame(frame[:length])


@settings(deadline=None)
@given(st.binary())
def test_no_bytes_bring_another_error(raw: bytes) -> None:
    with contextlib.suppress(ProviderError):
        wire.decode_frame(raw)
    with contextlib.suppress(ProviderError):
        wire.decode_frame(TRADE[:40] + raw + TRADE[60:])


@settings(deadline=None)
@given(st.decimals(min_value=0, max_value=10**12, places=8))
def test_numbers_are_the_nearest_doubles(number: Decimal) -> None:
    raw = TRADE.replace(b"0.00100000", f"{number:f}".encode())
    frame = wire.decode_frame(raw)
    assert isinstance(frame, wire.Trade) and frame.price == float(number)


def test_requests_are_the_venues_words() -> None:
    asked = wire.control("SUBSCRIBE", 1, ["btcusdt@trade", "btcusdt@bookTicker"])
    assert json.loads(asked) == {
        "method": "SUBSCRIBE",
        "params": ["btcusdt@trade", "btcusdt@bookTicker"],
        "id": 1,
    }
    asked = wire.control("LIST_SUBSCRIPTIONS", 2)
    assert json.loads(asked) == {"method": "LIST_SUBSCRIPTIONS", "id": 2}
    assert (
        wire.stream_name("BTCUSDT_261225", wire.AGGREGATE) == "btcusdt_261225@aggTrade"
    )
