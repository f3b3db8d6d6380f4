"""Binance spot and USD-M futures: quotes, history without keys, and orders."""

from piker_core.dtypes import OHLCV_DTYPE as ohlc_dtype

from .api import (
    Client,
    Config,
    get_client,
    get_mkt_info,
    name,
    open_symbol_search,
)
from .broker import open_trade_dialog
from .feed import stream_quotes
from .history import open_history_client
from .reports import norm_trade
from .wire import FRAMES as frames

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
