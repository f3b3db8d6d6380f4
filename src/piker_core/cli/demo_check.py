"""Are the bars in the rings the venue's own candles?"""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec

from piker_core.cli.output import utc_text
from piker_core.feed import Flume

SIZE_TICK = Decimal("1e-8")
Row = tuple[Any, ...]


class Comparison(msgspec.Struct):
    """How many bars and trades were compared, and what was not equal."""

    bars: int = 0
    equal: int = 0
    trades: int = 0
    counted: int = 0
    unequal: list[str] = []

    @property
    def good(self) -> bool:
        """Whether something was compared and all of it was equal."""
        return self.bars > 0 and self.equal == self.bars and self.counted == self.trades

    def fields(self) -> dict[str, Any]:
        """For a JSON line."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields


def compare(
    venue: Any,
    flumes: Mapping[str, Flume],
    names: Mapping[str, str],
    start_s: int,
    end_s: int,
) -> Comparison:
    """Compare the 1 s rows with start <= time < end with the venue's candles.

    There must be a row for every second, and no other. `names`: by full market name,
    what the venue calls it.
    """
    result = Comparison()
    for fqme, flume in flumes.items():
        candles = {
            candle.time_s: candle
            for candle in venue.candles(names[fqme], 1, start_s, end_s)
        }
        rows = {row[1]: row for row in flume.rt.between(start_s, end_s).tolist()}
        for time_s in range(start_s, end_s):
            row, candle = rows.get(time_s), candles.get(time_s)
            result.bars += 1
            result.trades += candle.count if candle else 0
            result.counted += row[7] if row else 0
            problem = difference(row, candle)
            if problem:
                result.unequal.append(f"{fqme} {utc_text(time_s)}: {problem}")
            else:
                result.equal += 1
    return result


def difference(row: Row | None, candle: Any) -> str:
    """In what a row differs from a candle, empty if in nothing.

    Prices and count are equal, the volume to the last decimal of a size, and the mean
    price to the last bit but one.
    """
    if row is None or candle is None:
        return "no such bar" if candle else "the venue has no such candle"
    _, _, *prices, volume, count, wap, _ = row
    exact = [getattr(candle, name) for name in ("open", "high", "low", "close")]
    if prices != [float(price) for price in exact]:
        return f"prices {prices} instead of {[str(price) for price in exact]}"
    if count != candle.count:
        return f"{count} trades instead of {candle.count}"
    if Decimal(volume).quantize(SIZE_TICK) != candle.volume:
        return f"volume {volume} instead of {candle.volume}"
    mean = (
        float(Fraction(candle.notional) / Fraction(candle.volume))
        if count
        else prices[3]
    )
    if abs(wap - mean) > mean * 2.3e-16:
        return f"bar_wap {wap!r} instead of {mean!r}"
    return ""
