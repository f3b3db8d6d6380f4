"""The tape of a market of TWS's, written down message by message, and played again."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import piker_core as pk
from piker_core.journal import Kind
from tests.taped import Tape as Written
from tests.taped import play, rings, tapped, unequal

pytest.importorskip("ib_async", reason="no codec without the extra ib")

from providers.ib import codec
from providers.ib.tapped import Details, TappedSession, TappedTape
from tests.ib_listing import FOREX, FUTURE

NS = 10**9
T0 = 1_678_740_829
VERSION = 176


class Line:
    """A market's messages on a session, each heard and then taken by its tape."""

    def __init__(self, engine: Any, listing: Any) -> None:
        self.engine, self.symbol = engine, listing.symbol
        engine.add_market(f"{listing.symbol}.ib").set_status("live")
        self.tape = TappedTape(engine.tap, listing.symbol, Details(listing, 233))
        self.session: Any = SimpleNamespace(fields=[], address="tws:1", version=VERSION)
        self.tapped = TappedSession(engine.tap, self.session)
        self.told: list[tuple[Any, ...]] = []
        self.reader = codec.Reader(codec.Inbox(self.hear), VERSION)

    def hear(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.told.append((self.tapped.heard(), name, arguments[1:]))

    def take(self, now_ns: int, *messages: str) -> list[Any]:
        """The ticks of messages that come in one chunk."""
        for message in messages:
            self.session.fields = message.split("|")
            self.reader.interpret(self.session.fields)
        for heard, name, arguments in self.told:
            self.tape.heard = heard
            try:
                self.tape.take(name, arguments, now_ns)
            except ValueError:
                continue  # as the feed does
        self.told.clear()
        return self.tape.flush(now_ns)

    def push(self, ticks: Sequence[Any], *, at_once: int = 50) -> None:
        for place in range(0, len(ticks), at_once):
            part = ticks[place : place + at_once]
            self.engine.push({"symbol": self.symbol, "ticks": part})


def trade(second: int, price: float, size: int = 3) -> str:
    return f"99|7|2|{T0 + second}|{price}|{size}|0|NASDAQ|"


def quotes(written: Written) -> list[dict[str, Any]]:
    return [
        msgspec.json.decode(r.body) for r in written.records if r.kind == Kind.QUOTE
    ]


def test_calls_are_made_again_with_the_messages_that_tws_sent(namespace: str) -> None:
    written = Written()
    with tapped(written, namespace, provider="ib", module="providers.ib") as engine:
        line = Line(engine, FUTURE)
        line.tape.begin(T0 * NS, by_tick=True)
        volume = f"46|6|7|48|100.5;2;{T0 * 1000};40;100.5;true"
        held = line.take((T0 + 1) * NS, volume, trade(0, 100.5), trade(0, 100.75))
        line.push(line.take((T0 + 2) * NS, "46|6|7|48|nonsense", trade(1, 101.0)))
        line.push(held, at_once=1)
        line.tape.resume((T0 + 3) * NS)
        line.tape.decide("sampled")
        volume = f"46|6|7|48|102.5;2;{(T0 + 3) * 1000};60;100.5;true"
        line.push(line.take((T0 + 4) * NS, volume, "1|6|7|4|103.0|2|0", "2|6|7|8|70"))
        assert line.take((T0 + 5) * NS) == []
    live = rings([f"{FUTURE.symbol}.ib"], namespace)
    played, counts = play(written.records, f"{namespace}a")
    assert unequal(live, played) == []
    assert counts.unknown == 0 and counts.frames == 8
    assert live[f"{FUTURE.symbol}.ib", 1]["volume"].sum() > 9
    assert not any(each.get("ticks") for each in quotes(written))


def test_a_market_of_quotes_repeats_what_is_in_force(namespace: str) -> None:
    written = Written()
    with tapped(written, namespace, provider="ib", module="providers.ib") as engine:
        line = Line(engine, FOREX)
        line.tape.remember(T0 * NS)
        line.tape.begin(T0 * NS, by_tick=False)
        line.push(line.take((T0 + 1) * NS, "1|6|7|1|1.25|100|0", "1|6|7|2|1.5|100|0"))
        line.push(line.take((T0 + 3) * NS, "1|6|7|1|1.125|100|0"))
    with pk.attach_ticks("ib", namespace=namespace) as ring:
        live = ring.cursor(start="oldest").poll().copy()
    played, counts = play(written.records, f"{namespace}a")
    assert counts.ticks == len(live) > 3 and counts.unknown == 0
    assert unequal(rings([f"{FOREX.symbol}.ib"], namespace), played) == []


def test_after_a_hole_ticks_are_written_whole(namespace: str) -> None:
    written = Written()
    with tapped(written, namespace, provider="ib", module="providers.ib") as engine:
        line = Line(engine, FUTURE)
        line.tape.begin(T0 * NS, by_tick=True)
        before = line.take((T0 + 1) * NS, trade(0, 100.5))
        written.broken = True
        lost = line.take((T0 + 2) * NS, trade(1, 100.75))
        written.broken = False
        line.push(before)
        line.push(lost)
        line.push(line.take((T0 + 3) * NS, trade(2, 101.0)))
    live = rings([f"{FUTURE.symbol}.ib"], namespace)
    played, counts = play(written.records, f"{namespace}a")
    assert unequal(live, played) == []
    assert counts.unknown == 0
    whole = [each["ticks"][0]["price"] for each in quotes(written) if "ticks" in each]
    assert whole == [100.5, 100.75, 101.0]
