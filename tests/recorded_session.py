"""A session with the skeleton's venue as a recorder would have written it."""

import json
from pathlib import Path
from typing import Any

BEGIN_S = 1_700_000_012.25  # 12 s after the minute
MARKETS = {"BTC-USD": 83744.3, "ETH-USD": 2713.55}
EVERY_S = 0.05
WS = "wss://stream.newvenue.test/v1"
REST = "https://api.newvenue.test/v1"


def trade(number: int, market: str, time_s: float) -> dict[str, Any]:
    return {
        "id": number,
        "time": int(time_s * 1000) * 10**6,
        "price": round(MARKETS[market] + number * 7919 % 50 / 10, 1),
        "size": (number % 9 + 1) / 1000,
        "side": "buy" if number % 3 else "sell",
    }


def session(seconds: float) -> list[str]:
    """The lines of it; `seconds` of trades, a hundred of them before."""
    before_s = BEGIN_S - 1
    told = {
        name: [trade(n, name, BEGIN_S - 3 + n / 100) for n in range(1, 101)]
        for name in MARKETS
    }
    rows = [
        {
            "market": name,
            "base": name[:3],
            "quote": "USD",
            "price_step": 0.1,
            "size_step": 0.001,
        }
        for name in MARKETS
    ]
    last = [
        {"market": name, "last": price, "bid": price, "ask": price + 0.1}
        for name, price in MARKETS.items()
    ]
    both = ",".join(MARKETS)
    answers = [("/markets", rows), (f"/tickers?markets={both}", last)]
    answers += [(f"/trades?market={name}&since=1", told[name]) for name in MARKETS]
    nothing = {"first": int(BEGIN_S), "rows": []}
    answers += [(f"/bars?market={name}&period=60", nothing) for name in MARKETS]
    lines = [
        f"{REST}{path} -> {before_s}: {json.dumps(body)}" for path, body in answers
    ]
    lines += ["configuration: {}", f"{WS} <-> {before_s}"]
    for number, name in enumerate(MARKETS, 1):
        asked = {
            "op": "subscribe",
            "id": number + 40,
            "topics": [f"trades:{name}", f"best:{name}"],
        }
        lines.append(f"{WS} <- {before_s}: {json.dumps(asked)}")
        lines.append(f"{before_s}: " + json.dumps({"type": "ack", "id": number + 40}))
    for number in range(int(seconds / EVERY_S)):
        at_s = BEGIN_S + number * EVERY_S
        if number % 10 == 0:
            lines.append(f"{at_s:.4f}: " + '{"type":"beat"}')
        for name in MARKETS:
            trades = [trade(101 + 2 * number + n, name, at_s) for n in range(2)]
            frame = {"type": "trades", "market": name, "trades": trades}
            lines.append(f"{at_s + 0.001:.4f}: {json.dumps(frame)}")
    return lines


def write_session(
    folder: Path, *, name: str = "newvenue", seconds: float = 6.0
) -> list[Path]:
    """The files of it, REST and WebSocket apart."""
    folder.mkdir(exist_ok=True)
    lines = [line.replace("newvenue", name) for line in session(seconds)]
    files = [folder / "session.http.0", folder / "session.ws.1"]
    files[0].write_text("\n".join(x for x in lines if " -> " in x) + "\n")
    files[1].write_text("\n".join(x for x in lines if " -> " not in x) + "\n")
    return files
