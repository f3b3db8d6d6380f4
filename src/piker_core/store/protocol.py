"""What a store of bars is: the words and calls that all kinds of stores share."""

from types import TracebackType
from typing import Protocol, Self

import msgspec
import numpy as np
from numpy.typing import NDArray


class Series(msgspec.Struct, frozen=True, order=True):
    """Bars of one market and period in a store.

    `first_s` and `last_s` are the opens of the oldest and the newest row.
    """

    fqme: str
    period: int
    rows: int
    first_s: int
    last_s: int


class Store(Protocol):
    """Bars at rest. Calls block; any threads may share a store.

    `fqme` is a market's name, `period` whole seconds. Times are seconds UTC. All raise
    StoreError where the store, or what is in it, is at fault, PikerError for what is no
    market name, ValueError and TypeError for other arguments.
    """

    def write_ohlcv(self, fqme: str, period: int, rows: NDArray[np.void]) -> int:
        """Put rows into a series, in place of those of the same times.

        `rows` are of OHLCV_DTYPE, or of its fields without `flags` (0 then); `index` is
        not kept. They are sorted, and of two with one time the last is taken. Rows that
        are not in the batch stay. Returns how many rows are new or changed; they are on
        disk by then. Before, each row is the old or the new one.
        """
        ...

    def read_ohlcv(
        self,
        fqme: str,
        period: int,
        start_s: int | None = None,
        end_s: int | None = None,
    ) -> NDArray[np.void]:
        """Rows of OHLCV_DTYPE with start <= time < end, ascending, a copy.

        None is no bound; `index` counts from 0. An unknown series has no rows.
        """
        ...

    def series(self) -> list[Series]:
        """What there is, sorted."""
        ...

    def gaps(self, fqme: str, period: int) -> NDArray[np.void]:
        """Holes of a series, as HOLE_DTYPE (`start_ns`, `end_ns`), ascending.

        A hole is half-open, within the series, without a row or with placeholders
        (SYNTHETIC_GAP) only.
        """
        ...

    def delete(
        self,
        fqme: str,
        period: int,
        start_s: int | None = None,
        end_s: int | None = None,
    ) -> int:
        """Remove the rows with start <= time < end; returns how many there were."""
        ...

    def close(self) -> None:
        """Let go of what the store holds; it can be called again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
