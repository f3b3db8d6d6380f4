"""Tail a market's 1 s bars from another process: no event loop, nobody asked.

piker-core feed xbtusd.kraken &
python examples/tail_bars.py xbtusd.kraken
"""

import sys

import piker_core as pk


def main(fqme: str, count: int = 10) -> None:
    """Print `count` closed bars as they come; a late revision of one is told too."""
    with pk.attach_bars(fqme, period=1) as bars:
        head = bars.head
        window = bars.window(300)  # zero copy, newest last
        newest = window["time"][-1:]
        print(f"{fqme} is {bars.status}: {len(window)} rows, newest {newest}")
        while count:
            newer = bars.wait(after=head, timeout=5.0)
            if newer == head:
                alive = "alive" if bars.writer_alive else "gone"
                print(f"no row for 5 s: {bars.status}, the writer is {alive}")
                return
            for row in bars.snapshot(newer - head, end=newer - 1):
                flags = pk.BarFlag(int(row["flags"])).name or ""
                print(row["time"], row["close"], row["volume"], row["count"], flags)
                count -= 1
            head = newer


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else "xbtusd.kraken",
        int(sys.argv[2]) if len(sys.argv) > 2 else 10,
    )
