"""A strategy on live quotes: buy above the 60 s mean, sell below; it only says so.

python examples/strategy.py xbtusd.kraken
"""

import sys

import trio

import piker_core as pk


async def main(fqme: str, seconds: float) -> None:
    """Decide once a quote, from the tick stream and the 1 s rows, for some seconds."""
    async with pk.open_feed([fqme]) as feed:
        flume = feed.flumes[fqme]
        print(f"{fqme} opened at {flume.first_quote['last']}, {flume.status}")
        side = ""
        with trio.move_on_after(seconds):
            async for quotes in feed.stream():
                last = quotes[fqme].get("last")
                rows = flume.rt.window(60)
                if last is None or not len(rows) or flume.status != "live":
                    continue
                mean = float(rows["close"].mean())
                if not flume.rt.intact(rows):  # a row was rewritten under us
                    continue
                now = "buy" if last > mean else "sell"
                if now != side:
                    side = now
                    print(f"{side:4} at {last} (mean {mean:.2f})")
        print(f"{flume.rt.statistics()['ticks']} ticks, gaps: {len(flume.rt.gaps())}")


if __name__ == "__main__":
    trio.run(
        main,
        sys.argv[1] if len(sys.argv) > 1 else "xbtusd.kraken",
        float(sys.argv[2]) if len(sys.argv) > 2 else 30.0,
    )
