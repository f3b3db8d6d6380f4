"""The text of every frame a simulated Kraken sends over WebSocket v2.

Keys, their order and the precision of numbers follow frames recorded from the venue:
JSON numbers carry the pair's decimals (0.00005000), times are cut to microseconds, and
`interval_begin` and the `ohlc` envelope have nanoseconds.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from piker_core.simulation.listing import SIZE_DECIMALS
from piker_core.simulation.market import NS
from piker_core.simulation.numbers import fixed_text
from piker_core.simulation.totals import Rows, Totals, total

from .venue_pairs import PairMarket, VenueAsset, VenuePair

HEARTBEAT = b'{"channel":"heartbeat"}'
INTERVALS = (1, 5, 15, 30, 60, 240, 1440, 10080, 21600)
SNAPSHOT_BARS = 10
SNAPSHOT_TRADES = 50

encode_json = msgspec.json.encode


def fixed(units: int, decimals: int) -> msgspec.Raw:
    """An integer of 10**-decimals as a JSON number with that many decimals."""
    return msgspec.Raw(fixed_text(units, decimals).encode())


def stamp_us(time_ns: int) -> str:
    """RFC 3339 UTC, cut to microseconds."""
    seconds, rest = divmod(time_ns, NS)
    return (
        f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"
    )


def stamp_ns(time_ns: int) -> str:
    """RFC 3339 UTC with nanoseconds."""
    seconds, rest = divmod(time_ns, NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def status_frame(system: str, connection_id: int) -> bytes:
    """Sent on connect and whenever the engine's state changes."""
    return encode_json(
        {
            "channel": "status",
            "type": "update",
            "data": [
                {
                    "version": "2.0.10",
                    "system": system,
                    "api_version": "v2",
                    "connection_id": connection_id,
                    "upcoming_maintenance": [],
                    "emergency": [],
                }
            ],
        }
    )


def ack_frame(
    method: str,
    result: dict[str, object],
    req_id: int | None,
    times: tuple[int, int],
) -> bytes:
    """A request was taken."""
    frame: dict[str, object] = {"method": method}
    if req_id is not None:
        frame["req_id"] = req_id
    return encode_json(frame | {"result": result, "success": True} | _times(times))


def refusal_frame(
    method: str | None,
    error: str,
    req_id: int | None,
    times: tuple[int, int],
    *,
    symbol: str | None = None,
) -> bytes:
    """A request was refused, with the venue's reason."""
    frame: dict[str, object] = {"error": error}
    if method is not None:
        frame["method"] = method
    if req_id is not None:
        frame["req_id"] = req_id
    frame["success"] = False
    if symbol is not None:
        frame["symbol"] = symbol
    return encode_json(frame | _times(times))


def pong_frame(req_id: int | None, times: tuple[int, int]) -> bytes:
    """The answer to a ping request."""
    frame: dict[str, object] = {"method": "pong"}
    if req_id is not None:
        frame["req_id"] = req_id
    return encode_json(frame | _times(times))


def _times(times: tuple[int, int]) -> dict[str, object]:
    return {"time_in": stamp_us(times[0]), "time_out": stamp_us(times[1])}


def trade_frame(pair: VenuePair, rows: Rows, *, snapshot: bool = False) -> bytes:
    """Trades of one pair in the order of the rows."""
    trades = [
        {
            "symbol": pair.symbol,
            "side": "buy" if buy else "sell",
            "price": fixed(price, pair.price_decimals),
            "qty": fixed(size, SIZE_DECIMALS),
            "ord_type": "market" if at_market else "limit",
            "trade_id": trade_id,
            "timestamp": stamp_us(time_ns),
        }
        for time_ns, price, size, trade_id, _, buy, at_market in rows.tolist()
    ]
    kind = "snapshot" if snapshot else "update"
    return encode_json({"channel": "trade", "type": kind, "data": trades})


def ticker_frame(market: PairMarket, now_ns: int, *, snapshot: bool = False) -> bytes:
    """Best quote and the figures of the last 24 hours."""
    quote, decimals = market.quote, market.pair.price_decimals
    last = market.last_units()
    day = market.day(now_ns) or Totals(last, last, last, last, 0, 0, 0)
    change = last - day.open
    ticker = {
        "symbol": market.pair.symbol,
        "bid": fixed(quote.bid, decimals),
        "bid_qty": fixed(quote.bid_size, SIZE_DECIMALS),
        "ask": fixed(quote.ask, decimals),
        "ask_qty": fixed(quote.ask_size, SIZE_DECIMALS),
        "last": fixed(last, decimals),
        "volume": fixed(day.volume, SIZE_DECIMALS),
        "vwap": fixed(int(day.vwap), decimals),
        "low": fixed(day.low, decimals),
        "high": fixed(day.high, decimals),
        "change": fixed(change, decimals),
        "change_pct": fixed(round(change * 10000 / day.open), 2),
        "trades": day.count,
        "timestamp": stamp_us(quote.time_ns),
    }
    kind = "snapshot" if snapshot else "update"
    return encode_json({"channel": "ticker", "type": kind, "data": [ticker]})


def ohlc_update(market: PairMarket, interval: int, now_ns: int) -> bytes | None:
    """The running bar of an interval in minutes; None if nothing traded in it."""
    begin_s = now_ns // NS // (interval * 60) * interval * 60
    rows = market.between(begin_s * NS, now_ns + 1)
    if not len(rows):
        return None
    bars = [(begin_s, total(rows))]
    return _ohlc_frame(market.pair, interval, bars, int(rows["time_ns"][-1]), "update")


def ohlc_snapshot(market: PairMarket, interval: int, now_ns: int) -> bytes:
    """The newest bars that traded; silent intervals are absent."""
    period_s = interval * 60
    end_s = now_ns // NS // period_s * period_s + period_s
    bars = market.bars(period_s, end_s - 4 * SNAPSHOT_BARS * period_s, end_s)
    traded = [row for row in bars if row[1].count][-SNAPSHOT_BARS:]
    return _ohlc_frame(market.pair, interval, traded, now_ns, "snapshot")


def _ohlc_frame(
    pair: VenuePair,
    interval: int,
    bars: Sequence[tuple[int, Totals]],
    time_ns: int,
    kind: str,
) -> bytes:
    decimals = pair.price_decimals
    rows = [
        {
            "symbol": pair.symbol,
            "open": fixed(bar.open, decimals),
            "high": fixed(bar.high, decimals),
            "low": fixed(bar.low, decimals),
            "close": fixed(bar.close, decimals),
            "trades": bar.count,
            "volume": fixed(bar.volume, SIZE_DECIMALS),
            "vwap": fixed(int(bar.vwap), decimals),
            "interval_begin": stamp_ns(begin_s * NS),
            "interval": interval,
            "timestamp": stamp_us((begin_s + interval * 60) * NS),
        }
        for begin_s, bar in bars
    ]
    return encode_json(
        {"channel": "ohlc", "type": kind, "timestamp": stamp_ns(time_ns), "data": rows}
    )


def instrument_snapshot(
    pairs: Sequence[VenuePair], assets: Sequence[VenueAsset]
) -> bytes:
    """Every asset and pair the venue lists."""
    listed = {
        "assets": [_asset_row(asset) for asset in assets],
        "pairs": [_pair_row(pair) for pair in pairs],
    }
    return encode_json({"channel": "instrument", "type": "snapshot", "data": listed})


def _asset_row(asset: VenueAsset) -> dict[str, object]:
    row: dict[str, object] = {
        "id": asset.name,
        "status": "enabled",
        "precision": asset.decimals,
        "precision_display": asset.display_decimals,
        "borrowable": asset.borrowable,
        "collateral_value": msgspec.Raw(b"1.00" if asset.borrowable else b"0.00"),
    }
    if asset.borrowable:
        row["margin_rate"] = msgspec.Raw(b"0.020000")
    return row


def _pair_row(pair: VenuePair) -> dict[str, object]:
    least = msgspec.Raw(str(pair.tick).encode())
    marginable = pair.live_share > 0
    row: dict[str, object] = {
        "symbol": pair.symbol,
        "base": pair.base.name,
        "quote": pair.quote.name,
        "status": "online",
        "qty_precision": SIZE_DECIMALS,
        "qty_increment": msgspec.Raw(b"1E-8"),
        "price_precision": pair.price_decimals,
        "cost_precision": pair.cost_decimals,
        "marginable": marginable,
        "has_index": marginable,
        "cost_min": msgspec.Raw(b"0.50"),
    }
    if marginable:
        row |= {
            "margin_initial": msgspec.Raw(b"0.20"),
            "position_limit_long": 300,
            "position_limit_short": 240,
        }
    smallest = msgspec.Raw(f"{float(pair.size_min):.{SIZE_DECIMALS}f}".encode())
    return row | {"tick_size": least, "price_increment": least, "qty_min": smallest}
