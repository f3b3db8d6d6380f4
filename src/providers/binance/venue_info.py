"""The symbols of a simulated Binance as `exchangeInfo` describes them.

Both sides carry a filter and a field that no client has ever heard of, as the venue
adds several a year.
"""

from .venue_symbols import TRADING, VenueSymbol

_ORDER_TYPES = ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT"]
_ORDER_TYPES += ["TAKE_PROFIT", "TAKE_PROFIT_LIMIT"]
_USDM_ORDER_TYPES = ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT"]
_USDM_ORDER_TYPES += ["TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"]
_PREVENTION = ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT"]
_PREVENTION += ["NEWLY_INVENTED"]
UNKNOWN_FILTER: dict[str, object] = {
    "filterType": "NEWLY_INVENTED",
    "steps": [{"from": "0.00000000", "size": "1.00000000"}],
    "enabled": True,
}
PERMISSIONS = ("SPOT", "MARGIN", "TRD_GRP_004", "TRD_GRP_005")


def rate_limits(weight: int, orders: tuple[int, int]) -> list[dict[str, object]]:
    """The limits as `exchangeInfo` lists them; orders in 10 s and in a day."""
    rows: tuple[tuple[str, str, int, int], ...] = (
        ("REQUEST_WEIGHT", "MINUTE", 1, weight),
        ("ORDERS", "SECOND", 10, orders[0]),
        ("ORDERS", "DAY", 1, orders[1]),
        ("RAW_REQUESTS", "MINUTE", 5, 300_000),
    )
    names = ("rateLimitType", "interval", "intervalNum", "limit")
    return [dict(zip(names, row, strict=True)) for row in rows]


def describe_spot(symbol: VenueSymbol, status: str, *, sets: bool) -> dict[str, object]:
    """A row of spot `exchangeInfo`; permission sets are left out unless asked for."""
    margin = symbol.live_share > 0
    return {
        "symbol": symbol.symbol,
        "status": status,
        "baseAsset": symbol.base,
        "baseAssetPrecision": 8,
        "quoteAsset": symbol.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": _ORDER_TYPES,
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": True,
        "isSpotTradingAllowed": symbol.status == TRADING,
        "isMarginTradingAllowed": margin,
        "newlyInventedAllowed": {"since": 1790000000000, "modes": []},
        "filters": _spot_filters(symbol),
        "permissions": [],
        "permissionSets": [list(permissions_of(symbol))] if sets else [],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": _PREVENTION,
    }


def permissions_of(symbol: VenueSymbol) -> tuple[str, ...]:
    """Any of these lets an account trade the symbol."""
    return tuple(p for p in PERMISSIONS if p != "MARGIN" or symbol.live_share > 0)


def _spot_filters(symbol: VenueSymbol) -> list[dict[str, object]]:
    tick = symbol.price_text(symbol.tick_units)
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": tick,
            "maxPrice": symbol.price_text(symbol.start_units * 100),
            "tickSize": tick,
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": f"{float(symbol.size_min):.8f}",
            "maxQty": "9000000.00000000",
            "stepSize": symbol.size_text(symbol.step_units),
        },
        {"filterType": "ICEBERG_PARTS", "limit": 10},
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": "0.00000000",
            "maxQty": "1378.22417541",
            "stepSize": "0.00000000",
        },
        UNKNOWN_FILTER,
        {
            "filterType": "TRAILING_DELTA",
            "minTrailingAboveDelta": 10,
            "maxTrailingAboveDelta": 2000,
            "minTrailingBelowDelta": 10,
            "maxTrailingBelowDelta": 2000,
        },
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": "5",
            "bidMultiplierDown": "0.2",
            "askMultiplierUp": "5",
            "askMultiplierDown": "0.2",
            "avgPriceMins": 5,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": "5.00000000" if symbol.quote == "USDT" else "0.00010000",
            "applyMinToMarket": True,
            "maxNotional": "9000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
    ]


def describe_usdm(symbol: VenueSymbol, status: str) -> dict[str, object]:
    """A row of USD-M `exchangeInfo`."""
    return {
        "symbol": symbol.symbol,
        "pair": symbol.pair,
        "contractType": symbol.contract,
        "deliveryDate": symbol.delivery_ms,
        "onboardDate": 1569398400000,
        "status": status,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": symbol.base,
        "quoteAsset": symbol.quote,
        "marginAsset": symbol.quote,
        "pricePrecision": symbol.price_decimals,
        "quantityPrecision": symbol.size_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": ["PoW"],
        "settlePlan": 0,
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10000,
        "newlyInvented": ["GRID"],
        "filters": _usdm_filters(symbol),
        "orderTypes": _USDM_ORDER_TYPES,
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD", "RPI"],
        "permissionSets": ["GRID", "COPY", "DCA", "RPI"],
    }


def _usdm_filters(symbol: VenueSymbol) -> list[dict[str, object]]:
    step = symbol.size_text(symbol.step_units)
    tick = symbol.price_text(symbol.tick_units)
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": tick,
            "maxPrice": symbol.price_text(symbol.start_units * 100),
            "tickSize": tick,
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": step,
            "maxQty": "1000",
            "stepSize": step,
        },
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": step,
            "maxQty": "120",
            "stepSize": step,
        },
        {"filterType": "MAX_NUM_ORDERS", "limit": 200},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "limit": 10},
        {"filterType": "MIN_NOTIONAL", "notional": "5"},
        {
            "filterType": "PERCENT_PRICE",
            "multiplierUp": "1.0500",
            "multiplierDown": "0.9500",
            "multiplierDecimal": "4",
        },
        {"filterType": "POSITION_RISK_CONTROL", "positionControlSide": "NONE"},
        UNKNOWN_FILTER,
    ]


def assets(symbols: list[VenueSymbol]) -> list[dict[str, object]]:
    """The margin assets of USD-M `exchangeInfo`."""
    names = dict.fromkeys(symbol.quote for symbol in symbols)
    return [
        {"asset": name, "marginAvailable": True, "autoAssetExchange": "-10000"}
        for name in names
    ]
