"""Market-data feed engine: exact bars in crash-proof shared-memory rings.

The floors, lower ones know nothing of higher ones:

    core/        0  C: atomics, segment, ring, ticks, fold; no Python
                 1  Cython: rings and ticks (reading), engine (writing)
    orders       2  messages of orders
    symbols      2  assets and markets; fqme is their names, steps the decimal steps
    provider     3  the provider protocol, broker that of orders; config; segments of
                    this machine; symbol_table, search and cache: a venue's markets by
                    all their names; calendars: when a market is open; tasks:
                    nurseries, waits
    store        3  bars at rest: a folder of Parquet files, or a database; digest: what
                    a day of them is
    journal      3  what came over the wire, in segments of checked blocks
    adapter      3  what providers of public venues have in common; simulation the same
                    for simulated venues
    control      3  what a writer and the feeds attached to it say to each other:
                    control_server and control_socket; cutoff ends a market of a call
    feed         4  open_feed and its streams (quotes); source writes a provider's rings
                    or follows who does; feeder runs its calls (stream) into an engine,
                    for as long as anyone wants their markets
    history      4  fills rings with what was before, backfill a store; fetch asks the
                    venues for it; keeper stores what the rings get
    replay       4  a journal into rings; recorder writes one
    ems          5  open_ems: orders, and the gateway that keeps them
    conformance  5  is a provider what the contract says: the kit behind `check`
    cli          6  the command line

`errors`, `dtypes`, `messages`, `channel` and `waiting` are the words and the trio ends
of the compiled modules. The reading side imports numpy and msgspec only.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from piker_core.core.engine import BarWriter, FeedEngine, Market, open_engine
    from piker_core.core.fold import fold_ticks
    from piker_core.core.rings import BarReader, attach_bars
    from piker_core.core.ticks import TickCursor, TickReader, attach_ticks
    from piker_core.dtypes import (
        GAP_DTYPE,
        OHLCV_DTYPE,
        TICK_DTYPE,
        TICK_TYPES,
        BarFlag,
    )
    from piker_core.ems import OrderClient, open_ems
    from piker_core.errors import (
        BadTick,
        ConfigError,
        DataThrottle,
        DataUnavailable,
        FeedError,
        JournalError,
        NoData,
        NotFound,
        OrderError,
        PikerError,
        ProviderError,
        SegmentError,
        StoreError,
        WriterBusy,
    )
    from piker_core.feed import Feed, Flume, open_feed
    from piker_core.messages import FeedInit, Quote, Tick
    from piker_core.orders import (
        BrokerdCancel,
        BrokerdError,
        BrokerdFill,
        BrokerdOrder,
        BrokerdOrderAck,
        BrokerdPosition,
        BrokerdStatus,
        Cancel,
        Order,
        Status,
    )
    from piker_core.segments import list_segments, remove_segments
    from piker_core.store import Series, Store, open_store
    from piker_core.symbols import Asset, MktPair

__version__ = "0.1.0"

_ROOMS = {
    "core.engine": ("BarWriter", "FeedEngine", "Market", "open_engine"),
    "core.fold": ("fold_ticks",),
    "core.rings": ("BarReader", "attach_bars"),
    "core.ticks": ("TickCursor", "TickReader", "attach_ticks"),
    "dtypes": ("GAP_DTYPE", "OHLCV_DTYPE", "TICK_DTYPE", "TICK_TYPES", "BarFlag"),
    "ems": ("OrderClient", "open_ems"),
    "errors": (
        "BadTick",
        "ConfigError",
        "DataThrottle",
        "DataUnavailable",
        "FeedError",
        "JournalError",
        "NoData",
        "NotFound",
        "OrderError",
        "PikerError",
        "ProviderError",
        "SegmentError",
        "StoreError",
        "WriterBusy",
    ),
    "feed": ("Feed", "Flume", "open_feed"),
    "messages": ("FeedInit", "Quote", "Tick"),
    "orders": (
        "BrokerdCancel",
        "BrokerdError",
        "BrokerdFill",
        "BrokerdOrder",
        "BrokerdOrderAck",
        "BrokerdPosition",
        "BrokerdStatus",
        "Cancel",
        "Order",
        "Status",
    ),
    "segments": ("list_segments", "remove_segments"),
    "store": ("Series", "Store", "open_store"),
    "symbols": ("Asset", "MktPair"),
}
_LATER = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "GAP_DTYPE",
    "OHLCV_DTYPE",
    "TICK_DTYPE",
    "TICK_TYPES",
    "Asset",
    "BadTick",
    "BarFlag",
    "BarReader",
    "BarWriter",
    "BrokerdCancel",
    "BrokerdError",
    "BrokerdFill",
    "BrokerdOrder",
    "BrokerdOrderAck",
    "BrokerdPosition",
    "BrokerdStatus",
    "Cancel",
    "ConfigError",
    "DataThrottle",
    "DataUnavailable",
    "Feed",
    "FeedEngine",
    "FeedError",
    "FeedInit",
    "Flume",
    "JournalError",
    "Market",
    "MktPair",
    "NoData",
    "NotFound",
    "Order",
    "OrderClient",
    "OrderError",
    "PikerError",
    "ProviderError",
    "Quote",
    "SegmentError",
    "Series",
    "Status",
    "Store",
    "StoreError",
    "Tick",
    "TickCursor",
    "TickReader",
    "WriterBusy",
    "attach_bars",
    "attach_ticks",
    "fold_ticks",
    "list_segments",
    "open_ems",
    "open_engine",
    "open_feed",
    "open_store",
    "remove_segments",
]


def __getattr__(name: str) -> Any:
    """Every name is imported when it is first asked for: the command line needs few."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
