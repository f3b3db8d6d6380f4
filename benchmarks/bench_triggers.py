"""What a tick costs that is tested for triggers, however many orders wait."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np

import piker_core as pk
from benchmarks.common import Case, Options, Row, main, measure, namespace, pin
from benchmarks.trades import Tape
from piker_core.core.triggers import Triggers
from piker_core.ems.watch import Polled, Watch

FQME = "xbtusd.kraken"
TICKS = 4096
MANY = 10_000
SOME = 100
FEW_TICKS = 64
"""For what looks at each order on each tick."""
NEAR = 60_000.0
FAR = 20_000.0
"""So far away prices do not come."""


def rows(options: Options) -> Iterator[Row]:
    pin()
    ticks = made_ticks()
    yield level_row(ticks, options)
    yield trail_row(ticks, options)
    yield rising_row(options)
    yield arming_row(options)
    with namespace() as space:
        yield poll_row(space, options)


def made_ticks(prices: Any = None) -> Any:
    ticks = np.zeros(TICKS, pk.TICK_DTYPE)
    calls = Tape().calls(TICKS)
    ticks["time_ns"] = [call[0] for call in calls]
    ticks["price"] = [call[1] for call in calls] if prices is None else prices
    ticks["size"], ticks["count"] = 0.5, 1
    ticks["type"] = pk.TICK_TYPES["trade"]
    return ticks


def far_levels(size: int) -> Triggers:
    """Levels on both sides that no tick reaches."""
    book = Triggers()
    for key in range(size):
        sign = 1 if key % 2 else -1
        book.add(key, NEAR + sign * (FAR + key), sign)
    return book


def trails(size: int, best: float, sides: tuple[int, int] = (-1, 1)) -> Triggers:
    """Trails whose distance is never reached."""
    book = Triggers()
    for key in range(size):
        side = sides[key % 2]
        book.add_trail(key, FAR + key, side, best + side * (key % 7))
    return book


def feeding(book: Triggers, ticks: Any) -> Callable[[None], None]:
    def run(_: None) -> None:
        if book.feed(ticks, 0):
            raise RuntimeError("a trigger fired that should not")

    return run


def level_row(ticks: Any, options: Options) -> Row:
    """The same ticks with ever more orders; beside it a look at each of some."""
    cases = [
        Case("piker-core, 10,000 rest", feeding(far_levels(MANY), ticks), TICKS),
        Case("piker-core, 100 rest", feeding(far_levels(SOME), ticks), TICKS),
        Case("piker-core, 1 rests", feeding(far_levels(1), ticks), TICKS),
        Case("piker-core, none rests", feeding(far_levels(0), ticks), TICKS),
        Case("two compares in a Python loop", comparing(ticks), TICKS),
        Case("a Python loop over 100 orders", looking(ticks), FEW_TICKS),
    ]
    return measure("a tick that reaches no level", cases, options, goal="<= 1.1x")


def comparing(ticks: Any) -> Callable[[None], None]:
    prices = ticks["price"].tolist()

    def run(_: None) -> None:
        up, down = 1e9, -1e9
        for price in prices:
            if price >= up or price <= down:
                raise RuntimeError("reached")

    return run


def looking(ticks: Any) -> Callable[[None], None]:
    prices = ticks["price"][:FEW_TICKS].tolist()
    orders = [(1e9, 1) if key % 2 else (-1e9, -1) for key in range(SOME)]

    def run(_: None) -> None:
        for price in prices:
            for level, direction in orders:
                if (price - level) * direction >= 0:
                    raise RuntimeError("reached")

    return run


def trail_row(ticks: Any, options: Options) -> Row:
    best = float(ticks["price"][0])
    cases = [
        Case("piker-core, 10,000 rest", feeding(trails(MANY, best), ticks), TICKS),
        Case("piker-core, 100 rest", feeding(trails(SOME, best), ticks), TICKS),
        Case("piker-core, none rests", feeding(far_levels(0), ticks), TICKS),
    ]
    return measure("a tick that no trail fires at", cases, options)


def rising_row(options: Options) -> Row:
    """Each tick is a new best of all: what moves them is done for all at once."""
    numbers = count()

    def rising() -> Any:
        return made_ticks(1e6 + next(numbers) * TICKS + np.arange(TICKS, dtype=float))

    def case(name: str, size: int) -> Case:
        book = trails(size, 1e6, (-1, -1))
        return Case(name, lambda ticks: book.feed(ticks, 0), TICKS, rising)

    cases = [case("piker-core, 10,000 rest", MANY), case("piker-core, 1 rests", 1)]
    return measure("a tick that moves all trails", cases, options)


def arming_row(options: Options) -> Row:
    """An order is armed and disarmed again among others."""
    book, keys = far_levels(MANY), range(MANY, MANY + 1000)
    levels = sorted(np.random.default_rng(1).uniform(3e5, 4e5, MANY).tolist())
    prices = np.random.default_rng(2).uniform(3e5, 4e5, len(keys)).tolist()

    def arm(_: None) -> None:
        for key, price in zip(keys, prices, strict=True):
            book.add(key, price, 1)
        for key in keys:
            book.remove(key)

    def insert(_: None) -> None:
        for price in prices:
            insort(levels, price)
        for price in prices:
            del levels[bisect_left(levels, price)]

    cases = [
        Case("piker-core", arm, len(keys)),
        Case("a sorted list", insert, len(keys)),
    ]
    return measure("add() and remove() beside 10,000", cases, options)


def poll_row(space: str, options: Options) -> Row:
    """From the tick ring through a watch, beside the cursor alone."""
    with (
        pk.open_engine("kraken", namespace=space, tick_capacity=1 << 15) as engine,
        pk.attach_ticks("kraken", namespace=space) as ring,
    ):
        market = engine.add_market(FQME, capacity={1: 4096, 60: 256})
        market.set_status("live")
        tape = Tape(step_ns=1000)
        engine.push_trade(market, *tape.calls(1)[0])
        watch = Watch("kraken", space)
        watch.add_market(FQME)
        for key in range(MANY):
            sign = 1 if key % 2 else -1
            watch.arm(str(key), FQME, NEAR + sign * (FAR + key), sign)
        cursor = ring.cursor()

        def case(name: str, poll: Callable[[], Any]) -> Case:
            """Only the ticks pushed for it are read while it is timed."""

            def push() -> None:
                while len(poll()):
                    pass
                for call in tape.calls(TICKS):
                    engine.push_trade(market, *call)

            return Case(name, lambda _: poll(), TICKS, push)

        cases = [
            case("Watch, 10,000 rest", lambda: unfired(watch.poll())),
            case("TickCursor alone", cursor.poll),
        ]
        return measure("poll(), a tick", cases, options)


def unfired(polled: Polled) -> Any:
    if polled.fired:
        raise RuntimeError("a trigger fired that should not")
    return polled.ticks


if __name__ == "__main__":
    main("Triggers of resting orders", rows)
