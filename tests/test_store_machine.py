"""The Parquet store against a dict, in whatever order its calls come."""

import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

import piker_core as pk
from tests.store_rows import FEB_S, JAN_S, bars, check_same

pytest.importorskip("pyarrow")

NS = 10**9
YEAR_S = JAN_S - 31_536_000
BORDERS = (0, YEAR_S, JAN_S, JAN_S + 86_400, FEB_S, FEB_S + 29 * 86_400)
KEYS = (("a.kraken", 1), ("a.kraken", 60), ("a.b.kraken", 60), ("c.ib", 86_400))

keys = st.sampled_from(KEYS)
spots = st.tuples(st.sampled_from(BORDERS), st.integers(-20, 20))
batches = st.dictionaries(spots, st.integers(0, 2), max_size=12)
bounds = st.none() | spots


class StoreMachine(RuleBasedStateMachine):
    """Writes, reads, removals, opening again: what a dict does, a store does."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="piker-store-"))
        self.model: dict[tuple[str, int], dict[int, int]] = {key: {} for key in KEYS}
        self.open()

    def open(self) -> None:
        self.store = pk.open_store(f"parquet://{self.folder}")

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.open()

    @rule(key=keys, batch=batches, turned=st.booleans())
    def write(self, key: tuple[str, int], batch: dict[Any, int], turned: bool) -> None:
        given = {self.time(key, spot): version for spot, version in batch.items()}
        given = {time: version for time, version in given.items() if time >= 0}
        parts = [bars([time], version) for time, version in given.items()]
        rows = np.concatenate([bars([]), *(parts[::-1] if turned else parts)])
        held = self.model[key]
        changed = sum(held.get(time) != new for time, new in given.items())
        assert self.store.write_ohlcv(*key, rows) == changed
        held.update(given)

    @rule(key=keys, start=bounds, end=bounds)
    def remove(self, key: tuple[str, int], start: Any, end: Any) -> None:
        inside = self.inside(key, start, end)
        removed = self.store.delete(*key, *self.range(key, start, end))
        assert removed == len(inside)
        for time in inside:
            del self.model[key][time]

    @rule(key=keys, start=bounds, end=bounds)
    def read(self, key: tuple[str, int], start: Any, end: Any) -> None:
        held = self.model[key]
        wanted = [bars([time], held[time]) for time in self.inside(key, start, end)]
        rows = self.store.read_ohlcv(*key, *self.range(key, start, end))
        check_same(rows, np.concatenate([bars([]), *wanted]))

    @rule(key=keys)
    def find_holes(self, key: tuple[str, int]) -> None:
        times, period = sorted(self.model[key]), key[1]
        assert self.store.gaps(*key).tolist() == [
            ((before + period) * NS, after * NS)
            for before, after in pairwise(times)
            if after > before + period
        ]

    @invariant()
    def lists_what_there_is(self) -> None:
        assert self.store.series() == sorted(
            pk.Series(*key, len(held), min(held), max(held))
            for key, held in self.model.items()
            if held
        )

    @staticmethod
    def time(key: tuple[str, int], spot: tuple[int, int]) -> int:
        """A time near a border, on the period."""
        border, steps = spot
        return border + steps * key[1]

    def range(self, key: tuple[str, int], *spots: Any) -> list[int | None]:
        return [None if spot is None else self.time(key, spot) for spot in spots]

    def inside(self, key: tuple[str, int], start: Any, end: Any) -> list[int]:
        low, high = self.range(key, start, end)
        return [
            time
            for time in sorted(self.model[key])
            if (low is None or low <= time) and (high is None or time < high)
        ]

    def teardown(self) -> None:
        self.store.close()
        left = [path.name for path in self.folder.rglob("*") if path.is_file()]
        assert all(name.endswith(".parquet") for name in left)
        shutil.rmtree(self.folder)


StoreMachine.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


TestStoreMachine = StoreMachine.TestCase
