"""Binance spot and USD-M futures: quotes over WebSocket, history over REST, no keys."""

from piker_core.dtypes import OHLCV_DTYPE as ohlc_dtype

from .api import (
    Client,
    Config,
    get_client,
    get_mkt_info,
    name,
    open_symbol_search,
)
from .feed import stream_quotes
from .history import open_history_client
from .wire import FRAMES as frames
from .wire import norm_trade

capabilities = {
    "quotes": True,
    "history": True,
    "search": True,
    "orders": False,
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
    "stream_quotes",
]
