"""Made-up trades, the same from the same seed, in each form in which they enter."""

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

import piker_core as pk

START_NS = 1_732_320_000_000_000_000
Call = tuple[int, float, float, int, int, int]
Quotes = list[dict[str, Any]]


class Tape:
    """Trades of a market or of several in turn, `step_ns` apart, with ascending ids."""

    def __init__(
        self, symbols: tuple[str, ...] = ("xbtusd",), step_ns: int = 1_000_000
    ):
        self._random = random.Random(7)
        self._symbols = symbols
        self._step_ns = step_ns
        self._number = 0
        self._price = 600_000

    def _next(self) -> Call:
        """time_ns, price, size, id, side, count"""
        draw = self._random.random
        self._number += 1
        self._price += int(draw() * 5) - 2
        side = 1 if draw() < 0.5 else -1
        size = int(draw() ** 4 * 2e8 + 1) / 1e8
        time_ns = START_NS + self._number * self._step_ns
        return time_ns, self._price / 10, size, self._number, side, 1

    def calls(self, count: int) -> list[Call]:
        """Arguments of `push_trade` after the market."""
        return [self._next() for _ in range(count)]

    def quotes(self, count: int, trades: int = 1) -> Quotes:
        """Quotes of so many trades each, all objects new as from a decoder."""
        return [
            {
                "symbol": self._symbols[i % len(self._symbols)],
                "ticks": [self._tick() for _ in range(trades)],
            }
            for i in range(count)
        ]

    def _tick(self) -> dict[str, Any]:
        time_ns, price, size, number, side, count = self._next()
        return {
            "type": "trade",
            "price": price,
            "size": size,
            "time_ns": time_ns,
            "id": number,
            "side": "buy" if side > 0 else "sell",
            "count": count,
        }

    def records(self, count: int) -> NDArray[np.void]:
        """Records of `TICK_DTYPE`."""
        rows = np.zeros(count, pk.TICK_DTYPE)
        columns = list(zip(*self.calls(count), strict=True))
        names = ("time_ns", "price", "size", "id", "side", "count")
        for name, column in zip(names, columns, strict=True):
            rows[name] = column
        rows["type"] = pk.TICK_TYPES["trade"]
        return rows
