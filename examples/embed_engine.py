"""Embed the engine: push trades of your own, read exact bars back as numpy.

python examples/embed_engine.py
"""

import time

import piker_core as pk

NS = 1_000_000_000


def main() -> None:
    """Three trades, one of them late, one told twice; two seconds of bars."""
    namespace = "example"
    start = time.time_ns() // (60 * NS) * 60 * NS - 60 * NS
    try:
        with pk.open_engine("myvenue", namespace=namespace) as engine:
            market = engine.add_market("xbtusd.myvenue", price_tick="0.1")
            market.set_status("live")
            engine.push(
                {
                    "symbol": "xbtusd",
                    "ticks": [
                        {
                            "type": "trade",
                            "price": 60000.0,
                            "size": 0.5,
                            "time_ns": start + 100,
                            "id": 1,
                            "side": "buy",
                        }
                    ],
                }
            )
            engine.push_trade(market, start + NS + 7, 60001.5, 0.25, id=3)
            engine.push_trade(market, start + NS // 2, 59999.9, 1.0, id=2)  # late
            engine.push_trade(market, start + NS // 2, 59999.9, 1.0, id=2)  # repeated
            engine.step(start + 2 * NS)
            with pk.attach_bars("xbtusd.myvenue", namespace=namespace) as bars:
                print(bars.snapshot(3)[["open", "high", "low", "close", "volume"]])
                print(bars.statistics())
            with pk.attach_ticks("myvenue", namespace=namespace) as ticks:
                cursor = ticks.cursor(start="oldest")
                print(cursor.poll()[["price", "size", "id"]], "lost:", cursor.lost)
    finally:
        pk.remove_segments(namespace)


if __name__ == "__main__":
    main()
