"""All that changes an engine is written down, and played again gives the same rings."""

import contextlib
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

import piker_core as pk
from piker_core.adapter import events
from piker_core.adapter.market_feed import MarketFeed
from piker_core.adapter.tap import tap_of
from piker_core.channel import EngineChannel
from piker_core.errors import BadTick, PikerError
from piker_core.journal import Kind, Record
from providers.kraken.wire import FRAMES
from tests.adapter_host import Host
from tests.taped import Tape, play, rings, tapped, unequal

BASE_S = 1_600_000_020
NS = 10**9
FQME = "xbtusd.kraken"
ABOUT = msgspec.json.encode({"venue_symbol": "BTC/USD"})


def tick(rng: random.Random, at_ns: int, number: int) -> dict[str, Any]:
    return {
        "type": rng.choice(["trade", "trade", "utrade", "dark_trade", "bid", "x"]),
        "price": rng.choice([100.0, 101.5, Decimal("100.25"), np.float64(99.5)]),
        "size": rng.choice([1, 0.5, Decimal("0.1")]),
        "time_ns": at_ns - rng.choice([0, 0, 2 * NS]),
        "id": number - rng.choice([0, 0, 0, 3]),
        "side": rng.choice(["buy", "sell", "", 1, None]),
    }


def records(rng: random.Random, at_ns: int, number: int) -> Any:
    rows = np.zeros(3, pk.TICK_DTYPE)
    rows["type"], rows["price"], rows["size"] = 1, 100 + rng.random(), rng.random()
    rows["time_ns"], rows["id"] = at_ns, [number * 10 + n for n in range(3)]
    return rows


def history(first_s: int, count: int) -> Any:
    rows = np.zeros(count, pk.OHLCV_DTYPE)
    rows["time"] = first_s - 60 * count + 60 * np.arange(count)
    for name in ("open", "high", "low", "close", "bar_wap"):
        rows[name] = 100.0
    rows["volume"], rows["count"] = 1.0, 2
    return rows


def do_anything(engine: Any, market: Any, rng: random.Random, number: int) -> None:
    """One call of the engine, now and then one that it refuses."""
    at_ns = (BASE_S + number // 8) * NS + number
    calls: list[Callable[[], object]] = [
        lambda: engine.push(
            {
                "symbol": rng.choice(["xbtusd", FQME]),
                "last": rng.choice([None, 100.0, Decimal(99), "nonsense"]),
                "ticks": [tick(rng, at_ns, number) for _ in range(rng.randrange(4))],
            }
        ),
        lambda: engine.push(
            pk.Quote("xbtusd", [pk.Tick("trade", 100.5, 1.0, time=at_ns / NS)])
        ),
        lambda: engine.push({"symbol": "nosuch", "ticks": []}),
        lambda: engine.push({"symbol": "xbtusd", "ticks": [{"type": "trade"}]}),
        lambda: engine.push_trade(market, at_ns, 100.5, Decimal("0.3"), id=number),
        lambda: engine.push_trade(market, at_ns, 100.5, 1, side="sell", count=3),
        lambda: engine.push_ticks(market, records(rng, at_ns, number)),
        lambda: engine.step(at_ns // NS * NS),
        lambda: engine.step((at_ns // NS + 1) * NS),
        lambda: market.set_status("reconnecting", reason="a cut"),
        lambda: market.set_status("live", since_ns=at_ns),
        lambda: market.add_gap(start_ns=at_ns - 3 * NS, end_ns=at_ns, cause="cut"),
        lambda: market.add_gap(
            start_ns=at_ns - 3 * NS, end_ns=at_ns, cause="cut", repaired=True
        ),
        lambda: market.set_sessions(
            rng.choice([None, [(0, at_ns), (at_ns + 5, NS**2)]])
        ),
        lambda: market.bars[60].prepend(history(BASE_S // 60 * 60, 1 + number)),
    ]
    with contextlib.suppress(PikerError, ValueError):  # refused: nothing has changed
        rng.choice(calls)()


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_done_to_an_engine_is_played_again_bit_for_bit(
    seed: int, namespace: str
) -> None:
    tape, rng = Tape(), random.Random(seed)
    with tapped(tape, namespace) as engine:
        market = engine.add_market(
            FQME, price_tick="0.1", capacity={1: 4096, 60: 4096}, about=ABOUT
        )
        for number in range(300):
            do_anything(engine, market, rng, number)
    live = rings([FQME], namespace)
    played, counts = play(tape.records, f"{namespace}a")
    assert unequal(live, played) == []
    assert len(live[FQME, 1]) > 10
    assert counts.unknown == 0
    again, _ = play(tape.records, f"{namespace}a")
    assert unequal(played, again) == []


def test_rows_that_were_there_before_are_written_down_and_played_first(
    namespace: str,
) -> None:
    with pk.open_engine("kraken", namespace=namespace) as engine:
        market = engine.add_market(FQME)
        engine.push_trade(market, BASE_S * NS, 100.0, 1.0)
    tape = Tape()
    with tapped(tape, namespace) as engine:
        market = engine.add_market(FQME)
        market.set_status("live", since_ns=(BASE_S + 1) * NS)
        engine.step((BASE_S + 3) * NS)
    played, _ = play(tape.records, f"{namespace}a")
    rows = played[FQME, 1]
    assert rows["time"].tolist() == [BASE_S + n for n in range(4)]
    assert (rows["close"] == 100.0).all()


def test_an_engine_that_is_opened_again_goes_on_in_the_same_rings(
    namespace: str,
) -> None:
    tape = Tape()
    for number in range(3):
        with tapped(tape, namespace) as engine:
            market = engine.add_market(FQME)
            market.set_status("live")
            at_ns = (BASE_S + 5 * number) * NS
            engine.push_trade(market, at_ns, 100.0 + number, 1.0, id=number + 1)
            engine.push_trade(market, at_ns, 100.0, 1.0, id=1)
            engine.step(at_ns + NS)
    live = rings([FQME], namespace)
    played, _ = play(tape.records, f"{namespace}a")
    assert unequal(live, played) == []


# Frames


def trade_frame(*numbers: int) -> bytes:
    rows = [
        {
            "symbol": "BTC/USD",
            "side": "buy",
            "price": 100.0 + number,
            "qty": 0.5,
            "trade_id": number,
            "timestamp": f"2020-09-13T12:27:{number:02d}.000000Z",
        }
        for number in numbers
    ]
    return msgspec.json.encode({"channel": "trade", "type": "update", "data": rows})


def ticker_frame(*bids: float) -> bytes:
    rows = [
        {"symbol": "BTC/USD", "bid": bid, "bid_qty": 1.0, "ask": 200.0, "ask_qty": 2.0}
        for bid in bids
    ]
    return msgspec.json.encode({"channel": "ticker", "type": "update", "data": rows})


class Feed:
    """A market of Kraken's behind a tap, fed with frames by hand."""

    def __init__(self, engine: Any) -> None:
        self.handle = engine.add_market(FQME, about=ABOUT)
        self.channel = EngineChannel(engine)
        host = Host(engine)
        self.market = MarketFeed(
            "xbtusd",
            self.handle,
            host,
            normalize=FRAMES.normalize,
            normalize_best=FRAMES.normalize_best,
        )
        self.market.started = True
        tap = tap_of(self.channel)
        assert tap is not None
        self.hear = tap.listen(self._take, "ws://venue/v2?token=secret")
        self.heard_ns = BASE_S * NS

    async def _take(self, link: Any, raw: bytes) -> None:
        for part in FRAMES.split(raw):
            if part.best:
                await self.market.take_best(part.rows, link.heard_ns)
            else:
                await self.market.take(part.rows)

    async def take(self, raw: bytes) -> None:
        await self.hear(self, raw)


def bodies(tape: Tape, kind: Kind) -> list[Any]:
    return [msgspec.json.decode(r.body) for r in tape.records if r.kind == kind]


async def test_what_frames_told_is_named_not_written_again(namespace: str) -> None:
    tape = Tape()
    with tapped(tape, namespace, module="providers.kraken") as engine:
        feed = Feed(engine)
        await feed.take(trade_frame(1, 2))
        await feed.take(ticker_frame(99.0, 99.5, 99.5))
        await feed.take(b'{"channel":"heartbeat"}')
        feed.market.held = []
        await feed.take(trade_frame(3))
        await feed.take(trade_frame(4, 5))
        held, feed.market.held = feed.market.held, None
        feed.market.tracker.see(4, BASE_S * NS, 0.0)
        for quote in held:
            await feed.market._push_news(quote)
        await feed.channel.send({"symbol": "xbtusd", "last": 7.0, "ticks": []})
    assert bodies(tape, Kind.QUOTE) == [
        {"frame": 1},
        {"frame": 2},
        {"frame": 2, "part": 1},
        {"frame": 2, "part": 2, "kept": True, "take": 4},
        {"frame": 4, "kept": True, "take": 5},
        {"frame": 5, "kept": True, "take": 6},
        {"take": 5},
        {"take": 6, "places": [1]},
        {"symbol": "xbtusd", "last": 7.0},
    ]
    live = rings([FQME], namespace)
    played, counts = play(tape.records, f"{namespace}a")
    assert unequal(live, played) == []
    assert counts.frames == 5 and counts.unknown == 0
    assert not any(b"secret" in record.body for record in tape.records)


async def test_after_a_hole_nothing_before_it_is_referred_to(namespace: str) -> None:
    tape = Tape()
    with tapped(tape, namespace, module="providers.kraken") as engine:
        feed = Feed(engine)
        await feed.take(trade_frame(1))
        feed.market.held = []
        await feed.take(trade_frame(2))
        tape.broken = True
        await feed.take(trade_frame(3))
        tape.broken = False
        held, feed.market.held = feed.market.held, None
        lost = {"records": 2, "cause": "full", "first_ns": 5, "last_ns": 9}
        tape.records.append(Record(Kind.LOST, 9, 0, msgspec.json.encode(lost)))
        for quote in held:
            await feed.market._push_news(quote)
        await feed.take(trade_frame(6))
    live = rings([FQME], namespace)
    played, counts = play(tape.records, f"{namespace}a")
    names = ["time", "open", "close", "volume", "count"]
    assert (live[FQME, 1][names] == played[FQME, 1][names]).all()
    assert counts.holes == 1 and counts.unknown == 0
    written = bodies(tape, Kind.QUOTE)
    assert [each["ticks"][0]["id"] for each in written if "ticks" in each] == [2, 3]
    assert written[-1] == {"frame": 1}


def test_a_hole_is_a_gap_of_every_market(namespace: str) -> None:
    tape = Tape()
    with tapped(tape, namespace) as engine:
        market = engine.add_market(FQME)
        engine.push_trade(market, BASE_S * NS, 100.0, 1.0)
        start_ns, end_ns = BASE_S * NS, (BASE_S + 2) * NS
        lost = {"records": 2, "cause": "x", "first_ns": start_ns, "last_ns": end_ns}
        tape.records.append(Record(Kind.LOST, 9, 0, msgspec.json.encode(lost)))
    space = f"{namespace}a"
    try:
        with pk.open_engine("kraken", namespace=space):
            pass
        pk.remove_segments(space)
        from piker_core.adapter.player import Player

        with Player(space) as player:
            for record in tape.records:
                player.play(record)
        with pk.attach_bars(FQME, namespace=space) as bars:
            [gap] = bars.gaps()
        assert (gap["start_ns"], gap["end_ns"]) == (start_ns, end_ns)
        assert not gap["repaired"] and gap["cause"] == b"hole in the journal"
    finally:
        pk.remove_segments(space)


async def test_quotes_of_a_provider_without_frames_are_written_whole(
    namespace: str,
) -> None:
    tape = Tape()
    with tapped(tape, namespace) as engine:
        feed = Feed(engine)
        await feed.take(trade_frame(1))
    [quote] = bodies(tape, Kind.QUOTE)
    assert quote["ticks"][0]["id"] == 1
    played, counts = play(tape.records, f"{namespace}a")
    assert unequal(rings([FQME], namespace), played) == []
    assert counts.frames == 1


def test_what_the_engine_refuses_is_not_written(namespace: str) -> None:
    tape = Tape()
    with tapped(tape, namespace) as engine:
        engine.add_market(FQME)
        bad = {"type": "trade", "price": -1.0, "size": 1.0, "time_ns": 5}
        with pytest.raises(BadTick):
            engine.push({"symbol": "xbtusd", "ticks": [bad]})
    assert bodies(tape, Kind.QUOTE) == []


def test_without_a_tap_nothing_stands_in_the_way(namespace: str) -> None:
    with pk.open_engine("kraken", namespace=namespace) as engine:
        handle = engine.add_market(FQME)
        channel = engine.send_channel()
        assert tap_of(handle) is None and tap_of(channel) is None
        market = MarketFeed("xbtusd", handle, Host(engine), normalize=FRAMES.normalize)
        assert market._normalize is FRAMES.normalize
        assert channel._engine is engine


def test_what_cannot_be_played_is_counted_and_changes_nothing(namespace: str) -> None:
    tape = Tape()
    with tapped(tape, namespace) as engine:
        engine.add_market(FQME)
    odd = [
        Record(Kind.QUOTE, 1, 1, b"nonsense"),
        Record(Kind.QUOTE, 1, 1, msgspec.json.encode({"take": 9})),
        Record(Kind.QUOTE, 1, 1, msgspec.json.encode({"frame": 9, "market": 0})),
        Record(Kind.QUOTE, 1, 7, msgspec.json.encode({"symbol": "xbtusd"})),
        Record(Kind.GAP, 1, 1, events.encode_body(
            events.Gap(fqme="other.kraken", start_ns=1, end_ns=2))),
    ]  # fmt: skip
    played, counts = play([*tape.records[:2], *odd], f"{namespace}a")
    assert counts.unknown == len(odd)
    assert len(played[FQME, 1]) == 0


class Odd:
    """Something that the engine reads as a quote and JSON does not know."""

    symbol, last = "xbtusd", None
    ticks = ({"type": "x\udc80"},)

    def get(self, name: str) -> Any:
        return getattr(self, name)


def test_what_cannot_be_written_is_a_hole_and_no_error(namespace: str) -> None:
    tape = Tape()
    with tapped(tape, namespace) as engine:
        market = engine.add_market(FQME)
        assert engine.push(Odd()) == 0
        market.set_status("live", reason="a\udc80")
    assert len(tape.lost) == 2 and tape.epoch == 2
