"""What a provider's call has of the engine, and how it is cut off from it."""

import weakref
from collections.abc import Iterator

import pytest

import piker_core as pk
from piker_core.cutoff import CutEngine, Handle, StreamChannel

FQMES = ("xbtusd.kraken", "ethusd.kraken")


@pytest.fixture
def engine(namespace: str) -> Iterator[pk.FeedEngine]:
    with pk.open_engine("kraken", tick_capacity=64) as engine:
        for fqme in FQMES:
            engine.add_market(fqme, capacity={1: 128, 60: 128}).set_status("live")
        yield engine


def quote(symbol: str, number: int) -> dict[str, object]:
    tick = {"type": "trade", "price": 1.0, "size": 1.0, "time_ns": 10**18 + number}
    return {"symbol": symbol, "ticks": [tick | {"id": number}]}


def test_a_cut_channel_and_its_clones_take_nothing_of_a_dropped_market(
    engine: pk.FeedEngine,
) -> None:
    channel = StreamChannel(engine, weakref.WeakSet())
    clone = channel.clone()
    assert channel.send_nowait(quote("xbtusd", 1)) == 1
    for end in channel._ends:
        end.cut(CutEngine(engine, {"xbtusd", "xbtusd.kraken"}))
    later = clone.clone()
    tick = pk.Tick("trade", 1.0, 1.0, time_ns=10**18, id=5)
    for end in (channel, clone, later):
        assert end.send_nowait(quote("xbtusd", 2)) == 0
        assert end.send_nowait(quote("xbtusd.kraken", 3)) == 0
        assert end.send_nowait(pk.Quote("xbtusd", [tick])) == 0
    for number, end in enumerate((channel, clone, later), 10):
        assert end.send_nowait(quote("ethusd", number)) == 1
        with pytest.raises(pk.PikerError, match="a quote is a mapping"):
            end.send_nowait(5)
        with pytest.raises(pk.PikerError, match="no market 'nosuch'"):
            end.send_nowait(quote("nosuch", 4))
    with pk.attach_ticks("kraken") as ticks:
        ids = ticks.cursor(start="oldest").poll()["id"].tolist()
    assert ids == [1, 10, 11, 12]


def test_a_cut_handle_is_read_and_no_more_written(engine: pk.FeedEngine) -> None:
    market = engine.add_market("mlnusd.kraken", capacity={1: 128, 60: 128})
    handle = Handle(market)
    handle.set_status("live", since_ns=10**18)
    handle.add_gap(start_ns=10**18, end_ns=10**18 + 5, cause="test")
    handle.set_sessions([(0, 2 * 10**18)])
    handle.cut = True
    handle.set_status("closed")
    handle.add_gap(start_ns=10**18 + 7, end_ns=10**18 + 9, cause="none")
    handle.set_sessions([])
    engine.step(10**18 + 10**9)
    assert (market.status, handle.status, handle.told) == ("live", "live", True)
    assert market.statistics()["gaps"] == handle.statistics()["gaps"] == 1
    assert handle.symbol == "mlnusd" and handle.bars[1].times() == ()
