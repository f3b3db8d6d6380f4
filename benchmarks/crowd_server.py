"""A simulated Binance whose markets trade alike, and what it says of itself.

    python -m benchmarks.crowd_server MARKETS TRADES_A_SECOND

Prints its addresses, then answers each line on its standard input with a line of JSON:
`usage` with the processor time it has used, in seconds; `counts START END` with the
trades of all markets in each second from START up to END (Unix s).
"""

import resource
import sys
from typing import Any

import msgspec
import trio

from providers.binance.venue import Limits, Venue, make_crowd, open_venue

HISTORY_S, HISTORY_RATE = 120.0, 20.0


def answer(venue: Venue, names: list[str], command: str) -> Any:
    """What a command asks for."""
    if command.startswith("usage"):
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime
    start_s, end_s = (int(text) for text in command.split()[1:])
    return {
        name: {
            candle.time_s: candle.count
            for candle in venue.candles(name, 1, start_s, end_s)
        }
        for name in names
    }


def say(what: Any) -> None:
    """One line of JSON."""
    sys.stdout.write(msgspec.json.encode(what).decode() + "\n")
    sys.stdout.flush()


async def main(markets: int, rate: float) -> None:
    """Serve until standard input ends."""
    crowd = make_crowd(markets)
    roomy = Limits(weight=1_000_000)  # the start of so many is not what is measured
    async with open_venue(
        pairs=crowd,
        live_rate=rate,
        history_rate=HISTORY_RATE,
        history_s=HISTORY_S,
        limits=roomy,
    ) as venue:
        say(venue.config)
        names = [symbol.name for symbol in crowd]
        lines = trio.wrap_file(sys.stdin)
        async for line in lines:
            say(answer(venue, names, line))


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), float(sys.argv[2]))
