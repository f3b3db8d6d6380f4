"""The paper engine on a recorded session, twice, in batches of other sizes."""

import gzip
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import piker_core as pk
from piker_core.adapter.trades import Best, best_ticks
from piker_core.ems.paper.engine import PaperConfig, PaperEngine
from piker_core.ems.paper.messages import Message
from piker_core.orders import BrokerdOrder
from tests.paper_market import fills, ticks

D = Decimal


def recorded(captures: Path) -> NDArray[np.void]:
    """Trades and best quotes of BTCUSDT as ticks, over midnight of 2024-08-08."""

    def lines() -> Iterator[str]:
        for day in ("20240808", "20240809"):
            path = captures / "binance" / f"spot_btcusdt_{day}.gz"
            with gzip.open(path, "rt") as file:
                yield from file

    rows: list[tuple[str, float, float, int]] = []
    best: Best | None = None
    for line in lines():
        received, _, text = line.partition(" ")
        if '@trade"' in text:
            frame = json.loads(text)["data"]
            trade = ("trade", float(frame["p"]), float(frame["q"]), int(received))
            rows.append(trade)
        elif '@bookTicker"' in text:
            frame = json.loads(text)["data"]
            bid, bid_size, ask, ask_size = (float(frame[key]) for key in "bBaA")
            now: Best = (bid, bid_size, ask, ask_size)
            for tick in best_ticks(best, now, int(received)):
                rows.append((tick["type"], tick["price"], tick["size"], int(received)))
            best = now
    return ticks(rows)


def trade_on(
    session: NDArray[np.void], batch: int
) -> tuple[list[Message], PaperEngine]:
    """A maker on both sides of the market and, at times, a taker."""
    config = PaperConfig(maker_fee=D("0.0001"), taker_fee=D("0.0005"), latency_s=0.05)
    engine = PaperEngine("binance", config=config)
    fqme = "btcusdt.binance"
    engine.add_market(
        fqme, price_tick=D("0.01"), size_tick=D("0.00001"), currency="usdt", market_id=0
    )
    said: list[Message] = []
    for turn, start in enumerate(range(0, len(session), 1500)):
        part = session[start : start + 1500]
        for place in range(0, len(part), batch):
            said += engine.feed(part[place : place + batch])
        now_ns = int(part["recv_ns"][-1])
        last = D(repr(float(part["price"][-1]))).quantize(D("0.01"))
        for action, sign in (("buy", -1), ("sell", 1)):
            for kind, away in (("rest", D(turn % 3) / 100), ("take", D(-3))):
                order = BrokerdOrder(
                    oid=f"{turn}{action}{kind}",
                    account="paper",
                    time_ns=now_ns,
                    symbol=fqme,
                    price=last + sign * away,
                    size=D("0.2"),
                    action=action,  # type: ignore[arg-type]
                    reqid=f"{turn}{action}{kind}",
                    tif="ioc" if kind == "take" else "gtc",
                )
                said += engine.submit(order, now_ns)
    return said, engine


def test_a_recorded_session_fills_alike_each_time(captures: Path) -> None:
    session = recorded(captures)
    said, engine = trade_on(session, 1500)
    assert trade_on(session, 97)[0] == said
    given = fills(said)
    kinds = {fill.broker_details["why"].partition(",")[0] for fill in given}
    assert kinds >= {
        "took the ask",
        "took the bid",
        "a trade went through its price",
        "a trade at its price",
    }
    signs = {"buy": 1, "sell": -1}
    total = sum((signs[fill.action] * fill.size for fill in given), D(0))
    assert engine.position("btcusdt.binance") == total
    traded = session["size"][session["type"] == pk.TICK_TYPES["trade"]].sum()
    made = sum((fill.size for fill in given if fill.liquidity == "maker"), D(0))
    assert 0 < made < traded
    assert engine.statistics()["ticks"] == len(session)
    assert engine.statistics()["examined"] < len(session) / 2
