"""Interactive Brokers: any contract class by TWS or the IB Gateway; extra `ib`."""

from piker_core.dtypes import OHLCV_DTYPE as ohlc_dtype

from .api import (
    Client,
    get_client,
    get_mkt_info,
    name,
    open_symbol_search,
)
from .broker import open_trade_dialog
from .config import Config
from .feed import stream_quotes
from .history import open_history_client
from .order_words import norm_trade
from .tapped import FRAMES as frames

capabilities = {
    "quotes": True,
    "history": True,
    "search": True,
    "orders": True,
}

__all__ = [
    "Client",
    "Config",
    "capabilities",
    "frames",
    "get_client",
    "get_mkt_info",
    "name",
    "norm_trade",
    "ohlc_dtype",
    "open_history_client",
    "open_symbol_search",
    "open_trade_dialog",
    "stream_quotes",
]
