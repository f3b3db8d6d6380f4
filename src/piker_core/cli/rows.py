"""Rows and ticks as objects for JSON lines, and as texts for tables."""

from typing import Any

import msgspec

from piker_core.cli.output import decimal_text, utc_text
from piker_core.core.rings import BarReader
from piker_core.dtypes import OHLCV_DTYPE, TICK_TYPES, BarFlag
from piker_core.symbols import MktPair

BAR_COLUMNS = (
    *("time (UTC)", "open", "high", "low", "close"),
    *("volume", "count", "bar_wap", "flags"),
)
BAR_WIDTHS = (19, 12, 12, 12, 12, 16, 6, 16, 0)
BAR_RIGHT = (False, True, True, True, True, True, True, True, False)
TICK_COLUMNS = (
    *("time (UTC)", "market", "type", "price", "size"),
    *("side", "count", "id", "delay ms"),
)
TICK_WIDTHS = (26, 20, 10, 12, 16, 4, 5, 14, 9)
TICK_RIGHT = (False, False, False, True, True, False, True, True, True)
_TYPE_NAMES = {code: name for name, code in TICK_TYPES.items()}
_SIDES = {1: "buy", -1: "sell"}


def flag_names(flags: int) -> list[str]:
    """A row's flags spelled out, lower bits first."""
    return [flag.name for flag in BarFlag if flags & flag and flag.name]


def bar_fields(row: tuple[Any, ...]) -> dict[str, Any]:
    """A row as an object: the fields of `OHLCV_DTYPE` and its flags by name."""
    fields = dict(zip(OHLCV_DTYPE.names or (), row, strict=True))
    return fields | {"flag_names": flag_names(row[-1])}


def bar_cells(row: tuple[Any, ...], digits: int | None = None) -> tuple[str, ...]:
    """A row as the texts of `BAR_COLUMNS`, prices with so many decimals."""
    _, time_s, *prices, volume, count, wap, flags = row
    texts = [price_text(price, digits) for price in prices]
    tail = (decimal_text(volume), str(count), decimal_text(wap))
    return (utc_text(time_s), *texts, *tail, " ".join(flag_names(flags)))


def price_text(price: float, digits: int | None) -> str:
    """A price with so many decimals; None: as many as it needs."""
    return decimal_text(price) if digits is None else f"{price:.{digits}f}"


def digits_of(bars: BarReader) -> int | None:
    """Decimals of a ring's prices, if its writer has left a description."""
    try:
        return msgspec.json.decode(bars.about, type=MktPair).price_digits
    except msgspec.MsgspecError:
        return None


def tick_fields(record: tuple[Any, ...], fqme: str) -> dict[str, Any]:
    """A tick as an object: the fields of `TICK_DTYPE`, its codes spelled out."""
    seq, time_ns, recv_ns, price, size, number, _, count, code, side, flags = record
    return {
        "seq": seq,
        "market": fqme,
        "type": _TYPE_NAMES.get(code, str(code)),
        "price": price,
        "size": size,
        "side": _SIDES.get(side, ""),
        "time_ns": time_ns,
        "recv_ns": recv_ns,
        "id": number,
        "count": count,
        "flags": flags,
    }


def tick_cells(record: tuple[Any, ...], fqme: str) -> tuple[str, ...]:
    """A tick as the texts of `TICK_COLUMNS`."""
    fields = tick_fields(record, fqme)
    delay_ms = (fields["recv_ns"] - fields["time_ns"]) / 1e6
    return (
        utc_text(fields["time_ns"] / 1e9, 6),
        fqme,
        fields["type"],
        decimal_text(fields["price"]),
        decimal_text(fields["size"]),
        fields["side"],
        str(fields["count"]),
        str(fields["id"]) if fields["id"] else "",
        f"{delay_ms:.1f}",
    )
