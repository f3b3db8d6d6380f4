"""Bars at rest by other libraries, where these are installed (the extra `bench`)."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS = (
    *("time", "open", "high", "low", "close", "volume", "count", "bar_wap", "flags"),
)
Columns = dict[str, Any]


def columns_of(rows: NDArray[np.void]) -> dict[str, NDArray[Any]]:
    """The columns of some rows, each by itself."""
    return {name: np.ascontiguousarray(rows[name]) for name in COLUMNS}


class DuckTable:
    """A table in a database file of DuckDB's own, its key the time."""

    def __init__(self, path: Path) -> None:
        import duckdb

        self.path = path
        self._connection = duckdb.connect(str(path))
        types = ", ".join(
            f"{name} {'BIGINT' if name in ('time', 'count', 'flags') else 'DOUBLE'}"
            for name in COLUMNS
        )
        self._connection.execute(f"CREATE TABLE bars ({types}, PRIMARY KEY (time))")

    def write(self, rows: NDArray[np.void]) -> None:
        """Put rows in, in place of those of the same times; they are on disk then."""
        columns = columns_of(rows)
        self._connection.register("given", columns)
        self._connection.execute("INSERT OR REPLACE INTO bars SELECT * FROM given")
        self._connection.unregister("given")

    def settle(self) -> None:
        """Move what is in the log into the table's own pages."""
        self._connection.execute("CHECKPOINT")

    def read(self, start_s: int, end_s: int) -> Columns:
        """Columns of the rows of a range, in order."""
        query = "SELECT * FROM bars WHERE time >= ? AND time < ? ORDER BY time"
        return dict(self._connection.execute(query, [start_s, end_s]).fetchnumpy())

    def close(self) -> None:
        self._connection.close()


def duckdb_on_files(paths: list[str], start_s: int, end_s: int) -> Columns:
    """Columns of a range of Parquet files by DuckDB."""
    import duckdb

    query = (
        f"SELECT {', '.join(COLUMNS)} FROM read_parquet(?) "
        "WHERE time >= ? AND time < ? ORDER BY time"
    )
    with duckdb.connect() as connection:
        found = connection.execute(query, [paths, start_s, end_s])
        return dict(found.fetchnumpy())


def polars_on_files(paths: list[str], start_s: int, end_s: int) -> Columns:
    """Columns of a range of Parquet files by polars."""
    import polars as pl

    time = pl.col("time")
    frame = (
        pl.scan_parquet(paths, hive_partitioning=False)
        .filter((time >= start_s) & (time < end_s))
        .sort("time")
        .collect()
    )
    return {name: frame[name].to_numpy() for name in COLUMNS}


def polars_write(rows: NDArray[np.void], path: Path) -> None:
    """One Parquet file as polars writes it; nothing waits for the disk."""
    import polars as pl

    pl.DataFrame(columns_of(rows)).write_parquet(path)
