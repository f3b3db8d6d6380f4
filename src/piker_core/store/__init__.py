"""Stores of bars: a folder of Parquet files, or a PostgreSQL database.

protocol        what a store is: Store, Series
opening         open_store: the store that a URL names
rows            checks, merging and holes of rows, the same for all stores
parquet         the store that is a folder; parquet_files is what a file of it is,
                parquet_folder where files are and how they are replaced
"""

from piker_core.store.opening import open_store
from piker_core.store.protocol import Series, Store

__all__ = ["Series", "Store", "open_store"]
